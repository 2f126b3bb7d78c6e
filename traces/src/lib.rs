//! Traces in and out: the native format, recorders, readers and exporters.
#![forbid(unsafe_code)]
