//! Errata, switched on and off.

use vlbr_arch::{BranchClass, Cpl, Cycles, DebugCtl, FarKind, Msr, Transfer};
use vlbr_lbr::{Options, Pmi, Quirk, QuirkSet, Verdict};

use crate::support::{
    KERNEL, both, each, filled, into_kernel, jump, near, read, start, start_any, with_quirks, write,
};

const EDGE: u64 = 0x0000_8000_0000_0000;

#[test]
fn e2_high_bits_of_ler_to_are_noise_of_the_seed() {
    let seen = std::cell::RefCell::new(std::collections::BTreeSet::new());
    for seed in 0..128 {
        let options = Options {
            seed,
            ..with_quirks(&[Quirk::LerToHighBits])
        };
        both("broadwell", options, |lbr| {
            write(lbr, Msr::LER_TO, 0x1000);
            let value = read(lbr, Msr::LER_TO);
            assert_eq!(value & !(7 << 61), 0x1000);
            assert_eq!(read(lbr, Msr::LER_TO), value, "stable until written");
            seen.borrow_mut().insert(value >> 61);
        });
    }
    assert_eq!(seen.borrow().len(), 8);
}

#[test]
fn e3_off_nehalem_filters_like_sandy_bridge() {
    both("nehalem", with_quirks(&[]), |lbr| {
        start(lbr, 0x0c0);
        for class in [
            BranchClass::NearRelCall,
            BranchClass::NearIndCall,
            BranchClass::NearRet,
        ] {
            assert_eq!(near(lbr, class, 1, 2), Verdict::Push);
        }
        assert_eq!(near(lbr, BranchClass::NearIndJmp, 1, 2), Verdict::Ignore);
    });
}

#[test]
fn e4_rsm_leaves_garbage_in_the_youngest_entry() {
    both("nehalem", with_quirks(&[Quirk::RsmGarbage]), |lbr| {
        start(lbr, 0);
        jump(lbr, 0x1000, 0x2000);
        near(lbr, BranchClass::Far(FarKind::Rsm), 0x8000, 0x3000);
        let records = lbr.records();
        assert_ne!((records[0].from, records[0].to), (0x8000, 0x3000));
        assert_eq!((records[1].from, records[1].to), (0x1000, 0x2000));
    });
}

#[test]
fn e5_the_canonical_edge_is_sign_extended() {
    for (profile, expected) in [("westmere", EDGE.wrapping_neg()), ("sandy-bridge", EDGE)] {
        each(&[profile], |lbr| {
            start(lbr, 0);
            lbr.retire(&into_kernel(FarKind::Exception, EDGE), Cycles::new(0));
            let from = read(lbr, Msr::LASTBRANCH_0_FROM_IP.plus(1));
            assert_eq!(from, expected & !(1 << 63), "{profile}");
        });
    }
}

#[test]
fn e6_a_pebs_pmi_freezes_some_branches_early() {
    let options = Options {
        early_freeze_branches: 2,
        ..with_quirks(&[Quirk::EarlyFreeze])
    };
    both("core2", options, |lbr| {
        start_any(lbr);
        write(lbr, Msr::DEBUGCTL, 0x801);
        for n in 1..=6 {
            jump(lbr, 0x1000 * n, 0x2000);
        }
        lbr.freeze_on_pmi(Pmi::Pebs);
        let froms: Vec<u64> = lbr.records().iter().map(|record| record.from).collect();
        assert_eq!(froms, [0x4000, 0x3000, 0x2000, 0x1000]);
        // A counter's PMI is on time.
        write(lbr, Msr::DEBUGCTL, 0x801);
        jump(lbr, 0x7000, 0x2000);
        lbr.freeze_on_pmi(Pmi::Counter);
        assert_eq!(lbr.records()[0].from, 0x7000);
    });
}

#[test]
fn e7_a_failed_segment_test_updates_ler() {
    for (options, expected) in [
        (with_quirks(&[Quirk::SpuriousLer]), 0x1000),
        (Options::default(), 0),
    ] {
        both("core2", options, |lbr| {
            start_any(lbr);
            jump(lbr, 0x1000, 0x2000);
            lbr.segment_test_failed();
            assert_eq!(read(lbr, Msr::LER_FROM), expected);
        });
    }
}

#[test]
fn e11_early_bonnell_does_not_freeze() {
    both("bonnell", with_quirks(&[Quirk::FreezeBroken]), |lbr| {
        write(lbr, Msr::DEBUGCTL, 0x801);
        lbr.freeze_on_pmi(Pmi::Counter);
        assert!(lbr.recording());
    });
}

#[test]
fn e13_haswell_gives_two_records_for_an_abort() {
    let abort = Transfer {
        tx_abort: true,
        ..Transfer::near(
            BranchClass::Far(FarKind::TsxAbort),
            0x1000,
            0x2000,
            Cpl::Ring3,
        )
    };
    for (profile, expected) in [
        ("haswell", &[false, true][..]),
        ("broadwell", &[true][..]),
        ("skylake", &[true][..]),
    ] {
        each(&[profile], |lbr| {
            start(lbr, 0);
            lbr.retire(&abort, Cycles::new(0));
            let aborts: Vec<bool> = filled(lbr).iter().map(|record| record.abort).collect();
            assert_eq!(aborts, expected, "{profile}");
        });
    }
}

#[test]
fn tsx_aborts_pass_the_far_filter_only_if_asked() {
    let abort = Transfer::near(
        BranchClass::Far(FarKind::TsxAbort),
        0x1000,
        0x2000,
        Cpl::Ring3,
    );
    for (tsx_abort_ignores_far, verdict) in [(false, Verdict::Ignore), (true, Verdict::Push)] {
        both(
            "skylake",
            Options {
                tsx_abort_ignores_far,
                ..Options::default()
            },
            |lbr| {
                start(lbr, 0x100);
                assert_eq!(lbr.verdict(&abort), verdict);
            },
        );
    }
}

#[test]
fn e14_freezing_moves_tos_of_a_call_stack() {
    let moves = std::cell::RefCell::new(std::collections::BTreeSet::new());
    for seed in 0..32 {
        let options = Options {
            seed,
            ..with_quirks(&[Quirk::FreezeCallStackTos])
        };
        both("skylake", options, |lbr| {
            start(lbr, 0x3c5);
            write(
                lbr,
                Msr::DEBUGCTL,
                (DebugCtl::LBR | DebugCtl::FREEZE_LBRS_ON_PMI).bits(),
            );
            write(lbr, Msr::LASTBRANCH_TOS, 10);
            lbr.freeze_on_pmi(Pmi::Counter);
            moves.borrow_mut().insert(lbr.tos());
        });
    }
    assert_eq!(
        moves.borrow().iter().copied().collect::<Vec<_>>(),
        [9, 10, 11]
    );
}

#[test]
fn e18_off_intel_pt_and_lbr_run_together() {
    both("skylake", with_quirks(&[]), |lbr| {
        start(lbr, 0);
        lbr.set_trace_en(true);
        assert!(lbr.recording());
    });
}

#[test]
fn e19_off_knights_landing_hides_mispredictions() {
    for (options, expected) in [(Options::default(), true), (with_quirks(&[]), false)] {
        both("knights-landing", options, |lbr| {
            start(lbr, 0);
            let branch = Transfer {
                mispredicted: true,
                ..Transfer::near(BranchClass::Jcc, KERNEL, KERNEL + 2, Cpl::Ring0)
            };
            lbr.retire(&branch, Cycles::new(0));
            assert_eq!(lbr.records()[0].mispredicted, expected);
            assert_eq!(lbr.records()[0].from, KERNEL);
        });
    }
}

#[test]
fn every_quirk_has_its_own_name() {
    let set: QuirkSet = Quirk::ALL.into_iter().collect();
    assert_eq!(set.iter().count(), Quirk::ALL.len());
    assert_eq!(
        set.to_string(),
        "E1,E2,E3,E4,E5,E6,E7,E11,E12,E13,E14,E18,E19,E24"
    );
    for quirk in Quirk::ALL {
        assert_eq!(quirk.id().parse(), Ok(quirk));
        assert!(!set.without(quirk).contains(quirk));
    }
    assert!("E8".parse::<Quirk>().is_err());
}

#[test]
fn e12_doubles_about_as_often_as_asked() {
    let options = Options {
        duplicate_top_one_in: 10.try_into().expect("not zero"),
        seed: 42,
        ..with_quirks(&[Quirk::DuplicateTop])
    };
    both("skylake", options, |lbr| {
        start(lbr, 0);
        let mut doubled = 0;
        for n in 0..10_000u64 {
            near(lbr, BranchClass::Jcc, 0x1000 + n, 0x2000);
            let records = lbr.records();
            doubled += u32::from(records[0].raw == records[1].raw);
        }
        assert!((900..1100).contains(&doubled), "{doubled}");
    });
}
