//! How a register of single-bit flags is declared.

/// Declares a newtype over `u64`, or the type behind the colon, whose named bits are associated
/// constants.
macro_rules! register_bits {
    (
        $(#[$meta:meta])*
        $name:ident { $($bits:tt)* }
    ) => {
        register_bits! { $(#[$meta])* $name: u64 { $($bits)* } }
    };
    (
        $(#[$meta:meta])*
        $name:ident: $repr:ty {
            $( $(#[$bit_meta:meta])* $bit:ident = $position:literal, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($repr);

        impl $name {
            $( $(#[$bit_meta])* pub const $bit: Self = Self(1 << $position); )*

            /// Every named bit with its name, lowest first.
            pub const NAMED: &'static [(Self, &'static str)] =
                &[$( (Self::$bit, stringify!($bit)), )*];

            /// The register with this value; bits without a name are kept.
            #[must_use]
            pub const fn from_bits(bits: $repr) -> Self {
                Self(bits)
            }

            /// The value, as RDMSR or VMREAD returns it.
            #[must_use]
            pub const fn bits(self) -> $repr {
                self.0
            }

            /// No bit is set.
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// Every bit of `other` is set.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// At least one bit of `other` is set.
            #[must_use]
            pub const fn intersects(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }

            /// The bits of both.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// The bits of `self` that `other` does not have.
            #[must_use]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }

            /// The bit with this name (as in [`Self::NAMED`], in any case), or `None`.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::NAMED
                    .iter()
                    .find(|(_, known)| known.eq_ignore_ascii_case(name))
                    .map(|(bit, _)| *bit)
            }
        }

        impl core::ops::BitOr for $name {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                self.with(other)
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                let mut rest = self.0;
                let mut separator = "";
                for (bit, name) in Self::NAMED {
                    if rest & bit.0 != 0 {
                        write!(f, "{separator}{name}")?;
                        separator = "|";
                        rest &= !bit.0;
                    }
                }
                if rest != 0 || self.0 == 0 {
                    write!(f, "{separator}{rest:#x}")?;
                }
                Ok(())
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x} {})"), self.0, self)
            }
        }
    };
}

pub(crate) use register_bits;
