//! Addresses by the file they lie in, so that where it was loaded does not matter.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::vlt::{self, Process, ProcessStart, Trace};

/// An address as object and offset in it.
///
/// Of a mapped file the offset is that in the file. Kernel code counts from the start of its
/// mapping; what no mapping holds keeps its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Index of the object.
    pub object: u32,
    /// Offset in it.
    pub offset: u64,
}

/// A file, or what stands for one. A path under which two build-ids were mapped is two files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// Its path, or a name in brackets.
    pub path: PathBuf,
    /// Its build-id; empty if unknown.
    pub build_id: Vec<u8>,
    /// Where kernel code starts: what offsets count from.
    pub kernel_start: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Mapped {
    /// From when it holds, in the caller's unit.
    since: u64,
    start: u64,
    length: u64,
    offset: u64,
    object: u32,
}

impl Mapped {
    fn place(&self, address: u64) -> Option<Place> {
        let within = address.wrapping_sub(self.start);
        (within < self.length).then(|| Place {
            object: self.object,
            offset: self.offset.wrapping_add(within),
        })
    }
}

/// The object of user addresses that no mapping holds.
pub const UNMAPPED: u32 = 0;
/// The object of kernel addresses that no mapping holds.
pub const KERNEL: u32 = 1;
/// How far the parents of a process are asked for what it inherited.
const GENERATIONS: usize = 64;

/// Mappings of address spaces over time.
#[derive(Clone, Debug)]
pub struct Places {
    objects: Vec<Object>,
    /// Objects by path and whether they are kernel code, the first one met first.
    known: BTreeMap<(PathBuf, bool), Vec<u32>>,
    /// By space, in the order of `since`.
    spaces: BTreeMap<u32, Vec<Mapped>>,
    kernel: Vec<Mapped>,
    parents: BTreeMap<u32, u32>,
    /// When mappings came, ascending.
    changes: Vec<u64>,
}

impl Default for Places {
    fn default() -> Self {
        let named = |path: &str| Object {
            path: path.into(),
            ..Object::default()
        };
        Self {
            objects: vec![named("[unmapped]"), named("[kernel]")],
            known: BTreeMap::new(),
            spaces: BTreeMap::new(),
            kernel: Vec::new(),
            parents: BTreeMap::new(),
            changes: Vec::new(),
        }
    }
}

impl Places {
    /// The mappings of `trace`: spaces are indices of processes, time is counted in chunks.
    #[must_use]
    pub fn of_trace(trace: &Trace) -> Self {
        let mut places = Self::default();
        let mappings = trace.mappings().iter();
        mappings.for_each(|mapping| places.map_of_trace(mapping));
        places.fork_all(trace.processes());
        places.finish();
        places
    }

    /// Takes note of a mapping as a trace holds it.
    pub fn map_of_trace(&mut self, mapping: &vlt::Mapping) {
        let told = NewMapping {
            since: mapping.from_chunk.into(),
            start: mapping.start,
            length: mapping.length,
            offset: mapping.offset,
            path: &mapping.path,
            build_id: &mapping.build_id,
        };
        if mapping.flags.kernel {
            self.map_kernel(&told);
        } else {
            self.map(mapping.process.0, &told);
        }
    }

    /// Takes note of which of the processes of a trace inherit from which.
    pub fn fork_all(&mut self, processes: &[Process]) {
        for (index, process) in processes.iter().enumerate() {
            let parent = processes[..index]
                .iter()
                .rposition(|parent| parent.pid == process.ppid);
            if let (ProcessStart::Fork, Some(parent)) = (process.start, parent) {
                self.fork(parent as u32, index as u32);
            }
        }
    }

    /// Takes note of a mapping of `space`.
    pub fn map(&mut self, space: u32, mapping: &NewMapping<'_>) {
        let object = self.object(mapping, false);
        let mapped = mapping.mapped(object, mapping.offset);
        self.spaces.entry(space).or_default().push(mapped);
        self.changes.push(mapping.since);
    }

    /// Takes note of a mapping of the kernel.
    pub fn map_kernel(&mut self, mapping: &NewMapping<'_>) {
        let object = self.object(mapping, true);
        self.objects[object as usize].kernel_start = Some(mapping.start);
        self.kernel.push(mapping.mapped(object, 0));
        self.changes.push(mapping.since);
    }

    /// `child` inherits what `parent` has mapped.
    pub fn fork(&mut self, parent: u32, child: u32) {
        if parent != child {
            self.parents.insert(child, parent);
        }
    }

    /// Number of mappings noted.
    #[must_use]
    pub fn mappings(&self) -> usize {
        self.changes.len()
    }

    /// To be called when every mapping is noted, before anything is located, unless the mappings
    /// were noted in the order of time.
    pub fn finish(&mut self) {
        self.changes.sort_unstable();
        let lists = self.spaces.values_mut().chain([&mut self.kernel]);
        lists.for_each(|list| list.sort_by_key(|mapped| mapped.since));
    }

    /// Number of mappings noted up to `when`: an address means the same as long as it does not
    /// change.
    #[must_use]
    pub fn generation(&self, when: u64) -> usize {
        self.changes.partition_point(|&since| since <= when)
    }

    /// The objects, by index.
    #[must_use]
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// The object with this path that is no kernel code.
    #[must_use]
    pub fn file(&self, path: &Path) -> Option<u32> {
        let known = self.known.get(&(path.to_owned(), false))?;
        known.first().copied()
    }

    /// The files a space maps, in the order of time.
    pub fn files_of(&self, space: u32) -> impl Iterator<Item = u32> {
        let mapped = self.spaces.get(&space).map_or(&[][..], Vec::as_slice);
        mapped.iter().map(|mapped| mapped.object)
    }

    /// Where `address` of `space` lies at the time `when`.
    #[must_use]
    pub fn locate(&self, space: u32, when: u64, address: u64) -> Place {
        if address >> 63 != 0 {
            let found = latest(&self.kernel, when, address);
            return found.unwrap_or(Place {
                object: KERNEL,
                offset: address,
            });
        }
        let mut space = space;
        for _ in 0..GENERATIONS {
            let list = self.spaces.get(&space).map_or(&[][..], Vec::as_slice);
            if let Some(place) = latest(list, when, address) {
                return place;
            }
            match self.parents.get(&space) {
                Some(&parent) => space = parent,
                None => break,
            }
        }
        Place {
            object: UNMAPPED,
            offset: address,
        }
    }

    /// Short names of the objects: file names, paths where two files have the same name.
    #[must_use]
    pub fn labels(&self) -> Vec<String> {
        let name = |object: &Object| {
            let name = object.path.file_name().unwrap_or(object.path.as_os_str());
            name.to_string_lossy().into_owned()
        };
        let names: Vec<String> = self.objects.iter().map(name).collect();
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        names
            .iter()
            .for_each(|name| *times.entry(name).or_default() += 1);
        let label = |(object, name): (&Object, &String)| {
            let label = if times[name.as_str()] > 1 {
                object.path.to_string_lossy().into_owned()
            } else {
                name.clone()
            };
            label.replace(|c: char| c.is_whitespace() || c.is_control(), "_")
        };
        self.objects.iter().zip(&names).map(label).collect()
    }

    fn object(&mut self, mapping: &NewMapping<'_>, kernel: bool) -> u32 {
        let same = |object: &Object| {
            object.build_id == mapping.build_id
                || object.build_id.is_empty()
                || mapping.build_id.is_empty()
        };
        let known = self.known.entry((mapping.path.to_owned(), kernel));
        let known = known.or_default();
        let found = known
            .iter()
            .find(|&&index| same(&self.objects[index as usize]));
        if let Some(&index) = found {
            let object = &mut self.objects[index as usize];
            if object.build_id.is_empty() {
                object.build_id = mapping.build_id.to_vec();
            }
            return index;
        }
        let index = self.objects.len() as u32;
        known.push(index);
        self.objects.push(Object {
            path: mapping.path.to_owned(),
            build_id: mapping.build_id.to_vec(),
            kernel_start: None,
        });
        index
    }
}

/// A mapping to be noted.
#[derive(Clone, Copy, Debug)]
pub struct NewMapping<'a> {
    /// From when it holds.
    pub since: u64,
    /// First address.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// Offset of the first byte in the file.
    pub offset: u64,
    /// The file.
    pub path: &'a Path,
    /// Its build-id, if known.
    pub build_id: &'a [u8],
}

impl NewMapping<'_> {
    fn mapped(&self, object: u32, offset: u64) -> Mapped {
        Mapped {
            since: self.since,
            start: self.start,
            length: self.length,
            offset,
            object,
        }
    }
}

/// The youngest mapping that holds `address` at `when`, else the first that comes to hold it:
/// recorders may tell of a mapping a little late.
fn latest(list: &[Mapped], when: u64, address: u64) -> Option<Place> {
    let known = list.partition_point(|mapped| mapped.since <= when);
    let (known, later) = list.split_at(known);
    let mut all = known.iter().rev().chain(later);
    all.find_map(|mapped| mapped.place(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(since: u64, start: u64, offset: u64, path: &str) -> NewMapping<'_> {
        NewMapping {
            since,
            start,
            length: 0x1000,
            offset,
            path: Path::new(path),
            build_id: &[],
        }
    }

    #[test]
    fn an_address_lies_in_the_youngest_mapping_of_its_time() {
        let mut places = Places::default();
        places.map(1, &mapping(5, 0x1000, 0x3000, "/b"));
        places.map(1, &mapping(0, 0x1000, 0, "/a"));
        places.finish();
        let at = |when, address| {
            let place = places.locate(1, when, address);
            let path = &places.objects()[place.object as usize].path;
            (path.to_str().unwrap().to_owned(), place.offset)
        };
        assert_eq!(at(4, 0x1010), ("/a".to_owned(), 0x10));
        assert_eq!(at(5, 0x1010), ("/b".to_owned(), 0x3010));
        assert_eq!(at(5, 0x2000), ("[unmapped]".to_owned(), 0x2000));
        assert_eq!(at(5, u64::MAX), ("[kernel]".to_owned(), u64::MAX));
    }

    #[test]
    fn a_child_inherits_and_kernel_code_counts_from_its_start() {
        let mut places = Places::default();
        places.map(1, &mapping(0, 0x1000, 0, "/a"));
        places.map_kernel(&mapping(
            0,
            0xffff_ffff_8100_0000,
            0x77,
            "[kernel.kallsyms]",
        ));
        places.fork(1, 2);
        places.finish();
        assert_eq!(places.locate(2, 0, 0x1001), places.locate(1, 0, 0x1001));
        assert_eq!(places.locate(2, 0, 0xffff_ffff_8100_0010).offset, 0x10);
    }

    #[test]
    fn another_build_under_the_same_path_is_another_file() {
        let mut places = Places::default();
        let built = |since, build_id| NewMapping {
            build_id,
            ..mapping(since, 0x1000, 0, "/a")
        };
        places.map(1, &built(0, &[1]));
        places.map(1, &built(1, &[]));
        places.map(1, &built(2, &[2]));
        places.finish();
        let object = |when| places.locate(1, when, 0x1000).object;
        assert_eq!(object(0), object(1));
        assert_ne!(object(1), object(2));
        assert_eq!(places.file(Path::new("/a")), Some(object(0)));
        assert_eq!((places.generation(0), places.generation(9)), (1, 3));
    }

    #[test]
    fn files_of_one_name_are_told_apart_by_path() {
        let mut places = Places::default();
        places.map(1, &mapping(0, 0x1000, 0, "/x/a"));
        places.map(1, &mapping(0, 0x3000, 0, "/y/a"));
        places.map(1, &mapping(0, 0x5000, 0, "/y/b c"));
        assert_eq!(places.labels()[2..], ["/x/a", "/y/a", "b_c"]);
    }
}
