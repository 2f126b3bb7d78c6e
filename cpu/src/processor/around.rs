//! What stands around the devices, and the LBR as the PMU sees it.

use vlbr_arch::{DebugCtl, Msr};
use vlbr_lbr::{Device, Pmi};
use vlbr_pmu::{Environment, MachineState, MemoryFault, PmiCause};

/// Most events of one counter that an LBR record tells of (LBR event logging).
const MOST_LOGGED: u64 = 3;

/// What a boundary may reach beside LBR and PMU: the registers that a PEBS record holds and the
/// memory of the debug store. Asked on an overflow only.
pub trait Surroundings {
    /// The core's state behind the boundary.
    fn machine(&self) -> MachineState;

    /// Reads eight bytes at a linear address, little endian.
    ///
    /// # Errors
    /// There is no memory.
    fn read(&self, address: u64) -> Result<u64, MemoryFault>;

    /// Writes at a linear address.
    ///
    /// # Errors
    /// There is no memory; nothing was written then.
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault>;
}

/// No memory and registers of zeros: PEBS records are lost, which
/// [`vlbr_pmu::PebsOutcome::Fault`] tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nothing;

impl Surroundings for Nothing {
    fn machine(&self) -> MachineState {
        MachineState::default()
    }

    fn read(&self, address: u64) -> Result<u64, MemoryFault> {
        Err(MemoryFault { address })
    }

    fn write(&mut self, address: u64, _: &[u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault { address })
    }
}

/// The LBR and the surroundings as the environment of the PMU.
pub(super) struct Bus<'a, L, S: ?Sized> {
    pub(super) lbr: &'a mut L,
    pub(super) around: &'a mut S,
}

impl<L: Device, S: Surroundings + ?Sized> Environment for Bus<'_, L, S> {
    fn debugctl(&self) -> DebugCtl {
        // Every part has the register, and reading it has no side effect.
        DebugCtl::from_bits(self.lbr.rdmsr(Msr::DEBUGCTL).unwrap_or_default())
    }

    fn lbr_frz(&self) -> bool {
        self.lbr.lbr_frz()
    }

    fn set_lbr_frz(&mut self, frozen: bool) {
        self.lbr.set_lbr_frz(frozen);
    }

    fn freeze_lbr(&mut self, cause: PmiCause) {
        self.lbr.freeze_on_pmi(match cause {
            PmiCause::Counter => Pmi::Counter,
            PmiCause::Pebs => Pmi::Pebs,
            PmiCause::Bts => Pmi::Bts,
        });
    }

    fn lbr_entry(&self, index: usize) -> Option<[u64; 3]> {
        self.lbr.record(index).map(|record| record.raw)
    }

    fn log_event(&mut self, pmc: u8, events: u64) {
        for _ in 0..events.min(MOST_LOGGED) {
            self.lbr.log_event(pmc);
        }
    }

    fn machine(&self) -> MachineState {
        self.around.machine()
    }

    fn read(&self, address: u64) -> Result<u64, MemoryFault> {
        self.around.read(address)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.around.write(address, bytes)
    }
}
