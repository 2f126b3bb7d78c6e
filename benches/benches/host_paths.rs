//! VM exits and entries under a policy, with the LBR on.
//!
//! `exits/*`: 20,000 exits of a guest that exits every ten instructions. Throughput is in exits.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vlbr_benches::exits::{run, scene};

fn exits(c: &mut Criterion) {
    let count = 20_000;
    let scene = scene(count).expect("the scene is one");
    let mut group = c.benchmark_group("exits");
    group.throughput(Throughput::Elements(count));
    group.sample_size(20);
    for policy in ["naive", "v8", "msr-list"] {
        for (way, msr_by_msr) in [("bulk", false), ("msr-by-msr", true)] {
            group.bench_function(format!("{policy}/{way}"), |b| {
                b.iter(|| black_box(run(&scene, policy, msr_by_msr).expect("it runs")));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, exits);
criterion_main!(benches);
