//! Instructions that run at given rates: system calls and those that can cause VM exits.
//!
//! Each stands out of line, behind a branch in the code that is taken when the instruction is due.

use super::draft::{Decide, Draft, Drafts, Ending, Label};
use super::exits::Emitted;
use super::fragment::Fragment;
use super::spec::Spec;

/// Sites are met so much more often than their instruction is due, where there is room.
const SPARE: f64 = 4.0;
/// Part of the forward branches that may be such sites.
pub(super) const MOST_SITES: f64 = 0.5;

/// What is due.
#[derive(Clone, Debug)]
enum What {
    SystemCall,
    Exit(Fragment),
}

/// A kind of instruction, numbered in the order of the spec.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    what: What,
    pub(super) user: bool,
    /// Per million instructions of any ring.
    pub(super) rate: f64,
    /// It waits for an interrupt.
    pub(super) halts: bool,
}

/// The kinds of a spec, in the order of their numbers.
pub(super) fn kinds(spec: &Spec) -> Vec<Kind> {
    let mut kinds = Vec::new();
    if spec.events.syscalls > 0.0 {
        kinds.push(Kind {
            what: What::SystemCall,
            user: true,
            rate: spec.events.syscalls,
            halts: false,
        });
    }
    for rate in &spec.exits {
        // A checked spec has only such entries.
        let Ok(emitted) = Emitted::new(rate, spec.kernel.is_some()) else {
            continue;
        };
        if rate.per_million > 0.0 {
            kinds.push(Kind {
                halts: emitted.code.halt.is_some(),
                user: emitted.user,
                what: What::Exit(emitted.code),
                rate: rate.per_million,
            });
        }
    }
    kinds
}

#[derive(Clone, Debug)]
struct Need {
    kind: usize,
    what: What,
    /// Executions in the unit of weight of the ring.
    runs: f64,
    /// Executions of its sites, wanted and had.
    want: f64,
    had: f64,
}

/// The sites of one ring, as its code is written.
#[derive(Clone, Debug)]
pub(super) struct Due {
    needs: Vec<Need>,
    rate: f64,
    /// Sites whose code out of line is not written yet: block, need, weight.
    open: Vec<(usize, usize, f64)>,
}

impl Due {
    /// For code of `instructions` instructions, which are this `share` of all, and that many
    /// `forward` conditional branches.
    pub(super) fn new(
        kinds: &[Kind],
        user: bool,
        share: f64,
        instructions: f64,
        forward: f64,
    ) -> Self {
        let here = || {
            kinds
                .iter()
                .enumerate()
                .filter(|(_, kind)| kind.user == user)
        };
        let rate: f64 = here().map(|(_, kind)| kind.rate / share).sum();
        let runs = |kind: &Kind| kind.rate / share * instructions / 1e6;
        let all = rate * instructions / 1e6;
        let spare = if all > 0.0 {
            (MOST_SITES * forward / all).min(SPARE)
        } else {
            SPARE
        };
        Self {
            needs: here()
                .map(|(number, kind)| Need {
                    kind: number,
                    what: kind.what.clone(),
                    runs: runs(kind),
                    want: runs(kind) * spare,
                    had: 0.0,
                })
                .collect(),
            rate,
            open: Vec::new(),
        }
    }

    /// How often anything is due, per million instructions of the ring.
    pub(super) const fn rate_of_ring(&self) -> f64 {
        self.rate
    }

    /// Writes sites at the entry of a function of this weight until no kind lacks any; returns how
    /// many.
    pub(super) fn sites(&mut self, drafts: &mut Drafts, weight: f64, progress: f64) -> f64 {
        let mut written = 0.0;
        for index in 0..self.needs.len() {
            let need = &mut self.needs[index];
            if need.had >= need.want * progress {
                continue;
            }
            need.had += weight;
            let decide = Decide::Due(need.kind);
            let target = Label::Block(0);
            let site = drafts.push(Draft::new(Ending::Conditional { target, decide }, weight));
            self.open.push((site, index, weight));
            written += 1.0;
        }
        written
    }

    /// Writes what the sites since the last call go to.
    pub(super) fn write_slow(&mut self, drafts: &mut Drafts) {
        for (site, index, weight) in std::mem::take(&mut self.open) {
            let need = &self.needs[index];
            let runs = need.runs * weight / need.want;
            drafts.aim(site, drafts.next());
            let back = Ending::Jump(Label::Block(site + 1));
            match &need.what {
                What::SystemCall => {
                    let mut number = Fragment::default();
                    number.eax(index as u32);
                    drafts.push(Draft::of(number, Ending::SystemCall, runs));
                    drafts.push(Draft::of(Fragment::default(), back, runs));
                }
                What::Exit(code) => {
                    drafts.push(Draft::of(code.clone(), back, runs));
                }
            }
        }
    }
}
