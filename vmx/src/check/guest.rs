//! Guest-state area.

use vlbr_arch::vmx::{
    EntryControls, Interruptibility, InterruptionInfo, InterruptionType, PendingDebug, PinControls,
    VmcsField,
};
use vlbr_arch::{DebugCtl, Msr};
use vlbr_cpu::ledger::MsrAccess;

use crate::{Vmcs, Vmx};

const CF_TO_VIP: u64 = 0x3f_7fd7;
const RFLAGS_ONE: u64 = 1 << 1;
const RFLAGS_TF: u64 = 1 << 8;
const RFLAGS_IF: u64 = 1 << 9;
const HLT: u32 = 1;
const SHUTDOWN: u32 = 2;
const DEBUG_EXCEPTION: u8 = 1;
const MACHINE_CHECK: u8 = 18;

/// Why the guest state is wrong: VM entry fails with exit reason 33, qualification 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuestFault {
    /// Bits of a register that the processor reserves or does not have.
    #[error("guest {msr}: reserved bits {bits:#x} are set")]
    Reserved {
        /// The register.
        msr: Msr,
        /// The bits.
        bits: u64,
    },
    /// Bits 63:32 of DR7.
    #[error("guest DR7 {0:#x}: bits 63:32 are not 0")]
    Dr7(u64),
    /// Reserved bits of RFLAGS, or bit 1 is 0.
    #[error("guest RFLAGS {0:#x}: a reserved bit has the wrong value")]
    Rflags(u64),
    /// An external interrupt is injected with RFLAGS.IF = 0.
    #[error("an external interrupt is injected and RFLAGS.IF is 0")]
    InterruptsOff,
    /// The activity state does not exist or does not fit.
    #[error("activity state {0} does not exist here")]
    ActivityState(u32),
    /// Blocking by STI or MOV SS, and not active.
    #[error("activity state {0} while STI or MOV SS blocks events")]
    ActivityBlocked(u32),
    /// An injected event that does not end the activity state.
    #[error("an injected {kind:?} with vector {vector} in activity state {activity}")]
    ActivityInjection {
        /// Type of the event.
        kind: InterruptionType,
        /// Its vector.
        vector: u8,
        /// Activity state.
        activity: u32,
    },
    /// The interruptibility state is impossible.
    #[error("interruptibility state {0} is impossible")]
    Interruptibility(Interruptibility),
    /// The injected event is blocked.
    #[error("an injected {kind:?} is blocked by {by}")]
    InjectionBlocked {
        /// Type of the event.
        kind: InterruptionType,
        /// What blocks it.
        by: Interruptibility,
    },
    /// Reserved bits of the pending debug exceptions.
    #[error("pending debug exceptions: reserved bits {0:#x} are set")]
    PendingDebug(u64),
    /// A pending `#DB` of a transaction with other bits, or without an enabled breakpoint, or in the
    /// shadow of MOV SS.
    #[error("pending debug exceptions: {0:#x} cannot be with RTM set")]
    PendingRtm(u64),
    /// BS does not follow from RFLAGS.TF and `IA32_DEBUGCTL.BTF`.
    #[error(
        "pending debug exceptions: BS is {found}, RFLAGS.TF and IA32_DEBUGCTL.BTF want {wanted}"
    )]
    SingleStep {
        /// BS.
        found: bool,
        /// TF and not BTF.
        wanted: bool,
    },
}

fn reserved<M: MsrAccess + ?Sized>(
    vmcs: &Vmcs,
    msrs: &M,
    field: VmcsField,
    msr: Msr,
) -> Result<(), GuestFault> {
    match vmcs.field(field) & msrs.reserved_bits(msr) {
        0 => Ok(()),
        bits => Err(GuestFault::Reserved { msr, bits }),
    }
}

/// The checks that end in exit reason 33.
pub(crate) fn check_guest<M: MsrAccess + ?Sized>(
    vmx: &Vmx,
    vmcs: &Vmcs,
    msrs: &M,
) -> Result<(), GuestFault> {
    let controls = vmcs.entry_controls();
    if controls.contains(EntryControls::LOAD_DEBUG_CONTROLS) {
        reserved(vmcs, msrs, VmcsField::GUEST_IA32_DEBUGCTL, Msr::DEBUGCTL)?;
        let dr7 = vmcs.field(VmcsField::GUEST_DR7);
        if dr7 >> 32 != 0 {
            return Err(GuestFault::Dr7(dr7));
        }
    }
    if controls.contains(EntryControls::LOAD_PERF_GLOBAL_CTRL) {
        let field = VmcsField::GUEST_IA32_PERF_GLOBAL_CTRL;
        reserved(vmcs, msrs, field, Msr::PERF_GLOBAL_CTRL)?;
    }
    if controls.contains(EntryControls::LOAD_LBR_CTL) {
        reserved(vmcs, msrs, VmcsField::GUEST_IA32_LBR_CTL, Msr::LBR_CTL)?;
    }
    check_events(vmx, vmcs)
}

fn check_events(vmx: &Vmx, vmcs: &Vmcs) -> Result<(), GuestFault> {
    let rflags = vmcs.field(VmcsField::GUEST_RFLAGS);
    if rflags & !CF_TO_VIP != 0 || rflags & RFLAGS_ONE == 0 {
        return Err(GuestFault::Rflags(rflags));
    }
    let info = vmcs.entry_interruption();
    let injected = info.is_valid().then(|| info.kind());
    if injected == Some(InterruptionType::External) && rflags & RFLAGS_IF == 0 {
        return Err(GuestFault::InterruptsOff);
    }
    let activity = vmcs.field32(VmcsField::GUEST_ACTIVITY_STATE);
    if activity > 3 || !vmx.profile().misc().has_activity_state(activity) {
        return Err(GuestFault::ActivityState(activity));
    }
    if injected.is_some() && !wakes(activity, info) {
        return Err(GuestFault::ActivityInjection {
            kind: info.kind(),
            vector: info.vector(),
            activity,
        });
    }
    let state = Interruptibility::from_bits(vmcs.field32(VmcsField::GUEST_INTERRUPTIBILITY_INFO));
    let (sti, mov_ss) = (
        Interruptibility::BLOCKING_BY_STI,
        Interruptibility::BLOCKING_BY_MOV_SS,
    );
    let shadow = state.intersects(sti | mov_ss);
    if activity != 0 && shadow {
        return Err(GuestFault::ActivityBlocked(activity));
    }
    let enters_smm = vmcs.entry_controls().contains(EntryControls::ENTRY_TO_SMM);
    let in_smm = state.contains(Interruptibility::BLOCKING_BY_SMI);
    if state.bits() >> 5 != 0
        || state.contains(sti | mov_ss)
        || (state.contains(sti) && rflags & RFLAGS_IF == 0)
        || (in_smm && !vmx.smm)
        || (!in_smm && enters_smm)
        || state.contains(Interruptibility::ENCLAVE_INTERRUPTION | mov_ss)
    {
        return Err(GuestFault::Interruptibility(state));
    }
    let blocked_by = match injected {
        Some(InterruptionType::External) => sti | mov_ss,
        Some(InterruptionType::Nmi) if vmcs.pin_controls().contains(PinControls::VIRTUAL_NMIS) => {
            mov_ss | Interruptibility::BLOCKING_BY_NMI
        }
        Some(InterruptionType::Nmi) => mov_ss,
        _ => Interruptibility::default(),
    };
    if let Some(kind) = injected.filter(|_| state.intersects(blocked_by)) {
        let by = Interruptibility::from_bits(state.bits() & blocked_by.bits());
        return Err(GuestFault::InjectionBlocked { kind, by });
    }
    check_pending(vmcs, rflags, shadow || activity == HLT, state)
}

/// Whether the event ends the activity state: an event that does not is blocked in it.
fn wakes(activity: u32, event: InterruptionInfo) -> bool {
    match (activity, event.kind()) {
        (0, _) => true,
        (HLT, InterruptionType::HardwareException) => {
            matches!(event.vector(), DEBUG_EXCEPTION | MACHINE_CHECK)
        }
        (HLT, kind) => matches!(
            kind,
            InterruptionType::External | InterruptionType::Nmi | InterruptionType::Other
        ),
        (SHUTDOWN, InterruptionType::HardwareException) => event.vector() == MACHINE_CHECK,
        (SHUTDOWN, kind) => kind == InterruptionType::Nmi,
        _ => false,
    }
}

/// The single step that TF asks for must be pending if the instruction before it has ended and
/// nothing could be delivered since.
///
/// A `#DB` in a transaction comes with an enabled breakpoint, with nothing else, and not after MOV
/// SS.
fn check_pending(
    vmcs: &Vmcs,
    rflags: u64,
    held: bool,
    state: Interruptibility,
) -> Result<(), GuestFault> {
    let pending = PendingDebug::from_bits(vmcs.field(VmcsField::GUEST_PENDING_DBG_EXCEPTIONS));
    let named = PendingDebug::NAMED
        .iter()
        .fold(0, |all, (bit, _)| all | bit.bits());
    if pending.bits() & !named != 0 {
        return Err(GuestFault::PendingDebug(pending.bits() & !named));
    }
    let debugctl = DebugCtl::from_bits(vmcs.field(VmcsField::GUEST_IA32_DEBUGCTL));
    let wanted = rflags & RFLAGS_TF != 0 && !debugctl.contains(DebugCtl::BTF);
    let found = pending.contains(PendingDebug::BS);
    if held && found != wanted {
        return Err(GuestFault::SingleStep { found, wanted });
    }
    let in_transaction = PendingDebug::RTM | PendingDebug::ENABLED_BREAKPOINT;
    if pending.contains(PendingDebug::RTM)
        && (pending != in_transaction || state.contains(Interruptibility::BLOCKING_BY_MOV_SS))
    {
        return Err(GuestFault::PendingRtm(pending.bits()));
    }
    Ok(())
}
