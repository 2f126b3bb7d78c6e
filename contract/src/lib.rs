//! Every interleaving of small scenes over the code of [`vlbr_host`]: which rules of the contract
//! between KVM and perf over the LBR hold in every state that can be reached, and by which shortest
//! path one is broken.
//!
//! ```
//! use std::sync::Arc;
//! use vlbr_contract::{Bounds, Rival, Scene, explore};
//! use vlbr_host::policy::Catalog;
//!
//! let policy = Catalog::builtin().named("ideal")?;
//! let scene = Scene::smallest(Arc::clone(&policy), Rival::PinnedOnCpu);
//! let explored = explore(&scene, &Bounds::default())?;
//! assert!(explored.exhausted() && explored.violations().is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod action;
mod error;
mod explore;
mod graph;
mod model;
mod scene;
mod trace;

pub use action::{Action, Write};
pub use error::ContractError;
pub use explore::{Bounds, Explored, explore};
pub use graph::{Edge, Graph};
pub use scene::{Rival, Scene};
