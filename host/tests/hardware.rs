//! Entries at once and MSR by MSR: the same registers, owners and rows; and whose time accesses take.

use proptest::prelude::*;
use vlbr_arch::{BranchClass, Cpl, Cycles, DebugCtl, Msr, Transfer};
use vlbr_cpu::ledger::{Actor, CostModel, Event, Prices};
use vlbr_cpu::processor::{Boundary, Options};
use vlbr_host::hardware::{Entry, Hardware, Running, Word};
use vlbr_host::{CpuId, Owned, Owner, TaskId, VcpuId};
use vlbr_pmu::Increments;

const PARTS: [&str; 5] = [
    "haswell",
    "skylake",
    "goldmont",
    "nehalem",
    "sapphire-rapids",
];
const CPU: CpuId = CpuId(0);

#[derive(Clone, Debug)]
enum Op {
    Branch(u64, bool, u8),
    Save {
        first: u32,
        count: u32,
        stop: bool,
    },
    Restore {
        first: u32,
        entries: Vec<([u64; 3], u8)>,
    },
    Write(u32, u64),
}

fn owner(n: u8) -> Owner {
    match n % 4 {
        0 => Owner::Nobody,
        1 => Owner::Kernel,
        2 => Owner::Task(TaskId(n.into())),
        _ => Owner::Guest(VcpuId(n.into())),
    }
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        1u64..1 << 46,
        Just(0xffff_ffff_8100_0000),
        Just(1 << 63),
        any::<u64>(),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let entry = ([address(), address(), address()], any::<u8>());
    prop_oneof![
        4 => (1u64..1 << 40, any::<bool>(), any::<u8>()).prop_map(|(a, k, w)| Op::Branch(a, k, w)),
        2 => (0u32..64, 0u32..40, any::<bool>())
            .prop_map(|(first, count, stop)| Op::Save { first, count, stop }),
        2 => (0u32..64, prop::collection::vec(entry, 0..40))
            .prop_map(|(first, entries)| Op::Restore { first, entries }),
        1 => (0u32..32, address()).prop_map(|(n, value)| Op::Write(n, value)),
    ]
}

/// What an operation gives, as text.
fn apply(hardware: &mut Hardware, op: &Op) -> String {
    let nr = hardware.cpu(CPU).lbr_msrs().nr;
    let (processor, _, ledger) = hardware.split(CPU);
    match op {
        Op::Branch(address, kernel, who) => {
            let running = match who % 3 {
                0 => Running::Host(None),
                1 => Running::Host(Some(TaskId(7))),
                _ => Running::Guest(VcpuId(u16::from(*who))),
            };
            processor.set_running(running);
            let cpl = if *kernel { Cpl::Ring0 } else { Cpl::Ring3 };
            let branch = Transfer::near(BranchClass::NearRelCall, *address, address + 64, cpl);
            let run = Increments::instruction(cpl);
            let now = Cycles::new(processor.now().value() + 5);
            let retired = processor.retire(Boundary {
                run: &run,
                transfer: Some(&branch),
                now,
            });
            format!("{retired:?}")
        }
        Op::Save { first, count, stop } => {
            let mut entries = Vec::new();
            let range = (first % nr, (*count).min(nr));
            let read = processor.read_entries(ledger, Actor::HostSave, range, *stop, &mut entries);
            format!("{read:?} {entries:?}")
        }
        Op::Restore { first, entries } => {
            let entries = entries.iter().take(nr as usize);
            let entries = entries.map(|(values, who)| Entry::of(*values, [owner(*who); 3]));
            let entries = entries.collect::<Vec<_>>().into_iter();
            format!(
                "{:?}",
                processor.write_entries(ledger, Actor::HostRestore, first % nr, entries)
            )
        }
        Op::Write(n, value) => {
            let msr = processor.lbr_msrs().entry(Word::To, n % nr).unwrap();
            let value = Owned::new(*value, Owner::Kernel);
            format!("{:?}", processor.wrmsr(ledger, Actor::Host, msr, value))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whole_entries_equal_single_registers(
        part in prop::sample::select(&PARTS[..]),
        ops in prop::collection::vec(op(), 1..40),
    ) {
        let mut fast = Hardware::new(part, 1, &Options::default()).unwrap();
        let on = if fast.cpu(CPU).lbr_msrs().arch {
            (Msr::LBR_CTL, 0x7f_0007)
        } else {
            (Msr::DEBUGCTL, DebugCtl::LBR.bits())
        };
        let value = Owned::new(on.1, Owner::Kernel);
        fast.wrmsr(CPU, Actor::Host, on.0, value).unwrap();
        let mut slow = fast.clone();
        slow.cpu_mut(CPU).set_msr_by_msr(true);
        for op in &ops {
            prop_assert_eq!(apply(&mut fast, op), apply(&mut slow, op));
            prop_assert_eq!(fast.cpu(CPU).owners(), slow.cpu(CPU).owners());
            prop_assert!(fast.cpu(CPU).logical().lbr() == slow.cpu(CPU).logical().lbr());
        }
        prop_assert_eq!(fast.ledger(), slow.ledger());
    }

    /// A record is its maker's, wherever it is read.
    #[test]
    fn records_belong_to_whoever_ran(
        part in prop::sample::select(&PARTS[..]),
        who in prop::collection::vec(any::<u8>(), 1..100),
    ) {
        let mut hardware = Hardware::new(part, 1, &Options::default()).unwrap();
        let msrs = *hardware.cpu(CPU).lbr_msrs();
        let on = if msrs.arch {
            (Msr::LBR_CTL, 0x7f_0007)
        } else {
            (Msr::DEBUGCTL, DebugCtl::LBR.bits())
        };
        let value = Owned::new(on.1, Owner::Kernel);
        hardware.wrmsr(CPU, Actor::Host, on.0, value).unwrap();
        let mut made = Vec::new();
        for (n, who) in who.iter().enumerate() {
            let from = 0x1000 + 16 * n as u64;
            apply(&mut hardware, &Op::Branch(from, *who & 4 != 0, *who));
            made.push((from, hardware.cpu(CPU).running()));
        }
        let youngest = match msrs.tos {
            Some(tos) => hardware.rdmsr(CPU, Actor::Host, tos).unwrap().value as u32,
            None => 0,
        };
        for (i, (n, (from, running))) in made.iter().enumerate().rev().enumerate() {
            if i == msrs.nr as usize {
                break;
            }
            let entry = msrs.older(youngest, i as u32);
            let msr = msrs.entry(Word::From, entry).unwrap();
            let read = hardware.rdmsr(CPU, Actor::Host, msr).unwrap();
            let cpl = if who[n] & 4 != 0 { Cpl::Ring0 } else { Cpl::Ring3 };
            prop_assert_eq!(read.value & 0xffff_ffff_ffff, *from);
            prop_assert_eq!(read.owner, running.owner(cpl));
        }
    }
}

#[test]
fn what_is_counted_takes_time_on_its_processor() {
    let mut hardware = Hardware::new("skylake", 3, &Options::default()).unwrap();
    let prices = Prices::new(CostModel::published(), "skylake").unwrap();
    let (msr, by) = (Msr::DEBUGCTL, Actor::Host);
    let [read, write, entry] =
        [Event::Rdmsr(msr), Event::Wrmsr(msr), Event::VmEntry].map(|event| prices.of(event));
    hardware.set_prices(prices);
    let (_, _, ledger) = hardware.split(CpuId(2));
    ledger.vm_entry();
    let _ = hardware.rdmsr(CpuId(0), by, msr).unwrap();
    let (_, _, ledger) = hardware.split(CpuId(1));
    ledger.vm_entry();
    let value = Owned::new(0, Owner::Kernel);
    hardware.wrmsr(CpuId(2), by, msr, value).unwrap();
    let mut spent = Vec::new();
    hardware.take_spent(&mut spent);
    assert_eq!(spent, [(0, read), (1, entry), (2, entry + write)]);
}
