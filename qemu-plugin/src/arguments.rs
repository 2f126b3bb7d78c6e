//! Installation: the plugin's arguments and QEMU's own command line.

use std::ffi::{CStr, CString, OsString, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::api::{self, Info};
use crate::control::{self, Configuration};
use crate::exec::Launch;
use crate::{fork, interrupts, maps, registers, ring, syscalls, translate};

/// The plugin's own arguments.
#[derive(Debug, Default)]
struct Arguments {
    session: Option<PathBuf>,
    memory: bool,
    empty: bool,
}

fn switch(value: &[u8]) -> Option<bool> {
    match value {
        b"on" => Some(true),
        b"off" => Some(false),
        _ => None,
    }
}

fn parse(arguments: &[&[u8]]) -> Result<Arguments, String> {
    let mut parsed = Arguments::default();
    for argument in arguments {
        let refuse = || {
            Err(format!(
                "bad argument {:?}",
                String::from_utf8_lossy(argument)
            ))
        };
        let Some(position) = argument.iter().position(|&byte| byte == b'=') else {
            return refuse();
        };
        let (name, value) = (&argument[..position], &argument[position + 1..]);
        match (name, switch(value)) {
            (b"session", _) if !value.is_empty() => {
                parsed.session = Some(OsString::from_vec(value.to_vec()).into());
            }
            (b"mem", Some(on)) => parsed.memory = on,
            (b"empty", Some(on)) => parsed.empty = on,
            _ => return refuse(),
        }
    }
    Ok(parsed)
}

/// QEMU's options, then the guest's program and arguments, from QEMU's own command line.
struct CommandLine {
    /// Options and their values.
    options: Vec<Vec<CString>>,
    program: Vec<CString>,
}

/// Options of `qemu-x86_64` that take no value.
const LONE: [&[u8]; 4] = [b"-strace", b"-singlestep", b"-one-insn-per-tb", b"-h"];

fn command_line() -> Option<CommandLine> {
    let text = std::fs::read("/proc/self/cmdline").ok()?;
    let mut words = text.split_inclusive(|&byte| byte == 0).skip(1);
    let word = |word: &[u8]| CString::from_vec_with_nul(word.to_vec()).ok();
    let mut options = Vec::new();
    let mut program = Vec::new();
    while let Some(first) = words.next() {
        let first = word(first)?;
        if !first.as_bytes().starts_with(b"-") {
            program.push(first);
            break;
        }
        // QEMU takes two dashes for one.
        let name = first
            .as_bytes()
            .strip_prefix(b"-")
            .filter(|rest| rest.starts_with(b"-"));
        let lone = LONE.contains(&name.unwrap_or(first.as_bytes()));
        let mut option = vec![first];
        if !lone {
            option.push(word(words.next()?)?);
        }
        options.push(option);
    }
    program.extend(words.map_while(word));
    (!program.is_empty()).then_some(CommandLine { options, program })
}

impl CommandLine {
    fn value(&self, name: &[u8]) -> Option<&CStr> {
        let mut found = self
            .options
            .iter()
            .filter(|option| option[0].as_bytes() == name);
        found
            .next_back()
            .and_then(|option| option.get(1))
            .map(CString::as_c_str)
    }

    /// How to start QEMU for another program.
    fn launch(&self) -> Option<Launch> {
        const ONE_PROGRAM: [&[u8]; 3] = [b"-0", b"-E", b"-U"];
        let qemu = std::fs::read_link("/proc/self/exe").ok()?;
        let plugin = plugin_file(self.value(b"-plugin")?.to_bytes());
        let kept = self
            .options
            .iter()
            .filter(|option| !ONE_PROGRAM.contains(&option[0].as_bytes()));
        Some(Launch {
            qemu: CString::new(qemu.as_os_str().as_bytes()).ok()?,
            options: kept.flatten().cloned().collect(),
            plugin: CString::new(plugin).ok()?,
        })
    }
}

/// The file name in a `-plugin` value: up to the first single comma, double ones halved.
fn plugin_file(value: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut bytes = value.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b',' && bytes.next_if_eq(&b',').is_none() {
            break;
        }
        file.push(byte);
    }
    file.strip_prefix(b"file=")
        .map_or(file.clone(), <[u8]>::to_vec)
}

fn configuration(info: &Info, session: PathBuf, memory: bool) -> Configuration {
    let command = if info.system_emulation {
        None
    } else {
        command_line()
    };
    // SAFETY: QEMU's string, alive during the call of `install`.
    let target = unsafe { CStr::from_ptr(info.target_name) }
        .to_bytes()
        .to_vec();
    let program = command.as_ref().map(|command| &command.program[0]);
    let path = program
        .map(|program| program.as_bytes().to_vec())
        .unwrap_or_default();
    let mut arguments = command
        .as_ref()
        .map(|c| c.program.clone())
        .unwrap_or_default();
    if let Some(argument0) = command.as_ref().and_then(|command| command.value(b"-0")) {
        arguments[0] = argument0.to_owned();
    }
    Configuration {
        session,
        memory,
        system: info.system_emulation,
        api: info.version_cur.cast_unsigned(),
        target,
        follow: command.as_ref().and_then(CommandLine::launch),
        executable: PathBuf::from(OsString::from_vec(path.clone()))
            .canonicalize()
            .ok(),
        program: path,
        arguments,
    }
}

extern "C" fn vcpu_started(_id: u64, vcpu: c_uint) {
    registers::find_handles();
    ring::vcpu_started(vcpu);
    syscalls::thread_started();
}

extern "C" fn vcpu_ended(_id: u64, vcpu: c_uint) {
    ring::vcpu_ended(vcpu);
    syscalls::thread_ended();
}

extern "C" fn ended(_id: u64, _data: *mut c_void) {
    // In user mode the exit system call has said it with its status.
    if control::configuration().is_some_and(|configuration| configuration.system) {
        control::lock().note_exit(0);
    }
}

fn install(id: u64, info: &Info, arguments: &[&[u8]]) -> Result<(), String> {
    if info.version_cur > api::NEWEST {
        let (version, newest) = (info.version_cur, api::NEWEST);
        return Err(format!(
            "QEMU has plugin API {version}, this plugin knows 1 to {newest}"
        ));
    }
    let arguments = parse(arguments)?;
    if arguments.empty {
        // SAFETY: called from `qemu_plugin_install` with its id.
        unsafe { api::qemu_plugin_register_vcpu_tb_trans_cb(id, translate::translated_empty) };
        return Ok(());
    }
    let session = arguments.session.ok_or("no session=DIR given")?;
    // SAFETY: QEMU's string, alive during the call.
    let target = unsafe { CStr::from_ptr(info.target_name) };
    if target != c"x86_64" {
        return Err(format!("target {target:?} is not x86_64"));
    }
    if !api::choose_insn_data(info.version_cur) {
        return Err("QEMU shows no instruction bytes".to_owned());
    }
    maps::remember_own();
    if !fork::install() {
        return Err("pthread_atfork failed".to_owned());
    }
    let system = info.system_emulation;
    let directory = session.display().to_string();
    if !control::start(configuration(info, session, arguments.memory)) {
        return Err(format!("no recorder answers in {directory}"));
    }
    // SAFETY: as above; the callbacks live as long as the plugin.
    unsafe {
        api::qemu_plugin_register_vcpu_init_cb(id, vcpu_started);
        api::qemu_plugin_register_vcpu_exit_cb(id, vcpu_ended);
        api::qemu_plugin_register_vcpu_tb_trans_cb(id, translate::translated);
        api::qemu_plugin_register_atexit_cb(id, ended, std::ptr::null_mut());
        if system {
            if info.version_cur == 1 {
                interrupts::look_at_handlers();
            }
            api::register_discontinuity(id, registers::discontinuity);
        } else {
            api::qemu_plugin_register_vcpu_syscall_cb(id, syscalls::entered);
            api::qemu_plugin_register_vcpu_syscall_ret_cb(id, syscalls::returned);
        }
    }
    Ok(())
}

/// Entry point, called by QEMU when it loads the plugin.
///
/// # Safety
/// Only QEMU calls it: `info` and the `argc` strings of `argv` are valid during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    info: *const Info,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    let count = usize::try_from(argc).unwrap_or(0);
    // SAFETY: the caller's.
    let result = unsafe {
        let arguments: Vec<&[u8]> = (0..count)
            .map(|index| CStr::from_ptr(*argv.add(index)).to_bytes())
            .collect();
        install(id, &*info, &arguments)
    };
    match result {
        Ok(()) => 0,
        Err(reason) => {
            eprintln!("vlbr plugin: {reason}");
            1
        }
    }
}
