//! Branches by site.

use std::collections::BTreeSet;

use rustc_hash::{FxHashMap, FxHashSet};
use vlbr_arch::BranchClass;
use vlbr_cpu::{Code, Exit, StepId};

use super::measure::Ring;

/// A branch of the code, with what it did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) conditional: bool,
    /// An indirect call, else an indirect jump, if `targets` has any.
    pub(super) call: bool,
    /// It goes to itself or backward.
    pub(super) backward: bool,
    pub(super) executions: u64,
    pub(super) taken: u64,
    /// Different targets of an indirect branch.
    pub(super) targets: u32,
}

#[derive(Clone, Debug, Default)]
struct Open {
    site: Site,
    targets: BTreeSet<u64>,
}

/// The sites of a ring. The kernel's are the same in every address space.
#[derive(Clone, Debug, Default)]
pub(super) struct Sites {
    sites: FxHashMap<(u32, u64), Open>,
    called: FxHashSet<(u32, u64)>,
}

impl Sites {
    /// Adds a step that retires a branch.
    pub(super) fn add(&mut self, code: &Code, id: StepId, count: u64, ring: &mut Ring) {
        let (step, block) = (code.step(id), code.block_of(id));
        let Some(branch) = block.branch() else {
            return;
        };
        let sum = match branch.class {
            BranchClass::Jcc => &mut ring.conditional,
            BranchClass::NearRelJmp => &mut ring.jump,
            BranchClass::NearIndJmp => &mut ring.indirect_jump,
            BranchClass::NearRelCall => &mut ring.call,
            BranchClass::NearIndCall => &mut ring.indirect_call,
            BranchClass::NearRelCallZero => &mut ring.zero_call,
            BranchClass::NearRet => &mut ring.returns,
            BranchClass::Far(_) => return,
        };
        *sum += count;
        ring.branches += count;
        let space = if code.is_user(id) {
            block.mode().space
        } else {
            0
        };
        let taken = match step.exit {
            Exit::Taken { target, .. } => Some(target.address),
            _ => None,
        };
        let call = matches!(
            branch.class,
            BranchClass::NearRelCall | BranchClass::NearIndCall
        );
        if let (true, Some(target)) = (call, taken) {
            self.called.insert((space, target));
        }
        let indirect = matches!(
            branch.class,
            BranchClass::NearIndJmp | BranchClass::NearIndCall
        );
        let conditional = branch.class == BranchClass::Jcc;
        if !conditional && !indirect {
            return;
        }
        let address = block.last_address();
        let open = self.sites.entry((space, address)).or_default();
        open.site.conditional = conditional;
        open.site.call = call;
        open.site.backward = branch.target.is_some_and(|target| target <= address);
        open.site.executions += count;
        if let Some(target) = taken {
            open.site.taken += count;
            if indirect {
                open.targets.insert(target);
            }
        }
    }

    /// Different addresses that are called.
    pub(super) fn functions(&self) -> u64 {
        self.called.len() as u64
    }

    /// All sites by address.
    pub(super) fn finish(self) -> Vec<Site> {
        let mut sites: Vec<_> = self.sites.into_iter().collect();
        sites.sort_unstable_by_key(|(key, _)| *key);
        let close = |(_, open): (_, Open)| Site {
            targets: open.targets.len() as u32,
            ..open.site
        };
        sites.into_iter().map(close).collect()
    }
}
