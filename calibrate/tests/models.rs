//! What readings make of a cost model, and what they may be called.

mod support;

use proptest::prelude::*;
use support::{IMAGE, MODULE};
use vlbr_calibrate::{
    CalibrateError, Calibration, Core, Options, Provenance, Run, calibrate, parse,
};
use vlbr_cpu::ledger::{Class, Cost, CostItem, CostModel};

/// Runs of both samples as if a processor had printed them.
fn unmarked() -> Vec<Run> {
    let text = [MODULE, IMAGE].concat();
    let text: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("SYNTHETIC"))
        .collect();
    parse(&text.join("\n")).unwrap()
}

fn options() -> Options<'static> {
    Options {
        base: CostModel::published(),
        allow_virtual: false,
        processors: &["skylake-server"],
    }
}

fn model(runs: &[Run]) -> Calibration {
    calibrate(runs, &options()).unwrap()
}

fn cost(calibration: &Calibration, item: CostItem) -> &Cost {
    calibration.model().cost(item).unwrap()
}

/// Every figure of readings has this class, but the fixed cost of an area, which has `fixed`.
fn classes(calibration: &Calibration, class: Class, fixed: Class) {
    let mut found = 0;
    for figure in calibration.figures() {
        if figure.provenance != Provenance::Base {
            let area = figure.item == CostItem::AreaFixed;
            let expected = if area { fixed } else { class };
            assert_eq!(figure.cost.class, expected, "{figure:?}");
            found += 1;
        }
    }
    assert!(found > 0);
}

#[test]
fn readings_of_hardware_are_class_h_with_medians_and_quartiles_in_core_clocks() {
    let calibration = model(&unmarked());
    classes(&calibration, Class::H, Class::D);
    assert_eq!(calibration.model().name(), "measured-06_55-7");
    // Ticks of one access times 1.5; the quartiles lie one tick below and three above.
    let debugctl = cost(&calibration, CostItem::RdmsrControl);
    assert_eq!(
        (debugctl.low, debugctl.default, debugctl.high),
        (Some(74), 75, Some(80))
    );
    // Twelve registers of 30, 32 and 34, two of 28; 0x680 of two runs is one of 33.
    let lbr = cost(&calibration, CostItem::RdmsrLbr);
    assert_eq!((lbr.low, lbr.default, lbr.high), (Some(41), 48, Some(59)));
    let trip = cost(&calibration, CostItem::RoundTrip);
    assert_eq!(
        (trip.low, trip.default, trip.high),
        (Some(596), 615, Some(644))
    );
}

#[test]
fn the_source_names_processor_microcode_system_samples_and_unit() {
    let calibration = model(&unmarked());
    let source = &cost(&calibration, CostItem::RdmsrControl).source;
    assert_eq!(
        source,
        "timed: GenuineIntel 06_55 stepping 7, microcode 0x1, linux-0.0-synthetic (module), \
         TSC 2100000 kHz by kernel; median and quartiles, empty timing subtracted; 1 row of 1000 \
         samples; core clocks: TSC ticks times APERF/MPERF, 1.500"
    );
    let source = &cost(&calibration, CostItem::RdmsrLbr).source;
    assert!(source.contains("linux-0.0-synthetic (module)") && source.contains("image-1 (image)"));
}

#[test]
fn area_entries_and_fields_cost_the_slope_and_the_first_entry_the_rest() {
    let calibration = model(&unmarked());
    let figure = |item| cost(&calibration, item).default;
    // Two lists of 60 and 64 ticks an entry, one of 40, 20 a field; the first entry adds 40.
    assert_eq!(figure(CostItem::AreaLoad), 93);
    assert_eq!(figure(CostItem::AreaStore), 60);
    assert_eq!(figure(CostItem::AreaFixed), 60);
    assert_eq!(figure(CostItem::Field), 30);
}

#[test]
fn what_was_not_timed_is_the_base_models_with_its_class() {
    let calibration = model(&unmarked());
    let published = CostModel::published();
    for item in [CostItem::Xsaves, CostItem::Xrstors] {
        assert_eq!(calibration.model().cost(item), published.cost(item));
    }
    let names = |model: &CostModel| -> Vec<String> {
        model
            .processors()
            .map(|(name, _)| name.to_owned())
            .collect()
    };
    assert_eq!(names(calibration.model()), names(published));
    for (name, cost) in calibration.model().processors() {
        let timed = name == "skylake-server";
        assert_eq!(cost.class == Class::H && !cost.remembered, timed, "{name}");
        assert_eq!(
            Some(cost) == published.cost_on(CostItem::RoundTrip, name),
            !timed
        );
    }
}

#[test]
fn the_text_is_the_model_and_the_same_each_time() {
    let calibration = model(&unmarked());
    let text = calibration.to_toml();
    assert_eq!(&CostModel::from_toml(&text).unwrap(), calibration.model());
    assert_eq!(text, model(&unmarked()).to_toml());
    // A model made this way is a base like any other.
    let base = calibration.model();
    let again = calibrate(&unmarked(), &Options { base, ..options() }).unwrap();
    assert_eq!(again.model(), base);
}

#[test]
fn the_order_of_the_runs_changes_no_figure() {
    let mut runs = unmarked();
    let figures = |runs: &[Run]| -> Vec<_> {
        let of = |cost: &Cost| (cost.low, cost.default, cost.high, cost.class);
        let made = model(runs);
        made.figures()
            .iter()
            .map(|figure| of(&figure.cost))
            .collect()
    };
    let before = figures(&runs);
    runs.reverse();
    assert_eq!(figures(&runs), before);
}

#[test]
fn synthetic_readings_are_never_called_measured() {
    let runs = parse(&[MODULE, IMAGE].concat()).unwrap();
    for allow_virtual in [false, true] {
        let options = Options {
            allow_virtual,
            ..options()
        };
        let calibration = calibrate(&runs, &options).unwrap();
        classes(&calibration, Class::E, Class::E);
        assert_eq!(calibration.model().name(), "synthetic-06_55-7");
        let source = &cost(&calibration, CostItem::RoundTrip).source;
        assert!(
            source.starts_with("synthetic, nothing was timed: "),
            "{source}"
        );
    }
}

#[test]
fn readings_under_a_hypervisor_are_refused_or_class_e() {
    let text = IMAGE.replace("hypervisor none", "hypervisor named TCGTCGTCGTCG");
    let runs = parse(text.trim_start_matches("SYNTHETIC")).unwrap();
    let error = calibrate(&runs, &options()).unwrap_err();
    assert_eq!(error, CalibrateError::Virtual("TCGTCGTCGTCG".to_owned()));
    assert!(
        error
            .to_string()
            .contains("measured under TCGTCGTCGTCG, not on hardware")
    );
    let allowed = Options {
        allow_virtual: true,
        ..options()
    };
    let calibration = calibrate(&runs, &allowed).unwrap();
    classes(&calibration, Class::E, Class::E);
    assert_eq!(calibration.model().name(), "virtual-06_55-7");
    let source = &cost(&calibration, CostItem::RoundTrip).source;
    assert!(
        source.starts_with("timed under TCGTCGTCGTCG, not on hardware: "),
        "{source}"
    );
}

#[test]
fn a_hypervisor_that_hides_shows_in_the_time_of_cpuid() {
    // Leaf 0 takes 66 ticks of 1.5 cycles in the sample.
    for (ticks, cycles) in [("1", 2), ("1200", 1800)] {
        let mut runs = unmarked();
        let ticks: u32 = ticks.parse().unwrap();
        let control = &mut runs[0].rows[0].ticks;
        (control.overhead, control.min) = (0, 0);
        (control.q1, control.median, control.q3) = (0, ticks * 8, ticks * 8);
        let error = calibrate(&runs, &options()).unwrap_err();
        let (low, high) = (40, 1000);
        assert_eq!(error, CalibrateError::Control { cycles, low, high });
        let allowed = Options {
            allow_virtual: true,
            ..options()
        };
        classes(&calibrate(&runs, &allowed).unwrap(), Class::E, Class::E);
    }
    let mut runs = unmarked();
    runs[1].rows.remove(0);
    assert_eq!(calibrate(&runs, &options()), Err(CalibrateError::NoControl));
}

#[test]
fn ticks_that_no_clock_turns_into_cycles_are_estimates() {
    let mut runs = unmarked();
    for row in runs.iter_mut().flat_map(|run| &mut run.rows) {
        row.ticks.clock = None;
    }
    let calibration = model(&runs);
    classes(&calibration, Class::E, Class::E);
    assert_eq!(calibration.model().name(), "estimated-06_55-7");
    let source = &cost(&calibration, CostItem::RdmsrControl).source;
    assert!(source.ends_with("TSC ticks, taken for core clocks: no APERF and MPERF"));
}

#[test]
fn a_handful_of_samples_is_no_measurement() {
    let mut runs = unmarked();
    for row in runs.iter_mut().flat_map(|run| &mut run.rows) {
        row.ticks.count = 99;
    }
    classes(&model(&runs), Class::E, Class::E);
}

#[test]
fn readings_of_two_processors_or_two_origins_do_not_mix() {
    assert_eq!(calibrate(&[], &options()), Err(CalibrateError::Empty));
    let mut runs = unmarked();
    runs[1].signature.stepping = 4;
    let error = calibrate(&runs, &options()).unwrap_err();
    assert!(matches!(&error, CalibrateError::Machines(a, b) if a.stepping == 7 && b.stepping == 4));
    runs[1].signature.stepping = 7;
    runs[1].signature.core = Core::Atom;
    let error = calibrate(&runs, &options()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("stepping 7 (Atom core): a model is that of one"),
        "{error}"
    );
    let runs = [unmarked(), parse(IMAGE).unwrap()].concat();
    let error = calibrate(&runs, &options()).unwrap_err();
    assert!(matches!(error, CalibrateError::Origins(..)), "{error}");
}

#[test]
fn noise_that_makes_a_cost_negative_or_too_large_is_refused() {
    let text = IMAGE
        .replace("entries=64", "entries=4")
        .replace("SYNTHETIC", "");
    let mut runs = parse(&text).unwrap();
    let error = |runs: &[Run]| calibrate(runs, &options()).unwrap_err();
    // Four entries that take what 64 did: steep, but no negative cost.
    assert!(calibrate(&runs, &options()).is_ok());
    for row in &mut runs[0].rows {
        if matches!(row.kind, vlbr_calibrate::Kind::Area(_, _, 32)) {
            row.ticks.q1 = 0;
            (row.ticks.min, row.ticks.overhead, row.ticks.median) = (0, 0, 1);
        }
    }
    assert!(matches!(error(&runs), CalibrateError::Falling(_)));
    runs[0]
        .rows
        .retain(|row| !matches!(row.kind, vlbr_calibrate::Kind::Area(_, _, 1 | 4 | 8)));
    assert!(matches!(error(&runs), CalibrateError::Short(_)));
    runs[0].rows.truncate(1);
    assert_eq!(error(&runs), CalibrateError::NoFigure);
}

proptest! {
    #[test]
    fn whatever_the_ticks_are_the_figures_ascend_and_the_text_reads_back(
        ticks in prop::collection::vec((any::<u32>(), 0_u32..1 << 20, 0_u32..1 << 20, 1_u32..64), 36),
        aperf in 1_u64..1 << 40,
        ratio in 1_u64..16,
    ) {
        let mut runs = parse(MODULE).unwrap();
        for (row, (overhead, low, high, batch)) in runs[0].rows.iter_mut().zip(ticks) {
            let overhead = overhead >> 4;
            let ticks = &mut row.ticks;
            (ticks.overhead, ticks.batch) = (overhead, batch);
            (ticks.min, ticks.q1) = (overhead, overhead);
            (ticks.median, ticks.q3) = (overhead + low, overhead + low + high);
            ticks.clock = Some(vlbr_calibrate::Clock { aperf, mperf: aperf * ratio });
        }
        let calibration = calibrate(&runs, &options()).unwrap();
        for figure in calibration.figures() {
            let cost = &figure.cost;
            prop_assert!(cost.low.unwrap_or(0) <= cost.default);
            prop_assert!(cost.default <= cost.high.unwrap_or(u32::MAX));
        }
        let again = CostModel::from_toml(&calibration.to_toml()).unwrap();
        prop_assert_eq!(&again, calibration.model());
    }
}
