//! Classes of control-transfer instructions, as the LBR filters know them.

use iced_x86::{FlowControl, Instruction, Mnemonic};
use vlbr_arch::{BranchClass, FarKind};

/// An instruction that may transfer control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BranchInstruction {
    /// Class of the record it makes when taken.
    pub class: BranchClass,
    /// Effective address of the target of a direct near branch; `None` if it is read from a
    /// register, memory, an MSR or a descriptor.
    pub target: Option<u64>,
}

/// The class of `instruction`, or `None` if it never transfers control by itself.
///
/// LOOPcc and JCXZ are conditional branches; `CALL rel` to the next instruction is the
/// zero-length call; far forms, SYS*, IRET, RSM and software interrupts are the far class. REP
/// string instructions, XBEGIN, XABORT, XEND, HLT, UDn and the VMX instructions are no branches
/// (an abort of a transaction arrives as an event). SDM volume 3, "Filtering of Last Branch
/// Records" and "Branch types".
#[must_use]
pub fn classify(instruction: &Instruction) -> Option<BranchInstruction> {
    let far = |kind| {
        Some(BranchInstruction {
            class: BranchClass::Far(kind),
            target: None,
        })
    };
    let direct = |class| {
        Some(BranchInstruction {
            class,
            target: Some(instruction.near_branch_target()),
        })
    };
    let indirect = |class| {
        Some(BranchInstruction {
            class,
            target: None,
        })
    };
    match instruction.mnemonic() {
        Mnemonic::Syscall => return far(FarKind::Syscall),
        Mnemonic::Sysret | Mnemonic::Sysretq => return far(FarKind::Sysret),
        Mnemonic::Sysenter => return far(FarKind::Sysenter),
        Mnemonic::Sysexit | Mnemonic::Sysexitq => return far(FarKind::Sysexit),
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq | Mnemonic::Uiret => {
            return far(FarKind::Iret);
        }
        Mnemonic::Rsm => return far(FarKind::Rsm),
        Mnemonic::Int | Mnemonic::Int3 | Mnemonic::Into => return far(FarKind::SoftwareInterrupt),
        // ICEBP raises #DB, which clears the LBR enable and makes no record.
        Mnemonic::Int1 => return far(FarKind::DebugException),
        Mnemonic::Retf => return far(FarKind::Ret),
        Mnemonic::Ret => return indirect(BranchClass::NearRet),
        _ => {}
    }
    match instruction.flow_control() {
        FlowControl::ConditionalBranch => direct(BranchClass::Jcc),
        FlowControl::UnconditionalBranch => {
            if instruction.is_jmp_far() {
                far(FarKind::Jmp)
            } else if instruction.is_jmp_short_or_near() {
                direct(BranchClass::NearRelJmp)
            } else {
                None
            }
        }
        FlowControl::IndirectBranch => {
            if instruction.is_jmp_far_indirect() {
                far(FarKind::Jmp)
            } else {
                indirect(BranchClass::NearIndJmp)
            }
        }
        FlowControl::Call => {
            if instruction.is_call_far() {
                far(FarKind::Call)
            } else if instruction.is_call_near() {
                if instruction.near_branch_target() == instruction.next_ip() {
                    direct(BranchClass::NearRelCallZero)
                } else {
                    direct(BranchClass::NearRelCall)
                }
            } else {
                None
            }
        }
        FlowControl::IndirectCall => {
            if instruction.is_call_far_indirect() {
                far(FarKind::Call)
            } else {
                indirect(BranchClass::NearIndCall)
            }
        }
        FlowControl::Next
        | FlowControl::Return
        | FlowControl::Interrupt
        | FlowControl::XbeginXabortXend
        | FlowControl::Exception => None,
    }
}

#[cfg(test)]
mod tests {
    use iced_x86::{Decoder, DecoderOptions};

    use super::*;

    fn class(bits: u32, bytes: &[u8]) -> Option<BranchClass> {
        let mut decoder = Decoder::with_ip(bits, bytes, 0x1000, DecoderOptions::NONE);
        let instruction = decoder.decode();
        assert!(!instruction.is_invalid(), "{bytes:02x?}");
        assert_eq!(instruction.len(), bytes.len());
        classify(&instruction).map(|b| b.class)
    }

    #[test]
    fn every_class_of_the_filter_tables() {
        use BranchClass::{Far, Jcc, NearIndCall, NearIndJmp, NearRelCall, NearRelCallZero};
        use BranchClass::{NearRelJmp, NearRet};
        let table: &[(u32, &[u8], Option<BranchClass>)] = &[
            (64, &[0x74, 0x10], Some(Jcc)),                             // je
            (64, &[0x0f, 0x85, 0, 1, 0, 0], Some(Jcc)),                 // jne near
            (64, &[0xe3, 0x10], Some(Jcc)),                             // jrcxz
            (64, &[0x67, 0xe3, 0x10], Some(Jcc)),                       // jecxz
            (16, &[0xe3, 0x10], Some(Jcc)),                             // jcxz
            (64, &[0xe2, 0xfe], Some(Jcc)),                             // loop
            (64, &[0xe1, 0xfe], Some(Jcc)),                             // loope
            (64, &[0xe0, 0xfe], Some(Jcc)),                             // loopne
            (64, &[0xeb, 0x10], Some(NearRelJmp)),                      // jmp short
            (64, &[0xe9, 0, 1, 0, 0], Some(NearRelJmp)),                // jmp near
            (64, &[0xff, 0xe0], Some(NearIndJmp)),                      // jmp rax
            (64, &[0x3e, 0xff, 0xe0], Some(NearIndJmp)),                // notrack jmp rax
            (64, &[0xff, 0x20], Some(NearIndJmp)),                      // jmp [rax]
            (64, &[0xe8, 0, 1, 0, 0], Some(NearRelCall)),               // call
            (64, &[0xe8, 0, 0, 0, 0], Some(NearRelCallZero)),           // call +0
            (16, &[0xe8, 0, 0], Some(NearRelCallZero)),                 // call +0, 16 bits
            (64, &[0xff, 0xd0], Some(NearIndCall)),                     // call rax
            (64, &[0xff, 0x10], Some(NearIndCall)),                     // call [rax]
            (64, &[0xc3], Some(NearRet)),                               // ret
            (64, &[0xc2, 8, 0], Some(NearRet)),                         // ret 8
            (64, &[0xf3, 0xc3], Some(NearRet)),                         // rep ret
            (64, &[0xcb], Some(Far(FarKind::Ret))),                     // retf
            (64, &[0xca, 8, 0], Some(Far(FarKind::Ret))),               // retf 8
            (32, &[0xea, 0, 0, 0, 0, 8, 0], Some(Far(FarKind::Jmp))),   // jmp ptr16:32
            (64, &[0xff, 0x28], Some(Far(FarKind::Jmp))),               // jmp far [rax]
            (32, &[0x9a, 0, 0, 0, 0, 8, 0], Some(Far(FarKind::Call))),  // call ptr16:32
            (64, &[0xff, 0x18], Some(Far(FarKind::Call))),              // call far [rax]
            (64, &[0x0f, 0x05], Some(Far(FarKind::Syscall))),           // syscall
            (64, &[0x48, 0x0f, 0x07], Some(Far(FarKind::Sysret))),      // sysretq
            (64, &[0x0f, 0x07], Some(Far(FarKind::Sysret))),            // sysret
            (64, &[0x0f, 0x34], Some(Far(FarKind::Sysenter))),          // sysenter
            (64, &[0x0f, 0x35], Some(Far(FarKind::Sysexit))),           // sysexit
            (64, &[0x48, 0xcf], Some(Far(FarKind::Iret))),              // iretq
            (32, &[0xcf], Some(Far(FarKind::Iret))),                    // iretd
            (16, &[0xcf], Some(Far(FarKind::Iret))),                    // iret
            (64, &[0xcd, 0x80], Some(Far(FarKind::SoftwareInterrupt))), // int 80h
            (64, &[0xcc], Some(Far(FarKind::SoftwareInterrupt))),       // int3
            (32, &[0xce], Some(Far(FarKind::SoftwareInterrupt))),       // into
            (64, &[0xf1], Some(Far(FarKind::DebugException))),          // int1
            (64, &[0x0f, 0xaa], Some(Far(FarKind::Rsm))),               // rsm
            (64, &[0xf3, 0xa4], None),                                  // rep movsb
            (64, &[0xc7, 0xf8, 0, 0, 0, 0], None),                      // xbegin
            (64, &[0xc6, 0xf8, 1], None),                               // xabort
            (64, &[0x0f, 0x01, 0xd5], None),                            // xend
            (64, &[0x0f, 0x01, 0xc1], None),                            // vmcall
            (64, &[0x0f, 0x0b], None),                                  // ud2
            (64, &[0xf4], None),                                        // hlt
            (64, &[0x90], None),                                        // nop
        ];
        for (bits, bytes, expected) in table {
            assert_eq!(class(*bits, bytes), *expected, "{bits} bits {bytes:02x?}");
        }
    }
}
