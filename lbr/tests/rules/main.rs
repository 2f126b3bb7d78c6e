//! Rules of the LBR, each on the fast device and on the reference.

mod access;
mod call_stack;
mod control;
mod formats;
mod quirks;
mod support;
mod vectors;
