//! The Skylake-SP reference file, explained with the program it was recorded from.

use vlbr_traces::explain::{ExplainError, PairClass, explain_perf_data};
use vlbr_traces::perfdata::PerfFile;
use vlbr_traces::symbols::ElfImage;

use super::files::reference_path;

#[test]
fn consecutive_entries_of_the_skylake_file_fall_in_the_classes_found_by_hand() {
    let (Some(perf), Some(binary)) = (
        reference_path("propeller_sample_1.perfdata1"),
        reference_path("propeller_sample_1.bin"),
    ) else {
        return;
    };
    let mut file = PerfFile::open(&perf).expect("opened");
    let table = explain_perf_data(&mut file, &[&binary]).expect("explained");
    assert_eq!(table.count(PairClass::FromBelowTo), 733);
    assert_eq!(table.count(PairClass::CrossesUnconditional), 233);
    assert_eq!(table.count(PairClass::LeavesFile), 5);
    assert_eq!(table.count(PairClass::Explained), 114_721);
    assert_eq!(table.total(), 115_692);
    assert_eq!(format!("{:.2}", table.explained_share() * 100.0), "99.16");
}

#[test]
fn segments_that_share_a_page_of_the_file_do_not_shift_the_load_address() {
    let Some(binary) = reference_path("propeller_sample_1.bin") else {
        return;
    };
    let image = ElfImage::open(&binary).expect("opened");
    assert!(image.position_independent());
    assert_eq!(image.build_id().map(<[u8]>::len), Some(8));
    // File page 0 holds all four segments; the code was linked one page higher than its offset.
    let bias = image.load_bias(0x5629_ec74_2000, 0x1000, 0);
    assert_eq!(bias, Some(0x5629_ec74_1000));
    assert_eq!(image.address_to_offset(0x1740), Some(0x740));
    assert_eq!(image.offset_to_address(0x740), Some(0x1740));
    let main = image.symbols().find(b"main").expect("main has a symbol");
    assert_eq!(
        image.lookup(main.address + 1).map(|s| s.name),
        Some(&b"main"[..])
    );
}

#[test]
fn a_program_that_was_not_recorded_is_refused() {
    let (Some(perf), Some(binary)) = (
        reference_path("flags.perf.data"),
        reference_path("propeller_sample_1.bin"),
    ) else {
        return;
    };
    let mut file = PerfFile::open(&perf).expect("opened");
    let error = explain_perf_data(&mut file, &[&binary]);
    assert!(matches!(error, Err(ExplainError::NotMapped { .. })));
}
