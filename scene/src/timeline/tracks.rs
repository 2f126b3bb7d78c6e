//! Tracks of slices and instants.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

/// A track: its group and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Track {
    pub(super) group: Group,
    pub(super) number: u32,
}

/// What tracks are of; the viewer's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    /// Who runs on a processor.
    Cpu = 1,
    /// Whose its LBR is, and what moves it.
    Lbr,
    /// Where a vCPU is, and its exits.
    Vcpu,
    /// The event that stands for its LBR.
    VcpuLbr,
    /// Events of the host.
    Event,
}

impl Group {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Cpu, "processors"),
        (Self::Lbr, "LBR by processor"),
        (Self::Vcpu, "vCPUs"),
        (Self::VcpuLbr, "LBR by vCPU"),
        (Self::Event, "host events"),
    ];
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Time of the last event, in nanoseconds.
    last: u64,
    /// Slices that are open.
    open: u32,
}

/// Writes tracks. On each, time does not run backwards, and slices nest. The first error is kept, and
/// nothing more is written.
pub(super) struct Tracks<'w> {
    out: &'w mut dyn Write,
    error: Option<io::Error>,
    tracks: BTreeMap<Track, State>,
    line: String,
    first: bool,
}

impl std::fmt::Debug for Tracks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracks")
            .field("error", &self.error)
            .field("tracks", &self.tracks)
            .finish_non_exhaustive()
    }
}

impl<'w> Tracks<'w> {
    pub(super) fn new(out: &'w mut dyn Write) -> Self {
        let mut tracks = Self {
            out,
            error: None,
            tracks: BTreeMap::new(),
            line: String::new(),
            first: true,
        };
        tracks.text("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[");
        for (group, name) in Group::ALL {
            tracks.describe(group, None, "process_name", name);
        }
        tracks
    }

    fn text(&mut self, text: &str) {
        if self.error.is_none() {
            self.error = self.out.write_all(text.as_bytes()).err();
        }
    }

    fn begin_line(&mut self) {
        self.line.clear();
        self.line.push_str(if self.first { "\n" } else { ",\n" });
        self.first = false;
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        self.text(&line);
        self.line = line;
    }

    fn describe(&mut self, group: Group, track: Option<u32>, what: &str, name: &str) {
        self.begin_line();
        let pid = group as u32;
        // Writing to a String does not fail.
        let _ = write!(self.line, "{{\"ph\":\"M\",\"pid\":{pid},");
        if let Some(track) = track {
            let _ = write!(self.line, "\"tid\":{track},");
        }
        let _ = write!(self.line, "\"name\":\"{what}\",\"args\":{{\"name\":");
        quote(&mut self.line, name);
        self.line.push_str("}}");
        self.end_line();
    }

    /// Names a track.
    pub(super) fn name(&mut self, track: Track, name: &str) {
        self.describe(track.group, Some(track.number), "thread_name", name);
    }

    fn event(&mut self, phase: char, track: Track, at: u64) {
        self.begin_line();
        let state = self.tracks.entry(track).or_default();
        // Processors have clocks of their own, and a vCPU goes from one to another.
        state.last = state.last.max(at);
        let (us, ns) = (state.last / 1000, state.last % 1000);
        let _ = write!(
            self.line,
            "{{\"ph\":\"{phase}\",\"pid\":{},\"tid\":{},\"ts\":{us}.{ns:03}",
            track.group as u32, track.number
        );
    }

    fn named(&mut self, name: &str, args: &[(&str, Value<'_>)]) {
        self.line.push_str(",\"name\":");
        quote(&mut self.line, name);
        if !args.is_empty() {
            self.line.push_str(",\"args\":{");
            for (n, (key, value)) in args.iter().enumerate() {
                if n > 0 {
                    self.line.push(',');
                }
                quote(&mut self.line, key);
                self.line.push(':');
                match value {
                    Value::Number(number) => drop(write!(self.line, "{number}")),
                    Value::Text(text) => quote(&mut self.line, text),
                }
            }
            self.line.push('}');
        }
    }

    /// A slice begins, inside those that are open.
    pub(super) fn begin(&mut self, track: Track, at: u64, name: &str) {
        self.event('B', track, at);
        self.named(name, &[]);
        self.line.push('}');
        self.end_line();
        self.tracks.entry(track).or_default().open += 1;
    }

    /// The innermost slice ends, if one is open.
    pub(super) fn end(&mut self, track: Track, at: u64) {
        let state = self.tracks.entry(track).or_default();
        let Some(open) = state.open.checked_sub(1) else {
            return;
        };
        state.open = open;
        self.event('E', track, at);
        self.line.push('}');
        self.end_line();
    }

    /// Something happens.
    pub(super) fn instant(
        &mut self,
        track: Track,
        at: u64,
        name: &str,
        args: &[(&str, Value<'_>)],
    ) {
        self.event('i', track, at);
        self.line.push_str(",\"s\":\"t\"");
        self.named(name, args);
        self.line.push('}');
        self.end_line();
    }

    /// Ends what is open.
    ///
    /// # Errors
    /// The first error of writing.
    pub(super) fn finish(mut self, at: u64) -> io::Result<()> {
        let open: Vec<_> = self
            .tracks
            .iter()
            .map(|(track, state)| (*track, state.open))
            .collect();
        for (track, open) in open {
            for _ in 0..open {
                self.end(track, at);
            }
        }
        self.text("\n]}\n");
        match self.error {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// What stands beside an event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Number(u64),
    Text(&'a str),
}

/// A string of JSON.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            character if character < ' ' => drop(write!(out, "\\u{:04x}", character as u32)),
            character => out.push(character),
        }
    }
    out.push('"');
}
