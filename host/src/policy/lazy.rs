//! A mediated LBR that is switched lazily: the policy that this project proposes. What it would
//! change in KVM and perf, hook by hook, is in `docs/mediated-lazy.md`.

use vlbr_arch::{DebugCtl, Msr};
use vlbr_cpu::ledger::MsrAccess as _;
use vlbr_vmx::VmExit;

use super::offer::{self, Offer};
use super::{Policy, Standing, swap};
use crate::VcpuId;
use crate::hardware::{LbrMsrs, LbrRegister, Running};
use crate::kvm::{Access, Answer, Call, ExitLevel, Initiator, Operation};
use crate::machine::Host;
use crate::perf::{Behaviour, GuestLbr, KernelVersion};

/// With both, an overflow ends recording.
const FROZEN_BY_OVERFLOW: u64 = DebugCtl::LBR.bits() | DebugCtl::FREEZE_LBRS_ON_PMI.bits();

/// The rules for what a guest is told and may write are those of upstream after 6.16. No call-stack
/// mode is needed, since no event saves the stack.
const OFFER: Offer = Offer {
    needs_call_stack: false,
    architectural: false,
    fixed_by_run: true,
    starts_full: true,
    needs_pdcm: true,
    describes_format_5_alone: false,
    legacy_for_architectural: false,
    loses_both: false,
    user_space_sets_debugctl: false,
    host_freezes_in_smm: true,
};

/// No event stands for the guest's LBR: perf puts its own aside while a vCPU that uses the LBR is
/// loaded, and the stack moves when somebody else needs the registers.
///
/// [`crate::kvm::VcpuLbr::used`]: the guest has used its LBR since it was reset. The first word of
/// its own is `IA32_DEBUGCTL` as it was at VM entry, where an overflow may change it.
#[derive(Clone, Copy, Debug, Default)]
pub struct MediatedLazy;

impl MediatedLazy {
    /// The vCPU gets the LBR of the processor where it is loaded, and its accesses pass.
    fn take(host: &mut Host, call: Call) {
        let (perf, hardware) = host.perf_mut();
        perf.guest_lbr_load(hardware, call.cpu, call.vcpu);
        let state = host.vcpu_mut(call.vcpu);
        // perf's LBR is off now; in a kernel this comes before the copy is made.
        state.host_debugctl &= !FROZEN_BY_OVERFLOW;
        state.lbr.used = true;
        host.set_passthrough(call.vcpu, true);
    }

    fn records(host: &Host, vcpu: VcpuId) -> bool {
        host.guest_debugctl(vcpu) & DebugCtl::LBR.bits() != 0
    }

    fn forget(host: &mut Host, vcpu: VcpuId) {
        let lent = host.vcpu(vcpu).cpu.filter(|cpu| {
            let lbr = host.perf().lbr_cpu(*cpu);
            lbr.lent() && lbr.guest() == Some(vcpu)
        });
        let (perf, hardware) = host.perf_mut();
        perf.guest_lbr_drop(vcpu);
        if let Some(cpu) = lent {
            perf.guest_lbr_put(hardware, cpu);
        }
        host.set_passthrough(vcpu, false);
        let lbr = &mut host.vcpu_mut(vcpu).lbr;
        (lbr.used, lbr.words[0]) = (false, 0);
    }

    fn is_listed(host: &Host, msr: Msr) -> bool {
        OFFER.format(host).is_some() && host.lbr_msrs().passed_through().any(|listed| listed == msr)
    }

    /// User space reads 0 of what is listed and the guest lacks, and may write it back.
    /// `kvm_do_msr_access`.
    fn absent(call: Call, access: Access) -> Answer {
        match access.operation {
            _ if call.initiator == Initiator::Guest => Answer::Unknown,
            Operation::Write(value) if value.value != 0 => Answer::Refused,
            _ => access.dummy(),
        }
    }

    fn debugctl(host: &mut Host, call: Call, access: Access) -> Answer {
        let answer = OFFER.debugctl(host, call, access);
        let by_guest = call.initiator == Initiator::Guest;
        let written = matches!(access.operation, Operation::Write(_));
        if by_guest && written && answer == Answer::Done && Self::records(host, call.vcpu) {
            Self::take(host, call);
        }
        answer
    }

    fn lbr(host: &mut Host, call: Call, access: Access) -> Answer {
        let register = Host::named(host.vcpu(call.vcpu).lbr.msrs.as_ref(), access.msr);
        let register = match register {
            Some(LbrRegister::Ler(_) | LbrRegister::Depth) => return Answer::Unknown,
            None if Self::is_listed(host, access.msr) => return Self::absent(call, access),
            None => return Answer::Unknown,
            Some(register) => register,
        };
        if let Operation::Write(value) = access.operation {
            // The guest's processor would not take it either.
            let mut fresh = host.hardware().fresh().clone();
            if fresh.wrmsr(access.msr, value.value).is_err() {
                return Answer::Refused;
            }
        }
        if call.initiator == Initiator::Guest {
            Self::take(host, call);
            return host.access_hardware(call, access);
        }
        let in_registers = host.perf().lbr_cpu(call.cpu).guest() == Some(call.vcpu);
        let unused = !host.vcpu(call.vcpu).lbr.used;
        if in_registers {
            return host.access_hardware(call, access);
        }
        if unused && access.operation == Operation::Read {
            return access.dummy();
        }
        host.vcpu_mut(call.vcpu).lbr.used = true;
        let msrs = *host.lbr_msrs();
        let (perf, _) = host.perf_mut();
        swap::access_saved(perf.guest_lbr_mut(call.vcpu), &msrs, register, access)
    }
}

impl Policy for MediatedLazy {
    fn name(&self) -> &str {
        "mediated-lazy"
    }

    fn title(&self) -> &str {
        "the proposal: perf's LBR is put aside while a vCPU has its own, which is moved only if need be"
    }

    fn standing(&self) -> Standing {
        Standing::Lent
    }

    fn kernel(&self) -> Option<KernelVersion> {
        Some(KernelVersion::new(6, 17, 0))
    }

    fn adjust(&self, behaviour: &mut Behaviour) {
        behaviour.guest_lbr = GuestLbr::None;
        behaviour.callstack_users_by_event = true;
    }

    /// A guest without LBR never records.
    fn refresh(&self, host: &mut Host, vcpu: VcpuId) {
        OFFER.refresh(host, vcpu);
        if host.vcpu(vcpu).lbr.msrs.is_some() {
            return;
        }
        Self::forget(host, vcpu);
        let debugctl = DebugCtl::from_bits(host.guest_debugctl(vcpu));
        if debugctl.contains(DebugCtl::LBR) {
            let without = debugctl.without(DebugCtl::LBR).bits();
            let written = host.write_guest_debugctl(vcpu, without);
            debug_assert!(written.is_ok());
        }
    }

    fn access(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        match access.msr {
            Msr::PERF_CAPABILITIES => {
                let answer = OFFER.capabilities(host, call, access);
                if host.vcpu(call.vcpu).lbr.msrs.is_none() {
                    self.refresh(host, call.vcpu);
                }
                answer
            }
            Msr::DEBUGCTL => Self::debugctl(host, call, access),
            _ => Self::lbr(host, call, access),
        }
    }

    fn nested_debugctl(&self, host: &mut Host, call: Call, value: u64) -> Option<u64> {
        OFFER.valid_debugctl(host, call.vcpu, value, false)
    }

    /// A guest that records has to have the LBR; one whose stack still stands in the registers may
    /// as well. Any other asks for it by an exit.
    fn before_entry(&self, host: &mut Host, call: Call) {
        let vcpu = call.vcpu;
        OFFER.reload_debugctl(host, vcpu);
        if host.vcpu(vcpu).lbr.msrs.is_none() {
            return;
        }
        let lbr = host.perf().lbr_cpu(call.cpu);
        let (stands, lent) = (lbr.guest() == Some(vcpu), lbr.lent());
        if stands || Self::records(host, vcpu) {
            if !(stands && lent) {
                Self::take(host, call);
            }
        } else {
            host.set_passthrough(vcpu, false);
        }
        let debugctl = host.guest_debugctl(vcpu);
        let freezes = debugctl & FROZEN_BY_OVERFLOW == FROZEN_BY_OVERFLOW;
        host.vcpu_mut(vcpu).lbr.words[0] = if freezes { debugctl } else { 0 };
    }

    /// The guest's writes exit: what cleared LBR meanwhile is an overflow. Of a counter of the guest
    /// the virtual PMI clears it again; others are none of its business.
    fn after_exit(&self, host: &mut Host, call: Call, _: &VmExit, _: ExitLevel) {
        let entered = core::mem::take(&mut host.vcpu_mut(call.vcpu).lbr.words[0]);
        if entered != 0 && host.guest_debugctl(call.vcpu) != entered {
            let written = host.write_guest_debugctl(call.vcpu, entered);
            debug_assert!(written.is_ok());
        }
    }

    fn put(&self, host: &mut Host, call: Call) {
        let running = host.hardware().cpu(call.cpu).running();
        debug_assert!(!matches!(running, Running::Guest(_)));
        let (perf, hardware) = host.perf_mut();
        perf.guest_lbr_put(hardware, call.cpu);
    }

    fn pmi(&self, host: &mut Host, call: Call) {
        offer::freeze_at_virtual_pmi(host, call.vcpu);
    }

    fn reset(&self, host: &mut Host, vcpu: VcpuId) {
        Self::forget(host, vcpu);
    }

    /// Everything, so that a migration carries it.
    fn listed(&self, host: &Host) -> Vec<Msr> {
        let offered = OFFER.format(host).map(|_| host.lbr_msrs());
        let registers = offered.into_iter().flat_map(LbrMsrs::passed_through);
        offered
            .map(|_| Msr::DEBUGCTL)
            .into_iter()
            .chain(registers)
            .collect()
    }
}
