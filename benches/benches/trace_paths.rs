//! From a file to the device: chunks packed and unpacked, blocks decoded, transfers into the LBR.
//!
//! On the bundled recording of SQLite. Throughput is in instructions for `chunk/*`, in bytes of code
//! for `block/*`, in transfers for `device/*`.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vlbr_arch::{Cycles, Msr, Transfer};
use vlbr_cpu::{Block, StepId};
use vlbr_lbr::{Lbr, Options, Profile};
use vlbr_traces::vlt::{
    ChunkBuffer, ChunkEncoder, OpenOptions, RECORDING_LEVEL, SideStreams, Trace,
};

/// A chunk in the middle, where the benchmark is past its start.
const CHUNK: usize = 6;

fn trace() -> Trace {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/sqlite.vlt");
    Trace::open(&path, OpenOptions::default()).expect("the bundled trace")
}

fn steps(trace: &Trace) -> Vec<StepId> {
    let mut buffer = ChunkBuffer::new();
    let chunk = trace.decode(CHUNK, &mut buffer).expect("a chunk");
    chunk.steps().collect()
}

fn chunk(criterion: &mut Criterion) {
    let trace = trace();
    let info = trace.chunks()[CHUNK];
    let steps = steps(&trace);
    let mut group = criterion.benchmark_group("chunk");
    group.throughput(Throughput::Elements(info.counts.instructions.total()));
    let mut buffer = ChunkBuffer::new();
    group.bench_function("decode", |b| {
        b.iter(|| {
            let chunk = trace.decode(CHUNK, &mut buffer).expect("a chunk");
            chunk.ids.len()
        });
    });
    let mut encoder = ChunkEncoder::new(RECORDING_LEVEL);
    group.sample_size(20);
    group.bench_function("encode", |b| {
        b.iter(|| {
            let sides = SideStreams::default();
            let encoded = encoder.encode(info.thread, black_box(&steps), trace.code(), &sides);
            encoded.expect("steps of the trace").size()
        });
    });
    group.finish();
}

fn block(criterion: &mut Criterion) {
    let trace = trace();
    let blocks = trace.code().blocks();
    let bytes = blocks.iter().map(|block| block.bytes().len() as u64).sum();
    let mut group = criterion.benchmark_group("block");
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function("decode", |b| {
        b.iter(|| {
            let decoded = blocks.iter().filter(|block| {
                Block::decode(block.address(), block.mode(), block.bytes()).is_ok()
            });
            decoded.count()
        });
    });
    group.finish();
}

fn device(criterion: &mut Criterion) {
    let trace = trace();
    let code = trace.code();
    let transfers: Vec<Transfer> = steps(&trace)
        .into_iter()
        .filter_map(|step| code.transfer(step).copied())
        .collect();
    let mut group = criterion.benchmark_group("device");
    group.throughput(Throughput::Elements(transfers.len() as u64));
    let mut run = |name: &str, profile: &str, registers: &[(Msr, u64)]| {
        let profile = Profile::named(profile).expect("a profile");
        let mut lbr = Lbr::new(profile, Options::default());
        for &(msr, value) in registers {
            lbr.wrmsr(msr, value).expect("a value the device takes");
        }
        group.bench_function(name, |b| {
            b.iter(|| {
                for (now, transfer) in (0..).zip(&transfers) {
                    black_box(lbr.retire(transfer, Cycles::new(now)));
                }
            });
        });
    };
    run("skylake", "skylake", &[(Msr::DEBUGCTL, 1)]);
    // Call-stack mode for user code.
    let stack = [(Msr::LBR_SELECT, 0x3c5), (Msr::DEBUGCTL, 1)];
    run("skylake, call stack", "skylake", &stack);
    // LBREn, USR, and all kinds of branches.
    run(
        "architectural",
        "sapphire-rapids",
        &[(Msr::LBR_CTL, 0x7f_0005)],
    );
    group.finish();
}

criterion_group!(benches, chunk, block, device);
criterion_main!(benches);
