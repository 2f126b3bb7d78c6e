//! The hot paths: steps through the LBR and the sampling counter.
//!
//! `steps/*`: 2^20 steps of a program of loops and calls (4.8 instructions a step), from local ids
//! in memory. Throughput is in steps.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vlbr_arch::BranchClass;
use vlbr_cpu::run::{
    Costs, Counting, Deferred, Eager, Lane, Op, Plan, RawRecord, Samples, Schedule, StepIds, Store,
};
use vlbr_cpu::{Block, Clock, Code, Exit, Interner, Mode, Step, StepId, Target};
use vlbr_pmu::{Selector, SourceSet};

/// `count` steps: blocks of 1 to 8 instructions, ending in a jump, call, return or nothing.
fn code(count: u64) -> Code {
    let mut interner = Interner::new();
    for index in 0..count {
        let mut bytes = vec![0x90; (index * 7 % 8) as usize];
        match index % 5 {
            0 => bytes.extend([0xeb, 0x10]),
            1 => bytes.extend([0xe8, 0, 1, 0, 0]),
            2 => bytes.push(0xc3),
            _ => bytes.push(0x90),
        }
        let block = Block::decode(0x40_0000 + index * 64, Mode::user64(0), &bytes)
            .expect("the bytes above are instructions");
        let retired = block.instructions();
        let exit = match block.branch() {
            None => Exit::Sequential,
            Some(branch) => {
                let mode = block.mode();
                let target = Target {
                    address: branch.target.unwrap_or(0x40_0000),
                    cs_base: 0,
                    code_size: mode.code_size,
                    cpl: mode.cpl,
                };
                Exit::Taken {
                    target,
                    mispredicted: false,
                    in_tx: false,
                }
            }
        };
        let block = interner.block(block).expect("few blocks");
        interner
            .step(Step {
                block,
                retired,
                exit,
            })
            .expect("steps fit their blocks");
    }
    interner.into_code()
}

/// Loops over windows of the code, as programs do.
fn sequence(steps: u16, length: usize) -> Vec<u16> {
    let mut ids = Vec::with_capacity(length);
    let mut random = 88_172_645_463_325_252_u64;
    while ids.len() < length {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let start = (random % u64::from(steps)) as u16;
        let width = 3 + (random >> 32) as u16 % 40;
        for _ in 0..1 + (random >> 48) % 6 {
            ids.extend((0..width).map(|i| (start + i) % steps));
        }
    }
    ids.truncate(length);
    ids
}

fn hot_loop(criterion: &mut Criterion) {
    let code = code(4000);
    let map: Vec<StepId> = (0..code.steps().len() as u32).map(StepId).collect();
    let ids = sequence(map.len() as u16, 1 << 20);
    let selector = |sources| Selector {
        sources,
        kernel: true,
        user: true,
        in_tx: false,
        any_thread: false,
    };
    let near = Counting::sampled(selector(SourceSet::NEAR_TAKEN));
    let named = |name| selector(SourceSet::from_name(name).expect("known source"));
    let seven = Counting {
        others: vec![
            named("instructions"),
            named("branches"),
            named("near-return"),
            named("near-call"),
            named("core-cycles"),
            named("reference-cycles"),
        ],
        clock: Clock::Instructions,
        ..near.clone()
    };
    let class = |class: BranchClass, call_stack: bool| match class {
        BranchClass::NearRet if call_stack => Op::Pop,
        BranchClass::NearRelJmp if call_stack => Op::Ignore,
        _ => Op::Push,
    };
    // A cycle and a part of one for every step.
    let costs = (0..code.steps().len() as u32).map(|step| 64 + step % 61);
    let timed = Counting {
        costs: Some(Costs {
            steps: costs.collect(),
            records: true,
        }),
        ..near.clone()
    };
    let timed = Plan::new(&code, 32, &timed, |t| class(t.class, false)).expect("a plan");
    let every = Plan::new(&code, 32, &near, |t| class(t.class, false)).expect("a plan");
    let counted = Plan::new(&code, 32, &seven, |t| class(t.class, false)).expect("a plan");
    let calls = Plan::new(&code, 32, &near, |t| class(t.class, true)).expect("a plan");
    let records: Vec<RawRecord> = map
        .iter()
        .map(|&id| {
            code.transfer(id)
                .map_or_else(RawRecord::default, |t| RawRecord {
                    from: t.from,
                    to: t.to,
                    info: 0,
                })
        })
        .collect();
    let mut group = criterion.benchmark_group("steps");
    group.throughput(Throughput::Elements(ids.len() as u64));
    let mut lane = Lane::new();
    let mut samples = Samples::default();
    let schedule = Some(Schedule::every(997));
    fn run<S: Store>(
        lane: &mut Lane,
        samples: &mut Samples,
        plan: &Plan,
        map: &[StepId],
        ids: &[u16],
        schedule: Option<Schedule>,
        store: &mut S,
    ) -> u64 {
        samples.clear();
        let run = lane.run(
            plan,
            map,
            StepIds::U16(black_box(ids)),
            schedule,
            store,
            samples,
        );
        run.expect("ids are in range").totals.pushes
    }
    group.bench_function("deferred", |b| {
        b.iter(|| {
            run(
                &mut lane,
                &mut samples,
                &every,
                &map,
                &ids,
                schedule,
                &mut Deferred,
            )
        });
    });
    group.bench_function("timed", |b| {
        b.iter(|| {
            run(
                &mut lane,
                &mut samples,
                &timed,
                &map,
                &ids,
                schedule,
                &mut Deferred,
            )
        });
    });
    group.bench_function("seven-counters", |b| {
        b.iter(|| {
            run(
                &mut lane,
                &mut samples,
                &counted,
                &map,
                &ids,
                schedule,
                &mut Deferred,
            )
        });
    });
    group.bench_function("eager", |b| {
        let mut eager = Eager::new(&records);
        b.iter(|| {
            run(
                &mut lane,
                &mut samples,
                &every,
                &map,
                &ids,
                schedule,
                &mut eager,
            )
        });
    });
    group.bench_function("call-stack", |b| {
        b.iter(|| {
            run(
                &mut lane,
                &mut samples,
                &calls,
                &map,
                &ids,
                schedule,
                &mut Deferred,
            )
        });
    });
    group.bench_function("no-samples", |b| {
        b.iter(|| {
            run(
                &mut lane,
                &mut samples,
                &every,
                &map,
                &ids,
                None,
                &mut Deferred,
            )
        });
    });
    group.finish();
}

criterion_group!(benches, hot_loop);
criterion_main!(benches);
