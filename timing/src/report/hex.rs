//! Code in hexadecimal.

/// Bytes of one block at most: more than any block of as many instructions as are taken has.
pub const MAX_BYTES: usize = 15 * crate::lower::MAX_INSTRUCTIONS;

/// Why text is no code in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HexError {
    /// No digit.
    #[error("no hexadecimal digit")]
    Empty,
    /// Half a byte.
    #[error("half a byte at character {0}")]
    Half(usize),
    /// A character that is neither digit nor separator.
    #[error("character {0} is no hexadecimal digit")]
    Digit(usize),
    /// Too many bytes.
    #[error("more than {MAX_BYTES} bytes")]
    TooLong,
}

/// Reads bytes of two hexadecimal digits each. Spaces, line ends and commas may stand between them, and
/// `0x` or `\x` before each. Characters count from 1 on.
///
/// # Errors
/// Anything else; more than [`MAX_BYTES`] bytes.
pub fn parse_hex(text: &str) -> Result<Vec<u8>, HexError> {
    let mut bytes = Vec::new();
    let mut characters = (1..).zip(text.chars()).peekable();
    while let Some((at, first)) = characters.next() {
        if first.is_whitespace() || first == ',' {
            continue;
        }
        if matches!(first, '0' | '\\') && characters.next_if(|&(_, c)| c == 'x').is_some() {
            continue;
        }
        let high = first.to_digit(16).ok_or(HexError::Digit(at))?;
        let low = match characters.next() {
            Some((at, second)) if second.is_whitespace() || second == ',' => {
                return Err(HexError::Half(at - 1));
            }
            Some((at, second)) => second.to_digit(16).ok_or(HexError::Digit(at))?,
            None => return Err(HexError::Half(at)),
        };
        if bytes.len() == MAX_BYTES {
            return Err(HexError::TooLong);
        }
        bytes.push((high * 16 + low) as u8);
    }
    if bytes.is_empty() {
        return Err(HexError::Empty);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_may_stand_apart_and_have_prefixes() {
        for text in [
            "480fafc3",
            "48 0F AF c3",
            " 0x48,0x0f, 0xaf 0xc3\n",
            "\\x48\\x0f\\xaf\\xc3",
            "48\n0faf c3",
        ] {
            assert_eq!(parse_hex(text), Ok(vec![0x48, 0x0f, 0xaf, 0xc3]), "{text}");
        }
    }

    #[test]
    fn errors_name_the_character() {
        for (text, error) in [
            ("", HexError::Empty),
            (" 0x ", HexError::Empty),
            ("480", HexError::Half(3)),
            ("4 80", HexError::Half(1)),
            ("48g0", HexError::Digit(3)),
            ("4é", HexError::Digit(2)),
            ("x48", HexError::Digit(1)),
        ] {
            assert_eq!(parse_hex(text), Err(error), "{text:?}");
        }
        let long = "90".repeat(MAX_BYTES + 1);
        assert_eq!(parse_hex(&long), Err(HexError::TooLong));
        assert_eq!(parse_hex(&long[2..]).map(|b| b.len()), Ok(MAX_BYTES));
    }
}
