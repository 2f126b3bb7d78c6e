//! Damaged perf.data and ELF files are refused or read, without panic and without much memory.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use vlbr_traces::explain::explain_perf_data;
use vlbr_traces::perfdata::{PerfFile, PerfReadError, Record};
use vlbr_traces::symbols::ElfImage;

/// What is done to a file.
#[derive(Clone, Debug)]
enum Damage {
    Byte(usize, u8),
    Word(usize, u64),
    Cut(usize),
    Repeat(usize, usize),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match *self {
            Self::Byte(at, value) => bytes[at % length] = value,
            Self::Word(at, value) => {
                let at = at % length;
                let end = (at + 8).min(length);
                bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
            }
            Self::Cut(at) => bytes.truncate(at % length),
            Self::Repeat(at, count) => {
                let at = at % length;
                let part = bytes[at..(at + count % 256).min(length)].to_vec();
                bytes.extend(part);
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let extremes = prop_oneof![
        Just(0),
        Just(u64::MAX),
        Just(1 << 63),
        Just(u64::from(u32::MAX)),
        Just(0x7fff_ffff_ffff_fff8),
        any::<u64>(),
        0u64..4096,
    ];
    let one = prop_oneof![
        4 => (any::<usize>(), any::<u8>()).prop_map(|(at, value)| Damage::Byte(at, value)),
        // Headers are where lengths and offsets are.
        4 => (0usize..512, extremes.clone()).prop_map(|(at, value)| Damage::Word(at, value)),
        2 => (any::<usize>(), extremes).prop_map(|(at, value)| Damage::Word(at, value)),
        1 => any::<usize>().prop_map(Damage::Cut),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(at, count)| Damage::Repeat(at, count)),
    ];
    prop::collection::vec(one, 1..6)
}

fn reference(name: &str) -> Option<Vec<u8>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/data/lbr")
        .join(name);
    if !path.exists() {
        eprintln!("skipped: {} is not there", path.display());
    }
    std::fs::read(path).ok()
}

/// Reads everything there is to read and returns how many records there were.
fn read_all(bytes: &[u8]) -> Result<usize, PerfReadError> {
    let mut file = PerfFile::new(Cursor::new(bytes))?;
    let known: Vec<_> = file.metadata().features.keys().copied().collect();
    for feature in known {
        // Refusing one feature must not keep the others from being read.
        let _ = file.feature_bytes(feature);
    }
    let _ = file.features();
    let mut records = file.records()?;
    let mut count = 0;
    while let Some(raw) = records.next_record()? {
        count += 1;
        let _ = raw.sample_id();
        if let Ok(Record::Sample(sample)) = raw.parse()
            && let (Some(stack), Some(range)) = (sample.branch_stack, sample.branch_stack_range)
        {
            assert_eq!(stack.encode(), &raw.body[range], "a typed stack lost a bit");
        }
    }
    Ok(count)
}

fn check_perf(name: &str, damage: &[Damage]) {
    let Some(mut bytes) = reference(name) else {
        return;
    };
    damage.iter().for_each(|d| d.apply(&mut bytes));
    if let Ok(count) = read_all(&bytes) {
        assert!(
            count <= bytes.len() / 8,
            "more records than the file has room for"
        );
    }
}

/// A small ELF file: one executable segment at 0x1000, two functions.
fn small_elf() -> Vec<u8> {
    let code = [0x90, 0x74, 0xfd, 0xc3, 0x90, 0xc3];
    let strings = b"\0first\0second\0";
    let names = b"\0.text\0.symtab\0.strtab\0.shstrtab\0";
    let (code_at, symbols_at) = (0x78u64, 0x80u64);
    let strings_at = symbols_at + 3 * 24;
    let names_at = strings_at + strings.len() as u64;
    let sections_at = (names_at + names.len() as u64).next_multiple_of(8);
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);
    put(&2u16.to_le_bytes());
    put(&62u16.to_le_bytes());
    put(&1u32.to_le_bytes());
    for word in [0x1078u64, 64, sections_at] {
        put(&word.to_le_bytes());
    }
    put(&0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 5, 4] {
        put(&half.to_le_bytes());
    }
    put(&1u32.to_le_bytes());
    put(&5u32.to_le_bytes());
    for word in [0u64, 0x1000, 0x1000, 0x80, 0x80, 0x1000] {
        put(&word.to_le_bytes());
    }
    put(&code);
    put(&[0; 2]);
    put(&[0; 24]);
    for (name, address, size) in [(1u32, 0x1078u64, 4u64), (7, 0x107c, 2)] {
        put(&name.to_le_bytes());
        put(&[0x12, 0]);
        put(&1u16.to_le_bytes());
        put(&address.to_le_bytes());
        put(&size.to_le_bytes());
    }
    put(strings);
    put(names);
    let padding = sections_at as usize - names_at as usize - names.len();
    put(&vec![0; padding]);
    let sections: [[u64; 10]; 5] = [
        [0; 10],
        [1, 1, 6, 0x1000 + code_at, code_at, 6, 0, 0, 1, 0],
        [7, 2, 0, 0, symbols_at, 72, 3, 1, 8, 24],
        [15, 3, 0, 0, strings_at, strings.len() as u64, 0, 0, 1, 0],
        [23, 3, 0, 0, names_at, names.len() as u64, 0, 0, 1, 0],
    ];
    for [
        name,
        kind,
        flags,
        address,
        offset,
        size,
        link,
        info,
        align,
        entry,
    ] in sections
    {
        put(&(name as u32).to_le_bytes());
        put(&(kind as u32).to_le_bytes());
        for word in [flags, address, offset, size] {
            put(&word.to_le_bytes());
        }
        put(&(link as u32).to_le_bytes());
        put(&(info as u32).to_le_bytes());
        put(&align.to_le_bytes());
        put(&entry.to_le_bytes());
    }
    out
}

/// Opens the bytes as ELF and asks everything; `None` when they are refused.
fn ask_elf(bytes: &[u8]) -> Option<ElfImage> {
    let mut file = tempfile::NamedTempFile::new().expect("temporary");
    file.write_all(bytes).expect("written");
    let image = ElfImage::open(file.path()).ok()?;
    for address in [0, 1, 0x1000, 0x1079, 0x1740, u64::MAX / 2, u64::MAX] {
        let _ = image.lookup(address);
        let _ = image.address_to_offset(address);
        let _ = image.offset_to_address(address);
        for length in [0, 1, 0x1000, u64::MAX] {
            let _ = image.load_bias(address, length, address);
            let _ = image.load_bias(0x7000_0000, length, address);
        }
    }
    if let Ok(code) = image.read_code() {
        assert!(code.size() <= bytes.len() * image.segments().len());
        let _ = code.at(u64::MAX);
    }
    for symbol in image.symbols().iter() {
        let _ = symbol.display_name();
    }
    Some(image)
}

#[test]
fn the_small_elf_file_is_a_good_one() {
    let image = ask_elf(&small_elf()).expect("read");
    assert_eq!(image.symbols().len(), 2);
    assert_eq!(
        image.lookup(0x107d).map(|s| (s.name, s.offset)),
        Some((&b"second"[..], 1))
    );
    assert!(!image.position_independent());
    assert_eq!(image.load_bias(0x1000, 0x1000, 0), Some(0));
}

#[test]
fn what_is_no_file_is_refused() {
    for path in ["/", "/dev/zero", "/nonexistent"] {
        let error = ElfImage::open(Path::new(path))
            .expect_err("refused")
            .to_string();
        assert!(error.contains(path), "{error}");
    }
    let error = ask_elf(b"");
    assert!(error.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn damaged_perf_data_never_panics(damage in damage()) {
        for name in ["flags.perf.data", "ro_sample.perf", "perf.data.branch-4.14"] {
            check_perf(name, &damage);
        }
    }

    #[test]
    fn any_bytes_as_perf_data_never_panic(
        tail in prop::collection::vec(any::<u8>(), 0..400),
        pipe: bool,
    ) {
        let mut bytes = b"PERFILE2".to_vec();
        bytes.extend_from_slice(&if pipe { 16u64 } else { 104 }.to_le_bytes());
        bytes.extend(tail);
        let _ = read_all(&bytes);
    }

    #[test]
    fn damaged_elf_files_never_panic(damage in damage()) {
        let mut bytes = small_elf();
        damage.iter().for_each(|d| d.apply(&mut bytes));
        let _ = ask_elf(&bytes);
        if let Some(mut bytes) = reference("propeller_sample_1.bin") {
            damage.iter().for_each(|d| d.apply(&mut bytes));
            let _ = ask_elf(&bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn explaining_with_a_damaged_program_keeps_the_sum(damage in damage()) {
        let (Some(perf), Some(mut binary)) =
            (reference("propeller_sample_1.perfdata1"), reference("propeller_sample_1.bin"))
        else {
            return Ok(());
        };
        damage.iter().for_each(|d| d.apply(&mut binary));
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("propeller_sample_1.bin.gen");
        std::fs::write(&path, binary).expect("written");
        let mut file = PerfFile::new(Cursor::new(perf)).expect("header");
        if let Ok(table) = explain_perf_data(&mut file, &[&path]) {
            prop_assert_eq!(table.total(), 115_692);
        }
    }
}
