//! An environment for tests: LBR bits, memory and registers.

use std::collections::BTreeMap;

use vlbr_arch::{DebugCtl, ds};
use vlbr_pmu::{Environment, MachineState, MemoryFault, PmiCause};

/// Where the tests put the debug store.
pub(crate) const DS: u64 = 0xffff_8800_0000_0000;
/// Where the tests put the PEBS buffer.
pub(crate) const BUFFER: u64 = DS + 0x1000;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct World {
    pub(crate) debugctl: DebugCtl,
    pub(crate) lbr_frz: bool,
    /// Freezing sets LBR_FRZ instead of clearing DEBUGCTL.LBR.
    pub(crate) streamlined: bool,
    pub(crate) entries: Vec<[u64; 3]>,
    pub(crate) machine: MachineState,
    pub(crate) memory: BTreeMap<u64, u8>,
    pub(crate) pmis: Vec<PmiCause>,
    /// Counters that logged events into the LBR, and how many.
    pub(crate) logged: Vec<(u8, u64)>,
}

impl World {
    /// A PEBS buffer of `size` bytes with its threshold after `threshold` bytes, and a reset value
    /// in each slot: the slot's number.
    pub(crate) fn with_buffer(size: u64, threshold: u64) -> Self {
        let mut world = Self::default();
        for (offset, value) in [
            (ds::PEBS_BASE, BUFFER),
            (ds::PEBS_INDEX, BUFFER),
            (ds::PEBS_ABSOLUTE_MAXIMUM, BUFFER + size),
            (ds::PEBS_INTERRUPT_THRESHOLD, BUFFER + threshold),
        ] {
            world.set(DS + offset, value);
        }
        for slot in 0..0x30 {
            world.set(DS + ds::PEBS_RESET + 8 * slot, 0x1000 + slot);
        }
        world
    }

    pub(crate) fn set(&mut self, address: u64, value: u64) {
        self.put(address, &value.to_le_bytes());
    }

    fn put(&mut self, address: u64, bytes: &[u8]) {
        for (offset, byte) in (0..).zip(bytes) {
            self.memory.insert(address.wrapping_add(offset), *byte);
        }
    }
}

impl Environment for World {
    fn debugctl(&self) -> DebugCtl {
        self.debugctl
    }

    fn lbr_frz(&self) -> bool {
        self.lbr_frz
    }

    fn set_lbr_frz(&mut self, frozen: bool) {
        self.lbr_frz = frozen;
    }

    fn freeze_lbr(&mut self, cause: PmiCause) {
        self.pmis.push(cause);
        if !self.debugctl.contains(DebugCtl::FREEZE_LBRS_ON_PMI) {
        } else if self.streamlined {
            self.lbr_frz = true;
        } else {
            self.debugctl = self.debugctl.without(DebugCtl::LBR);
        }
    }

    fn lbr_entry(&self, index: usize) -> Option<[u64; 3]> {
        self.entries.get(index).copied()
    }

    fn log_event(&mut self, pmc: u8, events: u64) {
        self.logged.push((pmc, events));
    }

    fn machine(&self) -> MachineState {
        self.machine.clone()
    }

    fn read(&self, address: u64) -> Result<u64, MemoryFault> {
        let mut bytes = [0; 8];
        for (offset, byte) in (0..).zip(&mut bytes) {
            let at = address.wrapping_add(offset);
            *byte = *self.memory.get(&at).ok_or(MemoryFault { address })?;
        }
        Ok(u64::from_le_bytes(bytes))
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        if address < DS {
            return Err(MemoryFault { address });
        }
        self.put(address, bytes);
        Ok(())
    }
}
