//! From text to scenario.

mod branch;
mod host;
mod host_check;
mod names;
mod pmu;
mod step;
mod vmx;
mod words;

use std::path::Path;

use vlbr_cpu::processor;
use vlbr_host::policy::Catalog;
use vlbr_lbr::{Options, Profile, Quirk, QuirkSet};
use vlbr_pmu::Source;

use crate::host::HostSetup;
use crate::host_step::{HostAct, HostStep};
use crate::{
    Action, Area, HostKernel, MAX_FILE_BYTES, ParseError, Phase, PmuStep, Reason, Selection, Step,
    VmxOutcome, VmxStep,
};

const MAX_LINE_BYTES: usize = 400;

/// How the quirks of a profile are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuirkChange {
    /// All off.
    None,
    /// On.
    On(Quirk),
    /// Off.
    Off(Quirk),
    /// One of the PMU, on.
    PmuOn(vlbr_pmu::Quirk),
    /// One of the PMU, off.
    PmuOff(vlbr_pmu::Quirk),
}

/// Where the outcome of a scenario of a host comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The kernel's source, or the patch, says it.
    Source,
    /// It follows from the code, and nobody has stated or run it.
    Deduced,
}

/// What a scenario of a host says in its header.
#[derive(Clone, Debug, PartialEq)]
pub struct HostHeader {
    /// The policies, each in its kernel.
    pub policies: Vec<HostKernel>,
    /// Where the outcome comes from.
    pub evidence: Evidence,
    pub(crate) setup: HostSetup,
}

/// One file: a rule, the processors it concerns, and the steps that show it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Number in the file's name.
    pub number: u32,
    /// The rest of the file's name.
    pub name: String,
    /// Its area.
    pub area: Area,
    /// One sentence: the rule.
    pub title: String,
    /// Why, and what to look at.
    pub description: String,
    /// Identifiers in `rules.txt`.
    pub rules: Vec<String>,
    /// Public documents that state the rule.
    pub source: String,
    /// The processors.
    pub profiles: Selection,
    /// Options in place of the defaults. `quirks` is not among them.
    pub options: Options,
    /// Options of the PMU in place of the defaults; everything is fed. `quirks`, `tsx` and `seed`
    /// are those of [`Scenario::options`].
    pub pmu_options: vlbr_pmu::Options,
    /// Changes to the profile's quirks.
    pub quirks: Vec<QuirkChange>,
    /// What an area of hosts says beside.
    pub host: Option<HostHeader>,
    /// Steps in order.
    pub steps: Vec<Step>,
}

impl Scenario {
    /// The policies of a host, by name.
    #[must_use]
    pub fn policy_names(&self) -> Vec<String> {
        let host = self.host.iter();
        let policies = host.flat_map(|host| &host.policies);
        policies.map(|policy| policy.name().to_owned()).collect()
    }

    /// The options for a device of this profile.
    #[must_use]
    pub fn options_for(&self, profile: &Profile) -> Options {
        if self.quirks.is_empty() {
            return self.options.clone();
        }
        let quirks = self
            .quirks
            .iter()
            .fold(profile.quirks(), |set, change| match change {
                QuirkChange::None => QuirkSet::EMPTY,
                QuirkChange::On(quirk) => set.with(*quirk),
                QuirkChange::Off(quirk) => set.without(*quirk),
                QuirkChange::PmuOn(_) | QuirkChange::PmuOff(_) => set,
            });
        Options {
            quirks: Some(quirks),
            ..self.options.clone()
        }
    }

    /// The options for a PMU of this profile.
    #[must_use]
    pub fn pmu_options_for(&self, profile: &Profile) -> vlbr_pmu::Options {
        let of_part = vlbr_pmu::Profile::named(profile.name())
            .map(|profile| profile.quirks())
            .unwrap_or_default();
        let changed = self
            .quirks
            .iter()
            .fold(of_part, |set, change| match change {
                QuirkChange::None => vlbr_pmu::QuirkSet::EMPTY,
                QuirkChange::PmuOn(quirk) => set.with(*quirk),
                QuirkChange::PmuOff(quirk) => set.without(*quirk),
                QuirkChange::On(_) | QuirkChange::Off(_) => set,
            });
        vlbr_pmu::Options {
            quirks: Some(changed),
            tsx: self.options.tsx,
            seed: self.options.seed,
            ..self.pmu_options.clone()
        }
    }

    /// The options for a processor of this profile.
    pub(crate) fn processor_options(&self, profile: &Profile) -> processor::Options {
        processor::Options {
            lbr: self.options_for(profile),
            pmu: self.pmu_options_for(profile),
            ..processor::Options::default()
        }
    }
}

/// Reads a scenario. `path` gives number and name and stands in errors; nothing is opened.
///
/// # Errors
/// Anything that is not of the form, with its line.
pub fn parse(path: &Path, text: &str) -> Result<Scenario, ParseError> {
    parse_with(path, text, &Catalog::builtin())
}

/// The same, with the policies of a catalog beside `linux@VERSION`.
///
/// # Errors
/// As [`parse`].
pub fn parse_with(path: &Path, text: &str, catalog: &Catalog) -> Result<Scenario, ParseError> {
    let mut line = 1;
    read(path, text, catalog, &mut line).map_err(|reason| ParseError {
        file: path.to_owned(),
        line,
        reason,
    })
}

/// Header lines as they come.
#[derive(Debug, Default)]
struct Header {
    title: Option<String>,
    description: Option<String>,
    rules: Vec<String>,
    area: Option<Area>,
    source: Option<String>,
    profiles: Option<Selection>,
    options: String,
    pmu_options: String,
    quirks: Vec<QuirkChange>,
    policies: Vec<HostKernel>,
    evidence: Option<Evidence>,
    cpus: Option<usize>,
    ignore_msrs: Option<bool>,
}

fn read(path: &Path, text: &str, catalog: &Catalog, line: &mut usize) -> Result<Scenario, Reason> {
    if text.len() > MAX_FILE_BYTES {
        return Err(Reason::TooLong(MAX_FILE_BYTES));
    }
    let (number, name) = file_name(path).ok_or(Reason::FileName)?;
    let mut header = Header::default();
    let mut key = None;
    let mut phase = None;
    let mut steps = Vec::new();
    let mut lines = text.lines();
    if lines.next() != Some("scenario 1") {
        return Err(Reason::Version);
    }
    for text in lines {
        *line += 1;
        if text.len() > MAX_LINE_BYTES {
            return Err(Reason::TooLong(MAX_LINE_BYTES));
        }
        if text.chars().any(char::is_control) {
            return Err(Reason::NotText);
        }
        let content = without_comment(text);
        if content.is_empty() {
            if text.trim().is_empty() {
                key = None;
            }
            continue;
        }
        let indented = text.starts_with(' ');
        match content {
            "given" if !indented => phase = Some(Phase::Given),
            "when" if !indented => phase = Some(Phase::When),
            "then" if !indented => phase = Some(Phase::Then),
            _ => match (phase, indented) {
                (Some(phase), true) if header.area.is_some_and(Area::is_of_hosts) => {
                    steps.push(host::parse(*line, phase, content)?);
                }
                (Some(phase), true) => steps.push(step::parse(*line, phase, content)?),
                (Some(_), false) => return Err(unknown_block(content)),
                (None, _) => header.line(&mut key, indented, content, catalog)?,
            },
        }
    }
    *line = 1;
    header.finish(number, name, steps)
}

fn unknown_block(content: &str) -> Reason {
    Reason::UnknownWord {
        word: content.to_owned(),
        expected: "given, when, then or an indented step",
    }
}

/// Without a comment: `#` and a space, at the start or behind a space.
fn without_comment(text: &str) -> &str {
    let trimmed = text.trim();
    if trimmed == "#" || trimmed.starts_with("# ") {
        return "";
    }
    match trimmed.find(" # ") {
        Some(place) => trimmed[..place].trim_end(),
        None => trimmed,
    }
}

/// `NNN-name.scn`
fn file_name(path: &Path) -> Option<(u32, String)> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".scn")?;
    let (digits, name) = stem.split_once('-')?;
    let plain = digits.len() >= 3 && digits.bytes().all(|b| b.is_ascii_digit());
    let number = digits.parse().ok().filter(|_| plain)?;
    let words = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    words.then(|| (number, name.to_owned()))
}

/// A quirk of either device; no name is of both.
fn quirk(
    name: &str,
    lbr: fn(Quirk) -> QuirkChange,
    pmu: fn(vlbr_pmu::Quirk) -> QuirkChange,
) -> Result<QuirkChange, Reason> {
    match (name.parse(), name.parse()) {
        (Ok(quirk), _) => Ok(lbr(quirk)),
        (_, Ok(quirk)) => Ok(pmu(quirk)),
        (Err(error), Err(other)) => {
            let (error, other): (vlbr_lbr::UnknownQuirk, vlbr_pmu::UnknownQuirk) = (error, other);
            Err(Reason::Quirk(format!("{error}; {other}")))
        }
    }
}

/// Options of the PMU, which a scenario feeds everything.
fn pmu_options(text: &str) -> Result<vlbr_pmu::Options, Reason> {
    let names: Vec<String> = Source::NAMED
        .iter()
        .map(|(_, name)| format!("{name:?}"))
        .collect();
    let text = format!("feeds = [{}]\n{text}", names.join(", "));
    vlbr_pmu::Options::from_toml(&text)
        .map_err(|error| Reason::Options(error.to_string().replace('\n', " ")))
}

/// Sets what may stand once.
fn once<T>(slot: &mut Option<T>, key: &'static str, value: T) -> Result<(), Reason> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Reason::HeaderOnce(key)),
    }
}

impl Header {
    fn line(
        &mut self,
        key: &mut Option<String>,
        indented: bool,
        content: &str,
        catalog: &Catalog,
    ) -> Result<(), Reason> {
        if indented {
            return match key.as_deref() {
                Some("description") => {
                    let text = self.description.get_or_insert_default();
                    if !text.is_empty() {
                        text.push('\n');
                    }
                    text.push_str(content);
                    Ok(())
                }
                _ => Err(Reason::OutsideBlock(content.to_owned())),
            };
        }
        let Some((name, value)) = content.split_once(':') else {
            return Err(Reason::OutsideBlock(content.to_owned()));
        };
        let value = value.trim();
        *key = Some(name.to_owned());
        match name {
            "title" => once(&mut self.title, "title", value.to_owned()),
            "rule" => {
                self.rules.push(value.to_owned());
                Ok(())
            }
            "area" => {
                let area =
                    Area::named(value).ok_or_else(|| Reason::UnknownArea(value.to_owned()))?;
                once(&mut self.area, "area", area)
            }
            "source" => once(&mut self.source, "source", value.to_owned()),
            "profiles" => once(&mut self.profiles, "profiles", Selection::parse(value)?),
            "policies" => self.policies(value, catalog),
            "evidence" => {
                let evidence = match value {
                    "source" => Evidence::Source,
                    "deduced" => Evidence::Deduced,
                    _ => {
                        return Err(Reason::UnknownWord {
                            word: value.to_owned(),
                            expected: "source or deduced",
                        });
                    }
                };
                once(&mut self.evidence, "evidence", evidence)
            }
            "cpus" => {
                let cpus = value.parse().ok().filter(|cpus| (1..=8).contains(cpus));
                let cpus = cpus.ok_or_else(|| Reason::BadValue(value.to_owned()))?;
                once(&mut self.cpus, "cpus", cpus)
            }
            "kvm" if value == "ignore_msrs" => once(&mut self.ignore_msrs, "kvm", true),
            "option" => self.option(value),
            "quirks" => self.quirks(value),
            "description" => once(&mut self.description, "description", value.to_owned()),
            _ => Err(Reason::UnknownHeader(name.to_owned())),
        }
    }

    fn option(&mut self, value: &str) -> Result<(), Reason> {
        if value.starts_with("quirks") {
            return Err(Reason::Options(
                "quirks have a line of their own, quirks:".to_owned(),
            ));
        }
        if let Some(value) = value.strip_prefix("pmu.") {
            return self.pmu_option(value);
        }
        self.options.push_str(value);
        self.options.push('\n');
        Options::from_toml(&self.options)
            .map(drop)
            .map_err(|error| Reason::Options(error.to_string().replace('\n', " ")))
    }

    fn pmu_option(&mut self, value: &str) -> Result<(), Reason> {
        let elsewhere = ["quirks", "tsx", "seed", "feeds"];
        if elsewhere.iter().any(|name| value.starts_with(name)) {
            return Err(Reason::Options(
                "quirks have a line of their own, tsx and seed are of both devices, everything is fed"
                    .to_owned(),
            ));
        }
        self.pmu_options.push_str(value);
        self.pmu_options.push('\n');
        pmu_options(&self.pmu_options).map(drop)
    }

    fn policies(&mut self, value: &str, catalog: &Catalog) -> Result<(), Reason> {
        if !self.policies.is_empty() {
            return Err(Reason::HeaderOnce("policies"));
        }
        let names = value.split(',').map(str::trim);
        let kernels = names.map(|name| HostKernel::parse(name, catalog));
        self.policies = kernels.collect::<Result<_, _>>()?;
        Ok(())
    }

    /// What areas of hosts say beside; no other area does.
    fn host(&self, area: Area) -> Result<Option<HostHeader>, Reason> {
        let given = [
            (!self.policies.is_empty(), "policies"),
            (self.evidence.is_some(), "evidence"),
            (self.cpus.is_some(), "cpus"),
            (self.ignore_msrs.is_some(), "kvm"),
        ];
        if !area.is_of_hosts() {
            return match given.iter().find(|(given, _)| *given) {
                Some((_, name)) => Err(Reason::HeaderOfHost(name)),
                None => Ok(None),
            };
        }
        if self.policies.is_empty() {
            return Err(Reason::MissingHeader("policies"));
        }
        Ok(Some(HostHeader {
            policies: self.policies.clone(),
            evidence: self.evidence.ok_or(Reason::MissingHeader("evidence"))?,
            setup: HostSetup {
                cpus: self.cpus.unwrap_or(1),
                ignore_msrs: self.ignore_msrs.unwrap_or(false),
            },
        }))
    }

    fn quirks(&mut self, value: &str) -> Result<(), Reason> {
        for item in value.split(',') {
            let item = item.trim();
            let change = match item.strip_prefix('!') {
                None if item == "none" => Ok(QuirkChange::None),
                None => quirk(item, QuirkChange::On, QuirkChange::PmuOn),
                Some(name) => quirk(name, QuirkChange::Off, QuirkChange::PmuOff),
            };
            self.quirks.push(change?);
        }
        Ok(())
    }

    fn finish(self, number: u32, name: String, steps: Vec<Step>) -> Result<Scenario, Reason> {
        let text = |value: Option<String>, key| match value {
            None => Err(Reason::MissingHeader(key)),
            Some(value) if value.is_empty() => Err(Reason::HeaderOnce(key)),
            Some(value) => Ok(value),
        };
        let area = self.area.ok_or(Reason::MissingHeader("area"))?;
        if !area.has_number(number) {
            return Err(Reason::NumberOfArea {
                number,
                area: area.name(),
                first: area.first_number(),
                last: area.last_number(),
            });
        }
        if self.rules.is_empty() {
            return Err(Reason::MissingHeader("rule"));
        }
        if self.rules.iter().any(String::is_empty) {
            return Err(Reason::HeaderOnce("rule"));
        }
        if !steps.iter().any(expects) {
            return Err(Reason::NothingExpected);
        }
        let host = self.host(area)?;
        Ok(Scenario {
            number,
            name,
            area,
            title: text(self.title, "title")?,
            description: text(self.description, "description")?,
            rules: self.rules,
            source: text(self.source, "source")?,
            profiles: self.profiles.ok_or(Reason::MissingHeader("profiles"))?,
            options: Options::from_toml(&self.options)
                .map_err(|error| Reason::Options(error.to_string()))?,
            pmu_options: pmu_options(&self.pmu_options)?,
            quirks: self.quirks,
            host,
            steps,
        })
    }
}

/// Whether the step compares something.
fn expects(step: &Step) -> bool {
    match &step.what {
        Action::Branch(branch) => branch.outcome.is_some(),
        Action::Wrmsr(..)
        | Action::Rdmsr(..)
        | Action::Xsaves(..)
        | Action::Xrstors(..)
        | Action::XrstorsInit(..) => step.phase != Phase::Given,
        Action::Pmu(PmuStep::Rdpmc { .. } | PmuStep::Deliver(_)) => step.phase != Phase::Given,
        Action::Vmx(what) => match what {
            VmxStep::Enter(_, outcome) | VmxStep::Vmwrite(_, _, outcome) => {
                *outcome != VmxOutcome::Ok && step.phase != Phase::Given
            }
            VmxStep::On
            | VmxStep::Bits(..)
            | VmxStep::Bitmap(..)
            | VmxStep::SetByte(..)
            | VmxStep::Area(..) => false,
            _ => step.phase != Phase::Given,
        },
        Action::Host(what) => match **what {
            HostStep::Act(HostAct::Open(..) | HostAct::Guest(..) | HostAct::User(..)) => {
                step.phase != Phase::Given
            }
            HostStep::Act(_) => false,
            HostStep::Check(_) => true,
        },
        _ => step.phase == Phase::Then,
    }
}
