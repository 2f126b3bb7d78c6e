//! VMX names and structures (definitions only so far).
#![forbid(unsafe_code)]
