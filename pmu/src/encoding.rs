//! How perf programs an event.

/// `perf_event_attr.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PerfType {
    /// PERF_TYPE_HARDWARE.
    Hardware,
    /// PERF_TYPE_RAW.
    Raw,
}

impl PerfType {
    /// The number in `perf_event_attr.type`.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Hardware => 0,
            Self::Raw => 4,
        }
    }
}

/// Type and config of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Encoding {
    /// `perf_event_attr.type`.
    pub kind: PerfType,
    /// `perf_event_attr.config`.
    pub config: u64,
}
