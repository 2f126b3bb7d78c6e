//! What a migration leaves a guest of its LBR, under every policy.

use std::sync::Arc;

use vlbr_arch::vmx::ExitReason;
use vlbr_arch::{BranchClass, Cpl, Cycles, Msr, Transfer};
use vlbr_cpu::processor::Options;
use vlbr_host::kvm::{ExitLevel, GuestCpu, KvmBehaviour, Note};
use vlbr_host::machine::{
    Arrival, Carried, Checking, ExitCause, FastPath, HostConfig, Input, Machine, Migration, Output,
    Rule,
};
use vlbr_host::perf::{Behaviour, KernelVersion};
use vlbr_host::policy::Catalog;
use vlbr_host::{CpuId, TaskId, VcpuId, VmId};
use vlbr_pmu::Increments;

const CPU: CpuId = CpuId(0);
const VCPU: VcpuId = VcpuId(0);
const BRANCHES: usize = 5;

struct Bench {
    machine: Machine,
    time: u64,
    thread: TaskId,
}

impl Bench {
    fn new(part: &str, policy: &str) -> Self {
        let policy = Catalog::builtin().named(policy).unwrap();
        let kernel = policy.kernel().unwrap_or(KernelVersion::new(6, 8, 0));
        let mut behaviour = Behaviour::of(kernel);
        policy.adjust(&mut behaviour);
        let config = HostConfig {
            part: part.to_owned(),
            cpus: 2,
            options: Options::default(),
            behaviour,
            kvm: KvmBehaviour::of(kernel),
            ignore_msrs: false,
        };
        let mut machine = Machine::new(&config, Arc::clone(&policy), Checking::On).unwrap();
        let profile = vlbr_lbr::Profile::named(part).unwrap();
        let vm = machine.add_vm();
        let guest = GuestCpu {
            model: profile.models()[0],
            pdcm: true,
            pmu_version: 2,
            gp_counters: 4,
            fixed_counters: 3,
            arch_lbr_ebx: match profile.interface() {
                vlbr_lbr::Interface::Arch(arch) => arch.ebx,
                vlbr_lbr::Interface::Legacy(_) => 0,
            },
        };
        machine.add_vcpu(vm, guest).unwrap();
        let _ = machine.apply(&Input::EnableCapability(VmId(0), true, true));
        let thread = machine.host().vcpu(VCPU).thread;
        let mut bench = Self {
            machine,
            time: 0,
            thread,
        };
        bench.apply(&Input::Switch(CPU, Some(thread)));
        bench.enter();
        bench
    }

    fn apply(&mut self, input: &Input) -> Output {
        self.machine.apply(input).unwrap()
    }

    fn enter(&mut self) {
        self.apply(&Input::Run(VCPU));
        self.apply(&Input::Enter(VCPU, FastPath::No));
    }

    fn leave(&mut self) {
        let cause = ExitCause::Instruction(ExitReason::HLT, 1);
        self.apply(&Input::Exit(VCPU, cause, ExitLevel::UserSpace));
        self.apply(&Input::Leave(VCPU));
    }

    fn write(&mut self, msr: Msr, value: u64) {
        self.apply(&Input::GuestWrite(VCPU, msr, value, Cpl::Ring0));
    }

    /// The guest records branches, as it would on the part.
    fn record(&mut self) {
        if self.machine.host().lbr_msrs().arch {
            self.write(Msr::LBR_CTL, 0x7f_0007);
        } else {
            self.write(Msr::LBR_SELECT, 0);
            self.write(Msr::DEBUGCTL, 1);
        }
        for n in 0..BRANCHES as u64 {
            self.time += 10;
            let at = 0x40_1000 + 0x100 * n;
            let branch = Transfer::near(BranchClass::NearRelJmp, at, at + 0x50, Cpl::Ring3);
            let mut run = Increments::instruction(Cpl::Ring3);
            run.add_branch(BranchClass::NearRelJmp, true, false, Cpl::Ring3);
            let now = Cycles::new(self.time);
            self.apply(&Input::Retire(CPU, Box::new((run, Some(branch))), now));
        }
    }

    fn migrate(&mut self, carried: Carried) -> Migration {
        self.leave();
        match self.apply(&Input::Migrate(VCPU, carried)) {
            Output::Migrated(migration) => *migration,
            other => panic!("{other:?}"),
        }
    }

    fn note(&self, note: Note) -> u64 {
        self.machine.host().journal().count(VCPU, note)
    }
}

fn migrated(part: &str, policy: &str, carried: Carried) -> (Bench, Migration) {
    let mut bench = Bench::new(part, policy);
    bench.record();
    let migration = bench.migrate(carried);
    (bench, migration)
}

const LEGACY: [&str; 7] = [
    "v8",
    "upstream@5.12",
    "upstream@5.15",
    "upstream@6.16",
    "upstream-documented@6.16",
    "naive",
    "mediated-swap",
];

/// No list has a register of the legacy LBR, nor `IA32_DEBUGCTL`.
#[test]
fn what_is_listed_leaves_no_record_under_any_policy() {
    for policy in LEGACY
        .into_iter()
        .chain(["msr-list", "msr-list-virtualbox"])
    {
        let (bench, migration) = migrated("skylake", policy, Carried::Listed);
        assert_eq!(migration.records.len(), BRANCHES, "{policy}");
        assert_eq!(migration.count(Arrival::Lost), BRANCHES, "{policy}");
        let debugctl = (Msr::DEBUGCTL, Arrival::Lost);
        assert!(migration.controls.contains(&debugctl), "{policy}");
        assert_eq!(migration.refused, [], "{policy}");
        assert_eq!(bench.machine.findings().count(Rule::Loss), 1, "{policy}");
    }
}

/// By number they can be read and written, through the event where there is one.
#[test]
fn what_user_space_names_arrives_whole_where_it_may_be_written() {
    for policy in [
        "upstream@5.12",
        "upstream@5.15",
        "upstream@6.16",
        "naive",
        "mediated-swap",
        "mediated-lazy",
    ] {
        let (bench, migration) = migrated("skylake", policy, Carried::Named);
        assert_eq!(migration.count(Arrival::Equal), BRANCHES, "{policy}");
        let lost = migration.controls.iter().filter(|c| c.1 != Arrival::Equal);
        assert_eq!(lost.count(), 0, "{policy}: {:?}", migration.controls);
        assert_eq!(migration.refused, [], "{policy}");
        assert_eq!(bench.machine.findings().count(Rule::Loss), 0, "{policy}");
    }
}

/// The proposal lists what it has.
#[test]
fn a_mediated_lbr_arrives_whole_by_what_is_listed() {
    let (bench, migration) = migrated("skylake", "mediated-lazy", Carried::Listed);
    assert_eq!(migration.count(Arrival::Equal), BRANCHES);
    let lost = migration.controls.iter().filter(|c| c.1 != Arrival::Equal);
    assert_eq!(lost.count(), 0, "{:?}", migration.controls);
    assert_eq!(migration.refused, []);
    assert!(bench.machine.findings().is_empty());
}

/// v8 recognises no INFO register in an access that exits.
#[test]
fn v8_refuses_user_space_the_info_registers() {
    let (_, migration) = migrated("skylake", "v8", Carried::Named);
    assert_eq!(migration.refused.len(), 32);
    // INFO of the branches is 0: nothing is missing of them.
    let (_, without) = migrated("haswell", "v8", Carried::Named);
    assert_eq!(without.refused, []);
    assert_eq!(without.count(Arrival::Equal), BRANCHES);
    let refused = migration.count(Arrival::Refused);
    assert_eq!(refused + migration.count(Arrival::Equal), BRANCHES);
    assert!(refused > 0, "{migration:?}");
}

/// Xen and VirtualBox list no LBR register and have no ioctl for others.
#[test]
fn lists_of_other_hypervisors_refuse_what_they_do_not_list() {
    for policy in ["msr-list", "msr-list-virtualbox"] {
        let (_, migration) = migrated("skylake", policy, Carried::Named);
        assert_eq!(migration.count(Arrival::Refused), BRANCHES, "{policy}");
        assert!(migration.refused.contains(&Msr::DEBUGCTL), "{policy}");
    }
}

/// The series lists `IA32_LBR_CTL` and `IA32_LBR_DEPTH`; who names the records as well has all.
#[test]
fn architectural_lbr_carries_its_control_and_by_number_its_records() {
    for policy in ["arch-xsaves", "arch-msr"] {
        let (_, listed) = migrated("sapphire-rapids", policy, Carried::Listed);
        assert_eq!(listed.count(Arrival::Lost), BRANCHES, "{policy}");
        assert_eq!(
            listed.controls,
            [(Msr::LBR_CTL, Arrival::Equal)],
            "{policy}"
        );
        let (_, named) = migrated("sapphire-rapids", policy, Carried::Named);
        assert_eq!(named.count(Arrival::Equal), BRANCHES, "{policy}");
    }
}

/// Where LBR is not offered there is nothing to carry; a processor of the guest's own goes along.
#[test]
fn nothing_is_carried_without_lbr_and_everything_with_a_processor_of_ones_own() {
    for policy in ["none", "mediated"] {
        let (_, migration) = migrated("skylake", policy, Carried::Named);
        assert_eq!(migration.records, [], "{policy}");
    }
    let (bench, migration) = migrated("skylake", "ideal", Carried::Listed);
    assert_eq!(migration.count(Arrival::Equal), BRANCHES);
    assert!(bench.machine.findings().is_empty());
}

/// The catalogue has no policy that is not tried above.
#[test]
fn every_policy_is_tried() {
    let tried = [
        &LEGACY[..],
        &["msr-list", "msr-list-virtualbox", "arch-xsaves", "arch-msr"],
        &["none", "mediated", "ideal", "v8-as-posted", "mediated-lazy"],
    ]
    .concat();
    for policy in Catalog::builtin().all() {
        let name = policy.name();
        let known = tried.contains(&name) || name.starts_with("upstream@");
        assert!(known, "{name}");
        let part = if name.starts_with("arch") {
            "sapphire-rapids"
        } else {
            "skylake"
        };
        for carried in [Carried::Listed, Carried::Named] {
            let (mut bench, migration) = migrated(part, name, carried);
            let held = migration.records.len();
            let counted = Arrival::NAMED.map(|(arrival, _)| migration.count(arrival));
            assert_eq!(counted.iter().sum::<usize>(), held, "{name}");
            assert_eq!(migration.count(Arrival::Foreign), 0, "{name}");
            // The guest goes on.
            bench.enter();
            bench.record();
        }
    }
}

/// Counters are carried; the event that counts on is of the thread that runs the destination.
#[test]
fn counters_arrive_with_their_capability() {
    for policy in ["upstream@5.15", "upstream@6.16"] {
        let mut bench = Bench::new("skylake", policy);
        bench.write(Msr::PMC0, 0x7fff_0000);
        bench.write(Msr::PERFEVTSEL0, 0x43_00c4);
        let migration = bench.migrate(Carried::Listed);
        assert_eq!((migration.read, migration.written), (1 + 3 + 3 + 8, 15));
        bench.enter();
        let vcpu = bench.machine.host().vcpu(VCPU);
        assert_eq!(vcpu.pmu.gp[0].value, 0x7fff_0000, "{policy}");
        assert!(vcpu.pmu.gp[0].event.is_some(), "{policy}");
        assert_eq!(vcpu.perf_capabilities, 0x2005, "{policy}");
    }
}

/// A monitor that reads MSRs by number makes the event, for itself.
#[test]
fn reading_by_number_makes_the_event_for_the_thread_that_reads() {
    let mut bench = Bench::new("skylake", "upstream@6.16");
    bench.leave();
    let monitor = bench.machine.add_task("monitor", false);
    bench.apply(&Input::Switch(CPU, None));
    bench.apply(&Input::Switch(CPU, Some(monitor)));
    let listed = bench.apply(&Input::GetMsrs(monitor, VCPU, Carried::Listed));
    assert!(matches!(listed, Output::Msrs(values, refused)
        if values.len() == 15 && refused.is_empty()));
    assert_eq!(bench.note(Note::EventCreated), 0);
    let named = bench.apply(&Input::GetMsrs(monitor, VCPU, Carried::Named));
    assert!(matches!(named, Output::Msrs(values, _) if values.len() == 15 + 3 + 96));
    assert_eq!(bench.note(Note::EventCreated), 1);
    let host = bench.machine.host();
    let event = host.lbr_event(VCPU).unwrap();
    assert_eq!(event.target().task(), Some(monitor));
    assert_ne!(event.target().task(), Some(bench.thread));
}

/// Before 5.4 nothing is listed.
#[test]
fn the_seeds_kernel_lists_nothing_of_the_pmu() {
    let (_, migration) = migrated("skylake", "v8", Carried::Listed);
    assert_eq!((migration.read, migration.written), (0, 0));
}
