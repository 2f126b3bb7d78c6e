//! Which parts of the guest's address space the recorder has been told about.
//!
//! `/proc/self/maps` shows the guest's mappings, moved by the guest base, among QEMU's own. What was
//! mapped when the plugin was loaded, before the guest program, is QEMU's.

use std::sync::OnceLock;

use crate::memory::guest_base;

const MAPS: &str = "/proc/self/maps";

/// Lines of the maps file at load; `None` if it could not be read.
static OWN: OnceLock<Option<Vec<Vec<u8>>>> = OnceLock::new();

/// Remembers QEMU's own mappings. Called before the guest program is loaded.
pub(crate) fn remember_own() {
    let own = std::fs::read(MAPS).ok().map(|text| lines(&text));
    // Set once: the plugin is installed once.
    let _ = OWN.set(own);
}

fn lines(text: &[u8]) -> Vec<Vec<u8>> {
    text.split(|&byte| byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect()
}

fn range(line: &[u8]) -> Option<(u64, u64)> {
    let end = line.iter().position(|&byte| byte == b' ')?;
    let (start, end) = std::str::from_utf8(&line[..end]).ok()?.split_once('-')?;
    Some((
        u64::from_str_radix(start, 16).ok()?,
        u64::from_str_radix(end, 16).ok()?,
    ))
}

/// Whether a line names a file by path and is not one of QEMU's, `own`.
fn is_guest_file(line: &[u8], own: &[Vec<u8>]) -> bool {
    // The permissions QEMU's libraries have may change when relocations are done; address, file and
    // inode do not.
    let same = |own: &Vec<u8>| range(own) == range(line) && file(own) == file(line);
    file(line).is_some() && !own.iter().any(same)
}

fn file(line: &[u8]) -> Option<&[u8]> {
    line.iter()
        .position(|&byte| byte == b'/')
        .map(|start| &line[start..])
}

/// A line with guest addresses instead of host addresses.
fn to_guest(line: Vec<u8>) -> Vec<u8> {
    let base = guest_base();
    let end = line.iter().position(|&byte| byte == b' ');
    match (base, range(&line), end) {
        (1.., Some((from, to)), Some(end)) => {
            let (from, to) = (from.wrapping_sub(base), to.wrapping_sub(base));
            let mut moved = format!("{from:08x}-{to:08x}").into_bytes();
            moved.extend_from_slice(&line[end..]);
            moved
        }
        _ => line,
    }
}

/// Sorted ranges of host addresses without overlap. The methods take guest addresses.
#[derive(Debug)]
pub(crate) struct KnownRanges(Vec<(u64, u64)>);

impl KnownRanges {
    pub(crate) const fn new() -> Self {
        KnownRanges(Vec::new())
    }

    pub(crate) fn contains(&self, address: u64) -> bool {
        let address = address.wrapping_add(guest_base());
        let after = self.0.partition_point(|&(start, _)| start <= address);
        after > 0 && address < self.0[after - 1].1
    }

    /// Reads the mappings anew and returns the guest's file mappings as text. `address` counts as
    /// known afterwards whatever the file says, else it would be read again for every block.
    ///
    /// # Errors
    /// The system's, now or when the plugin was loaded: without QEMU's own mappings the guest's
    /// cannot be told from them. The code is recorded all the same, so this is for a note.
    pub(crate) fn refresh(&mut self, address: u64) -> std::io::Result<Vec<u8>> {
        let own = OWN.get().and_then(Option::as_deref);
        let text = match own {
            Some(_) => std::fs::read(MAPS),
            None => Err(std::io::ErrorKind::NotFound.into()),
        };
        let all = text.as_deref().map(lines).unwrap_or_default();
        self.0 = all.iter().filter_map(|line| range(line)).collect();
        self.0.sort_unstable();
        if !self.contains(address) {
            let page = address.wrapping_add(guest_base()) & !0xfff;
            self.0.push((page, page.saturating_add(0x1000)));
            self.0.sort_unstable();
        }
        text?;
        let own = own.unwrap_or_default();
        Ok(all
            .into_iter()
            .filter(|line| is_guest_file(line, own))
            .fold(Vec::new(), |mut text, line| {
                text.extend_from_slice(&to_guest(line));
                text.push(b'\n');
                text
            }))
    }

    /// The guest has changed what lies in this range.
    pub(crate) fn forget(&mut self, start: u64, length: u64) {
        let start = start.wrapping_add(guest_base());
        let end = start.saturating_add(length);
        if !self.0.iter().any(|&(from, to)| from < end && start < to) {
            return;
        }
        let parts = |(from, to): (u64, u64)| [(from, to.min(start)), (from.max(end), to)];
        self.0 = self
            .0
            .iter()
            .copied()
            .flat_map(parts)
            .filter(|(from, to)| from < to)
            .collect();
    }
}
