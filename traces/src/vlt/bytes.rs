//! Little-endian fields and varints in byte buffers.

use super::error::Damage;

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Signed numbers near 0 become small: 0, -1, 1, -2, ...
pub(super) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub(super) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// The distance from `from` to `to` modulo 2^64, as a zigzag varint.
pub(super) fn put_distance(out: &mut Vec<u8>, from: u64, to: u64) {
    put_varint(out, zigzag(to.wrapping_sub(from) as i64));
}

/// A length as varint, then the bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads fields from the front of a buffer.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Fields<'a> {
    pub(super) const fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(super) const fn left(&self) -> usize {
        self.rest.len()
    }

    pub(super) const fn malformed(&self) -> Damage {
        Damage::Malformed(self.what)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Damage> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(Damage::Malformed(self.what))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (bytes, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(Damage::Malformed(self.what))?;
        self.rest = rest;
        Ok(*bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Damage> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, Damage> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Damage> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Damage> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn varint(&mut self) -> Result<u64, Damage> {
        let mut value = 0;
        for (index, &byte) in self.rest.iter().enumerate().take(10) {
            // The tenth byte holds bit 63 only.
            if index == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(Damage::Malformed(self.what))
    }

    pub(super) fn varint32(&mut self) -> Result<u32, Damage> {
        u32::try_from(self.varint()?).map_err(|_| self.malformed())
    }

    pub(super) fn varint16(&mut self) -> Result<u16, Damage> {
        u16::try_from(self.varint()?).map_err(|_| self.malformed())
    }

    /// The counterpart of [`put_distance`].
    pub(super) fn distance(&mut self, from: u64) -> Result<u64, Damage> {
        Ok(from.wrapping_add(unzigzag(self.varint()?) as u64))
    }

    /// The counterpart of [`put_bytes`].
    pub(super) fn counted_bytes(&mut self) -> Result<&'a [u8], Damage> {
        let count = usize::try_from(self.varint()?).map_err(|_| self.malformed())?;
        self.bytes(count)
    }

    /// A part of the buffer as fields of its own, preceded by its length.
    pub(super) fn part(&mut self) -> Result<Self, Damage> {
        Ok(Self::new(self.counted_bytes()?, self.what))
    }

    pub(super) fn string(&mut self) -> Result<String, Damage> {
        let bytes = self.counted_bytes()?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.malformed())?;
        Ok(text.to_owned())
    }

    /// A count of things of which each takes at least `least` bytes of what is left.
    pub(super) fn count(&mut self, least: usize) -> Result<usize, Damage> {
        let count = usize::try_from(self.varint()?).map_err(|_| self.malformed())?;
        match count.checked_mul(least) {
            Some(bytes) if bytes <= self.rest.len() => Ok(count),
            _ => Err(self.malformed()),
        }
    }

    /// Refuses bytes that are left over.
    pub(super) const fn finish(&self) -> Result<(), Damage> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.malformed())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_and_distances_read_back(a: u64, b: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, a);
            put_distance(&mut out, a, b);
            let mut fields = Fields::new(&out, "test");
            prop_assert_eq!(fields.varint().unwrap(), a);
            prop_assert_eq!(fields.distance(a).unwrap(), b);
            prop_assert!(fields.finish().is_ok());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut fields = Fields::new(&bytes, "test");
            while fields.varint().is_ok() {}
            let _ = fields.count(4);
            let _ = fields.string();
        }
    }

    #[test]
    fn numbers_above_64_bits_are_refused() {
        let mut ten = [0xff; 10];
        ten[9] = 1;
        assert_eq!(Fields::new(&ten, "test").varint().unwrap(), u64::MAX);
        ten[9] = 2;
        assert!(Fields::new(&ten, "test").varint().is_err());
        assert!(Fields::new(&[0x80; 11], "test").varint().is_err());
    }
}
