//! Recordings of small programs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use super::*;
use crate::qemu::{
    Batch, EventKind, GuestEnd, Mapping, Origin, ProcessEnd, ProcessId, ProcessInfo, RawBlock,
    SinkError, StreamEnd, StreamInfo, StreamSink,
};

/// What a stream delivered.
#[derive(Clone, Debug, Default)]
struct Stream {
    process: u32,
    /// Addresses of all instructions in order.
    retired: Vec<u64>,
    blocks: Vec<Arc<RawBlock>>,
    /// Interrupt, from, to and the number of instructions before.
    events: Vec<(bool, u64, u64, usize)>,
    end: Option<StreamEnd>,
}

#[derive(Debug, Default)]
struct Collected {
    processes: Vec<ProcessInfo>,
    ends: BTreeMap<u32, ProcessEnd>,
    mapped: Vec<Mapping>,
    streams: BTreeMap<u32, Stream>,
}

#[derive(Debug, Default)]
struct Collector(Arc<Mutex<Collected>>);

struct Collecting {
    id: u32,
    stream: Stream,
    into: Arc<Mutex<Collected>>,
}

impl Sink for Collector {
    type Stream = Collecting;

    fn process(&self, process: &ProcessInfo) -> Result<(), SinkError> {
        self.0.lock().unwrap().processes.push(process.clone());
        Ok(())
    }

    fn mappings(&self, _: ProcessId, mappings: &[Mapping]) -> Result<(), SinkError> {
        self.0.lock().unwrap().mapped.extend_from_slice(mappings);
        Ok(())
    }

    fn stream(&self, stream: &StreamInfo) -> Result<Collecting, SinkError> {
        Ok(Collecting {
            id: stream.id.0,
            stream: Stream {
                process: stream.process.0,
                ..Stream::default()
            },
            into: Arc::clone(&self.0),
        })
    }

    fn process_end(&self, process: ProcessId, end: ProcessEnd) -> Result<(), SinkError> {
        self.0.lock().unwrap().ends.insert(process.0, end);
        Ok(())
    }
}

impl StreamSink for Collecting {
    fn batch(&mut self, batch: &Batch<'_>) -> Result<(), SinkError> {
        let mut events = batch.events.iter().peekable();
        for index in 0..=batch.ids.len() {
            while let Some(event) = events.next_if(|e| e.preceding as usize == index) {
                let EventKind::Discontinuity {
                    interrupt,
                    from,
                    to,
                    ..
                } = event.kind
                else {
                    continue;
                };
                let before = self.stream.retired.len();
                self.stream.events.push((interrupt, from, to, before));
            }
            let Some(&id) = batch.ids.get(index) else {
                break;
            };
            let block = &batch.blocks[id as usize];
            let mut address = block.start;
            for &size in &block.sizes {
                self.stream.retired.push(address);
                address += u64::from(size);
            }
            self.stream.blocks.push(Arc::clone(block));
        }
        Ok(())
    }

    fn end(mut self, end: StreamEnd) -> Result<(), SinkError> {
        self.stream.end = Some(end);
        self.into
            .lock()
            .unwrap()
            .streams
            .insert(self.id, self.stream);
        Ok(())
    }
}

/// Builds a freestanding assembly program; `None` (said on stderr) without gcc.
fn assemble(directory: &Path, source: &str) -> Option<PathBuf> {
    let path = directory.join("program");
    let file = directory.join("program.s");
    std::fs::write(&file, format!("{source}\n")).unwrap();
    let built = Command::new("gcc")
        .args(["-nostdlib", "-static", "-o"])
        .args([&path, &file])
        .status();
    match built {
        Ok(status) => {
            assert!(status.success(), "gcc refused the test program");
            Some(path)
        }
        Err(_) => {
            eprintln!("skipped: no gcc");
            None
        }
    }
}

fn trace(program: &Path) -> (Outcome, Collected) {
    let sink = Collector::default();
    let options = Options {
        program: program.into(),
        arguments: Vec::new(),
    };
    let outcome = record(
        &options,
        &sink,
        &AtomicBool::new(false),
        &Progress::default(),
    )
    .unwrap();
    let collected = std::mem::take(&mut *sink.0.lock().unwrap());
    (outcome, collected)
}

fn symbol(program: &Path, name: &str) -> u64 {
    let output = Command::new("nm").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text
        .lines()
        .find(|line| line.ends_with(&format!(" {name}")));
    u64::from_str_radix(line.unwrap().split(' ').next().unwrap(), 16).unwrap()
}

#[test]
fn string_repeats_retire_once_and_the_last_system_call_retires() {
    let directory = tempfile::tempdir().unwrap();
    let Some(program) = assemble(
        directory.path(),
        ".globl _start
_start: mov $5, %ecx
        lea buffer(%rip), %rdi
        rep stosb
        xor %ecx, %ecx
        rep stosb
        mov $60, %eax
        mov $7, %edi
last:   syscall
        .bss
buffer: .skip 8",
    ) else {
        return;
    };
    let (outcome, collected) = trace(&program);
    assert_eq!(outcome.end, GuestEnd::Exited(7));
    assert_eq!((outcome.processes, outcome.streams), (1, 1));
    let stream = &collected.streams[&0];
    assert_eq!(stream.retired.len(), 8);
    assert_eq!(stream.retired[0], symbol(&program, "_start"));
    assert_eq!(stream.retired[7], symbol(&program, "last"));
    assert_eq!(stream.end, Some(StreamEnd::Process(ProcessEnd::Exited(7))));
    let path = program.canonicalize().unwrap();
    let path = path.to_str().unwrap().as_bytes();
    assert!(collected.mapped.iter().any(|mapping| mapping.path == path));
    assert_eq!(collected.processes[0].program, path);
}

#[test]
fn signals_to_a_handler_are_events_with_their_place() {
    let directory = tempfile::tempdir().unwrap();
    // Handler of SIGUSR1 (kill to itself) and SIGSEGV (a load from 0, which it skips).
    let Some(program) = assemble(
        directory.path(),
        ".globl _start
_start: mov $10, %edi
        call install
        mov $11, %edi
        call install
        mov $39, %eax
        syscall
        mov %eax, %edi
        mov $10, %esi
        mov $62, %eax
kill:   syscall
sent:   xor %eax, %eax
fault:  mov (%rax), %al
after:  mov $60, %eax
        xor %edi, %edi
        syscall
install: mov $13, %eax
        lea action(%rip), %rsi
        xor %edx, %edx
        mov $8, %r10d
        syscall
        ret
handler: cmp $11, %edi
        jne done
        lea after(%rip), %rax
        mov %rax, 168(%rdx)
done:   ret
restore: mov $15, %rax
        syscall
        .data
action: .quad handler, 0x04000004, restore, 0",
    ) else {
        return;
    };
    let (outcome, collected) = trace(&program);
    assert_eq!(outcome.end, GuestEnd::Exited(0));
    let stream = &collected.streams[&0];
    let at = |name| symbol(&program, name);
    let events: Vec<_> = stream
        .events
        .iter()
        .map(|&(i, from, to, _)| (i, from, to))
        .collect();
    assert_eq!(
        events,
        [
            (true, at("sent"), at("handler")),
            (false, at("fault"), at("handler")),
        ]
    );
    // The faulting load is not among what ran before.
    let before = stream.events[1].3;
    assert_eq!(stream.retired[before - 1], at("sent"));
    assert!(!stream.retired.contains(&at("fault")));
    assert_eq!(stream.retired[stream.events[0].3 - 1], at("kill"));
}

#[test]
fn forks_threads_and_execs_are_followed() {
    let directory = tempfile::tempdir().unwrap();
    // A child is forked and executes /bin/true with no arguments or fails with 9; a thread is
    // made by clone(2) and exits.
    let Some(program) = assemble(
        directory.path(),
        ".globl _start
_start: mov $57, %eax
        syscall
        test %eax, %eax
        jz child
        mov %eax, %edi
        xor %esi, %esi
        xor %edx, %edx
        xor %r10d, %r10d
        mov $61, %eax
        syscall
        mov $56, %eax
        mov $0x50f00, %edi
        lea stack_end(%rip), %rsi
        syscall
        test %eax, %eax
        jz thread
wait:   pause
        cmpl $0, flag(%rip)
        je wait
        mov $231, %eax
        xor %edi, %edi
        syscall
thread: movl $1, flag(%rip)
        mov $60, %eax
        xor %edi, %edi
        syscall
child:  mov $59, %eax
        lea path(%rip), %rdi
        lea vector(%rip), %rsi
        xor %edx, %edx
        syscall
        mov $60, %eax
        mov $9, %edi
        syscall
        .data
path:   .asciz \"/bin/true\"
vector: .quad path, 0
flag:   .long 0
        .bss
        .skip 4096
stack_end: .skip 8",
    ) else {
        return;
    };
    let (outcome, collected) = trace(&program);
    assert_eq!(outcome.end, GuestEnd::Exited(0));
    let origins: Vec<_> = collected.processes.iter().map(|p| p.origin).collect();
    let forked = Origin::Forked {
        parent: ProcessId(0),
        stream: Some(crate::qemu::StreamId(0)),
    };
    assert_eq!(
        origins,
        [Origin::Started, forked, Origin::Replaced(ProcessId(1))]
    );
    assert_eq!(collected.processes[1].pid, collected.processes[2].pid);
    assert_eq!(collected.processes[2].arguments, [b"/bin/true".to_vec()]);
    assert_eq!(collected.ends[&1], ProcessEnd::Replaced);
    assert_eq!(collected.ends[&2], ProcessEnd::Exited(0));
    let threads: Vec<_> = collected
        .streams
        .values()
        .filter(|stream| stream.process == 0)
        .collect();
    assert_eq!(threads.len(), 2);
    // It starts behind the system call.
    assert_eq!(threads[1].retired[0], symbol(&program, "wait") - 4);
    assert_eq!(threads[1].end, Some(StreamEnd::ThreadExit));
    // The forked child starts behind the system call and ends in its exec.
    let child = collected
        .streams
        .values()
        .find(|stream| stream.process == 1)
        .unwrap();
    assert_eq!(child.retired.len(), 7);
}

#[test]
fn code_that_modifies_itself_makes_other_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let Some(program) = assemble(
        directory.path(),
        ".globl _start
_start: lea page(%rip), %rdi
        and $-4096, %rdi
        mov $8192, %esi
        mov $7, %edx
        mov $10, %eax
        syscall
        mov $2, %ecx
page:   mov $1, %eax
        movb $2, page+1(%rip)
        dec %ecx
        jnz page
        mov %eax, %edi
        mov $60, %eax
        syscall",
    ) else {
        return;
    };
    let (outcome, collected) = trace(&program);
    assert_eq!(outcome.end, GuestEnd::Exited(2));
    let page = symbol(&program, "page");
    let versions: Vec<u8> = collected.streams[&0]
        .blocks
        .iter()
        .filter_map(|block| {
            let offset = usize::try_from(page.checked_sub(block.start)?).ok()?;
            block.bytes.get(offset + 1).copied()
        })
        .collect();
    assert_eq!(versions, [1, 2]);
}

#[test]
fn a_fatal_signal_and_a_missing_program_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let Some(program) = assemble(
        directory.path(),
        ".globl _start
_start: nop
        ud2",
    ) else {
        return;
    };
    let (outcome, collected) = trace(&program);
    assert_eq!(outcome.end, GuestEnd::Signaled(nix::libc::SIGILL));
    assert_eq!(collected.streams[&0].retired.len(), 1);
    assert_eq!(collected.ends[&0], ProcessEnd::Killed);
    let options = Options {
        program: "/nonexistent/program".into(),
        arguments: Vec::new(),
    };
    let stop = AtomicBool::new(false);
    let result = record(&options, &Collector::default(), &stop, &Progress::default());
    assert!(matches!(result, Err(Error::ProgramMissing { .. })));
}

#[test]
fn a_stop_kills_the_program_and_keeps_what_ran() {
    let directory = tempfile::tempdir().unwrap();
    let Some(program) = assemble(directory.path(), ".globl _start\n_start: jmp _start") else {
        return;
    };
    let sink = Collector::default();
    let options = Options {
        program: program.into(),
        arguments: Vec::new(),
    };
    let (stop, progress) = (AtomicBool::new(false), Progress::default());
    let outcome = std::thread::scope(|scope| {
        let run = scope.spawn(|| record(&options, &sink, &stop, &progress));
        std::thread::sleep(std::time::Duration::from_millis(100));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        run.join().unwrap()
    });
    let outcome = outcome.unwrap();
    assert!(outcome.stopped);
    assert_eq!(outcome.end, GuestEnd::Signaled(nix::libc::SIGKILL));
    let collected = sink.0.lock().unwrap();
    assert!(collected.streams[&0].retired.len() > 10);
}
