//! The ordered road: transfers through the LBR itself, in order. For quirks and options under
//! which a record depends on its predecessors, for events that change the LBR's registers, for skid, for
//! clocks that carry state from step to step, and to compare the hot loop with the devices.
//!
//! While no counter can overflow, the counters are given sums of many steps, and of their records the LBR makes
//! those that are left, or all if the options ask for this road. Where one can, every instruction is a boundary.

mod passed;
mod road;
mod thread;
mod waiting;

use vlbr_cpu::StepClock;
use vlbr_cpu::run::{Counting, Plan, StepIds};
use vlbr_traces::vlt::ChunkBuffer;

use crate::device::DeviceError;
use crate::error::ReplayError;
use crate::session::Session;
use crate::summary::{Consumer, Summary};
use crate::timing::TimingError;
use road::Road;
use thread::{Thread, Untimed};

/// As [`Session::run`], without time.
pub(crate) fn run(
    session: &Session<'_>,
    consumer: &mut dyn Consumer,
    progress: &mut dyn FnMut(u64),
) -> Result<Summary, ReplayError> {
    timed::<_, false>(session, &Untimed, consumer, progress)
}

/// As [`Session::run`], every thread with a clock that begins as `clock`.
pub(crate) fn run_with<C: StepClock>(
    session: &Session<'_>,
    clock: &C,
    consumer: &mut dyn Consumer,
    progress: &mut dyn FnMut(u64),
) -> Result<Summary, ReplayError> {
    timed::<_, true>(session, clock, consumer, progress)
}

/// Plans in which no branch is mispredicted, and in which every one is, if counters tell them apart.
fn plans(session: &Session<'_>) -> Result<Option<[Plan; 2]>, ReplayError> {
    let counting = &session.counting;
    let predicts = counting.clock == vlbr_cpu::Clock::Model { predicts: true };
    if !predicts {
        return Ok(None);
    }
    let plan = |mispredicted| {
        let counting = Counting {
            mispredicted: Some(mispredicted),
            ..counting.clone()
        };
        let plan = session.lbr.plan(session.trace.code(), &counting);
        plan.map_err(DeviceError::Plan)
    };
    Ok(Some([plan(false)?, plan(true)?]))
}

fn timed<C: StepClock, const TIMED: bool>(
    session: &Session<'_>,
    clock: &C,
    consumer: &mut dyn Consumer,
    progress: &mut dyn FnMut(u64),
) -> Result<Summary, ReplayError> {
    let trace = session.trace;
    let plans = plans(session)?;
    let plans = match &plans {
        Some([predicted, mispredicted]) => [predicted, mispredicted],
        None => [&session.plan; 2],
    };
    let mut road = Road::<TIMED>::new(session, consumer, plans);
    // A clock may be large, and threads many: a thread's is there from its first chunk to its last.
    let mut threads: Vec<Option<Thread<C>>> = trace.threads().iter().map(|_| None).collect();
    let mut last = vec![None; threads.len()];
    let chunks = || session.region.chunks(trace.chunks().len());
    for index in chunks() {
        last[trace.chunks()[index].thread.0 as usize] = Some(index);
    }
    let mut living = 0;
    let mut buffer = ChunkBuffer::default();
    for index in chunks() {
        let chunk = trace.decode(index, &mut buffer)?;
        let (start, end) = session.region.steps(index, chunk.ids.len());
        let number = trace.chunks()[index].thread.0 as usize;
        let slot = &mut threads[number];
        if slot.is_none() {
            living += 1;
            session
                .model
                .check_room(living)
                .map_err(TimingError::from)?;
        }
        let thread = slot.get_or_insert_with(|| Thread::new(session, clock));
        road.begin_chunk(number, index, thread.now)?;
        match chunk.ids.slice(start, end) {
            StepIds::U16(ids) => road.steps(thread, chunk.map, ids, usize::from)?,
            StepIds::U32(ids) => road.steps(thread, chunk.map, ids, |id| id as usize)?,
        }
        road.end_chunk(thread, chunk.map)?;
        if last[number] == Some(index)
            && let Some(thread) = slot.take()
        {
            road.end_thread(number, thread);
            living -= 1;
        }
        progress(road.before());
    }
    for number in (0..threads.len()).filter(|&number| last[number].is_none()) {
        road.end_thread(number, Thread::new(session, clock));
    }
    Ok(road.finish())
}
