//! Which events can be counted, and what is said of the others.

use std::collections::BTreeMap;

use vlbr_arch::Msr;
use vlbr_pmu::{Options, PmuError, Profile, Refusal, SourceSet, Unfed};

use crate::support::{INSTRUCTIONS, ON, Rig, both, each, every, everything, named};
use crate::world::World;

fn refusal(rig: &mut Rig<'_>, msr: Msr, value: u64) -> Refusal {
    let before = rig.pmu.rdmsr(msr, &rig.world);
    match rig.pmu.wrmsr(msr, value, &mut rig.world) {
        Err(PmuError::Refused { refusal, .. }) => {
            assert_eq!(
                rig.pmu.rdmsr(msr, &rig.world),
                before,
                "nothing has changed"
            );
            refusal
        }
        other => panic!("{msr} = {value:#x}: {other:?}"),
    }
}

#[test]
fn an_unknown_event_is_refused_with_the_nearest() {
    each(&["skylake"], |rig| {
        let text = refusal(rig, Msr::PERFEVTSEL0, ON | 0x77_c5).to_string();
        assert_eq!(
            text,
            "PMC0: no event is known with event 0xc5, umask 0x77; nearest are \
             BR_INST_RETIRED.ALL_BRANCHES, BR_INST_RETIRED.COND, BR_INST_RETIRED.CONDITIONAL"
        );
    });
}

#[test]
fn an_event_nobody_feeds_is_refused_by_name() {
    each(&["skylake"], |rig| {
        let cycles = refusal(rig, Msr::PERFEVTSEL0, ON | 0x3c).to_string();
        assert!(
            cycles.starts_with("PMC0: CPU_CLK_UNHALTED.THREAD_P is not fed: it takes core-cycles"),
            "{cycles}"
        );
        let misses = refusal(rig, Msr::PERFEVTSEL0, ON | 0xc5).to_string();
        assert!(
            misses.contains("BR_MISP_RETIRED.ALL_BRANCHES is not fed: it takes misp"),
            "{misses}"
        );
        let nops = refusal(rig, Msr::PERFEVTSEL0, ON | 0x02_c0).to_string();
        assert!(
            nops.contains("INST_RETIRED.NOP is not fed: no model tells"),
            "{nops}"
        );
        assert!(matches!(
            refusal(rig, Msr::FIXED_CTR_CTRL, 0x33),
            Refusal::NotFed { .. }
        ));
        rig.write(Msr::PERFEVTSEL0, 0x3c);
        rig.write(Msr::FIXED_CTR_CTRL, 0x83);
    });
}

#[test]
fn cmask_and_edge_are_refused_without_clocks() {
    each(&["skylake"], |rig| {
        for (flags, bits) in [
            (1 << 24, "CMASK"),
            (1 << 18, "E"),
            (1 << 24 | 1 << 18, "CMASK and E"),
        ] {
            let refusal = refusal(rig, Msr::PERFEVTSEL0, flags | ON | INSTRUCTIONS);
            assert!(
                matches!(&refusal, Refusal::NeedsCycles { bits: said, .. } if *said == bits),
                "{refusal}"
            );
        }
        rig.write(Msr::PERFEVTSEL0, 1 << 23 | ON | INSTRUCTIONS);
    });
}

#[test]
fn an_event_of_another_counter_is_refused() {
    each(&["haswell"], |rig| {
        let text = refusal(rig, Msr::PERFEVTSEL0, ON | 0x01_c0).to_string();
        assert_eq!(
            text,
            "INST_RETIRED.PREC_DIST is counted on PMC [1] only, not on PMC0"
        );
        rig.write(Msr::PERFEVTSEL0.plus(1), ON | 0x01_c0);
    });
}

#[test]
fn architectural_events_that_cpuid_denies_are_not_available() {
    let options = everything();
    let refuse = Options {
        unfed: Unfed::Refuse,
        ..options
    };
    both(named("nehalem"), &refuse, &World::default(), |rig| {
        let text = refusal(rig, Msr::PERFEVTSEL0, ON | 0xc5).to_string();
        assert!(
            text.contains("CPUID leaf 0xA says that branch-misses is not available"),
            "{text}"
        );
    });
    let early = named("nehalem").with_part("A1").expect("known");
    both(&early, &refuse, &World::default(), |rig| {
        rig.write(Msr::PERFEVTSEL0, ON | 0xc5)
    });
}

#[test]
fn a_held_counter_stands_still_and_is_named() {
    let options = Options {
        unfed: Unfed::Hold,
        ..Options::default()
    };
    both(named("skylake"), &options, &World::default(), |rig| {
        rig.write(Msr::PERFEVTSEL0, ON | 0x3c);
        rig.write(Msr::PERFEVTSEL0.plus(1), ON | INSTRUCTIONS);
        rig.write(Msr::PMC0, 77);
        rig.run(5);
        assert_eq!((rig.pmc(0), rig.pmc(1)), (77, 5));
        assert!(
            matches!(rig.pmu.held().as_slice(), [Refusal::NotFed { .. }]),
            "{:?}",
            rig.pmu.held()
        );
        rig.write(Msr::PERFEVTSEL0, 0);
        assert!(rig.pmu.held().is_empty());
    });
}

#[test]
fn topdown_metrics_are_refused() {
    each(&["ice-lake"], |rig| {
        assert_eq!(
            refusal(rig, Msr::PERF_GLOBAL_CTRL, 1 << 48),
            Refusal::Metrics
        );
    });
}

#[test]
fn every_part_counts_instructions_and_branches() {
    every(|rig| {
        for event in [INSTRUCTIONS, 0xc4] {
            rig.write(Msr::PERFEVTSEL0, ON | event);
        }
        if rig.pmu.profile().fixed_mask() & 1 != 0 {
            rig.write(Msr::FIXED_CTR_CTRL, 3);
        }
    });
}

#[test]
fn one_code_counts_one_thing_in_each_list() {
    for profile in Profile::all() {
        let mut seen: BTreeMap<_, SourceSet> = BTreeMap::new();
        for event in profile.events() {
            let key = (event.select().bits(), event.fixed());
            let counts = *seen.entry(key).or_insert(event.counts());
            assert_eq!(
                counts,
                event.counts(),
                "{} {}",
                profile.name(),
                event.name()
            );
        }
    }
}

#[test]
fn branch_unit_masks_are_those_of_the_table() {
    // hardware.md 6.7.
    for (profile, code, umask, name) in [
        ("nehalem", 0xc4, 0x04, "BR_INST_RETIRED.ALL_BRANCHES"),
        ("sandy-bridge", 0xc4, 0x20, "BR_INST_RETIRED.NEAR_TAKEN"),
        ("skylake", 0xc4, 0x04, "BR_INST_RETIRED.ALL_BRANCHES_PEBS"),
        ("sapphire-rapids", 0xc4, 0x11, "BR_INST_RETIRED.COND"),
        ("sapphire-rapids", 0xc4, 0x01, "BR_INST_RETIRED.COND_TAKEN"),
        ("silvermont", 0xc4, 0x7e, "BR_INST_RETIRED.JCC"),
        ("goldmont", 0xc4, 0x80, "BR_INST_RETIRED.ALL_TAKEN_BRANCHES"),
        ("gracemont", 0xc4, 0xc0, "BR_INST_RETIRED.NEAR_TAKEN"),
        ("gracemont", 0xc5, 0x80, "BR_MISP_RETIRED.NEAR_TAKEN"),
        ("haswell", 0xcc, 0x20, "ROB_MISC_EVENTS.LBR_INSERTS"),
        ("ice-lake", 0xcc, 0x20, "MISC_RETIRED.LBR_INSERTS"),
        ("gracemont", 0xe4, 0x01, "LBR_INSERTS.ANY"),
    ] {
        let events = named(profile).events();
        let event = events
            .iter()
            .find(|event| event.name() == name)
            .expect(name);
        let select = event.select();
        assert_eq!(
            (select.event(), select.umask()),
            (code, umask),
            "{profile} {name}"
        );
    }
}
