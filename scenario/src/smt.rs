//! A core with two logical processors, made of the fast or of the literal devices.

use vlbr_arch::{Cycles, Msr, Transfer};
use vlbr_cpu::ledger::MsrAccess;
use vlbr_cpu::processor::{
    self, Boundary, LogicalProcessor, MsrFault, Options, ProcessorError, Retired,
};
use vlbr_lbr::{Device, Profile, Reset, Verdict};
use vlbr_pmu::{Interrupt, PmiCause};

use crate::DeviceKind;
use crate::world::World;

/// Logical processors of the core.
pub(crate) const THREADS: usize = 2;

/// A logical processor of whatever devices: see [`LogicalProcessor`] for each.
pub(crate) trait Thread {
    fn lbr(&mut self) -> &mut dyn Device;
    fn pmu(&mut self) -> &mut dyn vlbr_pmu::Device;
    fn msrs(&self) -> Vec<Msr>;
    fn rdmsr(&mut self, msr: Msr) -> Result<u64, MsrFault>;
    fn transfer(&mut self, transfer: &Transfer, now: Cycles, world: &mut World) -> Verdict;
    fn abort(&mut self, transfer: &Transfer, now: Cycles, world: &mut World) -> Verdict;
    fn smi(&mut self, transfer: &Transfer, now: Cycles) -> Verdict;
    fn rsm(&mut self, boundary: Boundary<'_>, world: &mut World) -> Retired;
    fn raise_pmi(&mut self, cause: PmiCause);
    fn deliver(&mut self) -> Option<Interrupt>;
    fn deep_c_state(&mut self);
    fn reset(&mut self, reset: Reset);
}

impl<L: Device, P: vlbr_pmu::Device> Thread for LogicalProcessor<L, P> {
    fn lbr(&mut self) -> &mut dyn Device {
        self.lbr_mut()
    }

    fn pmu(&mut self) -> &mut dyn vlbr_pmu::Device {
        self.pmu_mut()
    }

    fn msrs(&self) -> Vec<Msr> {
        self.msrs().iter().map(|(msr, _)| *msr).collect()
    }

    fn rdmsr(&mut self, msr: Msr) -> Result<u64, MsrFault> {
        MsrAccess::rdmsr(self, msr)
    }

    fn transfer(&mut self, transfer: &Transfer, now: Cycles, world: &mut World) -> Verdict {
        self.transfer(transfer, now, world)
    }

    fn abort(&mut self, transfer: &Transfer, now: Cycles, world: &mut World) -> Verdict {
        self.abort_transaction(transfer, now, world)
    }

    fn smi(&mut self, transfer: &Transfer, now: Cycles) -> Verdict {
        self.smi(transfer, now)
    }

    fn rsm(&mut self, boundary: Boundary<'_>, world: &mut World) -> Retired {
        self.rsm(boundary, world)
    }

    fn raise_pmi(&mut self, cause: PmiCause) {
        self.raise_pmi(cause);
    }

    fn deliver(&mut self) -> Option<Interrupt> {
        self.deliver()
    }

    fn deep_c_state(&mut self) {
        self.deep_c_state();
    }

    fn reset(&mut self, reset: Reset) {
        self.reset(reset);
    }
}

/// Two logical processors that share what those of a core share.
#[derive(Debug)]
pub(crate) enum Core {
    Fast(Box<processor::Core>),
    Reference(Box<processor::Core<vlbr_lbr::reference::Lbr, vlbr_pmu::reference::Pmu>>),
}

impl Core {
    pub(crate) fn new(
        kind: DeviceKind,
        profile: &Profile,
        options: &Options,
    ) -> Result<Self, ProcessorError> {
        let pmu = vlbr_pmu::Profile::named(profile.name())?;
        Ok(match kind {
            DeviceKind::Fast => {
                let make = || LogicalProcessor::new(profile, pmu, options.clone());
                Self::Fast(Box::new(processor::Core::with(THREADS, options, make)?))
            }
            DeviceKind::Reference => {
                let make = || {
                    let lbr = vlbr_lbr::reference::Lbr::new(profile, options.lbr.clone());
                    let pmu = vlbr_pmu::reference::Pmu::new(pmu, options.pmu.clone());
                    LogicalProcessor::of(lbr, pmu, options)
                };
                Self::Reference(Box::new(processor::Core::with(THREADS, options, make)?))
            }
        })
    }

    /// A logical processor; the parser lets none but 0 and 1 through.
    pub(crate) fn thread(&mut self, cpu: usize) -> Option<&mut dyn Thread> {
        match self {
            Self::Fast(core) => core.thread_mut(cpu).map(|thread| thread as &mut dyn Thread),
            Self::Reference(core) => core.thread_mut(cpu).map(|thread| thread as &mut dyn Thread),
        }
    }

    /// See [`MsrAccess::reserved_bits`].
    pub(crate) fn reserved_bits(&self, cpu: usize, msr: Msr) -> u64 {
        let told = match self {
            Self::Fast(core) => core.thread(cpu).map(|thread| thread.reserved_bits(msr)),
            Self::Reference(core) => core.thread(cpu).map(|thread| thread.reserved_bits(msr)),
        };
        told.unwrap_or(u64::MAX)
    }

    /// WRMSR, which may reach both logical processors.
    pub(crate) fn wrmsr(
        &mut self,
        cpu: usize,
        msr: Msr,
        value: u64,
    ) -> Option<Result<(), MsrFault>> {
        match self {
            Self::Fast(core) => core.wrmsr(cpu, msr, value),
            Self::Reference(core) => core.wrmsr(cpu, msr, value),
        }
    }

    /// A boundary of one, which the other sees.
    pub(crate) fn retire(
        &mut self,
        cpu: usize,
        boundary: Boundary<'_>,
        worlds: &mut [World],
    ) -> Option<Retired> {
        match self {
            Self::Fast(core) => core.retire(cpu, boundary, worlds),
            Self::Reference(core) => core.retire(cpu, boundary, worlds),
        }
    }
}
