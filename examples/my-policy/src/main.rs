//! A policy of one's own: the guest's stack is swapped when its vCPU is loaded and put, unless it was never
//! used. `cargo run -- vm SCENE.toml --policy swap-when-used` runs it; `overhead` and `corpus check` know it too.

use std::process::ExitCode;
use std::sync::Arc;

use vlbr_arch::vmx::VmcsField;
use vlbr_arch::{DebugCtl, Msr};
use vlbr_cpu::ledger::Actor;
use vlbr_host::Owned;
use vlbr_host::kvm::{Access, Answer, Call, Initiator, Operation, SavedStack};
use vlbr_host::machine::Host;
use vlbr_host::perf::{Behaviour, GuestLbr};
use vlbr_host::policy::{Catalog, Policy};

#[derive(Debug)]
struct SwapWhenUsed;

/// The entries, SELECT and TOS into memory, each by an RDMSR that the ledger counts.
fn save(host: &mut Host, call: Call) -> SavedStack {
    let msrs = *host.lbr_msrs();
    let mut stack = SavedStack::default();
    let (processor, _, ledger) = host.hardware_mut().split(call.cpu);
    let mut read = |msr: Option<Msr>| {
        let read = msr.and_then(|msr| processor.rdmsr(ledger, Actor::WorldSwitch, msr).ok());
        read.unwrap_or(Owned::CLEARED)
    };
    (stack.tos, stack.filter) = (read(msrs.tos), read(msrs.select));
    let read = processor.read_stack(ledger, Actor::WorldSwitch, &mut stack.entries);
    debug_assert!(read.is_ok());
    stack
}

/// The same back. A stack that was read can be written.
fn load(host: &mut Host, call: Call, stack: SavedStack) {
    let msrs = *host.lbr_msrs();
    let (processor, _, ledger) = host.hardware_mut().split(call.cpu);
    let _ = processor.write_stack(ledger, Actor::WorldSwitch, &stack.entries);
    for (msr, value) in [(msrs.select, stack.filter), (msrs.tos, stack.tos)] {
        if let Some(msr) = msr {
            let _ = processor.wrmsr(ledger, Actor::WorldSwitch, msr, value);
        }
    }
}

impl Policy for SwapWhenUsed {
    fn name(&self) -> &str {
        "swap-when-used"
    }

    fn title(&self) -> &str {
        "the stack is swapped at load and put, once the guest has used it"
    }

    fn adjust(&self, behaviour: &mut Behaviour) {
        behaviour.guest_lbr = GuestLbr::None;
    }

    /// Every guest has LBR here.
    fn refresh(&self, host: &mut Host, vcpu: vlbr_host::VcpuId) {
        let msrs = *host.lbr_msrs();
        host.vcpu_mut(vcpu).lbr.msrs = Some(msrs);
    }

    /// A first access switches LBR on for the vCPU: from then on its registers are its own and pass.
    fn access(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        let field = VmcsField::GUEST_IA32_DEBUGCTL;
        match (access.msr, access.operation) {
            (Msr::PERF_CAPABILITIES, Operation::Read) => Answer::Value(Owned::CLEARED),
            (Msr::PERF_CAPABILITIES, Operation::Write(_))
                if call.initiator == Initiator::UserSpace =>
            {
                Answer::Done
            }
            (Msr::DEBUGCTL, Operation::Read) => {
                Answer::Value(Host::guests(call.vcpu, host.vmcs_field(call.vcpu, field)))
            }
            (Msr::DEBUGCTL, Operation::Write(value)) => {
                let kept = DebugCtl::LBR.bits() | DebugCtl::FREEZE_LBRS_ON_PMI.bits();
                match host.write_guest_debugctl(call.vcpu, value.value & kept) {
                    Ok(()) => Answer::Done,
                    Err(_) => Answer::Refused,
                }
            }
            (msr, _) if host.lbr_msrs().register(msr).is_some() => {
                if !core::mem::replace(&mut host.vcpu_mut(call.vcpu).lbr.used, true) {
                    // The guest's first stack is empty.
                    load(host, call, SavedStack::default());
                    host.set_passthrough(call.vcpu, true);
                }
                host.access_hardware(call, access)
            }
            _ => Answer::Unknown,
        }
    }

    fn load(&self, host: &mut Host, call: Call) {
        if let Some(stack) = host.vcpu_mut(call.vcpu).lbr.saved.take() {
            load(host, call, stack);
        }
    }

    /// At a virtual PMI the guest's processor would stop recording, if the guest has asked for that.
    fn pmi(&self, host: &mut Host, call: Call) {
        let debugctl = DebugCtl::from_bits(host.guest_debugctl(call.vcpu));
        if debugctl.contains(DebugCtl::FREEZE_LBRS_ON_PMI) {
            let stopped = debugctl.without(DebugCtl::LBR).bits();
            let written = host.write_guest_debugctl(call.vcpu, stopped);
            debug_assert!(written.is_ok());
        }
    }

    fn put(&self, host: &mut Host, call: Call) {
        if host.vcpu(call.vcpu).lbr.used {
            host.vcpu_mut(call.vcpu).lbr.saved = Some(save(host, call));
        }
    }
}

fn main() -> ExitCode {
    let mut catalog = Catalog::builtin();
    catalog.register(Arc::new(SwapWhenUsed));
    vlbr_cli::run(catalog)
}
