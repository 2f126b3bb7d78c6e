//! The host under a policy, fed with inputs and checked.

use std::sync::Arc;

use vlbr_arch::vmx::ExitReason;
use vlbr_arch::{Cpl, LvtPc, Transfer};
use vlbr_cpu::ledger::{Actor, Ledger, MsrAccess as _};
use vlbr_cpu::processor::{Boundary, LogicalProcessor, Nothing};
use vlbr_lbr::Verdict;
use vlbr_pmu::{Device as _, SourceSet};

use super::{
    Difference, FastPath, Findings, GuestFault, GuestMsrAccess, Host, HostConfig, HostError, Input,
    Output, Rule, Violation,
};
use crate::hardware::{HardwareError, Running};
use crate::kvm::{Access, GuestCpu, Note, Place};
use crate::perf::{Creator, Errno};
use crate::policy::Policy;
use crate::{CpuId, Owned, Owner, TaskId, VcpuId, VmId};

/// The LVT entry of PMIs as a guest's kernel writes it.
const NMI: LvtPc = LvtPc::from_bits(0x400);

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Checking {
    /// Every rule of [`Rule`]. A processor of the guest's own runs beside each vCPU.
    On,
    /// Nothing. No result of the host differs.
    Off,
}

/// A host with its policy.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(super) host: Host,
    pub(super) policy: Arc<dyn Policy>,
    /// The processor that each guest would have for itself.
    pub(super) own: Vec<LogicalProcessor>,
    /// What a guest's own processor is made with.
    config: HostConfig,
    pub(super) checking: Checking,
    pub(super) findings: Findings,
    pub(super) differences: [u64; 4],
    pub(super) compared: u64,
    pub(super) inputs: u64,
}

impl Machine {
    /// A host on which nothing runs.
    ///
    /// # Errors
    /// The processors cannot be made.
    pub fn new(
        config: &HostConfig,
        policy: Arc<dyn Policy>,
        checking: Checking,
    ) -> Result<Self, HostError> {
        Ok(Self {
            host: Host::new(config)?,
            policy,
            own: Vec::new(),
            config: config.clone(),
            checking,
            findings: Findings::default(),
            differences: [0; 4],
            compared: 0,
            inputs: 0,
        })
    }

    /// The host.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The host, for what is no input.
    #[must_use]
    pub const fn host_mut(&mut self) -> &mut Host {
        &mut self.host
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &dyn Policy {
        &*self.policy
    }

    /// What was accessed.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        self.host.hardware.ledger()
    }

    /// Which rules did not hold.
    #[must_use]
    pub const fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Reads of the guests that were compared with those on a processor of their own, and how many
    /// differed how.
    #[must_use]
    pub fn fidelity(&self) -> (u64, [(Difference, u64); 4]) {
        let kinds = [
            Difference::Stale,
            Difference::Foreign,
            Difference::Zero,
            Difference::Missing,
        ];
        let counts = kinds.map(|kind| (kind, self.differences[kind as usize]));
        (self.compared, counts)
    }

    /// A new task.
    pub fn add_task(&mut self, name: &str, kernel_thread: bool) -> TaskId {
        self.host.add_task(name, kernel_thread)
    }

    /// A new VM.
    pub fn add_vm(&mut self) -> VmId {
        self.host.add_vm()
    }

    /// A new vCPU.
    ///
    /// # Errors
    /// The part's VMX capabilities are not known.
    pub fn add_vcpu(&mut self, vm: VmId, guest_cpu: GuestCpu) -> Result<VcpuId, HostError> {
        let own = self.own_processor(&guest_cpu)?;
        let vcpu = self.host.add_vcpu(vm, guest_cpu, &*self.policy)?;
        self.own.push(own);
        Ok(vcpu)
    }

    /// The host's part, but it freezes as the version does that the guest is told of.
    fn own_processor(&self, guest_cpu: &GuestCpu) -> Result<LogicalProcessor, HostError> {
        let mut options = self.config.options.clone();
        let version = self.host.hardware.fresh().pmu().profile().version();
        if guest_cpu.pmu_version < 4 && version >= 4 {
            options.lbr.freeze = Some(vlbr_lbr::FreezeFlavour::Legacy);
            options.pmu.freeze = Some(vlbr_pmu::FreezeFlavour::Legacy);
        }
        let made = LogicalProcessor::by_name(&self.config.part, options);
        let mut own = made.map_err(HardwareError::from)?;
        own.pmu_mut().set_lvtpc(NMI);
        Ok(own)
    }

    /// The processor that a guest would have for itself.
    #[must_use]
    pub fn own(&self, vcpu: VcpuId) -> Option<&LogicalProcessor> {
        self.own.get(vcpu.index())
    }

    /// One input. An input that fails may have been taken in part; it is told in full.
    ///
    /// # Errors
    /// It cannot happen in this state.
    pub fn apply(&mut self, input: &Input) -> Result<Output, HostError> {
        let before = self.before(input);
        let output = self.act(input);
        if let Some(before) = before {
            self.after(input, &before);
        }
        self.inputs += 1;
        output
    }

    fn act(&mut self, input: &Input) -> Result<Output, HostError> {
        let policy = Arc::clone(&self.policy);
        let policy = &*policy;
        let host = &mut self.host;
        match input {
            Input::Switch(cpu, task) => host.switch(policy, *cpu, *task)?,
            Input::Run(vcpu) => host.run(policy, *vcpu)?,
            Input::Leave(vcpu) => host.leave(policy, *vcpu)?,
            Input::Enter(vcpu, fast) => {
                host.enter(policy, *vcpu, *fast == FastPath::Yes)?;
            }
            Input::Exit(vcpu, cause, level) => {
                let samples = host.exit(policy, *vcpu, &cause.exit(), *level)?;
                let cpu = self.host.vcpu(*vcpu).cpu;
                self.check_samples(cpu, &samples);
            }
            Input::GuestRead(vcpu, msr, cpl) => {
                return self.guest_access(*vcpu, Access::read(*msr), *cpl);
            }
            Input::GuestWrite(vcpu, msr, value, cpl) => {
                let access = Access::write(*msr, Host::guests(*vcpu, *value));
                return self.guest_access(*vcpu, access, *cpl);
            }
            Input::Retire(cpu, retired, now) => {
                let boundary = Boundary {
                    run: &retired.0,
                    transfer: retired.1.as_ref(),
                    now: *now,
                };
                return self.retire_with(*cpu, boundary, false);
            }
            Input::UserRead(task, vcpu, msr) => {
                let answer = host.ioctl_access(policy, *task, *vcpu, Access::read(*msr))?;
                return Ok(Output::User(answer));
            }
            Input::UserWrite(task, vcpu, msr, value) => {
                let access = Access::write(*msr, Host::guests(*vcpu, *value));
                let answer = host.ioctl_access(policy, *task, *vcpu, access)?;
                return Ok(Output::User(answer));
            }
            Input::GetMsrs(task, vcpu, carried) => {
                host.check_vcpu(*vcpu)?;
                let msrs = host.carried_msrs(policy, *vcpu, *carried);
                let (values, refused) = host.get_msrs(policy, *task, *vcpu, &msrs)?;
                return Ok(Output::Msrs(values, refused));
            }
            Input::SetMsrs(task, vcpu, values) => {
                let refused = host.set_msrs(policy, *task, *vcpu, values)?;
                return Ok(Output::Refused(refused));
            }
            Input::Migrate(vcpu, carried) => {
                let migration = self.migrate(*vcpu, *carried)?;
                return Ok(Output::Migrated(Box::new(migration)));
            }
            Input::Open(attr, target, creator, leader) => {
                let event = host.open_event(policy, **attr, *target, *creator, *leader)?;
                return Ok(Output::Event(event));
            }
            // KVM keeps its events to itself: nobody has a descriptor of them.
            Input::Close(event) | Input::Enable(event) | Input::Disable(event)
                if host
                    .perf
                    .event(*event)
                    .is_some_and(|event| event.creator() == Creator::Kvm) =>
            {
                return Err(Errno::ENOENT.into());
            }
            Input::Close(event) => {
                host.on_event(policy, *event, |perf, hw| perf.release(hw, *event))??;
            }
            Input::Enable(event) => {
                host.on_event(policy, *event, |perf, hw| perf.enable(hw, *event))??;
            }
            Input::Disable(event) => {
                host.on_event(policy, *event, |perf, hw| perf.disable(hw, *event))??;
            }
            Input::Rotate(cpu) => host.rotate(policy, *cpu)?,
            Input::PebsRecord(event) => {
                let (cpu, sample) = host.pebs_record(*event)?;
                let samples = vec![sample];
                self.check_samples(Some(cpu), &samples);
                return Ok(Output::Samples(samples));
            }
            Input::DeepCState(cpu) => host.deep_c_state(*cpu)?,
            Input::Reset(vcpu) => {
                host.reset_vcpu(policy, *vcpu)?;
                let guest_cpu = host.vcpu(*vcpu).guest_cpu.clone();
                let fresh = self.own_processor(&guest_cpu)?;
                if let Some(own) = self.own.get_mut(vcpu.index()) {
                    *own = fresh;
                }
            }
            Input::SetCpuid(vcpu, guest_cpu) => {
                host.set_cpuid(policy, *vcpu, (**guest_cpu).clone())?;
                let fresh = self.own_processor(guest_cpu)?;
                if let Some(own) = self.own.get_mut(vcpu.index()) {
                    *own = fresh;
                }
            }
            Input::Fork(parent, child) => host.fork(*parent, *child)?,
            Input::EnableCapability(vm, enable, good) => {
                if vm.index() >= host.vms.len() {
                    return Err(HostError::NoVm(*vm));
                }
                let stack = policy.enable_capability(host, *vm, *enable, *good)?;
                return Ok(Output::Stack(stack));
            }
            Input::EnterL2(vcpu, vmcs12) => {
                if host.enter_l2(policy, *vcpu, *vmcs12)?.is_err() {
                    return Ok(Output::NestedFailed(ExitReason::INVALID_GUEST_STATE));
                }
            }
            Input::LeaveL2(vcpu) => {
                host.leave_l2(*vcpu)?;
            }
        }
        Ok(Output::Done)
    }

    /// Sources that the processors are fed with.
    #[must_use]
    pub fn feeds(&self) -> SourceSet {
        self.host.hardware.fresh().pmu().options().feeds
    }

    /// The processor of the guest that runs there, where one is kept for it.
    fn own_of(&self, cpu: CpuId) -> Option<&LogicalProcessor> {
        match self.host.hardware.cpu(cpu).running() {
            Running::Guest(vcpu) if self.watches() => self.own.get(vcpu.index()),
            _ => None,
        }
    }

    /// Whether nothing on the processor records or counts what retires there, and no PMI waits, so that
    /// it need not be told.
    #[must_use]
    pub fn is_quiet(&self, cpu: CpuId) -> bool {
        let devices = [
            Some(self.host.hardware.cpu(cpu).logical()),
            self.own_of(cpu),
        ];
        devices.into_iter().flatten().all(|devices| {
            let pmu = devices.pmu();
            !devices.lbr().recording() && !pmu.counts() && pmu.pending().is_none()
        })
    }

    /// The instruction of this number may overflow a counter there: fewer may retire at once.
    #[must_use]
    pub fn horizon(&self, cpu: CpuId) -> u64 {
        let devices = [
            Some(self.host.hardware.cpu(cpu).logical()),
            self.own_of(cpu),
        ];
        let horizons = devices.into_iter().flatten();
        let horizons = horizons.map(|devices| match devices.pmu().awaits_delivery() {
            true => 1,
            false => devices.pmu().instructions_unlooked(),
        });
        horizons.min().unwrap_or(u64::MAX)
    }

    /// A transfer of whoever runs that is no instruction: an interrupt that was injected.
    pub fn transfer(&mut self, cpu: CpuId, transfer: &Transfer) {
        let processor = self.host.hardware.cpu_mut(cpu);
        processor.transfer(transfer);
        let (running, now) = (processor.running(), processor.now());
        if let Running::Guest(vcpu) = running
            && self.watches()
            && let Some(own) = self.own.get_mut(vcpu.index())
        {
            own.transfer(transfer, now, &mut Nothing);
        }
    }

    /// Whoever runs retires; a PMI that is due is taken.
    ///
    /// # Errors
    /// No such processor, or the exit fails.
    pub fn retire(&mut self, cpu: CpuId, boundary: Boundary<'_>) -> Result<Output, HostError> {
        self.retire_with(cpu, boundary, true)
    }

    /// As [`Machine::retire`]; `look`: nobody else looks at records that the PMI takes away.
    fn retire_with(
        &mut self,
        cpu: CpuId,
        boundary: Boundary<'_>,
        look: bool,
    ) -> Result<Output, HostError> {
        let retired = self.host.retire(cpu, boundary)?;
        let running = self.host.hardware.cpu(cpu).running();
        if retired.verdict == Some(Verdict::Push) && self.checking == Checking::On {
            let transfer = boundary.transfer;
            let cpl = transfer.map_or(Cpl::Ring0, |transfer| transfer.cpl_before);
            self.check_record(cpu, running, cpl);
        }
        if let Running::Guest(vcpu) = running
            && self.watches()
            && let Some(own) = self.own.get_mut(vcpu.index())
        {
            own.retire(boundary, &mut Nothing);
            // Its interrupt is taken at once, as the guest's is.
            let taken = own.deliver().is_some();
            if taken {
                // The guest's handler does this first.
                own.pmu_mut().set_lvtpc(NMI);
            }
            if taken && self.policy.is_yardstick() {
                let samples = Vec::new();
                return Ok(Output::Pmi { running, samples });
            }
        }
        let policy = Arc::clone(&self.policy);
        let due = self.host.hardware.cpu(cpu).logical().pmu().pending();
        let before = due.and_then(|_| self.before_pmi(cpu, look));
        match self.host.take_pmi(&*policy, cpu)? {
            None => Ok(Output::Done),
            Some(samples) => {
                if let Some(before) = before {
                    self.after_named("Pmi", &before);
                }
                self.check_samples(Some(cpu), &samples);
                Ok(Output::Pmi { running, samples })
            }
        }
    }

    /// Whoever runs is told of clocks that have passed. A PMI that this raises is taken at the next
    /// boundary.
    ///
    /// # Errors
    /// No such processor.
    pub fn pass(&mut self, cpu: CpuId, boundary: Boundary<'_>) -> Result<(), HostError> {
        self.host.retire(cpu, boundary)?;
        if let Running::Guest(vcpu) = self.host.hardware.cpu(cpu).running()
            && self.watches()
            && let Some(own) = self.own.get_mut(vcpu.index())
        {
            own.retire(boundary, &mut Nothing);
        }
        Ok(())
    }

    /// A record went into a stack that is somebody else's.
    fn check_record(&mut self, cpu: CpuId, running: Running, cpl: Cpl) {
        let of_guest = self.host.perf.guest_owns_lbr(cpu);
        let of_host = !of_guest && self.host.perf.lbr_cpu(cpu).users() != 0;
        let owner = running.owner(cpl);
        let (actor, path) = match running {
            Running::Guest(_) if of_host && !self.policy.swaps_stacks() => (
                Owner::Kernel,
                "a guest's branch enters the stack of a host event",
            ),
            Running::Host(_) if of_guest => (
                Owner::Kernel,
                "a branch of the host enters the stack that it has left to a guest",
            ),
            _ => return,
        };
        self.findings.add(Violation {
            rule: Rule::Leak,
            input: self.inputs,
            cpu: Some(cpu),
            owner,
            actor,
            msr: None,
            path: path.to_owned(),
        });
    }

    /// Whether a processor of the guest's own has to be kept.
    fn watches(&self) -> bool {
        self.checking == Checking::On || self.policy.is_yardstick()
    }

    /// An access of a guest, on the host and on a processor of its own.
    ///
    /// # Errors
    /// The guest does not run, or exit or entry fails.
    pub fn guest_access(
        &mut self,
        vcpu: VcpuId,
        access: Access,
        cpl: Cpl,
    ) -> Result<Output, HostError> {
        let expected = self.on_own(vcpu, access, cpl)?;
        if self.policy.is_yardstick() {
            let result = expected.ok_or(HostError::NoVcpu(vcpu))?;
            let exited = false;
            return Ok(Output::Guest(GuestMsrAccess { result, exited }));
        }
        let policy = Arc::clone(&self.policy);
        let dropped = self.host.journal.count(vcpu, Note::DummyWrite);
        let given = self.host.guest_access(&*policy, vcpu, access, cpl)?;
        if self.checking == Checking::On
            && let Some(expected) = expected
        {
            let dropped = self.host.journal.count(vcpu, Note::DummyWrite) != dropped;
            self.compare(vcpu, access, (given, dropped), expected);
        }
        Ok(Output::Guest(given))
    }

    fn on_own(
        &mut self,
        vcpu: VcpuId,
        access: Access,
        cpl: Cpl,
    ) -> Result<Option<Result<Owned, GuestFault>>, HostError> {
        if !self.watches() {
            return Ok(None);
        }
        let call = self.host.call(vcpu, Place::Guest)?;
        let Some(own) = self.own.get_mut(vcpu.index()) else {
            return Ok(None);
        };
        if !cpl.is_kernel() {
            return Ok(Some(Err(GuestFault::Gp)));
        }
        let yardstick = self.policy.is_yardstick();
        let (_, _, ledger) = self.host.hardware.split(call.cpu);
        let done = match access.operation {
            crate::kvm::Operation::Read if yardstick => ledger.rdmsr(Actor::Guest, own, access.msr),
            crate::kvm::Operation::Read => own.rdmsr(access.msr),
            crate::kvm::Operation::Write(value) if yardstick => ledger
                .wrmsr(Actor::Guest, own, access.msr, value.value)
                .map(|()| 0),
            crate::kvm::Operation::Write(value) => own.wrmsr(access.msr, value.value).map(|()| 0),
        };
        Ok(Some(match done {
            Ok(value) => Ok(Host::guests(vcpu, value)),
            Err(_) => Err(GuestFault::Gp),
        }))
    }
}
