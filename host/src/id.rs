//! Numbers of what the host has.

use core::fmt;

macro_rules! ids {
    ($( $(#[$doc:meta])* $name:ident($inner:ty) = $word:literal, )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub struct $name(pub $inner);

            impl $name {
                /// As an index.
                #[must_use]
                pub const fn index(self) -> usize {
                    self.0 as usize
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    write!(f, concat!($word, "{}"), self.0)
                }
            }
        )*
    };
}

ids! {
    /// A logical processor of the host.
    CpuId(u16) = "cpu",
    /// A task of the host; a vCPU's thread is one.
    TaskId(u32) = "task",
    /// A virtual machine.
    VmId(u16) = "vm",
    /// A virtual processor, numbered over all virtual machines.
    VcpuId(u16) = "vcpu",
}
