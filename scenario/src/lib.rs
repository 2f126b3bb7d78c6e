//! Golden text scenarios: rules of behaviour any emulator can be run against.
#![forbid(unsafe_code)]
