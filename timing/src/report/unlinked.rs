//! Code out of object files that are not linked yet.

use object::read::{Object, ObjectSection, ObjectSymbol};
use object::{SectionKind, SymbolKind};

use super::block::Code;
use super::hex::MAX_BYTES;

/// Why an object file gives no code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnlinkedError {
    /// The file cannot be read.
    #[error("{0}")]
    Object(String),
    /// No such symbol in a section with code.
    #[error("no symbol {0:?} in its code")]
    NoSymbol(String),
    /// The symbol goes beyond its section.
    #[error("{0:?} ends behind its section")]
    Outside(String),
    /// More than a block may have.
    #[error("{0:?} has more than {MAX_BYTES} bytes")]
    TooLong(String),
}

/// The code of `symbol` in `object`, an object file: as many bytes as the symbol says or, if it says
/// nothing, up to the next symbol of its section. Its address is that within the section, and what the
/// linker would fill in is left as it is.
///
/// # Errors
/// [`UnlinkedError`].
pub fn unlinked(object: &[u8], symbol: &str) -> Result<Code, UnlinkedError> {
    let error = |error: object::read::Error| UnlinkedError::Object(error.to_string());
    let file = object::File::parse(object).map_err(error)?;
    let section_of = |found: &object::Symbol<'_, '_>| {
        let section = file.section_by_index(found.section_index()?).ok()?;
        (section.kind() == SectionKind::Text).then_some(section)
    };
    let (found, section) = file
        .symbols()
        .filter(|one| !matches!(one.kind(), SymbolKind::Section | SymbolKind::File))
        .filter(|one| one.name_bytes() == Ok(symbol.as_bytes()))
        .find_map(|one| section_of(&one).map(|section| (one, section)))
        .ok_or_else(|| UnlinkedError::NoSymbol(symbol.to_owned()))?;
    let data = section.data().map_err(error)?;
    let start = found.address();
    let length = data.len() as u64;
    let behind = || {
        file.symbols()
            .filter(|other| other.section_index() == Some(section.index()))
            .map(|other| other.address())
            .filter(|address| *address > start)
            .min()
            .map_or(length, |next| next.min(length))
    };
    let end = match found.size() {
        0 => behind(),
        size => start.saturating_add(size),
    };
    let outside = || UnlinkedError::Outside(symbol.to_owned());
    let range = start..end;
    if range.is_empty() || range.end > length {
        return Err(outside());
    }
    let bytes = &data[range.start as usize..range.end as usize];
    if bytes.len() > MAX_BYTES {
        return Err(UnlinkedError::TooLong(symbol.to_owned()));
    }
    Ok(Code {
        bytes: bytes.to_vec(),
        address: start,
        name: Some(symbol.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use vlbr_fuzz::{Form, throw};

    use super::*;

    /// An ELF object file with code and symbols of it: name, address, size.
    fn object(code: &[u8], symbols: &[(&str, u64, u64)]) -> Vec<u8> {
        let mut names = b"\0.text\0".to_vec();
        let mut table = vec![0; 24];
        for &(name, address, size) in symbols {
            table.extend((names.len() as u32).to_le_bytes());
            // A global function of section 1.
            table.extend([0x12, 0, 1, 0]);
            table.extend(address.to_le_bytes());
            table.extend(size.to_le_bytes());
            names.extend(name.bytes().chain([0]));
        }
        let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        // ET_REL, EM_X86_64, version 1.
        out.extend([1, 0, 62, 0, 1, 0, 0, 0]);
        out.resize(64, 0);
        let parts = [code, &table, &names];
        let offsets = parts.map(|part| {
            out.resize(out.len().next_multiple_of(8), 0);
            let offset = out.len() as u64;
            out.extend(part);
            offset
        });
        out.resize(out.len().next_multiple_of(8), 0);
        let headers = out.len() as u64;
        out[40..48].copy_from_slice(&headers.to_le_bytes());
        // Size of the header, of a section header, four of them, names in section 3.
        out[52..54].copy_from_slice(&64u16.to_le_bytes());
        out[58..64].copy_from_slice(&[64, 0, 4, 0, 3, 0]);
        out.extend([0; 64]);
        // SHT_PROGBITS with SHF_ALLOC and SHF_EXECINSTR, SHT_SYMTAB with names in section 3, SHT_STRTAB.
        let kinds = [(1u32, 6u64, 0u64, 0u64), (2, 0, 3, 24), (3, 0, 0, 0)];
        for (number, (kind, flags, link, entry)) in kinds.into_iter().enumerate() {
            let name = u32::from(number == 0);
            out.extend([name, kind].map(u32::to_le_bytes).concat());
            let length = parts[number].len() as u64;
            let fields = [flags, 0, offsets[number], length, link, 1, entry];
            out.extend(fields.map(u64::to_le_bytes).concat());
        }
        out
    }

    #[test]
    fn a_symbol_goes_as_far_as_it_says_or_to_the_next_one() {
        let file = object(
            &[0x90, 0x48, 0x01, 0xc3, 0xc3],
            &[("sized", 0, 1), ("open", 1, 0), ("last", 4, 0)],
        );
        for (name, bytes) in [
            ("sized", &[0x90][..]),
            ("open", &[0x48, 0x01, 0xc3]),
            ("last", &[0xc3]),
        ] {
            assert_eq!(unlinked(&file, name).expect(name).bytes, bytes);
        }
    }

    #[test]
    fn symbols_that_lie_are_refused() {
        let many = [0x90; MAX_BYTES + 1];
        for (code, address, size, error) in [
            (&[0x90][..], 0, 2, "\"f\" ends behind its section"),
            (&[0x90], 0, u64::MAX, "\"f\" ends behind its section"),
            (&[0x90], u64::MAX, 2, "\"f\" ends behind its section"),
            (&[0x90], 1, 0, "\"f\" ends behind its section"),
            (&many, 0, 0, "\"f\" has more than 61440 bytes"),
        ] {
            let found = unlinked(&object(code, &[("f", address, size)]), "f");
            assert_eq!(found.expect_err(error).to_string(), error);
        }
        let error = unlinked(&object(&[0x90], &[]), "f").expect_err("no symbol");
        assert_eq!(error.to_string(), "no symbol \"f\" in its code");
        assert!(unlinked(b"no object", "f").is_err());
    }

    #[test]
    fn fuzz_unlinked() {
        let seeds = [object(&[0x90; 40], &[("f", 8, 16), ("g", 24, 0)])];
        let tally = throw("object file", 3000, Form::Binary, &seeds, |bytes| {
            unlinked(bytes, "f").is_ok_and(|code| !code.bytes.is_empty())
        });
        assert!(tally.taken > 0 && tally.refused > 0);
    }
}
