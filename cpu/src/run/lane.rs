//! One thread's steps through the loop.

use thiserror::Error;

use crate::code::StepId;
use crate::run::columns::{MOST_WORDS, NoWords, WordsOf};
use crate::run::local_id::LocalId;
use crate::run::pace::Pace;
use crate::run::plan::{PUSH, Plan};
use crate::run::sample::{RunEnd, RunTotals, Samples, Schedule};
use crate::run::segment::Run;
use crate::run::store::Store;
use crate::run::times::{RecordTimes, Walked};
use crate::run::view::{EntryRef, MAX_DEPTH, Stack};

/// Steps per look at the counter. If it turns out to overflow within them, they are run again
/// one by one.
pub(super) const BATCH: usize = 16;
/// References kept, a power of two well above the depth plus a batch.
pub(super) const RING: usize = 1024;
/// Padded size of the table of 16-bit local ids: no id needs a bounds check.
pub(super) const TABLE: usize = 1 << 16;

/// The steps of a chunk as local ids.
#[derive(Clone, Copy, Debug)]
pub enum StepIds<'a> {
    /// 16-bit ids.
    U16(&'a [u16]),
    /// 32-bit ids, for a chunk with more than 65,536 different steps.
    U32(&'a [u32]),
}

impl StepIds<'_> {
    /// Number of steps.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::U16(ids) => ids.len(),
            Self::U32(ids) => ids.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Local id of step `index`.
    ///
    /// # Panics
    /// If `index` is out of range.
    #[must_use]
    pub fn local(&self, index: usize) -> usize {
        match self {
            Self::U16(ids) => usize::from(ids[index]),
            Self::U32(ids) => ids[index] as usize,
        }
    }

    /// The steps from `start` to before `end`.
    ///
    /// # Panics
    /// If the range is out of bounds.
    #[must_use]
    pub fn slice(&self, start: usize, end: usize) -> Self {
        match self {
            Self::U16(ids) => StepIds::U16(&ids[start..end]),
            Self::U32(ids) => StepIds::U32(&ids[start..end]),
        }
    }
}

/// Why a chunk cannot be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RunError {
    /// A local id is outside the chunk's table.
    #[error("step id {id} in a chunk of {known} different steps")]
    LocalId {
        /// The id.
        id: usize,
        /// Size of the table.
        known: usize,
    },
    /// The table names a step the plan does not know.
    #[error("chunk names step {step}, the trace has {steps}")]
    StepId {
        /// The step.
        step: u32,
        /// Steps of the trace.
        steps: usize,
    },
}

/// Reusable state of the loop for one worker.
#[derive(Debug)]
pub struct Lane {
    pub(super) table: Box<[u64; TABLE]>,
    pub(super) wide: Vec<u64>,
    /// Words of the columns by local id.
    more: Vec<u64>,
    /// What steps take by local id, if times of records are asked for.
    pub(super) costs: Vec<u32>,
    pub(super) ring: Box<[u32; RING]>,
    /// Call-stack mode: the stack as a ring of references.
    pub(super) stack: [EntryRef; MAX_DEPTH],
}

/// The moving part of a run.
pub(super) struct Cursor {
    /// Records written to the ring: in normal mode all pushes, in call-stack mode pushes and pops
    /// that wait to be applied.
    pub(super) head: usize,
    /// Call-stack mode: operations applied so far.
    pub(super) applied: usize,
    pub(super) top: usize,
    pub(super) totals: RunTotals,
    /// Events (of this run) at which the next sample is due.
    pub(super) due: u64,
    pub(super) pace: Pace,
    pub(super) walked: Walked,
}

impl Default for Lane {
    fn default() -> Self {
        Self::new()
    }
}

impl Lane {
    /// Fresh state, about half a MiB.
    #[must_use]
    pub fn new() -> Self {
        // Boxed through a Vec: an array this size does not go on the stack first.
        let table = vec![0_u64; TABLE].into_boxed_slice();
        Self {
            table: table.try_into().unwrap_or_else(|_| Box::new([0; TABLE])),
            wide: Vec::new(),
            more: Vec::new(),
            costs: Vec::new(),
            ring: Box::new([0; RING]),
            stack: [EntryRef::EMPTY; MAX_DEPTH],
        }
    }

    /// Counts instructions and events of a chunk without running it.
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn count(
        &mut self,
        plan: &Plan,
        map: &[StepId],
        ids: StepIds<'_>,
    ) -> Result<RunTotals, RunError> {
        self.load(plan, map)?;
        let mut totals = RunTotals {
            steps: ids.len(),
            ..RunTotals::default()
        };
        let columns = plan.columns();
        let mut fold = |sum: u64| {
            totals.instructions += columns.instructions.of_first(sum);
            totals.events += columns.events.of_first(sum);
        };
        match ids {
            StepIds::U16(ids) => {
                check_ids(ids, map.len())?;
                for segment in ids.chunks(columns.segment) {
                    fold(segment.iter().fold(0_u64, |sum, &id| {
                        sum.wrapping_add(self.table[usize::from(id)])
                    }));
                }
            }
            StepIds::U32(ids) => {
                check_ids(ids, map.len())?;
                for segment in ids.chunks(columns.segment) {
                    fold(
                        segment
                            .iter()
                            .fold(0_u64, |sum, &id| sum.wrapping_add(self.wide[id as usize])),
                    );
                }
            }
        }
        Ok(totals)
    }

    /// Runs the steps `ids` (local ids into `map`) from an unknown stack, appends samples to
    /// `samples`, and returns the sums and the stack at the end. References in both may be
    /// symbolic, see [`Stack::resolve`]. If `samples` has a limit the run may end before the last
    /// step.
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn run<S: Store>(
        &mut self,
        plan: &Plan,
        map: &[StepId],
        ids: StepIds<'_>,
        schedule: Option<Schedule>,
        store: &mut S,
        samples: &mut Samples,
    ) -> Result<RunEnd, RunError> {
        self.load(plan, map)?;
        samples.set_shape(plan.depth(), plan.columns().len());
        let mut cursor = Cursor {
            head: 0,
            applied: 0,
            top: 0,
            totals: RunTotals::default(),
            due: schedule.map_or(u64::MAX, |s| s.first.max(1)),
            pace: schedule.map_or(Pace::Period(u64::MAX), |s| s.pace),
            walked: Walked::default(),
        };
        for (index, slot) in self.stack[..usize::from(plan.depth())]
            .iter_mut()
            .rev()
            .enumerate()
        {
            // The youngest entry is at the top, the next ones below it.
            *slot = EntryRef::incoming(index as u8);
        }
        cursor.top = usize::from(plan.depth()) - 1;
        match ids {
            StepIds::U16(ids) => {
                check_ids(ids, map.len())?;
                self.dispatch(plan, map, ids, &mut cursor, store, samples);
            }
            StepIds::U32(ids) => {
                check_ids(ids, map.len())?;
                self.dispatch(plan, map, ids, &mut cursor, store, samples);
            }
        }
        if plan.pops() {
            self.apply(plan, map, &mut cursor);
        } else {
            cursor.totals.pushes = cursor.head as u64;
        }
        let entries = self.view(plan, map, &cursor);
        let net = net(plan, &cursor);
        let times = match ids {
            StepIds::U16(ids) => self.times(plan, ids, &mut cursor),
            StepIds::U32(ids) => self.times(plan, ids, &mut cursor),
        };
        Ok(RunEnd {
            totals: cursor.totals,
            stack: Stack::from_entries(&entries[..usize::from(plan.depth())], net),
            times,
            schedule: schedule.map(|_| Schedule {
                first: cursor.due.saturating_sub(cursor.totals.events),
                pace: cursor.pace,
            }),
        })
    }

    /// Fills the tables by local id.
    fn load(&mut self, plan: &Plan, map: &[StepId]) -> Result<(), RunError> {
        let steps = plan.steps();
        if let Some(step) = map.iter().find(|step| step.0 as usize >= steps) {
            return Err(RunError::StepId {
                step: step.0,
                steps,
            });
        }
        if map.len() <= TABLE {
            for (slot, &step) in self.table.iter_mut().zip(map) {
                *slot = plan.word(step);
            }
        }
        self.wide.clear();
        if map.len() > TABLE {
            self.wide.extend(map.iter().map(|&step| plan.word(step)));
        } else {
            self.wide.extend_from_slice(&self.table[..map.len()]);
        }
        self.costs.clear();
        if plan.times_records() {
            self.costs.extend(map.iter().map(|&step| plan.cost(step)));
        }
        let columns = plan.columns();
        self.more.clear();
        if columns.width() > 0 {
            for &step in map {
                self.more.extend_from_slice(columns.words(step));
            }
        }
        Ok(())
    }

    /// When the youngest records of a run that has ended were made.
    fn times<I: LocalId>(&self, plan: &Plan, ids: &[I], cursor: &mut Cursor) -> RecordTimes {
        match plan.time_column() {
            Some(column) if plan.times_records() => {
                let totals = &cursor.totals;
                let (steps, now) = (totals.steps, totals.counts[column]);
                self.walk(ids, steps, now, &mut cursor.walked)
            }
            _ => RecordTimes::default(),
        }
    }

    /// When the records before step number `steps` were made, which begins at `now`.
    pub(super) fn walk<I: LocalId>(
        &self,
        ids: &[I],
        steps: usize,
        now: u64,
        walked: &mut Walked,
    ) -> RecordTimes {
        let word = |id: I| id.word(&self.table, &self.wide);
        let cost = |id: I| self.costs[id.number() as usize];
        walked.up_to(ids, steps, now, word, cost)
    }

    fn dispatch<I: LocalId, S: Store>(
        &mut self,
        plan: &Plan,
        map: &[StepId],
        ids: &[I],
        cursor: &mut Cursor,
        store: &mut S,
        samples: &mut Samples,
    ) {
        let more = std::mem::take(&mut self.more);
        let run = Run { plan, map };
        match plan.columns().width() {
            0 => run.all(self, ids, &NoWords, cursor, store, samples),
            1 => run.all(self, ids, &WordsOf::<1>::new(&more), cursor, store, samples),
            2 => run.all(self, ids, &WordsOf::<2>::new(&more), cursor, store, samples),
            _ => run.all(
                self,
                ids,
                &WordsOf::<MOST_WORDS>::new(&more),
                cursor,
                store,
                samples,
            ),
        }
        self.more = more;
    }

    /// Call-stack mode: applies the pushes and pops that wait in the ring.
    pub(super) fn apply(&mut self, plan: &Plan, map: &[StepId], cursor: &mut Cursor) {
        let depth = usize::from(plan.depth());
        while cursor.applied < cursor.head {
            let local = self.ring[cursor.applied % RING] as usize;
            let word = self.wide[local];
            if word & PUSH != 0 {
                cursor.top = if cursor.top + 1 == depth {
                    0
                } else {
                    cursor.top + 1
                };
                self.stack[cursor.top] = EntryRef::step(map[local]);
                cursor.totals.pushes += 1;
            } else {
                self.stack[cursor.top] = EntryRef::EMPTY;
                cursor.top = if cursor.top == 0 {
                    depth - 1
                } else {
                    cursor.top - 1
                };
                cursor.totals.pops += 1;
            }
            cursor.applied += 1;
        }
    }

    /// The stack now, youngest entry first.
    pub(super) fn view(
        &self,
        plan: &Plan,
        map: &[StepId],
        cursor: &Cursor,
    ) -> [EntryRef; MAX_DEPTH] {
        let depth = usize::from(plan.depth());
        let mut entries = [EntryRef::EMPTY; MAX_DEPTH];
        if plan.pops() {
            for (back, entry) in entries[..depth].iter_mut().enumerate() {
                *entry = self.stack[(cursor.top + depth - back) % depth];
            }
        } else {
            let known = cursor.head.min(depth);
            for (back, entry) in entries[..depth].iter_mut().enumerate() {
                *entry = if back < known {
                    let local = self.ring[(cursor.head - 1 - back) % RING] as usize;
                    EntryRef::step(map[local])
                } else {
                    EntryRef::incoming((back - known) as u8)
                };
            }
        }
        entries
    }
}

/// Pushes minus pops. In normal mode the head counts the pushes; in call-stack mode the waiting
/// operations must have been applied.
pub(super) fn net(plan: &Plan, cursor: &Cursor) -> i64 {
    if plan.pops() {
        cursor.totals.pushes as i64 - cursor.totals.pops as i64
    } else {
        cursor.head as i64
    }
}

/// The loop indexes tables with the ids; a maximum, which vectorizes, is cheaper than a check at
/// each step.
fn check_ids<I: LocalId>(ids: &[I], known: usize) -> Result<(), RunError> {
    let largest = I::largest(ids) as usize;
    if !ids.is_empty() && largest >= known {
        return Err(RunError::LocalId { id: largest, known });
    }
    Ok(())
}
