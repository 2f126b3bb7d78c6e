//! What else a form could cost.

use core::fmt::Write as _;

use iced_x86::Code;

use crate::forms::{Form, Role};
use crate::ports::{PortSet, PortUse};

/// Sets of ports that operations go to.
const SETS: [&str; 12] = [
    "0156", "015", "056", "06", "01", "15", "05", "56", "0", "1", "5", "6",
];

/// Ports that have the units which an instruction can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Units {
    /// General-purpose registers: any port that computes.
    Integer,
    /// Floating-point arithmetic of vectors: adders, multipliers and dividers are behind ports 0 and 1.
    FloatingPoint,
    /// Everything else with vectors, MMX or x87: shuffles and moves use port 5 as well.
    Vector,
}

impl Units {
    /// The units of an instruction, which its name tells.
    fn of(code: Code) -> Self {
        let mut name = String::new();
        // Writing to a string does not fail.
        let _ = write!(name, "{code:?}");
        let vector = ["xmm", "ymm", "zmm", "_mm", "_st", "_vm"];
        let x87 = name.starts_with('F');
        if !x87 && !vector.iter().any(|part| name.contains(part)) {
            return Self::Integer;
        }
        let bare = name.strip_prefix("VEX_V").unwrap_or(&name);
        let arithmetic = [
            "add", "sub", "mul", "div", "sqrt", "min", "max", "fm", "fnm", "rcp", "rsqrt",
        ];
        let floating = bare.contains("ps_")
            || bare.contains("pd_")
            || bare.contains("ss_")
            || bare.contains("sd_");
        let lower = bare.to_ascii_lowercase();
        if floating && arithmetic.iter().any(|part| lower.starts_with(part)) {
            Self::FloatingPoint
        } else {
            Self::Vector
        }
    }

    /// Those of them that a core has which computes on `any`.
    fn ports(self, any: PortSet) -> PortSet {
        let ports = match self {
            Self::Integer => any,
            Self::FloatingPoint => PortSet::of(&[0, 1]),
            Self::Vector => PortSet::of(&[0, 1, 5]),
        };
        ports.intersection(any)
    }
}

/// Whether a processor could be made like that, going by what the tables say of the form (`table`):
/// micro-operations stay on ports that have their unit, all or some of those in the table or more; one
/// that executes takes a cycle from any source to any result; instructions of one micro-operation stay
/// so; there are no more issue slots than micro-operations; the divider is as busy as in the table.
fn plausible(variant: &Form, table: &Form, code: Code, any: PortSet) -> bool {
    let units = Units::of(code).ports(any);
    let related = |set: PortSet| {
        let parts = table.uops.parts();
        parts
            .iter()
            .any(|(own, _)| set.within(*own) || own.within(set))
    };
    let ports = variant
        .uops
        .parts()
        .iter()
        .all(|&(set, _)| set.within(units) && related(set) || table.uops.has(set));
    let least = if variant.uops.parts().is_empty() {
        0.0
    } else {
        table.shortest().min(1.0)
    };
    let count = table.uops.total() > 1
        || (variant.uops.total() == table.uops.total() && variant.slots == table.slots);
    let slots = variant.slots <= variant.uops.total().max(table.slots);
    let divider = variant.divider == table.divider;
    ports && variant.shortest() >= least && count && slots && divider
}

/// Plausible variants of `form`, which the tables give as `table`: another latency, number or ports of
/// micro-operations. Issue slots are what fused micro-operations are left by their number.
pub(super) fn candidates(form: &Form, table: &Form, code: Code, any: PortSet) -> Vec<Form> {
    let mut found = Vec::new();
    let mut push = |change: &dyn Fn(&mut Form)| {
        let mut variant = form.clone();
        change(&mut variant);
        if variant != *form && !found.contains(&variant) && plausible(&variant, table, code, any) {
            found.push(variant);
        }
    };
    // Every pair of operands keeps a latency that is not negative.
    let least = form.least_latency();
    for step in [-3.0, -2.0, -1.0, 1.0, 2.0, 3.0] {
        push(&|f| f.latency = (f.latency + step).max(least));
    }
    if form.latency >= 8.0 {
        for factor in [0.3, 0.5, 0.7, 0.85, 1.15, 1.4, 2.0] {
            push(&|f| f.latency = (f.latency * factor).round().max(least));
        }
    }
    if form.uops.total() > 4 {
        for count in [4, 6, 10, 20, 30] {
            push(&|f| {
                f.uops = PortUse::parse(&format!("{count}*{any}")).unwrap_or_default();
                f.slots = count;
            });
        }
    }
    for role in [
        Role::Operand(0),
        Role::Operand(1),
        Role::Operand(2),
        Role::Implicit,
        Role::Flags,
    ] {
        for step in [-1.0, 1.0] {
            if form.from(role) + step >= 0.0 {
                push(&|f| f.add_from(role, step));
            }
            if form.latency + form.to(role) + step >= 0.0 {
                push(&|f| f.add_to(role, step));
            }
        }
    }
    for set in SETS.iter().filter_map(|s| PortSet::parse(s).ok()) {
        for at in 0..form.uops.parts().len() {
            push(&|f| f.uops = form.uops.moved(at, set));
        }
        if form.uops.total() < 4 {
            push(&|f| {
                f.uops = form.uops.with(set);
                f.slots += 1;
            });
        }
    }
    for at in 0..form.uops.parts().len() {
        push(&|f| {
            f.uops = form.uops.less(at);
            f.slots = f.slots.saturating_sub(1);
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ports of Haswell and Skylake that compute.
    fn any() -> PortSet {
        PortSet::of(&[0, 1, 5, 6])
    }

    fn form(text: &str) -> Form {
        let mut table = crate::forms::FormTable::new(PortSet::of(&[0]));
        table.extend(&format!("Nopd r {text}")).expect("a line");
        table
            .get(crate::forms::FormId::new(Code::Nopd, false))
            .clone()
    }

    #[test]
    fn what_no_processor_does_is_no_candidate() {
        for (code, text, wrong) in [
            // Multipliers are behind ports 0 and 1.
            (Code::VEX_Vmulps_xmm_xmm_xmmm128, "01 5", "5 5"),
            // Conditions are in the units of branches.
            (Code::Setae_rm8, "06 1", "1 1"),
            // What executes takes a cycle.
            (Code::Test_AL_imm8, "0156 1", "0156 0"),
            (Code::Shl_rm64_CL, "3*06 1", "3*06 1 if=-1"),
            // One micro-operation stays one.
            (Code::Setb_rm8, "06 1", "06 1 slots=2"),
            (Code::Sete_rm8, "06 1", "06+1 1"),
            // As many issue slots as micro-operations at most.
            (
                Code::Idiv_rm32,
                "10*0156 26 divider=6",
                "10*0156 26 slots=16 divider=6",
            ),
            // A fit changes latency, micro-operations and ports, no divider and no slots alone.
            (Code::Divsd_xmm_xmmm64, "0 13 divider=4", "0 13 divider=5"),
            (Code::Cmova_r64_rm64, "2*0156 2", "2*0156 2 slots=1"),
            (
                Code::VEX_Vzeroall,
                "4*0+4*1+4*5+4*6 16",
                "4*0+4*1+4*5+4*6 16 divider=13",
            ),
        ] {
            let table = form(text);
            let found = candidates(&table, &table, code, any());
            assert!(!found.contains(&form(wrong)), "{code:?} {wrong}");
        }
    }

    #[test]
    fn what_a_processor_could_do_is_tried() {
        for (code, text, right) in [
            (Code::VEX_Vmulps_xmm_xmm_xmmm128, "01 5", "0 5"),
            (Code::Addsd_xmm_xmmm64, "1 3", "01 3"),
            (Code::Imul_r64_rm64, "1 3", "1 4"),
            (Code::Cmova_r64_rm64, "0156+06 2", "0156+06 2 i0=-1"),
            (Code::Cmova_r64_rm64, "0156+06 2", "2*06 2"),
        ] {
            let table = form(text);
            let found = candidates(&table, &table, code, any());
            assert!(found.contains(&form(right)), "{code:?} {right}");
        }
    }
}
