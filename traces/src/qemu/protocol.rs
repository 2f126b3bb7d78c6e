//! Wire protocol between the plugin and the recorder, version 1. All numbers are little endian.
//!
//! # Control connection
//!
//! A Unix stream socket, `control` in the session directory. A message is `u32 length` of the
//! payload, `u32 kind`, payload. `bytes` below is `u32 length` and that many bytes.
//!
//! | kind | from | payload |
//! |---|---|---|
//! | 1 hello | plugin | `u32` protocol version, `u32` flags, `u32` pid, `u32` parent pid, `u32` plugin API, `u32` process (own on reconnect, parent's on fork, else 0), `u32` blocks inherited, `u32` forking stream or `u32::MAX`, `bytes` target, `bytes` program, `bytes` arguments (each ended by NUL) |
//! | 2 block | plugin | `u32` id, `u64` start, `u32` flags, `u32` instructions n; with flag 1: `u32` CS, `u32` EFLAGS, `u64` CR0, `u64` CR3, `u64` EFER; n × `u8` size; code bytes |
//! | 3 mappings | plugin | text of `/proc/self/maps` |
//! | 4 open stream | plugin | `u32` vCPU, `u32` host thread id |
//! | 5 exec | plugin | `bytes` program that replaces this one |
//! | 6 exec failed | plugin | `u32` errno |
//! | 7 exit | plugin | `i32` status |
//! | 8 detach | plugin | nothing: the guest closes the descriptor, a reconnecting hello follows |
//! | 9 lost | plugin | `bytes` text: what can no longer be recorded |
//! | 128 welcome | recorder | answer to hello: `u32` status (0 accepted), `u32` process, `u32` next stream hint (unused, 0) |
//! | 129 stream | recorder | answer to open stream: `u32` status, `u32` stream, `u32` ring words, `bytes` path of the ring file |
//!
//! Block ids count from 0 without a gap; a forked child continues the parent's. A block's definition
//! is sent before it first runs.
//!
//! # Ring
//!
//! A file made by the recorder: a header page, a stage of 1024 `u32`, then `words` × `u32`, the ring.
//! Header fields by offset:
//!
//! | offset | written by | field |
//! |---|---|---|
//! | 0 | recorder | `u64` magic `VLBRRING` |
//! | 8 | recorder | `u32` protocol version, `u32` words |
//! | 128 | plugin | `u64` address, in the plugin's process, of the next word to write in the stage |
//! | 136 | plugin | `u64` address behind the stage |
//! | 144 | plugin | `u64` address of the stage, 0 until the fields are set |
//! | 152 | plugin | `u64` words put into the ring since the start |
//! | 160 | plugin | `u64` ring count that the stage follows |
//! | 168 | plugin | `u32` closed: the thread is over |
//! | 256 | recorder | `u64` words read from the ring since the start |
//! | 264 | recorder | `u32` stop: nobody reads any more |
//!
//! The plugin writes into the stage, moves the cursor by one store after each record, and copies the
//! stage into the ring when it is full; then it stores the ring count, the cursor, and the count the
//! stage follows, in this order. When a thread or process is over, the recorder reads the ring and
//! then, if the stage follows the ring's count, the stage: whatever was written is there even if the
//! process is killed between any two instructions.
//!
//! A word below 2³¹ is the id of a block about to execute. Else it is the head of a record that
//! belongs to the last block: bits 30:28 kind, 27:16 instruction index, 15:0 detail, and a fixed
//! number of words after it:
//!
//! | kind | detail | words |
//! |---|---|---|
//! | 0 memory access | 3:0 log2 of size, 4 store | address (2) |
//! | 1 registers before | 7:0 what: 1 RDMSR, 2 WRMSR, 3 CPUID, 4 IN, 5 OUT; 15:8 port width in bytes | EAX, ECX, EDX, port |
//! | 2 registers after | – | EAX, EBX, ECX, EDX |
//! | 3 CR3 about to be loaded | – | value (2) |
//! | 4 discontinuity | 1 interrupt, 2 exception; 4 read from the stack of a handler, to be checked | from (2), to (2) |
//! | 5 registers after an IN that ended the block before this one | – | EAX, EBX, ECX, EDX |

/// Version of this protocol.
pub const VERSION: u32 = 1;
/// Longest payload a recorder accepts.
pub const MAX_PAYLOAD: u32 = 32 << 20;
/// Ring magic.
pub const RING_MAGIC: u64 = u64::from_le_bytes(*b"VLBRRING");
/// Bytes before the stage.
pub const RING_HEADER: u64 = 4096;
/// Words of the stage.
pub const STAGE_WORDS: u64 = 1024;
/// Bytes before the first word of the ring.
pub const RING_DATA: u64 = RING_HEADER + 4 * STAGE_WORDS;
/// Offset of the cursor in the stage.
pub const RING_CURSOR: u64 = 128;
/// Offset of the stage's address.
pub const RING_STAGE: u64 = 144;
/// Offset of the count of words in the ring.
pub const RING_WRITTEN: u64 = 152;
/// Offset of the count that the stage follows.
pub const RING_STAGE_FOLLOWS: u64 = 160;
/// Offset of the flag that the thread is over.
pub const RING_CLOSED: u64 = 168;
/// Offset of the recorder's read count.
pub const RING_READ: u64 = 256;
/// Offset of the recorder's stop flag.
pub const RING_STOP: u64 = 264;

/// Hello flag: system emulation.
pub const HELLO_SYSTEM: u32 = 1;
/// Hello flag: forked from a recorded process.
pub const HELLO_FORK: u32 = 2;
/// Hello flag: same process as before, new connection.
pub const HELLO_RECONNECT: u32 = 4;
/// Hello flag: registers are read.
pub const HELLO_REGISTERS: u32 = 8;

pub(super) const WELCOME: u32 = 128;
pub(super) const STREAM: u32 = 129;

use super::blocks::{RawBlock, RecordedMode};

/// First message of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) version: u32,
    pub(super) flags: u32,
    pub(super) pid: u32,
    pub(super) parent_pid: u32,
    pub(super) api: u32,
    pub(super) process: u32,
    pub(super) inherited: u32,
    pub(super) stream: u32,
    pub(super) target: Vec<u8>,
    pub(super) program: Vec<u8>,
    pub(super) arguments: Vec<Vec<u8>>,
}

/// A decoded message from the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Hello(Hello),
    Block { id: u32, block: RawBlock },
    Mappings(Vec<u8>),
    OpenStream { vcpu: u32, tid: u32 },
    Exec,
    ExecFailed,
    Exit(i32),
    Detach,
    Lost(String),
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = self.u32()?;
        self.take(usize::try_from(count).ok()?)
    }
}

fn hello(payload: &mut Reader<'_>) -> Option<Hello> {
    Some(Hello {
        version: payload.u32()?,
        flags: payload.u32()?,
        pid: payload.u32()?,
        parent_pid: payload.u32()?,
        api: payload.u32()?,
        process: payload.u32()?,
        inherited: payload.u32()?,
        stream: payload.u32()?,
        target: payload.bytes()?.to_vec(),
        program: payload.bytes()?.to_vec(),
        arguments: {
            let mut arguments: Vec<Vec<u8>> = payload
                .bytes()?
                .split(|&b| b == 0)
                .map(<[u8]>::to_vec)
                .collect();
            arguments.pop();
            arguments
        },
    })
}

fn block(payload: &mut Reader<'_>) -> Option<(u32, RawBlock)> {
    let id = payload.u32()?;
    let start = payload.u64()?;
    let flags = payload.u32()?;
    let count = usize::try_from(payload.u32()?).ok()?;
    let mode = if flags & 1 != 0 {
        Some(RecordedMode {
            cs: u16::try_from(payload.u32()?).ok()?,
            eflags: payload.u32()?,
            cr0: payload.u64()?,
            cr3: payload.u64()?,
            efer: payload.u64()?,
        })
    } else {
        None
    };
    let sizes = payload.take(count)?;
    let total = sizes.iter().map(|&size| usize::from(size)).sum();
    let bytes = payload.take(total)?;
    let whole = !sizes.is_empty() && !sizes.contains(&0);
    whole.then(|| {
        (
            id,
            RawBlock {
                start,
                sizes: sizes.into(),
                bytes: bytes.into(),
                mode,
            },
        )
    })
}

/// Decodes a payload. `None` if it is malformed or of unknown kind.
pub(super) fn decode(kind: u32, payload: &[u8]) -> Option<Message> {
    let mut reader = Reader(payload);
    let message = match kind {
        1 => Message::Hello(hello(&mut reader)?),
        2 => {
            let (id, block) = block(&mut reader)?;
            Message::Block { id, block }
        }
        3 => Message::Mappings(reader.take(payload.len())?.to_vec()),
        4 => Message::OpenStream {
            vcpu: reader.u32()?,
            tid: reader.u32()?,
        },
        5 => {
            reader.bytes()?;
            Message::Exec
        }
        6 => {
            reader.u32()?;
            Message::ExecFailed
        }
        7 => Message::Exit(reader.u32()?.cast_signed()),
        8 => Message::Detach,
        9 => Message::Lost(String::from_utf8_lossy(reader.bytes()?).into_owned()),
        _ => return None,
    };
    reader.0.is_empty().then_some(message)
}

/// Encodes a message of the recorder.
pub(super) fn encode(kind: u32, numbers: [u32; 3], bytes: Option<&[u8]>) -> Vec<u8> {
    let mut payload = Vec::new();
    for number in numbers {
        payload.extend_from_slice(&number.to_le_bytes());
    }
    if let Some(bytes) = bytes {
        // Paths are far below 4 GiB.
        payload.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes());
        payload.extend_from_slice(bytes);
    }
    let mut message = Vec::with_capacity(8 + payload.len());
    message.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(0).to_le_bytes());
    message.extend_from_slice(&kind.to_le_bytes());
    message.extend_from_slice(&payload);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_payload(count: u32, sizes: &[u8], bytes: &[u8]) -> Vec<u8> {
        let mut payload = Vec::new();
        payload.extend_from_slice(&7u32.to_le_bytes());
        payload.extend_from_slice(&0x1000u64.to_le_bytes());
        payload.extend_from_slice(&0u32.to_le_bytes());
        payload.extend_from_slice(&count.to_le_bytes());
        payload.extend_from_slice(sizes);
        payload.extend_from_slice(bytes);
        payload
    }

    #[test]
    fn block_sizes_must_match_its_bytes() {
        let good = decode(2, &block_payload(2, &[1, 2], &[0x90, 0xeb, 0xfe]));
        assert!(matches!(good, Some(Message::Block { id: 7, ref block }) if block.end() == 0x1003));
        for bad in [
            block_payload(2, &[1, 2], &[0x90, 0xeb]),
            block_payload(2, &[1, 2], &[0x90, 0xeb, 0xfe, 0]),
            block_payload(2, &[1, 0], &[0x90]),
            block_payload(0, &[], &[]),
            block_payload(u32::MAX, &[1], &[0x90]),
        ] {
            assert_eq!(decode(2, &bad), None);
        }
    }

    #[test]
    fn messages_with_missing_or_extra_bytes_are_refused() {
        assert_eq!(decode(7, &[1, 0, 0, 0]), Some(Message::Exit(1)));
        assert_eq!(decode(7, &[1, 0, 0]), None);
        assert_eq!(decode(8, &[1]), None);
        assert_eq!(decode(99, &[]), None);
        assert_eq!(decode(9, &[255, 255, 255, 255, 0]), None);
    }
}
