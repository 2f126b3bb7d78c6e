//! A step of a guest retires.

use vlbr_arch::{Cycles, Transfer};
use vlbr_cpu::processor::Boundary;
use vlbr_cpu::{Exit, StepId, StepTime};
use vlbr_host::CpuId;
use vlbr_host::hardware::Running;
use vlbr_host::kvm::Place;
use vlbr_host::machine::{FastPath, Output};
use vlbr_pmu::Increments;

use super::Simulation;
use super::passing::add_clocks;
use crate::SceneError;

/// A step that retires.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retiring {
    pub(super) step: StepId,
    pub(super) time: StepTime,
    /// When it began.
    pub(super) began: u64,
    /// Its transfer comes after an exit.
    pub(super) interrupted: bool,
    /// A counter may overflow inside.
    pub(super) split: bool,
}

impl Simulation<'_> {
    /// A step, whole or, where a counter may overflow inside it, instruction by instruction. `true`:
    /// a PMI made the guest exit. An interrupt at its end comes after the exit that it makes.
    pub(super) fn retire(&mut self, cpu: CpuId, retiring: Retiring) -> Result<bool, SceneError> {
        let running = self.machine.host().hardware().cpu(cpu).running();
        let Running::Guest(vcpu) = running else {
            return Ok(true);
        };
        let Retiring { step, time, .. } = retiring;
        let n = vcpu.index();
        let code = self.vcpus[n].guest.code();
        let retired = code.step(step).retired;
        let transfer = code.transfer(step).filter(|_| !retiring.interrupted);
        let transfer = transfer.map(|transfer| Transfer {
            mispredicted: match code.step(step).exit {
                Exit::Event { .. } => transfer.mispredicted,
                _ => time.mispredicted,
            },
            ..*transfer
        });
        let end = time.end.value();
        // When it has come so far, with what PMIs inside the step took.
        let start = self.cpus[cpu.index()].now;
        let late = |run: &Self, at: u64| Cycles::new(at + run.cpus[cpu.index()].now - start);
        let mut fed = retiring.began;
        let feeds_clocks = self.vcpus[n].clock.feeds_clocks();
        let cpl = code.block(code.step(step).block).mode().cpl;
        let mut clocks = |sum: &mut Increments, at: u64| {
            if feeds_clocks {
                add_clocks(sum, cpl, at.saturating_sub(fed));
                fed = fed.max(at);
            }
        };
        if !retiring.split {
            let mut run = self.vcpus[n].feed.step(step, time.mispredicted);
            clocks(&mut run, end);
            return self.boundary(cpu, &run, transfer.as_ref(), late(self, end));
        }
        let mut past = Increments::new();
        let mut exited = false;
        for index in 0..retired {
            let sum = self.vcpus[n].feed.through(step, index, time.mispredicted);
            let last = index + 1 == retired;
            let at = match last {
                true => end,
                false => self.vcpus[n].clock.retired_at(index),
            };
            let mut run = sum.less(&past);
            past = sum;
            clocks(&mut run, at);
            let now = late(self, at);
            exited |= self.boundary(cpu, &run, transfer.as_ref().filter(|_| last), now)?;
            if exited && !last {
                // The rest of the block goes on in the guest.
                self.enter(vcpu, FastPath::No)?;
                exited = false;
            }
        }
        if retired == 0 && (transfer.is_some() || feeds_clocks) {
            let mut run = self.vcpus[n].feed.step(step, time.mispredicted);
            clocks(&mut run, end);
            let now = late(self, end);
            exited |= self.boundary(cpu, &run, transfer.as_ref(), now)?;
        }
        Ok(exited)
    }

    fn boundary(
        &mut self,
        cpu: CpuId,
        run: &Increments,
        transfer: Option<&vlbr_arch::Transfer>,
        now: Cycles,
    ) -> Result<bool, SceneError> {
        let output = self.machine.retire(cpu, Boundary { run, transfer, now })?;
        let Output::Pmi { running, samples } = output else {
            return Ok(false);
        };
        self.pmi_taken();
        self.host_took(&samples);
        if self.watch.is_some() {
            let in_guest = matches!(running, Running::Guest(_));
            self.draw_pmi(cpu.index(), now.value(), in_guest, samples.len());
        }
        let Running::Guest(vcpu) = running else {
            return Ok(false);
        };
        // On a processor of its own the guest takes its PMIs without an exit, but not the host's.
        let inside = self.machine.host().vcpu(vcpu).place == Place::Guest;
        if self.machine.policy().is_yardstick() && inside {
            self.guest_pmi(vcpu.index())?;
            return Ok(false);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vlbr_cpu::ledger::CostModel;
    use vlbr_host::machine::Checking;
    use vlbr_host::policy::Catalog;

    use super::*;
    use crate::{GuestSource, Scene, SceneTime};

    const SCENE: &str = r#"
        name = "step"
        part = "skylake"
        cpus = 1
        mhz = 1000
        timing = "scoreboard"
        duration-us = 20

        [[vm]]
        name = "a"

        [[vcpu]]
        vm = "a"
        loop = { length = 100 }

        [[event]]
        event = "instructions"
        cpu = 0
        period = 40
        exclude-host = true
    "#;

    #[test]
    fn what_retires_behind_a_pmi_inside_a_step_comes_behind_its_handler() {
        let scene = Scene::from_toml(SCENE).unwrap();
        let sources = [GuestSource::looped(scene.vcpu[0].looped.unwrap()).unwrap()];
        let time = SceneTime::of(&scene, &sources, CostModel::published()).unwrap();
        let policy = Arc::clone(&Catalog::builtin().named("none").unwrap());
        let mut run = Simulation::new(&scene, &sources, &time, &policy, Checking::Off).unwrap();
        while run.advance().unwrap() {}
        for _ in 0..10 {
            let (began, samples) = (run.cpus[0].now, run.host_samples);
            let state = &mut run.vcpus[0];
            let step = state.guest.step().unwrap().unwrap();
            state.clock.begin(began);
            let time = state.clock.retire(state.guest.code(), step);
            let retiring = Retiring {
                step,
                time,
                began,
                interrupted: false,
                split: true,
            };
            let exited = run.retire(CpuId(0), retiring).unwrap();
            let handlers = run.cpus[0].now - began;
            assert!(run.host_samples >= samples + 2 && handlers > 1000);
            let devices = run.machine.host().hardware().cpu(CpuId(0)).now();
            assert_eq!(devices.value(), time.end.value() + handlers);
            // What the caller does behind a step.
            run.cpus[0].now += time.end.value() - began;
            run.set_clock(0);
            if exited {
                run.enter(vlbr_host::VcpuId(0), FastPath::No).unwrap();
            }
        }
    }
}
