//! What `docs/mediated-lazy.md` says of costs is what scenes cost. To draw its table again:
//! `VLBR_BLESS=1`.

use std::fmt::Write as _;
use std::path::Path;

use vlbr_cpu::ledger::CostModel;
use vlbr_host::machine::{Checking, Rule};
use vlbr_host::policy::Catalog;
use vlbr_scene::report::{Overhead, OverheadOptions};
use vlbr_scene::{SceneFile, SceneTime, Simulation};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/mediated-lazy.md");
const SCENES: [&str; 4] = ["loop", "contention", "c-state", "migration"];
const POLICIES: [&str; 7] = [
    "v8",
    "upstream@6.16",
    "naive",
    "mediated-swap",
    "msr-list",
    "mediated-lazy",
    "ideal",
];

fn scene(name: &str) -> SceneFile {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/scenes");
    SceneFile::open(&folder.join(format!("{name}.toml"))).unwrap()
}

/// Accesses of guests that were refused, dropped or answered with 0, and rules that were broken.
fn broken(file: &SceneFile, policy: &str) -> String {
    let policy = Catalog::builtin().named(policy).unwrap();
    let (scene, guests) = (file.scene(), file.guests(file.scene()).unwrap());
    let simulation =
        Simulation::new(scene, &guests, &SceneTime::Nominal, &policy, Checking::On).unwrap();
    let outcome = simulation.run(&mut |_| {}).unwrap();
    let findings = outcome.machine.findings();
    let broken = Rule::NAMED.iter();
    let broken = broken.filter(|(rule, _)| findings.count(*rule) != 0);
    let broken: Vec<&str> = broken.map(|(_, name)| *name).collect();
    match broken.is_empty() {
        true => "none".to_owned(),
        false => broken.join(", "),
    }
}

fn table() -> String {
    let mut text = "| scene | policy | RDMSR | WRMSR | exits | cycles | rules broken |\n\
                    | --- | --- | ---: | ---: | ---: | ---: | --- |\n"
        .to_owned();
    for name in SCENES {
        let file = scene(name);
        let options = OverheadOptions {
            policies: POLICIES
                .map(|policy| Catalog::builtin().named(policy).unwrap())
                .to_vec(),
            model: CostModel::published(),
            scenes: None,
            key: None,
            jobs: 2,
        };
        let overhead = Overhead::run(&file, &options, &|_, _| {}).unwrap();
        for row in &overhead.points[0].rows {
            let (counts, cycles) = (&row.counts, row.overhead.default);
            writeln!(
                text,
                "| `{name}` | `{}` | {} | {} | {} | {cycles} | {} |",
                row.policy,
                counts.reads,
                counts.writes,
                counts.exits,
                broken(&file, &row.policy)
            )
            .unwrap();
        }
    }
    text
}

#[test]
fn the_proposals_page_has_the_costs_of_the_scenes() {
    let document = std::fs::read_to_string(PATH).unwrap();
    let (before, rest) = document.split_once("<!-- costs -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- end -->").unwrap();
    let drawn = format!("{before}<!-- costs -->\n{}<!-- end -->{after}", table());
    if std::env::var_os("VLBR_BLESS").is_some() {
        std::fs::write(PATH, &drawn).unwrap();
    }
    assert!(document == drawn, "VLBR_BLESS=1 draws it again");
}
