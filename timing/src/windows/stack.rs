//! Recorded stacks as text.

/// One LBR entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Address of the branch.
    pub from: u64,
    /// Address it went to.
    pub to: u64,
    /// The branch had been mispredicted.
    pub mispredicted: bool,
    /// Cycles since the entry before; `None` if the recorder did not say.
    pub cycles: Option<u32>,
}

/// The entries of one sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Number of the sample.
    pub sample: u64,
    /// Its entries, oldest first.
    pub entries: Vec<Entry>,
}

/// Why a line is no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {text:?} is no sample,index,from,to,mispredicted,cycles")]
pub struct EntryError {
    /// Line, from 1 on.
    pub line: usize,
    /// What it says.
    pub text: String,
}

/// Reads lines `sample,index,from,to,mispredicted,cycles`, the index counting from the youngest
/// entry of a sample, addresses in hexadecimal; the first line is a heading.
///
/// # Errors
/// A line of another form.
pub fn read_stacks(text: &str) -> Result<Vec<Stack>, EntryError> {
    let mut stacks: Vec<Stack> = Vec::new();
    for (line, text) in (1..).zip(text.lines()).skip(1) {
        let (sample, entry) = read(text).ok_or_else(|| EntryError {
            line,
            text: text.to_owned(),
        })?;
        match stacks.last_mut() {
            Some(stack) if stack.sample == sample => stack.entries.push(entry),
            _ => stacks.push(Stack {
                sample,
                entries: vec![entry],
            }),
        }
    }
    for stack in &mut stacks {
        stack.entries.reverse();
    }
    Ok(stacks)
}

fn read(text: &str) -> Option<(u64, Entry)> {
    let mut words = text.split(',');
    let sample = words.next()?.parse().ok()?;
    words.next()?.parse::<u32>().ok()?;
    let address = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let from = address(words.next()?)?;
    let to = address(words.next()?)?;
    let mispredicted = match words.next()? {
        "0" => false,
        "1" => true,
        _ => return None,
    };
    let cycles = match words.next()? {
        "" => None,
        number => Some(number.parse().ok()?),
    };
    let entry = Entry {
        from,
        to,
        mispredicted,
        cycles,
    };
    words.next().is_none().then_some((sample, entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_oldest_first() {
        let text =
            "sample,idx,from,to,mispred,cycles\n4,0,8f4,901,0,19\n4,1,967,8d0,1,\n7,0,1,2,0,3";
        let stacks = read_stacks(text).unwrap();
        assert_eq!(stacks.len(), 2);
        assert_eq!(stacks[0].entries[0].from, 0x967);
        assert_eq!(stacks[0].entries[0].cycles, None);
        assert!(stacks[0].entries[0].mispredicted);
        assert_eq!(stacks[0].entries[1].cycles, Some(19));
        for bad in [
            "4,0,8f4,901,0",
            "4,0,8g4,901,0,1",
            "4,0,8f4,901,2,1",
            "4,0,1,2,0,1,1",
            "x,0,1,2,0,1",
        ] {
            let error = read_stacks(&format!("head\n{bad}")).unwrap_err();
            assert_eq!(error.line, 2);
        }
    }
}
