//! A logical processor and its MSRs.

use core::hash::{Hash, Hasher};

use vlbr_arch::{Cpl, LvtPc, Msr};
use vlbr_lbr::{Interface, Lbr};
use vlbr_pmu::Pmu;

use super::around::{Bus, Nothing};
use super::core_registers::CoreRegisters;
use super::route::Routes;
use super::{
    Ignored, MsrFault, MsrOperation, MsrReason, Options, Owner, ProcessorError, UnknownMsrs,
};
use crate::ledger::MsrAccess;

/// Bits of the LVT entry that WRMSR in x2APIC mode takes: what software sets, and the delivery
/// status, which it does not set.
const LVT_TAKEN: u64 = LvtPc::WRITABLE as u64 | LvtPc::DELIVERY_STATUS.bits() as u64;
/// `IA32_PERF_CAPABILITIES.LBR_FMT`.
const LBR_FMT: u64 = 0x3f;

/// LBR, PMU and the registers around them, of one logical processor.
///
/// [`MsrAccess`] is RDMSR and WRMSR at CPL 0; [`LogicalProcessor::read_msr`] and
/// [`LogicalProcessor::write_msr`] check the CPL first. Every other event has one method, which
/// gives it to both devices in their order.
#[derive(Clone, Debug)]
pub struct LogicalProcessor<L = Lbr, P = Pmu> {
    pub(super) lbr: L,
    pub(super) pmu: P,
    pub(super) registers: CoreRegisters,
    routes: Routes,
    lbr_format: u64,
    unknown: UnknownMsrs,
    ignored: Ignored,
}

impl<L: PartialEq, P: PartialEq> PartialEq for LogicalProcessor<L, P> {
    /// Equal if no later event can tell them apart. What was ignored so far is no state.
    fn eq(&self, other: &Self) -> bool {
        self.lbr == other.lbr
            && self.pmu == other.pmu
            && self.registers == other.registers
            && self.unknown == other.unknown
            && self.routes == other.routes
    }
}

impl<L: Eq, P: Eq> Eq for LogicalProcessor<L, P> {}

impl<L: Hash, P: Hash> Hash for LogicalProcessor<L, P> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.lbr.hash(state);
        self.pmu.hash(state);
        self.registers.hash(state);
    }
}

impl LogicalProcessor {
    /// The part with this name or alias after power-up, as `vlbr list` shows them.
    ///
    /// # Errors
    /// No part has the name, or the options do not fit together.
    pub fn by_name(name: &str, options: Options) -> Result<Self, ProcessorError> {
        let lbr = vlbr_lbr::Profile::named(name)?;
        Self::new(lbr, vlbr_pmu::Profile::named(lbr.name())?, options)
    }

    /// The part of two profiles after power-up.
    ///
    /// # Errors
    /// The profiles or options do not fit together.
    pub fn new(
        lbr: &vlbr_lbr::Profile,
        pmu: &vlbr_pmu::Profile,
        options: Options,
    ) -> Result<Self, ProcessorError> {
        let lbr = Lbr::new(lbr, options.lbr.clone());
        let pmu = Pmu::new(pmu, options.pmu.clone());
        Self::of(lbr, pmu, &options)
    }
}

impl<L: vlbr_lbr::Device, P: vlbr_pmu::Device> LogicalProcessor<L, P> {
    /// Joins two devices that were made with these options.
    ///
    /// # Errors
    /// They are not of one part, or one has TSX and the other has not.
    pub fn of(lbr: L, pmu: P, options: &Options) -> Result<Self, ProcessorError> {
        let (one, other) = (lbr.profile(), pmu.profile());
        let tsx_of_lbr = options.lbr.tsx.unwrap_or(one.tsx());
        let tsx_of_pmu = options.pmu.tsx.unwrap_or(other.tsx());
        let comparisons = [
            ("the name", one.name() == other.name()),
            (
                "the width of linear addresses",
                one.linear_address_bits() == other.linear_address_bits(),
            ),
            (
                "the perfmon version",
                one.perfmon_version() == other.version(),
            ),
            ("TSX", tsx_of_lbr == tsx_of_pmu),
        ];
        if let Some((what, _)) = comparisons.iter().find(|(_, same)| !same) {
            return Err(ProcessorError::Different {
                lbr: one.name().to_owned(),
                pmu: other.name().to_owned(),
                what,
            });
        }
        let format = match one.interface() {
            Interface::Legacy(legacy) if options.lbr.alternative_format => {
                legacy.format_alternative.unwrap_or(legacy.format)
            }
            _ => one.format(),
        };
        let registers = CoreRegisters::new(one, other);
        let routes = Routes::of(&lbr, &pmu, &registers.msrs(), options.x2apic);
        Ok(Self {
            lbr_format: u64::from(format.value()),
            lbr,
            pmu,
            registers,
            routes,
            unknown: options.unknown_msrs,
            ignored: Ignored::default(),
        })
    }

    /// The LBR.
    #[must_use]
    pub const fn lbr(&self) -> &L {
        &self.lbr
    }

    /// The LBR, for what concerns it alone: XSAVES, VERW.
    #[must_use]
    pub const fn lbr_mut(&mut self) -> &mut L {
        &mut self.lbr
    }

    /// The PMU.
    #[must_use]
    pub const fn pmu(&self) -> &P {
        &self.pmu
    }

    /// The PMU, for what concerns it alone: the LVT entry, sums of many boundaries.
    #[must_use]
    pub const fn pmu_mut(&mut self) -> &mut P {
        &mut self.pmu
    }

    /// The registers of the part with their owners, ascending.
    #[must_use]
    pub fn msrs(&self) -> &[(Msr, Owner)] {
        self.routes.all()
    }

    /// Who owns a register; `None` if the part has none with this number.
    #[must_use]
    pub fn owner(&self, msr: Msr) -> Option<Owner> {
        self.routes.owner(msr)
    }

    /// What [`UnknownMsrs::Ignore`] has let pass.
    #[must_use]
    pub const fn ignored(&self) -> &Ignored {
        &self.ignored
    }

    /// RDMSR at `cpl`. In real mode the CPL is 0, in virtual-8086 mode 3.
    ///
    /// # Errors
    /// As [`MsrAccess::rdmsr`], and `#GP(0)` above CPL 0.
    pub fn read_msr(&mut self, msr: Msr, cpl: Cpl) -> Result<u64, MsrFault> {
        if !cpl.is_kernel() {
            let reason = MsrReason::Privilege(cpl);
            return Err(fault(msr, MsrOperation::Read)(reason));
        }
        self.rdmsr(msr)
    }

    /// WRMSR at `cpl`.
    ///
    /// # Errors
    /// As [`MsrAccess::wrmsr`], and `#GP(0)` above CPL 0.
    pub fn write_msr(&mut self, msr: Msr, value: u64, cpl: Cpl) -> Result<(), MsrFault> {
        if !cpl.is_kernel() {
            let reason = MsrReason::Privilege(cpl);
            return Err(fault(msr, MsrOperation::Write(value))(reason));
        }
        self.wrmsr(msr, value)
    }

    /// RDPMC: see [`vlbr_pmu::Device::rdpmc`].
    ///
    /// # Errors
    /// As there.
    pub fn rdpmc(&self, ecx: u32, cpl: Cpl, cr4_pce: bool) -> Result<u64, vlbr_pmu::GpFault> {
        self.pmu.rdpmc(ecx, cpl, cr4_pce)
    }

    fn read(&mut self, msr: Msr, owner: Owner) -> Result<u64, MsrReason> {
        match owner {
            Owner::Lbr => Ok(self.lbr.rdmsr(msr).map_err(|fault| fault.reason)?),
            Owner::Pmu => {
                let bus = Bus {
                    lbr: &mut self.lbr,
                    around: &mut Nothing,
                };
                let value = self.pmu.rdmsr(msr, &bus).map_err(|fault| fault.reason)?;
                // The LBR says what format it has.
                Ok(match msr {
                    Msr::PERF_CAPABILITIES => value & !LBR_FMT | self.lbr_format,
                    _ => value,
                })
            }
            Owner::Apic => Ok(self.pmu.lvtpc().bits().into()),
            Owner::Core => self.registers.read(msr),
        }
    }

    fn write(&mut self, msr: Msr, value: u64, owner: Owner) -> Result<(), MsrReason> {
        match owner {
            Owner::Lbr => Ok(self.lbr.wrmsr(msr, value).map_err(|fault| fault.reason)?),
            Owner::Pmu => {
                let mut bus = Bus {
                    lbr: &mut self.lbr,
                    around: &mut Nothing,
                };
                Ok(self.pmu.wrmsr(msr, value, &mut bus)?)
            }
            Owner::Apic => {
                if value & !LVT_TAKEN != 0 {
                    return Err(MsrReason::Reserved(value & !LVT_TAKEN));
                }
                self.pmu.set_lvtpc(LvtPc::from_bits(value as u32));
                Ok(())
            }
            Owner::Core => self.registers.write(msr, value, &mut self.lbr),
        }
    }
}

fn fault(msr: Msr, operation: MsrOperation) -> impl Fn(MsrReason) -> MsrFault {
    move |reason| MsrFault {
        msr,
        operation,
        reason,
    }
}

impl<L: vlbr_lbr::Device, P: vlbr_pmu::Device> MsrAccess for LogicalProcessor<L, P> {
    type Fault = MsrFault;

    fn rdmsr(&mut self, msr: Msr) -> Result<u64, MsrFault> {
        let refuse = fault(msr, MsrOperation::Read);
        match (self.routes.owner(msr), self.unknown) {
            (Some(owner), _) => self.read(msr, owner).map_err(refuse),
            (None, UnknownMsrs::Fault) => Err(refuse(MsrReason::NoSuchMsr)),
            (None, UnknownMsrs::Ignore) => {
                self.ignored.read(msr);
                Ok(0)
            }
        }
    }

    fn wrmsr(&mut self, msr: Msr, value: u64) -> Result<(), MsrFault> {
        let refuse = fault(msr, MsrOperation::Write(value));
        match (self.routes.owner(msr), self.unknown) {
            (Some(owner), _) => self.write(msr, value, owner).map_err(refuse),
            (None, UnknownMsrs::Fault) => Err(refuse(MsrReason::NoSuchMsr)),
            (None, UnknownMsrs::Ignore) => {
                self.ignored.written(msr);
                Ok(())
            }
        }
    }

    fn reserved_bits(&self, msr: Msr) -> u64 {
        match self.routes.owner(msr) {
            None => u64::MAX,
            Some(Owner::Lbr) => self.lbr.reserved_bits(msr),
            Some(Owner::Pmu) => self.pmu.reserved_bits(msr),
            Some(Owner::Apic) => !LVT_TAKEN,
            Some(Owner::Core) => self.registers.reserved_bits(msr),
        }
    }
}
