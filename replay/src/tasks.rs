//! When the tasks and mappings of a trace come and go.

use std::collections::BTreeMap;

use vlbr_traces::perfdata::{Mapping, TaskId};
use vlbr_traces::vlt::{self, Process, ProcessStart, Scope, Trace};

/// What can be told about tasks and mappings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    Fork {
        parent: TaskId,
        child: TaskId,
    },
    Comm {
        task: TaskId,
        name: String,
        exec: bool,
    },
    Exit {
        parent: TaskId,
        task: TaskId,
    },
    /// By index of the process.
    Mapping(u32, Mapping),
}

/// The tasks and mappings of a trace by the chunk before which they come or go.
///
/// Their order is that of cause: a task comes after its parent with its name and the mappings it
/// had until then, a program after the one it replaced, and every task ends once. An exec ends no
/// task, but the other threads of its process. The place in between the samples is bounded by the
/// file, which holds whole chunks: a task comes just before the first chunk of its own, of one of
/// its descendants or of the program that replaced it, and no later than its parent's last chunk;
/// a thread ends behind its last chunk, a process behind the last chunk of all its threads. Between
/// those a recording does not say when a fork or an exit was. Times are the instructions of the
/// chunks before, in file order, whichever thread ran them.
///
/// A thread id that comes back in one program of one process is one thread here.
#[derive(Clone, Debug)]
pub struct Tasks {
    /// Ordered by chunk, then by cause.
    notices: Vec<(usize, Notice)>,
}

/// `mapping` of the trace as perf would be told of it. Code that ran was executable, whatever the
/// recording knows of it.
fn mapping(trace: &Trace, mapping: &vlt::Mapping) -> Mapping {
    let flags = mapping.flags;
    let pid = trace
        .processes()
        .get(mapping.process.0 as usize)
        .map_or(0, |process| process.pid);
    let mut told = if flags.kernel {
        Mapping::kernel(mapping.start, mapping.length)
    } else {
        Mapping::user(
            pid,
            mapping.start,
            mapping.length,
            mapping.offset,
            &mapping.path,
        )
    };
    if flags.kernel {
        told.path.clone_from(&mapping.path);
    }
    told.prot = u32::from(flags.read) | u32::from(flags.write) << 1 | 1 << 2;
    told.flags = if flags.shared { 1 } else { 2 };
    told.build_id =
        (!mapping.build_id.is_empty()).then(|| mapping.build_id.iter().copied().take(20).collect());
    told
}

/// The kernel of a guest, which is no file mapping: its list of symbols says where it lies, the code
/// that runs only at boot included.
fn kernel_image(kallsyms: &str) -> Option<Mapping> {
    let address_of = |wanted: &str| {
        kallsyms.lines().find_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let address = u64::from_str_radix(fields.next()?, 16).ok()?;
            (fields.nth(1)? == wanted).then_some(address)
        })
    };
    let start = address_of("_text")?;
    let length = address_of("_end")?.checked_sub(start)?;
    (length > 0).then(|| Mapping::kernel(start, length))
}

/// The chunks in which something ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: usize,
    last: usize,
}

impl Span {
    fn add(span: &mut Option<Self>, chunk: usize) {
        span.get_or_insert(Self {
            first: chunk,
            last: chunk,
        })
        .last = chunk;
    }
}

/// The chunk before which each process comes.
///
/// Causes have lower indices than effects, so that one pass down and one up settle all: a cause
/// comes no later than its effects, and a fork no later than the parent's last chunk, which is not
/// before the parent.
fn births(processes: &[Process], spans: &[Option<Span>]) -> Vec<Option<usize>> {
    let mut latest: BTreeMap<u32, usize> = BTreeMap::new();
    let mut causes = Vec::with_capacity(processes.len());
    for (index, process) in processes.iter().enumerate() {
        causes.push(match process.start {
            ProcessStart::Fork => latest.get(&process.ppid).copied(),
            ProcessStart::Exec => latest.get(&process.pid).copied(),
            ProcessStart::Initial | ProcessStart::System => None,
        });
        latest.insert(process.pid, index);
    }
    let mut births: Vec<_> = spans.iter().map(|span| span.map(|s| s.first)).collect();
    for index in (0..processes.len()).rev() {
        let (Some(birth), Some(cause)) = (births[index], causes[index]) else {
            continue;
        };
        births[cause] = Some(births[cause].map_or(birth, |known| known.min(birth)));
    }
    for (index, process) in processes.iter().enumerate() {
        let parent = causes[index].filter(|_| process.start == ProcessStart::Fork);
        let last = parent.and_then(|parent| spans[parent]).map(|s| s.last);
        births[index] = births[index].map(|own| last.map_or(own, |last| own.min(last)));
    }
    births
}

/// What comes before what at one chunk: ends, then the processes by index, each with its fork, its
/// name, its mappings and its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    ThreadEnds(u32),
    ProcessEnds(u32),
    Process(u32, u8),
}

struct Builder {
    notices: Vec<(usize, Rank, Notice)>,
}

impl Builder {
    fn push(&mut self, chunk: usize, rank: Rank, notice: Notice) {
        self.notices.push((chunk, rank, notice));
    }

    /// The processes, and the end of each that no other program replaced.
    fn processes(&mut self, trace: &Trace, spans: &[Option<Span>], births: &[Option<usize>]) {
        // By process id: the last chunk of all programs that ran in it, and the last of them.
        let mut open: BTreeMap<u32, (Option<usize>, usize)> = BTreeMap::new();
        let mut ended = Vec::new();
        for (index, process) in trace.processes().iter().enumerate() {
            let Some(birth) = births[index] else { continue };
            let rank = |step| Rank::Process(index as u32, step);
            let task = leader(process.pid);
            let fork = process.start == ProcessStart::Fork;
            if fork {
                let parent = leader(process.ppid);
                self.push(
                    birth,
                    rank(0),
                    Notice::Fork {
                        parent,
                        child: task,
                    },
                );
            }
            let name = process.path.file_name().unwrap_or(process.path.as_os_str());
            let name = name.to_string_lossy().into_owned();
            let exec = !fork;
            self.push(birth, rank(1), Notice::Comm { task, name, exec });
            let last = spans[index].map(|span| span.last);
            let before = open.remove(&process.pid);
            if process.start == ProcessStart::Exec {
                let before = before.and_then(|(last, _)| last);
                open.insert(process.pid, (before.max(last), index));
            } else {
                ended.extend(before);
                open.insert(process.pid, (last, index));
            }
        }
        ended.extend(open.into_values());
        for (last, index) in ended {
            let process = &trace.processes()[index];
            let notice = Notice::Exit {
                parent: leader(process.ppid),
                task: leader(process.pid),
            };
            let behind = last.map_or(usize::MAX, |last| last + 1);
            self.push(behind, Rank::ProcessEnds(index as u32), notice);
        }
    }

    /// The threads that do not lead their process.
    fn threads(&mut self, trace: &Trace, spans: &[Option<Span>]) {
        let mut known: BTreeMap<(u32, u32), (Span, String)> = BTreeMap::new();
        for (thread, span) in trace.threads().iter().zip(spans) {
            let process = &trace.processes()[thread.process.0 as usize];
            let Some(span) = *span else { continue };
            if thread.tid == process.pid {
                continue;
            }
            let (whole, _) = known
                .entry((thread.process.0, thread.tid))
                .or_insert_with(|| (span, thread.name.clone()));
            whole.first = whole.first.min(span.first);
            whole.last = whole.last.max(span.last);
        }
        for ((index, tid), (span, name)) in known {
            let process = &trace.processes()[index as usize];
            let child = TaskId {
                pid: process.pid,
                tid,
            };
            let parent = leader(process.pid);
            let rank = Rank::Process(index, 3);
            self.push(span.first, rank, Notice::Fork { parent, child });
            if !name.is_empty() {
                let notice = Notice::Comm {
                    task: child,
                    name,
                    exec: false,
                };
                self.push(span.first, rank, notice);
            }
            // Linux names the parent of the process here (`perf_event_task_output`).
            let notice = Notice::Exit {
                parent: leader(process.ppid),
                task: child,
            };
            self.push(span.last + 1, Rank::ThreadEnds(index), notice);
        }
    }

    fn mappings(&mut self, trace: &Trace, spans: &[Option<Span>], births: &[Option<usize>]) {
        let mut addresses: Vec<(u64, u32)> = trace
            .code()
            .blocks()
            .iter()
            .map(|block| (block.address(), block.mode().space))
            .collect();
        addresses.sort_unstable();
        // Address spaces of a machine are not its processes.
        let system = trace.meta().scope == Scope::System;
        let ran = |mapping: &vlt::Mapping| {
            let first = addresses.partition_point(|&(address, _)| address < mapping.start);
            addresses[first..]
                .iter()
                .take_while(|&&(address, _)| mapping.contains(address))
                .any(|&(_, space)| system || space == mapping.process.0)
        };
        for known in trace.mappings() {
            let index = known.process.0 as usize;
            let Some(birth) = births.get(index).copied().flatten() else {
                continue;
            };
            let chunk = birth.max(known.from_chunk as usize);
            // What was mapped behind the last chunk no sample meets.
            if spans[index].is_some_and(|span| chunk > span.last) {
                continue;
            }
            if known.flags.execute || ran(known) {
                let notice = Notice::Mapping(known.process.0, mapping(trace, known));
                self.push(chunk, Rank::Process(known.process.0, 2), notice);
            }
        }
    }
}

/// The thread that leads process `pid`.
const fn leader(pid: u32) -> TaskId {
    TaskId { pid, tid: pid }
}

impl Tasks {
    /// The tasks and mappings of `trace`. Of the mappings, as perf is told, those that are
    /// executable; others only if their process ran code in them.
    #[must_use]
    pub fn new(trace: &Trace) -> Self {
        let system = trace.meta().scope == Scope::System;
        let mut of_processes = vec![None; trace.processes().len()];
        let mut of_threads = vec![None; trace.threads().len()];
        for (index, chunk) in trace.chunks().iter().enumerate() {
            let thread = chunk.thread.0 as usize;
            let process = trace.threads()[thread].process.0 as usize;
            Span::add(&mut of_processes[process], index);
            Span::add(&mut of_threads[thread], index);
        }
        let births = births(trace.processes(), &of_processes);
        let mut builder = Builder {
            notices: Vec::new(),
        };
        if !system {
            builder.processes(trace, &of_processes, &births);
            builder.threads(trace, &of_threads);
        }
        builder.mappings(trace, &of_processes, &births);
        if system && !trace.mappings().iter().any(|known| known.flags.kernel) {
            let kernel = trace.symbols().and_then(kernel_image);
            if let Some(kernel) = kernel {
                builder.push(0, Rank::Process(0, 2), Notice::Mapping(0, kernel));
            }
        }
        builder
            .notices
            .sort_by_key(|&(chunk, rank, _)| (chunk, rank));
        let notices = builder.notices.into_iter();
        Self {
            notices: notices.map(|(chunk, _, notice)| (chunk, notice)).collect(),
        }
    }

    /// Notice number `index`, with the chunk before which it is to be told.
    pub(crate) fn notice(&self, index: usize) -> Option<&(usize, Notice)> {
        self.notices.get(index)
    }

    /// The mappings.
    pub fn mappings(&self) -> impl Iterator<Item = &Mapping> {
        self.mappings_of_processes().map(|(_, mapping)| mapping)
    }

    /// The mappings with the index of the process that has them.
    pub(crate) fn mappings_of_processes(&self) -> impl Iterator<Item = (u32, &Mapping)> {
        self.notices.iter().filter_map(|(_, notice)| match notice {
            Notice::Mapping(process, mapping) => Some((*process, mapping)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_kernel_lies_from_text_to_end() {
        let list = "0000000000000000 A fixed_percpu_data\n\
                    ffffffff81000000 T _text\n\
                    ffffffff81c00000 T _etext\n\
                    ffffffff82e00000 B _end\n\
                    ffffffffc0000000 t cleanup\t[module]\n";
        let kernel = kernel_image(list).expect("both ends are listed");
        assert_eq!(kernel, Mapping::kernel(0xffff_ffff_8100_0000, 0x1e0_0000));
    }

    #[test]
    fn a_list_without_ends_or_with_crossed_ends_places_no_kernel() {
        assert_eq!(kernel_image(""), None);
        assert_eq!(kernel_image("ffffffff81000000 T _text\n"), None);
        assert_eq!(kernel_image("20 T _text\n10 B _end\n"), None);
        assert_eq!(kernel_image("zz T _text\n10 B _end\n"), None);
    }
}
