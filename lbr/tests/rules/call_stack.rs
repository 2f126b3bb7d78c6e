//! Call-stack mode.

use vlbr_arch::{BranchClass, Cpl, Cycles, FarKind, Msr, Transfer};
use vlbr_lbr::{Device, Options, Verdict};

use crate::support::{both, each, filled, into_kernel, near, read, start, write};

fn enter(lbr: &mut dyn Device) {
    if lbr.profile().is_arch() {
        write(lbr, Msr::LBR_CTL, 0x38_000d);
    } else {
        start(lbr, 0x3c5);
    }
}

fn call(lbr: &mut dyn Device, n: u64) {
    assert_eq!(
        near(lbr, BranchClass::NearRelCall, 0x1000 + n, 0x2000 + n),
        Verdict::Push
    );
}

fn ret(lbr: &mut dyn Device) {
    assert_eq!(
        near(lbr, BranchClass::NearRet, 0x2500, 0x1500),
        Verdict::Pop
    );
}

fn froms(lbr: &dyn Device) -> Vec<u64> {
    filled(lbr).iter().map(|record| record.from).collect()
}

const PARTS: [&str; 5] = ["haswell", "skylake", "goldmont", "tremont", "alder-lake-p"];

#[test]
fn calls_push_and_returns_pop() {
    each(&PARTS, |lbr| {
        enter(lbr);
        for n in 0..4 {
            call(lbr, n);
        }
        ret(lbr);
        assert_eq!(
            near(lbr, BranchClass::NearIndCall, 0x1010, 0x1012),
            Verdict::Push
        );
        assert_eq!(froms(lbr), [0x1010, 0x1002, 0x1001, 0x1000]);
    });
}

#[test]
fn everything_else_is_ignored() {
    each(&PARTS, |lbr| {
        enter(lbr);
        call(lbr, 0);
        for class in [
            BranchClass::Jcc,
            BranchClass::NearRelJmp,
            BranchClass::NearIndJmp,
            BranchClass::NearRelCallZero,
            BranchClass::Far(FarKind::Call),
            BranchClass::Far(FarKind::Ret),
            BranchClass::Far(FarKind::Interrupt),
        ] {
            assert_eq!(
                near(lbr, class, 0x3000, 0x4000),
                Verdict::Ignore,
                "{class:?}"
            );
        }
        lbr.retire(&into_kernel(FarKind::Syscall, 0x3000), Cycles::new(0));
        assert_eq!(froms(lbr), [0x1000]);
    });
}

#[test]
fn a_filtered_privilege_neither_pushes_nor_pops() {
    each(&PARTS, |lbr| {
        enter(lbr);
        call(lbr, 0);
        for class in [BranchClass::NearRelCall, BranchClass::NearRet] {
            let kernel = Transfer::near(class, 0x3000, 0x4000, Cpl::Ring0);
            assert_eq!(lbr.retire(&kernel, Cycles::new(0)), Verdict::Ignore);
        }
        assert_eq!(froms(lbr), [0x1000]);
    });
}

#[test]
fn overflow_loses_the_oldest_frames_for_good() {
    each(&PARTS, |lbr| {
        enter(lbr);
        let depth = lbr.depth() as u64;
        for n in 0..depth + 3 {
            call(lbr, n);
        }
        assert_eq!(filled(lbr).len() as u64, depth);
        for _ in 0..depth {
            ret(lbr);
        }
        assert!(filled(lbr).is_empty());
        ret(lbr);
        assert!(filled(lbr).is_empty());
    });
}

#[test]
fn a_return_on_the_empty_stack_still_moves_tos() {
    each(&["haswell"], |lbr| {
        enter(lbr);
        ret(lbr);
        assert_eq!(read(lbr, Msr::LASTBRANCH_TOS), 15);
    });
    let options = Options {
        callstack_saturate: true,
        ..Options::default()
    };
    both("haswell", options, |lbr| {
        enter(lbr);
        ret(lbr);
        assert_eq!(read(lbr, Msr::LASTBRANCH_TOS), 0);
    });
}

#[test]
fn popped_slots_may_keep_their_contents() {
    let options = Options {
        pops_clear_slots: false,
        ..Options::default()
    };
    both("skylake", options, |lbr| {
        enter(lbr);
        call(lbr, 0);
        ret(lbr);
        assert_eq!(read(lbr, Msr::LASTBRANCH_TOS), 0);
        assert_eq!(read(lbr, Msr::LASTBRANCH_0_FROM_IP.plus(1)), 0x1000);
    });
}

#[test]
fn an_architectural_return_moves_the_entries_up() {
    each(&["sapphire-rapids"], |lbr| {
        enter(lbr);
        for n in 0..40 {
            call(lbr, n);
        }
        ret(lbr);
        assert_eq!(read(lbr, Msr::LBR_0_FROM_IP), 0x1000 + 38);
        assert_eq!(read(lbr, Msr::LBR_0_FROM_IP.plus(30)), 0x1000 + 8);
        assert_eq!(lbr.records()[31].raw, [0; 3]);
    });
}

#[test]
fn parts_without_it_refuse_the_mode() {
    each(
        &["nehalem", "sandy-bridge", "silvermont", "knights-landing"],
        |lbr| {
            assert!(lbr.wrmsr(Msr::LBR_SELECT, 0x3c4).is_err());
        },
    );
}
