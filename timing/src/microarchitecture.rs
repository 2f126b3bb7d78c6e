//! Microarchitectures as data.

use serde::Deserialize;
use vlbr_data::{Named, TomlError, parse_toml};

use crate::forms::{FormTable, LazyTable, TableError, TableTexts};
use crate::pipeline::{MOST_PLACES, Pipeline, check_pipeline};
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
    /// Bytes of a window of the uop cache, a power of two.
    pub uop_cache_window: u32,
    /// Micro-operations of a line of the uop cache.
    pub uop_cache_line: u32,
    /// Lines that a window may have.
    pub uop_cache_lines: u32,
    /// Micro-operations of a loop that the loop stream detector holds; 0: there is none, or it is off.
    pub loop_queue: u32,
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
    /// The same if the index is multiplied.
    pub slow_lea_scaled: f32,
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
    /// Floating-point numbers have a divider of their own.
    pub float_divider: bool,
    /// Moves between general-purpose registers may be eliminated.
    pub eliminate: bool,
    /// The same for vector registers.
    pub eliminate_vector: bool,
    /// Indexed loads stay fused with two-operand instructions.
    pub fuse_indexed: bool,
    /// Indexed stores stay fused.
    pub fuse_indexed_store: bool,
    /// Stores that leave the store buffer per cycle.
    pub commit: u32,
    /// Cycles that a locked instruction takes.
    pub lock: f32,
    /// Cycles that a repeated string instruction takes at least, whatever its count.
    pub rep: f32,
    /// Cycles that the first use of a page costs.
    pub page: f32,
    /// What a counter reads over unrolled code less the bound.
    pub bias: f32,
}

/// What the data of a core rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// Public facts, corrected by a fit to measured blocks and judged by others of them.
    Fitted,
    /// Public facts, judged by measured blocks.
    Judged,
    /// Public facts alone: no measurement has judged them.
    Public,
}

impl Basis {
    /// What it says in output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fitted => "fitted to measurements",
            Self::Judged => "public facts, judged by measurements",
            Self::Public => "public facts, not judged by measurements",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    title: String,
    alias: Vec<String>,
    basis: Basis,
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

impl MemoryPorts {
    /// All of them.
    pub(crate) fn all(self) -> PortSet {
        [
            self.load,
            self.store_address,
            self.store_index,
            self.store_data,
            self.any,
        ]
        .into_iter()
        .fold(self.slow_lea, PortSet::union)
    }
}

/// A core as data: parameters and what each instruction form costs.
#[derive(Clone, Debug)]
pub struct Microarchitecture {
    name: String,
    title: String,
    alias: Vec<String>,
    /// What the data rest on.
    pub basis: Basis,
    /// Widths, latencies and rules.
    pub parameters: Parameters,
    /// Buffers, caches and delays.
    pub pipeline: Pipeline,
    /// What each form costs.
    pub forms: LazyTable,
    /// The same without what was fitted to measurements.
    tables: LazyTable,
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
    /// A window of another size.
    #[error("parameters: {0} is {1}, no power of two")]
    Window(&'static str, u32),
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
    /// A width above what the scoreboard can follow.
    #[error("parameters: {0} is {1}, at most {MOST_PLACES}")]
    Wide(&'static str, u32),
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
        let (file, ports) = read_parameters(parameters)?;
        let mut forms = FormTable::new(ports.any);
        for (number, text) in (1..).zip(tables) {
            forms
                .extend(text)
                .map_err(|source| MicroarchitectureError::Table { number, source })?;
        }
        let mut tables_only = forms.clone();
        tables_only.derive_evex();
        forms
            .extend(fitted)
            .map_err(MicroarchitectureError::Fitted)?;
        forms.derive_evex();
        Ok(Self::of(file, ports, forms.into(), tables_only.into()))
    }

    /// The same of data that comes with the crate: its tables are read when a form is first asked for, so that a
    /// name can be looked up among all cores without reading all tables.
    ///
    /// # Errors
    /// Parameters that cannot be read.
    pub(crate) fn built_in(
        parameters: &str,
        tables: &'static [&'static str],
        fitted: &'static str,
    ) -> Result<Self, MicroarchitectureError> {
        let (file, ports) = read_parameters(parameters)?;
        let table = |fitted| {
            LazyTable::later(TableTexts {
                any: ports.any,
                tables,
                fitted,
            })
        };
        Ok(Self::of(file, ports, table(fitted), table("")))
    }

    fn of(file: File, ports: MemoryPorts, forms: LazyTable, tables: LazyTable) -> Self {
        Self {
            name: file.name,
            title: file.title,
            alias: file.alias,
            basis: file.basis,
            parameters: file.parameters,
            pipeline: file.pipeline,
            forms,
            tables,
            ports,
        }
    }

    /// Whether the tables can be read.
    #[cfg(test)]
    pub(crate) fn check_tables(&self) -> Result<(), TableError> {
        self.forms.check()?;
        self.tables.check()
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

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The processors it is about.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Its other names.
    #[must_use]
    pub fn aliases(&self) -> &[String] {
        &self.alias
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

impl Named for Microarchitecture {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_called(&self, text: &str) -> bool {
        self.name.eq_ignore_ascii_case(text)
            || self.alias.iter().any(|a| a.eq_ignore_ascii_case(text))
    }
}

/// Reads the parameters of a core and checks them.
fn read_parameters(text: &str) -> Result<(File, MemoryPorts), MicroarchitectureError> {
    let file: File = parse_toml(text)?;
    let p = &file.parameters;
    for (name, width) in [
        ("predecode", p.predecode),
        ("fetch", p.fetch),
        ("decoders", p.decoders),
        ("decoded", p.decoded),
        ("uop_cache", p.uop_cache),
        ("issue", p.issue),
        ("commit", p.commit),
        ("uop_cache_line", p.uop_cache_line),
        ("uop_cache_lines", p.uop_cache_lines),
    ] {
        if width == 0 {
            return Err(MicroarchitectureError::Zero(name));
        }
    }
    for (name, value) in [("issue", p.issue), ("commit", p.commit)] {
        if value > MOST_PLACES {
            return Err(MicroarchitectureError::Wide(name, value));
        }
    }
    for (name, bytes) in [("fetch", p.fetch), ("uop_cache_window", p.uop_cache_window)] {
        if !bytes.is_power_of_two() {
            return Err(MicroarchitectureError::Window(name, bytes));
        }
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
    Ok((file, ports))
}
