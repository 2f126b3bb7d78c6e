//! The VMX-preemption timer.

/// A running preemption timer. SDM volume 3, "VMX-Preemption Timer".
///
/// It counts down by 1 whenever bit `shift` of the TSC changes, and causes a VM exit at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PreemptionTimer {
    start: u64,
    value: u32,
    shift: u32,
}

impl PreemptionTimer {
    /// A timer that begins with `value` when the TSC reads `tsc`; `shift` is
    /// `IA32_VMX_MISC[4:0]`.
    #[must_use]
    pub const fn new(value: u32, tsc: u64, shift: u32) -> Self {
        Self {
            start: tsc,
            value,
            shift: shift & 0x1f,
        }
    }

    /// What the timer reads at this TSC, which is not before the start.
    #[must_use]
    pub fn remaining(&self, tsc: u64) -> u32 {
        let ticks = (tsc >> self.shift).saturating_sub(self.start >> self.shift);
        u64::from(self.value).saturating_sub(ticks) as u32
    }

    /// Whether it has reached 0.
    #[must_use]
    pub fn expired(&self, tsc: u64) -> bool {
        self.remaining(tsc) == 0
    }

    /// The first TSC value at which it reads 0; `None` if the TSC wraps before.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        if self.value == 0 {
            return Some(self.start);
        }
        let ticks = (self.start >> self.shift).checked_add(u64::from(self.value))?;
        let deadline = ticks << self.shift;
        (deadline >> self.shift == ticks).then_some(deadline)
    }
}
