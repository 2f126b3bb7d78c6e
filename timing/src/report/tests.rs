//! What reports say of blocks that were worked out by hand.

use super::*;
use crate::bound::{BlockModel, Repetition};
use crate::{Environment, microarchitectures};
use proptest::prelude::*;

fn report_of(core: &str, bytes: &[u8], repetition: Repetition) -> BlockReport {
    let core = microarchitectures()
        .named(core)
        .expect("built in")
        .without_fit();
    let mut model = BlockModel::new(&core, Environment::Unknown);
    explain(&mut model, &Code::new(bytes.to_vec()), repetition).expect("a block")
}

fn skylake(bytes: &[u8]) -> BlockReport {
    report_of("skylake", bytes, Repetition::Unrolled)
}

/// The parts that bind.
fn binding(report: &BlockReport) -> Vec<&'static str> {
    let binding = report.bounds.iter().filter(|row| row.binds);
    binding.map(|row| row.part).collect()
}

fn why<'r>(report: &'r BlockReport, part: &str) -> &'r str {
    let row = report.bounds.iter().find(|row| row.part == part);
    &row.expect("the part has a bound").why
}

#[test]
fn a_chain_is_told_instruction_by_instruction() {
    // imul rax, rbx; add rbx, rax; nop
    let report = skylake(&[0x48, 0x0f, 0xaf, 0xc3, 0x48, 0x01, 0xc3, 0x90]);
    assert_eq!(report.cycles, 4.0);
    assert_eq!(binding(&report), ["dependence"]);
    let chain: Vec<_> = report
        .chain
        .iter()
        .map(|row| {
            (
                row.text.as_str(),
                row.waits_for.as_str(),
                row.carried,
                row.latency,
            )
        })
        .collect();
    let imul = ("imul rax, rbx", "rbx", true, 3.0);
    assert_eq!(chain, [imul, ("add rbx, rax", "rax", false, 1.0)]);
    assert!(why(&report, "dependence").starts_with("rbx of the iteration before comes after 4"));
}

#[test]
fn a_chain_through_memory_names_memory() {
    // add qword [rbx], 1
    let report = skylake(&[0x48, 0x83, 0x03, 0x01]);
    assert_eq!(report.chain.len(), 1);
    assert_eq!(report.chain[0].waits_for, "memory");
    assert_eq!(report.chain[0].latency, 5.0);
}

#[test]
fn ports_that_bind_are_named_with_what_loads_them() {
    // imul rax, r8; xor rax, rax; imul rcx, r8; xor rcx, rcx: no chain.
    let report = skylake(&[
        0x49, 0x0f, 0xaf, 0xc0, 0x48, 0x31, 0xc0, 0x49, 0x0f, 0xaf, 0xc8, 0x48, 0x31, 0xc9,
    ]);
    assert_eq!(binding(&report), ["ports"]);
    assert_eq!(
        why(&report, "ports"),
        "2 uops for port 1 alone: imul rax, r8; imul rcx, r8"
    );
    let port = report.ports.iter().find(|row| row.port == "1");
    assert_eq!(port.map(|row| row.uops), Some(2.0));
}

#[test]
fn pressure_of_instructions_sums_to_that_of_ports() {
    // add rax, [rbx]; shl rcx, 3; imul rdx, rcx; push rax
    let report = skylake(&[
        0x48, 0x03, 0x03, 0x48, 0xc1, 0xe1, 0x03, 0x48, 0x0f, 0xaf, 0xd1, 0x50,
    ]);
    for (at, port) in report.ports.iter().enumerate() {
        let sum: f64 = report.instructions.iter().map(|row| row.pressure[at]).sum();
        assert!((sum - port.uops).abs() < 1e-3, "{}", port.port);
    }
    let executed: f64 = report.ports.iter().map(|row| row.uops).sum();
    assert!((executed - f64::from(report.uops_executed)).abs() < 1e-3);
    assert_eq!(report.uops_executed, 6);
}

#[test]
fn markers_say_what_is_special() {
    use Marker as M;
    for (bytes, expected) in [
        (&[0x31, 0xc0][..], &[M::ZeroIdiom][..]),     // xor eax, eax
        (&[0x48, 0x89, 0xd8], &[M::Eliminated]),      // mov rax, rbx
        (&[0x66, 0x0f, 0x76, 0xc0], &[M::OnesIdiom]), // pcmpeqd xmm0, xmm0
        (&[0x48, 0x03, 0x03], &[M::MicroFused]),      // add rax, [rbx]
        (&[0x66, 0xb8, 0x34, 0x12], &[M::Lcp]),       // mov ax, 0x1234
        (&[0x0f, 0x94, 0xc0], &[M::ComplexDecoder]),  // sete al
        (&[0x48, 0x8d, 0x44, 0x18, 0x08], &[M::SlowLea]), // lea rax, [rax+rbx+8]
        // vaddps xmm0, xmm1, [rbx+rcx]
        (
            &[0xc5, 0xf0, 0x58, 0x04, 0x0b],
            &[M::MicroFused, M::Unlaminated],
        ),
        (&[0x48, 0x01, 0xd8], &[]), // add rax, rbx
    ] {
        let report = skylake(bytes);
        assert_eq!(report.instructions[0].markers, expected, "{bytes:x?}");
    }
    // Nothing says what WRMSR costs, nor how often REP STOSB repeats; of STOSB it is known.
    for (bytes, approximate) in [
        (&[0x0f, 0x30][..], true),
        (&[0xf3, 0xaa], true),
        (&[0xaa], false),
    ] {
        let markers = &skylake(bytes).instructions[0].markers;
        assert_eq!(markers.contains(&M::Approximate), approximate, "{bytes:x?}");
    }
    // cmp rax, rbx; jne
    let report = skylake(&[0x48, 0x39, 0xd8, 0x75, 0xfb]);
    assert_eq!(report.instructions[1].markers, [M::MacroFused]);
    // push rax; mov rbx, [rsp+8]
    let report = skylake(&[0x50, 0x48, 0x8b, 0x5c, 0x24, 0x08]);
    assert_eq!(report.instructions[1].markers, [M::StackSync]);
}

#[test]
fn the_window_that_takes_longest_is_named() {
    // Sixteen one-byte NOPs: four cycles for a window of 16 with five a cycle.
    let report = report_of("skylake", &[0x90; 16], Repetition::Unrolled);
    assert_eq!(binding(&report), ["predecode", "decode", "issue"]);
    let text = why(&report, "predecode");
    assert!(
        text.contains("the window at byte 0: 16 instructions end in it"),
        "{text}"
    );
    // add ax, 0x1234: a prefix that changes the length.
    let report = skylake(&[0x66, 0x05, 0x34, 0x12]);
    assert!(why(&report, "predecode").ends_with("stalls 3 cycles: add ax, 0x1234"));
}

#[test]
fn decoder_rules_are_named() {
    // sete al; sete bl
    let report = skylake(&[0x0f, 0x94, 0xc0, 0x0f, 0x94, 0xc3]);
    assert_eq!(
        why(&report, "decode"),
        "the first decoder alone takes sete al; sete bl"
    );
    // test rax, rax with a prefix of no effect, on Haswell.
    let report = report_of("haswell", &[0x3e, 0x48, 0x85, 0xc0], Repetition::Unrolled);
    assert!(why(&report, "decode").starts_with("the last decoder leaves"));
}

#[test]
fn latency_is_that_from_registers_to_the_result() {
    for (bytes, latency) in [
        (&[0x48, 0x0f, 0xaf, 0xc3][..], 3.0), // imul rax, rbx
        (&[0x48, 0x8b, 0x08], 5.0),           // mov rcx, [rax]
        (&[0x48, 0x8b, 0x00], 4.0),           // mov rax, [rax], whose base is from a load
        (&[0x48, 0x03, 0x03], 6.0),           // add rax, [rbx]
        (&[0x31, 0xc0], 0.0),                 // xor eax, eax
    ] {
        assert_eq!(
            skylake(bytes).instructions[0].latency,
            latency,
            "{bytes:x?}"
        );
    }
}

#[test]
fn every_core_answers_512_bits_and_says_if_that_is_approximate() {
    // vaddps zmm0, zmm1, zmm2
    let bytes = [0x62, 0xf1, 0x74, 0x48, 0x58, 0xc2];
    for core in microarchitectures().all() {
        let report = report_of(core.name(), &bytes, Repetition::Unrolled);
        let own = core.name() == "ice-lake" || core.name() == "golden-cove";
        assert_eq!(report.approximate, usize::from(!own), "{}", core.name());
        assert_eq!(report.basis, core.basis.name());
    }
    // On Skylake by the rule of its relative: ports 0 and 5, four cycles.
    let row = &report_of("skylake", &bytes, Repetition::Unrolled).instructions[0];
    assert_eq!((row.ports.as_str(), row.latency), ("05", 4.0));
}

#[test]
fn cores_differ_where_they_are_documented_to() {
    // Six additions: four ports, three on Ivy Bridge, five on Golden Cove, which renames six.
    let adds: Vec<u8> = [0xc0, 0xc1, 0xc2, 0xc3, 0xc6, 0xc7]
        .iter()
        .flat_map(|to| [0x48, 0x83, *to, 1])
        .collect();
    for (core, ports) in [
        ("ivy-bridge", 2.0),
        ("haswell", 1.5),
        ("ice-lake", 1.5),
        ("golden-cove", 1.2),
    ] {
        let report = report_of(core, &adds, Repetition::Loop);
        let row = report.bounds.iter().find(|row| row.part == "ports");
        assert_eq!(row.map(|row| row.cycles), Some(ports), "{core}");
    }
    // mov [rdi], rax; mov [rdi+8], rax: two stores a cycle from Ice Lake on.
    let stores = [0x48, 0x89, 0x07, 0x48, 0x89, 0x47, 0x08];
    assert_eq!(report_of("skylake", &stores, Repetition::Loop).cycles, 2.0);
    assert_eq!(report_of("ice-lake", &stores, Repetition::Loop).cycles, 1.0);
}

#[test]
fn a_report_is_a_table() {
    let text = skylake(&[0x48, 0x0f, 0xaf, 0xc3]).to_string();
    for line in [
        "3.00 cycles per iteration on skylake (fitted to measurements), unrolled",
        "1 instruction, 4 bytes; uops: 1 decoded, 1 issued, 1 executed",
        "* dependence     3.00  rax of the iteration before comes after 3 cycles: imul rax, rbx",
        "    3.00  rax (iteration before)         imul rax, rbx",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
}

proptest! {
    #[test]
    fn a_report_agrees_with_the_bound(
        bytes in proptest::collection::vec(any::<u8>(), 1..120),
        hot in any::<bool>(),
    ) {
        let repetition = if hot { Repetition::Loop } else { Repetition::Unrolled };
        for core in microarchitectures().all() {
            for environment in [Environment::Unknown, Environment::Bhive] {
                let mut model = BlockModel::new(core, environment);
                model.limit_uop_cache();
                let bound = model.bound(&bytes, repetition);
                let report = explain(&mut model, &Code::new(bytes.clone()), repetition);
                let (Ok(bound), Ok(report)) = (&bound, &report) else {
                    prop_assert_eq!(bound.err(), report.err());
                    continue;
                };
                prop_assert!((report.cycles - f64::from(bound.cycles())).abs() < 1e-3);
                prop_assert!(report.bounds.iter().any(|row| row.binds));
                let chain = bound.of(crate::bound::Part::Dependence);
                let sum: f64 = report.chain.iter().map(|row| row.latency).sum();
                let iterations = report.chain.iter().filter(|row| row.carried).count();
                let mean = sum / iterations.max(1) as f64;
                prop_assert!(
                    (mean - f64::from(chain)).abs() <= 1e-3 + mean * 2e-4,
                    "{mean} {chain}"
                );
                prop_assert!(!report.to_string().is_empty());
            }
        }
    }
}
