//! Steps about VMX: memory, VMCS accesses, entries, exits.

use vlbr_arch::Msr;
use vlbr_arch::vmx::{MsrArea, VmcsField};
use vlbr_vmx::{Access, AreaEntry, Launch, MsrBitmap, VmxProfile};

use super::flatten::{Flatten, value};
use super::hex::{self, Hex};
use super::step::{Expect, GuestAccess, Step};
use crate::compare::{Mismatch, eval, mismatch};
use crate::expr::Scope;
use crate::machine::view::{BITMAP, VMCS, VMXON, initial_fields, place};
use crate::{BitmapBits, GuestEvent, VmxOutcome, VmxRead, VmxStep};

impl From<VmxOutcome> for Expect {
    fn from(outcome: VmxOutcome) -> Self {
        match outcome {
            VmxOutcome::Ok => Self::Ok,
            VmxOutcome::Fail(0) => Self::VmfailInvalid,
            VmxOutcome::Fail(number) => Self::Vmfail { number },
            VmxOutcome::Exit(reason, qualification) => Self::Exit {
                reason: reason.into(),
                qualification: qualification.map(Hex),
            },
            VmxOutcome::Abort(indicator) => Self::Abort { indicator },
            VmxOutcome::Gp(fault) => fault.into(),
            VmxOutcome::Ud => Self::Ud,
        }
    }
}

fn read(expected: &VmxRead, scope: Scope) -> Result<Expect, Mismatch> {
    match expected {
        VmxRead::Value(check) => value(check, scope),
        VmxRead::Ends(outcome) => Ok((*outcome).into()),
    }
}

fn vmwrite(field: VmcsField, value: u64, expect: VmxOutcome) -> Step {
    Step::Vmwrite {
        field: field.encoding().into(),
        name: field.to_string(),
        value: Hex(value),
        expect: expect.into(),
    }
}

fn memory_write(address: u64, bytes: &[u8]) -> Step {
    Step::MemoryWrite {
        address: Hex(address),
        bytes: hex::bytes(bytes),
    }
}

/// VMXON and a current VMCS that enters.
fn on(at: &Flatten<'_, '_>) -> Result<Vec<Step>, Mismatch> {
    let capabilities = VmxProfile::of_processor(at.machine.profile().name())
        .map_err(|error| mismatch("VMX operation", error))?;
    let revision = capabilities.basic().revision().to_le_bytes();
    let mut steps = vec![
        memory_write(VMXON, &revision),
        memory_write(VMCS, &revision),
        Step::MemoryFill {
            address: Hex(BITMAP),
            length: 0x1000,
            byte: 0,
        },
        Step::Vmxon {
            address: Hex(VMXON),
        },
        Step::Vmclear { address: Hex(VMCS) },
        Step::Vmptrld { address: Hex(VMCS) },
    ];
    let fields = initial_fields(capabilities);
    steps.extend(
        fields
            .into_iter()
            .map(|(field, value)| vmwrite(field, value, VmxOutcome::Ok)),
    );
    Ok(steps)
}

/// The bytes of the page that a change of some bits changes, run by run.
fn bitmap_run(
    page: &[u8],
    exits: bool,
    access: Access,
    first: Msr,
    count: u64,
) -> Result<Vec<Step>, Mismatch> {
    let cannot = |error| mismatch("registers with a bit", error);
    let mut bitmap = MsrBitmap::from_page(page).map_err(cannot)?;
    let last = u32::try_from(count).ok().and_then(|n| n.checked_sub(1));
    let last = last.ok_or_else(|| mismatch("at least one register", count))?;
    bitmap
        .set_range(first..=first.plus(last), access, exits)
        .map_err(cannot)?;
    let new = bitmap.as_page();
    let mut steps = Vec::new();
    let mut place = 0;
    while let Some(start) = (place..new.len()).find(|n| new[*n] != page[*n]) {
        let end = (start..new.len()).find(|n| new[*n] == page[*n]);
        place = end.unwrap_or(new.len());
        steps.push(memory_write(BITMAP + start as u64, &new[start..place]));
    }
    Ok(steps)
}

/// The steps that `what` stands for.
pub(super) fn steps(
    at: &mut Flatten<'_, '_>,
    cpu: usize,
    what: &VmxStep,
    scope: Scope,
) -> Result<Vec<Step>, Mismatch> {
    let guest = |at: &Flatten<'_, '_>, cpl: vlbr_arch::Cpl, register, value, expect| {
        Ok::<_, Mismatch>(GuestAccess {
            cpl: cpl.number(),
            register: at.machine.address(register, scope)?.into(),
            value,
            expect,
        })
    };
    let one = match what {
        VmxStep::On => return on(at),
        VmxStep::Vmwrite(field, value, expected) => vmwrite(*field, eval(value, scope)?, *expected),
        VmxStep::Vmread(field, expected) => Step::Vmread {
            field: field.encoding().into(),
            name: field.to_string(),
            expect: read(expected, scope)?,
        },
        VmxStep::Bits(field, bits, set) => {
            let (old, bits) = (at.machine.vmcs_field(cpu, *field)?, eval(bits, scope)?);
            let value = if *set { old | bits } else { old & !bits };
            vmwrite(*field, value, VmxOutcome::Ok)
        }
        VmxStep::Bitmap(exits, BitmapBits::All) => Step::MemoryFill {
            address: Hex(BITMAP),
            length: 0x1000,
            byte: if *exits { 0xff } else { 0 },
        },
        VmxStep::Bitmap(exits, BitmapBits::Run(reads, register, count)) => {
            let access = if *reads { Access::Read } else { Access::Write };
            let first = at.machine.address(register, scope)?;
            let page = at.machine.bitmap_page(cpu)?;
            return bitmap_run(&page, *exits, access, first, eval(count, scope)?);
        }
        VmxStep::SetByte(place, value) => {
            let value = eval(value, scope)?;
            let byte = u8::try_from(value).map_err(|_| mismatch("a byte", value))?;
            memory_write(BITMAP + eval(place, scope)?, &[byte])
        }
        VmxStep::Byte(place, check) => Step::MemoryRead {
            address: Hex(BITMAP + eval(place, scope)?),
            size: 1,
            expect: value(check, scope)?,
        },
        VmxStep::Area(area, register, value, reserved) => {
            let (base, _, count) = place(*area);
            let reserved = eval(reserved, scope)?;
            let entry = AreaEntry {
                reserved: u32::try_from(reserved).map_err(|_| mismatch("32 bits", reserved))?,
                ..AreaEntry::new(at.machine.address(register, scope)?, eval(value, scope)?)
            };
            let n = at.machine.vmcs_field(cpu, count)?;
            return Ok(vec![
                memory_write(base + 16 * n, &entry.to_bytes()),
                vmwrite(count, n + 1, VmxOutcome::Ok),
            ]);
        }
        VmxStep::Stored(n, check) => Step::MemoryRead {
            address: Hex((place(MsrArea::ExitStore).0 + 16 * eval(n, scope)?).saturating_sub(8)),
            size: 8,
            expect: value(check, scope)?,
        },
        VmxStep::Enter(launch, expected) => Step::VmEntry {
            instruction: match launch {
                Launch::Launch => "vmlaunch",
                Launch::Resume => "vmresume",
            },
            vmcs: at.machine.vmcs_text(cpu)?.unwrap_or_default(),
            expect: (*expected).into(),
        },
        VmxStep::Exit(reason, expected) => Step::VmExit {
            reason: Hex(eval(reason, scope)?),
            instruction_length: 1,
            expect: (*expected).into(),
        },
        VmxStep::Rdmsr(cpl, register, expected) => {
            let expect = read(expected, scope)?;
            Step::GuestRdmsr(guest(at, *cpl, register, None, expect)?)
        }
        VmxStep::Wrmsr(cpl, register, value, expected) => {
            let value = Some(Hex(eval(value, scope)?));
            Step::GuestWrmsr(guest(at, *cpl, register, value, (*expected).into())?)
        }
        VmxStep::Wrmsrns(cpl, register, value, expected) => {
            let value = Some(Hex(eval(value, scope)?));
            Step::GuestWrmsrns(guest(at, *cpl, register, value, (*expected).into())?)
        }
        VmxStep::Rdpmc(cpl, pce, ecx, expected) => Step::GuestRdpmc {
            ecx: Hex(eval(ecx, scope)?),
            cpl: cpl.number(),
            pce: *pce,
            expect: read(expected, scope)?,
        },
        VmxStep::Event(event, expected) => {
            let (event, vector, error_code) = match *event {
                GuestEvent::Nmi => ("nmi", None, None),
                GuestEvent::Interrupt(vector) => ("interrupt", Some(vector), None),
                GuestEvent::Exception(vector, error) => ("exception", Some(vector), error),
            };
            Step::GuestEvent {
                event,
                vector,
                error_code: error_code.map(Hex::from),
                expect: (*expected).into(),
            }
        }
        VmxStep::Xsaves(restore, expected) => {
            let expect = (*expected).into();
            if *restore {
                Step::GuestXrstors { expect }
            } else {
                Step::GuestXsaves { expect }
            }
        }
        VmxStep::Timer(exits) => Step::PreemptionTimer { exits: *exits },
    };
    Ok(vec![one])
}
