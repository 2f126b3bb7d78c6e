//! System calls that concern the recording, in user mode. Numbers of x86-64 Linux.

use std::ffi::c_uint;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::control;
use crate::exec;

const CLOSE: i64 = 3;
const MMAP: i64 = 9;
const MUNMAP: i64 = 11;
const MREMAP: i64 = 25;
const DUP2: i64 = 33;
const EXECVE: i64 = 59;
const EXIT: i64 = 60;
const EXIT_GROUP: i64 = 231;
const DUP3: i64 = 292;
const EXECVEAT: i64 = 322;
const CLOSE_RANGE: i64 = 436;

const MAP_FIXED: u64 = 0x10;

/// Threads alive.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// A thread begins.
pub(crate) fn thread_started() {
    THREADS.fetch_add(1, Ordering::Relaxed);
}

/// A thread ends.
pub(crate) fn thread_ended() {
    THREADS.fetch_sub(1, Ordering::Relaxed);
}

/// In a forked child: one thread is left.
pub(crate) fn only_thread() {
    THREADS.store(1, Ordering::Relaxed);
}

/// The guest takes descriptors `first..=last` away.
fn closing(first: u64, last: u64) {
    let mut control = control::lock();
    let ours = control.descriptor().map(u64::from);
    if ours.is_some_and(|fd| (first..=last).contains(&fd)) {
        control.detach();
    }
}

fn forget(start: u64, length: u64) {
    control::lock().known.forget(start, length);
}

/// Called by QEMU before it performs a system call.
pub(crate) extern "C" fn entered(
    _id: u64,
    _vcpu: c_uint,
    number: i64,
    a1: u64,
    a2: u64,
    a3: u64,
    a4: u64,
    a5: u64,
    _a6: u64,
    _a7: u64,
    _a8: u64,
) {
    if !control::recording() {
        return;
    }
    // File descriptors are 32-bit arguments.
    let fd = |argument: u64| argument & 0xffff_ffff;
    match number {
        CLOSE => closing(fd(a1), fd(a1)),
        DUP2 | DUP3 if fd(a1) != fd(a2) => closing(fd(a2), fd(a2)),
        CLOSE_RANGE => closing(fd(a1), fd(a2)),
        MMAP if a4 & MAP_FIXED != 0 => forget(a1, a2),
        MUNMAP => forget(a1, a2),
        MREMAP => {
            forget(a1, a2);
            forget(a5, a3);
        }
        EXECVE => exec::follow(i64::from(crate::sys::AT_FDCWD), a1, a2, a3, 0),
        EXECVEAT => exec::follow(i64::from(a1 as u32 as i32), a2, a3, a4, a5),
        EXIT_GROUP => control::lock().note_exit(a1 as u8 as i32),
        EXIT if THREADS.load(Ordering::Relaxed) <= 1 => control::lock().note_exit(a1 as u8 as i32),
        _ => {}
    }
}

/// Called by QEMU after a system call.
pub(crate) extern "C" fn returned(_id: u64, _vcpu: c_uint, number: i64, result: i64) {
    if control::recording() && matches!(number, EXECVE | EXECVEAT) && result < 0 {
        control::lock().note_exec_failed(result.unsigned_abs() as u32);
    }
}
