//! The files that are compared: what they are, and their edges by place.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;
use serde::Serialize;
use vlbr_traces::files::open_regular;
use vlbr_traces::perfdata::{FileIdentity, PerfFile, PerfReadError, Record};
use vlbr_traces::symbols::places::{NewMapping, Place, Places};
use vlbr_traces::vlt::{ChunkBuffer, OpenOptions, Trace};

use super::error::DiffError;

/// Different edges taken at most.
const MAX_EDGES: usize = 1 << 24;
/// Mappings taken at most.
const MAX_MAPPINGS: usize = 1 << 20;
/// Longest line of a pre-aggregated profile.
const MAX_LINE: u64 = 4096;
/// FROM that architectural LBR gives when the source is filtered.
pub(super) const MASKED: u64 = 0xffff_ffff;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A `.vlt` trace.
    Trace,
    /// A perf.data file.
    PerfData,
    /// A pre-aggregated profile as BOLT reads it.
    Preaggregated,
}

/// Edges with their counts.
pub(super) type Edges = FxHashMap<(Place, Place), u64>;

/// An open file.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) path: PathBuf,
    pub(super) content: Content,
    /// Of a pre-aggregated profile: objects as in [`Places::default`], and [`MAIN`].
    pub(super) places: Places,
    /// The program, as an object.
    pub(super) main: Option<u32>,
}

/// What is in a file.
#[derive(Debug)]
pub(super) enum Content {
    Trace(Box<Trace>),
    Perf(Box<PerfFile<File>>),
    Preaggregated,
}

/// The one object of a pre-aggregated profile. Its offsets are linked addresses.
const MAIN: &str = "[main binary]";

impl Input {
    /// Opens a file and recognises it by its first bytes.
    pub(super) fn open(path: &Path) -> Result<Self, DiffError> {
        let io = |source| DiffError::Io {
            path: path.to_owned(),
            source,
        };
        let mut magic = Vec::new();
        let file = open_regular(path).map_err(io)?;
        file.take(8).read_to_end(&mut magic).map_err(io)?;
        if magic.starts_with(b"\x89VLT") {
            Self::trace(path)
        } else if magic.starts_with(b"PERFILE") || magic == b"2ELIFREP" {
            Self::perf(path)
        } else if preaggregated_start(&magic) {
            let mut places = Places::default();
            places.map(
                0,
                &NewMapping {
                    since: 0,
                    start: 0,
                    length: u64::MAX,
                    offset: 0,
                    path: Path::new(MAIN),
                    build_id: &[],
                },
            );
            Ok(Self {
                path: path.to_owned(),
                content: Content::Preaggregated,
                main: places.file(Path::new(MAIN)),
                places,
            })
        } else {
            Err(DiffError::Unknown {
                path: path.to_owned(),
            })
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self.content {
            Content::Trace(_) => Kind::Trace,
            Content::Perf(_) => Kind::PerfData,
            Content::Preaggregated => Kind::Preaggregated,
        }
    }

    fn trace(path: &Path) -> Result<Self, DiffError> {
        let options = OpenOptions {
            // They are checked when they are decoded.
            check_chunks: false,
            ..OpenOptions::default()
        };
        let trace = Trace::open(path, options).map_err(|source| DiffError::Trace {
            path: path.to_owned(),
            source,
        })?;
        let places = Places::of_trace(&trace);
        let named = trace.processes().iter().enumerate();
        let main = named
            .filter(|(_, process)| !process.path.as_os_str().is_empty())
            .find_map(|(index, process)| {
                let name = process.path.file_name();
                let same_name =
                    |&object: &u32| places.objects()[object as usize].path.file_name() == name;
                let mut mapped = places.files_of(index as u32);
                places
                    .file(&process.path)
                    .or_else(|| mapped.find(same_name))
            });
        Ok(Self {
            path: path.to_owned(),
            content: Content::Trace(Box::new(trace)),
            places,
            main,
        })
    }

    /// Reads the mappings of a perf.data file; its samples are read later.
    fn perf(path: &Path) -> Result<Self, DiffError> {
        let error = |source| perf_error(path, source);
        let mut file = PerfFile::open(path).map_err(error)?;
        let mut places = Places::default();
        let mut main = None;
        let mut executed = None;
        let mut records = file.records().map_err(error)?;
        while let Some(record) = records.next_record().map_err(error)? {
            let since = match record.sample_id().map_err(error)? {
                Some(id) => id.time.unwrap_or(0),
                None => 0,
            };
            match record.parse() {
                Ok(Record::Mmap(mapping)) => {
                    let code = mapping.prot_flags.is_none_or(|(prot, _)| prot & 4 != 0);
                    if !code {
                        continue;
                    }
                    use std::os::unix::ffi::OsStrExt;
                    let told = NewMapping {
                        since,
                        start: mapping.start,
                        length: mapping.len,
                        offset: mapping.pgoff,
                        path: Path::new(std::ffi::OsStr::from_bytes(mapping.path)),
                        build_id: match mapping.identity {
                            FileIdentity::BuildId(id) => id,
                            _ => &[],
                        },
                    };
                    if mapping.kernel {
                        places.map_kernel(&told);
                        continue;
                    }
                    let pid = mapping.task.pid;
                    places.map(pid, &told);
                    let first = match executed {
                        // The first thing a program maps is itself.
                        Some((program, false)) => program == pid,
                        Some((_, true)) => false,
                        None => main.is_none(),
                    };
                    if first && mapping.path.starts_with(b"/") {
                        main = places.file(told.path);
                        executed = executed.map(|(program, _)| (program, true));
                    }
                    if places.mappings() > MAX_MAPPINGS {
                        return Err(DiffError::TooLarge {
                            path: path.to_owned(),
                            what: "mappings",
                            limit: MAX_MAPPINGS,
                        });
                    }
                }
                Ok(Record::Task {
                    exit: false,
                    task,
                    parent,
                    ..
                }) => places.fork(parent.pid, task.pid),
                Ok(Record::Comm {
                    task, exec: true, ..
                }) if executed.is_none() => executed = Some((task.pid, false)),
                Ok(_) => {}
                Err(source) => return Err(error(source)),
            }
        }
        places.finish();
        Ok(Self {
            path: path.to_owned(),
            content: Content::Perf(Box::new(file)),
            places,
            main,
        })
    }

    /// The edges within one half of the address space, and how many taken branches were left out
    /// because they lead from one half to the other. Then the number of samples, if there are any.
    pub(super) fn edges(
        &mut self,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(Edges, u64, Option<u64>), DiffError> {
        let mut sums = Sums {
            path: &self.path,
            places: &self.places,
            edges: Edges::default(),
            crossing: 0,
        };
        let samples = match &mut self.content {
            Content::Trace(trace) => sums.of_trace(trace, progress).map(|()| None),
            Content::Perf(file) => sums.of_perf(file).map(Some),
            Content::Preaggregated => {
                let main = self.main.unwrap_or_default();
                sums.of_text(main).map(|()| None)
            }
        }?;
        Ok((sums.edges, sums.crossing, samples))
    }
}

pub(super) fn perf_error(path: &Path, source: PerfReadError) -> DiffError {
    DiffError::Perf {
        path: path.to_owned(),
        source: Box::new(source),
    }
}

/// Whether a text that begins so can be a pre-aggregated profile.
fn preaggregated_start(bytes: &[u8]) -> bool {
    matches!(bytes, [b'B' | b'F' | b'f' | b'T' | b'R' | b'r', b' ', ..])
}

struct Sums<'a> {
    path: &'a Path,
    places: &'a Places,
    edges: Edges,
    crossing: u64,
}

impl Sums<'_> {
    fn add(&mut self, from: Place, to: Place, count: u64) -> Result<(), DiffError> {
        let sum = self.edges.entry((from, to)).or_default();
        *sum = sum.saturating_add(count);
        if self.edges.len() > MAX_EDGES {
            return Err(DiffError::TooLarge {
                path: self.path.to_owned(),
                what: "different edges",
                limit: MAX_EDGES,
            });
        }
        Ok(())
    }

    fn of_trace(&mut self, trace: &Trace, progress: &mut dyn FnMut(u64)) -> Result<(), DiffError> {
        let mut buffer = ChunkBuffer::default();
        let mut counts = Vec::new();
        let mut done = 0;
        for (index, info) in trace.chunks().iter().enumerate() {
            let chunk = trace
                .decode(index, &mut buffer)
                .map_err(|source| DiffError::Trace {
                    path: self.path.to_owned(),
                    source,
                })?;
            counts.clear();
            counts.resize(chunk.map.len(), 0_u64);
            (0..chunk.ids.len()).for_each(|step| counts[chunk.ids.local(step)] += 1);
            let process = trace.threads()[info.thread.0 as usize].process.0;
            for (&step, &count) in chunk.map.iter().zip(&counts) {
                let Some(transfer) = trace.code().transfer(step) else {
                    continue;
                };
                if (transfer.from ^ transfer.to) >> 63 != 0 {
                    self.crossing += count;
                    continue;
                }
                let locate = |address| self.places.locate(process, index as u64, address);
                self.add(locate(transfer.from), locate(transfer.to), count)?;
            }
            done += info.counts.instructions.total();
            progress(done);
        }
        Ok(())
    }

    fn of_perf(&mut self, file: &mut PerfFile<File>) -> Result<u64, DiffError> {
        let path = self.path;
        let error = |source| perf_error(path, source);
        let (mut samples, mut stacks) = (0, false);
        let mut records = file.records().map_err(error)?;
        while let Some(record) = records.next_record().map_err(error)? {
            let Record::Sample(sample) = record.parse().map_err(error)? else {
                continue;
            };
            samples += 1;
            let Some(stack) = &sample.branch_stack else {
                continue;
            };
            stacks = true;
            let pid = sample.task.map_or(0, |(pid, _)| pid);
            let when = sample.time.unwrap_or(u64::MAX);
            for entry in &stack.entries {
                if (entry.from, entry.to) == (0, 0) {
                    continue;
                }
                if (entry.from ^ entry.to) >> 63 != 0 || entry.from == MASKED {
                    self.crossing += 1;
                    continue;
                }
                let locate = |address| self.places.locate(pid, when, address);
                self.add(locate(entry.from), locate(entry.to), 1)?;
            }
        }
        if samples > 0 && !stacks {
            return Err(DiffError::NoBranches {
                path: path.to_owned(),
            });
        }
        Ok(samples)
    }

    /// `B` and `T` lines are branches, `F`, `f`, `R` and `r` straight runs. `X:` and 0 stand for
    /// other objects than the binary.
    fn of_text(&mut self, main: u32) -> Result<(), DiffError> {
        let io = |source| DiffError::Io {
            path: self.path.to_owned(),
            source,
        };
        let mut reader = BufReader::new(File::open(self.path).map_err(io)?);
        let mut bytes = Vec::new();
        let mut number = 0;
        loop {
            bytes.clear();
            number += 1;
            let read = (&mut reader)
                .take(MAX_LINE)
                .read_until(b'\n', &mut bytes)
                .map_err(io)?;
            if read == 0 {
                return Ok(());
            }
            let bad = |reason| DiffError::Line {
                path: self.path.to_owned(),
                line: number,
                reason,
            };
            if read as u64 == MAX_LINE {
                return Err(bad("the line is too long"));
            }
            let line = std::str::from_utf8(&bytes).map_err(|_| bad("the line is no text"))?;
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (from, to, count) = match fields[..] {
                [] => continue,
                ["B", from, to, count, mispredicted] => {
                    decimal(mispredicted).ok_or_else(|| bad("a count is no number"))?;
                    (from, to, count)
                }
                ["T", from, to, _, count] => (from, to, count),
                ["F" | "f" | "R" | "r", _, _, _] => continue,
                _ => return Err(bad("no branch (B, T) and no straight run (F, f, R, r)")),
            };
            let (Some(from), Some(to)) = (address(from), address(to)) else {
                return Err(bad("an address is no hexadecimal number"));
            };
            let count = decimal(count).ok_or_else(|| bad("a count is no number"))?;
            if from == 0 || to == 0 {
                self.crossing = self.crossing.saturating_add(count);
                continue;
            }
            let place = |offset| Place {
                object: main,
                offset,
            };
            self.add(place(from), place(to), count)?;
        }
    }
}

fn decimal(text: &str) -> Option<u64> {
    text.parse().ok()
}

/// A linked address, 0 outside of the binary.
fn address(text: &str) -> Option<u64> {
    match text.split_once(':') {
        Some(("X", _)) => Some(0),
        Some((_, offset)) => u64::from_str_radix(offset, 16).ok(),
        None => u64::from_str_radix(text, 16).ok(),
    }
}
