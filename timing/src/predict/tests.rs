//! Predictors on branches of which it is known how well they can be predicted.

use super::lfsr::Lfsr;
use super::*;

fn named(name: &str) -> PredictorConfig {
    predictors().named(name).expect("built in").clone()
}

fn cores() -> impl Iterator<Item = PredictorConfig> {
    let tage = |config: &&PredictorConfig| matches!(config.direction, DirectionConfig::Tage(_));
    predictors().all().iter().filter(tage).cloned()
}

fn branch(kind: BranchKind, address: u64, taken: bool, target: u64) -> Branch {
    Branch {
        address,
        fallthrough: address + 4,
        kind,
        taken,
        target,
    }
}

fn jcc(address: u64, taken: bool) -> Branch {
    branch(BranchKind::Conditional, address, taken, address + 0x40)
}

/// Mispredictions among `branches` after the first `learning`.
fn misses(
    config: &PredictorConfig,
    learning: usize,
    branches: impl IntoIterator<Item = Branch>,
) -> usize {
    let mut predictor = Predictor::new(config);
    let predicted = branches
        .into_iter()
        .map(|branch| predictor.predict_and_update(&branch).mispredicted());
    predicted.skip(learning).filter(|missed| *missed).count()
}

/// The jump that closes an outer loop: a path knows of a branch that is not taken by what is taken behind it.
fn back() -> Branch {
    branch(BranchKind::Jump, 0x40_1023, true, 0x40_1000)
}

#[test]
fn a_loop_of_fixed_trip_count_is_predicted_once_it_is_known() {
    for config in cores() {
        for trips in [2, 3, 7, 30, 100, 500] {
            let turn = |turn| jcc(0x40_1000, turn % trips != trips - 1);
            let outer = (0..200).flat_map(|_| (0..trips).map(turn).chain([back()]));
            let missed = misses(&config, (trips + 1) * 100, outer);
            assert_eq!(missed, 0, "{}: {trips} trips", config.name);
        }
    }
}

#[test]
fn alternating_directions_are_predicted() {
    let turns = || (0..2000).flat_map(|turn| [jcc(0x40_1000, turn % 2 == 0), back()]);
    for config in cores().chain([named("gshare")]) {
        assert_eq!(misses(&config, 400, turns()), 0, "{}", config.name);
    }
    assert!(misses(&named("bimodal"), 400, turns()) >= 900);
}

#[test]
fn a_branch_that_follows_another_one_needs_history() {
    let pairs = || {
        let mut random = Lfsr::new(3);
        (0..40_000).flat_map(move |_| {
            let coin = random.next() & 64 != 0;
            [jcc(0x40_1000, coin), jcc(0x40_1010, !coin), back()]
        })
    };
    for config in cores().chain([named("gshare")]) {
        // Of the last 3,000 pairs the first branch is missed every second time, the other one never.
        let missed = misses(&config, 111_000, pairs());
        assert!((1350..=1700).contains(&missed), "{}: {missed}", config.name);
    }
    let missed = misses(&named("bimodal"), 111_000, pairs());
    assert!(missed > 2600, "{missed}");
}

#[test]
fn random_directions_are_missed_every_second_time() {
    for config in predictors().all() {
        let mut random = Lfsr::new(11);
        let turns = (0..100_000).map(|_| jcc(0x40_1000, random.next() & 64 != 0));
        let missed = misses(config, 0, turns) as f64 / 100_000.0;
        assert!((0.48..0.52).contains(&missed), "{}: {missed}", config.name);
    }
}

/// Calls down to a depth and returns; every call is another one, so every return goes elsewhere.
fn recursion(depth: u64) -> impl Iterator<Item = Branch> {
    let call = |level: u64| {
        branch(
            BranchKind::Call,
            0x40_0000 + 64 * level,
            true,
            0x40_0020 + 64 * level,
        )
    };
    let ret = |level: u64| {
        branch(
            BranchKind::Return,
            0x40_0030 + 64 * level,
            true,
            0x40_0004 + 64 * level,
        )
    };
    (0..depth).map(call).chain((0..depth).rev().map(ret))
}

#[test]
fn a_return_stack_that_wraps_misses_what_it_overwrote() {
    let mut config = named("bimodal");
    assert_eq!(
        (config.return_stack.entries, config.return_stack.underflow),
        (16, Underflow::Wraps)
    );
    for depth in [1, 15, 16, 17, 18, 32, 40] {
        let mut predictor = Predictor::new(&config);
        let mut run = || {
            let branches = recursion(depth);
            branches
                .filter(|branch| predictor.predict_and_update(branch).target_missed)
                .count() as u64
        };
        for _ in 0..3 {
            assert_eq!(run(), depth.saturating_sub(16), "depth {depth}");
        }
    }
    // With the indirect predictor behind it the returns, each of which goes to one place, are known after
    // the first time.
    config.return_stack.underflow = Underflow::Indirect;
    let mut predictor = Predictor::new(&config);
    for missed in [24, 0, 0] {
        let predicted =
            recursion(40).filter(|branch| predictor.predict_and_update(branch).target_missed);
        assert_eq!(predicted.count(), missed);
    }
}

#[test]
fn a_call_of_the_next_instruction_leaves_the_return_stack_alone() {
    let branches = || {
        [
            branch(BranchKind::Call, 0x40_0000, true, 0x40_1000),
            // How position-independent code of 32 bits reads its address.
            branch(BranchKind::Call, 0x40_1000, true, 0x40_1004),
            branch(BranchKind::Return, 0x40_1010, true, 0x40_0004),
        ]
    };
    let mut config = named("skylake");
    assert_eq!(misses(&config, 0, branches()), 0);
    config.return_stack.zero_length_calls = true;
    assert_eq!(misses(&config, 0, branches()), 1);
}

#[test]
fn indirect_targets_in_a_period_are_predicted_by_their_path() {
    let targets = || {
        let order = [1, 2, 3, 1, 1, 4, 2, 5];
        (0..8000).flat_map(move |turn| {
            let target = 0x40_2000 + 0x111 * order[turn % order.len()];
            [
                branch(BranchKind::IndirectJump, 0x40_1000, true, target),
                back(),
            ]
        })
    };
    for config in cores() {
        assert_eq!(misses(&config, 8000, targets()), 0, "{}", config.name);
    }
    // As the last time: right for one pair of the eight.
    assert_eq!(misses(&named("bimodal"), 8000, targets()), 3500);
}

#[test]
fn a_set_of_the_branch_target_buffer_holds_as_many_branches_as_it_has_ways() {
    let config = named("skylake");
    let (sets, ways) = (u64::from(config.btb.sets), u64::from(config.btb.ways));
    for (branches, missed) in [(ways, 0), (ways + 1, ways + 1)] {
        let mut predictor = Predictor::new(&config);
        let mut run = || {
            // One set, whatever the higher bits choose.
            let jumps =
                (0..branches).map(|n| branch(BranchKind::Jump, 0x4000 + n * sets, true, 0x9000));
            let missed = jumps.filter(|jump| {
                let prediction = predictor.predict_and_update(jump);
                assert!(!prediction.mispredicted(), "a direct jump");
                prediction.btb_missed
            });
            missed.count() as u64
        };
        assert_eq!(run(), branches);
        assert_eq!(run(), missed);
    }
}

#[test]
fn a_direct_branch_with_another_target_is_a_miss_of_the_branch_target_buffer() {
    let mut predictor = Predictor::new(&named("skylake"));
    let jump = |target| branch(BranchKind::Jump, 0x40_0000, true, target);
    for (target, missed) in [(0x50, true), (0x50, false), (0x60, true), (0x60, false)] {
        let prediction = predictor.predict_and_update(&jump(target));
        assert_eq!(
            (prediction.btb_missed, prediction.mispredicted()),
            (missed, false)
        );
    }
}

/// Branches of every kind at random, on few addresses.
fn mixture(seed: u32, count: usize) -> Vec<Branch> {
    let mut random = Lfsr::new(seed);
    let mut one = || {
        let kind = BranchKind::ALL[random.next() as usize % BranchKind::ALL.len()];
        let address = 0x40_0000 + u64::from(random.next() % 64) * 16;
        branch(
            kind,
            address,
            random.next() & 64 != 0,
            0x50_0000 + u64::from(random.next() % 8) * 32,
        )
    };
    (0..count).map(|_| one()).collect()
}

#[test]
fn the_same_branches_give_the_same_predictions_and_state() {
    for config in predictors().all() {
        let run = |predictor: &mut Predictor| -> Vec<Prediction> {
            let branches = mixture(5, 20_000);
            branches
                .iter()
                .map(|branch| predictor.predict_and_update(branch))
                .collect()
        };
        let mut first = Predictor::new(config);
        let new = first.clone();
        let predictions = run(&mut first);
        let mut second = Predictor::new(config);
        assert_eq!(run(&mut second), predictions, "{}", config.name);
        assert!(first == second, "{}", config.name);
        first.flush();
        assert!(first == new, "{}", config.name);
        assert_eq!(run(&mut first), predictions, "{}", config.name);
    }
}

#[test]
fn a_prediction_has_only_what_its_kind_can_have() {
    for config in predictors().all() {
        let mut predictor = Predictor::new(config);
        for branch in mixture(9, 20_000) {
            let prediction = predictor.predict_and_update(&branch);
            let conditional = branch.kind == BranchKind::Conditional;
            assert!(conditional || !prediction.direction_missed);
            assert!(!branch.kind.is_direct() || !prediction.target_missed);
            assert!(branch.taken || !conditional || !prediction.btb_missed);
        }
    }
}

#[test]
fn what_makes_no_predictor_is_refused_by_name() {
    let text = toml::to_string(&named("skylake")).expect("serializable");
    assert_eq!(PredictorConfig::from_toml(&text), Ok(named("skylake")));
    let refused = |change: &dyn Fn(&mut PredictorConfig)| {
        let mut config = named("skylake");
        change(&mut config);
        let error = config.check().expect_err("refused");
        assert_eq!(Predictor::try_new(&config), Err(error.clone()));
        let text = toml::to_string(&config).expect("serializable");
        assert_eq!(PredictorConfig::from_toml(&text), Err(error.clone()));
        error.to_string()
    };
    // TOML has lists of any length.
    let longer = text.replacen("branch = [", "branch = [0, ", 1);
    let error = PredictorConfig::from_toml(&longer).expect_err("17 bits");
    assert!(error.to_string().contains("invalid length 17"), "{error}");
    fn tage(config: &mut PredictorConfig) -> &mut TageConfig {
        match &mut config.direction {
            DirectionConfig::Tage(tage) => tage,
            other => panic!("{other:?}"),
        }
    }
    for (change, text) in [
        (
            &(|c: &mut PredictorConfig| c.btb.sets = 1000) as &dyn Fn(&mut PredictorConfig),
            "btb.sets: 1000 is no power of two",
        ),
        (
            &|c| c.path.target[3] = 64,
            "path.target: 64 is no bit of an address",
        ),
        (&|c| c.btb.sets = 0, "btb.sets: 0 is no power of two"),
        (
            &|c| c.name = "a\u{1b}[31m".into(),
            "name: \"a\\u{1b}[31m\" is empty or has control characters",
        ),
        (&|c| c.btb.ways = 0, "btb.ways: 0 is not in 1 to 16"),
        (
            &|c| c.return_stack.entries = u32::MAX,
            "return_stack.entries: 4294967295 is not in 0 to 1024",
        ),
        (
            &|c| tage(c).base = 1 << 31,
            "direction.base: 2147483648 is not in 1 to 4194304",
        ),
        (
            &|c| tage(c).loops = 2,
            "direction.loops: 2 is not in 4 to 4096",
        ),
        (
            &|c| tage(c).corrector = 48,
            "direction.corrector: 48 is no power of two",
        ),
        (
            &|c| tage(c).tables[0].tag = 17,
            "direction.tables: 17 is not in 4 to 16",
        ),
        (
            &|c| tage(c).tables[0].sets = 3,
            "direction.tables: 3 is no power of two",
        ),
        (
            &|c| tage(c).tables[0].history = 0,
            "direction.tables: 0 is not in 2 to 3968",
        ),
        (
            &|c| tage(c).tables[0].history = 3968,
            "direction.tables: a history of ",
        ),
        (
            &|c| (c.indirect.tables[3].sets, c.indirect.tables[3].ways) = (1 << 16, 16),
            "indirect.tables: 1050112 is not in 0 to 1048576",
        ),
        (
            &|c| c.indirect.tables = vec![c.indirect.tables[0]; 17],
            "indirect.tables: 17 is not in 0 to 16",
        ),
        (
            &|c| {
                c.direction = DirectionConfig::Gshare {
                    entries: 1024,
                    history: 11,
                }
            },
            "direction.history: 11 is not in 0 to 10",
        ),
        (
            &|c| c.direction = DirectionConfig::Bimodal { entries: 3 },
            "direction.entries: 3 is no power of two",
        ),
    ] {
        let said = refused(change);
        assert!(said.starts_with(text), "{said}");
    }
    assert!(PredictorConfig::from_toml("name = 1").is_err());
    assert!(PredictorConfig::from_toml(&text.replace("ways", "ways_")).is_err());
}

#[test]
fn fuzz_predictors() {
    let seeds: Vec<Vec<u8>> = predictors()
        .all()
        .iter()
        .map(|config| toml::to_string(config).expect("serializable").into_bytes())
        .collect();
    let branches = mixture(3, 100);
    let tally = vlbr_fuzz::throw("predictor", 5000, vlbr_fuzz::Form::Text, &seeds, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return false;
        };
        let Ok(config) = PredictorConfig::from_toml(text) else {
            return false;
        };
        assert!(config.bytes() < 64 << 20);
        let mut predictor = Predictor::new(&config);
        for branch in &branches {
            predictor.predict_and_update(branch);
        }
        true
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}

/// Nanoseconds a branch: `cargo test --release -p vlbr-timing --lib -- --ignored --nocapture speed`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let mut random = Lfsr::new(1);
    // A loop over 2,000 branches: most go the same way every time, some in a period, one in 32 at random.
    let sites: Vec<(u64, BranchKind, u64)> = (0..2000)
        .map(|site| {
            let kind = match random.next() % 16 {
                0 => BranchKind::Jump,
                1 => BranchKind::IndirectJump,
                _ => BranchKind::Conditional,
            };
            (0x40_0000 + site * 24, kind, u64::from(random.next() % 32))
        })
        .collect();
    let branches: Vec<Branch> = (0..4_000_000)
        .map(|turn: u64| {
            let (address, kind, habit) = sites[(turn % 2000) as usize];
            let coin = match habit {
                0 => random.next() & 64 != 0,
                1..8 => (turn / 2000).is_multiple_of(habit),
                _ => habit % 2 == 0,
            };
            branch(kind, address, coin, address + 0x43 + u64::from(coin) * 71)
        })
        .collect();
    for config in predictors().all() {
        let mut predictor = Predictor::new(config);
        let mut missed = 0;
        let start = std::time::Instant::now();
        for branch in &branches {
            missed += u64::from(predictor.predict_and_update(branch).mispredicted());
        }
        let each = start.elapsed().as_nanos() as f64 / branches.len() as f64;
        println!(
            "{:14} {each:5.1} ns a branch, {missed} of {} missed",
            config.name,
            branches.len()
        );
    }
}
