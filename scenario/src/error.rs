//! Why a text is no scenario.

use std::path::PathBuf;

/// A file that is no scenario, with the line that says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {reason}", file.display())]
pub struct ParseError {
    /// The file.
    pub file: PathBuf,
    /// Line number from 1; 1 where the file as a whole is meant.
    pub line: usize,
    /// What is wrong.
    pub reason: Reason,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The first line is not `scenario 1`.
    #[error("the first line must be \"scenario 1\", the version of the form")]
    Version,
    /// The name is not `NNN-name.scn`.
    #[error("the file must be named NNN-name.scn, with a number and lower-case words")]
    FileName,
    /// The number lies outside the area's.
    #[error("number {number} is not one of area {area}: {first} to {last}")]
    NumberOfArea {
        /// The file's number.
        number: u32,
        /// The area named in the file.
        area: &'static str,
        /// First number of the area.
        first: u32,
        /// Last number of the area.
        last: u32,
    },
    /// A header line with an unknown key.
    #[error("unknown header {0:?}")]
    UnknownHeader(String),
    /// A header that must be there is not.
    #[error("no {0}: line")]
    MissingHeader(&'static str),
    /// A header that may stand once stands twice or is empty.
    #[error("{0}: must stand once and not be empty")]
    HeaderOnce(&'static str),
    /// An area of no known name.
    #[error("unknown area {0:?}")]
    UnknownArea(String),
    /// A term of `profiles:` that names nothing.
    #[error("{0:?} names no profile and no group of profiles")]
    UnknownProfile(String),
    /// No profile is left.
    #[error("no profile is affected")]
    NoProfile,
    /// A policy of no known name, or a version that is none.
    #[error("{0}")]
    Policy(String),
    /// A header of hosts in another area.
    #[error("{0}: is a header of areas host and contract")]
    HeaderOfHost(&'static str),
    /// The options are not those of the device.
    #[error("{0}")]
    Options(String),
    /// A quirk of no known name.
    #[error("{0}")]
    Quirk(String),
    /// A step before `given`, `when` or `then`.
    #[error("{0:?} stands before \"given\", \"when\" or \"then\"")]
    OutsideBlock(String),
    /// No block at all, or none that expects anything.
    #[error("nothing is expected: there must be a \"then\" with steps, or outcomes")]
    NothingExpected,
    /// A word that has no meaning where it stands.
    #[error("unknown word {word:?}, expected {expected}")]
    UnknownWord {
        /// The word.
        word: String,
        /// What could have stood there.
        expected: &'static str,
    },
    /// The line ends too early.
    #[error("the line ends, expected {0}")]
    Incomplete(&'static str),
    /// Words behind the end of a step.
    #[error("{0:?} is left over")]
    LeftOver(String),
    /// A step that its block does not allow.
    #[error("{what} cannot stand under \"{block}\"")]
    WrongBlock {
        /// The kind of step.
        what: &'static str,
        /// The block.
        block: &'static str,
    },
    /// A branch under `when` without `=>`.
    #[error("a branch under \"when\" must say what becomes of it: => recorded, popped or ignored")]
    NoOutcome,
    /// No register has this name.
    #[error("no register is named {0:?}")]
    UnknownRegister(String),
    /// No VMCS field has this name.
    #[error("no VMCS field is named {0:?}")]
    UnknownField(String),
    /// Not an expression.
    #[error("{0:?} is no value")]
    BadValue(String),
    /// The file is larger than [`crate::MAX_FILE_BYTES`], or a line is too long.
    #[error("more than {0} bytes")]
    TooLong(usize),
    /// Not UTF-8 text, or with control characters.
    #[error("not a text of printable characters")]
    NotText,
    /// The file could not be read.
    #[error("{0}")]
    Io(String),
}
