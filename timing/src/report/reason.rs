//! Where each bound's number comes from, in a sentence.

use super::values;
use crate::bound::{Delay, Delivery, Examined, Part, Uncached};
use crate::lower::Facts;
use crate::microarchitecture::{Microarchitecture, Parameters};

/// Instructions that a sentence names.
const NAMED: usize = 4;

/// Why `part` takes as long as it does.
pub(super) fn reason(
    part: Part,
    examined: &Examined<'_>,
    texts: &[String],
    core: &Microarchitecture,
) -> String {
    let parameters = &core.parameters;
    match part {
        Part::Predecode => predecode(examined, texts, parameters),
        Part::Decode => {
            uncached(examined, texts, parameters) + &decode(examined, texts, parameters)
        }
        Part::UopCache => uop_cache(examined, parameters),
        Part::Branches => "one taken branch a cycle".to_owned(),
        Part::Issue => issue(examined, texts, parameters),
        Part::Ports => ports(examined, texts),
        Part::Divider => {
            let [integer, float] = examined.lowered.dividers;
            let slower = usize::from(float > integer);
            let dividing = those(examined, |f| f.dividers[slower] > 0.0);
            format!("the divider is not pipelined: {}", list(&dividing, texts))
        }
        Part::Stores => {
            let stores = examined.lowered.stores;
            let mut text = format!(
                "{stores} store{} leave{} the store buffer, {} a cycle",
                plural(stores),
                if stores == 1 { "s" } else { "" },
                parameters.commit
            );
            if examined.lowered.new_pages > 0.0 {
                text += &format!(
                    "; an iteration is the first to store to {:.2} pages, {} cycles each",
                    examined.lowered.new_pages, parameters.page
                );
            }
            text
        }
        Part::Dependence => dependence(examined, texts),
        Part::Serial => {
            let serial = those(examined, |f| f.floor > 0.0);
            let mut text = format!("nothing passes {}", list(&serial, texts));
            let whole = examined.bound.of(Part::Serial);
            if let Some((_, own)) = examined.lowered.serial
                && whole > examined.lowered.floor
            {
                text += &format!(": {own:.2} cycles, and {:.2} for the rest", whole - own);
            }
            text
        }
    }
}

/// The instructions of which that holds.
fn those(examined: &Examined<'_>, holds: impl Fn(&Facts) -> bool) -> Vec<usize> {
    let numbers = 0..examined.facts.len();
    numbers.filter(|&at| holds(&examined.facts[at])).collect()
}

fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn uops_text(count: u32) -> String {
    format!("{count} uop{}", plural(count))
}

/// The texts of some instructions, the first ones.
fn list(numbers: &[usize], texts: &[String]) -> String {
    let named: Vec<&str> = numbers
        .iter()
        .take(NAMED)
        .filter_map(|&at| texts.get(at).map(String::as_str))
        .collect();
    let mut text = named.join("; ");
    if numbers.len() > NAMED {
        text += &format!("; and {} more", numbers.len() - NAMED);
    }
    text
}

fn uop_cache(examined: &Examined<'_>, parameters: &Parameters) -> String {
    let layout = &examined.lowered.layout;
    let uops: u32 = layout.iter().map(|l| u32::from(l.decoded)).sum();
    match examined.delivery {
        Some(Delivery::Queue { copies, .. }) => format!(
            "{} in the loop queue, which holds {copies} cop{} and gives {} a cycle",
            uops_text(uops),
            if copies == 1 { "y" } else { "ies" },
            parameters.issue
        ),
        _ => format!(
            "{} from the uop cache, {} a cycle{}",
            uops_text(uops),
            parameters.uop_cache,
            match layout.last() {
                Some(last) if last.branch => ", none behind the taken branch in its cycle",
                _ => "",
            }
        ),
    }
}

/// Why the decoders work for a loop.
fn uncached(examined: &Examined<'_>, texts: &[String], parameters: &Parameters) -> String {
    match examined.delivery {
        Some(Delivery::Decoders(Uncached::Lines { window, lines })) => format!(
            "the uop cache does not hold the loop (the window at byte {window} needs {lines} lines, {} \
             are there); ",
            parameters.uop_cache_lines
        ),
        Some(Delivery::Decoders(Uncached::Branch(at))) => format!(
            "the uop cache does not hold the loop ({} touches a boundary of 32 bytes: JCC erratum); ",
            list(&[at], texts)
        ),
        _ => String::new(),
    }
}

fn predecode(examined: &Examined<'_>, texts: &[String], parameters: &Parameters) -> String {
    let windows = &examined.windows;
    let bytes = examined.lowered.bytes;
    let iterations = (windows.len() as u32 * parameters.fetch / bytes.max(1)).max(1);
    let cycles: u32 = windows.iter().map(|w| w.cycles).sum();
    let slow = windows.iter().filter(|w| w.cycles > 1).count();
    let mut text = format!(
        "{iterations} iteration{} in {} window{} of {} bytes: {cycles} cycle{}",
        plural(iterations),
        windows.len(),
        plural(windows.len() as u32),
        parameters.fetch,
        plural(cycles)
    );
    let Some(worst) = windows.iter().rev().max_by_key(|w| w.cycles) else {
        return text;
    };
    if slow == 0 {
        return text;
    }
    text += &format!(
        "; {slow} take{} more than one, most the window at byte {}: {} instructions end in it or have \
         their opcode there, {} are taken a cycle",
        if slow == 1 { "s" } else { "" },
        worst.start,
        worst.count,
        parameters.predecode
    );
    if worst.prefixes > 0 {
        let changed: Vec<usize> = (0..examined.lowered.layout.len())
            .filter(|&at| examined.lowered.layout[at].length_changing)
            .collect();
        text += &format!(
            ", and a length-changing prefix stalls {} cycles: {}",
            parameters.lcp,
            list(&changed, texts)
        );
    }
    text
}

fn decode(examined: &Examined<'_>, texts: &[String], parameters: &Parameters) -> String {
    let delayed = |kind: fn(&Delay) -> bool| -> Vec<usize> {
        let mut numbers: Vec<usize> = examined
            .delays
            .iter()
            .filter(|(_, delay)| kind(delay))
            .map(|(at, _)| *at)
            .collect();
        numbers.dedup();
        numbers
    };
    let mut parts = Vec::new();
    let microcode = delayed(|d| matches!(d, Delay::Sequencer(_)));
    if !microcode.is_empty() {
        parts.push(format!(
            "the microcode sequencer delivers {}",
            list(&microcode, texts)
        ));
    }
    let complex: Vec<usize> = (0..examined.lowered.layout.len())
        .filter(|at| examined.lowered.layout[*at].complex && !microcode.contains(at))
        .collect();
    if !complex.is_empty() {
        parts.push(format!(
            "the first decoder alone takes {}",
            list(&complex, texts)
        ));
    }
    let fusible = delayed(|d| *d == Delay::Fusible);
    if !fusible.is_empty() {
        parts.push(format!(
            "the last decoder leaves what may fuse with a branch: {}",
            list(&fusible, texts)
        ));
    }
    if parts.is_empty() {
        let decoded = examined.lowered.layout.iter().filter(|l| l.decoded > 0);
        let count = decoded.count() as u32;
        parts.push(format!(
            "{count} instruction{}, {} decoders",
            plural(count),
            parameters.decoders
        ));
    }
    parts.join("; ")
}

fn issue(examined: &Examined<'_>, texts: &[String], parameters: &Parameters) -> String {
    let lowered = examined.lowered;
    let mut text = format!(
        "{} renamed, {} a cycle",
        uops_text(lowered.issued),
        parameters.issue
    );
    if lowered.synchronizing > 0 {
        let own = those(examined, |f| f.synchronizing > 0);
        text += &format!(
            "; {} of them to bring RSP up to date for {}",
            lowered.synchronizing,
            list(&own, texts)
        );
    }
    if lowered.merges > 0 {
        let own = those(examined, |f| f.merges > 0);
        text += &format!(
            "; a cycle each to join a high byte for {}",
            list(&own, texts)
        );
    }
    text
}

fn ports(examined: &Examined<'_>, texts: &[String]) -> String {
    let group = examined.worst_ports;
    let inside = |facts: &Facts| -> u32 {
        let own = facts.uops.iter().filter(|(set, _)| set.within(group));
        own.map(|(_, count)| count).sum()
    };
    let total: u32 = examined.facts.iter().map(inside).sum();
    let mut own: Vec<(u32, usize)> = (0..examined.facts.len())
        .map(|at| (inside(&examined.facts[at]), at))
        .filter(|(count, _)| *count > 0)
        .collect();
    // Those with most micro-operations first.
    own.sort_by_key(|&(count, at)| (std::cmp::Reverse(count), at));
    let own: Vec<usize> = own.into_iter().map(|(_, at)| at).collect();
    let one = group.len() == 1;
    format!(
        "{} for port{} {group} alone: {}",
        uops_text(total),
        if one { "" } else { "s" },
        list(&own, texts)
    )
}

fn dependence(examined: &Examined<'_>, texts: &[String]) -> String {
    let steps = &examined.slowest;
    let sum: f32 = steps.iter().map(|step| step.latency).sum();
    let iterations = steps.iter().filter(|step| step.carried).count();
    let mut numbers: Vec<usize> = Vec::new();
    for step in steps {
        let owner = |facts: &Facts| facts.nodes.contains(&step.node);
        if let Some(at) = examined.facts.iter().position(owner)
            && numbers.last() != Some(&at)
        {
            numbers.push(at);
        }
    }
    let over = match iterations {
        0 | 1 => "the iteration before".to_owned(),
        _ => format!("{iterations} iterations before"),
    };
    let what = steps
        .first()
        .map_or_else(|| "a value".to_owned(), |step| values::name(step.input));
    format!(
        "{what} of {over} comes after {sum} cycles: {}",
        list(&numbers, texts)
    )
}
