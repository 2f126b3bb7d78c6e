//! Why a configuration makes no predictor.

use vlbr_data::TomlError;

/// Why a configuration makes no predictor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PredictorError {
    /// Text that cannot be read.
    #[error(transparent)]
    Toml(#[from] TomlError),
    /// A name that is empty, or cannot be printed.
    #[error("name: {0:?} is empty or has control characters")]
    Name(String),
    /// A size that indexes by bits of an address.
    #[error("{part}: {size} is no power of two")]
    PowerOfTwo {
        /// Key of the configuration.
        part: &'static str,
        /// The size.
        size: u32,
    },
    /// A size outside of what is supported.
    #[error("{part}: {size} is not in {least} to {most}")]
    Range {
        /// Key of the configuration.
        part: &'static str,
        /// The size.
        size: u32,
        /// Least.
        least: u32,
        /// Most.
        most: u32,
    },
    /// A bit that addresses do not have.
    #[error("{part}: {bit} is no bit of an address; -1 stands for none")]
    Bit {
        /// Key of the configuration.
        part: &'static str,
        /// The number.
        bit: i8,
    },
    /// Tables whose histories do not grow.
    #[error("{part}: a history of {length} bits stands behind one of {before}")]
    Order {
        /// Key of the configuration.
        part: &'static str,
        /// History of the table, in bits.
        length: u32,
        /// That of the table before it.
        before: u32,
    },
}
