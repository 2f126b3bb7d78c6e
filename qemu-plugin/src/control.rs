//! The control connection and all state that its lock guards.

use std::collections::BTreeSet;
use std::ffi::{CString, c_int};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::maps::KnownRanges;
use crate::sys;

const VERSION: u32 = 1;
const HELLO: u32 = 1;
pub(crate) const BLOCK: u32 = 2;
const MAPPINGS: u32 = 3;
const OPEN_STREAM: u32 = 4;
const EXEC: u32 = 5;
const EXEC_FAILED: u32 = 6;
const EXIT: u32 = 7;
const DETACH: u32 = 8;
const LOST: u32 = 9;
const WELCOME: u32 = 128;
const STREAM: u32 = 129;

const HELLO_SYSTEM: u32 = 1;
const HELLO_FORK: u32 = 2;
const HELLO_RECONNECT: u32 = 4;
const HELLO_REGISTERS: u32 = 8;

/// Longest answer the recorder has a reason to send.
const MAX_ANSWER: u32 = 64 << 10;

/// What does not change after the plugin was installed.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// Session directory.
    pub(crate) session: PathBuf,
    /// Data addresses are recorded.
    pub(crate) memory: bool,
    /// A whole machine, else one process.
    pub(crate) system: bool,
    /// Plugin API version QEMU reports.
    pub(crate) api: u32,
    /// QEMU's target name.
    pub(crate) target: Vec<u8>,
    /// QEMU's command line, if it is understood.
    pub(crate) follow: Option<crate::exec::Launch>,
    /// Guest program and its arguments as QEMU was given them.
    pub(crate) program: Vec<u8>,
    /// The program's absolute path, what the guest's `/proc/self/exe` means.
    pub(crate) executable: Option<PathBuf>,
    /// The guest's `argv`.
    pub(crate) arguments: Vec<CString>,
}

static CONFIGURATION: OnceLock<Configuration> = OnceLock::new();
static RECORDING: AtomicBool = AtomicBool::new(false);
static CONTROL: Mutex<Control> = Mutex::new(Control {
    socket: None,
    process: 0,
    next_block: 0,
    known: KnownRanges::new(),
    maps_lost: false,
    exec_noted: false,
    after_input: BTreeSet::new(),
});

/// The configuration, once installed.
pub(crate) fn configuration() -> Option<&'static Configuration> {
    CONFIGURATION.get()
}

/// Whether anything is recorded any more.
pub(crate) fn recording() -> bool {
    RECORDING.load(Ordering::Relaxed)
}

/// Ends recording in this process for good.
pub(crate) fn stop_recording() {
    RECORDING.store(false, Ordering::Relaxed);
}

/// The locked state.
pub(crate) fn lock() -> MutexGuard<'static, Control> {
    CONTROL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connects for the first time. False if there is no recorder or it refuses.
pub(crate) fn start(configuration: Configuration) -> bool {
    if CONFIGURATION.set(configuration).is_err() {
        return false;
    }
    RECORDING.store(true, Ordering::Relaxed);
    lock().connect(0, 0, 0, u32::MAX).is_ok()
}

/// Where a stream's ring lies.
pub(crate) struct RingPlace {
    pub(crate) stream: u32,
    pub(crate) words: u32,
    pub(crate) path: PathBuf,
}

/// State under the lock.
#[derive(Debug)]
pub(crate) struct Control {
    socket: Option<UnixStream>,
    /// This process's number at the recorder.
    process: u32,
    /// Id of the next block.
    pub(crate) next_block: u32,
    /// Ranges of the address space whose mappings the recorder knows.
    pub(crate) known: KnownRanges,
    /// The recorder was told that mappings cannot be read.
    maps_lost: bool,
    exec_noted: bool,
    /// Addresses behind blocks that end with an IN.
    pub(crate) after_input: BTreeSet<u64>,
}

pub(crate) fn put_u32(payload: &mut Vec<u8>, value: u32) {
    payload.extend_from_slice(&value.to_le_bytes());
}

fn put_bytes(payload: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(payload, u32::try_from(bytes.len()).unwrap_or(0));
    payload.extend_from_slice(bytes);
}

/// Moves a descriptor to a number that programs rarely use or close. The guest shares the table.
fn move_up(socket: UnixStream) -> UnixStream {
    for lowest in [900, 200] {
        // SAFETY: duplicates a descriptor this function owns.
        let fd = unsafe { sys::fcntl(socket.as_raw_fd(), sys::F_DUPFD_CLOEXEC, lowest as c_int) };
        if fd >= 0 {
            // SAFETY: just made, owned by nobody else.
            return unsafe { UnixStream::from_raw_fd(fd) };
        }
    }
    socket
}

impl Control {
    fn connect(&mut self, flags: u32, process: u32, inherited: u32, stream: u32) -> io::Result<()> {
        let Some(configuration) = configuration() else {
            return Err(io::ErrorKind::Other.into());
        };
        let result =
            UnixStream::connect(configuration.session.join("control")).and_then(|socket| {
                self.socket = Some(move_up(socket));
                let mut payload = Vec::new();
                let system = if configuration.system {
                    HELLO_SYSTEM
                } else {
                    0
                };
                let registers = if crate::registers::offered() {
                    HELLO_REGISTERS
                } else {
                    0
                };
                // SAFETY: getppid cannot fail.
                let parent = unsafe { sys::getppid() }.cast_unsigned();
                let flags = flags | system | registers;
                let api = configuration.api;
                for number in [
                    VERSION,
                    flags,
                    std::process::id(),
                    parent,
                    api,
                    process,
                    inherited,
                    stream,
                ] {
                    put_u32(&mut payload, number);
                }
                put_bytes(&mut payload, &configuration.target);
                put_bytes(&mut payload, &configuration.program);
                let mut arguments = Vec::new();
                for argument in &configuration.arguments {
                    arguments.extend_from_slice(argument.as_bytes_with_nul());
                }
                put_bytes(&mut payload, &arguments);
                self.write(HELLO, &payload)?;
                let (numbers, _) = self.answer(WELCOME)?;
                if numbers[0] != 0 {
                    return Err(io::Error::other("the recorder refused"));
                }
                self.process = numbers[1];
                Ok(())
            });
        if result.is_err() {
            self.give_up();
        }
        result
    }

    /// Drops the connection: nothing more is recorded.
    fn give_up(&mut self) {
        self.socket = None;
        stop_recording();
    }

    fn write(&self, kind: u32, payload: &[u8]) -> io::Result<()> {
        let Some(socket) = &self.socket else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let mut message = Vec::with_capacity(8 + payload.len());
        put_u32(
            &mut message,
            u32::try_from(payload.len()).map_err(io::Error::other)?,
        );
        put_u32(&mut message, kind);
        message.extend_from_slice(payload);
        let mut rest = &message[..];
        while !rest.is_empty() {
            // SAFETY: the buffer is `rest`.
            let sent = unsafe {
                sys::send(
                    socket.as_raw_fd(),
                    rest.as_ptr().cast(),
                    rest.len(),
                    // A guest must not see SIGPIPE for a recorder that went away.
                    sys::MSG_NOSIGNAL,
                )
            };
            match usize::try_from(sent) {
                Ok(sent) => rest = &rest[sent.min(rest.len())..],
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// Three numbers and what follows them.
    fn answer(&self, expected: u32) -> io::Result<([u32; 3], Vec<u8>)> {
        let Some(mut socket) = self.socket.as_ref() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let mut head = [[0; 4]; 2];
        socket.read_exact(head.as_flattened_mut())?;
        let [length, kind] = head.map(u32::from_le_bytes);
        if kind != expected || !(12..=MAX_ANSWER).contains(&length) {
            return Err(io::Error::other("unexpected answer"));
        }
        let mut numbers = [[0; 4]; 3];
        socket.read_exact(numbers.as_flattened_mut())?;
        let mut rest = vec![0; length as usize - 12];
        socket.read_exact(&mut rest)?;
        Ok((numbers.map(u32::from_le_bytes), rest))
    }

    /// Sends a message, over a new connection if the guest closed the old one. False, and the end
    /// of recording, if that fails.
    pub(crate) fn send(&mut self, kind: u32, payload: &[u8]) -> bool {
        if !recording() {
            return false;
        }
        if self.socket.is_none()
            && self
                .connect(HELLO_RECONNECT, self.process, 0, u32::MAX)
                .is_err()
        {
            return false;
        }
        let sent = self.write(kind, payload).is_ok();
        if !sent {
            self.give_up();
        }
        sent
    }

    /// Sends the address space if the recorder does not know the mapping of `address`. If it cannot
    /// be read, the trace gets a note, once: its code stays without files and names, and the program
    /// runs on.
    pub(crate) fn cover(&mut self, address: u64) {
        if self.known.contains(address) {
            return;
        }
        match self.known.refresh(address) {
            Ok(text) => {
                self.send(MAPPINGS, &text);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.maps_lost, true) {
                    self.note_lost(&format!("mappings: /proc/self/maps: {error}"));
                }
            }
        }
    }

    /// Asks for a ring for the calling thread.
    pub(crate) fn open_stream(&mut self, vcpu: u32) -> Option<RingPlace> {
        let mut payload = Vec::new();
        put_u32(&mut payload, vcpu);
        put_u32(&mut payload, sys::gettid());
        if !self.send(OPEN_STREAM, &payload) {
            return None;
        }
        let Ok(([0, stream, words], rest)) = self.answer(STREAM) else {
            self.give_up();
            return None;
        };
        let path = rest.get(4..)?;
        Some(RingPlace {
            stream,
            words,
            path: std::ffi::OsStr::from_bytes(path).into(),
        })
    }

    /// Says that an exec is about to replace the process.
    pub(crate) fn note_exec(&mut self, program: &[u8]) {
        let mut payload = Vec::new();
        put_bytes(&mut payload, program);
        self.exec_noted = self.send(EXEC, &payload);
    }

    /// Takes a note of an exec back.
    pub(crate) fn note_exec_failed(&mut self, errno: u32) {
        if std::mem::take(&mut self.exec_noted) {
            self.send(EXEC_FAILED, &errno.to_le_bytes());
        }
    }

    /// Says that the process is about to exit.
    pub(crate) fn note_exit(&mut self, status: i32) {
        self.send(EXIT, &status.to_le_bytes());
    }

    /// Says what cannot be recorded.
    pub(crate) fn note_lost(&mut self, what: &str) {
        let mut payload = Vec::new();
        put_bytes(&mut payload, what.as_bytes());
        self.send(LOST, &payload);
    }

    /// The connection's descriptor, which the guest may try to close.
    pub(crate) fn descriptor(&self) -> Option<u32> {
        self.socket
            .as_ref()
            .and_then(|socket| u32::try_from(socket.as_raw_fd()).ok())
    }

    /// Gives the descriptor up before the guest takes its number. The next message reconnects.
    pub(crate) fn detach(&mut self) {
        self.send(DETACH, &[]);
        self.socket = None;
    }

    /// Whether the recorder is gone.
    pub(crate) fn hung_up(&self) -> bool {
        let Some(socket) = &self.socket else {
            return false;
        };
        let mut descriptor = sys::PollFd {
            fd: socket.as_raw_fd(),
            events: sys::POLLRDHUP,
            revents: 0,
        };
        // SAFETY: one valid entry, no waiting.
        let ready = unsafe { sys::poll(&raw mut descriptor, 1, 0) };
        ready > 0 && descriptor.revents & (sys::POLLHUP | sys::POLLERR | sys::POLLRDHUP) != 0
    }

    /// In a forked child: leaves the parent's connection to the parent and opens an own one.
    pub(crate) fn reopen_in_child(&mut self, stream: u32) {
        self.socket = None;
        self.exec_noted = false;
        if recording() {
            // On failure recording has stopped, which is all there is to do.
            let _ = self.connect(HELLO_FORK, self.process, self.next_block, stream);
        }
    }
}
