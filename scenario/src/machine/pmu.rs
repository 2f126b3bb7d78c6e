//! Counters, their interrupts and PEBS.

use vlbr_arch::{Cycles, LvtPc};
use vlbr_cpu::processor::Boundary;
use vlbr_pmu::{Increments, Interrupt, Source};

use super::{Machine, absent};
use crate::PmuStep;
use crate::compare::{Mismatch, Outcome, compare, compare_read, eval, mismatch};
use crate::expr::Scope;
use crate::world::World;

impl Machine<'_> {
    fn world(&mut self, cpu: usize) -> Result<&mut World, Mismatch> {
        self.worlds.get_mut(cpu).ok_or_else(|| absent(cpu))
    }

    /// Does or compares what a step about counters says.
    pub(super) fn pmu_step(&mut self, cpu: usize, step: &PmuStep, scope: Scope) -> Outcome {
        match step {
            PmuStep::Run {
                amounts,
                cpl,
                in_tx,
            } => {
                let mut run = Increments::new();
                run.in_tx = *in_tx;
                for (amount, source) in amounts {
                    let amount = eval(amount, scope)?;
                    run.add(*source, *cpl, amount);
                    if *source == Source::CoreCycles {
                        self.clock = self.clock.saturating_add(amount);
                    }
                }
                let boundary = Boundary {
                    run: &run,
                    transfer: None,
                    now: Cycles::new(self.clock),
                };
                let retired = self.core.retire(cpu, boundary, &mut self.worlds);
                retired.map(drop).ok_or_else(|| absent(cpu))
            }
            PmuStep::Rdpmc {
                ecx,
                cpl,
                pce,
                check,
            } => {
                let ecx = eval(ecx, scope)?;
                let ecx = u32::try_from(ecx).map_err(|_| mismatch("ECX of 32 bits", ecx))?;
                let found = self.thread(cpu)?.pmu().rdpmc(ecx, *cpl, *pce);
                compare_read(check, found, scope)
            }
            PmuStep::SetLvtpc(value) => {
                let value = eval(value, scope)?;
                let entry = u32::try_from(value).map_err(|_| mismatch("32 bits", value))?;
                self.thread(cpu)?.pmu().set_lvtpc(LvtPc::from_bits(entry));
                Ok(())
            }
            PmuStep::Lvtpc(check) => {
                let entry = self.thread(cpu)?.pmu().lvtpc();
                compare(check, entry.bits().into(), scope)
            }
            PmuStep::Deliver(expected) => {
                let found = self.thread(cpu)?.deliver();
                if found == *expected {
                    return Ok(());
                }
                Err(mismatch(told(*expected), told(found)))
            }
            PmuStep::SetMemory(address, value) => {
                let (address, value) = (eval(address, scope)?, eval(value, scope)?);
                self.world(cpu)?.put(address, &value.to_le_bytes());
                Ok(())
            }
            PmuStep::Memory(address, check) => {
                let address = eval(address, scope)?;
                compare(check, self.world(cpu)?.word(address), scope)
            }
            PmuStep::SetState(field, value) => {
                let value = eval(value, scope)?;
                self.world(cpu)?.set(*field, value);
                Ok(())
            }
        }
    }
}

fn told(interrupt: Option<Interrupt>) -> String {
    match interrupt {
        None => "none".to_owned(),
        Some(Interrupt::Fixed(vector)) => format!("vector {vector:#x}"),
        Some(Interrupt::Nmi) => "NMI".to_owned(),
        Some(Interrupt::Smi) => "SMI".to_owned(),
        Some(Interrupt::Init) => "INIT".to_owned(),
        Some(Interrupt::ExtInt) => "ExtINT".to_owned(),
    }
}
