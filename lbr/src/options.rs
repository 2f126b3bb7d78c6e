//! The choices that documentation leaves open.

use core::num::NonZeroU32;

use serde::Deserialize;
use vlbr_data::{TomlError, parse_toml};

use crate::QuirkSet;

/// How a device freezes on PMI. SDM volume 3, "Freezing LBR and Performance Counters on PMI".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FreezeFlavour {
    /// `DEBUGCTL.LBR` is cleared (perfmon versions 2 and 3).
    Legacy,
    /// `GLOBAL_STATUS.LBR_FRZ` is set (perfmon version 4 and later).
    Streamlined,
}

/// Which jump bits of Nehalem's `LBR_SELECT` suppress near returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReturnGate {
    /// Bit 6 or bit 7 alone suffices.
    #[default]
    Either,
    /// Only both together.
    Both,
    /// Bit 6, `NEAR_IND_JMP`.
    Indirect,
    /// Bit 7, `NEAR_REL_JMP`.
    Relative,
}

/// What WRMSR does with reserved bits of an INFO word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReservedWrite {
    /// `#GP(0)`.
    Fault,
    /// Accepted; they read 0.
    Drop,
    /// Accepted; they read as written.
    Keep,
}

/// Every choice the documentation leaves open, with its default.
///
/// "Open" means that neither Intel's manuals nor a measurement known to the project decides; the
/// default is what software or a related document suggests. Where a choice only concerns one
/// generation, the other ignores it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Quirks in place of those the profile switches on \[those of the profile\].
    pub quirks: Option<QuirkSet>,
    /// Seed of everything that real parts do at times nobody can tell \[0\].
    pub seed: u64,
    /// Whether TSX is enumerated, in place of the profile's word \[that of the profile\].
    /// Microcode removed TSX from many parts that were sold with it. Without it, IN_TSX and
    /// ABORT are recorded as 0 and `DEBUGCTL.RTM_DEBUG` is reserved.
    pub tsx: Option<bool>,
    /// Call-stack mode, legacy: a return on an empty stack leaves TOS alone \[false: TOS wraps\].
    /// No source; "empty" means FROM of the slot at TOS reads 0.
    pub callstack_saturate: bool,
    /// Call-stack mode, legacy: a return zeroes the slot it removes \[true\]. Linux commit
    /// 0592e57b24e7 says so, and perf's reader, which stops at FROM = 0, depends on it.
    pub pops_clear_slots: bool,
    /// Legacy: a TSX abort is recorded whatever `LBR_SELECT.FAR_BRANCH` says \[false\]. The class
    /// table of architectural LBR lists aborts as "other branch"; legacy by analogy.
    pub tsx_abort_ignores_far: bool,
    /// Architectural: FROM of a record whose source CPL is filtered reads 0xFFFFFFFF \[true\]. If
    /// false, the address is recorded.
    pub arch_mask_from: bool,
    /// Architectural: the CPL filter tests the CPL before the transfer \[false: after it\].
    pub arch_cpl_before: bool,
    /// FROM of a conditional branch that was fused with the compare before it is the address of the
    /// compare \[false: of the branch\]. Linux can decode such records; no Intel part is known to
    /// make them. It needs [`Transfer::fused`](vlbr_arch::Transfer::fused), which no trace tells.
    pub fused_from_compare: bool,
    /// Legacy: RSM is recorded as a far branch if recording is on after it \[true\].
    pub legacy_rsm_recorded: bool,
    /// Legacy: SMI entry is recorded as a far branch before SMM begins \[false\].
    pub legacy_smi_recorded: bool,
    /// Legacy: INIT and SIPI are recorded as far branches \[false\].
    pub legacy_init_recorded: bool,
    /// Profiles with a second likely format (Silvermont, Airmont: 3 in place of 1) use that one
    /// \[false\].
    pub alternative_format: bool,
    /// How to freeze on PMI \[by perfmon version: legacy up to 3, streamlined from 4\]. The SDM
    /// contradicts itself for Goldmont; streamlined is taken.
    pub freeze: Option<FreezeFlavour>,
    /// INIT clears `IA32_DEBUGCTL` and `IA32_LBR_CTL` \[false: both keep their values\].
    pub init_clears_control: bool,
    /// Legacy: software interrupts update LER \[true\]. Architectural LBR does so by definition.
    pub ler_software_interrupts: bool,
    /// Legacy: LER holds sign-extended addresses only \[false: a copy of the entry, flag and cycle
    /// bits included\]. BDM131 speaks of high bits of `LER_TO` that differ from the sign.
    pub ler_addresses_only: bool,
    /// Architectural: LER takes the last branch that passed the filters, which is the youngest
    /// record \[true\]. SDM volume 3, LER registers: enables and filters are those of
    /// the entries. If false, only the enables are: LER takes the last taken branch while recording
    /// was on, whatever its privilege and type. What empties the entries empties that memory too.
    pub arch_ler_filtered: bool,
    /// Architectural: writing `IA32_LBR_DEPTH` zeroes LER with the entries \[false\]. The SDM speaks
    /// of the entries.
    pub depth_write_clears_ler: bool,
    /// Which of bits 6 and 7 of Nehalem's layout suppress returns \[either\]. Linux opens both.
    pub nehalem_return_gate: ReturnGate,
    /// Legacy: the stack also updates with `DEBUGCTL.TR` = 1 and LBR = 0 \[false\]. The SDM says
    /// some parts share the hardware of branch trace messages.
    pub tr_records: bool,
    /// Where the cycle count stops \[0xFFFF\].
    pub cycle_saturation: u16,
    /// Reserved bits of `MSR_LBR_INFO_n` \[fault\].
    pub legacy_info_reserved: ReservedWrite,
    /// Undefined bits of `IA32_LBR_n_INFO` and `IA32_LER_INFO` \[keep\]. SDM volume 4: writes of
    /// non-zero values do not fault.
    pub arch_info_reserved: ReservedWrite,
    /// WRMSR to TOS drops bits above its width \[false: `#GP(0)`\].
    pub tos_write_masks: bool,
    /// Whether C-states deeper than C1 reset the LBR \[that of the profile\].
    pub deep_c_state_reset: Option<bool>,
    /// [`crate::Quirk::EarlyFreeze`]: how many branches are missing \[1\], at most the depth.
    pub early_freeze_branches: u8,
    /// [`crate::Quirk::DuplicateTop`]: one record in so many is doubled \[256\].
    pub duplicate_top_one_in: NonZeroU32,
    /// The event `LBR_INSERTS`, where it counts removals, also counts the return on an empty
    /// stack \[false\].
    pub inserts_count_empty_pops: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            quirks: None,
            seed: 0,
            tsx: None,
            callstack_saturate: false,
            pops_clear_slots: true,
            tsx_abort_ignores_far: false,
            arch_mask_from: true,
            arch_cpl_before: false,
            fused_from_compare: false,
            legacy_rsm_recorded: true,
            legacy_smi_recorded: false,
            legacy_init_recorded: false,
            alternative_format: false,
            freeze: None,
            init_clears_control: false,
            ler_software_interrupts: true,
            ler_addresses_only: false,
            arch_ler_filtered: true,
            depth_write_clears_ler: false,
            nehalem_return_gate: ReturnGate::Either,
            tr_records: false,
            cycle_saturation: u16::MAX,
            legacy_info_reserved: ReservedWrite::Fault,
            arch_info_reserved: ReservedWrite::Keep,
            tos_write_masks: false,
            deep_c_state_reset: None,
            early_freeze_branches: 1,
            duplicate_top_one_in: NonZeroU32::new(256).unwrap_or(NonZeroU32::MIN),
            inserts_count_empty_pops: false,
        }
    }
}

/// A text that is no set of options.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("options: {0}")]
pub struct OptionsError(#[from] TomlError);

impl Options {
    /// Reads options from TOML: `name = value` lines named like the fields; absent ones keep
    /// their defaults.
    ///
    /// # Errors
    /// An unknown name, a value of the wrong type, or text that is not TOML.
    pub fn from_toml(text: &str) -> Result<Self, OptionsError> {
        Ok(parse_toml(text)?)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Options, Profile};

    #[test]
    fn what_is_wrong_with_a_text_is_said_with_its_place() {
        let options = Options::from_toml("\n  nonsense = 1").expect_err("no option");
        let profile = Profile::from_toml("\n  nonsense = 1").expect_err("no profile");
        for (text, what) in [
            (options.to_string(), "options"),
            (profile.to_string(), "profile"),
        ] {
            let place = format!("{what}: line 2, column 3: unknown field");
            assert!(text.starts_with(&place), "{text}");
        }
    }
}
