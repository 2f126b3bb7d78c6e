//! Timing models (definitions only so far).
#![forbid(unsafe_code)]
