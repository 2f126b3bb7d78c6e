//! Addresses, lengths and bytes for drafted blocks.

use vlbr_arch::{CodeSize, Cpl};
use vlbr_cpu::{Block, BlockError, Mode, ModeSource};

use super::draft::{Decide, Draft, Drafts, Ending, Label};
use super::draw::{Trips, unit};
use super::fragment::Access;
use crate::synthetic::{BODY, Rng};

/// Where user code starts: the base a static x86-64 executable is linked to.
pub(super) const USER_BASE: u64 = 0x40_0000;
/// Where kernel code starts: the text mapping of a 64-bit Linux kernel.
pub(super) const KERNEL_BASE: u64 = 0xffff_ffff_8100_0000;
/// Longest row of filler, as a multiple of the average.
const LONGEST: f64 = 12.0;

/// A block with its address, and how it ends.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) block: Block,
    pub(super) ending: Ending<usize>,
    /// By number of the instruction.
    pub(super) accesses: Box<[(u16, Access)]>,
    /// Number of a HLT.
    pub(super) halt: Option<u16>,
    pub(super) recursion: Option<Trips>,
    /// How often it is expected to run, in the unit of its ring.
    #[cfg(test)]
    pub(super) weight: f64,
    /// If it ends a loop, the number of that among all loops.
    pub(super) number: usize,
}

/// Chooses the lengths of blocks so that they run `block` instructions per branch.
pub(super) fn stretch(drafts: &mut [Draft], block: f64, rng: &mut Rng) {
    let branches = drafts
        .iter()
        .filter(|d| d.ending.is_branch())
        .map(|d| d.weight);
    let wanted = block * branches.sum::<f64>();
    let fixed = |draft: &Draft| {
        let filler = if draft.stretch { 0 } else { draft.filler };
        f64::from(draft.fixed() + filler) * draft.weight
    };
    let room = wanted - drafts.iter().map(fixed).sum::<f64>();
    let elastic: f64 = drafts.iter().filter(|d| d.stretch).map(|d| d.weight).sum();
    if elastic <= 0.0 {
        return;
    }
    let average = (room / elastic).max(0.0);
    let mut sum = 0.0;
    for draft in drafts.iter_mut().filter(|draft| draft.stretch) {
        let length = super::draw::exponential(rng, average + 0.5).min(LONGEST * average);
        draft.filler = (length as u16).max(draft.least());
        sum += f64::from(draft.filler) * draft.weight;
    }
    // What the dice made of it is brought to the sum, then to the instruction, heaviest first.
    let scale = if sum > 0.0 { room.max(0.0) / sum } else { 0.0 };
    let mut order: Vec<usize> = (0..drafts.len()).filter(|&i| drafts[i].stretch).collect();
    order.sort_by(|&a, &b| {
        drafts[b]
            .weight
            .total_cmp(&drafts[a].weight)
            .then(a.cmp(&b))
    });
    let mut error = -room;
    for &index in &order {
        let draft = &mut drafts[index];
        let exact = f64::from(draft.filler) * scale;
        let length = exact as u16 + u16::from(unit(rng) < exact.fract());
        draft.filler = length.clamp(draft.least(), 400);
        error += f64::from(draft.filler) * draft.weight;
    }
    for &index in &order {
        let draft = &mut drafts[index];
        if draft.weight <= 0.0 {
            break;
        }
        let change = (error / draft.weight).round().clamp(-3.0, 3.0);
        let length = (f64::from(draft.filler) - change).max(draft.least().into());
        error += (length - f64::from(draft.filler)) * draft.weight;
        draft.filler = length as u16;
    }
}

/// Places all blocks, those from number `kernel` on in the kernel's half.
pub(super) fn place(
    drafts: &Drafts,
    kernel: usize,
    rng: &mut Rng,
) -> Result<Vec<Placed>, BlockError> {
    let mut bodies = Vec::with_capacity(drafts.blocks.len());
    let mut addresses = Vec::with_capacity(drafts.blocks.len());
    let mut address = USER_BASE;
    for (index, draft) in drafts.blocks.iter().enumerate() {
        if index == kernel {
            address = KERNEL_BASE;
        }
        let mut body = Vec::new();
        for _ in 0..draft.filler {
            body.extend_from_slice(BODY[rng.below(BODY.len())]);
        }
        body.extend_from_slice(&draft.own.bytes);
        addresses.push(address);
        address += body.len() as u64 + length(&draft.ending) + u64::from(draft.pad);
        bodies.push(body);
    }
    let number = |label: Label| match label {
        Label::Block(block) => block,
        Label::Function(function) => drafts.functions[function],
    };
    let mut placed = Vec::with_capacity(bodies.len());
    let mut loops = 0;
    for (index, (draft, mut bytes)) in drafts.blocks.iter().zip(bodies).enumerate() {
        let ending = draft.ending.map(number);
        let end = addresses[index] + bytes.len() as u64 + length(&draft.ending);
        // The code of a ring spans less than 2 GiB.
        let distance = |target: usize| (addresses[target].wrapping_sub(end) as u32).to_le_bytes();
        let mut direct = |opcode: &[u8], target: usize| {
            bytes.extend_from_slice(opcode);
            bytes.extend_from_slice(&distance(target));
        };
        match &ending {
            Ending::Sequential => {}
            Ending::Conditional { target, .. } => direct(&[0x0f, 0x85], *target), // jne
            Ending::Jump(target) => direct(&[0xe9], *target),
            Ending::Call(target) | Ending::Recurse(target) => direct(&[0xe8], *target),
            Ending::ZeroCall => bytes.extend_from_slice(&[0xe8, 0, 0, 0, 0]),
            Ending::IndirectCall(_) => bytes.extend_from_slice(&[0xff, 0xd0]), // call rax
            Ending::IndirectJump(_) => bytes.extend_from_slice(&[0xff, 0xe0]), // jmp rax
            Ending::Return => bytes.push(0xc3),
            Ending::SystemCall => bytes.extend_from_slice(&[0x0f, 0x05]),
            Ending::SystemReturn => bytes.extend_from_slice(&[0x48, 0x0f, 0x07]),
            Ending::InterruptReturn => bytes.extend_from_slice(&[0x48, 0xcf]),
        }
        let mode = Mode {
            code_size: CodeSize::Bits64,
            cpl: if index < kernel {
                Cpl::Ring3
            } else {
                Cpl::Ring0
            },
            cs_base: 0,
            space: 0,
            source: ModeSource::Recorded,
        };
        let behind = |&(number, access): &(u16, Access)| (draft.filler + number, access);
        let is_loop = matches!(
            draft.ending,
            Ending::Conditional {
                decide: Decide::Loop(_),
                ..
            }
        );
        placed.push(Placed {
            block: Block::decode(addresses[index], mode, &bytes)?,
            ending,
            accesses: draft.own.accesses.iter().map(behind).collect(),
            halt: draft.own.halt.map(|number| draft.filler + number),
            recursion: draft.recursion,
            #[cfg(test)]
            weight: draft.weight,
            number: loops,
        });
        loops += usize::from(is_loop);
    }
    Ok(placed)
}

/// Bytes the branch of an ending takes.
const fn length(ending: &Ending<Label>) -> u64 {
    match ending {
        Ending::Sequential => 0,
        Ending::Conditional { .. } => 6,
        Ending::Jump(_) | Ending::Call(_) | Ending::Recurse(_) | Ending::ZeroCall => 5,
        Ending::IndirectCall(_) | Ending::IndirectJump(_) | Ending::SystemCall => 2,
        Ending::Return => 1,
        Ending::SystemReturn => 3,
        Ending::InterruptReturn => 2,
    }
}
