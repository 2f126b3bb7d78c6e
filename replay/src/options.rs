//! What a session is to do.

use std::num::NonZeroU64;

use vlbr_cpu::{Clock, Code, Feed};
use vlbr_lbr::{Options, Profile};
use vlbr_traces::perfdata::BranchSampleType;

use crate::choice::pmu_of;
use crate::error::ReplayError;
use crate::region::Region;
use crate::timing::TimingOptions;

/// What is sampled, and how.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The processor.
    pub profile: Profile,
    /// Open points and quirks of its LBR.
    pub device: Options,
    /// The PMU; `None`: the known one of the same name, or else of the same family and model.
    pub pmu: Option<vlbr_pmu::Profile>,
    /// Open points and quirks of the PMU, skid among them. What is fed the session decides.
    pub counters: vlbr_pmu::Options,
    /// Whether clocks can be counted. With [`Clock::Model`] only [`crate::Session::run_with`] runs.
    pub clock: Clock,
    /// Branch filter. Without privilege levels it takes those of the event.
    pub branches: BranchSampleType,
    /// The event, or `{LEADER,EVENT,...}:S`, see [`crate::sampled_events`]; `None`:
    /// `br_inst_retired.near_taken` where the processor has it, else its event of all taken branches,
    /// else `branches`; with a call-stack filter `instructions`.
    pub event: Option<String>,
    /// Events between samples; `None`: 997, of instructions and clocks 10,007.
    pub period: Option<NonZeroU64>,
    /// Samples a second instead of a period.
    pub frequency: Option<NonZeroU64>,
    /// Part of the trace.
    pub region: Region,
    /// Threads; 0 means all cores.
    pub jobs: usize,
    /// Write whole records at once instead of references.
    pub eager: bool,
    /// Send every transfer through the device in order even where that changes nothing, and make every
    /// record: slow, to compare the hot loop with the device.
    pub ordered: bool,
    /// Count mispredictions by branch, in order: [`crate::Summary::misses`].
    pub tell_branches: bool,
    /// Whether a timing model runs along.
    pub timing: TimingOptions,
}

impl SessionOptions {
    /// `-b` on `profile`.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            device: Options::default(),
            pmu: None,
            counters: vlbr_pmu::Options::default(),
            clock: Clock::None,
            branches: BranchSampleType::ANY,
            event: None,
            period: None,
            frequency: None,
            region: Region::whole(),
            jobs: 0,
            eager: false,
            ordered: false,
            tell_branches: false,
            timing: TimingOptions::default(),
        }
    }

    /// What feeds counters of clocks.
    ///
    /// # Errors
    /// Both a nominal clock and a timing model are asked for.
    pub fn clock(&self) -> Result<Clock, ReplayError> {
        Ok(self.timing.clock(self.clock)?)
    }

    /// The PMU and its options for a trace with this code.
    ///
    /// # Errors
    /// No PMU is known, or the options ask for what a trace does not feed.
    pub fn pmu(&self, code: &Code) -> Result<(vlbr_pmu::Profile, vlbr_pmu::Options), ReplayError> {
        let pmu = match &self.pmu {
            Some(pmu) => pmu.clone(),
            None => pmu_of(&self.profile)?,
        };
        let options = vlbr_pmu::Options {
            feeds: Feed::sources(code, self.clock()?),
            tsx: self.counters.tsx.or(self.device.tsx),
            ..self.counters.clone()
        };
        if options.cycle_by_cycle {
            return Err(ReplayError::CycleByCycle);
        }
        options.check()?;
        Ok((pmu, options))
    }
}
