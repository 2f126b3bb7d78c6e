//! Classes of control transfer and the transfer itself, as LBR and PMU see it.

use crate::{CodeSize, Cpl};

/// What kind of far transfer (the FAR class of `LBR_SELECT` bit 8 and the OTHER_BRANCH class of
/// `IA32_LBR_CTL` bit 22). SDM volume 3, "Last Branch Records".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FarKind {
    /// Far JMP, pointer or memory form.
    Jmp = 0,
    /// Far CALL, call gates included.
    Call = 1,
    /// Far RET.
    Ret = 2,
    /// SYSCALL.
    Syscall = 3,
    /// SYSRET.
    Sysret = 4,
    /// SYSENTER.
    Sysenter = 5,
    /// SYSEXIT.
    Sysexit = 6,
    /// IRET, IRETD, IRETQ.
    Iret = 7,
    /// INT n, INT3, INTO: software interrupts. FROM is the instruction itself.
    SoftwareInterrupt = 8,
    /// External interrupt or NMI. FROM is the next instruction to run.
    Interrupt = 9,
    /// Fault or trap other than `#DB`. FROM is the faulting instruction of a fault.
    Exception = 10,
    /// Debug exception `#DB`, INT1 included: clears the LBR enable and is not recorded.
    DebugException = 11,
    /// Abort of an RTM or HLE transaction.
    TsxAbort = 12,
    /// EENTER, ERESUME, EEXIT or AEX of an opt-in enclave.
    Enclave = 13,
    /// INIT.
    Init = 14,
    /// SIPI.
    Sipi = 15,
    /// SMI: entry into system-management mode.
    Smi = 16,
    /// RSM: return from system-management mode.
    Rsm = 17,
    /// A jump, call, return or interrupt through a task gate or TSS.
    TaskSwitch = 18,
}

impl FarKind {
    /// Every kind, in the order of its number.
    pub const ALL: [Self; 19] = [
        Self::Jmp,
        Self::Call,
        Self::Ret,
        Self::Syscall,
        Self::Sysret,
        Self::Sysenter,
        Self::Sysexit,
        Self::Iret,
        Self::SoftwareInterrupt,
        Self::Interrupt,
        Self::Exception,
        Self::DebugException,
        Self::TsxAbort,
        Self::Enclave,
        Self::Init,
        Self::Sipi,
        Self::Smi,
        Self::Rsm,
        Self::TaskSwitch,
    ];

    /// The kind with this number, or `None`.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The number of [`FarKind::from_number`].
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// Primary class of a taken control transfer. Exactly one holds for each transfer.
///
/// The class is that of the instruction: LOOPcc and JCXZ are [`BranchClass::Jcc`], far forms and
/// everything asynchronous are [`BranchClass::Far`]. SDM volume 3, `MSR_LBR_SELECT` and
/// `IA32_LBR_CTL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BranchClass {
    /// Conditional: Jcc, JCXZ/JECXZ/JRCXZ, LOOP/LOOPE/LOOPNE.
    Jcc,
    /// JMP rel.
    NearRelJmp,
    /// JMP r/m.
    NearIndJmp,
    /// CALL rel with a displacement other than 0.
    NearRelCall,
    /// CALL rel to the next sequential instruction ("zero-length call").
    NearRelCallZero,
    /// CALL r/m.
    NearIndCall,
    /// RET, near.
    NearRet,
    /// The far class.
    Far(FarKind),
}

/// One control transfer that was taken, as it reaches the LBR and the PMU.
///
/// Addresses are effective (EIP); the linear address (LIP) is the effective one plus the code
/// segment base. In 64-bit mode the bases are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transfer {
    /// Effective address the FROM field is made of: the branch instruction; for an interrupt the
    /// next instruction to run; for a fault the faulting instruction.
    pub from: u64,
    /// Effective address of the target.
    pub to: u64,
    /// `CS.base` at the source.
    pub from_cs_base: u64,
    /// `CS.base` at the target.
    pub to_cs_base: u64,
    /// Code size at the source: outside 64-bit mode bits 63:32 of FROM are recorded as 0.
    pub from_size: CodeSize,
    /// Code size at the target.
    pub to_size: CodeSize,
    /// Primary class.
    pub class: BranchClass,
    /// CPL before the transfer.
    pub cpl_before: Cpl,
    /// CPL after the transfer, the one filters test.
    pub cpl_after: Cpl,
    /// Direction, target or both were mispredicted.
    pub mispredicted: bool,
    /// Executed inside a transaction.
    pub in_tx: bool,
    /// This is a transaction abort.
    pub tx_abort: bool,
    /// Bytes of the compare right before it with which a conditional branch was macro-fused; 0 if
    /// it was not, or if that is not known.
    pub fused: u8,
}

impl Transfer {
    /// A predicted transfer between two 64-bit code addresses at one privilege level.
    #[must_use]
    pub const fn near(class: BranchClass, from: u64, to: u64, cpl: Cpl) -> Self {
        Self {
            from,
            to,
            from_cs_base: 0,
            to_cs_base: 0,
            from_size: CodeSize::Bits64,
            to_size: CodeSize::Bits64,
            class,
            cpl_before: cpl,
            cpl_after: cpl,
            mispredicted: false,
            in_tx: false,
            tx_abort: false,
            fused: 0,
        }
    }
}
