//! Corpora and comparisons of files, on synthetic traces.

mod bolt;
mod corpus;
mod diff;
mod fuzz;
mod names;
mod synthetic;
mod tasks;
