//! What a retired step gives the counters.

use iced_x86::{
    Decoder, DecoderOptions, InstructionInfoFactory, InstructionInfoOptions, Mnemonic, OpAccess,
};
use vlbr_arch::BranchClass;
use vlbr_pmu::{Increments, Selector, Source, SourceSet};

use crate::block::Block;
use crate::code::{Code, StepId};
use crate::step::Exit;

/// Whether time passes for counters of clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Clock {
    /// Clocks are not fed.
    #[default]
    None,
    /// One core clock and one reference clock for each instruction: nominal, no measurement.
    Instructions,
    /// Those of a [`crate::StepClock`]. They are not of the step alone, so whoever asks that clock adds
    /// them.
    Model {
        /// It tells which branches are mispredicted, those that fall through among them.
        predicts: bool,
    },
}

/// How many occurrences of LBR_INSERTS a step is: what the LBR under its filter says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Inserts(pub u8);

/// Makes [`Increments`] of the steps of a trace.
///
/// Branches count by class, direction and recorded misprediction, at the last instruction of their
/// step. A near branch that the trace does not show taken, because it fell through or retired into a
/// gap, counts as a conditional one that was not taken. An instruction that accesses memory by its encoding counts as a load or store: a REP
/// string instruction that repeated 0 times does, and an access with all elements masked; so does a
/// software prefetch as a load, by the text of Intel's MEM_INST_RETIRED.ALL_LOADS. What a NOP or LEA
/// names is no access. Only steps left by a transfer or an event tell of a transaction: others count
/// as outside of any.
#[derive(Clone, Debug)]
pub struct Feed<'c> {
    code: &'c Code,
    clock: Clock,
    memory: Option<Memory>,
}

impl<'c> Feed<'c> {
    /// The feed of `code` for counters of `sources`. Operands are looked at only if these ask for
    /// loads or stores.
    #[must_use]
    pub fn new(code: &'c Code, sources: SourceSet, clock: Clock) -> Self {
        let asked = !sources.without(SourceSet::ALL.without(MEMORY)).is_empty();
        Self {
            code,
            clock,
            memory: asked.then(|| Memory::new(code)),
        }
    }

    /// What can be fed from the steps of `code`: instructions, branches, instructions with loads
    /// and stores, `LBR_INSERTS`, clocks as `clock` says. Mispredicted branches if the clock predicts;
    /// else mispredicted taken ones if some step has one, and branches that fell through are never known
    /// to be mispredicted.
    #[must_use]
    pub fn sources(code: &Code, clock: Clock) -> SourceSet {
        let mut sources = SourceSet::RETIREMENT
            .with(MEMORY)
            .with(SourceSet::of(Source::LbrInserts));
        if clock != Clock::None {
            sources = sources.with(CLOCKS);
        }
        if clock == (Clock::Model { predicts: true }) {
            sources = sources.with(SourceSet::MISPREDICTIONS);
        } else if records_mispredictions(code) {
            let untold = SourceSet::of(Source::MispredictedConditionalNotTaken);
            sources = sources.with(SourceSet::MISPREDICTIONS.without(untold));
        }
        sources
    }

    /// Everything that happens in `step`.
    #[must_use]
    pub fn step(&self, step: StepId, inserts: Inserts) -> Increments {
        self.step_as(step, inserts, recorded(self.code, step))
    }

    /// [`Feed::step`] with a branch that was `mispredicted` or not, whatever the trace says.
    #[must_use]
    pub fn step_as(&self, step: StepId, inserts: Inserts, mispredicted: bool) -> Increments {
        let retired = self.code.step(step).retired;
        let mut sum = self.head(step, retired);
        self.tail(step, inserts, mispredicted, &mut sum);
        sum
    }

    /// What the first `retired` instructions of `step` are, without the branch at the end.
    fn head(&self, step: StepId, retired: u16) -> Increments {
        let Self { code, clock, .. } = *self;
        let what = code.step(step);
        let block = code.block(what.block);
        let cpl = block.mode().cpl;
        let mut sum = Increments::new();
        sum.in_tx = in_tx(what.exit);
        sum.add(Source::Instructions, cpl, retired.into());
        if clock == Clock::Instructions {
            sum.add(Source::CoreCycles, cpl, retired.into());
            sum.add(Source::ReferenceCycles, cpl, retired.into());
        }
        if let Some(memory) = &self.memory {
            for access in memory.of(what.block.0).iter().take(usize::from(retired)) {
                sum.add(Source::LoadInstructions, cpl, access.load.into());
                sum.add(Source::StoreInstructions, cpl, access.store.into());
                let any = access.load || access.store;
                sum.add(Source::MemoryInstructions, cpl, any.into());
            }
        }
        sum
    }

    /// The branch and the LBR record at the end.
    fn tail(&self, step: StepId, inserts: Inserts, mispredicted: bool, sum: &mut Increments) {
        let what = self.code.step(step);
        let block = self.code.block(what.block);
        let cpl = block.mode().cpl;
        if let Some(branch) = block
            .branch()
            .filter(|_| what.retired == block.instructions())
        {
            match (what.exit, branch.class) {
                (Exit::Taken { .. }, class) => sum.add_branch(class, true, mispredicted, cpl),
                // INTO shares its class with instructions that always transfer.
                (_, class @ BranchClass::Far(_)) => {
                    sum.add_branch(class, false, mispredicted, cpl);
                }
                _ => sum.add_branch(BranchClass::Jcc, false, mispredicted, cpl),
            }
        }
        sum.add(Source::LbrInserts, cpl, inserts.0.into());
    }

    /// What happens up to and including instruction `index` (from 0) of `step`: behind the last
    /// one also its branch, and its record unless an event leaves the step.
    #[must_use]
    pub fn through(&self, step: StepId, index: u16, inserts: Inserts) -> Increments {
        self.through_as(step, index, inserts, recorded(self.code, step))
    }

    /// [`Feed::through`] with a branch that was `mispredicted` or not, whatever the trace says.
    #[must_use]
    pub fn through_as(
        &self,
        step: StepId,
        index: u16,
        inserts: Inserts,
        mispredicted: bool,
    ) -> Increments {
        let what = self.code.step(step);
        let mut sum = self.head(step, what.retired.min(index.saturating_add(1)));
        if index.saturating_add(1) >= what.retired {
            let by_event = matches!(what.exit, Exit::Event { .. });
            let inserts = if by_event { Inserts(0) } else { inserts };
            self.tail(step, inserts, mispredicted, &mut sum);
        }
        sum
    }

    /// For each event that `selector` sees in `step`, behind how many instructions it occurs, in
    /// order. An LBR record of an event that leaves the step occurs behind all of them.
    #[must_use]
    pub fn places(&self, step: StepId, selector: &Selector, inserts: Inserts) -> Vec<u16> {
        let retired = self.code.step(step).retired;
        let mut places = Vec::new();
        let mut seen = 0;
        let mut note = |sum: &Increments, behind: u16| {
            let now = selector.amount(sum);
            for _ in seen..now {
                places.push(behind);
            }
            seen = seen.max(now);
        };
        for index in 0..retired {
            note(&self.through(step, index, inserts), index + 1);
        }
        note(&self.step(step, inserts), retired);
        places
    }
}

const MEMORY: SourceSet = SourceSet::of(Source::LoadInstructions)
    .with(SourceSet::of(Source::StoreInstructions))
    .with(SourceSet::of(Source::MemoryInstructions));

const CLOCKS: SourceSet =
    SourceSet::of(Source::CoreCycles).with(SourceSet::of(Source::ReferenceCycles));

/// Whether the trace recorded that the branch of `step` was mispredicted.
fn recorded(code: &Code, step: StepId) -> bool {
    code.step(step).exit.is_mispredicted()
}

/// Whether the trace recorded any misprediction.
fn records_mispredictions(code: &Code) -> bool {
    code.steps().iter().any(|step| step.exit.is_mispredicted())
}

fn in_tx(exit: Exit) -> bool {
    match exit {
        Exit::Taken { in_tx, .. } | Exit::Event { in_tx, .. } => in_tx,
        Exit::Sequential | Exit::Gap => false,
    }
}

/// Whether an instruction reads and writes memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Access {
    load: bool,
    store: bool,
}

/// The accesses of every block's instructions.
#[derive(Clone, Debug)]
struct Memory {
    /// Where each block begins in `accesses`.
    starts: Vec<usize>,
    accesses: Vec<Access>,
}

impl Memory {
    fn new(code: &Code) -> Self {
        let mut factory = InstructionInfoFactory::new();
        let (mut starts, mut accesses) = (Vec::new(), Vec::new());
        for block in code.blocks() {
            starts.push(accesses.len());
            append(&mut factory, block, &mut accesses);
        }
        starts.push(accesses.len());
        Self { starts, accesses }
    }

    fn of(&self, block: u32) -> &[Access] {
        let block = block as usize;
        &self.accesses[self.starts[block]..self.starts[block + 1]]
    }
}

/// Appends the accesses of `block`, one for each instruction. One that the decoder does not know
/// has none.
fn append(factory: &mut InstructionInfoFactory, block: &Block, accesses: &mut Vec<Access>) {
    let (bits, mut rest) = (block.mode().code_size.bits(), block.bytes());
    for &length in block.lengths() {
        let (bytes, behind) = rest.split_at(usize::from(length));
        rest = behind;
        let instruction = Decoder::new(bits, bytes, DecoderOptions::NONE).decode();
        let mut access = Access::default();
        if !instruction.is_invalid() {
            let options = InstructionInfoOptions::NO_REGISTER_USAGE;
            for used in factory.info_options(&instruction, options).used_memory() {
                let (load, store) = match used.access() {
                    OpAccess::Read | OpAccess::CondRead => (true, false),
                    OpAccess::Write | OpAccess::CondWrite => (false, true),
                    OpAccess::ReadWrite | OpAccess::ReadCondWrite => (true, true),
                    OpAccess::None | OpAccess::NoMemAccess => (false, false),
                };
                access.load |= load;
                access.store |= store;
            }
            access.load |= is_prefetch(instruction.mnemonic());
        }
        accesses.push(access);
    }
}

/// PREFETCHNTA, PREFETCHT0 to T2 and PREFETCHW, which the decoder knows no access of.
const fn is_prefetch(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{Prefetchnta, Prefetcht0, Prefetcht1, Prefetcht2, Prefetchw};
    matches!(
        mnemonic,
        Prefetchnta | Prefetcht0 | Prefetcht1 | Prefetcht2 | Prefetchw
    )
}

#[cfg(test)]
mod tests {
    use vlbr_arch::{CodeSize, Cpl};

    use super::*;
    use crate::block::Mode;
    use crate::step::{Step, Target};

    /// mov rax,[rbx]; mov [rbx],rax; add [rbx],rax; lea rax,[rbx]; nop [rax]; push rax; pop rax;
    /// call +0
    const BODY: [u8; 24] = [
        0x48, 0x8b, 0x03, 0x48, 0x89, 0x03, 0x48, 0x01, 0x03, 0x48, 0x8d, 0x03, 0x0f, 0x1f, 0x00,
        0x50, 0x58, 0x90, 0x90, 0xe8, 0, 0, 0, 0,
    ];

    fn code(exit: Exit) -> Code {
        let mut code = Code::new();
        let block = Block::decode(0x1000, Mode::user64(0), &BODY).unwrap();
        let retired = block.instructions();
        let block = code.add_block(block).unwrap();
        let step = Step {
            block,
            retired,
            exit,
        };
        code.add_step(step).unwrap();
        code
    }

    fn called() -> Code {
        code(Exit::Taken {
            target: Target {
                address: 0x1000 + BODY.len() as u64,
                cs_base: 0,
                code_size: CodeSize::Bits64,
                cpl: Cpl::Ring3,
            },
            mispredicted: false,
            in_tx: false,
        })
    }

    #[test]
    fn loads_and_stores_are_those_of_the_operands() {
        let code = called();
        let feed = Feed::new(&code, MEMORY, Clock::None);
        let sum = feed.step(StepId(0), Inserts(1));
        let amount = |source| sum.amount(source, true);
        assert_eq!(amount(Source::Instructions), 10);
        // mov, add and pop read; mov, add, push and call write.
        assert_eq!(amount(Source::LoadInstructions), 3);
        assert_eq!(amount(Source::StoreInstructions), 4);
        assert_eq!(amount(Source::MemoryInstructions), 6);
        assert_eq!(amount(Source::NearRelCall), 1);
        assert_eq!(amount(Source::LbrInserts), 1);
        assert_eq!(amount(Source::CoreCycles), 0);
    }

    #[test]
    fn a_software_prefetch_is_a_load() {
        // prefetchnta [rax]; prefetcht0 [rax]; prefetchw [rax]; nop [rax]
        let bytes = [
            0x0f, 0x18, 0x00, 0x0f, 0x18, 0x08, 0x0f, 0x0d, 0x08, 0x0f, 0x1f, 0x00,
        ];
        let mut code = Code::new();
        let block = Block::decode(0x1000, Mode::user64(0), &bytes).unwrap();
        let block = code.add_block(block).unwrap();
        code.add_step(Step {
            block,
            retired: 4,
            exit: Exit::Sequential,
        })
        .unwrap();
        let sum = Feed::new(&code, MEMORY, Clock::None).step(StepId(0), Inserts(0));
        assert_eq!(sum.amount(Source::LoadInstructions, true), 3);
        assert_eq!(sum.amount(Source::MemoryInstructions, true), 3);
        assert_eq!(sum.amount(Source::StoreInstructions, true), 0);
    }

    #[test]
    fn parts_of_a_step_add_up_to_it() {
        let code = called();
        for clock in [Clock::None, Clock::Instructions] {
            let feed = Feed::new(&code, MEMORY, clock);
            let whole = feed.step(StepId(0), Inserts(1));
            assert_eq!(feed.through(StepId(0), 9, Inserts(1)), whole);
            let all = Selector {
                sources: SourceSet::ALL,
                kernel: true,
                user: true,
                in_tx: false,
                any_thread: false,
            };
            let places = feed.places(StepId(0), &all, Inserts(1));
            assert_eq!(places.len() as u64, all.amount(&whole));
            assert!(places.is_sorted());
        }
    }

    #[test]
    fn an_overflow_inside_a_block_has_its_instruction() {
        let code = called();
        let feed = Feed::new(&code, MEMORY, Clock::None);
        let selector = |source| Selector {
            sources: SourceSet::of(source),
            kernel: false,
            user: true,
            in_tx: false,
            any_thread: false,
        };
        let places = |source| feed.places(StepId(0), &selector(source), Inserts(1));
        assert_eq!(places(Source::LoadInstructions), [1, 3, 7]);
        assert_eq!(places(Source::StoreInstructions), [2, 3, 6, 10]);
        assert_eq!(places(Source::NearRelCall), [10]);
    }

    #[test]
    fn mispredictions_are_fed_if_a_step_has_one() {
        let sources = Feed::sources(&called(), Clock::None);
        assert!(!sources.contains(Source::MispredictedNearReturn));
        assert!(!sources.contains(Source::CoreCycles));
        let mut code = called();
        let mut step = *code.step(StepId(0));
        if let Exit::Taken { mispredicted, .. } = &mut step.exit {
            *mispredicted = true;
        }
        code.add_step(step).unwrap();
        let sources = Feed::sources(&code, Clock::Instructions);
        assert!(sources.contains(Source::MispredictedNearReturn));
        assert!(!sources.contains(Source::MispredictedConditionalNotTaken));
        assert!(sources.contains(Source::CoreCycles));
        let sum = Feed::new(&code, SourceSet::EMPTY, Clock::None).step(StepId(1), Inserts(0));
        assert_eq!(sum.amount(Source::MispredictedNearRelCall, true), 1);
    }
}
