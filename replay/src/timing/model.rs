//! Which timing model gives a replay its clock.

use std::fmt::Write;

use serde::Deserialize;
use thiserror::Error;
use vlbr_cpu::{Clock, Code};
use vlbr_lbr::Profile;
use vlbr_timing::{Microarchitecture, StepBounds, microarchitectures};

use super::Rates;

/// A timing model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimingModel {
    /// None: no time passes for the LBR, and the trace's is its instructions.
    #[default]
    None,
    /// Every step takes what its instructions would take as a hot loop.
    Bound,
}

impl TimingModel {
    /// Its name, as options have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bound => "bound",
        }
    }
}

/// How a replay gets its clock.
#[derive(Clone, Debug, Default)]
pub struct TimingOptions {
    /// The model.
    pub model: TimingModel,
    /// The core it is of, by name; `None`: that of the LBR's profile.
    pub core: Option<String>,
    /// How fast its clocks run.
    pub rates: Rates,
    /// Instructions of each thread that run, and are recorded by its LBR, before anything is counted or
    /// sampled, to the end of the step that holds the last of them. Needs no model.
    pub warmup: u64,
}

/// Why there is no such clock.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TimingError {
    /// No core of that name.
    #[error("no microarchitecture '{name}'; there are {known}")]
    Unknown {
        /// The name.
        name: String,
        /// Those there are.
        known: String,
    },
    /// The processor has no timing model.
    #[error(
        "no timing model is known for '{profile}'; --microarchitecture takes that of another: {known}"
    )]
    NoModel {
        /// The processor.
        profile: String,
        /// Cores there are.
        known: String,
    },
    /// Two clocks.
    #[error("a timing model has a clock of its own: --clock and --timing exclude each other")]
    TwoClocks,
}

impl TimingOptions {
    /// The clock that counters are fed from; `nominal` is the one asked for by itself.
    pub(crate) fn clock(&self, nominal: Clock) -> Result<Clock, TimingError> {
        match (self.model, nominal) {
            (TimingModel::None, nominal) => Ok(nominal),
            (_, Clock::None) => Ok(Clock::Model { predicts: false }),
            _ => Err(TimingError::TwoClocks),
        }
    }

    fn core(&self, profile: &Profile) -> Result<&'static Microarchitecture, TimingError> {
        let known = || microarchitectures().names();
        match &self.core {
            Some(name) => microarchitectures()
                .named(name)
                .ok_or_else(|| TimingError::Unknown {
                    name: name.clone(),
                    known: known(),
                }),
            None => {
                microarchitectures()
                    .named(profile.name())
                    .ok_or_else(|| TimingError::NoModel {
                        profile: profile.name().to_owned(),
                        known: known(),
                    })
            }
        }
    }

    /// The model for `code`.
    pub(crate) fn model(&self, profile: &Profile, code: &Code) -> Result<Model, TimingError> {
        match self.model {
            TimingModel::None => Ok(Model::None),
            TimingModel::Bound => {
                let core = self.core(profile)?;
                Ok(Model::Bound {
                    core,
                    bounds: StepBounds::new(core, code),
                })
            }
        }
    }
}

/// A timing model of one code.
#[derive(Clone, Debug)]
pub(crate) enum Model {
    None,
    Bound {
        core: &'static Microarchitecture,
        bounds: StepBounds,
    },
}

impl Model {
    /// In words, for people who keep results: model, core, and what makes time of clocks.
    pub(crate) fn describe(&self, rates: Rates) -> Option<String> {
        let Self::Bound { core, bounds } = self else {
            return None;
        };
        let mut text = format!(
            "block bound of {}, mispredictions as recorded and without a penalty",
            core.name()
        );
        // Writing to a String cannot fail.
        if bounds.guessed() > 0 {
            let _ = write!(
                text,
                ", {} beginnings of blocks by their instructions alone",
                bounds.guessed()
            );
        }
        let _ = write!(text, "; {rates}");
        Some(text)
    }
}
