//! A filter in `corpus.toml`.

use std::fmt;
use std::num::NonZeroU64;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use vlbr_timing::TimingModel;

/// A filter: perf's names, alone or in a table with an event of its own.
#[derive(Clone, Debug)]
pub(super) struct RawFilter {
    pub(super) branches: String,
    pub(super) event: Option<String>,
    pub(super) period: Option<NonZeroU64>,
    pub(super) timing: TimingModel,
}

impl<'de> Deserialize<'de> for RawFilter {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            branches: String,
            event: Option<String>,
            period: Option<NonZeroU64>,
            #[serde(default)]
            timing: TimingModel,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = RawFilter;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a filter such as \"any,u\", or { branches, event, period, timing }")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RawFilter, E> {
                Ok(RawFilter {
                    branches: text.to_owned(),
                    event: None,
                    period: None,
                    timing: TimingModel::None,
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawFilter, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RawFilter {
                    branches: table.branches,
                    event: table.event,
                    period: table.period,
                    timing: table.timing,
                })
            }
        }
        deserializer.deserialize_any(Either)
    }
}
