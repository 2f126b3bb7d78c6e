//! One entry of a recorded branch stack: `struct perf_branch_entry` of the Linux perf ABI.
//!
//! Every bit of the third word has a typed home, so decoding and encoding lose nothing:
//! `include/uapi/linux/perf_event.h` gives the layout.

use std::fmt;

/// Size in bytes of an encoded entry.
pub const ENTRY_SIZE: usize = 24;

/// A number of `$bits` bits; values that do not fit cannot be built.
macro_rules! narrow {
    ($(#[$doc:meta])* $name:ident($repr:ty), $bits:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($repr);

        impl $name {
            /// Width of the field in bits.
            pub const BITS: u32 = $bits;
            const MASK: u64 = (1 << $bits) - 1;

            /// The value, or `None` when it needs more than [`Self::BITS`] bits.
            #[must_use]
            pub const fn new(value: $repr) -> Option<Self> {
                if value as u64 > Self::MASK { None } else { Some(Self(value)) }
            }

            /// The number in the field.
            #[must_use]
            pub const fn get(self) -> $repr {
                self.0
            }

            /// The field at bit `shift` of the flags word.
            const fn extract(word: u64, shift: u32) -> Self {
                Self(((word >> shift) & Self::MASK) as $repr)
            }

            const fn place(self, shift: u32) -> u64 {
                (self.0 as u64) << shift
            }
        }
    };
}

narrow!(
    /// What kind of branch (`PERF_BR_*`), filled when `PERF_SAMPLE_BRANCH_TYPE_SAVE` is asked for.
    BranchType(u8), 4
);
narrow!(
    /// Outcome of speculation (`PERF_BR_SPEC_*`, Linux 6.1).
    BranchSpec(u8), 2
);
narrow!(
    /// Extended branch type (`PERF_BR_NEW_*`), valid with [`BranchType::EXTEND_ABI`].
    NewBranchType(u8), 4
);
narrow!(
    /// Privilege level of the target (`PERF_BR_PRIV_*`), filled with
    /// `PERF_SAMPLE_BRANCH_PRIV_SAVE`.
    BranchPrivilege(u8), 3
);
narrow!(
    /// The bits above `priv`, 0 in every file written so far.
    ReservedBits(u32), 31
);

impl BranchType {
    /// Unknown, also what is written without `TYPE_SAVE`.
    pub const UNKNOWN: Self = Self(0);
    /// Conditional.
    pub const COND: Self = Self(1);
    /// Unconditional direct jump.
    pub const UNCOND: Self = Self(2);
    /// Indirect jump.
    pub const IND: Self = Self(3);
    /// Direct call.
    pub const CALL: Self = Self(4);
    /// Indirect call.
    pub const IND_CALL: Self = Self(5);
    /// Return.
    pub const RET: Self = Self(6);
    /// System call.
    pub const SYSCALL: Self = Self(7);
    /// Return from a system call.
    pub const SYSRET: Self = Self(8);
    /// Conditional call.
    pub const COND_CALL: Self = Self(9);
    /// Conditional return.
    pub const COND_RET: Self = Self(10);
    /// Return from an exception or interrupt.
    pub const ERET: Self = Self(11);
    /// Interrupt.
    pub const IRQ: Self = Self(12);
    /// System error.
    pub const SERROR: Self = Self(13);
    /// Not in a transaction.
    pub const NO_TX: Self = Self(14);
    /// The type is in [`BranchFlags::new_type`].
    pub const EXTEND_ABI: Self = Self(15);

    /// perf's name, `N/A` for the unknown type (`tools/perf/util/branch.c`).
    #[must_use]
    pub const fn name(self) -> &'static str {
        const NAMES: [&str; 16] = [
            "N/A",
            "COND",
            "UNCOND",
            "IND",
            "CALL",
            "IND_CALL",
            "RET",
            "SYSCALL",
            "SYSRET",
            "COND_CALL",
            "COND_RET",
            "ERET",
            "IRQ",
            "SERROR",
            "NO_TX",
            "EXTEND_ABI",
        ];
        NAMES[(self.0 & 15) as usize]
    }
}

impl NewBranchType {
    /// perf's name, `None` beyond `PERF_BR_NEW_MAX`.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        const NAMES: [&str; 8] = [
            "FAULT_ALGN",
            "FAULT_DATA",
            "FAULT_INST",
            "ARCH_1",
            "ARCH_2",
            "ARCH_3",
            "ARCH_4",
            "ARCH_5",
        ];
        if (self.0 as usize) < NAMES.len() {
            Some(NAMES[self.0 as usize])
        } else {
            None
        }
    }
}

impl BranchSpec {
    /// Not available.
    pub const NOT_AVAILABLE: Self = Self(0);
    /// Speculative, on the wrong path.
    pub const WRONG_PATH: Self = Self(1);
    /// Not speculative, on the correct path.
    pub const NON_SPEC_CORRECT_PATH: Self = Self(2);
    /// Speculative, on the correct path.
    pub const CORRECT_PATH: Self = Self(3);
}

impl BranchPrivilege {
    /// Unknown.
    pub const UNKNOWN: Self = Self(0);
    /// User.
    pub const USER: Self = Self(1);
    /// Kernel.
    pub const KERNEL: Self = Self(2);
    /// Hypervisor.
    pub const HYPERVISOR: Self = Self(3);
}

/// The third word of an entry, a field for each group of bits.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchFlags {
    /// Bit 0: direction or target were mispredicted.
    pub mispred: bool,
    /// Bit 1: direction and target were predicted. Both bits clear: the CPU does not report it.
    pub predicted: bool,
    /// Bit 2: the branch ran inside a transaction.
    pub in_tx: bool,
    /// Bit 3: a transaction abort.
    pub abort: bool,
    /// Bits 4-19: core clock cycles since the previous entry was recorded.
    pub cycles: u16,
    /// Bits 20-23.
    pub branch_type: BranchType,
    /// Bits 24-25.
    pub spec: BranchSpec,
    /// Bits 26-29.
    pub new_type: NewBranchType,
    /// Bits 30-32.
    pub privilege: BranchPrivilege,
    /// Bits 33-63.
    pub reserved: ReservedBits,
}

impl BranchFlags {
    /// Splits the word into its fields. Every word is valid.
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self {
            mispred: word & 1 != 0,
            predicted: word & 2 != 0,
            in_tx: word & 4 != 0,
            abort: word & 8 != 0,
            cycles: (word >> 4) as u16,
            branch_type: BranchType::extract(word, 20),
            spec: BranchSpec::extract(word, 24),
            new_type: NewBranchType::extract(word, 26),
            privilege: BranchPrivilege::extract(word, 30),
            reserved: ReservedBits::extract(word, 33),
        }
    }

    /// The word these fields make; the inverse of [`BranchFlags::from_word`].
    #[must_use]
    pub const fn to_word(self) -> u64 {
        self.mispred as u64
            | (self.predicted as u64) << 1
            | (self.in_tx as u64) << 2
            | (self.abort as u64) << 3
            | (self.cycles as u64) << 4
            | self.branch_type.place(20)
            | self.spec.place(24)
            | self.new_type.place(26)
            | self.privilege.place(30)
            | self.reserved.place(33)
    }
}

impl fmt::Debug for BranchFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BranchFlags")
            .field("mispred", &self.mispred)
            .field("predicted", &self.predicted)
            .field("in_tx", &self.in_tx)
            .field("abort", &self.abort)
            .field("cycles", &self.cycles)
            .field("type", &self.branch_type.name())
            .field("spec", &self.spec.get())
            .field("new_type", &self.new_type.get())
            .field("priv", &self.privilege.get())
            .field("reserved", &self.reserved.get())
            .finish()
    }
}

/// One branch: where it came from, where it went, and what is known of it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchEntry {
    /// Address of the branch instruction.
    pub from: u64,
    /// Address of the target.
    pub to: u64,
    /// Prediction, transaction, cycles, type.
    pub flags: BranchFlags,
}

impl BranchEntry {
    /// Decodes an entry.
    #[must_use]
    pub fn decode(bytes: &[u8; ENTRY_SIZE]) -> Self {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        Self {
            from: word(0),
            to: word(8),
            flags: BranchFlags::from_word(word(16)),
        }
    }

    /// Encodes an entry; the inverse of [`BranchEntry::decode`].
    #[must_use]
    pub fn encode(&self) -> [u8; ENTRY_SIZE] {
        let mut out = [0; ENTRY_SIZE];
        out[..8].copy_from_slice(&self.from.to_le_bytes());
        out[8..16].copy_from_slice(&self.to.to_le_bytes());
        out[16..].copy_from_slice(&self.flags.to_word().to_le_bytes());
        out
    }
}

impl fmt::Debug for BranchEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} -> {:#x} {:?}", self.from, self.to, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_flag_bit_changes_a_typed_field_and_the_encoded_word() {
        for base in [0, u64::MAX, 0x0123_4567_89ab_cdef] {
            let before = BranchFlags::from_word(base);
            for bit in 0..64 {
                let after = BranchFlags::from_word(base ^ (1 << bit));
                assert_ne!(before, after, "bit {bit} has no typed home");
                assert_eq!(after.to_word(), base ^ (1 << bit));
            }
        }
    }

    #[test]
    fn fields_sit_where_the_abi_puts_them() {
        let flags = BranchFlags {
            mispred: true,
            cycles: 0xffff,
            branch_type: BranchType::IRQ,
            privilege: BranchPrivilege::KERNEL,
            ..BranchFlags::default()
        };
        assert_eq!(flags.to_word(), 1 | 0xffff << 4 | 12 << 20 | 2 << 30);
    }

    #[test]
    fn values_wider_than_their_field_cannot_be_built() {
        assert_eq!(BranchType::new(16), None);
        assert_eq!(BranchSpec::new(4), None);
        assert_eq!(NewBranchType::new(16), None);
        assert_eq!(BranchPrivilege::new(8), None);
        assert_eq!(ReservedBits::new(1 << 31), None);
        assert_eq!(BranchType::new(12), Some(BranchType::IRQ));
    }

    proptest! {
        #[test]
        fn decode_then_encode_is_the_identity(bytes: [u8; ENTRY_SIZE]) {
            prop_assert_eq!(BranchEntry::decode(&bytes).encode(), bytes);
        }
    }
}
