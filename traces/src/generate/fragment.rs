//! Straight-line code with what it asks of the machine.

use crate::vlt::MachineAccess;

/// What an instruction of a fragment asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Always the same.
    Fixed(MachineAccess),
    /// RDMSR of this register and as many further on as the loop around it has passes behind it.
    ReadIndexed(u32),
    /// WRMSR of 0, likewise.
    ClearIndexed(u32),
}

impl Access {
    /// The access in pass `pass` of the loop, from 0.
    pub(super) const fn in_pass(self, pass: u32) -> MachineAccess {
        match self {
            Self::Fixed(access) => access,
            Self::ReadIndexed(base) => MachineAccess::ReadMsr {
                msr: base.wrapping_add(pass),
                value: None,
            },
            Self::ClearIndexed(base) => MachineAccess::WriteMsr {
                msr: base.wrapping_add(pass),
                value: Some(0),
            },
        }
    }
}

/// Instructions in a row, none of them a branch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) bytes: Vec<u8>,
    pub(super) instructions: u16,
    /// By number of the instruction, ascending.
    pub(super) accesses: Vec<(u16, Access)>,
    /// Number of a HLT.
    pub(super) halt: Option<u16>,
}

impl Fragment {
    /// Appends an instruction.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.instructions += 1;
    }

    /// Appends an instruction with its access.
    pub(super) fn access(&mut self, bytes: &[u8], access: Access) {
        self.accesses.push((self.instructions, access));
        self.push(bytes);
    }

    fn load(&mut self, opcode: u8, value: u32) {
        let [a, b, c, d] = value.to_le_bytes();
        self.push(&[opcode, a, b, c, d]);
    }

    /// MOV EAX, value.
    pub(super) fn eax(&mut self, value: u32) {
        self.load(0xb8, value);
    }

    /// MOV ECX, value.
    pub(super) fn ecx(&mut self, value: u32) {
        self.load(0xb9, value);
    }

    /// MOV EDX, value.
    pub(super) fn edx(&mut self, value: u32) {
        self.load(0xba, value);
    }

    /// RDMSR of `msr`.
    pub(super) fn read(&mut self, msr: u32) {
        self.ecx(msr);
        let access = MachineAccess::ReadMsr { msr, value: None };
        self.access(&[0x0f, 0x32], Access::Fixed(access));
    }

    /// WRMSR of `value` to `msr`.
    pub(super) fn write(&mut self, msr: u32, value: u64) {
        self.write_by(&[0x0f, 0x30], msr, value);
    }

    /// The same with another encoding, such as WRMSRNS.
    pub(super) fn write_by(&mut self, bytes: &[u8], msr: u32, value: u64) {
        self.ecx(msr);
        self.eax(value as u32);
        self.edx((value >> 32) as u32);
        let value = Some(value);
        self.access(bytes, Access::Fixed(MachineAccess::WriteMsr { msr, value }));
    }

    /// LEA ECX, [RBX + base]: the loop's index is in RBX.
    pub(super) fn indexed(&mut self, base: u32) {
        let [a, b, c, d] = base.to_le_bytes();
        self.push(&[0x8d, 0x8b, a, b, c, d]);
    }
}
