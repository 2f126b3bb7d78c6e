//! The processor under test as a side.

use vlbr_arch::vmx::{ExitReason, Interruptibility, InterruptionInfo, InterruptionType, VmcsField};
use vlbr_arch::{Cpl, Cycles, LvtPc, Msr, Transfer};
use vlbr_cpu::ledger::{Actor, Ledger, MsrAccess};
use vlbr_pmu::{Device as _, Increments, Source};
use vlbr_vmx::{
    Abort, AbortCause, Context, EntryError, Fail, GuestMsr, GuestMsrStop, Launch, LaunchState,
    OperandSize, Registers, State, VmExit, Vmx,
};

use crate::ends::{Ends, Event, Told};
use crate::model::{Access, Gprs, Mode};
use crate::msrs::{FastMsrs, Fault};
use crate::ram::Ram;
use crate::side::{Depth, Devices, Look, Seen, Side, Step, addresses, increments};

/// The processor under test.
#[derive(Clone, Debug)]
pub(crate) struct Fast {
    pub(crate) vmx: Vmx,
    pub(crate) options: vlbr_vmx::Options,
    pub(crate) msrs: FastMsrs,
    pub(crate) ram: Ram,
    pub(crate) registers: Registers,
    pub(crate) ledger: Ledger,
    pub(crate) tsc: u64,
}

fn of_fail(fail: Fail) -> Ends {
    match fail {
        Fail::NotInVmx => Ends::Undefined,
        Fail::NonRoot => Ends::WouldExit,
        Fail::NotNonRoot => Ends::NoGuest,
        Fail::Shutdown => Ends::ShutDown,
        Fail::Invalid(_) => Ends::FailInvalid,
        Fail::Valid { error, .. } => Ends::FailValid(error.number()),
        other => panic!("{other}"),
    }
}

fn of_done(done: Result<(), Fail>) -> Ends {
    done.map_or_else(of_fail, |()| Ends::Done)
}

fn of_exit(exit: &VmExit) -> Told {
    Told {
        reason: exit.reason.value(),
        qualification: exit.qualification,
        interruption: exit.interruption.bits(),
        error_code: exit.error_code,
        idt_vectoring: exit.idt_vectoring.bits(),
        idt_error_code: exit.idt_error_code,
        length: exit.instruction_length,
        info: exit.instruction_info,
        linear: exit.linear_address,
        physical: exit.physical_address,
        msr: exit.msr.map(Msr::value),
    }
}

fn of_told(told: &Told) -> VmExit {
    VmExit {
        reason: ExitReason::new(told.reason),
        qualification: told.qualification,
        interruption: InterruptionInfo::from_bits(told.interruption),
        error_code: told.error_code,
        idt_vectoring: InterruptionInfo::from_bits(told.idt_vectoring),
        idt_error_code: told.idt_error_code,
        instruction_length: told.length,
        instruction_info: told.info,
        linear_address: told.linear,
        physical_address: told.physical,
        msr: told.msr.map(Msr::new),
    }
}

fn of_told_or_not(exit: Result<Option<VmExit>, Fail>) -> Ends {
    match exit {
        Err(fail) => of_fail(fail),
        Ok(None) => Ends::Stays,
        Ok(Some(exit)) => Ends::Exited(of_exit(&exit)),
    }
}

fn of_abort(abort: &Abort<Fault>) -> Ends {
    match (abort.indicator, abort.cause) {
        (Some(indicator), _) => Ends::Aborted(indicator.indicator()),
        (None, AbortCause::State(fail)) => of_fail(fail),
        (None, other) => panic!("{other}"),
    }
}

const fn size(wide: bool) -> OperandSize {
    if wide {
        OperandSize::Bits64
    } else {
        OperandSize::Bits32
    }
}

impl Fast {
    fn context(&mut self) -> (&mut Vmx, Context<'_, FastMsrs, Ram>) {
        let context = Context {
            msrs: &mut self.msrs,
            memory: &mut self.ram,
            registers: &mut self.registers,
            ledger: &mut self.ledger,
            tsc: self.tsc,
        };
        (&mut self.vmx, context)
    }
}

impl Side for Fast {
    fn ram(&mut self) -> &mut Ram {
        &mut self.ram
    }

    fn memory(&self) -> (&Ram, &Ram) {
        (&self.ram, &self.msrs.store.ram)
    }

    fn power(&mut self) {
        self.vmx = Vmx::new(&self.vmx.profile().clone(), self.options.clone());
    }

    fn set_smm(&mut self, smm: bool) {
        self.vmx.set_smm(smm);
    }

    fn pass(&mut self, clocks: u64) {
        self.tsc += clocks;
        self.msrs.clock += clocks;
    }

    fn rdmsr(&mut self, actor: Actor, msr: u32) -> Ends {
        let read = self.ledger.rdmsr(actor, &mut self.msrs, Msr::new(msr));
        read.map_or_else(|fault| fault.0, Ends::Value)
    }

    fn wrmsr(&mut self, actor: Actor, msr: u32, value: u64) -> Ends {
        let written = self
            .ledger
            .wrmsr(actor, &mut self.msrs, Msr::new(msr), value);
        written.map_or_else(|fault| fault.0, |()| Ends::Done)
    }

    fn vmxon(&mut self, at: u64) -> Ends {
        of_done(self.vmx.vmxon(&self.ram, at))
    }

    fn vmxoff(&mut self) -> Ends {
        of_done(self.vmx.vmxoff())
    }

    fn vmclear(&mut self, at: u64) -> Ends {
        of_done(self.vmx.vmclear(at))
    }

    fn vmptrld(&mut self, at: u64) -> Ends {
        of_done(self.vmx.vmptrld(&self.ram, at))
    }

    fn vmptrst(&mut self) -> Ends {
        self.vmx.vmptrst().map_or_else(of_fail, Ends::Value)
    }

    fn vmread(&mut self, actor: Actor, field: VmcsField, wide: bool) -> Ends {
        let vmx = &mut self.vmx;
        let read = self
            .ledger
            .vmread(actor, field, || vmx.vmread(field, size(wide)));
        read.map_or_else(of_fail, Ends::Value)
    }

    fn vmwrite(&mut self, actor: Actor, field: VmcsField, value: u64, wide: bool) -> Ends {
        let vmx = &mut self.vmx;
        let written = self
            .ledger
            .vmwrite(actor, field, || vmx.vmwrite(field, value, size(wide)));
        of_done(written)
    }

    fn enter(&mut self, launch: bool, shadow: bool) -> Ends {
        let launch = if launch {
            Launch::Launch
        } else {
            Launch::Resume
        };
        let shadow = if shadow {
            Interruptibility::BLOCKING_BY_MOV_SS
        } else {
            Interruptibility::default()
        };
        let (vmx, mut context) = self.context();
        match vmx.enter(launch, shadow, &mut context) {
            Ok(event) => Ends::Entered(event.map(|event| Event {
                info: event.info.bits(),
                error_code: event.error_code,
                length: event.instruction_length,
            })),
            Err(EntryError::Instruction(fail)) => of_fail(fail),
            Err(EntryError::Failure(failure)) => {
                Ends::EntryFailed(failure.reason.value(), failure.qualification)
            }
            Err(EntryError::Abort { failure, abort }) => Ends::EntryAborted(
                failure.reason.value(),
                failure.qualification,
                abort.indicator.map_or(0, |indicator| indicator.indicator()),
            ),
            Err(other) => panic!("{other}"),
        }
    }

    fn exit(&mut self, told: &Told) -> Ends {
        let (vmx, mut context) = self.context();
        match vmx.exit(&of_told(told), &mut context) {
            Ok(()) => Ends::Done,
            Err(abort) => of_abort(&abort),
        }
    }

    fn guest_msr(&mut self, access: Access, msr: u32, cpl: u8) -> Ends {
        let instruction = match access {
            Access::Rdmsr => GuestMsr::Rdmsr,
            Access::Wrmsr(value) => GuestMsr::Wrmsr(value),
            Access::Wrmsrns(value) => GuestMsr::Wrmsrns(value),
            Access::RdmsrImmediate(length) => GuestMsr::RdmsrImmediate(length),
            Access::WrmsrnsImmediate(value, length) => GuestMsr::WrmsrnsImmediate(value, length),
        };
        let cpl = Cpl::from_number(cpl).expect("0 to 3");
        let (vmx, mut context) = self.context();
        match vmx.guest_msr(instruction, Msr::new(msr), cpl, &mut context) {
            Ok(value) => Ends::Value(value),
            Err(GuestMsrStop::State(fail)) => of_fail(fail),
            Err(GuestMsrStop::Privilege(_)) => Ends::Gp,
            Err(GuestMsrStop::Exit(exit)) => Ends::Exited(of_exit(&exit)),
            Err(GuestMsrStop::Gp(fault)) => fault.0,
        }
    }

    fn exception(&mut self, vector: u8, kind: u32, code: Option<u32>, dr6: u64) -> Ends {
        let kind = match kind {
            3 => InterruptionType::HardwareException,
            5 => InterruptionType::PrivilegedSoftwareException,
            _ => InterruptionType::SoftwareException,
        };
        of_told_or_not(self.vmx.exception(vector, kind, code, dr6))
    }

    fn nmi(&mut self) -> Ends {
        of_told_or_not(self.vmx.nmi())
    }

    fn external_interrupt(&mut self, vector: u8) -> Ends {
        of_told_or_not(self.vmx.external_interrupt(vector))
    }

    fn rdpmc_exits(&mut self) -> Ends {
        of_told_or_not(self.vmx.rdpmc())
    }

    fn rdpmc(&mut self, ecx: u32, cpl: Cpl, pce: bool) -> Ends {
        let read = self.msrs.cpu.rdpmc(ecx, cpl, pce);
        read.map_or(Ends::Gp, Ends::Value)
    }

    fn xsaves(&mut self, restore: bool, mask: u64, xss: u64) -> Ends {
        match self.vmx.xsaves(restore, mask, xss, 4) {
            Ok(None) => Ends::Undefined,
            Ok(Some(exit)) => of_told_or_not(Ok(exit)),
            Err(fail) => of_fail(fail),
        }
    }

    fn timer_exits(&self) -> Ends {
        of_told_or_not(self.vmx.preemption_timer(self.tsc))
    }

    fn set_lvtpc(&mut self, entry: u32) {
        self.msrs.cpu.pmu_mut().set_lvtpc(LvtPc::from_bits(entry));
    }

    /// In runs as long as the horizon allows.
    fn retire(&mut self, step: &Step) -> Seen {
        let mut seen = Seen::new();
        match step {
            Step::Plain(n, cpl) => {
                let mut left = *n;
                while left > 0 {
                    let bound = self.msrs.cpu.pmu().horizon().instructions();
                    let length = if bound > 1 { left.min(bound - 1) } else { 1 };
                    let mut run = Increments::new();
                    run.add(Source::Instructions, *cpl, length);
                    let outcome = self.msrs.retire(&run, None);
                    // Nothing happens before the end of a run; the reference looks each time.
                    for _ in 1..length {
                        seen.push(Default::default());
                    }
                    let interrupt = self.msrs.cpu.deliver();
                    seen.push((outcome, interrupt));
                    if interrupt.is_some() {
                        break;
                    }
                    left -= length;
                }
            }
            Step::NotTaken(_) => {
                if let Some(run) = increments(step) {
                    let outcome = self.msrs.retire(&run, None);
                    seen.push((outcome, self.msrs.cpu.deliver()));
                }
            }
            Step::Taken(transfer) => {
                let run = increments(step).unwrap_or_default();
                let outcome = self.msrs.retire(&run, Some(transfer));
                seen.push((outcome, self.msrs.cpu.deliver()));
            }
        }
        seen
    }

    fn record(&mut self, transfer: &Transfer) {
        let now = Cycles::new(self.msrs.clock);
        self.msrs.cpu.transfer(transfer, now, &mut self.msrs.store);
    }

    fn look(&mut self, depth: Depth) -> Look {
        Look {
            mode: match self.vmx.state() {
                State::Off => Mode::Off,
                State::Root => Mode::Root,
                State::NonRoot => Mode::NonRoot,
                State::Shutdown => Mode::Shutdown,
            },
            vmcs: self.vmx.vmcs().map(|vmcs| {
                let fields = vmcs.fields();
                (
                    vmcs.launch_state() == LaunchState::Launched,
                    fields
                        .map(|(field, value)| (field.encoding(), value))
                        .collect(),
                )
            }),
            gprs: Gprs {
                rip: self.registers.rip,
                rsp: self.registers.rsp,
                rflags: self.registers.rflags,
                dr7: self.registers.dr7,
            },
            timer: self.timer_exits(),
            rows: self
                .ledger
                .rows()
                .map(|(actor, row, count)| ((actor, row), count))
                .collect(),
            devices: (!matches!(depth, Depth::Nothing)).then(|| Devices {
                msrs: addresses(depth)
                    .map(|msr| {
                        let read = self.msrs.rdmsr(Msr::new(msr));
                        (msr, read.map_err(|fault| fault.0))
                    })
                    .collect(),
                records: vlbr_lbr::Device::records(self.msrs.cpu.lbr()),
                frozen: vlbr_lbr::Device::lbr_frz(self.msrs.cpu.lbr()),
                pending: self.msrs.cpu.pmu().pending(),
                lvtpc: self.msrs.cpu.pmu().lvtpc(),
                armed: self.msrs.cpu.pmu().armed(),
                horizon: self.msrs.cpu.pmu().horizon(),
            }),
        }
    }
}
