//! `mediated-lazy`: what it does to the LBR of a processor and to perf's events, and that it breaks
//! no rule whatever happens.

use std::sync::Arc;

use proptest::prelude::*;
use vlbr_arch::vmx::ExitReason;
use vlbr_arch::{BranchClass, Cpl, Cycles, Msr, Transfer};
use vlbr_cpu::ledger::{Event, Ledger};
use vlbr_cpu::processor::Options;
use vlbr_host::kvm::{ExitLevel, GuestCpu, KvmBehaviour, Note, Place};
use vlbr_host::machine::{
    Carried, Checking, ExitCause, FastPath, HostConfig, Input, Machine, Output,
};
use vlbr_host::perf::{
    Behaviour, Creator, EventAttr, EventId, EventState, Target, parse_branch_filter,
};
use vlbr_host::policy::Catalog;
use vlbr_host::{CpuId, TaskId, VcpuId};
use vlbr_lbr::Profile;
use vlbr_pmu::{Increments, SourceSet};

const CPU: CpuId = CpuId(0);
const OTHER: CpuId = CpuId(1);
const ONE: VcpuId = VcpuId(0);
const TWO: VcpuId = VcpuId(1);
/// N * E + 2 of Skylake.
const WHOLE: u64 = 98;
/// N * E.
const RECORDS: u64 = 96;

/// Two vCPUs, whose threads are tasks 0 and 1, and task 2 on two processors.
fn machine(part: &str) -> Machine {
    let policy = Catalog::builtin().named("mediated-lazy").unwrap();
    let kernel = policy.kernel().unwrap();
    let mut behaviour = Behaviour::of(kernel);
    policy.adjust(&mut behaviour);
    let mut options = Options::default();
    options.pmu.feeds = SourceSet::ALL;
    let config = HostConfig {
        part: part.to_owned(),
        cpus: 2,
        options,
        behaviour,
        kvm: KvmBehaviour::of(kernel),
        ignore_msrs: false,
    };
    let mut machine = Machine::new(&config, Arc::clone(&policy), Checking::On).unwrap();
    for _ in 0..2 {
        let vm = machine.add_vm();
        let guest = GuestCpu {
            model: Profile::named(part).unwrap().models()[0],
            pdcm: true,
            pmu_version: 2,
            gp_counters: 4,
            fixed_counters: 3,
            arch_lbr_ebx: 0,
        };
        machine.add_vcpu(vm, guest).unwrap();
    }
    machine.add_task("task", false);
    machine
}

/// The filter of events that do not compete.
const FILTER: &str = "any,u,k";

fn lbr_event(part: &str, pinned: bool, target: Target, (period, filter): (u64, &str)) -> Input {
    let pmu = vlbr_pmu::Profile::named(part).unwrap();
    let options = vlbr_pmu::Options::default();
    let spec = pmu.parse_event("instructions", &options).unwrap();
    let filter = parse_branch_filter(filter).unwrap();
    let mut attr = EventAttr::sampling(&spec, period, Some(filter));
    attr.pinned = pinned;
    Input::Open(Box::new(attr), target, Creator::User, None)
}

fn branch(cpu: CpuId, at: u64, cpl: Cpl) -> Input {
    let transfer = Transfer::near(BranchClass::NearRelJmp, at, at + 0x100, cpl);
    let mut run = Increments::instruction(cpl);
    run.add_branch(BranchClass::NearRelJmp, true, false, cpl);
    Input::Retire(cpu, Box::new((run, Some(transfer))), Cycles::new(at))
}

fn write(vcpu: VcpuId, msr: Msr, value: u64) -> Input {
    Input::GuestWrite(vcpu, msr, value, Cpl::Ring0)
}

fn read(vcpu: VcpuId, msr: Msr) -> Input {
    Input::GuestRead(vcpu, msr, Cpl::Ring0)
}

/// Skylake, and inputs that are all taken.
struct Bench(Machine);

impl Bench {
    fn new() -> Self {
        Self(machine("skylake"))
    }

    fn apply(&mut self, input: &Input) -> Output {
        self.0.apply(input).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The vCPU's thread gets a processor and enters the guest.
    fn enter(&mut self, cpu: CpuId, vcpu: VcpuId) {
        let thread = self.0.host().vcpu(vcpu).thread;
        self.apply(&Input::Switch(cpu, Some(thread)));
        if self.0.host().vcpu(vcpu).place == Place::UserSpace {
            self.apply(&Input::Run(vcpu));
        }
        self.apply(&Input::Enter(vcpu, FastPath::No));
    }

    fn guest_branches(&mut self, cpu: CpuId, count: u64) {
        for n in 0..count {
            self.apply(&branch(cpu, 0x40_0000 + 0x200 * n, Cpl::Ring3));
        }
    }

    fn event(&mut self, pinned: bool, target: Target) -> EventId {
        match self.apply(&lbr_event("skylake", pinned, target, (1 << 20, FILTER))) {
            Output::Event(event) => event,
            other => panic!("{other:?}"),
        }
    }

    fn state(&self, event: EventId) -> EventState {
        self.0.host().perf().event(event).unwrap().state()
    }

    /// RDMSR and WRMSR of records, TOS and SELECT by the host, in this order.
    fn moved(&self) -> (u64, u64) {
        let msrs = *self.0.host().lbr_msrs();
        let of_stack = move |msr| msr != Msr::DEBUGCTL && msrs.register(msr).is_some();
        let ledger = self.0.ledger();
        let guest = vlbr_cpu::ledger::Actor::Guest;
        let total = |of: &dyn Fn(Event) -> bool| ledger.total(|by, what| by != guest && of(what));
        (
            total(&|event| matches!(event, Event::Rdmsr(msr) if of_stack(msr))),
            total(&|event| matches!(event, Event::Wrmsr(msr) if of_stack(msr))),
        )
    }

    fn clean(&self) {
        let findings = self.0.findings();
        assert!(findings.is_empty(), "{:?}", findings.violations());
    }
}

#[test]
fn who_is_left_alone_pays_once() {
    let mut bench = Bench::new();
    bench.enter(CPU, ONE);
    assert_eq!(bench.moved(), (0, 0));
    bench.apply(&write(ONE, Msr::DEBUGCTL, 1));
    assert_eq!(bench.moved(), (0, WHOLE));
    bench.guest_branches(CPU, 40);
    for _ in 0..5 {
        bench.apply(&Input::Switch(CPU, Some(TaskId(2))));
        bench.enter(CPU, ONE);
        bench.guest_branches(CPU, 3);
    }
    let exits = bench.0.host().journal().total(Note::RunLoop);
    for n in 0..32 {
        bench.apply(&read(ONE, Msr::new(0x680 + n)));
    }
    assert_eq!(bench.0.host().journal().total(Note::RunLoop), exits);
    assert_eq!(bench.moved(), (0, WHOLE));
    bench.clean();
}

#[test]
fn a_guest_that_does_not_touch_its_lbr_costs_nothing() {
    let mut bench = Bench::new();
    bench.event(true, Target::Cpu(CPU));
    let before = bench.moved();
    for _ in 0..3 {
        bench.enter(CPU, ONE);
        bench.apply(&write(ONE, Msr::DEBUGCTL, 0));
        bench.apply(&read(ONE, Msr::DEBUGCTL));
        bench.apply(&Input::Exit(
            ONE,
            ExitCause::ExternalInterrupt,
            ExitLevel::RunLoop,
        ));
        bench.apply(&Input::Switch(CPU, None));
        bench.apply(&Input::DeepCState(CPU));
    }
    let ledger: &Ledger = bench.0.ledger();
    assert_eq!(
        ledger.total(|_, event| event == Event::Rdmsr(Msr::new(0x680))),
        0
    );
    assert_eq!(bench.moved().0, before.0);
    bench.clean();
}

#[test]
fn events_of_the_host_are_put_aside_while_the_guest_has_the_lbr_and_come_back() {
    for pinned in [true, false] {
        for of_thread in [true, false] {
            let mut bench = Bench::new();
            let target = match of_thread {
                true => Target::Task(bench.0.host().vcpu(ONE).thread),
                false => Target::Cpu(CPU),
            };
            bench.enter(CPU, ONE);
            bench.apply(&write(ONE, Msr::DEBUGCTL, 1));
            bench.guest_branches(CPU, 3);
            let event = bench.event(pinned, target);
            assert_eq!(bench.state(event), EventState::Inactive);
            bench.guest_branches(CPU, 3);
            assert_eq!(bench.0.host().records_of(ONE), 6);
            bench.apply(&Input::Exit(
                ONE,
                ExitCause::EptViolation,
                ExitLevel::UserSpace,
            ));
            bench.apply(&Input::Leave(ONE));
            // The guest's records go into memory, the host's stack begins empty.
            assert_eq!(bench.state(event), EventState::Active);
            assert_eq!(bench.moved().0, WHOLE);
            assert!(bench.0.host().perf().guest_lbr(ONE).is_some());
            bench.apply(&branch(CPU, 0x50_0000, Cpl::Ring3));
            bench.apply(&Input::Run(ONE));
            bench.apply(&Input::Enter(ONE, FastPath::No));
            assert_eq!(bench.state(event), EventState::Inactive);
            assert_eq!(bench.0.host().records_of(ONE), 6);
            for n in 0..32 {
                bench.apply(&read(ONE, Msr::new(0x680 + n)));
            }
            bench.clean();
        }
    }
}

#[test]
fn a_guest_that_does_not_record_leaves_the_lbr_to_the_host() {
    let mut bench = Bench::new();
    bench.enter(CPU, ONE);
    bench.apply(&write(ONE, Msr::DEBUGCTL, 1));
    bench.guest_branches(CPU, 3);
    bench.apply(&write(ONE, Msr::DEBUGCTL, 0));
    let event = bench.event(false, Target::Cpu(CPU));
    bench.apply(&Input::Switch(CPU, None));
    assert_eq!(bench.state(event), EventState::Active);
    bench.enter(CPU, ONE);
    assert_eq!(bench.state(event), EventState::Active);
    // It asks for what it has, by one exit.
    let asks = read(ONE, Msr::LASTBRANCH_TOS);
    let exits: Vec<bool> = (0..3)
        .map(|_| match bench.apply(&asks) {
            Output::Guest(access) => access.exited,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(exits, [true, false, false]);
    assert_eq!(bench.state(event), EventState::Inactive);
    bench.clean();
}

#[test]
fn stacks_move_for_another_guest_another_processor_and_a_deep_c_state() {
    let mut bench = Bench::new();
    bench.enter(CPU, ONE);
    bench.apply(&write(ONE, Msr::DEBUGCTL, 1));
    bench.guest_branches(CPU, 2);
    bench.enter(CPU, TWO);
    assert_eq!(bench.moved(), (0, WHOLE));
    bench.apply(&write(TWO, Msr::LBR_SELECT, 1));
    assert_eq!(bench.moved(), (WHOLE, 2 * WHOLE + 1));
    bench.enter(OTHER, ONE);
    assert_eq!(bench.moved(), (WHOLE, 3 * WHOLE + 1));
    bench.apply(&Input::Switch(OTHER, None));
    bench.enter(CPU, ONE);
    // By the interrupt that clears the VMCS on the other processor.
    assert_eq!(bench.moved(), (3 * WHOLE, 4 * WHOLE + 1));
    bench.apply(&Input::Switch(CPU, None));
    bench.apply(&Input::DeepCState(CPU));
    assert_eq!(bench.moved(), (4 * WHOLE, 4 * WHOLE + 1));
    bench.enter(CPU, ONE);
    assert_eq!(bench.moved(), (4 * WHOLE, 5 * WHOLE + 1));
    assert_eq!(bench.0.host().records_of(ONE), 2);
    bench.clean();
}

#[test]
fn an_event_that_ran_before_does_not_see_what_a_guest_left() {
    let mut bench = Bench::new();
    let event = bench.event(true, Target::Cpu(CPU));
    bench.enter(CPU, ONE);
    bench.apply(&Input::Exit(
        ONE,
        ExitCause::EptViolation,
        ExitLevel::UserSpace,
    ));
    bench.apply(&Input::Enter(ONE, FastPath::No));
    let before = bench.moved();
    bench.apply(&write(ONE, Msr::DEBUGCTL, 1));
    bench.guest_branches(CPU, 8);
    assert_eq!(bench.moved(), (before.0, before.1 + WHOLE));
    bench.apply(&Input::Exit(
        ONE,
        ExitCause::EptViolation,
        ExitLevel::UserSpace,
    ));
    bench.apply(&Input::Leave(ONE));
    assert_eq!(bench.state(event), EventState::Active);
    // Saved, then emptied, and the event's own filter.
    let after = (before.0 + WHOLE, before.1 + WHOLE + RECORDS + 1);
    assert_eq!(bench.moved(), after);
    let lbr = bench.0.host().hardware().cpu(CPU).logical().lbr();
    assert!(lbr.stack().all(|record| record.is_empty()));
    bench.clean();
}

/// A counter of the host overflows in the guest, which has asked for a freeze: the guest finds its
/// LBR as it was. Perfmon 2 and 3 clear DEBUGCTL.LBR.
#[test]
fn an_overflow_of_the_host_does_not_end_the_recording_of_a_guest() {
    let mut bench = Bench(machine("haswell"));
    let pmu = vlbr_pmu::Profile::named("haswell").unwrap();
    let spec = pmu.parse_event("instructions", &vlbr_pmu::Options::default());
    let attr = EventAttr::sampling(&spec.unwrap(), 10, None);
    let target = Target::Cpu(CPU);
    bench.apply(&Input::Open(Box::new(attr), target, Creator::User, None));
    bench.enter(CPU, ONE);
    bench.apply(&write(ONE, Msr::DEBUGCTL, 0x801));
    let mut overflows = 0;
    for n in 0..40 {
        let output = bench.apply(&branch(CPU, 0x1000 * n, Cpl::Ring3));
        if matches!(output, Output::Pmi { .. }) {
            overflows += 1;
            bench.apply(&Input::Enter(ONE, FastPath::No));
        }
    }
    assert!(overflows >= 3, "{overflows}");
    bench.apply(&read(ONE, Msr::DEBUGCTL));
    for n in 0..16 {
        bench.apply(&read(ONE, Msr::new(0x680 + n)));
    }
    bench.clean();
}

#[test]
fn a_reset_gives_up_the_stack_wherever_it_is() {
    let mut bench = Bench::new();
    bench.enter(CPU, ONE);
    bench.apply(&write(ONE, Msr::DEBUGCTL, 1));
    bench.guest_branches(CPU, 3);
    let event = bench.event(true, Target::Cpu(CPU));
    bench.apply(&Input::Exit(
        ONE,
        ExitCause::Instruction(ExitReason::CPUID, 2),
        ExitLevel::RunLoop,
    ));
    bench.apply(&Input::Reset(ONE));
    assert_eq!(bench.state(event), EventState::Active);
    assert_eq!(bench.0.host().perf().lbr_cpu(CPU).guest(), None);
    assert_eq!(bench.0.host().records_of(ONE), 0);
    bench.apply(&Input::Enter(ONE, FastPath::No));
    for msr in [Msr::LASTBRANCH_TOS, Msr::new(0x680), Msr::new(0x681)] {
        bench.apply(&read(ONE, msr));
    }
    bench.clean();
}

/// Inputs in any order; of host events with these filters.
fn inputs(
    part: &'static str,
    filters: &'static [&'static str],
) -> impl Strategy<Value = Vec<Input>> {
    let cpu = || (0u16..2).prop_map(CpuId);
    let vcpu = || (0u16..2).prop_map(VcpuId);
    let msr = || {
        prop_oneof![
            2 => Just(Msr::DEBUGCTL),
            1 => Just(Msr::LBR_SELECT),
            2 => Just(Msr::LASTBRANCH_TOS),
            3 => (0u32..16).prop_map(|n| Msr::new(0x680 + n)),
            1 => (0u32..16).prop_map(|n| Msr::new(0x6c0 + n)),
            1 => (0u32..16).prop_map(|n| Msr::new(0xdc0 + n)),
        ]
    };
    let value = prop_oneof![
        2 => Just(0u64),
        3 => Just(1),
        2 => Just(0x801),
        1 => Just(0xffff_ffff_8100_0000),
        1 => Just(1 << 46 | 1 << 50),
    ];
    let next = prop_oneof![Just(None), (0u32..3).prop_map(|n| Some(TaskId(n)))];
    let cause = prop_oneof![
        Just((ExitCause::ExternalInterrupt, ExitLevel::RunLoop)),
        Just((ExitCause::EptViolation, ExitLevel::UserSpace)),
        Just((
            ExitCause::Instruction(ExitReason::WRMSR, 2),
            ExitLevel::FastPath
        )),
        Just((ExitCause::Nmi, ExitLevel::RunLoop)),
    ];
    let fast = prop_oneof![Just(FastPath::Yes), Just(FastPath::No)];
    let event = || (0u32..5).prop_map(EventId);
    let open = (
        any::<bool>(),
        0u32..5,
        (
            prop::sample::select(vec![7, 50, 1 << 20]),
            prop::sample::select(filters),
        ),
    );
    let input = prop_oneof![
        6 => (cpu(), next).prop_map(|(cpu, next)| Input::Switch(cpu, next)),
        6 => vcpu().prop_map(Input::Run),
        2 => vcpu().prop_map(Input::Leave),
        12 => (vcpu(), fast).prop_map(|(vcpu, fast)| Input::Enter(vcpu, fast)),
        3 => (vcpu(), cause).prop_map(|(v, (cause, level))| Input::Exit(v, cause, level)),
        5 => (vcpu(), msr()).prop_map(|(v, msr)| read(v, msr)),
        6 => (vcpu(), msr(), value).prop_map(|(v, msr, value)| write(v, msr, value)),
        12 => (cpu(), 1u64..1 << 30, any::<bool>()).prop_map(|(cpu, at, user)| {
            branch(cpu, at * 16, if user { Cpl::Ring3 } else { Cpl::Ring0 })
        }),
        1 => (0u32..3, vcpu(), msr()).prop_map(|(t, v, m)| Input::UserRead(TaskId(t), v, m)),
        2 => open.prop_map(move |(pinned, of, sampled)| {
            let target = match of {
                0..3 => Target::Task(TaskId(of)),
                cpu => Target::Cpu(CpuId(cpu as u16 - 3)),
            };
            lbr_event(part, pinned, target, sampled)
        }),
        1 => event().prop_map(Input::Close),
        1 => event().prop_map(Input::Enable),
        1 => event().prop_map(Input::Disable),
        1 => cpu().prop_map(Input::Rotate),
        1 => cpu().prop_map(Input::DeepCState),
        1 => vcpu().prop_map(Input::Reset),
        1 => (vcpu(), any::<bool>()).prop_map(|(vcpu, named)| {
            let carried = if named { Carried::Named } else { Carried::Listed };
            Input::Migrate(vcpu, carried)
        }),
    ];
    prop::collection::vec(input, 1..250)
}

/// Where a guest's stack is, and what that means for perf; `alike`: events of the host do not compete
/// with each other.
fn holds(machine: &Machine, alike: bool) {
    let perf = machine.host().perf();
    for cpu in [CPU, OTHER] {
        let lbr = perf.lbr_cpu(cpu);
        if let Some(guest) = lbr.guest() {
            assert_eq!(lbr.users(), 0, "an event uses what is a guest's");
            assert!(perf.guest_lbr(guest).is_none(), "two copies of a stack");
        }
        assert!(!lbr.lent() || lbr.guest().is_some());
        let waits = perf.events().any(|(_, event)| {
            event.state() == EventState::Inactive && event.target() == Target::Cpu(cpu)
        });
        assert!(lbr.lent() || !waits || !alike, "an event waits for nobody");
    }
    for vcpu in machine.host().vcpus() {
        let of = |cpu: &CpuId| perf.lbr_cpu(*cpu).guest() == Some(vcpu.id);
        assert!([CPU, OTHER].iter().filter(|cpu| of(cpu)).count() <= 1);
        if vcpu.place == Place::Guest && vcpu.lbr.open {
            let lbr = perf.lbr_cpu(vcpu.cpu.unwrap());
            assert!(lbr.lent() && lbr.guest() == Some(vcpu.id));
        }
    }
    let failed = |event: &vlbr_host::perf::Event| event.state() == EventState::Error;
    assert!(!alike || !perf.events().any(|(_, event)| failed(event)));
    assert_eq!(machine.host().journal().total(Note::Warned), 0);
}

fn explored(part: &'static str, inputs: &[Input], alike: bool) {
    let mut machine = machine(part);
    let mut fast = None;
    for input in inputs {
        let input = match input {
            // Between exit and entry of the fast path interrupts are off.
            Input::Enter(vcpu, FastPath::Yes) if fast != Some(*vcpu) => {
                &Input::Enter(*vcpu, FastPath::No)
            }
            _ => input,
        };
        // Four counters take four events.
        if matches!(input, Input::Open(..)) && machine.host().perf().events().len() == 4 {
            continue;
        }
        // What cannot happen now is refused.
        let done = machine.apply(input);
        fast = match input {
            Input::Exit(vcpu, _, ExitLevel::FastPath) if done.is_ok() => Some(*vcpu),
            _ => None,
        };
        holds(&machine, alike);
        let findings = machine.findings();
        assert!(
            findings.is_empty(),
            "{input:?}: {:?}",
            findings.violations()
        );
    }
    for event in machine
        .host()
        .perf()
        .events()
        .map(|(id, _)| id)
        .collect::<Vec<_>>()
    {
        let _ = machine.apply(&Input::Close(event));
    }
    machine.finish();
    let findings = machine.findings();
    assert!(findings.is_empty(), "{:?}", findings.violations());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_rule_is_broken_by_two_guests_on_two_processors_of_skylake(
        inputs in inputs("skylake", &[FILTER])
    ) {
        explored("skylake", &inputs, true);
    }

    #[test]
    fn nor_if_events_of_the_host_compete_by_their_filters(
        inputs in inputs("skylake", &[FILTER, "any,u", "stack,u", "any_call,k"])
    ) {
        explored("skylake", &inputs, false);
    }

    #[test]
    fn nor_on_haswell(inputs in inputs("haswell", &[FILTER])) {
        explored("haswell", &inputs, true);
    }

    #[test]
    fn nor_without_call_stacks(inputs in inputs("sandy-bridge", &[FILTER])) {
        explored("sandy-bridge", &inputs, true);
    }
}
