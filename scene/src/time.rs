//! What tells the time in a scene.

use serde::Deserialize;
use vlbr_cpu::Clock;
use vlbr_cpu::ledger::{CostModel, Prices};
use vlbr_timing::{Mispredictions, ModelChoice, StepModel, TimingModel};

use crate::{GuestSource, Scene, SceneError};

/// Who says which branches of guests the scoreboard mispredicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MispredictsSpec {
    /// A predictor.
    Predicted,
    /// The guests' traces.
    Recorded,
}

/// What a command says instead of a scene. What is `None` stays the scene's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimingChange {
    /// The timing model; none takes the other keys of the scene away.
    pub model: Option<TimingModel>,
    /// The core it is of.
    pub microarchitecture: Option<String>,
    /// Who mispredicts branches.
    pub mispredicts: Option<MispredictsSpec>,
    /// The predictor.
    pub predictor: Option<String>,
}

impl TimingChange {
    /// Makes it in a scene.
    pub(crate) fn apply(&self, scene: &mut Scene) {
        if let Some(model) = self.model {
            scene.timing = model;
            if model == TimingModel::None {
                (scene.microarchitecture, scene.mispredicts, scene.predictor) = (None, None, None);
            }
        }
        if let Some(name) = &self.microarchitecture {
            scene.microarchitecture = Some(name.clone());
        }
        // Each of the two takes the place of both.
        if self.mispredicts.is_some() || self.predictor.is_some() {
            scene.mispredicts = self.mispredicts;
            scene.predictor.clone_from(&self.predictor);
        }
    }
}

impl Scene {
    /// The timing model that it asks for.
    #[must_use]
    pub fn timing_choice(&self) -> ModelChoice {
        let mispredictions = match (self.mispredicts, &self.predictor) {
            (Some(MispredictsSpec::Recorded), _) => Some(Mispredictions::Recorded),
            (_, Some(name)) => Some(Mispredictions::PredictedBy(name.clone())),
            (Some(MispredictsSpec::Predicted), None) => Some(Mispredictions::Predicted),
            (None, None) => None,
        };
        ModelChoice {
            model: self.timing,
            core: self.microarchitecture.clone(),
            mispredictions,
        }
    }

    pub(crate) fn check_timing(&self) -> Result<(), SceneError> {
        let beside = [
            ("microarchitecture", self.microarchitecture.is_some()),
            ("mispredicts", self.mispredicts.is_some()),
            ("predictor", self.predictor.is_some()),
        ];
        let beside = beside.into_iter().find(|(_, given)| *given);
        if let (TimingModel::None, Some((key, _))) = (self.timing, beside) {
            return Err(SceneError::value(key, "is given without a timing model"));
        }
        if self.mispredicts == Some(MispredictsSpec::Recorded) && self.predictor.is_some() {
            let reason = "is given, but mispredictions are those that were recorded";
            return Err(SceneError::value("predictor", reason));
        }
        Ok(())
    }
}

/// The time of a scene: made once, for all runs of it.
#[derive(Clone, Debug)]
pub enum SceneTime {
    /// Instructions over the scene's `ipc`. Nothing that a policy does takes time.
    Nominal,
    /// A timing model for what guests execute, and a cost model for transitions and MSR accesses.
    Model(ModelTime),
}

/// Time by models.
#[derive(Clone, Debug)]
pub struct ModelTime {
    /// Of the guests, in their order.
    pub(crate) models: Vec<StepModel>,
    pub(crate) prices: Prices,
    clock: Clock,
    description: String,
}

impl SceneTime {
    /// What a scene asks for. `sources` are the guests of its vCPUs, in their order.
    ///
    /// # Errors
    /// There is no such model for its part, or none for what a guest executes.
    pub fn of(
        scene: &Scene,
        sources: &[GuestSource],
        costs: &CostModel,
    ) -> Result<Self, SceneError> {
        let choice = scene.timing_choice();
        let Some(clock) = choice.clock() else {
            return Ok(Self::Nominal);
        };
        let bad = |error: &dyn core::fmt::Display| SceneError::value("timing", error.to_string());
        let part = vlbr_lbr::Profile::named(&scene.part)
            .map_err(|error| SceneError::value("part", error.to_string()))?
            .name();
        let codes = sources.iter().map(GuestSource::code);
        let models = choice.models(part, codes).map_err(|error| bad(&error))?;
        for model in &models {
            let room = model.check_room(models.len() as u64);
            room.map_err(|error| bad(&error))?;
        }
        let prices = Prices::new(costs, part)?;
        let mut names: Vec<String> = models.iter().filter_map(StepModel::describe).collect();
        names.dedup();
        let guessed: usize = models.iter().map(StepModel::guessed).sum();
        let guessed = match guessed {
            0 => String::new(),
            guessed => format!(", {guessed} beginnings of blocks by their instructions alone"),
        };
        Ok(Self::Model(ModelTime {
            description: format!(
                "{}{guessed}; transitions and MSR accesses by the costs",
                names.join("; ")
            ),
            models,
            prices,
            clock,
        }))
    }

    /// What feeds counters of clocks.
    #[must_use]
    pub const fn clock(&self) -> Clock {
        match self {
            Self::Nominal => Clock::Instructions,
            Self::Model(model) => model.clock,
        }
    }

    /// Model and core in words, for people who keep results; `None` if time is nominal.
    #[must_use]
    pub fn describe(&self) -> Option<&str> {
        match self {
            Self::Nominal => None,
            Self::Model(model) => Some(&model.description),
        }
    }
}
