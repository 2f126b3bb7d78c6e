//! Damaged scenes, policies and sweeps: refused on one line, or something that can be made.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use vlbr_fuzz::{Form, throw};
use vlbr_host::machine::Checking;
use vlbr_host::policy::{Catalog, Policy};
use vlbr_scene::import::{Import, ImportError, ImportOptions};
use vlbr_scene::report::Sweep;
use vlbr_scene::{GuestSource, Scene, SceneTime, Simulation};

/// Most guests and processors that a damaged scene is made with.
const FEW: usize = 8;
/// Longest run of a damaged scene, in microseconds.
const SHORT: u64 = 50;

/// The bundled scenes.
fn seeds() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/scenes");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|file| fs::read(file).unwrap())
        .collect()
}

fn one_line(error: &impl ToString) {
    let said = error.to_string();
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn fuzz_scene() {
    let policy: Arc<dyn Policy> = Catalog::builtin().named("v8").unwrap();
    let mut ran = 0;
    let tally = throw("scene", 2000, Form::Text, &seeds(), |bytes| {
        let Ok(text) = str::from_utf8(bytes) else {
            return false;
        };
        let mut scene = match Scene::from_toml(text) {
            Ok(scene) => scene,
            Err(error) => {
                one_line(&error);
                return false;
            }
        };
        if scene.vcpu.len() > FEW || usize::from(scene.cpus) > FEW {
            return true;
        }
        scene.duration_us = Some(SHORT);
        scene.mhz = scene.mhz.min(3000);
        let Some(guests) = loops(&scene) else {
            return true;
        };
        match Simulation::new(&scene, &guests, &SceneTime::Nominal, &policy, Checking::On) {
            Err(error) => one_line(&error),
            Ok(simulation) => match simulation.run(&mut |_| {}) {
                Err(error) => one_line(&error),
                Ok(_) => ran += 1,
            },
        }
        true
    });
    assert!(tally.taken > 0 && tally.refused > 0 && ran > 0);
}

/// The guests of a scene of loops; `None` if it has traces.
fn loops(scene: &Scene) -> Option<Vec<GuestSource>> {
    let loops = scene.vcpu.iter().map(|vcpu| vcpu.looped);
    loops
        .map(|looped| GuestSource::looped(looped?).ok())
        .collect()
}

/// Parts of the bundled recordings, and lines that they do not hold.
fn recordings() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/scenes/import");
    let part = |name: &str, begin: usize| {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        let lines: Vec<_> = text.lines().skip(begin).take(12).collect();
        (lines.join("\n") + "\n").into_bytes()
    };
    let rare = b"cpus=4\nversion = 7\n          <idle>-0     (-----) [000] d..2. 1.000001: sched_switch: prev_comm=swapper/0 \
        prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=a next_pid=7 next_prio=120\n    a-7    0d..1. 1.000002: \
        kvm_entry: vcpu 0\nCPU:0 [LOST 7 EVENTS]\n    a-7  [000] 1.000003000: kvm_exit: reason UNKNOWN (74) FAILED_VMENTRY \
        rip 0x1 f+0x1 info 0 1\n    a-7  [000] 1.000004: sched_migrate_task: comm=a pid=7 prio=120 orig_cpu=0 dest_cpu=1\n";
    vec![
        part("perf-script.txt", 0),
        part("perf-script.txt", 60),
        part("trace-cmd.txt", 0),
        part("trace-cmd.txt", 90),
        rare.to_vec(),
    ]
}

#[test]
fn fuzz_import() {
    let mut made = 0;
    let tally = throw("import", 5000, Form::Text, &recordings(), |bytes| {
        let mut import = Import::new(None);
        if let Err(error) = import.read(Path::new("text"), &mut &*bytes) {
            assert!(matches!(error, ImportError::Line { .. }), "{error}");
            return false;
        }
        match import.finish(&ImportOptions::default()) {
            Ok(imported) => {
                // What is made is a scene, and what was counted can be printed.
                made += 1;
                let scene = Scene::from_toml(&imported.text).unwrap();
                assert_eq!(scene.vcpu.len(), imported.summary.vcpus.len());
                assert!(!imported.summary.text().is_empty());
            }
            Err(error) => one_line(&error),
        }
        true
    });
    assert!(tally.taken > 0 && tally.refused > 0 && made > 0);
}

#[test]
fn fuzz_policy() {
    let seeds = [
        b"name = \"keep\"\nbase = \"upstream@6.8\"\ntitle = \"mine\"\nkernel = \"6.9\"\n[change]\nrelease = \
          \"never\"\nopen = \"at-entry\"\nchecks-values = false\n"
            .to_vec(),
        b"name = \"swap\"\nbase = \"naive\"\n[change]\nat = \"put\"\nwhom = \"guest-only\"\n".to_vec(),
        b"name = \"list\"\nbase = \"msr-list\"\n[change]\ndisarms = true\n".to_vec(),
    ];
    let catalog = Catalog::builtin();
    let tally = throw("policy", 2000, Form::Text, &seeds, |bytes| {
        let Ok(text) = str::from_utf8(bytes) else {
            return false;
        };
        match catalog.from_toml(text) {
            Ok(policy) => {
                let mut catalog = catalog.clone();
                catalog.register(Arc::clone(&policy));
                assert!(catalog.named(policy.name()).is_ok());
                true
            }
            Err(error) => {
                one_line(&error);
                false
            }
        }
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}

#[test]
fn fuzz_sweep() {
    let seeds = [
        b"vcpu.exits.external-interrupt=10..1000*10".to_vec(),
        b"scheduling.slice-us=100..900+100".to_vec(),
        b"part=haswell,skylake".to_vec(),
    ];
    let tally = throw("sweep", 2000, Form::Text, &seeds, |bytes| {
        let Ok(text) = str::from_utf8(bytes) else {
            return false;
        };
        match Sweep::parse(text) {
            Ok(sweep) => {
                assert!(!sweep.values().is_empty() && sweep.values().len() <= 1000);
                true
            }
            Err(error) => {
                one_line(&error);
                false
            }
        }
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}
