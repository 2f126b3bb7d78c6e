//! VM entry, VM exit, and what a guest does in between.

use vlbr_arch::vmx::{
    EntryControls, ExitControls, ExitReason, Interruptibility, InterruptionInfo, VmcsField,
};
use vlbr_arch::{Cpl, Msr};
use vlbr_cpu::ledger::Actor;
use vlbr_cpu::processor::{Boundary, MsrFault, Retired};
use vlbr_vmx::{Context, GuestMsr, GuestMsrStop, Launch, VmExit};

use super::{Host, HostError};
use crate::hardware::Running;
use crate::kvm::{Access, Answer, Call, ExitLevel, Note, Operation, Place, SnapshotPoint};
use crate::perf::{Event, EventId, PmiSample};
use crate::policy::Policy;
use crate::{CpuId, Owned, Owner, VcpuId};

/// Type 2 in the interruption information, valid: an NMI.
const NMI: u32 = 1 << 31 | 2 << 8 | 2;

/// Why a guest exits, for what is not an MSR access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExitCause {
    /// An instruction of the guest, by its exit reason and length.
    Instruction(ExitReason, u32),
    /// An external interrupt: a device, a timer, another processor.
    ExternalInterrupt,
    /// An NMI: a PMI of the host.
    Nmi,
    /// An EPT violation.
    EptViolation,
}

impl ExitCause {
    /// What the processor tells of it.
    #[must_use]
    pub const fn exit(self) -> VmExit {
        match self {
            Self::Instruction(reason, length) => VmExit::of_instruction(reason, length),
            Self::ExternalInterrupt => VmExit::new(ExitReason::EXTERNAL_INTERRUPT),
            Self::EptViolation => VmExit::new(ExitReason::EPT_VIOLATION),
            Self::Nmi => VmExit {
                interruption: InterruptionInfo::from_bits(NMI),
                ..VmExit::new(ExitReason::EXCEPTION_OR_NMI)
            },
        }
    }
}

/// What a guest gets instead of what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestFault {
    /// `#GP(0)`, by the processor itself.
    Gp,
    /// `#GP(0)`, injected by KVM after an exit.
    Injected,
}

/// An MSR access of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GuestMsrAccess {
    /// What the guest read, 0 of a write, or the fault.
    pub result: Result<Owned, GuestFault>,
    /// It made a VM exit.
    pub exited: bool,
}

impl Host {
    /// The copy of the host's `IA32_DEBUGCTL`. `host_debugctlmsr`.
    pub(crate) fn snapshot_debugctl(&mut self, call: Call) -> Result<(), HostError> {
        let read = self.rdmsr(call.cpu, Actor::WorldSwitch, Msr::DEBUGCTL)?;
        self.vcpu_mut(call.vcpu).host_debugctl = read.value;
        Ok(())
    }

    /// A pass of the run loop up to VM entry: requests, then with interrupts off the tests before
    /// entry, then the entry. The fast path goes without requests and a new copy of
    /// `IA32_DEBUGCTL`; a request that waits ends it. `vcpu_enter_guest`, `vmx_vcpu_run`.
    ///
    /// # Errors
    /// The vCPU is not in the kernel, or VM entry fails.
    pub fn enter(
        &mut self,
        policy: &dyn Policy,
        vcpu: VcpuId,
        fast_path: bool,
    ) -> Result<(), HostError> {
        let call = self.call(vcpu, Place::Kernel)?;
        if !fast_path || self.vcpu(vcpu).requests.pending() {
            self.serve_requests(policy, call);
            if self.kvm.snapshot == SnapshotPoint::EnterGuest {
                self.snapshot_debugctl(call)?;
            }
        }
        self.switch_counters(call)?;
        policy.before_entry(self, call);
        let launch = match self.vcpu(vcpu).launched {
            true => Launch::Resume,
            false => Launch::Launch,
        };
        let (processor, memory, ledger) = self.hardware.split(call.cpu);
        let tsc = processor.now().value();
        let entered = processor.in_vmx(Owner::Guest(vcpu), |vmx, msrs, registers| {
            let mut context = Context {
                msrs,
                memory,
                registers,
                ledger,
                tsc,
            };
            vmx.enter(launch, Interruptibility::default(), &mut context)
                .map_err(Box::new)
        });
        match entered {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(HostError::Entry(error)),
            None => return Err(self.no_vmx()),
        }
        let state = self.vcpu_mut(vcpu);
        state.launched = true;
        state.ran = true;
        state.inject_gp = false;
        state.place = Place::Guest;
        self.set_running(call.cpu, Running::Guest(vcpu));
        Ok(())
    }

    fn no_vmx(&self) -> HostError {
        let profile = self.hardware.cpu(CpuId(0)).logical().lbr().profile();
        HostError::NoVmx(profile.name().to_owned())
    }

    fn serve_requests(&mut self, policy: &dyn Policy, call: Call) {
        let requests = core::mem::take(&mut self.vcpu_mut(call.vcpu).requests);
        self.reprogram_requested(call, requests.reprogram);
        if requests.cleanup {
            policy.reclaim(self, call);
            self.vcpu_mut(call.vcpu).lbr.in_use = false;
        }
        if requests.pmi {
            policy.pmi(self, call);
            self.note(call.vcpu, Note::VirtualPmi);
        }
    }

    /// The MSR pairs that perf wants switched. `atomic_switch_perf_msrs`.
    fn switch_counters(&mut self, call: Call) -> Result<(), HostError> {
        let pairs = self.perf.guest_msrs(call.cpu);
        let mut areas = (Vec::new(), Vec::new());
        let mut global = None;
        for pair in pairs {
            if pair.host == pair.guest {
                continue;
            }
            if pair.msr == Msr::PERF_GLOBAL_CTRL && self.loads_global_ctrl(call.vcpu) {
                global = Some((pair.host, pair.guest));
            } else {
                if pair.msr == Msr::PEBS_ENABLE {
                    // The lists leave PEBS no time to write its last record.
                    let off = Owned::new(0, Owner::Kernel);
                    self.wrmsr(call.cpu, Actor::WorldSwitch, pair.msr, off)?;
                }
                areas.0.push(vlbr_vmx::AreaEntry::new(pair.msr, pair.guest));
                areas.1.push(vlbr_vmx::AreaEntry::new(pair.msr, pair.host));
            }
        }
        self.switch_global_ctrl(call.vcpu, global)?;
        self.switch_areas(call.vcpu, &areas.0, &areas.1)
    }

    /// Whether entry and exit can load `IA32_PERF_GLOBAL_CTRL` from the VMCS.
    fn loads_global_ctrl(&self, vcpu: VcpuId) -> bool {
        let cpu = self.vcpu(vcpu).active_on;
        let vmx = cpu.and_then(|cpu| self.hardware.cpu(cpu).vmx());
        vmx.is_some_and(|vmx| {
            let profile = vmx.profile();
            let entry = EntryControls::LOAD_PERF_GLOBAL_CTRL;
            let exit = ExitControls::LOAD_PERF_GLOBAL_CTRL;
            profile.entry().adjust(entry.bits()) & entry.bits() != 0
                && profile.exit().adjust(exit.bits()) & exit.bits() != 0
        })
    }

    /// Controls are written if they change, their values at every entry.
    /// `add_atomic_switch_msr_special`.
    fn switch_global_ctrl(
        &mut self,
        vcpu: VcpuId,
        values: Option<(u64, u64)>,
    ) -> Result<(), HostError> {
        let controls = [
            (
                VmcsField::VM_ENTRY_CONTROLS,
                EntryControls::LOAD_PERF_GLOBAL_CTRL.bits(),
            ),
            (
                VmcsField::VM_EXIT_CONTROLS,
                ExitControls::LOAD_PERF_GLOBAL_CTRL.bits(),
            ),
        ];
        for (field, bit) in controls {
            let before = self.vmcs_field(vcpu, field);
            let after = match values {
                Some(_) => before | u64::from(bit),
                None => before & !u64::from(bit),
            };
            if before != after {
                self.vmwrite(vcpu, Actor::WorldSwitch, field, after)?;
            }
        }
        if let Some((host, guest)) = values {
            for (field, value) in [
                (VmcsField::HOST_IA32_PERF_GLOBAL_CTRL, host),
                (VmcsField::GUEST_IA32_PERF_GLOBAL_CTRL, guest),
            ] {
                self.vmwrite(vcpu, Actor::WorldSwitch, field, value)?;
            }
        }
        Ok(())
    }

    /// A VM exit, up to where `vmx_vcpu_run` returns. NMIs are served where the version does so.
    ///
    /// # Errors
    /// No guest runs there, or VMX abort.
    pub fn exit(
        &mut self,
        policy: &dyn Policy,
        vcpu: VcpuId,
        exit: &VmExit,
        level: ExitLevel,
    ) -> Result<Vec<PmiSample>, HostError> {
        let call = self.call(vcpu, Place::Guest)?;
        let (processor, memory, ledger) = self.hardware.split(call.cpu);
        let tsc = processor.now().value();
        let exited = processor.in_vmx(Owner::Kernel, |vmx, msrs, registers| {
            let mut context = Context {
                msrs,
                memory,
                registers,
                ledger,
                tsc,
            };
            vmx.exit(exit, &mut context).map_err(Box::new)
        });
        match exited {
            Some(Ok(())) => {}
            Some(Err(abort)) => return Err(HostError::Abort(abort)),
            None => return Err(self.no_vmx()),
        }
        self.vcpu_mut(vcpu).place = Place::Kernel;
        self.set_running(call.cpu, Running::Host(Some(call.thread)));
        let nmi = exit.reason == ExitReason::EXCEPTION_OR_NMI && exit.interruption.bits() == NMI;
        let mut samples = Vec::new();
        if nmi && self.kvm.nmi_before_restore {
            samples = self.serve_pmi(call.cpu);
        }
        let debugctl = self.vcpu(vcpu).host_debugctl;
        if debugctl != 0 {
            let value = Owned::new(debugctl, Owner::Kernel);
            self.wrmsr(call.cpu, Actor::WorldSwitch, Msr::DEBUGCTL, value)?;
        }
        if nmi && !self.kvm.nmi_before_restore {
            samples = self.serve_pmi(call.cpu);
        }
        policy.after_exit(self, call, exit, level);
        self.note(vcpu, level.note());
        Ok(samples)
    }

    /// The host's NMI handler runs on a processor: perf's, then what KVM does at overflows of the
    /// guest's counters. `perf_event_nmi_handler`, `kvm_perf_overflow`.
    pub fn serve_pmi(&mut self, cpu: CpuId) -> Vec<PmiSample> {
        let samples = self.perf.pmi(&mut self.hardware, cpu, &self.code);
        for sample in &samples {
            self.overflowed(sample.event);
        }
        samples
    }

    /// An adaptive PEBS record of an event that is on, while the host runs there: where, and its sample.
    /// In a guest the counters of PEBS stand still (`intel_guest_get_msrs`).
    ///
    /// # Errors
    /// The event makes no such record now.
    pub fn pebs_record(&mut self, event: EventId) -> Result<(CpuId, PmiSample), HostError> {
        let on = self.perf.event(event).and_then(Event::oncpu);
        let hosts = |cpu: &CpuId| matches!(self.hardware.cpu(*cpu).running(), Running::Host(_));
        let made = on.filter(hosts).and_then(|cpu| {
            let sample = self
                .perf
                .pebs_record(&self.hardware, cpu, event, &self.code)?;
            Some((cpu, sample))
        });
        made.ok_or(HostError::NoPebsRecord(event))
    }

    /// A boundary of whoever runs on this processor.
    ///
    /// # Errors
    /// There is no such processor.
    pub fn retire(&mut self, cpu: CpuId, boundary: Boundary<'_>) -> Result<Retired, HostError> {
        if cpu.index() >= self.hardware.cpus() {
            return Err(HostError::NoCpu(cpu));
        }
        Ok(self.hardware.cpu_mut(cpu).retire(boundary))
    }

    /// Takes a PMI that is due: in a guest it exits, then the host's handler runs. `None` if none
    /// is due. The vCPU is in the kernel afterwards.
    ///
    /// # Errors
    /// The exit fails.
    pub fn take_pmi(
        &mut self,
        policy: &dyn Policy,
        cpu: CpuId,
    ) -> Result<Option<Vec<PmiSample>>, HostError> {
        let processor = self.hardware.cpu_mut(cpu);
        if processor.logical_mut().deliver().is_none() {
            return Ok(None);
        }
        let samples = match processor.running() {
            Running::Guest(vcpu) => {
                self.exit(policy, vcpu, &ExitCause::Nmi.exit(), ExitLevel::RunLoop)?
            }
            Running::Host(_) => self.serve_pmi(cpu),
        };
        Ok(Some(samples))
    }

    /// RDMSR or WRMSR of the guest. If it exits, KVM handles it and the guest is entered again.
    ///
    /// # Errors
    /// The vCPU is not in the guest, or exit or entry fails.
    pub fn guest_access(
        &mut self,
        policy: &dyn Policy,
        vcpu: VcpuId,
        access: Access,
        cpl: Cpl,
    ) -> Result<GuestMsrAccess, HostError> {
        let call = self.call(vcpu, Place::Guest)?;
        let instruction = match access.operation {
            Operation::Read => GuestMsr::Rdmsr,
            Operation::Write(value) => GuestMsr::Wrmsr(value.value),
        };
        let nested = self.vcpu(vcpu).nested.is_some();
        let (processor, memory, ledger) = self.hardware.split(call.cpu);
        let owner = processor.owner_of(access.msr);
        let tsc = processor.now().value();
        let done: Option<Result<u64, GuestMsrStop<MsrFault>>> =
            processor.in_vmx(Owner::Guest(vcpu), |vmx, msrs, registers| {
                let mut context = Context {
                    msrs,
                    memory,
                    registers,
                    ledger,
                    tsc,
                };
                if nested && cpl.is_kernel() {
                    // The bitmap of L2 lets no LBR MSR through.
                    return Err(GuestMsrStop::Exit(instruction_exit(
                        instruction,
                        access.msr,
                    )));
                }
                vmx.guest_msr(instruction, access.msr, cpl, &mut context)
            });
        let (result, exited) = match done {
            None => return Err(self.no_vmx()),
            Some(Ok(value)) => (Ok(Owned::new(value, owner)), false),
            Some(Err(GuestMsrStop::State(fail))) => return Err(fail.into()),
            Some(Err(GuestMsrStop::Privilege(_) | GuestMsrStop::Gp(_))) => {
                (Err(GuestFault::Gp), false)
            }
            Some(Err(GuestMsrStop::Exit(exit))) => {
                self.exit(policy, vcpu, &exit, ExitLevel::RunLoop)?;
                let result = self.emulate_access(policy, call, access);
                self.enter(policy, vcpu, false)?;
                (result, true)
            }
        };
        Ok(GuestMsrAccess { result, exited })
    }

    /// KVM's handler of a guest's access. `kvm_emulate_rdmsr`, `kvm_emulate_wrmsr`.
    fn emulate_access(
        &mut self,
        policy: &dyn Policy,
        call: Call,
        access: Access,
    ) -> Result<Owned, GuestFault> {
        match self.msr_access(policy, call, access) {
            Answer::Value(value) => Ok(value),
            Answer::Done => Ok(Owned::CLEARED),
            Answer::Refused | Answer::Unknown => {
                self.vcpu_mut(call.vcpu).inject_gp = true;
                self.note(call.vcpu, Note::Gp);
                Err(GuestFault::Injected)
            }
        }
    }
}

fn instruction_exit(instruction: GuestMsr, msr: Msr) -> VmExit {
    let reason = match instruction {
        GuestMsr::Rdmsr | GuestMsr::RdmsrImmediate(_) => ExitReason::RDMSR,
        _ => ExitReason::WRMSR,
    };
    VmExit {
        msr: Some(msr),
        ..VmExit::of_instruction(reason, 2)
    }
}
