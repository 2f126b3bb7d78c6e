//! A trace's chunks through the hot loop, on any number of threads with one result.

use rayon::prelude::*;
use thiserror::Error;
use vlbr_cpu::StepId;
use vlbr_cpu::run::{
    Deferred, Eager, EntryRef, Lane, Pace, Plan, RawRecord, RecordTimes, RunEnd, RunError,
    RunTotals, Sample, Samples, Schedule, Stack, StepIds, run_gated,
};
use vlbr_pmu::{Selector, Source, SourceSet};
use vlbr_traces::vlt::{ChunkBuffer, Trace, VltError};

use crate::gate::{GatedSteps, LbrGate};
use crate::region::Region;

/// Why a replay ended early.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The trace is damaged.
    #[error(transparent)]
    Trace(#[from] VltError),
    /// A chunk names steps that do not exist.
    #[error("chunk {chunk}: {source}")]
    Run {
        /// Index of the chunk.
        chunk: usize,
        /// What is wrong.
        source: RunError,
    },
    /// The header of a chunk states other counts than its steps have.
    #[error("chunk {chunk} states {stated} events, its steps count {counted}")]
    Count {
        /// Index of the chunk.
        chunk: usize,
        /// By the header.
        stated: u64,
        /// By its steps.
        counted: u64,
    },
    /// No threads can be had.
    #[error("starting {0} threads: {1}")]
    Threads(usize, String),
}

/// A chunk's result, or that of a piece of it, its references resolved.
#[derive(Debug)]
pub struct ChunkResult<'a> {
    /// Index of the chunk.
    pub chunk: usize,
    /// Whether the chunk begins with it: a chunk of many samples comes in pieces, of about
    /// [`HELD_SAMPLES`] each.
    pub begins: bool,
    /// Index of its thread.
    pub thread: usize,
    /// Instructions of the trace retired before it, in file order.
    pub before: u64,
    /// Its sums.
    pub totals: RunTotals,
    /// The sums of its thread before it.
    pub thread_before: RunTotals,
    samples: &'a Samples,
    start: &'a ThreadState,
    time_column: Option<usize>,
}

/// A sample, its references resolved. Everything but `instructions` is from the start of the thread.
#[derive(Debug)]
pub struct Resolved<'a> {
    /// The sample.
    pub sample: Sample,
    /// Its LBR entries, youngest first.
    pub entries: &'a [EntryRef],
    /// What each other counter had counted before the step of the sample.
    pub counts: &'a [u64],
    /// When the records were made, youngest first, if the plan tells; one more than there are entries,
    /// if there was one more.
    pub times: RecordTimes,
}

impl ChunkResult<'_> {
    /// Number of samples.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.samples.len()
    }

    /// Calls `each` with every sample.
    ///
    /// # Errors
    /// The first error of `each`.
    pub fn for_each<E>(
        &self,
        mut each: impl FnMut(&Resolved<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut resolved = Vec::new();
        let mut counted = Vec::new();
        let mut times = self.samples.times().iter();
        for (sample, entries, counts) in self.samples.iter() {
            resolved.clear();
            let stack = &self.start.stack;
            resolved.extend(entries.iter().map(|&entry| stack.resolve_entry(entry)));
            let before = &self.thread_before;
            counted.clear();
            counted.extend(counts.iter().zip(before.counts).map(|(n, start)| n + start));
            let sample = Sample {
                net: sample.net.wrapping_add(stack.net()),
                events: sample.events + before.events,
                ..*sample
            };
            let at_start = self.time_column.map_or(0, |column| before.counts[column]);
            let times = times.next().map(RecordTimes::known).unwrap_or_default();
            each(&Resolved {
                sample,
                entries: &resolved,
                counts: &counted,
                times: self.start.times.resolve(times, at_start),
            })?;
        }
        Ok(())
    }
}

/// State of one thread of the trace between its chunks.
#[derive(Clone, Debug)]
pub struct ThreadState {
    /// Its LBR stack.
    pub stack: Stack,
    /// Its sums.
    pub totals: RunTotals,
    /// When its youngest records were made, if the plan tells.
    pub times: RecordTimes,
    schedule: Option<Schedule>,
    /// The device, while its registers are not as perf programmed them.
    gate: Option<LbrGate>,
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions<'a> {
    /// What the plan counts and samples, if it does.
    pub event: Option<Selector>,
    /// When each thread samples; `None`: no samples.
    pub schedule: Option<Schedule>,
    /// Steps that change what the LBR records, if there are any.
    pub gated: Option<&'a GatedSteps>,
    /// Part of the trace.
    pub region: Region,
    /// Threads; 0 means all cores.
    pub jobs: usize,
    /// Write whole records eagerly: FROM, TO and INFO by step.
    pub eager: Option<&'a [RawRecord]>,
}

/// Most threads that are started, whatever number is asked for.
pub(crate) const MAX_THREADS: usize = 1024;

/// Samples after which a worker stops and hands out what it has: at depth 32 they take 5.5 MB.
/// With `instructions` there can be more of them by the instructions of one step.
pub const HELD_SAMPLES: usize = 1 << 15;

/// One worker's buffers.
struct Worker {
    buffer: ChunkBuffer,
    lane: Lane,
    samples: Samples,
    records: Vec<RawRecord>,
    result: Option<Piece>,
}

/// A run that ended with the chunk or at the limit of samples.
struct Piece {
    end: RunEnd,
    /// Whether the chunk ended.
    last: bool,
}

/// Runs the chunks of `trace` in file order, each thread on its own LBR and counter, and hands the
/// results to `consume` in file order. Returns the state of each thread at its end.
///
/// # Errors
/// Damage, or the first error of `consume`.
pub fn run<E: From<EngineError>>(
    trace: &Trace,
    plan: &Plan,
    options: EngineOptions<'_>,
    mut consume: impl FnMut(ChunkResult<'_>) -> Result<(), E>,
) -> Result<Vec<ThreadState>, E> {
    let initial = ThreadState {
        stack: Stack::empty(plan.depth()),
        totals: RunTotals::default(),
        times: RecordTimes::default(),
        schedule: options.schedule,
        gate: None,
    };
    let mut threads = vec![initial; trace.threads().len()];
    let follows = matches!(
        options.schedule,
        Some(Schedule {
            pace: Pace::Frequency(_),
            ..
        })
    );
    let jobs = if follows {
        // When a chunk samples first depends on every sample before it.
        1
    } else if options.jobs == 0 {
        rayon::current_num_threads()
    } else {
        options.jobs.min(MAX_THREADS)
    };
    let chunks: Vec<usize> = options.region.chunks(trace.chunks().len()).collect();
    let jobs = jobs.min(chunks.len().max(1));
    let pool = match jobs {
        1 => None,
        _ => Some(
            rayon::ThreadPoolBuilder::new()
                .num_threads(jobs)
                .build()
                .map_err(|error| EngineError::Threads(jobs, error.to_string()))?,
        ),
    };
    let mut workers: Vec<Worker> = (0..jobs)
        .map(|_| Worker {
            buffer: ChunkBuffer::default(),
            lane: Lane::new(),
            samples: Samples::with_limit(HELD_SAMPLES),
            records: Vec::new(),
            result: None,
        })
        .collect();
    let mut before = 0;
    for wave in chunks.chunks(jobs) {
        let schedules = schedules(trace, plan, &options, &threads, wave, &mut workers)?;
        let each = |(worker, (&chunk, schedule)): (&mut Worker, (&usize, &Option<Schedule>))| {
            worker.run(trace, plan, &options, chunk, *schedule)
        };
        let mut jobs_of_wave = workers.iter_mut().zip(wave.iter().zip(&schedules));
        match &pool {
            None => jobs_of_wave.try_for_each(each)?,
            Some(pool) => {
                let list: Vec<_> = jobs_of_wave.collect();
                pool.install(|| {
                    list.into_par_iter()
                        .map(each)
                        .collect::<Result<(), EngineError>>()
                })?;
            }
        }
        for (worker, &chunk) in workers.iter_mut().zip(wave) {
            let thread = trace.chunks()[chunk].thread.0 as usize;
            let state = &mut threads[thread];
            // Without a result the chunk changes the LBR's registers.
            let first = worker.result.take().filter(|_| state.gate.is_none());
            let (mut begins, mut events) = (true, 0);
            let mut hand_out = |piece: &Piece, samples: &Samples, state: &mut ThreadState| {
                let totals = piece.end.totals;
                consume(ChunkResult {
                    chunk,
                    begins,
                    thread,
                    before,
                    totals,
                    thread_before: state.totals,
                    samples,
                    start: state,
                    time_column: plan.time_column(),
                })?;
                before += totals.instructions;
                events += totals.events;
                begins = false;
                state.advance(&piece.end, plan.time_column());
                Ok::<(), E>(())
            };
            if let Some(piece) = &first {
                hand_out(piece, &worker.samples, state)?;
            }
            if first.as_ref().is_none_or(|piece| !piece.last) {
                let done = first.as_ref().map(|piece| piece.end.totals.steps);
                worker.run_on(trace, plan, &options, chunk, done, state, &mut hand_out)?;
            }
            check_events(trace, &options, chunk, events)?;
        }
    }
    Ok(threads)
}

/// When each chunk of a wave samples first. A chunk behind another one of the same thread in the
/// same wave needs to know how many events that one counts: the chunk headers say, and where a
/// chunk is run in part only, a counting pass does.
fn schedules(
    trace: &Trace,
    plan: &Plan,
    options: &EngineOptions<'_>,
    threads: &[ThreadState],
    wave: &[usize],
    workers: &mut [Worker],
) -> Result<Vec<Option<Schedule>>, EngineError> {
    if options.schedule.is_none() {
        return Ok(vec![None; wave.len()]);
    }
    let mut due: Vec<Option<Schedule>> = threads.iter().map(|thread| thread.schedule).collect();
    let mut schedules = Vec::with_capacity(wave.len());
    for (position, (&chunk, worker)) in wave.iter().zip(workers).enumerate() {
        let thread = trace.chunks()[chunk].thread;
        let slot = &mut due[thread.0 as usize];
        schedules.push(*slot);
        let needed = wave[position + 1..]
            .iter()
            .any(|&later| trace.chunks()[later].thread == thread);
        if let Some(schedule) = slot.as_mut().filter(|_| needed) {
            let events = match header_events(trace, options, chunk) {
                Some(events) => events,
                None => worker.count(trace, plan, options, chunk)?,
            };
            schedule.first = after(schedule.first, events, schedule.pace.period());
        }
    }
    Ok(schedules)
}

/// Events of a chunk by its header, if it is run whole.
fn header_events(trace: &Trace, options: &EngineOptions<'_>, chunk: usize) -> Option<u64> {
    let info = &trace.chunks()[chunk];
    let whole = info.steps as usize;
    if options.region.steps(chunk, whole) != (0, whole) {
        return None;
    }
    let event = options.event.filter(|event| !event.in_tx)?;
    let split = match event.sources {
        sources if sources == SourceSet::of(Source::Instructions) => info.counts.instructions,
        sources if sources == SourceSet::BRANCHES => info.counts.branches,
        sources if sources == SourceSet::NEAR_TAKEN => info.counts.near_taken,
        _ => return None,
    };
    let part = |wanted: bool, count: u32| if wanted { u64::from(count) } else { 0 };
    Some(part(event.user, split.user) + part(event.kernel, split.kernel))
}

/// What the header said must be what was counted: samples of later chunks rely on it.
fn check_events(
    trace: &Trace,
    options: &EngineOptions<'_>,
    chunk: usize,
    counted: u64,
) -> Result<(), EngineError> {
    match header_events(trace, options, chunk) {
        Some(stated) if stated != counted => Err(EngineError::Count {
            chunk,
            stated,
            counted,
        }),
        _ => Ok(()),
    }
}

/// Events until the next sample, after `events` more.
fn after(until: u64, events: u64, period: u64) -> u64 {
    if events < until {
        until - events
    } else {
        period - (events - until) % period
    }
}

impl ThreadState {
    fn advance(&mut self, end: &RunEnd, time_column: Option<usize>) {
        self.stack = self.stack.resolve(&end.stack);
        let start = time_column.map_or(0, |column| self.totals.counts[column]);
        self.times = self.times.resolve(end.times.known(), start);
        let totals = &end.totals;
        self.totals.instructions += totals.instructions;
        self.totals.events += totals.events;
        self.totals.pushes += totals.pushes;
        self.totals.pops += totals.pops;
        for (count, more) in self.totals.counts.iter_mut().zip(totals.counts) {
            *count += more;
        }
        self.schedule = end.schedule.map(|mut schedule| {
            schedule.pace.set_start(self.totals.instructions);
            schedule
        });
    }
}

impl Worker {
    fn count(
        &mut self,
        trace: &Trace,
        plan: &Plan,
        options: &EngineOptions<'_>,
        index: usize,
    ) -> Result<u64, EngineError> {
        let chunk = trace.decode(index, &mut self.buffer)?;
        let (start, end) = options.region.steps(index, chunk.ids.len());
        let counted = self
            .lane
            .count(plan, chunk.map, chunk.ids.slice(start, end));
        Ok(counted
            .map_err(|source| EngineError::Run {
                chunk: index,
                source,
            })?
            .events)
    }

    fn run(
        &mut self,
        trace: &Trace,
        plan: &Plan,
        options: &EngineOptions<'_>,
        index: usize,
        schedule: Option<Schedule>,
    ) -> Result<(), EngineError> {
        let chunk = trace.decode(index, &mut self.buffer)?;
        let (start, end) = options.region.steps(index, chunk.ids.len());
        self.samples.clear();
        self.result = None;
        if options.gated.is_some_and(|gated| gated.touches(chunk.map)) {
            return Ok(());
        }
        let source = Part {
            plan,
            map: chunk.map,
            ids: chunk.ids.slice(start, end),
            schedule,
            eager: options.eager,
        };
        let (lane, records, samples) = (&mut self.lane, &mut self.records, &mut self.samples);
        self.result = Some(source.run(index, lane, records, samples)?);
        Ok(())
    }

    /// Runs what is left of a chunk behind the `done` steps that were handed out, piece by piece
    /// from a known state. `None`: nothing was, because the thread's device has to say what is
    /// recorded.
    #[expect(
        clippy::too_many_arguments,
        reason = "the inputs of a run, and where the pieces go"
    )]
    fn run_on<E: From<EngineError>>(
        &mut self,
        trace: &Trace,
        plan: &Plan,
        options: &EngineOptions<'_>,
        index: usize,
        done: Option<usize>,
        state: &mut ThreadState,
        hand_out: &mut dyn FnMut(&Piece, &Samples, &mut ThreadState) -> Result<(), E>,
    ) -> Result<(), E> {
        let chunk = trace
            .decode(index, &mut self.buffer)
            .map_err(EngineError::from)?;
        let (start, end) = options.region.steps(index, chunk.ids.len());
        let mut at = start + done.unwrap_or(0);
        loop {
            self.samples.clear();
            let source = Part {
                plan,
                map: chunk.map,
                ids: chunk.ids.slice(at, end),
                schedule: state.schedule,
                eager: options.eager,
            };
            let piece = match (done, options.gated) {
                (None, Some(gated)) => source.run_gated(trace, gated, state, &mut self.samples),
                _ => {
                    let (lane, records) = (&mut self.lane, &mut self.records);
                    source.run(index, lane, records, &mut self.samples)?
                }
            };
            hand_out(&piece, &self.samples, state)?;
            if piece.last {
                return Ok(());
            }
            at += piece.end.totals.steps;
        }
    }
}

/// Steps to run, and under what.
struct Part<'a> {
    plan: &'a Plan,
    map: &'a [StepId],
    ids: StepIds<'a>,
    schedule: Option<Schedule>,
    eager: Option<&'a [RawRecord]>,
}

impl Part<'_> {
    fn piece(&self, end: RunEnd) -> Piece {
        Piece {
            last: end.totals.steps == self.ids.len(),
            end,
        }
    }

    /// Through the hot loop, from an unknown stack.
    fn run(
        &self,
        chunk: usize,
        lane: &mut Lane,
        records: &mut Vec<RawRecord>,
        samples: &mut Samples,
    ) -> Result<Piece, EngineError> {
        let Self {
            plan,
            map,
            ids,
            schedule,
            eager,
        } = *self;
        let result = match eager {
            None => lane.run(plan, map, ids, schedule, &mut Deferred, samples),
            Some(all) => {
                records.clear();
                records.extend(map.iter().map(|step| all[step.0 as usize]));
                let mut store = Eager::new(records);
                lane.run(plan, map, ids, schedule, &mut store, samples)
            }
        };
        let result = result.map_err(|source| EngineError::Run { chunk, source })?;
        Ok(self.piece(result))
    }

    /// Step by step with the thread's device.
    fn run_gated(
        &self,
        trace: &Trace,
        gated: &GatedSteps,
        state: &mut ThreadState,
        samples: &mut Samples,
    ) -> Piece {
        let mut gate = state.gate.take().unwrap_or_else(|| gated.gate());
        let result = run_gated(
            self.plan,
            trace.code(),
            self.map,
            self.ids,
            self.schedule,
            &state.stack,
            &mut gate,
            samples,
        );
        state.gate = (!gate.is_as_programmed()).then_some(gate);
        self.piece(result)
    }
}
