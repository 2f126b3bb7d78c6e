//! Steps about VMX.

use vlbr_arch::Cpl;
use vlbr_arch::vmx::{
    EntryControls, ExitControls, Interruptibility, MsrArea, PendingDebug, PinControls,
    PrimaryControls, SecondaryControls, VmcsField,
};
use vlbr_arch::{DebugCtl, LbrCtl};
use vlbr_vmx::Launch;

use super::names::{bits_of, register};
use super::words::{Words, no_bits, unknown};
use crate::{BitmapBits, Expr, GuestEvent, Reason, VmxOutcome, VmxRead, VmxStep};

/// Reads a step whose first word is about VMX; `None` if it is not.
pub(super) fn parse(word: &str, words: &mut Words<'_>) -> Result<Option<VmxStep>, Reason> {
    Ok(Some(match word {
        "vmx" => {
            words.expect("on")?;
            VmxStep::On
        }
        "vmwrite" => {
            let field = field(words)?;
            let value = words.value_with(bits_of_field(field))?;
            VmxStep::Vmwrite(field, value, outcome(words)?)
        }
        "vmread" => {
            let field = field(words)?;
            VmxStep::Vmread(field, read(words, bits_of_field(field))?)
        }
        "vmcs" => {
            let set = match words.next("set or clear")? {
                "set" => true,
                "clear" => false,
                other => return Err(unknown(other, "set or clear")),
            };
            let field = field(words)?;
            VmxStep::Bits(field, words.value_with(bits_of_field(field))?, set)
        }
        "msr-bitmap" => bitmap(words)?,
        "area" => {
            const AREAS: &str = "entry-load, exit-store or exit-load";
            let area = match words.next(AREAS)? {
                "entry-load" => MsrArea::EntryLoad,
                "exit-store" => MsrArea::ExitStore,
                "exit-load" => MsrArea::ExitLoad,
                other => return Err(unknown(other, AREAS)),
            };
            let register = register(words.next("a register")?)?;
            let value = words.value_with(bits_of(&register))?;
            let reserved = match words.peek() {
                None => Expr::Number(0),
                Some(word) => {
                    const RESERVED: &str = "reserved=VALUE";
                    words.take(word);
                    let value = word.strip_prefix("reserved=");
                    Expr::parse(value.ok_or_else(|| unknown(word, RESERVED))?, &no_bits)?
                }
            };
            VmxStep::Area(area, register, value, reserved)
        }
        "stored" => VmxStep::Stored(words.value()?, words.check(&no_bits)?),
        "vmlaunch" => VmxStep::Enter(Launch::Launch, outcome(words)?),
        "vmresume" => VmxStep::Enter(Launch::Resume, outcome(words)?),
        "vmexit" => VmxStep::Exit(words.value()?, outcome(words)?),
        "preemption-timer" => match words.next("exits or runs")? {
            "exits" => VmxStep::Timer(true),
            "runs" => VmxStep::Timer(false),
            other => return Err(unknown(other, "exits or runs")),
        },
        "guest" => guest(words)?,
        _ => return Ok(None),
    }))
}

/// `guest [cpl=N] rdmsr|wrmsr|xsaves|xrstors ...`
fn guest(words: &mut Words<'_>) -> Result<VmxStep, Reason> {
    const EXPECTED: &str = "cpl=N, rdmsr, wrmsr, wrmsrns, rdpmc, nmi, interrupt, exception, \
                            xsaves or xrstors";
    const WITH_CPL: &str = "rdmsr, wrmsr, wrmsrns or rdpmc";
    let mut word = words.next(EXPECTED)?;
    let mut cpl = Cpl::Ring0;
    if let Some(ring) = word.strip_prefix("cpl=") {
        let number = ring.parse().ok().and_then(Cpl::from_number);
        cpl = number.ok_or_else(|| unknown(word, "cpl=0 to cpl=3"))?;
        word = words.next(WITH_CPL)?;
        if !matches!(word, "rdmsr" | "wrmsr" | "wrmsrns" | "rdpmc") {
            return Err(unknown(word, WITH_CPL));
        }
    }
    Ok(match word {
        "rdmsr" => {
            let register = register(words.next("a register")?)?;
            let bits = bits_of(&register);
            VmxStep::Rdmsr(cpl, register, read(words, bits)?)
        }
        "wrmsr" => {
            let register = register(words.next("a register")?)?;
            let value = words.value_with(bits_of(&register))?;
            VmxStep::Wrmsr(cpl, register, value, outcome(words)?)
        }
        "wrmsrns" => {
            let register = register(words.next("a register")?)?;
            let value = words.value_with(bits_of(&register))?;
            VmxStep::Wrmsrns(cpl, register, value, outcome(words)?)
        }
        "rdpmc" => {
            let ecx = words.value()?;
            let pce = words.take("pce");
            VmxStep::Rdpmc(cpl, pce, ecx, read(words, &no_bits)?)
        }
        "nmi" => VmxStep::Event(GuestEvent::Nmi, outcome(words)?),
        "interrupt" => {
            let vector = vector(words)?;
            VmxStep::Event(GuestEvent::Interrupt(vector), outcome(words)?)
        }
        "exception" => {
            let vector = vector(words)?;
            let error = match words.peek() {
                Some(word) if word != "=>" => {
                    words.take(word);
                    let text = word.strip_prefix("error=");
                    let text = text.ok_or_else(|| unknown(word, "error=CODE or =>"))?;
                    Some(code(text)?)
                }
                _ => None,
            };
            VmxStep::Event(GuestEvent::Exception(vector, error), outcome(words)?)
        }
        "xsaves" => VmxStep::Xsaves(false, outcome(words)?),
        "xrstors" => VmxStep::Xsaves(true, outcome(words)?),
        other => return Err(unknown(other, EXPECTED)),
    })
}

/// `msr-bitmap exit|pass all`, `... read|write REGISTER [COUNT]`, `msr-bitmap byte N = V`
fn bitmap(words: &mut Words<'_>) -> Result<VmxStep, Reason> {
    const EXPECTED: &str = "exit, pass or byte";
    let exits = match words.next(EXPECTED)? {
        "exit" => true,
        "pass" => false,
        "byte" => {
            let at = words.value()?;
            return Ok(if matches!(words.peek(), Some("=" | "!=")) {
                VmxStep::Byte(at, words.check(&no_bits)?)
            } else {
                VmxStep::SetByte(at, words.value()?)
            });
        }
        other => return Err(unknown(other, EXPECTED)),
    };
    let read = match words.next("all, read or write")? {
        "all" => return Ok(VmxStep::Bitmap(exits, BitmapBits::All)),
        "read" => true,
        "write" => false,
        other => return Err(unknown(other, "all, read or write")),
    };
    let register = register(words.next("a register")?)?;
    let count = match words.peek() {
        None => Expr::Number(1),
        Some(_) => words.value()?,
    };
    Ok(VmxStep::Bitmap(
        exits,
        BitmapBits::Run(read, register, count),
    ))
}

fn field(words: &mut Words<'_>) -> Result<VmcsField, Reason> {
    let word = words.next("a VMCS field")?;
    word.parse()
        .map_err(|_| Reason::UnknownField(word.to_owned()))
}

fn read(words: &mut Words<'_>, bits: &dyn Fn(&str) -> Option<u64>) -> Result<VmxRead, Reason> {
    Ok(if words.peek() == Some("=>") {
        VmxRead::Ends(outcome(words)?)
    } else {
        VmxRead::Value(words.check(bits)?)
    })
}

/// `=> ok`, `=> VMfail N`, `=> VMfailInvalid`, `=> exit R [Q]`, `=> abort N`, `=> #GP(reason)`,
/// `=> #UD`, or nothing, which means ok.
fn outcome(words: &mut Words<'_>) -> Result<VmxOutcome, Reason> {
    const EXPECTED: &str = "ok, VMfail N, VMfailInvalid, exit REASON, abort N, #GP or #UD";
    if !words.take("=>") {
        return Ok(VmxOutcome::Ok);
    }
    match words.peek() {
        Some(word) if word.starts_with("#GP") => return Ok(VmxOutcome::Gp(words.fault()?)),
        _ => {}
    }
    Ok(match words.next(EXPECTED)? {
        "ok" => VmxOutcome::Ok,
        "VMfail" => VmxOutcome::Fail(number(words)?),
        "VMfailInvalid" => VmxOutcome::Fail(0),
        "exit" => {
            let reason = number(words)?;
            let qualification = match words.peek() {
                None => None,
                Some(_) => Some(words.constant()?),
            };
            VmxOutcome::Exit(reason, qualification)
        }
        "abort" => VmxOutcome::Abort(number(words)?),
        "#UD" => VmxOutcome::Ud,
        other => return Err(unknown(other, EXPECTED)),
    })
}

fn vector(words: &mut Words<'_>) -> Result<u8, Reason> {
    let vector = words.constant()?;
    u8::try_from(vector).map_err(|_| Reason::BadValue(format!("{vector:#x}")))
}

/// An error code, 32 bits.
fn code(text: &str) -> Result<u32, Reason> {
    let bad = || Reason::BadValue(text.to_owned());
    match Expr::parse(text, &no_bits)? {
        Expr::Number(value) => u32::try_from(value).map_err(|_| bad()),
        _ => Err(bad()),
    }
}

fn number(words: &mut Words<'_>) -> Result<u32, Reason> {
    let value = words.constant()?;
    u32::try_from(value).map_err(|_| Reason::BadValue(format!("{value:#x}")))
}

/// The named bits of a field.
fn bits_of_field(field: VmcsField) -> &'static dyn Fn(&str) -> Option<u64> {
    match field {
        VmcsField::PIN_BASED_VM_EXEC_CONTROL => {
            &|name| Some(PinControls::from_name(name)?.bits().into())
        }
        VmcsField::CPU_BASED_VM_EXEC_CONTROL => {
            &|name| Some(PrimaryControls::from_name(name)?.bits().into())
        }
        VmcsField::SECONDARY_VM_EXEC_CONTROL => {
            &|name| Some(SecondaryControls::from_name(name)?.bits().into())
        }
        VmcsField::VM_EXIT_CONTROLS => &|name| Some(ExitControls::from_name(name)?.bits().into()),
        VmcsField::VM_ENTRY_CONTROLS => &|name| Some(EntryControls::from_name(name)?.bits().into()),
        VmcsField::GUEST_INTERRUPTIBILITY_INFO => {
            &|name| Some(Interruptibility::from_name(name)?.bits().into())
        }
        VmcsField::GUEST_PENDING_DBG_EXCEPTIONS => {
            &|name| Some(PendingDebug::from_name(name)?.bits())
        }
        VmcsField::GUEST_IA32_DEBUGCTL => &|name| Some(DebugCtl::from_name(name)?.bits()),
        VmcsField::GUEST_IA32_LBR_CTL => &|name| match name {
            "ALL_TYPES" => Some(LbrCtl::ALL_TYPES.bits()),
            _ => Some(LbrCtl::from_name(name)?.bits()),
        },
        _ => &no_bits,
    }
}
