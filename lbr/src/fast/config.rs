//! A profile and its options, resolved once into what the device asks for all the time.

use core::num::NonZeroU32;

use vlbr_arch::{DebugCtl, FarKind, LbrCtl, LbrFormat, LbrSelect, Msr};

use super::gate::{far_bit, far_bits};
use super::layout::Layout;
use crate::{
    FreezeFlavour, InsertsEvent, Interface, LegacyLbr, Options, Profile, Quirk, QuirkSet,
    ReservedWrite, ReturnGate, SelectLayout,
};

/// Bits of a word that software may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressCheck {
    /// A canonical address of so many bits.
    Canonical(u8),
    /// Bits from 48 up to this one equal bit 47; those above are flags.
    SignUpTo(u8),
    /// Bits 63:32 are 0.
    Low32,
    /// Anything.
    Any,
}

/// The part of the configuration that only legacy LBR has.
#[derive(Clone, Copy, Debug)]
pub(super) struct LegacyConfig {
    pub(super) from: Msr,
    pub(super) to: Msr,
    pub(super) info: Option<Msr>,
    /// Bits of `LBR_SELECT` that exist; `None` without the register.
    pub(super) select_mask: Option<u64>,
    /// Jump bits that also suppress relative calls.
    pub(super) rel_call_gate: LbrSelect,
    /// Jump bits that also suppress indirect calls.
    pub(super) ind_call_gate: LbrSelect,
    /// Jump bits that also suppress returns, each alone...
    pub(super) ret_gate_any: LbrSelect,
    /// ... or all together.
    pub(super) ret_gate_all: LbrSelect,
    /// Kinds that are recorded as far branches.
    pub(super) far_kinds: u32,
    /// Kinds that `LBR_SELECT.FAR_BRANCH` does not suppress.
    pub(super) unfiltered_kinds: u32,
    pub(super) enable: DebugCtl,
    pub(super) survives_warm_reset: bool,
    pub(super) freeze_clears_tr: bool,
    pub(super) ler: bool,
    pub(super) ler_addresses_only: bool,
}

/// The part that only architectural LBR has.
#[derive(Clone, Copy, Debug)]
pub(super) struct ArchConfig {
    pub(super) eax: u32,
    pub(super) ebx: u32,
    pub(super) ecx: u32,
    /// Named bits of CTL that CPUID enumerates.
    pub(super) ctl_mask: LbrCtl,
    pub(super) mask_from: bool,
}

impl ArchConfig {
    pub(super) const fn filters_cpl(&self) -> bool {
        self.ebx & 1 != 0
    }

    pub(super) const fn filters_types(&self) -> bool {
        self.ebx & 2 != 0
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Legacy(LegacyConfig),
    Arch(ArchConfig),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Config {
    pub(super) kind: Kind,
    pub(super) layout: Layout,
    pub(super) max_depth: u32,
    pub(super) from_check: AddressCheck,
    pub(super) to_check: AddressCheck,
    pub(super) ler_from_check: AddressCheck,
    pub(super) ler_to_check: AddressCheck,
    pub(super) debugctl_mask: DebugCtl,
    pub(super) info_reserved: ReservedWrite,
    pub(super) quirks: QuirkSet,
    pub(super) seed: u64,
    pub(super) cpl_before: bool,
    pub(super) saturate: bool,
    pub(super) pops_clear: bool,
    pub(super) has_frz: bool,
    pub(super) freeze: FreezeFlavour,
    pub(super) deep_c_state_reset: bool,
    pub(super) init_clears_control: bool,
    pub(super) tos_write_masks: bool,
    pub(super) cycle_saturation: u16,
    pub(super) early_freeze: usize,
    pub(super) duplicate_one_in: NonZeroU32,
    pub(super) inserts: InsertsEvent,
    pub(super) inserts_empty_pops: bool,
    pub(super) depth_write_clears_ler: bool,
    /// LER takes the last taken branch, not the youngest record.
    pub(super) ler_unfiltered: bool,
    /// Kinds that update LER.
    pub(super) ler_kinds: u32,
    /// Class codes that [`super::Lbr::retire`] does not handle in line.
    pub(super) special: u32,
}

impl Config {
    pub(super) fn new(profile: &Profile, options: &Options) -> Self {
        let quirks = options.quirks.unwrap_or(profile.quirks);
        let tsx = options.tsx.unwrap_or(profile.tsx);
        let arch = profile.is_arch();
        let canonical = AddressCheck::Canonical(profile.linear_address_bits);
        let (kind, layout, from_check, to_check, deep_c_state_reset) = match &profile.interface {
            Interface::Legacy(legacy) => {
                let format = legacy
                    .format_alternative
                    .filter(|_| options.alternative_format)
                    .unwrap_or(legacy.format);
                let hidden = format == LbrFormat::LIP && quirks.contains(Quirk::HiddenMispred);
                let layout = if hidden {
                    Layout::lip_with_mispred()
                } else {
                    Layout::legacy(format, tsx)
                };
                let e1 = quirks.contains(Quirk::TsxSignExtension) && !tsx;
                let from = match format {
                    LbrFormat::OFFSET_32 => AddressCheck::Low32,
                    LbrFormat::EIP_FLAGS | LbrFormat::LIP_CYCLES => AddressCheck::SignUpTo(62),
                    LbrFormat::EIP_FLAGS_TSX => AddressCheck::SignUpTo(if e1 { 62 } else { 60 }),
                    _ if hidden => AddressCheck::SignUpTo(62),
                    _ => canonical,
                };
                let to = match format {
                    LbrFormat::OFFSET_32 => AddressCheck::Low32,
                    LbrFormat::LIP_CYCLES => AddressCheck::Any,
                    _ => canonical,
                };
                let kind = Kind::Legacy(legacy_config(legacy, options, quirks));
                (kind, layout, from, to, legacy.deep_c_state_reset)
            }
            Interface::Arch(leaf) => {
                let config = ArchConfig {
                    eax: leaf.eax,
                    ebx: leaf.ebx,
                    ecx: leaf.ecx,
                    ctl_mask: enumerated_ctl(leaf.ebx),
                    mask_from: options.arch_mask_from,
                };
                let resets = leaf.eax & 1 << 30 != 0;
                (
                    Kind::Arch(config),
                    Layout::arch(leaf, tsx),
                    canonical,
                    canonical,
                    resets,
                )
            }
        };
        let by_version = if profile.perfmon_version >= 4 {
            FreezeFlavour::Streamlined
        } else {
            FreezeFlavour::Legacy
        };
        let freeze = if arch {
            FreezeFlavour::Streamlined
        } else {
            options.freeze.unwrap_or(by_version)
        };
        let addresses_only = !arch && options.ler_addresses_only;
        let rtm = if tsx {
            DebugCtl::RTM_DEBUG
        } else {
            DebugCtl::default()
        };
        let software = arch || options.ler_software_interrupts;
        let ler_unfiltered = arch && !options.arch_ler_filtered;
        let in_line = !ler_unfiltered
            && !quirks.contains(Quirk::DuplicateTop)
            && (arch || !quirks.contains(Quirk::EarlyFreeze));
        Self {
            kind,
            layout: Layout {
                fused_from_compare: options.fused_from_compare,
                ..layout
            },
            max_depth: profile.max_depth(),
            from_check,
            to_check,
            ler_from_check: if addresses_only {
                canonical
            } else {
                from_check
            },
            ler_to_check: if addresses_only { canonical } else { to_check },
            debugctl_mask: profile.debugctl | rtm,
            info_reserved: if arch {
                options.arch_info_reserved
            } else {
                options.legacy_info_reserved
            },
            quirks,
            seed: options.seed,
            cpl_before: arch && options.arch_cpl_before,
            saturate: !arch && options.callstack_saturate,
            pops_clear: arch || options.pops_clear_slots,
            has_frz: profile.perfmon_version >= 4 || freeze == FreezeFlavour::Streamlined,
            freeze,
            deep_c_state_reset: options.deep_c_state_reset.unwrap_or(deep_c_state_reset),
            init_clears_control: options.init_clears_control,
            tos_write_masks: options.tos_write_masks,
            cycle_saturation: options.cycle_saturation,
            early_freeze: usize::from(options.early_freeze_branches)
                .min(profile.max_depth() as usize),
            duplicate_one_in: options.duplicate_top_one_in,
            inserts: profile.lbr_inserts,
            inserts_empty_pops: options.inserts_count_empty_pops,
            depth_write_clears_ler: options.depth_write_clears_ler,
            ler_unfiltered,
            ler_kinds: far_bits(&[FarKind::Exception, FarKind::Interrupt])
                | if software {
                    far_bit(FarKind::SoftwareInterrupt)
                } else {
                    0
                },
            special: if in_line {
                far_bits(&[
                    FarKind::Exception,
                    FarKind::Interrupt,
                    FarKind::SoftwareInterrupt,
                    FarKind::DebugException,
                    FarKind::Smi,
                    FarKind::Rsm,
                    FarKind::TsxAbort,
                ])
            } else {
                !0
            },
        }
    }

    pub(super) const fn arch(&self) -> Option<&ArchConfig> {
        match &self.kind {
            Kind::Arch(arch) => Some(arch),
            Kind::Legacy(_) => None,
        }
    }

    /// Entries have an INFO word.
    pub(super) const fn has_info(&self) -> bool {
        match &self.kind {
            Kind::Legacy(legacy) => legacy.info.is_some(),
            Kind::Arch(_) => true,
        }
    }

    pub(super) const fn legacy(&self) -> Option<&LegacyConfig> {
        match &self.kind {
            Kind::Legacy(legacy) => Some(legacy),
            Kind::Arch(_) => None,
        }
    }

    pub(super) fn quirk(&self, quirk: Quirk) -> bool {
        self.quirks.contains(quirk)
    }
}

fn legacy_config(legacy: &LegacyLbr, options: &Options, quirks: QuirkSet) -> LegacyConfig {
    let none = LbrSelect::default();
    let rel = LbrSelect::NEAR_REL_JMP;
    let ind = LbrSelect::NEAR_IND_JMP;
    let overlap = legacy.select == SelectLayout::Nehalem && quirks.contains(Quirk::NehalemOverlap);
    let (ret_gate_any, ret_gate_all) = match options.nehalem_return_gate {
        _ if !overlap => (none, none),
        ReturnGate::Either => (rel | ind, none),
        ReturnGate::Both => (none, rel | ind),
        ReturnGate::Indirect => (ind, none),
        ReturnGate::Relative => (rel, none),
    };
    let optional = [
        (FarKind::Smi, options.legacy_smi_recorded),
        (FarKind::Rsm, options.legacy_rsm_recorded),
        (FarKind::Init, options.legacy_init_recorded),
        (FarKind::Sipi, options.legacy_init_recorded),
        (FarKind::DebugException, false),
    ];
    let unrecorded = optional
        .iter()
        .filter(|(_, on)| !on)
        .map(|(kind, _)| far_bit(*kind));
    LegacyConfig {
        from: legacy.from,
        to: legacy.to,
        info: legacy.info,
        select_mask: match legacy.select {
            SelectLayout::None => None,
            SelectLayout::Nehalem | SelectLayout::SandyBridge => Some(0x1ff),
            SelectLayout::Haswell => Some(0x3ff),
        },
        rel_call_gate: if overlap { rel } else { none },
        ind_call_gate: if overlap { ind } else { none },
        ret_gate_any,
        ret_gate_all,
        far_kinds: far_bits(&FarKind::ALL) & !unrecorded.fold(0, |all, bit| all | bit),
        unfiltered_kinds: if options.tsx_abort_ignores_far {
            far_bit(FarKind::TsxAbort)
        } else {
            0
        },
        enable: if options.tr_records {
            DebugCtl::LBR | DebugCtl::TR
        } else {
            DebugCtl::LBR
        },
        survives_warm_reset: legacy.survives_warm_reset,
        freeze_clears_tr: legacy.freeze_clears_tr,
        ler: legacy.ler,
        ler_addresses_only: options.ler_addresses_only,
    }
}

fn enumerated_ctl(ebx: u32) -> LbrCtl {
    let mut ctl = LbrCtl::LBR_EN;
    if ebx & 1 != 0 {
        ctl = ctl | LbrCtl::OS | LbrCtl::USR;
    }
    if ebx & 2 != 0 {
        ctl = ctl | LbrCtl::ALL_TYPES;
    }
    if ebx & 4 != 0 {
        ctl = ctl | LbrCtl::CALL_STACK;
    }
    ctl
}
