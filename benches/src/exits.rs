//! A guest that does little but exit.

use std::time::Instant;

use vlbr_host::machine::Checking;
use vlbr_host::policy::Catalog;
use vlbr_scene::{GuestSource, Scene, SceneTime, Simulation};

/// Instructions from one exit to the next, on average.
pub const GAP: u64 = 10;

/// A guest that exits every [`GAP`] instructions, half of the exits external interrupts and half EPT
/// violations, with the LBR on for a perf session of its own.
///
/// # Errors
/// The scene is refused.
pub fn scene(exits: u64) -> Result<Scene, vlbr_scene::SceneError> {
    let rate = 1_000_000 / GAP / 2;
    Scene::from_toml(&format!(
        "name = \"exits\"\npart = \"skylake\"\ncpus = 1\n[[vm]]\nname = \"a\"\n[[vcpu]]\nvm = \"a\"\n\
         loop = {{}}\ninstructions = {}\nguest-perf = \"instructions:1000000\"\n\
         exits = {{ external-interrupt = {rate}, ept-violation = {rate} }}\n",
        exits * GAP
    ))
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// VM exits that happened.
    pub exits: u64,
    /// Seconds.
    pub seconds: f64,
}

/// Runs the scene under a policy on this thread, without checks. `msr_by_msr`: entries are read and
/// written register by register.
///
/// # Errors
/// No policy has the name, or the run fails.
pub fn run(
    scene: &Scene,
    policy: &str,
    msr_by_msr: bool,
) -> Result<Run, Box<dyn core::error::Error>> {
    let policy = Catalog::builtin().named(policy)?;
    let spec = scene.vcpu[0].looped.ok_or("the guest is a loop")?;
    let sources = [GuestSource::looped(spec)?];
    let begin = Instant::now();
    let mut simulation =
        Simulation::new(scene, &sources, &SceneTime::Nominal, &policy, Checking::Off)?;
    simulation.set_msr_by_msr(msr_by_msr);
    let outcome = simulation.run(&mut |_| {})?;
    Ok(Run {
        exits: outcome.vcpus.iter().map(|vcpu| vcpu.exits.total).sum(),
        seconds: begin.elapsed().as_secs_f64(),
    })
}
