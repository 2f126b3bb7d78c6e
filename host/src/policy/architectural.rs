//! Guest architectural LBR, as the series of 2021 and 2022 had it before it was withdrawn.

use vlbr_arch::vmx::VmcsField;
use vlbr_arch::{LbrCtl, Msr};
use vlbr_cpu::ledger::Actor;

use super::offer::Offer;
use super::{Policy, Standing};
use crate::hardware::LbrRegister;
use crate::kvm::{Access, Answer, Call, Initiator, Note, Operation};
use crate::machine::Host;
use crate::perf::{Behaviour, EventAttr, GuestLbr, KernelVersion};
use crate::{Owned, Owner, VcpuId};

/// Bits of `IA32_LBR_CTL` that KVM lets a guest write.
const CTL_MASK: u64 = 0x7f_000f;

/// `IA32_LBR_CTL` lives in the VMCS, the records in the processor, and the host's call-stack event
/// saves and restores them with the task: by XSAVES or MSR by MSR.
#[derive(Clone, Debug)]
pub struct Architectural {
    name: &'static str,
    title: &'static str,
    xsaves: bool,
}

impl Architectural {
    /// Records are saved by XSAVES.
    #[must_use]
    pub const fn xsaves() -> Self {
        Self {
            name: "arch-xsaves",
            title: "guest architectural LBR as posted in 2022, records switched by XSAVES",
            xsaves: true,
        }
    }

    /// Records are saved MSR by MSR.
    #[must_use]
    pub const fn msr() -> Self {
        Self {
            name: "arch-msr",
            title: "guest architectural LBR as posted in 2022, records switched MSR by MSR",
            xsaves: false,
        }
    }

    const fn offer() -> Offer {
        Offer {
            needs_call_stack: true,
            architectural: true,
            fixed_by_run: false,
            starts_full: true,
            needs_pdcm: false,
            describes_format_5_alone: false,
            legacy_for_architectural: false,
            loses_both: true,
            user_space_sets_debugctl: false,
            host_freezes_in_smm: false,
        }
    }

    fn records(&self, host: &Host, vcpu: VcpuId) -> bool {
        let ctl = host.vmcs_field(vcpu, VmcsField::GUEST_IA32_LBR_CTL);
        LbrCtl::from_bits(ctl).contains(LbrCtl::LBR_EN)
    }

    fn stop(&self, host: &mut Host, vcpu: VcpuId) {
        let ctl = host.vmcs_field(vcpu, VmcsField::GUEST_IA32_LBR_CTL);
        write_ctl(host, vcpu, ctl & !LbrCtl::LBR_EN.bits());
    }

    fn ctl(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        let Operation::Write(value) = access.operation else {
            return read_ctl(host, call.vcpu);
        };
        if refused_ctl(host, call.vcpu, value.value) != 0 {
            return Answer::Refused;
        }
        write_ctl(host, call.vcpu, value.value);
        if self.records(host, call.vcpu) {
            // A failure has been noted.
            let _ = host.create_lbr_event(call, EventAttr::VIRTUAL_GUEST_LBR);
        }
        Answer::Done
    }

    fn depth(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        let own = host.hardware().cpu(call.cpu).peek(Msr::LBR_DEPTH);
        let own = own.unwrap_or(0);
        match access.operation {
            Operation::Read => Answer::Value(Owned::new(own, Owner::Nobody)),
            Operation::Write(value) if call.initiator == Initiator::Guest && value.value != own => {
                Answer::Refused
            }
            // Written on the processor, it clears every record.
            Operation::Write(_) => host.access_hardware(
                call,
                Access::write(Msr::LBR_DEPTH, Owned::new(own, Owner::Nobody)),
            ),
        }
    }
}

/// `IA32_LBR_CTL` of the guest, as the VMCS holds it.
pub(super) fn read_ctl(host: &mut Host, vcpu: VcpuId) -> Answer {
    let field = VmcsField::GUEST_IA32_LBR_CTL;
    let value = host.vmread(vcpu, Actor::ExitHandler, field).unwrap_or(0);
    Answer::Value(Host::guests(vcpu, value))
}

pub(super) fn write_ctl(host: &mut Host, vcpu: VcpuId, value: u64) {
    let field = VmcsField::GUEST_IA32_LBR_CTL;
    if host
        .vmwrite(vcpu, Actor::ExitHandler, field, value)
        .is_err()
    {
        host.note(vcpu, Note::Warned);
    }
}

/// The bits of a value that the guest's CPUID.1C:EBX refuses. `arch_lbr_ctl_is_valid`.
pub(super) fn refused_ctl(host: &Host, vcpu: VcpuId, value: u64) -> u64 {
    let ebx = host.vcpu(vcpu).guest_cpu.arch_lbr_ebx;
    let without = |bit: u32, mask: u64| if ebx & 1 << bit == 0 { mask } else { 0 };
    value & (!CTL_MASK | without(0, 0x6) | without(1, 0x7f_0000) | without(2, 0x8))
}

impl Policy for Architectural {
    fn name(&self) -> &str {
        self.name
    }

    fn title(&self) -> &str {
        self.title
    }

    fn standing(&self) -> Standing {
        Standing::Event
    }

    fn kernel(&self) -> Option<KernelVersion> {
        Some(KernelVersion::new(5, 18, 0))
    }

    fn is_architectural(&self) -> bool {
        true
    }

    fn adjust(&self, behaviour: &mut Behaviour) {
        behaviour.guest_lbr = GuestLbr::Virtual;
        behaviour.xsaves = self.xsaves;
    }

    fn refresh(&self, host: &mut Host, vcpu: VcpuId) {
        Self::offer().refresh(host, vcpu);
    }

    fn access(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        let register = Host::named(host.vcpu(call.vcpu).lbr.msrs.as_ref(), access.msr);
        match (access.msr, register) {
            (Msr::PERF_CAPABILITIES, _) => Self::offer().capabilities(host, call, access),
            (Msr::DEBUGCTL, _) => Self::offer().debugctl(host, call, access),
            (_, None | Some(LbrRegister::Ler(_))) => Answer::Unknown,
            (_, Some(LbrRegister::Filter)) => self.ctl(host, call, access),
            (_, Some(LbrRegister::Depth)) => self.depth(host, call, access),
            (_, Some(_)) => {
                let created = host.create_lbr_event(call, EventAttr::VIRTUAL_GUEST_LBR);
                if created.is_ok() && host.lbr_event_is_active(call.vcpu) {
                    host.access_hardware(call, access)
                } else {
                    host.dummy(call, access)
                }
            }
        }
    }

    fn nested_debugctl(&self, host: &mut Host, call: Call, value: u64) -> Option<u64> {
        Self::offer().valid_debugctl(host, call.vcpu, value, false)
    }

    fn before_entry(&self, host: &mut Host, call: Call) {
        let vcpu = call.vcpu;
        let active = host.lbr_event_is_active(vcpu);
        host.set_passthrough(vcpu, active);
        let wanted = host.vcpu(vcpu).lbr.event.is_some() || self.records(host, vcpu);
        if !active && wanted && host.vcpu(vcpu).lbr.msrs.is_some() {
            host.note(vcpu, Note::Warned);
        }
    }

    fn reclaim(&self, host: &mut Host, call: Call) {
        if !self.records(host, call.vcpu) {
            host.release_lbr_event(call.vcpu);
        }
    }

    fn pmi(&self, host: &mut Host, call: Call) {
        let freezes =
            host.guest_debugctl(call.vcpu) & vlbr_arch::DebugCtl::FREEZE_LBRS_ON_PMI.bits() != 0;
        if freezes && (2..=3).contains(&host.vcpu(call.vcpu).guest_cpu.pmu_version) {
            self.stop(host, call.vcpu);
        }
    }

    fn reset(&self, host: &mut Host, vcpu: VcpuId) {
        host.release_lbr_event(vcpu);
        self.stop(host, vcpu);
    }

    fn listed(&self, host: &Host) -> Vec<Msr> {
        match host.lbr_msrs().arch {
            true => vec![Msr::LBR_CTL, Msr::LBR_DEPTH],
            false => Vec::new(),
        }
    }
}
