//! Cutting a run anywhere inside the horizon changes nothing.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use vlbr_arch::{BranchClass, Cpl, DebugCtl, FarKind, LvtPc, Msr};
use vlbr_pmu::{AmountsError, Increments, Interrupt, Options, Outcome, Pmu, Profile};

use crate::config;
use crate::world::{DS, World};

/// Classes of branches a program is drawn from, and no branch.
const CLASSES: [Option<BranchClass>; 10] = [
    None,
    None,
    None,
    Some(BranchClass::Jcc),
    Some(BranchClass::NearRelJmp),
    Some(BranchClass::NearIndJmp),
    Some(BranchClass::NearRelCall),
    Some(BranchClass::NearIndCall),
    Some(BranchClass::NearRet),
    Some(BranchClass::Far(FarKind::Syscall)),
];

/// A program: per instruction its class, direction and level.
type Program = Vec<(usize, bool, bool)>;

fn instruction((class, taken, user): (usize, bool, bool)) -> Increments {
    let cpl = if user { Cpl::Ring3 } else { Cpl::Ring0 };
    match CLASSES[class] {
        None => Increments::instruction(cpl),
        Some(class) => Increments::branch(class, taken, false, cpl),
    }
}

#[derive(Clone, Debug)]
struct Setup {
    /// Event, unit mask choice and INT of each counter.
    counters: Vec<(bool, u64, bool)>,
    fixed: u64,
    pebs: u64,
    skid: u64,
    debugctl: u64,
}

fn prepare(profile: &Profile, setup: &Setup) -> (Pmu, World) {
    let options = Options {
        skid: setup.skid,
        ..Options::default()
    };
    let mut pmu = Pmu::new(profile, options);
    let mut world = World::with_buffer(1500, 1000);
    world.streamlined = profile.version() >= 4;
    world.debugctl = DebugCtl::from_bits(setup.debugctl);
    for slot in 0..12 {
        world.set(DS + 0x40 + 8 * slot, 13u64.wrapping_neg());
    }
    pmu.set_lvtpc(LvtPc::from_bits(0x400));
    let mut write = |msr: Msr, value: u64| {
        // What the part lacks is left out.
        let value = value & !pmu.reserved_bits(msr);
        let _ = pmu.wrmsr(msr, value, &mut world);
    };
    write(Msr::PERF_GLOBAL_CTRL, u64::MAX >> 17);
    write(Msr::DS_AREA, DS);
    write(Msr::PEBS_ENABLE, setup.pebs);
    for (n, (branches, preset, int)) in (0..).zip(&setup.counters) {
        let event = if *branches { 0xc4 } else { 0xc0 };
        write(
            Msr::PERFEVTSEL0.plus(n),
            0x43_0000 | event | u64::from(*int) << 20,
        );
        write(Msr::PMC0.plus(n), preset.wrapping_neg());
    }
    write(Msr::FIXED_CTR_CTRL, setup.fixed);
    write(Msr::FIXED_CTR0, 40u64.wrapping_neg());
    (pmu, world)
}

/// What happened, with the number of the instruction behind which it did.
type Events = Vec<(usize, Outcome, Option<Interrupt>)>;

fn note(events: &mut Events, at: usize, outcome: Outcome, interrupt: Option<Interrupt>) {
    let plain = outcome.pmi.is_none() && outcome.pebs.is_none();
    if !plain || interrupt.is_some() {
        // Counters that only accumulate overflow somewhere inside a run.
        let outcome = Outcome {
            overflowed: Default::default(),
            ..outcome
        };
        events.push((at, outcome, interrupt));
    }
}

fn one_by_one(profile: &Profile, setup: &Setup, program: &Program) -> (Pmu, World, Events) {
    let (mut pmu, mut world) = prepare(profile, setup);
    let mut events = Events::new();
    for (at, step) in program.iter().enumerate() {
        let outcome = pmu.retire(&instruction(*step), &mut world);
        note(&mut events, at, outcome, pmu.deliver());
    }
    (pmu, world, events)
}

/// In runs as long as the horizon allows, but at most as long as `cuts` say in turn.
fn in_runs(
    profile: &Profile,
    setup: &Setup,
    program: &Program,
    cuts: &[usize],
    summed: bool,
) -> (Pmu, World, Events) {
    let (mut pmu, mut world) = prepare(profile, setup);
    let mut events = Events::new();
    let mut at = 0;
    for cut in cuts.iter().cycle() {
        if at == program.len() {
            break;
        }
        let bound = usize::try_from(pmu.horizon().instructions() - 1).unwrap_or(usize::MAX);
        let length = bound.min(*cut).min(program.len() - at);
        if length == 0 {
            let outcome = pmu.retire(&instruction(program[at]), &mut world);
            note(&mut events, at, outcome, pmu.deliver());
            at += 1;
            continue;
        }
        let mut run = Increments::new();
        for step in &program[at..at + length] {
            run.merge(&instruction(*step));
        }
        assert!(pmu.horizon().allows(&run));
        let outcome = if summed {
            let amounts: Vec<u64> = pmu
                .active()
                .iter()
                .map(|(_, selector)| selector.amount(&run))
                .collect();
            pmu.retire_amounts(&amounts, run.instructions(), run.cycles(), &mut world)
                .unwrap_or_else(|_| pmu.retire(&run, &mut world))
        } else {
            pmu.retire(&run, &mut world)
        };
        assert_eq!(
            (outcome.pmi, outcome.pebs),
            (None, None),
            "inside the horizon"
        );
        at += length;
        assert_eq!(pmu.deliver(), None);
    }
    (pmu, world, events)
}

fn setups() -> impl Strategy<Value = Setup> {
    (
        vec((any::<bool>(), 1u64..60, any::<bool>()), 1..5),
        prop_oneof![Just(0u64), Just(0x3), Just(0xb)],
        prop_oneof![2 => Just(0u64), 1 => 0u64..16, 1 => Just(1 << 32)],
        prop_oneof![Just(0u64), 1u64..9],
        prop_oneof![Just(0u64), Just(0x1000), Just(0x800), Just(0x1801)],
    )
        .prop_map(|(counters, fixed, pebs, skid, debugctl)| Setup {
            counters,
            fixed,
            pebs,
            skid,
            debugctl,
        })
}

#[test]
fn cutting_a_run_changes_nothing() {
    let program = vec((0..CLASSES.len(), any::<bool>(), any::<bool>()), 1..200);
    let mut interrupts = 0;
    let mut records = 0;
    for profile in Profile::all() {
        let mut runner = TestRunner::new(config());
        let strategy = (
            setups(),
            program.clone(),
            vec(1usize..50, 1..20),
            any::<bool>(),
        );
        let counts = std::cell::Cell::new((0, 0));
        let result = runner.run(&strategy, |(setup, program, cuts, summed)| {
            let single = one_by_one(profile, &setup, &program);
            let cut = in_runs(profile, &setup, &program, &cuts, summed);
            prop_assert_eq!(&single.2, &cut.2, "what happened where");
            prop_assert_eq!(&single.0, &cut.0, "the device");
            prop_assert_eq!(&single.1, &cut.1, "the world");
            let (interrupts, records) = counts.get();
            let delivered = single.2.iter().filter(|event| event.2.is_some()).count();
            let sampled = single
                .2
                .iter()
                .filter(|event| event.1.pebs.is_some())
                .count();
            counts.set((interrupts + delivered, records + sampled));
            Ok(())
        });
        assert!(
            result.is_ok(),
            "{}: {}",
            profile.name(),
            result.unwrap_err()
        );
        interrupts += counts.get().0;
        records += counts.get().1;
    }
    assert!(interrupts > 100 && records > 100, "{interrupts} {records}");
}

#[test]
fn amounts_count_as_increments_do() {
    let program = vec((0..CLASSES.len(), any::<bool>(), any::<bool>()), 1..100);
    for profile in Profile::all() {
        let mut runner = TestRunner::new(config());
        let result = runner.run(&(setups(), program.clone()), |(setup, program)| {
            let (mut pmu, mut world) = prepare(profile, &setup);
            let mut events = Events::new();
            for (at, step) in program.iter().enumerate() {
                let run = instruction(*step);
                let amounts: Vec<u64> = pmu
                    .active()
                    .iter()
                    .map(|(_, selector)| selector.amount(&run))
                    .collect();
                let outcome = match pmu.retire_amounts(&amounts, 1, 0, &mut world) {
                    Ok(outcome) => outcome,
                    Err(_) => pmu.retire(&run, &mut world),
                };
                note(&mut events, at, outcome, pmu.deliver());
            }
            let whole = one_by_one(profile, &setup, &program);
            prop_assert_eq!(&whole.2, &events);
            prop_assert_eq!(&whole.0, &pmu);
            prop_assert_eq!(&whole.1, &world);
            Ok(())
        });
        assert!(
            result.is_ok(),
            "{}: {}",
            profile.name(),
            result.unwrap_err()
        );
    }
}

#[test]
fn amounts_that_do_not_tell_enough_are_refused() {
    let profile = Profile::named("skylake").expect("built in");
    let mut pmu = Pmu::new(profile, Options::default());
    let mut world = World::default();
    pmu.wrmsr(Msr::PERFEVTSEL0, 0x43_00c0, &mut world)
        .expect("fed");
    let before = pmu.clone();
    let length = AmountsError::Length {
        given: 2,
        active: 1,
    };
    assert_eq!(pmu.retire_amounts(&[1, 1], 1, 0, &mut world), Err(length));
    assert!(pmu == before);
    let clocks = Options {
        cycle_by_cycle: true,
        ..Options::default()
    };
    let mut pmu = Pmu::new(profile, clocks);
    assert_eq!(
        pmu.retire_amounts(&[], 1, 0, &mut world),
        Err(AmountsError::Sources)
    );
}
