//! Which registers exist and what they accept. Architectural performance monitoring, versions 1 to
//! 5; hardware.md sections 6 and 13.4, functional.md section 6.

use vlbr_arch::{Cpl, Msr, PerfCapabilities};
use vlbr_pmu::{GpReason, Options, PmuError, Profile, ReservedWrite, Reset};

use crate::support::{Rig, both, each, every, named};
use crate::world::World;

#[test]
fn global_ctrl_resets_to_every_general_purpose_counter() {
    every(|rig| {
        let n = rig.pmu.profile().gp_counters();
        assert_eq!(rig.read(Msr::PERF_GLOBAL_CTRL), (1 << n) - 1);
        rig.write(Msr::PERF_GLOBAL_CTRL, 0);
        rig.pmu.reset(Reset::Init);
        assert_eq!(rig.read(Msr::PERF_GLOBAL_CTRL), 0, "INIT leaves it");
        rig.pmu.reset(Reset::Reset);
        assert_eq!(rig.read(Msr::PERF_GLOBAL_CTRL), (1 << n) - 1);
    });
}

#[test]
fn what_was_written_reads_back() {
    // KVM's pmu_event_filter_test flips bits of these before it starts.
    every(|rig| {
        for msr in [Msr::PERF_GLOBAL_CTRL, Msr::PERFEVTSEL0, Msr::PMC0] {
            let value = rig.read(msr) ^ 1;
            rig.write(msr, value);
            assert_eq!(rig.read(msr), value, "{msr}");
        }
        for n in 0..rig.pmu.profile().gp_counters() {
            rig.write(Msr::PMC0.plus(n), 0x1234_5678 + u64::from(n));
        }
        for n in 0..rig.pmu.profile().gp_counters() {
            assert_eq!(rig.read(Msr::PMC0.plus(n)), 0x1234_5678 + u64::from(n));
        }
    });
}

#[test]
fn every_write_to_perf_capabilities_faults() {
    every(|rig| {
        let value = rig.read(Msr::PERF_CAPABILITIES);
        for other in (0..64).map(|bit| value ^ 1 << bit).chain([0, value]) {
            assert_eq!(rig.fault(Msr::PERF_CAPABILITIES, other), GpReason::ReadOnly);
        }
        assert_eq!(rig.read(Msr::PERF_CAPABILITIES), value);
    });
}

#[test]
fn counters_beyond_those_of_cpuid_do_not_exist() {
    every(|rig| {
        let profile = rig.pmu.profile();
        let (gp, fixed) = (profile.gp_counters(), profile.fixed_mask());
        let wide = profile
            .perf_capabilities()
            .contains(PerfCapabilities::FW_WRITE);
        for n in 0..8 {
            let exists = [n < gp, n < gp, wide && n < gp];
            for (base, exists) in [Msr::PMC0, Msr::PERFEVTSEL0, Msr::A_PMC0]
                .iter()
                .zip(exists)
            {
                assert_eq!(
                    rig.pmu.rdmsr(base.plus(n), &rig.world).is_ok(),
                    exists,
                    "{base} {n}"
                );
            }
        }
        for i in 0..4 {
            let msr = Msr::FIXED_CTR0.plus(i);
            assert_eq!(
                rig.pmu.rdmsr(msr, &rig.world).is_ok(),
                fixed >> i & 1 != 0,
                "{msr}"
            );
            let enable = 1 << (32 + i);
            if fixed >> i & 1 == 0 {
                assert_eq!(
                    rig.fault(Msr::FIXED_CTR_CTRL, 3 << (4 * i)),
                    GpReason::Reserved(3 << (4 * i))
                );
                assert_eq!(
                    rig.fault(Msr::PERF_GLOBAL_CTRL, enable),
                    GpReason::Reserved(enable)
                );
                assert_eq!(rig.fault(msr, 0), GpReason::NoSuchMsr);
            } else {
                rig.write(Msr::PERF_GLOBAL_CTRL, enable);
            }
        }
    });
}

#[test]
fn registers_begin_with_their_perfmon_version() {
    let exists = |rig: &Rig<'_>, msr: Msr| rig.pmu.rdmsr(msr, &rig.world).is_ok();
    let version_1 = ARTIFICIAL.replace("0x00300402", "0x00300401");
    for (text, v2, v4) in [
        (version_1, false, false),
        (ARTIFICIAL.to_owned(), true, false),
        (ARTIFICIAL.replace("0x00300402", "0x00300403"), true, false),
        (ARTIFICIAL.replace("0x00300402", "0x00300404"), true, true),
        (ARTIFICIAL.replace("0x00300402", "0x00300405"), true, true),
    ] {
        let profile = Profile::from_toml(&text).expect("valid");
        both(&profile, &Options::default(), &World::default(), |rig| {
            for msr in [
                Msr::FIXED_CTR_CTRL,
                Msr::PERF_GLOBAL_STATUS,
                Msr::PERF_GLOBAL_CTRL,
                Msr::PERF_GLOBAL_OVF_CTRL,
            ] {
                assert_eq!(exists(rig, msr), v2, "{msr}");
            }
            for msr in [Msr::PERF_GLOBAL_STATUS_SET, Msr::PERF_GLOBAL_INUSE] {
                assert_eq!(exists(rig, msr), v4, "{msr}");
            }
            assert!(exists(rig, Msr::PMC0) && !exists(rig, Msr::PEBS_ENABLE));
        });
    }
}

/// A part of version 2 with 4 counters of 48 bits, no fixed ones, no PEBS, no full-width writes.
const ARTIFICIAL: &str = r#"
    name = "artificial"
    title = "Artificial"
    models = ["06_00"]
    linear_address_bits = 48
    tsx = false
    perf_capabilities = 0x1005
    events = "skylake"
    pin_control = false
    cpuid_0a = [{ eax = 0x00300402, ebx = 0, ecx = 0, edx = 0 }]
"#;

#[test]
fn writes_to_pmc_are_sign_extended_from_32_bits() {
    // T11 on a part of 48 bits.
    each(&["skylake", "nehalem"], |rig| {
        rig.write(Msr::PMC0, 0xffff_ff9c);
        assert_eq!(rig.pmc(0), 0xffff_ffff_ff9c);
        assert_eq!(rig.read(Msr::PMC0), 0xffff_ffff_ff9c);
        rig.write(Msr::PMC0, 0xff01_2345_6789);
        assert_eq!(rig.pmc(0), 0x2345_6789, "EDX is ignored");
    });
    each(&["core2"], |rig| {
        rig.write(Msr::PMC0, 0x8000_0000);
        assert_eq!(rig.pmc(0), 0xff_8000_0000, "40 bits");
    });
}

#[test]
fn full_width_writes_take_the_width_and_no_more() {
    // T12.
    each(&["skylake"], |rig| {
        rig.write(Msr::A_PMC0, 0xff01_2345_6789);
        assert_eq!(rig.pmc(0), 0xff01_2345_6789);
        assert_eq!(
            rig.read(Msr::PMC0),
            0xff01_2345_6789,
            "one counter, two names"
        );
        assert_eq!(rig.fault(Msr::A_PMC0, 1 << 48), GpReason::Width(48));
        assert_eq!(rig.pmc(0), 0xff01_2345_6789);
        rig.write(Msr::FIXED_CTR0, (1 << 48) - 1);
        assert_eq!(rig.fault(Msr::FIXED_CTR0, 1 << 48), GpReason::Width(48));
    });
}

#[test]
fn rdpmc_names_counters_by_kind_and_index() {
    every(|rig| {
        let profile = rig.pmu.profile().clone();
        let mut values = Vec::new();
        for n in 0..profile.gp_counters() {
            rig.write(Msr::PMC0.plus(n), u64::from(n) + 1);
            values.push((n, u64::from(n) + 1));
        }
        for i in (0..4).filter(|i| profile.fixed_mask() >> i & 1 != 0) {
            rig.write(Msr::FIXED_CTR0.plus(i), u64::from(i) + 100);
            values.push((0x4000_0000 + i, u64::from(i) + 100));
        }
        let metrics = rig.pmu.rdmsr(Msr::PERF_METRICS, &rig.world).is_ok();
        if metrics {
            rig.write(Msr::PERF_METRICS, 7);
            values.push((0x2000_0000, 7));
        }
        let mut candidates: Vec<u32> = values.iter().map(|(ecx, _)| *ecx).collect();
        candidates.extend([
            8,
            64,
            0xffff,
            0x1_0000,
            0x2000_0001,
            0x4000_0004,
            0x4000_0040,
        ]);
        candidates.extend([
            0x4001_0000,
            0x6000_0000,
            0x8000_0000,
            0x8000_0001,
            0xc000_0000,
            u32::MAX,
        ]);
        if !metrics {
            candidates.push(0x2000_0000);
        }
        for ecx in candidates {
            let expected = values.iter().find(|(known, _)| *known == ecx);
            let read = rig.pmu.rdpmc(ecx, Cpl::Ring0, false);
            match expected {
                Some((_, value)) => assert_eq!(read, Ok(*value), "{ecx:#x}"),
                None => assert_eq!(
                    read.expect_err("no counter").reason,
                    GpReason::NoSuchCounter,
                    "{ecx:#x}"
                ),
            }
        }
    });
}

#[test]
fn rdpmc_above_ring_0_takes_cr4_pce() {
    each(&["haswell"], |rig| {
        for cpl in [Cpl::Ring1, Cpl::Ring2, Cpl::Ring3] {
            let fault = rig.pmu.rdpmc(0, cpl, false).expect_err("no PCE");
            assert_eq!(fault.reason, GpReason::Privilege);
            let fault = rig.pmu.rdpmc(99, cpl, false).expect_err("no PCE");
            assert_eq!(fault.reason, GpReason::Privilege);
            assert_eq!(rig.pmu.rdpmc(0, cpl, true), Ok(0));
        }
        assert_eq!(rig.pmu.rdpmc(0, Cpl::Ring0, false), Ok(0));
    });
}

#[test]
fn any_thread_comes_with_version_3_and_goes_with_deprecation() {
    const ANY: u64 = 1 << 21;
    each(&["core2"], |rig| {
        assert_eq!(rig.fault(Msr::PERFEVTSEL0, ANY), GpReason::Reserved(ANY));
        assert_eq!(rig.fault(Msr::FIXED_CTR_CTRL, 4), GpReason::Reserved(4));
    });
    each(&["nehalem", "skylake"], |rig| {
        rig.write(Msr::PERFEVTSEL0, ANY);
        rig.write(Msr::FIXED_CTR_CTRL, 4);
    });
    for (how, left) in [
        (ReservedWrite::Keep, Some(ANY)),
        (ReservedWrite::Drop, Some(0)),
        (ReservedWrite::Fault, None),
    ] {
        let options = Options {
            any_thread_deprecated: how,
            ..Options::default()
        };
        both(
            named("ice-lake"),
            &options,
            &World::default(),
            |rig| match left {
                None => {
                    assert_eq!(rig.fault(Msr::PERFEVTSEL0, ANY), GpReason::Reserved(ANY));
                    assert_eq!(rig.fault(Msr::FIXED_CTR_CTRL, 4), GpReason::Reserved(4));
                }
                Some(left) => {
                    rig.write(Msr::PERFEVTSEL0, ANY);
                    rig.write(Msr::FIXED_CTR_CTRL, 4);
                    assert_eq!(rig.read(Msr::PERFEVTSEL0), left);
                    assert_eq!(rig.read(Msr::FIXED_CTR_CTRL), left >> 19);
                }
            },
        );
    }
}

#[test]
fn transaction_bits_take_tsx_and_in_txcp_counter_2() {
    const IN_TX: u64 = 1 << 32;
    const IN_TXCP: u64 = 1 << 33;
    each(&["haswell", "skylake"], |rig| {
        rig.write(Msr::PERFEVTSEL0, IN_TX);
        rig.write(Msr::PERFEVTSEL0.plus(2), IN_TX | IN_TXCP);
        for n in [0, 1, 3] {
            assert_eq!(
                rig.fault(Msr::PERFEVTSEL0.plus(n), IN_TXCP),
                GpReason::Reserved(IN_TXCP)
            );
        }
    });
    let without = Options {
        tsx: Some(false),
        ..Options::default()
    };
    for (profile, options) in [("haswell", &without), ("sandy-bridge", &Options::default())] {
        both(named(profile), options, &World::default(), |rig| {
            for n in 0..4 {
                let both = IN_TX | IN_TXCP;
                assert_eq!(
                    rig.fault(Msr::PERFEVTSEL0.plus(n), both),
                    GpReason::Reserved(both)
                );
            }
        });
    }
}

#[test]
fn pin_control_reads_0_where_it_is_not_writeable() {
    const PC: u64 = 1 << 19;
    each(&["nehalem", "bonnell"], |rig| {
        rig.write(Msr::PERFEVTSEL0, PC);
        assert_eq!(rig.read(Msr::PERFEVTSEL0), PC);
    });
    each(&["sandy-bridge", "goldmont"], |rig| {
        rig.write(Msr::PERFEVTSEL0, PC);
        assert_eq!(rig.read(Msr::PERFEVTSEL0), 0);
    });
}

#[test]
fn adaptive_record_and_event_logging_bits_take_their_capability() {
    each(&["skylake", "goldmont-plus"], |rig| {
        assert_eq!(
            rig.fault(Msr::PERFEVTSEL0, 3 << 34),
            GpReason::Reserved(3 << 34)
        );
        assert_eq!(
            rig.fault(Msr::FIXED_CTR_CTRL, 1 << 32),
            GpReason::Reserved(1 << 32)
        );
        assert_eq!(rig.fault(Msr::PEBS_DATA_CFG, 0), GpReason::NoSuchMsr);
    });
    each(&["ice-lake", "tremont", "gracemont"], |rig| {
        rig.write(Msr::PERFEVTSEL0, 1 << 34);
        rig.write(Msr::FIXED_CTR_CTRL, 1 << 32);
        assert_eq!(
            rig.fault(Msr::PERFEVTSEL0, 1 << 35),
            GpReason::Reserved(1 << 35)
        );
        rig.write(Msr::PEBS_DATA_CFG, 0xff00_000f);
        assert_eq!(
            rig.fault(Msr::PEBS_DATA_CFG, 0x10),
            GpReason::Reserved(0x10)
        );
    });
    each(&["lunar-lake-p", "lunar-lake-e"], |rig| {
        for n in 0..8 {
            let accepted = rig
                .pmu
                .wrmsr(Msr::PERFEVTSEL0.plus(n), 1 << 35, &mut rig.world);
            assert_eq!(accepted.is_ok(), n < 4, "PMC{n}");
        }
        rig.write(Msr::PEBS_DATA_CFG, 0x0007_00ff_0000_001f);
        assert_eq!(
            rig.fault(Msr::PEBS_DATA_CFG, 0x20),
            GpReason::Reserved(0x20),
            "no metrics"
        );
    });
}

#[test]
fn status_is_read_only_and_changed_through_its_companions() {
    each(&["skylake"], |rig| {
        assert_eq!(rig.fault(Msr::PERF_GLOBAL_STATUS, 0), GpReason::ReadOnly);
        assert_eq!(rig.fault(Msr::PERF_GLOBAL_INUSE, 0), GpReason::ReadOnly);
        let settable = 0x7 << 32 | 0xf | 1 << 55 | 0x1f << 58;
        rig.write(Msr::PERF_GLOBAL_STATUS_SET, settable);
        assert_eq!(rig.read(Msr::PERF_GLOBAL_STATUS), settable);
        assert!(rig.world.lbr_frz, "LBR_FRZ is the LBR's");
        assert_eq!(
            rig.fault(Msr::PERF_GLOBAL_STATUS_SET, 1 << 63),
            GpReason::Reserved(1 << 63)
        );
        rig.write(Msr::PERF_GLOBAL_OVF_CTRL, 1 << 58 | 1);
        assert_eq!(rig.read(Msr::PERF_GLOBAL_STATUS), settable & !(1 << 58 | 1));
        assert!(!rig.world.lbr_frz);
        rig.write(Msr::PERF_GLOBAL_OVF_CTRL, settable | 1 << 63);
        assert_eq!(rig.read(Msr::PERF_GLOBAL_STATUS), 0);
        assert_eq!(rig.read(Msr::PERF_GLOBAL_OVF_CTRL), 0);
        assert_eq!(
            rig.fault(Msr::PERF_GLOBAL_OVF_CTRL, 1 << 4),
            GpReason::Reserved(1 << 4)
        );
    });
    each(&["haswell"], |rig| {
        assert_eq!(
            rig.fault(Msr::PERF_GLOBAL_OVF_CTRL, 1 << 58),
            GpReason::Reserved(1 << 58)
        );
    });
}

#[test]
fn inuse_shows_selects_fixed_enables_and_interrupts() {
    each(&["skylake"], |rig| {
        assert_eq!(rig.read(Msr::PERF_GLOBAL_INUSE), 0);
        rig.write(Msr::PERFEVTSEL0.plus(1), 0xc0);
        assert_eq!(
            rig.read(Msr::PERF_GLOBAL_INUSE),
            2,
            "whether enabled or not"
        );
        rig.write(Msr::PERFEVTSEL0.plus(1), 0xff00);
        assert_eq!(
            rig.read(Msr::PERF_GLOBAL_INUSE),
            0,
            "the event, not the unit mask"
        );
        rig.write(Msr::FIXED_CTR_CTRL, 0x2);
        assert_eq!(rig.read(Msr::PERF_GLOBAL_INUSE), 1 << 32);
        rig.write(Msr::FIXED_CTR_CTRL, 0x8);
        assert_eq!(rig.read(Msr::PERF_GLOBAL_INUSE), 1 << 63);
        rig.write(Msr::FIXED_CTR_CTRL, 0);
        rig.write(Msr::PEBS_ENABLE, 8);
        assert_eq!(rig.read(Msr::PERF_GLOBAL_INUSE), 1 << 63);
    });
}

#[test]
fn pebs_enable_has_the_bits_of_its_generation() {
    for (profile, bits) in [
        ("core2", 0x1),
        ("nehalem", 0xf_0000_000f),
        ("sandy-bridge", 0x8000_000f_0000_000f),
        ("haswell", 0xf_0000_000f),
        ("skylake", 0xf_0000_000f),
        ("silvermont", 0x1),
        ("goldmont", 0xf),
        ("ice-lake", 0xf_0000_00ff),
        ("sapphire-rapids", 0xf_0000_00ff),
    ] {
        both(
            named(profile),
            &Options::default(),
            &World::default(),
            |rig| {
                rig.write(Msr::PEBS_ENABLE, bits);
                for bit in (0..64).map(|bit| 1 << bit).filter(|bit| bits & bit == 0) {
                    assert_eq!(
                        rig.fault(Msr::PEBS_ENABLE, bit),
                        GpReason::Reserved(bit),
                        "{profile}"
                    );
                }
                assert_eq!(rig.pmu.reserved_bits(Msr::PEBS_ENABLE), !bits);
            },
        );
    }
}

#[test]
fn output_to_intel_pt_is_refused_by_name() {
    each(&["tremont", "gracemont"], |rig| {
        let error = rig.pmu.wrmsr(Msr::PEBS_ENABLE, 1 << 61 | 1, &mut rig.world);
        assert!(matches!(error, Err(PmuError::Refused { .. })), "{error:?}");
        assert_eq!(rig.read(Msr::PEBS_ENABLE), 0);
    });
}

#[test]
fn ds_area_is_a_canonical_address() {
    each(&["skylake"], |rig| {
        rig.write(Msr::DS_AREA, 0xffff_8000_0000_0000);
        assert_eq!(
            rig.fault(Msr::DS_AREA, 0x8000_0000_0000),
            GpReason::NonCanonical(48)
        );
    });
    each(&["sapphire-rapids"], |rig| {
        rig.write(Msr::DS_AREA, 0xff00_0000_0000_0000);
        assert_eq!(rig.fault(Msr::DS_AREA, 1 << 56), GpReason::NonCanonical(57));
    });
}

#[test]
fn reserved_bits_are_those_that_fault() {
    every(|rig| {
        for msr in rig.pmu.msrs() {
            let reserved = rig.pmu.reserved_bits(msr);
            for bit in (0..64).map(|n| 1u64 << n) {
                // A single bit need not be canonical: DS_AREA reserves none of them.
                if msr == Msr::DS_AREA {
                    continue;
                }
                let faults = matches!(
                    rig.pmu.wrmsr(msr, bit, &mut rig.world),
                    Err(PmuError::Gp(_))
                );
                assert_eq!(faults, reserved & bit != 0, "{msr} {bit:#x}");
            }
        }
        assert_eq!(rig.pmu.reserved_bits(Msr::DEBUGCTL), u64::MAX, "not ours");
    });
}

#[test]
fn core_2_steppings_that_report_no_fixed_counters_have_them() {
    let early = named("core2").with_part("6F2").expect("known");
    assert_eq!(early.cpuid_0a().edx, 0);
    both(&early, &Options::default(), &World::default(), |rig| {
        rig.write(Msr::FIXED_CTR0.plus(2), (1 << 40) - 1);
        assert_eq!(rig.fault(Msr::FIXED_CTR0, 1 << 40), GpReason::Width(40));
    });
}

#[test]
fn hyper_threading_halves_the_counters() {
    for (part, counters) in [("ht", 4), ("no-ht", 8)] {
        let profile = named("haswell").with_part(part).expect("known");
        both(&profile, &Options::default(), &World::default(), |rig| {
            assert_eq!(rig.read(Msr::PERF_GLOBAL_CTRL), (1 << counters) - 1);
        });
    }
    let error = named("haswell")
        .with_part("x")
        .expect_err("unknown")
        .to_string();
    assert!(error.contains("ht no-ht"), "{error}");
}
