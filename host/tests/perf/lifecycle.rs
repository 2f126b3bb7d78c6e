//! Events are opened, switched with their tasks, released.

use vlbr_cpu::ledger::Actor;
use vlbr_host::CpuId;
use vlbr_host::perf::{
    Behaviour, Creator, Errno, EventAttr, EventKind, EventState, Perf, SelectSave, Target,
};

use crate::common::{A, B, CPU, Host, IDLE, OTHER_CPU, at};

#[test]
fn an_event_follows_its_task() {
    let mut host = Host::new("skylake", 2, at("5.15.85"));
    host.switch(CPU, A);
    let event = host.open(host.lbr("stack,u"), Target::Task(A));
    assert_eq!(host.perf.event(event).unwrap().oncpu(), Some(CPU));
    host.switch(CPU, IDLE);
    assert_eq!(host.state(event), EventState::Inactive);
    assert_eq!(host.perf.event(event).unwrap().oncpu(), None);
    host.switch(OTHER_CPU, A);
    assert_eq!(host.perf.event(event).unwrap().oncpu(), Some(OTHER_CPU));
    host.release(event);
    assert!(host.perf.event(event).is_none());
    assert_eq!(host.perf.lbr_cpu(OTHER_CPU).users(), 0);
    assert_eq!(host.perf.unchecked_msr_faults(), 0);
}

#[test]
fn an_event_of_a_task_on_one_processor_is_on_there_only() {
    let mut host = Host::new("skylake", 2, at("5.15"));
    host.switch(OTHER_CPU, A);
    let event = host.open(host.counting("instructions"), Target::TaskOnCpu(A, CPU));
    assert_eq!(host.state(event), EventState::Inactive);
    host.switch(OTHER_CPU, IDLE);
    host.switch(CPU, A);
    assert_eq!(host.state(event), EventState::Active);
}

#[test]
fn interrupts_go_where_the_event_is_or_could_be() {
    let mut host = Host::new("skylake", 2, at("5.15"));
    host.switch(OTHER_CPU, A);
    assert_eq!(host.perf.interrupts(Target::Cpu(CPU)), Some(CPU));
    assert_eq!(host.perf.interrupts(Target::Task(A)), Some(OTHER_CPU));
    assert_eq!(host.perf.interrupts(Target::Task(B)), None);
    assert_eq!(host.perf.interrupts(Target::Cpu(CpuId(7))), None);
    host.perf.cpu_dead(&mut host.hw, CPU);
    assert_eq!(host.perf.interrupts(Target::Cpu(CPU)), None);
}

#[test]
fn a_dying_task_and_a_missing_processor_are_refused() {
    let mut host = Host::new("skylake", 2, at("5.15"));
    host.switch(CPU, A);
    let kept = host.open(host.counting("instructions"), Target::Task(A));
    host.perf.exit(&mut host.hw, A);
    assert_eq!(host.state(kept), EventState::Exit);
    let attr = host.counting("instructions");
    assert_eq!(host.try_open(attr, Target::Task(A)), Err(Errno::ESRCH));
    assert_eq!(
        host.try_open(attr, Target::Cpu(CpuId(2))),
        Err(Errno::ENODEV)
    );
    assert_eq!(host.perf.enable(&mut host.hw, kept), Err(Errno::ESRCH));
    host.release(kept);
    assert_eq!(host.perf.release(&mut host.hw, kept), Err(Errno::ENOENT));
    let of_cpu = host.open(attr, Target::Cpu(OTHER_CPU));
    host.perf.cpu_dead(&mut host.hw, OTHER_CPU);
    assert_eq!(host.state(of_cpu), EventState::Off);
    assert_eq!(host.perf.enable(&mut host.hw, of_cpu), Err(Errno::ENODEV));
    assert_eq!(
        host.try_open(attr, Target::Cpu(OTHER_CPU)),
        Err(Errno::ENODEV)
    );
}

#[test]
fn enabling_and_disabling_change_the_state_at_once() {
    let mut host = Host::new("skylake", 1, at("5.15"));
    let mut attr = host.counting("instructions");
    attr.disabled = true;
    let event = host.open(attr, Target::Cpu(CPU));
    assert_eq!(host.state(event), EventState::Off);
    host.perf.enable(&mut host.hw, event).unwrap();
    assert_eq!(host.state(event), EventState::Active);
    host.perf.disable(&mut host.hw, event).unwrap();
    assert_eq!(host.state(event), EventState::Off);
    host.perf.disable(&mut host.hw, event).unwrap();
}

#[test]
fn counters_count_and_are_read_while_on() {
    let mut host = Host::new("skylake", 1, at("5.15"));
    let event = host.open(host.counting("branches"), Target::Cpu(CPU));
    let instructions = host.open(host.counting("instructions"), Target::Cpu(CPU));
    // Branches have no fixed counter, instructions have.
    assert_eq!(host.perf.event(event).unwrap().index(), 0);
    assert_eq!(host.perf.event(instructions).unwrap().index(), 32);
    for n in 0..5 {
        host.jump(0x40_0000 + n, 0x40_1000);
    }
    assert_eq!(host.perf.read(&host.hw, event), Ok(Some(5)));
    assert_eq!(host.perf.read(&host.hw, instructions), Ok(Some(5)));
    host.perf.disable(&mut host.hw, event).unwrap();
    host.jump(0x40_0000, 0x40_1000);
    assert_eq!(host.perf.read(&host.hw, event), Ok(Some(5)));
    assert_eq!(host.perf.event(event).unwrap().count(), 5);
}

#[test]
fn a_level_that_is_excluded_is_not_counted() {
    let mut host = Host::new("skylake", 1, at("6.8"));
    let mut attr = host.counting("instructions");
    attr.exclude_user = true;
    let event = host.open(attr, Target::Cpu(CPU));
    host.jump(0x40_0000, 0x40_1000);
    assert_eq!(host.perf.read(&host.hw, event), Ok(Some(0)));
}

#[test]
fn a_virtual_event_has_index_58_and_owns_the_lbr() {
    let mut host = Host::new("skylake", 1, at("6.8"));
    host.switch(CPU, A);
    let event = host.open_as(Creator::Kvm, EventAttr::VIRTUAL_GUEST_LBR, Target::Task(A));
    assert_eq!(host.perf.event(event).unwrap().index(), 58);
    assert!(host.perf.guest_owns_lbr(CPU));
    // Bit 58 is no counter's: GLOBAL_CTRL lacks it on both sides.
    let pairs: Vec<_> = host.perf.guest_msrs(CPU).collect();
    assert!(
        pairs
            .iter()
            .all(|pair| pair.guest >> 58 & 1 == 0 && pair.host >> 58 & 1 == 0)
    );
    host.switch(CPU, IDLE);
    assert!(!host.perf.guest_owns_lbr(CPU));
    // Before 5.9 nobody knows it.
    let mut old = Host::new("skylake", 1, at("5.4"));
    let refused = old.perf.open(
        &mut old.hw,
        EventAttr::VIRTUAL_GUEST_LBR,
        Target::Task(A),
        Creator::Kvm,
        None,
    );
    assert_eq!(refused, Err(Errno::EINVAL));
}

#[test]
fn a_v8_event_has_no_counter() {
    let mut host = Host::new("haswell", 1, Behaviour::v8());
    host.switch(CPU, A);
    let event = host.open_as(Creator::Kvm, EventAttr::V8_GUEST_LBR, Target::Task(A));
    let seen = host.perf.event(event).unwrap();
    assert_eq!((seen.index(), seen.state()), (-1, EventState::Active));
    assert_eq!(seen.branch_config(), Some(0x3c5 | 1 << 62));
    assert!(host.perf.guest_owns_lbr(CPU) && host.perf.lbr_cpu(CPU).vcpu_lbr());
    // Every counter is free, but one place less: scenario 93.
    let opened: Vec<_> = (0..7)
        .map(|_| host.open(host.counting("branches"), Target::Cpu(CPU)))
        .collect();
    let on = opened
        .iter()
        .filter(|id| host.state(**id) == EventState::Active);
    assert_eq!(
        on.count(),
        4,
        "Haswell with HT has four general-purpose counters"
    );
    host.release(event);
    assert!(!host.perf.guest_owns_lbr(CPU));
}

#[test]
fn pairs_for_vm_entry_leave_out_what_is_excluded() {
    let mut host = Host::new("skylake", 1, at("5.15"));
    let mut attr = host.counting("branches");
    attr.exclude_guest = true;
    host.open(attr, Target::Cpu(CPU));
    attr.exclude_guest = false;
    attr.exclude_host = true;
    host.open(attr, Target::Cpu(CPU));
    let pairs: Vec<_> = host.perf.guest_msrs(CPU).collect();
    assert_eq!(pairs.len(), 1);
    let (all, pair) = (0x7_0000_000f, pairs[0]);
    assert_eq!((pair.host, pair.guest), (all & !2, all & !1));
    let isolated = Behaviour {
        pebs_isolated: false,
        ..at("5.15")
    };
    let host = Host::new("skylake", 1, isolated);
    let names: Vec<String> = host
        .perf
        .guest_msrs(CPU)
        .map(|p| p.msr.to_string())
        .collect();
    assert_eq!(names, ["IA32_PERF_GLOBAL_CTRL", "IA32_PEBS_ENABLE"]);
}

#[test]
fn a_copy_of_the_state_is_equal_and_goes_its_own_way() {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    fn hash(perf: &Perf) -> u64 {
        let mut hasher = DefaultHasher::new();
        perf.hash(&mut hasher);
        hasher.finish()
    }
    let mut host = Host::new("skylake", 1, at("6.8"));
    host.open(host.lbr("any,u"), Target::Cpu(CPU));
    let mut copy = host.clone();
    assert_eq!(host.perf, copy.perf);
    host.switch(CPU, A);
    assert_ne!(host.perf, copy.perf);
    copy.switch(CPU, A);
    assert_eq!(host.perf, copy.perf);
    assert_eq!(hash(&host.perf), hash(&copy.perf));
    assert_eq!(host.hw.ledger(), copy.hw.ledger());
}

#[test]
fn a_child_inherits_and_gives_its_count_back() {
    let mut host = Host::new("skylake", 1, at("6.8"));
    host.switch(CPU, A);
    let mut attr = host.counting("branches");
    attr.inherit = true;
    let event = host.open(attr, Target::Task(A));
    host.perf.fork(A, B);
    assert_eq!(host.perf.events().len(), 2);
    host.jump(0x40_0000, 0x40_1000);
    host.switch(CPU, B);
    host.jump(0x40_0000, 0x40_1000);
    host.jump(0x40_0000, 0x40_1000);
    host.switch(CPU, IDLE);
    host.perf.exit(&mut host.hw, B);
    // The two are clones, so the event that was opened went on with B and ended with it; A has the
    // copy. A read sums both.
    assert_eq!(host.state(event), EventState::Exit);
    assert_eq!(host.perf.read(&host.hw, event), Ok(Some(3)));
    host.switch(CPU, A);
    host.jump(0x40_0000, 0x40_1000);
    assert_eq!(host.perf.read(&host.hw, event), Ok(Some(4)));
    host.perf.exit(&mut host.hw, A);
    assert_eq!(host.perf.events().len(), 1);
    assert_eq!(host.perf.event(event).unwrap().count(), 4);
    host.release(event);
}

#[test]
fn freezing_in_smm_is_the_default_from_5_17() {
    use vlbr_arch::{DebugCtl, Msr};
    for (version, frozen) in [
        ("5.4", false),
        ("5.15", false),
        ("5.15.85", true),
        ("5.17", true),
    ] {
        let mut host = Host::new("skylake", 1, at(version));
        host.perf = Perf::boot(at(version), &mut host.hw);
        let value = DebugCtl::from_bits(host.msr(Msr::DEBUGCTL));
        assert_eq!(
            value.contains(DebugCtl::FREEZE_WHILE_SMM),
            frozen,
            "{version}"
        );
        assert_eq!(
            value.bits() & !DebugCtl::FREEZE_WHILE_SMM.bits(),
            0,
            "{version}"
        );
    }
}

#[test]
fn the_probe_of_a_host_that_is_a_guest_finds_an_lbr_that_works() {
    let behaviour = Behaviour {
        under_hypervisor: true,
        ..at("5.15")
    };
    let mut host = Host::new("skylake", 1, behaviour);
    let booted = |host: &mut Host| Perf::boot(behaviour, &mut host.hw);
    let (perf, (reads, _)) = host.cost(Actor::Host, booted);
    assert_eq!(perf.lbr_model().nr(), 32);
    // TOS, 64 addresses and LBR_SELECT, each twice, and DEBUGCTL.
    assert_eq!(reads, 2 * 66 + 1);
}

#[test]
fn select_is_never_saved_before_the_virtual_event() {
    assert_eq!(at("5.4").select_save, SelectSave::Never);
    assert_eq!(Behaviour::v8().select_save, SelectSave::GuestOwns);
    assert!(!at("5.13").select_flag_propagates && at("5.15.85").select_flag_propagates);
}

#[test]
fn an_event_of_software_is_always_on() {
    let mut host = Host::new("skylake", 1, at("6.8"));
    let mut exclusive = host.counting("branches");
    exclusive.exclusive = true;
    exclusive.pinned = true;
    host.open(exclusive, Target::Cpu(CPU));
    let software = host.open(EventAttr::counting(EventKind::Software), Target::Cpu(CPU));
    let hardware = host.open(host.counting("branches"), Target::Cpu(CPU));
    assert_eq!(host.state(software), EventState::Active);
    assert_eq!(host.state(hardware), EventState::Inactive);
}
