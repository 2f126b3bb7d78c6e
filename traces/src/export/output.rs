//! An output file that is either whole or not there.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::sink::ExportError;
use crate::files::is_descriptor;

/// Writes to a temporary beside the file and renames it when all is written.
///
/// Dropped without [`OutputFile::commit`], it leaves nothing behind. An existing output that is
/// no regular file, such as a pipe, and an open file, such as `/dev/stdout`, is written to directly.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    target: Target,
}

#[derive(Debug)]
enum Target {
    Temporary(BufWriter<tempfile::NamedTempFile>),
    Direct(BufWriter<File>),
}

impl OutputFile {
    /// Starts the output that [`OutputFile::commit`] puts at `path`.
    ///
    /// # Errors
    /// [`ExportError::File`].
    pub fn create(path: &Path) -> Result<Self, ExportError> {
        let error = |source| ExportError::File {
            path: path.to_owned(),
            source,
        };
        let device = std::fs::metadata(path).is_ok_and(|meta| !meta.is_file());
        let target = if device || is_descriptor(path) {
            let file = direct(path).map_err(error)?;
            Target::Direct(BufWriter::new(file))
        } else {
            let folder = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            let file = tempfile::Builder::new()
                .prefix(".export-")
                // As any new file: less what the umask takes away.
                .permissions(std::fs::Permissions::from_mode(0o666))
                .tempfile_in(folder)
                .map_err(error)?;
            Target::Temporary(BufWriter::new(file))
        };
        Ok(Self {
            path: path.to_owned(),
            target,
        })
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// [`ExportError::File`]; the output is not there then.
    pub fn commit(self) -> Result<(), ExportError> {
        let path = self.path;
        let error = |source| ExportError::File {
            path: path.clone(),
            source,
        };
        match self.target {
            Target::Direct(mut out) => out.flush().map_err(error),
            Target::Temporary(out) => {
                let file = out.into_inner().map_err(|e| error(e.into_error()))?;
                file.as_file().sync_data().map_err(error)?;
                file.persist(&path).map_err(|e| error(e.error))?;
                Ok(())
            }
        }
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.target {
            Target::Temporary(out) => out.write(bytes),
            Target::Direct(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.target {
            Target::Temporary(out) => out.flush(),
            Target::Direct(out) => out.flush(),
        }
    }
}

/// Opens what is written in place, behind what it holds.
fn direct(path: &Path) -> io::Result<File> {
    // Opened a second time, a file would be written twice at one position: what is printed later
    // shares that of standard output.
    let printed = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let identity = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    if identity(printed.metadata()?) == identity(std::fs::metadata(path)?) {
        return Ok(printed);
    }
    std::fs::OpenOptions::new().append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_that_is_dropped_leaves_nothing_and_one_that_is_committed_is_whole() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("out");
        let mut output = OutputFile::create(&path).expect("created");
        output.write_all(b"half").expect("written");
        drop(output);
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0);
        let mut output = OutputFile::create(&path).expect("created");
        output.write_all(b"whole").expect("written");
        output.commit().expect("committed");
        assert_eq!(std::fs::read(&path).expect("read"), b"whole");
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1);
    }

    #[test]
    fn an_open_file_is_appended_to_and_its_link_stays() {
        use std::os::fd::AsRawFd;
        let folder = tempfile::tempdir().expect("folder");
        let mut file = tempfile::tempfile().expect("opened");
        file.write_all(b"before ").expect("written");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(format!("/proc/self/fd/{}", file.as_raw_fd()), &link)
            .expect("linked");
        let mut output = OutputFile::create(&link).expect("opened");
        output.write_all(b"behind").expect("buffered");
        output.commit().expect("written");
        assert!(
            std::fs::symlink_metadata(&link)
                .expect("there")
                .is_symlink()
        );
        let text = std::fs::read(&link).expect("read");
        assert_eq!(text, b"before behind");
    }

    #[test]
    fn a_full_device_is_an_error_and_stays_a_device() {
        let path = Path::new("/dev/full");
        let mut output = OutputFile::create(path).expect("opened");
        output.write_all(b"x").expect("buffered");
        assert!(output.commit().is_err());
        assert!(!std::fs::metadata(path).expect("still there").is_file());
    }
}
