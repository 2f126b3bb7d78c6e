//! Tables that are read when they are needed.

use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;

use super::{FormTable, TableError};
use crate::ports::PortSet;

/// The texts of a table that comes with the crate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableTexts {
    /// Ports of a form without a line.
    pub(crate) any: PortSet,
    /// Tables, later ones over earlier ones.
    pub(crate) tables: &'static [&'static str],
    /// What was fitted to measurements, over them all.
    pub(crate) fitted: &'static str,
}

impl TableTexts {
    /// The table.
    ///
    /// # Errors
    /// A line that cannot be read.
    pub(crate) fn read(&self) -> Result<FormTable, TableError> {
        let mut table = FormTable::new(self.any);
        for text in self.tables {
            table.extend(text)?;
        }
        table.extend(self.fitted)?;
        table.derive_evex();
        Ok(table)
    }
}

/// A [`FormTable`] that is read when a form is first asked for.
#[derive(Clone, Debug)]
pub struct LazyTable {
    texts: Option<TableTexts>,
    table: OnceLock<FormTable>,
}

impl LazyTable {
    /// The table of `texts`, which the tests of the crate read.
    pub(crate) fn later(texts: TableTexts) -> Self {
        Self {
            texts: Some(texts),
            table: OnceLock::new(),
        }
    }

    /// Whether its texts can be read.
    ///
    /// # Errors
    /// A line that cannot be read.
    #[cfg(test)]
    pub(crate) fn check(&self) -> Result<(), TableError> {
        self.texts.map_or(Ok(()), |texts| texts.read().map(|_| ()))
    }

    fn read(&self) -> FormTable {
        let texts = self.texts.expect("a table, or the texts of one");
        texts.read().expect("built-in data is tested")
    }
}

impl From<FormTable> for LazyTable {
    fn from(table: FormTable) -> Self {
        Self {
            texts: None,
            table: OnceLock::from(table),
        }
    }
}

impl Deref for LazyTable {
    type Target = FormTable;

    #[inline]
    fn deref(&self) -> &FormTable {
        self.table.get_or_init(|| self.read())
    }
}

impl DerefMut for LazyTable {
    fn deref_mut(&mut self) -> &mut FormTable {
        if self.table.get().is_none() {
            self.table = OnceLock::from(self.read());
        }
        self.table.get_mut().expect("it has been read")
    }
}
