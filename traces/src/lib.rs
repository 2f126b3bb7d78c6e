//! Traces in and out: the native format, recorders, readers and exporters.
#![deny(unsafe_code)]

pub mod assemble;
pub mod cbp;
pub mod explain;
pub mod export;
pub mod files;
pub mod generate;
pub mod perfdata;
pub mod ptrace;
pub mod qemu;
pub mod qemulog;
pub mod record;
pub mod rewrite;
pub mod symbols;
pub mod synthetic;
pub mod vlt;
