//! Which classes push or pop now, as bit masks per privilege.

use vlbr_arch::{BranchClass, DebugCtl, FarKind, LbrCtl, LbrSelect};

use super::config::{ArchConfig, Config, Kind, LegacyConfig};

const JCC: u32 = 1 << 0;
const REL_JMP: u32 = 1 << 1;
const IND_JMP: u32 = 1 << 2;
const REL_CALL: u32 = 1 << 3;
const REL_CALL_ZERO: u32 = 1 << 4;
const IND_CALL: u32 = 1 << 5;
const RET: u32 = 1 << 6;
const FAR_SHIFT: u32 = 7;
const NEAR: u32 = JCC | REL_JMP | IND_JMP | REL_CALL | REL_CALL_ZERO | IND_CALL | RET;

/// One bit for the class, one for each far kind.
#[inline]
pub(super) const fn class_bit(class: BranchClass) -> u32 {
    match class {
        BranchClass::Jcc => JCC,
        BranchClass::NearRelJmp => REL_JMP,
        BranchClass::NearIndJmp => IND_JMP,
        BranchClass::NearRelCall => REL_CALL,
        BranchClass::NearRelCallZero => REL_CALL_ZERO,
        BranchClass::NearIndCall => IND_CALL,
        BranchClass::NearRet => RET,
        BranchClass::Far(kind) => far_bit(kind),
    }
}

#[inline]
pub(super) const fn far_bit(kind: FarKind) -> u32 {
    1 << (FAR_SHIFT + kind.number() as u32)
}

pub(super) fn far_bits(kinds: &[FarKind]) -> u32 {
    kinds.iter().fold(0, |all, kind| all | far_bit(*kind))
}

/// The registers that decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Control {
    pub(super) debugctl: DebugCtl,
    pub(super) select: LbrSelect,
    pub(super) ctl: LbrCtl,
    pub(super) lbr_frz: bool,
    /// Intel PT excludes the LBR now.
    pub(super) locked_out: bool,
}

impl Control {
    pub(super) fn recording(&self, config: &Config) -> bool {
        let enabled = match &config.kind {
            Kind::Legacy(legacy) => self.debugctl.intersects(legacy.enable),
            Kind::Arch(_) => self.ctl.contains(LbrCtl::LBR_EN),
        };
        enabled && !self.lbr_frz && !self.locked_out
    }

    pub(super) fn call_stack(&self) -> bool {
        self.select.contains(LbrSelect::EN_CALLSTACK) || self.ctl.contains(LbrCtl::CALL_STACK)
    }

    /// Classes that the type filter lets through.
    fn types(&self, config: &Config) -> u32 {
        match &config.kind {
            Kind::Legacy(legacy) => self.legacy_types(legacy),
            Kind::Arch(arch) => self.arch_types(arch),
        }
    }

    fn legacy_types(&self, legacy: &LegacyConfig) -> u32 {
        let far = legacy.far_kinds;
        let mut types = NEAR | far;
        let mut drop = |bit, classes: u32| {
            if self.select.intersects(bit) {
                types &= !classes;
            }
        };
        drop(LbrSelect::JCC, JCC);
        drop(LbrSelect::NEAR_REL_JMP, REL_JMP);
        drop(LbrSelect::NEAR_IND_JMP, IND_JMP);
        drop(
            LbrSelect::NEAR_REL_CALL | legacy.rel_call_gate,
            REL_CALL | REL_CALL_ZERO,
        );
        drop(LbrSelect::NEAR_IND_CALL | legacy.ind_call_gate, IND_CALL);
        drop(LbrSelect::NEAR_RET | legacy.ret_gate_any, RET);
        drop(LbrSelect::FAR_BRANCH, far & !legacy.unfiltered_kinds);
        if !legacy.ret_gate_all.is_empty() && self.select.contains(legacy.ret_gate_all) {
            types &= !RET;
        }
        types
    }

    fn arch_types(&self, arch: &ArchConfig) -> u32 {
        let far = far_bits(&FarKind::ALL) & !far_bits(&[FarKind::Smi, FarKind::DebugException]);
        let all = (NEAR & !REL_CALL_ZERO) | far;
        if !arch.filters_types() {
            return all;
        }
        [
            (LbrCtl::JCC, JCC),
            (LbrCtl::NEAR_REL_JMP, REL_JMP),
            (LbrCtl::NEAR_IND_JMP, IND_JMP),
            (LbrCtl::NEAR_REL_CALL, REL_CALL),
            (LbrCtl::NEAR_IND_CALL, IND_CALL),
            (LbrCtl::NEAR_RET, RET),
            (LbrCtl::OTHER_BRANCH, far),
        ]
        .into_iter()
        .filter(|(bit, _)| self.ctl.contains(*bit))
        .fold(0, |types, (_, classes)| types | classes)
    }

    /// Whether the CPL filter lets ring 0, and rings 1 to 3, through.
    fn levels(&self, config: &Config) -> [bool; 2] {
        match &config.kind {
            Kind::Legacy(_) => [
                !self.select.contains(LbrSelect::CPL_EQ_0),
                !self.select.contains(LbrSelect::CPL_NEQ_0),
            ],
            Kind::Arch(arch) if arch.filters_cpl() => [
                self.ctl.contains(LbrCtl::OS),
                self.ctl.contains(LbrCtl::USR),
            ],
            Kind::Arch(_) => [true, true],
        }
    }
}

/// The verdict on every class, ready to look up. Indices: 0 for ring 0, 1 for rings 1 to 3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gate {
    pub(super) push: [u32; 2],
    pub(super) pop: [u32; 2],
    /// FROM reads 0xFFFFFFFF if the transfer started at this privilege.
    pub(super) mask_from: [bool; 2],
    pub(super) recording: bool,
}

impl Gate {
    /// The gate of `control`; RSM is judged by `after_rsm`, which it restores before its record.
    pub(super) fn new(config: &Config, control: &Control, after_rsm: &Control) -> Self {
        let rsm = far_bit(FarKind::Rsm);
        let mut gate = Self::plain(config, control);
        let restored = Self::plain(config, after_rsm);
        for level in 0..2 {
            gate.push[level] = gate.push[level] & !rsm | restored.push[level] & rsm;
        }
        gate
    }

    fn plain(config: &Config, control: &Control) -> Self {
        let mut gate = Self {
            recording: control.recording(config),
            ..Self::default()
        };
        let levels = control.levels(config);
        if config.arch().is_some_and(|arch| arch.mask_from) {
            gate.mask_from = levels.map(|enabled| !enabled);
        }
        if !gate.recording {
            return gate;
        }
        let types = control.types(config);
        for (level, enabled) in levels.into_iter().enumerate() {
            if !enabled {
                continue;
            }
            if control.call_stack() {
                gate.push[level] = types & (REL_CALL | IND_CALL);
                gate.pop[level] = types & RET;
            } else {
                gate.push[level] = types;
            }
        }
        gate
    }
}
