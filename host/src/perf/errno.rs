//! What perf answers when it refuses.

use core::fmt;

use super::FilterError;

macro_rules! errnos {
    ($( $(#[$doc:meta])* $name:ident = $number:literal, )*) => {
        /// Why perf refuses: the error numbers of `perf_event_open` and of
        /// `perf_event_create_kernel_counter`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Errno {
            $( $(#[$doc])* $name = $number, )*
        }

        impl Errno {
            /// Every one that can occur.
            pub const ALL: &'static [Self] = &[$( Self::$name, )*];

            /// Its symbol.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$name => stringify!($name), )*
                }
            }
        }
    };
}

errnos! {
    /// No such event: it was released.
    ENOENT = 2,
    /// The task is dying or gone.
    ESRCH = 3,
    /// An exclusive facility has another user.
    EBUSY = 16,
    /// The processor is offline or does not exist.
    ENODEV = 19,
    /// The attributes contradict each other, or the group can never be on.
    EINVAL = 22,
    /// No number is left for an event.
    ENOSPC = 28,
    /// The processor cannot do it.
    EOPNOTSUPP = 95,
}

impl Errno {
    /// The number, without a sign.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "-{}", self.name())
    }
}

impl core::error::Error for Errno {}

impl From<FilterError> for Errno {
    fn from(error: FilterError) -> Self {
        match error {
            FilterError::NotSupported { .. } => Self::EOPNOTSUPP,
            FilterError::Invalid(_) => Self::EINVAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perf::{LbrFilter, parse_branch_filter};
    use vlbr_lbr::Profile;

    #[test]
    fn the_numbers_of_filters_are_the_same() {
        for (part, filter) in [("ivy-bridge", "stack,u"), ("haswell", "stack,any_call,u")] {
            let bits = parse_branch_filter(filter).unwrap();
            let error = LbrFilter::new(Profile::named(part).unwrap(), bits).unwrap_err();
            let number = error.errno();
            assert_eq!(-i32::from(Errno::from(error).number()), number, "{part}");
        }
    }
}
