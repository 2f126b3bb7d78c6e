//! `corpus.toml`: which traces, under which processors and filters.

mod filter;

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU64;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use vlbr_host::perf::parse_branch_filter;
use vlbr_lbr::{Options, Profile};
use vlbr_pmu::SourceSet;
use vlbr_timing::TimingModel;
use vlbr_traces::files::read_text;
use vlbr_traces::perfdata::BranchSampleType;

use self::filter::RawFilter;
use super::error::CorpusError;
use crate::counters::sampled_events;

/// Longest `corpus.toml` or profile that is read, in bytes.
const MAX_TEXT: u64 = 1 << 20;

/// Name of the description in a corpus folder.
const FILE: &str = "corpus.toml";
/// Name of the folder with the golden results.
const GOLDEN: &str = "golden";
/// Name of the folder with the scenes, and of that with their golden results in the folder above.
const SCENES: &str = "scenes";
/// Name of the folder with the golden results of scenarios in that with the golden results.
const SCENARIOS: &str = "scenarios";

/// A folder of traces and what to do with them.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// The folder.
    pub dir: PathBuf,
    /// The traces, in the order of the file.
    pub traces: Vec<CorpusTrace>,
    /// The scenes, in the order of the file.
    pub scenes: Vec<CorpusScene>,
    /// Folders of scenarios, in the order of the file.
    pub scenarios: Vec<CorpusScenarios>,
    /// Files of policies that scenes may name.
    pub policy_files: Vec<PathBuf>,
    /// Hottest edges kept in a golden result.
    pub edges: usize,
    /// Sampled stacks kept in a golden result.
    pub stacks: usize,
    /// Instructions of each trace that also go through the device in order, to compare.
    pub device_instructions: u64,
    /// Something was left out: files of nothing that is named are not looked for.
    partial: bool,
}

/// A trace of a corpus.
#[derive(Clone, Debug)]
pub struct CorpusTrace {
    /// Its name, which is that of its golden file too.
    pub name: String,
    /// The trace file.
    pub file: PathBuf,
    /// Where the replay starts: a symbol or `0x...`.
    pub from: Option<String>,
    /// Where it ends.
    pub to: Option<String>,
    /// How it was recorded, for people.
    pub command: Option<String>,
    /// Licence of what was recorded, for people.
    pub licence: Option<String>,
    /// What it is replayed under.
    pub configurations: Vec<Configuration>,
}

/// A scene of a corpus. What a scene and a policy are is known above.
#[derive(Clone, Debug)]
pub struct CorpusScene {
    /// Its name, which is that of its golden file too.
    pub name: String,
    /// The scene.
    pub file: PathBuf,
    /// The policies it runs under; `None`: every one that is built in.
    pub policies: Option<Vec<String>>,
}

/// Folders of scenarios of a corpus. What a scenario is is known above.
#[derive(Clone, Debug)]
pub struct CorpusScenarios {
    /// Their name, which is that of their golden file too.
    pub name: String,
    /// Folders or files, each as the corpus names it and where it is.
    pub paths: Vec<(String, PathBuf)>,
}

/// A processor, a filter, an event.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Profile and filter, and the event where the filter has its own: `haswell stack,u`.
    pub name: String,
    /// The processor.
    pub profile: Profile,
    /// Open points and quirks of its LBR.
    pub device: Options,
    /// perf's filter.
    pub branches: BranchSampleType,
    /// The event; `None`: what a session takes.
    pub event: Option<String>,
    /// Events between samples; `None`: what a session takes.
    pub period: Option<NonZeroU64>,
    /// Timing model, of the processor's own core.
    pub timing: TimingModel,
}

/// The file as it stands.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCorpus {
    #[serde(default)]
    profiles: Vec<Spanned<String>>,
    #[serde(default)]
    filters: Vec<Spanned<RawFilter>>,
    event: Option<Spanned<String>>,
    period: Option<NonZeroU64>,
    #[serde(default = "default_edges")]
    edges: usize,
    #[serde(default = "default_stacks")]
    stacks: usize,
    #[serde(default = "default_device_instructions")]
    device_instructions: u64,
    #[serde(default)]
    options: Options,
    /// Of all scenes that name none.
    policies: Option<Vec<String>>,
    #[serde(default)]
    policy_files: Vec<PathBuf>,
    #[serde(default)]
    trace: Vec<RawTrace>,
    #[serde(default)]
    scene: Vec<RawScene>,
    #[serde(default)]
    scenarios: Vec<RawScenarios>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScenarios {
    name: Spanned<String>,
    paths: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScene {
    name: Spanned<String>,
    file: Option<PathBuf>,
    policies: Option<Vec<String>>,
}

const fn default_edges() -> usize {
    8
}

const fn default_stacks() -> usize {
    3
}

const fn default_device_instructions() -> u64 {
    4_000_000
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTrace {
    name: Spanned<String>,
    file: Option<PathBuf>,
    from: Option<String>,
    to: Option<String>,
    command: Option<String>,
    #[serde(rename = "source")]
    _source: Option<String>,
    licence: Option<String>,
    #[serde(rename = "notes")]
    _notes: Option<String>,
    profiles: Option<Vec<Spanned<String>>>,
    filters: Option<Vec<Spanned<RawFilter>>>,
    event: Option<Spanned<String>>,
    period: Option<NonZeroU64>,
    options: Option<Options>,
    #[serde(default)]
    skip: Vec<Spanned<String>>,
}

impl Corpus {
    /// Reads `corpus.toml` of the folder `dir`.
    ///
    /// # Errors
    /// The file cannot be read, or something in it is wrong; the line is named.
    pub fn open(dir: &Path) -> Result<Self, CorpusError> {
        let path = dir.join(FILE);
        let text = read_text(&path, MAX_TEXT).map_err(|source| CorpusError::File {
            path: path.clone(),
            source,
        })?;
        Reader {
            dir,
            path: &path,
            text: &text,
        }
        .read()
    }

    /// Leaves out what has another beginning of its name than all of these: `gpl/`, `scenes/lazy`,
    /// `scenarios/`. Golden files of nothing that is named are then left alone.
    ///
    /// # Errors
    /// Nothing is left for one of them.
    pub fn keep_only(&mut self, beginnings: &[String]) -> Result<(), CorpusError> {
        let of_scene = |scene: &CorpusScene| format!("{SCENES}/{}", scene.name);
        let of_scenarios = |scenarios: &CorpusScenarios| format!("{SCENARIOS}/{}", scenarios.name);
        let traces = self.traces.iter().map(|trace| trace.name.clone());
        let scenes = self.scenes.iter().map(of_scene);
        let scenarios = self.scenarios.iter().map(of_scenarios);
        let names: Vec<String> = traces.chain(scenes).chain(scenarios).collect();
        let unknown = |text: &&String| !names.iter().any(|name| name.starts_with(text.as_str()));
        if let Some(text) = beginnings.iter().find(unknown) {
            return Err(CorpusError::Unnamed(text.clone()));
        }
        let wanted = |name: &str| {
            beginnings
                .iter()
                .any(|text| name.starts_with(text.as_str()))
        };
        self.traces.retain(|trace| wanted(&trace.name));
        self.scenes.retain(|scene| wanted(&of_scene(scene)));
        self.scenarios
            .retain(|scenarios| wanted(&of_scenarios(scenarios)));
        self.partial = true;
        Ok(())
    }

    /// Whether [`Corpus::keep_only`] left something out.
    pub(super) const fn is_partial(&self) -> bool {
        self.partial
    }

    /// The folder with the golden results.
    #[must_use]
    pub fn golden_dir(&self) -> PathBuf {
        self.dir.join(GOLDEN)
    }

    /// The file with the golden results of `trace`.
    #[must_use]
    pub fn golden_file(&self, trace: &CorpusTrace) -> PathBuf {
        self.golden_dir().join(format!("{}.golden", trace.name))
    }

    /// The file with the golden results of `scene`.
    #[must_use]
    pub fn golden_file_of_scene(&self, scene: &CorpusScene) -> PathBuf {
        let folder = self.golden_dir().join(SCENES);
        folder.join(format!("{}.golden", scene.name))
    }

    /// The file with the golden results of `scenarios`.
    #[must_use]
    pub fn golden_file_of_scenarios(&self, scenarios: &CorpusScenarios) -> PathBuf {
        let folder = self.golden_dir().join(SCENARIOS);
        folder.join(format!("{}.golden", scenarios.name))
    }
}

struct Reader<'a> {
    dir: &'a Path,
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn error(&self, offset: usize, reason: impl fmt::Display) -> CorpusError {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        CorpusError::Config {
            path: self.path.to_owned(),
            line: 1 + before.iter().filter(|&&byte| byte == b'\n').count(),
            reason: reason.to_string(),
        }
    }

    fn read(&self) -> Result<Corpus, CorpusError> {
        let raw: RawCorpus = toml::from_str(self.text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            self.error(offset, error.message().trim_end().replace('\n', ", "))
        })?;
        let mut names = BTreeSet::new();
        let mut traces = Vec::new();
        for trace in &raw.trace {
            let name = trace.name.get_ref();
            let at = trace.name.span().start;
            self.named(name, at)?;
            if !names.insert(name.clone()) {
                return Err(self.error(at, format!("a second trace is named {name:?}")));
            }
            traces.push(self.trace(&raw, trace)?);
        }
        let mut scenes = Vec::new();
        for scene in &raw.scene {
            let (name, at) = (scene.name.get_ref(), scene.name.span().start);
            self.named(name, at)?;
            if !names.insert(format!("{SCENES}/{name}")) {
                return Err(self.error(at, format!("a second scene is named {name:?}")));
            }
            let file = scene.file.clone();
            let file = file.unwrap_or_else(|| format!("{SCENES}/{name}.toml").into());
            scenes.push(CorpusScene {
                name: name.clone(),
                file: self.dir.join(file),
                policies: scene.policies.as_ref().or(raw.policies.as_ref()).cloned(),
            });
        }
        let scenarios = raw.scenarios.iter();
        let scenarios: Vec<_> = scenarios
            .map(|raw| self.scenarios(raw, &mut names))
            .collect::<Result<_, _>>()?;
        if traces.is_empty() && scenes.is_empty() && scenarios.is_empty() {
            return Err(self.error(0, "no [[trace]], no [[scene]] and no [[scenarios]]"));
        }
        let policy_files = raw.policy_files.iter();
        Ok(Corpus {
            dir: self.dir.to_owned(),
            traces,
            scenes,
            scenarios,
            policy_files: policy_files.map(|file| self.dir.join(file)).collect(),
            edges: raw.edges,
            stacks: raw.stacks,
            device_instructions: raw.device_instructions,
            partial: false,
        })
    }

    fn named(&self, name: &str, at: usize) -> Result<(), CorpusError> {
        let reason = "is no name: letters, digits and . _ - in parts joined by /";
        let good = is_name(name).then_some(());
        good.ok_or_else(|| self.error(at, format!("{name:?} {reason}")))
    }

    fn scenarios(
        &self,
        raw: &RawScenarios,
        names: &mut BTreeSet<String>,
    ) -> Result<CorpusScenarios, CorpusError> {
        let (name, at) = (raw.name.get_ref(), raw.name.span().start);
        self.named(name, at)?;
        if !names.insert(format!("{SCENARIOS}/{name}")) {
            return Err(self.error(at, format!("second scenarios are named {name:?}")));
        }
        if raw.paths.is_empty() {
            return Err(self.error(at, format!("scenarios {name:?} name no path")));
        }
        let paths = raw.paths.iter().map(|path| {
            let (text, at) = (path.get_ref(), path.span().start);
            if text.is_empty() || Path::new(text).is_absolute() {
                let reason = format!("{text:?} is no path from the folder of the corpus");
                return Err(self.error(at, reason));
            }
            Ok((text.clone(), self.dir.join(text)))
        });
        Ok(CorpusScenarios {
            name: name.clone(),
            paths: paths.collect::<Result<_, _>>()?,
        })
    }

    fn trace(&self, raw: &RawCorpus, trace: &RawTrace) -> Result<CorpusTrace, CorpusError> {
        let name = trace.name.get_ref().clone();
        let file = trace
            .file
            .clone()
            .unwrap_or_else(|| format!("{name}.vlt").into());
        Ok(CorpusTrace {
            file: self.dir.join(file),
            from: trace.from.clone(),
            to: trace.to.clone(),
            command: trace.command.clone(),
            licence: trace.licence.clone(),
            configurations: self.configurations(raw, trace)?,
            name,
        })
    }

    fn configurations(
        &self,
        raw: &RawCorpus,
        trace: &RawTrace,
    ) -> Result<Vec<Configuration>, CorpusError> {
        let default_event = match trace.event.as_ref().or(raw.event.as_ref()) {
            Some(event) => Some(self.event(event.get_ref(), event.span().start)?),
            None => None,
        };
        let default_period = trace.period.or(raw.period);
        let mut skipped = vec![false; trace.skip.len()];
        let mut names = BTreeSet::new();
        let mut configurations = Vec::new();
        for profile_name in trace.profiles.as_ref().unwrap_or(&raw.profiles) {
            let profile = self.profile(profile_name)?;
            for filter in trace.filters.as_ref().unwrap_or(&raw.filters) {
                let at = filter.span().start;
                let filter = filter.get_ref();
                let branches =
                    parse_branch_filter(&filter.branches).map_err(|error| self.error(at, error))?;
                let mut name = format!("{} {}", profile.name(), filter.branches.replace(' ', ""));
                let event = match &filter.event {
                    Some(event) => {
                        name.push_str(&format!(" -e {event}"));
                        Some(self.event(event, at)?)
                    }
                    None => default_event.clone(),
                };
                if let Some(period) = filter.period {
                    name.push_str(&format!(" -c {period}"));
                }
                if filter.timing != TimingModel::None {
                    name.push_str(&format!(" --timing {}", filter.timing.name()));
                }
                let names_it = |skip: &Spanned<String>| {
                    let skip = skip.get_ref();
                    *skip == name || skip == profile.name() || *skip == filter.branches
                };
                let mut skip = false;
                for (pattern, used) in trace.skip.iter().zip(&mut skipped) {
                    let matches = names_it(pattern);
                    *used |= matches;
                    skip |= matches;
                }
                if !names.insert(name.clone()) {
                    return Err(self.error(at, format!("{name:?} is named twice")));
                }
                if skip {
                    continue;
                }
                configurations.push(Configuration {
                    name,
                    profile: profile.clone(),
                    device: trace.options.as_ref().unwrap_or(&raw.options).clone(),
                    branches,
                    event,
                    period: filter.period.or(default_period),
                    timing: filter.timing,
                });
            }
        }
        if let Some(unused) = skipped.iter().position(|used| !used) {
            let skip = &trace.skip[unused];
            let reason = format!(
                "{:?} skips nothing: a profile, a filter or both",
                skip.get_ref()
            );
            return Err(self.error(skip.span().start, reason));
        }
        if configurations.is_empty() {
            let reason = format!("no configuration is left for {}", trace.name.get_ref());
            return Err(self.error(trace.name.span().start, reason));
        }
        Ok(configurations)
    }

    /// An event that some part knows. A part that does not is a refusal, which is a result.
    fn event(&self, text: &str, at: usize) -> Result<String, CorpusError> {
        let options = vlbr_pmu::Options {
            feeds: SourceSet::ALL,
            ..vlbr_pmu::Options::default()
        };
        let mut refused = None;
        for pmu in vlbr_pmu::Profile::all().iter().rev() {
            match sampled_events(pmu, text, &options) {
                Ok(_) => return Ok(text.to_owned()),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        let reason = refused.map_or_else(
            || "no event".to_owned(),
            |error| format!("no processor takes the event: {error}"),
        );
        Err(self.error(at, reason))
    }

    /// A profile by name, or from a TOML file in the folder.
    fn profile(&self, name: &Spanned<String>) -> Result<Profile, CorpusError> {
        let at = name.span().start;
        let text = name.get_ref();
        if !text.ends_with(".toml") {
            let profile = Profile::named(text).map_err(|error| self.error(at, error))?;
            return Ok(profile.clone());
        }
        let path = self.dir.join(text);
        let text = read_text(&path, MAX_TEXT)
            .map_err(|error| self.error(at, format!("{}: {error}", path.display())))?;
        Profile::from_toml(&text)
            .map_err(|error| self.error(at, format!("{}: {error}", path.display())))
    }
}

/// Whether `name` can be a file below the golden folder.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let mut parts = Path::new(name).components();
    !name.is_empty()
        && name.chars().all(plain)
        && !name.ends_with('/')
        && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests;
