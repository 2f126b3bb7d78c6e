//! A traced thread: what it is about to run, the block it is in, and what was not delivered yet.

use crate::qemu::{Batch, Event, EventKind, ProcessId, RawBlock, StreamEnd, StreamId, StreamSink};

use super::code::{Code, Instruction};
use super::error::Error;

/// Instructions after which a block ends.
const LONGEST_BLOCK: usize = 256;
/// Blocks that are delivered at once.
const BATCH: usize = 4096;

#[derive(Debug)]
pub(super) struct Thread<T> {
    pub(super) stream: StreamId,
    pub(super) process: ProcessId,
    sink: T,
    /// The next instruction; `None` where its bytes cannot be read.
    next: Option<Instruction>,
    /// Address of the next instruction.
    pub(super) address: u64,
    /// A signal that is being delivered: whether the kernel raised it for an instruction.
    pub(super) signal: Option<bool>,
    start: u64,
    end: u64,
    lengths: Vec<u8>,
    bytes: Vec<u8>,
    ids: Vec<u32>,
    events: Vec<Event>,
    /// Instructions that ran without their bytes being known.
    pub(super) unreadable: u64,
}

impl<T: StreamSink> Thread<T> {
    /// A thread that is about to run the instruction at `address`.
    pub(super) fn new(
        stream: StreamId,
        process: ProcessId,
        sink: T,
        code: &mut Code,
        address: u64,
    ) -> Self {
        Self {
            stream,
            process,
            sink,
            next: code.instruction(address),
            address,
            signal: None,
            start: 0,
            end: 0,
            lengths: Vec::new(),
            bytes: Vec::new(),
            ids: Vec::new(),
            events: Vec::new(),
            unreadable: 0,
        }
    }

    /// Whether the next instruction enters the kernel by itself.
    pub(super) fn at_syscall(&self) -> bool {
        self.next.is_some_and(|next| next.syscall)
    }

    /// The thread is about to run the instruction at `address`; what was next before has not run.
    pub(super) fn aim(&mut self, code: &mut Code, address: u64) {
        self.address = address;
        self.next = code.instruction(address);
    }

    /// A step ended at `address`.
    pub(super) fn stepped(&mut self, code: &mut Code, address: u64) -> Result<(), Error> {
        if address == self.address && self.next.is_some_and(|next| next.repeats) {
            return Ok(());
        }
        self.retire(code)?;
        self.aim(code, address);
        Ok(())
    }

    /// The next instruction has run.
    pub(super) fn retire(&mut self, code: &mut Code) -> Result<(), Error> {
        let Some(instruction) = self.next.take() else {
            self.unreadable += 1;
            return self.close(code);
        };
        if !self.lengths.is_empty()
            && (self.end != instruction.address || self.lengths.len() >= LONGEST_BLOCK)
        {
            self.close(code)?;
        }
        if self.lengths.is_empty() {
            self.start = instruction.address;
        }
        self.lengths.push(instruction.bytes().len() as u8);
        self.bytes.extend_from_slice(instruction.bytes());
        self.end = instruction.end();
        // The assembler expects a REP string instruction at the end of its block.
        if instruction.branch || instruction.repeats {
            self.close(code)?;
        }
        Ok(())
    }

    /// A signal handler at `address` took over before the next instruction.
    pub(super) fn interrupted(
        &mut self,
        code: &mut Code,
        exception: bool,
        address: u64,
    ) -> Result<(), Error> {
        self.close(code)?;
        self.events.push(Event {
            preceding: self.ids.len() as u32,
            instruction: 0,
            kind: EventKind::Discontinuity {
                interrupt: !exception,
                certain: true,
                from: self.address,
                to: address,
            },
        });
        self.aim(code, address);
        Ok(())
    }

    fn close(&mut self, code: &mut Code) -> Result<(), Error> {
        if self.lengths.is_empty() {
            return Ok(());
        }
        let id = code.block(RawBlock {
            start: self.start,
            sizes: std::mem::take(&mut self.lengths).into(),
            bytes: std::mem::take(&mut self.bytes).into(),
            mode: None,
        });
        self.ids.push(id);
        if self.ids.len() >= BATCH {
            self.deliver(code)?;
        }
        Ok(())
    }

    fn deliver(&mut self, code: &Code) -> Result<(), Error> {
        if self.ids.is_empty() && self.events.is_empty() {
            return Ok(());
        }
        let batch = Batch {
            blocks: &code.blocks,
            ids: &self.ids,
            memory: &[],
            events: &self.events,
        };
        self.sink.batch(&batch).map_err(Error::Sink)?;
        self.ids.clear();
        self.events.clear();
        Ok(())
    }

    /// The thread is over.
    pub(super) fn end(mut self, code: &mut Code, end: StreamEnd) -> Result<u64, Error> {
        // From these instructions there is no stop to see: they do not return.
        if self.at_syscall() {
            self.retire(code)?;
        }
        self.close(code)?;
        self.deliver(code)?;
        self.sink.end(end).map_err(Error::Sink)?;
        Ok(self.unreadable)
    }
}
