//! The LBR across context switches: saving, restoring, the shortcut, resets.

use vlbr_arch::Msr;
use vlbr_cpu::ledger::Actor;
use vlbr_host::perf::{
    Behaviour, CloneSwap, Creator, EventAttr, EventKind, EventState, SchedHook, StackState, Target,
};
use vlbr_host::{Owned, Owner, TaskId};

use crate::common::{A, B, CPU, Host, IDLE, OTHER_CPU, at};

const MINE: Owner = Owner::Task(A);

/// A is on with a call-stack event, and `valid` entries stand in the LBR.
fn with_stack(part: &str, version: &str, valid: u32) -> Host {
    let mut host = Host::new(part, 2, at(version));
    host.switch(CPU, A);
    let attr = host.lbr("stack,u");
    host.open(attr, Target::Task(A));
    host.fill(3, valid, MINE);
    host
}

#[test]
fn a_short_stack_costs_its_entries_and_the_empty_one() {
    // Scenario 53.
    let mut host = with_stack("skylake", "5.4", 5);
    let before = host.froms();
    let ((), saved) = host.cost(Actor::HostSave, |host| host.switch(CPU, IDLE));
    assert_eq!(saved, (17, 0));
    // Another user's event leaves no shortcut.
    let rival = host.open(host.lbr("any,u"), Target::Task(B));
    host.switch(CPU, B);
    let ((), restored) = host.cost(Actor::HostRestore, |host| host.switch(CPU, A));
    assert_eq!(restored, (0, 97));
    assert_eq!(host.froms(), before);
    host.release(rival);
}

#[test]
fn a_v8_guest_saves_its_filter_too() {
    // Scenario 54.
    let mut host = Host::new("skylake", 1, Behaviour::v8());
    host.switch(CPU, A);
    host.open_as(Creator::Kvm, EventAttr::V8_GUEST_LBR, Target::Task(A));
    host.fill(3, 5, MINE);
    let ((), saved) = host.cost(Actor::HostSave, |host| host.switch(CPU, IDLE));
    assert_eq!(saved, (18, 0));
    host.open(host.lbr("any,u"), Target::Task(B));
    host.switch(CPU, B);
    let ((), restored) = host.cost(Actor::HostRestore, |host| host.switch(CPU, A));
    assert_eq!(restored, (0, 98));
}

#[test]
fn a_thread_without_lbr_in_between_leaves_the_registers_alone() {
    // Scenario 55.
    let mut host = with_stack("skylake", "5.15.85", 32);
    host.switch(CPU, IDLE);
    assert_eq!(
        host.perf.lbr_context(A).unwrap().stack_state(),
        StackState::Valid
    );
    let before = host.froms();
    let ((), restored) = host.cost(Actor::HostRestore, |host| host.switch(CPU, A));
    assert_eq!(restored, (1, 0));
    let context = host.perf.lbr_context(A).unwrap();
    assert_eq!(
        (context.stack_state(), context.log_id()),
        (StackState::None, 1)
    );
    assert_eq!(host.froms(), before);
}

#[test]
fn a_deep_c_state_is_found_out() {
    // Scenario 56.
    let mut host = with_stack("skylake", "5.15.85", 32);
    let before = host.froms();
    host.switch(CPU, IDLE);
    host.hw.cpu_mut(CPU).deep_c_state();
    assert_ne!(host.froms(), before);
    let ((), restored) = host.cost(Actor::HostRestore, |host| host.switch(CPU, A));
    assert_eq!(restored, (1, 97));
    assert_eq!(host.froms(), before);
}

#[test]
fn another_user_of_the_lbr_ends_the_shortcut() {
    // Scenario 57.
    let mut host = with_stack("haswell", "5.15.85", 16);
    let before = host.froms();
    host.open(host.lbr("stack,u"), Target::Task(B));
    host.switch(CPU, B);
    assert!(host.froms().iter().all(|from| from.value == 0));
    let ((), restored) = host.cost(Actor::HostRestore, |host| host.switch(CPU, A));
    assert_eq!(restored, (0, 33));
    assert_eq!(host.froms(), before);
    assert!(host.froms().iter().all(|from| from.owner == MINE));
}

#[test]
fn running_elsewhere_ends_the_shortcut() {
    // Scenario 58: the log id moved on.
    let mut host = with_stack("skylake", "5.15.85", 32);
    host.switch(CPU, IDLE);
    host.switch(OTHER_CPU, A);
    host.switch(OTHER_CPU, IDLE);
    assert_eq!(host.perf.lbr_context(A).unwrap().log_id(), 2);
    let ((), restored) = host.cost(Actor::HostRestore, |host| host.switch(CPU, A));
    assert_eq!(restored, (0, 97));
}

#[test]
fn a_task_without_data_empties_the_lbr() {
    // Scenario 59: an event of the processor stays on while tasks change.
    for version in ["5.4", "5.15.85", "6.8"] {
        let mut host = Host::new("skylake", 1, at(version));
        host.open(host.lbr("any,u"), Target::Cpu(CPU));
        host.fill(3, 32, MINE);
        let ((), cost) = host.cost(Actor::HostReset, |host| host.switch(CPU, B));
        assert_eq!(cost, (0, 96), "{version}");
        // TOS is never written.
        assert_eq!(host.msr(Msr::LASTBRANCH_TOS), 3);
        // A task whose event has no call stack has no data either.
        host.open(host.counting("branches"), Target::Task(A));
        let ((), cost) = host.cost(Actor::HostReset, |host| host.switch(CPU, A));
        assert_eq!(cost, (0, 96), "{version}");
    }
}

#[test]
fn the_hook_was_forgotten_for_tasks_without_context_in_5_11() {
    let mut host = Host::new("skylake", 1, at("5.11"));
    assert_eq!(host.perf.behaviour().sched_hook, SchedHook::ContextsOnly);
    host.open(host.lbr("any,u"), Target::Cpu(CPU));
    let ((), cost) = host.cost(Actor::HostReset, |host| host.switch(CPU, B));
    assert_eq!(cost, (0, 0));
}

#[test]
fn a_task_with_software_events_alone_does_not_empty_the_lbr_from_6_2() {
    for (version, writes) in [("5.15.85", 96), ("6.8", 0)] {
        let mut host = Host::new("skylake", 1, at(version));
        host.open(host.lbr("any,u"), Target::Cpu(CPU));
        let software = EventAttr::counting(EventKind::Software);
        let event = host.open(software, Target::Task(A));
        let ((), cost) = host.cost(Actor::HostReset, |host| host.switch(CPU, A));
        assert_eq!(cost, (0, writes), "{version}");
        assert_eq!(host.state(event), EventState::Active);
    }
}

#[test]
fn events_of_software_move_nothing() {
    let mut host = Host::new("skylake", 1, at("6.8"));
    host.open(host.lbr("any,u"), Target::Cpu(CPU));
    let software = EventAttr::counting(EventKind::Software);
    let (event, cost) = host.cost_of(|_, _| true, |host| host.open(software, Target::Cpu(CPU)));
    assert_eq!((host.state(event), cost), (EventState::Active, (0, 0)));
    let sibling = host.in_group(software, event).unwrap();
    assert_eq!(host.state(sibling), EventState::Active);
    let ((), cost) = host.cost_of(|_, _| true, |host| host.release(event));
    assert_eq!((host.state(sibling), cost), (EventState::Active, (0, 0)));
}

#[test]
fn slots_are_saved_in_order_of_age_and_restored_to_the_same() {
    // Scenario 60.
    let mut host = with_stack("haswell", "5.15.85", 6);
    let slots = [3, 2, 1, 0, 15, 14].map(|slot| host.msr(Msr::LASTBRANCH_0_FROM_IP.plus(slot)));
    host.open(host.lbr("stack,u"), Target::Task(B));
    host.switch(CPU, B);
    let context = host.perf.lbr_context(A).unwrap();
    let saved: Vec<u64> = context
        .entries()
        .iter()
        .map(|entry| entry.from().value)
        .collect();
    assert_eq!(saved, slots);
    assert_eq!(
        (context.valid_lbrs(), context.tos()),
        (6, Owned::new(3, MINE))
    );
    host.put_tos(9, Owner::Task(B));
    host.switch(CPU, A);
    assert_eq!(host.msr(Msr::LASTBRANCH_TOS), 3);
    for (slot, value) in [3, 2, 1, 0, 15, 14].into_iter().zip(slots) {
        assert_eq!(
            host.msr(Msr::LASTBRANCH_0_FROM_IP.plus(slot)),
            value,
            "slot {slot}"
        );
    }
}

#[test]
fn what_lies_behind_an_empty_entry_is_lost() {
    // Scenario 61.
    let mut host = with_stack("haswell", "5.15.85", 16);
    host.put(vlbr_host::hardware::Word::From, 1, 0, MINE);
    host.open(host.lbr("stack,u"), Target::Task(B));
    host.switch(CPU, B);
    assert_eq!(host.perf.lbr_context(A).unwrap().valid_lbrs(), 2);
    host.switch(CPU, A);
    let values: Vec<u64> = host.froms().iter().map(|from| from.value).collect();
    assert!(values[..2].iter().all(|value| *value != 0));
    assert!(values[2..].iter().all(|value| *value == 0));
}

#[test]
fn the_guests_filter_survives_where_the_flag_arrives() {
    // Scenario 62.
    for (behaviour, attr, kept) in [
        (Behaviour::v8(), EventAttr::V8_GUEST_LBR, true),
        (at("5.13"), EventAttr::VIRTUAL_GUEST_LBR, false),
        (at("5.15.85"), EventAttr::VIRTUAL_GUEST_LBR, true),
    ] {
        let mut host = Host::new("skylake", 1, behaviour);
        host.switch(CPU, A);
        host.open_as(Creator::Kvm, attr, Target::Task(A));
        let value = Owned::new(0x1fb, MINE);
        host.hw
            .wrmsr(CPU, Actor::Guest, Msr::LBR_SELECT, value)
            .unwrap();
        host.fill(3, 32, MINE);
        host.open(host.lbr("any,u"), Target::Task(B));
        host.switch(CPU, B);
        assert_eq!(host.msr(Msr::LBR_SELECT), 0x001);
        host.switch(CPU, A);
        let expected = if kept { 0x1fb } else { 0x001 };
        assert_eq!(host.msr(Msr::LBR_SELECT), expected, "{attr:?}");
    }
}

#[test]
fn a_fresh_guest_inherits_the_filter_in_v8_alone() {
    // Scenario 63.
    for (behaviour, attr, found) in [
        (Behaviour::v8(), EventAttr::V8_GUEST_LBR, 0x001),
        (at("6.8"), EventAttr::VIRTUAL_GUEST_LBR, 0),
    ] {
        let mut host = Host::new("skylake", 1, behaviour);
        host.switch(CPU, A);
        let first = host.open(host.lbr("any,u"), Target::Task(A));
        host.release(first);
        let reset = |host: &mut Host| host.open_as(Creator::Kvm, attr, Target::Task(A));
        let (_, cost) = host.cost(Actor::HostReset, reset);
        assert_eq!(cost, (0, 96 + u64::from(found == 0)));
        assert_eq!(host.msr(Msr::LBR_SELECT), found, "{attr:?}");
    }
}

#[test]
fn call_stacks_of_a_processor_are_kept_per_task_from_6_15() {
    // Scenario 65.
    let mut host = Host::new("skylake", 1, at("6.14"));
    host.switch(CPU, A);
    host.open(host.lbr("stack,u"), Target::Cpu(CPU));
    host.fill(3, 32, MINE);
    let ((), cost) = host.cost(Actor::HostReset, |host| host.switch(CPU, B));
    assert_eq!(cost, (0, 96));
    let mut host = Host::new("skylake", 1, at("6.15"));
    host.switch(CPU, A);
    let event = host.open(host.lbr("stack,u"), Target::Cpu(CPU));
    host.fill(3, 32, MINE);
    let mine = host.froms();
    host.switch(CPU, B);
    assert!(
        host.froms().iter().all(|from| from.value == 0),
        "B has nothing saved"
    );
    host.fill(5, 32, Owner::Task(B));
    host.switch(CPU, A);
    assert_eq!(host.froms(), mine);
    host.release(event);
    assert!(host.perf.lbr_context(A).is_none());
}

#[test]
fn clones_exchange_contexts_and_keep_their_stacks() {
    // Scenario 66.
    for (version, rule) in [
        ("5.4", CloneSwap::DataOnly),
        ("5.15.85", CloneSwap::CountsBack),
        ("6.16", CloneSwap::DataOfTask),
    ] {
        let mut host = Host::new("skylake", 1, at(version));
        assert_eq!(host.perf.behaviour().clone_swap, rule);
        host.switch(CPU, A);
        let mut attr = host.lbr("stack,u");
        attr.inherit = true;
        let event = host.open(attr, Target::Task(A));
        host.perf.fork(A, B);
        assert_eq!(host.perf.lbr_context(A).unwrap().callstack_users(), 1);
        host.fill(3, 32, MINE);
        let mine = host.froms();
        host.switch(CPU, B);
        // The events stayed on: nothing was taken off or placed.
        assert_eq!(host.state(event), EventState::Active, "{version}");
        let log = host.perf.lbr_context(A).unwrap().log_id();
        assert_eq!(log, 1, "{version}: A's stack is A's");
        let users = |host: &Host, task| host.perf.lbr_context(task).unwrap().callstack_users();
        match rule {
            // The count went back to A with the data, so B's stack is never saved.
            CloneSwap::DataOnly => assert_eq!((users(&host, A), users(&host, B)), (1, 0)),
            CloneSwap::CountsBack => assert_eq!((users(&host, A), users(&host, B)), (0, 1)),
            CloneSwap::DataOfTask => assert_eq!(users(&host, A), 1),
        }
        host.switch(CPU, A);
        let expected = if rule == CloneSwap::DataOfTask {
            &mine
        } else {
            &host.froms()
        };
        assert_eq!(&host.froms(), expected, "{version}");
    }
}

#[test]
fn a_context_with_another_event_is_no_clone() {
    let mut host = Host::new("skylake", 1, at("5.15.85"));
    host.switch(CPU, A);
    let mut attr = host.lbr("stack,u");
    attr.inherit = true;
    let event = host.open(attr, Target::Task(A));
    host.perf.fork(A, B);
    host.open(host.counting("instructions"), Target::Task(B));
    host.switch(CPU, B);
    assert_eq!(host.state(event), EventState::Inactive);
}

#[test]
fn a_reschedule_saves_nothing() {
    // Scenario 44: the event that is kicked out loses its stack.
    let mut host = Host::new("haswell", 1, Behaviour::v8());
    host.switch(CPU, A);
    host.open_as(Creator::Kvm, EventAttr::V8_GUEST_LBR, Target::Task(A));
    host.fill(3, 16, MINE);
    let rival = host.pinned_lbr("any,u");
    let (_, cost) = host.cost(Actor::HostSave, |host| host.open(rival, Target::Cpu(CPU)));
    assert_eq!(cost, (0, 0));
    assert!(host.froms().iter().all(|from| from.value == 0));
}

#[test]
fn rotation_before_the_vcpu_returns_opens_the_shortcut_onto_host_records() {
    // Scenario 95: the processor's event comes on without a reset and without ending the pair.
    let mut host = Host::new("haswell", 1, Behaviour::v8());
    // It has run before, so that adding it is no reason to reset.
    let rival = host.open(host.lbr("any,u"), Target::Cpu(CPU));
    host.switch(CPU, A);
    host.open_as(Creator::Kvm, EventAttr::V8_GUEST_LBR, Target::Task(A));
    assert_eq!(host.state(rival), EventState::Inactive);
    host.fill(3, 16, MINE);
    // Its own attempt to come on has left its filter in br_sel, so the guest's count stays up.
    host.switch(CPU, IDLE);
    host.perf.rotate(&mut host.hw, CPU);
    assert_eq!(host.state(rival), EventState::Active);
    host.fill(7, 16, Owner::Kernel);
    let ((), restored) = host.cost(Actor::HostRestore, |host| host.switch(CPU, A));
    assert_eq!(restored, (1, 0), "the shortcut");
    assert!(host.froms().iter().all(|from| from.owner == Owner::Kernel));
}

#[test]
fn a_later_filter_leaves_the_count_of_call_stack_users_too_high() {
    let mut host = Host::new("skylake", 1, at("5.15.85"));
    host.open(host.lbr("any,u"), Target::Cpu(CPU));
    host.switch(CPU, A);
    host.open_as(Creator::Kvm, EventAttr::VIRTUAL_GUEST_LBR, Target::Task(A));
    for slices in 1..4 {
        assert_eq!(host.perf.lbr_context(A).unwrap().callstack_users(), slices);
        host.switch(CPU, IDLE);
        assert_eq!(host.perf.lbr_context(A).unwrap().callstack_users(), slices);
        host.switch(CPU, A);
    }
}

#[test]
fn a_filter_that_failed_to_come_on_does_so_as_well() {
    // The LBR is told of an event before it is known to fit.
    let mut host = Host::new("haswell", 1, Behaviour::v8());
    host.open(host.lbr("any,u"), Target::Cpu(CPU));
    host.switch(CPU, A);
    host.open_as(Creator::Kvm, EventAttr::V8_GUEST_LBR, Target::Task(A));
    host.switch(CPU, IDLE);
    host.switch(CPU, A);
    assert_eq!(host.perf.lbr_context(A).unwrap().callstack_users(), 2);
}

#[test]
fn brackets_are_one_or_two_per_direction() {
    // GLOBAL_CTRL is written twice in a bracket.
    for (version, brackets) in [("5.4", 2), ("5.15.85", 1)] {
        let mut host = with_stack("skylake", version, 32);
        let global = |_, msr| msr == Msr::PERF_GLOBAL_CTRL;
        let ((), out) = host.cost_of(global, |host| host.switch(CPU, IDLE));
        assert_eq!(out, (0, 2 * brackets), "{version} out");
        let ((), entered) = host.cost_of(global, |host| host.switch(CPU, A));
        assert_eq!(entered, (0, 2 * brackets), "{version} in");
    }
}

#[test]
fn processor_events_stay_on_where_the_task_has_no_pinned_ones() {
    let mut host = Host::new("skylake", 1, at("5.15.85"));
    let own = host.open(host.counting("branches"), Target::Cpu(CPU));
    host.open(host.counting("branches"), Target::Task(A));
    let selectors = |_, msr: Msr| msr == Msr::PERFEVTSEL0;
    let ((), cost) = host.cost_of(selectors, |host| host.switch(CPU, A));
    assert_eq!(cost, (0, 0), "its counter is not touched");
    assert_eq!(host.state(own), EventState::Active);
    let pinned = EventAttr {
        pinned: true,
        ..host.counting("branches")
    };
    host.open(pinned, Target::Task(B));
    let ((), cost) = host.cost_of(selectors, |host| host.switch(CPU, B));
    assert_ne!(cost, (0, 0));
}

#[test]
fn architectural_lbr_goes_by_xsaves() {
    let mut host = Host::new("sapphire-rapids", 1, at("6.8"));
    host.switch(CPU, A);
    let (_, cost) = {
        let attr = host.lbr("stack,u");
        host.cost(Actor::HostReset, |host| host.open(attr, Target::Task(A)))
    };
    assert_eq!(cost, (0, 1), "IA32_LBR_DEPTH");
    host.fill(0, 32, MINE);
    let mine = host.froms();
    host.open(host.lbr("stack,u"), Target::Task(B));
    host.switch(CPU, B);
    assert!(host.froms().iter().all(|from| from.value == 0));
    host.switch(CPU, A);
    assert_eq!(host.froms(), mine);
    use vlbr_cpu::ledger::Event as Access;
    let count = |actor, access| host.hw.ledger().count(actor, access);
    assert_eq!(count(Actor::HostSave, Access::Xsaves), 2);
    assert_eq!(count(Actor::HostRestore, Access::Xrstors), 1);
}

#[test]
fn without_xsaves_architectural_lbr_goes_msr_by_msr() {
    let behaviour = Behaviour {
        xsaves: false,
        ..at("6.8")
    };
    let mut host = Host::new("sapphire-rapids", 1, behaviour);
    host.switch(CPU, A);
    host.open(host.lbr("stack,u"), Target::Task(A));
    host.fill(0, 5, MINE);
    let mine = host.froms();
    host.open(host.lbr("any,u"), Target::Task(B));
    let ((), saved) = host.cost(Actor::HostSave, |host| host.switch(CPU, B));
    assert_eq!(saved, (3 * 5 + 1, 0));
    let ((), restored) = host.cost(Actor::HostRestore, |host| host.switch(CPU, A));
    assert_eq!(restored, (0, 3 * 5));
    assert_eq!(host.froms(), mine);
}

#[test]
fn without_xsaves_a_shorter_stack_brings_older_entries_back() {
    // intel_pmu_arch_lbr_save clears the last entry alone.
    let behaviour = Behaviour {
        xsaves: false,
        ..at("6.8")
    };
    let mut host = Host::new("sapphire-rapids", 1, behaviour);
    host.switch(CPU, A);
    host.open(host.lbr("stack,u"), Target::Task(A));
    host.open(host.lbr("any,u"), Target::Task(B));
    host.fill(0, 10, MINE);
    let old = host.froms();
    host.switch(CPU, B);
    host.switch(CPU, A);
    host.fill(0, 4, MINE);
    host.switch(CPU, B);
    host.switch(CPU, A);
    assert_eq!(host.froms()[4..10], old[4..10]);
}

#[test]
fn kernel_threads_and_unknown_tasks_have_nothing_saved() {
    let host = with_stack("skylake", "5.15.85", 5);
    assert!(host.perf.lbr_context(IDLE).is_none());
    assert!(host.perf.lbr_context(TaskId(77)).is_none());
}
