//! What the tests share.

use vlbr_arch::{BranchClass, Cpl, Msr, Transfer};
use vlbr_cpu::ledger::{Actor, Event as Access};
use vlbr_cpu::processor::{Boundary, Options, Retired};
use vlbr_host::hardware::{Hardware, Running, Word};
use vlbr_host::perf::{
    Behaviour, Creator, Errno, EventAttr, EventId, EventKind, EventState, Perf, Target,
    parse_branch_filter,
};
use vlbr_host::{CpuId, Owned, Owner, TaskId};
use vlbr_pmu::{Device as _, Increments, Source, SourceSet};

pub(crate) const CPU: CpuId = CpuId(0);
pub(crate) const OTHER_CPU: CpuId = CpuId(1);
/// The idle task of every processor; it has no context.
pub(crate) const IDLE: TaskId = TaskId(0);
pub(crate) const A: TaskId = TaskId(1);
pub(crate) const B: TaskId = TaskId(2);

pub(crate) fn at(version: &str) -> Behaviour {
    Behaviour::of(version.parse().unwrap())
}

/// Options with clocks fed, so that their events can be opened.
pub(crate) fn options() -> Options {
    let mut options = Options::default();
    let clocks = [Source::CoreCycles, Source::ReferenceCycles];
    for clock in clocks.map(SourceSet::of) {
        options.pmu.feeds = options.pmu.feeds.with(clock);
    }
    options
}

/// A host with its perf.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) hw: Hardware,
    pub(crate) perf: Perf,
}

/// RDMSRs and WRMSRs of an actor.
pub(crate) type Counts = (u64, u64);

impl Host {
    pub(crate) fn new(part: &str, cpus: usize, behaviour: Behaviour) -> Self {
        Self::with(part, cpus, behaviour, &options())
    }

    pub(crate) fn with(part: &str, cpus: usize, behaviour: Behaviour, options: &Options) -> Self {
        let hw = Hardware::new(part, cpus, options).unwrap();
        let perf = Perf::new(behaviour, &hw);
        let mut host = Self { hw, perf };
        for cpu in 0..cpus {
            let cpu = CpuId(cpu as u16);
            host.perf.task_sched_in(&mut host.hw, cpu, IDLE, IDLE);
        }
        host
    }

    /// A context switch, with the machine's own view of who runs.
    pub(crate) fn switch(&mut self, cpu: CpuId, next: TaskId) {
        let prev = self.perf.current(cpu).unwrap();
        self.perf.task_sched_out(&mut self.hw, cpu, prev, next);
        let task = (next != IDLE).then_some(next);
        self.hw.cpu_mut(cpu).set_running(Running::Host(task));
        self.perf.task_sched_in(&mut self.hw, cpu, next, prev);
    }

    /// An event of the part by its name as `perf -e` takes it.
    pub(crate) fn kind(&self, name: &str) -> EventKind {
        let pmu = self.hw.cpu(CPU).logical().pmu();
        let spec = pmu.profile().parse_event(name, pmu.options()).unwrap();
        EventKind::of(&spec)
    }

    /// A flexible sampling event on taken branches, with this branch filter.
    pub(crate) fn lbr(&self, filter: &str) -> EventAttr {
        let mut attr = EventAttr::counting(self.kind("branches"));
        attr.period = 1 << 20;
        attr.branch_sample_type = Some(parse_branch_filter(filter).unwrap());
        attr
    }

    pub(crate) fn pinned_lbr(&self, filter: &str) -> EventAttr {
        EventAttr {
            pinned: true,
            ..self.lbr(filter)
        }
    }

    pub(crate) fn counting(&self, name: &str) -> EventAttr {
        EventAttr::counting(self.kind(name))
    }

    pub(crate) fn try_open(&mut self, attr: EventAttr, target: Target) -> Result<EventId, Errno> {
        self.perf
            .open(&mut self.hw, attr, target, Creator::User, None)
    }

    pub(crate) fn open(&mut self, attr: EventAttr, target: Target) -> EventId {
        self.try_open(attr, target).unwrap()
    }

    pub(crate) fn open_as(&mut self, creator: Creator, attr: EventAttr, target: Target) -> EventId {
        self.perf
            .open(&mut self.hw, attr, target, creator, None)
            .unwrap()
    }

    pub(crate) fn in_group(&mut self, attr: EventAttr, leader: EventId) -> Result<EventId, Errno> {
        let target = self.perf.event(leader).unwrap().target();
        self.perf
            .open(&mut self.hw, attr, target, Creator::User, Some(leader))
    }

    pub(crate) fn release(&mut self, event: EventId) {
        self.perf.release(&mut self.hw, event).unwrap();
    }

    pub(crate) fn state(&self, event: EventId) -> EventState {
        self.perf.event(event).unwrap().state()
    }

    /// What an operation cost an actor.
    pub(crate) fn cost<T>(
        &mut self,
        actor: Actor,
        operation: impl FnOnce(&mut Self) -> T,
    ) -> (T, Counts) {
        self.cost_of(|by, _| by == actor, operation)
    }

    pub(crate) fn cost_of<T>(
        &mut self,
        choose: impl Fn(Actor, Msr) -> bool,
        operation: impl FnOnce(&mut Self) -> T,
    ) -> (T, Counts) {
        let before = self.hw.ledger().clone();
        let done = operation(self);
        let after = self.hw.ledger().since(&before).unwrap();
        let reads = after.total(|by, what| matches!(what, Access::Rdmsr(msr) if choose(by, msr)));
        let writes = after.total(|by, what| matches!(what, Access::Wrmsr(msr) if choose(by, msr)));
        (done, (reads, writes))
    }

    /// The value of a register, uncounted.
    pub(crate) fn msr(&self, msr: Msr) -> u64 {
        self.hw.cpu(CPU).peek(msr).unwrap()
    }

    /// Puts a word of a physical slot, on somebody's behalf, as if it had been recorded.
    pub(crate) fn put(&mut self, word: Word, slot: u32, value: u64, owner: Owner) {
        let msr = self.hw.cpu(CPU).lbr_msrs().entry(word, slot).unwrap();
        let value = Owned::new(value, owner);
        self.hw.wrmsr(CPU, Actor::Guest, msr, value).unwrap();
    }

    pub(crate) fn put_tos(&mut self, tos: u64, owner: Owner) {
        let value = Owned::new(tos, owner);
        let tos = self.hw.cpu(CPU).lbr_msrs().tos.unwrap();
        self.hw.wrmsr(CPU, Actor::Guest, tos, value).unwrap();
    }

    /// A stack with `valid` entries of an owner, the youngest at `tos`; the others are empty.
    pub(crate) fn fill(&mut self, tos: u32, valid: u32, owner: Owner) {
        let msrs = *self.hw.cpu(CPU).lbr_msrs();
        for i in 0..msrs.nr {
            let slot = msrs.older(tos, i);
            for word in msrs.words_of_entry() {
                let address = 0x40_0000 + u64::from(i) * 0x100 + word as u64;
                let value = match word {
                    _ if i >= valid => 0,
                    Word::Info => u64::from(i + 1),
                    Word::From | Word::To => address,
                };
                let owner = if i < valid { owner } else { Owner::Nobody };
                self.put(word, slot, value, owner);
            }
        }
        if msrs.tos.is_some() {
            self.put_tos(u64::from(tos), owner);
        }
    }

    /// Every entry in order of age: FROM with its owner.
    pub(crate) fn froms(&self) -> Vec<Owned> {
        let processor = self.hw.cpu(CPU);
        let msrs = processor.lbr_msrs();
        let tos = msrs
            .tos
            .map_or(0, |tos| processor.peek(tos).unwrap() as u32);
        (0..msrs.nr)
            .map(|i| {
                let msr = msrs.entry(Word::From, msrs.older(tos, i)).unwrap();
                Owned::new(processor.peek(msr).unwrap(), processor.owner_of(msr))
            })
            .collect()
    }

    /// A taken branch retires.
    pub(crate) fn branch(&mut self, transfer: &Transfer) -> Retired {
        let run = Increments::branch(transfer.class, true, false, transfer.cpl_before);
        self.hw.cpu_mut(CPU).retire(Boundary {
            run: &run,
            transfer: Some(transfer),
            now: vlbr_arch::Cycles::new(0),
        })
    }

    pub(crate) fn jump(&mut self, from: u64, to: u64) -> Retired {
        let class = BranchClass::NearRelJmp;
        self.branch(&Transfer::near(class, from, to, Cpl::Ring3))
    }
}
