//! Recorded LBR stacks against the scoreboard: the code between the records runs again, and the
//! cycle fields are compared.

mod compare;
mod replay;
mod stack;
mod unrecorded;

pub use compare::{Comparison, Judged, Medians};
pub use replay::{CodeImage, Mispredictions, WindowError, Windows};
pub use stack::{Entry, EntryError, Stack, read_stacks};
pub use unrecorded::Unrecorded;
