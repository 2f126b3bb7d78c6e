//! VMXON to VMWRITE, VMLAUNCH and VMRESUME.

use vlbr_arch::vmx::{Interruptibility, VmInstructionError as Error, VmcsField};
use vlbr_vmx::{
    EntryError, Fail, FailReason, LaunchState, OperandSize, Options, PhysicalMemory, State,
};

use crate::common::{Machine, VMCS, VMXON};

fn number(fail: Fail) -> Error {
    match fail {
        Fail::Valid { error, .. } => error,
        other => panic!("{other}"),
    }
}

#[test]
fn instructions_outside_vmx_operation_are_ud() {
    let mut machine = Machine::off("skylake", Options::default());
    assert_eq!(machine.vmx.vmxoff(), Err(Fail::NotInVmx));
    assert_eq!(machine.vmx.vmclear(VMCS), Err(Fail::NotInVmx));
    assert_eq!(machine.vmx.vmptrld(&machine.ram, VMCS), Err(Fail::NotInVmx));
    assert_eq!(
        machine
            .vmx
            .vmread(VmcsField::VM_EXIT_REASON, OperandSize::Bits64),
        Err(Fail::NotInVmx)
    );
    assert_eq!(
        machine.launch(),
        Err(EntryError::Instruction(Fail::NotInVmx))
    );
}

#[test]
fn vmxon_wants_an_aligned_page_with_the_revision() {
    let mut machine = Machine::off("skylake", Options::default());
    for at in [VMXON + 8, 1 << 46] {
        assert_eq!(
            machine.vmx.vmxon(&machine.ram, at),
            Err(Fail::Invalid(FailReason::Address(at)))
        );
    }
    machine.ram.write(VMXON, &0x8000_0004u32.to_le_bytes());
    assert!(matches!(
        machine.vmx.vmxon(&machine.ram, VMXON),
        Err(Fail::Invalid(FailReason::Revision { expected: 4, .. }))
    ));
    assert_eq!(machine.vmx.state(), State::Off);
}

#[test]
fn vmxon_in_root_operation_is_error_15_or_without_a_vmcs_invalid() {
    let mut machine = Machine::root("skylake");
    let fail = machine.vmx.vmxon(&machine.ram, VMXON).unwrap_err();
    assert_eq!(number(fail), Error::VMXON_IN_ROOT);
    assert_eq!(machine.read(VmcsField::VM_INSTRUCTION_ERROR), 15);
    machine.vmx.vmclear(VMCS).unwrap();
    assert_eq!(
        machine.vmx.vmxon(&machine.ram, VMXON),
        Err(Fail::Invalid(FailReason::Plain))
    );
}

#[test]
fn vmclear_refuses_bad_addresses_with_2_and_the_vmxon_pointer_with_3() {
    let mut machine = Machine::root("skylake");
    for (at, error) in [(VMCS + 1, 2), (1 << 46, 2), (VMXON, 3)] {
        let fail = machine.vmx.vmclear(at).unwrap_err();
        assert_eq!(number(fail), Error::new(error), "{at:#x}");
    }
}

#[test]
fn vmptrld_refuses_bad_addresses_with_9_the_vmxon_pointer_with_10_revisions_with_11() {
    let mut machine = Machine::root("skylake");
    machine.ram.write(0x7000, &5u32.to_le_bytes());
    for (at, error) in [
        (VMCS + 1, 9),
        (1 << 46, 9),
        (VMXON, 10),
        (0x7000, 11),
        (0x8000, 11),
    ] {
        let fail = machine.vmx.vmptrld(&machine.ram, at).unwrap_err();
        assert_eq!(number(fail), Error::new(error), "{at:#x}");
        assert_eq!(machine.vmx.vmptrst(), Ok(VMCS));
    }
}

#[test]
fn addresses_have_32_bits_where_ia32_vmx_basic_says_so() {
    let text =
        include_str!("../../profiles/core2-65nm.toml").replace("basic = 0x001a", "basic = 0x001b");
    let profile = vlbr_vmx::VmxProfile::from_toml(&text).unwrap();
    let mut vmx = vlbr_vmx::Vmx::new(&profile, Options::default());
    let machine = Machine::off("core2-65nm", Options::default());
    vmx.vmxon(&machine.ram, VMXON).unwrap();
    assert!(vmx.vmclear(1 << 32).is_err());
    assert!(vmx.vmclear(0xffff_f000).is_ok());
}

#[test]
fn vmclear_of_the_current_vmcs_leaves_none() {
    let mut machine = Machine::root("skylake");
    assert_eq!(machine.vmx.vmptrst(), Ok(VMCS));
    machine.vmx.vmclear(VMCS).unwrap();
    assert_eq!(machine.vmx.vmptrst(), Ok(u64::MAX));
    assert_eq!(
        machine
            .vmx
            .vmread(VmcsField::VM_EXIT_REASON, OperandSize::Bits64),
        Err(Fail::Invalid(FailReason::Plain))
    );
    assert_eq!(
        machine.launch(),
        Err(EntryError::Instruction(Fail::Invalid(FailReason::Plain)))
    );
}

#[test]
fn the_fields_of_a_vmcs_survive_while_another_is_current() {
    let mut machine = Machine::root("skylake");
    machine.write(VmcsField::GUEST_RIP, 0x1234);
    let revision = machine.vmcs().revision();
    machine.ram.write(0x7000, &revision.to_le_bytes());
    machine.vmx.vmptrld(&machine.ram, 0x7000).unwrap();
    assert_eq!(machine.read(VmcsField::GUEST_RIP), 0);
    machine.vmx.vmptrld(&machine.ram, VMCS).unwrap();
    assert_eq!(machine.read(VmcsField::GUEST_RIP), 0x1234);
}

#[test]
fn vmread_extends_short_fields_and_cuts_long_ones() {
    let mut machine = Machine::root("skylake");
    machine.write(VmcsField::GUEST_IA32_DEBUGCTL, 0x1122_3344_5566_7788);
    let mut read = |field, size| machine.vmx.vmread(field, size).unwrap();
    let field = VmcsField::GUEST_IA32_DEBUGCTL;
    assert_eq!(read(field, OperandSize::Bits64), 0x1122_3344_5566_7788);
    assert_eq!(read(field, OperandSize::Bits32), 0x5566_7788);
    assert_eq!(read(field.high(), OperandSize::Bits64), 0x1122_3344);
    assert_eq!(read(field.high(), OperandSize::Bits32), 0x1122_3344);
}

#[test]
fn vmwrite_cuts_long_operands_and_clears_above_short_ones() {
    let mut machine = Machine::root("skylake");
    let mut write = |field, value, size| {
        machine.vmx.vmwrite(field, value, size).unwrap();
        machine
            .vmx
            .vmread(VmcsField::full(field), OperandSize::Bits64)
            .unwrap()
    };
    let all = u64::MAX;
    assert_eq!(
        write(VmcsField::VIRTUAL_PROCESSOR_ID, all, OperandSize::Bits64),
        0xffff
    );
    assert_eq!(
        write(VmcsField::VM_EXIT_CONTROLS, all, OperandSize::Bits64),
        0xffff_ffff
    );
    let field = VmcsField::GUEST_IA32_DEBUGCTL;
    assert_eq!(write(field, all, OperandSize::Bits64), all);
    assert_eq!(write(field, 0x801, OperandSize::Bits32), 0x801);
    assert_eq!(
        write(field.high(), 0xab_1234_5678, OperandSize::Bits64),
        0x1234_5678_0000_0801
    );
    assert_eq!(
        write(VmcsField::GUEST_RIP, all, OperandSize::Bits32),
        0xffff_ffff
    );
}

#[test]
fn fields_whose_control_does_not_exist_are_error_12() {
    for (cpu, field, exists) in [
        ("skylake", VmcsField::GUEST_IA32_LBR_CTL, false),
        ("tiger-lake", VmcsField::GUEST_IA32_LBR_CTL, false),
        ("alder-lake-p", VmcsField::GUEST_IA32_LBR_CTL, true),
        ("core2-65nm", VmcsField::GUEST_IA32_PERF_GLOBAL_CTRL, false),
        ("core2-65nm", VmcsField::HOST_IA32_PERF_GLOBAL_CTRL, false),
        ("haswell", VmcsField::GUEST_IA32_PERF_GLOBAL_CTRL, true),
        ("core2-65nm", VmcsField::VMX_PREEMPTION_TIMER_VALUE, false),
        ("core2-65nm", VmcsField::SECONDARY_VM_EXEC_CONTROL, false),
        ("haswell", VmcsField::XSS_EXIT_BITMAP, false),
        ("skylake", VmcsField::XSS_EXIT_BITMAP, true),
        ("skylake", VmcsField::GUEST_IA32_RTIT_CTL, false),
        ("ice-lake", VmcsField::GUEST_IA32_RTIT_CTL, true),
        ("ice-lake", VmcsField::GUEST_BNDCFGS, false),
        ("skylake", VmcsField::new(0x2818).high(), false),
        ("skylake", VmcsField::GUEST_RIP.high(), false),
        ("skylake", VmcsField::new(0x6fff), false),
    ] {
        let mut machine = Machine::root(cpu);
        let read = machine.vmx.vmread(field, OperandSize::Bits64);
        let written = machine.vmx.vmwrite(field, 0, OperandSize::Bits64);
        if exists {
            assert_eq!((read, written), (Ok(0), Ok(())), "{cpu} {field}");
        } else {
            for fail in [read.unwrap_err(), written.unwrap_err()] {
                assert_eq!(number(fail), Error::UNSUPPORTED_COMPONENT, "{cpu} {field}");
            }
        }
    }
}

#[test]
fn exit_information_is_read_only_unless_ia32_vmx_misc_bit_29_is_set() {
    for (cpu, writable) in [
        ("core2-65nm", false),
        ("haswell", true),
        ("silvermont", false),
        ("skylake", true),
    ] {
        let mut machine = Machine::root(cpu);
        let written = machine
            .vmx
            .vmwrite(VmcsField::VM_EXIT_REASON, 7, OperandSize::Bits64);
        if writable {
            assert_eq!(written, Ok(()));
            assert_eq!(machine.read(VmcsField::VM_EXIT_REASON), 7);
        } else {
            assert_eq!(
                number(written.unwrap_err()),
                Error::READ_ONLY_COMPONENT,
                "{cpu}"
            );
            assert_eq!(machine.read(VmcsField::VM_EXIT_REASON), 0);
            assert_eq!(machine.read(VmcsField::VM_INSTRUCTION_ERROR), 13);
        }
    }
}

#[test]
fn vmlaunch_wants_a_clear_vmcs_and_vmresume_a_launched_one() {
    let mut machine = Machine::ready("skylake");
    let expect = |error: EntryError<_>, n| match error {
        EntryError::Instruction(fail) => assert_eq!(number(fail), Error::new(n)),
        other => panic!("{other}"),
    };
    expect(machine.resume().unwrap_err(), 5);
    machine.launch().unwrap();
    assert_eq!(machine.vmcs().launch_state(), LaunchState::Launched);
    machine.hlt();
    expect(machine.launch().unwrap_err(), 4);
    machine.resume().unwrap();
    machine.hlt();
    machine.vmx.vmclear(VMCS).unwrap();
    machine.vmx.vmptrld(&machine.ram, VMCS).unwrap();
    expect(machine.resume().unwrap_err(), 5);
    machine.launch().unwrap();
}

#[test]
fn entry_in_the_shadow_of_mov_ss_is_error_26() {
    let mut machine = Machine::ready("skylake");
    let (vmx, mut context) = machine.context();
    let shadow = Interruptibility::BLOCKING_BY_MOV_SS;
    match vmx.enter(vlbr_vmx::Launch::Resume, shadow, &mut context) {
        Err(EntryError::Instruction(fail)) => assert_eq!(number(fail), Error::ENTRY_MOV_SS),
        other => panic!("{other:?}"),
    }
}

#[test]
fn vmx_instructions_of_a_guest_exit() {
    let mut machine = Machine::guest("skylake");
    assert_eq!(machine.vmx.vmxoff(), Err(Fail::NonRoot));
    assert_eq!(
        machine
            .vmx
            .vmread(VmcsField::VM_EXIT_REASON, OperandSize::Bits64),
        Err(Fail::NonRoot)
    );
    assert_eq!(
        machine.launch(),
        Err(EntryError::Instruction(Fail::NonRoot))
    );
    machine.hlt();
    assert_eq!(machine.vmx.vmxoff(), Ok(()));
}
