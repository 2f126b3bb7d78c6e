//! File mappings as the trace holds them: by segment, with build-ids.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::qemu;
use crate::symbols::ElfImage;
use crate::vlt::{Mapping, MappingFlags, ProcessIndex};

const PAGE: u64 = 4096;

const fn page_down(address: u64) -> u64 {
    address & !(PAGE - 1)
}

fn page_up(address: u64) -> u64 {
    page_down(address.saturating_add(PAGE - 1))
}

/// What is needed of an ELF file.
#[derive(Debug)]
struct Image {
    build_id: Vec<u8>,
    segments: Vec<Segment>,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    address: u64,
    offset: u64,
    size: u64,
    executable: bool,
}

impl Image {
    fn open(path: &Path) -> Option<Self> {
        let elf = ElfImage::open(path).ok()?;
        let segments = elf
            .segments()
            .iter()
            .filter(|segment| segment.file_size > 0);
        Some(Self {
            build_id: elf.build_id().unwrap_or_default().to_vec(),
            segments: segments
                .map(|segment| Segment {
                    address: segment.address,
                    offset: segment.file_offset,
                    size: segment.file_size,
                    executable: segment.executable,
                })
                .collect(),
        })
    }

    /// Distance from linked to mapped addresses if a mapping of file offset `offset` at `start` is
    /// this image's first segment.
    fn bias(&self, start: u64, offset: u64) -> Option<u64> {
        let first = self.segments.first()?;
        let is_first = page_down(first.offset) == offset;
        is_first.then(|| start.wrapping_sub(page_down(first.address)))
    }

    /// Behind the last byte from the file, as linked.
    fn end(&self) -> u64 {
        let ends = self
            .segments
            .iter()
            .map(|s| page_up(s.address.wrapping_add(s.size)));
        ends.max().unwrap_or(0)
    }
}

/// Files by path, read once; their order never shows.
#[derive(Debug, Default)]
pub(super) struct Images {
    known: BTreeMap<Vec<u8>, Option<Arc<Image>>>,
}

/// A part of a mapping.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Piece {
    start: u64,
    end: u64,
    offset: u64,
    executable: bool,
    path: Vec<u8>,
    build_id: Vec<u8>,
}

impl Piece {
    pub(super) fn to_mapping(&self, process: ProcessIndex) -> Mapping {
        Mapping {
            process,
            from_chunk: 0,
            start: self.start,
            length: self.end - self.start,
            offset: self.offset,
            flags: MappingFlags {
                read: true,
                execute: self.executable,
                ..MappingFlags::default()
            },
            path: PathBuf::from(OsString::from_vec(self.path.clone())),
            build_id: self.build_id.clone(),
        }
    }
}

impl Images {
    fn get(&mut self, path: &[u8]) -> Option<Arc<Image>> {
        if let Some(known) = self.known.get(path) {
            return known.clone();
        }
        let file = PathBuf::from(OsString::from_vec(path.to_vec()));
        let image = Image::open(&file).map(Arc::new);
        self.known.insert(path.to_vec(), image.clone());
        image
    }

    /// The parts of `mappings`, one for each segment of an ELF file. Permissions do not survive the
    /// recorders (QEMU maps code without execute permission on the host), so they come from the
    /// segments; files that are no ELF files hold no code with symbols and are left out.
    pub(super) fn pieces(&mut self, mappings: &[qemu::Mapping]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        // Where the image of a path that is being walked through is mapped.
        let mut current: Option<(&[u8], u64, u64)> = None;
        for mapping in mappings {
            let Some(image) = self.get(&mapping.path) else {
                continue;
            };
            let inside = current.is_some_and(|(path, bias, end)| {
                path == mapping.path && mapping.start.wrapping_sub(bias) < end.saturating_add(PAGE)
            });
            if !inside {
                let bias = image.bias(mapping.start, mapping.offset);
                current = bias.map(|bias| (mapping.path.as_slice(), bias, image.end()));
            }
            match current {
                Some((_, bias, _)) => split(mapping, &image, bias, &mut pieces),
                None => pieces.push(piece(mapping, &image, mapping.start, mapping.end, true)),
            }
        }
        pieces
    }
}

fn piece(mapping: &qemu::Mapping, image: &Image, start: u64, end: u64, executable: bool) -> Piece {
    Piece {
        start,
        end,
        offset: mapping.offset.wrapping_add(start - mapping.start),
        executable,
        path: mapping.path.clone(),
        build_id: image.build_id.clone(),
    }
}

/// Adds the parts of `mapping` that are executable segments, and what lies between them.
fn split(mapping: &qemu::Mapping, image: &Image, bias: u64, pieces: &mut Vec<Piece>) {
    let mut done = mapping.start;
    for segment in image.segments.iter().filter(|segment| segment.executable) {
        let start = bias.wrapping_add(page_down(segment.address)).max(done);
        let end = page_up(
            bias.wrapping_add(segment.address)
                .wrapping_add(segment.size),
        );
        let end = end.min(mapping.end);
        if start >= end {
            continue;
        }
        if start > done {
            pieces.push(piece(mapping, image, done, start, false));
        }
        pieces.push(piece(mapping, image, start, end, true));
        done = end;
    }
    if done < mapping.end {
        pieces.push(piece(mapping, image, done, mapping.end, false));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn image() -> Image {
        let segment = |address, offset, size, executable| Segment {
            address,
            offset,
            size,
            executable,
        };
        Image {
            build_id: vec![1, 2, 3],
            segments: vec![
                segment(0, 0, 0x800, false),
                segment(0x1000, 0x1000, 0x1800, true),
                segment(0x3e00, 0x2e00, 0x300, false),
            ],
        }
    }

    /// The image, as `/lib/x`.
    pub(in super::super) fn images() -> Images {
        let mut images = Images::default();
        images
            .known
            .insert(b"/lib/x".to_vec(), Some(Arc::new(image())));
        images
    }

    fn mapping(start: u64, end: u64, offset: u64) -> qemu::Mapping {
        qemu::Mapping {
            start,
            end,
            offset,
            device: (0, 1),
            inode: 2,
            path: b"/lib/x".to_vec(),
        }
    }

    fn pieces(mappings: &[qemu::Mapping]) -> Vec<(u64, u64, u64, bool)> {
        let mut images = images();
        let pieces = images.pieces(mappings);
        pieces
            .iter()
            .map(|p| (p.start, p.end, p.offset, p.executable))
            .collect()
    }

    #[test]
    fn a_mapping_of_several_segments_is_cut_at_the_executable_one() {
        let base = 0x7000_0000;
        assert_eq!(
            pieces(&[
                mapping(base, base + 0x3000, 0),
                mapping(base + 0x3000, base + 0x5000, 0x2000)
            ]),
            [
                (base, base + 0x1000, 0, false),
                (base + 0x1000, base + 0x3000, 0x1000, true),
                (base + 0x3000, base + 0x5000, 0x2000, false),
            ]
        );
    }

    #[test]
    fn two_copies_of_a_library_have_their_own_bias() {
        let found = pieces(&[mapping(0x10000, 0x13000, 0), mapping(0x50000, 0x53000, 0)]);
        let code: Vec<_> = found.iter().filter(|piece| piece.3).map(|p| p.0).collect();
        assert_eq!(code, [0x11000, 0x51000]);
    }

    #[test]
    fn files_that_are_no_elf_files_are_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        std::fs::write(&path, "text").unwrap();
        let mut text = mapping(0x1000, 0x2000, 0);
        text.path = path.into_os_string().into_vec();
        assert_eq!(Images::default().pieces(&[text]), []);
    }
}
