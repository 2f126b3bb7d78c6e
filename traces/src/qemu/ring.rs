//! Reading end of a ring, mapped into memory.
#![expect(unsafe_code, reason = "shared memory written by another process")]

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use super::protocol::{
    RING_CLOSED, RING_CURSOR, RING_DATA, RING_HEADER, RING_MAGIC, RING_READ, RING_STAGE,
    RING_STAGE_FOLLOWS, RING_STOP, RING_WRITTEN, STAGE_WORDS, VERSION,
};

/// A ring. Its file is removed with it.
#[derive(Debug)]
pub(super) struct Ring {
    map: MmapRaw,
    path: PathBuf,
    words: u64,
    read: u64,
}

impl Ring {
    /// Makes the file of a ring of `words` words and maps it.
    pub(super) fn create(path: &Path, words: u32) -> io::Result<Ring> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let length = RING_DATA + 4 * u64::from(words);
        file.set_len(length)?;
        let mut header = [0; 16];
        header[..8].copy_from_slice(&RING_MAGIC.to_le_bytes());
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..].copy_from_slice(&words.to_le_bytes());
        file.write_all_at(&header, 0)?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let map = MmapOptions::new().len(length).map_raw(&file)?;
        Ok(Ring {
            map,
            path: path.to_owned(),
            words: u64::from(words),
            read: 0,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn header_u64(&self, offset: u64) -> &AtomicU64 {
        debug_assert!(offset.is_multiple_of(8) && offset + 8 <= RING_HEADER);
        // SAFETY: the map is page aligned and longer than RING_HEADER, `offset` is a multiple of 8
        // inside the header, and both processes access the field by whole atomic loads and stores.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(offset as usize).cast()) }
    }

    fn header_u32(&self, offset: u64) -> &AtomicU32 {
        debug_assert!(offset.is_multiple_of(4) && offset + 4 <= RING_HEADER);
        // SAFETY: as for `header_u64`, with 4 bytes.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().add(offset as usize).cast()) }
    }

    /// Whether the thread is over. Ask before [`Ring::available`]: what it wrote last is then seen.
    pub(super) fn closed(&self) -> bool {
        self.header_u32(RING_CLOSED).load(Ordering::Acquire) != 0
    }

    /// Words in the ring that are not yet taken.
    ///
    /// # Errors
    /// The writer's count is impossible.
    pub(super) fn available(&self) -> Result<u64, String> {
        let written = self.header_u64(RING_WRITTEN).load(Ordering::Acquire);
        let available = written.wrapping_sub(self.read);
        if available > self.words {
            let (read, words) = (self.read, self.words);
            return Err(format!(
                "ring of {words} words: {written} written, {read} read"
            ));
        }
        Ok(available)
    }

    /// Moves up to `limit` of `available` words to the end of `into` and frees their room.
    pub(super) fn take(&mut self, available: u64, limit: usize, into: &mut Vec<u32>) {
        let mut left = available.min(limit as u64).min(self.words);
        while left > 0 {
            let offset = self.read % self.words;
            let count = left.min(self.words - offset);
            // SAFETY: `offset + count <= words`, so the source lies in the map. These words lie
            // before the count that `available` loaded with Acquire and behind the read count: the
            // writer stored them before its Release and does not touch them until the store below.
            unsafe { self.copy(RING_DATA + 4 * offset, count as usize, into) };
            self.read += count;
            left -= count;
        }
        self.header_u64(RING_READ)
            .store(self.read, Ordering::Release);
    }

    /// The words of the stage, when the ring is empty and the writer is over or was told to stop:
    /// what the writer has not moved into the ring. `None` if it moved them just now, so that the
    /// ring must be looked at again.
    ///
    /// # Errors
    /// The writer's addresses are impossible.
    pub(super) fn take_stage(&mut self, into: &mut Vec<u32>) -> Result<Option<()>, String> {
        let stage = self.header_u64(RING_STAGE).load(Ordering::Acquire);
        if stage == 0 {
            return Ok(Some(()));
        }
        let next = self.header_u64(RING_CURSOR).load(Ordering::Acquire);
        let length = next.wrapping_sub(stage);
        if !length.is_multiple_of(4) || length > 4 * STAGE_WORDS {
            return Err(format!("stage at {stage:#x} cannot end at {next:#x}"));
        }
        let follows = self.header_u64(RING_STAGE_FOLLOWS).load(Ordering::Acquire);
        let old = into.len();
        if follows == self.read {
            // SAFETY: the stage lies in the map. If the writer moved on meanwhile, which only one
            // that outlives the recording can, the check below drops what was copied.
            unsafe { self.copy(RING_HEADER, (length / 4) as usize, into) };
        }
        let written = self.header_u64(RING_WRITTEN).load(Ordering::Acquire);
        if written != self.read {
            into.truncate(old);
            return Ok(None);
        }
        Ok(Some(()))
    }

    /// Appends `count` words at byte `offset` of the map to `into`.
    ///
    /// # Safety
    /// The words lie in the map, and the writer leaves them alone.
    unsafe fn copy(&self, offset: u64, count: usize, into: &mut Vec<u32>) {
        into.reserve(count);
        // SAFETY: the caller's; the map is page aligned and `offset` a multiple of 4; `reserve`
        // made room for `count`.
        unsafe {
            let source = self.map.as_ptr().add(offset as usize).cast::<u32>();
            let end = into.as_mut_ptr().add(into.len());
            std::ptr::copy_nonoverlapping(source, end, count);
            into.set_len(into.len() + count);
        }
    }

    /// Tells the writer that nobody reads any more.
    pub(super) fn stop(&self) {
        self.header_u32(RING_STOP).store(1, Ordering::Release);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.stop();
        // A file that is gone already is no loss: the session directory goes as a whole.
        let _ = std::fs::remove_file(&self.path);
    }
}
