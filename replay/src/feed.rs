//! Tasks, mappings and samples of a trace to an exporter.

use vlbr_cpu::run::Sample;
use vlbr_traces::export::SampleSink;
use vlbr_traces::perfdata::{Mapping, SampleRecord, TaskId};
use vlbr_traces::vlt::{self, ProcessStart, Scope, Trace};

use crate::session::{Consumer, ReplayError};

/// What can be told about tasks and mappings.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Notice {
    Fork {
        parent: TaskId,
        child: TaskId,
    },
    Comm {
        task: TaskId,
        name: String,
        exec: bool,
    },
    /// By index of the process.
    Mapping(u32, Mapping),
}

/// The tasks and mappings of a trace by the chunk before which they come into being.
#[derive(Clone, Debug)]
pub struct Tasks {
    /// Ordered by chunk.
    notices: Vec<(usize, Notice)>,
    ends: Vec<(TaskId, TaskId)>,
}

/// `mapping` of the trace as perf would be told of it.
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
    // Emulators map guest code without the host's execute permission; it is code all the same.
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

impl Tasks {
    /// The tasks and mappings of `trace`. Of the mappings those that hold code the trace ran.
    #[must_use]
    pub fn new(trace: &Trace) -> Self {
        let mut addresses: Vec<u64> = trace
            .code()
            .blocks()
            .iter()
            .map(vlbr_cpu::Block::address)
            .collect();
        addresses.sort_unstable();
        let ran = |mapping: &vlt::Mapping| {
            let first = addresses.partition_point(|&address| address < mapping.start);
            addresses
                .get(first)
                .is_some_and(|&address| mapping.contains(address))
        };
        let system = trace.meta().scope == Scope::System;
        let mut notices = Vec::new();
        let mut ends = Vec::new();
        let mut first_of_process = vec![None; trace.processes().len()];
        let mut first_of_thread = vec![None; trace.threads().len()];
        for (index, chunk) in trace.chunks().iter().enumerate() {
            let thread = chunk.thread.0 as usize;
            let process = trace.threads()[thread].process.0 as usize;
            first_of_process[process].get_or_insert(index);
            first_of_thread[thread].get_or_insert(index);
        }
        for (process, first) in trace.processes().iter().zip(&first_of_process) {
            let Some(first) = *first else { continue };
            let task = TaskId {
                pid: process.pid,
                tid: process.pid,
            };
            let parent = TaskId {
                pid: process.ppid,
                tid: process.ppid,
            };
            if system {
                continue;
            }
            if process.start == ProcessStart::Fork {
                notices.push((
                    first,
                    Notice::Fork {
                        parent,
                        child: task,
                    },
                ));
            }
            let exec = process.start != ProcessStart::Fork;
            let name = process.path.file_name().unwrap_or(process.path.as_os_str());
            let name = name.to_string_lossy().into_owned();
            notices.push((first, Notice::Comm { task, name, exec }));
            ends.push((parent, task));
        }
        for (thread, first) in trace.threads().iter().zip(&first_of_thread) {
            let process = &trace.processes()[thread.process.0 as usize];
            let Some(first) = *first else { continue };
            if system || thread.tid == process.pid {
                continue;
            }
            let parent = TaskId {
                pid: process.pid,
                tid: process.pid,
            };
            let child = TaskId {
                pid: process.pid,
                tid: thread.tid,
            };
            notices.push((first, Notice::Fork { parent, child }));
            if !thread.name.is_empty() {
                let name = thread.name.clone();
                notices.push((
                    first,
                    Notice::Comm {
                        task: child,
                        name,
                        exec: false,
                    },
                ));
            }
            ends.push((parent, child));
        }
        for known in trace.mappings().iter().filter(|mapping| ran(mapping)) {
            let first = first_of_process
                .get(known.process.0 as usize)
                .copied()
                .flatten();
            if let Some(first) = first {
                let chunk = first.max(known.from_chunk as usize);
                let notice = Notice::Mapping(known.process.0, mapping(trace, known));
                notices.push((chunk, notice));
            }
        }
        if system && !trace.mappings().iter().any(|known| known.flags.kernel) {
            let kernel = trace.symbols().and_then(kernel_image);
            notices.extend(kernel.map(|kernel| (0, Notice::Mapping(0, kernel))));
        }
        notices.sort_by_key(|(chunk, _)| *chunk);
        Self { notices, ends }
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

/// Feeds a sink from a session.
pub struct Feed<'s> {
    tasks: Tasks,
    next: usize,
    now: u64,
    sink: &'s mut dyn SampleSink,
}

impl std::fmt::Debug for Feed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed")
            .field("next", &self.next)
            .field("now", &self.now)
            .finish()
    }
}

impl<'s> Feed<'s> {
    /// Tells `sink` of `tasks` as they come and of every sample.
    #[must_use]
    pub fn new(tasks: Tasks, sink: &'s mut dyn SampleSink) -> Self {
        Self {
            tasks,
            next: 0,
            now: 0,
            sink,
        }
    }

    /// Tells the ends of the tasks and finishes the sink.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn finish(mut self) -> Result<(), ReplayError> {
        self.notify(usize::MAX)?;
        for &(parent, task) in self.tasks.ends.iter().rev() {
            self.sink.exit(parent, task, self.now)?;
        }
        Ok(self.sink.finish()?)
    }

    fn notify(&mut self, chunk: usize) -> Result<(), ReplayError> {
        while let Some((at, notice)) = self.tasks.notices.get(self.next) {
            if *at > chunk {
                break;
            }
            match notice {
                Notice::Fork { parent, child } => self.sink.fork(*parent, *child, self.now)?,
                Notice::Comm { task, name, exec } => {
                    self.sink.comm(*task, name, *exec, self.now)?;
                }
                Notice::Mapping(_, mapping) => self.sink.mapping(mapping, self.now)?,
            }
            self.next += 1;
        }
        Ok(())
    }
}

impl Consumer for Feed<'_> {
    fn chunk(&mut self, chunk: usize, time_ns: u64) -> Result<(), ReplayError> {
        self.now = time_ns;
        self.notify(chunk)
    }

    fn sample(&mut self, sample: &SampleRecord<'_>, _at: &Sample) -> Result<(), ReplayError> {
        self.now = sample.time_ns;
        Ok(self.sink.sample(sample)?)
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
