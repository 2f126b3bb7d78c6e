//! Which timing model gives a replay its clock.

use thiserror::Error;
use vlbr_cpu::{Clock, Code};
use vlbr_lbr::Profile;
use vlbr_timing::{Mispredictions, ModelChoice, ModelError, StepModel, TimingModel};

use super::Rates;

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

/// Why there is no such clock.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TimingError {
    /// There is no such model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Two clocks.
    #[error("a timing model has a clock of its own: --clock and --timing exclude each other")]
    TwoClocks,
}

impl TimingOptions {
    fn choice(&self) -> ModelChoice {
        ModelChoice {
            model: self.model,
            core: self.core.clone(),
            mispredictions: self.mispredictions.clone(),
        }
    }

    /// The clock that counters are fed from; `nominal` is the one asked for by itself.
    pub(crate) fn clock(&self, nominal: Clock) -> Result<Clock, TimingError> {
        match (self.choice().clock(), nominal) {
            (None, nominal) => Ok(nominal),
            (Some(model), Clock::None) => Ok(model),
            _ => Err(TimingError::TwoClocks),
        }
    }

    /// The model for `code`.
    pub(crate) fn model(&self, profile: &Profile, code: &Code) -> Result<StepModel, TimingError> {
        Ok(self.choice().model(profile.name(), code)?)
    }
}

/// In words, for people who keep results: model, core, and what makes time of clocks.
pub(crate) fn describe(model: &StepModel, rates: Rates) -> Option<String> {
    let named = model.describe()?;
    Some(match model.guessed() {
        0 => format!("{named}; {rates}"),
        guessed => {
            format!("{named}, {guessed} beginnings of blocks by their instructions alone; {rates}")
        }
    })
}
