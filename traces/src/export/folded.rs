//! Folded stacks, one a line with its count: what flame graphs are drawn from.

use std::collections::BTreeMap;
use std::io::Write;

use super::sink::{ExportError, SampleSink};
use crate::perfdata::{CONTEXT_KERNEL, CONTEXT_USER, Mapping, SampleRecord, TaskId};
use crate::symbols::Symbolizer;

/// Where a sample's stack comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackSource {
    /// The branch stack holds calls (call-stack mode): the sampled address, then each FROM.
    CallStackLbr,
    /// The call chain.
    CallChain,
    /// The sampled address alone: a branch stack of any branch is no call stack.
    Address,
}

/// What gives the frames of a stack their names.
pub trait FrameNames {
    /// The function that holds `address`, `[file]` if it has no name, or `[unknown]`.
    fn function(&self, pid: u32, address: u64) -> String;

    /// A mapping comes.
    fn map(&mut self, mapping: &Mapping) {
        let _ = mapping;
    }

    /// `child` starts with what `parent` has mapped.
    fn fork(&mut self, parent: u32, child: u32) {
        let _ = (parent, child);
    }

    /// The process runs another program.
    fn exec(&mut self, pid: u32) {
        let _ = pid;
    }
}

impl FrameNames for Symbolizer {
    fn function(&self, pid: u32, address: u64) -> String {
        match self.resolve(pid, address) {
            Some(resolved) => match resolved.symbol {
                Some(symbol) => symbol.display_name(),
                None => {
                    let name = resolved.path.file_name();
                    let name = name.unwrap_or(resolved.path.as_os_str());
                    format!("[{}]", name.to_string_lossy())
                }
            },
            None => "[unknown]".to_owned(),
        }
    }

    fn map(&mut self, mapping: &Mapping) {
        Self::map(self, mapping);
    }

    fn fork(&mut self, parent: u32, child: u32) {
        Self::fork(self, parent, child);
    }

    fn exec(&mut self, pid: u32) {
        Self::exec(self, pid);
    }
}

/// Counts samples by stack.
#[derive(Debug)]
pub struct FoldedSink<W, N> {
    out: W,
    source: StackSource,
    names: N,
    comms: BTreeMap<u32, String>,
    stacks: BTreeMap<String, u64>,
}

impl<W: Write, N: FrameNames> FoldedSink<W, N> {
    /// Resolves addresses with `names`, which is told of every mapping that comes.
    #[must_use]
    pub const fn new(out: W, source: StackSource, names: N) -> Self {
        Self {
            out,
            source,
            names,
            comms: BTreeMap::new(),
            stacks: BTreeMap::new(),
        }
    }

    /// The frames of a sample, innermost first.
    fn frames(&self, sample: &SampleRecord<'_>) -> Vec<u64> {
        match self.source {
            StackSource::CallStackLbr => {
                let calls = sample.branches.iter().filter(|e| (e.from, e.to) != (0, 0));
                std::iter::once(sample.ip)
                    .chain(calls.map(|entry| entry.from))
                    .collect()
            }
            StackSource::CallChain => sample
                .callchain
                .unwrap_or_default()
                .iter()
                .copied()
                .filter(|address| ![CONTEXT_KERNEL, CONTEXT_USER].contains(address))
                .collect(),
            StackSource::Address => vec![sample.ip],
        }
    }
}

/// A name without the characters that end a frame or a line.
fn clean(name: &str) -> String {
    name.chars()
        .map(|c| if c == ';' || c.is_control() { ':' } else { c })
        .collect()
}

impl<W: Write, N: FrameNames> SampleSink for FoldedSink<W, N> {
    fn comm(&mut self, task: TaskId, comm: &str, exec: bool, _: u64) -> Result<(), ExportError> {
        if exec {
            self.names.exec(task.pid);
        }
        self.comms.insert(task.tid, clean(comm));
        Ok(())
    }

    fn mapping(&mut self, mapping: &Mapping, _: u64) -> Result<(), ExportError> {
        self.names.map(mapping);
        Ok(())
    }

    fn fork(&mut self, parent: TaskId, child: TaskId, _: u64) -> Result<(), ExportError> {
        self.names.fork(parent.pid, child.pid);
        if let Some(comm) = self.comms.get(&parent.tid).cloned() {
            self.comms.insert(child.tid, comm);
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
        let mut line = match self
            .comms
            .get(&sample.tid)
            .or_else(|| self.comms.get(&sample.pid))
        {
            Some(comm) => comm.clone(),
            None => sample.pid.to_string(),
        };
        for address in self.frames(sample).into_iter().rev() {
            line.push(';');
            line.push_str(&clean(&self.names.function(sample.pid, address)));
        }
        let count = self.stacks.entry(line).or_default();
        *count += 1;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), ExportError> {
        for (stack, count) in &self.stacks {
            writeln!(self.out, "{stack} {count}")?;
        }
        Ok(self.out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perfdata::BranchEntry;

    #[test]
    fn stacks_run_from_the_outermost_call_to_the_sampled_address() {
        let mut text = Vec::new();
        let mut sink = FoldedSink::new(&mut text, StackSource::CallStackLbr, Symbolizer::new());
        let task = TaskId { pid: 7, tid: 7 };
        sink.comm(task, "a;b", true, 0).expect("named");
        sink.mapping(&Mapping::user(7, 0x1000, 0x1000, 0, "/nowhere/x"), 0)
            .expect("mapped");
        let branches = [BranchEntry {
            from: 0x1800,
            to: 0x10,
            ..BranchEntry::default()
        }];
        let sample = SampleRecord {
            ip: 0x10,
            pid: 7,
            tid: 7,
            time_ns: 0,
            cpu: 0,
            period: 1,
            kernel: false,
            branches: &branches,
            hw_idx: None,
            callchain: None,
            counts: &[],
            instance: 0,
        };
        sink.sample(&sample).expect("taken");
        sink.sample(&sample).expect("taken");
        sink.finish().expect("finished");
        assert_eq!(String::from_utf8_lossy(&text), "a:b;[x];[unknown] 2\n");
    }
}
