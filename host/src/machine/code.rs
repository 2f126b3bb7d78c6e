//! The code that the host's perf decodes.

use std::collections::BTreeMap;

use super::Host;
use crate::TaskId;
use crate::perf::CodeBytes;

/// Instructions of tasks and of the kernel's text, by address. What is not here cannot be read, as
/// if its page were swapped out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Code {
    bytes: BTreeMap<(Option<TaskId>, u64), Vec<u8>>,
}

impl Code {
    /// The bytes of an instruction of a task; `None`: of the kernel.
    pub fn set(&mut self, task: Option<TaskId>, address: u64, bytes: Vec<u8>) {
        self.bytes.insert((task, address), bytes);
    }
}

impl CodeBytes for Code {
    fn bytes(&self, task: Option<TaskId>, address: u64) -> Option<&[u8]> {
        let user = (address as i64) >= 0;
        let whose = match (user, task) {
            (false, _) => None,
            (true, None) => return None,
            (true, task) => task,
        };
        self.bytes.get(&(whose, address)).map(Vec::as_slice)
    }
}

impl Host {
    /// The code that perf decodes, for who knows it.
    #[must_use]
    pub const fn code_mut(&mut self) -> &mut Code {
        &mut self.code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_code_is_its_tasks_and_kernel_text_is_everybodys() {
        let mut code = Code::default();
        let (a, b) = (Some(TaskId(1)), Some(TaskId(2)));
        code.set(a, 0x1000, vec![0xc3]);
        code.set(None, 0xffff_ffff_8100_0000, vec![0xcf]);
        assert_eq!(code.bytes(a, 0x1000), Some(&[0xc3][..]));
        assert_eq!(code.bytes(b, 0x1000), None);
        assert_eq!(code.bytes(None, 0x1000), None);
        assert_eq!(code.bytes(b, 0xffff_ffff_8100_0000), Some(&[0xcf][..]));
    }
}
