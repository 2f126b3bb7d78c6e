//! The hot loop against a literal walk over the same steps.

use proptest::prelude::*;
use vlbr_arch::{BranchClass, CodeSize, Cpl, FarKind};
use vlbr_cpu::run::{
    Counting, Deferred, Eager, EntryKind, EntryRef, Lane, Op, Plan, RawRecord, RunTotals, Samples,
    Schedule, Stack, StepIds, Tally,
};
use vlbr_cpu::{Block, Clock, Code, Exit, Feed, Interner, Mode, Step, StepId, Target};
use vlbr_pmu::{Increments, Selector, SourceSet};

fn target(address: u64, cpl: Cpl) -> Target {
    Target {
        address,
        cs_base: 0,
        code_size: CodeSize::Bits64,
        cpl,
    }
}

/// Steps of every kind: sequential, each branch class, cut blocks with events, empty blocks.
fn code() -> Code {
    let mut interner = Interner::new();
    let user = Mode::user64(0);
    let kernel = Mode {
        cpl: Cpl::Ring0,
        ..user
    };
    let bodies: [&[u8]; 9] = [
        &[0x90; 40],
        &[0x90, 0x90, 0x74, 0x10],
        &[0x90, 0xeb, 0x10],
        &[0x90, 0x90, 0x90, 0xe8, 0, 1, 0, 0],
        &[0xff, 0xd0],
        &[0x90, 0xc3],
        &[0x0f, 0x05],
        &[0x90, 0x90, 0x48, 0xcf],
        // Loads and stores, and one that is both.
        &[0x8b, 0x03, 0x89, 0x03, 0x90, 0x01, 0x03, 0x50, 0x58],
    ];
    for (index, bytes) in bodies.iter().enumerate() {
        for mode in [user, kernel] {
            let address = 0x1000 * (index as u64 + 1);
            let block = Block::decode(address, mode, bytes).unwrap();
            let id = interner.block(block.clone()).unwrap();
            let whole = block.instructions();
            if let Some(branch) = block.branch() {
                let cpl = match branch.class {
                    BranchClass::Far(FarKind::Syscall) => Cpl::Ring0,
                    BranchClass::Far(_) => Cpl::Ring3,
                    _ => mode.cpl,
                };
                let to = target(branch.target.unwrap_or(0x9000), cpl);
                let exit = Exit::Taken {
                    target: to,
                    mispredicted: false,
                    in_tx: false,
                };
                interner
                    .step(Step {
                        block: id,
                        retired: whole,
                        exit,
                    })
                    .unwrap();
            }
            if block.branch().is_none_or(|b| b.class == BranchClass::Jcc) {
                let step = Step {
                    block: id,
                    retired: whole,
                    exit: Exit::Sequential,
                };
                interner.step(step).unwrap();
            }
            for retired in [0, whole / 2, whole] {
                let to = target(0xf000, Cpl::Ring0);
                let exit = Exit::Event {
                    kind: FarKind::Interrupt,
                    target: to,
                    in_tx: false,
                };
                interner
                    .step(Step {
                        block: id,
                        retired,
                        exit,
                    })
                    .unwrap();
            }
        }
    }
    interner.into_code()
}

fn verdict(code: &Code, step: StepId, call_stack: bool) -> Op {
    match code.transfer(step).map(|t| t.class) {
        None => Op::Ignore,
        Some(BranchClass::NearRelCall | BranchClass::NearIndCall) => Op::Push,
        Some(BranchClass::NearRet) if call_stack => Op::Pop,
        Some(_) if call_stack => Op::Ignore,
        Some(BranchClass::Jcc) => Op::Ignore,
        Some(_) => Op::Push,
    }
}

/// `sources[:u|k]`, several joined by `+`.
fn selector(text: &str) -> Selector {
    let (names, level) = text.split_once(':').unwrap_or((text, "uk"));
    let sources = names
        .split('+')
        .map(|name| SourceSet::from_name(name).unwrap());
    Selector {
        sources: sources.fold(SourceSet::EMPTY, SourceSet::with),
        kernel: level.contains('k'),
        user: level.contains('u'),
        in_tx: false,
        any_thread: false,
    }
}

const EVENTS: [&str; 12] = [
    "instructions",
    "instructions:u",
    "branches:k",
    "near-taken",
    "branches",
    "conditional-not-taken:u",
    "load-instructions",
    "store-instructions:k",
    "memory-instructions+near-call",
    "lbr-inserts",
    "lbr-inserts:u",
    "core-cycles:k",
];

/// A sample: step, instructions of it, whether behind its exit, instructions, events, entries, and
/// the counts of the other counters before the step.
type Seen = (StepId, u16, bool, u64, u64, Vec<EntryRef>, Vec<u64>);

/// One instruction at a time.
fn literal(
    code: &Code,
    steps: &[StepId],
    counting: &Counting,
    call_stack: bool,
    depth: u8,
    period: u64,
) -> (Vec<Seen>, Stack, Vec<u64>) {
    let mut stack = Stack::empty(depth);
    let sampled = counting.sampled.unwrap();
    let feed = Feed::new(code, counting.sources(), counting.clock);
    let (mut seen, mut instructions, mut events) = (Vec::new(), 0_u64, 0_u64);
    let mut others = vec![0; counting.others.len()];
    for &id in steps {
        let step = code.step(id);
        let is_event = matches!(step.exit, Exit::Event { .. });
        let op = verdict(code, id, call_stack);
        let inserts = counting.inserts(op);
        let mut at_end = Vec::new();
        let mut before = Increments::new();
        for done in 1..=step.retired {
            instructions += 1;
            let now = feed.through(id, done - 1, inserts);
            for _ in sampled.amount(&before)..sampled.amount(&now) {
                events += 1;
                if events % period == 0 {
                    if done == step.retired && !is_event {
                        at_end.push(events);
                    } else {
                        let entries = stack.entries().to_vec();
                        let counts = others.clone();
                        seen.push((id, done, false, instructions, events, entries, counts));
                    }
                }
            }
            before = now;
        }
        match op {
            Op::Push => stack.push(EntryRef::step(id)),
            Op::Pop => stack.pop(),
            Op::Ignore => {}
        }
        let whole = feed.step(id, inserts);
        // The record of an event that leaves the step.
        for _ in sampled.amount(&before)..sampled.amount(&whole) {
            events += 1;
            if events % period == 0 {
                at_end.push(events);
            }
        }
        for events in at_end {
            let (entries, counts) = (stack.entries().to_vec(), others.clone());
            seen.push((
                id,
                step.retired,
                true,
                instructions,
                events,
                entries,
                counts,
            ));
        }
        for (count, selector) in others.iter_mut().zip(&counting.others) {
            *count += selector.amount(&whole);
        }
    }
    (seen, stack, others)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_split_into_runs_equals_the_literal_walk(
        picks in prop::collection::vec(0usize..1000, 0..600),
        cuts in prop::collection::vec(0usize..600, 0..4),
        event in prop::sample::select(EVENTS.to_vec()),
        others in prop::sample::subsequence(EVENTS.to_vec(), 0..=EVENTS.len()),
        call_stack in any::<bool>(),
        depth in prop::sample::select(vec![1u8, 4, 8, 16, 32]),
        period in 1u64..60,
        wide in any::<bool>(),
        limit in prop::sample::select(vec![1, 2, 9, usize::MAX]),
    ) {
        let code = code();
        let counting = Counting {
            others: others.into_iter().map(selector).collect(),
            clock: Clock::Instructions,
            ..Counting::sampled(selector(event))
        };
        let steps: Vec<StepId> =
            picks.iter().map(|p| StepId((p % code.steps().len()) as u32)).collect();
        let (expected, end, counts) = literal(&code, &steps, &counting, call_stack, depth, period);

        let mut index = 0;
        let plan = Plan::new(&code, depth, &counting, |_| {
            // Transfers come in the order of the steps that have one.
            while code.transfer(StepId(index)).is_none() { index += 1; }
            index += 1;
            verdict(&code, StepId(index - 1), call_stack)
        }).unwrap();
        let map: Vec<StepId> = (0..code.steps().len() as u32).map(StepId).collect();
        let mut bounds: Vec<usize> = cuts.iter().map(|c| c % (steps.len() + 1)).collect();
        bounds.extend([0, steps.len()]);
        bounds.sort_unstable();

        let (mut lane, mut samples) = (Lane::new(), Samples::with_limit(limit));
        let (mut carry, mut seen, mut instructions) = (Stack::empty(depth), Vec::new(), 0);
        let (mut events, mut others) = (0, vec![0; counting.others.len()]);
        let mut schedule = Schedule::every(period);
        for pair in bounds.windows(2) {
            let narrow: Vec<u16> = steps[pair[0]..pair[1]].iter().map(|s| s.0 as u16).collect();
            let broad: Vec<u32> = steps[pair[0]..pair[1]].iter().map(|s| s.0).collect();
            let ids = if wide { StepIds::U32(&broad) } else { StepIds::U16(&narrow) };
            let counted = lane.count(&plan, &map, ids).unwrap();
            prop_assert_eq!(counted.steps, ids.len());
            let (mut done, mut sums) = (0, (0, 0));
            loop {
                samples.clear();
                let rest = ids.slice(done, ids.len());
                let ran = lane
                    .run(&plan, &map, rest, Some(schedule), &mut Deferred, &mut samples)
                    .unwrap();
                let (totals, end) = (ran.totals, ran.stack);
                done += totals.steps;
                sums = (sums.0 + totals.instructions, sums.1 + totals.events);
                for (sample, entries, counts) in samples.iter() {
                    let entries = entries.iter().map(|&e| carry.resolve_entry(e)).collect();
                    let counts = counts.iter().zip(&others).map(|(now, base)| now + base).collect();
                    seen.push((sample.step, sample.retired, sample.after_exit,
                        instructions + sample.instructions, events + sample.events, entries,
                        counts));
                    prop_assert_eq!((sample.period, sample.next_period), (period, period));
                }
                prop_assert_eq!(end.net(), totals.pushes as i64 - totals.pops as i64);
                let overflows = (events + totals.events) / period - events / period;
                prop_assert_eq!(overflows, samples.len() as u64);
                schedule = ran.schedule.unwrap();
                events += totals.events;
                prop_assert_eq!(schedule.first, period - events % period);
                for (count, more) in others.iter_mut().zip(totals.counts) {
                    *count += more;
                }
                // Only the last step may go beyond the limit: no block here is longer.
                prop_assert!(samples.len() < limit.saturating_add(81));
                carry = carry.resolve(&end);
                instructions += totals.instructions;
                if done == ids.len() {
                    break;
                }
                prop_assert!(samples.len() >= limit);
            }
            prop_assert_eq!((counted.instructions, counted.events), sums);
        }
        prop_assert_eq!(seen, expected);
        prop_assert_eq!(others, counts);
        prop_assert_eq!(carry.entries(), end.entries());
        prop_assert_eq!(carry.net(), end.net());
    }

    #[test]
    fn eager_records_are_what_the_references_name(picks in prop::collection::vec(0usize..1000, 1..300)) {
        let code = code();
        let steps: Vec<u16> = picks.iter().map(|p| (p % code.steps().len()) as u16).collect();
        let plan = Plan::new(&code, 32, &Counting::default(), |_| Op::Push).unwrap();
        let map: Vec<StepId> = (0..code.steps().len() as u32).map(StepId).collect();
        let records: Vec<RawRecord> = map.iter().map(|&id| RawRecord {
            from: u64::from(id.0) + 1, to: code.transfer(id).map_or(0, |t| t.to), info: 7,
        }).collect();
        let mut eager = Eager::new(&records);
        let ran = Lane::new()
            .run(&plan, &map, StepIds::U16(&steps), None, &mut eager, &mut Samples::default())
            .unwrap();
        for (back, entry) in ran.stack.entries().iter().enumerate() {
            if let EntryKind::Step(id) = entry.kind() {
                prop_assert_eq!(eager.record(ran.totals.pushes as usize, back), records[id.0 as usize]);
            }
        }
    }

    /// Steps that are lent, and steps asked for one by one, add up to what each of them counts, and no
    /// more events are lent than were allowed.
    #[test]
    fn steps_lent_add_up_to_what_they_count(
        picks in prop::collection::vec((0usize..1000, 0usize..2), 0..6000),
        mosts in prop::collection::vec((any::<bool>(), prop_oneof![0u64..200, 0u64..9000]), 1..12),
        event in prop_oneof![
            3 => prop::sample::select(EVENTS.to_vec()),
            1 => Just("mispredicted-branches"),
        ],
        others in prop::sample::subsequence(EVENTS.to_vec(), 0..=EVENTS.len()),
    ) {
        let code = code();
        let mut counting = Counting {
            others: others.into_iter().map(selector).collect(),
            clock: Clock::Instructions,
            ..Counting::sampled(selector(event))
        };
        counting.others.push(selector("mispredicted-branches"));
        let feed = Feed::new(&code, counting.sources(), counting.clock);
        let plans = [false, true].map(|mispredicted| {
            let counting = Counting { mispredicted: Some(mispredicted), ..counting.clone() };
            Plan::new(&code, 32, &counting, |_| Op::Push).unwrap()
        });
        let plans = plans.each_ref();

        let mut expected = RunTotals::default();
        let (mut tally, mut seen) = (Tally::default(), RunTotals::default());
        let amounts = |expected: &RunTotals, (pick, side): (usize, usize)| {
            let id = StepId((pick % code.steps().len()) as u32);
            let op = code.transfer(id).map_or(Op::Ignore, |_| Op::Push);
            let increments = feed.step_as(id, counting.inserts(op), side == 1);
            let events = counting.sampled.as_ref().unwrap().amount(&increments);
            let mut more = *expected;
            more.steps += 1;
            more.instructions += u64::from(code.step(id).retired);
            more.events += events;
            for (count, selector) in more.counts.iter_mut().zip(&counting.others) {
                *count += selector.amount(&increments);
            }
            (id, side, events, more)
        };
        let mut picks = picks.into_iter().peekable();
        for (lend, most) in mosts.into_iter().cycle().take(5000) {
            if lend {
                tally.lend(plans, most);
                let mut lent = 0;
                while let Some(&pick) = picks.peek() {
                    let (id, side, counted, more) = amounts(&expected, pick);
                    if !tally.add_lent(plans[side], side, id) {
                        break;
                    }
                    (expected, lent) = (more, lent + counted);
                    picks.next();
                }
                prop_assert!(lent <= most);
                prop_assert_eq!(tally.reclaim(plans), lent);
                prop_assert!(!tally.add_lent(plans[0], 0, StepId(0)), "taken back");
            } else {
                for _ in 0..=most {
                    let Some(&pick) = picks.peek() else { break };
                    let (id, side, counted, more) = amounts(&expected, pick);
                    let added = tally.add_within(plans, side, id, most);
                    prop_assert_eq!(added, (counted <= most).then_some(counted));
                    if added.is_none() {
                        break;
                    }
                    expected = more;
                    picks.next();
                }
            }
            if most % 16 == 0 {
                add(&mut seen, &tally.take(plans));
                prop_assert_eq!(seen, expected);
            }
        }
        add(&mut seen, &tally.take(plans));
        prop_assert_eq!(seen, expected);
        prop_assert_eq!(tally.take(plans), RunTotals::default());
    }
}

/// Adds one part of a run to another.
fn add(sum: &mut RunTotals, part: &RunTotals) {
    sum.steps += part.steps;
    sum.instructions += part.instructions;
    sum.events += part.events;
    for (sum, part) in sum.counts.iter_mut().zip(part.counts) {
        *sum += part;
    }
}

#[test]
fn ids_outside_the_table_are_refused() {
    let code = code();
    let plan = Plan::new(&code, 32, &Counting::default(), |_| Op::Push).unwrap();
    let mut lane = Lane::new();
    for ids in [StepIds::U16(&[0, 9]), StepIds::U32(&[0, 9])] {
        let result = lane.run(
            &plan,
            &[StepId(0)],
            ids,
            None,
            &mut Deferred,
            &mut Samples::default(),
        );
        assert!(result.is_err());
        assert!(lane.count(&plan, &[StepId(0)], ids).is_err());
    }
    let unknown = [StepId(1 << 20)];
    assert!(lane.count(&plan, &unknown, StepIds::U16(&[0])).is_err());
}
