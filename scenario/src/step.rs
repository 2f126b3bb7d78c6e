//! Steps of a scenario: what happens and what must be seen.

use vlbr_arch::{BranchClass, CodeSize, Cpl, Msr};
use vlbr_cpu::processor::MsrReason;
use vlbr_lbr::{GpReason, Pmi, Reset};

use crate::host_step::HostStep;
use crate::{Expr, PmuStep, VmxStep};

/// The block a step stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// What is given before.
    Given,
    /// What happens.
    When,
    /// What must be seen.
    Then,
}

impl Phase {
    /// The word that opens the block.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::When => "when",
            Self::Then => "then",
        }
    }
}

/// One line of a block.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Line in the file, from 1.
    pub line: usize,
    /// The line as written, without comment.
    pub text: String,
    /// Its block.
    pub phase: Phase,
    /// Logical processor of the core, 0 or 1.
    pub cpu: usize,
    /// How often: once without.
    pub repeat: Option<Expr>,
    /// What it does or expects.
    pub what: Action,
}

/// A register: by address, or by its number in the part's LBR stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Register {
    /// This address.
    At(Msr),
    /// FROM of the entry with this MSR number: `FROM[3]`, `MSR_LASTBRANCH_3_FROM_IP`.
    From(Expr),
    /// TO likewise.
    To(Expr),
    /// INFO likewise.
    Info(Expr),
}

/// Reasons of `#GP(0)` as scenarios name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// `#GP` without a reason: any.
    Any,
    /// The part lacks the register.
    NoSuchRegister,
    /// The entry is at or above `IA32_LBR_DEPTH`.
    BeyondDepth,
    /// Reserved bits are set.
    ReservedBits,
    /// Named bits that this part lacks are set.
    UnsupportedBits,
    /// CPUID does not enumerate the depth.
    UnsupportedDepth,
    /// Not a canonical address.
    NotCanonical,
    /// Bits between address and flags differ from the sign.
    SignExtension,
    /// XSAVES or XRSTORS without the component.
    NoArchLbr,
    /// CPL is not 0.
    Privilege,
    /// The register, or a bit of it, is read only.
    ReadOnly,
    /// Bits above the counter's width are set.
    CounterWidth,
    /// RDPMC of a counter the part lacks.
    NoSuchCounter,
}

impl Fault {
    /// The reasons with their names.
    pub const NAMED: [(Self, &'static str); 12] = [
        (Self::NoSuchRegister, "no such register"),
        (Self::BeyondDepth, "beyond depth"),
        (Self::ReservedBits, "reserved bits"),
        (Self::UnsupportedBits, "unsupported bits"),
        (Self::UnsupportedDepth, "unsupported depth"),
        (Self::NotCanonical, "not canonical"),
        (Self::SignExtension, "sign extension"),
        (Self::NoArchLbr, "no architectural LBR"),
        (Self::Privilege, "privilege"),
        (Self::ReadOnly, "read only"),
        (Self::CounterWidth, "counter width"),
        (Self::NoSuchCounter, "no such counter"),
    ];

    /// The name of the device's reason.
    pub(crate) const fn of(reason: &GpReason) -> Self {
        match reason {
            GpReason::NoSuchMsr => Self::NoSuchRegister,
            GpReason::BeyondDepth { .. } => Self::BeyondDepth,
            GpReason::Reserved(_) => Self::ReservedBits,
            GpReason::UnsupportedDebugCtl(_) | GpReason::UnsupportedLbrCtl(_) => {
                Self::UnsupportedBits
            }
            GpReason::UnsupportedDepth(_) => Self::UnsupportedDepth,
            GpReason::NonCanonical(_) => Self::NotCanonical,
            GpReason::SignExtension { .. } => Self::SignExtension,
            GpReason::NoArchLbr => Self::NoArchLbr,
        }
    }

    /// The name of the PMU's reason.
    pub(crate) const fn of_pmu(reason: &vlbr_pmu::GpReason) -> Self {
        use vlbr_pmu::GpReason as Pmu;
        match reason {
            Pmu::NoSuchMsr => Self::NoSuchRegister,
            Pmu::ReadOnly => Self::ReadOnly,
            Pmu::Reserved(_) => Self::ReservedBits,
            Pmu::Width(_) => Self::CounterWidth,
            Pmu::NonCanonical(_) => Self::NotCanonical,
            Pmu::Privilege => Self::Privilege,
            Pmu::NoSuchCounter => Self::NoSuchCounter,
        }
    }

    /// The name of the reason for which the MSR space refuses; `None` for what is no `#GP`: the
    /// part would do it, the model cannot.
    pub(crate) const fn of_msr(reason: &MsrReason) -> Option<Self> {
        Some(match reason {
            MsrReason::Privilege(_) => Self::Privilege,
            MsrReason::NoSuchMsr => Self::NoSuchRegister,
            MsrReason::Reserved(_) => Self::ReservedBits,
            MsrReason::ReadOnlyBits(_) => Self::ReadOnly,
            MsrReason::Lbr(reason) => Self::of(reason),
            MsrReason::Pmu(reason) => Self::of_pmu(reason),
            MsrReason::Refused(_) | MsrReason::IntelPt(_) => return None,
        })
    }

    /// Whether a fault for `found` is the one expected.
    #[must_use]
    pub fn accepts(self, found: Self) -> bool {
        self == Self::Any || self == found
    }
}

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match Self::NAMED.iter().find(|(known, _)| known == self) {
            Some((_, name)) => write!(f, "#GP({name})"),
            None => f.write_str("#GP"),
        }
    }
}

/// What an instruction that may fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteOutcome {
    /// It completes.
    Ok,
    /// It faults.
    Fault(Fault),
}

/// A comparison with a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    /// Equal, or different.
    pub equal: bool,
    /// The value.
    pub value: Expr,
    /// The bits compared; all without.
    pub mask: Option<Expr>,
}

/// What RDMSR gives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReadCheck {
    /// A value.
    Value(Check),
    /// A fault.
    Fault(Fault),
}

/// What a transfer does to the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BranchOutcome {
    /// A record is added.
    Recorded,
    /// The youngest record is removed.
    Popped,
    /// Nothing.
    Ignored,
}

/// A control transfer as it reaches the LBR.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Branch {
    /// Class.
    pub class: BranchClass,
    /// Effective address of the source.
    pub from: Expr,
    /// Effective address of the target.
    pub to: Expr,
    /// CPL before and after.
    pub cpl: (Cpl, Cpl),
    /// Code size before and after.
    pub size: (CodeSize, CodeSize),
    /// `CS.base` before and after.
    pub cs_base: (u64, u64),
    /// Mispredicted.
    pub mispredicted: bool,
    /// In a transaction.
    pub in_tx: bool,
    /// A transaction abort.
    pub abort: bool,
    /// Bytes of the compare it was fused with, 0 if none.
    pub fused: u8,
    /// Core clocks that pass before it retires.
    pub after: u64,
    /// What becomes of it, if said.
    pub outcome: Option<BranchOutcome>,
}

/// Execution that transfers no control as the LBR sees it: nothing reaches the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unseen {
    /// A conditional branch that is not taken.
    NotTaken,
    /// A repeated string instruction.
    RepString,
    /// XBEGIN that does not abort.
    Xbegin,
    /// XEND.
    Xend,
    /// A pipeline clear for self-modifying code or the like.
    MachineClear,
    /// Branches inside an enclave that was entered with debug opt-out.
    OptOutEnclave,
    /// VM exit.
    VmExit,
    /// VM entry.
    VmEntry,
}

/// A word of an XSAVE image of component 15.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ImageField {
    /// At this byte offset.
    Offset(Expr),
    /// `CTL`, 0x000.
    Ctl,
    /// `DEPTH`, 0x008.
    Depth,
    /// `LER_FROM`, 0x010.
    LerFrom,
    /// `LER_TO`, 0x018.
    LerTo,
    /// `LER_INFO`, 0x020.
    LerInfo,
    /// `FROM[i]`, 0x028 + 24 i.
    From(Expr),
    /// `TO[i]`, 0x030 + 24 i.
    To(Expr),
    /// `INFO[i]`, 0x038 + 24 i.
    Info(Expr),
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expected {
    /// FROM, TO and INFO read 0.
    Empty,
    /// These addresses and flags.
    Record(EntryCheck),
}

/// Fields of an entry. Cycles and type are compared only where they are named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EntryCheck {
    /// Equal, or different in at least one field.
    pub equal: bool,
    /// FROM.
    pub from: Expr,
    /// TO.
    pub to: Expr,
    /// Mispredicted.
    pub mispredicted: bool,
    /// In a transaction.
    pub in_tx: bool,
    /// An abort.
    pub abort: bool,
    /// Cycles; `Some(None)`: none are told.
    pub cycles: Option<Option<Expr>>,
    /// Branch type; 8 stands for 8 to 15.
    pub branch_type: Option<u8>,
}

/// What a step does or expects.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// `lbr on`: the registers are set so that these are recorded.
    LbrOn {
        /// Ring 0.
        kernel: bool,
        /// Rings 1 to 3.
        user: bool,
        /// Call-stack mode.
        call_stack: bool,
    },
    /// `lbr off`: the enable bit is cleared.
    LbrOff,
    /// `wrmsr`.
    Wrmsr(Register, Expr, WriteOutcome),
    /// `rdmsr`.
    Rdmsr(Register, ReadCheck),
    /// A control transfer.
    Branch(Branch),
    /// Something the LBR does not see.
    Unseen(Unseen),
    /// `wait`: core clocks pass.
    Wait(Expr),
    /// A PMI is raised.
    Pmi(Pmi),
    /// Return from a C-state deeper than C1.
    DeepCState,
    /// RESET.
    Reset(Reset),
    /// VERR, VERW, LAR or LSL ends with ZF = 0.
    SegmentTestFails,
    /// The event that this counter logs occurs.
    LogEvent(u8),
    /// `xsaves` into an image.
    Xsaves(char, WriteOutcome),
    /// `xrstors` of an image.
    Xrstors(char, WriteOutcome),
    /// `xrstors init`: `XSTATE_BV[15]` is 0.
    XrstorsInit(WriteOutcome),
    /// A word of an image is changed by software.
    SetImage(char, ImageField, Expr),
    /// A word of an image.
    Image(char, ImageField, Check),
    /// A register of CPUID leaf, subleaf; 0 to 3 for EAX to EDX.
    Cpuid(u32, u32, usize, Check),
    /// The entry so many below the youngest.
    Entry(Expr, Expected),
    /// So many entries from the youngest on are not empty, all others are.
    Holds(Expr),
    /// What the event `LBR_INSERTS` has counted.
    LbrInserts(Expr),
    /// Something about counters.
    Pmu(PmuStep),
    /// Something about VMX.
    Vmx(VmxStep),
    /// Something about a host.
    Host(Box<HostStep>),
}
