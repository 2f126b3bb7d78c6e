//! From registers to samples: formats, flags, the software filter.

use vlbr_arch::{BranchClass, Cpl, Msr, Transfer};
use vlbr_cpu::ledger::Actor;
use vlbr_cpu::processor::Options;
use vlbr_host::hardware::Word;
use vlbr_host::perf::{BranchRecord, CodeBytes, EventAttr, NoCode, Target, X86Br};
use vlbr_host::{Owned, Owner, TaskId};

use crate::common::{A, B, CPU, Host, at, options};

const KERNEL: u64 = 0xffff_ffff_8100_0000;

/// Code at fixed addresses, of every task.
struct At(&'static [(u64, &'static [u8])]);

impl CodeBytes for At {
    fn bytes(&self, _: Option<TaskId>, address: u64) -> Option<&[u8]> {
        let found = self.0.iter().find(|(at, _)| *at == address);
        found.map(|(_, code)| *code)
    }
}

/// The sample of an event of the processor whose PMI comes at once.
fn sample(host: &mut Host, code: &dyn CodeBytes) -> Vec<BranchRecord> {
    // The last branch must not be recorded: the stack is the test's.
    let off = Owned::new(0, Owner::Kernel);
    host.hw
        .wrmsr(CPU, Actor::Guest, Msr::DEBUGCTL, off)
        .unwrap();
    host.jump(0x50_0000, 0x50_0000);
    host.hw.cpu_mut(CPU).logical_mut().deliver().unwrap();
    let samples = host.perf.pmi(&mut host.hw, CPU, code);
    assert_eq!(samples.len(), 1);
    samples[0].branches.clone().unwrap().records
}

fn host_with(part: &str, version: &str, filter: &str, options: &Options) -> Host {
    let mut host = Host::with(part, 1, at(version), options);
    let attr = EventAttr {
        period: 2,
        ..host.lbr(filter)
    };
    host.open(attr, Target::Cpu(CPU));
    host.jump(0x50_0000, 0x50_0000);
    host
}

fn host(part: &str, version: &str, filter: &str) -> Host {
    host_with(part, version, filter, &options())
}

fn entry(host: &mut Host, from: u64, to: u64, info: Option<u64>) {
    host.fill(0, 0, Owner::Nobody);
    host.put(Word::From, 0, from, Owner::Task(A));
    host.put(Word::To, 0, to, Owner::Task(A));
    if let Some(info) = info {
        host.put(Word::Info, 0, info, Owner::Task(A));
    }
}

#[test]
fn format_5_takes_flags_and_cycles_from_info() {
    // Scenario 72.
    let mut host = host("skylake", "6.8", "any,u,k");
    entry(&mut host, 0x40_0000, 0x40_1000, Some(1 << 63 | 0x1234));
    let records = sample(&mut host, &NoCode);
    assert_eq!(records.len(), 32, "empty entries are told, too");
    let first = records[0];
    assert_eq!(
        (first.mispredicted, first.predicted, first.cycles),
        (true, false, 0x1234)
    );
    assert_eq!(first.from, Owned::new(0x40_0000, Owner::Task(A)));
}

#[test]
fn format_6_takes_cycles_from_to() {
    // Scenario 73.
    let mut host = host("goldmont", "6.8", "any,u,k");
    entry(&mut host, 1 << 63 | 0x40_0000, 0x0005_7fff_0000_1000, None);
    let first = sample(&mut host, &NoCode)[0];
    assert_eq!((first.cycles, first.to.value), (5, 0x7fff_0000_1000));
    assert_eq!((first.from.value, first.mispredicted), (0x40_0000, true));
    // Sign-extended from bit 47.
    let mut host = self::host("goldmont", "6.8", "any,u,k");
    entry(
        &mut host,
        0x40_0000,
        0x0007_ffff_8100_0000 & !(1 << 63),
        None,
    );
    assert_eq!(
        sample(&mut host, &NoCode)[0].to.value,
        0xffff_ffff_8100_0000
    );
}

#[test]
fn format_7_is_known_from_5_18() {
    for (version, cycles, reads) in [("5.15", 0, 64), ("6.8", 9, 96)] {
        let mut host = host("goldmont-plus", version, "any,u,k");
        entry(&mut host, 0x40_0000, 0x40_1000, Some(9));
        let words = |by, msr: Msr| {
            by == Actor::HostPmi && ![Msr::LASTBRANCH_TOS, Msr::PERF_GLOBAL_STATUS].contains(&msr)
        };
        let (records, cost) = host.cost_of(words, |host| sample(host, &NoCode));
        assert_eq!((records[0].cycles, cost.0), (cycles, reads), "{version}");
    }
}

#[test]
fn a_filter_without_flags_and_cycles_reads_no_info() {
    let mut attr_host = host("skylake", "6.8", "any,u,k,no_flags,no_cycles");
    entry(&mut attr_host, 0x40_0000, 0x40_1000, Some(1 << 63 | 7));
    let info = |by, msr: Msr| by == Actor::HostPmi && (0xdc0..0xde0).contains(&msr.value());
    let (records, cost) = attr_host.cost_of(info, |host| sample(host, &NoCode));
    assert_eq!(cost, (0, 0));
    assert_eq!(
        (
            records[0].mispredicted,
            records[0].predicted,
            records[0].cycles
        ),
        (false, false, 0)
    );
}

#[test]
fn the_sign_quirk_is_worked_around() {
    // Scenario 64: format 4 without TSX.
    let mut options = options();
    options.lbr.tsx = Some(false);
    options.pmu.tsx = Some(false);
    let mut host = Host::with("haswell", 1, at("5.15"), &options);
    host.switch(CPU, A);
    host.open(host.lbr("stack,u,k"), Target::Task(A));
    // A call from the kernel, as the hardware records it.
    let call = Transfer::near(BranchClass::NearRelCall, KERNEL, KERNEL + 0x100, Cpl::Ring0);
    for mispredicted in [false, true] {
        host.branch(&Transfer {
            mispredicted,
            ..call
        });
    }
    let recorded: Vec<u64> = host.froms()[..2].iter().map(|from| from.value).collect();
    assert_eq!(recorded, [0x9fff_ffff_8100_0000, 0x1fff_ffff_8100_0000]);
    // Written back as they were read they would fault.
    let unfixed = Owned::new(recorded[0], Owner::Kernel);
    let msr = Msr::LASTBRANCH_0_FROM_IP;
    assert!(host.hw.wrmsr(CPU, Actor::Guest, msr, unfixed).is_err());
    host.open(host.lbr("any,u"), Target::Task(B));
    host.switch(CPU, B);
    let context = host.perf.lbr_context(A).unwrap();
    let saved: Vec<u64> = context
        .entries()
        .iter()
        .map(|entry| entry.from().value)
        .collect();
    assert_eq!(saved, recorded);
    host.switch(CPU, A);
    let restored: Vec<u64> = host.froms()[..2].iter().map(|from| from.value).collect();
    assert_eq!(restored, [0xffff_ffff_8100_0000, 0x7fff_ffff_8100_0000]);
    assert_eq!(host.perf.unchecked_msr_faults(), 0);
}

#[test]
fn flags_of_format_4_stand_in_from() {
    let mut host = host("haswell", "5.15", "any,u,k");
    entry(&mut host, 1 << 63 | 1 << 62 | 0x40_0000, 0x40_1000, None);
    let first = sample(&mut host, &NoCode)[0];
    assert_eq!(
        (first.from.value, first.mispredicted, first.in_tx),
        (0x40_0000, true, true)
    );
}

#[test]
fn the_second_record_of_an_abort_is_dropped() {
    let mut host = host("haswell", "5.15", "any,u,k");
    host.fill(1, 2, Owner::Task(A));
    // Slot 0 is the older of the two and has the flag; slot 1 above it has not.
    host.put(Word::From, 0, 1 << 61 | 0x40_0000, Owner::Task(A));
    let records = sample(&mut host, &NoCode);
    assert!(records[0].abort);
    assert_eq!(records.len(), 15);
    let mut skylake = self::host("skylake", "5.15", "any,u,k");
    skylake.fill(1, 2, Owner::Task(A));
    skylake.put(Word::Info, 0, 1 << 61, Owner::Task(A));
    assert_eq!(sample(&mut skylake, &NoCode).len(), 32);
}

#[test]
fn what_the_nehalem_filter_lets_through_too_much_is_dropped() {
    // Scenario 74.
    let mut host = host("nehalem", "5.15", "any_call,u");
    assert_eq!(host.msr(Msr::LBR_SELECT), 0x025);
    host.fill(1, 2, Owner::Task(A));
    let (call, jump) = (host.froms()[0].value, host.froms()[1].value);
    assert_eq!((call, jump), (0x40_0000, 0x40_0100));
    let code = At(&[(0x40_0000, &[0xe8, 1, 0, 0, 0]), (0x40_0100, &[0xff, 0xe0])]);
    let records = sample(&mut host, &code);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].from.value, call);
    assert_eq!(records[0].kind, X86Br::CALL.with(X86Br::USER));
}

#[test]
fn code_that_cannot_be_read_is_dropped() {
    // Scenario 75.
    let mut host = host("skylake", "5.15", "any,u");
    host.fill(1, 2, Owner::Task(A));
    assert!(sample(&mut host, &NoCode).is_empty());
}

#[test]
fn a_page_fault_is_an_interrupt() {
    // Scenario 76.
    let mut host = host("skylake", "5.15", "any,u,k,save_type");
    entry(&mut host, 0x40_0000, KERNEL, Some(1));
    let code = At(&[(0x40_0000, &[0x48, 0x89, 0x07])]);
    let records = sample(&mut host, &code);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].kind, X86Br::IRQ.with(X86Br::KERNEL));
}

#[test]
fn a_call_stack_is_read_up_to_the_first_empty_entry() {
    let mut host = host("skylake", "5.15", "stack,u");
    host.fill(4, 3, Owner::Task(A));
    let code = At(&[
        (0x40_0000, &[0xe8, 1, 0, 0, 0]),
        (0x40_0100, &[0xe8, 1, 0, 0, 0]),
        (0x40_0200, &[0xff, 0xd0]),
    ]);
    let entries = |by, msr: Msr| {
        by == Actor::HostPmi
            && [0x680, 0x6c0, 0xdc0]
                .iter()
                .any(|base| msr.value().wrapping_sub(*base) < 32)
    };
    let (records, cost) = host.cost_of(entries, |host| sample(host, &code));
    assert_eq!(records.len(), 3);
    // The entry that ends it costs FROM and TO.
    assert_eq!(cost, (3 * 3 + 2, 0));
}

#[test]
fn architectural_lbr_tells_types_and_cycles() {
    let mut host = host("sapphire-rapids", "6.8", "any,u");
    host.fill(0, 0, Owner::Nobody);
    let valid = 1 << 60;
    for (n, kind) in [(0, 5u64), (1, 0), (2, 8)] {
        host.put(Word::From, n, 0x40_0000 + u64::from(n), Owner::Task(A));
        host.put(Word::To, n, 0x40_1000, Owner::Task(A));
        host.put(Word::Info, n, kind << 56 | valid | 7, Owner::Task(A));
    }
    let off = Owned::new(0, Owner::Kernel);
    host.hw.wrmsr(CPU, Actor::Guest, Msr::LBR_CTL, off).unwrap();
    host.jump(0x50_0000, 0x50_0000);
    host.hw.cpu_mut(CPU).logical_mut().deliver().unwrap();
    // OTHER_BRANCH is decoded by software: a far return.
    let code = At(&[(0x40_0002, &[0xcb])]);
    let samples = host.perf.pmi(&mut host.hw, CPU, &code);
    let stack = samples[0].branches.as_ref().unwrap();
    let kinds: Vec<X86Br> = stack.records.iter().map(|record| record.kind).collect();
    let user = X86Br::USER;
    assert_eq!(
        kinds,
        [
            X86Br::RET.with(user),
            X86Br::JCC.with(user),
            X86Br::RET.with(user)
        ]
    );
    assert!(stack.records.iter().all(|record| record.cycles == 7));
    assert_eq!(stack.hw_idx, None);
}

#[test]
fn hw_idx_is_told_from_5_7() {
    for (version, told) in [("5.4", None), ("5.10", Some(4))] {
        let mut host = host("skylake", version, "any,u,k");
        host.fill(4, 32, Owner::Task(A));
        sample(&mut host, &NoCode);
        assert_eq!(host.perf.lbr_cpu(CPU).stack().hw_idx, told, "{version}");
    }
}
