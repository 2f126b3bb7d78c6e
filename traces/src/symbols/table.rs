//! A sorted table of symbols.

use std::borrow::Cow;

/// Symbols a table takes at most: 160 MB of entries.
const MAX_SYMBOLS: usize = 8 << 20;
/// How many symbols before an address are tried when the nearest one ends before it.
const LOOK_BACK: usize = 16;

/// How strongly a name claims its address. The order is the order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Binding {
    /// A function, visible to other files.
    GlobalFunction,
    /// A function, weak.
    WeakFunction,
    /// A function of its file only.
    LocalFunction,
    /// A label in code, of no type.
    Label,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    address: u64,
    size: u64,
    name: u32,
    name_len: u32,
    binding: Binding,
}

/// A symbol and where in it an address lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Name as the file has it.
    pub name: &'a [u8],
    /// Address of the symbol.
    pub address: u64,
    /// Its size, 0 when the file does not say.
    pub size: u64,
    /// Distance of the address asked for from the symbol's.
    pub offset: u64,
}

impl Symbol<'_> {
    /// The name for people: Rust names demangled, others as they are.
    #[must_use]
    pub fn display_name(&self) -> String {
        demangle(self.name).into_owned()
    }
}

/// The name for people: Rust names demangled without their hash, others as they are.
#[must_use]
pub fn demangle(name: &[u8]) -> Cow<'_, str> {
    let name = String::from_utf8_lossy(name);
    match rustc_demangle::try_demangle(&name) {
        Ok(demangled) => Cow::Owned(format!("{demangled:#}")),
        Err(_) => name,
    }
}

/// Collects symbols for a [`SymbolTable`], within bounds.
#[derive(Debug)]
pub struct SymbolTableBuilder {
    entries: Vec<Entry>,
    names: Vec<u8>,
    names_limit: usize,
    sections: Vec<(u64, u64)>,
}

impl SymbolTableBuilder {
    /// A table whose names take `names_limit` bytes at most, and never more than 4 GiB.
    #[must_use]
    pub fn new(names_limit: u64) -> Self {
        let names_limit = usize::try_from(names_limit)
            .unwrap_or(usize::MAX)
            .min(u32::MAX as usize);
        Self {
            entries: Vec::new(),
            names: Vec::new(),
            names_limit,
            sections: Vec::new(),
        }
    }

    /// Code of a section: symbols without size that begin in it do not reach beyond it, so that
    /// `_init` does not give its name to the stubs of the PLT behind it.
    pub fn section(&mut self, address: u64, size: u64) {
        self.sections.push((address, address.saturating_add(size)));
    }

    /// Adds a symbol; false when the table is full.
    #[must_use]
    pub fn push(&mut self, address: u64, size: u64, name: &[u8], binding: Binding) -> bool {
        if self.entries.len() >= MAX_SYMBOLS || self.names_limit - self.names.len() < name.len() {
            return false;
        }
        self.entries.push(Entry {
            address,
            size,
            name: self.names.len() as u32,
            name_len: name.len() as u32,
            binding,
        });
        self.names.extend_from_slice(name);
        true
    }

    /// Sorts, and keeps the preferred name of each address.
    ///
    /// Of two names with equal claim the one with a size, then the shorter, then the smaller wins,
    /// so the table does not depend on the order of the file. A label inside a function goes.
    #[must_use]
    pub fn build(mut self) -> SymbolTable {
        let names = &self.names;
        let name = |e: &Entry| &names[e.name as usize..e.name as usize + e.name_len as usize];
        self.entries.sort_unstable_by(|a, b| {
            (
                a.address,
                a.binding,
                a.size == 0,
                a.name_len,
                name(a),
                a.size,
            )
                .cmp(&(
                    b.address,
                    b.binding,
                    b.size == 0,
                    b.name_len,
                    name(b),
                    b.size,
                ))
        });
        self.entries.dedup_by_key(|entry| entry.address);
        let mut covered = 0u64;
        self.entries.retain(|entry| {
            let inner_label = entry.binding == Binding::Label && entry.address < covered;
            if !inner_label {
                covered = covered.max(entry.address.saturating_add(entry.size));
            }
            !inner_label
        });
        for index in 0..self.entries.len() {
            let Entry { address, size, .. } = self.entries[index];
            let next = self.entries.get(index + 1).map(|next| next.address);
            let section = |&&(start, end): &&(u64, u64)| (start..end).contains(&address);
            if size == 0
                && let Some(&(_, end)) = self.sections.iter().find(section)
                && next.is_none_or(|next| end < next)
            {
                self.entries[index].size = end - address;
            }
        }
        self.entries.shrink_to_fit();
        self.names.shrink_to_fit();
        SymbolTable {
            entries: self.entries,
            names: self.names,
        }
    }
}

/// Symbols by address.
#[derive(Clone, Debug, Default)]
pub struct SymbolTable {
    entries: Vec<Entry>,
    names: Vec<u8>,
}

impl SymbolTable {
    /// Number of symbols.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no symbol.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The symbol that holds `address`.
    ///
    /// A symbol without size reaches to the next one.
    #[must_use]
    pub fn lookup(&self, address: u64) -> Option<Symbol<'_>> {
        let after = self
            .entries
            .partition_point(|entry| entry.address <= address);
        let before = &self.entries[..after];
        before
            .iter()
            .rev()
            .take(LOOK_BACK)
            .enumerate()
            .find_map(|(distance, entry)| {
                let offset = address - entry.address;
                let holds = if entry.size == 0 {
                    distance == 0
                } else {
                    offset < entry.size
                };
                holds.then(|| self.symbol(entry, offset))
            })
    }

    /// The address behind a symbol of this table. One without size reaches to the next one; `None`
    /// if there is none.
    #[must_use]
    pub fn end(&self, symbol: &Symbol<'_>) -> Option<u64> {
        if symbol.size > 0 {
            return Some(symbol.address.saturating_add(symbol.size));
        }
        let entries = &self.entries;
        let next = entries.partition_point(|entry| entry.address <= symbol.address);
        Some(entries.get(next)?.address)
    }

    /// The symbol with this name, the lowest when there are several. Searches the whole table.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<Symbol<'_>> {
        self.iter().find(|symbol| symbol.name == name)
    }

    /// Every symbol, by address.
    pub fn iter(&self) -> impl Iterator<Item = Symbol<'_>> {
        self.entries.iter().map(|entry| self.symbol(entry, 0))
    }

    fn symbol(&self, entry: &Entry, offset: u64) -> Symbol<'_> {
        let start = entry.name as usize;
        Symbol {
            name: &self.names[start..start + entry.name_len as usize],
            address: entry.address,
            size: entry.size,
            offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(symbols: &[(u64, u64, &str, Binding)]) -> SymbolTable {
        let mut builder = SymbolTableBuilder::new(1 << 16);
        for (address, size, name, binding) in symbols {
            assert!(builder.push(*address, *size, name.as_bytes(), *binding));
        }
        builder.build()
    }

    fn name(table: &SymbolTable, address: u64) -> Option<(String, u64)> {
        table.lookup(address).map(|s| (s.display_name(), s.offset))
    }

    #[test]
    fn an_address_belongs_to_the_symbol_whose_size_holds_it() {
        let t = table(&[
            (0x100, 0x20, "a", Binding::GlobalFunction),
            (0x140, 0x10, "b", Binding::LocalFunction),
        ]);
        assert_eq!(name(&t, 0xff), None);
        assert_eq!(name(&t, 0x11f), Some(("a".into(), 0x1f)));
        assert_eq!(name(&t, 0x120), None);
        assert_eq!(name(&t, 0x140), Some(("b".into(), 0)));
        assert_eq!(name(&t, u64::MAX), None);
    }

    #[test]
    fn a_symbol_without_size_ends_with_its_section() {
        let mut builder = SymbolTableBuilder::new(1 << 16);
        builder.section(0x1000, 0x17);
        for (address, symbol) in [(0x1000, b"_init".as_slice()), (0x1100, b"start")] {
            assert!(builder.push(address, 0, symbol, Binding::GlobalFunction));
        }
        let t = builder.build();
        assert_eq!(name(&t, 0x1016), Some(("_init".into(), 0x16)));
        assert_eq!(name(&t, 0x1017), None, "a stub of the PLT");
        assert_eq!(name(&t, 0x1200), Some(("start".into(), 0x100)));
    }

    #[test]
    fn a_symbol_without_size_reaches_to_the_next_one() {
        let t = table(&[
            (0x100, 0, "start", Binding::Label),
            (0x140, 0x10, "b", Binding::LocalFunction),
        ]);
        assert_eq!(name(&t, 0x13f), Some(("start".into(), 0x3f)));
        assert_eq!(name(&t, 0x151), None);
    }

    #[test]
    fn the_preferred_name_wins_whatever_the_order_of_the_file() {
        let symbols = [
            (0x100, 0x10, "weak", Binding::WeakFunction),
            (0x100, 0x10, "global", Binding::GlobalFunction),
            (0x100, 0, "label", Binding::Label),
            (0x104, 0, "inner", Binding::Label),
        ];
        let mut reversed = symbols;
        reversed.reverse();
        for symbols in [symbols, reversed] {
            assert_eq!(name(&table(&symbols), 0x108), Some(("global".into(), 8)));
        }
    }

    #[test]
    fn a_function_around_another_is_found_behind_the_inner_one() {
        let t = table(&[
            (0x100, 0x100, "outer", Binding::GlobalFunction),
            (0x120, 0x10, "inner", Binding::LocalFunction),
        ]);
        assert_eq!(name(&t, 0x125), Some(("inner".into(), 5)));
        assert_eq!(name(&t, 0x180), Some(("outer".into(), 0x80)));
    }

    #[test]
    fn names_beyond_the_limit_are_refused() {
        let mut builder = SymbolTableBuilder::new(4);
        assert!(builder.push(1, 1, b"abcd", Binding::Label));
        assert!(!builder.push(2, 1, b"e", Binding::Label));
    }

    #[test]
    fn rust_names_are_demangled_and_others_left() {
        assert_eq!(
            demangle(b"_ZN4core3fmt5write17h0123456789abcdefE"),
            "core::fmt::write"
        );
        assert_eq!(demangle(b"_ZN3foo3barEv"), "_ZN3foo3barEv");
        assert_eq!(demangle(b"main"), "main");
    }
}
