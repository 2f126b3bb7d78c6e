//! Comparisons with what a host is in.

use vlbr_arch::vmx::VmcsField;
use vlbr_cpu::ledger::Actor;
use vlbr_host::kvm::Note;
use vlbr_host::machine::Rule;
use vlbr_host::perf::EventState;

use super::host::{cpu, event, name, owner, signed};
use super::names::{bits_of, register};
use super::words::{Words, no_bits, unknown};
use crate::host_step::{
    CarriedField, ContextField, CpuField, HostCheck, HostNumber, LedgerKind, LedgerRegisters,
    SampleEntry,
};
use crate::{Check, Expr, Reason};

/// States of events by their words.
const STATES: [(Option<EventState>, &str); 7] = [
    (Some(EventState::Active), "active"),
    (Some(EventState::Inactive), "inactive"),
    (Some(EventState::Off), "off"),
    (Some(EventState::Error), "error"),
    (Some(EventState::Exit), "exit"),
    (Some(EventState::Dead), "dead"),
    (None, "none"),
];

/// Branch types as perf script names them, with PERF_BR_*.
const CLASSES: [(u8, &str); 12] = [
    (0, "UNKNOWN"),
    (1, "COND"),
    (2, "UNCOND"),
    (3, "IND"),
    (4, "CALL"),
    (5, "IND_CALL"),
    (6, "RET"),
    (7, "SYSCALL"),
    (8, "SYSRET"),
    (9, "COND_CALL"),
    (11, "ERET"),
    (12, "IRQ"),
];

/// Reads a comparison whose first word was `word`; `None` if it is another step.
pub(super) fn parse(word: &str, words: &mut Words<'_>) -> Result<Option<HostCheck>, Reason> {
    let number = match word {
        "count" => ledger(words)?,
        "note" => {
            let vcpu = name(words)?;
            let text = words.quoted()?;
            let known = Note::NAMED.iter().find(|(_, name)| *name == text);
            let (note, _) = known.ok_or_else(|| unknown(&text, "a note of KVM's journal"))?;
            HostNumber::Note(vcpu, *note)
        }
        "finding" => {
            let text = words.quoted()?;
            let known = Rule::NAMED.iter().find(|(_, name)| *name == text);
            let (rule, _) = known.ok_or_else(|| unknown(&text, "a rule of ownership"))?;
            HostNumber::Finding(*rule)
        }
        "carried" => HostNumber::Carried(one_of(
            words,
            &CarriedField::NAMED,
            "what was carried: read, written, refused, records, records-equal",
        )?),
        "perf" if words.take("callstack_users") => HostNumber::CallStackUsers,
        "perf" => HostNumber::Cpu(
            cpu(words)?,
            one_of(
                words,
                &CpuField::NAMED,
                "lbr_users, lbr_pebs_users, slot_refs or guest_owns_lbr",
            )?,
        ),
        "context" => HostNumber::Context(
            name(words)?,
            one_of(
                words,
                &ContextField::NAMED,
                "valid_lbrs, tos, lbr_sel, callstack_users, log_id or stack_state",
            )?,
        ),
        "index" => HostNumber::Index(event(words)?),
        "filter" => HostNumber::Filter(event(words)?),
        "samples" => HostNumber::Samples(event(words)?),
        "stale" => HostNumber::Stale(event(words)?),
        "check-extension" => HostNumber::Extension,
        "snapshot" => HostNumber::Snapshot(name(words)?),
        "vmcs" => {
            let vcpu = name(words)?;
            let text = words.next("a VMCS field")?;
            let field: VmcsField = text
                .parse()
                .map_err(|_| Reason::UnknownField(text.to_owned()))?;
            HostNumber::Vmcs(vcpu, field)
        }
        "read" => {
            let event = event(words)?;
            if words.take("=>") {
                words.expect("eof")?;
                return Ok(Some(HostCheck::Eof(event)));
            }
            HostNumber::Read(event)
        }
        "sample" => {
            let event = event(words)?;
            match words.next("holds or entry")? {
                "holds" => {
                    let check = Check {
                        equal: true,
                        value: words.value()?,
                        mask: None,
                    };
                    return Ok(Some(HostCheck::Number(
                        HostNumber::SampleHolds(event),
                        check,
                    )));
                }
                "entry" => {
                    let index = words.value()?;
                    return Ok(Some(HostCheck::Sample(event, index, sample(words)?)));
                }
                other => return Err(unknown(other, "holds or entry")),
            }
        }
        _ => return other(word, words),
    };
    Ok(Some(HostCheck::Number(number, check(words)?)))
}

fn other(word: &str, words: &mut Words<'_>) -> Result<Option<HostCheck>, Reason> {
    Ok(Some(match word {
        "state" => {
            let event = event(words)?;
            words.expect("is")?;
            let state = one_of(
                words,
                &STATES,
                "active, inactive, off, error, exit, dead or none",
            )?;
            let on = match words.take("on") {
                true => Some(cpu(words)?),
                false => None,
            };
            if on.is_some() != (state == Some(EventState::Active)) {
                return Err(Reason::Incomplete("on cpuN behind active, and only there"));
            }
            HostCheck::State(event, state, on)
        }
        "passes" | "exits" => {
            let vcpu = name(words)?;
            let register = register(words.next("a register")?)?;
            let count = match words.peek() {
                None => Expr::Number(1),
                Some(_) => words.value()?,
            };
            HostCheck::Passes(vcpu, register, count, word == "passes")
        }
        "rdmsr" => {
            let cpu = cpu(words)?;
            let register = register(words.next("a register")?)?;
            let check = words.check(bits_of(&register))?;
            HostCheck::Register(cpu, register, check, owner(words)?)
        }
        "entry" => {
            let cpu = cpu(words)?;
            let index = words.value()?;
            if words.take("empty") {
                return Ok(Some(HostCheck::Entry(cpu, index, None)));
            }
            words.expect("=")?;
            let from = words.value()?;
            words.expect("->")?;
            let to = words.value()?;
            let owner = owner(words)?.ok_or(Reason::Incomplete("of OWNER"))?;
            HostCheck::Entry(cpu, index, Some((from, to, owner)))
        }
        "stack" => {
            let cpu = cpu(words)?;
            match words.next("holds or empty")? {
                "holds" => HostCheck::Holds(cpu, words.value()?),
                "empty" => HostCheck::Holds(cpu, Expr::Number(0)),
                other => return Err(unknown(other, "holds or empty")),
            }
        }
        "no" => {
            words.expect("findings")?;
            HostCheck::NoFindings
        }
        _ => return Ok(None),
    }))
}

fn one_of<T: Copy>(
    words: &mut Words<'_>,
    named: &[(T, &str)],
    expected: &'static str,
) -> Result<T, Reason> {
    let word = words.next(expected)?;
    let found = named.iter().find(|(_, name)| *name == word);
    found
        .map(|(value, _)| *value)
        .ok_or_else(|| unknown(word, expected))
}

/// `ACTOR KIND [REGISTER|lbr]`, where spaces of an actor's name are `-`.
fn ledger(words: &mut Words<'_>) -> Result<HostNumber, Reason> {
    const ACTORS: &str = "an actor, as host-save, exit-handler or guest";
    let word = words.next(ACTORS)?;
    let known = Actor::NAMED
        .iter()
        .find(|(_, name)| name.replace(' ', "-").eq_ignore_ascii_case(word));
    let (actor, _) = known.ok_or_else(|| unknown(word, ACTORS))?;
    let kind = one_of(
        words,
        &LedgerKind::NAMED,
        "rdmsr, wrmsr, xsaves, xrstors, area-loads, area-stores or exits",
    )?;
    let registers = match words.peek() {
        Some("=" | "!=") => LedgerRegisters::All,
        Some("lbr") => {
            words.take("lbr");
            LedgerRegisters::Lbr
        }
        _ => LedgerRegisters::One(register(words.next("a register or =")?)?),
    };
    Ok(HostNumber::Ledger(*actor, kind, registers))
}

/// `= V [mask M]`, `!= V [mask M]`; values may be below 0.
fn check(words: &mut Words<'_>) -> Result<Check, Reason> {
    let equal = match words.next("= or !=")? {
        "=" => true,
        "!=" => false,
        word => return Err(unknown(word, "= or !=")),
    };
    let value = signed(words)?;
    let mask = match words.take("mask") {
        true => Some(words.value()?),
        false => None,
    };
    Ok(Check { equal, value, mask })
}

/// `= FROM -> TO [mispred|predicted] [cycles=N] [type=NAME]`
fn sample(words: &mut Words<'_>) -> Result<SampleEntry, Reason> {
    const EXPECTED: &str = "mispred, predicted, cycles=N or type=NAME";
    words.expect("=")?;
    let from = words.value()?;
    words.expect("->")?;
    let mut entry = SampleEntry {
        from,
        to: words.value()?,
        mispredicted: false,
        predicted: false,
        cycles: Expr::Number(0),
        class: None,
    };
    while let Some(word) = words.peek() {
        words.take(word);
        match (word, word.split_once('=')) {
            ("mispred", _) => entry.mispredicted = true,
            ("predicted", _) => entry.predicted = true,
            (_, Some(("cycles", value))) => entry.cycles = Expr::parse(value, &no_bits)?,
            (_, Some(("type", name))) => {
                let known = CLASSES.iter().find(|(_, known)| *known == name);
                let (class, _) = known.ok_or_else(|| unknown(name, "COND, CALL, IRQ ..."))?;
                entry.class = Some(*class);
            }
            _ => return Err(unknown(word, EXPECTED)),
        }
    }
    Ok(entry)
}
