//! What KVM did that is no MSR access.

use core::fmt;
use std::collections::BTreeMap;

use crate::VcpuId;

macro_rules! notes {
    ($( $(#[$doc:meta])* $name:ident = $text:literal, )*) => {
        /// Something that KVM did for a vCPU.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Note {
            $( $(#[$doc])* $name, )*
        }

        impl Note {
            /// Every note with its name.
            pub const NAMED: &'static [(Self, &'static str)] = &[$( (Self::$name, $text), )*];
        }
    };
}

notes! {
    /// The LBR event was created.
    EventCreated = "event created",
    /// Its creation failed.
    CreationFailed = "event creation failed",
    /// It was released.
    EventReleased = "event released",
    /// Accesses to the LBR MSRs pass from now on.
    Opened = "pass-through opened",
    /// They exit from now on.
    Closed = "pass-through closed",
    /// An MSR's bit pair in the bitmap was written.
    InterceptWritten = "MSR intercept written",
    /// `#GP` was injected for an MSR access.
    Gp = "#GP injected",
    /// A read gave 0 instead of the register.
    DummyRead = "read answered with 0",
    /// A write vanished.
    DummyWrite = "write dropped",
    /// `ignore_msrs` swallowed an access to an unknown MSR.
    Ignored = "unknown MSR ignored",
    /// A warning that the guest's LBR does not work, of which the kernel's log shows some.
    Warned = "warning",
    /// WRMSR faulted in the host and was fixed up: the guest sees success without effect.
    HostFault = "fault in the host",
    /// Bits of `IA32_DEBUGCTL` were dropped with a line in the log.
    DebugCtlDropped = "DEBUGCTL bits dropped",
    /// A virtual PMI was delivered.
    VirtualPmi = "virtual PMI",
    /// An exit was handled in the fast path.
    FastPath = "exit in the fast path",
    /// An exit was handled in the run loop.
    RunLoop = "exit in the run loop",
    /// An exit went out to user space.
    UserSpace = "exit to user space",
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMED[*self as usize].1)
    }
}

/// How often each vCPU met what. Counts stop at 2^64 - 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Journal {
    rows: BTreeMap<(VcpuId, Note), u64>,
}

impl Journal {
    /// It happened once more.
    pub fn note(&mut self, vcpu: VcpuId, note: Note) {
        self.add(vcpu, note, 1);
    }

    /// It happened `count` times more.
    pub fn add(&mut self, vcpu: VcpuId, note: Note, count: u64) {
        // Most notes are not the first of their kind, and are found without a place being made.
        let row = match self.rows.get_mut(&(vcpu, note)) {
            Some(row) => row,
            None => self.rows.entry((vcpu, note)).or_default(),
        };
        *row = row.saturating_add(count);
    }

    /// How often.
    #[must_use]
    pub fn count(&self, vcpu: VcpuId, note: Note) -> u64 {
        self.rows.get(&(vcpu, note)).copied().unwrap_or(0)
    }

    /// How often, over all vCPUs.
    #[must_use]
    pub fn total(&self, note: Note) -> u64 {
        let rows = self.rows.iter().filter(|((_, at), _)| *at == note);
        rows.fold(0, |sum: u64, (_, count)| sum.saturating_add(*count))
    }

    /// Every row, by vCPU.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = (VcpuId, Note, u64)> + '_ {
        self.rows
            .iter()
            .map(|(&(vcpu, note), &count)| (vcpu, note, count))
    }
}
