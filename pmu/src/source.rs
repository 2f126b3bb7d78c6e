//! What retired steps and a core's clock give to count.

use core::fmt;

/// One kind of occurrence. No occurrence is of two kinds, so that an event is a set of sources
/// and its count their sum.
///
/// Retired branches come twice, predicted and mispredicted, in the order of the transfer classes
/// with the conditional ones split by direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Source {
    /// An instruction retired. A REP string instruction retires once.
    Instructions,
    /// A taken conditional branch, predicted.
    ConditionalTaken,
    /// A conditional branch that fell through, predicted.
    ConditionalNotTaken,
    /// JMP rel, predicted.
    NearRelJmp,
    /// JMP r/m, predicted.
    NearIndJmp,
    /// CALL rel, predicted.
    NearRelCall,
    /// CALL r/m, predicted.
    NearIndCall,
    /// Near RET, predicted.
    NearReturn,
    /// A far branch instruction, predicted. Interrupts and exceptions are no instructions.
    Far,
    /// [`Source::ConditionalTaken`], mispredicted.
    MispredictedConditionalTaken,
    /// [`Source::ConditionalNotTaken`], mispredicted.
    MispredictedConditionalNotTaken,
    /// [`Source::NearRelJmp`], mispredicted.
    MispredictedNearRelJmp,
    /// [`Source::NearIndJmp`], mispredicted.
    MispredictedNearIndJmp,
    /// [`Source::NearRelCall`], mispredicted.
    MispredictedNearRelCall,
    /// [`Source::NearIndCall`], mispredicted.
    MispredictedNearIndCall,
    /// [`Source::NearReturn`], mispredicted.
    MispredictedNearReturn,
    /// [`Source::Far`], mispredicted.
    MispredictedFar,
    /// An instruction with at least one load retired.
    LoadInstructions,
    /// An instruction with at least one store retired.
    StoreInstructions,
    /// An instruction with a load or a store retired.
    MemoryInstructions,
    /// What the LBR device says `LBR_INSERTS` counts: records added, on some parts those removed.
    LbrInserts,
    /// A core clock that was not halted.
    CoreCycles,
    /// A clock of the reference rate while not halted.
    ReferenceCycles,
    /// An issue slot.
    Slots,
    /// A reference to the last-level cache.
    LlcReferences,
    /// A miss of the last-level cache.
    LlcMisses,
    /// A load micro-operation retired.
    LoadUops,
    /// A store micro-operation retired.
    StoreUops,
}

impl Source {
    /// Number of sources.
    pub const COUNT: usize = 28;

    /// Every source with its name in profiles and options.
    pub const NAMED: [(Self, &'static str); Self::COUNT] = [
        (Self::Instructions, "instructions"),
        (Self::ConditionalTaken, "predicted-conditional-taken"),
        (Self::ConditionalNotTaken, "predicted-conditional-not-taken"),
        (Self::NearRelJmp, "predicted-near-rel-jmp"),
        (Self::NearIndJmp, "predicted-near-ind-jmp"),
        (Self::NearRelCall, "predicted-near-rel-call"),
        (Self::NearIndCall, "predicted-near-ind-call"),
        (Self::NearReturn, "predicted-near-return"),
        (Self::Far, "predicted-far"),
        (
            Self::MispredictedConditionalTaken,
            "mispredicted-conditional-taken",
        ),
        (
            Self::MispredictedConditionalNotTaken,
            "mispredicted-conditional-not-taken",
        ),
        (Self::MispredictedNearRelJmp, "mispredicted-near-rel-jmp"),
        (Self::MispredictedNearIndJmp, "mispredicted-near-ind-jmp"),
        (Self::MispredictedNearRelCall, "mispredicted-near-rel-call"),
        (Self::MispredictedNearIndCall, "mispredicted-near-ind-call"),
        (Self::MispredictedNearReturn, "mispredicted-near-return"),
        (Self::MispredictedFar, "mispredicted-far"),
        (Self::LoadInstructions, "load-instructions"),
        (Self::StoreInstructions, "store-instructions"),
        (Self::MemoryInstructions, "memory-instructions"),
        (Self::LbrInserts, "lbr-inserts"),
        (Self::CoreCycles, "core-cycles"),
        (Self::ReferenceCycles, "reference-cycles"),
        (Self::Slots, "slots"),
        (Self::LlcReferences, "llc-references"),
        (Self::LlcMisses, "llc-misses"),
        (Self::LoadUops, "load-uops"),
        (Self::StoreUops, "store-uops"),
    ];

    /// Position in [`Source::NAMED`] and in [`crate::Increments`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// A set of [`Source`]s: what an event counts, or what a caller feeds.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceSet(u32);

/// Names of sets of predicted branches; `mispredicted-` before the name gives the other half,
/// nothing before it both.
const BRANCHES: [(&str, u32); 15] = [
    ("branches", 0x1fe),
    ("conditional", 0x006),
    ("conditional-taken", 0x002),
    ("conditional-not-taken", 0x004),
    ("near-rel-jmp", 0x008),
    ("near-ind-jmp", 0x010),
    ("near-call", 0x060),
    ("near-rel-call", 0x020),
    ("near-ind-call", 0x040),
    ("near-return", 0x080),
    ("near-taken", 0x0fa),
    ("taken", 0x1fa),
    ("far", 0x100),
    ("indirect", 0x050),
    ("near-jmp", 0x018),
];

/// Distance from a predicted branch to its mispredicted twin.
const TWIN: u32 = 8;
const PREDICTED: u32 = 0x1fe;

impl SourceSet {
    /// No source.
    pub const EMPTY: Self = Self(0);
    /// Retired instructions, and branches without regard to their prediction.
    pub const RETIREMENT: Self = Self(1 | PREDICTED);
    /// Branches told apart by their prediction.
    pub const MISPREDICTIONS: Self = Self(PREDICTED | PREDICTED << TWIN);
    /// Branches, taken or not.
    pub const BRANCHES: Self = Self::MISPREDICTIONS;
    /// Taken branches but far ones.
    pub const NEAR_TAKEN: Self = Self(0x0fa | 0x0fa << TWIN);
    /// Everything but branches.
    pub const NO_BRANCH: Self = Self(((1 << Source::COUNT) - 1) & !(PREDICTED | PREDICTED << TWIN));
    /// Sources of which one instruction has at most one: instructions, branches, instructions
    /// that access memory.
    pub const AT_MOST_ONE_EACH: Self = Self(0xf_ffff);
    /// Every source.
    pub const ALL: Self = Self((1 << Source::COUNT) - 1);

    /// The set of one source.
    #[must_use]
    pub const fn of(source: Source) -> Self {
        Self(1 << source as u32)
    }

    /// Whether `source` is a member.
    #[must_use]
    pub const fn contains(self, source: Source) -> bool {
        self.0 & 1 << source as u32 != 0
    }

    /// The members of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The members that `other` lacks.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether every member is one of `other`.
    #[must_use]
    pub const fn is_subset_of(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// No member.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Bit n is the source with index n.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The members, by index.
    pub fn iter(self) -> impl Iterator<Item = Source> {
        Source::NAMED
            .into_iter()
            .map(|(source, _)| source)
            .filter(move |source| self.contains(*source))
    }

    /// What a caller must feed for this set to be counted. An event that does not tell
    /// mispredicted branches from others needs no predictions.
    #[must_use]
    pub const fn needed(self) -> Self {
        let predicted = self.0 & PREDICTED;
        let mispredicted = self.0 >> TWIN & PREDICTED;
        let others = self.0 & !(PREDICTED | PREDICTED << TWIN);
        let told_apart = predicted ^ mispredicted;
        Self(others | predicted | mispredicted | told_apart << TWIN)
    }

    /// The set that one name stands for: a source of [`Source::NAMED`], or a class of branches
    /// (`branches`, `conditional`, `near-call`, `near-taken`, `indirect` and so on), alone, or
    /// behind `predicted-` or `mispredicted-`; `memory-uops` is both kinds.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        if let Some((source, _)) = Source::NAMED.iter().find(|(_, known)| *known == name) {
            return Some(Self::of(*source));
        }
        if name == "memory-uops" {
            return Some(Self::of(Source::LoadUops).with(Self::of(Source::StoreUops)));
        }
        let (class, predicted, mispredicted) = match name.split_once("predicted-") {
            Some(("", class)) => (class, true, false),
            Some(("mis", class)) => (class, false, true),
            _ => (name, true, true),
        };
        let (_, bits) = BRANCHES.iter().find(|(known, _)| *known == class)?;
        let half = |on, shift| if on { bits << shift } else { 0 };
        Some(Self(half(predicted, 0) | half(mispredicted, TWIN)))
    }
}

impl FromIterator<Source> for SourceSet {
    fn from_iter<I: IntoIterator<Item = Source>>(sources: I) -> Self {
        sources
            .into_iter()
            .fold(Self::EMPTY, |set, source| set.with(Self::of(source)))
    }
}

impl fmt::Display for SourceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (source, name) in Source::NAMED {
            if self.contains(source) {
                write!(f, "{separator}{name}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SourceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceSet({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_stand_at_their_index() {
        for (index, (source, _)) in Source::NAMED.iter().enumerate() {
            assert_eq!(source.index(), index);
        }
    }

    #[test]
    fn classes_of_branches_by_name() {
        let set = |name| SourceSet::from_name(name).unwrap();
        assert_eq!(
            set("near-taken"),
            set("taken").without(set("far")),
            "near-taken is taken but far"
        );
        assert_eq!(set("branches"), SourceSet::BRANCHES);
        assert_eq!(set("near-taken"), SourceSet::NEAR_TAKEN);
        assert_eq!(
            set("branches"),
            set("taken").with(set("conditional-not-taken"))
        );
        assert_eq!(
            set("mispredicted-near-call").with(set("predicted-near-call")),
            set("near-call")
        );
        assert!(set("mispredicted-far").contains(Source::MispredictedFar));
        assert_eq!(SourceSet::from_name("unpredicted-far"), None);
        assert_eq!(SourceSet::from_name(""), None);
    }

    #[test]
    fn predictions_are_needed_only_where_they_are_told_apart() {
        let set = |name| SourceSet::from_name(name).unwrap();
        assert!(set("branches").needed().is_subset_of(SourceSet::RETIREMENT));
        let misses = set("mispredicted-branches");
        assert!(!misses.needed().is_subset_of(SourceSet::RETIREMENT));
        let told = SourceSet::RETIREMENT.with(SourceSet::MISPREDICTIONS);
        assert!(misses.needed().is_subset_of(told));
        assert!(set("predicted-taken").needed().is_subset_of(told));
        assert!(!set("load-uops").needed().is_subset_of(told));
    }
}
