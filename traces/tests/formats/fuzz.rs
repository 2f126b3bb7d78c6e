//! Many damaged files, the same ones for the same seed. For a long run:
//! `VLBR_FUZZ_ITERATIONS=10000000 cargo test --profile fuzz -p vlbr-traces --test formats fuzz -- \
//! --nocapture`

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use flate2::Compression;
use flate2::write::GzEncoder;
use vlbr_fuzz::{Form, folder, throw};
use vlbr_traces::assemble::RawBlocks;
use vlbr_traces::cbp;
use vlbr_traces::qemulog::{LogCode, LogReader};
use vlbr_traces::record::{LogOptions, RecordOptions, convert_qemulog};
use vlbr_traces::symbols::parse_kallsyms;
use vlbr_traces::vlt::{OpenOptions, Trace};

use super::files::{ask_elf, packed, piped, read_all, reference, regular, small_elf};

/// Inputs of a target by default.
const INPUTS: u64 = 10_000;

#[test]
fn fuzz_perf_data() {
    let folder = tempfile::tempdir().expect("folder");
    let regular = regular(folder.path(), 20);
    let mut seeds = vec![packed(&regular, 1000), piped(&regular), regular];
    seeds.extend(
        ["flags.perf.data", "ro_sample.perf"]
            .into_iter()
            .filter_map(reference),
    );
    let tally = throw(
        "perf.data",
        INPUTS,
        Form::Binary,
        &seeds,
        |bytes| match read_all(bytes) {
            // Only compressed records can be more than there is room for.
            Ok(count) => {
                assert!(count <= 1 << 20, "{count} records");
                true
            }
            Err(_) => false,
        },
    );
    assert!(tally.taken > 0 && tally.refused > 0);
}

#[test]
fn fuzz_elf() {
    let mut seeds = vec![small_elf()];
    seeds.extend(reference("propeller_sample_1.bin"));
    let tally = throw("ELF", INPUTS, Form::Binary, &seeds, |bytes| {
        ask_elf(bytes).is_some()
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}

#[test]
fn fuzz_cbp() {
    let mut writer = cbp::Writer::new(Vec::new());
    for (number, &class) in (0..).zip(cbp::Class::ALL.iter().cycle().take(40)) {
        let target = class.is_branch().then_some(0x5000 + number);
        writer
            .write(&cbp::Instruction {
                address: 0x4000 + 4 * number,
                class,
                target,
            })
            .expect("a vector");
    }
    let mut seeds = vec![writer.finish().expect("a vector")];
    // A load and a store with registers, uncompressed: damage goes through a compressor below.
    let mut plain = Vec::new();
    for (class, more) in [(1, 10), (2, 11)] {
        plain.extend([0; 8]);
        plain.push(class);
        plain.extend(vec![0; more]);
        plain.extend([1, 4, 2, 40, 5]);
        plain.extend([0; 24]);
    }
    seeds.push(plain);
    let tally = throw("CBP", INPUTS, Form::Binary, &seeds, |bytes| {
        let packed;
        let stream = if bytes.starts_with(&cbp::MAGIC) {
            bytes
        } else {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
            encoder.write_all(bytes).expect("a vector");
            packed = encoder.finish().expect("a vector");
            &packed
        };
        let mut reader = cbp::Reader::new(stream);
        loop {
            match reader.next_instruction() {
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}

#[test]
fn fuzz_kallsyms() {
    let seeds = [
        b"ffffffff81000000 T _text\nffffffff81000040 t helper\t[module]\n\
        ffffffff81000080 D data\nffffffff81000100 W weak\n"
            .to_vec(),
    ];
    let tally = throw("kallsyms", INPUTS, Form::Text, &seeds, |bytes| {
        parse_kallsyms(bytes, Path::new("list"))
            .is_ok_and(|table| table.lookup(u64::MAX).is_none() || !table.is_empty())
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}

/// Logs of a program, of a machine that changes its mode, and of a QEMU without disassembler.
fn logs() -> Vec<Vec<u8>> {
    let program = "\
----------------
IN: main
0x00401000:  b9 05 00 00 00           movl     $5, %ecx
0x00401005:  f3 aa                    rep stosb %al, (%rdi)

Trace 0: 0x7f0000000100 [0000000000000000/0000000000401000/1040c0b3/00000200] main
----------------
IN:
0x00401007:  48 bb 88 77 66 55 44 33  movabsq  $0x1122334455667788, %rbx
0x0040100f:  22 11
0x00401011:  75 ed                    jne      0x401000

Trace 0: 0x7f0000000200 [0000000000000000/0000000000401007/1040c0b3/00000200]
Trace 0: 0x7f0000000100 [0000000000000000/0000000000401000/1040c0b3/00000200] main
Stopped execution of TB chain before 0x7f0000000100 [0000000000401000] main
Trace 1: 0x7f0000000100 [0000000000000000/0000000000401000/1040c0b3/00000200] main
Trace 1: 0x7f0000000200 [0000000000000000/0000000000401007/1040c0b3/00000200]
Trace 0: 0x7f0000000100 [0000000000000000/0000000000401000/1040c0b3/00000200] main
";
    let machine = "\
----------------
IN:
0xfffffff0:  ea 5b e0 00 f0           ljmpw    $0xf000:$0xe05b

Trace 0: 0x7f0000000000 [00000000ffff0000/00000000fffffff0/00000040/ff000000]
----------------
IN:
0x000fe05b:  66 ea 00 10 00 00 08 00  ljmpl    $8:$0x1000

Trace 0: 0x7f0000000100 [00000000000f0000/00000000000fe05b/00000040/ff000000]
----------------
IN:
0x00001000:  cd 80                    int      $0x80

Trace 0: 0x7f0000000200 [0000000000000000/0000000000001000/000000b4/ff000000]
----------------
IN: handler
0xffffffff81000000:  90                       nop
0xffffffff81000001:  48 cf                    iretq

Trace 0: 0x7f0000000300 [0000000000000000/ffffffff81000000/0040c0b0/ff000000] handler
----------------
IN:
0x00001002:  eb fe                    jmp      0x1002

Trace 0: 0x7f0000000400 [0000000000000000/0000000000001002/1040c0b3/ff000000]
";
    let plain = "\
IN: 
OBJD-T: 90eb
OBJD-T: fe

Trace 0: 0x7f0000000100 [0000000000000000/0000000000401000/0040c0b3/00000200]
Trace 0: 0x7f0000000200 [0000000000000000/0000000000001003/0040c0b3/00000200]
";
    [program, machine, plain]
        .map(|log| log.as_bytes().to_vec())
        .into()
}

/// Code of the program behind the logs, from a file.
struct Code;

impl LogCode for Code {
    fn code(&self, address: u64) -> &[u8] {
        const CODE: &[u8] = b"\x90\x75\xfd\xf3\xaa\xc3\x0f\x05\xeb\xfe\x06";
        let offset = usize::try_from(address.wrapping_sub(0x1000)).ok();
        offset
            .and_then(|offset| CODE.get(offset..))
            .unwrap_or_default()
    }
}

#[test]
fn fuzz_qemu_log() {
    let tally = throw("QEMU log", INPUTS, Form::Text, &logs(), |bytes| {
        let mut reader = LogReader::with_code(bytes, Code);
        loop {
            match reader.next_executed() {
                Ok(Some(executed)) => {
                    let block = reader.raw(executed.block).expect("an announced block");
                    let length: usize = block.lengths.iter().map(|&n| usize::from(n)).sum();
                    assert_eq!(length, block.bytes.len());
                }
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}

#[test]
fn fuzz_qemu_log_to_trace() {
    let folder = folder();
    let (log, trace) = (folder.path().join("log"), folder.path().join("vlt"));
    let options = RecordOptions {
        overwrite: true,
        ..RecordOptions::new(trace.clone())
    };
    let mut seeds = logs();
    // Its code is in a file.
    seeds.pop();
    let tally = throw("QEMU log to trace", 300, Form::Text, &seeds, |bytes| {
        std::fs::write(&log, bytes).expect("written");
        let stop = AtomicBool::new(false);
        let done = convert_qemulog(&log, &LogOptions::default(), &options, &stop);
        // What is written can be read.
        done.is_ok_and(|_| {
            let trace = Trace::open(&trace, OpenOptions::default()).expect("a trace");
            trace.damage().is_none()
        })
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}
