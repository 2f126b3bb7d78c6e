//! What stands before the text of an event: task, processor, time, name.

use std::fmt;

use super::LineError;

/// Whose text it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TextKind {
    /// `perf script`: `CPU 0/KVM  1234/1240  [003] 12.345678: kvm:kvm_exit: reason HLT ...`.
    PerfScript,
    /// `trace-cmd report`, or the file `trace` of the kernel:
    /// `CPU 0/KVM-1240 [003] d..1 12.345678: kvm_exit: reason HLT ...`.
    TraceCmd,
}

impl fmt::Display for TextKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PerfScript => "perf script",
            Self::TraceCmd => "trace-cmd report",
        })
    }
}

/// Processors that a recording may have.
pub(super) const MOST_CPUS: u16 = 1024;

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// An event.
    Event(Head<'a>),
    /// Blank, a comment, or what a tool says of its file.
    Nothing,
    /// A frame of a call chain.
    Frame,
    /// How many processors there are.
    Cpus(u16),
    /// Events that were lost.
    Lost(u64),
}

/// An event with what stands before its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) kind: TextKind,
    pub(super) task: &'a str,
    /// Of the process, if the line says it.
    pub(super) process: Option<u32>,
    pub(super) thread: u32,
    pub(super) cpu: u16,
    /// In nanoseconds.
    pub(super) time: u64,
    /// Its name, without that of its subsystem.
    pub(super) event: &'a str,
    pub(super) text: &'a str,
}

/// Reads a line. `kind` is whose text it is, once that is known.
///
/// # Errors
/// It is no line of that tool.
pub(super) fn parse(line: &str, kind: Option<TextKind>) -> Result<Line<'_>, LineError> {
    let trimmed = line.trim();
    if trimmed.is_empty() || trimmed.starts_with('#') {
        return Ok(Line::Nothing);
    }
    // Call chains: perf's begin with a tab, the kernel's with an arrow.
    if line.starts_with('\t') || trimmed.starts_with("=> ") {
        return Ok(Line::Frame);
    }
    if let Some(line) = of_the_file(trimmed) {
        let found = TextKind::TraceCmd;
        return match kind {
            Some(expected) if expected != found => Err(LineError::Kind { found, expected }),
            _ => line,
        };
    }
    let head = bracketed(line)?;
    let found = head.kind;
    if let Some(expected) = kind.filter(|kind| *kind != found) {
        return Err(LineError::Kind { found, expected });
    }
    if head.event == LOST {
        return Ok(Line::Lost(lost(head.text)?));
    }
    Ok(Line::Event(head))
}

/// Stands for `PERF_RECORD_LOST` and `PERF_RECORD_LOST_SAMPLES`.
const LOST: &str = "PERF_RECORD_LOST";

/// What trace-cmd says of its file: `cpus=8`, `version = 7`, `CPU 3 is empty`,
/// `CPU:3 [LOST 17 EVENTS]`, `CPU:3 [EVENTS DROPPED]`.
fn of_the_file(line: &str) -> Option<Result<Line<'_>, LineError>> {
    if let Some(number) = line.strip_prefix("cpus=") {
        let cpus = number.parse().ok().filter(|n| (1..=MOST_CPUS).contains(n));
        return Some(cpus.map_or_else(
            || Err(LineError::Cpus(shown(number))),
            |n| Ok(Line::Cpus(n)),
        ));
    }
    let number = |text: &str| text.parse::<u16>().is_ok();
    let empty = line
        .strip_prefix("CPU ")
        .and_then(|rest| rest.strip_suffix(" is empty"));
    if line.strip_prefix("version = ").is_some_and(number) || empty.is_some_and(number) {
        return Some(Ok(Line::Nothing));
    }
    let after = line.strip_prefix("CPU:")?;
    let (cpu, said) = after.split_once(' ')?;
    cpu.parse::<u16>().ok()?;
    if said == "[EVENTS DROPPED]" {
        return Some(Ok(Line::Lost(1)));
    }
    let number = said.strip_prefix("[LOST ")?.strip_suffix(" EVENTS]")?;
    let count = number.parse().map(Line::Lost);
    Some(count.map_err(|_| LineError::Lost(shown(number))))
}

fn lost(text: &str) -> Result<u64, LineError> {
    let number = text.trim().strip_prefix("lost ");
    let number = number.and_then(|number| number.trim().parse().ok());
    number.ok_or_else(|| LineError::Lost(shown(text.trim())))
}

/// Beginning of a text, for a message.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 40;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// A line with a processor in brackets. Names of tasks may hold brackets and blanks, so the first
/// number in brackets with a task before it and a time behind is meant.
fn bracketed(line: &str) -> Result<Head<'_>, LineError> {
    let mut wrong = None;
    for (open, _) in line.match_indices('[') {
        let rest = &line[open + 1..];
        let Some((number, after)) = rest.split_once(']') else {
            continue;
        };
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        if !after.starts_with([' ', '\t']) {
            continue;
        }
        match around(&line[..open], number, after) {
            Ok(head) => return Ok(head),
            Err(error) => {
                wrong.get_or_insert(error);
            }
        }
    }
    latency_form(line).unwrap_or_else(|| Err(wrong.unwrap_or(LineError::NoCpu)))
}

/// What stands around a processor's number.
fn around<'a>(before: &'a str, cpu: &'a str, after: &'a str) -> Result<Head<'a>, LineError> {
    let (time, rest) = time_after_flags(after)?;
    let task = Task::parse(before)?;
    let cpu = number_of_cpu(cpu)?;
    event(task, cpu, time, rest)
}

fn number_of_cpu(text: &str) -> Result<u16, LineError> {
    let cpu: Option<u16> = text.parse().ok();
    cpu.filter(|cpu| *cpu < MOST_CPUS)
        .ok_or_else(|| LineError::Cpu(shown(text)))
}

/// `NAME-TID  3d..2 12.345678: NAME: ...`, as `trace-cmd report -l` prints it: the processor without
/// brackets, and flags behind it.
fn latency_form(line: &str) -> Option<Result<Head<'_>, LineError>> {
    let mut start = 0;
    for (at, _) in line.match_indices([' ', '\t']) {
        let word = &line[start..at];
        let before = &line[..start];
        start = at + 1;
        let digits = word.bytes().take_while(u8::is_ascii_digit).count();
        let (cpu, flags) = word.split_at(digits);
        if digits == 0 || flags.len() < 4 || !flags.bytes().all(is_flag) {
            continue;
        }
        let Ok(task) = Task::parse(before) else {
            continue;
        };
        let Ok((time, rest)) = time_after_flags(&line[at..]) else {
            continue;
        };
        if task.kind == TextKind::TraceCmd {
            return Some(number_of_cpu(cpu).and_then(|cpu| event(task, cpu, time, rest)));
        }
    }
    None
}

/// A character of the flags between processor and time: interrupts off, need to reschedule, in
/// which interrupt, depth of preemption.
const fn is_flag(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'#' | b'+' | b'!' | b'*' | b'>')
}

/// The time, behind at most two words of flags, and what follows it.
fn time_after_flags(after: &str) -> Result<(u64, &str), LineError> {
    let mut rest = after;
    for _ in 0..3 {
        rest = rest.trim_start();
        let (word, behind) = rest.split_at(rest.find([' ', '\t']).unwrap_or(rest.len()));
        if let Some(time) = word.strip_suffix(':') {
            return Ok((seconds(time)?, behind));
        }
        if word.is_empty() || !word.bytes().all(is_flag) {
            return Err(LineError::Time(shown(word)));
        }
        rest = behind;
    }
    let word = after.split_whitespace().next().unwrap_or_default();
    Err(LineError::Time(shown(word)))
}

/// Nanoseconds of `12.345678` or `12.345678901`.
fn seconds(text: &str) -> Result<u64, LineError> {
    let bad = || LineError::Time(shown(text));
    let (whole, part) = text.split_once('.').ok_or_else(bad)?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return Err(bad());
    }
    let unit = match part.len() {
        6 => 1000,
        9 => 1,
        _ => return Err(bad()),
    };
    let whole: u64 = whole.parse().map_err(|_| bad())?;
    let part: u64 = part.parse().map_err(|_| bad())?;
    let all = whole.checked_mul(1_000_000_000);
    let all = all.and_then(|all| all.checked_add(part * unit));
    // So that differences and sums of a recording's times can be counted.
    all.filter(|all| *all < 1 << 62).ok_or_else(bad)
}

/// A task as it stands before the processor.
#[derive(Clone, Copy, Debug)]
struct Task<'a> {
    kind: TextKind,
    name: &'a str,
    process: Option<u32>,
    thread: u32,
}

impl<'a> Task<'a> {
    fn parse(text: &'a str) -> Result<Self, LineError> {
        let trimmed = text.trim();
        let bad = || LineError::Task(shown(trimmed));
        // trace-cmd may have the process in parentheses behind the thread.
        let (trimmed, process) = match trimmed.strip_suffix(')') {
            None => (trimmed, None),
            Some(inside) => {
                let (before, process) = inside.rsplit_once('(').ok_or_else(bad)?;
                let process = process.trim();
                let known = !process.bytes().all(|byte| byte == b'-');
                let process = known.then(|| process.parse().map_err(|_| bad()));
                (before.trim_end(), Some(process.transpose()?))
            }
        };
        let (name, last) = match trimmed.rsplit_once([' ', '\t']) {
            Some((name, last)) => (name.trim_end(), last),
            None => ("", trimmed),
        };
        let numbers = |text: &str| -> Option<(Option<u32>, u32)> {
            match text.split_once('/') {
                Some((process, thread)) => {
                    Some((Some(process.parse().ok()?), thread.parse().ok()?))
                }
                None => Some((None, text.parse().ok()?)),
            }
        };
        if let (Some((process, thread)), None) = (numbers(last), process) {
            return Ok(Self {
                kind: TextKind::PerfScript,
                name,
                process,
                thread,
            });
        }
        let (name, thread) = trimmed.rsplit_once('-').ok_or_else(bad)?;
        let thread = thread.parse().map_err(|_| bad())?;
        // A longer name is one with that of a file before it: several recordings in one text.
        if name.len() > LONGEST_NAME {
            return Err(bad());
        }
        Ok(Self {
            kind: TextKind::TraceCmd,
            name,
            process: process.flatten(),
            thread,
        })
    }
}

/// Longest name of a task in a recording of ftrace.
const LONGEST_NAME: usize = 15;

/// The event's name and text behind the time. perf may have the period before the name.
fn event<'a>(task: Task<'a>, cpu: u16, time: u64, rest: &'a str) -> Result<Head<'a>, LineError> {
    let split = |text: &'a str| {
        let text = text.trim_start();
        text.split_at(text.find([' ', '\t']).unwrap_or(text.len()))
    };
    let (mut name, mut text) = split(rest);
    if task.kind == TextKind::PerfScript && name.bytes().all(|byte| byte.is_ascii_digit()) {
        (name, text) = split(text);
    }
    let head = |event, text| Head {
        kind: task.kind,
        task: task.name,
        process: task.process,
        thread: task.thread,
        cpu,
        time,
        event,
        text,
    };
    if task.kind == TextKind::PerfScript && name.starts_with("PERF_RECORD_") {
        return Ok(match name {
            "PERF_RECORD_LOST" | "PERF_RECORD_LOST_SAMPLES" => head(LOST, text),
            name => head(name, text),
        });
    }
    let name = name.strip_suffix(':').ok_or(LineError::NoEvent)?;
    let name = match task.kind {
        TextKind::PerfScript => name.split_once(':').map_or(name, |(_, name)| name),
        TextKind::TraceCmd => name,
    };
    if name.is_empty() {
        return Err(LineError::NoEvent);
    }
    Ok(head(name, text.trim()))
}
