//! Intel Last Branch Record device: legacy and architectural.
#![forbid(unsafe_code)]
