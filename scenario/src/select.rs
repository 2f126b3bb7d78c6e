//! Which processors a scenario concerns.

use vlbr_arch::{LbrFormat, PerfCapabilities};
use vlbr_lbr::{InsertsEvent, Interface, Profile, Quirk, Scope, SelectLayout};

use crate::Reason;

/// A `profiles:` line: terms joined by `,` (any of them), each made of factors joined by `&` (all
/// of them), each a name, a pattern with `*`, a group, `key=value`, or one of these behind `!`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    text: String,
    names: Vec<String>,
}

impl Selection {
    /// Reads a line and resolves it against the profiles there are.
    pub(crate) fn parse(text: &str) -> Result<Self, Reason> {
        let mut chosen = vec![false; Profile::all().len()];
        for term in text.split(',') {
            let mut fits = vec![true; chosen.len()];
            for factor in term.split('&') {
                let factor = factor.trim();
                let (wanted, name) = match factor.strip_prefix('!') {
                    Some(name) => (false, name.trim()),
                    None => (true, factor),
                };
                let test =
                    factor_test(name).ok_or_else(|| Reason::UnknownProfile(factor.to_owned()))?;
                for (fit, profile) in fits.iter_mut().zip(Profile::all()) {
                    *fit &= test(profile) == wanted;
                }
            }
            for (chosen, fit) in chosen.iter_mut().zip(fits) {
                *chosen |= fit;
            }
        }
        let names: Vec<String> = Profile::all()
            .iter()
            .zip(chosen)
            .filter(|(_, chosen)| *chosen)
            .map(|(profile, _)| profile.name().to_owned())
            .collect();
        if names.is_empty() {
            return Err(Reason::NoProfile);
        }
        Ok(Self {
            text: text.to_owned(),
            names,
        })
    }

    /// The line as written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Names of the profiles, oldest part first. Never empty.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

type Test = Box<dyn Fn(&Profile) -> bool>;

fn factor_test(name: &str) -> Option<Test> {
    if let Some((key, value)) = name.split_once('=') {
        return key_test(key, value);
    }
    if let Some(group) = group(name) {
        return Some(Box::new(group));
    }
    let pattern = name.to_owned();
    Profile::all()
        .iter()
        .any(|profile| matches(&pattern, profile.name()))
        .then(|| -> Test { Box::new(move |profile| matches(&pattern, profile.name())) })
}

fn group(name: &str) -> Option<fn(&Profile) -> bool> {
    Some(match name {
        "all" => |_| true,
        "legacy" => |p| !p.is_arch(),
        "arch" => Profile::is_arch,
        "select" => |p| layout(p).is_some_and(|layout| layout != SelectLayout::None),
        "core-scope" => |p| match p.interface() {
            Interface::Legacy(legacy) => legacy.select_scope == Scope::Core,
            Interface::Arch(_) => false,
        },
        "call-stack" => Profile::has_call_stack,
        "mispred" => |p| match p.interface() {
            Interface::Legacy(legacy) => {
                legacy.format >= LbrFormat::EIP_FLAGS || p.quirks().contains(Quirk::HiddenMispred)
            }
            Interface::Arch(arch) => arch.ecx & 1 != 0,
        },
        "cycles" => |p| match p.interface() {
            Interface::Legacy(legacy) => legacy.format >= LbrFormat::EIP_INFO,
            Interface::Arch(arch) => arch.ecx & 2 != 0,
        },
        "tsx" => |p| {
            let formats = [
                LbrFormat::EIP_FLAGS_TSX,
                LbrFormat::EIP_INFO,
                LbrFormat::ARCH,
            ];
            p.tsx() && formats.contains(&p.format())
        },
        "info" => |p| match p.interface() {
            Interface::Legacy(legacy) => legacy.info.is_some(),
            Interface::Arch(_) => true,
        },
        "lip" => |p| match p.interface() {
            Interface::Legacy(legacy) => {
                [LbrFormat::LIP, LbrFormat::LIP_CYCLES, LbrFormat::LIP_INFO]
                    .contains(&legacy.format)
            }
            Interface::Arch(arch) => arch.eax >> 31 == 1,
        },
        "deep-reset" => |p| match p.interface() {
            Interface::Legacy(legacy) => legacy.deep_c_state_reset,
            Interface::Arch(arch) => arch.eax >> 30 & 1 == 1,
        },
        "warm-reset-keeps" => |p| match p.interface() {
            Interface::Legacy(legacy) => legacy.survives_warm_reset,
            Interface::Arch(_) => true,
        },
        "streamlined" => |p| p.perfmon_version() >= 4,
        "event-logging" => |p| match p.interface() {
            Interface::Legacy(_) => false,
            Interface::Arch(arch) => arch.ecx & 0xf_0000 != 0,
        },
        "vmx" => |p| vlbr_vmx::VmxProfile::of_processor(p.name()).is_ok(),
        "inserts" => |p| p.lbr_inserts() != InsertsEvent::None,
        "full-width" => |p| capable(p, PerfCapabilities::FW_WRITE),
        "smm-freeze" => |p| capable(p, PerfCapabilities::FREEZE_WHILE_SMM),
        "adaptive" => |p| capable(p, PerfCapabilities::PEBS_BASELINE),
        "any-thread" => |p| pmu(p).is_some_and(|p| p.version() >= 3 && !p.any_thread_deprecated()),
        _ => return None,
    })
}

fn key_test(key: &str, value: &str) -> Option<Test> {
    let number = value.parse::<u32>().ok();
    Some(match key {
        "format" => {
            let format = LbrFormat::new(number.filter(|n| *n < 64)? as u8);
            Box::new(move |p| p.format() == format)
        }
        "depth" => {
            let depth = number?;
            Box::new(move |p| p.max_depth() == depth)
        }
        "perfmon" => {
            let version = number?;
            Box::new(move |p| u32::from(p.perfmon_version()) == version)
        }
        "address-bits" => {
            let bits = number?;
            Box::new(move |p| u32::from(p.linear_address_bits()) == bits)
        }
        "layout" => {
            let wanted = match value {
                "none" => SelectLayout::None,
                "nehalem" => SelectLayout::Nehalem,
                "sandy-bridge" => SelectLayout::SandyBridge,
                "haswell" => SelectLayout::Haswell,
                _ => return None,
            };
            Box::new(move |p| layout(p) == Some(wanted))
        }
        "inserts" => {
            let wanted = match value {
                "pushes" => InsertsEvent::Pushes,
                "pushes-and-pops" => InsertsEvent::PushesAndPops,
                _ => return None,
            };
            Box::new(move |p| p.lbr_inserts() == wanted)
        }
        "quirk" => match value.parse::<Quirk>() {
            Ok(quirk) => Box::new(move |p| p.quirks().contains(quirk)),
            Err(_) => {
                let quirk: vlbr_pmu::Quirk = value.parse().ok()?;
                Box::new(move |p| pmu(p).is_some_and(|p| p.quirks().contains(quirk)))
            }
        },
        "pebs" => {
            let format = number?;
            Box::new(move |p| {
                pmu(p).is_some_and(|p| {
                    p.pebs().is_some() && u32::from(p.perf_capabilities().pebs_format()) == format
                })
            })
        }
        "gp" => {
            let counters = number?;
            Box::new(move |p| pmu(p).is_some_and(|p| p.gp_counters() == counters))
        }
        "gp-width" => {
            let width = number?;
            Box::new(move |p| pmu(p).is_some_and(|p| p.gp_width() == width))
        }
        "fixed" => {
            let counters = number?;
            Box::new(move |p| pmu(p).is_some_and(|p| p.fixed_mask().count_ones() == counters))
        }
        _ => return None,
    })
}

/// The PMU of the part.
fn pmu(profile: &Profile) -> Option<&'static vlbr_pmu::Profile> {
    vlbr_pmu::Profile::named(profile.name()).ok()
}

fn capable(profile: &Profile, capability: PerfCapabilities) -> bool {
    pmu(profile).is_some_and(|pmu| pmu.perf_capabilities().contains(capability))
}

fn layout(profile: &Profile) -> Option<SelectLayout> {
    match profile.interface() {
        Interface::Legacy(legacy) => Some(legacy.select),
        Interface::Arch(_) => None,
    }
}

/// Whether `name` fits a pattern in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        if let Some(between) = last.replace(part) {
            let Some(place) = rest.find(between) else {
                return false;
            };
            rest = &rest[place + between.len()..];
        }
    }
    match last {
        None => rest.is_empty(),
        Some(end) => rest.ends_with(end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        Selection::parse(text).unwrap().names().to_vec()
    }

    #[test]
    fn terms_add_factors_narrow_and_exclamation_marks_exclude() {
        assert_eq!(names("nehalem, skylake"), ["nehalem", "skylake"]);
        assert_eq!(names("format=6"), ["goldmont"]);
        assert_eq!(names("skylake* & !*-server"), ["skylake"]);
        assert_eq!(names("all").len(), Profile::all().len());
        assert_eq!(
            names("legacy").len() + names("arch").len(),
            names("all").len()
        );
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for text in ["", "pentium", "format=x", "sky*z", "all & !all"] {
            assert!(Selection::parse(text).is_err(), "{text:?}");
        }
    }
}
