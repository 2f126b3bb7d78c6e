//! What a run shows, as rows.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use vlbr_host::hardware::{LbrRegister, Word};
use vlbr_host::kvm::Note;
use vlbr_host::machine::{Host, Rule};
use vlbr_host::{CpuId, Owner, TaskId, VcpuId};

use super::ledger;
use super::watch::Watch;
use crate::report::read_fidelity;
use crate::{GuestSample, MonitorTally, Outcome, VcpuTally};

/// A row: where to look, and what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Without a colon before a blank.
    pub(super) key: String,
    pub(super) value: String,
}

impl Row {
    pub(super) fn new(key: &str, value: &str) -> Self {
        Self {
            key: key.to_owned(),
            value: value.to_owned(),
        }
    }
}

/// Key of the digest of every count of every register.
pub(super) const EVERY_REGISTER: &str = "every register";

/// The rows of a policy.
pub(super) type Section = Vec<Row>;

/// Counts by name: `FROM 32, TO 32`.
pub(super) fn listed(counts: BTreeMap<String, u64>) -> String {
    let counts = counts.into_iter().filter(|(_, count)| *count != 0);
    let counts = counts.map(|(name, count)| match name.is_empty() {
        true => count.to_string(),
        false => format!("{name} {count}"),
    });
    let counts: Vec<String> = counts.collect();
    match counts.is_empty() {
        true => "none".to_owned(),
        false => counts.join(", "),
    }
}

/// The first 16 digits of SHA-256.
fn digest(text: &str) -> String {
    let sum = Sha256::digest(text);
    sum.iter().take(8).fold(String::new(), |mut out, byte| {
        // Writing to a String does not fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The rows of a run, those first that tell most.
pub(super) fn of(outcome: &Outcome, watch: &Watch) -> Section {
    let host = outcome.machine.host();
    let mut rows = Section::new();
    for (n, vcpu) in outcome.vcpus.iter().enumerate() {
        let samples = outcome.samples.get(n).map_or(&[][..], Vec::as_slice);
        of_vcpu(&mut rows, host, (n, vcpu), watch, samples);
    }
    for (n, cpu) in outcome
        .time
        .iter()
        .flat_map(|time| time.cpus.iter().enumerate())
    {
        let value = format!(
            "guests {}, costs {}, tasks {}, idle {}",
            cpu.guest, cpu.costs, cpu.host, cpu.idle
        );
        rows.push(Row::new(&format!("cpu{n} time"), &value));
    }
    for (n, which, changes) in watch.events() {
        let key = format!("host event {n}.{which}");
        rows.push(Row::new(&key, &listed(changes)));
    }
    let stacks = &outcome.host_stacks;
    rows.push(Row::new(
        "host samples",
        &format!(
            "taken {}, stale {}, entries {}, digest {:016x}",
            outcome.host_samples, stacks.stale, stacks.entries, stacks.digest
        ),
    ));
    for tally in &outcome.monitored {
        rows.push(monitored(tally));
    }
    ledger::rows(host.hardware().ledger(), host.lbr_msrs(), &mut rows);
    findings(&mut rows, outcome);
    for cpu in 0..host.hardware().cpus() {
        processor(&mut rows, host, CpuId(cpu as u16));
    }
    contexts(&mut rows, host);
    let all = ledger::every_row(host.hardware().ledger());
    rows.push(Row::new(EVERY_REGISTER, &digest(&all)));
    rows
}

fn of_vcpu(
    rows: &mut Section,
    host: &Host,
    (n, vcpu): (usize, &VcpuTally),
    watch: &Watch,
    samples: &[GuestSample],
) {
    let mut row =
        |what: &str, value: String| rows.push(Row::new(&format!("vcpu{n} {what}"), &value));
    row("LBR event", listed(watch.vcpu(n)));
    let id = VcpuId(n as u16);
    let notes = host.journal().rows().filter(|(of, ..)| *of == id);
    let order = |note: Note| Note::NAMED.iter().position(|(known, _)| *known == note);
    let mut notes: Vec<_> = notes.collect();
    notes.sort_by_key(|(_, note, _)| order(*note));
    let notes: Vec<_> = notes
        .into_iter()
        .map(|(_, note, count)| format!("{note} {count}"))
        .collect();
    row("KVM", notes.join(", "));
    let (switches, saved) = (vcpu.switches, vcpu.saved);
    row(
        "saved stacks",
        format!(
            "saves {}, full {}, entries {}; kept {}, disturbed {}, emptied {}",
            saved.saves,
            saved.full,
            saved.entries,
            switches.kept,
            switches.disturbed,
            switches.emptied
        ),
    );
    row("records", format!("kept {}", host.records_of(id)));
    row(
        "accesses",
        format!(
            "LBR {}, DEBUGCTL {}, PMU {}, slices {}",
            vcpu.lbr_accesses, vcpu.debugctl_accesses, vcpu.pmu_accesses, vcpu.slices_with_lbr
        ),
    );
    row("samples", of_samples(samples));
    row(
        "run",
        format!(
            "instructions {}, exits {} of {} recorded and {} assumed, switches {}, migrations {}",
            vcpu.instructions,
            vcpu.exits.total,
            vcpu.exits.recorded,
            vcpu.exits.assumed,
            switches.pairs,
            switches.migrations
        ),
    );
}

fn of_samples(samples: &[GuestSample]) -> String {
    let refused = samples.iter().filter(|sample| sample.refused).count();
    let foreign = samples.iter().filter(|sample| sample.foreign).count();
    let all = samples.iter().flat_map(|sample| &sample.entries);
    let entries = all.filter(|entry| entry[0] != 0).count();
    let text = samples.iter().fold(String::new(), |mut text, sample| {
        let _ = writeln!(text, "{} {:x?}", sample.at, sample.entries);
        text
    });
    format!(
        "taken {}, refused {refused}, foreign {foreign}, entries {entries}, digest {}",
        samples.len(),
        digest(&text)
    )
}

/// What user space did to a vCPU.
fn monitored(tally: &MonitorTally) -> Row {
    let mut text = format!(
        "at {} us, read {}, written {}, refused {}",
        tally.at_us,
        tally.read,
        tally.written,
        tally.refused.len()
    );
    if let Some(records) = tally.records {
        text += &format!(
            "; records {}, equal {}, lost {}, foreign {}, refused {}",
            records.held, records.equal, records.lost, records.foreign, records.refused
        );
    }
    for (register, became) in &tally.controls {
        text += &format!("; {register} {became}");
    }
    Row::new(&format!("monitor {}", tally.request), &text)
}

fn findings(rows: &mut Section, outcome: &Outcome) {
    let found = outcome.machine.findings();
    for &(rule, name) in Rule::NAMED {
        let first = found.violations().iter().find(|found| found.rule == rule);
        // Of every rule that was broken the first cases are kept.
        if let Some(first) = first {
            // The number of the input says more about how a run is fed than about what it does.
            let value = format!("{}, first {}", found.count(rule), first.particulars());
            rows.push(Row::new(&format!("rule {name}"), &value));
        }
    }
    let reads = read_fidelity(outcome);
    rows.push(Row::new(
        "guest reads",
        &format!(
            "compared {}, equal {}, stale {}, foreign {}, zero {}, missing {}",
            reads.compared, reads.equal, reads.stale, reads.foreign, reads.zero, reads.missing
        ),
    ));
}

/// What stands in a processor's LBR at the end, and what perf thinks of it.
fn processor(rows: &mut Section, host: &Host, cpu: CpuId) {
    let (processor, lbr) = (host.hardware().cpu(cpu), host.perf().lbr_cpu(cpu));
    let msrs = processor.lbr_msrs();
    let mut owners: BTreeMap<Owner, u64> = BTreeMap::new();
    for n in 0..msrs.nr {
        let owner = processor.owners().of(LbrRegister::Entry(Word::From, n));
        *owners.entry(owner).or_default() += 1;
    }
    let owners: Vec<_> = owners
        .into_iter()
        .map(|(owner, count)| format!("{count} of {owner}"))
        .collect();
    let mut value = owners.join(", ");
    let named = [("TOS", msrs.tos), ("filter", msrs.filter())];
    for (name, msr) in named {
        if let Some(now) = msr.and_then(|msr| processor.peek(msr)) {
            let _ = write!(value, ", {name} {now:#x}");
        }
    }
    let _ = write!(
        value,
        "; users {}, slot references {}",
        lbr.users(),
        host.perf().shared_slot(cpu).refs
    );
    rows.push(Row::new(&format!("{cpu} LBR"), &value));
}

/// What perf keeps of each task's LBR.
fn contexts(rows: &mut Section, host: &Host) {
    let tasks = (0..).map(TaskId);
    let tasks = tasks.map_while(|id| host.task(id).map(|task| (id, task)));
    for (id, task) in tasks {
        if let Some(context) = host.perf().lbr_context(id) {
            let value = format!(
                "{:?}, valid {}, users {}, log {}",
                context.stack_state(),
                context.valid_lbrs(),
                context.callstack_users(),
                context.log_id()
            );
            rows.push(Row::new(&format!("context of {}", task.name), &value));
        }
    }
}
