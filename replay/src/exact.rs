//! The profile of every branch of a trace, not of samples.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use vlbr_arch::Cpl;
use vlbr_cpu::StepId;
use vlbr_traces::vlt::{ChunkBuffer, Trace};

use crate::edges::{EdgeProfile, Range};
use crate::region::Region;
use crate::session::ReplayError;

/// Where a thread stands: the target it last jumped to, and at user level the same from before
/// the kernel took over, with the address it will return to.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    target: Option<u64>,
    suspended: Option<(Option<u64>, u64)>,
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
    let mut runs: FxHashMap<(u32, Range), u64> = FxHashMap::default();
    let mut steps: FxHashMap<u32, Vec<u64>> = FxHashMap::default();
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
        local.clear();
        local.resize(chunk.map.len(), 0_u64);
        for position in 0..ids.len() {
            let step = ids.local(position);
            local[step] += 1;
            let Some(transfer) = code.transfer(chunk.map[step]) else {
                continue;
            };
            let (before, after) = (transfer.cpl_before, transfer.cpl_after);
            match (before == Cpl::Ring0, after == Cpl::Ring0) {
                (false, true) => {
                    let block = code.block_of(chunk.map[step]);
                    let resume = block.address_of(code.step(chunk.map[step]).retired);
                    *place = Place {
                        target: None,
                        suspended: Some((place.target, resume)),
                    };
                }
                (true, false) => {
                    let target = match place.suspended {
                        Some((target, resume)) if resume == transfer.to => target,
                        _ => Some(transfer.to),
                    };
                    *place = Place {
                        target,
                        suspended: None,
                    };
                }
                _ => {
                    if let Some(start) = place.target {
                        let range = Range {
                            start,
                            end: transfer.from,
                        };
                        *runs.entry((process, range)).or_default() += 1;
                    }
                    place.target = Some(transfer.to);
                }
            }
        }
        let counts = steps
            .entry(process)
            .or_insert_with(|| vec![0; code.steps().len()]);
        for (&StepId(step), count) in chunk.map.iter().zip(&local) {
            counts[step as usize] += count;
        }
        done += trace.chunks()[index].counts.instructions.total();
        progress(done);
    }
    let mut profiles: BTreeMap<u32, EdgeProfile> = BTreeMap::new();
    for (process, counts) in steps {
        profiles.insert(
            process,
            EdgeProfile::exact(code, &counts).within_one_level(),
        );
    }
    for ((process, range), count) in runs {
        profiles
            .entry(process)
            .or_default()
            .ranges
            .insert(range, count);
    }
    Ok(profiles)
}
