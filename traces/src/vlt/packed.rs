//! Compressed parts of frames: stated size first, checked before anything is allocated.

use super::error::{Damage, WriteError};

/// Compresses `raw` as one zstd frame without checksum (the frame around it has one).
pub(super) fn compress(level: i32, raw: &[u8]) -> Result<Vec<u8>, WriteError> {
    let mut compressor = zstd::bulk::Compressor::new(level).map_err(WriteError::Compression)?;
    compressor.compress(raw).map_err(WriteError::Compression)
}

/// Decompresses `stored` into `out`, which it must fill exactly.
pub(super) fn decompress_into(
    decompressor: &mut zstd::bulk::Decompressor<'_>,
    what: &'static str,
    stored: &[u8],
    out: &mut [u8],
) -> Result<(), Damage> {
    let found = decompressor
        .decompress_to_buffer(stored, out)
        .map_err(|e| Damage::Compression {
            what,
            reason: e.to_string(),
        })?;
    if found == out.len() {
        return Ok(());
    }
    Err(Damage::CountMismatch {
        what,
        stated: out.len() as u64,
        found: found as u64,
    })
}

/// Decompresses `stored` to `size` bytes, at most `limit`.
pub(super) fn decompress(
    what: &'static str,
    stored: &[u8],
    size: u32,
    limit: u32,
) -> Result<Vec<u8>, Damage> {
    if size > limit {
        return Err(Damage::Oversized {
            what,
            size: size.into(),
            limit: limit.into(),
        });
    }
    let mut decompressor = new_decompressor(what)?;
    let mut out = vec![0; size as usize];
    decompress_into(&mut decompressor, what, stored, &mut out)?;
    Ok(out)
}

pub(super) fn new_decompressor(
    what: &'static str,
) -> Result<zstd::bulk::Decompressor<'static>, Damage> {
    zstd::bulk::Decompressor::new().map_err(|e| Damage::Compression {
        what,
        reason: e.to_string(),
    })
}
