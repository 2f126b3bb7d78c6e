//! perf.data: typed branch entries, a reader of real files, and a writer that perf accepts.

mod abi;
mod attr;
mod cursor;
mod entry;
mod error;
mod events_write;
mod features;
mod features_write;
mod info;
mod read;
mod record;
mod records;
mod sample;
mod unpack;
mod write;

pub use abi::{
    AttrFlags, BranchSampleType, CONTEXT_KERNEL, CONTEXT_USER, Feature, ReadFormat, RecordType,
    SampleType, misc,
};
pub use attr::EventAttr;
pub use entry::{
    BranchEntry, BranchFlags, BranchPrivilege, BranchSpec, BranchType, ENTRY_SIZE, NewBranchType,
    ReservedBits,
};
pub use error::{PerfReadError, PerfWriteError};
pub use features::{BuildIdEntry, Compression, EventDescription, Features, GroupDescription};
pub use info::{EventInfo, FileInfo, Mapping, SampleRecord, TaskId};
pub use read::{Event, Metadata, PerfFile, Section};
pub use record::{FileIdentity, MmapRecord, RawRecord, Record, SampleId};
pub use records::Records;
pub use sample::{BranchStack, CounterValue, CounterValues, Registers, Sample, UserStack};
pub use write::{PerfDataWriter, Written};
