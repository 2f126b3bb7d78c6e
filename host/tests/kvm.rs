//! Rules of KVM around the guest's PMU that changed between versions, or that user space and the
//! guest meet differently. Each was read in the source: see `docs/linux.md`.

use std::sync::Arc;

use vlbr_arch::vmx::ExitReason;
use vlbr_arch::{Cpl, Msr};
use vlbr_cpu::processor::Options;
use vlbr_host::kvm::{Answer, ExitLevel, GuestCpu, KvmBehaviour, Vmcs12};
use vlbr_host::machine::{
    Checking, ExitCause, FastPath, HostConfig, HostError, Input, Machine, Output,
};
use vlbr_host::perf::{Behaviour, Errno, Target};
use vlbr_host::policy::Catalog;
use vlbr_host::{CpuId, TaskId, VcpuId};

const CPU: CpuId = CpuId(0);
const VCPU: VcpuId = VcpuId(0);
/// EN, OS, USR, instructions.
const INSTRUCTIONS: u64 = 0x43_00c0;
const LBR: u64 = 1;

struct Bench {
    machine: Machine,
    thread: TaskId,
    other: TaskId,
}

fn guest(part: &str) -> GuestCpu {
    GuestCpu {
        model: vlbr_lbr::Profile::named(part).unwrap().models()[0],
        pdcm: true,
        pmu_version: 2,
        gp_counters: 4,
        fixed_counters: 3,
        arch_lbr_ebx: 0,
    }
}

impl Bench {
    fn with(part: &str, policy: &str, guest: GuestCpu) -> Self {
        let policy = Catalog::builtin().named(policy).unwrap();
        let kernel = policy.kernel().unwrap();
        let mut behaviour = Behaviour::of(kernel);
        policy.adjust(&mut behaviour);
        let config = HostConfig {
            part: part.to_owned(),
            cpus: 1,
            options: Options::default(),
            behaviour,
            kvm: KvmBehaviour::of(kernel),
            ignore_msrs: false,
        };
        let mut machine = Machine::new(&config, Arc::clone(&policy), Checking::On).unwrap();
        let vm = machine.add_vm();
        machine.add_vcpu(vm, guest).unwrap();
        let thread = machine.host().vcpu(VCPU).thread;
        let other = machine.add_task("monitor", false);
        Self {
            machine,
            thread,
            other,
        }
    }

    fn new(policy: &str) -> Self {
        Self::with("haswell", policy, guest("haswell"))
    }

    fn apply(&mut self, input: &Input) -> Output {
        self.machine.apply(input).unwrap()
    }

    fn run(&mut self, task: TaskId) {
        self.apply(&Input::Switch(CPU, Some(task)));
    }

    fn enter(&mut self) {
        self.run(self.thread);
        self.apply(&Input::Run(VCPU));
        self.apply(&Input::Enter(VCPU, FastPath::No));
    }

    fn exit(&mut self) {
        let cause = ExitCause::Instruction(ExitReason::CPUID, 2);
        self.apply(&Input::Exit(VCPU, cause, ExitLevel::RunLoop));
    }

    fn user_write(&mut self, task: TaskId, msr: Msr, value: u64) -> Answer {
        match self.apply(&Input::UserWrite(task, VCPU, msr, value)) {
            Output::User(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn user_read(&mut self, msr: Msr) -> Option<u64> {
        match self.apply(&Input::UserRead(self.thread, VCPU, msr)) {
            Output::User(Answer::Value(value)) => Some(value.value),
            Output::User(_) => None,
            other => panic!("{other:?}"),
        }
    }

    fn write(&mut self, msr: Msr, value: u64) -> bool {
        match self.apply(&Input::GuestWrite(VCPU, msr, value, Cpl::Ring0)) {
            Output::Guest(access) => access.result.is_ok(),
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self, msr: Msr) -> Option<u64> {
        match self.apply(&Input::GuestRead(VCPU, msr, Cpl::Ring0)) {
            Output::Guest(access) => access.result.ok().map(|value| value.value),
            other => panic!("{other:?}"),
        }
    }

    /// Whose task the event of counter 0 is of.
    fn counts_for(&self) -> Option<Target> {
        let host = self.machine.host();
        let event = host.vcpu(VCPU).pmu.gp[0].event?;
        host.perf().event(event).map(|event| event.target())
    }

    fn has_lbr_event(&self) -> bool {
        self.machine.host().vcpu(VCPU).lbr.event.is_some()
    }
}

/// `reprogram_gp_counter` 5.15.85, `kvm_pmu_request_counter_reprogram` 6.17.
#[test]
fn a_counter_that_user_space_programs_is_the_writers_up_to_6_1_and_the_vcpus_later() {
    let mut old = Bench::new("upstream@6.1");
    old.run(old.other);
    old.user_write(old.other, Msr::PERFEVTSEL0, INSTRUCTIONS);
    assert_eq!(old.counts_for(), Some(Target::Task(old.other)));

    let mut new = Bench::new("upstream@6.2");
    new.run(new.other);
    new.user_write(new.other, Msr::PERFEVTSEL0, INSTRUCTIONS);
    assert_eq!(new.counts_for(), None);
    new.enter();
    assert_eq!(new.counts_for(), Some(Target::Task(new.thread)));
}

/// `intel_pmu_set_msr`: the sign is extended for a guest alone.
#[test]
fn user_space_restores_a_counter_whole_and_a_guest_writes_32_bits_of_it() {
    let mut bench = Bench::new("upstream@5.15.85");
    bench.run(bench.thread);
    bench.user_write(bench.thread, Msr::PMC0, 0x1234_8765_4321);
    assert_eq!(bench.user_read(Msr::PMC0), Some(0x1234_8765_4321));
    bench.enter();
    assert!(bench.write(Msr::PMC0, 0x1234_8765_4321));
    assert_eq!(bench.read(Msr::PMC0), Some(0xffff_8765_4321));
}

/// `get_fw_gp_pmc`, `intel_pmu_set_msr`.
#[test]
fn full_width_counters_need_their_capability_and_refuse_bits_beyond_their_width() {
    let mut bench = Bench::new("upstream@6.6");
    bench.enter();
    assert!(bench.write(Msr::A_PMC0, 0xffff_0000_0001));
    assert!(!bench.write(Msr::A_PMC0, 1 << 48));

    let mut without = Bench::new("upstream@6.6");
    without.run(without.thread);
    without.user_write(without.thread, Msr::PERF_CAPABILITIES, 0);
    without.enter();
    assert!(!without.write(Msr::A_PMC0, 1));
    assert!(without.write(Msr::PMC0, 1));
}

/// `intel_pmu_set_msr`, `kvm_pmu_set_msr`.
#[test]
fn a_guest_acknowledges_by_ovf_ctrl_and_user_space_does_not() {
    let mut bench = Bench::new("upstream@6.6");
    bench.run(bench.thread);
    bench.user_write(bench.thread, Msr::PERF_GLOBAL_STATUS, 3);
    bench.user_write(bench.thread, Msr::PERF_GLOBAL_OVF_CTRL, 1);
    assert_eq!(bench.user_read(Msr::PERF_GLOBAL_STATUS), Some(3));
    bench.enter();
    assert!(bench.write(Msr::PERF_GLOBAL_OVF_CTRL, 1));
    assert_eq!(bench.read(Msr::PERF_GLOBAL_STATUS), Some(2));
    // OvfUncore is reserved, pin control is not.
    assert!(!bench.write(Msr::PERF_GLOBAL_OVF_CTRL, 1 << 61));
    assert!(bench.write(Msr::PERFEVTSEL0, INSTRUCTIONS | 1 << 19));
}

/// `kvm_vcpu_exit_request` in `vcpu_enter_guest`.
#[test]
fn a_request_that_waits_ends_the_fast_path() {
    let mut bench = Bench::new("upstream@6.6");
    bench.enter();
    bench.write(Msr::DEBUGCTL, LBR);
    bench.write(Msr::DEBUGCTL, 0);
    bench.apply(&Input::Switch(CPU, None));
    bench.run(bench.thread);
    assert!(bench.has_lbr_event());
    bench.apply(&Input::Enter(VCPU, FastPath::Yes));
    assert!(!bench.has_lbr_event(), "the clean-up was served");
}

/// `prepare_vmcs02` writes the VMCS; only `vmx_set_msr` makes an event.
#[test]
fn an_entry_to_l2_with_lbr_makes_no_event() {
    for policy in ["upstream@5.15.85", "upstream@6.17"] {
        let mut bench = Bench::new(policy);
        bench.enter();
        bench.exit();
        let vmcs12 = Vmcs12 {
            load_debug_controls: true,
            save_debug_controls: true,
            debugctl: LBR,
        };
        let entered = bench.apply(&Input::EnterL2(VCPU, vmcs12));
        assert_eq!(entered, Output::Done, "{policy}");
        assert_eq!(bench.machine.host().guest_debugctl(VCPU) & LBR, LBR);
        assert!(!bench.has_lbr_event(), "{policy}");
    }
}

/// `vmx_set_msr` 6.17: vmcs12 gets the value, the VMCS the host's bit as well.
#[test]
fn vmcs12_is_told_what_l2_wrote_without_the_hosts_bit() {
    let mut bench = Bench::new("upstream@6.17");
    bench.enter();
    bench.exit();
    let vmcs12 = Vmcs12 {
        load_debug_controls: true,
        save_debug_controls: true,
        debugctl: 0,
    };
    bench.apply(&Input::EnterL2(VCPU, vmcs12));
    bench.apply(&Input::Enter(VCPU, FastPath::No));
    assert!(bench.write(Msr::DEBUGCTL, LBR));
    let vcpu = bench.machine.host().vcpu(VCPU);
    assert_eq!(vcpu.nested.map(|nested| nested.debugctl12), Some(LBR));
    let smm = 1 << 14;
    assert_eq!(bench.machine.host().guest_debugctl(VCPU), LBR | smm);
}

/// `x86_perf_get_lbr`.
#[test]
fn info_of_format_7_is_described_to_a_guest_from_6_3() {
    for (policy, described) in [("upstream@6.2", false), ("upstream@6.3", true)] {
        let bench = Bench::with("goldmont-plus", policy, guest("goldmont-plus"));
        let msrs = bench.machine.host().vcpu(VCPU).lbr.msrs.unwrap();
        assert_eq!(msrs.info.is_some(), described, "{policy}");
    }
}

/// `intel_pmu_init` sets what a vCPU starts with, `intel_pmu_refresh` does not.
#[test]
fn capabilities_that_were_taken_away_do_not_come_back_with_cpuid() {
    for policy in ["upstream@5.15.85", "upstream@6.16"] {
        let mut bench = Bench::new(policy);
        bench.run(bench.thread);
        assert_eq!(bench.user_read(Msr::PERF_CAPABILITIES), Some(0x2004));
        bench.user_write(bench.thread, Msr::PERF_CAPABILITIES, 0);
        let cpuid = Input::SetCpuid(VCPU, Box::new(guest("haswell")));
        bench.apply(&cpuid);
        assert_eq!(bench.user_read(Msr::PERF_CAPABILITIES), Some(0), "{policy}");
        assert_eq!(bench.machine.host().vcpu(VCPU).lbr.msrs, None);
        // No bit that KVM does not emulate, whatever the processor has.
        let smm_freeze = bench.user_write(bench.thread, Msr::PERF_CAPABILITIES, 1 << 12);
        assert_eq!(smm_freeze, Answer::Refused, "{policy}");
    }
}

/// `kvm_set_msr_common`, `kvm_get_msr_common`, `vmx_set_msr`.
#[test]
fn without_pdcm_user_space_has_capabilities_up_to_6_12() {
    let without = GuestCpu {
        pdcm: false,
        ..guest("haswell")
    };
    let mut old = Bench::with("haswell", "upstream@6.12", without.clone());
    old.run(old.thread);
    assert_eq!(old.user_read(Msr::PERF_CAPABILITIES), Some(0x2004));
    assert_eq!(
        old.user_write(old.thread, Msr::PERF_CAPABILITIES, 0x2000),
        Answer::Done
    );
    let mut new = Bench::with("haswell", "upstream@6.13", without);
    new.run(new.thread);
    assert_eq!(new.user_read(Msr::PERF_CAPABILITIES), Some(0));
    assert_eq!(
        new.user_write(new.thread, Msr::PERF_CAPABILITIES, 0x2000),
        Answer::Refused
    );
    // A guest has neither.
    for bench in [&mut old, &mut new] {
        bench.enter();
        assert_eq!(bench.read(Msr::PERF_CAPABILITIES), None);
    }
}

/// `kvm_set_cpuid`.
#[test]
fn cpuid_is_fixed_by_the_first_run_from_5_17() {
    let other = GuestCpu {
        pmu_version: 4,
        ..guest("haswell")
    };
    for (policy, refused) in [("upstream@5.15.85", false), ("upstream@5.17", true)] {
        let mut bench = Bench::new(policy);
        bench.enter();
        bench.exit();
        bench.apply(&Input::Leave(VCPU));
        let same = Input::SetCpuid(VCPU, Box::new(guest("haswell")));
        bench.apply(&same);
        let changed = bench
            .machine
            .apply(&Input::SetCpuid(VCPU, Box::new(other.clone())));
        let expected = match refused {
            true => Err(HostError::Errno(Errno::EINVAL)),
            false => Ok(Output::Done),
        };
        assert_eq!(changed, expected, "{policy}");
    }
}

/// `kvm_pmu_refresh`.
#[test]
fn a_new_pmu_releases_the_event_from_6_8() {
    for (policy, released) in [("upstream@6.7", false), ("upstream@6.8", true)] {
        let mut bench = Bench::new(policy);
        bench.run(bench.thread);
        bench.user_read(Msr::LASTBRANCH_TOS);
        assert!(bench.has_lbr_event());
        bench.apply(&Input::SetCpuid(VCPU, Box::new(guest("haswell"))));
        assert_eq!(!bench.has_lbr_event(), released, "{policy}");
    }
}
