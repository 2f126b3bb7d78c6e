//! Traces in and out: the native format, recorders, readers and exporters.
#![deny(unsafe_code)]

pub mod perfdata;
pub mod qemu;
pub mod synthetic;
