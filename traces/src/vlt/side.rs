//! Side streams of a chunk: data addresses, accesses to the machine, times. Optional for readers.

use super::bytes::{Fields, put_bytes, put_distance, put_varint};
use super::error::{Damage, WriteError};
use super::packed::compress;

/// Tags of side streams.
pub(super) const MEMORY: u16 = 1;
pub(super) const MACHINE: u16 = 2;
pub(super) const TIMES: u16 = 3;
/// Largest decompressed size of a side stream.
pub(super) const MAX_RAW: u32 = 1 << 26;
/// Most entries of a stream that is decoded as a whole.
pub(super) const MAX_ENTRIES: u32 = 1 << 20;
/// The only encoding so far.
pub(super) const ENCODING: u16 = 1;
/// Address predictors, one for each value of a hash of step and instruction.
const SITES: usize = 1 << 12;

/// Where in a chunk something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Number of the step in the chunk.
    pub step: u32,
    /// Number of the instruction in the step's block.
    pub instruction: u16,
}

/// A data access of an instruction. A read-modify-write makes two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemoryAccess {
    /// By which instruction.
    pub position: Position,
    /// Virtual address of the first byte.
    pub address: u64,
    /// Binary logarithm of the number of bytes, at most 15.
    pub size_log2: u8,
    /// A store, not a load.
    pub store: bool,
}

/// An access to an MSR, a port or CPUID. Values are `None` where the recorder cannot see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MachineAccess {
    /// RDMSR.
    ReadMsr {
        /// ECX.
        msr: u32,
        /// EDX:EAX after.
        value: Option<u64>,
    },
    /// WRMSR.
    WriteMsr {
        /// ECX.
        msr: u32,
        /// EDX:EAX.
        value: Option<u64>,
    },
    /// IN, or one element of INS.
    PortIn {
        /// Port number.
        port: u16,
        /// Value read.
        value: Option<u64>,
    },
    /// OUT, or one element of OUTS.
    PortOut {
        /// Port number.
        port: u16,
        /// Value written.
        value: Option<u64>,
    },
    /// CPUID.
    Cpuid {
        /// EAX before.
        leaf: u32,
        /// ECX before.
        subleaf: u32,
        /// EAX, EBX, ECX, EDX after.
        result: Option<[u32; 4]>,
    },
}

/// A time at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timestamp {
    /// Before which step.
    pub step: u32,
    /// Nanoseconds since an arbitrary start, the same for the whole trace.
    pub nanoseconds: u64,
}

/// The side streams of a chunk, each in the order of its positions.
#[derive(Clone, Copy, Debug, Default)]
pub struct SideStreams<'a> {
    /// Data accesses.
    pub memory: &'a [MemoryAccess],
    /// MSR, port and CPUID accesses.
    pub machine: &'a [(Position, MachineAccess)],
    /// Times.
    pub times: &'a [Timestamp],
}

impl SideStreams<'_> {
    /// Whether there is nothing in any of them.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.machine.is_empty() && self.times.is_empty()
    }
}

/// Writes ascending positions: the distance in steps, then the instruction, relative to the last
/// one if the step is the same.
struct PositionWriter {
    last: Position,
    steps: u32,
}

impl PositionWriter {
    const fn new(steps: usize) -> Self {
        Self {
            last: Position {
                step: 0,
                instruction: 0,
            },
            // At most MAX_STEPS.
            steps: steps as u32,
        }
    }

    fn put(&mut self, out: &mut Vec<u8>, position: Position) -> Result<(), WriteError> {
        if position < self.last || position.step >= self.steps {
            return Err(WriteError::Position(position.step));
        }
        let distance = position.step - self.last.step;
        let base = if distance == 0 {
            self.last.instruction
        } else {
            0
        };
        put_varint(out, distance.into());
        put_varint(out, (position.instruction - base).into());
        self.last = position;
        Ok(())
    }
}

fn read_position(fields: &mut Fields<'_>, last: Position) -> Result<Position, Damage> {
    let distance = fields.varint32()?;
    let base = if distance == 0 { last.instruction } else { 0 };
    let position = last
        .step
        .checked_add(distance)
        .zip(base.checked_add(fields.varint16()?));
    let (step, instruction) = position.ok_or_else(|| fields.malformed())?;
    Ok(Position { step, instruction })
}

fn site(local: u32, instruction: u16) -> usize {
    let hash = local
        .wrapping_mul(0x9e37_79b1)
        .wrapping_add(u32::from(instruction).wrapping_mul(0x85eb_ca6b));
    (hash >> 20) as usize & (SITES - 1)
}

/// Tag and payload tail (encoding, count, raw size, compressed bytes) of each stream that is not
/// empty. `local` holds the chunk's local ids.
pub(super) fn encode_sides(
    level: i32,
    sides: &SideStreams<'_>,
    local: &[u32],
) -> Result<Vec<(u16, Vec<u8>)>, WriteError> {
    let mut streams = Vec::new();
    if !sides.memory.is_empty() {
        let raw = encode_memory(sides.memory, local)?;
        streams.push((MEMORY, pack(level, sides.memory.len(), &raw)?));
    }
    for (what, size) in [
        ("machine accesses", sides.machine.len()),
        ("timestamps", sides.times.len()),
    ] {
        if size > MAX_ENTRIES as usize {
            return Err(WriteError::Oversized {
                what,
                size: size as u64,
                limit: MAX_ENTRIES.into(),
            });
        }
    }
    if !sides.machine.is_empty() {
        let raw = encode_machine(sides.machine, local.len())?;
        streams.push((MACHINE, pack(level, sides.machine.len(), &raw)?));
    }
    if !sides.times.is_empty() {
        let raw = encode_times(sides.times, local.len())?;
        streams.push((TIMES, pack(level, sides.times.len(), &raw)?));
    }
    Ok(streams)
}

fn pack(level: i32, count: usize, raw: &[u8]) -> Result<Vec<u8>, WriteError> {
    if raw.len() > MAX_RAW as usize {
        return Err(WriteError::Oversized {
            what: "side stream",
            size: raw.len() as u64,
            limit: MAX_RAW.into(),
        });
    }
    let mut out = ENCODING.to_le_bytes().to_vec();
    out.extend_from_slice(&(count as u32).to_le_bytes());
    out.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    out.extend_from_slice(&compress(level, raw)?);
    Ok(out)
}

fn encode_memory(accesses: &[MemoryAccess], local: &[u32]) -> Result<Vec<u8>, WriteError> {
    let (mut positions, mut kinds, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
    let mut writer = PositionWriter::new(local.len());
    let mut last = vec![0; SITES];
    for access in accesses {
        writer.put(&mut positions, access.position)?;
        if access.size_log2 > 15 {
            return Err(WriteError::Oversized {
                what: "access size (logarithm)",
                size: access.size_log2.into(),
                limit: 15,
            });
        }
        kinds.push(access.size_log2 << 1 | u8::from(access.store));
        let place = access.position;
        let last = &mut last[site(local[place.step as usize], place.instruction)];
        put_distance(&mut addresses, *last, access.address);
        *last = access.address;
    }
    let mut raw = Vec::new();
    for column in [positions, kinds, addresses] {
        put_bytes(&mut raw, &column);
    }
    Ok(raw)
}

fn encode_machine(
    accesses: &[(Position, MachineAccess)],
    steps: usize,
) -> Result<Vec<u8>, WriteError> {
    let mut raw = Vec::new();
    let mut writer = PositionWriter::new(steps);
    for &(position, access) in accesses {
        writer.put(&mut raw, position)?;
        let (kind, number, value) = match access {
            MachineAccess::ReadMsr { msr, value } => (0, msr, value),
            MachineAccess::WriteMsr { msr, value } => (1, msr, value),
            MachineAccess::PortIn { port, value } => (2, port.into(), value),
            MachineAccess::PortOut { port, value } => (3, port.into(), value),
            MachineAccess::Cpuid {
                leaf,
                subleaf,
                result,
            } => {
                raw.push(4 << 1 | u8::from(result.is_some()));
                put_varint(&mut raw, leaf.into());
                put_varint(&mut raw, subleaf.into());
                for register in result.into_iter().flatten() {
                    raw.extend_from_slice(&register.to_le_bytes());
                }
                continue;
            }
        };
        raw.push(kind << 1 | u8::from(value.is_some()));
        put_varint(&mut raw, number.into());
        if let Some(value) = value {
            put_varint(&mut raw, value);
        }
    }
    Ok(raw)
}

fn encode_times(times: &[Timestamp], steps: usize) -> Result<Vec<u8>, WriteError> {
    let mut raw = Vec::new();
    let mut writer = PositionWriter::new(steps);
    let mut last = 0;
    for time in times {
        writer.put(
            &mut raw,
            Position {
                step: time.step,
                instruction: 0,
            },
        )?;
        put_distance(&mut raw, last, time.nanoseconds);
        last = time.nanoseconds;
    }
    Ok(raw)
}

/// Data accesses of a chunk, decoded one by one. Ends after the first error.
#[derive(Debug)]
pub struct MemoryAccesses<'a> {
    positions: Fields<'a>,
    kinds: Fields<'a>,
    addresses: Fields<'a>,
    left: u32,
    at: Position,
    last: Vec<u64>,
    ids: vlbr_cpu::run::StepIds<'a>,
}

impl<'a> MemoryAccesses<'a> {
    pub(super) fn new(
        raw: &'a [u8],
        count: u32,
        ids: vlbr_cpu::run::StepIds<'a>,
    ) -> Result<Self, Damage> {
        let mut columns = Fields::new(raw, "memory accesses");
        let accesses = Self {
            positions: columns.part()?,
            kinds: columns.part()?,
            addresses: columns.part()?,
            left: count,
            at: Position::default(),
            last: vec![0; SITES],
            ids,
        };
        columns.finish()?;
        Ok(accesses)
    }

    fn read(&mut self) -> Result<MemoryAccess, Damage> {
        self.at = read_position(&mut self.positions, self.at)?;
        if self.at.step as usize >= self.ids.len() {
            return Err(self.positions.malformed());
        }
        let kind = self.kinds.u8()?;
        if kind >= 1 << 5 {
            return Err(self.kinds.malformed());
        }
        let local = self.ids.local(self.at.step as usize) as u32;
        let last = &mut self.last[site(local, self.at.instruction)];
        *last = self.addresses.distance(*last)?;
        Ok(MemoryAccess {
            position: self.at,
            address: *last,
            size_log2: kind >> 1,
            store: kind & 1 != 0,
        })
    }
}

impl Iterator for MemoryAccesses<'_> {
    type Item = Result<MemoryAccess, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let access = self.read();
        if access.is_err() {
            self.left = 0;
        }
        Some(access)
    }
}

pub(super) fn decode_machine(
    raw: &[u8],
    count: u32,
    steps: u32,
) -> Result<Vec<(Position, MachineAccess)>, Damage> {
    let mut fields = Fields::new(raw, "machine accesses");
    let mut at = Position::default();
    let mut accesses = Vec::new();
    for _ in 0..count {
        at = read_position(&mut fields, at)?;
        let kind = fields.u8()?;
        let number = fields.varint32()?;
        let port = || u16::try_from(number).map_err(|_| Damage::Malformed("port number"));
        let mut value = || (kind & 1 != 0).then(|| fields.varint()).transpose();
        let access = match kind >> 1 {
            0 => MachineAccess::ReadMsr {
                msr: number,
                value: value()?,
            },
            1 => MachineAccess::WriteMsr {
                msr: number,
                value: value()?,
            },
            2 => MachineAccess::PortIn {
                port: port()?,
                value: value()?,
            },
            3 => MachineAccess::PortOut {
                port: port()?,
                value: value()?,
            },
            4 => MachineAccess::Cpuid {
                leaf: number,
                subleaf: fields.varint32()?,
                result: if kind & 1 != 0 {
                    Some([fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?])
                } else {
                    None
                },
            },
            _ => return Err(fields.malformed()),
        };
        if at.step >= steps {
            return Err(fields.malformed());
        }
        accesses.push((at, access));
    }
    fields.finish()?;
    Ok(accesses)
}

pub(super) fn decode_times(raw: &[u8], count: u32, steps: u32) -> Result<Vec<Timestamp>, Damage> {
    let mut fields = Fields::new(raw, "timestamps");
    let mut at = Position::default();
    let mut nanoseconds = 0;
    let mut times = Vec::new();
    for _ in 0..count {
        at = read_position(&mut fields, at)?;
        nanoseconds = fields.distance(nanoseconds)?;
        if at.step >= steps || at.instruction != 0 {
            return Err(fields.malformed());
        }
        times.push(Timestamp {
            step: at.step,
            nanoseconds,
        });
    }
    fields.finish()?;
    Ok(times)
}
