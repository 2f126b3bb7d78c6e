//! The `key=value` words of a line.

use crate::error::LineError;

/// What is left of a line's fields. Each is taken once; in the end none may be left.
pub(crate) struct Fields<'t> {
    words: Vec<(&'t str, &'t str)>,
}

/// Most fields of a line; no line has more than half.
const MAX_FIELDS: usize = 32;

impl<'t> Fields<'t> {
    /// The words after the first ones of a line.
    pub(crate) fn new(words: impl Iterator<Item = &'t str>) -> Result<Self, LineError> {
        let mut fields: Vec<(&str, &str)> = Vec::new();
        for word in words {
            let Some((key, value)) = word.split_once('=') else {
                return Err(LineError::Field(word.to_owned()));
            };
            if fields.len() == MAX_FIELDS {
                return Err(LineError::Field(word.to_owned()));
            }
            if fields.iter().any(|(known, _)| *known == key) {
                return Err(LineError::Twice(key.to_owned()));
            }
            fields.push((key, value));
        }
        Ok(Self { words: fields })
    }

    /// The text of a field.
    pub(crate) fn text(&mut self, field: &'static str) -> Result<&'t str, LineError> {
        let position = self.words.iter().position(|(key, _)| *key == field);
        position
            .map(|position| self.words.remove(position).1)
            .filter(|value| !value.is_empty())
            .ok_or(LineError::Missing(field))
    }

    /// A number of a field, decimal or with `0x`, up to `max`.
    pub(crate) fn number(&mut self, field: &'static str, max: u64) -> Result<u64, LineError> {
        let value = self.text(field)?;
        number(field, value, max)
    }

    /// A number of 32 bits.
    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, LineError> {
        let number = self.number(field, u32::MAX.into())?;
        Ok(u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// Refuses what was not taken.
    pub(crate) fn end(self) -> Result<(), LineError> {
        match self.words.first() {
            None => Ok(()),
            Some((key, _)) => Err(LineError::Field((*key).to_owned())),
        }
    }
}

/// A number, decimal or with `0x`, up to `max`. Signs are no part of one.
pub(crate) fn number(field: &'static str, value: &str, max: u64) -> Result<u64, LineError> {
    let (digits, radix) = match value.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (value, 10),
    };
    let unsigned = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(digits, radix)
        .ok()
        .filter(|number| unsigned && *number <= max)
        .ok_or_else(|| LineError::Number {
            field,
            value: value.to_owned(),
            max,
        })
}
