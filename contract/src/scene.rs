//! Scenes as text.

use std::path::Path;

use crate::ContractError;
use crate::action::Action;

/// Most actions of a scene: enough for two vCPUs, two processors and two events.
const MAX_ACTIONS: usize = 64;
/// Most bytes of a file.
const MAX_BYTES: usize = 1 << 16;

/// What is there before the first action, and what may happen in any order.
///
/// The text has headers, `given` with steps of host scenarios and `actions` with steps that may
/// happen whenever the host can take them. `docs/contract-scenes.md` describes the form.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) part: String,
    pub(crate) arch_part: Option<String>,
    pub(crate) cpus: usize,
    pub(crate) states: Option<usize>,
    pub(crate) given: Vec<(usize, String)>,
    pub(crate) actions: Vec<(usize, String)>,
    pub(crate) text: String,
}

macro_rules! builtin {
    ($($name:literal),* $(,)?) => {
        const BUILTIN: &[(&str, &str)] = &[
            $( ($name, include_str!(concat!("../scenes/", $name, ".scene"))), )*
        ];
    };
}

builtin! {
    "registers-pinned-cpu",
    "registers-flexible-cpu",
    "registers-pinned-task",
    "registers-flexible-task",
    "records-pinned-cpu",
    "records-flexible-cpu",
    "call-stack-task",
    "pmi-counter",
    "pmi-lbr",
    "adaptive-pebs",
    "counters",
    "user-access",
    "pmi-guest",
    "fast-path",
    "exclusive",
    "two-filters",
    "two-vcpus",
    "two-by-two",
}

impl Scene {
    /// The names of those that are built in.
    pub fn names() -> impl ExactSizeIterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// One that is built in.
    #[must_use]
    pub fn builtin(name: &str) -> Option<Self> {
        let (name, text) = BUILTIN.iter().find(|(known, _)| *known == name)?;
        // A test reads every one.
        Self::parse(name, text).ok()
    }

    /// Every one that is built in, in order.
    ///
    /// # Errors
    /// One is not right.
    pub fn all() -> Result<Vec<Self>, ContractError> {
        let scenes = BUILTIN.iter();
        scenes.map(|(name, text)| Self::parse(name, text)).collect()
    }

    /// A file.
    ///
    /// # Errors
    /// It cannot be read, or is no scene.
    pub fn load(path: &Path) -> Result<Self, ContractError> {
        use std::io::Read as _;
        let file = |error| ContractError::File {
            path: path.to_owned(),
            error,
        };
        if !std::fs::metadata(path).map_err(file)?.is_file() {
            return Err(file(std::io::Error::other("no regular file")));
        }
        let mut text = String::new();
        let opened = std::fs::File::open(path).map_err(file)?;
        let mut limited = opened.take(MAX_BYTES as u64 + 1);
        limited.read_to_string(&mut text).map_err(file)?;
        Self::parse(
            &path.display().to_string().escape_debug().to_string(),
            &text,
        )
    }

    /// Reads a scene.
    ///
    /// # Errors
    /// The line, and what is wrong with it.
    pub fn parse(name: &str, text: &str) -> Result<Self, ContractError> {
        let missing = |what: &str| ContractError::Scene {
            scene: name.escape_debug().to_string(),
            reason: format!("{what} is missing"),
        };
        if text.len() > MAX_BYTES {
            let reason = format!("a scene has at most {MAX_BYTES} bytes");
            return Err(ContractError::line(name, 1, reason));
        }
        let mut lines = text.lines().enumerate().map(|(n, line)| (n + 1, line));
        if lines.next().map(|(_, line)| line.trim()) != Some("contract scene 1") {
            let reason = "the first line is not \"contract scene 1\"";
            return Err(ContractError::line(name, 1, reason));
        }
        let mut scene = Self {
            name: name.to_owned(),
            title: String::new(),
            part: String::new(),
            arch_part: None,
            cpus: 1,
            states: None,
            given: Vec::new(),
            actions: Vec::new(),
            text: text.to_owned(),
        };
        let mut block = Block::Headers;
        for (n, line) in lines {
            let line = line.split(" # ").next().unwrap_or_default();
            let word = line.trim();
            if word.is_empty() || word.starts_with('#') {
                continue;
            }
            let indented = line.starts_with(' ');
            block = match (word, indented) {
                ("given", false) => Block::Given,
                ("actions", false) => Block::Actions,
                (_, false) => {
                    scene.header(n, word)?;
                    Block::Headers
                }
                (_, true) => {
                    match block {
                        Block::Headers => {}
                        Block::Given => scene.given.push((n, word.to_owned())),
                        Block::Actions => scene.actions.push((n, word.to_owned())),
                    }
                    block
                }
            };
        }
        if scene.part.is_empty() {
            return Err(missing("part:"));
        }
        if scene.title.is_empty() {
            return Err(missing("title:"));
        }
        if scene.actions.is_empty() {
            return Err(missing("an action"));
        }
        if scene.actions.len() > MAX_ACTIONS {
            let reason = format!("more than {MAX_ACTIONS} actions");
            return Err(ContractError::line(
                name,
                scene.actions[MAX_ACTIONS].0,
                reason,
            ));
        }
        Action::parse_all(&scene, false)?;
        Ok(scene)
    }

    fn header(&mut self, n: usize, line: &str) -> Result<(), ContractError> {
        let bad = |reason: &str| ContractError::line(&self.name, n, format!("{line:?}: {reason}"));
        let known = "headers are title, part, arch-part, cpus, states and description";
        let (key, value) = line.split_once(':').ok_or_else(|| bad(known))?;
        let value = value.trim();
        match key {
            "title" => self.title = value.to_owned(),
            "part" => self.part = value.to_owned(),
            "arch-part" => self.arch_part = Some(value.to_owned()),
            "cpus" => {
                let cpus = value.parse().ok().filter(|cpus| (1..=4).contains(cpus));
                self.cpus = cpus.ok_or_else(|| bad("1 to 4 processors"))?;
            }
            "states" => {
                let states = value.parse().ok().filter(|states| *states > 0);
                self.states = Some(states.ok_or_else(|| bad("a number of states"))?);
            }
            "description" => {}
            _ => return Err(bad(known)),
        }
        Ok(())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is, in one sentence.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The text it was read from.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

enum Block {
    Headers,
    Given,
    Actions,
}
