//! From overflow to interrupt: freezing, the LVT entry, skid, SMM. hardware.md 4.4, 4.5, 6.4, 13.4.

use vlbr_arch::{DebugCtl, LvtPc, Msr};
use vlbr_pmu::{
    FreezeFlavour, Interrupt, Options, PmiCause, Quirk, QuirkSet, Reset, SkidUnit, SmmRestore,
    SourceSet,
};

use crate::support::{INSTRUCTIONS, NMI, ON, ON_INT, Rig, both, each, every, named};
use crate::world::World;

/// Counter 0 overflows at instruction `events`, counter 1 just counts.
fn sampling(rig: &mut Rig<'_>, events: u64) {
    rig.write(Msr::PERFEVTSEL0, ON_INT | INSTRUCTIONS);
    rig.write(Msr::PERFEVTSEL0.plus(1), ON | INSTRUCTIONS);
    rig.preset(0, events);
    rig.unmask(NMI);
}

fn freezing(bits: DebugCtl) -> World {
    World {
        debugctl: DebugCtl::LBR | bits,
        ..World::default()
    }
}

#[test]
fn an_overflow_with_int_is_delivered_and_masks_the_entry() {
    every(|rig| {
        sampling(rig, 3);
        let outcomes = rig.run(3);
        assert_eq!(outcomes.map_pmi(), [None, None, Some(PmiCause::Counter)]);
        assert_eq!(rig.pmu.deliver(), Some(Interrupt::Nmi));
        assert!(rig.pmu.lvtpc().contains(LvtPc::MASK));
        assert_eq!(rig.pmu.deliver(), None);
    });
}

trait Pmis {
    fn map_pmi(&self) -> Vec<Option<PmiCause>>;
}

impl Pmis for Vec<vlbr_pmu::Outcome> {
    fn map_pmi(&self) -> Vec<Option<PmiCause>> {
        self.iter().map(|outcome| outcome.pmi).collect()
    }
}

#[test]
fn a_masked_entry_drops_the_pmi_and_status_still_shows_it() {
    // T23.
    each(&["skylake", "nehalem"], |rig| {
        sampling(rig, 1);
        rig.run(1);
        assert!(rig.pmu.deliver().is_some());
        rig.write(Msr::PERF_GLOBAL_OVF_CTRL, 1);
        rig.preset(0, 1);
        rig.run(1);
        assert_eq!(rig.read(Msr::PERF_GLOBAL_STATUS), 1);
        assert_eq!(rig.pmu.pending(), None);
        rig.unmask(NMI);
        assert_eq!(rig.pmu.deliver(), None, "not latched");
    });
}

#[test]
fn unmasking_early_pends_once_more_where_that_is_chosen() {
    let options = Options {
        lvtpc_pend_on_unmask: true,
        ..Options::default()
    };
    both(named("haswell"), &options, &World::default(), |rig| {
        sampling(rig, 1);
        rig.run(1);
        assert!(rig.pmu.deliver().is_some());
        rig.unmask(NMI);
        assert!(rig.pmu.deliver().is_some(), "the overflow is still there");
        rig.write(Msr::PERF_GLOBAL_OVF_CTRL, 1);
        rig.unmask(NMI);
        assert_eq!(rig.pmu.deliver(), None);
    });
}

#[test]
fn delivery_modes() {
    for (entry, expected) in [
        (0x0f0, Some(Interrupt::Fixed(0xf0))),
        (0x010, Some(Interrupt::Fixed(0x10))),
        (0x00f, None),
        (0x2ff, Some(Interrupt::Smi)),
        (0x400, Some(Interrupt::Nmi)),
        (0x500, Some(Interrupt::Init)),
        (0x700, Some(Interrupt::ExtInt)),
        (0x1f0, None),
        (0x3f0, None),
        (0x6f0, None),
        (0x1_0400, None),
    ] {
        each(&["skylake"], |rig| {
            sampling(rig, 1);
            rig.unmask(entry);
            rig.run(1);
            assert_eq!(rig.pmu.deliver(), expected, "{entry:#x}");
        });
    }
}

#[test]
fn software_cannot_write_the_status_of_the_entry() {
    each(&["skylake"], |rig| {
        assert_eq!(rig.pmu.lvtpc(), LvtPc::RESET);
        rig.pmu.set_lvtpc(LvtPc::from_bits(u32::MAX));
        assert_eq!(rig.pmu.lvtpc().bits(), 0x1_07ff);
    });
}

#[test]
fn legacy_freeze_clears_lbr_and_global_ctrl_at_the_overflow() {
    // T9.
    let world = freezing(DebugCtl::FREEZE_LBRS_ON_PMI | DebugCtl::FREEZE_PERFMON_ON_PMI);
    let options = Options {
        skid: 10,
        ..Options::default()
    };
    for profile in ["core2", "nehalem", "haswell", "silvermont"] {
        both(named(profile), &options, &world, |rig| {
            sampling(rig, 2);
            rig.run(7);
            assert!(!rig.world.debugctl.contains(DebugCtl::LBR));
            assert_eq!(rig.read(Msr::PERF_GLOBAL_CTRL), 0);
            assert_eq!((rig.pmc(0), rig.pmc(1)), (0, 2), "the skid is not counted");
            assert_eq!(rig.read(Msr::PERF_GLOBAL_STATUS), 1);
        });
    }
}

#[test]
fn streamlined_freeze_sets_status_bits_and_acknowledging_thaws() {
    // T10.
    let world = freezing(DebugCtl::FREEZE_LBRS_ON_PMI | DebugCtl::FREEZE_PERFMON_ON_PMI);
    for profile in ["skylake", "goldmont", "ice-lake", "sapphire-rapids"] {
        both(named(profile), &Options::default(), &world, |rig| {
            sampling(rig, 2);
            let enabled = rig.read(Msr::PERF_GLOBAL_CTRL);
            rig.run(7);
            assert!(rig.world.debugctl.contains(DebugCtl::LBR));
            assert_eq!(rig.read(Msr::PERF_GLOBAL_CTRL), enabled);
            assert_eq!((rig.pmc(0), rig.pmc(1)), (0, 2));
            assert_eq!(rig.read(Msr::PERF_GLOBAL_STATUS), 3 << 58 | 1);
            assert!(rig.pmu.active().is_empty());
            rig.write(Msr::PERF_GLOBAL_OVF_CTRL, 1 << 59);
            rig.run(1);
            assert_eq!(rig.pmc(1), 3);
            rig.write(Msr::PERF_GLOBAL_OVF_CTRL, 1 << 58);
            assert!(!rig.world.lbr_frz);
        });
    }
}

#[test]
fn lbr_and_counters_freeze_each_by_its_own_bit() {
    for (bits, lbr, counters) in [
        (DebugCtl::FREEZE_LBRS_ON_PMI, true, false),
        (DebugCtl::FREEZE_PERFMON_ON_PMI, false, true),
        (DebugCtl::default(), false, false),
    ] {
        both(
            named("skylake"),
            &Options::default(),
            &freezing(bits),
            |rig| {
                sampling(rig, 1);
                rig.run(2);
                assert_eq!(rig.world.lbr_frz, lbr);
                assert_eq!(rig.pmc(1), if counters { 1 } else { 2 });
                assert_eq!(rig.world.pmis, [PmiCause::Counter]);
            },
        );
    }
}

#[test]
fn an_overflow_without_int_freezes_nothing() {
    let world = freezing(DebugCtl::FREEZE_LBRS_ON_PMI | DebugCtl::FREEZE_PERFMON_ON_PMI);
    both(named("skylake"), &Options::default(), &world, |rig| {
        sampling(rig, 1);
        rig.write(Msr::PERFEVTSEL0, ON | INSTRUCTIONS);
        rig.run(4);
        assert_eq!((rig.pmc(0), rig.read(Msr::PERF_GLOBAL_STATUS)), (3, 1));
        assert!(rig.world.pmis.is_empty());
    });
}

#[test]
fn a_masked_entry_does_not_keep_the_core_from_freezing() {
    let world = freezing(DebugCtl::FREEZE_PERFMON_ON_PMI);
    both(named("skylake"), &Options::default(), &world, |rig| {
        sampling(rig, 1);
        rig.pmu.set_lvtpc(LvtPc::RESET);
        rig.run(4);
        assert_eq!(rig.pmc(1), 1);
    });
}

#[test]
fn the_flavour_is_an_option() {
    let options = Options {
        freeze: Some(FreezeFlavour::Legacy),
        ..Options::default()
    };
    let world = freezing(DebugCtl::FREEZE_PERFMON_ON_PMI);
    both(named("goldmont"), &options, &world, |rig| {
        sampling(rig, 1);
        rig.run(1);
        assert_eq!(rig.read(Msr::PERF_GLOBAL_CTRL), 0);
        assert_eq!(rig.read(Msr::PERF_GLOBAL_STATUS), 1);
    });
}

#[test]
fn a_streamlined_part_of_version_3_can_be_thawed() {
    let options = Options {
        freeze: Some(FreezeFlavour::Streamlined),
        ..Options::default()
    };
    let world = freezing(DebugCtl::FREEZE_PERFMON_ON_PMI);
    both(named("haswell"), &options, &world, |rig| {
        sampling(rig, 1);
        rig.run(2);
        assert_eq!(
            (rig.pmc(1), rig.read(Msr::PERF_GLOBAL_STATUS)),
            (1, 1 << 59 | 1)
        );
        rig.write(Msr::PERF_GLOBAL_OVF_CTRL, 1 << 59);
        rig.run(1);
        assert_eq!(rig.pmc(1), 2);
    });
}

#[test]
fn skid_is_counted_and_then_delivered() {
    let options = Options {
        skid: 4,
        ..Options::default()
    };
    both(named("skylake"), &options, &World::default(), |rig| {
        sampling(rig, 2);
        rig.run(2);
        for left in (1..=4).rev() {
            assert_eq!(
                rig.pmu.pending().map(|pending| pending.remaining),
                Some(left)
            );
            assert_eq!(rig.pmu.horizon().instructions(), left);
            assert_eq!(rig.pmu.deliver(), None);
            rig.run(1);
        }
        assert_eq!(rig.pmu.deliver(), Some(Interrupt::Nmi));
        assert_eq!(rig.pmc(1), 6, "not frozen");
    });
    let clocks = Options {
        skid: 60,
        skid_unit: SkidUnit::CoreCycles,
        feeds: SourceSet::ALL,
        ..Options::default()
    };
    both(named("skylake"), &clocks, &World::default(), |rig| {
        sampling(rig, 1);
        rig.run(50);
        assert_eq!(rig.pmu.pending().map(|pending| pending.remaining), Some(60));
        let mut stall = vlbr_pmu::Increments::new();
        stall.add(vlbr_pmu::Source::CoreCycles, vlbr_arch::Cpl::Ring3, 60);
        rig.retire(&stall);
        assert_eq!(rig.pmu.deliver(), Some(Interrupt::Nmi));
    });
}

#[test]
fn overflows_that_meet_are_one_interrupt() {
    let options = Options {
        skid: 5,
        ..Options::default()
    };
    both(named("skylake"), &options, &World::default(), |rig| {
        sampling(rig, 1);
        rig.write(Msr::PERFEVTSEL0.plus(1), ON_INT | INSTRUCTIONS);
        rig.preset(1, 3);
        rig.run(6);
        assert_eq!(rig.read(Msr::PERF_GLOBAL_STATUS), 3);
        assert!(rig.pmu.deliver().is_some());
        assert_eq!(rig.pmu.pending(), None);
    });
}

#[test]
fn freeze_while_smm_stops_counting_until_rsm() {
    let frozen = freezing(DebugCtl::FREEZE_WHILE_SMM);
    for (options, world, after) in [
        (Options::default(), &frozen, 0x1),
        (
            Options {
                smm_restore: SmmRestore::AllOnes,
                ..Options::default()
            },
            &frozen,
            0x7_0000_000f,
        ),
        (Options::default(), &World::default(), 0x1),
    ] {
        both(named("skylake"), &options, world, |rig| {
            rig.write(Msr::PERFEVTSEL0, ON | INSTRUCTIONS);
            rig.write(Msr::PERF_GLOBAL_CTRL, 1);
            rig.run(1);
            let freezes = rig.world.debugctl.contains(DebugCtl::FREEZE_WHILE_SMM);
            rig.pmu.smi(&rig.world);
            rig.run(10);
            assert_eq!(rig.pmc(0), if freezes { 1 } else { 11 });
            rig.pmu.rsm();
            assert_eq!(rig.read(Msr::PERF_GLOBAL_CTRL), after);
        });
    }
    both(named("bonnell"), &Options::default(), &frozen, |rig| {
        rig.write(Msr::PERFEVTSEL0, ON | INSTRUCTIONS);
        rig.pmu.smi(&rig.world);
        rig.run(2);
        assert_eq!(rig.pmc(0), 2, "no such capability");
    });
}

#[test]
fn bts_raises_and_freezes_too() {
    let world = freezing(DebugCtl::FREEZE_LBRS_ON_PMI | DebugCtl::FREEZE_PERFMON_ON_PMI);
    both(named("skylake"), &Options::default(), &world, |rig| {
        rig.unmask(NMI);
        rig.pmu.raise(PmiCause::Bts, &mut rig.world);
        assert_eq!(rig.read(Msr::PERF_GLOBAL_STATUS), 3 << 58);
        assert_eq!(
            rig.pmu.pending().map(|pending| pending.cause),
            Some(PmiCause::Bts)
        );
    });
}

#[test]
fn init_masks_the_entry_and_reset_clears_everything() {
    each(&["skylake"], |rig| {
        sampling(rig, 1);
        rig.run(1);
        rig.pmu.reset(Reset::Init);
        assert_eq!((rig.pmu.lvtpc(), rig.pmu.pending()), (LvtPc::RESET, None));
        assert_eq!((rig.read(Msr::PERF_GLOBAL_STATUS), rig.pmc(1)), (1, 1));
        rig.pmu.reset(Reset::Reset);
        assert_eq!((rig.read(Msr::PERF_GLOBAL_STATUS), rig.pmc(1)), (0, 0));
        assert_eq!(rig.read(Msr::PERFEVTSEL0), 0);
    });
}

fn with(quirk: Quirk) -> Options {
    Options {
        quirks: Some(QuirkSet::EMPTY.with(quirk)),
        ..Options::default()
    }
}

#[test]
fn e16_counters_do_not_freeze() {
    let world = freezing(DebugCtl::FREEZE_PERFMON_ON_PMI);
    both(
        named("goldmont"),
        &with(Quirk::FreezeBroken),
        &world,
        |rig| {
            sampling(rig, 1);
            rig.run(4);
            assert_eq!(rig.pmc(1), 4);
        },
    );
}

#[test]
fn e17_acknowledging_before_the_apic_leaves_the_counters_frozen() {
    let world = freezing(DebugCtl::FREEZE_PERFMON_ON_PMI);
    for (options, counted) in [(with(Quirk::EarlyAckFreezes), 1), (Options::default(), 2)] {
        both(named("skylake"), &options, &world, |rig| {
            sampling(rig, 1);
            rig.run(1);
            assert!(rig.pmu.deliver().is_some());
            rig.write(Msr::PERF_GLOBAL_OVF_CTRL, 1 << 59 | 1);
            rig.run(1);
            assert_eq!(rig.pmc(1), counted);
            rig.unmask(NMI);
            rig.write(Msr::PERF_GLOBAL_OVF_CTRL, 1 << 59);
            rig.run(1);
            assert_eq!(rig.pmc(1), counted + 1);
        });
    }
}
