//! The whole program: the functions of each ring and what leads into them.

use vlbr_cpu::BlockError;

use super::draft::{Decide, Draft, Drafts, Ending, Label};
use super::draw::Probability;
use super::due::{Due, Kind, kinds};
use super::layout::{Placed, USER_BASE, place, stretch};
use super::lbr::{self, Routines};
use super::ring::{Around, Size, Writer};
use super::spec::{CodeSpec, Spec};
use crate::synthetic::Rng;

/// Ways into the kernel of each kind: entry stubs, each to another place of the dispatcher.
const STUBS: usize = 64;
/// Ways that a tree of branches leads to.
const CHOSEN: usize = 16;
/// Instructions of the straight-line code at an entry.
const STUB_FILLER: u16 = 6;

/// A laid-out program.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) blocks: Vec<Placed>,
    /// Loops in them.
    pub(super) loops: usize,
    /// What instructions fall due, by number.
    pub(super) kinds: Vec<Kind>,
    /// Where a thread begins.
    pub(super) start: usize,
    /// Where SYSCALL leads.
    pub(super) system_call: Option<usize>,
    /// Where interrupts and faults lead.
    pub(super) events: Vec<usize>,
    pub(super) lbr: Option<Routines>,
    /// Address behind the user code.
    pub(super) user_end: u64,
    /// Names of kernel functions by address, as `/proc/kallsyms` has them.
    pub(super) symbols: String,
}

impl Program {
    pub(super) fn build(spec: &Spec) -> Result<Self, BlockError> {
        let mut rng = Rng::new(spec.seed);
        let kinds = kinds(spec);
        let mut drafts = Drafts::default();
        let mut start = 0;
        if let Some(code) = &spec.user {
            let share = 1.0 - spec.kernel_share.unwrap_or(0.0);
            user(&mut drafts, code, &kinds, share, &mut rng);
            stretch(&mut drafts.blocks, code.block, &mut rng);
        }
        let kernel = drafts.next();
        let mut entries = Entries::default();
        if let Some(code) = &spec.kernel {
            entries = enter(&mut drafts, spec, code, &kinds, &mut rng);
            stretch(&mut drafts.blocks[kernel..], code.block, &mut rng);
            if spec.user.is_none() {
                start = entries.events[0];
            }
        }
        let blocks = place(&drafts, kernel, &mut rng)?;
        let user_end = blocks[..kernel].last().map_or(USER_BASE, |p| p.block.end());
        let mut symbols = String::new();
        for (draft, placed) in drafts.blocks.iter().zip(&blocks).skip(kernel) {
            if let Some(name) = &draft.name {
                symbols.push_str(&format!("{:016x} t {name}\n", placed.block.address()));
            }
        }
        Ok(Self {
            loops: blocks.last().map_or(0, |placed| placed.number + 1),
            blocks,
            kinds,
            start,
            system_call: entries.system_call,
            events: entries.events,
            lbr: entries.lbr,
            user_end,
            symbols,
        })
    }
}

/// User code: fixed frames, then calls of the first level's functions for ever.
fn user(drafts: &mut Drafts, code: &CodeSpec, kinds: &[Kind], share: f64, rng: &mut Rng) {
    let size = Size::of(code);
    for frame in 0..code.calls.base {
        let to = Label::Block(drafts.next() + 1);
        let frame_at = drafts.push(Draft::new(Ending::Call(to), 0.0));
        drafts.blocks[frame_at].name = Some(format!("user_frame_{frame}"));
        // Call and callee must not be neighbours: that would be a call to the next instruction.
        drafts.blocks[frame_at].pad = 8;
    }
    let first = drafts.reserve(size.first);
    let mut due = Due::new(kinds, true, share, size.instructions, forward(code, size));
    let around = Around {
        jumps: first_calls(code, size) / size.first as f64,
        ..Around::default()
    };
    dispatch(drafts, first, size.first, first_calls(code, size), false);
    Writer::new(code, rng, drafts, &mut due, around, "user").write(first);
}

/// Forward conditional branches in the unit of weight.
fn forward(code: &CodeSpec, size: Size) -> f64 {
    size.branches * code.branches.conditional * (1.0 - code.loops.share)
}

/// Calls of the first level, roughly: without those of fixed frames.
fn first_calls(code: &CodeSpec, size: Size) -> f64 {
    let sum: f64 = code.calls.depth.iter().sum();
    let calls = size.branches * code.branches.returns() * (1.0 - code.calls.recursion);
    calls * code.calls.depth[0] / sum
}

/// A loop that calls `count` functions in turn; if it ever `leaves`, each call is followed by a way to
/// what is written next.
/// Returns the places of the calls.
fn dispatch(
    drafts: &mut Drafts,
    first: usize,
    count: usize,
    calls: f64,
    leaves: bool,
) -> Vec<usize> {
    let each = calls / count as f64;
    let mut places = Vec::new();
    let mut ways = Vec::new();
    for function in first..first + count {
        places.push(drafts.push(Draft::new(Ending::Call(Label::Function(function)), each)));
        if leaves {
            let ending = Ending::Conditional {
                target: Label::Block(0),
                decide: Decide::Spent,
            };
            ways.push(drafts.push(Draft::new(ending, each)));
        }
    }
    drafts.push(Draft::new(Ending::Jump(Label::Block(places[0])), each));
    let behind = drafts.next();
    for way in ways {
        drafts.aim(way, behind);
    }
    places
}

/// A tree of conditional branches that leads to each of `ways` equally often.
fn choose(drafts: &mut Drafts, ways: &[usize], weight: f64) {
    if let &[way] = ways {
        drafts.push(Draft::new(Ending::Jump(Label::Block(way)), weight));
        return;
    }
    let (left, right) = ways.split_at(ways.len() / 2);
    let part = right.len() as f64 / ways.len() as f64;
    let decide = Decide::Random(Probability::new(part));
    let target = Label::Block(0);
    let branch = drafts.push(Draft::new(Ending::Conditional { target, decide }, weight));
    choose(drafts, left, weight * (1.0 - part));
    drafts.aim(branch, drafts.next());
    choose(drafts, right, weight * part);
}

/// The ways from the entries of one kind to the functions of the first level.
#[derive(Clone, Copy, Debug)]
struct Ways {
    first: usize,
    count: usize,
    /// Frames on each way.
    frames: u32,
}

impl Ways {
    /// Writes entries that are taken `visits` times, the dispatcher with its `calls`, and the way
    /// `back`; returns the entries.
    fn write(
        self,
        drafts: &mut Drafts,
        name: &str,
        back: Ending<Label>,
        visits: f64,
        calls: f64,
    ) -> Vec<usize> {
        let places = dispatch(drafts, self.first, self.count, calls, true);
        let stubs = STUBS.min(places.len());
        let each = visits / stubs as f64;
        let place = |stub: usize| places[stub * places.len() / stubs];
        if self.frames == 0 {
            // The dispatcher itself is entered, and leaves.
            drafts.push(Draft::new(back, visits));
            for stub in 0..stubs {
                drafts.blocks[place(stub)].name = Some(format!("{name}_{stub}"));
            }
            return (0..stubs).map(place).collect();
        }
        drafts.blocks[places[0]].name = Some(format!("{name}_dispatch"));
        drafts.push(Draft::new(Ending::Return, visits));
        let mut entries = Vec::new();
        for stub in 0..stubs {
            // The innermost of the fixed frames is the dispatcher's.
            let mut callee = place(stub);
            for frame in 1..self.frames {
                let call = Ending::Call(Label::Block(callee));
                callee = drafts.push(Draft::new(call, each));
                drafts.blocks[callee].name = Some(format!("{name}_{stub}_{frame}"));
                drafts.push(Draft::new(Ending::Return, each));
            }
            let mut enter = Draft::new(Ending::Call(Label::Block(callee)), each);
            let mut leave = Draft::new(back.clone(), each);
            for draft in [&mut enter, &mut leave] {
                (draft.filler, draft.stretch) = (STUB_FILLER, false);
            }
            enter.name = Some(format!("{name}_{stub}"));
            entries.push(drafts.push(enter));
            drafts.push(leave);
        }
        entries
    }
}

#[derive(Clone, Debug, Default)]
struct Entries {
    system_call: Option<usize>,
    events: Vec<usize>,
    lbr: Option<Routines>,
}

/// The kernel: stubs, fixed frames, the dispatcher and the functions.
fn enter(
    drafts: &mut Drafts,
    spec: &Spec,
    code: &CodeSpec,
    kinds: &[Kind],
    rng: &mut Rng,
) -> Entries {
    let size = Size::of(code);
    let share = match spec.user {
        Some(_) => spec.kernel_share.unwrap_or(1.0),
        None => 1.0,
    };
    let events = &spec.events;
    let per_million = size.instructions / (1e6 * share);
    let struck = (events.interrupts + events.exceptions) * per_million;
    let called = events.syscalls * per_million;
    let first = drafts.reserve(size.first);
    let base = f64::from(code.calls.base);
    let into = first_calls(code, size);
    // System calls are spread by an indirect jump if the ring is to have as many, else by a tree.
    let spread = called <= 0.9 * code.branches.indirect_jump * size.branches;
    let chosen = if spread { 0.0 } else { called };
    let around = Around {
        calls: (struck + called) * base,
        jumps: into / size.first as f64 + chosen,
        indirect_jumps: called - chosen,
        even: chosen * f64::from(CHOSEN.ilog2()),
        conditionals: into,
    };
    let visits = struck + called;
    let part = |weight: f64| if visits > 0.0 { weight / visits } else { 1.0 };
    let ways = Ways {
        first,
        count: size.first,
        frames: code.calls.base,
    };
    let mut entries = Entries {
        events: ways.write(
            drafts,
            "entry_event",
            Ending::InterruptReturn,
            struck,
            into * part(struck),
        ),
        ..Entries::default()
    };
    if events.syscalls > 0.0 {
        let back = Ending::SystemReturn;
        let to = ways.write(drafts, "entry_call", back, called, into * part(called));
        let entry = drafts.next();
        if spread {
            let labels = to.iter().map(|&way| Label::Block(way)).collect();
            let mut draft = Draft::new(Ending::IndirectJump(labels), called);
            (draft.filler, draft.stretch) = (STUB_FILLER, false);
            drafts.push(draft);
        } else {
            let some = CHOSEN.min(to.len());
            let ways: Vec<usize> = (0..some).map(|n| to[n * to.len() / some]).collect();
            choose(drafts, &ways, called);
        }
        drafts.blocks[entry].name = Some("entry_SYSCALL".into());
        entries.system_call = Some(entry);
    }
    if let Some(usage) = &spec.lbr {
        let cycle = usage.active.map(|active| active + usage.idle.unwrap_or(0));
        let active = match (usage.active, cycle) {
            (Some(active), Some(cycle)) => active as f64 / cycle as f64,
            _ => 1.0,
        };
        let reads = per_million * 1e6 * active / usage.period as f64;
        let sessions = cycle.map_or(0.0, |cycle| per_million * 1e6 / cycle as f64);
        entries.lbr = lbr::write(drafts, usage, (reads, sessions));
    }
    let mut due = Due::new(kinds, false, share, size.instructions, forward(code, size));
    Writer::new(code, rng, drafts, &mut due, around, "kernel").write(first);
    entries
}
