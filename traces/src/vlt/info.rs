//! What a trace contains, counted.

use std::collections::BTreeMap;

use vlbr_arch::{BranchClass, CodeSize, Cpl};
use vlbr_cpu::run::StepIds;
use vlbr_cpu::{Exit, ModeSource, StepId};

use super::decode::{Chunk, ChunkBuffer};
use super::error::VltError;
use super::meta::ThreadIndex;
use super::trace::{Sizes, Trace};

/// Executions by privilege level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Totals {
    /// At CPL 0.
    pub kernel: u64,
    /// At CPL 1 to 3.
    pub user: u64,
}

impl Totals {
    /// Both together.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.kernel + self.user
    }
}

/// What one thread did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadInfo {
    /// Its chunks.
    pub chunks: u64,
    /// Steps in them.
    pub steps: u64,
    /// Instructions retired.
    pub instructions: u64,
}

/// Statistics of a trace. Everything but the bytes counts executions, not code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Instructions retired.
    pub instructions: Totals,
    /// Steps.
    pub steps: Totals,
    /// Branch instructions retired, taken or not.
    pub branches: Totals,
    /// Transfers by class: taken branches and events.
    pub transfers: BTreeMap<BranchClass, Totals>,
    /// Steps that do not say how they went on.
    pub gaps: u64,
    /// Transfers known to have been mispredicted.
    pub mispredicted: u64,
    /// Steps by the code size and privilege level of their blocks and by how these are known.
    pub modes: BTreeMap<(CodeSize, Cpl, ModeSource), u64>,
    /// Blocks in the code table.
    pub blocks: u64,
    /// Different steps in the code table.
    pub distinct_steps: u64,
    /// By thread, in the order of their indices.
    pub threads: Vec<ThreadInfo>,
    /// Bytes of the file.
    pub sizes: Sizes,
}

impl Info {
    /// Decodes all chunks of `trace`, checks them against their counts and sums them up.
    ///
    /// # Errors
    /// A chunk is damaged.
    pub fn collect(trace: &Trace) -> Result<Self, VltError> {
        let mut info = Self {
            blocks: trace.code().blocks().len() as u64,
            distinct_steps: trace.code().steps().len() as u64,
            threads: vec![ThreadInfo::default(); trace.threads().len()],
            sizes: *trace.sizes(),
            ..Self::default()
        };
        let mut executed = vec![0; trace.code().steps().len()];
        let mut buffer = ChunkBuffer::new();
        for (index, chunk) in trace.chunks().iter().enumerate() {
            trace.check_chunk(index, &mut buffer)?;
            count(&trace.decode(index, &mut buffer)?, &mut executed);
            let ThreadIndex(thread) = chunk.thread;
            let thread = &mut info.threads[thread as usize];
            thread.chunks += 1;
            thread.steps += u64::from(chunk.steps);
            thread.instructions += chunk.counts.instructions.total();
        }
        for (step, &times) in executed.iter().enumerate() {
            info.add(trace, StepId(step as u32), times);
        }
        Ok(info)
    }

    fn add(&mut self, trace: &Trace, id: StepId, times: u64) {
        if times == 0 {
            return;
        }
        let code = trace.code();
        let step = code.step(id);
        let user = code.is_user(id);
        let add = |totals: &mut Totals, amount: u64| {
            *(if user {
                &mut totals.user
            } else {
                &mut totals.kernel
            }) += amount;
        };
        add(&mut self.instructions, times * u64::from(step.retired));
        add(&mut self.steps, times);
        if code.retires_branch(id) {
            add(&mut self.branches, times);
        }
        if let Some(transfer) = code.transfer(id) {
            add(self.transfers.entry(transfer.class).or_default(), times);
            self.mispredicted += times * u64::from(transfer.mispredicted);
        }
        self.gaps += times * u64::from(step.exit == Exit::Gap);
        let mode = code.block_of(id).mode();
        *self
            .modes
            .entry((mode.code_size, mode.cpl, mode.source))
            .or_default() += times;
    }

    /// Bits of the file per retired instruction, for so many bytes of it.
    #[must_use]
    pub fn bits_per_instruction(&self, bytes: u64) -> f64 {
        8.0 * bytes as f64 / self.instructions.total().max(1) as f64
    }
}

/// Adds how often each step occurs.
fn count(chunk: &Chunk<'_>, executed: &mut [u64]) {
    let mut times = vec![0_u64; chunk.map.len()];
    match chunk.ids {
        StepIds::U16(ids) => ids.iter().for_each(|&id| times[usize::from(id)] += 1),
        StepIds::U32(ids) => ids.iter().for_each(|&id| times[id as usize] += 1),
    }
    for (step, times) in chunk.map.iter().zip(times) {
        executed[step.0 as usize] += times;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{open, sample};
    use super::*;

    #[test]
    fn sums_are_those_of_the_steps() {
        let sample = sample(1, 5_000);
        let trace = open(&sample.bytes, false).unwrap();
        let info = Info::collect(&trace).unwrap();
        let steps: Vec<_> = sample.chunks.iter().flat_map(|c| &c.1).copied().collect();
        let code = sample.program.code();
        assert_eq!(info.steps.total(), steps.len() as u64);
        assert_eq!(info.instructions.total(), trace.instructions());
        assert_eq!(info.modes.values().sum::<u64>(), steps.len() as u64);
        assert_eq!(info.gaps, 0);
        let transfers: u64 = info.transfers.values().map(|t| t.total()).sum();
        let expected = steps.iter().filter(|&&s| code.transfer(s).is_some());
        assert_eq!(transfers, expected.count() as u64);
        let missed = |s: StepId| code.transfer(s).is_some_and(|t| t.mispredicted);
        let expected = steps.iter().filter(|&&s| missed(s)).count();
        assert_eq!(info.mispredicted, expected as u64);
        let per_thread: u64 = info.threads.iter().map(|t| t.instructions).sum();
        assert_eq!(per_thread, trace.instructions());
        let bits = info.bits_per_instruction(info.sizes.total());
        let bytes = bits * trace.instructions() as f64 / 8.0;
        assert!((bytes - sample.bytes.len() as f64).abs() < 1.0);
    }
}
