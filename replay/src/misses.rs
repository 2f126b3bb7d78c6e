//! How often each branch was mispredicted.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use serde::Serialize;
use vlbr_cpu::StepId;
use vlbr_traces::vlt::Trace;

use crate::error::ReplayError;
use crate::names::{Moment, Names};

/// A branch instruction of a process.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BranchMisses {
    /// Process.
    pub pid: u32,
    /// Where it stands.
    pub address: u64,
    /// The same with its symbol.
    pub symbol: String,
    /// Times it retired.
    pub executed: u64,
    /// Times it was mispredicted.
    pub mispredicted: u64,
    /// Mispredictions in a thousand instructions of the whole run.
    pub mpki: f64,
}

/// How often steps retired, by process and step: with a branch that was predicted, and mispredicted. Each
/// process has the steps that it ran: there may be many processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepMisses {
    processes: Vec<FxHashMap<StepId, [u64; 2]>>,
}

impl StepMisses {
    pub(crate) fn new(trace: &Trace) -> Self {
        Self {
            processes: vec![FxHashMap::default(); trace.processes().len()],
        }
    }

    /// Adds how often `step` of `process` retired.
    pub(crate) fn add(&mut self, process: usize, step: StepId, ran: [u64; 2]) {
        if ran != [0; 2] {
            let sum = self.processes[process].entry(step).or_default();
            *sum = [sum[0] + ran[0], sum[1] + ran[1]];
        }
    }

    /// The `most` branches that were mispredicted most often, then by address, of `instructions`.
    ///
    /// # Errors
    /// Names cannot be read.
    pub fn worst(
        &self,
        trace: &Trace,
        instructions: u64,
        most: usize,
    ) -> Result<Vec<BranchMisses>, ReplayError> {
        let code = trace.code();
        let mut branches: BTreeMap<(usize, u64), [u64; 2]> = BTreeMap::new();
        for (process, steps) in self.processes.iter().enumerate() {
            for (&id, ran) in steps {
                if !code.retires_branch(id) {
                    continue;
                }
                let address = code.block_of(id).last_address();
                let sum = branches.entry((process, address)).or_default();
                *sum = [sum[0] + ran[0], sum[1] + ran[1]];
            }
        }
        let mut list: Vec<_> = branches.into_iter().filter(|(_, ran)| ran[1] > 0).collect();
        list.sort_by_key(|&(place, [_, missed])| (std::cmp::Reverse(missed), place));
        let names = Names::new(trace)?;
        let chunk = trace.chunks().len().saturating_sub(1);
        let worst = list.into_iter().take(most);
        let told = worst.map(|((process, address), [predicted, mispredicted])| {
            let at = Moment {
                process: process as u32,
                chunk,
            };
            BranchMisses {
                pid: trace.processes()[process].pid,
                address,
                symbol: names.describe(at, address),
                executed: predicted + mispredicted,
                mispredicted,
                mpki: 1000.0 * mispredicted as f64 / instructions.max(1) as f64,
            }
        });
        Ok(told.collect())
    }
}
