//! The MSR areas.

use vlbr_arch::Msr;
use vlbr_arch::vmx::{ExitReason, MsrArea, VmcsField, VmxAbort};
use vlbr_cpu::ledger::{Actor, Event};
use vlbr_lbr::GpReason;
use vlbr_vmx::{
    Abort, AbortCause, AreaEntry, AreaFault, BeyondLimit, EntryCause, EntryError, EntryFailure,
    Fail, Forbidden, Options, PhysicalMemory, State, VmExit,
};

use crate::common::{ENTRY_LOAD, EXIT_LOAD, EXIT_STORE, Fault, Machine, VMCS};

const FROM: Msr = Msr::LASTBRANCH_0_FROM_IP;
const TO: Msr = Msr::LASTBRANCH_0_TO_IP;
/// Not canonical in 48 bits.
const BROKEN: u64 = 0x1234_0000_0000_0000;

fn entry(msr: Msr, data: u64) -> AreaEntry {
    AreaEntry::new(msr, data)
}

fn load(machine: &mut Machine, entries: &[AreaEntry]) {
    machine.area(ENTRY_LOAD, VmcsField::VM_ENTRY_MSR_LOAD_COUNT, entries);
}

fn failure(machine: &mut Machine) -> EntryFailure<Fault> {
    match machine.launch() {
        Err(EntryError::Failure(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

fn abort(machine: &mut Machine) -> Abort<Fault> {
    machine
        .exit(&VmExit::of_instruction(ExitReason::HLT, 1))
        .expect_err("an abort")
}

#[test]
fn an_entry_is_index_zeros_data() {
    let bytes = [
        0xc0, 0x0d, 0, 0, 0, 0, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
    ];
    let entry = entry(Msr::LBR_INFO_0, 0x1122_3344_5566_7788);
    assert_eq!(entry.to_bytes(), bytes);
    assert_eq!(AreaEntry::from_bytes(bytes), entry);
}

#[test]
fn entry_loads_in_order_and_the_last_value_stays() {
    let mut machine = Machine::ready("skylake");
    load(
        &mut machine,
        &[entry(FROM, 1), entry(TO, 2), entry(FROM, 3)],
    );
    machine.launch().unwrap();
    assert_eq!((machine.rdmsr(FROM), machine.rdmsr(TO)), (3, 2));
}

#[test]
fn lbr_msrs_may_stand_in_the_areas() {
    // What Xen puts there for a Skylake guest: 100 registers stored at exit and loaded at entry.
    let mut machine = Machine::ready("skylake");
    let mut msrs = vec![
        Msr::LASTBRANCH_TOS,
        Msr::LBR_SELECT,
        Msr::LER_FROM,
        Msr::LER_TO,
    ];
    for base in [FROM, TO, Msr::LBR_INFO_0] {
        msrs.extend((0..32).map(|n| base.plus(n)));
    }
    let entries: Vec<_> = msrs.iter().map(|&msr| entry(msr, 5)).collect();
    load(&mut machine, &entries);
    machine.area(EXIT_STORE, VmcsField::VM_EXIT_MSR_STORE_COUNT, &entries);
    machine.launch().unwrap();
    machine.wrmsr(FROM.plus(7), 0x77);
    machine.hlt();
    let mut bytes = [0; 16];
    for (n, &msr) in (0..).zip(&msrs) {
        machine.ram.read(EXIT_STORE + 16 * n, &mut bytes);
        let value = if msr == FROM.plus(7) { 0x77 } else { 5 };
        assert_eq!(AreaEntry::from_bytes(bytes), entry(msr, value));
    }
    let count = |area| {
        machine
            .ledger
            .total(|_, event| matches!(event, Event::Transfer(found, _) if found == area))
    };
    assert_eq!(count(MsrArea::EntryLoad), 100);
    assert_eq!(count(MsrArea::ExitStore), 100);
    assert_eq!(count(MsrArea::ExitLoad), 0);
}

#[test]
fn t18_an_entry_load_of_fs_base_fails_with_its_number_as_qualification() {
    let mut machine = Machine::ready("skylake");
    let bad = entry(Msr::FS_BASE, 0);
    load(&mut machine, &[entry(FROM, 1), entry(TO, 2), bad]);
    let failure = failure(&mut machine);
    assert_eq!(failure.reason.value(), 0x8000_0022);
    assert_eq!(failure.qualification, 3);
    assert_eq!(machine.read(VmcsField::VM_EXIT_REASON), 0x8000_0022);
    assert_eq!(machine.read(VmcsField::EXIT_QUALIFICATION), 3);
}

#[test]
fn entry_load_refuses_bases_apic_smm_model_reserved_and_gp() {
    let x2apic = Msr::new(0x808);
    let forbidden = AreaFault::Forbidden;
    let with_reserved = AreaEntry {
        reserved: 1,
        ..entry(FROM, 0)
    };
    for (bad, expected) in [
        (
            entry(Msr::FS_BASE, 0),
            Some(forbidden(Forbidden::SegmentBase)),
        ),
        (
            entry(Msr::GS_BASE, 0),
            Some(forbidden(Forbidden::SegmentBase)),
        ),
        (entry(x2apic, 0), Some(forbidden(Forbidden::X2Apic))),
        (
            entry(Msr::new(0x8ff), 0),
            Some(forbidden(Forbidden::X2Apic)),
        ),
        (
            entry(Msr::SMM_MONITOR_CTL, 0),
            Some(forbidden(Forbidden::SmmOnly)),
        ),
        (
            entry(Msr::BIOS_UPDT_TRIG, 0),
            Some(forbidden(Forbidden::Model)),
        ),
        (
            entry(Msr::BIOS_SIGN_ID, 0),
            Some(forbidden(Forbidden::Model)),
        ),
        (with_reserved, Some(AreaFault::Reserved(1))),
        // WRMSR would fault: no such register, a value that is not canonical.
        (entry(Msr::LBR_CTL, 0), None),
        (entry(TO, BROKEN), None),
    ] {
        let mut machine = Machine::ready("skylake");
        load(&mut machine, &[entry(FROM, 1), bad]);
        let failure = failure(&mut machine);
        assert_eq!(failure.reason.basic(), ExitReason::MSR_LOADING);
        assert_eq!(failure.qualification, 2);
        match (failure.cause, expected) {
            (EntryCause::Area(2, found), Some(expected)) => assert_eq!(found, expected),
            (EntryCause::Area(2, AreaFault::Gp(_)), None) => {}
            (cause, _) => panic!("{cause:?}"),
        }
    }
}

#[test]
fn smm_monitor_ctl_may_be_loaded_in_smm() {
    let mut machine = Machine::ready("skylake");
    machine.vmx.set_smm(true);
    load(&mut machine, &[entry(Msr::SMM_MONITOR_CTL, 1)]);
    machine.launch().unwrap();
    assert_eq!(machine.rdmsr(Msr::SMM_MONITOR_CTL), 1);
}

#[test]
fn a_failed_load_keeps_what_came_before_and_loads_the_host() {
    let mut machine = Machine::ready("skylake");
    machine.write(VmcsField::GUEST_IA32_DEBUGCTL, 1);
    machine.area(
        EXIT_LOAD,
        VmcsField::VM_EXIT_MSR_LOAD_COUNT,
        &[entry(TO, 9)],
    );
    load(
        &mut machine,
        &[entry(FROM, 1), entry(Msr::GS_BASE, 0), entry(TO, 2)],
    );
    failure(&mut machine);
    assert_eq!((machine.rdmsr(FROM), machine.rdmsr(TO)), (1, 9));
    assert_eq!(machine.rdmsr(Msr::DEBUGCTL), 0);
    assert_eq!(machine.registers.rip, crate::common::HOST_RIP);
    assert_eq!(machine.vmx.state(), State::Root);
    // The VMCS is still clear and its guest state untouched.
    assert_eq!(machine.read(VmcsField::GUEST_IA32_DEBUGCTL), 1);
    load(&mut machine, &[]);
    machine.launch().unwrap();
}

#[test]
fn e1_a_value_that_wrmsr_refuses_makes_entry_fail() {
    // Haswell without TSX: bits 62:61 of a kernel FROM must equal bit 47 when it is written.
    let mut machine = Machine::ready("haswell");
    machine.msrs.lbr = vlbr_lbr::Lbr::new(
        vlbr_lbr::Profile::named("haswell").unwrap(),
        vlbr_lbr::Options {
            tsx: Some(false),
            ..Default::default()
        },
    );
    load(&mut machine, &[entry(FROM, 0x1fff_ffff_8100_0000)]);
    let failure = failure(&mut machine);
    assert_eq!(failure.qualification, 1);
    let EntryCause::Area(1, AreaFault::Gp(Fault::Lbr(fault))) = failure.cause else {
        panic!("{failure:?}");
    };
    assert!(
        matches!(fault.reason, GpReason::SignExtension { .. }),
        "{fault}"
    );
}

#[test]
fn t19_an_exit_load_that_faults_is_vmx_abort_4() {
    let mut machine = Machine::ready("skylake");
    machine.area(
        EXIT_LOAD,
        VmcsField::VM_EXIT_MSR_LOAD_COUNT,
        &[entry(TO, BROKEN)],
    );
    machine.launch().unwrap();
    let abort = abort(&mut machine);
    assert_eq!(abort.indicator, Some(VmxAbort::LoadingHostMsrs));
    assert_eq!(machine.ram.word(VMCS + 4), 4);
    assert_eq!(machine.vmx.state(), State::Shutdown);
    assert!(matches!(
        abort.cause,
        AbortCause::Area(MsrArea::ExitLoad, 1, AreaFault::Gp(_))
    ));
}

#[test]
fn an_exit_store_that_fails_is_vmx_abort_1() {
    let reserved = AreaEntry {
        reserved: 0x10,
        ..entry(FROM, 0)
    };
    for bad in [
        entry(Msr::new(0x808), 0),
        entry(Msr::SMBASE, 0),
        entry(Msr::BIOS_SIGN_ID, 0),
        entry(Msr::LBR_CTL, 0),
        reserved,
    ] {
        let mut machine = Machine::ready("skylake");
        machine.area(
            EXIT_STORE,
            VmcsField::VM_EXIT_MSR_STORE_COUNT,
            &[entry(TO, 0), bad],
        );
        machine.launch().unwrap();
        let abort = abort(&mut machine);
        assert_eq!(abort.indicator, Some(VmxAbort::SavingGuestMsrs), "{bad:x?}");
        assert_eq!(machine.ram.word(VMCS + 4), 1);
        assert!(matches!(
            abort.cause,
            AbortCause::Area(MsrArea::ExitStore, 2, _)
        ));
    }
}

#[test]
fn exit_store_may_hold_fs_base_and_in_smm_smbase() {
    let mut machine = Machine::ready("skylake");
    machine.vmx.set_smm(true);
    let entries = [entry(Msr::FS_BASE, 1), entry(Msr::SMBASE, 1)];
    machine.area(EXIT_STORE, VmcsField::VM_EXIT_MSR_STORE_COUNT, &entries);
    machine.launch().unwrap();
    machine.hlt();
    assert_eq!(machine.ram.word(EXIT_STORE + 8), 0);
    assert_eq!(machine.ram.word(EXIT_STORE + 24), 0x3_0000);
}

#[test]
fn an_exit_load_has_the_forbidden_msrs_of_an_entry_load() {
    for bad in [
        Msr::FS_BASE,
        Msr::GS_BASE,
        Msr::new(0x8ff),
        Msr::SMM_MONITOR_CTL,
        Msr::BIOS_UPDT_TRIG,
    ] {
        let mut machine = Machine::ready("skylake");
        machine.area(
            EXIT_LOAD,
            VmcsField::VM_EXIT_MSR_LOAD_COUNT,
            &[entry(bad, 0)],
        );
        machine.launch().unwrap();
        assert_eq!(
            abort(&mut machine).indicator,
            Some(VmxAbort::LoadingHostMsrs),
            "{bad}"
        );
    }
}

#[test]
fn an_abort_while_a_failed_entry_loads_the_host_tells_both() {
    let mut machine = Machine::ready("skylake");
    load(&mut machine, &[entry(Msr::FS_BASE, 0)]);
    machine.area(
        EXIT_LOAD,
        VmcsField::VM_EXIT_MSR_LOAD_COUNT,
        &[entry(TO, BROKEN)],
    );
    match machine.launch() {
        Err(EntryError::Abort { failure, abort }) => {
            assert_eq!(failure.reason.value(), 0x8000_0022);
            assert_eq!(abort.indicator, Some(VmxAbort::LoadingHostMsrs));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(machine.vmx.state(), State::Shutdown);
    assert_eq!(
        machine.launch(),
        Err(EntryError::Instruction(Fail::Shutdown))
    );
}

#[test]
fn areas_beyond_512_entries_are_a_machine_check() {
    let entries = [entry(FROM, 1); 513];
    let mut machine = Machine::ready("skylake");
    load(&mut machine, &entries[..512]);
    machine.launch().unwrap();
    machine.hlt();
    load(&mut machine, &entries);
    match machine.resume() {
        Err(EntryError::Failure(failure)) => {
            assert_eq!(failure.reason.value(), 0x8000_0029);
            let expected = AreaFault::TooLong {
                count: 513,
                limit: 512,
            };
            assert_eq!(failure.cause, EntryCause::Area(0, expected));
        }
        other => panic!("{other:?}"),
    }
    for (at, count) in [
        (EXIT_STORE, VmcsField::VM_EXIT_MSR_STORE_COUNT),
        (EXIT_LOAD, VmcsField::VM_EXIT_MSR_LOAD_COUNT),
    ] {
        let mut machine = Machine::ready("skylake");
        machine.area(at, count, &entries);
        machine.launch().unwrap();
        assert_eq!(abort(&mut machine).indicator, Some(VmxAbort::MachineCheck));
        assert_eq!(machine.ram.word(VMCS + 4), 5);
    }
}

#[test]
fn option_area_beyond_limit_processes_long_areas() {
    let options = Options {
        area_beyond_limit: BeyondLimit::Process,
        ..Options::default()
    };
    let mut machine = Machine::off("skylake", options);
    machine.start();
    machine.prepare();
    load(&mut machine, &[entry(FROM, 1); 600]);
    machine.launch().unwrap();
    let loaded = Event::Transfer(MsrArea::EntryLoad, FROM);
    assert_eq!(machine.ledger.count(Actor::Hardware, loaded), 600);
}

#[test]
fn an_area_in_memory_that_nothing_answers_fails_at_its_first_entry() {
    let mut machine = Machine::ready("skylake");
    machine.write(VmcsField::VM_ENTRY_MSR_LOAD_ADDR, 0x9_0000);
    machine.write(VmcsField::VM_ENTRY_MSR_LOAD_COUNT, 2);
    assert_eq!(failure(&mut machine).qualification, 1);
}
