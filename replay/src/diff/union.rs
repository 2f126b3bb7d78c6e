//! The objects of both files brought together, and names for what lies in them.

use std::collections::BTreeMap;

use vlbr_traces::symbols::places::{KERNEL, Object, Place, UNMAPPED};
use vlbr_traces::symbols::{ElfImage, SymbolTable, open_mapped};

use super::input::{Content, Input, Kind};
use crate::names::{bracketed, image_of, kernel_symbols};

/// Both files' objects under one numbering.
#[derive(Debug)]
pub(super) struct Union {
    objects: Vec<Shared>,
    /// By object of A and of B, the common number.
    maps: [Vec<u32>; 2],
    kernel: Option<SymbolTable>,
    /// Only edges within this object can be compared.
    pub(super) only: Option<u32>,
    /// What the reader should know.
    pub(super) notes: Vec<String>,
}

#[derive(Debug, Default)]
struct Shared {
    label: String,
    image: Option<ElfImage>,
    /// Where it was looked for in vain, and why.
    missing: Option<String>,
    kernel_start: Option<u64>,
    /// Offsets are linked addresses already.
    linked: bool,
}

impl Union {
    /// Objects of the same file name are the same, unless a file maps two of that name; then of
    /// the same path. The object of a pre-aggregated profile is the other file's program.
    pub(super) fn new(a: &Input, b: &Input) -> Self {
        let mut names: BTreeMap<&std::ffi::OsStr, bool> = BTreeMap::new();
        for input in [a, b] {
            let mut seen: BTreeMap<&std::ffi::OsStr, usize> = BTreeMap::new();
            for object in input.places.objects() {
                *seen.entry(name(object)).or_default() += 1;
            }
            for (name, times) in seen {
                *names.entry(name).or_default() |= times > 1;
            }
        }
        let mut union = Self {
            objects: Vec::new(),
            maps: [Vec::new(), Vec::new()],
            kernel: None,
            only: None,
            notes: Vec::new(),
        };
        let mut known: BTreeMap<String, u32> = BTreeMap::new();
        let preaggregated = |input: &Input| input.kind() == Kind::Preaggregated;
        let any_preaggregated = preaggregated(a) || preaggregated(b);
        for (side, input) in [a, b].into_iter().enumerate() {
            for (index, object) in input.places.objects().iter().enumerate() {
                let is_main = any_preaggregated && Some(index as u32) == input.main;
                let label = if is_main {
                    "[main binary]".to_owned()
                } else if names.get(name(object)).copied().unwrap_or_default() {
                    object.path.display().to_string()
                } else {
                    name(object).to_string_lossy().into_owned()
                };
                let next = union.objects.len() as u32;
                let number = *known.entry(label.clone()).or_insert(next);
                if number == next {
                    union.objects.push(Shared {
                        label,
                        ..Shared::default()
                    });
                }
                union.maps[side].push(number);
                if is_main {
                    union.only = Some(number);
                }
                union.take(number, object, index as u32, input);
            }
        }
        let missing = union.objects.iter().filter(|shared| shared.image.is_none());
        let missing = missing.filter_map(|shared| shared.missing.as_ref());
        union.notes.extend(
            missing.map(|error| {
                format!("{error}: no symbols of it, addresses are offsets in the file")
            }),
        );
        union.compare_build_ids(a, b);
        if let Some(main) = union.only {
            // Addresses of the program are compared as linked.
            union.objects[main as usize].linked = true;
            if a.main.is_none() || b.main.is_none() {
                union.notes.push(
                    "the program of the other file is not known: nothing can be compared".into(),
                );
            }
        }
        for input in [a, b] {
            if let Content::Trace(trace) = &input.content {
                match kernel_symbols(trace) {
                    Ok(table) => union.kernel = union.kernel.take().or(table),
                    Err(error) => union.notes.push(format!(
                        "{}: {error}: no kernel symbols of it",
                        input.path.display()
                    )),
                }
            }
        }
        union
    }

    fn take(&mut self, number: u32, object: &Object, index: u32, input: &Input) {
        let shared = &mut self.objects[number as usize];
        shared.kernel_start = shared.kernel_start.or(object.kernel_start);
        let file = index != UNMAPPED && index != KERNEL && object.kernel_start.is_none();
        if !file || shared.image.is_some() || !object.path.is_absolute() {
            return;
        }
        let found = match &input.content {
            Content::Trace(trace) => image_of(index, object, trace),
            Content::Perf(_) => Some(open_mapped(&object.path, &object.build_id)),
            Content::Preaggregated => None,
        };
        match found {
            Some(Ok(image)) => shared.image = Some(image),
            Some(Err(error)) => {
                shared.missing.get_or_insert_with(|| error.to_string());
            }
            None => {}
        }
    }

    fn compare_build_ids(&mut self, a: &Input, b: &Input) {
        for (index, object) in a.places.objects().iter().enumerate() {
            let number = self.maps[0][index];
            let other = self.maps[1].iter().position(|&other| other == number);
            let Some(other) = other.map(|other| &b.places.objects()[other]) else {
                continue;
            };
            let (mine, theirs) = (&object.build_id, &other.build_id);
            if !mine.is_empty() && !theirs.is_empty() && mine != theirs {
                let label = &self.objects[number as usize].label;
                self.notes.push(format!(
                    "{label} is not the same file on both sides: the build-ids differ"
                ));
            }
        }
    }

    /// The place under the common numbering; `None` if it cannot be compared.
    pub(super) fn place(&self, side: usize, place: Place, preaggregated: bool) -> Option<Place> {
        let object = self.maps[side][place.object as usize];
        if self.only.is_some_and(|only| only != object) {
            return None;
        }
        let shared = &self.objects[object as usize];
        let offset = if shared.linked && !preaggregated {
            match &shared.image {
                Some(image) => image.offset_to_address(place.offset)?,
                // Without the file the best guess: most programs are linked at their offsets.
                None => place.offset,
            }
        } else {
            place.offset
        };
        Some(Place { object, offset })
    }

    /// The address people know: linked where the file can be read, of the kernel as it ran.
    fn address(&self, place: Place) -> u64 {
        let shared = &self.objects[place.object as usize];
        if let Some(start) = shared.kernel_start {
            return start.wrapping_add(place.offset);
        }
        match &shared.image {
            Some(image) if !shared.linked => {
                let linked = image.offset_to_address(place.offset);
                linked.unwrap_or(place.offset)
            }
            _ => place.offset,
        }
    }

    /// The function that holds a place, and how far in it that is.
    fn symbol(&self, place: Place) -> Option<(String, u64)> {
        let address = self.address(place);
        let shared = &self.objects[place.object as usize];
        let symbol = match &shared.image {
            Some(image) => image.lookup(address)?,
            None if address >> 63 != 0 => self.kernel.as_ref()?.lookup(address)?,
            None => return None,
        };
        Some((symbol.display_name(), symbol.offset))
    }

    /// Name of the object of a place.
    pub(super) fn object(&self, place: Place) -> &str {
        &self.objects[place.object as usize].label
    }

    /// The function of a place; without symbols its object.
    pub(super) fn function(&self, place: Place) -> String {
        let named = self.symbol(place).map(|(name, _)| name);
        named.unwrap_or_else(|| bracketed(self.object(place)))
    }

    /// A place for people: `function+0x12` or `[object]+0x12`.
    pub(super) fn describe(&self, place: Place) -> String {
        match self.symbol(place) {
            Some((name, 0)) => name,
            Some((name, offset)) => format!("{name}+{offset:#x}"),
            None => {
                let object = bracketed(self.object(place));
                format!("{object}+{:#x}", self.address(place))
            }
        }
    }

    /// The same with the address, for places that may have equal names: `function+0x12 (lua+0x9a)`.
    pub(super) fn describe_fully(&self, place: Place) -> String {
        let name = self.describe(place);
        if name.starts_with('[') {
            return name;
        }
        format!("{name} ({}+{:#x})", self.object(place), self.address(place))
    }
}

fn name(object: &Object) -> &std::ffi::OsStr {
    object.path.file_name().unwrap_or(object.path.as_os_str())
}
