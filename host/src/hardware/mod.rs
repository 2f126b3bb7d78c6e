//! The processors of the host, and whose what stands in them is.

mod entry;
mod machine;
mod memory;
mod msrs;
mod owners;
mod processor;
mod xsave;

pub use entry::{Entry, Stack};
pub use machine::{Hardware, HardwareError};
pub use memory::Memory;
pub use msrs::{LbrMsrs, LbrRegister, Word};
pub use owners::Owners;
pub use processor::{Processor, Running};
pub use xsave::LbrImage;
