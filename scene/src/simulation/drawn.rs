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
            // Branches of a task; a PMI that they raise is drawn where it is taken.
            Input::Retire(..) => return,
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
