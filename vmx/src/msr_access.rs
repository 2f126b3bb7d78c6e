//! RDMSR and WRMSR in non-root operation.

use vlbr_arch::vmx::{ExitReason, PrimaryControls, VmcsField};
use vlbr_arch::{Cpl, Msr};
use vlbr_cpu::ledger::{Actor, MsrAccess};

use crate::context::Context;
use crate::error::Fail;
use crate::{Access, MsrBitmap, PhysicalMemory, VmExit, Vmx};

/// An instruction of the guest that accesses an MSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestMsr {
    /// RDMSR.
    Rdmsr,
    /// WRMSR.
    Wrmsr(u64),
    /// WRMSRNS.
    Wrmsrns(u64),
    /// RDMSR with the index in the instruction, and its length.
    RdmsrImmediate(u32),
    /// WRMSRNS likewise.
    WrmsrnsImmediate(u64, u32),
}

impl GuestMsr {
    const fn access(self) -> Access {
        match self {
            Self::Rdmsr | Self::RdmsrImmediate(_) => Access::Read,
            Self::Wrmsr(_) | Self::Wrmsrns(_) | Self::WrmsrnsImmediate(..) => Access::Write,
        }
    }

    /// Exit reason, qualification and length. WRMSRNS has three bytes, RDMSR and WRMSR two.
    const fn exit(self, msr: Msr) -> VmExit {
        let (reason, qualification, length) = match self {
            Self::Rdmsr => (ExitReason::RDMSR, 0, 2),
            Self::Wrmsr(_) => (ExitReason::WRMSR, 0, 2),
            Self::Wrmsrns(_) => (ExitReason::WRMSR, 1, 3),
            Self::RdmsrImmediate(length) => {
                (ExitReason::RDMSR_IMMEDIATE, msr.value() as u64, length)
            }
            Self::WrmsrnsImmediate(_, length) => {
                (ExitReason::WRMSRNS_IMMEDIATE, msr.value() as u64, length)
            }
        };
        VmExit {
            qualification,
            msr: Some(msr),
            ..VmExit::of_instruction(reason, length)
        }
    }
}

/// What stops a guest's access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestMsrStop<F> {
    /// No guest runs.
    #[error("{0}")]
    State(#[from] Fail),
    /// `#GP(0)`: CPL is not 0. No exit, whatever the bitmaps say.
    #[error("#GP(0): an MSR access at {0:?}")]
    Privilege(Cpl),
    /// VM exit, whether the MSR exists or not.
    #[error("VM exit: {}", .0.reason)]
    Exit(VmExit),
    /// `#GP(0)` of the access itself.
    #[error("{0}")]
    Gp(F),
}

impl Vmx {
    /// RDMSR or WRMSR of the guest. Checks in order: CPL, MSR bitmaps, the register itself. A read
    /// returns its value, a write 0.
    ///
    /// # Errors
    /// See [`GuestMsrStop`]; an exit is only told, [`Vmx::exit`] makes it.
    pub fn guest_msr<M, P>(
        &self,
        instruction: GuestMsr,
        msr: Msr,
        cpl: Cpl,
        context: &mut Context<'_, M, P>,
    ) -> Result<u64, GuestMsrStop<M::Fault>>
    where
        M: MsrAccess + ?Sized,
        P: PhysicalMemory + ?Sized,
    {
        self.non_root()?;
        if !cpl.is_kernel() {
            return Err(GuestMsrStop::Privilege(cpl));
        }
        if self.intercepts_msr(msr, instruction.access(), context.memory)? {
            return Err(GuestMsrStop::Exit(instruction.exit(msr)));
        }
        let (ledger, msrs) = (&mut *context.ledger, &mut *context.msrs);
        match instruction {
            GuestMsr::Rdmsr | GuestMsr::RdmsrImmediate(_) => ledger.rdmsr(Actor::Guest, msrs, msr),
            GuestMsr::Wrmsr(value)
            | GuestMsr::Wrmsrns(value)
            | GuestMsr::WrmsrnsImmediate(value, _) => {
                ledger.wrmsr(Actor::Guest, msrs, msr, value).map(|()| 0)
            }
        }
        .map_err(GuestMsrStop::Gp)
    }

    /// Whether the controls and the MSR bitmaps in memory make this access exit.
    ///
    /// # Errors
    /// No guest runs.
    pub fn intercepts_msr(
        &self,
        msr: Msr,
        access: Access,
        memory: &(impl PhysicalMemory + ?Sized),
    ) -> Result<bool, Fail> {
        let vmcs = self.non_root()?;
        if !vmcs
            .primary_controls()
            .contains(PrimaryControls::USE_MSR_BITMAPS)
        {
            return Ok(true);
        }
        let Some(position) = MsrBitmap::position(msr, access) else {
            return Ok(true);
        };
        let mut byte = [0];
        let bitmap = vmcs.field(VmcsField::MSR_BITMAP);
        memory.read(bitmap.wrapping_add(position as u64 / 8), &mut byte);
        Ok(byte[0] & 1 << (position % 8) != 0)
    }
}
