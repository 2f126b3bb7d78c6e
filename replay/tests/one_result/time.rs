//! Everything that shows time is made of one clock: cycle fields of records, counters of clocks, times
//! of samples.

use std::num::{NonZeroU32, NonZeroU64};

use proptest::prelude::*;
use vlbr_arch::Cycles;
use vlbr_cpu::run::Sample;
use vlbr_cpu::{Clock, Code, StepClock, StepId, StepTime};
use vlbr_host::perf::parse_branch_filter;
use vlbr_lbr::{Profile, Verdict};
use vlbr_replay::{
    Consumer, Mispredictions, Rates, ReplayError, Session, SessionOptions, Summary, TimingModel,
    TimingOptions,
};
use vlbr_timing::predict::predictors;
use vlbr_timing::{Mispredicts, StepBounds, StepPrograms, microarchitectures};
use vlbr_traces::perfdata::SampleRecord;
use vlbr_traces::synthetic::SyntheticConfig;
use vlbr_traces::vlt::{ChunkBuffer, Trace};

use crate::{common, replay};

/// A clock that does whatever the rules of [`StepClock`] allow.
#[derive(Clone, Debug)]
struct Erratic {
    state: u64,
    now: u64,
    /// End of the last step that made a transfer.
    transferred: u64,
    retired: Vec<u64>,
}

impl Erratic {
    fn new(seed: u64) -> Self {
        Self {
            state: seed,
            now: 0,
            transferred: 0,
            retired: Vec::new(),
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.state >> 33) % below
    }
}

impl StepClock for Erratic {
    fn retire(&mut self, code: &Code, step: StepId) -> StepTime {
        self.retired.clear();
        for _ in 0..code.step(step).retired {
            // Bursts, waits, and now and then a wait that no field holds.
            self.now += match self.draw(40) {
                0..30 => 0,
                30..38 => self.draw(4),
                38 => self.draw(300),
                _ => self.draw(3000) * self.draw(60),
            };
            self.retired.push(self.now);
        }
        if code.transfer(step).is_some() {
            if self.now <= self.transferred {
                self.now = self.transferred + 1;
                let by_event = matches!(code.step(step).exit, vlbr_cpu::Exit::Event { .. });
                if let (false, Some(last)) = (by_event, self.retired.last_mut()) {
                    *last = self.now;
                }
            }
            self.transferred = self.now;
        }
        let mispredicted = code.retires_branch(step) && self.draw(5) == 0;
        StepTime {
            end: Cycles::new(self.now),
            mispredicted,
        }
    }

    fn retired_at(&self, index: u16) -> Cycles {
        Cycles::new(self.retired[usize::from(index)])
    }

    fn pass(&mut self, until: Cycles) {
        self.now = self.now.max(until.value());
    }
}

/// Runs the trace a second time, step by step and with a clock of its own, and holds every sample
/// against it.
struct Witness<'a, C> {
    trace: &'a Trace,
    session: &'a Session<'a>,
    rates: Rates,
    threads: Vec<Seen<C>>,
    steps: Vec<StepId>,
    thread: usize,
    position: usize,
    /// Instructions of the chunk behind the last step.
    instructions: u64,
    clocks_before: u64,
    chunk_start: u64,
    buffer: ChunkBuffer,
    last_time: u64,
    samples: usize,
    longest: u16,
}

#[derive(Clone)]
struct Seen<C> {
    clock: C,
    now: u64,
    /// Times and predictions of all records.
    records: Vec<(u64, u64, u64, bool)>,
    /// Core clocks at CPL 0 and above.
    levels: [u64; 2],
}

impl<'a, C: StepClock> Witness<'a, C> {
    fn new(session: &'a Session<'a>, clock: &C, rates: Rates) -> Self {
        let trace = session.trace();
        let seen = Seen {
            clock: clock.clone(),
            now: 0,
            records: Vec::new(),
            levels: [0; 2],
        };
        Self {
            trace,
            session,
            rates,
            threads: vec![seen; trace.threads().len()],
            steps: Vec::new(),
            thread: 0,
            position: 0,
            instructions: 0,
            clocks_before: 0,
            chunk_start: 0,
            buffer: ChunkBuffer::default(),
            last_time: 0,
            samples: 0,
            longest: 0,
        }
    }

    /// Runs the next step, or looks at it up to the sample `hold`: the time then, and core clocks by level.
    fn next(&mut self, hold: Option<&Sample>) -> (u64, [u64; 2]) {
        let code = self.trace.code();
        let id = self.steps[self.position];
        let mut clock = self.threads[self.thread].clock.clone();
        let seen = &mut self.threads[self.thread];
        let start = seen.now;
        let time = clock.retire(code, id);
        let level = usize::from(code.is_user(id));
        if let Some(sample) = hold
            && !sample.after_exit
        {
            let now = clock.retired_at(sample.retired - 1).value();
            let mut levels = seen.levels;
            levels[level] += now - start;
            return (now, levels);
        }
        let end = time.end.value();
        let by_event = matches!(code.step(id).exit, vlbr_cpu::Exit::Event { .. });
        let mut levels = seen.levels;
        levels[level] += end - start;
        let record = code
            .transfer(id)
            .filter(|transfer| self.session.lbr().lbr().verdict(transfer) == Verdict::Push);
        if let Some(transfer) = record {
            let mispredicted = match by_event {
                true => transfer.mispredicted,
                false => time.mispredicted,
            };
            seen.records
                .push((transfer.from, transfer.to, end, mispredicted));
        }
        if hold.is_none() {
            seen.clock = clock;
            seen.now = end;
            seen.levels = levels;
            self.instructions += u64::from(code.step(id).retired);
            self.position += 1;
        }
        (end, levels)
    }

    fn finish_chunk(&mut self) {
        while self.position < self.steps.len() {
            self.next(None);
        }
        self.clocks_before += self.threads[self.thread].now - self.chunk_start;
    }
}

impl<C: StepClock> Consumer for Witness<'_, C> {
    fn chunk(&mut self, chunk: usize, time_ns: u64) -> Result<(), ReplayError> {
        self.finish_chunk();
        let decoded = self.trace.decode(chunk, &mut self.buffer)?;
        let ids = decoded.ids;
        self.steps = (0..ids.len())
            .map(|at| decoded.map[ids.local(at)])
            .collect();
        self.thread = self.trace.chunks()[chunk].thread.0 as usize;
        (self.position, self.instructions) = (0, 0);
        self.chunk_start = self.threads[self.thread].now;
        let expected = self.rates.nanoseconds(Cycles::new(self.clocks_before));
        assert_eq!(time_ns, expected, "chunk {chunk}");
        Ok(())
    }

    fn sample(&mut self, record: &SampleRecord<'_>, at: &Sample) -> Result<(), ReplayError> {
        while self.steps[self.position] != at.step
            || self.instructions + u64::from(at.retired) != at.instructions
        {
            self.next(None);
        }
        let made = self.threads[self.thread].records.len();
        let (now, levels) = self.next(Some(at));
        let clocks = self.clocks_before + now - self.chunk_start;
        assert_eq!(record.time_ns, self.rates.nanoseconds(Cycles::new(clocks)));
        assert!(record.time_ns >= self.last_time, "time goes back");
        self.last_time = record.time_ns;
        // The group: the sampled event, cycles:u, cycles:k, ref-cycles.
        if let [first, user, kernel, ref rest @ ..] = *record.counts {
            assert_eq!([kernel, user], levels);
            assert_eq!(user + kernel, now, "core clocks are the time");
            let reference = rest.first().copied().unwrap_or(first);
            assert_eq!(reference, self.rates.reference(Cycles::new(now)), "the TSC");
        }
        let records = &self.threads[self.thread].records;
        for (back, entry) in record.branches.iter().enumerate() {
            let Some(index) = records.len().checked_sub(1 + back) else {
                assert_eq!((entry.from, entry.to), (0, 0));
                continue;
            };
            let (from, to, time, mispredicted) = records[index];
            assert_eq!((entry.from, entry.to), (from, to));
            let elapsed = match index.checked_sub(1) {
                Some(older) => (time - records[older].2).min(0xffff) as u16,
                None => 0,
            };
            assert_eq!(entry.flags.cycles, elapsed, "record {back}");
            assert_eq!(entry.flags.mispred, mispredicted, "record {back}");
            assert!(index == 0 || elapsed > 0);
            self.longest = self.longest.max(elapsed);
        }
        // What the witness looked ahead it will see again.
        self.threads[self.thread].records.truncate(made);
        self.samples += 1;
        Ok(())
    }
}

fn trace(seed: u64, kernel: bool) -> Trace {
    let config = SyntheticConfig {
        threads: 2,
        one_in_interrupted: 60,
        one_in_mispredicted: 9,
        kernel,
        ..SyntheticConfig::with_seed(seed)
    };
    common::trace(&config, 4, 5_000)
}

fn options(event: &str, period: u64, rates: Rates) -> SessionOptions {
    let mut options = SessionOptions::new(Profile::named("skylake").unwrap().clone());
    options.branches = parse_branch_filter("any,u,k").unwrap();
    options.event = Some(event.to_owned());
    options.period = NonZeroU64::new(period);
    options.jobs = 1;
    options.timing.rates = rates;
    options
}

fn rates(core: u32, tsc: u32) -> Rates {
    Rates {
        core_mhz: NonZeroU32::new(core).unwrap(),
        tsc_mhz: NonZeroU32::new(tsc).unwrap(),
    }
}

/// What the end of a replay says of time, against the witness.
fn check_end<C: StepClock>(summary: &Summary, witness: &mut Witness<'_, C>) {
    witness.finish_chunk();
    for (thread, seen) in summary.threads.iter().zip(&witness.threads) {
        assert_eq!(thread.cycles, Some(seen.now));
        if let [first, user, kernel, ref rest @ ..] = *thread.counts {
            assert_eq!([kernel, user], seen.levels);
            let reference = rest.first().copied().unwrap_or(first);
            assert_eq!(reference, witness.rates.reference(Cycles::new(seen.now)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn nothing_that_shows_time_contradicts_the_clock(
        seed in any::<u64>(),
        event in prop::sample::select(vec![
            "instructions", "cycles", "cycles:u", "ref-cycles", "branches",
            "br_inst_retired.near_taken", "br_misp_retired.all_branches", "mem_inst_retired.all_loads",
        ]),
        period in 20_u64..200,
        core_mhz in 900_u32..4000,
        tsc_mhz in 900_u32..4000,
    ) {
        let trace = trace(seed & 7, true);
        let rates = rates(core_mhz, tsc_mhz);
        // One counter alone counts the TSC.
        let group = match event {
            "ref-cycles" => "{ref-cycles,cycles:u,cycles:k}:S".to_owned(),
            _ => format!("{{{event},cycles:u,cycles:k,ref-cycles}}:S"),
        };
        let mut options = options(&group, period, rates);
        options.clock = Clock::Model { predicts: true };
        let session = Session::new(&trace, options).unwrap();
        let clock = Erratic::new(seed);
        let mut witness = Witness::new(&session, &clock, rates);
        let summary = session.run_with(&clock, &mut witness, &mut |_| ()).unwrap();
        // A trace of the kernel alone has no clocks of user code.
        let counted = summary.threads.iter().map(|thread| thread.counts[0]).max();
        let due = counted.unwrap_or_default() >= period;
        prop_assert_eq!(witness.samples > 0, due, "{} samples", witness.samples);
        check_end(&summary, &mut witness);
    }
}

fn bounds(trace: &Trace) -> StepBounds {
    StepBounds::new(microarchitectures().named("skylake").unwrap(), trace.code())
}

#[test]
fn the_block_bound_in_the_hot_loop_does_not_contradict_its_clock() {
    for (seed, kernel) in [(1, true), (2, false)] {
        let trace = trace(seed, kernel);
        for event in ["instructions", "branches", "br_inst_retired.near_taken"] {
            for ordered in [false, true] {
                let rates = rates(3000, 2100);
                let mut options = options(event, 97, rates);
                options.timing.model = TimingModel::Bound;
                options.ordered = ordered;
                let session = Session::new(&trace, options).unwrap();
                assert_eq!(session.is_ordered(), ordered);
                let mut witness = Witness::new(&session, &bounds(&trace).clock(), rates);
                let summary = session.run(&mut witness, &mut |_| ()).unwrap();
                assert!(witness.samples > 30 && witness.longest > 1);
                check_end(&summary, &mut witness);
            }
        }
    }
}

#[test]
fn the_scoreboard_and_its_predictor_do_not_contradict_what_is_shown() {
    let trace = trace(5, true);
    let core = microarchitectures().named("skylake").unwrap();
    let predictor = predictors().named("skylake").unwrap().clone();
    for (mispredictions, mispredicts) in [
        (None, Mispredicts::Predicted(predictor)),
        (Some(Mispredictions::Recorded), Mispredicts::Recorded),
    ] {
        let clock = StepPrograms::new(core, trace.code(), &mispredicts).unwrap();
        for event in ["cycles:u", "branches", "br_misp_retired.all_branches"] {
            let group = format!("{{{event},cycles:u,cycles:k,ref-cycles}}:S");
            let rates = rates(2700, 2000);
            let mut options = options(&group, 83, rates);
            options.timing.model = TimingModel::Scoreboard;
            options.timing.mispredictions = mispredictions.clone();
            let session = match Session::new(&trace, options) {
                // Of branches that were not taken the trace knows nothing.
                Err(_) if mispredictions.is_some() && event.starts_with("br_misp") => continue,
                session => session.unwrap(),
            };
            let mut witness = Witness::new(&session, &clock.clock(), rates);
            let summary = session.run(&mut witness, &mut |_| ()).unwrap();
            assert!(witness.samples > 5 && witness.longest > 3, "{event}");
            check_end(&summary, &mut witness);
            for (thread, seen) in summary.threads.iter().zip(&witness.threads) {
                let slots = thread.slots.unwrap();
                assert_eq!(Some(slots), seen.clock.slots());
                assert!(slots.retiring > 0 && slots.bad_speculation > 0);
                let width = u64::from(core.parameters.issue);
                let missing = seen.now * width - slots.total().min(seen.now * width);
                assert!(missing <= width, "{slots:?} in {} cycles", seen.now);
            }
        }
    }
}

#[test]
fn the_block_bound_has_one_result_on_both_roads_and_any_number_of_threads() {
    let trace = trace(3, true);
    let bound = TimingOptions {
        model: TimingModel::Bound,
        core: Some("skylake".into()),
        ..TimingOptions::default()
    };
    let mut in_loop = 0;
    for profile in Profile::all() {
        for filter in [
            "any,u,k",
            "any_call,u",
            "cond,k",
            "any,u,no_cycles",
            "stack,u,k",
        ] {
            for event in ["instructions", "branches:u"] {
                let run = |ordered: bool, jobs: usize| {
                    replay(&trace, profile, filter, event, |options| {
                        options.timing = bound.clone();
                        options.ordered = ordered;
                        options.jobs = jobs;
                    })
                };
                let Ok((ordered, ordered_summary, _)) = run(true, 1) else {
                    assert!(filter.starts_with("stack"), "{} {filter}", profile.name());
                    continue;
                };
                for jobs in [1, 3] {
                    let (samples, summary, in_order) = run(false, jobs).unwrap();
                    assert!(samples == ordered, "{} {filter} {event}", profile.name());
                    assert_eq!(
                        summary,
                        ordered_summary,
                        "{} {filter} {event}",
                        profile.name()
                    );
                    in_loop += usize::from(!in_order);
                }
            }
        }
    }
    assert!(in_loop > 300, "{in_loop} in the hot loop");
}

#[test]
fn behind_a_warm_up_samples_and_counts_begin_and_the_lbr_is_full() {
    let trace = trace(4, true);
    let run = |warmup| {
        let mut options = options("instructions", 50, rates(1000, 1000));
        options.timing.warmup = warmup;
        options.timing.model = TimingModel::Bound;
        let session = Session::new(&trace, options).unwrap();
        struct First(Option<(u64, usize)>);
        impl Consumer for First {
            fn sample(
                &mut self,
                record: &SampleRecord<'_>,
                at: &Sample,
            ) -> Result<(), ReplayError> {
                let full = record
                    .branches
                    .iter()
                    .filter(|entry| entry.from != 0)
                    .count();
                self.0.get_or_insert((at.instructions, full));
                Ok(())
            }
        }
        let mut first = First(None);
        let summary = session.run(&mut first, &mut |_| ()).unwrap();
        (first.0.unwrap(), summary)
    };
    let ((at, full), whole) = run(0);
    assert!(at <= 51 && full < 32);
    let ((at, full), warm) = run(2000);
    assert!((2050..2200).contains(&at), "{at}");
    assert_eq!(full, 32);
    for (cold, warm) in whole.threads.iter().zip(&warm.threads) {
        let left_out = cold.counts[0] - warm.counts[0];
        assert!((2000..2100).contains(&left_out), "{left_out}");
        assert_eq!(warm.counts[0], warm.totals.instructions);
        assert!(warm.cycles < cold.cycles);
    }
}
