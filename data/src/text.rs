//! Texts in TOML.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Depth {
        depth: u8,
    }

    #[test]
    fn what_is_wrong_is_said_on_one_line_with_its_place() {
        for (text, place) in [
            ("\n  nonsense = 1", "line 2, column 3: unknown field"),
            ("= =", "line 1, column 3: "),
            ("depth = 256", "line 1, column 9: "),
            (
                "# \u{e9}\u{e9}\ndepth = \"\u{e9}\" x",
                "line 2, column 13: ",
            ),
        ] {
            let text = parse_toml::<Depth>(text)
                .expect_err("not of this form")
                .to_string();
            assert!(text.starts_with(place), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn a_text_of_the_form_is_its_value() {
        let read: Depth = parse_toml("depth = 32").expect("of this form");
        assert_eq!(read.depth, 32);
    }
}
