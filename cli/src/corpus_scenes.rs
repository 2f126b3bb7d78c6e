//! The scenes of a corpus, for `vlbr corpus`.

use std::error::Error;

use vlbr_host::policy::Catalog;
use vlbr_replay::corpus::{
    Blessed, Change, CheckReport, Checked, Corpus, Progress, Shard, Verdict,
};
use vlbr_scene::golden::{self, GoldenScene, SceneVerdict};

use crate::vm;

/// Scenes and policies as `corpus.toml` names them. A scene that names no policies runs under those
/// that are built in, as the command knows them: a policy of one's own has golden results in a corpus
/// that names it.
pub(crate) fn scenes(corpus: &Corpus) -> Result<Vec<GoldenScene>, Box<dyn Error>> {
    let (catalog, _) = vm::catalog_with(&corpus.policy_files)?;
    let builtin = Catalog::builtin();
    let builtin: Vec<String> = builtin
        .all()
        .iter()
        .map(|policy| policy.name().to_owned())
        .collect();
    let scenes = corpus.scenes.iter().map(|scene| {
        let names = scene.policies.as_ref().unwrap_or(&builtin);
        let policies = names.iter().map(|name| catalog.named(name));
        let policies: Result<_, _> = policies.collect();
        Ok(GoldenScene {
            name: format!("scenes/{}", scene.name),
            file: scene.file.clone(),
            golden: corpus.golden_file_of_scene(scene),
            policies: policies.map_err(|error| {
                let file = corpus.dir.join("corpus.toml");
                format!("{}: scene {}: {error}", file.display(), scene.name)
            })?,
        })
    });
    scenes.collect()
}

/// Configurations of all traces: scenes are numbered after them.
fn of_traces(corpus: &Corpus) -> usize {
    let traces = corpus.traces.iter();
    traces.map(|trace| trace.configurations.len()).sum()
}

/// Configurations of all traces and scenes: scenarios are numbered after them.
pub(crate) fn configurations(corpus: &Corpus, scenes: &[GoldenScene]) -> usize {
    let policies = scenes.iter().map(|scene| scene.policies.len());
    of_traces(corpus) + policies.sum::<usize>()
}

/// Checks the scenes of `shard` and adds what was found to the report.
pub(crate) fn check(
    corpus: &Corpus,
    scenes: &[GoldenScene],
    jobs: usize,
    shard: Shard,
    advance: &(dyn Fn(Progress) + Sync),
    report: &mut CheckReport,
) -> Result<(), Box<dyn Error>> {
    let before = of_traces(corpus);
    let progress = |done, of| advance(Progress { done, of });
    let found = golden::check(scenes, jobs, &|n| shard.has(before + n), &progress)?;
    report.stale.extend(found.stale);
    for checked in found.checked {
        let verdict = match checked.verdict {
            SceneVerdict::Equal => Verdict::Equal,
            SceneVerdict::Failed { reason } => Verdict::Failed { reason },
            SceneVerdict::Differs { changes } => {
                let changes = changes.into_iter().map(|change| Change {
                    what: change.row,
                    old: change.old,
                    new: change.new,
                });
                Verdict::Differs {
                    changes: changes.collect(),
                }
            }
        };
        report.checked.push(Checked {
            trace: checked.scene,
            configuration: checked.policy,
            verdict,
        });
    }
    Ok(())
}

/// Writes the golden results of the scenes.
pub(crate) fn bless(
    scenes: &[GoldenScene],
    jobs: usize,
    advance: &(dyn Fn(Progress) + Sync),
    blessed: &mut Blessed,
) -> Result<(), Box<dyn Error>> {
    let progress = |done, of| advance(Progress { done, of });
    let done = golden::bless(scenes, jobs, &progress)?;
    blessed.written.extend(done.written);
    blessed.unchanged += done.unchanged;
    Ok(())
}
