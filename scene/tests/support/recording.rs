//! Recordings that no machine made: a small host with guests, printed as `perf script` and as
//! `trace-cmd report` print theirs.

use std::fmt::Write as _;

/// An event of a recording.
struct Event {
    at: u64,
    cpu: usize,
    thread: u32,
    what: What,
}

enum What {
    Entry,
    Exit(&'static str),
    Msr(bool, u32),
    UserSpace,
    Switch { state: &'static str, next: u32 },
}

/// A reason with how often it comes, in a thousand exits.
const REASONS: [(&str, u64); 7] = [
    ("EXTERNAL_INTERRUPT", 300),
    ("MSR_WRITE", 260),
    ("HLT", 120),
    ("EPT_VIOLATION", 120),
    ("IO_INSTRUCTION", 80),
    ("CPUID", 60),
    ("PREEMPTION_TIMER", 60),
];

const TASKS: [(u32, &str); 3] = [
    (77, "kworker/0:1"),
    (95, "kworker/1:2"),
    (900, "backup [daily]"),
];
/// Thread of vCPU `n`.
const VCPU: u32 = 1240;
const PROCESS: u32 = 1234;

/// A host of two processors, three vCPUs of one VM and three tasks.
pub(crate) struct Recorded {
    events: Vec<Event>,
    random: u64,
    cpus: [Cpu; 2],
    vcpus: [Vcpu; 3],
    /// When each task comes next.
    tasks: [u64; 3],
}

#[derive(Clone, Default)]
struct Cpu {
    running: Option<u32>,
    ready: Vec<u32>,
    /// When the running task leaves, or the slice of a vCPU ends.
    until: u64,
    /// KVM handles an exit until then, and nothing comes between.
    busy: u64,
}

#[derive(Clone, Copy, Default)]
struct Vcpu {
    cpu: usize,
    next_exit: u64,
    wakes: Option<u64>,
}

const fn vcpu_of(thread: u32) -> Option<usize> {
    match thread {
        1240..1243 => Some((thread - VCPU) as usize),
        _ => None,
    }
}

fn name(thread: u32, cpu: usize) -> String {
    match (thread, vcpu_of(thread)) {
        (0, _) => format!("swapper/{cpu}"),
        (_, Some(n)) => format!("CPU {n}/KVM"),
        _ => {
            let task = TASKS.iter().find(|(id, _)| *id == thread);
            task.map_or("?", |(_, name)| *name).to_owned()
        }
    }
}

impl Recorded {
    /// So many microseconds of it.
    pub(crate) fn new(us: u64) -> Self {
        let mut host = Self {
            events: Vec::new(),
            random: 7,
            cpus: Default::default(),
            vcpus: [Vcpu::default(); 3],
            tasks: [150_000, 310_000, 520_000],
        };
        for (n, cpu) in [(0, 0), (1, 1), (2, 1)] {
            host.vcpus[n].cpu = cpu;
            host.vcpus[n].wakes = Some(1000 * (n as u64 + 1));
        }
        while host.step(us * 1000) {}
        host.events.sort_by_key(|event| event.at);
        host
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.random >> 33) % limit
    }

    fn around(&mut self, mean: u64) -> u64 {
        mean / 2 + self.below(mean)
    }

    fn push(&mut self, at: u64, cpu: usize, what: What) {
        let thread = self.cpus[cpu].running.unwrap_or(0);
        self.events.push(Event {
            at,
            cpu,
            thread,
            what,
        });
    }

    /// What comes next. `false`: the time is over.
    fn step(&mut self, end: u64) -> bool {
        let mut next = (u64::MAX, 0, 0);
        for (n, at) in self.tasks.iter().enumerate() {
            next = next.min((*at, 0, n));
        }
        for (n, vcpu) in self.vcpus.iter().enumerate() {
            next = next.min((vcpu.wakes.unwrap_or(u64::MAX), 1, n));
        }
        for (n, cpu) in self.cpus.iter().enumerate() {
            let Some(running) = cpu.running else { continue };
            match vcpu_of(running) {
                Some(vcpu) => {
                    next = next.min((self.vcpus[vcpu].next_exit, 2, n));
                    if !cpu.ready.is_empty() {
                        next = next.min((cpu.until.max(1), 3, n));
                    }
                }
                None => next = next.min((cpu.until, 3, n)),
            }
        }
        let (at, kind, n) = next;
        if at >= end {
            return false;
        }
        match kind {
            0 => self.task(at, n),
            1 => self.wake(at, n),
            2 => self.exit(at, n),
            _ => self.leave(at, n),
        }
        true
    }

    fn task(&mut self, at: u64, n: usize) {
        let cpu = [0, 1, 0][n];
        let at = at.max(self.cpus[cpu].busy);
        self.tasks[n] = at + self.around([400_000, 500_000, 2_000_000][n]);
        let thread = TASKS[n].0;
        match self.cpus[cpu].running {
            Some(running) if vcpu_of(running).is_some() => {
                self.push(at, cpu, What::Exit("EXTERNAL_INTERRUPT"));
                self.cpus[cpu].ready.insert(0, running);
                self.switch(at + 1000, cpu, "R+", Some(thread));
            }
            None => self.switch(at, cpu, "R", Some(thread)),
            Some(_) => {}
        }
    }

    fn wake(&mut self, at: u64, n: usize) {
        self.vcpus[n].wakes = None;
        // The second vCPU wanders.
        if n == 1 && self.below(4) == 0 {
            self.vcpus[n].cpu ^= 1;
        }
        let cpu = self.vcpus[n].cpu;
        let thread = VCPU + n as u32;
        if self.cpus[cpu].running.is_none() {
            let at = at.max(self.cpus[cpu].busy);
            self.switch(at, cpu, "R", Some(thread));
        } else {
            self.cpus[cpu].ready.push(thread);
        }
    }

    fn exit(&mut self, at: u64, cpu: usize) {
        let Some(n) = self.cpus[cpu].running.and_then(vcpu_of) else {
            return;
        };
        let mut pick = self.below(1000);
        let reason = REASONS.iter().find(|(_, weight)| {
            let found = pick < *weight;
            pick = pick.saturating_sub(*weight);
            found
        });
        let reason = reason.map_or("HLT", |(reason, _)| *reason);
        self.push(at, cpu, What::Exit(reason));
        let mut entry = at + 1500;
        match reason {
            "MSR_WRITE" => {
                let msr = [0x6e0, 0x6e0, 0x6e0, 0x830, 0x6e0, 0x48][self.below(6) as usize];
                self.push(at + 500, cpu, What::Msr(true, msr));
            }
            "IO_INSTRUCTION" if self.below(2) == 0 => {
                self.push(at + 2000, cpu, What::UserSpace);
                entry = at + 9000;
            }
            "HLT" if self.below(10) < 8 => {
                self.vcpus[n].wakes = Some(at + 3000 + self.around(120_000));
                return self.next_task(at + 2000, cpu, "S");
            }
            _ => {}
        }
        self.push(entry, cpu, What::Entry);
        self.cpus[cpu].busy = entry + 100;
        self.vcpus[n].next_exit = entry + self.around(30_000);
    }

    /// The task sleeps, or the slice is over.
    fn leave(&mut self, at: u64, cpu: usize) {
        let at = at.max(self.cpus[cpu].busy);
        match self.cpus[cpu].running {
            Some(running) if vcpu_of(running).is_some() => {
                self.push(at, cpu, What::Exit("EXTERNAL_INTERRUPT"));
                self.cpus[cpu].ready.push(running);
                self.next_task(at + 1000, cpu, "R");
            }
            _ => self.next_task(at, cpu, "I"),
        }
    }

    fn next_task(&mut self, at: u64, cpu: usize, state: &'static str) {
        let next = match self.cpus[cpu].ready.is_empty() {
            true => None,
            false => Some(self.cpus[cpu].ready.remove(0)),
        };
        self.switch(at, cpu, state, next);
    }

    fn switch(&mut self, at: u64, cpu: usize, state: &'static str, next: Option<u32>) {
        let said = What::Switch {
            state,
            next: next.unwrap_or(0),
        };
        self.push(at, cpu, said);
        self.cpus[cpu].busy = at + 900;
        self.cpus[cpu].running = next;
        match next.and_then(vcpu_of) {
            Some(n) => {
                self.push(at + 800, cpu, What::Entry);
                self.vcpus[n].next_exit = at + 800 + self.around(30_000);
                self.cpus[cpu].until = at + 250_000;
            }
            None => self.cpus[cpu].until = at + self.around(14_000),
        }
    }

    /// As `perf script -F +tgid` prints it, with the forms of Linux 6.x.
    pub(crate) fn perf_script(&self) -> String {
        let mut out = String::from(
            "# ========\n# captured on    : made by scene/tests/support/recording.rs\n# arch : x86_64\n# ========\n#\n",
        );
        for event in &self.events {
            let (name, process) = (name(event.thread, event.cpu), event.process());
            let time = format!(
                "{}.{:09}",
                4100 + event.at / 1_000_000_000,
                event.at % 1_000_000_000
            );
            let _ = write!(
                out,
                "{name:>16} {process:>5}/{:<5} [{:03}] {time:>18}: ",
                event.thread, event.cpu
            );
            let vcpu = vcpu_of(event.thread).unwrap_or(0);
            let _ = match &event.what {
                What::Entry => writeln!(
                    out,
                    "kvm:kvm_entry: vcpu {vcpu}, rip 0xffffffff810{:05x}",
                    event.at % 0xfffff
                ),
                What::Exit(reason) => writeln!(
                    out,
                    "kvm:kvm_exit: vcpu {vcpu} reason {reason} rip 0xffffffff810{:05x} info1 0x0000000000000000 info2 \
                     0x0000000000000000 intr_info 0x00000000 error_code 0x00000000",
                    event.at % 0xfffff
                ),
                What::Msr(write, msr) => writeln!(
                    out,
                    "kvm:kvm_msr: msr_{} {msr:x} = {:#x}",
                    if *write { "write" } else { "read" },
                    event.at
                ),
                What::UserSpace => writeln!(out, "kvm:kvm_userspace_exit: reason KVM_EXIT_IO (2)"),
                What::Switch { state, next } => writeln!(
                    out,
                    "sched:sched_switch: prev_comm={name} prev_pid={} prev_prio=120 prev_state={state} ==> \
                     next_comm={} next_pid={next} next_prio=120",
                    event.thread,
                    self::name(*next, event.cpu)
                ),
            };
        }
        out
    }

    /// As `trace-cmd report -t` prints it, with the plugins of libtraceevent.
    pub(crate) fn trace_cmd(&self) -> String {
        let mut out = String::from("version = 7\ncpus=2\n");
        for event in &self.events {
            let name = name(event.thread, event.cpu);
            let time = format!(
                "{}.{:09}",
                4100 + event.at / 1_000_000_000,
                event.at % 1_000_000_000
            );
            let task = format!("{name}-{}", event.thread);
            let _ = write!(out, "{task:>22} [{:03}] d..1. {time}: ", event.cpu);
            let vcpu = vcpu_of(event.thread).unwrap_or(0);
            let _ = match &event.what {
                What::Entry => writeln!(
                    out,
                    "kvm_entry:             vcpu {vcpu} rip 0xffffffff810{:05x}",
                    event.at % 0xfffff
                ),
                What::Exit(reason) => writeln!(
                    out,
                    "kvm_exit:             reason {reason} rip 0xffffffff810{:05x} info 0 0",
                    event.at % 0xfffff
                ),
                What::Msr(write, msr) => writeln!(
                    out,
                    "kvm_msr:              msr_{} {msr:x} = {:#x}",
                    if *write { "write" } else { "read" },
                    event.at
                ),
                What::UserSpace => writeln!(out, "kvm_userspace_exit:   reason KVM_EXIT_IO (2)"),
                What::Switch { state, next } => writeln!(
                    out,
                    "sched_switch:         {name}:{} [120] {} ==> {}:{next} [120]",
                    event.thread,
                    &state[..1],
                    self::name(*next, event.cpu)
                ),
            };
        }
        out
    }
}

impl Event {
    const fn process(&self) -> u32 {
        match vcpu_of(self.thread) {
            Some(_) => PROCESS,
            None => self.thread,
        }
    }
}
