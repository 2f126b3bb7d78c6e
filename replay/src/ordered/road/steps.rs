//! The loop over steps: those that wait for the counters, and the way to the others.

use vlbr_cpu::{StepClock, StepId, StepTime};

use super::Road;
use crate::error::ReplayError;
use crate::ordered::thread::Thread;

impl<const TIMED: bool> Road<'_, TIMED> {
    /// Steps one behind the other: `places` of those of `map`, as `number` has them. A loop for ids of each width,
    /// and one that has all registers for itself.
    #[inline(never)]
    pub(in crate::ordered) fn steps<C: StepClock, I: Copy>(
        &mut self,
        thread: &mut Thread<C>,
        map: &[StepId],
        places: &[I],
        number: impl Fn(I) -> usize,
    ) -> Result<(), ReplayError> {
        for &place in places {
            self.step(thread, map[number(place)])?;
        }
        Ok(())
    }

    #[inline(always)]
    fn step<C: StepClock>(
        &mut self,
        thread: &mut Thread<C>,
        id: StepId,
    ) -> Result<(), ReplayError> {
        let time = thread.clock.retire(self.code, id);
        if let Some(ran) = self.ran.get_mut(id.0 as usize)
            && thread.warming == 0
        {
            ran[usize::from(time.mispredicted)] += 1;
        }
        let side = usize::from(time.mispredicted);
        if thread.tally.add_lent(self.plans[side], side, id) {
            let kind = self.kinds[id.0 as usize];
            if !thread.usual.is(kind) {
                self.unusual(thread, id, time);
            } else if kind.pushes() {
                thread.waiting.add(id, time);
            }
            if TIMED {
                thread.now = time.end;
            }
            return Ok(());
        }
        self.look_closer(thread, id, time)
    }

    /// A step that waits for the counters, but of another level than the one before, or with a transfer that cannot
    /// wait for the LBR.
    #[inline(never)]
    fn unusual<C: StepClock>(&self, thread: &mut Thread<C>, id: StepId, time: StepTime) {
        let kind = self.kinds[id.0 as usize];
        thread.tell();
        thread.usual.set(kind, thread.defers);
        self.note(thread, id, time);
    }

    /// The record of a step that waits for the counters.
    #[inline]
    fn note<C: StepClock>(&self, thread: &mut Thread<C>, id: StepId, time: StepTime) {
        let kind = self.kinds[id.0 as usize];
        if !thread.defers || !kind.is_plain() {
            self.record(thread, id, time);
        } else if kind.pushes() {
            thread.waiting.add(id, time);
        }
    }

    /// A step after which a counter may overflow, as far as is known.
    #[inline(never)]
    fn look_closer<C: StepClock>(
        &mut self,
        thread: &mut Thread<C>,
        id: StepId,
        time: StepTime,
    ) -> Result<(), ReplayError> {
        if thread.waits {
            let kind = self.kinds[id.0 as usize];
            let side = usize::from(time.mispredicted);
            let (core, reference, clocks) = if self.plain_clocks {
                thread.lend(self.plans);
                if thread.tally.add_lent(self.plans[side], side, id) {
                    self.unusual(thread, id, time);
                    thread.now = time.end;
                    return Ok(());
                }
                let core = if TIMED { time.end.since(thread.now) } else { 0 };
                (core, core, 0)
            } else {
                self.clocks_and_sampled(kind, thread.now, time.end)
            };
            if let Some(most) = thread.clear.checked_sub(clocks)
                && let Some(events) = thread.tally.add_within(self.plans, side, id, most)
            {
                thread.clear = most - events;
                if TIMED {
                    thread.passed.add(kind, core, reference);
                    thread.now = time.end;
                    thread.told = time.end;
                }
                self.note(thread, id, time);
                return Ok(());
            }
        }
        self.step_alone(thread, id, time)
    }
}
