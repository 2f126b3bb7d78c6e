//! A block as the scoreboard runs it: decoded and looked up once, at its own address.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfo, InstructionInfoFactory,
    Mnemonic, OpKind, Register, UsedMemory,
};

use vlbr_arch::BranchClass;

use crate::dependence::{Dependences, Edge, NO_VALUE};
use crate::forms::FormId;
use crate::lower::{
    HighBytes, Idiom, LowerError, MAX_INSTRUCTIONS, Operation, explicit_memory, fuse, idiom,
    is_float, is_slow_lea, loads_whole, macro_fuses, prefixes, reads, value_of,
    vector_load_latency, writes, written,
};
use crate::microarchitecture::Microarchitecture;
use crate::ports::PortSet;
use crate::scoreboard::contents::{Effect, effect};

/// An input with the cycles that lie between it and the beginning of the operation, or an output
/// with those behind its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) value: u8,
    pub(super) cycles: i16,
}

/// An access to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// Values of base and index; [`NO_VALUE`] for none.
    pub(super) base: u8,
    pub(super) index: u8,
    pub(super) scale: u8,
    /// Bytes; 0 where the instruction does not say.
    pub(super) size: u8,
    pub(super) displacement: u64,
    /// Ports of the load, or of the store's address.
    pub(super) ports: PortSet,
    /// Load to use; 0 if that depends on what the base was loaded by.
    pub(super) latency: u16,
    /// The displacement lets a load be a cycle faster.
    pub(super) near: bool,
}

/// Flags of an [`Inst`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traits {
    /// Changes the offset that the stack engine holds.
    pub(super) stack: bool,
    /// Reads RSP as an ordinary operand.
    pub(super) reads_rsp: bool,
    /// Writes RSP as an ordinary operand.
    pub(super) writes_rsp: bool,
    /// Needs the first decoder.
    pub(super) complex: bool,
    /// Has a length-changing prefix.
    pub(super) length_changing: bool,
    /// Fused with the instruction before it.
    pub(super) fused: bool,
    /// Nothing behind it is fetched before it has retired.
    pub(super) serializes: bool,
    /// Divides floating-point numbers.
    pub(super) float: bool,
    /// A branch that crosses a 32-byte boundary or ends at one.
    pub(super) touches_window_end: bool,
}

/// An instruction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inst {
    pub(super) links: u32,
    pub(super) inputs: u8,
    pub(super) outputs: u8,
    pub(super) loads: u8,
    pub(super) stores: u8,
    pub(super) references: u32,
    pub(super) parts: u32,
    pub(super) part_count: u8,
    pub(super) high: HighBytes,
    /// Fused micro-operations as they are decoded and as they are renamed.
    pub(super) decoded: u16,
    pub(super) issued: u16,
    pub(super) latency: i16,
    pub(super) divider: u16,
    pub(super) floor: u16,
    /// General-purpose registers written, and filled by a load, one bit each.
    pub(super) written: u16,
    pub(super) loaded: u16,
    pub(super) traits: Traits,
    pub(super) effect: Effect,
    /// 32-byte window that it begins in, and 16-byte windows that it has its opcode and its last
    /// byte in.
    pub(super) window: u64,
    /// Counted from `window`, in 16 bytes.
    pub(super) opcode_fetch: u8,
    pub(super) last_fetch: u8,
}

/// A block that the scoreboard can run, or several one behind the other.
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub(super) instructions: Vec<Inst>,
    pub(super) links: Vec<Link>,
    pub(super) references: Vec<Reference>,
    pub(super) parts: Vec<(PortSet, u16)>,
}

impl Program {
    /// Number of instructions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.instructions.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.instructions.is_empty()
    }
}

/// Makes [`Program`]s.
#[derive(Debug)]
pub struct Programmer<'a> {
    core: &'a Microarchitecture,
    factory: InstructionInfoFactory,
    dependences: Dependences,
}

fn whole(cycles: f32) -> i16 {
    // Costs are at most five digits: `forms` checks them.
    cycles.round().clamp(-1000.0, 30_000.0) as i16
}

fn positive(cycles: f32) -> u16 {
    whole(cycles.ceil()).max(0) as u16
}

impl<'a> Programmer<'a> {
    /// For blocks on `core`.
    #[must_use]
    pub fn new(core: &'a Microarchitecture) -> Self {
        Self {
            core,
            factory: InstructionInfoFactory::new(),
            dependences: Dependences::default(),
        }
    }

    /// The program of `bytes` at linear address `address`, decoded as code of `bits` bits.
    ///
    /// # Errors
    /// Bytes that are no instructions, or too many. No bytes make a program that does nothing.
    pub fn program(
        &mut self,
        bytes: &[u8],
        address: u64,
        bits: u32,
    ) -> Result<Program, LowerError> {
        let mut program = Program::default();
        self.append(bytes, address, bits, &mut program)?;
        Ok(program)
    }

    /// Appends the instructions of `bytes` to `program`, which then has several blocks.
    ///
    /// # Errors
    /// As [`Programmer::program`]; some of the instructions may have been appended.
    pub fn append(
        &mut self,
        bytes: &[u8],
        address: u64,
        bits: u32,
        program: &mut Program,
    ) -> Result<(), LowerError> {
        let start_length = program.instructions.len();
        let mut decoder = Decoder::with_ip(bits, bytes, address, DecoderOptions::NONE);
        let mut before: Option<Instruction> = None;
        while decoder.can_decode() {
            let start = decoder.position();
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                return Err(LowerError::Undecodable(start));
            }
            if program.instructions.len() - start_length == MAX_INSTRUCTIONS {
                return Err(LowerError::TooLong);
            }
            let constants = decoder.get_constant_offsets(&instruction);
            let own = &bytes[start..start + instruction.len()];
            let (before_opcode, length_changing) = prefixes(&instruction, own, &constants);
            let fused = before.is_some_and(|first| macro_fuses(&first, &instruction));
            let mut inst = self.instruction(&instruction, fused, program);
            inst.traits.length_changing = length_changing;
            let last = instruction.next_ip().wrapping_sub(1);
            inst.window = instruction.ip() >> 5;
            let fetch = |address: u64| (address >> 4).wrapping_sub(inst.window << 1) as u8;
            inst.opcode_fetch = fetch(instruction.ip().wrapping_add(u64::from(before_opcode)));
            inst.last_fetch = fetch(last);
            let pair = before
                .filter(|_| fused)
                .map_or(instruction.ip(), |b| b.ip());
            inst.traits.touches_window_end = instruction.flow_control() != FlowControl::Next
                && pair >> 5 != instruction.next_ip() >> 5;
            program.instructions.push(inst);
            before = Some(instruction);
        }
        Ok(())
    }

    fn instruction(
        &mut self,
        instruction: &Instruction,
        fused: bool,
        program: &mut Program,
    ) -> Inst {
        let core = self.core;
        let info = self.factory.info(instruction);
        let form = core.forms.get(FormId::new(
            instruction.code(),
            explicit_memory(instruction),
        ));
        let address_only = matches!(instruction.mnemonic(), Mnemonic::Lea | Mnemonic::Nop);
        let used: &[UsedMemory] = if address_only {
            &[]
        } else {
            info.used_memory()
        };
        let loads = used.iter().filter(|m| reads(m.access())).count() as u8;
        let stores = used.iter().filter(|m| writes(m.access())).count() as u8;
        let idiom = idiom(instruction, &core.parameters);
        let stack = instruction.is_stack_instruction()
            && !matches!(instruction.mnemonic(), Mnemonic::Leave | Mnemonic::Enter);
        let counts = fuse(
            instruction,
            info,
            form,
            loads.into(),
            stores.into(),
            &core.parameters,
        );

        let parts = program.parts.len() as u32;
        if matches!(idiom, Idiom::None | Idiom::Ones) && !fused {
            let slow = is_slow_lea(instruction);
            program
                .parts
                .extend(form.uops.parts().iter().map(|&(ports, count)| {
                    let ports = if slow { core.ports.slow_lea } else { ports };
                    (ports, count)
                }));
        }

        let references = program.references.len() as u32;
        for (load, wanted) in [
            (true, reads as fn(iced_x86::OpAccess) -> bool),
            (false, writes),
        ] {
            for memory in used.iter().filter(|m| wanted(m.access())) {
                let reference = self::reference(core, instruction, memory, load);
                program.references.push(reference);
            }
        }

        let operation = Operation {
            instruction,
            info,
            form,
            idiom,
            stack,
            loads: loads > 0,
            stores: stores > 0,
            slow_lea: is_slow_lea(instruction).then_some(core.parameters.slow_lea),
        };
        self.dependences.clear();
        self.dependences.begin();
        operation.inputs(&mut self.dependences);
        operation.outputs(&mut self.dependences);
        let (inputs, outputs) = self.dependences.first();
        let latency = match idiom {
            Idiom::None | Idiom::Ones if fused => 0,
            Idiom::None | Idiom::Ones => operation.slow_lea.map_or(form.latency, |l| l) as i16,
            Idiom::Zero | Idiom::Move => 0,
        };
        let links = program.links.len() as u32;
        let link = |edge: &Edge, cycles: i16| Link {
            value: edge.value as u8,
            cycles,
        };
        let known = |edge: &&Edge| edge.value != NO_VALUE;
        for edge in inputs.iter().filter(known) {
            // A fused branch ends with the operation that it is fused with.
            let cycles = if fused { 0 } else { whole(edge.latency) };
            program.links.push(link(edge, cycles));
        }
        let inputs = (program.links.len() as u32 - links) as u8;
        for edge in outputs.iter().filter(known) {
            program.links.push(link(edge, whole(edge.latency)));
        }
        let outputs = (program.links.len() as u32 - links) as u8 - inputs;

        let pure_load = form.uops.parts().is_empty() && stores == 0 && loads > 0;
        let fills = if pure_load
            && instruction.op_count() > 0
            && instruction.op0_kind() == OpKind::Register
        {
            loads_whole(instruction.op0_register())
        } else {
            0
        };
        let mut floor = form.floor;
        if instruction.has_lock_prefix() || (stores > 0 && instruction.mnemonic() == Mnemonic::Xchg)
        {
            floor += core.parameters.lock;
        }
        Inst {
            links,
            inputs,
            outputs,
            loads,
            stores,
            references,
            parts,
            part_count: (program.parts.len() as u32 - parts) as u8,
            high: HighBytes::of(info),
            decoded: if fused { 0 } else { counts.decoded },
            issued: if fused { 0 } else { counts.issued },
            latency,
            divider: positive(form.divider),
            floor: positive(floor),
            written: written(info),
            loaded: fills,
            traits: self::traits(
                instruction,
                info,
                stack,
                fused,
                counts.decoded,
                form.complex,
            ),
            effect: effect(instruction, info),
            window: 0,
            opcode_fetch: 0,
            last_fetch: 0,
        }
    }
}

fn traits(
    instruction: &Instruction,
    info: &InstructionInfo,
    stack: bool,
    fused: bool,
    decoded: u16,
    complex: Option<u8>,
) -> Traits {
    let mut traits = Traits {
        stack,
        fused,
        float: is_float(instruction),
        complex: decoded > 1 || complex.is_some(),
        serializes: matches!(
            instruction.flow_control(),
            FlowControl::Interrupt | FlowControl::Exception
        ) || is_far(instruction),
        ..Traits::default()
    };
    if stack {
        let explicit = (0..instruction.op_count()).any(|op| {
            instruction.op_kind(op) == OpKind::Register
                && instruction.op_register(op).full_register() == Register::RSP
        });
        traits.reads_rsp = explicit
            || (explicit_memory(instruction) && instruction.memory_base() == Register::RSP);
    } else {
        for register in info.used_registers() {
            if register.register().full_register() == Register::RSP {
                traits.reads_rsp |= reads(register.access());
                traits.writes_rsp |= writes(register.access());
            }
        }
    }
    traits
}

/// Transfers that change privilege or code segment, which no predictor foresees.
fn is_far(instruction: &Instruction) -> bool {
    let branch = vlbr_cpu::classify(instruction);
    matches!(branch.map(|branch| branch.class), Some(BranchClass::Far(_)))
}

fn reference(
    core: &Microarchitecture,
    instruction: &Instruction,
    memory: &UsedMemory,
    load: bool,
) -> Reference {
    let value = |register: Register| match register.full_register() {
        full if full.is_gpr64() => value_of(full) as u8,
        _ => NO_VALUE as u8,
    };
    let (base, index) = (value(memory.base()), value(memory.index()));
    let ports = match (load, index != NO_VALUE as u8) {
        (true, _) => core.ports.load,
        (false, true) => core.ports.store_index,
        (false, false) => core.ports.store_address,
    };
    let latency = vector_load_latency(instruction, &core.parameters).map_or(0, whole);
    // FS and GS have bases of their own.
    let segment = match memory.segment() {
        Register::FS => 0x5f3a_91c4_0000_0000,
        Register::GS => 0xa6c1_37e2_0000_0000,
        _ => 0,
    };
    Reference {
        base,
        index,
        scale: memory.scale() as u8,
        size: memory.memory_size().size().min(64) as u8,
        displacement: memory.displacement().wrapping_add(segment),
        ports,
        latency: latency.max(0) as u16,
        near: index == NO_VALUE as u8 && base != NO_VALUE as u8 && memory.displacement() < 2048,
    }
}
