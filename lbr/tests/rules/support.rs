//! Driving both devices.

use vlbr_arch::{BranchClass, Cpl, Cycles, DebugCtl, FarKind, Msr, Transfer};
use vlbr_lbr::{
    Device, GpReason, Lbr, Options, Profile, Quirk, QuirkSet, Record, Verdict, reference,
};

/// Start of what the tests take for the kernel.
pub(crate) const KERNEL: u64 = 0xffff_ffff_8100_0000;

/// Runs a check on both devices.
pub(crate) fn both(profile: &str, options: Options, check: impl Fn(&mut dyn Device)) {
    let profile = Profile::named(profile).expect("built in");
    check(&mut Lbr::new(profile, options.clone()));
    check(&mut reference::Lbr::new(profile, options));
}

/// Runs a check on both devices with default options.
pub(crate) fn each(profiles: &[&str], check: impl Fn(&mut dyn Device)) {
    for profile in profiles {
        both(profile, Options::default(), &check);
    }
}

/// Options with exactly these quirks.
pub(crate) fn with_quirks(quirks: &[Quirk]) -> Options {
    let quirks: QuirkSet = quirks.iter().copied().collect();
    Options {
        quirks: Some(quirks),
        ..Options::default()
    }
}

pub(crate) fn write(lbr: &mut dyn Device, msr: Msr, value: u64) {
    lbr.wrmsr(msr, value).expect("accepted");
}

pub(crate) fn read(lbr: &dyn Device, msr: Msr) -> u64 {
    lbr.rdmsr(msr).expect("readable")
}

/// Why a write is refused.
pub(crate) fn refusal(lbr: &mut dyn Device, msr: Msr, value: u64) -> GpReason {
    lbr.wrmsr(msr, value).expect_err("refused").reason
}

pub(crate) fn near(lbr: &mut dyn Device, class: BranchClass, from: u64, to: u64) -> Verdict {
    lbr.retire(&Transfer::near(class, from, to, Cpl::Ring3), Cycles::new(0))
}

/// A far transfer from ring 3 into the kernel.
pub(crate) fn into_kernel(kind: FarKind, from: u64) -> Transfer {
    Transfer {
        cpl_before: Cpl::Ring3,
        ..Transfer::near(BranchClass::Far(kind), from, KERNEL, Cpl::Ring0)
    }
}

pub(crate) fn filled(lbr: &dyn Device) -> Vec<Record> {
    lbr.records()
        .into_iter()
        .filter(|record| !record.is_empty())
        .collect()
}

/// Legacy recording on, with this LBR_SELECT.
pub(crate) fn start(lbr: &mut dyn Device, select: u64) {
    write(lbr, Msr::LBR_SELECT, select);
    write(lbr, Msr::DEBUGCTL, DebugCtl::LBR.bits());
}

/// Recording of everything on, whatever the generation.
pub(crate) fn start_any(lbr: &mut dyn Device) {
    write(lbr, Msr::DEBUGCTL, DebugCtl::LBR.bits());
    if lbr.profile().is_arch() {
        write(lbr, Msr::LBR_CTL, 0x7f_0007);
    }
}

/// A jump that is recorded.
pub(crate) fn jump(lbr: &mut dyn Device, from: u64, to: u64) {
    assert_eq!(near(lbr, BranchClass::NearRelJmp, from, to), Verdict::Push);
}
