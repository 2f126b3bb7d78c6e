use super::program::Program;
use super::schedule::Rates;
use super::spec::Spec;
use super::walk::{Executed, Shared, Walk};

const BUILD: &str = include_str!("../../../corpus/gen/kernel-build.toml");

/// How often each block ran.
fn runs(spec: &Spec, program: &Program, instructions: u64) -> Vec<u64> {
    let rates = Rates::new(spec, &program.kinds);
    let mut walk = Walk::new(program, &rates, 7);
    let mut shared = Shared::new(program);
    let mut executed = Executed::default();
    let mut runs = vec![0; program.blocks.len()];
    while executed.instructions < instructions {
        executed.steps.clear();
        executed.machine.clear();
        runs[walk.at()] += 1;
        walk.advance(&mut shared, &mut executed).unwrap();
    }
    runs
}

#[test]
fn blocks_run_as_often_as_their_weight_says() {
    let spec = Spec::from_toml(BUILD).unwrap();
    let program = Program::build(&spec).unwrap();
    let runs = runs(&spec, &program, 20_000_000);
    for kernel in [false, true] {
        let ring = || {
            let of_ring = program.blocks.iter().zip(&runs);
            of_ring.filter(|(placed, _)| placed.block.mode().cpl.is_kernel() == kernel)
        };
        let weight: f64 = ring().map(|(placed, _)| placed.weight).sum();
        let all: u64 = ring().map(|(_, runs)| *runs).sum();
        let apart: f64 = ring()
            .map(|(placed, &runs)| (runs as f64 / all as f64 - placed.weight / weight).abs())
            .sum();
        // Half the sum of the differences is what runs in the wrong place.
        assert!(apart / 2.0 < 0.12, "kernel {kernel}: {apart}");
    }
}
