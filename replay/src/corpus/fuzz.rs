//! Damaged descriptions and golden files.

use std::fs;

use vlbr_fuzz::{Form, folder, throw};

use super::Corpus;
use super::golden::tests::results;
use super::golden::{Section, read, write};

#[test]
fn fuzz_golden() {
    let ran = Section::Ran(Box::new(results()));
    let refused = Section::Refused("EOPNOTSUPP: no".into());
    let seeds = [
        write(
            "Title\nmore",
            [("a any,u", &ran), ("b stack,u", &refused), ("c any", &ran)],
        ),
        write("One", [("skylake any_call,u", &ran)]),
    ]
    .map(String::into_bytes);
    let tally = throw("golden", 5000, Form::Text, &seeds, |bytes| {
        let Ok(text) = str::from_utf8(bytes) else {
            return false;
        };
        match read(text) {
            Ok(sections) => {
                let again = write(
                    "",
                    sections.iter().map(|(name, section)| (&**name, section)),
                );
                assert_eq!(read(&again), Ok(sections), "written again it is another");
                true
            }
            Err(bad) => {
                assert!((1..=1 + text.lines().count()).contains(&bad.line));
                false
            }
        }
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}

#[test]
fn fuzz_description() {
    let folder = folder();
    let mine = "profile.toml";
    let profile = include_str!("../../../lbr/profiles/skylake.toml");
    fs::write(folder.path().join(mine), profile).unwrap();
    let seeds = [
        include_bytes!("../../../corpus/corpus.toml").to_vec(),
        b"profiles = ['profile.toml', 'nehalem']\n\
        filters = ['any,u', { branches = 'stack,u', event = 'instructions:u', period = 101 }]\n\
        event = 'branches:u'\nedges = 8\nstacks = 3\ndevice_instructions = 4000\n\
        options = { pops_clear_slots = false, quirks = ['E1'] }\n\n\
        [[trace]]\nname = 'gpl/boot'\nfile = 'other.vlt'\nfrom = 'main'\nto = '0x401000'\n\
        skip = ['nehalem stack,u -e instructions:u -c 101']\n\n\
        [[trace]]\nname = 'lua'\nprofiles = ['skylake']\nfilters = ['any_call']\nperiod = 3\n"
            .to_vec(),
    ];
    let tally = throw("corpus.toml", 500, Form::Text, &seeds, |bytes| {
        fs::write(folder.path().join("corpus.toml"), bytes).unwrap();
        let Ok(corpus) = Corpus::open(folder.path()) else {
            return false;
        };
        assert!(!corpus.traces.is_empty());
        let golden = corpus.golden_dir();
        for trace in &corpus.traces {
            assert!(corpus.golden_file(trace).starts_with(&golden));
            assert!(!trace.configurations.is_empty());
        }
        true
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}
