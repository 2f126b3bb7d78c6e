//! What tests of scenes share.

pub(crate) mod recording;
