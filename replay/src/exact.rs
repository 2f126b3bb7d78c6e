//! The profile of every branch of a trace, not of samples.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use vlbr_arch::Cpl;
use vlbr_cpu::StepId;
use vlbr_traces::vlt::{ChunkBuffer, Trace};

use crate::edges::{EdgeProfile, Range};
use crate::error::ReplayError;
use crate::region::Region;

/// Where a thread stands: the step whose transfer it last made, and at user level the same from
/// before the kernel took over, with the address it will return to.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    last: Option<StepId>,
    suspended: Option<(Option<StepId>, u64)>,
}

/// What a process ran: as much as it ran, not all there is in the trace, for there may be many
/// processes.
#[derive(Debug, Default)]
struct Counts {
    steps: FxHashMap<StepId, u64>,
    /// Straight runs by the steps whose transfers begin and end them, as one word: this is looked
    /// up at every branch.
    runs: FxHashMap<u64, u64>,
}

/// Every taken edge and every straight run between them, by index of the process: an exec makes
/// another one, whose addresses mean other code.
///
/// A visit to the kernel that comes back to where it left is no branch of the user's code: the
/// run goes on. Edges between the levels are not counted.
///
/// # Errors
/// The trace is damaged.
pub fn exact_profile(
    trace: &Trace,
    region: Region,
    progress: &mut dyn FnMut(u64),
) -> Result<BTreeMap<u32, EdgeProfile>, ReplayError> {
    let code = trace.code();
    let mut all: FxHashMap<u32, Counts> = FxHashMap::default();
    let mut places = vec![Place::default(); trace.threads().len()];
    let mut buffer = ChunkBuffer::default();
    let mut local = Vec::new();
    let mut done = 0;
    for index in region.chunks(trace.chunks().len()) {
        let number = trace.chunks()[index].thread.0 as usize;
        let process = trace.threads()[number].process.0;
        let chunk = trace.decode(index, &mut buffer)?;
        let (start, end) = region.steps(index, chunk.ids.len());
        let ids = chunk.ids.slice(start, end);
        let place = &mut places[number];
        let counts = all.entry(process).or_default();
        local.clear();
        local.resize(chunk.map.len(), 0_u64);
        for position in 0..ids.len() {
            let step = ids.local(position);
            local[step] += 1;
            let id = chunk.map[step];
            let Some(transfer) = code.transfer(id) else {
                continue;
            };
            let (before, after) = (transfer.cpl_before, transfer.cpl_after);
            match (before == Cpl::Ring0, after == Cpl::Ring0) {
                (false, true) => {
                    let resume = code.block_of(id).address_of(code.step(id).retired);
                    *place = Place {
                        last: None,
                        suspended: Some((place.last, resume)),
                    };
                }
                (true, false) => {
                    let last = match place.suspended {
                        Some((last, resume)) if resume == transfer.to => last,
                        _ => Some(id),
                    };
                    *place = Place {
                        last,
                        suspended: None,
                    };
                }
                _ => {
                    if let Some(begin) = place.last {
                        let run = u64::from(begin.0) << 32 | u64::from(id.0);
                        *counts.runs.entry(run).or_default() += 1;
                    }
                    place.last = Some(id);
                }
            }
        }
        for (&step, &count) in chunk
            .map
            .iter()
            .zip(&local)
            .filter(|(_, count)| **count > 0)
        {
            *counts.steps.entry(step).or_default() += count;
        }
        done += trace.chunks()[index].counts.instructions.total();
        progress(done);
    }
    let mut profiles = BTreeMap::new();
    for (process, counts) in all {
        let mut profile = EdgeProfile::exact(code, counts.steps).within_one_level();
        for (run, count) in counts.runs {
            let transfer = |step: u64| code.transfer(StepId(step as u32));
            if let (Some(begin), Some(end)) = (transfer(run >> 32), transfer(run)) {
                let range = Range {
                    start: begin.to,
                    end: end.from,
                    origin: begin.from,
                };
                *profile.ranges.entry(range).or_default() += count;
            }
        }
        profiles.insert(process, profile);
    }
    Ok(profiles)
}
