//! Injected events, and events and instructions that exit.

use vlbr_arch::FarKind;
use vlbr_arch::vmx::{
    ExitControls, ExitReason, InterruptionInfo, InterruptionType as Type, PinControls,
    PrimaryControls, SecondaryControls, VmInstructionError, VmcsField,
};
use vlbr_vmx::{EntryError, Fail, FailReason, Injected, InjectionFault, Options, Vmx, VmxProfile};

use crate::common::{Machine, VMCS};

fn inject(info: InterruptionInfo, error: u64, length: u64) -> Result<Injected, InjectionFault> {
    inject_on("skylake", info, error, length)
}

fn inject_on(
    cpu: &str,
    info: InterruptionInfo,
    error: u64,
    length: u64,
) -> Result<Injected, InjectionFault> {
    let mut machine = Machine::ready(cpu);
    machine.write(VmcsField::VM_ENTRY_INTR_INFO_FIELD, info.bits().into());
    machine.write(VmcsField::VM_ENTRY_EXCEPTION_ERROR_CODE, error);
    machine.write(VmcsField::VM_ENTRY_INSTRUCTION_LEN, length);
    machine.write(VmcsField::GUEST_RFLAGS, 0x202);
    match machine.launch() {
        Ok(injected) => Ok(injected.expect("an event")),
        Err(EntryError::Instruction(Fail::Valid {
            error: VmInstructionError::ENTRY_CONTROLS,
            reason: FailReason::Injection(fault),
        })) => Err(fault),
        other => panic!("{other:?}"),
    }
}

#[test]
fn vectors_fit_their_types() {
    for (vector, kind, fits) in [
        (0x40, Type::External, true),
        (2, Type::Nmi, true),
        (3, Type::Nmi, false),
        (31, Type::HardwareException, true),
        (32, Type::HardwareException, false),
        (0x80, Type::SoftwareInterrupt, true),
        (0, Type::Other, true),
        (1, Type::Other, false),
    ] {
        let found = inject(InterruptionInfo::new(vector, kind), 0, 2);
        match fits {
            true => assert_eq!(found.unwrap().info.vector(), vector),
            false => assert_eq!(found, Err(InjectionFault::Vector { vector, kind })),
        }
    }
}

#[test]
fn type_1_is_reserved() {
    let info = InterruptionInfo::new(0, Type::Reserved);
    assert_eq!(inject(info, 0, 0), Err(InjectionFault::ReservedType));
}

#[test]
fn the_error_code_flag_is_set_exactly_for_exceptions_that_push_one() {
    for vector in 0..32 {
        let info = InterruptionInfo::new(vector, Type::HardwareException);
        let pushes = [8, 10, 11, 12, 13, 14, 17].contains(&vector);
        let (right, wrong) = if pushes {
            (info.with_error_code(), info)
        } else {
            (info, info.with_error_code())
        };
        let expected = pushes.then_some(0x10);
        assert_eq!(inject(right, 0x10, 0).unwrap().error_code, expected);
        let fault = InjectionFault::ErrorCodeFlag(!pushes);
        assert_eq!(inject(wrong, 0x10, 0), Err(fault), "{vector}");
    }
    let nmi = InterruptionInfo::new(2, Type::Nmi).with_error_code();
    assert_eq!(inject(nmi, 0, 0), Err(InjectionFault::ErrorCodeFlag(true)));
}

#[test]
fn with_bit_56_of_vmx_basic_any_hardware_exception_may_bring_an_error_code() {
    let mut machine = Machine::ready("skylake");
    let text =
        include_str!("../../profiles/skylake.toml").replace("basic = 0x00da", "basic = 0x01da");
    let profile = VmxProfile::from_toml(&text).unwrap();
    machine.vmx = Vmx::new(&profile, Options::default());
    machine.start();
    machine.prepare();
    for (vector, code) in [(6, true), (6, false), (13, true), (13, false)] {
        let info = InterruptionInfo::new(vector, Type::HardwareException);
        let info = if code { info.with_error_code() } else { info };
        machine.write(VmcsField::VM_ENTRY_INTR_INFO_FIELD, info.bits().into());
        let injected = machine.launch().unwrap().expect("an event");
        assert_eq!(injected.error_code, code.then_some(0), "{vector}");
        machine.hlt();
        machine.vmx.vmclear(VMCS).unwrap();
        machine.vmx.vmptrld(&machine.ram, VMCS).unwrap();
    }
    let nmi = InterruptionInfo::new(2, Type::Nmi).with_error_code();
    machine.write(VmcsField::VM_ENTRY_INTR_INFO_FIELD, nmi.bits().into());
    assert!(machine.launch().is_err(), "no hardware exception");
}

#[test]
fn error_codes_have_15_bits() {
    let gp = InterruptionInfo::new(13, Type::HardwareException).with_error_code();
    assert_eq!(inject(gp, 0x7fff, 0).unwrap().error_code, Some(0x7fff));
    assert_eq!(
        inject(gp, 0x8000, 0),
        Err(InjectionFault::ErrorCode(0x8000))
    );
}

#[test]
fn reserved_bits_of_the_information_are_0() {
    let info = InterruptionInfo::from_bits(InterruptionInfo::new(2, Type::Nmi).bits() | 1 << 12);
    assert_eq!(inject(info, 0, 0), Err(InjectionFault::Reserved(1 << 12)));
}

#[test]
fn software_events_have_the_length_of_an_instruction() {
    for kind in [
        Type::SoftwareInterrupt,
        Type::PrivilegedSoftwareException,
        Type::SoftwareException,
    ] {
        let info = InterruptionInfo::new(3, kind);
        for (cpu, length, fits) in [
            ("skylake", 1, true),
            ("skylake", 15, true),
            ("skylake", 16, false),
            ("skylake", 0, true),
            ("haswell", 0, false),
        ] {
            let found = inject_on(cpu, info, 0, length);
            match fits {
                true => assert_eq!(found.unwrap().instruction_length, Some(length as u32)),
                false => assert_eq!(found, Err(InjectionFault::InstructionLength(length as u32))),
            }
        }
    }
}

#[test]
fn the_lbr_sees_injected_events_by_their_type() {
    for (vector, kind, far) in [
        (0x40, Type::External, Some(FarKind::Interrupt)),
        (2, Type::Nmi, Some(FarKind::Interrupt)),
        (1, Type::HardwareException, Some(FarKind::Exception)),
        (6, Type::HardwareException, Some(FarKind::Exception)),
        (
            0x80,
            Type::SoftwareInterrupt,
            Some(FarKind::SoftwareInterrupt),
        ),
        (3, Type::SoftwareException, Some(FarKind::SoftwareInterrupt)),
        (0, Type::Other, None),
    ] {
        let injected = inject(InterruptionInfo::new(vector, kind), 0, 1).unwrap();
        assert_eq!(injected.far_kind(), far, "{kind:?}");
    }
}

#[test]
fn an_unrestricted_guest_in_real_mode_pushes_no_error_code() {
    let mut machine = Machine::ready("skylake");
    let secondary = PrimaryControls::ACTIVATE_SECONDARY_CONTROLS;
    machine.set(VmcsField::CPU_BASED_VM_EXEC_CONTROL, secondary.bits());
    let unrestricted = SecondaryControls::ENABLE_EPT | SecondaryControls::UNRESTRICTED_GUEST;
    machine.write(
        VmcsField::SECONDARY_VM_EXEC_CONTROL,
        unrestricted.bits().into(),
    );
    machine.write(VmcsField::GUEST_CR0, 0);
    let gp = InterruptionInfo::new(13, Type::HardwareException);
    machine.write(VmcsField::VM_ENTRY_INTR_INFO_FIELD, gp.bits().into());
    assert_eq!(machine.launch().unwrap().unwrap().error_code, None);
}

#[test]
fn a_pmi_as_nmi_exits_with_reason_0_and_type_2() {
    let mut machine = Machine::ready("skylake");
    machine.launch().unwrap();
    assert_eq!(machine.vmx.nmi(), Ok(None));
    machine.hlt();
    machine.set(
        VmcsField::PIN_BASED_VM_EXEC_CONTROL,
        PinControls::NMI_EXITING.bits(),
    );
    machine.resume().unwrap();
    let exit = machine.vmx.nmi().unwrap().expect("an exit");
    machine.exit(&exit).unwrap();
    assert_eq!(machine.read(VmcsField::VM_EXIT_REASON), 0);
    assert_eq!(machine.read(VmcsField::VM_EXIT_INTR_INFO), 0x8000_0202);
}

#[test]
fn a_pmi_as_interrupt_tells_its_vector_only_if_acknowledged() {
    for (acknowledge, info) in [(false, 0), (true, 0x8000_00ee)] {
        let mut machine = Machine::ready("skylake");
        let pin = PinControls::EXTERNAL_INTERRUPT_EXITING;
        machine.set(VmcsField::PIN_BASED_VM_EXEC_CONTROL, pin.bits());
        if acknowledge {
            let control = ExitControls::ACKNOWLEDGE_INTERRUPT;
            machine.set(VmcsField::VM_EXIT_CONTROLS, control.bits());
        }
        machine.launch().unwrap();
        let exit = machine
            .vmx
            .external_interrupt(0xee)
            .unwrap()
            .expect("an exit");
        machine.exit(&exit).unwrap();
        assert_eq!(machine.read(VmcsField::VM_EXIT_REASON), 1);
        assert_eq!(machine.read(VmcsField::VM_EXIT_INTR_INFO), info);
    }
    let machine = Machine::guest("skylake");
    assert_eq!(machine.vmx.external_interrupt(0xee), Ok(None));
}

#[test]
fn exceptions_exit_by_the_exception_bitmap() {
    let mut machine = Machine::ready("skylake");
    machine.write(VmcsField::EXCEPTION_BITMAP, 1 << 13);
    machine.launch().unwrap();
    let kind = Type::HardwareException;
    let exit = machine
        .vmx
        .exception(13, kind, Some(0x10), 0)
        .unwrap()
        .expect("an exit");
    assert_eq!(exit.reason, ExitReason::EXCEPTION_OR_NMI);
    assert_eq!(exit.interruption.bits(), 0x8000_0b0d);
    assert_eq!(exit.error_code, 0x10);
    assert_eq!(machine.vmx.exception(6, kind, None, 0), Ok(None));
}

#[test]
fn page_faults_exit_by_bitmap_mask_and_match() {
    for (bitmap, mask, wanted, code, exits) in [
        (1u64 << 14, 0, 0, 7, true),
        (0, 0, 0, 7, false),
        (1 << 14, 1, 1, 6, false),
        (1 << 14, 1, 1, 7, true),
        (0, 1, 1, 6, true),
        (0, 1, 1, 7, false),
    ] {
        let mut machine = Machine::ready("skylake");
        machine.write(VmcsField::EXCEPTION_BITMAP, bitmap);
        machine.write(VmcsField::PAGE_FAULT_ERROR_CODE_MASK, mask);
        machine.write(VmcsField::PAGE_FAULT_ERROR_CODE_MATCH, wanted);
        machine.launch().unwrap();
        let kind = Type::HardwareException;
        let exit = machine.vmx.exception(14, kind, Some(code), 0x1234).unwrap();
        assert_eq!(exit.map(|exit| exit.qualification), exits.then_some(0x1234));
    }
}

#[test]
fn rdpmc_exits_by_its_control() {
    let mut machine = Machine::ready("skylake");
    machine.launch().unwrap();
    assert_eq!(machine.vmx.rdpmc(), Ok(None));
    machine.hlt();
    machine.set(
        VmcsField::CPU_BASED_VM_EXEC_CONTROL,
        PrimaryControls::RDPMC_EXITING.bits(),
    );
    machine.resume().unwrap();
    let exit = machine.vmx.rdpmc().unwrap().expect("an exit");
    assert_eq!(
        (exit.reason, exit.instruction_length),
        (ExitReason::RDPMC, 2)
    );
}

#[test]
fn xsaves_of_the_lbr_exits_by_the_xss_exiting_bitmap() {
    const LBR: u64 = 1 << 15;
    let guest = |enabled, bitmap| {
        let mut machine = Machine::ready("alder-lake-p");
        if enabled {
            let secondary = PrimaryControls::ACTIVATE_SECONDARY_CONTROLS;
            machine.set(VmcsField::CPU_BASED_VM_EXEC_CONTROL, secondary.bits());
            let xsaves = SecondaryControls::ENABLE_XSAVES_XRSTORS;
            machine.write(VmcsField::SECONDARY_VM_EXEC_CONTROL, xsaves.bits().into());
        }
        machine.write(VmcsField::XSS_EXIT_BITMAP, bitmap);
        machine.launch().unwrap();
        machine
    };
    // #UD where the guest has no XSAVES.
    assert_eq!(guest(false, LBR).vmx.xsaves(false, LBR, LBR, 3), Ok(None));
    for (bitmap, mask, xss, exits) in [
        (LBR, LBR, LBR, true),
        (0, LBR, LBR, false),
        (LBR, 0, LBR, false),
        (LBR, LBR, 0, false),
        (1 << 8, u64::MAX, LBR, false),
    ] {
        let machine = guest(true, bitmap);
        for (restore, reason) in [(false, ExitReason::XSAVES), (true, ExitReason::XRSTORS)] {
            let found = machine
                .vmx
                .xsaves(restore, mask, xss, 3)
                .unwrap()
                .expect("exists");
            assert_eq!(found.map(|exit| exit.reason), exits.then_some(reason));
        }
    }
}
