//! The core of perf, `kernel/events/core.c`: contexts, groups, who is on.

mod contexts;
mod fork;
mod install;
mod place;
mod remove;
mod rotate;
mod switch;

pub(crate) use contexts::{Classes, Context, ContextId, Holder};
