//! Damaged perf.data and ELF files are refused or read, without panic and without much memory.

use std::io::Cursor;
use std::path::Path;

use proptest::prelude::*;
use vlbr_fuzz::Damage;
use vlbr_traces::explain::explain_perf_data;
use vlbr_traces::perfdata::PerfFile;
use vlbr_traces::symbols::ElfImage;

use super::files::{ask_elf, read_all, reference, small_elf};

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
