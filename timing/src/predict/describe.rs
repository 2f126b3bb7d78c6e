//! Configurations in a line for people.

use std::fmt;

use super::config::{
    BtbConfig, DirectionConfig, HistoryKind, IndirectConfig, ReturnStackConfig, TableConfig,
    Underflow,
};

/// Tables as `history:sets*ways:tag`.
struct Tables<'t>(&'t [TableConfig]);

impl fmt::Display for Tables<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} tagged tables (bits of history:sets*ways:bits of tag)",
            self.0.len()
        )?;
        for table in self.0 {
            let TableConfig {
                history,
                sets,
                ways,
                tag,
            } = table;
            write!(f, " {history}:{sets}*{ways}:{tag}")?;
        }
        Ok(())
    }
}

impl fmt::Display for DirectionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlwaysTaken => f.write_str("always taken"),
            Self::Bimodal { entries } => write!(f, "bimodal, {entries} counters"),
            Self::Gshare { entries, history } => {
                write!(f, "gshare, {entries} counters, {history} bits of history")
            }
            Self::Tage(tage) => {
                let over = match tage.history {
                    HistoryKind::Outcome => "outcomes".to_owned(),
                    HistoryKind::Path => "path".to_owned(),
                };
                write!(f, "TAGE over {over}, base {}, ", tage.base)?;
                write!(f, "loops {}, corrector {}, ", tage.loops, tage.corrector)?;
                Tables(&tage.tables).fmt(f)
            }
        }
    }
}

impl fmt::Display for IndirectConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tables.is_empty() {
            return f.write_str("as the last time");
        }
        write!(f, "over path, ")?;
        Tables(&self.tables).fmt(f)
    }
}

impl fmt::Display for ReturnStackConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let underflow = match self.underflow {
            Underflow::Wraps => "goes round",
            Underflow::Indirect => "then as indirect branches",
        };
        write!(f, "{} entries, {underflow}", self.entries)?;
        if self.zero_length_calls {
            f.write_str(", calls of the next instruction push too")?;
        }
        Ok(())
    }
}

impl fmt::Display for BtbConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sets, ways } = self;
        write!(f, "{} entries, {sets} sets of {ways}", sets * ways)
    }
}
