//! Blocks and steps frames: the code table, appended to in columns.

use vlbr_arch::{CodeSize, Cpl, FarKind};
use vlbr_cpu::{Block, BlockId, Code, Exit, Mode, ModeSource, Step, Target};

use super::bytes::{Fields, put_bytes, put_distance, put_varint};
use super::error::{Damage, WriteError};
use super::packed::{compress, decompress};

/// Largest decompressed size of a blocks or steps frame.
const MAX_RAW: u32 = 1 << 26;
/// Blocks or steps a writer puts into one frame at most.
const PER_FRAME: usize = 1 << 16;
/// Code bytes a writer puts into one frame at most, a last block excepted.
const BYTES_PER_FRAME: usize = 1 << 23;
/// Memory charged for a block besides its bytes and lengths, and for a step.
const BLOCK_COST: u64 = 256;
const STEP_COST: u64 = 256;

/// Exit kinds in the low bits of an exit byte.
const SEQUENTIAL: u8 = 0;
const TAKEN: u8 = 1;
const EVENT: u8 = 2;
const GAP: u8 = 3;
const KIND_MASK: u8 = 3;
/// The target is the one in the branch instruction.
const OWN_TARGET: u8 = 1 << 2;
/// Code size, CPL and CS base at the target are those of the block.
const SAME_MODE: u8 = 1 << 3;
const MISPREDICTED: u8 = 1 << 4;
const IN_TX: u8 = 1 << 5;

/// Memory a reader may still use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    left: u64,
    limit: u64,
}

impl Budget {
    pub(super) const fn new(limit: u64) -> Self {
        Self { left: limit, limit }
    }

    pub(super) fn charge(&mut self, bytes: u64) -> Result<(), Damage> {
        self.left = self
            .left
            .checked_sub(bytes)
            .ok_or(Damage::MemoryLimit(self.limit))?;
        Ok(())
    }
}

/// Memory that a reader charges for the blocks from `first_block` on and the steps from `first_step`
/// on.
pub(crate) fn memory_needed(code: &Code, first_block: usize, first_step: usize) -> u64 {
    let blocks = code.blocks().iter().skip(first_block);
    let steps = code.steps().len().saturating_sub(first_step) as u64;
    blocks
        .map(|block| BLOCK_COST + (block.bytes().len() + block.lengths().len()) as u64)
        .sum::<u64>()
        + STEP_COST * steps
}

/// Columns of a frame, each preceded by its length when joined.
struct Columns<const N: usize>([Vec<u8>; N]);

impl<const N: usize> Columns<N> {
    const fn new() -> Self {
        Self([const { Vec::new() }; N])
    }

    /// First id, count, raw size, then the compressed columns.
    fn payload(self, level: i32, first: usize, count: usize) -> Result<Vec<u8>, WriteError> {
        let mut raw = Vec::new();
        for column in &self.0 {
            put_bytes(&mut raw, column);
        }
        if raw.len() > MAX_RAW as usize {
            return Err(WriteError::Oversized {
                what: "code frame",
                size: raw.len() as u64,
                limit: MAX_RAW.into(),
            });
        }
        let mut payload = Vec::new();
        for number in [first, count, raw.len()] {
            payload.extend_from_slice(&(number as u32).to_le_bytes());
        }
        payload.extend_from_slice(&compress(level, &raw)?);
        Ok(payload)
    }
}

/// The blocks frame of the blocks from `first` on, and how many blocks it holds.
pub(super) fn encode_blocks(
    code: &Code,
    first: usize,
    level: i32,
) -> Result<(Vec<u8>, usize), WriteError> {
    let mut columns = Columns::<6>::new();
    let [modes, mode_of, addresses, counts, lengths, bytes] = &mut columns.0;
    let mut known: Vec<Mode> = Vec::new();
    let mut end = 0;
    let mut count = 0;
    for block in code.blocks()[first..].iter().take(PER_FRAME) {
        if bytes.len() > BYTES_PER_FRAME {
            break;
        }
        let mode = block.mode();
        // The last mode used comes first: blocks of one process stand together.
        let index = known.iter().rposition(|&m| m == mode).unwrap_or_else(|| {
            known.push(mode);
            put_mode(modes, mode);
            known.len() - 1
        });
        put_varint(mode_of, index as u64);
        put_distance(addresses, end, block.address());
        end = block.end();
        put_varint(counts, block.instructions().into());
        lengths.extend_from_slice(block.lengths());
        bytes.extend_from_slice(block.bytes());
        count += 1;
    }
    Ok((columns.payload(level, first, count)?, count))
}

fn put_mode(out: &mut Vec<u8>, mode: Mode) {
    out.push(mode.code_size.number());
    out.push(mode.cpl.number());
    out.push(match mode.source {
        ModeSource::Recorded => 0,
        ModeSource::Inferred => 1,
    });
    put_varint(out, mode.cs_base);
    put_varint(out, mode.space.into());
}

fn code_size_and_cpl(fields: &mut Fields<'_>) -> Result<(CodeSize, Cpl), Damage> {
    match (
        CodeSize::from_number(fields.u8()?),
        Cpl::from_number(fields.u8()?),
    ) {
        (Some(code_size), Some(cpl)) => Ok((code_size, cpl)),
        _ => Err(fields.malformed()),
    }
}

fn mode(fields: &mut Fields<'_>) -> Result<Mode, Damage> {
    let (code_size, cpl) = code_size_and_cpl(fields)?;
    let source = match fields.u8()? {
        0 => ModeSource::Recorded,
        1 => ModeSource::Inferred,
        _ => return Err(fields.malformed()),
    };
    Ok(Mode {
        code_size,
        cpl,
        cs_base: fields.varint()?,
        space: fields.varint32()?,
        source,
    })
}

/// Opens a code frame whose first id must be `due`; returns the number of entries and the
/// decompressed columns.
fn open_frame(what: &'static str, due: usize, payload: &[u8]) -> Result<(usize, Vec<u8>), Damage> {
    let mut fields = Fields::new(payload, what);
    let (first, count, size) = (fields.u32()?, fields.u32()?, fields.u32()?);
    if first as usize != due {
        return Err(Damage::OutOfOrder {
            what,
            expected: due as u64,
            found: first.into(),
        });
    }
    let raw = decompress(what, fields.bytes(fields.left())?, size, MAX_RAW)?;
    Ok((count as usize, raw))
}

/// Adds the blocks of a frame to `code`.
pub(super) fn decode_blocks(
    payload: &[u8],
    code: &mut Code,
    budget: &mut Budget,
) -> Result<(), Damage> {
    let (count, raw) = open_frame("blocks frame", code.blocks().len(), payload)?;
    let mut columns = Fields::new(&raw, "blocks frame");
    let mut mode_table = columns.part()?;
    let mut mode_of = columns.part()?;
    let mut addresses = columns.part()?;
    let mut counts = columns.part()?;
    let mut lengths = columns.part()?;
    let mut bytes = columns.part()?;
    columns.finish()?;
    let mut modes = Vec::new();
    while mode_table.left() > 0 {
        modes.push(mode(&mut mode_table)?);
    }
    let mut end = 0;
    for _ in 0..count {
        let index = usize::try_from(mode_of.varint()?).map_err(|_| mode_of.malformed())?;
        let mode = *modes.get(index).ok_or(Damage::NoSuch {
            what: "mode",
            index: index as u64,
            count: modes.len() as u64,
        })?;
        let address = addresses.distance(end)?;
        let lengths = lengths.bytes(counts.varint16()?.into())?;
        let size: usize = lengths.iter().map(|&l| usize::from(l)).sum();
        let bytes = bytes.bytes(size)?;
        budget.charge(BLOCK_COST + size as u64 + lengths.len() as u64)?;
        let block = if lengths.is_empty() {
            Block::empty(address, mode)
        } else {
            Block::with_lengths(address, mode, bytes, lengths)
                .map_err(|e| Damage::Code(e.into()))?
        };
        end = block.end();
        code.add_block(block)?;
    }
    for column in [mode_of, addresses, counts, lengths, bytes] {
        column.finish()?;
    }
    Ok(())
}

/// The steps frame of the steps from `first` on, and how many steps it holds.
pub(super) fn encode_steps(
    code: &Code,
    first: usize,
    level: i32,
) -> Result<(Vec<u8>, usize), WriteError> {
    let mut columns = Columns::<6>::new();
    let [blocks, retired, exits, targets, modes, kinds] = &mut columns.0;
    let mut last = 0;
    let mut count = 0;
    for step in code.steps()[first..].iter().take(PER_FRAME) {
        let block = code.block(step.block);
        put_distance(blocks, last, step.block.0.into());
        last = step.block.0.into();
        // Most steps retire whole blocks, so what is missing is stored.
        put_varint(retired, (block.instructions() - step.retired).into());
        let mut exit = 0;
        let target = match step.exit {
            Exit::Sequential => {
                exit |= SEQUENTIAL;
                None
            }
            Exit::Gap => {
                exit |= GAP;
                None
            }
            Exit::Taken {
                target,
                mispredicted,
                in_tx,
            } => {
                exit |= TAKEN | flag(MISPREDICTED, mispredicted) | flag(IN_TX, in_tx);
                Some(target)
            }
            Exit::Event {
                kind,
                target,
                in_tx,
            } => {
                exit |= EVENT | flag(IN_TX, in_tx);
                kinds.push(kind.number());
                Some(target)
            }
        };
        if let Some(target) = target {
            let own = exit & KIND_MASK == TAKEN && own_target(block) == Some(target.address);
            let same = target == target_in_mode(target.address, block.mode());
            exit |= flag(OWN_TARGET, own) | flag(SAME_MODE, same);
            if !own {
                put_distance(targets, block.address(), target.address);
            }
            if !same {
                modes.push(target.code_size.number());
                modes.push(target.cpl.number());
                put_varint(modes, target.cs_base);
            }
        }
        exits.push(exit);
        count += 1;
    }
    Ok((columns.payload(level, first, count)?, count))
}

const fn flag(bit: u8, set: bool) -> u8 {
    if set { bit } else { 0 }
}

fn own_target(block: &Block) -> Option<u64> {
    block.branch().and_then(|branch| branch.target)
}

const fn target_in_mode(address: u64, mode: Mode) -> Target {
    Target {
        address,
        cs_base: mode.cs_base,
        code_size: mode.code_size,
        cpl: mode.cpl,
    }
}

/// Adds the steps of a frame to `code`.
pub(super) fn decode_steps(
    payload: &[u8],
    code: &mut Code,
    budget: &mut Budget,
) -> Result<(), Damage> {
    let (count, raw) = open_frame("steps frame", code.steps().len(), payload)?;
    let mut columns = Fields::new(&raw, "steps frame");
    let mut blocks = columns.part()?;
    let mut missing = columns.part()?;
    let mut exits = columns.part()?;
    let mut targets = columns.part()?;
    let mut modes = columns.part()?;
    let mut kinds = columns.part()?;
    columns.finish()?;
    let mut last = 0;
    for _ in 0..count {
        last = blocks.distance(last)?;
        let id = BlockId(u32::try_from(last).map_err(|_| blocks.malformed())?);
        let Some(block) = code.blocks().get(id.0 as usize) else {
            return Err(Damage::NoSuch {
                what: "block",
                index: last,
                count: code.blocks().len() as u64,
            });
        };
        let retired = block
            .instructions()
            .checked_sub(missing.varint16()?)
            .ok_or_else(|| missing.malformed())?;
        let exit = exits.u8()?;
        let (mispredicted, in_tx) = (exit & MISPREDICTED != 0, exit & IN_TX != 0);
        let allowed = match exit & KIND_MASK {
            TAKEN => OWN_TARGET | SAME_MODE | MISPREDICTED | IN_TX,
            EVENT => SAME_MODE | IN_TX,
            _ => 0,
        };
        if exit & !KIND_MASK & !allowed != 0 {
            return Err(exits.malformed());
        }
        let mut target = || {
            let address = if exit & OWN_TARGET != 0 {
                own_target(block).ok_or_else(|| exits.malformed())?
            } else {
                targets.distance(block.address())?
            };
            let mut target = target_in_mode(address, block.mode());
            if exit & SAME_MODE == 0 {
                (target.code_size, target.cpl) = code_size_and_cpl(&mut modes)?;
                target.cs_base = modes.varint()?;
            }
            Ok::<_, Damage>(target)
        };
        let exit = match exit & KIND_MASK {
            TAKEN => Exit::Taken {
                target: target()?,
                mispredicted,
                in_tx,
            },
            EVENT => Exit::Event {
                target: target()?,
                kind: FarKind::from_number(kinds.u8()?).ok_or_else(|| kinds.malformed())?,
                in_tx,
            },
            GAP => Exit::Gap,
            _ => Exit::Sequential,
        };
        budget.charge(STEP_COST)?;
        code.add_step(Step {
            block: id,
            retired,
            exit,
        })?;
    }
    for column in [blocks, missing, exits, targets, modes, kinds] {
        column.finish()?;
    }
    Ok(())
}
