//! What registers and memory hold, as far as it says which load reads which store.
//!
//! Nobody knows the values of a trace, but which addresses are equal mostly follows from the code.
//! So unknown values are replaced by arbitrary numbers of 64 bits, and arithmetic on them is done as
//! the instructions say: two addresses that are equal whatever the values come out equal, and two
//! that have nothing to do with each other come out far apart.

mod cells;
#[cfg(test)]
mod tests;

use iced_x86::{Instruction, InstructionInfo, Mnemonic, OpKind, Register};

pub(super) use self::cells::Source;
use self::cells::{Cell, CellSet, SETS, is_within, places, set_of};
use crate::lower::written;
use crate::scoreboard::inst::Address;

/// Values beside those of the general-purpose registers, which have 1 to 16: always 0, what the instruction
/// loads, the address of its operand in memory, something that nothing is known of; the last one takes what
/// nobody reads.
const ZERO: u8 = 0;
const LOADED: u8 = 17;
const ADDRESS: u8 = 18;
const UNKNOWN: u8 = 19;
const NOBODY: u8 = 20;
/// RSP and RBP.
const STACK: usize = 5;
const FRAME: usize = 6;
/// Values that are kept: as many as a byte can name, so that none has to be checked.
const VALUES: usize = 256;

/// What an instruction computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(i8)]
enum Kind {
    /// The first operand less the second, and the immediate, into a whole register. As a number it has all bits.
    Difference = -1,
    /// The sum of both operands and the immediate, the same.
    #[default]
    Sum = 0,
    /// Nobody knows.
    Fresh,
    /// A sum or difference of an operand that is not known or is the narrower one, or into part of a register.
    OddDifference,
    OddSum,
    /// The second operand with its sign.
    Extend,
    And,
    Or,
    Xor,
    /// RSP from RBP, RBP from memory.
    Leave,
    /// The same; all registers that it writes.
    Several,
}

/// What an instruction does to general-purpose registers and to what it stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// Added to the second operand.
    immediate: i32,
    /// General-purpose registers written, one bit each.
    pub(super) written: u16,
    kind: Kind,
    /// Value that takes the result.
    to: u8,
    first: u8,
    second: u8,
    /// Bytes of the result and the first operand (low 4 bits), and of the second operand (high). Where a register gets
    /// no more than a narrow operand, that of the operand.
    sizes: u8,
    /// Added to RSP.
    stack: i8,
}

impl Effect {
    /// Whether it needs the address of its operand.
    pub(super) fn takes_address(&self) -> bool {
        self.second == ADDRESS
    }

    /// Whether it needs what its operand in memory holds.
    pub(super) fn reads_loaded(&self) -> bool {
        self.kind == Kind::Leave || [self.first, self.second].contains(&LOADED)
    }

    /// Whether all it does is to put what it loads into a register.
    pub(super) fn is_loaded(&self) -> bool {
        let nothing = (self.immediate, self.stack, self.first) == (0, 0, ZERO);
        self.kind == Kind::Sum && self.second == LOADED && nothing
    }

    /// Whether it adds to RSP.
    pub(super) fn moves_stack(&self) -> bool {
        self.stack != 0
    }

    /// With the kind that tells sums which need few steps from others.
    fn by_kind(mut self) -> Self {
        let (size, from) = (self.sizes & 15, self.sizes >> 4);
        let part = size < 4 && self.to != NOBODY;
        let only = (self.kind, self.first, self.immediate) == (Kind::Sum, ZERO, 0);
        let odd = part || self.second == UNKNOWN || from < size && !only;
        let fresh = only && self.second == UNKNOWN && !part;
        match self.kind {
            Kind::Sum if fresh => self.kind = Kind::Fresh,
            Kind::Sum if odd => self.kind = Kind::OddSum,
            Kind::Difference if odd => self.kind = Kind::OddDifference,
            Kind::Sum if from < size => self.sizes = from | from << 4,
            _ => {}
        }
        self
    }

    /// Whether registers hold something else behind it.
    pub(super) fn changes(&self) -> bool {
        self.to != NOBODY || self.written != 0 || self.stack != 0
    }
}

/// What `instruction` does, and the operand in memory, if it only computes with it: that of LEA, or a large
/// immediate.
pub(super) fn effect(
    instruction: &Instruction,
    info: &InstructionInfo,
) -> (Effect, Option<Address>) {
    let (effect, address) = whatever(instruction, info);
    (effect.by_kind(), address)
}

/// The same, with sums of all kinds as such.
fn whatever(instruction: &Instruction, info: &InstructionInfo) -> (Effect, Option<Address>) {
    let written = written(info);
    let mut effect = Effect {
        to: NOBODY,
        first: ZERO,
        second: UNKNOWN,
        sizes: 8 | 8 << 4,
        written,
        ..Effect::default()
    };
    if instruction.is_stack_instruction() {
        // ENTER and RET can move it further: what RSP holds then is not known.
        effect.stack = i8::try_from(instruction.stack_pointer_increment()).unwrap_or_default();
    }
    if let Some(address) = known(instruction, &mut effect) {
        return (effect, address);
    }
    // Something that is not followed, into one register or several.
    let rsp = 1 << (STACK - 1);
    let unknown = if effect.stack == 0 {
        written
    } else {
        written & !rsp
    };
    match unknown.count_ones() {
        0 => {}
        1 => effect.to = unknown.trailing_zeros() as u8 + 1,
        _ => effect.kind = Kind::Several,
    }
    (effect, None)
}

/// Fills in an effect that is followed; the address that it needs.
fn known(instruction: &Instruction, effect: &mut Effect) -> Option<Option<Address>> {
    use Mnemonic as M;
    let mnemonic = instruction.mnemonic();
    let count = instruction.op_count();
    if mnemonic == M::Leave {
        (effect.kind, effect.stack) = (Kind::Leave, 0);
        return Some(None);
    }
    let register_of = |op: u32| match op < count && instruction.op_kind(op) == OpKind::Register {
        true => Some(instruction.op_register(op)),
        false => None,
    };
    let same = count == 2 && register_of(0).is_some() && register_of(0) == register_of(1);
    let nothing = matches!(mnemonic, M::Xor | M::Sub) && same;
    let (kind, first, second) = match mnemonic {
        _ if nothing => (Kind::Sum, None, None),
        M::Mov | M::Movzx => (Kind::Sum, None, Some(1)),
        M::Movsx | M::Movsxd => (Kind::Extend, None, Some(1)),
        M::Push => (Kind::Sum, None, Some(0)),
        M::Pop | M::Lea => (Kind::Sum, None, None),
        M::Add => (Kind::Sum, Some(0), Some(1)),
        M::Sub => (Kind::Difference, Some(0), Some(1)),
        M::Inc => (Kind::Sum, Some(0), None),
        M::Dec => (Kind::Difference, Some(0), None),
        M::And => (Kind::And, Some(0), Some(1)),
        M::Or => (Kind::Or, Some(0), Some(1)),
        M::Xor => (Kind::Xor, Some(0), Some(1)),
        M::Not | M::Neg => (Kind::Difference, None, Some(0)),
        _ => return None,
    };
    let size = |op: u32| match instruction.op_kind(op) {
        OpKind::Register => instruction.op_register(op).size().min(8) as u8,
        OpKind::Memory => instruction.memory_size().size().min(8) as u8,
        _ => 8,
    };
    let operand = |op: u32| match instruction.op_kind(op) {
        OpKind::Register => register(instruction.op_register(op)),
        OpKind::Memory => LOADED,
        kind if kind >= OpKind::Immediate8 && kind <= OpKind::Immediate32to64 => ZERO,
        _ => UNKNOWN,
    };
    let own = size(0);
    effect.kind = kind;
    effect.first = first.map_or(ZERO, operand);
    effect.second = second.map_or(ZERO, operand);
    effect.sizes = own | second.map_or(own, size) << 4;
    let mut address = None;
    match mnemonic {
        M::Inc | M::Dec | M::Not => effect.immediate = 1,
        M::Pop => effect.second = LOADED,
        M::Lea => {
            let memory = |register: Register| match self::register(register) {
                UNKNOWN => ZERO,
                value => value,
            };
            effect.second = ADDRESS;
            address = Some(Address::new(
                memory(instruction.memory_base()),
                memory(instruction.memory_index()),
                instruction.memory_index_scale() as u8,
                instruction.memory_displacement64(),
                0,
            ));
        }
        _ => {}
    }
    if let Some(op) = second
        && operand(op) == ZERO
    {
        let immediate = instruction.immediate(op);
        match i32::try_from(immediate as i64) {
            Ok(small) => effect.immediate = small,
            // The upper half goes with the result.
            Err(_) if own <= 4 => effect.immediate = immediate as i32,
            Err(_) => {
                effect.second = ADDRESS;
                address = Some(Address::new(ZERO, ZERO, 0, immediate, 0));
            }
        }
    }
    if mnemonic != M::Push
        && let Some(to) = register_of(0)
    {
        effect.to = match register(to) {
            UNKNOWN => NOBODY,
            value => value,
        };
    }
    Some(address)
}

/// The value of a general-purpose register; the high bytes are not followed.
fn register(register: Register) -> u8 {
    let full = register.full_register();
    let high = matches!(
        register,
        Register::AH | Register::BH | Register::CH | Register::DH
    );
    if full.is_gpr64() && !high {
        full.number() as u8 + 1
    } else {
        UNKNOWN
    }
}

/// The lowest bytes of a value, by how many they are.
const LOW: [u64; 16] = {
    let mut low = [u64::MAX; 16];
    let mut size = 0;
    while size < 8 {
        low[size] = (1 << (size * 8)) - 1;
        size += 1;
    }
    low
};

/// The bytes that a write of so many keeps.
const KEPT: [u64; 16] = {
    let mut kept = [0; 16];
    let mut size = 0;
    while size < 4 {
        kept[size] = !LOW[size];
        size += 1;
    }
    kept
};

/// What a load finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) value: u64,
    pub(super) source: Source,
}

/// Stand-ins for what registers and memory hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contents {
    values: [u64; VALUES],
    fresh: u64,
    sets: Box<[CellSet; SETS]>,
}

impl Contents {
    pub(super) fn new() -> Self {
        let mut contents = Self {
            values: [0; VALUES],
            fresh: 0x1234_5678_9abc_def1,
            sets: Box::new([CellSet::EMPTY; SETS]),
        };
        for number in 1..=16 {
            contents.values[number] = contents.fresh();
        }
        contents
    }

    /// A value that has nothing to do with any other. Pointers are aligned as a rule.
    #[inline]
    fn fresh(&mut self) -> u64 {
        // The multiplier and increment of Knuth's MMIX.
        self.fresh = self
            .fresh
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.fresh ^ self.fresh >> 29) & !63
    }

    #[inline]
    fn get(&self, value: u8) -> u64 {
        self.values[usize::from(value)]
    }

    /// The sum of base, index times scale and displacement.
    #[inline]
    pub(super) fn address(&self, address: Address) -> u64 {
        let scaled = self.get(address.index).wrapping_mul(address.scale.into());
        self.get(address.base)
            .wrapping_add(scaled)
            .wrapping_add(address.displacement())
    }

    /// Puts `loaded` into a register, for an effect that [`Effect::is_loaded`].
    #[inline(always)]
    pub(super) fn fill(&mut self, effect: &Effect, loaded: u64) {
        self.values[usize::from(effect.to)] = loaded & LOW[usize::from(effect.sizes & 15)];
    }

    /// Runs `effect` of an instruction whose operand in memory is at `address`, if it computes with that, and whose
    /// load delivered `loaded`, if it loads; what it stores, if it does. `stack`: it may add to RSP.
    #[inline(always)]
    pub(super) fn run(
        &mut self,
        effect: &Effect,
        address: Option<u64>,
        loaded: Option<u64>,
        stack: bool,
    ) -> u64 {
        if let Some(loaded) = loaded {
            self.values[usize::from(LOADED)] = loaded;
        }
        if let Some(address) = address {
            self.values[usize::from(ADDRESS)] = address;
        }
        let value = match effect.kind {
            Kind::Fresh => self.fresh() & LOW[usize::from(effect.sizes & 15)],
            kind if kind as i8 > 0 => self.rare(effect),
            kind => {
                let second = self.get(effect.second);
                let second = second.wrapping_add(effect.immediate as i64 as u64);
                // Sum or difference without a branch. Their lower bytes follow from those of the operands.
                let minus = kind as i8 as i64 as u64;
                let first = self.get(effect.first);
                let sum = first.wrapping_add(second ^ minus).wrapping_sub(minus);
                sum & LOW[usize::from(effect.sizes & 15)]
            }
        };
        if stack {
            self.values[STACK] = self.values[STACK].wrapping_add(effect.stack as i64 as u64);
        }
        // A write of 32 bits clears the rest.
        self.values[usize::from(effect.to)] = value;
        value
    }

    /// The value of what is neither sum nor difference of whole registers.
    #[inline(never)]
    fn rare(&mut self, effect: &Effect) -> u64 {
        if effect.second == UNKNOWN {
            self.values[usize::from(UNKNOWN)] = self.fresh();
        }
        let size = usize::from(effect.sizes & 15);
        let first = self.get(effect.first);
        let second = self.get(effect.second) & LOW[usize::from(effect.sizes >> 4)];
        let second = second.wrapping_add(effect.immediate as i64 as u64);
        let value = match effect.kind {
            Kind::Fresh | Kind::OddSum | Kind::Sum => first.wrapping_add(second),
            Kind::OddDifference | Kind::Difference => first.wrapping_sub(second),
            Kind::Extend => {
                let unused = 64 - 8 * u32::from((effect.sizes >> 4).clamp(1, 8));
                ((second << unused) as i64 >> unused) as u64
            }
            Kind::And => first & second,
            Kind::Or => first | second,
            Kind::Xor => first ^ second,
            Kind::Leave => {
                let loaded = self.get(LOADED);
                self.values[STACK] = self.values[FRAME].wrapping_add(8);
                self.values[FRAME] = loaded;
                loaded
            }
            Kind::Several => {
                let mut left = effect.written;
                if effect.stack != 0 {
                    left &= !(1 << (STACK - 1));
                }
                while left != 0 {
                    let number = left.trailing_zeros() as usize;
                    left &= left - 1;
                    self.values[number + 1] = self.fresh();
                }
                self.fresh()
            }
        };
        let value = value & LOW[size];
        match effect.to {
            NOBODY => value,
            // Writes of fewer than 32 bits keep the rest.
            to => self.get(to) & KEPT[size] | value,
        }
    }

    /// A load of `size` bytes.
    #[inline]
    pub(super) fn load(&mut self, address: u64, size: u8) -> Found {
        let place = address >> 3;
        let number = set_of(place);
        let set = &self.sets[number];
        let way = set.way(place);
        let mut source = Source::Cache;
        let mut known = None;
        if let Some(cell) = set.cell(way) {
            if cell.is(address, size) {
                (source, known) = (cell.source(), Some(cell.value));
            } else if cell.number() > 0 {
                (source, known) = set.find(cell, place, address, size);
            }
        }
        if !is_within(place, address, size) {
            let latest = self.latest(address, size, source);
            if latest != source {
                (source, known) = (latest, None);
            }
        }
        if let Some(value) = known {
            return Found { value, source };
        }
        let value = self.fresh();
        if source == Source::Cache && (1..=8).contains(&size) {
            // The same load again gives the same value.
            let cell = Cell::new(address, size, value, 0);
            self.sets[number].load(way, place, cell);
        }
        Found { value, source }
    }

    /// The latest store that a load of several places has bytes of, if that of the first one is `first`.
    #[inline(never)]
    fn latest(&self, address: u64, size: u8, first: Source) -> Source {
        let places = places(address, size).skip(1);
        places.fold(first, |latest, place| {
            let found = self.sets[set_of(place)].source(place, address, size);
            match found.number() > latest.number() {
                true => found,
                false => latest,
            }
        })
    }

    /// Store `number`, from 1 on, writes `size` bytes of `value`.
    #[inline]
    pub(super) fn store(&mut self, address: u64, size: u8, value: u64, number: u64) {
        let cell = Cell::new(address, size, value, number);
        let place = address >> 3;
        match is_within(place, address, size) {
            true => self.sets[set_of(place)].store(place, cell),
            false => self.store_across(cell, address, size),
        }
    }

    /// A store to several places, or of nobody knows how many bytes, which serves no load.
    #[inline(never)]
    fn store_across(&mut self, cell: Cell, address: u64, size: u8) {
        for place in places(address, size) {
            self.sets[set_of(place)].store(place, cell);
        }
    }
}
