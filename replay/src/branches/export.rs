//! The branches of a trace in the format of the Championship Branch Prediction of 2025, for other
//! predictors.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use vlbr_timing::predict::{Branch, BranchKind};
use vlbr_traces::cbp::{Class, Instruction, Writer};
use vlbr_traces::export::{ExportError, OutputFile};

use super::error::BranchError;
use super::input::BranchInput;
use super::walk::{Retired, Sites, walk};

/// Bits by which addresses are moved up: instructions of the championship have four bytes, those of x86 at
/// least one.
const SHIFT: u32 = 2;
/// Bytes of an instruction there.
const LENGTH: u64 = 4;

/// Writes what `input` retires, at most `limit` instructions, to `path`: every near branch with its outcome,
/// everything else as arithmetic without registers. Addresses are four times those of the trace; a branch is
/// moved so that it ends where its four bytes end, and instructions before it lie four bytes apart. Returns
/// the number of instructions.
///
/// # Errors
/// An input that is damaged or cannot be read, an output that cannot be written.
pub fn export_cbp(
    input: &BranchInput<'_>,
    limit: Option<u64>,
    path: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, BranchError> {
    let about = |source| ExportError::File {
        path: path.to_owned(),
        source,
    };
    let mut writer = Writer::new(OutputFile::create(path)?);
    let mut written = 0;
    if limit == Some(0) {
        writer.finish().map_err(about)?.commit()?;
        return Ok(0);
    }
    walk(input, &mut Sites::default(), progress, |retired, _| {
        write(&mut writer, retired).map_err(about)?;
        written += u64::from(retired.instructions);
        Ok(match limit {
            Some(limit) if written >= limit => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
    })?;
    writer.finish().map_err(about)?.commit()?;
    Ok(written)
}

/// Where a branch is put. Calls return to the address behind their four bytes, which is that of the
/// instruction behind the call. A taken conditional branch must not lead there, for the simulator takes one
/// that does for one that was not taken: then its address alone counts.
fn place(branch: &Branch) -> u64 {
    let conditional = branch.kind == BranchKind::Conditional;
    if conditional && branch.taken && branch.target == branch.fallthrough {
        branch.address << SHIFT
    } else {
        (branch.fallthrough << SHIFT).wrapping_sub(LENGTH)
    }
}

fn write<W: io::Write>(writer: &mut Writer<W>, retired: &Retired) -> io::Result<()> {
    let others = u64::from(retired.instructions) - u64::from(retired.branch.is_some());
    let first = match &retired.branch {
        Some(branch) => place(branch).wrapping_sub(LENGTH * others),
        None => retired.start << SHIFT,
    };
    for number in 0..others {
        writer.write(&Instruction {
            address: first.wrapping_add(LENGTH * number),
            class: Class::Alu,
            target: None,
        })?;
    }
    let Some(branch) = &retired.branch else {
        return Ok(());
    };
    writer.write(&Instruction {
        address: place(branch),
        class: match branch.kind {
            BranchKind::Conditional => Class::Conditional,
            BranchKind::Jump => Class::Jump,
            BranchKind::Call => Class::Call,
            BranchKind::IndirectJump => Class::IndirectJump,
            BranchKind::IndirectCall => Class::IndirectCall,
            BranchKind::Return => Class::Return,
        },
        target: branch.taken.then_some(branch.target << SHIFT),
    })
}
