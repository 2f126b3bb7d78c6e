//! The file header and the frames a `.vlt` file is made of.

use super::bytes::Fields;
use super::error::Damage;

/// First bytes of a file: a byte above 127, line ends of both kinds and an end-of-file mark show
/// transfers that take the file for text.
pub const MAGIC: [u8; 8] = *b"\x89VLT\r\n\x1a\n";
/// Major version: readers refuse any other.
pub const MAJOR_VERSION: u16 = 1;
/// Minor version: readers accept later ones.
pub const MINOR_VERSION: u16 = 0;
/// Bytes of the file header.
pub(super) const FILE_HEADER: usize = 32;
/// Bytes of a frame header.
pub(super) const FRAME_HEADER: usize = 16;
/// Bytes of a frame header that checksums are made of. The header's own checksum is left out: with
/// it, a checksum over several headers would come out the same whatever they hold.
pub(super) const SUMMED_HEADER: usize = 12;
/// Largest payload of a frame.
pub(super) const MAX_PAYLOAD: u32 = 1 << 26;
/// Frame flag: a reader that does not know the type skips the frame.
pub(super) const OPTIONAL: u16 = 1;

/// Types of frames.
pub(super) mod kind {
    pub(in super::super) const META: u16 = 1;
    pub(in super::super) const PROCESS: u16 = 2;
    pub(in super::super) const THREAD: u16 = 3;
    pub(in super::super) const MAPPING: u16 = 4;
    pub(in super::super) const SYMBOLS: u16 = 5;
    pub(in super::super) const BLOCKS: u16 = 6;
    pub(in super::super) const STEPS: u16 = 7;
    pub(in super::super) const CHUNK: u16 = 8;
    pub(in super::super) const SIDE: u16 = 9;
    pub(in super::super) const END: u16 = 10;
    pub(in super::super) const FUNCTIONS: u16 = 11;
}

/// The header of a file of this version.
pub(super) fn file_header() -> [u8; FILE_HEADER] {
    let mut header = [0; FILE_HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&MAJOR_VERSION.to_le_bytes());
    header[10..12].copy_from_slice(&MINOR_VERSION.to_le_bytes());
    // Bytes 12 to 27: flags and reserved fields, all 0.
    let crc = crc32c::crc32c(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Checks a file header; returns the minor version.
pub(super) fn check_file_header(header: &[u8; FILE_HEADER]) -> Result<u16, Damage> {
    let mut fields = Fields::new(header, "file header");
    if fields.bytes(8)? != MAGIC {
        return Err(Damage::WrongMagic);
    }
    let (major, minor) = (fields.u16()?, fields.u16()?);
    let flags = fields.u32()?;
    fields.bytes(12)?;
    // The version comes first: another major version may have another header.
    if major != MAJOR_VERSION {
        return Err(Damage::UnsupportedVersion {
            major,
            minor,
            known: MAJOR_VERSION,
        });
    }
    check_crc("file header", fields.u32()?, &header[..28])?;
    if flags != 0 {
        return Err(Damage::UnknownFlags(flags));
    }
    Ok(minor)
}

pub(super) fn check_crc(what: &'static str, stated: u32, bytes: &[u8]) -> Result<(), Damage> {
    let found = crc32c::crc32c(bytes);
    if stated == found {
        return Ok(());
    }
    Err(Damage::Checksum {
        what,
        stated,
        found,
    })
}

/// Header of a frame: type, flags, length and CRC-32C of the payload, CRC-32C of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) length: u32,
    pub(super) payload_crc: u32,
}

impl FrameHeader {
    pub(super) fn encode(&self) -> [u8; FRAME_HEADER] {
        let mut bytes = [0; FRAME_HEADER];
        bytes[..2].copy_from_slice(&self.kind.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.flags.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..SUMMED_HEADER]);
        bytes[SUMMED_HEADER..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; FRAME_HEADER]) -> Result<Self, Damage> {
        let mut fields = Fields::new(bytes, "frame header");
        let header = Self {
            kind: fields.u16()?,
            flags: fields.u16()?,
            length: fields.u32()?,
            payload_crc: fields.u32()?,
        };
        check_crc("frame header", fields.u32()?, &bytes[..SUMMED_HEADER])?;
        if header.length > MAX_PAYLOAD {
            return Err(Damage::Oversized {
                what: "frame payload",
                size: header.length.into(),
                limit: MAX_PAYLOAD.into(),
            });
        }
        Ok(header)
    }

    /// Whether a reader may skip the frame if it does not know its type.
    pub(super) const fn is_optional(&self) -> bool {
        self.flags & OPTIONAL != 0
    }

    /// Flag bits that no version this reader knows defines.
    pub(super) const fn unknown_flags(&self) -> u16 {
        self.flags & !OPTIONAL
    }
}

/// A whole frame, ready to be written with one call.
pub(super) fn frame(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader {
        kind,
        flags,
        // Writers check the size before; see MAX_PAYLOAD.
        length: payload.len() as u32,
        payload_crc: crc32c::crc32c(payload),
    };
    let mut bytes = Vec::with_capacity(FRAME_HEADER + payload.len());
    bytes.extend_from_slice(&header.encode());
    bytes.extend_from_slice(payload);
    bytes
}
