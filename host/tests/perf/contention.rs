//! Who is on when not all can be.

use vlbr_arch::Msr;
use vlbr_host::perf::{
    Behaviour, Creator, Errno, EventAttr, EventId, EventState, ExclusiveRule, Target,
};
use vlbr_host::{CpuId, Owner};

use crate::common::{A, B, CPU, Host, IDLE, OTHER_CPU, at};

use EventState::{Active, Error, Inactive};

#[test]
fn different_filters_rotate_and_equal_ones_share() {
    // Scenario 46.
    let mut host = Host::new("skylake", 1, at("5.15"));
    let calls = host.open(host.lbr("any_call,u"), Target::Cpu(CPU));
    let returns = host.open(host.lbr("any_ret,u"), Target::Cpu(CPU));
    assert_eq!((host.state(calls), host.state(returns)), (Active, Inactive));
    assert!(host.perf.wants_rotation(CPU));
    host.perf.rotate(&mut host.hw, CPU);
    assert_eq!((host.state(calls), host.state(returns)), (Inactive, Active));
    host.perf.rotate(&mut host.hw, CPU);
    assert_eq!((host.state(calls), host.state(returns)), (Active, Inactive));
    assert_eq!(host.perf.shared_slot(CPU).refs, 1);
    let same = host.open(host.lbr("any_call,u"), Target::Cpu(CPU));
    assert_eq!(host.perf.event(same).unwrap().branch_config(), Some(0x0e5));
    host.release(returns);
    host.perf.rotate(&mut host.hw, CPU);
    assert_eq!((host.state(calls), host.state(same)), (Active, Active));
    assert_eq!(host.perf.shared_slot(CPU).refs, 2);
    assert!(!host.perf.wants_rotation(CPU));
}

#[test]
fn a_group_with_two_filters_cannot_be_opened() {
    // Scenario 47.
    let mut host = Host::new("skylake", 1, at("5.15"));
    let leader = host.open(host.lbr("any_call,u"), Target::Cpu(CPU));
    let other = host.lbr("any_ret,u");
    assert_eq!(host.in_group(other, leader), Err(Errno::EINVAL));
    let same = host.lbr("any_call,u");
    assert!(host.in_group(same, leader).is_ok());
}

#[test]
fn a_group_that_can_never_fit_cannot_be_opened() {
    let mut host = Host::new("skylake", 1, at("5.15"));
    let leader = host.open(host.counting("branches"), Target::Cpu(CPU));
    for _ in 0..3 {
        let attr = host.counting("branches");
        host.in_group(attr, leader).unwrap();
    }
    let attr = host.counting("branches");
    assert_eq!(host.in_group(attr, leader), Err(Errno::EINVAL));
    let fixed = host.counting("instructions");
    assert!(
        host.in_group(fixed, leader).is_ok(),
        "it has a fixed counter"
    );
}

#[test]
fn siblings_are_neither_pinned_nor_exclusive_nor_elsewhere() {
    let mut host = Host::new("skylake", 2, at("5.15"));
    let leader = host.open(host.counting("branches"), Target::Cpu(CPU));
    let attr = host.counting("branches");
    for wrong in [
        EventAttr {
            pinned: true,
            ..attr
        },
        EventAttr {
            exclusive: true,
            ..attr
        },
    ] {
        assert_eq!(host.in_group(wrong, leader), Err(Errno::EINVAL));
    }
    let elsewhere = Target::Cpu(OTHER_CPU);
    let opened = host
        .perf
        .open(&mut host.hw, attr, elsewhere, Creator::User, Some(leader));
    assert_eq!(opened, Err(Errno::EINVAL));
    let sibling = host.in_group(attr, leader).unwrap();
    let opened = host.in_group(attr, sibling);
    assert_eq!(opened, Err(Errno::EINVAL), "a sibling leads nobody");
    let gone = EventId(99);
    let opened = host
        .perf
        .open(&mut host.hw, attr, elsewhere, Creator::User, Some(gone));
    assert_eq!(opened, Err(Errno::ENOENT));
}

#[test]
fn a_group_is_on_as_a_whole_or_not_at_all() {
    let mut host = Host::new("skylake", 1, at("5.15"));
    let pinned = EventAttr {
        pinned: true,
        ..host.counting("branches")
    };
    for _ in 0..3 {
        host.open(pinned, Target::Cpu(CPU));
    }
    let leader = host.open(host.counting("branches"), Target::Cpu(CPU));
    assert_eq!(host.state(leader), Active);
    let attr = host.counting("branches");
    let sibling = host.in_group(attr, leader).unwrap();
    assert_eq!(
        (host.state(leader), host.state(sibling)),
        (Inactive, Inactive)
    );
    host.release(leader);
    // The sibling stands alone now and gets the counter at the next occasion.
    host.perf.rotate(&mut host.hw, CPU);
    let alone = host.perf.event(sibling).unwrap();
    assert_eq!((alone.state(), alone.leader()), (Active, sibling));
}

#[test]
fn error_is_left_by_enabling_alone() {
    // Scenario 48.
    let mut host = Host::new("skylake", 1, at("5.15"));
    let rival = host.open(host.pinned_lbr("any_call,u"), Target::Cpu(CPU));
    let event = host.open(host.pinned_lbr("any_ret,u"), Target::Cpu(CPU));
    assert_eq!(host.state(event), Error);
    assert_eq!(host.perf.read(&host.hw, event), Ok(None));
    host.release(rival);
    for task in [A, B, IDLE] {
        host.switch(CPU, task);
    }
    host.perf.rotate(&mut host.hw, CPU);
    assert_eq!(host.state(event), Error);
    assert_eq!(host.perf.event(event).unwrap().error_wakeups(), 0);
    host.perf.enable(&mut host.hw, event).unwrap();
    assert_eq!(host.state(event), Active);
    assert_eq!(host.perf.read(&host.hw, event), Ok(Some(0)));
    let mut late = Host::new("skylake", 1, at("6.15"));
    late.open(late.pinned_lbr("any_call,u"), Target::Cpu(CPU));
    let event = late.open(late.pinned_lbr("any_ret,u"), Target::Cpu(CPU));
    assert_eq!(late.perf.event(event).unwrap().error_wakeups(), 1);
}

#[test]
fn the_v8_event_shares_with_nobody() {
    // Scenario 49: bit 62.
    let mut host = Host::new("haswell", 1, Behaviour::v8());
    host.switch(CPU, A);
    let guest = host.open_as(Creator::Kvm, EventAttr::V8_GUEST_LBR, Target::Task(A));
    let same = host.open(host.lbr("stack,u"), Target::Cpu(CPU));
    assert_eq!((host.state(guest), host.state(same)), (Active, Inactive));
    // Scenario 43: it is on while the vCPU's thread is not.
    host.switch(CPU, IDLE);
    host.perf.rotate(&mut host.hw, CPU);
    assert_eq!((host.state(guest), host.state(same)), (Inactive, Active));
    host.switch(CPU, A);
    assert_eq!((host.state(guest), host.state(same)), (Active, Inactive));
}

#[test]
fn two_v8_events_share_with_each_other() {
    // Both have bit 62; the first that goes takes the flag of the processor with it.
    let mut host = Host::new("haswell", 1, Behaviour::v8());
    host.switch(CPU, A);
    let first = host.open_as(Creator::Kvm, EventAttr::V8_GUEST_LBR, Target::Task(A));
    let second = host.open_as(Creator::Kvm, EventAttr::V8_GUEST_LBR, Target::Task(A));
    assert_eq!((host.state(first), host.state(second)), (Active, Active));
    host.release(first);
    assert!(!host.perf.guest_owns_lbr(CPU));
    assert_eq!(host.state(second), Active);
}

#[test]
fn a_processors_pinned_event_takes_the_lbr_from_the_v8_event() {
    // Scenarios 36 and 37, perf's part of them.
    let mut host = Host::new("haswell", 2, Behaviour::v8());
    host.switch(CPU, A);
    let guest = host.open_as(Creator::Kvm, EventAttr::V8_GUEST_LBR, Target::Task(A));
    assert_eq!(host.perf.interrupts(Target::Cpu(CPU)), Some(CPU));
    let rival = host.open(host.pinned_lbr("any,u"), Target::Cpu(CPU));
    assert_eq!((host.state(guest), host.state(rival)), (Error, Active));
    assert!(!host.perf.guest_owns_lbr(CPU));
    assert_eq!(host.perf.event(guest).unwrap().oncpu(), None);
    host.release(guest);
    let guest = host.open_as(Creator::Kvm, EventAttr::V8_GUEST_LBR, Target::Task(A));
    assert_eq!(host.state(guest), Error);
}

#[test]
fn every_kernel_event_without_host_and_with_branches_counts_as_a_v8_guest() {
    // Scenario 50.
    let mut host = Host::new("haswell", 1, Behaviour::v8());
    let attr = EventAttr {
        exclude_host: true,
        ..host.lbr("any,u")
    };
    let event = host.open_as(Creator::KernelOther, attr, Target::Cpu(CPU));
    assert_eq!(host.perf.event(event).unwrap().index(), -1);
    assert!(host.perf.guest_owns_lbr(CPU));
    host.release(event);
    // Of a process it is an ordinary event.
    let event = host.open(attr, Target::Cpu(CPU));
    assert_eq!(host.perf.event(event).unwrap().index(), 0);
    assert!(!host.perf.guest_owns_lbr(CPU));
}

#[test]
fn one_virtual_event_is_on_at_a_time() {
    // Scenario 51.
    let mut host = Host::new("skylake", 1, at("5.15.85"));
    host.switch(CPU, A);
    let attr = EventAttr::VIRTUAL_GUEST_LBR;
    let first = host.open_as(Creator::Kvm, attr, Target::Task(A));
    let second = host.open_as(Creator::Kvm, attr, Target::Task(A));
    assert_eq!((host.state(first), host.state(second)), (Active, Error));
}

#[test]
fn a_precise_virtual_event_is_refused() {
    // Scenario 52.
    let mut host = Host::new("skylake", 1, at("5.15.85"));
    let attr = EventAttr {
        precise_ip: 1,
        period: 1000,
        ..EventAttr::VIRTUAL_GUEST_LBR
    };
    assert_eq!(host.try_open(attr, Target::Task(A)), Err(Errno::EINVAL));
}

#[test]
fn the_virtual_event_takes_no_part_in_sharing() {
    // Scenarios 39 and 94, perf's part: both are on, and the guest's LBR is not emptied.
    let mut host = Host::new("skylake", 1, at("5.15.85"));
    host.switch(CPU, A);
    let rival = host.open(host.pinned_lbr("any,u"), Target::Cpu(CPU));
    host.fill(3, 32, Owner::Kernel);
    let guest = host.open_as(Creator::Kvm, EventAttr::VIRTUAL_GUEST_LBR, Target::Task(A));
    assert_eq!((host.state(guest), host.state(rival)), (Active, Active));
    assert_eq!(host.perf.shared_slot(CPU).refs, 1);
    assert!(
        host.froms()
            .iter()
            .all(|from| from.owner == Owner::Kernel && from.value != 0)
    );
    // A flexible one comes off first, so that the guest's event is the first user and resets.
    let mut host = Host::new("skylake", 1, at("5.15.85"));
    host.switch(CPU, A);
    let rival = host.open(host.lbr("any,u"), Target::Cpu(CPU));
    host.fill(3, 32, Owner::Kernel);
    let guest = host.open_as(Creator::Kvm, EventAttr::VIRTUAL_GUEST_LBR, Target::Task(A));
    assert_eq!((host.state(guest), host.state(rival)), (Active, Active));
    assert!(
        host.froms()
            .iter()
            .all(|from| from.value == 0 && from.owner == Owner::Nobody)
    );
}

#[test]
fn every_event_counts_towards_the_limit_of_the_collector() {
    // Scenario 97: G + F pinned events leave no place for an event without counter.
    for (behaviour, attr) in [
        (Behaviour::v8(), EventAttr::V8_GUEST_LBR),
        (at("5.15.85"), EventAttr::VIRTUAL_GUEST_LBR),
    ] {
        let mut host = Host::new("haswell", 1, behaviour);
        host.switch(CPU, A);
        let names = ["instructions", "cycles", "ref-cycles", "branches"];
        let [i, c, r, b] = names.map(|name| EventAttr {
            pinned: true,
            ..host.counting(name)
        });
        for attr in [i, c, r, b, b, b, b] {
            let event = host.open(attr, Target::Cpu(CPU));
            assert_eq!(host.state(event), Active);
        }
        let guest = host.open_as(Creator::Kvm, attr, Target::Task(A));
        assert_eq!(host.state(guest), Error);
    }
}

#[test]
fn a_failed_pinned_group_takes_later_ones_along_from_5_7() {
    // Scenario 96.
    for (version, then) in [("5.4", Active), ("5.10", Error), ("5.15", Error)] {
        let mut host = Host::new("haswell", 1, at(version));
        let pinned = EventAttr {
            pinned: true,
            ..host.counting("branches")
        };
        for _ in 0..4 {
            host.open(pinned, Target::Cpu(CPU));
        }
        // Installed while it does not run, so that both are tried in one pass.
        let failing = host.open(pinned, Target::Task(A));
        let lbr = EventAttr {
            pinned: true,
            ..host.counting("instructions")
        };
        let behind = host.open(lbr, Target::Task(A));
        host.switch(CPU, A);
        assert_eq!(
            (host.state(failing), host.state(behind)),
            (Error, then),
            "{version}"
        );
    }
}

#[test]
fn an_exclusive_group_is_alone() {
    for (version, rule) in [
        ("5.4", ExclusiveRule::AnyOnCpu),
        ("5.15", ExclusiveRule::SameList),
    ] {
        let mut host = Host::new("skylake", 1, at(version));
        assert_eq!(host.perf.behaviour().exclusive, rule);
        let other = EventAttr {
            pinned: true,
            ..host.counting("branches")
        };
        host.open(other, Target::Cpu(CPU));
        let exclusive = EventAttr {
            exclusive: true,
            ..host.counting("cycles")
        };
        let event = host.open(exclusive, Target::Cpu(CPU));
        // By list, a flexible exclusive group stands beside pinned ones that do not ask for it.
        let expected = if rule == ExclusiveRule::SameList {
            Active
        } else {
            Inactive
        };
        assert_eq!(host.state(event), expected, "{version}");
    }
}

#[test]
fn an_exclusive_pinned_event_takes_the_guest_event_to_error() {
    let mut host = Host::new("haswell", 1, Behaviour::v8());
    host.switch(CPU, A);
    let guest = host.open_as(Creator::Kvm, EventAttr::V8_GUEST_LBR, Target::Task(A));
    let exclusive = EventAttr {
        pinned: true,
        exclusive: true,
        ..host.counting("cycles")
    };
    let rival = host.open(exclusive, Target::Cpu(CPU));
    assert_eq!((host.state(guest), host.state(rival)), (Error, Active));
}

#[test]
fn classes_are_placed_in_their_order() {
    let mut host = Host::new("skylake", 1, at("5.15"));
    host.switch(CPU, A);
    let task_flexible = host.open(host.lbr("any_ret,u"), Target::Task(A));
    assert_eq!(host.state(task_flexible), Active);
    let cpu_flexible = host.open(host.lbr("cond,u"), Target::Cpu(CPU));
    assert_eq!(
        (host.state(cpu_flexible), host.state(task_flexible)),
        (Active, Inactive)
    );
    let task_pinned = host.open(host.pinned_lbr("ind_call,u"), Target::Task(A));
    assert_eq!(
        (host.state(task_pinned), host.state(cpu_flexible)),
        (Active, Inactive)
    );
    let cpu_pinned = host.open(host.pinned_lbr("any,u"), Target::Cpu(CPU));
    assert_eq!(
        (host.state(cpu_pinned), host.state(task_pinned)),
        (Active, Error)
    );
}

#[test]
fn the_slot_is_the_cores_on_nehalem_and_the_threads_later() {
    for (part, together) in [("nehalem", false), ("sandy-bridge", true)] {
        let behaviour = Behaviour {
            threads_per_core: 2,
            ..at("5.15")
        };
        let mut host = Host::new(part, 4, behaviour);
        let calls = host.open(host.lbr("any_call,u"), Target::Cpu(CPU));
        let returns = host.open(host.lbr("any_ret,u"), Target::Cpu(OTHER_CPU));
        assert_eq!(host.state(calls), Active, "{part}");
        assert_eq!(host.state(returns) == Active, together, "{part}");
        let far = host.open(host.lbr("any_ret,u"), Target::Cpu(CpuId(2)));
        assert_eq!(host.state(far), Active, "{part}: another core");
    }
}

#[test]
fn without_a_filter_register_every_filter_shares() {
    let mut host = Host::new("core2-65nm", 1, at("5.15"));
    let calls = host.open(host.lbr("any_call,u"), Target::Cpu(CPU));
    let returns = host.open(host.lbr("any_ret,u"), Target::Cpu(CPU));
    assert_eq!((host.state(calls), host.state(returns)), (Active, Active));
    assert_eq!(host.perf.unchecked_msr_faults(), 0);
}

#[test]
fn the_slot_keeps_its_value_when_nobody_refers_to_it() {
    let mut host = Host::new("skylake", 1, at("5.15"));
    let event = host.open(host.lbr("any_call,u"), Target::Cpu(CPU));
    host.release(event);
    assert_eq!(
        (
            host.perf.shared_slot(CPU).refs,
            host.perf.shared_slot(CPU).config
        ),
        (0, 0x0e5)
    );
    assert_eq!(host.msr(Msr::LBR_SELECT), 0x0e5);
}

#[test]
fn call_stacks_are_refused_where_there_are_none_and_in_company() {
    // Scenario 77.
    let mut host = Host::new("skylake", 1, at("5.15"));
    let attr = host.lbr("stack,any_call,u");
    assert_eq!(host.try_open(attr, Target::Cpu(CPU)), Err(Errno::EINVAL));
    let mut host = Host::new("ivy-bridge", 1, at("5.15"));
    let attr = host.lbr("stack,u");
    assert_eq!(
        host.try_open(attr, Target::Cpu(CPU)),
        Err(Errno::EOPNOTSUPP)
    );
    assert_eq!(host.perf.events().len(), 0);
}

#[test]
fn branch_counters_need_a_part_and_a_kernel_that_know_them() {
    use vlbr_cpu::ledger::Actor;
    use vlbr_traces::perfdata::BranchSampleType;
    let counters = |host: &Host| EventAttr {
        branch_sample_type: Some(BranchSampleType(0b1001 | BranchSampleType::COUNTERS.0)),
        ..host.lbr("any,u")
    };
    for (part, version, known) in [
        ("granite-rapids", "6.8", false),
        ("lunar-lake-e", "6.6", false),
        ("lunar-lake-e", "6.8", true),
    ] {
        let mut host = Host::new(part, 1, at(version));
        let attr = counters(&host);
        let opened = host.try_open(attr, Target::Cpu(CPU));
        assert_eq!(opened.is_ok(), known, "{part} {version}");
        if let Ok(event) = opened {
            // What was logged belongs to the group: the leader empties the LBR when it goes.
            let ((), cost) = host.cost(Actor::HostReset, |host| host.release(event));
            assert_eq!(cost, (0, 1));
        }
    }
}

#[test]
fn pebs_of_the_first_formats_takes_the_lbr_for_its_addresses() {
    let mut host = Host::new("sandy-bridge", 1, at("5.15"));
    let mut attr = host.counting("branches");
    attr.period = 1000;
    attr.precise_ip = 2;
    attr.exclude_kernel = true;
    let event = host.open(attr, Target::Cpu(CPU));
    assert_eq!(host.perf.lbr_cpu(CPU).users(), 1);
    assert_eq!(host.perf.event(event).unwrap().branch_config(), Some(0x001));
    // Its own filter has to be compatible.
    attr.branch_sample_type = host.lbr("any_call,u").branch_sample_type;
    assert_eq!(
        host.try_open(attr, Target::Cpu(CPU)),
        Err(Errno::EOPNOTSUPP)
    );
    // From format 2 on the hardware tells the address.
    let mut late = Host::new("haswell", 1, at("5.15"));
    attr = EventAttr {
        period: 1000,
        precise_ip: 2,
        ..late.counting("branches")
    };
    late.open(attr, Target::Cpu(CPU));
    assert_eq!(late.perf.lbr_cpu(CPU).users(), 0);
    // Without sampling there is nothing precise.
    attr.period = 0;
    assert_eq!(late.try_open(attr, Target::Cpu(CPU)), Err(Errno::EINVAL));
}

#[test]
fn privileges_alone_are_no_branch_filter() {
    use vlbr_host::perf::parse_branch_filter;
    let mut host = Host::new("skylake", 1, at("5.15"));
    let any = parse_branch_filter("any").unwrap();
    let mut attr = host.lbr("any,u");
    attr.branch_sample_type = Some(vlbr_traces::perfdata::BranchSampleType(0b11));
    assert_eq!(host.try_open(attr, Target::Cpu(CPU)), Err(Errno::EINVAL));
    attr.branch_sample_type = Some(any);
    attr.exclude_kernel = true;
    let event = host.open(attr, Target::Cpu(CPU));
    // The level of the event is that of its branches.
    assert_eq!(host.perf.event(event).unwrap().branch_config(), Some(0x001));
}
