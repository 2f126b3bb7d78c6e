//! What stands around the PMU.

use vlbr_arch::DebugCtl;

use crate::PmiCause;

/// An access of the debug store that memory did not do. The PEBS record is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("no memory at linear address {address:#x}")]
pub struct MemoryFault {
    /// Linear address.
    pub address: u64,
}

/// What a PEBS record holds of the core, at the boundary behind the sampled instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MachineState {
    /// RFLAGS.
    pub rflags: u64,
    /// Address of the next instruction to execute: after a taken branch its target.
    pub rip: u64,
    /// Address of the sampled instruction.
    pub eventing_ip: u64,
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15: the order of their numbers.
    pub gprs: [u64; 16],
    /// XMM0 to XMM15, low half first.
    pub xmms: [[u64; 2]; 16],
    /// IA-32e mode is active; without it the upper halves of registers are stored as 0.
    pub ia32e: bool,
    /// Time-stamp counter.
    pub tsc: u64,
    /// Linear address of the data the sampled instruction accessed.
    pub data_address: u64,
    /// Data source encoding or store status.
    pub data_source: u64,
    /// Latency field, in the encoding of the part.
    pub latency: u64,
    /// Transaction information: [`vlbr_arch::TxAbortInfo`] over the cycle count.
    pub tx_abort: u64,
    /// Core clocks since the previous retirement.
    pub retire_latency: u16,
}

/// The rest of the logical processor, as the PMU sees it: the LBR, the debug store in memory, and
/// the registers that PEBS records hold.
///
/// The PMU asks on an overflow and for the registers it shares with the LBR; other retirement tells
/// of events that are logged into the LBR, and asks nothing.
pub trait Environment {
    /// `IA32_DEBUGCTL`, which the LBR owns.
    fn debugctl(&self) -> DebugCtl;

    /// `GLOBAL_STATUS.LBR_FRZ`, which the LBR owns.
    fn lbr_frz(&self) -> bool;

    /// Software sets or clears `LBR_FRZ` through `GLOBAL_STATUS_SET` or `GLOBAL_STATUS_RESET`.
    fn set_lbr_frz(&mut self, frozen: bool);

    /// A PMI was raised: the LBR freezes if `DEBUGCTL.FREEZE_LBRS_ON_PMI` says so, in its flavour.
    fn freeze_lbr(&mut self, cause: PmiCause);

    /// FROM, TO and INFO of LBR entry `index`, youngest 0, for a PEBS record: addresses without
    /// flags. `None` beyond the depth.
    fn lbr_entry(&self, index: usize) -> Option<[u64; 3]>;

    /// General-purpose counter `pmc`, whose select has LBR_LOG, counted `events` events: they go
    /// into the next LBR record. Such a counter wants its runs cut at every LBR record.
    fn log_event(&mut self, pmc: u8, events: u64);

    /// The core's state for a PEBS record.
    fn machine(&self) -> MachineState;

    /// Reads eight bytes of the debug store, little endian.
    ///
    /// # Errors
    /// There is no memory.
    fn read(&self, address: u64) -> Result<u64, MemoryFault>;

    /// Writes into the debug store.
    ///
    /// # Errors
    /// There is no memory; nothing was written then.
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault>;
}

/// An environment without LBR and memory: `IA32_DEBUGCTL` as given, PEBS records are lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alone {
    /// `IA32_DEBUGCTL`.
    pub debugctl: DebugCtl,
}

impl Environment for Alone {
    fn debugctl(&self) -> DebugCtl {
        self.debugctl
    }

    fn lbr_frz(&self) -> bool {
        false
    }

    fn set_lbr_frz(&mut self, _: bool) {}

    fn freeze_lbr(&mut self, _: PmiCause) {}

    fn lbr_entry(&self, _: usize) -> Option<[u64; 3]> {
        None
    }

    fn log_event(&mut self, _: u8, _: u64) {}

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
