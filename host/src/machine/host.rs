//! What the host consists of.

use core::hash::{Hash, Hasher};

use vlbr_arch::Msr;
use vlbr_cpu::ledger::Actor;
use vlbr_cpu::processor::Options;

use super::{Code, HostError};
use crate::hardware::{Hardware, LbrMsrs, Running};
use crate::kvm::{Call, Initiator, Journal, KvmBehaviour, Note, Place, Vcpu, Vm};
use crate::perf::{Behaviour, Perf};
use crate::{CpuId, Owned, Owner, TaskId, VcpuId, VmId};

/// A task of the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// It has no user mode.
    pub kernel_thread: bool,
    /// The vCPU whose thread it is.
    pub vcpu: Option<VcpuId>,
    /// Where it runs.
    pub cpu: Option<CpuId>,
}

/// What a host is made of.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The part, as `vlbr list` names it.
    pub part: String,
    /// Logical processors.
    pub cpus: usize,
    /// Options of the devices.
    pub options: Options,
    /// What perf and KVM do in this kernel.
    pub behaviour: Behaviour,
    /// What KVM does beside its policy.
    pub kvm: KvmBehaviour,
    /// KVM's module parameter `ignore_msrs`.
    pub ignore_msrs: bool,
}

/// Processors, perf, tasks, VMs and vCPUs: everything but the policy, which has no state.
#[derive(Clone, Debug)]
pub struct Host {
    pub(crate) hardware: Hardware,
    pub(crate) perf: Perf,
    pub(crate) behaviour: Behaviour,
    pub(crate) kvm: KvmBehaviour,
    pub(crate) tasks: Vec<Task>,
    /// Who runs on each processor; `None`: its idle task.
    pub(crate) current: Vec<Option<TaskId>>,
    pub(crate) vms: Vec<Vm>,
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) journal: Journal,
    pub(crate) ignore_msrs: bool,
    pub(crate) code: Code,
}

impl PartialEq for Host {
    /// Equal if no later input can tell them apart: ledger and journal are results, not state.
    fn eq(&self, other: &Self) -> bool {
        self.hardware == other.hardware
            && self.perf == other.perf
            && (&self.tasks, &self.current) == (&other.tasks, &other.current)
            && (&self.vms, &self.vcpus) == (&other.vms, &other.vcpus)
            && (self.behaviour, self.kvm) == (other.behaviour, other.kvm)
            && self.ignore_msrs == other.ignore_msrs
    }
}

impl Eq for Host {}

impl Hash for Host {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hardware.hash(state);
        self.perf.hash(state);
        (&self.tasks, &self.current).hash(state);
        (&self.vms, &self.vcpus).hash(state);
    }
}

impl Host {
    /// A host on which nothing runs.
    ///
    /// # Errors
    /// The processors cannot be made.
    pub fn new(config: &HostConfig) -> Result<Self, HostError> {
        let mut hardware = Hardware::new(&config.part, config.cpus, &config.options)?;
        let perf = Perf::boot(config.behaviour, &mut hardware);
        let mut host = Self {
            current: vec![None; config.cpus],
            hardware,
            perf,
            behaviour: config.behaviour,
            kvm: config.kvm,
            tasks: Vec::new(),
            vms: Vec::new(),
            vcpus: Vec::new(),
            journal: Journal::default(),
            ignore_msrs: config.ignore_msrs,
            code: Code::default(),
        };
        host.enter_vmx_operation()?;
        // What booting took is not part of any run.
        host.hardware.forget_accesses();
        Ok(host)
    }

    /// The processors.
    #[must_use]
    pub const fn hardware(&self) -> &Hardware {
        &self.hardware
    }

    /// The processors.
    #[must_use]
    pub const fn hardware_mut(&mut self) -> &mut Hardware {
        &mut self.hardware
    }

    /// perf.
    #[must_use]
    pub const fn perf(&self) -> &Perf {
        &self.perf
    }

    /// perf, with the processors that it programs.
    #[must_use]
    pub const fn perf_mut(&mut self) -> (&mut Perf, &mut Hardware) {
        (&mut self.perf, &mut self.hardware)
    }

    /// What the kernel does in its version.
    #[must_use]
    pub const fn behaviour(&self) -> &Behaviour {
        &self.behaviour
    }

    /// What KVM did beside MSR accesses.
    #[must_use]
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Counts in the journal.
    pub fn note(&mut self, vcpu: VcpuId, note: Note) {
        self.journal.note(vcpu, note);
    }

    /// The registers of the part's LBR.
    #[must_use]
    pub fn lbr_msrs(&self) -> &LbrMsrs {
        self.hardware.cpu(CpuId(0)).lbr_msrs()
    }

    /// A task.
    #[must_use]
    pub fn task(&self, task: TaskId) -> Option<&Task> {
        self.tasks.get(task.index())
    }

    /// Who runs on a processor; `None`: its idle task, or no such processor.
    #[must_use]
    pub fn current(&self, cpu: CpuId) -> Option<TaskId> {
        self.current.get(cpu.index()).copied().flatten()
    }

    /// A vCPU.
    ///
    /// # Panics
    /// There is none with this number: the host's own numbers are always of one.
    #[must_use]
    pub fn vcpu(&self, vcpu: VcpuId) -> &Vcpu {
        &self.vcpus[vcpu.index()]
    }

    /// A vCPU.
    ///
    /// # Panics
    /// As [`Host::vcpu`].
    #[must_use]
    pub fn vcpu_mut(&mut self, vcpu: VcpuId) -> &mut Vcpu {
        &mut self.vcpus[vcpu.index()]
    }

    /// All vCPUs.
    #[must_use]
    pub fn vcpus(&self) -> &[Vcpu] {
        &self.vcpus
    }

    /// A VM.
    ///
    /// # Panics
    /// As [`Host::vcpu`].
    #[must_use]
    pub fn vm(&self, vm: VmId) -> &Vm {
        &self.vms[vm.index()]
    }

    /// A VM.
    ///
    /// # Panics
    /// As [`Host::vcpu`].
    #[must_use]
    pub fn vm_mut(&mut self, vm: VmId) -> &mut Vm {
        &mut self.vms[vm.index()]
    }

    /// The VM of a vCPU.
    #[must_use]
    pub fn vm_of(&self, vcpu: VcpuId) -> &Vm {
        self.vm(self.vcpu(vcpu).vm)
    }

    /// A new task, off every processor.
    pub fn add_task(&mut self, name: &str, kernel_thread: bool) -> TaskId {
        let task = TaskId(self.tasks.len() as u32);
        self.tasks.push(Task {
            name: name.to_owned(),
            kernel_thread,
            vcpu: None,
            cpu: None,
        });
        task
    }

    /// Checks that there is such a vCPU.
    pub(crate) fn check_vcpu(&self, vcpu: VcpuId) -> Result<&Vcpu, HostError> {
        self.vcpus.get(vcpu.index()).ok_or(HostError::NoVcpu(vcpu))
    }

    /// The vCPU where it is loaded, in its own thread.
    pub(crate) fn call(&self, vcpu: VcpuId, needed: Place) -> Result<Call, HostError> {
        let found = self.check_vcpu(vcpu)?;
        match found.cpu {
            Some(cpu) if found.place == needed => Ok(Call {
                vcpu,
                cpu,
                thread: found.thread,
                initiator: Initiator::Guest,
            }),
            _ => Err(HostError::Place {
                vcpu,
                is: found.place.name(),
                needed: needed.name(),
            }),
        }
    }

    /// RDMSR of the host on this processor.
    ///
    /// # Errors
    /// `#GP(0)`.
    pub fn rdmsr(&mut self, cpu: CpuId, actor: Actor, msr: Msr) -> Result<Owned, HostError> {
        Ok(self.hardware.rdmsr(cpu, actor, msr)?)
    }

    /// WRMSR of the host on this processor.
    ///
    /// # Errors
    /// `#GP(0)`.
    pub fn wrmsr(
        &mut self,
        cpu: CpuId,
        actor: Actor,
        msr: Msr,
        value: Owned,
    ) -> Result<(), HostError> {
        Ok(self.hardware.wrmsr(cpu, actor, msr, value)?)
    }

    /// A value of the guest of this vCPU.
    #[must_use]
    pub const fn guests(vcpu: VcpuId, value: u64) -> Owned {
        Owned::new(value, Owner::Guest(vcpu))
    }

    pub(crate) fn set_running(&mut self, cpu: CpuId, running: Running) {
        self.hardware.cpu_mut(cpu).set_running(running);
    }
}
