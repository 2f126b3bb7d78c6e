//! Golden results as text that people can review, one file a trace.
//!
//! A section begins with `== ` and the configuration. Lines of a section begin with a key; what
//! belongs to a line follows indented by two spaces. Addresses are offsets in files, so a result
//! does not depend on anything outside of the trace.

use std::fmt::{self, Write};

use super::digest::{ASPECTS, Aspects};

/// What a configuration gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    /// perf or the processor refuses it, for this reason.
    Refused(String),
    /// It ran.
    Ran(Box<Results>),
}

/// The results of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Results {
    /// Event and period.
    pub(crate) sampling: String,
    /// The filter register and its value.
    pub(crate) register: String,
    /// Sums, by the order of [`COUNTS`].
    pub(crate) counts: [u64; COUNTS.len()],
    /// Samples at the start that were equal when every transfer went through the device in order.
    pub(crate) device: u64,
    /// Transfers with made-up flags that went through the device alone.
    pub(crate) exercised: u64,
    /// Digests of what it held on the way.
    pub(crate) exercise: Vec<u64>,
    /// Checksums of the parts of all samples.
    pub(crate) aspects: Aspects,
    /// Samples of a segment.
    pub(crate) size: u64,
    /// Digests of the segments.
    pub(crate) segments: Vec<u64>,
    /// Hottest edges: `COUNT FROM > TO`.
    pub(crate) edges: Vec<String>,
    /// Some stacks in full.
    pub(crate) stacks: Vec<Stack>,
}

/// Names of the sums.
pub(crate) const COUNTS: [&str; 8] = [
    "instructions",
    "events",
    "samples",
    "entries",
    "removed",
    "short",
    "pushes",
    "pops",
];

/// A stack in full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stack {
    /// Which: `sample 12` or `end of thread 0`.
    pub(crate) which: String,
    /// What is said of it besides.
    pub(crate) about: String,
    /// Entries, youngest first.
    pub(crate) entries: Vec<String>,
}

/// Segment digests on a line.
const PER_LINE: usize = 4;

/// Writes a golden file.
pub(crate) fn write<'a>(
    title: &str,
    sections: impl IntoIterator<Item = (&'a str, &'a Section)>,
) -> String {
    let mut out = String::new();
    for line in title.lines() {
        out.push_str("# ");
        out.push_str(line);
        out.push('\n');
    }
    for (name, section) in sections {
        // Writing to a string does not fail.
        let _ = write_section(&mut out, name, section);
    }
    out
}

fn write_section(out: &mut String, name: &str, section: &Section) -> fmt::Result {
    writeln!(out, "\n== {name}")?;
    let results = match section {
        Section::Refused(reason) => return writeln!(out, "refused {reason}"),
        Section::Ran(results) => results,
    };
    writeln!(out, "sampling {}", results.sampling)?;
    writeln!(out, "register {}", results.register)?;
    for (name, count) in COUNTS.iter().zip(results.counts) {
        writeln!(out, "{name} {count}")?;
    }
    writeln!(out, "device {}", results.device)?;
    writeln!(out, "made-up-flags {}", results.exercised)?;
    write_digests(out, &results.exercise)?;
    for (name, sum) in ASPECTS.iter().zip(results.aspects) {
        writeln!(out, "crc-{name} {sum:08x}")?;
    }
    writeln!(out, "segments-of {}", results.size)?;
    write_digests(out, &results.segments)?;
    writeln!(out, "edges {}", results.edges.len())?;
    for edge in &results.edges {
        writeln!(out, "  {edge}")?;
    }
    for stack in &results.stacks {
        writeln!(out, "stack {}: {}", stack.which, stack.about)?;
        for entry in &stack.entries {
            writeln!(out, "  {entry}")?;
        }
    }
    Ok(())
}

fn write_digests(out: &mut String, digests: &[u64]) -> fmt::Result {
    for line in digests.chunks(PER_LINE) {
        let digests: Vec<String> = line.iter().map(|digest| format!("{digest:016x}")).collect();
        writeln!(out, "  {}", digests.join(" "))?;
    }
    Ok(())
}

/// A line of a golden file that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    /// Line, from 1.
    pub(crate) line: usize,
    /// What is wrong.
    pub(crate) reason: String,
}

/// Reads a golden file: its sections in order.
pub(crate) fn read(text: &str) -> Result<Vec<(String, Section)>, BadLine> {
    let mut sections: Vec<(String, Section)> = Vec::new();
    let mut open: Option<Partial> = None;
    for (index, line) in text.lines().enumerate() {
        let bad = |reason: &str| BadLine {
            line: index + 1,
            reason: reason.to_owned(),
        };
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        if let Some(name) = line.strip_prefix("== ") {
            sections.extend(open.take().map(Partial::finish).transpose()?);
            if sections.iter().any(|(known, _)| known == name) {
                return Err(bad("a second section of this configuration"));
            }
            open = Some(Partial::new(name, index + 1));
            continue;
        }
        let Some(partial) = &mut open else {
            return Err(bad("a line before the first section"));
        };
        partial.line(line).map_err(|reason| bad(&reason))?;
    }
    sections.extend(open.take().map(Partial::finish).transpose()?);
    Ok(sections)
}

/// A section as far as it was read.
struct Partial {
    name: String,
    start: usize,
    refused: Option<String>,
    results: Results,
    /// Lines expected so far; every key must come, in order.
    keys: usize,
}

/// The lines of a section before its stacks, in order.
fn key(index: usize) -> Option<String> {
    let counts = COUNTS.iter().map(|name| (*name).to_owned());
    let sums = ASPECTS.iter().map(|name| format!("crc-{name}"));
    ["sampling", "register"]
        .map(str::to_owned)
        .into_iter()
        .chain(counts)
        .chain(["device", "made-up-flags"].map(str::to_owned))
        .chain(sums)
        .chain(["segments-of", "edges"].map(str::to_owned))
        .nth(index)
}

impl Partial {
    fn new(name: &str, start: usize) -> Self {
        Self {
            name: name.to_owned(),
            start,
            refused: None,
            results: Results::default(),
            keys: 0,
        }
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let number = |text: &str, radix: u32| {
            u64::from_str_radix(text, radix).map_err(|_| format!("'{text}' is no number"))
        };
        if let Some(detail) = line.strip_prefix("  ") {
            return self.detail(detail);
        }
        let (word, value) = line.split_once(' ').unwrap_or((line, ""));
        if self.keys == 0 && word == "refused" && self.refused.is_none() {
            self.refused = Some(value.to_owned());
            return Ok(());
        }
        let Some(expected) = key(self.keys).filter(|_| self.refused.is_none()) else {
            let (which, about) = value.split_once(": ").unwrap_or((value, ""));
            if word != "stack" || self.refused.is_some() {
                return Err(format!("'{word}' does not belong here"));
            }
            self.results.stacks.push(Stack {
                which: which.trim_end_matches(':').to_owned(),
                about: about.to_owned(),
                entries: Vec::new(),
            });
            return Ok(());
        };
        if word != expected {
            return Err(format!("'{word}' where '{expected}' is expected"));
        }
        let results = &mut self.results;
        match self.keys {
            0 => results.sampling = value.to_owned(),
            1 => results.register = value.to_owned(),
            index if index - 2 < COUNTS.len() => results.counts[index - 2] = number(value, 10)?,
            _ if expected == "device" => results.device = number(value, 10)?,
            _ if expected == "made-up-flags" => results.exercised = number(value, 10)?,
            index if expected.starts_with("crc-") => {
                let sum = number(value, 16)?;
                let sum = u32::try_from(sum).map_err(|_| "a checksum has 32 bits".to_owned())?;
                results.aspects[index - 4 - COUNTS.len()] = sum;
            }
            _ if expected == "segments-of" => {
                results.size = number(value, 10)?;
                if !results.size.is_power_of_two() {
                    return Err("the size of a segment is a power of two".to_owned());
                }
            }
            _ => {
                number(value, 10)?;
            }
        }
        self.keys += 1;
        Ok(())
    }

    fn detail(&mut self, detail: &str) -> Result<(), String> {
        let last = self.keys.checked_sub(1).and_then(key);
        match last.as_deref() {
            Some(list @ ("segments-of" | "made-up-flags")) => {
                let digests = match list {
                    "segments-of" => &mut self.results.segments,
                    _ => &mut self.results.exercise,
                };
                for word in detail.split_whitespace() {
                    let digest = u64::from_str_radix(word, 16);
                    let digest = digest.map_err(|_| format!("'{word}' is no digest"))?;
                    digests.push(digest);
                }
            }
            Some("edges") => match self.results.stacks.last_mut() {
                Some(stack) => stack.entries.push(detail.to_owned()),
                None => self.results.edges.push(detail.to_owned()),
            },
            _ => return Err("an indented line where none is expected".to_owned()),
        }
        Ok(())
    }

    fn finish(self) -> Result<(String, Section), BadLine> {
        if let Some(reason) = self.refused {
            return Ok((self.name, Section::Refused(reason)));
        }
        if let Some(missing) = key(self.keys) {
            return Err(BadLine {
                line: self.start,
                reason: format!("the section has no '{missing}'"),
            });
        }
        Ok((self.name, Section::Ran(Box::new(self.results))))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn results() -> Results {
        Results {
            sampling: "instructions:u every 997".into(),
            register: "MSR_LBR_SELECT=0x3c5".into(),
            counts: [1, 2, 3, 4, 5, 6, 7, 8],
            device: 9,
            exercised: 20,
            exercise: vec![7, 8, 9],
            aspects: [1, 2, 3, 4, 5, 6, 0xffff_ffff],
            size: 8,
            segments: vec![1, 2, u64::MAX, 4, 5],
            edges: vec!["12 a+1 > b+2".into()],
            stacks: vec![
                Stack {
                    which: "sample 0".into(),
                    about: "thread 0 at a+1".into(),
                    entries: vec!["a+1 > b+2 P".into(), "a+3 > b+4 M".into()],
                },
                Stack {
                    which: "end of thread 0".into(),
                    ..Stack::default()
                },
            ],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let ran = Section::Ran(Box::new(results()));
        let refused = Section::Refused("EOPNOTSUPP: no".into());
        let text = write(
            "Title\nmore",
            [("a any,u", &ran), ("b stack,u", &refused), ("c any", &ran)],
        );
        let sections = read(&text).unwrap();
        assert_eq!(
            sections,
            [
                ("a any,u".to_owned(), ran.clone()),
                ("b stack,u".to_owned(), refused),
                ("c any".to_owned(), ran),
            ]
        );
    }

    #[test]
    fn a_damaged_file_is_an_error_with_its_line() {
        let ran = Section::Ran(Box::new(results()));
        let text = write("Title", [("a any,u", &ran)]);
        let lines: Vec<&str> = text.lines().collect();
        for missing in 2..lines.len() {
            let mut fewer = lines.clone();
            let removed = fewer.remove(missing);
            let read = read(&fewer.join("\n"));
            if removed.starts_with("  ") || removed.starts_with("stack") {
                // Fewer entries are another result, which the comparison finds.
                assert_ne!(read, Ok(vec![("a any,u".to_owned(), ran.clone())]));
            } else {
                assert!(read.is_err(), "without '{removed}'");
            }
        }
        let error = read(&text.replace("pops 8", "pops x")).unwrap_err();
        assert_eq!(error.reason, "'x' is no number");
        assert_eq!(
            lines[error.line - 1],
            "pops 8",
            "line {} is named",
            error.line
        );
        assert!(read(&format!("{text}{text}")).is_err(), "twice the same");
    }
}
