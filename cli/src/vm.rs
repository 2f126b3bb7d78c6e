//! `vlbr vm`

use std::error::Error;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use vlbr_host::machine::Checking;
use vlbr_host::policy::{Catalog, Policy};
use vlbr_scene::report::{VmOptions, VmReport};
use vlbr_scene::{MispredictsSpec, SceneFile, TimingChange, policy_from_file};
use vlbr_traces::export::OutputFile;

use crate::args::MispredictsArg;
use crate::common::{self, Outcome};
use crate::scene_args::{OnOff, SceneArgs, TableOrJson, VmArgs};

/// Runs the subcommand.
pub(crate) fn run(args: &VmArgs) -> Outcome {
    let file = open(&args.common)?;
    let (catalog, own) = catalog(&args.common)?;
    let policy = match (&args.policy, own) {
        (Some(name), _) => catalog.named(name)?,
        (None, Some(own)) => own,
        (None, None) => file.policy(&catalog)?,
    };
    let model = file.cost_model(args.common.cost_model.as_deref())?;
    let guests = file.guests(file.scene())?;
    let options = VmOptions {
        policy: &policy,
        model: &model,
        checking: match args.checks {
            OnOff::On => Checking::On,
            OnOff::Off => Checking::Off,
        },
    };
    let limits = file.scene().vcpu.iter().zip(&guests);
    let total = limits.map(|(vcpu, guest)| guest.instructions(vcpu.instructions));
    let bar = common::instruction_bar(total.flatten().sum(), "running");
    let mut progress = |done| bar.set_position(done);
    let mut timeline = args
        .timeline
        .as_deref()
        .map(OutputFile::create)
        .transpose()?;
    let drawn = timeline.as_mut().map(|file| file as &mut dyn io::Write);
    let report = VmReport::run_drawn(file.scene(), &guests, options, drawn, &mut progress)
        .map_err(|error| error.within(file.path()))?;
    bar.finish_and_clear();
    if let Some(timeline) = timeline {
        timeline.commit()?;
    }
    let text = match args.format {
        TableOrJson::Json => serde_json::to_string_pretty(&report)? + "\n",
        TableOrJson::Table => report.text(args.verbose),
    };
    write(args.common.output.as_deref(), &text)?;
    Ok(ExitCode::SUCCESS)
}

/// The scene, with what the arguments change in it.
pub(crate) fn open(args: &SceneArgs) -> Result<SceneFile, Box<dyn Error>> {
    let mut file = SceneFile::open(&args.scene)?;
    if let Some(session) = &args.guest_perf {
        file.give_guest_perf(session);
    }
    let timing = &args.timing;
    file.set_timing(TimingChange {
        model: timing.timing.map(common::model),
        microarchitecture: timing.microarchitecture.clone(),
        mispredicts: timing.mispredicts.map(|who| match who {
            MispredictsArg::Predicted => MispredictsSpec::Predicted,
            MispredictsArg::Recorded => MispredictsSpec::Recorded,
        }),
        predictor: timing.predictor.clone(),
    })?;
    Ok(file)
}

/// The policies there are, and the last of one's own.
type Policies = (Catalog, Option<Arc<dyn Policy>>);

/// Reads the policies of one's own.
pub(crate) fn catalog(args: &SceneArgs) -> Result<Policies, Box<dyn Error>> {
    catalog_with(&args.policy_file)
}

/// The same of these files.
pub(crate) fn catalog_with(files: &[PathBuf]) -> Result<Policies, Box<dyn Error>> {
    let mut catalog = crate::known_policies();
    let mut own = None;
    for path in files {
        own = Some(policy_from_file(&mut catalog, path)?);
    }
    Ok((catalog, own))
}

/// Writes a text, whole or not at all.
pub(crate) fn write(output: Option<&Path>, text: &str) -> Result<(), Box<dyn Error>> {
    let Some(path) = output else {
        return common::print(text);
    };
    let mut file = OutputFile::create(path)?;
    file.write_all(text.as_bytes())
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(file.commit()?)
}
