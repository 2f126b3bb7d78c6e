//! Events of perf on the model's processors: opened, placed, switched with their tasks, released.

use vlbr_cpu::ledger::{Actor, Event as Access};
use vlbr_cpu::processor::Options;
use vlbr_host::hardware::Hardware;
use vlbr_host::perf::{
    Behaviour, Creator, EventAttr, EventKind, EventState, KernelVersion, Perf, Target,
    parse_branch_filter,
};
use vlbr_host::{CpuId, TaskId};

const CPU: CpuId = CpuId(0);
const IDLE: TaskId = TaskId(0);
const TASK: TaskId = TaskId(1);

fn hardware(part: &str, cpus: usize) -> Hardware {
    Hardware::new(part, cpus, &Options::default()).unwrap()
}

fn at(version: &str) -> Behaviour {
    Behaviour::of(version.parse().unwrap())
}

fn accesses(hw: &Hardware, actor: Actor) -> (u64, u64) {
    let ledger = hw.ledger();
    let reads = ledger.total(|by, what| by == actor && matches!(what, Access::Rdmsr(_)));
    let writes = ledger.total(|by, what| by == actor && matches!(what, Access::Wrmsr(_)));
    (reads, writes)
}

fn call_stack() -> EventAttr {
    let spec = hardware("skylake", 1).cpu(CPU).logical().pmu().clone();
    let profile = vlbr_pmu::Device::profile(&spec);
    let spec = profile
        .parse_event("branches:u", &vlbr_pmu::Options::default())
        .unwrap();
    let filter = parse_branch_filter("stack,u").unwrap();
    EventAttr::sampling(&spec, 1000, Some(filter))
}

#[test]
fn a_call_stack_follows_its_task() {
    let mut hw = hardware("skylake", 1);
    let mut perf = Perf::new(at("5.15.85"), &hw);
    perf.task_sched_in(&mut hw, CPU, TASK, IDLE);
    let id = perf
        .open(
            &mut hw,
            call_stack(),
            Target::Task(TASK),
            Creator::User,
            None,
        )
        .unwrap();
    let event = perf.event(id).unwrap();
    assert_eq!(
        (event.state(), event.oncpu()),
        (EventState::Active, Some(CPU))
    );
    // The first user: every entry is zeroed.
    assert_eq!(accesses(&hw, Actor::HostReset), (0, 96));
    perf.task_sched_out(&mut hw, CPU, TASK, IDLE);
    perf.task_sched_in(&mut hw, CPU, IDLE, TASK);
    let event = perf.event(id).unwrap();
    assert_eq!((event.state(), event.oncpu()), (EventState::Inactive, None));
    // TOS and the FROM that is 0.
    assert_eq!(accesses(&hw, Actor::HostSave), (2, 0));
    perf.task_sched_out(&mut hw, CPU, IDLE, TASK);
    perf.task_sched_in(&mut hw, CPU, TASK, IDLE);
    assert_eq!(perf.event(id).unwrap().state(), EventState::Active);
    perf.release(&mut hw, id).unwrap();
    assert_eq!(perf.lbr_cpu(CPU).users(), 0);
    assert_eq!(perf.shared_slot(CPU).refs, 0);
    assert!(perf.event(id).is_none());
    assert_eq!(perf.unchecked_msr_faults(), 0);
}

#[test]
fn a_virtual_event_takes_no_counter_and_owns_the_lbr() {
    let mut hw = hardware("skylake", 1);
    let mut perf = Perf::new(Behaviour::of(KernelVersion::new(6, 8, 0)), &hw);
    perf.task_sched_in(&mut hw, CPU, TASK, IDLE);
    let attr = EventAttr::VIRTUAL_GUEST_LBR;
    let id = perf
        .open(&mut hw, attr, Target::Task(TASK), Creator::Kvm, None)
        .unwrap();
    assert_eq!(perf.event(id).unwrap().index(), 58);
    assert!(perf.guest_owns_lbr(CPU));
    perf.task_sched_out(&mut hw, CPU, TASK, IDLE);
    assert!(!perf.guest_owns_lbr(CPU));
    let software = EventAttr::counting(EventKind::Software);
    let alone = perf.open(&mut hw, software, Target::Cpu(CPU), Creator::User, None);
    assert_eq!(
        perf.event(alone.unwrap()).unwrap().state(),
        EventState::Active
    );
}
