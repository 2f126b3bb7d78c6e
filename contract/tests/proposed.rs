//! What the project proposes keeps every rule in every scene.

use vlbr_contract::{Bounds, Scene, explore};
use vlbr_host::policy::Catalog;

#[test]
fn mediated_lazy_breaks_no_rule_in_any_scene() {
    let states = std::env::var("STATES").map_or(20_000, |text| text.parse().unwrap());
    for scene in Scene::all().unwrap() {
        let policy = Catalog::builtin().named("mediated-lazy").unwrap();
        let bounds = Bounds {
            states,
            ..Bounds::default()
        };
        let found = explore(&scene, &policy, &bounds, &|_| {}).unwrap();
        println!(
            "{}: {} states, exhausted {}, depth {}",
            scene.name(),
            found.states,
            found.exhausted,
            found.depth
        );
        for broken in &found.broken {
            println!("{broken:?}");
        }
    }
}
