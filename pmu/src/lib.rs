//! Performance monitoring events, counters and overflow.
#![forbid(unsafe_code)]
