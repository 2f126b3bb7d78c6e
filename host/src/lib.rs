//! Linux as host. So far: perf's LBR driver as far as an event's branch filter goes.
#![forbid(unsafe_code)]

pub mod perf;
