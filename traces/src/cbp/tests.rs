//! Traces written and read, and bytes that are none.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("a vector");
    encoder.finish().expect("a vector")
}

fn read(bytes: &[u8]) -> Result<Vec<Instruction>, CbpError> {
    let mut reader = Reader::new(bytes);
    let mut all = Vec::new();
    while let Some(instruction) = reader.next_instruction()? {
        all.push(instruction);
    }
    Ok(all)
}

fn every_class() -> Vec<Instruction> {
    let one = |(number, &class): (usize, &Class)| Instruction {
        address: 0x40_0000 + 4 * number as u64,
        class,
        target: class.is_branch().then_some(0x50_0000 + number as u64),
    };
    let mut all: Vec<Instruction> = Class::ALL.iter().enumerate().map(one).collect();
    all.push(Instruction {
        address: 0x60_0000,
        class: Class::Conditional,
        target: None,
    });
    all
}

#[test]
fn branches_are_read_as_they_were_written() {
    let mut writer = Writer::new(Vec::new());
    for instruction in every_class() {
        writer.write(&instruction).expect("a vector");
    }
    let bytes = writer.finish().expect("a vector");
    assert!(bytes.starts_with(&MAGIC));
    let expected = every_class().into_iter().map(|mut instruction| {
        if !instruction.class.is_branch() {
            instruction.class = Class::Alu;
        }
        instruction
    });
    assert_eq!(read(&bytes).expect("a trace"), expected.collect::<Vec<_>>());
}

/// A load with two registers written, one of them a vector, and a conditional branch.
fn sample() -> Vec<u8> {
    let mut bytes = 0x1000_u64.to_le_bytes().to_vec();
    bytes.push(1);
    bytes.extend([0; 10]);
    bytes.extend([2, 3, 4, 2, 5, 40]);
    bytes.extend([0; 24]);
    bytes.extend(0x1004_u64.to_le_bytes());
    bytes.extend([3, 1]);
    bytes.extend(0x2000_u64.to_le_bytes());
    bytes.extend([1, 64, 0]);
    bytes
}

#[test]
fn registers_and_addresses_are_skipped_by_their_sizes() {
    let read = read(&compressed(&sample())).expect("a trace");
    let found: Vec<_> = read
        .iter()
        .map(|i| (i.address, i.class, i.target))
        .collect();
    assert_eq!(
        found,
        [
            (0x1000, Class::Load, None),
            (0x1004, Class::Conditional, Some(0x2000))
        ]
    );
}

#[test]
fn a_trace_that_ends_within_an_instruction_is_refused_with_its_place() {
    let whole = sample();
    let first = whole.len() - 21;
    for end in 1..whole.len() {
        let result = read(&compressed(&whole[..end]));
        if end == first {
            assert_eq!(result.expect("whole").len(), 1);
            continue;
        }
        let begin = if end < first { 0 } else { first as u64 };
        match result.expect_err("truncated") {
            CbpError::Truncated { begin: found, .. } => assert_eq!(found, begin, "{end}"),
            other => panic!("{end}: {other}"),
        }
    }
    let stream = compressed(&whole);
    assert!(matches!(
        read(&stream[..stream.len() - 9]),
        Err(CbpError::Read { .. } | CbpError::Truncated { .. })
    ));
}

#[test]
fn classes_and_flags_that_there_are_not_are_refused() {
    let said = |at: usize, value: u8| {
        let mut bytes = sample();
        bytes[at] = value;
        read(&compressed(&bytes)).expect_err("refused").to_string()
    };
    assert_eq!(said(8, 12), "offset 0x8: class 12; there are 0 to 11");
    assert_eq!(said(58, 2), "offset 0x3a: taken is 2, neither 0 nor 1");
    let mut bytes = sample();
    bytes[57] = 11;
    bytes[58] = 0;
    assert_eq!(
        read(&compressed(&bytes)).expect_err("refused").to_string(),
        "offset 0x3a: a branch of class 11 was not taken"
    );
    assert!(matches!(
        read(b"no gzip at all"),
        Err(CbpError::Read { offset: 0, .. })
    ));
}

#[test]
fn the_sample_of_the_competition_is_a_chain_of_instructions() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/traces/sample_int_trace.gz");
    let Ok(bytes) = std::fs::read(&path) else {
        eprintln!("skipped: {} is not here", path.display());
        return;
    };
    let all = read(&bytes).expect("a trace");
    assert_eq!(all.len(), 997_301);
    for pair in all.windows(2) {
        let next = pair[0].target.unwrap_or(pair[0].address + 4);
        assert_eq!(pair[1].address, next);
    }
}
