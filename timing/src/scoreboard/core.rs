//! The state of the core between instructions.

mod execute;
mod memory;
mod rename;

use core::ops::Range;
use core::ptr;

use vlbr_cpu::Slots;

use crate::lower::taken_ports;
use crate::microarchitecture::{Microarchitecture, Parameters};
use crate::pipeline::Pipeline;
use crate::scoreboard::calendar::Calendar;
use crate::scoreboard::contents::Contents;
use crate::scoreboard::frontend::FrontEnd;
use crate::scoreboard::inst::{Flags, Inst};
use crate::scoreboard::lane::{LATEST, Lane};
use crate::scoreboard::piece::{Demand, Piece};
use crate::scoreboard::program::Program;

/// Values that are followed: registers, groups of flags, what the current instruction loads and stores. Value 0 is
/// always ready. As many as a byte can name, so that none has to be checked.
const VALUES: usize = 256;
const LOADED: usize = crate::lower::LOADED as usize;
const STORED: usize = crate::lower::STORED as usize;
const STACK: usize = crate::lower::STACK as usize;
/// Micro-operations whose issue and retirement are remembered; no buffer is larger.
pub(super) const RING: usize = 1024;
/// Stores that are remembered.
const STORES: usize = 256;
/// Loads of which it is remembered when they retired.
const LOADS: usize = 256;
/// Stores of an instruction that are followed: PUSHA has eight.
const MOST_STORES: usize = 8;
/// How many entries of each buffer are looked at beyond those that are needed: so many, or if they are not free so many.
const AHEAD: [u32; 2] = [48, 12];
/// No number of micro-operations.
const NEVER: u64 = u64::MAX;

/// How a block was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leave {
    /// On to the next instruction.
    Sequential,
    /// By its branch, which was taken.
    Taken,
    /// By an event that took over after its instructions: an interrupt, a fault, an abort.
    Event,
    /// Nobody knows.
    Gap,
}

/// When the last instruction of a block was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Cycle in which it retired.
    pub retired: u64,
    /// Cycle in which it was executed.
    pub executed: u64,
}

/// How far there is room in the buffers behind the renamer but for the scheduler, by what has been issued, loaded and stored until then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Room {
    issued: u64,
    loads: u64,
    stores: u64,
}

/// One thread on one core. What is needed for each instruction comes first: instructions of the host
/// reach the first 128 bytes by a shorter displacement.
#[derive(Clone, Debug, PartialEq)]
#[repr(C)]
pub struct Scoreboard {
    issue: Lane,
    retire: Lane,
    /// Fused micro-operations issued so far.
    issued: u64,
    issue_ring: Box<[u64; RING]>,
    retire_ring: Box<[u64; RING]>,
    /// The front end was sent elsewhere by a misprediction when so much had been issued.
    recovering: u64,
    /// General-purpose registers whose last writer was a load, one bit each, by their values.
    loaded: u32,
    /// The stack engine holds an offset that RSP does not have yet: [`Flags::READS_RSP`], of what has to wait for it.
    stack_offset: Flags,
    /// Registers of which AH, BH, CH or DH is renamed apart, one bit each.
    high: u16,
    room: Room,
    front: FrontEnd,
    calendar: Calendar,
    /// Retirement of the last taken branch.
    taken: u64,
    /// Stores so far.
    stores: u64,
    committed: Lane,
    /// Loads so far.
    loads: u64,
    /// What serializes has executed.
    serial: u64,
    ports: Ports,
    latencies: Latencies,
    pipeline: Pipeline,
    /// Slots but for those of what was issued.
    slots: Slots,
    ready: [i64; VALUES],
    contents: Contents,
    /// When each of the latest stores had its data, and when it left the store buffer.
    data_ring: [u64; STORES],
    commit_ring: [u64; STORES],
    /// When each of the latest loads retired.
    load_ring: [u64; LOADS],
    parameters: Parameters,
    /// When the instructions of the last piece retired, if it was looked at closely; else the ring knows.
    times: Vec<u64>,
    /// Whether it was.
    by_times: bool,
    /// When the last instruction of the last piece retired.
    end: u64,
    /// Number, in the program, of the instruction that is being looked at closely.
    place: usize,
    /// Place, size and time of the data of stores beyond the first one of an instruction.
    later: [(u64, u8, u64); MOST_STORES],
}

/// Latencies of memory, in whole cycles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Latencies {
    load: u64,
    load_fast: u64,
    forward: u64,
    forward_vector: u64,
    forward_blocked: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ports {
    any: u16,
    /// Of a conditional branch that is taken.
    taken: u16,
    load: u16,
    store_address: u16,
    store_index: u16,
    store_data: u16,
}

impl Scoreboard {
    /// A core on which nothing has run yet.
    #[must_use]
    pub fn new(core: &Microarchitecture) -> Self {
        let pipeline = core.pipeline;
        Self {
            parameters: core.parameters.clone(),
            pipeline,
            ports: Ports {
                any: core.ports.any.bits(),
                taken: taken_ports(core).bits(),
                load: core.ports.load.bits(),
                store_address: core.ports.store_address.bits(),
                store_index: core.ports.store_index.bits(),
                store_data: core.ports.store_data.bits(),
            },
            latencies: {
                let parameters = &core.parameters;
                let forward = parameters.forward as u64;
                Latencies {
                    load: parameters.load as u64,
                    load_fast: parameters.load_fast as u64,
                    forward,
                    forward_vector: forward + u64::from(pipeline.forward_vector),
                    forward_blocked: parameters.forward_blocked as u64,
                }
            },
            ready: [0; VALUES],
            contents: Contents::new(),
            calendar: Calendar::new(pipeline.scheduler),
            front: FrontEnd::new(&pipeline),
            issue: Lane::new(core.parameters.issue),
            retire: Lane::new(pipeline.retire),
            issued: 0,
            issue_ring: Box::new([0; RING]),
            retire_ring: Box::new([0; RING]),
            stores: 0,
            data_ring: [0; STORES],
            commit_ring: [0; STORES],
            committed: Lane::new(core.parameters.commit),
            loads: 0,
            load_ring: [0; LOADS],
            serial: 0,
            taken: 0,
            stack_offset: Flags::default(),
            loaded: 0,
            high: 0,
            recovering: NEVER,
            slots: Slots::default(),
            times: Vec::new(),
            by_times: false,
            end: 0,
            place: 0,
            room: Room::default(),
            later: [(0, 0, 0); MOST_STORES],
        }
    }

    /// Cycle in which the last instruction retired.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.retire.cycle()
    }

    /// Slots of the renamer until now.
    #[must_use]
    pub fn slots(&self) -> Slots {
        let mut slots = self.slots;
        slots.retiring += self.issued;
        let width = u64::from(self.parameters.issue);
        let until = self.issue.cycle() * width + u64::from(self.issue.used());
        let end = (self.retire.cycle() * width).max(until);
        slots.backend += end - until;
        slots
    }

    /// Time passes in which nothing executes, until `cycle`, or until cycle 2^55 if that comes first: everything begins
    /// anew then.
    pub fn pass(&mut self, cycle: u64) {
        let cycle = cycle.min(LATEST);
        self.drain(cycle);
        self.retire.not_before(cycle);
    }

    /// Nothing retires before `cycle` any more.
    pub(crate) fn pass_retirement(&mut self, cycle: u64) {
        let cycle = cycle.min(LATEST);
        if cycle > self.retire.cycle() {
            self.retire.not_before(cycle);
            self.taken = self.taken.max(cycle);
        }
    }

    /// The branch of the last step had been mispredicted: what comes next is fetched when it is
    /// known how it went, `executed` of [`Done`].
    pub fn mispredicted(&mut self, time: Done) {
        let again = time.executed + u64::from(self.pipeline.mispredict);
        self.front.redirect();
        self.front.hold(again);
        self.recovering = self.issued;
    }

    /// The front end did not know where the branch of the last step goes before it was decoded.
    pub fn resteered(&mut self) {
        let cycle = self.front.cycle + u64::from(self.pipeline.resteer);
        self.front.hold(cycle);
    }

    /// Runs the first `retired` instructions of `program`, which was then left by `leave`.
    pub fn retire(&mut self, program: &Program, retired: usize, leave: Leave) -> Done {
        self.retire_range(program, 0..retired, leave)
    }

    /// The same of some instructions of a program of several blocks; ranges outside it have none.
    pub fn retire_range(&mut self, program: &Program, range: Range<usize>, leave: Leave) -> Done {
        self.retire_piece(program, &program.piece(range, leave))
    }

    /// The same of a piece of `program`.
    pub(crate) fn retire_piece(&mut self, program: &Program, piece: &Piece) -> Done {
        let run = program.instructions.get(piece.range()).unwrap_or_default();
        let last = match piece.leave {
            Leave::Taken => run.last().map_or(ptr::null(), ptr::from_ref),
            _ => ptr::null(),
        };
        let close = piece.closely || self.high != 0;
        let executed = match close {
            true => self.run_closely(program, piece, run, last),
            false => self.run(program, piece, run, last),
        };
        self.by_times = close;
        self.end = self.retire.cycle();
        if piece.leave == Leave::Taken {
            let bubble = self.front.cycle + u64::from(self.pipeline.taken);
            self.front.redirect();
            if self.pipeline.taken > 0 {
                self.front.hold(bubble);
            }
        } else if piece.leave != Leave::Sequential {
            self.interrupt(piece.leave);
        }
        Done {
            retired: self.retire.cycle(),
            executed,
        }
    }

    /// When instruction number `index` of `piece` of `program`, which is what ran last, retired; nothing if it has no
    /// such instruction.
    pub(crate) fn retired_at(&self, program: &Program, piece: &Piece, index: usize) -> Option<u64> {
        let run = program.instructions.get(piece.range()).unwrap_or_default();
        if self.by_times {
            return self.times.get(..run.len())?.get(index).copied();
        }
        let behind = run.get(index + 1..)?;
        if behind.is_empty() {
            return Some(self.end);
        }
        let behind: u64 = behind.iter().map(|inst| u64::from(inst.issued)).sum();
        Some(self.retire_ring[(self.issued - behind - 1) as usize % RING])
    }

    /// Whether no buffer can get full before `demand` has been renamed: then none has to be asked for each
    /// instruction. If it cannot say, no.
    #[inline(always)]
    fn has_room(&mut self, demand: &Demand) -> bool {
        let Room {
            issued,
            loads,
            stores,
        } = self.room;
        // The queue in front of the renamer is nearly full as a rule: how far it has room would not hold for long.
        let idq = self.pipeline.idq;
        let last = self.issued + u64::from(demand.issued);
        let queued = self.issue_ring[last.wrapping_sub(idq.into()) as usize % RING];
        let known = last <= issued
            && self.loads + u64::from(demand.loads) <= loads
            && self.stores + u64::from(demand.stores) <= stores;
        demand.issued < idq
            && queued <= self.front.cycle
            && (known || self.find_room(demand))
            && self.calendar.has_room(demand.entries)
    }

    /// Whether the buffers but for queue and scheduler have room for `demand`; how far they have is known then.
    #[inline(never)]
    fn find_room(&mut self, demand: &Demand) -> bool {
        if !self.frees(demand) {
            return false;
        }
        let more = |ahead: u32| Demand {
            issued: demand.issued.saturating_add(ahead),
            loads: demand.loads.saturating_add(ahead),
            stores: demand.stores.saturating_add(ahead),
            entries: 0,
        };
        let most = AHEAD.map(more).into_iter().find(|more| self.frees(more));
        let most = most.as_ref().unwrap_or(demand);
        self.room = Room {
            issued: self.issued + u64::from(most.issued),
            loads: self.loads + u64::from(most.loads),
            stores: self.stores + u64::from(most.stores),
        };
        true
    }

    /// Whether the entries that `demand` takes of the buffers are free. Once they are they stay so.
    fn frees(&self, demand: &Demand) -> bool {
        let Pipeline {
            rob,
            store_buffer,
            load_buffer,
            ..
        } = self.pipeline;
        // Entries are freed in order: if the last one that is needed is free, then all are.
        let slot = |taken: u64, demand: u32, size: u32| {
            (taken.wrapping_add(demand.into())).wrapping_sub(size.into()) as usize
        };
        let retired = self.retire_ring[slot(self.issued, demand.issued, rob) % RING];
        let stored = self.commit_ring[slot(self.stores, demand.stores, store_buffer) % STORES];
        let loaded = self.load_ring[slot(self.loads, demand.loads, load_buffer) % LOADS];
        let small =
            demand.issued < rob && demand.stores < store_buffer && demand.loads < load_buffer;
        small && retired.max(stored).max(loaded) <= self.issue.cycle()
    }

    /// Runs instructions, of which `last` is a branch that is taken (null if none is: it is only compared, so that the
    /// loop needs no number of the instruction); when the last one was executed.
    #[inline(always)]
    fn run(&mut self, program: &Program, piece: &Piece, run: &[Inst], last: *const Inst) -> u64 {
        self.calendar.advance(self.issue.cycle());
        let free = self.has_room(&piece.demand);
        let alone = run.get(..run.len() - usize::from(piece.paired));
        let mut executed = self.retire.cycle();
        for inst in alone.unwrap_or_default() {
            executed = self.instruction(program, inst, last, free);
        }
        if piece.paired {
            // The branch of the pair, which was executed with what it is fused with.
            executed = executed.max(self.issue.cycle());
            self.retire_one::<false>(0, executed, !last.is_null());
        }
        executed
    }

    /// The same where more has to be looked at than the code for a kind of instructions does.
    #[cold]
    #[inline(never)]
    fn run_closely(
        &mut self,
        program: &Program,
        piece: &Piece,
        run: &[Inst],
        last: *const Inst,
    ) -> u64 {
        if self.times.len() < run.len() {
            self.times.resize(run.len(), 0);
        }
        let mut executed = self.retire.cycle();
        for (at, inst) in run.iter().enumerate() {
            self.place = piece.start as usize + at;
            self.calendar.advance(self.issue.cycle());
            executed = self.rare(program, inst, last, false);
            self.times[at] = self.retire.cycle();
        }
        executed
    }

    /// Something took over, or nobody knows what.
    #[cold]
    #[inline(never)]
    fn interrupt(&mut self, leave: Leave) {
        let event = match leave {
            Leave::Event => self.pipeline.event.into(),
            _ => 0,
        };
        self.drain(self.retire.cycle() + event);
    }

    /// Nothing is fetched before `cycle`.
    fn drain(&mut self, cycle: u64) {
        self.front.redirect();
        self.front.hold(cycle);
    }
}
