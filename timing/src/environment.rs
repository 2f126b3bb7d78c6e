//! What is known of registers and memory when a block begins.

/// What is known of registers and memory when a block begins. It decides which stores loads read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Environment {
    /// Nothing: two registers never point to the same bytes.
    #[default]
    Unknown,
    /// As the BHive profiler prepares it (timing-harness of github.com/ithemal/bhive, MIT): every
    /// general-purpose register and every 8 bytes of memory hold one address, RSP and RBP point
    /// into the middle of its page, and all pages are the same physical one.
    Bhive,
}

impl Environment {
    /// Its name in output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Bhive => "bhive",
        }
    }
}

/// The value that BHive's profiler writes everywhere.
pub(crate) const BHIVE_VALUE: i64 = 0x232_4000;
/// RSP: the middle of that page.
pub(crate) const BHIVE_STACK: i64 = BHIVE_VALUE + 2048;
/// RBP: that, rounded down to 32 bytes, less 16.
pub(crate) const BHIVE_FRAME: i64 = BHIVE_STACK - 16;
