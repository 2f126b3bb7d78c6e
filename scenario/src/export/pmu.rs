//! Steps about counters, interrupts and PEBS.

use vlbr_pmu::{Interrupt, Source};

use super::flatten::value;
use super::hex::{self, Hex};
use super::step::{Amount, Step};
use crate::compare::{Mismatch, eval, mismatch};
use crate::expr::Scope;
use crate::{PmuStep, ReadCheck, StateField};

fn source(source: Source) -> &'static str {
    let named = Source::NAMED.iter().find(|(known, _)| *known == source);
    named.map_or("", |(_, name)| name)
}

fn field(field: StateField) -> &'static str {
    let named = StateField::NAMED.iter().find(|(known, _)| *known == field);
    named.map_or("", |(_, name)| name)
}

fn bits_32(value: u64) -> Result<Hex, Mismatch> {
    u32::try_from(value)
        .map(Hex::from)
        .map_err(|_| mismatch("32 bits", value))
}

/// The step that `what` stands for.
pub(super) fn step(what: &PmuStep, scope: Scope) -> Result<Step, Mismatch> {
    Ok(match what {
        PmuStep::Run {
            amounts,
            cpl,
            in_tx,
        } => Step::Run {
            amounts: amounts
                .iter()
                .map(|(amount, of)| {
                    Ok(Amount {
                        source: source(*of),
                        amount: Hex(eval(amount, scope)?),
                    })
                })
                .collect::<Result<_, Mismatch>>()?,
            cpl: cpl.number(),
            in_tx: *in_tx,
        },
        PmuStep::Rdpmc {
            ecx,
            cpl,
            pce,
            check,
        } => Step::Rdpmc {
            ecx: bits_32(eval(ecx, scope)?)?,
            cpl: cpl.number(),
            pce: *pce,
            expect: match check {
                ReadCheck::Value(check) => value(check, scope)?,
                ReadCheck::Fault(fault) => (*fault).into(),
            },
        },
        PmuStep::SetLvtpc(value) => Step::LvtpcWrite {
            value: bits_32(eval(value, scope)?)?,
        },
        PmuStep::Lvtpc(check) => Step::LvtpcRead {
            expect: value(check, scope)?,
        },
        PmuStep::Deliver(interrupt) => Step::Deliver {
            interrupt: match interrupt {
                None => "none",
                Some(Interrupt::Fixed(_)) => "fixed",
                Some(Interrupt::Nmi) => "nmi",
                Some(Interrupt::Smi) => "smi",
                Some(Interrupt::Init) => "init",
                Some(Interrupt::ExtInt) => "extint",
            },
            vector: match interrupt {
                Some(Interrupt::Fixed(vector)) => Some(*vector),
                _ => None,
            },
        },
        PmuStep::SetMemory(address, value) => Step::LinearWrite {
            address: Hex(eval(address, scope)?),
            bytes: hex::bytes(&eval(value, scope)?.to_le_bytes()),
        },
        PmuStep::Memory(address, check) => Step::LinearRead {
            address: Hex(eval(address, scope)?),
            size: 8,
            expect: value(check, scope)?,
        },
        PmuStep::SetState(which, value) => Step::State {
            field: field(*which),
            value: Hex(eval(value, scope)?),
        },
    })
}
