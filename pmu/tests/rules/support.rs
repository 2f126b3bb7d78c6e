//! Driving both devices.

use vlbr_arch::{BranchClass, Cpl, LvtPc, Msr, ds};
use vlbr_pmu::{
    Device, Environment, GpReason, Increments, Options, Outcome, Pmu, PmuError, Profile, SourceSet,
    Unfed, reference,
};

use crate::world::{BUFFER, DS, World};

/// A device and what stands around it.
pub(crate) struct Rig<'a> {
    pub(crate) pmu: &'a mut dyn Device,
    pub(crate) world: World,
}

/// Runs a check on both devices.
pub(crate) fn both(
    profile: &Profile,
    options: &Options,
    world: &World,
    check: impl Fn(&mut Rig<'_>),
) {
    let devices: [&mut dyn Device; 2] = [
        &mut Pmu::new(profile, options.clone()),
        &mut reference::Pmu::new(profile, options.clone()),
    ];
    for pmu in devices {
        let mut world = world.clone();
        world.streamlined = profile.version() >= 4;
        check(&mut Rig { pmu, world });
    }
}

/// Runs a check on both devices with default options, nothing around them.
pub(crate) fn each(profiles: &[&str], check: impl Fn(&mut Rig<'_>)) {
    for name in profiles {
        both(named(name), &Options::default(), &World::default(), &check);
    }
}

/// Runs a check on both devices of every profile with default options.
pub(crate) fn every(check: impl Fn(&mut Rig<'_>)) {
    for profile in Profile::all() {
        both(profile, &Options::default(), &World::default(), &check);
    }
}

pub(crate) fn named(name: &str) -> &'static Profile {
    Profile::named(name).expect("built in")
}

/// Everything is fed, events that are not known are held.
pub(crate) fn everything() -> Options {
    Options {
        feeds: SourceSet::ALL,
        unfed: Unfed::Hold,
        ..Options::default()
    }
}

impl Rig<'_> {
    pub(crate) fn write(&mut self, msr: Msr, value: u64) {
        if let Err(error) = self.pmu.wrmsr(msr, value, &mut self.world) {
            panic!("{}: {error}", self.pmu.profile().name());
        }
    }

    pub(crate) fn read(&self, msr: Msr) -> u64 {
        match self.pmu.rdmsr(msr, &self.world) {
            Ok(value) => value,
            Err(error) => panic!("{}: {error}", self.pmu.profile().name()),
        }
    }

    /// Why a write faults.
    pub(crate) fn fault(&mut self, msr: Msr, value: u64) -> GpReason {
        match self.pmu.wrmsr(msr, value, &mut self.world) {
            Err(PmuError::Gp(fault)) => fault.reason,
            other => panic!("WRMSR {msr} = {value:#x}: {other:?}"),
        }
    }

    /// `count` instructions, one by one, at ring 3.
    pub(crate) fn run(&mut self, count: u64) -> Vec<Outcome> {
        (0..count)
            .map(|_| self.retire(&Increments::instruction(Cpl::Ring3)))
            .collect()
    }

    pub(crate) fn branch(&mut self, class: BranchClass) -> Outcome {
        self.retire(&Increments::branch(class, true, false, Cpl::Ring3))
    }

    pub(crate) fn retire(&mut self, run: &Increments) -> Outcome {
        self.pmu.retire(run, &mut self.world)
    }

    pub(crate) fn pmc(&self, n: u32) -> u64 {
        self.pmu.rdpmc(n, Cpl::Ring0, false).expect("exists")
    }

    /// All ones but `below` events, so that counter `n` overflows at event `below` + 1.
    pub(crate) fn preset(&mut self, n: u32, events: u64) {
        self.write(Msr::PMC0.plus(n), events.wrapping_neg());
    }

    pub(crate) fn unmask(&mut self, vector_or_nmi: u32) {
        self.pmu.set_lvtpc(LvtPc::from_bits(vector_or_nmi));
    }
}

/// EN, OS, USR.
pub(crate) const ON: u64 = 0x43_0000;
/// EN, OS, USR, INT.
pub(crate) const ON_INT: u64 = 0x53_0000;
/// INST_RETIRED.ANY_P.
pub(crate) const INSTRUCTIONS: u64 = 0xc0;
/// BR_INST_RETIRED.ALL_BRANCHES.
pub(crate) const BRANCHES: u64 = 0xc4;
/// LVT entry: NMI, not masked.
pub(crate) const NMI: u32 = 0x400;

impl World {
    pub(crate) fn get(&self, address: u64) -> u64 {
        self.read(address).expect("written before")
    }

    /// Index of the PEBS buffer, from its base.
    pub(crate) fn used(&self) -> u64 {
        self.get(DS + ds::PEBS_INDEX) - BUFFER
    }
}
