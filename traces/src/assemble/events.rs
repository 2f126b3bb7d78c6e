//! Events, kernel entries and the returns that place them.

use std::sync::Arc;

use vlbr_arch::{BranchClass, FarKind};
use vlbr_cpu::{Block, Mode, Step, StepId, Target};

use super::emit::{event, locate, taken, target_of};
use super::lanes::HOLE;
use super::mode::{Entry, Kind, SMI_HANDLERS};
use super::pending::{OpenEvent, Taken, kind_of};
use super::raw::RawBlock;
use super::stream::{AssembleError, Assembler};
use super::transition::{Decoded, Struck, late, struck};

impl Assembler {
    /// A branch into the unrecorded kernel, which returns to `next`.
    pub(super) fn kernel_call(
        &mut self,
        previous: &Arc<Decoded>,
        next: &Arc<Decoded>,
    ) -> Result<(), AssembleError> {
        self.stats.kernel_entries += 1;
        let n = previous.block.instructions();
        let kernel = self.kernel()?;
        self.emit(previous, n, taken(target_of(&kernel)))?;
        let in_a_row = next.start() == previous.end();
        let back = match previous.class() {
            Some(BranchClass::Far(FarKind::Syscall)) if in_a_row => FarKind::Sysret,
            _ => FarKind::Iret,
        };
        if previous.is_sigreturn() && !self.handlers.contains_key(&next.start()) {
            self.resolve(next);
        } else if !in_a_row && next.start() != previous.last() {
            // A signal was delivered on the way back, and its return leads behind the system call,
            // or to it if it is to be restarted. Or the call never happened: an instruction before
            // it faulted.
            self.learn(next.start(), false);
            let slot = self.steps.len() - 1;
            self.remember_event(previous, (slot, None), next, n, true);
            self.steps.push(StepId(HOLE));
        }
        self.emit(&kernel, 0, event(back, target_of(next)))?;
        Ok(())
    }

    /// Writes the steps of an event between `previous` and the handler `next`, as they are until a
    /// return says better.
    pub(super) fn open_event(
        &mut self,
        previous: &Arc<Decoded>,
        place: Struck,
        next: &Arc<Decoded>,
        doubtful: bool,
    ) -> Result<(), AssembleError> {
        let slot = self.steps.len();
        let target = target_of(next);
        let retired = if doubtful {
            let n = previous.block.instructions();
            self.emit(previous, n, taken(target))?;
            self.steps.push(StepId(HOLE));
            n
        } else {
            let known = self.handlers.get(&next.start()).copied().unwrap_or(false);
            let kind = if SMI_HANDLERS.contains(&next.start()) {
                FarKind::Smi
            } else if known {
                FarKind::Exception
            } else {
                FarKind::Interrupt
            };
            let into = self.event_target(target)?;
            let (steps, retired) = self.event_steps(previous, place, None, kind, into)?;
            self.steps.extend(steps);
            self.retired += u64::from(retired);
            retired
        };
        if matches!(self.kind, Kind::User { .. }) {
            if doubtful {
                self.steps.push(StepId(HOLE));
            } else {
                let kernel = self.kernel()?;
                self.emit(&kernel, 0, event(FarKind::Iret, target))?;
            }
        }
        let fallback = (!doubtful).then_some(place);
        self.remember_event(previous, (slot, fallback), next, retired, doubtful);
        Ok(())
    }

    pub(super) fn remember_event(
        &mut self,
        previous: &Arc<Decoded>,
        (slot, fallback): (usize, Option<Struck>),
        handler: &Arc<Decoded>,
        retired: u16,
        doubtful: bool,
    ) {
        let lost = self.events.push(OpenEvent {
            previous: Arc::clone(previous),
            slot: Some(slot),
            fallback,
            resume: None,
            handler: handler.start(),
            target: target_of(handler),
            retired,
            doubtful,
        });
        if lost.is_some_and(|event| event.slot.is_some() && !event.doubtful) {
            self.stats.unpaired_events += 1;
        }
    }

    /// A return to linear address `resume` is to come, from something that left `previous` and is
    /// in the trace already.
    pub(super) fn expect_return(
        &mut self,
        previous: &Arc<Decoded>,
        handler: &Decoded,
        resume: u64,
    ) {
        let lost = self.events.push(OpenEvent {
            previous: Arc::clone(previous),
            slot: None,
            fallback: None,
            resume: Some(resume),
            handler: handler.start(),
            target: target_of(handler),
            retired: 0,
            doubtful: false,
        });
        if lost.is_some_and(|event| event.slot.is_some() && !event.doubtful) {
            self.stats.unpaired_events += 1;
        }
    }

    /// An IRET or `rt_sigreturn` goes to `next`: places the event it returns from.
    pub(super) fn resolve(&mut self, next: &Arc<Decoded>) {
        let resume = next.start();
        let Some(found) = self.events.take(self.kind, &self.handlers, resume) else {
            self.stats.unpaired_returns += 1;
            return;
        };
        // A return that was itself interrupted at its target leads where the return from that
        // interrupt leads. Either of the two events may be the one that the address shows.
        let mut downwards = true;
        let mut work = Some(found);
        while let Some(Taken {
            number,
            event,
            place,
        }) = work.take()
        {
            // What cannot be placed stays where the fallback put it.
            if self.place(&event, place, next).is_err() && event.slot.is_some() && !event.doubtful {
                self.stats.unpaired_events += 1;
            }
            downwards &= event.behind_return() && matches!(place, Struck::At(_));
            work = if downwards {
                self.events.take(self.kind, &self.handlers, resume)
            } else {
                self.events.take_behind_return_of(number, resume)
            };
        }
    }

    /// Rewrites the steps of `open`, which turned out to have struck at `place`.
    pub(super) fn place(
        &mut self,
        open: &OpenEvent,
        place: Struck,
        resumed: &Decoded,
    ) -> Result<(), AssembleError> {
        let Some(slot) = open.slot else {
            if let Some(fallback) = open.fallback {
                self.stats.late += late(&open.previous, fallback, place);
            }
            return Ok(());
        };
        if open.previous.enters_kernel(self.kind) && place_is_behind(&open.previous, place) {
            return Ok(());
        }
        let known = self.handlers.get(&open.handler).copied().unwrap_or(false);
        let (mut kind, mut proven) = kind_of(&open.previous, place, known);
        if SMI_HANDLERS.contains(&open.handler) {
            (kind, proven) = (FarKind::Smi, false);
        }
        let into = self.event_target(open.target)?;
        let (steps, retired) = self.event_steps(
            &open.previous,
            place,
            Some(resumed.block.mode()),
            kind,
            into,
        )?;
        self.steps[slot..slot + 2].copy_from_slice(&steps);
        if open.previous.enters_kernel(self.kind) {
            // It faulted before it came to its system call.
            self.stats.kernel_entries -= 1;
        }
        if open.doubtful {
            let kernel = self.kernel()?;
            let back = self.intern(Step {
                block: kernel.id,
                retired: 0,
                exit: event(FarKind::Iret, open.target),
            })?;
            self.steps[slot + 2] = back;
            self.stats.events += 1;
        }
        self.retired = self.retired - u64::from(open.retired) + u64::from(retired);
        self.stats.paired += 1;
        if proven {
            self.learn(open.handler, true);
        }
        Ok(())
    }

    /// Where an event goes to whose handler is `handler`: there, or into the unrecorded kernel.
    pub(super) fn event_target(&mut self, handler: Target) -> Result<Target, AssembleError> {
        match self.kind {
            Kind::System => Ok(handler),
            Kind::User { .. } => Ok(target_of(&*self.kernel()?)),
        }
    }

    /// The two steps of an event, and how many instructions they retire. `mode` is that of the
    /// place where it struck behind a branch, if known.
    pub(super) fn event_steps(
        &mut self,
        previous: &Decoded,
        place: Struck,
        mode: Option<Mode>,
        kind: FarKind,
        into: Target,
    ) -> Result<([StepId; 2], u16), AssembleError> {
        let n = previous.block.instructions();
        match place {
            Struck::After(retired) => {
                let step = self.intern(Step {
                    block: previous.id,
                    retired,
                    exit: event(kind, into),
                })?;
                Ok(([step, StepId(HOLE)], retired))
            }
            Struck::At(linear) => {
                let mode = mode.unwrap_or(previous.block.mode());
                let (address, mode) = locate(mode, linear, previous.guessed_segment);
                let between = self.add_block(Block::empty(address, mode), false)?;
                let branch = self.intern(Step {
                    block: previous.id,
                    retired: n,
                    exit: taken(target_of(&between)),
                })?;
                let struck = self.intern(Step {
                    block: between.id,
                    retired: 0,
                    exit: event(kind, into),
                })?;
                Ok(([branch, struck], n))
            }
        }
    }

    pub(super) fn push_forced(
        &mut self,
        previous: &Arc<Decoded>,
        kind: FarKind,
        from: u64,
        id: u32,
        raw: &RawBlock<'_>,
    ) -> Result<(), AssembleError> {
        let Some(next) = self.open_block(id, raw, Entry::Far)? else {
            return self.emit_gap(previous);
        };
        let n = previous.block.instructions();
        let class = previous.class();
        let at_end = from == previous.last() || from == previous.end();
        if let Some(BranchClass::Far(far)) = class
            && at_end
        {
            let software = far == FarKind::SoftwareInterrupt;
            match self.kind {
                // The kernel delivers a signal on its way back from the system call.
                Kind::User { .. } if previous.enters_kernel(self.kind) => {
                    return self.kernel_call(previous, &next);
                }
                // The event is the instruction's own.
                Kind::System if software => {
                    self.expect_return(previous, &next, previous.end());
                    self.emit(previous, n, taken(target_of(&next)))?;
                    return Ok(());
                }
                _ => {}
            }
        }
        self.stats.events += 1;
        self.stats.paired += 1;
        let target = target_of(&next);
        let into = self.event_target(target)?;
        match struck(self.kind, previous, from, kind != FarKind::Interrupt) {
            Some((place, _)) => {
                let (steps, retired) = self.event_steps(previous, place, None, kind, into)?;
                self.steps.extend(steps);
                self.retired += u64::from(retired);
            }
            None => {
                self.emit_gap(previous)?;
                self.emit_event_at(previous.block.mode(), from, kind, into)?;
            }
        }
        if matches!(self.kind, Kind::User { .. }) {
            let kernel = self.kernel()?;
            self.emit(&kernel, 0, event(FarKind::Iret, target))?;
        }
        self.expect_return(previous, &next, from);
        Ok(())
    }

    pub(super) fn emit_event_at(
        &mut self,
        mode: Mode,
        from: u64,
        kind: FarKind,
        into: Target,
    ) -> Result<(), AssembleError> {
        let (address, mode) = locate(mode, from, false);
        let place = self.add_block(Block::empty(address, mode), false)?;
        self.emit(&place, 0, event(kind, into))?;
        Ok(())
    }

    /// Notes that events go to `handler`. Ways on that were cached before may be wrong from now on.
    pub(super) fn learn(&mut self, handler: u64, exception: bool) {
        let known = self.handlers.insert(handler, exception);
        match known {
            None => self.lanes.forget_ways(),
            Some(true) => {
                self.handlers.insert(handler, true);
            }
            Some(false) => {}
        }
    }
}

/// Whether a signal struck in the system call at the end of `previous`, not before it.
fn place_is_behind(previous: &Decoded, place: Struck) -> bool {
    match place {
        Struck::At(_) => true,
        Struck::After(retired) => retired + 1 >= previous.block.instructions(),
    }
}
