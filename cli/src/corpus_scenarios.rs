//! The scenarios of a corpus, for `vlbr corpus`.

use std::error::Error;

use vlbr_replay::corpus::{
    Blessed, Change, CheckReport, Checked, Corpus, Progress, Shard, Verdict,
};
use vlbr_scenario::golden::{GoldenFile, GoldenScenarios, GoldenVerdict};

use crate::vm;

/// Folders of scenarios with their files.
pub(crate) type Folders = Vec<(GoldenScenarios, Vec<GoldenFile>)>;

/// Scenarios as `corpus.toml` names them, with the files that are there.
pub(crate) fn scenarios(corpus: &Corpus) -> Result<Folders, Box<dyn Error>> {
    let (catalog, _) = vm::catalog_with(&corpus.policy_files)?;
    let scenarios = corpus.scenarios.iter().map(|scenarios| {
        let golden = GoldenScenarios {
            name: format!("scenarios/{}", scenarios.name),
            paths: scenarios.paths.clone(),
            golden: corpus.golden_file_of_scenarios(scenarios),
            catalog: catalog.clone(),
        };
        let files = golden.files()?;
        Ok((golden, files))
    });
    scenarios.collect()
}

/// Checks the scenarios of `shard` and adds what was found to the report; `before` configurations are
/// numbered before them.
pub(crate) fn check(
    scenarios: &Folders,
    before: usize,
    shard: Shard,
    advance: &dyn Fn(Progress),
    report: &mut CheckReport,
) {
    let mut number = before;
    for (golden, files) in scenarios {
        let chosen: Vec<GoldenFile> = (number..)
            .zip(files)
            .filter(|(number, _)| shard.has(*number))
            .map(|(_, file)| file.clone())
            .collect();
        number += files.len();
        let all = shard.is_first().then_some(&**files);
        let of = chosen.len();
        let found = golden.check(&chosen, all, &|| advance(Progress { done: 0, of }));
        report.stale.extend(found.stale);
        for (file, verdict) in found.checked {
            let verdict = match verdict {
                GoldenVerdict::Equal => Verdict::Equal,
                GoldenVerdict::Failed(reason) => Verdict::Failed { reason },
                GoldenVerdict::Differs(changes) => {
                    let changes = changes.into_iter().map(|change| Change {
                        what: change.what.to_owned(),
                        old: change.old,
                        new: change.new,
                    });
                    Verdict::Differs {
                        changes: changes.collect(),
                    }
                }
            };
            report.checked.push(Checked {
                trace: golden.name.clone(),
                configuration: file,
                verdict,
            });
        }
    }
}

/// Writes the golden results of the scenarios.
pub(crate) fn bless(
    scenarios: &Folders,
    advance: &dyn Fn(Progress),
    blessed: &mut Blessed,
) -> Result<(), Box<dyn Error>> {
    for (golden, files) in scenarios {
        let of = files.len();
        match golden.bless(files, &|| advance(Progress { done: 0, of }))? {
            true => blessed.written.push(golden.golden.clone()),
            false => blessed.unchanged += 1,
        }
    }
    Ok(())
}
