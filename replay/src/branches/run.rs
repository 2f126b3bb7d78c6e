//! A predictor over a trace.

use std::ops::ControlFlow;

use vlbr_timing::predict::{Predictor, PredictorConfig};

use super::account::Account;
use super::error::{BranchError, MAX_BYTES};
use super::input::BranchInput;
use super::report::BranchReport;
use super::walk::{Sites, walk};

/// What to run, and what of it to count.
#[derive(Clone, Debug)]
pub struct BranchOptions {
    /// The predictor.
    pub predictor: PredictorConfig,
    /// One predictor for all threads, as if they ran on one processor in the order of the trace; else
    /// each thread or vCPU has its own.
    pub shared: bool,
    /// Instructions of each thread, from its first one in the region on, that the predictor learns from but
    /// that are not counted. What a step retires is counted whole or not at all.
    pub warmup: u64,
    /// Most instructions that are counted.
    pub limit: Option<u64>,
    /// Branches in the list of the worst.
    pub worst: usize,
}

/// Runs the branches of `input` through predictors.
///
/// # Errors
/// A configuration that makes no predictor, an input that is damaged or cannot be read.
pub fn branches(
    input: &BranchInput<'_>,
    options: &BranchOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<BranchReport, BranchError> {
    let new = Predictor::try_new(&options.predictor)?;
    let threads = match input {
        BranchInput::Trace(trace, _) => trace.threads().len(),
        BranchInput::Cbp(_) => 1,
    };
    // Made when a thread first runs: a trace may have many that do not.
    let mut predictors: Vec<Option<Box<Predictor>>> = vec![None; threads];
    let bytes = options.predictor.bytes();
    let mut made = 0_u64;
    let mut sites = Sites::default();
    let mut account = Account::default();
    let mut warmed = vec![0_u64; threads];
    if options.limit == Some(0) {
        return BranchReport::new(input, options, 0, &account, &sites);
    }
    walk(input, &mut sites, progress, |retired, at| {
        let slot = if options.shared { 0 } else { at.thread };
        let prediction = match &retired.branch {
            None => None,
            Some(branch) => {
                let predictor = match &mut predictors[slot] {
                    Some(predictor) => predictor,
                    none => {
                        made += 1;
                        if made * bytes > MAX_BYTES {
                            let threads = made;
                            return Err(BranchError::Threads { threads, bytes });
                        }
                        none.insert(Box::new(new.clone()))
                    }
                };
                Some(predictor.predict_and_update(branch))
            }
        };
        let warmed = &mut warmed[at.thread];
        if *warmed < options.warmup {
            *warmed += u64::from(retired.instructions);
        } else {
            account.add(retired, prediction, at);
            if options
                .limit
                .is_some_and(|limit| account.instructions >= limit)
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    BranchReport::new(input, options, warmed.iter().sum(), &account, &sites)
}
