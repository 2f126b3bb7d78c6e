//! The slow road: every transfer through the device itself, in order. For quirks and options under
//! which a record depends on its predecessors, and for events that change the LBR's registers.

use vlbr_arch::{Cycles, Msr};
use vlbr_cpu::Exit;
use vlbr_cpu::run::Sample;
use vlbr_host::perf::X86Br;
use vlbr_lbr::{Lbr, Record, Verdict};
use vlbr_pmu::{Event, Sampler};
use vlbr_traces::perfdata::BranchEntry;
use vlbr_traces::vlt::ChunkBuffer;

use crate::session::{Consumer, ReplayError, Session, Summary, ThreadSummary, Totals};

/// One thread's device and counter.
#[derive(Clone)]
struct Thread {
    lbr: Lbr,
    sampler: Sampler,
    totals: Totals,
    /// `IA32_DEBUGCTL` and `IA32_LBR_CTL` as perf programmed them, if its handler writes them.
    enable: Vec<(Msr, u64)>,
}

/// As [`Session::run`].
pub(crate) fn run(
    session: &Session<'_>,
    consumer: &mut dyn Consumer,
    progress: &mut dyn FnMut(u64),
) -> Result<Summary, ReplayError> {
    let trace = session.trace;
    let code = trace.code();
    let types = session.lbr.types(code);
    let programmed = session.lbr.lbr();
    let enable = [Msr::DEBUGCTL, Msr::LBR_CTL]
        .into_iter()
        .filter(|_| session.lbr.rewritten_by_handler())
        .filter_map(|msr| Some((msr, programmed.rdmsr(msr).ok()?)))
        .collect();
    let initial = Thread {
        lbr: programmed.clone(),
        sampler: Sampler::new(session.period),
        totals: Totals::default(),
        enable,
    };
    let mut threads = vec![initial; trace.threads().len()];
    let mut summary = Summary::default();
    let mut buffer = ChunkBuffer::default();
    let mut before = 0;
    let read = |record: &Record, entries: &mut Vec<BranchEntry>, summary: &mut Summary| {
        let kind = types
            .get(&(record.from, record.to, record.abort))
            .copied()
            .unwrap_or(X86Br::NONE);
        let rendered = session.lbr.read(record, kind);
        if record.is_empty() && session.stops_at_empty() {
            return false;
        }
        if rendered.keep && !(record.is_empty() && session.lbr.filter().software_filters()) {
            entries.push(rendered.entry);
        } else {
            summary.removed += 1;
        }
        true
    };
    for index in session.region.chunks(trace.chunks().len()) {
        consumer.chunk(index, before)?;
        let chunk = trace.decode(index, &mut buffer)?;
        let (start, end) = session.region.steps(index, chunk.ids.len());
        let number = trace.chunks()[index].thread.0 as usize;
        let mut done = 0_u64;
        for position in start..end {
            let id = chunk.map[chunk.ids.local(position)];
            let step = code.step(id);
            let transfer = code.transfer(id);
            let branch = code.retires_branch(id);
            let counted = session
                .event
                .increment(step.retired, code.is_user(id), branch, transfer);
            let by_event = matches!(step.exit, Exit::Event { .. });
            let thread = &mut threads[number];
            let mut at_end = 0;
            let mut samples = Vec::new();
            if counted > 0 {
                if session.event.event == Event::Instructions {
                    for retired in 1..=step.retired {
                        if thread.sampler.advance(1) > 0 {
                            samples.push(retired);
                        }
                    }
                } else if thread.sampler.advance(counted.into()) > 0 {
                    samples.push(step.retired);
                }
            }
            let mut take = |thread: &mut Thread, retired: u16, after_exit: bool| {
                let mut entries = Vec::new();
                for record in thread.lbr.stack() {
                    if !read(&record, &mut entries, &mut summary) {
                        break;
                    }
                }
                let net = thread.lbr.tos() as i64;
                let instructions = done + u64::from(retired);
                let sample = Sample {
                    step: id,
                    retired,
                    after_exit,
                    instructions,
                    net,
                };
                session.hand_out(consumer, &mut summary, &sample, number, before, &entries)?;
                for &(msr, value) in &thread.enable {
                    thread
                        .lbr
                        .wrmsr(msr, value)
                        .map_err(crate::device::DeviceError::Fault)?;
                }
                Ok::<(), ReplayError>(())
            };
            for &retired in &samples {
                if retired < step.retired || by_event {
                    take(thread, retired, false)?;
                } else {
                    at_end += 1;
                }
            }
            if let Some(transfer) = transfer {
                let now = Cycles::new(0);
                match thread.lbr.retire(transfer, now) {
                    Verdict::Push => thread.totals.pushes += 1,
                    Verdict::Pop => thread.totals.pops += 1,
                    Verdict::Ignore => {}
                }
            }
            for _ in 0..at_end {
                take(thread, step.retired, true)?;
            }
            done += u64::from(step.retired);
            thread.totals.events += u64::from(counted);
        }
        threads[number].totals.instructions += done;
        before += done;
        progress(before);
    }
    for thread in &threads {
        let mut last_stack = Vec::new();
        let mut ignored = Summary::default();
        for record in thread.lbr.stack() {
            if !read(&record, &mut last_stack, &mut ignored) {
                break;
            }
        }
        summary.threads.push(ThreadSummary {
            totals: thread.totals,
            last_stack,
        });
    }
    Ok(summary)
}
