//! Scenarios made wrong on purpose.

mod host;

use vlbr_pmu::Interrupt;
use vlbr_scenario::{
    Action, BranchOutcome, Check, Expected, Expr, Fault, Operator, Phase, PmuStep, ReadCheck,
    Scenario, Step, VmxOutcome, VmxRead, VmxStep, WriteOutcome,
};

/// Every scenario that differs from `scenario` in one expectation, with the line of the change.
pub(crate) fn expectations(scenario: &Scenario) -> Vec<(usize, Scenario)> {
    let mut mutants = Vec::new();
    for (n, step) in scenario.steps.iter().enumerate() {
        for what in changed(step) {
            let mut mutant = scenario.clone();
            mutant.steps[n].what = what;
            mutants.push((step.line, mutant));
        }
    }
    mutants
}

/// Every scenario that lacks one of the steps that make something happen.
pub(crate) fn without_one_step(scenario: &Scenario) -> Vec<Scenario> {
    let happens = |step: &Step| match &step.what {
        Action::Rdmsr(..) | Action::Unseen(_) => false,
        Action::Vmx(VmxStep::Vmread(..) | VmxStep::Rdmsr(..) | VmxStep::Rdpmc(..)) => false,
        Action::Pmu(PmuStep::Rdpmc { .. }) => false,
        Action::Wrmsr(_, _, outcome)
        | Action::Xsaves(_, outcome)
        | Action::Xrstors(_, outcome)
        | Action::XrstorsInit(outcome) => *outcome == WriteOutcome::Ok,
        _ => step.phase != Phase::Then,
    };
    (0..scenario.steps.len())
        .filter(|n| happens(&scenario.steps[*n]))
        .map(|n| {
            let mut mutant = scenario.clone();
            mutant.steps.remove(n);
            mutant
        })
        .collect()
}

fn more(expr: &Expr) -> Expr {
    joined(Operator::Add, expr, 1)
}

fn joined(operator: Operator, expr: &Expr, by: u64) -> Expr {
    Expr::Join(operator, Box::new(expr.clone()), Box::new(Expr::Number(by)))
}

/// The same value with another bit pattern under the mask: the comparison turned round.
fn turned(check: &Check) -> Check {
    Check {
        equal: !check.equal,
        ..check.clone()
    }
}

fn changed(step: &Step) -> Vec<Action> {
    match &step.what {
        Action::Rdmsr(register, check) => reads(check)
            .into_iter()
            .map(|check| Action::Rdmsr(register.clone(), check))
            .collect(),
        Action::Pmu(step) => pmu(step).into_iter().map(Action::Pmu).collect(),
        Action::Wrmsr(register, value, outcome) => outcomes(*outcome)
            .into_iter()
            .map(|outcome| Action::Wrmsr(register.clone(), value.clone(), outcome))
            .collect(),
        Action::Xsaves(image, outcome) => outcomes(*outcome)
            .into_iter()
            .map(|outcome| Action::Xsaves(*image, outcome))
            .collect(),
        Action::Xrstors(image, outcome) => outcomes(*outcome)
            .into_iter()
            .map(|outcome| Action::Xrstors(*image, outcome))
            .collect(),
        Action::XrstorsInit(outcome) => outcomes(*outcome)
            .into_iter()
            .map(Action::XrstorsInit)
            .collect(),
        Action::Branch(branch) => {
            let Some(outcome) = branch.outcome else {
                return Vec::new();
            };
            [
                BranchOutcome::Recorded,
                BranchOutcome::Popped,
                BranchOutcome::Ignored,
            ]
            .into_iter()
            .filter(|other| *other != outcome)
            .map(|other| {
                let mut branch = branch.clone();
                branch.outcome = Some(other);
                Action::Branch(branch)
            })
            .collect()
        }
        Action::Image(image, field, check) => {
            vec![Action::Image(*image, field.clone(), turned(check))]
        }
        Action::Cpuid(leaf, subleaf, register, check) => {
            vec![Action::Cpuid(*leaf, *subleaf, *register, turned(check))]
        }
        Action::Holds(count) => vec![
            Action::Holds(more(count)),
            // One less; of none, one more again.
            Action::Holds(match count {
                Expr::Number(0) => Expr::Number(1),
                other => joined(Operator::Sub, other, 1),
            }),
        ],
        Action::LbrInserts(count) => vec![Action::LbrInserts(more(count))],
        Action::Entry(index, expected) => entries(expected)
            .into_iter()
            .map(|expected| Action::Entry(index.clone(), expected))
            .collect(),
        Action::Vmx(step) => vmx(step).into_iter().map(Action::Vmx).collect(),
        Action::Host(step) => host::changed(step)
            .into_iter()
            .map(|step| Action::Host(Box::new(step)))
            .collect(),
        _ => Vec::new(),
    }
}

/// Other values and ends of a read.
fn reads(check: &ReadCheck) -> Vec<ReadCheck> {
    let check = match check {
        ReadCheck::Value(check) => check,
        ReadCheck::Fault(fault) => {
            let zero = Check {
                equal: true,
                value: Expr::Number(0),
                mask: None,
            };
            return vec![ReadCheck::Value(zero), ReadCheck::Fault(another(*fault))];
        }
    };
    let mut changes: Vec<ReadCheck> = values(check).into_iter().map(ReadCheck::Value).collect();
    changes.push(ReadCheck::Fault(Fault::Any));
    changes
}

/// Other values of a comparison.
fn values(check: &Check) -> Vec<Check> {
    let mut changes = vec![turned(check)];
    if check.equal && check.mask.is_none() {
        let value = match check.value {
            Expr::Number(value) => Expr::Number(value ^ 1 << 20),
            ref other => more(other),
        };
        changes.push(Check {
            value,
            ..check.clone()
        });
    }
    changes
}

fn pmu(step: &PmuStep) -> Vec<PmuStep> {
    match step {
        PmuStep::Rdpmc {
            ecx,
            cpl,
            pce,
            check,
        } => reads(check)
            .into_iter()
            .map(|check| PmuStep::Rdpmc {
                ecx: ecx.clone(),
                cpl: *cpl,
                pce: *pce,
                check,
            })
            .collect(),
        PmuStep::Lvtpc(check) => values(check).into_iter().map(PmuStep::Lvtpc).collect(),
        PmuStep::Deliver(None) => vec![PmuStep::Deliver(Some(Interrupt::Nmi))],
        PmuStep::Deliver(Some(Interrupt::Fixed(vector))) => vec![
            PmuStep::Deliver(None),
            PmuStep::Deliver(Some(Interrupt::Fixed(vector ^ 1))),
        ],
        PmuStep::Deliver(Some(_)) => vec![
            PmuStep::Deliver(None),
            PmuStep::Deliver(Some(Interrupt::Fixed(0xee))),
        ],
        PmuStep::Memory(address, check) => values(check)
            .into_iter()
            .map(|check| PmuStep::Memory(address.clone(), check))
            .collect(),
        PmuStep::Run { .. }
        | PmuStep::SetLvtpc(_)
        | PmuStep::SetMemory(..)
        | PmuStep::SetState(..) => Vec::new(),
    }
}

fn vmx(step: &VmxStep) -> Vec<VmxStep> {
    let ends = |outcome, with: &dyn Fn(VmxOutcome) -> VmxStep| {
        vmx_outcomes(outcome).into_iter().map(with).collect()
    };
    let reads = |read: &VmxRead, with: &dyn Fn(VmxRead) -> VmxStep| match read {
        VmxRead::Value(check) => vec![
            with(VmxRead::Value(turned(check))),
            with(VmxRead::Ends(VmxOutcome::Exit(99, None))),
        ],
        VmxRead::Ends(outcome) => vmx_outcomes(*outcome)
            .into_iter()
            .map(|outcome| with(VmxRead::Ends(outcome)))
            .collect(),
    };
    match step {
        VmxStep::Vmwrite(field, value, outcome) => ends(*outcome, &|outcome| {
            VmxStep::Vmwrite(*field, value.clone(), outcome)
        }),
        VmxStep::Vmread(field, read) => reads(read, &|read| VmxStep::Vmread(*field, read)),
        VmxStep::Byte(at, check) => vec![VmxStep::Byte(at.clone(), turned(check))],
        VmxStep::Stored(n, check) => vec![VmxStep::Stored(n.clone(), turned(check))],
        VmxStep::Enter(launch, outcome) => {
            ends(*outcome, &|outcome| VmxStep::Enter(*launch, outcome))
        }
        VmxStep::Exit(reason, outcome) => {
            ends(*outcome, &|outcome| VmxStep::Exit(reason.clone(), outcome))
        }
        VmxStep::Rdmsr(cpl, register, read) => {
            reads(read, &|read| VmxStep::Rdmsr(*cpl, register.clone(), read))
        }
        VmxStep::Wrmsr(cpl, register, value, outcome) => ends(*outcome, &|outcome| {
            VmxStep::Wrmsr(*cpl, register.clone(), value.clone(), outcome)
        }),
        VmxStep::Wrmsrns(cpl, register, value, outcome) => ends(*outcome, &|outcome| {
            VmxStep::Wrmsrns(*cpl, register.clone(), value.clone(), outcome)
        }),
        VmxStep::Rdpmc(cpl, pce, ecx, read) => {
            reads(read, &|read| VmxStep::Rdpmc(*cpl, *pce, ecx.clone(), read))
        }
        VmxStep::Event(event, outcome) => {
            ends(*outcome, &|outcome| VmxStep::Event(*event, outcome))
        }
        VmxStep::Xsaves(restore, outcome) => {
            ends(*outcome, &|outcome| VmxStep::Xsaves(*restore, outcome))
        }
        VmxStep::Timer(exits) => vec![VmxStep::Timer(!exits)],
        VmxStep::On
        | VmxStep::Bits(..)
        | VmxStep::Bitmap(..)
        | VmxStep::SetByte(..)
        | VmxStep::Area(..) => Vec::new(),
    }
}

/// Other ends: another kind, and another number of the same kind.
fn vmx_outcomes(outcome: VmxOutcome) -> Vec<VmxOutcome> {
    match outcome {
        VmxOutcome::Ok => vec![VmxOutcome::Fail(99), VmxOutcome::Exit(99, None)],
        VmxOutcome::Fail(number) => vec![VmxOutcome::Ok, VmxOutcome::Fail(number + 1)],
        VmxOutcome::Exit(reason, qualification) => {
            let mut others = vec![VmxOutcome::Ok, VmxOutcome::Exit(reason ^ 1, qualification)];
            others.extend(qualification.map(|n| VmxOutcome::Exit(reason, Some(n + 1))));
            others
        }
        VmxOutcome::Abort(number) => vec![VmxOutcome::Ok, VmxOutcome::Abort(number + 1)],
        VmxOutcome::Gp(fault) => vec![VmxOutcome::Ok, VmxOutcome::Gp(another(fault))],
        VmxOutcome::Ud => vec![VmxOutcome::Ok, VmxOutcome::Fail(99)],
    }
}

/// Another entry for each field that is compared.
fn entries(expected: &Expected) -> Vec<Expected> {
    let check = match expected {
        Expected::Record(check) => check,
        Expected::Empty => {
            return vec![Expected::Record(vlbr_scenario::EntryCheck {
                equal: true,
                from: Expr::Number(0x40_1000),
                to: Expr::Number(0x40_1040),
                mispredicted: false,
                in_tx: false,
                abort: false,
                cycles: None,
                branch_type: None,
            })];
        }
    };
    let mut changes = Vec::new();
    let mut push = |change: &dyn Fn(&mut vlbr_scenario::EntryCheck)| {
        let mut changed = check.clone();
        change(&mut changed);
        changes.push(Expected::Record(changed));
    };
    push(&|check| check.equal = !check.equal);
    if check.equal {
        push(&|check| check.from = more(&check.from));
        push(&|check| check.to = more(&check.to));
        push(&|check| check.mispredicted = !check.mispredicted);
        push(&|check| check.in_tx = !check.in_tx);
        push(&|check| check.abort = !check.abort);
        if check.cycles.is_some() {
            push(&|check| {
                check.cycles = match &check.cycles {
                    Some(Some(cycles)) => Some(Some(more(cycles))),
                    _ => Some(Some(Expr::Number(0x7777))),
                }
            });
        }
        if check.branch_type.is_some() {
            push(&|check| check.branch_type = check.branch_type.map(|code| code ^ 1));
        }
        changes.push(Expected::Empty);
    }
    changes
}

fn outcomes(outcome: WriteOutcome) -> Vec<WriteOutcome> {
    match outcome {
        WriteOutcome::Ok => vec![WriteOutcome::Fault(Fault::Any)],
        WriteOutcome::Fault(fault) => {
            vec![WriteOutcome::Ok, WriteOutcome::Fault(another(fault))]
        }
    }
}

/// A reason that the fault does not have.
fn another(fault: Fault) -> Fault {
    match fault {
        Fault::BeyondDepth => Fault::ReservedBits,
        _ => Fault::BeyondDepth,
    }
}
