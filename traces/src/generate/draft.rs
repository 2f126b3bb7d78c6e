//! Blocks before they have an address.

use super::draw::{Probability, Trips};
use super::fragment::Fragment;

/// A block that something goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    /// By its number.
    Block(usize),
    /// The first one of a function.
    Function(usize),
}

/// How a conditional branch decides.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decide {
    /// At random.
    Random(Probability),
    /// A loop: taken as often as it has further passes.
    Loop(Trips),
    /// Skips a function's call of itself if the recursion is as deep as it is to be.
    Guard,
    /// Taken if an instruction of this kind is due.
    Due(usize),
    /// Taken if a handler has run as long as it is to run.
    Spent,
    /// A loop of the LBR's handler: so many passes, whatever happens.
    Count(u32),
}

/// How a block ends.
#[derive(Clone, Debug)]
pub(super) enum Ending<L> {
    Sequential,
    Conditional {
        target: L,
        decide: Decide,
    },
    Jump(L),
    Call(L),
    /// A call of the function to itself.
    Recurse(L),
    ZeroCall,
    IndirectCall(Box<[L]>),
    IndirectJump(Box<[L]>),
    Return,
    SystemCall,
    SystemReturn,
    InterruptReturn,
}

impl<L: Copy> Ending<L> {
    /// The same with every label looked up.
    pub(super) fn map<M>(&self, look_up: impl Fn(L) -> M) -> Ending<M> {
        let all = |labels: &[L]| labels.iter().map(|&label| look_up(label)).collect();
        match self {
            Self::Sequential => Ending::Sequential,
            Self::Conditional { target, decide } => Ending::Conditional {
                target: look_up(*target),
                decide: *decide,
            },
            Self::Jump(target) => Ending::Jump(look_up(*target)),
            Self::Call(target) => Ending::Call(look_up(*target)),
            Self::Recurse(target) => Ending::Recurse(look_up(*target)),
            Self::ZeroCall => Ending::ZeroCall,
            Self::IndirectCall(targets) => Ending::IndirectCall(all(targets)),
            Self::IndirectJump(targets) => Ending::IndirectJump(all(targets)),
            Self::Return => Ending::Return,
            Self::SystemCall => Ending::SystemCall,
            Self::SystemReturn => Ending::SystemReturn,
            Self::InterruptReturn => Ending::InterruptReturn,
        }
    }

    /// Whether it is a branch.
    pub(super) const fn is_branch(&self) -> bool {
        !matches!(self, Self::Sequential)
    }
}

/// A block without address.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// Instructions that stand right before the branch.
    pub(super) own: Fragment,
    /// Ordinary instructions before those.
    pub(super) filler: u16,
    /// Whether `filler` is to be chosen, not given.
    pub(super) stretch: bool,
    pub(super) ending: Ending<Label>,
    /// Bytes behind it that no block holds.
    pub(super) pad: u16,
    /// How often it is expected to run, in units that all blocks of a ring share.
    pub(super) weight: f64,
    /// Frames of a recursion that a call of this block begins.
    pub(super) recursion: Option<Trips>,
    /// Name of the function that begins here.
    pub(super) name: Option<String>,
}

impl Draft {
    /// A block of ordinary instructions and this ending.
    pub(super) fn new(ending: Ending<Label>, weight: f64) -> Self {
        Self {
            own: Fragment::default(),
            filler: 0,
            stretch: true,
            ending,
            pad: 0,
            weight,
            recursion: None,
            name: None,
        }
    }

    /// A block of these instructions only.
    pub(super) fn of(own: Fragment, ending: Ending<Label>, weight: f64) -> Self {
        Self {
            own,
            stretch: false,
            ..Self::new(ending, weight)
        }
    }

    /// Instructions besides the filler.
    pub(super) fn fixed(&self) -> u16 {
        self.own.instructions + u16::from(self.ending.is_branch())
    }

    /// Fewest instructions of filler: no block is empty.
    pub(super) fn least(&self) -> u16 {
        u16::from(self.fixed() == 0)
    }
}

/// The blocks of a program in the order of their addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Drafts {
    pub(super) blocks: Vec<Draft>,
    /// First block of each function.
    pub(super) functions: Vec<usize>,
}

impl Drafts {
    /// Appends a block; returns its number.
    pub(super) fn push(&mut self, draft: Draft) -> usize {
        self.blocks.push(draft);
        self.blocks.len() - 1
    }

    /// The number the next block gets.
    pub(super) fn next(&self) -> usize {
        self.blocks.len()
    }

    /// Room for functions that are written later; returns the number of the first one.
    pub(super) fn reserve(&mut self, count: usize) -> usize {
        let first = self.functions.len();
        self.functions.resize(first + count, usize::MAX);
        first
    }

    /// Says where the conditional branch or jump `block` goes.
    pub(super) fn aim(&mut self, block: usize, at: usize) {
        match &mut self.blocks[block].ending {
            Ending::Conditional { target, .. } | Ending::Jump(target) => *target = Label::Block(at),
            _ => {}
        }
    }
}
