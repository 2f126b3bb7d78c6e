//! Guest state: exit reason 33.

use vlbr_arch::Msr;
use vlbr_arch::vmx::{
    EntryControls, Interruptibility, InterruptionInfo, InterruptionType, PinControls, VmcsField,
};
use vlbr_vmx::{EntryCause, EntryError, GuestFault, State};

use crate::common::Machine;

const TF: u64 = 1 << 8;
const IF: u64 = 1 << 9;

fn fault(machine: &mut Machine) -> GuestFault {
    match machine.launch() {
        Err(EntryError::Failure(failure)) => {
            assert_eq!(failure.reason.value(), 0x8000_0021);
            assert_eq!(failure.qualification, 0);
            assert_eq!(machine.read(VmcsField::VM_EXIT_REASON), 0x8000_0021);
            assert_eq!(machine.vmx.state(), State::Root);
            match failure.cause {
                EntryCause::Guest(fault) => fault,
                other => panic!("{other:?}"),
            }
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn t15_reserved_bits_of_debugctl_fail_if_it_is_loaded() {
    let mut machine = Machine::ready("skylake");
    machine.write(VmcsField::GUEST_IA32_DEBUGCTL, 8);
    let expected = GuestFault::Reserved {
        msr: Msr::DEBUGCTL,
        bits: 8,
    };
    assert_eq!(fault(&mut machine), expected);
    machine.clear(VmcsField::VM_ENTRY_CONTROLS, 1 << 2);
    machine.launch().unwrap();
}

#[test]
fn bits_of_debugctl_that_the_model_lacks_fail_too() {
    // RTM_DEBUG, bit 15, needs TSX.
    let mut machine = Machine::ready("ivy-bridge");
    machine.write(VmcsField::GUEST_IA32_DEBUGCTL, 0x8001);
    let expected = GuestFault::Reserved {
        msr: Msr::DEBUGCTL,
        bits: 0x8000,
    };
    assert_eq!(fault(&mut machine), expected);
    let mut machine = Machine::ready("skylake");
    machine.write(VmcsField::GUEST_IA32_DEBUGCTL, 0x8001);
    machine.launch().unwrap();
}

#[test]
fn reserved_bits_of_perf_global_ctrl_fail_if_it_is_loaded() {
    let mut machine = Machine::ready("skylake");
    machine.write(VmcsField::GUEST_IA32_PERF_GLOBAL_CTRL, 0x8_0000_0001);
    machine.launch().unwrap();
    machine.hlt();
    let mut machine = Machine::ready("skylake");
    machine.write(VmcsField::GUEST_IA32_PERF_GLOBAL_CTRL, 0x8_0000_0001);
    let load = EntryControls::LOAD_PERF_GLOBAL_CTRL;
    machine.set(VmcsField::VM_ENTRY_CONTROLS, load.bits());
    let expected = GuestFault::Reserved {
        msr: Msr::PERF_GLOBAL_CTRL,
        bits: 0x8_0000_0000,
    };
    assert_eq!(fault(&mut machine), expected);
}

#[test]
fn reserved_bits_of_lbr_ctl_fail_if_it_is_loaded() {
    let mut machine = Machine::ready("alder-lake-p");
    machine.write(VmcsField::GUEST_IA32_LBR_CTL, 0x7f_0017);
    machine.launch().unwrap();
    machine.hlt();
    let mut machine = Machine::ready("alder-lake-p");
    machine.write(VmcsField::GUEST_IA32_LBR_CTL, 0x7f_0017);
    let load = EntryControls::LOAD_LBR_CTL;
    machine.set(VmcsField::VM_ENTRY_CONTROLS, load.bits());
    let expected = GuestFault::Reserved {
        msr: Msr::LBR_CTL,
        bits: 0x10,
    };
    assert_eq!(fault(&mut machine), expected);
}

#[test]
fn the_upper_half_of_dr7_must_be_0_if_it_is_loaded() {
    let mut machine = Machine::ready("skylake");
    machine.write(VmcsField::GUEST_DR7, 1 << 32 | 0x400);
    assert_eq!(fault(&mut machine), GuestFault::Dr7(1 << 32 | 0x400));
}

#[test]
fn rflags_has_bit_1_and_no_reserved_bit() {
    for rflags in [0, 2 | 1 << 3, 2 | 1 << 15, 2 | 1 << 22] {
        let mut machine = Machine::ready("skylake");
        machine.write(VmcsField::GUEST_RFLAGS, rflags);
        assert_eq!(fault(&mut machine), GuestFault::Rflags(rflags));
    }
}

#[test]
fn an_external_interrupt_needs_if_and_no_shadow() {
    let mut machine = Machine::ready("skylake");
    let info = InterruptionInfo::new(0x40, InterruptionType::External);
    machine.write(VmcsField::VM_ENTRY_INTR_INFO_FIELD, info.bits().into());
    assert_eq!(fault(&mut machine), GuestFault::InterruptsOff);
    machine.write(VmcsField::GUEST_RFLAGS, 2 | IF);
    for by in [
        Interruptibility::BLOCKING_BY_STI,
        Interruptibility::BLOCKING_BY_MOV_SS,
    ] {
        machine.write(VmcsField::GUEST_INTERRUPTIBILITY_INFO, by.bits().into());
        let kind = InterruptionType::External;
        assert_eq!(
            fault(&mut machine),
            GuestFault::InjectionBlocked { kind, by }
        );
    }
    machine.write(VmcsField::GUEST_INTERRUPTIBILITY_INFO, 0);
    machine.launch().unwrap();
}

#[test]
fn an_nmi_is_not_injected_in_the_shadow_of_mov_ss() {
    let mut machine = Machine::ready("skylake");
    let info = InterruptionInfo::new(2, InterruptionType::Nmi);
    machine.write(VmcsField::VM_ENTRY_INTR_INFO_FIELD, info.bits().into());
    let by = Interruptibility::BLOCKING_BY_MOV_SS;
    machine.write(VmcsField::GUEST_INTERRUPTIBILITY_INFO, by.bits().into());
    let kind = InterruptionType::Nmi;
    assert_eq!(
        fault(&mut machine),
        GuestFault::InjectionBlocked { kind, by }
    );
}

#[test]
fn a_blocked_nmi_is_not_injected_with_virtual_nmis() {
    let mut machine = Machine::ready("skylake");
    let info = InterruptionInfo::new(2, InterruptionType::Nmi);
    machine.write(VmcsField::VM_ENTRY_INTR_INFO_FIELD, info.bits().into());
    let by = Interruptibility::BLOCKING_BY_NMI;
    machine.write(VmcsField::GUEST_INTERRUPTIBILITY_INFO, by.bits().into());
    let controls = PinControls::NMI_EXITING | PinControls::VIRTUAL_NMIS;
    machine.set(VmcsField::PIN_BASED_VM_EXEC_CONTROL, controls.bits());
    let kind = InterruptionType::Nmi;
    assert_eq!(
        fault(&mut machine),
        GuestFault::InjectionBlocked { kind, by }
    );
    machine.clear(VmcsField::PIN_BASED_VM_EXEC_CONTROL, 1 << 5);
    machine.launch().unwrap();
}

#[test]
fn only_what_ends_an_activity_state_is_injected_into_it() {
    use InterruptionType as Type;
    const HLT: u32 = 1;
    const SHUTDOWN: u32 = 2;
    for (activity, kind, vector, enters) in [
        (HLT, Type::External, 0x40, true),
        (HLT, Type::Nmi, 2, true),
        (HLT, Type::HardwareException, 1, true),
        (HLT, Type::HardwareException, 18, true),
        (HLT, Type::Other, 0, true),
        (HLT, Type::HardwareException, 6, false),
        (HLT, Type::SoftwareInterrupt, 0x80, false),
        (HLT, Type::SoftwareException, 3, false),
        (SHUTDOWN, Type::Nmi, 2, true),
        (SHUTDOWN, Type::HardwareException, 18, true),
        (SHUTDOWN, Type::HardwareException, 1, false),
        (SHUTDOWN, Type::External, 0x40, false),
        (3, Type::Nmi, 2, false),
    ] {
        let mut machine = Machine::ready("skylake");
        let info = InterruptionInfo::new(vector, kind);
        machine.write(VmcsField::VM_ENTRY_INTR_INFO_FIELD, info.bits().into());
        machine.write(VmcsField::VM_ENTRY_INSTRUCTION_LEN, 2);
        machine.write(VmcsField::GUEST_RFLAGS, 2 | IF);
        machine.write(VmcsField::GUEST_ACTIVITY_STATE, activity.into());
        if enters {
            machine.launch().unwrap();
        } else {
            let expected = GuestFault::ActivityInjection {
                kind,
                vector,
                activity,
            };
            assert_eq!(fault(&mut machine), expected);
        }
    }
}

#[test]
fn a_pending_debug_exception_of_a_transaction_stands_alone() {
    const RTM: u64 = 1 << 16;
    const BREAKPOINT: u64 = 1 << 12;
    for (pending, interruptibility, enters) in [
        (RTM | BREAKPOINT, 0, true),
        (RTM, 0, false),
        (RTM | BREAKPOINT | 1, 0, false),
        (RTM | BREAKPOINT | 1 << 14, 0, false),
        (RTM | BREAKPOINT, 2, false),
    ] {
        let mut machine = Machine::ready("skylake");
        machine.write(VmcsField::GUEST_PENDING_DBG_EXCEPTIONS, pending);
        machine.write(VmcsField::GUEST_INTERRUPTIBILITY_INFO, interruptibility);
        if enters {
            machine.launch().unwrap();
        } else {
            assert_eq!(fault(&mut machine), GuestFault::PendingRtm(pending));
        }
    }
}

#[test]
fn entry_to_smm_enters_where_smis_are_blocked() {
    let mut machine = Machine::ready("skylake");
    machine.vmx.set_smm(true);
    let control = EntryControls::ENTRY_TO_SMM;
    machine.set(VmcsField::VM_ENTRY_CONTROLS, control.bits());
    let state = Interruptibility::default();
    assert_eq!(fault(&mut machine), GuestFault::Interruptibility(state));
    machine.write(VmcsField::GUEST_INTERRUPTIBILITY_INFO, 4);
    machine.launch().unwrap();
}

#[test]
fn an_interruptibility_state_that_cannot_be_fails() {
    // The last: an enclave was interrupted, and MOV SS came before.
    for (state, rflags) in [(3, 2 | IF), (1, 2), (1 << 5, 2), (4, 2), (18, 2)] {
        let mut machine = Machine::ready("skylake");
        machine.write(VmcsField::GUEST_INTERRUPTIBILITY_INFO, state);
        machine.write(VmcsField::GUEST_RFLAGS, rflags);
        let state = Interruptibility::from_bits(state as u32);
        assert_eq!(fault(&mut machine), GuestFault::Interruptibility(state));
    }
}

#[test]
fn only_activity_states_that_exist_enter_and_not_in_a_shadow() {
    let mut machine = Machine::ready("skylake");
    machine.write(VmcsField::GUEST_ACTIVITY_STATE, 4);
    assert_eq!(fault(&mut machine), GuestFault::ActivityState(4));
    machine.write(VmcsField::GUEST_ACTIVITY_STATE, 1);
    machine.write(VmcsField::GUEST_RFLAGS, 2 | IF);
    machine.write(VmcsField::GUEST_INTERRUPTIBILITY_INFO, 1);
    assert_eq!(fault(&mut machine), GuestFault::ActivityBlocked(1));
    machine.write(VmcsField::GUEST_INTERRUPTIBILITY_INFO, 0);
    machine.launch().unwrap();
}

#[test]
fn reserved_bits_of_pending_debug_exceptions_fail() {
    let mut machine = Machine::ready("skylake");
    machine.write(VmcsField::GUEST_PENDING_DBG_EXCEPTIONS, 1 << 13);
    assert_eq!(fault(&mut machine), GuestFault::PendingDebug(1 << 13));
}

#[test]
fn bs_follows_from_tf_and_btf_while_events_are_held() {
    // In the shadow of STI or MOV SS or in HLT; elsewhere BS is free.
    for (interruptibility, activity, held) in
        [(0, 0, false), (1, 0, true), (2, 0, true), (0, 1, true)]
    {
        for (tf, btf, bs) in (0..8).map(|n| (n & 1 != 0, n & 2 != 0, n & 4 != 0)) {
            let mut machine = Machine::ready("skylake");
            let rflags = 2 | IF | if tf { TF } else { 0 };
            machine.write(VmcsField::GUEST_RFLAGS, rflags);
            machine.write(VmcsField::GUEST_IA32_DEBUGCTL, if btf { 2 } else { 0 });
            machine.write(
                VmcsField::GUEST_PENDING_DBG_EXCEPTIONS,
                if bs { 1 << 14 } else { 0 },
            );
            machine.write(VmcsField::GUEST_INTERRUPTIBILITY_INFO, interruptibility);
            machine.write(VmcsField::GUEST_ACTIVITY_STATE, activity);
            let wanted = tf && !btf;
            if held && bs != wanted {
                let expected = GuestFault::SingleStep { found: bs, wanted };
                assert_eq!(fault(&mut machine), expected);
            } else {
                machine.launch().unwrap();
            }
        }
    }
}

#[test]
fn an_entry_that_fails_on_guest_state_loads_the_hosts() {
    let mut machine = Machine::ready("skylake");
    machine.wrmsr(Msr::DEBUGCTL, 0x801);
    machine.write(VmcsField::GUEST_IA32_DEBUGCTL, 8);
    fault(&mut machine);
    assert_eq!(machine.rdmsr(Msr::DEBUGCTL), 0);
    assert_eq!(machine.registers.rip, crate::common::HOST_RIP);
    assert_eq!(machine.registers.dr7, 0x400);
    assert_eq!(machine.read(VmcsField::GUEST_IA32_DEBUGCTL), 8);
    assert_eq!(machine.read(VmcsField::GUEST_RIP), 0x40_1000);
}
