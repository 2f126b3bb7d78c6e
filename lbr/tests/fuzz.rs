//! Damaged profiles and options: refused, or a device that works.

use std::fs;
use std::path::Path;

use vlbr_arch::{BranchClass, Cpl, Cycles, DebugCtl, LbrCtl, Msr, Transfer};
use vlbr_fuzz::{Form, throw};
use vlbr_lbr::{Device, Lbr, Options, Profile, reference};

/// Files of the crate's own profiles.
fn profiles() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|file| fs::read(file).unwrap())
        .collect()
}

/// Records a branch and reads every register.
fn drive(mut device: impl Device) {
    let _ = device.wrmsr(Msr::DEBUGCTL, DebugCtl::LBR.bits());
    let classes = 0x7f << 16;
    let _ = device.wrmsr(Msr::LBR_CTL, LbrCtl::LBR_EN.bits() | 6 | classes);
    let jump = Transfer::near(BranchClass::NearRelJmp, 0x1000, 0x2000, Cpl::Ring3);
    for now in 0..3 {
        device.retire(&jump, Cycles::new(now));
    }
    assert!(device.records().len() <= device.depth());
    for msr in device.msrs() {
        assert!(device.rdmsr(msr).is_ok(), "{msr}");
    }
}

#[test]
fn fuzz_profile() {
    let tally = throw("profile", 2000, Form::Text, &profiles(), |bytes| {
        let Ok(profile) = str::from_utf8(bytes)
            .map_err(|_| ())
            .and_then(|text| Profile::from_toml(text).map_err(|_| ()))
        else {
            return false;
        };
        drive(Lbr::new(&profile, Options::default()));
        drive(reference::Lbr::new(&profile, Options::default()));
        true
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}

#[test]
fn fuzz_options() {
    let seeds = [
        b"quirks = [\"E1\", \"E13\", \"E6\"]\nseed = 7\ntsx = true\ncallstack_saturate = true\n\
        nehalem_return_gate = \"both\"\nfreeze = \"legacy\"\n"
            .to_vec(),
        b"cycle_saturation = 255\nlegacy_info_reserved = \"drop\"\nearly_freeze_branches = 3\n\
        duplicate_top_one_in = 1\ndeep_c_state_reset = false\narch_mask_from = false\n"
            .to_vec(),
    ];
    let tally = throw("options", 2000, Form::Text, &seeds, |bytes| {
        let Ok(text) = str::from_utf8(bytes) else {
            return false;
        };
        let Ok(options) = Options::from_toml(text) else {
            return false;
        };
        for name in ["haswell", "alder-lake-p"] {
            let profile = Profile::named(name).unwrap();
            drive(Lbr::new(profile, options.clone()));
            drive(reference::Lbr::new(profile, options.clone()));
        }
        true
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}
