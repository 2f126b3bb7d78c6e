//! An instruction as the scoreboard runs it.

use crate::scoreboard::contents::Effect;

/// Inputs and outputs that an [`Inst`] has room for; few instructions have more.
pub(super) const INPUTS: usize = 2;
pub(super) const OUTPUTS: usize = 3;
/// Micro-operations that an [`Inst`] has no room for.
pub(super) const MANY: u8 = u8::MAX;
/// No [`Extra`].
pub(super) const NOTHING: u32 = u32::MAX;

/// Properties of an [`Inst`], one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags(u16);

impl Flags {
    /// Changes the offset that the stack engine holds.
    pub(super) const STACK: Self = Self(1);
    /// Reads RSP as an ordinary operand.
    pub(super) const READS_RSP: Self = Self(1 << 1);
    /// Writes RSP as an ordinary operand.
    pub(super) const WRITES_RSP: Self = Self(1 << 2);
    /// Is the first one that the decoders take in a cycle, if the block began in another one.
    pub(super) const BEGINS_GROUP: Self = Self(1 << 3);
    /// A conditional branch, or what is fused with one.
    pub(super) const CONDITIONAL: Self = Self(1 << 4);
    /// Fused with the instruction before it.
    pub(super) const FUSED: Self = Self(1 << 5);
    /// Nothing behind it is fetched before it has retired.
    pub(super) const SERIALIZES: Self = Self(1 << 6);
    /// Divides floating-point numbers.
    pub(super) const FLOAT: Self = Self(1 << 7);
    /// A branch that crosses a 32-byte boundary or ends at one.
    pub(super) const TOUCHES_WINDOW_END: Self = Self(1 << 8);
    /// Writes the high byte of a register.
    pub(super) const HIGH_BYTE: Self = Self(1 << 9);
    /// Loads from, and stores to, the memory its operand says.
    pub(super) const LOADS: Self = Self(1 << 10);
    pub(super) const STORES: Self = Self(1 << 11);
    /// The address has an index register.
    pub(super) const INDEXED: Self = Self(1 << 12);
    /// The displacement lets a load be a cycle faster.
    pub(super) const NEAR: Self = Self(1 << 13);
    /// Changes what registers or memory hold.
    pub(super) const WRITES: Self = Self(1 << 14);
    /// What every instruction has.
    pub(super) const EVERY: Self = Self(1 << 15);

    /// Whether it has any of `flags`.
    #[inline(always)]
    pub(super) const fn any(self, flags: Self) -> bool {
        self.0 & flags.0 != 0
    }

    /// The offset of the stack engine behind an instruction, as [`Flags::READS_RSP`] or nothing, by that before it.
    /// Without a branch.
    #[inline(always)]
    pub(super) const fn offset_behind(self, before: Self) -> Self {
        const {
            assert!(Self::READS_RSP.0 == Self::STACK.0 << 1);
            assert!(Self::READS_RSP.0 == Self::WRITES_RSP.0 >> 1);
        }
        Self((before.0 & !(self.0 >> 1) | self.0 << 1) & Self::READS_RSP.0)
    }

    pub(super) const fn or(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }

    /// Adds `flags` if `condition` holds.
    pub(super) const fn when(self, flags: Self, condition: bool) -> Self {
        match condition {
            true => self.or(flags),
            false => self,
        }
    }
}

/// An input with the cycles that lie between it and the beginning of the operation, less its latency; or an
/// output with those behind its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) value: u8,
    pub(super) cycles: i16,
}

/// Links of an [`Inst`], filled up with those that change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Links<const COUNT: usize> {
    values: [u8; COUNT],
    cycles: [i16; COUNT],
}

impl<const COUNT: usize> Links<COUNT> {
    /// The first of `links`, then links of `value`.
    pub(super) fn of(links: &[Link], value: u8) -> Self {
        let rest = Link { value, cycles: 0 };
        let at = |number: usize| links.get(number).copied().unwrap_or(rest);
        Self {
            values: core::array::from_fn(|number| at(number).value),
            cycles: core::array::from_fn(|number| at(number).cycles),
        }
    }

    /// Their values.
    pub(super) fn values(&self) -> impl Iterator<Item = u8> {
        self.values.into_iter()
    }

    /// Value and cycles of all.
    pub(super) fn links(&self) -> impl Iterator<Item = (u8, i64)> {
        self.values().zip(self.cycles.map(i64::from))
    }

    /// Leaves out those of which `keep` says no by their value, and fills up with links of `rest`; how many there are
    /// then of another value than `rest`.
    pub(super) fn keep(&mut self, rest: u8, keep: impl Fn(u8) -> bool) -> usize {
        let all = self.values.into_iter().zip(self.cycles);
        let kept = all.filter(|&(value, _)| value != rest && keep(value));
        let kept: Vec<_> = kept.map(|(value, cycles)| Link { value, cycles }).collect();
        *self = Self::of(&kept, rest);
        kept.len()
    }

    /// Value and cycles of one of them.
    #[inline(always)]
    pub(super) fn get(&self, number: usize) -> (u8, i64) {
        (self.values[number], self.cycles[number].into())
    }
}

/// An address in memory: values of base and index (0 for none), scale and displacement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Address {
    /// Low half first: four bytes of alignment waste no room.
    displacement: [u32; 2],
    pub(super) base: u8,
    pub(super) index: u8,
    pub(super) scale: u8,
    /// Bytes that are accessed; 0 where the instruction does not say.
    pub(super) size: u8,
}

impl Address {
    pub(super) fn new(base: u8, index: u8, scale: u8, displacement: u64, size: u8) -> Self {
        Self {
            displacement: [displacement as u32, (displacement >> 32) as u32],
            base,
            index,
            scale,
            size,
        }
    }

    #[inline(always)]
    pub(super) fn displacement(self) -> u64 {
        u64::from(self.displacement[0]) | u64::from(self.displacement[1]) << 32
    }
}

/// An access beyond the first operand in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) address: Address,
    /// LOADS, STORES, INDEXED and NEAR.
    pub(super) flags: Flags,
    /// Load to use; 0 if that depends on what the base was loaded by.
    pub(super) latency: u8,
}

/// What few instructions have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extra {
    pub(super) inputs: Vec<Link>,
    pub(super) outputs: Vec<Link>,
    /// Operations behind the first one, by port sets.
    pub(super) parts: Vec<(u16, u16)>,
    pub(super) references: Vec<Reference>,
    /// Registers that a string instruction moves on.
    pub(super) pointers: Vec<u8>,
    /// Cycles of a divider.
    pub(super) divider: u16,
    /// Cycles in which nothing else that has them begins.
    pub(super) floor: u16,
    /// Fused micro-operations as decoded and as renamed.
    pub(super) decoded: u16,
    pub(super) issued: u16,
}

impl Extra {
    /// Whether an [`Inst`] has no room for it.
    pub(super) fn is_needed(&self) -> bool {
        let most = u16::from(MANY) - 1;
        !self.inputs.is_empty()
            || !self.outputs.is_empty()
            || !self.parts.is_empty()
            || !self.references.is_empty()
            || !self.pointers.is_empty()
            || self.divider > 0
            || self.floor > 0
            || self.decoded.max(self.issued) > most
    }
}

/// An instruction, in one line of the cache.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Inst {
    pub(super) address: Address,
    pub(super) effect: Effect,
    /// Index of its [`Extra`], or [`NOTHING`].
    pub(super) extra: u32,
    /// Window of the uop cache that it begins in.
    pub(super) window: u32,
    /// Cycles of the predecoder between it and the instruction that lies before it.
    pub(super) predecode: u8,
    pub(super) inputs: Links<INPUTS>,
    pub(super) outputs: Links<OUTPUTS>,
    /// Ports of its first operation; none if it has no operation.
    pub(super) ports: u16,
    pub(super) latency: i16,
    /// Cycles from the beginning of the operation until it and all outputs are done, those that are left out too; 0 if
    /// they do not fit.
    pub(super) whole: u16,
    pub(super) flags: Flags,
    /// Fused micro-operations as decoded and as renamed; what is not below [`MANY`] stands in [`Extra`].
    pub(super) decoded: u8,
    pub(super) issued: u8,
    /// Load to use; 0 if that depends on what the base was loaded by.
    pub(super) load: u8,
    /// Value of the register that a load fills, 0 for none.
    pub(super) fills: u8,
    /// Number among [`super::kind::KINDS`].
    pub(super) kind: u8,
    /// Entries of the scheduler.
    pub(super) entries: u8,
}

/// The window of 2 to the power of `shift` bytes that `address` is in, as it is kept: near windows stay near, and
/// in their sets.
pub(super) fn window_of(address: u64, shift: u32) -> u32 {
    let window = address >> shift;
    let high = ((window >> 32) as u32).wrapping_mul(0x9e37_7900);
    (window as u32).wrapping_add(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_fills_one_line_of_the_cache() {
        assert_eq!(size_of::<Inst>(), 64);
    }

    #[test]
    fn neighbouring_windows_are_neighbours_and_far_ones_are_not() {
        let (user, kernel) = (0x7fff_f7e0_1020, 0xffff_ffff_8100_1020);
        for address in [0, user, kernel] {
            assert_eq!(
                window_of(address + 32, 5),
                window_of(address, 5).wrapping_add(1)
            );
            assert_eq!(
                window_of(address + 31, 5),
                window_of((address + 31) & !31, 5)
            );
        }
        assert_ne!(window_of(user, 5), window_of(user - (1 << 37), 5));
        assert_ne!(window_of(kernel, 5), window_of(kernel & 0xffff_ffff, 5));
    }
}
