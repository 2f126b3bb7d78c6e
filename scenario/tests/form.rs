//! The form: what is read, what is refused and where, and what a failure says.

use std::path::Path;

use proptest::prelude::*;
use vlbr_scenario::{
    Area, DeviceKind, Fault, Phase, Reason, Scenario, discover, parse, run, run_scenario,
};

const GOOD: &str = "\
scenario 1
title: A jump is recorded
area: insertion
rule: 1.5/jmp-rel
source: SDM
profiles: skylake, alder-lake-p
option: seed = 7
quirks: E12, !E12
description:
  Two
  lines.
# a comment

given
  lbr on # and another
when
  cpu 0: repeat 2 jmp rel 0x1000+0x10*n -> 0x2000 mispred => recorded
then
  entry 0 = 0x1010 -> 0x2000 mispred
  stack holds 2
";

fn read(text: &str) -> Result<Scenario, (usize, Reason)> {
    parse(Path::new("insertion/199-name.scn"), text).map_err(|error| (error.line, error.reason))
}

/// `GOOD` with one text replaced by another.
fn with(old: &str, new: &str) -> Result<Scenario, (usize, Reason)> {
    assert!(GOOD.contains(old), "{old:?}");
    read(&GOOD.replacen(old, new, 1))
}

fn line_of(result: Result<Scenario, (usize, Reason)>) -> usize {
    result.expect_err("it must be refused").0
}

#[test]
fn a_file_is_read_whole() {
    let scenario = read(GOOD).unwrap();
    assert_eq!((scenario.number, scenario.name.as_str()), (199, "name"));
    assert_eq!(scenario.area, Area::Insertion);
    assert_eq!(scenario.description, "Two\nlines.");
    assert_eq!(scenario.rules, ["1.5/jmp-rel"]);
    assert_eq!(scenario.profiles.names(), ["skylake", "alder-lake-p"]);
    assert_eq!(scenario.options.seed, 7);
    assert_eq!(scenario.quirks.len(), 2);
    let lines: Vec<(usize, Phase)> = scenario.steps.iter().map(|s| (s.line, s.phase)).collect();
    assert_eq!(
        lines,
        [
            (15, Phase::Given),
            (17, Phase::When),
            (19, Phase::Then),
            (20, Phase::Then)
        ]
    );
    assert_eq!(run_scenario(&scenario).1, []);
}

#[test]
fn the_version_and_the_name_are_checked() {
    assert_eq!(
        with("scenario 1", "scenario 2").unwrap_err(),
        (1, Reason::Version)
    );
    assert_eq!(read("").unwrap_err(), (1, Reason::Version));
    for name in ["x.scn", "12-x.scn", "199.scn", "199-X.scn", "199-x.txt", ""] {
        let error = parse(Path::new(name), GOOD).unwrap_err();
        assert_eq!(error.reason, Reason::FileName, "{name}");
    }
    let error = parse(Path::new("200-name.scn"), GOOD).unwrap_err();
    assert!(matches!(error.reason, Reason::NumberOfArea { .. }));
}

#[test]
fn unknown_words_are_refused_at_their_line() {
    for (old, new, line) in [
        ("title:", "titel:", 2),
        ("area: insertion", "area: cooking", 3),
        ("profiles: skylake", "profiles: pentium", 6),
        ("seed = 7", "sead = 7", 7),
        ("E12,", "E99,", 8),
        ("lbr on", "lbr maybe", 15),
        ("given", "gives", 14),
        ("jmp rel", "jmp sideways", 17),
        ("cpu 0:", "cpu 2:", 17),
        ("=> recorded", "=> forgotten", 17),
        ("mispred =>", "mispredicted =>", 17),
        ("0x1000+", "0x1000+x", 17),
        ("0x10*n", "0x10*m", 17),
        ("stack holds 2", "stack holds 2 entries", 20),
        ("stack holds 2", "stack holds", 20),
        ("stack holds 2", "rdmsr IA32_NOTHING = 1", 20),
        ("stack holds 2", "rdmsr IA32_DEBUGCTL = JCC", 20),
        ("stack holds 2", "rdmsr FROM[1 = 0", 20),
        ("stack holds 2", "rdmsr IA32_DEBUGCTL => #GP(bad luck)", 20),
        ("stack holds 2", "image a CTL = 0", 20),
        ("stack holds 2", "cpuid 0x7.0 eax = 0", 20),
        ("stack holds 2", "entry 0 = 1 -> 2 type=CALL", 20),
        ("stack holds 2", "count INSTRUCTIONS = 2", 20),
    ] {
        assert_eq!(line_of(with(old, new)), line, "{old:?} -> {new:?}");
    }
}

#[test]
fn steps_stand_in_their_blocks() {
    let wrong = |result: Result<Scenario, (usize, Reason)>| {
        assert!(matches!(result, Err((_, Reason::WrongBlock { .. }))));
    };
    wrong(with("  lbr on # and another", "  stack holds 0"));
    wrong(with("  stack holds 2", "  lbr off"));
    wrong(with("  stack holds 2", "  jmp rel 1 -> 2"));
    assert_eq!(with(" => recorded", ""), Err((17, Reason::NoOutcome)));
    assert!(matches!(
        with("given\n", ""),
        Err((14, Reason::OutsideBlock(_)))
    ));
}

#[test]
fn headers_stand_once_and_none_is_missing() {
    for key in ["title", "area", "rule", "source", "profiles", "description"] {
        let mut without = GOOD.replacen(&format!("\n{key}:"), "\n# ", 1);
        if key == "description" {
            without = without.replace("  Two\n  lines.\n", "");
        }
        let error = read(&without).unwrap_err();
        assert_eq!(error, (1, Reason::MissingHeader(key)), "{key}");
    }
    assert_eq!(
        with("rule:", "title: B\nrule:").unwrap_err(),
        (4, Reason::HeaderOnce("title"))
    );
}

#[test]
fn a_file_that_expects_nothing_is_refused() {
    let nothing = GOOD.split("when").next().unwrap();
    assert_eq!(read(nothing), Err((1, Reason::NothingExpected)));
}

#[test]
fn a_failure_names_line_profile_device_expected_and_found() {
    let scenario = with("entry 0 = 0x1010", "entry 0 = 0x1011").unwrap();
    let (_, failures) = run_scenario(&scenario);
    let told: Vec<(usize, &str, Option<DeviceKind>)> = failures
        .iter()
        .map(|f| (f.line, f.profile.as_str(), f.device))
        .collect();
    assert_eq!(
        told,
        [
            (19, "skylake", Some(DeviceKind::Fast)),
            (19, "skylake", Some(DeviceKind::Reference)),
            (19, "alder-lake-p", Some(DeviceKind::Fast)),
            (19, "alder-lake-p", Some(DeviceKind::Reference)),
        ]
    );
    assert_eq!(failures[0].expected, "0x1011 -> 0x2000 mispred");
    assert_eq!(failures[0].found, "0x1010 -> 0x2000 mispred cycles=0");
}

#[test]
fn values_that_do_not_fit_and_counts_without_end_are_failures() {
    for (old, new) in [
        ("stack holds 2", "stack holds 1-2"),
        ("repeat 2", "repeat 1<<40"),
        ("stack holds 2", "entry 1<<40 empty"),
        ("stack holds 2", "rdmsr FROM[1<<33] = 0"),
        ("stack holds 2", "image A [0x329] = 0"),
        ("stack holds 2", "image A FROM[1<<60] = 0"),
    ] {
        let scenario = with(old, new).unwrap();
        let failures = run_scenario(&scenario).1;
        assert_eq!(failures.len(), 4, "{new}");
        // People read it: no value as the program's source would write it.
        assert!(!failures[0].found.contains('('), "{}", failures[0].found);
    }
}

const GUEST: &str = "\
scenario 1
title: RESET ends VMX operation
area: vmx
rule: 7.1/ranges
source: SDM
profiles: skylake
description: d

given
  vmx on
when
  vmlaunch
  STEP
  guest rdmsr IA32_DEBUGCTL = 0
";

#[test]
fn reset_ends_vmx_operation() {
    for (step, failures) in [("wait 1", 0), ("reset cold", 2), ("reset warm", 2)] {
        let text = GUEST.replace("STEP", step);
        let scenario = parse(Path::new("vmx/1199-name.scn"), &text).unwrap();
        assert_eq!(run_scenario(&scenario).1.len(), failures, "{step}");
    }
}

#[test]
fn memory_ends_at_its_last_byte() {
    let text = GUEST.replace(
        "vmlaunch\n  STEP",
        "vmwrite MSR_BITMAP 0xfffffffffffffff0\n  msr-bitmap pass all\n  vmwrite MSR_BITMAP 0x3000\n  vmlaunch",
    );
    let scenario = parse(Path::new("vmx/1199-name.scn"), &text).unwrap();
    assert_eq!(run_scenario(&scenario).1, []);
}

#[test]
fn what_the_model_cannot_do_is_neither_ok_nor_a_fault() {
    // Intel PT but for TraceEn; an event of no list.
    for write in ["IA32_RTIT_CTL 3", "IA32_PERFEVTSEL0 EN|USR|0xfe"] {
        for outcome in ["ok", "#GP", "#GP(reserved bits)"] {
            let step = format!("wrmsr {write} => {outcome} #");
            let scenario = with("lbr on #", &step).unwrap();
            assert_eq!(run_scenario(&scenario).1.len(), 4, "{step}");
        }
    }
}

#[test]
fn options_and_quirks_of_counters_are_told_from_those_of_the_lbr() {
    let scenario = with("seed = 7", "pmu.skid = 7").unwrap();
    assert_eq!((scenario.pmu_options.skid, scenario.options.seed), (7, 0));
    for option in [
        "pmu.skidd = 7",
        "pmu.seed = 7",
        "pmu.tsx = true",
        "pmu.feeds = []",
    ] {
        assert_eq!(line_of(with("seed = 7", option)), 7, "{option}");
    }
    let scenario = with("E12, !E12", "none, E12, E9").unwrap();
    let profile = vlbr_lbr::Profile::named("core2-45nm").unwrap();
    let lbr = scenario.options_for(profile).quirks.unwrap();
    assert!(lbr.contains(vlbr_lbr::Quirk::DuplicateTop));
    let pmu = scenario.pmu_options_for(profile).quirks.unwrap();
    assert!(pmu.contains(vlbr_pmu::Quirk::BufferBitGated));
    assert!(!pmu.contains(vlbr_pmu::Quirk::PebsLatePmi));
}

#[test]
fn steps_about_counters_are_read_or_refused() {
    for (step, good) in [
        ("rdpmc 0 = 0", true),
        ("rdpmc 0 cpl=3 pce = 0", true),
        ("rdpmc 0 cpl=4 = 0", false),
        ("rdpmc 0 => ok", false),
        ("lvtpc = MASK", true),
        ("lvtpc = NOISE", false),
        ("memory 0x10 = 0 mask 1", true),
        ("memory 0x10", false),
        ("run 1 instructions", false),
        ("deliver => none", false),
    ] {
        assert_eq!(with("stack holds 2", step).is_ok(), good, "{step}");
    }
    for (step, good) in [
        ("run 2 instructions 1 conditional-taken kernel in_tx", true),
        ("run 1 mispredicted-near-return", true),
        ("run 1 branches", false),
        ("run 1", false),
        ("run", false),
        ("deliver => vector 0xee", true),
        ("deliver => vector 256", false),
        ("deliver", false),
        ("set memory 1 = 2", true),
        ("set memory 1 2", false),
        ("set state r15 = 2", true),
        ("set state r16 = 2", false),
        ("memory 0x10 = 0", false),
    ] {
        assert_eq!(with("lbr on # and another", step).is_ok(), good, "{step}");
    }
}

#[test]
fn reasons_of_faults_differ() {
    for (fault, name) in Fault::NAMED {
        assert_eq!(fault.to_string(), format!("#GP({name})"));
        for (other, _) in Fault::NAMED {
            assert_eq!(fault.accepts(other), fault == other);
        }
        assert!(Fault::Any.accepts(fault));
    }
}

#[test]
fn paths_without_scenarios_are_errors_and_bad_files_are_failures() {
    let folder = tempfile::tempdir().unwrap();
    assert!(discover(&[folder.path()]).is_err());
    assert!(discover(&[folder.path().join("absent.scn")]).is_err());
    std::fs::write(folder.path().join("199-name.scn"), GOOD).unwrap();
    std::fs::write(folder.path().join("198-bad.scn"), b"scenario 1\n\xff").unwrap();
    std::fs::write(folder.path().join("197-long.scn"), vec![b' '; 70_000]).unwrap();
    std::fs::write(folder.path().join("ignored.txt"), "").unwrap();
    let report = run(&[folder.path()]).unwrap();
    assert!(!report.passed());
    assert_eq!((report.files.len(), report.failed_files()), (3, 2));
    let text = report.to_string();
    assert!(
        text.contains("198-bad.scn:1: the file is no scenario"),
        "{text}"
    );
    assert!(
        text.ends_with("1 of 3 scenarios passed, 2 runs on 2 devices, 0 of hosts"),
        "{text}"
    );
}

#[test]
fn the_readme_speaks_of_the_form_as_it_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let example = text.split("```\n").nth(1).expect("a fenced example");
    let scenario = parse(Path::new("313-example.scn"), example).unwrap();
    assert_eq!(run_scenario(&scenario).1, []);
    let flowing = text.replace('\n', " ");
    for (_, reason) in Fault::NAMED {
        assert!(flowing.contains(reason), "{reason}");
    }
    for area in Area::ALL {
        let range = format!("{} {}", area.first_number(), area.name());
        assert!(flowing.contains(&range), "{range}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,400}") {
        let _ = read(&text);
        let _ = read(&format!("scenario 1\n{text}"));
    }

    /// Words of the form in any order, spliced into a good file: read or refused, and if read,
    /// run without a panic.
    #[test]
    fn no_step_makes_the_runner_panic(words in proptest::collection::vec(word(), 1..9)) {
        let line = words.join(" ");
        for place in ["  lbr on # and another", "  stack holds 2"] {
            if let Ok(scenario) = read(&GOOD.replacen(place, &format!("  {line}"), 1)) {
                let _ = run_scenario(&scenario);
            }
        }
    }

    /// Steps about counters in any order: read or refused, and if read, run without a panic.
    #[test]
    fn no_step_about_counters_makes_the_runner_panic(
        steps in proptest::collection::vec(pmu_step(), 1..25),
        cpu in prop::sample::select(vec!["skylake", "core2-65nm", "alder-lake-p", "nehalem"]),
    ) {
        let text = GOOD.replace("skylake, alder-lake-p", cpu);
        let (header, _) = text.split_once("given").expect("a block");
        let steps = steps.join("\n  ");
        let text = format!("{header}given\n  {steps}\nthen\n  rdpmc 0 = 0\n");
        if let Ok(scenario) = read(&text) {
            let _ = run_scenario(&scenario);
        }
    }

    /// VMX steps in any order: read or refused, and if read, run without a panic.
    #[test]
    fn no_step_about_vmx_makes_the_runner_panic(
        steps in proptest::collection::vec(vmx_step(), 1..25),
        cpu in prop::sample::select(vec!["skylake", "core2-65nm", "alder-lake-p", "nehalem"]),
    ) {
        let text = GOOD.replace("skylake, alder-lake-p", cpu);
        let (header, _) = text.split_once("given").expect("a block");
        let steps = steps.join("\n  ");
        let text = format!("{header}when\n  vmx on\n  {steps}\n  vmread VM_EXIT_REASON = 0\n");
        if let Ok(scenario) = read(&text) {
            let _ = run_scenario(&scenario);
        }
    }
}

fn pmu_step() -> impl Strategy<Value = String> {
    let register = prop::sample::select(vec![
        "IA32_PERFEVTSEL0",
        "IA32_PERFEVTSEL2",
        "IA32_PMC0",
        "IA32_FIXED_CTR_CTRL",
        "IA32_PERF_GLOBAL_CTRL",
        "IA32_PERF_GLOBAL_STATUS_SET",
        "IA32_PEBS_ENABLE",
        "MSR_PEBS_DATA_CFG",
        "IA32_DS_AREA",
        "IA32_DEBUGCTL",
    ]);
    let value = prop_oneof![
        Just(0x1_0000u64),
        Just(0x53_00c0),
        Just(0xffff_ffff),
        Just(1),
        any::<u64>(),
    ];
    (0usize..8, register, value, 0u64..64).prop_map(|(form, register, a, b)| match form {
        0 | 1 => format!("wrmsr {register} {a:#x}"),
        2 => format!("run {b} instructions {a:#x} core-cycles kernel"),
        3 => format!("repeat {b} run 1 instructions 1 near-return in_tx"),
        4 => format!("set memory 0x1_0000+{b} = {a:#x}"),
        5 => format!("lvtpc {:#x}", a as u32),
        6 => format!("rdpmc {:#x} = {b}", a as u32),
        _ => "tsx-abort 0x1000 -> 0x2000 in_tx".to_owned(),
    })
}

fn vmx_step() -> impl Strategy<Value = String> {
    let field = prop::sample::select(vec![
        "MSR_BITMAP",
        "VM_ENTRY_MSR_LOAD_ADDR",
        "VM_ENTRY_MSR_LOAD_COUNT",
        "VM_EXIT_MSR_STORE_ADDR",
        "VM_EXIT_MSR_STORE_COUNT",
        "VM_EXIT_CONTROLS",
        "VM_ENTRY_CONTROLS",
        "PIN_BASED_VM_EXEC_CONTROL",
        "CPU_BASED_VM_EXEC_CONTROL",
        "VMX_PREEMPTION_TIMER_VALUE",
        "GUEST_IA32_DEBUGCTL",
        "VM_ENTRY_INTR_INFO_FIELD",
        "0x2817",
        "0xffffffff",
    ]);
    let number = prop_oneof![
        0u64..70,
        Just(0x1_0000),
        Just(1 << 45),
        Just(u64::MAX),
        any::<u64>(),
    ];
    let form = 0usize..14;
    (form, field, number.clone(), number).prop_map(|(form, field, a, b)| match form {
        0 => format!("vmwrite {field} {a:#x}"),
        1 => format!("vmcs set {field} {a:#x}"),
        2 => format!("vmcs clear {field} {a:#x}"),
        3 => format!("msr-bitmap exit read {:#x} {b:#x}", a as u32),
        4 => format!("msr-bitmap pass write {:#x} {b:#x}", a as u32),
        5 => format!("msr-bitmap byte {a:#x} {b:#x}"),
        6 => format!("area entry-load IA32_DEBUGCTL {a:#x}"),
        7 => format!("area exit-store FROM[{}] 0 reserved={b:#x}", a % 70),
        8 => "vmlaunch".to_owned(),
        9 => "vmresume".to_owned(),
        10 => format!("vmexit {a:#x}"),
        11 => format!("guest wrmsr FROM[{}] {b:#x}", a % 300),
        12 => format!("wait {:#x}", a >> 2),
        _ => "preemption-timer runs".to_owned(),
    })
}

fn word() -> impl Strategy<Value = String> {
    let fixed = [
        "cpu",
        "0:",
        "1:",
        "repeat",
        "3",
        "n",
        "depth",
        "depth+1",
        "0-1",
        "1<<63",
        "lbr",
        "on",
        "off",
        "user",
        "kernel",
        "call-stack",
        "wrmsr",
        "rdmsr",
        "IA32_DEBUGCTL",
        "IA32_LBR_CTL",
        "IA32_LBR_DEPTH",
        "MSR_LASTBRANCH_TOS",
        "FROM[n]",
        "TO[0]",
        "INFO[depth]",
        "=",
        "!=",
        "=>",
        "->",
        "mask",
        "ok",
        "#GP",
        "#GP(reserved",
        "bits)",
        "jmp",
        "rel",
        "ind",
        "far",
        "call",
        "ret",
        "syscall",
        "#db",
        "injected",
        "init",
        "smi",
        "rsm",
        "recorded",
        "popped",
        "ignored",
        "mispred",
        "in_tx",
        "after=9",
        "code=32->64",
        "cpl=0->3",
        "cs=4096",
        "wait",
        "pmi",
        "counter",
        "pebs",
        "reset",
        "warm",
        "cold",
        "warm-in-c6",
        "deep-c-state",
        "xsaves",
        "xrstors",
        "A",
        "set",
        "image",
        "CTL",
        "DEPTH",
        "[0x28]",
        "entry",
        "0",
        "empty",
        "stack",
        "holds",
        "count",
        "LBR_INSERTS",
        "cpuid",
        "0x1c.0",
        "eax",
        "cycles=none",
        "type=COND",
        "log-event",
        "pmc3",
        "verw",
        "zf=0",
        "vm-exit",
        "IA32_RTIT_CTL",
        "TRACE_EN",
    ];
    proptest::sample::select(fixed.map(str::to_owned).to_vec())
}
