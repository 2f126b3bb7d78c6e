//! The text of an event. Formats: `arch/x86/kvm/trace.h`, `include/trace/events/sched.h`, and those
//! of libtraceevent's plugins for both.

use vlbr_arch::vmx::ExitReason;

use super::LineError;
use super::head::{Head, shown};
use crate::exit_names::{LAST, exit_named};

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened<'a> {
    /// A vCPU is entered.
    Entry {
        /// Its number in its VM.
        vcpu: u32,
    },
    /// It exits.
    Exit {
        /// Its number, which older kernels do not print.
        vcpu: Option<u32>,
        /// Why.
        reason: ExitReason,
        /// VM entry failed.
        failed: bool,
    },
    /// KVM handled RDMSR or WRMSR.
    Msr {
        /// WRMSR.
        write: bool,
        /// Which.
        msr: u32,
    },
    /// `KVM_RUN` returns to user space.
    UserSpace,
    /// Another task gets the processor.
    Switch {
        /// Who leaves it.
        prev: Side<'a>,
        /// It stays ready.
        ready: bool,
        /// Who gets it.
        next: Side<'a>,
    },
    /// A task was given to another processor.
    Migrate,
    /// Anything else.
    Other,
}

/// A task of a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Side<'a> {
    pub(super) name: &'a str,
    pub(super) thread: u32,
}

/// What an event says.
///
/// # Errors
/// The text is not the event's.
pub(super) fn parse<'a>(head: &Head<'a>) -> Result<Happened<'a>, LineError> {
    match head.event {
        "kvm_entry" => entry(head.text),
        "kvm_exit" => exit(head.text),
        "kvm_msr" => msr(head.text),
        "kvm_userspace_exit" => user_space(head.text),
        "sched_switch" => switch(head.text),
        "sched_migrate_task" => migrate(head.text),
        _ => Ok(Happened::Other),
    }
}

/// A text that is taken apart from its beginning.
#[derive(Clone, Copy, Debug)]
struct Words<'a> {
    event: &'static str,
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn bad(self, needed: &'static str) -> LineError {
        LineError::Field {
            event: self.event,
            needed,
            at: shown(self.rest.trim()),
        }
    }

    /// The next word, without a comma behind it.
    fn word(&mut self) -> Option<&'a str> {
        let text = self.rest.trim_start();
        let (word, rest) = text.split_at(text.find([' ', '\t']).unwrap_or(text.len()));
        if word.is_empty() {
            return None;
        }
        self.rest = rest;
        Some(word.strip_suffix(',').unwrap_or(word))
    }

    /// Whether the next word is this one, which is taken then.
    fn takes(&mut self, word: &str) -> bool {
        let mut ahead = *self;
        let found = ahead.word() == Some(word);
        if found {
            *self = ahead;
        }
        found
    }

    fn needs(&mut self, word: &'static str) -> Result<(), LineError> {
        match self.takes(word) {
            true => Ok(()),
            false => Err(self.bad(word)),
        }
    }

    /// A number that the next word is.
    fn number<T>(
        &mut self,
        needed: &'static str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<T, LineError> {
        let mut ahead = *self;
        let number = ahead
            .word()
            .and_then(read)
            .ok_or_else(|| self.bad(needed))?;
        *self = ahead;
        Ok(number)
    }
}

fn decimal(text: &str) -> Option<u32> {
    text.parse().ok()
}

/// A number with or without `0x`.
fn hexadecimal(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(digits, 16).ok())?
}

/// `vcpu 0`, `vcpu 0, rip 0x...`, and what newer kernels add.
fn entry(text: &str) -> Result<Happened<'_>, LineError> {
    let mut words = Words {
        event: "kvm_entry",
        rest: text,
    };
    words.needs("vcpu")?;
    let vcpu = words.number("the number of the vCPU", decimal)?;
    if words.takes("rip") {
        words.number("the address of rip", hexadecimal)?;
    } else if !words.rest.trim().is_empty() {
        return Err(words.bad("rip"));
    }
    Ok(Happened::Entry { vcpu })
}

/// `vcpu 0 reason HLT rip 0x... info1 0x... info2 0x... intr_info 0x... error_code 0x...`, or without
/// number and with `info 0 0`.
fn exit(text: &str) -> Result<Happened<'_>, LineError> {
    let mut words = Words {
        event: "kvm_exit",
        rest: text,
    };
    let vcpu = match words.takes("vcpu") {
        true => Some(words.number("the number of the vCPU", decimal)?),
        false => None,
    };
    words.needs("reason")?;
    let begin = words.rest.trim_start();
    let Some(name) = words.word().filter(|name| *name != "rip") else {
        words.rest = begin;
        return Err(words.bad("the reason"));
    };
    let reason = match name {
        "UNKNOWN" => {
            let number = |word: &str| word.strip_prefix('(')?.strip_suffix(')')?.parse().ok();
            let number: u32 = words.number("the number of the reason", number)?;
            let known = (number & 0xffff <= LAST).then(|| ExitReason::new(number));
            known.ok_or_else(|| LineError::Reason(format!("{name} ({number})")))?
        }
        name => named(name, words.rest)?,
    };
    let mut failed = reason.is_entry_failure();
    // Flags of the reason.
    while !words.takes("rip") {
        let before = words;
        match words.word() {
            Some("FAILED_VMENTRY") => failed = true,
            Some(word) if word.starts_with("0x") && hexadecimal(word).is_some() => {}
            _ => return Err(before.bad("rip")),
        }
    }
    words.number("the address of rip", hexadecimal)?;
    details(words)?;
    Ok(Happened::Exit {
        vcpu,
        reason: reason.basic(),
        failed,
    })
}

fn named(name: &str, rest: &str) -> Result<ExitReason, LineError> {
    if let Some(reason) = exit_named(name) {
        return Ok(reason);
    }
    // The kernel's names for SVM have small letters ("npf", "DE excp"), the plugin's begin alike.
    let svm = name.starts_with("EXIT_")
        || name.bytes().any(|byte| byte.is_ascii_lowercase()) && !name.starts_with("0x")
        || rest.trim_start().starts_with("excp");
    Err(match svm {
        true => LineError::Svm(shown(name)),
        false => LineError::Reason(shown(name)),
    })
}

/// What follows the address: a symbol, if the tool knows one, then names with numbers.
fn details(mut words: Words<'_>) -> Result<(), LineError> {
    loop {
        let before = words;
        match words.word() {
            None => return Ok(()),
            Some("info") => {
                words.number("the first number of info", hexadecimal)?;
                words.number("the second number of info", hexadecimal)?;
            }
            Some("info1" | "info2" | "intr_info" | "error_code" | "requests") => {
                words.number("a number", hexadecimal)?;
            }
            Some(_) if before.rest.trim_start().starts_with("info") => {
                return Err(before.bad("info"));
            }
            // A symbol, or what a newer kernel adds.
            Some(_) => {}
        }
    }
}

/// `msr_write 6e0 = 0x...`, with ` (#GP)` if it was refused.
fn msr(text: &str) -> Result<Happened<'_>, LineError> {
    let mut words = Words {
        event: "kvm_msr",
        rest: text,
    };
    let write = words.takes("msr_write");
    if !write {
        words.needs("msr_read")?;
    }
    let number = |word: &str| u32::try_from(hexadecimal(word)?).ok();
    let msr = words.number("the number of the MSR", number)?;
    words.needs("=")?;
    words.number("the value", hexadecimal)?;
    if !words.takes("(#GP)") && !words.rest.trim().is_empty() {
        return Err(words.bad("(#GP) or the end"));
    }
    Ok(Happened::Msr { write, msr })
}

/// `reason KVM_EXIT_IO (2)`, `reason restart (4)`.
fn user_space(text: &str) -> Result<Happened<'_>, LineError> {
    let mut words = Words {
        event: "kvm_userspace_exit",
        rest: text,
    };
    words.needs("reason")?;
    match words.word() {
        Some(_) => Ok(Happened::UserSpace),
        None => Err(words.bad("the reason")),
    }
}

/// `prev_comm=A prev_pid=1 prev_prio=120 prev_state=R+ ==> next_comm=B next_pid=2 next_prio=120`, or
/// `A:1 [120] R ==> B:2 [120]`.
fn switch(text: &str) -> Result<Happened<'_>, LineError> {
    let bad = |needed, at: &str| LineError::Field {
        event: "sched_switch",
        needed,
        at: shown(at),
    };
    let arrow = " ==> ";
    // Names of tasks may hold nearly anything; that of the next task begins behind the last arrow
    // of the long form, and behind the first one of the short form.
    if let Some(rest) = text.strip_prefix("prev_comm=") {
        let next = " ==> next_comm=";
        let (prev, next) = rest.split_once(next).ok_or_else(|| bad("==>", rest))?;
        let (prev, state) = prev
            .rsplit_once(" prev_state=")
            .ok_or_else(|| bad("prev_state=", prev))?;
        let prev = long(prev, " prev_pid=", " prev_prio=").map_err(|needed| bad(needed, prev))?;
        let ready = is_ready(state).ok_or_else(|| bad("the state", state))?;
        let next = long(next, " next_pid=", " next_prio=").map_err(|needed| bad(needed, next))?;
        return Ok(Happened::Switch { prev, ready, next });
    }
    let (prev, next) = text.split_once(arrow).ok_or_else(|| bad("==>", text))?;
    let (prev, state) = prev
        .rsplit_once(' ')
        .ok_or_else(|| bad("the state", prev))?;
    let ready = is_ready(state).ok_or_else(|| bad("the state", state))?;
    let prev = short(prev).ok_or_else(|| bad("NAME:TID [PRIORITY]", prev))?;
    let next = short(next).ok_or_else(|| bad("NAME:TID [PRIORITY]", next))?;
    Ok(Happened::Switch { prev, ready, next })
}

/// Whether a state says that the task only gave way. `R`, `R+`; others sleep or end.
fn is_ready(state: &str) -> Option<bool> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'|' | b'+');
    let state = state.trim();
    (!state.is_empty() && state.bytes().all(plain)).then(|| state.starts_with('R'))
}

fn long<'a>(
    text: &'a str,
    pid: &'static str,
    priority: &'static str,
) -> Result<Side<'a>, &'static str> {
    let (before, number) = text.rsplit_once(priority).ok_or(priority)?;
    number.trim().parse::<i64>().map_err(|_| priority)?;
    let (name, thread) = before.rsplit_once(pid).ok_or(pid)?;
    let thread = thread.parse().map_err(|_| pid)?;
    Ok(Side { name, thread })
}

fn short(text: &str) -> Option<Side<'_>> {
    let (before, priority) = text.trim().rsplit_once(" [")?;
    priority.strip_suffix(']')?.parse::<i64>().ok()?;
    let (name, thread) = before.rsplit_once(':')?;
    let thread = thread.parse().ok()?;
    Some(Side { name, thread })
}

/// `comm=A pid=1 prio=120 orig_cpu=0 dest_cpu=1`.
fn migrate(text: &str) -> Result<Happened<'_>, LineError> {
    let bad = |needed| LineError::Field {
        event: "sched_migrate_task",
        needed,
        at: shown(text),
    };
    let mut rest = text.strip_prefix("comm=").ok_or_else(|| bad("comm="))?;
    for (key, needed) in [
        (" dest_cpu=", "dest_cpu="),
        (" orig_cpu=", "orig_cpu="),
        (" prio=", "prio="),
        (" pid=", "pid="),
    ] {
        let (before, number) = rest.rsplit_once(key).ok_or_else(|| bad(needed))?;
        number.trim().parse::<i64>().map_err(|_| bad(needed))?;
        rest = before;
    }
    Ok(Happened::Migrate)
}
