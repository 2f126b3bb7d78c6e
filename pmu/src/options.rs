//! The choices that documentation leaves open, and what the caller feeds.

use core::num::NonZeroU32;

use serde::{Deserialize, Deserializer};
use vlbr_data::{TomlError, parse_toml};

use crate::{QuirkSet, Source, SourceSet};

/// How counters freeze on PMI. SDM volume 3, "Freezing LBR and Performance Counters on PMI".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FreezeFlavour {
    /// `IA32_PERF_GLOBAL_CTRL` is cleared (perfmon versions 2 and 3).
    Legacy,
    /// `GLOBAL_STATUS.CTR_FRZ` is set (perfmon version 4 and later).
    Streamlined,
}

/// What WRMSR does with a bit that newer parts reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReservedWrite {
    /// `#GP(0)`.
    Fault,
    /// Accepted; it reads 0.
    Drop,
    /// Accepted; it reads as written and does nothing.
    Keep,
}

/// What becomes of a counter that is set to an event nobody feeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unfed {
    /// The write is not done: [`crate::PmuError::Refused`].
    Refuse,
    /// The write is done as the part would, the counter stands still, and
    /// [`crate::Device::held`] names it.
    Hold,
}

/// What RSM makes of `IA32_PERF_GLOBAL_CTRL` after FREEZE_WHILE_SMM cleared it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SmmRestore {
    /// The value before the SMI.
    Previous,
    /// Every enable set, as the SDM's sentence reads.
    AllOnes,
}

/// In what the time between a PMI and its delivery is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SkidUnit {
    /// Instructions retired at any level.
    Instructions,
    /// Core clocks; [`crate::Source::CoreCycles`] must be fed.
    CoreCycles,
}

/// Every choice, with its default.
///
/// "Open" means that neither Intel's manuals nor a measurement known to the project decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Quirks in place of those the profile switches on \[those of the profile\].
    pub quirks: Option<QuirkSet>,
    /// Seed of everything that real parts do at times nobody can tell \[0\].
    pub seed: u64,
    /// Whether TSX is enumerated, in place of the profile's word \[that of the profile\].
    pub tsx: Option<bool>,
    /// What the caller feeds \[retired instructions and branches, without predictions\].
    #[serde(deserialize_with = "names_of_sources")]
    pub feeds: SourceSet,
    /// Each [`crate::Device::retire`] is one core clock, with [`crate::Source::CoreCycles`] 1 at
    /// its privilege level, so that CMASK, INV and E can be counted \[false\].
    pub cycle_by_cycle: bool,
    /// Events nobody feeds \[refused\].
    pub unfed: Unfed,
    /// How long after the overflow a PMI is delivered \[0: at the boundary behind the instruction
    /// that overflowed\]. hardware.md 8.9 gives 20 to 250 core clocks as likely.
    pub skid: u64,
    /// Unit of `skid` \[instructions\].
    pub skid_unit: SkidUnit,
    /// Freeze flavour of the counters \[by perfmon version\]. Goldmont's manuals contradict each
    /// other.
    pub freeze: Option<FreezeFlavour>,
    /// Unmasking the LVT entry while an overflow is still in `GLOBAL_STATUS` raises one more PMI
    /// \[false\]. Linux guards against that from Haswell on.
    pub lvtpc_pend_on_unmask: bool,
    /// RSM after FREEZE_WHILE_SMM \[previous value\].
    pub smm_restore: SmmRestore,
    /// `PERFEVTSEL.ANY` and its like where CPUID says AnyThread is deprecated \[kept, ignored\].
    pub any_thread_deprecated: ReservedWrite,
    /// `PERFEVTSEL.PC` from Sandy Bridge on, where it is "not writeable" \[reads 0\].
    pub pin_control_reserved: ReservedWrite,
    /// [`crate::Quirk::LostBranches`]: mean number of branches per lost one \[1024\].
    pub branch_lost_one_in: NonZeroU32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            quirks: None,
            seed: 0,
            tsx: None,
            feeds: SourceSet::RETIREMENT,
            cycle_by_cycle: false,
            unfed: Unfed::Refuse,
            skid: 0,
            skid_unit: SkidUnit::Instructions,
            freeze: None,
            lvtpc_pend_on_unmask: false,
            smm_restore: SmmRestore::Previous,
            any_thread_deprecated: ReservedWrite::Keep,
            pin_control_reserved: ReservedWrite::Drop,
            branch_lost_one_in: NonZeroU32::new(1024).unwrap_or(NonZeroU32::MIN),
        }
    }
}

fn names_of_sources<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SourceSet, D::Error> {
    let mut set = SourceSet::EMPTY;
    for name in Vec::<String>::deserialize(deserializer)? {
        let more = SourceSet::from_name(&name)
            .ok_or_else(|| serde::de::Error::custom(format!("no source is named {name:?}")))?;
        set = set.with(more);
    }
    Ok(set)
}

/// A text that is no set of options, or one that contradicts itself.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OptionsError {
    /// Not TOML, or an unknown or mistyped field.
    #[error("options: {0}")]
    Toml(#[from] TomlError),
    /// Core clocks are counted that nobody feeds.
    #[error("options: {0} needs core-cycles among feeds")]
    NeedsCoreCycles(&'static str),
}

impl Options {
    /// Reads options from TOML: `name = value` lines named like the fields; absent ones keep
    /// their defaults. `feeds` is a list of names as in [`SourceSet::from_name`].
    ///
    /// # Errors
    /// An unknown name, a value of the wrong type, or text that is not TOML; see
    /// [`Options::check`].
    pub fn from_toml(text: &str) -> Result<Self, OptionsError> {
        let options = Self::unchecked_from_toml(text)?;
        options.check()?;
        Ok(options)
    }

    /// As [`Options::from_toml`], for a caller that decides itself what it feeds and checks then.
    ///
    /// # Errors
    /// An unknown name, a value of the wrong type, or text that is not TOML.
    pub fn unchecked_from_toml(text: &str) -> Result<Self, TomlError> {
        parse_toml(text)
    }

    /// Whether what is wanted is fed. A device takes options as they are: with a skid in core
    /// clocks that nobody feeds, it delivers no PMI.
    ///
    /// # Errors
    /// Core clocks are wanted and not fed.
    pub fn check(&self) -> Result<(), OptionsError> {
        let fed = self.feeds.contains(Source::CoreCycles);
        if self.cycle_by_cycle && !fed {
            return Err(OptionsError::NeedsCoreCycles("cycle_by_cycle"));
        }
        if self.skid != 0 && self.skid_unit == SkidUnit::CoreCycles && !fed {
            return Err(OptionsError::NeedsCoreCycles("skid_unit"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_read_from_toml() {
        let text = "feeds = [\"branches\", \"core-cycles\"]\nskid = 60\nskid_unit = \"core-cycles\"\n\
                    quirks = [\"E9\"]\nunfed = \"hold\"\nsmm_restore = \"all-ones\"";
        let options = Options::from_toml(text).unwrap();
        assert!(options.feeds.contains(Source::MispredictedFar));
        assert!(!options.feeds.contains(Source::Instructions));
        assert_eq!((options.skid, options.unfed), (60, Unfed::Hold));
        assert_eq!(options.smm_restore, SmmRestore::AllOnes);
        assert_eq!(Options::from_toml(""), Ok(Options::default()));
    }

    #[test]
    fn clocks_that_nobody_feeds_are_refused() {
        for text in [
            "cycle_by_cycle = true",
            "skid = 1\nskid_unit = \"core-cycles\"",
        ] {
            let error = Options::from_toml(text).unwrap_err();
            assert!(matches!(error, OptionsError::NeedsCoreCycles(_)), "{error}");
        }
        assert!(Options::from_toml("feeds = [\"nonsense\"]").is_err());
    }

    #[test]
    fn what_is_wrong_with_a_text_is_said_with_its_place() {
        let options = Options::from_toml("\n  nonsense = 1").expect_err("no option");
        let profile = crate::Profile::from_toml("\n  nonsense = 1").expect_err("no profile");
        for (text, what) in [
            (options.to_string(), "options"),
            (profile.to_string(), "PMU profile"),
        ] {
            let place = format!("{what}: line 2, column 3: unknown field");
            assert!(text.starts_with(&place), "{text}");
        }
    }
}
