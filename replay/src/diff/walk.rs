//! A thread of a trace as straight runs between transfers, however its blocks were cut.

use std::path::Path;

use vlbr_cpu::Exit;
use vlbr_traces::symbols::places::{Place, Places};
use vlbr_traces::vlt::{ChunkBuffer, ThreadIndex, Trace};

use super::error::DiffError;
use super::union::Union;

/// How a straight run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// By a taken branch or an event, from one place to another.
    Transfer {
        /// FROM.
        from: Place,
        /// TO.
        to: Place,
    },
    /// The trace does not say how it went on.
    Gap,
    /// The trace ends.
    End,
}

/// Instructions in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StraightRun {
    /// Where it starts.
    pub(super) start: Place,
    /// Instructions retired in it.
    pub(super) instructions: u64,
    /// How it ended.
    pub(super) leave: Leave,
}

/// What one step of a chunk does.
#[derive(Clone, Copy, Debug)]
struct Does {
    start: Place,
    instructions: u64,
    /// Where a run that goes on has to go on.
    next: Place,
    leave: Option<Leave>,
}

/// A thread's runs, in order.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    path: &'a Path,
    trace: &'a Trace,
    places: &'a Places,
    union: &'a Union,
    side: usize,
    process: u32,
    /// Chunks of the thread that are left, the next one last.
    chunks: Vec<usize>,
    buffer: ChunkBuffer,
    does: Vec<Does>,
    /// The steps of the current chunk as indices into `does`.
    steps: Vec<u32>,
    next: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        path: &'a Path,
        trace: &'a Trace,
        places: &'a Places,
        union: &'a Union,
        side: usize,
        thread: usize,
    ) -> Self {
        let index = ThreadIndex(thread as u32);
        let chunks = trace.chunks().iter().enumerate().rev();
        Self {
            path,
            trace,
            places,
            union,
            side,
            process: trace.threads()[thread].process.0,
            chunks: chunks
                .filter(|(_, chunk)| chunk.thread == index)
                .map(|(number, _)| number)
                .collect(),
            buffer: ChunkBuffer::default(),
            does: Vec::new(),
            steps: Vec::new(),
            next: 0,
        }
    }

    /// The next run; `None` at the end of the thread.
    pub(super) fn next_run(&mut self) -> Result<Option<StraightRun>, DiffError> {
        let mut run: Option<(StraightRun, Place)> = None;
        loop {
            let Some(does) = self.step()? else {
                return Ok(run.map(|(run, _)| run));
            };
            let (open, expected) = run.get_or_insert((
                StraightRun {
                    start: does.start,
                    instructions: 0,
                    leave: Leave::End,
                },
                does.start,
            ));
            if *expected != does.start {
                open.leave = Leave::Gap;
                self.next -= 1;
                return Ok(run.map(|(run, _)| run));
            }
            open.instructions += does.instructions;
            *expected = does.next;
            if let Some(leave) = does.leave {
                open.leave = leave;
                return Ok(run.map(|(run, _)| run));
            }
        }
    }

    fn step(&mut self) -> Result<Option<Does>, DiffError> {
        while self.next == self.steps.len() {
            let Some(chunk) = self.chunks.pop() else {
                return Ok(None);
            };
            self.load(chunk)?;
        }
        let does = self.does[self.steps[self.next] as usize];
        self.next += 1;
        Ok(Some(does))
    }

    fn load(&mut self, index: usize) -> Result<(), DiffError> {
        let decoded = self.trace.decode(index, &mut self.buffer);
        let chunk = decoded.map_err(|source| DiffError::Trace {
            path: self.path.to_owned(),
            source,
        })?;
        let code = self.trace.code();
        let place = |address| {
            let place = self.places.locate(self.process, index as u64, address);
            // Two traces: everything can be compared.
            self.union.place(self.side, place, false).unwrap_or(place)
        };
        self.does.clear();
        self.does.extend(chunk.map.iter().map(|&id| {
            let step = code.step(id);
            let block = code.block_of(id);
            let leave = match step.exit {
                Exit::Sequential => None,
                Exit::Gap => Some(Leave::Gap),
                Exit::Taken { .. } | Exit::Event { .. } => Some(match code.transfer(id) {
                    Some(transfer) => Leave::Transfer {
                        from: place(transfer.from),
                        to: place(transfer.to),
                    },
                    None => Leave::Gap,
                }),
            };
            Does {
                start: place(block.address()),
                instructions: step.retired.into(),
                next: place(block.address_of(step.retired)),
                leave,
            }
        }));
        self.steps.clear();
        self.steps
            .extend((0..chunk.ids.len()).map(|step| chunk.ids.local(step) as u32));
        self.next = 0;
        Ok(())
    }
}
