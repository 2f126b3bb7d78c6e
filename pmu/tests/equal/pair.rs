//! Driving both devices.

use std::collections::BTreeMap;

use vlbr_arch::{Cpl, DebugCtl, LvtPc, Msr, ds};
use vlbr_pmu::{
    Device, GpReason, Increments, MachineState, Options, PebsOutcome, PmiCause, Pmu, PmuError,
    Profile, Refusal, Source, reference,
};

use crate::ops::Op;
use crate::world::{BUFFER, DS, World};

/// What happened, to see that the generator reaches it.
pub(crate) type Tally = BTreeMap<&'static str, u64>;

pub(crate) struct Pair {
    fast: Pmu,
    slow: reference::Pmu,
    of_fast: World,
    of_slow: World,
    pub(crate) tally: Tally,
}

fn machine(n: u64) -> MachineState {
    MachineState {
        rflags: 0x1_0000_0246,
        rip: 0xffff_ffff_8100_0000 | n,
        eventing_ip: n,
        gprs: core::array::from_fn(|i| n << 40 | i as u64),
        xmms: core::array::from_fn(|i| [n, i as u64]),
        ia32e: n & 3 != 0,
        tsc: n,
        data_address: n + 1,
        data_source: n + 2,
        latency: n + 3,
        tx_abort: n + 4,
        retire_latency: n as u16,
    }
}

pub(crate) fn increments(amounts: &[(Source, bool, u64)], in_tx: bool) -> Increments {
    let mut run = Increments::new();
    for (source, user, amount) in amounts {
        let cpl = if *user { Cpl::Ring3 } else { Cpl::Ring0 };
        run.add(*source, cpl, *amount);
    }
    run.in_tx = in_tx;
    run
}

impl Pair {
    pub(crate) fn new(profile: &Profile, options: &Options) -> Self {
        let mut world = World::with_buffer(2000, 1000);
        world.streamlined = profile.version() >= 4;
        world.machine = machine(7);
        world.entries = (0..16).map(|n| [n, n + 100, n + 200]).collect();
        Self {
            fast: Pmu::new(profile, options.clone()),
            slow: reference::Pmu::new(profile, options.clone()),
            of_fast: world.clone(),
            of_slow: world,
            tally: Tally::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    fn wrmsr(&mut self, msr: Msr, value: u64) {
        let before = (self.fast.clone(), self.of_fast.clone());
        let done = self.fast.wrmsr(msr, value, &mut self.of_fast);
        let slow = self.slow.wrmsr(msr, value, &mut self.of_slow);
        assert_eq!(done, slow, "WRMSR {msr} = {value:#x}");
        let Err(error) = done else { return };
        assert!(
            (&self.fast, &self.of_fast) == (&before.0, &before.1),
            "a refused WRMSR {msr} = {value:#x} changed something"
        );
        self.count(match error {
            PmuError::Gp(fault) => match fault.reason {
                GpReason::NoSuchMsr => "no such MSR",
                GpReason::ReadOnly => "read only",
                GpReason::Reserved(_) => "reserved bits",
                GpReason::Width(_) => "width",
                GpReason::NonCanonical(_) => "non-canonical",
                GpReason::Privilege | GpReason::NoSuchCounter => "RDPMC",
            },
            PmuError::Refused { refusal, .. } => match refusal {
                Refusal::UnknownEvent { .. } => "unknown event",
                Refusal::NotFed { .. } => "event not fed",
                Refusal::WrongCounter { .. } => "wrong counter",
                Refusal::NotAvailable { .. } => "not available",
                Refusal::NeedsCycles { .. } => "needs clocks",
                Refusal::Metrics => "metrics",
                Refusal::PebsToPt(_) => "PEBS to PT",
            },
        });
    }

    /// As [`Pair::wrmsr`], with what the part reserves left out.
    fn write_legal(&mut self, msr: Msr, value: u64) {
        let reserved = self.fast.reserved_bits(msr);
        self.wrmsr(msr, value & !reserved);
    }

    fn each_world(&mut self, change: impl Fn(&mut World)) {
        change(&mut self.of_fast);
        change(&mut self.of_slow);
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        match op {
            Op::Count {
                n,
                event,
                flags,
                soon,
            } => {
                let events = Profile::events(Device::profile(&self.fast));
                let select = events[event % events.len()].select().bits();
                let n = u32::from(*n);
                self.write_legal(Msr::PERFEVTSEL0.plus(n), select | flags);
                self.wrmsr(Msr::PMC0.plus(n), soon.wrapping_neg());
            }
            Op::CountFixed { control, soon } => {
                self.write_legal(Msr::FIXED_CTR_CTRL, *control);
                for i in 0..4 {
                    self.write_legal(Msr::FIXED_CTR0.plus(i), soon.wrapping_neg());
                }
            }
            Op::Sample {
                enable,
                config,
                room,
                threshold,
            } => {
                self.write_legal(Msr::PEBS_DATA_CFG, *config);
                self.write_legal(Msr::PEBS_ENABLE, *enable);
                self.wrmsr(Msr::DS_AREA, DS);
                let (room, threshold) = (*room, *threshold);
                self.each_world(|world| {
                    let fresh = World::with_buffer(room, threshold);
                    world.memory.extend(fresh.memory);
                    world.machine = machine(room);
                    for slot in 0..0x30 {
                        world.set(
                            DS + ds::PEBS_RESET + 8 * slot,
                            (threshold % 7 + 1).wrapping_neg(),
                        );
                    }
                });
            }
            Op::Go => {
                self.write_legal(Msr::PERF_GLOBAL_CTRL, !(1 << 48));
                self.write_legal(Msr::PERF_GLOBAL_OVF_CTRL, u64::MAX);
                self.fast.set_lvtpc(LvtPc::from_bits(0x400));
                self.slow.set_lvtpc(LvtPc::from_bits(0x400));
            }
            Op::Write(msr, value) => self.wrmsr(Msr::new(*msr), *value),
            Op::DebugCtl(bits) => {
                self.each_world(|world| world.debugctl = DebugCtl::from_bits(*bits));
            }
            Op::Retire {
                amounts,
                in_tx,
                sibling,
            } => self.retire(&increments(amounts, *in_tx), *sibling),
            Op::Abort => self.abort(),
            Op::Transaction(amounts) => {
                self.write_legal(Msr::PERFEVTSEL0.plus(2), 0x2_0053_00c0);
                self.retire(&increments(&[], false), false);
                let before = self.fast.rdpmc(2, Cpl::Ring0, true);
                self.retire(&increments(amounts, true), false);
                let counted = before != self.fast.rdpmc(2, Cpl::Ring0, true);
                self.abort();
                if counted && before == self.fast.rdpmc(2, Cpl::Ring0, true) {
                    self.count("rolled back");
                }
            }
            Op::Deliver => {
                let delivered = self.fast.deliver();
                assert_eq!(delivered, self.slow.deliver());
                if delivered.is_some() {
                    self.count("delivered");
                }
            }
            Op::Lvt(value) => {
                self.fast.set_lvtpc(LvtPc::from_bits(*value));
                self.slow.set_lvtpc(LvtPc::from_bits(*value));
            }
            Op::Raise(cause) => {
                self.fast.raise(*cause, &mut self.of_fast);
                self.slow.raise(*cause, &mut self.of_slow);
                self.count("PMI of BTS");
            }
            Op::Smi => {
                self.fast.smi(&self.of_fast);
                self.slow.smi(&self.of_slow);
                self.count("in SMM");
            }
            Op::Rsm => {
                self.fast.rsm();
                self.slow.rsm();
            }
            Op::Reset(reset) => {
                self.fast.reset(*reset);
                self.slow.reset(*reset);
            }
            Op::NoMemory => self.each_world(|world| world.memory.clear()),
        }
        self.compare(op);
    }

    fn abort(&mut self) {
        self.fast.abort_transaction();
        self.slow.abort_transaction();
    }

    fn retire(&mut self, run: &Increments, sibling: bool) {
        let outcomes = if sibling {
            (
                self.fast.retire_sibling(run, &mut self.of_fast),
                self.slow.retire_sibling(run, &mut self.of_slow),
            )
        } else {
            (
                self.fast.retire(run, &mut self.of_fast),
                self.slow.retire(run, &mut self.of_slow),
            )
        };
        assert_eq!(outcomes.0, outcomes.1, "{run:?}");
        let outcome = outcomes.0;
        if !outcome.overflowed.is_empty() {
            self.count("overflow");
        }
        match outcome.pmi {
            Some(PmiCause::Counter) => self.count("PMI of a counter"),
            Some(PmiCause::Pebs) => self.count("PMI of PEBS"),
            Some(PmiCause::Bts) | None => {}
        }
        match outcome.pebs {
            Some(PebsOutcome::Stored(record)) => {
                assert!(record.address >= BUFFER);
                self.count("record stored");
            }
            Some(PebsOutcome::Full) => self.count("record without room"),
            Some(PebsOutcome::Fault(_)) => self.count("record without memory"),
            None => {}
        }
        if self.fast.options().cycle_by_cycle && !self.fast.active().is_empty() {
            self.count("clock counted");
        }
    }

    fn compare(&mut self, op: &Op) {
        let (fast, slow): (&dyn Device, &dyn Device) = (&self.fast, &self.slow);
        assert_eq!(self.of_fast, self.of_slow, "the worlds after {op:?}");
        assert_eq!(fast.msrs(), slow.msrs());
        for msr in fast.msrs() {
            assert_eq!(
                fast.rdmsr(msr, &self.of_fast),
                slow.rdmsr(msr, &self.of_slow),
                "{msr} after {op:?}"
            );
        }
        for ecx in [
            0,
            1,
            7,
            8,
            0x4000_0000,
            0x4000_0003,
            0x4000_0004,
            0x2000_0000,
            1 << 31,
        ] {
            for (cpl, pce) in [(Cpl::Ring0, false), (Cpl::Ring3, false), (Cpl::Ring3, true)] {
                assert_eq!(
                    fast.rdpmc(ecx, cpl, pce),
                    slow.rdpmc(ecx, cpl, pce),
                    "{ecx:#x}"
                );
            }
        }
        assert_eq!(fast.pending(), slow.pending(), "after {op:?}");
        assert_eq!(fast.lvtpc(), slow.lvtpc(), "after {op:?}");
        assert_eq!(fast.armed(), slow.armed(), "after {op:?}");
        assert_eq!(fast.active(), slow.active(), "after {op:?}");
        assert_eq!(fast.held(), slow.held(), "after {op:?}");
        assert_eq!(fast.horizon(), slow.horizon(), "after {op:?}");
        let unlooked = self.fast.instructions_unlooked();
        assert_eq!(unlooked, slow.horizon().instructions(), "after {op:?}");
        let waits = slow.horizon().delivery.is_some();
        assert_eq!(self.fast.awaits_delivery(), waits, "after {op:?}");
        let counts = !slow.active().is_empty();
        assert_eq!(self.fast.counts(), counts, "after {op:?}");
        let seen = [
            (!fast.held().is_empty(), "held"),
            (!fast.armed().is_empty(), "armed"),
            (
                fast.pending().is_some_and(|pending| pending.remaining > 0),
                "waiting",
            ),
            (self.of_fast.lbr_frz, "LBR frozen"),
            (!self.of_fast.logged.is_empty(), "logged into the LBR"),
            (
                fast.rdmsr(Msr::PERF_GLOBAL_STATUS, &self.of_fast)
                    .is_ok_and(|status| status >> 59 & 1 != 0),
                "counters frozen",
            ),
        ];
        for (so, what) in seen {
            if so {
                self.count(what);
            }
        }
    }
}
