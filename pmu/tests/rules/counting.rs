//! What is counted, when, and to which instruction. hardware.md 6.3, 6.4; functional.md section 6.

use vlbr_arch::{BranchClass, Cpl, Msr};
use vlbr_pmu::{Counter, Horizon, Increments, Options, Pmu, Source, SourceSet};

use crate::support::{
    BRANCHES, INSTRUCTIONS, ON, ON_INT, Rig, both, each, every, everything, named,
};
use crate::world::World;

/// The guest loop of KVM's pmu_counters_test: ten times four instructions of which the last is a
/// conditional branch that falls through at the end, then four moves and the disabling WRMSR.
fn forty_five_instructions(rig: &mut Rig<'_>) {
    for iteration in 0..10 {
        for _ in 0..3 {
            rig.retire(&Increments::instruction(Cpl::Ring0));
        }
        let taken = iteration != 9;
        rig.retire(&Increments::branch(
            BranchClass::Jcc,
            taken,
            false,
            Cpl::Ring0,
        ));
    }
    for _ in 0..5 {
        rig.retire(&Increments::instruction(Cpl::Ring0));
    }
}

#[test]
fn forty_five_instructions_and_ten_branches_exactly() {
    every(|rig| {
        for n in 0..rig.pmu.profile().gp_counters() {
            rig.write(
                Msr::PERFEVTSEL0.plus(n),
                ON | if n % 2 == 0 { INSTRUCTIONS } else { BRANCHES },
            );
        }
        forty_five_instructions(rig);
        for n in 0..rig.pmu.profile().gp_counters() {
            assert_eq!(rig.pmc(n), if n % 2 == 0 { 45 } else { 10 }, "PMC{n}");
        }
    });
}

#[test]
fn a_loop_of_42_iterations_retires_42_branches() {
    // KVM's pmu_event_filter_test: `loop .` with 42 in RCX.
    every(|rig| {
        rig.write(Msr::PERFEVTSEL0, ON | BRANCHES);
        for left in (0..42).rev() {
            let taken = left != 0;
            rig.retire(&Increments::branch(
                BranchClass::Jcc,
                taken,
                false,
                Cpl::Ring0,
            ));
        }
        assert_eq!(rig.pmc(0), 42);
    });
}

#[test]
fn nothing_counts_while_disabled() {
    each(&["skylake", "nehalem"], |rig| {
        for (select, global) in [(ON & !(1 << 22), 1), (ON, 0), (1 << 22, 1)] {
            rig.write(Msr::PERFEVTSEL0, select | INSTRUCTIONS);
            rig.write(Msr::PERF_GLOBAL_CTRL, global);
            forty_five_instructions(rig);
            assert_eq!(rig.pmc(0), 0, "{select:#x} {global}");
        }
    });
}

#[test]
fn levels_are_those_of_the_control() {
    each(&["skylake"], |rig| {
        rig.write(Msr::PERF_GLOBAL_CTRL, 0x1_0000_000f);
        for (n, flags) in [0x41_0000, 0x42_0000, 0x43_0000].into_iter().enumerate() {
            rig.write(Msr::PERFEVTSEL0.plus(n as u32), flags | INSTRUCTIONS);
        }
        rig.write(Msr::FIXED_CTR_CTRL, 2);
        for cpl in [Cpl::Ring0, Cpl::Ring1, Cpl::Ring2, Cpl::Ring3] {
            rig.retire(&Increments::instruction(cpl));
        }
        assert_eq!(
            [rig.pmc(0), rig.pmc(1), rig.pmc(2), rig.pmc(0x4000_0000)],
            [3, 1, 4, 3]
        );
    });
}

#[test]
fn version_1_has_no_global_control() {
    let text = r#"
        name = "v1"
        title = "V1"
        models = ["06_0E"]
        linear_address_bits = 48
        tsx = false
        perf_capabilities = 1
        events = "core2"
        pin_control = true
        cpuid_0a = [{ eax = 0x07280201, ebx = 0, ecx = 0, edx = 0 }]
    "#;
    let profile = vlbr_pmu::Profile::from_toml(text).expect("valid");
    both(&profile, &Options::default(), &World::default(), |rig| {
        rig.write(Msr::PERFEVTSEL0, ON | INSTRUCTIONS);
        rig.run(3);
        assert_eq!(rig.pmc(0), 3);
    });
}

#[test]
fn overflow_sets_status_and_counts_on_from_0() {
    // kvm-unit-tests: preset to one event before, the count ends at 1 more than the wrap.
    every(|rig| {
        let gp = rig.pmu.profile().gp_counters();
        for n in 0..gp {
            rig.write(Msr::PERFEVTSEL0.plus(n), ON | INSTRUCTIONS);
            rig.preset(n, 44);
        }
        forty_five_instructions(rig);
        for n in 0..gp {
            assert_eq!(rig.pmc(n), 1);
        }
        assert_eq!(rig.read(Msr::PERF_GLOBAL_STATUS), (1 << gp) - 1);
        rig.write(Msr::PERF_GLOBAL_OVF_CTRL, (1 << gp) - 1);
        assert_eq!(rig.read(Msr::PERF_GLOBAL_STATUS), 0);
        assert_eq!(rig.pmu.pending(), None, "INT is 0");
    });
}

#[test]
fn a_write_restarts_a_running_counter() {
    each(&["skylake"], |rig| {
        rig.write(Msr::PERFEVTSEL0, ON | INSTRUCTIONS);
        rig.run(9);
        rig.write(Msr::PMC0, 0);
        rig.run(2);
        assert_eq!(rig.pmc(0), 2);
        rig.write(Msr::PMC0, u64::MAX);
        rig.run(1);
        assert_eq!((rig.pmc(0), rig.read(Msr::PERF_GLOBAL_STATUS)), (0, 1));
    });
}

#[test]
fn a_run_overflows_a_narrow_counter_as_single_instructions_do() {
    each(&["core2"], |rig| {
        rig.write(Msr::PERFEVTSEL0, ON | INSTRUCTIONS);
        rig.write(Msr::PMC0, u64::from(u32::MAX));
        let mut run = Increments::new();
        run.add(Source::Instructions, Cpl::Ring3, (3 << 40) + 6);
        let outcome = rig.retire(&run);
        assert_eq!(outcome.overflowed.0, 1);
        assert_eq!(rig.pmc(0), 5);
    });
}

#[test]
fn branch_classes_reach_their_events() {
    let options = everything();
    for (profile, classes) in [
        (
            "skylake",
            [
                (0x01, 2),
                (0x02, 2),
                (0x08, 1),
                (0x10, 1),
                (0x20, 6),
                (0x40, 1),
                (0x00, 8),
            ],
        ),
        (
            "gracemont",
            [
                (0x7e, 2),
                (0xf9, 2),
                (0xf7, 1),
                (0xfe, 1),
                (0xc0, 6),
                (0xbf, 1),
                (0xeb, 2),
            ],
        ),
    ] {
        both(named(profile), &options, &World::default(), |rig| {
            for (umask, expected) in classes {
                rig.write(Msr::PERFEVTSEL0, ON | umask << 8 | 0xc4);
                rig.write(Msr::PMC0, 0);
                rig.retire(&Increments::branch(
                    BranchClass::Jcc,
                    false,
                    false,
                    Cpl::Ring3,
                ));
                for class in [
                    BranchClass::Jcc,
                    BranchClass::NearRelJmp,
                    BranchClass::NearIndJmp,
                    BranchClass::NearRelCall,
                    BranchClass::NearIndCall,
                    BranchClass::NearRet,
                    BranchClass::Far(vlbr_arch::FarKind::Syscall),
                ] {
                    rig.branch(class);
                }
                assert_eq!(rig.pmc(0), expected, "{profile} {umask:#x}");
            }
        });
    }
}

#[test]
fn mispredictions_are_their_own_event() {
    both(named("haswell"), &everything(), &World::default(), |rig| {
        rig.write(Msr::PERFEVTSEL0, ON | 0xc4);
        rig.write(Msr::PERFEVTSEL0.plus(1), ON | 0xc5);
        rig.retire(&Increments::branch(
            BranchClass::Jcc,
            true,
            true,
            Cpl::Ring3,
        ));
        rig.retire(&Increments::branch(
            BranchClass::Jcc,
            true,
            false,
            Cpl::Ring3,
        ));
        assert_eq!((rig.pmc(0), rig.pmc(1)), (2, 1));
    });
}

#[test]
fn in_tx_counts_in_transactions_only() {
    each(&["haswell"], |rig| {
        rig.write(Msr::PERFEVTSEL0, 1 << 32 | ON | INSTRUCTIONS);
        rig.write(Msr::PERFEVTSEL0.plus(1), ON | INSTRUCTIONS);
        let mut inside = Increments::instruction(Cpl::Ring3);
        inside.in_tx = true;
        rig.run(5);
        rig.retire(&inside);
        assert_eq!((rig.pmc(0), rig.pmc(1)), (1, 6));
    });
}

#[test]
fn in_txcp_takes_back_what_aborted_transactions_counted() {
    each(&["skylake"], |rig| {
        rig.write(Msr::PERFEVTSEL0.plus(2), 1 << 33 | ON_INT | INSTRUCTIONS);
        rig.write(Msr::PERFEVTSEL0.plus(1), ON | INSTRUCTIONS);
        let mut inside = Increments::instruction(Cpl::Ring3);
        inside.in_tx = true;
        rig.run(5);
        rig.retire(&inside);
        rig.retire(&inside);
        rig.pmu.abort_transaction();
        assert_eq!((rig.pmc(2), rig.pmc(1)), (5, 7));
        rig.retire(&inside);
        rig.run(1);
        rig.pmu.abort_transaction();
        assert_eq!(rig.pmc(2), 7, "what was committed stays");
        // 13.4 #4, E21: the PMI arrives, the overflow is gone, and every retry overflows again.
        rig.unmask(crate::support::NMI);
        rig.preset(2, 1);
        for _ in 0..3 {
            rig.retire(&inside);
            assert_eq!(rig.read(Msr::PERF_GLOBAL_STATUS), 4);
            rig.pmu.abort_transaction();
            assert_eq!(rig.read(Msr::PERF_GLOBAL_STATUS), 0);
            assert!(rig.pmu.deliver().is_some());
            rig.unmask(crate::support::NMI);
        }
    });
}

#[test]
fn any_thread_counts_the_sibling_too() {
    each(&["nehalem", "skylake"], |rig| {
        rig.write(Msr::PERFEVTSEL0, 1 << 21 | ON | INSTRUCTIONS);
        rig.write(Msr::PERFEVTSEL0.plus(1), ON | INSTRUCTIONS);
        rig.run(2);
        rig.pmu
            .retire_sibling(&Increments::instruction(Cpl::Ring3), &mut rig.world);
        assert_eq!((rig.pmc(0), rig.pmc(1)), (3, 2));
    });
    each(&["ice-lake"], |rig| {
        rig.write(Msr::PERFEVTSEL0, 1 << 21 | ON | INSTRUCTIONS);
        rig.pmu
            .retire_sibling(&Increments::instruction(Cpl::Ring3), &mut rig.world);
        assert_eq!(rig.pmc(0), 0, "deprecated, ignored");
    });
}

/// Clock by clock: instructions retired in each, at ring 3.
fn clocks(rig: &mut Rig<'_>, instructions: &[u64]) {
    for &count in instructions {
        let mut clock = Increments::new();
        clock.add(Source::CoreCycles, Cpl::Ring3, 1);
        clock.add(Source::Instructions, Cpl::Ring3, count);
        rig.retire(&clock);
    }
}

#[test]
fn cmask_inv_and_edge_count_clocks() {
    let options = Options {
        cycle_by_cycle: true,
        feeds: SourceSet::ALL,
        ..Options::default()
    };
    for (flags, expected) in [
        (0, 14),
        (2 << 24, 4),           // clocks with two instructions or more
        (2 << 24 | 1 << 23, 4), // clocks with fewer
        (1 << 23, 14),          // INV without CMASK is ignored
        (2 << 24 | 1 << 18, 2), // how often such a stretch begins
        (1 << 18, 2),           // how often retirement begins
        (2 << 24 | 1 << 23 | 1 << 18, 2),
    ] {
        both(named("skylake"), &options, &World::default(), |rig| {
            rig.write(Msr::PERFEVTSEL0, flags | ON | INSTRUCTIONS);
            clocks(rig, &[1, 4, 2, 0, 0, 1, 4, 2]);
            assert_eq!(rig.pmc(0), expected, "{flags:#x}");
        });
    }
}

#[test]
fn fixed_counters_count_their_event() {
    both(named("ice-lake"), &everything(), &World::default(), |rig| {
        rig.write(Msr::FIXED_CTR_CTRL, 0x3333);
        rig.write(Msr::PERF_GLOBAL_CTRL, 0xf_0000_0000);
        let mut run = Increments::new();
        for (source, amount) in [
            (Source::Instructions, 10),
            (Source::CoreCycles, 20),
            (Source::ReferenceCycles, 30),
            (Source::Slots, 40),
        ] {
            run.add(source, Cpl::Ring0, amount);
        }
        rig.retire(&run);
        let values = [0, 1, 2, 3].map(|i| rig.pmc(0x4000_0000 + i));
        assert_eq!(values, [10, 20, 30, 40]);
    });
}

#[test]
fn lost_branches_are_lost_alike_however_the_run_is_cut() {
    let options = Options {
        quirks: Some([vlbr_pmu::Quirk::LostBranches].into_iter().collect()),
        branch_lost_one_in: 8.try_into().expect("not 0"),
        ..Options::default()
    };
    let mut counts = Vec::new();
    for step in [1, 7, 1000] {
        both(named("skylake"), &options, &World::default(), |rig| {
            rig.write(Msr::PERFEVTSEL0, ON | BRANCHES);
            let mut left = 7000;
            while left > 0 {
                let mut run = Increments::new();
                run.add(Source::NearRelJmp, Cpl::Ring3, step);
                rig.retire(&run);
                left -= step;
            }
            assert!((5800..6500).contains(&rig.pmc(0)), "{}", rig.pmc(0));
            rig.world.set(step, rig.pmc(0));
        });
        let mut pmu = Pmu::new(named("skylake"), options.clone());
        let mut world = World::default();
        pmu.wrmsr(Msr::PERFEVTSEL0, ON | BRANCHES, &mut world)
            .expect("fed");
        let mut run = Increments::new();
        run.add(Source::NearRelJmp, Cpl::Ring3, step);
        for _ in 0..7000 / step {
            pmu.retire(&run, &mut world);
        }
        counts.push(pmu.rdpmc(0, Cpl::Ring0, false));
    }
    assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
}

#[test]
fn only_counters_that_interrupt_or_sample_limit_a_run() {
    each(&["skylake"], |rig| {
        rig.write(Msr::PERFEVTSEL0, ON | INSTRUCTIONS);
        rig.preset(0, 5);
        assert_eq!(rig.pmu.horizon(), Horizon::default());
        rig.write(Msr::PERFEVTSEL0.plus(1), ON_INT | BRANCHES);
        rig.preset(1, 100);
        rig.write(Msr::PERFEVTSEL0.plus(2), ON_INT | INSTRUCTIONS);
        rig.preset(2, 1000);
        assert_eq!(rig.pmu.horizon().instructions(), 100);
        assert_eq!(rig.pmu.horizon().limits.len(), 2);
        rig.run(500);
        assert_eq!(rig.pmu.horizon().instructions(), 100);
        rig.run(450);
        assert_eq!(rig.pmu.horizon().instructions(), 50);
        assert_eq!(rig.pmu.active().len(), 3);
    });
}

#[test]
fn the_enabling_wrmsr_is_not_counted_and_the_disabling_one_is() {
    // kvm-unit-tests: exactly 10 N + 17 with GLOBAL_CTRL written inside the measured block.
    each(&["skylake", "core2"], |rig| {
        rig.write(Msr::PERFEVTSEL0, ON | INSTRUCTIONS);
        rig.write(Msr::PERF_GLOBAL_CTRL, 0);
        let wrmsr = |rig: &mut Rig<'_>, value| {
            rig.run(1);
            rig.write(Msr::PERF_GLOBAL_CTRL, value);
        };
        wrmsr(rig, 1);
        rig.run(10 * 100 + 16);
        wrmsr(rig, 0);
        rig.run(3);
        assert_eq!(rig.pmc(0), 10 * 100 + 17);
    });
}

#[test]
fn presets_overflow_after_their_period() {
    every(|rig| {
        let profile = rig.pmu.profile().clone();
        rig.write(Msr::PERFEVTSEL0, ON | INSTRUCTIONS);
        let wide = profile.perf_capabilities().bits() >> 13 & 1 != 0;
        let (msr, longest) = match wide {
            true => (Msr::A_PMC0, (1 << profile.gp_width()) - 1),
            false => (Msr::PMC0, 1 << 31),
        };
        for period in [1, 1000, longest] {
            rig.write(msr, profile.preset(Counter::Gp(0), period).expect("fits"));
            let mut run = Increments::new();
            run.add(Source::Instructions, Cpl::Ring3, period - 1);
            assert!(rig.retire(&run).overflowed.is_empty(), "{period}");
            assert_eq!(rig.run(1)[0].overflowed.0, 1, "{period}");
        }
        for period in [0, longest + 1] {
            let error = profile
                .preset(Counter::Gp(0), period)
                .expect_err("does not fit");
            assert_eq!(error.longest, longest);
        }
    });
}

#[test]
fn lbr_log_tells_the_lbr() {
    both(
        named("lunar-lake-p"),
        &Options::default(),
        &World::default(),
        |rig| {
            rig.write(Msr::PERFEVTSEL0, 1 << 35 | ON | INSTRUCTIONS);
            rig.write(Msr::PERFEVTSEL0.plus(1), 1 << 35 | ON | BRANCHES);
            rig.write(Msr::PERFEVTSEL0.plus(2), ON | INSTRUCTIONS);
            rig.branch(BranchClass::NearRelJmp);
            rig.run(1);
            assert_eq!(rig.world.logged, [(0, 1), (1, 1), (0, 1)]);
        },
    );
}
