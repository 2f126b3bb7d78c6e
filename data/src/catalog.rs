//! Data files that come with a crate.

use std::sync::OnceLock;

use crate::{Named, find};

/// Reads one text of a catalog.
type Parse<T, E> = fn(&str) -> Result<T, E>;

/// The data files that come with a crate, read when they are first asked for.
#[derive(Debug)]
pub struct Catalog<T: 'static, E> {
    texts: &'static [&'static str],
    parse: Parse<T, E>,
    items: OnceLock<Vec<T>>,
}

/// What is wrong with a catalog.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError<E: core::error::Error + 'static> {
    /// A text cannot be read.
    #[error("text {number}: {source}")]
    Text {
        /// Its number, from 1 on.
        number: usize,
        /// Why.
        source: E,
    },
    /// Two items go by one name.
    #[error("{0:?} is the name of two")]
    Twice(String),
}

impl<T: Named, E: core::error::Error + 'static> Catalog<T, E> {
    /// A catalog of `texts`, in this order.
    #[must_use]
    pub const fn new(texts: &'static [&'static str], parse: Parse<T, E>) -> Self {
        Self {
            texts,
            parse,
            items: OnceLock::new(),
        }
    }

    /// Every item.
    ///
    /// # Panics
    /// A text cannot be read: the tests of the crate that owns it call [`Catalog::check`].
    pub fn all(&'static self) -> &'static [T] {
        let parse = |text: &&str| (self.parse)(text).expect("built-in data is tested");
        self.items
            .get_or_init(|| self.texts.iter().map(parse).collect())
    }

    /// The item that `text` means.
    pub fn named(&'static self, text: &str) -> Option<&'static T> {
        find(self.all(), text)
    }

    /// The names, with a space between, as errors list them.
    pub fn names(&'static self) -> String {
        let names: Vec<&str> = self.all().iter().map(Named::name).collect();
        names.join(" ")
    }

    /// Whether every text can be read and every name means the item that has it.
    ///
    /// # Errors
    /// The first text or name of which that is not so.
    pub fn check(&'static self) -> Result<(), CatalogError<E>> {
        for (number, text) in (1..).zip(self.texts) {
            (self.parse)(text).map_err(|source| CatalogError::Text { number, source })?;
        }
        for item in self.all() {
            let name = item.name();
            if self
                .all()
                .iter()
                .filter(|item| item.is_called(name))
                .count()
                > 1
            {
                return Err(CatalogError::Twice(name.to_owned()));
            }
        }
        Ok(())
    }
}

/// The texts of the TOML files with these names in a folder, which is relative to the file that
/// says so.
#[macro_export]
macro_rules! texts {
    ($folder:literal: $($name:literal)*) => {
        &[$(include_str!(concat!($folder, "/", $name, ".toml"))),*]
    };
}

/// Like [`texts!`], each with its name.
#[macro_export]
macro_rules! named_texts {
    ($folder:literal: $($name:literal)*) => {
        &[$(($name, include_str!(concat!($folder, "/", $name, ".toml")))),*]
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TomlError, parse_toml};

    #[derive(Debug, PartialEq, Eq, serde::Deserialize)]
    struct Part {
        name: String,
        alias: String,
    }

    impl Named for Part {
        fn name(&self) -> &str {
            &self.name
        }

        fn is_called(&self, text: &str) -> bool {
            [&self.name, &self.alias].contains(&&text.to_ascii_lowercase())
        }
    }

    type Parts = Catalog<Part, TomlError>;

    #[test]
    fn every_name_finds_its_item_and_others_nothing() {
        static PARTS: Parts = Catalog::new(
            &[
                "name = 'skylake'\nalias = 'skl'",
                "name = 'haswell'\nalias = 'hsw'",
            ],
            parse_toml,
        );
        assert_eq!(PARTS.check(), Ok(()));
        assert_eq!(PARTS.names(), "skylake haswell");
        for name in ["haswell", "HSW"] {
            assert_eq!(PARTS.named(name), Some(&PARTS.all()[1]));
        }
        assert_eq!(PARTS.named("tiger-lake"), None);
    }

    #[test]
    fn a_text_that_cannot_be_read_and_a_name_of_two_are_found() {
        static BROKEN: Parts = Catalog::new(&["name = 'a'\nalias = 'b'", "name = 1"], parse_toml);
        static TWICE: Parts = Catalog::new(
            &["name = 'a'\nalias = 'b'", "name = 'b'\nalias = 'c'"],
            parse_toml,
        );
        let text = BROKEN.check().expect_err("a number").to_string();
        assert!(text.starts_with("text 2: line 1, column 8: "), "{text}");
        assert_eq!(TWICE.check(), Err(CatalogError::Twice("b".to_owned())));
    }
}
