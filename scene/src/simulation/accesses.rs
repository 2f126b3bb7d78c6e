//! Accesses of a guest that the scene lists.

use vlbr_arch::Msr;
use vlbr_host::VcpuId;
use vlbr_host::kvm::Access;
use vlbr_host::machine::Host;

use super::{Simulation, VcpuState};
use crate::{SceneError, VcpuSpec};

/// An access and when it comes next.
#[derive(Clone, Copy, Debug)]
pub(super) struct DueAccess {
    /// Instructions of the guest before it.
    at: u64,
    every: Option<u64>,
    msr: Msr,
    write: Option<u64>,
}

/// Those of vCPU `n`.
pub(super) fn of(n: usize, spec: &VcpuSpec) -> Result<Vec<DueAccess>, SceneError> {
    let accesses = spec.access.iter().enumerate().map(|(i, access)| {
        let bad = |error: vlbr_arch::UnknownMsr| {
            SceneError::value(format!("vcpu[{n}].access[{i}].msr"), error.to_string())
        };
        Ok(DueAccess {
            at: access.at,
            every: access.every,
            msr: access.msr().map_err(bad)?,
            write: access.write,
        })
    });
    accesses.collect()
}

impl VcpuState<'_> {
    /// When the next exit or access of the scene is due.
    pub(super) fn find_next(&mut self) {
        let accesses = self.accesses.iter().map(|access| access.at);
        let all = self.due.iter().copied().chain(accesses);
        self.next_exit = all.min().unwrap_or(u64::MAX);
    }
}

impl Simulation<'_> {
    /// Makes the accesses that are due, those of one count in the order of the file. False: none
    /// was.
    pub(super) fn due_access(&mut self, vcpu: usize) -> Result<bool, SceneError> {
        let id = VcpuId(vcpu as u16);
        let now = self.vcpus[vcpu].tally.instructions;
        let mut made = false;
        for n in 0..self.vcpus[vcpu].accesses.len() {
            let due = &mut self.vcpus[vcpu].accesses[n];
            if due.at > now {
                continue;
            }
            // What a long step ran past is not made up for.
            due.at = match due.every {
                None => u64::MAX,
                Some(every) => due.at.saturating_add(every).max(now + 1),
            };
            let access = match due.write {
                Some(value) => Access::write(due.msr, Host::guests(id, value)),
                None => Access::read(due.msr),
            };
            self.access(vcpu, access)?;
            made = true;
        }
        self.vcpus[vcpu].find_next();
        Ok(made)
    }
}
