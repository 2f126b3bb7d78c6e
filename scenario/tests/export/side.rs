//! VMX of a logical processor.

use std::collections::BTreeMap;

use serde_json::Value;
use vlbr_arch::vmx::{ExitReason, Interruptibility, InterruptionType, VmcsField};
use vlbr_arch::{Cpl, Msr};
use vlbr_cpu::ledger::{Ledger, MsrAccess};
use vlbr_cpu::processor::{Core, MsrFault};
use vlbr_vmx::{
    Context, GuestMsr, Launch, OperandSize, Options, PhysicalMemory, Registers, VmExit, Vmx,
    VmxProfile,
};

use crate::{json, outcome};

/// Bytes that were written; all others read as ones.
#[derive(Debug, Default)]
pub(crate) struct Ram(pub(crate) BTreeMap<u64, u8>);

impl PhysicalMemory for Ram {
    fn read(&self, address: u64, bytes: &mut [u8]) {
        for (at, byte) in (address..).zip(bytes) {
            *byte = self.0.get(&at).copied().unwrap_or(0xff);
        }
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        self.0.extend((address..).zip(bytes.iter().copied()));
    }
}

/// The registers of a logical processor.
#[derive(Debug)]
pub(crate) struct Msrs<'a> {
    pub(crate) core: &'a mut Core,
    pub(crate) cpu: usize,
}

impl MsrAccess for Msrs<'_> {
    type Fault = MsrFault;

    fn rdmsr(&mut self, msr: Msr) -> Result<u64, MsrFault> {
        self.core
            .thread_mut(self.cpu)
            .expect("one of two")
            .rdmsr(msr)
    }

    fn wrmsr(&mut self, msr: Msr, value: u64) -> Result<(), MsrFault> {
        self.core.wrmsr(self.cpu, msr, value).expect("one of two")
    }

    fn reserved_bits(&self, msr: Msr) -> u64 {
        let thread = self.core.thread(self.cpu).expect("one of two");
        thread.reserved_bits(msr)
    }
}

/// A logical processor that may be in VMX operation.
#[derive(Debug)]
pub(crate) struct Side {
    vmx: Option<Vmx>,
    pub(crate) ram: Ram,
    registers: Registers,
    ledger: Ledger,
}

impl Side {
    pub(crate) fn new(name: &str) -> Self {
        let profile = VmxProfile::of_processor(name).ok();
        Self {
            vmx: profile.map(|profile| Vmx::new(profile, Options::default())),
            ram: Ram::default(),
            registers: Registers::default(),
            ledger: Ledger::new(),
        }
    }

    /// A step about VMX; `None` if it is another.
    pub(crate) fn step(&mut self, step: &Value, msrs: &mut Msrs<'_>, tsc: u64) -> Option<Value> {
        let Self {
            vmx,
            ram,
            registers,
            ledger,
        } = self;
        let vmx = vmx.as_mut()?;
        let address = || json::number(&step["address"]);
        let field = || VmcsField::new(json::number(&step["field"]) as u32);
        let plain =
            |done: Result<(), vlbr_vmx::Fail>| done.map_or_else(outcome::fail, |()| outcome::ok());
        let name = json::text(step, "do");
        let instruction = match name {
            "vmxon" => return Some(plain(vmx.vmxon(ram, address()))),
            "vmclear" => return Some(plain(vmx.vmclear(address()))),
            "vmptrld" => return Some(plain(vmx.vmptrld(ram, address()))),
            "vmwrite" => {
                let value = json::number(&step["value"]);
                return Some(plain(vmx.vmwrite(field(), value, OperandSize::Bits64)));
            }
            "vmread" => {
                let read = vmx.vmread(field(), OperandSize::Bits64);
                return Some(read.map_or_else(outcome::fail, outcome::value));
            }
            "guest-rdmsr" => Some(GuestMsr::Rdmsr),
            "guest-wrmsr" => Some(GuestMsr::Wrmsr(json::number(&step["value"]))),
            "guest-wrmsrns" => Some(GuestMsr::Wrmsrns(json::number(&step["value"]))),
            _ => None,
        };
        let counters = msrs.core.thread(msrs.cpu).expect("one of two").clone();
        let read_counter = |ecx, cpl, pce| {
            let read = counters.rdpmc(ecx, cpl, pce);
            read.map_or_else(|_| outcome::gp(), outcome::value)
        };
        let mut context = Context {
            msrs,
            memory: ram,
            registers,
            ledger,
            tsc,
        };
        let mut told =
            |vmx: &mut Vmx, exit: &VmExit, told: Value| match vmx.exit(exit, &mut context) {
                Ok(()) => told,
                Err(abort) => outcome::abort(&abort),
            };
        if let Some(instruction) = instruction {
            let msr = Msr::new(json::number(&step["msr"]) as u32);
            let cpl = Cpl::from_number(json::small(&step["cpl"]) as u8).expect("a ring");
            return Some(match vmx.guest_msr(instruction, msr, cpl, &mut context) {
                Ok(value) if name == "guest-rdmsr" => outcome::value(value),
                Ok(_) => outcome::ok(),
                Err(stop) => match outcome::stop(stop) {
                    Ok(outcome) => outcome,
                    Err(exit) => match vmx.exit(&exit, &mut context) {
                        Ok(()) => outcome::of_exit(&exit),
                        Err(abort) => outcome::abort(&abort),
                    },
                },
            });
        }
        Some(match name {
            "vm-entry" => {
                let vmcs = vmx.vmcs().map(ToString::to_string).unwrap_or_default();
                assert_eq!(vmcs, json::text(step, "vmcs"));
                let launch = match json::text(step, "instruction") {
                    "vmlaunch" => Launch::Launch,
                    "vmresume" => Launch::Resume,
                    other => panic!("{other}"),
                };
                outcome::entry(vmx.enter(launch, Interruptibility::default(), &mut context))
            }
            "vm-exit" => {
                let reason = ExitReason::new(json::number(&step["reason"]) as u32);
                let length = json::small(&step["instruction_length"]) as u32;
                told(vmx, &VmExit::of_instruction(reason, length), outcome::ok())
            }
            "guest-event" => {
                let vector = step
                    .get("vector")
                    .map_or(0, |vector| json::small(vector) as u8);
                let error = step.get("error_code").map(|code| json::number(code) as u32);
                let exit = match json::text(step, "event") {
                    "nmi" => vmx.nmi(),
                    "interrupt" => vmx.external_interrupt(vector),
                    "exception" => {
                        vmx.exception(vector, InterruptionType::HardwareException, error, 0)
                    }
                    other => panic!("{other}"),
                };
                match exit {
                    Err(error) => outcome::fail(error),
                    Ok(None) => outcome::ok(),
                    Ok(Some(exit)) => told(vmx, &exit, outcome::of_exit(&exit)),
                }
            }
            "guest-rdpmc" => {
                let cpl = Cpl::from_number(json::small(&step["cpl"]) as u8).expect("a ring");
                let pce = json::flag(&step["pce"]);
                let allowed = cpl == Cpl::Ring0 || pce;
                match vmx.rdpmc() {
                    Err(error) => outcome::fail(error),
                    Ok(Some(exit)) if allowed => told(vmx, &exit, outcome::of_exit(&exit)),
                    Ok(_) => read_counter(json::number(&step["ecx"]) as u32, cpl, pce),
                }
            }
            "guest-xsaves" | "guest-xrstors" => {
                match vmx.xsaves(name == "guest-xrstors", 1 << 15, 1 << 15, 3) {
                    Err(error) => outcome::fail(error),
                    Ok(None) => serde_json::json!({"is": "ud"}),
                    Ok(Some(None)) => outcome::ok(),
                    Ok(Some(Some(exit))) => told(vmx, &exit, outcome::of_exit(&exit)),
                }
            }
            "preemption-timer" => {
                let exit = vmx.preemption_timer(tsc).expect("a guest");
                assert_eq!(exit.is_some(), json::flag(&step["exits"]));
                match exit {
                    None => outcome::ok(),
                    Some(exit) => told(vmx, &exit, outcome::ok()),
                }
            }
            _ => return None,
        })
    }
}
