//! How far a generated trace is from the recorded one that it was fitted to.

use serde::Serialize;
use vlbr_cpu::ExitInstruction;

use super::measure::{Measured, Ring};
use super::sites::Site;

/// What a row's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Hundredths of a whole; the difference is that of the two.
    Percent,
    /// Occurrences per million instructions.
    PerMillion,
    /// An average, such as instructions per branch.
    Average,
}

/// A parameter in the input and the output.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What was measured.
    pub parameter: String,
    /// What the numbers are.
    pub unit: Unit,
    /// Of the recorded trace.
    pub input: f64,
    /// Of the generated one.
    pub output: f64,
    /// Output less input; of averages and rates in hundredths of the input.
    pub difference: f64,
}

/// Sites that go one way this often, or more, are strongly biased.
const STRONG: f64 = 0.98;

impl Ring {
    fn share(&self, count: u64) -> f64 {
        ratio(count, self.branches)
    }

    fn conditionals(&self) -> impl Iterator<Item = &Site> {
        self.sites.iter().filter(|site| site.conditional)
    }

    /// Executions of conditional branches that go backward.
    pub(super) fn looping(&self) -> u64 {
        let backward = self.conditionals().filter(|site| site.backward);
        backward.map(|site| site.executions).sum()
    }

    /// Executions and taken ones of conditional branches that go forward or backward.
    fn taken(&self, backward: bool) -> (u64, u64) {
        let sites = self.conditionals().filter(|site| site.backward == backward);
        sites.fold((0, 0), |(all, taken), site| {
            (all + site.executions, taken + site.taken)
        })
    }

    /// Executions of forward branches at strongly biased sites.
    fn strong(&self) -> u64 {
        let strong = |site: &&Site| {
            let taken = ratio(site.taken, site.executions);
            !site.backward && !(1.0 - STRONG..STRONG).contains(&taken)
        };
        self.conditionals()
            .filter(strong)
            .map(|site| site.executions)
            .sum()
    }

    /// Average targets of an indirect branch, sites weighed by executions.
    fn targets(&self, call: bool) -> f64 {
        let sites = self
            .sites
            .iter()
            .filter(|site| site.targets > 0 && site.call == call);
        let (mut all, mut sum) = (0, 0.0);
        for site in sites {
            all += site.executions;
            sum += site.executions as f64 * f64::from(site.targets);
        }
        if all == 0 { 0.0 } else { sum / all as f64 }
    }

    /// Average depth that calls lead to.
    fn depth(&self) -> f64 {
        let all: u64 = self.depths.iter().sum();
        let sum: u64 = (0..)
            .zip(&self.depths)
            .map(|(depth, calls)| depth * calls)
            .sum();
        ratio(sum, all)
    }

    /// The depth that this part of the calls does not exceed, with a fraction of the last step.
    fn depth_of(&self, part: f64) -> f64 {
        let all: u64 = self.depths.iter().sum();
        let mut left = part * all as f64;
        for (depth, &calls) in self.depths.iter().enumerate() {
            if calls as f64 >= left && calls > 0 {
                return depth as f64 - 1.0 + left / calls as f64;
            }
            left -= calls as f64;
        }
        0.0
    }

    /// Average number of frames of a recursion.
    pub(super) fn recursion_depth(&self) -> f64 {
        ratio(self.recursive + self.recursions, self.recursions)
    }
}

pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 / whole as f64
}

/// Something counted of a ring.
type Count = fn(&Ring) -> u64;

struct Table<'a> {
    input: &'a Measured,
    output: &'a Measured,
    rows: Vec<Row>,
}

impl Table<'_> {
    fn add(&mut self, parameter: String, unit: Unit, of: impl Fn(&Measured) -> f64) {
        let (input, output) = (of(self.input), of(self.output));
        let difference = match unit {
            Unit::Percent => output - input,
            _ if input == 0.0 && output == 0.0 => 0.0,
            _ if input == 0.0 => 100.0,
            _ => 100.0 * (output - input) / input,
        };
        self.rows.push(Row {
            parameter,
            unit,
            input,
            output,
            difference,
        });
    }

    fn per_million(&mut self, parameter: String, of: impl Fn(&Measured) -> u64) {
        self.add(parameter, Unit::PerMillion, |measured| {
            1e6 * ratio(of(measured), measured.instructions)
        });
    }

    fn ring(&mut self, name: &str, of: impl Fn(&Measured) -> &Ring) {
        let percent = 100.0;
        self.add(
            format!("{name}: instructions per branch"),
            Unit::Average,
            |m| ratio(of(m).instructions, of(m).branches),
        );
        let classes: [(&str, Count); 7] = [
            ("conditional", |r| r.conditional),
            ("jump", |r| r.jump),
            ("indirect jump", |r| r.indirect_jump),
            ("call", |r| r.call),
            ("indirect call", |r| r.indirect_call),
            ("call to the next instruction", |r| r.zero_call),
            ("return", |r| r.returns),
        ];
        for (class, count) in classes {
            self.add(format!("{name}: branches, {class}"), Unit::Percent, |m| {
                percent * of(m).share(count(of(m)))
            });
        }
        self.add(format!("{name}: conditionals, taken"), Unit::Percent, |m| {
            let (forward, backward) = (of(m).taken(false), of(m).taken(true));
            percent * ratio(forward.1 + backward.1, forward.0 + backward.0)
        });
        self.add(
            format!("{name}: conditionals, backward"),
            Unit::Percent,
            |m| percent * ratio(of(m).looping(), of(m).conditional),
        );
        self.add(format!("{name}: backward, taken"), Unit::Percent, |m| {
            let (all, taken) = of(m).taken(true);
            percent * ratio(taken, all)
        });
        self.add(format!("{name}: forward, taken"), Unit::Percent, |m| {
            let (all, taken) = of(m).taken(false);
            percent * ratio(taken, all)
        });
        self.add(
            format!("{name}: forward, at strongly biased sites"),
            Unit::Percent,
            |m| percent * ratio(of(m).strong(), of(m).taken(false).0),
        );
        for (what, call) in [("jump", false), ("call", true)] {
            self.add(
                format!("{name}: targets of an indirect {what}"),
                Unit::Average,
                |m| of(m).targets(call),
            );
        }
        self.add(format!("{name}: call depth, average"), Unit::Average, |m| {
            of(m).depth()
        });
        for (words, part) in [("half", 0.5), ("9 in 10", 0.9)] {
            self.add(
                format!("{name}: call depth of {words}"),
                Unit::Average,
                |m| of(m).depth_of(part),
            );
        }
        self.add(
            format!("{name}: calls, to the function itself"),
            Unit::Percent,
            |m| percent * ratio(of(m).recursive, of(m).call + of(m).indirect_call),
        );
        self.add(
            format!("{name}: frames of a recursion"),
            Unit::Average,
            |m| of(m).recursion_depth(),
        );
    }
}

/// The parameters of `input`, a recorded trace, beside those of `output`, which was generated from
/// its fit. Rings that `input` has no code of are left out.
#[must_use]
pub fn compare(input: &Measured, output: &Measured) -> Vec<Row> {
    let mut table = Table {
        input,
        output,
        rows: Vec::new(),
    };
    table.add("instructions at CPL 0".into(), Unit::Percent, |m| {
        100.0 * ratio(m.kernel.instructions, m.instructions)
    });
    table.per_million("system calls".into(), |m| m.syscalls);
    table.per_million("interrupts".into(), |m| m.interrupts);
    table.per_million("exceptions".into(), |m| m.exceptions);
    table.per_million("other far transfers".into(), |m| m.other_far);
    let mut kinds: Vec<ExitInstruction> = Vec::new();
    for measured in [input, output] {
        kinds.extend(measured.exits.keys().map(|(kind, _)| *kind));
    }
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        table.per_million(format!("exits, {}", kind.name()), |m| {
            [false, true]
                .iter()
                .filter_map(|&ring| m.exits.get(&(kind, ring)))
                .sum()
        });
    }
    if input.user.branches > 0 {
        table.ring("user", |m| &m.user);
    }
    if input.kernel.branches > 0 {
        table.ring("kernel", |m| &m.kernel);
    }
    table.rows
}
