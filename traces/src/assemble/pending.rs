//! Events whose place is not known yet, and the returns that show it.

use std::collections::VecDeque;
use std::sync::Arc;

use vlbr_arch::FarKind;
use vlbr_cpu::Target;

use super::mode::Kind;
use super::transition::{Decoded, Struck, struck};

/// Open events that are kept; more are nested or abandoned deeper than any return will look.
const MAX_OPEN: usize = 64;

/// An event that may still return.
#[derive(Debug)]
pub(super) struct OpenEvent {
    /// Block behind or inside which it struck.
    pub(super) previous: Arc<Decoded>,
    /// Index of its first step in the chunk under construction; `None` once that is sealed, or if
    /// there is nothing to change.
    pub(super) slot: Option<usize>,
    /// Where execution goes on, if the recorder said so.
    pub(super) resume: Option<u64>,
    /// Handler, linear.
    pub(super) handler: u64,
    /// Handler as a target.
    pub(super) target: Target,
    /// Instructions that the steps as written retire.
    pub(super) retired: u16,
    /// It may as well have been a plain branch.
    pub(super) doubtful: bool,
}

/// The open events of a stream, newest last.
#[derive(Debug, Default)]
pub(super) struct OpenEvents {
    events: VecDeque<OpenEvent>,
}

impl OpenEvents {
    /// Adds `event`; the result is one that had to give way.
    pub(super) fn push(&mut self, event: OpenEvent) -> Option<OpenEvent> {
        self.events.push_back(event);
        if self.events.len() > MAX_OPEN {
            self.events.pop_front()
        } else {
            None
        }
    }

    /// Takes the event that a return to linear address `resume` belongs to.
    pub(super) fn take(&mut self, kind: Kind, resume: u64) -> Option<(OpenEvent, Struck)> {
        let mut possible = None;
        for index in (0..self.events.len()).rev() {
            let event = &self.events[index];
            let found = match event.resume {
                Some(known) => (known == resume).then_some((Struck::At(resume), true)),
                None => struck(kind, &event.previous, resume),
            };
            match found {
                Some((place, true)) => return self.events.remove(index).map(|e| (e, place)),
                Some((place, false)) if possible.is_none() => possible = Some((index, place)),
                _ => {}
            }
        }
        let (index, place) = possible?;
        self.events.remove(index).map(|event| (event, place))
    }

    /// The steps written so far can no longer be changed. The result is how many events stay where
    /// the fallback put them.
    pub(super) fn settle(&mut self) -> u64 {
        let mut settled = 0;
        for event in &mut self.events {
            if event.slot.take().is_some() && !event.doubtful {
                settled += 1;
            }
        }
        settled
    }
}

/// Kind of an event that struck at `place`, given whether its handler is known for exceptions; the
/// second value is whether the place proves it to be an exception.
pub(super) fn kind_of(previous: &Decoded, place: Struck, known: bool) -> (FarKind, bool) {
    let n = previous.block.instructions();
    let inside = match place {
        Struck::After(k) => k < n && !(previous.block.ends_in_rep_string() && k + 1 == n),
        Struck::At(_) => false,
    };
    if inside || known {
        (FarKind::Exception, inside)
    } else {
        (FarKind::Interrupt, false)
    }
}
