//! VM exit.

use vlbr_arch::Msr;
use vlbr_arch::vmx::{ExitControls, ExitReason, InterruptionInfo, MsrArea, VmcsField, VmxAbort};
use vlbr_cpu::ledger::MsrAccess;

use crate::area::AreaFault;
use crate::context::Context;
use crate::error::Fail;
use crate::{PhysicalMemory, State, Vmx};

/// RFLAGS and DR7 that VM exit loads.
const HOST_RFLAGS: u64 = 2;
const HOST_DR7: u64 = 0x400;
/// Place of the VMX-abort indicator in a VMCS region.
const ABORT_INDICATOR: u64 = 4;

/// A VM exit with the information that it leaves in the VMCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VmExit {
    /// Why.
    pub reason: ExitReason,
    /// Exit qualification.
    pub qualification: u64,
    /// VM-exit interruption information, of vectored events.
    pub interruption: InterruptionInfo,
    /// Its error code.
    pub error_code: u32,
    /// The event whose delivery the exit interrupted.
    pub idt_vectoring: InterruptionInfo,
    /// Its error code.
    pub idt_error_code: u32,
    /// Length of the instruction that exits; undefined, here 0, where none does.
    pub instruction_length: u32,
    /// Instruction information.
    pub instruction_info: u32,
    /// Guest-linear address.
    pub linear_address: u64,
    /// Guest-physical address.
    pub physical_address: u64,
    /// The MSR of RDMSR and WRMSR, for the ledger; the VMCS does not tell it.
    pub msr: Option<Msr>,
}

impl VmExit {
    /// An exit with this reason and nothing else to tell.
    #[must_use]
    pub const fn new(reason: ExitReason) -> Self {
        Self {
            reason,
            qualification: 0,
            interruption: InterruptionInfo::from_bits(0),
            error_code: 0,
            idt_vectoring: InterruptionInfo::from_bits(0),
            idt_error_code: 0,
            instruction_length: 0,
            instruction_info: 0,
            linear_address: 0,
            physical_address: 0,
            msr: None,
        }
    }

    /// An exit by an instruction of this many bytes.
    #[must_use]
    pub const fn of_instruction(reason: ExitReason, length: u32) -> Self {
        Self {
            instruction_length: length,
            ..Self::new(reason)
        }
    }
}

/// What made a VM exit abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AbortCause<F> {
    /// Not in non-root operation: there is nothing to exit from, and nothing happened.
    #[error("{0}")]
    State(Fail),
    /// An MSR area: which, the entry from 1 on (0: the area as a whole), and why.
    #[error("{0} area, entry {1}: {2}")]
    Area(MsrArea, u32, AreaFault<F>),
    /// The processor refused to save, load or clear a register with a control of its own.
    #[error("{0}")]
    Refused(F),
}

/// A VMX abort: the processor shuts down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {cause}", Kind(*.indicator))]
pub struct Abort<F> {
    /// The indicator, also in the VMCS region; `None` if there was no guest to exit from.
    pub indicator: Option<VmxAbort>,
    /// Why.
    pub cause: AbortCause<F>,
}

struct Kind(Option<VmxAbort>);

impl core::fmt::Display for Kind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(abort) => abort.fmt(f),
            None => f.write_str("no VM exit"),
        }
    }
}

impl Vmx {
    /// A VM exit. Afterwards the host runs at its RIP. SDM volume 3, "VM Exits".
    ///
    /// In order: exit information, guest state, the MSR-store area, host state (`IA32_DEBUGCTL`
    /// reads 0 then, `IA32_LBR_CTL` too if it is to be cleared), the MSR-load area. Nothing of it
    /// is recorded in the LBR, and its entries stay as the guest left them.
    ///
    /// # Errors
    /// VMX abort; or no guest runs, and nothing happens.
    pub fn exit<M, P>(
        &mut self,
        exit: &VmExit,
        context: &mut Context<'_, M, P>,
    ) -> Result<(), Abort<M::Fault>>
    where
        M: MsrAccess + ?Sized,
        P: PhysicalMemory + ?Sized,
    {
        if let Err(fail) = self.non_root() {
            return Err(Abort {
                indicator: None,
                cause: AbortCause::State(fail),
            });
        }
        context.ledger.vm_exit(exit.reason, exit.msr);
        self.record(exit);
        let saved = self.save_guest(context);
        self.timer = None;
        if let Err(cause) = saved {
            return Err(self.abort(VmxAbort::SavingGuestMsrs, cause, context));
        }
        self.load_host(context)
    }

    fn record(&mut self, exit: &VmExit) {
        let Some(vmcs) = self.vmcs_mut() else { return };
        // Field by field, so that the place of each is known when this is compiled.
        vmcs.set(VmcsField::VM_EXIT_REASON, exit.reason.value().into());
        vmcs.set(VmcsField::EXIT_QUALIFICATION, exit.qualification);
        let interruption = exit.interruption.bits();
        vmcs.set(VmcsField::VM_EXIT_INTR_INFO, interruption.into());
        vmcs.set(VmcsField::VM_EXIT_INTR_ERROR_CODE, exit.error_code.into());
        let vectoring = exit.idt_vectoring.bits();
        vmcs.set(VmcsField::IDT_VECTORING_INFO_FIELD, vectoring.into());
        let error_code = exit.idt_error_code;
        vmcs.set(VmcsField::IDT_VECTORING_ERROR_CODE, error_code.into());
        let length = exit.instruction_length;
        vmcs.set(VmcsField::VM_EXIT_INSTRUCTION_LEN, length.into());
        let info = exit.instruction_info;
        vmcs.set(VmcsField::VMX_INSTRUCTION_INFO, info.into());
        vmcs.set(VmcsField::GUEST_LINEAR_ADDRESS, exit.linear_address);
        vmcs.set(VmcsField::GUEST_PHYSICAL_ADDRESS, exit.physical_address);
        let injected = vmcs.entry_interruption().without_valid();
        vmcs.set(VmcsField::VM_ENTRY_INTR_INFO_FIELD, injected.bits().into());
    }

    fn save_guest<M, P>(
        &mut self,
        context: &mut Context<'_, M, P>,
    ) -> Result<(), AbortCause<M::Fault>>
    where
        M: MsrAccess + ?Sized,
        P: PhysicalMemory + ?Sized,
    {
        let (timer, has_lbr_ctl) = (self.timer, self.profile.has_lbr_ctl());
        let Some(vmcs) = self.vmcs_mut() else {
            return Ok(());
        };
        let controls = vmcs.exit_controls();
        let mut save = |wanted, field, msr| {
            if wanted {
                let value = context
                    .ledger
                    .field_save(context.msrs, msr)
                    .map_err(AbortCause::Refused)?;
                vmcs.set(field, value);
            }
            Ok(())
        };
        save(
            controls.contains(ExitControls::SAVE_DEBUG_CONTROLS),
            VmcsField::GUEST_IA32_DEBUGCTL,
            Msr::DEBUGCTL,
        )?;
        save(
            controls.contains(ExitControls::SAVE_PERF_GLOBAL_CTRL),
            VmcsField::GUEST_IA32_PERF_GLOBAL_CTRL,
            Msr::PERF_GLOBAL_CTRL,
        )?;
        save(has_lbr_ctl, VmcsField::GUEST_IA32_LBR_CTL, Msr::LBR_CTL)?;
        let registers = &*context.registers;
        if controls.contains(ExitControls::SAVE_DEBUG_CONTROLS) {
            vmcs.set(VmcsField::GUEST_DR7, registers.dr7);
        }
        vmcs.set(VmcsField::GUEST_RIP, registers.rip);
        vmcs.set(VmcsField::GUEST_RSP, registers.rsp);
        vmcs.set(VmcsField::GUEST_RFLAGS, registers.rflags);
        if let Some(timer) =
            timer.filter(|_| controls.contains(ExitControls::SAVE_PREEMPTION_TIMER))
        {
            let remaining = timer.remaining(context.tsc);
            vmcs.set(VmcsField::VMX_PREEMPTION_TIMER_VALUE, remaining.into());
        }
        let Some(vmcs) = self.vmcs() else {
            return Ok(());
        };
        self.process_area(vmcs, MsrArea::ExitStore, context)
            .map_err(|(n, fault)| AbortCause::Area(MsrArea::ExitStore, n, fault))
    }

    /// Loads host state and the MSR-load area, after an exit or an entry that failed as one.
    pub(crate) fn load_host<M, P>(
        &mut self,
        context: &mut Context<'_, M, P>,
    ) -> Result<(), Abort<M::Fault>>
    where
        M: MsrAccess + ?Sized,
        P: PhysicalMemory + ?Sized,
    {
        match self.try_load_host(context) {
            Ok(()) => {
                self.state = State::Root;
                Ok(())
            }
            Err(cause) => Err(self.abort(VmxAbort::LoadingHostMsrs, cause, context)),
        }
    }

    fn try_load_host<M, P>(
        &self,
        context: &mut Context<'_, M, P>,
    ) -> Result<(), AbortCause<M::Fault>>
    where
        M: MsrAccess + ?Sized,
        P: PhysicalMemory + ?Sized,
    {
        let Some(vmcs) = self.vmcs() else {
            return Ok(());
        };
        let controls = vmcs.exit_controls();
        let (ledger, msrs) = (&mut *context.ledger, &mut *context.msrs);
        ledger
            .field_clear(msrs, Msr::DEBUGCTL)
            .map_err(AbortCause::Refused)?;
        if controls.contains(ExitControls::LOAD_PERF_GLOBAL_CTRL) {
            let value = vmcs.field(VmcsField::HOST_IA32_PERF_GLOBAL_CTRL);
            ledger
                .field_load(msrs, Msr::PERF_GLOBAL_CTRL, value)
                .map_err(AbortCause::Refused)?;
        }
        if controls.contains(ExitControls::CLEAR_LBR_CTL) {
            ledger
                .field_clear(msrs, Msr::LBR_CTL)
                .map_err(AbortCause::Refused)?;
        }
        *context.registers = crate::Registers {
            rip: vmcs.field(VmcsField::HOST_RIP),
            rsp: vmcs.field(VmcsField::HOST_RSP),
            rflags: HOST_RFLAGS,
            dr7: HOST_DR7,
        };
        self.process_area(vmcs, MsrArea::ExitLoad, context)
            .map_err(|(n, fault)| AbortCause::Area(MsrArea::ExitLoad, n, fault))
    }

    fn abort<M, P>(
        &mut self,
        indicator: VmxAbort,
        cause: AbortCause<M::Fault>,
        context: &mut Context<'_, M, P>,
    ) -> Abort<M::Fault>
    where
        M: MsrAccess + ?Sized,
        P: PhysicalMemory + ?Sized,
    {
        let indicator = match cause {
            AbortCause::Area(_, _, AreaFault::TooLong { .. }) => VmxAbort::MachineCheck,
            _ => indicator,
        };
        if let Some(at) = self.current() {
            let word = indicator.indicator().to_le_bytes();
            context.memory.write(at + ABORT_INDICATOR, &word);
        }
        self.state = State::Shutdown;
        Abort {
            indicator: Some(indicator),
            cause,
        }
    }
}
