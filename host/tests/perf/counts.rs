//! Counts of MSR accesses, against the closed forms.

use proptest::prelude::*;
use vlbr_arch::Msr;
use vlbr_cpu::ledger::Actor;
use vlbr_host::Owner;
use vlbr_host::hardware::LbrMsrs;
use vlbr_host::perf::{Behaviour, Creator, EventAttr, NoCode, Target};

use crate::common::{A, B, CPU, Counts, Host, IDLE, OTHER_CPU, at};

/// Parts with call-stack mode: N, E with format 5, and with formats 5 and 7.
const PARTS: [(&str, u64, u64, u64); 5] = [
    ("haswell", 16, 2, 2),
    ("broadwell", 16, 2, 2),
    ("skylake", 32, 3, 3),
    ("goldmont", 32, 2, 2),
    ("goldmont-plus", 32, 2, 3),
];

/// What happens between leaving and returning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    Nothing,
    KernelThread,
    OtherUser,
    DeepCState,
    OtherCpu,
}

fn between() -> impl Strategy<Value = Between> {
    prop_oneof![
        Just(Between::Nothing),
        Just(Between::KernelThread),
        Just(Between::OtherUser),
        Just(Between::DeepCState),
        Just(Between::OtherCpu),
    ]
}

/// Whose stack it is.
#[derive(Clone, Copy, Debug)]
enum Who {
    Host,
    V8,
    Virtual,
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![Just(Who::Host), Just(Who::V8), Just(Who::Virtual)]
}

fn lbr_cost(host: &mut Host, actor: Actor, operation: impl FnOnce(&mut Host)) -> Counts {
    let msrs: LbrMsrs = *host.hw.cpu(CPU).lbr_msrs();
    let chosen = move |by, msr| by == actor && msrs.register(msr).is_some();
    host.cost_of(chosen, operation).1
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn saving_and_restoring_cost_what_the_closed_forms_say(
        part in prop::sample::select(&PARTS[..]),
        who in who(),
        recent in any::<bool>(),
        steps in prop::collection::vec((0u32..=32, between()), 1..5),
    ) {
        let (name, n, old, new) = part;
        let behaviour = match who {
            Who::V8 => Behaviour::v8(),
            Who::Host | Who::Virtual if recent => at("6.8"),
            Who::Host | Who::Virtual => at("5.15.85"),
        };
        let recent = recent && !matches!(who, Who::V8);
        let e = if recent { new } else { old };
        // SELECT is saved and restored for guests.
        let select = u64::from(!matches!(who, Who::Host));
        // The stable kernel took the flag and not the write of 0.
        let cleared = u64::from(recent && matches!(who, Who::Virtual));
        let mut host = Host::new(name, 2, behaviour);
        host.switch(CPU, A);
        let create = |host: &mut Host| {
            let attr = host.lbr("stack,u");
            match who {
                Who::Host => host.open(attr, Target::Task(A)),
                Who::V8 => host.open_as(Creator::Kvm, EventAttr::V8_GUEST_LBR, Target::Task(A)),
                Who::Virtual => {
                    host.open_as(Creator::Kvm, EventAttr::VIRTUAL_GUEST_LBR, Target::Task(A))
                }
            };
        };
        prop_assert_eq!(lbr_cost(&mut host, Actor::HostReset, create), (0, n * e + cleared));
        let rival = host.lbr("any,u");
        host.open(rival, Target::Task(B));
        for (valid, between) in steps {
            let valid = u64::from(valid).min(n);
            host.fill(5, valid as u32, Owner::Task(A));
            let saved = 1 + valid * e + u64::from(valid < n) + select;
            let next = if between == Between::OtherUser { B } else { IDLE };
            let leave = |host: &mut Host| host.switch(CPU, next);
            prop_assert_eq!(lbr_cost(&mut host, Actor::HostSave, leave), (saved, 0));
            match between {
                Between::Nothing | Between::OtherUser => {}
                Between::KernelThread => host.switch(CPU, vlbr_host::TaskId(50)),
                Between::DeepCState => host.hw.cpu_mut(CPU).deep_c_state(),
                Between::OtherCpu => {
                    host.switch(OTHER_CPU, A);
                    host.switch(OTHER_CPU, IDLE);
                }
            }
            // The pair matches unless somebody saved or the stack was saved elsewhere.
            let matched = !matches!(between, Between::OtherUser | Between::OtherCpu);
            let tested = u64::from(matched);
            let kept = matched && valid != 0 && between != Between::DeepCState;
            let written = if kept { 0 } else { n * e + 1 + select };
            let before = host.froms();
            let enter = |host: &mut Host| host.switch(CPU, A);
            let cost = lbr_cost(&mut host, Actor::HostRestore, enter);
            prop_assert_eq!(cost, (tested, written), "{:?}", between);
            prop_assert!(!kept || host.froms() == before);
            let full = host.froms().iter().take_while(|from| from.value != 0).count();
            prop_assert_eq!(full as u64, valid);
        }
        let events: Vec<_> = host.perf.events().map(|(id, _)| id).collect();
        for event in events {
            host.release(event);
        }
        for cpu in [CPU, OTHER_CPU] {
            prop_assert_eq!(host.perf.lbr_cpu(cpu).users(), 0);
            prop_assert_eq!(host.perf.shared_slot(cpu).refs, 0);
            prop_assert!(!host.perf.guest_owns_lbr(cpu));
        }
        prop_assert_eq!(host.perf.unchecked_msr_faults(), 0);
    }

    #[test]
    fn reading_for_a_sample_costs_what_the_closed_forms_say(
        part in prop::sample::select(&PARTS[..]),
        call_stack in any::<bool>(),
        valid in 0u32..=32,
    ) {
        let (name, n, _, e) = part;
        let valid = u64::from(valid).min(n);
        let mut host = Host::new(name, 1, at("6.8"));
        let filter = if call_stack { "stack,u" } else { "any,u,k" };
        let attr = EventAttr { period: 2, ..host.lbr(filter) };
        host.open(attr, Target::Cpu(CPU));
        host.fill(5, valid as u32, Owner::Kernel);
        let off = vlbr_host::Owned::new(0, Owner::Kernel);
        host.hw.wrmsr(CPU, Actor::Guest, Msr::DEBUGCTL, off).unwrap();
        host.jump(0x50_0000, 0x50_0000);
        host.jump(0x50_0000, 0x50_0000);
        let msrs = *host.hw.cpu(CPU).lbr_msrs();
        let chosen = move |by, msr| {
            let control = [Msr::DEBUGCTL, Msr::LBR_SELECT].contains(&msr);
            by == Actor::HostPmi && msrs.register(msr).is_some() && !control
        };
        let handle = |host: &mut Host| host.perf.pmi(&mut host.hw, CPU, &NoCode).len();
        let (samples, cost) = host.cost_of(chosen, handle);
        prop_assert_eq!(samples, 1);
        let reads = if call_stack {
            1 + valid * e + 2 * u64::from(valid < n)
        } else {
            1 + n * e
        };
        prop_assert_eq!(cost, (reads, 0));
    }
}

#[test]
fn brackets_cost_two_writes_of_global_ctrl_and_the_lbrs_switches() {
    // Host enable: SELECT, and DEBUGCTL read and written; host disable: DEBUGCTL read and written.
    let mut host = Host::new("skylake", 1, at("5.15.85"));
    host.open(host.lbr("any,u"), Target::Cpu(CPU));
    let control = |by, msr: Msr| {
        by == Actor::Host && [Msr::DEBUGCTL, Msr::LBR_SELECT, Msr::PERF_GLOBAL_CTRL].contains(&msr)
    };
    // Out and in of a task without a context: a bracket each.
    let ((), cost) = host.cost_of(control, |host| host.switch(CPU, A));
    assert_eq!(cost, (4, 2 * (2 + 1 + 2)));
    // While a guest owns the LBR nothing of it is switched.
    host.open_as(Creator::Kvm, EventAttr::VIRTUAL_GUEST_LBR, Target::Cpu(CPU));
    let ((), cost) = host.cost_of(control, |host| host.switch(CPU, B));
    assert_eq!(cost, (0, 4));
}

#[test]
fn creating_costs_a_reset_only_without_another_user() {
    let mut host = Host::new("skylake", 1, at("5.15.85"));
    host.switch(CPU, A);
    host.open(host.pinned_lbr("any,u"), Target::Cpu(CPU));
    let create = |host: &mut Host| {
        host.open_as(Creator::Kvm, EventAttr::VIRTUAL_GUEST_LBR, Target::Task(A));
    };
    assert_eq!(lbr_cost(&mut host, Actor::HostReset, create), (0, 0));
}

#[test]
fn a_save_without_call_stack_users_costs_nothing() {
    let mut host = Host::new("skylake", 1, at("5.15.85"));
    host.switch(CPU, A);
    let stack = host.open(host.lbr("stack,u"), Target::Task(A));
    host.open(host.lbr("any,u"), Target::Cpu(CPU));
    host.perf.disable(&mut host.hw, stack).unwrap();
    host.fill(3, 32, Owner::Task(A));
    let leave = |host: &mut Host| host.switch(CPU, IDLE);
    assert_eq!(lbr_cost(&mut host, Actor::HostSave, leave), (0, 0));
}
