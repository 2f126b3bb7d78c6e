//! Driving both processors.

use std::collections::BTreeMap;

use vlbr_arch::vmx::VmcsField;
use vlbr_arch::{BranchClass, FarKind, Msr, Transfer};
use vlbr_cpu::ledger::Ledger;
use vlbr_cpu::processor::{LogicalProcessor, UnknownMsrs};
use vlbr_lbr::Interface;
use vlbr_pmu::{Interrupt, Source, SourceSet, Unfed};
use vlbr_vmx::{BeyondLimit, Options, Registers, Vmx, VmxProfile};

use crate::ends::Ends;
use crate::fast::Fast;
use crate::model::{Access, Capabilities, Choices, Mode, Slow};
use crate::msrs::{FastMsrs, SlowMsrs, Store};
use crate::ops::{AREAS, BITMAP, HOST, Op, VMCS, VMXON};
use crate::ram::Ram;
use crate::side::{Depth, Seen, Side, Step, TURNS};

/// What happened, to see that the generator reaches it.
pub(crate) type Tally = BTreeMap<String, u64>;

pub(crate) struct Pair {
    pub(crate) fast: Fast,
    pub(crate) slow: Slow,
    pub(crate) tally: Tally,
    turn: u32,
}

/// A processor as data: its name, and the text of its VMX profile.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) cpu: String,
    pub(crate) text: String,
}

/// What both processors are made with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    pub(crate) vmx: Options,
    pub(crate) feeds_inserts: bool,
    pub(crate) skid: u64,
    pub(crate) x2apic: bool,
    pub(crate) ignores: bool,
    pub(crate) alternative_format: bool,
}

impl Pair {
    pub(crate) fn new(part: &Part, setup: &Setup) -> Self {
        let lbr = vlbr_lbr::Profile::named(&part.cpu).expect("built in");
        let pmu = vlbr_pmu::Profile::named(&part.cpu).expect("built in");
        let vmx = VmxProfile::from_toml(&part.text).expect("a profile");
        let capabilities = Capabilities::from_text(&part.text);
        let told = SourceSet::RETIREMENT.with(SourceSet::MISPREDICTIONS);
        let of_lbr = vlbr_lbr::Options {
            alternative_format: setup.alternative_format,
            ..vlbr_lbr::Options::default()
        };
        let of_pmu = vlbr_pmu::Options {
            feeds: if setup.feeds_inserts {
                told.with(SourceSet::of(Source::LbrInserts))
            } else {
                told
            },
            unfed: Unfed::Hold,
            skid: setup.skid,
            ..vlbr_pmu::Options::default()
        };
        let of_cpu = vlbr_cpu::processor::Options {
            lbr: of_lbr.clone(),
            pmu: of_pmu.clone(),
            unknown_msrs: if setup.ignores {
                UnknownMsrs::Ignore
            } else {
                UnknownMsrs::Fault
            },
            x2apic: setup.x2apic,
        };
        let options = &setup.vmx;
        let fast = Fast {
            vmx: Vmx::new(&vmx, options.clone()),
            options: options.clone(),
            msrs: FastMsrs {
                cpu: LogicalProcessor::new(lbr, pmu, of_cpu).expect("one part"),
                vmx,
                store: Store::default(),
                clock: 0,
            },
            ram: Ram::default(),
            registers: Registers::default(),
            ledger: Ledger::new(),
            tsc: 0,
        };
        let format = match lbr.interface() {
            Interface::Legacy(legacy) if setup.alternative_format => {
                legacy.format_alternative.unwrap_or(legacy.format)
            }
            _ => lbr.format(),
        };
        let choices = Choices {
            physical_address_bits: options.physical_address_bits.into(),
            long_area_checks: options.area_beyond_limit == BeyondLimit::MachineCheck,
            banned: options.area_banned.iter().copied().collect(),
        };
        let msrs = SlowMsrs {
            others: SlowMsrs::others(lbr, pmu),
            format: format.value().into(),
            lbr: vlbr_lbr::reference::Lbr::new(lbr, of_lbr),
            pmu: vlbr_pmu::reference::Pmu::new(pmu, of_pmu),
            capabilities: capabilities.0.clone(),
            x2apic: setup.x2apic,
            ignores: setup.ignores,
            store: Store::default(),
            clock: 0,
        };
        let mut pair = Self {
            fast,
            slow: Slow::new(capabilities, choices, msrs),
            tally: Tally::new(),
            turn: 0,
        };
        pair.boot();
        pair
    }

    fn count(&mut self, what: impl Into<String>) {
        *self.tally.entry(what.into()).or_default() += 1;
    }

    fn count_ends(&mut self, ends: &Ends) {
        match ends {
            Ends::FailValid(number) => self.count(format!("VMfail {number}")),
            Ends::FailInvalid => self.count("VMfailInvalid"),
            Ends::Entered(None) => self.count("entered"),
            Ends::Entered(Some(_)) => self.count("entered with an event"),
            Ends::EntryFailed(reason, _) => {
                self.count(format!("entry failed {}", reason & 0xffff));
            }
            Ends::EntryAborted(..) => self.count("entry aborted"),
            Ends::Exited(told) => self.count(format!("exit {}", told.reason)),
            Ends::Aborted(indicator) => self.count(format!("abort {indicator}")),
            _ => {}
        }
    }

    /// Both do it, and it ends alike.
    fn both(&mut self, what: &dyn core::fmt::Debug, act: impl Fn(&mut dyn Side) -> Ends) -> Ends {
        let fast = act(&mut self.fast);
        let slow = act(&mut self.slow);
        let at = self.slow.current;
        assert_eq!(
            fast,
            slow,
            "{what:?} ends otherwise with {:x?}",
            at.and_then(|at| self.slow.regions.get(&at))
        );
        self.count_ends(&fast);
        fast
    }

    fn memory(&mut self, change: impl Fn(&mut Ram)) {
        change(self.fast.ram());
        change(self.slow.ram());
    }

    fn vmwrite(&mut self, field: VmcsField, value: u64) {
        self.both(&field, |side| side.vmwrite(HOST, field, value, true));
    }

    /// Regions in memory, an open bitmap, root operation with a current VMCS.
    fn boot(&mut self) {
        let revision = self.slow.capabilities.revision();
        self.memory(|ram| {
            for at in [VMXON, VMCS[0], VMCS[1]] {
                ram.set_word(at, revision, 8);
            }
            for n in 0..512 {
                ram.set_word(BITMAP + 8 * n, 0, 8);
            }
        });
        self.both(&"boot", |side| side.vmxon(VMXON));
        self.both(&"boot", |side| side.vmptrld(VMCS[0]));
        self.prepare(&[0, 1 << 28, 0, 1 << 2, 1 << 2]);
    }

    fn prepare(&mut self, wanted: &[u64; 5]) {
        for (field, value) in VECTORS.into_iter().zip(wanted) {
            let vector = crate::model::VECTORS
                .into_iter()
                .find(|vector| vector.field == field)
                .expect("five vectors");
            let value = self.slow.capabilities.adjusted(vector, *value);
            self.vmwrite(field, value);
        }
        for (at, address, count) in AREAS {
            self.vmwrite(VmcsField::new(address), at);
            self.vmwrite(VmcsField::new(count), 0);
        }
        for (field, value) in [
            (VmcsField::MSR_BITMAP, BITMAP),
            (VmcsField::GUEST_IA32_DEBUGCTL, 1),
            (VmcsField::GUEST_IA32_PERF_GLOBAL_CTRL, 3),
            (VmcsField::HOST_IA32_PERF_GLOBAL_CTRL, 1),
            (VmcsField::GUEST_IA32_LBR_CTL, 0x7f_0007),
            (VmcsField::GUEST_DR7, 0x400),
            (VmcsField::GUEST_RFLAGS, 2),
            (VmcsField::GUEST_RIP, 0x40_1000),
            (VmcsField::GUEST_CR0, 0x8000_0021),
            (VmcsField::GUEST_ACTIVITY_STATE, 0),
            (VmcsField::GUEST_INTERRUPTIBILITY_INFO, 0),
            (VmcsField::GUEST_PENDING_DBG_EXCEPTIONS, 0),
            (VmcsField::VM_ENTRY_INTR_INFO_FIELD, 0),
            (VmcsField::VMX_PREEMPTION_TIMER_VALUE, 20),
            (VmcsField::HOST_RIP, 0xffff_8000_0000_1000),
        ] {
            self.vmwrite(field, value);
        }
    }

    /// Does it on both, and compares: everything if registers may have changed.
    pub(crate) fn apply(&mut self, op: &Op) {
        self.act(op);
        let registers = !matches!(
            op,
            Op::Vmxoff
                | Op::Vmclear(_)
                | Op::Vmptrld(_)
                | Op::Vmptrst
                | Op::Vmread(..)
                | Op::Vmwrite(..)
                | Op::Control(..)
                | Op::Prepare(_)
                | Op::Area(..)
                | Op::Bitmap { .. }
                | Op::Poke(..)
                | Op::Pass(_)
                | Op::Smm(_)
        );
        self.turn += 1;
        let depth = if registers {
            Depth::Turn(self.turn % TURNS)
        } else {
            Depth::Nothing
        };
        self.compare(op, depth);
    }

    /// After the last step.
    pub(crate) fn finish(&mut self) {
        self.compare(&"the end", Depth::Everything);
    }

    fn act(&mut self, op: &Op) {
        match op {
            Op::Vmxon(at) => drop(self.both(op, |side| side.vmxon(*at))),
            Op::Vmxoff => drop(self.both(op, |side| side.vmxoff())),
            Op::Vmclear(at) => drop(self.both(op, |side| side.vmclear(*at))),
            Op::Vmptrld(at) => drop(self.both(op, |side| side.vmptrld(*at))),
            Op::Vmptrst => drop(self.both(op, |side| side.vmptrst())),
            Op::Vmread(field, wide) => {
                self.both(op, |side| side.vmread(HOST, VmcsField::new(*field), *wide));
            }
            Op::Vmwrite(field, value, wide) => {
                self.both(op, |side| {
                    side.vmwrite(HOST, VmcsField::new(*field), *value, *wide)
                });
            }
            Op::Control(vector, bit, on) => {
                let field = VECTORS[*vector];
                let read = self.both(op, |side| side.vmread(HOST, field, true));
                if let Ends::Value(old) = read {
                    let value = if *on {
                        old | 1 << bit
                    } else {
                        old & !(1 << bit)
                    };
                    self.vmwrite(field, value);
                }
            }
            Op::Prepare(wanted) => self.prepare(wanted),
            Op::Area(area, entries, count) => {
                let (at, address, field) = AREAS[*area];
                self.memory(|ram| {
                    for (n, (index, reserved, data)) in (0..).zip(entries) {
                        let low = u64::from(*reserved) << 32 | u64::from(*index);
                        ram.set_word(at + 16 * n, low, 8);
                        ram.set_word(at + 16 * n + 8, *data, 8);
                    }
                });
                self.vmwrite(VmcsField::new(address), at);
                let count = count.unwrap_or(entries.len() as u64);
                self.vmwrite(VmcsField::new(field), count);
            }
            Op::Bitmap {
                first,
                count,
                write,
                exits,
            } => {
                // As KVM does it: byte and bit from the number.
                for msr in *first..first.saturating_add(*count) {
                    let half = match msr {
                        0..=0x1fff => 0,
                        0xc000_0000..=0xc000_1fff => 0x400,
                        _ => continue,
                    };
                    let at =
                        BITMAP + half + u64::from(*write) * 0x800 + u64::from(msr & 0x1fff) / 8;
                    let bit = 1 << (msr % 8);
                    self.memory(|ram| {
                        let old = ram.byte(at);
                        ram.set(at, if *exits { old | bit } else { old & !bit });
                    });
                }
            }
            Op::Poke(at, word) => self.memory(|ram| ram.set_word(*at, *word, 8)),
            Op::Enter {
                wrong,
                shadow,
                before,
            } => {
                for (field, value) in before {
                    self.vmwrite(*field, *value);
                }
                let launched = self
                    .slow
                    .current
                    .and_then(|at| self.slow.regions.get(&at))
                    .is_some_and(|region| region.launched);
                let launch = launched == *wrong;
                let ends = self.both(op, |side| side.enter(launch, *shadow));
                if matches!(ends, Ends::EntryAborted(..)) {
                    self.compare(op, Depth::Everything);
                    self.power();
                }
            }
            Op::Rdmsr(msr) => {
                if self.slow.mode == Mode::NonRoot {
                    self.guest(op, |side| side.guest_msr(Access::Rdmsr, *msr, 0));
                } else {
                    self.both(op, |side| side.rdmsr(HOST, *msr));
                }
            }
            Op::Wrmsr(msr, value) => self.wrmsr(op, *msr, *value),
            Op::GuestMsr(access, msr, cpl) => {
                self.guest(op, |side| side.guest_msr(*access, *msr, *cpl));
            }
            Op::Exit(told) => self.guest(op, |_| Ends::Exited(*told)),
            Op::Exception(vector, kind, code, dr6) => {
                self.guest(op, |side| side.exception(*vector, *kind, *code, *dr6));
            }
            Op::Nmi => self.guest(op, |side| side.nmi()),
            Op::ExternalInterrupt(vector) => {
                self.guest(op, |side| side.external_interrupt(*vector));
            }
            Op::Rdpmc(ecx, cpl, pce) => self.guest(op, |side| {
                // The check of privilege comes before the exit.
                if !cpl.is_kernel() && !pce {
                    return Ends::Gp;
                }
                match side.rdpmc_exits() {
                    Ends::Stays | Ends::NoGuest => side.rdpmc(*ecx, *cpl, *pce),
                    other => other,
                }
            }),
            Op::Xsaves(restore, mask, xss) => {
                self.guest(op, |side| side.xsaves(*restore, *mask, *xss));
            }
            Op::Timer => {
                self.compare_deadline();
                self.guest(op, |side| side.timer_exits());
            }
            Op::Retire(steps) => {
                for step in steps {
                    self.retire(op, step);
                }
            }
            Op::Pass(clocks) => {
                self.fast.pass(*clocks);
                Side::pass(&mut self.slow, *clocks);
            }
            Op::Smm(smm) => {
                self.fast.set_smm(*smm);
                self.slow.set_smm(*smm);
            }
            Op::Lvt(entry) => self.lvt(*entry),
            Op::Count(n, event, flags, soon) => {
                self.wrmsr(op, Msr::PERFEVTSEL0.plus(*n).value(), event | flags);
                self.wrmsr(op, Msr::PMC0.plus(*n).value(), soon.wrapping_neg());
                if *n < 2 {
                    self.wrmsr(op, Msr::FIXED_CTR_CTRL.value(), 0xb);
                }
            }
            Op::Go(debugctl, lvt) => {
                self.wrmsr(op, Msr::DEBUGCTL.value(), *debugctl);
                self.wrmsr(op, Msr::LBR_CTL.value(), 0x7f_0007);
                self.wrmsr(op, Msr::PERF_GLOBAL_OVF_CTRL.value(), 0xf);
                self.wrmsr(op, Msr::PERF_GLOBAL_OVF_CTRL.value(), 3 << 58);
                self.wrmsr(op, Msr::PERF_GLOBAL_CTRL.value(), 0x3);
                self.lvt(*lvt);
            }
            Op::Power => self.power(),
        }
    }

    fn lvt(&mut self, entry: u32) {
        self.fast.set_lvtpc(entry);
        self.slow.set_lvtpc(entry);
    }

    fn power(&mut self) {
        self.fast.power();
        Side::power(&mut self.slow);
        self.boot();
    }

    /// WRMSR of whoever runs.
    fn wrmsr(&mut self, op: &Op, msr: u32, value: u64) {
        if self.slow.mode == Mode::NonRoot {
            self.guest(op, |side| side.guest_msr(Access::Wrmsr(value), msr, 0));
        } else {
            self.both(op, |side| side.wrmsr(HOST, msr, value));
        }
    }

    /// What a guest does, and the exit that it leads to.
    fn guest(&mut self, op: &dyn core::fmt::Debug, act: impl Fn(&mut dyn Side) -> Ends) {
        let Ends::Exited(told) = self.both(op, act) else {
            return;
        };
        let ends = self.both(op, |side| side.exit(&told));
        if matches!(ends, Ends::Aborted(_)) {
            self.compare(op, Depth::Everything);
            self.power();
        }
    }

    fn retire(&mut self, op: &Op, step: &Step) {
        for side in [&mut self.fast as &mut dyn Side, &mut self.slow] {
            side.pass(3);
        }
        let fast = self.fast.retire(step);
        let slow = self.slow.retire(step);
        assert_eq!(fast.len(), slow.len(), "{step:?} stops elsewhere");
        assert_eq!(events(&fast), events(&slow), "{step:?} of {op:?}");
        let last = fast.last().copied().unwrap_or_default();
        if fast.iter().any(|(outcome, _)| outcome.pmi.is_some()) {
            self.count("PMI raised");
        }
        let Some(interrupt) = last.1 else { return };
        let guest = self.slow.mode == Mode::NonRoot;
        self.count(if guest {
            "PMI in the guest"
        } else {
            "PMI in the host"
        });
        let ends = self.both(op, |side| match interrupt {
            Interrupt::Nmi => side.nmi(),
            Interrupt::Fixed(vector) => side.external_interrupt(vector),
            Interrupt::Smi | Interrupt::Init | Interrupt::ExtInt => Ends::NoGuest,
        });
        if let Ends::Exited(_) = ends {
            self.count("PMI exits");
            self.guest(op, |_| ends);
            return;
        }
        let class = BranchClass::Far(FarKind::Interrupt);
        let cpl = vlbr_arch::Cpl::Ring0;
        let entry = Transfer::near(class, 0x40_2000, 0xffff_8000_0000_2000, cpl);
        self.fast.record(&entry);
        self.slow.record(&entry);
    }

    /// The TSC at which the timer ends, told ahead.
    fn compare_deadline(&mut self) {
        if let Some(ends) = self.slow.timer_ends(5000) {
            let told = self.fast.vmx.preemption_deadline();
            assert_eq!(told, Ok(Some(ends)), "the end of the preemption timer");
            self.count("timer ends later");
        }
    }

    fn compare(&mut self, op: &dyn core::fmt::Debug, depth: Depth) {
        assert_eq!(
            self.fast.memory(),
            self.slow.memory(),
            "memory after {op:?}"
        );
        let (fast, slow) = (self.fast.look(depth), self.slow.look(depth));
        assert_eq!(fast.vmcs, slow.vmcs, "VMCS after {op:?}");
        assert_eq!(fast.rows, slow.rows, "rows after {op:?}");
        assert_eq!(
            (fast.mode, fast.gprs, fast.timer),
            (slow.mode, slow.gprs, slow.timer),
            "after {op:?}"
        );
        if fast.timer != Ends::Stays && fast.mode == Mode::NonRoot {
            self.count("timer ended");
        }
        let (Some(fast), Some(slow)) = (fast.devices, slow.devices) else {
            return;
        };
        for (fast, slow) in fast.msrs.iter().zip(&slow.msrs) {
            assert_eq!(fast, slow, "{} after {op:?}", Msr::new(fast.0));
        }
        assert_eq!(fast, slow, "devices after {op:?}");
        if fast.frozen {
            self.count("LBR frozen");
        }
        if fast.records.iter().any(|record| !record.is_empty()) {
            self.count("records");
        }
    }
}

/// Pin, primary, secondary, exit and entry controls.
const VECTORS: [VmcsField; 5] = [
    VmcsField::PIN_BASED_VM_EXEC_CONTROL,
    VmcsField::CPU_BASED_VM_EXEC_CONTROL,
    VmcsField::SECONDARY_VM_EXEC_CONTROL,
    VmcsField::VM_EXIT_CONTROLS,
    VmcsField::VM_ENTRY_CONTROLS,
];

/// What happened, and behind which instruction. Counters that only accumulate overflow somewhere
/// inside a run, so that this does not tell of them.
fn events(seen: &Seen) -> Vec<(usize, String)> {
    (0..)
        .zip(seen)
        .filter(|(_, (outcome, interrupt))| {
            outcome.pmi.is_some() || outcome.pebs.is_some() || interrupt.is_some()
        })
        .map(|(at, (outcome, interrupt))| {
            let text = format!("{:?} {:?} {interrupt:?}", outcome.pmi, outcome.pebs);
            (at, text)
        })
        .collect()
}
