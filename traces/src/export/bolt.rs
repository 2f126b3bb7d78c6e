//! BOLT's pre-aggregated profile: `perf2bolt --pa` and `llvm-bolt --pa -p`.
//!
//! `B from to count mispredictions` counts a taken branch, `F start end count` a straight run from
//! a target to the branch that ended it, `f` such a run that control reached from outside of the
//! function: BOLT then takes a run that starts behind a call for the return from it. Addresses are
//! hexadecimal, as linked: of a position-independent binary the load address is subtracted. What
//! lies outside the binary is unknown to BOLT: such an end of a branch is written as 0, which keeps
//! entries and exits of the binary, and a run that is not wholly inside is left out.
//!
//! Samples are counted as perf2bolt counts those of a perf.data file: it skips entries with an
//! address of the kernel's half, so a run goes on over a system call and over whatever else comes
//! back to where it left.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::sink::{ExportError, SampleSink};
use crate::perfdata::{Mapping, SampleRecord, TaskId};
use crate::symbols::ElfImage;

/// Branches and straight runs of one binary, by linked address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoltProfile {
    branches: BTreeMap<(u64, u64), (u64, u64)>,
    runs: BTreeMap<BoltRun, u64>,
}

/// A straight run of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BoltRun {
    /// Branch target.
    pub start: u64,
    /// Start of the instruction that ends it.
    pub end: u64,
    /// Whether control came from another function.
    pub entered: bool,
}

/// Where perf2bolt takes the kernel to begin.
const KERNEL: u64 = 0xffff_8000_0000_0000;

impl BoltProfile {
    /// Counts a taken branch; an end outside of the binary is 0.
    pub fn branch(&mut self, from: u64, to: u64, count: u64, mispredictions: u64) {
        let entry = self.branches.entry((from, to)).or_default();
        entry.0 = entry.0.saturating_add(count);
        entry.1 = entry.1.saturating_add(mispredictions);
    }

    /// Counts a straight run.
    pub fn run(&mut self, run: BoltRun, count: u64) {
        let entry = self.runs.entry(run).or_default();
        *entry = entry.saturating_add(count);
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.branches.is_empty() && self.runs.is_empty()
    }

    /// Taken branches: FROM, TO, count, mispredictions, by address.
    pub fn branches(&self) -> impl Iterator<Item = (u64, u64, u64, u64)> {
        self.branches
            .iter()
            .map(|(&(from, to), &(count, missed))| (from, to, count, missed))
    }

    /// Straight runs with their counts, by address.
    pub fn runs(&self) -> impl Iterator<Item = (BoltRun, u64)> {
        self.runs.iter().map(|(&run, &count)| (run, count))
    }

    /// Writes the profile.
    ///
    /// # Errors
    /// I/O errors.
    pub fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        for (from, to, count, missed) in self.branches() {
            writeln!(out, "B {from:x} {to:x} {count} {missed}")?;
        }
        for (run, count) in self.runs() {
            let kind = if run.entered { 'f' } else { 'F' };
            writeln!(out, "{kind} {:x} {:x} {count}", run.start, run.end)?;
        }
        out.flush()
    }
}

/// Where one binary is loaded, process by process, and what ran in it.
#[derive(Debug)]
pub struct BoltSink<W> {
    out: W,
    binary: Binary,
    profile: BoltProfile,
}

#[derive(Debug)]
struct Binary {
    path: PathBuf,
    /// First and last linked address of each executable segment.
    code: Vec<(u64, u64)>,
    image: ElfImage,
    /// Load bias by process.
    bias: BTreeMap<u32, u64>,
}

impl Binary {
    /// The linked address, if the binary has code there.
    fn linked(&self, pid: u32, address: u64) -> Option<u64> {
        let linked = address.wrapping_sub(*self.bias.get(&pid)?);
        self.code
            .iter()
            .any(|&(first, last)| (first..=last).contains(&linked))
            .then_some(linked)
    }

    /// Whether `from` lies in the function that holds `to`.
    fn same_function(&self, from: u64, to: u64) -> bool {
        let function = |address| self.image.lookup(address).map(|symbol| symbol.address);
        // Without symbols there are no functions to leave.
        function(from) == function(to)
    }
}

impl<W: Write> BoltSink<W> {
    /// A profile of `image`, which the mappings call `mapped_as`.
    #[must_use]
    pub fn new(out: W, image: ElfImage, mapped_as: &Path) -> Self {
        let code = image
            .segments()
            .iter()
            .filter(|segment| segment.executable && segment.size > 0)
            .map(|segment| {
                (
                    segment.address,
                    segment.address.saturating_add(segment.size - 1),
                )
            })
            .collect();
        let binary = Binary {
            path: mapped_as.to_owned(),
            code,
            image,
            bias: BTreeMap::new(),
        };
        Self {
            out,
            binary,
            profile: BoltProfile::default(),
        }
    }

    /// Counts a branch by run-time address: for a profile of every branch of a trace.
    pub fn branch(&mut self, pid: u32, from: u64, to: u64, count: u64, mispredictions: u64) {
        let (from, to) = (self.binary.linked(pid, from), self.binary.linked(pid, to));
        if from.is_some() || to.is_some() {
            self.profile
                .branch(from.unwrap_or(0), to.unwrap_or(0), count, mispredictions);
        }
    }

    /// Counts a straight run by run-time address, which a transfer from `origin` began: for a
    /// profile of every branch of a trace.
    pub fn run(&mut self, pid: u32, origin: u64, start: u64, end: u64, count: u64) {
        let origin = self.binary.linked(pid, origin);
        let (start, end) = (self.binary.linked(pid, start), self.binary.linked(pid, end));
        if let (Some(start), Some(end)) = (start, end)
            && start <= end
        {
            let entered = !origin.is_some_and(|origin| self.binary.same_function(origin, start));
            let run = BoltRun {
                start,
                end,
                entered,
            };
            self.profile.run(run, count);
        }
    }

    /// What was counted so far.
    #[must_use]
    pub const fn profile(&self) -> &BoltProfile {
        &self.profile
    }
}

impl<W: Write> SampleSink for BoltSink<W> {
    fn comm(&mut self, task: TaskId, _: &str, exec: bool, _: u64) -> Result<(), ExportError> {
        if exec {
            self.binary.bias.remove(&task.pid);
        }
        Ok(())
    }

    fn mapping(&mut self, mapping: &Mapping, _: u64) -> Result<(), ExportError> {
        if !mapping.kernel && mapping.path == self.binary.path {
            let bias = self
                .binary
                .image
                .load_bias(mapping.start, mapping.len, mapping.pgoff);
            if let Some(bias) = bias {
                self.binary.bias.insert(mapping.pid, bias);
            }
        }
        Ok(())
    }

    fn fork(&mut self, parent: TaskId, child: TaskId, _: u64) -> Result<(), ExportError> {
        if let Some(&bias) = self.binary.bias.get(&parent.pid) {
            self.binary.bias.insert(child.pid, bias);
        }
        Ok(())
    }

    fn exit(&mut self, _: TaskId, _: TaskId, _: u64) -> Result<(), ExportError> {
        Ok(())
    }

    fn lost(&mut self, _: TaskId, _: u64, _: u64) -> Result<(), ExportError> {
        Ok(())
    }

    fn sample(&mut self, sample: &SampleRecord<'_>) -> Result<(), ExportError> {
        let mut newer_from = None;
        for entry in sample.branches {
            if entry.from >= KERNEL || entry.to >= KERNEL {
                continue;
            }
            if (entry.from, entry.to) == (0, 0) {
                newer_from = None;
                continue;
            }
            self.branch(
                sample.pid,
                entry.from,
                entry.to,
                1,
                u64::from(entry.flags.mispred),
            );
            if let Some(from) = newer_from {
                self.run(sample.pid, entry.from, entry.to, from, 1);
            }
            newer_from = Some(entry.from);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), ExportError> {
        if self.profile.is_empty() {
            return Err(ExportError::NothingInBinary {
                binary: self.binary.path.clone(),
            });
        }
        Ok(self.profile.write(&mut self.out)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_sums_in_the_order_of_addresses() {
        let mut profile = BoltProfile::default();
        profile.branch(0x20, 0x10, 2, 1);
        for (entered, count) in [(true, 3), (false, 1)] {
            let run = BoltRun {
                start: 0x10,
                end: 0x20,
                entered,
            };
            profile.run(run, count);
        }
        profile.branch(0, 0x10, 1, 0);
        profile.branch(0x20, 0x10, 1, 0);
        let mut text = Vec::new();
        profile.write(&mut text).expect("written");
        assert_eq!(text, b"B 0 10 1 0\nB 20 10 3 1\nF 10 20 1\nf 10 20 3\n");
    }
}
