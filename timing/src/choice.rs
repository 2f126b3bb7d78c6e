//! Which model is the clock of a thread.

use serde::Deserialize;
use thiserror::Error;
use vlbr_cpu::{Clock, Code};

use crate::cores::microarchitectures;
use crate::lower::LowerError;
use crate::microarchitecture::Microarchitecture;
use crate::predict::{PredictorConfig, predictors};
use crate::step_bound::StepBounds;
use crate::step_scoreboard::{Mispredicts, StepPrograms};

/// A timing model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimingModel {
    /// None: no time passes for the LBR, or a nominal one.
    #[default]
    None,
    /// Every step takes what its instructions would take as a hot loop.
    Bound,
    /// The retirement scoreboard: every instruction through the core.
    Scoreboard,
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

/// A timing model with what it is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelChoice {
    /// The model.
    pub model: TimingModel,
    /// The core it is of, by name; `None`: that of the processor.
    pub core: Option<String>,
    /// Who mispredicts branches; `None`: the core's predictor with the scoreboard, the trace with the bound.
    pub mispredictions: Option<Mispredictions>,
}

/// Bytes of a scoreboard, near enough.
const SCOREBOARD: u64 = 128 << 10;
/// Bytes of the clocks of all threads that are held at once.
const MAX_CLOCKS: u64 = 1 << 30;

/// Why there is no such model.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// No core of that name.
    #[error("no microarchitecture {name:?}; there are {known}")]
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
    #[error("no predictor is known for {name:?}; --predictor takes one of: {known}")]
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
}

impl ModelChoice {
    const fn recorded(&self) -> bool {
        matches!(self.mispredictions, Some(Mispredictions::Recorded))
    }

    /// What feeds counters of clocks; `None` without a model.
    #[must_use]
    pub const fn clock(&self) -> Option<Clock> {
        match self.model {
            TimingModel::None => None,
            TimingModel::Bound => Some(Clock::Model { predicts: false }),
            TimingModel::Scoreboard => Some(Clock::Model {
                predicts: !self.recorded(),
            }),
        }
    }

    fn core(&self, profile: &str) -> Result<&'static Microarchitecture, ModelError> {
        let known = || microarchitectures().names();
        match &self.core {
            Some(name) => microarchitectures()
                .named(name)
                .ok_or_else(|| ModelError::Unknown {
                    name: name.clone(),
                    known: known(),
                }),
            None => microarchitectures()
                .named(profile)
                .ok_or_else(|| ModelError::NoModel {
                    profile: profile.to_owned(),
                    known: known(),
                }),
        }
    }

    /// The model for `code` on the processor with the LBR profile of this name.
    ///
    /// # Errors
    /// No such core or predictor, or code that does not go with the choice.
    pub fn model(&self, profile: &str, code: &Code) -> Result<StepModel, ModelError> {
        self.check([code])?;
        self.model_of(profile, code)
    }

    /// The models for several codes that run together: mispredictions that one of them has recorded are
    /// enough.
    ///
    /// # Errors
    /// As [`ModelChoice::model`].
    pub fn models<'c>(
        &self,
        profile: &str,
        codes: impl Iterator<Item = &'c Code> + Clone,
    ) -> Result<Vec<StepModel>, ModelError> {
        self.check(codes.clone())?;
        codes.map(|code| self.model_of(profile, code)).collect()
    }

    fn check<'c>(&self, codes: impl IntoIterator<Item = &'c Code>) -> Result<(), ModelError> {
        let records = |code: &Code| code.steps().iter().any(|step| step.exit.is_mispredicted());
        if self.recorded() && !codes.into_iter().any(records) {
            return Err(ModelError::NoneRecorded);
        }
        Ok(())
    }

    fn model_of(&self, profile: &str, code: &Code) -> Result<StepModel, ModelError> {
        let scoreboard = self.model == TimingModel::Scoreboard;
        if self.mispredictions.is_some() && !self.recorded() && !scoreboard {
            return Err(ModelError::NoScoreboard);
        }
        match self.model {
            TimingModel::Scoreboard => {
                let core = self.core(profile)?;
                let predictor = match &self.mispredictions {
                    Some(Mispredictions::Recorded) => None,
                    Some(Mispredictions::PredictedBy(name)) => Some(predictor(&[name])?),
                    Some(Mispredictions::Predicted) | None => {
                        Some(predictor(&[core.name(), profile])?)
                    }
                };
                let mispredicts = match predictor {
                    None => Mispredicts::Recorded,
                    Some(config) => Mispredicts::Predicted(config.clone()),
                };
                Ok(StepModel::Scoreboard {
                    core,
                    predictor: predictor.map(|config| config.name.as_str()),
                    bytes: SCOREBOARD + predictor.map_or(0, PredictorConfig::bytes),
                    programs: Box::new(StepPrograms::new(core, code, &mispredicts)?),
                })
            }
            TimingModel::None => Ok(StepModel::None),
            TimingModel::Bound => {
                let core = self.core(profile)?;
                Ok(StepModel::Bound {
                    core,
                    bounds: StepBounds::new(core, code),
                })
            }
        }
    }
}

/// The first predictor that goes by one of `names`.
fn predictor(names: &[&str]) -> Result<&'static PredictorConfig, ModelError> {
    let mut found = names.iter().filter_map(|name| predictors().named(name));
    found.next().ok_or_else(|| ModelError::NoPredictor {
        name: names[0].to_owned(),
        known: predictors().names(),
    })
}

/// A timing model of one code.
#[derive(Clone, Debug)]
pub enum StepModel {
    /// None.
    None,
    /// The block bound.
    Bound {
        /// The core.
        core: &'static Microarchitecture,
        /// What each step takes.
        bounds: StepBounds,
    },
    /// The retirement scoreboard.
    Scoreboard {
        /// The core.
        core: &'static Microarchitecture,
        /// Name of the predictor; `None`: mispredictions are those of the trace.
        predictor: Option<&'static str>,
        /// Bytes of a thread's clock.
        bytes: u64,
        /// The steps.
        programs: Box<StepPrograms>,
    },
}

impl StepModel {
    /// Model and core in words, for people who keep results; `None` without one.
    #[must_use]
    pub fn describe(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Bound { core, .. } => Some(format!(
                "block bound of {}, mispredictions as recorded and without a penalty",
                core.name()
            )),
            Self::Scoreboard {
                core, predictor, ..
            } => {
                let mispredictions = match predictor {
                    Some(name) => format!("predictor {name}"),
                    None => "mispredictions as recorded".to_owned(),
                };
                Some(format!("scoreboard of {}, {mispredictions}", core.name()))
            }
        }
    }

    /// Whether the clocks of so many `threads` may be held at once.
    ///
    /// # Errors
    /// Together they are too large.
    pub fn check_room(&self, threads: u64) -> Result<(), ModelError> {
        match self {
            Self::Scoreboard { bytes, .. } if threads.saturating_mul(*bytes) > MAX_CLOCKS => {
                let bytes = *bytes;
                Err(ModelError::Threads { threads, bytes })
            }
            _ => Ok(()),
        }
    }

    /// Blocks, or beginnings of blocks, that the model cannot read and takes by the number of their instructions.
    #[must_use]
    pub fn guessed(&self) -> usize {
        match self {
            Self::Bound { bounds, .. } => bounds.guessed(),
            Self::Scoreboard { programs, .. } => programs.guessed(),
            Self::None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use vlbr_arch::{CodeSize, Cpl, Cycles};
    use vlbr_cpu::{Block, Exit, Interner, Mode, Step, StepClock, StepId, Target};

    use super::*;

    /// imul rax, rax; imul rax, rax; jmp to its start.
    fn code() -> Code {
        let mut interner = Interner::new();
        let bytes = [0x48, 0x0f, 0xaf, 0xc0, 0x48, 0x0f, 0xaf, 0xc0, 0xeb, 0xf6];
        let block = Block::decode(0x1000, Mode::user64(0), &bytes).unwrap();
        let retired = block.instructions();
        let block = interner.block(block).unwrap();
        let target = Target {
            address: 0x1000,
            cs_base: 0,
            code_size: CodeSize::Bits64,
            cpl: Cpl::Ring3,
        };
        let exit = Exit::Taken {
            target,
            mispredicted: false,
            in_tx: false,
        };
        interner
            .step(Step {
                block,
                retired,
                exit,
            })
            .unwrap();
        interner.into_code()
    }

    fn a_pause_moves_what_runs_behind_it<C: StepClock>(start: &C, code: &Code) {
        let mut clock = start.clone();
        for _ in 0..100 {
            clock.retire(code, StepId(0));
        }
        let now = clock.retire(code, StepId(0)).end.value();
        let mut early = clock.clone();
        early.pass(Cycles::new(now - 1));
        assert_eq!(early.retired_at(0), clock.retired_at(0));
        let goes_on = early.retire(code, StepId(0)).end;
        assert_eq!(goes_on, clock.clone().retire(code, StepId(0)).end);
        let mut paused = clock.clone();
        paused.pass(Cycles::new(now + 1000));
        let behind = paused.retire(code, StepId(0)).end.value();
        assert!((now + 1001..now + 1050).contains(&behind), "{now} {behind}");
        for index in 0..3 {
            let at = paused.retired_at(index).value();
            assert!((now + 1000..=behind).contains(&at), "{index}: {at}");
        }
        // Nothing is in flight: a chain that ran when the pause began does not delay what comes.
        let alone = start.clone().retire(code, StepId(0)).end.value();
        assert!(behind - (now + 1000) <= alone, "{behind} {alone}");
    }

    #[test]
    fn what_runs_behind_a_pause_begins_when_it_is_over() {
        let code = code();
        for model in [TimingModel::Bound, TimingModel::Scoreboard] {
            let choice = ModelChoice {
                model,
                ..ModelChoice::default()
            };
            match choice.model("skylake", &code).unwrap() {
                StepModel::Bound { bounds, .. } => {
                    a_pause_moves_what_runs_behind_it(&bounds.clock(), &code);
                }
                StepModel::Scoreboard { programs, .. } => {
                    a_pause_moves_what_runs_behind_it(&programs.clock(), &code);
                }
                StepModel::None => panic!("{model:?} was asked for"),
            }
        }
    }

    #[test]
    fn scoreboards_of_too_many_threads_at_once_are_refused() {
        let model = |model| {
            let choice = ModelChoice {
                model,
                ..ModelChoice::default()
            };
            choice.model("skylake", &Code::default()).unwrap()
        };
        let scoreboard = model(TimingModel::Scoreboard);
        assert_eq!(scoreboard.check_room(1000), Ok(()));
        let error = scoreboard.check_room(100_000).unwrap_err();
        assert!(matches!(
            error,
            ModelError::Threads {
                threads: 100_000,
                ..
            }
        ));
        assert_eq!(model(TimingModel::Bound).check_room(u64::MAX), Ok(()));
    }
}
