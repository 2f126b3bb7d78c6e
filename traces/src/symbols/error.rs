//! Why symbols or code of a file could not be read.

use std::io;
use std::path::PathBuf;

/// Why a file gave no symbols or code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SymbolError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The file system's reason.
        source: io::Error,
    },
    /// The file is not an ELF file, or not a consistent one.
    #[error("{}: {reason}", path.display())]
    Elf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file is not the one that was mapped.
    #[error("{}: another build than the one recorded", path.display())]
    AnotherFile {
        /// The file.
        path: PathBuf,
    },
    /// The file announces more symbols or code than is taken.
    #[error("{}: {what}: more than {limit}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What there is too much of.
        what: &'static str,
        /// How much is taken.
        limit: u64,
    },
    /// A line of a kernel symbol list is not `address type name`.
    #[error("{}: line {line}: not a kernel symbol", path.display())]
    Kallsyms {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
    },
    /// Every address of a kernel symbol list is 0.
    #[error("{}: addresses are hidden (kernel.kptr_restrict)", path.display())]
    HiddenAddresses {
        /// The file.
        path: PathBuf,
    },
}
