//! Branches through predictors: what is counted, and what another simulator is given.

use std::path::Path;

use vlbr_lbr::Profile;
use vlbr_replay::{
    BranchInput, BranchOptions, BranchReport, Region, SessionOptions, branches, export_cbp, stat,
};
use vlbr_timing::predict::predictors;
use vlbr_traces::cbp::{Class, Reader};
use vlbr_traces::synthetic::SyntheticConfig;
use vlbr_traces::vlt::Trace;

use crate::common::trace;

fn run(
    input: &BranchInput<'_>,
    predictor: &str,
    change: impl Fn(&mut BranchOptions),
) -> BranchReport {
    let mut options = BranchOptions {
        predictor: predictors().named(predictor).expect("built in").clone(),
        shared: false,
        warmup: 0,
        limit: None,
        worst: 5,
    };
    change(&mut options);
    branches(input, &options, &mut |_| {}).expect("runs")
}

fn whole(trace: &Trace) -> BranchInput<'_> {
    BranchInput::Trace(trace, Region::whole())
}

fn synthetic(threads: u16, kernel: bool) -> Trace {
    let config = SyntheticConfig {
        threads,
        kernel,
        ..SyntheticConfig::with_seed(7)
    };
    trace(&config, 4, 30_000)
}

#[test]
fn every_branch_that_the_counters_count_is_predicted_but_far_ones() {
    let trace = synthetic(2, true);
    let report = run(&whole(&trace), "skylake", |_| {});
    let options = SessionOptions::new(Profile::named("skylake").expect("built in").clone());
    let events = "instructions,branches,br_inst_retired.conditional,br_inst_retired.near_taken,\
                  br_inst_retired.near_return";
    let stat = stat(&trace, &options, Some(events), false, 0, &mut |_| {}).expect("counted");
    let counts: Vec<u64> = stat.events.iter().map(|event| event.count).collect();
    let kind = |name: &str| {
        let found = report.kinds.iter().find(|kind| kind.kind == name);
        found.expect("a kind").clone()
    };
    assert_eq!(report.instructions, counts[0]);
    assert!(report.total.branches < counts[1], "there are far branches");
    assert_eq!(kind("conditional").branches, counts[2]);
    assert_eq!(report.total.taken, counts[3]);
    assert_eq!(kind("return").branches, counts[4]);
    assert!(report.far > 0);
    assert_eq!(report.unplaced, 0);
    let sum: u64 = report.kinds.iter().map(|kind| kind.mispredicted).sum();
    assert_eq!(report.total.mispredicted, sum);
}

#[test]
fn always_taken_mispredicts_what_is_not_taken() {
    let trace = synthetic(1, false);
    let report = run(&whole(&trace), "always-taken", |options| {
        options.worst = usize::MAX
    });
    let conditional = &report.kinds[0];
    assert_eq!(
        conditional.mispredicted,
        conditional.branches - conditional.taken
    );
    // Each place with its own count.
    let conditional = report
        .worst
        .iter()
        .filter(|worst| worst.kind == "conditional");
    for worst in conditional {
        assert_eq!(
            worst.mispredicted,
            worst.branches - worst.taken,
            "{worst:?}"
        );
    }
    let of_places: u64 = report.worst.iter().map(|worst| worst.mispredicted).sum();
    assert_eq!(of_places, report.total.mispredicted);
    let order = report.worst.windows(2);
    assert!(
        order
            .into_iter()
            .all(|pair| pair[0].mispredicted >= pair[1].mispredicted)
    );
}

#[test]
fn warm_up_and_limit_cut_what_is_counted_and_nothing_else() {
    let trace = synthetic(1, false);
    let all = run(&whole(&trace), "skylake", |_| {});
    let first = run(&whole(&trace), "skylake", |options| {
        options.limit = Some(40_000)
    });
    assert!((40_000..40_100).contains(&first.instructions));
    let none = run(&whole(&trace), "skylake", |options| options.limit = Some(0));
    assert_eq!((none.instructions, none.total.branches), (0, 0));
    let rest = run(&whole(&trace), "skylake", |options| options.warmup = 40_000);
    assert_eq!(rest.warmup, first.instructions);
    assert_eq!(rest.instructions + first.instructions, all.instructions);
    for ((all, first), rest) in all.kinds.iter().zip(&first.kinds).zip(&rest.kinds) {
        assert_eq!(all.branches, first.branches + rest.branches);
        assert_eq!(all.mispredicted, first.mispredicted + rest.mispredicted);
        assert_eq!(all.btb_missed, first.btb_missed + rest.btb_missed);
    }
}

#[test]
fn threads_share_a_predictor_on_request_only() {
    let trace = synthetic(3, false);
    let own = run(&whole(&trace), "skylake", |_| {});
    let shared = run(&whole(&trace), "skylake", |options| options.shared = true);
    assert_eq!(own.total.branches, shared.total.branches);
    // The threads run one program, so together they meet each branch for the first time once.
    assert!(shared.total.btb_missed < own.total.btb_missed);
}

/// What the simulator of the championship would read of a file.
fn read(path: &Path) -> Vec<vlbr_traces::cbp::Instruction> {
    let bytes = std::fs::read(path).expect("written");
    let mut reader = Reader::new(&bytes[..]);
    std::iter::from_fn(|| reader.next_instruction().expect("a trace")).collect()
}

#[test]
fn an_exported_trace_has_the_same_branches_and_is_mispredicted_alike() {
    let trace = synthetic(1, true);
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("out.gz");
    let written = export_cbp(&whole(&trace), None, &path, &mut |_| {}).expect("exported");
    let instructions = read(&path);
    assert_eq!(written, instructions.len() as u64);
    let conditional = instructions
        .iter()
        .filter(|i| i.class == Class::Conditional);
    // One is taken for one that was not if the next address is four bytes on.
    for instruction in conditional.clone() {
        assert_ne!(instruction.target, Some(instruction.address + 4));
    }
    let here = BranchInput::Cbp(path.clone());
    let (native, exported) = (
        run(&whole(&trace), "bimodal", |_| {}),
        run(&here, "bimodal", |_| {}),
    );
    assert_eq!(native.instructions, exported.instructions);
    assert_eq!(conditional.count() as u64, exported.kinds[0].branches);
    for (native, exported) in native.kinds.iter().zip(&exported.kinds) {
        assert_eq!(
            (native.branches, native.taken),
            (exported.branches, exported.taken)
        );
    }
    // Last targets are the same ones wherever they lie, and calls return behind themselves.
    for kind in 3..=5 {
        assert_eq!(
            native.kinds[kind].mispredicted,
            exported.kinds[kind].mispredicted
        );
    }
    assert!(native.kinds[5].branches > 1000);
    let limited = export_cbp(&whole(&trace), Some(1000), &path, &mut |_| {}).expect("exported");
    assert!((1000..1100).contains(&limited));
    assert_eq!(read(&path).len() as u64, limited);
}
