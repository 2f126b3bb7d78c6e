//! A processor with its options, after power-up.

use core::fmt::Write;

use serde::Serialize;
use serde_json::{Map, Value};
use vlbr_cpu::processor::Options;
use vlbr_lbr::Profile;

use super::cpu::Cpu;
use super::hex::Hex;
use super::layout::Layout;
use super::options::named;
use super::pmu_options;
use super::step::Named;
use crate::DeviceKind;
use crate::compare::{Mismatch, mismatch};

/// A register with its value.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Initial {
    #[serde(flatten)]
    register: Named,
    value: Option<Hex>,
    /// Bits that are modelled, if not all are.
    #[serde(skip_serializing_if = "Option::is_none")]
    known: Option<Hex>,
}

/// A line of the export: what the cases that name it begin with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Machine {
    kind: &'static str,
    id: String,
    #[serde(flatten)]
    cpu: Cpu,
    options: Map<String, Value>,
    pmu_options: Map<String, Value>,
    quirks: Vec<String>,
    /// Of each logical processor.
    initial: Vec<Initial>,
}

/// Name of the processor and what is not as by default.
pub(super) fn id(profile: &Profile, options: &Options) -> String {
    let default = Options::default();
    let mut id = profile.name().to_owned();
    for (default, stated, prefix) in [
        (named(&default.lbr), named(&options.lbr), ""),
        (
            pmu_options::named(&default.pmu),
            pmu_options::named(&options.pmu),
            "pmu.",
        ),
    ] {
        for (name, value) in stated {
            if default.get(&name) != Some(&value) {
                let value = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                // Writing to a String cannot fail.
                let _ = write!(id, " {prefix}{name}={value}");
            }
        }
    }
    if let Some(quirks) = options.lbr.quirks {
        let _ = write!(id, " quirks={quirks}");
    }
    let of_part = vlbr_pmu::Profile::named(profile.name()).map(|pmu| pmu.quirks());
    if let Some(quirks) = options.pmu.quirks.filter(|quirks| Ok(*quirks) != of_part) {
        let _ = write!(id, " pmu.quirks={quirks}");
    }
    id
}

impl Machine {
    pub(super) fn new(profile: &Profile, options: &Options) -> Result<Self, Mismatch> {
        let layout = Layout::of(profile, &options.lbr);
        let mut machine = crate::machine::Machine::new(DeviceKind::Reference, profile, options)
            .map_err(|error| mismatch("a processor", error))?;
        let quirks = options.lbr.quirks.unwrap_or(profile.quirks());
        let of_pmu = options.pmu.quirks.unwrap_or_default();
        let mut initial = Vec::new();
        for msr in machine.msrs(0)? {
            let (value, known) = machine.reading(0, msr)?;
            initial.push(Initial {
                register: msr.into(),
                value: value.map(Hex),
                known: (known != !0).then_some(Hex(known)),
            });
        }
        Ok(Self {
            kind: "machine",
            id: id(profile, options),
            cpu: Cpu::of(&mut machine, options, layout)?,
            options: named(&options.lbr),
            pmu_options: pmu_options::named(&options.pmu),
            quirks: (quirks.iter().map(|quirk| quirk.to_string()))
                .chain(of_pmu.iter().map(|quirk| quirk.to_string()))
                .collect(),
            initial,
        })
    }
}
