//! What causes a VM exit, MSR accesses aside.

use vlbr_arch::vmx::{
    ExitControls, ExitReason, InterruptionInfo, InterruptionType, PinControls, PrimaryControls,
    SecondaryControls, VmcsField,
};

use crate::error::Fail;
use crate::{VmExit, Vmx};

const PAGE_FAULT: u8 = 14;

impl Vmx {
    /// An exception of the guest: the exit it causes, if the exception bitmap selects it. The
    /// qualification is the address of a page fault and the DR6 bits of a `#DB`.
    ///
    /// A `#DB` that exits changes neither DR6 nor `IA32_DEBUGCTL`: recording goes on until the exit
    /// itself clears the register.
    ///
    /// # Errors
    /// No guest runs.
    pub fn exception(
        &self,
        vector: u8,
        kind: InterruptionType,
        error_code: Option<u32>,
        qualification: u64,
    ) -> Result<Option<VmExit>, Fail> {
        let vmcs = self.non_root()?;
        let selected = match vector {
            0..32 => vmcs.field32(VmcsField::EXCEPTION_BITMAP) & 1 << vector != 0,
            _ => false,
        };
        let exits = if vector == PAGE_FAULT {
            let mask = vmcs.field32(VmcsField::PAGE_FAULT_ERROR_CODE_MASK);
            let matches = error_code.unwrap_or(0) & mask
                == vmcs.field32(VmcsField::PAGE_FAULT_ERROR_CODE_MATCH);
            selected == matches
        } else {
            selected
        };
        if !exits {
            return Ok(None);
        }
        let info = InterruptionInfo::new(vector, kind);
        Ok(Some(VmExit {
            qualification,
            interruption: match error_code {
                Some(_) => info.with_error_code(),
                None => info,
            },
            error_code: error_code.unwrap_or(0),
            ..VmExit::new(ExitReason::EXCEPTION_OR_NMI)
        }))
    }

    /// An NMI, such as a PMI that LVTPC delivers as one.
    ///
    /// # Errors
    /// No guest runs.
    pub fn nmi(&self) -> Result<Option<VmExit>, Fail> {
        let exits = self
            .non_root()?
            .pin_controls()
            .contains(PinControls::NMI_EXITING);
        Ok(exits.then(|| VmExit {
            interruption: InterruptionInfo::new(2, InterruptionType::Nmi),
            ..VmExit::new(ExitReason::EXCEPTION_OR_NMI)
        }))
    }

    /// An external interrupt, such as a PMI with a vector. The exit tells the vector only if it
    /// acknowledges the interrupt.
    ///
    /// # Errors
    /// No guest runs.
    pub fn external_interrupt(&self, vector: u8) -> Result<Option<VmExit>, Fail> {
        let vmcs = self.non_root()?;
        if !vmcs
            .pin_controls()
            .contains(PinControls::EXTERNAL_INTERRUPT_EXITING)
        {
            return Ok(None);
        }
        let told = vmcs
            .exit_controls()
            .contains(ExitControls::ACKNOWLEDGE_INTERRUPT);
        Ok(Some(VmExit {
            interruption: if told {
                InterruptionInfo::new(vector, InterruptionType::External)
            } else {
                InterruptionInfo::default()
            },
            ..VmExit::new(ExitReason::EXTERNAL_INTERRUPT)
        }))
    }

    /// RDPMC; the check of CPL and CR4.PCE comes before.
    ///
    /// # Errors
    /// No guest runs.
    pub fn rdpmc(&self) -> Result<Option<VmExit>, Fail> {
        let exits = self
            .non_root()?
            .primary_controls()
            .contains(PrimaryControls::RDPMC_EXITING);
        Ok(exits.then(|| VmExit::of_instruction(ExitReason::RDPMC, 2)))
    }

    /// XSAVES or XRSTORS (`restore`) of `length` bytes with EDX:EAX = `mask` and this `IA32_XSS`:
    /// the exit it causes, if the XSS-exiting bitmap selects a component that is in both. The
    /// outer `None`: the instruction does not exist in this guest, `#UD`.
    ///
    /// # Errors
    /// No guest runs.
    pub fn xsaves(
        &self,
        restore: bool,
        mask: u64,
        xss: u64,
        length: u32,
    ) -> Result<Option<Option<VmExit>>, Fail> {
        let vmcs = self.non_root()?;
        if !vmcs
            .secondary_controls()
            .contains(SecondaryControls::ENABLE_XSAVES_XRSTORS)
        {
            return Ok(None);
        }
        let exits = mask & xss & vmcs.field(VmcsField::XSS_EXIT_BITMAP) != 0;
        let reason = if restore {
            ExitReason::XRSTORS
        } else {
            ExitReason::XSAVES
        };
        Ok(Some(exits.then(|| VmExit::of_instruction(reason, length))))
    }

    /// The preemption timer at this TSC: the exit, if it has reached 0.
    ///
    /// # Errors
    /// No guest runs.
    pub fn preemption_timer(&self, tsc: u64) -> Result<Option<VmExit>, Fail> {
        self.non_root()?;
        let expired = self.timer.is_some_and(|timer| timer.expired(tsc));
        Ok(expired.then(|| VmExit::new(ExitReason::PREEMPTION_TIMER)))
    }

    /// The TSC at which the preemption timer exits, if one runs and the TSC does not wrap before.
    ///
    /// # Errors
    /// No guest runs.
    pub fn preemption_deadline(&self) -> Result<Option<u64>, Fail> {
        self.non_root()?;
        Ok(self.timer.and_then(|timer| timer.deadline()))
    }
}
