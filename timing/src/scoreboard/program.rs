//! A block as the scoreboard runs it: decoded and looked up once, at its own address.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfo, InstructionInfoFactory,
    Mnemonic, OpKind, Register, UsedMemory,
};

use vlbr_arch::BranchClass;

use crate::bound::{Decoders, Delay};
use crate::dependence::{Dependences, Edge, NO_VALUE};
use crate::forms::FormId;
use crate::lower::{
    HighBytes, Idiom, Layout, LowerError, MAX_INSTRUCTIONS, Operation, Pairing, SINK, execution,
    explicit_memory, floor, fuse, idiom, is_float, leaves, loads, loads_whole, macro_fuses_at,
    may_fuse, pointers, prefixes, reads, serializes, slow_lea, value_of, vector_load_latency,
    writes,
};
use crate::microarchitecture::{Microarchitecture, Parameters};
use crate::scoreboard::contents::effect;
use crate::scoreboard::frontend::IN_ONE;
use crate::scoreboard::inst::{
    Address, Extra, Flags, INPUTS, Inst, Link, Links, MANY, NOTHING, OUTPUTS, Reference, window_of,
};
use crate::scoreboard::kind::Kind;
use crate::scoreboard::predecoder::Predecoder;

/// A block that the scoreboard can run, or several one behind the other.
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub(super) instructions: Vec<Inst>,
    /// What each of them does, by which its kind is chosen.
    pub(super) needs: Vec<Kind>,
    /// High bytes of each of them, which few ask for.
    pub(super) high: Vec<HighBytes>,
    pub(super) extras: Vec<Extra>,
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
    /// The block at work: instructions, with the prefix bytes before the opcode and whether one changes the length.
    block: Vec<(Instruction, u8, bool)>,
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
            block: Vec::new(),
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
    /// As [`Programmer::program`]; nothing has been appended then.
    pub fn append(
        &mut self,
        bytes: &[u8],
        address: u64,
        bits: u32,
        program: &mut Program,
    ) -> Result<(), LowerError> {
        let core = self.core;
        self.block.clear();
        let mut decoder = Decoder::with_ip(bits, bytes, address, DecoderOptions::NONE);
        while decoder.can_decode() {
            let start = decoder.position();
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                return Err(LowerError::Undecodable(start));
            }
            if self.block.len() == MAX_INSTRUCTIONS {
                return Err(LowerError::TooLong);
            }
            let constants = decoder.get_constant_offsets(&instruction);
            let own = &bytes[start..start + instruction.len()];
            let (before_opcode, length_changing) = prefixes(&instruction, own, &constants);
            self.block
                .push((instruction, before_opcode, length_changing));
        }
        let mut decoders = Decoders::new(&core.parameters);
        let mut predecoder = Predecoder::new(address, &core.parameters);
        let mut fused_behind = false;
        let windows = core.parameters.uop_cache_window.trailing_zeros();
        for at in 0..self.block.len() {
            let (instruction, opcode, length_changing) = self.block[at];
            let next = self.block.get(at + 1).map(|next| next.0);
            let fused = fused_behind;
            let branch = next.filter(|next| macro_fuses_at(&instruction, next));
            fused_behind = branch.is_some();
            let pairing = match &branch {
                _ if fused => Pairing::Second,
                Some(branch) => Pairing::First(branch),
                None => Pairing::Alone,
            };
            let (mut inst, mut needs, leaves) = self.instruction(&instruction, pairing, program);
            let layout = Layout {
                start: instruction.ip().wrapping_sub(address) as u32,
                length: instruction.len() as u8,
                opcode,
                length_changing,
                decoded: inst.decoded.into(),
                complex: leaves.is_some(),
                leaves: leaves.unwrap_or(u8::MAX),
                fusible: may_fuse(&instruction),
                branch: instruction.flow_control() != FlowControl::Next,
            };
            let mut begins = false;
            if !fused {
                decoders.take(&layout, |delay| {
                    begins |= !matches!(delay, Delay::Sequencer(_));
                });
            }
            inst.predecode = predecoder.take(&instruction, &layout);
            inst.window = window_of(instruction.ip(), windows);
            // The erratum is about 32 bytes whatever the uop cache has.
            let pair = match at.checked_sub(1) {
                Some(before) if fused => self.block[before].0.ip(),
                _ => instruction.ip(),
            };
            let crosses = layout.branch && pair >> 5 != instruction.next_ip() >> 5;
            let conditional = instruction.is_jcc_short_or_near() || branch.is_some();
            inst.flags = inst
                .flags
                .when(Flags::BEGINS_GROUP, begins)
                .when(Flags::CONDITIONAL, conditional)
                .when(Flags::TOUCHES_WINDOW_END, crosses);
            needs.branch = conditional || layout.branch;
            inst.kind = needs.number();
            program.instructions.push(inst);
            program.needs.push(needs);
        }
        Ok(())
    }

    fn instruction(
        &mut self,
        instruction: &Instruction,
        pairing: Pairing<'_>,
        program: &mut Program,
    ) -> (Inst, Kind, Option<u8>) {
        let core = self.core;
        let fused = matches!(pairing, Pairing::Second);
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
        let loaded = used.iter().filter(|m| loads(m)).count() as u8;
        let stores = used.iter().filter(|m| writes(m.access())).count() as u8;
        let idiom = idiom(instruction, &core.parameters);
        let stack = instruction.is_stack_instruction()
            && !matches!(instruction.mnemonic(), Mnemonic::Leave | Mnemonic::Enter);
        let counts = fuse(
            instruction,
            info,
            form,
            loaded.into(),
            stores.into(),
            &core.parameters,
        );

        let mut extra = Extra::default();
        let (mut ports, mut entries) = (0, 0);
        // Whether a branch is taken is not known here.
        let own = execution(instruction, form, idiom, pairing, false, core);
        for &(own, mut count) in own.parts() {
            let own_entries = count;
            if ports == 0 {
                ports = own.bits();
                count = count.saturating_sub(1);
            }
            entries += own_entries;
            if count > 0 {
                extra.parts.push((own.bits(), count));
            }
        }
        // Of microcode not all are renamed at once. A store has its address and its data.
        let entries = entries.min(2 * core.parameters.issue as u16) as u8 + loaded + 2 * stores;

        let (effect, mut address) = effect(instruction, info);
        let load = vector_load_latency(instruction, &core.parameters).map_or(0, whole);
        let load = load.clamp(0, 255) as u8;
        let mut memory = Flags::default();
        for (number, memory_use) in used.iter().enumerate() {
            let (own, flags) = reference(memory_use);
            if number == 0 {
                (address, memory) = (Some(own), flags);
            } else {
                extra.references.push(Reference {
                    address: own,
                    flags,
                    latency: load,
                });
            }
        }

        let operation = Operation {
            instruction,
            info,
            form,
            idiom,
            stack,
            loads: loaded > 0,
            stores: stores > 0,
            slow_lea: slow_lea(instruction, &core.parameters),
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
        let links = |edges: &[Edge], cycles: &dyn Fn(f32) -> i16| -> Vec<Link> {
            edges
                .iter()
                .filter(|edge| edge.value != NO_VALUE)
                .map(|edge| Link {
                    value: edge.value as u8,
                    cycles: cycles(edge.latency),
                })
                .collect()
        };
        // A fused branch ends with the operation that it is fused with.
        let inputs = links(inputs, &|cycles| {
            let cycles = if fused { 0 } else { whole(cycles) };
            cycles - latency
        });
        let outputs = links(outputs, &whole);
        extra.inputs = inputs.get(INPUTS..).unwrap_or_default().to_vec();
        extra.outputs = outputs.get(OUTPUTS..).unwrap_or_default().to_vec();

        let pure_load = form.uops.parts().is_empty() && stores == 0 && loaded > 0;
        let mut fills = 0;
        if pure_load
            && instruction.op_count() > 0
            && instruction.op0_kind() == OpKind::Register
            && loads_whole(instruction.op0_register()) != 0
        {
            fills = value_of(instruction.op0_register()) as u8;
        }
        let floor = floor(instruction, form, stores > 0, &core.parameters);
        extra.divider = positive(form.divider);
        extra.floor = positive(floor);
        (extra.decoded, extra.issued) = match fused {
            true => (0, 0),
            false => (counts.decoded, counts.issued),
        };
        extra.pointers = pointers(instruction)
            .iter()
            .map(|&pointer| value_of(pointer) as u8)
            .collect();
        let high = HighBytes::of(info);
        let flags = self::flags(instruction, info, stack, &core.parameters)
            .or(memory)
            .or(Flags::EVERY)
            .when(Flags::FUSED, fused)
            .when(Flags::HIGH_BYTE, high.writes_apart());
        let longest = outputs.iter().map(|link| i32::from(link.cycles)).max();
        let whole = match fused {
            true => latency.into(),
            false => i32::from(latency) + longest.unwrap_or_default().max(0),
        };
        let whole = u16::try_from(whole.max((ports != 0 && !fused).into()));
        let more = extra.is_needed() || flags.any(Flags::SERIALIZES);
        let writes = loaded + stores > 0 || effect.changes();
        let flags = flags.when(Flags::WRITES, writes || more);
        let microcode = u32::from(extra.decoded) > IN_ONE || extra.issued == 0 && !fused;
        let rare = microcode || flags.any(Flags::HIGH_BYTE) || whole.is_err();
        // What such instructions load is read as if it were 0.
        let unloaded = loaded == 0 && effect.reads_loaded();
        let whole_register = u32::from(effect.written) << 1 == 1 << fills;
        let moves = Flags::WRITES_RSP.or(Flags::STACK);
        let rsp = Flags::READS_RSP.or(moves);
        let needs = if more || rare || unloaded {
            Kind {
                other: true,
                ..Kind::default()
            }
        } else if fused {
            Kind {
                fused: true,
                inputs: inputs.len(),
                ..Kind::default()
            }
        } else {
            Kind {
                loads: loaded > 0,
                stores: stores > 0,
                operates: ports != 0,
                writes,
                address: effect.takes_address(),
                inputs: inputs.len(),
                outputs: outputs.len(),
                single: (extra.decoded, extra.issued) == (1, 1),
                plain: loaded > 0 && effect.is_loaded() && whole_register,
                stack: flags.any(rsp),
                moves_stack: flags.any(moves) || effect.moves_stack(),
                ..Kind::default()
            }
        };
        let small = |count: u16| u8::try_from(count).unwrap_or(MANY);
        let inst = Inst {
            address: address.unwrap_or_default(),
            effect,
            extra: if extra.is_needed() {
                program.extras.len() as u32
            } else {
                NOTHING
            },
            window: 0,
            predecode: 0,
            inputs: Links::of(&inputs, NO_VALUE as u8),
            outputs: Links::of(&outputs, SINK as u8),
            ports,
            latency,
            whole: whole.unwrap_or_default(),
            flags,
            decoded: small(extra.decoded),
            issued: small(extra.issued),
            load,
            fills,
            kind: 0,
            entries,
        };
        let decoded = extra.decoded;
        if extra.is_needed() {
            program.extras.push(extra);
        }
        program.high.push(high);
        let leaves = leaves(instruction, form, decoded, core);
        (inst, needs, leaves)
    }
}

fn flags(
    instruction: &Instruction,
    info: &InstructionInfo,
    stack: bool,
    parameters: &Parameters,
) -> Flags {
    let serializes = matches!(
        instruction.flow_control(),
        FlowControl::Interrupt | FlowControl::Exception
    ) || is_far(instruction)
        || serializes(instruction).is_some();
    let (mut reads_rsp, mut writes_rsp) = (false, false);
    if stack {
        let explicit = (0..instruction.op_count()).any(|op| {
            instruction.op_kind(op) == OpKind::Register
                && instruction.op_register(op).full_register() == Register::RSP
        });
        reads_rsp = explicit
            || (explicit_memory(instruction) && instruction.memory_base() == Register::RSP);
    } else {
        for register in info.used_registers() {
            if register.register().full_register() == Register::RSP {
                reads_rsp |= reads(register.access());
                writes_rsp |= writes(register.access());
            }
        }
    }
    Flags::default()
        .when(Flags::STACK, stack)
        .when(
            Flags::FLOAT,
            parameters.float_divider && is_float(instruction),
        )
        .when(Flags::SERIALIZES, serializes)
        .when(Flags::READS_RSP, reads_rsp)
        .when(Flags::WRITES_RSP, writes_rsp)
}

/// Transfers that change privilege or code segment, which no predictor foresees.
fn is_far(instruction: &Instruction) -> bool {
    let branch = vlbr_cpu::classify(instruction);
    matches!(branch.map(|branch| branch.class), Some(BranchClass::Far(_)))
}

/// An access to memory, and its flags.
fn reference(memory: &UsedMemory) -> (Address, Flags) {
    let value = |register: Register| match register.full_register() {
        full if full.is_gpr64() => value_of(full) as u8,
        _ => NO_VALUE as u8,
    };
    let (base, index) = (value(memory.base()), value(memory.index()));
    // FS and GS have bases of their own.
    let segment = match memory.segment() {
        Register::FS => 0x5f3a_91c4_0000_0000,
        Register::GS => 0xa6c1_37e2_0000_0000,
        _ => 0,
    };
    let address = Address::new(
        base,
        index,
        memory.scale() as u8,
        memory.displacement().wrapping_add(segment),
        memory.memory_size().size().min(64) as u8,
    );
    let indexed = index != NO_VALUE as u8;
    let near = !indexed && base != NO_VALUE as u8 && memory.displacement() < 2048;
    let flags = Flags::default()
        .when(Flags::LOADS, loads(memory))
        .when(Flags::STORES, writes(memory.access()))
        .when(Flags::INDEXED, indexed)
        .when(Flags::NEAR, near);
    (address, flags)
}
