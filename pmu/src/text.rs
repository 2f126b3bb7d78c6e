//! Profiles and options as texts.

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

pub(crate) fn parse_toml<T: DeserializeOwned>(text: &str) -> Result<T, TomlError> {
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

#[cfg(test)]
mod tests {
    use crate::{Options, Profile};

    #[test]
    fn what_is_wrong_is_said_on_one_line_with_its_place() {
        for text in [
            Options::from_toml("\n  nonsense = 1")
                .expect_err("no option")
                .to_string(),
            Profile::from_toml("\n  nonsense = 1")
                .expect_err("no profile")
                .to_string(),
        ] {
            assert!(text.contains("line 2, column 3: unknown field"), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
    }
}
