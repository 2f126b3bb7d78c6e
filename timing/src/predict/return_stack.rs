//! The return stack.

use super::config::{ReturnStackConfig, Underflow};

/// Return addresses of the calls that have not returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReturnStack {
    addresses: Vec<u64>,
    /// Where the next call stores.
    top: usize,
    /// Calls that it holds, at most its size.
    depth: usize,
    underflow: Underflow,
    zero_length_calls: bool,
}

impl ReturnStack {
    pub(crate) fn new(config: &ReturnStackConfig) -> Self {
        Self {
            addresses: vec![0; config.entries as usize],
            top: 0,
            depth: 0,
            underflow: config.underflow,
            zero_length_calls: config.zero_length_calls,
        }
    }

    /// A call of `target` that will return to `behind`.
    pub(crate) fn call(&mut self, behind: u64, target: u64) {
        if self.addresses.is_empty() || (behind == target && !self.zero_length_calls) {
            return;
        }
        self.addresses[self.top] = behind;
        self.top += 1;
        if self.top == self.addresses.len() {
            self.top = 0;
        }
        self.depth = (self.depth + 1).min(self.addresses.len());
    }

    /// Where a return is predicted to go; `None`: the stack does not say.
    pub(crate) fn predict_return(&mut self) -> Option<u64> {
        if self.addresses.is_empty() || (self.depth == 0 && self.underflow == Underflow::Indirect) {
            return None;
        }
        self.depth = self.depth.saturating_sub(1);
        self.top = self.top.checked_sub(1).unwrap_or(self.addresses.len() - 1);
        Some(self.addresses[self.top])
    }
}
