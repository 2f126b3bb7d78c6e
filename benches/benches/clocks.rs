//! Timing models alone: the steps of a corpus trace through a clock, without LBR and counters.
//!
//! Throughput is in instructions. `bound` looks up a number; `scoreboard` is the retirement scoreboard with branches
//! as recorded, `predicted` the same with the predictor of Skylake.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vlbr_cpu::{StepClock, StepId};
use vlbr_timing::predict::predictors;
use vlbr_timing::{Mispredicts, StepBounds, StepPrograms, microarchitectures};
use vlbr_traces::vlt::{ChunkBuffer, OpenOptions, Trace};

/// Steps that are timed.
const STEPS: usize = 400_000;

fn clocks(criterion: &mut Criterion) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/sqlite.vlt");
    let trace = Trace::open(&path, OpenOptions::default()).expect("a trace of the corpus");
    let code = trace.code();
    let mut buffer = ChunkBuffer::default();
    let mut steps: Vec<StepId> = Vec::new();
    for index in 0..trace.chunks().len() {
        if steps.len() >= STEPS {
            break;
        }
        let chunk = trace.decode(index, &mut buffer).expect("a whole trace");
        let ids = 0..chunk.ids.len();
        steps.extend(ids.map(|position| chunk.map[chunk.ids.local(position)]));
    }
    steps.truncate(STEPS);
    let instructions: u64 = steps
        .iter()
        .map(|&step| u64::from(code.step(step).retired))
        .sum();
    let core = microarchitectures().named("skylake").expect("built in");
    let mut group = criterion.benchmark_group("clocks");
    group.throughput(Throughput::Elements(instructions));
    group.sample_size(10);

    let bounds = StepBounds::new(core, code);
    group.bench_function("bound", |b| {
        b.iter(|| run(bounds.clock(), code, black_box(&steps)));
    });
    for (name, mispredicts) in [
        ("scoreboard", Mispredicts::Recorded),
        (
            "predicted",
            Mispredicts::Predicted(predictors().named("skylake").expect("built in").clone()),
        ),
    ] {
        let programs = StepPrograms::new(core, code, &mispredicts).expect("instructions");
        group.bench_function(name, |b| {
            b.iter(|| run(programs.clock(), code, black_box(&steps)));
        });
    }
    group.finish();
}

fn run(mut clock: impl StepClock, code: &vlbr_cpu::Code, steps: &[StepId]) -> u64 {
    let mut end = 0;
    for &step in steps {
        end = clock.retire(code, step).end.value();
    }
    end
}

criterion_group!(benches, clocks);
criterion_main!(benches);
