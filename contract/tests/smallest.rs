//! The smallest scene, one vCPU, one processor and one event of the host, under each policy.

use std::path::Path;

use vlbr_contract::{Bounds, Explored, Rival, Scene, explore};
use vlbr_host::policy::Catalog;

fn explored(policy: &str, rival: Rival, threads: usize) -> Explored {
    let policy = Catalog::builtin().named(policy).expect("a policy");
    let scene = Scene::smallest(policy, rival);
    let bounds = Bounds {
        threads,
        ..Bounds::default()
    };
    explore(&scene, &bounds).expect("the scene can be explored")
}

#[test]
fn look() {
    for policy in ["ideal", "v8", "upstream@6.16", "v8-as-posted"] {
        for (rival, name) in Rival::NAMED {
            let begin = std::time::Instant::now();
            let found = explored(policy, rival, 2);
            println!(
                "{policy} {name}: {} states {} transitions depth {} exhausted {} stuck {:?} in {:?}",
                found.states(), found.transitions(), found.depth(), found.exhausted(), found.stuck(), begin.elapsed()
            );
            for (way, path) in found.violations() {
                println!("   {way:?}: {} {path:?}", path.len());
            }
            for text in found.scenarios().expect("texts") {
                let scenario = vlbr_scenario::parse(Path::new("2901-shown.scn"), &text).expect(&text);
                let (_, failures) = vlbr_scenario::run_scenario(&scenario);
                println!("{} {failures:?}", text.lines().nth(1).unwrap());
                if !failures.is_empty() { println!("{text}"); }
            }
        }
    }
}
