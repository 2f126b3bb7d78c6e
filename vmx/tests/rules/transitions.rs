//! What VM entry and exit do to LBR, debug control and counters, on a real LBR.

use vlbr_arch::vmx::{EntryControls, ExitControls, ExitReason, VmcsField};
use vlbr_arch::{BranchClass, Cpl, DebugCtl, FarKind, Msr, Transfer};
use vlbr_cpu::ledger::{Actor, Event};
use vlbr_lbr::{Device, Pmi, Verdict};
use vlbr_vmx::{Abort, AbortCause, AreaEntry, Fail, State, VmExit};

use crate::common::{EXIT_LOAD, HOST_RIP, Machine};

const ARCH_ALL: u64 = 0x7f_0007;

fn jump(from: u64) -> Transfer {
    Transfer::near(BranchClass::NearRelJmp, from, from + 0x40, Cpl::Ring3)
}

fn with(cpu: &str, entry: EntryControls, exit: ExitControls) -> Machine {
    let mut machine = Machine::ready(cpu);
    machine.set(VmcsField::VM_ENTRY_CONTROLS, entry.bits());
    machine.set(VmcsField::VM_EXIT_CONTROLS, exit.bits());
    machine
}

fn arch() -> Machine {
    with(
        "alder-lake-p",
        EntryControls::LOAD_LBR_CTL,
        ExitControls::CLEAR_LBR_CTL,
    )
}

#[test]
fn t14_exit_saves_and_clears_debugctl_and_entry_loads_it_again() {
    let mut machine = Machine::guest("skylake");
    machine.wrmsr(Msr::DEBUGCTL, 0x801);
    machine.hlt();
    assert_eq!(machine.rdmsr(Msr::DEBUGCTL), 0);
    assert_eq!(machine.read(VmcsField::GUEST_IA32_DEBUGCTL), 0x801);
    machine.resume().unwrap();
    assert_eq!(machine.rdmsr(Msr::DEBUGCTL), 0x801);
}

#[test]
fn without_save_debug_controls_the_guests_changes_are_lost() {
    let mut machine = Machine::ready("skylake");
    machine.clear(
        VmcsField::VM_EXIT_CONTROLS,
        ExitControls::SAVE_DEBUG_CONTROLS.bits(),
    );
    machine.write(VmcsField::GUEST_IA32_DEBUGCTL, 1);
    machine.write(VmcsField::GUEST_DR7, 0x400);
    machine.launch().unwrap();
    machine.wrmsr(Msr::DEBUGCTL, 0x801);
    machine.registers.dr7 = 0x403;
    machine.hlt();
    assert_eq!(machine.rdmsr(Msr::DEBUGCTL), 0);
    assert_eq!(machine.read(VmcsField::GUEST_IA32_DEBUGCTL), 1);
    assert_eq!(machine.read(VmcsField::GUEST_DR7), 0x400);
    machine.resume().unwrap();
    assert_eq!(machine.rdmsr(Msr::DEBUGCTL), 1);
}

#[test]
fn without_load_debug_controls_the_guest_begins_with_the_hosts_debugctl() {
    let mut machine = Machine::ready("skylake");
    machine.clear(
        VmcsField::VM_ENTRY_CONTROLS,
        EntryControls::LOAD_DEBUG_CONTROLS.bits(),
    );
    machine.write(VmcsField::GUEST_IA32_DEBUGCTL, 1);
    machine.write(VmcsField::GUEST_DR7, 0x403);
    machine.wrmsr(Msr::DEBUGCTL, 0x800);
    machine.registers.dr7 = 0x401;
    machine.launch().unwrap();
    assert_eq!(machine.rdmsr(Msr::DEBUGCTL), 0x800);
    assert_eq!(machine.registers.dr7, 0x401);
}

#[test]
fn dr7_is_saved_and_loaded_with_the_debug_controls_and_0x400_in_the_host() {
    let mut machine = Machine::ready("skylake");
    machine.write(VmcsField::GUEST_DR7, 0x401);
    machine.launch().unwrap();
    assert_eq!(machine.registers.dr7, 0x401);
    machine.registers.dr7 = 0x402;
    machine.hlt();
    assert_eq!(machine.registers.dr7, 0x400);
    assert_eq!(machine.read(VmcsField::GUEST_DR7), 0x402);
}

#[test]
fn rip_rsp_and_rflags_change_sides() {
    let mut machine = Machine::ready("skylake");
    machine.write(VmcsField::GUEST_RSP, 0x7000);
    machine.write(VmcsField::GUEST_RFLAGS, 0x246);
    machine.write(VmcsField::HOST_RSP, 0x9000);
    machine.launch().unwrap();
    let registers = &mut machine.registers;
    assert_eq!(
        (registers.rip, registers.rsp, registers.rflags),
        (0x40_1000, 0x7000, 0x246)
    );
    (registers.rip, registers.rsp, registers.rflags) = (0x40_1002, 0x6ff8, 0x287);
    machine.hlt();
    let registers = machine.registers;
    assert_eq!(
        (registers.rip, registers.rsp, registers.rflags),
        (HOST_RIP, 0x9000, 2)
    );
    assert_eq!(machine.read(VmcsField::GUEST_RIP), 0x40_1002);
    assert_eq!(machine.read(VmcsField::GUEST_RSP), 0x6ff8);
    assert_eq!(machine.read(VmcsField::GUEST_RFLAGS), 0x287);
}

#[test]
fn neither_entry_nor_exit_is_recorded_and_the_entries_survive() {
    for (cpu, field, on) in [
        ("core2-45nm", VmcsField::GUEST_IA32_DEBUGCTL, 1),
        ("skylake", VmcsField::GUEST_IA32_DEBUGCTL, 1),
        ("alder-lake-p", VmcsField::GUEST_IA32_LBR_CTL, ARCH_ALL),
    ] {
        let is_arch = field == VmcsField::GUEST_IA32_LBR_CTL;
        let mut machine = if is_arch { arch() } else { Machine::ready(cpu) };
        machine.write(field, on);
        machine.launch().unwrap();
        assert!(
            machine
                .msrs
                .lbr
                .records()
                .iter()
                .all(|record| record.from == 0)
        );
        assert_eq!(machine.retire(jump(0x1000)), Verdict::Push, "{cpu}");
        let before = (machine.msrs.lbr.records(), machine.msrs.lbr.tos());
        machine.hlt();
        assert_eq!(
            (machine.msrs.lbr.records(), machine.msrs.lbr.tos()),
            before,
            "{cpu}"
        );
        machine.resume().unwrap();
        assert_eq!(
            (machine.msrs.lbr.records(), machine.msrs.lbr.tos()),
            before,
            "{cpu}"
        );
        assert_eq!(machine.retire(jump(0x2000)), Verdict::Push);
    }
}

#[test]
fn the_host_records_nothing_until_debugctl_is_written() {
    let mut machine = Machine::guest("skylake");
    machine.wrmsr(Msr::DEBUGCTL, 1);
    machine.hlt();
    assert_eq!(machine.retire(jump(0x1000)), Verdict::Ignore);
    machine.wrmsr(Msr::DEBUGCTL, 1);
    assert_eq!(machine.retire(jump(0x1000)), Verdict::Push);
}

#[test]
fn the_exit_load_area_may_set_debugctl_again() {
    let mut machine = Machine::ready("skylake");
    let entry = AreaEntry::new(Msr::DEBUGCTL, 0x801);
    machine.area(EXIT_LOAD, VmcsField::VM_EXIT_MSR_LOAD_COUNT, &[entry]);
    machine.launch().unwrap();
    machine.hlt();
    assert_eq!(machine.rdmsr(Msr::DEBUGCTL), 0x801);
}

#[test]
fn lbr_select_and_tos_are_not_switched() {
    let mut machine = Machine::guest("skylake");
    machine.wrmsr(Msr::LBR_SELECT, 0x3c5);
    machine.wrmsr(Msr::LASTBRANCH_TOS, 7);
    machine.hlt();
    assert_eq!(machine.rdmsr(Msr::LBR_SELECT), 0x3c5);
    assert_eq!(machine.rdmsr(Msr::LASTBRANCH_TOS), 7);
}

#[test]
fn lbr_ctl_is_loaded_saved_and_cleared_and_the_rest_of_arch_lbr_stays() {
    let mut machine = arch();
    machine.write(VmcsField::GUEST_IA32_LBR_CTL, ARCH_ALL);
    machine.wrmsr(Msr::LBR_DEPTH, 16);
    machine.wrmsr(Msr::LER_FROM, 0x1111);
    machine.launch().unwrap();
    assert_eq!(machine.rdmsr(Msr::LBR_CTL), ARCH_ALL);
    machine.retire(jump(0x1000));
    machine.wrmsr(Msr::LBR_CTL, 0x3);
    let records = machine.msrs.lbr.records();
    machine.hlt();
    assert_eq!(machine.rdmsr(Msr::LBR_CTL), 0);
    assert_eq!(machine.read(VmcsField::GUEST_IA32_LBR_CTL), 3);
    assert_eq!(machine.rdmsr(Msr::LBR_DEPTH), 16);
    assert_eq!(machine.rdmsr(Msr::LER_FROM), 0x1111);
    assert_eq!(machine.msrs.lbr.records(), records);
    machine.resume().unwrap();
    assert_eq!(machine.rdmsr(Msr::LBR_CTL), 3);
}

#[test]
fn lbr_ctl_is_saved_but_not_cleared_without_the_control() {
    let mut machine = Machine::guest("alder-lake-p");
    machine.wrmsr(Msr::LBR_CTL, ARCH_ALL);
    machine.hlt();
    assert_eq!(machine.read(VmcsField::GUEST_IA32_LBR_CTL), ARCH_ALL);
    assert_eq!(machine.rdmsr(Msr::LBR_CTL), ARCH_ALL);
    machine.wrmsr(Msr::LBR_CTL, 0);
    machine.resume().unwrap();
    assert_eq!(machine.rdmsr(Msr::LBR_CTL), 0);
}

#[test]
fn perf_global_ctrl_is_loaded_on_both_sides_and_saved_from_alder_lake_on() {
    let save = ExitControls::SAVE_PERF_GLOBAL_CTRL;
    let load = ExitControls::LOAD_PERF_GLOBAL_CTRL;
    for (cpu, exit, saved) in [("skylake", load, 1), ("alder-lake-p", load | save, 2)] {
        let mut machine = with(cpu, EntryControls::LOAD_PERF_GLOBAL_CTRL, exit);
        machine.write(VmcsField::GUEST_IA32_PERF_GLOBAL_CTRL, 1);
        machine.write(VmcsField::HOST_IA32_PERF_GLOBAL_CTRL, 0x7_0000_0000);
        machine.launch().unwrap();
        assert_eq!(machine.rdmsr(Msr::PERF_GLOBAL_CTRL), 1);
        machine.wrmsr(Msr::PERF_GLOBAL_CTRL, 2);
        machine.hlt();
        assert_eq!(machine.rdmsr(Msr::PERF_GLOBAL_CTRL), 0x7_0000_0000);
        assert_eq!(
            machine.read(VmcsField::GUEST_IA32_PERF_GLOBAL_CTRL),
            saved,
            "{cpu}"
        );
    }
}

#[test]
fn without_its_controls_perf_global_ctrl_stays() {
    let mut machine = Machine::ready("skylake");
    machine.wrmsr(Msr::PERF_GLOBAL_CTRL, 5);
    machine.launch().unwrap();
    assert_eq!(machine.rdmsr(Msr::PERF_GLOBAL_CTRL), 5);
    machine.hlt();
    assert_eq!(machine.rdmsr(Msr::PERF_GLOBAL_CTRL), 5);
}

#[test]
fn a_frozen_lbr_stays_frozen_into_the_host() {
    let mut machine = Machine::guest("skylake");
    let freeze = DebugCtl::LBR | DebugCtl::FREEZE_LBRS_ON_PMI;
    machine.wrmsr(Msr::DEBUGCTL, freeze.bits());
    machine.msrs.lbr.freeze_on_pmi(Pmi::Counter);
    machine.hlt();
    assert!(machine.msrs.lbr.lbr_frz());
    machine.wrmsr(Msr::DEBUGCTL, 1);
    assert_eq!(machine.retire(jump(0x1000)), Verdict::Ignore);
    machine.msrs.lbr.unfreeze();
    assert_eq!(machine.retire(jump(0x1000)), Verdict::Push);
}

#[test]
fn a_debug_exception_that_exits_leaves_recording_on_until_the_exit() {
    let mut machine = Machine::ready("skylake");
    machine.write(VmcsField::EXCEPTION_BITMAP, 1 << 1);
    machine.write(VmcsField::GUEST_IA32_DEBUGCTL, 1);
    machine.launch().unwrap();
    let kind = vlbr_arch::vmx::InterruptionType::HardwareException;
    let exit = machine
        .vmx
        .exception(1, kind, None, 0x4000)
        .unwrap()
        .unwrap();
    assert_eq!(machine.rdmsr(Msr::DEBUGCTL), 1);
    machine.exit(&exit).unwrap();
    assert_eq!(machine.read(VmcsField::GUEST_IA32_DEBUGCTL), 1);
    assert_eq!(machine.read(VmcsField::EXIT_QUALIFICATION), 0x4000);
}

#[test]
fn an_injected_debug_exception_is_recorded_and_keeps_recording_on() {
    use vlbr_arch::vmx::{InterruptionInfo, InterruptionType};
    let mut machine = Machine::ready("skylake");
    machine.write(VmcsField::GUEST_IA32_DEBUGCTL, 1);
    let info = InterruptionInfo::new(1, InterruptionType::HardwareException);
    machine.write(VmcsField::VM_ENTRY_INTR_INFO_FIELD, info.bits().into());
    let injected = machine.launch().unwrap().expect("an event");
    let class = BranchClass::Far(injected.far_kind().expect("a transfer"));
    assert_eq!(class, BranchClass::Far(FarKind::Exception));
    let event = Transfer {
        class,
        cpl_after: Cpl::Ring0,
        ..jump(machine.registers.rip)
    };
    assert_eq!(machine.retire(event), Verdict::Push);
    assert_eq!(
        machine.rdmsr(Msr::LASTBRANCH_0_FROM_IP.plus(machine.msrs.lbr.tos() as u32)),
        0x40_1000
    );
    assert_eq!(machine.rdmsr(Msr::DEBUGCTL), 1);
}

#[test]
fn exit_invalidates_the_event_to_inject() {
    use vlbr_arch::vmx::{InterruptionInfo, InterruptionType};
    let mut machine = Machine::ready("skylake");
    let info = InterruptionInfo::new(2, InterruptionType::Nmi);
    machine.write(VmcsField::VM_ENTRY_INTR_INFO_FIELD, info.bits().into());
    assert!(machine.launch().unwrap().is_some());
    machine.hlt();
    let field = machine.read(VmcsField::VM_ENTRY_INTR_INFO_FIELD);
    assert_eq!(field, u64::from(info.without_valid().bits()));
    assert_eq!(machine.resume(), Ok(None));
}

#[test]
fn an_exit_without_a_guest_does_nothing() {
    let mut machine = Machine::ready("skylake");
    machine.wrmsr(Msr::DEBUGCTL, 1);
    assert_eq!(
        machine.exit(&VmExit::new(ExitReason::HLT)),
        Err(Abort {
            indicator: None,
            cause: AbortCause::State(Fail::NotNonRoot)
        })
    );
    assert_eq!(machine.rdmsr(Msr::DEBUGCTL), 1);
    assert_eq!(machine.vmx.state(), State::Root);
    assert_eq!(machine.ledger.rows().len(), 0);
}

#[test]
fn what_hardware_switches_is_counted_as_hardwares() {
    let mut machine = arch();
    machine.write(VmcsField::GUEST_IA32_LBR_CTL, ARCH_ALL);
    machine.launch().unwrap();
    machine.hlt();
    let found: Vec<_> = machine.ledger.rows().collect();
    let hlt = Event::VmExit {
        reason: ExitReason::HLT,
        msr: None,
    };
    let mut expected = [
        Event::VmEntry,
        hlt,
        Event::FieldLoad(Msr::DEBUGCTL),
        Event::FieldLoad(Msr::LBR_CTL),
        Event::FieldSave(Msr::DEBUGCTL),
        Event::FieldSave(Msr::LBR_CTL),
        Event::FieldClear(Msr::DEBUGCTL),
        Event::FieldClear(Msr::LBR_CTL),
    ];
    expected.sort();
    assert_eq!(found, expected.map(|event| (Actor::Hardware, event, 1)));
}
