//! What accesses happened, and what they cost.
//!
//! [`Ledger`] counts every MSR access, VM exit and transfer of an MSR area by kind and by actor. Its
//! rows grow only inside its own primitives ([`Ledger::rdmsr`] and so on), which do what they count:
//! nothing is counted that was not done. [`CostModel`] turns the counts into cycles afterwards, or, as
//! [`Prices`], into time while they happen.
//!
//! It stands here because the MSR space, `vmx` and `host` all count in one ledger, and this is the
//! lowest room that holds what they count.

mod access;
mod actor;
mod block;
mod book;
mod cost;
mod estimate;
mod event;
mod meter;

pub use access::MsrAccess;
pub use actor::Actor;
pub use block::EntryBlock;
pub use book::Ledger;
pub use cost::{Bound, Class, Cost, CostItem, CostModel, CostModelError};
pub use estimate::{Estimate, EstimateError, EstimateRow};
pub use event::Event;
pub use meter::Prices;
pub use vlbr_data::TomlError;
