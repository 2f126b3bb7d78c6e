//! Corpora and comparisons of files, on synthetic traces.

mod corpus;
mod diff;
mod synthetic;
