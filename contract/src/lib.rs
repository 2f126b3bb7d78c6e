//! Every interleaving of small scenes over the code of [`vlbr_host`]: which rules of the contract
//! between KVM and perf over the LBR hold in every state that can be reached, and by which shortest
//! path one is broken. `docs/contract.md` states the rules.
//!
//! ```
//! use vlbr_contract::{Bounds, Scene, explore};
//! use vlbr_host::policy::Catalog;
//!
//! let policy = Catalog::builtin().named("ideal")?;
//! let scene = Scene::builtin("registers-pinned-cpu").expect("built in");
//! let found = explore(&scene, &policy, &Bounds::default(), &|_| {})?;
//! assert!(found.exhausted && found.broken.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod action;
mod error;
mod explore;
mod graph;
mod judge;
mod model;
mod rule;
mod scene;
mod start;
mod table;
mod trace;

pub use error::ContractError;
pub use explore::{Bounds, Broken, Explored, explore};
pub use rule::ContractRule;
pub use scene::Scene;
pub use table::{Plan, Table};
