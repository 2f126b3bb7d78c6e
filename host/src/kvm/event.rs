//! The perf event that stands for a guest's LBR.

use vlbr_arch::Msr;

use super::{Call, Note};
use crate::VcpuId;
use crate::hardware::LbrMsrs;
use crate::machine::Host;
use crate::perf::{Creator, Errno, Event, EventAttr, EventState, Target};

/// `struct x86_perf_lbr_stack` as v8 copies it to user space: 20 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LbrStack {
    /// Entries.
    pub nr: u32,
    /// TOS.
    pub tos: u32,
    /// FROM of entry 0.
    pub from: u32,
    /// TO of entry 0.
    pub to: u32,
    /// INFO of entry 0, or 0.
    pub info: u32,
}

impl LbrStack {
    /// Its size in bytes.
    pub const SIZE: u32 = 20;

    /// That of a part.
    #[must_use]
    pub fn of(msrs: &LbrMsrs) -> Self {
        Self {
            nr: msrs.nr,
            tos: msrs.tos.map_or(0, Msr::value),
            from: msrs.from.value(),
            to: msrs.to.value(),
            info: msrs.info.map_or(0, Msr::value),
        }
    }
}

impl Host {
    /// Creates the vCPU's LBR event for the thread that runs, unless there is one.
    /// `intel_pmu_create_lbr_event`, `intel_pmu_create_guest_lbr_event`.
    ///
    /// # Errors
    /// Those of `perf_event_create_kernel_counter`. An event that cannot be scheduled is no error.
    pub fn create_lbr_event(&mut self, call: Call, attr: EventAttr) -> Result<(), Errno> {
        if self.vcpu(call.vcpu).lbr.event.is_some() {
            return Ok(());
        }
        let target = Target::Task(call.thread);
        let opened = self
            .perf
            .open(&mut self.hardware, attr, target, Creator::Kvm, None);
        match opened {
            Ok(event) => {
                self.vcpu_mut(call.vcpu).lbr.event = Some(event);
                self.note(call.vcpu, Note::EventCreated);
                Ok(())
            }
            Err(error) => {
                self.note(call.vcpu, Note::CreationFailed);
                Err(error)
            }
        }
    }

    /// Releases the vCPU's LBR event, if it has one. `intel_pmu_free_lbr_event`,
    /// `intel_pmu_release_guest_lbr_event`.
    pub fn release_lbr_event(&mut self, vcpu: VcpuId) {
        let lbr = &mut self.vcpu_mut(vcpu).lbr;
        lbr.in_use = false;
        if let Some(event) = lbr.event.take() {
            let released = self.perf.release(&mut self.hardware, event);
            debug_assert!(released.is_ok());
            self.note(vcpu, Note::EventReleased);
        }
    }

    /// The vCPU's LBR event.
    #[must_use]
    pub fn lbr_event(&self, vcpu: VcpuId) -> Option<&Event> {
        self.perf.event(self.vcpu(vcpu).lbr.event?)
    }

    /// Whether the event is on some processor: v8's test, which does not ask on which.
    #[must_use]
    pub fn lbr_event_is_on(&self, vcpu: VcpuId) -> bool {
        self.lbr_event(vcpu)
            .is_some_and(|event| event.oncpu().is_some())
    }

    /// Whether the event is ACTIVE: upstream's test.
    #[must_use]
    pub fn lbr_event_is_active(&self, vcpu: VcpuId) -> bool {
        self.lbr_event(vcpu)
            .is_some_and(|event| event.state() == EventState::Active)
    }
}
