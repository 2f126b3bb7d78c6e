//! The functions of one ring, level by level.
//!
//! Functions of a level call functions of the next one only, so when one is written its callers are
//! known, and with them how often each of its blocks is expected to run. Every branch is given the
//! class that is missed most at that weight; so the mix of what runs, not that of what stands in
//! memory, becomes the spec's.

use super::account::{Account, Choice, weighted};
use super::draft::{Decide, Draft, Drafts, Ending, Label};
use super::draw::{Probability, Trips, unit};
use super::due::Due;
use super::spec::CodeSpec;
use crate::synthetic::Rng;

/// Calls of each function for each pass through a ring's code: the unit of weight.
const CALLS_EACH: f64 = 3.0;
/// Most blocks of a ring, roughly.
const MAX_BLOCKS: f64 = 60_000.0;
/// Most blocks of a function, roughly.
const MAX_FUNCTION_BLOCKS: usize = 4000;
/// Blocks from which on switches are small.
const MANY_BLOCKS: usize = 200_000;
/// Trips that a longer loop has at least: its branch is then taken nearly as often.
const ENOUGH_TRIPS: f64 = 24.0;
/// Weight of code that runs seldom.
const SELDOM: f64 = 0.3;
/// Deepest nest of branches that skip code.
const MAX_REGIONS: u32 = 4;
/// How far ahead of their part the classes may be, as a part of the level.
const AHEAD: f64 = 0.08;

/// The classes that are chosen among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Forward,
    Loop,
    Jump,
    IndirectJump,
    ZeroCall,
    Call,
}

const CLASSES: [Class; 6] = [
    Class::Forward,
    Class::Loop,
    Class::Jump,
    Class::IndirectJump,
    Class::ZeroCall,
    Class::Call,
];

/// What surrounds a ring's functions: its calls and branches, in the unit of weight.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Around {
    /// Calls of fixed frames.
    pub(super) calls: f64,
    pub(super) jumps: f64,
    pub(super) indirect_jumps: f64,
    /// Conditional branches that are hardly ever taken.
    pub(super) conditionals: f64,
    /// Conditional branches that are taken as often as not.
    pub(super) even: f64,
}

/// The size of a ring's code in the unit of weight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Branches.
    pub(super) branches: f64,
    /// Instructions.
    pub(super) instructions: f64,
    /// Functions of the first level.
    pub(super) first: usize,
}

impl Size {
    pub(super) fn of(spec: &CodeSpec) -> Self {
        let counts = functions_of(spec);
        let functions: usize = counts.iter().sum();
        let calls = (1.0 - spec.calls.recursion) * spec.branches.returns();
        let branches = CALLS_EACH * functions as f64 / calls;
        Self {
            branches,
            instructions: branches * spec.block,
            first: counts[0],
        }
    }
}

/// Functions of each level: in proportion to its calls, at least one.
fn functions_of(spec: &CodeSpec) -> Vec<usize> {
    let levels = spec.calls.depth.len();
    let most = (MAX_BLOCKS * spec.branches.returns()) as usize;
    let functions = (spec.functions as usize).min(most).max(levels);
    let sum: f64 = spec.calls.depth.iter().sum();
    let spare = (functions - levels) as f64;
    let share = |part: &f64| 1 + (spare * part / sum).round() as usize;
    spec.calls.depth.iter().map(share).collect()
}

/// Writes the functions of a ring.
pub(super) struct Writer<'a> {
    spec: &'a CodeSpec,
    rng: &'a mut Rng,
    drafts: &'a mut Drafts,
    due: &'a mut Due,
    size: Size,
    accounts: [Account; 6],
    indirect_calls: Account,
    taken: Choice<f64>,
    trips: Choice<f64>,
    jump_targets: Choice<u32>,
    call_targets: Choice<u32>,
    /// Trips of an average loop, at most those that are enough.
    usual_trips: f64,
    /// Calls of functions by themselves that the levels so far lack.
    recursions: f64,
    /// Calls that lead to each level, wanted.
    levels: Vec<f64>,
    counts: Vec<usize>,
    prefix: &'static str,
    /// Branches of the level so far.
    executed: f64,
    /// Branches the level is to have.
    budget: f64,
    /// Those of them that are neither calls nor returns, and those of the levels before.
    others: f64,
    before: f64,
    all: f64,
    next: NextLevel,
}

/// The functions that the level being written calls.
#[derive(Clone, Debug, Default)]
struct NextLevel {
    first: usize,
    /// Calls of each so far.
    calls: Vec<f64>,
    want: f64,
}

impl NextLevel {
    fn new(first: usize, count: usize, want: f64) -> Self {
        Self {
            first,
            calls: vec![0.0; count],
            want,
        }
    }

    fn done(&self) -> f64 {
        self.calls.iter().sum()
    }

    /// The `count` functions that lack most calls; the first ones are to be called more often.
    fn least(&self, count: usize) -> Vec<usize> {
        let all = self.calls.len();
        let scale = 2.0 * self.want / (all as f64 * (all as f64 + 1.0));
        let missing = |i: usize| scale * (all - i) as f64 - self.calls[i];
        let order = |a: &usize, b: &usize| missing(*b).total_cmp(&missing(*a)).then(a.cmp(b));
        if count <= 1 {
            return (0..all).min_by(order).into_iter().collect();
        }
        let mut indices: Vec<usize> = (0..all).collect();
        indices.sort_by(order);
        indices.truncate(count);
        indices
    }
}

impl std::fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("executed", &(self.before + self.executed))
            .field("of", &self.all)
            .finish_non_exhaustive()
    }
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        spec: &'a CodeSpec,
        rng: &'a mut Rng,
        drafts: &'a mut Drafts,
        due: &'a mut Due,
        around: Around,
        prefix: &'static str,
    ) -> Self {
        let size = Size::of(spec);
        let total = size.branches;
        let branches = &spec.branches;
        let conditional = branches.conditional * total;
        let looping = conditional * spec.loops.share;
        let calls = branches.returns() * total;
        let recursive = calls * spec.calls.recursion;
        let structured = (calls - recursive - around.calls).max(0.3 * calls);
        let depth: f64 = spec.calls.depth.iter().sum();
        let levels: Vec<f64> = spec
            .calls
            .depth
            .iter()
            .map(|d| structured * d / depth)
            .collect();
        let mut taken = Choice::new(&spec.conditional.taken, conditional - looping);
        taken.add_near(0.0, around.conditionals);
        taken.add_near(0.5, around.even);
        let slow = due.rate_of_ring() * size.instructions / 1e6;
        let accounts = [
            Account {
                want: conditional - looping,
                done: around.conditionals + around.even,
            },
            Account::of(looping),
            Account {
                want: branches.jump * total,
                done: around.jumps + slow,
            },
            Account {
                want: branches.indirect_jump * total,
                done: around.indirect_jumps,
            },
            Account::of(branches.zero_call * total),
            // Calls are counted level by level.
            Account::default(),
        ];
        let whole: f64 = spec.loops.trips.iter().map(|share| share.1).sum();
        let entered: f64 = spec
            .loops
            .trips
            .iter()
            .map(|(trips, share)| share / trips)
            .sum::<f64>()
            / whole;
        let others: f64 = accounts.iter().map(|a| (a.want - a.done).max(0.0)).sum();
        Self {
            indirect_calls: Account::of(branches.indirect_call * total),
            trips: Choice::new(&spec.loops.trips, looping),
            jump_targets: Choice::new(&spec.indirect.jump_targets, branches.indirect_jump * total),
            call_targets: Choice::new(&spec.indirect.call_targets, branches.indirect_call * total),
            counts: functions_of(spec),
            all: others,
            accounts,
            taken,
            levels,
            spec,
            rng,
            drafts,
            due,
            size,
            prefix,
            executed: 0.0,
            budget: 0.0,
            recursions: 0.0,
            usual_trips: (1.0 / entered).min(ENOUGH_TRIPS),
            others: 0.0,
            before: 0.0,
            next: NextLevel::default(),
        }
    }

    /// Writes every level. `first` numbers the functions of the first one, which were reserved before
    /// and are called equally often from outside.
    pub(super) fn write(&mut self, first: usize) {
        let count = self.counts[0];
        let mut calls = vec![self.levels[0] / count as f64; count];
        let mut number = first;
        // What is neither call nor return is spread over the levels as calls from and to them are.
        let flow: f64 = 2.0 * self.levels.iter().sum::<f64>() - self.levels[0];
        for level in 0..self.levels.len() {
            let below = self.levels.get(level + 1).copied().unwrap_or(0.0);
            let part = (self.levels[level] + below) / flow;
            self.next = match self.counts.get(level + 1) {
                Some(&count) => NextLevel::new(self.drafts.reserve(count), count, below),
                None => NextLevel::default(),
            };
            self.level(level, number, &calls, part);
            number = self.next.first;
            calls = std::mem::take(&mut self.next.calls);
        }
    }

    fn level(&mut self, level: usize, first: usize, calls: &[f64], part: f64) {
        let recursive = self.recursions(level, calls);
        let activations = |index: usize| calls[index] * recursive[index].unwrap_or(1.0);
        let all: f64 = (0..calls.len()).map(activations).sum();
        let repeated = all - calls.iter().sum::<f64>();
        // All of the ring's branches that are left to the levels, without returns and calls.
        self.others = self.all * part;
        self.budget = self.others + all + repeated + self.next.want;
        self.executed = 0.0;
        let mut order: Vec<usize> = (0..calls.len()).filter(|&i| calls[i] > 0.0).collect();
        order.sort_by(|&a, &b| activations(b).total_cmp(&activations(a)).then(a.cmp(&b)));
        let mut weight_done = 0.0;
        let last = order.last().copied();
        for index in order {
            let weight = activations(index);
            weight_done += weight;
            let until = self.budget * weight_done / all - weight;
            let entry = self.drafts.next();
            self.drafts.functions[first + index] = entry;
            let linked = last == Some(index) && self.next.want > 0.0;
            let link = linked && self.next.done() + 0.5 * weight < self.next.want.min(weight);
            self.function(Function {
                weight,
                recursion: recursive[index],
                until,
                link: link || linked && self.next.done() == 0.0,
            });
            self.drafts.blocks[entry].name = Some(format!("{}_{}_{index}", self.prefix, level + 1));
            self.drafts.blocks[entry].recursion = recursive[index].map(Trips::new);
        }
        self.before += self.others;
    }

    /// The average number of frames of each function that calls itself.
    fn recursions(&mut self, level: usize, calls: &[f64]) -> Vec<Option<f64>> {
        let structured: f64 = self.levels.iter().sum();
        let part = self.levels[level] / structured;
        let all = self.spec.branches.returns() * self.spec.calls.recursion * self.size.branches;
        // What does not fit into this level is left to the next ones.
        let mut want = self.recursions + part * all;
        let depth = self.spec.calls.recursion_depth;
        let mut frames = vec![None; calls.len()];
        let start = self.rng.below(calls.len());
        for offset in 0..calls.len() {
            let index = (start + offset) % calls.len();
            let repeated = calls[index] * (depth - 1.0);
            if repeated > 0.0 && want >= 0.5 * repeated {
                frames[index] = Some(depth);
                want -= repeated;
            }
        }
        self.recursions = want;
        frames
    }

    /// How much of the ring is done, for its classes.
    fn progress(&self) -> f64 {
        if self.all <= 0.0 || self.budget <= 0.0 {
            return 1.0;
        }
        let part = (self.executed / self.budget + AHEAD) * self.others;
        ((self.before + part) / self.all).min(1.0)
    }

    fn function(&mut self, function: Function) {
        let Function {
            weight,
            recursion,
            until,
            link,
        } = function;
        let entry = self.drafts.next();
        let sites = self.due.sites(self.drafts, weight, self.progress());
        self.conditionals(0.0, sites * weight);
        if let Some(frames) = recursion {
            let guard = self.drafts.push(Draft::new(
                Ending::Conditional {
                    target: Label::Block(0),
                    decide: Decide::Guard,
                },
                weight,
            ));
            let again = weight * (frames - 1.0) / frames;
            let call = Ending::Recurse(Label::Block(entry));
            self.drafts.push(Draft::new(call, again));
            self.drafts.aim(guard, self.drafts.next());
            self.conditionals(1.0 / frames, weight);
            self.executed += again;
        }
        if link {
            self.link(weight);
        }
        while self.executed < until && self.drafts.next() - entry < MAX_FUNCTION_BLOCKS {
            self.item(weight, 0, 0);
        }
        self.drafts.push(Draft::new(Ending::Return, weight));
        self.executed += weight;
        self.due.write_slow(self.drafts);
        let end = self.drafts.next() - 1;
        self.drafts.blocks[end].pad = self.rng.below(16) as u16;
    }

    /// Counts forward conditional branches.
    fn conditionals(&mut self, taken: f64, weight: f64) {
        self.taken.add_near(taken, weight);
        self.accounts[Class::Forward as usize].done += weight;
        self.executed += weight;
    }

    /// A call of the next level that is skipped so often that the calls become as many as wanted.
    fn link(&mut self, weight: f64) {
        let missing = (self.next.want - self.next.done()).min(weight);
        let skipped = 1.0 - missing / weight;
        let skip = self.forward(skipped, weight);
        self.conditionals(skipped, weight);
        self.call(missing);
        self.drafts.aim(skip, self.drafts.next());
    }

    fn forward(&mut self, taken: f64, weight: f64) -> usize {
        self.drafts.push(Draft::new(
            Ending::Conditional {
                target: Label::Block(0),
                decide: Decide::Random(Probability::new(taken)),
            },
            weight,
        ))
    }

    /// A branch of some class, with what belongs to it.
    fn item(&mut self, weight: f64, nest: u32, region: u32) {
        let progress = self.progress();
        let level_progress = ((self.executed / self.budget) + AHEAD).min(1.0);
        let mut missing = [0.0; CLASSES.len()];
        for (slot, class) in missing.iter_mut().zip(CLASSES) {
            let lack = match class {
                Class::Call => self.next.want * level_progress - self.next.done(),
                _ => self.accounts[class as usize].missing(progress),
            };
            let possible = match class {
                Class::Call => !self.next.calls.is_empty(),
                Class::Loop => nest < self.spec.loops.nest && region < MAX_REGIONS,
                _ => true,
            };
            let least = if class == Class::Loop {
                self.usual_trips
            } else {
                0.3
            };
            if possible && lack > least * weight {
                *slot = lack;
            }
        }
        let class = weighted(self.rng, &missing).map_or(Class::Forward, |index| CLASSES[index]);
        match class {
            Class::Forward => self.skip(weight, nest, region, progress),
            Class::Loop => self.repeat(weight, nest, region, progress),
            Class::Jump => {
                let next = Label::Block(self.drafts.next() + 1);
                let mut draft = Draft::new(Ending::Jump(next), weight);
                draft.pad = 1 + self.rng.below(24) as u16;
                self.drafts.push(draft);
                self.count(Class::Jump, weight);
            }
            Class::IndirectJump => self.switch(weight, progress),
            Class::ZeroCall => {
                self.drafts.push(Draft::new(Ending::ZeroCall, weight));
                self.count(Class::ZeroCall, weight);
            }
            Class::Call => self.call(weight),
        }
    }

    fn count(&mut self, class: Class, weight: f64) {
        self.accounts[class as usize].done += weight;
        self.executed += weight;
    }

    /// A branch over code that runs less often by it.
    fn skip(&mut self, weight: f64, nest: u32, region: u32, progress: f64) {
        let Some(index) = self.taken.pick(progress, |_| weight) else {
            return;
        };
        let taken = self.taken.value(index);
        self.taken.add(index, weight);
        self.count(Class::Forward, weight);
        let branch = self.forward(taken, weight);
        let inside = weight * (1.0 - taken);
        if inside > 0.0 && region < MAX_REGIONS && unit(self.rng) < 0.6 {
            self.item(inside, nest, region + 1);
        } else {
            self.drafts.push(Draft::new(Ending::Sequential, inside));
        }
        self.drafts.aim(branch, self.drafts.next());
    }

    /// A loop.
    fn repeat(&mut self, weight: f64, nest: u32, region: u32, progress: f64) {
        // A loop of more trips than its class lacks is cut to those, or to what all loops lack.
        let least = |trips: f64| weight * trips.min(ENOUGH_TRIPS);
        let Some(index) = self.trips.pick(progress, least) else {
            return;
        };
        let lacking = self.trips.missing(index, progress);
        let most = if lacking * 1.5 >= least(self.trips.value(index)) {
            (lacking / weight).max(ENOUGH_TRIPS)
        } else {
            self.accounts[Class::Loop as usize].missing(progress) / weight
        };
        // Code that runs seldom runs a number of times that is far from what is expected; a long loop
        // there would make the difference felt.
        let felt = if weight < SELDOM {
            ENOUGH_TRIPS
        } else {
            0.03 * self.size.branches / weight
        };
        let trips = self
            .trips
            .value(index)
            .min(most.max(2.0))
            .min(felt.max(2.0));
        let inside = weight * trips;
        self.trips.add(index, inside);
        self.count(Class::Loop, inside);
        let start = self.drafts.next();
        let room = self.budget * 1.02 - self.executed;
        let body = self.rng.below(4).min((room / inside).max(0.0) as usize);
        for _ in 0..body {
            self.item(inside, nest + 1, region);
        }
        let back = Ending::Conditional {
            target: Label::Block(start),
            decide: Decide::Loop(Trips::new(trips)),
        };
        self.drafts.push(Draft::new(back, inside));
    }

    /// An indirect jump to one of several blocks, each of which leaves to behind the last one.
    fn switch(&mut self, weight: f64, progress: f64) {
        let Some(index) = self.jump_targets.pick(progress, |_| weight) else {
            return;
        };
        let mut targets = self.jump_targets.value(index) as usize;
        if self.drafts.next() > MANY_BLOCKS {
            targets = targets.min(2);
        }
        self.jump_targets.add(index, weight);
        self.count(Class::IndirectJump, weight);
        let first = self.drafts.next() + 1;
        let labels = (first..first + targets).map(Label::Block).collect();
        self.drafts
            .push(Draft::new(Ending::IndirectJump(labels), weight));
        let by_jump = self.accounts[Class::Jump as usize].missing(progress) > 0.3 * weight;
        for _ in 0..targets {
            let behind = Label::Block(first + targets);
            let ending = if by_jump {
                Ending::Jump(behind)
            } else {
                Ending::Conditional {
                    target: behind,
                    decide: Decide::Random(Probability::new(1.0)),
                }
            };
            self.drafts
                .push(Draft::new(ending, weight / targets as f64));
        }
        if by_jump {
            self.count(Class::Jump, weight);
        } else {
            self.conditionals(1.0, weight);
        }
    }

    /// A call of the next level.
    fn call(&mut self, weight: f64) {
        let progress = self.progress();
        let indirect = self.indirect_calls.missing(progress) > 0.3 * weight;
        self.executed += weight;
        let wanted = if indirect {
            self.indirect_calls.done += weight;
            let index = self.call_targets.pick(progress, |_| weight);
            index.map_or(1, |index| {
                self.call_targets.add(index, weight);
                self.call_targets.value(index) as usize
            })
        } else {
            1
        };
        let callees = self.next.least(wanted);
        for &index in &callees {
            self.next.calls[index] += weight / callees.len() as f64;
        }
        let label = |index: usize| Label::Function(self.next.first + index);
        let ending = if indirect {
            Ending::IndirectCall(callees.iter().map(|&index| label(index)).collect())
        } else {
            Ending::Call(label(callees.first().copied().unwrap_or(0)))
        };
        self.drafts.push(Draft::new(ending, weight));
    }
}

/// A function that is to be written.
#[derive(Clone, Copy, Debug)]
struct Function {
    /// How often it runs.
    weight: f64,
    /// Frames of its recursion.
    recursion: Option<f64>,
    /// Branches of the level at which it ends.
    until: f64,
    /// Whether it is the last chance to call the next level.
    link: bool,
}
