//! The measurements: replays of a file, and other programs.

use std::error::Error;
use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use vlbr_cpu::Clock;
use vlbr_cpu::run::Sample;
use vlbr_host::perf::parse_branch_filter;
use vlbr_lbr::Profile;
use vlbr_replay::{
    Consumer, Format, ReplayError, Session, SessionOptions, TimingModel, TimingOptions, export,
};
use vlbr_traces::perfdata::SampleRecord;
use vlbr_traces::vlt::{OpenOptions, Trace};

pub(crate) type Failure = Box<dyn Error>;

/// A way to replay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Road {
    /// For the table.
    pub(crate) name: &'static str,
    filter: &'static str,
    event: &'static str,
    period: u64,
    eager: bool,
    jobs: usize,
    /// Samples are written as perf.data.
    written: bool,
    timing: TimingModel,
    /// Through the devices, step by step.
    ordered: bool,
}

/// What most ways have in common.
const PLAIN: Road = Road {
    name: "every branch, references",
    filter: "any",
    event: NEAR,
    period: 997,
    eager: false,
    jobs: 1,
    written: false,
    timing: TimingModel::None,
    ordered: false,
};

/// Four general-purpose and three fixed counters of which the first is sampled.
const SEVEN: &str = "{instructions,br_inst_retired.conditional,br_inst_retired.near_taken,\
    br_inst_retired.near_call,br_inst_retired.near_return,cycles,ref-cycles}:S";

const NEAR: &str = "br_inst_retired.near_taken";

/// The ways that are timed. The first one is what the targets speak of.
pub(crate) const ROADS: [Road; 14] = [
    PLAIN,
    Road {
        name: "every branch, whole records at once",
        filter: "any",
        event: NEAR,
        period: 997,
        eager: true,
        jobs: 1,
        written: false,
        ..PLAIN
    },
    Road {
        name: "filter any_call",
        filter: "any_call",
        event: NEAR,
        period: 997,
        eager: false,
        jobs: 1,
        written: false,
        ..PLAIN
    },
    Road {
        name: "call-stack mode",
        filter: "stack,u",
        event: "instructions",
        period: 10_007,
        eager: false,
        jobs: 1,
        written: false,
        ..PLAIN
    },
    Road {
        name: "every branch, event instructions",
        filter: "any",
        event: "instructions",
        period: 10_007,
        eager: false,
        jobs: 1,
        written: false,
        ..PLAIN
    },
    Road {
        name: "every branch, references, all cores",
        filter: "any",
        event: NEAR,
        period: 997,
        eager: false,
        jobs: 0,
        written: false,
        ..PLAIN
    },
    Road {
        name: "nothing counted",
        filter: "any",
        event: "",
        period: 10_000,
        eager: false,
        jobs: 1,
        written: false,
        ..PLAIN
    },
    Road {
        name: "one counter every 10,000",
        filter: "any",
        event: "instructions",
        period: 10_000,
        eager: false,
        jobs: 1,
        written: false,
        ..PLAIN
    },
    Road {
        name: "seven counters, one every 10,000",
        filter: "any",
        event: SEVEN,
        period: 10_000,
        eager: false,
        jobs: 1,
        written: false,
        ..PLAIN
    },
    Road {
        name: "one counter, perf.data written",
        filter: "any",
        event: "instructions",
        period: 10_000,
        eager: false,
        jobs: 1,
        written: true,
        ..PLAIN
    },
    Road {
        name: "seven counters, perf.data written",
        filter: "any",
        event: SEVEN,
        period: 10_000,
        eager: false,
        jobs: 1,
        written: true,
        ..PLAIN
    },
    Road {
        name: "every branch, block bound",
        timing: TimingModel::Bound,
        ..PLAIN
    },
    Road {
        name: "every branch, through the devices",
        ordered: true,
        ..PLAIN
    },
    Road {
        name: "every branch, scoreboard and predictor",
        timing: TimingModel::Scoreboard,
        ..PLAIN
    },
];

/// Takes samples and keeps the compiler from leaving them out.
#[derive(Debug, Default)]
struct Taken {
    samples: u64,
    entries: u64,
}

impl Consumer for Taken {
    fn sample(&mut self, sample: &SampleRecord<'_>, _at: &Sample) -> Result<(), ReplayError> {
        self.samples += 1;
        self.entries += std::hint::black_box(sample.branches).len() as u64;
        Ok(())
    }
}

/// Opens a trace as `vlbr replay` does.
pub(crate) fn open(path: &Path) -> Result<Trace, Failure> {
    let options = OpenOptions {
        check_chunks: false,
        ..OpenOptions::default()
    };
    Trace::open(path, options).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Seconds from the compressed file to the last sample.
pub(crate) fn replay(path: &Path, cpu: &str, road: &Road) -> Result<f64, Failure> {
    let start = Instant::now();
    let trace = open(path)?;
    run(&trace, cpu, road, road.jobs)?;
    Ok(start.elapsed().as_secs_f64())
}

/// Replays once on `jobs` threads, for its memory.
pub(crate) fn replay_once(path: &Path, cpu: &str, jobs: usize) -> Result<(), Failure> {
    let trace = open(path)?;
    run(&trace, cpu, &ROADS[0], jobs)
}

fn run(trace: &Trace, cpu: &str, road: &Road, jobs: usize) -> Result<(), Failure> {
    let profile = Profile::named(cpu)?.clone();
    let options = SessionOptions {
        branches: parse_branch_filter(road.filter)?,
        event: Some(road.event.to_owned()),
        period: NonZeroU64::new(road.period),
        clock: match road.timing {
            TimingModel::None => Clock::Instructions,
            _ => Clock::None,
        },
        timing: TimingOptions {
            model: road.timing,
            ..TimingOptions::default()
        },
        ordered: road.ordered,
        eager: road.eager,
        jobs,
        ..SessionOptions::new(profile)
    };
    let session = match road.event {
        "" => Session::counting(trace, &options, Vec::new())?,
        _ => Session::new(trace, options)?,
    };
    if road.written {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("perf.data");
        export(&session, Format::PerfData, &path, &[], &mut |_| ())?;
        return Ok(());
    }
    let mut taken = Taken::default();
    let summary = session.run(&mut taken, &mut |_| ())?;
    if (taken.samples, taken.entries) != (summary.samples, summary.entries) {
        return Err("the replay handed out other samples than it counted".into());
    }
    Ok(())
}

/// A program and what runs it.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) program: Vec<OsString>,
    pub(crate) qemu: PathBuf,
    pub(crate) plugin: PathBuf,
    pub(crate) vlbr: PathBuf,
    /// Where recordings go.
    pub(crate) folder: PathBuf,
}

/// A way to run the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// On the processor itself.
    Native,
    /// `qemu-x86_64`.
    Qemu,
    /// With a plugin that is called for every block and does nothing.
    EmptyPlugin,
    /// `vlbr record`.
    Record,
}

impl Peer {
    pub(crate) const ALL: [Self; 4] = [Self::Native, Self::Qemu, Self::EmptyPlugin, Self::Record];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Native => "the program itself",
            Self::Qemu => "qemu-x86_64",
            Self::EmptyPlugin => "qemu-x86_64, empty callback per block",
            Self::Record => "vlbr record, written to disk",
        }
    }
}

impl Peers {
    /// Where `vlbr record` writes.
    pub(crate) fn recording(&self) -> PathBuf {
        self.folder.join("recording.vlt")
    }

    /// Seconds the program takes.
    pub(crate) fn time(&self, peer: Peer) -> Result<f64, Failure> {
        let (first, rest) = self.program.split_first().ok_or("no program")?;
        let mut command = match peer {
            Peer::Native => Command::new(first),
            Peer::Qemu => Command::new(&self.qemu),
            Peer::EmptyPlugin => {
                let mut value = self.plugin.clone().into_os_string();
                value.push(",empty=on");
                let mut command = Command::new(&self.qemu);
                command.arg("-plugin").arg(value);
                command
            }
            Peer::Record => {
                let mut command = Command::new(&self.vlbr);
                command
                    .args(["record", "--engine", "qemu", "--force", "-o"])
                    .arg(self.recording())
                    .arg("--")
                    .env("VLBR_QEMU_PLUGIN", &self.plugin);
                command
            }
        };
        if peer != Peer::Native {
            command.arg(first);
        }
        command.args(rest).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let start = Instant::now();
        let status = command
            .status()
            .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        let seconds = start.elapsed().as_secs_f64();
        if !status.success() {
            return Err(format!("{}: {status}", peer.name()).into());
        }
        Ok(seconds)
    }
}

/// The middle of some figures.
pub(crate) fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => figures[count / 2],
        count => f64::midpoint(figures[count / 2 - 1], figures[count / 2]),
    }
}

/// The smallest of some figures.
pub(crate) fn best(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(f64::INFINITY, f64::min)
}
