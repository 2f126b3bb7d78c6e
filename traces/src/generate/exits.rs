//! The instructions of a spec's `exits`, as code.

use vlbr_arch::Msr;
use vlbr_cpu::ExitInstruction;

use super::fragment::{Access, Fragment};
use super::spec::ExitRate;
use crate::vlt::MachineAccess;

/// An entry of `exits`, as code.
#[derive(Clone, Debug)]
pub(super) struct Emitted {
    pub(super) instruction: ExitInstruction,
    /// It stands in user code.
    pub(super) user: bool,
    pub(super) code: Fragment,
}

/// A field and why it cannot be so.
type Refusal = (&'static str, String);

impl Emitted {
    pub(super) fn new(rate: &ExitRate, has_kernel: bool) -> Result<Self, Refusal> {
        let instruction = named(&rate.instruction)?;
        let user = match rate.ring {
            None => !has_kernel,
            Some(0) => false,
            Some(3) => true,
            Some(ring) => return Err(("ring", format!("{ring} is neither 0 nor 3"))),
        };
        if user && !runs_in_user_code(instruction) {
            let reason = format!("{} faults at CPL 3", instruction.name());
            return Err(("ring", reason));
        }
        let code = code(instruction, rate)?;
        Ok(Self {
            instruction,
            user,
            code,
        })
    }
}

/// The kind that `name` means.
fn named(name: &str) -> Result<ExitInstruction, Refusal> {
    let found = ExitInstruction::ALL
        .iter()
        .copied()
        .find(|kind| kind.name().eq_ignore_ascii_case(name));
    match found {
        None => Err(("instruction", "not one that can cause a VM exit".into())),
        Some(kind) if encoding(kind).is_none() => {
            let reason = "it transfers control, which no generated guest does this way";
            Err(("instruction", reason.into()))
        }
        Some(kind) => Ok(kind),
    }
}

/// Whether it does at CPL 3 what it does at CPL 0; for I/O with IOPL 3, for RDPMC with CR4.PCE.
pub(super) const fn runs_in_user_code(kind: ExitInstruction) -> bool {
    use ExitInstruction as E;
    matches!(
        kind,
        E::Cpuid
            | E::Vmcall
            | E::Vmfunc
            | E::In
            | E::Ins
            | E::Out
            | E::Outs
            | E::Sgdt
            | E::Sidt
            | E::Sldt
            | E::Str
            | E::Pause
            | E::Rdpmc
            | E::Rdrand
            | E::Rdseed
            | E::Rdtsc
            | E::Rdtscp
            | E::Tpause
            | E::Umwait
    )
}

/// Its bytes in 64-bit code; `None` for those that transfer control.
pub(super) const fn encoding(kind: ExitInstruction) -> Option<&'static [u8]> {
    use ExitInstruction as E;
    Some(match kind {
        E::Vmlaunch | E::Vmresume | E::Rsm => return None,
        E::Cpuid => &[0x0f, 0xa2],
        E::Getsec => &[0x0f, 0x37],
        E::Invd => &[0x0f, 0x08],
        E::Xsetbv => &[0x0f, 0x01, 0xd1],
        E::Invept => &[0x66, 0x0f, 0x38, 0x80, 0x03],
        E::Invvpid => &[0x66, 0x0f, 0x38, 0x81, 0x03],
        E::Vmcall => &[0x0f, 0x01, 0xc1],
        E::Vmclear => &[0x66, 0x0f, 0xc7, 0x33],
        E::Vmptrld => &[0x0f, 0xc7, 0x33],
        E::Vmptrst => &[0x0f, 0xc7, 0x3b],
        E::Vmxoff => &[0x0f, 0x01, 0xc4],
        E::Vmxon => &[0xf3, 0x0f, 0xc7, 0x33],
        E::Vmread => &[0x0f, 0x78, 0xc8],
        E::Vmwrite => &[0x0f, 0x79, 0xc8],
        E::Vmfunc => &[0x0f, 0x01, 0xd4],
        E::Clts => &[0x0f, 0x06],
        E::Lmsw => &[0x0f, 0x01, 0xf0],
        E::WriteCr0 => &[0x0f, 0x22, 0xc0],
        E::WriteCr3 => &[0x0f, 0x22, 0xd8],
        E::WriteCr4 => &[0x0f, 0x22, 0xe0],
        E::WriteCr8 => &[0x44, 0x0f, 0x22, 0xc0],
        E::ReadCr3 => &[0x0f, 0x20, 0xd8],
        E::ReadCr8 => &[0x44, 0x0f, 0x20, 0xc0],
        E::MovDr => &[0x0f, 0x23, 0xf8],
        E::Encls => &[0x0f, 0x01, 0xcf],
        E::Enclv => &[0x0f, 0x01, 0xc0],
        E::Pconfig => &[0x0f, 0x01, 0xc5],
        E::Hlt => &[0xf4],
        E::In => &[0xec],
        E::Ins => &[0x6c],
        E::Out => &[0xee],
        E::Outs => &[0x6e],
        E::Invlpg => &[0x0f, 0x01, 0x3b],
        E::Invpcid => &[0x66, 0x0f, 0x38, 0x82, 0x03],
        E::Lgdt => &[0x0f, 0x01, 0x13],
        E::Lidt => &[0x0f, 0x01, 0x1b],
        E::Sgdt => &[0x0f, 0x01, 0x03],
        E::Sidt => &[0x0f, 0x01, 0x0b],
        E::Lldt => &[0x0f, 0x00, 0xd0],
        E::Ltr => &[0x0f, 0x00, 0xd8],
        E::Sldt => &[0x0f, 0x00, 0xc0],
        E::Str => &[0x0f, 0x00, 0xc8],
        E::Loadiwkey => &[0xf3, 0x0f, 0x38, 0xdc, 0xc1],
        E::Monitor => &[0x0f, 0x01, 0xc8],
        E::Mwait => &[0x0f, 0x01, 0xc9],
        E::Pause => &[0xf3, 0x90],
        E::Rdmsr => &[0x0f, 0x32],
        E::Wrmsr => &[0x0f, 0x30],
        E::Wrmsrns => &[0x0f, 0x01, 0xc6],
        E::Rdmsrlist => &[0xf2, 0x0f, 0x01, 0xc6],
        E::Wrmsrlist => &[0xf3, 0x0f, 0x01, 0xc6],
        E::Rdpmc => &[0x0f, 0x33],
        E::Rdrand => &[0x0f, 0xc7, 0xf0],
        E::Rdseed => &[0x0f, 0xc7, 0xf8],
        E::Rdtsc => &[0x0f, 0x31],
        E::Rdtscp => &[0x0f, 0x01, 0xf9],
        E::Tpause => &[0x66, 0x0f, 0xae, 0xf0],
        E::Umwait => &[0xf2, 0x0f, 0xae, 0xf0],
        E::Wbinvd => &[0x0f, 0x09],
        E::Wbnoinvd => &[0xf3, 0x0f, 0x09],
        E::Xrstors => &[0x0f, 0xc7, 0x1b],
        E::Xsaves => &[0x0f, 0xc7, 0x2b],
    })
}

/// The instruction with those that load its registers.
fn code(kind: ExitInstruction, rate: &ExitRate) -> Result<Fragment, Refusal> {
    use ExitInstruction as E;
    let bytes = encoding(kind).unwrap_or_default();
    let port = matches!(kind, E::In | E::Ins | E::Out | E::Outs);
    let msr = matches!(kind, E::Rdmsr | E::Wrmsr | E::Wrmsrns);
    let valued = matches!(kind, E::Wrmsr | E::Wrmsrns | E::Out);
    for (field, given, wanted, needed) in [
        ("leaf", rate.leaf.is_some(), kind == E::Cpuid, true),
        ("subleaf", rate.subleaf.is_some(), kind == E::Cpuid, false),
        ("port", rate.port.is_some(), port, true),
        ("msr", rate.msr.is_some(), msr, true),
        ("value", rate.value.is_some(), valued, false),
    ] {
        if given && !wanted {
            return Err((field, format!("{} has none", kind.name())));
        }
        if !given && wanted && needed {
            return Err((field, format!("missing; {} needs it", kind.name())));
        }
    }
    let value = rate.value.unwrap_or_default();
    if i64::try_from(value).is_err() {
        return Err(("value", format!("{value} is above 2^63 - 1")));
    }
    let mut code = Fragment::default();
    match kind {
        E::Cpuid => {
            let leaf = rate.leaf.unwrap_or_default();
            let subleaf = rate.subleaf.unwrap_or_default();
            code.eax(leaf);
            code.ecx(subleaf);
            let result = None;
            let access = MachineAccess::Cpuid {
                leaf,
                subleaf,
                result,
            };
            code.access(bytes, Access::Fixed(access));
        }
        E::Rdmsr => code.read(register(rate)?),
        E::Wrmsr | E::Wrmsrns => code.write_by(bytes, register(rate)?, value),
        E::In | E::Ins | E::Out | E::Outs => {
            let port = rate.port.unwrap_or_default();
            let access = match kind {
                E::In | E::Ins => MachineAccess::PortIn { port, value: None },
                E::Outs => MachineAccess::PortOut { port, value: None },
                _ => MachineAccess::PortOut {
                    port,
                    value: Some(value & 0xff),
                },
            };
            if kind == E::Out {
                code.eax(value as u32);
            }
            code.edx(port.into());
            code.access(bytes, Access::Fixed(access));
        }
        E::Hlt => {
            code.push(&[0xfb]); // sti
            code.halt = Some(code.instructions);
            code.push(bytes);
        }
        _ => code.push(bytes),
    }
    Ok(code)
}

/// The register an entry names.
fn register(rate: &ExitRate) -> Result<u32, Refusal> {
    let name = rate.msr.as_deref().unwrap_or_default();
    name.parse().map(Msr::value).map_err(|_| {
        let text: String = name
            .chars()
            .take(40)
            .flat_map(char::escape_default)
            .collect();
        (
            "msr",
            format!("no register is named {text:?}; 0x and its number will do"),
        )
    })
}

#[cfg(test)]
mod tests {
    use vlbr_cpu::{Block, Mode, exit_instruction};

    use super::*;

    #[test]
    fn every_encoding_is_the_instruction_it_stands_for_and_no_branch() {
        for &kind in ExitInstruction::ALL {
            let Some(bytes) = encoding(kind) else {
                continue;
            };
            let decoded = iced_x86::Decoder::new(64, bytes, 0).decode();
            assert_eq!(decoded.len(), bytes.len(), "{}", kind.name());
            assert_eq!(exit_instruction(&decoded), Some(kind), "{}", kind.name());
            let mut longer = bytes.to_vec();
            longer.push(0x90);
            assert!(
                Block::decode(0, Mode::user64(0), &longer).is_ok(),
                "{}",
                kind.name()
            );
        }
    }

    #[test]
    fn an_access_stands_at_its_instruction_with_register_and_value() {
        let rate = ExitRate {
            instruction: "wrmsr".into(),
            msr: Some("IA32_DEBUGCTL".into()),
            value: Some(0x8_0000_0001),
            ..ExitRate::default()
        };
        let emitted = Emitted::new(&rate, true).unwrap();
        let block = Block::decode(0, Mode::user64(0), &emitted.code.bytes).unwrap();
        assert_eq!(block.instructions(), emitted.code.instructions);
        let access = MachineAccess::WriteMsr {
            msr: 0x1d9,
            value: Some(0x8_0000_0001),
        };
        assert_eq!(emitted.code.accesses, [(3, Access::Fixed(access))]);
        assert_eq!(&block.bytes()[15..], [0x0f, 0x30]);
    }

    #[test]
    fn what_does_not_fit_the_instruction_is_refused_by_field() {
        let refused = |rate: ExitRate| Emitted::new(&rate, true).unwrap_err().0;
        let of = |name: &str| ExitRate {
            instruction: name.into(),
            ..ExitRate::default()
        };
        assert_eq!(refused(of("nop")), "instruction");
        assert_eq!(refused(of("rsm")), "instruction");
        assert_eq!(refused(of("cpuid")), "leaf");
        assert_eq!(refused(of("in")), "port");
        assert_eq!(refused(of("rdmsr")), "msr");
        let named = |msr: &str| ExitRate {
            msr: Some(msr.into()),
            ..of("rdmsr")
        };
        assert_eq!(refused(named("IA32_NONSENSE")), "msr");
        let pause = ExitRate {
            value: Some(1),
            ..of("pause")
        };
        assert_eq!(refused(pause), "value");
        let halt = ExitRate {
            ring: Some(3),
            ..of("hlt")
        };
        assert_eq!(refused(halt), "ring");
    }
}
