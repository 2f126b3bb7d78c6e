//! What the ownership checks say of behaviour that is known, and that they say nothing under
//! `ideal`. Scenarios 8/34, 8/36, 8/42, 8/44 and 8/94.

use std::sync::Arc;

use vlbr_arch::{BranchClass, Cpl, Cycles, Msr, Transfer};
use vlbr_cpu::processor::Options;
use vlbr_host::kvm::{GuestCpu, KvmBehaviour};
use vlbr_host::machine::{
    Checking, Difference, FastPath, HostConfig, Input, Machine, Output, Rule,
};
use vlbr_host::perf::{
    Behaviour, Creator, EventAttr, EventId, KernelVersion, Target, parse_branch_filter,
};
use vlbr_host::policy::Catalog;
use vlbr_host::{CpuId, TaskId, VcpuId, VmId};
use vlbr_pmu::Increments;

const CPU: CpuId = CpuId(0);
const VCPU: VcpuId = VcpuId(0);
const FROM: Msr = Msr::new(0x680);

struct Bench {
    machine: Machine,
    time: u64,
}

impl Bench {
    /// A guest that runs on the only processor, a Haswell.
    fn new(policy: &str) -> Self {
        let policy = Catalog::builtin().named(policy).unwrap();
        let kernel = policy.kernel().unwrap_or(KernelVersion::new(6, 8, 0));
        let mut behaviour = Behaviour::of(kernel);
        policy.adjust(&mut behaviour);
        let config = HostConfig {
            part: "haswell".to_owned(),
            cpus: 1,
            options: Options::default(),
            behaviour,
            kvm: KvmBehaviour::of(kernel),
            ignore_msrs: false,
        };
        let mut machine = Machine::new(&config, Arc::clone(&policy), Checking::On).unwrap();
        let vm = machine.add_vm();
        let model = vlbr_lbr::Profile::named("haswell").unwrap().models()[0];
        let guest = GuestCpu {
            model,
            pdcm: true,
            pmu_version: 2,
            gp_counters: 4,
            fixed_counters: 3,
            arch_lbr_ebx: 0,
        };
        machine.add_vcpu(vm, guest).unwrap();
        let mut bench = Self { machine, time: 0 };
        // Refused by policies that have another switch.
        let _ = bench
            .machine
            .apply(&Input::EnableCapability(VmId(0), true, true));
        let thread = bench.thread();
        bench.switch(Some(thread));
        bench.enter();
        bench
    }

    fn thread(&self) -> TaskId {
        self.machine.host().vcpu(VCPU).thread
    }

    fn apply(&mut self, input: &Input) -> Output {
        self.machine.apply(input).unwrap()
    }

    fn switch(&mut self, task: Option<TaskId>) {
        self.apply(&Input::Switch(CPU, task));
    }

    fn enter(&mut self) {
        if self.machine.host().vcpu(VCPU).place.name() == "user space" {
            self.apply(&Input::Run(VCPU));
        }
        self.apply(&Input::Enter(VCPU, FastPath::No));
    }

    /// Switches the vCPU's thread out and in again, and enters the guest.
    fn preempt(&mut self) {
        let thread = self.thread();
        self.switch(None);
        self.switch(Some(thread));
        self.enter();
    }

    fn write(&mut self, msr: Msr, value: u64) {
        self.apply(&Input::GuestWrite(VCPU, msr, value, Cpl::Ring0));
    }

    fn read(&mut self, msr: Msr) -> Option<u64> {
        match self.apply(&Input::GuestRead(VCPU, msr, Cpl::Ring0)) {
            Output::Guest(access) => access.result.ok().map(|value| value.value),
            other => panic!("{other:?}"),
        }
    }

    /// Branches of whoever runs.
    fn branches(&mut self, count: u64) {
        for n in 0..count {
            self.time += 10;
            let at = 0xffff_ffff_8100_0000 + 0x100 * n;
            let branch = Transfer::near(BranchClass::NearRelCall, at, at + 0x50, Cpl::Ring0);
            let mut run = Increments::instruction(Cpl::Ring0);
            run.add_branch(BranchClass::NearRelCall, true, false, Cpl::Ring0);
            let now = Cycles::new(self.time);
            let output = self.apply(&Input::Retire(CPU, Box::new((run, Some(branch))), now));
            if matches!(output, Output::Pmi { .. })
                && self.machine.host().vcpu(VCPU).place.name() == "kernel"
            {
                self.enter();
            }
        }
    }

    /// `perf record -a -b`, pinned or not.
    fn host_event(&mut self, pinned: bool, period: u64) -> EventId {
        let pmu = vlbr_pmu::Profile::named("haswell").unwrap();
        let spec = pmu
            .parse_event("branches", &vlbr_pmu::Options::default())
            .unwrap();
        let filter = parse_branch_filter("any,u,k").unwrap();
        let mut attr = EventAttr::sampling(&spec, period, Some(filter));
        attr.pinned = pinned;
        let open = Input::Open(Box::new(attr), Target::Cpu(CPU), Creator::User, None);
        match self.apply(&open) {
            Output::Event(event) => event,
            other => panic!("{other:?}"),
        }
    }

    fn count(&self, rule: Rule) -> u64 {
        self.machine.findings().count(rule)
    }
}

#[test]
fn a_guest_that_is_left_alone_gives_no_finding_under_any_policy_that_offers_lbr() {
    for policy in [
        "v8",
        "upstream@5.15",
        "upstream@6.9",
        "naive",
        "mediated-swap",
        "mediated-lazy",
        "msr-list",
        "ideal",
    ] {
        let mut bench = Bench::new(policy);
        bench.write(Msr::DEBUGCTL, 1);
        bench.branches(40);
        bench.preempt();
        bench.branches(3);
        for n in 0..16 {
            assert!(
                bench.read(FROM.plus(n)).is_some_and(|from| from != 0),
                "{policy}"
            );
        }
        let (compared, differences) = bench.machine.fidelity();
        if policy != "ideal" {
            assert_eq!(compared, 16, "{policy}");
        }
        assert!(differences.iter().all(|(_, count)| *count == 0), "{policy}");
        let findings = bench.machine.findings();
        assert!(findings.is_empty(), "{policy}: {:?}", findings.violations());
    }
}

/// Scenario 42: the guest's DEBUGCTL turns recording on although a host event owns the LBR.
#[test]
fn branches_of_a_denied_guest_leak_into_the_stack_of_the_host() {
    let mut bench = Bench::new("v8");
    bench.write(Msr::DEBUGCTL, 1);
    bench.branches(5);
    bench.host_event(true, 20);
    bench.branches(40);
    assert!(
        bench.count(Rule::Leak) > 0,
        "{:?}",
        bench.machine.findings()
    );
    let leak = bench.machine.findings().violations().iter();
    let leak = leak.clone().find(|found| found.rule == Rule::Leak).unwrap();
    assert_eq!(leak.owner.guest(), Some(VCPU));
    assert!(
        leak.to_string()
            .contains("enters the stack of a host event"),
        "{leak}"
    );
}

/// Scenario 44: an event that is reclaimed by an interrupt is not saved.
#[test]
fn records_are_lost_when_the_host_takes_the_lbr_by_an_interrupt() {
    let mut bench = Bench::new("v8");
    bench.write(Msr::DEBUGCTL, 1);
    bench.branches(5);
    assert_eq!(bench.machine.host().records_of(VCPU), 5);
    bench.host_event(true, 1 << 20);
    assert_eq!(bench.count(Rule::Loss), 1, "{:?}", bench.machine.findings());
    let loss = &bench.machine.findings().violations()[0];
    assert!(
        loss.to_string()
            .contains("5 of 5 records are gone after Open"),
        "{loss}"
    );
}

/// Scenario 36 and 37: #GP from then on.
#[test]
fn a_guest_whose_lbr_was_taken_is_denied_by_v8() {
    let mut bench = Bench::new("v8");
    bench.write(Msr::DEBUGCTL, 1);
    bench.host_event(true, 1 << 20);
    assert_eq!(bench.read(FROM), None);
    assert_eq!(bench.count(Rule::Denial), 1);
}

/// Scenario 34: released at sched-in while recording is off, and created anew by the read.
#[test]
fn lazy_release_upstream_loses_records_that_the_guest_has_not_read() {
    for (policy, lost) in [
        ("upstream@5.15", true),
        ("upstream@6.9", true),
        ("ideal", false),
    ] {
        let mut bench = Bench::new(policy);
        bench.write(Msr::DEBUGCTL, 1);
        bench.branches(5);
        bench.write(Msr::DEBUGCTL, 0);
        bench.preempt();
        let from = bench.read(FROM.plus(1));
        assert_eq!(from == Some(0), lost, "{policy}");
        assert_eq!(bench.count(Rule::Loss) > 0, lost, "{policy}");
        assert_eq!(bench.machine.findings().is_empty(), !lost, "{policy}");
        let (_, differences) = bench.machine.fidelity();
        let zero = differences
            .iter()
            .find(|(kind, _)| *kind == Difference::Zero);
        assert_eq!(zero.unwrap().1 > 0, lost, "{policy}");
    }
}

/// Scenario 94: with a CPU-pinned host event on, a fresh guest event is not reset.
#[test]
fn host_records_leak_into_a_guest_upstream_as_coded_but_not_as_documented() {
    for (policy, leaks) in [
        ("upstream@5.15", true),
        ("upstream-documented@5.15", false),
        ("ideal", false),
    ] {
        let mut bench = Bench::new(policy);
        let thread = bench.thread();
        bench.switch(None);
        bench.host_event(true, 1 << 20);
        bench.switch(Some(thread));
        // The host's kernel on its way to VM entry.
        bench.branches(20);
        bench.enter();
        bench.write(Msr::DEBUGCTL, 1);
        for n in 0..16 {
            bench.read(FROM.plus(n));
        }
        assert_eq!(bench.count(Rule::Leak) > 0, leaks, "{policy}");
    }
}
