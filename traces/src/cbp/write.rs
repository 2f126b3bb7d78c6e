//! Writing.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::instruction::Instruction;

/// Writes a trace whose instructions read and write no registers. Loads and stores become arithmetic, since
/// nothing is known of their addresses.
#[derive(Debug)]
pub struct Writer<W: Write> {
    output: GzEncoder<W>,
}

impl<W: Write> Writer<W> {
    /// A writer of a gzip stream.
    #[must_use]
    pub fn new(output: W) -> Self {
        Self {
            output: GzEncoder::new(output, Compression::fast()),
        }
    }

    /// Writes the next instruction.
    ///
    /// # Errors
    /// The output's.
    pub fn write(&mut self, instruction: &Instruction) -> io::Result<()> {
        // At most address, class, taken, target and two counts.
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&instruction.address.to_le_bytes());
        let mut end = 9;
        if instruction.class.is_branch() {
            bytes[8] = instruction.class.number();
            end += 1;
            if let Some(target) = instruction.target {
                bytes[9] = 1;
                bytes[10..18].copy_from_slice(&target.to_le_bytes());
                end += 8;
            }
        }
        self.output.write_all(&bytes[..end + 2])
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// The output's.
    pub fn finish(self) -> io::Result<W> {
        self.output.finish()
    }
}
