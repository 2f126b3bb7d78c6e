//! Readings for the tests.

/// A made-up run of the module.
pub(crate) const MODULE: &str = include_str!("../data/synthetic-module.txt");
/// A made-up run of the image.
pub(crate) const IMAGE: &str = include_str!("../data/synthetic-image.txt");
