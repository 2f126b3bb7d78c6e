//! VMLAUNCH and VMRESUME. SDM volume 3, "VM Entries".

use vlbr_arch::Msr;
use vlbr_arch::vmx::{ExitReason, MsrArea, VmcsField};
use vlbr_cpu::ledger::Event as Row;

use super::{Mode, Slow, reason};
use crate::ends::{Ends, Event};

impl Slow {
    /// `shadow`: the instruction before loaded SS.
    pub(crate) fn enter(&mut self, launch: bool, shadow: bool) -> Ends {
        match self.mode {
            Mode::Off => return Ends::Undefined,
            Mode::NonRoot => return Ends::WouldExit,
            Mode::Shutdown => return Ends::ShutDown,
            Mode::Root => {}
        }
        // Basic checks.
        let Some(region) = self.current.and_then(|at| self.regions.get(&at)) else {
            return Ends::FailInvalid;
        };
        let launched = region.launched;
        if shadow {
            return self.vmfail(26);
        }
        if launch && launched {
            return self.vmfail(4);
        }
        if !launch && !launched {
            return self.vmfail(5);
        }
        // Checks on controls and on host state.
        if !self.controls_are_good() {
            return self.vmfail(7);
        }
        if !self.host_is_good() {
            return self.vmfail(8);
        }
        // Checks on guest state, and loading of it.
        if !self.guest_is_good() || !self.load_guest() {
            return self.entry_fails(reason(ExitReason::INVALID_GUEST_STATE), 0);
        }
        // MSRs.
        match self.area(MsrArea::EntryLoad) {
            Ok(()) => {}
            Err(0) => return self.entry_fails(reason(ExitReason::MACHINE_CHECK), 0),
            Err(n) => return self.entry_fails(reason(ExitReason::MSR_LOADING), n),
        }
        self.hardware(Row::VmEntry);
        let at = self.current.expect("found above");
        self.regions.get_mut(&at).expect("found above").launched = true;
        self.mode = Mode::NonRoot;
        if self.pin(6) {
            self.timer = Some(self.field(VmcsField::VMX_PREEMPTION_TIMER_VALUE) as u32);
        }
        Ends::Entered(self.event())
    }

    /// "Loading Guest Control Registers, Debug Registers, and MSRs": whether the processor took
    /// what the checks let through.
    fn load_guest(&mut self) -> bool {
        for (control, field, msr) in [
            (2, VmcsField::GUEST_IA32_DEBUGCTL, Msr::DEBUGCTL),
            (
                13,
                VmcsField::GUEST_IA32_PERF_GLOBAL_CTRL,
                Msr::PERF_GLOBAL_CTRL,
            ),
            (21, VmcsField::GUEST_IA32_LBR_CTL, Msr::LBR_CTL),
        ] {
            if !self.entry_control(control) {
                continue;
            }
            if self.msrs.write(msr.value(), self.field(field)).is_err() {
                return false;
            }
            self.hardware(Row::FieldLoad(msr));
        }
        if self.entry_control(2) {
            self.gprs.dr7 = self.field(VmcsField::GUEST_DR7);
        }
        self.gprs.rip = self.field(VmcsField::GUEST_RIP);
        self.gprs.rsp = self.field(VmcsField::GUEST_RSP);
        self.gprs.rflags = self.field(VmcsField::GUEST_RFLAGS);
        true
    }

    /// The event to inject, with what comes with it.
    fn event(&self) -> Option<Event> {
        let info = self.field(VmcsField::VM_ENTRY_INTR_INFO_FIELD) as u32;
        let (kind, _) = self.injection()?;
        Some(Event {
            info,
            error_code: (info >> 11 & 1 == 1)
                .then(|| self.field(VmcsField::VM_ENTRY_EXCEPTION_ERROR_CODE) as u32),
            length: matches!(kind, 4..=6)
                .then(|| self.field(VmcsField::VM_ENTRY_INSTRUCTION_LEN) as u32),
        })
    }

    /// "VM-Entry Failures During or After Loading Guest State".
    fn entry_fails(&mut self, basic: u32, qualification: u64) -> Ends {
        let number = basic | 1 << 31;
        self.hardware(Row::VmEntryFailure(ExitReason::new(basic)));
        self.put(VmcsField::VM_EXIT_REASON, number.into());
        self.put(VmcsField::EXIT_QUALIFICATION, qualification);
        match self.load_host() {
            Ok(()) => Ends::EntryFailed(number, qualification),
            Err(indicator) => Ends::EntryAborted(number, qualification, indicator),
        }
    }
}
