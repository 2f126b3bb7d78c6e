//! A VMCS as text.

use core::fmt;
use core::str::FromStr;

use vlbr_arch::vmx::VmcsField;

use crate::{LaunchState, Vmcs};

/// Why a text is no VMCS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DumpError {
    /// A line is not of the form.
    #[error("line {line}: not `FIELD VALUE`, `revision VALUE` or `state clear|launched`")]
    Form {
        /// Line, from 1 on.
        line: usize,
    },
    /// A field that does not exist.
    #[error("line {line}: {name:?} is no VMCS field")]
    UnknownField {
        /// Line, from 1 on.
        line: usize,
        /// What stands there.
        name: String,
    },
    /// A value that is no number.
    #[error("line {line}: {value:?} is no number of at most 64 bits")]
    Number {
        /// Line, from 1 on.
        line: usize,
        /// What stands there.
        value: String,
    },
    /// A value wider than its field.
    #[error("line {line}: {value:#x} does not fit in the {bits} bits of {field}")]
    Width {
        /// Line, from 1 on.
        line: usize,
        /// The field.
        field: VmcsField,
        /// Its width.
        bits: u32,
        /// The value.
        value: u64,
    },
    /// A field, the revision or the state stands twice.
    #[error("line {line}: {name} stands twice")]
    Twice {
        /// Line, from 1 on.
        line: usize,
        /// What does.
        name: String,
    },
    /// The revision identifier is missing or has bit 31.
    #[error("no revision identifier of 31 bits")]
    Revision,
}

impl fmt::Display for Vmcs {
    /// One line for the revision, one for the launch state, one for each field that is not 0.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "revision {:#x}", self.revision)?;
        writeln!(f, "state {}", self.launch)?;
        for (field, name, _) in VmcsField::NAMED {
            let value = self.field(*field);
            if value != 0 {
                writeln!(f, "{name} {value:#x}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Vmcs {
    type Err = DumpError;

    /// Reads what [`Vmcs`] displays. Fields go by name or encoding, 64-bit ones whole; `#` begins a
    /// comment.
    fn from_str(text: &str) -> Result<Self, DumpError> {
        let mut revision = None;
        let mut state = None;
        let mut seen = Vec::new();
        let mut vmcs = Self::new(0);
        for (line, words) in (1..).zip(text.lines()) {
            let words = words.split('#').next().unwrap_or_default();
            let mut words = words.split_ascii_whitespace();
            let (name, value) = match (words.next(), words.next(), words.next()) {
                (None, ..) => continue,
                (Some(name), Some(value), None) => (name, value),
                _ => return Err(DumpError::Form { line }),
            };
            let twice = || DumpError::Twice {
                line,
                name: name.to_owned(),
            };
            match name {
                "revision" => {
                    let number = number(line, value)?;
                    if revision.replace(number).is_some() {
                        return Err(twice());
                    }
                }
                "state" => {
                    let found = match value {
                        "clear" => LaunchState::Clear,
                        "launched" => LaunchState::Launched,
                        _ => return Err(DumpError::Form { line }),
                    };
                    if state.replace(found).is_some() {
                        return Err(twice());
                    }
                }
                _ => {
                    let field = field(line, name)?;
                    if seen.contains(&field) {
                        return Err(twice());
                    }
                    seen.push(field);
                    let value = number(line, value)?;
                    let bits = field.width().bits();
                    if bits < 64 && value >> bits != 0 {
                        return Err(DumpError::Width {
                            line,
                            field,
                            bits,
                            value,
                        });
                    }
                    vmcs.set(field, value);
                }
            }
        }
        vmcs.launch = state.unwrap_or_default();
        vmcs.revision = revision
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| number >> 31 == 0)
            .ok_or(DumpError::Revision)?;
        Ok(vmcs)
    }
}

fn field(line: usize, name: &str) -> Result<VmcsField, DumpError> {
    let unknown = || DumpError::UnknownField {
        line,
        name: name.to_owned(),
    };
    let field: VmcsField = name.parse().map_err(|_| unknown())?;
    let known = VmcsField::NAMED.binary_search_by_key(&field, |(known, ..)| *known);
    known.map(|_| field).map_err(|_| unknown())
}

fn number(line: usize, value: &str) -> Result<u64, DumpError> {
    let (digits, radix) = match value.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (value, 10),
    };
    // The library also takes a sign.
    (!digits.starts_with('+'))
        .then(|| u64::from_str_radix(digits, radix).ok())
        .flatten()
        .ok_or_else(|| DumpError::Number {
            line,
            value: value.to_owned(),
        })
}
