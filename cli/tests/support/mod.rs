//! What the tests of the command share.

use std::path::Path;
use std::process::Command;
use std::sync::Once;

/// The recording plugin lies beside the command; `cargo test` does not build it by itself.
pub(crate) fn build_plugin(vlbr: &Path) {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let profile = vlbr.parent().expect("the command lies in a folder");
        let name = profile.file_name().expect("named after the profile");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--locked",
            "-p",
            "vlbr-qemu-plugin",
            "--target-dir",
        ]);
        cargo.arg(profile.parent().expect("below the target folder"));
        if name == "release" {
            cargo.arg("--release");
        }
        assert!(
            cargo.status().expect("cargo runs").success(),
            "the plugin does not build"
        );
    });
}
