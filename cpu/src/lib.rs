//! A logical processor.
#![forbid(unsafe_code)]
