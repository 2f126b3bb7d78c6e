//! `vlbr msr`

use std::error::Error;
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::process::ExitCode;

use serde::Serialize;
use vlbr_arch::Msr;
use vlbr_cpu::processor::{MsrDescription, MsrMode, MsrScope, Options, ValueRule, describe};

use crate::args::{MsrCommand, TextOrJson};
use crate::common::{self, Outcome};

/// Numbers of 64 bits are hexadecimal texts: JSON readers take numbers for floating point.
#[derive(Serialize)]
struct Row {
    msr: String,
    name: String,
    owner: &'static str,
    access: &'static str,
    reserved: String,
    values: String,
    reset: String,
    scope: &'static str,
    options: Vec<&'static str>,
}

/// Runs the subcommand.
pub(crate) fn run(command: &MsrCommand) -> Outcome {
    let MsrCommand::List {
        cpu,
        registers,
        format,
    } = command;
    let lbr =
        vlbr_lbr::Profile::named(cpu).map_err(|error| format!("{error}; vlbr list shows them"))?;
    let pmu = vlbr_pmu::Profile::named(lbr.name())?;
    let table = describe(lbr, pmu, &Options::default())?;
    let wanted = registers
        .iter()
        .map(|text| range(text))
        .collect::<Result<Vec<_>, _>>()?;
    for (range, text) in wanted.iter().zip(registers) {
        if !table.iter().any(|row| range.contains(&row.msr)) {
            return Err(format!("{} has no register {text}", lbr.name()).into());
        }
    }
    let shown = |row: &&MsrDescription| {
        wanted.is_empty() || wanted.iter().any(|range| range.contains(&row.msr))
    };
    let rows: Vec<Row> = table.iter().filter(shown).map(row).collect();
    if *format == TextOrJson::Json {
        common::print_json(&rows)?;
    } else {
        common::print(&text(&rows)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `0x680-0x69f`, a number or a name.
fn range(text: &str) -> Result<RangeInclusive<Msr>, Box<dyn Error>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = first.parse::<Msr>()?..=last.parse::<Msr>()?;
    if range.is_empty() {
        return Err(format!("{text}: the first register lies above the last").into());
    }
    Ok(range)
}

fn row(register: &MsrDescription) -> Row {
    let reset = register.reset;
    Row {
        msr: format!("{:#x}", register.msr.value()),
        name: register.msr.to_string(),
        owner: register.owner.name(),
        access: match register.mode {
            MsrMode::ReadOnly => "ro",
            MsrMode::ReadWrite => "rw",
        },
        reserved: format!("{:#x}", register.reserved),
        values: match &register.values {
            ValueRule::Any => "any".to_owned(),
            ValueRule::None => "none".to_owned(),
            ValueRule::Canonical(bits) => format!("canonical in {bits} bits"),
            ValueRule::SignUpTo(high) => format!("bits {high}:48 as bit 47"),
            ValueRule::LowHalf => "sign-extended from 32 bits".to_owned(),
            ValueRule::OneOf(values) => {
                let values: Vec<String> = values.iter().map(u64::to_string).collect();
                format!("one of {}", values.join(", "))
            }
            ValueRule::Keeping(bits) => format!("bits {bits:#x} as they are"),
        },
        reset: format!("{reset:#x}"),
        scope: match register.scope {
            MsrScope::Thread => "thread",
            MsrScope::Core => "core",
        },
        options: register.options.clone(),
    }
}

fn text(rows: &[Row]) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    writeln!(
        out,
        "{:<7} {:<30} {:<5} {:<6} {:<6} {:<18} {:<18} {:<27} changed by",
        "# msr", "name", "owner", "access", "scope", "reset", "reserved bits", "values"
    )?;
    for row in rows {
        let line = format!(
            "{:<7} {:<30} {:<5} {:<6} {:<6} {:<18} {:<18} {:<27} {}",
            row.msr,
            row.name,
            row.owner,
            row.access,
            row.scope,
            row.reset,
            row.reserved,
            row.values,
            row.options.join(",")
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(out)
}
