//! Names of what retires.

use vlbr_arch::{BranchClass, CodeSize, FarKind};

use super::hex::Hex;
use super::step::{Branch, Step};
use crate::compare::{Mismatch, eval};
use crate::expr::Scope;
use crate::{BranchOutcome, Unseen};

const fn class(class: BranchClass) -> &'static str {
    match class {
        BranchClass::Jcc => "jcc",
        BranchClass::NearRelJmp => "near-rel-jmp",
        BranchClass::NearIndJmp => "near-ind-jmp",
        BranchClass::NearRelCall => "near-rel-call",
        BranchClass::NearRelCallZero => "near-rel-call-zero",
        BranchClass::NearIndCall => "near-ind-call",
        BranchClass::NearRet => "near-ret",
        BranchClass::Far(kind) => match kind {
            FarKind::Jmp => "far-jmp",
            FarKind::Call => "far-call",
            FarKind::Ret => "far-ret",
            FarKind::Syscall => "syscall",
            FarKind::Sysret => "sysret",
            FarKind::Sysenter => "sysenter",
            FarKind::Sysexit => "sysexit",
            FarKind::Iret => "iret",
            FarKind::SoftwareInterrupt => "software-interrupt",
            FarKind::Interrupt => "interrupt",
            FarKind::Exception => "exception",
            FarKind::DebugException => "debug-exception",
            FarKind::TsxAbort => "tsx-abort",
            FarKind::Enclave => "enclave",
            FarKind::Init => "init",
            FarKind::Sipi => "sipi",
            FarKind::Smi => "smi",
            FarKind::Rsm => "rsm",
            FarKind::TaskSwitch => "task-switch",
        },
    }
}

const fn bits(size: CodeSize) -> u8 {
    match size {
        CodeSize::Bits16 => 16,
        CodeSize::Bits32 => 32,
        CodeSize::Bits64 => 64,
    }
}

/// A control transfer with every field.
pub(super) fn branch(branch: &crate::Branch, scope: Scope) -> Result<Step, Mismatch> {
    Ok(Step::Branch(Branch {
        class: class(branch.class),
        from: Hex(eval(&branch.from, scope)?),
        to: Hex(eval(&branch.to, scope)?),
        cs_base: [Hex(branch.cs_base.0), Hex(branch.cs_base.1)],
        code_size: [bits(branch.size.0), bits(branch.size.1)],
        cpl: [branch.cpl.0.number(), branch.cpl.1.number()],
        mispredicted: branch.mispredicted,
        in_tx: branch.in_tx,
        abort: branch.abort,
        fused: branch.fused,
        cycles: branch.after,
        effect: branch.outcome.map(|outcome| match outcome {
            BranchOutcome::Recorded => "recorded",
            BranchOutcome::Popped => "popped",
            BranchOutcome::Ignored => "ignored",
        }),
    }))
}

pub(super) const fn unseen(what: Unseen) -> Step {
    Step::Unrecorded {
        what: match what {
            Unseen::NotTaken => "jcc-not-taken",
            Unseen::RepString => "rep-string",
            Unseen::Xbegin => "xbegin",
            Unseen::Xend => "xend",
            Unseen::MachineClear => "machine-clear",
            Unseen::OptOutEnclave => "opt-out-enclave",
            Unseen::VmExit => "vm-exit",
            Unseen::VmEntry => "vm-entry",
        },
    }
}
