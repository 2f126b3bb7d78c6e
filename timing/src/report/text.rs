//! A report as tables.

use core::fmt::{self, Display, Formatter};

use super::block::{BlockReport, InstructionRow};

/// Columns of bytes of code; longer instructions go on behind an ellipsis.
const HEX: usize = 16;

impl Display for BlockReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            writeln!(f, "{name}")?;
        }
        let environment = match self.environment {
            "unknown" => "",
            _ => ", registers and memory as BHive's profiler sets them",
        };
        writeln!(
            f,
            "{:.2} cycles per iteration on {} ({}), {}{environment}",
            self.cycles, self.core, self.basis, self.repetition
        )?;
        writeln!(
            f,
            "{}, {}; uops: {} decoded, {} issued, {} executed",
            counted(self.instructions.len(), "instruction"),
            counted(self.bytes, "byte"),
            self.uops_decoded,
            self.uops_issued,
            self.uops_executed
        )?;
        if self.approximate > 0 {
            writeln!(
                f,
                "approximate: the tables have no line for {} of the instructions",
                self.approximate
            )?;
        }
        self.bounds(f)?;
        self.chain(f)?;
        self.pressure(f)?;
        self.table(f)
    }
}

impl BlockReport {
    fn bounds(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n  bound        cycles  why (* binds)")?;
        for row in &self.bounds {
            writeln!(
                f,
                "{} {:<10} {:>8.2}  {}",
                if row.binds { '*' } else { ' ' },
                row.part,
                row.cycles,
                row.why
            )?;
        }
        Ok(())
    }

    fn chain(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.chain.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nSlowest cycle of dependences\n  cycles  waits for")?;
        for row in &self.chain {
            let carried = if row.carried {
                " (iteration before)"
            } else {
                ""
            };
            writeln!(
                f,
                "  {:>6.2}  {:<30} {}",
                row.latency,
                format!("{}{carried}", row.waits_for),
                row.text
            )?;
        }
        Ok(())
    }

    fn pressure(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nUops per port and iteration")?;
        f.write_str(" ")?;
        for row in &self.ports {
            write!(f, " {:>6}", format!("p{}", row.port))?;
        }
        f.write_str("\n ")?;
        for row in &self.ports {
            write!(f, " {:>6}", share(row.uops))?;
        }
        writeln!(f)
    }

    fn table(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ports = self.instructions.iter().map(|row| row.ports.len());
        let width = ports.max().unwrap_or(0).max("ports".len());
        write!(
            f,
            "\n{:>6}  {:<HEX$} decoded issued latency  {:<width$}",
            "at", "bytes", "ports"
        )?;
        for row in &self.ports {
            write!(f, " {:>5}", format!("p{}", row.port))?;
        }
        writeln!(f, "  instruction")?;
        for row in &self.instructions {
            self.instruction(f, row, width)?;
        }
        Ok(())
    }

    fn instruction(
        &self,
        f: &mut Formatter<'_>,
        row: &InstructionRow,
        width: usize,
    ) -> fmt::Result {
        let at = self.address.wrapping_add(row.offset as u64);
        let hex = match row.hex.len() {
            0..=HEX => row.hex.clone(),
            _ => format!("{}…", &row.hex[..HEX - 1]),
        };
        write!(
            f,
            "{at:>6x}  {hex:<HEX$} {:>7} {:>6} {:>7.1}  {:<width$}",
            row.uops_decoded, row.uops_issued, row.latency, row.ports
        )?;
        for pressure in &row.pressure {
            write!(f, " {:>5}", share(*pressure))?;
        }
        write!(f, "  {}", row.text)?;
        for (number, marker) in row.markers.iter().enumerate() {
            let before = if number == 0 { "  ; " } else { ", " };
            write!(f, "{before}{}", marker.name())?;
        }
        writeln!(f)
    }
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// A number of micro-operations; none is shown as a dash.
fn share(uops: f64) -> String {
    if uops < 0.005 {
        "-".to_owned()
    } else {
        format!("{uops:.2}")
    }
}
