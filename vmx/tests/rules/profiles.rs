//! Capabilities of each generation.

use vlbr_arch::Msr;
use vlbr_arch::vmx::{EntryControls, ExitControls};
use vlbr_vmx::{Options, OptionsError, VmxProfile, VmxProfileError};

fn msr(cpu: &str, msr: Msr) -> Option<u64> {
    VmxProfile::of_processor(cpu).unwrap().msr(msr)
}

#[test]
fn exit_and_entry_controls_are_those_of_the_dumps() {
    for (cpus, exit, entry) in [
        (
            &["ivy-bridge", "haswell", "broadwell", "silvermont"][..],
            0x007f_ffff,
            0x0000_ffff,
        ),
        (&["core2-65nm"], 0x0003_efff, 0x0000_1fff),
        (
            &[
                "skylake",
                "skylake-server",
                "comet-lake",
                "goldmont",
                "goldmont-plus",
            ],
            0x01ff_ffff,
            0x0003_ffff,
        ),
        (
            &["ice-lake", "ice-lake-server", "tremont"],
            0x037f_ffff,
            0x0006_ffff,
        ),
        (&["rocket-lake"], 0x03ff_ffff, 0x0007_ffff),
        (&["tiger-lake"], 0x137f_ffff, 0x0016_ffff),
        (&["alder-lake-p", "alder-lake-e"], 0xf77f_ffff, 0x0076_ffff),
        (
            &["sapphire-rapids", "granite-rapids", "lunar-lake-p"],
            0xff7f_ffff,
            0x007e_ffff,
        ),
    ] {
        for cpu in cpus {
            let value = msr(cpu, Msr::VMX_EXIT_CTLS).unwrap();
            assert_eq!(
                value,
                exit << 32 | u64::from(ExitControls::DEFAULT1.bits()),
                "{cpu}"
            );
            let value = msr(cpu, Msr::VMX_ENTRY_CTLS).unwrap();
            assert_eq!(
                value,
                entry << 32 | u64::from(EntryControls::DEFAULT1.bits()),
                "{cpu}"
            );
        }
    }
}

#[test]
fn the_true_controls_free_the_debug_controls_and_cr3_exiting() {
    for profile in VmxProfile::all() {
        let both = |plain, relaxed| Some((profile.msr(plain)?, profile.msr(relaxed)?));
        let freed = |(plain, relaxed): (u64, u64)| {
            assert_eq!(plain >> 32, relaxed >> 32);
            plain & !relaxed & 0xffff_ffff
        };
        let exit = both(Msr::VMX_EXIT_CTLS, Msr::VMX_TRUE_EXIT_CTLS).map(freed);
        let entry = both(Msr::VMX_ENTRY_CTLS, Msr::VMX_TRUE_ENTRY_CTLS).map(freed);
        let primary = both(Msr::VMX_PROCBASED_CTLS, Msr::VMX_TRUE_PROCBASED_CTLS).map(freed);
        let expected = profile.basic().has_true_controls();
        assert_eq!(exit, expected.then_some(4), "{}", profile.name());
        assert_eq!(entry, expected.then_some(4));
        assert_eq!(primary, expected.then_some(0x1_8000));
    }
}

#[test]
fn areas_should_have_at_most_512_entries_everywhere() {
    for profile in VmxProfile::all() {
        assert_eq!(profile.misc().msr_area_limit(), 512, "{}", profile.name());
    }
}

#[test]
fn every_processor_of_a_profile_has_an_lbr_and_one_vmx_profile() {
    let mut seen = Vec::new();
    for profile in VmxProfile::all() {
        for cpu in profile.cpus() {
            assert!(vlbr_lbr::Profile::named(cpu).is_ok(), "{cpu}");
            assert!(!seen.contains(cpu), "{cpu}");
            seen.push(cpu.clone());
        }
    }
    let without: Vec<_> = vlbr_lbr::Profile::all()
        .iter()
        .map(vlbr_lbr::Profile::name)
        .filter(|name| !seen.iter().any(|cpu| cpu == name))
        .collect();
    assert_eq!(
        without,
        [
            "bonnell",
            "nehalem",
            "westmere",
            "saltwell",
            "knights-landing"
        ]
    );
}

#[test]
fn arch_lbr_parts_and_only_they_have_its_controls() {
    for profile in VmxProfile::all() {
        for cpu in profile.cpus() {
            let arch = vlbr_lbr::Profile::named(cpu).unwrap().is_arch();
            assert_eq!(profile.has_lbr_ctl(), arch, "{cpu}");
        }
    }
}

#[test]
fn a_processor_without_a_dump_has_no_profile() {
    let error = VmxProfile::of_processor("nehalem").unwrap_err();
    assert_eq!(error, VmxProfileError::Unknown("nehalem".to_owned()));
}

#[test]
fn capability_msrs_that_are_not_modelled_are_none() {
    for number in [0x486, 0x48c, 0x491, 0x1d9] {
        assert_eq!(msr("skylake", Msr::new(number)), None);
    }
    assert_eq!(msr("core2-65nm", Msr::VMX_PROCBASED_CTLS2), None);
    assert_eq!(msr("core2-65nm", Msr::VMX_TRUE_EXIT_CTLS), None);
}

#[test]
fn profiles_that_contradict_themselves_are_refused() {
    let text = include_str!("../../profiles/skylake.toml");
    for (from, to, expected) in [
        ("name = \"skylake\"", "name = \"Sky Lake\"", "name: "),
        (
            "0x00da_0400_0000_0004",
            "0x005a_0400_0000_0004",
            "true_allowed0: ",
        ),
        ("0x00da_0400_0000_0004", "0x00da_0000_0000_0004", "basic: "),
        ("0x00da_0400_0000_0004", "0x00da_0400_8000_0004", "basic: "),
        (
            "allowed1 = 0x0000007f",
            "allowed1 = 0x0000006f",
            "pin: 0x10 must be 1 and may not be 1",
        ),
        (
            "allowed1 = 0xfff9fffe",
            "allowed1 = 0x7ff9fffe",
            "secondary: ",
        ),
        ("exit = 0x00036dfb", "exit = 0x00136dfb", "true_allowed0: "),
        ("misc =", "mist =", "line "),
        ("\"skylake\", \"kaby", "\"sky lake\", \"kaby", "cpus: "),
    ] {
        assert!(text.contains(from), "{from}");
        let error = VmxProfile::from_toml(&text.replacen(from, to, 1)).unwrap_err();
        let shown = error.to_string();
        assert!(
            shown.starts_with(&format!("VMX profile: {expected}")),
            "{shown}"
        );
        assert!(!shown.contains('\n'));
    }
}

#[test]
fn options_are_read_by_name() {
    let options = Options::from_toml("physical_address_bits = 39\narea_beyond_limit = \"process\"");
    assert_eq!(options.unwrap().physical_address_bits, 39);
    assert_eq!(Options::from_toml(""), Ok(Options::default()));
    assert_eq!(
        Options::from_toml("physical_address_bits = 64"),
        Err(OptionsError::Width(64))
    );
    assert!(matches!(
        Options::from_toml("smm = 1"),
        Err(OptionsError::Toml(_))
    ));
}
