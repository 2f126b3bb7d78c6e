//! What is wrong with the text of a recording.

use std::io;
use std::path::PathBuf;

use crate::SceneError;

/// A recording that makes no scene.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A line is none of the tool's.
    #[error("{}: line {line}: {error}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1 on.
        line: u64,
        /// What is wrong.
        error: LineError,
    },
    /// There is nothing to make a scene of.
    #[error("no VM exit: the recording has no event kvm:kvm_exit")]
    NoExit,
    /// The recording is over where it begins.
    #[error("no time passes between the first event and the last")]
    NoTime,
    /// An option, or what follows from the recording, makes no scene.
    #[error(transparent)]
    Scene(#[from] SceneError),
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// Longer than any event.
    #[error("longer than {0} bytes")]
    TooLong(usize),
    /// The last line has no end.
    #[error("the text ends within the line")]
    Cut,
    /// No processor in brackets.
    #[error("no processor, like [003]; perf script needs the fields comm,tid,cpu,time,event,trace")]
    NoCpu,
    /// A number of a processor beyond what a scene may have.
    #[error("processor {0} is beyond 1023")]
    Cpu(String),
    /// No task before the processor.
    #[error("{0:?} is no task: perf script has NAME TID or NAME PID/TID, trace-cmd NAME-TID")]
    Task(String),
    /// The line is of the other tool.
    #[error("a line of {found}, in a text of {expected}")]
    Kind {
        /// Whose line it is.
        found: super::TextKind,
        /// Whose text it is.
        expected: super::TextKind,
    },
    /// No time behind the processor.
    #[error("{0:?} is no time: seconds with six or nine digits behind the point, and a colon")]
    Time(String),
    /// Earlier than the line before it on the same processor or of the same vCPU.
    #[error("{}.{:09} s is earlier than {}.{:09} s, before it on {on}", at / 1_000_000_000, at % 1_000_000_000,
        before / 1_000_000_000, before % 1_000_000_000)]
    Order {
        /// When it happened, in nanoseconds.
        at: u64,
        /// When that before it happened.
        before: u64,
        /// The processor or vCPU.
        on: String,
    },
    /// No name of an event.
    #[error("no name of an event behind the time")]
    NoEvent,
    /// A part of an event's text is missing or no such thing.
    #[error("{event}: {needed} is missing, before {at:?}")]
    Field {
        /// The event.
        event: &'static str,
        /// What should stand there.
        needed: &'static str,
        /// What stands there.
        at: String,
    },
    /// An exit of AMD's extension.
    #[error("kvm_exit: {0:?} is an exit of SVM: AMD's processors have no LBR of Intel's kind")]
    Svm(String),
    /// An exit that VMX does not have.
    #[error("kvm_exit: {0:?} is no exit of VMX")]
    Reason(String),
    /// The thread of a vCPU says it is another one.
    #[error("thread {thread} is vcpu {was} before, and vcpu {is} here")]
    Vcpu {
        /// The thread.
        thread: u32,
        /// Its vCPU so far.
        was: u32,
        /// That of this line.
        is: u32,
    },
    /// More than a scene may have.
    #[error("more than {0} vCPUs")]
    TooManyVcpus(usize),
    /// `cpus=` with no such number.
    #[error("{0:?} is no number of processors from 1 to 1024")]
    Cpus(String),
    /// Lost events without their number.
    #[error("{0:?} is no number of lost events")]
    Lost(String),
}
