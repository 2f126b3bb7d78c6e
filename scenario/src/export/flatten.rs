//! A step of a scenario as steps without expressions, names or short forms.

use vlbr_arch::{CPUID_LEAF_ARCH_LBR, Msr};
use vlbr_lbr::{Pmi, Reset};

use super::hex::Hex;
use super::layout::Layout;
use super::step::{Expect, Step};
use super::{branch, entry, pmu, vmx};
use crate::compare::{Mismatch, eval, mismatch};
use crate::expr::Scope;
use crate::machine::{Machine, view::image_offset};
use crate::{Action, Check, ReadCheck, WriteOutcome};

/// A machine, at the moment before a step.
#[derive(Debug)]
pub(super) struct Flatten<'m, 'a> {
    pub(super) machine: &'m mut Machine<'a>,
    pub(super) layout: Layout,
}

/// A comparison with a value.
pub(super) fn value(check: &Check, scope: Scope) -> Result<Expect, Mismatch> {
    let mask = check
        .mask
        .as_ref()
        .map_or(Ok(!0), |mask| eval(mask, scope))?;
    Ok(Expect::Value {
        value: Hex(eval(&check.value, scope)?),
        mask: Hex(mask),
        differs: !check.equal,
    })
}

fn wrmsr(msr: Msr, value: u64, outcome: WriteOutcome) -> Step {
    Step::Wrmsr {
        register: msr.into(),
        value: Hex(value),
        expect: outcome.into(),
    }
}

impl Flatten<'_, '_> {
    /// The steps that `what` stands for. It is not done yet.
    pub(super) fn steps(
        &mut self,
        cpu: usize,
        what: &Action,
        scope: Scope,
    ) -> Result<Vec<Step>, Mismatch> {
        let one = match what {
            Action::LbrOn {
                kernel,
                user,
                call_stack,
            } => {
                let writes = self
                    .machine
                    .lbr_on_writes(cpu, *kernel, *user, *call_stack)?;
                let step = |(msr, value)| wrmsr(msr, value, WriteOutcome::Ok);
                return Ok(writes.into_iter().map(step).collect());
            }
            Action::LbrOff => {
                let (msr, value) = self.machine.lbr_off_write(cpu)?;
                wrmsr(msr, value, WriteOutcome::Ok)
            }
            Action::Wrmsr(register, value, outcome) => {
                let msr = self.machine.address(register, scope)?;
                wrmsr(msr, eval(value, scope)?, *outcome)
            }
            Action::Rdmsr(register, check) => Step::Rdmsr {
                register: self.machine.address(register, scope)?.into(),
                expect: match check {
                    ReadCheck::Value(check) => value(check, scope)?,
                    ReadCheck::Fault(fault) => (*fault).into(),
                },
            },
            Action::Branch(transfer) => branch::branch(transfer, scope)?,
            Action::Unseen(what) => branch::unseen(*what),
            Action::Wait(cycles) => Step::Wait {
                cycles: eval(cycles, scope)?,
            },
            Action::Pmi(pmi) => Step::Pmi {
                source: match pmi {
                    Pmi::Counter => "counter",
                    Pmi::Pebs => "pebs",
                    Pmi::Bts => "bts",
                },
            },
            Action::DeepCState => Step::DeepCState,
            Action::Reset(reset) => Step::Reset {
                kind: match reset {
                    Reset::Cold => "cold",
                    Reset::Warm => "warm",
                    Reset::WarmInC6 => "warm-in-c6",
                    Reset::Init => "init",
                },
            },
            Action::SegmentTestFails => Step::SegmentTestFails,
            Action::LogEvent(counter) => Step::LogEvent { counter: *counter },
            Action::Xsaves(image, outcome) => Step::Xsaves {
                image: *image,
                expect: (*outcome).into(),
            },
            Action::Xrstors(image, outcome) => Step::Xrstors {
                image: *image,
                expect: (*outcome).into(),
            },
            Action::XrstorsInit(outcome) => Step::XrstorsInit {
                expect: (*outcome).into(),
            },
            Action::SetImage(image, field, value) => Step::ImageWrite {
                image: *image,
                offset: Hex(image_offset(field, scope)? as u64),
                value: Hex(eval(value, scope)?),
            },
            Action::Image(image, field, check) => Step::ImageRead {
                image: *image,
                offset: Hex(image_offset(field, scope)? as u64),
                expect: value(check, scope)?,
            },
            Action::Cpuid(leaf, subleaf, register, check) => Step::Cpuid {
                leaf: (*leaf).into(),
                subleaf: (*subleaf).into(),
                register: ["eax", "ebx", "ecx", "edx"][*register & 3],
                expect: value(check, scope)?,
            },
            Action::Entry(index, expected) => {
                let index = eval(index, scope)?;
                return entry::entry(self, cpu, index, expected, scope);
            }
            Action::Holds(count) => {
                let count = eval(count, scope)?;
                return entry::holds(self, cpu, count, scope);
            }
            Action::LbrInserts(count) => Step::EventCount {
                event: "LBR_INSERTS",
                value: eval(count, scope)?,
            },
            Action::Pmu(step) => pmu::step(step, scope)?,
            Action::Vmx(step) => return vmx::steps(self, cpu, step, scope),
            Action::Host(_) => return Err(mismatch("a step of a processor", "one of a host")),
        };
        Ok(vec![one])
    }
}

/// Leaf and subleaf by which a step may ask CPUID.
pub(super) const CPUID: [(u32, u32); 2] = [(CPUID_LEAF_ARCH_LBR, 0), (0xd, 15)];
