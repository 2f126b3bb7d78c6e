//! A recording from start to end.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::connection::{Shared, serve};
use super::error::Error;
use super::sink::{ProcessId, Sink};

/// How long a guest may take to end by itself after a stop was asked for, and again after SIGTERM.
const GRACE: Duration = Duration::from_secs(1);
const POLL_MS: u16 = 5;
/// Where the rings lie if possible.
const SHARED_MEMORY: &str = "/dev/shm";
/// Start of a session directory's name.
const PREFIX: &str = "vlbr-";
/// Locked as long as the recorder lives.
const LOCK: &str = "lock";
/// Age from which on a directory that nobody has locked is taken for abandoned.
const ABANDONED: Duration = Duration::from_secs(10);

/// What a session records and with how much memory.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// Words of each stream's ring. 4 bytes each; at least 4096 are used.
    pub ring_words: u32,
    /// Record data addresses too.
    pub memory: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            ring_words: 1 << 20,
            memory: false,
        }
    }
}

/// Counters that a progress display may read while a session runs.
#[derive(Debug, Default)]
pub struct Progress {
    /// Blocks delivered.
    pub blocks: AtomicU64,
    /// Process images seen.
    pub processes: AtomicU32,
    /// Streams seen.
    pub streams: AtomicU32,
}

/// How the guest that the session started ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestEnd {
    /// It exited with this status.
    Exited(i32),
    /// A signal killed it.
    Signaled(i32),
}

/// Something that ran and could not be recorded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lost {
    /// Where, if a recorded process.
    pub process: Option<ProcessId>,
    /// What, for people.
    pub what: String,
}

/// A finished recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How the started guest ended.
    pub end: GuestEnd,
    /// The stop flag ended the recording, not the guest.
    pub stopped: bool,
    /// Process images recorded.
    pub processes: u32,
    /// Streams recorded.
    pub streams: u32,
    /// Blocks delivered.
    pub blocks: u64,
    /// What could not be recorded.
    pub lost: Vec<Lost>,
}

/// A private directory with the socket that QEMU's plugin connects to.
#[derive(Debug)]
pub struct Session {
    directory: TempDir,
    listener: UnixListener,
    _lock: File,
    options: SessionOptions,
    progress: Progress,
}

impl Session {
    /// Makes the directory, in memory (`/dev/shm`) if possible: the rings live there.
    ///
    /// # Errors
    /// [`Error::Io`] if neither `/dev/shm` nor the temporary directory takes it.
    pub fn new(options: SessionOptions) -> Result<Session, Error> {
        remove_abandoned(Path::new(SHARED_MEMORY), ABANDONED);
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX);
        let directory = builder
            .tempdir_in(SHARED_MEMORY)
            .or_else(|_| builder.tempdir())
            .map_err(Error::io("making the session directory"))?;
        let lock = File::create(directory.path().join(LOCK))
            .and_then(|file| file.lock().map(|()| file))
            .map_err(Error::io("locking the session directory"))?;
        let listener = UnixListener::bind(directory.path().join("control"))
            .map_err(Error::io("making the control socket"))?;
        listener
            .set_nonblocking(true)
            .map_err(Error::io("control socket"))?;
        Ok(Session {
            directory,
            listener,
            _lock: lock,
            options,
            progress: Progress::default(),
        })
    }

    /// The session directory; it goes with the session.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Counters of the running session.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The value of QEMU's `-plugin` option for this session.
    pub fn plugin_argument(&self, plugin: &Path) -> OsString {
        let mut argument = escape(plugin.as_os_str());
        argument.push(",session=");
        argument.push(escape(self.directory().as_os_str()));
        if self.options.memory {
            argument.push(",mem=on");
        }
        argument
    }

    /// Runs QEMU to its end and delivers all of its process tree to `sink`. Processes that outlive
    /// the started one are let go unrecorded from that moment on. `stop` ends the recording early:
    /// the guest gets a second to end by itself (a terminal has sent it SIGINT too), then SIGTERM,
    /// then SIGKILL; what it ran until then is delivered.
    ///
    /// # Errors
    /// [`Error::Io`] if QEMU cannot be started, [`Error::NotStarted`] if it ended without running
    /// anything, [`Error::Sink`] if the sink failed; the guest is then ended as by `stop`.
    pub fn run<S: Sink>(
        &self,
        mut command: Command,
        sink: &S,
        stop: &AtomicBool,
    ) -> Result<Outcome, Error> {
        let words = self.options.ring_words.max(4096);
        let shared = Shared::new(sink, &self.progress, self.directory(), words);
        let mut child = command.spawn().map_err(|source| Error::Io {
            action: format!(
                "starting {}",
                PathBuf::from(command.get_program()).display()
            ),
            source,
        })?;
        let waited = std::thread::scope(|scope| {
            let accept = || -> Result<bool, Error> {
                match self.listener.accept() {
                    Ok((socket, _)) => {
                        socket
                            .set_nonblocking(false)
                            .map_err(Error::io("control connection"))?;
                        std::thread::Builder::new()
                            .name("control".to_owned())
                            .spawn_scoped(scope, || serve(scope, &shared, socket))
                            .map_err(Error::io("starting a control thread"))?;
                        Ok(true)
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                    Err(error) => Err(Error::io("accepting a control connection")(error)),
                }
            };
            let mut guest = Guest {
                child: &mut child,
                stopped: false,
                asked: None,
            };
            let result = loop {
                match accept() {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(error) => {
                        shared.fail(error);
                    }
                }
                match guest.step(stop.load(Ordering::Relaxed) || shared.failed()) {
                    Ok(None) => self.wait_for_connection(),
                    Ok(Some(status)) => break Ok((status, guest.stopped)),
                    Err(error) => break Err(error),
                }
            };
            // What connected before the guest ended is still to be read.
            while let Ok(true) = accept() {}
            shared.close();
            result
        });
        let (status, stopped) = waited?;
        if let Some(failure) = shared.take_failure() {
            return Err(failure);
        }
        if shared.connected() == 0 && !stopped {
            return Err(Error::NotStarted { status });
        }
        Ok(Outcome {
            end: guest_end(status),
            stopped: stopped && stop.load(Ordering::Relaxed),
            processes: self.progress.processes.load(Ordering::Relaxed),
            streams: self.progress.streams.load(Ordering::Relaxed),
            blocks: self.progress.blocks.load(Ordering::Relaxed),
            lost: shared.take_losses(),
        })
    }

    fn wait_for_connection(&self) {
        use std::os::fd::AsFd;
        let mut descriptors = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        // An interrupted poll only looks at the guest earlier.
        let _ = poll(&mut descriptors, PollTimeout::from(POLL_MS));
    }
}

/// Removes the directories of recorders that were killed: what they had locked is free again.
fn remove_abandoned(parent: &Path, age: Duration) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let ours = entry.file_name().as_bytes().starts_with(PREFIX.as_bytes());
        if ours && is_abandoned(&entry.path().join(LOCK), age).unwrap_or(false) {
            // Somebody else may be faster.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// One that is only being made is not locked yet, hence `age`.
fn is_abandoned(lock: &Path, age: Duration) -> io::Result<bool> {
    let file = File::open(lock)?;
    let old = file.metadata()?.modified()?.elapsed();
    Ok(old.is_ok_and(|old| old >= age) && file.try_lock().is_ok())
}

fn guest_end(status: ExitStatus) -> GuestEnd {
    match (status.code(), status.signal()) {
        (Some(code), _) => GuestEnd::Exited(code),
        (None, signal) => GuestEnd::Signaled(signal.unwrap_or(0)),
    }
}

/// Doubles commas, as QEMU's option syntax asks.
fn escape(text: &OsStr) -> OsString {
    use std::os::unix::ffi::OsStringExt;
    let mut escaped = Vec::with_capacity(text.len());
    for &byte in text.as_bytes() {
        escaped.push(byte);
        if byte == b',' {
            escaped.push(byte);
        }
    }
    OsString::from_vec(escaped)
}

/// The started QEMU and how far ending it has gone.
struct Guest<'a> {
    child: &'a mut Child,
    stopped: bool,
    asked: Option<(Instant, u8)>,
}

impl Guest<'_> {
    /// Its status if it has ended; else, if it shall, one step towards that.
    fn step(&mut self, stop: bool) -> Result<Option<ExitStatus>, Error> {
        let ended = self
            .child
            .try_wait()
            .map_err(Error::io("waiting for QEMU"))?;
        if ended.is_some() || !stop {
            return Ok(ended);
        }
        self.stopped = true;
        let (since, signals) = *self.asked.get_or_insert((Instant::now(), 0));
        if since.elapsed() >= GRACE {
            let signal = if signals == 0 {
                Signal::SIGTERM
            } else {
                Signal::SIGKILL
            };
            if let Ok(pid) = i32::try_from(self.child.id()) {
                // It may have ended just now; the next try_wait sees that.
                let _ = kill(Pid::from_raw(pid), signal);
            }
            self.asked = Some((Instant::now(), signals.saturating_add(1)));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_whose_recorder_is_gone_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = parent.path().join(name);
            std::fs::create_dir(&path).unwrap();
            let lock = File::create(path.join(LOCK)).unwrap();
            (path, lock)
        };
        let ((live, held), (dead, _), (other, _)) =
            (make("vlbr-live"), make("vlbr-dead"), make("other"));
        held.lock().unwrap();
        remove_abandoned(parent.path(), Duration::from_secs(3600));
        assert!(dead.exists(), "it may have begun just now");
        remove_abandoned(parent.path(), Duration::ZERO);
        assert!(live.exists() && other.exists());
        assert!(!dead.exists());
    }

    #[test]
    fn commas_in_option_values_are_doubled() {
        assert_eq!(escape(OsStr::new("/a,b/c")), OsStr::new("/a,,b/c"));
    }
}
