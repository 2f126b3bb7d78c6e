//! The state of the core between instructions.

mod memory;
mod rename;

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
/// always ready.
const VALUES: usize = 64;
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lane {
    cycle: u64,
    used: u32,
}

impl Lane {
    /// Takes a place in this cycle, or in the next one if it has `width` already. Without a branch, which a
    /// processor could not foresee.
    #[inline(always)]
    fn take(&mut self, width: u32) {
        let full = u32::from(self.used >= width);
        self.cycle += u64::from(full);
        self.used = self.used * (1 - full) + 1;
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
    /// The stack engine holds an offset that RSP does not have yet.
    stack_offset: bool,
    /// General-purpose registers whose last writer was a load, one bit each, by their values.
    loaded: u32,
    /// Registers of which AH, BH, CH or DH is renamed apart, one bit each.
    high: u16,
    /// The front end was sent elsewhere by a misprediction and nothing has been issued since.
    recovering: bool,
    slots: Slots,
    times: Vec<u64>,
    /// Instructions of the last step.
    retired: usize,
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
            issue: Lane::default(),
            retire: Lane::default(),
            issued: 0,
            issue_ring: Box::new([0; RING]),
            retire_ring: Box::new([0; RING]),
            stores: 0,
            data_ring: [0; STORES],
            commit_ring: [0; STORES],
            committed: Lane::default(),
            loads: 0,
            load_ring: [0; LOADS],
            serial: 0,
            taken: 0,
            stack_offset: false,
            loaded: 0,
            high: 0,
            recovering: false,
            slots: Slots::default(),
            times: Vec::new(),
            retired: 0,
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
        let width = u64::from(self.parameters.issue);
        let until = self.issue.cycle * width + u64::from(self.issue.used);
        let end = (self.retire.cycle * width).max(until);
        slots.backend += end - until;
        slots
    }

    /// Time passes in which nothing executes, until `cycle`: everything begins anew then.
    pub fn pass(&mut self, cycle: u64) {
        self.drain(cycle);
        if cycle > self.retire.cycle {
            self.retire = Lane { cycle, used: 0 };
        }
    }

    /// Nothing retires before `cycle` any more.
    pub(crate) fn pass_retirement(&mut self, cycle: u64) {
        if cycle > self.retire.cycle {
            self.retire = Lane { cycle, used: 0 };
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
        let base = range.start;
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
        for (at, inst) in run.iter().enumerate() {
            executed = self.instruction(program, base + at, inst, last - at);
            if let Some(time) = self.times.get_mut(at) {
                *time = self.retire.cycle;
            }
        }
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

    /// Runs one instruction, number `at` of the program, `left` before a branch that is taken; when it was executed.
    #[inline]
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
        if inst.flags.any(Flags::FUSED) {
            return self.execute::<{ Shape::FUSED }>(program, inst, self.issue.cycle, left);
        }
        let start = self.deliver_and_issue(program, at, inst);
        if self.stack_offset && inst.flags.any(Flags::READS_RSP) {
            self.synchronize_stack();
        }
        // What most instructions are. A memory operand always counts as something written.
        match inst.shape {
            0 => self.execute::<0>(program, inst, start, left),
            O => self.execute::<O>(program, inst, start, left),
            W => self.execute::<W>(program, inst, start, left),
            WO => self.execute::<WO>(program, inst, start, left),
            WL => self.execute::<WL>(program, inst, start, left),
            WLO => self.execute::<WLO>(program, inst, start, left),
            WS => self.execute::<WS>(program, inst, start, left),
            WA => self.execute::<WA>(program, inst, start, left),
            WOA => self.execute::<WOA>(program, inst, start, left),
            _ => self.execute::<{ Shape::OTHER }>(program, inst, start, left),
        }
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
        let writes = is(Shape::WRITES, true);
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
            begin = begin.max(self.ready[value % VALUES] + cycles);
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
            let ports = match left <= 1 && inst.flags.any(Flags::CONDITIONAL) {
                true => self.ports.taken,
                false => inst.ports,
            };
            begin = self.calendar.dispatch::<4>(ports, earliest);
            done = done.max(begin + 1);
            if let Some(extra) = extra {
                done = done.max(self.more_operations(inst, extra, earliest));
            }
        }
        let end = begin as i64 + i64::from(inst.latency);
        let mut ended = end;
        if SHAPE != Shape::FUSED {
            for number in 0..OUTPUTS {
                let (value, cycles) = inst.outputs.get(number);
                self.ready[value % VALUES] = end + cycles;
                ended = ended.max(end + cycles);
            }
        }
        done = done.max(ended.max(0) as u64);
        if let Some(extra) = extra {
            for link in &extra.outputs {
                let at = end + i64::from(link.cycles);
                self.ready[usize::from(link.value) % VALUES] = at;
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
        self.retire_one(issued, done, left == 0);
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
            let stays = self.stack_offset && !inst.flags.any(Flags::WRITES_RSP);
            self.stack_offset = stays || inst.flags.any(Flags::STACK);
        }
        if other && inst.flags.any(Flags::SERIALIZES) {
            self.drain(self.retire.cycle);
        }
        done
    }

    /// When an operation can begin whose inputs in `inst` are ready at `begin`.
    #[cold]
    fn begin(&mut self, inst: &Inst, extra: &Extra, begin: u64) -> u64 {
        let mut begin = begin;
        for link in &extra.inputs {
            let ready = self.ready[usize::from(link.value) % VALUES];
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
                last = last.max(self.calendar.dispatch::<4>(ports, behind) + 1);
                number += 1;
            }
        }
        last
    }

    /// In order, so many a cycle, at most one taken branch.
    #[inline(always)]
    fn retire_one(&mut self, issued: usize, done: u64, taken: bool) {
        let mut least = done;
        if taken {
            least = least.max(self.taken + 1);
        }
        if least > self.retire.cycle {
            self.retire = Lane {
                cycle: least,
                used: 0,
            };
        }
        let width = self.pipeline.retire;
        if issued > 0 {
            self.retire.take(width);
            self.retire_ring[self.issued as usize % RING] = self.retire.cycle;
        }
        if issued > 1 {
            for number in 1..issued {
                self.retire.take(width);
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
