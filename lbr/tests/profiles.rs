//! Profiles and options as text: what is refused, and why.

use proptest::prelude::*;
use vlbr_lbr::{Device, Lbr, Options, Profile, ProfileError, Quirk, ReservedWrite, reference};

const LEGACY: &str = r#"
name = "mine"
title = "A part of mine"
aliases = ["my-part"]
models = ["06_9E"]
linear_address_bits = 48
perfmon_version = 4
tsx = true
debugctl = ["LBR", "BTF", "FREEZE_LBRS_ON_PMI"]
lbr_inserts = "pushes"
quirks = ["E18"]
[legacy]
depth = 32
tos_bits = 5
from = 0x680
to = 0x6C0
info = 0xDC0
format = 5
select = "haswell"
ler = true
survives_warm_reset = true
deep_c_state_reset = true
"#;

const ARCH: &str = r#"
name = "mine"
title = "A part of mine"
models = ["06_9E"]
linear_address_bits = 57
perfmon_version = 5
tsx = false
debugctl = ["LBR"]
lbr_inserts = "none"
[arch]
cpuid_1c_eax = 0x4000000B
cpuid_1c_ebx = 7
cpuid_1c_ecx = 7
"#;

#[test]
fn a_profile_of_ones_own_works() {
    for text in [LEGACY, ARCH] {
        let profile = Profile::from_toml(text).expect("consistent");
        assert_eq!(profile.max_depth(), 32);
        assert_eq!(Lbr::new(&profile, Options::default()).depth(), 32);
    }
}

/// The field that a profile with `old` replaced by `new` is refused for.
fn refused(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "{old}");
    match Profile::from_toml(&text.replacen(old, new, 1)) {
        Ok(_) => "accepted".to_owned(),
        Err(ProfileError::Invalid { field, .. }) => field.to_owned(),
        Err(ProfileError::Toml(_)) => "toml".to_owned(),
        Err(other) => other.to_string(),
    }
}

#[test]
fn contradictions_are_refused_by_field() {
    for (old, new, field) in [
        ("name = \"mine\"", "name = \"Mine\"", "name"),
        ("name = \"mine\"", "name = \"\"", "name"),
        ("\"my-part\"", "\"mine\"", "aliases"),
        ("\"my-part\"", "\"a\", \"a\"", "aliases"),
        ("\"my-part\"", "\"my part\"", "aliases"),
        ("\"06_9E\"", "", "models"),
        ("\"06_9E\"", "\"06_9E\", \"06_9e\"", "models"),
        ("\"06_9E\"", "\"6_9E\"", "models"),
        ("\"06_9E\"", "\"06_+E\"", "models"),
        (
            "linear_address_bits = 48",
            "linear_address_bits = 64",
            "linear_address_bits",
        ),
        (
            "perfmon_version = 4",
            "perfmon_version = 0",
            "perfmon_version",
        ),
        ("perfmon_version = 4", "perfmon_version = 1", "debugctl"),
        ("\"LBR\", ", "", "debugctl"),
        ("\"BTF\"", "\"BTS_OFF\"", "debugctl"),
        ("\"BTF\"", "\"LBR\"", "debugctl"),
        ("\"BTF\"", "\"RTM_DEBUG\"", "debugctl"),
        ("\"pushes\"", "\"pops\"", "toml"),
        ("\"E18\"", "\"E8\"", "toml"),
        ("title", "titel", "toml"),
        ("depth = 32", "depth = 0", "legacy.tos_bits"),
        (
            "depth = 32\ntos_bits = 5",
            "depth = 64\ntos_bits = 6",
            "legacy.depth",
        ),
        (
            "depth = 32\ntos_bits = 5",
            "depth = 1\ntos_bits = 0",
            "legacy.depth",
        ),
        ("tos_bits = 5", "tos_bits = 4000000000", "legacy.tos_bits"),
        ("from = 0x680", "from = 0x6B0", "legacy"),
        ("from = 0x680", "from = 0xFFFFFFFF", "legacy"),
        ("from = 0x680", "from = 0x1D0", "legacy"),
        ("format = 5", "format = 3", "legacy.info"),
        ("format = 5", "format = 8", "legacy.format"),
        (
            "format = 5",
            "format = 5\nformat_alternative = 63",
            "legacy.format_alternative",
        ),
        (
            "format = 5",
            "format = 5\nformat_alternative = 4",
            "legacy.info",
        ),
        ("info = 0xDC0", "", "legacy.info"),
        ("[legacy]", "[arch]", "toml"),
    ] {
        assert_eq!(refused(LEGACY, old, new), field, "{old} -> {new}");
    }
    for (old, new, field) in [
        ("0x4000000B", "0x4000000F", "arch.cpuid_1c_eax"),
        ("0x4000000B", "0x40000000", "arch.cpuid_1c_eax"),
        ("0x4000000B", "0x4000010B", "arch.cpuid_1c_eax"),
        ("ebx = 7", "ebx = 8", "arch.cpuid_1c_ebx"),
        ("ecx = 7", "ecx = 8", "arch.cpuid_1c_ecx"),
        ("[arch]", "", "toml"),
        (
            ARCH.split_at(ARCH.find("[arch]").unwrap_or(0)).1,
            "",
            "legacy",
        ),
    ] {
        assert_eq!(refused(ARCH, old, new), field, "{old} -> {new}");
    }
    let legacy = LEGACY.split_at(LEGACY.find("[legacy]").unwrap_or(0)).1;
    assert!(Profile::from_toml(&format!("{ARCH}{legacy}")).is_err());
}

#[test]
fn an_unknown_name_lists_the_known_ones() {
    let message = Profile::named("skylark").expect_err("unknown").to_string();
    assert!(message.starts_with("no profile is named \"skylark\"; known are core2-65nm "));
    assert_eq!(
        Profile::named("SKX").map(Profile::name),
        Ok("skylake-server")
    );
}

#[test]
fn a_hybrid_model_has_two_profiles() {
    let model = "06_97".parse().expect("a model");
    let names: Vec<&str> = Profile::of_model(model).map(Profile::name).collect();
    assert_eq!(names, ["alder-lake-p", "alder-lake-e"]);
}

#[test]
fn options_from_text() {
    let text = "
        quirks = ['E12', 'E5']
        seed = 7
        callstack_saturate = true
        arch_info_reserved = 'drop'
    ";
    let options = Options::from_toml(text).expect("options");
    assert_eq!(options.seed, 7);
    assert!(options.callstack_saturate && options.pops_clear_slots);
    assert_eq!(options.arch_info_reserved, ReservedWrite::Drop);
    let quirks = options.quirks.expect("given");
    assert!(quirks.contains(Quirk::DuplicateTop) && !quirks.contains(Quirk::DoubleAbort));
    assert_eq!(Options::from_toml(""), Ok(Options::default()));
    for text in [
        "sed = 7",
        "seed = 'x'",
        "duplicate_top_one_in = 0",
        "quirks = ['E99']",
        "=",
    ] {
        assert!(Options::from_toml(text).is_err(), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_readers_panic(text in "\\PC*", cut in 0..LEGACY.len(), at in 0..ARCH.len()) {
        let _ = Profile::from_toml(&text);
        let _ = Options::from_toml(&text);
        let _ = Profile::from_toml(&LEGACY[..cut]);
        let mixed = format!("{}{text}{}", &ARCH[..at], &ARCH[at..]);
        let _ = Profile::from_toml(&mixed);
    }

    #[test]
    fn whatever_numbers_are_accepted_make_a_device(
        depth in 0u32..70, tos_bits in 0u32..8, from in 0u32..0x2100, to in 0u32..0x2100,
        format in 0u8..10, eax in any::<u32>(),
    ) {
        let legacy = LEGACY
            .replace("info = 0xDC0\n", "")
            .replace("depth = 32\ntos_bits = 5", &format!("depth = {depth}\ntos_bits = {tos_bits}"))
            .replace("from = 0x680\nto = 0x6C0", &format!("from = {from}\nto = {to}"))
            .replace("format = 5", &format!("format = {format}"));
        let arch = ARCH.replace("0x4000000B", &format!("{}", eax & 0xc000_000f));
        for profile in [Profile::from_toml(&legacy), Profile::from_toml(&arch)].into_iter().flatten() {
            let fast = Lbr::new(&profile, Options::default());
            let slow = reference::Lbr::new(&profile, Options::default());
            prop_assert_eq!(Device::msrs(&fast), slow.msrs());
            for msr in slow.msrs() {
                prop_assert_eq!(fast.rdmsr(msr), slow.rdmsr(msr));
            }
        }
    }
}
