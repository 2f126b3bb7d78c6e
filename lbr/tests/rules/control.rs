//! Freezing, `#DB`, SMM, resets, C-states, Intel PT, LER.

use vlbr_arch::{BranchClass, CodeSize, Cpl, Cycles, DebugCtl, FarKind, LbrCtl, Msr, Transfer};
use vlbr_lbr::{Device, FreezeFlavour, Options, Pmi, Reset, Verdict};

use crate::support::{both, each, filled, into_kernel, jump, near, read, start_any, write};

const FREEZE: u64 = DebugCtl::FREEZE_LBRS_ON_PMI.bits();

fn start_frozen_by_pmi(lbr: &mut dyn Device) {
    start_any(lbr);
    write(lbr, Msr::DEBUGCTL, 1 | FREEZE);
}

#[test]
fn without_the_enable_a_pmi_does_not_freeze() {
    each(&["haswell", "skylake", "alder-lake-p"], |lbr| {
        start_any(lbr);
        lbr.freeze_on_pmi(Pmi::Counter);
        assert!(lbr.recording() && !lbr.lbr_frz());
    });
}

#[test]
fn before_perfmon_4_a_pmi_clears_the_enable() {
    each(
        &[
            "core2",
            "haswell",
            "bonnell",
            "silvermont",
            "knights-landing",
        ],
        |lbr| {
            start_frozen_by_pmi(lbr);
            lbr.freeze_on_pmi(Pmi::Counter);
            assert_eq!(read(lbr, Msr::DEBUGCTL), FREEZE);
            assert!(!lbr.recording() && !lbr.lbr_frz());
            assert_eq!(near(lbr, BranchClass::Jcc, 1, 2), Verdict::Ignore);
            write(lbr, Msr::DEBUGCTL, 1 | FREEZE);
            assert!(lbr.recording());
            lbr.set_lbr_frz(true);
            assert!(!lbr.lbr_frz(), "the bit does not exist");
        },
    );
}

#[test]
fn from_perfmon_4_a_pmi_sets_lbr_frz() {
    each(&["skylake", "goldmont", "tremont", "alder-lake-p"], |lbr| {
        start_frozen_by_pmi(lbr);
        let debugctl = read(lbr, Msr::DEBUGCTL);
        lbr.freeze_on_pmi(Pmi::Counter);
        assert_eq!(read(lbr, Msr::DEBUGCTL), debugctl);
        assert!(lbr.lbr_frz() && !lbr.recording());
        assert_eq!(near(lbr, BranchClass::Jcc, 1, 2), Verdict::Ignore);
        lbr.unfreeze();
        assert_eq!(near(lbr, BranchClass::Jcc, 1, 2), Verdict::Push);
    });
}

#[test]
fn goldmont_may_freeze_the_legacy_way() {
    let options = Options {
        freeze: Some(FreezeFlavour::Legacy),
        ..Options::default()
    };
    both("goldmont", options, |lbr| {
        start_frozen_by_pmi(lbr);
        lbr.freeze_on_pmi(Pmi::Counter);
        assert_eq!(read(lbr, Msr::DEBUGCTL), FREEZE);
        assert!(!lbr.lbr_frz());
    });
}

#[test]
fn bonnell_clears_tr_when_freezing_is_enabled() {
    let tr = DebugCtl::TR.bits();
    each(&["bonnell", "saltwell"], |lbr| {
        write(lbr, Msr::DEBUGCTL, tr | FREEZE);
        assert_eq!(read(lbr, Msr::DEBUGCTL), FREEZE);
    });
    each(&["silvermont", "core2"], |lbr| {
        write(lbr, Msr::DEBUGCTL, tr | FREEZE);
        assert_eq!(read(lbr, Msr::DEBUGCTL), tr | FREEZE);
    });
}

#[test]
fn branch_trace_messages_may_feed_the_stack() {
    let jcc = Transfer::near(BranchClass::Jcc, 1, 2, Cpl::Ring3);
    for (tr_records, verdict) in [(false, Verdict::Ignore), (true, Verdict::Push)] {
        both(
            "skylake",
            Options {
                tr_records,
                ..Options::default()
            },
            |lbr| {
                write(lbr, Msr::DEBUGCTL, DebugCtl::TR.bits());
                assert_eq!(lbr.verdict(&jcc), verdict);
            },
        );
    }
}

#[test]
fn disabling_keeps_the_contents() {
    each(&["haswell", "alder-lake-p"], |lbr| {
        start_any(lbr);
        jump(lbr, 0x1000, 0x2000);
        let before = lbr.records();
        write(lbr, Msr::DEBUGCTL, 0);
        if lbr.profile().is_arch() {
            write(lbr, Msr::LBR_CTL, 0);
        } else {
            write(lbr, Msr::LBR_SELECT, 0x1ff);
        }
        assert!(!lbr.recording());
        assert_eq!(lbr.records(), before);
    });
}

#[test]
fn an_injected_debug_exception_is_an_ordinary_exception() {
    each(&["skylake", "alder-lake-p"], |lbr| {
        start_any(lbr);
        let injected = into_kernel(FarKind::Exception, 0x1000);
        assert_eq!(lbr.retire(&injected, Cycles::new(0)), Verdict::Push);
        assert!(lbr.recording());
    });
}

#[test]
fn freeze_while_smm_stops_the_legacy_stack_until_rsm() {
    let set = DebugCtl::LBR | DebugCtl::BTF | DebugCtl::TR | DebugCtl::BTS | DebugCtl::BTINT;
    let all = set | DebugCtl::FREEZE_WHILE_SMM;
    each(&["skylake"], |lbr| {
        write(lbr, Msr::DEBUGCTL, all.bits());
        assert_eq!(
            near(lbr, BranchClass::Far(FarKind::Smi), 0x1000, 0x8000),
            Verdict::Ignore
        );
        let inside = DebugCtl::BTINT | DebugCtl::FREEZE_WHILE_SMM;
        assert_eq!(read(lbr, Msr::DEBUGCTL), inside.bits());
        assert_eq!(near(lbr, BranchClass::Jcc, 0x8000, 0x8010), Verdict::Ignore);
        assert_eq!(
            near(lbr, BranchClass::Far(FarKind::Rsm), 0x8020, 0x1000),
            Verdict::Push
        );
        assert_eq!(read(lbr, Msr::DEBUGCTL), all.bits());
        assert_eq!(filled(lbr)[0].from, 0x8020);
    });
}

#[test]
fn without_freeze_while_smm_the_legacy_stack_runs_in_smm() {
    each(&["skylake", "core2"], |lbr| {
        start_any(lbr);
        near(lbr, BranchClass::Far(FarKind::Smi), 0x1000, 0x8000);
        assert_eq!(near(lbr, BranchClass::Jcc, 0x8000, 0x8010), Verdict::Push);
    });
}

#[test]
fn smi_and_rsm_records_of_legacy_parts_are_options() {
    let options = Options {
        legacy_smi_recorded: true,
        legacy_rsm_recorded: false,
        legacy_init_recorded: true,
        ..Options::default()
    };
    both("skylake", options, |lbr| {
        start_any(lbr);
        assert_eq!(
            near(lbr, BranchClass::Far(FarKind::Smi), 0x1000, 0x8000),
            Verdict::Push
        );
        assert_eq!(
            near(lbr, BranchClass::Far(FarKind::Rsm), 0x8020, 0x1000),
            Verdict::Ignore
        );
        assert_eq!(
            near(lbr, BranchClass::Far(FarKind::Sipi), 0x8020, 0x1000),
            Verdict::Push
        );
    });
    each(&["skylake"], |lbr| {
        start_any(lbr);
        assert_eq!(
            near(lbr, BranchClass::Far(FarKind::Init), 0x8020, 0x1000),
            Verdict::Ignore
        );
    });
}

#[test]
fn smi_clears_lbr_en_and_rsm_restores_it_and_is_recorded() {
    each(&["alder-lake-p", "alder-lake-e"], |lbr| {
        start_any(lbr);
        assert_eq!(
            near(lbr, BranchClass::Far(FarKind::Smi), 0x1000, 0x8000),
            Verdict::Ignore
        );
        assert_eq!(read(lbr, Msr::LBR_CTL), 0x7f_0006);
        assert_eq!(near(lbr, BranchClass::Jcc, 0x8000, 0x8010), Verdict::Ignore);
        assert_eq!(
            near(lbr, BranchClass::Far(FarKind::Rsm), 0x8020, 0x1000),
            Verdict::Push
        );
        assert_eq!(read(lbr, Msr::LBR_CTL), 0x7f_0007);
        assert_eq!(
            near(lbr, BranchClass::Far(FarKind::Init), 0x1000, 0xfff0),
            Verdict::Push
        );
        assert_eq!(
            near(lbr, BranchClass::Far(FarKind::Sipi), 0x1000, 0xfff0),
            Verdict::Push
        );
    });
}

/// Two records, a LER pair and everything set that a reset may change.
fn busy(lbr: &mut dyn Device) {
    start_any(lbr);
    jump(lbr, 0x1000, 0x2000);
    lbr.retire(&into_kernel(FarKind::Interrupt, 0x2000), Cycles::new(7));
    if lbr.profile().is_arch() {
        write(lbr, Msr::LBR_CTL, 0x7f_0003);
    } else if lbr.rdmsr(Msr::LBR_SELECT).is_ok() {
        write(lbr, Msr::LBR_SELECT, 0x1);
    }
    lbr.set_lbr_frz(true);
}

#[test]
fn a_cold_reset_clears_everything() {
    let profiles: Vec<&str> = vlbr_lbr::Profile::all().iter().map(|p| p.name()).collect();
    each(&profiles, |lbr| {
        busy(lbr);
        lbr.reset(Reset::Cold);
        for msr in lbr.msrs() {
            let expected = if msr == Msr::LBR_DEPTH { 32 } else { 0 };
            assert_eq!(read(lbr, msr), expected, "{msr}");
        }
        assert!(!lbr.lbr_frz());
    });
}

#[test]
fn the_stack_survives_a_warm_reset_from_nehalem_on() {
    each(&["nehalem", "skylake", "bonnell", "goldmont"], |lbr| {
        busy(lbr);
        let before = (lbr.records(), lbr.tos(), read(lbr, Msr::LER_FROM));
        lbr.reset(Reset::Warm);
        assert_eq!((lbr.records(), lbr.tos(), read(lbr, Msr::LER_FROM)), before);
        assert_eq!(read(lbr, Msr::DEBUGCTL), 0);
        assert_eq!(
            lbr.rdmsr(Msr::LBR_SELECT).unwrap_or(0),
            0,
            "everything is captured again"
        );
        assert!(!lbr.lbr_frz());
    });
    each(&["core2"], |lbr| {
        busy(lbr);
        lbr.reset(Reset::Warm);
        assert!(filled(lbr).is_empty());
    });
}

#[test]
fn a_warm_reset_clears_only_lbr_en_of_architectural_lbr() {
    each(&["sapphire-rapids"], |lbr| {
        busy(lbr);
        let before = lbr.records();
        lbr.reset(Reset::Warm);
        assert_eq!(read(lbr, Msr::LBR_CTL), 0x7f_0002);
        assert_eq!(lbr.records(), before);
    });
    each(&["sapphire-rapids"], |lbr| {
        busy(lbr);
        write(lbr, Msr::LBR_DEPTH, 8);
        write(lbr, Msr::LBR_0_FROM_IP, 0x1000);
        lbr.reset(Reset::WarmInC6);
        assert_eq!(
            (read(lbr, Msr::LBR_CTL), read(lbr, Msr::LBR_DEPTH)),
            (0, 32)
        );
        assert!(filled(lbr).is_empty());
    });
}

#[test]
fn init_keeps_everything_unless_asked() {
    each(&["skylake", "sapphire-rapids"], |lbr| {
        busy(lbr);
        let before: Vec<u64> = lbr.msrs().iter().map(|msr| read(lbr, *msr)).collect();
        lbr.reset(Reset::Init);
        let after: Vec<u64> = lbr.msrs().iter().map(|msr| read(lbr, *msr)).collect();
        assert_eq!(after, before);
    });
    let options = Options {
        init_clears_control: true,
        ..Options::default()
    };
    for profile in ["skylake", "sapphire-rapids"] {
        both(profile, options.clone(), |lbr| {
            busy(lbr);
            lbr.reset(Reset::Init);
            assert_eq!(read(lbr, Msr::DEBUGCTL), 0);
            assert_eq!(lbr.rdmsr(Msr::LBR_CTL).unwrap_or(0), 0);
            assert_eq!(filled(lbr).len(), 2);
        });
    }
}

#[test]
fn a_deep_c_state_clears_the_stack_and_keeps_the_enable() {
    each(&["skylake", "goldmont"], |lbr| {
        start_any(lbr);
        jump(lbr, 0x1000, 0x2000);
        lbr.retire(&into_kernel(FarKind::Interrupt, 0x2000), Cycles::new(7));
        lbr.deep_c_state();
        assert!(filled(lbr).is_empty());
        assert_eq!((lbr.tos(), read(lbr, Msr::LER_FROM)), (0, 0));
        assert_eq!(read(lbr, Msr::DEBUGCTL), 1);
        lbr.retire(
            &Transfer::near(BranchClass::Jcc, 1, 2, Cpl::Ring3),
            Cycles::new(500),
        );
        assert_eq!(
            lbr.records()[0].cycles,
            Some(0),
            "the first record counts 0"
        );
    });
    each(&["alder-lake-p"], |lbr| {
        busy(lbr);
        write(lbr, Msr::LBR_DEPTH, 16);
        jump_and_sleep(lbr);
        assert!(filled(lbr).is_empty());
        assert_eq!(
            (read(lbr, Msr::LBR_CTL), read(lbr, Msr::LBR_DEPTH)),
            (0x7f_0003, 16)
        );
    });
    let keeps = Options {
        deep_c_state_reset: Some(false),
        ..Options::default()
    };
    both("skylake", keeps, |lbr| {
        start_any(lbr);
        jump_and_sleep(lbr);
        assert_eq!(filled(lbr).len(), 1);
    });
}

fn jump_and_sleep(lbr: &mut dyn Device) {
    lbr.unfreeze();
    lbr.retire(
        &Transfer::near(BranchClass::Jcc, 1, 2, Cpl::Ring0),
        Cycles::new(500),
    );
    assert!(!filled(lbr).is_empty());
    lbr.deep_c_state();
}

#[test]
fn intel_pt_locks_out_the_lbr_of_broadwell_and_skylake() {
    each(&["broadwell", "skylake"], |lbr| {
        start_any(lbr);
        jump(lbr, 0x1000, 0x2000);
        lbr.set_trace_en(true);
        assert!(!lbr.recording());
        assert_eq!(near(lbr, BranchClass::Jcc, 1, 2), Verdict::Ignore);
        assert_eq!(read(lbr, Msr::DEBUGCTL), 1);
        for msr in lbr.msrs().into_iter().filter(|msr| *msr != Msr::DEBUGCTL) {
            assert_eq!(read(lbr, msr), 0, "{msr}");
        }
        write(lbr, Msr::LBR_SELECT, 0x1c4);
        lbr.set_trace_en(false);
        assert_eq!(read(lbr, Msr::LBR_SELECT), 0, "the write was dropped");
        assert!(filled(lbr).is_empty(), "the array is reset");
        assert!(lbr.recording());
    });
    each(
        &["kaby-lake", "skylake-server", "goldmont", "haswell"],
        |lbr| {
            start_any(lbr);
            lbr.set_trace_en(true);
            assert_eq!(near(lbr, BranchClass::Jcc, 1, 2), Verdict::Push);
        },
    );
}

#[test]
fn ler_holds_the_last_branch_before_the_event() {
    each(
        &[
            "core2",
            "nehalem",
            "skylake",
            "goldmont-plus",
            "alder-lake-p",
        ],
        |lbr| {
            start_any(lbr);
            for (n, kind) in (1..).zip([
                FarKind::Exception,
                FarKind::Interrupt,
                FarKind::SoftwareInterrupt,
            ]) {
                jump(lbr, 0x1000 * n, 0x1100 * n);
                lbr.retire(&into_kernel(kind, 0x1100 * n), Cycles::new(0));
                assert_eq!(read(lbr, Msr::LER_FROM), 0x1000 * n, "{kind:?}");
                assert_eq!(read(lbr, Msr::LER_TO), 0x1100 * n, "{kind:?}");
            }
            // SYSCALL is no such event, and a PMI-frozen stack updates nothing.
            jump(lbr, 0x7000, 0x7100);
            lbr.retire(&into_kernel(FarKind::Syscall, 0x7100), Cycles::new(0));
            assert_eq!(read(lbr, Msr::LER_FROM), 0x3000);
            write(lbr, Msr::DEBUGCTL, 0);
            if lbr.profile().is_arch() {
                write(lbr, Msr::LBR_CTL, 0);
            }
            lbr.retire(&into_kernel(FarKind::Interrupt, 0x7100), Cycles::new(0));
            assert_eq!(read(lbr, Msr::LER_FROM), 0x3000);
        },
    );
    let options = Options {
        ler_software_interrupts: false,
        ..Options::default()
    };
    both("skylake", options, |lbr| {
        start_any(lbr);
        jump(lbr, 0x1000, 0x1100);
        lbr.retire(
            &into_kernel(FarKind::SoftwareInterrupt, 0x1100),
            Cycles::new(0),
        );
        assert_eq!(read(lbr, Msr::LER_FROM), 0);
    });
}

#[test]
fn ler_of_compatibility_mode_has_a_clear_upper_half() {
    each(&["skylake"], |lbr| {
        start_any(lbr);
        jump(lbr, 0xffff_8000_0000_1000, 0x4000);
        let mut event = into_kernel(FarKind::Interrupt, 0x4000);
        event.from_size = CodeSize::Bits32;
        lbr.retire(&event, Cycles::new(0));
        assert_eq!(read(lbr, Msr::LER_FROM), 0x1000);
    });
}

#[test]
fn ler_info_has_the_type_and_flags_without_cycles() {
    each(&["sapphire-rapids"], |lbr| {
        start_any(lbr);
        jump(lbr, 0x1000, 0x2000);
        let call = Transfer {
            mispredicted: true,
            ..Transfer::near(BranchClass::NearIndCall, 0x2000, 0x3000, Cpl::Ring3)
        };
        lbr.retire(&call, Cycles::new(50));
        lbr.retire(&into_kernel(FarKind::Exception, 0x3000), Cycles::new(60));
        assert_eq!(read(lbr, Msr::LER_INFO), 1 << 63 | 3 << 56);
    });
}

#[test]
fn debugctl_lbr_has_no_effect_with_architectural_lbr() {
    each(&["alder-lake-p"], |lbr| {
        write(lbr, Msr::DEBUGCTL, 1);
        assert_eq!(read(lbr, Msr::DEBUGCTL), 0);
        assert!(!lbr.recording());
        write(lbr, Msr::LBR_CTL, LbrCtl::LBR_EN.bits());
        assert!(lbr.recording());
    });
}
