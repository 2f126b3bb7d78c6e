//! For every rule something that breaks it, and is found: a policy or version that is known to, or a
//! fault that is put into one that does not.

use std::sync::Arc;

use vlbr_arch::Msr;
use vlbr_contract::{Bounds, ContractRule, Explored, Scene, explore};
use vlbr_cpu::ledger::Actor;
use vlbr_host::kvm::{Access, Answer, Call, ExitLevel, LbrStack};
use vlbr_host::machine::Host;
use vlbr_host::perf::{Behaviour, Errno, KernelVersion};
use vlbr_host::policy::{Catalog, Policy};
use vlbr_host::{VcpuId, VmId};

fn found(scene: &str, policy: &Arc<dyn Policy>, states: usize) -> Explored {
    let scene = Scene::builtin(scene).expect("built in");
    let bounds = Bounds {
        states,
        ..Bounds::default()
    };
    explore(&scene, policy, &bounds, &|_| {}).expect("the scene can be explored")
}

fn named(policy: &str) -> Arc<dyn Policy> {
    Catalog::builtin().named(policy).expect("a policy")
}

fn breaks(found: &Explored, rule: ContractRule) -> Option<usize> {
    let broken = found.broken.iter().find(|broken| broken.rule == rule);
    broken.map(|broken| broken.path.len())
}

#[test]
fn each_rule_is_broken_by_a_policy_that_is_known_to_break_it() {
    use ContractRule as Rule;
    for (rule, policy, scene, states, length) in [
        (
            Rule::GuestReadsOwn,
            "upstream@6.16",
            "registers-pinned-cpu",
            2000,
            4,
        ),
        (Rule::HostReadsOwn, "v8", "records-pinned-cpu", 2000, 5),
        (
            Rule::RecordsKept,
            "upstream@6.16",
            "records-pinned-cpu",
            2000,
            5,
        ),
        (Rule::OwnProcessor, "v8", "records-pinned-cpu", 2000, 4),
        (Rule::ServedAlone, "v8", "records-pinned-cpu", 2000, 6),
        (Rule::ServedBeside, "v8", "records-pinned-cpu", 2000, 4),
        (
            Rule::PassThroughWhereActive,
            "upstream@6.16",
            "user-access",
            2000,
            3,
        ),
        (
            Rule::ReferencesReturn,
            "upstream@6.16",
            "registers-pinned-cpu",
            10_000,
            7,
        ),
        (Rule::HostRecords, "upstream@6.16", "pmi-lbr", 6500, 6),
        (Rule::Recoverable, "v8", "records-pinned-cpu", 25_000, 6),
        (
            Rule::OneExitASlice,
            "v8-as-posted",
            "records-pinned-cpu",
            2000,
            4,
        ),
        (
            Rule::UnusedCostsNothing,
            "naive",
            "records-pinned-cpu",
            2000,
            2,
        ),
        (
            Rule::NoWarningEachEntry,
            "upstream@6.16",
            "user-access",
            2000,
            4,
        ),
    ] {
        let found = found(scene, &named(policy), states);
        assert_eq!(breaks(&found, rule), Some(length), "{rule} by {policy}");
        let kept = self::found(scene, &named("ideal"), states);
        assert!(
            kept.exhausted && kept.broken.is_empty(),
            "{scene} under ideal"
        );
    }
}

/// A policy whose exits read an entry, as no code of the kernel does.
#[derive(Debug)]
struct ReadsAtExits(Arc<dyn Policy>);

impl Policy for ReadsAtExits {
    fn name(&self) -> &str {
        "reads-at-exits"
    }

    fn title(&self) -> &str {
        "a policy whose exits read an entry"
    }

    fn kernel(&self) -> Option<KernelVersion> {
        self.0.kernel()
    }

    fn adjust(&self, behaviour: &mut Behaviour) {
        self.0.adjust(behaviour);
    }

    fn refresh(&self, host: &mut Host, vcpu: VcpuId) {
        self.0.refresh(host, vcpu);
    }

    fn access(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        self.0.access(host, call, access)
    }

    fn before_entry(&self, host: &mut Host, call: Call) {
        self.0.before_entry(host, call);
    }

    fn after_exit(&self, host: &mut Host, call: Call, exit: &vlbr_vmx::VmExit, level: ExitLevel) {
        self.0.after_exit(host, call, exit, level);
        let first = Msr::new(0x680);
        // What it reads is of no interest.
        let _ = host.hardware_mut().rdmsr(call.cpu, Actor::Host, first);
    }

    fn load(&self, host: &mut Host, call: Call) {
        self.0.load(host, call);
    }

    fn put(&self, host: &mut Host, call: Call) {
        self.0.put(host, call);
    }

    fn sched_in(&self, host: &mut Host, call: Call) {
        self.0.sched_in(host, call);
    }

    fn sched_out(&self, host: &mut Host, call: Call) {
        self.0.sched_out(host, call);
    }

    fn reclaim(&self, host: &mut Host, call: Call) {
        self.0.reclaim(host, call);
    }

    fn pmi(&self, host: &mut Host, call: Call) {
        self.0.pmi(host, call);
    }

    fn reset(&self, host: &mut Host, vcpu: VcpuId) {
        self.0.reset(host, vcpu);
    }

    fn check_capability(&self, host: &Host) -> u32 {
        self.0.check_capability(host)
    }

    fn enable_capability(
        &self,
        host: &mut Host,
        vm: VmId,
        enable: bool,
        pointer_is_good: bool,
    ) -> Result<LbrStack, Errno> {
        self.0.enable_capability(host, vm, enable, pointer_is_good)
    }
}

#[test]
fn a_host_that_reads_records_while_the_guest_has_the_lbr_is_found() {
    let (scene, rule) = ("records-pinned-cpu", ContractRule::HostKeepsOff);
    for base in ["upstream@6.16", "v8"] {
        assert_eq!(breaks(&found(scene, &named(base), 3000), rule), None);
        let faulty: Arc<dyn Policy> = Arc::new(ReadsAtExits(named(base)));
        let found = found(scene, &faulty, 3000);
        assert_eq!(breaks(&found, rule), Some(4), "over {base}");
    }
}
