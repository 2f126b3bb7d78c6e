//! Options of the PMU by name, and what else each could be.

use serde_json::{Map, Value, json};
use vlbr_pmu::{FreezeFlavour, Options, Profile, ReservedWrite, SkidUnit, SmmRestore};

const fn reserved(write: ReservedWrite) -> &'static str {
    match write {
        ReservedWrite::Fault => "fault",
        ReservedWrite::Drop => "drop",
        ReservedWrite::Keep => "keep",
    }
}

/// Options by the names of options files, in the order of [`Options`]; without those that are of
/// both devices, and without what a scenario feeds.
pub(super) fn named(options: &Options) -> Map<String, Value> {
    // Without `..`: a new option must be named here.
    let Options {
        quirks: _,
        seed: _,
        tsx: _,
        feeds: _,
        cycle_by_cycle,
        unfed: _,
        skid,
        skid_unit,
        freeze,
        lvtpc_pend_on_unmask,
        smm_restore,
        any_thread_deprecated,
        pin_control_reserved,
        branch_lost_one_in,
    } = options;
    let unit = match skid_unit {
        SkidUnit::Instructions => "instructions",
        SkidUnit::CoreCycles => "core-cycles",
    };
    let flavour = freeze.map(|flavour| match flavour {
        FreezeFlavour::Legacy => "legacy",
        FreezeFlavour::Streamlined => "streamlined",
    });
    let restore = match smm_restore {
        SmmRestore::Previous => "previous",
        SmmRestore::AllOnes => "all-ones",
    };
    let all = [
        ("cycle_by_cycle", json!(cycle_by_cycle)),
        ("skid", json!(skid)),
        ("skid_unit", json!(unit)),
        ("freeze", json!(flavour)),
        ("lvtpc_pend_on_unmask", json!(lvtpc_pend_on_unmask)),
        ("smm_restore", json!(restore)),
        (
            "any_thread_deprecated",
            json!(reserved(*any_thread_deprecated)),
        ),
        (
            "pin_control_reserved",
            json!(reserved(*pin_control_reserved)),
        ),
        ("branch_lost_one_in", json!(branch_lost_one_in)),
    ];
    all.into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// One option at another value than the case has.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) name: &'static str,
    pub(super) options: Options,
}

/// Options that differ from those of the case in one that manuals leave open and the scenario
/// leaves at its default. The skid is not among them: a case says where the core takes interrupts.
pub(super) fn others(options: &Options, profile: &Profile) -> Vec<Other> {
    let default = Options::default();
    let mut others = Vec::new();
    let mut add = |name, stated: bool, change: &dyn Fn(&mut Options)| {
        if !stated {
            let mut options = options.clone();
            change(&mut options);
            others.push(Other { name, options });
        }
    };
    let stated = options.lvtpc_pend_on_unmask != default.lvtpc_pend_on_unmask;
    add("pmu.lvtpc_pend_on_unmask", stated, &|o| {
        o.lvtpc_pend_on_unmask ^= true;
    });
    let stated = options.smm_restore != default.smm_restore;
    add("pmu.smm_restore", stated, &|o| {
        o.smm_restore = SmmRestore::AllOnes;
    });
    let stated = options.freeze != default.freeze;
    if profile.name().starts_with("goldmont") {
        add("pmu.freeze", stated, &|o| {
            o.freeze = Some(FreezeFlavour::Legacy);
        });
    }
    for write in [
        ReservedWrite::Fault,
        ReservedWrite::Drop,
        ReservedWrite::Keep,
    ] {
        let stated = options.any_thread_deprecated != default.any_thread_deprecated;
        add("pmu.any_thread_deprecated", stated, &|o| {
            o.any_thread_deprecated = write;
        });
        let stated = options.pin_control_reserved != default.pin_control_reserved;
        add("pmu.pin_control_reserved", stated, &|o| {
            o.pin_control_reserved = write;
        });
    }
    others.retain(|other| other.options != *options);
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_read_back_from_their_names_and_differ_in_them() {
        let profile = Profile::named("goldmont").expect("known");
        let default = named(&Options::default());
        for other in others(&Options::default(), profile) {
            let map = named(&other.options);
            let name = other.name.strip_prefix("pmu.").expect("of the PMU");
            assert_ne!(map.get(name), default.get(name));
            let read: Options = serde_json::from_value(Value::Object(map)).expect("options");
            assert_eq!(read, other.options, "{}", other.name);
        }
    }

    #[test]
    fn an_option_that_the_scenario_states_is_not_varied() {
        let profile = Profile::named("skylake").expect("known");
        let stated = Options {
            lvtpc_pend_on_unmask: true,
            ..Options::default()
        };
        let others = others(&stated, profile);
        assert!(others.iter().all(|o| o.name != "pmu.lvtpc_pend_on_unmask"));
    }
}
