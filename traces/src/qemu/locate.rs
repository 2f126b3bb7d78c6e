//! Finding QEMU, the plugin and the program to record.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::error::Error;

/// File name of the plugin.
pub const PLUGIN_FILE: &str = "libvlbr_qemu_plugin.so";

const PLUGIN_VARIABLE: &str = "VLBR_QEMU_PLUGIN";
/// Interpreters of interpreters, as many as Linux follows (fs/exec.c, `exec_binprm`).
const MAX_INTERPRETERS: usize = 5;
/// Bytes of a script that Linux looks at (`BINPRM_BUF_SIZE`).
const SCRIPT_HEAD: u64 = 256;

fn executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

fn search_path(name: &OsStr) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|p| executable(p))
}

/// `qemu-x86_64` or `qemu-system-x86_64` on PATH.
///
/// # Errors
/// [`Error::QemuMissing`].
pub fn find_qemu(system: bool) -> Result<PathBuf, Error> {
    let (name, package) = if system {
        ("qemu-system-x86_64", "qemu-system-x86")
    } else {
        ("qemu-x86_64", "qemu-user")
    };
    search_path(OsStr::new(name)).ok_or(Error::QemuMissing { name, package })
}

/// The plugin: where `VLBR_QEMU_PLUGIN` says, else beside this executable, else in `../lib/vlbr`
/// from there.
///
/// # Errors
/// [`Error::PluginMissing`].
pub fn find_plugin() -> Result<PathBuf, Error> {
    let missing = |file: &Path| Error::PluginMissing {
        file: file.to_owned(),
    };
    if let Some(path) = std::env::var_os(PLUGIN_VARIABLE) {
        let path = PathBuf::from(path);
        return path.canonicalize().map_err(|_| missing(&path));
    }
    let file = Path::new(PLUGIN_FILE);
    let own = std::env::current_exe().and_then(|path| path.canonicalize());
    let directory = own.ok().and_then(|path| Some(path.parent()?.to_owned()));
    let directory = directory.ok_or_else(|| missing(file))?;
    [
        directory.join(file),
        directory.join("../lib/vlbr").join(file),
    ]
    .into_iter()
    .find_map(|candidate| candidate.canonicalize().ok())
    .ok_or_else(|| missing(file))
}

/// A program as QEMU must be told to run it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// An x86-64 ELF file.
    pub(crate) path: PathBuf,
    /// Its `argv`, the first included.
    pub(crate) arguments: Vec<OsString>,
}

/// Finds `program` as a shell would: on PATH unless its name has a slash.
///
/// # Errors
/// [`Error::ProgramMissing`].
pub fn find_program(program: &OsStr) -> Result<PathBuf, Error> {
    let missing = || Error::ProgramMissing {
        program: program.to_owned(),
    };
    if program.is_empty() {
        return Err(missing());
    }
    if program.as_bytes().contains(&b'/') {
        let path = PathBuf::from(program);
        return path.exists().then_some(path).ok_or_else(missing);
    }
    search_path(program).ok_or_else(missing)
}

fn read_head(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(SCRIPT_HEAD).read_to_end(&mut head)?;
    Ok(head)
}

fn is_x86_64_program(head: &[u8]) -> bool {
    // ELF64, little endian, ET_EXEC or ET_DYN, EM_X86_64. elf(5).
    head.starts_with(b"\x7fELF\x02\x01") && matches!(head.get(16..20), Some([2 | 3, 0, 62, 0]))
}

/// Where the program headers of an ELF64 file end: `e_phoff`, `e_phentsize` and `e_phnum`.
fn program_headers_end(head: &[u8]) -> Option<u64> {
    let offset = u64::from_le_bytes(head.get(32..40)?.try_into().ok()?);
    let number = |at: usize| Some(u16::from_le_bytes([*head.get(at)?, *head.get(at + 1)?]));
    let (size, count) = (number(54)?, number(56)?);
    // The kernel refuses other sizes, and execvp(3) would then hand the file to a shell.
    (size == 56 && count > 0).then_some(())?;
    offset.checked_add(u64::from(size) * u64::from(count))
}

/// The interpreter line of a script: interpreter and its one optional argument.
fn interpreter(head: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let line = head.strip_prefix(b"#!")?;
    let line = line.split(|&b| b == b'\n').next()?.trim_ascii();
    let end = line
        .iter()
        .position(|b| matches!(b, b' ' | b'\t'))
        .unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let rest = rest.trim_ascii();
    (!name.is_empty()).then_some((name, (!rest.is_empty()).then_some(rest)))
}

/// Resolves a program and its arguments to an ELF file, through `#!` lines.
///
/// # Errors
/// [`Error::ProgramMissing`] and [`Error::ProgramUnusable`].
pub(crate) fn resolve(program: &OsStr, arguments: &[OsString]) -> Result<Program, Error> {
    let mut path = find_program(program)?;
    let mut argv: Vec<OsString> = std::iter::once(program.to_owned())
        .chain(arguments.iter().cloned())
        .collect();
    for _ in 0..=MAX_INTERPRETERS {
        let unusable = |reason| Error::ProgramUnusable {
            program: path.clone(),
            reason,
        };
        if !executable(&path) {
            return Err(unusable("not an executable file"));
        }
        let head = read_head(&path).map_err(Error::io(format!("reading {}", path.display())))?;
        if is_x86_64_program(&head) {
            let size = std::fs::metadata(&path).map_or(0, |meta| meta.len());
            if program_headers_end(&head).is_none_or(|end| end > size) {
                return Err(unusable("an ELF file without all of its program headers"));
            }
            return Ok(Program {
                path,
                arguments: argv,
            });
        }
        let Some((name, argument)) = interpreter(&head) else {
            return Err(unusable("neither an x86-64 ELF program nor a script"));
        };
        let name = OsString::from_vec(name.to_vec());
        let argument = argument.map(|text| OsString::from_vec(text.to_vec()));
        argv[0] = path.into_os_string();
        argv.splice(0..0, std::iter::once(name.clone()).chain(argument));
        path = PathBuf::from(&name);
        if !path.exists() {
            return Err(Error::ProgramMissing { program: name });
        }
    }
    Err(Error::ProgramUnusable {
        program: path,
        reason: "too many levels of interpreters",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreter_lines_keep_one_argument_whole() {
        assert_eq!(
            interpreter(b"#! /bin/sh -e -x \nrest"),
            Some((&b"/bin/sh"[..], Some(&b"-e -x"[..])))
        );
        assert_eq!(interpreter(b"#!/bin/sh"), Some((&b"/bin/sh"[..], None)));
        assert_eq!(interpreter(b"#!\n"), None);
        assert_eq!(interpreter(b"echo"), None);
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = resolve(OsStr::new("/nonexistent/program"), &[]).unwrap_err();
        assert_eq!(error.to_string(), "/nonexistent/program: no such program");
    }

    #[test]
    fn a_program_that_is_cut_off_in_its_headers_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("cut");
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        std::fs::write(&program, &own[..100]).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let error = resolve(program.as_os_str(), &[]).unwrap_err();
        assert!(error.to_string().contains("program headers"), "{error}");
    }

    #[test]
    fn a_script_that_interprets_itself_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("loop");
        std::fs::write(&script, format!("#!{}\n", script.display())).unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        let error = resolve(script.as_os_str(), &[]).unwrap_err();
        assert!(error.to_string().contains("too many levels"), "{error}");
    }
}
