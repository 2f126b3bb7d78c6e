//! Assembly text through the system's assembler.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use object::read::{Object, ObjectSection, ObjectSymbol};
use object::{SectionIndex, SectionKind};

use super::block::Code;

/// The assembler of GNU binutils, found by PATH.
const ASSEMBLER: &str = "as";
/// Bytes of text at most.
const MAX_TEXT: usize = 1 << 20;
/// Bytes of the object file at most.
const MAX_OBJECT: u64 = 16 << 20;
/// Bytes of its messages at most.
const MAX_MESSAGES: u64 = 1 << 20;
/// The assembler is stopped after this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Regions of one text at most.
const MAX_REGIONS: usize = 1024;
/// Symbols that the markers of regions become.
const BEGIN: &str = "vlbr_region_begin_";
const END: &str = "vlbr_region_end_";

/// Why assembly text gives no code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AssembleError {
    /// More text than is taken.
    #[error("more than {MAX_TEXT} bytes of assembly text")]
    TooLong,
    /// No assembler.
    #[error("no assembler: `as` of GNU binutils is not in PATH")]
    Missing,
    /// It cannot be run.
    #[error("cannot run the assembler")]
    Run(#[source] io::Error),
    /// It refuses the text.
    #[error("line {line}: {message}")]
    Refused {
        /// Line of the text, from 1 on.
        line: usize,
        /// What it says.
        message: String,
    },
    /// It fails and names no line.
    #[error("the assembler failed: {0}")]
    Failed(String),
    /// It takes too long.
    #[error("the assembler takes longer than {} seconds", PATIENCE.as_secs())]
    Slow,
    /// It writes too much.
    #[error("the assembler writes more than {0} bytes")]
    Large(u64),
    /// The object file cannot be read.
    #[error("object file: {0}")]
    Object(String),
    /// A region without beginning or end.
    #[error("line {0}: a region begins in another, or ends without having begun")]
    Region(usize),
    /// A region does not end.
    #[error("line {0}: the region that begins here does not end")]
    Open(usize),
    /// Too many regions.
    #[error("more than {MAX_REGIONS} regions")]
    Regions,
    /// No instruction.
    #[error("the text has no code")]
    NoCode,
}

/// A part of the text between `# LLVM-MCA-BEGIN` and `# LLVM-MCA-END`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// What stands behind the marker.
    pub name: Option<String>,
    /// Line of the marker, from 1 on.
    pub line: usize,
}

/// Assembles `text` for 64-bit mode: AT&T syntax, or what `.intel_syntax noprefix` says. Each region, or
/// the whole first section with code if the text marks none.
///
/// The assembler is run without a shell, in a directory of its own that is removed again.
///
/// # Errors
/// [`AssembleError`].
pub fn assemble(text: &str) -> Result<Vec<Code>, AssembleError> {
    assemble_with(ASSEMBLER, text)
}

fn assemble_with(assembler: &str, text: &str) -> Result<Vec<Code>, AssembleError> {
    if text.len() > MAX_TEXT {
        return Err(AssembleError::TooLong);
    }
    let (text, regions) = mark(text)?;
    let folder = tempfile::tempdir().map_err(AssembleError::Run)?;
    let [source, object, messages] =
        ["block.s", "block.o", "messages"].map(|name| folder.path().join(name));
    std::fs::write(&source, text).map_err(AssembleError::Run)?;
    let said = File::create(&messages).map_err(AssembleError::Run)?;
    let mut child = Command::new(assembler)
        .args(["--64", "-o"])
        .args([&object, &source])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said)
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => AssembleError::Missing,
            _ => AssembleError::Run(error),
        })?;
    let status = wait(
        &mut child,
        &[(&object, MAX_OBJECT), (&messages, MAX_MESSAGES)],
    )?;
    if !status.success() {
        return Err(refused(&read(&messages, MAX_MESSAGES)?, status));
    }
    codes(&read(&object, MAX_OBJECT)?, &regions)
}

/// Waits for the assembler, which is stopped if it takes too long or writes files longer than they may be.
fn wait(
    child: &mut std::process::Child,
    files: &[(&Path, u64)],
) -> Result<ExitStatus, AssembleError> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(AssembleError::Run)? {
            return Ok(status);
        }
        // A file that is not there yet has no length.
        let long = |&&(path, most): &&(&Path, u64)| {
            std::fs::metadata(path).is_ok_and(|file| file.len() > most)
        };
        let error = match files.iter().find(long) {
            Some((_, most)) => Some(AssembleError::Large(*most)),
            None => (start.elapsed() > PATIENCE).then_some(AssembleError::Slow),
        };
        if let Some(error) = error {
            // It may have ended meanwhile.
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, AssembleError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(AssembleError::Run)?;
    (file.take(limit + 1).read_to_end(&mut bytes)).map_err(AssembleError::Run)?;
    if bytes.len() as u64 > limit {
        return Err(AssembleError::Large(limit));
    }
    Ok(bytes)
}

/// The first error among `FILE:LINE: Error: MESSAGE`.
fn refused(messages: &[u8], status: ExitStatus) -> AssembleError {
    let text = String::from_utf8_lossy(messages);
    let error = |line: &str| {
        let (place, message) =
            (line.split_once(": Error: ")).or_else(|| line.split_once(": Fatal error: "))?;
        let line = place.rsplit(':').next()?.parse().ok()?;
        let message = message.to_owned();
        Some(AssembleError::Refused { line, message })
    };
    let found = text.lines().find_map(error);
    found.unwrap_or_else(|| match text.lines().last() {
        Some(last) => AssembleError::Failed(last.to_owned()),
        None => AssembleError::Failed(status.to_string()),
    })
}

/// Turns markers of regions into labels, line by line.
fn mark(text: &str) -> Result<(String, Vec<Region>), AssembleError> {
    let mut marked = String::with_capacity(text.len() + 64);
    let mut regions: Vec<Region> = Vec::new();
    let mut open = false;
    for (line, content) in (1..).zip(text.lines()) {
        let comment = content.trim_start();
        let comment = comment
            .strip_prefix('#')
            .or_else(|| comment.strip_prefix("//"));
        let comment = comment.unwrap_or_default().trim();
        if let Some(name) = comment.strip_prefix("LLVM-MCA-BEGIN") {
            if open {
                return Err(AssembleError::Region(line));
            }
            if regions.len() == MAX_REGIONS {
                return Err(AssembleError::Regions);
            }
            let name = name.trim();
            marked += &format!("{BEGIN}{}:\n", regions.len());
            regions.push(Region {
                name: (!name.is_empty()).then(|| name.to_owned()),
                line,
            });
            open = true;
        } else if comment.starts_with("LLVM-MCA-END") {
            if !open {
                return Err(AssembleError::Region(line));
            }
            marked += &format!("{END}{}:\n", regions.len() - 1);
            open = false;
        } else {
            marked += content;
            marked.push('\n');
        }
    }
    match regions.last() {
        Some(region) if open => Err(AssembleError::Open(region.line)),
        _ => Ok((marked, regions)),
    }
}

/// The code of each region, or of the first section that has some.
fn codes(object: &[u8], regions: &[Region]) -> Result<Vec<Code>, AssembleError> {
    let error = |error: object::read::Error| AssembleError::Object(error.to_string());
    let file = object::File::parse(object).map_err(error)?;
    if regions.is_empty() {
        for section in file.sections() {
            let data = section.data().map_err(error)?;
            if section.kind() == SectionKind::Text && !data.is_empty() {
                return Ok(vec![Code::new(data.to_vec())]);
            }
        }
        return Err(AssembleError::NoCode);
    }
    let place = |name: String| -> Option<(SectionIndex, u64)> {
        let symbol = file.symbol_by_name(&name)?;
        Some((symbol.section_index()?, symbol.address()))
    };
    (0..)
        .zip(regions)
        .map(|(number, region)| {
            let lost = || AssembleError::Region(region.line);
            let (section, start) = place(format!("{BEGIN}{number}")).ok_or_else(lost)?;
            let (last, end) = place(format!("{END}{number}")).ok_or_else(lost)?;
            let data = file.section_by_index(section).map_err(error)?;
            let data = data.data().map_err(error)?;
            let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
            let bytes = range
                .filter(|_| section == last)
                .and_then(|(start, end)| data.get(start..end))
                .ok_or_else(lost)?;
            if bytes.is_empty() {
                return Err(AssembleError::NoCode);
            }
            Ok(Code {
                bytes: bytes.to_vec(),
                address: start,
                name: region.name.clone(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the assembler is there; the tests say so if not.
    fn assembled(text: &str) -> Option<Result<Vec<Code>, AssembleError>> {
        match assemble(text) {
            Err(AssembleError::Missing) => {
                eprintln!("skipped: no `as`");
                None
            }
            result => Some(result),
        }
    }

    #[test]
    fn both_syntaxes_give_the_same_code() {
        let intel = ".intel_syntax noprefix\nimul rax, rbx\n";
        for text in ["imulq %rbx, %rax\n", intel] {
            if let Some(codes) = assembled(text) {
                let codes = codes.expect("assembles");
                assert_eq!(codes[0].bytes, [0x48, 0x0f, 0xaf, 0xc3]);
            }
        }
    }

    #[test]
    fn regions_are_blocks_of_their_own() {
        let text = "nop\n# LLVM-MCA-BEGIN first\nincq %rax\n# LLVM-MCA-END\nnop\n\
                    # LLVM-MCA-BEGIN\ndecq %rax\n# LLVM-MCA-END\n";
        if let Some(codes) = assembled(text) {
            let codes = codes.expect("assembles");
            assert_eq!(codes.len(), 2);
            assert_eq!(codes[0].name.as_deref(), Some("first"));
            assert_eq!((codes[0].address, codes[1].address), (1, 5));
            assert_eq!(codes[1].bytes, [0x48, 0xff, 0xc8]);
        }
    }

    #[test]
    fn what_the_assembler_refuses_is_told_by_line() {
        for (text, error) in [
            ("nop\nnonsense %rax\n", "line 2: no such instruction"),
            ("# LLVM-MCA-END\n", "line 1: a region begins"),
            ("nop\n# LLVM-MCA-BEGIN\n", "line 2: the region that begins"),
            (".data\n.byte 1\n", "the text has no code"),
        ] {
            if let Some(result) = assembled(text) {
                let message = result.expect_err(text).to_string();
                assert!(message.starts_with(error), "{message}");
            }
        }
        if let Some(result) = assembled(".macro again\nagain\n.endm\nagain\n") {
            let message = result.expect_err("endless").to_string();
            assert!(message.contains("nested"), "{message}");
        }
        let missing = assemble_with("vlbr-no-such-assembler", "nop\n");
        assert!(matches!(missing, Err(AssembleError::Missing)));
        let long = "#".repeat(MAX_TEXT + 1);
        assert!(matches!(assemble(&long), Err(AssembleError::TooLong)));
    }

    /// An assembler that does what a shell script says.
    fn scripted(script: &str) -> Result<Vec<Code>, AssembleError> {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("as");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("executable");
        let path = path.to_str().expect("a name");
        loop {
            match assemble_with(path, "nop\n") {
                // Another test began a process while the script was open for writing.
                Err(AssembleError::Run(error))
                    if error.kind() == io::ErrorKind::ExecutableFileBusy => {}
                result => return result,
            }
        }
    }

    #[test]
    fn an_assembler_that_fails_or_writes_without_end_is_told_and_stopped() {
        let start = Instant::now();
        for (script, error) in [
            ("exit 3", "the assembler failed: exit status: 3"),
            ("kill -9 $$", "the assembler failed: signal: 9"),
            ("echo no room >&2; exit 1", "the assembler failed: no room"),
            (
                "exec yes >&2",
                "the assembler writes more than 1048576 bytes",
            ),
            (
                "exec yes >$3",
                "the assembler writes more than 16777216 bytes",
            ),
            ("echo x >$3", "object file: "),
        ] {
            let message = scripted(script).expect_err(script).to_string();
            assert!(message.starts_with(error), "{script}: {message}");
        }
        assert!(start.elapsed() < PATIENCE, "stopped before it is too late");
    }
}
