//! Which ports execute an instruction, its loads and stores left out.

use iced_x86::{Code, Instruction};

use crate::forms::{Form, FormId};
use crate::lower::idiom::Idiom;
use crate::lower::operands::is_slow_lea;
use crate::microarchitecture::Microarchitecture;
use crate::ports::{PortSet, PortUse};

/// The neighbour with which an instruction became one micro-operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pairing<'a> {
    /// None.
    Alone,
    /// This conditional branch behind it.
    First(&'a Instruction),
    /// The instruction before it, which has the micro-operation of both.
    Second,
}

/// The micro-operations of `instruction`, whose costs are `form`. `taken`: if it is a conditional branch, or is
/// fused with one, that is taken.
pub(crate) fn execution(
    instruction: &Instruction,
    form: &Form,
    idiom: Idiom,
    pairing: Pairing<'_>,
    taken: bool,
    core: &Microarchitecture,
) -> PortUse {
    if matches!(idiom, Idiom::Zero | Idiom::Move) {
        return PortUse::default();
    }
    match pairing {
        Pairing::Second => PortUse::default(),
        // A compare and branch is a branch.
        Pairing::First(branch) => {
            let ports = branch_ports(branch, taken, core);
            form.uops.mapped(|_| ports)
        }
        Pairing::Alone if taken && is_conditional(instruction) => {
            PortUse::one(branch_ports(instruction, true, core))
        }
        Pairing::Alone if is_slow_lea(instruction) => form.uops.mapped(|_| core.ports.slow_lea),
        Pairing::Alone => form.uops,
    }
}

/// The ports of a conditional branch. One that is taken goes where jumps go.
fn branch_ports(branch: &Instruction, taken: bool, core: &Microarchitecture) -> PortSet {
    if taken {
        taken_ports(core)
    } else {
        ports_of(branch.code(), core)
    }
}

/// The ports of jumps and of conditional branches that are taken.
pub(crate) fn taken_ports(core: &Microarchitecture) -> PortSet {
    ports_of(Code::Jmp_rel8_64, core)
}

fn ports_of(code: Code, core: &Microarchitecture) -> PortSet {
    let parts = core.forms.get(FormId::new(code, false)).uops;
    parts.parts().first().map_or(core.ports.any, |part| part.0)
}

fn is_conditional(instruction: &Instruction) -> bool {
    instruction.is_jcc_short() || instruction.is_jcc_near()
}
