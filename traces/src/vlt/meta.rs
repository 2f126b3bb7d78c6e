//! What a trace says about itself: recorder, processes, threads, mappings.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::bytes::{Fields, put_bytes, put_varint};
use super::error::Damage;

/// Longest build-id kept, in bytes (SHA-1 has 20).
pub(super) const MAX_BUILD_ID: usize = 64;

/// Index of a process in a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessIndex(pub u32);

/// Index of a thread or vCPU in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadIndex(pub u32);

/// What was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scope {
    /// User code of processes.
    #[default]
    User,
    /// A whole machine, kernel and firmware included.
    System,
}

/// How a trace came to be. Holds no times, so that the same run gives the same bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Program that wrote the file, with its version.
    pub recorder: String,
    /// What executed the code: "qemu", "ptrace", "synthetic", ...
    pub engine: String,
    /// Version of the engine, empty if unknown.
    pub engine_version: String,
    /// Architecture of the code: "x86_64", "i386".
    pub arch: String,
    /// What was recorded.
    pub scope: Scope,
    /// Command line of what was recorded.
    pub command_line: Vec<OsString>,
    /// Anything else, in the order given.
    pub notes: Vec<(String, String)>,
}

impl Meta {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for text in [
            &self.recorder,
            &self.engine,
            &self.engine_version,
            &self.arch,
        ] {
            put_bytes(&mut out, text.as_bytes());
        }
        out.push(match self.scope {
            Scope::User => 0,
            Scope::System => 1,
        });
        put_command_line(&mut out, &self.command_line);
        put_notes(&mut out, &self.notes);
        out
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self {
            recorder: fields.string()?,
            engine: fields.string()?,
            engine_version: fields.string()?,
            arch: fields.string()?,
            scope: match fields.u8()? {
                0 => Scope::User,
                1 => Scope::System,
                _ => return Err(fields.malformed()),
            },
            command_line: command_line(fields)?,
            notes: notes(fields)?,
        })
    }
}

/// How a process came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProcessStart {
    /// It was there, or was started by the recorder.
    #[default]
    Initial,
    /// Forked from its parent.
    Fork,
    /// The same pid began another program.
    Exec,
    /// No process but the recorded machine.
    System,
}

/// One program in one process. An exec makes another one with the same pid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Process id of the parent.
    pub ppid: u32,
    /// How it came to be.
    pub start: ProcessStart,
    /// The executable.
    pub path: PathBuf,
    /// Arguments, the zeroth included.
    pub command_line: Vec<OsString>,
}

impl Process {
    pub(super) fn encode(&self, index: u32) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [index, self.pid, self.ppid] {
            put_varint(&mut out, number.into());
        }
        out.push(match self.start {
            ProcessStart::Initial => 0,
            ProcessStart::Fork => 1,
            ProcessStart::Exec => 2,
            ProcessStart::System => 3,
        });
        put_bytes(&mut out, self.path.as_os_str().as_bytes());
        put_command_line(&mut out, &self.command_line);
        out
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<(u32, Self), Damage> {
        let index = fields.varint32()?;
        let process = Self {
            pid: fields.varint32()?,
            ppid: fields.varint32()?,
            start: match fields.u8()? {
                0 => ProcessStart::Initial,
                1 => ProcessStart::Fork,
                2 => ProcessStart::Exec,
                3 => ProcessStart::System,
                _ => return Err(fields.malformed()),
            },
            path: path(fields)?,
            command_line: command_line(fields)?,
        };
        Ok((index, process))
    }
}

/// A thread of a process, or a vCPU of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its process; for a vCPU the machine's.
    pub process: ProcessIndex,
    /// Thread id; for a vCPU its number.
    pub tid: u32,
    /// Number of the vCPU it ran on, if it is one or is known to have stayed on one.
    pub vcpu: Option<u32>,
    /// Name, as `comm`; may be empty.
    pub name: String,
}

impl Thread {
    pub(super) fn encode(&self, index: u32) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, index.into());
        put_varint(&mut out, self.process.0.into());
        put_varint(&mut out, self.tid.into());
        put_varint(&mut out, self.vcpu.map_or(0, |v| u64::from(v) + 1));
        put_bytes(&mut out, self.name.as_bytes());
        out
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<(u32, Self), Damage> {
        let index = fields.varint32()?;
        let thread = Self {
            process: ProcessIndex(fields.varint32()?),
            tid: fields.varint32()?,
            vcpu: match fields.varint()? {
                0 => None,
                v => Some(u32::try_from(v - 1).map_err(|_| fields.malformed())?),
            },
            name: fields.string()?,
        };
        Ok((index, thread))
    }
}

/// Permissions and kind of a mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MappingFlags {
    /// Readable.
    pub read: bool,
    /// Writable.
    pub write: bool,
    /// Executable.
    pub execute: bool,
    /// Shared, not private.
    pub shared: bool,
    /// Code of the kernel or of a module, mapped in every address space.
    pub kernel: bool,
}

impl MappingFlags {
    const fn bits(self) -> u8 {
        self.read as u8
            | (self.write as u8) << 1
            | (self.execute as u8) << 2
            | (self.shared as u8) << 3
            | (self.kernel as u8) << 4
    }

    const fn from_bits(bits: u8) -> Option<Self> {
        if bits >= 1 << 5 {
            return None;
        }
        Some(Self {
            read: bits & 1 != 0,
            write: bits & 2 != 0,
            execute: bits & 4 != 0,
            shared: bits & 8 != 0,
            kernel: bits & 16 != 0,
        })
    }
}

/// A file mapped into a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// The process.
    pub process: ProcessIndex,
    /// Number of the first chunk of the file for which the mapping holds. A later mapping of
    /// the same addresses replaces it.
    pub from_chunk: u32,
    /// First address.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// Offset of the first byte in the mapped file.
    pub offset: u64,
    /// Permissions and kind.
    pub flags: MappingFlags,
    /// The file, or a name in brackets such as `[vdso]`.
    pub path: PathBuf,
    /// GNU build-id of the file; empty if it has none.
    pub build_id: Vec<u8>,
}

impl Mapping {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.process.0.into());
        put_varint(&mut out, self.from_chunk.into());
        for number in [self.start, self.length, self.offset] {
            put_varint(&mut out, number);
        }
        out.push(self.flags.bits());
        put_bytes(&mut out, self.path.as_os_str().as_bytes());
        put_bytes(&mut out, &self.build_id);
        out
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        let mapping = Self {
            process: ProcessIndex(fields.varint32()?),
            from_chunk: fields.varint32()?,
            start: fields.varint()?,
            length: fields.varint()?,
            offset: fields.varint()?,
            flags: MappingFlags::from_bits(fields.u8()?).ok_or_else(|| fields.malformed())?,
            path: path(fields)?,
            build_id: fields.counted_bytes()?.to_vec(),
        };
        if mapping.build_id.len() > MAX_BUILD_ID {
            return Err(fields.malformed());
        }
        Ok(mapping)
    }

    /// Whether `address` lies in it.
    #[must_use]
    pub fn contains(&self, address: u64) -> bool {
        address.wrapping_sub(self.start) < self.length
    }
}

fn path(fields: &mut Fields<'_>) -> Result<PathBuf, Damage> {
    Ok(OsStr::from_bytes(fields.counted_bytes()?).into())
}

fn put_command_line(out: &mut Vec<u8>, arguments: &[OsString]) {
    put_varint(out, arguments.len() as u64);
    for argument in arguments {
        put_bytes(out, argument.as_bytes());
    }
}

fn command_line(fields: &mut Fields<'_>) -> Result<Vec<OsString>, Damage> {
    (0..fields.count(1)?)
        .map(|_| Ok(OsString::from_vec(fields.counted_bytes()?.to_vec())))
        .collect()
}

pub(super) fn put_notes(out: &mut Vec<u8>, notes: &[(String, String)]) {
    put_varint(out, notes.len() as u64);
    for (key, value) in notes {
        put_bytes(out, key.as_bytes());
        put_bytes(out, value.as_bytes());
    }
}

pub(super) fn notes(fields: &mut Fields<'_>) -> Result<Vec<(String, String)>, Damage> {
    (0..fields.count(2)?)
        .map(|_| Ok((fields.string()?, fields.string()?)))
        .collect()
}
