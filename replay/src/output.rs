//! A session's samples, or the whole trace's profile, to a file.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use vlbr_cpu::run::Pace;
use vlbr_host::perf::branch_filter_names;
use vlbr_pmu::EventSpec;
use vlbr_traces::export::{
    BoltSink, JsonSink, OutputFile, PerfDataSink, PerfScriptSink, SampleSink, ScriptFields,
};
use vlbr_traces::perfdata::{BranchSampleType, EventInfo, FileInfo, Mapping, PerfDataWriter};
use vlbr_traces::symbols::ElfImage;
use vlbr_traces::vlt::Scope;

use crate::error::ReplayError;
use crate::exact::exact_profile;
use crate::feed::Feed;
use crate::folded::folded;
use crate::session::Session;
use crate::summary::Summary;
use crate::tasks::Tasks;

/// An output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// perf.data.
    PerfData,
    /// Text as perf script prints it.
    PerfScript,
    /// BOLT's pre-aggregated profile of the samples.
    Bolt,
    /// BOLT's pre-aggregated profile of every branch.
    BoltExact,
    /// Folded stacks.
    Folded,
    /// JSON.
    Json,
}

/// Header of a perf.data file for `session`, made by `cmdline`.
#[must_use]
pub fn file_info(session: &Session<'_>, cmdline: &[String]) -> FileInfo {
    let profile = session.lbr().lbr().profile();
    let sample_type = session.lbr().filter().sample_type();
    let mut events = session.counters().events().iter().map(event_info);
    let mut event = events.next().unwrap_or_else(|| EventInfo::instructions(0));
    match session.pace() {
        Some(Pace::Period(period)) => event.period = period,
        Some(Pace::Frequency(frequency)) => event.frequency = Some(frequency.hertz()),
        None => {}
    }
    let mut info = FileInfo::new(event);
    info.group = events.collect();
    info.branch_sample_type = sample_type;
    info.callchain = sample_type.contains(BranchSampleType::CALL_STACK);
    info.lbr_depth = Some(session.lbr().lbr().depth() as u32);
    info.timing = session.timing();
    info.cpu_desc = match &info.timing {
        None => format!("vlbr {}", profile.title()),
        Some(timing) => format!("vlbr {}, {timing}", profile.title()),
    };
    if let Some(model) = profile.models().first() {
        info.cpuid = format!("GenuineIntel,{},{},0", model.family, model.model);
    }
    if session.trace().meta().scope == Scope::System {
        let vcpus = session
            .trace()
            .threads()
            .iter()
            .filter_map(|thread| thread.vcpu)
            .max();
        info.nr_cpus = vcpus.map_or(1, |last| last + 1);
    }
    info.cmdline = cmdline.to_vec();
    info
}

/// An event as perf names and programs it, without a period.
fn event_info(event: &EventSpec) -> EventInfo {
    EventInfo {
        name: event.to_string(),
        event_type: event.encoding.kind.number(),
        config: event.encoding.config,
        period: 0,
        frequency: None,
        precise_ip: 0,
        exclude_user: !event.user,
        exclude_kernel: !event.kernel,
    }
}

/// Where text goes.
enum Text {
    File(OutputFile),
    Stdout(BufWriter<io::Stdout>),
}

impl Text {
    fn open(path: &Path) -> Result<Self, ReplayError> {
        Ok(if path == Path::new("-") {
            Self::Stdout(BufWriter::new(io::stdout()))
        } else {
            Self::File(OutputFile::create(path)?)
        })
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::File(file) => file,
            Self::Stdout(out) => out,
        }
    }

    fn commit(self) -> Result<(), ReplayError> {
        match self {
            Self::File(file) => Ok(file.commit()?),
            Self::Stdout(mut out) => out.flush().map_err(|source| ReplayError::File {
                path: "standard output".into(),
                source,
            }),
        }
    }
}

/// Runs `session` and writes `format` to `path` (`-`: standard output, text formats only). The
/// file appears when it is whole.
///
/// # Errors
/// The trace is damaged, the output cannot be written, or the format does not suit the session.
pub fn export(
    session: &Session<'_>,
    format: Format,
    path: &Path,
    cmdline: &[String],
    progress: &mut dyn FnMut(u64),
) -> Result<Summary, ReplayError> {
    let tasks = Tasks::new(session.trace());
    let info = file_info(session, cmdline);
    let call_stack = info.callchain;
    match format {
        Format::PerfData => {
            if path == Path::new("-") {
                return Err(ReplayError::Unsuitable("perf-data needs a file, not -"));
            }
            let writer = PerfDataWriter::create(path, info)
                .map_err(|error| ReplayError::Export(error.into()))?;
            return feed(session, tasks, &mut PerfDataSink::new(writer), progress);
        }
        Format::Folded if !call_stack => {
            return Err(ReplayError::Unsuitable(
                "folded stacks need --call-graph lbr: a stack of any branch is no call stack",
            ));
        }
        Format::Bolt if call_stack => {
            return Err(ReplayError::Unsuitable(
                "bolt needs a stack of branches, not --call-graph lbr",
            ));
        }
        _ => {}
    }
    let mut text = Text::open(path)?;
    let summary = match format {
        Format::PerfData => unreachable!("handled above"),
        Format::PerfScript => {
            let fields = ScriptFields {
                mmap_events: false,
                ..ScriptFields::IP_BRSTACK
            };
            let mut sink = PerfScriptSink::new(text.writer(), &info, fields);
            feed(session, tasks, &mut sink, progress)?
        }
        Format::Json => {
            let mut sink = JsonSink::new(text.writer(), &info)?;
            feed(session, tasks, &mut sink, progress)?
        }
        Format::Folded => folded(session, text.writer(), progress)?,
        Format::Bolt => {
            let mut sink = bolt_sink(session, text.writer())?;
            feed(session, tasks, &mut sink, progress)?
        }
        Format::BoltExact => {
            let mut sink = bolt_sink(session, text.writer())?;
            // To the sink each process of the trace is one of its own: several may have one pid.
            for (process, mapping) in tasks.mappings_of_processes() {
                let told = Mapping {
                    pid: process,
                    ..mapping.clone()
                };
                sink.mapping(&told, 0)?;
            }
            for (process, profile) in exact_profile(session.trace(), session.region, progress)? {
                for (edge, (count, mispredicted)) in profile.edges {
                    sink.branch(process, edge.from, edge.to, count, mispredicted);
                }
                for (range, count) in profile.ranges {
                    sink.run(process, range.origin, range.start, range.end, count);
                }
            }
            sink.finish()?;
            Summary::default()
        }
    };
    text.commit()?;
    Ok(summary)
}

fn feed(
    session: &Session<'_>,
    tasks: Tasks,
    sink: &mut dyn SampleSink,
    progress: &mut dyn FnMut(u64),
) -> Result<Summary, ReplayError> {
    let mut feed = Feed::new(tasks, sink);
    let summary = session.run(&mut feed, progress)?;
    feed.finish()?;
    Ok(summary)
}

/// BOLT profiles speak of one binary: the program the recording began with.
fn bolt_sink<'w>(
    session: &Session<'_>,
    out: &'w mut dyn Write,
) -> Result<BoltSink<&'w mut dyn Write>, ReplayError> {
    let path = session
        .trace()
        .processes()
        .iter()
        .map(|process| process.path.as_path())
        .find(|path| !path.as_os_str().is_empty())
        .ok_or(ReplayError::Unsuitable(
            "the trace names no program, so there is nothing to map",
        ))?;
    let image = ElfImage::open(path).map_err(|error| ReplayError::Symbols(error.to_string()))?;
    Ok(BoltSink::new(out, image, path))
}

/// What was sampled, in words: event, period, filter and the register it makes.
#[must_use]
pub fn describe(session: &Session<'_>) -> String {
    let filter = branch_filter_names(session.lbr().filter().sample_type());
    let register = session.lbr().filter_register().map_or_else(
        || "no filter register".to_owned(),
        |(msr, value)| format!("{msr}={value:#x}"),
    );
    let events: Vec<String> = session
        .counters()
        .events()
        .iter()
        .map(ToString::to_string)
        .collect();
    let events = match &events[..] {
        [event] => event.clone(),
        group => format!("{{{}}}:S", group.join(",")),
    };
    let pace = match session.pace() {
        Some(Pace::Period(period)) if session.samples_each_instruction() => {
            format!("every {period} instructions")
        }
        Some(Pace::Period(period)) => format!("every {period} events"),
        None => "not sampled".to_owned(),
        Some(Pace::Frequency(frequency)) => format!("at {} Hz", frequency.hertz()),
    };
    let skid = match session.counters().skid() {
        0 => String::new(),
        skid => format!(", skid {skid}"),
    };
    let warmup = match session.warmup() {
        0 => String::new(),
        warmup => format!(", behind {warmup} instructions of each thread"),
    };
    format!("{events} {pace}{skid}{warmup}, branches {filter} ({register})")
}
