//! PEBS: vectors P1 to P8 and the rules of hardware.md section 14.

use vlbr_arch::{Cpl, DebugCtl, Msr};
use vlbr_pmu::{
    Increments, Interrupt, MachineState, Options, PebsOutcome, PebsRecord, PmiCause, Quirk,
    QuirkSet,
};

use crate::support::{BRANCHES, INSTRUCTIONS, NMI, ON, Rig, both, every, named};
use crate::world::{BUFFER, DS, World};

/// Registers that say which they are.
fn machine() -> MachineState {
    MachineState {
        rflags: 0x246,
        rip: 0xffff_ffff_8100_0003,
        eventing_ip: 0xffff_ffff_8100_0000,
        gprs: core::array::from_fn(|n| 0xaaaa_0000_0000_0000 | n as u64),
        xmms: core::array::from_fn(|n| [0x100 + n as u64, 0x200 + n as u64]),
        ia32e: true,
        tsc: 0x7777,
        data_address: 0xd000,
        data_source: 0x15,
        latency: 0x99,
        tx_abort: 0x2_0000_0005,
        retire_latency: 0x1234,
    }
}

fn world(size: u64, threshold: u64) -> World {
    let mut world = World::with_buffer(size, threshold);
    world.machine = machine();
    world.entries = (0..32).map(|n| [0x10_0000 + n, 0x20_0000 + n, n]).collect();
    world
}

/// Counter 0 samples instructions: overflows at the next one.
fn arm(rig: &mut Rig<'_>, n: u32, select: u64) {
    rig.write(Msr::DS_AREA, DS);
    rig.write(Msr::PERFEVTSEL0.plus(n), select);
    rig.preset(n, 1);
    let enabled = rig.read(Msr::PEBS_ENABLE);
    rig.write(Msr::PEBS_ENABLE, enabled | 1 << n);
    rig.unmask(NMI);
}

/// Runs until one record was due.
fn one_record(rig: &mut Rig<'_>) -> PebsOutcome {
    for _ in 0..3 {
        if let Some(outcome) = rig.retire(&Increments::instruction(Cpl::Ring3)).pebs {
            return outcome;
        }
    }
    panic!("no record");
}

fn stored(size: u64) -> PebsOutcome {
    PebsOutcome::Stored(PebsRecord {
        address: BUFFER,
        size,
    })
}

fn run(profile: &str, world: &World, check: impl Fn(&mut Rig<'_>)) {
    both(named(profile), &Options::default(), world, check);
}

const ADAPTIVE: u64 = 1 << 34;

#[test]
fn p1_an_adaptive_record_with_32_lbr_entries() {
    for profile in ["ice-lake", "tremont", "sapphire-rapids", "gracemont"] {
        run(profile, &world(4096, 4096), |rig| {
            rig.write(Msr::PEBS_DATA_CFG, 0x1f00_0008);
            arm(rig, 0, ADAPTIVE | ON | INSTRUCTIONS);
            assert_eq!(one_record(rig), stored(800));
            assert_eq!(rig.world.get(BUFFER), 0x0320_0000_1f00_0008);
            assert_eq!(rig.world.get(BUFFER + 0x10), 1);
            for n in 0..32 {
                let entry = BUFFER + 0x20 + 24 * n;
                assert_eq!(rig.world.get(entry), 0x10_0000 + n, "FROM, youngest first");
                assert_eq!(rig.world.get(entry + 8), 0x20_0000 + n, "TO");
                assert_eq!(rig.world.get(entry + 16), n, "INFO");
            }
        });
    }
}

#[test]
fn p2_a_counter_that_is_not_adaptive_makes_basic_records() {
    run("ice-lake", &world(4096, 4096), |rig| {
        rig.write(Msr::PEBS_DATA_CFG, 0x1f00_0008);
        arm(rig, 0, ON | INSTRUCTIONS);
        assert_eq!(one_record(rig), stored(32));
        let words: Vec<u64> = (0..4).map(|n| rig.world.get(BUFFER + 8 * n)).collect();
        assert_eq!(
            words,
            [0x0020_0000_0000_0000, machine().eventing_ip, 1, 0x7777]
        );
    });
}

#[test]
fn p3_without_recording_the_entries_are_zero() {
    let mut empty = world(4096, 4096);
    empty.entries.clear();
    run("ice-lake", &empty, |rig| {
        rig.write(Msr::PEBS_DATA_CFG, 0x1f00_0008);
        arm(rig, 0, ADAPTIVE | ON | INSTRUCTIONS);
        one_record(rig);
        assert!((4..100).all(|n| rig.world.get(BUFFER + 8 * n) == 0));
    });
}

#[test]
fn p4_the_threshold_raises_the_pmi_and_the_counter_reloads() {
    run("ice-lake", &world(4096, 800), |rig| {
        rig.write(Msr::PEBS_DATA_CFG, 0x1f00_0008);
        arm(rig, 0, ADAPTIVE | ON | INSTRUCTIONS);
        one_record(rig);
        assert_eq!(rig.read(Msr::PERF_GLOBAL_STATUS), 1 << 62, "and not bit 0");
        assert_eq!(rig.world.used(), 800);
        assert_eq!(rig.pmc(0), 0x1000, "the reset value of slot 0");
        assert_eq!(
            rig.pmu.pending().map(|pending| pending.cause),
            Some(PmiCause::Pebs)
        );
        assert_eq!(rig.pmu.deliver(), Some(Interrupt::Nmi));
    });
}

#[test]
fn p5_every_group_in_its_order() {
    run("ice-lake", &world(4096, 4096), |rig| {
        rig.write(Msr::PEBS_DATA_CFG, 0x1f00_000f);
        arm(rig, 0, ADAPTIVE | ON | INSTRUCTIONS);
        assert_eq!(one_record(rig), stored(0x4d0));
        let get = |offset| rig.world.get(BUFFER + offset);
        assert_eq!(get(0) >> 48, 0x4d0);
        assert_eq!(
            [get(0x20), get(0x28), get(0x30), get(0x38)],
            [0xd000, 0x15, 0x99, 0x2_0000_0005]
        );
        assert_eq!([get(0x40), get(0x48)], [0x246, machine().rip]);
        assert_eq!(get(0x50), machine().gprs[0], "RAX");
        assert_eq!([get(0xd0), get(0xd8)], [0x100, 0x200], "XMM0");
        assert_eq!(get(464), 0x10_0000, "LBR group at 464");
    });
}

#[test]
fn p6_counters_that_overflow_together_share_one_record() {
    let mut two = world(4096, 4096);
    two.machine.ia32e = true;
    run("skylake", &two, |rig| {
        arm(rig, 0, ON | INSTRUCTIONS);
        arm(rig, 1, ON | INSTRUCTIONS);
        let first = rig.retire(&Increments::instruction(Cpl::Ring3));
        assert_eq!(
            (first.overflowed.0, first.pebs),
            (3, None),
            "armed, no record yet"
        );
        assert_eq!(rig.read(Msr::PERF_GLOBAL_STATUS), 3);
        assert_eq!(one_record(rig), stored(200));
        assert_eq!(rig.world.get(BUFFER + 0x90), 3);
        assert_eq!(rig.read(Msr::PERF_GLOBAL_STATUS), 0);
        assert_eq!((rig.pmc(0), rig.pmc(1)), (0x1000, 0x1001));
        assert_eq!(rig.world.used(), 200);
    });
}

#[test]
fn p7_a_buffer_without_room_takes_nothing() {
    run("skylake", &world(100, 4096), |rig| {
        arm(rig, 0, ON | INSTRUCTIONS);
        assert_eq!(one_record(rig), PebsOutcome::Full);
        assert_eq!(rig.world.used(), 0);
        assert!(rig.world.read_is_absent(BUFFER));
        assert_eq!((rig.read(Msr::PERF_GLOBAL_STATUS), rig.pmc(0)), (0, 0x1000));
        assert_eq!(rig.pmu.pending(), None);
    });
    // Goldmont says so, and does not reload.
    run("goldmont", &world(100, 4096), |rig| {
        arm(rig, 0, ON | INSTRUCTIONS);
        assert_eq!(one_record(rig), PebsOutcome::Full);
        assert_eq!(
            (rig.read(Msr::PERF_GLOBAL_STATUS), rig.pmc(0)),
            (1 << 62, 0)
        );
    });
}

impl World {
    fn read_is_absent(&self, address: u64) -> bool {
        !self.memory.contains_key(&address)
    }
}

#[test]
fn p8_a_fixed_counter_with_registers() {
    run("ice-lake", &world(4096, 4096), |rig| {
        rig.write(Msr::DS_AREA, DS);
        rig.write(Msr::PEBS_DATA_CFG, 2);
        rig.write(Msr::FIXED_CTR_CTRL, 1 << 32 | 3);
        rig.write(Msr::PEBS_ENABLE, 1 << 32);
        rig.write(Msr::PERF_GLOBAL_CTRL, 1 << 32);
        rig.write(Msr::FIXED_CTR0, (1 << 48) - 1);
        assert_eq!(one_record(rig), stored(0xb0));
        let get = |offset| rig.world.get(BUFFER + offset);
        let gprs = machine().gprs;
        assert_eq!(
            [get(0x30), get(0x38), get(0x48)],
            [gprs[0], gprs[1], gprs[3]],
            "RAX, RCX, RBX"
        );
        assert_eq!(get(0x10), 1 << 32);
        assert_eq!(rig.pmc(0x4000_0000), 0x1008, "DS + 0x80");
    });
}

#[test]
fn sizes_and_fields_of_formats_0_to_3() {
    for (profile, size) in [
        ("core2", 144),
        ("nehalem", 176),
        ("haswell", 192),
        ("silvermont", 192),
        ("skylake", 200),
        ("goldmont", 200),
    ] {
        run(profile, &world(4096, 4096), |rig| {
            arm(rig, 0, ON | INSTRUCTIONS);
            assert_eq!(one_record(rig), stored(size), "{profile}");
            let get = |offset| rig.world.get(BUFFER + offset);
            let gprs = machine().gprs;
            assert_eq!([get(0), get(8)], [0x246, machine().rip]);
            // RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, then R8 to R15.
            let order = [0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15];
            for (n, register) in (0..).zip(order) {
                assert_eq!(get(0x10 + 8 * n), gprs[register], "{profile} {n}");
            }
            if size >= 176 {
                let data = match profile {
                    "silvermont" => [0, 0, 0],
                    "goldmont" => [0xd000, 0, 0],
                    _ => [0xd000, 0x15, 0x99],
                };
                assert_eq!([get(0x98), get(0xa0), get(0xa8)], data, "{profile}");
                assert_eq!(get(0x90), 1, "{profile}: status or applicable counters");
            }
            if size >= 192 {
                let tx = if profile == "haswell" || profile == "skylake" {
                    0x2_0000_0005
                } else {
                    0
                };
                assert_eq!(
                    [get(0xb0), get(0xb8)],
                    [machine().eventing_ip, tx],
                    "{profile}"
                );
            }
            if size == 200 {
                assert_eq!(get(0xc0), 0x7777);
            }
        });
    }
}

#[test]
fn outside_ia32e_mode_upper_halves_are_zero_but_on_goldmont() {
    let mut legacy = world(4096, 4096);
    legacy.machine.ia32e = false;
    for (profile, rcx, r8) in [
        ("skylake", 1, 0),
        ("goldmont", 0xaaaa_0000_0000_0001, 0xaaaa_0000_0000_0008),
    ] {
        run(profile, &legacy, |rig| {
            arm(rig, 0, ON | INSTRUCTIONS);
            one_record(rig);
            assert_eq!(
                (rig.world.get(BUFFER + 0x20), rig.world.get(BUFFER + 0x50)),
                (rcx, r8),
                "{profile}"
            );
        });
    }
}

#[test]
fn the_record_is_taken_at_the_next_event_of_the_counter() {
    run("nehalem", &world(4096, 4096), |rig| {
        arm(rig, 0, ON | 0x04_c4);
        let jump = Increments::branch(vlbr_arch::BranchClass::NearRelJmp, true, false, Cpl::Ring3);
        assert_eq!(rig.retire(&jump).pebs, None);
        assert_eq!(rig.pmu.armed().0, 1);
        assert!(
            rig.run(5).iter().all(|outcome| outcome.pebs.is_none()),
            "no branch"
        );
        assert_eq!(rig.pmu.horizon().limits[0].events, 1);
        assert_eq!(rig.retire(&jump).pebs, Some(stored(176)));
        assert!(rig.pmu.armed().is_empty());
    });
}

#[test]
fn exact_counters_sample_the_overflowing_instruction() {
    for (profile, n, select) in [
        ("haswell", 1, 0x01_c0),
        ("goldmont", 3, BRANCHES),
        ("ice-lake", 0, INSTRUCTIONS),
    ] {
        run(profile, &world(4096, 4096), |rig| {
            arm(rig, n, ON | select);
            let jump =
                Increments::branch(vlbr_arch::BranchClass::NearRelJmp, true, false, Cpl::Ring3);
            assert!(rig.retire(&jump).pebs.is_some(), "{profile}");
        });
    }
    run("ice-lake", &world(4096, 4096), |rig| {
        arm(rig, 1, ON | INSTRUCTIONS);
        assert_eq!(rig.run(1)[0].pebs, None, "PMC1 is not exact");
    });
}

#[test]
fn the_overflow_of_a_pebs_counter_raises_no_pmi_even_with_int() {
    run("skylake", &world(4096, 4096), |rig| {
        arm(rig, 0, ON | 1 << 20 | INSTRUCTIONS);
        one_record(rig);
        assert!(rig.world.pmis.is_empty());
        assert_eq!(rig.pmu.pending(), None);
    });
}

#[test]
fn the_threshold_freezes_as_any_pmi() {
    let mut freezing = world(4096, 200);
    freezing.debugctl =
        DebugCtl::LBR | DebugCtl::FREEZE_LBRS_ON_PMI | DebugCtl::FREEZE_PERFMON_ON_PMI;
    run("skylake", &freezing, |rig| {
        arm(rig, 0, ON | INSTRUCTIONS);
        one_record(rig);
        rig.run(10);
        assert_eq!(rig.world.pmis, [PmiCause::Pebs]);
        assert_eq!(rig.read(Msr::PERF_GLOBAL_STATUS), 1 << 62 | 3 << 58);
        assert_eq!(rig.pmc(0), 0x1000);
    });
}

#[test]
fn disabling_pebs_disarms() {
    run("skylake", &world(4096, 4096), |rig| {
        arm(rig, 0, ON | INSTRUCTIONS);
        rig.run(1);
        assert_eq!(rig.pmu.armed().0, 1);
        rig.write(Msr::PEBS_ENABLE, 0);
        assert!(rig.pmu.armed().is_empty());
        assert!(rig.run(5).iter().all(|outcome| outcome.pebs.is_none()));
    });
}

#[test]
fn nothing_is_recorded_in_smm() {
    run("skylake", &world(4096, 4096), |rig| {
        arm(rig, 0, ON | INSTRUCTIONS);
        rig.run(1);
        rig.pmu.smi(&rig.world);
        assert!(rig.run(5).iter().all(|outcome| outcome.pebs.is_none()));
        rig.pmu.rsm();
        assert_eq!(one_record(rig), stored(200));
    });
}

#[test]
fn a_debug_store_without_memory_loses_the_record_and_says_so() {
    every(|rig| {
        rig.write(Msr::DS_AREA, 0x1000);
        rig.write(Msr::PERFEVTSEL0, ON | INSTRUCTIONS);
        rig.write(Msr::PEBS_ENABLE, 1);
        rig.preset(0, 1);
        assert!(matches!(one_record(rig), PebsOutcome::Fault(fault) if fault.address == 0x1020));
        assert!(rig.pmu.armed().is_empty());
    });
}

#[test]
fn format_6_adds_counters_and_retire_latency() {
    run("lunar-lake-p", &world(4096, 4096), |rig| {
        rig.write(Msr::PEBS_DATA_CFG, 0x0001_0003_0000_0010);
        arm(rig, 0, ADAPTIVE | ON | INSTRUCTIONS);
        rig.write(Msr::PMC0.plus(1), 55);
        rig.write(Msr::FIXED_CTR0, 66);
        assert_eq!(one_record(rig), stored(32 + 16 + 24));
        let get = |offset| rig.world.get(BUFFER + offset);
        assert_eq!(
            get(0),
            0x0048_1234_0000_0010,
            "size, retire latency, groups"
        );
        assert_eq!([get(0x20), get(0x28)], [0x1_0000_0003, 0]);
        assert_eq!(
            [get(0x30), get(0x38), get(0x40)],
            [0, 55, 66],
            "before the reload"
        );
    });
}

fn with(quirk: Quirk) -> Options {
    Options {
        quirks: Some(QuirkSet::EMPTY.with(quirk)),
        ..Options::default()
    }
}

#[test]
fn e9_the_buffer_bit_takes_freeze_perfmon_on_pmi() {
    for (debugctl, status) in [
        (DebugCtl::default(), 0),
        (DebugCtl::FREEZE_PERFMON_ON_PMI, 1 << 62),
    ] {
        let mut world = world(4096, 144);
        world.debugctl = debugctl;
        both(
            named("core2"),
            &with(Quirk::BufferBitGated),
            &world,
            |rig| {
                arm(rig, 0, ON | INSTRUCTIONS);
                one_record(rig);
                assert_eq!(rig.read(Msr::PERF_GLOBAL_STATUS), status);
                assert!(rig.pmu.pending().is_some(), "the PMI comes all the same");
            },
        );
    }
}

#[test]
fn e10_another_level_takes_the_record() {
    for (options, taken) in [
        (with(Quirk::PebsCplLeak), true),
        (with(Quirk::FreezeBroken), false),
    ] {
        both(named("core2"), &options, &world(4096, 4096), |rig| {
            arm(rig, 0, 0x41_0000 | INSTRUCTIONS);
            rig.run(1);
            let kernel = rig.retire(&Increments::instruction(Cpl::Ring0));
            assert_eq!(kernel.pebs.is_some(), taken);
            assert_eq!(rig.pmc(0), if taken { 0x1000 } else { 0 });
        });
    }
}

#[test]
fn e10_the_pmi_comes_one_record_late() {
    both(
        named("core2"),
        &with(Quirk::PebsLatePmi),
        &world(4096, 144),
        |rig| {
            arm(rig, 0, ON | INSTRUCTIONS);
            one_record(rig);
            assert_eq!(rig.pmu.pending(), None);
            rig.preset(0, 1);
            one_record(rig);
            assert!(rig.pmu.pending().is_some());
        },
    );
}
