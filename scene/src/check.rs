//! What a scene must not say: names of nothing, impossible numbers.

use std::collections::BTreeSet;

use vlbr_host::perf::KernelVersion;

use crate::exit_names::exit_named;
use crate::{EventSpec, ExitSpec, MonitorAct, Scene, SceneError, TaskWhen, VcpuSpec};

/// Most reasons of exits that a vCPU names.
const MOST_EXITS: usize = 256;
/// Most accesses of a vCPU that a scene may list.
const MOST_ACCESSES: usize = 4096;
/// Longest time, in microseconds: eleven and a half days.
const LONGEST_US: u64 = 1_000_000_000_000;

impl Scene {
    pub(crate) fn check(&self) -> Result<(), SceneError> {
        let bad = |at: &str, reason: String| Err(SceneError::value(at, reason));
        if !(1..=1024).contains(&self.cpus) {
            return bad("cpus", format!("{} is not from 1 to 1024", self.cpus));
        }
        if !(self.ipc.is_finite() && self.ipc > 0.0 && self.ipc <= 100.0) {
            return bad("ipc", format!("{} is not above 0 and up to 100", self.ipc));
        }
        if !(1..=100_000).contains(&self.mhz) {
            return bad("mhz", format!("{} is not from 1 to 100000", self.mhz));
        }
        if let Err(error) = vlbr_lbr::Profile::named(&self.part) {
            return bad("part", error.to_string());
        }
        let version = self
            .kernel
            .as_ref()
            .map(|text| text.parse::<KernelVersion>());
        if let Some(Err(error)) = version {
            return bad("kernel", error.to_string());
        }
        self.check_times()?;
        self.check_timing()?;
        if self.duration_us == Some(0) {
            return bad("duration-us", "is 0".to_owned());
        }
        if self.scheduling.slice_us == 0 {
            return bad("scheduling.slice-us", "is 0".to_owned());
        }
        if self.scheduling.migrations_per_million > 1_000_000 {
            let reason = "more than a million in a million".to_owned();
            return bad("scheduling.migrations-per-million", reason);
        }
        if self.scheduling.halt_us == 0 {
            return bad("scheduling.halt-us", "is 0".to_owned());
        }
        if self.vm.len() > 1024 || self.vcpu.len() > 4096 {
            return bad("vm", "more than 1024 VMs or 4096 vCPUs".to_owned());
        }
        let mut names = BTreeSet::new();
        for (n, vm) in self.vm.iter().enumerate() {
            if !names.insert(&vm.name) {
                return bad(
                    &format!("vm[{n}].name"),
                    format!("{:?} is there twice", vm.name),
                );
            }
            if vm.guest.counters > 8 || vm.guest.fixed_counters > 4 || vm.guest.pmu_version > 5 {
                let at = format!("vm[{n}].guest");
                return bad(
                    &at,
                    "more than 8 counters, 4 fixed ones or version 5".to_owned(),
                );
            }
        }
        for (n, vcpu) in self.vcpu.iter().enumerate() {
            self.check_vcpu(n, vcpu, &names)?;
        }
        for (n, task) in self.task.iter().enumerate() {
            if task.cpu >= self.cpus {
                let at = format!("task[{n}].cpu");
                return bad(&at, format!("there is no cpu{}", task.cpu));
            }
            // A task that waits for a vCPU to run leaves out the times at which it still runs.
            let longer = task.every_us < task.for_us && task.when != TaskWhen::VcpuRuns;
            if task.for_us == 0 || task.every_us == 0 || longer {
                let at = format!("task[{n}].for-us");
                return bad(&at, "is 0, or more than every-us".to_owned());
            }
        }
        for (n, event) in self.event.iter().enumerate() {
            self.check_event(n, event)?;
        }
        for (n, monitor) in self.monitor.iter().enumerate() {
            if monitor.vcpu >= self.vcpu.len() {
                let at = format!("monitor[{n}].vcpu");
                return bad(&at, format!("there is no vCPU {}", monitor.vcpu));
            }
            self.check_monitor(n)?;
        }
        if self.duration_us.is_none() && self.vcpu.iter().all(|vcpu| vcpu.is_endless()) {
            return bad(
                "duration-us",
                "is needed: no vCPU of the scene ends by itself".to_owned(),
            );
        }
        Ok(())
    }

    /// What is written to a vCPU was read of it before.
    fn check_monitor(&self, n: usize) -> Result<(), SceneError> {
        let monitor = &self.monitor[n];
        if self.duration_us.is_some_and(|end| monitor.at_us >= end) {
            let at = format!("monitor[{n}].at-us");
            return Err(SceneError::value(at, "is not before the scene's end"));
        }
        let mut others = self.monitor.iter();
        let read = others.any(|other| {
            let read = other.does != MonitorAct::SetMsrs;
            read && other.vcpu == monitor.vcpu && other.at_us <= monitor.at_us
        });
        if monitor.does == MonitorAct::SetMsrs && !read {
            let at = format!("monitor[{n}].does");
            let reason = format!("no get-msrs of vCPU {} comes before", monitor.vcpu);
            return Err(SceneError::value(at, reason));
        }
        Ok(())
    }

    /// No time is so long that its clocks could not be counted.
    fn check_times(&self) -> Result<(), SceneError> {
        let scheduling = &self.scheduling;
        let mut times = vec![
            ("duration-us".to_owned(), self.duration_us.unwrap_or(0)),
            ("scheduling.slice-us".to_owned(), scheduling.slice_us),
            ("scheduling.rotation-us".to_owned(), scheduling.rotation_us),
            ("scheduling.halt-us".to_owned(), scheduling.halt_us),
        ];
        for (n, task) in self.task.iter().enumerate() {
            times.push((format!("task[{n}].from-us"), task.from_us));
            times.push((format!("task[{n}].every-us"), task.every_us));
            times.push((format!("task[{n}].for-us"), task.for_us));
        }
        for (n, monitor) in self.monitor.iter().enumerate() {
            times.push((format!("monitor[{n}].at-us"), monitor.at_us));
        }
        for (n, event) in self.event.iter().enumerate() {
            times.push((format!("event[{n}].from-us"), event.from_us));
            times.push((format!("event[{n}].until-us"), event.until_us.unwrap_or(0)));
        }
        match times.into_iter().find(|(_, us)| *us > LONGEST_US) {
            None => Ok(()),
            Some((at, us)) => Err(SceneError::value(
                at,
                format!("{us} is more than {LONGEST_US} microseconds"),
            )),
        }
    }

    fn check_vcpu(
        &self,
        n: usize,
        vcpu: &VcpuSpec,
        names: &BTreeSet<&String>,
    ) -> Result<(), SceneError> {
        let bad =
            |key: &str, reason: String| Err(SceneError::value(format!("vcpu[{n}].{key}"), reason));
        if !names.contains(&vcpu.vm) {
            return bad("vm", format!("there is no VM {:?}", vcpu.vm));
        }
        if vcpu.trace.is_some() == vcpu.looped.is_some() {
            return bad("trace", "either trace or loop is given".to_owned());
        }
        if let Some(looped) = vcpu.looped
            && (looped.length < 2 || looped.length > 100 || looped.branches == 0)
        {
            return bad(
                "loop",
                "length goes from 2 to 100, branches from 1 on".to_owned(),
            );
        }
        if vcpu.instructions == Some(0) {
            return bad("instructions", "is 0".to_owned());
        }
        if let Some(cpu) = vcpu.cpus.iter().find(|cpu| **cpu >= self.cpus) {
            return bad("cpus", format!("there is no cpu{cpu}"));
        }
        let mut seen = BTreeSet::new();
        if let Some(cpu) = vcpu.cpus.iter().find(|cpu| !seen.insert(**cpu)) {
            return bad("cpus", format!("cpu{cpu} is there twice"));
        }
        if vcpu.access.len() > MOST_ACCESSES {
            return bad("access", format!("more than {MOST_ACCESSES}"));
        }
        for (i, access) in vcpu.access.iter().enumerate() {
            if let Err(error) = access.msr() {
                return bad(&format!("access[{i}].msr"), error.to_string());
            }
            if access.every == Some(0) {
                return bad(&format!("access[{i}].every"), "is 0".to_owned());
            }
        }
        let rates = vcpu.exits.rates();
        if rates.iter().any(|(_, rate)| *rate > 500_000) {
            return bad(
                "exits",
                "more than 500000 in a million instructions".to_owned(),
            );
        }
        let chances = [
            vcpu.exits.fast_path_per_million,
            vcpu.exits.user_space_per_million,
        ];
        if chances.iter().any(|chance| *chance > 1_000_000) {
            return bad("exits", "more than a million in a million".to_owned());
        }
        if vcpu.exit.len() > MOST_EXITS {
            return bad("exit", format!("more than {MOST_EXITS}"));
        }
        let moves = [
            vcpu.migrations_per_million.unwrap_or(0),
            vcpu.preempted_migrations_per_million,
        ];
        if moves.iter().any(|chance| *chance > 1_000_000) {
            let reason = "more than a million in a million".to_owned();
            return bad("migrations-per-million", reason);
        }
        let mut exits = vcpu.exit.iter().enumerate();
        exits.try_for_each(|(at, exit)| {
            exit.check().map_err(|(key, reason)| {
                SceneError::value(format!("vcpu[{n}].exit[{at}].{key}"), reason)
            })
        })
    }

    fn check_event(&self, n: usize, event: &EventSpec) -> Result<(), SceneError> {
        let bad =
            |key: &str, reason: String| Err(SceneError::value(format!("event[{n}].{key}"), reason));
        let targets = [
            event.cpu.is_some() && event.task.is_none() && event.vcpu.is_none(),
            event.all_cpus,
            event.task.is_some(),
            event.vcpu.is_some(),
        ];
        if targets.iter().filter(|given| **given).count() != 1 {
            return bad(
                "cpu",
                "one of cpu, all-cpus, task and vcpu is given; cpu may stand beside the last two"
                    .to_owned(),
            );
        }
        if let Some(cpu) = event.cpu.filter(|cpu| *cpu >= self.cpus) {
            return bad("cpu", format!("there is no cpu{cpu}"));
        }
        if let Some(task) = &event.task
            && !self.task.iter().any(|known| known.name == *task)
        {
            return bad("task", format!("there is no task {task:?}"));
        }
        if let Some(vcpu) = event.vcpu.filter(|vcpu| *vcpu >= self.vcpu.len()) {
            return bad("vcpu", format!("there is no vCPU {vcpu}"));
        }
        if event.until_us.is_some_and(|until| until <= event.from_us) {
            return bad("until-us", "is not after from-us".to_owned());
        }
        if event.branch_filter.is_some() && event.period == 0 {
            return bad(
                "period",
                "is 0, and only samples have a branch stack".to_owned(),
            );
        }
        Ok(())
    }
}

impl ExitSpec {
    /// What is wrong, and which key has it.
    fn check(&self) -> Result<(), (&'static str, String)> {
        if exit_named(&self.reason).is_none() {
            let reason = format!("{:?} is no exit of VMX as Linux names it", self.reason);
            return Err(("reason", reason));
        }
        if !(self.per_million > 0.0 && self.per_million <= 500_000.0) {
            let reason = format!("{} is not above 0 and up to 500000", self.per_million);
            return Err(("per-million", reason));
        }
        let chances = [
            ("fast-path-per-million", self.fast_path_per_million),
            ("user-space-per-million", self.user_space_per_million),
            ("sleeps-per-million", self.sleeps_per_million),
        ];
        match chances.iter().find(|(_, chance)| *chance > 1_000_000) {
            Some((key, _)) => Err((key, "more than a million in a million".to_owned())),
            None if self.sleep_us.is_some_and(|us| us == 0 || us > LONGEST_US) => {
                Err(("sleep-us", format!("is not from 1 to {LONGEST_US}")))
            }
            None => Ok(()),
        }
    }
}
