//! Damaged profiles, options and event names: refused, or devices that work and agree.

use std::fs;
use std::path::Path;

use vlbr_arch::{Cpl, LvtPc, Msr};
use vlbr_fuzz::{Form, throw};
use vlbr_pmu::{
    Alone, Counter, Device, Increments, Options, Pmu, Profile, Source, SourceSet, reference,
};

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

/// Counts, overflows and delivers; what every register reads then.
fn drive(mut device: impl Device) -> Vec<(Msr, u64)> {
    let mut alone = Alone::default();
    device.set_lvtpc(LvtPc::from_bits(0x400));
    for (msr, value) in [
        (Msr::PERF_GLOBAL_CTRL, 0x1_0000_0003),
        (Msr::PERFEVTSEL0, 0x53_00c0),
        (Msr::PERFEVTSEL0.plus(1), 0x53_00c4),
        (Msr::PMC0, 5u64.wrapping_neg()),
        (Msr::PMC0.plus(1), 7u64.wrapping_neg()),
        (Msr::FIXED_CTR_CTRL, 0xb),
        (Msr::PEBS_ENABLE, 1),
        (Msr::PERF_GLOBAL_OVF_CTRL, u64::MAX),
    ] {
        let value = value & !device.reserved_bits(msr);
        let _ = device.wrmsr(msr, value, &mut alone);
    }
    for n in 0..12 {
        let mut run = Increments::instruction(Cpl::Ring3);
        run.add(Source::CoreCycles, Cpl::Ring3, 1);
        if n % 3 == 0 {
            run.add(Source::ConditionalTaken, Cpl::Ring3, 1);
        }
        device.retire(&run, &mut alone);
        device.deliver();
        let _ = device.rdpmc(n, Cpl::Ring3, true);
    }
    let horizon = device.horizon();
    assert!(horizon.instructions() > 0);
    device.smi(&alone);
    device.rsm();
    let msrs = device.msrs();
    msrs.into_iter()
        .map(|msr| (msr, device.rdmsr(msr, &alone).unwrap()))
        .collect()
}

fn drive_both(profile: &Profile, options: &Options) {
    let fast = drive(Pmu::new(profile, options.clone()));
    let slow = drive(reference::Pmu::new(profile, options.clone()));
    assert_eq!(fast, slow);
}

#[test]
fn fuzz_pmu_profile() {
    let tally = throw("PMU profile", 2000, Form::Text, &profiles(), |bytes| {
        let text = str::from_utf8(bytes).ok();
        let Some(profile) = text.and_then(|text| Profile::from_toml(text).ok()) else {
            return false;
        };
        drive_both(&profile, &Options::default());
        for part in profile.parts() {
            drive_both(&profile.with_part(part).unwrap(), &Options::default());
        }
        for event in profile.events() {
            let _ = profile.parse_event(event.name(), &Options::default());
        }
        for counter in [Counter::Gp(0), Counter::Fixed(0)] {
            for period in [0, 1, 1 << 31, u64::MAX] {
                let _ = profile.preset(counter, period);
            }
        }
        true
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}

#[test]
fn fuzz_pmu_options() {
    let seeds = [
        b"feeds = [\"branches\", \"core-cycles\"]\nskid = 60\nskid_unit = \"core-cycles\"\n\
        quirks = [\"E9\", \"E10a\", \"E20\"]\nunfed = \"hold\"\nsmm_restore = \"all-ones\"\n"
            .to_vec(),
        b"cycle_by_cycle = true\nfeeds = [\"core-cycles\", \"instructions\", \"near-taken\"]\n\
        freeze = \"legacy\"\nlvtpc_pend_on_unmask = true\nseed = 9\ntsx = false\n\
        any_thread_deprecated = \"fault\"\npin_control_reserved = \"keep\"\nbranch_lost_one_in = 3\n"
            .to_vec(),
    ];
    let tally = throw("PMU options", 2000, Form::Text, &seeds, |bytes| {
        let text = str::from_utf8(bytes).ok();
        let Some(options) = text.and_then(|text| Options::from_toml(text).ok()) else {
            return false;
        };
        for name in ["nehalem", "skylake", "alder-lake-p"] {
            drive_both(Profile::named(name).unwrap(), &options);
        }
        true
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}

#[test]
fn fuzz_event_names() {
    let seeds: Vec<Vec<u8>> = [
        "instructions:u,branches:k,branch-misses",
        "BR_INST_RETIRED.NEAR_TAKEN:upp,br_misp_retired.all_branches",
        "r20c4:u,r1c0,rc4",
        "cpu/event=0xc4,umask=0x20,cmask=0,inv=0,edge=0,period=1000,name=taken/u",
        "cpu_core/BR_INST_RETIRED.COND,any=0/pp,cpu_atom/config=0xc0/",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    let told = Options {
        feeds: SourceSet::ALL,
        ..Options::default()
    };
    let tally = throw("event names", 10_000, Form::Text, &seeds, |bytes| {
        let Ok(text) = str::from_utf8(bytes) else {
            return false;
        };
        let mut taken = false;
        for name in ["skylake", "alder-lake-p", "core2-65nm"] {
            let profile = Profile::named(name).unwrap();
            for options in [&Options::default(), &told] {
                let Ok(specs) = profile.parse_events(text, options) else {
                    continue;
                };
                taken = true;
                for spec in specs {
                    assert!(spec.user || spec.kernel, "{text:?}: {spec:?}");
                    assert!(!spec.sources.is_empty(), "{text:?}: {spec:?}");
                    assert!(spec.counters.iter().next().is_some(), "{text:?}: {spec:?}");
                }
            }
        }
        taken
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}
