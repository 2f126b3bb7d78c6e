//! Controls and host state: VMfailValid 7 and 8.

use vlbr_arch::vmx::{
    EntryControls, ExitControls, MsrArea, PinControls, PrimaryControls, VmInstructionError,
    VmcsField,
};
use vlbr_vmx::{ControlFault, ControlVector, EntryError, Fail, FailReason, HostFault};

use crate::common::{BITMAP, Machine};

fn fault(machine: &mut Machine) -> ControlFault {
    match machine.launch() {
        Err(EntryError::Instruction(Fail::Valid {
            error: VmInstructionError::ENTRY_CONTROLS,
            reason: FailReason::Control(fault),
        })) => {
            assert_eq!(machine.read(VmcsField::VM_INSTRUCTION_ERROR), 7);
            fault
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn controls_must_be_1_where_the_capability_says_so() {
    for (field, vector, bit) in [
        (
            VmcsField::PIN_BASED_VM_EXEC_CONTROL,
            ControlVector::Pin,
            1 << 1,
        ),
        (
            VmcsField::CPU_BASED_VM_EXEC_CONTROL,
            ControlVector::Primary,
            1 << 1,
        ),
        (VmcsField::VM_EXIT_CONTROLS, ControlVector::Exit, 1 << 0),
        (VmcsField::VM_ENTRY_CONTROLS, ControlVector::Entry, 1 << 12),
    ] {
        let mut machine = Machine::ready("skylake");
        machine.clear(field, bit);
        let expected = ControlFault::MustBeOne { vector, bits: bit };
        assert_eq!(fault(&mut machine), expected);
    }
}

#[test]
fn controls_must_be_0_where_the_capability_says_so() {
    for (cpu, field, vector, bits) in [
        (
            "skylake",
            VmcsField::PIN_BASED_VM_EXEC_CONTROL,
            ControlVector::Pin,
            1 << 7,
        ),
        (
            "core2-65nm",
            VmcsField::PIN_BASED_VM_EXEC_CONTROL,
            ControlVector::Pin,
            PinControls::ACTIVATE_PREEMPTION_TIMER.bits(),
        ),
        (
            "skylake",
            VmcsField::CPU_BASED_VM_EXEC_CONTROL,
            ControlVector::Primary,
            PrimaryControls::ACTIVATE_TERTIARY_CONTROLS.bits(),
        ),
        (
            "skylake",
            VmcsField::VM_EXIT_CONTROLS,
            ControlVector::Exit,
            ExitControls::CLEAR_LBR_CTL.bits(),
        ),
        (
            "tiger-lake",
            VmcsField::VM_EXIT_CONTROLS,
            ControlVector::Exit,
            ExitControls::SAVE_PERF_GLOBAL_CTRL.bits(),
        ),
        (
            "core2-65nm",
            VmcsField::VM_EXIT_CONTROLS,
            ControlVector::Exit,
            ExitControls::LOAD_PERF_GLOBAL_CTRL.bits(),
        ),
        (
            "skylake",
            VmcsField::VM_ENTRY_CONTROLS,
            ControlVector::Entry,
            EntryControls::LOAD_LBR_CTL.bits(),
        ),
        (
            "core2-65nm",
            VmcsField::VM_ENTRY_CONTROLS,
            ControlVector::Entry,
            EntryControls::LOAD_PERF_GLOBAL_CTRL.bits(),
        ),
        (
            "alder-lake-p",
            VmcsField::VM_EXIT_CONTROLS,
            ControlVector::Exit,
            ExitControls::CLEAR_UINV.bits(),
        ),
    ] {
        let mut machine = Machine::ready(cpu);
        machine.set(field, bits);
        assert_eq!(
            fault(&mut machine),
            ControlFault::MustBeZero { vector, bits },
            "{cpu}"
        );
    }
}

#[test]
fn secondary_controls_count_only_when_activated() {
    let mut machine = Machine::ready("skylake");
    machine.write(VmcsField::SECONDARY_VM_EXEC_CONTROL, 1 << 25);
    machine.launch().unwrap();
    let mut machine = Machine::ready("skylake");
    machine.write(VmcsField::SECONDARY_VM_EXEC_CONTROL, 1 << 25);
    let activate = PrimaryControls::ACTIVATE_SECONDARY_CONTROLS;
    machine.set(VmcsField::CPU_BASED_VM_EXEC_CONTROL, activate.bits());
    let expected = ControlFault::MustBeZero {
        vector: ControlVector::Secondary,
        bits: 1 << 25,
    };
    assert_eq!(fault(&mut machine), expected);
}

#[test]
fn debug_controls_may_be_0_only_with_true_controls() {
    for (cpu, may) in [
        ("core2-65nm", false),
        ("core2-45nm", false),
        ("haswell", true),
        ("skylake", true),
    ] {
        let mut machine = Machine::ready(cpu);
        machine.clear(VmcsField::VM_ENTRY_CONTROLS, 1 << 2);
        machine.clear(VmcsField::VM_EXIT_CONTROLS, 1 << 2);
        if may {
            machine.launch().unwrap();
        } else {
            assert!(matches!(
                fault(&mut machine),
                ControlFault::MustBeOne {
                    vector: ControlVector::Exit,
                    bits: 4
                }
            ));
        }
    }
}

#[test]
fn virtual_nmis_need_nmi_exiting() {
    let mut machine = Machine::ready("skylake");
    machine.set(
        VmcsField::PIN_BASED_VM_EXEC_CONTROL,
        PinControls::VIRTUAL_NMIS.bits(),
    );
    assert_eq!(fault(&mut machine), ControlFault::VirtualNmis);
    machine.set(
        VmcsField::PIN_BASED_VM_EXEC_CONTROL,
        PinControls::NMI_EXITING.bits(),
    );
    machine.launch().unwrap();
}

#[test]
fn nmi_window_exiting_needs_virtual_nmis() {
    let mut machine = Machine::ready("skylake");
    let window = PrimaryControls::NMI_WINDOW_EXITING;
    machine.set(VmcsField::CPU_BASED_VM_EXEC_CONTROL, window.bits());
    assert_eq!(fault(&mut machine), ControlFault::NmiWindow);
}

#[test]
fn the_msr_bitmaps_stand_at_a_page_within_the_physical_addresses() {
    for at in [BITMAP + 8, 1 << 46] {
        let mut machine = Machine::ready("skylake");
        machine.write(VmcsField::MSR_BITMAP, at);
        assert_eq!(fault(&mut machine), ControlFault::MsrBitmap(at));
        let unused = PrimaryControls::USE_MSR_BITMAPS;
        machine.clear(VmcsField::CPU_BASED_VM_EXEC_CONTROL, unused.bits());
        machine.launch().unwrap();
    }
}

#[test]
fn saving_the_preemption_timer_needs_one() {
    let mut machine = Machine::ready("skylake");
    let save = ExitControls::SAVE_PREEMPTION_TIMER;
    machine.set(VmcsField::VM_EXIT_CONTROLS, save.bits());
    assert_eq!(fault(&mut machine), ControlFault::SavePreemptionTimer);
    let activate = PinControls::ACTIVATE_PREEMPTION_TIMER;
    machine.set(VmcsField::PIN_BASED_VM_EXEC_CONTROL, activate.bits());
    machine.launch().unwrap();
}

#[test]
fn msr_areas_are_aligned_and_end_within_the_physical_addresses() {
    for (area, address, count) in [
        (
            MsrArea::EntryLoad,
            VmcsField::VM_ENTRY_MSR_LOAD_ADDR,
            VmcsField::VM_ENTRY_MSR_LOAD_COUNT,
        ),
        (
            MsrArea::ExitStore,
            VmcsField::VM_EXIT_MSR_STORE_ADDR,
            VmcsField::VM_EXIT_MSR_STORE_COUNT,
        ),
        (
            MsrArea::ExitLoad,
            VmcsField::VM_EXIT_MSR_LOAD_ADDR,
            VmcsField::VM_EXIT_MSR_LOAD_COUNT,
        ),
    ] {
        for (at, entries) in [
            (0x1_0008, 1),
            ((1 << 46) - 16, 2),
            (u64::MAX - 15, 1),
            (1 << 50, 1),
        ] {
            let mut machine = Machine::ready("skylake");
            machine.write(address, at);
            machine.launch().unwrap();
            machine.hlt();
            machine.write(count, entries);
            let expected = ControlFault::Area {
                area,
                at,
                count: entries as u32,
            };
            match machine.resume() {
                Err(EntryError::Instruction(Fail::Valid { error, reason })) => {
                    assert_eq!(error, VmInstructionError::ENTRY_CONTROLS);
                    assert_eq!(reason, FailReason::Control(expected));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn entry_to_smm_needs_smm() {
    let mut machine = Machine::ready("skylake");
    machine.set(
        VmcsField::VM_ENTRY_CONTROLS,
        EntryControls::ENTRY_TO_SMM.bits(),
    );
    assert_eq!(fault(&mut machine), ControlFault::OutsideSmm);
    machine.vmx.set_smm(true);
    let both = EntryControls::DEACTIVATE_DUAL_MONITOR;
    machine.set(VmcsField::VM_ENTRY_CONTROLS, both.bits());
    assert_eq!(fault(&mut machine), ControlFault::SmmBoth);
}

#[test]
fn reserved_bits_of_the_hosts_perf_global_ctrl_are_error_8() {
    let mut machine = Machine::ready("skylake");
    machine.write(VmcsField::HOST_IA32_PERF_GLOBAL_CTRL, 0x10f);
    machine.launch().unwrap();
    machine.hlt();
    let load = ExitControls::LOAD_PERF_GLOBAL_CTRL;
    machine.set(VmcsField::VM_EXIT_CONTROLS, load.bits());
    assert_eq!(
        machine.resume(),
        Err(EntryError::Instruction(Fail::Valid {
            error: VmInstructionError::ENTRY_HOST_STATE,
            reason: FailReason::Host(HostFault::PerfGlobalCtrl(0x100)),
        }))
    );
}
