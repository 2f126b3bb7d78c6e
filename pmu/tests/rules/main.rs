//! What the manuals say, rule by rule, on both devices.

mod counting;
mod events;
mod interrupts;
mod pebs;
mod registers;
mod support;
#[path = "../common/world.rs"]
mod world;
