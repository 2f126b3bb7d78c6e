//! exec in user mode.
//!
//! On an x86-64 host QEMU hands an exec'd program to the kernel, which runs it outside of QEMU. To
//! keep recording, the system call is looked at before QEMU sees it: if it would run an x86-64
//! program, QEMU itself is exec'd with that program. Whatever is unusual is left to QEMU, so that
//! every error stays what it was.

use std::ffi::{CString, OsStr, c_char, c_int};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::control::{self, Configuration};
use crate::memory::{read_pointer, read_string};
use crate::sys;

const AT_EMPTY_PATH: u64 = 0x1000;
const AT_SYMLINK_NOFOLLOW: u64 = 0x100;
/// PATH_MAX.
const MAX_PATH: usize = 4096;
/// MAX_ARG_STRLEN of Linux.
const MAX_STRING: usize = 128 << 10;
/// Linux bounds the strings' total to 6 MiB with default limits; longer lists fail there anyway.
const MAX_STRINGS: usize = 6 << 20;
/// BINPRM_BUF_SIZE.
const HEAD: u64 = 256;
/// Interpreters of interpreters, as Linux follows them.
const MAX_INTERPRETERS: usize = 5;

/// How this QEMU was started.
#[derive(Debug)]
pub(crate) struct Launch {
    /// QEMU's executable.
    pub(crate) qemu: CString,
    /// Its options, without those that concern one program only.
    pub(crate) options: Vec<CString>,
    /// The plugin's file.
    pub(crate) plugin: CString,
}

/// A program as the kernel would run it.
struct Program {
    path: Vec<u8>,
    arguments: Vec<Vec<u8>>,
}

enum Resolved {
    /// An x86-64 ELF program.
    Recordable(Program),
    /// The kernel will run something that QEMU cannot.
    Foreign,
    /// The kernel will refuse, or it is not clear what it will do.
    Unclear,
}

fn read_strings(mut list: u64) -> Option<Vec<Vec<u8>>> {
    let mut strings = Vec::new();
    let mut total = 0;
    if list == 0 {
        return Some(strings);
    }
    loop {
        let pointer = read_pointer(list)?;
        if pointer == 0 {
            return Some(strings);
        }
        let string = read_string(pointer, MAX_STRING)?;
        total += string.len() + 8;
        if total > MAX_STRINGS {
            return None;
        }
        strings.push(string);
        list = list.checked_add(8)?;
    }
}

fn accessible(path: &[u8], mode: c_int) -> bool {
    let Ok(path) = CString::new(path) else {
        return false;
    };
    // SAFETY: the path ends with NUL.
    unsafe { sys::faccessat(sys::AT_FDCWD, path.as_ptr(), mode, sys::AT_EACCESS) == 0 }
}

fn is_regular(path: &[u8]) -> bool {
    std::fs::metadata(OsStr::from_bytes(path)).is_ok_and(|data| data.is_file())
}

fn link_target(path: &str) -> Option<Vec<u8>> {
    let target = std::fs::read_link(path)
        .ok()?
        .into_os_string()
        .into_encoded_bytes();
    target.starts_with(b"/").then_some(target)
}

/// The path that `directory`, `path` and `flags` of an execveat name.
fn locate(
    configuration: &Configuration,
    directory: i64,
    path: Vec<u8>,
    flags: u64,
) -> Option<Vec<u8>> {
    if flags & !(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0 {
        return None;
    }
    if path.is_empty() {
        if flags & AT_EMPTY_PATH == 0 {
            return None;
        }
        return link_target(&format!("/proc/self/fd/{directory}"));
    }
    if path.starts_with(b"/") || directory == i64::from(sys::AT_FDCWD) {
        let own = format!("/proc/{}/exe", std::process::id());
        if path == b"/proc/self/exe" || path == own.as_bytes() {
            // The link of this process names QEMU.
            let guest = configuration.executable.as_ref()?;
            return Some(guest.as_os_str().as_bytes().to_vec());
        }
        return Some(path);
    }
    let mut whole = link_target(&format!("/proc/self/fd/{directory}"))?;
    whole.push(b'/');
    whole.extend_from_slice(&path);
    Some(whole)
}

fn interpreter(head: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let line = head
        .strip_prefix(b"#!")?
        .split(|&byte| byte == b'\n')
        .next()?
        .trim_ascii();
    let end = line
        .iter()
        .position(|byte| matches!(byte, b' ' | b'\t'))
        .unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let rest = rest.trim_ascii();
    (!name.is_empty()).then(|| (name.to_vec(), (!rest.is_empty()).then(|| rest.to_vec())))
}

/// Follows interpreter lines as the kernel's binfmt_script does.
fn resolve(mut path: Vec<u8>, mut arguments: Vec<Vec<u8>>) -> Resolved {
    for _ in 0..=MAX_INTERPRETERS {
        if !is_regular(&path) || !accessible(&path, sys::X_OK) {
            return Resolved::Unclear;
        }
        let mut head = Vec::new();
        let read = File::open(OsStr::from_bytes(&path))
            .and_then(|file| file.take(HEAD).read_to_end(&mut head));
        if read.is_err() {
            // Executable but not readable: the kernel can run it, QEMU cannot load it.
            return Resolved::Foreign;
        }
        // ELF64, little endian, ET_EXEC or ET_DYN, EM_X86_64.
        if head.starts_with(b"\x7fELF\x02\x01")
            && matches!(head.get(16..20), Some([2 | 3, 0, 62, 0]))
        {
            return Resolved::Recordable(Program { path, arguments });
        }
        if head.starts_with(b"\x7fELF") {
            return Resolved::Foreign;
        }
        let Some((name, argument)) = interpreter(&head) else {
            return Resolved::Unclear;
        };
        let first = [Some(name.clone()), argument, Some(path)]
            .into_iter()
            .flatten();
        arguments = first.chain(arguments.into_iter().skip(1)).collect();
        path = name;
    }
    Resolved::Unclear
}

/// Called before an exec. Returns if the exec is QEMU's to perform, or if it failed.
pub(crate) fn follow(directory: i64, path: u64, arguments: u64, environment: u64, flags: u64) {
    let Some(configuration) = control::configuration() else {
        return;
    };
    let Some(path) = read_string(path, MAX_PATH) else {
        return;
    };
    let Some(arguments) = read_strings(arguments).filter(|list| !list.is_empty()) else {
        return;
    };
    let Some(environment) = read_strings(environment) else {
        return;
    };
    let Some(path) = locate(configuration, directory, path, flags) else {
        return;
    };
    let escape = |why: &str| {
        let mut control = control::lock();
        control.note_lost(&format!(
            "{} runs outside of QEMU: {why}",
            String::from_utf8_lossy(&path)
        ));
        control.note_exec(&path);
    };
    match resolve(path.clone(), arguments) {
        Resolved::Unclear => {}
        Resolved::Foreign => escape("not a readable x86-64 program"),
        Resolved::Recordable(program) => {
            let Some(launch) = &configuration.follow else {
                return escape("QEMU's command line is not understood");
            };
            let session = configuration.session.join("control");
            let reachable = accessible(launch.qemu.as_bytes(), sys::X_OK)
                && accessible(launch.plugin.as_bytes(), 0)
                && accessible(session.as_os_str().as_bytes(), 0);
            if !reachable {
                return escape("QEMU, plugin or session out of reach");
            }
            control::lock().note_exec(&program.path);
            let error = launch.execute(&program, environment);
            let mut control = control::lock();
            control.note_exec_failed(error);
            control.note_lost(&format!(
                "{}: QEMU could not be exec'd, error {error}",
                String::from_utf8_lossy(&program.path)
            ));
        }
    }
}

/// The dynamic loader's variables would reach QEMU itself; QEMU can pass them to the guest only,
/// unless they hold the comma that separates variables in its `-E`.
fn is_loader_variable(variable: &[u8]) -> bool {
    variable.starts_with(b"LD_") && !variable.contains(&b',')
}

impl Launch {
    /// Replaces the process by QEMU with `program`. Returns only on failure, with errno.
    fn execute(&self, program: &Program, environment: Vec<Vec<u8>>) -> u32 {
        let (loader, environment): (Vec<_>, Vec<_>) = environment
            .into_iter()
            .partition(|variable| is_loader_variable(variable));
        let mut command = vec![self.qemu.as_bytes().to_vec()];
        command.extend(self.options.iter().map(|option| option.as_bytes().to_vec()));
        for variable in loader {
            command.extend([b"-E".to_vec(), variable]);
        }
        let mut arguments = program.arguments.iter().cloned();
        command.extend([b"-0".to_vec(), arguments.next().unwrap_or_default()]);
        let mut path = program.path.clone();
        if Path::new(OsStr::from_bytes(&path)).is_relative() {
            // A name such as `-x` would look like an option.
            path.splice(0..0, *b"./");
        }
        command.push(path);
        command.extend(arguments);
        let strings = |list: Vec<Vec<u8>>| -> Option<Vec<CString>> {
            list.into_iter()
                .map(|string| CString::new(string).ok())
                .collect()
        };
        const EINVAL: u32 = 22;
        let (Some(command), Some(environment)) = (strings(command), strings(environment)) else {
            return EINVAL;
        };
        let pointers = |list: &[CString]| -> Vec<*const c_char> {
            list.iter()
                .map(|string| string.as_ptr())
                .chain([std::ptr::null()])
                .collect()
        };
        let (arguments, variables) = (pointers(&command), pointers(&environment));
        // SAFETY: NUL-terminated strings in null-terminated lists, alive during the call.
        unsafe { sys::execve(self.qemu.as_ptr(), arguments.as_ptr(), variables.as_ptr()) };
        std::io::Error::last_os_error()
            .raw_os_error()
            .map_or(EINVAL, i32::cast_unsigned)
    }
}
