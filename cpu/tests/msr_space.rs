//! The MSR space of every part: what the table says is what RDMSR and WRMSR do, over both ranges of
//! an MSR bitmap.

use vlbr_arch::{Cpl, Msr, PerfCapabilities};
use vlbr_cpu::ledger::MsrAccess;
use vlbr_cpu::processor::{
    Core, LogicalProcessor, MsrDescription, MsrMode, MsrReason, MsrScope, Options, Owner,
    ProcessorError, UnknownMsrs, ValueRule, describe,
};
use vlbr_pmu::Unfed;

/// Options under which no event is refused by the model.
fn as_hardware() -> Options {
    Options {
        pmu: vlbr_pmu::Options {
            unfed: Unfed::Hold,
            ..vlbr_pmu::Options::default()
        },
        ..Options::default()
    }
}

fn parts() -> impl Iterator<Item = (&'static vlbr_lbr::Profile, &'static vlbr_pmu::Profile)> {
    vlbr_lbr::Profile::all().iter().map(|lbr| {
        let pmu = vlbr_pmu::Profile::named(lbr.name()).unwrap();
        (lbr, pmu)
    })
}

fn both_ranges() -> impl Iterator<Item = Msr> {
    (0..0x2000).chain(0xc000_0000..0xc000_2000).map(Msr::new)
}

/// Whether WRMSR of `value` to a processor as after power-up does not fault.
fn takes(fresh: &LogicalProcessor, msr: Msr, value: u64) -> bool {
    match fresh.clone().wrmsr(msr, value) {
        Ok(()) => true,
        // What Intel PT has beside TraceEn is listed as reserved.
        Err(fault) => !fault.is_gp() && msr != Msr::RTIT_CTL,
    }
}

fn check_row(fresh: &LogicalProcessor, row: &MsrDescription) {
    let (msr, mut processor) = (row.msr, fresh.clone());
    assert_eq!(processor.rdmsr(msr), Ok(row.reset), "{msr}");
    let read_only = row.mode == MsrMode::ReadOnly;
    assert_eq!(read_only, row.values == ValueRule::None, "{msr}");
    for n in 0..64u8 {
        let value = 1 << n;
        let reserved = row.reserved & value != 0;
        let expected = match &row.values {
            ValueRule::Any | ValueRule::LowHalf => !reserved,
            ValueRule::None => false,
            ValueRule::Canonical(bits) => n + 1 < *bits,
            ValueRule::SignUpTo(high) => n < 47 || n > *high,
            ValueRule::OneOf(values) => values.contains(&value),
            ValueRule::Keeping(bits) => (value ^ row.reset) & bits == 0,
        };
        assert_eq!(takes(fresh, msr, value), expected, "{msr} bit {n}: {row:?}");
        if let ValueRule::Keeping(bits) = row.values {
            let flipped = row.reset ^ value;
            assert_eq!(takes(fresh, msr, flipped), bits & value == 0, "{msr} {n}");
        }
    }
    // Negative addresses are addresses.
    match row.values {
        ValueRule::Canonical(bits) => assert!(takes(fresh, msr, !0 << (bits - 1)), "{msr}"),
        ValueRule::SignUpTo(_) => assert!(takes(fresh, msr, !0 << 47), "{msr}"),
        _ => {}
    }
}

#[test]
fn the_table_of_every_part_is_what_its_registers_do() {
    let mut rows = 0;
    for (lbr, pmu) in parts() {
        let options = as_hardware();
        let table = describe(lbr, pmu, &options).unwrap();
        assert!(table.is_sorted_by(|a, b| a.msr < b.msr), "{}", lbr.name());
        let mut fresh = LogicalProcessor::new(lbr, pmu, options).unwrap();
        for msr in both_ranges() {
            let row = table.iter().find(|row| row.msr == msr);
            let read = fresh.rdmsr(msr);
            assert_eq!(read.is_ok(), row.is_some(), "{} {msr}", lbr.name());
            assert_eq!(fresh.owner(msr), row.map(|row| row.owner));
            if let Err(fault) = read {
                assert_eq!(fault.reason, MsrReason::NoSuchMsr);
                let fault = fresh.wrmsr(msr, 0).unwrap_err();
                assert_eq!(fault.reason, MsrReason::NoSuchMsr);
                assert_eq!(fresh.reserved_bits(msr), u64::MAX);
            }
        }
        for row in &table {
            check_row(&fresh, row);
        }
        rows += table.len();
    }
    // The bundled parts have some dozens each.
    assert!(rows > 33 * 40, "{rows}");
}

#[test]
fn above_cpl_0_every_access_is_refused_before_anything_else() {
    for (lbr, pmu) in parts() {
        let mut processor = LogicalProcessor::new(lbr, pmu, Options::default()).unwrap();
        let listed: Vec<Msr> = processor.msrs().iter().map(|(msr, _)| *msr).collect();
        for msr in listed.into_iter().chain([Msr::FS_BASE]) {
            for cpl in [Cpl::Ring1, Cpl::Ring2, Cpl::Ring3] {
                let fault = processor.read_msr(msr, cpl).unwrap_err();
                assert_eq!((fault.reason, fault.msr), (MsrReason::Privilege(cpl), msr));
                let fault = processor.write_msr(msr, 0, cpl).unwrap_err();
                assert_eq!(fault.reason, MsrReason::Privilege(cpl));
            }
        }
        assert!(processor.read_msr(Msr::DEBUGCTL, Cpl::Ring0).is_ok());
    }
}

#[test]
fn unknown_registers_are_ignored_on_request_and_counted() {
    let options = Options {
        unknown_msrs: UnknownMsrs::Ignore,
        ..as_hardware()
    };
    let mut processor = LogicalProcessor::by_name("skylake", options).unwrap();
    assert_eq!(processor.rdmsr(Msr::LBR_CTL), Ok(0));
    assert_eq!(processor.wrmsr(Msr::LBR_CTL, !0), Ok(()));
    assert_eq!(processor.rdmsr(Msr::LBR_CTL), Ok(0), "a write is dropped");
    // What exists still refuses.
    let fault = processor.wrmsr(Msr::DEBUGCTL, 1 << 63).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "#GP(0): WRMSR IA32_DEBUGCTL = 0x8000000000000000: reserved bits 0x8000000000000000 are set"
    );
    assert!(processor.wrmsr(Msr::PERF_CAPABILITIES, 0).is_err());
    assert!(processor.read_msr(Msr::LBR_CTL, Cpl::Ring3).is_err());
    let counts: Vec<_> = processor.ignored().registers().collect();
    assert_eq!(counts.len(), 1);
    assert_eq!(counts[0].0, Msr::LBR_CTL);
    assert_eq!((counts[0].1.reads, counts[0].1.writes), (2, 1));
    // The log is bounded; nothing is lost from the sum.
    for n in 0..2000 {
        assert_eq!(processor.rdmsr(Msr::new(0x4000_0000 + n)), Ok(0));
    }
    let told: u64 = processor.ignored().registers().map(|row| row.1.reads).sum();
    assert_eq!(told + processor.ignored().others().reads, 2002);
    assert_eq!(processor.ignored().registers().count(), 1024);
}

#[test]
fn every_bit_flip_of_perf_capabilities_is_gp() {
    for (lbr, pmu) in parts() {
        let mut processor = LogicalProcessor::new(lbr, pmu, Options::default()).unwrap();
        let value = processor.rdmsr(Msr::PERF_CAPABILITIES).unwrap();
        for n in 0..64 {
            let fault = processor.wrmsr(Msr::PERF_CAPABILITIES, value ^ 1 << n);
            assert!(
                fault.is_err_and(|fault| fault.is_gp()),
                "{} bit {n}",
                lbr.name()
            );
        }
        assert!(processor.wrmsr(Msr::PERF_CAPABILITIES, value).is_err());
        assert_eq!(processor.rdmsr(Msr::PERF_CAPABILITIES), Ok(value));
    }
}

#[test]
fn both_devices_tell_of_one_lbr_format() {
    for (lbr, pmu) in parts() {
        let told = PerfCapabilities::from_bits(pmu.perf_capabilities().bits());
        assert_eq!(
            told.bits() & 0x3f,
            u64::from(lbr.format().value()),
            "{}",
            lbr.name()
        );
    }
    let mut options = Options::default();
    options.lbr.alternative_format = true;
    let mut processor = LogicalProcessor::by_name("silvermont", options).unwrap();
    assert_eq!(processor.rdmsr(Msr::PERF_CAPABILITIES).unwrap() & 0x3f, 3);
}

#[test]
fn entries_at_or_above_the_depth_exist_and_fault() {
    let mut processor = LogicalProcessor::by_name("alder-lake-p", Options::default()).unwrap();
    processor.wrmsr(Msr::LBR_DEPTH, 8).unwrap();
    let entry = Msr::LBR_0_FROM_IP.plus(8);
    assert_eq!(processor.owner(entry), Some(Owner::Lbr));
    let reason = processor.rdmsr(entry).unwrap_err().reason;
    assert_eq!(
        reason,
        MsrReason::Lbr(vlbr_lbr::GpReason::BeyondDepth { entry: 8, depth: 8 })
    );
}

#[test]
fn the_freeze_bit_of_the_lbr_is_one_bit() {
    let mut processor = LogicalProcessor::by_name("skylake", Options::default()).unwrap();
    let frozen = 1 << 58;
    processor
        .wrmsr(Msr::PERF_GLOBAL_STATUS_SET, frozen)
        .unwrap();
    assert!(vlbr_lbr::Device::lbr_frz(processor.lbr()));
    assert_eq!(processor.rdmsr(Msr::PERF_GLOBAL_STATUS), Ok(frozen));
    processor.wrmsr(Msr::PERF_GLOBAL_OVF_CTRL, frozen).unwrap();
    assert!(!vlbr_lbr::Device::lbr_frz(processor.lbr()));
    assert_eq!(processor.rdmsr(Msr::PERF_GLOBAL_STATUS), Ok(0));
}

#[test]
fn misc_enable_tells_of_bts_and_pebs() {
    for (lbr, pmu) in parts() {
        let mut processor = LogicalProcessor::new(lbr, pmu, Options::default()).unwrap();
        let value = processor.rdmsr(Msr::MISC_ENABLE).unwrap();
        assert_eq!(value & 1 << 12 == 0, pmu.pebs().is_some(), "{}", lbr.name());
        assert_eq!(value >> 7 & 1, 1, "{}", lbr.name());
        let bts = vlbr_arch::DebugCtl::BTS;
        assert_eq!(value & 1 << 11 == 0, lbr.debugctl().contains(bts));
    }
}

#[test]
fn the_lvt_entry_is_a_register_in_x2apic_mode() {
    let options = Options {
        x2apic: true,
        ..Options::default()
    };
    let mut processor = LogicalProcessor::by_name("skylake", options).unwrap();
    assert_eq!(processor.rdmsr(Msr::X2APIC_LVT_PMI), Ok(0x1_0000));
    processor.wrmsr(Msr::X2APIC_LVT_PMI, 0x4ee).unwrap();
    assert_eq!(processor.pmu().lvtpc().bits(), 0x4ee);
    let fault = processor.wrmsr(Msr::X2APIC_LVT_PMI, 1 << 17).unwrap_err();
    assert_eq!(fault.reason, MsrReason::Reserved(1 << 17));
}

#[test]
fn options_are_named_where_they_change_the_table() {
    let table = |name: &str| {
        let lbr = vlbr_lbr::Profile::named(name).unwrap();
        let pmu = vlbr_pmu::Profile::named(name).unwrap();
        describe(lbr, pmu, &Options::default()).unwrap()
    };
    let options = |name: &str, msr| {
        let table = table(name);
        let row = table.into_iter().find(|row| row.msr == msr).unwrap();
        (row.options, row.scope)
    };
    assert_eq!(options("skylake", Msr::DEBUGCTL).0, ["tsx"]);
    assert_eq!(
        options("skylake", Msr::LASTBRANCH_TOS).0,
        ["lbr.tos_write_masks"]
    );
    assert_eq!(
        options("nehalem", Msr::LBR_SELECT),
        (vec!["lbr.quirks"], MsrScope::Core)
    );
    let silvermont = options("silvermont", Msr::PERF_CAPABILITIES);
    assert_eq!(silvermont.0, ["lbr.alternative_format"]);
    assert!(options("skylake", Msr::DS_AREA).0.is_empty());
}

#[test]
fn a_core_shares_its_filter_where_the_part_does() {
    for (name, shared) in [("nehalem", 0x1c4), ("sandy-bridge", 0)] {
        let options = Options::default();
        let make = || LogicalProcessor::by_name(name, options.clone());
        let mut core = Core::with(2, &options, make).unwrap();
        core.wrmsr(0, Msr::LBR_SELECT, 0x1c4).unwrap().unwrap();
        let sibling = core.thread_mut(1).unwrap();
        assert_eq!(sibling.rdmsr(Msr::LBR_SELECT), Ok(shared), "{name}");
        assert!(core.wrmsr(2, Msr::LBR_SELECT, 0).is_none());
    }
}

#[test]
fn devices_of_different_parts_are_not_joined() {
    let lbr = vlbr_lbr::Profile::named("skylake").unwrap();
    let pmu = vlbr_pmu::Profile::named("haswell").unwrap();
    let error = LogicalProcessor::new(lbr, pmu, Options::default()).unwrap_err();
    assert!(error.to_string().contains("the name differs"), "{error}");
    let mut options = Options::default();
    options.pmu.tsx = Some(!lbr.tsx());
    let error = LogicalProcessor::by_name("skylake", options).unwrap_err();
    assert!(matches!(
        error,
        ProcessorError::Different { what: "TSX", .. }
    ));
    assert!(LogicalProcessor::by_name("skylark", Options::default()).is_err());
}
