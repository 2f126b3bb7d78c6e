//! Expected against found, and how both are told.

use core::fmt::Write;

use vlbr_arch::Transfer;
use vlbr_cpu::processor::MsrFault;
use vlbr_lbr::{GpFault, Record, Verdict};

use crate::expr::Scope;
use crate::{Branch, BranchOutcome, Check, EntryCheck, Expr, Fault, ReadCheck, WriteOutcome};

/// A step that went otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found}")]
pub struct Mismatch {
    /// What the step says.
    pub expected: String,
    /// What it led to.
    pub found: String,
}

pub(crate) type Outcome = Result<(), Mismatch>;

pub(crate) fn mismatch(expected: impl ToString, found: impl ToString) -> Mismatch {
    Mismatch {
        expected: expected.to_string(),
        found: found.to_string(),
    }
}

pub(crate) fn hex(value: u64) -> String {
    format!("{value:#x}")
}

pub(crate) fn eval(expr: &Expr, scope: Scope) -> Result<u64, Mismatch> {
    expr.eval(scope)
        .ok_or_else(|| mismatch("values that fit in 64 bits", "one that does not"))
}

/// What a step says of a branch.
pub(crate) fn transfer(branch: &Branch, scope: Scope) -> Result<Transfer, Mismatch> {
    Ok(Transfer {
        from: eval(&branch.from, scope)?,
        to: eval(&branch.to, scope)?,
        from_cs_base: branch.cs_base.0,
        to_cs_base: branch.cs_base.1,
        from_size: branch.size.0,
        to_size: branch.size.1,
        class: branch.class,
        cpl_before: branch.cpl.0,
        cpl_after: branch.cpl.1,
        mispredicted: branch.mispredicted,
        in_tx: branch.in_tx,
        tx_abort: branch.abort,
        fused: branch.fused,
    })
}

pub(crate) fn outcome(verdict: Verdict) -> BranchOutcome {
    match verdict {
        Verdict::Ignore => BranchOutcome::Ignored,
        Verdict::Push => BranchOutcome::Recorded,
        Verdict::Pop => BranchOutcome::Popped,
    }
}

impl core::fmt::Display for BranchOutcome {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Recorded => "recorded",
            Self::Popped => "popped",
            Self::Ignored => "ignored",
        })
    }
}

pub(crate) fn compare(check: &Check, found: u64, scope: Scope) -> Outcome {
    let value = eval(&check.value, scope)?;
    let mask = check
        .mask
        .as_ref()
        .map_or(Ok(!0), |mask| eval(mask, scope))?;
    if (found & mask == value & mask) == check.equal {
        return Ok(());
    }
    let but = if check.equal { "" } else { "anything but " };
    let under = match mask {
        u64::MAX => String::new(),
        mask => format!(" under mask {mask:#x}"),
    };
    Err(mismatch(format!("{but}{value:#x}{under}"), hex(found)))
}

/// Why an instruction did not complete, as scenarios name it. `None`: not a fault of the part, the
/// model lacks what the part does.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) fault: Option<Fault>,
    text: String,
}

impl core::fmt::Display for Refused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<GpFault> for Refused {
    fn from(fault: GpFault) -> Self {
        Self {
            fault: Some(Fault::of(&fault.reason)),
            text: fault.to_string(),
        }
    }
}

impl From<vlbr_pmu::GpFault> for Refused {
    fn from(fault: vlbr_pmu::GpFault) -> Self {
        Self {
            fault: Some(Fault::of_pmu(&fault.reason)),
            text: fault.to_string(),
        }
    }
}

impl From<MsrFault> for Refused {
    fn from(fault: MsrFault) -> Self {
        Self {
            fault: Fault::of_msr(&fault.reason),
            text: fault.to_string(),
        }
    }
}

pub(crate) fn compare_fault<E: Into<Refused>>(
    expected: WriteOutcome,
    found: Result<(), E>,
) -> Outcome {
    match (expected, found.map_err(Into::into)) {
        (WriteOutcome::Ok, Ok(())) => Ok(()),
        (WriteOutcome::Ok, Err(refused)) => Err(mismatch("ok", refused)),
        (WriteOutcome::Fault(expected), Ok(())) => Err(mismatch(expected, "ok")),
        (WriteOutcome::Fault(expected), Err(refused)) => {
            if refused.fault.is_some_and(|found| expected.accepts(found)) {
                Ok(())
            } else {
                Err(mismatch(expected, refused))
            }
        }
    }
}

/// A read that gives a value or faults.
pub(crate) fn compare_read<E: Into<Refused>>(
    check: &ReadCheck,
    found: Result<u64, E>,
    scope: Scope,
) -> Outcome {
    match (check, found.map_err(Into::into)) {
        (ReadCheck::Value(check), Ok(found)) => compare(check, found, scope),
        (ReadCheck::Value(check), Err(refused)) => {
            Err(mismatch(hex(eval(&check.value, scope)?), refused))
        }
        (ReadCheck::Fault(expected), Ok(found)) => Err(mismatch(expected, hex(found))),
        (ReadCheck::Fault(expected), Err(refused)) => {
            compare_fault(WriteOutcome::Fault(*expected), Err(refused))
        }
    }
}

pub(crate) fn compare_record(check: &EntryCheck, record: &Record, scope: Scope) -> Outcome {
    let (from, to) = (eval(&check.from, scope)?, eval(&check.to, scope)?);
    let cycles = match &check.cycles {
        None => record.cycles.map(u64::from),
        Some(None) => None,
        Some(Some(cycles)) => Some(eval(cycles, scope)?),
    };
    let found_type = record.branch_type.map(|code| code.min(8));
    let branch_type = check.branch_type.or(found_type);
    let same = (from, to) == (record.from, record.to)
        && check.mispredicted == record.mispredicted
        && check.in_tx == record.in_tx
        && check.abort == record.abort
        && cycles == record.cycles.map(u64::from)
        && branch_type == found_type;
    if same == check.equal {
        return Ok(());
    }
    let mut expected = format!("{from:#x} -> {to:#x}");
    flags(
        &mut expected,
        check.mispredicted,
        check.in_tx,
        check.abort,
        check.cycles.is_some().then_some(cycles),
        check.branch_type,
    );
    let but = if check.equal { "" } else { "anything but " };
    Err(mismatch(format!("{but}{expected}"), describe(record)))
}

fn flags(
    text: &mut String,
    mispredicted: bool,
    in_tx: bool,
    abort: bool,
    cycles: Option<Option<u64>>,
    branch_type: Option<u8>,
) {
    for (flag, name) in [
        (mispredicted, "mispred"),
        (in_tx, "in_tx"),
        (abort, "abort"),
    ] {
        if flag {
            text.push(' ');
            text.push_str(name);
        }
    }
    // Writing to a String cannot fail.
    let _ = match cycles {
        None => Ok(()),
        Some(None) => write!(text, " cycles=none"),
        Some(Some(cycles)) => write!(text, " cycles={cycles}"),
    };
    if let Some(code) = branch_type {
        let _ = write!(text, " type={}", vlbr_arch::BrType::new(code));
    }
}

pub(crate) fn describe(record: &Record) -> String {
    if record.raw == [0; 3] {
        return "an empty entry".to_owned();
    }
    let mut text = format!("{:#x} -> {:#x}", record.from, record.to);
    flags(
        &mut text,
        record.mispredicted,
        record.in_tx,
        record.abort,
        Some(record.cycles.map(u64::from)),
        record.branch_type,
    );
    text
}
