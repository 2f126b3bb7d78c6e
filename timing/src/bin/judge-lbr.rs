//! Compares recorded LBR cycle fields with those of the scoreboard, and fits its delays to them.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use vlbr_timing::predict::predictors;
use vlbr_timing::windows::{
    CodeImage, Comparison, Mispredictions, Stack, Unrecorded, Windows, read_stacks,
};
use vlbr_timing::{Microarchitecture, Pipeline, microarchitectures};

#[derive(Parser)]
struct Arguments {
    /// Microarchitecture.
    core: String,
    /// Stacks: lines `sample,index,from,to,mispredicted,cycles`.
    stacks: PathBuf,
    /// The code, whose first byte has address 0 in the stacks.
    image: PathBuf,
    /// Predictor of the branches that were not taken, which have no recorded bit; without one they were
    /// foreseen.
    #[arg(long)]
    predictor: Option<String>,
    /// Address of the branch that ends an outer iteration.
    #[arg(long, value_parser = |s: &str| u64::from_str_radix(s, 16))]
    outer: u64,
    /// Another value of a delay, as in the data of the core.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Look for better delays, on the even samples alone.
    #[arg(long)]
    fit: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("judge-lbr: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Judge<'a> {
    stacks: Vec<Stack>,
    image: CodeImage<'a>,
    arguments: &'a Arguments,
}

impl Judge<'_> {
    fn compare(
        &self,
        core: &Microarchitecture,
        odd: usize,
    ) -> Result<Comparison, Box<dyn std::error::Error>> {
        let mut mispredictions = match &self.arguments.predictor {
            Some(name) => {
                let config = predictors().named(name).ok_or("no such predictor")?;
                Mispredictions::Unrecorded(Box::new(Unrecorded::new(config)))
            }
            None => Mispredictions::Recorded,
        };
        let mut comparison = Comparison::default();
        let mut windows = Windows::new(core, self.image);
        let half = self
            .stacks
            .iter()
            .enumerate()
            .filter(|(at, _)| at % 2 == odd);
        let half = half.map(|(_, stack)| stack);
        comparison.add(
            &mut windows,
            half,
            self.arguments.outer,
            &mut mispredictions,
        );
        Ok(comparison)
    }

    /// Tries every combination of the delays and takes the first that is best.
    fn fit(
        &self,
        core: &Microarchitecture,
    ) -> Result<Microarchitecture, Box<dyn std::error::Error>> {
        let mut best = core.clone();
        let mut least = self.compare(&best, 0)?.cost();
        eprintln!("as it is: {least:.5}");
        for pipeline in combinations(core.pipeline) {
            let core = core.with_pipeline(pipeline)?;
            let cost = self.compare(&core, 0)?.cost();
            if cost < least {
                eprintln!("{cost:.5}: {pipeline:?}");
                (best, least) = (core, cost);
            }
        }
        Ok(best)
    }
}

/// Delays that are fitted, all combinations.
fn combinations(start: Pipeline) -> impl Iterator<Item = Pipeline> {
    (13..=17).flat_map(move |mispredict| {
        (0..=5).flat_map(move |ms_switch| {
            (1..=3).flat_map(move |forward_vector| {
                [false, true].map(|jcc_erratum| Pipeline {
                    mispredict,
                    ms_switch,
                    forward_vector,
                    jcc_erratum,
                    ..start
                })
            })
        })
    })
}

/// `core` with some values changed.
fn with(
    core: &Microarchitecture,
    set: &[String],
) -> Result<Microarchitecture, Box<dyn std::error::Error>> {
    let mut table = toml::Table::try_from(core.pipeline)?;
    table.extend(set.join("\n").parse::<toml::Table>()?);
    Ok(core.with_pipeline(table.try_into()?)?)
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let core = microarchitectures()
        .named(&arguments.core)
        .ok_or("no such core")?;
    let bytes = fs::read(&arguments.image)?;
    let judge = Judge {
        stacks: read_stacks(&fs::read_to_string(&arguments.stacks)?)?,
        image: CodeImage {
            address: 0,
            bytes: &bytes,
        },
        arguments,
    };
    let core = &with(core, &arguments.set)?;
    let fitted = if arguments.fit {
        judge.fit(core)?
    } else {
        core.clone()
    };
    println!("{:?}", fitted.pipeline);
    for (name, odd) in [("even samples", 0), ("odd samples", 1)] {
        println!("{name}\n{}", judge.compare(&fitted, odd)?);
    }
    Ok(())
}
