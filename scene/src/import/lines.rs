//! Lines of a text of any length, in bounded memory.

use std::io::{self, BufRead};

use super::LineError;

/// Longest line, in bytes.
pub(super) const LONGEST: usize = 1 << 14;

/// Reads the next line into `line`, without its end. `None`: there is no more.
///
/// # Errors
/// Reading fails; inside, the line is too long or the text ends within it.
pub(super) fn next(
    reader: &mut dyn BufRead,
    line: &mut Vec<u8>,
) -> io::Result<Option<Result<(), LineError>>> {
    line.clear();
    loop {
        let available = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            available => available?,
        };
        if available.is_empty() {
            let cut = (!line.is_empty()).then_some(Err(LineError::Cut));
            return Ok(cut);
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(available.len());
        if line.len() + taken > LONGEST {
            return Ok(Some(Err(LineError::TooLong(LONGEST))));
        }
        line.extend_from_slice(&available[..taken]);
        reader.consume(end.map_or(taken, |end| end + 1));
        if end.is_some() {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(Some(Ok(())));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn lines(text: &[u8]) -> Vec<Result<Vec<u8>, LineError>> {
        let mut reader = BufReader::with_capacity(3, text);
        let (mut line, mut all) = (Vec::new(), Vec::new());
        while let Some(read) = next(&mut reader, &mut line).unwrap() {
            let failed = read.is_err();
            all.push(read.map(|()| line.clone()));
            if failed {
                break;
            }
        }
        all
    }

    #[test]
    fn a_line_ends_with_its_line_feed() {
        let read = lines(b"one\r\n\ntwo three\n");
        let text = [&b"one"[..], b"", b"two three"];
        assert_eq!(read, text.map(|line| Ok(line.to_vec())));
        assert_eq!(lines(b"one\ntw")[1], Err(LineError::Cut));
        assert!(lines(b"").is_empty());
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_is_held() {
        let mut text = vec![b'x'; LONGEST];
        text.push(b'\n');
        assert_eq!(lines(&text).len(), 1);
        assert!(lines(&text)[0].is_ok());
        text.insert(0, b'x');
        assert_eq!(lines(&text)[0], Err(LineError::TooLong(LONGEST)));
    }
}
