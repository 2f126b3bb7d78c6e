//! How an operation ends, as software sees it.

/// A VM exit with what it leaves in the VMCS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) reason: u32,
    pub(crate) qualification: u64,
    pub(crate) interruption: u32,
    pub(crate) error_code: u32,
    pub(crate) idt_vectoring: u32,
    pub(crate) idt_error_code: u32,
    pub(crate) length: u32,
    pub(crate) info: u32,
    pub(crate) linear: u64,
    pub(crate) physical: u64,
    /// The MSR whose access exits: the ledger counts by it, the VMCS does not hold it.
    pub(crate) msr: Option<u32>,
}

/// An event that VM entry delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) info: u32,
    pub(crate) error_code: Option<u32>,
    pub(crate) length: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    Done,
    Value(u64),
    /// `#UD`.
    Undefined,
    /// `#GP(0)`.
    Gp,
    /// What the part does and the model of its counters cannot.
    Refused,
    /// VMfailInvalid.
    FailInvalid,
    /// VMfailValid with this number.
    FailValid(u32),
    /// In non-root operation, where VMX instructions exit.
    WouldExit,
    /// Not in non-root operation, which the operation needs.
    NoGuest,
    ShutDown,
    /// A guest runs, and this event comes first.
    Entered(Option<Event>),
    /// VM entry failed as an exit: reason and qualification.
    EntryFailed(u32, u64),
    /// VM entry failed, and then VMX abort.
    EntryAborted(u32, u64, u32),
    /// The guest's instruction or event exited.
    Exited(Told),
    /// VMX abort with this indicator.
    Aborted(u32),
    /// Nothing exits.
    Stays,
}
