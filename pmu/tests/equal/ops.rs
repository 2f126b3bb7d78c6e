//! What the property test does to a pair of devices, and how it is drawn.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use vlbr_arch::{DebugCtl, Msr};
use vlbr_pmu::{
    FreezeFlavour, Options, PmiCause, Quirk, QuirkSet, ReservedWrite, Reset, SkidUnit, SmmRestore,
    Source, SourceSet, Unfed,
};

/// One step.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// A counter counts an event of the profile with some flags, and overflows soon.
    Count {
        n: u8,
        event: usize,
        flags: u64,
        soon: u64,
    },
    /// Fixed counters count and overflow soon.
    CountFixed {
        control: u64,
        soon: u64,
    },
    /// PEBS on with a debug store: enables, DATA_CFG, room and threshold in bytes.
    Sample {
        enable: u64,
        config: u64,
        room: u64,
        threshold: u64,
    },
    /// Every counter on, nothing frozen, the LVT entry open.
    Go,
    /// WRMSR.
    Write(u32, u64),
    /// IA32_DEBUGCTL changes.
    DebugCtl(u64),
    /// Retirement: amounts of sources at each level, in a transaction or not, of the sibling.
    Retire {
        amounts: Vec<(Source, bool, u64)>,
        in_tx: bool,
        sibling: bool,
    },
    Abort,
    /// Counter 2 with IN_TXCP counts in a transaction that aborts.
    Transaction(Vec<(Source, bool, u64)>),
    Deliver,
    Lvt(u32),
    Raise(PmiCause),
    Smi,
    Rsm,
    Reset(Reset),
    /// The debug store loses its memory.
    NoMemory,
}

const FLAGS: [u64; 15] = [
    0x43_0000,
    0x53_0000,
    0x51_0000,
    0x52_0000,
    0x41_0000,
    0x63_0000,
    0x73_0000,
    0x57_0000,
    0x0153_0000,
    0x02d3_0000,
    0x0157_0000,
    0x1_0053_0000,
    0x2_0053_0000,
    0x4_0043_0000,
    0x8_0053_0000,
];

const MSRS: [Msr; 22] = [
    Msr::PMC0,
    Msr::A_PMC0,
    Msr::PERFEVTSEL0,
    Msr::FIXED_CTR0,
    Msr::FIXED_CTR_CTRL,
    Msr::PERF_GLOBAL_STATUS,
    Msr::PERF_GLOBAL_CTRL,
    Msr::PERF_GLOBAL_OVF_CTRL,
    Msr::PERF_GLOBAL_STATUS_SET,
    Msr::PERF_GLOBAL_INUSE,
    Msr::PERF_CAPABILITIES,
    Msr::PERF_METRICS,
    Msr::PEBS_ENABLE,
    Msr::PEBS_DATA_CFG,
    Msr::PEBS_LD_LAT_THRESHOLD,
    Msr::PEBS_FRONTEND,
    Msr::OFFCORE_RSP_0,
    Msr::DS_AREA,
    Msr::RELOAD_PMC0,
    Msr::RELOAD_FIXED_CTR0,
    Msr::DEBUGCTL,
    Msr::MISC_ENABLE,
];

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(u64::MAX),
        any::<u64>(),
        (0u32..64).prop_map(|bit| 1 << bit),
        (0u32..64).prop_map(|bit| u64::MAX >> bit),
        (0u64..0x100).prop_map(|low| low | 0x7_0000_0000),
        0u64..0x20,
    ]
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![
        3 => Just(Source::Instructions),
        2 => Just(Source::CoreCycles),
        3 => select(Source::NAMED.map(|(source, _)| source).to_vec()),
    ]
}

fn amount() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0u64..4, 2 => 0u64..100]
}

fn debugctl() -> impl Strategy<Value = u64> {
    let bits = [
        DebugCtl::LBR,
        DebugCtl::FREEZE_LBRS_ON_PMI,
        DebugCtl::FREEZE_PERFMON_ON_PMI,
        DebugCtl::FREEZE_WHILE_SMM,
    ];
    vec(select(bits.to_vec()), 0..5)
        .prop_map(|bits| bits.into_iter().fold(0, |word, bit| word | bit.bits()))
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let soon = 1u64..12;
    let retire = (
        vec((source(), any::<bool>(), amount()), 1..5),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(amounts, in_tx, sibling)| Op::Retire {
            amounts,
            in_tx,
            sibling,
        });
    let config = prop_oneof![
        (0u64..16, 0u64..40).prop_map(|(groups, lbrs)| groups | lbrs << 24),
        (0u64..64, 0u64..256, 0u64..8)
            .prop_map(|(groups, gp, fixed)| groups | gp << 32 | fixed << 48),
    ];
    let room = prop_oneof![
        1 => select(vec![32u64, 144, 176, 192, 200, 384, 400]),
        1 => 0u64..300,
        3 => 300u64..4000,
    ];
    // Exactly behind a record is where it matters.
    let threshold = prop_oneof![
        3 => select(vec![32u64, 144, 176, 192, 200, 384, 400]),
        2 => 0u64..400,
        1 => 400u64..4000,
    ];
    let enable = prop_oneof![0u64..16, Just(0xf), Just(1 << 32 | 1), 0u64..0x100];
    prop_oneof![
        6 => (0u8..8, any::<usize>(), select(FLAGS.to_vec()), soon.clone())
            .prop_map(|(n, event, flags, soon)| Op::Count { n, event, flags, soon }),
        2 => (prop_oneof![Just(0x3), Just(0xb), Just(0x333), Just(0xbb1), Just(1 << 32 | 0x3), any::<u64>()], soon)
            .prop_map(|(control, soon)| Op::CountFixed { control, soon }),
        4 => (enable, config, room, threshold)
            .prop_map(|(enable, config, room, threshold)| Op::Sample { enable, config, room, threshold }),
        4 => (select(MSRS.to_vec()), 0u32..9, value())
            .prop_map(|(msr, n, value)| Op::Write(msr.plus(n).value(), value)),
        3 => (select(MSRS.to_vec()), value()).prop_map(|(msr, value)| Op::Write(msr.value(), value)),
        2 => prop_oneof![Just(u64::MAX >> 1), Just(0xf), Just(0xf_0000_000f), Just(0x7_0000_00ff)]
            .prop_map(|value| Op::Write(Msr::PERF_GLOBAL_CTRL.value(), value)),
        2 => select(vec![1u64 << 58, 1 << 59, 3 << 58, 0xf, 0x7_0000_000f, 1 << 62])
            .prop_map(|value| Op::Write(Msr::PERF_GLOBAL_OVF_CTRL.value(), value)),
        1 => Just(Op::Write(Msr::PERF_GLOBAL_CTRL.value(), 1 << 48)),
        1 => Just(Op::Write(Msr::PEBS_ENABLE.value(), 1 << 61)),
        6 => Just(Op::Go),
        3 => debugctl().prop_map(Op::DebugCtl),
        24 => retire,
        1 => Just(Op::Abort),
        1 => vec((source(), any::<bool>(), amount()), 1..4).prop_map(Op::Transaction),
        4 => Just(Op::Deliver),
        4 => prop_oneof![Just(0x400), Just(0xf0), Just(0x1_0400), any::<u32>()].prop_map(Op::Lvt),
        1 => Just(Op::Raise(PmiCause::Bts)),
        1 => Just(Op::Smi),
        2 => Just(Op::Rsm),
        1 => prop_oneof![5 => Just(Reset::Init), 1 => Just(Reset::Reset)].prop_map(Op::Reset),
        1 => Just(Op::NoMemory),
    ]
}

fn reserved() -> impl Strategy<Value = ReservedWrite> {
    select(vec![
        ReservedWrite::Fault,
        ReservedWrite::Drop,
        ReservedWrite::Keep,
    ])
}

fn quirks() -> impl Strategy<Value = QuirkSet> {
    vec(select(Quirk::ALL.to_vec()), 0..4).prop_map(|quirks| quirks.into_iter().collect())
}

fn feeds() -> impl Strategy<Value = SourceSet> {
    prop_oneof![
        3 => Just(SourceSet::ALL),
        1 => Just(SourceSet::RETIREMENT),
        1 => Just(SourceSet::RETIREMENT.with(SourceSet::MISPREDICTIONS)),
        1 => Just(SourceSet::EMPTY),
    ]
}

pub(crate) fn options() -> impl Strategy<Value = Options> {
    let open = (reserved(), reserved(), any::<bool>(), any::<bool>());
    let skid = (prop_oneof![Just(0u64), 1u64..20], any::<bool>());
    let freeze = option::of(select(vec![
        FreezeFlavour::Legacy,
        FreezeFlavour::Streamlined,
    ]));
    (
        option::of(quirks()),
        any::<u64>(),
        option::of(any::<bool>()),
        feeds(),
        (any::<bool>(), any::<bool>()),
        skid,
        freeze,
        open,
        1u32..20,
    )
        .prop_map(
            |(quirks, seed, tsx, feeds, (clocks, hold), skid, freeze, open, lost)| {
                let (any_thread_deprecated, pin_control_reserved, pend, ones) = open;
                let unit = [SkidUnit::Instructions, SkidUnit::CoreCycles];
                Options {
                    quirks,
                    seed,
                    tsx,
                    feeds,
                    cycle_by_cycle: clocks,
                    unfed: if hold { Unfed::Hold } else { Unfed::Refuse },
                    skid: skid.0,
                    skid_unit: unit[usize::from(skid.1)],
                    freeze,
                    lvtpc_pend_on_unmask: pend,
                    smm_restore: if ones {
                        SmmRestore::AllOnes
                    } else {
                        SmmRestore::Previous
                    },
                    any_thread_deprecated,
                    pin_control_reserved,
                    branch_lost_one_in: lost.try_into().expect("not 0"),
                }
            },
        )
}
