//! From instructions to micro-operations, dependences and what the front end sees.

mod execution;
mod facts;
mod fusion;
mod idiom;
mod layout;
mod memory;
mod operands;
mod serial;
mod string;
pub(crate) mod values;

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register, UsedMemory,
};

use crate::dependence::{Dependences, NO_VALUE};
use crate::environment::Environment;
use crate::forms::{Form, FormId, Role};
use crate::lower::memory::Memory;
use crate::lower::values::{ARCHITECTURAL, BLOCKED, DRAINED};
use crate::microarchitecture::Microarchitecture;
use crate::ports::PortSet;

pub(crate) use execution::{Pairing, execution, taken_ports};
pub(crate) use facts::Facts;
pub(crate) use fusion::{fuse, macro_fuses_at, may_fuse};
pub(crate) use idiom::{Idiom, idiom};
pub(crate) use layout::{Layout, prefixes};
pub(crate) use operands::{
    HighBytes, Operation, loads_whole, slow_lea, vector_load_latency, written,
};
pub(crate) use serial::{Serial, floor, serializes};
pub(crate) use string::{STEP, pointers, repeats};
pub(crate) use values::{LOADED, SINK, STACK, STORED, value_of};

/// What may be lowered at once.
pub(crate) const MAX_INSTRUCTIONS: usize = 4096;

/// Why bytes are no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LowerError {
    /// No instruction.
    #[error("the block is empty")]
    Empty,
    /// Bytes that are no instruction.
    #[error("no instruction at offset {0}")]
    Undecodable(usize),
    /// Too many instructions.
    #[error("more than {MAX_INSTRUCTIONS} instructions")]
    TooLong,
}

/// A block as its parts that the bounds are about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lowered {
    pub(crate) layout: Vec<Layout>,
    pub(crate) bytes: u32,
    /// Fused micro-operations that are renamed.
    pub(crate) issued: u32,
    /// Cycles in which the renamer only joins a high byte with its register.
    pub(crate) merges: u32,
    /// Of the micro-operations that are renamed, those that bring RSP up to date.
    pub(crate) synchronizing: u32,
    /// Micro-operations by set of ports.
    pub(crate) uops: Vec<(PortSet, u32)>,
    /// Cycles of the dividers: of integers, of floating-point numbers.
    pub(crate) dividers: [f32; 2],
    /// Cycles of instructions that let nothing of their kind pass.
    pub(crate) floor: f32,
    /// What waits for the block's instructions that serialize, and their cycles of those.
    pub(crate) serial: Option<(Serial, f32)>,
    pub(crate) stores: u32,
    /// Pages that an iteration is the first to store to.
    pub(crate) new_pages: f32,
    pub(crate) dependences: Dependences,
}

impl Lowered {
    fn clear(&mut self) {
        self.layout.clear();
        self.bytes = 0;
        self.issued = 0;
        self.merges = 0;
        self.synchronizing = 0;
        self.uops.clear();
        self.dividers = [0.0; 2];
        self.floor = 0.0;
        self.serial = None;
        self.new_pages = 0.0;
        self.stores = 0;
        self.dependences.clear();
    }

    fn add(&mut self, ports: PortSet, count: u32) {
        match self.uops.iter_mut().find(|(set, _)| *set == ports) {
            Some((_, sum)) => *sum += count,
            None => self.uops.push((ports, count)),
        }
    }
}

/// How a block stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    /// A branch at its end is taken.
    pub(crate) looped: bool,
    /// Its address, if that is known; in unrolled code each copy has another one.
    pub(crate) address: Option<u64>,
}

/// State that runs from one iteration into the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Carry {
    /// The stack engine holds an offset that RSP does not have yet.
    stack_offset: bool,
    /// General-purpose registers whose last writer was a load, one bit each.
    loaded: u16,
    /// Registers of which AH, BH, CH or DH is renamed apart.
    high: u16,
    /// Registers that an address used before the block wrote them.
    asked: u16,
    /// Registers that the block has written.
    written: u16,
    /// The block has used or set the offset.
    offset_known: bool,
    /// What the block did depends on the offset at entry.
    asked_offset: bool,
}

impl Carry {
    /// Whether the block would be lowered in another way if it began as it ended.
    fn matters(self) -> bool {
        self.high != 0 || self.loaded & self.asked != 0 || (self.stack_offset && self.asked_offset)
    }

    /// The beginning of the next iteration.
    fn next(self) -> Self {
        Self {
            stack_offset: self.stack_offset,
            loaded: self.loaded,
            high: self.high,
            ..Self::default()
        }
    }
}

/// Lowers blocks. Keeps its memory from block to block.
#[derive(Debug)]
pub(crate) struct Lowering {
    environment: Environment,
    factory: InstructionInfoFactory,
    memory: Memory,
    instructions: Vec<Instruction>,
    /// Number of prefixes of each instruction, and whether one changes its length.
    prefixes: Vec<(u8, bool)>,
    /// Edges of the current instruction that wait for stores.
    sources: Vec<usize>,
    /// What became of each instruction, if someone asks.
    facts: Option<Vec<Facts>>,
    pub(crate) lowered: Lowered,
}

impl Lowering {
    pub(crate) fn new(environment: Environment) -> Self {
        Self {
            environment,
            factory: InstructionInfoFactory::new(),
            memory: Memory::default(),
            instructions: Vec::new(),
            prefixes: Vec::new(),
            sources: Vec::new(),
            facts: None,
            lowered: Lowered::default(),
        }
    }

    pub(crate) fn environment(&self) -> Environment {
        self.environment
    }

    /// Lowers like [`Lowering::lower`]; the instructions and what became of each.
    pub(crate) fn lower_with_facts(
        &mut self,
        bytes: &[u8],
        place: Place,
        core: &Microarchitecture,
    ) -> Result<(&[Instruction], Vec<Facts>), LowerError> {
        self.facts = Some(Vec::new());
        let lowered = self.lower(bytes, 64, place, core);
        let facts = self.facts.take().unwrap_or_default();
        lowered.map(|()| (self.instructions.as_slice(), facts))
    }

    /// Decodes and lowers `bytes`, which are repeated without end.
    pub(crate) fn lower(
        &mut self,
        bytes: &[u8],
        bits: u32,
        place: Place,
        core: &Microarchitecture,
    ) -> Result<(), LowerError> {
        self.instructions.clear();
        let mut decoder = Decoder::with_ip(
            bits,
            bytes,
            place.address.unwrap_or(0),
            DecoderOptions::NONE,
        );
        self.prefixes.clear();
        while decoder.can_decode() {
            let start = decoder.position();
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                return Err(LowerError::Undecodable(start));
            }
            if self.instructions.len() == MAX_INSTRUCTIONS {
                return Err(LowerError::TooLong);
            }
            let constants = decoder.get_constant_offsets(&instruction);
            let end = start + instruction.len();
            self.prefixes.push(layout::prefixes(
                &instruction,
                &bytes[start..end],
                &constants,
            ));
            self.instructions.push(instruction);
        }
        if self.instructions.is_empty() {
            return Err(LowerError::Empty);
        }
        let end = self.pass(bytes.len() as u32, place, Carry::default(), core);
        if end.matters() {
            self.pass(bytes.len() as u32, place, end.next(), core);
        }
        self.memory.resolve(
            &self.instructions,
            self.environment,
            &core.parameters,
            &mut self.lowered.dependences,
        );
        self.lowered.new_pages = self.memory.new_pages();
        Ok(())
    }

    /// Lowers the instructions once; what runs into the next iteration.
    fn pass(
        &mut self,
        bytes: u32,
        place: Place,
        mut carry: Carry,
        core: &Microarchitecture,
    ) -> Carry {
        self.lowered.clear();
        self.lowered.bytes = bytes;
        self.memory.clear();
        if let Some(facts) = &mut self.facts {
            facts.clear();
        }
        let mut start = 0;
        let mut fused_behind = false;
        for at in 0..self.instructions.len() {
            let instruction = self.instructions[at];
            let (opcode, length_changing) = self.prefixes[at];
            let next = self.instructions.get(at + 1).copied();
            let fused_before = fused_behind;
            let branch = next.filter(|next| match place.address {
                Some(_) => fusion::macro_fuses_at(&instruction, next),
                None => fusion::macro_fuses(&instruction, next),
            });
            fused_behind = branch.is_some();
            let pairing = match &branch {
                _ if fused_before => Pairing::Second,
                Some(branch) => Pairing::First(branch),
                None => Pairing::Alone,
            };
            // The branch back of a loop is taken.
            let taken =
                place.looped && at + 1 + usize::from(fused_behind) == self.instructions.len();
            let before = self.facts.is_some().then(|| Facts::before(&self.lowered));
            let decoded = self.instruction(&instruction, pairing, taken, &mut carry, core);
            if let (Some(facts), Some(mut own)) = (&mut self.facts, before) {
                own.complete(&instruction, fused_before, &self.lowered, core);
                facts.push(own);
            }
            self.lowered.layout.push(Layout {
                start,
                length: instruction.len() as u8,
                opcode,
                length_changing,
                decoded: decoded.0,
                complex: decoded.1.is_some(),
                leaves: decoded.1.unwrap_or(u8::MAX),
                fusible: fusion::may_fuse(&instruction),
                branch: instruction.flow_control() != FlowControl::Next,
            });
            start += instruction.len() as u32;
        }
        carry
    }

    /// Lowers one instruction; micro-operations of the decoders, and if it needs the first one, how
    /// many it leaves.
    fn instruction(
        &mut self,
        instruction: &Instruction,
        pairing: Pairing<'_>,
        taken: bool,
        carry: &mut Carry,
        core: &Microarchitecture,
    ) -> (u16, Option<u8>) {
        let fused_before = matches!(pairing, Pairing::Second);
        let info = self.factory.info(instruction);
        let explicit = explicit_memory(instruction);
        let form = core.forms.get(FormId::new(instruction.code(), explicit));
        let address_only = matches!(instruction.mnemonic(), Mnemonic::Lea | Mnemonic::Nop);
        let used: &[UsedMemory] = if address_only {
            &[]
        } else {
            info.used_memory()
        };
        let loads = used.iter().filter(|m| loads(m)).count() as u16;
        let stores = used.iter().filter(|m| writes(m.access())).count() as u16;
        let idiom = idiom(instruction, &core.parameters);

        let stack = instruction.is_stack_instruction()
            && !matches!(instruction.mnemonic(), Mnemonic::Leave | Mnemonic::Enter);
        let lowered = &mut self.lowered;
        synchronize_stack(instruction, info, stack, carry, lowered, core);

        let fused = fusion::fuse(instruction, info, form, loads, stores, &core.parameters);
        lowered.issued += if fused_before {
            0
        } else {
            u32::from(fused.issued)
        };
        let own = execution(instruction, form, idiom, pairing, taken, core);
        for &(ports, count) in own.parts() {
            lowered.add(ports, u32::from(count));
        }
        let divider = core.parameters.float_divider && is_float(instruction);
        lowered.dividers[usize::from(divider)] += form.divider;
        let floor = floor(instruction, form, stores > 0, &core.parameters);
        lowered.floor += floor;
        let serial = serializes(instruction);
        if let Some(serial) = serial {
            let (before, cycles) = lowered.serial.unwrap_or((serial, 0.0));
            lowered.serial = Some((before.max(serial), cycles + floor));
            lowered.dependences.begin();
            for value in ARCHITECTURAL {
                lowered.dependences.input(value, 0.0);
            }
            lowered.dependences.output(DRAINED, 0.0);
        }
        let indexed = instruction.memory_index() != Register::None;
        if loads > 0 {
            lowered.add(core.ports.load, u32::from(loads));
        }
        lowered.stores += u32::from(stores);
        if stores > 0 {
            let address = if indexed {
                core.ports.store_index
            } else {
                core.ports.store_address
            };
            lowered.add(address, u32::from(stores));
            lowered.add(core.ports.store_data, u32::from(stores));
        }

        // The load: its value waits for the address and for the store it reads.
        let pure_load = form.uops.parts().is_empty() && stores == 0;
        let mut loaded_register = None;
        if loads > 0 {
            lowered.dependences.begin();
            self.sources.clear();
            for memory in used.iter().filter(|m| self::loads(m)) {
                let base = memory.base().full_register();
                if base.is_gpr64() {
                    carry.asked |= 1 << base.number() & !carry.written;
                }
                let latency =
                    operands::load_latency(instruction, memory, carry.loaded, &core.parameters);
                for register in [memory.base(), memory.index()] {
                    let value = value_of(register);
                    if value != NO_VALUE {
                        lowered.dependences.input(value, latency);
                    }
                }
                self.sources.push(lowered.dependences.input(NO_VALUE, 0.0));
            }
            lowered.dependences.output(LOADED, 0.0);
            for (memory, source) in used.iter().filter(|m| self::loads(m)).zip(&self.sources) {
                let blocked = lowered.dependences.output(SINK, 0.0);
                self.memory.load(memory, *source, blocked);
            }
            if pure_load && instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Register
            {
                loaded_register = Some(instruction.op0_register());
            }
        }

        // The operation itself.
        lowered.dependences.begin();
        let operation = operands::Operation {
            instruction,
            info,
            form,
            idiom,
            stack,
            loads: loads > 0,
            stores: stores > 0,
            slow_lea: operands::slow_lea(instruction, &core.parameters),
        };
        operation.inputs(&mut lowered.dependences);
        operation.outputs(&mut lowered.dependences);
        for pointer in pointers(instruction) {
            lowered.dependences.begin();
            let step = f32::from(STEP);
            lowered.dependences.input(value_of(*pointer), step);
            lowered.dependences.output(value_of(*pointer), 0.0);
        }

        // The stores.
        for memory in used.iter().filter(|m| writes(m.access())) {
            let store = self.memory.store(memory);
            lowered.dependences.begin();
            lowered.dependences.input(STORED, 0.0);
            lowered.dependences.output(store, 0.0);
            lowered.dependences.begin();
            lowered.dependences.input(STORED, 0.0);
            lowered.dependences.input(BLOCKED, 0.0);
            let before = lowered.dependences.input(NO_VALUE, 0.0);
            let after = lowered.dependences.output(SINK, 0.0);
            self.memory.commit(before, after);
        }

        if serial.is_some() {
            lowered.dependences.begin();
            lowered.dependences.input(DRAINED, floor);
            for value in ARCHITECTURAL {
                lowered.dependences.output(value, 0.0);
            }
        }

        let (merged, high) = HighBytes::of(info).follow(carry.high);
        lowered.merges += merged;
        carry.high = high;
        let written = operands::written(info);
        carry.written |= written;
        carry.loaded &= !written;
        carry.loaded |= loaded_register.map_or(0, operands::loads_whole);
        self.memory.instruction(written);
        let decoded = if fused_before { 0 } else { fused.decoded };
        (decoded, leaves(instruction, form, decoded, core))
    }
}

/// How many of the other decoders an instruction of `decoded` micro-operations leaves to those behind it, if it
/// needs the first one.
pub(crate) fn leaves(
    instruction: &Instruction,
    form: &Form,
    decoded: u16,
    core: &Microarchitecture,
) -> Option<u8> {
    let alone = core.parameters.pop_r12_alone
        && instruction.mnemonic() == Mnemonic::Pop
        && instruction.op0_register() == Register::R12;
    match form.complex {
        _ if alone => Some(0),
        Some(left) => Some(left),
        None => (decoded > 1).then_some(u8::MAX),
    }
}

/// Whether a division is one of floating-point numbers, which have a divider of their own on some cores
/// (`Parameters::float_divider`; by LLVM's models Haswell and later).
pub(crate) fn is_float(instruction: &Instruction) -> bool {
    !matches!(instruction.mnemonic(), Mnemonic::Div | Mnemonic::Idiv)
}

/// The forms of the instructions of 64-bit code, in order.
pub(crate) fn forms_of(bytes: &[u8]) -> Result<Vec<FormId>, LowerError> {
    let mut decoder = Decoder::new(64, bytes, DecoderOptions::NONE);
    let mut forms = Vec::new();
    while decoder.can_decode() {
        let start = decoder.position();
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return Err(LowerError::Undecodable(start));
        }
        forms.push(FormId::new(
            instruction.code(),
            explicit_memory(&instruction),
        ));
    }
    if forms.is_empty() {
        return Err(LowerError::Empty);
    }
    Ok(forms)
}

/// RSP as an ordinary operand takes the offset that the stack engine holds: one micro-operation.
fn synchronize_stack(
    instruction: &Instruction,
    info: &iced_x86::InstructionInfo,
    stack: bool,
    carry: &mut Carry,
    lowered: &mut Lowered,
    core: &Microarchitecture,
) {
    if stack {
        let explicit = (0..instruction.op_count()).any(|op| {
            instruction.op_kind(op) == OpKind::Register
                && instruction.op_register(op).full_register() == Register::RSP
        }) || (explicit_memory(instruction)
            && instruction.memory_base() == Register::RSP);
        carry.asked_offset |= explicit && !carry.offset_known;
        if explicit && carry.stack_offset {
            synchronize(lowered, core);
        }
        carry.stack_offset = true;
        carry.offset_known = true;
        return;
    }
    let mut read = false;
    let mut written = false;
    for register in info.used_registers() {
        if register.register().full_register() == Register::RSP {
            read |= reads(register.access());
            written |= writes(register.access());
        }
    }
    carry.asked_offset |= read && !carry.offset_known;
    if read && carry.stack_offset {
        synchronize(lowered, core);
    }
    if read || written {
        carry.offset_known = true;
        carry.stack_offset = false;
    }
}

fn synchronize(lowered: &mut Lowered, core: &Microarchitecture) {
    lowered.issued += 1;
    lowered.synchronizing += 1;
    lowered.add(core.ports.any, 1);
    lowered.dependences.begin();
    lowered.dependences.input(STACK, 1.0);
    lowered.dependences.output(STACK, 0.0);
}

/// Whether an explicit operand is in memory.
pub(crate) fn explicit_memory(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|op| {
        matches!(
            instruction.op_kind(op),
            OpKind::Memory | OpKind::MemorySegRSI | OpKind::MemoryESRDI
        )
    })
}

/// The operand whose value comes from memory or goes there.
fn memory_role(instruction: &Instruction) -> Role {
    (0..instruction.op_count())
        .find(|&op| instruction.op_kind(op) == OpKind::Memory)
        .map_or(Role::Implicit, |op| Role::Operand(op as u8))
}

/// Whether memory is read. A masked store writes some bytes and reads none.
pub(crate) fn loads(memory: &UsedMemory) -> bool {
    memory.access() != OpAccess::CondWrite && reads(memory.access())
}

pub(crate) fn reads(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Read
            | OpAccess::CondRead
            | OpAccess::ReadWrite
            | OpAccess::ReadCondWrite
            // The old value remains if the condition fails.
            | OpAccess::CondWrite
    )
}

pub(crate) fn writes(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
    )
}

#[cfg(test)]
pub(crate) mod tests;
