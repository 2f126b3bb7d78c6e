//! llvm-profgen on perf.data and on perf script text.

use std::process::Command;

use vlbr_traces::export::{PerfScriptSink, ScriptFields};

use super::program::{Options, Program, run, tool, walk};
use super::{info, perf_data};

const PLAIN: Options = Options {
    call_stack: false,
    types: false,
    hw_idx: false,
};

#[test]
fn llvm_profgen_makes_the_same_profile_of_perf_data_and_of_our_text() {
    if tool("perf").is_none() {
        return;
    }
    for version in [14, 16, 19] {
        let Some(profgen) = tool(&format!("/usr/lib/llvm-{version}/bin/llvm-profgen")) else {
            continue;
        };
        let folder = tempfile::tempdir().expect("folder");
        let Some(program) = Program::build(folder.path(), true) else {
            return;
        };
        let data = perf_data(folder.path(), &program, PLAIN);
        let mut text = Vec::new();
        let mut sink = PerfScriptSink::new(&mut text, &info(PLAIN), ScriptFields::PROFGEN);
        walk(&program, PLAIN, &mut sink).expect("printed");
        let script = folder.path().join("script");
        std::fs::write(&script, text).expect("written");
        let profile = |input: &str| {
            let out = folder.path().join("profile");
            run(Command::new(&profgen)
                .arg(input)
                .arg(format!("--binary={}", program.path.display()))
                .arg("--format=text")
                .arg("-o")
                .arg(&out));
            std::fs::read_to_string(&out).expect("a profile")
        };
        let from_data = profile(&format!("--perfdata={}", data.display()));
        for name in ["main:", "middle:", "fib:"] {
            assert!(from_data.contains(name), "{name} is not in\n{from_data}");
        }
        let from_text = profile(&format!("--perfscript={}", script.display()));
        assert_eq!(from_data, from_text, "llvm-profgen {version}");
    }
}
