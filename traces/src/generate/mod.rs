//! Synthetic guests and programs by a spec: `vlbr gen`. docs/gen.md explains the fields.
//!
//! A [`Spec`] says what runs how often: branches by class and bias, loops, call depth, indirect
//! targets, ring transitions, instructions that can cause VM exits, use of the LBR by the guest.
//! [`generate`] writes a trace of it, the same bytes for the same spec; [`fit()`] makes a spec of a
//! recorded trace, and [`compare()`] says how far the one is from the other.

mod account;
mod check;
mod compare;
mod draft;
mod draw;
mod due;
mod exits;
mod fit;
mod fragment;
mod layout;
mod lbr;
mod measure;
mod program;
mod record;
mod ring;
mod schedule;
mod sites;
mod spec;
mod walk;

pub use check::SpecError;
pub use compare::{Row, Unit, compare};
pub use fit::{FitError, fit};
pub use measure::{Measure, Measured, Ring, measure};
pub use record::{GenerateError, Generated, generate, measure_spec};
pub use spec::{
    Branches, Calls, CodeSpec, Conditional, Events, ExitRate, Indirect, LbrUse, Loops, ParseError,
    Share, Spec,
};

#[cfg(test)]
mod tests;
