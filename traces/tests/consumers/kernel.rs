//! Kernel samples, and entries with every value of the typed fields.

use std::path::Path;
use std::process::Command;

use vlbr_traces::export::{PerfDataSink, PerfScriptSink, SampleSink, ScriptFields};
use vlbr_traces::perfdata::{
    BranchEntry, BranchFlags, BranchPrivilege, BranchSampleType, BranchType, EventInfo, FileInfo,
    Mapping, NewBranchType, PerfDataWriter, SampleRecord, TaskId,
};

use super::program::{run, tool};

const TEXT: u64 = 0xffff_ffff_8100_0000;
const TASK: TaskId = TaskId { pid: 77, tid: 78 };

fn info() -> FileInfo {
    let mut info = FileInfo::new(EventInfo::branches(5));
    info.event.exclude_kernel = false;
    info.branch_sample_type = BranchSampleType::KERNEL
        | BranchSampleType::USER
        | BranchSampleType::ANY
        | BranchSampleType::TYPE_SAVE
        | BranchSampleType::PRIV_SAVE;
    info
}

/// A system call: user code, then the kernel, with entries of every type.
fn feed(sink: &mut dyn SampleSink) {
    sink.mapping(&Mapping::kernel(TEXT, 0x10_0000), 0)
        .expect("mapped");
    sink.comm(TASK, "a rather long name", false, 1)
        .expect("named");
    sink.mapping(
        &Mapping::user(TASK.pid, 0x40_0000, 0x1000, 0, "/nowhere/program"),
        2,
    )
    .expect("mapped");
    let mut entries: Vec<BranchEntry> = (0..16)
        .map(|number| BranchEntry {
            from: 0x40_0010 + u64::from(number),
            to: TEXT + 0x100,
            flags: BranchFlags {
                mispred: number & 1 != 0,
                predicted: number & 2 != 0,
                in_tx: number & 4 != 0,
                abort: number & 8 != 0,
                cycles: u16::from(number) * 4369,
                branch_type: BranchType::new(number).expect("four bits"),
                privilege: BranchPrivilege::KERNEL,
                ..BranchFlags::default()
            },
        })
        .collect();
    entries.extend((0..16).map(|number| BranchEntry {
        from: 0x40_0100,
        to: 0x40_0200,
        flags: BranchFlags {
            branch_type: BranchType::EXTEND_ABI,
            new_type: NewBranchType::new(number).expect("four bits"),
            ..BranchFlags::default()
        },
    }));
    for (ip, kernel) in [(0x40_0123, false), (TEXT + 0x123, true)] {
        let sample = SampleRecord {
            ip,
            pid: TASK.pid,
            tid: TASK.tid,
            time_ns: 12_345_678_901,
            cpu: 11,
            period: 5,
            kernel,
            branches: &entries,
            hw_idx: None,
            callchain: None,
            counts: &[],
            instance: 0,
        };
        sink.sample(&sample).expect("taken");
    }
    sink.finish().expect("finished");
}

fn perf_data(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("perf.data");
    feed(&mut PerfDataSink::new(
        PerfDataWriter::create(&path, info()).expect("created"),
    ));
    path
}

#[test]
fn perf_prints_every_type_and_flag_as_we_export_them() {
    let Some(perf) = tool("perf") else { return };
    let folder = tempfile::tempdir().expect("folder");
    let data = perf_data(folder.path());
    let theirs = run(Command::new(perf).args(["script", "-i"]).arg(&data).args([
        "-F",
        "comm,pid,tid,cpu,time,period,event,ip,brstack",
        "--show-mmap-events",
        "--show-task-events",
    ]));
    let mut ours = Vec::new();
    feed(&mut PerfScriptSink::new(
        &mut ours,
        &info(),
        ScriptFields::ALL,
    ));
    assert_eq!(String::from_utf8_lossy(&ours), theirs);
}

#[test]
fn perf_finds_kernel_symbols_for_kernel_samples() {
    let Some(perf) = tool("perf") else { return };
    let folder = tempfile::tempdir().expect("folder");
    let data = perf_data(folder.path());
    let list = folder.path().join("kallsyms");
    let text = "ffffffff81000000 T _text\nffffffff81000000 T _stext\n\
        ffffffff81000100 T entry_SYSCALL_64\nffffffff81000200 T next_one\n\
        ffffffff81100000 T _etext\n";
    std::fs::write(&list, text).expect("written");
    let theirs = run(Command::new(perf)
        .args(["script", "-F", "ip,sym,symoff", "-i"])
        .arg(&data)
        .arg("--kallsyms")
        .arg(&list));
    let lines: Vec<&str> = theirs.lines().map(str::trim).collect();
    assert_eq!(
        lines,
        ["400123 [unknown]", "ffffffff81000123 entry_SYSCALL_64+0x23"]
    );
    let mut symbols = vlbr_traces::symbols::Symbolizer::new();
    symbols.kallsyms(&list).expect("read");
    assert_eq!(
        symbols.describe(TASK.pid, TEXT + 0x123),
        "entry_SYSCALL_64+0x23"
    );
    assert_eq!(symbols.describe(TASK.pid, 0x40_0123), "0x400123");
}
