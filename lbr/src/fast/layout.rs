//! How a record becomes MSR values and back, without a branch on the format.

use vlbr_arch::{BrType, BranchClass, CodeSize, LbrFormat, LbrInfo, Transfer};

use crate::{ArchLbr, Record};

const FLAGS: u64 = LbrInfo::MISPRED.bits() | LbrInfo::IN_TSX.bits() | LbrInfo::TSX_ABORT.bits();
const MISPRED: u64 = LbrInfo::MISPRED.bits();
const TSX: u64 = LbrInfo::IN_TSX.bits() | LbrInfo::TSX_ABORT.bits();
const LOW_32: u64 = 0xffff_ffff;
const TO_CYCLES_SHIFT: u32 = 48;

/// Which bits of FROM, TO and INFO hold what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Addresses are linear: `CS.base` is added.
    pub(super) lip: bool,
    /// Bits of FROM that hold the address; the rest above are flags.
    pub(super) from_address: u64,
    /// Flag bits of FROM that are recorded.
    pub(super) from_flags: u64,
    pub(super) to_address: u64,
    pub(super) to_cycles: u64,
    /// Flag bits of INFO that are recorded.
    pub(super) info_flags: u64,
    pub(super) info_cycles: u64,
    pub(super) info_valid: u64,
    pub(super) info_type: u64,
    pub(super) info_events: u64,
    /// Bits of INFO that have a meaning when software writes them.
    pub(super) info_defined: u64,
    /// A conditional branch that was fused is recorded at its compare.
    pub(super) fused_from_compare: bool,
}

impl Layout {
    const PLAIN: Self = Self {
        lip: false,
        from_address: !0,
        from_flags: 0,
        to_address: !0,
        to_cycles: 0,
        info_flags: 0,
        info_cycles: 0,
        info_valid: 0,
        info_type: 0,
        info_events: 0,
        info_defined: 0,
        fused_from_compare: false,
    };

    /// The layout of a legacy format; `tsx` if TSX is enumerated.
    pub(super) const fn legacy(format: LbrFormat, tsx: bool) -> Self {
        let tsx = if tsx { TSX } else { 0 };
        let plain = Self::PLAIN;
        match format {
            LbrFormat::OFFSET_32 => Self {
                from_address: LOW_32,
                to_address: LOW_32,
                ..plain
            },
            LbrFormat::LIP => Self { lip: true, ..plain },
            LbrFormat::EIP_FLAGS => Self {
                from_address: !MISPRED,
                from_flags: MISPRED,
                ..plain
            },
            LbrFormat::EIP_FLAGS_TSX => Self {
                from_address: !FLAGS,
                from_flags: MISPRED | tsx,
                ..plain
            },
            LbrFormat::EIP_INFO => Self {
                info_flags: MISPRED | tsx,
                info_cycles: LbrInfo::CYC_CNT_MASK,
                info_defined: LbrInfo::CYC_CNT_MASK | FLAGS,
                ..plain
            },
            LbrFormat::LIP_CYCLES => Self {
                lip: true,
                from_address: !MISPRED,
                from_flags: MISPRED,
                to_address: (1 << TO_CYCLES_SHIFT) - 1,
                to_cycles: !0 << TO_CYCLES_SHIFT,
                ..plain
            },
            LbrFormat::LIP_INFO => Self {
                lip: true,
                info_flags: MISPRED,
                info_cycles: LbrInfo::CYC_CNT_MASK,
                info_defined: LbrInfo::CYC_CNT_MASK | MISPRED,
                ..plain
            },
            _ => plain,
        }
    }

    /// Format 1 with MISPRED in FROM\[63\]: Knights Landing.
    pub(super) const fn lip_with_mispred() -> Self {
        Self {
            lip: true,
            from_address: !MISPRED,
            from_flags: MISPRED,
            ..Self::PLAIN
        }
    }

    /// The layout that CPUID leaf 0x1C enumerates.
    pub(super) const fn arch(arch: &ArchLbr, tsx: bool) -> Self {
        const fn when(condition: bool, mask: u64) -> u64 {
            if condition { mask } else { 0 }
        }
        let timed = arch.ecx & 2 != 0;
        let events = when(arch.ecx & 0xf_0000 != 0, LbrInfo::EVENTS_MASK);
        Self {
            lip: arch.eax & 1 << 31 != 0,
            info_flags: when(arch.ecx & 1 != 0, MISPRED) | when(tsx, TSX),
            info_cycles: when(timed, LbrInfo::CYC_CNT_MASK),
            info_valid: when(timed, LbrInfo::CYC_CNT_VALID.bits()),
            info_type: when(arch.ecx & 4 != 0, LbrInfo::BR_TYPE_MASK),
            info_events: events,
            info_defined: LbrInfo::CYC_CNT_MASK
                | LbrInfo::BR_TYPE_MASK
                | LbrInfo::CYC_CNT_VALID.bits()
                | FLAGS
                | events,
            ..Self::PLAIN
        }
    }

    /// The recorded form of an address: outside 64-bit mode bits 63:32 are 0, inside the code
    /// segment base is.
    #[inline]
    fn address(&self, offset: u64, cs_base: u64, size: CodeSize) -> u64 {
        if size == CodeSize::Bits64 {
            return offset;
        }
        let base = if self.lip { cs_base } else { 0 };
        offset.wrapping_add(base) & LOW_32
    }

    #[inline]
    pub(super) fn source(&self, t: &Transfer) -> u64 {
        let fused = self.fused_from_compare && matches!(t.class, BranchClass::Jcc);
        let before = if fused { u64::from(t.fused) } else { 0 };
        self.address(t.from.wrapping_sub(before), t.from_cs_base, t.from_size)
    }

    /// FROM, TO and INFO of a record.
    #[inline]
    pub(super) fn encode(
        &self,
        t: &Transfer,
        from: u64,
        cycles: u16,
        valid: bool,
        events: u8,
    ) -> [u64; 3] {
        let to = self.address(t.to, t.to_cs_base, t.to_size);
        let flags = u64::from(t.mispredicted) << 63
            | u64::from(t.in_tx) << 62
            | u64::from(t.tx_abort) << 61;
        let cycles = u64::from(cycles);
        [
            from & self.from_address | flags & self.from_flags,
            to & self.to_address | cycles << TO_CYCLES_SHIFT & self.to_cycles,
            flags & self.info_flags
                | cycles & self.info_cycles
                | u64::from(valid) << 60 & self.info_valid
                | u64::from(branch_type(t.class).value()) << LbrInfo::BR_TYPE_SHIFT
                    & self.info_type
                | u64::from(events) << LbrInfo::EVENTS_SHIFT & self.info_events,
        ]
    }

    /// The address in a FROM word, sign-extended over the flags.
    pub(super) const fn decode_from(&self, word: u64) -> u64 {
        extend(word, self.from_address)
    }

    /// The address in a TO word, sign-extended over the cycles.
    pub(super) const fn decode_to(&self, word: u64) -> u64 {
        extend(word, self.to_address)
    }

    /// What software makes of an entry.
    pub(super) fn decode(&self, raw: [u64; 3]) -> Record {
        let [from, to, info] = raw;
        let flags = from & self.from_flags | info & self.info_flags;
        let counts = if self.to_cycles != 0 {
            Some((to >> TO_CYCLES_SHIFT) as u16)
        } else if self.info_cycles != 0 && info & self.info_valid == self.info_valid {
            Some(LbrInfo::from_bits(info).cycles())
        } else {
            None
        };
        Record {
            from: self.decode_from(from),
            to: self.decode_to(to),
            mispredicted: flags & LbrInfo::MISPRED.bits() != 0,
            in_tx: flags & LbrInfo::IN_TSX.bits() != 0,
            abort: flags & LbrInfo::TSX_ABORT.bits() != 0,
            cycles: counts,
            branch_type: (self.info_type != 0)
                .then(|| LbrInfo::from_bits(info).branch_type().value()),
            raw,
        }
    }
}

/// Sign-extends the low bits that `mask` selects. A 32-bit offset is not extended.
const fn extend(word: u64, mask: u64) -> u64 {
    if mask == LOW_32 {
        return word & mask;
    }
    let unused = mask.leading_zeros();
    (((word << unused) as i64) >> unused) as u64
}

const fn branch_type(class: BranchClass) -> BrType {
    match class {
        BranchClass::Jcc => BrType::COND,
        BranchClass::NearIndJmp => BrType::NEAR_IND_JMP,
        BranchClass::NearRelJmp => BrType::NEAR_REL_JMP,
        BranchClass::NearIndCall => BrType::NEAR_IND_CALL,
        BranchClass::NearRelCall | BranchClass::NearRelCallZero => BrType::NEAR_REL_CALL,
        BranchClass::NearRet => BrType::NEAR_RET,
        BranchClass::Far(_) => BrType::OTHER,
    }
}
