//! Records a program under QEMU and prints what ran: `qemu_count PROGRAM ARGUMENT...`, or
//! `qemu_count --system KERNEL [INITRD]` for a machine.
//!
//! The sink only counts, so this also measures how fast the plugin and the rings are.

use std::ffi::OsString;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use vlbr_traces::qemu::{
    Batch, Mapping, ProcessEnd, ProcessId, ProcessInfo, Session, SessionOptions, Sink, SinkError,
    StreamEnd, StreamInfo, StreamSink, SystemOptions, UserOptions, system_command, user_command,
};

#[derive(Debug, Default)]
struct Counts {
    blocks: u64,
    instructions: u64,
    accesses: u64,
    events: u64,
}

#[derive(Debug, Default)]
struct Counter(Mutex<Counts>);

#[derive(Debug)]
struct StreamCounter<'a> {
    total: &'a Counter,
    info: StreamInfo,
    counts: Counts,
    /// Executions by block id, turned into instructions at the end.
    executions: Vec<u64>,
    sizes: Vec<u64>,
}

impl<'a> Sink for &'a Counter {
    type Stream = StreamCounter<'a>;

    fn process(&self, process: &ProcessInfo) -> Result<(), SinkError> {
        let program = String::from_utf8_lossy(&process.program);
        eprintln!(
            "{:?} pid {} {:?} {program}",
            process.id, process.pid, process.origin
        );
        Ok(())
    }

    fn mappings(&self, _: ProcessId, _: &[Mapping]) -> Result<(), SinkError> {
        Ok(())
    }

    fn stream(&self, stream: &StreamInfo) -> Result<StreamCounter<'a>, SinkError> {
        Ok(StreamCounter {
            total: self,
            info: *stream,
            counts: Counts::default(),
            executions: Vec::new(),
            sizes: Vec::new(),
        })
    }

    fn process_end(&self, process: ProcessId, end: ProcessEnd) -> Result<(), SinkError> {
        eprintln!("{process:?} {end:?}");
        Ok(())
    }
}

impl StreamSink for StreamCounter<'_> {
    fn batch(&mut self, batch: &Batch<'_>) -> Result<(), SinkError> {
        self.sizes.extend(
            batch.blocks[self.sizes.len()..]
                .iter()
                .map(|b| b.instructions() as u64),
        );
        self.executions.resize(batch.blocks.len(), 0);
        for &id in batch.ids {
            self.executions[id as usize] += 1;
        }
        self.counts.blocks += batch.ids.len() as u64;
        self.counts.accesses += batch.memory.len() as u64;
        self.counts.events += batch.events.len() as u64;
        Ok(())
    }

    fn end(mut self, end: StreamEnd) -> Result<(), SinkError> {
        self.counts.instructions = self
            .executions
            .iter()
            .zip(&self.sizes)
            .map(|(n, s)| n * s)
            .sum();
        eprintln!("{:?} {:?} {end:?}", self.info, self.counts);
        let mut total = self.total.0.lock().map_err(|_| "a stream panicked")?;
        total.blocks += self.counts.blocks;
        total.instructions += self.counts.instructions;
        total.accesses += self.counts.accesses;
        total.events += self.counts.events;
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let memory = arguments
        .first()
        .is_some_and(|argument| argument == "--mem");
    if memory {
        arguments.remove(0);
    }
    if arguments.is_empty() {
        return Err(
            "usage: qemu_count [--mem] PROGRAM ARGUMENT... | --system KERNEL [INITRD]".into(),
        );
    }
    let first = arguments.remove(0);
    let mut options = SessionOptions {
        memory,
        ..SessionOptions::default()
    };
    if let Some(words) = std::env::var_os("RING_WORDS") {
        options.ring_words = words.to_string_lossy().parse()?;
    }
    let session = Session::new(options)?;
    let command = if first == "--system" {
        let mut arguments = arguments.into_iter();
        let mut system = SystemOptions::new(arguments.next().unwrap_or_default().into());
        system.initrd = arguments.next().map(Into::into);
        system.extra = arguments.collect();
        system.qemu = std::env::var_os("QEMU").map(Into::into);
        system_command(&session, &system)?
    } else {
        user_command(
            &session,
            &UserOptions {
                program: first,
                arguments,
                ..UserOptions::default()
            },
        )?
    };
    let counter = Counter::default();
    let start = Instant::now();
    let outcome = session.run(command, &&counter, &AtomicBool::new(false))?;
    let seconds = start.elapsed().as_secs_f64();
    let counts = counter.0.into_inner().map_err(|_| "a stream panicked")?;
    eprintln!("{outcome:?}");
    eprintln!(
        "{counts:?} in {seconds:.3} s: {:.0} M instructions/s",
        counts.instructions as f64 / seconds / 1e6
    );
    Ok(())
}
