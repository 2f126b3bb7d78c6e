//! Sets of values that data files list by name.

use core::fmt;
use core::marker::PhantomData;

use crate::{Named, find};

/// A value of a small closed list, such as the quirks of a device.
pub trait Enumerated: Named + Copy + Sized + 'static {
    /// Every value, by number.
    const ALL: &'static [Self];
    /// What such a value is, as errors say it.
    const KIND: &'static str;
    /// The names, as errors list them.
    const KNOWN: &'static str;

    /// Its number, below 32.
    fn number(self) -> u8;
}

/// A text that names no value of the list.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("no {} is named {name:?} (known: {})", T::KIND, T::KNOWN)]
pub struct UnknownName<T: Enumerated> {
    /// The text.
    pub name: String,
    list: PhantomData<T>,
}

impl<T: Enumerated> fmt::Debug for UnknownName<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UnknownName").field(&self.name).finish()
    }
}

/// The value that `text` names.
///
/// # Errors
/// It names none.
pub fn parse_name<T: Enumerated>(text: &str) -> Result<T, UnknownName<T>> {
    find(T::ALL, text).copied().ok_or_else(|| UnknownName {
        name: text.to_owned(),
        list: PhantomData,
    })
}

/// A set of values of a closed list. In data it is a list of names.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NameSet<T> {
    bits: u32,
    list: PhantomData<T>,
}

impl<T> NameSet<T> {
    /// No value.
    pub const EMPTY: Self = Self {
        bits: 0,
        list: PhantomData,
    };
}

impl<T> Default for NameSet<T> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<T: Enumerated> NameSet<T> {
    const fn of(bits: u32) -> Self {
        Self {
            bits,
            list: PhantomData,
        }
    }

    /// Whether `value` is in it.
    #[must_use]
    pub fn contains(self, value: T) -> bool {
        self.bits & 1 << value.number() != 0
    }

    /// The set with `value`.
    #[must_use]
    pub fn with(self, value: T) -> Self {
        Self::of(self.bits | 1 << value.number())
    }

    /// The set without `value`.
    #[must_use]
    pub fn without(self, value: T) -> Self {
        Self::of(self.bits & !(1 << value.number()))
    }

    /// Its values, by number.
    pub fn iter(self) -> impl Iterator<Item = T> {
        T::ALL
            .iter()
            .copied()
            .filter(move |value| self.contains(*value))
    }
}

impl<T: Enumerated> FromIterator<T> for NameSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        values.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl<T: Enumerated> fmt::Display for NameSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for value in self.iter() {
            write!(f, "{separator}{}", value.name())?;
            separator = ",";
        }
        Ok(())
    }
}

impl<T: Enumerated> fmt::Debug for NameSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NameSet({self})")
    }
}

impl<'de, T: Enumerated> serde::Deserialize<'de> for NameSet<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names
            .iter()
            .map(|name| parse_name(name))
            .collect::<Result<_, _>>()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_toml;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Colour {
        Red,
        Blue,
    }

    impl Named for Colour {
        fn name(&self) -> &str {
            match self {
                Self::Red => "red",
                Self::Blue => "blue",
            }
        }
    }

    impl Enumerated for Colour {
        const ALL: &'static [Self] = &[Self::Red, Self::Blue];
        const KIND: &'static str = "colour";
        const KNOWN: &'static str = "red, blue";

        fn number(self) -> u8 {
            self as u8
        }
    }

    #[derive(Debug, serde::Deserialize)]
    struct Flag {
        colours: NameSet<Colour>,
    }

    #[test]
    fn a_list_of_names_is_a_set_in_the_order_of_the_list() {
        let flag: Flag = parse_toml("colours = ['BLUE', 'red', 'blue']").expect("names");
        assert_eq!(flag.colours.to_string(), "red,blue");
        assert_eq!(
            flag.colours,
            [Colour::Red, Colour::Blue].into_iter().collect()
        );
        let blue = flag.colours.without(Colour::Red);
        assert_eq!(blue, NameSet::EMPTY.with(Colour::Blue));
        assert!(blue.contains(Colour::Blue) && !blue.contains(Colour::Red));
        assert_eq!(format!("{blue:?}"), "NameSet(blue)");
    }

    #[test]
    fn a_name_of_no_value_is_an_error_that_lists_the_names() {
        let error = parse_toml::<Flag>("colours = ['green']").expect_err("no colour");
        assert_eq!(
            error.reason,
            "no colour is named \"green\" (known: red, blue)"
        );
        assert_eq!(
            error.reason,
            parse_name::<Colour>("green")
                .expect_err("no colour")
                .to_string()
        );
    }
}
