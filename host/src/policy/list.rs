//! The processor's own lists: Xen, VirtualBox.

use serde::{Deserialize, Serialize};
use vlbr_arch::vmx::MsrArea;
use vlbr_arch::{DebugCtl, Msr};
use vlbr_vmx::AreaEntry;

use super::Policy;
use super::offer::Offer;
use super::rules::knob;
use crate::VcpuId;
use crate::hardware::{LbrMsrs, LbrRegister};
use crate::kvm::{Access, Answer, Call, Initiator, Note, Operation};
use crate::machine::Host;
use crate::perf::{Behaviour, GuestLbr};

knob! {
    /// Which registers are in the lists.
    ListSet {
        /// Records, TOS, SELECT and the LER pair: N * E + 4.
        Xen,
        /// Records, TOS and the LER pair, not SELECT.
        Virtualbox,
    }
}

/// The knobs of lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ListRules {
    /// Which registers.
    pub set: ListSet,
    /// The lists are emptied when the guest clears LBR. No hypervisor does.
    pub disarms: bool,
}

/// VM entry loads the guest's registers from a list and VM exit stores them there, from the
/// guest's first `IA32_DEBUGCTL.LBR` on.
#[derive(Clone, Debug)]
pub struct ListPolicy {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) rules: ListRules,
}

impl ListPolicy {
    /// Xen's lists.
    #[must_use]
    pub fn xen() -> Self {
        Self {
            name: "msr-list".to_owned(),
            title: "VM-entry load and VM-exit store lists, armed once: Xen".to_owned(),
            rules: ListRules {
                set: ListSet::Xen,
                disarms: false,
            },
        }
    }

    /// VirtualBox's set.
    #[must_use]
    pub fn virtualbox() -> Self {
        Self {
            name: "msr-list-virtualbox".to_owned(),
            title: "the same with VirtualBox's registers: SELECT is left out".to_owned(),
            rules: ListRules {
                set: ListSet::Virtualbox,
                disarms: false,
            },
        }
    }

    /// Lists of these rules.
    #[must_use]
    pub fn new(name: &str, title: &str, rules: ListRules) -> Self {
        Self {
            name: name.to_owned(),
            title: title.to_owned(),
            rules,
        }
    }

    /// Its rules.
    #[must_use]
    pub const fn rules(&self) -> &ListRules {
        &self.rules
    }

    /// What is listed of a part.
    fn listed(&self, msrs: &LbrMsrs) -> Vec<Msr> {
        let ler = [Msr::LER_FROM, Msr::LER_TO];
        msrs.passed_through()
            .filter(|msr| self.rules.set == ListSet::Xen || Some(*msr) != msrs.select)
            .chain(ler.into_iter().filter(|_| msrs.ler))
            .collect()
    }

    fn offer(&self) -> Offer {
        Offer {
            starts_full: true,
            ..Offer::default()
        }
    }

    /// The lists hold zeros, and the registers in them pass. `vmx_enable_lbr` and the like.
    fn arm(&self, host: &mut Host, vcpu: VcpuId, armed: bool) {
        let Some(msrs) = host.vcpu(vcpu).lbr.msrs else {
            return;
        };
        let listed = self.listed(&msrs);
        let entries: Vec<_> = listed.iter().map(|msr| AreaEntry::new(*msr, 0)).collect();
        let entries = if armed { &*entries } else { &[] };
        for area in [MsrArea::EntryLoad, MsrArea::ExitStore] {
            if host.set_area(vcpu, area, entries).is_err() {
                host.note(vcpu, Note::Warned);
            }
        }
        host.set_intercepts(vcpu, listed.iter().copied(), !armed);
        host.vcpu_mut(vcpu).lbr.armed = armed;
        host.vcpu_mut(vcpu).lbr.open = armed;
        host.note(vcpu, if armed { Note::Opened } else { Note::Closed });
    }
}

impl Policy for ListPolicy {
    fn name(&self) -> &str {
        &self.name
    }

    fn title(&self) -> &str {
        &self.title
    }

    fn adjust(&self, behaviour: &mut Behaviour) {
        behaviour.guest_lbr = GuestLbr::None;
    }

    fn refresh(&self, host: &mut Host, vcpu: VcpuId) {
        self.offer().refresh(host, vcpu);
        if host.share_lists(vcpu).is_err() {
            host.note(vcpu, Note::Warned);
        }
    }

    fn access(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        match access.msr {
            Msr::PERF_CAPABILITIES => self.offer().capabilities(host, call, access),
            Msr::DEBUGCTL if call.initiator == Initiator::Guest => {
                let answer = self.offer().debugctl(host, call, access);
                let Operation::Write(_) = access.operation else {
                    return answer;
                };
                let on = host.guest_debugctl(call.vcpu) & DebugCtl::LBR.bits() != 0;
                let armed = host.vcpu(call.vcpu).lbr.armed;
                if on && !armed {
                    self.arm(host, call.vcpu, true);
                } else if !on && armed && self.rules.disarms {
                    self.arm(host, call.vcpu, false);
                }
                answer
            }
            // Neither hypervisor lets its tools name a register that it does not list.
            _ if call.initiator == Initiator::UserSpace => Answer::Unknown,
            msr => {
                let register = Host::named(host.vcpu(call.vcpu).lbr.msrs.as_ref(), msr);
                match register {
                    None | Some(LbrRegister::Depth) => Answer::Unknown,
                    Some(_) => host.dummy(call, access),
                }
            }
        }
    }

    fn nested_debugctl(&self, host: &mut Host, call: Call, value: u64) -> Option<u64> {
        let offer = self.offer();
        offer.valid_debugctl(host, call.vcpu, value, false)
    }

    fn reset(&self, host: &mut Host, vcpu: VcpuId) {
        if host.vcpu(vcpu).lbr.armed {
            self.arm(host, vcpu, false);
        }
    }
}
