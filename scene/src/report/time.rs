//! Where the clocks of a run by models went.

use serde::Serialize;
use vlbr_cpu::ledger::{CostItem, Event};

use super::table::{aligned, figure, grouped};
use super::{Costs, Point};
use crate::{CpuTime, Outcome};

/// Clocks of all processors by what they were for. Their sum is all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TimeShares {
    /// Guests executed.
    pub guest: u64,
    /// VM exits and entries, those for accesses to LBR MSRs left out.
    pub transitions: u64,
    /// Accesses to LBR MSRs, by whomever, with the exits for them.
    pub lbr: u64,
    /// Other MSR accesses, and accesses to VMCS fields.
    pub other: u64,
    /// Tasks of the host.
    pub host: u64,
    /// Nothing ran.
    pub idle: u64,
}

impl TimeShares {
    fn of(time: CpuTime, costs: &Costs) -> Self {
        let cycles = |cycles: i64| u64::try_from(cycles).unwrap_or(0);
        let transitions = costs.rows.iter().filter(|row| {
            matches!(
                row.event,
                Event::VmExit { .. } | Event::VmEntry | Event::VmEntryFailure(_)
            )
        });
        let transitions: u64 = transitions.map(|row| cycles(row.cycles.default)).sum();
        let of_lbr = costs.lbr.get(&CostItem::RoundTrip);
        let transitions = transitions - of_lbr.map_or(0, |round| cycles(round.default));
        let lbr = cycles(costs.lbr_cycles().default);
        Self {
            guest: time.guest,
            transitions,
            lbr,
            other: time.costs.saturating_sub(transitions + lbr),
            host: time.host,
            idle: time.idle,
        }
    }

    /// All clocks.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.busy() + self.host + self.idle
    }

    /// Clocks for guests: their own, and what the host did for them.
    #[must_use]
    pub const fn busy(&self) -> u64 {
        self.guest + self.transitions + self.lbr + self.other
    }

    /// Names and clocks.
    const fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("guests", self.guest),
            ("transitions", self.transitions),
            ("LBR", self.lbr),
            ("other", self.other),
            ("tasks", self.host),
            ("idle", self.idle),
        ]
    }

    /// Each as a part of all.
    fn percent(&self) -> [String; 6] {
        let all = self.total().max(1) as f64;
        self.named()
            .map(|(_, clocks)| format!("{:.2} %", 100.0 * clocks as f64 / all))
    }
}

/// The time of a run under a policy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PolicyTime {
    /// What it went to.
    #[serde(flatten)]
    pub shares: TimeShares,
    /// Instructions of guests.
    pub instructions: u64,
    /// Clocks for guests by their instructions.
    pub per_instruction: Option<f64>,
    /// That against the yardstick's.
    pub slowdown: Option<f64>,
}

impl PolicyTime {
    /// That of a run; `None` if its time was nominal.
    pub(super) fn of(outcome: &Outcome, costs: &Costs) -> Option<Self> {
        let time = outcome.time.as_ref()?;
        let cpus = time
            .cpus
            .iter()
            .fold(CpuTime::default(), |sum, cpu| sum.plus(*cpu));
        let shares = TimeShares::of(cpus, costs);
        let instructions = outcome.vcpus.iter().map(|vcpu| vcpu.instructions).sum();
        Some(Self {
            shares,
            instructions,
            per_instruction: (instructions != 0)
                .then(|| shares.busy() as f64 / instructions as f64),
            slowdown: None,
        })
    }

    /// Beside the yardstick's.
    pub(super) fn against(mut self, ideal: Option<&Self>) -> Self {
        let ideal = ideal.and_then(|ideal| ideal.per_instruction);
        let both = self.per_instruction.zip(ideal);
        self.slowdown = both.map(|(own, ideal)| own / ideal);
        self
    }
}

/// The time of a vCPU's guest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GuestTime {
    /// Clocks in which it executed.
    pub clocks: u64,
    /// Instructions a clock.
    pub ipc: Option<f64>,
}

/// The time of a run, processor by processor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TimeReport {
    /// All processors.
    pub all: TimeShares,
    /// Each processor.
    pub cpus: Vec<CpuTime>,
    /// Each vCPU.
    pub guests: Vec<GuestTime>,
}

impl TimeReport {
    /// That of a run; `None` if its time was nominal.
    pub(super) fn of(outcome: &Outcome, costs: &Costs) -> Option<Self> {
        let time = outcome.time.as_ref()?;
        let guests = time.guests.iter().zip(&outcome.vcpus);
        let guests = guests.map(|(&clocks, vcpu)| GuestTime {
            clocks,
            ipc: (clocks != 0).then(|| vcpu.instructions as f64 / clocks as f64),
        });
        Some(Self {
            all: PolicyTime::of(outcome, costs)?.shares,
            cpus: time.cpus.clone(),
            guests: guests.collect(),
        })
    }

    /// Lines of it.
    pub(super) fn text(&self) -> String {
        let head = ["clocks", "guests", "costs", "tasks", "idle", "all"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for (n, cpu) in self.cpus.iter().enumerate() {
            let clocks = [cpu.guest, cpu.costs, cpu.host, cpu.idle, cpu.total()];
            let mut row = vec![format!("cpu{n}")];
            row.extend(clocks.map(grouped));
            rows.push(row);
        }
        let mut text = aligned(&rows, 1);
        let named = self.all.named().into_iter().zip(self.all.percent());
        let shares: Vec<String> = named
            .map(|((name, clocks), percent)| format!("{name} {} ({percent})", grouped(clocks)))
            .collect();
        text += &format!("clocks of all: {}\n", shares.join(", "));
        for (n, guest) in self.guests.iter().enumerate() {
            let ipc = guest.ipc.map_or_else(|| "-".to_owned(), figure);
            let clocks = grouped(guest.clocks);
            text += &format!("vcpu{n}: {clocks} clocks in the guest, {ipc} instructions a clock\n");
        }
        text
    }
}

/// Where the clocks went, policy by policy; empty if time is nominal.
pub(super) fn table(point: &Point) -> String {
    let head = [
        "policy",
        "Linux",
        "instructions",
        "clocks",
        "guests",
        "transitions",
        "LBR",
        "other",
        "tasks",
        "idle",
        "/instruction",
        "/ideal",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), exact);
    for row in &point.rows {
        let Some(time) = &row.time else {
            continue;
        };
        let mut cells = vec![row.policy.clone(), row.kernel.clone()];
        cells.extend([time.instructions, time.shares.total()].map(grouped));
        cells.extend(time.shares.percent());
        cells.extend([time.per_instruction, time.slowdown].map(optional));
        rows.push(cells);
    }
    match rows.len() {
        1 => String::new(),
        _ => aligned(&rows, 2),
    }
}

/// What the columns of [`table`] are.
pub(super) const LEGEND: &str = "clocks: of all processors, in parts of them. transitions: VM exits and entries but those for LBR accesses. \
     LBR: accesses with their exits. other: other MSRs and VMCS fields. /instruction: clocks but those of tasks and \
     idle; /ideal: that against ideal's";

/// Ratios near 1 differ in the fourth place.
fn exact(value: f64) -> String {
    format!("{value:.4}")
}
