//! Events as people write them.

use proptest::prelude::*;
use vlbr_arch::{Msr, PerfEvtSel};
use vlbr_pmu::{
    Alone, Counter, EventNameError, EventSpec, Options, PerfType, Pmu, Profile, Refusal, SourceSet,
};

fn named(name: &str) -> &'static Profile {
    Profile::named(name).expect("built in")
}

fn parse(profile: &str, text: &str) -> EventSpec {
    let everything = Options {
        feeds: SourceSet::ALL,
        ..Options::default()
    };
    match named(profile).parse_event(text, &everything) {
        Ok(spec) => spec,
        Err(error) => panic!("{profile} {text}: {error}"),
    }
}

fn error(profile: &str, text: &str) -> EventNameError {
    named(profile)
        .parse_event(text, &Options::default())
        .expect_err("refused")
}

#[test]
fn perfs_generic_names_have_linuxs_encodings() {
    for (name, select, config) in [
        ("cycles", 0x003c, 0),
        ("cpu-cycles", 0x003c, 0),
        ("instructions", 0x00c0, 1),
        ("cache-references", 0x4f2e, 2),
        ("cache-misses", 0x412e, 3),
        ("branches", 0x00c4, 4),
        ("branch-instructions", 0x00c4, 4),
        ("branch-misses", 0x00c5, 5),
        ("bus-cycles", 0x013c, 6),
        ("ref-cycles", 0x0300, 9),
    ] {
        let spec = parse("skylake", name);
        assert_eq!(spec.select.bits(), select, "{name}");
        assert_eq!(spec.encoding.kind, PerfType::Hardware);
        assert_eq!(spec.encoding.config, config, "{name}");
    }
}

#[test]
fn intels_names_are_those_of_the_part() {
    let near_taken = |profile| parse(profile, "br_inst_retired.near_taken").select.bits();
    assert_eq!(near_taken("skylake"), 0x20c4);
    assert_eq!(near_taken("gracemont"), 0xc0c4);
    assert_eq!(
        parse("nehalem", "BR_INST_RETIRED.ALL_BRANCHES")
            .select
            .bits(),
        0x04c4
    );
    assert_eq!(
        parse("goldmont", "Br_Inst_Retired.All_Taken_Branches")
            .select
            .bits(),
        0x80c4
    );
    assert!(matches!(
        error("nehalem", "br_inst_retired.near_taken"),
        EventNameError::Unknown { .. }
    ));
    assert_eq!(parse("skylake", "inst_retired.any").select.bits(), 0xc0);
    assert_eq!(
        parse("skylake", "cpu_clk_unhalted.thread").select.bits(),
        0x3c
    );
}

#[test]
fn every_event_that_is_fed_parses_by_its_name() {
    let options = Options {
        feeds: SourceSet::ALL,
        ..Options::default()
    };
    let mut parsed = 0;
    for profile in Profile::all() {
        for event in profile
            .events()
            .iter()
            .filter(|event| profile.is_fed(event, &options))
        {
            let spec = profile.parse_event(event.name(), &options);
            let spec = spec.unwrap_or_else(|error| panic!("{}: {error}", profile.name()));
            assert_eq!(
                spec.sources,
                event.counts(),
                "{} {}",
                profile.name(),
                event.name()
            );
            assert!(!spec.counters.is_empty());
            parsed += 1;
        }
    }
    assert!(parsed > 800, "{parsed}");
}

#[test]
fn what_a_name_says_a_counter_counts() {
    for profile in Profile::all() {
        for text in ["instructions", "branches", "inst_retired.any_p"] {
            let Ok(spec) = profile.parse_event(text, &Options::default()) else {
                continue;
            };
            let mut pmu = Pmu::new(profile, Options::default());
            let select = spec.select | PerfEvtSel::EN | PerfEvtSel::USR | PerfEvtSel::OS;
            pmu.wrmsr(Msr::PERFEVTSEL0, select.bits(), &mut Alone::default())
                .expect("fed");
            assert_eq!(
                pmu.active()[0].1.sources,
                spec.sources,
                "{}",
                profile.name()
            );
        }
    }
}

#[test]
fn raw_events_and_terms_are_the_same_bits() {
    let raw = parse("skylake", "r20c4");
    assert_eq!(raw.encoding.config, 0x20c4);
    assert_eq!(raw.encoding.kind, PerfType::Raw);
    for text in [
        "cpu/event=0xc4,umask=0x20/",
        "cpu/event=196,umask=32/",
        "cpu/config=0x20c4/",
        "cpu/br_inst_retired.near_taken/",
        "cpu_core/event=0xc4, umask=0x20, name=taken/",
    ] {
        let spec = parse("skylake", text);
        assert_eq!(
            (spec.select, spec.sources),
            (raw.select, raw.sources),
            "{text}"
        );
    }
    let spec = parse("skylake", "cpu/event=0xc0,inv,period=1000,name=mine/u");
    assert_eq!(spec.select.bits(), 0x80_00c0);
    assert_eq!(spec.period.map(u64::from), Some(1000));
    assert_eq!(spec.name, "mine");
    assert!(spec.user && !spec.kernel && spec.explicit);
    assert_eq!(
        parse("haswell", "cpu/instructions,in_tx/").select.bits(),
        1 << 32 | 0xc0
    );
    assert_eq!(
        parse("haswell", "cpu/instructions,in_tx/").encoding.kind,
        PerfType::Raw
    );
}

#[test]
fn modifiers() {
    let spec = parse("skylake", "branches:k");
    assert!(!spec.user && spec.kernel && spec.explicit && spec.precise == 0);
    let spec = parse("skylake", "branches:upp");
    assert!(spec.user && !spec.kernel && spec.precise == 2);
    assert_eq!(spec.name, "branches");
    let spec = parse("skylake", "branches");
    assert!(spec.user && spec.kernel && !spec.explicit);
    assert_eq!(parse("skylake", "cpu/event=0xc4/:p").precise, 1);
    assert!(matches!(
        error("skylake", "branches:uz"),
        EventNameError::Modifier { modifier: 'z', .. }
    ));
}

#[test]
fn counters_that_can_count() {
    let on = |profile: &str, text: &str| parse(profile, text).counters;
    let ice_lake = on("ice-lake", "instructions");
    assert_eq!(ice_lake.0, 0x1_0000_00ff);
    assert_eq!(
        on("ice-lake", "ref-cycles").iter().collect::<Vec<_>>(),
        [Counter::Fixed(2)]
    );
    assert_eq!(
        on("ice-lake", "slots").iter().collect::<Vec<_>>(),
        [Counter::Fixed(3)]
    );
    assert_eq!(
        on("haswell", "r01c0").iter().collect::<Vec<_>>(),
        [Counter::Gp(1)]
    );
    assert_eq!(on("golden-cove", "mem_inst_retired.all_loads").0, 0xf);
    assert_eq!(
        on("skylake", "cpu/instructions,inv/").0,
        0xf,
        "no fixed counter has INV"
    );
}

#[test]
fn a_name_is_quoted_on_one_line() {
    let options = Options::default();
    let profile = Profile::named("skylake-server").unwrap();
    for text in [
        "br_inst_retired\near_taken",
        "instructions:\n",
        "cpu/event=\n/",
        "r\n1",
        "\n",
    ] {
        let said = profile.parse_event(text, &options).unwrap_err().to_string();
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn unknown_names_tell_the_nearest() {
    let text = error("skylake", "br_inst_retired.near_take").to_string();
    assert!(text.starts_with("skylake has no event \"br_inst_retired.near_take\"; nearest are BR_INST_RETIRED.NEAR_TAKEN, "), "{text}");
    let text = error("gracemont", "instrutions").to_string();
    assert!(text.contains("nearest are instructions, "), "{text}");
    // Never one that would be refused in turn.
    assert!(
        !error("skylake", "cpu-cycle")
            .to_string()
            .contains("cpu-cycles")
    );
}

#[test]
fn events_nobody_feeds_are_refused_by_name() {
    for (text, part) in [
        (
            "cycles",
            "CPU_CLK_UNHALTED.THREAD_P is not fed: it takes core-cycles",
        ),
        ("branch-misses", "it takes mispredicted-"),
        ("cache-misses", "it takes llc-misses"),
        (
            "ref-cycles",
            "fixed counter 2: CPU_CLK_UNHALTED.REF_TSC is not fed",
        ),
        ("inst_retired.nop", "no model tells how often it occurs"),
        (
            "br_misp_exec.all_branches",
            "no model tells how often it occurs",
        ),
        (
            "cpu/instructions,cmask=1/",
            "CMASK of INST_RETIRED.ANY_P needs increments cycle by cycle",
        ),
        ("r77c4", "no event is known with event 0xc4, umask 0x77"),
        ("slots", "no event is known with event 0x00, umask 0x04"),
    ] {
        let error = error("skylake", text);
        assert!(
            matches!(error, EventNameError::Refused(_)),
            "{text}: {error}"
        );
        assert!(error.to_string().contains(part), "{text}: {error}");
    }
    assert!(matches!(
        error("nehalem", "bus-cycles"),
        EventNameError::Refused(Refusal::NotFed { .. })
    ));
}

#[test]
fn bad_texts_are_errors() {
    for text in [
        "",
        ":u",
        "r",
        "rg",
        "r12345678901234567",
        "cpu/",
        "cpu//x/",
        "uncore/event=1/",
        "cpu/event/x",
        "cpu/event=/",
        "cpu/event=0x100/",
        "cpu/event=+1/",
        "cpu/nonsense=1/",
        "cpu/period=0/",
        "cpu/name=/",
        "r5300c0",
        "instructions,branches",
        "é/",
    ] {
        let error = named("skylake").parse_event(text, &Options::default());
        assert!(error.is_err(), "{text:?}: {error:?}");
    }
}

#[test]
fn lists_are_cut_outside_slashes() {
    let options = Options::default();
    let list = named("skylake")
        .parse_events(
            "instructions:u,cpu/event=0xc4,umask=0x20/k, branches",
            &options,
        )
        .expect("three");
    let names: Vec<&str> = list.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(
        names,
        ["instructions", "cpu/event=0xc4,umask=0x20/", "branches"]
    );
    assert!(
        named("skylake")
            .parse_events("instructions,", &options)
            .is_err()
    );
}

proptest! {
    #[test]
    fn any_text_is_an_event_or_an_error(
        text in prop_oneof![
            any::<String>(),
            "[a-z_.]{0,12}(:[ukp]{0,3})?",
            "cpu(_core)?/[a-z_=,0-9x]{0,30}/[ukp]{0,3}",
            "r[0-9a-f]{0,18}",
        ],
        profile in 0..Profile::all().len(),
    ) {
        let profile = &Profile::all()[profile];
        for parsed in [
            profile.parse_event(&text, &Options::default()).map(|_| ()),
            profile.parse_events(&text, &Options::default()).map(|_| ()),
        ] {
            if let Err(error) = parsed {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
