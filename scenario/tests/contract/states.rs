//! The diagrams of `docs/contract.md` that show the states of a vCPU's LBR: drawn from the tables here, and each way in
//! them taken on a host. To draw them again: `VLBR_BLESS=1`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use vlbr_scenario::{Failure, parse, run_scenario};

/// A state: how it is reached, and what tells it from others.
struct State {
    name: &'static str,
    reached: &'static [&'static str],
    looks: &'static [&'static str],
}

/// A way from one state to another: what it is called, and one instance of it.
struct Way {
    from: &'static str,
    to: &'static str,
    label: &'static str,
    steps: &'static [&'static str],
}

const fn way(
    from: &'static str,
    to: &'static str,
    label: &'static str,
    steps: &'static [&'static str],
) -> Way {
    Way {
        from,
        to,
        label,
        steps,
    }
}

/// How the LBR of a vCPU is kept under a policy.
struct Chart {
    /// Its mark in the document.
    mark: &'static str,
    policy: &'static str,
    /// The vCPU in its thread, which runs on processor 0.
    start: &'static [&'static str],
    states: &'static [State],
    ways: &'static [Way],
}

const READ: &str = "guest v0 rdmsr MSR_LBR_SELECT = 0";
const RECORD: &str = "guest v0 wrmsr IA32_DEBUGCTL LBR";
const STOP: &str = "guest v0 wrmsr IA32_DEBUGCTL 0";
const RIVAL: &str = "event h branches on cpu0 pinned period 1048576 branch any,u,k";
const OUT: &str = "switch cpu0 idle";
const IN: &str = "switch cpu0 v0";
const EXIT: &str = "exit v0 hlt";
const ENTER: &str = "enter v0";
const LEAVE: &str = "leave v0";
const BY_IOCTL: &str = "user v0 v0 wrmsr IA32_DEBUGCTL LBR";
const CLOSED: &str = "exits v0 MSR_LBR_SELECT";
const OPEN: &str = "passes v0 MSR_LBR_SELECT";
const NONE: &str = "state v0.lbr is none";
const ACTIVE: &str = "state v0.lbr is active on cpu0";
const INACTIVE: &str = "state v0.lbr is inactive";
const ERROR: &str = "state v0.lbr is error";

const V8: Chart = Chart {
    mark: "v8",
    policy: "v8",
    start: &[
        "vcpu v0 in a",
        "cap a on => 32 0x1c9 0x680 0x6c0 0xdc0",
        IN,
        "run v0",
        ENTER,
    ],
    states: &[
        State {
            name: "Idle",
            reached: &[],
            looks: &[NONE, CLOSED],
        },
        State {
            name: "Open",
            reached: &[READ],
            looks: &[ACTIVE, OPEN],
        },
        State {
            name: "Parked",
            reached: &[READ, OUT],
            looks: &[INACTIVE, OPEN],
        },
        State {
            name: "Armed",
            reached: &[READ, OUT, IN],
            looks: &[ACTIVE, CLOSED],
        },
        State {
            name: "Lost",
            reached: &[READ, EXIT, RIVAL],
            looks: &[ERROR, OPEN],
        },
        State {
            name: "Denied",
            reached: &[READ, RIVAL],
            looks: &[ERROR, CLOSED],
        },
    ],
    ways: &[
        way("Idle", "Open", "access, the event is placed", &[READ]),
        way(
            "Idle",
            "Denied",
            "access beside a rival, #GP",
            &[RIVAL, "guest v0 rdmsr MSR_LBR_SELECT => #GP"],
        ),
        way("Open", "Parked", "switched out, perf saves", &[OUT]),
        way(
            "Parked",
            "Armed",
            "switched in, perf restores, KVM closes",
            &[IN],
        ),
        way("Armed", "Open", "access", &[ENTER, READ]),
        way(
            "Armed",
            "Idle",
            "a slice without access, LBR clear",
            &[OUT, IN],
        ),
        way("Open", "Lost", "rival while in the host", &[EXIT, RIVAL]),
        way("Lost", "Denied", "VM entry", &[ENTER]),
        way("Open", "Denied", "rival while in the guest", &[RIVAL]),
        way("Denied", "Idle", "switched in, LBR clear", &[OUT, IN]),
        way(
            "Open",
            "Idle",
            "reset, then VM entry",
            &[EXIT, "reset v0", ENTER],
        ),
        way("Denied", "Idle", "reset", &[EXIT, "reset v0"]),
    ],
};

/// Takes the guest's event from its place without asking for the LBR: see the pinned cascade.
const CASCADE: &str = "event r ref-cycles on cpu0 pinned";
const COUNTER: &str = "guest v0 wrmsr IA32_FIXED_CTR_CTRL 0x300";

const UPSTREAM: Chart = Chart {
    mark: "upstream",
    policy: "upstream@6.16",
    start: &["vcpu v0 in a", IN, "run v0", ENTER, COUNTER],
    states: &[
        State {
            name: "Idle",
            reached: &[],
            looks: &[NONE, CLOSED],
        },
        State {
            name: "Created",
            reached: &[EXIT, LEAVE, BY_IOCTL],
            looks: &[ACTIVE, CLOSED],
        },
        State {
            name: "Open",
            reached: &[RECORD],
            looks: &[ACTIVE, OPEN],
        },
        State {
            name: "Parked",
            reached: &[RECORD, OUT],
            looks: &[INACTIVE, OPEN],
        },
        State {
            name: "Lost",
            reached: &[RECORD, EXIT, CASCADE],
            looks: &[ERROR, OPEN],
        },
        State {
            name: "Denied",
            reached: &[RECORD, CASCADE],
            looks: &[ERROR, CLOSED],
        },
    ],
    ways: &[
        way(
            "Idle",
            "Created",
            "DEBUGCTL.LBR or a register, by ioctl",
            &[EXIT, LEAVE, BY_IOCTL],
        ),
        way("Created", "Open", "VM entry", &["run v0", ENTER]),
        way(
            "Idle",
            "Open",
            "DEBUGCTL.LBR or an access, then VM entry",
            &[RECORD],
        ),
        way("Open", "Parked", "switched out, perf saves", &[OUT]),
        way("Parked", "Open", "switched in, perf restores", &[IN]),
        way(
            "Open",
            "Idle",
            "VM entry behind a switch, LBR clear",
            &[STOP, OUT, IN, ENTER],
        ),
        way(
            "Open",
            "Lost",
            "event fails while in the host",
            &[EXIT, CASCADE],
        ),
        way("Lost", "Denied", "VM entry, warning", &[ENTER]),
        way(
            "Open",
            "Denied",
            "event fails while in the guest",
            &[CASCADE],
        ),
        way(
            "Denied",
            "Idle",
            "VM entry behind a switch, LBR clear",
            &[STOP, OUT, IN, ENTER],
        ),
        way(
            "Open",
            "Idle",
            "reset, then VM entry",
            &[EXIT, "reset v0", ENTER],
        ),
        way("Denied", "Idle", "reset", &[EXIT, "reset v0"]),
    ],
};

/// Blocks of a scenario, run: what fails.
fn failures(chart: &Chart, blocks: &[(&str, &[&str])]) -> Vec<Failure> {
    let mut text = format!(
        "scenario 1\ntitle: A way\narea: contract\nrule: contract/1\nsource: here\nevidence: source\n\
         profiles: skylake\npolicies: {}\ndescription:\n  None.\n\n",
        chart.policy
    );
    for (block, steps) in blocks {
        let _ = writeln!(text, "{block}");
        for step in *steps {
            let _ = writeln!(text, "  {step}");
        }
    }
    let scenario = parse(Path::new("3199-way.scn"), &text).unwrap();
    run_scenario(&scenario).1
}

fn state<'a>(chart: &'a Chart, name: &str) -> &'a State {
    let found = chart.states.iter().find(|state| state.name == name);
    found.unwrap_or_else(|| panic!("{name}"))
}

#[test]
fn every_way_between_the_states_of_a_vcpus_lbr_is_taken_as_drawn() {
    for chart in [V8, UPSTREAM] {
        for way in chart.ways {
            let (from, to) = (state(&chart, way.from), state(&chart, way.to));
            let blocks: [(&str, &[&str]); 5] = [
                ("given", chart.start),
                ("when", from.reached),
                ("then", from.looks),
                ("when", way.steps),
                ("then", to.looks),
            ];
            let failed = failures(&chart, &blocks);
            let name = format!("{}: {} to {}", chart.mark, way.from, way.to);
            assert!(failed.is_empty(), "{name}: {failed:#?}");
        }
    }
}

#[test]
fn no_two_states_look_alike() {
    for chart in [V8, UPSTREAM] {
        for one in chart.states {
            for other in chart.states.iter().filter(|other| other.name != one.name) {
                let blocks: [(&str, &[&str]); 3] = [
                    ("given", chart.start),
                    ("when", one.reached),
                    ("then", other.looks),
                ];
                let failed = failures(&chart, &blocks);
                assert!(!failed.is_empty(), "{} as {}", one.name, other.name);
            }
        }
    }
}

fn diagram(chart: &Chart) -> String {
    let mut text = "```mermaid\nstateDiagram-v2\n    [*] --> Idle\n".to_owned();
    for way in chart.ways {
        let _ = writeln!(text, "    {} --> {}: {}", way.from, way.to, way.label);
    }
    text + "```\n"
}

#[test]
fn the_document_draws_these_tables() {
    let path = super::project().join("docs/contract.md");
    let document = fs::read_to_string(&path).unwrap();
    let mut drawn = document.clone();
    for chart in [V8, UPSTREAM] {
        let mark = format!("<!-- {} -->\n", chart.mark);
        let (before, rest) = drawn.split_once(&mark).unwrap();
        let (_, after) = rest.split_once("<!-- end -->").unwrap();
        drawn = format!("{before}{mark}{}<!-- end -->{after}", diagram(&chart));
    }
    if std::env::var_os("VLBR_BLESS").is_some() {
        fs::write(&path, &drawn).unwrap();
    }
    assert!(
        document == drawn,
        "docs/contract.md differs: VLBR_BLESS=1 draws it again"
    );
}
