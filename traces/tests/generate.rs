//! Generated traces: what the spec says is what they measure, and nothing in a spec goes unchecked.

use std::path::{Path, PathBuf};

use vlbr_cpu::{ExitInstruction, ExitSites};
use vlbr_fuzz::{Form, throw};
use vlbr_traces::generate::{
    CodeSpec, Measured, Ring, Row, Spec, Unit, compare, fit, generate, measure, measure_spec,
};
use vlbr_traces::vlt::{ChunkBuffer, MachineAccess, OpenOptions, SideBuffer, Trace};

const BUILD: &str = include_str!("../../corpus/gen/kernel-build.toml");
const LBR: &str = include_str!("../../corpus/gen/lbr-user.toml");

fn spec(text: &str) -> Spec {
    Spec::from_toml(text).expect("spec")
}

fn written(spec: &Spec) -> Vec<u8> {
    generate(spec, Vec::new(), 3, &mut |_| ())
        .expect("generated")
        .0
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[track_caller]
fn near(what: &str, found: f64, wanted: f64, tolerance: f64) {
    assert!(
        (found - wanted).abs() <= tolerance,
        "{what}: {found:.4}, wanted {wanted:.4} within {tolerance:.4}"
    );
}

/// The mix of a ring's branches is its spec's within 2.5 hundredths, the length of its blocks within
/// 6 hundredths of it.
fn ring_is_as_specified(what: &str, ring: &Ring, code: &CodeSpec) {
    let branches = &code.branches;
    for (class, count, wanted) in [
        ("conditional", ring.conditional, branches.conditional),
        ("jump", ring.jump, branches.jump),
        ("indirect jump", ring.indirect_jump, branches.indirect_jump),
        ("call", ring.call, branches.call),
        ("indirect call", ring.indirect_call, branches.indirect_call),
        ("zero call", ring.zero_call, branches.zero_call),
        ("return", ring.returns, branches.returns()),
    ] {
        near(
            &format!("{what} {class}"),
            share(count, ring.branches),
            wanted,
            0.025,
        );
    }
    let block = share(ring.instructions, ring.branches);
    near(&format!("{what} block"), block / code.block, 1.0, 0.06);
}

/// A count is its rate within 3 hundredths and 4 occurrences.
fn rate_is(what: &str, count: u64, per_million: f64, measured: &Measured) {
    let wanted = per_million * measured.instructions as f64 / 1e6;
    near(what, count as f64, wanted, 0.03 * wanted + 4.0);
}

#[test]
fn what_runs_is_what_the_spec_says_for_every_seed() {
    for text in [BUILD, LBR] {
        for seed in 1..=6 {
            let mut spec = spec(text);
            (spec.seed, spec.instructions, spec.threads) = (seed, 6_000_000, 1);
            let measured = measure_spec(&spec, &mut |_| ()).expect("generated");
            let what = format!("{} {seed}", spec.name);
            let kernel = share(measured.kernel.instructions, measured.instructions);
            near(
                &format!("{what} kernel"),
                kernel,
                spec.kernel_share.unwrap(),
                0.02,
            );
            ring_is_as_specified(
                &format!("{what} user"),
                &measured.user,
                spec.user.as_ref().unwrap(),
            );
            let code = spec.kernel.as_ref().unwrap();
            ring_is_as_specified(&format!("{what} kernel"), &measured.kernel, code);
            rate_is(
                &format!("{what} calls"),
                measured.syscalls,
                spec.events.syscalls,
                &measured,
            );
            rate_is(
                &format!("{what} faults"),
                measured.exceptions,
                spec.events.exceptions,
                &measured,
            );
            if spec.lbr.is_some() {
                continue;
            }
            rate_is(
                &format!("{what} interrupts"),
                measured.interrupts,
                spec.events.interrupts,
                &measured,
            );
            for kind in [
                "out",
                "hlt",
                "cpuid",
                "pause",
                "vmcall",
                "mov to cr3",
                "wrmsr",
            ] {
                let rates = spec.exits.iter().filter(|exit| exit.instruction == kind);
                let wanted: f64 = rates.map(|exit| exit.per_million).sum();
                let found = measured
                    .exits
                    .iter()
                    .filter(|((found, _), _)| found.name().eq_ignore_ascii_case(kind));
                let count = found.map(|(_, count)| count).sum();
                rate_is(&format!("{what} {kind}"), count, wanted, &measured);
            }
        }
    }
}

#[test]
fn the_same_spec_gives_the_same_bytes_and_another_seed_others() {
    let mut spec = spec(BUILD);
    spec.instructions = 300_000;
    let bytes = written(&spec);
    assert_eq!(bytes, written(&Spec::from_toml(&spec.to_toml()).unwrap()));
    spec.seed += 1;
    assert_ne!(bytes, written(&spec));
}

#[test]
fn the_trace_is_whole_names_its_spec_and_has_a_vcpu_a_thread() {
    let mut spec = spec(BUILD);
    spec.instructions = 1_200_000;
    let trace = Trace::from_bytes(written(&spec), OpenOptions::default()).unwrap();
    let note = |name: &str| {
        let notes = &trace.meta().notes;
        notes
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    assert_eq!(note("spec sha256"), Some(spec.digest().as_str()));
    assert!(note("synthetic").is_some());
    let vcpus: Vec<_> = trace.threads().iter().map(|thread| thread.vcpu).collect();
    assert_eq!(vcpus, [Some(0), Some(1)]);
    let mut buffer = ChunkBuffer::new();
    for index in 0..trace.chunks().len() {
        trace.check_chunk(index, &mut buffer).unwrap();
        // Each step begins where the one before said that it goes on.
        let chunk = trace.decode(index, &mut buffer).unwrap();
        let steps: Vec<_> = chunk.steps().collect();
        let code = trace.code();
        for pair in steps.windows(2) {
            let next = code.step(pair[0]).next_address(code.block_of(pair[0]));
            assert_eq!(next, Some(code.block_of(pair[1]).address()));
        }
    }
    let measured = measure(&trace, &mut |_| ()).unwrap();
    let again = measure_spec(&spec, &mut |_| ()).unwrap();
    assert!(
        compare(&measured, &again)
            .iter()
            .all(|row| row.difference == 0.0)
    );
}

/// Every access of a trace with the instruction it stands at.
fn accesses(trace: &Trace) -> Vec<(ExitInstruction, Option<MachineAccess>)> {
    let code = trace.code();
    let sites = ExitSites::new(code);
    let (mut buffer, mut side) = (ChunkBuffer::new(), SideBuffer::default());
    let mut all = Vec::new();
    for index in 0..trace.chunks().len() {
        let chunk = trace.decode(index, &mut buffer).unwrap();
        let machine = trace.machine_accesses(index, &mut side).unwrap();
        let mut machine = machine.iter().peekable();
        for (number, id) in (0..).zip(chunk.steps()) {
            let step = code.step(id);
            for site in sites
                .of(step.block)
                .iter()
                .filter(|site| site.index < step.retired)
            {
                let at = |found: &&&(_, _)| {
                    let (position, _): &(vlbr_traces::vlt::Position, MachineAccess) = found;
                    (position.step, position.instruction) == (number, site.index)
                };
                let access = machine.peek().filter(at).map(|(_, access)| *access);
                if access.is_some() {
                    machine.next();
                }
                all.push((site.instruction, access));
            }
        }
        assert_eq!(
            machine.next(),
            None,
            "an access that stands at no such instruction"
        );
    }
    all
}

#[test]
fn every_msr_port_and_cpuid_instruction_has_its_access_and_no_other_one() {
    use ExitInstruction as E;
    let mut spec = spec(BUILD);
    spec.instructions = 3_000_000;
    let trace = Trace::from_bytes(written(&spec), OpenOptions::default()).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for (kind, access) in accesses(&trace) {
        seen.insert(kind);
        let fits = match (kind, access) {
            (E::Rdmsr, Some(MachineAccess::ReadMsr { msr, .. })) => msr == 0x38e,
            (E::Wrmsr, Some(MachineAccess::WriteMsr { msr, value })) => {
                matches!((msr, value), (0x6e0, Some(1_000_000)) | (0x830, Some(0xfd)))
            }
            (E::In, Some(MachineAccess::PortIn { port, .. })) => port == 0x3fd,
            (E::Out, Some(MachineAccess::PortOut { port, value })) => {
                (port, value) == (0xc050, Some(0))
            }
            (E::Cpuid, Some(MachineAccess::Cpuid { leaf, subleaf, .. })) => {
                (leaf, subleaf) == (7, 0)
            }
            (E::Rdmsr | E::Wrmsr | E::In | E::Out | E::Cpuid, _) => false,
            (_, access) => access.is_none(),
        };
        assert!(fits, "{}: {access:?}", kind.name());
    }
    for kind in [
        E::Hlt,
        E::Pause,
        E::Vmcall,
        E::WriteCr3,
        E::Invlpg,
        E::Cpuid,
        E::In,
        E::Out,
    ] {
        assert!(seen.contains(&kind), "{}", kind.name());
    }
}

#[test]
fn a_guest_that_uses_the_lbr_clears_programs_and_reads_all_of_it() {
    let mut spec = spec(LBR);
    spec.exits.clear();
    spec.instructions = 1_600_000;
    let trace = Trace::from_bytes(written(&spec), OpenOptions::default()).unwrap();
    let (mut reads, mut writes) = ([0_u64; 5], [0_u64; 4]);
    let mut last = None;
    for (_, access) in accesses(&trace) {
        match access {
            Some(MachineAccess::ReadMsr { msr, value: None }) => {
                match msr {
                    0x1c9 => reads[0] += 1,
                    0x680..=0x69f => reads[1] += 1,
                    0x6c0..=0x6df => reads[2] += 1,
                    0xdc0..=0xddf => reads[3] += 1,
                    0x1d9 | 0x38e => reads[4] += 1,
                    _ => panic!("read of {msr:#x}"),
                }
                if (0x6c0..=0x6df).contains(&msr) {
                    assert_eq!(last, Some(msr - 0x40), "TO before its FROM");
                }
                last = Some(msr);
            }
            Some(MachineAccess::WriteMsr {
                msr,
                value: Some(value),
            }) => match (msr, value) {
                (0x1d9, 0x801) => writes[0] += 1,
                (0x1d9, 0) => writes[1] += 1,
                (0x1c8, 0) => writes[2] += 1,
                (0x680..=0x69f | 0x6c0..=0x6df | 0xdc0..=0xddf, 0) => writes[3] += 1,
                _ => {}
            },
            other => panic!("{other:?}"),
        }
    }
    // Two sessions of 600,000 instructions, read every 20,000, begin at 0 and 800,000.
    let [tos, from, to, info, _] = reads;
    assert!((54..=60).contains(&tos), "{tos} reads");
    assert_eq!((from, to, info), (32 * tos, 32 * tos, 32 * tos));
    assert_eq!(writes[..3], [2, 2, 2]);
    assert_eq!(writes[3], 2 * 3 * 32);
}

#[test]
fn code_without_a_kernel_leaves_for_one_that_is_not_seen() {
    let mut spec = spec(BUILD);
    (spec.kernel, spec.kernel_share) = (None, None);
    spec.exits.retain(|exit| exit.ring == Some(3));
    spec.instructions = 500_000;
    let trace = Trace::from_bytes(written(&spec), OpenOptions::default()).unwrap();
    let measured = measure(&trace, &mut |_| ()).unwrap();
    assert_eq!(measured.kernel.instructions, 0);
    rate_is(
        "system calls",
        measured.syscalls,
        spec.events.syscalls,
        &measured,
    );
    rate_is(
        "interrupts",
        measured.interrupts,
        spec.events.interrupts,
        &measured,
    );
    assert!(trace.threads().iter().all(|thread| thread.vcpu.is_none()));
}

#[test]
fn a_kernel_alone_runs_for_ever_and_is_interrupted() {
    let mut spec = spec(BUILD);
    (spec.user, spec.kernel_share) = (None, None);
    spec.events.syscalls = 0.0;
    spec.exits.retain(|exit| exit.ring.is_none());
    let measured = measure_spec(&spec, &mut |_| ()).unwrap();
    assert_eq!(measured.user.instructions, 0);
    rate_is(
        "interrupts",
        measured.interrupts,
        spec.events.interrupts,
        &measured,
    );
    rate_is(
        "faults",
        measured.exceptions,
        spec.events.exceptions,
        &measured,
    );
    ring_is_as_specified("kernel", &measured.kernel, spec.kernel.as_ref().unwrap());
}

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../corpus")
        .join(name)
}

/// The rows of a fit.
fn fitted(name: &str) -> Vec<Row> {
    let options = OpenOptions {
        check_chunks: false,
        ..OpenOptions::default()
    };
    let trace = Trace::open(&corpus(name), options).expect("trace");
    let input = measure(&trace, &mut |_| ()).expect("measured");
    let spec = fit(&input, name, &mut |_, _| ()).expect("fitted");
    assert_eq!(Spec::from_toml(&spec.to_toml()), Ok(spec.clone()));
    compare(
        &input,
        &measure_spec(&spec, &mut |_| ()).expect("generated"),
    )
}

/// Shares within `points` hundredths, averages within `percent` of the input; rates of which the output
/// has 100 occurrences or more within 5 %.
fn errors_are_below(rows: &[Row], points: f64, percent: f64) {
    for row in rows {
        let bound = match row.unit {
            Unit::Percent => points,
            Unit::Average => percent,
            Unit::PerMillion if row.input >= 10.0 => 5.0,
            Unit::PerMillion => continue,
        };
        assert!(row.difference.abs() <= bound, "{row:?}");
    }
}

#[test]
fn a_fit_of_sqlite_is_within_six_points_and_fifteen_percent() {
    errors_are_below(&fitted("sqlite.vlt"), 6.0, 15.0);
}

#[test]
fn a_fit_of_a_booting_kernel_is_within_twelve_points_and_thirty_percent() {
    errors_are_below(&fitted("gpl/boot.vlt"), 12.0, 30.0);
}

#[test]
fn what_cannot_be_is_refused_with_field_and_reason_on_one_line() {
    let change = |from: &str, to: &str| {
        assert!(BUILD.contains(from), "{from}");
        Spec::from_toml(&BUILD.replacen(from, to, 1))
            .expect_err(to)
            .to_string()
    };
    for (from, to, error) in [
        (
            "seed = 1",
            "sead = 1",
            "line 6, column 1: unknown field `sead`",
        ),
        (
            "conditional = 0.72",
            "conditional = 0.5",
            "user.branches: the shares sum to 0.7800, not 1",
        ),
        (
            "functions = 200",
            "functions = 0",
            "user.functions: 0 is not from 1 to 4000",
        ),
        (
            "functions = 200",
            "functions = 5",
            "user.functions: 5 for 9 levels of calls",
        ),
        (
            "base = 2",
            "base = 65",
            "user.calls.base: 65 is not from 0 to 64",
        ),
        (
            "block = 5.0",
            "block = nan",
            "user.block: NaN is not from 1.5 to 200",
        ),
        (
            "[0.06, 0.12",
            "[0.18, 0.0",
            "user.calls.depth: level 2 has no calls",
        ),
        (
            "[4, 0.4]",
            "[4, 0.9]",
            "user.indirect.jump_targets: the shares sum to 1.5000, not 1",
        ),
        (
            "[4, 0.4]",
            "[0, 0.4]",
            "user.indirect.jump_targets: 0 is not from 1 to 512",
        ),
        (
            "kernel_share = 0.3",
            "kernel_share = 1.0",
            "kernel_share: 1 is not from 0.001 to 0.999",
        ),
        (
            "kernel_share = 0.3",
            "kernel_share = 0.01",
            "kernel_share: 0.01 leaves 23 instructions",
        ),
        ("kernel_share = 0.3", "", "kernel_share: missing"),
        (
            "interrupts = 60.0",
            "interrupts = 10.0",
            "events.interrupts: 10 per million, but 20 HLTs",
        ),
        (
            "syscalls = 250.0",
            "syscalls = -1.0",
            "events.syscalls: -1 is not from 0 to 20000",
        ),
        (
            "\"0x6e0\"",
            "\"IA32_NONE\"",
            "exits 1 (wrmsr), msr: no register is named \"IA32_NONE\"",
        ),
        (
            "\"hlt\"",
            "\"halt\"",
            "exits 5 (halt), instruction: not one that can cause a VM exit",
        ),
        (
            "ring = 3",
            "ring = 1",
            "exits 6 (cpuid), ring: 1 is neither 0 nor 3",
        ),
        (
            "threads = 2",
            "threads = 0",
            "threads: 0 is not from 1 to 1024",
        ),
        (
            "instructions = 2_000_000",
            "instructions = 0",
            "instructions: 0 is not from 1000",
        ),
    ] {
        let found = change(from, to);
        assert!(found.starts_with(error), "{found}\nwanted {error}");
        assert!(!found.contains('\n'), "{found}");
    }
    let lbr = |from: &str, to: &str| {
        let text = LBR.replacen(from, to, 1);
        Spec::from_toml(&text).expect_err(to).to_string()
    };
    let zero = lbr("period = 20_000", "period = 0");
    assert!(zero.starts_with("lbr.period: 0 is not from 1000"), "{zero}");
    let name = lbr("\"skylake\"", "\"skyfall\"");
    assert!(name.starts_with("lbr.cpu: "), "{name}");
    let idle = lbr("active = 600_000", "");
    assert!(idle.starts_with("lbr.active: missing"), "{idle}");
    let few = LBR.replacen("per_million = 30.0", "per_million = 15_000.0", 1);
    let few = Spec::from_toml(&few).expect_err("too many").to_string();
    assert!(
        few.starts_with("kernel: 15020 system calls and exits a million do not fit"),
        "{few}"
    );
}

#[test]
fn fuzz_spec() {
    let seeds = [BUILD, LBR].map(|text| text.as_bytes().to_vec());
    let tally = throw("spec", 1500, Form::Text, &seeds, |bytes| {
        let text = str::from_utf8(bytes).ok();
        let Some(mut spec) = text.and_then(|text| Spec::from_toml(text).ok()) else {
            return false;
        };
        assert_eq!(Spec::from_toml(&spec.to_toml()).as_ref(), Ok(&spec));
        (spec.instructions, spec.threads) = (5000, spec.threads.min(3));
        measure_spec(&spec, &mut |_| ()).expect("a checked spec is generated");
        true
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}
