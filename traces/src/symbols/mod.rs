//! Names for addresses: ELF files through the mappings of a process, and kernel symbol lists.

mod elf;
mod error;
mod executed;
mod kallsyms;
pub mod places;
mod symbolizer;
mod table;

pub use elf::{CodeBytes, ElfImage, ElfSegment};
pub use error::SymbolError;
pub(crate) use executed::Executed;
pub use executed::open_mapped;
pub use kallsyms::{parse_kallsyms, read_kallsyms};
pub use symbolizer::{Resolved, Symbolizer};
pub use table::{Binding, Symbol, SymbolTable, SymbolTableBuilder, demangle};
