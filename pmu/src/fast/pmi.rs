//! Interrupts, freezes, system-management mode, resets.

use vlbr_arch::{DebugCtl, DeliveryMode, LvtPc, PerfCapabilities, PerfGlobalStatus};

use super::Pmu;
use crate::{Environment, FreezeFlavour, Interrupt, Pending, PmiCause, Quirk, Reset, SmmRestore};

impl Pmu {
    /// See [`crate::Device::raise`]. Freezing is the core's: it does not ask the APIC.
    pub fn raise(&mut self, cause: PmiCause, environment: &mut dyn Environment) {
        environment.freeze_lbr(cause);
        let freeze = self.config.version >= 2
            && environment
                .debugctl()
                .contains(DebugCtl::FREEZE_PERFMON_ON_PMI)
            && !self.config.has(Quirk::FreezeBroken);
        if freeze {
            match self.config.flavour {
                FreezeFlavour::Legacy => self.global_ctrl = 0,
                FreezeFlavour::Streamlined => self.status |= PerfGlobalStatus::CTR_FRZ.bits(),
            }
            self.refresh();
        }
        self.post(cause);
    }

    /// The APIC is told of a PMI.
    fn post(&mut self, cause: PmiCause) {
        if self.lvtpc.contains(LvtPc::MASK) || self.pending.is_some() {
            return;
        }
        let interrupt = match self.lvtpc.delivery_mode() {
            DeliveryMode::Fixed if self.lvtpc.vector() >= 16 => {
                Interrupt::Fixed(self.lvtpc.vector())
            }
            DeliveryMode::Nmi => Interrupt::Nmi,
            DeliveryMode::Smi => Interrupt::Smi,
            DeliveryMode::Init => Interrupt::Init,
            DeliveryMode::ExtInt => Interrupt::ExtInt,
            // An error of the APIC, which tells of it in its own register.
            DeliveryMode::Fixed | DeliveryMode::Reserved(_) => return,
        };
        self.pending = Some(Pending {
            interrupt,
            cause,
            remaining: self.options.skid,
        });
    }

    /// See [`crate::Device::pending`].
    #[must_use]
    pub const fn pending(&self) -> Option<Pending> {
        self.pending
    }

    /// See [`crate::Device::deliver`].
    pub fn deliver(&mut self) -> Option<Interrupt> {
        let due = self.pending.filter(|pending| pending.remaining == 0)?;
        self.pending = None;
        self.lvtpc = self.lvtpc | LvtPc::MASK;
        Some(due.interrupt)
    }

    /// See [`crate::Device::lvtpc`].
    #[must_use]
    pub const fn lvtpc(&self) -> LvtPc {
        self.lvtpc
    }

    /// See [`crate::Device::set_lvtpc`].
    pub fn set_lvtpc(&mut self, entry: LvtPc) {
        let was_masked = self.lvtpc.contains(LvtPc::MASK);
        self.lvtpc = LvtPc::from_bits(entry.bits() & LvtPc::WRITABLE);
        let overflows =
            self.config.gp_bits | self.config.fixed_bits | PerfGlobalStatus::OVF_BUFFER.bits();
        if self.options.lvtpc_pend_on_unmask && was_masked && self.status & overflows != 0 {
            let buffer = self.status & PerfGlobalStatus::OVF_BUFFER.bits() != 0;
            self.post(if buffer {
                PmiCause::Pebs
            } else {
                PmiCause::Counter
            });
        }
    }

    /// See [`crate::Device::smi`].
    pub fn smi(&mut self, environment: &dyn Environment) {
        if self.in_smm {
            return;
        }
        self.in_smm = true;
        let freezes = self
            .config
            .capabilities
            .contains(PerfCapabilities::FREEZE_WHILE_SMM)
            && environment.debugctl().contains(DebugCtl::FREEZE_WHILE_SMM)
            && self.config.version >= 2;
        if freezes {
            self.smm_global_ctrl = Some(self.global_ctrl);
            self.global_ctrl = 0;
            self.refresh();
        }
    }

    /// See [`crate::Device::rsm`].
    pub fn rsm(&mut self) {
        self.in_smm = false;
        if let Some(previous) = self.smm_global_ctrl.take() {
            self.global_ctrl = match self.options.smm_restore {
                SmmRestore::Previous => previous,
                SmmRestore::AllOnes => self.config.gp_bits | self.config.fixed_bits,
            };
            self.refresh();
        }
    }

    pub(super) fn power_up(&mut self) {
        if self.config.version >= 2 {
            self.global_ctrl = self.config.gp_bits;
        }
        self.refresh();
    }

    /// See [`crate::Device::reset`].
    pub fn reset(&mut self, reset: Reset) {
        match reset {
            Reset::Reset => *self = Self::new(&self.profile, (*self.options).clone()),
            Reset::Init => {
                self.lvtpc = LvtPc::RESET;
                self.pending = None;
            }
        }
    }
}
