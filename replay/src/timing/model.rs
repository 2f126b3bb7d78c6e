//! Which timing model gives a replay its clock.

use serde::Deserialize;
use thiserror::Error;
use vlbr_cpu::{Clock, Code};
use vlbr_lbr::Profile;
use vlbr_timing::predict::{PredictorConfig, predictors};
use vlbr_timing::{
    LowerError, Microarchitecture, Mispredicts, StepBounds, StepPrograms, microarchitectures,
};

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
    /// The retirement scoreboard: every instruction through the core.
    Scoreboard,
}

/// Who says which branches the scoreboard mispredicts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mispredictions {
    /// The predictor of the core.
    #[default]
    Predicted,
    /// A predictor by name.
    PredictedBy(String),
    /// The trace, which has recorded some.
    Recorded,
}

impl TimingModel {
    /// Its name, as options have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bound => "bound",
            Self::Scoreboard => "scoreboard",
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
    /// Who mispredicts branches; `None`: the core's predictor with the scoreboard, the trace with the bound.
    pub mispredictions: Option<Mispredictions>,
    /// How fast its clocks run.
    pub rates: Rates,
    /// Instructions of each thread that run, and are recorded by its LBR, before anything is counted or
    /// sampled, to the end of the step that holds the last of them. Needs no model.
    pub warmup: u64,
}

/// Bytes of a scoreboard, near enough.
const SCOREBOARD: u64 = 128 << 10;
/// Bytes of the clocks of all threads that have begun and not ended.
const MAX_CLOCKS: u64 = 1 << 30;

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
    /// The core has no predictor.
    #[error("no predictor is known for '{name}'; --predictor takes one of: {known}")]
    NoPredictor {
        /// The core, or what was asked for.
        name: String,
        /// Predictors there are.
        known: String,
    },
    /// The trace has no mispredictions.
    #[error(
        "the trace has recorded no misprediction (none of the recorders sees them); --mispredicts \
         predicted lets a predictor say"
    )]
    NoneRecorded,
    /// A predictor beside a model that has none.
    #[error("mispredictions are predicted with --timing scoreboard only")]
    NoScoreboard,
    /// A block of the trace that the model cannot read.
    #[error("--timing scoreboard: {0}")]
    Lower(#[from] LowerError),
    /// Too many threads at once.
    #[error(
        "{threads} threads run at the same time, each with a clock of {bytes} bytes; together they may take \
         {MAX_CLOCKS}"
    )]
    Threads {
        /// Threads that have begun and not ended.
        threads: u64,
        /// Bytes of each one's clock.
        bytes: u64,
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
            (TimingModel::Scoreboard, Clock::None) => Ok(Clock::Model {
                predicts: !matches!(self.mispredictions, Some(Mispredictions::Recorded)),
            }),
            (TimingModel::Bound, Clock::None) => Ok(Clock::Model { predicts: false }),
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
        let records = || code.steps().iter().any(|step| step.exit.is_mispredicted());
        let recorded = matches!(self.mispredictions, Some(Mispredictions::Recorded));
        if recorded && !records() {
            return Err(TimingError::NoneRecorded);
        }
        let scoreboard = self.model == TimingModel::Scoreboard;
        if self.mispredictions.is_some() && !recorded && !scoreboard {
            return Err(TimingError::NoScoreboard);
        }
        match self.model {
            TimingModel::Scoreboard => {
                let core = self.core(profile)?;
                let predictor = match &self.mispredictions {
                    Some(Mispredictions::Recorded) => None,
                    Some(Mispredictions::PredictedBy(name)) => Some(predictor(&[name])?),
                    Some(Mispredictions::Predicted) | None => {
                        Some(predictor(&[core.name(), profile.name()])?)
                    }
                };
                let mispredicts = match predictor {
                    None => Mispredicts::Recorded,
                    Some(config) => Mispredicts::Predicted(config.clone()),
                };
                Ok(Model::Scoreboard {
                    core,
                    predictor: predictor.map(|config| config.name.as_str()),
                    bytes: SCOREBOARD + predictor.map_or(0, PredictorConfig::bytes),
                    programs: Box::new(StepPrograms::new(core, code, &mispredicts)?),
                })
            }
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

/// The first predictor that goes by one of `names`.
fn predictor(names: &[&str]) -> Result<&'static PredictorConfig, TimingError> {
    let mut found = names.iter().filter_map(|name| predictors().named(name));
    found.next().ok_or_else(|| TimingError::NoPredictor {
        name: names[0].to_owned(),
        known: predictors().names(),
    })
}

/// A timing model of one code.
#[derive(Clone, Debug)]
pub(crate) enum Model {
    None,
    Bound {
        core: &'static Microarchitecture,
        bounds: StepBounds,
    },
    Scoreboard {
        core: &'static Microarchitecture,
        predictor: Option<&'static str>,
        /// Bytes of a thread's clock.
        bytes: u64,
        programs: Box<StepPrograms>,
    },
}

impl Model {
    /// Whether the clocks of so many `threads` may be held at once.
    pub(crate) fn check_room(&self, threads: u64) -> Result<(), TimingError> {
        match self {
            Self::Scoreboard { bytes, .. } if threads.saturating_mul(*bytes) > MAX_CLOCKS => {
                let bytes = *bytes;
                Err(TimingError::Threads { threads, bytes })
            }
            _ => Ok(()),
        }
    }

    /// In words, for people who keep results: model, core, and what makes time of clocks.
    pub(crate) fn describe(&self, rates: Rates) -> Option<String> {
        let model = match self {
            Self::None => return None,
            Self::Bound { core, bounds } => {
                let guessed = match bounds.guessed() {
                    0 => String::new(),
                    guessed => {
                        format!(", {guessed} beginnings of blocks by their instructions alone")
                    }
                };
                format!(
                    "block bound of {}, mispredictions as recorded and without a penalty{guessed}",
                    core.name()
                )
            }
            Self::Scoreboard {
                core, predictor, ..
            } => {
                let mispredictions = match predictor {
                    Some(name) => format!("predictor {name}"),
                    None => "mispredictions as recorded".to_owned(),
                };
                format!("scoreboard of {}, {mispredictions}", core.name())
            }
        };
        Some(format!("{model}; {rates}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scoreboards_of_too_many_threads_at_once_are_refused() {
        let profile = Profile::named("skylake").unwrap();
        let model = |model| {
            let options = TimingOptions {
                model,
                ..TimingOptions::default()
            };
            options.model(profile, &Code::default()).unwrap()
        };
        let scoreboard = model(TimingModel::Scoreboard);
        assert_eq!(scoreboard.check_room(1000), Ok(()));
        let error = scoreboard.check_room(100_000).unwrap_err();
        assert!(matches!(
            error,
            TimingError::Threads {
                threads: 100_000,
                ..
            }
        ));
        assert_eq!(model(TimingModel::Bound).check_room(u64::MAX), Ok(()));
    }
}
