//! What happened between two executed blocks.

use iced_x86::{Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic, OpAccess};
use rustc_hash::FxHashMap;
use vlbr_arch::{BranchClass, CodeSize, Cpl, FarKind};
use vlbr_cpu::{Block, BlockId, Terminator};

use super::mode::{Entry, Kind, is_high};
use super::raw::RawBlock;
use super::stats::Late;

/// A decoded block and its id in the code of the trace.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) id: BlockId,
    pub(super) block: Block,
    /// Real-mode segment unknown: addresses are compared modulo 64 KiB.
    pub(super) guessed_segment: bool,
}

impl Decoded {
    /// Linear address of effective address `address`.
    pub(super) fn linear(&self, address: u64) -> u64 {
        let mode = self.block.mode();
        let linear = mode.cs_base.wrapping_add(address);
        match mode.code_size {
            CodeSize::Bits64 => linear,
            CodeSize::Bits32 | CodeSize::Bits16 => linear & 0xffff_ffff,
        }
    }

    pub(super) fn start(&self) -> u64 {
        self.linear(self.block.address())
    }

    pub(super) fn end(&self) -> u64 {
        self.linear(self.block.end())
    }

    pub(super) fn last(&self) -> u64 {
        self.linear(self.block.last_address())
    }

    /// Whether the direct branch at the end goes to linear address `linear`.
    pub(super) fn targets(&self, linear: u64) -> bool {
        let Some(target) = self.block.branch().and_then(|branch| branch.target) else {
            return false;
        };
        if self.guessed_segment {
            target & 0xffff == linear & 0xffff && linear.abs_diff(self.end()) < 0x1_0000
        } else {
            self.linear(target) == linear
        }
    }

    /// Index of the instruction at linear address `linear`, if it is one of this block.
    pub(super) fn index_of(&self, linear: u64) -> Option<u16> {
        let mut address = self.block.address();
        for (index, &length) in (0u16..).zip(self.block.lengths()) {
            if self.linear(address) == linear {
                return Some(index);
            }
            address = address.wrapping_add(u64::from(length));
        }
        None
    }

    pub(super) fn class(&self) -> Option<BranchClass> {
        self.block.branch().map(|branch| branch.class)
    }

    /// Code size at the target of the direct far jump or call at the end, if that has the operand
    /// size of the other code size: a target offset of 32 bits suits 32-bit code, one of 16 bits
    /// 16-bit code.
    pub(super) fn far_target_size(&self) -> Option<CodeSize> {
        const OPERAND_SIZE: u8 = 0x66;
        const CALL_FAR: u8 = 0x9a;
        const JMP_FAR: u8 = 0xea;
        let last = usize::from(*self.block.lengths().last()?);
        let bytes = self.block.bytes();
        let [OPERAND_SIZE, CALL_FAR | JMP_FAR, ..] = bytes[bytes.len() - last..] else {
            return None;
        };
        match self.block.mode().code_size {
            CodeSize::Bits16 => Some(CodeSize::Bits32),
            CodeSize::Bits32 => Some(CodeSize::Bits16),
            CodeSize::Bits64 => None,
        }
    }

    /// Whether the block ends in a return from an event. IRET at CPL 3 returns from none: it cannot
    /// raise the privilege, and no event is served there but signals. SDM volume 2, IRET.
    pub(super) fn returns(&self) -> bool {
        let iret = self.class() == Some(BranchClass::Far(FarKind::Iret));
        iret && self.block.mode().cpl.is_kernel() || self.is_sigreturn()
    }

    /// Whether the block ends in an entry to a kernel that is not recorded.
    pub(super) fn enters_kernel(&self, kind: Kind) -> bool {
        let enters = |class| matches!(class, BranchClass::Far(far) if !stays_in_user_code(far));
        kind != Kind::System && self.class().is_some_and(enters)
    }

    /// Whether the block ends in `rt_sigreturn`, as the signal trampolines of C libraries do:
    /// `mov $15, %eax` (or `%rax`) and SYSCALL.
    pub(super) fn is_sigreturn(&self) -> bool {
        const LONG: &[u8] = &[0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05];
        const SHORT: &[u8] = &[0xb8, 15, 0, 0, 0, 0x0f, 0x05];
        let bytes = self.block.bytes();
        bytes.ends_with(LONG) || bytes.ends_with(SHORT)
    }
}

/// Size of the pages that QEMU looks after code by.
const PAGE: u64 = 4096;

/// How many instructions of `previous` retired if `next` is the store that stopped it: QEMU drops a
/// block that stores into a page it runs from and runs the store again, alone
/// (`tb_invalidate_phys_page_unwind`, `tb_invalidate_phys_page_range__locked` in
/// `accel/tcg/tb-maint.c`). No branch leads to such a
/// block of one instruction, as code goes on behind it.
pub(super) fn stopped_by_store(previous: &Decoded, next: &RawBlock<'_>) -> Option<u16> {
    let [length] = *next.lengths else {
        return None;
    };
    let index = previous.index_of(next.start)?;
    let lengths = previous.block.lengths();
    let (before, rest) = lengths.split_at(usize::from(index));
    let offset: usize = before.iter().map(|&length| usize::from(length)).sum();
    let same =
        rest.first() == Some(&length) && previous.block.bytes()[offset..].starts_with(next.bytes);
    let to_page_end = PAGE - next.start % PAGE;
    if !same || u64::from(length) >= to_page_end {
        return None;
    }
    let bits = previous.block.mode().code_size.bits();
    let address = previous.block.address().wrapping_add(offset as u64);
    let mut decoder = Decoder::with_ip(bits, next.bytes, address, DecoderOptions::NONE);
    let instruction = decoder.decode();
    let stops = if rest.len() == 1 {
        // The push of an indirect call: only a call of itself would look the same.
        let class = previous.class();
        class == Some(BranchClass::NearIndCall)
    } else {
        stores(&instruction)
    };
    stops.then_some(index)
}

/// Whether an instruction of the block can raise a fault that a program gets as a signal: it accesses
/// memory or divides.
pub(super) fn can_fault(block: &Block) -> bool {
    let bits = block.mode().code_size.bits();
    let decoder = Decoder::with_ip(bits, block.bytes(), block.address(), DecoderOptions::NONE);
    let mut factory = InstructionInfoFactory::new();
    decoder.into_iter().any(|instruction| {
        matches!(instruction.mnemonic(), Mnemonic::Div | Mnemonic::Idiv)
            || !factory.info(&instruction).used_memory().is_empty()
    })
}

fn stores(instruction: &Instruction) -> bool {
    let mut factory = InstructionInfoFactory::new();
    let memory = factory.info(instruction).used_memory();
    memory.iter().any(|memory| {
        matches!(
            memory.access(),
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        )
    })
}

/// Handlers that events were seen to go to, by linear address; the value says whether one of them
/// struck inside a block, which only exceptions do.
pub(super) type Handlers = FxHashMap<u64, bool>;

/// What lies between a block and the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    /// This many instructions retired, no branch was taken.
    Sequential(u16),
    /// The branch at the end was taken.
    Taken(Entry),
    /// A repeat of the REP string instruction at the end: nothing retired yet.
    Repeat,
    /// The block was left before anything retired, and is run again.
    Restart,
    /// The branch at the end entered the unrecorded kernel, which returned to the next block.
    Kernel,
    /// Something took over; how much had retired before is not known yet.
    Event,
    /// An indirect branch went to where signals were delivered before: a call of the handler, or
    /// one more signal.
    MaybeEvent,
}

/// Whether a far class can lower the privilege.
fn far_return(kind: FarKind) -> bool {
    matches!(
        kind,
        FarKind::Sysret | FarKind::Sysexit | FarKind::Iret | FarKind::Ret
    )
}

/// Whether a far branch of a program leads to code of the program: IRET and UIRET at CPL 3 lead to
/// CPL 3 as far jumps, calls and returns do.
fn stays_in_user_code(kind: FarKind) -> bool {
    matches!(
        kind,
        FarKind::Jmp | FarKind::Call | FarKind::Ret | FarKind::Iret
    )
}

/// Classifies the way from `previous` to `next`. `exact` says that blocks retire as a whole.
pub(super) fn classify(
    kind: Kind,
    exact: bool,
    handlers: &Handlers,
    previous: &Decoded,
    next: &RawBlock<'_>,
) -> Transition {
    let block = &previous.block;
    let n = block.instructions();
    let to = next.start;
    let class = match block.terminator() {
        Terminator::Sequential => None,
        Terminator::Branch(branch) => Some(branch.class),
    };
    if class.is_some()
        && !exact
        && let Some(retired) = stopped_by_store(previous, next)
    {
        return cut(retired);
    }
    let system = kind == Kind::System;
    match class {
        None => {
            if to == previous.end() {
                return Transition::Sequential(n);
            }
            if block.ends_in_rep_string() && to == previous.last() {
                return if next.lengths.len() == 1 {
                    Transition::Repeat
                } else {
                    // The next block holds the string instruction and more: it retires there.
                    cut(n - 1)
                };
            }
            inside(previous, to)
        }
        Some(BranchClass::Jcc) => {
            if to == previous.end() {
                Transition::Sequential(n)
            } else if previous.targets(to) {
                Transition::Taken(Entry::Near)
            } else {
                inside(previous, to)
            }
        }
        Some(BranchClass::NearRelJmp | BranchClass::NearRelCall | BranchClass::NearRelCallZero) => {
            if previous.targets(to) {
                Transition::Taken(Entry::Near)
            } else {
                inside(previous, to)
            }
        }
        Some(BranchClass::NearIndJmp | BranchClass::NearIndCall | BranchClass::NearRet) => {
            let cpl = block.mode().cpl;
            let next_cpl = match next.mode {
                Some(mode) => mode.cpl,
                None if system && is_high(to) => Cpl::Ring0,
                None => cpl,
            };
            // A near branch keeps the privilege level.
            if next_cpl != cpl {
                Transition::Event
            } else if !handlers.contains_key(&to) {
                Transition::Taken(Entry::Near)
            } else if system {
                Transition::Event
            } else {
                Transition::MaybeEvent
            }
        }
        Some(BranchClass::Far(far)) => match far {
            far if !system && stays_in_user_code(far) => Transition::Taken(Entry::Far),
            _ if !system => Transition::Kernel,
            FarKind::SoftwareInterrupt if to == previous.end() => Transition::Sequential(n),
            FarKind::SoftwareInterrupt => Transition::Taken(Entry::Far),
            _ if handlers.contains_key(&to) => Transition::Event,
            _ if far_return(far) => Transition::Taken(Entry::FarReturn),
            _ => Transition::Taken(Entry::Far),
        },
    }
}

/// The next block is where none should be: inside `previous`, or anywhere.
fn inside(previous: &Decoded, to: u64) -> Transition {
    previous.index_of(to).map_or(Transition::Event, cut)
}

fn cut(retired: u16) -> Transition {
    if retired == 0 {
        Transition::Restart
    } else {
        Transition::Sequential(retired)
    }
}

/// Where in a block an event struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Struck {
    /// After this many instructions, the branch at the end not taken if it is among them.
    After(u16),
    /// At the target of the branch at the end, linear.
    At(u64),
}

/// Where an event behind or inside `previous` struck if execution later goes on at linear address
/// `resume`; `None` if it cannot go on there. The second value says whether the address alone
/// proves it: an indirect branch can go anywhere at the same privilege. `exception` says whether it
/// is known for an exception: only that tells an instruction of the block that faulted from one the
/// branch at the end went back to.
pub(super) fn struck(
    kind: Kind,
    previous: &Decoded,
    resume: u64,
    exception: bool,
) -> Option<(Struck, bool)> {
    let block = &previous.block;
    let n = block.instructions();
    if !exception && previous.targets(resume) {
        return Some((Struck::At(resume), true));
    }
    if let Some(index) = previous.index_of(resume) {
        return Some((Struck::After(index), true));
    }
    let end = resume == previous.end();
    match previous.class() {
        None | Some(BranchClass::Jcc) if end => Some((Struck::After(n), true)),
        None => None,
        Some(
            BranchClass::Jcc
            | BranchClass::NearRelJmp
            | BranchClass::NearRelCall
            | BranchClass::NearRelCallZero,
        ) => previous
            .targets(resume)
            .then_some((Struck::At(resume), true)),
        Some(BranchClass::NearIndJmp | BranchClass::NearIndCall | BranchClass::NearRet) => {
            let same_half = is_high(resume) == is_high(previous.start());
            (same_half || kind != Kind::System).then_some((Struck::At(resume), false))
        }
        // Behind a system call is where a signal strikes that came meanwhile.
        Some(BranchClass::Far(_)) => {
            Some((Struck::At(resume), end && previous.enters_kernel(kind)))
        }
    }
}

/// Whether an event can have struck behind or inside `previous`, code of a guest, at linear address
/// `from`. Behind an indirect call only its target is such a place: if the stack holds the address of
/// the next instruction, the handler was called, as hypervisors do with the host's.
pub(super) fn fits(previous: &Decoded, kind: FarKind, from: u64) -> bool {
    let called = previous.class() == Some(BranchClass::NearIndCall) && from == previous.end();
    let exception = kind != FarKind::Interrupt;
    !called && struck(Kind::System, previous, from, exception).is_some()
}

/// What is lost by the trace saying that an event struck at `said` when it struck at `place`.
pub(super) fn late(previous: &Decoded, said: Struck, place: Struck) -> Late {
    let n = previous.block.instructions();
    let counts = |place| match place {
        Struck::After(retired) => [
            i64::from(retired),
            i64::from(retired == n && previous.class().is_some()),
            0,
        ],
        Struck::At(_) => [i64::from(n), 1, 1],
    };
    let ([a, b, c], [x, y, z]) = (counts(place), counts(said));
    Late {
        instructions: a - x,
        branches: b - y,
        taken: c - z,
    }
}

/// Where an event is taken to have struck as long as no return shows it. `exception` says whether
/// it may be an exception, which strikes before an instruction.
pub(super) fn fallback(previous: &Decoded, exception: bool) -> Struck {
    let block = &previous.block;
    let n = block.instructions();
    let before_last = Struck::After(n.saturating_sub(1));
    if exception {
        return before_last;
    }
    match block.branch() {
        None if block.ends_in_rep_string() => before_last,
        None => Struck::After(n),
        Some(branch) => match (branch.class, branch.target) {
            (BranchClass::Jcc, _) => Struck::After(n),
            (_, Some(target)) => Struck::At(previous.linear(target)),
            // The target is unknown, so the branch is left out: control is shown to leave before
            // it.
            (_, None) => before_last,
        },
    }
}
