//! What stands around VMX in a logical processor.

use vlbr_cpu::ledger::Ledger;

/// Physical memory. Addresses that nothing answers read as ones and swallow writes, as on the bus.
pub trait PhysicalMemory {
    /// Reads from `address` on.
    fn read(&self, address: u64, bytes: &mut [u8]);

    /// Writes from `address` on.
    fn write(&mut self, address: u64, bytes: &[u8]);
}

/// Registers beside the MSRs that VM entry and exit switch here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Registers {
    /// Instruction pointer.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Flags.
    pub rflags: u64,
    /// Debug control.
    pub dr7: u64,
}

/// A logical processor at the moment of a VMX operation.
#[derive(Debug)]
pub struct Context<'a, M: ?Sized, P: ?Sized> {
    /// Its MSRs.
    pub msrs: &'a mut M,
    /// Physical memory.
    pub memory: &'a mut P,
    /// Its other registers.
    pub registers: &'a mut Registers,
    /// Where accesses are counted.
    pub ledger: &'a mut Ledger,
    /// Its time-stamp counter, before offset and scaling.
    pub tsc: u64,
}
