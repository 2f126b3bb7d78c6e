//! What of a machine is drawn: after each input what changed.

use std::collections::BTreeMap;
use std::io::{self, Write};

use vlbr_cpu::ledger::{Actor, Event};
use vlbr_host::hardware::{LbrRegister, Running, Word};
use vlbr_host::kvm::{Note, Place};
use vlbr_host::machine::Machine;
use vlbr_host::perf::EventId;
use vlbr_host::{CpuId, Owner, VcpuId};

use super::tracks::{Group, Track, Tracks, Value};
use crate::Scene;

/// Who moves records, with what that is called.
const MOVERS: [(Actor, &str); 6] = [
    (Actor::HostSave, "save"),
    (Actor::HostRestore, "restore"),
    (Actor::HostReset, "reset"),
    (Actor::HostPmi, "read by PMI"),
    (Actor::WorldSwitch, "swap"),
    (Actor::ExitHandler, "emulated access"),
];

/// Notes of KVM that are drawn beside a vCPU's LBR.
const NOTES: [Note; 7] = [
    Note::EventCreated,
    Note::CreationFailed,
    Note::EventReleased,
    Note::Opened,
    Note::Closed,
    Note::Gp,
    Note::VirtualPmi,
];

/// Levels of exits.
const LEVELS: [(Note, &str); 3] = [
    (Note::FastPath, "fast path"),
    (Note::RunLoop, "run loop"),
    (Note::UserSpace, "user space"),
];

/// A machine as it was drawn last.
#[derive(Debug)]
pub(crate) struct Watch<'w> {
    tracks: Tracks<'w>,
    /// Clocks a microsecond.
    mhz: u64,
    tasks: Vec<String>,
    /// Names of the scene's events.
    names: Vec<String>,
    cpus: Vec<SeenCpu>,
    vcpus: Vec<SeenVcpu>,
    events: BTreeMap<EventId, SeenEvent>,
    /// LBR accesses by mover: RDMSR, WRMSR, others.
    moved: [[u64; 3]; MOVERS.len() + 1],
    /// VM exits by reason.
    exits: BTreeMap<String, u64>,
    /// Latest time of all.
    end: u64,
}

#[derive(Clone, Debug, Default)]
struct SeenCpu {
    task: Option<u32>,
    guest: bool,
    owner: Option<Owner>,
}

#[derive(Clone, Debug, Default)]
struct SeenVcpu {
    place: Option<Place>,
    levels: [u64; LEVELS.len()],
    notes: [u64; NOTES.len()],
    lbr: Option<String>,
}

#[derive(Clone, Debug)]
struct SeenEvent {
    track: Track,
    state: Option<String>,
}

impl<'w> Watch<'w> {
    /// Nothing drawn yet. `tasks` are the names of the machine's tasks, by number.
    pub(crate) fn new(out: &'w mut dyn Write, scene: &Scene, tasks: Vec<String>) -> Self {
        let mut tracks = Tracks::new(out);
        for cpu in 0..u32::from(scene.cpus) {
            for (group, name) in [(Group::Cpu, ""), (Group::Lbr, " LBR")] {
                tracks.name(track(group, cpu), &format!("cpu{cpu}{name}"));
            }
        }
        for (n, vcpu) in scene.vcpu.iter().enumerate() {
            for (group, name) in [(Group::Vcpu, ""), (Group::VcpuLbr, " LBR event")] {
                let name = format!("vcpu{n} of {}{name}", vcpu.vm);
                tracks.name(track(group, n as u32), &name);
            }
        }
        Self {
            tracks,
            mhz: scene.mhz.into(),
            tasks,
            names: scene
                .event
                .iter()
                .map(|event| event.event.clone())
                .collect(),
            cpus: vec![SeenCpu::default(); scene.cpus.into()],
            vcpus: vec![SeenVcpu::default(); scene.vcpu.len()],
            events: BTreeMap::new(),
            moved: [[0; 3]; MOVERS.len() + 1],
            exits: BTreeMap::new(),
            end: 0,
        }
    }

    /// Nanoseconds of so many clocks.
    fn ns(&mut self, clocks: u64) -> u64 {
        let ns = u128::from(clocks) * 1000 / u128::from(self.mhz.max(1));
        let ns = u64::try_from(ns).unwrap_or(u64::MAX);
        self.end = self.end.max(ns);
        ns
    }

    /// Draws what changed on `cpu`, or because of what happened there. `now` are the clocks of all,
    /// `host` the events of the scene that are open, by their number in it.
    pub(crate) fn changed(
        &mut self,
        machine: &Machine,
        cpu: usize,
        now: &[u64],
        host: &[(usize, EventId)],
    ) {
        let here = now.get(cpu).copied().unwrap_or(0);
        let here = self.ns(here);
        for (n, clocks) in now.iter().enumerate() {
            let at = self.ns(*clocks);
            self.processor(machine, n, at);
        }
        self.moves(machine, cpu, here);
        let mut reasons = self.new_exits(machine);
        for n in 0..self.vcpus.len() {
            let id = VcpuId(n as u16);
            let on = machine.host().vcpu(id).cpu;
            let on = on.map_or(cpu, CpuId::index);
            let at = now.get(on).copied().unwrap_or(0);
            let at = self.ns(at);
            self.vcpu(machine, n, at, &mut reasons);
        }
        self.host_events(machine, here, host);
    }

    /// A PMI was taken.
    pub(crate) fn pmi(&mut self, cpu: usize, now: u64, in_guest: bool, samples: u64) {
        let at = self.ns(now);
        let of = if in_guest { "guest" } else { "host" };
        let args = [("in", Value::Text(of)), ("samples", Value::Number(samples))];
        self.tracks
            .instant(track(Group::Lbr, cpu as u32), at, "PMI", &args);
    }

    fn processor(&mut self, machine: &Machine, n: usize, at: u64) {
        let cpu = CpuId(n as u16);
        let host = machine.host();
        let processor = host.hardware().cpu(cpu);
        let task = host.current(cpu).map(|task| task.0);
        let guest = matches!(processor.running(), Running::Guest(_));
        let line = track(Group::Cpu, n as u32);
        let seen = self.cpus[n].clone();
        if seen.guest && (!guest || seen.task != task) {
            self.tracks.end(line, at);
        }
        if seen.task != task {
            if seen.task.is_some() {
                self.tracks.end(line, at);
            }
            if let Some(task) = task {
                let name = self.tasks.get(task as usize);
                let name = name.map_or("task", String::as_str).to_owned();
                self.tracks.begin(line, at, &name);
            }
        }
        if guest && (!seen.guest || seen.task != task) {
            self.tracks.begin(line, at, "guest");
        }
        // Whose the youngest record is; of the legacy LBR its number moves with it.
        let register = match host.lbr_msrs().tos {
            Some(_) => LbrRegister::Tos,
            None => LbrRegister::Entry(Word::From, 0),
        };
        let owner = processor.owners().of(register);
        if seen.owner != Some(owner) {
            let line = track(Group::Lbr, n as u32);
            if seen.owner.is_some_and(|seen| seen != Owner::Nobody) {
                self.tracks.end(line, at);
            }
            if owner != Owner::Nobody {
                self.tracks.begin(line, at, &format!("records of {owner}"));
            }
        }
        self.cpus[n] = SeenCpu {
            task,
            guest,
            owner: Some(owner),
        };
    }

    /// Accesses that moved records.
    fn moves(&mut self, machine: &Machine, cpu: usize, at: u64) {
        let msrs = machine.host().lbr_msrs();
        let mut moved = [[0u64; 3]; MOVERS.len() + 1];
        for (actor, event, count) in machine.ledger().rows() {
            let mover = MOVERS.iter().position(|(mover, _)| *mover == actor);
            let place = match (mover, event) {
                (Some(mover), Event::Rdmsr(msr)) if msrs.register(msr).is_some() => (mover, 0),
                (Some(mover), Event::Wrmsr(msr)) if msrs.register(msr).is_some() => (mover, 1),
                (Some(mover), Event::Xsaves | Event::Xrstors) => (mover, 2),
                (_, Event::Transfer(_, msr)) if msrs.register(msr).is_some() => (MOVERS.len(), 2),
                _ => continue,
            };
            moved[place.0][place.1] += count;
        }
        for (n, (before, after)) in self.moved.iter().zip(&moved).enumerate() {
            let [reads, writes, others] =
                [0, 1, 2].map(|kind| after[kind].saturating_sub(before[kind]));
            if reads + writes + others == 0 {
                continue;
            }
            let name = MOVERS.get(n).map_or("MSR areas", |(_, name)| *name);
            let args = [
                ("RDMSR", Value::Number(reads)),
                ("WRMSR", Value::Number(writes)),
                ("by processor", Value::Number(others)),
            ];
            self.tracks
                .instant(track(Group::Lbr, cpu as u32), at, name, &args);
        }
        self.moved = moved;
    }

    /// Reasons of exits that are new, each as often as it came.
    fn new_exits(&mut self, machine: &Machine) -> Vec<String> {
        let mut exits: BTreeMap<String, u64> = BTreeMap::new();
        for (_, event, count) in machine.ledger().rows() {
            if let Event::VmExit { reason, msr } = event {
                let name = match msr {
                    Some(msr) => format!("{reason} {msr}"),
                    None => reason.to_string(),
                };
                *exits.entry(name).or_default() += count;
            }
        }
        let mut new = Vec::new();
        for (name, count) in &exits {
            let before = self.exits.get(name).copied().unwrap_or(0);
            for _ in before..*count {
                new.push(name.clone());
            }
        }
        self.exits = exits;
        new.reverse();
        new
    }

    fn vcpu(&mut self, machine: &Machine, n: usize, at: u64, reasons: &mut Vec<String>) {
        let id = VcpuId(n as u16);
        let (host, journal) = (machine.host(), machine.host().journal());
        let state = host.vcpu(id);
        let line = track(Group::Vcpu, n as u32);
        for (level, (note, name)) in LEVELS.iter().enumerate() {
            let count = journal.count(id, *note);
            for _ in self.vcpus[n].levels[level]..count {
                let reason = reasons.pop().unwrap_or_default();
                let args = [("handled in", Value::Text(name))];
                self.tracks
                    .instant(line, at, &format!("exit: {reason}"), &args);
            }
            self.vcpus[n].levels[level] = count;
        }
        let place = Some(state.place);
        if self.vcpus[n].place != place {
            if self.vcpus[n].place.is_some() {
                self.tracks.end(line, at);
            }
            self.tracks.begin(line, at, state.place.name());
            self.vcpus[n].place = place;
        }
        let line = track(Group::VcpuLbr, n as u32);
        for (which, note) in NOTES.iter().enumerate() {
            let count = journal.count(id, *note);
            for _ in self.vcpus[n].notes[which]..count {
                self.tracks.instant(line, at, &note.to_string(), &[]);
            }
            self.vcpus[n].notes[which] = count;
        }
        let event = state.lbr.event.and_then(|event| host.perf().event(event));
        let lbr = event.map(said);
        let before = std::mem::replace(&mut self.vcpus[n].lbr, lbr);
        self.slice(line, at, before, self.vcpus[n].lbr.clone());
    }

    fn host_events(&mut self, machine: &Machine, at: u64, host: &[(usize, EventId)]) {
        let open = |id: &EventId| host.iter().any(|(_, open)| open == id);
        let gone = self.events.iter().filter(|(id, _)| !open(id));
        let gone: Vec<_> = gone.map(|(id, seen)| (*id, seen.clone())).collect();
        for (id, seen) in gone {
            self.slice(seen.track, at, seen.state, None);
            self.events.remove(&id);
        }
        for (number, id) in host {
            let now = machine.host().perf().event(*id).map(said);
            if !self.events.contains_key(id) {
                let track = track(Group::Event, id.0);
                let name = self.names.get(*number).map_or("", String::as_str);
                self.tracks.name(track, &format!("{id}: {name}"));
                let seen = SeenEvent { track, state: None };
                self.events.insert(*id, seen);
            }
            if let Some(seen) = self.events.get_mut(id) {
                let line = seen.track;
                let before = std::mem::replace(&mut seen.state, now.clone());
                self.slice(line, at, before, now);
            }
        }
    }

    /// A state that lasts until it changes.
    fn slice(&mut self, line: Track, at: u64, before: Option<String>, after: Option<String>) {
        if before == after {
            return;
        }
        if before.is_some() {
            self.tracks.end(line, at);
        }
        if let Some(name) = after {
            self.tracks.begin(line, at, &name);
        }
    }

    /// The run is over.
    ///
    /// # Errors
    /// The first error of writing.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.tracks.finish(self.end)
    }
}

const fn track(group: Group, number: u32) -> Track {
    Track { group, number }
}

/// State and place of an event.
fn said(event: &vlbr_host::perf::Event) -> String {
    match event.oncpu() {
        Some(cpu) => format!("{:?} on {cpu}", event.state()),
        None => format!("{:?}", event.state()),
    }
}
