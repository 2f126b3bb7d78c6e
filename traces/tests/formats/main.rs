//! Readers: real files, other containers, damage.

mod containers;
mod damaged;
mod explained;
mod files;
mod fuzz;
mod groups;
mod real_files;
