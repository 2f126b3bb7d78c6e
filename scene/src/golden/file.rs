//! The text of a golden file.
//!
//! A section begins with `== ` and the policy; a row is a key, a colon and a value. A section that has
//! most rows of an earlier one begins with the row `like`, which names it, and holds the rows that
//! differ; `-` says that there is no such row.

use std::fmt::Write as _;

use super::section::{Row, Section};

/// The key that refers to an earlier section.
const LIKE: &str = "like";
/// The value of a row that is not there.
const NONE: &str = "-";

/// What differs between two sections: rows of `new`, and those that it lacks.
fn difference(old: &Section, new: &Section) -> Section {
    let changed = new.iter().filter(|row| !old.contains(row)).cloned();
    let lacks = |row: &&Row| new.iter().all(|known| known.key != row.key);
    let gone = old.iter().filter(lacks).map(|row| Row::new(&row.key, NONE));
    changed.chain(gone).collect()
}

/// Writes a golden file.
pub(super) fn write(scene: &str, sections: &[(String, Section)]) -> String {
    let mut out = format!(
        "# Golden results of {scene}, written by `vlbr corpus bless`: read the changes, do not edit.\n"
    );
    for (n, (policy, rows)) in sections.iter().enumerate() {
        let earlier = sections[..n].iter();
        let differences = earlier.map(|(name, known)| (name, difference(known, rows)));
        let nearest = differences.min_by_key(|(_, rows)| rows.len());
        let nearest = nearest.filter(|(_, differing)| 2 * differing.len() < rows.len());
        // Writing to a String does not fail.
        let _ = writeln!(out, "\n== {policy}");
        let shown = match &nearest {
            Some((name, differing)) => {
                let _ = writeln!(out, "{LIKE}: {name}");
                differing
            }
            None => rows,
        };
        for row in shown {
            let _ = writeln!(out, "{}: {}", row.key, row.value);
        }
    }
    out
}

/// Reads a golden file: its sections in order.
///
/// # Errors
/// The line, from 1, and what is wrong there.
pub(super) fn read(text: &str) -> Result<Vec<(String, Section)>, (usize, String)> {
    let mut sections: Vec<(String, Section)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let bad = |reason: &str| Err((index + 1, reason.to_owned()));
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(policy) = line.strip_prefix("== ") {
            if sections.iter().any(|(known, _)| known == policy) {
                return bad("a second section of this policy");
            }
            sections.push((policy.to_owned(), Section::new()));
            continue;
        }
        let Some((key, value)) = line.split_once(": ") else {
            return bad("is neither a section nor a row");
        };
        let Some(((_, rows), earlier)) = sections.split_last_mut() else {
            return bad("a row before the first section");
        };
        if key == LIKE {
            let Some((_, known)) = earlier.iter().find(|(known, _)| known == value) else {
                return bad("no earlier section has this name");
            };
            rows.clone_from(known);
            continue;
        }
        match rows.iter().position(|row| row.key == key) {
            Some(at) if value == NONE => drop(rows.remove(at)),
            Some(at) => rows[at].value = value.to_owned(),
            None => rows.push(Row::new(key, value)),
        }
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sections() -> Vec<(String, Section)> {
        let rows = |rows: &[(&str, &str)]| -> Section {
            let rows = rows.iter().map(|(key, value)| Row::new(key, value));
            rows.collect()
        };
        let v8 = [("a", "1"), ("b:c", "d: e"), ("f", "2"), ("g", "3")];
        let mut naive = v8;
        naive[1].1 = "x";
        vec![
            ("v8".to_owned(), rows(&v8)),
            ("naive".to_owned(), rows(&naive)),
            ("none".to_owned(), rows(&v8)),
            ("short".to_owned(), rows(&v8[..3])),
            ("own".to_owned(), rows(&[("z", "0")])),
        ]
    }

    #[test]
    fn what_was_written_is_read() {
        let text = write("scenes/loop", &sections());
        for part in [
            "== naive\nlike: v8\nb:c: x\n\n",
            "== none\nlike: v8\n\n",
            "== short\nlike: v8\ng: -\n\n",
            "== own\nz: 0\n",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(read(&text).unwrap(), sections());
    }

    #[test]
    fn damage_is_told_with_its_line() {
        for (text, line, reason) in [
            ("a: 1\n", 1, "before the first"),
            ("== v8\n== v8\n", 2, "second section"),
            ("# x\n\n== v8\nnothing\n", 4, "neither"),
            ("== v8\nlike: v9\n", 2, "no earlier"),
            ("== v8\nlike: v8\n", 2, "no earlier"),
        ] {
            let (at, said) = read(text).unwrap_err();
            assert!(at == line && said.contains(reason), "{text:?}: {at} {said}");
        }
    }
}
