//! VM exits and VMX aborts. SDM volume 3, "VM Exits".

use vlbr_arch::Msr;
use vlbr_arch::vmx::{ExitReason, MsrArea, VmcsField};
use vlbr_cpu::ledger::Event as Row;

use super::{Gprs, Mode, Slow};
use crate::ends::{Ends, Told};

impl Slow {
    pub(crate) fn exit(&mut self, told: &Told) -> Ends {
        match self.mode {
            Mode::Shutdown => return Ends::ShutDown,
            Mode::Off | Mode::Root => return Ends::NoGuest,
            Mode::NonRoot => {}
        }
        self.hardware(Row::VmExit {
            reason: ExitReason::new(told.reason & 0xffff),
            msr: told.msr.map(Msr::new),
        });
        // "Recording VM-Exit Information".
        self.put(VmcsField::VM_EXIT_REASON, told.reason.into());
        self.put(VmcsField::EXIT_QUALIFICATION, told.qualification);
        self.put(VmcsField::VM_EXIT_INTR_INFO, told.interruption.into());
        self.put(VmcsField::VM_EXIT_INTR_ERROR_CODE, told.error_code.into());
        self.put(
            VmcsField::IDT_VECTORING_INFO_FIELD,
            told.idt_vectoring.into(),
        );
        self.put(
            VmcsField::IDT_VECTORING_ERROR_CODE,
            told.idt_error_code.into(),
        );
        self.put(VmcsField::VM_EXIT_INSTRUCTION_LEN, told.length.into());
        self.put(VmcsField::VMX_INSTRUCTION_INFO, told.info.into());
        self.put(VmcsField::GUEST_LINEAR_ADDRESS, told.linear);
        self.put(VmcsField::GUEST_PHYSICAL_ADDRESS, told.physical);
        let injected = self.field(VmcsField::VM_ENTRY_INTR_INFO_FIELD) & 0x7fff_ffff;
        self.put(VmcsField::VM_ENTRY_INTR_INFO_FIELD, injected);

        let stored = self.save_guest();
        self.timer = None;
        let ends = match stored {
            Ok(()) => self.load_host(),
            Err(0) => Err(self.abort(5)),
            Err(_) => Err(self.abort(1)),
        };
        ends.map_or_else(Ends::Aborted, |()| Ends::Done)
    }

    /// "Saving Guest State", "Saving MSRs"; a refused register is as one of the area.
    fn save_guest(&mut self) -> Result<(), u64> {
        let has_lbr_ctl = self.capabilities.has_field(0x2816);
        for (saves, field, msr) in [
            (
                self.exit_control(2),
                VmcsField::GUEST_IA32_DEBUGCTL,
                Msr::DEBUGCTL,
            ),
            (
                self.exit_control(30),
                VmcsField::GUEST_IA32_PERF_GLOBAL_CTRL,
                Msr::PERF_GLOBAL_CTRL,
            ),
            (has_lbr_ctl, VmcsField::GUEST_IA32_LBR_CTL, Msr::LBR_CTL),
        ] {
            if saves {
                let value = self.msrs.read(msr.value()).map_err(|_| 1u64)?;
                self.put(field, value);
                self.hardware(Row::FieldSave(msr));
            }
        }
        if self.exit_control(2) {
            self.put(VmcsField::GUEST_DR7, self.gprs.dr7);
        }
        self.put(VmcsField::GUEST_RIP, self.gprs.rip);
        self.put(VmcsField::GUEST_RSP, self.gprs.rsp);
        self.put(VmcsField::GUEST_RFLAGS, self.gprs.rflags);
        if let Some(left) = self.timer.filter(|_| self.exit_control(22)) {
            self.put(VmcsField::VMX_PREEMPTION_TIMER_VALUE, left.into());
        }
        self.area(MsrArea::ExitStore)
    }

    /// "Loading Host State", "Loading MSRs": the indicator of the abort, if it comes to one.
    pub(super) fn load_host(&mut self) -> Result<(), u32> {
        match self.try_load_host() {
            Ok(()) => {
                self.mode = Mode::Root;
                Ok(())
            }
            Err(0) => Err(self.abort(5)),
            Err(_) => Err(self.abort(4)),
        }
    }

    fn try_load_host(&mut self) -> Result<(), u64> {
        let refused = |_| 1u64;
        self.msrs.write(Msr::DEBUGCTL.value(), 0).map_err(refused)?;
        self.hardware(Row::FieldClear(Msr::DEBUGCTL));
        if self.exit_control(12) {
            let value = self.field(VmcsField::HOST_IA32_PERF_GLOBAL_CTRL);
            self.msrs
                .write(Msr::PERF_GLOBAL_CTRL.value(), value)
                .map_err(refused)?;
            self.hardware(Row::FieldLoad(Msr::PERF_GLOBAL_CTRL));
        }
        if self.exit_control(26) {
            self.msrs.write(Msr::LBR_CTL.value(), 0).map_err(refused)?;
            self.hardware(Row::FieldClear(Msr::LBR_CTL));
        }
        self.gprs = Gprs {
            rip: self.field(VmcsField::HOST_RIP),
            rsp: self.field(VmcsField::HOST_RSP),
            rflags: 2,
            dr7: 0x400,
        };
        self.area(MsrArea::ExitLoad)
    }

    /// "VMX Aborts".
    fn abort(&mut self, indicator: u32) -> u32 {
        if let Some(at) = self.current {
            self.ram.set_word(at + 4, indicator.into(), 4);
        }
        self.mode = Mode::Shutdown;
        indicator
    }
}
