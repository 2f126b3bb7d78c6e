//! Counts of whole runs, and their price.

use vlbr_arch::Msr;
use vlbr_arch::vmx::{MsrArea, VmcsField};
use vlbr_cpu::ledger::{Actor, Bound, Class, CostModel, Event};
use vlbr_vmx::AreaEntry;

use crate::common::{ENTRY_LOAD, EXIT_STORE, Machine};

#[test]
fn lists_of_100_msrs_cost_what_the_worked_example_says() {
    let mut machine = Machine::ready("skylake");
    let mut entries = Vec::new();
    for base in [
        Msr::LASTBRANCH_0_FROM_IP,
        Msr::LASTBRANCH_0_TO_IP,
        Msr::LBR_INFO_0,
    ] {
        entries.extend((0..32).map(|n| AreaEntry::new(base.plus(n), 0)));
    }
    entries.extend(
        [
            Msr::LASTBRANCH_TOS,
            Msr::LBR_SELECT,
            Msr::LER_FROM,
            Msr::LER_TO,
        ]
        .map(|msr| AreaEntry::new(msr, 0)),
    );
    machine.area(ENTRY_LOAD, VmcsField::VM_ENTRY_MSR_LOAD_COUNT, &entries);
    machine.area(EXIT_STORE, VmcsField::VM_EXIT_MSR_STORE_COUNT, &entries);
    machine.launch().unwrap();
    let before = machine.ledger.clone();
    machine.hlt();
    machine.resume().unwrap();
    let round = machine.ledger.since(&before).expect("a later state");
    let model = CostModel::published();
    let estimate = model.estimate(&round, "skylake", Bound::Default).unwrap();
    let transfers: u128 = estimate
        .rows
        .iter()
        .filter(|row| matches!(row.event, Event::Transfer(..)))
        .map(|row| row.cycles)
        .sum();
    assert_eq!(transfers, 18_000);
    let transition: u128 = estimate
        .rows
        .iter()
        .filter(|row| matches!(row.event, Event::VmEntry | Event::VmExit { .. }))
        .map(|row| row.cycles)
        .sum();
    assert_eq!(transition, 568);
    assert_eq!(estimate.worst, Some(Class::E));
    let low = model.estimate(&round, "skylake", Bound::Low).unwrap();
    let high = model.estimate(&round, "skylake", Bound::High).unwrap();
    assert!(low.cycles < estimate.cycles && estimate.cycles < high.cycles);
}

#[test]
fn a_transfer_that_fails_is_not_counted() {
    let mut machine = Machine::ready("skylake");
    let from = Msr::LASTBRANCH_0_FROM_IP;
    let entries = [from, Msr::FS_BASE, from].map(|msr| AreaEntry::new(msr, 0));
    machine.area(ENTRY_LOAD, VmcsField::VM_ENTRY_MSR_LOAD_COUNT, &entries);
    machine.launch().unwrap_err();
    let count = |event| machine.ledger.count(Actor::Hardware, event);
    assert_eq!(count(Event::Transfer(MsrArea::EntryLoad, from)), 1);
    assert_eq!(count(Event::VmEntry), 0);
    let failed = Event::VmEntryFailure(vlbr_arch::vmx::ExitReason::MSR_LOADING);
    assert_eq!(count(failed), 1);
}

#[test]
fn instructions_that_fail_count_nothing() {
    let mut machine = Machine::root("skylake");
    machine.launch().unwrap_err();
    assert_eq!(machine.ledger.rows().len(), 0);
}
