//! Replays a trace under a perf event and prints the branch stack of the first samples.
//!
//! `sample TRACE [CPU] [FILTER]`

use std::error::Error;
use std::path::Path;

use vlbr_cpu::run::Sample;
use vlbr_host::perf::parse_branch_filter;
use vlbr_lbr::Profile;
use vlbr_replay::{Consumer, ReplayError, Session, SessionOptions};
use vlbr_traces::perfdata::SampleRecord;
use vlbr_traces::vlt::{OpenOptions, Trace};

/// Prints some samples and counts the rest.
struct Printer {
    left: u32,
}

impl Consumer for Printer {
    fn sample(&mut self, sample: &SampleRecord<'_>, _at: &Sample) -> Result<(), ReplayError> {
        if self.left > 0 {
            self.left -= 1;
            println!("at {:#x}:", sample.ip);
            for entry in sample.branches.iter().take(4) {
                println!("    {:#x} -> {:#x}", entry.from, entry.to);
            }
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = arguments
        .first()
        .ok_or("usage: sample TRACE [CPU] [FILTER]")?;
    let cpu = arguments.get(1).map_or("skylake", String::as_str);
    let filter = arguments.get(2).map_or("any", String::as_str);

    let trace = Trace::open(Path::new(path), OpenOptions::default())?;
    let mut options = SessionOptions::new(Profile::named(cpu)?.clone());
    options.branches = parse_branch_filter(filter)?;
    let session = Session::new(&trace, options)?;
    let summary = session.run(&mut Printer { left: 5 }, &mut |_| ())?;
    println!("{} samples, {} entries", summary.samples, summary.entries);
    Ok(())
}
