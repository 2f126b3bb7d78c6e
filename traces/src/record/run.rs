//! Running an engine into a file.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::RecordError;
use super::file::TraceFile;
use super::sink::FileSink;
use super::{Engine, Machine, Outcome, Progress, RecordOptions};
use crate::assemble::AssembleStats;
use crate::files::{open_regular, read_text};
use crate::qemu::{
    self, GuestEnd, Lost, Session, SessionOptions, SystemOptions, UserOptions, find_plugin,
    find_qemu, system_command, user_command,
};
use crate::symbols::{ElfImage, SymbolTable, parse_kallsyms};
use crate::vlt::{Meta, Scope};
use crate::{ptrace, vlt};

/// How often progress is reported.
const TICK: Duration = Duration::from_millis(200);
/// Name of the stepping engine.
const PTRACE: &str = "ptrace";
/// Most instructions of a chunk of the stepped engine, some ten seconds: a recorder that is killed
/// loses the chunk it has not written yet.
const STEPPED_CHUNK: u64 = 1 << 18;
/// Longest listing of symbols, in bytes; a trace takes no longer one.
const MAX_LISTING: u64 = 64 << 20;

/// Records `program` and everything it starts. When `stop` becomes true, the program is ended and
/// what it ran until then is kept. `progress` is called a few times a second.
///
/// # Errors
/// The engine cannot start, or the trace cannot be written. See [`RecordError`].
pub fn record_user(
    engine: Engine,
    options: &RecordOptions,
    program: &OsStr,
    arguments: &[OsString],
    stop: &AtomicBool,
    progress: &(dyn Fn(&Progress) + Sync),
) -> Result<Outcome, RecordError> {
    let qemu = match engine {
        Engine::Qemu => true,
        Engine::Ptrace => false,
        Engine::Auto => {
            (options.qemu.is_some() || find_qemu(false).is_ok())
                && (options.plugin.is_some() || find_plugin().is_ok())
        }
    };
    let mut command_line = vec![program.to_owned()];
    command_line.extend_from_slice(arguments);
    let meta =
        |engine: &str, engine_version| meta(engine, engine_version, Scope::User, &command_line);
    if !qemu {
        if options.memory {
            return Err(RecordError::MemoryNeedsQemu);
        }
        // Before the trace is created, and with the reason that QEMU would give.
        qemu::resolve(program, arguments).map_err(|error| match error {
            qemu::Error::ProgramMissing { program } => {
                RecordError::Ptrace(ptrace::Error::ProgramMissing { program })
            }
            error => error.into(),
        })?;
        let mut options = options.clone();
        options.chunk_instructions = options.chunk_instructions.min(STEPPED_CHUNK);
        let recording = Recording::create(&options, &meta(PTRACE, kernel_release()))?;
        let engine_progress = qemu::Progress::default();
        let target = ptrace::Options {
            program: program.to_owned(),
            arguments: arguments.to_vec(),
        };
        return recording.run(PTRACE, &engine_progress, progress, |sink| {
            Ok(ptrace::record(&target, sink, stop, &engine_progress)?)
        });
    }
    let session = Session::new(session_options(options))?;
    let target = UserOptions {
        program: program.to_owned(),
        arguments: arguments.to_vec(),
        qemu: options.qemu.clone(),
        plugin: options.plugin.clone(),
        extra: options.extra.clone(),
    };
    let command = user_command(&session, &target)?;
    let version = qemu_version(command.get_program());
    let recording = Recording::create(options, &meta("qemu", version))?;
    recording.run("qemu", session.progress(), progress, |sink| {
        Ok(session.run(command, sink, stop)?)
    })
}

/// Boots `machine` and records it until it powers off. See [`record_user`].
///
/// # Errors
/// As [`record_user`]; the symbols cannot be read.
pub fn record_system(
    options: &RecordOptions,
    machine: &Machine,
    stop: &AtomicBool,
    progress: &(dyn Fn(&Progress) + Sync),
) -> Result<Outcome, RecordError> {
    let symbols = match &machine.kallsyms {
        Some(path) => {
            let list = read_symbols(path)?;
            // Data has names only where its addresses are recorded.
            let all = options.memory;
            Some(if all { list } else { functions_of(&list) })
        }
        None => None,
    };
    let session = Session::new(session_options(options))?;
    let mut target = SystemOptions::new(machine.kernel.clone());
    target.initrd.clone_from(&machine.initrd);
    target.append.clone_from(&machine.append);
    target.memory_mib = machine.memory_mib;
    target.smp = machine.smp;
    target.qemu.clone_from(&options.qemu);
    target.plugin.clone_from(&options.plugin);
    target.extra.clone_from(&options.extra);
    let command = system_command(&session, &target)?;
    let version = qemu_version(command.get_program());
    let mut command_line = vec![machine.kernel.clone().into_os_string()];
    command_line.extend(
        machine
            .initrd
            .iter()
            .map(|path| path.clone().into_os_string()),
    );
    command_line.extend(machine.append.clone());
    let meta = meta("qemu-system", version, Scope::System, &command_line);
    let recording = Recording::create(options, &meta)?;
    if let Some(symbols) = symbols
        && let Err(error) = recording.file.symbols(&symbols)
    {
        return recording.fail(error);
    }
    recording.run("qemu-system", session.progress(), progress, |sink| {
        Ok(session.run(command, sink, stop)?)
    })
}

fn no_symbols() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no symbols in it")
}

/// The kernel's symbols as a kallsyms listing: the file is one, or an ELF file (`vmlinux`).
fn read_symbols(path: &Path) -> Result<String, RecordError> {
    let error = |source| RecordError::Read {
        path: path.into(),
        source,
    };
    let mut magic = Vec::new();
    open_regular(path)
        .and_then(|file| file.take(4).read_to_end(&mut magic))
        .map_err(error)?;
    if magic != b"\x7fELF" {
        let text = read_text(path, MAX_LISTING).map_err(error)?;
        // What cannot be read back is refused before anything is recorded.
        if parse_kallsyms(text.as_bytes(), path)?.is_empty() {
            return Err(error(no_symbols()));
        }
        return Ok(text);
    }
    let image = ElfImage::open(path)?;
    let text = listing(image.symbols());
    if text.is_empty() {
        return Err(error(no_symbols()));
    }
    Ok(text)
}

/// The functions of a kallsyms listing, and where the kernel lies: almost half of its lines are data.
fn functions_of(list: &str) -> String {
    let mut text = String::new();
    for line in list.lines() {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (kind, name) = (fields.next(), fields.next());
        let function = matches!(kind, Some("T" | "t" | "W" | "w"));
        if function || matches!(name, Some("_text" | "_etext" | "_end")) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Symbols in the form of `/proc/kallsyms`, closed by the `_end` that bounds the kernel.
fn listing(symbols: &SymbolTable) -> String {
    let mut text = String::new();
    let mut end = None;
    for symbol in symbols.iter() {
        let name = String::from_utf8_lossy(symbol.name);
        if name != "_end" && !name.contains(char::is_whitespace) {
            text.push_str(&format!("{:016x} T {name}\n", symbol.address));
        }
        end = end.max(Some(symbol.address.saturating_add(symbol.size)));
    }
    if let Some(end) = end {
        text.push_str(&format!("{end:016x} B _end\n"));
    }
    text
}

fn session_options(options: &RecordOptions) -> SessionOptions {
    SessionOptions {
        memory: options.memory,
        ..SessionOptions::default()
    }
}

pub(super) fn meta(
    engine: &str,
    engine_version: String,
    scope: Scope,
    command_line: &[OsString],
) -> Meta {
    Meta {
        recorder: concat!("vlbr ", env!("CARGO_PKG_VERSION")).to_owned(),
        engine: engine.to_owned(),
        engine_version,
        arch: "x86_64".to_owned(),
        scope,
        command_line: command_line.to_vec(),
        notes: Vec::new(),
    }
}

/// The first line that `qemu --version` prints; empty if it prints none.
fn qemu_version(program: &OsStr) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn kernel_release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}

/// A trace that an engine writes to.
pub(super) struct Recording {
    file: Arc<TraceFile>,
    chunk_instructions: u64,
}

impl Recording {
    pub(super) fn create(options: &RecordOptions, meta: &Meta) -> Result<Self, RecordError> {
        let file = TraceFile::create(&options.output, meta, options.overwrite, options.level)?;
        Ok(Self {
            file: Arc::new(file),
            chunk_instructions: options.chunk_instructions.min(u64::from(vlt::MAX_STEPS)),
        })
    }

    fn run(
        self,
        name: &'static str,
        engine: &qemu::Progress,
        progress: &(dyn Fn(&Progress) + Sync),
        engine_run: impl FnOnce(&FileSink) -> Result<qemu::Outcome, RecordError>,
    ) -> Result<Outcome, RecordError> {
        let sink =
            FileSink::new(Arc::clone(&self.file), self.chunk_instructions).exact(name == PTRACE);
        let ticker = Ticker::default();
        let result = std::thread::scope(|scope| {
            scope.spawn(|| ticker.run(&self.file, engine, progress));
            let result = engine_run(&sink);
            ticker.stop();
            result
        });
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => {
                drop(sink);
                return self.fail(error);
            }
        };
        let mut lost = outcome.lost;
        lost.extend(sink.notes().into_iter().map(|what| Lost {
            process: None,
            what,
        }));
        drop(sink);
        let stats = self.file.stats();
        if stats.retired == 0 && !outcome.stopped {
            return self.fail(RecordError::Nothing(describe_end(outcome.end)));
        }
        let mut notes = vec![("end".to_owned(), describe_end(outcome.end))];
        if outcome.stopped {
            notes.push(("stopped".to_owned(), "by the user".to_owned()));
        }
        notes.extend(stats_notes(&stats));
        notes.extend(
            lost.iter()
                .map(|lost| ("lost".to_owned(), lost.what.clone())),
        );
        Ok(Outcome {
            engine: name,
            end: Some(outcome.end),
            stopped: outcome.stopped,
            processes: outcome.processes,
            streams: outcome.streams,
            stats,
            size: self.finish(&notes, false)?,
            lost,
        })
    }

    /// Ends the trace of a recording that failed, and passes its error on.
    pub(super) fn fail<T>(self, error: RecordError) -> Result<T, RecordError> {
        let notes = [("failed".to_owned(), error.to_string())];
        // If the end cannot be written either, the trace is valid up to its last whole frame.
        let _ = self.finish(&notes, true);
        Err(error)
    }

    pub(super) fn finish(
        self,
        notes: &[(String, String)],
        failed: bool,
    ) -> Result<u64, RecordError> {
        match Arc::try_unwrap(self.file) {
            Ok(file) => file.finish(notes, failed),
            // A stream that failed may still hold it: then the trace has no end frame.
            Err(_) => Ok(0),
        }
    }

    pub(super) fn file(&self) -> &Arc<TraceFile> {
        &self.file
    }

    pub(super) fn chunk_instructions(&self) -> u64 {
        self.chunk_instructions
    }
}

fn describe_end(end: GuestEnd) -> String {
    match end {
        GuestEnd::Exited(status) => format!("exited with status {status}"),
        GuestEnd::Signaled(signal) => format!("killed by signal {signal}"),
    }
}

/// The assembler's guesses and losses, where there are any.
pub(super) fn stats_notes(stats: &AssembleStats) -> impl Iterator<Item = (String, String)> + use<> {
    let late = [
        ("late instructions", stats.late.instructions),
        ("late branches", stats.late.branches),
        ("late taken branches", stats.late.taken),
    ];
    let late = late.into_iter().filter(|&(_, count)| count != 0);
    let counts = [
        ("cut blocks", stats.cut_blocks),
        ("events", stats.events),
        ("events placed by their return", stats.paired),
        ("events placed by rule", stats.unpaired_events),
        ("code size surprises", stats.size_surprises),
        ("undecodable blocks", stats.undecodable),
        ("gaps", stats.gaps),
    ]
    .into_iter()
    .filter(|&(_, count)| count > 0)
    .map(|(name, count)| (name.to_owned(), count.to_string()));
    counts.chain(late.map(|(name, count)| (name.to_owned(), count.to_string())))
}

/// Reports progress until it is stopped.
#[derive(Default)]
struct Ticker {
    stopped: Mutex<bool>,
    wake: Condvar,
}

impl Ticker {
    fn run(&self, file: &TraceFile, engine: &qemu::Progress, report: &(dyn Fn(&Progress) + Sync)) {
        let start = Instant::now();
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        while !*stopped {
            let waited = self.wake.wait_timeout(stopped, TICK);
            stopped = waited.unwrap_or_else(PoisonError::into_inner).0;
            report(&Progress {
                instructions: file.instructions.load(Ordering::Relaxed),
                blocks: engine.blocks.load(Ordering::Relaxed),
                bytes: file.bytes.load(Ordering::Relaxed),
                processes: engine.processes.load(Ordering::Relaxed),
                streams: engine.streams.load(Ordering::Relaxed),
                elapsed: start.elapsed(),
            });
        }
    }

    fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbols::{Binding, SymbolTableBuilder, parse_kallsyms};

    #[test]
    fn of_a_listing_the_functions_and_the_bounds_of_the_kernel_are_kept() {
        let list = "0000000000000000 A fixed_percpu_data\n\
                    ffffffff81000000 T _text\n\
                    ffffffff81000040 t local\n\
                    ffffffff81000080 W weak\n\
                    ffffffff81800000 R _etext\n\
                    ffffffff82000000 d data\n\
                    ffffffff82e00000 B _end\n\
                    ffffffffc0000000 t probe\t[module]\n\
                    ffffffffc0002000 b buffer\t[module]\n";
        let kept: Vec<_> = functions_of(list)
            .lines()
            .map(|line| line.split_ascii_whitespace().nth(2).unwrap().to_owned())
            .collect();
        assert_eq!(kept, ["_text", "local", "weak", "_etext", "_end", "probe"]);
        let table = |text: &str| {
            let table = parse_kallsyms(text.as_bytes(), "listing".as_ref()).unwrap();
            format!("{table:?}")
        };
        assert_eq!(table(&functions_of(list)), table(list));
    }

    #[test]
    fn the_listing_of_an_elf_file_is_one_that_can_be_read_and_says_where_the_kernel_ends() {
        let mut builder = SymbolTableBuilder::new(1 << 20);
        assert!(builder.push(0x1000, 0x10, b"_text", Binding::GlobalFunction));
        assert!(builder.push(0x2000, 0x30, b"start_kernel", Binding::GlobalFunction));
        let text = listing(&builder.build());
        assert!(text.ends_with("0000000000002030 B _end\n"), "{text}");
        let table = parse_kallsyms(text.as_bytes(), "listing".as_ref()).expect("a listing");
        assert_eq!(
            table.find(b"start_kernel").map(|symbol| symbol.address),
            Some(0x2000)
        );
    }
}
