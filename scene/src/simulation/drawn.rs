//! The timeline of a run: after each input it is told, and changes nothing.

use std::io::Write;

use vlbr_host::machine::Input;

use super::Simulation;
use crate::timeline::Watch;

impl<'s> Simulation<'s> {
    /// Draws the run as JSON trace events, which ui.perfetto.dev shows.
    pub fn set_timeline(&mut self, out: &'s mut dyn Write) {
        let mut names = Vec::new();
        for task in &self.tasks {
            let number = task.id.index();
            if names.len() <= number {
                names.resize(number + 1, String::new());
            }
            names[number] = match (task.vcpu, task.spec) {
                (Some(vcpu), _) => format!("thread of vcpu{vcpu}"),
                (None, Some(spec)) => self.scene.task[spec].name.clone(),
                (None, None) => String::new(),
            };
        }
        self.watch = Some(Box::new(Watch::new(out, self.scene, names)));
    }

    /// Draws what an input changed.
    pub(super) fn draw(&mut self, input: &Input) {
        let cpu = match input {
            Input::Switch(cpu, _) | Input::Rotate(cpu) | Input::DeepCState(cpu) => cpu.index(),
            Input::Run(vcpu)
            | Input::Leave(vcpu)
            | Input::Enter(vcpu, _)
            | Input::Exit(vcpu, ..)
            | Input::GuestRead(vcpu, ..)
            | Input::GuestWrite(vcpu, ..) => self.cpu_of(vcpu.index()),
            _ => 0,
        };
        self.draw_at(cpu, None);
    }

    /// Where a vCPU runs, or ran last. The first tasks are those of vCPUs.
    pub(super) fn cpu_of(&self, vcpu: usize) -> usize {
        let last = self.tasks.get(vcpu).and_then(|task| task.last);
        last.unwrap_or(0).into()
    }

    /// Draws what changed on a processor, whose time may be ahead of its clock.
    pub(super) fn draw_at(&mut self, cpu: usize, ahead: Option<u64>) {
        let Some(mut watch) = self.watch.take() else {
            return;
        };
        let mut now: Vec<_> = self.cpus.iter().map(|cpu| cpu.now).collect();
        if let (Some(ahead), Some(now)) = (ahead, now.get_mut(cpu)) {
            *now = ahead.max(*now);
        }
        let events = self.events.iter();
        let events = events.flat_map(|(n, ids)| ids.iter().map(|id| (*n, *id)));
        let events: Vec<_> = events.collect();
        watch.changed(&self.machine, cpu, &now, &events);
        self.watch = Some(watch);
    }

    /// Draws a PMI.
    pub(super) fn draw_pmi(&mut self, cpu: usize, now: u64, in_guest: bool, samples: usize) {
        if let Some(watch) = &mut self.watch {
            watch.pmi(cpu, now, in_guest, samples as u64);
        }
        self.draw_at(cpu, Some(now));
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
        name = "drawn"
        part = "skylake"
        cpus = 1
        mhz = 1000
        timing = "bound"
        duration-us = 20

        [[vm]]
        name = "a"

        [[vcpu]]
        vm = "a"
        loop = {}

        [[task]]
        name = "t"
        cpu = 0
        every-us = 100
        for-us = 50
        branch-every = 20

        [[event]]
        event = "cycles:u"
        task = "t"
        period = 200
    "#;

    #[test]
    fn a_pmi_in_a_task_is_drawn_before_what_its_handler_takes() {
        let scene = Scene::from_toml(SCENE).unwrap();
        let sources = [GuestSource::looped(scene.vcpu[0].looped.unwrap()).unwrap()];
        let time = SceneTime::of(&scene, &sources, CostModel::published()).unwrap();
        let policy = Arc::clone(&Catalog::builtin().named("none").unwrap());
        let mut out = Vec::new();
        let mut run = Simulation::new(&scene, &sources, &time, &policy, Checking::Off).unwrap();
        run.set_timeline(&mut out);
        while run.advance().unwrap() {}
        let samples = run.host_samples;
        let mut taken = 0;
        while run.host_samples == samples {
            run.host_ran(0, 20);
            taken = run.cpus[0].now;
            run.host_branch(0, 1, (20, false), 20).unwrap();
        }
        assert!(run.cpus[0].now > taken);
        drop(run);
        let text = String::from_utf8(out).unwrap();
        let last = text.lines().rfind(|line| line.contains("\"PMI\"")).unwrap();
        // A clock is a nanosecond.
        let at = format!("\"ts\":{}.{:03},", taken / 1000, taken % 1000);
        assert!(last.contains(&at), "{at} {last}");
    }
}
