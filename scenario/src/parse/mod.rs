//! From text to scenario.

mod branch;
mod names;
mod step;
mod vmx;
mod words;

use std::path::Path;

use vlbr_lbr::{Options, Profile, Quirk, QuirkSet};

use crate::{
    Action, Area, MAX_FILE_BYTES, ParseError, Phase, Reason, Selection, Step, VmxOutcome, VmxStep,
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
    /// Changes to the profile's quirks.
    pub quirks: Vec<QuirkChange>,
    /// Steps in order.
    pub steps: Vec<Step>,
}

impl Scenario {
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
            });
        Options {
            quirks: Some(quirks),
            ..self.options.clone()
        }
    }
}

/// Reads a scenario. `path` gives number and name and stands in errors; nothing is opened.
///
/// # Errors
/// Anything that is not of the form, with its line.
pub fn parse(path: &Path, text: &str) -> Result<Scenario, ParseError> {
    let mut line = 1;
    read(path, text, &mut line).map_err(|reason| ParseError {
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
    quirks: Vec<QuirkChange>,
}

fn read(path: &Path, text: &str, line: &mut usize) -> Result<Scenario, Reason> {
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
                (Some(phase), true) => steps.push(step::parse(*line, phase, content)?),
                (Some(_), false) => return Err(unknown_block(content)),
                (None, _) => header.line(&mut key, indented, content)?,
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
        self.options.push_str(value);
        self.options.push('\n');
        Options::from_toml(&self.options)
            .map(drop)
            .map_err(|error| Reason::Options(error.to_string().replace('\n', " ")))
    }

    fn quirks(&mut self, value: &str) -> Result<(), Reason> {
        for item in value.split(',') {
            let item = item.trim();
            let named = |name: &str| {
                name.parse::<Quirk>()
                    .map_err(|error| Reason::Quirk(error.to_string()))
            };
            self.quirks.push(match item.strip_prefix('!') {
                None if item == "none" => QuirkChange::None,
                None => QuirkChange::On(named(item)?),
                Some(name) => QuirkChange::Off(named(name)?),
            });
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
                last: area.first_number() + 99,
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
            quirks: self.quirks,
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
        _ => step.phase == Phase::Then,
    }
}
