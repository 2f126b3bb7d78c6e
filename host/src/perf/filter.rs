//! An event's branch filter: what the hardware records and what software removes.

use thiserror::Error;
use vlbr_lbr::{Interface, Profile, SelectLayout};
use vlbr_traces::perfdata::BranchSampleType as B;

use crate::perf::branch_type::X86Br as T;
use crate::perf::select::{HardwareFilter, hardware_filter};

/// Why perf refuses an event with this filter.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FilterError {
    /// `-EOPNOTSUPP`: the processor cannot do it.
    #[error("EOPNOTSUPP: {profile} has no {what}")]
    NotSupported {
        /// The processor profile.
        profile: String,
        /// What it lacks.
        what: &'static str,
    },
    /// `-EINVAL`: the combination is refused.
    #[error("EINVAL: {0}")]
    Invalid(&'static str),
}

impl FilterError {
    /// The errno perf_event_open would return.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        match self {
            Self::NotSupported { .. } => -95,
            Self::Invalid(_) => -22,
        }
    }
}

/// A filter as perf programs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LbrFilter {
    sample_type: B,
    br_sel: T,
    hardware: HardwareFilter,
}

impl LbrFilter {
    /// What `perf_event_open` makes of `sample_type` on `profile`.
    /// Linux `intel_pmu_setup_lbr_filter`.
    ///
    /// # Errors
    /// See [`FilterError`].
    pub fn new(profile: &Profile, sample_type: B) -> Result<Self, FilterError> {
        let has_select = match profile.interface() {
            Interface::Legacy(legacy) => legacy.select != SelectLayout::None,
            Interface::Arch(_) => true,
        };
        let mut br_sel = software_mask(sample_type);
        if sample_type.contains(B::CALL_STACK) {
            if !has_select || !profile.has_call_stack() {
                return Err(FilterError::NotSupported {
                    profile: profile.name().to_owned(),
                    what: "LBR call-stack mode",
                });
            }
            if software_mask(before_call_stack(sample_type)).without(T::PRIVILEGES) != T::NONE {
                return Err(FilterError::Invalid(
                    "the call stack cannot be combined with another branch type",
                ));
            }
        }
        // The hardware tells the types, so Linux always keeps them (`intel_pmu_setup_hw_lbr_filter`).
        if profile.is_arch() {
            br_sel = br_sel.with(T::TYPE_SAVE);
        }
        Ok(Self {
            sample_type,
            br_sel,
            hardware: hardware_filter(profile, sample_type),
        })
    }

    /// The request.
    #[must_use]
    pub const fn sample_type(&self) -> B {
        self.sample_type
    }

    /// Value of the filter register.
    #[must_use]
    pub const fn hardware(&self) -> HardwareFilter {
        self.hardware
    }

    /// `hw.branch_reg.reg`: the software mask.
    #[must_use]
    pub const fn br_sel(&self) -> T {
        self.br_sel
    }

    /// Whether the types of branches are saved: if asked for, and always on architectural LBR.
    #[must_use]
    pub const fn saves_types(&self) -> bool {
        self.br_sel.contains(T::TYPE_SAVE)
    }

    /// Whether the software filter runs at all: not if everything is wanted and no type is saved.
    /// Linux `intel_pmu_lbr_filter`.
    #[must_use]
    pub fn software_filters(&self) -> bool {
        filter_runs(self.br_sel)
    }

    /// Whether the software filter keeps an entry of this type, recorded in or outside a
    /// transaction.
    #[must_use]
    pub fn keeps(&self, kind: T, in_tx: bool) -> bool {
        filter_keeps(self.br_sel, kind, in_tx)
    }
}

/// [`LbrFilter::software_filters`] of a software mask.
pub(crate) fn filter_runs(br_sel: T) -> bool {
    let all = T::ANY.with(T::PRIVILEGES);
    !br_sel.contains(all) || br_sel.contains(T::TYPE_SAVE)
}

/// [`LbrFilter::keeps`] of a software mask.
pub(crate) fn filter_keeps(br_sel: T, kind: T, in_tx: bool) -> bool {
    let kind = if kind != T::NONE && br_sel.intersects(T::IN_TX.with(T::NO_TX)) {
        kind.with(if in_tx { T::IN_TX } else { T::NO_TX })
    } else {
        kind
    };
    kind != T::NONE && br_sel.contains(kind)
}

/// The request as far as perf has looked at it when it meets the call stack.
fn before_call_stack(bits: B) -> B {
    let behind = B::CALL_STACK | B::IND_JUMP | B::CALL | B::TYPE_SAVE;
    B(bits.0 & !behind.0)
}

/// `br_sel`: the types wanted. Linux `intel_pmu_setup_sw_lbr_filter`.
fn software_mask(bits: B) -> T {
    let calls = T::CALL.with(T::IND_CALL).with(T::ZERO_CALL);
    let map = [
        (B::USER, T::USER),
        (B::KERNEL, T::KERNEL),
        (B::ANY, T::ANY),
        (
            B::ANY_CALL,
            calls.with(T::SYSCALL).with(T::IRQ).with(T::INT),
        ),
        (B::ANY_RETURN, T::RET.with(T::IRET).with(T::SYSRET)),
        (B::IND_CALL, T::IND_CALL),
        (B::ABORT_TX, T::ABORT),
        (B::IN_TX, T::IN_TX),
        (B::NO_TX, T::NO_TX),
        (B::COND, T::JCC),
        (
            B::CALL_STACK,
            T::CALL.with(T::IND_CALL).with(T::RET).with(T::CALL_STACK),
        ),
        (B::IND_JUMP, T::IND_JMP),
        (B::CALL, T::CALL.with(T::ZERO_CALL)),
        (B::TYPE_SAVE, T::TYPE_SAVE),
    ];
    map.iter()
        .filter(|(bit, _)| bits.contains(*bit))
        .fold(T::NONE, |mask, (_, kind)| mask.with(*kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perf::parse_branch_filter;

    fn filter(profile: &str, names: &str) -> Result<LbrFilter, FilterError> {
        LbrFilter::new(
            Profile::named(profile).unwrap(),
            parse_branch_filter(names).unwrap(),
        )
    }

    fn value(profile: &str, names: &str) -> u64 {
        match filter(profile, names).unwrap().hardware() {
            HardwareFilter::None => u64::MAX,
            HardwareFilter::Select(select) => select.bits(),
            HardwareFilter::Ctl(ctl) => ctl.bits(),
        }
    }

    #[test]
    fn register_values_of_every_request() {
        // Columns: Nehalem, Sandy Bridge, Haswell, architectural.
        let table: [(&str, [u64; 4]); 10] = [
            ("any,u", [0x001, 0x001, 0x001, 0x7f_0005]),
            ("any,k", [0x002, 0x002, 0x002, 0x7f_0003]),
            ("any,u,k", [0x000, 0x000, 0x000, 0x7f_0007]),
            ("any_call,u", [0x025, 0x0e5, 0x0e5, 0x58_0005]),
            ("any_ret,u", [0x01d, 0x0dd, 0x0dd, 0x60_0005]),
            ("ind_call,u", [0x1ad, 0x1ed, 0x1ed, 0x10_0005]),
            ("cond,u", [0x1f9, 0x1f9, 0x1f9, 0x01_0005]),
            ("ind_jmp,u", [0x1bd, 0x1bd, 0x1bd, 0x04_0005]),
            ("call,u", [0x1fd, 0x1f5, 0x1f5, 0x08_0005]),
            ("any,u,hv", [0x001, 0x001, 0x001, 0x7f_0005]),
        ];
        let profiles = ["nehalem", "sandy-bridge", "haswell", "sapphire-rapids"];
        for (names, values) in table {
            for (profile, expected) in profiles.iter().zip(values) {
                assert_eq!(value(profile, names), expected, "{profile} -j {names}");
            }
        }
        assert_eq!(value("haswell", "stack,u"), 0x3c5);
        assert_eq!(value("sapphire-rapids", "stack,u"), 0x38_000d);
        assert_eq!(value("core2-65nm", "any,u"), u64::MAX, "no register");
    }

    #[test]
    fn call_stack_is_refused_where_there_is_none_and_in_company() {
        for profile in ["nehalem", "sandy-bridge", "core2-65nm", "knights-landing"] {
            assert_eq!(
                filter(profile, "stack,u").unwrap_err().errno(),
                -95,
                "{profile}"
            );
        }
        assert_eq!(
            filter("haswell", "stack,any_call,u").unwrap_err().errno(),
            -22
        );
        assert_eq!(filter("haswell", "stack,cond,u").unwrap_err().errno(), -22);
        // perf looks at these two behind the call stack and lets them pass.
        assert!(filter("haswell", "stack,call,u").is_ok());
    }

    #[test]
    fn software_filter_runs_unless_everything_is_wanted() {
        assert!(!filter("haswell", "any,u,k").unwrap().software_filters());
        assert!(filter("haswell", "any,u").unwrap().software_filters());
        assert!(
            filter("haswell", "any,u,k,save_type")
                .unwrap()
                .software_filters()
        );
    }

    #[test]
    fn architectural_lbr_saves_types_unasked() {
        let everything = filter("sapphire-rapids", "any,u,k").unwrap();
        assert!(everything.saves_types() && everything.software_filters());
        assert!(!everything.keeps(T::NONE, false), "no branch at FROM");
        assert!(!filter("skylake", "any,u,k").unwrap().saves_types());
    }

    #[test]
    fn surplus_of_the_nehalem_map_is_removed() {
        let calls = filter("nehalem", "any_call,u").unwrap();
        assert!(calls.keeps(T::CALL.with(T::USER), false));
        assert!(calls.keeps(T::ZERO_CALL.with(T::USER), false));
        assert!(!calls.keeps(T::JMP.with(T::USER), false));
        assert!(!calls.keeps(T::CALL.with(T::KERNEL), false));
        assert!(!calls.keeps(T::NONE, false));
    }

    #[test]
    fn transactions() {
        let inside = filter("haswell", "any,in_tx,u").unwrap();
        assert!(inside.keeps(T::JCC.with(T::USER), true));
        assert!(!inside.keeps(T::JCC.with(T::USER), false));
    }
}
