//! How a guest is told of LBR by `IA32_PERF_CAPABILITIES`, and what it may write to
//! `IA32_DEBUGCTL` then. Upstream's rules; other policies use them too.

use vlbr_arch::vmx::VmcsField;
use vlbr_arch::{DebugCtl, LbrFormat, Msr};
use vlbr_cpu::ledger::Actor;
use vlbr_lbr::Profile;

use crate::hardware::LbrMsrs;
use crate::kvm::{Access, Answer, Call, FW_WRITES, Initiator, Note, Operation};
use crate::machine::Host;
use crate::{CpuId, Owned, Owner, VcpuId};

/// `IA32_PERF_CAPABILITIES.LBR_FMT`.
const LBR_FMT: u64 = 0x3f;
/// LBR and FREEZE_LBRS_ON_PMI.
const LBR_BITS: u64 = DebugCtl::LBR.bits() | DebugCtl::FREEZE_LBRS_ON_PMI.bits();

/// The rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Offer {
    /// Only if the host's perf has call-stack mode.
    pub(super) needs_call_stack: bool,
    /// Parts with architectural LBR as well, whose guests are told format 0x3f.
    pub(super) architectural: bool,
    /// Fixed once the vCPU has run.
    pub(super) fixed_by_run: bool,
    /// The guest starts with it.
    pub(super) starts_full: bool,
    /// `IA32_PERF_CAPABILITIES` needs PDCM for user space too, and no PMU.
    pub(super) needs_pdcm: bool,
    /// INFO is described with format 5 alone.
    pub(super) describes_format_5_alone: bool,
    /// Architectural LBR is described as legacy LBR.
    pub(super) legacy_for_architectural: bool,
    /// LBR and BTF go together if one of them is dropped.
    pub(super) loses_both: bool,
    /// User space may set LBR bits of `IA32_DEBUGCTL` although the guest has no LBR.
    pub(super) user_space_sets_debugctl: bool,
    /// FREEZE_WHILE_SMM of the guest is the host's.
    pub(super) host_freezes_in_smm: bool,
}

fn profile(host: &Host) -> &Profile {
    host.hardware().cpu(CpuId(0)).logical().lbr().profile()
}

impl Offer {
    /// The format that KVM supports here; `None`: LBR is not offered. `vmx_get_perf_capabilities`.
    pub(super) fn format(&self, host: &Host) -> Option<LbrFormat> {
        let profile = profile(host);
        let kind = match profile.is_arch() {
            true => self.architectural || self.legacy_for_architectural,
            false => !self.architectural,
        };
        let offered = kind
            && host.perf().lbr_model().nr() != 0
            && (!self.needs_call_stack || profile.has_call_stack());
        offered.then(|| profile.format())
    }

    /// The capabilities that user space may give the guest: the format, and full-width writes of
    /// counters, which KVM emulates whatever the processor has. `vmx_get_perf_capabilities`.
    fn supported(&self, host: &Host) -> u64 {
        let format = self.format(host);
        format.map_or(0, |format| u64::from(format.value())) | FW_WRITES
    }

    /// `intel_pmu_init`, `intel_pmu_refresh`.
    pub(super) fn refresh(&self, host: &mut Host, vcpu: VcpuId) {
        let supported = self.supported(host);
        let state = host.vcpu_mut(vcpu);
        if !state.made && self.starts_full {
            state.perf_capabilities = supported;
        }
        self.describe(host, vcpu);
    }

    /// Fills the record description if the guest has a format.
    fn describe(&self, host: &mut Host, vcpu: VcpuId) {
        let state = host.vcpu(vcpu);
        let on = state.guest_cpu.pdcm
            && state.guest_cpu.pmu_version != 0
            && state.perf_capabilities & LBR_FMT != 0
            && same_model(host, vcpu);
        let msrs = on.then(|| self.described(host));
        if msrs.is_none() {
            // KVM takes it for a bug of its own if they pass; here they exit again.
            host.set_passthrough(vcpu, false);
        }
        host.vcpu_mut(vcpu).lbr.msrs = msrs;
    }

    /// What KVM takes for the guest's registers. `x86_perf_get_lbr`.
    fn described(&self, host: &Host) -> LbrMsrs {
        let mut msrs = *host.lbr_msrs();
        if self.describes_format_5_alone && self.format(host) != Some(LbrFormat::EIP_INFO) {
            msrs.info = None;
        }
        if msrs.arch && self.legacy_for_architectural {
            msrs = LbrMsrs {
                tos: Some(Msr::LASTBRANCH_TOS),
                select: Some(Msr::LBR_SELECT),
                ler: false,
                arch: false,
                ..msrs
            };
        }
        msrs
    }

    /// An access to `IA32_PERF_CAPABILITIES`.
    pub(super) fn capabilities(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        let state = host.vcpu(call.vcpu);
        let by_guest = call.initiator == Initiator::Guest;
        let pdcm = state.guest_cpu.pdcm;
        let Operation::Write(value) = access.operation else {
            return match (by_guest, pdcm) {
                (true, false) => Answer::Refused,
                (false, false) if self.needs_pdcm => Answer::Value(Owned::CLEARED),
                _ => Answer::Value(Owned::new(state.perf_capabilities, Owner::Nobody)),
            };
        };
        if by_guest {
            return Answer::Refused;
        }
        let value = value.value;
        if self.fixed_by_run && state.ran {
            return match value == state.perf_capabilities {
                true => Answer::Done,
                false => Answer::Refused,
            };
        }
        let supported = self.supported(host);
        let format = value & LBR_FMT;
        let exists = match self.needs_pdcm {
            true => pdcm,
            false => state.guest_cpu.pmu_version != 0,
        };
        let refused = value & !supported != 0
            || value != 0 && !exists
            || format != 0 && (supported & LBR_FMT != format || !same_model(host, call.vcpu));
        if refused {
            return Answer::Refused;
        }
        if value != host.vcpu(call.vcpu).perf_capabilities {
            host.refreshed_pmu(call.vcpu);
        }
        host.vcpu_mut(call.vcpu).perf_capabilities = value;
        self.describe(host, call.vcpu);
        Answer::Done
    }

    /// An access to `IA32_DEBUGCTL`: `vmx_get_msr`, `vmx_set_msr`, `vcpu_supported_debugctl`.
    pub(super) fn debugctl(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        let vcpu = call.vcpu;
        let Operation::Write(value) = access.operation else {
            return self.read_debugctl(host, vcpu);
        };
        let by_user = call.initiator == Initiator::UserSpace && self.user_space_sets_debugctl;
        let Some(data) = self.valid_debugctl(host, vcpu, value.value, by_user) else {
            return Answer::Refused;
        };
        host.set_nested_debugctl(vcpu, data);
        match host.write_guest_debugctl(vcpu, data | self.host_bits(host, vcpu)) {
            Ok(()) => Answer::Done,
            Err(_) => Answer::Refused,
        }
    }

    /// What the guest's `IA32_DEBUGCTL` becomes by a value; `None`: it is refused.
    /// `vmx_is_valid_debugctl`, `vmx_get_supported_debugctl`.
    pub(super) fn valid_debugctl(
        &self,
        host: &mut Host,
        vcpu: VcpuId,
        value: u64,
        by_user: bool,
    ) -> Option<u64> {
        let enabled = host.vcpu(vcpu).lbr.msrs.is_some();
        let offered = self.format(host).is_some() && !self.architectural;
        let supported = if offered && (enabled || by_user) {
            LBR_BITS
        } else {
            0
        };
        let both = DebugCtl::LBR.bits() | DebugCtl::BTF.bits();
        let mut data = value;
        let dropped = data & !supported & both;
        if dropped != 0 {
            // The LBR bit of architectural LBR has no function; writing it is no mistake.
            if !self.architectural || dropped != DebugCtl::LBR.bits() {
                host.note(vcpu, Note::DebugCtlDropped);
            }
            data &= if self.loses_both { !both } else { !dropped };
        }
        (data & !supported == 0).then_some(data)
    }

    /// Bits of the guest's `IA32_DEBUGCTL` that are the host's, as KVM copied them.
    /// `vmx_guest_debugctl_write`.
    fn host_bits(&self, host: &Host, vcpu: VcpuId) -> u64 {
        if self.host_freezes_in_smm {
            host.vcpu(vcpu).host_debugctl & DebugCtl::FREEZE_WHILE_SMM.bits()
        } else {
            0
        }
    }

    /// Before entry, those bits follow the host's. `vmx_reload_guest_debugctl`.
    pub(super) fn reload_debugctl(&self, host: &mut Host, vcpu: VcpuId) {
        if !self.host_freezes_in_smm {
            return;
        }
        let value = host.guest_debugctl(vcpu);
        let wanted = value & !DebugCtl::FREEZE_WHILE_SMM.bits() | self.host_bits(host, vcpu);
        if value != wanted {
            let written = host.write_guest_debugctl(vcpu, wanted);
            debug_assert!(written.is_ok());
        }
    }

    pub(super) fn read_debugctl(&self, host: &mut Host, vcpu: VcpuId) -> Answer {
        let field = VmcsField::GUEST_IA32_DEBUGCTL;
        let mut value = host.vmread(vcpu, Actor::ExitHandler, field).unwrap_or(0);
        if self.host_freezes_in_smm {
            value &= !DebugCtl::FREEZE_WHILE_SMM.bits();
        }
        Answer::Value(Host::guests(vcpu, value))
    }
}

/// The guest is told that it has the host's processor.
fn same_model(host: &Host, vcpu: VcpuId) -> bool {
    profile(host)
        .models()
        .contains(&host.vcpu(vcpu).guest_cpu.model)
}

/// Before a virtual PMI of a guest that is told perfmon version 2 or 3: what its processor would have
/// done at the overflow. `intel_pmu_legacy_freezing_lbrs_on_pmi`.
pub(super) fn freeze_at_virtual_pmi(host: &mut Host, vcpu: VcpuId) {
    let state = host.vcpu(vcpu);
    if state.lbr.msrs.is_none() || !(2..=3).contains(&state.guest_cpu.pmu_version) {
        return;
    }
    let value = host.guest_debugctl(vcpu);
    if value & DebugCtl::FREEZE_LBRS_ON_PMI.bits() != 0 {
        let written = host.write_guest_debugctl(vcpu, value & !DebugCtl::LBR.bits());
        debug_assert!(written.is_ok());
    }
}

/// `IA32_DEBUGCTL` before KVM knew of LBR: reads give 0; 0, LBR and BTF may be written and have no
/// effect, other bits are `#GP`. Other registers are unknown. `kvm_set_msr_common` up to 5.11.
pub(super) fn without_lbr(host: &mut Host, call: Call, access: Access) -> Answer {
    if access.msr == Msr::PERF_CAPABILITIES {
        return match access.operation {
            Operation::Read if host.vcpu(call.vcpu).guest_cpu.pdcm => Answer::Value(Owned::CLEARED),
            Operation::Write(value)
                if value.value == 0 && call.initiator == Initiator::UserSpace =>
            {
                Answer::Done
            }
            _ => Answer::Refused,
        };
    }
    if access.msr != Msr::DEBUGCTL {
        return Answer::Unknown;
    }
    match access.operation {
        Operation::Read => Answer::Value(Owned::CLEARED),
        Operation::Write(value)
            if value.value & !(DebugCtl::LBR.bits() | DebugCtl::BTF.bits()) == 0 =>
        {
            if value.value != 0 {
                host.note(call.vcpu, Note::DebugCtlDropped);
            }
            Answer::Done
        }
        Operation::Write(_) => Answer::Refused,
    }
}
