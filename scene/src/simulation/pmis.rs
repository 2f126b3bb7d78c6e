//! PMIs that KVM delivers to a guest with a session, wherever the host entered it.

use vlbr_host::VcpuId;
use vlbr_host::kvm::Note;

use super::Simulation;
use crate::SceneError;

impl Simulation<'_> {
    /// The guest, which is entered, runs its handler for PMIs that KVM has delivered since it last
    /// looked: also at entries that the host made by itself, behind an interrupt or an MSR access.
    /// What comes while the handler runs waits until it has ended, as NMIs do.
    pub(super) fn take_pmis(&mut self, vcpu: usize) -> Result<(), SceneError> {
        if self.vcpus[vcpu].perf.is_none() || self.vcpus[vcpu].handles_pmi {
            return Ok(());
        }
        let id = VcpuId(vcpu as u16);
        loop {
            let journal = self.machine.host().journal();
            let delivered = journal.count(id, Note::VirtualPmi);
            if delivered == self.vcpus[vcpu].pmis {
                return Ok(());
            }
            self.vcpus[vcpu].pmis = delivered;
            self.vcpus[vcpu].handles_pmi = true;
            let handled = self.guest_pmi(vcpu);
            self.vcpus[vcpu].handles_pmi = false;
            handled?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vlbr_host::CpuId;
    use vlbr_host::kvm::Place;
    use vlbr_host::machine::{Checking, Input};
    use vlbr_host::policy::Catalog;

    use super::*;
    use crate::{GuestSource, Scene, SceneTime};

    const SCENE: &str = r#"
        name = "pmis"
        part = "skylake"
        cpus = 1
        duration-us = 50

        [[vm]]
        name = "a"

        [[vcpu]]
        vm = "a"
        loop = {}
        guest-perf = "branches:100000"
    "#;

    /// A guest that runs, with a PMI of its counter 0 requested and not yet delivered.
    fn with_request<'s>(scene: &'s Scene, sources: &'s [GuestSource]) -> Simulation<'s> {
        let policy = Catalog::builtin().named("upstream@6.6").unwrap();
        let policy = Arc::clone(&policy);
        let mut simulation =
            Simulation::new(scene, sources, &SceneTime::Nominal, &policy, Checking::On).unwrap();
        while simulation.vcpus[0].tally.instructions == 0 {
            assert!(simulation.advance().unwrap());
        }
        let id = VcpuId(0);
        assert_eq!(simulation.machine.host().vcpu(id).place, Place::Guest);
        let vcpu = simulation.machine.host_mut().vcpu_mut(id);
        vcpu.pmu.global_status |= 1;
        vcpu.requests.pmi = true;
        simulation
    }

    #[test]
    fn a_pmi_is_taken_when_the_host_enters_the_guest_again_by_itself() {
        let scene = Scene::from_toml(SCENE).unwrap();
        let sources = [GuestSource::looped(scene.vcpu[0].looped.unwrap()).unwrap()];
        let mut simulation = with_request(&scene, &sources);
        // perf's timer: the guest exits for it and is entered again inside the input.
        simulation.apply(&Input::Rotate(CpuId(0))).unwrap();
        let journal = simulation.machine.host().journal();
        assert_eq!(journal.count(VcpuId(0), Note::VirtualPmi), 1);
        assert_eq!(simulation.vcpus[0].tally.samples, 0);
        simulation.run_vcpu(0, 0, 0).unwrap();
        assert_eq!(simulation.vcpus[0].tally.samples, 1);
    }

    #[test]
    fn a_pmi_behind_an_msr_access_waits_for_the_handler_that_makes_it() {
        let scene = Scene::from_toml(SCENE).unwrap();
        let sources = [GuestSource::looped(scene.vcpu[0].looped.unwrap()).unwrap()];
        let mut simulation = with_request(&scene, &sources);
        // The handler's first access exits, and the entry behind it delivers the second PMI.
        simulation.vcpus[0].handles_pmi = true;
        simulation.guest_pmi(0).unwrap();
        assert_eq!(simulation.vcpus[0].tally.samples, 1);
        simulation.vcpus[0].handles_pmi = false;
        let handled = simulation.vcpus[0].tally.pmu_accesses;
        simulation.take_pmis(0).unwrap();
        // It finds nothing: the status was acknowledged. Linux calls it spurious.
        assert_eq!(simulation.vcpus[0].tally.samples, 1);
        assert!(simulation.vcpus[0].tally.pmu_accesses > handled);
        simulation.take_pmis(0).unwrap();
        let after = simulation.vcpus[0].tally.pmu_accesses;
        simulation.take_pmis(0).unwrap();
        assert_eq!(simulation.vcpus[0].tally.pmu_accesses, after);
    }
}
