//! What a guest does, and whether it exits. SDM volume 3, "VMX Non-Root Operation".

use vlbr_arch::Msr;
use vlbr_arch::vmx::{ExitReason, VmcsField};
use vlbr_cpu::ledger::{Actor, Event as Row};

use super::{Mode, Slow, reason};
use crate::ends::{Ends, Told};

/// An instruction that accesses an MSR.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Access {
    Rdmsr,
    Wrmsr(u64),
    Wrmsrns(u64),
    /// With the index in an instruction of this length.
    RdmsrImmediate(u32),
    WrmsrnsImmediate(u64, u32),
}

impl Slow {
    /// A guest runs.
    fn guest(&self) -> Result<(), Ends> {
        match self.mode {
            Mode::NonRoot => Ok(()),
            Mode::Shutdown => Err(Ends::ShutDown),
            Mode::Off | Mode::Root => Err(Ends::NoGuest),
        }
    }

    /// hardware.md section 10: CPL, then the bitmaps, then the register.
    pub(crate) fn guest_msr(&mut self, access: Access, msr: u32, cpl: u8) -> Ends {
        if let Err(ends) = self.guest() {
            return ends;
        }
        if cpl != 0 {
            return Ends::Gp;
        }
        let write = match access {
            Access::Rdmsr | Access::RdmsrImmediate(_) => None,
            Access::Wrmsr(value) | Access::Wrmsrns(value) | Access::WrmsrnsImmediate(value, _) => {
                Some(value)
            }
        };
        if self.msr_exits(msr, write.is_some()) {
            let (number, qualification, length) = match access {
                Access::Rdmsr => (31, 0, 2),
                Access::Wrmsr(_) => (32, 0, 2),
                Access::Wrmsrns(_) => (32, 1, 3),
                Access::RdmsrImmediate(length) => (84, u64::from(msr), length),
                Access::WrmsrnsImmediate(_, length) => (85, u64::from(msr), length),
            };
            return Ends::Exited(Told {
                reason: number,
                qualification,
                length,
                msr: Some(msr),
                ..Told::default()
            });
        }
        let name = Msr::new(msr);
        match write {
            None => {
                let done = self.msrs.read(msr);
                self.count(
                    Actor::Guest,
                    if done.is_ok() {
                        Row::Rdmsr(name)
                    } else {
                        Row::RdmsrFault(name)
                    },
                );
                done.map_or_else(|fault| fault, Ends::Value)
            }
            Some(value) => {
                let done = self.msrs.write(msr, value);
                self.count(
                    Actor::Guest,
                    if done.is_ok() {
                        Row::Wrmsr(name)
                    } else {
                        Row::WrmsrFault(name)
                    },
                );
                done.map_or_else(|fault| fault, |()| Ends::Value(0))
            }
        }
    }

    /// "MSR-Bitmap Address": four bitmaps of 1024 bytes, for reads of low and high MSRs, then for
    /// writes.
    fn msr_exits(&self, msr: u32, write: bool) -> bool {
        if !self.primary(28) {
            return true;
        }
        let low = msr <= 0x1fff;
        let high = (0xc000_0000..=0xc000_1fff).contains(&msr);
        if !low && !high {
            return true;
        }
        let mut at = self.field(VmcsField::new(0x2004));
        if high {
            at += 0x400;
        }
        if write {
            at += 0x800;
        }
        let n = msr & 0x1fff;
        self.ram.byte(at + u64::from(n / 8)) >> (n % 8) & 1 == 1
    }

    pub(crate) fn exception(
        &self,
        vector: u8,
        kind: u32,
        error_code: Option<u32>,
        qualification: u64,
    ) -> Ends {
        if let Err(ends) = self.guest() {
            return ends;
        }
        let selected = vector < 32 && self.bit(VmcsField::EXCEPTION_BITMAP, vector.into());
        let mut exits = selected;
        if vector == 14 {
            let mask = self.field(VmcsField::PAGE_FAULT_ERROR_CODE_MASK);
            let code = self.field(VmcsField::PAGE_FAULT_ERROR_CODE_MATCH);
            if u64::from(error_code.unwrap_or(0)) & mask != code {
                exits = !selected;
            }
        }
        if !exits {
            return Ends::Stays;
        }
        let delivers = u32::from(error_code.is_some());
        Ends::Exited(Told {
            reason: reason(ExitReason::EXCEPTION_OR_NMI),
            qualification,
            interruption: 1 << 31 | delivers << 11 | kind << 8 | u32::from(vector),
            error_code: error_code.unwrap_or(0),
            ..Told::default()
        })
    }

    pub(crate) fn nmi(&self) -> Ends {
        if let Err(ends) = self.guest() {
            return ends;
        }
        if !self.pin(3) {
            return Ends::Stays;
        }
        Ends::Exited(Told {
            reason: reason(ExitReason::EXCEPTION_OR_NMI),
            interruption: 0x8000_0202,
            ..Told::default()
        })
    }

    pub(crate) fn external_interrupt(&self, vector: u8) -> Ends {
        if let Err(ends) = self.guest() {
            return ends;
        }
        if !self.pin(0) {
            return Ends::Stays;
        }
        let acknowledged = self.exit_control(15);
        Ends::Exited(Told {
            reason: reason(ExitReason::EXTERNAL_INTERRUPT),
            interruption: if acknowledged {
                1 << 31 | u32::from(vector)
            } else {
                0
            },
            ..Told::default()
        })
    }

    /// RDPMC exits, past the check of CPL.
    pub(crate) fn rdpmc(&self) -> Ends {
        if let Err(ends) = self.guest() {
            return ends;
        }
        if !self.primary(11) {
            return Ends::Stays;
        }
        Ends::Exited(Told {
            reason: reason(ExitReason::RDPMC),
            length: 2,
            ..Told::default()
        })
    }

    pub(crate) fn xsaves(&self, restore: bool, mask: u64, xss: u64, length: u32) -> Ends {
        if let Err(ends) = self.guest() {
            return ends;
        }
        if !self.secondary(20) {
            return Ends::Undefined;
        }
        let bitmap = self.field(VmcsField::XSS_EXIT_BITMAP);
        if (0..64).all(|bit| mask >> bit & xss >> bit & bitmap >> bit & 1 == 0) {
            return Ends::Stays;
        }
        Ends::Exited(Told {
            reason: if restore { 64 } else { 63 },
            length,
            ..Told::default()
        })
    }

    /// The timer at the present TSC.
    pub(crate) fn timer_exits(&self) -> Ends {
        if let Err(ends) = self.guest() {
            return ends;
        }
        match self.timer {
            Some(0) => Ends::Exited(Told {
                reason: reason(ExitReason::PREEMPTION_TIMER),
                ..Told::default()
            }),
            _ => Ends::Stays,
        }
    }

    /// The TSC at which the timer will read 0, of timers short enough to count down.
    pub(crate) fn timer_ends(&self, at_most: u32) -> Option<u64> {
        let period = 1 << (self.capabilities.misc() & 0x1f);
        let left = self.timer.filter(|left| (1..=at_most).contains(left))?;
        Some((0..left).fold(self.tsc, |at, _| (at / period + 1) * period))
    }
}
