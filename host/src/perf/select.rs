//! What perf asks of the hardware filter, per microarchitecture.

use vlbr_arch::{LbrCtl, LbrSelect};
use vlbr_lbr::{Interface, Profile, SelectLayout};
use vlbr_traces::perfdata::BranchSampleType as B;

/// Value of the filter register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HardwareFilter {
    /// No filter register: everything is recorded.
    None,
    /// `MSR_LBR_SELECT`.
    Select(LbrSelect),
    /// `IA32_LBR_CTL`, LBREn included.
    Ctl(LbrCtl),
}

/// Wanted classes by bit number of `LBR_SELECT`. Rows: bit of `branch_sample_type`; columns:
/// Nehalem's map, Sandy Bridge's map (Haswell's is the same but for the call stack).
///
/// Nehalem's jump bits also gate calls and returns, so its map opens them too, and the software
/// filter removes the surplus. Linux `nhm_lbr_sel_map`, `snb_lbr_sel_map`, `hsw_lbr_sel_map`.
const SELECT_MAP: [(B, u64, u64); 9] = {
    const ALL: u64 = 0x1fc;
    const JCC: u64 = 1 << 2;
    const REL_CALL: u64 = 1 << 3;
    const IND_CALL: u64 = 1 << 4;
    const RET: u64 = 1 << 5;
    const IND_JMP: u64 = 1 << 6;
    const REL_JMP: u64 = 1 << 7;
    const FAR: u64 = 1 << 8;
    [
        (B::ANY, ALL, ALL),
        (B::USER, 1 << 1, 1 << 1),
        (B::KERNEL, 1, 1),
        (B::ANY_RETURN, RET | REL_JMP | IND_JMP | FAR, RET | FAR),
        (
            B::ANY_CALL,
            REL_CALL | IND_CALL | REL_JMP | IND_JMP | FAR,
            REL_CALL | IND_CALL | FAR,
        ),
        (B::IND_CALL, IND_CALL | IND_JMP, IND_CALL),
        (B::COND, JCC, JCC),
        (B::IND_JUMP, IND_JMP, IND_JMP),
        // Nehalem's map has no entry for direct calls: perf asks for nothing there.
        (B::CALL, 0, REL_CALL),
    ]
};

/// The bits that suppress: perf inverts them, the call-stack bit not.
const SUPPRESS: u64 = 0x1ff;
const CALL_STACK_CLASSES: u64 = 1 << 3 | 1 << 4 | 1 << 5;

/// The same on architectural LBR, where a one records. Linux `arch_lbr_ctl_map`.
fn ctl(bits: B) -> LbrCtl {
    let other = LbrCtl::OTHER_BRANCH;
    let calls = LbrCtl::NEAR_REL_CALL | LbrCtl::NEAR_IND_CALL;
    let map = [
        (B::ANY, LbrCtl::ALL_TYPES),
        (B::USER, LbrCtl::USR),
        (B::KERNEL, LbrCtl::OS),
        (B::ANY_RETURN, LbrCtl::NEAR_RET | other),
        (B::ANY_CALL, calls | other),
        (B::IND_CALL, LbrCtl::NEAR_IND_CALL),
        (B::COND, LbrCtl::JCC),
        (B::IND_JUMP, LbrCtl::NEAR_IND_JMP),
        (B::CALL, LbrCtl::NEAR_REL_CALL),
        (B::CALL_STACK, calls | LbrCtl::NEAR_RET | LbrCtl::CALL_STACK),
    ];
    map.iter()
        .filter(|(bit, _)| bits.contains(*bit))
        .fold(LbrCtl::LBR_EN, |ctl, (_, value)| ctl | *value)
}

/// The register value for `bits`; the caller has refused what the model cannot do.
/// Linux `intel_pmu_setup_hw_lbr_filter`.
pub(crate) fn hardware_filter(profile: &Profile, bits: B) -> HardwareFilter {
    let layout = match profile.interface() {
        Interface::Arch(_) => return HardwareFilter::Ctl(ctl(bits)),
        Interface::Legacy(legacy) => legacy.select,
    };
    if layout == SelectLayout::None {
        return HardwareFilter::None;
    }
    let nehalem = layout == SelectLayout::Nehalem;
    let mut wanted = SELECT_MAP
        .iter()
        .filter(|(bit, ..)| bits.contains(*bit))
        .fold(0, |mask, (_, nhm, snb)| {
            mask | if nehalem { *nhm } else { *snb }
        });
    if bits.contains(B::CALL_STACK) {
        wanted |= CALL_STACK_CLASSES | LbrSelect::EN_CALLSTACK.bits();
    }
    HardwareFilter::Select(LbrSelect::from_bits(wanted ^ SUPPRESS))
}
