//! One thread or vCPU: from executed blocks to chunks.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vlbr_arch::FarKind;

use super::error::RecordError;
use super::file::TraceFile;
use crate::assemble::{AssembleError, Assembled, Assembler, Kind, RawBlocks};
use crate::vlt::{MachineAccess, MemoryAccess, Position, SideStreams, ThreadIndex};

/// Entries of a side stream after which a chunk is sealed early.
const MAX_MEMORY: usize = 4 << 20;
const MAX_MACHINE: usize = 1 << 18;

/// Writes what one stream executed.
#[derive(Debug)]
pub(super) struct StreamRecorder {
    file: Arc<TraceFile>,
    thread: ThreadIndex,
    assembler: Assembler,
    /// Raw id of the last block.
    last: u32,
    memory: Vec<MemoryAccess>,
    machine: Vec<(Position, MachineAccess)>,
    /// Instructions counted in the progress so far.
    counted: u64,
    /// Accesses left out: more than a chunk holds within one instruction.
    dropped: u64,
}

impl StreamRecorder {
    pub(super) fn new(
        file: Arc<TraceFile>,
        thread: ThreadIndex,
        kind: Kind,
        chunk_instructions: u64,
    ) -> Self {
        let assembler = Assembler::new(kind, Arc::clone(&file.interner), chunk_instructions);
        Self {
            file,
            thread,
            assembler,
            last: 0,
            memory: Vec::new(),
            machine: Vec::new(),
            counted: 0,
            dropped: 0,
        }
    }

    /// As [`Assembler::exact`].
    pub(super) fn exact(mut self) -> Self {
        self.assembler = self.assembler.exact();
        self
    }

    fn error(&self, source: AssembleError) -> RecordError {
        RecordError::Assemble {
            stream: self.thread.0,
            source,
        }
    }

    pub(super) fn push(
        &mut self,
        blocks: &impl RawBlocks,
        mut ids: &[u32],
    ) -> Result<(), RecordError> {
        if let Some(&last) = ids.last() {
            self.last = last;
        }
        while !ids.is_empty() {
            let taken = self
                .assembler
                .push(blocks, ids)
                .map_err(|e| self.error(e))?;
            ids = &ids[taken..];
            if !ids.is_empty() {
                self.seal()?;
            }
        }
        self.count();
        if self.file.is_full() {
            self.seal()?;
            return Err(RecordError::TooMuchCode);
        }
        Ok(())
    }

    fn count(&mut self) {
        let now = self.assembler.retired();
        // A return that places an event can lower the count.
        let more = now.saturating_sub(self.counted);
        self.counted += more;
        self.file.instructions.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn event(&mut self, kind: FarKind, from: u64, certain: bool) {
        if certain {
            self.assembler.event(kind, from);
        } else {
            self.assembler.likely_event(kind, from);
        }
    }

    pub(super) fn address_space(&mut self, space: u32) {
        self.assembler.address_space(space);
    }

    /// The place of instruction `instruction` of the last block.
    fn position(&self, instruction: u16) -> Position {
        Position {
            step: self.assembler.position() as u32,
            instruction,
        }
    }

    /// Notes a data access of the last block.
    pub(super) fn memory(
        &mut self,
        instruction: u16,
        address: u64,
        size_log2: u8,
        store: bool,
    ) -> Result<(), RecordError> {
        if self.memory.len() >= MAX_MEMORY && !self.make_room(self.memory_in_open())? {
            return Ok(());
        }
        let position = match self.assembler.open() {
            // A repeat of the string instruction that the open block ends in.
            Some((id, instructions)) if id != self.last => self.position(instructions - 1),
            _ => self.position(instruction),
        };
        // A block that is run again before anything retired repeats its accesses.
        while self
            .memory
            .last()
            .is_some_and(|last| last.position > position)
        {
            self.memory.pop();
        }
        self.memory.push(MemoryAccess {
            position,
            address,
            size_log2,
            store,
        });
        Ok(())
    }

    /// Notes an MSR, port or CPUID access of the last block.
    pub(super) fn machine(
        &mut self,
        instruction: u16,
        access: MachineAccess,
    ) -> Result<(), RecordError> {
        if self.machine.len() >= MAX_MACHINE && !self.make_room(false)? {
            return Ok(());
        }
        let position = self.position(instruction);
        while self
            .machine
            .last()
            .is_some_and(|(last, _)| *last > position)
        {
            self.machine.pop();
        }
        self.machine.push((position, access));
        Ok(())
    }

    fn memory_in_open(&self) -> bool {
        let open = self.assembler.position() as u32;
        self.memory
            .first()
            .is_some_and(|first| first.position.step == open)
    }

    /// Seals so that a full side stream gets room; false if all of it belongs to one instruction.
    fn make_room(&mut self, all_in_open: bool) -> Result<bool, RecordError> {
        if all_in_open || self.assembler.position() == 0 {
            self.dropped += 1;
            return Ok(false);
        }
        self.seal()?;
        Ok(true)
    }

    fn seal(&mut self) -> Result<(), RecordError> {
        let chunk = self.assembler.seal();
        if chunk.steps.is_empty() {
            return Ok(());
        }
        let (memory, machine) = self.place_sides(&chunk);
        let sides = SideStreams {
            memory: &self.memory,
            machine: &self.machine,
            times: &[],
        };
        self.file.chunk(self.thread, &chunk.steps, &sides)?;
        (self.memory, self.machine) = (memory, machine);
        Ok(())
    }

    /// Moves what was noted to where the steps have come to lie; the result is what belongs to the
    /// block that is still open.
    fn place_sides(
        &mut self,
        chunk: &Assembled,
    ) -> (Vec<MemoryAccess>, Vec<(Position, MachineAccess)>) {
        let end = chunk.steps.len() + chunk.removed.len();
        let open = |position: &Position| position.step as usize >= end;
        let split = self
            .memory
            .partition_point(|access| !open(&access.position));
        let mut memory = self.memory.split_off(split);
        let split = self
            .machine
            .partition_point(|(position, _)| !open(position));
        let mut machine = self.machine.split_off(split);
        let carried = memory.iter_mut().map(|access| &mut access.position);
        for position in carried.chain(machine.iter_mut().map(|(position, _)| position)) {
            position.step = 0;
        }
        if !chunk.removed.is_empty() {
            let noted = self.memory.iter_mut().map(|access| &mut access.position);
            for position in noted.chain(self.machine.iter_mut().map(|(position, _)| position)) {
                let step = position.step as usize;
                position.step -= chunk.removed.partition_point(|&hole| hole < step) as u32;
            }
        }
        (memory, machine)
    }

    /// Data was lost here.
    pub(super) fn gap(&mut self) -> Result<(), RecordError> {
        self.assembler.gap().map_err(|e| self.error(e))
    }

    /// The stream is over. The result is how many accesses were left out.
    pub(super) fn end(mut self) -> Result<u64, RecordError> {
        self.assembler.finish().map_err(|e| self.error(e))?;
        self.count();
        self.seal()?;
        self.file.add_stats(self.assembler.stats());
        Ok(self.dropped)
    }
}
