//! Events as people write them: perf's names, Intel's names, raw codes, `cpu/.../` terms.

use core::fmt;
use core::num::NonZeroU64;

use vlbr_arch::PerfEvtSel;

use crate::{
    Counter, CounterSet, Encoding, EventEntry, Options, PerfType, Profile, Refusal, Selector,
    SourceSet,
};

/// Why a text names no event that can be counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventNameError {
    /// Nothing before the modifiers, or nothing at all.
    #[error("{0:?} names no event")]
    Empty(String),
    /// The part has no event of this name.
    #[error("{profile} has no event {name:?}; nearest are {}", nearest.join(", "))]
    Unknown {
        /// The profile.
        profile: String,
        /// The name.
        name: String,
        /// The nearest that are fed.
        nearest: Vec<String>,
    },
    /// The event exists and cannot be counted.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Bits of a raw event that are not the event's.
    #[error(
        "{name:?}: bits {bits:#x} belong to no event: known are 7:0 event, 15:8 umask, 18 edge, 19 pc, 21 any, 23 inv, 31:24 cmask, 32 in_tx, 33 in_tx_cp"
    )]
    Bits {
        /// The text.
        name: String,
        /// The bits.
        bits: u64,
    },
    /// A term between the slashes.
    #[error(
        "{name:?}: {reason} in term {term:?}; terms are event, umask, edge, pc, any, inv, cmask, in_tx, in_tx_cp, config, period, name, or the name of an event"
    )]
    Term {
        /// The text.
        name: String,
        /// The term.
        term: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A modifier other than u, k and p.
    #[error("{name:?}: unknown modifier {modifier:?}: u, k and p are known")]
    Modifier {
        /// The text.
        name: String,
        /// The modifier.
        modifier: char,
    },
    /// Slashes that do not match.
    #[error("{0:?} is not of the form cpu/TERM,.../MODIFIERS")]
    Slashes(String),
}

/// An event to count, as `perf -e` takes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventSpec {
    /// As it was written, or as its `name=` term says.
    pub name: String,
    /// Event, unit mask and the bits that choose what is counted; no level, no EN.
    pub select: PerfEvtSel,
    /// What is counted.
    pub sources: SourceSet,
    /// Counters that can count it.
    pub counters: CounterSet,
    /// Count at CPL > 0.
    pub user: bool,
    /// Count at CPL 0.
    pub kernel: bool,
    /// Whether the text named a level; if not, a session chooses.
    pub explicit: bool,
    /// Number of `p` modifiers: 1 and up ask for PEBS.
    pub precise: u8,
    /// The `period=` term.
    pub period: Option<NonZeroU64>,
    /// How perf programs it.
    pub encoding: Encoding,
}

impl fmt::Display for EventSpec {
    /// The name with the levels, as perf prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let modifier = match (self.user, self.kernel) {
            (true, false) => "u",
            (false, true) => "k",
            _ => return f.write_str(&self.name),
        };
        // Behind the closing slash of terms a modifier stands alone.
        let colon = if self.name.ends_with('/') { "" } else { ":" };
        write!(f, "{}{colon}{modifier}", self.name)
    }
}

impl EventSpec {
    /// What a counter counts that is set to this event.
    #[must_use]
    pub fn selector(&self) -> Selector {
        Selector {
            sources: self.sources,
            kernel: self.kernel,
            user: self.user,
            in_tx: self.select.contains(PerfEvtSel::IN_TX),
            any_thread: false,
        }
    }
}

/// perf's generic hardware events: name, `PERF_COUNT_HW_*`, and the event Linux maps it to on
/// Intel parts (`intel_perfmon_event_map`).
const GENERIC: [(&str, u64, u16); 11] = [
    ("cpu-cycles", 0, 0x003c),
    ("cycles", 0, 0x003c),
    ("instructions", 1, 0x00c0),
    ("cache-references", 2, 0x4f2e),
    ("cache-misses", 3, 0x412e),
    ("branch-instructions", 4, 0x00c4),
    ("branches", 4, 0x00c4),
    ("branch-misses", 5, 0x00c5),
    ("bus-cycles", 6, 0x013c),
    ("ref-cycles", 9, 0x0300),
    ("slots", u64::MAX, 0x0400),
];

/// Bits of `perf_event_attr.config` that `/sys/bus/event_source/devices/cpu/format` lists.
const FORMAT: [(&str, u32, u64); 9] = [
    ("event", 0, 0xff),
    ("umask", 8, 0xff),
    ("edge", 18, 1),
    ("pc", 19, 1),
    ("any", 21, 1),
    ("inv", 23, 1),
    ("cmask", 24, 0xff),
    ("in_tx", 32, 1),
    ("in_tx_cp", 33, 1),
];

const CONFIG: u64 = {
    let mut mask = 0;
    let mut i = 0;
    while i < FORMAT.len() {
        mask |= FORMAT[i].2 << FORMAT[i].1;
        i += 1;
    }
    mask
};

/// A text on its way to an [`EventSpec`].
#[derive(Default)]
struct Draft {
    config: u64,
    generic: Option<u64>,
    name: Option<String>,
    period: Option<NonZeroU64>,
}

impl Profile {
    /// Reads an event as perf spells it (`instructions`, `branch-misses`), as Intel's list of the
    /// part does (`BR_INST_RETIRED.NEAR_TAKEN`, in any case), raw (`r20c4`), or by terms
    /// (`cpu/event=0xc4,umask=0x20/`, also `cpu_core` and `cpu_atom`), with modifiers `u`, `k` and
    /// `p` behind a colon or the last slash.
    ///
    /// # Errors
    /// No such event (with the nearest that are fed), an event that cannot be fed as `options`
    /// say, a bad term or modifier.
    pub fn parse_event(&self, text: &str, options: &Options) -> Result<EventSpec, EventNameError> {
        let (draft, modifiers) = match text.split_once('/') {
            Some((pmu, rest)) => self.parse_terms(text, pmu, rest)?,
            None => {
                let (name, modifiers) = text.split_once(':').unwrap_or((text, ""));
                (self.parse_name(text, name, options)?, modifiers)
            }
        };
        let mut spec = self.finish(text, draft, options)?;
        for modifier in modifiers.chars() {
            match modifier {
                'u' => spec.user = true,
                'k' => spec.kernel = true,
                'p' => spec.precise = spec.precise.saturating_add(1),
                _ => {
                    return Err(EventNameError::Modifier {
                        name: text.to_owned(),
                        modifier,
                    });
                }
            }
        }
        spec.explicit = spec.user || spec.kernel;
        if !spec.explicit {
            (spec.user, spec.kernel) = (true, true);
        }
        Ok(spec)
    }

    /// Reads several events separated by commas, as `perf stat -e` takes them.
    ///
    /// # Errors
    /// As [`Profile::parse_event`], for the first that fails.
    pub fn parse_events(
        &self,
        text: &str,
        options: &Options,
    ) -> Result<Vec<EventSpec>, EventNameError> {
        let mut specs = Vec::new();
        let mut rest = text;
        loop {
            // A comma between slashes separates terms.
            let mut inside = false;
            let end = rest.find(|c| {
                inside ^= c == '/';
                c == ',' && !inside
            });
            let one = end.map_or(rest, |end| &rest[..end]);
            specs.push(self.parse_event(one.trim(), options)?);
            match end {
                Some(end) => rest = &rest[end + 1..],
                None => return Ok(specs),
            }
        }
    }

    fn parse_name(
        &self,
        text: &str,
        name: &str,
        options: &Options,
    ) -> Result<Draft, EventNameError> {
        if name.is_empty() {
            return Err(EventNameError::Empty(text.to_owned()));
        }
        if let Some(draft) = self.known(name) {
            return Ok(draft);
        }
        let raw = name
            .strip_prefix(['r', 'R'])
            .filter(|digits| (1..=16).contains(&digits.len()))
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u64::from_str_radix(digits, 16).ok());
        match raw {
            Some(config) => Ok(Draft {
                config,
                ..Draft::default()
            }),
            None => Err(EventNameError::Unknown {
                profile: self.name().to_owned(),
                name: name.to_owned(),
                nearest: self.nearest_names(name, options),
            }),
        }
    }

    /// The event with this name, perf's or Intel's.
    fn known(&self, name: &str) -> Option<Draft> {
        let generic = GENERIC
            .iter()
            .find(|(known, ..)| known.eq_ignore_ascii_case(name));
        if let Some((_, number, config)) = generic {
            return Some(Draft {
                config: u64::from(*config),
                generic: (*number != u64::MAX).then_some(*number),
                ..Draft::default()
            });
        }
        let mut named = self
            .events()
            .iter()
            .filter(|event| event.name().eq_ignore_ascii_case(name));
        let first = named.next()?;
        // An event that general-purpose counters count as well is programmed there.
        let event = named.find(|event| event.fixed().is_none()).unwrap_or(first);
        Some(Draft {
            config: programmed(event).bits(),
            ..Draft::default()
        })
    }

    fn parse_terms<'a>(
        &self,
        text: &'a str,
        pmu: &str,
        rest: &'a str,
    ) -> Result<(Draft, &'a str), EventNameError> {
        let slashes = || EventNameError::Slashes(text.to_owned());
        let (terms, modifiers) = rest.split_once('/').ok_or_else(slashes)?;
        if !["cpu", "cpu_core", "cpu_atom"].contains(&pmu) || modifiers.contains('/') {
            return Err(slashes());
        }
        let mut draft = Draft::default();
        for term in terms.split(',') {
            self.parse_term(term.trim(), &mut draft)
                .map_err(|reason| EventNameError::Term {
                    name: text.to_owned(),
                    term: term.to_owned(),
                    reason,
                })?;
        }
        Ok((draft, modifiers.strip_prefix(':').unwrap_or(modifiers)))
    }

    fn parse_term(&self, term: &str, draft: &mut Draft) -> Result<(), &'static str> {
        let (key, value) = match term.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (term, None),
        };
        if let Some((_, shift, mask)) = FORMAT.iter().find(|(known, ..)| *known == key) {
            let value = value.map_or(Some(1), number).ok_or("no number")?;
            if value & !mask != 0 {
                return Err("too large a value");
            }
            draft.config = draft.config & !(mask << shift) | value << shift;
            return Ok(());
        }
        match (key, value) {
            ("config", Some(value)) => draft.config = number(value).ok_or("no number")?,
            ("period", Some(value)) => {
                let period = number(value).and_then(NonZeroU64::new);
                draft.period = Some(period.ok_or("no period")?);
            }
            ("name", Some(value)) if value.chars().any(char::is_control) => {
                return Err("control characters");
            }
            ("name", Some(value)) if !value.is_empty() => draft.name = Some(value.to_owned()),
            (name, None) => {
                let known = self.known(name).ok_or("no such event or term")?;
                draft.config |= known.config;
                draft.generic = known.generic;
            }
            _ => return Err("no such term"),
        }
        Ok(())
    }

    fn finish(
        &self,
        text: &str,
        draft: Draft,
        options: &Options,
    ) -> Result<EventSpec, EventNameError> {
        if draft.config & !CONFIG != 0 {
            return Err(EventNameError::Bits {
                name: text.to_owned(),
                bits: draft.config & !CONFIG,
            });
        }
        let select = PerfEvtSel::from_bits(draft.config);
        let plain = draft.config & !0xffff == 0;
        // The pseudo events of fixed counters: event 0, unit mask i + 1.
        let fixed = (select.event() == 0 && plain)
            .then(|| select.umask().wrapping_sub(1))
            .filter(|i| *i < 32 && self.fixed_mask() >> i & 1 != 0);
        let (sources, counters) = match fixed {
            Some(i) => (
                self.sources_of_fixed(i, options)?,
                CounterSet(1 << Counter::Fixed(i).bit()),
            ),
            None => self.on_any(select, plain, options)?,
        };
        // Only the unchanged generic event is one to perf.
        let encoding = match draft.generic {
            Some(config) if plain && draft.period.is_none() => Encoding {
                kind: PerfType::Hardware,
                config,
            },
            _ => Encoding {
                kind: PerfType::Raw,
                config: draft.config,
            },
        };
        Ok(EventSpec {
            name: draft.name.unwrap_or_else(|| base_name(text).to_owned()),
            select,
            sources,
            counters,
            user: false,
            kernel: false,
            explicit: false,
            precise: 0,
            period: draft.period,
            encoding,
        })
    }

    fn on_any(
        &self,
        select: PerfEvtSel,
        plain: bool,
        options: &Options,
    ) -> Result<(SourceSet, CounterSet), EventNameError> {
        let counters = self.events().iter().find_map(|event| {
            let same = event.select() == PerfEvtSel::of_event(select.event(), select.umask());
            event.counters().filter(|_| same)
        });
        let first = counters.and_then(|list| list.first().copied()).unwrap_or(0);
        let sources = self.sources_of(Counter::Gp(first), select, options)?;
        let gp = (1u64 << self.gp_counters()) - 1;
        let mut set = match counters {
            Some(list) => list.iter().fold(0, |set, n| set | 1 << n) & gp,
            None => gp,
        };
        // Linux puts these on their fixed counter as well.
        let fixed = match select.bits() & 0xffff {
            0x00c0 => Some(0),
            0x003c => Some(1),
            _ => None,
        };
        if let Some(i) = fixed.filter(|i| plain && self.fixed_mask() >> i & 1 != 0) {
            set |= 1 << Counter::Fixed(i).bit();
        }
        Ok((sources, CounterSet(set)))
    }
}

/// The event that general-purpose counters are given for one of Intel's list, as perf does: its
/// fixed counters' first two events have a common form.
fn programmed(event: &EventEntry) -> PerfEvtSel {
    match event.fixed() {
        Some(0) => PerfEvtSel::of_event(0xc0, 0),
        Some(1) => PerfEvtSel::of_event(0x3c, 0),
        _ => event.select(),
    }
}

/// The text without modifiers.
fn base_name(text: &str) -> &str {
    match text.rfind('/') {
        Some(slash) => &text[..=slash],
        None => text.split_once(':').map_or(text, |(name, _)| name),
    }
}

fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}
