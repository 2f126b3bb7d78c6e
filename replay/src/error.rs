//! Why a replay failed.

use thiserror::Error;
use vlbr_traces::export::ExportError;
use vlbr_traces::vlt::VltError;

use crate::counters::{CounterError, EventListError};
use crate::device::DeviceError;
use crate::engine::EngineError;
use crate::timing::TimingError;

/// Why a replay failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The LBR cannot be programmed so.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The processor has no such event, or it cannot be counted.
    #[error(transparent)]
    Event(#[from] EventListError),
    /// An event to count cannot be.
    #[error(transparent)]
    EventName(#[from] vlbr_pmu::EventNameError),
    /// The counters cannot be programmed so.
    #[error(transparent)]
    Counters(#[from] CounterError),
    /// The LBR is of a part whose PMU is not known.
    #[error(
        "no PMU is known for the LBR of {0:?}: neither the name nor a family and model of that \
         profile is one of `vlbr list`"
    )]
    NoPmu(String),
    /// An event of clocks, and no clock.
    #[error(
        "{event:?} counts clocks, which a trace does not have; --timing gives them, --clock instructions \
         lets one pass with each instruction"
    )]
    NeedsClock {
        /// The event as given.
        event: String,
        /// What the counter says.
        #[source]
        refusal: vlbr_pmu::Refusal,
    },
    /// An event of mispredictions that the trace has not recorded.
    #[error("{0}; --timing scoreboard predicts branches")]
    NeedsPredictions(vlbr_pmu::Refusal),
    /// The kernel's part of an event, which the trace does not hold.
    #[error(
        "{0:?} at CPL 0 (modifier k) cannot be counted: the trace holds user code only; without \
         modifiers user code is counted"
    )]
    UserOnly(String),
    /// Options of the PMU ask for what is not fed.
    #[error("{0}; a trace feeds them with --timing or --clock instructions")]
    PmuOptions(#[from] vlbr_pmu::OptionsError),
    /// Steps do not come clock by clock.
    #[error("cycle_by_cycle: a trace has no clock by which steps could be counted")]
    CycleByCycle,
    /// A session made for a timing model, or not made for one, was run the other way.
    #[error("a timing model is needed exactly where the session was made for one")]
    NoClock,
    /// There is no such timing model.
    #[error(transparent)]
    Timing(#[from] TimingError),
    /// Both a period and a frequency.
    #[error("a period and a frequency exclude each other")]
    PeriodAndFrequency,
    /// The trace is damaged or cannot be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The output cannot be written.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// Symbols cannot be read.
    #[error("{0}")]
    Symbols(String),
    /// A symbol of `--from` or `--to` is not in the trace's files.
    #[error("no symbol {0:?} in the files the trace maps; an address can be given as 0x...")]
    NoSymbol(String),
    /// Control never reached the start of the region.
    #[error("control never reaches {0:?}")]
    NotReached(String),
    /// The format needs another kind of sampling.
    #[error("{0}")]
    Unsuitable(&'static str),
}

impl From<VltError> for ReplayError {
    fn from(error: VltError) -> Self {
        Self::Engine(EngineError::Trace(error))
    }
}
