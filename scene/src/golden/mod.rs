//! Golden results of scenes: what a scene does under each policy, as rows that people can review.
//!
//! A golden file has a section for each policy. A section is a list of rows; two runs that differ in
//! anything that is counted, in a state of an event or in a value that a guest read differ in a row,
//! and the first of them says where to look. Cycles are not among them: cost models may change.

mod check;
mod file;
mod ledger;
mod section;
mod watch;

pub use check::{
    GoldenBlessed, GoldenError, GoldenReport, GoldenScene, RowChange, SceneChecked, SceneVerdict,
    bless, check,
};
