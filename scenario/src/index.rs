//! Which rule is shown by which file.

use core::fmt::Write;
use std::collections::BTreeSet;

use crate::Scenario;

/// A line of `rules.txt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Heading it stands under.
    pub chapter: String,
    /// Identifier, as `rule:` lines of scenarios name it.
    pub id: String,
    /// The rule in one line.
    pub statement: String,
    /// Why no scenario shows it.
    pub not_shown: Option<String>,
}

/// Rules and scenarios that do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// A line of `rules.txt` that is none.
    #[error("rules.txt:{0}: neither \"= chapter\", \"id: rule\" nor \"not shown: reason\"")]
    Line(usize),
    /// An identifier that stands twice.
    #[error("rule {0} stands twice in rules.txt")]
    Twice(String),
    /// A rule without a file.
    #[error("no scenario shows rule {0}")]
    NotShown(String),
    /// A rule that says it is not shown, and is.
    #[error("rule {0} is said not to be shown, but a scenario names it")]
    ShownAfterAll(String),
    /// A rule that is not in `rules.txt`.
    #[error("{file} names rule {rule}, which rules.txt lacks")]
    Unknown {
        /// The scenario.
        file: String,
        /// The rule.
        rule: String,
    },
}

/// Reads `rules.txt`: `= chapter` lines, `id: rule` lines, and below a rule an indented
/// `not shown: reason`.
///
/// # Errors
/// Another line, or an identifier that stands twice.
pub fn parse_rules(text: &str) -> Result<Vec<Rule>, IndexError> {
    let mut chapter = String::new();
    let mut rules: Vec<Rule> = Vec::new();
    let mut ids = BTreeSet::new();
    for (n, line) in text.lines().enumerate() {
        let bad = IndexError::Line(n + 1);
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(heading) = line.strip_prefix("= ") {
            heading.clone_into(&mut chapter);
            continue;
        }
        let (id, statement) = line.split_once(": ").ok_or_else(|| bad.clone())?;
        if id.trim() == "not shown" && line.starts_with(' ') {
            let rule = rules.last_mut().ok_or(bad)?;
            rule.not_shown = Some(statement.to_owned());
            continue;
        }
        if id.contains(' ') {
            return Err(bad);
        }
        if !ids.insert(id.to_owned()) {
            return Err(IndexError::Twice(id.to_owned()));
        }
        rules.push(Rule {
            chapter: chapter.clone(),
            id: id.to_owned(),
            statement: statement.to_owned(),
            not_shown: None,
        });
    }
    Ok(rules)
}

/// The text of `INDEX.md`.
///
/// # Errors
/// A rule without a scenario, or a scenario of a rule that is not listed.
pub fn index(rules: &[Rule], scenarios: &[Scenario]) -> Result<String, IndexError> {
    for scenario in scenarios {
        for id in &scenario.rules {
            if !rules.iter().any(|rule| rule.id == *id) {
                return Err(IndexError::Unknown {
                    file: link_text(scenario),
                    rule: id.clone(),
                });
            }
        }
    }
    let shown = rules.iter().filter(|rule| rule.not_shown.is_none()).count();
    let mut text = format!(
        "# Rules and their scenarios\n\n\
         Made from `rules.txt` and the `rule:` lines by\n\
         `cargo run -p vlbr-scenario --example index`. {shown} rules, {} scenarios.\n",
        scenarios.len()
    );
    let mut chapter = None;
    for rule in rules {
        if chapter != Some(&rule.chapter) {
            chapter = Some(&rule.chapter);
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "\n## {}\n\n| rule | says | scenarios |\n| --- | --- | --- |\n",
                rule.chapter
            );
        }
        let files: Vec<String> = scenarios
            .iter()
            .filter(|scenario| scenario.rules.contains(&rule.id))
            .map(|scenario| {
                let name = link_text(scenario);
                format!("[{}]({}/{name})", scenario.number, scenario.area.name())
            })
            .collect();
        let cell = match (&rule.not_shown, files.is_empty()) {
            (None, true) => return Err(IndexError::NotShown(rule.id.clone())),
            (Some(_), false) => return Err(IndexError::ShownAfterAll(rule.id.clone())),
            (Some(reason), true) => format!("none: {reason}"),
            (None, false) => files.join(" "),
        };
        let statement = rule.statement.replace('|', "\\|");
        let _ = writeln!(text, "| {} | {statement} | {cell} |", rule.id);
    }
    Ok(text)
}

fn link_text(scenario: &Scenario) -> String {
    format!("{}-{}.scn", scenario.number, scenario.name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::parse;

    fn scenario(rule: &str) -> Scenario {
        let text = format!(
            "scenario 1\ntitle: A\narea: msr\nrule: {rule}\nsource: B\nprofiles: all\n\
             description: C\n\nthen\n  stack empty\n"
        );
        parse(Path::new("400-a.scn"), &text).unwrap()
    }

    #[test]
    fn rules_come_with_chapters_and_reasons() {
        let rules = parse_rules("# remark\n= One\na: first\n  not shown: why\n\nb: second\n");
        let rules = rules.unwrap();
        assert_eq!(rules.len(), 2);
        assert_eq!(rules[0].chapter, "One");
        assert_eq!(rules[0].not_shown.as_deref(), Some("why"));
        assert_eq!(rules[1].not_shown, None);
    }

    #[test]
    fn bad_lines_of_rules_are_refused() {
        assert_eq!(parse_rules("= A\nno colon"), Err(IndexError::Line(2)));
        assert_eq!(parse_rules("two words: x"), Err(IndexError::Line(1)));
        assert_eq!(parse_rules("  not shown: x"), Err(IndexError::Line(1)));
        assert_eq!(
            parse_rules("a: x\na: y"),
            Err(IndexError::Twice("a".into()))
        );
    }

    #[test]
    fn rules_and_files_must_match() {
        let rules = parse_rules("= One\na: first\n").unwrap();
        let text = index(&rules, &[scenario("a")]).unwrap();
        assert!(
            text.contains("| a | first | [400](msr/400-a.scn) |"),
            "{text}"
        );
        assert_eq!(index(&rules, &[]), Err(IndexError::NotShown("a".into())));
        assert!(matches!(
            index(&rules, &[scenario("b")]),
            Err(IndexError::Unknown { .. })
        ));
        let hidden = parse_rules("a: first\n  not shown: why\n").unwrap();
        assert!(index(&hidden, &[]).unwrap().contains("none: why"));
        assert_eq!(
            index(&hidden, &[scenario("a")]),
            Err(IndexError::ShownAfterAll("a".into()))
        );
    }
}
