//! Reading end of a ring, mapped into memory.
#![expect(unsafe_code, reason = "shared memory written by another process")]

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use super::protocol::{RING_CURSOR, RING_HEADER, RING_MAGIC, RING_READ, RING_STOP, VERSION};

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
        let length = RING_HEADER + 4 * u64::from(words);
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
        self.header_u32(RING_CURSOR + 24).load(Ordering::Acquire) != 0
    }

    /// Words written and not yet taken.
    ///
    /// # Errors
    /// The writer's cursor lies outside the ring.
    pub(super) fn available(&self) -> Result<u64, String> {
        let base = self.header_u64(RING_CURSOR + 16).load(Ordering::Acquire);
        if base == 0 {
            return Ok(0);
        }
        let cursor = self.header_u64(RING_CURSOR).load(Ordering::Acquire);
        let distance = cursor.wrapping_sub(base);
        if !distance.is_multiple_of(4) || distance / 4 > self.words {
            return Err(format!(
                "ring cursor {cursor:#x} lies outside the ring at {base:#x}"
            ));
        }
        Ok((distance / 4 + self.words - self.read % self.words) % self.words)
    }

    /// Moves up to `limit` of `available` words to the end of `into` and frees their room.
    pub(super) fn take(&mut self, available: u64, limit: usize, into: &mut Vec<u32>) {
        let mut left = available.min(limit as u64).min(self.words - 1);
        while left > 0 {
            let offset = self.read % self.words;
            let count = left.min(self.words - offset);
            into.reserve(count as usize);
            // SAFETY: `offset + count <= words`, so the source lies in the map. These words lie
            // before the cursor that `available` loaded with Acquire and behind the read count, so
            // the writer, which stores them before a Release of the cursor and never enters unread
            // words, does not touch them until the store below. `reserve` made room for `count`.
            unsafe {
                let data = self.map.as_ptr().add(RING_HEADER as usize).cast::<u32>();
                let end = into.as_mut_ptr().add(into.len());
                std::ptr::copy_nonoverlapping(data.add(offset as usize), end, count as usize);
                into.set_len(into.len() + count as usize);
            }
            self.read += count;
            left -= count;
        }
        self.header_u64(RING_READ)
            .store(self.read, Ordering::Release);
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
