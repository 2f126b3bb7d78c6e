//! Reading.

use std::io::{BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use super::error::CbpError;
use super::instruction::{Class, Instruction};

/// Registers from the first to the last of these hold 16 bytes.
const VECTORS: std::ops::RangeInclusive<u8> = 32..=63;

/// Reads a trace instruction by instruction; takes the same memory whatever the trace holds.
#[derive(Debug)]
pub struct Reader<R> {
    input: BufReader<MultiGzDecoder<R>>,
    offset: u64,
    /// Offset of the instruction that is read.
    begin: u64,
}

impl<R: BufRead> Reader<R> {
    /// A reader of a gzip stream.
    #[must_use]
    pub fn new(input: R) -> Self {
        Self {
            input: BufReader::with_capacity(1 << 16, MultiGzDecoder::new(input)),
            offset: 0,
            begin: 0,
        }
    }

    /// The next instruction; `None`: there is none.
    ///
    /// # Errors
    /// What is read is no such trace.
    pub fn next_instruction(&mut self) -> Result<Option<Instruction>, CbpError> {
        self.begin = self.offset;
        let offset = self.offset;
        let ended = |source| CbpError::Read { offset, source };
        if self.input.fill_buf().map_err(ended)?.is_empty() {
            return Ok(None);
        }
        let address = self.word()?;
        let offset = self.offset;
        let class = self.byte()?;
        let class = Class::from_number(class).ok_or(CbpError::Class { offset, class })?;
        match class {
            Class::Load => self.skip(10)?,
            Class::Store => self.skip(11)?,
            _ => {}
        }
        let target = if class.is_branch() {
            self.target(class)?
        } else {
            None
        };
        let read = self.byte()?;
        self.skip(read.into())?;
        let written = self.byte()?;
        let mut names = [0; 255];
        let names = &mut names[..written.into()];
        self.fill(names)?;
        let sizes = names
            .iter()
            .map(|name| if VECTORS.contains(name) { 16 } else { 8 });
        self.skip(sizes.sum())?;
        Ok(Some(Instruction {
            address,
            class,
            target,
        }))
    }

    fn target(&mut self, class: Class) -> Result<Option<u64>, CbpError> {
        let offset = self.offset;
        match self.byte()? {
            0 if class != Class::Conditional => Err(CbpError::NotTaken {
                offset,
                class: class.number(),
            }),
            0 => Ok(None),
            1 => Ok(Some(self.word()?)),
            value => Err(CbpError::Taken { offset, value }),
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), CbpError> {
        let (offset, begin) = (self.offset, self.begin);
        self.input.read_exact(bytes).map_err(|source| {
            if source.kind() == std::io::ErrorKind::UnexpectedEof {
                CbpError::Truncated { offset, begin }
            } else {
                CbpError::Read { offset, source }
            }
        })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, CbpError> {
        let mut byte = [0];
        self.fill(&mut byte)?;
        Ok(byte[0])
    }

    fn word(&mut self) -> Result<u64, CbpError> {
        let mut word = [0; 8];
        self.fill(&mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    fn skip(&mut self, count: usize) -> Result<(), CbpError> {
        // At most 255 registers of 16 bytes.
        let mut bytes = [0; 255 * 16];
        self.fill(&mut bytes[..count])
    }
}
