//! Predictors as data.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use vlbr_data::{Named, parse_toml};

use super::corrector::CORRECTOR_TABLES;
use super::entry::LANES;
use super::error::PredictorError;

/// Longest history, in bits.
pub(crate) const MAX_HISTORY: u32 = 3968;
/// Most tagged tables of a part.
pub(crate) const MAX_TABLES: usize = 16;
/// Most entries of a table of counters.
const MAX_COUNTERS: u32 = 1 << 22;
/// Most sets of a tagged table or of the branch target buffer.
const MAX_SETS: u32 = 1 << 16;
/// Most entries of the tagged tables of a part together.
const MAX_ENTRIES: u32 = 1 << 20;
/// Most ways of either.
const MAX_WAYS: u32 = 16;
/// Most entries of the return stack.
const MAX_RETURNS: u32 = 1024;
/// Most entries of the loop part.
const MAX_LOOPS: u32 = 1 << 12;

/// A predictor as data: what stands in a front end, with sizes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictorConfig {
    /// Name.
    pub name: String,
    /// Other names; processors it holds for are among them.
    #[serde(default)]
    pub alias: Vec<String>,
    /// What is known of whose hardware, from where, and what is assumed.
    pub source: String,
    /// Seed of the choices that hardware makes at random. Default: 1.
    #[serde(default = "one")]
    pub seed: u32,
    /// What a branch adds to the path, which is the history of the indirect predictor, and of the direction
    /// predictor if that says so.
    pub path: PathConfig,
    /// How conditional branches are predicted.
    pub direction: DirectionConfig,
    /// How indirect jumps and calls are predicted.
    pub indirect: IndirectConfig,
    /// How returns are predicted.
    pub return_stack: ReturnStackConfig,
    /// The branch target buffer.
    pub btb: BtbConfig,
}

/// What a taken branch adds to the path: the path makes room for two bits, then sixteen, the footprint, are
/// added to its youngest by exclusive or. Bit `i` of the footprint is bit `branch[i]` of the address of the
/// branch's last byte, exclusive or bit `target[i]` of the target; -1 stands for no bit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathConfig {
    /// Bits of the address of the branch's last byte.
    #[serde(deserialize_with = "sixteen")]
    pub branch: [i8; 16],
    /// Bits of the target.
    #[serde(deserialize_with = "sixteen")]
    pub target: [i8; 16],
}

/// An array as it is written: the rest of a longer one is not left out.
fn sixteen<'de, D: Deserializer<'de>>(from: D) -> Result<[i8; 16], D::Error> {
    let bits = Vec::<i8>::deserialize(from)?;
    bits.try_into()
        .map_err(|bits: Vec<i8>| D::Error::invalid_length(bits.len(), &"16 bits"))
}

/// How conditional branches are predicted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DirectionConfig {
    /// Every conditional branch is taken.
    AlwaysTaken,
    /// Counters of two bits, chosen by the address (Smith 1981).
    Bimodal {
        /// Counters, a power of two.
        entries: u32,
    },
    /// Counters of two bits, chosen by address and global history (McFarling 1993).
    Gshare {
        /// Counters, a power of two.
        entries: u32,
        /// Directions in the history, at most the bits of an index.
        history: u32,
    },
    /// Tagged tables with histories of growing length (Seznec and Michaud 2006).
    Tage(TageConfig),
}

/// A direction predictor of the TAGE class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TageConfig {
    /// Counters of the base predictor, a power of two.
    pub base: u32,
    /// The history.
    pub history: HistoryKind,
    /// The tagged tables, by growing history.
    pub tables: Vec<TableConfig>,
    /// Entries of the loop part, a power of two from 4 on; 0: there is none.
    pub loops: u32,
    /// Counters of each table of the statistical corrector, a power of two; 0: there is none.
    pub corrector: u32,
}

/// The history that chooses entries of the tagged tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HistoryKind {
    /// Of a conditional branch its direction, of another one two bits of its target.
    Outcome,
    /// The path: taken branches only, as [`PathConfig`] says.
    Path,
}

/// A tagged table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableConfig {
    /// Bits of history that choose the entry.
    pub history: u32,
    /// Sets, a power of two.
    pub sets: u32,
    /// Ways.
    pub ways: u32,
    /// Bits of a tag.
    pub tag: u32,
}

/// How indirect jumps and calls are predicted: by tagged tables over the path, the branch target buffer
/// being the base. No tables: by the branch target buffer alone, that is as the last time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndirectConfig {
    /// The tagged tables, by growing history.
    pub tables: Vec<TableConfig>,
}

/// How returns are predicted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReturnStackConfig {
    /// Return addresses it holds; 0: returns are predicted as indirect jumps are.
    pub entries: u32,
    /// What predicts a return when every entry was used.
    pub underflow: Underflow,
    /// A call of the next instruction pushes a return address too.
    pub zero_length_calls: bool,
}

/// What predicts a return when every entry of the return stack was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Underflow {
    /// The stack goes round: what stood there before.
    Wraps,
    /// The indirect predictor.
    Indirect,
}

/// The branch target buffer: an entry for each branch that was taken, with its last target; the entry of a
/// set that was used longest ago is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BtbConfig {
    /// Sets, a power of two.
    pub sets: u32,
    /// Ways.
    pub ways: u32,
}

fn one() -> u32 {
    1
}

impl PredictorConfig {
    /// Reads a configuration and checks it.
    ///
    /// # Errors
    /// Text that cannot be read, sizes that are not supported.
    pub fn from_toml(text: &str) -> Result<Self, PredictorError> {
        let config: Self = parse_toml(text)?;
        config.check()?;
        Ok(config)
    }

    /// Bytes that a predictor of this configuration takes, near enough.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let entries = |table: &TableConfig| u64::from(table.sets) * u64::from(table.ways);
        let lanes =
            |table: &TableConfig| u64::from(table.sets) * u64::from(table.rows()) * LANES as u64;
        let direction = match &self.direction {
            DirectionConfig::AlwaysTaken => 0,
            DirectionConfig::Bimodal { entries } | DirectionConfig::Gshare { entries, .. } => {
                u64::from(*entries)
            }
            DirectionConfig::Tage(tage) => {
                let small = u64::from(tage.base)
                    + 12 * u64::from(tage.loops)
                    + CORRECTOR_TABLES * u64::from(tage.corrector);
                small + 4 * tage.tables.iter().map(lanes).sum::<u64>()
            }
        };
        let btb = 16 * u64::from(self.btb.sets) * u64::from(self.btb.ways);
        let returns = 8 * u64::from(self.return_stack.entries);
        // Histories and what is of one size.
        let rest = 4096;
        let indirect = 16 * self.indirect.tables.iter().map(entries).sum::<u64>();
        direction + indirect + btb + returns + rest
    }

    /// Whether a predictor can be made of it. Together the limits keep one below 64 MiB.
    ///
    /// # Errors
    /// The first size that is not supported.
    pub fn check(&self) -> Result<(), PredictorError> {
        if self.name.is_empty() || self.name.chars().any(char::is_control) {
            return Err(PredictorError::Name(self.name.clone()));
        }
        for (part, bits) in [
            ("path.branch", self.path.branch),
            ("path.target", self.path.target),
        ] {
            if let Some(&bit) = bits.iter().find(|bit| !(-1..=63).contains(*bit)) {
                return Err(PredictorError::Bit { part, bit });
            }
        }
        match &self.direction {
            DirectionConfig::AlwaysTaken => {}
            DirectionConfig::Bimodal { entries } => {
                power("direction.entries", *entries, 1, MAX_COUNTERS)?
            }
            DirectionConfig::Gshare { entries, history } => {
                power("direction.entries", *entries, 1, MAX_COUNTERS)?;
                range("direction.history", *history, 0, entries.trailing_zeros())?;
            }
            DirectionConfig::Tage(tage) => tage.check()?,
        }
        tables("indirect.tables", &self.indirect.tables)?;
        range(
            "return_stack.entries",
            self.return_stack.entries,
            0,
            MAX_RETURNS,
        )?;
        power("btb.sets", self.btb.sets, 1, MAX_SETS)?;
        range("btb.ways", self.btb.ways, 1, MAX_WAYS)
    }
}

impl TableConfig {
    /// Rows of a set in a part that looks through a row at once.
    pub(super) fn rows(&self) -> u32 {
        self.ways.div_ceil(LANES as u32)
    }
}

impl TageConfig {
    fn check(&self) -> Result<(), PredictorError> {
        power("direction.base", self.base, 1, MAX_COUNTERS)?;
        if self.loops != 0 {
            power("direction.loops", self.loops, 4, MAX_LOOPS)?;
        }
        if self.corrector != 0 {
            power("direction.corrector", self.corrector, 16, MAX_SETS)?;
        }
        tables("direction.tables", &self.tables)
    }
}

fn tables(part: &'static str, tables: &[TableConfig]) -> Result<(), PredictorError> {
    range(
        part,
        tables.len().try_into().unwrap_or(u32::MAX),
        0,
        MAX_TABLES as u32,
    )?;
    let mut before = 0;
    for table in tables {
        power(part, table.sets, 1, MAX_SETS)?;
        range(part, table.ways, 1, MAX_WAYS)?;
        range(part, table.tag, 4, 16)?;
        range(part, table.history, 2, MAX_HISTORY)?;
        if table.history < before {
            return Err(PredictorError::Order {
                part,
                length: table.history,
                before,
            });
        }
        before = table.history;
    }
    // At most 2^20 of each of 16.
    let entries = tables.iter().map(|table| table.sets * table.ways).sum();
    range(part, entries, 0, MAX_ENTRIES)
}

fn range(part: &'static str, size: u32, least: u32, most: u32) -> Result<(), PredictorError> {
    if (least..=most).contains(&size) {
        return Ok(());
    }
    Err(PredictorError::Range {
        part,
        size,
        least,
        most,
    })
}

fn power(part: &'static str, size: u32, least: u32, most: u32) -> Result<(), PredictorError> {
    if !size.is_power_of_two() {
        return Err(PredictorError::PowerOfTwo { part, size });
    }
    range(part, size, least, most)
}

impl Named for PredictorConfig {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_called(&self, text: &str) -> bool {
        self.name.eq_ignore_ascii_case(text)
            || self.alias.iter().any(|a| a.eq_ignore_ascii_case(text))
    }
}
