//! The retirement scoreboard: when each instruction of a trace retires.
//!
//! Instructions pass in program order, each with a handful of maxima: when the front end delivers
//! it, when the renamer has room for it, when its operands are ready and a port is free, and when
//! those before it have retired. Nothing is done cycle by cycle. State runs from block to block, so
//! that the cycle field of an LBR record, the difference of two retirements, comes out as in
//! hardware: blocks behind a slow one retire in a burst.

mod calendar;
mod contents;
mod core;
mod frontend;
mod inst;
mod kind;
mod lane;
mod piece;
mod predecoder;
mod program;
mod slots;
#[cfg(test)]
mod tests;

pub use self::core::{Done, Leave, Scoreboard};
pub(crate) use piece::Piece;
pub use program::{Program, Programmer};
