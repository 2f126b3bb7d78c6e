//! Steps about a host: its tasks, guests and perf events.

use vlbr_arch::Cpl;
use vlbr_cpu::ledger::Actor;
use vlbr_host::kvm::{ExitLevel, Note, Vmcs12};
use vlbr_host::machine::{Arrival, Carried, ExitCause, Rule};
use vlbr_host::perf::{Creator, Errno, EventState};
use vlbr_lbr::CpuModel;
use vlbr_pmu::Source;
use vlbr_traces::perfdata::BranchSampleType;

use crate::{Branch, Check, Expr, Register};

/// The event that is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EventName {
    /// One that the scenario opened.
    Opened(String),
    /// `V.lbr`: the one that stands for the LBR of a vCPU.
    Lbr(String),
    /// `V.pmcN`: the one that counts for a general-purpose counter of a vCPU.
    Counter(String, usize),
}

/// Whose a value is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OwnerName {
    /// Nobody.
    Nobody,
    /// The host's kernel.
    Kernel,
    /// This task; of a vCPU, its guest.
    Named(String),
}

/// What a vCPU's CPUID says, where it differs from the host's part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VcpuModel {
    /// Family and model.
    pub model: Option<CpuModel>,
    /// Without PDCM.
    pub no_pdcm: bool,
    /// Perfmon version; 2 unless said.
    pub pmu: Option<u8>,
    /// General-purpose counters; 4 unless said.
    pub gp: Option<u8>,
    /// Fixed counters; 3 unless said.
    pub fixed: Option<u8>,
    /// CPUID.1C:EBX.
    pub arch_lbr_ebx: Option<u32>,
}

/// What an access to an MSR gives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MsrWant {
    /// RDMSR of this value.
    Value(Check),
    /// WRMSR of this value succeeds.
    Written(Expr),
    /// RDMSR is refused.
    ReadRefused,
    /// WRMSR of this value is refused.
    WriteRefused(Expr),
}

/// An access to an MSR.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MsrStep {
    /// The register.
    pub register: Register,
    /// What it gives.
    pub want: MsrWant,
    /// Whose the value is, if said.
    pub owner: Option<OwnerName>,
    /// Whether it makes a VM exit, if said.
    pub exits: Option<bool>,
}

/// What an event counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Counts {
    /// By the name that `perf -e` takes.
    Named(String),
    /// The guest's LBR as v8 asks for it.
    V8Lbr,
    /// The guest's LBR with config 0x1b00.
    VirtualLbr,
    /// Software.
    Software,
}

/// `struct perf_event_attr` of a step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventText {
    /// What it counts.
    pub counts: Counts,
    /// The processor.
    pub cpu: Option<u16>,
    /// The task.
    pub task: Option<String>,
    /// `pinned`.
    pub pinned: bool,
    /// `exclusive`.
    pub exclusive: bool,
    /// `exclude_host`.
    pub exclude_host: bool,
    /// `exclude_guest`.
    pub exclude_guest: bool,
    /// `precise_ip`.
    pub precise: bool,
    /// `disabled`.
    pub disabled: bool,
    /// `inherit`.
    pub inherit: bool,
    /// `sample_period`.
    pub period: u64,
    /// `branch_sample_type`.
    pub branch: Option<BranchSampleType>,
    /// The leader of its group.
    pub group: Option<EventName>,
    /// Who opens it.
    pub creator: Creator,
}

/// What happens.
#[derive(Clone, Debug, PartialEq)]
pub enum HostAct {
    /// `task`: a new one, of the kernel or not.
    Task(String, bool),
    /// `vcpu`: a new one in a VM, made with its first.
    Vcpu(String, String, VcpuModel),
    /// `cpuid`: user space changes what CPUID says.
    Cpuid(String, VcpuModel),
    /// `fork`: parent and child.
    Fork(String, String),
    /// `switch`: a processor and who gets it.
    Switch(u16, Option<String>),
    /// `run`: `KVM_RUN` begins.
    Run(String),
    /// `leave`: it returns.
    Leave(String),
    /// `enter`, from the fast path or not.
    Enter(String, bool),
    /// `exit`.
    Exit(String, ExitCause, ExitLevel),
    /// `guest`: an access of the guest.
    Guest(String, MsrStep),
    /// `user`: thread, vCPU and its access.
    User(String, String, MsrStep),
    /// `msrs get`: thread, vCPU, and which.
    GetMsrs(String, String, Carried),
    /// `msrs set`: what was read last goes into this vCPU.
    SetMsrs(String, String),
    /// `migrate`: the vCPU goes on on another host.
    Migrate(String, Carried),
    /// `on`: a branch of whoever runs there; whether it ends with a PMI.
    Branch(u16, Box<Branch>, bool),
    /// `on`: amounts that whoever runs there retires; whether it ends with a PMI.
    Retire(u16, Vec<(Expr, Source)>, Cpl, bool),
    /// `event`: opened, or refused.
    Open(String, Box<EventText>, Option<Errno>),
    /// `close`.
    Close(EventName),
    /// `enable`.
    Enable(EventName),
    /// `disable`.
    Disable(EventName),
    /// `rotate`.
    Rotate(u16),
    /// `pebs`: an adaptive PEBS record of the event.
    PebsRecord(EventName),
    /// `c6`.
    DeepCState(u16),
    /// `reset`.
    Reset(String),
    /// `cap`: VM, on or off, whether the pointer is good, and the five words or the refusal.
    Capability(String, bool, bool, Option<[u32; 5]>),
    /// `l2 enter`, and whether the entry fails.
    EnterL2(String, Vmcs12, bool),
    /// `l2 leave`.
    LeaveL2(String),
    /// `set`: a register gets a value of this owner, as if it had been recorded.
    Set(u16, Register, Expr, OwnerName),
    /// `code`: bytes of a task, or of the kernel's text.
    Code(Option<String>, Expr, Vec<u8>),
}

/// Registers a count in the ledger is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LedgerRegisters {
    /// All.
    All,
    /// Those of the LBR and `IA32_DEBUGCTL`.
    Lbr,
    /// This one.
    One(Register),
}

/// Kinds of rows in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LedgerKind {
    /// RDMSR.
    Rdmsr,
    /// WRMSR.
    Wrmsr,
    /// XSAVES.
    Xsaves,
    /// XRSTORS.
    Xrstors,
    /// Entries that an MSR area loaded at VM entry.
    AreaLoads,
    /// Entries that an MSR area stored at VM exit.
    AreaStores,
    /// VM exits.
    Exits,
}

impl LedgerKind {
    /// Every kind with its word.
    pub const NAMED: [(Self, &'static str); 7] = [
        (Self::Rdmsr, "rdmsr"),
        (Self::Wrmsr, "wrmsr"),
        (Self::Xsaves, "xsaves"),
        (Self::Xrstors, "xrstors"),
        (Self::AreaLoads, "area-loads"),
        (Self::AreaStores, "area-stores"),
        (Self::Exits, "exits"),
    ];
}

/// A number of a processor in perf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CpuField {
    /// `lbr_users`.
    Users,
    /// `lbr_pebs_users`.
    PebsUsers,
    /// References to the slot of the branch filter.
    SlotRefs,
    /// v8's `vcpu_lbr`, or bit 58 of the guest mask.
    GuestOwns,
}

impl CpuField {
    /// Every one with its word.
    pub const NAMED: [(Self, &'static str); 4] = [
        (Self::Users, "lbr_users"),
        (Self::PebsUsers, "lbr_pebs_users"),
        (Self::SlotRefs, "slot_refs"),
        (Self::GuestOwns, "guest_owns_lbr"),
    ];
}

/// A number of what is saved of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContextField {
    /// `valid_lbrs`.
    Valid,
    /// `tos`.
    Tos,
    /// `lbr_sel`.
    Select,
    /// `lbr_callstack_users`.
    Users,
    /// `log_id`.
    LogId,
    /// `lbr_stack_state`: 1 if something is saved.
    State,
}

impl ContextField {
    /// Every one with its word.
    pub const NAMED: [(Self, &'static str); 6] = [
        (Self::Valid, "valid_lbrs"),
        (Self::Tos, "tos"),
        (Self::Select, "lbr_sel"),
        (Self::Users, "callstack_users"),
        (Self::LogId, "log_id"),
        (Self::State, "stack_state"),
    ];
}

/// A number of what user space carried last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CarriedField {
    /// MSRs that it read.
    Read,
    /// MSRs that it wrote.
    Written,
    /// MSRs that it could not read or write.
    Refused,
    /// Records that the guest had.
    Records,
    /// Those of which this became.
    RecordsThat(Arrival),
    /// Other registers of the LBR that were not 0, of which this became.
    ControlsThat(Arrival),
}

impl CarriedField {
    /// Every one with its word.
    pub const NAMED: [(Self, &'static str); 12] = [
        (Self::Read, "read"),
        (Self::Written, "written"),
        (Self::Refused, "refused"),
        (Self::Records, "records"),
        (Self::RecordsThat(Arrival::Equal), "records-equal"),
        (Self::RecordsThat(Arrival::Lost), "records-lost"),
        (Self::RecordsThat(Arrival::Foreign), "records-foreign"),
        (Self::RecordsThat(Arrival::Refused), "records-refused"),
        (Self::ControlsThat(Arrival::Equal), "controls-equal"),
        (Self::ControlsThat(Arrival::Lost), "controls-lost"),
        (Self::ControlsThat(Arrival::Foreign), "controls-foreign"),
        (Self::ControlsThat(Arrival::Refused), "controls-refused"),
    ];
}

/// A number that can be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostNumber {
    /// `count`: rows of the ledger since the last `when`.
    Ledger(Actor, LedgerKind, LedgerRegisters),
    /// `note`: rows of the journal since the last `when`.
    Note(String, Note),
    /// `finding`: violations since the last `when`.
    Finding(Rule),
    /// `perf`: of a processor.
    Cpu(u16, CpuField),
    /// `perf callstack_users`: call-stack events of processors that are on.
    CallStackUsers,
    /// `context`: of a task.
    Context(String, ContextField),
    /// `index`: the event's counter.
    Index(EventName),
    /// `filter`: the value of the filter register that the event asks for.
    Filter(EventName),
    /// `read`: what the event counted.
    Read(EventName),
    /// `samples`: how many since the last `when`.
    Samples(EventName),
    /// `stale`: how many of them repeat a stack that was stored before.
    Stale(EventName),
    /// `sample E holds`: entries of the last one.
    SampleHolds(EventName),
    /// `carried`: by the last `msrs get`, `msrs set` or `migrate`.
    Carried(CarriedField),
    /// `vmcs`: a field.
    Vmcs(String, vlbr_arch::vmx::VmcsField),
    /// `check-extension`: of `KVM_CAP_X86_GUEST_LBR`.
    Extension,
    /// `snapshot`: the copy of the host's `IA32_DEBUGCTL`.
    Snapshot(String),
}

/// An entry of a sample.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SampleEntry {
    /// Source.
    pub from: Expr,
    /// Target.
    pub to: Expr,
    /// `mispred`.
    pub mispredicted: bool,
    /// `predicted`.
    pub predicted: bool,
    /// `cycles`.
    pub cycles: Expr,
    /// The class that the software filter found, PERF_BR_*, if said.
    pub class: Option<u8>,
}

/// What must be seen.
#[derive(Clone, Debug, PartialEq)]
pub enum HostCheck {
    /// A number.
    Number(HostNumber, Check),
    /// An event's state, and where it is on; `None`: there is no such event.
    State(EventName, Option<EventState>, Option<u16>),
    /// `read E => eof`.
    Eof(EventName),
    /// Whether accesses of a guest to so many registers pass.
    Passes(String, Register, Expr, bool),
    /// A register of a processor, with its owner if said.
    Register(u16, Register, Check, Option<OwnerName>),
    /// The I-th youngest record in a processor: ends and owner, or empty.
    Entry(u16, Expr, Option<(Expr, Expr, OwnerName)>),
    /// So many entries of the processor are not empty.
    Holds(u16, Expr),
    /// An entry of the last sample.
    Sample(EventName, Expr, SampleEntry),
    /// No rule of ownership was violated.
    NoFindings,
}

/// A step of a host scenario.
#[derive(Clone, Debug, PartialEq)]
pub enum HostStep {
    /// Something happens.
    Act(HostAct),
    /// Something must be seen.
    Check(HostCheck),
}
