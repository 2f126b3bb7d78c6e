//! VM entry.

use vlbr_arch::Msr;
use vlbr_arch::vmx::{
    EntryControls, ExitReason, Interruptibility, MsrArea, PinControls, SecondaryControls,
    VmInstructionError, VmcsField,
};
use vlbr_cpu::ledger::MsrAccess;

use crate::area::AreaFault;
use crate::check::{GuestFault, check_controls, check_guest, check_host};
use crate::context::Context;
use crate::error::{Fail, FailReason};
use crate::exit::Abort;
use crate::inject::{Injected, injected};
use crate::{LaunchState, PhysicalMemory, PreemptionTimer, State, Vmcs, Vmx};

/// VMLAUNCH or VMRESUME.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Launch {
    /// VMLAUNCH, for a clear VMCS.
    Launch,
    /// VMRESUME, for a launched one.
    Resume,
}

/// Why VM entry failed after its checks of controls and host state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryCause<F> {
    /// The guest state is wrong.
    #[error("{0}")]
    Guest(GuestFault),
    /// The processor refused a guest value that passed the checks.
    #[error("guest state: {0}")]
    Refused(F),
    /// The MSR-load area: the entry, from 1 on, and why.
    #[error("VM-entry MSR-load area, entry {0}: {1}")]
    Area(u32, AreaFault<F>),
}

/// A VM entry that failed as an exit: the host goes on at its RIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {cause}")]
pub struct EntryFailure<F> {
    /// Reason with bit 31, as in the exit-reason field.
    pub reason: ExitReason,
    /// Exit qualification.
    pub qualification: u64,
    /// What is wrong.
    pub cause: EntryCause<F>,
}

/// How a VM entry ends without a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError<F> {
    /// VMLAUNCH or VMRESUME failed as an instruction; the host goes on behind it.
    #[error("{0}")]
    Instruction(#[from] Fail),
    /// VM entry failed as an exit.
    #[error("{0}")]
    Failure(EntryFailure<F>),
    /// VM entry failed, and then the host's MSRs could not be loaded.
    #[error("{failure}; {abort}")]
    Abort {
        /// The first failure.
        failure: EntryFailure<F>,
        /// The abort.
        abort: Abort<F>,
    },
}

impl Vmx {
    /// VMLAUNCH or VMRESUME at CPL 0. Afterwards a guest runs; the event to deliver first is
    /// returned. SDM volume 3, "VM Entries".
    ///
    /// In order: launch state, controls and host state (VMfailValid), guest state (exit reason 33),
    /// loading of guest state, the MSR-load area (exit reason 34), event injection. Nothing of it
    /// is recorded in the LBR. Event blocking by MOV SS is in `shadow`.
    ///
    /// # Errors
    /// See [`EntryError`]. After a failure as an exit the host's state is loaded: `IA32_DEBUGCTL`
    /// reads 0; MSRs of the entry area that were loaded before the failing entry keep their values.
    pub fn enter<M, P>(
        &mut self,
        launch: Launch,
        shadow: Interruptibility,
        context: &mut Context<'_, M, P>,
    ) -> Result<Option<Injected>, EntryError<M::Fault>>
    where
        M: MsrAccess + ?Sized,
        P: PhysicalMemory + ?Sized,
    {
        self.root()?;
        let Some(vmcs) = self.vmcs() else {
            return Err(Fail::Invalid(FailReason::Plain).into());
        };
        let event = match self.check_entry(launch, shadow, vmcs, context.msrs) {
            Ok(event) => event,
            Err((error, reason)) => return Err(self.fail(error, reason).into()),
        };
        if let Err(failure) = self.load_guest(vmcs, context) {
            return Err(self.entry_failed(failure, context));
        }
        context.ledger.vm_entry();
        let timer = vmcs
            .pin_controls()
            .contains(PinControls::ACTIVATE_PREEMPTION_TIMER)
            .then(|| {
                let value = vmcs.field32(VmcsField::VMX_PREEMPTION_TIMER_VALUE);
                let shift = self.profile.misc().preemption_timer_shift();
                PreemptionTimer::new(value, context.tsc, shift)
            });
        self.timer = timer;
        self.state = State::NonRoot;
        if let Some(vmcs) = self.vmcs_mut() {
            vmcs.launch = LaunchState::Launched;
        }
        Ok(event)
    }

    fn check_entry<M: MsrAccess + ?Sized>(
        &self,
        launch: Launch,
        shadow: Interruptibility,
        vmcs: &Vmcs,
        msrs: &M,
    ) -> Result<Option<Injected>, (VmInstructionError, FailReason)> {
        if shadow.contains(Interruptibility::BLOCKING_BY_MOV_SS) {
            return Err((VmInstructionError::ENTRY_MOV_SS, FailReason::Plain));
        }
        match (launch, vmcs.launch_state()) {
            (Launch::Launch, LaunchState::Launched) => {
                return Err((VmInstructionError::VMLAUNCH_NOT_CLEAR, FailReason::Plain));
            }
            (Launch::Resume, LaunchState::Clear) => {
                return Err((VmInstructionError::VMRESUME_NOT_LAUNCHED, FailReason::Plain));
            }
            _ => {}
        }
        check_controls(self, vmcs)
            .map_err(|fault| (VmInstructionError::ENTRY_CONTROLS, fault.into()))?;
        let event = injected(vmcs, &self.profile, is_protected(vmcs))
            .map_err(|fault| (VmInstructionError::ENTRY_CONTROLS, fault.into()))?;
        check_host(vmcs, msrs)
            .map_err(|fault| (VmInstructionError::ENTRY_HOST_STATE, fault.into()))?;
        Ok(event)
    }

    /// Checks and loads guest state, then the MSR-load area.
    fn load_guest<M, P>(
        &self,
        vmcs: &Vmcs,
        context: &mut Context<'_, M, P>,
    ) -> Result<(), EntryFailure<M::Fault>>
    where
        M: MsrAccess + ?Sized,
        P: PhysicalMemory + ?Sized,
    {
        let invalid = |cause| EntryFailure {
            reason: ExitReason::INVALID_GUEST_STATE.as_entry_failure(),
            qualification: 0,
            cause,
        };
        check_guest(self, vmcs, context.msrs).map_err(|fault| invalid(EntryCause::Guest(fault)))?;
        let controls = vmcs.entry_controls();
        let mut load = |control, field, msr| {
            if !controls.contains(control) {
                return Ok(());
            }
            context
                .ledger
                .field_load(context.msrs, msr, vmcs.field(field))
                .map_err(|fault| invalid(EntryCause::Refused(fault)))
        };
        load(
            EntryControls::LOAD_DEBUG_CONTROLS,
            VmcsField::GUEST_IA32_DEBUGCTL,
            Msr::DEBUGCTL,
        )?;
        load(
            EntryControls::LOAD_PERF_GLOBAL_CTRL,
            VmcsField::GUEST_IA32_PERF_GLOBAL_CTRL,
            Msr::PERF_GLOBAL_CTRL,
        )?;
        load(
            EntryControls::LOAD_LBR_CTL,
            VmcsField::GUEST_IA32_LBR_CTL,
            Msr::LBR_CTL,
        )?;
        let registers = &mut *context.registers;
        if controls.contains(EntryControls::LOAD_DEBUG_CONTROLS) {
            registers.dr7 = vmcs.field(VmcsField::GUEST_DR7);
        }
        registers.rip = vmcs.field(VmcsField::GUEST_RIP);
        registers.rsp = vmcs.field(VmcsField::GUEST_RSP);
        registers.rflags = vmcs.field(VmcsField::GUEST_RFLAGS);
        self.process_area(vmcs, MsrArea::EntryLoad, context)
            .map_err(|(n, fault)| EntryFailure {
                reason: match fault {
                    AreaFault::TooLong { .. } => ExitReason::MACHINE_CHECK,
                    _ => ExitReason::MSR_LOADING,
                }
                .as_entry_failure(),
                qualification: n.into(),
                cause: EntryCause::Area(n, fault),
            })
    }

    /// Records the failure and loads the host's state. Launch state, guest-state area and the
    /// other exit information stay.
    fn entry_failed<M, P>(
        &mut self,
        failure: EntryFailure<M::Fault>,
        context: &mut Context<'_, M, P>,
    ) -> EntryError<M::Fault>
    where
        M: MsrAccess + ?Sized,
        P: PhysicalMemory + ?Sized,
    {
        context.ledger.vm_entry_failure(failure.reason);
        if let Some(vmcs) = self.vmcs_mut() {
            vmcs.set(VmcsField::VM_EXIT_REASON, failure.reason.value().into());
            vmcs.set(VmcsField::EXIT_QUALIFICATION, failure.qualification);
        }
        match self.load_host(context) {
            Ok(()) => EntryError::Failure(failure),
            Err(abort) => EntryError::Abort { failure, abort },
        }
    }
}

/// Whether injected exceptions may push error codes: they do not in an unrestricted guest's real
/// mode.
fn is_protected(vmcs: &Vmcs) -> bool {
    let unrestricted = vmcs
        .secondary_controls()
        .contains(SecondaryControls::UNRESTRICTED_GUEST);
    !unrestricted || vmcs.field(VmcsField::GUEST_CR0) & 1 != 0
}
