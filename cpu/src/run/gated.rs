//! The loop's slow sibling, for steps that change what the LBR records: `#DB` clears the enable,
//! SMI and RSM save and restore it. One step at a time, on a known stack.

use crate::code::{Code, StepId};
use crate::run::lane::StepIds;
use crate::run::pace::Pace;
use crate::run::plan::{Op, Plan};
use crate::run::sample::{RunEnd, RunTotals, Sample, Samples, Schedule};
use crate::run::times::RecordTimes;
use crate::run::view::{EntryRef, Stack};

/// What a step's transfer does to the stack now, and what a sample does to the registers.
pub trait Gate {
    /// The transfer of `step` retires; `planned` is what it does while the registers are as
    /// planned.
    fn retire(&mut self, step: StepId, planned: Op) -> Op;

    /// A sample was taken: its handler may enable the LBR again.
    fn sampled(&mut self);
}

/// Runs the steps `ids` (local ids into `map`, in range) from `stack`. As
/// [`crate::run::Lane::run`], but with no symbolic references other than those in `stack`. Stops
/// early as that does if `samples` has a limit.
#[expect(
    clippy::too_many_arguments,
    reason = "the same inputs as the hot loop, plus the gate"
)]
pub fn run_gated(
    plan: &Plan,
    code: &Code,
    map: &[StepId],
    ids: StepIds<'_>,
    schedule: Option<Schedule>,
    stack: &Stack,
    gate: &mut dyn Gate,
    samples: &mut Samples,
) -> RunEnd {
    let mut stack = Stack::from_entries(stack.entries(), 0);
    let mut totals = RunTotals::default();
    let mut due = schedule.map_or(u64::MAX, |schedule| schedule.first.max(1));
    let mut pace = schedule.map_or(Pace::Period(u64::MAX), |schedule| schedule.pace);
    let columns = plan.columns();
    samples.set_shape(plan.depth(), columns.len());
    for position in 0..ids.len() {
        let step = map[ids.local(position)];
        let retired = code.step(step).retired;
        let before = totals;
        let after = totals.events + u64::from(plan.events(step));
        let before_exit = plan.before_exit(step);
        let position_of = |due: u64| plan.position(step, due - before.events, retired);
        let mut take =
            |stack: &Stack, gate: &mut dyn Gate, due: &mut u64, done: u16, after_exit: bool| {
                let instructions = before.instructions + u64::from(done);
                let period = pace.period();
                pace.sampled(pace.start().saturating_add(instructions));
                let next_period = pace.period();
                let point = Sample {
                    step,
                    retired: done,
                    after_exit,
                    instructions,
                    events: *due,
                    period,
                    next_period,
                    net: stack.net(),
                };
                samples.push(point, stack.entries(), &before.counts[..columns.len()]);
                *due = due.saturating_add(next_period.max(1));
                gate.sampled();
            };
        while due <= after && (position_of(due) < retired || before_exit) {
            let done = position_of(due);
            take(&stack, gate, &mut due, done, false);
        }
        if code.transfer(step).is_some() {
            match gate.retire(step, plan.op(step)) {
                Op::Push => {
                    stack.push(EntryRef::step(step));
                    totals.pushes += 1;
                }
                Op::Pop => {
                    stack.pop();
                    totals.pops += 1;
                }
                Op::Ignore => {}
            }
        }
        while due <= after {
            take(&stack, gate, &mut due, retired, true);
        }
        totals.steps += 1;
        totals.events = after;
        totals.instructions += u64::from(retired);
        columns.add(plan.word(step), columns.words(step), &mut totals.counts);
        if samples.is_full() {
            break;
        }
    }
    RunEnd {
        totals,
        stack,
        times: RecordTimes::default(),
        schedule: schedule.map(|_| Schedule {
            first: due.saturating_sub(totals.events),
            pace,
        }),
    }
}
