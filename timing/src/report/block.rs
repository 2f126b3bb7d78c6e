//! One block, explained.

use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter};
use serde::Serialize;

use super::pressure::{ports, spread};
use super::reason::reason;
use super::values;
use crate::bound::{BlockModel, Delay, Examined, Part, Repetition};
use crate::dependence::{Dependences, Value};
use crate::lower::values::{COMMITTED, FIRST_STORE};
use crate::lower::{Facts, Idiom, LowerError, repeats};
use crate::microarchitecture::Microarchitecture;
use crate::ports::PortSet;

/// Bounds that differ by less count as equal.
const EQUAL: f32 = 1e-3;

/// Code to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// 64-bit code.
    pub bytes: Vec<u8>,
    /// Where it lies; branches are shown with it.
    pub address: u64,
    /// What it is called.
    pub name: Option<String>,
}

impl Code {
    /// Code without a name at address 0.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            address: 0,
            name: None,
        }
    }
}

/// What a block takes and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BlockReport {
    /// What the code is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it lies.
    pub address: u64,
    /// The core.
    pub core: String,
    /// What the core's tables rest on.
    pub basis: &'static str,
    /// `unrolled` or `loop`.
    pub repetition: &'static str,
    /// `unknown` or `bhive`.
    pub environment: &'static str,
    /// Cycles per iteration.
    pub cycles: f64,
    /// Bytes of the block.
    pub bytes: usize,
    /// Fused micro-operations that the decoders or the uop cache deliver.
    pub uops_decoded: u32,
    /// Fused micro-operations that are renamed.
    pub uops_issued: u32,
    /// Micro-operations that execute.
    pub uops_executed: u32,
    /// Instructions for which the tables have no line of their own: the answer is approximate.
    pub approximate: usize,
    /// The bounds, in the order of the pipeline.
    pub bounds: Vec<BoundRow>,
    /// Micro-operations that each port executes per iteration if they are spread as well as can be.
    pub ports: Vec<PortRow>,
    /// The slowest cycle of dependences; empty if no iteration waits for the one before.
    pub chain: Vec<ChainRow>,
    /// The instructions.
    pub instructions: Vec<InstructionRow>,
}

/// What one part of the core allows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BoundRow {
    /// [`Part::name`].
    pub part: &'static str,
    /// Cycles per iteration.
    pub cycles: f64,
    /// Nothing takes longer.
    pub binds: bool,
    /// Where the number comes from.
    pub why: String,
}

/// The work of one port.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PortRow {
    /// Its number in hexadecimal.
    pub port: String,
    /// Micro-operations per iteration.
    pub uops: f64,
}

/// A step of the slowest cycle of dependences.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChainRow {
    /// Number of the instruction in the block, from 0 on.
    pub instruction: usize,
    /// The instruction.
    pub text: String,
    /// What it waits for.
    pub waits_for: String,
    /// That is of the iteration before.
    pub carried: bool,
    /// Cycles from there to what the next step waits for.
    pub latency: f64,
}

/// What is special about an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Marker {
    /// One micro-operation with the instruction before it.
    MacroFused,
    /// A load or store address travels with another micro-operation.
    MicroFused,
    /// The renamer takes them apart again.
    Unlaminated,
    /// The renamer finishes it: a move.
    Eliminated,
    /// The renamer finishes it: it writes zero whatever its sources hold.
    ZeroIdiom,
    /// It waits for nothing: it writes ones whatever its sources hold.
    OnesIdiom,
    /// Only the first decoder takes it.
    ComplexDecoder,
    /// The microcode sequencer delivers it.
    Microcode,
    /// A prefix changes its length.
    Lcp,
    /// One micro-operation more brings RSP up to date.
    StackSync,
    /// The renamer joins a high byte first, in a cycle of its own.
    HighByteMerge,
    /// It occupies the divider.
    Divider,
    /// It serializes.
    Serializes,
    /// An LEA that adds three things.
    SlowLea,
    /// The tables have no line for it: one micro-operation or its relatives' costs are assumed.
    Approximate,
}

impl Marker {
    /// Its name in output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MacroFused => "macro-fused",
            Self::MicroFused => "micro-fused",
            Self::Unlaminated => "unlaminated",
            Self::Eliminated => "eliminated",
            Self::ZeroIdiom => "zero-idiom",
            Self::OnesIdiom => "ones-idiom",
            Self::ComplexDecoder => "complex-decoder",
            Self::Microcode => "microcode",
            Self::Lcp => "lcp",
            Self::StackSync => "stack-sync",
            Self::HighByteMerge => "high-byte-merge",
            Self::Divider => "divider",
            Self::Serializes => "serializes",
            Self::SlowLea => "slow-lea",
            Self::Approximate => "approximate",
        }
    }
}

/// What one instruction costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InstructionRow {
    /// Offset in the block.
    pub offset: usize,
    /// Its bytes in hexadecimal.
    pub hex: String,
    /// Its text in Intel's syntax.
    pub text: String,
    /// Fused micro-operations of the decoders; 0 if fused into the instruction before.
    pub uops_decoded: u16,
    /// Fused micro-operations that are renamed.
    pub uops_issued: u32,
    /// Micro-operations that execute, by the ports that can: `2*0156+23`, or `-`.
    pub ports: String,
    /// Cycles from its slowest register source to its slowest result, loads included.
    pub latency: f64,
    /// What is special about it.
    pub markers: Vec<Marker>,
    /// Its share of the work of each port, in the order of [`BlockReport::ports`].
    pub pressure: Vec<f64>,
}

/// Four decimals: more is noise of single precision.
pub(super) fn rounded(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}

/// Explains what `code` takes.
///
/// # Errors
/// Bytes that are no instructions, none, or too many.
pub fn explain(
    model: &mut BlockModel<'_>,
    code: &Code,
    repetition: Repetition,
) -> Result<BlockReport, LowerError> {
    let core = model.core();
    let environment = model.environment();
    model.begin_at(code.address);
    let examined = model.examine(&code.bytes, repetition)?;
    let texts = disassemble(code);
    let lowered = examined.lowered;
    let shares = spread(&lowered.uops);
    let in_use = ports_of(core, &lowered.uops);
    let cycles = examined.bound.cycles();

    let bounds = Part::ALL
        .iter()
        .filter(|&&part| examined.bound.of(part) > 0.0)
        .map(|&part| BoundRow {
            part: part.name(),
            cycles: rounded(f64::from(examined.bound.of(part))),
            binds: examined.bound.of(part) >= cycles - EQUAL,
            why: reason(part, &examined, &texts, core),
        })
        .collect();
    let port_rows = in_use
        .iter()
        .map(|&port| PortRow {
            port: format!("{port:x}"),
            uops: rounded(
                lowered
                    .uops
                    .iter()
                    .zip(&shares)
                    .map(|(&(_, count), share)| f64::from(count) * share[port])
                    .sum(),
            ),
        })
        .collect();
    let instructions: Vec<InstructionRow> = (0..examined.instructions.len())
        .map(|at| {
            let pressure = |port: usize| {
                let own = examined.facts[at].uops.iter().map(|(set, count)| {
                    let number = lowered.uops.iter().position(|(s, _)| s == set);
                    number.map_or(0.0, |n| shares[n][port] * f64::from(*count))
                });
                rounded(own.sum())
            };
            InstructionRow {
                pressure: in_use.iter().map(|&port| pressure(port)).collect(),
                ..instruction_row(at, &examined, code, &texts, core)
            }
        })
        .collect();
    Ok(BlockReport {
        name: code.name.clone(),
        address: code.address,
        core: core.name().to_owned(),
        basis: core.basis.name(),
        repetition: repetition.name(),
        environment: environment.name(),
        cycles: rounded(f64::from(cycles)),
        bytes: code.bytes.len(),
        uops_decoded: lowered.layout.iter().map(|l| u32::from(l.decoded)).sum(),
        uops_issued: lowered.issued,
        uops_executed: lowered.uops.iter().map(|(_, count)| count).sum(),
        approximate: instructions
            .iter()
            .filter(|row| row.markers.contains(&Marker::Approximate))
            .count(),
        bounds,
        ports: port_rows,
        chain: chain(&examined, &texts),
        instructions,
    })
}

/// The text of each instruction.
fn disassemble(code: &Code) -> Vec<String> {
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();
    options.set_space_after_operand_separator(true);
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_small_hex_numbers_in_decimal(true);
    options.set_branch_leading_zeros(false);
    options.set_rip_relative_addresses(false);
    let decoder = Decoder::with_ip(64, &code.bytes, code.address, DecoderOptions::NONE);
    decoder
        .into_iter()
        .map(|instruction: Instruction| {
            let mut text = String::new();
            formatter.format(&instruction, &mut text);
            text
        })
        .collect()
}

/// The ports that the core is known to have.
fn ports_of(core: &Microarchitecture, uops: &[(PortSet, u32)]) -> Vec<usize> {
    let own = core.ports.all();
    let all = uops.iter().fold(own, |all, (set, _)| all.union(*set));
    ports(all).collect()
}

fn instruction_row(
    at: usize,
    examined: &Examined<'_>,
    code: &Code,
    texts: &[String],
    core: &Microarchitecture,
) -> InstructionRow {
    let facts = &examined.facts[at];
    let layout = &examined.lowered.layout[at];
    let start = layout.start as usize;
    let bytes = &code.bytes[start..start + usize::from(layout.length)];
    InstructionRow {
        offset: start,
        hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        text: texts.get(at).cloned().unwrap_or_default(),
        uops_decoded: layout.decoded,
        uops_issued: facts.issued,
        ports: port_text(&facts.uops),
        latency: rounded(f64::from(latency(facts, &examined.lowered.dependences))),
        markers: markers(at, examined, core),
        pressure: Vec::new(),
    }
}

/// `2*0156+23`, or `-` for none.
fn port_text(uops: &[(PortSet, u32)]) -> String {
    if uops.is_empty() {
        return "-".to_owned();
    }
    let parts: Vec<String> = uops
        .iter()
        .map(|(ports, count)| match count {
            1 => ports.to_string(),
            _ => format!("{count}*{ports}"),
        })
        .collect();
    parts.join("+")
}

fn markers(at: usize, examined: &Examined<'_>, core: &Microarchitecture) -> Vec<Marker> {
    let facts = &examined.facts[at];
    let layout = &examined.lowered.layout[at];
    let executed: u32 = facts.uops.iter().map(|(_, count)| count).sum();
    let own = facts.issued - facts.synchronizing;
    let unlaminated = own > u32::from(layout.decoded) && !facts.fused_before;
    let microcode =
        |delay: &(usize, Delay)| delay.0 == at && matches!(delay.1, Delay::Sequencer(_));
    let finished = matches!(facts.idiom, Idiom::Zero | Idiom::Move);
    let conditions = [
        (facts.fused_before, Marker::MacroFused),
        (
            !facts.fused_before && executed - facts.synchronizing > u32::from(layout.decoded),
            Marker::MicroFused,
        ),
        (unlaminated, Marker::Unlaminated),
        (facts.idiom == Idiom::Move, Marker::Eliminated),
        (facts.idiom == Idiom::Zero, Marker::ZeroIdiom),
        (facts.idiom == Idiom::Ones, Marker::OnesIdiom),
        (layout.complex, Marker::ComplexDecoder),
        (examined.delays.iter().any(microcode), Marker::Microcode),
        (layout.length_changing, Marker::Lcp),
        (facts.synchronizing > 0, Marker::StackSync),
        (facts.merges > 0, Marker::HighByteMerge),
        (facts.dividers != [0.0; 2], Marker::Divider),
        (facts.floor > 0.0, Marker::Serializes),
        (facts.slow_lea, Marker::SlowLea),
        (
            !finished
                && !facts.fused_before
                && (!core.forms.has(facts.form) || repeats(&examined.instructions[at])),
            Marker::Approximate,
        ),
    ];
    let kept = conditions.into_iter().filter(|(holds, _)| *holds);
    kept.map(|(_, marker)| marker).collect()
}

/// The longest way through an instruction, from what it reads but memory to what it writes.
fn latency(facts: &Facts, dependences: &Dependences) -> f32 {
    let memory = |value: Value| value == COMMITTED || value >= FIRST_STORE;
    // What this instruction has made, with the length of the way there.
    let mut made: Vec<(Value, f32)> = Vec::new();
    let mut longest = 0.0_f32;
    let own = dependences.nodes().skip(facts.nodes.start);
    for (inputs, outputs) in own.take(facts.nodes.len()) {
        let begin = inputs
            .iter()
            .filter(|edge| !memory(edge.value))
            .map(|edge| {
                let before = made.iter().rev().find(|(value, _)| *value == edge.value);
                before.map_or(0.0, |(_, length)| *length) + edge.latency
            })
            .fold(0.0, f32::max);
        for output in outputs {
            let length = begin + output.latency;
            if values::is_visible(output.value) || memory(output.value) {
                longest = longest.max(length);
            }
            made.push((output.value, length));
        }
    }
    longest
}

fn chain(examined: &Examined<'_>, texts: &[String]) -> Vec<ChainRow> {
    let mut rows: Vec<ChainRow> = Vec::new();
    let mut carried = false;
    for step in &examined.slowest {
        carried |= step.carried;
        let owner = |facts: &Facts| facts.nodes.contains(&step.node);
        let Some(instruction) = examined.facts.iter().position(owner) else {
            // A store's value on its way to the next iteration.
            continue;
        };
        let latency = f64::from(step.latency);
        match rows.last_mut() {
            Some(row) if row.instruction == instruction && !carried => row.latency += latency,
            _ => rows.push(ChainRow {
                instruction,
                text: texts.get(instruction).cloned().unwrap_or_default(),
                waits_for: values::name(step.input),
                carried,
                latency,
            }),
        }
        carried = false;
    }
    for row in &mut rows {
        row.latency = rounded(row.latency);
    }
    rows
}
