//! Two files are compared by what ran, not by where it was loaded or how it was cut.

use std::fs;
use std::path::{Path, PathBuf};

use vlbr_cpu::run::Sample;
use vlbr_cpu::{Block, Exit, Interner, Step, StepId};
use vlbr_lbr::Profile;
use vlbr_replay::diff::{Comparison, DiffError, Divergence, Kind, diff};
use vlbr_replay::{Consumer, Format, ReplayError, Session, SessionOptions, export};
use vlbr_traces::perfdata::{
    BranchEntry, EventInfo, FileInfo, Mapping, PerfDataWriter, SampleRecord, TaskId,
};
use vlbr_traces::vlt::{
    ChunkBuffer, ChunkEncoder, OpenOptions, SideStreams, ThreadIndex, Trace, Writer, WriterOptions,
};

use crate::synthetic::Recipe;

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn compared(a: &Path, b: &Path) -> Comparison {
    diff(a, b, 10, &mut |_| ()).unwrap()
}

fn user() -> Recipe {
    let mut recipe = Recipe::with_seed(7);
    recipe.config.kernel = false;
    recipe
}

fn open(bytes: Vec<u8>) -> Trace {
    Trace::from_bytes(bytes, OpenOptions::default()).unwrap()
}

/// The steps of thread 0.
fn steps(trace: &Trace) -> Vec<StepId> {
    let mut buffer = ChunkBuffer::default();
    let mut steps = Vec::new();
    for index in 0..trace.chunks().len() {
        if trace.chunks()[index].thread == ThreadIndex(0) {
            steps.extend(trace.decode(index, &mut buffer).unwrap().steps());
        }
    }
    steps
}

/// `trace` with every block cut into blocks of one instruction, in chunks of 1000 steps.
fn cut(trace: &Trace) -> Vec<u8> {
    let mut interner = Interner::new();
    let mut all = Vec::new();
    for id in steps(trace) {
        let (step, block) = (*trace.code().step(id), trace.code().block_of(id));
        let mut offset = 0;
        for (index, &length) in block.lengths().iter().enumerate() {
            let (first, next) = (offset, offset + usize::from(length));
            offset = next;
            let index = index as u16;
            if index > step.retired || (index == step.retired && index > 0) {
                break;
            }
            let bytes = &block.bytes()[first..next];
            let one = Block::decode(block.address_of(index), block.mode(), bytes).unwrap();
            let block = interner.block(one).unwrap();
            let last = index + 1 >= step.retired;
            let exit = if last { step.exit } else { Exit::Sequential };
            let retired = u16::from(step.retired > 0);
            all.push(
                interner
                    .step(Step {
                        block,
                        retired,
                        exit,
                    })
                    .unwrap(),
            );
        }
    }
    let mut writer = Writer::new(Vec::new(), trace.meta(), WriterOptions::default()).unwrap();
    writer.add_process(&trace.processes()[0]).unwrap();
    writer.add_mapping(&trace.mappings()[0]).unwrap();
    let thread = writer.add_thread(&trace.threads()[0]).unwrap();
    writer.sync_code(interner.code()).unwrap();
    let mut encoder = ChunkEncoder::new(3);
    for part in all.chunks(1000) {
        let chunk = encoder.encode(thread, part, interner.code(), &SideStreams::default());
        writer.write_chunk(&chunk.unwrap()).unwrap();
    }
    writer.finish(&[]).unwrap()
}

#[test]
fn a_trace_equals_itself_and_the_same_run_cut_otherwise() {
    let files = Files::new();
    for recipe in [Recipe::with_seed(7), user()] {
        let bytes = recipe.bytes();
        let trace = open(bytes.clone());
        let a = files.write("a.vlt", &bytes);
        let b = files.write("b.trace", &cut(&trace));
        for other in [&a, &b] {
            let comparison = compared(&a, other);
            assert!((comparison.overlap - 1.0).abs() < 1e-9);
            assert_eq!(comparison.divergence, Divergence::None { compared: 1 });
            assert_eq!(comparison.a.kind, Kind::Trace);
            assert_eq!(comparison.a.taken, comparison.b.taken);
            assert_eq!((comparison.only_a.edges, comparison.only_b.edges), (0, 0));
            assert!((comparison.common.share_a - 1.0).abs() < 1e-9);
            assert_eq!(recipe.config.kernel, comparison.a.left_out > 0);
        }
        let edges = compared(&a, &b).a.edges;
        assert!(edges > 30, "{edges}");
    }
}

/// Address of every instruction of thread 0, in order.
fn addresses(trace: &Trace) -> Vec<u64> {
    let mut addresses = Vec::new();
    for id in steps(trace) {
        let block = trace.code().block_of(id);
        let retired = trace.code().step(id).retired;
        addresses.extend((0..retired).map(|index| block.address_of(index)));
    }
    addresses
}

#[test]
fn the_first_divergence_of_two_runs_is_where_their_instructions_part() {
    let files = Files::new();
    let mut other = user();
    // Draws more random numbers, so the same program goes another way some time.
    other.config.one_in_mispredicted = 0;
    let (a, b) = (user().bytes(), other.bytes());
    let (path_a, path_b) = (files.write("a", &a), files.write("b", &b));
    let (a, b) = (addresses(&open(a)), addresses(&open(b)));
    let parted = a.iter().zip(&b).position(|(a, b)| a != b).unwrap() as u64;
    let comparison = compared(&path_a, &path_b);
    let Divergence::ControlFlow {
        thread: 0,
        instruction,
        a: Some(run_a),
        b: Some(run_b),
    } = &comparison.divergence
    else {
        panic!("{:?}", comparison.divergence);
    };
    let shared = run_a.instructions.min(run_b.instructions);
    assert_eq!(instruction + shared, parted);
    assert_ne!(run_a, run_b);
    assert_eq!(run_a.start, run_b.start);
    assert!(run_a.start.starts_with("[synthetic]+0x"), "{run_a:?}");
    assert!(comparison.overlap < 1.0 && comparison.overlap > 0.3);
    let sum: f64 = comparison.functions.iter().map(|f| f.overlap).sum();
    assert!(
        (sum - comparison.overlap).abs() < 1e-9,
        "one function, by file"
    );
}

#[test]
fn a_run_that_ends_earlier_diverges_there() {
    let files = Files::new();
    let short = Recipe {
        chunks: 2,
        ..user()
    };
    let a = files.write("a", &user().bytes());
    let b = files.write("b", &short.bytes());
    let length = addresses(&open(short.bytes())).len() as u64;
    let Divergence::ControlFlow { instruction, b, .. } = compared(&a, &b).divergence else {
        panic!("they do differ");
    };
    let last = b.map_or(0, |run| run.instructions);
    assert_eq!(instruction + last, length);
}

/// Writes the samples with every user address moved by `moved`.
struct Moved {
    writer: PerfDataWriter,
    moved: u64,
    /// Number of a sample and of an entry whose prediction is turned round.
    turned: Option<(u64, usize)>,
    number: u64,
}

impl Consumer for Moved {
    fn sample(&mut self, sample: &SampleRecord<'_>, _at: &Sample) -> Result<(), ReplayError> {
        let moved = |address: u64| {
            if address >> 63 == 0 {
                address + self.moved
            } else {
                address
            }
        };
        let entries = sample.branches.iter().map(|entry| BranchEntry {
            from: moved(entry.from),
            to: moved(entry.to),
            ..*entry
        });
        let mut entries: Vec<BranchEntry> = entries.collect();
        if let Some((number, entry)) = self.turned
            && number == self.number
        {
            entries[entry].flags.mispred ^= true;
        }
        self.number += 1;
        let sample = SampleRecord {
            ip: moved(sample.ip),
            branches: &entries,
            ..*sample
        };
        let written = self.writer.sample(&sample);
        written.map_err(|error| ReplayError::Export(error.into()))
    }
}

fn session(trace: &Trace) -> Session<'_> {
    let options = SessionOptions {
        period: std::num::NonZeroU64::new(41),
        jobs: 1,
        ..SessionOptions::new(Profile::named("skylake").unwrap().clone())
    };
    Session::new(trace, options).unwrap()
}

fn perf_data(trace: &Trace, path: &Path, moved: u64, turned: Option<(u64, usize)>) {
    let info = FileInfo::new(EventInfo::near_taken(0x20c4, 41));
    let mut writer = PerfDataWriter::create(path, info).unwrap();
    let task = TaskId { pid: 100, tid: 100 };
    writer.comm(task, "synthetic", true, 0).unwrap();
    let mapping = Mapping::user(
        100,
        0x40_0000 + moved,
        0x10_0000,
        0x1000,
        "/absent/synthetic",
    );
    writer.mapping(&mapping, 0).unwrap();
    let mut consumer = Moved {
        writer,
        moved,
        turned,
        number: 0,
    };
    session(trace).run(&mut consumer, &mut |_| ()).unwrap();
    consumer.writer.finish().unwrap();
}

#[test]
fn another_load_address_changes_nothing_and_a_turned_bit_is_located() {
    let files = Files::new();
    let trace = open(user().bytes());
    let (a, b, c) = (files.path("a"), files.path("b"), files.path("c"));
    export(&session(&trace), Format::PerfData, &a, &[], &mut |_| ()).unwrap();
    perf_data(&trace, &b, 0x5555_0000_0000, None);
    perf_data(&trace, &c, 0x7000, Some((17, 5)));
    let comparison = compared(&a, &b);
    assert!((comparison.overlap - 1.0).abs() < 1e-9, "{comparison:?}");
    let samples = comparison.a.samples.unwrap();
    assert!(samples > 100);
    assert_eq!(
        comparison.divergence,
        Divergence::None { compared: samples }
    );
    let comparison = compared(&a, &c);
    let Divergence::Samples { sample, what, a, b } = &comparison.divergence else {
        panic!("{:?}", comparison.divergence);
    };
    assert_eq!((*sample, what.as_str()), (17, "entry 5"));
    assert!(a != b && a.contains("[synthetic]+0x"), "{a} {b}");
}

#[test]
fn samples_overlap_with_the_trace_they_are_of() {
    let files = Files::new();
    let bytes = user().bytes();
    let trace = open(bytes.clone());
    let a = files.write("a.vlt", &bytes);
    let b = files.path("b.data");
    perf_data(&trace, &b, 0x1234_5000, None);
    let comparison = compared(&a, &b);
    assert_eq!(comparison.divergence, Divergence::NotCompared);
    assert!(comparison.overlap > 0.95, "{}", comparison.overlap);
    assert_eq!(comparison.only_b.edges, 0);
}

#[test]
fn branches_between_user_and_kernel_half_are_left_out_on_both_sides() {
    let files = Files::new();
    let mut recipe = Recipe::with_seed(11);
    recipe.config.one_in_interrupted = 60;
    let bytes = recipe.bytes();
    let trace = open(bytes.clone());
    let a = files.write("a.vlt", &bytes);
    let b = files.path("b.data");
    export(&session(&trace), Format::PerfData, &b, &[], &mut |_| ()).unwrap();
    let comparison = compared(&a, &b);
    let transfers = trace.chunks().iter();
    let transfers: u64 = transfers.map(|chunk| chunk.counts.transfers.total()).sum();
    let (a, b) = (&comparison.a, &comparison.b);
    assert!(a.left_out > 0 && b.left_out > 0, "{a:?} {b:?}");
    assert_eq!(comparison.a.taken + comparison.a.left_out, transfers);
    let halves = |from: &str, to: &str| from.contains("[kernel]") == to.contains("[kernel]");
    for part in [&comparison.common, &comparison.only_a, &comparison.only_b] {
        let mut top = part.top.iter();
        assert!(top.all(|edge| halves(&edge.from, &edge.to)), "{part:?}");
    }
}

#[test]
fn profiles_are_compared_by_linked_address() {
    let files = Files::new();
    let a = files.write(
        "a",
        b"B 10 20 3 0\nB 30 40 1 1\nF 20 30 2\nB 0 10 50 0\nB 10 X:0 4 0\n",
    );
    let b = files.write("b", b"T 10 20 28 50\nB 50 60 50 0\n\n");
    let comparison = compared(&a, &b);
    assert!((comparison.overlap - 0.5).abs() < 1e-9);
    assert_eq!((comparison.a.taken, comparison.a.left_out), (4, 54));
    assert_eq!((comparison.b.taken, comparison.b.left_out), (100, 0));
    assert_eq!(comparison.only_a.top[0].from, "[main binary]+0x30");
    assert!((comparison.only_a.share_a - 0.25).abs() < 1e-9);
    assert!((comparison.only_b.share_b - 0.5).abs() < 1e-9);
    assert_eq!(comparison.divergence, Divergence::NotCompared);
}

#[test]
fn a_profile_is_compared_with_the_program_of_a_trace() {
    let files = Files::new();
    let trace = open(user().bytes());
    let a = files.write("a.vlt", &user().bytes());
    let mut text = String::new();
    let mut counts = std::collections::BTreeMap::new();
    for id in steps(&trace) {
        if let Some(transfer) = trace.code().transfer(id) {
            *counts.entry((transfer.from, transfer.to)).or_insert(0) += 1;
        }
    }
    for ((from, to), count) in counts {
        // The mapping begins at offset 0x1000 of a file that is not there.
        let linked = |address: u64| address - 0x40_0000 + 0x1000;
        text.push_str(&format!(
            "B {:x} {:x} {count} 0\n",
            linked(from),
            linked(to)
        ));
    }
    let b = files.write("b.txt", text.as_bytes());
    for (one, other) in [(&a, &b), (&b, &a)] {
        let comparison = compared(one, other);
        assert!((comparison.overlap - 1.0).abs() < 1e-9, "{comparison:?}");
        assert!(comparison.notes[0].contains("/absent/synthetic"), "said");
    }
}

#[test]
fn what_cannot_be_compared_is_refused_with_the_reason() {
    let files = Files::new();
    let good = files.write("good", b"B 10 20 3 0\n");
    let trace = Recipe::with_seed(1).bytes();
    for (bytes, expected) in [
        (&b""[..], "no .vlt trace"),
        (b"hello, world\n", "no .vlt trace"),
        (b"B 10 20 3\n", "bad:1: no branch"),
        (b"B 10 20 3 0\nB zz 20 3 0\n", "bad:2: an address"),
        (b"B 10 20 -3 0\n", "bad:1: a count"),
        (b"B 10 20 3 0\nQ\n", "bad:2: no branch"),
        (b"PERFILE2", "bad: "),
        (&trace[..trace.len() - 1], "bad: offset"),
        (&trace[..20], "bad: offset"),
    ] {
        let bad = files.write("bad", bytes);
        for (a, b) in [(&good, &bad), (&bad, &good)] {
            let error = diff(a, b, 1, &mut |_| ()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} instead of {expected}");
        }
    }
    let error = diff(&good, &files.path("absent"), 1, &mut |_| ()).unwrap_err();
    assert!(matches!(error, DiffError::Io { .. }), "{error}");
    let error = diff(&good, files.dir.path(), 1, &mut |_| ()).unwrap_err();
    let refused = matches!(error, DiffError::Unknown { .. } | DiffError::Io { .. });
    assert!(refused, "a folder: {error}");
}
