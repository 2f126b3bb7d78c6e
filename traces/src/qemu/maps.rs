//! `/proc/PID/maps` as the plugin sends it.

/// One range of a guest's address space. proc(5), `/proc/pid/maps`.
///
/// QEMU maps guest code without execute permission on the host, so no permission tells code from
/// data here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Address behind the last byte, above `start`.
    pub end: u64,
    /// Offset of `start` in the file.
    pub offset: u64,
    /// Device of the file, major and minor.
    pub device: (u32, u32),
    /// Inode of the file, 0 if anonymous.
    pub inode: u64,
    /// Absolute path of the file, raw bytes. Never empty: anonymous ranges are left out.
    pub path: Vec<u8>,
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let start = rest.iter().position(|&b| b != b' ')?;
    let after = &rest[start..];
    let len = after.iter().position(|&b| b == b' ').unwrap_or(after.len());
    *rest = &after[len..];
    Some(&after[..len])
}

fn hex(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = text.iter().position(|&b| b == at)?;
    Some((&text[..position], &text[position + 1..]))
}

fn parse_line(line: &[u8]) -> Option<Mapping> {
    let mut rest = line;
    let (start, end) = split(field(&mut rest)?, b'-')?;
    let _permissions = field(&mut rest)?;
    let offset = hex(field(&mut rest)?)?;
    let (major, minor) = split(field(&mut rest)?, b':')?;
    let inode = std::str::from_utf8(field(&mut rest)?).ok()?.parse().ok()?;
    let path_start = rest.iter().position(|&b| b != b' ')?;
    let path = &rest[path_start..];
    if path.first() != Some(&b'/') {
        return None;
    }
    let (start, end) = (hex(start)?, hex(end)?);
    if start >= end {
        return None;
    }
    Some(Mapping {
        start,
        end,
        offset,
        device: (hex(major)?.try_into().ok()?, hex(minor)?.try_into().ok()?),
        inode,
        path: path.to_vec(),
    })
}

/// File mappings of a maps text, neighbours of the same file and running offset joined. Lines that
/// do not parse or name no file are skipped.
pub(crate) fn parse(text: &[u8]) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for mapping in text.split(|&b| b == b'\n').filter_map(parse_line) {
        if let Some(last) = mappings.last_mut()
            && last.end == mapping.start
            && last.inode == mapping.inode
            && last.device == mapping.device
            && last.path == mapping.path
            && last.offset.wrapping_add(last.end.wrapping_sub(last.start)) == mapping.offset
        {
            last.end = mapping.end;
        } else {
            mappings.push(mapping);
        }
    }
    mappings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_mappings_are_kept_and_joined_others_dropped() {
        let text = b"\
00400000-00401000 r--p 00000000 fe:01 77                         /bin/a b
00401000-00403000 r--p 00001000 fe:01 77                         /bin/a b
00500000-00501000 r--p 00001000 fe:01 77                         /bin/a b
00600000-00700000 rw-p 00000000 00:00 0                          [heap]
00700000-00800000 rw-p 00000000 00:00 0 
00900000-00800000 r--p 00000000 fe:01 77                         /bin/a b
garbage
";
        let found = parse(text);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].start, found[0].end, found[0].offset),
            (0x40_0000, 0x40_3000, 0)
        );
        assert_eq!((found[1].start, found[1].offset), (0x50_0000, 0x1000));
        assert_eq!(found[0].path, b"/bin/a b");
        assert_eq!((found[0].device, found[0].inode), ((0xfe, 1), 77));
    }
}
