//! A part of a corpus, for several machines to share the work.

use std::fmt;
use std::str::FromStr;

use super::error::CorpusError;

/// Every N-th configuration, beginning with the I-th.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// All there is.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Whether configuration `number`, counted over all traces from 0, belongs to it.
    #[must_use]
    pub const fn has(self, number: usize) -> bool {
        number % self.count == self.index
    }

    /// Whether it is the first one, which also looks at the folder as a whole.
    #[must_use]
    pub const fn is_first(self) -> bool {
        self.index == 0
    }
}

impl FromStr for Shard {
    type Err = CorpusError;

    fn from_str(text: &str) -> Result<Self, CorpusError> {
        let parts = text.split_once('/');
        let number = |text: &str| text.parse::<usize>().ok();
        let parts = parts.and_then(|(index, count)| Some((number(index)?, number(count)?)));
        match parts {
            Some((index, count)) if 1 <= index && index <= count => Ok(Self {
                index: index - 1,
                count,
            }),
            _ => Err(CorpusError::Shard(text.to_owned())),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index + 1, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_a_partition() {
        let shards: Vec<Shard> = (1..=5)
            .map(|index| format!("{index}/5").parse().unwrap())
            .collect();
        for number in 0..23 {
            let owners = shards.iter().filter(|shard| shard.has(number));
            assert_eq!(owners.count(), 1);
            assert!(Shard::WHOLE.has(number));
        }
        assert_eq!(shards[1].to_string(), "2/5");
    }

    #[test]
    fn what_is_no_shard_is_refused() {
        for text in ["", "1", "0/2", "3/2", "1/0", "a/2", "1/2/3", "-1/2"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
