//! The host under every policy: deterministic, the same by whole stacks and MSR by MSR, and its
//! state can be copied at any time.

use core::hash::{Hash as _, Hasher as _};
use std::collections::hash_map::DefaultHasher;
use std::sync::Arc;

use proptest::prelude::*;
use vlbr_arch::vmx::ExitReason;
use vlbr_arch::{BranchClass, Cpl, Cycles, Msr, Transfer};
use vlbr_cpu::ledger::Actor;
use vlbr_cpu::processor::{Boundary, Options};
use vlbr_host::kvm::{ExitLevel, GuestCpu, KvmBehaviour, Vmcs12};
use vlbr_host::machine::{Checking, ExitCause, FastPath, HostConfig, Input, Machine, Output};
use vlbr_host::perf::{
    Behaviour, Creator, EventAttr, EventId, KernelVersion, Target, parse_branch_filter,
};
use vlbr_host::policy::{Catalog, Policy};
use vlbr_host::{CpuId, Owned, Owner, TaskId, VcpuId, VmId};
use vlbr_lbr::Profile;
use vlbr_pmu::Increments;

const PARTS: [&str; 4] = ["haswell", "skylake", "goldmont", "sapphire-rapids"];

fn machine(part: &str, policy: &Arc<dyn Policy>, checking: Checking) -> Machine {
    let kernel = policy.kernel().unwrap_or(KernelVersion::new(6, 8, 0));
    let mut behaviour = Behaviour::of(kernel);
    policy.adjust(&mut behaviour);
    let mut options = Options::default();
    options.pmu.unfed = vlbr_pmu::Unfed::Hold;
    let config = HostConfig {
        part: part.to_owned(),
        cpus: 2,
        options,
        behaviour,
        kvm: KvmBehaviour::of(kernel),
        ignore_msrs: false,
    };
    let mut machine = Machine::new(&config, Arc::clone(policy), checking).unwrap();
    let profile = Profile::named(part).unwrap();
    for _ in 0..2 {
        let vm = machine.add_vm();
        let arch_lbr_ebx = match profile.interface() {
            vlbr_lbr::Interface::Arch(arch) => arch.ebx,
            vlbr_lbr::Interface::Legacy(_) => 0,
        };
        let guest = GuestCpu {
            model: profile.models()[0],
            pdcm: true,
            pmu_version: 2,
            gp_counters: 4,
            fixed_counters: 3,
            arch_lbr_ebx,
        };
        machine.add_vcpu(vm, guest).unwrap();
        let _ = machine.apply(&Input::EnableCapability(vm, true, true));
    }
    machine.add_task("task", false);
    machine
}

fn msr() -> impl Strategy<Value = Msr> {
    prop_oneof![
        3 => Just(Msr::DEBUGCTL),
        2 => Just(Msr::LBR_SELECT),
        2 => Just(Msr::LASTBRANCH_TOS),
        1 => Just(Msr::PERF_CAPABILITIES),
        2 => (0u32..33).prop_map(|n| Msr::new(0x680 + n)),
        1 => (0u32..33).prop_map(|n| Msr::new(0x6c0 + n)),
        1 => (0u32..33).prop_map(|n| Msr::new(0xdc0 + n)),
        2 => Just(Msr::LBR_CTL),
        1 => Just(Msr::LBR_DEPTH),
        1 => (0u32..33).prop_map(|n| Msr::LBR_0_FROM_IP.plus(n)),
        1 => Just(Msr::PERFEVTSEL0),
        1 => Just(Msr::PMC0),
        1 => Just(Msr::PERF_GLOBAL_CTRL),
        1 => Just(Msr::FIXED_CTR_CTRL),
        1 => Just(Msr::new(0x1b)),
    ]
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(0x801),
        Just(0x803),
        Just(0x7f_0007),
        Just(32),
        Just(0x43_00c0),
        Just(0xffff_ffff_ffff_fff0),
        any::<u64>(),
        0u64..1 << 40,
    ]
}

fn input() -> impl Strategy<Value = Input> {
    let cpu = || (0u16..2).prop_map(CpuId);
    let vcpu = || (0u16..2).prop_map(VcpuId);
    let cpl = prop_oneof![5 => Just(Cpl::Ring0), 1 => Just(Cpl::Ring3)];
    let next = prop_oneof![Just(None), (0u32..3).prop_map(|n| Some(TaskId(n)))];
    let level = prop_oneof![
        Just(ExitLevel::RunLoop),
        Just(ExitLevel::FastPath),
        Just(ExitLevel::UserSpace)
    ];
    let cause = prop_oneof![
        Just(ExitCause::ExternalInterrupt),
        Just(ExitCause::EptViolation),
        Just(ExitCause::Nmi),
        Just(ExitCause::Instruction(ExitReason::CPUID, 2)),
    ];
    let fast = prop_oneof![Just(FastPath::Yes), Just(FastPath::No)];
    let event = (0u32..6).prop_map(EventId);
    let open = (any::<bool>(), any::<bool>(), 0u32..4, 0usize..3);
    prop_oneof![
        6 => (cpu(), next).prop_map(|(cpu, next)| Input::Switch(cpu, next)),
        6 => vcpu().prop_map(Input::Run),
        2 => vcpu().prop_map(Input::Leave),
        8 => (vcpu(), fast).prop_map(|(vcpu, fast)| Input::Enter(vcpu, fast)),
        4 => (vcpu(), cause, level).prop_map(|(v, cause, level)| Input::Exit(v, cause, level)),
        6 => (vcpu(), msr(), cpl.clone()).prop_map(|(v, msr, cpl)| Input::GuestRead(v, msr, cpl)),
        8 => (vcpu(), msr(), value(), cpl).prop_map(|(v, m, w, cpl)| Input::GuestWrite(v, m, w, cpl)),
        8 => (cpu(), 1u64..1 << 30, any::<bool>(), any::<bool>()).prop_map(|(cpu, at, call, user)| {
            let cpl = if user { Cpl::Ring3 } else { Cpl::Ring0 };
            let class = if call { BranchClass::NearRelCall } else { BranchClass::NearRet };
            let transfer = Transfer::near(class, at * 16, at * 16 + 0x100, cpl);
            let mut run = Increments::instruction(cpl);
            run.add_branch(class, true, false, cpl);
            Input::Retire(cpu, Box::new((run, Some(transfer))), Cycles::new(at))
        }),
        1 => (0u32..3, vcpu(), msr()).prop_map(|(t, v, m)| Input::UserRead(TaskId(t), v, m)),
        1 => (0u32..3, vcpu(), msr(), value())
            .prop_map(|(t, v, m, w)| Input::UserWrite(TaskId(t), v, m, w)),
        2 => open.prop_map(|(pinned, of_task, at, filter)| {
            let filter = ["any", "any_call,u", "call_stack,u"][filter];
            let pmu = vlbr_pmu::Profile::named("skylake").unwrap();
            let spec = pmu.parse_event("instructions", &vlbr_pmu::Options::default()).unwrap();
            let mut attr = EventAttr::sampling(&spec, 1000, parse_branch_filter(filter).ok());
            attr.pinned = pinned;
            let target = if of_task {
                Target::Task(TaskId(at % 3))
            } else {
                Target::Cpu(CpuId(at as u16 % 2))
            };
            Input::Open(Box::new(attr), target, Creator::User, None)
        }),
        1 => event.clone().prop_map(Input::Close),
        1 => event.clone().prop_map(Input::Enable),
        1 => event.prop_map(Input::Disable),
        1 => cpu().prop_map(Input::Rotate),
        1 => cpu().prop_map(Input::DeepCState),
        1 => vcpu().prop_map(Input::Reset),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(on, good)| {
            Input::EnableCapability(VmId(0), on, good)
        }),
        1 => (vcpu(), any::<bool>(), value()).prop_map(|(vcpu, load, debugctl)| {
            let vmcs12 = Vmcs12 { load_debug_controls: load, save_debug_controls: load, debugctl };
            Input::EnterL2(vcpu, vmcs12)
        }),
        1 => vcpu().prop_map(Input::LeaveL2),
    ]
}

fn hash(machine: &Machine) -> u64 {
    let mut hasher = DefaultHasher::new();
    machine.host().hash(&mut hasher);
    hasher.finish()
}

fn policies() -> impl Strategy<Value = Arc<dyn Policy>> {
    prop::sample::select(Catalog::builtin().all().to_vec())
}

fn said(machine: &mut Machine, input: &Input) -> String {
    match machine.apply(input) {
        Ok(output) => format!("{output:?}"),
        Err(error) => error.to_string(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whole_stacks_and_single_registers_are_the_same_host(
        part in prop::sample::select(&PARTS[..]),
        policy in policies(),
        inputs in prop::collection::vec(input(), 1..120),
    ) {
        let mut whole = machine(part, &policy, Checking::Off);
        let mut single = whole.clone();
        for cpu in 0..2 {
            single.host_mut().hardware_mut().cpu_mut(CpuId(cpu)).set_msr_by_msr(true);
        }
        for input in &inputs {
            prop_assert_eq!(said(&mut whole, input), said(&mut single, input), "{:?}", input);
            for cpu in 0..2 {
                let (one, other) = (whole.host().hardware(), single.host().hardware());
                prop_assert_eq!(one.cpu(CpuId(cpu)).owners(), other.cpu(CpuId(cpu)).owners());
                let same = one.cpu(CpuId(cpu)).logical() == other.cpu(CpuId(cpu)).logical();
                prop_assert!(same, "{:?}", input);
            }
        }
        prop_assert_eq!(whole.ledger(), single.ledger());
        prop_assert_eq!(whole.host().journal(), single.host().journal());
    }

    #[test]
    fn a_copy_goes_on_as_the_original_and_checks_change_nothing(
        part in prop::sample::select(&PARTS[..]),
        policy in policies(),
        inputs in prop::collection::vec(input(), 1..80),
        at in any::<prop::sample::Index>(),
    ) {
        let mut checked = machine(part, &policy, Checking::On);
        let mut unchecked = machine(part, &policy, Checking::Off);
        let at = at.index(inputs.len());
        for input in &inputs[..at] {
            said(&mut checked, input);
            said(&mut unchecked, input);
        }
        let mut copy = checked.clone();
        prop_assert_eq!(hash(&copy), hash(&checked));
        for input in &inputs[at..] {
            let one = said(&mut checked, input);
            prop_assert_eq!(&one, &said(&mut copy, input), "{:?}", input);
            let other = said(&mut unchecked, input);
            // The yardstick's processors exist either way.
            prop_assert_eq!(&one, &other, "{:?}", input);
        }
        prop_assert!(checked.host() == copy.host());
        prop_assert_eq!(hash(&checked), hash(&copy));
        prop_assert!(checked.host() == unchecked.host());
        prop_assert_eq!(checked.ledger(), unchecked.ledger());
        prop_assert_eq!(checked.findings(), copy.findings());
    }
}

/// The inputs reach what they are for: under each kind of policy guests run, access MSRs that exit
/// and that pass, and events come and go.
#[test]
fn random_inputs_reach_guests() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    use vlbr_host::kvm::Note;
    use vlbr_host::machine::Rule;
    let mut runner = TestRunner::deterministic();
    let inputs = prop::collection::vec(input(), 400);
    let mut notes = std::collections::BTreeMap::new();
    let mut found = std::collections::BTreeMap::new();
    for policy in Catalog::builtin().all() {
        for part in PARTS {
            for _ in 0..4 {
                let mut machine = machine(part, policy, Checking::On);
                for input in inputs.new_tree(&mut runner).unwrap().current() {
                    said(&mut machine, &input);
                }
                machine.finish();
                for (_, note, count) in machine.host().journal().rows() {
                    *notes.entry(note).or_insert(0) += count;
                }
                for (rule, _) in Rule::NAMED {
                    *found.entry(*rule).or_insert(0) += machine.findings().count(*rule);
                }
            }
        }
    }
    println!("{notes:#?}\n{found:#?}");
    for note in [
        Note::EventCreated,
        Note::EventReleased,
        Note::Opened,
        Note::Closed,
        Note::Gp,
        Note::DummyRead,
        Note::HostFault,
        Note::RunLoop,
        Note::FastPath,
        Note::UserSpace,
    ] {
        assert!(notes.get(&note).is_some_and(|count| *count > 0), "{note}");
    }
}

/// Clocks that pass behind an access may overflow a counter that the next access stops.
#[test]
fn a_processor_on_which_a_pmi_waits_is_told_of_the_next_boundary() {
    use vlbr_pmu::Source;
    const CPU: CpuId = CpuId(1);
    // EN, OS, instructions.
    const KERNEL_INSTRUCTIONS: u64 = 0x42_00c0;
    let policy = Catalog::builtin().named("none").unwrap();
    let mut machine = machine("skylake", &policy, Checking::Off);
    assert!(machine.is_quiet(CPU));
    let hardware = machine.host_mut().hardware_mut();
    let write = |hardware: &mut vlbr_host::hardware::Hardware, msr, value| {
        let value = Owned::new(value, Owner::Kernel);
        hardware.wrmsr(CPU, Actor::Host, msr, value).unwrap();
    };
    let pmu = hardware.cpu_mut(CPU).logical_mut().pmu_mut();
    pmu.set_lvtpc(vlbr_arch::LvtPc::from_bits(0x400));
    // A write of the legacy register is 32 bits wide, and its sign is extended.
    write(hardware, Msr::PMC0, 0xffff_fff6);
    write(hardware, Msr::PERFEVTSEL0, 1 << 20 | KERNEL_INSTRUCTIONS);
    write(hardware, Msr::PERF_GLOBAL_CTRL, 1);
    let mut run = Increments::new();
    run.add(Source::Instructions, Cpl::Ring0, 12);
    let boundary = |run, now| Boundary {
        run,
        transfer: None,
        now: Cycles::new(now),
    };
    machine.pass(CPU, boundary(&run, 5)).unwrap();
    write(machine.host_mut().hardware_mut(), Msr::PERF_GLOBAL_CTRL, 0);
    let pmu = machine.host().hardware().cpu(CPU).logical().pmu();
    assert!(!pmu.counts() && pmu.pending().is_some());
    assert!(!machine.is_quiet(CPU));
    let none = Increments::new();
    let taken = machine.retire(CPU, boundary(&none, 6)).unwrap();
    assert!(matches!(taken, Output::Pmi { .. }), "{taken:?}");
    assert!(machine.is_quiet(CPU));
}
