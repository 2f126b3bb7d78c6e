//! Resolves addresses of running processes and of the kernel.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::elf::ElfImage;
use super::error::SymbolError;
use super::table::{Symbol, SymbolTable};
use crate::perfdata::Mapping;

/// Where an address lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved<'a> {
    /// Path of the mapped file.
    pub path: &'a Path,
    /// Address as linked in that file; the address itself when the file could not be read.
    pub linked: u64,
    /// The symbol, if the file names one.
    pub symbol: Option<Symbol<'a>>,
}

#[derive(Debug)]
struct Mapped {
    end: u64,
    path: PathBuf,
    /// What was added to linked addresses, when the file could be read.
    bias: Option<u64>,
}

/// Mappings of processes and the ELF files behind them.
///
/// Files are read when they are first mapped. One that cannot be read is remembered with its
/// reason, and its addresses stay without names.
#[derive(Debug, Default)]
pub struct Symbolizer {
    root: Option<PathBuf>,
    images: BTreeMap<PathBuf, Result<ElfImage, SymbolError>>,
    /// By process and start address.
    mapped: BTreeMap<(u32, u64), Mapped>,
    kernel: Option<Kernel>,
}

#[derive(Debug)]
struct Kernel {
    path: PathBuf,
    symbols: SymbolTable,
    bias: u64,
}

impl Symbolizer {
    /// A symbolizer that looks for files where the mappings say.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A symbolizer that looks for files below `root`, such as a guest's root file system.
    #[must_use]
    pub fn with_root(root: PathBuf) -> Self {
        Self {
            root: Some(root),
            ..Self::default()
        }
    }

    /// Takes kernel symbols from a list, with the addresses the kernel ran at.
    ///
    /// # Errors
    /// Those of [`super::read_kallsyms`].
    pub fn kallsyms(&mut self, path: &Path) -> Result<(), SymbolError> {
        let symbols = super::read_kallsyms(path)?;
        self.kernel = Some(Kernel {
            path: path.into(),
            symbols,
            bias: 0,
        });
        Ok(())
    }

    /// Takes kernel symbols from the text of a list that a trace carries.
    ///
    /// # Errors
    /// Those of [`super::read_kallsyms`].
    pub fn kallsyms_text(&mut self, text: &str) -> Result<(), SymbolError> {
        let path = Path::new("[kernel.kallsyms]");
        let symbols = super::parse_kallsyms(text.as_bytes(), path)?;
        self.kernel = Some(Kernel {
            path: path.into(),
            symbols,
            bias: 0,
        });
        Ok(())
    }

    /// Takes kernel symbols from a `vmlinux`. `text` is where `_text` ran, if not as linked.
    ///
    /// # Errors
    /// Those of [`ElfImage::open`].
    pub fn vmlinux(&mut self, path: &Path, text: Option<u64>) -> Result<(), SymbolError> {
        let image = ElfImage::open(path)?;
        let linked = ["_text", "_stext", "startup_64"]
            .into_iter()
            .find_map(|name| image.symbols().find(name.as_bytes()).map(|s| s.address));
        let bias = match (text, linked) {
            (Some(text), Some(linked)) => text.wrapping_sub(linked),
            _ => 0,
        };
        self.kernel = Some(Kernel {
            path: path.into(),
            symbols: image.into_symbols(),
            bias,
        });
        Ok(())
    }

    /// Takes note of a mapping. One that overlaps an older one of the process replaces it.
    pub fn map(&mut self, mapping: &Mapping) {
        if mapping.kernel {
            return;
        }
        let image = self.image(&mapping.path);
        let bias =
            image.and_then(|image| image.load_bias(mapping.start, mapping.len, mapping.pgoff));
        self.unmap(mapping.pid, mapping.start, mapping.end());
        self.mapped.insert(
            (mapping.pid, mapping.start),
            Mapped {
                end: mapping.end(),
                path: mapping.path.clone(),
                bias,
            },
        );
    }

    /// `child` starts with the mappings of `parent`.
    pub fn fork(&mut self, parent: u32, child: u32) {
        if parent == child {
            return;
        }
        let copies: Vec<_> = self
            .of_process(parent)
            .map(|(start, m)| {
                (
                    start,
                    Mapped {
                        end: m.end,
                        path: m.path.clone(),
                        bias: m.bias,
                    },
                )
            })
            .collect();
        for (start, mapped) in copies {
            self.mapped.insert((child, start), mapped);
        }
    }

    /// The process runs another program: its mappings are gone.
    pub fn exec(&mut self, pid: u32) {
        self.mapped.retain(|(owner, _), _| *owner != pid);
    }

    /// Where `address` lies in the process, or in the kernel.
    #[must_use]
    pub fn resolve(&self, pid: u32, address: u64) -> Option<Resolved<'_>> {
        if let Some(((_, start), mapped)) = self.mapped.range((pid, 0)..=(pid, address)).next_back()
            && (*start..mapped.end).contains(&address)
        {
            let linked = mapped
                .bias
                .map_or(address, |bias| address.wrapping_sub(bias));
            let symbol = mapped.bias.and_then(|_| {
                let image = self.images.get(&mapped.path)?.as_ref().ok()?;
                image.lookup(linked)
            });
            return Some(Resolved {
                path: &mapped.path,
                linked,
                symbol,
            });
        }
        let kernel = self.kernel.as_ref().filter(|_| address >> 63 != 0)?;
        let linked = address.wrapping_sub(kernel.bias);
        Some(Resolved {
            path: &kernel.path,
            linked,
            symbol: kernel.symbols.lookup(linked),
        })
    }

    /// Name and offset of an address, as people read them: `name+0x12`, `[file]+0x12` or hex.
    #[must_use]
    pub fn describe(&self, pid: u32, address: u64) -> String {
        match self.resolve(pid, address) {
            Some(Resolved {
                symbol: Some(symbol),
                ..
            }) if symbol.offset == 0 => symbol.display_name(),
            Some(Resolved {
                symbol: Some(symbol),
                ..
            }) => {
                format!("{}+{:#x}", symbol.display_name(), symbol.offset)
            }
            Some(Resolved {
                path,
                linked,
                symbol: None,
            }) => {
                let name = path.file_name().unwrap_or(path.as_os_str());
                format!("[{}]+{linked:#x}", name.to_string_lossy())
            }
            None => format!("{address:#x}"),
        }
    }

    /// The file that is mapped under `path`, read when it is not known yet.
    pub fn image(&mut self, path: &Path) -> Option<&ElfImage> {
        let root = self.root.as_deref();
        self.images
            .entry(path.to_owned())
            .or_insert_with(|| {
                let relative = path.strip_prefix("/").unwrap_or(path);
                let found = root.map_or_else(|| path.to_owned(), |root| root.join(relative));
                ElfImage::open(&found)
            })
            .as_ref()
            .ok()
    }

    /// Files that could not be read, and why.
    pub fn failures(&self) -> impl Iterator<Item = (&Path, &SymbolError)> {
        self.images
            .iter()
            .filter_map(|(path, image)| image.as_ref().err().map(|error| (path.as_path(), error)))
    }

    fn of_process(&self, pid: u32) -> impl Iterator<Item = (u64, &Mapped)> {
        self.mapped
            .range((pid, 0)..=(pid, u64::MAX))
            .map(|((_, start), mapped)| (*start, mapped))
    }

    fn unmap(&mut self, pid: u32, start: u64, end: u64) {
        let overlapping: Vec<u64> = self
            .of_process(pid)
            .filter(|(first, mapped)| *first < end && mapped.end > start)
            .map(|(first, _)| first)
            .collect();
        for first in overlapping {
            let Some(old) = self.mapped.remove(&(pid, first)) else {
                continue;
            };
            if old.end > end {
                let rest = Mapped {
                    end: old.end,
                    path: old.path.clone(),
                    bias: old.bias,
                };
                self.mapped.insert((pid, end), rest);
            }
            if first < start {
                self.mapped
                    .insert((pid, first), Mapped { end: start, ..old });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(symbols: &Symbolizer, pid: u32, address: u64) -> Option<String> {
        let resolved = symbols.resolve(pid, address)?;
        Some(resolved.path.display().to_string())
    }

    #[test]
    fn a_later_mapping_replaces_the_part_it_covers() {
        let mut symbols = Symbolizer::new();
        symbols.map(&Mapping::user(1, 0x1000, 0x4000, 0, "/old"));
        symbols.map(&Mapping::user(1, 0x2000, 0x1000, 0, "/new"));
        let at = |address| path(&symbols, 1, address);
        assert_eq!(at(0xfff), None);
        assert_eq!(at(0x1fff).as_deref(), Some("/old"));
        assert_eq!(at(0x2000).as_deref(), Some("/new"));
        assert_eq!(at(0x3000).as_deref(), Some("/old"));
        assert_eq!(at(0x5000), None);
        assert_eq!(path(&symbols, 2, 0x2000), None);
        assert_eq!(symbols.failures().count(), 2);
    }

    #[test]
    fn a_child_has_the_mappings_of_its_parent_until_it_execs() {
        let mut symbols = Symbolizer::new();
        symbols.map(&Mapping::user(1, 0x1000, 0x1000, 0, "/program"));
        symbols.fork(1, 2);
        assert_eq!(path(&symbols, 2, 0x1800).as_deref(), Some("/program"));
        symbols.exec(2);
        assert_eq!(path(&symbols, 2, 0x1800), None);
        assert_eq!(symbols.describe(1, 0x1800), "[program]+0x1800");
    }
}
