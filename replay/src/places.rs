//! Addresses by the file they lie in, so that where it was loaded does not matter.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vlbr_traces::vlt::{ProcessStart, Trace};

/// An address as object and offset in it.
///
/// Of a mapped file the offset is that in the file. Kernel code counts from the start of its
/// mapping; what no mapping holds keeps its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// Index of the object.
    pub(crate) object: u32,
    /// Offset in it.
    pub(crate) offset: u64,
}

/// A file, or what stands for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Object {
    /// Its path, or a name in brackets.
    pub(crate) path: PathBuf,
    /// Its build-id; empty if unknown.
    pub(crate) build_id: Vec<u8>,
    /// Where kernel code starts: what offsets count from.
    pub(crate) kernel_start: Option<u64>,
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
pub(crate) const UNMAPPED: u32 = 0;
/// The object of kernel addresses that no mapping holds.
pub(crate) const KERNEL: u32 = 1;
/// How far the parents of a process are asked for what it inherited.
const GENERATIONS: usize = 64;

/// Mappings of address spaces over time.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    objects: Vec<Object>,
    known: BTreeMap<(PathBuf, bool), u32>,
    /// By space, in the order of `since`.
    spaces: BTreeMap<u32, Vec<Mapped>>,
    kernel: Vec<Mapped>,
    parents: BTreeMap<u32, u32>,
    mappings: usize,
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
            mappings: 0,
        }
    }
}

impl Places {
    /// The mappings of `trace`: spaces are indices of processes, time is counted in chunks.
    pub(crate) fn of_trace(trace: &Trace) -> Self {
        let mut places = Self::default();
        for mapping in trace.mappings() {
            let told = NewMapping {
                since: mapping.from_chunk.into(),
                start: mapping.start,
                length: mapping.length,
                offset: mapping.offset,
                path: &mapping.path,
                build_id: &mapping.build_id,
            };
            if mapping.flags.kernel {
                places.map_kernel(&told);
            } else {
                places.map(mapping.process.0, &told);
            }
        }
        let processes = trace.processes();
        for (index, process) in processes.iter().enumerate() {
            let parent = processes[..index]
                .iter()
                .rposition(|parent| parent.pid == process.ppid);
            if let (ProcessStart::Fork, Some(parent)) = (process.start, parent) {
                places.fork(parent as u32, index as u32);
            }
        }
        places.finish();
        places
    }

    /// Takes note of a mapping of `space`.
    pub(crate) fn map(&mut self, space: u32, mapping: &NewMapping<'_>) {
        let object = self.object(mapping, false);
        let mapped = mapping.mapped(object, mapping.offset);
        self.spaces.entry(space).or_default().push(mapped);
        self.mappings += 1;
    }

    /// Takes note of a mapping of the kernel.
    pub(crate) fn map_kernel(&mut self, mapping: &NewMapping<'_>) {
        let object = self.object(mapping, true);
        self.objects[object as usize].kernel_start = Some(mapping.start);
        self.kernel.push(mapping.mapped(object, 0));
        self.mappings += 1;
    }

    /// `child` inherits what `parent` has mapped.
    pub(crate) fn fork(&mut self, parent: u32, child: u32) {
        if parent != child {
            self.parents.insert(child, parent);
        }
    }

    /// Number of mappings noted.
    pub(crate) fn mappings(&self) -> usize {
        self.mappings
    }

    /// To be called when every mapping is noted.
    pub(crate) fn finish(&mut self) {
        let lists = self.spaces.values_mut().chain([&mut self.kernel]);
        lists.for_each(|list| list.sort_by_key(|mapped| mapped.since));
    }

    /// The objects, by index.
    pub(crate) fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// The object with this path that is no kernel code.
    pub(crate) fn file(&self, path: &Path) -> Option<u32> {
        self.known.get(&(path.to_owned(), false)).copied()
    }

    /// The files a space maps, in the order of time.
    pub(crate) fn files_of(&self, space: u32) -> impl Iterator<Item = u32> {
        let mapped = self.spaces.get(&space).map_or(&[][..], Vec::as_slice);
        mapped.iter().map(|mapped| mapped.object)
    }

    /// Where `address` of `space` lies at the time `when`.
    pub(crate) fn locate(&self, space: u32, when: u64, address: u64) -> Place {
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
    pub(crate) fn labels(&self) -> Vec<String> {
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
        let next = self.objects.len() as u32;
        let index = *self
            .known
            .entry((mapping.path.to_owned(), kernel))
            .or_insert(next);
        if index == next {
            self.objects.push(Object {
                path: mapping.path.to_owned(),
                ..Object::default()
            });
        }
        let object = &mut self.objects[index as usize];
        if object.build_id.is_empty() {
            object.build_id = mapping.build_id.to_vec();
        }
        index
    }
}

/// A mapping to be noted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewMapping<'a> {
    /// From when it holds.
    pub(crate) since: u64,
    /// First address.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) length: u64,
    /// Offset of the first byte in the file.
    pub(crate) offset: u64,
    /// The file.
    pub(crate) path: &'a Path,
    /// Its build-id, if known.
    pub(crate) build_id: &'a [u8],
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
    fn files_of_one_name_are_told_apart_by_path() {
        let mut places = Places::default();
        places.map(1, &mapping(0, 0x1000, 0, "/x/a"));
        places.map(1, &mapping(0, 0x3000, 0, "/y/a"));
        places.map(1, &mapping(0, 0x5000, 0, "/y/b c"));
        assert_eq!(places.labels()[2..], ["/x/a", "/y/a", "b_c"]);
    }
}
