//! Records real programs under QEMU. Needs `qemu-x86_64` and the plugin (found as `vlbr` finds it, or
//! beside this test); without them the tests pass with a message, unless `CI=true`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vlbr_traces::qemu::{
    Batch, Error, GuestEnd, Mapping, Origin, Outcome, PLUGIN_FILE, ProcessEnd, ProcessId,
    ProcessInfo, Session, SessionOptions, Sink, SinkError, StreamEnd, StreamInfo, StreamSink,
    UserOptions, find_plugin, find_qemu, user_command,
};

/// What one stream delivered.
#[derive(Clone, Debug, Default)]
struct Stream {
    blocks: u64,
    instructions: u64,
    stores: u64,
    /// Bytes of all executed blocks' code, by address.
    code: BTreeMap<u64, Vec<u8>>,
    last: Option<u64>,
    end: Option<StreamEnd>,
}

#[derive(Debug, Default)]
struct Recording {
    processes: Mutex<Vec<(ProcessInfo, Option<ProcessEnd>)>>,
    mappings: Mutex<Vec<(ProcessId, Vec<Mapping>)>>,
    streams: Mutex<Vec<Stream>>,
    fail_after: Option<u64>,
}

#[derive(Debug)]
struct Recorder<'a> {
    recording: &'a Recording,
    stream: Stream,
}

impl<'a> Sink for &'a Recording {
    type Stream = Recorder<'a>;

    fn process(&self, process: &ProcessInfo) -> Result<(), SinkError> {
        let mut processes = self.processes.lock().unwrap();
        assert_eq!(process.id.0 as usize, processes.len(), "numbered in order");
        processes.push((process.clone(), None));
        Ok(())
    }

    fn mappings(&self, process: ProcessId, mappings: &[Mapping]) -> Result<(), SinkError> {
        self.mappings
            .lock()
            .unwrap()
            .push((process, mappings.to_vec()));
        Ok(())
    }

    fn stream(&self, _: &StreamInfo) -> Result<Recorder<'a>, SinkError> {
        Ok(Recorder {
            recording: self,
            stream: Stream::default(),
        })
    }

    fn process_end(&self, process: ProcessId, end: ProcessEnd) -> Result<(), SinkError> {
        self.processes.lock().unwrap()[process.0 as usize].1 = Some(end);
        Ok(())
    }
}

impl StreamSink for Recorder<'_> {
    fn batch(&mut self, batch: &Batch<'_>) -> Result<(), SinkError> {
        let stream = &mut self.stream;
        for &id in batch.ids {
            let block = &batch.blocks[id as usize];
            stream.blocks += 1;
            stream.instructions += block.instructions() as u64;
            stream.last = Some(block.start);
            stream
                .code
                .entry(block.start)
                .or_insert_with(|| block.bytes.to_vec());
        }
        for access in batch.memory {
            assert!(access.preceding as usize <= batch.ids.len());
            stream.stores += u64::from(access.store);
        }
        match self.recording.fail_after {
            Some(limit) if stream.blocks > limit => Err("the disk is full".into()),
            _ => Ok(()),
        }
    }

    fn end(mut self, end: StreamEnd) -> Result<(), SinkError> {
        self.stream.end = Some(end);
        self.recording.streams.lock().unwrap().push(self.stream);
        Ok(())
    }
}

/// The plugin, if this machine can record.
fn plugin() -> Option<PathBuf> {
    let built = || {
        let test = std::env::current_exe().ok()?;
        let profile = test.parent()?.parent()?;
        [
            profile.to_owned(),
            profile.parent()?.join("release"),
            profile.parent()?.join("debug"),
        ]
        .into_iter()
        .map(|directory| directory.join(PLUGIN_FILE))
        .find(|file| file.exists())
    };
    let found = find_plugin()
        .ok()
        .or_else(built)
        .filter(|_| find_qemu(false).is_ok());
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(
        found.is_some() || !in_ci,
        "no qemu-x86_64 or no {PLUGIN_FILE}"
    );
    if found.is_none() {
        eprintln!("skipped: no qemu-x86_64, or {PLUGIN_FILE} is not built");
    }
    found
}

fn options(plugin: &Path, program: &str, arguments: &[&str]) -> UserOptions {
    UserOptions {
        program: program.into(),
        arguments: arguments.iter().map(OsString::from).collect(),
        plugin: Some(plugin.to_owned()),
        ..UserOptions::default()
    }
}

fn record(
    session: SessionOptions,
    options: &UserOptions,
    recording: &Recording,
) -> Result<Outcome, Error> {
    let session = Session::new(session)?;
    let mut command = user_command(&session, options)?;
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null());
    session.run(command, &recording, &AtomicBool::new(false))
}

fn compile(directory: &Path, name: &str, source: &str) -> Option<String> {
    let code = directory.join(format!("{name}.c"));
    std::fs::write(&code, source).unwrap();
    let program = directory.join(name);
    let compiled = std::process::Command::new("cc")
        .args(["-O1", "-pthread", "-o"])
        .args([&program, &code])
        .status();
    if compiled.is_ok_and(|status| status.success()) {
        return Some(program.into_os_string().into_string().unwrap());
    }
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!in_ci, "no C compiler");
    eprintln!("skipped: no C compiler");
    None
}

#[test]
fn a_process_is_recorded_with_its_code_and_mappings() {
    let Some(plugin) = plugin() else { return };
    let recording = Recording::default();
    let outcome = record(
        SessionOptions::default(),
        &options(&plugin, "true", &[]),
        &recording,
    )
    .unwrap();
    assert_eq!(outcome.end, GuestEnd::Exited(0));
    assert_eq!(
        (outcome.processes, outcome.streams, outcome.stopped),
        (1, 1, false)
    );
    assert_eq!(outcome.lost, []);
    let processes = recording.processes.into_inner().unwrap();
    assert_eq!(processes[0].0.origin, Origin::Started);
    assert_eq!(processes[0].0.arguments, [b"true".to_vec()]);
    assert_eq!(processes[0].1, Some(ProcessEnd::Exited(0)));

    let streams = recording.streams.into_inner().unwrap();
    let stream = &streams[0];
    assert_eq!(stream.end, Some(StreamEnd::Process(ProcessEnd::Exited(0))));
    assert!(stream.instructions > 10_000, "{stream:?}");
    assert_eq!(stream.blocks, outcome.blocks);

    // Every executed block lies in a recorded mapping, and its bytes are the file's.
    let mappings = recording.mappings.into_inner().unwrap();
    let mappings: Vec<_> = mappings
        .into_iter()
        .flat_map(|(_, mappings)| mappings)
        .collect();
    let mut compared = 0;
    for (&start, bytes) in &stream.code {
        let mapping = mappings
            .iter()
            .find(|m| m.start <= start && start + bytes.len() as u64 <= m.end)
            .unwrap_or_else(|| panic!("no mapping holds the block at {start:#x}: {mappings:#x?}"));
        let path = String::from_utf8(mapping.path.clone()).unwrap();
        assert!(!path.contains("qemu"), "{path} is not the guest's");
        let file = std::fs::read(&path).unwrap();
        let offset = (start - mapping.start + mapping.offset) as usize;
        assert_eq!(
            &file[offset..offset + bytes.len()],
            bytes,
            "{path} at {offset:#x}"
        );
        compared += 1;
    }
    assert!(compared > 1000, "only {compared} blocks");
}

#[test]
fn forks_execs_and_pipelines_are_followed() {
    let Some(plugin) = plugin() else { return };
    let recording = Recording::default();
    let script = "ls / | sort; exit 3";
    let options = options(&plugin, "sh", &["-c", script]);
    let outcome = record(SessionOptions::default(), &options, &recording).unwrap();
    assert_eq!(outcome.end, GuestEnd::Exited(3));
    assert_eq!(outcome.lost, []);
    let processes = recording.processes.into_inner().unwrap();
    assert_eq!(processes[0].1, Some(ProcessEnd::Exited(3)));
    for program in ["ls", "sort"] {
        let (info, end) = processes
            .iter()
            .find(|(info, _)| {
                info.arguments
                    .first()
                    .is_some_and(|a| a == program.as_bytes())
            })
            .unwrap_or_else(|| panic!("{program} is missing: {processes:?}"));
        assert_eq!(*end, Some(ProcessEnd::Exited(0)));
        let Origin::Replaced(shell) = info.origin else {
            panic!("{info:?} was not exec'd")
        };
        let (shell, end) = &processes[shell.0 as usize];
        assert_eq!(shell.pid, info.pid);
        assert_eq!(*end, Some(ProcessEnd::Replaced));
        assert!(
            matches!(
                shell.origin,
                Origin::Forked {
                    parent: ProcessId(0),
                    stream: Some(_)
                }
            ),
            "{shell:?}"
        );
    }
    let streams = recording.streams.into_inner().unwrap();
    assert!(
        streams.iter().all(|stream| stream.instructions > 100),
        "{streams:?}"
    );
}

#[test]
fn each_thread_is_a_stream() {
    let Some(plugin) = plugin() else { return };
    let directory = tempfile::tempdir().unwrap();
    let source = "#include <pthread.h>
        static void *work(void *p) { volatile long s = 0; for (long i = 0; i < 300000; i++) s += i; return p; }
        int main(void) { pthread_t t[3]; for (int i = 0; i < 3; i++) pthread_create(&t[i], 0, work, 0);
        for (int i = 0; i < 3; i++) pthread_join(t[i], 0); return 7; }";
    let Some(program) = compile(directory.path(), "threads", source) else {
        return;
    };
    let recording = Recording::default();
    let outcome = record(
        SessionOptions::default(),
        &options(&plugin, &program, &[]),
        &recording,
    )
    .unwrap();
    assert_eq!(outcome.end, GuestEnd::Exited(7));
    assert_eq!(outcome.streams, 4);
    let streams = recording.streams.into_inner().unwrap();
    let workers: Vec<_> = streams
        .iter()
        .filter(|stream| stream.end == Some(StreamEnd::ThreadExit))
        .collect();
    assert_eq!(workers.len(), 3);
    for worker in workers {
        assert!(
            (300_000..310_000).contains(&worker.blocks),
            "{} blocks",
            worker.blocks
        );
    }
}

#[test]
fn a_killed_process_loses_nothing_it_ran() {
    let Some(plugin) = plugin() else { return };
    for (signal, number) in [("KILL", 9), ("SEGV", 11)] {
        let recording = Recording::default();
        let script = format!("kill -{signal} $$");
        let options = options(&plugin, "sh", &["-c", &script]);
        let outcome = record(SessionOptions::default(), &options, &recording).unwrap();
        assert_eq!(outcome.end, GuestEnd::Signaled(number));
        assert_eq!(
            recording.processes.into_inner().unwrap()[0].1,
            Some(ProcessEnd::Killed)
        );
        let streams = recording.streams.into_inner().unwrap();
        let stream = &streams[0];
        assert_eq!(stream.end, Some(StreamEnd::Process(ProcessEnd::Killed)));
        // The last block is the one that makes the system call.
        let last = &stream.code[&stream.last.unwrap()];
        assert!(last.ends_with(&[0x0f, 0x05]), "{last:x?}");
    }
}

#[test]
fn a_guest_that_closes_every_descriptor_is_still_recorded() {
    let Some(plugin) = plugin() else { return };
    let directory = tempfile::tempdir().unwrap();
    let source = "#include <unistd.h>\n#include <fcntl.h>\n#include <sys/syscall.h>
        __attribute__((noinline)) static int f(int x) { return x * 3 + 1; }
        int main(int c, char **v) { for (int i = 3; i < 2000; i++) close(i);
        if (open(\"/dev/null\", O_RDWR) != 3) return 1;
        for (int i = 3; i < 1000; i++) dup2(1, i);
        syscall(436, 3u, ~0u, 0u); return f(c) == 4 ? 0 : 2; }";
    let Some(program) = compile(directory.path(), "closer", source) else {
        return;
    };
    let recording = Recording::default();
    let outcome = record(
        SessionOptions::default(),
        &options(&plugin, &program, &[]),
        &recording,
    )
    .unwrap();
    assert_eq!(outcome.end, GuestEnd::Exited(0));
    assert_eq!(outcome.lost, []);
    assert_eq!(
        recording.processes.into_inner().unwrap()[0].1,
        Some(ProcessEnd::Exited(0))
    );
}

/// Each new function is translated after the connection was given up, so that the process returns
/// again and again, faster than the recorder may look.
#[test]
fn a_guest_that_closes_every_descriptor_in_a_row_returns_each_time() {
    let Some(plugin) = plugin() else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut source = String::from("#include <unistd.h>\n#include <sys/syscall.h>\n");
    let mut body = String::new();
    for n in 0..150 {
        source += &format!(
            "__attribute__((noinline, noclone)) static int f{n}(int x) {{ return x * {n} + 1; }}\n"
        );
        body += &format!("syscall(436, 3u, ~0u, 0u); sum += f{n}(c);\n");
    }
    source += &format!("int main(int c, char **v) {{ volatile int sum = 0; {body} return 0; }}");
    let Some(program) = compile(directory.path(), "returns", &source) else {
        return;
    };
    for _ in 0..3 {
        let recording = Recording::default();
        let outcome = record(
            SessionOptions::default(),
            &options(&plugin, &program, &[]),
            &recording,
        )
        .unwrap();
        assert_eq!(outcome.end, GuestEnd::Exited(0));
        assert_eq!(outcome.lost, []);
    }
}

#[test]
fn a_small_ring_and_data_addresses_change_no_count() {
    let Some(plugin) = plugin() else { return };
    let directory = tempfile::tempdir().unwrap();
    let source = "static volatile unsigned char a[4096];
        int main(void) { for (int r = 0; r < 500; r++) for (int i = 0; i < 4096; i++) a[i] = i; return 0; }";
    let Some(program) = compile(directory.path(), "stores", source) else {
        return;
    };
    let options = options(&plugin, &program, &[]);
    let count = |session| {
        let recording = Recording::default();
        let outcome = record(session, &options, &recording).unwrap();
        assert_eq!(outcome.end, GuestEnd::Exited(0));
        let mut streams = recording.streams.into_inner().unwrap();
        streams.remove(0)
    };
    let plain = count(SessionOptions::default());
    let memory = count(SessionOptions {
        ring_words: 4096,
        memory: true,
    });
    assert!(plain.blocks > 500 * 4096);
    // The loader's path depends a little on addresses and time.
    assert!(
        plain.blocks.abs_diff(memory.blocks) < 1000,
        "{} {}",
        plain.blocks,
        memory.blocks
    );
    assert_eq!(plain.stores, 0);
    assert!(
        (500 * 4096..500 * 4096 + 200_000).contains(&memory.stores),
        "{}",
        memory.stores
    );
}

#[test]
fn a_stop_ends_the_guest_and_keeps_what_ran() {
    let Some(plugin) = plugin() else { return };
    let recording = Recording::default();
    let session = Session::new(SessionOptions::default()).unwrap();
    let mut command = user_command(&session, &options(&plugin, "sleep", &["600"])).unwrap();
    command.stdin(std::process::Stdio::null());
    let stop = AtomicBool::new(false);
    let start = Instant::now();
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            while session.progress().streams.load(Ordering::Relaxed) == 0 {
                std::thread::sleep(Duration::from_millis(10));
                if start.elapsed() > Duration::from_secs(60) {
                    break;
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        session.run(command, &&recording, &stop)
    })
    .unwrap();
    assert!(outcome.stopped);
    assert_eq!(outcome.end, GuestEnd::Signaled(15));
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(outcome.blocks > 0);
}

#[test]
fn a_failing_sink_ends_the_recording_with_its_error() {
    let Some(plugin) = plugin() else { return };
    let recording = Recording {
        fail_after: Some(1000),
        ..Recording::default()
    };
    let options = options(&plugin, "sh", &["-c", "while :; do :; done"]);
    let error = record(SessionOptions::default(), &options, &recording).unwrap_err();
    assert_eq!(error.to_string(), "writing the recording: the disk is full");
}

#[test]
fn missing_things_are_named() {
    let Some(plugin) = plugin() else { return };
    let session = Session::new(SessionOptions::default()).unwrap();
    let error = user_command(&session, &options(&plugin, "/no/such/program", &[])).unwrap_err();
    assert!(matches!(error, Error::ProgramMissing { .. }), "{error}");
    let error = user_command(&session, &options(&plugin, "/etc/passwd", &[])).unwrap_err();
    assert!(matches!(error, Error::ProgramUnusable { .. }), "{error}");
    let bad = options(Path::new("/no/such/plugin.so"), "true", &[]);
    let recording = Recording::default();
    let error = record(SessionOptions::default(), &bad, &recording).unwrap_err();
    assert!(matches!(error, Error::NotStarted { .. }), "{error}");
}
