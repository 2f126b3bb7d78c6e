//! QEMU command lines.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::error::Error;
use super::locate::{find_plugin, find_qemu, resolve};
use super::session::Session;
use crate::files::open_regular;

/// A program to record under `qemu-x86_64`.
#[derive(Clone, Debug, Default)]
pub struct UserOptions {
    /// Program, searched on PATH unless it has a slash.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// QEMU to use, else [`find_qemu`].
    pub qemu: Option<PathBuf>,
    /// Plugin to use, else [`find_plugin`].
    pub plugin: Option<PathBuf>,
    /// Further options for QEMU.
    pub extra: Vec<OsString>,
}

/// A machine to record under `qemu-system-x86_64`.
#[derive(Clone, Debug)]
pub struct SystemOptions {
    /// Linux kernel image.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line, replacing `console=ttyS0 panic=-1`.
    pub append: Option<OsString>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Number of vCPUs.
    pub smp: u32,
    /// QEMU to use, else [`find_qemu`].
    pub qemu: Option<PathBuf>,
    /// Plugin to use, else [`find_plugin`].
    pub plugin: Option<PathBuf>,
    /// Further options for QEMU.
    pub extra: Vec<OsString>,
}

impl SystemOptions {
    /// One vCPU, 512 MiB, no initial RAM disk.
    pub fn new(kernel: PathBuf) -> Self {
        SystemOptions {
            kernel,
            initrd: None,
            append: None,
            memory_mib: 512,
            smp: 1,
            qemu: None,
            plugin: None,
            extra: Vec::new(),
        }
    }
}

/// Command that runs a program under user emulation for `session`. Standard streams, environment and
/// directory are the caller's.
///
/// # Errors
/// [`Error::QemuMissing`], [`Error::PluginMissing`], [`Error::ProgramMissing`],
/// [`Error::ProgramUnusable`], [`Error::Io`] if the program cannot be read.
pub fn user_command(session: &Session, options: &UserOptions) -> Result<Command, Error> {
    let program = resolve(&options.program, &options.arguments)?;
    let qemu = options.qemu.clone().map_or_else(|| find_qemu(false), Ok)?;
    let plugin = options.plugin.clone().map_or_else(find_plugin, Ok)?;
    let mut command = Command::new(qemu);
    command.arg("-plugin").arg(session.plugin_argument(&plugin));
    command.args(&options.extra);
    let mut arguments = program.arguments.into_iter();
    command.arg("-0").arg(arguments.next().unwrap_or_default());
    // A name such as `-x` would look like an option.
    let relative = program.path.is_relative();
    let path = if relative {
        Path::new(".").join(program.path)
    } else {
        program.path
    };
    command.arg(path).args(arguments);
    Ok(command)
}

/// Command that boots a machine for `session`: TCG, serial console on standard output, nothing read
/// from standard input, no display, no network, no reboot.
///
/// # Errors
/// [`Error::QemuMissing`], [`Error::PluginMissing`], [`Error::Io`] if kernel or RAM disk cannot be
/// read.
pub fn system_command(session: &Session, options: &SystemOptions) -> Result<Command, Error> {
    for file in std::iter::once(&options.kernel).chain(&options.initrd) {
        open_regular(file).map_err(Error::io(format!("opening {}", file.display())))?;
    }
    let qemu = options.qemu.clone().map_or_else(|| find_qemu(true), Ok)?;
    let plugin = options.plugin.clone().map_or_else(find_plugin, Ok)?;
    let mut command = Command::new(qemu);
    command.args([
        "-accel",
        if options.smp > 1 {
            "tcg,thread=multi"
        } else {
            "tcg"
        },
    ]);
    command.args(["-display", "none", "-serial", "stdio", "-monitor", "none"]);
    command.args(["-no-reboot", "-nic", "none"]);
    command.arg("-m").arg(format!("{}M", options.memory_mib));
    command.arg("-smp").arg(options.smp.to_string());
    command.arg("-kernel").arg(&options.kernel);
    if let Some(initrd) = &options.initrd {
        command.arg("-initrd").arg(initrd);
    }
    let append = options
        .append
        .clone()
        .unwrap_or_else(|| "console=ttyS0 panic=-1".into());
    command.arg("-append").arg(append);
    command.arg("-plugin").arg(session.plugin_argument(&plugin));
    command.args(&options.extra).stdin(Stdio::null());
    end_with_recorder(&mut command);
    Ok(command)
}

/// Ends a machine whose recorder was killed: it would run on, unseen and out of reach. A program
/// that is recorded goes on instead, as under perf record.
#[expect(unsafe_code, reason = "the only way to act between fork and exec")]
fn end_with_recorder(command: &mut Command) {
    // SAFETY: the closure runs between fork and exec. It makes one system call and neither
    // allocates nor takes a lock.
    unsafe {
        command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGTERM).map_err(Into::into));
    }
}
