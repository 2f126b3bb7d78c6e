//! Linux as host: perf's LBR driver.
#![forbid(unsafe_code)]
