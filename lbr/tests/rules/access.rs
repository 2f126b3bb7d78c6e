//! RDMSR, WRMSR, XSAVES, CPUID.

use vlbr_arch::{BranchClass, CpuidResult, DebugCtl, LbrCtl, Msr, XSTATE_LBR_SIZE};
use vlbr_lbr::{Access, GpFault, GpReason, Options, Profile, ReservedWrite, Verdict};

use crate::support::{both, each, jump, near, read, refusal, start, start_any, write};

#[test]
fn only_the_registers_of_the_part_exist() {
    for (profile, present, absent) in [
        (
            "core2",
            [0x40, 0x43, 0x63, 0x1c9],
            [0x44, 0x64, 0x1c8, 0x680],
        ),
        (
            "bonnell",
            [0x40, 0x47, 0x67, 0x1c9],
            [0x48, 0x68, 0x1c8, 0x680],
        ),
        (
            "nehalem",
            [0x680, 0x68f, 0x6cf, 0x1c8],
            [0x690, 0x6d0, 0xdc0, 0x40],
        ),
        (
            "skylake",
            [0x69f, 0x6df, 0xddf, 0x1dd],
            [0x6a0, 0xde0, 0x1e0, 0x14ce],
        ),
        (
            "goldmont",
            [0x69f, 0x6df, 0x1c8, 0x1de],
            [0xdc0, 0x14cf, 0x1200, 0x40],
        ),
        (
            "knights-landing",
            [0x687, 0x6c7, 0x1c8, 0x1c9],
            [0x688, 0x6c8, 0xdc0, 0x60],
        ),
        (
            "alder-lake-p",
            [0x14ce, 0x14cf, 0x121f, 0x1e0],
            [0x1c8, 0x1c9, 0x680, 0xdc0],
        ),
    ] {
        each(&[profile], |lbr| {
            for address in present {
                assert!(
                    lbr.rdmsr(Msr::new(address)).is_ok(),
                    "{profile} {address:#x}"
                );
            }
            for address in absent {
                let msr = Msr::new(address);
                let reason = GpReason::NoSuchMsr;
                let fault = GpFault {
                    access: Access::Rdmsr(msr),
                    reason,
                };
                assert_eq!(lbr.rdmsr(msr), Err(fault), "{profile}");
                assert_eq!(refusal(lbr, msr, 0), GpReason::NoSuchMsr, "{profile}");
            }
        });
    }
}

#[test]
fn select_faults_on_reserved_bits() {
    each(&["nehalem", "sandy-bridge", "knights-landing"], |lbr| {
        write(lbr, Msr::LBR_SELECT, 0x1ff);
        assert_eq!(
            refusal(lbr, Msr::LBR_SELECT, 0x200),
            GpReason::Reserved(0x200)
        );
    });
    each(&["haswell", "goldmont"], |lbr| {
        write(lbr, Msr::LBR_SELECT, 0x3ff);
        assert_eq!(
            refusal(lbr, Msr::LBR_SELECT, 0x7ff),
            GpReason::Reserved(0x400)
        );
    });
}

#[test]
fn tos_faults_above_its_width() {
    for (profile, last) in [
        ("core2", 3),
        ("bonnell", 7),
        ("haswell", 15),
        ("skylake", 31),
    ] {
        each(&[profile], |lbr| {
            write(lbr, Msr::LASTBRANCH_TOS, last);
            assert_eq!(read(lbr, Msr::LASTBRANCH_TOS), last);
            let reason = GpReason::Reserved(last + 1);
            assert_eq!(refusal(lbr, Msr::LASTBRANCH_TOS, last + 1), reason);
        });
    }
    both(
        "skylake",
        Options {
            tos_write_masks: true,
            ..Options::default()
        },
        |lbr| {
            write(lbr, Msr::LASTBRANCH_TOS, 33);
            assert_eq!(read(lbr, Msr::LASTBRANCH_TOS), 1);
        },
    );
}

#[test]
fn debugctl_faults_on_reserved_and_on_unsupported_bits() {
    for (profile, supported) in [
        ("core2", 0x1fc3),
        ("bonnell", 0x1fc3),
        ("nehalem", 0x7fc3),
        ("haswell", 0xffc3),
        ("ice-lake", 0x7fc3),
        ("silvermont", 0x5fc3),
    ] {
        each(&[profile], |lbr| {
            write(lbr, Msr::DEBUGCTL, supported);
            for (bit, _) in DebugCtl::NAMED {
                if supported & bit.bits() == 0 {
                    let reason = GpReason::UnsupportedDebugCtl(*bit);
                    assert_eq!(refusal(lbr, Msr::DEBUGCTL, bit.bits()), reason, "{profile}");
                }
            }
            for n in (3..6).chain(16..64) {
                let reason = GpReason::Reserved(1 << n);
                assert_eq!(refusal(lbr, Msr::DEBUGCTL, 1 << n | 1), reason, "{profile}");
            }
        });
    }
    both(
        "haswell",
        Options {
            tsx: Some(false),
            ..Options::default()
        },
        |lbr| {
            let reason = GpReason::UnsupportedDebugCtl(DebugCtl::RTM_DEBUG);
            assert_eq!(refusal(lbr, Msr::DEBUGCTL, 0x8000), reason);
        },
    );
}

#[test]
fn addresses_are_checked_as_the_format_says() {
    let from = Msr::LASTBRANCH_0_FROM_IP;
    let to = Msr::LASTBRANCH_0_TO_IP;
    let odd = 0x0000_8000_0000_0000;
    each(&["skylake", "tremont"], |lbr| {
        for msr in [from, to, Msr::LER_FROM, Msr::LER_TO] {
            assert_eq!(refusal(lbr, msr, odd), GpReason::NonCanonical(48));
            assert_eq!(refusal(lbr, msr, 1 << 63), GpReason::NonCanonical(48));
            write(lbr, msr, 0xffff_8000_0000_0000);
        }
    });
    each(&["nehalem", "knights-landing"], |lbr| {
        assert_eq!(
            refusal(lbr, from, odd),
            GpReason::SignExtension { high: 62 }
        );
        assert_eq!(
            refusal(lbr, from, 1 << 62),
            GpReason::SignExtension { high: 62 }
        );
        write(lbr, from, 1 << 63 | 0x1000);
        assert_eq!(
            refusal(lbr, to, 1 << 63 | 0x1000),
            GpReason::NonCanonical(48)
        );
    });
    each(&["haswell"], |lbr| {
        write(lbr, from, 7 << 61 | 0x1000);
        assert_eq!(
            refusal(lbr, from, 1 << 60),
            GpReason::SignExtension { high: 60 }
        );
    });
    each(&["goldmont"], |lbr| {
        write(lbr, to, u64::MAX >> 3);
        assert_eq!(
            refusal(lbr, from, 1 << 62),
            GpReason::SignExtension { high: 62 }
        );
    });
    each(&["ice-lake-server"], |lbr| {
        write(lbr, from, odd);
        assert_eq!(refusal(lbr, from, 1 << 56), GpReason::NonCanonical(57));
    });
}

#[test]
fn reserved_bits_of_info_follow_the_option() {
    let value = 1 << 63 | 0xabcd << 16 | 5;
    let reserved = 0xabcd << 16;
    each(&["skylake"], |lbr| {
        assert_eq!(
            refusal(lbr, Msr::LBR_INFO_0, value),
            GpReason::Reserved(reserved)
        );
        write(lbr, Msr::LBR_INFO_0, 7 << 61 | 0xffff);
    });
    each(&["tremont"], |lbr| {
        assert_eq!(
            refusal(lbr, Msr::LBR_INFO_0, 1 << 62),
            GpReason::Reserved(1 << 62)
        );
    });
    each(&["alder-lake-p"], |lbr| {
        write(lbr, Msr::LBR_0_INFO, value);
        assert_eq!(read(lbr, Msr::LBR_0_INFO), value);
    });
    let options = Options {
        arch_info_reserved: ReservedWrite::Drop,
        ..Options::default()
    };
    both("alder-lake-p", options, |lbr| {
        write(lbr, Msr::LBR_0_INFO, value);
        assert_eq!(read(lbr, Msr::LBR_0_INFO), value & !reserved);
    });
}

#[test]
fn ctl_faults_on_reserved_bits_and_absent_capabilities() {
    each(&["alder-lake-p"], |lbr| {
        write(lbr, Msr::LBR_CTL, 0x7f_000f);
        for n in (4..16).chain(23..64) {
            assert_eq!(
                refusal(lbr, Msr::LBR_CTL, 1 << n),
                GpReason::Reserved(1 << n)
            );
        }
    });
    let text = "
        name = 'bare'
        title = 'no capability'
        models = ['06_97']
        linear_address_bits = 48
        perfmon_version = 5
        tsx = false
        debugctl = ['LBR']
        lbr_inserts = 'none'
        [arch]
        cpuid_1c_eax = 0x08
        cpuid_1c_ebx = 0
        cpuid_1c_ecx = 0
    ";
    let bare = Profile::from_toml(text).expect("consistent");
    let mut lbr = vlbr_lbr::Lbr::new(&bare, Options::default());
    for bit in [LbrCtl::OS, LbrCtl::USR, LbrCtl::CALL_STACK, LbrCtl::JCC] {
        assert_eq!(
            refusal(&mut lbr, Msr::LBR_CTL, bit.bits()),
            GpReason::UnsupportedLbrCtl(bit)
        );
    }
    // Without filters the enable alone records.
    write(&mut lbr, Msr::LBR_CTL, 1);
    assert_eq!(near(&mut lbr, BranchClass::Jcc, 1, 2), Verdict::Push);
}

#[test]
fn depth_takes_what_cpuid_enumerates() {
    each(&["sapphire-rapids"], |lbr| {
        assert_eq!(read(lbr, Msr::LBR_DEPTH), 32);
        for depth in [8, 16, 32] {
            write(lbr, Msr::LBR_DEPTH, depth);
            assert_eq!(
                (read(lbr, Msr::LBR_DEPTH), lbr.depth() as u64),
                (depth, depth)
            );
        }
        for depth in [0, 1, 24, 64, 1 << 32 | 8] {
            let reason = GpReason::UnsupportedDepth(depth);
            assert_eq!(refusal(lbr, Msr::LBR_DEPTH, depth), reason);
        }
    });
}

#[test]
fn xsaves_and_xrstors_carry_the_whole_state() {
    each(&["lunar-lake-e"], |lbr| {
        start_any(lbr);
        for n in 0..40 {
            jump(lbr, 0x1000 + n, 0x2000 + n);
        }
        write(lbr, Msr::LER_TO, 0x1234);
        let mut image = [0xff; XSTATE_LBR_SIZE];
        lbr.xsaves(&mut image).expect("has component 15");
        let word = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().expect("8 bytes"));
        assert_eq!(
            (word(0x00), word(0x08), word(0x18)),
            (0x7f_0007, 32, 0x1234)
        );
        assert_eq!((word(0x28), word(0x30)), (0x1000 + 39, 0x2000 + 39));
        assert_eq!(word(0x28 + 24 * 31), 0x1000 + 8);
        let before = lbr.records();
        lbr.xrstors_init().expect("has component 15");
        assert_eq!(read(lbr, Msr::LBR_CTL), 0);
        assert!(lbr.records().iter().all(|record| record.raw == [0; 3]));
        assert_eq!(read(lbr, Msr::LBR_DEPTH), 32);
        lbr.xrstors(&image).expect("its own image");
        assert_eq!(lbr.records(), before);
        assert_eq!(
            (read(lbr, Msr::LBR_CTL), read(lbr, Msr::LER_TO)),
            (0x7f_0007, 0x1234)
        );
    });
}

#[test]
fn a_smaller_depth_leaves_the_rest_of_the_image_zero() {
    each(&["sapphire-rapids"], |lbr| {
        start_any(lbr);
        write(lbr, Msr::LBR_DEPTH, 8);
        for n in 0..40 {
            jump(lbr, 0x1000 + n, 0x2000 + n);
        }
        let mut image = [0xff; XSTATE_LBR_SIZE];
        lbr.xsaves(&mut image).expect("has component 15");
        assert!(image[0x28..0x28 + 24 * 8].iter().any(|byte| *byte != 0));
        assert!(image[0x28 + 24 * 8..].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn xrstors_refuses_what_wrmsr_refuses_and_changes_nothing() {
    each(&["sapphire-rapids"], |lbr| {
        start_any(lbr);
        jump(lbr, 0x1000, 0x2000);
        let mut image = [0; XSTATE_LBR_SIZE];
        lbr.xsaves(&mut image).expect("has component 15");
        let before = lbr.records();
        let mut bad = image;
        bad[0] = 0xff;
        let reason = GpReason::Reserved(0xf0);
        let access = Access::Xrstors(Some((Msr::LBR_CTL, 0x7f_00ff)));
        assert_eq!(lbr.xrstors(&bad), Err(GpFault { access, reason }));
        let mut bad = image;
        bad[0x28 + 24 + 7] = 0x12;
        let value = 0x12 << 56;
        let access = Access::Xrstors(Some((Msr::LBR_0_FROM_IP.plus(1), value)));
        assert_eq!(
            lbr.xrstors(&bad),
            Err(GpFault {
                access,
                reason: GpReason::NonCanonical(57)
            })
        );
        assert_eq!(lbr.records(), before);
    });
    each(&["skylake"], |lbr| {
        let mut image = [7; XSTATE_LBR_SIZE];
        let reason = GpReason::NoArchLbr;
        assert_eq!(
            lbr.xsaves(&mut image),
            Err(GpFault {
                access: Access::Xsaves,
                reason
            })
        );
        assert_eq!(image, [7; XSTATE_LBR_SIZE]);
        assert!(lbr.xrstors(&image).is_err() && lbr.xrstors_init().is_err());
    });
}

#[test]
fn cpuid_enumerates_architectural_lbr() {
    for (profile, eax, ecx) in [
        ("alder-lake-p", 0x4000_000b, 7),
        ("alder-lake-e", 0xc000_000b, 7),
        ("sapphire-rapids", 0x4000_000b, 7),
        ("lunar-lake-p", 0x4000_000b, 0xf_0007),
    ] {
        each(&[profile], |lbr| {
            assert_eq!(
                lbr.cpuid_1c(),
                CpuidResult {
                    eax,
                    ebx: 7,
                    ecx,
                    edx: 0
                }
            );
            assert_eq!(
                lbr.cpuid_d_15(),
                CpuidResult {
                    eax: 0x328,
                    ebx: 0,
                    ecx: 1,
                    edx: 0
                }
            );
        });
    }
    each(&["skylake"], |lbr| {
        assert_eq!(lbr.cpuid_1c(), CpuidResult::default());
        assert_eq!(lbr.cpuid_d_15(), CpuidResult::default());
    });
}

#[test]
fn linux_filters_record_what_they_are_for() {
    use BranchClass as C;
    let classes = [
        C::Jcc,
        C::NearRelJmp,
        C::NearIndJmp,
        C::NearRelCall,
        C::NearIndCall,
        C::NearRet,
    ];
    for (select, expected) in [
        (0x001, &classes[..]),
        (0x0e5, &[C::NearRelCall, C::NearIndCall][..]),
        (0x0dd, &[C::NearRet][..]),
        (0x1ed, &[C::NearIndCall][..]),
        (0x1f9, &[C::Jcc][..]),
    ] {
        each(&["haswell"], |lbr| {
            start(lbr, select);
            let recorded: Vec<C> = classes
                .into_iter()
                .filter(|class| near(lbr, *class, 0x1000, 0x2000) == Verdict::Push)
                .collect();
            assert_eq!(recorded, expected, "{select:#x}");
        });
    }
}
