//! The VMX side of a logical processor.

use std::collections::BTreeMap;

use vlbr_arch::Msr;
use vlbr_arch::vmx::{ExitReason, Interruptibility, InterruptionType, MsrArea, VmcsField};
use vlbr_cpu::ledger::{Ledger, MsrAccess};
use vlbr_cpu::processor::{MsrFault, MsrOperation, MsrReason};
use vlbr_lbr::Profile;
use vlbr_vmx::{
    Abort, Access, AreaEntry, Context, EntryError, Fail, GuestMsr, GuestMsrStop, MsrBitmap,
    OperandSize, Options, PhysicalMemory, Registers, VmExit, Vmx, VmxProfile,
};

use super::Machine;
use crate::compare::{Mismatch, Outcome, compare, eval, hex, mismatch};
use crate::expr::Scope;
use crate::smt::Core;
use crate::{BitmapBits, Check, Fault, GuestEvent, VmxOutcome, VmxRead, VmxStep};

pub(crate) const VMXON: u64 = 0x1000;
pub(crate) const VMCS: u64 = 0x2000;
pub(crate) const BITMAP: u64 = 0x3000;
const HOST_RIP: u64 = 0xffff_8000_0000_1000;
const GUEST_RIP: u64 = 0x40_1000;
const LBR_STATE: u64 = 1 << 15;

/// Where an area begins and which fields say so.
pub(crate) const fn place(area: MsrArea) -> (u64, VmcsField, VmcsField) {
    match area {
        MsrArea::EntryLoad => (
            0x1_0000,
            VmcsField::VM_ENTRY_MSR_LOAD_ADDR,
            VmcsField::VM_ENTRY_MSR_LOAD_COUNT,
        ),
        MsrArea::ExitStore => (
            0x2_0000,
            VmcsField::VM_EXIT_MSR_STORE_ADDR,
            VmcsField::VM_EXIT_MSR_STORE_COUNT,
        ),
        MsrArea::ExitLoad => (
            0x3_0000,
            VmcsField::VM_EXIT_MSR_LOAD_ADDR,
            VmcsField::VM_EXIT_MSR_LOAD_COUNT,
        ),
    }
}

/// Memory by pages; what was never written reads as ones.
#[derive(Debug, Default)]
struct Ram(BTreeMap<u64, Box<[u8; PAGE]>>);

const PAGE: usize = 0x1000;

/// Page and place in it.
const fn split(at: u64) -> (u64, usize) {
    (at / PAGE as u64, at as usize % PAGE)
}

impl PhysicalMemory for Ram {
    fn read(&self, address: u64, bytes: &mut [u8]) {
        for (offset, byte) in (0..).zip(bytes) {
            let (page, place) = split(address.wrapping_add(offset));
            *byte = self.0.get(&page).map_or(0xff, |page| page[place]);
        }
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        for (offset, byte) in (0..).zip(bytes) {
            let (page, place) = split(address.wrapping_add(offset));
            let page = self.0.entry(page);
            page.or_insert_with(|| Box::new([0xff; PAGE]))[place] = *byte;
        }
    }
}

/// The registers of one logical processor of the core.
#[derive(Debug)]
struct Msrs<'a> {
    core: &'a mut Core,
    cpu: usize,
}

const fn no_such(msr: Msr, operation: MsrOperation) -> MsrFault {
    MsrFault {
        msr,
        operation,
        reason: MsrReason::NoSuchMsr,
    }
}

impl MsrAccess for Msrs<'_> {
    type Fault = MsrFault;

    fn rdmsr(&mut self, msr: Msr) -> Result<u64, MsrFault> {
        let thread = self.core.thread(self.cpu);
        thread.map_or(Err(no_such(msr, MsrOperation::Read)), |thread| {
            thread.rdmsr(msr)
        })
    }

    fn wrmsr(&mut self, msr: Msr, value: u64) -> Result<(), MsrFault> {
        let written = self.core.wrmsr(self.cpu, msr, value);
        written.unwrap_or(Err(no_such(msr, MsrOperation::Write(value))))
    }

    fn reserved_bits(&self, msr: Msr) -> u64 {
        self.core.reserved_bits(self.cpu, msr)
    }
}

/// A processor in VMX operation with the memory that its VMCS speaks of.
#[derive(Debug)]
pub(super) struct Side {
    vmx: Vmx,
    ram: Ram,
    registers: Registers,
    ledger: Ledger,
}

/// What has become of a step.
enum End {
    Value(u64),
    Is(VmxOutcome, String),
    /// The part would do it, the model cannot: no scenario can expect that.
    Unmodelled(String),
}

impl End {
    const OK: Self = Self::Is(VmxOutcome::Ok, String::new());

    fn of_fail(fail: Fail) -> Self {
        let outcome = match fail {
            Fail::NotInVmx => VmxOutcome::Ud,
            Fail::Valid { error, .. } => VmxOutcome::Fail(error.number()),
            _ => VmxOutcome::Fail(0),
        };
        Self::Is(outcome, fail.to_string())
    }

    fn of_abort(abort: &Abort<MsrFault>) -> Self {
        let number = abort.indicator.map_or(0, |abort| abort.indicator());
        Self::Is(VmxOutcome::Abort(number), abort.to_string())
    }

    fn of_exit(exit: &VmExit) -> Self {
        let (reason, qualification) = (exit.reason.value(), exit.qualification);
        Self::Is(
            VmxOutcome::Exit(reason, Some(qualification)),
            format!("exit {reason:#x} {qualification}: {}", exit.reason),
        )
    }

    fn compare(self, expected: VmxOutcome) -> Outcome {
        let (found, text) = match self {
            Self::Value(value) => (VmxOutcome::Ok, hex(value)),
            Self::Is(found, text) => (found, text),
            Self::Unmodelled(text) => return Err(mismatch(expected, text)),
        };
        let same = match (expected, found) {
            (VmxOutcome::Gp(expected), VmxOutcome::Gp(found)) => expected.accepts(found),
            (VmxOutcome::Exit(reason, None), VmxOutcome::Exit(found, _)) => reason == found,
            _ => expected == found,
        };
        if same {
            return Ok(());
        }
        let text = if text.is_empty() {
            "ok".to_owned()
        } else {
            text
        };
        Err(mismatch(expected, text))
    }

    fn compare_read(self, expected: &VmxRead, scope: Scope) -> Outcome {
        match (expected, self) {
            (VmxRead::Value(check), Self::Value(found)) => compare(check, found, scope),
            (VmxRead::Value(check), Self::Is(_, text) | Self::Unmodelled(text)) => {
                Err(mismatch(hex(eval(&check.value, scope)?), text))
            }
            (VmxRead::Ends(expected), end) => end.compare(*expected),
        }
    }
}

impl core::fmt::Display for VmxOutcome {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Fail(0) => f.write_str("VMfailInvalid"),
            Self::Fail(number) => write!(f, "VMfail {number}"),
            Self::Exit(reason, None) => write!(f, "exit {reason:#x}"),
            Self::Exit(reason, Some(qualification)) => {
                write!(f, "exit {reason:#x} {qualification}")
            }
            Self::Abort(number) => write!(f, "abort {number}"),
            Self::Gp(fault) => fault.fmt(f),
            Self::Ud => f.write_str("#UD"),
        }
    }
}

/// What `vmx on` writes into the VMCS.
pub(crate) fn initial_fields(capabilities: &VmxProfile) -> Vec<(VmcsField, u64)> {
    let controls = [
        (VmcsField::PIN_BASED_VM_EXEC_CONTROL, capabilities.pin(), 0),
        (
            VmcsField::CPU_BASED_VM_EXEC_CONTROL,
            capabilities.primary(),
            1 << 28,
        ),
        (VmcsField::VM_EXIT_CONTROLS, capabilities.exit(), 1 << 2),
        (VmcsField::VM_ENTRY_CONTROLS, capabilities.entry(), 1 << 2),
    ];
    let areas = [MsrArea::EntryLoad, MsrArea::ExitStore, MsrArea::ExitLoad];
    controls
        .into_iter()
        .map(|(field, allowed, wanted)| (field, u64::from(allowed.adjust(wanted))))
        .chain(areas.map(|area| (place(area).1, place(area).0)))
        .chain([
            (VmcsField::MSR_BITMAP, BITMAP),
            (VmcsField::GUEST_CR0, 0x8000_0021),
            (VmcsField::GUEST_RFLAGS, 2),
            (VmcsField::GUEST_RIP, GUEST_RIP),
            (VmcsField::HOST_RIP, HOST_RIP),
        ])
        .collect()
}

impl Side {
    /// In root operation, with a current VMCS that enters, as scenarios/README.md describes it.
    fn on(profile: &Profile) -> Result<Self, Mismatch> {
        let cannot = |error: &dyn core::fmt::Display| mismatch("VMX operation", error);
        let capabilities =
            VmxProfile::of_processor(profile.name()).map_err(|error| cannot(&error))?;
        let mut side = Self {
            vmx: Vmx::new(capabilities, Options::default()),
            ram: Ram::default(),
            registers: Registers::default(),
            ledger: Ledger::new(),
        };
        for at in [VMXON, VMCS] {
            let revision = capabilities.basic().revision();
            side.ram.write(at, &u64::from(revision).to_le_bytes());
        }
        MsrBitmap::intercepting_none()
            .store(&mut side.ram, BITMAP)
            .map_err(|error| cannot(&error))?;
        side.vmx
            .vmxon(&side.ram, VMXON)
            .and_then(|()| side.vmx.vmclear(VMCS))
            .and_then(|()| side.vmx.vmptrld(&side.ram, VMCS))
            .map_err(|error| cannot(&error))?;
        for (field, value) in initial_fields(capabilities) {
            side.write(field, value)?;
        }
        Ok(side)
    }

    /// The current VMCS as text.
    pub(super) fn vmcs_text(&self) -> Option<String> {
        Some(self.vmx.vmcs()?.to_string())
    }

    /// The MSR-bitmap page.
    pub(super) fn bitmap_page(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        self.ram.read(BITMAP, &mut page);
        page
    }

    pub(super) fn read(&mut self, field: VmcsField) -> Result<u64, Mismatch> {
        let read = self.vmx.vmread(field, OperandSize::Bits64);
        read.map_err(|fail| mismatch(format!("VMREAD {field}"), fail))
    }

    fn write(&mut self, field: VmcsField, value: u64) -> Outcome {
        let written = self.vmx.vmwrite(field, value, OperandSize::Bits64);
        written.map_err(|fail| mismatch(format!("VMWRITE {field}"), fail))
    }

    fn bitmap(&mut self, change: impl FnOnce(&mut MsrBitmap) -> Outcome) -> Outcome {
        let cannot = |error| mismatch("an MSR bitmap", error);
        let mut bitmap = MsrBitmap::load(&self.ram, BITMAP).map_err(cannot)?;
        change(&mut bitmap)?;
        bitmap.store(&mut self.ram, BITMAP).map_err(cannot)
    }

    /// Adds an entry to an area.
    fn append(&mut self, area: MsrArea, entry: AreaEntry) -> Outcome {
        let (base, _, count) = place(area);
        let n = self.read(count)?;
        self.ram.write(base + 16 * n, &entry.to_bytes());
        self.write(count, n + 1)
    }

    fn context<'a, 'm>(
        &'a mut self,
        msrs: &'a mut Msrs<'m>,
        tsc: u64,
    ) -> (&'a mut Vmx, Context<'a, Msrs<'m>, Ram>) {
        let context = Context {
            msrs,
            memory: &mut self.ram,
            registers: &mut self.registers,
            ledger: &mut self.ledger,
            tsc,
        };
        (&mut self.vmx, context)
    }

    fn exit(&mut self, exit: &VmExit, msrs: &mut Msrs<'_>, tsc: u64) -> End {
        let (vmx, mut context) = self.context(msrs, tsc);
        match vmx.exit(exit, &mut context) {
            Ok(()) => End::OK,
            Err(abort) => End::of_abort(&abort),
        }
    }

    /// The exit is made, and told unless it aborts.
    fn told(&mut self, exit: &VmExit, msrs: &mut Msrs<'_>, tsc: u64) -> End {
        match self.exit(exit, msrs, tsc) {
            End::Is(VmxOutcome::Ok, _) => End::of_exit(exit),
            other => other,
        }
    }

    fn enter(&mut self, launch: vlbr_vmx::Launch, msrs: &mut Msrs<'_>, tsc: u64) -> End {
        let (vmx, mut context) = self.context(msrs, tsc);
        match vmx.enter(launch, Interruptibility::default(), &mut context) {
            Ok(_) => End::OK,
            Err(EntryError::Instruction(fail)) => End::of_fail(fail),
            Err(EntryError::Failure(failure)) => End::Is(
                VmxOutcome::Exit(failure.reason.value(), Some(failure.qualification)),
                format!(
                    "exit {:#x} {}: {failure}",
                    failure.reason.value(),
                    failure.qualification
                ),
            ),
            Err(EntryError::Abort { abort, .. }) => End::of_abort(&abort),
            Err(other) => End::Is(VmxOutcome::Fail(0), other.to_string()),
        }
    }

    fn access(
        &mut self,
        instruction: GuestMsr,
        (cpl, msr): (vlbr_arch::Cpl, Msr),
        msrs: &mut Msrs<'_>,
        tsc: u64,
    ) -> End {
        let (vmx, mut context) = self.context(msrs, tsc);
        match vmx.guest_msr(instruction, msr, cpl, &mut context) {
            Ok(value) => End::Value(value),
            Err(GuestMsrStop::State(fail)) => End::of_fail(fail),
            Err(stop @ GuestMsrStop::Privilege(_)) => {
                End::Is(VmxOutcome::Gp(Fault::Privilege), stop.to_string())
            }
            Err(GuestMsrStop::Exit(exit)) => self.told(&exit, msrs, tsc),
            Err(GuestMsrStop::Gp(fault)) => {
                let text = fault.to_string();
                match Fault::of_msr(&fault.reason) {
                    Some(reason) => End::Is(VmxOutcome::Gp(reason), text),
                    None => End::Unmodelled(text),
                }
            }
        }
    }
}

impl Side {
    fn event(&mut self, event: GuestEvent, msrs: &mut Msrs<'_>, tsc: u64) -> End {
        let exit = match event {
            GuestEvent::Nmi => self.vmx.nmi(),
            GuestEvent::Interrupt(vector) => self.vmx.external_interrupt(vector),
            GuestEvent::Exception(vector, error) => {
                let kind = match vector {
                    3 | 4 => InterruptionType::SoftwareException,
                    _ => InterruptionType::HardwareException,
                };
                self.vmx.exception(vector, kind, error, 0)
            }
        };
        match exit {
            Err(fail) => End::of_fail(fail),
            Ok(None) => End::OK,
            Ok(Some(exit)) => self.told(&exit, msrs, tsc),
        }
    }

    /// Privilege first, then the exit, then whether there is such a counter.
    fn rdpmc(
        &mut self,
        ecx: u32,
        (cpl, pce): (vlbr_arch::Cpl, bool),
        msrs: &mut Msrs<'_>,
        tsc: u64,
    ) -> End {
        let gp = |fault: vlbr_pmu::GpFault| {
            End::Is(
                VmxOutcome::Gp(Fault::of_pmu(&fault.reason)),
                fault.to_string(),
            )
        };
        let read = msrs.core.thread(msrs.cpu);
        let read = read.map(|thread| thread.pmu().rdpmc(ecx, cpl, pce));
        match (self.vmx.rdpmc(), read) {
            (Err(fail), _) => End::of_fail(fail),
            (Ok(_), Some(Err(fault))) if fault.reason == vlbr_pmu::GpReason::Privilege => gp(fault),
            (Ok(Some(exit)), _) => self.told(&exit, msrs, tsc),
            (Ok(None), Some(Ok(value))) => End::Value(value),
            (Ok(None), Some(Err(fault))) => gp(fault),
            (Ok(None), None) => End::Unmodelled("no such logical processor".to_owned()),
        }
    }
}

fn byte_of(at: u64) -> Result<u64, Mismatch> {
    match at {
        0..0x1000 => Ok(BITMAP + at),
        _ => Err(mismatch("a byte of the page, below 0x1000", at)),
    }
}

impl Machine<'_> {
    /// Does or compares what a step about VMX says.
    pub(super) fn vmx_step(&mut self, cpu: usize, step: &VmxStep, scope: Scope) -> Outcome {
        if *step == VmxStep::On {
            self.vmx.insert(cpu, Side::on(self.profile)?);
            return Ok(());
        }
        let register = match step {
            VmxStep::Bitmap(_, BitmapBits::Run(_, register, _))
            | VmxStep::Area(_, register, ..)
            | VmxStep::Rdmsr(_, register, _)
            | VmxStep::Wrmsr(_, register, ..)
            | VmxStep::Wrmsrns(_, register, ..) => self.address(register, scope)?,
            _ => Msr::DEBUGCTL,
        };
        let tsc = self.clock;
        let msrs = &mut Msrs {
            core: &mut self.core,
            cpu,
        };
        let Some(side) = self.vmx.get_mut(&cpu) else {
            return Err(mismatch(
                "vmx on before",
                "a processor outside VMX operation",
            ));
        };
        match step {
            VmxStep::On => Ok(()),
            VmxStep::Vmwrite(field, value, expected) => {
                let value = eval(value, scope)?;
                match side.vmx.vmwrite(*field, value, OperandSize::Bits64) {
                    Ok(()) => End::OK,
                    Err(fail) => End::of_fail(fail),
                }
                .compare(*expected)
            }
            VmxStep::Vmread(field, expected) => {
                match side.vmx.vmread(*field, OperandSize::Bits64) {
                    Ok(value) => End::Value(value),
                    Err(fail) => End::of_fail(fail),
                }
                .compare_read(expected, scope)
            }
            VmxStep::Bits(field, bits, set) => {
                let (old, bits) = (side.read(*field)?, eval(bits, scope)?);
                side.write(*field, if *set { old | bits } else { old & !bits })
            }
            VmxStep::Bitmap(exits, BitmapBits::All) => side.bitmap(|bitmap| {
                *bitmap = if *exits {
                    MsrBitmap::intercepting_all()
                } else {
                    MsrBitmap::intercepting_none()
                };
                Ok(())
            }),
            VmxStep::Bitmap(exits, BitmapBits::Run(read, _, count)) => {
                let count = eval(count, scope)?;
                let last = u32::try_from(count).ok().and_then(|n| n.checked_sub(1));
                let last = last.ok_or_else(|| mismatch("at least one register", count))?;
                let access = if *read { Access::Read } else { Access::Write };
                side.bitmap(|bitmap| {
                    bitmap
                        .set_range(register..=register.plus(last), access, *exits)
                        .map_err(|error| mismatch("registers with a bit", error))
                })
            }
            VmxStep::SetByte(at, value) => {
                let at = byte_of(eval(at, scope)?)?;
                let value = eval(value, scope)?;
                let byte = u8::try_from(value).map_err(|_| mismatch("a byte", value))?;
                side.ram.write(at, &[byte]);
                Ok(())
            }
            VmxStep::Byte(at, check) => {
                let at = byte_of(eval(at, scope)?)?;
                let mut byte = [0];
                side.ram.read(at, &mut byte);
                compare(check, byte[0].into(), scope)
            }
            VmxStep::Area(area, _, value, reserved) => {
                let reserved = eval(reserved, scope)?;
                let entry = AreaEntry {
                    reserved: u32::try_from(reserved).map_err(|_| mismatch("32 bits", reserved))?,
                    ..AreaEntry::new(register, eval(value, scope)?)
                };
                side.append(*area, entry)
            }
            VmxStep::Stored(n, check) => side.compare_stored(eval(n, scope)?, check, scope),
            VmxStep::Enter(launch, expected) => side.enter(*launch, msrs, tsc).compare(*expected),
            VmxStep::Exit(reason, expected) => {
                let reason = eval(reason, scope)?;
                let number =
                    u32::try_from(reason).map_err(|_| mismatch("an exit reason", reason))?;
                let exit = VmExit::of_instruction(ExitReason::new(number), 1);
                side.exit(&exit, msrs, tsc).compare(*expected)
            }
            VmxStep::Rdmsr(cpl, _, expected) => side
                .access(GuestMsr::Rdmsr, (*cpl, register), msrs, tsc)
                .compare_read(expected, scope),
            VmxStep::Wrmsr(cpl, _, value, expected) => {
                let write = GuestMsr::Wrmsr(eval(value, scope)?);
                side.access(write, (*cpl, register), msrs, tsc)
                    .compare(*expected)
            }
            VmxStep::Wrmsrns(cpl, _, value, expected) => {
                let write = GuestMsr::Wrmsrns(eval(value, scope)?);
                side.access(write, (*cpl, register), msrs, tsc)
                    .compare(*expected)
            }
            VmxStep::Rdpmc(cpl, pce, ecx, expected) => {
                let ecx = eval(ecx, scope)?;
                let ecx = u32::try_from(ecx).map_err(|_| mismatch("ECX of 32 bits", ecx))?;
                side.rdpmc(ecx, (*cpl, *pce), msrs, tsc)
                    .compare_read(expected, scope)
            }
            VmxStep::Event(event, expected) => side.event(*event, msrs, tsc).compare(*expected),
            VmxStep::Xsaves(restore, expected) => {
                match side.vmx.xsaves(*restore, LBR_STATE, LBR_STATE, 3) {
                    Err(fail) => End::of_fail(fail),
                    Ok(None) => End::Is(VmxOutcome::Ud, "#UD".to_owned()),
                    Ok(Some(None)) => End::OK,
                    Ok(Some(Some(exit))) => side.told(&exit, msrs, tsc),
                }
                .compare(*expected)
            }
            VmxStep::Timer(exits) => match side.vmx.preemption_timer(tsc) {
                Err(fail) => Err(mismatch("a guest", fail)),
                Ok(None) if *exits => Err(mismatch("the timer exits", "it does not")),
                Ok(Some(_)) if !*exits => Err(mismatch("the timer runs", "it exits")),
                Ok(None) => Ok(()),
                Ok(Some(exit)) => side.exit(&exit, msrs, tsc).compare(VmxOutcome::Ok),
            },
        }
    }
}

impl Side {
    fn compare_stored(&mut self, n: u64, check: &Check, scope: Scope) -> Outcome {
        let (base, _, count) = place(MsrArea::ExitStore);
        let count = self.read(count)?;
        if n == 0 || n > count {
            return Err(mismatch(format!("an entry from 1 to {count}"), n));
        }
        let mut word = [0; 8];
        self.ram.read(base + 16 * n - 8, &mut word);
        compare(check, u64::from_le_bytes(word), scope)
    }
}
