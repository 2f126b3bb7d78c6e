//! What can be wrong with readings.

use vlbr_cpu::ledger::{CostItem, CostModelError};

use crate::run::{Kind, Origin, Signature};

/// Why a text holds no readings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {error}")]
pub struct ParseError {
    /// Line, from 1 on; behind the last one if something is missing at the end.
    pub line: usize,
    /// What is wrong there.
    #[source]
    pub error: LineError,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// No line starts a run.
    #[error("no line reads \"vlbr-calibrate 1\": these are no readings")]
    NoHeader,
    /// A run of another version of the format.
    #[error("format version {0:?} is not known; this reads version 1")]
    Version(String),
    /// The text ends inside a run.
    #[error("the run that starts at line {0} has no end line")]
    NoEnd(usize),
    /// The end line counts other lines than there are.
    #[error("the end line counts {stated} lines, there are {found}")]
    Lines {
        /// What it says.
        stated: u64,
        /// Lines before it, from the header on.
        found: u64,
    },
    /// A line that starts with an unknown word.
    #[error("{0:?} starts no line")]
    Word(String),
    /// A control character, as a disturbed serial line has them.
    #[error("control character {0:?}")]
    Control(char),
    /// A row of an unknown kind.
    #[error("{0:?} is no row")]
    RowKind(String),
    /// A field is absent.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field that the line does not have.
    #[error("{0:?} does not belong here")]
    Field(String),
    /// A field or a fact stands twice.
    #[error("{0} stands twice")]
    Twice(String),
    /// Not a number, or beyond the field's range.
    #[error("{field} = {value:?} is no number up to {max}")]
    Number {
        /// The field.
        field: &'static str,
        /// The text.
        value: String,
        /// Largest value.
        max: u64,
    },
    /// A word that is none of those there are.
    #[error("{field} = {value:?}; there are: {known}")]
    Choice {
        /// The field.
        field: &'static str,
        /// The text.
        value: String,
        /// What it may be.
        known: &'static str,
    },
    /// No samples, or no operation in a sample.
    #[error("{0} is 0")]
    Zero(&'static str),
    /// Samples that are not in order.
    #[error("min, q1, median and q3 do not ascend")]
    Order,
    /// The median is below that of the empty timing.
    #[error("the median {median} is below the overhead {overhead}")]
    BelowOverhead {
        /// Ticks of the row.
        median: u32,
        /// Ticks of the empty timing.
        overhead: u32,
    },
    /// APERF and MPERF that no processor shows.
    #[error(
        "aperf {aperf} to mperf {mperf}: no clock runs at less than 1/16 or more than 16 times the TSC"
    )]
    Ratio {
        /// Core clocks.
        aperf: u64,
        /// Ticks.
        mperf: u64,
    },
    /// The same row twice in one run.
    #[error("{0} stands twice in this run")]
    Row(Kind),
    /// More rows than a program prints.
    #[error("more than {0} rows")]
    TooMany(usize),
}

/// Why readings make no cost model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrateError {
    /// There is no run.
    #[error("no readings")]
    Empty,
    /// Readings of several processors.
    #[error("readings of {0} and of {1}: a model is that of one processor")]
    Machines(Signature, Signature),
    /// Readings of several origins.
    #[error("readings of {0} and of {1} do not mix")]
    Origins(Origin, Origin),
    /// Not a processor was timed.
    #[error("measured under {0}, not on hardware; --allow-virtual makes a model of class E")]
    Virtual(String),
    /// No control row says that a processor was timed.
    #[error(
        "no row of CPUID leaf 0: nothing shows that hardware was timed; --allow-virtual makes a model of class E"
    )]
    NoControl,
    /// CPUID takes what it takes under a hypervisor, or in an emulator.
    #[error(
        "CPUID leaf 0 takes {cycles} cycles, on hardware {low} to {high}: a hypervisor or emulator that hides; --allow-virtual makes a model of class E"
    )]
    Control {
        /// What it takes.
        cycles: u32,
        /// Lowest on hardware.
        low: u32,
        /// Highest on hardware.
        high: u32,
    },
    /// Rows with more area entries or fields that take less time.
    #[error("{0}: the cost per entry comes out negative; the readings are too noisy")]
    Falling(&'static str),
    /// Too few counts for a slope.
    #[error("{0}: a slope needs rows of two counts (of an area: above 0)")]
    Short(&'static str),
    /// A cost beyond what a model holds.
    #[error("{0}: does not fit a cost model")]
    TooLarge(CostItem),
    /// Nothing that a model has a cost for was timed.
    #[error("no row is a cost of a model")]
    NoFigure,
    /// The model made is none.
    #[error("the result is no cost model: {0}")]
    Model(#[from] CostModelError),
}
