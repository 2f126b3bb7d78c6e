//! What a recording delivers, and to whom.

use std::sync::Arc;

use super::blocks::RawBlock;
use super::error::SinkError;
use super::maps::Mapping;

/// A process image of the recording, numbered in order of connection. An exec makes a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u32);

/// A vCPU or thread of the recording, numbered in order of its first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// What QEMU emulates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetMode {
    /// One Linux process (`qemu-x86_64`).
    User,
    /// A whole machine (`qemu-system-x86_64`).
    System,
}

/// Where a process image comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Started by the recorder, or by something the recorder did not see.
    Started,
    /// Forked by that process: its blocks, mappings and address space are the parent's.
    Forked {
        /// The parent.
        parent: ProcessId,
        /// The parent's thread that called fork, if it had run a block.
        stream: Option<StreamId>,
    },
    /// An exec replaced that image, under the same pid.
    Replaced(ProcessId),
}

/// A process image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Its number here.
    pub id: ProcessId,
    /// Host pid; guests under user emulation see the same one.
    pub pid: u32,
    /// Host pid of the parent.
    pub parent_pid: u32,
    /// Where it comes from.
    pub origin: Origin,
    /// User or system emulation.
    pub mode: TargetMode,
    /// QEMU's target name, `x86_64`.
    pub target: String,
    /// Plugin API version in use.
    pub api: u32,
    /// Whether blocks carry a [`super::RecordedMode`] and streams carry [`Event`]s.
    pub registers: bool,
    /// Program as QEMU was given it, raw bytes; empty in system mode.
    pub program: Vec<u8>,
    /// Command line of the guest program, raw bytes; empty in system mode.
    pub arguments: Vec<Vec<u8>>,
}

/// How a process image ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProcessEnd {
    /// It exited with this status (`exit_group`, or the end of QEMU).
    Exited(i32),
    /// An exec replaced it.
    Replaced,
    /// Its connection broke without a farewell: killed, or crashed.
    Killed,
    /// The recording was over before it.
    Detached,
}

/// A vCPU or thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamInfo {
    /// Its number here.
    pub id: StreamId,
    /// Its process image.
    pub process: ProcessId,
    /// QEMU's vCPU index, reused after a thread has ended.
    pub vcpu: u32,
    /// Host thread id; the guest's own under user emulation.
    pub tid: u32,
}

/// Why a stream ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StreamEnd {
    /// The thread ended, its process went on.
    ThreadExit,
    /// The process image ended.
    Process(ProcessEnd),
    /// The ring's content made no sense from here on.
    Damaged(String),
}

/// A data access of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemoryAccess {
    /// How many of the batch's `ids` precede it: the access belongs to the last of these, or with 0
    /// to the last block of the batch before.
    pub preceding: u32,
    /// Index of the instruction in its block.
    pub instruction: u16,
    /// Linear address.
    pub address: u64,
    /// Size in bytes.
    pub size: u32,
    /// Write, else read.
    pub store: bool,
}

/// Width of a port access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PortSize {
    /// 8 bits.
    Byte = 1,
    /// 16 bits.
    Word = 2,
    /// 32 bits.
    Dword = 4,
}

/// Something the plugin read from registers or was told by QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// How many of the batch's `ids` precede it, as in [`MemoryAccess::preceding`].
    pub preceding: u32,
    /// Index of the instruction in its block.
    pub instruction: u16,
    /// What happened.
    pub kind: EventKind,
}

/// Kinds of [`Event`]. A value is `None` where QEMU left no moment to read it: the instruction was
/// the last of its block, or it faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// RDMSR.
    ReadMsr {
        /// ECX.
        msr: u32,
        /// EDX:EAX.
        value: Option<u64>,
    },
    /// WRMSR, about to execute.
    WriteMsr {
        /// ECX.
        msr: u32,
        /// EDX:EAX.
        value: u64,
    },
    /// CPUID.
    Cpuid {
        /// EAX.
        leaf: u32,
        /// ECX.
        subleaf: u32,
        /// EAX, EBX, ECX, EDX.
        value: Option<[u32; 4]>,
    },
    /// IN (not INS).
    In {
        /// Port.
        port: u16,
        /// Width.
        size: PortSize,
        /// Low bytes of EAX.
        value: Option<u32>,
    },
    /// OUT (not OUTS), about to execute.
    Out {
        /// Port.
        port: u16,
        /// Width.
        size: PortSize,
        /// Low bytes of EAX.
        value: u32,
    },
    /// MOV to CR3, about to execute.
    AddressSpace {
        /// The new CR3.
        cr3: u64,
    },
    /// An interrupt or exception was taken (plugin API 6), or seems to have been (API 1).
    Discontinuity {
        /// Asynchronous, else an exception.
        interrupt: bool,
        /// The engine says so; else a handler began, with this on its stack. A handler can be called
        /// or jumped to as well.
        certain: bool,
        /// Interrupted or faulting instruction.
        from: u64,
        /// Handler.
        to: u64,
    },
}

/// Consecutive blocks of one stream.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Blocks of the process so far; each id of `ids` indexes it. It only ever grows, and ids keep
    /// their meaning for the life of the stream.
    pub blocks: &'a [Arc<RawBlock>],
    /// Executed blocks in order.
    pub ids: &'a [u32],
    /// Data accesses in order; empty unless asked for.
    pub memory: &'a [MemoryAccess],
    /// Register reads and discontinuities in order.
    pub events: &'a [Event],
}

/// Receives a recording. Called from several threads.
pub trait Sink: Sync {
    /// Receives one stream.
    type Stream: StreamSink;

    /// A process image appeared. Called before anything else that names it, and for a fork after
    /// the parent's own call.
    ///
    /// # Errors
    /// Any error ends the recording.
    fn process(&self, process: &ProcessInfo) -> Result<(), SinkError>;

    /// All file mappings of a process as they are now. A forked child starts with its parent's.
    /// Called before the first block that needs it is executed.
    ///
    /// # Errors
    /// Any error ends the recording.
    fn mappings(&self, process: ProcessId, mappings: &[Mapping]) -> Result<(), SinkError>;

    /// A stream appeared; what is returned receives it, in a thread of its own.
    ///
    /// # Errors
    /// Any error ends the recording.
    fn stream(&self, stream: &StreamInfo) -> Result<Self::Stream, SinkError>;

    /// A process image is over and all its streams have ended.
    ///
    /// # Errors
    /// Any error ends the recording.
    fn process_end(&self, process: ProcessId, end: ProcessEnd) -> Result<(), SinkError>;
}

/// Receives one stream.
pub trait StreamSink: Send {
    /// More blocks, in order.
    ///
    /// # Errors
    /// Any error ends the recording.
    fn batch(&mut self, batch: &Batch<'_>) -> Result<(), SinkError>;

    /// No more blocks. Not called if the sink itself failed before.
    ///
    /// # Errors
    /// Any error ends the recording.
    fn end(self, end: StreamEnd) -> Result<(), SinkError>;
}
