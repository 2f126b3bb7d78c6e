//! Reads numbers out of a byte slice without ever passing its end.

/// A position in a slice. Each read names the field, so that an error can name it too.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The field that the bytes ended in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut(pub(super) &'static str);

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(super) const fn position(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    pub(super) fn bytes(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], Cut> {
        let found = self.rest().get(..count).ok_or(Cut(what))?;
        self.at += count;
        Ok(found)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Cut> {
        let found = self.rest().first_chunk::<N>().ok_or(Cut(what))?;
        self.at += N;
        Ok(*found)
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, Cut> {
        self.array(what).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, Cut> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, Cut> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// `count` numbers, if there are so many: nothing is allocated before that is known.
    pub(super) fn words(&mut self, count: u64, what: &'static str) -> Result<Vec<u64>, Cut> {
        let bytes = self.table(count, 8, what)?;
        Ok(bytes
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(std::array::from_fn(|i| word[i])))
            .collect())
    }

    /// The bytes of `count` items of `size` bytes.
    pub(super) fn table(
        &mut self,
        count: u64,
        size: usize,
        what: &'static str,
    ) -> Result<&'a [u8], Cut> {
        let length = usize::try_from(count)
            .ok()
            .and_then(|n| n.checked_mul(size))
            .ok_or(Cut(what))?;
        self.bytes(length, what)
    }
}

/// The bytes before the first zero.
pub(super) fn until_zero(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    &bytes[..end]
}
