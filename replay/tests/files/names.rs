//! Names are those of what a process had mapped at the time, whatever was there before or after.

use std::path::Path;

use vlbr_cpu::{Block, Exit, Interner, Mode, Step, StepId};
use vlbr_lbr::Profile;
use vlbr_replay::diff::diff;
use vlbr_replay::{
    Entrance, Format, Moment, Names, Region, ReplayError, Session, SessionOptions, export, report,
};
use vlbr_traces::perfdata::BranchSampleType;
use vlbr_traces::symbols::ElfImage;
use vlbr_traces::vlt::{
    CodeSegment, FileFunctions, Function, Mapping, MappingFlags, Meta, OpenOptions, Process,
    ProcessIndex, ProcessStart, SideStreams, Thread, Trace, Writer, WriterOptions, encode_chunk,
};

/// Where everything is mapped.
const CODE: u64 = 0x7000_0000_1000;
/// Steps of a chunk.
const STEPS: usize = 3000;

fn mapping(process: ProcessIndex, from_chunk: u32, path: &Path) -> Mapping {
    Mapping {
        process,
        from_chunk,
        start: CODE,
        length: 0x1000,
        offset: 0x1000,
        flags: MappingFlags {
            read: true,
            execute: true,
            ..MappingFlags::default()
        },
        path: path.into(),
        ..Mapping::default()
    }
}

/// A file whose code is linked at its offset plus 0x10000, with one function at its start.
fn file(path: &Path, name: &str) -> FileFunctions {
    FileFunctions {
        path: path.into(),
        segments: vec![CodeSegment {
            address: 0x1_1000,
            offset: 0x1000,
            size: 0x1000,
        }],
        functions: vec![Function {
            address: 0x1_1000,
            size: 0x20,
            name: name.into(),
        }],
        ..FileFunctions::default()
    }
}

/// A block that jumps to itself.
fn circle(interner: &mut Interner) -> StepId {
    let block = Block::decode(CODE, Mode::user64(0), &[0xeb, 0xfe]).unwrap();
    let target = block.branch().unwrap().target.unwrap();
    let exit = Exit::Taken {
        target: vlbr_cpu::Target {
            address: target,
            cs_base: 0,
            code_size: vlbr_arch::CodeSize::Bits64,
            cpl: vlbr_arch::Cpl::Ring3,
        },
        mispredicted: false,
        in_tx: false,
    };
    let block = interner.block(block).unwrap();
    let step = Step {
        block,
        retired: 1,
        exit,
    };
    interner.step(step).unwrap()
}

/// One process closes `/absent/a.so` and opens `/absent/b.so` at the same place; then it execs
/// `/absent/c`, which lies there too. The code is the same all the time.
fn trace(symbols: Option<&str>, functions: &[FileFunctions]) -> Vec<u8> {
    let mut interner = Interner::new();
    let step = circle(&mut interner);
    let mut writer = Writer::new(Vec::new(), &Meta::default(), WriterOptions::default()).unwrap();
    let mut threads = Vec::new();
    for start in [ProcessStart::Initial, ProcessStart::Exec] {
        let process = Process {
            pid: 100,
            start,
            path: "/absent/program".into(),
            ..Process::default()
        };
        let process = writer.add_process(&process).unwrap();
        let thread = Thread {
            process,
            tid: 100,
            vcpu: None,
            name: String::new(),
        };
        threads.push(writer.add_thread(&thread).unwrap());
    }
    writer.sync_code(interner.code()).unwrap();
    let (before, after) = (ProcessIndex(0), ProcessIndex(1));
    let turns = [
        (threads[0], before, "/absent/a.so"),
        (threads[0], before, "/absent/b.so"),
        (threads[1], after, "/absent/c"),
    ];
    for (chunk, (thread, process, path)) in (0..).zip(turns) {
        let mapping = mapping(process, chunk, Path::new(path));
        writer.add_mapping(&mapping).unwrap();
        let sides = SideStreams::default();
        let encoded = encode_chunk(thread, &[step; STEPS], interner.code(), &sides, 3).unwrap();
        writer.write_chunk(&encoded).unwrap();
    }
    if let Some(symbols) = symbols {
        writer.add_symbols(symbols).unwrap();
    }
    if !functions.is_empty() {
        writer.add_functions(functions).unwrap();
    }
    writer.finish(&[]).unwrap()
}

fn named() -> Vec<FileFunctions> {
    [
        ("/absent/a.so", "in_a"),
        ("/absent/b.so", "in_b"),
        ("/absent/c", "in_c"),
    ]
    .map(|(path, name)| file(Path::new(path), name))
    .to_vec()
}

fn open(bytes: Vec<u8>) -> Trace {
    Trace::from_bytes(bytes, OpenOptions::default()).unwrap()
}

fn options(call_stack: bool) -> SessionOptions {
    let mut options = SessionOptions::new(Profile::named("skylake").unwrap().clone());
    if call_stack {
        options.branches = BranchSampleType::CALL_STACK | BranchSampleType::USER;
    }
    options
}

#[test]
fn the_table_names_what_was_mapped_when_it_ran() {
    let trace = open(trace(None, &named()));
    let session = Session::new(&trace, options(false)).unwrap();
    let table = report(&session, 10, &mut |_| ()).unwrap();
    let edges: Vec<_> = table
        .hottest
        .iter()
        .map(|edge| (edge.from.as_str(), edge.to.as_str(), edge.count))
        .collect();
    // 9000 branches make nine samples of 32.
    let counts = 3 * 32;
    assert_eq!(
        edges,
        [
            ("in_a", "in_a", counts),
            ("in_b", "in_b", counts),
            ("in_c", "in_c", counts)
        ]
    );
    assert_eq!(table.edges, 3);
    // The first thread ends in b.so.
    assert_eq!(table.last_stack[0].from_symbol, "in_b");
}

#[test]
fn without_names_the_offset_in_the_file_is_shown() {
    let trace = open(trace(None, &named()[1..]));
    let names = Names::new(&trace).unwrap();
    let at = |chunk| {
        let at = Moment::of_chunk(&trace, chunk);
        (names.describe(at, CODE), names.function(at, CODE))
    };
    assert_eq!(at(0), ("[a.so]+0x1000".into(), "[a.so]".into()));
    assert_eq!(at(1), ("in_b".into(), "in_b".into()));
    let in_c = Moment::of_chunk(&trace, 2);
    // Behind the function: linked addresses, for those of the file are known.
    assert_eq!(names.describe(in_c, CODE + 0x1f), "in_c+0x1f");
    assert_eq!(names.describe(in_c, CODE + 0x20), "[c]+0x11020");
    assert_eq!(names.describe(in_c, CODE - 1), format!("{:#x}", CODE - 1));
    assert_eq!(names.function(in_c, CODE - 1), "[unknown]");
}

#[test]
fn stacks_are_folded_under_the_names_of_their_time() {
    let trace = open(trace(None, &named()));
    let mut options = options(true);
    options.period = std::num::NonZeroU64::new(1000);
    let session = Session::new(&trace, options).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("folded");
    export(&session, Format::Folded, &path, &[], &mut |_| ()).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, "program;in_a 3\nprogram;in_b 3\nprogram;in_c 3\n");
}

#[test]
fn a_region_begins_where_its_symbol_is_mapped() {
    let trace = open(trace(None, &named()));
    let names = Names::new(&trace).unwrap();
    let instructions = |from: Option<&str>, to: Option<&str>| {
        let from = from.map(|name| Entrance::new(&trace, &names, name).unwrap());
        let to = to.map(|name| Entrance::new(&trace, &names, name).unwrap());
        let mut options = options(false);
        options.region = Region::between(&trace, from.as_ref(), to.as_ref())
            .unwrap()
            .expect("reached");
        let session = Session::new(&trace, options).unwrap();
        let table = report(&session, 10, &mut |_| ()).unwrap();
        table.instructions as usize
    };
    assert_eq!(instructions(Some("in_a"), None), 3 * STEPS);
    assert_eq!(instructions(Some("in_b"), None), 2 * STEPS);
    assert_eq!(instructions(Some("in_c"), None), STEPS);
    assert_eq!(instructions(Some("in_b"), Some("in_c")), STEPS);
    assert_eq!(instructions(None, Some("in_b")), STEPS);
    assert_eq!(instructions(Some("0x700000001000"), None), 3 * STEPS);
    for name in ["in_d", "0xyz"] {
        let error = Entrance::new(&trace, &names, name).unwrap_err();
        assert!(matches!(error, ReplayError::NoSymbol(_)), "{error}");
    }
}

#[test]
fn a_function_by_function_comparison_has_the_names_of_the_traces() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.vlt");
    std::fs::write(&path, trace(None, &named())).unwrap();
    let comparison = diff(&path, &path, 10, &mut |_| ()).unwrap();
    let text = format!("{comparison:?}");
    for name in ["in_a", "in_b", "in_c"] {
        assert!(text.contains(name), "{name} in {text}");
    }
    assert!(comparison.notes.is_empty(), "{:?}", comparison.notes);
}

#[test]
fn a_list_of_kernel_symbols_that_is_none_is_an_error_where_names_are_shown() {
    let bytes = trace(Some("ffffffff81000000 T _text\nnonsense\n"), &named());
    let trace = open(bytes.clone());
    let session = Session::new(&trace, options(false)).unwrap();
    let error = report(&session, 10, &mut |_| ()).unwrap_err();
    assert!(matches!(error, ReplayError::Symbols(_)));
    assert_eq!(
        error.to_string(),
        "kernel symbols of the trace: [kernel.kallsyms]: line 2: not a kernel symbol"
    );
    // What shows none is written all the same.
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("perf.data");
    export(&session, Format::PerfData, &data, &[], &mut |_| ()).unwrap();
    // A comparison says so and goes on.
    let path = directory.path().join("a.vlt");
    std::fs::write(&path, bytes).unwrap();
    let comparison = diff(&path, &path, 10, &mut |_| ()).unwrap();
    let note = "line 2: not a kernel symbol: no kernel symbols of it";
    assert!(
        comparison.notes.iter().any(|said| said.contains(note)),
        "{:?}",
        comparison.notes
    );
}

/// This test's own program, mapped with `build_id`, and a name for its code held in the trace.
fn mapped_program(build_id: &[u8], held: bool) -> Trace {
    let program = std::env::current_exe().unwrap();
    let image = ElfImage::open(&program).unwrap();
    let function = image
        .symbols()
        .iter()
        .find(|symbol| symbol.size >= 16)
        .expect("a program has functions");
    let offset = image.address_to_offset(function.address).unwrap();
    let mut interner = Interner::new();
    let step = circle(&mut interner);
    let mut writer = Writer::new(Vec::new(), &Meta::default(), WriterOptions::default()).unwrap();
    let process = writer.add_process(&Process::default()).unwrap();
    let thread = Thread {
        process,
        tid: 1,
        vcpu: None,
        name: String::new(),
    };
    let thread = writer.add_thread(&thread).unwrap();
    writer
        .add_mapping(&Mapping {
            offset,
            build_id: build_id.to_vec(),
            ..mapping(process, 0, &program)
        })
        .unwrap();
    writer.sync_code(interner.code()).unwrap();
    let sides = SideStreams::default();
    let chunk = encode_chunk(thread, &[step], interner.code(), &sides, 3).unwrap();
    writer.write_chunk(&chunk).unwrap();
    if held {
        let mut file = file(&program, "held");
        file.build_id = build_id.to_vec();
        file.segments[0].offset = offset;
        writer.add_functions(&[file]).unwrap();
    }
    open(writer.finish(&[]).unwrap())
}

#[test]
fn a_file_is_read_only_if_it_is_the_one_that_was_mapped() {
    let program = std::env::current_exe().unwrap();
    let image = ElfImage::open(&program).unwrap();
    let Some(build_id) = image.build_id() else {
        eprintln!("skipped: programs have no build-id here");
        return;
    };
    let name = |build_id: &[u8], held| {
        let trace = mapped_program(build_id, held);
        let names = Names::new(&trace).unwrap();
        let symbol = names.symbol(Moment::default(), CODE);
        symbol.map(|symbol| symbol.name.to_vec())
    };
    let function = image.symbols().iter().find(|symbol| symbol.size >= 16);
    let function = function.map(|symbol| symbol.name.to_vec());
    assert_eq!(name(build_id, false), function);
    assert_eq!(name(build_id, true), function);
    // Another build has its place.
    assert_eq!(name(&[1, 2, 3], true), Some(b"held".to_vec()));
    assert_eq!(name(&[1, 2, 3], false), None);
    // Without a build-id what the trace holds is sure to be of the file; a path alone has to do else.
    assert_eq!(name(&[], true), Some(b"held".to_vec()));
    assert_eq!(name(&[], false), function);
}
