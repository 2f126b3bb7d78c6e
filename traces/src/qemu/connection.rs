//! One process's control connection.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::blocks::BlockTable;
use super::error::Error;
use super::protocol::{self, Hello, Message};
use super::ring::Ring;
use super::session::{Lost, Progress};
use super::sink::{
    Origin, ProcessEnd, ProcessId, ProcessInfo, Sink, StreamId, StreamInfo, TargetMode,
};
use super::{maps, stream};

/// How long a fresh connection may take to introduce itself.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Holders only push, take or assign; a panic elsewhere leaves no half-made value.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Set once when a process image is over.
#[derive(Debug, Default)]
pub(super) struct Lifetime(OnceLock<ProcessEnd>);

impl Lifetime {
    pub(super) fn ended(&self) -> Option<ProcessEnd> {
        self.0.get().copied()
    }

    /// The image is over; what was said first counts.
    pub(super) fn end(&self, end: ProcessEnd) {
        self.0.get_or_init(|| end);
    }
}

/// Where a reconnecting process's new sockets are put for the thread that serves the process. There may
/// be several: a guest that closes descriptors in a row is faster than the thread.
#[derive(Debug, Default)]
struct Handover {
    sockets: Mutex<VecDeque<UnixStream>>,
    arrived: Condvar,
}

#[derive(Debug)]
struct Process {
    pid: u32,
    table: Arc<BlockTable>,
    lifetime: Arc<Lifetime>,
    handover: Arc<Handover>,
    /// For shutting the connection down from outside.
    socket: Option<UnixStream>,
}

/// What all threads of a recording share.
#[derive(Debug)]
pub(super) struct Shared<'a, S> {
    pub(super) sink: &'a S,
    pub(super) progress: &'a Progress,
    directory: PathBuf,
    ring_words: u32,
    processes: Mutex<Vec<Process>>,
    streams: AtomicU32,
    closing: AtomicBool,
    failed: AtomicBool,
    failure: Mutex<Option<Error>>,
    losses: Mutex<Vec<Lost>>,
}

impl<'a, S: Sink> Shared<'a, S> {
    pub(super) fn new(
        sink: &'a S,
        progress: &'a Progress,
        directory: &Path,
        ring_words: u32,
    ) -> Self {
        Shared {
            sink,
            progress,
            directory: directory.to_owned(),
            ring_words,
            processes: Mutex::default(),
            streams: AtomicU32::new(0),
            closing: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            failure: Mutex::default(),
            losses: Mutex::default(),
        }
    }

    /// Keeps the first error and makes every thread finish.
    pub(super) fn fail(&self, error: Error) {
        lock(&self.failure).get_or_insert(error);
        self.failed.store(true, Ordering::Release);
    }

    pub(super) fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(super) fn take_failure(&self) -> Option<Error> {
        lock(&self.failure).take()
    }

    pub(super) fn lost(&self, process: Option<ProcessId>, what: String) {
        lock(&self.losses).push(Lost { process, what });
    }

    pub(super) fn take_losses(&self) -> Vec<Lost> {
        std::mem::take(&mut *lock(&self.losses))
    }

    pub(super) fn connected(&self) -> usize {
        lock(&self.processes).len()
    }

    /// Ends every connection once what was sent on it is read.
    pub(super) fn close(&self) {
        let processes = lock(&self.processes);
        self.closing.store(true, Ordering::Release);
        for process in &*processes {
            if let Some(socket) = &process.socket {
                // Linux still returns queued data after this; the peer's next write fails.
                let _ = socket.shutdown(std::net::Shutdown::Read);
            }
            process.handover.arrived.notify_all();
        }
    }

    fn closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}

pub(super) enum Received {
    Message(Message),
    Malformed,
    End,
}

pub(super) fn receive(socket: &mut impl Read) -> io::Result<Received> {
    let mut head = [0; 8];
    match socket.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Received::End),
        Err(error) => return Err(error),
    }
    let [length, kind] = [
        [head[0], head[1], head[2], head[3]],
        [head[4], head[5], head[6], head[7]],
    ]
    .map(u32::from_le_bytes);
    if length > protocol::MAX_PAYLOAD {
        return Ok(Received::Malformed);
    }
    let mut payload = Vec::new();
    socket.take(u64::from(length)).read_to_end(&mut payload)?;
    if payload.len() as u64 != u64::from(length) {
        return Ok(Received::End);
    }
    Ok(protocol::decode(kind, &payload).map_or(Received::Malformed, Received::Message))
}

/// Serves one accepted socket until the process behind it ends.
pub(super) fn serve<'scope, 'env, S: Sink>(
    scope: &'scope Scope<'scope, 'env>,
    shared: &'scope Shared<'env, S>,
    socket: UnixStream,
) {
    let mut reader = BufReader::new(socket);
    let hello = reader
        .get_ref()
        .set_read_timeout(Some(HELLO_TIMEOUT))
        .and_then(|()| receive(&mut reader))
        .and_then(|received| reader.get_ref().set_read_timeout(None).map(|()| received));
    let hello = match hello {
        Ok(Received::Message(Message::Hello(hello))) => hello,
        Ok(Received::End) => return,
        Ok(_) => return shared.lost(None, "a connection that does not speak the protocol".into()),
        Err(error) => {
            return shared.lost(None, format!("a connection without a greeting: {error}"));
        }
    };
    if hello.version != protocol::VERSION {
        let refusal = protocol::encode(protocol::WELCOME, [1, 0, 0], None);
        let _ = reader.get_mut().write_all(&refusal);
        let what = format!(
            "process {}: the plugin speaks protocol {}, this recorder {}",
            hello.pid,
            hello.version,
            protocol::VERSION
        );
        return shared.lost(None, what);
    }
    if hello.flags & protocol::HELLO_RECONNECT != 0 {
        return reconnect(shared, &hello, reader.into_inner());
    }
    match Connection::open(scope, shared, &hello, reader) {
        Ok(Some(connection)) => connection.run(),
        Ok(None) => {}
        Err(error) => shared.fail(error),
    }
}

fn reconnect<S: Sink>(shared: &Shared<'_, S>, hello: &Hello, socket: UnixStream) {
    let mut answering = match socket.try_clone() {
        Ok(answering) => answering,
        Err(error) => {
            return shared.lost(None, format!("process {} returned: {error}", hello.pid));
        }
    };
    let handover = {
        let mut processes = lock(&shared.processes);
        let index = hello.process as usize;
        let Some(process) = processes.get_mut(index).filter(|p| p.pid == hello.pid) else {
            drop(processes);
            return shared.lost(
                None,
                format!("process {} returned, but never was here", hello.pid),
            );
        };
        process.socket = socket.try_clone().ok();
        Arc::clone(&process.handover)
    };
    if shared.closing() {
        let _ = socket.shutdown(std::net::Shutdown::Read);
    }
    // Before the answer: with it the process may go on, detach and return once more.
    lock(&handover.sockets).push_back(socket);
    handover.arrived.notify_all();
    let welcome = protocol::encode(protocol::WELCOME, [0, hello.process, 0], None);
    // A peer that is gone already shows as the end of the connection.
    let _ = answering.write_all(&welcome);
}

struct Connection<'scope, 'env, S> {
    scope: &'scope Scope<'scope, 'env>,
    shared: &'scope Shared<'env, S>,
    reader: BufReader<UnixStream>,
    id: ProcessId,
    pid: u32,
    table: Arc<BlockTable>,
    lifetime: Arc<Lifetime>,
    handover: Arc<Handover>,
    streams: Vec<ScopedJoinHandle<'scope, ()>>,
    end: Option<ProcessEnd>,
    detached: bool,
}

impl<'scope, 'env, S: Sink> Connection<'scope, 'env, S> {
    /// Registers the process. `None` if its parent's blocks never came.
    fn open(
        scope: &'scope Scope<'scope, 'env>,
        shared: &'scope Shared<'env, S>,
        hello: &Hello,
        mut reader: BufReader<UnixStream>,
    ) -> Result<Option<Self>, Error> {
        let forked = hello.flags & protocol::HELLO_FORK != 0;
        let (origin, blocks) = if forked {
            let parent = lock(&shared.processes)
                .get(hello.process as usize)
                .map(|process| Arc::clone(&process.table));
            let Some(blocks) = parent.and_then(|table| table.inherit(hello.inherited as usize))
            else {
                shared.lost(
                    None,
                    format!("process {}: its parent's blocks are missing", hello.pid),
                );
                return Ok(None);
            };
            let stream = (hello.stream != u32::MAX).then_some(StreamId(hello.stream));
            (
                Origin::Forked {
                    parent: ProcessId(hello.process),
                    stream,
                },
                blocks,
            )
        } else {
            (
                predecessor(shared, hello.pid).map_or(Origin::Started, Origin::Replaced),
                Vec::new(),
            )
        };
        let table = Arc::new(BlockTable::new(blocks));
        let lifetime = Arc::new(Lifetime::default());
        let handover = Arc::new(Handover::default());
        let socket = reader
            .get_ref()
            .try_clone()
            .map_err(Error::io("control connection"))?;
        let mut processes = lock(&shared.processes);
        let Ok(number) = u32::try_from(processes.len()) else {
            return Ok(None);
        };
        let id = ProcessId(number);
        let info = ProcessInfo {
            id,
            pid: hello.pid,
            parent_pid: hello.parent_pid,
            origin,
            mode: if hello.flags & protocol::HELLO_SYSTEM != 0 {
                TargetMode::System
            } else {
                TargetMode::User
            },
            target: String::from_utf8_lossy(&hello.target).into_owned(),
            api: hello.api,
            registers: hello.flags & protocol::HELLO_REGISTERS != 0,
            program: hello.program.clone(),
            arguments: hello.arguments.clone(),
        };
        // Under the lock: the sink sees processes in the order of their numbers.
        shared.sink.process(&info).map_err(Error::Sink)?;
        if shared.closing() {
            let _ = socket.shutdown(std::net::Shutdown::Read);
        }
        processes.push(Process {
            pid: hello.pid,
            table: Arc::clone(&table),
            lifetime: Arc::clone(&lifetime),
            handover: Arc::clone(&handover),
            socket: Some(socket),
        });
        drop(processes);
        shared.progress.processes.fetch_add(1, Ordering::Relaxed);
        // A peer that is gone already shows as the end of the connection.
        let welcome = protocol::encode(protocol::WELCOME, [0, number, 0], None);
        let _ = reader.get_mut().write_all(&welcome);
        Ok(Some(Connection {
            scope,
            shared,
            reader,
            id,
            pid: hello.pid,
            table,
            lifetime,
            handover,
            streams: Vec::new(),
            end: None,
            detached: false,
        }))
    }

    fn run(mut self) {
        loop {
            match receive(&mut self.reader) {
                Ok(Received::Message(message)) => {
                    self.detached = matches!(message, Message::Detach);
                    if let Err(error) = self.handle(message) {
                        self.shared.fail(error);
                        break;
                    }
                }
                Ok(Received::Malformed) => {
                    self.shared
                        .lost(Some(self.id), "malformed message from the plugin".into());
                    break;
                }
                // A killed peer with unread data resets the connection: the same as its end.
                Ok(Received::End) | Err(_) => {
                    if !(self.detached && self.await_return()) {
                        break;
                    }
                }
            }
        }
        self.finish();
    }

    fn handle(&mut self, message: Message) -> Result<(), Error> {
        match message {
            Message::Block { id, block } => {
                if id as usize == self.table.len() {
                    self.table.push(Arc::new(block));
                } else {
                    let what = format!("block {id} came when {} was due", self.table.len());
                    self.shared.lost(Some(self.id), what);
                }
            }
            Message::Mappings(text) => {
                self.shared
                    .sink
                    .mappings(self.id, &maps::parse(&text))
                    .map_err(Error::Sink)?;
            }
            Message::OpenStream { vcpu, tid } => self.open_stream(vcpu, tid)?,
            Message::Exec => self.end = Some(ProcessEnd::Replaced),
            Message::ExecFailed => self.end = None,
            Message::Exit(status) => self.end = Some(ProcessEnd::Exited(status)),
            Message::Detach => {}
            Message::Lost(what) => self.shared.lost(Some(self.id), what),
            Message::Hello(_) => {
                self.shared
                    .lost(Some(self.id), "second greeting on one connection".into());
            }
        }
        Ok(())
    }

    fn open_stream(&mut self, vcpu: u32, tid: u32) -> Result<(), Error> {
        let shared = self.shared;
        let number = shared.streams.fetch_add(1, Ordering::Relaxed);
        let path = shared.directory.join(format!("ring-{number}"));
        let ring = Ring::create(&path, shared.ring_words)
            .map_err(Error::io(format!("making {}", path.display())))?;
        let numbers = [0, number, shared.ring_words];
        let answer = protocol::encode(
            protocol::STREAM,
            numbers,
            Some(std::os::unix::ffi::OsStrExt::as_bytes(
                ring.path().as_os_str(),
            )),
        );
        // A peer that is gone already shows as the end of the connection.
        let _ = self.reader.get_mut().write_all(&answer);
        let info = StreamInfo {
            id: StreamId(number),
            process: self.id,
            vcpu,
            tid,
        };
        let (table, lifetime) = (Arc::clone(&self.table), Arc::clone(&self.lifetime));
        let handle = std::thread::Builder::new()
            .name(format!("stream {number}"))
            .spawn_scoped(self.scope, move || {
                stream::run(shared, &info, ring, &table, &lifetime)
            })
            .map_err(Error::io("starting a reader thread"))?;
        shared.progress.streams.fetch_add(1, Ordering::Relaxed);
        self.streams.push(handle);
        Ok(())
    }

    /// Waits for the new connection of a process that gave up its old one. False if it is gone.
    fn await_return(&mut self) -> bool {
        let mut sockets = lock(&self.handover.sockets);
        loop {
            if let Some(socket) = sockets.pop_front() {
                self.reader = BufReader::new(socket);
                return true;
            }
            if self.shared.closing() || !is_alive(self.pid) {
                return false;
            }
            sockets = self
                .handover
                .arrived
                .wait_timeout(sockets, POLL)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn finish(self) {
        let fallback = if self.shared.closing() && is_alive(self.pid) {
            ProcessEnd::Detached
        } else {
            ProcessEnd::Killed
        };
        let end = self.end.unwrap_or(fallback);
        if end == ProcessEnd::Detached {
            let what = format!(
                "process {} outlived the recording; what it runs from then on",
                self.pid
            );
            self.shared.lost(Some(self.id), what);
        }
        if let Some(process) = lock(&self.shared.processes).get_mut(self.id.0 as usize) {
            process.socket = None;
        }
        // The recorder no longer reads: a process that still lives must notice.
        let _ = self.reader.get_ref().shutdown(std::net::Shutdown::Both);
        self.table.close();
        self.lifetime.end(end);
        for stream in self.streams {
            if stream.join().is_err() {
                let source = io::Error::other("a reader thread panicked");
                self.shared.fail(Error::io("reading a stream")(source));
            }
        }
        if !self.shared.failed()
            && let Err(error) = self.shared.sink.process_end(self.id, end)
        {
            self.shared.fail(Error::Sink(error));
        }
    }
}

/// Whether a process exists and is no zombie. proc(5), `/proc/pid/stat`.
fn is_alive(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        // The name in parentheses may hold anything; the state follows it.
        let after_name = stat.rsplit(|&byte| byte == b')').next().unwrap_or_default();
        !matches!(
            after_name.trim_ascii_start().first(),
            Some(b'Z' | b'X') | None
        )
    })
}

/// The image that an exec of this pid replaced.
fn predecessor<S: Sink>(shared: &Shared<'_, S>, pid: u32) -> Option<ProcessId> {
    let (index, lifetime) = lock(&shared.processes)
        .iter()
        .enumerate()
        .rev()
        .find(|(_, process)| process.pid == pid)
        .map(|(index, process)| (index, Arc::clone(&process.lifetime)))?;
    // Its farewell was sent before the exec, but its thread may not have read it yet.
    let patience = Instant::now() + HELLO_TIMEOUT;
    while lifetime.ended().is_none() && Instant::now() < patience {
        std::thread::sleep(Duration::from_micros(200));
    }
    (lifetime.ended() == Some(ProcessEnd::Replaced))
        .then(|| u32::try_from(index).map_or(ProcessId(0), ProcessId))
}
