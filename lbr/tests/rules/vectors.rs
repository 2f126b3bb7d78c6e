//! The test vectors of the project's hardware specification that concern the LBR alone, by number.

use vlbr_arch::{
    BranchClass, Cpl, Cycles, DebugCtl, FarKind, LbrCtl, LbrSelect, Msr, Transfer, XSTATE_LBR_SIZE,
};
use vlbr_lbr::{Device, GpReason, InsertsEvent, Options, Profile, QuirkSet, Verdict};

use crate::support::{both, filled, near, read, start, write};

const EVERY_NEAR: [BranchClass; 6] = [
    BranchClass::Jcc,
    BranchClass::NearRelJmp,
    BranchClass::NearIndJmp,
    BranchClass::NearRelCall,
    BranchClass::NearIndCall,
    BranchClass::NearRet,
];

/// Which near classes are recorded under a filter.
fn recorded(lbr: &mut dyn Device, select: u64) -> Vec<BranchClass> {
    start(lbr, select);
    let push = |class: &BranchClass| near(lbr, *class, 0x1000, 0x2000) == Verdict::Push;
    EVERY_NEAR.iter().copied().filter(push).collect()
}

#[test]
fn t1_tos_wraps_before_the_write() {
    both("skylake", Options::default(), |lbr| {
        start(lbr, 0);
        write(lbr, Msr::LASTBRANCH_TOS, 31);
        near(lbr, BranchClass::NearRelJmp, 0x40_1000, 0x40_2000);
        assert_eq!(read(lbr, Msr::LASTBRANCH_TOS), 0);
        assert_eq!(read(lbr, Msr::LASTBRANCH_0_FROM_IP), 0x40_1000);
        assert_eq!(read(lbr, Msr::LASTBRANCH_0_TO_IP), 0x40_2000);
    });
}

#[test]
fn t2_a_return_removes_the_youngest_call() {
    both("haswell", Options::default(), |lbr| {
        start(lbr, 0x3c5);
        write(lbr, Msr::LASTBRANCH_TOS, 5);
        near(lbr, BranchClass::NearRelCall, 0xa0, 0xa00);
        near(lbr, BranchClass::NearRelCall, 0xb0, 0xb00);
        assert_eq!(near(lbr, BranchClass::NearRet, 0xb50, 0xb5), Verdict::Pop);
        assert_eq!(read(lbr, Msr::LASTBRANCH_TOS), 6);
        assert_eq!(read(lbr, Msr::LASTBRANCH_0_FROM_IP.plus(6)), 0xa0);
        assert_eq!(read(lbr, Msr::LASTBRANCH_0_FROM_IP.plus(7)), 0);
        assert_eq!(read(lbr, Msr::LASTBRANCH_0_TO_IP.plus(7)), 0);
        assert_eq!(filled(lbr).len(), 1);
    });
}

#[test]
fn t3_a_zero_length_call_is_not_pushed() {
    both("haswell", Options::default(), |lbr| {
        start(lbr, 0x3c5);
        near(lbr, BranchClass::NearRelCall, 0xa0, 0xa00);
        let tos = lbr.tos();
        let verdict = near(lbr, BranchClass::NearRelCallZero, 0xa10, 0xa15);
        assert_eq!((verdict, lbr.tos()), (Verdict::Ignore, tos));
        // In normal mode it is an ordinary relative call.
        write(lbr, Msr::LBR_SELECT, 0);
        assert_eq!(
            near(lbr, BranchClass::NearRelCallZero, 0xa10, 0xa15),
            Verdict::Push
        );
    });
}

#[test]
fn t4_nehalem_jump_bits_also_suppress_calls_and_returns() {
    both("nehalem", Options::default(), |lbr| {
        assert_eq!(recorded(lbr, 0x0c0), [BranchClass::Jcc]);
    });
    both("nehalem", Options::default(), |lbr| {
        assert_eq!(
            recorded(lbr, LbrSelect::NEAR_REL_JMP.bits()),
            [
                BranchClass::Jcc,
                BranchClass::NearIndJmp,
                BranchClass::NearIndCall
            ]
        );
    });
}

#[test]
fn t5_sandy_bridge_jump_bits_suppress_jumps_only() {
    both("sandy-bridge", Options::default(), |lbr| {
        assert_eq!(
            recorded(lbr, 0x0c0),
            [
                BranchClass::Jcc,
                BranchClass::NearRelCall,
                BranchClass::NearIndCall,
                BranchClass::NearRet
            ]
        );
    });
}

#[test]
fn t6_both_cpl_bits_suppress_everything() {
    for profile in Profile::all() {
        both(profile.name(), Options::default(), |lbr| {
            if lbr.rdmsr(Msr::LBR_SELECT).is_err() {
                return;
            }
            assert_eq!(recorded(lbr, 0x003), []);
            assert!(filled(lbr).is_empty());
        });
    }
}

/// SYSCALL from 0x1000 to the kernel, SYSRET back.
fn syscall_and_back(lbr: &mut dyn Device) {
    let entry = Transfer {
        cpl_before: Cpl::Ring3,
        cpl_after: Cpl::Ring0,
        ..Transfer::near(
            BranchClass::Far(FarKind::Syscall),
            0x1000,
            0xffff_ffff_8100_0000,
            Cpl::Ring0,
        )
    };
    let exit = Transfer {
        cpl_before: Cpl::Ring0,
        cpl_after: Cpl::Ring3,
        ..Transfer::near(
            BranchClass::Far(FarKind::Sysret),
            0xffff_ffff_8100_0100,
            0x1002,
            Cpl::Ring3,
        )
    };
    lbr.retire(&entry, Cycles::new(10));
    lbr.retire(&exit, Cycles::new(20));
}

#[test]
fn t7_the_cpl_after_the_transfer_is_filtered() {
    both("skylake", Options::default(), |lbr| {
        start(lbr, LbrSelect::CPL_EQ_0.bits());
        syscall_and_back(lbr);
        let records = filled(lbr);
        assert_eq!(records.len(), 1);
        assert_eq!(
            (records[0].from, records[0].to),
            (0xffff_ffff_8100_0100, 0x1002)
        );
    });
}

#[test]
fn t8_architectural_lbr_masks_a_filtered_source() {
    let ctl = LbrCtl::LBR_EN | LbrCtl::USR | LbrCtl::ALL_TYPES;
    both("sapphire-rapids", Options::default(), |lbr| {
        write(lbr, Msr::LBR_CTL, ctl.bits());
        syscall_and_back(lbr);
        let records = filled(lbr);
        assert_eq!(records.len(), 1);
        assert_eq!((records[0].from, records[0].to), (0xffff_ffff, 0x1002));
    });
    let options = Options {
        arch_mask_from: false,
        ..Options::default()
    };
    both("sapphire-rapids", options, |lbr| {
        write(lbr, Msr::LBR_CTL, ctl.bits());
        syscall_and_back(lbr);
        assert_eq!(filled(lbr)[0].from, 0xffff_ffff_8100_0100);
    });
}

#[test]
fn t13_without_tsx_haswell_refuses_what_it_recorded() {
    let options = Options {
        tsx: Some(false),
        ..Options::default()
    };
    both("haswell", options, |lbr| {
        start(lbr, 0);
        near(
            lbr,
            BranchClass::NearRelJmp,
            0xffff_ffff_8100_0000,
            0xffff_ffff_8100_0040,
        );
        let msr = Msr::LASTBRANCH_0_FROM_IP.plus(1);
        let value = read(lbr, msr);
        assert_eq!(value, 0x1fff_ffff_8100_0000, "62:61 are recorded as 0");
        let fault = lbr.wrmsr(msr, value).expect_err("refused");
        assert_eq!(fault.reason, GpReason::SignExtension { high: 62 });
        // What Linux does about it: copy the sign into both bits.
        let fixed = value | (value & (3 << 59)) << 2;
        write(lbr, msr, fixed);
        assert_eq!(read(lbr, msr), fixed);
        let fault = lbr.wrmsr(Msr::LER_FROM, value).expect_err("LER_FROM alike");
        assert_eq!(fault.reason, GpReason::SignExtension { high: 62 });
    });
    // With TSX, or with the erratum off, it takes its own value back.
    let fixed = Options {
        tsx: Some(false),
        quirks: Some(QuirkSet::EMPTY),
        ..Options::default()
    };
    for options in [Options::default(), fixed] {
        both("haswell", options, |lbr| {
            start(lbr, 0);
            near(
                lbr,
                BranchClass::NearRelJmp,
                0xffff_ffff_8100_0000,
                0xffff_ffff_8100_0040,
            );
            let msr = Msr::LASTBRANCH_0_FROM_IP.plus(1);
            let value = read(lbr, msr);
            write(lbr, msr, value);
        });
    }
}

#[test]
fn t20_a_debug_exception_stops_recording_and_is_not_recorded() {
    let db = Transfer::near(
        BranchClass::Far(FarKind::DebugException),
        0x3000,
        0xffff_ffff_8200_0000,
        Cpl::Ring0,
    );
    both("skylake", Options::default(), |lbr| {
        start(lbr, 0);
        write(
            lbr,
            Msr::DEBUGCTL,
            (DebugCtl::LBR | DebugCtl::BTF | DebugCtl::TR).bits(),
        );
        near(lbr, BranchClass::NearRelJmp, 0x1000, 0x2000);
        let before = lbr.records();
        lbr.retire(&db, Cycles::new(9));
        assert_eq!(read(lbr, Msr::DEBUGCTL), DebugCtl::TR.bits());
        assert!(!lbr.recording());
        assert_eq!(lbr.records(), before);
    });
    both("alder-lake-p", Options::default(), |lbr| {
        write(lbr, Msr::LBR_CTL, 0x38_0005);
        near(lbr, BranchClass::NearRet, 0x1000, 0x2000);
        let before = lbr.records();
        lbr.retire(&db, Cycles::new(9));
        assert_eq!(read(lbr, Msr::LBR_CTL), 0x38_0004);
        assert_eq!(lbr.records(), before);
        assert_eq!(filled(lbr).len(), 1);
    });
}

/// An architectural device that records everything.
fn start_arch(lbr: &mut dyn Device) {
    write(lbr, Msr::LBR_CTL, 0x7f_0007);
}

#[test]
fn t21_writing_the_same_depth_clears_the_entries() {
    both("sapphire-rapids", Options::default(), |lbr| {
        start_arch(lbr);
        near(lbr, BranchClass::NearRelJmp, 0x1000, 0x2000);
        let fault = Transfer::near(
            BranchClass::Far(FarKind::Exception),
            0x2010,
            0xffff_ffff_8200_0000,
            Cpl::Ring0,
        );
        lbr.retire(&fault, Cycles::new(5));
        write(lbr, Msr::LBR_DEPTH, 32);
        assert!(filled(lbr).is_empty());
        for msr in lbr.msrs() {
            let kept = [
                Msr::LBR_CTL,
                Msr::LBR_DEPTH,
                Msr::LER_FROM,
                Msr::LER_TO,
                Msr::LER_INFO,
            ];
            assert!(kept.contains(&msr) || read(lbr, msr) == 0, "{msr}");
        }
        assert_eq!(
            read(lbr, Msr::LER_FROM),
            0x1000,
            "LER is not cleared by the write"
        );
    });
}

#[test]
fn t22_the_33rd_record_pushes_the_first_out() {
    both("sapphire-rapids", Options::default(), |lbr| {
        start_arch(lbr);
        for n in 1..=33 {
            near(lbr, BranchClass::NearRelJmp, 0x1000 + n, 0x2000);
        }
        assert_eq!(read(lbr, Msr::LBR_0_FROM_IP), 0x1000 + 33);
        assert_eq!(read(lbr, Msr::LBR_0_FROM_IP.plus(31)), 0x1000 + 2);
    });
}

#[test]
fn t24_entries_at_or_above_depth_fault() {
    both("alder-lake-e", Options::default(), |lbr| {
        write(lbr, Msr::LBR_DEPTH, 8);
        for base in [Msr::LBR_0_FROM_IP, Msr::LBR_0_TO_IP, Msr::LBR_0_INFO] {
            assert_eq!(lbr.rdmsr(base.plus(7)), Ok(0));
            let reason = GpReason::BeyondDepth { entry: 8, depth: 8 };
            assert_eq!(
                lbr.rdmsr(base.plus(8)).map_err(|fault| fault.reason),
                Err(reason)
            );
            assert_eq!(
                lbr.wrmsr(base.plus(8), 0).map_err(|fault| fault.reason),
                Err(reason)
            );
        }
        let fault = lbr.wrmsr(Msr::LBR_DEPTH, 24).expect_err("not enumerated");
        assert_eq!(fault.reason, GpReason::UnsupportedDepth(24));
        assert_eq!(
            fault.to_string(),
            "#GP(0): WRMSR IA32_LBR_DEPTH = 0x18: 24 is no depth that CPUID leaf 0x1C enumerates"
        );
    });
}

#[test]
fn t25_xrstors_of_another_depth_clears_entries_and_ler() {
    both("sapphire-rapids", Options::default(), |lbr| {
        start_arch(lbr);
        near(lbr, BranchClass::NearRelJmp, 0x1000, 0x2000);
        write(lbr, Msr::LER_FROM, 0x77);
        let mut image = [0; XSTATE_LBR_SIZE];
        lbr.xsaves(&mut image).expect("has component 15");
        assert_eq!(image[8..16], 32u64.to_le_bytes());
        write(lbr, Msr::LBR_DEPTH, 16);
        write(lbr, Msr::LBR_CTL, 0);
        near(lbr, BranchClass::NearRelJmp, 0x3000, 0x4000);
        write(lbr, Msr::LBR_0_FROM_IP, 0x55);
        lbr.xrstors(&image).expect("a mismatch does not fault");
        assert!(lbr.records().iter().all(|record| record.raw == [0; 3]));
        assert_eq!(read(lbr, Msr::LER_FROM), 0);
        assert_eq!(read(lbr, Msr::LBR_DEPTH), 16);
        assert_eq!(read(lbr, Msr::LBR_CTL), 0x7f_0007);
    });
}

#[test]
fn t26_no_branch_type_records_nothing() {
    both("lunar-lake-p", Options::default(), |lbr| {
        write(lbr, Msr::LBR_CTL, 7);
        assert!(lbr.recording());
        for class in EVERY_NEAR {
            assert_eq!(near(lbr, class, 0x1000, 0x2000), Verdict::Ignore);
        }
        assert!(filled(lbr).is_empty());
    });
}

#[test]
fn t27_architectural_lbr_never_records_a_zero_length_call() {
    both("alder-lake-p", Options::default(), |lbr| {
        start_arch(lbr);
        let verdict = near(lbr, BranchClass::NearRelCallZero, 0x1000, 0x1005);
        assert_eq!(verdict, Verdict::Ignore);
        // An indirect call to the next instruction is an ordinary one.
        assert_eq!(
            near(lbr, BranchClass::NearIndCall, 0x1000, 0x1002),
            Verdict::Push
        );
    });
}

#[test]
fn t28_lbr_inserts_counts_removals_on_skylake() {
    for (name, expected) in [
        ("skylake", Some(2)),
        ("haswell", Some(1)),
        ("goldmont", None),
    ] {
        both(name, Options::default(), |lbr| {
            start(lbr, 0x3c5);
            near(lbr, BranchClass::NearRelCall, 0xa0, 0xa00);
            near(lbr, BranchClass::NearRet, 0xa50, 0xa5);
            assert_eq!(lbr.lbr_inserts(), expected, "{name}");
            // A return on the empty stack removes nothing.
            near(lbr, BranchClass::NearRet, 0xa50, 0xa5);
            assert_eq!(lbr.lbr_inserts(), expected, "{name}");
        });
    }
    assert_eq!(
        Profile::named("skl").map(Profile::lbr_inserts),
        Ok(InsertsEvent::PushesAndPops)
    );
}
