//! What VM entry checks. SDM volume 3, "Checks on VMX Controls", "Checks on Host-State Area",
//! "Checks on Guest State": the rules on MSRs, debug control, counters and events, in the order of
//! the manual. Each function says whether everything is as it must be.

use vlbr_arch::vmx::VmcsField;

use super::Slow;
use super::capabilities::{ENTRY, EXIT, PIN, PRIMARY, SECONDARY};

const DEBUGCTL: u32 = 0x1d9;
const PERF_GLOBAL_CTRL: u32 = 0x38f;
const LBR_CTL: u32 = 0x14ce;

/// Exceptions that push an error code.
const PUSHES: [u64; 7] = [8, 10, 11, 12, 13, 14, 17];

impl Slow {
    pub(super) fn pin(&self, bit: u32) -> bool {
        self.bit(PIN.field, bit)
    }

    pub(super) fn primary(&self, bit: u32) -> bool {
        self.bit(PRIMARY.field, bit)
    }

    /// A secondary control, 0 unless primary control 31 activates them.
    pub(super) fn secondary(&self, bit: u32) -> bool {
        self.primary(31) && self.bit(SECONDARY.field, bit)
    }

    pub(super) fn exit_control(&self, bit: u32) -> bool {
        self.bit(EXIT.field, bit)
    }

    pub(super) fn entry_control(&self, bit: u32) -> bool {
        self.bit(ENTRY.field, bit)
    }

    fn area_fits(&self, address: u32, count: u32) -> bool {
        let address = self.field(VmcsField::new(address));
        let count = self.field(VmcsField::new(count));
        if count == 0 {
            return true;
        }
        let last = u128::from(address) + 16 * u128::from(count) - 1;
        address & 0xf == 0 && last >> self.address_bits() == 0
    }

    /// "VM-Execution Control Fields", "VM-Exit Control Fields", "VM-Entry Control Fields".
    pub(super) fn controls_are_good(&self) -> bool {
        let accept = |vector: super::capabilities::Vector| {
            self.capabilities.accept(vector, self.field(vector.field))
        };
        if !accept(PIN) || !accept(PRIMARY) {
            return false;
        }
        if self.primary(31) && !accept(SECONDARY) {
            return false;
        }
        if self.primary(28) && !self.page_address(self.field(VmcsField::new(0x2004))) {
            return false;
        }
        // NMI exiting 0: virtual NMIs 0. Virtual NMIs 0: NMI-window exiting 0.
        if !self.pin(3) && self.pin(5) {
            return false;
        }
        if !self.pin(5) && self.primary(22) {
            return false;
        }
        if !accept(EXIT) {
            return false;
        }
        if !self.pin(6) && self.exit_control(22) {
            return false;
        }
        if !self.area_fits(0x2006, 0x400e) || !self.area_fits(0x2008, 0x4010) {
            return false;
        }
        if !accept(ENTRY) {
            return false;
        }
        if !self.injection_is_good() {
            return false;
        }
        if !self.area_fits(0x200a, 0x4014) {
            return false;
        }
        // Outside SMM neither; in SMM not both.
        match (self.entry_control(10), self.entry_control(11)) {
            (false, false) => true,
            (true, true) => false,
            _ => self.in_smm,
        }
    }

    /// The VM-entry interruption-information field, if its valid bit is 1: type and vector.
    pub(super) fn injection(&self) -> Option<(u64, u64)> {
        let info = self.field(VmcsField::new(0x4016));
        (info >> 31 & 1 == 1).then_some((info >> 8 & 7, info & 0xff))
    }

    fn injection_is_good(&self) -> bool {
        let Some((kind, vector)) = self.injection() else {
            return true;
        };
        let info = self.field(VmcsField::new(0x4016));
        if kind == 1 {
            return false;
        }
        if kind == 7 && !self.capabilities.may(PRIMARY, 27) {
            return false;
        }
        let vector_fits = match kind {
            2 => vector == 2,
            3 => vector <= 31,
            7 => vector == 0,
            _ => true,
        };
        if !vector_fits {
            return false;
        }
        let real_mode = self.secondary(7) && self.field(VmcsField::GUEST_CR0) & 1 == 0;
        let delivers = info >> 11 & 1 == 1;
        let hardware_exception = kind == 3 && !real_mode;
        // With bit 56 of IA32_VMX_BASIC any hardware exception may come with or without.
        let either = hardware_exception && self.capabilities.basic() >> 56 & 1 == 1;
        let pushes = hardware_exception && PUSHES.contains(&vector);
        if !either && delivers != pushes {
            return false;
        }
        if info >> 12 & 0x7_ffff != 0 {
            return false;
        }
        let code = self.field(VmcsField::new(0x4018));
        if delivers && code >> 15 != 0 {
            return false;
        }
        if [4, 5, 6].contains(&kind) {
            let length = self.field(VmcsField::new(0x401a));
            if length > 15 {
                return false;
            }
            if length == 0 && self.capabilities.misc() >> 30 & 1 == 0 {
                return false;
            }
        }
        true
    }

    /// "Checks on Host Control Registers, MSRs, and SSP".
    pub(super) fn host_is_good(&self) -> bool {
        let value = self.field(VmcsField::HOST_IA32_PERF_GLOBAL_CTRL);
        !self.exit_control(12) || self.msrs.keeps_reserved_bits(PERF_GLOBAL_CTRL, value)
    }

    /// "Checks on Guest Control Registers, Debug Registers, and MSRs", "Checks on Guest RIP, RFLAGS,
    /// and SSP", "Checks on Guest Non-Register State".
    pub(super) fn guest_is_good(&self) -> bool {
        let debugctl = self.field(VmcsField::GUEST_IA32_DEBUGCTL);
        if self.entry_control(2) {
            if !self.msrs.keeps_reserved_bits(DEBUGCTL, debugctl) {
                return false;
            }
            if self.field(VmcsField::GUEST_DR7) > 0xffff_ffff {
                return false;
            }
        }
        let global = self.field(VmcsField::GUEST_IA32_PERF_GLOBAL_CTRL);
        if self.entry_control(13) && !self.msrs.keeps_reserved_bits(PERF_GLOBAL_CTRL, global) {
            return false;
        }
        let lbr_ctl = self.field(VmcsField::GUEST_IA32_LBR_CTL);
        if self.entry_control(21) && !self.msrs.keeps_reserved_bits(LBR_CTL, lbr_ctl) {
            return false;
        }

        let flags = self.field(VmcsField::GUEST_RFLAGS);
        for bit in 0..64 {
            let set = flags >> bit & 1 == 1;
            match bit {
                1 if !set => return false,
                3 | 5 | 15 | 22.. if set => return false,
                _ => {}
            }
        }
        let (trap, interrupts) = (flags >> 8 & 1 == 1, flags >> 9 & 1 == 1);
        let injection = self.injection();
        if matches!(injection, Some((0, _))) && !interrupts {
            return false;
        }

        let activity = self.field(VmcsField::GUEST_ACTIVITY_STATE);
        let exists = match activity {
            0 => true,
            1..=3 => self.capabilities.misc() >> (5 + activity) & 1 == 1,
            _ => false,
        };
        if !exists {
            return false;
        }
        let blocking = |bit| self.bit(VmcsField::GUEST_INTERRUPTIBILITY_INFO, bit);
        let (sti, mov_ss) = (blocking(0), blocking(1));
        if activity != 0 && (sti || mov_ss) {
            return false;
        }
        // What would wake the processor in that state: in HLT interrupts, NMIs, #DB, #MC and a
        // pending MTF exit; in shutdown NMIs and #MC; in wait-for-SIPI nothing.
        let wakes = match (activity, injection) {
            (0, _) | (_, None) => true,
            (1, Some(event)) => {
                matches!(event, (0, _) | (2, _) | (3, 1 | 18) | (7, _))
            }
            (2, Some(event)) => matches!(event, (2, _) | (3, 18)),
            _ => false,
        };
        if !wakes {
            return false;
        }

        if self.field(VmcsField::GUEST_INTERRUPTIBILITY_INFO) >> 5 != 0 {
            return false;
        }
        if sti && mov_ss {
            return false;
        }
        if sti && !interrupts {
            return false;
        }
        if matches!(injection, Some((0, _))) && (sti || mov_ss) {
            return false;
        }
        if matches!(injection, Some((2, _))) && mov_ss {
            return false;
        }
        if blocking(2) && !self.in_smm {
            return false;
        }
        // "Entry to SMM" enters where SMIs are blocked.
        if self.entry_control(10) && !blocking(2) {
            return false;
        }
        // With virtual NMIs an injected NMI must not be blocked.
        if self.pin(5) && matches!(injection, Some((2, _))) && blocking(3) {
            return false;
        }
        if blocking(4) && mov_ss {
            return false;
        }

        let pending = self.field(VmcsField::GUEST_PENDING_DBG_EXCEPTIONS);
        for bit in 0..64 {
            let named = matches!(bit, 0..=3 | 11 | 12 | 14 | 16);
            if !named && pending >> bit & 1 == 1 {
                return false;
            }
        }
        let step = pending >> 14 & 1 == 1;
        let wants_step = trap && debugctl >> 1 & 1 == 0;
        if (sti || mov_ss || activity == 1) && step != wants_step {
            return false;
        }
        if pending >> 16 & 1 == 1 {
            let others = pending & !(1 << 12 | 1 << 16);
            if others != 0 || pending >> 12 & 1 == 0 || mov_ss {
                return false;
            }
        }
        true
    }
}
