//! The tracer's loop.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::qemu::{
    GuestEnd, Lost, Mapping, Origin, Outcome, ProcessEnd, ProcessId, ProcessInfo, Progress, Sink,
    StreamEnd, StreamId, StreamInfo, TargetMode, parse_maps,
};

use super::Options;
use super::code::Code;
use super::error::Error;
use super::sys::{self, Wait};
use super::thread::Thread;

/// Offsets in `struct user`. Linux, `arch/x86/include/asm/user_64.h`.
const USER_ORIG_RAX: usize = 15 * 8;
const USER_RIP: usize = 16 * 8;
const USER_CS: usize = 17 * 8;
/// `__USER_CS`, the selector of 64-bit user code.
const USER64_CS: u64 = 0x33;
/// `si_code` of the stop at a signal handler's first instruction (`ptrace_notify(SIGTRAP)`).
const HANDLER_ENTERED: i32 = libc::SIGTRAP;
/// `si_code` of INT3.
const SI_KERNEL: i32 = 0x80;
/// System calls that change mappings: mmap, mprotect, munmap, mremap, shmat, shmdt,
/// `remap_file_pages`, `pkey_mprotect`.
const MAPPING_CALLS: [u64; 8] = [9, 10, 11, 25, 30, 67, 216, 329];
/// How often the stop flag is looked at.
const POLL: Duration = Duration::from_millis(20);

struct Process {
    pid: i32,
    code: Code,
    mappings: Vec<Mapping>,
    /// It was noted that they cannot be read.
    maps_lost: bool,
}

struct Tracer<'a, S: Sink> {
    sink: &'a S,
    progress: &'a Progress,
    tracees: &'a Tracees,
    /// By process number.
    processes: BTreeMap<ProcessId, Process>,
    /// By thread id.
    threads: BTreeMap<i32, Thread<S::Stream>>,
    /// Tasks whose first stop came before the event that announces them.
    early: BTreeSet<i32>,
    /// Tasks that were announced but have not stopped yet, and the thread that made them.
    announced: BTreeMap<i32, i32>,
    root: i32,
    root_end: Option<GuestEnd>,
    next_process: u32,
    next_stream: u32,
    lost: Vec<Lost>,
}

/// The processes to kill when the recording is stopped.
struct Tracees {
    pids: Mutex<BTreeSet<i32>>,
    done: Condvar,
}

impl Tracees {
    fn pids(&self) -> std::sync::MutexGuard<'_, BTreeSet<i32>> {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill_all(&self) {
        for &pid in self.pids().iter() {
            // One that is gone already needs no signal.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// Kills all processes once `stop` is set; returns when the set has been empty.
    fn watch(&self, stop: &AtomicBool) -> bool {
        let mut pids = self.pids();
        while !pids.is_empty() {
            if stop.load(Ordering::Relaxed) {
                drop(pids);
                self.kill_all();
                return true;
            }
            let waited = self.done.wait_timeout(pids, POLL);
            pids = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    fn remove(&self, pid: i32) {
        self.pids().remove(&pid);
        self.done.notify_all();
    }
}

pub(super) fn run<S: Sink>(
    options: &Options,
    sink: &S,
    stop: &AtomicBool,
    progress: &Progress,
) -> Result<Outcome, Error> {
    let mut command = Command::new(&options.program);
    command.args(&options.arguments);
    sys::trace_on_exec(&mut command);
    let child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::ProgramMissing {
            program: options.program.clone(),
        },
        _ => Error::io(format!("starting {}", options.program.display()))(error),
    })?;
    let root = child.id() as i32;
    let tracees = Tracees {
        pids: Mutex::new(BTreeSet::from([root])),
        done: Condvar::new(),
    };
    let mut tracer = Tracer {
        sink,
        progress,
        tracees: &tracees,
        processes: BTreeMap::new(),
        threads: BTreeMap::new(),
        early: BTreeSet::new(),
        announced: BTreeMap::new(),
        root,
        root_end: None,
        next_process: 0,
        next_stream: 0,
        lost: Vec::new(),
    };
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| tracees.watch(stop));
        let result = tracer.trace();
        if result.is_err() {
            tracees.kill_all();
            while let Ok(Some(_)) | Err(Errno::EINTR) = sys::wait() {}
        }
        tracees.pids().clear();
        tracees.done.notify_all();
        let stopped = watcher.join().unwrap_or(false);
        result?;
        Ok(Outcome {
            end: tracer.root_end.unwrap_or(GuestEnd::Signaled(libc::SIGKILL)),
            stopped,
            processes: tracer.next_process,
            streams: tracer.next_stream,
            blocks: progress.blocks.load(Ordering::Relaxed),
            lost: tracer.lost,
        })
    })
}

impl<S: Sink> Tracer<'_, S> {
    fn trace(&mut self) -> Result<(), Error> {
        loop {
            match sys::wait() {
                Ok(None) => return Ok(()),
                Ok(Some((tid, wait))) => self.handle(tid, wait)?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::errno("waiting for the tracees")(errno)),
            }
        }
    }

    fn handle(&mut self, tid: Pid, wait: Wait) -> Result<(), Error> {
        let result = match wait {
            Wait::Exited(status) => {
                return self.gone(tid, GuestEnd::Exited(status), ProcessEnd::Exited(status));
            }
            Wait::Signaled(signal) => {
                return self.gone(tid, GuestEnd::Signaled(signal), ProcessEnd::Killed);
            }
            Wait::Event(event) => self.event(tid, event),
            Wait::Stopped(signal) if self.threads.contains_key(&tid.as_raw()) => {
                self.stopped(tid, signal)
            }
            Wait::Stopped(_) => self.first_stop(tid),
        };
        match result {
            // Killed while it was stopped; its end is reported next.
            Err(Failure::Gone) => Ok(()),
            Err(Failure::Fatal(error)) => Err(error),
            Ok(()) => Ok(()),
        }
    }

    /// A task that is not known yet has stopped.
    fn first_stop(&mut self, tid: Pid) -> Result<(), Failure> {
        let raw = tid.as_raw();
        if self.processes.is_empty() && raw == self.root {
            ptrace::setoptions(
                tid,
                ptrace::Options::PTRACE_O_TRACECLONE
                    | ptrace::Options::PTRACE_O_TRACEFORK
                    | ptrace::Options::PTRACE_O_TRACEVFORK
                    | ptrace::Options::PTRACE_O_TRACEEXEC
                    | ptrace::Options::PTRACE_O_EXITKILL,
            )
            .map_err(failure("tracing the program"))?;
            self.image(tid, Origin::Started)?;
            return step(tid, 0);
        }
        match self.announced.remove(&raw) {
            Some(parent) => self.start(tid, parent),
            None => {
                self.early.insert(raw);
                Ok(())
            }
        }
    }

    /// A new process image, stopped at its first instruction.
    fn image(&mut self, tid: Pid, origin: Origin) -> Result<(), Failure> {
        let pid = tid.as_raw();
        if read_user(tid, USER_CS)? != USER64_CS {
            return Err(Failure::Fatal(Error::NotLongMode { pid }));
        }
        self.process(tid, origin, Vec::new())
    }

    fn process(
        &mut self,
        tid: Pid,
        origin: Origin,
        blocks: Vec<std::sync::Arc<crate::qemu::RawBlock>>,
    ) -> Result<(), Failure> {
        let pid = tid.as_raw();
        let id = ProcessId(self.next_process);
        self.next_process += 1;
        self.progress.processes.fetch_add(1, Ordering::Relaxed);
        self.tracees.pids().insert(pid);
        let info = ProcessInfo {
            id,
            pid: pid as u32,
            parent_pid: status_field(pid, "PPid:").unwrap_or(0),
            origin,
            mode: TargetMode::User,
            target: "x86_64".to_owned(),
            api: 0,
            registers: false,
            program: fs::read_link(format!("/proc/{pid}/exe"))
                .map(|path| path.as_os_str().as_bytes().to_vec())
                .unwrap_or_default(),
            arguments: arguments(pid),
        };
        self.sink.process(&info).map_err(sink)?;
        let code = Code::open(pid, blocks).map_err(Error::io("opening a tracee's memory"))?;
        let process = Process {
            pid,
            code,
            mappings: Vec::new(),
            maps_lost: false,
        };
        self.processes.insert(id, process);
        self.mappings(id)?;
        self.thread(tid, id)
    }

    fn thread(&mut self, tid: Pid, process: ProcessId) -> Result<(), Failure> {
        let info = StreamInfo {
            id: StreamId(self.next_stream),
            process,
            vcpu: 0,
            tid: tid.as_raw() as u32,
        };
        self.next_stream += 1;
        self.progress.streams.fetch_add(1, Ordering::Relaxed);
        let stream = self.sink.stream(&info).map_err(sink)?;
        let address = read_user(tid, USER_RIP)?;
        if let Some(Process { code, .. }) = self.processes.get_mut(&process) {
            let thread = Thread::new(info.id, process, stream, code, address);
            self.threads.insert(tid.as_raw(), thread);
        }
        Ok(())
    }

    /// Delivers the mappings of `process` if they have changed. If they cannot be read, that is noted
    /// as lost, once: the code is recorded all the same, without files and names.
    fn mappings(&mut self, id: ProcessId) -> Result<(), Failure> {
        let Some(process) = self.processes.get_mut(&id) else {
            return Ok(());
        };
        let path = format!("/proc/{}/maps", process.pid);
        let text = match fs::read(&path) {
            Ok(text) => text,
            // A process that is being killed has no maps any more.
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => {
                if !std::mem::replace(&mut process.maps_lost, true) {
                    self.lost.push(Lost {
                        process: Some(id),
                        what: format!("mappings: {path}: {error}"),
                    });
                }
                return Ok(());
            }
        };
        let mappings = parse_maps(&text);
        if !mappings.is_empty() && mappings != process.mappings {
            self.sink.mappings(id, &mappings).map_err(sink)?;
            process.mappings = mappings;
        }
        Ok(())
    }

    /// Starts a task that thread `parent` has made.
    fn start(&mut self, tid: Pid, parent: i32) -> Result<(), Failure> {
        let raw = tid.as_raw();
        let Some(maker) = self.threads.get(&parent) else {
            // Its maker is gone already: nothing says where it belongs.
            self.lost.push(Lost {
                process: None,
                what: format!("task {raw}: its creator ended before it started"),
            });
            return detach(tid);
        };
        let (process, stream) = (maker.process, maker.stream);
        let Some(maker) = self.processes.get(&process) else {
            return detach(tid);
        };
        if status_field(raw, "Tgid:") == Some(maker.pid as u32) {
            self.thread(tid, process)?;
        } else {
            let blocks = maker.code.blocks.clone();
            let origin = Origin::Forked {
                parent: process,
                stream: Some(stream),
            };
            self.process(tid, origin, blocks)?;
        }
        step(tid, 0)
    }

    fn event(&mut self, tid: Pid, event: i32) -> Result<(), Failure> {
        match event {
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                let made = ptrace::getevent(tid).map_err(failure("reading a fork event"))? as i32;
                if self.early.remove(&made) {
                    self.start(Pid::from_raw(made), tid.as_raw())?;
                } else {
                    self.announced.insert(made, tid.as_raw());
                }
            }
            libc::PTRACE_EVENT_EXEC => self.exec(tid)?,
            _ => {}
        }
        step(tid, 0)
    }

    /// A thread has replaced its process by another program, and all others of it are gone.
    fn exec(&mut self, tid: Pid) -> Result<(), Failure> {
        let former = ptrace::getevent(tid).map_err(failure("reading an exec event"))? as i32;
        let Some(process) = self.threads.get(&former).map(|thread| thread.process) else {
            return self.image(tid, Origin::Started);
        };
        let threads: Vec<i32> = self
            .threads
            .iter()
            .filter_map(|(&tid, thread)| (thread.process == process).then_some(tid))
            .collect();
        for thread in threads {
            self.end_thread(thread, StreamEnd::Process(ProcessEnd::Replaced))?;
        }
        self.processes.remove(&process);
        self.sink
            .process_end(process, ProcessEnd::Replaced)
            .map_err(sink)?;
        self.image(tid, Origin::Replaced(process))
    }

    fn stopped(&mut self, tid: Pid, signal: i32) -> Result<(), Failure> {
        // A group stop has no siginfo; the task goes on.
        let Ok(info) = ptrace::getsiginfo(tid) else {
            return step(tid, 0);
        };
        let address = read_user(tid, USER_RIP)?;
        let Some(thread) = self.threads.get_mut(&tid.as_raw()) else {
            return detach(tid);
        };
        let id = thread.process;
        let Some(process) = self.processes.get_mut(&id) else {
            return detach(tid);
        };
        let code = &mut process.code;
        let delivered = thread.signal.take();
        if signal == libc::SIGTRAP && info.si_code > 0 && info.si_code != SI_KERNEL {
            if let Some(exception) = delivered
                && info.si_code == HANDLER_ENTERED
            {
                thread.interrupted(code, exception, address)?;
                return step(tid, 0);
            }
            let syscall = thread.at_syscall();
            if info.si_code == libc::TRAP_BRKPT && !syscall {
                // The end of a system call whose instruction was counted before: the first stop
                // after an exec, or a restart.
                thread.aim(code, address);
            } else {
                thread.stepped(code, address)?;
                self.progress
                    .blocks
                    .fetch_add(code.take_executed(), Ordering::Relaxed);
            }
            if syscall && MAPPING_CALLS.contains(&read_user(tid, USER_ORIG_RAX)?) {
                self.mappings(id)?;
            }
            return step(tid, 0);
        }
        // The signal comes before the next instruction, unless that is what raised it as a trap.
        if address != thread.address {
            thread.stepped(code, address)?;
        }
        // SI_KERNEL and the positive codes are the kernel's own; of these the ones for an
        // instruction come with these signals.
        let raised = [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGTRAP,
        ];
        thread.signal = Some(info.si_code > 0 && raised.contains(&signal));
        step(tid, signal)
    }

    fn end_thread(&mut self, tid: i32, end: StreamEnd) -> Result<(), Error> {
        let Some(thread) = self.threads.remove(&tid) else {
            return Ok(());
        };
        let id = thread.process;
        if let Some(process) = self.processes.get_mut(&id) {
            let unreadable = thread.end(&mut process.code, end)?;
            let executed = process.code.take_executed();
            self.progress.blocks.fetch_add(executed, Ordering::Relaxed);
            if unreadable > 0 {
                self.lost.push(Lost {
                    process: Some(id),
                    what: format!("thread {tid}: {unreadable} instructions could not be read"),
                });
            }
        }
        Ok(())
    }

    fn gone(&mut self, tid: Pid, end: GuestEnd, process_end: ProcessEnd) -> Result<(), Error> {
        let raw = tid.as_raw();
        self.early.remove(&raw);
        self.announced.remove(&raw);
        if raw == self.root {
            self.root_end = Some(end);
        }
        let Some(process) = self.threads.get(&raw).map(|thread| thread.process) else {
            self.tracees.remove(raw);
            return Ok(());
        };
        let leader = self.processes.get(&process).is_some_and(|p| p.pid == raw);
        // The leader's end is reported after that of all other threads.
        if !leader {
            return self.end_thread(raw, StreamEnd::ThreadExit);
        }
        self.end_thread(raw, StreamEnd::Process(process_end))?;
        self.tracees.remove(raw);
        self.processes.remove(&process);
        self.sink
            .process_end(process, process_end)
            .map_err(Error::Sink)
    }
}

/// Why a stop could not be handled.
enum Failure {
    /// The tracee is gone.
    Gone,
    Fatal(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

fn sink(error: crate::qemu::SinkError) -> Failure {
    Failure::Fatal(Error::Sink(error))
}

fn failure(action: &str) -> impl FnOnce(Errno) -> Failure + '_ {
    move |errno| match errno {
        Errno::ESRCH => Failure::Gone,
        errno => Failure::Fatal(Error::errno(action)(errno)),
    }
}

fn step(tid: Pid, signal: i32) -> Result<(), Failure> {
    sys::step(tid, signal).map_err(failure("stepping a tracee"))
}

fn detach(tid: Pid) -> Result<(), Failure> {
    ptrace::detach(tid, None).map_err(failure("detaching a tracee"))
}

fn read_user(tid: Pid, offset: usize) -> Result<u64, Failure> {
    ptrace::read_user(tid, offset as ptrace::AddressType)
        .map(|value| value as u64)
        .map_err(failure("reading a tracee's registers"))
}

/// Whether a file in `/proc/PID` is missing because the process is.
fn is_gone(error: &std::io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    matches!(number, Some(Errno::ENOENT | Errno::ESRCH))
}

/// A number in `/proc/PID/status`.
fn status_field(pid: i32, name: &str) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

fn arguments(pid: i32) -> Vec<Vec<u8>> {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut arguments: Vec<Vec<u8>> = text.split(|&b| b == 0).map(<[u8]>::to_vec).collect();
    arguments.pop();
    arguments
}
