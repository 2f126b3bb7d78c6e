//! The software filter behind the hardware's: `intel_pmu_lbr_filter`.

use vlbr_arch::CodeSize;

use super::BranchRecord;
use crate::perf::filter::{filter_keeps, filter_runs};
use crate::perf::{Perf, X86Br, branch_type};
use crate::{CpuId, TaskId};

/// The code that perf decodes.
pub trait CodeBytes {
    /// The bytes at an address, up to 15 of them, as far as the kernel can read them without a
    /// fault: user memory of `task`, of no task none; above that, the kernel's text.
    fn bytes(&self, task: Option<TaskId>, address: u64) -> Option<&[u8]>;
}

/// No code can be read, as if every page were swapped out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoCode;

impl CodeBytes for NoCode {
    fn bytes(&self, _: Option<TaskId>, _: u64) -> Option<&[u8]> {
        None
    }
}

/// `arch_lbr_br_type_map`, for what the hardware tells; `None` where software has to decode.
fn told(kind: u8) -> Option<X86Br> {
    const KNOWN: [X86Br; 6] = [
        X86Br::JCC,
        X86Br::IND_JMP,
        X86Br::JMP,
        X86Br::IND_CALL,
        X86Br::CALL,
        X86Br::RET,
    ];
    KNOWN.get(usize::from(kind)).copied()
}

impl Perf {
    /// Removes from the processor's branch stack what `br_sel` does not want. Addresses are decoded
    /// in the space of whoever runs there, be they recorded by somebody else.
    pub(super) fn lbr_filter(&mut self, cpu: CpuId, code: &dyn CodeBytes) {
        let (br_sel, task) = (self.cpu(cpu).lbr.br_sel, self.cpu(cpu).current);
        if !filter_runs(br_sel) {
            return;
        }
        let arch = self.model.arch;
        let classify = |record: &BranchRecord| {
            let (from, to) = (record.from.value, record.to.value);
            match told(record.hardware_type).filter(|_| arch) {
                Some(kind) if (to as i64) < 0 => kind.with(X86Br::KERNEL),
                Some(kind) => kind.with(X86Br::USER),
                None => {
                    let bytes = code.bytes(task, from);
                    branch_type(from, to, record.abort, bytes, CodeSize::Bits64)
                }
            }
        };
        let stack = &mut self.cpu_mut(cpu).lbr.stack;
        stack.records.retain_mut(|record| {
            record.kind = classify(record);
            filter_keeps(br_sel, record.kind, record.in_tx)
        });
    }
}
