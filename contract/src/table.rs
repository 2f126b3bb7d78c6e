//! Policies by rules: many scenes under many policies.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use vlbr_host::policy::{Catalog, Policy};

use crate::explore::{Bounds, Broken, Explored, explore};
use crate::start::Start;
use crate::{ContractError, ContractRule, Scene};

/// Most bytes of a result that was kept.
const MAX_KEPT: u64 = 1 << 24;
/// Longest part of the name of one: two of them are a name that file systems take.
const LONGEST_PART: usize = 100;
/// The place of policies that are not built in, the last of a rule's hundred.
const LAST_PLACE: usize = 48;

/// What is to be explored.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The policies, in the order of the table.
    pub policies: Vec<Arc<dyn Policy>>,
    /// The scenes.
    pub scenes: Vec<Scene>,
    /// How far.
    pub bounds: Bounds,
    /// Where results are kept; those that are there already, of the same scene and bounds, are
    /// taken from there.
    pub kept: Option<PathBuf>,
    /// What tells the program from others that could find something else: results that another one kept
    /// are not taken.
    pub build: String,
    /// Threads.
    pub threads: usize,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// How far scenes were explored.
    pub bounds: Bounds,
    /// Each scene under each policy: by policy, then by scene.
    pub explored: Vec<Explored>,
}

/// A result with what it is of.
#[derive(Serialize, Deserialize)]
struct Kept {
    build: String,
    /// The policy with its knobs.
    policy: String,
    scene: String,
    bounds: Bounds,
    explored: Explored,
}

impl Kept {
    /// Whether exploring up to these bounds would give the same.
    fn reaches(&self, bounds: &Bounds) -> bool {
        let whole = self.explored.exhausted && self.bounds.depth == bounds.depth;
        self.bounds == *bounds || (whole && self.bounds.states <= bounds.states)
    }
}

impl Plan {
    /// Explores every scene under every policy, several at once; `progress` is told of states as they
    /// are seen: which of the explorations, how many, and whether that was the last of it.
    ///
    /// # Errors
    /// The first, in the order of the table.
    pub fn run(
        &self,
        progress: &(dyn Fn(usize, usize, bool) + Sync),
    ) -> Result<Table, ContractError> {
        let all: Vec<_> = self.pairs().enumerate().collect();
        // What cannot be set up is known before the work begins, and so is where nothing can be kept.
        for (_, (policy, scene)) in &all {
            Start::of(scene, policy)?;
        }
        if let Some(folder) = &self.kept {
            fs::create_dir_all(folder).map_err(|error| ContractError::File {
                path: folder.clone(),
                error,
            })?;
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(self.threads)
            .build()?;
        let results: Vec<Result<Explored, ContractError>> = pool.install(|| {
            let one = all.par_iter().with_max_len(1);
            one.map(|(n, (policy, scene))| {
                let result = self.one(policy, scene, &|states| progress(*n, states, false));
                progress(*n, result.as_ref().map_or(0, |found| found.states), true);
                result
            })
            .collect()
        });
        let explored: Result<Vec<_>, _> = results.into_iter().collect();
        Ok(Table {
            bounds: self.bounds,
            explored: explored?,
        })
    }

    /// Each scene under each policy. Among several policies those for architectural LBR leave out scenes
    /// that name no part for them.
    fn pairs(&self) -> impl Iterator<Item = (&Arc<dyn Policy>, &Scene)> {
        let several = self.policies.len() > 1;
        let policies = self.policies.iter();
        let all = policies.flat_map(|policy| self.scenes.iter().map(move |scene| (policy, scene)));
        all.filter(move |(policy, scene)| !several || Start::part(scene, policy).is_ok())
    }

    /// How many explorations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs().count()
    }

    /// Whether there is nothing to explore.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn one(
        &self,
        policy: &Arc<dyn Policy>,
        scene: &Scene,
        progress: &dyn Fn(usize),
    ) -> Result<Explored, ContractError> {
        let file = self.kept.as_ref().map(|folder| {
            let (policy, scene) = (escaped(policy.name()), escaped(scene.name()));
            folder.join(format!("{policy}.{scene}.json"))
        });
        if let Some(kept) = file.as_deref().and_then(read)
            && kept.build == self.build
            && kept.scene == scene.text()
            && kept.reaches(&self.bounds)
            && (&kept.explored.policy, &kept.explored.scene)
                == (&policy.name().to_owned(), &scene.name().to_owned())
            && kept.policy == format!("{policy:?}")
        {
            return Ok(kept.explored);
        }
        let explored = explore(scene, policy, &self.bounds, progress)?;
        if let Some(file) = file {
            let kept = Kept {
                build: self.build.clone(),
                policy: format!("{policy:?}"),
                scene: scene.text().to_owned(),
                bounds: self.bounds,
                explored: explored.clone(),
            };
            write(&file, &kept).map_err(|error| ContractError::File { path: file, error })?;
        }
        Ok(explored)
    }
}

/// A result that was kept; one that cannot be read is found anew.
fn read(file: &Path) -> Option<Kept> {
    let known = fs::metadata(file).ok()?;
    (known.is_file() && known.len() <= MAX_KEPT).then_some(())?;
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

fn write(file: &Path, kept: &Kept) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer_pretty(&mut temporary, kept)?;
    temporary.flush()?;
    temporary.persist(file)?;
    Ok(())
}

/// A name as part of a file's, another for each: what is no letter, digit, `-`, `@` or `_` is `%` and its
/// number in two digits. Of long ones the end is a hash.
fn escaped(name: &str) -> String {
    let bytes = name.bytes().map(|byte| match byte {
        byte if byte.is_ascii_alphanumeric() || b"-@_".contains(&byte) => char::from(byte).into(),
        byte => format!("%{byte:02x}"),
    });
    let all: String = bytes.collect();
    if all.len() <= LONGEST_PART {
        return all;
    }
    let hash = ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(name);
    format!("{}%{hash:016x}", &all[..LONGEST_PART - 17])
}

/// How the scenarios of a policy are named: its place among those that are built in, or the last, and its
/// name in letters, digits and `-`, which are all that names of scenarios have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stem {
    place: usize,
    name: String,
}

impl Stem {
    /// Those of policies in this order, another for each: of several that would have one, all but the
    /// first are numbered.
    fn all<'a>(policies: impl Iterator<Item = &'a str>) -> Vec<Self> {
        let known = Catalog::builtin();
        let mut stems: Vec<Self> = Vec::new();
        for policy in policies {
            let place = known.all().iter().position(|known| known.name() == policy);
            let plain = |c: char| match c.is_ascii_alphanumeric() {
                true => c.to_ascii_lowercase(),
                false => '-',
            };
            let name: String = policy.chars().map(plain).collect();
            let place = place.unwrap_or(LAST_PLACE).min(LAST_PLACE);
            let mut stem = Self {
                place,
                name: name.clone(),
            };
            let mut number = 2;
            while stems.contains(&stem) {
                stem.name = format!("{name}-{number}");
                number += 1;
            }
            stems.push(stem);
        }
        stems
    }

    /// The file by which the policy breaks a rule.
    fn file(&self, rule: ContractRule) -> String {
        let number = 3000 + 100 * rule.number() + 51 + self.place;
        format!("{number}-{}-{}.scn", self.name, rule.name())
    }
}

/// What is known of a rule under a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell<'a> {
    /// Guests are offered no LBR, or perf knows of none: there is nothing to keep.
    NotApplicable,
    /// In every state of every scene that is meant to be exhausted.
    Kept,
    /// In the states that were reached.
    KeptSoFar,
    /// The shortest way to break it, and in which scene.
    Broken(&'a Broken, &'a str),
}

impl Table {
    /// Policies in order, each with its explorations.
    fn policies(&self) -> Vec<(&str, Vec<&Explored>)> {
        let mut policies: Vec<(&str, Vec<&Explored>)> = Vec::new();
        for found in &self.explored {
            match policies
                .iter_mut()
                .find(|(policy, _)| *policy == found.policy)
            {
                Some((_, of)) => of.push(found),
                None => policies.push((&found.policy, vec![found])),
            }
        }
        policies
    }

    fn cell<'a>(of: &[&'a Explored], rule: ContractRule) -> Cell<'a> {
        let broken = of.iter().flat_map(|found| {
            let broken = found.broken.iter().filter(|broken| broken.rule == rule);
            broken.map(|broken| (broken.path.len(), broken, found.scene.as_str()))
        });
        if let Some((_, broken, scene)) = broken.min_by_key(|(length, ..)| *length) {
            return Cell::Broken(broken, scene);
        }
        // What hosts sample and what stays behind concerns every policy.
        let hosts = matches!(
            rule,
            ContractRule::HostReadsOwn
                | ContractRule::HostRecords
                | ContractRule::ReferencesReturn
                | ContractRule::HostComesBack
        );
        if !hosts && of.iter().all(|found| !found.offered) {
            return Cell::NotApplicable;
        }
        if rule == ContractRule::PassThroughWhereActive && of.iter().all(|found| !found.stands) {
            return Cell::NotApplicable;
        }
        match of.iter().all(|found| found.exhausted || found.bounded) {
            true => Cell::Kept,
            false => Cell::KeptSoFar,
        }
    }

    /// The shortest scenario for each rule that each policy breaks: the name of its file, and the text.
    /// Numbers are those of the rule's hundred, from 51 on by built-in policies. No two have one name.
    #[must_use]
    pub fn scenarios(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let policies = self.policies();
        let stems = Stem::all(policies.iter().map(|(policy, _)| *policy));
        for ((_, of), stem) in policies.iter().zip(stems) {
            for (rule, _) in ContractRule::NAMED {
                if let Cell::Broken(broken, _) = Self::cell(of, rule) {
                    found.push((stem.file(rule), broken.scenario.clone()));
                }
            }
        }
        found
    }

    /// Whether no rule is broken.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.explored.iter().all(|found| found.broken.is_empty())
    }

    /// Policies by rules, as Markdown: `kept`, `kept*` where a bound was met that is not the scene's own, `-` where the rule does
    /// not apply, and where it is broken how many actions the shortest path has, with a link to its file
    /// in `folder`.
    #[must_use]
    pub fn markdown(&self, folder: &str) -> String {
        let mut text = String::from("| policy |");
        for (rule, _) in ContractRule::NAMED {
            // Writing to a String does not fail.
            let _ = write!(text, " {} |", rule.number());
        }
        text.push_str("\n| --- |");
        text.push_str(&" --- |".repeat(ContractRule::NAMED.len()));
        text.push('\n');
        let policies = self.policies();
        let stems = Stem::all(policies.iter().map(|(policy, _)| *policy));
        for ((policy, of), stem) in policies.iter().zip(stems) {
            let _ = write!(text, "| `{policy}` |");
            for (rule, _) in ContractRule::NAMED {
                let cell = match Self::cell(of, rule) {
                    Cell::NotApplicable => "-".to_owned(),
                    Cell::Kept => "kept".to_owned(),
                    Cell::KeptSoFar => "kept*".to_owned(),
                    Cell::Broken(broken, _) => {
                        let file = stem.file(rule);
                        format!("[{}]({folder}/{file})", broken.path.len())
                    }
                };
                let _ = write!(text, " {cell} |");
            }
            text.push('\n');
        }
        text
    }

    /// Everything, for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = write!(text, "up to {} states of a scene", self.bounds.states);
        if let Some(depth) = self.bounds.depth {
            let _ = write!(text, " and {depth} actions");
        }
        text.push_str(
            "; equal are states but for perf's numbers of events and contexts, and counts of call-stack users beyond 2\n",
        );
        for (policy, of) in self.policies() {
            let _ = writeln!(text, "policy {policy}");
            for found in &of {
                let _ = write!(
                    text,
                    "  {:<26} {:>9} states {:>10} actions, depth {}",
                    found.scene, found.states, found.transitions, found.depth
                );
                match found.exhausted {
                    true => text.push_str(", exhausted"),
                    false => {
                        let _ = write!(text, ", every interleaving up to {} actions", found.whole);
                    }
                }
                if !found.offered {
                    text.push_str(", no LBR offered");
                }
                if found.stuck != 0 {
                    let _ = write!(text, ", {} stuck", found.stuck);
                }
                text.push('\n');
            }
            let mut most: BTreeMap<&str, u64> = BTreeMap::new();
            for (by, count) in of.iter().flat_map(|found| &found.most_accesses) {
                let most = most.entry(by).or_default();
                *most = (*most).max(*count);
            }
            if !most.is_empty() {
                let most = most.iter().map(|(by, count)| format!("{by} {count}"));
                let most = most.collect::<Vec<_>>().join(", ");
                let _ = writeln!(text, "  most LBR MSR accesses by {most}");
            }
            for (rule, _) in ContractRule::NAMED {
                let Cell::Broken(broken, scene) = Self::cell(&of, rule) else {
                    continue;
                };
                let _ = writeln!(text, "  breaks rule {rule} in {scene}:");
                if let Some((way, _)) = broken.ways.first() {
                    let more = match broken.ways.len() {
                        1 => String::new(),
                        2 => " (and another way)".to_owned(),
                        ways => format!(" (and {} other ways)", ways - 1),
                    };
                    let _ = writeln!(text, "    {way}{more}");
                }
                for line in &broken.path {
                    let _ = writeln!(text, "      {line}");
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn parts_of_file_names_are_another_for_each_name() {
        let long = "a".repeat(300);
        let names = [
            "a.b",
            "a@b",
            "a_b",
            "a-b",
            "a%2eb",
            "a/b",
            "a%b",
            "A-B",
            "",
            "é",
            "..",
            &long,
            &long[1..],
        ];
        let parts: BTreeSet<String> = names.iter().map(|name| escaped(name)).collect();
        assert_eq!(parts.len(), names.len(), "{parts:?}");
        for part in parts {
            assert!(part.len() <= LONGEST_PART, "{part}");
            let plain = |c: char| c.is_ascii_alphanumeric() || "-@_%".contains(c);
            assert!(part.chars().all(plain), "{part}");
        }
        assert_eq!(escaped("records-pinned-cpu"), "records-pinned-cpu");
    }

    #[test]
    fn scenarios_of_policies_are_named_apart() {
        let rule = ContractRule::ServedAlone;
        let names = [
            "v8",
            "my.own",
            "my-own",
            "my@own",
            "my-own-2",
            "upstream@6.16",
        ];
        let files: Vec<String> = Stem::all(names.into_iter())
            .iter()
            .map(|stem| stem.file(rule))
            .collect();
        assert_eq!(
            files,
            [
                "3551-v8-served-alone.scn",
                "3599-my-own-served-alone.scn",
                "3599-my-own-2-served-alone.scn",
                "3599-my-own-3-served-alone.scn",
                "3599-my-own-2-2-served-alone.scn",
                "3559-upstream-6-16-served-alone.scn",
            ]
        );
    }
}
