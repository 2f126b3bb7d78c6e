//! Intel Last Branch Record device: legacy and architectural.
//!
//! [`Lbr`] is the device, made from a [`Profile`] (which processor) and [`Options`] (what
//! documentation leaves open). [`Device`] is its face, which [`reference::Lbr`], a slow second
//! reading of the rules, has too.
#![forbid(unsafe_code)]

mod device;
mod fast;
mod gp;
mod options;
mod profile;
mod quirk;
mod record;
pub mod reference;
mod smt;

pub use device::{Device, Pmi, Reset, Verdict};
pub use fast::{EntryWrites, Lbr, MAX_DEPTH, StackWords};
pub use gp::{Access, GpFault, GpReason};
pub use options::{FreezeFlavour, Options, OptionsError, ReservedWrite, ReturnGate};
pub use profile::{
    ArchLbr, CpuModel, InsertsEvent, Interface, LegacyLbr, Profile, ProfileError, Scope,
    SelectLayout,
};
pub use quirk::{Quirk, QuirkSet, UnknownQuirk};
pub use record::Record;
pub use smt::SmtCore;
pub use vlbr_data::TomlError;
