//! Seeded damage for the tests of every reader, on stable Rust, with limits of memory and time.
//!
//! A test hands [`throw()`] valid inputs and the reader. By default it sees a few thousand damaged
//! inputs, the same ones each time; the environment asks for more:
//!
//! | variable | meaning |
//! |---|---|
//! | `VLBR_FUZZ_ITERATIONS` | inputs of each target |
//! | `VLBR_FUZZ_SECONDS` | seconds for each target, in place of a number of inputs |
//! | `VLBR_FUZZ_SEED` | which inputs; 1 by default |
//! | `VLBR_FUZZ_FIRST` | number of the first input, to run one of them again |

mod damage;
mod form;
mod heap;
mod throw;

pub use damage::{Damage, Numbers};
pub use form::Form;
pub use heap::{Counting, HEAP, peak_resident};
pub use throw::{Plan, Tally, folder, throw};
