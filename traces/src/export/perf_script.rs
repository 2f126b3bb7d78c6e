//! The text that `perf script` prints, for tools that read it.
//!
//! Columns are those of perf 6.1: `tools/perf/builtin-script.c`.

use std::collections::BTreeMap;
use std::io::Write;

use super::sink::{ExportError, SampleSink};
use crate::perfdata::{
    BranchEntry, BranchSampleType, BranchType, FileInfo, Mapping, SampleRecord, TaskId,
};

/// Columns of `perf script -F`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScriptFields {
    /// `comm`.
    pub comm: bool,
    /// `pid`.
    pub pid: bool,
    /// `tid`.
    pub tid: bool,
    /// `cpu`.
    pub cpu: bool,
    /// `time`.
    pub time: bool,
    /// `period`.
    pub period: bool,
    /// `event`.
    pub event: bool,
    /// `ip`, with the call chain where the event has one.
    pub ip: bool,
    /// `brstack`.
    pub brstack: bool,
    /// `--show-mmap-events`; llvm-profgen needs them.
    pub mmap_events: bool,
    /// `--show-task-events`.
    pub task_events: bool,
}

impl ScriptFields {
    /// `-F ip,brstack`.
    pub const IP_BRSTACK: Self = Self {
        comm: false,
        pid: false,
        tid: false,
        cpu: false,
        time: false,
        period: false,
        event: false,
        ip: true,
        brstack: true,
        mmap_events: false,
        task_events: false,
    };

    /// `-F ip,brstack --show-mmap-events`: what `llvm-profgen --perfscript` reads.
    pub const PROFGEN: Self = Self {
        mmap_events: true,
        ..Self::IP_BRSTACK
    };

    /// Every column, with mapping and task events.
    pub const ALL: Self = Self {
        comm: true,
        pid: true,
        tid: true,
        cpu: true,
        time: true,
        period: true,
        event: true,
        ip: true,
        brstack: true,
        mmap_events: true,
        task_events: true,
    };
}

/// Prints samples as `perf script` does.
#[derive(Debug)]
pub struct PerfScriptSink<W> {
    out: W,
    fields: ScriptFields,
    event: String,
    callchain: bool,
    call_stack: bool,
    branch_stack: bool,
    build_id_in_mmap: bool,
    /// By thread. perf takes an unnamed thread's name from its process.
    comms: BTreeMap<u32, String>,
    /// End and file offset by process and start address.
    mapped: BTreeMap<(u32, u64), (u64, u64)>,
}

impl<W: Write> PerfScriptSink<W> {
    /// Prints `fields` of the samples of the file that `info` describes.
    #[must_use]
    pub fn new(out: W, info: &FileInfo, fields: ScriptFields) -> Self {
        Self {
            out,
            fields,
            event: info.event.name.clone(),
            callchain: info.callchain,
            call_stack: info
                .branch_sample_type
                .contains(BranchSampleType::CALL_STACK),
            branch_stack: !info.branch_sample_type.is_empty(),
            build_id_in_mmap: info.build_id_in_mmap,
            comms: BTreeMap::new(),
            mapped: BTreeMap::new(),
        }
    }

    /// The columns before the event, of any record.
    fn start(&mut self, task: TaskId, cpu: u32, time_ns: u64) -> Result<(), ExportError> {
        if self.fields.comm {
            let known = self
                .comms
                .get(&task.tid)
                .or_else(|| self.comms.get(&task.pid));
            let comm = known.cloned().unwrap_or_else(|| match task.tid {
                0 => "swapper".to_owned(),
                tid => format!(":{}", tid as i32),
            });
            if self.fields.ip && self.callchain {
                write!(self.out, "{comm} ")?;
            } else {
                write!(self.out, "{comm:>16} ")?;
            }
        }
        match (self.fields.pid, self.fields.tid) {
            // pid and tid of the kernel's own records are -1 and 0.
            (true, true) => write!(self.out, "{:5}/{:<5} ", task.pid as i32, task.tid as i32)?,
            (true, false) => write!(self.out, "{:5} ", task.pid as i32)?,
            (false, true) => write!(self.out, "{:5} ", task.tid as i32)?,
            (false, false) => {}
        }
        if self.fields.cpu {
            write!(self.out, "[{cpu:03}] ")?;
        }
        if self.fields.time {
            let (seconds, micros) = (time_ns / 1_000_000_000, time_ns % 1_000_000_000 / 1000);
            let text = format!("{seconds:5}.{micros:06}");
            write!(self.out, "{text:>12}: ")?;
        }
        Ok(())
    }

    fn task_event(
        &mut self,
        name: &str,
        parent: TaskId,
        task: TaskId,
        time_ns: u64,
    ) -> Result<(), ExportError> {
        if self.fields.task_events {
            self.start(task, 0, time_ns)?;
            writeln!(
                self.out,
                "PERF_RECORD_{name}({}:{}):({}:{})",
                task.pid, task.tid, parent.pid, parent.tid
            )?;
        }
        Ok(())
    }

    /// The frames perf resolves. With a call-stack LBR these are the newest TO, which is the start
    /// of the running function, and each call's FROM.
    fn chain(&mut self, sample: &SampleRecord<'_>) -> Result<(), ExportError> {
        writeln!(self.out)?;
        let context = |address: u64| address > u64::MAX - 4095;
        let frames: Vec<u64> = match sample.branches.first() {
            Some(newest) if self.call_stack && !sample.kernel => std::iter::once(newest.to)
                .chain(sample.branches.iter().map(|e| e.from))
                .collect(),
            _ => {
                let chain = sample.callchain.unwrap_or_default();
                chain
                    .iter()
                    .copied()
                    .filter(|&address| !context(address))
                    .collect()
            }
        };
        for address in frames {
            let shown = self.file_offset(sample.pid, address).unwrap_or(address);
            writeln!(self.out, "\t{shown:16x}")?;
        }
        Ok(())
    }

    /// perf prints user frames of call chains as offsets in the mapped file.
    fn file_offset(&self, pid: u32, address: u64) -> Option<u64> {
        let (&(_, start), &(end, pgoff)) =
            self.mapped.range((pid, 0)..=(pid, address)).next_back()?;
        (address < end).then(|| (address - start).wrapping_add(pgoff))
    }

    fn entry(&mut self, entry: &BranchEntry) -> Result<(), ExportError> {
        let flags = &entry.flags;
        // Both bits set is no state of the hardware; perf prints it as predicted.
        let prediction = match (flags.mispred, flags.predicted) {
            (_, true) => 'P',
            (true, false) => 'M',
            (false, false) => '-',
        };
        let kind = match flags.branch_type {
            BranchType::UNKNOWN => "",
            // What perf's C library prints for the name that is not there.
            BranchType::EXTEND_ABI => flags.new_type.name().unwrap_or("(null)"),
            kind => kind.name(),
        };
        write!(
            self.out,
            " {}/{}/{prediction}/{}/{}/{}/{kind} ",
            Hex(entry.from),
            Hex(entry.to),
            if flags.in_tx { 'X' } else { '-' },
            if flags.abort { 'A' } else { '-' },
            flags.cycles,
        )?;
        Ok(())
    }
}

/// A number as C's `%#lx` or `0x%lx` prints it.
struct Hex(u64);

impl std::fmt::Display for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

/// `%#lx`: zero has no prefix.
struct AltHex(u64);

impl std::fmt::Display for AltHex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == 0 {
            f.write_str("0")
        } else {
            write!(f, "0x{:x}", self.0)
        }
    }
}

impl<W: Write> SampleSink for PerfScriptSink<W> {
    fn comm(
        &mut self,
        task: TaskId,
        comm: &str,
        exec: bool,
        time_ns: u64,
    ) -> Result<(), ExportError> {
        let comm: String = comm.chars().filter(|c| !c.is_control()).take(15).collect();
        self.comms.insert(task.tid, comm.clone());
        if exec {
            self.mapped.retain(|&(pid, _), _| pid != task.pid);
        }
        if self.fields.task_events {
            self.start(task, 0, time_ns)?;
            let exec = if exec { " exec" } else { "" };
            writeln!(
                self.out,
                "PERF_RECORD_COMM{exec}: {comm}:{}/{}",
                task.pid, task.tid
            )?;
        }
        Ok(())
    }

    fn mapping(&mut self, mapping: &Mapping, time_ns: u64) -> Result<(), ExportError> {
        if !mapping.kernel {
            self.mapped
                .insert((mapping.pid, mapping.start), (mapping.end(), mapping.pgoff));
        }
        if !self.fields.mmap_events {
            return Ok(());
        }
        let path = mapping.path.display();
        if mapping.kernel {
            self.start(
                TaskId {
                    pid: u32::MAX,
                    tid: 0,
                },
                0,
                time_ns,
            )?;
            writeln!(
                self.out,
                "PERF_RECORD_MMAP -1/0: [{}({}) @ {}]: x {path}",
                AltHex(mapping.start),
                AltHex(mapping.len),
                AltHex(mapping.pgoff),
            )?;
            return Ok(());
        }
        self.start(
            TaskId {
                pid: mapping.pid,
                tid: mapping.tid,
            },
            0,
            time_ns,
        )?;
        write!(
            self.out,
            "PERF_RECORD_MMAP2 {}/{}: [{}({}) @ {} ",
            mapping.pid,
            mapping.tid,
            AltHex(mapping.start),
            AltHex(mapping.len),
            AltHex(mapping.pgoff),
        )?;
        match &mapping.build_id {
            Some(id) if self.build_id_in_mmap => {
                let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
                write!(self.out, "<{hex}>")?;
            }
            _ => write!(self.out, "00:00 0 0")?,
        }
        let flag = |bit: u32, yes: char| if mapping.prot & bit != 0 { yes } else { '-' };
        let shared = if mapping.flags & 1 != 0 { 's' } else { 'p' };
        writeln!(
            self.out,
            "]: {}{}{}{shared} {path}",
            flag(1, 'r'),
            flag(2, 'w'),
            flag(4, 'x')
        )?;
        Ok(())
    }

    fn fork(&mut self, parent: TaskId, child: TaskId, time_ns: u64) -> Result<(), ExportError> {
        if let Some(comm) = self.comms.get(&parent.tid).cloned() {
            self.comms.insert(child.tid, comm);
        }
        if parent.pid != child.pid {
            let of_parent = self.mapped.range((parent.pid, 0)..=(parent.pid, u64::MAX));
            let copies: Vec<_> = of_parent
                .map(|(&(_, start), &place)| ((child.pid, start), place))
                .collect();
            self.mapped.extend(copies);
        }
        self.task_event("FORK", parent, child, time_ns)
    }

    fn exit(&mut self, parent: TaskId, task: TaskId, time_ns: u64) -> Result<(), ExportError> {
        self.task_event("EXIT", parent, task, time_ns)
    }

    fn lost(&mut self, _: TaskId, _: u64, _: u64) -> Result<(), ExportError> {
        // perf script prints lost records only with an option of its own.
        Ok(())
    }

    fn sample(&mut self, sample: &SampleRecord<'_>) -> Result<(), ExportError> {
        self.start(sample.task(), sample.cpu, sample.time_ns)?;
        if self.fields.period {
            write!(self.out, "{:>10} ", sample.period)?;
        }
        if self.fields.event {
            write!(self.out, "{}: ", self.event)?;
        }
        if self.fields.ip {
            if self.callchain {
                self.chain(sample)?;
            } else {
                write!(self.out, " {:16x}", sample.ip)?;
            }
        }
        if self.fields.brstack && self.branch_stack {
            for entry in sample.branches {
                self.entry(entry)?;
            }
        }
        writeln!(self.out)?;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), ExportError> {
        Ok(self.out.flush()?)
    }
}
