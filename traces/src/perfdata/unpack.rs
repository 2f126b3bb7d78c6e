//! Unpacks COMPRESSED records: one zstd stream cut into records, which holds records.

use std::io;

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

/// Largest zstd window accepted, as a power of two. perf's levels stay below it.
const WINDOW_LOG_MAX: u32 = 27;
/// Bytes unpacked at a time.
const STEP: usize = 1 << 16;

/// Unpacks on demand: what is held is one COMPRESSED record and what its reader asked for.
pub(super) struct Unpacker {
    decoder: Decoder<'static>,
    packed: Vec<u8>,
    packed_at: usize,
    ready: Vec<u8>,
    ready_at: usize,
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker")
            .field("packed", &(self.packed.len() - self.packed_at))
            .field("ready", &self.left())
            .finish_non_exhaustive()
    }
}

impl Unpacker {
    pub(super) fn new() -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
        Ok(Self {
            decoder,
            packed: Vec::new(),
            packed_at: 0,
            ready: Vec::new(),
            ready_at: 0,
        })
    }

    /// Takes the payload of the next COMPRESSED record. The last one must be used up.
    pub(super) fn feed(&mut self, payload: &[u8]) {
        self.packed.clear();
        self.packed.extend_from_slice(payload);
        self.packed_at = 0;
    }

    /// Bytes unpacked and not consumed.
    pub(super) fn left(&self) -> usize {
        self.ready.len() - self.ready_at
    }

    /// Unpacks until `count` bytes are ready; false when the payload ends before.
    pub(super) fn fill(&mut self, count: usize) -> io::Result<bool> {
        while self.left() < count {
            self.ready.drain(..self.ready_at);
            self.ready_at = 0;
            let kept = self.ready.len();
            self.ready.resize(kept + STEP, 0);
            let mut input = InBuffer::around(&self.packed[self.packed_at..]);
            let mut output = OutBuffer::around(&mut self.ready[kept..]);
            let result = self.decoder.run(&mut input, &mut output);
            let (read, written) = (input.pos(), output.pos());
            self.ready.truncate(kept + written);
            self.packed_at += read;
            result?;
            if read == 0 && written == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The first `count` bytes that are ready. The caller has filled so many.
    pub(super) fn peek(&self, count: usize) -> &[u8] {
        let ready = &self.ready[self.ready_at..];
        &ready[..count.min(ready.len())]
    }

    /// Drops the first `count` bytes that are ready.
    pub(super) fn consume(&mut self, count: usize) {
        self.ready_at = (self.ready_at + count).min(self.ready.len());
    }
}
