//! The same programs through every recorder: QEMU's plugin, ptrace and QEMU's log. Needs gcc; the
//! parts for QEMU need `qemu-x86_64` and the plugin. What is missing is said and left out, unless
//! `CI=true`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use vlbr_arch::{BranchClass, FarKind};
use vlbr_traces::qemu::{GuestEnd, PLUGIN_FILE, find_plugin, find_qemu};
use vlbr_traces::record::{
    Engine, LogOptions, Outcome, RecordError, RecordOptions, convert_qemulog, record_user,
};
use vlbr_traces::vlt::{ChunkBuffer, OpenOptions, SideBuffer, ThreadIndex, Trace};

/// What a thread did: instructions retired, and transfers as class, from and to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Done {
    retired: Vec<u64>,
    transfers: Vec<(BranchClass, u64, u64)>,
}

fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// Says what is missing; in CI that is a failure.
fn missing(what: &str) {
    assert!(!in_ci(), "{what}");
    eprintln!("skipped: {what}");
}

fn plugin() -> Option<PathBuf> {
    let beside = || {
        let test = std::env::current_exe().ok()?;
        let profile = test.parent()?.parent()?;
        let target = profile.parent()?;
        [
            profile.to_owned(),
            target.join("release"),
            target.join("debug"),
        ]
        .into_iter()
        .map(|directory| directory.join(PLUGIN_FILE))
        .find(|file| file.exists())
    };
    let found = find_plugin().ok().or_else(beside);
    let found = found.filter(|_| find_qemu(false).is_ok());
    if found.is_none() {
        missing(&format!("no qemu-x86_64, or {PLUGIN_FILE} is not built"));
    }
    found
}

/// Compiles `source` (assembly or C by `name`) in `directory`.
fn build(directory: &Path, name: &str, source: &str, flags: &[&str]) -> Option<PathBuf> {
    let file = directory.join(name);
    std::fs::write(&file, source).unwrap();
    let program = directory.join(name.split('.').next().unwrap());
    let built = Command::new("gcc")
        .args(flags)
        .arg("-o")
        .args([&program, &file])
        .status();
    match built {
        Ok(status) => {
            assert!(status.success(), "gcc refused {name}");
            Some(program)
        }
        Err(_) => {
            missing("no gcc");
            None
        }
    }
}

fn record(engine: Engine, program: &Path, output: &Path, arguments: &[&str]) -> Outcome {
    let mut options = RecordOptions::new(output.to_owned());
    options.overwrite = true;
    if engine == Engine::Qemu {
        options.plugin = plugin();
    }
    let arguments: Vec<_> = arguments.iter().map(Into::into).collect();
    let stop = AtomicBool::new(false);
    let program = program.as_os_str();
    record_user(engine, &options, program, &arguments, &stop, &|_| {}).unwrap()
}

fn log(program: &Path, directory: &Path) -> Outcome {
    let log = directory.join("log");
    Command::new("qemu-x86_64")
        .args(["-d", "exec,nochain,in_asm", "-D"])
        .args([&log, program])
        .status()
        .unwrap();
    let mut options = RecordOptions::new(directory.join("log.vlt"));
    options.overwrite = true;
    convert_qemulog(
        &log,
        &LogOptions::default(),
        &options,
        &AtomicBool::new(false),
    )
    .unwrap()
}

/// All that thread `thread` of a trace did.
fn done(path: &Path, thread: u32) -> Done {
    let trace = Trace::open(path, OpenOptions::default()).unwrap();
    assert!(trace.damage().is_none());
    let code = trace.code();
    let mut buffer = ChunkBuffer::new();
    let mut done = Done::default();
    for (index, info) in trace.chunks().iter().enumerate() {
        if info.thread != ThreadIndex(thread) {
            continue;
        }
        let chunk = trace.decode(index, &mut buffer).unwrap();
        for id in chunk.steps() {
            let step = code.step(id);
            let block = code.block(step.block);
            done.retired
                .extend((0..step.retired).map(|i| block.address_of(i)));
            if let Some(transfer) = code.transfer(id) {
                done.transfers
                    .push((transfer.class, transfer.from, transfer.to));
            }
        }
    }
    done
}

/// String instructions, calls by register, code that modifies itself, a signal sent to itself, a
/// load that faults and is repaired by the handler, all kinds of jumps.
const PROGRAM: &str = "
        .globl _start
_start: mov $10, %edi
        call install
        mov $11, %edi
        call install
        mov $100, %ebx
again:  lea source(%rip), %rsi
        lea sink(%rip), %rdi
        mov %ebx, %ecx
        and $7, %ecx
        rep movsb
        lea table(%rip), %rax
        mov %ebx, %edx
        and $1, %edx
        call *(%rax,%rdx,8)
        dec %ebx
        jnz again
        std
        mov $3, %ecx
        lea sink+8(%rip), %rdi
        mov $1, %al
        repne scasb
        cld
        mov $39, %eax
        syscall
        mov %eax, %edi
        mov $10, %esi
        mov $62, %eax
        syscall
        xor %eax, %eax
        xor %ecx, %ecx
        nop
        movb (%rax), %cl
        movb $2, %dl
        lea patched(%rip), %rdi
        and $-4096, %rdi
        mov $8192, %esi
        mov $7, %edx
        mov $10, %eax
        syscall
        mov $3, %ecx
patched: mov $1, %eax
        incb patched+1(%rip)
        loop patched
        jmp end
        .skip 100, 0x90
end:    mov %eax, %edi
        call 1f
1:      pop %rax
        mov $231, %eax
        syscall
odd:    ret
even:   jrcxz 2f
        nop
2:      ret
install: mov $13, %eax
        lea action(%rip), %rsi
        xor %edx, %edx
        mov $8, %r10d
        syscall
        ret
handler: cmp $11, %edi
        jne done
        lea source(%rip), %rax
        mov %rax, 144(%rdx)
done:   ret
restore: mov $15, %rax
        syscall
        .data
action: .quad handler, 0x04000004, restore, 0
table:  .quad even, odd
source: .quad 0x0807060504030201
sink:   .quad 0, 0
";

#[test]
fn all_recorders_see_the_same_instructions_and_transfers() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["-nostdlib", "-static"];
    let Some(program) = build(directory.path(), "program.s", PROGRAM, &flags) else {
        return;
    };
    let path = |name: &str| directory.path().join(name);
    let outcome = record(Engine::Ptrace, &program, &path("ptrace.vlt"), &[]);
    assert_eq!(outcome.end, Some(GuestEnd::Exited(3)));
    assert_eq!((outcome.processes, outcome.streams), (1, 1));
    assert_eq!(outcome.stats.problems(), 0, "{:?}", outcome.stats);
    let expected = done(&path("ptrace.vlt"), 0);
    assert_eq!(outcome.stats.retired, expected.retired.len() as u64);
    let count = |kind| {
        let class = BranchClass::Far(kind);
        expected
            .transfers
            .iter()
            .filter(|transfer| transfer.0 == class)
            .count()
    };
    // Two calls of sigaction, getpid, kill, mprotect, two of rt_sigreturn, and the exit.
    assert_eq!(count(FarKind::Syscall), 8);
    // Signal and fault: into the handler and back; the first signal strikes in a system call.
    assert_eq!((count(FarKind::Iret), count(FarKind::Exception)), (4, 1));
    assert_eq!(count(FarKind::Sysret), 4);
    if plugin().is_none() {
        return;
    }
    let outcome = record(Engine::Qemu, &program, &path("qemu.vlt"), &[]);
    assert_eq!(outcome.end, Some(GuestEnd::Exited(3)));
    assert_eq!(outcome.stats.problems(), 0, "{:?}", outcome.stats);
    assert_equal(&done(&path("qemu.vlt"), 0), &expected);
    let outcome = log(&program, directory.path());
    assert_eq!(outcome.stats.problems(), 0, "{:?}", outcome.stats);
    assert_equal(&done(&path("log.vlt"), 0), &expected);
}

/// Code with its literal on its page, which it changes each time it runs, in blocks that end in a
/// RET, an indirect jump and an indirect call.
const LITERAL: &str = "
#include <string.h>
#include <sys/mman.h>
int main(void) {
    unsigned char *page = mmap(0, 8192, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    static const unsigned char code[] = {
        /*  0: incl 0x40(%rip), movl 0x3a(%rip), %eax, ret */
        0xff, 0x05, 0x40, 0, 0, 0, 0x8b, 0x05, 0x3a, 0, 0, 0, 0xc3, 0x90, 0x90, 0x90,
        /* 16: pop %rdx, incl 0x2f(%rip), nop, jmp *%rdx */
        0x5a, 0xff, 0x05, 0x2f, 0, 0, 0, 0x90, 0xff, 0xe2, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90,
        /* 32: push %rbx, mov %rdi, %rbx, incl 0x1c(%rip), call *%rbx, pop %rbx, ret */
        0x53, 0x48, 0x89, 0xfb, 0xff, 0x05, 0x1c, 0, 0, 0, 0xff, 0xd3, 0x5b, 0xc3,
    };
    memcpy(page, code, sizeof code);
    int sum = 0;
    for (int i = 0; i < 1000; i++) {
        sum += ((int (*)(void))page)();
        ((void (*)(void))(page + 16))();
        ((void (*)(void *))(page + 32))(page);
    }
    return sum == 1999000 ? 0 : 1;
}
";

#[test]
fn code_that_changes_its_own_page_is_seen_alike_by_all_recorders() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["-O1", "-static"];
    let Some(program) = build(directory.path(), "literal.c", LITERAL, &flags) else {
        return;
    };
    let path = |name: &str| directory.path().join(name);
    let outcome = record(Engine::Ptrace, &program, &path("ptrace.vlt"), &[]);
    assert_eq!(outcome.end, Some(GuestEnd::Exited(0)));
    assert_eq!(outcome.stats.cut_blocks + outcome.stats.restarted, 0);
    // What the program's own functions did: libc's start depends on the CPU and the environment.
    let own = |path: &Path| {
        let mut done = done(path, 0);
        let first = done.transfers.iter().position(|t| is_page(t.2)).unwrap();
        let last = done.transfers.iter().rposition(|t| is_page(t.1)).unwrap();
        let base = done.transfers[first].2;
        done.transfers = done.transfers.drain(first..=last).collect();
        for (_, from, to) in &mut done.transfers {
            for address in [from, to] {
                if is_page(*address) {
                    *address -= base;
                }
            }
        }
        let first = done.retired.iter().position(|&at| at == base).unwrap();
        let last = done.retired.iter().rposition(|&at| is_page(at)).unwrap();
        done.retired = done.retired.drain(first..=last).collect();
        for address in &mut done.retired {
            if is_page(*address) {
                *address -= base;
            }
        }
        done
    };
    let expected = own(&path("ptrace.vlt"));
    assert!(
        expected.retired.len() > 18_000,
        "{}",
        expected.retired.len()
    );
    if plugin().is_none() {
        return;
    }
    let outcome = record(Engine::Qemu, &program, &path("qemu.vlt"), &[]);
    let stats = outcome.stats;
    assert!(
        stats.cut_blocks >= 2000 && stats.restarted >= 1000,
        "{stats:?}"
    );
    assert_eq!(stats.problems(), 0, "{stats:?}");
    assert_equal(&own(&path("qemu.vlt")), &expected);
    let outcome = log(&program, directory.path());
    assert_eq!(outcome.stats.problems(), 0, "{:?}", outcome.stats);
    assert_equal(&own(&path("log.vlt")), &expected);
}

/// Whether `address` is that of a mapped page, not of the program at its fixed address.
fn is_page(address: u64) -> bool {
    (1 << 32..1 << 47).contains(&address)
}

/// As `assert_eq`, but names the first difference.
fn assert_equal(found: &Done, expected: &Done) {
    for (index, (a, b)) in found.transfers.iter().zip(&expected.transfers).enumerate() {
        assert!(a == b, "transfer {index}: {a:x?}, expected {b:x?}");
    }
    for (index, (a, b)) in found.retired.iter().zip(&expected.retired).enumerate() {
        assert!(a == b, "instruction {index} at {a:#x}, expected {b:#x}");
    }
    assert_eq!(found.retired.len(), expected.retired.len());
    assert_eq!(found.transfers.len(), expected.transfers.len());
}

#[test]
fn processes_threads_and_libraries_are_in_the_trace() {
    let directory = tempfile::tempdir().unwrap();
    let source = r#"
        #include <pthread.h>
        #include <stdlib.h>
        #include <sys/wait.h>
        #include <unistd.h>
        static void *work(void *p) { return p; }
        int main(void) {
            pthread_t thread;
            if (pthread_create(&thread, 0, work, 0) || pthread_join(thread, 0)) return 1;
            pid_t child = fork();
            if (child == 0) execl("/bin/true", "true", (char *)0);
            int status;
            waitpid(child, &status, 0);
            return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 42 : 2;
        }"#;
    let Some(program) = build(directory.path(), "program.c", source, &["-O1", "-pthread"]) else {
        return;
    };
    for engine in [Engine::Ptrace, Engine::Qemu] {
        if engine == Engine::Qemu && plugin().is_none() {
            continue;
        }
        let output = directory.path().join("trace.vlt");
        let outcome = record(engine, &program, &output, &[]);
        assert_eq!(outcome.end, Some(GuestEnd::Exited(42)), "{engine:?}");
        assert_eq!((outcome.processes, outcome.streams), (3, 4), "{engine:?}");
        assert_eq!(outcome.stats.gaps, 0, "{engine:?} {:?}", outcome.stats);
        let trace = Trace::open(&output, OpenOptions::default()).unwrap();
        let paths: Vec<_> = trace
            .processes()
            .iter()
            .map(|process| &process.path)
            .collect();
        assert!(paths[2].ends_with("true"), "{paths:?}");
        assert_eq!(trace.processes()[1].pid, trace.processes()[2].pid);
        for index in 0..3 {
            let libc = trace.mappings().iter().find(|mapping| {
                mapping.process.0 == index
                    && mapping.flags.execute
                    && mapping.path.to_string_lossy().contains("libc")
            });
            let libc = libc.unwrap_or_else(|| panic!("{engine:?}: no libc in process {index}"));
            assert_eq!(libc.build_id.len(), 20);
        }
    }
}

#[test]
fn data_addresses_are_placed_at_their_instructions() {
    let Some(plugin) = plugin() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let source = "
        .globl _start
_start: lea buffer(%rip), %rdi
        mov $6, %ecx
store:  rep stosb
        mov $3, %ebx
next:   mov buffer(%rip), %eax
        dec %ebx
        jnz next
        mov $60, %eax
        xor %edi, %edi
        syscall
        .bss
buffer: .skip 8
";
    let flags = ["-nostdlib", "-static"];
    let Some(program) = build(directory.path(), "memory.s", source, &flags) else {
        return;
    };
    let mut options = RecordOptions::new(directory.path().join("memory.vlt"));
    options.memory = true;
    options.plugin = Some(plugin);
    let stop = AtomicBool::new(false);
    record_user(
        Engine::Qemu,
        &options,
        program.as_os_str(),
        &[],
        &stop,
        &|_| {},
    )
    .unwrap();
    let trace = Trace::open(&options.output, OpenOptions::default()).unwrap();
    let mut buffer = ChunkBuffer::new();
    let chunk = trace.decode(0, &mut buffer).unwrap();
    let steps: Vec<_> = chunk.steps().collect();
    let mut sides = SideBuffer::default();
    let accesses: Vec<_> = trace
        .memory_accesses(0, &chunk, &mut sides)
        .unwrap()
        .expect("data addresses were recorded")
        .map(|access| {
            let access = access.unwrap();
            let step = trace.code().step(steps[access.position.step as usize]);
            let block = trace.code().block(step.block);
            let at = block.address_of(access.position.instruction) - block.address();
            let first = block.address() == trace.code().blocks()[0].address();
            (first, at, access.size_log2, access.store)
        })
        .collect();
    let stores = vec![(true, 12, 0, true); 6];
    assert_eq!(accesses[..6], stores);
    assert_eq!(accesses.len(), 9);
    assert!(
        accesses[6..]
            .iter()
            .all(|access| (access.2, access.3) == (2, false))
    );
}

#[test]
fn a_program_that_dies_or_does_not_exist_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let source = ".globl _start\n_start: nop\n ud2\n";
    let flags = ["-nostdlib", "-static"];
    let Some(program) = build(directory.path(), "dies.s", source, &flags) else {
        return;
    };
    let output = directory.path().join("trace.vlt");
    let outcome = record(Engine::Ptrace, &program, &output, &[]);
    assert_eq!(outcome.end, Some(GuestEnd::Signaled(4)));
    assert_eq!(done(&output, 0).retired.len(), 1);
    let missing = directory.path().join("missing.vlt");
    let options = RecordOptions::new(missing.clone());
    let stop = AtomicBool::new(false);
    let nothing = OsStr::new("/nonexistent/program");
    let result = record_user(Engine::Ptrace, &options, nothing, &[], &stop, &|_| {});
    assert!(matches!(result, Err(RecordError::Ptrace(_))), "{result:?}");
    assert!(!missing.exists(), "an empty trace was left behind");
}

#[test]
fn a_stopped_recording_is_a_valid_trace() {
    let directory = tempfile::tempdir().unwrap();
    let source = ".globl _start\n_start: jmp _start\n";
    let flags = ["-nostdlib", "-static"];
    let Some(program) = build(directory.path(), "spins.s", source, &flags) else {
        return;
    };
    let engines = [Some(Engine::Ptrace), plugin().map(|_| Engine::Qemu)];
    for engine in engines.into_iter().flatten() {
        let mut options = RecordOptions::new(directory.path().join("trace.vlt"));
        options.overwrite = true;
        if engine == Engine::Qemu {
            options.plugin = plugin();
        }
        let stop = AtomicBool::new(false);
        // Stops as soon as something was executed.
        let watch = |progress: &vlbr_traces::record::Progress| {
            if progress.instructions > 100 {
                stop.store(true, Ordering::Relaxed);
            }
        };
        let path = program.as_os_str();
        let outcome = record_user(engine, &options, path, &[], &stop, &watch).unwrap();
        assert!(outcome.stopped);
        assert!(done(&options.output, 0).retired.len() > 100);
    }
}

#[test]
fn a_full_disk_leaves_what_was_written() {
    let full = Path::new("/dev/full");
    if !full.exists() {
        missing("no /dev/full");
        return;
    }
    let mut options = RecordOptions::new(full.to_owned());
    options.overwrite = true;
    let stop = AtomicBool::new(false);
    let program = OsStr::new("/bin/true");
    let result = record_user(Engine::Ptrace, &options, program, &[], &stop, &|_| {});
    assert!(
        matches!(result, Err(RecordError::Write { .. })),
        "{result:?}"
    );
    assert!(full.exists());
}

#[test]
fn an_existing_trace_is_not_replaced_unasked() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("trace.vlt");
    std::fs::write(&output, "precious").unwrap();
    let options = RecordOptions::new(output.clone());
    let stop = AtomicBool::new(false);
    let program = OsStr::new("/bin/true");
    let result = record_user(Engine::Ptrace, &options, program, &[], &stop, &|_| {});
    assert!(matches!(result, Err(RecordError::Write { .. })));
    assert_eq!(std::fs::read(&output).unwrap(), b"precious");
}
