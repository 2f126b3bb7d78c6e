//! What a patch's cover letter needs: ASCII, at most 72 columns.

use super::table::{figure, grouped};
use super::{Overhead, Point, PolicyRow};

/// Widest line.
const WIDTH: usize = 72;
/// Widest name of a policy.
const NAME: usize = 24;
/// Most crossings that are listed.
const CROSSINGS: usize = 10;

impl Overhead {
    /// As plain text for mail. `command` is what makes it again.
    #[must_use]
    pub fn mail(&self, command: &str) -> String {
        let mut out = String::new();
        prose(
            &mut out,
            "",
            &format!("LBR of guests: what policies cost, scene {}", self.scene),
        );
        out.push('\n');
        for (n, point) in self.points.iter().enumerate() {
            // Of a sweep the counts stand once.
            let all = n + 1 == self.points.len();
            self.point(&mut out, point, if all { &COLUMNS } else { CYCLES });
        }
        if let Some(last) = self.points.last() {
            for origin in &last.origins {
                prose(&mut out, "  ", &format!("{}: {}", origin.of, origin.from));
            }
            for note in &last.lacks {
                prose(&mut out, "  ", &format!("note: {note}"));
            }
            out.push('\n');
        }
        if let Some(key) = &self.key {
            let crossings = self.crossings();
            for crossing in crossings.iter().take(CROSSINGS) {
                prose(&mut out, "  ", &crossing.text(key));
            }
            if crossings.len() > CROSSINGS {
                let more = crossings.len() - CROSSINGS;
                prose(
                    &mut out,
                    "  ",
                    &format!("and {more} more crossings (--format table)"),
                );
            }
            out.push('\n');
        }
        prose(
            &mut out,
            "",
            "cycles: core clocks of LBR accesses (MSRs, exits for them, transfers) beyond those with a \
             processor of the guest's own on the same kernel. class H measured, D derived, E \
             estimated: the worst of the figures used. denied: accesses of the guest that were \
             refused or had no effect. In the ranking < is decided within the model's ranges, ~ is \
             not, * refuses accesses.",
        );
        out.push('\n');
        prose(&mut out, "  ", command);
        prose(&mut out, "  ", &format!("vlbr {}", self.version));
        for input in &self.inputs {
            prose(&mut out, "  ", &input.name);
            prose(&mut out, "    ", &input.sha256);
        }
        out
    }

    fn point(&self, out: &mut String, point: &Point, columns: &[Column]) {
        if let (Some(key), Some(value)) = (&self.key, &point.value) {
            prose(out, "", &format!("{key} = {value}"));
        }
        let models = &point.models;
        prose(
            out,
            "",
            &format!(
                "{}: N = {}, E = {}; {}; costs: {}",
                models.part,
                models.entries,
                models.msrs_per_entry,
                match &models.timing {
                    None => format!("IPC {} at {} MHz, no timing model", models.ipc, models.mhz),
                    Some(_) => models.time(),
                },
                models.costs
            ),
        );
        out.push('\n');
        tables(out, point, columns);
        for row in point.rows.iter().filter(|row| row.failed.is_some()) {
            let reason = row.failed.as_deref().unwrap_or_default();
            prose(
                out,
                "  ",
                &format!("{}: does not run: {reason}", row.policy),
            );
        }
        prose(out, "  ", &format!("ranking: {}", point.ranking()));
        out.push('\n');
    }
}

/// A column: its head, and its cell of a policy.
type Column = (&'static str, fn(&PolicyRow) -> String);

const COLUMNS: [Column; 19] = [
    ("Linux", |row| row.kernel.clone()),
    ("x", |row| row.letters.x.to_string()),
    ("y", |row| row.letters.y.to_string()),
    ("u", |row| row.letters.u.to_string()),
    ("s", |row| row.letters.s.to_string()),
    ("d", |row| row.letters.d.to_string()),
    ("V", |row| {
        row.letters.v.map_or_else(dash, |v| format!("{v:.1}"))
    }),
    ("denied", |row| row.letters.denied.to_string()),
    ("rd", |row| row.counts.reads.to_string()),
    ("wr", |row| row.counts.writes.to_string()),
    ("moved", |row| row.counts.transfers.to_string()),
    ("exits", |row| row.counts.exits.to_string()),
    ("low", |row| grouped(row.overhead.low)),
    ("cycles", |row| grouped(row.overhead.default)),
    ("high", |row| grouped(row.overhead.high)),
    ("class", |row| {
        row.class
            .as_deref()
            .unwrap_or("-")
            .chars()
            .take(1)
            .collect()
    }),
    ("/exit", |row| row.per_exit.map_or_else(dash, figure)),
    ("/switch", |row| row.per_switch.map_or_else(dash, figure)),
    ("/v8", |row| row.against_v8.map_or_else(dash, figure)),
];

/// Those of the cycles.
const CYCLES: &[Column] = COLUMNS.split_at(12).1;

fn dash() -> String {
    "-".to_owned()
}

/// The columns in as many tables as the width takes, each with the policies in front.
fn tables(out: &mut String, point: &Point, columns: &[Column]) {
    let rows: Vec<&PolicyRow> = point.rows.iter().filter(|r| r.failed.is_none()).collect();
    let names: Vec<String> = rows.iter().map(|row| name(&row.policy)).collect();
    let first = names
        .iter()
        .map(String::len)
        .max()
        .unwrap_or(0)
        .max("policy".len());
    let mut block: Vec<Vec<String>> = Vec::new();
    let mut width = first;
    for (head, of) in columns {
        let mut cells = vec![(*head).to_owned()];
        cells.extend(rows.iter().map(|row| ascii(&of(row))));
        let wide = cells.iter().map(String::len).max().unwrap_or(0);
        if width + 2 + wide > WIDTH && !block.is_empty() {
            flush(out, &names, first, &mut block);
            width = first;
        }
        width += 2 + wide;
        block.push(cells);
    }
    flush(out, &names, first, &mut block);
}

fn flush(out: &mut String, names: &[String], first: usize, block: &mut Vec<Vec<String>>) {
    for line in 0..=names.len() {
        let name = match line {
            0 => "policy",
            n => &names[n - 1],
        };
        let mut text = format!("{name:<first$}");
        for cells in &*block {
            let wide = cells.iter().map(String::len).max().unwrap_or(0);
            text.push_str(&format!("  {:>wide$}", cells[line]));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out.push('\n');
    block.clear();
}

fn name(policy: &str) -> String {
    let name = ascii(policy);
    match name.len() > NAME {
        true => format!("{}~", &name[..NAME - 1]),
        false => name,
    }
}

fn ascii(text: &str) -> String {
    let known = |c: char| c == ' ' || c.is_ascii_graphic();
    text.chars()
        .map(|c| if known(c) { c } else { '?' })
        .collect()
}

/// Words in lines of at most [`WIDTH`]; further lines are set in.
fn prose(out: &mut String, indent: &str, text: &str) {
    let text = ascii(text);
    let mut line = indent.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        let mut word = word;
        if !empty && line.len() + 1 + word.len() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = format!("{indent}  ");
            empty = true;
        }
        while line.len() + usize::from(!empty) + word.len() > WIDTH {
            let (head, rest) = word.split_at((WIDTH - line.len()).min(word.len()));
            out.push_str(&line);
            out.push_str(head);
            out.push('\n');
            line = format!("{indent}  ");
            word = rest;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_ascii_and_short() {
        let mut out = String::new();
        let words = "ab ".repeat(80) + &"x".repeat(200) + " \u{e9}\u{1f600} end";
        prose(&mut out, "  ", &words);
        assert!(out.is_ascii());
        assert!(out.lines().all(|line| line.len() <= WIDTH), "{out}");
        let letters = |text: &str| text.chars().filter(|c| *c == 'x').count();
        assert_eq!(letters(&out), 200);
    }
}
