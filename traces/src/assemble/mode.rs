//! The rule by which privilege level, code size and address space of a block are inferred.

use vlbr_arch::{CodeSize, Cpl};
use vlbr_cpu::{Block, BlockError, Mode, ModeSource};

use super::raw::RawBlock;

/// Start of the kernel text mapping of x86-64 Linux without KASLR, where no function begins. The
/// pseudo-block of no instructions that stands for an unrecorded kernel lies here. Linux,
/// `Documentation/arch/x86/x86_64/mm.rst`.
pub const UNRECORDED_KERNEL: u64 = 0xffff_ffff_8000_0000;

/// First address of the canonical high half, which Linux gives to the kernel.
const HIGH_HALF: u64 = 0xffff_8000_0000_0000;
/// Where a processor starts after reset. SDM volume 3, "First Instruction Executed".
const RESET_VECTOR: u64 = 0xffff_fff0;
/// Real mode reaches this far.
const REAL_MODE_END: u64 = 0x11_0000;

/// Where system-management mode begins: offset 0x8000 of SMBASE, which is 0x30000 after reset (SDM
/// volume 3, "SMBASE relocation") and 0xa0000 where SeaBIOS puts it.
pub(super) const SMI_HANDLERS: [u64; 2] = [0x3_8000, 0xa_8000];

/// What a stream executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One thread of a user program; its kernel is not recorded.
    User {
        /// Address space number of the process image.
        space: u32,
    },
    /// A vCPU of a whole guest.
    System,
}

/// Mode state of a stream, as far as it is inferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) size: CodeSize,
    pub(super) cpl: Cpl,
    /// Address space of user code, [`super`]'s numbering.
    pub(super) space: u32,
}

/// How control came to a block, as far as the mode rule asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// In a row or by a near branch.
    Near,
    /// By SYSRET, SYSEXIT, IRET or far RET, which can lower the privilege.
    FarReturn,
    /// By another far transfer, an interrupt or an exception.
    Far,
}

pub(super) fn is_high(address: u64) -> bool {
    address >= HIGH_HALF
}

impl State {
    /// State in which a stream begins whose first block lies at `start`.
    pub(super) fn initial(kind: Kind, start: u64) -> Self {
        match kind {
            Kind::User { space } => Self {
                size: CodeSize::Bits64,
                cpl: Cpl::Ring3,
                space,
            },
            Kind::System => Self {
                size: if real_mode(start) {
                    CodeSize::Bits16
                } else {
                    CodeSize::Bits64
                },
                cpl: Cpl::Ring0,
                space: 0,
            },
        }
    }

    /// State after control came from `from` to `to`.
    pub(super) fn after(self, kind: Kind, entry: Entry, from: u64, to: u64) -> Self {
        if matches!(kind, Kind::User { .. }) {
            return self;
        }
        let mut next = self;
        match entry {
            Entry::Near => {}
            Entry::FarReturn if is_high(from) && !is_high(to) => next.cpl = Cpl::Ring3,
            Entry::Far | Entry::FarReturn if is_high(to) => next.cpl = Cpl::Ring0,
            Entry::Far | Entry::FarReturn => {}
        }
        if to == RESET_VECTOR && entry != Entry::Near {
            next.cpl = Cpl::Ring0;
            next.size = CodeSize::Bits16;
        }
        if to > 0xffff_ffff {
            next.size = CodeSize::Bits64;
        }
        next
    }

    /// This state with what the recorder read of `raw`. Code of the kernel has space 0.
    pub(super) fn with_recorded(mut self, raw: &RawBlock<'_>) -> Self {
        if let Some(recorded) = raw.mode {
            self.cpl = recorded.cpl;
            self.space = recorded.space.unwrap_or(self.space);
            self.size = recorded.code_size.unwrap_or(self.size);
        }
        if self.cpl.is_kernel() {
            self.space = 0;
        }
        self
    }

    /// Mode of an inferred block at linear address `start`, and the effective address there.
    fn mode(self, start: u64) -> (Mode, u64) {
        // An unknown real-mode segment is taken to begin at a multiple of 64 KiB: near branches,
        // which wrap there, come out right whatever the true base is.
        let cs_base = match self.size {
            CodeSize::Bits16 => start & 0xffff_0000,
            CodeSize::Bits32 | CodeSize::Bits64 => 0,
        };
        let mode = Mode {
            code_size: self.size,
            cpl: self.cpl,
            cs_base,
            space: self.space,
            source: ModeSource::Inferred,
        };
        (mode, effective(start, cs_base, self.size))
    }
}

fn real_mode(start: u64) -> bool {
    start < REAL_MODE_END || (0xffff_0000..=0xffff_ffff).contains(&start)
}

fn effective(linear: u64, cs_base: u64, size: CodeSize) -> u64 {
    let address = linear.wrapping_sub(cs_base);
    match size {
        CodeSize::Bits64 => address,
        CodeSize::Bits32 | CodeSize::Bits16 => address & 0xffff_ffff,
    }
}

/// Code sizes in the order in which they are tried.
fn candidates(first: CodeSize, start: u64) -> &'static [CodeSize] {
    use CodeSize::{Bits16, Bits32, Bits64};
    if start > 0xffff_ffff {
        // Only 64-bit code lies above 4 GiB.
        return &[Bits64];
    }
    match first {
        Bits16 => &[Bits16, Bits32, Bits64],
        Bits32 => &[Bits32, Bits64, Bits16],
        Bits64 => &[Bits64, Bits32, Bits16],
    }
}

/// `raw` without its last instruction if that ends where a page ends, or so near that the next
/// field of an instruction crosses it. QEMU reports the first fields of an instruction that crosses
/// a page end with the block before it, but runs it in the next one (`i386_tr_translate_insn`). As
/// no instruction is the beginning of another one, what remains is told from a whole instruction
/// by its decoding.
fn without_rest<'a>(raw: &RawBlock<'a>) -> Option<(&'a [u8], &'a [u8])> {
    /// Size of the longest immediate.
    const LONGEST_FIELD: u64 = 8;
    let end = raw.start.wrapping_add(raw.bytes.len() as u64);
    let left = end.wrapping_neg() & 0xfff;
    let (&last, lengths) = raw.lengths.split_last()?;
    let bytes = raw.bytes.len().checked_sub(usize::from(last))?;
    (left < LONGEST_FIELD && !lengths.is_empty()).then(|| (&raw.bytes[..bytes], lengths))
}

/// Decodes `raw` in the first mode in which it has the stated lengths, beginning with `state`, which
/// agrees with what was recorded. The result is the block and the state that holds in it.
pub(super) fn decode(raw: &RawBlock<'_>, state: State) -> Result<(Block, State), BlockError> {
    if let Some(recorded) = raw.mode
        && let Some(size) = recorded.code_size
    {
        let (guessed, _) = state.mode(raw.start);
        let mode = Mode {
            cs_base: recorded.cs_base.unwrap_or(guessed.cs_base),
            source: ModeSource::Recorded,
            ..guessed
        };
        let address = effective(raw.start, mode.cs_base, size);
        for (bytes, lengths) in [Some((raw.bytes, raw.lengths)), without_rest(raw)]
            .into_iter()
            .flatten()
        {
            if let Ok(block) = Block::with_lengths(address, mode, bytes, lengths) {
                return Ok((block, state));
            }
        }
        // A real-address mode can still run 32-bit code (SDM volume 3, section 20.1.1).
    }
    // An instruction the decoder does not know fits every mode, so a mode that knows them all goes
    // first.
    for strict in [true, false] {
        for &size in candidates(state.size, raw.start) {
            let state = State { size, ..state };
            let (mut mode, address) = state.mode(raw.start);
            if raw.mode.is_some() && raw.start > 0xffff_ffff {
                // The privilege was read, and above 4 GiB no other code size exists.
                mode.source = ModeSource::Recorded;
            }
            for (bytes, lengths) in [Some((raw.bytes, raw.lengths)), without_rest(raw)]
                .into_iter()
                .flatten()
            {
                let block = if strict {
                    Block::decode(address, mode, bytes)
                } else {
                    Block::with_lengths(address, mode, bytes, lengths)
                };
                if let Ok(block) = block
                    && block.lengths() == lengths
                {
                    return Ok((block, state));
                }
            }
        }
    }
    let (mode, address) = state.mode(raw.start);
    Block::with_lengths(address, mode, raw.bytes, raw.lengths).map(|block| (block, state))
}

/// The pseudo-block of the unrecorded kernel of address space `space`.
pub(super) fn unrecorded_kernel(space: u32) -> Block {
    Block::empty(
        UNRECORDED_KERNEL,
        Mode {
            code_size: CodeSize::Bits64,
            cpl: Cpl::Ring0,
            cs_base: 0,
            space,
            source: ModeSource::Inferred,
        },
    )
}
