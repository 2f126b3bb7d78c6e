//! The loop itself.

use crate::code::StepId;
use crate::run::columns::Words;
use crate::run::lane::{BATCH, Cursor, Lane, RING, net};
use crate::run::local_id::LocalId;
use crate::run::plan::{POP, PUSH, Plan};
use crate::run::sample::{Sample, Samples};
use crate::run::store::Store;

/// What is run: the plan, and the steps by local id.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) plan: &'a Plan,
    pub(super) map: &'a [StepId],
}

impl Run<'_> {
    pub(super) fn all<I: LocalId, S: Store, W: Words>(
        self,
        lane: &mut Lane,
        ids: &[I],
        more: &W,
        cursor: &mut Cursor,
        store: &mut S,
        samples: &mut Samples,
    ) {
        while cursor.totals.steps < ids.len() {
            if self.plan.pops() {
                self.segment::<I, S, W, true>(lane, ids, more, cursor, store, samples);
            } else {
                self.segment::<I, S, W, false>(lane, ids, more, cursor, store, samples);
            }
            if samples.is_full() {
                break;
            }
        }
    }

    /// The next segment of `ids`.
    fn segment<I: LocalId, S: Store, W: Words, const POPS: bool>(
        self,
        lane: &mut Lane,
        ids: &[I],
        more: &W,
        cursor: &mut Cursor,
        store: &mut S,
        samples: &mut Samples,
    ) {
        let columns = self.plan.columns();
        let start = cursor.totals.steps;
        let segment = &ids[start..];
        let segment = &segment[..segment.len().min(columns.segment)];
        let (instructions, events) = (columns.instructions, columns.events);
        let mut sum = 0_u64;
        let mut sums = W::zero();
        // Events of earlier segments are in the totals; the packed sum counts from there.
        let mut due = cursor.due.saturating_sub(cursor.totals.events);
        let mut steps = segment.len();
        'steps: for (number, batch) in segment.chunks(BATCH).enumerate() {
            let (sum_before, sums_before, head_before) = (sum, sums, cursor.head);
            let mut head = cursor.head;
            for &id in batch {
                let word = id.word(&lane.table, &lane.wide);
                lane.ring[head % RING] = id.number();
                store.put(head, id.number() as usize);
                head += if POPS {
                    (word >> 62 != 0) as usize
                } else {
                    (word >> 63) as usize
                };
                sum = sum.wrapping_add(word);
                more.add(&mut sums, id.number() as usize);
            }
            if events.of_first(sum) >= due {
                (sum, sums) = (sum_before, sums_before);
                cursor.head = head_before;
                for (index, &id) in batch.iter().enumerate() {
                    let so_far = (sum, sums.as_ref());
                    let up_to = &ids[..=start + number * BATCH + index];
                    self.single::<I, S, POPS>(lane, up_to, so_far, cursor, store, samples);
                    sum = sum.wrapping_add(id.word(&lane.table, &lane.wide));
                    more.add(&mut sums, id.number() as usize);
                    if samples.is_full() {
                        steps = number * BATCH + index + 1;
                        break 'steps;
                    }
                }
                due = cursor.due.saturating_sub(cursor.totals.events);
            } else {
                cursor.head = head;
            }
            if POPS && cursor.head - cursor.applied > RING - 2 * BATCH {
                lane.apply(self.plan, self.map, cursor);
            }
        }
        cursor.totals.steps += steps;
        cursor.totals.instructions += instructions.of_first(sum);
        cursor.totals.events += events.of_first(sum);
        columns.add(sum, sums.as_ref(), &mut cursor.totals.counts);
    }

    /// The last step of `up_to`, with the samples that fall into it. `so_far` are the sums of the segment before
    /// it.
    fn single<I: LocalId, S: Store, const POPS: bool>(
        self,
        lane: &mut Lane,
        up_to: &[I],
        so_far: (u64, &[u64]),
        cursor: &mut Cursor,
        store: &mut S,
        samples: &mut Samples,
    ) {
        let Self { plan, map } = self;
        let [past @ .., id] = up_to else {
            return;
        };
        let id = *id;
        let (sum, sums) = so_far;
        let word = id.word(&lane.table, &lane.wide);
        let step = map[id.number() as usize];
        let columns = plan.columns();
        let counted = cursor.totals.events + columns.events.of_first(sum);
        let after = counted + columns.events.of_first(word);
        let retired = columns.instructions.of_first(word) as u16;
        let head = cursor.head;
        let before = cursor.totals.instructions + columns.instructions.of_first(sum);
        let before_exit = plan.before_exit(step);
        let sample = |lane: &mut Lane, cursor: &mut Cursor, samples: &mut Samples, done: u16| {
            let whole = done == retired;
            if POPS {
                lane.apply(plan, map, cursor);
            }
            let entries = lane.view(plan, map, cursor);
            let mut counts = cursor.totals.counts;
            columns.add(sum, sums, &mut counts);
            let instructions = before + u64::from(done);
            let period = cursor.pace.period();
            cursor
                .pace
                .sampled(cursor.pace.start().saturating_add(instructions));
            let next_period = cursor.pace.period();
            let point = Sample {
                step,
                retired: done,
                after_exit: whole && !before_exit,
                instructions,
                events: cursor.due,
                period,
                next_period,
                net: net(plan, cursor),
            };
            let entries = &entries[..usize::from(plan.depth())];
            samples.push(point, entries, &counts[..columns.len()]);
            if let Some(column) = plan.time_column().filter(|_| plan.times_records()) {
                let now = counts[column];
                let mut times = lane.walk(past, past.len(), now, &mut cursor.walked);
                if cursor.head > head && word & PUSH != 0 {
                    times = times.with_youngest(now + u64::from(plan.cost(step)));
                }
                samples.push_times(times);
            }
            cursor.due = cursor.due.saturating_add(next_period.max(1));
        };
        // The overflow falls after this many instructions of the step.
        let position = |due: u64| plan.position(step, due - counted, retired);
        while cursor.due <= after && (position(cursor.due) < retired || before_exit) {
            let done = position(cursor.due);
            sample(lane, cursor, samples, done);
        }
        lane.ring[cursor.head % RING] = id.number();
        store.put(cursor.head, id.number() as usize);
        cursor.head += usize::from(word & if POPS { PUSH | POP } else { PUSH } != 0);
        while cursor.due <= after {
            sample(lane, cursor, samples, retired);
        }
    }
}
