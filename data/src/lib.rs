//! Data as TOML, looked up by name.
//!
//! [`parse_toml`] reads a text and says on one line what is wrong with it. [`Catalog`] holds the
//! data files that come with a crate, made of [`texts!`], and finds one by [`Named`]. [`NameSet`]
//! is a set of values that data files list by name.
#![forbid(unsafe_code)]

mod catalog;
mod named;
mod set;
mod text;

pub use catalog::{Catalog, CatalogError};
pub use named::{Named, find};
pub use set::{Enumerated, NameSet, UnknownName, parse_name};
pub use text::{TomlError, parse_toml};
