//! A scene with several values of one of its keys.

use toml::{Table, Value};

use crate::{Scene, SceneError, SceneFile};

/// Most values of a sweep.
const MOST: usize = 1000;

/// A key and the values it takes: `KEY=RANGE`.
///
/// KEY is a key of the scene, its tables joined by dots, `vcpu.exits.external-interrupt`: of every
/// vCPU, or of one, `vcpu[0].exits.external-interrupt`. Two keys are none of the file:
/// `guest-perf.period`, the period of every guest's session, and `event` with the values `on` and
/// `off`, the events of the host. RANGE is `A..B*K` (each value K times the one before), `A..B+K`, or
/// values with commas between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    key: String,
    values: Vec<String>,
}

impl Sweep {
    /// Reads `KEY=RANGE`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, SceneError> {
        let bad = |reason: String| SceneError::value(format!("sweep {text:?}"), reason);
        let Some((key, range)) = text.split_once('=') else {
            return Err(bad("is not KEY=RANGE".to_owned()));
        };
        if key.is_empty() || range.is_empty() {
            return Err(bad("key or range is empty".to_owned()));
        }
        let values = values(range).map_err(bad)?;
        Ok(Self {
            key: key.to_owned(),
            values,
        })
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its values.
    #[must_use]
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// The scene with each of the values.
    ///
    /// # Errors
    /// There is no such key, or it does not take a value.
    pub fn scenes(&self, file: &SceneFile) -> Result<Vec<(String, Scene)>, SceneError> {
        let scenes = self.values.iter().map(|value| {
            let scene = self.scene(file, value).map_err(|error| {
                let said = match error {
                    SceneError::In { error, .. } => error.to_string(),
                    error => error.to_string(),
                };
                SceneError::value(format!("sweep {}={value}", self.key), said).within(file.path())
            });
            Ok((value.clone(), scene?))
        });
        scenes.collect()
    }

    fn scene(&self, file: &SceneFile, value: &str) -> Result<Scene, SceneError> {
        let bad = |reason: String| SceneError::value(&self.key, reason);
        match (&*self.key, value) {
            ("event", "on") => return Ok(file.scene().clone()),
            ("event", "off") => {
                let mut scene = file.scene().clone();
                scene.event.clear();
                return Ok(scene);
            }
            ("event", _) => return Err(bad("takes on and off".to_owned())),
            ("guest-perf.period", _) => return with_period(file.scene(), value),
            _ => {}
        }
        let table: Table = vlbr_data::parse_toml(file.text())
            .map_err(|error| SceneError::Text(error.to_string()))?;
        let mut root = Value::Table(table);
        set(&mut root, &self.key, value).map_err(bad)?;
        let text = toml::to_string(&root).map_err(|error| bad(error.to_string()))?;
        file.variant(&text)
    }
}

/// Every guest's session with another period.
fn with_period(scene: &Scene, period: &str) -> Result<Scene, SceneError> {
    let mut scene = scene.clone();
    let mut sessions = 0;
    for session in scene.vcpu.iter_mut().filter_map(|v| v.guest_perf.as_mut()) {
        let mut parts: Vec<&str> = session.splitn(3, ':').collect();
        match parts.get_mut(1) {
            Some(part) => *part = period,
            None => parts.push(period),
        }
        *session = parts.join(":");
        sessions += 1;
    }
    if sessions == 0 {
        let reason = "no guest has a perf session";
        return Err(SceneError::value("guest-perf.period", reason));
    }
    Ok(scene)
}

/// Sets a key, in every table where the path comes to an array of them.
fn set(at: &mut Value, path: &str, value: &str) -> Result<(), String> {
    let (first, rest) = match path.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    };
    let (name, index) = match first.strip_suffix(']').and_then(|f| f.split_once('[')) {
        Some((name, index)) => {
            let index: usize = index
                .parse()
                .map_err(|_| format!("{first}: {index:?} is no number"))?;
            (name, Some(index))
        }
        None => (first, None),
    };
    let Value::Table(table) = at else {
        return Err(format!("there is no table with {name:?}"));
    };
    let Some(rest) = rest else {
        if index.is_some() {
            return Err(format!("{first} is a table"));
        }
        let before = table.get(name);
        if matches!(before, Some(Value::Table(_) | Value::Array(_))) {
            return Err(format!("{name} is no single value"));
        }
        let value = typed(before, value);
        table.insert(name.to_owned(), value);
        return Ok(());
    };
    let next = match (table.contains_key(name), index) {
        (false, None) => table
            .entry(name)
            .or_insert_with(|| Value::Table(Table::new())),
        _ => match table.get_mut(name) {
            Some(next) => next,
            None => return Err(format!("the scene has no {name}")),
        },
    };
    match (next, index) {
        (Value::Array(items), Some(index)) => {
            let count = items.len();
            let item = items
                .get_mut(index)
                .ok_or_else(|| format!("{first}: there are {count}"))?;
            set(item, rest, value)
        }
        (Value::Array(items), None) => items.iter_mut().try_for_each(|item| set(item, rest, value)),
        (_, Some(_)) => Err(format!("{name} is no array")),
        (next, None) => set(next, rest, value),
    }
}

/// The value as TOML: of the type that stood there, else what it looks like.
fn typed(before: Option<&Value>, text: &str) -> Value {
    let integer = || text.parse().ok().map(Value::Integer);
    let float = || text.parse().ok().map(Value::Float);
    let boolean = || match text {
        "on" | "true" => Some(Value::Boolean(true)),
        "off" | "false" => Some(Value::Boolean(false)),
        _ => None,
    };
    let string = || Value::String(text.to_owned());
    match before {
        Some(Value::String(_)) => string(),
        Some(Value::Float(_)) => float().unwrap_or_else(string),
        _ => integer()
            .or_else(float)
            .or_else(boolean)
            .unwrap_or_else(string),
    }
}

fn values(range: &str) -> Result<Vec<String>, String> {
    let Some((from, rest)) = range.split_once("..") else {
        let values: Vec<String> = range.split(',').map(str::to_owned).collect();
        return match values.iter().any(String::is_empty) {
            true => Err("a value is empty".to_owned()),
            false if values.len() > MOST => Err(format!("more than {MOST} values")),
            false => Ok(values),
        };
    };
    let (to, by, times) = if let Some((to, by)) = rest.split_once('*') {
        (to, by, true)
    } else if let Some((to, by)) = rest.split_once('+') {
        (to, by, false)
    } else {
        return Err("a range is A..B*K or A..B+K".to_owned());
    };
    let number = |text: &str| -> Result<f64, String> {
        let number: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
        match number.is_finite() && number >= 0.0 {
            true => Ok(number),
            false => Err(format!("{text} is not from 0 up")),
        }
    };
    let whole = [from, to, by]
        .iter()
        .all(|text| text.parse::<u64>().is_ok());
    let (from, to, by) = (number(from)?, number(to)?, number(by)?);
    if to < from {
        return Err("the range ends before it begins".to_owned());
    }
    if times && (by <= 1.0 || from == 0.0) || !times && by == 0.0 {
        return Err("the range does not grow".to_owned());
    }
    let mut values = Vec::new();
    let (mut at, mut n) = (from, 0.0);
    // A little beyond the end, for what adding up loses.
    while at <= to * (1.0 + 1e-12) {
        if values.len() == MOST {
            return Err(format!("more than {MOST} values"));
        }
        values.push(if whole {
            format!("{}", at.round() as u64)
        } else {
            format!("{at}")
        });
        n += 1.0;
        at = if times {
            from * f64::powf(by, n)
        } else {
            from + by * n
        };
    }
    values.dedup();
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values_of(text: &str) -> Vec<String> {
        Sweep::parse(text).unwrap().values
    }

    #[test]
    fn ranges_grow_by_factor_or_step_or_are_lists() {
        assert_eq!(values_of("k=100..1000*2"), ["100", "200", "400", "800"]);
        assert_eq!(values_of("k=0..9+3"), ["0", "3", "6", "9"]);
        assert_eq!(values_of("k=0.5..1.5+0.5"), ["0.5", "1", "1.5"]);
        assert_eq!(values_of("part=haswell,skylake"), ["haswell", "skylake"]);
    }

    #[test]
    fn wrong_ranges_are_refused() {
        let wrong = [
            "k",
            "=1",
            "k=",
            "k=1..2",
            "k=2..1+1",
            "k=0..8*2",
            "k=1..8*1",
            "k=1..8+0",
            "k=a..b+c",
            "k=1..inf+1",
            "k=1,,2",
            "k=0..5000+1",
        ];
        for text in wrong {
            assert!(Sweep::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_reaches_every_table_of_an_array_or_one() {
        let text = "a = 1\n[[v]]\nb = \"x\"\n[[v]]\nb = \"x\"\n";
        let root = || Value::Table(text.parse().unwrap());
        let mut all = root();
        set(&mut all, "v.b", "7").unwrap();
        let table = |value: &Value| toml::to_string(value).unwrap();
        assert_eq!(table(&all).matches("b = \"7\"").count(), 2);
        let mut one = root();
        set(&mut one, "v[1].c.d", "7").unwrap();
        assert_eq!(table(&one).matches("d = 7").count(), 1);
        for (path, why) in [
            ("v[2].b", "there are 2"),
            ("a.b", "no table"),
            ("v", "no single"),
        ] {
            let error = set(&mut root(), path, "1").unwrap_err();
            assert!(error.contains(why), "{path}: {error}");
        }
    }
}
