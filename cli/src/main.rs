//! The vlbr command with the policies that are built in.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use vlbr_host::policy::Catalog;

fn main() -> ExitCode {
    vlbr_cli::run(Catalog::builtin())
}
