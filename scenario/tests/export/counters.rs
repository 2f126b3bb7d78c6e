//! Counters, interrupts and what PEBS finds.

use std::collections::BTreeMap;

use serde_json::Value;
use vlbr_arch::{Cpl, LvtPc};
use vlbr_cpu::processor::{LogicalProcessor, Surroundings};
use vlbr_pmu::{Increments, Interrupt, MachineState, MemoryFault, Source};

use crate::{json, outcome};

/// Linear memory, which begins as zeros, and the core's state.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) state: MachineState,
    bytes: BTreeMap<u64, u8>,
}

impl Default for World {
    fn default() -> Self {
        let state = MachineState {
            ia32e: true,
            ..MachineState::default()
        };
        Self {
            state,
            bytes: BTreeMap::new(),
        }
    }
}

impl Surroundings for World {
    fn machine(&self) -> MachineState {
        self.state.clone()
    }

    fn read(&self, address: u64) -> Result<u64, MemoryFault> {
        let byte = |n| self.bytes.get(&address.wrapping_add(n)).copied();
        let bytes = core::array::from_fn(|n| byte(n as u64).unwrap_or(0));
        Ok(u64::from_le_bytes(bytes))
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        for (n, byte) in (0..).zip(bytes) {
            self.bytes.insert(address.wrapping_add(n), *byte);
        }
        Ok(())
    }
}

impl World {
    /// `linear-write`, `linear-read`, `state`.
    pub(crate) fn step(&mut self, step: &Value) -> Value {
        match json::text(step, "do") {
            "linear-write" => {
                let bytes = json::bytes(json::text(step, "bytes"));
                let done = self.write(json::number(&step["address"]), &bytes);
                outcome::of(done)
            }
            "linear-read" => {
                assert_eq!(json::small(&step["size"]), 8);
                let read = self.read(json::number(&step["address"]));
                outcome::value(read.expect("memory"))
            }
            _ => {
                let value = json::number(&step["value"]);
                let state = &mut self.state;
                let names = [
                    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10",
                    "r11", "r12", "r13", "r14", "r15",
                ];
                let field = json::text(step, "field");
                match names.iter().position(|name| *name == field) {
                    Some(n) => state.gprs[n] = value,
                    None => match field {
                        "rflags" => state.rflags = value,
                        "rip" => state.rip = value,
                        "eventing_ip" => state.eventing_ip = value,
                        "tsc" => state.tsc = value,
                        "data_address" => state.data_address = value,
                        "data_source" => state.data_source = value,
                        "latency" => state.latency = value,
                        "tx_abort" => state.tx_abort = value,
                        other => panic!("no field {other}"),
                    },
                }
                outcome::ok()
            }
        }
    }
}

fn ring(step: &Value) -> Cpl {
    Cpl::from_number(json::small(&step["cpl"]) as u8).expect("a ring")
}

/// What a `run` adds up to, and its core clocks.
pub(crate) fn run(step: &Value) -> (Increments, u64) {
    let mut run = Increments::new();
    run.in_tx = json::flag(&step["in_tx"]);
    for amount in step["amounts"].as_array().expect("a list") {
        let name = json::text(amount, "source");
        let named = Source::NAMED.iter().find(|(_, known)| *known == name);
        let (source, _) = named.expect("a source");
        run.add(*source, ring(step), json::number(&amount["amount"]));
    }
    let cycles = run.cycles();
    (run, cycles)
}

/// `rdpmc`, `lvtpc-write`, `lvtpc-read`, `deliver`.
pub(crate) fn step(thread: &mut LogicalProcessor, step: &Value) -> Result<Value, String> {
    Ok(match json::text(step, "do") {
        "rdpmc" => {
            let ecx = json::number(&step["ecx"]) as u32;
            let read = thread.rdpmc(ecx, ring(step), json::flag(&step["pce"]));
            read.map_or_else(|_| outcome::gp(), outcome::value)
        }
        "lvtpc-write" => {
            let entry = LvtPc::from_bits(json::number(&step["value"]) as u32);
            thread.pmu_mut().set_lvtpc(entry);
            outcome::ok()
        }
        "lvtpc-read" => outcome::value(thread.pmu().lvtpc().bits().into()),
        _ => {
            let told = match json::text(step, "interrupt") {
                "none" => None,
                "fixed" => Some(Interrupt::Fixed(json::small(&step["vector"]) as u8)),
                "nmi" => Some(Interrupt::Nmi),
                "smi" => Some(Interrupt::Smi),
                "init" => Some(Interrupt::Init),
                "extint" => Some(Interrupt::ExtInt),
                other => panic!("{other}"),
            };
            let found = thread.deliver();
            if found != told {
                return Err(format!("{found:?}"));
            }
            outcome::ok()
        }
    })
}
