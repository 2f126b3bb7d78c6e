//! The PMI handler, by version of the PMU.

use vlbr_arch::{DebugCtl, Msr, PerfGlobalStatus};
use vlbr_cpu::ledger::Actor;
use vlbr_host::perf::{Behaviour, Creator, EventAttr, EventId, NoCode, PmiSample, Target};
use vlbr_host::{Owner, TaskId};
use vlbr_pmu::Interrupt;

use crate::common::{A, CPU, Host, at};

const FREEZE: DebugCtl = DebugCtl::FREEZE_LBRS_ON_PMI;

/// An LBR event of the processor that overflows at its third branch.
fn sampling(part: &str, version: &str, filter: &str) -> (Host, EventId) {
    let mut host = Host::new(part, 1, at(version));
    let attr = EventAttr {
        period: 3,
        ..host.lbr(filter)
    };
    let event = host.open(attr, Target::Cpu(CPU));
    (host, event)
}

fn overflow(host: &mut Host) {
    for n in 0..3 {
        let retired = host.jump(0x40_0000 + n * 16, 0x40_1000);
        assert_eq!(retired.counted.pmi.is_some(), n == 2);
    }
    let interrupt = host.hw.cpu_mut(CPU).logical_mut().deliver();
    assert_eq!(interrupt, Some(Interrupt::Nmi));
}

fn handle(host: &mut Host) -> Vec<PmiSample> {
    host.perf.pmi(&mut host.hw, CPU, &NoCode)
}

#[test]
fn version_3_is_frozen_by_the_pmi_and_switched_on_again() {
    // Scenario 67.
    let (mut host, event) = sampling("haswell", "5.15", "any,u,k");
    let recording = DebugCtl::from_bits(host.msr(Msr::DEBUGCTL));
    assert!(recording.contains(DebugCtl::LBR | FREEZE));
    overflow(&mut host);
    let frozen = DebugCtl::from_bits(host.msr(Msr::DEBUGCTL));
    assert!(!frozen.contains(DebugCtl::LBR));
    let tos = host.msr(Msr::LASTBRANCH_TOS);
    host.jump(0xffff_ffff_8100_0000, 0xffff_ffff_8100_0100);
    assert_eq!(
        host.msr(Msr::LASTBRANCH_TOS),
        tos,
        "the handler's branches are not recorded"
    );
    let control = |by, msr| by == Actor::HostPmi && [Msr::LBR_SELECT, Msr::DEBUGCTL].contains(&msr);
    let (samples, cost) = host.cost_of(control, handle);
    assert_eq!(cost, (1, 1), "DEBUGCTL read and written, LBR_SELECT not");
    assert!(DebugCtl::from_bits(host.msr(Msr::DEBUGCTL)).contains(DebugCtl::LBR));
    assert_eq!(samples.len(), 1);
    assert_eq!(
        (samples[0].event, samples[0].period, samples[0].stale),
        (event, 3, false)
    );
    let stack = samples[0].branches.as_ref().unwrap();
    assert_eq!(
        stack.records.len(),
        16,
        "everything is wanted, so that no filter runs"
    );
    assert_eq!(stack.records[0].from.value, 0x40_0020);
    assert_eq!(stack.hw_idx, Some(tos));
    // The handler's branch was counted before its counters stopped: the next period has two left.
    assert!(host.jump(0x40_0000, 0x40_1000).counted.pmi.is_none());
    assert!(host.jump(0x40_0000, 0x40_1000).counted.pmi.is_some());
    assert_eq!(handle(&mut host).len(), 1);
    assert_eq!(host.perf.event(event).unwrap().count(), 6);
    assert_eq!(host.perf.unchecked_msr_faults(), 0);
}

#[test]
fn version_4_is_unfrozen_by_the_acknowledgement() {
    // Scenario 68.
    let (mut host, _) = sampling("skylake", "5.15", "any,u,k");
    overflow(&mut host);
    let status = PerfGlobalStatus::from_bits(host.msr(Msr::PERF_GLOBAL_STATUS));
    assert!(status.contains(PerfGlobalStatus::LBR_FRZ));
    let debugctl = host.msr(Msr::DEBUGCTL);
    let touched = |by, msr| by == Actor::HostPmi && [Msr::LBR_SELECT, Msr::DEBUGCTL].contains(&msr);
    let (samples, cost) = host.cost_of(touched, handle);
    assert_eq!((samples.len(), cost), (1, (0, 0)));
    assert_eq!(host.msr(Msr::DEBUGCTL), debugctl);
    assert_eq!(host.msr(Msr::PERF_GLOBAL_STATUS), 0);
    let tos = host.msr(Msr::LASTBRANCH_TOS);
    host.jump(0x40_0000, 0x40_1000);
    assert_ne!(host.msr(Msr::LASTBRANCH_TOS), tos, "it records again");
}

#[test]
fn a_call_stack_is_not_frozen() {
    // Scenario 69.
    let (host, _) = sampling("haswell", "5.15", "stack,u");
    let value = DebugCtl::from_bits(host.msr(Msr::DEBUGCTL));
    assert!(value.contains(DebugCtl::LBR) && !value.contains(FREEZE));
    // 5.4 leaves what it finds, later kernels clear it.
    for (version, kept) in [("5.4", true), ("5.15", false)] {
        let mut host = Host::new("haswell", 1, at(version));
        let frozen = vlbr_host::Owned::new(FREEZE.bits(), Owner::Kernel);
        host.hw
            .wrmsr(CPU, Actor::Guest, Msr::DEBUGCTL, frozen)
            .unwrap();
        host.open(host.lbr("stack,u"), Target::Cpu(CPU));
        let value = DebugCtl::from_bits(host.msr(Msr::DEBUGCTL));
        assert_eq!(value.contains(FREEZE), kept, "{version}");
    }
}

#[test]
fn while_the_guest_owns_the_lbr_the_host_leaves_it_alone() {
    // Scenario 70.
    for (behaviour, attr) in [
        (Behaviour::v8(), EventAttr::V8_GUEST_LBR),
        (at("5.15.85"), EventAttr::VIRTUAL_GUEST_LBR),
    ] {
        let mut host = Host::new("skylake", 1, behaviour);
        host.switch(CPU, A);
        host.open_as(Creator::Kvm, attr, Target::Task(A));
        let mut counting = host.counting("branches");
        counting.period = 3;
        host.open(counting, Target::Cpu(CPU));
        host.fill(3, 32, Owner::Task(A));
        overflow(&mut host);
        let msrs = *host.hw.cpu(CPU).lbr_msrs();
        let lbr = move |_, msr| msrs.register(msr).is_some();
        let (samples, cost) = host.cost_of(lbr, handle);
        assert_eq!((samples.len(), cost), (1, (0, 0)), "{attr:?}");
        assert_eq!(samples[0].branches, None);
    }
}

#[test]
fn a_host_event_beside_the_guest_repeats_the_last_stack() {
    // Scenario 39: its stack was stored before the guest came.
    let mut host = Host::new("skylake", 1, at("5.15.85"));
    host.switch(CPU, A);
    let attr = EventAttr {
        pinned: true,
        period: 3,
        ..host.lbr("any,u,k")
    };
    host.open(attr, Target::Cpu(CPU));
    overflow(&mut host);
    let first = handle(&mut host);
    assert!(!first[0].stale);
    host.open_as(Creator::Kvm, EventAttr::VIRTUAL_GUEST_LBR, Target::Task(A));
    host.fill(9, 32, Owner::Task(TaskId(77)));
    overflow(&mut host);
    let second = handle(&mut host);
    assert!(second[0].stale);
    assert_eq!(second[0].branches, first[0].branches);
}

#[test]
fn events_of_one_round_share_one_stack() {
    let (mut host, first) = sampling("skylake", "6.8", "any,u,k");
    let attr = EventAttr {
        period: 3,
        ..host.lbr("any,u,k")
    };
    let second = host.open(attr, Target::Cpu(CPU));
    let tos = |by, msr| by == Actor::HostPmi && msr == Msr::LASTBRANCH_TOS;
    overflow(&mut host);
    let (samples, cost) = host.cost_of(tos, handle);
    assert_eq!(cost, (1, 0));
    let events: Vec<EventId> = samples.iter().map(|sample| sample.event).collect();
    assert_eq!(events, [first, second]);
    assert_eq!(samples[0].branches, samples[1].branches);
}

#[test]
fn a_pmi_of_nobody_reads_the_status_and_leaves() {
    let (mut host, _) = sampling("skylake", "6.8", "any,u");
    let (samples, cost) = host.cost(Actor::HostPmi, handle);
    assert!(samples.is_empty());
    // GLOBAL_STATUS; GLOBAL_CTRL off and on.
    assert_eq!(cost, (1, 2));
}

#[test]
fn counters_that_freeze_acknowledge_last() {
    let behaviour = Behaviour {
        counter_freezing: true,
        ..at("5.4")
    };
    let mut host = Host::new("skylake", 1, behaviour);
    host.perf = vlbr_host::perf::Perf::boot(behaviour, &mut host.hw);
    host.perf.task_sched_in(&mut host.hw, CPU, A, A);
    let attr = EventAttr {
        period: 3,
        ..host.lbr("any,u,k")
    };
    host.open(attr, Target::Cpu(CPU));
    overflow(&mut host);
    let global = |_, msr| msr == Msr::PERF_GLOBAL_CTRL;
    let (samples, cost) = host.cost_of(global, handle);
    assert_eq!(
        (samples.len(), cost),
        (1, (0, 0)),
        "the hardware stops and starts the counters"
    );
    assert_eq!(host.msr(Msr::PERF_GLOBAL_STATUS), 0);
}

#[test]
fn adaptive_pebs_stores_the_lbr_whoever_owns_it() {
    let mut host = Host::new("ice-lake", 1, at("5.15.85"));
    host.switch(CPU, A);
    let attr = EventAttr {
        precise_ip: 1,
        ..host.lbr("any,u,k")
    };
    let event = host.open(attr, Target::Cpu(CPU));
    assert_eq!(host.perf.lbr_cpu(CPU).pebs_users(), 1);
    // Every user's stack comes with its records: the PMI does not read the LBR.
    let (_, cost) = host.cost_of(|_, msr| msr == Msr::LASTBRANCH_TOS, handle);
    assert_eq!(cost, (0, 0));
    host.open_as(Creator::Kvm, EventAttr::VIRTUAL_GUEST_LBR, Target::Task(A));
    assert!(host.perf.guest_owns_lbr(CPU));
    let guest = Owner::Guest(vlbr_host::VcpuId(0));
    host.fill(3, 32, guest);
    // The guest's event was added last or the host's: br_sel is the host's, which wants all.
    let record = |host: &mut Host| host.perf.pebs_record(&host.hw, CPU, event, &NoCode);
    let (sample, cost) = host.cost_of(|_, _| true, record);
    assert_eq!(cost, (0, 0), "no MSR is accessed");
    let stack = sample.unwrap().branches.unwrap();
    assert_eq!(stack.records.len(), 32);
    assert!(
        stack
            .records
            .iter()
            .all(|record| record.from.owner == guest)
    );
    // Without adaptive PEBS there are no such records.
    let mut old = Host::new("haswell", 1, at("5.15.85"));
    let event = old.open(old.lbr("any,u"), Target::Cpu(CPU));
    assert_eq!(old.perf.pebs_record(&old.hw, CPU, event, &NoCode), None);
}
