//! Control transfers by the names of their instructions and events.

use vlbr_arch::{BranchClass, CodeSize, Cpl, FarKind};

use super::words::{Words, no_bits, unknown};
use crate::{Branch, BranchOutcome, Expr, Reason};

const USER: (Cpl, Cpl) = (Cpl::Ring3, Cpl::Ring3);
const INTO_KERNEL: (Cpl, Cpl) = (Cpl::Ring3, Cpl::Ring0);
const OUT_OF_KERNEL: (Cpl, Cpl) = (Cpl::Ring0, Cpl::Ring3);
const KERNEL: (Cpl, Cpl) = (Cpl::Ring0, Cpl::Ring0);

type Classified = (BranchClass, (Cpl, Cpl));

/// Class and usual CPLs of a transfer that starts with `word`; `None` for other steps.
fn class(word: &str, words: &mut Words<'_>) -> Result<Option<Classified>, Reason> {
    use BranchClass::{Far, Jcc, NearIndCall, NearIndJmp, NearRelCall, NearRelCallZero};
    use BranchClass::{NearRelJmp, NearRet};
    let far = |kind, cpl| Ok(Some((Far(kind), cpl)));
    let near = |class| Ok(Some((class, USER)));
    match word {
        "jcc" | "jcxz" | "loop" => near(Jcc),
        "jmp" => match words.next("rel, ind or far")? {
            "rel" => near(NearRelJmp),
            "ind" => near(NearIndJmp),
            "far" => far(FarKind::Jmp, USER),
            other => Err(unknown(other, "rel, ind or far")),
        },
        "call" => match words.next("rel, ind, +0, far or gate")? {
            "rel" => near(NearRelCall),
            "ind" => near(NearIndCall),
            "+0" => near(NearRelCallZero),
            "far" => far(FarKind::Call, USER),
            "gate" => far(FarKind::Call, INTO_KERNEL),
            other => Err(unknown(other, "rel, ind, +0, far or gate")),
        },
        "ret" if words.take("far") => far(FarKind::Ret, USER),
        "ret" => near(NearRet),
        "syscall" => far(FarKind::Syscall, INTO_KERNEL),
        "sysret" => far(FarKind::Sysret, OUT_OF_KERNEL),
        "sysenter" => far(FarKind::Sysenter, INTO_KERNEL),
        "sysexit" => far(FarKind::Sysexit, OUT_OF_KERNEL),
        "iret" => far(FarKind::Iret, OUT_OF_KERNEL),
        "int" | "int3" | "into" => far(FarKind::SoftwareInterrupt, INTO_KERNEL),
        "int1" => far(FarKind::DebugException, INTO_KERNEL),
        "interrupt" | "nmi" => far(FarKind::Interrupt, INTO_KERNEL),
        // VM entry that injects #DB does not clear the enable; it is an exception like others.
        "#db" if words.take("injected") => far(FarKind::Exception, INTO_KERNEL),
        "#db" => far(FarKind::DebugException, INTO_KERNEL),
        "#de" | "#ud" | "#nm" | "#ss" | "#gp" | "#pf" | "#mf" | "#ac" | "#xm" => {
            far(FarKind::Exception, INTO_KERNEL)
        }
        "tsx-abort" => far(FarKind::TsxAbort, USER),
        "eenter" | "eresume" | "eexit" | "aex" => far(FarKind::Enclave, USER),
        "init" => far(FarKind::Init, KERNEL),
        "sipi" => far(FarKind::Sipi, KERNEL),
        "smi" => far(FarKind::Smi, KERNEL),
        "rsm" => far(FarKind::Rsm, KERNEL),
        "task-switch" => far(FarKind::TaskSwitch, KERNEL),
        _ => Ok(None),
    }
}

/// Reads a transfer whose first word was `word`; `None` if it is another step.
pub(super) fn parse(word: &str, words: &mut Words<'_>) -> Result<Option<Branch>, Reason> {
    let Some((class, cpl)) = class(word, words)? else {
        return Ok(None);
    };
    let from = words.value()?;
    words.expect("->")?;
    let to = words.value()?;
    let mut branch = Branch {
        class,
        from,
        to,
        cpl,
        size: (CodeSize::Bits64, CodeSize::Bits64),
        cs_base: (0, 0),
        mispredicted: false,
        in_tx: false,
        abort: class == BranchClass::Far(FarKind::TsxAbort),
        fused: 0,
        after: 0,
        outcome: None,
    };
    while let Some(word) = words.peek() {
        words.take(word);
        if word == "=>" {
            branch.outcome = Some(outcome(words)?);
            break;
        }
        modifier(&mut branch, word)?;
    }
    Ok(Some(branch))
}

fn outcome(words: &mut Words<'_>) -> Result<BranchOutcome, Reason> {
    const EXPECTED: &str = "recorded, popped or ignored";
    match words.next(EXPECTED)? {
        "recorded" => Ok(BranchOutcome::Recorded),
        "popped" => Ok(BranchOutcome::Popped),
        "ignored" => Ok(BranchOutcome::Ignored),
        other => Err(unknown(other, EXPECTED)),
    }
}

fn modifier(branch: &mut Branch, word: &str) -> Result<(), Reason> {
    const EXPECTED: &str =
        "user, kernel, cpl=A->B, code=A->B, cs=A->B, mispred, in_tx, fused=N, after=N or =>";
    match word {
        "user" => branch.cpl = USER,
        "kernel" => branch.cpl = KERNEL,
        "mispred" => branch.mispredicted = true,
        "in_tx" => branch.in_tx = true,
        _ => {
            let (key, value) = word
                .split_once('=')
                .ok_or_else(|| unknown(word, EXPECTED))?;
            let bad = || Reason::BadValue(word.to_owned());
            match key {
                "cpl" => branch.cpl = pair(value, ring).ok_or_else(bad)?,
                "code" => branch.size = pair(value, code_size).ok_or_else(bad)?,
                "cs" => branch.cs_base = pair(value, number).ok_or_else(bad)?,
                "fused" => {
                    let bytes = number(value).and_then(|bytes| u8::try_from(bytes).ok());
                    branch.fused = bytes.ok_or_else(bad)?;
                }
                "after" => branch.after = number(value).ok_or_else(bad)?,
                _ => return Err(unknown(word, EXPECTED)),
            }
        }
    }
    Ok(())
}

/// `A->B`, or `A` for both.
fn pair<T: Copy>(text: &str, read: fn(&str) -> Option<T>) -> Option<(T, T)> {
    match text.split_once("->") {
        Some((before, after)) => Some((read(before)?, read(after)?)),
        None => read(text).map(|both| (both, both)),
    }
}

fn ring(text: &str) -> Option<Cpl> {
    Cpl::from_number(text.parse().ok()?)
}

fn code_size(text: &str) -> Option<CodeSize> {
    match text {
        "16" => Some(CodeSize::Bits16),
        "32" => Some(CodeSize::Bits32),
        "64" => Some(CodeSize::Bits64),
        _ => None,
    }
}

fn number(text: &str) -> Option<u64> {
    match Expr::parse(text, &no_bits) {
        Ok(Expr::Number(value)) => Some(value),
        _ => None,
    }
}
