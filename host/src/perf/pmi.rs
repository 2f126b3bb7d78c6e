//! The PMI handler: `intel_pmu_handle_irq`, `handle_pmi_common`.

use vlbr_arch::{DebugCtl, Msr, PerfGlobalStatus};
use vlbr_cpu::ledger::Actor;

use super::lbr::{BranchStack, CodeBytes};
use super::x86::PmuModel;
use super::{EventId, Perf};
use crate::CpuId;
use crate::hardware::{Entry, Hardware};

const BY: Actor = Actor::HostPmi;

/// Rounds after which the handler gives up: `intel_pmu_reset`.
const ROUNDS: u32 = 100;

/// A sample of an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PmiSample {
    /// The event whose period ended.
    pub event: EventId,
    /// `last_period`.
    pub period: u64,
    /// The branch stack, if the event asked for one.
    pub branches: Option<BranchStack>,
    /// The stack is one that was stored before: this PMI did not read the LBR.
    pub stale: bool,
}

impl Perf {
    /// A PMI of the host on a processor, as NMI. What the events that overflowed sample.
    ///
    /// The LBR is read once in a round, before the counters are looked at, so that all events of a
    /// round share one stack.
    pub fn pmi(&mut self, hw: &mut Hardware, cpu: CpuId, code: &dyn CodeBytes) -> Vec<PmiSample> {
        if self.events.is_empty() {
            return Vec::new();
        }
        let freezing = self.behaviour.counter_freezing && self.pmu.version >= 4;
        let was_enabled = core::mem::replace(&mut self.cpu_mut(cpu).pmu.enabled, false);
        if !freezing {
            self.disable_counters(hw, cpu, BY);
        }
        let mut samples = Vec::new();
        let mut rounds = 0;
        let mut status = self.rdmsr(hw, cpu, BY, Msr::PERF_GLOBAL_STATUS).value;
        if freezing && status == 0 {
            // Two PMIs in a row: the first one's handler saw both.
            status = self.rdmsr(hw, cpu, BY, Msr::PERF_GLOBAL_STATUS).value;
        }
        let first = status;
        while status != 0 {
            let fresh = self.lbr_read(hw, cpu, code);
            if !freezing {
                self.wrmsr(hw, cpu, BY, Msr::PERF_GLOBAL_OVF_CTRL, status);
            }
            rounds += 1;
            if rounds > ROUNDS {
                self.reset_pmu(hw, cpu);
                break;
            }
            self.overflowed(hw, cpu, status, !fresh, &mut samples);
            if freezing {
                break;
            }
            status = self.rdmsr(hw, cpu, BY, Msr::PERF_GLOBAL_STATUS).value;
        }
        self.cpu_mut(cpu).pmu.enabled = was_enabled;
        if freezing {
            // The counters run again with this, and the LBR records.
            if first != 0 {
                self.wrmsr(hw, cpu, BY, Msr::PERF_GLOBAL_OVF_CTRL, first);
            }
        } else if was_enabled {
            if self.cpu(cpu).pmu.pebs_enabled != 0 {
                let pebs = self.cpu(cpu).pmu.pebs_enabled;
                self.wrmsr(hw, cpu, BY, Msr::PEBS_ENABLE, pebs);
            }
            self.enable_counters(hw, cpu, BY, true);
        }
        let lvt = PmuModel::NMI;
        vlbr_pmu::Device::set_lvtpc(hw.cpu_mut(cpu).logical_mut().pmu_mut(), lvt);
        samples
    }

    /// `handle_pmi_common`: events whose counters have their bit in the status.
    fn overflowed(
        &mut self,
        hw: &mut Hardware,
        cpu: CpuId,
        status: u64,
        stale: bool,
        samples: &mut Vec<PmiSample>,
    ) {
        let other =
            PerfGlobalStatus::COND_CHGD | PerfGlobalStatus::ASCI | PerfGlobalStatus::LBR_FRZ;
        // Counters with PEBS are dealt with when their buffer is drained.
        let status = status & !other.bits() & !self.cpu(cpu).pmu.pebs_enabled;
        let counters = self.cpu(cpu).pmu.active.iter();
        let due: Vec<EventId> = counters
            .filter(|(idx, _)| status >> **idx & 1 != 0)
            .map(|(_, id)| *id)
            .collect();
        for id in due {
            self.update(hw, cpu, id);
            if !self.set_period(hw, cpu, id) {
                continue;
            }
            let event = self.event_ref(id);
            if !event.attr.is_sampling() {
                continue;
            }
            let wanted = event.attr.branch_sample_type.is_some();
            samples.push(PmiSample {
                event: id,
                period: event.hw.last_period,
                branches: wanted.then(|| self.cpu(cpu).lbr.stack.clone()),
                stale: wanted && stale,
            });
        }
    }

    /// `intel_pmu_reset`, as far as the counters and the LBR go.
    fn reset_pmu(&mut self, hw: &mut Hardware, cpu: CpuId) {
        for n in 0..u32::from(self.pmu.gp) {
            self.wrmsr(hw, cpu, BY, Msr::PERFEVTSEL0.plus(n), 0);
            self.wrmsr(hw, cpu, BY, Msr::PMC0.plus(n), 0);
        }
        let counters = self.pmu.counters;
        for i in (0..32).filter(|i| counters >> (32 + i) & 1 != 0) {
            self.wrmsr(hw, cpu, BY, Msr::FIXED_CTR0.plus(i), 0);
        }
        let status = self.rdmsr(hw, cpu, BY, Msr::PERF_GLOBAL_STATUS).value;
        self.wrmsr(hw, cpu, BY, Msr::PERF_GLOBAL_OVF_CTRL, status);
        self.wrmsr(hw, cpu, BY, Msr::PERF_GLOBAL_CTRL, 0);
        let value = self.rdmsr(hw, cpu, BY, Msr::DEBUGCTL).value;
        let both = DebugCtl::LBR | DebugCtl::FREEZE_LBRS_ON_PMI;
        let value = DebugCtl::from_bits(value).without(both).bits();
        self.wrmsr(hw, cpu, BY, Msr::DEBUGCTL, value);
    }

    /// An adaptive PEBS record with the LBR group was made in root operation, and is parsed:
    /// `setup_pebs_adaptive_sample_data`. The hardware has put the LBR into it as it stood, so that
    /// no MSR is accessed; and nobody asks who owns the LBR. `None` if `event` has no such records.
    pub fn pebs_record(
        &mut self,
        hw: &Hardware,
        cpu: CpuId,
        event: EventId,
        code: &dyn CodeBytes,
    ) -> Option<PmiSample> {
        let known = self.events.get(&event)?;
        let adaptive = self.pmu.pebs_baseline && known.attr.precise_ip != 0;
        known.attr.branch_sample_type.filter(|_| adaptive)?;
        let period = known.hw.last_period;
        let (entries, tos) = Self::records_of(hw, cpu);
        self.store_pebs(cpu, (&entries, tos), code);
        Some(PmiSample {
            event,
            period,
            branches: Some(self.cpu(cpu).lbr.stack.clone()),
            stale: false,
        })
    }

    /// The LBR as the hardware writes it into a record: youngest first.
    fn records_of(hw: &Hardware, cpu: CpuId) -> (Vec<Entry>, u64) {
        let processor = hw.cpu(cpu);
        let lbr = processor.logical().lbr();
        let (msrs, tos) = (processor.lbr_msrs(), lbr.tos() as u32);
        let first = if msrs.arch { 0 } else { tos };
        let entries = lbr.stack().zip(0u32..).map(|(record, i)| {
            let owners = processor.owners().entry(msrs.older(first, i));
            let word = |n: usize| crate::Owned::new(record.raw[n], owners[n]);
            Entry::new(word(0), word(1), word(2))
        });
        (entries.collect(), u64::from(tos))
    }
}
