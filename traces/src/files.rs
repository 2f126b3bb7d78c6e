//! Opening files that are read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Opens `path` for reading. Pipes, devices and folders are refused before they are opened: a pipe
/// would wait for its other end, and a device may never end.
///
/// # Errors
/// The system's; the file is no regular one.
pub fn open_regular(path: &Path) -> io::Result<File> {
    if std::fs::metadata(path)?.is_file() {
        File::open(path)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ))
    }
}

/// Whether `path` names an open file of this process, as `/dev/stdout` and `/dev/fd/1` do. Renaming
/// onto it would replace the link.
pub fn is_descriptor(path: &Path) -> bool {
    let mut path = path.to_owned();
    // As many links as Linux follows.
    for _ in 0..40 {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let folder = std::fs::canonicalize(folder);
        if folder.is_ok_and(|folder| folder.starts_with("/proc")) {
            return true;
        }
        let Ok(to) = std::fs::read_link(&path) else {
            return false;
        };
        path.pop();
        path.push(to);
    }
    false
}

/// Reads a text file of at most `limit` bytes.
///
/// # Errors
/// Those of [`open_regular`]; the file is longer or not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let mut bytes = Vec::new();
    open_regular(path)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(invalid(format!("longer than {limit} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        invalid(format!("offset {offset:#x}: not UTF-8 text"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_open_files_are_told_from_others() {
        assert!(is_descriptor(Path::new("/dev/stdout")));
        assert!(is_descriptor(Path::new("/proc/self/fd/1")));
        let folder = tempfile::tempdir().expect("folder");
        let link = |name: &str, to: &str| {
            let path = folder.path().join(name);
            std::os::unix::fs::symlink(to, &path).expect("linked");
            is_descriptor(&path)
        };
        assert!(link("far", "/proc/self/fd/2"));
        assert!(link("farther", "far"));
        assert!(!link("file", "somewhere"));
        assert!(!link("loop", "loop"));
        assert!(!is_descriptor(Path::new("out")));
    }

    #[test]
    fn devices_and_folders_are_refused_and_texts_are_bounded() {
        for path in ["/dev/zero", "/"] {
            let error = open_regular(Path::new(path)).expect_err(path);
            assert_eq!(error.to_string(), "not a regular file");
        }
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("text");
        std::fs::write(&path, "four").expect("written");
        assert_eq!(read_text(&path, 4).expect("fits"), "four");
        assert!(read_text(&path, 3).is_err());
        std::fs::write(&path, b"ab\xff").expect("written");
        let error = read_text(&path, 9).expect_err("no text");
        assert_eq!(error.to_string(), "offset 0x2: not UTF-8 text");
    }
}
