//! Recorder that needs nothing but the kernel: a program is single-stepped with ptrace(2).
//!
//! Some ten thousand instructions a second; use it for short programs. Threads are followed, and
//! processes through fork, vfork, clone and exec. What is seen is delivered to the same
//! [`Sink`] as a recording of QEMU's plugin, all from one thread.
//!
//! * Instructions in a row up to a branch make a block. Code is read before each step, so code that
//!   modifies itself makes other blocks.
//! * The kernel stops once per repeat of a REP string instruction; it is delivered once, when it
//!   has retired.
//! * A signal that a handler takes is delivered as
//!   [`Discontinuity`](crate::qemu::EventKind::Discontinuity): an exception if the kernel raised it
//!   for an instruction, else an interrupt.
//! * Job-control stops are not obeyed: a stopped tracee goes on. Addresses are not randomised.
//! * 64-bit programs only.

mod code;
mod error;
mod sys;
mod thread;
mod tracer;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::sync::atomic::AtomicBool;

use crate::qemu::{Outcome, Progress, Sink};

pub use error::Error;

/// A program to record.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Program, searched on PATH unless it has a slash.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// Runs the program to its end and delivers all of its process tree to `sink`. When `stop` becomes
/// true, all tracees are killed; what they ran until then is delivered.
///
/// # Errors
/// The program cannot be started or is not 64-bit, the kernel refuses, or the sink failed. The
/// tracees are killed then.
pub fn record<S: Sink>(
    options: &Options,
    sink: &S,
    stop: &AtomicBool,
    progress: &Progress,
) -> Result<Outcome, Error> {
    // ptrace(2) binds tracees to a thread; waiting in a thread of its own leaves the caller's
    // children alone.
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("ptrace".to_owned())
            .spawn_scoped(scope, || tracer::run(options, sink, stop, progress))
            .map_err(Error::io("starting the tracer's thread"))?
            .join()
            .unwrap_or(Err(Error::Crashed))
    })
}
