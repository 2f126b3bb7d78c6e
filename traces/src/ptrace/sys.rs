//! The calls that the safe wrappers do not cover: real-time signals among them, which have no name.
#![expect(
    unsafe_code,
    reason = "calls of the operating system without a safe wrapper"
)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::sys::personality::{self, Persona};
use nix::sys::ptrace;
use nix::unistd::Pid;

/// What waitpid(2) reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Ended with this status.
    Exited(i32),
    /// Killed by this signal.
    Signaled(i32),
    /// Stopped by this signal.
    Stopped(i32),
    /// Stopped by this `PTRACE_EVENT_*`.
    Event(i32),
}

/// Lets the child be traced by its parent from its exec on, and turns address randomisation off.
pub(super) fn trace_on_exec(command: &mut Command) {
    // SAFETY: the closure runs between fork and exec. It makes two system calls and neither
    // allocates nor takes a lock.
    unsafe {
        command.pre_exec(|| {
            // Some sandboxes forbid it; the recording works without.
            if let Ok(persona) = personality::get() {
                let _ = personality::set(persona | Persona::ADDR_NO_RANDOMIZE);
            }
            ptrace::traceme().map_err(Into::into)
        });
    }
}

/// Waits for a child or tracee of this thread. `None`: there is none left.
pub(super) fn wait() -> Result<Option<(Pid, Wait)>, Errno> {
    let mut status = 0;
    // SAFETY: `status` is valid for writing.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    match Errno::result(pid) {
        Err(Errno::ECHILD) => return Ok(None),
        Err(errno) => return Err(errno),
        Ok(_) => {}
    }
    let wait = if libc::WIFEXITED(status) {
        Wait::Exited(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        Wait::Signaled(libc::WTERMSIG(status))
    } else if status >> 16 != 0 {
        Wait::Event(status >> 16)
    } else {
        Wait::Stopped(libc::WSTOPSIG(status))
    };
    Ok(Some((Pid::from_raw(pid), wait)))
}

/// Lets a stopped tracee run one instruction, or deliver `signal` first if it is not 0.
pub(super) fn step(tid: Pid, signal: i32) -> Result<(), Errno> {
    // SAFETY: PTRACE_SINGLESTEP accesses no memory of this process; its last argument is a number.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_SINGLESTEP,
            tid.as_raw(),
            std::ptr::null_mut::<libc::c_void>(),
            libc::c_long::from(signal),
        )
    };
    Errno::result(result).map(drop)
}
