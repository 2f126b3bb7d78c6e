//! Steps about a host.

use vlbr_arch::vmx::ExitReason;
use vlbr_host::kvm::{ExitLevel, Vmcs12};
use vlbr_host::machine::{Carried, ExitCause};
use vlbr_host::perf::{Creator, Errno, parse_branch_filter};
use vlbr_lbr::CpuModel;

use super::host_check;
use super::names::{bits_of, register};
use super::words::{Words, no_bits, unknown};
use super::{branch, pmu};
use crate::host_step::{
    Counts, EventName, EventText, HostAct, HostStep, MsrStep, MsrWant, OwnerName, VcpuModel,
};
use crate::{Action, Phase, PmuStep, Reason, Step};

/// Most counters of a kind that a vCPU may be told of, as many as a part has.
const MAX_COUNTERS: u8 = 8;

/// Reads a step of a host scenario.
pub(super) fn parse(line: usize, phase: Phase, text: &str) -> Result<Step, Reason> {
    let mut words = Words::new(text);
    let mut word = words.next("a step")?;
    let mut repeat = None;
    if word == "repeat" {
        repeat = Some(words.value()?);
        word = words.next("a step")?;
    }
    let what = match host_check::parse(word, &mut words)? {
        Some(check) => HostStep::Check(check),
        None => HostStep::Act(act(word, &mut words)?),
    };
    words.end()?;
    let checks = matches!(what, HostStep::Check(_));
    if checks != (phase == Phase::Then) {
        return Err(Reason::WrongBlock {
            what: if checks { "a comparison" } else { "an event" },
            block: phase.word(),
        });
    }
    Ok(Step {
        line,
        text: text.to_owned(),
        phase,
        cpu: 0,
        repeat,
        what: Action::Host(Box::new(what)),
    })
}

impl HostAct {
    /// Reads a step under `given` or `when` of a host scenario.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, Reason> {
        let mut words = Words::new(text);
        let word = words.next("a step")?;
        let act = act(word, &mut words)?;
        words.end()?;
        Ok(act)
    }
}

/// A name that a scenario gives: letters, digits, `-` and `_`.
pub(super) fn name(words: &mut Words<'_>) -> Result<String, Reason> {
    const EXPECTED: &str = "a name";
    let word = words.next(EXPECTED)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if word.chars().all(plain) {
        Ok(word.to_owned())
    } else {
        Err(unknown(word, EXPECTED))
    }
}

/// `cpuN`
pub(super) fn cpu(words: &mut Words<'_>) -> Result<u16, Reason> {
    const EXPECTED: &str = "a processor, cpu0 and up";
    let word = words.next(EXPECTED)?;
    let number = word.strip_prefix("cpu").and_then(|n| n.parse().ok());
    number.ok_or_else(|| unknown(word, EXPECTED))
}

/// `E`, `V.lbr`, `V.pmcN`
pub(super) fn event(words: &mut Words<'_>) -> Result<EventName, Reason> {
    const EXPECTED: &str = "an event: its name, VCPU.lbr or VCPU.pmcN";
    let word = words.next(EXPECTED)?;
    Ok(match word.split_once('.') {
        None => EventName::Opened(word.to_owned()),
        Some((vcpu, "lbr")) => EventName::Lbr(vcpu.to_owned()),
        Some((vcpu, counter)) => {
            let number = counter.strip_prefix("pmc").and_then(|n| n.parse().ok());
            EventName::Counter(
                vcpu.to_owned(),
                number.ok_or_else(|| unknown(word, EXPECTED))?,
            )
        }
    })
}

/// `of nobody`, `of kernel`, `of NAME`, if it stands there.
pub(super) fn owner(words: &mut Words<'_>) -> Result<Option<OwnerName>, Reason> {
    if !words.take("of") {
        return Ok(None);
    }
    Ok(Some(match words.peek() {
        Some("nobody") => {
            words.take("nobody");
            OwnerName::Nobody
        }
        Some("kernel") => {
            words.take("kernel");
            OwnerName::Kernel
        }
        _ => OwnerName::Named(name(words)?),
    }))
}

fn act(word: &str, words: &mut Words<'_>) -> Result<HostAct, Reason> {
    Ok(match word {
        "task" => HostAct::Task(name(words)?, words.take("kernel")),
        "vcpu" => {
            let vcpu = name(words)?;
            words.expect("in")?;
            HostAct::Vcpu(vcpu, name(words)?, model(words)?)
        }
        "cpuid" => HostAct::Cpuid(name(words)?, model(words)?),
        "fork" => {
            let parent = name(words)?;
            words.expect("->")?;
            HostAct::Fork(parent, name(words)?)
        }
        "switch" => {
            let cpu = cpu(words)?;
            let next = name(words)?;
            HostAct::Switch(cpu, (next != "idle").then_some(next))
        }
        "run" => HostAct::Run(name(words)?),
        "leave" => HostAct::Leave(name(words)?),
        "enter" => HostAct::Enter(name(words)?, words.take("fast")),
        "exit" => exit(words)?,
        "guest" => HostAct::Guest(name(words)?, access(words, true)?),
        "user" => {
            let task = name(words)?;
            let vcpu = name(words)?;
            HostAct::User(task, vcpu, access(words, false)?)
        }
        "msrs" => msrs(words)?,
        "migrate" => HostAct::Migrate(name(words)?, carried(words)?),
        "on" => on(words)?,
        "event" => open(words)?,
        "close" => HostAct::Close(event(words)?),
        "enable" => HostAct::Enable(event(words)?),
        "disable" => HostAct::Disable(event(words)?),
        "rotate" => HostAct::Rotate(cpu(words)?),
        "pebs" => HostAct::PebsRecord(event(words)?),
        "c6" => HostAct::DeepCState(cpu(words)?),
        "reset" => HostAct::Reset(name(words)?),
        "cap" => capability(words)?,
        "l2" => nested(words)?,
        "set" => {
            let cpu = cpu(words)?;
            let register = register(words.next("a register")?)?;
            words.expect("=")?;
            let value = words.value_with(bits_of(&register))?;
            let owner = owner(words)?.ok_or(Reason::Incomplete("of OWNER"))?;
            HostAct::Set(cpu, register, value, owner)
        }
        "code" => code(words)?,
        _ => return Err(unknown(word, "a step of a host scenario")),
    })
}

/// `msrs get T V listed|named`, `msrs set T V`
fn msrs(words: &mut Words<'_>) -> Result<HostAct, Reason> {
    const EXPECTED: &str = "get or set";
    Ok(match words.next(EXPECTED)? {
        "get" => {
            let task = name(words)?;
            let vcpu = name(words)?;
            HostAct::GetMsrs(task, vcpu, carried(words)?)
        }
        "set" => HostAct::SetMsrs(name(words)?, name(words)?),
        other => return Err(unknown(other, EXPECTED)),
    })
}

/// `listed|named`
fn carried(words: &mut Words<'_>) -> Result<Carried, Reason> {
    const EXPECTED: &str = "listed or named";
    match words.next(EXPECTED)? {
        "listed" => Ok(Carried::Listed),
        "named" => Ok(Carried::Named),
        other => Err(unknown(other, EXPECTED)),
    }
}

/// `[model F_M] [no-pdcm] [pmu N] [gp N] [fixed N] [arch-lbr-ebx V]`
fn model(words: &mut Words<'_>) -> Result<VcpuModel, Reason> {
    const EXPECTED: &str = "model, no-pdcm, pmu, gp, fixed or arch-lbr-ebx";
    let mut model = VcpuModel::default();
    while let Some(word) = words.peek() {
        words.take(word);
        match word {
            "model" => {
                let text = words.next("a model, as 06_2A")?;
                let known = text.parse::<CpuModel>();
                model.model = Some(known.map_err(|_| unknown(text, "a model, as 06_2A"))?);
            }
            "no-pdcm" => model.no_pdcm = true,
            "pmu" => model.pmu = Some(counters(words)?),
            "gp" => model.gp = Some(counters(words)?),
            "fixed" => model.fixed = Some(counters(words)?),
            "arch-lbr-ebx" => {
                let value = words.constant()?;
                let bad = |_| Reason::BadValue(format!("{value:#x}"));
                model.arch_lbr_ebx = Some(u32::try_from(value).map_err(bad)?);
            }
            _ => return Err(unknown(word, EXPECTED)),
        }
    }
    Ok(model)
}

fn counters(words: &mut Words<'_>) -> Result<u8, Reason> {
    let value = words.constant()?;
    let small = u8::try_from(value).ok().filter(|n| *n <= MAX_COUNTERS);
    small.ok_or_else(|| Reason::BadValue(value.to_string()))
}

/// `exit V CAUSE [fast|user]`
fn exit(words: &mut Words<'_>) -> Result<HostAct, Reason> {
    const CAUSES: &str = "cpuid, hlt, vmcall, interrupt, nmi or ept";
    let vcpu = name(words)?;
    let cause = match words.next(CAUSES)? {
        "cpuid" => ExitCause::Instruction(ExitReason::CPUID, 2),
        "hlt" => ExitCause::Instruction(ExitReason::HLT, 1),
        "vmcall" => ExitCause::Instruction(ExitReason::VMCALL, 3),
        "interrupt" => ExitCause::ExternalInterrupt,
        "nmi" => ExitCause::Nmi,
        "ept" => ExitCause::EptViolation,
        other => return Err(unknown(other, CAUSES)),
    };
    let level = if words.take("fast") {
        ExitLevel::FastPath
    } else if words.take("user") {
        ExitLevel::UserSpace
    } else {
        ExitLevel::RunLoop
    };
    Ok(HostAct::Exit(vcpu, cause, level))
}

/// `rdmsr REGISTER = V [mask M] [of OWNER] [exits|passes]`, `rdmsr REGISTER => #GP ...`,
/// `wrmsr REGISTER V [=> #GP] ...`
fn access(words: &mut Words<'_>, by_guest: bool) -> Result<MsrStep, Reason> {
    const EXPECTED: &str = "rdmsr or wrmsr";
    let word = words.next(EXPECTED)?;
    let refusal = if by_guest { "#GP" } else { "error" };
    let refused = |words: &mut Words<'_>| -> Result<bool, Reason> {
        if !words.take("=>") {
            return Ok(false);
        }
        match words.next("ok, #GP or error")? {
            "ok" => Ok(false),
            word if word == refusal => Ok(true),
            word => Err(unknown(
                word,
                "ok, #GP of a guest's access, error of user space's",
            )),
        }
    };
    let read = match word {
        "rdmsr" => true,
        "wrmsr" => false,
        other => return Err(unknown(other, EXPECTED)),
    };
    let register = register(words.next("a register")?)?;
    let want = if read && words.peek() == Some("=>") {
        match refused(words)? {
            true => MsrWant::ReadRefused,
            false => return Err(Reason::Incomplete("= VALUE")),
        }
    } else if read {
        MsrWant::Value(words.check(bits_of(&register))?)
    } else {
        let value = words.value_with(bits_of(&register))?;
        match refused(words)? {
            true => MsrWant::WriteRefused(value),
            false => MsrWant::Written(value),
        }
    };
    let owner = match want {
        MsrWant::Value(_) => owner(words)?,
        _ => None,
    };
    let exits = match words.peek() {
        Some("exits") if by_guest => Some(true),
        Some("passes") if by_guest => Some(false),
        _ => None,
    };
    if exits.is_some() {
        words.next("exits or passes")?;
    }
    Ok(MsrStep {
        register,
        want,
        owner,
        exits,
    })
}

/// `on cpuN [pmi] BRANCH ...`, `on cpuN [pmi] run N SOURCE ...`
fn on(words: &mut Words<'_>) -> Result<HostAct, Reason> {
    let cpu = cpu(words)?;
    let pmi = words.take("pmi");
    let word = words.next("a branch or run")?;
    if let Some(branch) = branch::parse(word, words)? {
        if branch.outcome.is_some() {
            return Err(Reason::LeftOver("=>".to_owned()));
        }
        return Ok(HostAct::Branch(cpu, Box::new(branch), pmi));
    }
    match pmu::parse(word, words)? {
        Some(PmuStep::Run {
            amounts,
            cpl,
            in_tx: false,
        }) => Ok(HostAct::Retire(cpu, amounts, cpl, pmi)),
        _ => Err(unknown(word, "a branch or run")),
    }
}

/// `event E WHAT on cpuN|of TASK [on cpuN] ATTRIBUTES [=> -ERRNO]`
fn open(words: &mut Words<'_>) -> Result<HostAct, Reason> {
    const EXPECTED: &str = "on, of, pinned, exclusive, exclude_host, exclude_guest, precise, \
                            disabled, inherit, period, branch, group, by or =>";
    let event_name = name(words)?;
    let counts = match words.next("what it counts")? {
        "v8-lbr" => Counts::V8Lbr,
        "virtual-lbr" => Counts::VirtualLbr,
        "software" => Counts::Software,
        other => Counts::Named(other.to_owned()),
    };
    let mut text = EventText {
        counts,
        cpu: None,
        task: None,
        pinned: false,
        exclusive: false,
        exclude_host: false,
        exclude_guest: false,
        precise: false,
        disabled: false,
        inherit: false,
        period: 0,
        branch: None,
        group: None,
        creator: Creator::User,
    };
    let mut errno = None;
    while let Some(word) = words.peek() {
        words.take(word);
        match word {
            "on" => text.cpu = Some(cpu(words)?),
            "of" => text.task = Some(name(words)?),
            "pinned" => text.pinned = true,
            "exclusive" => text.exclusive = true,
            "exclude_host" => text.exclude_host = true,
            "exclude_guest" => text.exclude_guest = true,
            "precise" => text.precise = true,
            "disabled" => text.disabled = true,
            "inherit" => text.inherit = true,
            "period" => text.period = words.constant()?,
            "branch" => {
                let filter = words.next("a filter, as any,u")?;
                let parsed = parse_branch_filter(filter);
                text.branch = Some(parsed.map_err(|_| unknown(filter, "a filter, as any,u"))?);
            }
            "group" => text.group = Some(event(words)?),
            "by" => {
                text.creator = match words.next("user, kvm or kernel")? {
                    "user" => Creator::User,
                    "kvm" => Creator::Kvm,
                    "kernel" => Creator::KernelOther,
                    other => return Err(unknown(other, "user, kvm or kernel")),
                };
            }
            "=>" => {
                let word = words.next("ok or -ERRNO")?;
                let known = |error: &&Errno| word.strip_prefix('-') == Some(error.name());
                errno = Errno::ALL.iter().find(known).copied();
                if errno.is_none() && word != "ok" {
                    return Err(unknown(word, "ok or -ERRNO, as -EINVAL"));
                }
                break;
            }
            _ => return Err(unknown(word, EXPECTED)),
        }
    }
    if text.cpu.is_none() && text.task.is_none() {
        return Err(Reason::Incomplete("on cpuN or of TASK"));
    }
    Ok(HostAct::Open(event_name, Box::new(text), errno))
}

/// `cap VM on|off [bad-pointer] => NR TOS FROM TO INFO`, `... => -EINVAL`
fn capability(words: &mut Words<'_>) -> Result<HostAct, Reason> {
    let vm = name(words)?;
    let on = match words.next("on or off")? {
        "on" => true,
        "off" => false,
        other => return Err(unknown(other, "on or off")),
    };
    let good = !words.take("bad-pointer");
    words.expect("=>")?;
    if words.take("-EINVAL") {
        return Ok(HostAct::Capability(vm, on, good, None));
    }
    let mut stack = [0; 5];
    for word in &mut stack {
        let value = words.constant()?;
        *word = u32::try_from(value).map_err(|_| Reason::BadValue(format!("{value:#x}")))?;
    }
    Ok(HostAct::Capability(vm, on, good, Some(stack)))
}

/// `l2 enter V [load-debug-controls] [save-debug-controls] [debugctl VALUE] [=> fails]`,
/// `l2 leave V`
fn nested(words: &mut Words<'_>) -> Result<HostAct, Reason> {
    const EXPECTED: &str = "load-debug-controls, save-debug-controls, debugctl or =>";
    match words.next("enter or leave")? {
        "leave" => return Ok(HostAct::LeaveL2(name(words)?)),
        "enter" => {}
        other => return Err(unknown(other, "enter or leave")),
    }
    let vcpu = name(words)?;
    let (mut vmcs12, mut fails) = (Vmcs12::default(), false);
    while let Some(word) = words.peek() {
        words.take(word);
        match word {
            "load-debug-controls" => vmcs12.load_debug_controls = true,
            "save-debug-controls" => vmcs12.save_debug_controls = true,
            "debugctl" => vmcs12.debugctl = words.constant()?,
            "=>" => {
                words.expect("fails")?;
                fails = true;
            }
            _ => return Err(unknown(word, EXPECTED)),
        }
    }
    Ok(HostAct::EnterL2(vcpu, vmcs12, fails))
}

/// `code TASK|kernel ADDRESS BYTE...`
fn code(words: &mut Words<'_>) -> Result<HostAct, Reason> {
    let whose = name(words)?;
    let address = words.value()?;
    let mut bytes = Vec::new();
    while let Some(word) = words.peek() {
        words.take(word);
        let byte = Some(word)
            .filter(|word| word.len() == 2)
            .and_then(|word| u8::from_str_radix(word, 16).ok());
        bytes.push(byte.ok_or_else(|| unknown(word, "a byte, as c3"))?);
    }
    if bytes.is_empty() {
        return Err(Reason::Incomplete("a byte, as c3"));
    }
    Ok(HostAct::Code(
        (whose != "kernel").then_some(whose),
        address,
        bytes,
    ))
}

/// A value that may be below 0.
pub(super) fn signed(words: &mut Words<'_>) -> Result<crate::Expr, Reason> {
    let word = words.next("a value")?;
    match word.strip_prefix('-') {
        None => crate::Expr::parse(word, &no_bits),
        Some(digits) => {
            let value: i64 = digits
                .parse()
                .map_err(|_| Reason::BadValue(word.to_owned()))?;
            Ok(crate::Expr::Number((-value) as u64))
        }
    }
}
