//! Policies in which a perf event stands for the guest's LBR: v8, and what became of it upstream.

use vlbr_arch::{DebugCtl, Msr};
use vlbr_cpu::ledger::MsrAccess as _;

use super::offer::Offer;
use super::rules::{
    Arbitration, DebugCtlRule, Denied, EntryCheck, EventRules, Feature, InfoRange, Open, Release,
};
use super::{Policy, Standing, offer};
use crate::hardware::{LbrMsrs, LbrRegister, Word};
use crate::kvm::{Access, Answer, Call, Initiator, LbrStack, Note, Operation};
use crate::machine::Host;
use crate::perf::{Behaviour, Errno, EventAttr, GuestLbr, KernelVersion};
use crate::{Owned, Owner, VcpuId, VmId};

/// Bits that v8 keeps of `IA32_DEBUGCTL`.
const V8_DEBUGCTL: u64 = 0x801;

/// An event-based policy, by its rules.
#[derive(Clone, Debug)]
pub struct EventPolicy {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) kernel: KernelVersion,
    pub(super) rules: EventRules,
}

impl EventPolicy {
    /// A policy of these rules in this kernel.
    #[must_use]
    pub fn new(name: &str, title: &str, kernel: KernelVersion, rules: EventRules) -> Self {
        Self {
            name: name.to_owned(),
            title: title.to_owned(),
            kernel,
            rules,
        }
    }

    /// Its rules.
    #[must_use]
    pub const fn rules(&self) -> &EventRules {
        &self.rules
    }

    /// Patch series "Guest LBR Enabling", v8. `as_posted`: with the inverted test of patch 13.
    #[must_use]
    pub fn v8(as_posted: bool) -> Self {
        let rules = EventRules {
            feature: Feature::Capability,
            denied: Denied::Gp,
            open: Open::FirstTouch,
            entry_check: if as_posted {
                EntryCheck::Owned
            } else {
                EntryCheck::Lost
            },
            close_at_sched_in: true,
            release: Release::UnusedSlice,
            info_range: InfoRange::NeverMatches,
            user_space_skips_feature: true,
            debugctl_needs_event: true,
            debugctl: DebugCtlRule::Mask,
            user_space_sets_debugctl: false,
            host_freezes_in_smm: false,
            capabilities_fixed_by_run: false,
            capabilities_start_full: false,
            capabilities_need_pdcm: false,
            info_of_format_7: true,
            offers_legacy_for_architectural: false,
            needs_call_stack: false,
            freeze_at_virtual_pmi: false,
            checks_values: false,
            arbitration: Arbitration::Shared,
        };
        let (name, title) = if as_posted {
            (
                "v8-as-posted",
                "the seed series with every defect as posted",
            )
        } else {
            (
                "v8",
                "the seed series, with the corrected check before VM entry",
            )
        };
        Self::new(name, title, KernelVersion::new(5, 3, 0), rules)
    }

    /// What was merged, as of a version from 5.12 on.
    #[must_use]
    pub fn upstream(kernel: KernelVersion, arbitration: Arbitration) -> Self {
        let from = |major, minor| kernel.since(major, minor);
        let rules = EventRules {
            feature: Feature::PerfCapabilities,
            denied: Denied::Dummy,
            open: Open::AtEntry,
            entry_check: EntryCheck::Lost,
            close_at_sched_in: false,
            release: Release::RecordingOff,
            info_range: InfoRange::Right,
            user_space_skips_feature: false,
            debugctl_needs_event: false,
            debugctl: match from(6, 17) {
                true => DebugCtlRule::Supported,
                false => DebugCtlRule::LosesBoth,
            },
            user_space_sets_debugctl: from(6, 2),
            host_freezes_in_smm: from(6, 17),
            capabilities_fixed_by_run: from(6, 3),
            capabilities_start_full: true,
            capabilities_need_pdcm: from(6, 13),
            info_of_format_7: from(6, 3),
            offers_legacy_for_architectural: !from(6, 4),
            needs_call_stack: from(6, 9),
            freeze_at_virtual_pmi: true,
            checks_values: false,
            arbitration,
        };
        let suffix = match arbitration {
            Arbitration::AsCoded => "",
            Arbitration::Shared => "-documented",
        };
        Self::new(
            &format!("upstream{suffix}@{kernel}"),
            "KVM as merged: an event of config 0x1b00, released while recording is off",
            kernel,
            rules,
        )
    }

    fn attr(&self) -> EventAttr {
        match self.rules.feature {
            Feature::Capability => EventAttr::V8_GUEST_LBR,
            Feature::PerfCapabilities => EventAttr::VIRTUAL_GUEST_LBR,
        }
    }

    /// Whether the event has the LBR, as this policy asks.
    fn owns(&self, host: &Host, vcpu: VcpuId) -> bool {
        match self.rules.feature {
            Feature::Capability => host.lbr_event_is_on(vcpu),
            Feature::PerfCapabilities => host.lbr_event_is_active(vcpu),
        }
    }

    fn has_feature(&self, host: &Host, vcpu: VcpuId) -> bool {
        match self.rules.feature {
            Feature::Capability => host.vm_of(vcpu).lbr_in_guest,
            Feature::PerfCapabilities => host.vcpu(vcpu).lbr.msrs.is_some(),
        }
    }

    fn offer(&self) -> Offer {
        Offer {
            needs_call_stack: self.rules.needs_call_stack,
            architectural: false,
            fixed_by_run: self.rules.capabilities_fixed_by_run,
            starts_full: self.rules.capabilities_start_full,
            needs_pdcm: self.rules.capabilities_need_pdcm,
            describes_format_5_alone: !self.rules.info_of_format_7,
            legacy_for_architectural: self.rules.offers_legacy_for_architectural,
            loses_both: self.rules.debugctl == DebugCtlRule::LosesBoth,
            user_space_sets_debugctl: self.rules.user_space_sets_debugctl,
            host_freezes_in_smm: self.rules.host_freezes_in_smm,
        }
    }

    fn capabilities(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        if self.rules.feature == Feature::PerfCapabilities {
            return self.offer().capabilities(host, call, access);
        }
        let guest = &host.vcpu(call.vcpu).guest_cpu;
        if guest.pmu_version <= 1 {
            return Answer::Unknown;
        }
        match access.operation {
            Operation::Write(_) => Answer::Refused,
            Operation::Read if call.initiator == Initiator::Guest && !guest.pdcm => Answer::Refused,
            Operation::Read => {
                let on = host.vm_of(call.vcpu).lbr_in_guest;
                let profile = host.hardware().cpu(call.cpu).logical().lbr().profile();
                let format = if on { profile.format().value() } else { 0 };
                Answer::Value(Owned::new(format.into(), Owner::Nobody))
            }
        }
    }

    fn debugctl(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        let vcpu = call.vcpu;
        let offer = self.offer();
        let Operation::Write(value) = access.operation else {
            return offer.read_debugctl(host, vcpu);
        };
        let answer = match self.rules.debugctl {
            DebugCtlRule::LosesBoth | DebugCtlRule::Supported => offer.debugctl(host, call, access),
            DebugCtlRule::Mask => {
                host.set_nested_debugctl(vcpu, value.value & V8_DEBUGCTL);
                match host.write_guest_debugctl(vcpu, value.value & V8_DEBUGCTL) {
                    Ok(()) => Answer::Done,
                    Err(_) => Answer::Refused,
                }
            }
        };
        let records = host.guest_debugctl(vcpu) & DebugCtl::LBR.bits() != 0;
        if answer == Answer::Done
            && records
            && host.vcpu(vcpu).lbr.msrs.is_some()
            && host.vcpu(vcpu).lbr.event.is_none()
            && !self.rules.debugctl_needs_event
        {
            // A failure has been noted; the write stands all the same.
            let _ = self.create(host, call);
        }
        answer
    }

    fn create(&self, host: &mut Host, call: Call) -> Result<(), Errno> {
        host.create_lbr_event(call, self.attr())?;
        host.vcpu_mut(call.vcpu).lbr.in_use = true;
        Ok(())
    }

    /// Order of tests of v8, kernel by kernel: see `docs/linux.md`.
    fn access_v8(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        let vcpu = call.vcpu;
        if host.vcpu(vcpu).guest_cpu.pmu_version <= 1 {
            return Answer::Unknown;
        }
        let stack = host.vm_of(vcpu).lbr_stack;
        let described = match stack {
            Some(stack) => stack.register(access.msr),
            // All zeros: TOS is MSR 0.
            None => (access.msr.value() == 0).then_some(LbrRegister::Tos),
        };
        let known = match described {
            _ if access.msr == Msr::DEBUGCTL || access.msr == Msr::LBR_SELECT => true,
            Some(LbrRegister::Entry(Word::Info, _)) => self.rules.info_range == InfoRange::Right,
            Some(LbrRegister::Ler(_)) | None => false,
            Some(_) => true,
        };
        if !known {
            return Answer::Unknown;
        }
        let skips = self.rules.user_space_skips_feature && call.initiator == Initiator::UserSpace;
        if !self.has_feature(host, vcpu) && !skips {
            return Answer::Refused;
        }
        if self.create(host, call).is_err() {
            return self.denied(host, call, access);
        }
        if !self.owns(host, vcpu) {
            return self.denied(host, call, access);
        }
        let answer = if access.msr == Msr::DEBUGCTL {
            self.debugctl(host, call, access)
        } else {
            self.do_access(host, call, access)
        };
        let lbr = &mut host.vcpu_mut(vcpu).lbr;
        if !core::mem::replace(&mut lbr.used, true) {
            self.open_all(host, vcpu, stack);
        }
        answer
    }

    /// Lets the described registers through: with the capability never enabled, SELECT and MSR 0.
    fn open_all(&self, host: &mut Host, vcpu: VcpuId, stack: Option<LbrMsrs>) {
        if stack.is_some() {
            host.set_passthrough(vcpu, true);
        } else {
            let msrs = [Msr::LBR_SELECT, Msr::new(0)];
            host.set_intercepts(vcpu, msrs, false);
            host.vcpu_mut(vcpu).lbr.open = true;
            host.note(vcpu, Note::Opened);
        }
    }

    fn denied(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        match self.rules.denied {
            Denied::Gp => Answer::Refused,
            Denied::Dummy => host.dummy(call, access),
        }
    }

    /// The access on the processor, with the tests that a policy may add.
    fn do_access(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        if self.rules.checks_values
            && let Operation::Write(value) = access.operation
        {
            let mut trial = host.hardware().cpu(call.cpu).logical().clone();
            if trial.wrmsr(access.msr, value.value).is_err() {
                return Answer::Refused;
            }
        }
        host.access_hardware(call, access)
    }

    fn access_upstream(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        let vcpu = call.vcpu;
        let described = Host::named(host.vcpu(vcpu).lbr.msrs.as_ref(), access.msr);
        match described {
            None | Some(LbrRegister::Ler(_) | LbrRegister::Depth) => return Answer::Unknown,
            Some(LbrRegister::Entry(Word::Info, _))
                if self.rules.info_range == InfoRange::NeverMatches =>
            {
                return Answer::Unknown;
            }
            Some(_) => {}
        }
        if self.create(host, call).is_err() {
            return self.denied(host, call, access);
        }
        if !self.owns(host, vcpu) {
            host.vcpu_mut(vcpu).lbr.in_use = false;
            return self.denied(host, call, access);
        }
        let answer = self.do_access(host, call, access);
        let lbr = &mut host.vcpu_mut(vcpu).lbr;
        lbr.in_use = true;
        lbr.used = true;
        if self.rules.open == Open::FirstTouch {
            host.set_passthrough(vcpu, true);
        }
        answer
    }

    fn close(&self, host: &mut Host, vcpu: VcpuId) {
        if host.vcpu(vcpu).lbr.msrs.is_some() {
            host.set_passthrough(vcpu, false);
        } else if host.vcpu(vcpu).lbr.open {
            host.set_intercepts(vcpu, [Msr::LBR_SELECT, Msr::new(0)], true);
            host.vcpu_mut(vcpu).lbr.open = false;
            host.note(vcpu, Note::Closed);
        }
    }

    fn release_if_idle(&self, host: &mut Host, vcpu: VcpuId) {
        let records = host.guest_debugctl(vcpu) & DebugCtl::LBR.bits() != 0;
        let used = host.vcpu(vcpu).lbr.used;
        let release = match self.rules.release {
            Release::UnusedSlice => !used && !records,
            Release::RecordingOff => !records,
            Release::EverySlice => true,
            Release::Never => false,
        };
        if release {
            host.release_lbr_event(vcpu);
        }
    }
}

impl Policy for EventPolicy {
    fn name(&self) -> &str {
        &self.name
    }

    fn title(&self) -> &str {
        &self.title
    }

    fn standing(&self) -> Standing {
        Standing::Event
    }

    fn kernel(&self) -> Option<KernelVersion> {
        Some(self.kernel)
    }

    fn adjust(&self, behaviour: &mut Behaviour) {
        behaviour.guest_lbr = match self.rules.feature {
            Feature::Capability => GuestLbr::V8,
            Feature::PerfCapabilities => GuestLbr::Virtual,
        };
        if self.rules.feature == Feature::Capability {
            *behaviour = Behaviour::v8();
        }
        behaviour.virtual_lbr_shares_register = self.rules.arbitration == Arbitration::Shared;
    }

    fn refresh(&self, host: &mut Host, vcpu: VcpuId) {
        match self.rules.feature {
            Feature::Capability => {
                let stack = host.vm_of(vcpu).lbr_stack;
                host.vcpu_mut(vcpu).lbr.msrs = stack;
            }
            Feature::PerfCapabilities => self.offer().refresh(host, vcpu),
        }
    }

    fn access(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        if access.msr == Msr::PERF_CAPABILITIES {
            return self.capabilities(host, call, access);
        }
        match self.rules.feature {
            Feature::Capability => self.access_v8(host, call, access),
            Feature::PerfCapabilities if access.msr == Msr::DEBUGCTL => {
                self.debugctl(host, call, access)
            }
            Feature::PerfCapabilities => self.access_upstream(host, call, access),
        }
    }

    fn nested_debugctl(&self, host: &mut Host, call: Call, value: u64) -> Option<u64> {
        self.offer().valid_debugctl(host, call.vcpu, value, false)
    }

    fn before_entry(&self, host: &mut Host, call: Call) {
        let vcpu = call.vcpu;
        self.offer().reload_debugctl(host, vcpu);
        let owns = self.owns(host, vcpu);
        match self.rules.open {
            Open::FirstTouch => {
                let close = match self.rules.entry_check {
                    EntryCheck::Lost => !owns,
                    EntryCheck::Owned => owns,
                    EntryCheck::None => false,
                };
                if close && host.vcpu(vcpu).lbr.used {
                    self.close(host, vcpu);
                    host.vcpu_mut(vcpu).lbr.used = false;
                }
            }
            Open::AtEntry => {
                if host.vcpu(vcpu).lbr.msrs.is_none() {
                    return;
                }
                let event = host.vcpu(vcpu).lbr.event.is_some();
                if owns {
                    host.set_passthrough(vcpu, true);
                } else if self.rules.entry_check == EntryCheck::Lost {
                    host.set_passthrough(vcpu, false);
                    let records = host.guest_debugctl(vcpu) & DebugCtl::LBR.bits() != 0;
                    if event || records || host.vcpu(vcpu).lbr.in_use {
                        host.note(vcpu, Note::Warned);
                    }
                    if event {
                        host.vcpu_mut(vcpu).lbr.in_use = false;
                    }
                }
            }
        }
    }

    fn sched_in(&self, host: &mut Host, call: Call) {
        if !self.rules.close_at_sched_in {
            return;
        }
        if host.vcpu(call.vcpu).lbr.used {
            self.close(host, call.vcpu);
            host.vcpu_mut(call.vcpu).lbr.used = false;
        } else if self.rules.release == Release::UnusedSlice {
            self.release_if_idle(host, call.vcpu);
        }
    }

    fn reclaim(&self, host: &mut Host, call: Call) {
        if !(self.rules.close_at_sched_in && self.rules.release == Release::UnusedSlice) {
            self.release_if_idle(host, call.vcpu);
        }
    }

    fn pmi(&self, host: &mut Host, call: Call) {
        if self.rules.freeze_at_virtual_pmi {
            offer::freeze_at_virtual_pmi(host, call.vcpu);
        }
    }

    fn reset(&self, host: &mut Host, vcpu: VcpuId) {
        host.release_lbr_event(vcpu);
    }

    fn check_capability(&self, _: &Host) -> u32 {
        match self.rules.feature {
            Feature::Capability => LbrStack::SIZE,
            Feature::PerfCapabilities => 0,
        }
    }

    fn enable_capability(
        &self,
        host: &mut Host,
        vm: VmId,
        enable: bool,
        pointer_is_good: bool,
    ) -> Result<LbrStack, Errno> {
        if self.rules.feature != Feature::Capability {
            return Err(Errno::EINVAL);
        }
        let msrs = *host.lbr_msrs();
        if enable {
            // The first vCPU stands for the VM; without one v8 follows a null pointer.
            let first = host.vm(vm).vcpus.first().copied();
            let guest = first.map(|vcpu| host.vcpu(vcpu).guest_cpu.model);
            let told = guest.and_then(|model| stack_of_model(host, model));
            if host.perf().lbr_model().nr() == 0 || told != Some((msrs.nr, msrs.from)) {
                return Err(Errno::EINVAL);
            }
        }
        if !pointer_is_good {
            return Err(Errno::EINVAL);
        }
        let state = host.vm_mut(vm);
        state.lbr_in_guest = enable;
        state.lbr_stack = Some(msrs);
        for vcpu in state.vcpus.clone() {
            host.vcpu_mut(vcpu).lbr.msrs = Some(msrs);
        }
        Ok(LbrStack::of(&msrs))
    }
}

/// Entries and FROM base that v8 04/14 has for a guest's model, if of the host's family.
fn stack_of_model(host: &Host, model: vlbr_lbr::CpuModel) -> Option<(u32, Msr)> {
    let own = host
        .hardware()
        .cpu(crate::CpuId(0))
        .logical()
        .lbr()
        .profile();
    let same_family = own
        .models()
        .iter()
        .any(|known| known.family == model.family);
    let profile = vlbr_lbr::Profile::of_model(model).next()?;
    let msrs = LbrMsrs::of(profile);
    (same_family && !msrs.arch).then_some((msrs.nr, msrs.from))
}
