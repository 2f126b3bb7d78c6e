//! A run over time, for ui.perfetto.dev: Chrome's JSON trace events, written as they happen.

mod tracks;
mod watch;

pub(crate) use watch::Watch;
