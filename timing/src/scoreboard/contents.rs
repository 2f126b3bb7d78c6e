//! What registers and memory hold, as far as it says which load reads which store.
//!
//! Nobody knows the values of a trace, but which addresses are equal mostly follows from the code.
//! So unknown values are replaced by arbitrary numbers of 64 bits, and arithmetic on them is done as
//! the instructions say: two addresses that are equal whatever the values come out equal, and two
//! that have nothing to do with each other come out far apart.

use iced_x86::{Instruction, InstructionInfo, Mnemonic, OpKind, Register};

use crate::lower::written;

/// No operand, or one that nothing is known of.
const UNKNOWN: u8 = 0xff;
/// What the instruction loads.
const LOADED: u8 = 16;
/// Its immediate.
const IMMEDIATE: u8 = 17;
/// RSP.
const STACK: usize = 4;

/// What an instruction computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    /// Something that is not followed.
    #[default]
    Other,
    /// The second operand.
    Move,
    /// The same with its sign.
    Extend,
    Add,
    Subtract,
    And,
    Or,
    Xor,
    Not,
    Negate,
    /// An address: base, index and scale, displacement.
    Address,
    /// RSP from RBP, RBP from memory.
    Leave,
}

/// What an instruction does to general-purpose registers and to what it stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    kind: Kind,
    /// Register that takes the result; [`UNKNOWN`] if it is stored or dropped.
    to: u8,
    first: u8,
    second: u8,
    /// Bytes of the result and of the second operand.
    size: u8,
    from_size: u8,
    scale: u8,
    /// Registers written, one bit each.
    written: u16,
    /// Added to RSP.
    stack: i32,
    immediate: u64,
}

/// What `instruction` does.
pub(super) fn effect(instruction: &Instruction, info: &InstructionInfo) -> Effect {
    use Mnemonic as M;
    let mut effect = Effect {
        to: UNKNOWN,
        first: UNKNOWN,
        second: UNKNOWN,
        size: 8,
        from_size: 8,
        written: written(info),
        ..Effect::default()
    };
    if instruction.is_stack_instruction() {
        effect.stack = instruction.stack_pointer_increment();
    }
    let count = instruction.op_count();
    let same = count == 2
        && instruction.op0_kind() == OpKind::Register
        && instruction.op1_kind() == OpKind::Register
        && instruction.op0_register() == instruction.op1_register();
    let kind = match instruction.mnemonic() {
        M::Mov | M::Movzx | M::Push | M::Pop => Kind::Move,
        M::Movsx | M::Movsxd => Kind::Extend,
        M::Xor | M::Sub if same => {
            effect.first = IMMEDIATE;
            Kind::Move
        }
        M::Add | M::Inc => Kind::Add,
        M::Sub | M::Dec => Kind::Subtract,
        M::And => Kind::And,
        M::Or => Kind::Or,
        M::Xor => Kind::Xor,
        M::Not => Kind::Not,
        M::Neg => Kind::Negate,
        M::Lea => Kind::Address,
        M::Leave => Kind::Leave,
        _ => Kind::Other,
    };
    if kind == Kind::Other || count == 0 && kind != Kind::Leave {
        return effect;
    }
    effect.kind = kind;
    if kind == Kind::Leave {
        return effect;
    }
    let size = |op: u32| match instruction.op_kind(op) {
        OpKind::Register => instruction.op_register(op).size() as u8,
        OpKind::Memory => instruction.memory_size().size().min(8) as u8,
        _ => 8,
    };
    let mut operand = |op: u32| match instruction.op_kind(op) {
        OpKind::Register => register(instruction.op_register(op)),
        OpKind::Memory => LOADED,
        kind if kind >= OpKind::Immediate8 && kind <= OpKind::Immediate32to64 => {
            effect.immediate = instruction.immediate(op);
            IMMEDIATE
        }
        _ => UNKNOWN,
    };
    let first = operand(0);
    let second = if count > 1 { operand(1) } else { UNKNOWN };
    effect.size = size(0);
    effect.from_size = if count > 1 { size(1) } else { effect.size };
    match instruction.mnemonic() {
        M::Push => {
            (effect.second, effect.from_size) = (first, effect.size);
            return effect;
        }
        M::Pop => (effect.second, effect.from_size) = (LOADED, effect.size),
        M::Inc | M::Dec => {
            (effect.first, effect.second, effect.immediate) = (first, IMMEDIATE, 1);
        }
        M::Xor | M::Sub if same => (effect.second, effect.immediate) = (IMMEDIATE, 0),
        M::Lea => {
            effect.first = register(instruction.memory_base());
            effect.second = register(instruction.memory_index());
            effect.scale = instruction.memory_index_scale() as u8;
            effect.immediate = instruction.memory_displacement64();
        }
        M::Not | M::Neg => effect.first = first,
        _ => (effect.first, effect.second) = (first, second),
    }
    if instruction.op0_kind() == OpKind::Register {
        effect.to = first;
    }
    effect
}

/// The number of a general-purpose register; the high bytes are not followed.
fn register(register: Register) -> u8 {
    let full = register.full_register();
    let high = matches!(
        register,
        Register::AH | Register::BH | Register::CH | Register::DH
    );
    if full.is_gpr64() && !high {
        full.number() as u8
    } else {
        UNKNOWN
    }
}

/// The lowest `size` bytes.
fn low(value: u64, size: u8) -> u64 {
    match size {
        0..8 => value & ((1 << (u32::from(size) * 8)) - 1),
        _ => value,
    }
}

/// What a store wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    address: u64,
    size: u8,
    value: u64,
    /// When its data could be forwarded, and when it left the store buffer.
    ready: u64,
    committed: u64,
}

/// Sets of cells that are remembered, by their place in memory.
const SETS: usize = 128;
/// Cells of a set. Those that left the store buffer first are forgotten first.
const WAYS: usize = 4;
/// No place.
const NOWHERE: u64 = u64::MAX;

/// Cells by the 8 bytes they are about, one more than any address shifted right has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CellSet {
    places: [u64; WAYS],
    cells: [Cell; WAYS],
}

impl CellSet {
    const EMPTY: Self = Self {
        places: [NOWHERE; WAYS],
        cells: [Cell {
            address: 0,
            size: 0,
            value: 0,
            ready: 0,
            committed: 0,
        }; WAYS],
    };
}

/// What a load finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) value: u64,
    pub(super) source: Source,
}

/// Where a load has its bytes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The cache.
    Cache,
    /// A store that had its data at that time.
    Store(u64),
    /// A store of only some of the bytes, which has to leave the store buffer, at that time.
    Blocked(u64),
}

/// Stand-ins for what registers and memory hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) registers: [u64; 16],
    fresh: u64,
    sets: Vec<CellSet>,
}

impl Contents {
    pub(super) fn new() -> Self {
        let mut contents = Self {
            registers: [0; 16],
            fresh: 0x1234_5678_9abc_def1,
            sets: vec![CellSet::EMPTY; SETS],
        };
        for number in 0..16 {
            contents.registers[number] = contents.fresh();
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

    /// The sum of base, index times scale and displacement; registers by number, others are none.
    #[inline]
    pub(super) fn address(&self, base: u8, index: u8, scale: u8, displacement: u64) -> u64 {
        let get = |number: u8| {
            let at = usize::from(number);
            self.registers.get(at).copied().unwrap_or_default()
        };
        let scaled = get(index).wrapping_mul(u64::from(scale));
        get(base).wrapping_add(scaled).wrapping_add(displacement)
    }

    /// Runs `effect`, whose load delivered `loaded`; what it stores, if it `stores`.
    #[inline]
    pub(super) fn run(&mut self, effect: &Effect, loaded: u64, stores: bool) -> u64 {
        if effect.kind == Kind::Other {
            let mut left = effect.written;
            while left != 0 {
                let number = left.trailing_zeros() as usize;
                left &= left - 1;
                if number != STACK || effect.stack == 0 {
                    self.registers[number] = self.fresh();
                }
            }
            self.move_stack(effect);
            return if stores { self.fresh() } else { 0 };
        }
        let operand = |contents: &mut Self, number: u8, size: u8| match number {
            0..16 => low(contents.registers[usize::from(number)], size),
            LOADED => low(loaded, size),
            IMMEDIATE => effect.immediate,
            _ => contents.fresh(),
        };
        let size = effect.size;
        let value = match effect.kind {
            Kind::Address => {
                self.address(effect.first, effect.second, effect.scale, effect.immediate)
            }
            Kind::Leave => {
                self.registers[STACK] = self.registers[5].wrapping_add(8);
                self.registers[5] = loaded;
                return loaded;
            }
            kind => {
                let second = operand(self, effect.second, effect.from_size);
                let unused = 64 - 8 * u32::from(effect.from_size.clamp(1, 8));
                match kind {
                    Kind::Move => second,
                    Kind::Extend => ((second << unused) as i64 >> unused) as u64,
                    _ => {
                        let first = operand(self, effect.first, size);
                        match kind {
                            Kind::Add => first.wrapping_add(second),
                            Kind::Subtract => first.wrapping_sub(second),
                            Kind::And => first & second,
                            Kind::Or => first | second,
                            Kind::Xor => first ^ second,
                            Kind::Not => !first,
                            _ => first.wrapping_neg(),
                        }
                    }
                }
            }
        };
        let value = low(value, size);
        self.move_stack(effect);
        if let Some(register) = self.registers.get_mut(usize::from(effect.to)) {
            // A write of 32 bits clears the rest, smaller ones keep it.
            *register = match size {
                4.. => value,
                _ => *register & !low(u64::MAX, size) | value,
            };
        }
        value
    }

    fn move_stack(&mut self, effect: &Effect) {
        let stack = &mut self.registers[STACK];
        *stack = stack.wrapping_add(effect.stack as i64 as u64);
    }

    #[inline]
    fn set(place: u64) -> usize {
        (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57) as usize
    }

    /// The cell that wrote last to the 8 bytes at `place`.
    #[inline]
    fn cell(&self, place: u64) -> Option<&Cell> {
        let set = &self.sets[Self::set(place)];
        (0..WAYS)
            .find(|&way| set.places[way] == place)
            .map(|way| &set.cells[way])
    }

    #[inline]
    fn keep(&mut self, place: u64, cell: Cell) {
        let set = &mut self.sets[Self::set(place)];
        let mut victim = 0;
        for way in 0..WAYS {
            if set.places[way] == place {
                victim = way;
                break;
            }
            if set.cells[way].committed < set.cells[victim].committed {
                victim = way;
            }
        }
        set.places[victim] = place;
        set.cells[victim] = cell;
    }

    /// A load of `size` bytes.
    #[inline]
    pub(super) fn load(&mut self, address: u64, size: u8) -> Found {
        let last = address.wrapping_add(u64::from(size.max(1)) - 1);
        let mut source = Source::Cache;
        if let Some(cell) = self.cell(address >> 3) {
            source = cell.serves(address, size);
            if cell.address == address && cell.size == size {
                let value = cell.value;
                return Found { value, source };
            }
        }
        if source == Source::Cache
            && last >> 3 != address >> 3
            && let Some(cell) = self.cell(last >> 3)
        {
            source = cell.serves(address, size);
        }
        let value = self.fresh();
        if source == Source::Cache && size <= 8 {
            // The same load again gives the same value.
            let cell = Cell {
                address,
                size,
                value,
                ready: 0,
                committed: 0,
            };
            self.keep(address >> 3, cell);
        }
        Found { value, source }
    }

    /// A store of `size` bytes of `value`.
    #[inline]
    pub(super) fn store(&mut self, address: u64, size: u8, value: u64, ready: u64, committed: u64) {
        let cell = Cell {
            address,
            size,
            value,
            ready,
            committed,
        };
        let granules = ((address & 7) + u64::from(size.max(1))).div_ceil(8);
        for granule in 0..granules {
            self.keep((address >> 3).wrapping_add(granule) & (NOWHERE >> 3), cell);
        }
    }
}

impl Cell {
    /// What a load of `size` bytes at `address` has from this store.
    #[inline]
    fn serves(&self, address: u64, size: u8) -> Source {
        let from = address.wrapping_sub(self.address);
        let within = from.wrapping_add(u64::from(size)) <= u64::from(self.size);
        if from < u64::from(self.size) && within {
            return Source::Store(self.ready);
        }
        let before = self.address.wrapping_sub(address) < u64::from(size);
        if self.size > 0 && (from < u64::from(self.size) || before) {
            return Source::Blocked(self.committed);
        }
        Source::Cache
    }
}
