//! Versions of the kernel.

use core::fmt;
use core::str::FromStr;

/// A version of Linux, as `uname -r` begins. A stable series counts its patches: 5.15.85.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelVersion {
    /// The first number.
    pub major: u16,
    /// The second.
    pub minor: u16,
    /// The third, 0 for a first release.
    pub patch: u16,
}

impl KernelVersion {
    /// `major.minor.patch`.
    #[must_use]
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// Whether this is `major.minor` or a later one, patches of the stable series left aside.
    #[must_use]
    pub fn since(self, major: u16, minor: u16) -> bool {
        (self.major, self.minor) >= (major, minor)
    }

    /// Whether this is of the stable series `major.minor` with at least so many patches.
    #[must_use]
    pub fn stable(self, major: u16, minor: u16, patch: u16) -> bool {
        (self.major, self.minor) == (major, minor) && self.patch >= patch
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        match self.patch {
            0 => Ok(()),
            patch => write!(f, ".{patch}"),
        }
    }
}

/// A text that is no version of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version of Linux: 5.4 or 5.15.85, for instance")]
pub struct VersionError(
    /// The text.
    pub String,
);

impl FromStr for KernelVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let wrong = || VersionError(text.to_owned());
        let mut numbers = [0; 3];
        let mut parts = text.split('.');
        for (n, number) in numbers.iter_mut().enumerate() {
            *number = match parts.next() {
                Some(part) if part.bytes().all(|byte| byte.is_ascii_digit()) => {
                    part.parse().map_err(|_| wrong())?
                }
                None if n == 2 => 0,
                _ => return Err(wrong()),
            };
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        let [major, minor, patch] = numbers;
        Ok(Self::new(major, minor, patch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_printed() {
        for text in ["5.4", "5.15.85", "6.16"] {
            assert_eq!(text.parse::<KernelVersion>().unwrap().to_string(), text);
        }
        for text in [
            "", "5", "5.", "5.4.", "5.4.1.2", "5.x", "v5.4", "5.-4", "5.70000", "5.+4",
        ] {
            assert!(text.parse::<KernelVersion>().is_err(), "{text}");
        }
    }

    #[test]
    fn versions_are_ordered_by_number_and_not_by_text() {
        let [old, new] = ["5.9", "5.10.198"].map(|text| text.parse::<KernelVersion>().unwrap());
        assert!(old < new && new.since(5, 10) && !old.since(5, 10));
        assert!(new.stable(5, 10, 82) && !new.stable(5, 10, 199) && !new.stable(5, 15, 0));
    }
}
