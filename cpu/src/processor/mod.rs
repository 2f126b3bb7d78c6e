//! A logical processor as software that uses LBR and counters meets it: both devices, the registers
//! around them, and the order in which each event reaches them.
//!
//! ```
//! use vlbr_arch::{Cpl, Msr};
//! use vlbr_cpu::processor::{LogicalProcessor, Options};
//!
//! let mut cpu = LogicalProcessor::by_name("skylake", Options::default())?;
//! cpu.write_msr(Msr::DEBUGCTL, 1, Cpl::Ring0)?;
//! let fault = cpu.read_msr(Msr::LBR_CTL, Cpl::Ring0).unwrap_err();
//! assert_eq!(fault.to_string(), "#GP(0): RDMSR IA32_LBR_CTL: no such register on this part");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod around;
mod core_registers;
mod describe;
mod fault;
mod flow;
mod ignored;
mod logical;
mod options;
mod route;
mod smt;

pub use around::{Nothing, Surroundings};
pub use describe::{MsrDescription, MsrMode, MsrScope, ValueRule, describe};
pub use fault::{MsrFault, MsrOperation, MsrReason};
pub use flow::{Boundary, Retired};
pub use ignored::{Ignored, IgnoredAccesses};
pub use logical::LogicalProcessor;
pub use options::{Options, ProcessorError, UnknownMsrs};
pub use route::Owner;
pub use smt::Core;
