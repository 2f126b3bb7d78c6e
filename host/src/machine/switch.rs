//! Tasks on and off processors, and vCPUs with them.

use vlbr_vmx::VmExit;

use super::run::ExitCause;
use super::{Host, HostError};
use crate::hardware::Running;
use crate::kvm::{Call, ExitLevel, GuestCpu, Initiator, Place, SnapshotPoint};
use crate::perf::{Creator, Errno, EventAttr, EventId, Target};
use crate::policy::Policy;
use crate::{CpuId, TaskId, VcpuId};

impl Host {
    /// The task that perf sees on a processor on which nobody runs.
    pub(crate) const fn idle(cpu: CpuId) -> TaskId {
        TaskId(u32::MAX - cpu.0 as u32)
    }

    fn check_cpu(&self, cpu: CpuId) -> Result<(), HostError> {
        (cpu.index() < self.hardware.cpus())
            .then_some(())
            .ok_or(HostError::NoCpu(cpu))
    }

    /// The next task gets the processor; `None`: it idles. A guest that runs there exits for the
    /// interrupt first. `context_switch`, with perf's hooks and KVM's preempt notifiers.
    ///
    /// # Errors
    /// No such processor or task, or the task runs elsewhere.
    pub fn switch(
        &mut self,
        policy: &dyn Policy,
        cpu: CpuId,
        next: Option<TaskId>,
    ) -> Result<(), HostError> {
        self.check_cpu(cpu)?;
        if let Some(next) = next {
            let task = self.task(next).ok_or(HostError::NoTask(next))?;
            if let Some(cpu) = task.cpu.filter(|on| *on != cpu) {
                return Err(HostError::Runs { task: next, cpu });
            }
        }
        let prev = self.current(cpu);
        if prev == next {
            return Ok(());
        }
        self.kick(policy, cpu)?;
        let (from, to) = (
            prev.unwrap_or(Self::idle(cpu)),
            next.unwrap_or(Self::idle(cpu)),
        );
        self.perf.task_sched_out(&mut self.hardware, cpu, from, to);
        if let Some(call) = self.in_ioctl_of(prev) {
            policy.sched_out(self, call);
            self.put(policy, call);
            self.vcpu_mut(call.vcpu).place = Place::SwitchedOut;
        }
        if let Some(prev) = prev {
            self.tasks[prev.index()].cpu = None;
        }
        self.current[cpu.index()] = next;
        if let Some(next) = next {
            self.tasks[next.index()].cpu = Some(cpu);
        }
        self.set_running(cpu, Running::Host(next));
        self.perf.task_sched_in(&mut self.hardware, cpu, to, from);
        if let Some(vcpu) = next.and_then(|next| self.tasks[next.index()].vcpu)
            && self.vcpu(vcpu).place == Place::SwitchedOut
        {
            let call = Call {
                vcpu,
                cpu,
                thread: self.vcpu(vcpu).thread,
                initiator: Initiator::Guest,
            };
            self.vcpu_mut(vcpu).place = Place::Kernel;
            policy.sched_in(self, call);
            if self.vcpu(vcpu).pmu.has_events() || self.vcpu(vcpu).lbr.event.is_some() {
                self.vcpu_mut(vcpu).requests.cleanup = true;
            }
            self.load(policy, call)?;
        }
        Ok(())
    }

    /// The vCPU whose `KVM_RUN` this task is in.
    fn in_ioctl_of(&self, task: Option<TaskId>) -> Option<Call> {
        let task = task?;
        let vcpu = self.tasks.get(task.index())?.vcpu?;
        let state = self.vcpu(vcpu);
        (state.place == Place::Kernel).then_some(Call {
            vcpu,
            cpu: state.cpu?,
            thread: state.thread,
            initiator: Initiator::Guest,
        })
    }

    /// A guest that runs on this processor exits for an interrupt and is left in the kernel.
    ///
    /// # Errors
    /// The exit fails.
    pub fn kick(&mut self, policy: &dyn Policy, cpu: CpuId) -> Result<Option<VcpuId>, HostError> {
        self.check_cpu(cpu)?;
        let Running::Guest(vcpu) = self.hardware.cpu(cpu).running() else {
            return Ok(None);
        };
        let exit: VmExit = ExitCause::ExternalInterrupt.exit();
        self.exit(policy, vcpu, &exit, ExitLevel::RunLoop)?;
        Ok(Some(vcpu))
    }

    /// Does something on a processor by an interrupt: a guest there exits before and is entered
    /// again after. `smp_call_function_single`.
    ///
    /// # Errors
    /// Exit or entry fails.
    pub(crate) fn on_cpu<T>(
        &mut self,
        policy: &dyn Policy,
        cpu: Option<CpuId>,
        act: impl FnOnce(&mut Self) -> T,
    ) -> Result<T, HostError> {
        let kicked = match cpu {
            Some(cpu) => self.kick(policy, cpu)?,
            None => None,
        };
        let result = act(self);
        if let Some(vcpu) = kicked {
            self.enter(policy, vcpu, false)?;
        }
        Ok(result)
    }

    /// `vmx_vcpu_load`: VMPTRLD, the policy's hook, the copy of `IA32_DEBUGCTL`.
    pub(crate) fn load(&mut self, policy: &dyn Policy, call: Call) -> Result<(), HostError> {
        if let Some(active) = self.vcpu(call.vcpu).active_on
            && active != call.cpu
        {
            // VMCLEAR there, by an interrupt: whatever guest runs there exits for it.
            self.on_cpu(policy, Some(active), |host| host.unload_vmcs(call.vcpu))??;
        }
        self.load_vmcs(call.vcpu, call.cpu)?;
        self.vcpu_mut(call.vcpu).cpu = Some(call.cpu);
        policy.load(self, call);
        if self.kvm.snapshot == SnapshotPoint::VcpuLoad {
            self.snapshot_debugctl(call)?;
        }
        Ok(())
    }

    /// Whoever works on the vCPU's VMCS loads it; where another guest runs it is cleared for that by
    /// an interrupt.
    fn unload_beside_a_guest(
        &mut self,
        policy: &dyn Policy,
        vcpu: VcpuId,
    ) -> Result<(), HostError> {
        let active = self.vcpu(vcpu).active_on;
        let beside = active.filter(|cpu| {
            let running = self.hardware.cpu(*cpu).running();
            matches!(running, Running::Guest(_))
        });
        match beside {
            Some(cpu) => self.on_cpu(policy, Some(cpu), |host| host.unload_vmcs(vcpu))?,
            None => Ok(()),
        }
    }

    pub(crate) fn put(&mut self, policy: &dyn Policy, call: Call) {
        policy.put(self, call);
        self.vcpu_mut(call.vcpu).cpu = None;
    }

    /// `KVM_RUN` begins, in the vCPU's thread, which must run.
    ///
    /// # Errors
    /// The thread does not run, or is inside `KVM_RUN`.
    pub fn run(&mut self, policy: &dyn Policy, vcpu: VcpuId) -> Result<(), HostError> {
        let thread = self.check_vcpu(vcpu)?.thread;
        let call = Call {
            initiator: Initiator::Guest,
            ..self.begin_ioctl(policy, thread, vcpu)?
        };
        self.vcpu_mut(call.vcpu).place = Place::Kernel;
        Ok(())
    }

    /// `KVM_RUN` returns to user space.
    ///
    /// # Errors
    /// The vCPU is not in the kernel.
    pub fn leave(&mut self, policy: &dyn Policy, vcpu: VcpuId) -> Result<(), HostError> {
        let call = self.call(vcpu, Place::Kernel)?;
        self.put(policy, call);
        self.vcpu_mut(vcpu).place = Place::UserSpace;
        Ok(())
    }

    /// The vCPU's PMU is reset, and its `IA32_DEBUGCTL` with it: `kvm_pmu_reset`. KVM calls it up to
    /// 6.7 at RESET of a vCPU, that is when it is made, from 6.8 on when its PMU changes
    /// (`kvm_pmu_refresh`), always when it goes. No version calls it at INIT, which leaves the
    /// event and `IA32_DEBUGCTL` alone.
    ///
    /// # Errors
    /// The guest runs.
    pub fn reset_vcpu(&mut self, policy: &dyn Policy, vcpu: VcpuId) -> Result<(), HostError> {
        let place = self.check_vcpu(vcpu)?.place;
        if place == Place::Guest {
            return Err(HostError::Place {
                vcpu,
                is: place.name(),
                needed: Place::Kernel.name(),
            });
        }
        self.unload_beside_a_guest(policy, vcpu)?;
        self.reset_guest_pmu(vcpu);
        policy.reset(self, vcpu);
        self.write_guest_debugctl(vcpu, 0)
    }

    /// `KVM_SET_CPUID2`: the guest is told of another processor, and its PMU starts anew.
    /// `kvm_set_cpuid`, `kvm_vcpu_after_set_cpuid`, `kvm_pmu_refresh`.
    ///
    /// # Errors
    /// The vCPU is inside `KVM_RUN`, or has run with another in a kernel that minds.
    pub fn set_cpuid(
        &mut self,
        policy: &dyn Policy,
        vcpu: VcpuId,
        guest_cpu: GuestCpu,
    ) -> Result<(), HostError> {
        let place = self.check_vcpu(vcpu)?.place;
        if place != Place::UserSpace {
            return Err(HostError::Place {
                vcpu,
                is: place.name(),
                needed: Place::UserSpace.name(),
            });
        }
        if self.kvm.cpuid_fixed_by_run && self.vcpu(vcpu).ran {
            return match self.vcpu(vcpu).guest_cpu == guest_cpu {
                true => Ok(()),
                false => Err(Errno::EINVAL.into()),
            };
        }
        self.unload_beside_a_guest(policy, vcpu)?;
        self.vcpu_mut(vcpu).guest_cpu = guest_cpu;
        self.reset_guest_pmu(vcpu);
        if self.kvm.refresh_resets_pmu {
            policy.reset(self, vcpu);
        }
        policy.refresh(self, vcpu);
        Ok(())
    }

    /// `parent` forks; `child` is a task that perf does not know yet. `perf_event_init_task`.
    ///
    /// # Errors
    /// No such task, or the child is none that begins.
    pub fn fork(&mut self, parent: TaskId, child: TaskId) -> Result<(), HostError> {
        self.task(parent).ok_or(HostError::NoTask(parent))?;
        let task = self.task(child).ok_or(HostError::NoTask(child))?;
        if let Some(cpu) = task.cpu {
            return Err(HostError::Runs { task: child, cpu });
        }
        if self.perf.tasks().any(|known| known == child) {
            return Err(HostError::Known(child));
        }
        self.perf.fork(parent, child);
        Ok(())
    }

    /// `perf_event_open`, or a counter of the kernel. A guest on the processor that is interrupted
    /// for it exits.
    ///
    /// # Errors
    /// Those of `perf_event_open`; exit or entry of a guest fails.
    pub fn open_event(
        &mut self,
        policy: &dyn Policy,
        attr: EventAttr,
        target: Target,
        creator: Creator,
        leader: Option<EventId>,
    ) -> Result<EventId, HostError> {
        let cpu = self.perf.interrupts(target);
        let opened = self.on_cpu(policy, cpu, |host| {
            host.perf
                .open(&mut host.hardware, attr, target, creator, leader)
        })?;
        Ok(opened?)
    }

    /// Closes an event, or lets `act` do something else to it where it is.
    ///
    /// # Errors
    /// Exit or entry of a guest fails.
    pub fn on_event<T>(
        &mut self,
        policy: &dyn Policy,
        event: EventId,
        act: impl FnOnce(&mut crate::perf::Perf, &mut crate::hardware::Hardware) -> T,
    ) -> Result<T, HostError> {
        let target = self.perf.event(event).map(crate::perf::Event::target);
        let cpu = target.and_then(|target| self.perf.interrupts(target));
        self.on_cpu(policy, cpu, |host| act(&mut host.perf, &mut host.hardware))
    }

    /// The rotation timer of perf fires on a processor.
    ///
    /// # Errors
    /// Exit or entry of a guest fails.
    pub fn rotate(&mut self, policy: &dyn Policy, cpu: CpuId) -> Result<(), HostError> {
        self.check_cpu(cpu)?;
        self.on_cpu(policy, Some(cpu), |host| {
            host.perf.rotate(&mut host.hardware, cpu);
        })
    }

    /// The processor, idle, goes through a C-state deeper than C1.
    ///
    /// # Errors
    /// No such processor, or a task runs there.
    pub fn deep_c_state(&mut self, cpu: CpuId) -> Result<(), HostError> {
        self.check_cpu(cpu)?;
        if let Some(task) = self.current(cpu) {
            return Err(HostError::Runs { task, cpu });
        }
        self.perf.guest_lbr_flush(&mut self.hardware, cpu);
        self.hardware.cpu_mut(cpu).deep_c_state();
        Ok(())
    }
}
