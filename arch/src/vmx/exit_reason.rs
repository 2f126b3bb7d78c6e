//! Basic exit reasons.

use core::fmt;

/// The exit-reason field (0x4402): the basic reason in bits 15:0 and flags above. SDM volume 3,
/// appendix "VMX Basic Exit Reasons". Numbers without a name keep their value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExitReason(u32);

macro_rules! reasons {
    ($( $name:ident = $number:literal, $text:literal; )*) => {
        impl ExitReason {
            $( #[doc = concat!($text, ".")] pub const $name: Self = Self($number); )*

            /// Every basic reason with its name, ascending.
            pub const NAMED: &'static [(Self, &'static str)] = &[$( (Self::$name, $text), )*];
        }
    };
}

reasons! {
    EXCEPTION_OR_NMI = 0, "exception or NMI";
    EXTERNAL_INTERRUPT = 1, "external interrupt";
    TRIPLE_FAULT = 2, "triple fault";
    INIT = 3, "INIT";
    SIPI = 4, "SIPI";
    IO_SMI = 5, "I/O SMI";
    OTHER_SMI = 6, "other SMI";
    INTERRUPT_WINDOW = 7, "interrupt window";
    NMI_WINDOW = 8, "NMI window";
    TASK_SWITCH = 9, "task switch";
    CPUID = 10, "CPUID";
    GETSEC = 11, "GETSEC";
    HLT = 12, "HLT";
    INVD = 13, "INVD";
    INVLPG = 14, "INVLPG";
    RDPMC = 15, "RDPMC";
    RDTSC = 16, "RDTSC";
    RSM = 17, "RSM";
    VMCALL = 18, "VMCALL";
    VMCLEAR = 19, "VMCLEAR";
    VMLAUNCH = 20, "VMLAUNCH";
    VMPTRLD = 21, "VMPTRLD";
    VMPTRST = 22, "VMPTRST";
    VMREAD = 23, "VMREAD";
    VMRESUME = 24, "VMRESUME";
    VMWRITE = 25, "VMWRITE";
    VMXOFF = 26, "VMXOFF";
    VMXON = 27, "VMXON";
    CR_ACCESS = 28, "control-register access";
    MOV_DR = 29, "MOV DR";
    IO_INSTRUCTION = 30, "I/O instruction";
    RDMSR = 31, "RDMSR";
    WRMSR = 32, "WRMSR";
    INVALID_GUEST_STATE = 33, "VM-entry failure: invalid guest state";
    MSR_LOADING = 34, "VM-entry failure: MSR loading";
    MWAIT = 36, "MWAIT";
    MONITOR_TRAP_FLAG = 37, "monitor trap flag";
    MONITOR = 39, "MONITOR";
    PAUSE = 40, "PAUSE";
    MACHINE_CHECK = 41, "VM-entry failure: machine check";
    TPR_BELOW_THRESHOLD = 43, "TPR below threshold";
    APIC_ACCESS = 44, "APIC access";
    VIRTUALIZED_EOI = 45, "virtualized EOI";
    GDTR_IDTR = 46, "access to GDTR or IDTR";
    LDTR_TR = 47, "access to LDTR or TR";
    EPT_VIOLATION = 48, "EPT violation";
    EPT_MISCONFIGURATION = 49, "EPT misconfiguration";
    INVEPT = 50, "INVEPT";
    RDTSCP = 51, "RDTSCP";
    PREEMPTION_TIMER = 52, "preemption timer";
    INVVPID = 53, "INVVPID";
    WBINVD = 54, "WBINVD";
    XSETBV = 55, "XSETBV";
    APIC_WRITE = 56, "APIC write";
    RDRAND = 57, "RDRAND";
    INVPCID = 58, "INVPCID";
    VMFUNC = 59, "VMFUNC";
    ENCLS = 60, "ENCLS";
    RDSEED = 61, "RDSEED";
    PML_FULL = 62, "page-modification log full";
    XSAVES = 63, "XSAVES";
    XRSTORS = 64, "XRSTORS";
    SPP = 66, "SPP-related event";
    UMWAIT = 67, "UMWAIT";
    TPAUSE = 68, "TPAUSE";
    LOADIWKEY = 69, "LOADIWKEY";
    BUS_LOCK = 74, "bus lock";
    NOTIFY = 75, "instruction timeout";
    RDMSR_IMMEDIATE = 84, "RDMSR with an immediate";
    WRMSRNS_IMMEDIATE = 85, "WRMSRNS with an immediate";
}

impl ExitReason {
    /// Bit 31: VM entry failed.
    pub const ENTRY_FAILURE: u32 = 1 << 31;

    /// The field with this value.
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self(value)
    }

    /// The value as VMREAD returns it.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }

    /// Bits 15:0 alone.
    #[must_use]
    pub const fn basic(self) -> Self {
        Self(self.0 & 0xffff)
    }

    /// With bit 31 set.
    #[must_use]
    pub const fn as_entry_failure(self) -> Self {
        Self(self.0 | Self::ENTRY_FAILURE)
    }

    /// Bit 31.
    #[must_use]
    pub const fn is_entry_failure(self) -> bool {
        self.0 & Self::ENTRY_FAILURE != 0
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let basic = self.basic();
        match Self::NAMED.iter().find(|(known, _)| *known == basic) {
            Some((_, text)) => f.write_str(text),
            None => write!(f, "exit reason {}", basic.0),
        }
    }
}

impl fmt::Debug for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExitReason({:#x} {self})", self.0)
    }
}
