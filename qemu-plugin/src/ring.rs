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
const STAGE_WORDS: usize = 1024;
const STAGE: usize = 4096;
const DATA: usize = HEADER + 4 * STAGE_WORDS;
const CURSOR: usize = 128;
const READ: usize = 256;
const STOP: usize = 264;

const FIRST_PAUSE: Duration = Duration::from_micros(20);
const LAST_PAUSE: Duration = Duration::from_millis(1);
const HANG_UP_CHECK: Duration = Duration::from_millis(50);

/// The writer's part of the shared header, at `CURSOR`.
///
/// Words go to a stage that stays in this core's first-level cache, and from there to the ring in one
/// copy: writing straight into the ring would wait, at every line, for the reader's core to give it
/// back. The stage is shared too, so that a killed process leaves it to the reader.
#[repr(C)]
struct Cursor {
    /// Address of the next word in the stage.
    next: AtomicU64,
    /// Address behind the stage.
    end: AtomicU64,
    /// Address of the stage, set when the header is complete.
    stage: AtomicU64,
    /// Words in the ring since the start.
    written: AtomicU64,
    /// Value of `written` for which the stage's words come next.
    stage_follows: AtomicU64,
    closed: AtomicU32,
}

/// What a vCPU's thread knows of its ring besides.
struct Stream {
    header: *mut u8,
    words: u64,
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
        // SAFETY: a non-null pointer is in the header of a ring that stays mapped until this
        // thread, the only user of this slot, ends it.
        let cursor = unsafe { &*cursor };
        let next = cursor.next.load(Ordering::Relaxed);
        if cursor.end.load(Ordering::Relaxed).wrapping_sub(next) >= 4 * N as u64 {
            for (index, &word) in words.iter().enumerate() {
                // SAFETY: `next .. end` is mapped room of the stage.
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
    push_slowly(vcpu, words);
}

// By value: a reference would make the hot path spill the word to its stack frame first.
#[cold]
#[inline(never)]
fn push_slowly<const N: usize>(vcpu: c_uint, words: [u32; N]) {
    let vcpu = vcpu as usize;
    if !make_room(vcpu) {
        return;
    }
    // SAFETY: `make_room` leaves a cursor with an empty stage, larger than any record.
    unsafe {
        let cursor = &*CURSORS[vcpu].load(Ordering::Relaxed);
        let next = cursor.next.load(Ordering::Relaxed);
        let place = ptr::with_exposed_provenance_mut::<u32>(next as usize);
        ptr::copy_nonoverlapping(words.as_ptr(), place, N);
        cursor
            .next
            .store(next + 4 * words.len() as u64, Ordering::Release);
    }
}

/// Makes sure of a ring with an empty stage. False if nothing is recorded any more.
fn make_room(vcpu: usize) -> bool {
    if !control::recording() || REFUSED[vcpu].load(Ordering::Relaxed) {
        return false;
    }
    let stream = STREAMS[vcpu].load(Ordering::Relaxed);
    if stream.is_null() {
        let opened = open(vcpu);
        REFUSED[vcpu].store(!opened, Ordering::Relaxed);
        return opened;
    }
    // SAFETY: the stream belongs to this thread until it ends it; the header is mapped with it.
    unsafe { (*stream).empty_stage() }
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

    /// Moves the stage's words into the ring. False if the reader is gone.
    fn empty_stage(&self) -> bool {
        let cursor = self.cursor();
        let stage = cursor.stage.load(Ordering::Relaxed);
        let count = (cursor.next.load(Ordering::Relaxed) - stage) / 4;
        let written = cursor.written.load(Ordering::Relaxed);
        if !self.wait_for_room(written, count) {
            return false;
        }
        let offset = written % self.words;
        let first = count.min(self.words - offset) as usize;
        // SAFETY: stage and ring are `STAGE_WORDS` and `words` long and do not overlap; `count`
        // words from `offset` on, with the wrap, are free.
        unsafe {
            let stage = self.header.add(STAGE).cast::<u32>();
            let ring = self.header.add(DATA).cast::<u32>();
            ptr::copy_nonoverlapping(stage, ring.add(offset as usize), first);
            ptr::copy_nonoverlapping(stage.add(first), ring, count as usize - first);
        }
        // In this order a process killed between any two stores leaves no word twice: the stage
        // counts only while `stage_follows` equals `written`.
        cursor.written.store(written + count, Ordering::Release);
        cursor.next.store(stage, Ordering::Release);
        cursor
            .stage_follows
            .store(written + count, Ordering::Release);
        true
    }

    fn free(&self, written: u64) -> u64 {
        self.words
            .saturating_sub(written.saturating_sub(self.read()))
    }

    /// Waits until `count` words are free, and once it has to wait, until an eighth of the ring is.
    /// False if the reader is gone.
    fn wait_for_room(&self, written: u64, count: u64) -> bool {
        if self.stopped() {
            return false;
        }
        if self.free(written) >= count {
            return true;
        }
        let wanted = count.max(self.words / 8);
        let mut pause = FIRST_PAUSE;
        let mut checked = Instant::now();
        loop {
            std::thread::sleep(pause);
            pause = (pause * 2).min(LAST_PAUSE);
            if self.stopped() || !control::recording() {
                return false;
            }
            if self.free(written) >= wanted {
                return true;
            }
            if checked.elapsed() >= HANG_UP_CHECK {
                checked = Instant::now();
                if control::lock().hung_up() {
                    control::stop_recording();
                    return false;
                }
            }
        }
    }
}

/// Opens the stream of a vCPU, in its thread.
fn open(vcpu: usize) -> bool {
    let place = u32::try_from(vcpu)
        .ok()
        .and_then(|vcpu| control::lock().open_stream(vcpu));
    let Some(RingPlace {
        stream: id,
        words,
        path,
    }) = place
    else {
        return false;
    };
    let file = OpenOptions::new().read(true).write(true).open(&path);
    let header = file.ok().map(|file| {
        // SAFETY: a new mapping at an address of the kernel's choice.
        unsafe {
            sys::mmap(
                ptr::null_mut(),
                length(u64::from(words)),
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
            return false;
        }
    };
    // SAFETY: the mapping is longer.
    let stage = unsafe { header.add(STAGE) }.expose_provenance() as u64;
    let stream = Stream {
        header,
        words: u64::from(words),
        id,
        tid: sys::gettid(),
    };
    let cursor = stream.cursor();
    cursor.next.store(stage, Ordering::Relaxed);
    cursor
        .end
        .store(stage + 4 * STAGE_WORDS as u64, Ordering::Relaxed);
    cursor.stage.store(stage, Ordering::Release);
    CURSORS[vcpu].store(ptr::from_ref(cursor).cast_mut(), Ordering::Relaxed);
    STREAMS[vcpu].store(Box::into_raw(Box::new(stream)), Ordering::Release);
    true
}

/// Bytes of a ring file.
fn length(words: u64) -> usize {
    DATA + 4 * words as usize
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
    unsafe { sys::munmap(stream.header.cast(), length(stream.words)) };
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
