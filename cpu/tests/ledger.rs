//! The ledger and cost models.

use std::collections::BTreeMap;

use proptest::prelude::*;
use vlbr_arch::Msr;
use vlbr_arch::vmx::{ExitReason, MsrArea, VmcsField};
use vlbr_cpu::ledger::{
    Actor, Bound, Class, CostItem, CostModel, CostModelError, Event, Ledger, MsrAccess, Prices,
};

/// Registers below 0x100 exist.
#[derive(Debug, Default)]
struct Msrs(BTreeMap<Msr, u64>);

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("#GP(0)")]
struct Gp;

impl MsrAccess for Msrs {
    type Fault = Gp;

    fn rdmsr(&mut self, msr: Msr) -> Result<u64, Gp> {
        match msr.value() {
            0..0x100 => Ok(self.0.get(&msr).copied().unwrap_or(0)),
            _ => Err(Gp),
        }
    }

    fn wrmsr(&mut self, msr: Msr, value: u64) -> Result<(), Gp> {
        self.rdmsr(msr)?;
        self.0.insert(msr, value);
        Ok(())
    }

    fn reserved_bits(&self, _: Msr) -> u64 {
        0
    }
}

const MSR: Msr = Msr::new(0x10);
const NONE: Msr = Msr::new(0x100);

fn primitive(ledger: &mut Ledger, msrs: &mut Msrs, n: usize) {
    match n {
        0 => drop(ledger.rdmsr(Actor::Guest, msrs, MSR)),
        1 => drop(ledger.rdmsr(Actor::Host, msrs, NONE)),
        2 => drop(ledger.wrmsr(Actor::HostSave, msrs, MSR, 1)),
        3 => drop(ledger.wrmsr(Actor::HostSave, msrs, NONE, 1)),
        4 => drop(ledger.xsaves(Actor::HostSave, || Ok::<_, Gp>(()))),
        5 => drop(ledger.xrstors(Actor::HostRestore, || Err(Gp))),
        6 => drop(ledger.area_load(MsrArea::EntryLoad, msrs, MSR, 1)),
        7 => drop(ledger.area_store(MsrArea::ExitStore, msrs, NONE)),
        8 => drop(ledger.field_load(msrs, MSR, 2)),
        9 => drop(ledger.field_save(msrs, MSR)),
        10 => drop(ledger.field_clear(msrs, MSR)),
        11 => ledger.vm_entry(),
        12 => ledger.vm_exit(ExitReason::HLT.as_entry_failure(), None),
        13 => ledger.vm_entry_failure(ExitReason::MSR_LOADING),
        14 => ledger.area(MsrArea::ExitLoad),
        15 => drop(
            ledger.vmread(Actor::ExitHandler, VmcsField::VM_EXIT_REASON, || {
                Ok::<_, Gp>(0)
            }),
        ),
        _ => drop(ledger.vmwrite(Actor::ExitHandler, VmcsField::GUEST_RIP, || Err(Gp))),
    }
}

#[test]
fn a_primitive_does_what_it_counts() {
    let (mut ledger, mut msrs) = (Ledger::new(), Msrs::default());
    assert_eq!(ledger.wrmsr(Actor::Guest, &mut msrs, MSR, 7), Ok(()));
    assert_eq!(ledger.rdmsr(Actor::Host, &mut msrs, MSR), Ok(7));
    assert_eq!(ledger.field_save(&mut msrs, MSR), Ok(7));
    assert_eq!(ledger.field_clear(&mut msrs, MSR), Ok(()));
    assert_eq!(ledger.area_store(MsrArea::ExitStore, &mut msrs, MSR), Ok(0));
    assert_eq!(
        ledger.area_load(MsrArea::ExitLoad, &mut msrs, MSR, 9),
        Ok(())
    );
    assert_eq!(msrs.rdmsr(MSR), Ok(9));
    assert_eq!(ledger.count(Actor::Guest, Event::Wrmsr(MSR)), 1);
    assert_eq!(ledger.count(Actor::Host, Event::Rdmsr(MSR)), 1);
    assert_eq!(ledger.count(Actor::Host, Event::Wrmsr(MSR)), 0);
    assert_eq!(ledger.total(|actor, _| actor == Actor::Hardware), 4);
}

#[test]
fn faults_of_accesses_are_counted_apart_and_failed_transfers_not_at_all() {
    let (mut ledger, mut msrs) = (Ledger::new(), Msrs::default());
    for n in 0..17 {
        primitive(&mut ledger, &mut msrs, n);
    }
    let rows: Vec<String> = ledger
        .rows()
        .map(|(actor, event, count)| format!("{actor}: {event}: {count}"))
        .collect();
    assert_eq!(
        rows,
        [
            "guest: RDMSR MSR 0x10: 1",
            "host: RDMSR MSR 0x100: #GP: 1",
            "host save: WRMSR MSR 0x10: 1",
            "host save: WRMSR MSR 0x100: #GP: 1",
            "host save: XSAVES of the LBR: 1",
            "exit handler: VMREAD Exit reason: 1",
            "hardware: VM entry: 1",
            "hardware: VM-entry failure: MSR loading: 1",
            "hardware: VM exit: HLT: 1",
            "hardware: VM-exit MSR-load area: 1",
            "hardware: VM-entry MSR-load MSR 0x10: 1",
            "hardware: MSR 0x10 from its VMCS field: 1",
            "hardware: MSR 0x10 to its VMCS field: 1",
            "hardware: MSR 0x10 cleared by VM exit: 1",
        ]
    );
}

#[test]
fn the_difference_to_what_is_no_earlier_state_is_none() {
    let (mut one, mut other, mut msrs) = (Ledger::new(), Ledger::new(), Msrs::default());
    primitive(&mut one, &mut msrs, 0);
    primitive(&mut other, &mut msrs, 1);
    assert_eq!(one.since(&other), None);
    let early = one.clone();
    primitive(&mut one, &mut msrs, 0);
    assert_eq!(early.since(&one), None);
    assert_eq!(one.since(&one), Some(Ledger::new()));
}

#[test]
fn the_published_model_has_the_default_costs() {
    let model = CostModel::published();
    for (item, low, default, high, class) in [
        (CostItem::RdmsrLbr, 30, 60, 120, Class::E),
        (CostItem::WrmsrLbr, 80, 130, 300, Class::E),
        (CostItem::RdmsrControl, 100, 100, 100, Class::D),
        (CostItem::WrmsrControl, 100, 150, 300, Class::E),
        (CostItem::WrmsrPmc, 100, 120, 150, Class::E),
        (CostItem::RdmsrGeneric, 80, 90, 100, Class::D),
        (CostItem::WrmsrGeneric, 80, 90, 100, Class::D),
        (CostItem::Xsaves, 300, 600, 1500, Class::E),
        (CostItem::Xrstors, 400, 900, 2500, Class::E),
        (CostItem::VmcsAccess, 15, 20, 50, Class::D),
        (CostItem::AreaLoad, 60, 110, 250, Class::E),
        (CostItem::AreaStore, 40, 70, 150, Class::E),
        (CostItem::AreaFixed, 20, 60, 150, Class::E),
        (CostItem::Field, 10, 25, 60, Class::E),
    ] {
        let cost = model.cost(item).unwrap();
        let found = (
            cost.at(Bound::Low),
            cost.default,
            cost.at(Bound::High),
            cost.class,
        );
        assert_eq!(found, (low, default, high, class), "{item}");
    }
    assert_eq!(model.exit_share(), 55);
}

#[test]
fn registers_fall_under_their_costs() {
    for (msr, read, write) in [
        (
            Msr::LASTBRANCH_0_FROM_IP,
            CostItem::RdmsrLbr,
            CostItem::WrmsrLbr,
        ),
        (Msr::LBR_0_TO_IP, CostItem::RdmsrLbr, CostItem::WrmsrLbr),
        (Msr::LASTBRANCH_TOS, CostItem::RdmsrLbr, CostItem::WrmsrLbr),
        (
            Msr::DEBUGCTL,
            CostItem::RdmsrControl,
            CostItem::WrmsrControl,
        ),
        (Msr::LBR_CTL, CostItem::RdmsrControl, CostItem::WrmsrControl),
        (
            Msr::PERF_GLOBAL_CTRL,
            CostItem::RdmsrGeneric,
            CostItem::WrmsrPmc,
        ),
        (Msr::new(0xc1), CostItem::RdmsrGeneric, CostItem::WrmsrPmc),
        (Msr::FS_BASE, CostItem::RdmsrGeneric, CostItem::WrmsrGeneric),
    ] {
        assert_eq!(CostItem::of_msr(msr, false), read, "{msr}");
        assert_eq!(CostItem::of_msr(msr, true), write, "{msr}");
    }
}

#[test]
fn an_estimate_names_its_model_and_the_worst_class_used() {
    let (mut ledger, mut msrs) = (Ledger::new(), Msrs::default());
    let model = CostModel::published();
    let show = |ledger: &Ledger, cpu| {
        let estimate = model.estimate(ledger, cpu, Bound::Default);
        estimate.expect("a price").to_string()
    };
    assert_eq!(show(&ledger, "skylake"), "0 cycles (model published)");
    ledger.vm_entry();
    ledger.vm_exit(ExitReason::HLT, None);
    assert_eq!(
        show(&ledger, "westmere"),
        "761 cycles (model published, worst class H (measured), partly from memory)"
    );
    primitive(&mut ledger, &mut msrs, 0);
    assert_eq!(
        show(&ledger, "westmere"),
        "851 cycles (model published, worst class D (derived), partly from memory)"
    );
    primitive(&mut ledger, &mut msrs, 4);
    assert_eq!(
        show(&ledger, "westmere"),
        "1451 cycles (model published, worst class E (estimated), partly from memory)"
    );
}

#[test]
fn an_exit_without_its_entry_is_estimated_by_share() {
    let mut ledger = Ledger::new();
    ledger.vm_exit(ExitReason::HLT, None);
    let model = CostModel::published();
    let price = |ledger: &Ledger| model.estimate(ledger, "westmere", Bound::Default).unwrap();
    let exit = price(&ledger);
    assert_eq!((exit.cycles, exit.worst), (418, Some(Class::E)));
    ledger.vm_entry();
    let both = price(&ledger);
    assert_eq!((both.cycles, both.worst), (761, Some(Class::H)));
}

/// 55 of 100 parts of 761 cycles, and the rest.
#[test]
fn exit_and_entry_take_their_shares_of_a_round_trip_where_they_happen() {
    let prices = Prices::new(CostModel::published(), "westmere").unwrap();
    let mut ledger = Ledger::new();
    ledger.set_prices(prices, 3);
    ledger.charge_to(2);
    ledger.vm_exit(ExitReason::HLT, None);
    ledger.charge_to(1);
    ledger.vm_entry();
    let mut spent = Vec::new();
    ledger.take_spent(&mut spent);
    assert_eq!(spent, [(1, 343), (2, 418)]);
    ledger.take_spent(&mut spent);
    assert_eq!(spent, []);
}

#[test]
fn every_processor_with_a_round_trip_of_its_own_has_one_of_the_published_figures() {
    let model = CostModel::published();
    let found: Vec<_> = model
        .processors()
        .map(|(name, cost)| (name, cost.default))
        .collect();
    let expected = [
        ("broadwell", 570),
        ("core2-45nm", 1266),
        ("core2-65nm", 1579),
        ("haswell", 540),
        ("ice-lake-server", 800),
        ("ivy-bridge", 760),
        ("kaby-lake", 497),
        ("nehalem", 1009),
        ("sandy-bridge", 784),
        ("sapphire-rapids", 950),
        ("skylake", 568),
        ("skylake-server", 700),
        ("westmere", 761),
    ];
    assert_eq!(found, expected);
    let unknown = model.cost_on(CostItem::RoundTrip, "tremont");
    assert_eq!(unknown, model.cost(CostItem::RoundTrip));
}

#[test]
fn models_that_are_none_are_refused() {
    let text = include_str!("../costs/published.toml");
    for (from, to, expected) in [
        (
            "name = \"published\"",
            "name = \" \"",
            CostModelError::Empty("name".to_owned()),
        ),
        (
            "exit_share = 55",
            "exit_share = 101",
            CostModelError::Share(101),
        ),
        (
            "xsaves_lbr = { low = 300",
            "xsaves_lbr = { low = 601",
            CostModelError::Order("xsaves_lbr".to_owned()),
        ),
        (
            "xsaves_lbr =",
            "xsave_lbr =",
            CostModelError::UnknownItem("xsave_lbr".to_owned()),
        ),
        (
            "source = \"interpolated\"",
            "source = \"\"",
            CostModelError::Empty("the source of broadwell".to_owned()),
        ),
    ] {
        assert!(text.contains(from), "{from}");
        assert_eq!(
            CostModel::from_toml(&text.replacen(from, to, 1)),
            Err(expected)
        );
    }
    let line = text
        .lines()
        .find(|line| line.starts_with("vmcs_field"))
        .unwrap();
    assert_eq!(
        CostModel::from_toml(&text.replace(line, "")),
        Err(CostModelError::Missing(CostItem::Field))
    );
    for (from, to) in [
        ("class = \"H\"", "class = \"F\""),
        ("default = 570", "default = -1"),
        ("exit_share", "share"),
    ] {
        let error = CostModel::from_toml(&text.replacen(from, to, 1)).unwrap_err();
        assert!(matches!(error, CostModelError::Toml(_)), "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}

proptest! {
    /// Splitting a run changes no row and no price.
    #[test]
    fn a_run_in_parts_adds_up(
        run in prop::collection::vec(0usize..17, 0..60),
        cut in 0usize..60,
    ) {
        let cut = cut.min(run.len());
        let (mut whole, mut msrs) = (Ledger::new(), Msrs::default());
        let mut at_cut = Ledger::new();
        for (i, n) in run.iter().enumerate() {
            if i == cut {
                at_cut = whole.clone();
            }
            primitive(&mut whole, &mut msrs, *n);
        }
        if cut == run.len() {
            at_cut = whole.clone();
        }
        let rest = whole.since(&at_cut).expect("the cut is earlier");
        let mut sum = at_cut.clone();
        sum.merge(&rest);
        prop_assert_eq!(&sum, &whole);
        let cycles = |ledger| CostModel::published().estimate(ledger, "skylake", Bound::High).unwrap().cycles;
        prop_assert_eq!(cycles(&at_cut) + cycles(&rest), cycles(&whole));
    }
}
