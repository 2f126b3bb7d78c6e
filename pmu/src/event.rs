//! Events: their names, their encodings and what they count.

use std::fmt;

use thiserror::Error;
use vlbr_arch::{BranchClass, Transfer};

/// An event that retired steps feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Instructions retired (INST_RETIRED.ANY_P, C0/00). A REP string instruction counts once.
    Instructions,
    /// Branch instructions retired, taken or not (BR_INST_RETIRED.ALL_BRANCHES, C4/00).
    Branches,
    /// Taken near branches retired (BR_INST_RETIRED.NEAR_TAKEN).
    NearTaken,
}

/// `perf_event_attr.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PerfType {
    /// PERF_TYPE_HARDWARE.
    Hardware,
    /// PERF_TYPE_RAW.
    Raw,
}

impl PerfType {
    /// The number in `perf_event_attr.type`.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Hardware => 0,
            Self::Raw => 4,
        }
    }
}

/// How perf would program an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Encoding {
    /// `perf_event_attr.type`.
    pub kind: PerfType,
    /// `perf_event_attr.config`.
    pub config: u64,
}

/// Why an event cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EventError {
    /// No event of that name is fed.
    #[error(
        "unknown event '{0}': vlbr samples on instructions, branches and \
         br_inst_retired.near_taken"
    )]
    Unknown(String),
    /// A precise event.
    #[error(
        "'{0}': precise sampling (p) is not modelled; without it samples fall on the exact \
         instruction and name the one that would run next"
    )]
    Precise(String),
    /// A modifier other than u, k.
    #[error("unknown event modifier '{modifier}' in '{name}': u and k are known")]
    Modifier {
        /// The event as given.
        name: String,
        /// The modifier.
        modifier: char,
    },
    /// The processor has no such event.
    #[error("{profile} has no {event} event; use -e branches or -e instructions")]
    NotOnModel {
        /// The event.
        event: Event,
        /// The processor profile.
        profile: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Instructions => "instructions",
            Self::Branches => "branches",
            Self::NearTaken => "br_inst_retired.near_taken",
        })
    }
}

impl Event {
    /// How perf encodes the event on the microarchitecture `profile` (a profile's name); `None`
    /// if it has none. Umasks of C4 from Intel's event lists (perfmon, August 2026): 20 on the
    /// Core line from Sandy Bridge on, 80 on Goldmont to Tremont, C0 on Gracemont. Silvermont,
    /// Knights Landing, Nehalem, Westmere, Core 2 and Bonnell list no near-taken event.
    #[must_use]
    pub fn encoding(self, profile: &str) -> Option<Encoding> {
        let hardware = |config| {
            Some(Encoding {
                kind: PerfType::Hardware,
                config,
            })
        };
        match self {
            Self::Instructions => hardware(1),
            Self::Branches => hardware(4),
            Self::NearTaken => {
                let umask: u64 = match profile {
                    p if [
                        "core2",
                        "nehalem",
                        "westmere",
                        "bonnell",
                        "saltwell",
                        "silvermont",
                    ]
                    .iter()
                    .chain(&["airmont", "knights"])
                    .any(|none| p.starts_with(none)) =>
                    {
                        return None;
                    }
                    p if p.starts_with("goldmont") || p.starts_with("tremont") => 0x80,
                    p if p.contains("gracemont") || p.ends_with("-e") => 0xc0,
                    _ => 0x20,
                };
                Some(Encoding {
                    kind: PerfType::Raw,
                    config: umask << 8 | 0xc4,
                })
            }
        }
    }
}

/// An event with its privilege filter, as `-e name:modifiers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventSelect {
    /// What is counted.
    pub event: Event,
    /// Count at CPL > 0 (PERFEVTSEL.USR).
    pub user: bool,
    /// Count at CPL 0 (PERFEVTSEL.OS).
    pub kernel: bool,
    /// Whether the user named a privilege level; if not, a session chooses.
    pub explicit: bool,
}

impl fmt::Display for EventSelect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let modifier = match (self.user, self.kernel) {
            (true, false) => ":u",
            (false, true) => ":k",
            _ => "",
        };
        write!(f, "{}{modifier}", self.event)
    }
}

impl EventSelect {
    /// The event on both privilege levels.
    #[must_use]
    pub const fn both(event: Event) -> Self {
        Self {
            event,
            user: true,
            kernel: true,
            explicit: false,
        }
    }

    /// Parses perf's `name[:modifiers]`: names `instructions`, `inst_retired.any`, `branches`,
    /// `branch-instructions`, `br_inst_retired.all_branches`, `br_inst_retired.near_taken`;
    /// modifiers `u` and `k`.
    ///
    /// # Errors
    /// An unknown name or modifier; `p`, since PEBS would report other addresses.
    pub fn parse(text: &str) -> Result<Self, EventError> {
        let (name, modifiers) = text.split_once(':').unwrap_or((text, ""));
        let event = match name.to_ascii_lowercase().as_str() {
            "instructions" | "inst_retired.any" | "inst_retired.any_p" => Event::Instructions,
            "branches" | "branch-instructions" | "br_inst_retired.all_branches" => Event::Branches,
            "br_inst_retired.near_taken" => Event::NearTaken,
            _ => return Err(EventError::Unknown(name.to_owned())),
        };
        let (mut user, mut kernel) = (false, false);
        for modifier in modifiers.chars() {
            match modifier {
                'u' => user = true,
                'k' => kernel = true,
                'p' | 'P' => return Err(EventError::Precise(text.to_owned())),
                _ => {
                    return Err(EventError::Modifier {
                        name: text.to_owned(),
                        modifier,
                    });
                }
            }
        }
        let explicit = user || kernel;
        Ok(Self {
            event,
            user: user || !explicit,
            kernel: kernel || !explicit,
            explicit,
        })
    }

    /// What a step adds to the counter: `instructions` retired in it at CPL > 0 (`user`) or CPL 0,
    /// the last of them a branch (`branch`), with the transfer it made.
    #[must_use]
    pub fn increment(
        &self,
        instructions: u16,
        user: bool,
        branch: bool,
        transfer: Option<&Transfer>,
    ) -> u32 {
        if !(if user { self.user } else { self.kernel }) {
            return 0;
        }
        match self.event {
            Event::Instructions => u32::from(instructions),
            Event::Branches => u32::from(branch),
            Event::NearTaken => u32::from(
                branch && transfer.is_some_and(|t| !matches!(t.class, BranchClass::Far(_))),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use vlbr_arch::{Cpl, FarKind};

    use super::*;

    #[test]
    fn names_and_modifiers() {
        let select = EventSelect::parse("br_inst_retired.near_taken:u").unwrap();
        assert_eq!(select.event, Event::NearTaken);
        assert!(select.user && !select.kernel && select.explicit);
        assert_eq!(select.to_string(), "br_inst_retired.near_taken:u");
        let both = EventSelect::parse("instructions").unwrap();
        assert!(both.user && both.kernel && !both.explicit);
        assert!(matches!(
            EventSelect::parse("cache-misses"),
            Err(EventError::Unknown(_))
        ));
        assert!(matches!(
            EventSelect::parse("branches:x"),
            Err(EventError::Modifier { .. })
        ));
    }

    #[test]
    fn encodings_by_model() {
        let near = |profile| Event::NearTaken.encoding(profile).map(|e| e.config);
        assert_eq!(near("skylake"), Some(0x20c4));
        assert_eq!(near("goldmont-plus"), Some(0x80c4));
        assert_eq!(near("nehalem"), None);
        assert_eq!(
            Event::Branches.encoding("nehalem").map(|e| e.config),
            Some(4)
        );
    }

    #[test]
    fn increments_by_level_and_class() {
        let near = EventSelect::parse("br_inst_retired.near_taken:u").unwrap();
        let jump = Transfer::near(BranchClass::NearRelJmp, 1, 2, Cpl::Ring3);
        let syscall = Transfer::near(BranchClass::Far(FarKind::Syscall), 1, 2, Cpl::Ring3);
        assert_eq!(near.increment(5, true, true, Some(&jump)), 1);
        assert_eq!(near.increment(5, false, true, Some(&jump)), 0);
        assert_eq!(near.increment(5, true, true, Some(&syscall)), 0);
        assert_eq!(near.increment(5, true, true, None), 0, "not taken");
        let branches = EventSelect::parse("branches").unwrap();
        assert_eq!(branches.increment(5, true, true, None), 1);
        assert_eq!(branches.increment(5, true, false, None), 0);
        assert_eq!(
            EventSelect::parse("instructions:k")
                .unwrap()
                .increment(5, true, true, None),
            0
        );
    }
}
