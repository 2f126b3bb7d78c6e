//! The rules of the module, one by one.

use std::sync::{Arc, RwLock};

use vlbr_arch::{BranchClass, CodeSize, Cpl, FarKind, Transfer};
use vlbr_cpu::{Block, Exit, Interner, Mode, ModeSource};

use super::*;

mod chunks;
mod frames;
mod modes;
mod rules;
mod stores;
mod user;

const KERNEL: u64 = 0xffff_ffff_8100_0000;
const HANDLER: u64 = 0xffff_ffff_81e0_0000;
const OTHER_HANDLER: u64 = 0xffff_ffff_81e1_0000;

const NOP2: &[u8] = &[0x90, 0x90];
const RET: &[u8] = &[0x90, 0xc3];
const IRETQ: &[u8] = &[0x90, 0x48, 0xcf];
const SYSCALL: &[u8] = &[0x90, 0x0f, 0x05];
const SIGRETURN: &[u8] = &[0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05];
/// `jmp +0xe`.
const JMP_AHEAD: &[u8] = &[0xeb, 0x0e];
/// `nop; rep movsb`.
const REP: &[u8] = &[0x90, 0xf3, 0xa4];

/// A stream under test.
struct Stream {
    table: RawTable,
    interner: Arc<RwLock<Interner>>,
    assembler: Assembler,
}

/// A step as the tests state it: block address, instructions retired, exit.
#[derive(Debug, PartialEq)]
enum Seen {
    /// On to the next instruction.
    On(u64, u16),
    /// A transfer of this class to this address.
    To(u64, u16, BranchClass, u64),
    /// Nothing known.
    Gap(u64, u16),
}

use Seen::{Gap, On, To};

fn far(kind: FarKind) -> BranchClass {
    BranchClass::Far(kind)
}

impl Stream {
    fn new(kind: Kind) -> Self {
        let interner = Arc::new(RwLock::new(Interner::new()));
        Self {
            table: RawTable::new(),
            assembler: Assembler::new(kind, Arc::clone(&interner), 1 << 20),
            interner,
        }
    }

    fn system() -> Self {
        Self::new(Kind::System)
    }

    fn user() -> Self {
        Self::new(Kind::User { space: 3 })
    }

    /// Executes 64-bit code `bytes` at `start`.
    fn run(&mut self, start: u64, bytes: &[u8]) {
        let block = Block::decode(start, Mode::user64(0), bytes).unwrap();
        let lengths = block.lengths().to_vec();
        self.run_raw(start, bytes, &lengths, None);
    }

    fn run_raw(&mut self, start: u64, bytes: &[u8], lengths: &[u8], mode: Option<RecordedMode>) {
        let raw = RawBlock {
            start,
            lengths,
            bytes,
            mode,
        };
        // An id for each, so that equal blocks meet in the interner, except for neighbours: a
        // repeat must hit the cache too.
        let known = (0..self.table.len() as u32).find(|&id| self.table.raw(id) == Some(raw));
        let id = known.unwrap_or_else(|| self.table.add(raw).unwrap());
        assert_eq!(self.assembler.push(&self.table, &[id]), Ok(1));
    }

    fn transfers(&mut self) -> Vec<Transfer> {
        let chunk = self.assembler.seal();
        let interner = self.interner.read().unwrap();
        let code = interner.code();
        chunk
            .steps
            .iter()
            .filter_map(|&step| code.transfer(step).copied())
            .collect()
    }

    fn steps(&mut self) -> Vec<Seen> {
        let chunk = self.assembler.seal();
        let interner = self.interner.read().unwrap();
        let code = interner.code();
        let steps: Vec<Seen> = chunk
            .steps
            .iter()
            .map(|&id| {
                let step = code.step(id);
                let address = code.block(step.block).address();
                match (step.exit, code.transfer(id)) {
                    (_, Some(transfer)) => To(address, step.retired, transfer.class, transfer.to),
                    (Exit::Gap, None) => Gap(address, step.retired),
                    _ => On(address, step.retired),
                }
            })
            .collect();
        let retired: u64 = chunk
            .steps
            .iter()
            .map(|&id| u64::from(code.step(id).retired))
            .sum();
        assert_eq!(retired, chunk.retired, "running count of instructions");
        steps
    }

    fn finish(&mut self) -> Vec<Seen> {
        self.assembler.finish().unwrap();
        self.steps()
    }
}
