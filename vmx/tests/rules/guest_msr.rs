//! RDMSR and WRMSR in non-root operation.

use vlbr_arch::vmx::{ExitReason, PrimaryControls, VmcsField};
use vlbr_arch::{Cpl, Msr};
use vlbr_cpu::ledger::{Actor, Event};
use vlbr_vmx::{Access, Fail, GuestMsr, GuestMsrStop, MsrBitmap, VmExit};

use crate::common::{BITMAP, Machine};

fn intercept(machine: &mut Machine, bitmap: &MsrBitmap) {
    bitmap.store(&mut machine.ram, BITMAP).unwrap();
}

fn exit(machine: &mut Machine, instruction: GuestMsr, msr: Msr) -> VmExit {
    match machine.access(instruction, msr) {
        Err(GuestMsrStop::Exit(exit)) => exit,
        other => panic!("{other:?}"),
    }
}

#[test]
fn t16_rdmsr_outside_the_ranges_exits_with_31() {
    let mut machine = Machine::guest("skylake");
    let exit = exit(&mut machine, GuestMsr::Rdmsr, Msr::new(0x2000));
    assert_eq!(exit.reason, ExitReason::new(31));
    assert_eq!((exit.qualification, exit.instruction_length), (0, 2));
}

#[test]
fn t17_a_clear_bit_passes_the_register_itself() {
    let mut machine = Machine::guest("skylake");
    let mut bitmap = MsrBitmap::intercepting_all();
    bitmap.set(Msr::LBR_INFO_0, Access::Read, false).unwrap();
    assert_eq!(bitmap.as_page()[0x1b8], 0xfe);
    intercept(&mut machine, &bitmap);
    machine.wrmsr(Msr::LBR_INFO_0, 0x1234);
    assert_eq!(machine.access(GuestMsr::Rdmsr, Msr::LBR_INFO_0), Ok(0x1234));
    let wrmsr = exit(&mut machine, GuestMsr::Wrmsr(0), Msr::LBR_INFO_0);
    assert_eq!(wrmsr.reason, ExitReason::WRMSR);
    assert_eq!(machine.rdmsr(Msr::LBR_INFO_0), 0x1234);
}

#[test]
fn without_bitmaps_every_access_exits() {
    let mut machine = Machine::ready("skylake");
    let control = PrimaryControls::USE_MSR_BITMAPS;
    machine.clear(VmcsField::CPU_BASED_VM_EXEC_CONTROL, control.bits());
    machine.launch().unwrap();
    for instruction in [GuestMsr::Rdmsr, GuestMsr::Wrmsr(0)] {
        exit(&mut machine, instruction, Msr::DEBUGCTL);
    }
}

#[test]
fn cpl_comes_before_the_exit() {
    let mut machine = Machine::guest("skylake");
    intercept(&mut machine, &MsrBitmap::intercepting_all());
    for cpl in [Cpl::Ring1, Cpl::Ring2, Cpl::Ring3] {
        let (vmx, mut context) = machine.context();
        assert_eq!(
            vmx.guest_msr(GuestMsr::Rdmsr, Msr::DEBUGCTL, cpl, &mut context),
            Err(GuestMsrStop::Privilege(cpl))
        );
    }
}

#[test]
fn the_exit_comes_before_existence_and_reserved_bits() {
    let mut machine = Machine::guest("skylake");
    assert!(matches!(
        machine.access(GuestMsr::Rdmsr, Msr::LBR_CTL),
        Err(GuestMsrStop::Gp(_))
    ));
    assert!(matches!(
        machine.access(GuestMsr::Wrmsr(8), Msr::DEBUGCTL),
        Err(GuestMsrStop::Gp(_))
    ));
    intercept(&mut machine, &MsrBitmap::intercepting_all());
    exit(&mut machine, GuestMsr::Rdmsr, Msr::LBR_CTL);
    exit(&mut machine, GuestMsr::Wrmsr(8), Msr::DEBUGCTL);
}

#[test]
fn the_new_instructions_have_reasons_and_qualifications_of_their_own() {
    let mut machine = Machine::guest("skylake");
    intercept(&mut machine, &MsrBitmap::intercepting_all());
    for (instruction, reason, qualification, length) in [
        (GuestMsr::Wrmsr(1), 32, 0, 2),
        (GuestMsr::Wrmsrns(1), 32, 1, 3),
        (GuestMsr::RdmsrImmediate(9), 84, 0x1d9, 9),
        (GuestMsr::WrmsrnsImmediate(1, 9), 85, 0x1d9, 9),
    ] {
        let exit = exit(&mut machine, instruction, Msr::DEBUGCTL);
        assert_eq!(exit.reason, ExitReason::new(reason));
        assert_eq!(exit.qualification, qualification);
        assert_eq!(exit.instruction_length, length);
    }
}

#[test]
fn a_guest_that_is_passed_writes_the_register() {
    let mut machine = Machine::guest("skylake");
    for (n, instruction) in (1..).zip([
        GuestMsr::Wrmsr(1),
        GuestMsr::Wrmsrns(2),
        GuestMsr::WrmsrnsImmediate(3, 9),
    ]) {
        assert_eq!(machine.access(instruction, Msr::LBR_SELECT), Ok(0));
        assert_eq!(machine.rdmsr(Msr::LBR_SELECT), n);
    }
    assert_eq!(
        machine.access(GuestMsr::RdmsrImmediate(9), Msr::LBR_SELECT),
        Ok(3)
    );
}

#[test]
fn a_bitmap_changed_in_memory_acts_at_once() {
    let mut machine = Machine::guest("skylake");
    assert_eq!(machine.access(GuestMsr::Rdmsr, Msr::DEBUGCTL), Ok(0));
    intercept(&mut machine, &MsrBitmap::intercepting_all());
    exit(&mut machine, GuestMsr::Rdmsr, Msr::DEBUGCTL);
}

#[test]
fn accesses_are_counted_and_exits_only_when_they_are_made() {
    let mut machine = Machine::guest("skylake");
    machine.access(GuestMsr::Rdmsr, Msr::DEBUGCTL).unwrap();
    machine.access(GuestMsr::Wrmsr(0), Msr::DEBUGCTL).unwrap();
    machine.access(GuestMsr::Rdmsr, Msr::LBR_CTL).unwrap_err();
    let stop = exit(&mut machine, GuestMsr::Rdmsr, Msr::new(0x2000));
    let count = |machine: &Machine, event| machine.ledger.count(Actor::Guest, event);
    assert_eq!(count(&machine, Event::Rdmsr(Msr::DEBUGCTL)), 1);
    assert_eq!(count(&machine, Event::Wrmsr(Msr::DEBUGCTL)), 1);
    assert_eq!(count(&machine, Event::RdmsrFault(Msr::LBR_CTL)), 1);
    let event = Event::VmExit {
        reason: ExitReason::RDMSR,
        msr: Some(Msr::new(0x2000)),
    };
    assert_eq!(machine.ledger.count(Actor::Hardware, event), 0);
    machine.exit(&stop).unwrap();
    assert_eq!(machine.ledger.count(Actor::Hardware, event), 1);
    assert_eq!(machine.read(VmcsField::VM_EXIT_REASON), 31);
    assert_eq!(machine.read(VmcsField::VM_EXIT_INSTRUCTION_LEN), 2);
}

#[test]
fn in_root_operation_there_is_no_guest_access() {
    let mut machine = Machine::ready("skylake");
    assert_eq!(
        machine.access(GuestMsr::Rdmsr, Msr::DEBUGCTL),
        Err(GuestMsrStop::State(Fail::NotNonRoot))
    );
}
