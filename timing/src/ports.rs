//! Execution ports and what is sent to them.

use core::fmt;

use thiserror::Error;

/// A set of execution ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortSet(u16);

impl PortSet {
    /// The most ports a microarchitecture can have.
    pub const MAX: usize = 12;

    /// The set of `ports`; numbers from [`PortSet::MAX`] on are left out.
    #[must_use]
    pub fn of(ports: &[u8]) -> Self {
        Self(
            ports
                .iter()
                .filter(|&&p| usize::from(p) < Self::MAX)
                .fold(0, |bits, p| bits | 1 << p),
        )
    }

    /// One bit per port.
    #[must_use]
    pub fn bits(self) -> u16 {
        self.0
    }

    /// Number of ports.
    #[must_use]
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether it has no port.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The ports of either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The ports of both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether each of its ports is in `other`.
    #[must_use]
    pub fn within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// The set that digits name: `0156`. Ports 10 and 11 are `a` and `b`.
    ///
    /// # Errors
    /// No digit, or a character that is no port.
    pub fn parse(text: &str) -> Result<Self, UopError> {
        let error = || UopError(text.to_owned());
        let mut set = Self::default();
        for character in text.chars() {
            let port = character.to_digit(16).ok_or_else(error)?;
            if port as usize >= Self::MAX {
                return Err(error());
            }
            set.0 |= 1 << port;
        }
        if set.is_empty() {
            Err(error())
        } else {
            Ok(set)
        }
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..Self::MAX)
            .filter(|port| self.0 & 1 << port != 0)
            .try_for_each(|port| write!(f, "{port:x}"))
    }
}

/// Text that names no micro-operations.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} are no ports: write 0156, 2*06+1, or - for none")]
pub struct UopError(pub String);

/// How many micro-operations go to which ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortUse {
    parts: [(PortSet, u16); Self::PARTS],
    used: u8,
}

impl PortUse {
    /// The most different sets one form can use.
    const PARTS: usize = 6;

    /// One micro-operation on any of `ports`.
    #[must_use]
    pub fn one(ports: PortSet) -> Self {
        let mut result = Self::default();
        result.push(ports, 1);
        result
    }

    /// Sets with the number of micro-operations of each.
    #[must_use]
    pub fn parts(&self) -> &[(PortSet, u16)] {
        &self.parts[..usize::from(self.used)]
    }

    /// Whether some go to exactly `ports`.
    #[must_use]
    pub fn has(&self, ports: PortSet) -> bool {
        self.parts().iter().any(|(set, _)| *set == ports)
    }

    /// Number of micro-operations.
    #[must_use]
    pub fn total(&self) -> u16 {
        self.parts().iter().map(|(_, count)| count).sum()
    }

    /// Whether there is room for it.
    fn push(&mut self, ports: PortSet, count: u16) -> bool {
        let Some(part) = self.parts.get_mut(usize::from(self.used)) else {
            return false;
        };
        *part = (ports, count);
        self.used += 1;
        true
    }

    /// The same with one more micro-operation on `ports`, if there is room.
    #[must_use]
    pub fn with(mut self, ports: PortSet) -> Self {
        match self.parts().iter().position(|(set, _)| *set == ports) {
            Some(at) => self.parts[at].1 += 1,
            None => {
                self.push(ports, 1);
            }
        }
        self
    }

    /// The same with one micro-operation less of part `at`.
    #[must_use]
    pub fn less(self, at: usize) -> Self {
        let mut result = Self::default();
        for (index, &(ports, count)) in self.parts().iter().enumerate() {
            let count = if index == at { count - 1 } else { count };
            if count > 0 {
                result.push(ports, count);
            }
        }
        result
    }

    /// The same with one micro-operation of part `at` on `ports` instead.
    #[must_use]
    pub fn moved(self, at: usize, ports: PortSet) -> Self {
        self.less(at).with(ports)
    }

    /// The same on other ports: `to` says which for each set.
    #[must_use]
    pub fn mapped(self, to: impl Fn(PortSet) -> PortSet) -> Self {
        let mut result = Self::default();
        for &(ports, count) in self.parts() {
            let ports = to(ports);
            match result.parts().iter().position(|(set, _)| *set == ports) {
                Some(at) => result.parts[at].1 += count,
                None => {
                    result.push(ports, count);
                }
            }
        }
        result
    }

    /// Reads `2*0156+1`, or `-` for none.
    ///
    /// # Errors
    /// Text of another form, or too many sets.
    pub fn parse(text: &str) -> Result<Self, UopError> {
        let mut result = Self::default();
        if text == "-" {
            return Ok(result);
        }
        for part in text.split('+') {
            let (count, ports) = match part.split_once('*') {
                Some((count, ports)) => {
                    let count = count.parse().ok().filter(|n| (1..1000).contains(n));
                    (count.ok_or_else(|| UopError(text.to_owned()))?, ports)
                }
                None => (1, part),
            };
            if !result.push(PortSet::parse(ports)?, count) {
                return Err(UopError(text.to_owned()));
            }
        }
        Ok(result)
    }
}

impl fmt::Display for PortUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.used == 0 {
            return f.write_str("-");
        }
        for (index, (ports, count)) in self.parts().iter().enumerate() {
            if index > 0 {
                f.write_str("+")?;
            }
            if *count != 1 {
                write!(f, "{count}*")?;
            }
            write!(f, "{ports}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_value_agree() {
        for text in ["-", "0156", "3*06", "2*0156+1+49"] {
            assert_eq!(PortUse::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(PortUse::parse("2*0156+1").unwrap().total(), 3);
        for text in ["", "+", "0*1", "c", "x", "1+2+3+4+5+6+7"] {
            assert!(PortUse::parse(text).is_err(), "{text}");
        }
    }
}
