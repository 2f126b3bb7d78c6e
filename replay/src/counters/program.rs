//! A logical processor whose counters and LBR perf has programmed.

use thiserror::Error;
use vlbr_arch::{LvtPc, Msr, PerfCapabilities, PerfEvtSel};
use vlbr_cpu::Clock;
use vlbr_cpu::ledger::MsrAccess;
use vlbr_cpu::processor::{LogicalProcessor, MsrFault, Options, ProcessorError};
use vlbr_cpu::run::Counting;
use vlbr_lbr::{InsertsEvent, Lbr};
use vlbr_pmu::{Counter, Device, EventSpec, PeriodError, Pmu, Quirk, Refusal};

use super::{AssignError, assign};

/// LVT entry of Linux: the PMI is an NMI. `APIC_DM_NMI`.
pub(crate) const NMI: LvtPc = LvtPc::from_bits(0x400);

/// Why counters cannot be programmed, or do not do what was foretold.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum CounterError {
    /// There are not enough of them.
    #[error(transparent)]
    Assign(#[from] AssignError),
    /// A period beyond the counter's width, or 0.
    #[error(transparent)]
    Period(#[from] PeriodError),
    /// LBR and PMU are not of one part.
    #[error(transparent)]
    Processor(#[from] ProcessorError),
    /// The device refuses a register value.
    #[error("programming the counters: {0}")]
    Fault(#[from] MsrFault),
    /// Nobody feeds the event.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The device wants more than sums.
    #[error(transparent)]
    Amounts(#[from] vlbr_pmu::AmountsError),
    /// The device does not overflow where the hot loop says it does.
    #[error(
        "thread {thread}: after {events} events the counter should have overflowed by the hot loop; \
         the device stands at {value:#x}"
    )]
    NoOverflow {
        /// Index of the thread.
        thread: usize,
        /// Events of the sampled counter on this thread.
        events: u64,
        /// What the device's counter reads.
        value: u64,
    },
    /// A counter of the device holds something else than what was counted.
    #[error("thread {thread}: {counter} reads {value:#x}, {counted} events were counted")]
    Count {
        /// Index of the thread.
        thread: usize,
        /// The counter.
        counter: Counter,
        /// What it reads.
        value: u64,
        /// Events on this thread.
        counted: u64,
    },
    /// The device overflows where the hot loop does not.
    #[error("thread {thread}: the device overflows before the sample after {events} events")]
    Overflow {
        /// Index of the thread.
        thread: usize,
        /// Events of the sampled counter on this thread.
        events: u64,
    },
}

/// Counters and LBR of a logical processor as perf leaves them when it enables its events.
///
/// Linux `intel_pmu_enable_event` and `__intel_pmu_enable_all`. Only the sampled counter
/// interrupts; perf lets counting ones interrupt too, to widen them, which changes no count. Their
/// upper halves are kept beside the device.
#[derive(Clone, Debug)]
pub struct ProgrammedCounters {
    pub(crate) cpu: LogicalProcessor,
    events: Vec<EventSpec>,
    counters: Vec<Counter>,
    /// For each active counter of the PMU, in its order, the event it counts.
    pub(crate) active: Vec<usize>,
    pub(crate) sampled: Option<Reload>,
    /// `IA32_PERF_GLOBAL_CTRL` while the counters run, where the part has it.
    pub(crate) global_ctrl: Option<u64>,
    /// `IA32_DEBUGCTL` and `IA32_LBR_CTL`, if perf's handler writes them again when it leaves.
    pub(crate) rewritten: Vec<(Msr, u64)>,
    clock: Clock,
}

/// How the sampled counter is loaded again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reload {
    pub(crate) counter: Counter,
    pub(crate) msr: Msr,
}

impl ProgrammedCounters {
    /// Joins `lbr` as perf programmed it with a PMU that counts `events`, of which the first
    /// interrupts after `period` events if there is one.
    ///
    /// # Errors
    /// See [`CounterError`].
    pub fn new(
        lbr: &Lbr,
        pmu: &vlbr_pmu::Profile,
        options: vlbr_pmu::Options,
        events: Vec<EventSpec>,
        period: Option<u64>,
        clock: Clock,
    ) -> Result<Self, CounterError> {
        let counters = assign(pmu, &events)?;
        let options = Options {
            lbr: lbr.options().clone(),
            pmu: options,
            ..Options::default()
        };
        let devices = Pmu::new(pmu, options.pmu.clone());
        let mut cpu = LogicalProcessor::of(lbr.clone(), devices, &options)?;
        let mut fixed_ctrl = 0;
        let mut global_ctrl = 0;
        let full_width = pmu.perf_capabilities().contains(PerfCapabilities::FW_WRITE);
        let register = |counter| match counter {
            Counter::Gp(n) if full_width => Msr::A_PMC0.plus(n.into()),
            Counter::Gp(n) => Msr::PMC0.plus(n.into()),
            Counter::Fixed(i) => Msr::FIXED_CTR0.plus(i.into()),
        };
        let mut sampled = None;
        let has_global = pmu.version() >= 2;
        if has_global {
            cpu.wrmsr(Msr::PERF_GLOBAL_CTRL, 0)?;
        }
        for (number, (event, &counter)) in events.iter().zip(&counters).enumerate() {
            let period = period.filter(|_| number == 0);
            let msr = register(counter);
            let start = match period {
                Some(period) => {
                    sampled = Some(Reload { counter, msr });
                    pmu.preset(counter, period)?
                }
                None => 0,
            };
            cpu.wrmsr(msr, start)?;
            let set = |on: bool, bit: u64| if on { bit } else { 0 };
            match counter {
                Counter::Gp(n) => {
                    pmu.sources_of(counter, event.select, &options.pmu)?;
                    let select = event.select.bits()
                        | PerfEvtSel::EN.bits()
                        | set(event.user, PerfEvtSel::USR.bits())
                        | set(event.kernel, PerfEvtSel::OS.bits())
                        | set(period.is_some(), PerfEvtSel::INT.bits());
                    cpu.wrmsr(Msr::PERFEVTSEL0.plus(n.into()), select)?;
                }
                Counter::Fixed(i) => {
                    pmu.sources_of_fixed(i, &options.pmu)?;
                    use vlbr_arch::FixedCtrCtrl as Field;
                    let field = set(event.user, Field::USR)
                        | set(event.kernel, Field::OS)
                        | set(period.is_some(), Field::PMI);
                    fixed_ctrl |= field << (4 * u32::from(i));
                }
            }
            global_ctrl |= 1 << counter.bit();
        }
        if fixed_ctrl != 0 {
            cpu.wrmsr(Msr::FIXED_CTR_CTRL, fixed_ctrl)?;
        }
        cpu.pmu_mut().set_lvtpc(NMI);
        if has_global {
            cpu.wrmsr(Msr::PERF_GLOBAL_CTRL, global_ctrl)?;
        }
        let rewritten = [Msr::DEBUGCTL, Msr::LBR_CTL]
            .into_iter()
            // From version 4 on the handler acknowledges GLOBAL_STATUS, which ends a freeze, and
            // leaves the enable alone. Linux `__intel_pmu_lbr_enable`.
            .filter(|_| pmu.version() < 4)
            .filter_map(|msr| Some((msr, lbr.rdmsr(msr).ok()?)))
            .collect();
        let active = cpu.pmu().active();
        let event_of = |counter| counters.iter().position(|&of| of == counter);
        let active = active
            .iter()
            .filter_map(|&(counter, _)| event_of(counter))
            .collect();
        Ok(Self {
            cpu,
            events,
            counters,
            active,
            sampled,
            global_ctrl: has_global.then_some(global_ctrl),
            rewritten,
            clock,
        })
    }

    /// The events, the sampled one first.
    #[must_use]
    pub fn events(&self) -> &[EventSpec] {
        &self.events
    }

    /// The counter of each event.
    #[must_use]
    pub fn counters(&self) -> &[Counter] {
        &self.counters
    }

    /// The processor as programmed.
    #[must_use]
    pub fn processor(&self) -> &LogicalProcessor {
        &self.cpu
    }

    /// What the counters count, as the device's registers say: for the hot loop. The first event
    /// is the sampled one, the others follow in their order.
    #[must_use]
    pub fn counting(&self) -> Counting {
        let selectors = self.cpu.pmu().active();
        let of = |event: usize| {
            let at = self.active.iter().position(|&of| of == event)?;
            Some(selectors[at].1)
        };
        let inserts = self.cpu.lbr().profile().lbr_inserts();
        Counting {
            sampled: self.sampled.and_then(|_| of(0)),
            others: (usize::from(self.sampled.is_some())..self.events.len())
                .filter_map(of)
                .collect(),
            clock: self.clock,
            mispredicted: None,
            costs: None,
            pops_are_inserts: inserts == InsertsEvent::PushesAndPops,
        }
    }

    /// Instructions or clocks from an overflow to its interrupt.
    #[must_use]
    pub fn skid(&self) -> u64 {
        self.cpu.pmu().options().skid
    }

    /// Whether an overflow can be foretold from what the steps count: the PMI is delivered at its
    /// boundary, and no erratum loses events.
    #[must_use]
    pub fn is_foretold(&self) -> bool {
        let pmu = self.cpu.pmu();
        let options = pmu.options();
        let quirks = options.quirks.unwrap_or(pmu.profile().quirks());
        let lossy = |event: &EventSpec| event.select.event() == 0xc4;
        (options.skid == 0 || self.sampled.is_none())
            && !(quirks.contains(Quirk::LostBranches) && self.events.iter().any(lossy))
    }
}
