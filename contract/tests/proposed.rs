//! What the project proposes keeps every rule in every scene.

use vlbr_contract::{Bounds, Scene, explore};
use vlbr_host::policy::Catalog;

/// Every scene but the largest is exhausted with fewer.
const STATES: usize = 8000;

#[test]
fn mediated_lazy_breaks_no_rule_in_any_scene() {
    let policy = Catalog::builtin().named("mediated-lazy").expect("built in");
    for scene in Scene::all().expect("they are right") {
        let bounds = Bounds {
            states: STATES,
            ..Bounds::default()
        };
        let found = explore(&scene, &policy, &bounds, &|_| {}).expect("it can be explored");
        let name = scene.name();
        assert!(found.broken.is_empty(), "{name}: {:?}", found.broken);
        assert_eq!(found.stuck, 0, "{name}");
        assert!(found.exhausted || name == "two-by-two", "{name}");
    }
}
