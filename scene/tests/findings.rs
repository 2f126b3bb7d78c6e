//! What goes wrong in the scenarios 8/* is found in scenes of their own, and nothing on a processor
//! of the guest's own.

use std::path::Path;
use std::sync::Arc;

use vlbr_arch::Msr;
use vlbr_cpu::ledger::Actor;
use vlbr_host::kvm::{Access, Answer, Call, LbrStack};
use vlbr_host::machine::{Checking, Findings, Host, Rule, Violation};
use vlbr_host::perf::{Behaviour, Errno};
use vlbr_host::policy::{Catalog, EventPolicy, Policy};
use vlbr_host::{CpuId, Owner, VcpuId, VmId};
use vlbr_scene::{OnViolation, SceneError, SceneFile, SceneTime, Simulation};

const GUEST: Owner = Owner::Guest(VcpuId(0));

fn run(name: &str, policy: &str, on_violation: OnViolation) -> Result<Findings, SceneError> {
    run_under(name, &Catalog::builtin().named(policy)?, on_violation)
}

fn run_under(
    name: &str,
    policy: &Arc<dyn Policy>,
    on_violation: OnViolation,
) -> Result<Findings, SceneError> {
    let path = format!(
        "{}/../corpus/scenes/{name}.toml",
        env!("CARGO_MANIFEST_DIR")
    );
    let file = SceneFile::open(Path::new(&path))?;
    let guests = file.guests(file.scene())?;
    let mut scene = file.scene().clone();
    scene.on_violation = on_violation;
    let outcome = Simulation::new(&scene, &guests, &SceneTime::Nominal, policy, Checking::On)?
        .run(&mut |_| {})?;
    Ok(outcome.machine.findings().clone())
}

/// The first violation of a rule, and that the scene ends with an error if it asks for that.
fn first(name: &str, policy: &str, rule: Rule) -> Violation {
    let found = run(name, policy, OnViolation::Report).unwrap();
    let first = found.violations().iter().find(|found| found.rule == rule);
    let first = first.unwrap_or_else(|| panic!("{name} under {policy}: no {rule}"));
    match run(name, policy, OnViolation::Fail) {
        Err(SceneError::Violation(stopped)) => assert_eq!(*stopped, found.violations()[0]),
        other => panic!("{name} under {policy}: {other:?}"),
    }
    for kept in [OnViolation::Report, OnViolation::Fail] {
        let ideal = run(name, "ideal", kept).unwrap();
        assert!(ideal.is_empty(), "{name}: {ideal:?}");
    }
    first.clone()
}

#[test]
fn case_42_a_guest_that_lost_the_lbr_records_into_the_hosts_stack() {
    let leak = first("leak", "v8", Rule::Leak);
    assert_eq!((leak.owner, leak.actor), (GUEST, Owner::Kernel));
    assert_eq!(leak.cpu, Some(CpuId(0)));
    assert!(leak.input > 0);
    assert_eq!(
        leak.path,
        "a guest's branch enters the stack of a host event"
    );
    // As KVM's comments describe it, the event is lost as well. As it is coded, it is not.
    first("leak", "upstream-documented@6.16", Rule::Leak);
    let coded = run("leak", "upstream@5.15", OnViolation::Report).unwrap();
    assert_eq!(coded.count(Rule::Leak), 0);
}

#[test]
fn case_44_taking_the_lbr_away_saves_nothing() {
    let loss = first("loss", "v8", Rule::Loss);
    assert_eq!((loss.owner, loss.actor), (GUEST, Owner::Kernel));
    assert_eq!(loss.cpu, Some(CpuId(0)));
    assert!(loss.input > 0);
    assert_eq!(loss.path, "32 of 32 records are gone after Open");
    // What the guest finds when it has the LBR again.
    let denial = first("loss", "v8", Rule::Denial);
    assert!(denial.input > loss.input);
    assert!(denial.path.starts_with("a read gives 0 by an exit"));
}

#[test]
fn case_34_a_guest_is_denied_the_records_of_an_event_that_was_released() {
    for policy in ["upstream@5.15", "upstream@6.16"] {
        let denial = first("denial", policy, Rule::Denial);
        assert_eq!((denial.owner, denial.actor), (GUEST, GUEST));
        assert_eq!(denial.cpu, Some(CpuId(0)));
        assert!(denial.input > 0);
        assert_eq!(
            denial.msr.map(|msr| msr.to_string()).as_deref(),
            Some("MSR_LASTBRANCH_0_FROM_IP")
        );
        let path = "a read gives 0 by an exit instead of what the guest has";
        assert_eq!(denial.path, path);
        // The records go with the access that creates the new event.
        let loss = first("denial", policy, Rule::Loss);
        assert_eq!(loss.input, denial.input);
        assert_eq!(loss.path, "32 of 32 records are gone after GuestRead");
    }
    // v8 keeps the event for a slice in which the guest used it.
    let v8 = run("denial", "v8", OnViolation::Fail).unwrap();
    assert!(v8.is_empty());
}

#[test]
fn case_36_a_guest_that_comes_second_is_refused() {
    let fault = first("refused", "v8", Rule::Denial);
    assert_eq!(fault.path, "#GP by an exit");
    let dropped = first("refused", "upstream-documented@6.16", Rule::Denial);
    assert_eq!(dropped.path, "a write is dropped by an exit");
}

#[test]
fn case_94_an_event_that_is_active_without_a_reset_shows_the_hosts_records() {
    let leak = first("no-reset", "upstream@5.15", Rule::Leak);
    assert_eq!((leak.owner, leak.actor), (Owner::Kernel, GUEST));
    assert_eq!(leak.path, "a guest reads passed through");
}

/// v8, but the host reads TOS before every entry.
#[derive(Debug)]
struct Peeks(EventPolicy);

impl Policy for Peeks {
    fn name(&self) -> &str {
        "peeks"
    }

    fn title(&self) -> &str {
        "v8 with a host that looks"
    }

    fn adjust(&self, behaviour: &mut Behaviour) {
        self.0.adjust(behaviour);
    }

    fn access(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        self.0.access(host, call, access)
    }

    fn before_entry(&self, host: &mut Host, call: Call) {
        self.0.before_entry(host, call);
        let read = host.rdmsr(call.cpu, Actor::Host, Msr::LASTBRANCH_TOS);
        assert!(read.is_ok());
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
fn the_host_touches_no_records_of_a_guest_on_one_processor_of_several() {
    // Each guest of the scene has its own processor, and both do not have the LBR all the time.
    let peeks: Arc<dyn Policy> = Arc::new(Peeks(EventPolicy::v8(false)));
    let found = run_under("pinned", &peeks, OnViolation::Report).unwrap();
    let touched = |cpu: u16| {
        let violations = found.violations().iter();
        let mut touched = violations.filter(|found| found.rule == Rule::HostAccess);
        touched.any(|found| found.cpu == Some(CpuId(cpu)))
    };
    assert!(touched(0) && touched(1));
    let v8 = run("pinned", "v8", OnViolation::Report).unwrap();
    assert_eq!(v8.count(Rule::HostAccess), 0);
}
