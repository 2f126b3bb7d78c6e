//! Logs and what they say.

use super::*;
use crate::assemble::RawBlocks;
use vlbr_arch::{CodeSize, Cpl};

/// `mov $5, %ecx; rep stosb` and a long instruction that takes two lines.
const LOG: &str = "\
----------------
IN: main
0x00401000:  b9 05 00 00 00           movl     $5, %ecx
0x00401005:  f3 aa                    rep stosb %al, (%rdi)

Trace 0: 0x7f0000000100 [0000000000000000/0000000000401000/1040c0b3/00000200] main
----------------
IN:
0x00401007:  48 bb 88 77 66 55 44 33  movabsq  $0x1122334455667788, %rbx
0x0040100f:  22 11
0x00401011:  0f 05                    syscall

Trace 0: 0x7f0000000200 [0000000000000000/0000000000401007/1040c0b3/00000200]
Trace 0: 0x7f0000000100 [0000000000000000/0000000000401000/1040c0b3/00000200] main
";

fn read<C: LogCode>(log: &str, code: C) -> Result<Vec<(u32, u64, Vec<u8>)>, LogError> {
    let mut reader = LogReader::with_code(log.as_bytes(), code);
    let mut blocks = Vec::new();
    while let Some(executed) = reader.next_executed()? {
        let raw = reader.raw(executed.block).unwrap();
        blocks.push((executed.cpu, raw.start, raw.lengths.to_vec()));
    }
    Ok(blocks)
}

fn problem(log: &str) -> (u64, LogProblem) {
    let error = read(log, ()).unwrap_err();
    (error.line, error.problem)
}

#[test]
fn listings_give_the_code_of_executed_blocks() {
    assert_eq!(
        read(LOG, ()).unwrap(),
        [
            (0, 0x40_1000, vec![5, 2]),
            (0, 0x40_1007, vec![10, 2]),
            (0, 0x40_1000, vec![5, 2]),
        ]
    );
}

#[test]
fn flags_give_privilege_and_code_size() {
    for (flags, cpl, size) in [
        ("1040c0b3", Cpl::Ring3, CodeSize::Bits64),
        ("0040c0b0", Cpl::Ring0, CodeSize::Bits64),
        ("000000b0", Cpl::Ring0, CodeSize::Bits32),
        ("00000000", Cpl::Ring0, CodeSize::Bits16),
    ] {
        let log = format!(
            "IN:\n0x000f0000:  90   nop\n\nTrace 0: 0x1 [00000000000f0000/00000000000f0000/{flags}/0]\n"
        );
        let mut reader = LogReader::new(log.as_bytes());
        let executed = reader.next_executed().unwrap().unwrap();
        let mode = reader.raw(executed.block).unwrap().mode.unwrap();
        assert_eq!(
            (mode.cpl, mode.code_size, mode.cs_base),
            (cpl, Some(size), Some(0xf_0000))
        );
        assert_eq!(executed.cpl, cpl);
    }
}

#[test]
fn a_block_translated_anew_has_the_new_code() {
    let changed = "IN:\n0x00401000:  31 c9  xorl %ecx, %ecx\n\n\
        Trace 0: 0x7f0000000100 [0000000000000000/0000000000401000/1040c0b3/00000200]\n";
    let blocks = read(&format!("{LOG}{changed}"), ()).unwrap();
    assert_eq!(blocks[3], (0, 0x40_1000, vec![2]));
}

#[test]
fn a_stopped_block_did_not_run() {
    let stopped = "Stopped execution of TB chain before 0x7f0000000100 [0000000000401000] main\n";
    assert_eq!(read(&format!("{LOG}{stopped}"), ()).unwrap().len(), 2);
}

#[test]
fn each_vcpu_keeps_its_order() {
    let line = |cpu, pc| format!("Trace {cpu}: 0x1 [0/{pc:016x}/0040c0b3/0]\n");
    struct Nops;
    impl LogCode for Nops {
        fn code(&self, _: u64) -> &[u8] {
            &[0x90, 0xeb, 0xfe]
        }
    }
    let log = [line(0, 0x10), line(1, 0x20), line(1, 0x30), line(0, 0x40)].concat();
    let blocks = read(&log, Nops).unwrap();
    let of = |cpu| {
        blocks
            .iter()
            .filter(|b| b.0 == cpu)
            .map(|b| b.1)
            .collect::<Vec<_>>()
    };
    assert_eq!((of(0), of(1)), (vec![0x10, 0x40], vec![0x20, 0x30]));
    assert_eq!(blocks[0].2, [1, 2]);
}

#[test]
fn bytes_without_a_disassembler_are_read() {
    let log = "IN:\nOBJD-T: b905000000f3aa\n\nTrace 0: 0x1 [0/401000/0040c0b3/0]\n";
    assert_eq!(read(log, ()).unwrap(), [(0, 0x40_1000, vec![5, 2])]);
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    assert!(matches!(problem(""), (1, LogProblem::Empty)));
    assert!(matches!(problem("hello\n"), (2, LogProblem::Empty)));
    assert!(matches!(
        problem("Trace 0: garbage\n"),
        (1, LogProblem::Malformed)
    ));
    assert!(matches!(
        problem("\nTrace 0: 0x1 [0/401000/0040c0b3/0]\n"),
        (2, LogProblem::NoCode { address: 0x40_1000 })
    ));
    assert!(matches!(
        problem("Linking TBs 0x1 [401000] index 0 -> 0x2 [401005]\n"),
        (1, LogProblem::Chained)
    ));
    let gap = "IN:\n0x401000:  90   nop\n0x401005:  90   nop\n";
    assert!(matches!(problem(gap), (3, LogProblem::MalformedListing)));
    let odd = "IN:\n0x401000:  9   nop\n";
    assert!(matches!(problem(odd), (2, LogProblem::MalformedListing)));
    let long = "x".repeat((1 << 20) + 10);
    assert!(matches!(problem(&long), (1, LogProblem::LongLine)));
    let huge = format!("IN:\nOBJD-T: {}\n", "90".repeat(512 * 15 + 1));
    assert!(matches!(problem(&huge), (2, LogProblem::MalformedListing)));
}

#[test]
fn the_number_of_a_cpu_is_an_int() {
    let last = LOG.replace("Trace 0:", "Trace 2147483647:");
    assert_eq!(read(&last, ()).unwrap()[0].0, 0x7fff_ffff);
    for number in ["2147483648", "4294967295", "-1", ""] {
        let log = LOG.replacen("Trace 0:", &format!("Trace {number}:"), 1);
        assert!(
            matches!(problem(&log), (6, LogProblem::Malformed)),
            "{number}"
        );
    }
}
