//! A vCPU in its guest.

use vlbr_arch::{Cpl, FarKind, Msr};
use vlbr_cpu::{Clock, Exit, ExitInstruction, Feed, StepId};
use vlbr_host::kvm::{Access, ExitLevel, Operation, Place};
use vlbr_host::machine::{ExitCause, FastPath, GuestMsrAccess, Host, Input, Output};
use vlbr_host::{CpuId, Owner, VcpuId};
use vlbr_pmu::SourceSet;
use vlbr_traces::vlt::MachineAccess;

use super::Simulation;
use super::exit_kind::{ExitKind, Handling};
use super::happenings::Happening;
use super::step::Retiring;
use crate::SceneError;
use crate::guest::GuestSource;
use crate::session::{GuestMsrs, GuestValue};

/// What the instructions of a guest make counters count.
pub(super) fn sources(source: &GuestSource, clock: Clock) -> SourceSet {
    Feed::sources(source.code(), clock)
}

/// Whether KVM makes the instruction exit, beside those that always do.
const fn exits_under_kvm(instruction: ExitInstruction) -> bool {
    use ExitInstruction as E;
    matches!(
        instruction,
        E::Hlt
            | E::In
            | E::Ins
            | E::Out
            | E::Outs
            | E::Monitor
            | E::Mwait
            | E::Rdmsr
            | E::Wrmsr
            | E::Wrmsrns
            | E::Rdpmc
            | E::Wbinvd
            | E::Wbnoinvd
            | E::Vmread
            | E::Vmwrite
    )
}

impl Simulation<'_> {
    /// Runs a vCPU up to a time, or until its thread sleeps.
    pub(super) fn run_vcpu(
        &mut self,
        cpu: usize,
        vcpu: usize,
        until: u64,
    ) -> Result<(), SceneError> {
        let id = VcpuId(vcpu as u16);
        let came = self.cpus[cpu].now;
        let (mut until, mut comes) = (until, true);
        loop {
            if !self.vcpus[vcpu].asked.is_empty() {
                self.serve_monitor(cpu, vcpu)?;
            }
            match self.machine.host().vcpu(id).place {
                Place::UserSpace => {
                    if !self.machine.host().vcpu(id).ran {
                        self.offer_lbr(vcpu)?;
                    }
                    self.apply(&Input::Run(id))?;
                }
                Place::Kernel => self.enter(id, FastPath::No)?,
                Place::SwitchedOut => return Ok(()),
                Place::Guest => {}
            }
            if self.machine.host().vcpu(id).place != Place::Guest {
                continue;
            }
            if self.vcpus[vcpu].perf.is_some() && !self.vcpus[vcpu].perf_started {
                self.start_session(vcpu)?;
            }
            self.take_pmis(vcpu)?;
            if std::mem::take(&mut comes) && self.cpus[cpu].now > came {
                // What entering took does not keep the guest from executing anything at all.
                until = until.max(self.cpus[cpu].now + 1);
            }
            if self.cpus[cpu].now >= until {
                return Ok(());
            }
            match self.run_steps(cpu, vcpu, until)? {
                Stop::Time => return Ok(()),
                Stop::Exited => {}
                Stop::Asleep | Stop::Ended => return Ok(()),
            }
        }
    }

    /// User space says whether the guest has LBR, by `IA32_PERF_CAPABILITIES`. Policies with another
    /// switch refuse the write.
    pub(super) fn offer_lbr(&mut self, vcpu: usize) -> Result<(), SceneError> {
        let id = VcpuId(vcpu as u16);
        let host = self.machine.host();
        let vm = &self.scene.vm[host.vcpu(id).vm.index()];
        let format = host.hardware().fresh().lbr().profile().format().value();
        let value = if vm.lbr { u64::from(format) } else { 0 };
        let thread = host.vcpu(id).thread;
        self.apply(&Input::UserWrite(thread, id, Msr::PERF_CAPABILITIES, value))?;
        Ok(())
    }

    pub(super) fn enter(&mut self, vcpu: VcpuId, fast: FastPath) -> Result<(), SceneError> {
        self.apply(&Input::Enter(vcpu, fast))?;
        self.take_pmis(vcpu.index())
    }

    /// Steps of the guest, up to a time, an exit, or its end.
    fn run_steps(&mut self, cpu: usize, vcpu: usize, until: u64) -> Result<Stop, SceneError> {
        let cpu_id = CpuId(cpu as u16);
        let limit = self.scene.vcpu[vcpu].instructions.unwrap_or(u64::MAX);
        let code = self.vcpus[vcpu].guest.code();
        let mut began = self.cpus[cpu].now;
        self.vcpus[vcpu].clock.begin(began);
        let mut quiet = self.machine.is_quiet(cpu_id);
        // How many instructions may retire before it is asked again.
        let mut horizon = self.machine.horizon(cpu_id);
        loop {
            if self.cpus[cpu].now >= until {
                self.set_clock(cpu);
                return Ok(Stop::Time);
            }
            if self.vcpus[vcpu].tally.instructions >= self.vcpus[vcpu].next_exit {
                self.set_clock(cpu);
                if self.due_access(vcpu)? {
                    return Ok(Stop::Exited);
                }
                return self.scene_exit(cpu, vcpu);
            }
            let step = self.next_step(vcpu)?;
            let Some(step) = step.filter(|_| self.vcpus[vcpu].tally.instructions < limit) else {
                return self.end(cpu, vcpu);
            };
            let what = code.step(step);
            let retired = u64::from(what.retired);
            let state = &mut self.vcpus[vcpu];
            state.tally.instructions += retired;
            let time = state.clock.retire(code, step);
            let clocks = time.end.value().saturating_sub(began);
            state.clocks += clocks;
            self.cpus[cpu].time.guest += clocks;
            let interrupted = matches!(
                what.exit,
                Exit::Event {
                    kind: FarKind::Interrupt,
                    ..
                }
            );
            let mut exited = false;
            if !quiet {
                let retiring = Retiring {
                    step,
                    time,
                    began,
                    interrupted,
                    split: retired >= horizon,
                };
                exited = self.retire(cpu_id, retiring)?;
                horizon = match retiring.split {
                    true => self.machine.horizon(cpu_id),
                    // An event that leaves a step of no instructions may be a record.
                    false => horizon.saturating_sub(retired.max(1)),
                };
            }
            // Handlers of PMIs inside the step took the rest.
            self.cpus[cpu].now += clocks;
            if exited {
                // What else the step does comes when the guest goes on.
                self.set_clock(cpu);
                self.enter(VcpuId(vcpu as u16), FastPath::No)?;
                quiet = self.machine.is_quiet(cpu_id);
                horizon = self.machine.horizon(cpu_id);
            }
            if interrupted {
                self.set_clock(cpu);
                return self.interrupt(cpu, vcpu, step, quiet);
            }
            if !self.vcpus[vcpu].guest.sites().of(what.block).is_empty() {
                self.set_clock(cpu);
                if let Some(stop) = self.sites(cpu, vcpu, step)? {
                    return Ok(stop);
                }
                quiet = self.machine.is_quiet(cpu_id);
                horizon = self.machine.horizon(cpu_id);
            }
            if self.cpus[cpu].now != time.end.value() {
                self.vcpus[vcpu].clock.begin(self.cpus[cpu].now);
            }
            began = self.cpus[cpu].now;
        }
    }

    fn next_step(&mut self, vcpu: usize) -> Result<Option<StepId>, SceneError> {
        let state = &mut self.vcpus[vcpu];
        state.guest.step().map_err(|error| SceneError::Trace {
            path: self.scene.vcpu[vcpu].trace.clone().unwrap_or_default(),
            error,
        })
    }

    /// An interrupt of the guest: the exit that injecting it takes, then its transfer.
    fn interrupt(
        &mut self,
        cpu: usize,
        vcpu: usize,
        step: StepId,
        quiet: bool,
    ) -> Result<Stop, SceneError> {
        let id = VcpuId(vcpu as u16);
        let state = &mut self.vcpus[vcpu];
        state.tally.exits.recorded += 1;
        let transfer = state.guest.code().transfer(step).copied();
        let cause = ExitCause::ExternalInterrupt;
        self.apply(&Input::Exit(id, cause, ExitLevel::RunLoop))?;
        self.enter(id, FastPath::No)?;
        if let Some(transfer) = transfer.filter(|_| !quiet) {
            self.machine.transfer(CpuId(cpu as u16), &transfer);
        }
        Ok(Stop::Exited)
    }

    /// Instructions of a step that exit, or that access MSRs. They are handled behind the step:
    /// no branch lies between. `None`: the guest goes on.
    fn sites(&mut self, cpu: usize, vcpu: usize, step: StepId) -> Result<Option<Stop>, SceneError> {
        let what = self.vcpus[vcpu].guest.code().step(step);
        let (block, retired) = (what.block, what.retired);
        let count = self.vcpus[vcpu].guest.sites().of(block).len();
        let mut stop = None;
        for n in 0..count {
            let Some(&site) = self.vcpus[vcpu].guest.sites().of(block).get(n) else {
                break;
            };
            if site.index >= retired {
                break;
            }
            let access = self.vcpus[vcpu].guest.access(site.index);
            let id = VcpuId(vcpu as u16);
            let known = match access {
                Some(MachineAccess::ReadMsr { msr, .. }) => Some(Access::read(Msr::new(msr))),
                Some(MachineAccess::WriteMsr {
                    msr,
                    value: Some(value),
                }) => Some(Access::write(Msr::new(msr), Host::guests(id, value))),
                _ => None,
            };
            if let Some(access) = known.filter(|access| self.is_modelled(access.msr)) {
                self.access(vcpu, access)?;
                self.take_pmis(vcpu)?;
                continue;
            }
            let always = matches!(
                site.instruction.condition(),
                vlbr_cpu::ExitCondition::Always
            );
            if always || exits_under_kvm(site.instruction) {
                let cause = ExitCause::Instruction(site.instruction.reason(), 1);
                self.vcpus[vcpu].tally.exits.recorded += 1;
                let handling = Handling::of(self.scene, &self.scene.vcpu[vcpu], cause);
                stop = Some(self.exit(cpu, vcpu, cause, handling)?);
                if matches!(stop, Some(Stop::Asleep)) {
                    break;
                }
                // What else the block does comes when the guest goes on.
                if self.machine.host().vcpu(id).place == Place::UserSpace {
                    self.apply(&Input::Run(id))?;
                }
                if self.machine.host().vcpu(id).place == Place::Kernel {
                    self.enter(id, FastPath::No)?;
                }
            }
        }
        Ok(stop)
    }

    /// Whether an MSR is one of the LBR or of the PMU, whose accesses are made.
    fn is_modelled(&self, msr: Msr) -> bool {
        let fresh = self.machine.host().hardware().fresh();
        fresh.owner(msr).is_some()
    }

    /// An exit of the scene's rates.
    fn scene_exit(&mut self, cpu: usize, vcpu: usize) -> Result<Stop, SceneError> {
        let state = &mut self.vcpus[vcpu];
        let kind = (0..state.due.len())
            .min_by_key(|kind| (state.due[*kind], *kind))
            .unwrap_or(0);
        let now = state.tally.instructions;
        state.tally.exits.assumed += 1;
        let ExitKind {
            cause, handling, ..
        } = state.exits[kind];
        state.due[kind] = state.exits[kind].due(&mut state.random, now);
        state.find_next();
        self.exit(cpu, vcpu, cause, handling)
    }

    fn exit(
        &mut self,
        cpu: usize,
        vcpu: usize,
        cause: ExitCause,
        handling: Handling,
    ) -> Result<Stop, SceneError> {
        let id = VcpuId(vcpu as u16);
        let random = &mut self.vcpus[vcpu].random;
        // What KVM handles with interrupts off.
        let fast = handling
            .fast_path
            .is_some_and(|chance| random.per_million(chance));
        let out = !fast && random.per_million(handling.user_space);
        let level = match (fast, out) {
            (true, _) => ExitLevel::FastPath,
            (_, true) => ExitLevel::UserSpace,
            _ => ExitLevel::RunLoop,
        };
        self.apply(&Input::Exit(id, cause, level))?;
        if fast {
            self.enter(id, FastPath::Yes)?;
            return Ok(Stop::Exited);
        }
        for _ in 0..self.scene.vcpu[vcpu].exits.host_branches {
            self.kernel_branch(cpu, vcpu)?;
        }
        if out {
            self.apply(&Input::Leave(id))?;
        }
        let random = &mut self.vcpus[vcpu].random;
        let sleeps = match handling.sleeps {
            0 => false,
            1_000_000 => true,
            chance => random.per_million(chance),
        };
        if !sleeps {
            return Ok(Stop::Exited);
        }
        let clocks = match handling.varies {
            true => random.gap(handling.sleep),
            false => handling.sleep,
        };
        self.sleep(cpu, vcpu, clocks)
    }

    /// The vCPU's thread sleeps until an interrupt for the guest comes.
    fn sleep(&mut self, cpu: usize, vcpu: usize, clocks: u64) -> Result<Stop, SceneError> {
        let wake = self.cpus[cpu].now.saturating_add(clocks);
        self.agenda.add(wake, Happening::Wake(vcpu));
        self.pick(cpu)?;
        Ok(Stop::Asleep)
    }

    fn end(&mut self, cpu: usize, vcpu: usize) -> Result<Stop, SceneError> {
        let id = VcpuId(vcpu as u16);
        self.vcpus[vcpu].ended = true;
        self.end_slice(vcpu);
        self.set_clock(cpu);
        let cause = ExitCause::ExternalInterrupt;
        self.apply(&Input::Exit(id, cause, ExitLevel::UserSpace))?;
        self.apply(&Input::Leave(id))?;
        self.pick(cpu)?;
        Ok(Stop::Ended)
    }

    pub(super) fn access(
        &mut self,
        vcpu: usize,
        access: Access,
    ) -> Result<GuestMsrAccess, SceneError> {
        let id = VcpuId(vcpu as u16);
        let lbr = self.machine.host().lbr_msrs().register(access.msr);
        let tally = &mut self.vcpus[vcpu].tally;
        match lbr {
            _ if access.msr == Msr::DEBUGCTL => tally.debugctl_accesses += 1,
            Some(_) => tally.lbr_accesses += 1,
            None => tally.pmu_accesses += 1,
        }
        // What an exit does may cost the guest records, which is looked at input by input.
        let read = access.operation == Operation::Read;
        let output = if read && self.machine.host().read_exits(id, access.msr) {
            self.apply(&Input::GuestRead(id, access.msr, Cpl::Ring0))?
        } else {
            self.machine.guest_access(id, access, Cpl::Ring0)?
        };
        let Output::Guest(given) = output else {
            return Err(SceneError::value("guest", "an access gave no answer"));
        };
        match given.exited {
            true => self.pass_costs()?,
            false => self.pass_guests_costs()?,
        }
        if given.exited && self.watch.is_some() {
            self.draw_at(self.cpu_of(vcpu), None);
        }
        Ok(given)
    }

    fn start_session(&mut self, vcpu: usize) -> Result<(), SceneError> {
        self.vcpus[vcpu].perf_started = true;
        let Some(perf) = self.vcpus[vcpu].perf.clone() else {
            return Ok(());
        };
        let msrs = *self.machine.host().lbr_msrs();
        perf.start(
            &msrs,
            &mut Session {
                simulation: self,
                vcpu,
            },
        )
    }

    /// The guest's handler of its PMI.
    pub(super) fn guest_pmi(&mut self, vcpu: usize) -> Result<(), SceneError> {
        let Some(perf) = self.vcpus[vcpu].perf.clone() else {
            return Ok(());
        };
        let msrs = *self.machine.host().lbr_msrs();
        let at = self.vcpus[vcpu].tally.instructions;
        let sample = perf.handle(
            &msrs,
            at,
            &mut Session {
                simulation: self,
                vcpu,
            },
        )?;
        if let Some(sample) = sample {
            let state = &mut self.vcpus[vcpu];
            state.tally.samples += 1;
            if state.samples.len() < self.kept_samples {
                state.samples.push(sample);
            }
        }
        Ok(())
    }
}

/// The MSRs of a guest in a scene.
struct Session<'a, 's> {
    simulation: &'a mut Simulation<'s>,
    vcpu: usize,
}

impl GuestMsrs for Session<'_, '_> {
    type Error = SceneError;

    fn read(&mut self, msr: Msr) -> Result<Option<GuestValue>, SceneError> {
        let given = self.simulation.access(self.vcpu, Access::read(msr))?;
        let guest = Owner::Guest(VcpuId(self.vcpu as u16));
        Ok(given.result.ok().map(|value| GuestValue {
            value: value.value,
            foreign: !value.owner.may_be_seen_by(guest),
        }))
    }

    fn write(&mut self, msr: Msr, value: u64) -> Result<bool, SceneError> {
        let value = Host::guests(VcpuId(self.vcpu as u16), value);
        let given = self
            .simulation
            .access(self.vcpu, Access::write(msr, value))?;
        Ok(given.result.is_ok())
    }
}

/// Why a guest stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The time is over.
    Time,
    /// It exited, and its thread goes on.
    Exited,
    /// Its thread sleeps.
    Asleep,
    /// There is nothing more to execute.
    Ended,
}
