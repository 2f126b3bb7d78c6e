//! What RDMSR makes of a recorded transfer.

use vlbr_arch::{BranchClass, CodeSize, LbrFormat, Transfer};

use super::{Lbr, bit, set_bit};
use crate::Record;

/// A transfer as the LBR took it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) transfer: Transfer,
    /// FROM is hidden because its privilege is filtered.
    pub(super) hidden_source: bool,
    /// Core clocks since the record before, already saturated; `None` if there was none.
    pub(super) cycles: Option<u16>,
    /// Counts of logged events, PMC0 to PMC3.
    pub(super) logged: [u8; 4],
}

/// One word of an entry: what software wrote, or what the hardware recorded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cell {
    Software(u64),
    Hardware(Taken),
}

impl Default for Cell {
    fn default() -> Self {
        Self::Software(0)
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slot {
    pub(super) from: Cell,
    pub(super) to: Cell,
    pub(super) info: Cell,
}

impl Slot {
    pub(super) fn hardware(taken: Taken) -> Self {
        let cell = Cell::Hardware(taken);
        Self {
            from: cell,
            to: cell,
            info: cell,
        }
    }
}

impl Lbr {
    pub(super) fn slot_words(&self, slot: &Slot) -> [u64; 3] {
        [
            match slot.from {
                Cell::Software(value) => value,
                Cell::Hardware(taken) => self.source_word(&taken),
            },
            match slot.to {
                Cell::Software(value) => value,
                Cell::Hardware(taken) => self.target_word(&taken),
            },
            match slot.info {
                Cell::Software(value) => value,
                Cell::Hardware(taken) => self.info_word(&taken),
            },
        ]
    }

    fn records_linear_addresses(&self) -> bool {
        match self.arch() {
            Some(arch) => arch.eax >> 31 == 1,
            None => matches!(
                self.format(),
                LbrFormat::LIP | LbrFormat::LIP_CYCLES | LbrFormat::LIP_INFO
            ),
        }
    }

    fn recorded_address(&self, offset: u64, base: u64, size: CodeSize) -> u64 {
        match size {
            // The base of CS counts as 0 in 64-bit mode.
            CodeSize::Bits64 => offset,
            CodeSize::Bits16 | CodeSize::Bits32 => {
                let address = if self.records_linear_addresses() {
                    offset.wrapping_add(base)
                } else {
                    offset
                };
                address % (1 << 32)
            }
        }
    }

    fn source_word(&self, taken: &Taken) -> u64 {
        let t = &taken.transfer;
        let mut word = if taken.hidden_source {
            0xffff_ffff
        } else {
            let mut from = t.from;
            if self.options.fused_from_compare && t.class == BranchClass::Jcc {
                from = from.wrapping_sub(t.fused.into());
            }
            self.recorded_address(from, t.from_cs_base, t.from_size)
        };
        if self.hides_mispred() {
            set_bit(&mut word, 63, t.mispredicted);
        }
        match self.format() {
            LbrFormat::OFFSET_32 => word %= 1 << 32,
            LbrFormat::EIP_FLAGS | LbrFormat::LIP_CYCLES => set_bit(&mut word, 63, t.mispredicted),
            LbrFormat::EIP_FLAGS_TSX => {
                set_bit(&mut word, 63, t.mispredicted);
                set_bit(&mut word, 62, t.in_tx && self.tsx());
                set_bit(&mut word, 61, t.tx_abort && self.tsx());
            }
            _ => {}
        }
        word
    }

    fn target_word(&self, taken: &Taken) -> u64 {
        let t = &taken.transfer;
        let word = self.recorded_address(t.to, t.to_cs_base, t.to_size);
        match self.format() {
            LbrFormat::OFFSET_32 => word % (1 << 32),
            LbrFormat::LIP_CYCLES => {
                let cycles = u64::from(taken.cycles.unwrap_or(0));
                word % (1 << 48) + cycles * (1 << 48)
            }
            _ => word,
        }
    }

    fn info_word(&self, taken: &Taken) -> u64 {
        let t = &taken.transfer;
        let mut word = 0;
        let (mispred, tsx, timed) = match self.arch() {
            Some(arch) => (bit(arch.ecx.into(), 0), self.tsx(), bit(arch.ecx.into(), 1)),
            None => match self.format() {
                LbrFormat::EIP_INFO => (true, self.tsx(), true),
                LbrFormat::LIP_INFO => (true, false, true),
                _ => (false, false, false),
            },
        };
        if timed {
            word += u64::from(taken.cycles.unwrap_or(0));
        }
        set_bit(&mut word, 63, mispred && t.mispredicted);
        set_bit(&mut word, 62, tsx && t.in_tx);
        set_bit(&mut word, 61, tsx && t.tx_abort);
        if let Some(arch) = self.arch() {
            set_bit(&mut word, 60, timed && taken.cycles.is_some());
            if bit(arch.ecx.into(), 2) {
                word += type_code(t.class) << 56;
            }
            if arch.ecx >> 16 & 0xf != 0 {
                for (pmc, count) in taken.logged.iter().enumerate() {
                    word += u64::from(*count) << (32 + 2 * pmc);
                }
            }
        }
        word
    }

    /// The address in a FROM word: flag bits are replaced by the sign below them.
    pub(super) fn address_in_from(&self, mut word: u64) -> u64 {
        let lowest_flag = match self.format() {
            _ if self.hides_mispred() => 63,
            LbrFormat::OFFSET_32 => return word % (1 << 32),
            LbrFormat::EIP_FLAGS | LbrFormat::LIP_CYCLES => 63,
            LbrFormat::EIP_FLAGS_TSX => 61,
            _ => 64,
        };
        for n in lowest_flag..64 {
            let sign = bit(word, lowest_flag - 1);
            set_bit(&mut word, n, sign);
        }
        word
    }

    /// The address in a TO word.
    pub(super) fn address_in_to(&self, mut word: u64) -> u64 {
        match self.format() {
            LbrFormat::OFFSET_32 => word % (1 << 32),
            LbrFormat::LIP_CYCLES => {
                for n in 48..64 {
                    let sign = bit(word, 47);
                    set_bit(&mut word, n, sign);
                }
                word
            }
            _ => word,
        }
    }

    pub(super) fn read_record(&self, raw: [u64; 3]) -> Record {
        let [from, to, info] = raw;
        let mut record = Record {
            from: self.address_in_from(from),
            to: self.address_in_to(to),
            raw,
            ..Record::default()
        };
        match self.arch() {
            Some(arch) => {
                record.mispredicted = bit(arch.ecx.into(), 0) && bit(info, 63);
                record.in_tx = self.tsx() && bit(info, 62);
                record.abort = self.tsx() && bit(info, 61);
                if bit(arch.ecx.into(), 1) && bit(info, 60) {
                    record.cycles = Some((info % (1 << 16)) as u16);
                }
                if bit(arch.ecx.into(), 2) {
                    record.branch_type = Some((info >> 56 & 0xf) as u8);
                }
            }
            None => match self.format() {
                _ if self.hides_mispred() => record.mispredicted = bit(from, 63),
                LbrFormat::EIP_FLAGS => record.mispredicted = bit(from, 63),
                LbrFormat::EIP_FLAGS_TSX => {
                    record.mispredicted = bit(from, 63);
                    record.in_tx = self.tsx() && bit(from, 62);
                    record.abort = self.tsx() && bit(from, 61);
                }
                LbrFormat::EIP_INFO => {
                    record.mispredicted = bit(info, 63);
                    record.in_tx = self.tsx() && bit(info, 62);
                    record.abort = self.tsx() && bit(info, 61);
                    record.cycles = Some((info % (1 << 16)) as u16);
                }
                LbrFormat::LIP_CYCLES => {
                    record.mispredicted = bit(from, 63);
                    record.cycles = Some((to >> 48) as u16);
                }
                LbrFormat::LIP_INFO => {
                    record.mispredicted = bit(info, 63);
                    record.cycles = Some((info % (1 << 16)) as u16);
                }
                _ => {}
            },
        }
        record
    }
}

fn type_code(class: BranchClass) -> u64 {
    match class {
        BranchClass::Jcc => 0,
        BranchClass::NearIndJmp => 1,
        BranchClass::NearRelJmp => 2,
        BranchClass::NearIndCall => 3,
        BranchClass::NearRelCall | BranchClass::NearRelCallZero => 4,
        BranchClass::NearRet => 5,
        BranchClass::Far(_) => 8,
    }
}
