//! What happens at a time that is known before.

use std::collections::BTreeMap;

use vlbr_host::CpuId;
use vlbr_host::machine::Input;

use super::{Simulation, clocks};
use crate::{SceneError, TaskWhen};

/// Something that happens at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happening {
    /// A task becomes ready.
    Wake(usize),
    /// An event of the scene is opened.
    Open(usize),
    /// It is closed.
    Close(usize),
    /// perf's rotation timer.
    Rotate(u16),
    /// User space is asked to do something to a vCPU.
    Monitor(usize),
}

/// What happens, in the order of time and, at one time, of entry.
#[derive(Clone, Debug, Default)]
pub(super) struct Agenda {
    entries: BTreeMap<(u64, u64), Happening>,
    count: u64,
}

impl Agenda {
    pub(super) fn add(&mut self, at: u64, happening: Happening) {
        self.entries.insert((at, self.count), happening);
        self.count += 1;
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.entries.keys().next().map(|(at, _)| *at)
    }

    pub(super) fn take(&mut self) -> Option<(u64, Happening)> {
        self.entries.pop_first().map(|((at, _), what)| (at, what))
    }
}

impl Simulation<'_> {
    pub(super) fn happens(&mut self, at: u64, happening: Happening) -> Result<(), SceneError> {
        match happening {
            Happening::Wake(task) => self.wake(at, task),
            Happening::Open(event) => {
                self.all_catch_up(at);
                self.open_event(event)
            }
            Happening::Close(event) => {
                self.all_catch_up(at);
                for event in self.events.remove(&event).unwrap_or_default() {
                    self.apply(&Input::Close(event))?;
                }
                Ok(())
            }
            Happening::Monitor(request) => {
                self.ask(request);
                Ok(())
            }
            Happening::Rotate(cpu) => {
                self.catch_up(cpu.into(), at);
                self.apply(&Input::Rotate(CpuId(cpu)))?;
                let next = at + clocks(self.scene, self.scene.scheduling.rotation_us);
                self.agenda.add(next, Happening::Rotate(cpu));
                Ok(())
            }
        }
    }

    fn all_catch_up(&mut self, at: u64) {
        for cpu in 0..self.cpus.len() {
            self.catch_up(cpu, at);
        }
    }

    /// A task becomes ready. A host task that wakes runs at once, before vCPUs; a vCPU waits for
    /// its turn.
    fn wake(&mut self, at: u64, task: usize) -> Result<(), SceneError> {
        if let Some(spec) = self.tasks[task].spec {
            let spec = &self.scene.task[spec];
            let next = at + clocks(self.scene, spec.every_us);
            self.agenda.add(next, Happening::Wake(task));
            let running = self.cpus[usize::from(spec.cpu)].running;
            let beside = running.is_some_and(|task| self.tasks[task].vcpu.is_some());
            match spec.when {
                TaskWhen::VcpuRuns if !beside => return Ok(()),
                TaskWhen::NoVcpuRuns if beside => return Ok(()),
                _ => self.tasks[task].left = clocks(self.scene, spec.for_us),
            }
        }
        let chance = self.migrations(task);
        let cpu = self.place(task, chance);
        self.make_ready(cpu, at, task)
    }

    /// A task is ready on a processor.
    fn make_ready(&mut self, cpu: usize, at: u64, task: usize) -> Result<(), SceneError> {
        let idle = !self.has_work(cpu);
        let already = self.cpus[cpu].running == Some(task) || self.cpus[cpu].ready.contains(&task);
        if already {
            return Ok(());
        }
        if idle {
            self.catch_up(cpu, at);
        }
        let of_vcpu = self.tasks[task].vcpu.is_some();
        match self.cpus[cpu].running {
            Some(running) if !of_vcpu && self.tasks[running].vcpu.is_some() => {
                self.displace(cpu, running, task)
            }
            Some(_) if !of_vcpu => {
                let ready = &self.cpus[cpu].ready;
                let vcpu = ready.iter().position(|n| self.tasks[*n].vcpu.is_some());
                let place = vcpu.unwrap_or(ready.len());
                self.cpus[cpu].ready.insert(place, task);
                Ok(())
            }
            Some(_) => {
                self.cpus[cpu].ready.push_back(task);
                Ok(())
            }
            None => {
                self.cpus[cpu].ready.push_back(task);
                self.pick(cpu)
            }
        }
    }

    /// A task of the host takes the place of a vCPU that runs.
    fn displace(&mut self, cpu: usize, vcpu: usize, task: usize) -> Result<(), SceneError> {
        let now = self.cpus[cpu].now;
        self.tasks[vcpu].slice_left = self.cpus[cpu].slice_end.saturating_sub(now);
        match self.moves(cpu, vcpu) {
            None => {
                self.cpus[cpu].ready.push_front(vcpu);
                self.switch_to(cpu, Some(task))
            }
            Some(other) => {
                self.switch_to(cpu, Some(task))?;
                self.make_ready(other, now, vcpu)
            }
        }
    }

    /// The slice of a vCPU is over, and others wait.
    pub(super) fn make_way(&mut self, cpu: usize, task: usize) -> Result<(), SceneError> {
        match self.moves(cpu, task) {
            None => {
                self.cpus[cpu].ready.push_back(task);
                self.pick(cpu)
            }
            Some(other) => {
                let now = self.cpus[cpu].now;
                self.pick(cpu)?;
                self.make_ready(other, now, task)
            }
        }
    }

    /// Where a vCPU that must leave its processor goes on, if it is another one.
    fn moves(&mut self, cpu: usize, task: usize) -> Option<usize> {
        let vcpu = self.tasks[task].vcpu?;
        let chance = self.scene.vcpu[vcpu].preempted_migrations_per_million;
        let to = (chance != 0).then(|| self.place(task, chance))?;
        (to != cpu).then_some(to)
    }

    /// So many of a million wake-ups of a task take it to another processor.
    fn migrations(&self, task: usize) -> u32 {
        let vcpu = self.tasks[task].vcpu;
        let own = vcpu.and_then(|vcpu| self.scene.vcpu[vcpu].migrations_per_million);
        own.unwrap_or(self.scene.scheduling.migrations_per_million)
    }

    /// Where a task that is ready will run: where it ran last, unless it migrates; at first where
    /// the fewest wait.
    fn place(&mut self, task: usize, chance: u32) -> usize {
        let allowed = &self.tasks[task].cpus;
        let migrates = allowed.len() > 1 && self.random.per_million(chance);
        let last = self.tasks[task].last;
        if let Some(last) = last.filter(|_| !migrates) {
            return last.into();
        }
        let load = |cpu: &u16| {
            let state = &self.cpus[usize::from(*cpu)];
            (
                state.ready.len() + usize::from(state.running.is_some()),
                *cpu,
            )
        };
        let others = allowed.iter().filter(|cpu| Some(**cpu) != last);
        others.copied().min_by_key(load).unwrap_or(0).into()
    }
}
