//! `perf_event_attr.branch_sample_type` and the names `perf record -j` knows.

use thiserror::Error;
use vlbr_traces::perfdata::BranchSampleType;

/// A filter name perf does not know.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown branch filter {name:?}, there are {known}")]
pub struct FilterNameError {
    /// The name.
    pub name: String,
    /// The names there are.
    pub known: String,
}

/// Names of `tools/perf/util/parse-branch-options.c`, in its order. The last three are bits of the
/// ABI that perf itself sets and has no names for.
const NAMES: [(&str, BranchSampleType); 19] = [
    ("u", BranchSampleType::USER),
    ("k", BranchSampleType::KERNEL),
    ("hv", BranchSampleType::HV),
    ("any", BranchSampleType::ANY),
    ("any_call", BranchSampleType::ANY_CALL),
    ("any_ret", BranchSampleType::ANY_RETURN),
    ("ind_call", BranchSampleType::IND_CALL),
    ("abort_tx", BranchSampleType::ABORT_TX),
    ("in_tx", BranchSampleType::IN_TX),
    ("no_tx", BranchSampleType::NO_TX),
    ("cond", BranchSampleType::COND),
    ("ind_jmp", BranchSampleType::IND_JUMP),
    ("call", BranchSampleType::CALL),
    ("save_type", BranchSampleType::TYPE_SAVE),
    ("stack", BranchSampleType::CALL_STACK),
    // Intel's driver leaves the field 0, as far as is known; here it says the level of TO.
    ("priv", BranchSampleType::PRIV_SAVE),
    ("hw_index", BranchSampleType::HW_INDEX),
    ("no_flags", BranchSampleType::NO_FLAGS),
    ("no_cycles", BranchSampleType::NO_CYCLES),
];

/// PERF_SAMPLE_BRANCH_PLM_ALL.
const PRIVILEGES: u64 = 0b111;

/// Parses `-j`'s comma-separated names as perf does (`parse_branch_str`): privilege levels alone
/// mean `any` at the levels of the event, and any other name, be it only `save_type`, stands for
/// itself.
///
/// # Errors
/// An unknown name.
pub fn parse_branch_filter(text: &str) -> Result<BranchSampleType, FilterNameError> {
    let mut bits = BranchSampleType::default();
    for name in text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        let found = NAMES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        let Some((_, bit)) = found else {
            let known: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            return Err(FilterNameError {
                name: name.to_owned(),
                known: known.join(", "),
            });
        };
        bits |= *bit;
    }
    if bits.0 & !PRIVILEGES == 0 {
        bits = BranchSampleType::ANY;
    }
    Ok(bits)
}

/// `filter` with the privilege levels of the event where it names none.
#[must_use]
pub fn with_event_privileges(
    filter: BranchSampleType,
    user: bool,
    kernel: bool,
) -> BranchSampleType {
    let mut bits = filter;
    if filter.0 & PRIVILEGES == 0 {
        if user {
            bits |= BranchSampleType::USER;
        }
        if kernel {
            bits |= BranchSampleType::KERNEL;
        }
    }
    bits
}

/// The names of a filter as `-j` takes them.
#[must_use]
pub fn branch_filter_names(filter: BranchSampleType) -> String {
    let names = NAMES
        .iter()
        .filter(|(_, bit)| filter.contains(*bit))
        .map(|(name, _)| *name);
    names.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_perf_has_them() {
        let bits = parse_branch_filter("any_call,u,save_type").unwrap();
        assert_eq!(bits.0, 1 | 1 << 4 | 1 << 16);
        assert_eq!(branch_filter_names(bits), "u,any_call,save_type");
        assert!(parse_branch_filter("any,calls").is_err());
    }

    #[test]
    fn privileges_alone_mean_any_at_the_levels_of_the_event() {
        for names in ["u", "k,hv", "u,k"] {
            assert_eq!(parse_branch_filter(names), Ok(BranchSampleType::ANY));
        }
        // perf looks at the privilege bits alone: with save_type no class is chosen.
        assert_eq!(parse_branch_filter("u,save_type").unwrap().0, 1 | 1 << 16);
    }

    #[test]
    fn privileges_come_from_the_event_only_if_none_is_named() {
        let any = BranchSampleType::ANY;
        assert_eq!(with_event_privileges(any, true, false).0, 0b1001);
        let kernel = any | BranchSampleType::KERNEL;
        assert_eq!(with_event_privileges(kernel, true, true), kernel);
    }
}
