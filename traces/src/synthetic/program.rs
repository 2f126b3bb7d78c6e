//! A random program: functions of blocks, laid out and encoded as real x86 code.

use vlbr_arch::{CodeSize, Cpl};
use vlbr_cpu::{Block, BlockError, Mode, ModeSource};

use super::SyntheticConfig;
use super::rng::Rng;

/// Where user code starts: the base a static x86-64 executable is linked to.
pub(super) const USER_BASE: u64 = 0x40_0000;
/// Where kernel code starts: the text mapping of a 64-bit Linux kernel.
const KERNEL_BASE: u64 = 0xffff_ffff_8100_0000;
/// The same for code sizes below 64 bits.
const KERNEL_BASE_32: u64 = 0xc100_0000;
/// Deepest level of the call graph; a function calls functions of deeper levels only.
const LEVELS: usize = 6;

/// Straight-line instructions, valid in 32-bit and 64-bit code, no control transfer among them.
pub(crate) const BODY: [&[u8]; 14] = [
    &[0x90],                               // nop
    &[0x89, 0xd8],                         // mov eax, ebx
    &[0x01, 0xd8],                         // add eax, ebx
    &[0x31, 0xc0],                         // xor eax, eax
    &[0x85, 0xc0],                         // test eax, eax
    &[0x83, 0xf8, 0x07],                   // cmp eax, 7
    &[0x8d, 0x40, 0x04],                   // lea eax, [eax + 4]
    &[0x8b, 0x43, 0x08],                   // mov eax, [ebx + 8]
    &[0x89, 0x43, 0x10],                   // mov [ebx + 16], eax
    &[0x0f, 0xb6, 0xc0],                   // movzx eax, al
    &[0x0f, 0xaf, 0xc3],                   // imul eax, ebx
    &[0xb8, 0x78, 0x56, 0x34, 0x12],       // mov eax, 12345678h
    &[0x81, 0xc3, 0x00, 0x10, 0x00, 0x00], // add ebx, 1000h
    &[0x0f, 0x1f, 0x44, 0x00, 0x00],       // nop [eax + eax]
];

/// How a conditional branch decides.
#[derive(Clone, Copy, Debug)]
pub(super) enum Behaviour {
    /// Taken this many times in a row, then not taken once: a loop.
    Loop(u32),
    /// Taken with this probability, in 256ths.
    Biased(u8),
    /// Taken if the call stack is deep, else with even odds: ends a recursion.
    Guard,
}

/// How a block ends and what follows. Numbers are indices into [`Program::blocks`].
#[derive(Clone, Debug)]
pub(super) enum Ending {
    Sequential,
    Conditional {
        target: usize,
        behaviour: Behaviour,
    },
    Jump(usize),
    Call(usize),
    IndirectCall(Box<[usize]>),
    Switch(Box<[usize]>),
    Return,
    /// SYSCALL, or INT 80h below 64 bits.
    SystemCall,
    /// SYSRET, or IRET below 64 bits.
    SystemReturn,
    InterruptReturn,
}

/// A block and how it ends. The block that follows in memory has the next index.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) block: Block,
    pub(super) ending: Ending,
}

/// Laid-out code of a random program.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) blocks: Vec<Placed>,
    pub(super) user_entry: usize,
    /// Address behind the user code.
    pub(super) user_end: u64,
    pub(super) system_call_entry: usize,
    pub(super) interrupt_entry: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    User,
    Kernel,
}

/// A block before its address is known.
struct Draft {
    body: Vec<u8>,
    ending: Ending,
}

impl Program {
    pub(super) fn build(config: &SyntheticConfig) -> Result<Self, BlockError> {
        let mut rng = Rng::new(config.seed);
        let mut drafts = Vec::new();
        let functions = usize::from(config.functions.max(1));
        let user = draft_functions(&mut rng, config, functions, Space::User, &mut drafts);
        let kernel_start = drafts.len();
        let kernel = if config.kernel {
            draft_functions(
                &mut rng,
                config,
                functions / 2 + 1,
                Space::Kernel,
                &mut drafts,
            )
        } else {
            Vec::new()
        };
        let mut entry = |ending: Ending, rng: &mut Rng| {
            let at = drafts.len();
            if let Some(&callee) = kernel.get(rng.below(kernel.len())) {
                drafts.push(Draft::random(rng, Ending::Call(callee)));
            }
            drafts.push(Draft::random(rng, ending));
            at
        };
        let (system_call_entry, interrupt_entry) = if config.kernel {
            (
                entry(Ending::SystemReturn, &mut rng),
                entry(Ending::InterruptReturn, &mut rng),
            )
        } else {
            (0, 0)
        };
        let blocks = place(&drafts, kernel_start, config.code_size)?;
        let user_end = blocks[..kernel_start]
            .last()
            .map_or(USER_BASE, |placed| placed.block.end());
        Ok(Self {
            blocks,
            user_end,
            user_entry: user[0],
            system_call_entry,
            interrupt_entry,
        })
    }
}

impl Draft {
    fn random(rng: &mut Rng, ending: Ending) -> Self {
        let mut body = Vec::new();
        for _ in 0..rng.below(8) {
            body.extend_from_slice(BODY[rng.below(BODY.len())]);
        }
        if matches!(ending, Ending::Sequential) {
            if rng.one_in(3) {
                body.extend_from_slice(&[0xf3, 0xa4]); // rep movsb
            } else {
                body.push(0x90);
            }
        }
        Self { body, ending }
    }
}

/// Drafts `count` functions behind the blocks there are; returns their entries. The first one of
/// user code never returns.
fn draft_functions(
    rng: &mut Rng,
    config: &SyntheticConfig,
    count: usize,
    space: Space,
    drafts: &mut Vec<Draft>,
) -> Vec<usize> {
    let average = usize::from(config.blocks_per_function.max(3));
    let sizes: Vec<usize> = (0..count).map(|_| 3 + rng.below(2 * average - 2)).collect();
    let mut entries = Vec::with_capacity(count);
    let mut next = drafts.len();
    for size in &sizes {
        entries.push(next);
        next += size;
    }
    for (function, &size) in sizes.iter().enumerate() {
        let level = |f: usize| (f * LEVELS).div_ceil(count);
        let first_callee = (function + 1..count).find(|&f| level(f) > level(function));
        let shape = Shape {
            entry: entries[function],
            size,
            callees: first_callee.map_or(&[][..], |f| &entries[f..]),
            system_calls: config.kernel && space == Space::User,
            one_in_calls: if function == 0 { 2 } else { 5 },
        };
        let mut guarded = false;
        for index in 0..size {
            let ending = if guarded {
                Ending::Call(entries[function])
            } else if index + 1 < size {
                shape.ending(rng, index)
            } else if function == 0 && space == Space::User {
                Ending::Jump(entries[0])
            } else {
                Ending::Return
            };
            guarded = matches!(
                ending,
                Ending::Conditional {
                    behaviour: Behaviour::Guard,
                    ..
                }
            );
            drafts.push(Draft::random(rng, ending));
        }
    }
    entries
}

/// What the endings of a function's blocks are drawn from.
struct Shape<'a> {
    entry: usize,
    size: usize,
    callees: &'a [usize],
    system_calls: bool,
    one_in_calls: u32,
}

impl Shape<'_> {
    /// An ending for block `index`, not the last one. Backward edges are conditional, so that
    /// every path comes to the last block.
    fn ending(&self, rng: &mut Rng, index: usize) -> Ending {
        let at = self.entry + index;
        let forward = |rng: &mut Rng| at + 1 + rng.below(self.size - index - 1);
        if !self.callees.is_empty() && rng.one_in(self.one_in_calls) {
            let callee = |rng: &mut Rng| self.callees[rng.below(self.callees.len())];
            return if rng.one_in(4) {
                Ending::IndirectCall((0..1 + rng.below(4)).map(|_| callee(rng)).collect())
            } else {
                Ending::Call(callee(rng))
            };
        }
        match rng.below(20) {
            0..=2 => Ending::Sequential,
            3..=5 => Ending::Jump(forward(rng)),
            6 => Ending::Switch((0..2 + rng.below(4)).map(|_| forward(rng)).collect()),
            7 if self.system_calls => Ending::SystemCall,
            // A block that calls its own function stands behind a guard which can skip it.
            8 if index + 2 < self.size => Ending::Conditional {
                target: at + 2,
                behaviour: Behaviour::Guard,
            },
            9..=11 => Ending::Conditional {
                target: self.entry + rng.below(index + 1),
                behaviour: Behaviour::Loop(1 + rng.below(12) as u32),
            },
            _ => Ending::Conditional {
                target: forward(rng),
                behaviour: Behaviour::Biased([1, 4, 16, 128, 240, 252][rng.below(6)]),
            },
        }
    }
}

/// Gives every draft an address and encodes its ending.
fn place(drafts: &[Draft], kernel_start: usize, size: CodeSize) -> Result<Vec<Placed>, BlockError> {
    let wide = size == CodeSize::Bits64;
    let mut addresses = Vec::with_capacity(drafts.len() + 1);
    let mut address = USER_BASE;
    for (index, draft) in drafts.iter().enumerate() {
        if index == kernel_start {
            address = if wide { KERNEL_BASE } else { KERNEL_BASE_32 };
        }
        addresses.push(address);
        address += (draft.body.len() + ending_length(&draft.ending, wide)) as u64;
    }
    let mut placed = Vec::with_capacity(drafts.len());
    for (index, draft) in drafts.iter().enumerate() {
        let address = addresses[index];
        let mode = Mode {
            code_size: size,
            cpl: if index < kernel_start {
                Cpl::Ring3
            } else {
                Cpl::Ring0
            },
            cs_base: 0,
            space: 0,
            source: ModeSource::Recorded,
        };
        let mut bytes = draft.body.clone();
        let end = address + (bytes.len() + ending_length(&draft.ending, wide)) as u64;
        // The halves of user and kernel code each span less than 2 GiB.
        let relative = |target: usize| (addresses[target].wrapping_sub(end) as u32).to_le_bytes();
        match &draft.ending {
            Ending::Sequential => {}
            Ending::Conditional { target, .. } => {
                bytes.extend_from_slice(&[0x0f, 0x85]); // jne
                bytes.extend_from_slice(&relative(*target));
            }
            Ending::Jump(target) => {
                bytes.push(0xe9);
                bytes.extend_from_slice(&relative(*target));
            }
            Ending::Call(target) => {
                bytes.push(0xe8);
                bytes.extend_from_slice(&relative(*target));
            }
            Ending::IndirectCall(_) => bytes.extend_from_slice(&[0xff, 0xd0]), // call eax/rax
            Ending::Switch(_) => bytes.extend_from_slice(&[0xff, 0xe0]),       // jmp eax/rax
            Ending::Return => bytes.push(0xc3),
            Ending::SystemCall if wide => bytes.extend_from_slice(&[0x0f, 0x05]),
            Ending::SystemCall => bytes.extend_from_slice(&[0xcd, 0x80]),
            Ending::SystemReturn if wide => bytes.extend_from_slice(&[0x48, 0x0f, 0x07]),
            Ending::InterruptReturn if wide => bytes.extend_from_slice(&[0x48, 0xcf]),
            Ending::SystemReturn | Ending::InterruptReturn => bytes.push(0xcf),
        }
        placed.push(Placed {
            block: Block::decode(address, mode, &bytes)?,
            ending: draft.ending.clone(),
        });
    }
    Ok(placed)
}

/// Bytes the branch of an ending takes.
const fn ending_length(ending: &Ending, wide: bool) -> usize {
    match ending {
        Ending::Sequential => 0,
        Ending::Conditional { .. } => 6,
        Ending::Jump(_) | Ending::Call(_) => 5,
        Ending::IndirectCall(_) | Ending::Switch(_) | Ending::SystemCall => 2,
        Ending::Return => 1,
        Ending::SystemReturn if wide => 3,
        Ending::InterruptReturn if wide => 2,
        Ending::SystemReturn | Ending::InterruptReturn => 1,
    }
}
