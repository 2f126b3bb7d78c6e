//! What retires, step by step, as a predictor needs it.

use std::ops::ControlFlow;

use rustc_hash::FxHashMap;
use vlbr_cpu::{Code, Exit, StepId};
use vlbr_timing::predict::{Branch, BranchKind};
use vlbr_traces::cbp::Class;
use vlbr_traces::vlt::ChunkBuffer;

use super::error::BranchError;
use super::input::{BranchInput, open};
use crate::names::Moment;

/// Most places of branches that are counted by themselves.
const MAX_SITES: usize = 1 << 22;

/// What a step retires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retired {
    /// Instructions, the branch among them.
    pub(crate) instructions: u32,
    /// Address of the first one.
    pub(crate) start: u64,
    /// The near branch at the end, if its outcome is known.
    pub(crate) branch: Option<Branch>,
    /// A far transfer ends it.
    pub(crate) far: bool,
    /// Number of the branch's place, if there is one and it is counted by itself.
    pub(crate) site: Option<u32>,
}

/// Where it retires.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Where {
    /// Index of the thread.
    pub(crate) thread: usize,
    pub(crate) moment: Moment,
}

/// A place of branches: an address of an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Site {
    pub(crate) space: u32,
    pub(crate) address: u64,
    pub(crate) kind: BranchKind,
}

/// The places there are, by number.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    pub(crate) all: Vec<Site>,
    numbers: FxHashMap<Site, u32>,
}

impl Sites {
    fn number(&mut self, site: Site) -> Option<u32> {
        let next = self.all.len();
        match self.numbers.get(&site) {
            Some(number) => Some(*number),
            None if next == MAX_SITES => None,
            None => {
                self.all.push(site);
                self.numbers.insert(site, next as u32);
                Some(next as u32)
            }
        }
    }
}

/// Goes through `input` in the order of the file. `each` says whether to go on.
pub(crate) fn walk(
    input: &BranchInput<'_>,
    sites: &mut Sites,
    progress: &mut dyn FnMut(u64),
    mut each: impl FnMut(&Retired, Where) -> Result<ControlFlow<()>, BranchError>,
) -> Result<(), BranchError> {
    match input {
        BranchInput::Trace(trace, region) => {
            let steps = (0..trace.code().steps().len() as u32)
                .map(|step| retired(trace.code(), StepId(step), sites))
                .collect::<Vec<_>>();
            let mut buffer = ChunkBuffer::default();
            let mut local = Vec::new();
            let mut done = 0;
            for index in region.chunks(trace.chunks().len()) {
                let at = Where {
                    thread: trace.chunks()[index].thread.0 as usize,
                    moment: Moment::of_chunk(trace, index),
                };
                let chunk = trace.decode(index, &mut buffer)?;
                let (start, end) = region.steps(index, chunk.ids.len());
                let ids = chunk.ids.slice(start, end);
                local.clear();
                local.extend(chunk.map.iter().map(|step| steps[step.0 as usize]));
                for position in 0..ids.len() {
                    if each(&local[ids.local(position)], at)?.is_break() {
                        return Ok(());
                    }
                }
                done += trace.chunks()[index].counts.instructions.total();
                progress(done);
            }
            Ok(())
        }
        BranchInput::Cbp(path) => {
            let about = |source| BranchError::Cbp {
                path: path.clone(),
                source,
            };
            let mut reader = open(path)?;
            let at = Where {
                thread: 0,
                moment: Moment::default(),
            };
            let mut done = 0;
            while let Some(instruction) = reader.next_instruction().map_err(about)? {
                let address = instruction.address;
                let branch = kind_of_class(instruction.class).map(|kind| Branch {
                    address,
                    // Arm64: every instruction has four bytes.
                    fallthrough: address.wrapping_add(4),
                    kind,
                    taken: instruction.target.is_some(),
                    target: instruction.target.unwrap_or_default(),
                });
                let site = branch.and_then(|branch| {
                    sites.number(Site {
                        space: 0,
                        address,
                        kind: branch.kind,
                    })
                });
                let retired = Retired {
                    instructions: 1,
                    start: address,
                    branch,
                    far: false,
                    site,
                };
                if each(&retired, at)?.is_break() {
                    return Ok(());
                }
                done += 1;
                if done % (1 << 16) == 0 {
                    progress(done);
                }
            }
            Ok(())
        }
    }
}

/// What `step` retires.
fn retired(code: &Code, step: StepId, sites: &mut Sites) -> Retired {
    let what = code.step(step);
    let block = code.block_of(step);
    let mode = block.mode();
    let linear = |effective: u64| mode.cs_base.wrapping_add(effective);
    let instruction = block
        .branch()
        .filter(|_| what.retired == block.instructions());
    let mut retired = Retired {
        instructions: what.retired.into(),
        start: linear(block.address()),
        branch: None,
        far: matches!(what.exit, Exit::Event { .. }),
        site: None,
    };
    let Some(instruction) = instruction else {
        return retired;
    };
    let target = match what.exit {
        Exit::Taken { target, .. } => Some(target.cs_base.wrapping_add(target.address)),
        // Control went on behind it, or an event took over there.
        Exit::Sequential | Exit::Event { .. } => None,
        Exit::Gap => return retired,
    };
    let Some(kind) = BranchKind::of(instruction.class) else {
        retired.far |= target.is_some();
        return retired;
    };
    if target.is_none() && kind != BranchKind::Conditional {
        return retired;
    }
    let address = linear(block.last_address());
    retired.branch = Some(Branch {
        address,
        fallthrough: linear(block.address_of(block.instructions())),
        kind,
        taken: target.is_some(),
        target: target.unwrap_or_default(),
    });
    retired.site = sites.number(Site {
        space: mode.space,
        address,
        kind,
    });
    retired
}

fn kind_of_class(class: Class) -> Option<BranchKind> {
    Some(match class {
        Class::Conditional => BranchKind::Conditional,
        Class::Jump => BranchKind::Jump,
        Class::IndirectJump => BranchKind::IndirectJump,
        Class::Call => BranchKind::Call,
        Class::IndirectCall => BranchKind::IndirectCall,
        Class::Return => BranchKind::Return,
        _ => return None,
    })
}
