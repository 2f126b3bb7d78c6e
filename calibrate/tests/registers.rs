//! The programs time the registers that the LBR profiles have.

use std::collections::BTreeMap;

use vlbr_lbr::{Interface, Profile, SelectLayout};

/// What the programs take a legacy part for.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    depth: u32,
    select: bool,
    info: bool,
    low: bool,
}

/// Rows of the table in C, by model. Depths below 16 lie low, but for the two models named beside it.
fn table() -> BTreeMap<u8, Part> {
    let text = include_str!("../common/registers.h");
    let start = text.find("lbr_parts[] = {").expect("the table") + "lbr_parts[] = {".len();
    let body = &text[start..start + text[start..].find("};").expect("its end")];
    let mut parts = BTreeMap::new();
    for row in body.split('{').skip(1) {
        let row = row.split('}').next().unwrap_or_default();
        let cells: Vec<_> = row.split(',').map(str::trim).collect();
        let model = u8::from_str_radix(cells[0].trim_start_matches("0x"), 16).expect("a model");
        let depth = cells[1].parse().expect("a depth");
        let part = Part {
            depth,
            select: cells[2] == "1",
            info: cells[3] == "1",
            low: depth < 16 && ![0x57, 0x85].contains(&model),
        };
        assert_eq!(parts.insert(model, part), None, "{model:#x} stands twice");
    }
    parts
}

#[test]
fn every_legacy_profile_is_in_the_programs_table_with_its_registers() {
    let mut parts = table();
    for profile in Profile::all() {
        let Interface::Legacy(legacy) = profile.interface() else {
            continue;
        };
        for model in profile.models() {
            assert_eq!(model.family, 6, "{}", profile.name());
            let part = Part {
                depth: legacy.depth,
                select: legacy.select != SelectLayout::None,
                info: legacy.info.is_some(),
                low: legacy.from.value() == 0x40,
            };
            let found = parts.remove(&model.model);
            assert_eq!(found, Some(part), "{} {:#x}", profile.name(), model.model);
            let to = if legacy.from.value() == 0x40 {
                0x60
            } else {
                0x6c0
            };
            assert_eq!(legacy.to.value(), to, "{}", profile.name());
            assert!(legacy.info.is_none_or(|info| info.value() == 0xdc0));
        }
    }
    assert!(parts.is_empty(), "no profile has {parts:x?}");
}
