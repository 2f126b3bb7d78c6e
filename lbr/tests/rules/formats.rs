//! What FROM, TO and INFO hold.

use vlbr_arch::{BranchClass, CodeSize, Cpl, Cycles, FarKind, Msr, Transfer};
use vlbr_lbr::{Options, Record};

use crate::support::{KERNEL, both, each, filled, jump, near, read, start_any, write};

/// A mispredicted jump in a transaction, 100 cycles after the record before.
fn flagged() -> Transfer {
    Transfer {
        mispredicted: true,
        in_tx: true,
        ..Transfer::near(BranchClass::NearIndJmp, KERNEL, KERNEL + 0x40, Cpl::Ring0)
    }
}

/// FROM, TO and INFO of [`flagged`].
fn raw_of_flagged(profile: &str, options: Options) -> [u64; 3] {
    let raw = std::cell::Cell::new([0; 3]);
    both(profile, options, |lbr| {
        start_any(lbr);
        jump(lbr, 0x1000, 0x2000);
        lbr.retire(&flagged(), Cycles::new(100));
        raw.set(lbr.records()[0].raw);
    });
    raw.get()
}

#[test]
fn each_format_puts_flags_and_cycles_in_its_place() {
    let to = KERNEL + 0x40;
    for (profile, expected) in [
        // Format 1: address only.
        ("core2-65nm", [KERNEL, to, 0]),
        // Format 1 with MISPRED (E19): the address's own top bit is set anyway.
        ("knights-landing", [KERNEL, to, 0]),
        // Format 3.
        ("nehalem", [KERNEL, to, 0]),
        // Format 4: MISPRED, IN_TSX, no ABORT.
        ("haswell", [KERNEL & !(1 << 61), to, 0]),
        // Format 5.
        ("skylake", [KERNEL, to, 1 << 63 | 1 << 62 | 100]),
        // Format 5 without TSX.
        ("ice-lake", [KERNEL, to, 1 << 63 | 100]),
        // Format 6: cycles in place of TO's sign bits.
        ("goldmont", [KERNEL, to & 0xffff_ffff_ffff | 100 << 48, 0]),
        // Format 7.
        ("tremont", [KERNEL, to, 1 << 63 | 100]),
        // Architectural: CYC_CNT_VALID, type 1 (indirect jump).
        (
            "sapphire-rapids",
            [KERNEL, to, 1 << 63 | 1 << 62 | 1 << 60 | 1 << 56 | 100],
        ),
    ] {
        assert_eq!(
            raw_of_flagged(profile, Options::default()),
            expected,
            "{profile}"
        );
    }
}

#[test]
fn a_predicted_kernel_branch_has_a_clear_top_bit() {
    for (profile, from) in [
        ("nehalem", KERNEL & !(1 << 63)),
        ("silvermont", KERNEL),
        ("knights-landing", KERNEL & !(1 << 63)),
        ("haswell", KERNEL & !(7 << 61)),
        ("goldmont", KERNEL & !(1 << 63)),
    ] {
        each(&[profile], |lbr| {
            start_any(lbr);
            lbr.retire(
                &Transfer::near(BranchClass::NearRelJmp, KERNEL, KERNEL + 8, Cpl::Ring0),
                Cycles::new(0),
            );
            assert_eq!(lbr.records()[0].raw[0], from, "{profile}");
            // Software sees the canonical address all the same.
            assert_eq!(lbr.records()[0].from, KERNEL, "{profile}");
        });
    }
}

#[test]
fn silvermont_may_have_format_3() {
    let options = Options {
        alternative_format: true,
        ..Options::default()
    };
    let raw = raw_of_flagged("silvermont", options);
    both(
        "silvermont",
        Options {
            alternative_format: true,
            ..Options::default()
        },
        |lbr| {
            start_any(lbr);
            lbr.retire(&flagged(), Cycles::new(0));
            assert!(lbr.records()[0].mispredicted);
        },
    );
    assert_eq!(raw[0], KERNEL);
    each(&["silvermont"], |lbr| {
        start_any(lbr);
        lbr.retire(&flagged(), Cycles::new(0));
        assert!(!lbr.records()[0].mispredicted);
    });
}

#[test]
fn decoded_records_say_what_the_part_tells() {
    let decoded = |profile| {
        let record = std::cell::Cell::new(Record::default());
        each(&[profile], |lbr| {
            start_any(lbr);
            jump(lbr, 0x1000, 0x2000);
            lbr.retire(
                &Transfer {
                    tx_abort: true,
                    ..flagged()
                },
                Cycles::new(100),
            );
            record.set(lbr.records()[0]);
        });
        record.get()
    };
    let hsw = decoded("haswell");
    assert!(hsw.mispredicted && hsw.in_tx && hsw.abort);
    assert_eq!((hsw.cycles, hsw.branch_type), (None, None));
    let glm = decoded("goldmont");
    assert!(glm.mispredicted && !glm.in_tx && !glm.abort);
    assert_eq!((glm.cycles, glm.branch_type), (Some(100), None));
    assert_eq!((glm.from, glm.to), (KERNEL, KERNEL + 0x40));
    let spr = decoded("spr");
    assert_eq!((spr.cycles, spr.branch_type), (Some(100), Some(1)));
}

#[test]
fn linear_and_effective_addresses_differ_by_the_base() {
    let real_mode = Transfer {
        from_cs_base: 0xf_0000,
        to_cs_base: 0x1_0000,
        from_size: CodeSize::Bits16,
        to_size: CodeSize::Bits16,
        ..Transfer::near(BranchClass::Far(FarKind::Jmp), 0xfff0, 0x100, Cpl::Ring0)
    };
    // Silvermont and the small architectural cores record linear addresses.
    for (profile, from, to) in [
        ("silvermont", 0xf_fff0, 0x1_0100),
        ("goldmont", 0xf_fff0, 0x1_0100),
        ("alder-lake-e", 0xf_fff0, 0x1_0100),
        ("sandy-bridge", 0xfff0, 0x100),
        ("skylake", 0xfff0, 0x100),
        ("alder-lake-p", 0xfff0, 0x100),
    ] {
        each(&[profile], |lbr| {
            start_any(lbr);
            lbr.retire(&real_mode, Cycles::new(0));
            assert_eq!(
                (lbr.records()[0].from, lbr.records()[0].to),
                (from, to),
                "{profile}"
            );
        });
    }
}

#[test]
fn outside_64_bit_mode_the_upper_half_is_zero() {
    let wrapping = Transfer {
        from_cs_base: 0xffff_0000,
        from_size: CodeSize::Bits32,
        ..Transfer::near(BranchClass::NearRelJmp, 0x2_0000, KERNEL, Cpl::Ring3)
    };
    each(&["core2", "goldmont-plus", "alder-lake-e"], |lbr| {
        start_any(lbr);
        lbr.retire(&wrapping, Cycles::new(0));
        assert_eq!(
            (lbr.records()[0].from, lbr.records()[0].to),
            (0x1_0000, KERNEL)
        );
    });
}

#[test]
fn cycles_count_from_the_previous_record_and_saturate() {
    each(&["skylake", "goldmont", "tremont", "alder-lake-p"], |lbr| {
        start_any(lbr);
        let at = |lbr: &mut dyn vlbr_lbr::Device, class, now| {
            lbr.retire(
                &Transfer::near(class, 0x1000, 0x2000, Cpl::Ring3),
                Cycles::new(now),
            )
        };
        at(lbr, BranchClass::Jcc, 1_000_000);
        // Nothing to count from: 0, and with architectural LBR not valid.
        let first = lbr.records()[0].cycles;
        assert_eq!(
            first,
            if lbr.profile().is_arch() {
                None
            } else {
                Some(0)
            }
        );
        // A filtered branch does not restart the count.
        if lbr.profile().is_arch() {
            write(lbr, Msr::LBR_CTL, 0x01_0007);
        } else {
            write(lbr, Msr::LBR_SELECT, 0x80);
        }
        at(lbr, BranchClass::NearRelJmp, 1_000_030);
        at(lbr, BranchClass::Jcc, 1_000_070);
        assert_eq!(lbr.records()[0].cycles, Some(70));
        at(lbr, BranchClass::Jcc, 1_000_070 + 0xffff);
        assert_eq!(lbr.records()[0].cycles, Some(0xffff));
        at(lbr, BranchClass::Jcc, 9_000_000);
        assert_eq!(lbr.records()[0].cycles, Some(0xffff));
    });
}

#[test]
fn architectural_branch_types() {
    each(&["alder-lake-p"], |lbr| {
        start_any(lbr);
        for (class, code) in [
            (BranchClass::Jcc, 0),
            (BranchClass::NearIndJmp, 1),
            (BranchClass::NearRelJmp, 2),
            (BranchClass::NearIndCall, 3),
            (BranchClass::NearRelCall, 4),
            (BranchClass::NearRet, 5),
            (BranchClass::Far(FarKind::Iret), 8),
        ] {
            near(lbr, class, 0x1000, 0x2000);
            assert_eq!(lbr.records()[0].branch_type, Some(code), "{class:?}");
        }
    });
}

#[test]
fn a_wild_source_is_recorded_as_it_was() {
    let wild = 0x1234_5678_9abc_def0;
    each(&["skylake"], |lbr| {
        start_any(lbr);
        near(lbr, BranchClass::Far(FarKind::Exception), wild, 0x2000);
        assert_eq!(read(lbr, Msr::LASTBRANCH_0_FROM_IP.plus(1)), wild);
        assert_eq!(filled(lbr).len(), 1);
    });
}

#[test]
fn logged_events_go_to_the_next_record() {
    each(&["lunar-lake-p"], |lbr| {
        start_any(lbr);
        lbr.log_event(0);
        for _ in 0..5 {
            lbr.log_event(2);
        }
        lbr.log_event(4);
        jump(lbr, 0x1000, 0x2000);
        assert_eq!(lbr.records()[0].raw[2] >> 32 & 0xff, 0b00_11_00_01);
        jump(lbr, 0x1000, 0x2000);
        assert_eq!(lbr.records()[0].raw[2] >> 32 & 0xff, 0);
    });
    each(&["alder-lake-p"], |lbr| {
        start_any(lbr);
        lbr.log_event(0);
        jump(lbr, 0x1000, 0x2000);
        assert_eq!(lbr.records()[0].raw[2] >> 32 & 0xff, 0);
    });
}
