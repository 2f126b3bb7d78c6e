//! The rules of VMX as LBR and PMU meet it, one test per rule.

mod areas;
mod bitmap;
mod common;
mod controls;
mod dump;
mod events;
mod guest_msr;
mod guest_state;
mod instructions;
mod ledger;
mod literal;
mod profiles;
mod timer;
mod transitions;
