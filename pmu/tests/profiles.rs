//! The profiles against those of the LBR and against the tables of the specification.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use vlbr_pmu::{Profile, SourceSet};

/// The profiles of the LBR, by name.
fn lbr_profiles() -> BTreeMap<String, toml::Table> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lbr/profiles");
    let mut profiles = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("stands beside") {
        let path = entry.expect("readable").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            let text = fs::read_to_string(&path).expect("readable");
            let table: toml::Table = text.parse().expect("TOML");
            let name = table["name"].as_str().expect("a name").to_owned();
            profiles.insert(name, table);
        }
    }
    profiles
}

#[test]
fn every_processor_has_an_lbr_and_a_pmu_under_the_same_names() {
    let lbr = lbr_profiles();
    let pmu: Vec<&str> = Profile::all().iter().map(Profile::name).collect();
    assert_eq!(lbr.len(), pmu.len());
    for profile in Profile::all() {
        let name = profile.name();
        let table = lbr.get(name).unwrap_or_else(|| panic!("{name} has no LBR"));
        let strings = |field: &str| -> Vec<String> {
            let array = table.get(field).and_then(|value| value.as_array());
            let words = array.into_iter().flatten().filter_map(|word| word.as_str());
            words.map(str::to_owned).collect()
        };
        assert_eq!(profile.aliases(), strings("aliases"), "{name}");
        assert_eq!(profile.models(), strings("models"), "{name}");
        assert_eq!(Some(profile.title()), table["title"].as_str());
        assert_eq!(Some(profile.tsx()), table["tsx"].as_bool(), "{name}");
        let number = |field: &str| table[field].as_integer().expect("a number");
        assert_eq!(
            i64::from(profile.version()),
            number("perfmon_version"),
            "{name}"
        );
        assert_eq!(
            i64::from(profile.linear_address_bits()),
            number("linear_address_bits"),
            "{name}"
        );
        let format = match table.get("legacy") {
            Some(legacy) => legacy["format"].as_integer(),
            None => Some(0x3f),
        };
        let capabilities = profile.perf_capabilities();
        assert_eq!(
            Some(i64::from(capabilities.lbr_format().value())),
            format,
            "{name}"
        );
        let smm = strings("debugctl").contains(&"FREEZE_WHILE_SMM".to_owned());
        assert_eq!(capabilities.bits() >> 12 & 1 == 1, smm, "{name}");
        let inserts = profile
            .events()
            .iter()
            .any(|event| event.counts() == SourceSet::from_name("lbr-inserts").expect("known"));
        assert_eq!(
            inserts,
            table["lbr_inserts"].as_str() != Some("none"),
            "{name}"
        );
        let logging = match table.get("arch") {
            Some(arch) => arch["cpuid_1c_ecx"].as_integer().expect("a number") >> 16 & 0xf,
            None => 0,
        };
        assert_eq!(i64::from(profile.event_logging()), logging, "{name}");
    }
}

#[test]
fn leaf_0a_reads_as_the_table_says() {
    // hardware.md 13.5: version, counters, width, fixed counters, their width.
    for (name, part, expected) in [
        ("core2-65nm", None, (2, 2, 40, 3, 40)),
        ("core2-65nm", Some("10661"), (2, 2, 40, 3, 40)),
        ("nehalem", None, (3, 4, 48, 3, 48)),
        ("westmere", None, (3, 4, 48, 3, 48)),
        ("sandy-bridge", Some("ht"), (3, 4, 48, 3, 48)),
        ("broadwell", Some("no-ht"), (3, 8, 48, 3, 48)),
        ("skylake", None, (4, 4, 48, 3, 48)),
        ("skylake-server", Some("no-ht"), (4, 8, 48, 3, 48)),
        ("ice-lake", None, (5, 8, 48, 4, 48)),
        ("sapphire-rapids", None, (5, 8, 48, 4, 48)),
        ("lunar-lake-p", None, (6, 8, 48, 3, 48)),
        ("bonnell", None, (3, 2, 40, 3, 40)),
        ("bonnell", Some("106C2"), (3, 2, 40, 3, 40)),
        ("silvermont", None, (3, 2, 40, 3, 40)),
        ("knights-landing", None, (3, 2, 40, 3, 40)),
        ("goldmont", None, (4, 4, 48, 3, 48)),
        ("tremont", None, (5, 4, 48, 3, 48)),
        ("gracemont", None, (5, 6, 48, 3, 48)),
        ("crestmont", None, (5, 8, 48, 3, 48)),
    ] {
        let mut profile = Profile::named(name).expect("built in").clone();
        if let Some(part) = part {
            profile = profile.with_part(part).expect("its own");
        }
        let read = (
            profile.version(),
            profile.gp_counters(),
            profile.gp_width(),
            profile.fixed_mask().count_ones(),
            profile.fixed_width(),
        );
        assert_eq!(read, expected, "{name} {part:?}");
    }
    let lunar = Profile::named("lnl").expect("built in");
    assert!(!lunar.architectural_event(7) && lunar.architectural_event(6));
    let nehalem = Profile::named("nhm").expect("built in");
    assert!(!nehalem.architectural_event(6) && nehalem.architectural_event(5));
    assert!(!nehalem.architectural_event(7), "beyond the vector");
}

#[test]
fn pebs_formats_are_those_of_the_table() {
    // hardware.md 14.2.
    for (names, format) in [
        (&["core2-65nm", "bonnell"][..], 0),
        (&["nehalem", "ivy-bridge"], 1),
        (
            &[
                "haswell",
                "broadwell",
                "silvermont",
                "airmont",
                "knights-landing",
            ],
            2,
        ),
        (&["skylake", "comet-lake", "goldmont", "goldmont-plus"], 3),
        (
            &[
                "ice-lake",
                "tiger-lake",
                "sapphire-rapids",
                "tremont",
                "gracemont",
            ],
            4,
        ),
        (&["lunar-lake-p", "lunar-lake-e"], 6),
    ] {
        for name in names {
            let profile = Profile::named(name).expect("built in");
            assert_eq!(profile.perf_capabilities().pebs_format(), format, "{name}");
        }
    }
}

#[test]
fn contradictions_are_errors() {
    let good = r#"
        name = "mine"
        title = "Mine"
        models = ["06_00"]
        linear_address_bits = 48
        tsx = false
        perf_capabilities = 0x33c5
        events = "skylake"
        pin_control = false
        cpuid_0a = [{ eax = 0x07300404, ebx = 0, ecx = 0, edx = 0x603 }]
        pebs = { counters = 15, reset_slots = 4, pdir = "none" }
    "#;
    assert!(Profile::from_toml(good).is_ok());
    for (from, to, why) in [
        ("\"mine\"", "\"Mine!\"", "a-z"),
        ("[\"06_00\"]", "[]", "models"),
        ("= 48", "= 64", "linear_address_bits"),
        ("\"skylake\"", "\"none\"", "event list"),
        ("0x07300404", "0x07300400", "version"),
        ("0x07300404", "0x07300904", "more than 8"),
        ("0x07300404", "0x07100404", "wide"),
        ("0x603", "0x605", "more than 4 fixed"),
        ("0x33c5", "0x34c5", "PEBS_BASELINE"),
        ("0x33c5", "0x77c5", "formats go"),
        ("counters = 15", "counters = 0", "pebs.counters"),
        ("counters = 15", "counters = 31", "reset_slots"),
        (
            "counters = 15",
            "counters = 15, fixed_counters = 1",
            "fixed_counters",
        ),
        ("\"none\"", "\"none\", reserved = [0x10]", "reserved"),
        ("\"none\"", "\"none\", nonsense = 1", "nonsense"),
        (
            "pin_control = false",
            "pin_control = false\n offcore_rsp = [\"x\"]",
            "hexadecimal",
        ),
        (
            "pin_control = false",
            "pin_control = false\n quirks = [\"E1\"]",
            "E1",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        let error = Profile::from_toml(&good.replacen(from, to, 1))
            .expect_err(why)
            .to_string();
        assert!(error.contains(why), "{to}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}
