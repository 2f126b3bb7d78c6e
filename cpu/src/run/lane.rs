//! One thread's steps through the loop.

use thiserror::Error;

use crate::code::StepId;
use crate::run::local_id::LocalId;
use crate::run::plan::{EVENT_MASK, EVENT_SHIFT, INSTRUCTION_MASK, POP, PUSH, Plan};
use crate::run::store::Store;
use crate::run::view::{EntryRef, MAX_DEPTH, Stack};

/// Steps per look at the counter. If it turns out to overflow within them, they are run again
/// one by one.
const BATCH: usize = 16;
/// Steps after which the packed sums are folded into wide ones: at 65,535 instructions a step
/// they cannot overflow their fields.
const SEGMENT: usize = 8192;
/// References kept, a power of two well above the depth plus a batch.
const RING: usize = 1024;
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

/// When samples are taken: the counter's period and its state at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Events from sample to sample, at least 1.
    pub period: u64,
    /// Events to the first sample, at least 1.
    pub first: u64,
}

/// Where and when a sample fell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The step in which the counter overflowed.
    pub step: StepId,
    /// Instructions of it that had retired.
    pub retired: u16,
    /// Whether its exit belongs to what had happened: if so the next instruction is the exit's
    /// target, else the instruction with index `retired`.
    pub after_exit: bool,
    /// Instructions retired since the start of the run.
    pub instructions: u64,
    /// Pushes minus pops since the start of the run.
    pub net: i64,
}

/// Samples of a run with the LBR entries of each, youngest first.
#[derive(Clone, Debug)]
pub struct Samples {
    points: Vec<Sample>,
    entries: Vec<EntryRef>,
    depth: usize,
    limit: usize,
}

impl Default for Samples {
    fn default() -> Self {
        Self::with_limit(usize::MAX)
    }
}

impl Samples {
    /// No samples yet. A run stops behind the step with which there are `limit` or more: one step
    /// may give several, at most as many as it has instructions.
    #[must_use]
    pub const fn with_limit(limit: usize) -> Self {
        Self {
            points: Vec::new(),
            entries: Vec::new(),
            depth: 0,
            limit,
        }
    }

    /// Whether a run stops here.
    pub(crate) fn is_full(&self) -> bool {
        self.points.len() >= self.limit
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// Each sample with its entries.
    pub fn iter(&self) -> impl Iterator<Item = (&Sample, &[EntryRef])> {
        self.points
            .iter()
            .zip(self.entries.chunks(self.depth.max(1)))
    }

    /// Adds a sample with its entries, as many as [`Samples::set_depth`] said.
    pub(crate) fn push(&mut self, sample: Sample, entries: &[EntryRef]) {
        self.points.push(sample);
        self.entries.extend_from_slice(entries);
    }

    pub(crate) fn set_depth(&mut self, depth: u8) {
        self.depth = usize::from(depth);
    }

    /// Forgets all samples, keeping the memory.
    pub fn clear(&mut self) {
        self.points.clear();
        self.entries.clear();
    }
}

/// What a run added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunTotals {
    /// Steps run: fewer than there were if [`Samples::with_limit`] stopped the run.
    pub steps: usize,
    /// Instructions retired.
    pub instructions: u64,
    /// Events counted.
    pub events: u64,
    /// Records pushed.
    pub pushes: u64,
    /// Records popped.
    pub pops: u64,
}

/// Reusable state of the loop for one worker.
#[derive(Debug)]
pub struct Lane {
    table: Box<[u64; TABLE]>,
    wide: Vec<u64>,
    ring: Box<[u32; RING]>,
    /// Call-stack mode: the stack as a ring of references.
    stack: [EntryRef; MAX_DEPTH],
}

/// The moving part of a run.
struct Cursor {
    /// Records written to the ring: in normal mode all pushes, in call-stack mode pushes and pops
    /// that wait to be applied.
    head: usize,
    /// Call-stack mode: operations applied so far.
    applied: usize,
    top: usize,
    totals: RunTotals,
    /// Events (of this run) at which the next sample is due.
    due: u64,
    period: u64,
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
        let mut fold = |sum: u64| {
            totals.instructions += sum & INSTRUCTION_MASK;
            totals.events += sum >> EVENT_SHIFT & EVENT_MASK;
        };
        match ids {
            StepIds::U16(ids) => {
                check_ids(ids, map.len())?;
                for segment in ids.chunks(SEGMENT) {
                    fold(segment.iter().fold(0_u64, |sum, &id| {
                        sum.wrapping_add(self.table[usize::from(id)])
                    }));
                }
            }
            StepIds::U32(ids) => {
                check_ids(ids, map.len())?;
                for segment in ids.chunks(SEGMENT) {
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
    ) -> Result<(RunTotals, Stack), RunError> {
        self.load(plan, map)?;
        samples.depth = usize::from(plan.depth());
        let mut cursor = Cursor {
            head: 0,
            applied: 0,
            top: 0,
            totals: RunTotals::default(),
            due: schedule.map_or(u64::MAX, |s| s.first.max(1)),
            period: schedule.map_or(u64::MAX, |s| s.period.max(1)),
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
        let end = Stack::from_entries(&entries[..usize::from(plan.depth())], net(plan, &cursor));
        Ok((cursor.totals, end))
    }

    /// Fills the table of local ids.
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
        Ok(())
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
        for segment in ids.chunks(SEGMENT) {
            if plan.pops() {
                self.segment::<I, S, true>(plan, map, segment, cursor, store, samples);
            } else {
                self.segment::<I, S, false>(plan, map, segment, cursor, store, samples);
            }
            if samples.is_full() {
                break;
            }
        }
    }

    fn segment<I: LocalId, S: Store, const POPS: bool>(
        &mut self,
        plan: &Plan,
        map: &[StepId],
        segment: &[I],
        cursor: &mut Cursor,
        store: &mut S,
        samples: &mut Samples,
    ) {
        let mut sum = 0_u64;
        // Events of earlier segments are in the totals; the packed sum counts from there.
        let mut due = cursor.due.saturating_sub(cursor.totals.events);
        let mut steps = segment.len();
        'steps: for (number, batch) in segment.chunks(BATCH).enumerate() {
            let (sum_before, head_before) = (sum, cursor.head);
            let mut head = cursor.head;
            for &id in batch {
                let word = id.word(&self.table, &self.wide);
                self.ring[head % RING] = id.number();
                store.put(head, id.number() as usize);
                head += if POPS {
                    (word >> 62 != 0) as usize
                } else {
                    (word >> 63) as usize
                };
                sum = sum.wrapping_add(word);
            }
            if events(sum) >= due {
                sum = sum_before;
                cursor.head = head_before;
                for (index, &id) in batch.iter().enumerate() {
                    self.single::<I, S, POPS>(plan, map, id, &mut sum, cursor, store, samples);
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
                self.apply(plan, map, cursor);
            }
        }
        cursor.totals.steps += steps;
        cursor.totals.instructions += sum & INSTRUCTION_MASK;
        cursor.totals.events += events(sum);
    }

    /// One step, with the samples that fall into it.
    #[expect(
        clippy::too_many_arguments,
        reason = "the loop's state, split for the borrow checker"
    )]
    fn single<I: LocalId, S: Store, const POPS: bool>(
        &mut self,
        plan: &Plan,
        map: &[StepId],
        id: I,
        sum: &mut u64,
        cursor: &mut Cursor,
        store: &mut S,
        samples: &mut Samples,
    ) {
        let word = id.word(&self.table, &self.wide);
        let step = map[id.number() as usize];
        let counted = cursor.totals.events + events(*sum);
        let after = counted + events(word);
        let retired = (word & INSTRUCTION_MASK) as u16;
        let before_instructions = cursor.totals.instructions + (*sum & INSTRUCTION_MASK);
        let before_exit = plan.exits_by_event(step);
        let sample = |lane: &mut Self, cursor: &mut Cursor, samples: &mut Samples, done: u16| {
            let whole = done == retired;
            if POPS {
                lane.apply(plan, map, cursor);
            }
            let entries = lane.view(plan, map, cursor);
            samples
                .entries
                .extend_from_slice(&entries[..usize::from(plan.depth())]);
            samples.points.push(Sample {
                step,
                retired: done,
                after_exit: whole && !before_exit,
                instructions: before_instructions + u64::from(done),
                net: net(plan, cursor),
            });
            cursor.due = cursor.due.saturating_add(cursor.period);
        };
        // The overflow falls after this many instructions of the step.
        let position = |due: u64| {
            if plan.counts_instructions() {
                (due - counted) as u16
            } else {
                retired
            }
        };
        while cursor.due <= after && (position(cursor.due) < retired || before_exit) {
            let done = position(cursor.due);
            sample(self, cursor, samples, done);
        }
        self.ring[cursor.head % RING] = id.number();
        store.put(cursor.head, id.number() as usize);
        cursor.head += usize::from(word & if POPS { PUSH | POP } else { PUSH } != 0);
        *sum = sum.wrapping_add(word);
        while cursor.due <= after {
            sample(self, cursor, samples, retired);
        }
    }

    /// Call-stack mode: applies the pushes and pops that wait in the ring.
    fn apply(&mut self, plan: &Plan, map: &[StepId], cursor: &mut Cursor) {
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
    fn view(&self, plan: &Plan, map: &[StepId], cursor: &Cursor) -> [EntryRef; MAX_DEPTH] {
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

fn events(sum: u64) -> u64 {
    sum >> EVENT_SHIFT & EVENT_MASK
}

/// Pushes minus pops. In normal mode the head counts the pushes; in call-stack mode the waiting
/// operations must have been applied.
fn net(plan: &Plan, cursor: &Cursor) -> i64 {
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
