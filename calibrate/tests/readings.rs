//! What the programs print is read, or refused with the line and the reason.

mod support;

use support::{IMAGE, MODULE};
use vlbr_arch::Msr;
use vlbr_arch::vmx::MsrArea;
use vlbr_calibrate::{Kind, LineError, Origin, Program, parse};

/// A run with these lines between header and end.
fn run(lines: &[&str]) -> String {
    let head = [
        "vlbr-calibrate 1",
        "program image",
        "cpu vendor=GenuineIntel family=0x6 model=0x55 stepping=0x7 core=0",
        "microcode 0x5003604",
        "system image-1",
        "hypervisor none",
        "tsc khz=2100000 from=cpuid",
    ];
    let count = head.len() + lines.len();
    let lines = [&head, lines].concat().join("\n");
    format!("{lines}\nend lines={count}\n")
}

/// Line number and reason of a refusal.
fn refused(text: &str) -> (usize, LineError) {
    let error = parse(text).expect_err(text);
    (error.line, error.error)
}

/// Why a row is refused.
fn row(row: &str) -> LineError {
    let (line, error) = refused(&run(&[row]));
    assert_eq!(line, 8, "{error}");
    error
}

const TICKS: &str = "unit=tsc batch=8 count=1000 overhead=40 min=300 q1=310 median=320 q3=350";

#[test]
fn both_programs_are_read_whatever_stands_around_their_runs() {
    let module = &parse(MODULE).unwrap()[0];
    assert_eq!(module.program, Program::Module);
    assert_eq!(module.origin, Origin::Synthetic);
    assert_eq!(module.system, "linux-0.0-synthetic");
    assert_eq!(module.rows.len(), 36);
    assert_eq!(module.skips[0].what, "xsaves");
    assert_eq!(module.skips[0].reason, "the processor has no XSAVES");
    let image = &parse(&IMAGE.replace('\n', "\r\n")).unwrap()[0];
    assert_eq!(image.program, Program::Image);
    let last = Kind::Area(MsrArea::ExitLoad, Msr::new(0x680), 64);
    assert!(image.rows.iter().any(|row| row.kind == last));
    assert_eq!(parse(&[MODULE, IMAGE].concat()).unwrap().len(), 2);
}

#[test]
fn a_run_is_synthetic_only_if_a_line_says_so() {
    let text = run(&[]);
    assert_eq!(parse(&text).unwrap()[0].origin, Origin::Hardware);
    let marked = format!("SYNTHETIC\n{text}");
    assert_eq!(parse(&marked).unwrap()[0].origin, Origin::Synthetic);
    for before in ["\u{feff}", "SeaBIOS\r\n", &text] {
        let runs = parse(&format!("{before}{marked}")).unwrap();
        assert!(runs.iter().all(|run| run.origin == Origin::Synthetic));
    }
    let named = text.replace("hypervisor none", "hypervisor named TCGTCGTCGTCG");
    let origin = Origin::Virtual("TCGTCGTCGTCG".to_owned());
    assert_eq!(parse(&named).unwrap()[0].origin, origin);
    // A hypervisor may call itself what it likes.
    let named = text.replace("hypervisor none", "hypervisor named none");
    let origin = Origin::Virtual("none".to_owned());
    assert_eq!(parse(&named).unwrap()[0].origin, origin);
}

#[test]
fn a_text_without_a_run_is_no_reading() {
    assert_eq!(refused(""), (1, LineError::NoHeader));
    assert_eq!(refused("rdmsr 60\n"), (2, LineError::NoHeader));
    let (line, error) = refused(&run(&[]).replace("calibrate 1", "calibrate 2"));
    assert_eq!((line, error), (1, LineError::Version("2".to_owned())));
}

#[test]
fn a_run_that_was_cut_off_is_refused() {
    let text = run(&[&format!("row fault {TICKS} aperf=0 mperf=0")]);
    let whole = text.trim_end();
    for (at, _) in whole.match_indices('\n') {
        let (line, error) = refused(&whole[..at]);
        assert_eq!(error, LineError::NoEnd(1), "{at}");
        assert_eq!(line, whole[..at].lines().count() + 1);
    }
    let (_, error) = refused(&whole[..whole.find(" q3").unwrap()]);
    assert_eq!(error, LineError::Missing("q3"));
    let lost = text.replace("microcode 0x5003604\n", "");
    let lines = LineError::Lines {
        stated: 8,
        found: 7,
    };
    assert_eq!(refused(&lost), (8, lines));
}

#[test]
fn every_fact_of_the_machine_stands_once() {
    for fact in ["program", "cpu", "microcode", "system", "hypervisor", "tsc"] {
        let text = run(&[]).replace("lines=7", "lines=6");
        let text: Vec<_> = text.lines().filter(|l| !l.starts_with(fact)).collect();
        let (_, error) = refused(&text.join("\n"));
        assert!(matches!(error, LineError::Missing(name) if name == fact));
    }
    let error = row("microcode 0x1");
    assert_eq!(error, LineError::Twice("microcode".to_owned()));
}

#[test]
fn unknown_words_rows_and_fields_are_refused() {
    assert_eq!(row("column 3"), LineError::Word("column".to_owned()));
    let error = row(&format!("row wbinvd {TICKS} aperf=0 mperf=0"));
    assert_eq!(error, LineError::RowKind("wbinvd".to_owned()));
    let error = row(&format!("row fault {TICKS} aperf=0 mperf=0 colour=1"));
    assert_eq!(error, LineError::Field("colour".to_owned()));
    let error = row(&format!("row fault msr=0x1d9 {TICKS} aperf=0 mperf=0"));
    assert_eq!(error, LineError::Field("msr".to_owned()));
    let error = row(&format!("row fault {TICKS} aperf=0 mperf=0 aperf=0"));
    assert_eq!(error, LineError::Twice("aperf".to_owned()));
    let error = row(&format!("row area list=entry msr=1 entries=1 {TICKS}"));
    assert!(matches!(error, LineError::Choice { field: "list", .. }));
    assert_eq!(row("skip vmx"), LineError::Missing("because"));
    let error = row("skip vmx because \u{1b}[2J");
    assert_eq!(error, LineError::Control('\u{1b}'));
}

#[test]
fn another_unit_than_ticks_of_the_tsc_is_refused() {
    let text = format!("row fault {TICKS} aperf=0 mperf=0").replace("tsc", "ns");
    let error = row(&text);
    assert!(matches!(error, LineError::Choice { field: "unit", value, .. } if value == "ns"));
}

#[test]
fn numbers_beyond_their_range_are_refused() {
    for (text, max) in [
        (
            format!("row rdmsr msr=0x100000000 {TICKS}"),
            u32::MAX.into(),
        ),
        (format!("row rdmsr msr=-1 {TICKS}"), u32::MAX.into()),
        (format!("row rdmsr msr=+1 {TICKS}"), u32::MAX.into()),
        (format!("row rdmsr msr=0x {TICKS}"), u32::MAX.into()),
        (format!("row fields loads=4097 {TICKS}"), 4096),
        (
            format!("row fault {TICKS} aperf=18446744073709551616 mperf=1"),
            u64::MAX,
        ),
    ] {
        let error = row(&text);
        assert!(
            matches!(error, LineError::Number { max: m, .. } if m == max),
            "{error}"
        );
    }
}

#[test]
fn quartiles_ascend_and_nothing_is_counted_zero_times() {
    let ticks =
        |from: &str, to: &str| row(&format!("row fault {TICKS} aperf=0 mperf=0").replace(from, to));
    assert_eq!(ticks("q1=310", "q1=321"), LineError::Order);
    assert_eq!(ticks("min=300", "min=311"), LineError::Order);
    assert_eq!(ticks("q3=350", "q3=319"), LineError::Order);
    assert_eq!(ticks("count=1000", "count=0"), LineError::Zero("count"));
    assert_eq!(ticks("batch=8", "batch=0"), LineError::Zero("batch"));
    let below = LineError::BelowOverhead {
        median: 320,
        overhead: 321,
    };
    assert_eq!(ticks("overhead=40", "overhead=321"), below);
    for (aperf, mperf) in [(0, 1), (1, 0), (1, 17), (17, 1), (u64::MAX, 1)] {
        let error = row(&format!("row fault {TICKS} aperf={aperf} mperf={mperf}"));
        assert_eq!(error, LineError::Ratio { aperf, mperf });
    }
}

#[test]
fn a_row_stands_once_in_a_run() {
    let text = format!("row rdmsr msr=0x1d9 {TICKS} aperf=0 mperf=0");
    let (line, error) = refused(&run(&[&text, &text]));
    assert_eq!(
        (line, error),
        (9, LineError::Row(Kind::Rdmsr(Msr::new(0x1d9))))
    );
}
