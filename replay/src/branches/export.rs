//! The branches of a trace in the format of the Championship Branch Prediction of 2025, for other
//! predictors.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use vlbr_timing::predict::BranchKind;
use vlbr_traces::cbp::{Class, Instruction, Writer};
use vlbr_traces::export::{ExportError, OutputFile};

use super::error::BranchError;
use super::input::BranchInput;
use super::walk::{Retired, Sites, walk};

/// Bits by which addresses are moved up. The simulator of the championship takes a branch whose next
/// instruction lies four bytes on for one that was not taken; so moved, no target of another x86 instruction
/// lies there.
const SHIFT: u32 = 2;

/// Writes what `input` retires, at most `limit` instructions, to `path`: every near branch with its outcome,
/// everything else as arithmetic without registers. Addresses are four times those of the trace, and
/// instructions before a branch lie four bytes apart. Returns the number of instructions.
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

fn write<W: io::Write>(writer: &mut Writer<W>, retired: &Retired) -> io::Result<()> {
    let others = u64::from(retired.instructions) - u64::from(retired.branch.is_some());
    let first = match &retired.branch {
        Some(branch) => (branch.address << SHIFT).wrapping_sub(4 * others),
        None => retired.start << SHIFT,
    };
    for number in 0..others {
        writer.write(&Instruction {
            address: first.wrapping_add(4 * number),
            class: Class::Alu,
            target: None,
        })?;
    }
    let Some(branch) = &retired.branch else {
        return Ok(());
    };
    writer.write(&Instruction {
        address: branch.address << SHIFT,
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
