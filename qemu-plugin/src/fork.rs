//! fork: parent and child must not share a ring or a connection.
//!
//! The handlers hold the control lock across the fork, so that the child finds its state whole.

use std::cell::UnsafeCell;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::control::{self, Control};
use crate::{ring, sys, syscalls};

struct Held(UnsafeCell<Option<MutexGuard<'static, Control>>>);

// SAFETY: only the thread that holds the control lock touches the cell.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(None));
/// Stream of the forking thread, `u32::MAX` if none.
static STREAM: AtomicU32 = AtomicU32::new(u32::MAX);

/// Installs the handlers. False if the C library refuses.
pub(crate) fn install() -> bool {
    // SAFETY: the handlers live as long as the process: QEMU unloads no plugin before its end.
    unsafe { sys::pthread_atfork(Some(prepare), Some(parent), Some(child)) == 0 }
}

unsafe extern "C" fn prepare() {
    let control = control::lock();
    STREAM.store(
        ring::own_stream(&control).unwrap_or(u32::MAX),
        Ordering::Relaxed,
    );
    // SAFETY: this thread holds the lock.
    unsafe { *HELD.0.get() = Some(control) };
}

unsafe extern "C" fn parent() {
    // SAFETY: the same thread as in `prepare`, which still holds the lock.
    drop(unsafe { (*HELD.0.get()).take() });
}

unsafe extern "C" fn child() {
    // SAFETY: the copy of the thread that ran `prepare`, the only one in this process.
    let Some(mut control) = (unsafe { (*HELD.0.get()).take() }) else {
        return;
    };
    ring::forget_in_child();
    syscalls::only_thread();
    control.reopen_in_child(STREAM.load(Ordering::Relaxed));
}
