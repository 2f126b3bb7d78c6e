//! When things are due, by the instructions of a thread.

use super::draw::{exponential, unit};
use super::due::Kind;
use super::spec::Spec;
use crate::synthetic::Rng;

/// No event.
const NEVER: u64 = u64::MAX;
/// How far, in average distances, something may fall behind before it is given up.
const MOST_BEHIND: f64 = 1000.0;

/// What takes over from a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Interrupt,
    Exception,
    LbrStart,
    LbrRead,
    LbrStop,
}

/// The rates of a spec.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    /// Instructions between two interrupts, those that end a HLT left out; 0 for none.
    interrupt: f64,
    /// Instructions between two faults; 0 for none.
    exception: f64,
    /// Share of the kernel, if there is user code too.
    share: Option<f64>,
    /// Instructions of user code between two entries; of a handler, if there is none.
    entry: f64,
    lbr: Option<Lbr>,
}

#[derive(Clone, Copy, Debug)]
struct Lbr {
    period: u64,
    active: u64,
    idle: u64,
}

impl Rates {
    pub(super) fn new(spec: &Spec, kinds: &[Kind]) -> Self {
        let halts: f64 = kinds.iter().filter(|k| k.halts).map(|k| k.rate).sum();
        let events = &spec.events;
        let distance = |rate: f64| if rate > 1e-9 { 1e6 / rate } else { 0.0 };
        let entries = events.syscalls + events.interrupts + events.exceptions;
        Self {
            interrupt: distance(events.interrupts - halts),
            exception: distance(events.exceptions),
            share: spec.kernel_share,
            entry: match spec.kernel_share {
                Some(share) => (1.0 - share) * distance(entries),
                None => events.handler,
            },
            lbr: spec.lbr.as_ref().map(|lbr| Lbr {
                period: lbr.period,
                active: lbr.active.unwrap_or(NEVER),
                idle: lbr.idle.unwrap_or(0),
            }),
        }
    }
}

/// What is due when in one thread.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    rates: Rates,
    now: u64,
    kernel: u64,
    interrupt: Clock,
    exception: Clock,
    /// The next access to the LBR, whether a session runs, and when that ends.
    lbr: u64,
    session: bool,
    until: u64,
    /// The next event of all.
    event: u64,
    /// By kind.
    due: Vec<Clock>,
    /// Passes of the loop of the LBR's handler.
    passes: u32,
}

impl Schedule {
    pub(super) fn new(rates: &Rates, kinds: &[Kind], rng: &mut Rng) -> Self {
        let mut schedule = Self {
            rates: *rates,
            now: 0,
            kernel: 0,
            interrupt: Clock::new(rates.interrupt, rng),
            exception: Clock::new(rates.exception, rng),
            lbr: rates.lbr.map_or(NEVER, |lbr| lbr.idle.min(lbr.period)),
            session: false,
            until: NEVER,
            event: NEVER,
            due: kinds
                .iter()
                .map(|kind| Clock::new(1e6 / kind.rate, rng))
                .collect(),
            passes: 0,
        };
        schedule.look();
        schedule
    }

    fn look(&mut self) {
        // Infinity becomes the largest number, which is never.
        let drawn = self.interrupt.at.min(self.exception.at) as u64;
        self.event = drawn.min(self.lbr).min(self.until);
    }

    pub(super) const fn now(&self) -> u64 {
        self.now
    }

    pub(super) const fn next_event(&self) -> u64 {
        self.event
    }

    pub(super) fn retire(&mut self, retired: u16, kernel: bool) {
        self.now += u64::from(retired);
        if kernel {
            self.kernel += u64::from(retired);
        }
    }

    /// The event that is due.
    pub(super) fn take_event(&mut self, rng: &mut Rng) -> Event {
        let drawn = self.interrupt.at.min(self.exception.at) as u64;
        let event = if self.lbr.min(self.until) <= drawn {
            self.take_lbr()
        } else if self.interrupt.at <= self.exception.at {
            self.interrupt.advance(rng, self.now);
            Event::Interrupt
        } else {
            self.exception.advance(rng, self.now);
            Event::Exception
        };
        self.look();
        event
    }

    fn take_lbr(&mut self) -> Event {
        let Some(lbr) = self.rates.lbr else {
            return Event::Interrupt;
        };
        self.passes = 0;
        if !self.session {
            self.session = true;
            self.lbr = self.now.saturating_add(lbr.period);
            self.until = self.now.saturating_add(lbr.active);
            return Event::LbrStart;
        }
        if self.until <= self.lbr {
            self.session = false;
            self.until = NEVER;
            self.lbr = self.now.saturating_add(lbr.idle);
            return Event::LbrStop;
        }
        // A read that came late does not move the later ones.
        let late = self.now.saturating_sub(self.lbr) / lbr.period;
        self.lbr = self
            .lbr
            .saturating_add((late + 1).saturating_mul(lbr.period));
        Event::LbrRead
    }

    /// Whether an instruction of this kind is due; then it is not until the next time.
    pub(super) fn take_due(&mut self, kind: usize, rng: &mut Rng) -> bool {
        let due = &mut self.due[kind];
        if due.at > self.now as f64 {
            return false;
        }
        due.advance(rng, self.now);
        true
    }

    /// How long a visit of the kernel that begins now is to last.
    pub(super) fn visit(&self, rng: &mut Rng) -> f64 {
        let Some(share) = self.rates.share else {
            return exponential(rng, self.rates.entry);
        };
        // After the visit the kernel shall be ahead of its share by what the user code up to the
        // next one, of average length, will take back.
        let ahead = self.kernel as f64 - share * self.now as f64;
        let wanted = exponential(rng, share * self.rates.entry);
        ((wanted - ahead) / (1.0 - share)).max(0.0)
    }

    /// The pass that the loop over the stack is in, from 0.
    pub(super) const fn pass(&self) -> u32 {
        self.passes
    }

    /// Ends a pass; whether there is another one of `passes`.
    pub(super) fn count_pass(&mut self, passes: u32) -> bool {
        self.passes += 1;
        if self.passes >= passes {
            self.passes = 0;
        }
        self.passes != 0
    }
}

/// Something that is due again and again.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// When it is due.
    at: f64,
    /// The middle of the stretch that this was drawn from.
    middle: f64,
    /// The length of the stretch: instructions from one to the next on average; 0 for never.
    distance: f64,
}

impl Clock {
    fn new(distance: f64, rng: &mut Rng) -> Self {
        if distance <= 0.0 {
            return Self {
                at: f64::INFINITY,
                middle: f64::INFINITY,
                distance,
            };
        }
        Self {
            at: distance * unit(rng),
            middle: 0.5 * distance,
            distance,
        }
    }

    /// Sets the next time. Each stretch has one, so that even a short trace has the rate asked for.
    fn advance(&mut self, rng: &mut Rng, now: u64) {
        let behind = now as f64 - MOST_BEHIND * self.distance;
        self.middle = self.middle.max(behind) + self.distance;
        self.at = self.middle + self.distance * (unit(rng) - 0.5);
    }
}
