//! The state of the core between instructions.

mod memory;
mod rename;

use core::hint::select_unpredictable;
use core::ops::Range;

use vlbr_cpu::Slots;

use crate::lower::taken_ports;
use crate::microarchitecture::{Microarchitecture, Parameters};
use crate::pipeline::Pipeline;
use crate::scoreboard::calendar::{Calendar, Divider};
use crate::scoreboard::contents::Contents;
use crate::scoreboard::frontend::FrontEnd;
use crate::scoreboard::inst::{Extra, Flags, INPUTS, Inst, MANY, OUTPUTS, Shape};
use crate::scoreboard::program::Program;

/// Values that are followed: registers, groups of flags, what the current instruction loads and stores. Value 0 is
/// always ready. As many as a byte can name, so that none has to be checked.
const VALUES: usize = 256;
const LOADED: usize = crate::lower::LOADED as usize;
const STORED: usize = crate::lower::STORED as usize;
const STACK: usize = crate::lower::STACK as usize;
/// Micro-operations whose issue and retirement are remembered; no buffer is larger.
const RING: usize = 1024;
/// Stores that are remembered.
const STORES: usize = 256;
/// Loads of which it is remembered when they retired.
const LOADS: usize = 256;
/// Stores of an instruction that are followed: PUSHA has eight.
const MOST_STORES: usize = 8;

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

/// Micro-operations of one cycle, at most as many as the width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lane {
    cycle: u64,
    /// How many it has room for yet.
    left: u32,
    width: u32,
}

impl Lane {
    fn new(width: u32) -> Self {
        Self {
            cycle: 0,
            left: width,
            width,
        }
    }

    /// Goes on to `cycle`, of which nothing is taken yet.
    #[inline(always)]
    fn begin(&mut self, cycle: u64) {
        (self.cycle, self.left) = (cycle, self.width);
    }

    /// Takes a place in this cycle, or in the next one if it has none left. Without a branch, which a
    /// processor could not foresee.
    #[inline(always)]
    fn take(&mut self) {
        let full = self.left == 0;
        self.cycle += u64::from(full);
        self.left = select_unpredictable(full, self.width, self.left) - 1;
    }

    /// Places that are taken in its cycle.
    fn used(&self) -> u32 {
        self.width - self.left
    }
}

/// One thread on one core.
#[derive(Clone, Debug, PartialEq)]
pub struct Scoreboard {
    parameters: Parameters,
    pipeline: Pipeline,
    ports: Ports,
    latencies: Latencies,
    ready: [i64; VALUES],
    contents: Contents,
    calendar: Calendar,
    front: FrontEnd,
    issue: Lane,
    retire: Lane,
    /// Fused micro-operations issued so far.
    issued: u64,
    issue_ring: Box<[u64; RING]>,
    retire_ring: Box<[u64; RING]>,
    /// Stores so far; when each of the latest had its data and when it left the store buffer.
    stores: u64,
    data_ring: [u64; STORES],
    commit_ring: [u64; STORES],
    committed: Lane,
    /// Loads so far, and when the latest retired.
    loads: u64,
    load_ring: [u64; LOADS],
    /// What serializes has executed.
    serial: u64,
    /// Retirement of the last taken branch.
    taken: u64,
    /// The stack engine holds an offset that RSP does not have yet: [`Flags::READS_RSP`], of what has to wait for it.
    stack_offset: Flags,
    /// General-purpose registers whose last writer was a load, one bit each, by their values.
    loaded: u32,
    /// Registers of which AH, BH, CH or DH is renamed apart, one bit each.
    high: u16,
    /// The front end was sent elsewhere by a misprediction and nothing has been issued since.
    recovering: bool,
    /// Slots but for those of what was issued.
    slots: Slots,
    times: Vec<u64>,
    /// Instructions of the last step, and the number of its first one in the program.
    retired: usize,
    first: usize,
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
            recovering: false,
            slots: Slots::default(),
            times: Vec::new(),
            retired: 0,
            first: 0,
            later: [(0, 0, 0); MOST_STORES],
        }
    }

    /// Cycle in which the last instruction retired.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.retire.cycle
    }

    /// When the instructions of the last step retired.
    #[must_use]
    pub fn times(&self) -> &[u64] {
        self.times.get(..self.retired).unwrap_or_default()
    }

    /// Slots of the renamer until now.
    #[must_use]
    pub fn slots(&self) -> Slots {
        let mut slots = self.slots;
        slots.retiring += self.issued;
        let width = u64::from(self.parameters.issue);
        let until = self.issue.cycle * width + u64::from(self.issue.used());
        let end = (self.retire.cycle * width).max(until);
        slots.backend += end - until;
        slots
    }

    /// Time passes in which nothing executes, until `cycle`: everything begins anew then.
    pub fn pass(&mut self, cycle: u64) {
        self.drain(cycle);
        if cycle > self.retire.cycle {
            self.retire.begin(cycle);
        }
    }

    /// Nothing retires before `cycle` any more.
    pub(crate) fn pass_retirement(&mut self, cycle: u64) {
        if cycle > self.retire.cycle {
            self.retire.begin(cycle);
            self.taken = self.taken.max(cycle);
        }
    }

    /// The branch of the last step had been mispredicted: what comes next is fetched when it is
    /// known how it went, `executed` of [`Done`].
    pub fn mispredicted(&mut self, time: Done) {
        let again = time.executed + u64::from(self.pipeline.mispredict);
        self.front.redirect();
        self.front.hold(again);
        self.recovering = true;
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
        self.first = range.start;
        let run = program.instructions.get(range).unwrap_or_default();
        if self.times.len() < run.len() {
            self.times.resize(run.len(), 0);
        }
        self.retired = run.len();
        let last = match leave {
            Leave::Taken if !run.is_empty() => run.len() - 1,
            _ => usize::MAX,
        };
        let mut executed = self.retire.cycle;
        let mut times = core::mem::take(&mut self.times);
        for (at, (inst, time)) in run.iter().zip(&mut times).enumerate() {
            executed = self.instruction(program, at, inst, last - at);
            *time = self.retire.cycle;
        }
        self.times = times;
        match leave {
            Leave::Sequential => {}
            Leave::Taken => {
                let bubble = self.front.cycle + u64::from(self.pipeline.taken);
                self.front.redirect();
                if self.pipeline.taken > 0 {
                    self.front.hold(bubble);
                }
            }
            Leave::Event => {
                self.drain(self.retire.cycle + u64::from(self.pipeline.event));
            }
            Leave::Gap => self.drain(self.retire.cycle),
        }
        Done {
            retired: self.retire.cycle,
            executed,
        }
    }

    /// Nothing is fetched before `cycle`.
    fn drain(&mut self, cycle: u64) {
        self.front.redirect();
        self.front.hold(cycle);
    }

    /// Runs one instruction, number `at` of its step, `left` before a branch that is taken; when it was executed.
    #[inline(always)]
    fn instruction(&mut self, program: &Program, at: usize, inst: &Inst, left: usize) -> u64 {
        const L: u8 = Shape::LOADS;
        const S: u8 = Shape::STORES;
        const O: u8 = Shape::OPERATES;
        const W: u8 = Shape::WRITES;
        const WO: u8 = W | O;
        const WL: u8 = W | L;
        const WLO: u8 = W | L | O;
        const WS: u8 = W | S;
        const WA: u8 = W | Shape::ADDRESS;
        const WOA: u8 = WO | Shape::ADDRESS;
        // What most instructions are. A memory operand always counts as something written.
        match inst.shape {
            Shape::FUSED => self.execute::<{ Shape::FUSED }>(program, inst, self.issue.cycle, left),
            0 => self.through::<0>(program, at, inst, left),
            O => self.through::<O>(program, at, inst, left),
            W => self.through::<W>(program, at, inst, left),
            WO => self.through::<WO>(program, at, inst, left),
            WL => self.through::<WL>(program, at, inst, left),
            WLO => self.through::<WLO>(program, at, inst, left),
            WS => self.through::<WS>(program, at, inst, left),
            WA => self.through::<WA>(program, at, inst, left),
            WOA => self.through::<WOA>(program, at, inst, left),
            _ => self.rare(program, at, inst, left),
        }
    }

    /// Runs an instruction that has more to it than most.
    #[inline(never)]
    fn rare(&mut self, program: &Program, at: usize, inst: &Inst, left: usize) -> u64 {
        if inst.flags.any(Flags::FUSED) {
            return self.execute::<{ Shape::FUSED }>(program, inst, self.issue.cycle, left);
        }
        self.through::<{ Shape::OTHER }>(program, at, inst, left)
    }

    /// Runs an instruction through front end and back end.
    #[inline(always)]
    fn through<const SHAPE: u8>(
        &mut self,
        program: &Program,
        at: usize,
        inst: &Inst,
        left: usize,
    ) -> u64 {
        let start = self.deliver_and_issue::<SHAPE>(program, at, inst);
        if inst.flags.any(self.stack_offset) {
            self.synchronize_stack();
        }
        self.execute::<SHAPE>(program, inst, start, left)
    }

    /// What the back end makes of an instruction that is renamed at `start`; when it was executed.
    #[inline(always)]
    fn execute<const SHAPE: u8>(
        &mut self,
        program: &Program,
        inst: &Inst,
        start: u64,
        left: usize,
    ) -> u64 {
        let other = SHAPE == Shape::OTHER;
        let is = |shape: u8, dynamic: bool| SHAPE & shape != 0 || other && dynamic;
        let loads = is(Shape::LOADS, inst.flags.any(Flags::LOADS));
        let stores = is(Shape::STORES, inst.flags.any(Flags::STORES));
        let operates = is(Shape::OPERATES, inst.ports != 0);
        let writes = is(Shape::WRITES, inst.flags.any(Flags::WRITES));
        let extra = match other {
            true => program.extras.get(inst.extra as usize),
            false => None,
        };
        // Loads. Addresses are of before the operation.
        let mut address = 0;
        if loads || stores || is(Shape::ADDRESS, true) {
            address = self.contents.address(inst.address);
        }
        let mut loaded = 0;
        let mut done = start;
        if loads {
            let data;
            (data, loaded) = self.load(inst.address, inst.flags, inst.load, address, start);
            self.ready[LOADED] = data as i64;
            done = done.max(data);
        }
        if let Some(extra) = extra {
            (done, loaded) = self.more_references(extra, start, (done, loaded));
        }
        // The operation.
        let mut begin = (start + u64::from(operates)) as i64;
        for number in 0..INPUTS {
            let (value, cycles) = inst.inputs.get(number);
            begin = begin.max(self.ready[usize::from(value)] + cycles);
        }
        let mut begin = begin as u64;
        if let Some(extra) = extra {
            begin = self.begin(inst, extra, begin);
        }
        if other && inst.flags.any(Flags::SERIALIZES) {
            // All before it is done, and nothing behind it has been fetched.
            begin = begin.max(self.retire.cycle);
        }
        if operates {
            let earliest = begin;
            // What is fused with the branch goes with it.
            let mut ports = inst.ports;
            if left <= 1 {
                ports = self.ports_of_taken(inst);
            }
            begin = self.calendar.dispatch::<4>(ports, earliest);
            if other {
                done = done.max(begin + 1);
            }
            if let Some(extra) = extra {
                done = done.max(self.more_operations(inst, extra, earliest));
            }
        }
        let end = begin as i64 + i64::from(inst.latency);
        let mut ended = end;
        if SHAPE != Shape::FUSED {
            for number in 0..OUTPUTS {
                let (value, cycles) = inst.outputs.get(number);
                self.ready[usize::from(value)] = end + cycles;
                ended = ended.max(end + cycles);
            }
        }
        done = done.max(match other {
            true => ended.max(0) as u64,
            false => begin + u64::from(inst.whole),
        });
        if let Some(extra) = extra {
            for link in &extra.outputs {
                let at = end + i64::from(link.cycles);
                self.ready[usize::from(link.value)] = at;
                done = done.max(at.max(0) as u64);
            }
            if extra.floor > 0 {
                self.serial = begin + u64::from(extra.floor);
                done = done.max(self.serial);
            }
        }
        let mut value = 0;
        if writes {
            value = self.contents.run(&inst.effect, address, loaded);
        }
        // Stores: address and data.
        let mut data = 0;
        if stores {
            let ready;
            (data, ready) = self.dispatch_store(inst.address, inst.flags, start);
            done = done.max(ready);
        }
        if let Some(extra) = extra {
            done = done.max(self.dispatch_more_stores(extra, start));
        }
        let issued = match SHAPE {
            Shape::FUSED => 0,
            _ => issued(inst, extra),
        };
        match SHAPE {
            Shape::FUSED | Shape::OTHER => self.retire_one::<false>(issued, done, left == 0),
            _ => self.retire_one::<true>(issued, done, left == 0),
        }
        if loads {
            self.load_ring[self.loads as usize % LOADS] = self.retire.cycle;
            self.loads += 1;
        }
        if stores {
            self.store(address, inst.address.size, value, data);
        }
        if let Some(extra) = extra {
            for number in 0..memory::stores(extra).count().min(MOST_STORES) {
                let (place, size, data) = self.later[number];
                self.store(place, size, value, data);
            }
        }
        if writes {
            let written = u32::from(inst.effect.written) << 1;
            self.loaded &= !written;
            if loads && !operates {
                self.loaded |= 1 << inst.fills & !1;
            }
            // What reads RSP has taken the offset by now.
            self.stack_offset = inst.flags.offset_behind(self.stack_offset);
        }
        if other && inst.flags.any(Flags::SERIALIZES) {
            self.drain(self.retire.cycle);
        }
        done
    }

    /// Ports of an instruction that a taken branch ends, or one before that.
    #[inline(never)]
    fn ports_of_taken(&self, inst: &Inst) -> u16 {
        match inst.flags.any(Flags::CONDITIONAL) {
            true => self.ports.taken,
            false => inst.ports,
        }
    }

    /// When an operation can begin whose inputs in `inst` are ready at `begin`.
    #[cold]
    fn begin(&mut self, inst: &Inst, extra: &Extra, begin: u64) -> u64 {
        let mut begin = begin;
        for link in &extra.inputs {
            let ready = self.ready[usize::from(link.value)];
            begin = begin.max((ready + i64::from(link.cycles)).max(0) as u64);
        }
        if extra.divider > 0 {
            let unit = match inst.flags.any(Flags::FLOAT) {
                true => Divider::Float,
                false => Divider::Integer,
            };
            begin = self.calendar.divide(unit, begin, extra.divider.into());
        }
        if extra.floor > 0 {
            begin = begin.max(self.serial);
        }
        begin
    }

    /// Dispatches the operations behind the first one, which could begin at `begin`; when the last one is done.
    #[cold]
    fn more_operations(&mut self, inst: &Inst, extra: &Extra, begin: u64) -> u64 {
        // The operations of microcode follow one another.
        let spread = match extra.issued {
            0..=4 => 0,
            _ => u64::from(inst.latency.max(1).unsigned_abs() - 1),
        };
        let all = u64::from(extra.issued.max(1));
        let mut last = 0;
        let mut number = 1;
        for &(ports, count) in &extra.parts {
            for _ in 0..count {
                let behind = begin + number.min(all) * spread / all;
                last = last.max(self.calendar.dispatch_one(ports, behind) + 1);
                number += 1;
            }
        }
        last
    }

    /// In order, so many a cycle, at most one taken branch. `ALONE`: it is known to be at least one micro-operation.
    #[inline(always)]
    fn retire_one<const ALONE: bool>(&mut self, issued: usize, done: u64, taken: bool) {
        let mut least = done;
        if taken {
            least = least.max(self.taken + 1);
        }
        if least > self.retire.cycle {
            self.retire.begin(least);
        }
        if ALONE || issued > 0 {
            self.retire.take();
            self.retire_ring[self.issued as usize % RING] = self.retire.cycle;
        }
        if issued > 1 {
            for number in 1..issued {
                self.retire.take();
                self.retire_ring[(self.issued as usize + number) % RING] = self.retire.cycle;
            }
        }
        self.issued += issued as u64;
        if taken {
            self.taken = self.retire.cycle;
        }
    }
}

/// Fused micro-operations of an instruction as it is renamed.
#[inline(always)]
fn issued(inst: &Inst, extra: Option<&Extra>) -> usize {
    match (inst.issued, extra) {
        (MANY, Some(extra)) => extra.issued.into(),
        (issued, _) => issued.into(),
    }
}
