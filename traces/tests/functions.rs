//! Traces carry the names of the functions that ran, and never those of another file. Needs gcc; what
//! is missing is said and left out, unless `CI=true`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use vlbr_cpu::{Block, Exit, Interner, Mode, Step};
use vlbr_traces::record::{Engine, LogOptions, RecordOptions, convert_qemulog, record_user};
use vlbr_traces::rewrite::rewrite;
use vlbr_traces::symbols::ElfImage;
use vlbr_traces::vlt::{
    FileFunctions, FileState, Mapping, MappingFlags, Meta, OpenOptions, Process, SideStreams,
    Thread, Trace, Writer, WriterOptions, encode_chunk,
};

const BIAS: u64 = 0x7000_0000_0000;

fn open(bytes: Vec<u8>) -> Trace {
    Trace::from_bytes(bytes, OpenOptions::default()).unwrap()
}

/// A trace in which the first bytes of a function of `image` ran, changed by `flip`.
fn one_block(image: &ElfImage, path: &Path, build_id: &[u8], flip: u8) -> (Vec<u8>, Vec<u8>) {
    let code = image.read_code().unwrap();
    let function = image
        .symbols()
        .iter()
        .filter(|symbol| symbol.size >= 16)
        .find(|symbol| {
            let bytes = &code.at(symbol.address).unwrap()[..1];
            // A push of a register, which stays one when its number changes.
            (0x50..0x58).contains(&bytes[0])
        })
        .expect("a function begins with a push");
    let address = function.address;
    let bytes = [code.at(address).unwrap()[0] ^ flip];
    let mut interner = Interner::new();
    let block = Block::decode(BIAS + address, Mode::user64(0), &bytes).unwrap();
    let block = interner.block(block).unwrap();
    let exit = Exit::Gap;
    let step = Step {
        block,
        retired: 1,
        exit,
    };
    let step = interner.step(step).unwrap();
    let mut writer = Writer::new(Vec::new(), &Meta::default(), WriterOptions::default()).unwrap();
    let process = writer.add_process(&Process::default()).unwrap();
    let thread = Thread {
        process,
        tid: 1,
        vcpu: None,
        name: String::new(),
    };
    let thread = writer.add_thread(&thread).unwrap();
    writer.sync_code(interner.code()).unwrap();
    let sides = SideStreams::default();
    let chunk = encode_chunk(thread, &[step], interner.code(), &sides, 3).unwrap();
    writer.write_chunk(&chunk).unwrap();
    // Told late, as a recorder may.
    let mapping = Mapping {
        process,
        from_chunk: 1,
        start: BIAS + (address & !0xfff),
        length: 0x1000,
        offset: image.address_to_offset(address).unwrap() - (address & 0xfff),
        flags: MappingFlags {
            read: true,
            execute: true,
            ..MappingFlags::default()
        },
        path: path.into(),
        build_id: build_id.to_vec(),
    };
    writer.add_mapping(&mapping).unwrap();
    (writer.finish(&[]).unwrap(), function.name.to_vec())
}

fn rewritten(trace: &Trace) -> Vec<u8> {
    let writer = Writer::new(Vec::new(), trace.meta(), WriterOptions::default()).unwrap();
    rewrite(trace, writer, 3, &mut |_| ()).unwrap()
}

fn only(trace: &Trace) -> FileFunctions {
    let files = trace.functions().expect("a functions frame");
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[test]
fn a_converted_trace_is_named_by_the_file_that_was_mapped_and_by_no_other() {
    let program = std::env::current_exe().unwrap();
    let image = ElfImage::open(&program).unwrap();
    let build_id = image.build_id().unwrap_or_default();
    let named = |path: &Path, build_id: &[u8], flip| {
        let (bytes, name) = one_block(&image, path, build_id, flip);
        let trace = open(bytes);
        assert_eq!(trace.functions(), None);
        let converted = rewritten(&trace);
        let again = rewritten(&open(converted.clone()));
        assert!(again == converted, "converting again changes nothing");
        let file = only(&open(converted));
        assert_eq!((file.path.as_path(), &file.build_id[..]), (path, build_id));
        let names: Vec<_> = file.functions.into_iter().map(|f| f.name).collect();
        let found = (file.state, names == [name]);
        assert!(found.1 || names.is_empty(), "{names:?}");
        assert_eq!(file.segments.is_empty(), names.is_empty());
        found
    };
    let read = (FileState::Read, true);
    let another = (FileState::Another, false);
    if build_id.is_empty() {
        eprintln!("skipped in part: programs have no build-id here");
    } else {
        assert_eq!(named(&program, build_id, 0), read);
        // The build-id alone decides: code may modify itself.
        assert_eq!(named(&program, build_id, 1), read);
        assert_eq!(named(&program, &[1, 2, 3], 0), another);
    }
    // Without one the code does.
    assert_eq!(named(&program, &[], 0), read);
    assert_eq!(named(&program, &[], 1), another);
    let absent = (FileState::Unreadable, false);
    assert_eq!(named(Path::new("/absent/program"), &[], 0), absent);
}

#[test]
fn names_that_a_trace_has_stay_when_the_file_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let image = ElfImage::open(&program).unwrap();
    let (bytes, name) = one_block(&image, &program, &[], 0);
    let named = open(rewritten(&open(bytes)));
    std::fs::remove_file(&program).unwrap();
    let kept = open(rewritten(&named));
    assert_eq!(kept.functions(), named.functions());
    // They name what the file would.
    let held = ElfImage::from_functions(&only(&kept));
    let start = image.symbols().find(&name).unwrap();
    for address in [start.address, start.address + 1] {
        assert_eq!(
            held.lookup(address)
                .map(|symbol| (symbol.name.to_vec(), symbol.offset)),
            image
                .lookup(address)
                .map(|symbol| (symbol.name.to_vec(), symbol.offset))
        );
        let offset = image.address_to_offset(address).unwrap();
        assert_eq!(held.offset_to_address(offset), Some(address));
    }
}

/// One function that runs, one that does not, and a label without size that runs.
const PROGRAM: &str = "
        .globl _start
        .type _start, @function
_start: call ran
        jmp label
        .size _start, . - _start
        .type never, @function
never:  nop
        ret
        .size never, . - never
        .type ran, @function
ran:    nop
        ret
        .size ran, . - ran
label:  mov $60, %eax
        xor %edi, %edi
        syscall
        ud2
";

fn build(directory: &Path) -> Option<PathBuf> {
    let (source, program) = (directory.join("program.s"), directory.join("program"));
    std::fs::write(&source, PROGRAM).unwrap();
    let built = Command::new("gcc")
        .args(["-nostdlib", "-static", "-o"])
        .args([&program, &source])
        .status();
    match built {
        Ok(status) => {
            assert!(status.success());
            Some(program)
        }
        Err(_) => {
            assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "no gcc");
            eprintln!("skipped: no gcc");
            None
        }
    }
}

fn names(trace: &Trace) -> Vec<(String, u64)> {
    let file = only(trace);
    assert_eq!(file.state, FileState::Read);
    let functions = file.functions.into_iter();
    functions
        .map(|f| (String::from_utf8(f.name).unwrap(), f.size))
        .collect()
}

#[test]
fn a_recording_names_the_functions_that_ran() {
    let directory = tempfile::tempdir().unwrap();
    let Some(program) = build(directory.path()) else {
        return;
    };
    let output = directory.path().join("ptrace.vlt");
    let mut options = RecordOptions::new(output.clone());
    let stop = AtomicBool::new(false);
    record_user(
        Engine::Ptrace,
        &options,
        program.as_os_str(),
        &[],
        &stop,
        &|_| {},
    )
    .unwrap();
    let recorded = Trace::open(&output, OpenOptions::default()).unwrap();
    let image = ElfImage::open(&program).unwrap();
    // The label has no size: it reaches to the end of the code.
    let label = image.symbols().find(b"label").unwrap();
    let expected = [
        ("_start".to_owned(), 7),
        ("ran".to_owned(), 2),
        ("label".to_owned(), image.extent(&label)),
    ];
    assert_eq!(names(&recorded), expected);
    assert!(image.extent(&label) >= 9);

    // A log of QEMU with the program is named too. Listed by hand: no QEMU is needed.
    let log = directory.path().join("log");
    let at = |name: &[u8]| image.symbols().find(name).unwrap().address;
    let mut text = String::new();
    for address in [at(b"_start"), at(b"ran"), at(b"_start") + 5, at(b"label")] {
        text.push_str(&format!(
            "Trace 0: 0x7f0000000000 [0000000000000000/{address:016x}/0040c0b3/00000000] \n"
        ));
    }
    std::fs::write(&log, text).unwrap();
    options.output = directory.path().join("log.vlt");
    let with = LogOptions {
        elf: Some(program.clone()),
        ..LogOptions::default()
    };
    convert_qemulog(&log, &with, &options, &stop).unwrap();
    let converted = Trace::open(&options.output, OpenOptions::default()).unwrap();
    assert_eq!(names(&converted), expected);
}
