//! Instructions that can cause VM exits.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, Register};
use vlbr_arch::vmx::ExitReason;

use crate::block::Block;
use crate::code::{BlockId, Code};

/// What makes an instruction of a guest exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExitCondition {
    /// It exits always. SDM volume 3C, section 26.1.2.
    Always,
    /// It exits if this setting of the VMCS says so. SDM volume 3C, section 26.1.3.
    If(&'static str),
}

macro_rules! exit_instructions {
    ($( $name:ident, $text:literal, $reason:expr, $condition:expr; )*) => {
        /// An instruction that can cause a VM exit in VMX non-root operation: those of SDM volume 3C,
        /// sections 26.1.2 (always) and 26.1.3 (depending on controls). Faults and software
        /// interrupts, which exit as exceptions do, are not among them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ExitInstruction {
            $( #[doc = concat!($text, ".")] $name, )*
        }

        impl ExitInstruction {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$( Self::$name, )*];

            /// Its name as the SDM writes it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => $text, )* }
            }

            /// The basic reason of its exit.
            #[must_use]
            pub const fn reason(self) -> ExitReason {
                match self { $( Self::$name => $reason, )* }
            }

            /// When it exits.
            #[must_use]
            pub const fn condition(self) -> ExitCondition {
                match self { $( Self::$name => $condition, )* }
            }
        }
    };
}

use ExitCondition::{Always, If};

exit_instructions! {
    Cpuid, "CPUID", ExitReason::CPUID, Always;
    Getsec, "GETSEC", ExitReason::GETSEC, Always;
    Invd, "INVD", ExitReason::INVD, Always;
    Xsetbv, "XSETBV", ExitReason::XSETBV, Always;
    Invept, "INVEPT", ExitReason::INVEPT, Always;
    Invvpid, "INVVPID", ExitReason::INVVPID, Always;
    Vmcall, "VMCALL", ExitReason::VMCALL, Always;
    Vmclear, "VMCLEAR", ExitReason::VMCLEAR, Always;
    Vmlaunch, "VMLAUNCH", ExitReason::VMLAUNCH, Always;
    Vmptrld, "VMPTRLD", ExitReason::VMPTRLD, Always;
    Vmptrst, "VMPTRST", ExitReason::VMPTRST, Always;
    Vmresume, "VMRESUME", ExitReason::VMRESUME, Always;
    Vmxoff, "VMXOFF", ExitReason::VMXOFF, Always;
    Vmxon, "VMXON", ExitReason::VMXON, Always;
    Vmread, "VMREAD", ExitReason::VMREAD, If("VMCS shadowing, VMREAD bitmap");
    Vmwrite, "VMWRITE", ExitReason::VMWRITE, If("VMCS shadowing, VMWRITE bitmap");
    Vmfunc, "VMFUNC", ExitReason::VMFUNC, If("VM-function controls");
    Clts, "CLTS", ExitReason::CR_ACCESS, If("CR0 guest/host mask and read shadow");
    Lmsw, "LMSW", ExitReason::CR_ACCESS, If("CR0 guest/host mask and read shadow");
    WriteCr0, "MOV to CR0", ExitReason::CR_ACCESS, If("CR0 guest/host mask and read shadow");
    WriteCr3, "MOV to CR3", ExitReason::CR_ACCESS, If("CR3-load exiting, CR3-target values");
    WriteCr4, "MOV to CR4", ExitReason::CR_ACCESS, If("CR4 guest/host mask and read shadow");
    WriteCr8, "MOV to CR8", ExitReason::CR_ACCESS, If("CR8-load exiting");
    ReadCr3, "MOV from CR3", ExitReason::CR_ACCESS, If("CR3-store exiting");
    ReadCr8, "MOV from CR8", ExitReason::CR_ACCESS, If("CR8-store exiting");
    MovDr, "MOV DR", ExitReason::MOV_DR, If("MOV-DR exiting");
    Encls, "ENCLS", ExitReason::ENCLS, If("enable ENCLS exiting, its bitmap");
    Enclv, "ENCLV", ExitReason::new(70), If("enable ENCLV exiting, its bitmap");
    Pconfig, "PCONFIG", ExitReason::new(65), If("enable PCONFIG, its bitmap");
    Hlt, "HLT", ExitReason::HLT, If("HLT exiting");
    In, "IN", ExitReason::IO_INSTRUCTION, If("unconditional I/O exiting, I/O bitmaps");
    Ins, "INS", ExitReason::IO_INSTRUCTION, If("unconditional I/O exiting, I/O bitmaps");
    Out, "OUT", ExitReason::IO_INSTRUCTION, If("unconditional I/O exiting, I/O bitmaps");
    Outs, "OUTS", ExitReason::IO_INSTRUCTION, If("unconditional I/O exiting, I/O bitmaps");
    Invlpg, "INVLPG", ExitReason::INVLPG, If("INVLPG exiting");
    Invpcid, "INVPCID", ExitReason::INVPCID, If("INVLPG exiting, enable INVPCID");
    Lgdt, "LGDT", ExitReason::GDTR_IDTR, If("descriptor-table exiting");
    Lidt, "LIDT", ExitReason::GDTR_IDTR, If("descriptor-table exiting");
    Sgdt, "SGDT", ExitReason::GDTR_IDTR, If("descriptor-table exiting");
    Sidt, "SIDT", ExitReason::GDTR_IDTR, If("descriptor-table exiting");
    Lldt, "LLDT", ExitReason::LDTR_TR, If("descriptor-table exiting");
    Ltr, "LTR", ExitReason::LDTR_TR, If("descriptor-table exiting");
    Sldt, "SLDT", ExitReason::LDTR_TR, If("descriptor-table exiting");
    Str, "STR", ExitReason::LDTR_TR, If("descriptor-table exiting");
    Loadiwkey, "LOADIWKEY", ExitReason::LOADIWKEY, If("LOADIWKEY exiting");
    Monitor, "MONITOR", ExitReason::MONITOR, If("MONITOR exiting");
    Mwait, "MWAIT", ExitReason::MWAIT, If("MWAIT exiting");
    Pause, "PAUSE", ExitReason::PAUSE, If("PAUSE exiting, PAUSE-loop exiting at CPL 0");
    Rdmsr, "RDMSR", ExitReason::RDMSR, If("MSR bitmaps");
    Wrmsr, "WRMSR", ExitReason::WRMSR, If("MSR bitmaps");
    Wrmsrns, "WRMSRNS", ExitReason::WRMSR, If("MSR bitmaps");
    Rdmsrlist, "RDMSRLIST", ExitReason::new(78), If("enable MSR-list instructions, MSR bitmaps");
    Wrmsrlist, "WRMSRLIST", ExitReason::new(79), If("enable MSR-list instructions, MSR bitmaps");
    Rdpmc, "RDPMC", ExitReason::RDPMC, If("RDPMC exiting");
    Rdrand, "RDRAND", ExitReason::RDRAND, If("RDRAND exiting");
    Rdseed, "RDSEED", ExitReason::RDSEED, If("RDSEED exiting");
    Rdtsc, "RDTSC", ExitReason::RDTSC, If("RDTSC exiting");
    Rdtscp, "RDTSCP", ExitReason::RDTSCP, If("RDTSC exiting, enable RDTSCP");
    Rsm, "RSM", ExitReason::RSM, If("in SMM under the dual-monitor treatment");
    Tpause, "TPAUSE", ExitReason::TPAUSE, If("RDTSC exiting, enable user wait and pause");
    Umwait, "UMWAIT", ExitReason::UMWAIT, If("RDTSC exiting, enable user wait and pause");
    Wbinvd, "WBINVD", ExitReason::WBINVD, If("WBINVD exiting");
    Wbnoinvd, "WBNOINVD", ExitReason::WBINVD, If("WBINVD exiting");
    Xrstors, "XRSTORS", ExitReason::XRSTORS, If("XSS-exiting bitmap");
    Xsaves, "XSAVES", ExitReason::XSAVES, If("XSS-exiting bitmap");
}

/// What `instruction` is among those that can cause a VM exit; `None` if it never does by itself.
///
/// MOV from CR0, CR2 and CR4, MOV to CR2 and SMSW never exit: the read shadows answer.
#[must_use]
pub fn exit_instruction(instruction: &Instruction) -> Option<ExitInstruction> {
    use ExitInstruction as E;
    Some(match instruction.mnemonic() {
        Mnemonic::Cpuid => E::Cpuid,
        Mnemonic::Getsec | Mnemonic::Getsecq => E::Getsec,
        Mnemonic::Invd => E::Invd,
        Mnemonic::Xsetbv => E::Xsetbv,
        Mnemonic::Invept => E::Invept,
        Mnemonic::Invvpid => E::Invvpid,
        Mnemonic::Vmcall => E::Vmcall,
        Mnemonic::Vmclear => E::Vmclear,
        Mnemonic::Vmlaunch => E::Vmlaunch,
        Mnemonic::Vmptrld => E::Vmptrld,
        Mnemonic::Vmptrst => E::Vmptrst,
        Mnemonic::Vmresume => E::Vmresume,
        Mnemonic::Vmxoff => E::Vmxoff,
        Mnemonic::Vmxon => E::Vmxon,
        Mnemonic::Vmread => E::Vmread,
        Mnemonic::Vmwrite => E::Vmwrite,
        Mnemonic::Vmfunc => E::Vmfunc,
        Mnemonic::Clts => E::Clts,
        Mnemonic::Lmsw => E::Lmsw,
        Mnemonic::Mov => return move_special(instruction),
        Mnemonic::Encls => E::Encls,
        Mnemonic::Enclv => E::Enclv,
        Mnemonic::Pconfig => E::Pconfig,
        Mnemonic::Hlt => E::Hlt,
        Mnemonic::In => E::In,
        Mnemonic::Insb | Mnemonic::Insw | Mnemonic::Insd => E::Ins,
        Mnemonic::Out => E::Out,
        Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd => E::Outs,
        Mnemonic::Invlpg => E::Invlpg,
        Mnemonic::Invpcid => E::Invpcid,
        Mnemonic::Lgdt => E::Lgdt,
        Mnemonic::Lidt => E::Lidt,
        Mnemonic::Sgdt => E::Sgdt,
        Mnemonic::Sidt => E::Sidt,
        Mnemonic::Lldt => E::Lldt,
        Mnemonic::Ltr => E::Ltr,
        Mnemonic::Sldt => E::Sldt,
        Mnemonic::Str => E::Str,
        Mnemonic::Loadiwkey => E::Loadiwkey,
        Mnemonic::Monitor => E::Monitor,
        Mnemonic::Mwait => E::Mwait,
        Mnemonic::Pause => E::Pause,
        Mnemonic::Rdmsr => E::Rdmsr,
        Mnemonic::Wrmsr => E::Wrmsr,
        Mnemonic::Wrmsrns => E::Wrmsrns,
        Mnemonic::Rdmsrlist => E::Rdmsrlist,
        Mnemonic::Wrmsrlist => E::Wrmsrlist,
        Mnemonic::Rdpmc => E::Rdpmc,
        Mnemonic::Rdrand => E::Rdrand,
        Mnemonic::Rdseed => E::Rdseed,
        Mnemonic::Rdtsc => E::Rdtsc,
        Mnemonic::Rdtscp => E::Rdtscp,
        Mnemonic::Rsm => E::Rsm,
        Mnemonic::Tpause => E::Tpause,
        Mnemonic::Umwait => E::Umwait,
        Mnemonic::Wbinvd => E::Wbinvd,
        Mnemonic::Wbnoinvd => E::Wbnoinvd,
        Mnemonic::Xrstors | Mnemonic::Xrstors64 => E::Xrstors,
        Mnemonic::Xsaves | Mnemonic::Xsaves64 => E::Xsaves,
        _ => return None,
    })
}

/// A MOV from or to a control or debug register.
fn move_special(instruction: &Instruction) -> Option<ExitInstruction> {
    use ExitInstruction as E;
    let (to, from) = (instruction.op0_register(), instruction.op1_register());
    match (to, from) {
        (Register::CR0, _) => Some(E::WriteCr0),
        (Register::CR3, _) => Some(E::WriteCr3),
        (Register::CR4, _) => Some(E::WriteCr4),
        (Register::CR8, _) => Some(E::WriteCr8),
        (_, Register::CR3) => Some(E::ReadCr3),
        (_, Register::CR8) => Some(E::ReadCr8),
        _ if to.is_dr() || from.is_dr() => Some(E::MovDr),
        _ => None,
    }
}

/// An instruction of a block that can cause a VM exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExitSite {
    /// Its number in the block.
    pub index: u16,
    /// What it is.
    pub instruction: ExitInstruction,
}

/// The exit sites of every block of a [`Code`], found once; most blocks have none.
///
/// ```
/// use vlbr_cpu::{Block, Code, ExitInstruction, ExitSites, Mode};
///
/// let mut code = Code::new();
/// // xor eax, eax; cpuid; ret
/// let block = Block::decode(0x1000, Mode::user64(0), &[0x31, 0xc0, 0x0f, 0xa2, 0xc3])?;
/// let block = code.add_block(block)?;
/// let sites = ExitSites::new(&code);
/// assert_eq!(sites.of(block)[0].index, 1);
/// assert_eq!(sites.of(block)[0].instruction, ExitInstruction::Cpuid);
/// # Ok::<(), vlbr_cpu::CodeError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ExitSites {
    /// Where the sites of each block end in `sites`.
    ends: Vec<u32>,
    sites: Vec<ExitSite>,
}

impl ExitSites {
    /// The sites of `code`.
    #[must_use]
    pub fn new(code: &Code) -> Self {
        let mut sites = Self::default();
        sites.update(code);
        sites
    }

    /// Looks at the blocks that `code`, the same table each time, has gained.
    pub fn update(&mut self, code: &Code) {
        for block in code.blocks().iter().skip(self.ends.len()) {
            append(block, &mut self.sites);
            self.ends.push(self.sites.len() as u32);
        }
    }

    /// The sites of `block`, ascending; none of a block that was not looked at.
    #[must_use]
    pub fn of(&self, block: BlockId) -> &[ExitSite] {
        let index = block.0 as usize;
        let Some(&end) = self.ends.get(index) else {
            return &[];
        };
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.sites[start as usize..end as usize]
    }
}

/// Appends the sites of `block`. An instruction that the decoder does not know is none.
fn append(block: &Block, sites: &mut Vec<ExitSite>) {
    let (bits, mut rest) = (block.mode().code_size.bits(), block.bytes());
    for (index, &length) in (0..).zip(block.lengths()) {
        let (bytes, behind) = rest.split_at(usize::from(length));
        rest = behind;
        let decoded = Decoder::new(bits, bytes, DecoderOptions::NONE).decode();
        if let Some(instruction) = exit_instruction(&decoded) {
            sites.push(ExitSite { index, instruction });
        }
    }
}

#[cfg(test)]
mod tests {
    use vlbr_arch::{CodeSize, Cpl};

    use super::*;
    use crate::block::Mode;

    fn kind(bits: u32, bytes: &[u8]) -> Option<ExitInstruction> {
        let decoded = Decoder::new(bits, bytes, DecoderOptions::NONE).decode();
        assert!(!decoded.is_invalid(), "{bytes:02x?}");
        assert_eq!(decoded.len(), bytes.len(), "{bytes:02x?}");
        exit_instruction(&decoded)
    }

    #[test]
    fn every_instruction_of_the_sections_on_exits() {
        use ExitInstruction as E;
        let table: &[(&[u8], Option<E>)] = &[
            (&[0x0f, 0xa2], Some(E::Cpuid)),
            (&[0x0f, 0x37], Some(E::Getsec)),
            (&[0x0f, 0x08], Some(E::Invd)),
            (&[0x0f, 0x01, 0xd1], Some(E::Xsetbv)),
            (&[0x66, 0x0f, 0x38, 0x80, 0x00], Some(E::Invept)),
            (&[0x66, 0x0f, 0x38, 0x81, 0x00], Some(E::Invvpid)),
            (&[0x0f, 0x01, 0xc1], Some(E::Vmcall)),
            (&[0x66, 0x0f, 0xc7, 0x30], Some(E::Vmclear)),
            (&[0x0f, 0x01, 0xc2], Some(E::Vmlaunch)),
            (&[0x0f, 0xc7, 0x30], Some(E::Vmptrld)),
            (&[0x0f, 0xc7, 0x38], Some(E::Vmptrst)),
            (&[0x0f, 0x01, 0xc3], Some(E::Vmresume)),
            (&[0x0f, 0x01, 0xc4], Some(E::Vmxoff)),
            (&[0xf3, 0x0f, 0xc7, 0x30], Some(E::Vmxon)),
            (&[0x0f, 0x78, 0xc8], Some(E::Vmread)),
            (&[0x0f, 0x79, 0xc8], Some(E::Vmwrite)),
            (&[0x0f, 0x01, 0xd4], Some(E::Vmfunc)),
            (&[0x0f, 0x06], Some(E::Clts)),
            (&[0x0f, 0x01, 0xf0], Some(E::Lmsw)),
            (&[0x0f, 0x22, 0xc0], Some(E::WriteCr0)),
            (&[0x0f, 0x22, 0xd8], Some(E::WriteCr3)),
            (&[0x0f, 0x22, 0xe0], Some(E::WriteCr4)),
            (&[0x44, 0x0f, 0x22, 0xc0], Some(E::WriteCr8)),
            (&[0x0f, 0x20, 0xd8], Some(E::ReadCr3)),
            (&[0x44, 0x0f, 0x20, 0xc0], Some(E::ReadCr8)),
            (&[0x0f, 0x23, 0xf8], Some(E::MovDr)),
            (&[0x0f, 0x21, 0xf0], Some(E::MovDr)),
            (&[0x0f, 0x01, 0xcf], Some(E::Encls)),
            (&[0x0f, 0x01, 0xc0], Some(E::Enclv)),
            (&[0x0f, 0x01, 0xc5], Some(E::Pconfig)),
            (&[0xf4], Some(E::Hlt)),
            (&[0xe4, 0x60], Some(E::In)),
            (&[0xed], Some(E::In)),
            (&[0xe6, 0x80], Some(E::Out)),
            (&[0x66, 0xef], Some(E::Out)),
            (&[0xf3, 0x6d], Some(E::Ins)),
            (&[0x6c], Some(E::Ins)),
            (&[0xf3, 0x6e], Some(E::Outs)),
            (&[0x66, 0x6f], Some(E::Outs)),
            (&[0x0f, 0x01, 0x38], Some(E::Invlpg)),
            (&[0x66, 0x0f, 0x38, 0x82, 0x00], Some(E::Invpcid)),
            (&[0x0f, 0x01, 0x10], Some(E::Lgdt)),
            (&[0x0f, 0x01, 0x18], Some(E::Lidt)),
            (&[0x0f, 0x01, 0x00], Some(E::Sgdt)),
            (&[0x0f, 0x01, 0x08], Some(E::Sidt)),
            (&[0x0f, 0x00, 0xd0], Some(E::Lldt)),
            (&[0x0f, 0x00, 0xd8], Some(E::Ltr)),
            (&[0x0f, 0x00, 0xc0], Some(E::Sldt)),
            (&[0x0f, 0x00, 0xc8], Some(E::Str)),
            (&[0xf3, 0x0f, 0x38, 0xdc, 0xc1], Some(E::Loadiwkey)),
            (&[0x0f, 0x01, 0xc8], Some(E::Monitor)),
            (&[0x0f, 0x01, 0xc9], Some(E::Mwait)),
            (&[0xf3, 0x90], Some(E::Pause)),
            (&[0x0f, 0x32], Some(E::Rdmsr)),
            (&[0x0f, 0x30], Some(E::Wrmsr)),
            (&[0x0f, 0x01, 0xc6], Some(E::Wrmsrns)),
            (&[0xf2, 0x0f, 0x01, 0xc6], Some(E::Rdmsrlist)),
            (&[0xf3, 0x0f, 0x01, 0xc6], Some(E::Wrmsrlist)),
            (&[0x0f, 0x33], Some(E::Rdpmc)),
            (&[0x0f, 0xc7, 0xf0], Some(E::Rdrand)),
            (&[0x0f, 0xc7, 0xf8], Some(E::Rdseed)),
            (&[0x0f, 0x31], Some(E::Rdtsc)),
            (&[0x0f, 0x01, 0xf9], Some(E::Rdtscp)),
            (&[0x0f, 0xaa], Some(E::Rsm)),
            (&[0x66, 0x0f, 0xae, 0xf0], Some(E::Tpause)),
            (&[0xf2, 0x0f, 0xae, 0xf0], Some(E::Umwait)),
            (&[0x0f, 0x09], Some(E::Wbinvd)),
            (&[0xf3, 0x0f, 0x09], Some(E::Wbnoinvd)),
            (&[0x0f, 0xc7, 0x18], Some(E::Xrstors)),
            (&[0x48, 0x0f, 0xc7, 0x28], Some(E::Xsaves)),
        ];
        let mut found = std::collections::BTreeSet::new();
        for (bytes, expected) in table {
            assert_eq!(kind(64, bytes), *expected, "{bytes:02x?}");
            found.extend(*expected);
        }
        let all = ExitInstruction::ALL.iter().copied().collect();
        assert_eq!(found, all, "kinds without a line of the table");
    }

    #[test]
    fn what_the_shadows_answer_and_ordinary_code_never_exits() {
        for bytes in [
            &[0x0f, 0x20, 0xc0][..], // mov rax, cr0
            &[0x0f, 0x20, 0xd0],     // mov rax, cr2
            &[0x0f, 0x22, 0xd0],     // mov cr2, rax
            &[0x0f, 0x20, 0xe0],     // mov rax, cr4
            &[0x0f, 0x01, 0xe0],     // smsw eax
            &[0x0f, 0x01, 0xd0],     // xgetbv
            &[0x90],                 // nop
            &[0x0f, 0x05],           // syscall
            &[0xcc],                 // int3
            &[0x48, 0x89, 0xd8],     // mov rax, rbx
            &[0x8e, 0xd8],           // mov ds, eax
            &[0x0f, 0x01, 0xcb],     // stac
        ] {
            assert_eq!(kind(64, bytes), None, "{bytes:02x?}");
        }
    }

    #[test]
    fn those_without_a_control_exit_always() {
        let always: Vec<_> = ExitInstruction::ALL
            .iter()
            .filter(|kind| kind.condition() == Always)
            .map(|kind| kind.name())
            .collect();
        assert_eq!(always.len(), 14);
        assert!(always.contains(&"CPUID") && always.contains(&"VMCALL"));
        assert_eq!(ExitInstruction::Wrmsr.reason(), ExitReason::WRMSR);
    }

    #[test]
    fn sites_are_found_by_block_in_its_code_size_and_as_the_table_grows() {
        let mode = |code_size| Mode {
            code_size,
            cpl: Cpl::Ring0,
            ..Mode::user64(0)
        };
        let mut code = Code::new();
        let plain = Block::decode(0, mode(CodeSize::Bits64), &[0x90, 0xc3]).unwrap();
        let plain = code.add_block(plain).unwrap();
        let mut sites = ExitSites::new(&code);
        assert_eq!(sites.of(plain), []);
        // mov ax, 1; out 80h, al; hlt: with 64 bits the first one would take the next two bytes.
        let bytes = [0xb8, 1, 0, 0xe6, 0x80, 0xf4];
        let small = Block::decode(0x10, mode(CodeSize::Bits16), &bytes).unwrap();
        let small = code.add_block(small).unwrap();
        assert_eq!(sites.of(small), []);
        sites.update(&code);
        assert_eq!(sites.of(plain), []);
        let found: Vec<_> = sites
            .of(small)
            .iter()
            .map(|s| (s.index, s.instruction))
            .collect();
        assert_eq!(
            found,
            [(1, ExitInstruction::Out), (2, ExitInstruction::Hlt)]
        );
    }
}
