//! Data files in TOML.

use serde::de::DeserializeOwned;

/// Where and why a text is no such TOML, on one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct TomlError {
    /// Line, from 1 on.
    pub line: usize,
    /// Character of the line, from 1 on.
    pub column: usize,
    /// What is wrong there.
    pub reason: String,
}

/// Reads a value from TOML.
///
/// # Errors
/// Text that is not TOML, or not of this form.
pub fn parse_toml<T: DeserializeOwned>(text: &str) -> Result<T, TomlError> {
    toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let before = text.get(..offset).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        TomlError {
            line: 1 + before.bytes().filter(|&byte| byte == b'\n').count(),
            column: 1 + line.chars().count(),
            reason: error.message().trim_end().replace('\n', ", "),
        }
    })
}
