//! Compares recorded LBR cycle fields with those of the scoreboard.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use vlbr_timing::microarchitectures;
use vlbr_timing::windows::{CodeImage, Comparison, Windows, read_stacks};

#[derive(Parser)]
struct Arguments {
    /// Microarchitecture.
    core: String,
    /// Stacks: lines `sample,index,from,to,mispredicted,cycles`.
    stacks: PathBuf,
    /// The code, whose first byte has address 0 in the stacks.
    image: PathBuf,
    /// Address of the branch that ends an outer iteration.
    #[arg(long, default_value = "a6e", value_parser = |s: &str| u64::from_str_radix(s, 16))]
    outer: u64,
}

#[derive(Default)]
struct Hack(bool);
impl vlbr_timing::windows::Mispredictions for Hack {
    fn not_taken(&mut self, b: vlbr_timing::windows::NotTaken) -> bool {
        if b.address == 0x8e3 { let r = self.0; self.0 = false; r } else { false }
    }
    fn taken(&mut self, e: &vlbr_timing::windows::Entry) -> bool {
        if e.from == 0x8e3 { self.0 = true; }
        e.mispredicted
    }
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

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let core = microarchitectures().named(&arguments.core).ok_or("no such core")?;
    let stacks = read_stacks(&fs::read_to_string(&arguments.stacks)?)?;
    let bytes = fs::read(&arguments.image)?;
    let image = CodeImage {
        address: 0,
        bytes: &bytes,
    };
    for (name, odd) in [("even samples", 0), ("odd samples", 1)] {
        let mut comparison = Comparison::default();
        let mut windows = Windows::new(core, image);
        let half = stacks.iter().enumerate().filter(|(at, _)| at % 2 == odd);
        comparison.add(&mut windows, half.map(|(_, stack)| stack), arguments.outer, &mut Hack::default());
        println!(
            "{name}: {} entries, {} stacks left out",
            comparison.entries, comparison.left_out
        );
        let judged = comparison.judged();
        println!(
            "  ones        {:5.1} % recorded {:5.1} % computed",
            judged.ones_recorded * 100.0,
            judged.ones_computed * 100.0
        );
        for (records, medians) in &comparison.iterations {
            if medians.count() < 50 {
                continue;
            }
            print!("  iteration of {records} records ({})", medians.count());
            for percent in [10, 50, 90] {
                let (recorded, computed) = medians.percentiles(percent);
                print!("  p{percent} {recorded} {computed}");
            }
            println!();
        }
        for ((to, from), medians) in &comparison.blocks {
            if medians.count() < 100 {
                continue;
            }
            print!("  {to:x}-{from:x} ({})", medians.count());
            for percent in [10, 25, 50, 75, 90] {
                let (recorded, computed) = medians.percentiles(percent);
                print!("  p{percent} {recorded} {computed}");
            }
            println!();
        }
    }
    Ok(())
}
