//! Writing end of the rings, one per vCPU.

use std::ffi::{c_uint, c_void};
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::control::{self, Control, RingPlace};
use crate::sys;

/// vCPU indices recorded; a thread beyond is reported as lost.
pub(crate) const MAX_VCPUS: usize = 1 << 16;

const HEADER: usize = 4096;
const CURSOR: usize = 128;
const READ: usize = 256;
const STOP: usize = 264;

const FIRST_PAUSE: Duration = Duration::from_micros(20);
const LAST_PAUSE: Duration = Duration::from_millis(1);
const HANG_UP_CHECK: Duration = Duration::from_millis(50);

/// The part of the shared header that the hot path uses, at `CURSOR`. Only this process writes it.
#[repr(C)]
struct Cursor {
    /// Address of the next word.
    next: AtomicU64,
    /// Address at which the slow path must look again.
    end: AtomicU64,
    /// Address of word 0.
    base: AtomicU64,
    closed: AtomicU32,
}

/// What a vCPU's thread knows of its ring besides.
struct Stream {
    header: *mut u8,
    words: u64,
    /// Words written in finished laps.
    laps: u64,
    id: u32,
    tid: u32,
}

/// Null: no ring yet, or none any more.
static CURSORS: [AtomicPtr<Cursor>; MAX_VCPUS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MAX_VCPUS];
/// Null: no stream yet. Written by the vCPU's own thread, and after a fork by the only thread.
static STREAMS: [AtomicPtr<Stream>; MAX_VCPUS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MAX_VCPUS];
/// The vCPU's stream could not be opened.
static REFUSED: [AtomicBool; MAX_VCPUS] = [const { AtomicBool::new(false) }; MAX_VCPUS];
/// One above the highest vCPU index seen.
static VCPUS: AtomicUsize = AtomicUsize::new(0);

/// Called by QEMU before every block; `data` is the block's id.
pub(crate) extern "C" fn block_executed(vcpu: c_uint, data: *mut c_void) {
    push(vcpu, [data.addr() as u32]);
}

/// Called by QEMU before every block with `empty=on`.
pub(crate) extern "C" fn nothing(_vcpu: c_uint, _data: *mut c_void) {}

/// Appends words of one record.
#[inline(always)]
pub(crate) fn push<const N: usize>(vcpu: c_uint, words: [u32; N]) {
    let Some(slot) = CURSORS.get(vcpu as usize) else {
        return;
    };
    let cursor = slot.load(Ordering::Relaxed);
    if !cursor.is_null() {
        // SAFETY: a non-null pointer is the header of a ring that stays mapped until this thread,
        // the only user of this slot, ends it.
        let cursor = unsafe { &*cursor };
        let next = cursor.next.load(Ordering::Relaxed);
        if cursor.end.load(Ordering::Relaxed).wrapping_sub(next) >= 4 * N as u64 {
            for (index, &word) in words.iter().enumerate() {
                // SAFETY: `next .. end` is mapped room of this ring that nobody reads.
                unsafe {
                    ptr::with_exposed_provenance_mut::<u32>(next as usize)
                        .add(index)
                        .write(word)
                };
            }
            cursor.next.store(next + 4 * N as u64, Ordering::Release);
            return;
        }
    }
    push_slowly(vcpu, &words);
}

#[cold]
#[inline(never)]
fn push_slowly(vcpu: c_uint, words: &[u32]) {
    let vcpu = vcpu as usize;
    for &word in words {
        if !make_room(vcpu) {
            return;
        }
        // SAFETY: `make_room` leaves a cursor with at least one free word.
        unsafe {
            let cursor = &*CURSORS[vcpu].load(Ordering::Relaxed);
            let next = cursor.next.load(Ordering::Relaxed);
            ptr::with_exposed_provenance_mut::<u32>(next as usize).write(word);
            cursor.next.store(next + 4, Ordering::Release);
        }
    }
}

/// Makes sure of a ring with room for a word. False if nothing is recorded any more.
fn make_room(vcpu: usize) -> bool {
    if !control::recording() || REFUSED[vcpu].load(Ordering::Relaxed) {
        return false;
    }
    let mut stream = STREAMS[vcpu].load(Ordering::Relaxed);
    if stream.is_null() {
        let Some(opened) = open(vcpu) else {
            REFUSED[vcpu].store(true, Ordering::Relaxed);
            return false;
        };
        stream = opened;
    }
    // SAFETY: the stream belongs to this thread until it ends it; the header is mapped with it.
    unsafe { (*stream).make_room() }
}

impl Stream {
    fn cursor(&self) -> &Cursor {
        // SAFETY: the header is mapped and page aligned; the fields are atomic.
        unsafe { &*self.header.add(CURSOR).cast() }
    }

    fn read(&self) -> u64 {
        // SAFETY: as above.
        unsafe { &*self.header.add(READ).cast::<AtomicU64>() }.load(Ordering::Acquire)
    }

    fn stopped(&self) -> bool {
        // SAFETY: as above.
        unsafe { &*self.header.add(STOP).cast::<AtomicU32>() }.load(Ordering::Acquire) != 0
    }

    /// Room for at least one word at the cursor.
    fn make_room(&mut self) -> bool {
        let cursor = self.cursor();
        let base = cursor.base.load(Ordering::Relaxed);
        let mut next = cursor.next.load(Ordering::Relaxed);
        if next != cursor.end.load(Ordering::Relaxed) {
            return true;
        }
        let ring_end = base + 4 * self.words;
        if next == ring_end {
            // The reader takes both addresses for the same place.
            cursor.next.store(base, Ordering::Release);
            next = base;
            self.laps += self.words;
        }
        let written = self.laps + (next - base) / 4;
        let Some(free) = self.wait_for_room(written) else {
            return false;
        };
        let end = (next + 4 * free).min(ring_end);
        self.cursor().end.store(end, Ordering::Relaxed);
        true
    }

    fn free(&self, written: u64) -> u64 {
        (self.words - 1).saturating_sub(written.saturating_sub(self.read()))
    }

    /// Free words, at least one; a full ring waits until an eighth of it is free. `None` if the
    /// reader is gone.
    fn wait_for_room(&self, written: u64) -> Option<u64> {
        if self.stopped() {
            return None;
        }
        let free = self.free(written);
        if free > 0 {
            return Some(free);
        }
        let mut pause = FIRST_PAUSE;
        let mut checked = Instant::now();
        loop {
            std::thread::sleep(pause);
            pause = (pause * 2).min(LAST_PAUSE);
            if self.stopped() || !control::recording() {
                return None;
            }
            let free = self.free(written);
            if free >= self.words / 8 {
                return Some(free);
            }
            if checked.elapsed() >= HANG_UP_CHECK {
                checked = Instant::now();
                if control::lock().hung_up() {
                    control::stop_recording();
                    return None;
                }
            }
        }
    }
}

fn open(vcpu: usize) -> Option<*mut Stream> {
    let RingPlace {
        stream: id,
        words,
        path,
    } = {
        let mut control = control::lock();
        control.open_stream(u32::try_from(vcpu).ok()?)?
    };
    let length = HEADER + 4 * words as usize;
    let file = OpenOptions::new().read(true).write(true).open(&path);
    let header = file.ok().map(|file| {
        // SAFETY: a new mapping at an address of the kernel's choice.
        unsafe {
            sys::mmap(
                ptr::null_mut(),
                length,
                sys::PROT_READ_WRITE,
                sys::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        }
    });
    let header = match header {
        Some(header) if header.addr() != usize::MAX => header.cast::<u8>(),
        _ => {
            control::lock().note_lost(&format!("vCPU {vcpu}: no ring"));
            return None;
        }
    };
    // SAFETY: the mapping is `length` bytes long.
    let base = unsafe { header.add(HEADER) }.expose_provenance() as u64;
    let stream = Stream {
        header,
        words: u64::from(words),
        laps: 0,
        id,
        tid: sys::gettid(),
    };
    let cursor = stream.cursor();
    cursor.next.store(base, Ordering::Relaxed);
    cursor.end.store(base, Ordering::Relaxed);
    cursor.base.store(base, Ordering::Release);
    CURSORS[vcpu].store(ptr::from_ref(cursor).cast_mut(), Ordering::Relaxed);
    let stream = Box::into_raw(Box::new(stream));
    STREAMS[vcpu].store(stream, Ordering::Release);
    Some(stream)
}

/// Takes a stream out of its slot, closed if `closed`, and unmaps it.
fn release(vcpu: usize, closed: bool) {
    CURSORS[vcpu].store(ptr::null_mut(), Ordering::Relaxed);
    REFUSED[vcpu].store(false, Ordering::Relaxed);
    let stream = STREAMS[vcpu].swap(ptr::null_mut(), Ordering::Relaxed);
    if stream.is_null() {
        return;
    }
    // SAFETY: made by Box::into_raw in `open`, and taken out of the only place that held it.
    let stream = unsafe { Box::from_raw(stream) };
    if closed {
        stream.cursor().closed.store(1, Ordering::Release);
    }
    // SAFETY: mapped in `open` with this length; nobody holds the cursor any more.
    unsafe { sys::munmap(stream.header.cast(), HEADER + 4 * stream.words as usize) };
}

/// A vCPU begins.
pub(crate) fn vcpu_started(vcpu: c_uint) {
    let vcpu = vcpu as usize;
    if vcpu >= MAX_VCPUS {
        control::lock().note_lost(&format!("vCPU {vcpu}: more threads than can be recorded"));
        return;
    }
    VCPUS.fetch_max(vcpu + 1, Ordering::Relaxed);
}

/// A vCPU's thread is over.
pub(crate) fn vcpu_ended(vcpu: c_uint) {
    if (vcpu as usize) < MAX_VCPUS {
        // `own_stream` may look at all streams in another thread.
        let _control = control::lock();
        release(vcpu as usize, true);
    }
}

/// The recorder's number of the stream that the calling thread writes.
pub(crate) fn own_stream(_control: &Control) -> Option<u32> {
    let tid = sys::gettid();
    STREAMS[..VCPUS.load(Ordering::Relaxed)]
        .iter()
        .find_map(|slot| {
            let stream = slot.load(Ordering::Acquire);
            // SAFETY: streams end under the control lock, which the caller holds.
            unsafe { stream.as_ref() }
                .filter(|stream| stream.tid == tid)
                .map(|stream| stream.id)
        })
}

/// In a forked child: leaves all rings to the parent.
pub(crate) fn forget_in_child() {
    for vcpu in 0..VCPUS.load(Ordering::Relaxed) {
        release(vcpu, false);
    }
}
