//! Results of CPUID.

/// The four registers that CPUID returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CpuidResult {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// CPUID leaf that enumerates architectural performance monitoring. SDM volume 2, CPUID.
pub const CPUID_LEAF_PERFMON: u32 = 0xa;
/// CPUID leaf that enumerates architectural LBR (subleaf 0). SDM volume 2, CPUID.
pub const CPUID_LEAF_ARCH_LBR: u32 = 0x1c;
/// CPUID leaf of the XSAVE components.
pub const CPUID_LEAF_XSTATE: u32 = 0xd;
/// XSAVE component of architectural LBR, a supervisor component selected by `IA32_XSS[15]`.
pub const XSTATE_LBR: u32 = 15;
/// Bytes of XSAVE component 15: CTL, DEPTH, three LER words, 32 entries of 24 bytes.
pub const XSTATE_LBR_SIZE: usize = 808;
