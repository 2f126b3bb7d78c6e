//! Microarchitectures as data.

use serde::{Deserialize, Serialize};
use vlbr_data::{Named, TomlError, parse_toml};

use crate::forms::{FormTable, TableError};
use crate::ports::{PortSet, UopError};

/// Widths, latencies and rules of a core. Cycles unless said otherwise.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Instructions predecoded per cycle.
    pub predecode: u32,
    /// Bytes of a fetch block, a power of two.
    pub fetch: u32,
    /// Cycles a length-changing prefix costs.
    pub lcp: u32,
    /// Decoders, the first of which takes instructions of several micro-operations.
    pub decoders: u32,
    /// Micro-operations the decoders deliver per cycle.
    pub decoded: u32,
    /// The last decoder leaves instructions that may fuse with a branch to the next cycle.
    pub fusible_waits: bool,
    /// POP R12 takes the first decoder and leaves none of the others: its opcode is that of POP RSP.
    pub pop_r12_alone: bool,
    /// Cycles lost when the microcode sequencer takes over and hands back.
    pub sequencer: f32,
    /// Micro-operations per cycle of the uop cache.
    pub uop_cache: u32,
    /// Fused micro-operations renamed per cycle.
    pub issue: u32,
    /// Ports of loads.
    pub load_ports: String,
    /// Ports of store addresses.
    pub store_address_ports: String,
    /// Ports of store addresses with an index register.
    pub store_index_ports: String,
    /// Ports of store data.
    pub store_data_ports: String,
    /// Ports of the simplest integer operations.
    pub any_ports: String,
    /// Ports of an LEA that adds three things.
    pub slow_lea_ports: String,
    /// Latency of such an LEA.
    pub slow_lea: f32,
    /// Load to use, general-purpose register.
    pub load: f32,
    /// The same if the address is a small displacement to a base that was loaded.
    pub load_fast: f32,
    /// Load to use, XMM register.
    pub load_vector: f32,
    /// Load to use, YMM register.
    pub load_wide: f32,
    /// From store data to a load of the same bytes.
    pub forward: f32,
    /// From a store leaving the store buffer to a load that spans more than it.
    pub forward_blocked: f32,
    /// Moves between general-purpose registers may be eliminated.
    pub eliminate: bool,
    /// The same for vector registers.
    pub eliminate_vector: bool,
    /// Indexed loads stay fused with two-operand instructions.
    pub fuse_indexed: bool,
    /// Indexed stores stay fused.
    pub fuse_indexed_store: bool,
    /// Cycles that a locked instruction takes.
    pub lock: f32,
    /// Cycles that the first use of a page costs.
    pub page: f32,
    /// What a counter reads over unrolled code less the bound.
    pub bias: f32,
}

/// Buffers, caches and delays that the retirement scoreboard needs beside [`Parameters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// Fused micro-operations between rename and retirement, at most 1,024.
    pub rob: u32,
    /// Micro-operations that wait for operands.
    pub scheduler: u32,
    /// Fused micro-operations in front of the renamer, at most 1,024.
    pub idq: u32,
    /// Stores between rename and the cache, at most 256.
    pub store_buffer: u32,
    /// Fused micro-operations retired per cycle.
    pub retire: u32,
    /// Cycles from the execution of a mispredicted branch until the front end delivers again.
    pub mispredict: u32,
    /// Cycles that a taken branch costs whose target is only known when it is decoded.
    pub resteer: u32,
    /// Cycles in which nothing is delivered behind a taken branch.
    pub taken: u32,
    /// Cycles from the retirement of the last instruction until the front end delivers the first
    /// one of what an interrupt or fault leads to.
    pub event: u32,
    /// Cycles that forwarding takes longer into a vector register.
    pub forward_vector: u32,
    /// Cycles lost when the microcode sequencer takes over from the uop cache and hands back.
    pub ms_switch: u32,
    /// Sets of the uop cache by windows of 32 bytes; 0: there is none.
    pub dsb_sets: u32,
    /// Windows of a set.
    pub dsb_ways: u32,
    /// Cycles from the uop cache to the decoders.
    pub dsb_switch: u32,
    /// The uop cache does not hold branches that cross a 32-byte boundary or end at one (erratum
    /// SKX102 with the microcode of November 2019).
    pub jcc_erratum: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    alias: Vec<String>,
    parameters: Parameters,
    pipeline: Pipeline,
}

/// Sets of ports that lowering adds to those of the forms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryPorts {
    pub(crate) load: PortSet,
    pub(crate) store_address: PortSet,
    pub(crate) store_index: PortSet,
    pub(crate) store_data: PortSet,
    pub(crate) any: PortSet,
    pub(crate) slow_lea: PortSet,
}

/// A core as data: parameters and what each instruction form costs.
#[derive(Clone, Debug)]
pub struct Microarchitecture {
    name: String,
    alias: Vec<String>,
    /// Widths, latencies and rules.
    pub parameters: Parameters,
    /// Buffers, caches and delays.
    pub pipeline: Pipeline,
    /// What each form costs.
    pub forms: FormTable,
    /// The same without what was fitted to measurements.
    tables: FormTable,
    pub(crate) ports: MemoryPorts,
}

/// Why data is no microarchitecture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MicroarchitectureError {
    /// The parameters cannot be read.
    #[error("parameters: {0}")]
    Parameters(#[from] TomlError),
    /// Ports cannot be read.
    #[error("parameters: {0}")]
    Ports(#[from] UopError),
    /// A table of forms cannot be read.
    #[error("table {number}, {source}")]
    Table {
        /// Its number, from 1 on.
        number: usize,
        /// Why.
        source: TableError,
    },
    /// The table of fitted forms cannot be read.
    #[error("fitted table, {0}")]
    Fitted(TableError),
    /// A fetch block of another size.
    #[error("parameters: fetch is {0}, no power of two")]
    Fetch(u32),
    /// A buffer or delay out of range.
    #[error("pipeline: {name} is {value}, {least} to {most}")]
    Pipeline {
        /// Its key.
        name: &'static str,
        /// What it was.
        value: u32,
        /// The least it can be.
        least: u32,
        /// The most.
        most: u32,
    },
    /// A width of zero.
    #[error("parameters: {0} is zero")]
    Zero(&'static str),
}

impl Microarchitecture {
    /// Reads parameters (TOML) and tables of forms, later ones over earlier ones; `fitted` goes
    /// over them all.
    ///
    /// # Errors
    /// Text that cannot be read.
    pub fn parse(
        parameters: &str,
        tables: &[&str],
        fitted: &str,
    ) -> Result<Self, MicroarchitectureError> {
        let file: File = parse_toml(parameters)?;
        let p = &file.parameters;
        for (name, width) in [
            ("predecode", p.predecode),
            ("fetch", p.fetch),
            ("decoders", p.decoders),
            ("decoded", p.decoded),
            ("uop_cache", p.uop_cache),
            ("issue", p.issue),
        ] {
            if width == 0 {
                return Err(MicroarchitectureError::Zero(name));
            }
        }
        if !p.fetch.is_power_of_two() {
            return Err(MicroarchitectureError::Fetch(p.fetch));
        }
        check_pipeline(&file.pipeline)?;
        let ports = MemoryPorts {
            load: PortSet::parse(&p.load_ports)?,
            store_address: PortSet::parse(&p.store_address_ports)?,
            store_index: PortSet::parse(&p.store_index_ports)?,
            store_data: PortSet::parse(&p.store_data_ports)?,
            any: PortSet::parse(&p.any_ports)?,
            slow_lea: PortSet::parse(&p.slow_lea_ports)?,
        };
        let mut forms = FormTable::new(ports.any);
        for (number, text) in (1..).zip(tables) {
            forms
                .extend(text)
                .map_err(|source| MicroarchitectureError::Table { number, source })?;
        }
        let tables_only = forms.clone();
        forms
            .extend(fitted)
            .map_err(MicroarchitectureError::Fitted)?;
        Ok(Self {
            name: file.name,
            alias: file.alias,
            parameters: file.parameters,
            pipeline: file.pipeline,
            forms,
            tables: tables_only,
            ports,
        })
    }

    /// The same core with other buffers and delays.
    ///
    /// # Errors
    /// One out of range.
    pub fn with_pipeline(&self, pipeline: Pipeline) -> Result<Self, MicroarchitectureError> {
        check_pipeline(&pipeline)?;
        Ok(Self {
            pipeline,
            ..self.clone()
        })
    }

    /// The same core without what was fitted to measurements.
    #[must_use]
    pub fn without_fit(&self) -> Self {
        Self {
            forms: self.tables.clone(),
            ..self.clone()
        }
    }
}

/// Limits that keep buffers inside what is remembered.
fn check_pipeline(pipeline: &Pipeline) -> Result<(), MicroarchitectureError> {
    for (name, value, least, most) in [
        ("rob", pipeline.rob, 1, 1024),
        ("scheduler", pipeline.scheduler, 1, 1024),
        ("idq", pipeline.idq, 1, 1024),
        ("store_buffer", pipeline.store_buffer, 1, 256),
        ("retire", pipeline.retire, 1, 64),
        ("mispredict", pipeline.mispredict, 0, 1000),
        ("resteer", pipeline.resteer, 0, 1000),
        ("taken", pipeline.taken, 0, 1000),
        ("event", pipeline.event, 0, 100_000),
        ("forward_vector", pipeline.forward_vector, 0, 1000),
        ("ms_switch", pipeline.ms_switch, 0, 1000),
        ("dsb_sets", pipeline.dsb_sets, 0, 4096),
        ("dsb_ways", pipeline.dsb_ways, 1, 64),
        ("dsb_switch", pipeline.dsb_switch, 0, 1000),
    ] {
        if !(least..=most).contains(&value) {
            return Err(MicroarchitectureError::Pipeline {
                name,
                value,
                least,
                most,
            });
        }
    }
    Ok(())
}

impl Named for Microarchitecture {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_called(&self, text: &str) -> bool {
        self.name.eq_ignore_ascii_case(text)
            || self.alias.iter().any(|a| a.eq_ignore_ascii_case(text))
    }
}
