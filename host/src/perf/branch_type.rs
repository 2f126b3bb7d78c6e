//! perf's idea of a branch's type, decoded from the instruction at FROM.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};
use vlbr_arch::{CodeSize, Transfer};

/// X86_BR_* bits. Linux `arch/x86/events/perf_event.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct X86Br(u32);

impl X86Br {
    /// Not a branch, or not to be told.
    pub const NONE: Self = Self(0);
    /// The target is at user level.
    pub const USER: Self = Self(1);
    /// The target is at kernel level.
    pub const KERNEL: Self = Self(1 << 1);
    /// Call.
    pub const CALL: Self = Self(1 << 2);
    /// Return.
    pub const RET: Self = Self(1 << 3);
    /// SYSCALL, SYSENTER.
    pub const SYSCALL: Self = Self(1 << 4);
    /// SYSRET, SYSEXIT.
    pub const SYSRET: Self = Self(1 << 5);
    /// INT n, INT3, INTO.
    pub const INT: Self = Self(1 << 6);
    /// IRET.
    pub const IRET: Self = Self(1 << 7);
    /// Conditional jump.
    pub const JCC: Self = Self(1 << 8);
    /// Jump.
    pub const JMP: Self = Self(1 << 9);
    /// Interrupt or exception from user level.
    pub const IRQ: Self = Self(1 << 10);
    /// Indirect call.
    pub const IND_CALL: Self = Self(1 << 11);
    /// Transaction abort.
    pub const ABORT: Self = Self(1 << 12);
    /// In a transaction.
    pub const IN_TX: Self = Self(1 << 13);
    /// Outside a transaction.
    pub const NO_TX: Self = Self(1 << 14);
    /// Zero-length call.
    pub const ZERO_CALL: Self = Self(1 << 15);
    /// Marker of a call-stack request.
    pub const CALL_STACK: Self = Self(1 << 16);
    /// Indirect jump.
    pub const IND_JMP: Self = Self(1 << 17);
    /// Marker of a type-save request.
    pub const TYPE_SAVE: Self = Self(1 << 18);

    /// Both privilege levels.
    pub const PRIVILEGES: Self = Self(0b11);
    /// X86_BR_ANY: every type.
    pub const ANY: Self = Self(
        Self::CALL.0
            | Self::RET.0
            | Self::SYSCALL.0
            | Self::SYSRET.0
            | Self::INT.0
            | Self::IRET.0
            | Self::JCC.0
            | Self::JMP.0
            | Self::IRQ.0
            | Self::ABORT.0
            | Self::IND_CALL.0
            | Self::IND_JMP.0
            | Self::ZERO_CALL.0,
    );

    /// The raw bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Without the bits of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any bit of `other` is set.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// The type of the instruction at FROM by its opcode. Linux `decode_branch_type`.
fn decoded(instruction: &Instruction) -> X86Br {
    match instruction.mnemonic() {
        Mnemonic::INVALID => return X86Br::ABORT,
        Mnemonic::Syscall | Mnemonic::Sysenter => return X86Br::SYSCALL,
        Mnemonic::Sysret | Mnemonic::Sysretq | Mnemonic::Sysexit | Mnemonic::Sysexitq => {
            return X86Br::SYSRET;
        }
        Mnemonic::Ret | Mnemonic::Retf => return X86Br::RET,
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => return X86Br::IRET,
        Mnemonic::Int | Mnemonic::Int3 | Mnemonic::Into => return X86Br::INT,
        _ => {}
    }
    match instruction.flow_control() {
        FlowControl::ConditionalBranch => X86Br::JCC,
        FlowControl::UnconditionalBranch => X86Br::JMP,
        FlowControl::IndirectBranch => X86Br::IND_JMP,
        FlowControl::IndirectCall => X86Br::IND_CALL,
        FlowControl::Call if instruction.is_call_far() => X86Br::CALL,
        FlowControl::Call if instruction.is_call_near() => {
            if instruction.near_branch_target() == instruction.next_ip() {
                X86Br::ZERO_CALL
            } else {
                X86Br::CALL
            }
        }
        _ => X86Br::NONE,
    }
}

/// Start of the kernel half of the address space, as `kernel_ip` has it on 64-bit kernels.
const fn kernel_ip(ip: u64) -> bool {
    (ip as i64) < 0
}

/// perf's type of an entry from `from` to `to`, with the privilege bit of the target.
///
/// `code` are the bytes at FROM as far as perf could read them: `None` if it cannot (unmapped,
/// masked, not kernel text). Linux `branch_type` / `get_branch_type`.
#[must_use]
pub fn branch_type(from: u64, to: u64, abort: bool, code: Option<&[u8]>, size: CodeSize) -> X86Br {
    if from == 0 || to == 0 {
        return X86Br::NONE;
    }
    let level = if kernel_ip(to) {
        X86Br::KERNEL
    } else {
        X86Br::USER
    };
    if abort {
        return X86Br::ABORT.with(level);
    }
    let Some(code) = code.filter(|code| !code.is_empty()) else {
        return X86Br::NONE;
    };
    let bits = size.bits();
    let kind = decoded(&Decoder::with_ip(bits, code, from, DecoderOptions::NONE).decode());
    let kind = if !kernel_ip(from) && kernel_ip(to) && kind != X86Br::SYSCALL && kind != X86Br::INT
    {
        X86Br::IRQ
    } else {
        kind
    };
    if kind == X86Br::NONE {
        kind
    } else {
        kind.with(level)
    }
}

/// PERF_BR_* number of a type, for PERF_SAMPLE_BRANCH_TYPE_SAVE. Linux `common_branch_type`.
#[must_use]
pub fn perf_branch_type(kind: X86Br) -> u8 {
    const MAP: [(X86Br, u8); 11] = [
        (X86Br::CALL, 4),
        (X86Br::RET, 6),
        (X86Br::SYSCALL, 7),
        (X86Br::SYSRET, 8),
        (X86Br::IRET, 11),
        (X86Br::JCC, 1),
        (X86Br::JMP, 2),
        (X86Br::IRQ, 12),
        (X86Br::IND_CALL, 5),
        (X86Br::ZERO_CALL, 4),
        (X86Br::IND_JMP, 3),
    ];
    MAP.iter()
        .find(|(bit, _)| kind.contains(*bit))
        .map_or(0, |(_, number)| *number)
}

/// Bytes that stand for the instruction of a transfer whose code the trace does not hold (the
/// kernel behind a user-mode recording): an instruction of its class.
#[must_use]
pub fn stand_in(transfer: &Transfer) -> Option<&'static [u8]> {
    use vlbr_arch::{BranchClass, FarKind};
    match transfer.class {
        BranchClass::Far(FarKind::Sysret) => Some(&[0x48, 0x0f, 0x07]),
        BranchClass::Far(FarKind::Iret) => Some(&[0x48, 0xcf]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_numbers_are_those_of_the_perf_abi() {
        // PERF_BR_* of uapi/linux/perf_event.h.
        let user = X86Br::USER;
        for (kind, number) in [
            (X86Br::JCC, 1),
            (X86Br::JMP, 2),
            (X86Br::IND_JMP, 3),
            (X86Br::CALL, 4),
            (X86Br::ZERO_CALL, 4),
            (X86Br::IND_CALL, 5),
            (X86Br::RET, 6),
            (X86Br::SYSCALL, 7),
            (X86Br::SYSRET, 8),
            (X86Br::IRET, 11),
            (X86Br::IRQ, 12),
            (X86Br::NONE, 0),
        ] {
            assert_eq!(perf_branch_type(kind.with(user)), number, "{kind:?}");
        }
    }

    const USER: u64 = 0x40_1000;
    const KERNEL: u64 = 0xffff_ffff_8100_0000;

    fn kind(from: u64, to: u64, code: &[u8]) -> X86Br {
        branch_type(from, to, false, Some(code), CodeSize::Bits64)
    }

    #[test]
    fn opcodes_as_perf_decodes_them() {
        let user = X86Br::USER;
        assert_eq!(kind(USER, USER, &[0x74, 0]), X86Br::JCC.with(user));
        assert_eq!(kind(USER, USER, &[0xe2, 0xfe]), X86Br::JCC.with(user));
        assert_eq!(
            kind(USER, USER, &[0xe8, 0, 0, 0, 0]),
            X86Br::ZERO_CALL.with(user)
        );
        assert_eq!(
            kind(USER, USER, &[0xe8, 1, 0, 0, 0]),
            X86Br::CALL.with(user)
        );
        assert_eq!(kind(USER, USER, &[0xff, 0xe0]), X86Br::IND_JMP.with(user));
        assert_eq!(kind(USER, USER, &[0xff, 0x18]), X86Br::IND_CALL.with(user));
        assert_eq!(kind(USER, USER, &[0xcb]), X86Br::RET.with(user));
        assert_eq!(kind(KERNEL, USER, &[0x48, 0xcf]), X86Br::IRET.with(user));
        assert_eq!(kind(USER, USER, &[0x06]), X86Br::ABORT.with(user));
        assert_eq!(kind(USER, USER, &[0x90]), X86Br::NONE);
    }

    #[test]
    fn entry_from_user_is_an_interrupt_unless_a_system_call() {
        assert_eq!(kind(USER, KERNEL, &[0x90]), X86Br::IRQ.with(X86Br::KERNEL));
        assert_eq!(
            kind(USER, KERNEL, &[0x74, 0]),
            X86Br::IRQ.with(X86Br::KERNEL)
        );
        for int in [&[0xcd, 0x80][..], &[0xcc]] {
            assert_eq!(kind(USER, KERNEL, int), X86Br::INT.with(X86Br::KERNEL));
        }
        let sysenter = kind(USER, KERNEL, &[0x0f, 0x34]);
        assert_eq!(sysenter, X86Br::SYSCALL.with(X86Br::KERNEL));
        let syscall = kind(USER, KERNEL, &[0x0f, 0x05]);
        assert_eq!(syscall, X86Br::SYSCALL.with(X86Br::KERNEL));
        // An interrupt inside the kernel is told by nothing: the instruction decides.
        assert_eq!(kind(KERNEL, KERNEL, &[0x90]), X86Br::NONE);
    }

    #[test]
    fn unreadable_and_empty_entries_have_no_type() {
        assert_eq!(
            branch_type(0xffff_ffff, USER, false, None, CodeSize::Bits64),
            X86Br::NONE
        );
        assert_eq!(kind(0, USER, &[0xc3]), X86Br::NONE);
    }
}
