//! A trace through an emulated processor under a perf event; corpora and their golden results.
#![forbid(unsafe_code)]
