//! The two ends: no LBR for the guest, and a processor of its own.

use super::{Policy, offer};
use crate::kvm::{Access, Answer, Call};
use crate::machine::Host;
use crate::perf::{Behaviour, GuestLbr, KernelVersion};

/// The guest is offered no LBR. What it then gets of `IA32_DEBUGCTL` is what KVM did before it
/// knew of LBR: reads give 0; 0, LBR and BTF can be written without effect.
#[derive(Clone, Copy, Debug)]
pub struct NoLbr {
    name: &'static str,
    title: &'static str,
    mediated: bool,
}

impl NoLbr {
    /// No LBR.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            name: "none",
            title: "LBR is not offered to the guest",
            mediated: false,
        }
    }

    /// The mediated vPMU, which offers no LBR: the guest has the counters, and no LBR MSR is
    /// switched.
    #[must_use]
    pub const fn mediated() -> Self {
        Self {
            name: "mediated",
            title: "mediated vPMU: LBR is not offered",
            mediated: true,
        }
    }
}

/// The guest has an LBR and a PMU of its own, and its accesses do not exit: what the others are
/// compared with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ideal;

impl Policy for NoLbr {
    fn name(&self) -> &str {
        self.name
    }

    fn title(&self) -> &str {
        self.title
    }

    fn kernel(&self) -> Option<KernelVersion> {
        self.mediated.then_some(KernelVersion::new(6, 16, 0))
    }

    fn adjust(&self, behaviour: &mut Behaviour) {
        behaviour.guest_lbr = GuestLbr::None;
    }

    fn access(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        offer::without_lbr(host, call, access)
    }
}

impl Policy for Ideal {
    fn name(&self) -> &str {
        "ideal"
    }

    fn title(&self) -> &str {
        "a processor of the guest's own: the yardstick"
    }

    fn adjust(&self, behaviour: &mut Behaviour) {
        behaviour.guest_lbr = GuestLbr::None;
        behaviour.callstack_users_by_event = true;
    }

    fn is_yardstick(&self) -> bool {
        true
    }
}
