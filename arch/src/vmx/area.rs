//! The MSR areas and the VMX-abort indicators.

use core::fmt;

/// Bytes of an entry of an MSR area: index (31:0), zeros (63:32), data (127:64).
pub const MSR_AREA_ENTRY_SIZE: u64 = 16;

/// An MSR area of the VMCS. SDM volume 3, "VM-Exit Controls for MSRs", "VM-Entry Controls for
/// MSRs".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MsrArea {
    /// VM-entry MSR-load area.
    EntryLoad,
    /// VM-exit MSR-store area.
    ExitStore,
    /// VM-exit MSR-load area.
    ExitLoad,
}

impl fmt::Display for MsrArea {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EntryLoad => "VM-entry MSR-load",
            Self::ExitStore => "VM-exit MSR-store",
            Self::ExitLoad => "VM-exit MSR-load",
        })
    }
}

/// VMX-abort indicator, bytes 7:4 of a VMCS region. SDM volume 3, "VMX Aborts".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum VmxAbort {
    /// A guest MSR could not be stored.
    SavingGuestMsrs = 1,
    /// The host's page-directory-pointer-table entries are invalid.
    HostPdptes = 2,
    /// The current VMCS is corrupt.
    CorruptVmcs = 3,
    /// A host MSR could not be loaded.
    LoadingHostMsrs = 4,
    /// A machine check during the VM exit.
    MachineCheck = 5,
    /// The processor was in IA-32e mode and "host address-space size" is 0.
    HostAddressSpace = 6,
}

impl VmxAbort {
    /// The indicator.
    #[must_use]
    pub const fn indicator(self) -> u32 {
        self as u32
    }
}

impl fmt::Display for VmxAbort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::SavingGuestMsrs => "saving guest MSRs",
            Self::HostPdptes => "host PDPTEs",
            Self::CorruptVmcs => "corrupt VMCS",
            Self::LoadingHostMsrs => "loading host MSRs",
            Self::MachineCheck => "machine check during VM exit",
            Self::HostAddressSpace => "host address-space size",
        };
        write!(f, "VMX abort {}: {text}", self.indicator())
    }
}
