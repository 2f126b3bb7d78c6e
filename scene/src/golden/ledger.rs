//! The ledger by actor, kind and group of registers.

use std::collections::BTreeMap;

use vlbr_arch::Msr;
use vlbr_cpu::ledger::{Actor, Event, Ledger};
use vlbr_host::hardware::{LbrMsrs, LbrRegister, Word};

use super::section::{Row, Section, listed};

/// The group of a register: words of all entries are one, other registers stand alone.
fn group(msrs: &LbrMsrs, msr: Msr) -> String {
    let name = match msrs.register(msr) {
        Some(LbrRegister::Entry(Word::From, _)) => "FROM",
        Some(LbrRegister::Entry(Word::To, _)) => "TO",
        Some(LbrRegister::Entry(Word::Info, _)) => "INFO",
        Some(LbrRegister::Tos) => "TOS",
        Some(LbrRegister::Filter) => "filter",
        Some(LbrRegister::Depth) => "DEPTH",
        Some(LbrRegister::DebugCtl) => "DEBUGCTL",
        Some(LbrRegister::Ler(_)) => "LER",
        None => return msr.to_string().replace(' ', "-"),
    };
    name.to_owned()
}

/// What an actor did, and to what.
fn kind(msrs: &LbrMsrs, event: Event) -> (String, String) {
    let of = |kind: &str, msr| (kind.to_owned(), group(msrs, msr));
    let alone = |kind: String| (kind, String::new());
    match event {
        Event::Rdmsr(msr) => of("RDMSR", msr),
        Event::RdmsrFault(msr) => of("RDMSR #GP", msr),
        Event::Wrmsr(msr) => of("WRMSR", msr),
        Event::WrmsrFault(msr) => of("WRMSR #GP", msr),
        Event::Vmread(field) => ("VMREAD".to_owned(), field.to_string()),
        Event::Vmwrite(field) => ("VMWRITE".to_owned(), field.to_string()),
        Event::VmExit { reason, msr } => {
            let msr = msr.map(|msr| format!(" {}", group(msrs, msr)));
            let what = format!("{reason}{}", msr.unwrap_or_default());
            ("VM exit".to_owned(), what)
        }
        Event::Transfer(area, msr) => of(&format!("{area} entry"), msr),
        Event::FieldLoad(msr) => of("field load", msr),
        Event::FieldSave(msr) => of("field save", msr),
        Event::FieldClear(msr) => of("field clear", msr),
        Event::Xsaves
        | Event::Xrstors
        | Event::VmEntry
        | Event::VmEntryFailure(_)
        | Event::Area(_) => alone(event.to_string()),
    }
}

/// A row for each actor and kind.
pub(super) fn rows(ledger: &Ledger, msrs: &LbrMsrs, out: &mut Section) {
    let mut sums: BTreeMap<(Actor, String), BTreeMap<String, u64>> = BTreeMap::new();
    for (actor, event, count) in ledger.rows() {
        let (kind, what) = kind(msrs, event);
        let sum = sums.entry((actor, kind)).or_default().entry(what);
        *sum.or_default() += count;
    }
    for ((actor, kind), counts) in sums {
        let key = format!("{actor} {kind}");
        out.push(Row::new(&key, &listed(counts)));
    }
}

/// Every count of every register.
pub(super) fn every_row(ledger: &Ledger) -> String {
    let rows = ledger.rows();
    let rows = rows.map(|(actor, event, count)| format!("{actor} {event} {count}\n"));
    rows.collect()
}
