//! The fast device and the reference side by side.

use std::collections::BTreeMap;

use vlbr_arch::{BranchClass, Cpl, Cycles, FarKind, Msr, Transfer, XSTATE_LBR_SIZE};
use vlbr_lbr::{Device, GpFault, GpReason, Lbr, Options, Profile, Record, Verdict, reference};

use crate::ops::{CTLS, Op, PROBES, SELECTS, probe};

/// What happened, to see that the generator reaches it.
pub(crate) type Tally = BTreeMap<&'static str, u64>;

pub(crate) struct Pair {
    fast: Lbr,
    slow: reference::Lbr,
    now: u64,
    pub(crate) tally: Tally,
}

impl Pair {
    pub(crate) fn new(profile: &Profile, options: &Options) -> Self {
        Self {
            fast: Lbr::new(profile, options.clone()),
            slow: reference::Lbr::new(profile, options.clone()),
            now: 1000,
            tally: Tally::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    fn wrmsr(&mut self, msr: Msr, value: u64) {
        let before = self.fast.clone();
        let done = self.fast.wrmsr(msr, value);
        assert_eq!(
            done,
            self.slow.wrmsr(msr, value),
            "WRMSR {msr} = {value:#x}"
        );
        if let Err(fault) = done {
            assert_eq!(
                self.fast, before,
                "a refused WRMSR {msr} = {value:#x} changed something"
            );
            self.count_fault(&fault);
        }
    }

    fn count_fault(&mut self, fault: &GpFault) {
        self.count(match fault.reason {
            GpReason::NoSuchMsr => "no such MSR",
            GpReason::BeyondDepth { .. } => "beyond depth",
            GpReason::Reserved(_) => "reserved bits",
            GpReason::UnsupportedDebugCtl(_) => "unsupported DEBUGCTL",
            GpReason::UnsupportedLbrCtl(_) => "unsupported LBR_CTL",
            GpReason::UnsupportedDepth(_) => "unsupported depth",
            GpReason::NonCanonical(_) => "non-canonical",
            GpReason::SignExtension { .. } => "sign extension",
            GpReason::NoArchLbr => "no component 15",
        });
    }

    fn retire(&mut self, t: &Transfer, gap: u64) {
        self.now += gap;
        let predicted = self.fast.verdict(t);
        let top = self.fast.stack().next().unwrap_or_default();
        let tos = self.fast.tos();
        let verdict = self.fast.retire(t, Cycles::new(self.now));
        assert_eq!(predicted, verdict, "verdict of {t:x?}");
        assert_eq!(
            verdict,
            self.slow.retire(t, Cycles::new(self.now)),
            "retire {t:x?}"
        );
        assert_eq!(
            self.fast.stack().collect::<Vec<Record>>(),
            self.slow.records(),
            "entries after {t:x?}"
        );
        if verdict == Verdict::Pop {
            self.count(if top.is_empty() {
                "pop of an empty slot"
            } else {
                "pop"
            });
        }
        if verdict == Verdict::Push {
            self.count("push");
            let new = self.fast.stack().next().unwrap_or_default();
            if new.cycles == Some(0xffff) {
                self.count("saturated cycles");
            }
            if self.fast.tos() < tos {
                self.count("wrap");
            }
            if new.raw[0] == 0xffff_ffff {
                self.count("masked FROM");
            }
            if !top.is_empty() && new.abort {
                self.count("abort");
            }
            if self.fast.stack().all(|record| !record.is_empty()) {
                self.count("push on a full stack");
            }
        }
    }

    fn enable(&mut self, filter: usize, freeze: bool, smm: bool) {
        let debugctl = 1 | u64::from(freeze) << 11 | if smm { 0x40c2 } else { 0 };
        self.wrmsr(Msr::DEBUGCTL, debugctl);
        if self.fast.profile().is_arch() {
            self.wrmsr(Msr::LBR_CTL, CTLS[filter % CTLS.len()]);
        } else {
            self.wrmsr(Msr::DEBUGCTL, debugctl & 0x801);
            self.wrmsr(Msr::DEBUGCTL, 1);
            self.wrmsr(Msr::DEBUGCTL, debugctl);
            self.wrmsr(Msr::LBR_SELECT, SELECTS[filter % SELECTS.len()]);
        }
    }

    fn register(&self, n: &proptest::sample::Index) -> Msr {
        *n.get(&self.fast.msrs())
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        match op {
            Op::Enable {
                filter,
                freeze,
                smm,
            } => {
                self.enable(filter.index(usize::MAX), *freeze, *smm);
            }
            Op::Retire(transfers) => {
                for (transfer, gap) in transfers {
                    self.retire(transfer, *gap);
                }
            }
            Op::CallsAndReturns {
                calls,
                returns,
                cpl,
            } => {
                for n in 0..*calls as u64 {
                    let class =
                        [BranchClass::NearRelCall, BranchClass::NearIndCall][n as usize % 2];
                    self.retire(&Transfer::near(class, 0x1000 + n, 0x2000 + n, *cpl), 3);
                }
                for n in 0..*returns as u64 {
                    let t = Transfer::near(BranchClass::NearRet, 0x3000 + n, 0x1005 + n, *cpl);
                    self.retire(&t, 3);
                }
            }
            Op::Write { register, value } => self.wrmsr(self.register(register), *value),
            Op::WriteAddress { msr, value } => self.wrmsr(Msr::new(*msr), *value),
            Op::WriteBack { register, flip } => {
                let msr = self.register(register);
                let value = self.fast.rdmsr(msr).expect("listed");
                self.wrmsr(msr, value ^ flip);
            }
            Op::Depth(depth) => {
                if self.fast.profile().is_arch() {
                    self.wrmsr(Msr::LBR_DEPTH, *depth);
                }
            }
            Op::Freeze(pmi) => {
                self.fast.freeze_on_pmi(*pmi);
                self.slow.freeze_on_pmi(*pmi);
                if self.fast.lbr_frz() {
                    self.count("frozen");
                }
            }
            Op::SetFrz(frozen) => {
                self.fast.set_lbr_frz(*frozen);
                self.slow.set_lbr_frz(*frozen);
            }
            Op::DeepCState => {
                self.fast.deep_c_state();
                self.slow.deep_c_state();
            }
            Op::Reset(reset) => {
                self.fast.reset(*reset);
                self.slow.reset(*reset);
            }
            Op::TraceEn(enabled) => {
                self.fast.set_trace_en(*enabled);
                self.slow.set_trace_en(*enabled);
            }
            Op::Restore { changes } => self.restore(changes),
            Op::RestoreInit => {
                assert_eq!(self.fast.xrstors_init(), self.slow.xrstors_init());
            }
            Op::SegmentTest => {
                self.fast.segment_test_failed();
                self.slow.segment_test_failed();
            }
            Op::LogEvent(pmc) => {
                self.fast.log_event(*pmc);
                self.slow.log_event(*pmc);
            }
        }
        self.compare(op);
    }

    fn restore(&mut self, changes: &[(usize, u64)]) {
        let mut image = [0; XSTATE_LBR_SIZE];
        if self.fast.xsaves(&mut image).is_ok() {
            for (word, value) in changes {
                let at = 8 * word;
                image[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
        let before = self.fast.clone();
        let done = self.fast.xrstors(&image);
        assert_eq!(
            done,
            self.slow.xrstors(&image),
            "XRSTORS after {changes:x?}"
        );
        match done {
            Ok(()) => self.count("restored"),
            Err(fault) => {
                assert_eq!(self.fast, before, "a refused XRSTORS changed something");
                self.count_fault(&fault);
            }
        }
    }

    /// Everything that can be seen, from both.
    fn compare(&self, op: &Op) {
        let (fast, slow) = (&self.fast, &self.slow);
        let msrs = fast.msrs();
        assert_eq!(msrs, slow.msrs(), "after {op:x?}");
        for msr in msrs.iter().copied().chain(PROBES.map(probe)) {
            assert_eq!(fast.rdmsr(msr), slow.rdmsr(msr), "{msr} after {op:x?}");
        }
        for msr in &msrs {
            assert!(fast.rdmsr(*msr).is_ok(), "{msr} is listed and not readable");
        }
        assert_eq!(fast.tos(), slow.tos(), "after {op:x?}");
        assert_eq!(fast.depth(), slow.depth(), "after {op:x?}");
        assert_eq!(fast.records(), slow.records(), "after {op:x?}");
        assert_eq!(fast.recording(), slow.recording(), "after {op:x?}");
        assert_eq!(fast.lbr_frz(), slow.lbr_frz(), "after {op:x?}");
        assert_eq!(fast.lbr_inserts(), slow.lbr_inserts(), "after {op:x?}");
        assert_eq!(fast.cpuid_1c(), slow.cpuid_1c());
        assert_eq!(fast.cpuid_d_15(), slow.cpuid_d_15());
        let mut images = [[0xaa; XSTATE_LBR_SIZE]; 2];
        assert_eq!(
            fast.xsaves(&mut images[0]),
            slow.xsaves(&mut images[1]),
            "after {op:x?}"
        );
        assert_eq!(images[0], images[1], "XSAVES after {op:x?}");
        for t in every_class() {
            assert_eq!(
                fast.verdict(&t),
                slow.verdict(&t),
                "verdict of {t:x?} after {op:x?}"
            );
        }
    }
}

/// One transfer of every class in every pair of privileges.
fn every_class() -> impl Iterator<Item = Transfer> {
    let near = [
        BranchClass::Jcc,
        BranchClass::NearRelJmp,
        BranchClass::NearIndJmp,
        BranchClass::NearRelCall,
        BranchClass::NearRelCallZero,
        BranchClass::NearIndCall,
        BranchClass::NearRet,
    ];
    near.into_iter()
        .chain(FarKind::ALL.map(BranchClass::Far))
        .flat_map(|class| {
            [
                (Cpl::Ring0, Cpl::Ring0),
                (Cpl::Ring0, Cpl::Ring3),
                (Cpl::Ring3, Cpl::Ring0),
            ]
            .into_iter()
            .chain([(Cpl::Ring1, Cpl::Ring2)])
            .map(move |(cpl_before, cpl_after)| Transfer {
                cpl_before,
                cpl_after,
                ..Transfer::near(class, 0x1000, 0x2000, Cpl::Ring0)
            })
        })
}
