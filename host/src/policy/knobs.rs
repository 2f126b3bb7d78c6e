//! Knobs: a rule set with some of its fields changed by name.

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Table;

/// Names and values of the knobs of a rule set.
pub(super) fn table<T: Serialize>(rules: &T) -> Table {
    match toml::Value::try_from(rules) {
        Ok(toml::Value::Table(table)) => table,
        _ => Table::new(),
    }
}

/// The rules with the changes made.
///
/// # Errors
/// A change names no knob, with those there are, or has a value that the knob does not take.
pub(super) fn changed<T: Serialize + DeserializeOwned>(
    rules: &T,
    changes: &Table,
) -> Result<T, String> {
    let mut known = table(rules);
    for (name, value) in changes {
        let Some(knob) = known.get_mut(name) else {
            let names: Vec<&str> = known.keys().map(String::as_str).collect();
            return Err(format!(
                "there is no knob {name:?}; there are {}",
                names.join(", ")
            ));
        };
        *knob = value.clone();
        // One at a time, so that the message names the knob that is wrong.
        toml::Value::Table(known.clone())
            .try_into::<T>()
            .map_err(|error| format!("{name}: {}", one_line(error.message())))?;
    }
    toml::Value::Table(known)
        .try_into()
        .map_err(|error: toml::de::Error| one_line(error.message()))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
