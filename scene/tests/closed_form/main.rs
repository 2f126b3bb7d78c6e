//! The ledger of whole runs equals the closed forms, built from what a run switched, saved and exited.

mod bundled;
mod forms;
mod random;
