//! The state of the core between instructions.

use core::ops::Range;

use vlbr_cpu::Slots;

use crate::dependence::NO_VALUE;
use crate::microarchitecture::{Microarchitecture, Parameters};
use crate::pipeline::Pipeline;
use crate::ports::PortSet;
use crate::scoreboard::calendar::{Calendar, Divider};
use crate::scoreboard::contents::{Contents, Source};
use crate::scoreboard::frontend::FrontEnd;
use crate::scoreboard::program::{Inst, Program, Reference};
use crate::scoreboard::slots::{Stall, lose};

/// Values that are followed: registers, groups of flags, what the current instruction loads and stores.
const VALUES: usize = 64;
const LOADED: usize = crate::lower::LOADED as usize;
const STORED: usize = crate::lower::STORED as usize;
const STACK: usize = crate::lower::STACK as usize;
/// Micro-operations whose issue and retirement are remembered; no buffer is larger.
const RING: usize = 1024;
/// Stores that are remembered.
const STORES: usize = 256;
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

/// When one instruction passed the stages of the core, in cycles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InstructionTime {
    /// The renamer took it.
    pub issued: u64,
    /// Its operation, or what comes last of it, began to execute.
    pub dispatched: u64,
    /// All of it was executed.
    pub executed: u64,
    /// It retired.
    pub retired: u64,
}

/// Micro-operations of one cycle, at most as many as the width.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lane {
    cycle: u64,
    used: u32,
}

/// One thread on one core.
#[derive(Clone, Debug, PartialEq)]
pub struct Scoreboard {
    parameters: Parameters,
    pipeline: Pipeline,
    ports: Ports,
    latencies: Latencies,
    ready: [u64; VALUES],
    contents: Contents,
    calendar: Calendar,
    front: FrontEnd,
    issue: Lane,
    retire: Lane,
    /// Fused micro-operations issued so far.
    issued: u64,
    issue_ring: Box<[u64; RING]>,
    retire_ring: Box<[u64; RING]>,
    stores: u64,
    commit_ring: [u64; STORES],
    committed: u64,
    /// What serializes has executed.
    serial: u64,
    /// Retirement of the last taken branch.
    taken: u64,
    /// The stack engine holds an offset that RSP does not have yet.
    stack_offset: bool,
    /// General-purpose registers whose last writer was a load, one bit each.
    loaded: u16,
    /// Registers of which AH, BH, CH or DH is renamed apart, one bit each.
    high: u16,
    /// The front end was sent elsewhere by a misprediction and nothing has been issued since.
    recovering: bool,
    slots: Slots,
    times: Vec<InstructionTime>,
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
    any: PortSet,
    store_data: PortSet,
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
                any: core.ports.any,
                store_data: core.ports.store_data,
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
            commit_ring: [0; STORES],
            committed: 0,
            serial: 0,
            taken: 0,
            stack_offset: false,
            loaded: 0,
            high: 0,
            recovering: false,
            slots: Slots::default(),
            times: Vec::new(),
        }
    }

    /// Cycle in which the last instruction retired.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.retire.cycle
    }

    /// The instructions of the last step.
    #[must_use]
    pub fn times(&self) -> &[InstructionTime] {
        &self.times
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
        self.times.clear();
        let run = program.instructions.get(range).unwrap_or_default();
        let mut executed = self.retire.cycle;
        let last = run.len().wrapping_sub(1);
        for (at, inst) in run.iter().enumerate() {
            let taken = at == last && leave == Leave::Taken;
            let time = self.instruction(program, inst, taken);
            executed = time.executed;
            self.times.push(time);
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

    /// Runs one instruction; when it was executed.
    #[inline]
    fn instruction(&mut self, program: &Program, inst: &Inst, taken: bool) -> InstructionTime {
        let traits = &inst.traits;
        let issued = u64::from(inst.issued);
        let start = if traits.fused {
            self.issue.cycle
        } else {
            self.deliver_and_issue(inst)
        };
        if traits.reads_rsp && self.stack_offset {
            self.synchronize_stack();
        }
        // Loads.
        let references = &program.references[inst.references as usize..];
        let mut loaded = 0;
        let mut done = start;
        if inst.loads > 0 {
            let mut data = 0;
            for reference in &references[..usize::from(inst.loads)] {
                let (ready, value) = self.load(reference, start);
                data = data.max(ready);
                loaded = value;
            }
            self.ready[LOADED] = data;
            done = done.max(data);
        }
        // The operation.
        let links = &program.links[inst.links as usize..];
        let (inputs, links) = links.split_at(usize::from(inst.inputs));
        let latency = i64::from(inst.latency);
        let mut begin = start as i64 + 1;
        if inst.part_count == 0 {
            begin -= 1;
        }
        for link in inputs {
            let ready = self.ready[usize::from(link.value)] as i64;
            begin = begin.max(ready + i64::from(link.cycles) - latency);
        }
        let mut begin = begin as u64;
        if inst.divider > 0 {
            let unit = if inst.traits.float {
                Divider::Float
            } else {
                Divider::Integer
            };
            begin = self.calendar.divide(unit, begin, inst.divider.into());
        }
        if inst.floor > 0 {
            begin = begin.max(self.serial);
        }
        let parts = &program.parts[inst.parts as usize..][..usize::from(inst.part_count)];
        if let Some((&(first, count), rest)) = parts.split_first() {
            let at = self.calendar.dispatch(first, begin);
            // The operations of microcode follow one another.
            let spread = match inst.issued {
                0..=4 => 0,
                _ => u64::from(inst.latency.max(1).unsigned_abs() - 1),
            };
            let all = u64::from(inst.issued.max(1));
            let mut last = at;
            let mut number = 1;
            let first = core::iter::once((first, count - 1));
            for (ports, count) in first.chain(rest.iter().copied()) {
                for _ in 0..count {
                    let behind = begin + number.min(all) * spread / all;
                    last = last.max(self.calendar.dispatch(ports, behind));
                    number += 1;
                }
            }
            begin = at;
            done = done.max(last + 1);
        }
        let end = (begin as i64 + latency).max(0) as u64;
        if inst.floor > 0 {
            self.serial = begin + u64::from(inst.floor);
            done = done.max(self.serial);
        }
        done = done.max(end);
        for link in &links[..usize::from(inst.outputs)] {
            let at = (end as i64 + i64::from(link.cycles)).max(0) as u64;
            self.ready[usize::from(link.value)] = at;
            done = done.max(at);
        }
        // Stores: address and data.
        let stores = &references[usize::from(inst.loads)..][..usize::from(inst.stores)];
        let mut addresses = [0; MOST_STORES];
        if let [only] = stores {
            addresses[0] = address_of(only, &self.contents.registers);
        } else if stores.len() > 1 {
            for (address, reference) in addresses.iter_mut().zip(stores) {
                *address = address_of(reference, &self.contents.registers);
            }
        }
        let value = self.contents.run(&inst.effect, loaded, inst.stores > 0);
        let mut data = 0;
        for reference in stores {
            let address = self.address_ready(reference, start);
            let address = self.calendar.dispatch(reference.ports, address);
            data = self
                .calendar
                .dispatch(self.ports.store_data, self.ready[STORED].max(start + 1));
            done = done.max(address.max(data) + 1);
        }
        let retired = self.retire_one(inst, done, taken);
        for (number, reference) in stores.iter().enumerate().take(MOST_STORES) {
            // One leaves the store buffer per cycle, in order.
            self.committed = retired.max(self.committed + 1);
            self.commit_ring[self.stores as usize % STORES] = self.committed;
            self.stores += 1;
            let (size, left) = (reference.size, self.committed);
            self.contents
                .store(addresses[number], size, value, data, left);
        }
        self.issued += issued;
        self.loaded = self.loaded & !inst.written | inst.loaded;
        if traits.stack {
            self.stack_offset = true;
        } else if traits.writes_rsp || traits.reads_rsp {
            self.stack_offset = false;
        }
        if traits.serializes {
            self.drain(retired);
        }
        InstructionTime {
            issued: start,
            dispatched: begin,
            executed: done,
            retired,
        }
    }

    /// The front end delivers `inst` and the renamer takes it; the cycle of the latter.
    #[inline]
    fn deliver_and_issue(&mut self, inst: &Inst) -> u64 {
        let n = self.issued;
        let queue = u64::from(self.pipeline.idq);
        if n >= queue {
            self.front
                .hold(self.issue_ring[(n - queue) as usize % RING]);
        }
        let delivered = self.front.deliver(inst, &self.parameters, &self.pipeline);
        let last = n + u64::from(inst.issued.max(1)) - 1;
        let rob = u64::from(self.pipeline.rob);
        let mut room = 0;
        if last >= rob {
            room = self.retire_ring[(last - rob) as usize % RING];
        }
        let buffer = u64::from(self.pipeline.store_buffer);
        if inst.stores > 0 && self.stores >= buffer {
            let at = self.stores - buffer;
            room = room.max(self.commit_ring[at as usize % STORES]);
        }
        let entries = u32::from(inst.part_count.min(4)) + u32::from(inst.loads + inst.stores);
        self.calendar
            .advance(self.issue.cycle.max(delivered).max(room));
        room = room.max(self.calendar.room(entries));
        let stall = if room > delivered {
            Stall::Backend
        } else if self.recovering {
            Stall::BadSpeculation
        } else {
            Stall::Frontend
        };
        self.recovering = false;
        self.issue_not_before(delivered.max(room), stall);
        let (merges, high) = inst.high.follow(self.high);
        self.high = high;
        if merges > 0 {
            // Joining a high byte has cycles of its own.
            let cycle = self.issue.cycle + u64::from(self.issue.used > 0) + u64::from(merges);
            self.issue_not_before(cycle, Stall::Backend);
        }
        let width = self.parameters.issue;
        if self.issue.used >= width {
            self.issue.cycle += 1;
            self.issue.used = 0;
        }
        let start = self.issue.cycle;
        for number in n..n + u64::from(inst.issued) {
            if self.issue.used == width {
                self.issue.cycle += 1;
                self.issue.used = 0;
            }
            self.issue.used += 1;
            self.issue_ring[number as usize % RING] = self.issue.cycle;
        }
        self.slots.retiring += u64::from(inst.issued);
        self.calendar.advance(start);
        start
    }

    /// The renamer stands still until `cycle`.
    fn issue_not_before(&mut self, cycle: u64, stall: Stall) {
        if cycle > self.issue.cycle {
            let width = u64::from(self.parameters.issue);
            let lost = (cycle - self.issue.cycle) * width - u64::from(self.issue.used);
            lose(&mut self.slots, stall, lost);
            self.issue = Lane { cycle, used: 0 };
        }
    }

    /// RSP takes the offset of the stack engine: one micro-operation.
    fn synchronize_stack(&mut self) {
        let begin = self.ready[STACK].max(self.issue.cycle + 1);
        let cycle = self.calendar.dispatch(self.ports.any, begin);
        self.ready[STACK] = cycle + 1;
        self.stack_offset = false;
        // It takes a slot, but none of the buffers.
        self.slots.retiring += 1;
        self.issue.used += 1;
        if self.issue.used > self.parameters.issue {
            self.issue.cycle += 1;
            self.issue.used = 1;
        }
    }

    fn address_ready(&self, reference: &Reference, start: u64) -> u64 {
        let mut ready = start + 1;
        for value in [reference.base, reference.index] {
            if value != NO_VALUE as u8 {
                ready = ready.max(self.ready[usize::from(value)]);
            }
        }
        ready
    }

    /// When a load has its data, and what it is.
    #[inline]
    fn load(&mut self, reference: &Reference, start: u64) -> (u64, u64) {
        let address = self.address_ready(reference, start);
        let cycle = self.calendar.dispatch(reference.ports, address);
        let latency = match reference.latency {
            0 if reference.near && self.loaded >> (reference.base - 1) & 1 != 0 => {
                self.latencies.load_fast
            }
            0 => self.latencies.load,
            cycles => cycles.into(),
        };
        let mut data = cycle + latency;
        let place = address_of(reference, &self.contents.registers);
        let found = self.contents.load(place, reference.size);
        match found.source {
            Source::Cache => {}
            Source::Store(ready) => {
                let forward = match reference.latency {
                    0 => self.latencies.forward,
                    _ => self.latencies.forward_vector,
                };
                data = data.max(ready + forward);
            }
            Source::Blocked(committed) => {
                data = data.max(committed + self.latencies.forward_blocked);
            }
        }
        (data, found.value)
    }

    /// In order, so many a cycle, at most one taken branch.
    #[inline]
    fn retire_one(&mut self, inst: &Inst, done: u64, taken: bool) -> u64 {
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
        for number in self.issued..self.issued + u64::from(inst.issued) {
            if self.retire.used == width {
                self.retire.cycle += 1;
                self.retire.used = 0;
            }
            self.retire.used += 1;
            self.retire_ring[number as usize % RING] = self.retire.cycle;
        }
        if taken {
            self.taken = self.retire.cycle;
        }
        self.retire.cycle
    }
}

fn address_of(reference: &Reference, registers: &[u64; 16]) -> u64 {
    let get = |value: u8| match value {
        0 => 0,
        _ => registers[usize::from(value - 1) & 15],
    };
    get(reference.base)
        .wrapping_add(get(reference.index).wrapping_mul(u64::from(reference.scale)))
        .wrapping_add(reference.displacement)
}
