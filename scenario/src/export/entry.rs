//! Checks of entries as reads of their registers.

use vlbr_arch::{LbrInfo, Msr};

use super::flatten::Flatten;
use super::hex::Hex;
use super::step::{Expect, Read, Step};
use crate::compare::{Mismatch, eval};
use crate::expr::Scope;
use crate::{EntryCheck, Expected};

/// Value and mask of one word.
type Word = (u64, u64);

/// `entry I ...`
pub(super) fn entry(
    at: &mut Flatten<'_, '_>,
    cpu: usize,
    index: u64,
    expected: &Expected,
    scope: Scope,
) -> Result<Vec<Step>, Mismatch> {
    let (from, to, info) = at.machine.entry_registers(cpu, index, scope.depth)?;
    let check = match expected {
        Expected::Empty => {
            let msrs = [Some(from), Some(to), info];
            return Ok(vec![all_zero(msrs.into_iter().flatten())]);
        }
        Expected::Record(check) => check,
    };
    let words = words(at, check, scope)?;
    let reads = [
        (Some(from), words[0]),
        (Some(to), words[1]),
        (info, words[2]),
    ]
    .into_iter()
    .filter_map(|(msr, (value, mask))| {
        (mask != 0).then_some(Read {
            register: msr?.into(),
            value: Hex(value),
            mask: Hex(mask),
        })
    });
    if !check.equal {
        return Ok(vec![Step::SomeDiffer {
            reads: reads.collect(),
        }]);
    }
    Ok(reads
        .map(|read| Step::Rdmsr {
            register: read.register,
            expect: Expect::Value {
                value: read.value,
                mask: read.mask,
                differs: false,
            },
        })
        .collect())
}

/// FROM, TO and INFO of such an entry. A flag that is not named is 0; cycles and type are compared
/// only if named.
fn words(at: &Flatten<'_, '_>, check: &EntryCheck, scope: Scope) -> Result<[Word; 3], Mismatch> {
    let layout = &at.layout;
    let flags = [
        (check.mispredicted, LbrInfo::MISPRED),
        (check.in_tx, LbrInfo::IN_TSX),
        (check.abort, LbrInfo::TSX_ABORT),
    ]
    .into_iter()
    .fold(
        0,
        |all, (set, bit)| if set { all | bit.bits() } else { all },
    );
    let (from, to) = (eval(&check.from, scope)?, eval(&check.to, scope)?);
    let word = |address: u64, address_mask: Hex, flag_mask: Hex| {
        (
            address & address_mask.0 | flags & flag_mask.0,
            address_mask.0 | flag_mask.0,
        )
    };
    let from = word(from, layout.from_address, layout.from_flags);
    let mut to = word(to, layout.to_address, Hex(0));
    let mut info = word(0, Hex(0), layout.info_flags);
    if let Some(cycles) = &check.cycles {
        info.1 |= layout.info_cycles_valid.0;
        if let Some(cycles) = cycles {
            let cycles = eval(cycles, scope)?;
            to.1 |= layout.to_cycles.0;
            to.0 |= cycles << 48 & layout.to_cycles.0;
            info.1 |= layout.info_cycles.0;
            info.0 |= cycles & layout.info_cycles.0 | layout.info_cycles_valid.0;
        }
    }
    if let Some(code) = check.branch_type {
        let code = u64::from(code) << LbrInfo::BR_TYPE_SHIFT & layout.info_type.0;
        // 8 stands for 8 to 15.
        let other = 8 << LbrInfo::BR_TYPE_SHIFT & layout.info_type.0;
        info.1 |= if code == other {
            other
        } else {
            layout.info_type.0
        };
        info.0 |= code;
    }
    Ok([from, to, info])
}

/// `stack holds N`
pub(super) fn holds(
    at: &mut Flatten<'_, '_>,
    cpu: usize,
    count: u64,
    scope: Scope,
) -> Result<Vec<Step>, Mismatch> {
    let mut filled = Vec::new();
    let mut empty = Vec::new();
    for n in 0..scope.depth {
        let (from, to, info) = at.machine.entry_registers(cpu, n, scope.depth)?;
        if n < count {
            filled.push(from);
        } else {
            empty.extend([Some(from), Some(to), info].into_iter().flatten());
        }
    }
    let mut steps = Vec::new();
    if !filled.is_empty() {
        filled.sort_unstable();
        steps.push(Step::NoneZero {
            msrs: addresses(filled),
        });
    }
    if !empty.is_empty() {
        empty.sort_unstable();
        steps.push(all_zero(empty));
    }
    Ok(steps)
}

fn all_zero(msrs: impl IntoIterator<Item = Msr>) -> Step {
    Step::AllZero {
        msrs: addresses(msrs),
    }
}

fn addresses(msrs: impl IntoIterator<Item = Msr>) -> Vec<Hex> {
    msrs.into_iter().map(|msr| msr.value().into()).collect()
}
