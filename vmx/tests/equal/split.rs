//! A run may be split at any instruction and resumed: counters, LBR entries, rows and the places of
//! interrupts stay.

use std::cell::RefCell;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use vlbr_arch::{BranchClass, Cpl, FarKind, Msr, Transfer};
use vlbr_pmu::{Increments, Interrupt, Outcome, Source};

use crate::ends::{Ends, Told};
use crate::fast::Fast;
use crate::model::{Access, Mode};
use crate::ops::{HOST, Op, steps};
use crate::pair::{self, Pair, Part, Tally};
use crate::side::{Depth, Look, Side, Step, increments};
use crate::{parts, runner};

/// A piece of a program.
#[derive(Clone, Debug)]
enum Piece {
    Run(Vec<Step>),
    Enter,
    /// CPUID.
    Exit,
    Write(u32, u64),
    Read(u32),
}

#[derive(Clone, Debug)]
struct Setup {
    controls: [u64; 5],
    timer: u64,
    debugctl: u64,
    lvt: u32,
    /// Event, flags and events to the overflow of each counter.
    counters: Vec<(u64, u64, u64)>,
    fixed: u64,
    skid: u64,
}

/// When the counters are told of what retired.
#[derive(Clone, Debug)]
enum Cuts {
    /// Behind every instruction.
    Every,
    /// Where the horizon ends.
    Horizon,
    /// There, and behind so many instructions in turn; the processor is put away and taken up again.
    Also(Vec<usize>),
}

/// What happened behind which instruction.
#[derive(Clone, Debug, PartialEq)]
enum Happened {
    Pmi(Outcome),
    Interrupt(Interrupt, Ends),
    Timer(Ends),
    Exit(Ends),
    Enter(Ends),
    Access(Ends),
}

struct Driver {
    fast: Fast,
    cuts: Cuts,
    /// What the counters have not been told of, and how many instructions that is.
    run: Increments,
    length: usize,
    turn: usize,
    at: usize,
    happened: Vec<(usize, Happened)>,
    told: u64,
}

impl Driver {
    fn new(part: &Part, setup: &Setup, cuts: Cuts) -> Self {
        let mut pair = Pair::new(
            part,
            &pair::Setup {
                skid: setup.skid,
                feeds_inserts: true,
                ..pair::Setup::default()
            },
        );
        pair.apply(&Op::Prepare(setup.controls));
        let mut fast = pair.fast;
        let timer = vlbr_arch::vmx::VmcsField::VMX_PREEMPTION_TIMER_VALUE;
        fast.vmwrite(HOST, timer, setup.timer, true);
        let debugctl = vlbr_arch::vmx::VmcsField::GUEST_IA32_DEBUGCTL;
        fast.vmwrite(HOST, debugctl, setup.debugctl, true);
        let mut write = |msr: Msr, value: u64| {
            fast.wrmsr(HOST, msr.value(), value);
        };
        write(Msr::LBR_CTL, 0x7f_0007);
        write(Msr::DEBUGCTL, setup.debugctl);
        for (n, (event, flags, soon)) in (0..).zip(&setup.counters) {
            write(Msr::PERFEVTSEL0.plus(n), event | flags);
            write(Msr::PMC0.plus(n), soon.wrapping_neg());
        }
        write(Msr::FIXED_CTR_CTRL, setup.fixed);
        write(Msr::FIXED_CTR0, 0xffff_ffff_ffe0);
        write(Msr::PERF_GLOBAL_CTRL, 0x1_0000_0003);
        fast.set_lvtpc(setup.lvt);
        Self {
            fast,
            cuts,
            run: Increments::new(),
            length: 0,
            turn: 0,
            at: 0,
            happened: Vec::new(),
            told: 0,
        }
    }

    fn note(&mut self, what: Happened) {
        self.happened.push((self.at, what));
    }

    /// Tells the counters of what retired.
    fn tell(&mut self, run: &Increments) {
        self.told += 1;
        let outcome = self.fast.msrs.retire(run, None);
        if outcome.pmi.is_some() || outcome.pebs.is_some() {
            // Counters that only accumulate overflow somewhere inside a run.
            let outcome = Outcome {
                overflowed: Default::default(),
                ..outcome
            };
            self.note(Happened::Pmi(outcome));
        }
    }

    fn flush(&mut self) {
        if self.length != 0 {
            let run = core::mem::take(&mut self.run);
            self.length = 0;
            self.tell(&run);
        }
    }

    fn instruction(&mut self, run: Increments, transfer: Option<&Transfer>) {
        self.at += 1;
        Side::pass(&mut self.fast, 1);
        let mut run = run;
        if let Some(transfer) = transfer {
            let inserts = self.fast.msrs.transfer(transfer);
            run.add(Source::LbrInserts, transfer.cpl_before, inserts);
        }
        let mut longer = self.run.clone();
        longer.merge(&run);
        let unlooked = match &self.cuts {
            Cuts::Every => false,
            Cuts::Horizon | Cuts::Also(_) => self.fast.msrs.cpu.pmu().horizon().allows(&longer),
        };
        if unlooked {
            self.run = longer;
            self.length += 1;
        } else {
            self.flush();
            self.tell(&run);
        }
        if let Cuts::Also(lengths) = &self.cuts
            && self.length >= lengths[self.turn % lengths.len()]
        {
            self.turn += 1;
            self.flush();
            self.fast = self.fast.clone();
        }
        if let Some(interrupt) = self.fast.msrs.cpu.deliver() {
            self.flush();
            self.interrupt(interrupt);
        }
        if let Ends::Exited(told) = self.fast.timer_exits() {
            self.flush();
            let ends = self.fast.exit(&told);
            self.note(Happened::Timer(ends));
        }
    }

    fn interrupt(&mut self, interrupt: Interrupt) {
        let ends = match interrupt {
            Interrupt::Nmi => self.fast.nmi(),
            Interrupt::Fixed(vector) => self.fast.external_interrupt(vector),
            Interrupt::Smi | Interrupt::Init | Interrupt::ExtInt => Ends::NoGuest,
        };
        let ends = match ends {
            Ends::Exited(told) => self.fast.exit(&told),
            other => {
                let class = BranchClass::Far(FarKind::Interrupt);
                let entry = Transfer::near(class, 0x40_2000, 0x40_3000, Cpl::Ring0);
                self.fast.record(&entry);
                other
            }
        };
        self.note(Happened::Interrupt(interrupt, ends));
        // The handler opens the LVT entry again.
        self.fast.set_lvtpc(0x400);
    }

    fn guest(&self) -> bool {
        self.fast.vmx.state() == vlbr_vmx::State::NonRoot
    }

    fn piece(&mut self, piece: &Piece) {
        if let Piece::Run(steps) = piece {
            for step in steps {
                self.step(step);
            }
            return;
        }
        self.flush();
        match piece {
            Piece::Run(_) => {}
            Piece::Enter => {
                let ends = match self.fast.enter(true, false) {
                    Ends::FailValid(4) => self.fast.enter(false, false),
                    other => other,
                };
                self.note(Happened::Enter(ends));
            }
            Piece::Exit => {
                let cpuid = Told {
                    reason: 10,
                    length: 2,
                    ..Told::default()
                };
                let ends = self.fast.exit(&cpuid);
                self.note(Happened::Exit(ends));
            }
            Piece::Write(msr, value) => {
                let ends = if self.guest() {
                    self.fast.guest_msr(Access::Wrmsr(*value), *msr, 0)
                } else {
                    self.fast.wrmsr(HOST, *msr, *value)
                };
                self.note(Happened::Access(ends));
            }
            Piece::Read(msr) => {
                let ends = if self.guest() {
                    self.fast.guest_msr(Access::Rdmsr, *msr, 0)
                } else {
                    self.fast.rdmsr(HOST, *msr)
                };
                self.note(Happened::Access(ends));
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Plain(n, cpl) => {
                for _ in 0..*n {
                    self.instruction(Increments::instruction(*cpl), None);
                }
            }
            Step::NotTaken(_) => {
                self.instruction(increments(step).unwrap_or_default(), None);
            }
            Step::Taken(transfer) => match increments(step) {
                Some(run) => self.instruction(run, Some(transfer)),
                None => {
                    self.flush();
                    self.fast.record(transfer);
                }
            },
        }
    }
}

type End = (Look, Vec<(usize, Happened)>, u64);

fn drive(part: &Part, setup: &Setup, program: &[Piece], cuts: Cuts) -> End {
    let mut driver = Driver::new(part, setup, cuts);
    for piece in program {
        driver.piece(piece);
    }
    driver.flush();
    (
        driver.fast.look(Depth::Everything),
        driver.happened,
        driver.told,
    )
}

fn setups() -> impl Strategy<Value = Setup> {
    let counter = (
        select(vec![0xc0u64, 0xc4, 0x20cc]),
        select(vec![0x53_0000u64, 0x43_0000, 0x51_0000, 0x52_0000]),
        1u64..60,
    );
    let controls = (
        select(vec![0u64, 1, 8, 9, 0x49]),
        select(vec![1u64 << 28, 0]),
        select(vec![
            4u64,
            1 << 2 | 1 << 12 | 1 << 15,
            1 << 2 | 1 << 22 | 1 << 26 | 1 << 30,
        ]),
        select(vec![4u64, 1 << 2 | 1 << 21]),
    );
    (
        controls,
        1u64..4,
        select(vec![1u64, 0x801, 0x1801, 0x1001]),
        select(vec![0x400u32, 0xf0, 0x1_0400]),
        vec(counter, 1..3),
        select(vec![0u64, 3, 0xb]),
        prop_oneof![Just(0u64), 1u64..9],
    )
        .prop_map(
            |((pin, primary, exit, entry), timer, debugctl, lvt, counters, fixed, skid)| {
                let exit = if pin >> 6 & 1 == 0 {
                    exit & !(1 << 22)
                } else {
                    exit
                };
                Setup {
                    controls: [pin, primary, 0, exit, entry],
                    timer,
                    debugctl,
                    lvt,
                    counters,
                    fixed,
                    skid,
                }
            },
        )
}

fn piece() -> impl Strategy<Value = Piece> {
    let write = select(vec![
        (Msr::PMC0, 0xffff_fff0u64),
        (Msr::PERF_GLOBAL_OVF_CTRL, 0x3),
        (Msr::PERF_GLOBAL_OVF_CTRL, 3 << 58),
        (Msr::DEBUGCTL, 0x801),
        (Msr::DEBUGCTL, 0),
        (Msr::PERF_GLOBAL_CTRL, 0x3),
        (Msr::LBR_CTL, 0x7f_000f),
    ]);
    prop_oneof![
        8 => steps().prop_map(Piece::Run),
        4 => Just(Piece::Enter),
        1 => Just(Piece::Exit),
        2 => write.prop_map(|(msr, value)| Piece::Write(msr.value(), value)),
        1 => select(vec![Msr::PMC0, Msr::FIXED_CTR0, Msr::LASTBRANCH_TOS, Msr::FS_BASE])
            .prop_map(|msr| Piece::Read(msr.value())),
    ]
}

#[test]
fn splitting_a_run_anywhere_changes_nothing() {
    let tally = RefCell::new(Tally::new());
    for (n, part) in parts().iter().enumerate() {
        let strategy = (setups(), vec(piece(), 1..24), vec(1usize..30, 1..12));
        let result = runner(160, n).run(&strategy, |(setup, program, lengths)| {
            let single = drive(part, &setup, &program, Cuts::Every);
            for cuts in [Cuts::Horizon, Cuts::Also(lengths)] {
                let other = drive(part, &setup, &program, cuts.clone());
                prop_assert_eq!(&single.1, &other.1, "what happened, {:?}", &cuts);
                prop_assert_eq!(&single.0, &other.0, "the processor, {:?}", &cuts);
                let mut tally = tally.borrow_mut();
                *tally.entry("told one by one".to_owned()).or_default() += single.2;
                let how = match cuts {
                    Cuts::Horizon => "told at horizons",
                    _ => "told at cuts too",
                };
                *tally.entry(how.to_owned()).or_default() += other.2;
            }
            let mut tally = tally.borrow_mut();
            for (_, happened) in &single.1 {
                let what = match happened {
                    Happened::Pmi(_) => "PMI raised",
                    Happened::Interrupt(_, Ends::Done) => "PMI exits",
                    Happened::Interrupt(..) => "PMI delivered",
                    Happened::Timer(_) => "timer",
                    Happened::Exit(Ends::Done) => "exit",
                    Happened::Enter(Ends::Entered(_)) => "entered",
                    Happened::Access(Ends::Exited(_)) => "access exits",
                    _ => "other",
                };
                *tally.entry(what.to_owned()).or_default() += 1;
            }
            if single.0.mode == Mode::NonRoot {
                *tally.entry("ends in a guest".to_owned()).or_default() += 1;
            }
            Ok(())
        });
        assert!(result.is_ok(), "{}: {}", part.cpu, result.unwrap_err());
    }
    let tally = tally.into_inner();
    let told = ["told at horizons", "told at cuts too"].map(|how| tally[how]);
    // Each is counted twice: once for each way of cutting.
    let single = tally["told one by one"] / 2;
    assert!(
        told[0] < told[1] && told[1] < single,
        "nothing is put off: {told:?} of {single}"
    );
    for what in [
        "PMI raised",
        "PMI exits",
        "PMI delivered",
        "timer",
        "exit",
        "entered",
    ] {
        let count = tally.get(what).copied().unwrap_or(0);
        assert!(count >= 10, "{what}: {count} of {tally:?}");
    }
}
