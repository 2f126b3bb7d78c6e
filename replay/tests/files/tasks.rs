//! perf.data of a tree of processes and of a machine, read back record by record.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use vlbr_cpu::{Block, Exit, Interner, Mode, Step, StepId, Target};
use vlbr_lbr::Profile;
use vlbr_replay::{Feed, Format, Session, SessionOptions, Tasks, export, file_info};
use vlbr_traces::export::PerfDataSink;
use vlbr_traces::perfdata::{
    AttrFlags, BranchSampleType, EventAttr, Features, FileIdentity, PerfDataWriter, PerfFile,
    Record, RecordType, SampleType, TaskId,
};
use vlbr_traces::synthetic::SyntheticConfig;
use vlbr_traces::vlt::{
    Mapping, MappingFlags, Meta, OpenOptions, Process, ProcessIndex, ProcessStart, SideStreams,
    Thread, ThreadIndex, Trace, Writer, WriterOptions, encode_chunk,
};

use super::synthetic::Recipe;

const STEPS: usize = 3000;
const CODE: u64 = 0x40_1000;

/// A record by what it says, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Fork(TaskId, TaskId),
    Exit(TaskId, TaskId),
    Comm(TaskId, String, bool),
    /// Process, start, length, offset, protection, flags, path.
    Map(u32, u64, u64, u64, u32, u32, PathBuf),
    Kernel(u64, u64, u64),
    /// Process, thread and the mode bits of `misc`.
    Sample(TaskId, u16),
}

struct File {
    told: Vec<(u64, Told)>,
    attr: EventAttr,
    features: Features,
    ips: Vec<(u64, u16)>,
    build_ids: Vec<Vec<u8>>,
}

fn task(pid: u32, tid: u32) -> TaskId {
    TaskId { pid, tid }
}

fn path(bytes: &[u8]) -> PathBuf {
    String::from_utf8(bytes.to_vec()).unwrap().into()
}

/// Writes what `options` make of `trace` and reads it back.
fn replayed(trace: &Trace, options: SessionOptions) -> File {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("perf.data");
    let session = Session::new(trace, options).unwrap();
    export(&session, Format::PerfData, &data, &[], &mut |_| ()).unwrap();
    read(&data)
}

fn read(data: &Path) -> File {
    let mut file = PerfFile::open(data).unwrap();
    let features = file.features().unwrap();
    let attr = file.metadata().events[0].attr.clone();
    let (mut told, mut ips, mut build_ids) = (Vec::new(), Vec::new(), Vec::new());
    let mut records = file.records().unwrap();
    while let Some(raw) = records.next_record().unwrap() {
        let mode = raw.cpumode();
        let trailer = |body: &[u8]| {
            u64::from_le_bytes(body[body.len() - 16..body.len() - 8].try_into().unwrap())
        };
        let entry = match raw.parse().unwrap() {
            Record::Task {
                exit,
                task,
                parent,
                time,
            } => {
                assert_eq!(time, trailer(raw.body), "record and trailer have one time");
                let kind = if exit { Told::Exit } else { Told::Fork };
                (time, kind(parent, task))
            }
            Record::Comm { task, comm, exec } => {
                let name = String::from_utf8(comm.to_vec()).unwrap();
                (trailer(raw.body), Told::Comm(task, name, exec))
            }
            Record::Mmap(map) if map.kernel => {
                assert_eq!((raw.kind, mode), (RecordType::MMAP, 1));
                let kernel = Told::Kernel(map.start, map.len, map.pgoff);
                (trailer(raw.body), kernel)
            }
            Record::Mmap(map) => {
                assert_eq!((raw.kind, mode), (RecordType::MMAP2, 2));
                if let FileIdentity::BuildId(id) = map.identity {
                    build_ids.push(id.to_vec());
                }
                let (prot, flags) = map.prot_flags.unwrap();
                let pid = map.task.pid;
                assert_eq!(map.task, task(pid, pid));
                let map = Told::Map(
                    pid,
                    map.start,
                    map.len,
                    map.pgoff,
                    prot,
                    flags,
                    path(map.path),
                );
                (trailer(raw.body), map)
            }
            Record::Sample(sample) => {
                let (pid, tid) = sample.task.unwrap();
                ips.push((sample.ip.unwrap(), mode));
                (sample.time.unwrap(), Told::Sample(task(pid, tid), mode))
            }
            other => panic!("unexpected {other:?}"),
        };
        told.push(entry);
    }
    File {
        told,
        attr,
        features,
        ips,
        build_ids,
    }
}

/// A block at [`CODE`] that jumps to itself, in the address space of a process.
fn circle(interner: &mut Interner, space: u32) -> StepId {
    let block = Block::decode(CODE, Mode::user64(space), &[0xeb, 0xfe]).unwrap();
    let exit = Exit::Taken {
        target: Target {
            address: CODE,
            cs_base: 0,
            code_size: vlbr_arch::CodeSize::Bits64,
            cpl: vlbr_arch::Cpl::Ring3,
        },
        mispredicted: false,
        in_tx: false,
    };
    let block = interner.block(block).unwrap();
    interner
        .step(Step {
            block,
            retired: 1,
            exit,
        })
        .unwrap()
}

/// Writes processes, their threads and mappings, and chunks of [`circle`].
struct Tree {
    writer: Writer<Vec<u8>>,
    interner: Interner,
    steps: Vec<StepId>,
}

impl Tree {
    fn new() -> Self {
        Self {
            writer: Writer::new(Vec::new(), &Meta::default(), WriterOptions::default()).unwrap(),
            interner: Interner::new(),
            steps: Vec::new(),
        }
    }

    fn process(&mut self, pid: u32, ppid: u32, start: ProcessStart, program: &str) -> ThreadIndex {
        let process = Process {
            pid,
            ppid,
            start,
            path: Path::new("/absent").join(program),
            ..Process::default()
        };
        let process = self.writer.add_process(&process).unwrap();
        self.steps.push(circle(&mut self.interner, process.0));
        self.map(process, 0x40_1000, 0x2000, 0x3000, (true, true), program);
        self.thread(process, pid, "")
    }

    fn map(
        &mut self,
        process: ProcessIndex,
        start: u64,
        length: u64,
        offset: u64,
        (read, execute): (bool, bool),
        file: &str,
    ) {
        let mapping = Mapping {
            process,
            start,
            length,
            offset,
            flags: MappingFlags {
                read,
                execute,
                ..MappingFlags::default()
            },
            path: Path::new("/absent").join(file),
            build_id: vec![process.0 as u8 + 1; 20],
            ..Mapping::default()
        };
        self.writer.add_mapping(&mapping).unwrap();
    }

    fn thread(&mut self, process: ProcessIndex, tid: u32, name: &str) -> ThreadIndex {
        let thread = Thread {
            process,
            tid,
            vcpu: None,
            name: name.into(),
        };
        self.writer.add_thread(&thread).unwrap()
    }

    fn trace(mut self, order: &[(ThreadIndex, usize)]) -> Trace {
        self.writer.sync_code(self.interner.code()).unwrap();
        for &(thread, process) in order {
            let steps = [self.steps[process]; STEPS];
            let sides = SideStreams::default();
            let code = self.interner.code();
            let chunk = encode_chunk(thread, &steps, code, &sides, 3).unwrap();
            self.writer.write_chunk(&chunk).unwrap();
        }
        Trace::from_bytes(self.writer.finish(&[]).unwrap(), OpenOptions::default()).unwrap()
    }
}

/// `shell` (10) starts a thread (11) and two children. The first (20) execs `tool` and is laid out
/// before its parent; the second (30) is laid out when its parent has ended.
fn tree() -> Trace {
    let mut tree = Tree::new();
    let shell = tree.process(10, 1, ProcessStart::Initial, "shell");
    let helper = tree.thread(ProcessIndex(0), 11, "helper");
    let first = tree.process(20, 10, ProcessStart::Fork, "shell");
    let tool = tree.process(20, 10, ProcessStart::Exec, "tool");
    let second = tree.process(30, 10, ProcessStart::Fork, "shell");
    tree.trace(&[
        (first, 1),
        (shell, 0),
        (tool, 2),
        (helper, 0),
        (shell, 0),
        (tool, 2),
        (second, 3),
    ])
}

fn skylake() -> SessionOptions {
    SessionOptions::new(Profile::named("skylake").unwrap().clone())
}

fn map(pid: u32, file: &str) -> Told {
    let path = Path::new("/absent").join(file);
    Told::Map(pid, 0x40_1000, 0x2000, 0x3000, 5, 2, path)
}

fn comm(pid: u32, tid: u32, name: &str, exec: bool) -> Told {
    Told::Comm(task(pid, tid), name.into(), exec)
}

#[test]
fn causes_come_before_effects_and_every_task_ends_once() {
    let (shell, child, second) = (task(10, 10), task(20, 20), task(30, 30));
    let expected = [
        comm(10, 10, "shell", true),
        map(10, "shell"),
        Told::Fork(shell, child),
        comm(20, 20, "shell", false),
        map(20, "shell"),
        Told::Sample(child, 2),
        Told::Sample(shell, 2),
        comm(20, 20, "tool", true),
        map(20, "tool"),
        Told::Sample(child, 2),
        Told::Fork(shell, task(10, 11)),
        comm(10, 11, "helper", false),
        Told::Sample(task(10, 11), 2),
        Told::Exit(task(1, 1), task(10, 11)),
        Told::Fork(shell, second),
        comm(30, 30, "shell", false),
        map(30, "shell"),
        Told::Sample(shell, 2),
        Told::Exit(task(1, 1), shell),
        Told::Sample(child, 2),
        Told::Exit(shell, child),
        Told::Sample(second, 2),
        Told::Exit(shell, second),
    ];
    let file = replayed(&tree(), skylake());
    let mut told: Vec<_> = file.told.iter().map(|(_, told)| told.clone()).collect();
    told.dedup();
    assert_eq!(told, expected);
    assert!(file.told.is_sorted_by_key(|&(time, _)| time));
}

#[test]
fn an_exit_carries_the_time_at_which_the_last_chunk_ended() {
    let file = replayed(&tree(), skylake());
    let exit = |wanted| {
        let found = file.told.iter().find_map(|(time, told)| match told {
            Told::Exit(_, task) if *task == wanted => Some(*time),
            _ => None,
        });
        found.unwrap()
    };
    let chunk = STEPS as u64;
    assert_eq!(exit(task(10, 11)), 4 * chunk);
    assert_eq!(exit(task(10, 10)), 5 * chunk);
    assert_eq!(exit(task(20, 20)), 6 * chunk);
}

#[test]
fn a_process_that_only_starts_others_comes_before_them_and_ends_at_the_end() {
    let mut tree = Tree::new();
    tree.process(10, 1, ProcessStart::Initial, "idle");
    let child = tree.process(20, 10, ProcessStart::Fork, "idle");
    let file = replayed(&tree.trace(&[(child, 1)]), skylake());
    let mut told: Vec<_> = file.told.into_iter().map(|(_, told)| told).collect();
    told.dedup();
    let expected = [
        comm(10, 10, "idle", true),
        map(10, "idle"),
        Told::Fork(task(10, 10), task(20, 20)),
        comm(20, 20, "idle", false),
        map(20, "idle"),
        Told::Sample(task(20, 20), 2),
        Told::Exit(task(10, 10), task(20, 20)),
        Told::Exit(task(1, 1), task(10, 10)),
    ];
    assert_eq!(told, expected);
}

#[test]
fn mappings_are_told_if_executable_or_if_their_process_ran_code_in_them() {
    let mut tree = Tree::new();
    let program = tree.process(10, 1, ProcessStart::Initial, "program");
    let other = tree.process(20, 1, ProcessStart::Initial, "program");
    let (first, second) = (ProcessIndex(0), ProcessIndex(1));
    tree.map(first, 0x50_0000, 0x1000, 0, (true, false), "data");
    tree.map(first, 0x51_0000, 0x1000, 0, (true, true), "unused");
    tree.map(first, 0x52_0000, 0x1000, 0, (false, true), "unreadable");
    // Code of the one process lies where the other has data.
    let block = Block::decode(0x60_0000, Mode::user64(0), &[0x90]).unwrap();
    tree.interner.block(block).unwrap();
    tree.map(first, 0x60_0000, 0x1000, 0, (true, false), "jit");
    tree.map(second, 0x60_0000, 0x1000, 0, (true, false), "jit");
    let file = replayed(&tree.trace(&[(program, 0), (other, 1)]), skylake());
    let maps = file.told.iter().filter_map(|(_, told)| match told {
        Told::Map(pid, start, _, _, prot, _, _) => Some((*pid, *start, *prot)),
        _ => None,
    });
    assert_eq!(
        maps.collect::<Vec<_>>(),
        [
            (10, 0x40_1000, 5),
            (10, 0x51_0000, 5),
            (10, 0x52_0000, 4),
            (10, 0x60_0000, 5),
            (20, 0x40_1000, 5),
        ]
    );
}

/// User and kernel code of a machine.
fn machine() -> Trace {
    let recipe = Recipe {
        config: SyntheticConfig {
            kernel: true,
            ..Recipe::with_seed(5).config
        },
        ..Recipe::with_seed(5)
    };
    Trace::from_bytes(recipe.bytes(), OpenOptions::default()).unwrap()
}

#[test]
fn samples_carry_the_mode_of_the_code_they_interrupted() {
    let options = SessionOptions {
        period: NonZeroU64::new(53),
        ..skylake()
    };
    let file = replayed(&machine(), options);
    let modes = |wanted| file.ips.iter().filter(move |&&(_, mode)| mode == wanted);
    assert!(
        modes(1).count() > 10 && modes(2).count() > 10,
        "{:?}",
        file.ips.len()
    );
    for &(ip, mode) in &file.ips {
        // The kernel's half of the address space has the sign bit.
        let expected = if ip >> 63 == 1 { 1 } else { 2 };
        assert_eq!(mode, expected, "{ip:#x}");
    }
}

#[test]
fn the_attribute_is_the_one_perf_opens() {
    let fields = SampleType::IP
        | SampleType::TID
        | SampleType::TIME
        | SampleType::CPU
        | SampleType::PERIOD
        | SampleType::BRANCH_STACK;
    let levels = [
        AttrFlags::EXCLUDE_USER,
        AttrFlags::EXCLUDE_KERNEL,
        AttrFlags::EXCLUDE_HV,
    ];
    let near_taken = |modifier: &str| format!("br_inst_retired.near_taken{modifier}");
    // perf: without a modifier nothing is left out, with u or k the hypervisor is too.
    for (modifier, excluded, branches) in [
        (
            "",
            [false; 3],
            BranchSampleType::USER | BranchSampleType::KERNEL,
        ),
        (":u", [false, true, true], BranchSampleType::USER),
        (":k", [true, false, true], BranchSampleType::KERNEL),
    ] {
        let options = SessionOptions {
            event: Some(near_taken(modifier)),
            ..skylake()
        };
        let file = replayed(&machine(), options);
        let attr = file.attr;
        assert_eq!(levels.map(|level| attr.flags.contains(level)), excluded);
        assert_eq!(attr.sample_type, fields);
        assert_eq!(attr.branch_sample_type, branches | BranchSampleType::ANY);
        assert_eq!(
            (attr.event_type, attr.config, attr.sample_period),
            (4, 0x20c4, 997)
        );
        for flag in [
            AttrFlags::MMAP2,
            AttrFlags::TASK,
            AttrFlags::COMM_EXEC,
            AttrFlags::SAMPLE_ID_ALL,
        ] {
            assert!(attr.flags.contains(flag));
        }
    }
}

#[test]
fn the_header_tells_the_depth_and_the_build_ids() {
    for (cpu, depth) in [("skylake", "32"), ("haswell", "16"), ("nehalem", "16")] {
        let options = SessionOptions::new(Profile::named(cpu).unwrap().clone());
        let features = replayed(&tree(), options).features;
        assert_eq!(features.cpu_pmu_caps, [("branches".into(), depth.into())]);
    }
    let file = replayed(&tree(), skylake());
    assert!(file.features.branch_stack);
    let known = file.features.build_ids.iter();
    let known: Vec<_> = known
        .map(|known| (path(&known.path), known.id.clone()))
        .collect();
    // One file in several processes has the id that was told last.
    let expected = [("/absent/shell", 4), ("/absent/tool", 3)];
    assert_eq!(
        known,
        expected.map(|(path, id)| (PathBuf::from(path), vec![id; 20]))
    );
    // The ids in the records themselves are an option of the writer that a replay leaves off.
    assert!(file.build_ids.is_empty());
    assert!(!file.attr.flags.contains(AttrFlags::BUILD_ID));
}

#[test]
fn mappings_carry_their_build_ids_when_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("perf.data");
    let trace = tree();
    let session = Session::new(&trace, skylake()).unwrap();
    let mut info = file_info(&session, &[]);
    info.build_id_in_mmap = true;
    let mut sink = PerfDataSink::new(PerfDataWriter::create(&data, info).unwrap());
    let mut feed = Feed::new(Tasks::new(&trace), &mut sink);
    session.run(&mut feed, &mut |_| ()).unwrap();
    feed.finish().unwrap();
    let file = read(&data);
    assert!(file.attr.flags.contains(AttrFlags::BUILD_ID));
    // In the order in which the processes come.
    assert_eq!(file.build_ids, [1, 2, 3, 4].map(|id| vec![id; 20]));
    assert!(file.told.iter().any(|(_, told)| *told == map(20, "tool")));
}
