//! A machine to test on: memory, a real LBR with a few more MSRs, and a VMCS that enters.

use std::collections::BTreeMap;

use vlbr_arch::vmx::{Interruptibility, VmcsField};
use vlbr_arch::{Cycles, DebugCtl, Msr, Transfer};
use vlbr_cpu::ledger::{Ledger, MsrAccess};
use vlbr_lbr::{GpFault, Lbr, Options as LbrOptions, Profile, Verdict};
use vlbr_vmx::{
    Abort, AreaEntry, Context, EntryError, GuestMsr, GuestMsrStop, Injected, Launch, MsrBitmap,
    OperandSize, Options, PhysicalMemory, Registers, VmExit, Vmcs, Vmx, VmxProfile,
};

pub(crate) const VMXON: u64 = 0x1000;
pub(crate) const VMCS: u64 = 0x2000;
pub(crate) const BITMAP: u64 = 0x3000;
pub(crate) const ENTRY_LOAD: u64 = 0x1_0000;
pub(crate) const EXIT_STORE: u64 = 0x2_0000;
pub(crate) const EXIT_LOAD: u64 = 0x3_0000;
pub(crate) const HOST_RIP: u64 = 0xffff_8000_0000_1000;

#[derive(Debug, Default)]
pub(crate) struct Ram(BTreeMap<u64, u8>);

impl PhysicalMemory for Ram {
    fn read(&self, address: u64, bytes: &mut [u8]) {
        for (at, byte) in (address..).zip(bytes) {
            *byte = self.0.get(&at).copied().unwrap_or(0xff);
        }
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        self.0.extend((address..).zip(bytes.iter().copied()));
    }
}

impl Ram {
    pub(crate) fn word(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.read(at, &mut bytes);
        u32::from_le_bytes(bytes)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Lbr(#[from] GpFault),
    #[error("#GP(0): {0}")]
    Other(Msr),
}

/// The MSRs of a processor: its LBR, and the few others that these rules need.
#[derive(Debug)]
pub(crate) struct Msrs {
    pub(crate) lbr: Lbr,
    /// The bits that a register has, and its value.
    pub(crate) others: BTreeMap<Msr, (u64, u64)>,
}

impl MsrAccess for Msrs {
    type Fault = Fault;

    fn rdmsr(&mut self, msr: Msr) -> Result<u64, Fault> {
        match self.others.get(&msr) {
            Some((_, value)) => Ok(*value),
            None => Ok(self.lbr.rdmsr(msr)?),
        }
    }

    fn wrmsr(&mut self, msr: Msr, value: u64) -> Result<(), Fault> {
        match self.others.get_mut(&msr) {
            Some((mask, _)) if value & !*mask != 0 => Err(Fault::Other(msr)),
            Some((_, old)) => {
                *old = value;
                Ok(())
            }
            None => Ok(self.lbr.wrmsr(msr, value)?),
        }
    }

    fn reserved_bits(&self, msr: Msr) -> u64 {
        let profile = self.lbr.profile();
        match msr {
            Msr::DEBUGCTL => {
                let rtm = if profile.tsx() {
                    DebugCtl::RTM_DEBUG
                } else {
                    DebugCtl::default()
                };
                !(profile.debugctl() | rtm).bits()
            }
            Msr::LBR_CTL if profile.is_arch() => !0x7f_000f,
            _ => self.others.get(&msr).map_or(u64::MAX, |(mask, _)| !mask),
        }
    }
}

/// A processor with everything around it.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) vmx: Vmx,
    pub(crate) msrs: Msrs,
    pub(crate) ram: Ram,
    pub(crate) registers: Registers,
    pub(crate) ledger: Ledger,
    pub(crate) tsc: u64,
    pub(crate) clock: u64,
}

impl Machine {
    /// A processor outside VMX operation, with regions for VMXON and a VMCS, and a bitmap that
    /// passes everything.
    pub(crate) fn off(cpu: &str, options: Options) -> Self {
        let profile = VmxProfile::of_processor(cpu).unwrap();
        let mut ram = Ram::default();
        for at in [VMXON, VMCS] {
            ram.write(at, &profile.basic().revision().to_le_bytes());
            ram.write(at + 4, &[0; 4]);
        }
        MsrBitmap::intercepting_none()
            .store(&mut ram, BITMAP)
            .unwrap();
        let lbr = Lbr::new(Profile::named(cpu).unwrap(), LbrOptions::default());
        let others = [
            (Msr::PERF_GLOBAL_CTRL, (0x7_0000_000f, 0xf)),
            (Msr::SMBASE, (u64::MAX, 0x3_0000)),
            (Msr::SMM_MONITOR_CTL, (u64::MAX, 0)),
            (Msr::FS_BASE, (u64::MAX, 0)),
            (Msr::GS_BASE, (u64::MAX, 0)),
            (Msr::new(0x808), (u64::MAX, 0)),
            (Msr::BIOS_SIGN_ID, (u64::MAX, 0)),
        ];
        Self {
            vmx: Vmx::new(profile, options),
            msrs: Msrs {
                lbr,
                others: others.into_iter().collect(),
            },
            ram,
            registers: Registers::default(),
            ledger: Ledger::new(),
            tsc: 0,
            clock: 0,
        }
    }

    /// In root operation with a current VMCS whose fields are 0.
    pub(crate) fn root(cpu: &str) -> Self {
        let mut machine = Self::off(cpu, Options::default());
        machine.start();
        machine
    }

    pub(crate) fn start(&mut self) {
        self.vmx.vmxon(&self.ram, VMXON).unwrap();
        self.vmx.vmclear(VMCS).unwrap();
        self.vmx.vmptrld(&self.ram, VMCS).unwrap();
    }

    /// In root operation, ready for VMLAUNCH: debug controls saved and loaded, bitmaps in use.
    pub(crate) fn ready(cpu: &str) -> Self {
        let mut machine = Self::root(cpu);
        machine.prepare();
        machine
    }

    pub(crate) fn prepare(&mut self) {
        let profile = self.vmx.profile().clone();
        for (field, value) in [
            (
                VmcsField::PIN_BASED_VM_EXEC_CONTROL,
                profile.pin().adjust(0),
            ),
            (
                VmcsField::CPU_BASED_VM_EXEC_CONTROL,
                profile.primary().adjust(1 << 28),
            ),
            (VmcsField::VM_EXIT_CONTROLS, profile.exit().adjust(1 << 2)),
            (VmcsField::VM_ENTRY_CONTROLS, profile.entry().adjust(1 << 2)),
        ] {
            self.write(field, value.into());
        }
        for (field, value) in [
            (VmcsField::MSR_BITMAP, BITMAP),
            (VmcsField::VM_ENTRY_MSR_LOAD_ADDR, ENTRY_LOAD),
            (VmcsField::VM_EXIT_MSR_STORE_ADDR, EXIT_STORE),
            (VmcsField::VM_EXIT_MSR_LOAD_ADDR, EXIT_LOAD),
            (VmcsField::GUEST_RFLAGS, 2),
            (VmcsField::GUEST_RIP, 0x40_1000),
            (VmcsField::GUEST_CR0, 0x8000_0021),
            (VmcsField::HOST_RIP, HOST_RIP),
        ] {
            self.write(field, value);
        }
    }

    /// In non-root operation.
    pub(crate) fn guest(cpu: &str) -> Self {
        let mut machine = Self::ready(cpu);
        machine.launch().unwrap();
        machine
    }

    pub(crate) fn write(&mut self, field: VmcsField, value: u64) {
        if let Err(fail) = self.vmx.vmwrite(field, value, OperandSize::Bits64) {
            panic!("{field}: {fail}");
        }
    }

    pub(crate) fn read(&mut self, field: VmcsField) -> u64 {
        match self.vmx.vmread(field, OperandSize::Bits64) {
            Ok(value) => value,
            Err(fail) => panic!("{field}: {fail}"),
        }
    }

    /// Sets bits of a field.
    pub(crate) fn set(&mut self, field: VmcsField, bits: u32) {
        let old = self.read(field);
        self.write(field, old | u64::from(bits));
    }

    /// Clears bits of a field.
    pub(crate) fn clear(&mut self, field: VmcsField, bits: u32) {
        let old = self.read(field);
        self.write(field, old & !u64::from(bits));
    }

    /// Writes an area and its count.
    pub(crate) fn area(&mut self, at: u64, count: VmcsField, entries: &[AreaEntry]) {
        for (n, entry) in (0..).zip(entries) {
            self.ram.write(at + 16 * n, &entry.to_bytes());
        }
        self.write(count, entries.len() as u64);
    }

    pub(crate) fn context(&mut self) -> (&mut Vmx, Context<'_, Msrs, Ram>) {
        let context = Context {
            msrs: &mut self.msrs,
            memory: &mut self.ram,
            registers: &mut self.registers,
            ledger: &mut self.ledger,
            tsc: self.tsc,
        };
        (&mut self.vmx, context)
    }

    pub(crate) fn enter(&mut self, launch: Launch) -> Result<Option<Injected>, EntryError<Fault>> {
        let (vmx, mut context) = self.context();
        vmx.enter(launch, Interruptibility::default(), &mut context)
    }

    pub(crate) fn launch(&mut self) -> Result<Option<Injected>, EntryError<Fault>> {
        self.enter(Launch::Launch)
    }

    pub(crate) fn resume(&mut self) -> Result<Option<Injected>, EntryError<Fault>> {
        self.enter(Launch::Resume)
    }

    pub(crate) fn exit(&mut self, exit: &VmExit) -> Result<(), Abort<Fault>> {
        let (vmx, mut context) = self.context();
        vmx.exit(exit, &mut context)
    }

    pub(crate) fn hlt(&mut self) {
        let exit = VmExit::of_instruction(vlbr_arch::vmx::ExitReason::HLT, 1);
        self.exit(&exit).unwrap();
    }

    pub(crate) fn access(
        &mut self,
        instruction: GuestMsr,
        msr: Msr,
    ) -> Result<u64, GuestMsrStop<Fault>> {
        let (vmx, mut context) = self.context();
        vmx.guest_msr(instruction, msr, vlbr_arch::Cpl::Ring0, &mut context)
    }

    pub(crate) fn rdmsr(&mut self, msr: Msr) -> u64 {
        self.msrs.rdmsr(msr).unwrap()
    }

    pub(crate) fn wrmsr(&mut self, msr: Msr, value: u64) {
        self.msrs.wrmsr(msr, value).unwrap();
    }

    pub(crate) fn retire(&mut self, transfer: Transfer) -> Verdict {
        self.clock += 1;
        self.msrs.lbr.retire(&transfer, Cycles::new(self.clock))
    }

    pub(crate) fn vmcs(&self) -> &Vmcs {
        self.vmx.vmcs().unwrap()
    }
}
