//! The guest's counters: KVM emulates their registers, and a perf event of the host counts for
//! each that is enabled.

use vlbr_arch::{Msr, PerfEvtSel};
use vlbr_pmu::CounterSet;

use super::{Access, Answer, Call, GuestCpu, Initiator, Operation};
use crate::VcpuId;
use crate::machine::Host;
use crate::perf::{Creator, EventAttr, EventId, EventKind, Target};
use crate::{Owned, Owner};

/// Bits of `IA32_PERFEVTSELn` that a guest without TSX may write: `reserved_bits` of KVM inverted.
/// Pin control may be set, and does nothing.
const EVTSEL_MASK: u64 = 0xffff_ffff & !(1 << 21);
/// `IA32_PERF_CAPABILITIES.FW_WRITES`.
pub(crate) const FW_WRITES: u64 = 1 << 13;
/// Bits of a guest's counter.
const WIDTH: u32 = 48;

/// A counter of the guest. `struct kvm_pmc`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GuestCounter {
    /// What it has counted up to the creation of the event, or altogether without one.
    pub value: u64,
    /// `IA32_PERFEVTSELn`; of fixed counters unused.
    pub evtsel: u64,
    /// The perf event that counts for it.
    pub event: Option<EventId>,
}

/// The PMU that a guest sees. `struct kvm_pmu`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GuestPmu {
    /// Version of architectural perfmon; 0: none.
    pub version: u8,
    /// General-purpose counters.
    pub gp: Vec<GuestCounter>,
    /// Fixed counters.
    pub fixed: Vec<GuestCounter>,
    /// `IA32_FIXED_CTR_CTRL`.
    pub fixed_ctrl: u64,
    /// `IA32_PERF_GLOBAL_CTRL`.
    pub global_ctrl: u64,
    /// `IA32_PERF_GLOBAL_STATUS`.
    pub global_status: u64,
}

/// Which counter a register is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Which {
    Gp(usize),
    Fixed(usize),
}

impl GuestPmu {
    /// The PMU that CPUID leaf 0xA describes, after reset.
    #[must_use]
    pub fn new(cpu: &GuestCpu) -> Self {
        let counters = |count: u8| {
            let count = if cpu.pmu_version == 0 { 0 } else { count };
            vec![GuestCounter::default(); count.into()]
        };
        let fixed = if cpu.pmu_version >= 2 {
            cpu.fixed_counters
        } else {
            0
        };
        let mut pmu = Self {
            version: cpu.pmu_version,
            gp: counters(cpu.gp_counters),
            fixed: counters(fixed),
            ..Self::default()
        };
        pmu.global_ctrl = pmu.global_mask();
        pmu
    }

    /// Whether perf events count for it: `event_count`, without that of the LBR.
    #[must_use]
    pub fn has_events(&self) -> bool {
        let mut counters = self.gp.iter().chain(&self.fixed);
        counters.any(|counter| counter.event.is_some())
    }

    /// Its registers in KVM's list of those to be saved, in that order. `IA32_PERF_GLOBAL_OVF_CTRL`,
    /// which 5.15 lists too, holds nothing.
    pub(crate) fn listed(&self) -> impl Iterator<Item = Msr> + use<> {
        let numbers = |base: Msr, count: usize| (0..count as u32).map(move |n| base.plus(n));
        let (gp, fixed, version) = (self.gp.len(), self.fixed.len(), self.version);
        let globals = [
            Msr::FIXED_CTR_CTRL,
            Msr::PERF_GLOBAL_STATUS,
            Msr::PERF_GLOBAL_CTRL,
        ];
        let globals = globals.into_iter().filter(move |_| version >= 2);
        numbers(Msr::FIXED_CTR0, fixed)
            .chain(globals)
            .chain(numbers(Msr::PMC0, gp))
            .chain(numbers(Msr::PERFEVTSEL0, gp))
    }

    fn global_mask(&self) -> u64 {
        ((1 << self.gp.len()) - 1) | (((1 << self.fixed.len()) - 1) << 32)
    }

    fn counter(&self, which: Which) -> GuestCounter {
        match which {
            Which::Gp(n) => self.gp[n],
            Which::Fixed(n) => self.fixed[n],
        }
    }

    fn counter_mut(&mut self, which: Which) -> &mut GuestCounter {
        match which {
            Which::Gp(n) => &mut self.gp[n],
            Which::Fixed(n) => &mut self.fixed[n],
        }
    }

    fn all(&self) -> impl Iterator<Item = Which> + use<> {
        let (gp, fixed) = (self.gp.len(), self.fixed.len());
        (0..gp).map(Which::Gp).chain((0..fixed).map(Which::Fixed))
    }

    fn bit(which: Which) -> u64 {
        match which {
            Which::Gp(n) => 1 << n,
            Which::Fixed(n) => 1 << (32 + n),
        }
    }

    /// What the counter counts, if it is enabled: CPL 0, above it, and whether it interrupts.
    fn enabled(&self, which: Which) -> Option<(bool, bool, bool)> {
        if self.version >= 2 && self.global_ctrl & Self::bit(which) == 0 {
            return None;
        }
        let (os, usr, int) = match which {
            Which::Gp(n) => {
                let select = PerfEvtSel::from_bits(self.gp[n].evtsel);
                if !select.contains(PerfEvtSel::EN) {
                    return None;
                }
                (
                    select.contains(PerfEvtSel::OS),
                    select.contains(PerfEvtSel::USR),
                    select.contains(PerfEvtSel::INT),
                )
            }
            Which::Fixed(n) => {
                let field = self.fixed_ctrl >> (4 * n);
                (field & 1 != 0, field & 2 != 0, field & 8 != 0)
            }
        };
        (os || usr).then_some((os, usr, int))
    }
}

/// The event that `IA32_PERFEVTSELn` selects, on any general-purpose counter.
const fn raw(evtsel: u64) -> EventKind {
    EventKind::Counter {
        select: PerfEvtSel::from_bits(evtsel),
        counters: CounterSet(u32::MAX as u64),
    }
}

/// What a fixed counter counts, on that counter alone.
const fn fixed(n: usize) -> EventKind {
    let select = match n {
        0 => 0x00c0,
        1 => 0x003c,
        2 => 0x0300,
        _ => 0x0400,
    };
    EventKind::Counter {
        select: PerfEvtSel::from_bits(select),
        counters: CounterSet(1 << (32 + n)),
    }
}

/// A register of the guest's PMU.
enum Register {
    EvtSel(usize),
    Counter(Which, bool),
    FixedCtrl,
    GlobalCtrl,
    GlobalStatus,
    OvfCtrl,
}

impl Host {
    fn guest_pmu_register(&self, vcpu: VcpuId, msr: Msr) -> Option<Register> {
        let pmu = &self.vcpu(vcpu).pmu;
        let within = |base: Msr, count: usize| {
            let n = msr.value().wrapping_sub(base.value()) as usize;
            (n < count).then_some(n)
        };
        if pmu.version == 0 {
            return None;
        }
        if let Some(n) = within(Msr::PERFEVTSEL0, pmu.gp.len()) {
            return Some(Register::EvtSel(n));
        }
        if let Some(n) = within(Msr::PMC0, pmu.gp.len()) {
            return Some(Register::Counter(Which::Gp(n), false));
        }
        if let Some(n) = within(Msr::A_PMC0, pmu.gp.len()) {
            let full = self.vcpu(vcpu).perf_capabilities & FW_WRITES != 0;
            return full.then_some(Register::Counter(Which::Gp(n), true));
        }
        if let Some(n) = within(Msr::FIXED_CTR0, pmu.fixed.len()) {
            return Some(Register::Counter(Which::Fixed(n), true));
        }
        let register = match msr {
            Msr::FIXED_CTR_CTRL => Register::FixedCtrl,
            Msr::PERF_GLOBAL_CTRL => Register::GlobalCtrl,
            Msr::PERF_GLOBAL_STATUS => Register::GlobalStatus,
            Msr::PERF_GLOBAL_OVF_CTRL => Register::OvfCtrl,
            _ => return None,
        };
        (pmu.version >= 2).then_some(register)
    }

    /// An access to a register of the guest's PMU that exited. `kvm_pmu_get_msr`,
    /// `kvm_pmu_set_msr`.
    pub(crate) fn guest_pmu_access(&mut self, call: Call, access: Access) -> Answer {
        let vcpu = call.vcpu;
        let Some(register) = self.guest_pmu_register(vcpu, access.msr) else {
            return Answer::Unknown;
        };
        let Operation::Write(value) = access.operation else {
            let pmu = &self.vcpu(vcpu).pmu;
            let value = match register {
                Register::EvtSel(n) => pmu.gp[n].evtsel,
                Register::Counter(which, _) => self.guest_count(vcpu, which),
                Register::FixedCtrl => pmu.fixed_ctrl,
                Register::GlobalCtrl => pmu.global_ctrl,
                Register::GlobalStatus => pmu.global_status,
                Register::OvfCtrl => 0,
            };
            return Answer::Value(Owned::new(value, Owner::Guest(vcpu)));
        };
        let value = value.value;
        let pmu = &mut self.vcpu_mut(vcpu).pmu;
        let mask = pmu.global_mask();
        match register {
            Register::EvtSel(n) => {
                if value & !EVTSEL_MASK != 0 {
                    return Answer::Refused;
                }
                pmu.gp[n].evtsel = value;
                self.reprogram(call, Which::Gp(n));
            }
            Register::Counter(which, full) => {
                let width = u64::MAX >> (64 - WIDTH);
                if full && matches!(which, Which::Gp(_)) && value & !width != 0 {
                    return Answer::Refused;
                }
                // Without full-width writes a guest's counter takes 32 bits, sign-extended; what
                // user space writes, it takes whole.
                let value = if full || call.initiator == Initiator::UserSpace {
                    value
                } else {
                    i64::from(value as u32 as i32) as u64
                };
                self.drop_guest_event(vcpu, which);
                self.vcpu_mut(vcpu).pmu.counter_mut(which).value = value & width;
                self.reprogram(call, which);
            }
            Register::FixedCtrl => {
                let bits = (1u64 << (4 * pmu.fixed.len())) - 1;
                // AnyThread (bit 2 of a field) is not offered.
                if value & !bits != 0 || value & 0x4444_4444 != 0 {
                    return Answer::Refused;
                }
                let changed = pmu.fixed_ctrl ^ value;
                pmu.fixed_ctrl = value;
                for n in (0..pmu.fixed.len()).filter(|n| changed >> (4 * n) & 0xf != 0) {
                    self.reprogram(call, Which::Fixed(n));
                }
            }
            Register::GlobalCtrl => {
                if value & !mask != 0 {
                    return Answer::Refused;
                }
                let changed = pmu.global_ctrl ^ value;
                pmu.global_ctrl = value;
                let which: Vec<_> = pmu.all().collect();
                for which in which {
                    if changed & GuestPmu::bit(which) != 0 {
                        self.reprogram(call, which);
                    }
                }
            }
            Register::GlobalStatus if call.initiator == Initiator::UserSpace => {
                pmu.global_status = value;
            }
            Register::GlobalStatus => return Answer::Refused,
            Register::OvfCtrl => {
                // Bits 63:62: CondChgd, OvfBuffer.
                if value & !(mask | 3 << 62) != 0 {
                    return Answer::Refused;
                }
                // User space restores the register, it does not acknowledge.
                if call.initiator == Initiator::Guest {
                    pmu.global_status &= !value;
                }
            }
        }
        Answer::Done
    }

    fn guest_count(&self, vcpu: VcpuId, which: Which) -> u64 {
        let counter = self.vcpu(vcpu).pmu.counter(which);
        let live = counter
            .event
            .and_then(|event| self.perf.read(&self.hardware, event).ok().flatten());
        let width = u64::MAX >> (64 - WIDTH);
        counter.value.wrapping_add(live.unwrap_or(0)) & width
    }

    fn drop_guest_event(&mut self, vcpu: VcpuId, which: Which) {
        let value = self.guest_count(vcpu, which);
        let counter = self.vcpu_mut(vcpu).pmu.counter_mut(which);
        counter.value = value;
        if let Some(event) = counter.event.take() {
            let released = self.perf.release(&mut self.hardware, event);
            debug_assert!(released.is_ok());
        }
    }

    /// The counter's event is made anew for what the registers say then: now, or at the next pass
    /// of `vcpu_enter_guest`. `kvm_pmu_request_counter_reprogram`.
    fn reprogram(&mut self, call: Call, which: Which) {
        if self.kvm.defers_reprogramming {
            // It counts for the registers as they were until then, which nobody can tell: the vCPU
            // is not in the guest.
            self.vcpu_mut(call.vcpu).requests.reprogram |= GuestPmu::bit(which);
        } else {
            self.reprogram_now(call, which);
        }
    }

    /// Events of counters that wait for it are made anew. `kvm_pmu_handle_event`.
    pub(crate) fn reprogram_requested(&mut self, call: Call, counters: u64) {
        if counters == 0 {
            return;
        }
        let which: Vec<_> = self.vcpu(call.vcpu).pmu.all().collect();
        for which in which {
            if counters & GuestPmu::bit(which) != 0 {
                self.reprogram_now(call, which);
            }
        }
    }

    /// `reprogram_counter`. KVM pauses and resumes an event whose selection is the same; here it
    /// is another.
    fn reprogram_now(&mut self, call: Call, which: Which) {
        let vcpu = call.vcpu;
        self.drop_guest_event(vcpu, which);
        let pmu = &self.vcpu(vcpu).pmu;
        let Some((os, usr, interrupts)) = pmu.enabled(which) else {
            return;
        };
        let counter = pmu.counter(which);
        let kind = match which {
            Which::Gp(_) => raw(counter.evtsel),
            Which::Fixed(n) => fixed(n),
        };
        let mut attr = EventAttr::counting(kind);
        attr.pinned = true;
        attr.exclude_host = true;
        attr.exclude_user = !usr;
        attr.exclude_kernel = !os;
        let period = counter.value.wrapping_neg() & (u64::MAX >> (64 - WIDTH));
        if interrupts {
            attr.period = if period == 0 { 1 << WIDTH } else { period };
        }
        let target = Target::Task(call.thread);
        let opened = self
            .perf
            .open(&mut self.hardware, attr, target, Creator::Kvm, None);
        // An event that the host cannot count leaves the counter at rest, as KVM does.
        self.vcpu_mut(vcpu).pmu.counter_mut(which).event = opened.ok();
    }

    /// A perf event overflowed; if it counts for a guest, the guest's status is set and its PMI
    /// requested. `kvm_perf_overflow`, `__kvm_perf_overflow`.
    pub(crate) fn overflowed(&mut self, event: EventId) {
        for vcpu in &mut self.vcpus {
            let found = vcpu
                .pmu
                .all()
                .find(|which| vcpu.pmu.counter(*which).event == Some(event));
            if let Some(which) = found {
                vcpu.pmu.global_status |= GuestPmu::bit(which);
                let interrupts = vcpu.pmu.enabled(which).is_some_and(|(.., int)| int);
                vcpu.requests.pmi |= interrupts;
                return;
            }
        }
    }

    /// User space changed what the guest's PMU is: it is reset, in a kernel that does so.
    /// `kvm_pmu_refresh`.
    pub(crate) fn refreshed_pmu(&mut self, vcpu: VcpuId) {
        if self.kvm.refresh_resets_pmu {
            self.reset_guest_pmu(vcpu);
            self.release_lbr_event(vcpu);
        }
    }

    /// `kvm_pmu_reset`: counters stop and read 0.
    pub(crate) fn reset_guest_pmu(&mut self, vcpu: VcpuId) {
        let which: Vec<_> = self.vcpu(vcpu).pmu.all().collect();
        for which in which {
            self.drop_guest_event(vcpu, which);
        }
        let state = self.vcpu_mut(vcpu);
        state.pmu = GuestPmu::new(&state.guest_cpu);
        state.requests.pmi = false;
        state.requests.reprogram = 0;
    }
}
