//! Memory and registers of a logical processor in a scenario.

use std::collections::BTreeMap;

use vlbr_cpu::processor::Surroundings;
use vlbr_pmu::{MachineState, MemoryFault};

use crate::StateField;

/// What PEBS finds: every address is memory, what was never written reads 0.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) state: MachineState,
    bytes: BTreeMap<u64, u8>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            state: MachineState {
                ia32e: true,
                ..MachineState::default()
            },
            bytes: BTreeMap::new(),
        }
    }
}

impl World {
    /// Eight bytes, little endian.
    pub(crate) fn word(&self, address: u64) -> u64 {
        (0..8).rev().fold(0, |word, n| {
            let byte = self.bytes.get(&address.wrapping_add(n)).copied();
            word << 8 | u64::from(byte.unwrap_or(0))
        })
    }

    pub(crate) fn put(&mut self, address: u64, bytes: &[u8]) {
        for (n, byte) in (0..).zip(bytes) {
            self.bytes.insert(address.wrapping_add(n), *byte);
        }
    }

    pub(crate) fn set(&mut self, field: StateField, value: u64) {
        let state = &mut self.state;
        match field {
            StateField::Gpr(n) => {
                if let Some(register) = state.gprs.get_mut(n) {
                    *register = value;
                }
            }
            StateField::Rflags => state.rflags = value,
            StateField::Rip => state.rip = value,
            StateField::EventingIp => state.eventing_ip = value,
            StateField::Tsc => state.tsc = value,
            StateField::DataAddress => state.data_address = value,
            StateField::DataSource => state.data_source = value,
            StateField::Latency => state.latency = value,
            StateField::TxAbort => state.tx_abort = value,
        }
    }
}

impl Surroundings for World {
    fn machine(&self) -> MachineState {
        self.state.clone()
    }

    fn read(&self, address: u64) -> Result<u64, MemoryFault> {
        Ok(self.word(address))
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.put(address, bytes);
        Ok(())
    }
}
