//! The words of one line.

use crate::{Check, Expr, Fault, ReadCheck, Reason, WriteOutcome};

/// Words still to be read.
#[derive(Debug)]
pub(super) struct Words<'a> {
    words: std::iter::Peekable<std::str::SplitAsciiWhitespace<'a>>,
}

pub(super) fn unknown(word: &str, expected: &'static str) -> Reason {
    Reason::UnknownWord {
        word: word.to_owned(),
        expected,
    }
}

/// No named bits.
pub(super) fn no_bits(_: &str) -> Option<u64> {
    None
}

impl<'a> Words<'a> {
    pub(super) fn new(line: &'a str) -> Self {
        Self {
            words: line.split_ascii_whitespace().peekable(),
        }
    }

    pub(super) fn peek(&mut self) -> Option<&'a str> {
        self.words.peek().copied()
    }

    pub(super) fn next(&mut self, expected: &'static str) -> Result<&'a str, Reason> {
        self.words.next().ok_or(Reason::Incomplete(expected))
    }

    /// Takes the next word if it is this one.
    pub(super) fn take(&mut self, word: &str) -> bool {
        self.words.next_if_eq(&word).is_some()
    }

    pub(super) fn expect(&mut self, word: &'static str) -> Result<(), Reason> {
        let found = self.next(word)?;
        if found == word {
            Ok(())
        } else {
            Err(unknown(found, word))
        }
    }

    /// Words in double quotes: the text between them.
    pub(super) fn quoted(&mut self) -> Result<String, Reason> {
        const EXPECTED: &str = "words in double quotes";
        let first = self.next(EXPECTED)?;
        let mut text = first
            .strip_prefix('"')
            .ok_or_else(|| unknown(first, EXPECTED))?
            .to_owned();
        loop {
            if let Some(whole) = text.strip_suffix('"') {
                return Ok(whole.to_owned());
            }
            text.push(' ');
            text.push_str(self.next(EXPECTED)?);
        }
    }

    pub(super) fn end(mut self) -> Result<(), Reason> {
        match self.words.next() {
            None => Ok(()),
            Some(word) => Err(Reason::LeftOver(word.to_owned())),
        }
    }

    /// A number, without names.
    pub(super) fn constant(&mut self) -> Result<u64, Reason> {
        let word = self.next("a number")?;
        match Expr::parse(word, &no_bits)? {
            Expr::Number(value) => Ok(value),
            _ => Err(Reason::BadValue(word.to_owned())),
        }
    }

    pub(super) fn value(&mut self) -> Result<Expr, Reason> {
        self.value_with(&no_bits)
    }

    pub(super) fn value_with(&mut self, bit: &dyn Fn(&str) -> Option<u64>) -> Result<Expr, Reason> {
        Expr::parse(self.next("a value")?, bit)
    }

    /// `= V`, `!= V`, each with an optional `mask M`.
    pub(super) fn check(&mut self, bit: &dyn Fn(&str) -> Option<u64>) -> Result<Check, Reason> {
        let equal = match self.next("= or !=")? {
            "=" => true,
            "!=" => false,
            word => return Err(unknown(word, "= or !=")),
        };
        let value = self.value_with(bit)?;
        let mask = if self.take("mask") {
            Some(self.value_with(bit)?)
        } else {
            None
        };
        Ok(Check { equal, value, mask })
    }

    /// `= V`, `!= V`, or `=> #GP`.
    pub(super) fn read_check(
        &mut self,
        bit: &dyn Fn(&str) -> Option<u64>,
    ) -> Result<ReadCheck, Reason> {
        Ok(if self.take("=>") {
            ReadCheck::Fault(self.fault()?)
        } else {
            ReadCheck::Value(self.check(bit)?)
        })
    }

    /// `=> ok`, `=> #GP`, `=> #GP(reason)`, or nothing, which means ok.
    pub(super) fn write_outcome(&mut self) -> Result<WriteOutcome, Reason> {
        if !self.take("=>") {
            return Ok(WriteOutcome::Ok);
        }
        if self.take("ok") {
            return Ok(WriteOutcome::Ok);
        }
        self.fault().map(WriteOutcome::Fault)
    }

    /// `#GP` or `#GP(reason)`: the rest of the line.
    pub(super) fn fault(&mut self) -> Result<Fault, Reason> {
        const EXPECTED: &str = "ok, #GP or #GP(reason)";
        let mut text = self.next(EXPECTED)?.to_owned();
        for word in self.words.by_ref() {
            text.push(' ');
            text.push_str(word);
        }
        if text == "#GP" {
            return Ok(Fault::Any);
        }
        let reason = text
            .strip_prefix("#GP(")
            .and_then(|rest| rest.strip_suffix(')'))
            .ok_or_else(|| unknown(&text, EXPECTED))?;
        Fault::NAMED
            .iter()
            .find(|(_, name)| *name == reason)
            .map(|(fault, _)| *fault)
            .ok_or_else(|| {
                unknown(
                    reason,
                    "a reason of #GP: no such register, beyond depth, reserved bits, \
                     unsupported bits, unsupported depth, not canonical, sign extension, \
                     no architectural LBR, privilege, read only, counter width, no such counter",
                )
            })
    }
}
