//! Options and quirks by name, and what else each option could be.

use serde_json::{Map, Value, json};
use vlbr_lbr::{FreezeFlavour, Interface, Options, Profile, ReservedWrite, ReturnGate};

/// One option at another value than the case has.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) name: &'static str,
    pub(super) options: Options,
}

const fn freeze(flavour: FreezeFlavour) -> &'static str {
    match flavour {
        FreezeFlavour::Legacy => "legacy",
        FreezeFlavour::Streamlined => "streamlined",
    }
}

const fn reserved(write: ReservedWrite) -> &'static str {
    match write {
        ReservedWrite::Fault => "fault",
        ReservedWrite::Drop => "drop",
        ReservedWrite::Keep => "keep",
    }
}

const fn gate(gate: ReturnGate) -> &'static str {
    match gate {
        ReturnGate::Either => "either",
        ReturnGate::Both => "both",
        ReturnGate::Indirect => "indirect",
        ReturnGate::Relative => "relative",
    }
}

/// Options by the names of options files, in the order of [`Options`]; without `quirks`, which
/// stand by themselves, and without those that are left to the profile.
pub(super) fn named(options: &Options) -> Map<String, Value> {
    // Without `..`: a new option must be named here and in `others`.
    let Options {
        quirks: _,
        seed,
        tsx,
        callstack_saturate,
        pops_clear_slots,
        tsx_abort_ignores_far,
        arch_mask_from,
        arch_cpl_before,
        fused_from_compare,
        legacy_rsm_recorded,
        legacy_smi_recorded,
        legacy_init_recorded,
        alternative_format,
        freeze: freeze_flavour,
        init_clears_control,
        ler_software_interrupts,
        ler_addresses_only,
        arch_ler_filtered,
        depth_write_clears_ler,
        nehalem_return_gate,
        tr_records,
        cycle_saturation,
        legacy_info_reserved,
        arch_info_reserved,
        tos_write_masks,
        deep_c_state_reset,
        early_freeze_branches,
        duplicate_top_one_in,
        inserts_count_empty_pops,
    } = options;
    let all = [
        ("seed", json!(seed)),
        ("tsx", json!(tsx)),
        ("callstack_saturate", json!(callstack_saturate)),
        ("pops_clear_slots", json!(pops_clear_slots)),
        ("tsx_abort_ignores_far", json!(tsx_abort_ignores_far)),
        ("arch_mask_from", json!(arch_mask_from)),
        ("arch_cpl_before", json!(arch_cpl_before)),
        ("fused_from_compare", json!(fused_from_compare)),
        ("legacy_rsm_recorded", json!(legacy_rsm_recorded)),
        ("legacy_smi_recorded", json!(legacy_smi_recorded)),
        ("legacy_init_recorded", json!(legacy_init_recorded)),
        ("alternative_format", json!(alternative_format)),
        ("freeze", json!(freeze_flavour.map(freeze))),
        ("init_clears_control", json!(init_clears_control)),
        ("ler_software_interrupts", json!(ler_software_interrupts)),
        ("ler_addresses_only", json!(ler_addresses_only)),
        ("arch_ler_filtered", json!(arch_ler_filtered)),
        ("depth_write_clears_ler", json!(depth_write_clears_ler)),
        ("nehalem_return_gate", json!(gate(*nehalem_return_gate))),
        ("tr_records", json!(tr_records)),
        ("cycle_saturation", json!(cycle_saturation)),
        (
            "legacy_info_reserved",
            json!(reserved(*legacy_info_reserved)),
        ),
        ("arch_info_reserved", json!(reserved(*arch_info_reserved))),
        ("tos_write_masks", json!(tos_write_masks)),
        ("deep_c_state_reset", json!(deep_c_state_reset)),
        ("early_freeze_branches", json!(early_freeze_branches)),
        ("duplicate_top_one_in", json!(duplicate_top_one_in)),
        ("inserts_count_empty_pops", json!(inserts_count_empty_pops)),
    ];
    all.into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Options that differ from those of the case in one that the scenario leaves at its default.
/// `tsx` is not among them: a case tells CPUID, which says whether TSX is there.
pub(super) fn others(options: &Options, profile: &Profile) -> Vec<Other> {
    let default = named(&Options::default());
    let mut others = Vec::new();
    let stated = |name: &str| named(options).get(name) != default.get(name);
    let mut add = |name: &'static str, change: &dyn Fn(&mut Options)| {
        if !stated(name) {
            let mut options = options.clone();
            change(&mut options);
            others.push(Other { name, options });
        }
    };
    // Three, because noise of one bit is the same for every other seed.
    for seed in 1..=3 {
        add("seed", &|o| o.seed = seed);
    }
    add("callstack_saturate", &|o| o.callstack_saturate ^= true);
    add("pops_clear_slots", &|o| o.pops_clear_slots ^= true);
    add("tsx_abort_ignores_far", &|o| {
        o.tsx_abort_ignores_far ^= true
    });
    add("arch_mask_from", &|o| o.arch_mask_from ^= true);
    add("arch_cpl_before", &|o| o.arch_cpl_before ^= true);
    add("fused_from_compare", &|o| o.fused_from_compare ^= true);
    add("legacy_rsm_recorded", &|o| o.legacy_rsm_recorded ^= true);
    add("legacy_smi_recorded", &|o| o.legacy_smi_recorded ^= true);
    add("legacy_init_recorded", &|o| o.legacy_init_recorded ^= true);
    add("alternative_format", &|o| o.alternative_format ^= true);
    // The manuals contradict themselves for these; for all others they are clear.
    if profile.name().starts_with("goldmont") {
        add("freeze", &|o| o.freeze = Some(FreezeFlavour::Legacy));
    }
    add("init_clears_control", &|o| o.init_clears_control ^= true);
    add("ler_software_interrupts", &|o| {
        o.ler_software_interrupts ^= true
    });
    add("ler_addresses_only", &|o| o.ler_addresses_only ^= true);
    add("arch_ler_filtered", &|o| o.arch_ler_filtered ^= true);
    add("depth_write_clears_ler", &|o| {
        o.depth_write_clears_ler ^= true
    });
    for gate in [ReturnGate::Both, ReturnGate::Indirect, ReturnGate::Relative] {
        add("nehalem_return_gate", &|o| o.nehalem_return_gate = gate);
    }
    add("tr_records", &|o| o.tr_records ^= true);
    add("cycle_saturation", &|o| o.cycle_saturation >>= 1);
    for write in [
        ReservedWrite::Fault,
        ReservedWrite::Drop,
        ReservedWrite::Keep,
    ] {
        add("legacy_info_reserved", &|o| o.legacy_info_reserved = write);
        add("arch_info_reserved", &|o| o.arch_info_reserved = write);
    }
    add("tos_write_masks", &|o| o.tos_write_masks ^= true);
    // Of architectural LBR CPUID tells.
    if let Interface::Legacy(legacy) = profile.interface() {
        let resets = legacy.deep_c_state_reset;
        add("deep_c_state_reset", &|o| {
            o.deep_c_state_reset = Some(!resets)
        });
    }
    add("early_freeze_branches", &|o| {
        o.early_freeze_branches = o.early_freeze_branches.saturating_add(1)
    });
    add("duplicate_top_one_in", &|o| {
        o.duplicate_top_one_in = o.duplicate_top_one_in.saturating_add(1);
    });
    add("inserts_count_empty_pops", &|o| {
        o.inserts_count_empty_pops ^= true
    });
    others.retain(|other| other.options != *options);
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_that_is_named_has_another_value() {
        let profile = Profile::named("skylake").expect("known");
        let options = Options::default();
        let others = others(&options, profile);
        let default = named(&options);
        for name in default.keys() {
            assert!(others.iter().any(|other| other.name == name), "{name}");
        }
        for other in &others {
            let changed = named(&other.options);
            assert_ne!(changed.get(other.name), default.get(other.name));
        }
    }

    #[test]
    fn options_read_back_from_their_names() {
        let profile = Profile::named("nehalem").expect("known");
        for other in others(&Options::default(), profile) {
            let text = Value::Object(named(&other.options));
            let read: Options = serde_json::from_value(text).expect("options");
            assert_eq!(read, other.options, "{}", other.name);
        }
    }

    #[test]
    fn an_option_that_the_scenario_states_is_not_varied() {
        let profile = Profile::named("skylake").expect("known");
        let stated = Options {
            pops_clear_slots: false,
            ..Options::default()
        };
        let others = others(&stated, profile);
        assert!(others.iter().all(|other| other.name != "pops_clear_slots"));
    }
}
