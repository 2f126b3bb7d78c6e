//! One line of a block.

use vlbr_arch::BrType;
use vlbr_lbr::{Pmi, Reset};

use super::names::{bits_of, image_field, register};
use super::words::{Words, no_bits, unknown};
use super::{branch, pmu, vmx};
use crate::{Action, EntryCheck, Expected, Phase, PmuStep, Reason, Step, Unseen, VmxStep};

/// Reads a step.
pub(super) fn parse(line: usize, phase: Phase, text: &str) -> Result<Step, Reason> {
    let mut words = Words::new(text);
    let mut word = words.next("a step")?;
    let mut cpu = 0;
    if word == "cpu" {
        cpu = match words.next("0: or 1:")? {
            "0:" => 0,
            "1:" => 1,
            other => return Err(unknown(other, "0: or 1:")),
        };
        word = words.next("a step")?;
    }
    let mut repeat = None;
    if word == "repeat" {
        repeat = Some(words.value()?);
        word = words.next("a step")?;
    }
    let what = action(word, &mut words)?;
    words.end()?;
    check_block(&what, phase)?;
    Ok(Step {
        line,
        text: text.to_owned(),
        phase,
        cpu,
        repeat,
        what,
    })
}

/// What may stand where: happenings under `given` and `when`, states under `then`; reads anywhere.
fn check_block(what: &Action, phase: Phase) -> Result<(), Reason> {
    let (name, state) = match what {
        Action::Rdmsr(..)
        | Action::Vmx(VmxStep::Vmread(..))
        | Action::Pmu(PmuStep::Rdpmc { .. }) => return Ok(()),
        Action::Pmu(PmuStep::Lvtpc(_)) => ("a comparison of the LVT entry", true),
        Action::Pmu(PmuStep::Memory(..)) => ("a comparison of memory", true),
        Action::Vmx(VmxStep::Stored(..)) => ("a stored value", true),
        Action::Vmx(VmxStep::Byte(..)) => ("a comparison of a byte", true),
        Action::Entry(..) => ("an entry", true),
        Action::Holds(_) => ("the stack", true),
        Action::LbrInserts(_) => ("a count", true),
        Action::Cpuid(..) => ("cpuid", true),
        Action::Image(..) => ("a comparison of an image", true),
        Action::Branch(branch) if phase == Phase::When && branch.outcome.is_none() => {
            return Err(Reason::NoOutcome);
        }
        Action::Branch(_) => ("a branch", false),
        Action::Wrmsr(..) => ("wrmsr", false),
        _ => ("an event", false),
    };
    if state == (phase == Phase::Then) {
        Ok(())
    } else {
        Err(Reason::WrongBlock {
            what: name,
            block: phase.word(),
        })
    }
}

fn action(word: &str, words: &mut Words<'_>) -> Result<Action, Reason> {
    if let Some(branch) = branch::parse(word, words)? {
        return Ok(Action::Branch(branch));
    }
    if let Some(step) = pmu::parse(word, words)? {
        return Ok(Action::Pmu(step));
    }
    if let Some(step) = vmx::parse(word, words)? {
        return Ok(Action::Vmx(step));
    }
    Ok(match word {
        "lbr" => lbr(words)?,
        "wrmsr" => {
            let register = register(words.next("a register")?)?;
            let value = words.value_with(bits_of(&register))?;
            Action::Wrmsr(register, value, words.write_outcome()?)
        }
        "rdmsr" => {
            let register = register(words.next("a register")?)?;
            let check = words.read_check(bits_of(&register))?;
            Action::Rdmsr(register, check)
        }
        "wait" => Action::Wait(words.value()?),
        "pmi" => Action::Pmi(match words.next("counter, pebs or bts")? {
            "counter" => Pmi::Counter,
            "pebs" => Pmi::Pebs,
            "bts" => Pmi::Bts,
            other => return Err(unknown(other, "counter, pebs or bts")),
        }),
        "deep-c-state" => Action::DeepCState,
        "reset" => Action::Reset(match words.next("cold, warm or warm-in-c6")? {
            "cold" => Reset::Cold,
            "warm" => Reset::Warm,
            "warm-in-c6" => Reset::WarmInC6,
            other => return Err(unknown(other, "cold, warm or warm-in-c6")),
        }),
        "verr" | "verw" | "lar" | "lsl" => {
            words.expect("zf=0")?;
            Action::SegmentTestFails
        }
        "log-event" => Action::LogEvent(match words.next("pmc0 to pmc3")? {
            "pmc0" => 0,
            "pmc1" => 1,
            "pmc2" => 2,
            "pmc3" => 3,
            other => return Err(unknown(other, "pmc0 to pmc3")),
        }),
        "xsaves" => Action::Xsaves(image_name(words)?, words.write_outcome()?),
        "xrstors" if words.take("init") => Action::XrstorsInit(words.write_outcome()?),
        "xrstors" => Action::Xrstors(image_name(words)?, words.write_outcome()?),
        "set" => {
            match words.next("image, memory or state")? {
                "image" => {}
                "memory" => return Ok(Action::Pmu(pmu::set_memory(words)?)),
                "state" => return Ok(Action::Pmu(pmu::set_state(words)?)),
                other => return Err(unknown(other, "image, memory or state")),
            }
            let image = image_name(words)?;
            let field = image_field(words.next("a field")?)?;
            words.expect("=")?;
            Action::SetImage(image, field, words.value()?)
        }
        "image" => {
            let image = image_name(words)?;
            let field = image_field(words.next("a field")?)?;
            Action::Image(image, field, words.check(&no_bits)?)
        }
        "cpuid" => cpuid(words)?,
        "entry" => entry(words)?,
        "stack" => match words.next("holds or empty")? {
            "holds" => Action::Holds(words.value()?),
            "empty" => Action::Holds(crate::Expr::Number(0)),
            other => return Err(unknown(other, "holds or empty")),
        },
        "count" => {
            words.expect("LBR_INSERTS")?;
            words.expect("=")?;
            Action::LbrInserts(words.value()?)
        }
        _ => unseen(word).map(Action::Unseen)?,
    })
}

fn unseen(word: &str) -> Result<Unseen, Reason> {
    Ok(match word {
        "jcc-not-taken" => Unseen::NotTaken,
        "rep-string" => Unseen::RepString,
        "xbegin" => Unseen::Xbegin,
        "xend" => Unseen::Xend,
        "machine-clear" => Unseen::MachineClear,
        "opt-out-enclave" => Unseen::OptOutEnclave,
        "vm-exit" => Unseen::VmExit,
        "vm-entry" => Unseen::VmEntry,
        _ => return Err(unknown(word, "a step")),
    })
}

/// `lbr off`, `lbr on [user|kernel] [call-stack]`
fn lbr(words: &mut Words<'_>) -> Result<Action, Reason> {
    match words.next("on or off")? {
        "off" => return Ok(Action::LbrOff),
        "on" => {}
        other => return Err(unknown(other, "on or off")),
    }
    let (kernel, user) = if words.take("user") {
        (false, true)
    } else if words.take("kernel") {
        (true, false)
    } else {
        (true, true)
    };
    Ok(Action::LbrOn {
        kernel,
        user,
        call_stack: words.take("call-stack"),
    })
}

/// An image is named by one capital letter.
fn image_name(words: &mut Words<'_>) -> Result<char, Reason> {
    const EXPECTED: &str = "a capital letter, the name of an image";
    let word = words.next(EXPECTED)?;
    let mut letters = word.chars();
    match (letters.next(), letters.next()) {
        (Some(letter @ 'A'..='Z'), None) => Ok(letter),
        _ => Err(unknown(word, EXPECTED)),
    }
}

/// `cpuid 0x1c.0 eax = V`
fn cpuid(words: &mut Words<'_>) -> Result<Action, Reason> {
    const LEAVES: &str = "0xa.0, 0x1c.0 or 0xd.15";
    const REGISTERS: &str = "eax, ebx, ecx or edx";
    let (leaf, subleaf) = match words.next(LEAVES)? {
        "0xa.0" => (0xa, 0),
        "0x1c.0" => (0x1c, 0),
        "0xd.15" => (0xd, 15),
        other => return Err(unknown(other, LEAVES)),
    };
    let register = match words.next(REGISTERS)? {
        "eax" => 0,
        "ebx" => 1,
        "ecx" => 2,
        "edx" => 3,
        other => return Err(unknown(other, REGISTERS)),
    };
    Ok(Action::Cpuid(
        leaf,
        subleaf,
        register,
        words.check(&no_bits)?,
    ))
}

/// `entry I empty`, `entry I = FROM -> TO flags`
fn entry(words: &mut Words<'_>) -> Result<Action, Reason> {
    let index = words.value()?;
    let equal = match words.next("=, != or empty")? {
        "empty" => return Ok(Action::Entry(index, Expected::Empty)),
        "=" => true,
        "!=" => false,
        other => return Err(unknown(other, "=, != or empty")),
    };
    let from = words.value()?;
    words.expect("->")?;
    let mut check = EntryCheck {
        equal,
        from,
        to: words.value()?,
        mispredicted: false,
        in_tx: false,
        abort: false,
        cycles: None,
        branch_type: None,
    };
    while let Some(word) = words.peek() {
        words.take(word);
        match word {
            "mispred" => check.mispredicted = true,
            "in_tx" => check.in_tx = true,
            "abort" => check.abort = true,
            "cycles=none" => check.cycles = Some(None),
            _ => match word.split_once('=') {
                Some(("cycles", value)) => {
                    check.cycles = Some(Some(crate::Expr::parse(value, &no_bits)?));
                }
                Some(("type", name)) => check.branch_type = Some(branch_type(name)?),
                _ => {
                    return Err(unknown(
                        word,
                        "mispred, in_tx, abort, cycles=N or type=NAME",
                    ));
                }
            },
        }
    }
    Ok(Action::Entry(index, Expected::Record(check)))
}

/// A branch type by the name of the SDM.
fn branch_type(name: &str) -> Result<u8, Reason> {
    (0..=BrType::OTHER.value())
        .find(|code| BrType::new(*code).to_string() == name)
        .ok_or_else(|| unknown(name, "a branch type, COND to OTHER_BRANCH"))
}
