//! Samples as one JSON document, written record by record.
//!
//! Addresses are strings of hexadecimal digits: a JSON number loses bits above 53.

use std::io::Write;

use serde::Serialize;

use super::sink::{ExportError, SampleSink};
use crate::perfdata::{BranchEntry, FileInfo, Mapping, SampleRecord, TaskId};

/// Version of the document's shape.
const VERSION: u32 = 1;

/// Writes `{"format", "version", "event", ..., "records": [...]}`.
#[derive(Debug)]
pub struct JsonSink<W> {
    out: W,
    head: String,
    records: u64,
}

#[derive(Serialize)]
struct Head<'a> {
    format: &'static str,
    version: u32,
    event: &'a str,
    event_type: u32,
    config: String,
    period: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency: Option<u64>,
    /// The other events of a group.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    group: Vec<&'a str>,
    branch_sample_type: String,
    cpuid: &'a str,
    /// What cycles and times are of, if a model made them.
    #[serde(skip_serializing_if = "Option::is_none")]
    timing: Option<&'a str>,
    cmdline: &'a [String],
}

#[derive(Serialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum Item<'a> {
    Comm {
        pid: u32,
        tid: u32,
        time: u64,
        comm: &'a str,
        exec: bool,
    },
    Mapping {
        pid: u32,
        time: u64,
        start: String,
        length: String,
        offset: String,
        path: String,
        kernel: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        build_id: Option<String>,
    },
    Fork {
        pid: u32,
        tid: u32,
        parent_pid: u32,
        parent_tid: u32,
        time: u64,
    },
    Exit {
        pid: u32,
        tid: u32,
        parent_pid: u32,
        parent_tid: u32,
        time: u64,
    },
    Lost {
        pid: u32,
        tid: u32,
        time: u64,
        count: u64,
    },
    Sample {
        pid: u32,
        tid: u32,
        cpu: u32,
        time: u64,
        period: u64,
        ip: String,
        kernel: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        hw_idx: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        callchain: Option<Vec<String>>,
        branches: Vec<Branch>,
        /// What each event of the group has counted, the sampled one first.
        #[serde(skip_serializing_if = "<[u64]>::is_empty")]
        counts: &'a [u64],
    },
}

#[derive(Serialize)]
struct Branch {
    from: String,
    to: String,
    mispred: bool,
    predicted: bool,
    in_tx: bool,
    abort: bool,
    cycles: u16,
    #[serde(rename = "type")]
    branch_type: u8,
    spec: u8,
    new_type: u8,
    #[serde(rename = "priv")]
    privilege: u8,
}

impl From<&BranchEntry> for Branch {
    fn from(entry: &BranchEntry) -> Self {
        let flags = entry.flags;
        Self {
            from: hex(entry.from),
            to: hex(entry.to),
            mispred: flags.mispred,
            predicted: flags.predicted,
            in_tx: flags.in_tx,
            abort: flags.abort,
            cycles: flags.cycles,
            branch_type: flags.branch_type.get(),
            spec: flags.spec.get(),
            new_type: flags.new_type.get(),
            privilege: flags.privilege.get(),
        }
    }
}

fn hex(address: u64) -> String {
    format!("{address:#x}")
}

impl<W: Write> JsonSink<W> {
    /// Writes samples of the file that `info` describes.
    ///
    /// # Errors
    /// [`ExportError::Json`].
    pub fn new(out: W, info: &FileInfo) -> Result<Self, ExportError> {
        let head = serde_json::to_string(&Head {
            format: "vlbr-samples",
            version: VERSION,
            event: &info.event.name,
            event_type: info.event.event_type,
            config: hex(info.event.config),
            period: info.event.period,
            frequency: info.event.frequency,
            group: info.group.iter().map(|event| event.name.as_str()).collect(),
            branch_sample_type: format!("{:?}", info.branch_sample_type),
            cpuid: &info.cpuid,
            timing: info.timing.as_deref(),
            cmdline: &info.cmdline,
        })?;
        Ok(Self {
            out,
            head,
            records: 0,
        })
    }

    fn item(&mut self, item: &Item<'_>) -> Result<(), ExportError> {
        self.open()?;
        self.out
            .write_all(if self.records == 0 { b"\n" } else { b",\n" })?;
        serde_json::to_writer(&mut self.out, item)?;
        self.records += 1;
        Ok(())
    }

    /// Writes the head once.
    fn open(&mut self) -> Result<(), ExportError> {
        if let Some(open) = self.head.strip_suffix('}') {
            write!(self.out, "{open},\"records\":[")?;
            self.head.clear();
        }
        Ok(())
    }
}

impl<W: Write> SampleSink for JsonSink<W> {
    fn comm(
        &mut self,
        task: TaskId,
        comm: &str,
        exec: bool,
        time_ns: u64,
    ) -> Result<(), ExportError> {
        self.item(&Item::Comm {
            pid: task.pid,
            tid: task.tid,
            time: time_ns,
            comm,
            exec,
        })
    }

    fn mapping(&mut self, mapping: &Mapping, time_ns: u64) -> Result<(), ExportError> {
        self.item(&Item::Mapping {
            pid: mapping.pid,
            time: time_ns,
            start: hex(mapping.start),
            length: hex(mapping.len),
            offset: hex(mapping.pgoff),
            path: mapping.path.to_string_lossy().into_owned(),
            kernel: mapping.kernel,
            build_id: mapping
                .build_id
                .as_ref()
                .map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect()),
        })
    }

    fn fork(&mut self, parent: TaskId, child: TaskId, time_ns: u64) -> Result<(), ExportError> {
        self.item(&Item::Fork {
            pid: child.pid,
            tid: child.tid,
            parent_pid: parent.pid,
            parent_tid: parent.tid,
            time: time_ns,
        })
    }

    fn exit(&mut self, parent: TaskId, task: TaskId, time_ns: u64) -> Result<(), ExportError> {
        self.item(&Item::Exit {
            pid: task.pid,
            tid: task.tid,
            parent_pid: parent.pid,
            parent_tid: parent.tid,
            time: time_ns,
        })
    }

    fn lost(&mut self, task: TaskId, count: u64, time_ns: u64) -> Result<(), ExportError> {
        self.item(&Item::Lost {
            pid: task.pid,
            tid: task.tid,
            time: time_ns,
            count,
        })
    }

    fn sample(&mut self, sample: &SampleRecord<'_>) -> Result<(), ExportError> {
        self.item(&Item::Sample {
            pid: sample.pid,
            tid: sample.tid,
            cpu: sample.cpu,
            time: sample.time_ns,
            period: sample.period,
            ip: hex(sample.ip),
            kernel: sample.kernel,
            hw_idx: sample.hw_idx,
            callchain: sample
                .callchain
                .map(|chain| chain.iter().map(|&a| hex(a)).collect()),
            branches: sample.branches.iter().map(Branch::from).collect(),
            counts: sample.counts,
        })
    }

    fn finish(&mut self) -> Result<(), ExportError> {
        self.open()?;
        self.out.write_all(b"\n]}\n")?;
        Ok(self.out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perfdata::{BranchFlags, EventInfo};

    #[test]
    fn the_document_parses_and_keeps_all_64_bits_of_an_address() {
        let mut text = Vec::new();
        let info = FileInfo::new(EventInfo::branches(7));
        let mut sink = JsonSink::new(&mut text, &info).expect("created");
        sink.comm(TaskId { pid: 1, tid: 1 }, "x\"y", true, 0)
            .expect("named");
        let flags = BranchFlags {
            mispred: true,
            cycles: 9,
            ..BranchFlags::default()
        };
        let branches = [BranchEntry {
            from: u64::MAX - 1,
            to: 16,
            flags,
        }];
        let sample = SampleRecord {
            ip: 16,
            pid: 1,
            tid: 1,
            time_ns: 5,
            cpu: 0,
            period: 7,
            kernel: false,
            branches: &branches,
            hw_idx: Some(3),
            callchain: None,
            counts: &[],
            instance: 0,
        };
        sink.sample(&sample).expect("taken");
        sink.finish().expect("finished");
        let value: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let branch = &value["records"][1]["branches"][0];
        assert_eq!(branch["from"], "0xfffffffffffffffe");
        assert_eq!(
            (branch["mispred"].as_bool(), branch["cycles"].as_u64()),
            (Some(true), Some(9))
        );
        assert_eq!(value["records"][0]["comm"], "x\"y");
    }

    #[test]
    fn a_document_without_records_parses_too() {
        let mut text = Vec::new();
        let info = FileInfo::new(EventInfo::branches(7));
        JsonSink::new(&mut text, &info)
            .expect("created")
            .finish()
            .expect("finished");
        let value: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(value["records"].as_array().map(Vec::len), Some(0));
    }
}
