//! Steps about counters.

use vlbr_arch::{Cpl, LvtPc};
use vlbr_pmu::{Interrupt, Source, SourceSet};

use super::words::{Words, no_bits, unknown};
use crate::{PmuStep, Reason, StateField};

/// Reads a step whose first word is about counters; `None` if it is not.
pub(super) fn parse(word: &str, words: &mut Words<'_>) -> Result<Option<PmuStep>, Reason> {
    Ok(Some(match word {
        "run" => run(words)?,
        "rdpmc" => rdpmc(words)?,
        "lvtpc" => match words.peek() {
            Some("=" | "!=") => PmuStep::Lvtpc(words.check(&lvt_bit)?),
            _ => PmuStep::SetLvtpc(words.value_with(&lvt_bit)?),
        },
        "deliver" => {
            words.expect("=>")?;
            PmuStep::Deliver(interrupt(words)?)
        }
        "memory" => PmuStep::Memory(words.value()?, words.check(&no_bits)?),
        _ => return Ok(None),
    }))
}

/// `set memory ADDRESS = VALUE`
pub(super) fn set_memory(words: &mut Words<'_>) -> Result<PmuStep, Reason> {
    let address = words.value()?;
    words.expect("=")?;
    Ok(PmuStep::SetMemory(address, words.value()?))
}

/// `set state NAME = VALUE`
pub(super) fn set_state(words: &mut Words<'_>) -> Result<PmuStep, Reason> {
    const EXPECTED: &str = "rax to r15, rflags, rip, eventing_ip, tsc, data_address, data_source, \
                            latency or tx_abort";
    let word = words.next(EXPECTED)?;
    let named = StateField::NAMED.iter().find(|(_, name)| *name == word);
    let (field, _) = named.ok_or_else(|| unknown(word, EXPECTED))?;
    words.expect("=")?;
    Ok(PmuStep::SetState(*field, words.value()?))
}

fn lvt_bit(name: &str) -> Option<u64> {
    match name {
        "NMI" => Some(0x400),
        "SMI" => Some(0x200),
        "INIT" => Some(0x500),
        "ExtINT" => Some(0x700),
        _ => LvtPc::from_name(name).map(|bit| bit.bits().into()),
    }
}

/// `run N SOURCE [N SOURCE ...] [user|kernel] [in_tx]`
fn run(words: &mut Words<'_>) -> Result<PmuStep, Reason> {
    let mut amounts = Vec::new();
    let (mut cpl, mut in_tx) = (Cpl::Ring3, false);
    amounts.push((words.value()?, source(words.next("a source")?)?));
    while let Some(word) = words.peek() {
        match word {
            "user" => cpl = Cpl::Ring3,
            "kernel" => cpl = Cpl::Ring0,
            "in_tx" => in_tx = true,
            _ => {
                amounts.push((words.value()?, source(words.next("a source")?)?));
                continue;
            }
        }
        words.take(word);
    }
    Ok(PmuStep::Run {
        amounts,
        cpl,
        in_tx,
    })
}

/// A source by its name; the name of a class of branches stands for the predicted ones.
fn source(word: &str) -> Result<Source, Reason> {
    const EXPECTED: &str = "a source, such as instructions, conditional-taken or core-cycles";
    let predicted = format!("predicted-{word}");
    let only = |set: SourceSet| {
        let mut members = set.iter();
        members.next().filter(|_| members.next().is_none())
    };
    SourceSet::from_name(word)
        .and_then(only)
        .or_else(|| SourceSet::from_name(&predicted).and_then(only))
        .ok_or_else(|| unknown(word, EXPECTED))
}

/// `rdpmc ECX [cpl=N] [pce] = VALUE`, `... => #GP(reason)`
fn rdpmc(words: &mut Words<'_>) -> Result<PmuStep, Reason> {
    let ecx = words.value()?;
    let (mut cpl, mut pce) = (Cpl::Ring0, false);
    loop {
        match words.peek() {
            Some("pce") => pce = true,
            Some(word) if word.starts_with("cpl=") => {
                let number = word.strip_prefix("cpl=").and_then(|n| n.parse().ok());
                let ring = number.and_then(Cpl::from_number);
                cpl = ring.ok_or_else(|| unknown(word, "cpl=0 to cpl=3"))?;
            }
            _ => break,
        }
        words.next("=")?;
    }
    Ok(PmuStep::Rdpmc {
        ecx,
        cpl,
        pce,
        check: words.read_check(&no_bits)?,
    })
}

/// `NMI`, `SMI`, `INIT`, `ExtINT`, `vector N`, `none`
fn interrupt(words: &mut Words<'_>) -> Result<Option<Interrupt>, Reason> {
    const EXPECTED: &str = "none, vector N, NMI, SMI, INIT or ExtINT";
    Ok(Some(match words.next(EXPECTED)? {
        "none" => return Ok(None),
        "vector" => {
            let vector = words.constant()?;
            let bad = || Reason::BadValue(format!("{vector:#x}"));
            Interrupt::Fixed(u8::try_from(vector).map_err(|_| bad())?)
        }
        "NMI" => Interrupt::Nmi,
        "SMI" => Interrupt::Smi,
        "INIT" => Interrupt::Init,
        "ExtINT" => Interrupt::ExtInt,
        other => return Err(unknown(other, EXPECTED)),
    }))
}
