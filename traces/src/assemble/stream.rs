//! The assembler of one stream.

use std::sync::{Arc, RwLock};

use thiserror::Error;
use vlbr_arch::{BranchClass, CodeSize, Cpl, FarKind};
use vlbr_cpu::{CodeError, Exit, Interner, Mode, StepId};

use super::emit::{event, taken, target_of};
use super::lanes::{HOLE, Lanes, NONE, way};
use super::mode::{Entry, Kind, SMI_HANDLERS, State, decode, is_high};
use super::pending::OpenEvents;
use super::raw::{RawBlock, RawBlocks};
use super::stats::AssembleStats;
use super::transition::{
    Decoded, Handlers, Struck, Transition, can_fault, classify, fallback, fits,
};

/// More instructions than any step retires.
const LONGEST_STEP: u64 = 4096;

/// Why blocks do not assemble.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AssembleError {
    /// A block was executed that the recorder never described.
    #[error("block {id} was executed but never described")]
    UnknownBlock {
        /// Its id.
        id: u32,
    },
    /// The code table refuses a block or step.
    #[error(transparent)]
    Code(#[from] CodeError),
}

/// An event between the open block and the next one, of which the recorder knows.
#[derive(Clone, Copy, Debug)]
struct Forced {
    kind: FarKind,
    /// Interrupted or faulting instruction, linear.
    from: u64,
    /// The engine says so; else it is to be checked.
    certain: bool,
}

/// A sealed chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assembled {
    /// Its steps.
    pub steps: Vec<StepId>,
    /// Instructions they retire.
    pub retired: u64,
    /// Former indices of unused places that were taken out, ascending: what was noted at
    /// [`Assembler::position`] `p` lies at `p` less the number of these below `p`.
    pub removed: Vec<usize>,
}

/// Turns the executed raw blocks of one stream into steps. See the [module](super) for the rules.
#[derive(Debug)]
pub struct Assembler {
    pub(super) kind: Kind,
    pub(super) interner: Arc<RwLock<Interner>>,
    limit: u64,
    /// Blocks retire as a whole.
    exact: bool,
    pub(super) lanes: Lanes,
    /// Index of the current state's lane.
    pub(super) lane: usize,
    /// Raw id of the open block for the fast path; [`NONE`] if it must not take it.
    hot: u32,
    /// Raw id of the open block.
    open_id: u32,
    /// The open block; not up to date while `hot` says which it is.
    open: Option<Arc<Decoded>>,
    /// Address space of user code from here on.
    pub(super) space: u32,
    forced: Option<Forced>,
    pub(super) events: OpenEvents,
    pub(super) handlers: Handlers,
    pub(super) steps: Vec<StepId>,
    pub(super) retired: u64,
    pub(super) kernel: Option<Arc<Decoded>>,
    seen_user: bool,
    /// Code size, and privilege level if it is known, of the block that is opened next.
    hint: Option<(CodeSize, Option<Cpl>)>,
    /// What system-management mode interrupted.
    interrupted_by_smi: Option<(CodeSize, Option<Cpl>)>,
    pub(super) stats: AssembleStats,
}

impl Assembler {
    /// An assembler whose chunks hold at most `limit` instructions (at least 8192).
    #[must_use]
    pub fn new(kind: Kind, interner: Arc<RwLock<Interner>>, limit: u64) -> Self {
        let space = match kind {
            Kind::User { space } => space,
            Kind::System => 0,
        };
        Self {
            kind,
            interner,
            limit: limit.max(2 * LONGEST_STEP),
            exact: false,
            lanes: Lanes::default(),
            lane: 0,
            hot: NONE,
            open_id: NONE,
            open: None,
            space,
            forced: None,
            events: OpenEvents::default(),
            handlers: Handlers::default(),
            steps: Vec::new(),
            retired: 0,
            kernel: None,
            seen_user: false,
            hint: None,
            interrupted_by_smi: None,
            stats: AssembleStats::default(),
        }
    }

    /// For a recorder whose blocks hold what retired: none is cut short by a store into its page.
    #[must_use]
    pub fn exact(mut self) -> Self {
        self.exact = true;
        self
    }

    /// Takes executed blocks. The result is how many of `ids` were taken: fewer than all if the
    /// chunk is full, which [`Assembler::seal`] then takes out.
    ///
    /// # Errors
    /// An unknown block, a full code table.
    pub fn push(&mut self, blocks: &impl RawBlocks, ids: &[u32]) -> Result<usize, AssembleError> {
        let stop = self.limit - LONGEST_STEP;
        let mut taken = 0;
        while taken < ids.len() {
            if self.retired > stop || self.steps.len() as u64 >= self.limit {
                break;
            }
            taken += self.push_known(&ids[taken..], stop);
            if self.retired > stop {
                break;
            }
            if let Some(&next) = ids.get(taken) {
                self.push_slowly(blocks, next)?;
                taken += 1;
            }
        }
        self.stats.blocks += taken as u64;
        Ok(taken)
    }

    /// Takes blocks as long as the way from each to the next has been seen before.
    fn push_known(&mut self, ids: &[u32], stop: u64) -> usize {
        let Some(lane) = self.lanes.get(self.lane) else {
            return 0;
        };
        let nodes = &lane.nodes[..];
        let mut hot = self.hot;
        let mut retired = self.retired;
        let mut repeats = 0;
        let mut taken = 0;
        for &next in ids {
            let Some(node) = nodes.get(hot as usize) else {
                break;
            };
            let choice = if node.next[0] == next {
                0
            } else if node.next[1] == next {
                1
            } else {
                break;
            };
            taken += 1;
            let step = node.step[choice];
            if step == HOLE {
                repeats += 1;
                continue;
            }
            self.steps.push(StepId(step));
            retired += u64::from(node.retired[choice]);
            hot = next;
            if retired > stop {
                break;
            }
        }
        self.stats.rep_repeats += repeats;
        self.retired = retired;
        self.hot = hot;
        taken
    }

    fn push_slowly(&mut self, blocks: &impl RawBlocks, id: u32) -> Result<(), AssembleError> {
        if self.hot != NONE
            && let Some(lane) = self.lanes.get(self.lane)
            && let Some(&(step, retired)) = lane.more.get(&way(self.hot, id))
        {
            if step == HOLE {
                self.stats.rep_repeats += 1;
            } else {
                self.steps.push(StepId(step));
                self.retired += u64::from(retired);
                self.hot = id;
            }
            return Ok(());
        }
        self.catch_up();
        let raw = blocks.raw(id).ok_or(AssembleError::UnknownBlock { id })?;
        let Some(previous) = self.open.clone() else {
            return self.begin(id, &raw);
        };
        if let Some(forced) = self.forced.take()
            && (forced.certain || fits(&previous, forced.kind, forced.from))
        {
            return self.push_forced(&previous, forced.kind, forced.from, id, &raw);
        }
        let transition = classify(self.kind, self.exact, &self.handlers, &previous, &raw);
        let entry = match transition {
            Transition::Sequential(_) | Transition::MaybeEvent => Entry::Near,
            Transition::Taken(entry) => entry,
            Transition::Kernel | Transition::Event => Entry::Far,
            Transition::Repeat => {
                self.stats.rep_repeats += 1;
                self.remember((self.open_id, self.lane), id, StepId(HOLE), 0);
                return Ok(());
            }
            Transition::Restart => {
                self.stats.restarted += 1;
                return self.open_block(id, &raw, Entry::Near).map(|_| ());
            }
        };
        self.hint = self.mode_hint(&previous, transition, raw.start);
        let from = (self.open_id, self.lane);
        let Some(next) = self.open_block(id, &raw, entry)? else {
            return self.emit_gap(&previous);
        };
        self.leave(from, &previous, transition, id, &next)
    }

    /// Brings `open` up to the block the fast path has reached.
    fn catch_up(&mut self) {
        if self.hot != NONE && self.hot != self.open_id {
            let lane = self.lanes.get(self.lane);
            self.open = lane.and_then(|lane| lane.decoded.get(&self.hot).cloned());
            self.open_id = self.hot;
        }
    }

    /// Lets the fast path take the way from block `from` of a lane to the open block `id` from now
    /// on, if both are in one lane.
    fn remember(&mut self, (from, lane): (u32, usize), id: u32, step: StepId, retired: u16) {
        if lane == self.lane
            && let Some(lane) = self.lanes.get_mut(lane)
        {
            lane.remember(from, id, step.0, retired);
        }
    }

    /// What else is known of the mode of the block at `to`.
    fn mode_hint(
        &mut self,
        previous: &Decoded,
        transition: Transition,
        to: u64,
    ) -> Option<(CodeSize, Option<Cpl>)> {
        if self.kind != Kind::System {
            return None;
        }
        let mode = previous.block.mode();
        match transition {
            Transition::Event if SMI_HANDLERS.contains(&to) => {
                self.interrupted_by_smi = Some((mode.code_size, Some(mode.cpl)));
                Some((CodeSize::Bits16, Some(Cpl::Ring0)))
            }
            Transition::Taken(_) if previous.class() == Some(BranchClass::Far(FarKind::Rsm)) => {
                self.interrupted_by_smi.take()
            }
            Transition::Taken(_) => previous.far_target_size().map(|size| (size, None)),
            _ => None,
        }
    }

    /// Emits what lies between `previous` and the block `next` that was just opened.
    fn leave(
        &mut self,
        from: (u32, usize),
        previous: &Arc<Decoded>,
        transition: Transition,
        id: u32,
        next: &Arc<Decoded>,
    ) -> Result<(), AssembleError> {
        let n = previous.block.instructions();
        let target = target_of(next);
        match transition {
            Transition::Sequential(retired) => {
                let step = self.emit(previous, retired, Exit::Sequential)?;
                if retired < n {
                    self.stats.cut_blocks += 1;
                } else if let Some(step) = step {
                    self.remember(from, id, step, retired);
                }
            }
            Transition::Taken(entry) => {
                match previous.class() {
                    Some(BranchClass::Far(FarKind::Rsm)) => self.resolve(next),
                    Some(BranchClass::Far(FarKind::Iret)) if previous.returns() => {
                        self.resolve(next);
                    }
                    Some(BranchClass::Far(FarKind::SoftwareInterrupt)) => {
                        self.expect_return(previous, next, previous.end());
                    }
                    _ => {}
                }
                if let Some(step) = self.emit(previous, n, taken(target))?
                    && entry == Entry::Near
                {
                    self.remember(from, id, step, n);
                }
            }
            Transition::Kernel => self.kernel_call(previous, next)?,
            Transition::Event => {
                self.learn(next.start(), false);
                let known = self.handlers.get(&next.start()).copied().unwrap_or(false);
                // A signal that never returns is most often a fault of the program.
                let fault = self.kind != Kind::System
                    && previous.class().is_some()
                    && can_fault(&previous.block);
                let place = fallback(previous, known || fault);
                self.stats.events += 1;
                self.open_event(previous, place, next, false)?;
            }
            Transition::MaybeEvent => {
                self.open_event(previous, Struck::At(next.start()), next, true)?;
            }
            Transition::Repeat | Transition::Restart => {}
        }
        Ok(())
    }

    /// Says that an event struck behind or inside the last block, before the instruction at linear
    /// address `from`. For recorders that see events.
    pub fn event(&mut self, kind: FarKind, from: u64) {
        self.force(kind, from, true);
    }

    /// Says that the next block is the beginning of a handler, with `from` on its stack as the place
    /// to return to. If an event cannot have struck there, control came to the handler otherwise.
    pub fn likely_event(&mut self, kind: FarKind, from: u64) {
        self.force(kind, from, false);
    }

    fn force(&mut self, kind: FarKind, from: u64, certain: bool) {
        self.catch_up();
        self.forced = Some(Forced {
            kind,
            from,
            certain,
        });
        self.hot = NONE;
    }

    /// User code runs in address space `space` from here on (a load of CR3).
    pub fn address_space(&mut self, space: u32) {
        self.space = space;
    }

    /// The recorder lost data here.
    ///
    /// # Errors
    /// A full code table.
    pub fn gap(&mut self) -> Result<(), AssembleError> {
        self.catch_up();
        if let Some(previous) = self.open.take() {
            self.emit_gap(&previous)?;
        }
        (self.hot, self.open_id, self.forced) = (NONE, NONE, None);
        Ok(())
    }

    /// The stream is over: closes the last block. How it was left is known only of a system call.
    ///
    /// # Errors
    /// A full code table.
    pub fn finish(&mut self) -> Result<(), AssembleError> {
        self.catch_up();
        let Some(previous) = self.open.take() else {
            return Ok(());
        };
        (self.hot, self.open_id, self.forced) = (NONE, NONE, None);
        let n = previous.block.instructions();
        let leaves = matches!(self.kind, Kind::User { .. })
            && matches!(
                previous.class(),
                Some(BranchClass::Far(
                    FarKind::Syscall | FarKind::Sysenter | FarKind::SoftwareInterrupt
                ))
            );
        if leaves {
            self.stats.kernel_entries += 1;
            let kernel = self.kernel()?;
            self.emit(&previous, n, taken(target_of(&kernel)))?;
        } else {
            self.emit(&previous, n, Exit::Gap)?;
        }
        Ok(())
    }

    /// Takes out the chunk under construction. The open block stays for the next one; open events
    /// keep the place the fallback gave them.
    pub fn seal(&mut self) -> Assembled {
        self.stats.unpaired_events += self.events.settle();
        let mut steps = std::mem::take(&mut self.steps);
        let hole = StepId(HOLE);
        let removed: Vec<usize> = steps
            .iter()
            .enumerate()
            .filter_map(|(index, &step)| (step == hole).then_some(index))
            .collect();
        if !removed.is_empty() {
            steps.retain(|&step| step != hole);
        }
        let retired = std::mem::take(&mut self.retired);
        self.stats.retired += retired;
        Assembled {
            steps,
            retired,
            removed,
        }
    }

    /// Id of the open block, the last one that was no repeat, and its number of instructions.
    pub fn open(&mut self) -> Option<(u32, u16)> {
        self.catch_up();
        let open = self.open.as_ref()?;
        Some((self.open_id, open.block.instructions()))
    }

    /// Number of steps in the chunk under construction, the open block not among them.
    #[must_use]
    pub fn position(&self) -> usize {
        self.steps.len()
    }

    /// Instructions retired so far, the chunk under construction included.
    #[must_use]
    pub fn retired(&self) -> u64 {
        self.stats.retired + self.retired
    }

    /// What was met so far; [`AssembleStats::retired`] covers sealed chunks.
    #[must_use]
    pub fn stats(&self) -> AssembleStats {
        self.stats
    }

    fn begin(&mut self, id: u32, raw: &RawBlock<'_>) -> Result<(), AssembleError> {
        let forced = self.forced.take();
        let Some(next) = self.open_block(id, raw, Entry::Far)? else {
            return Ok(());
        };
        if let (Some(Forced { kind, from, .. }), Kind::User { space }) = (forced, self.kind) {
            let target = target_of(&next);
            let into = self.event_target(target)?;
            self.emit_event_at(Mode::user64(space), from, kind, into)?;
            let kernel = self.kernel()?;
            self.emit(&kernel, 0, event(FarKind::Iret, target))?;
        }
        Ok(())
    }

    /// Makes `id` the open block; `None` (and no open block) if its bytes make none.
    pub(super) fn open_block(
        &mut self,
        id: u32,
        raw: &RawBlock<'_>,
        entry: Entry,
    ) -> Result<Option<Arc<Decoded>>, AssembleError> {
        let mut state = match (&self.open, self.lanes.get(self.lane)) {
            (Some(previous), Some(lane)) => {
                lane.state
                    .after(self.kind, entry, previous.start(), raw.start)
            }
            (None, Some(lane)) => self.state_after_gap(lane.state, raw.start),
            _ => State::initial(self.kind, raw.start),
        };
        if let Some((size, cpl)) = self.hint.take()
            && raw.start <= 0xffff_ffff
        {
            state.size = size;
            state.cpl = cpl.unwrap_or(state.cpl);
        }
        state.space = self.space;
        let state = state.with_recorded(raw);
        let lane = self.lanes.of(state);
        let known = self
            .lanes
            .get(lane)
            .and_then(|lane| lane.decoded.get(&id).cloned());
        let decoded = match known {
            Some(decoded) => {
                self.lane = lane;
                Some(decoded)
            }
            None => match decode(raw, state) {
                Ok((block, actual)) => {
                    if actual.size != state.size && entry == Entry::Near {
                        self.stats.size_surprises += 1;
                    }
                    let guessed = raw.mode.is_none_or(|mode| mode.cs_base.is_none())
                        && actual.size == CodeSize::Bits16;
                    let decoded = self.add_block(block, guessed)?;
                    self.lane = self.lanes.of(actual);
                    if let Some(lane) = self.lanes.get_mut(self.lane) {
                        lane.decoded.insert(id, Arc::clone(&decoded));
                    }
                    Some(decoded)
                }
                Err(_) => {
                    self.stats.undecodable += 1;
                    None
                }
            },
        };
        self.seen_user |= decoded
            .as_ref()
            .is_some_and(|d| !d.block.mode().cpl.is_kernel());
        let open_id = if decoded.is_some() { id } else { NONE };
        (self.hot, self.open_id) = (open_id, open_id);
        self.open.clone_from(&decoded);
        Ok(decoded)
    }

    fn state_after_gap(&self, mut state: State, start: u64) -> State {
        if self.kind == Kind::System {
            state.cpl = if self.seen_user && !is_high(start) {
                Cpl::Ring3
            } else {
                Cpl::Ring0
            };
        }
        state
    }
}
