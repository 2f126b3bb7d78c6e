//! The files written here, given to the programs they are for.

mod bolt;
mod kernel;
mod perf;
mod profgen;
mod program;

use std::path::{Path, PathBuf};

use program::{Options, Program, walk};
use vlbr_traces::export::PerfDataSink;
use vlbr_traces::perfdata::{BranchSampleType, EventInfo, FileInfo, PerfDataWriter};

/// What the header of the walks' files says.
fn info(options: Options) -> FileInfo {
    let mut info = FileInfo::new(EventInfo::near_taken(0x20c4, 97));
    info.cpu_desc = "a model of Skylake".into();
    info.cpuid = "GenuineIntel,6,94,3".into();
    info.cmdline = vec!["vlbr".into(), "replay".into()];
    info.lbr_depth = Some(32);
    if options.types {
        info.branch_sample_type |= BranchSampleType::TYPE_SAVE;
    }
    if options.hw_idx {
        info.branch_sample_type |= BranchSampleType::HW_INDEX;
    }
    if options.call_stack {
        info.with_lbr_callgraph()
    } else {
        info
    }
}

/// Writes the walk as perf.data below `folder`.
fn perf_data(folder: &Path, program: &Program, options: Options) -> PathBuf {
    perf_data_of(folder, program, options, info(options))
}

fn perf_data_of(folder: &Path, program: &Program, options: Options, info: FileInfo) -> PathBuf {
    let path = folder.join("perf.data");
    let writer = PerfDataWriter::create(&path, info).expect("created");
    walk(program, options, &mut PerfDataSink::new(writer)).expect("written");
    path
}
