//! What the run shows.

use serde::Serialize;
use vlbr_timing::predict::{BranchKind, PredictorConfig};

use super::account::{Account, Tally};
use super::error::BranchError;
use super::input::BranchInput;
use super::run::BranchOptions;
use super::walk::Sites;
use crate::names::Names;
use crate::report::words;

/// How a predictor did on a trace.
#[derive(Clone, Debug, Serialize)]
pub struct BranchReport {
    /// What was recorded: the command line, or the file's name.
    pub command: String,
    /// The predictor, whole.
    pub predictor: PredictorConfig,
    /// Whether all threads had one predictor.
    pub shared: bool,
    /// Instructions that were learned from but not counted.
    pub warmup: u64,
    /// Instructions that were counted.
    pub instructions: u64,
    /// Near branches of every kind.
    pub total: KindCount,
    /// Near branches by kind.
    pub kinds: Vec<KindCount>,
    /// Far transfers, which are not predicted.
    pub far: u64,
    /// Places of branches that were counted.
    pub places: usize,
    /// Those with the most mispredictions, the worst first.
    pub worst: Vec<WorstBranch>,
    /// Mispredictions of branches that had no place left in the table of places.
    pub unplaced: u64,
    /// Damage of the trace, if it was salvaged: what follows it is not counted.
    pub damage: Option<String>,
}

/// How branches of a kind were predicted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KindCount {
    /// Its name.
    pub kind: &'static str,
    /// Branches.
    pub branches: u64,
    /// Those taken.
    pub taken: u64,
    /// Those mispredicted, in direction or target.
    pub mispredicted: u64,
    /// Share of the branches that was mispredicted; `None`: there are none.
    pub rate: Option<f64>,
    /// Mispredictions in 1,000 instructions; `None`: there are none.
    pub mpki: Option<f64>,
    /// Branches taken that the branch target buffer did not hold with their target.
    pub btb_missed: u64,
}

/// A branch that is often mispredicted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorstBranch {
    /// Address.
    pub address: u64,
    /// The address by its symbol, where one is known.
    pub symbol: String,
    /// Name of its kind.
    pub kind: &'static str,
    /// Times it retired.
    pub branches: u64,
    /// Times taken.
    pub taken: u64,
    /// Times mispredicted.
    pub mispredicted: u64,
    /// Share of its times.
    pub rate: f64,
    /// Share of all mispredictions.
    pub share: f64,
}

/// How a kind is called.
fn name(kind: BranchKind) -> &'static str {
    match kind {
        BranchKind::Conditional => "conditional",
        BranchKind::Jump => "jump",
        BranchKind::Call => "call",
        BranchKind::IndirectJump => "indirect jump",
        BranchKind::IndirectCall => "indirect call",
        BranchKind::Return => "return",
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl KindCount {
    fn new(kind: &'static str, tally: &Tally, instructions: u64) -> Self {
        Self {
            kind,
            branches: tally.branches,
            taken: tally.taken,
            mispredicted: tally.mispredicted,
            rate: ratio(tally.mispredicted, tally.branches),
            mpki: ratio(tally.mispredicted, instructions).map(|share| share * 1000.0),
            btb_missed: tally.btb_missed,
        }
    }
}

impl BranchReport {
    pub(crate) fn new(
        input: &BranchInput<'_>,
        options: &BranchOptions,
        warmup: u64,
        account: &Account,
        sites: &Sites,
    ) -> Result<Self, BranchError> {
        let trace = match input {
            BranchInput::Trace(trace, _) => Some(*trace),
            BranchInput::Cbp(_) => None,
        };
        let names = trace.map(Names::new).transpose()?;
        let total = Tally::sum(&account.kinds);
        let counted = account.places.iter().zip(&sites.all);
        let mut places: Vec<_> = counted
            .filter(|((tally, _), _)| tally.branches > 0)
            .collect();
        places.sort_by_key(|((tally, _), site)| {
            (
                std::cmp::Reverse(tally.mispredicted),
                site.address,
                site.space,
            )
        });
        let placed: u64 = places
            .iter()
            .map(|((tally, _), _)| tally.mispredicted)
            .sum();
        let worst = places.iter().take(options.worst);
        let worst = worst.filter(|((tally, _), _)| tally.mispredicted > 0);
        let worst = worst.map(|((tally, moment), site)| WorstBranch {
            address: site.address,
            symbol: match &names {
                Some(names) => names.describe(*moment, site.address),
                None => format!("{:#x}", site.address),
            },
            kind: name(site.kind),
            branches: tally.branches,
            taken: tally.taken,
            mispredicted: tally.mispredicted,
            rate: ratio(tally.mispredicted, tally.branches).unwrap_or_default(),
            share: ratio(tally.mispredicted, total.mispredicted).unwrap_or_default(),
        });
        let kinds = BranchKind::ALL.iter().zip(&account.kinds);
        Ok(Self {
            command: match input {
                BranchInput::Trace(trace, _) => words(&trace.meta().command_line),
                BranchInput::Cbp(path) => path.display().to_string(),
            },
            predictor: options.predictor.clone(),
            shared: options.shared,
            warmup,
            instructions: account.instructions,
            total: KindCount::new("all", &total, account.instructions),
            kinds: kinds
                .map(|(kind, tally)| KindCount::new(name(*kind), tally, account.instructions))
                .collect(),
            far: account.far,
            places: places.len(),
            worst: worst.collect(),
            unplaced: total.mispredicted - placed,
            damage: trace.and_then(|trace| trace.damage().map(ToString::to_string)),
        })
    }
}
