use std::collections::BTreeSet;

use vlbr_arch::{BranchClass, CodeSize};
use vlbr_cpu::{Code, StepId};

use super::walk::is_connected;
use super::{Synthetic, SyntheticConfig};

fn classes(code: &Code, steps: &[StepId]) -> BTreeSet<BranchClass> {
    steps
        .iter()
        .filter_map(|&s| code.transfer(s))
        .map(|t| t.class)
        .collect()
}

#[test]
fn every_step_starts_where_the_last_one_ended() {
    for seed in 0..40 {
        let config = SyntheticConfig {
            one_in_interrupted: 50,
            code_size: [CodeSize::Bits64, CodeSize::Bits32][seed as usize % 2],
            ..SyntheticConfig::with_seed(seed)
        };
        let mut synthetic = Synthetic::new(&config).unwrap();
        let steps = synthetic.run(0, 100_000).unwrap();
        assert!(is_connected(synthetic.code(), &steps), "seed {seed}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let mut synthetic = Synthetic::new(&SyntheticConfig::with_seed(seed)).unwrap();
        let steps = synthetic.run(0, 50_000).unwrap();
        let code = synthetic.into_code();
        (steps, code.blocks().to_vec(), code.steps().to_vec())
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3).0, run(4).0);
}

#[test]
fn near_classes_and_the_kernel_are_met() {
    use vlbr_arch::FarKind;
    let mut synthetic = Synthetic::new(&SyntheticConfig::default()).unwrap();
    let steps = synthetic.run(0, 2_000_000).unwrap();
    let found = classes(synthetic.code(), &steps);
    for class in [
        BranchClass::Jcc,
        BranchClass::NearRelJmp,
        BranchClass::NearIndJmp,
        BranchClass::NearRelCall,
        BranchClass::NearIndCall,
        BranchClass::NearRet,
        BranchClass::Far(FarKind::Syscall),
        BranchClass::Far(FarKind::Sysret),
        BranchClass::Far(FarKind::Iret),
        BranchClass::Far(FarKind::Interrupt),
        BranchClass::Far(FarKind::Exception),
    ] {
        assert!(found.contains(&class), "{class:?}");
    }
    let code = synthetic.code();
    let kernel = steps.iter().filter(|&&s| !code.is_user(s)).count();
    assert!(kernel * 50 > steps.len() && kernel < steps.len());
}

#[test]
fn without_a_kernel_everything_is_user_code() {
    let config = SyntheticConfig {
        kernel: false,
        ..SyntheticConfig::default()
    };
    let mut synthetic = Synthetic::new(&config).unwrap();
    let steps = synthetic.run(0, 500_000).unwrap();
    assert!(steps.iter().all(|&s| synthetic.code().is_user(s)));
    assert!(
        classes(synthetic.code(), &steps)
            .iter()
            .all(|c| !matches!(c, BranchClass::Far(_)))
    );
}

#[test]
fn mispredictions_come_at_the_stated_rate() {
    let config = SyntheticConfig {
        one_in_mispredicted: 20,
        ..SyntheticConfig::default()
    };
    let mut synthetic = Synthetic::new(&config).unwrap();
    let steps = synthetic.run(0, 500_000).unwrap();
    let transfers: Vec<_> = steps
        .iter()
        .filter_map(|&s| synthetic.code().transfer(s))
        .collect();
    let missed = transfers.iter().filter(|t| t.mispredicted).count();
    assert!(
        (15..=25).contains(&(transfers.len() / missed)),
        "{missed} of {}",
        transfers.len()
    );
}

#[test]
fn threads_run_the_same_code_in_their_own_way() {
    let config = SyntheticConfig {
        threads: 2,
        ..SyntheticConfig::default()
    };
    let mut synthetic = Synthetic::new(&config).unwrap();
    assert_eq!(synthetic.threads(), 2);
    let (a, b) = (
        synthetic.run(0, 50_000).unwrap(),
        synthetic.run(1, 50_000).unwrap(),
    );
    assert_ne!(a, b);
    let shared: BTreeSet<_> = a.iter().collect();
    assert!(b.iter().any(|s| shared.contains(s)));
}
