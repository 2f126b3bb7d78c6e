//! Who accesses.

use core::fmt;

macro_rules! actors {
    ($( $(#[$doc:meta])* $name:ident = $text:literal, )*) => {
        /// On whose behalf an access is made.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Actor {
            $( $(#[$doc])* $name, )*
        }

        impl Actor {
            /// Every actor with its name.
            pub const NAMED: &'static [(Self, &'static str)] = &[$( (Self::$name, $text), )*];
        }
    };
}

actors! {
    /// The guest, without an exit.
    Guest = "guest",
    /// The host: enabling, disabling and whatever has no actor of its own.
    Host = "host",
    /// The host saves a context.
    HostSave = "host save",
    /// The host restores a context.
    HostRestore = "host restore",
    /// The host empties the LBR.
    HostReset = "host reset",
    /// The host's handler of a PMI.
    HostPmi = "host PMI",
    /// The hypervisor's handler of an exit.
    ExitHandler = "exit handler",
    /// The hypervisor around VM entry and exit.
    WorldSwitch = "world switch",
    /// The processor itself, at VM entry and exit.
    Hardware = "hardware",
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMED[*self as usize].1)
    }
}
