//! Reading what the programs print. `docs/calibrate.md` has the grammar.

use std::collections::BTreeSet;

use vlbr_arch::Msr;

use crate::error::{LineError, ParseError};
use crate::fields::{Fields, number};
use crate::run::{AREAS, Clock, Core, Kind, Origin, Program, Row, Run, Signature, Skip, Ticks};

/// Most rows of one run.
pub const MAX_ROWS: usize = 4096;

const HEADER: &str = "vlbr-calibrate";
const VERSION: &str = "1";
const SYNTHETIC: &str = "SYNTHETIC";

/// Reads every run of a text.
///
/// Lines outside runs are passed over: a serial console has the firmware's as well. All runs of a text
/// with a line that starts with `SYNTHETIC` are.
///
/// # Errors
/// The first line that is wrong, with the reason; a text without a run.
pub fn parse(text: &str) -> Result<Vec<Run>, ParseError> {
    // Editors put byte order marks before texts, and texts are put together. In a run the word starts
    // no line.
    let blank = |c: char| c.is_whitespace() || c == '\u{feff}';
    let marked = |line: &str| line.trim_start_matches(blank).starts_with(SYNTHETIC);
    let synthetic = text.lines().any(marked);
    let mut runs = Vec::new();
    let mut draft: Option<Draft> = None;
    let mut last = 0;
    for (number, line) in (1..).zip(text.lines()) {
        last = number;
        let at = |error| ParseError {
            line: number,
            error,
        };
        // A terminal ends lines with CR LF.
        let line = line.trim();
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        match (&mut draft, first) {
            (None, HEADER) => {
                let version = words.next().unwrap_or_default();
                if version != VERSION || words.next().is_some() {
                    return Err(at(LineError::Version(
                        line[HEADER.len()..].trim().to_owned(),
                    )));
                }
                draft = Some(Draft::new(number));
            }
            (None, _) | (Some(_), "") => {}
            (Some(open), "end") => {
                let mut fields = Fields::new(words).map_err(at)?;
                let stated = fields.number("lines", u64::MAX).map_err(at)?;
                fields.end().map_err(at)?;
                if stated != open.lines {
                    let found = open.lines;
                    return Err(at(LineError::Lines { stated, found }));
                }
                if let Some(whole) = draft.take() {
                    runs.push(whole.finish(synthetic).map_err(at)?);
                }
            }
            (Some(open), _) => {
                open.lines += 1;
                open.line(first, line).map_err(at)?;
            }
        }
    }
    let error = match draft {
        Some(open) => LineError::NoEnd(open.start),
        None if runs.is_empty() => LineError::NoHeader,
        None => return Ok(runs),
    };
    Err(ParseError {
        line: last + 1,
        error,
    })
}

/// A run that is not yet at its end.
struct Draft {
    start: usize,
    lines: u64,
    program: Option<Program>,
    signature: Option<Signature>,
    microcode: Option<u32>,
    system: Option<String>,
    hypervisor: Option<Origin>,
    tsc: Option<(u32, String)>,
    seen: BTreeSet<Kind>,
    rows: Vec<Row>,
    skips: Vec<Skip>,
}

impl Draft {
    fn new(start: usize) -> Self {
        Self {
            start,
            lines: 1,
            program: None,
            signature: None,
            microcode: None,
            system: None,
            hypervisor: None,
            tsc: None,
            seen: BTreeSet::new(),
            rows: Vec::new(),
            skips: Vec::new(),
        }
    }

    fn line(&mut self, first: &str, line: &str) -> Result<(), LineError> {
        // What these lines say is printed again, on terminals too.
        if let Some(control) = line.chars().find(|c| c.is_control() && *c != '\t') {
            return Err(LineError::Control(control));
        }
        let rest = line[first.len()..].trim_start();
        let mut words = rest.split_ascii_whitespace();
        match first {
            "program" => {
                let program = match rest {
                    "module" => Program::Module,
                    "image" => Program::Image,
                    _ => {
                        return Err(LineError::Choice {
                            field: "program",
                            value: rest.to_owned(),
                            known: "module, image",
                        });
                    }
                };
                once(&mut self.program, program, first)
            }
            "cpu" => once(&mut self.signature, signature(Fields::new(words)?)?, first),
            "microcode" => {
                let revision = number("microcode", rest, u32::MAX.into())?;
                let revision = u32::try_from(revision).unwrap_or(u32::MAX);
                once(&mut self.microcode, revision, first)
            }
            "system" => once(&mut self.system, word("system", rest)?, first),
            "hypervisor" => {
                let origin = match rest.strip_prefix("named ") {
                    Some(name) => Origin::Virtual(word("hypervisor", name.trim_start())?),
                    None if rest == "none" => Origin::Hardware,
                    None => {
                        return Err(LineError::Choice {
                            field: "hypervisor",
                            value: rest.to_owned(),
                            known: "none, named NAME",
                        });
                    }
                };
                once(&mut self.hypervisor, origin, first)
            }
            "tsc" => {
                let mut fields = Fields::new(words)?;
                let khz = fields.u32("khz")?;
                let from = fields.text("from")?.to_owned();
                fields.end()?;
                if khz == 0 {
                    return Err(LineError::Zero("khz"));
                }
                once(&mut self.tsc, (khz, from), first)
            }
            "row" => {
                let kind = words.next().unwrap_or_default();
                let row = row(kind, Fields::new(words)?)?;
                if !self.seen.insert(row.kind) {
                    return Err(LineError::Row(row.kind));
                }
                if self.rows.len() == MAX_ROWS {
                    return Err(LineError::TooMany(MAX_ROWS));
                }
                self.rows.push(row);
                Ok(())
            }
            "skip" => {
                let Some((what, reason)) = rest.split_once(" because ") else {
                    return Err(LineError::Missing("because"));
                };
                if self.skips.len() == MAX_ROWS {
                    return Err(LineError::TooMany(MAX_ROWS));
                }
                self.skips.push(Skip {
                    what: what.trim().to_owned(),
                    reason: reason.trim().to_owned(),
                });
                Ok(())
            }
            _ => Err(LineError::Word(first.to_owned())),
        }
    }

    fn finish(self, synthetic: bool) -> Result<Run, LineError> {
        let hypervisor = self.hypervisor.ok_or(LineError::Missing("hypervisor"))?;
        let (tsc_khz, tsc_from) = self.tsc.ok_or(LineError::Missing("tsc"))?;
        Ok(Run {
            program: self.program.ok_or(LineError::Missing("program"))?,
            signature: self.signature.ok_or(LineError::Missing("cpu"))?,
            microcode: self.microcode.ok_or(LineError::Missing("microcode"))?,
            system: self.system.ok_or(LineError::Missing("system"))?,
            origin: if synthetic {
                Origin::Synthetic
            } else {
                hypervisor
            },
            tsc_khz,
            tsc_from,
            rows: self.rows,
            skips: self.skips,
        })
    }
}

fn once<T>(slot: &mut Option<T>, value: T, name: &str) -> Result<(), LineError> {
    if slot.is_some() {
        return Err(LineError::Twice(name.to_owned()));
    }
    *slot = Some(value);
    Ok(())
}

fn word(field: &'static str, text: &str) -> Result<String, LineError> {
    match text.split_once(char::is_whitespace) {
        Some((_, more)) => Err(LineError::Field(more.to_owned())),
        None if text.is_empty() => Err(LineError::Missing(field)),
        None => Ok(text.to_owned()),
    }
}

fn signature(mut fields: Fields<'_>) -> Result<Signature, LineError> {
    let byte = |number: u64| u8::try_from(number).unwrap_or(u8::MAX);
    let signature = Signature {
        vendor: fields.text("vendor")?.to_owned(),
        family: u16::try_from(fields.number("family", 0x10e)?).unwrap_or(u16::MAX),
        model: byte(fields.number("model", 0xff)?),
        stepping: byte(fields.number("stepping", 0xf)?),
        core: match fields.text("core")? {
            "0" => Core::Only,
            "0x20" => Core::Atom,
            "0x40" => Core::Core,
            value => {
                return Err(LineError::Choice {
                    field: "core",
                    value: value.to_owned(),
                    known: "0, 0x20, 0x40",
                });
            }
        },
    };
    fields.end()?;
    Ok(signature)
}

fn row(kind: &str, mut fields: Fields<'_>) -> Result<Row, LineError> {
    let kind = match kind {
        "cpuid" => Kind::Cpuid(fields.u32("leaf")?),
        "rdmsr" => Kind::Rdmsr(Msr::new(fields.u32("msr")?)),
        "wrmsr" => Kind::Wrmsr(Msr::new(fields.u32("msr")?)),
        "rdpmc" => Kind::Rdpmc(fields.u32("index")?),
        "fault" => Kind::Fault,
        "xsaves" => Kind::Xsaves,
        "xrstors" => Kind::Xrstors,
        "vmread" => Kind::Vmread,
        "vmwrite" => Kind::Vmwrite,
        "round_trip" => {
            let reason = fields.number("reason", u16::MAX.into())?;
            Kind::RoundTrip(u16::try_from(reason).unwrap_or(u16::MAX))
        }
        "area" => {
            let list = fields.text("list")?;
            let area = AREAS.iter().find(|(_, name)| *name == list);
            let (area, _) = area.ok_or_else(|| LineError::Choice {
                field: "list",
                value: list.to_owned(),
                known: "entry-load, exit-store, exit-load",
            })?;
            Kind::Area(
                *area,
                Msr::new(fields.u32("msr")?),
                bounded(&mut fields, "entries")?,
            )
        }
        "fields" => Kind::Fields(bounded(&mut fields, "loads")?),
        _ => return Err(LineError::RowKind(kind.to_owned())),
    };
    let ticks = ticks(&mut fields)?;
    fields.end()?;
    Ok(Row { kind, ticks })
}

/// A number of area entries; the architecture recommends no more.
fn bounded(fields: &mut Fields<'_>, field: &'static str) -> Result<u32, LineError> {
    Ok(u32::try_from(fields.number(field, 4096)?).unwrap_or(u32::MAX))
}

fn ticks(fields: &mut Fields<'_>) -> Result<Ticks, LineError> {
    let unit = fields.text("unit")?;
    if unit != "tsc" {
        return Err(LineError::Choice {
            field: "unit",
            value: unit.to_owned(),
            known: "tsc",
        });
    }
    let mut ticks = Ticks {
        batch: fields.u32("batch")?,
        count: fields.u32("count")?,
        overhead: fields.u32("overhead")?,
        min: fields.u32("min")?,
        q1: fields.u32("q1")?,
        median: fields.u32("median")?,
        q3: fields.u32("q3")?,
        clock: None,
    };
    let aperf = fields.number("aperf", u64::MAX)?;
    let mperf = fields.number("mperf", u64::MAX)?;
    if ticks.batch == 0 {
        return Err(LineError::Zero("batch"));
    }
    if ticks.count == 0 {
        return Err(LineError::Zero("count"));
    }
    if !(ticks.min <= ticks.q1 && ticks.q1 <= ticks.median && ticks.median <= ticks.q3) {
        return Err(LineError::Order);
    }
    if ticks.median < ticks.overhead {
        return Err(LineError::BelowOverhead {
            median: ticks.median,
            overhead: ticks.overhead,
        });
    }
    if (aperf, mperf) != (0, 0) {
        let (core, ticked) = (u128::from(aperf), u128::from(mperf));
        if core > 16 * ticked || ticked > 16 * core {
            return Err(LineError::Ratio { aperf, mperf });
        }
        ticks.clock = Some(Clock { aperf, mperf });
    }
    Ok(ticks)
}
