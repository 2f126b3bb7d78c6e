//! A perf session inside a guest: what its kernel does with counters and LBR, access by access.

use vlbr_arch::{DebugCtl, Msr, PerfEvtSel};
use vlbr_host::hardware::{LbrMsrs, Word};
use vlbr_host::perf::{HardwareFilter, LbrFilter, parse_branch_filter, with_event_privileges};
use vlbr_lbr::Profile;
use vlbr_pmu::Counter;

use crate::SceneError;

/// A session, as `--guest-perf` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestPerf {
    /// The text.
    pub text: String,
    select: PerfEvtSel,
    period: u64,
    /// Value of the filter register, with the call-stack bit.
    filter: u64,
    call_stack: bool,
}

/// A sample that the guest took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestSample {
    /// Instructions of the guest when it was taken, by which samples of two runs are matched.
    pub at: u64,
    /// FROM, TO and INFO as the guest's handler read them, youngest first.
    pub entries: Vec<[u64; 3]>,
    /// An access was refused.
    pub refused: bool,
    /// Something that was read is another owner's.
    pub foreign: bool,
}

/// What a guest read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GuestValue {
    pub(crate) value: u64,
    /// It is another owner's.
    pub(crate) foreign: bool,
}

/// What reads and writes the MSRs of the guest. A refused access gives `None`; Linux logs it and
/// goes on with 0.
pub(crate) trait GuestMsrs {
    type Error;

    fn read(&mut self, msr: Msr) -> Result<Option<GuestValue>, Self::Error>;

    fn write(&mut self, msr: Msr, value: u64) -> Result<bool, Self::Error>;
}

/// Value of the filter register.
const fn register(filter: HardwareFilter) -> u64 {
    match filter {
        HardwareFilter::None => 0,
        HardwareFilter::Select(select) => select.bits(),
        HardwareFilter::Ctl(ctl) => ctl.bits(),
    }
}

impl GuestPerf {
    /// Reads `EVENT:PERIOD[:call-graph|:FILTER]` for the part that the guest runs on, whose counters are
    /// fed with what `options` say.
    ///
    /// # Errors
    /// No such event, filter or period: what and why.
    pub fn parse(
        text: &str,
        lbr: &Profile,
        pmu: &vlbr_pmu::Profile,
        options: &vlbr_pmu::Options,
    ) -> Result<Self, SceneError> {
        let bad = |reason: String| SceneError::value(format!("guest-perf {text:?}"), reason);
        let mut parts = text.splitn(3, ':');
        let (Some(event), Some(period)) = (parts.next(), parts.next()) else {
            return Err(bad("is not EVENT:PERIOD[:call-graph|:FILTER]".to_owned()));
        };
        let period: u64 = period
            .parse()
            .map_err(|_| bad(format!("the period {period:?} is no number")))?;
        let spec = pmu
            .parse_event(event, options)
            .map_err(|error| bad(error.to_string()))?;
        if !spec.counters.contains(Counter::Gp(0)) {
            return Err(bad("the event does not count on counter 0".to_owned()));
        }
        pmu.preset(Counter::Gp(0), period)
            .map_err(|error| bad(error.to_string()))?;
        let call_stack;
        let names = match parts.next() {
            None => {
                call_stack = false;
                "any"
            }
            Some("call-graph") => {
                call_stack = true;
                "stack,u"
            }
            Some(names) => {
                call_stack = names.split(',').any(|name| name == "stack");
                names
            }
        };
        let types = parse_branch_filter(names).map_err(|error| bad(error.to_string()))?;
        let types = with_event_privileges(types, spec.user, spec.kernel);
        let filter = LbrFilter::new(lbr, types).map_err(|error| bad(error.to_string()))?;
        let mut select = spec.select | PerfEvtSel::EN | PerfEvtSel::INT;
        if spec.user {
            select = select | PerfEvtSel::USR;
        }
        if spec.kernel {
            select = select | PerfEvtSel::OS;
        }
        Ok(Self {
            text: text.to_owned(),
            select,
            period,
            filter: register(filter.hardware()),
            call_stack,
        })
    }

    /// What the handler loads the counter with: 32 bits, sign-extended by the processor.
    fn preset(&self) -> u64 {
        self.period.wrapping_neg() & 0xffff_ffff
    }

    /// The session begins: `x86_pmu_enable` with one event.
    pub(crate) fn start<M: GuestMsrs>(
        &self,
        msrs: &LbrMsrs,
        guest: &mut M,
    ) -> Result<(), M::Error> {
        guest.write(Msr::PERF_GLOBAL_CTRL, 0)?;
        // A counter written by its first address takes 32 bits, sign-extended.
        guest.write(Msr::PMC0, self.preset())?;
        guest.write(Msr::PERFEVTSEL0, self.select.bits())?;
        self.enable_lbr(msrs, guest, false)?;
        guest.write(Msr::PERF_GLOBAL_CTRL, 1)?;
        Ok(())
    }

    /// `__intel_pmu_lbr_enable`.
    fn enable_lbr<M: GuestMsrs>(
        &self,
        msrs: &LbrMsrs,
        guest: &mut M,
        in_pmi: bool,
    ) -> Result<(), M::Error> {
        if msrs.arch {
            guest.write(Msr::LBR_CTL, self.filter)?;
            return Ok(());
        }
        if let Some(select) = msrs.select.filter(|_| !in_pmi) {
            guest.write(select, self.filter & 0x3ff)?;
        }
        let before = guest.read(Msr::DEBUGCTL)?.map_or(0, |read| read.value);
        let mut after = before | DebugCtl::LBR.bits();
        if self.call_stack {
            after &= !DebugCtl::FREEZE_LBRS_ON_PMI.bits();
        } else {
            after |= DebugCtl::FREEZE_LBRS_ON_PMI.bits();
        }
        if before != after {
            guest.write(Msr::DEBUGCTL, after)?;
        }
        Ok(())
    }

    /// The guest's handler of its PMI: stop, read the stack, acknowledge, load the counter again,
    /// go on. `intel_pmu_handle_irq` of a guest that is told perfmon version 2.
    pub(crate) fn handle<M: GuestMsrs>(
        &self,
        msrs: &LbrMsrs,
        at: u64,
        guest: &mut M,
    ) -> Result<Option<GuestSample>, M::Error> {
        guest.write(Msr::PERF_GLOBAL_CTRL, 0)?;
        let status = guest.read(Msr::PERF_GLOBAL_STATUS)?;
        let status = status.map_or(0, |read| read.value);
        let mut sample = None;
        if status & 1 != 0 {
            sample = Some(self.read_stack(msrs, at, guest)?);
            guest.write(Msr::PERF_GLOBAL_OVF_CTRL, status)?;
            guest.write(Msr::PMC0, self.preset())?;
        }
        self.enable_lbr(msrs, guest, true)?;
        guest.write(Msr::PERF_GLOBAL_CTRL, 1)?;
        Ok(sample)
    }

    /// `intel_pmu_lbr_read_64`, `intel_pmu_store_lbr`.
    fn read_stack<M: GuestMsrs>(
        &self,
        msrs: &LbrMsrs,
        at: u64,
        guest: &mut M,
    ) -> Result<GuestSample, M::Error> {
        let mut sample = GuestSample {
            at,
            ..GuestSample::default()
        };
        let mut read = |msr: Msr, sample: &mut GuestSample| -> Result<u64, M::Error> {
            let value = guest.read(msr)?;
            sample.refused |= value.is_none();
            sample.foreign |= value.is_some_and(|read| read.foreign);
            Ok(value.map_or(0, |read| read.value))
        };
        let youngest = match msrs.tos {
            Some(tos) => read(tos, &mut sample)? as u32,
            None => 0,
        };
        for i in 0..msrs.nr {
            let n = msrs.older(youngest, i);
            let mut words = [0; 3];
            for word in msrs.words_of_entry() {
                let Some(msr) = msrs.entry(word, n) else {
                    continue;
                };
                words[word as usize] = read(msr, &mut sample)?;
                // Call stacks and architectural LBR end at the first empty entry, which costs FROM
                // and, of the legacy LBR, TO.
                let last = if msrs.arch { Word::From } else { Word::To };
                if (self.call_stack || msrs.arch) && word == last && words[0] == 0 {
                    return Ok(sample);
                }
            }
            sample.entries.push(words);
        }
        Ok(sample)
    }
}
