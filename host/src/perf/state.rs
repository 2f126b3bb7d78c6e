//! States of an event and of a saved LBR stack, and every way between them.
//!
//! The tables are the only list of transitions: states change through [`StateOf::after`] alone, and
//! the diagrams of `docs/host-perf-states.md` are drawn from them.

use core::fmt;
use core::fmt::Write as _;

/// A transition: from, what happens, to.
type Row<S, C> = (S, C, S);

/// States with a table of transitions.
pub trait StateOf: Copy + Eq + fmt::Debug + 'static {
    /// What changes them.
    type Cause: Copy + Eq + fmt::Debug + 'static;

    /// Every transition, self-loops left out.
    const TRANSITIONS: &'static [(Self, Self::Cause, Self)];

    /// The state after `cause`; `None` if nothing is listed, so that the state stays.
    #[must_use]
    fn after(self, cause: Self::Cause) -> Option<Self> {
        Self::TRANSITIONS
            .iter()
            .find(|(from, known, _)| *from == self && *known == cause)
            .map(|(.., to)| *to)
    }

    /// The table as a Mermaid state diagram.
    #[must_use]
    fn diagram() -> String {
        let mut text = String::from("stateDiagram-v2\n");
        for (from, cause, to) in Self::TRANSITIONS {
            // Writing to a String does not fail.
            let _ = writeln!(text, "    {from:?} --> {to:?}: {cause:?}");
        }
        text
    }
}

/// `event->state`, with perf's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
pub enum EventState {
    /// Released.
    Dead = -4,
    /// Its task is gone.
    Exit = -3,
    /// Pinned, and could not be placed. Nothing but enabling it helps.
    Error = -2,
    /// Disabled.
    Off = -1,
    /// Waits to be placed.
    Inactive = 0,
    /// On.
    Active = 1,
}

impl EventState {
    /// Perf's number.
    #[must_use]
    pub const fn number(self) -> i8 {
        self as i8
    }
}

/// What changes an [`EventState`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventCause {
    /// `event_sched_in`.
    Placed,
    /// `event_sched_out`, or placing it failed half-way.
    TakenOff,
    /// A pinned group did not fit: `merge_sched_in`.
    PinnedFailed,
    /// `_perf_event_enable`.
    Enabled,
    /// `_perf_event_disable`.
    Disabled,
    /// The task exits: `perf_event_exit_event`.
    TaskExited,
    /// `perf_event_release_kernel`, or the processor goes offline.
    Released,
}

impl StateOf for EventState {
    type Cause = EventCause;

    const TRANSITIONS: &'static [Row<Self, EventCause>] = &[
        (Self::Inactive, EventCause::Placed, Self::Active),
        (Self::Active, EventCause::TakenOff, Self::Inactive),
        (Self::Inactive, EventCause::PinnedFailed, Self::Error),
        (Self::Error, EventCause::Enabled, Self::Inactive),
        (Self::Off, EventCause::Enabled, Self::Inactive),
        (Self::Inactive, EventCause::Disabled, Self::Off),
        (Self::Inactive, EventCause::TaskExited, Self::Exit),
        (Self::Off, EventCause::TaskExited, Self::Exit),
        (Self::Error, EventCause::TaskExited, Self::Exit),
        (Self::Exit, EventCause::Released, Self::Dead),
        (Self::Error, EventCause::Released, Self::Dead),
        (Self::Off, EventCause::Released, Self::Dead),
        (Self::Inactive, EventCause::Released, Self::Dead),
    ];
}

/// `lbr_stack_state` of a task's LBR data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StackState {
    /// Nothing is saved.
    #[default]
    None,
    /// The data holds the stack.
    Valid,
}

/// What changes a [`StackState`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StackCause {
    /// `__intel_pmu_lbr_save` with call-stack users.
    Saved,
    /// `__intel_pmu_lbr_save` without.
    SavedWithoutUsers,
    /// `__intel_pmu_lbr_restore`, in full.
    Restored,
    /// `__intel_pmu_lbr_restore`: the registers still hold the stack.
    Kept,
}

impl StateOf for StackState {
    type Cause = StackCause;

    const TRANSITIONS: &'static [Row<Self, StackCause>] = &[
        (Self::None, StackCause::Saved, Self::Valid),
        (Self::Valid, StackCause::SavedWithoutUsers, Self::None),
        (Self::Valid, StackCause::Restored, Self::None),
        (Self::Valid, StackCause::Kept, Self::None),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_perf() {
        let numbers = [
            (EventState::Active, 1),
            (EventState::Inactive, 0),
            (EventState::Off, -1),
            (EventState::Error, -2),
            (EventState::Exit, -3),
            (EventState::Dead, -4),
        ];
        for (state, number) in numbers {
            assert_eq!(state.number(), number);
        }
        assert!(EventState::Error < EventState::Off && EventState::Off < EventState::Inactive);
    }

    #[test]
    fn no_cause_leads_two_ways() {
        fn check<S: StateOf>() {
            for (n, (from, cause, to)) in S::TRANSITIONS.iter().enumerate() {
                assert_ne!(from, to, "{from:?} {cause:?}");
                assert_eq!(from.after(*cause), Some(*to), "row {n}");
            }
        }
        check::<EventState>();
        check::<StackState>();
    }

    #[test]
    fn nothing_leaves_error_by_being_placed() {
        for cause in [EventCause::Placed, EventCause::TakenOff] {
            assert_eq!(EventState::Error.after(cause), None);
        }
        assert_eq!(EventState::Dead.after(EventCause::Enabled), None);
    }

    #[test]
    fn the_documentation_draws_these_tables() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/host-perf-states.md");
        let text = std::fs::read_to_string(path).unwrap();
        for diagram in [EventState::diagram(), StackState::diagram()] {
            let drawn = format!("```mermaid\n{diagram}```\n");
            assert!(text.contains(&drawn), "{path} lacks:\n{drawn}");
        }
    }
}
