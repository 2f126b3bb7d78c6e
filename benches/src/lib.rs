//! Benchmarks, and what they share with the figures.
#![forbid(unsafe_code)]

pub mod exits;
