//! Events whose place is not known yet, and the returns that show it.

use std::collections::VecDeque;
use std::sync::Arc;

use vlbr_arch::FarKind;
use vlbr_cpu::Target;

use super::mode::Kind;
use super::transition::{Decoded, Handlers, Struck, struck};

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
    /// Where the fallback put it, if the steps say so.
    pub(super) fallback: Option<Struck>,
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

impl OpenEvent {
    /// Whether it struck right behind a return from an earlier event.
    pub(super) fn behind_return(&self) -> bool {
        self.resume.is_none() && self.previous.returns()
    }
}

#[derive(Debug)]
struct Numbered {
    number: u64,
    event: OpenEvent,
    /// The event that the interrupted return seems to belong to.
    return_of: Option<u64>,
}

/// The open events of a stream, newest last.
#[derive(Debug, Default)]
pub(super) struct OpenEvents {
    events: VecDeque<Numbered>,
    next: u64,
}

/// An event taken from [`OpenEvents`].
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) number: u64,
    pub(super) event: OpenEvent,
    pub(super) place: Struck,
}

impl OpenEvents {
    /// Adds `event`; the result is one that had to give way.
    pub(super) fn push(&mut self, event: OpenEvent) -> Option<OpenEvent> {
        let newest = self.events.back().map(|newest| newest.number);
        self.events.push_back(Numbered {
            number: self.next,
            return_of: newest.filter(|_| event.behind_return()),
            event,
        });
        self.next += 1;
        if self.events.len() > MAX_OPEN {
            self.events.pop_front().map(|oldest| oldest.event)
        } else {
            None
        }
    }

    fn remove(&mut self, index: usize, place: Struck) -> Option<Taken> {
        self.events.remove(index).map(|numbered| Taken {
            number: numbered.number,
            event: numbered.event,
            place,
        })
    }

    /// Takes the event that a return to linear address `resume` belongs to.
    pub(super) fn take(&mut self, kind: Kind, handlers: &Handlers, resume: u64) -> Option<Taken> {
        let mut possible = None;
        for index in (0..self.events.len()).rev() {
            let event = &self.events[index].event;
            let found = match event.resume {
                Some(known) => (known == resume).then_some((Struck::At(resume), true)),
                None => {
                    let exception = handlers.get(&event.handler).copied().unwrap_or(false);
                    struck(kind, &event.previous, resume, exception)
                }
            };
            match found {
                Some((place, true)) => return self.remove(index, place),
                Some((place, false)) if possible.is_none() => possible = Some((index, place)),
                _ => {}
            }
        }
        let (index, place) = possible?;
        self.remove(index, place)
    }

    /// Takes an event that struck behind a return from event `number` to `resume`.
    pub(super) fn take_behind_return_of(&mut self, number: u64, resume: u64) -> Option<Taken> {
        let index = self
            .events
            .iter()
            .position(|event| event.return_of == Some(number))?;
        self.remove(index, Struck::At(resume))
    }

    /// The steps written so far can no longer be changed. The result is how many events stay where
    /// the fallback put them.
    pub(super) fn settle(&mut self) -> u64 {
        let mut settled = 0;
        for Numbered { event, .. } in &mut self.events {
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
