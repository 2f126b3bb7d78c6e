//! Shares of edges and functions in two files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use vlbr_traces::symbols::places::Place;

use super::divergence::{self, Divergence};
use super::error::DiffError;
use super::input::{Input, Kind};
use super::union::Union;

/// Two files compared.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The first file.
    pub a: Side,
    /// The second file.
    pub b: Side,
    /// Sum over all edges of the smaller of the two shares: 1 for the same distribution.
    pub overlap: f64,
    /// Edges both have.
    pub common: Part,
    /// Edges only the first has.
    pub only_a: Part,
    /// Edges only the second has.
    pub only_b: Part,
    /// Where control flow or samples part first.
    pub divergence: Divergence,
    /// Functions a branch leaves, those with the largest shares first.
    pub functions: Vec<FunctionShare>,
    /// What the reader should know: files that could not be read, other builds.
    pub notes: Vec<String>,
}

/// A file that was compared.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// The file.
    pub file: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Taken branches that are compared.
    pub taken: u64,
    /// Different edges among them.
    pub edges: usize,
    /// Taken branches that are not compared: between user and kernel half, or outside of the
    /// binary that a pre-aggregated profile is about.
    pub left_out: u64,
    /// Samples, of a perf.data file.
    pub samples: Option<u64>,
}

/// Some of the edges.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Part {
    /// How many.
    pub edges: usize,
    /// Their share of the first file's taken branches.
    pub share_a: f64,
    /// Their share of the second file's.
    pub share_b: f64,
    /// Those with the biggest shares; of the common ones, with the biggest differences.
    pub top: Vec<EdgeShare>,
}

/// An edge.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EdgeShare {
    /// FROM.
    pub from: String,
    /// TO.
    pub to: String,
    /// Share in the first file.
    pub share_a: f64,
    /// Share in the second file.
    pub share_b: f64,
}

/// A function.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FunctionShare {
    /// Its name; of code without symbols the file in brackets.
    pub function: String,
    /// The file it is in.
    pub object: String,
    /// Share of the first file's taken branches that leave from it.
    pub share_a: f64,
    /// The same of the second file.
    pub share_b: f64,
    /// What it adds to the overlap.
    pub overlap: f64,
}

/// Edges by place in common numbers, in order.
type Sorted = BTreeMap<(Place, Place), u64>;

/// Compares two files. Lists are cut to `top` lines. `progress` is told the instructions of
/// traces read so far.
///
/// # Errors
/// A file cannot be read, is damaged or holds nothing that can be compared.
pub fn diff(
    a: &Path,
    b: &Path,
    top: usize,
    progress: &mut dyn FnMut(u64),
) -> Result<Comparison, DiffError> {
    let (mut a, mut b) = (Input::open(a)?, Input::open(b)?);
    let union = Union::new(&a, &b);
    let mut read = 0;
    let (side_a, edges_a) = measure(&mut a, 0, &union, &mut |done| {
        read = done;
        progress(done);
    })?;
    let (side_b, edges_b) = measure(&mut b, 1, &union, &mut |done| progress(read + done))?;
    let divergence = divergence::find(&mut a, &mut b, &union)?;
    let mut comparison = compare(&union, side_a, side_b, &edges_a, &edges_b, top);
    comparison.divergence = divergence;
    comparison.notes = union.notes;
    Ok(comparison)
}

/// The edges of a file that can be compared.
fn measure(
    input: &mut Input,
    index: usize,
    union: &Union,
    progress: &mut dyn FnMut(u64),
) -> Result<(Side, Sorted), DiffError> {
    let (all, crossing, samples) = input.edges(progress)?;
    let kind = input.kind();
    let (mut edges, mut left_out) = (Sorted::new(), crossing);
    for ((from, to), count) in all {
        let place = |place| union.place(index, place, kind == Kind::Preaggregated);
        if let (Some(from), Some(to)) = (place(from), place(to)) {
            let sum = edges.entry((from, to)).or_default();
            *sum = sum.saturating_add(count);
        } else {
            left_out = left_out.saturating_add(count);
        }
    }
    let side = Side {
        file: input.path.clone(),
        kind,
        taken: edges
            .values()
            .fold(0, |sum, &count| sum.saturating_add(count)),
        edges: edges.len(),
        left_out,
        samples,
    };
    Ok((side, edges))
}

/// An edge with its shares.
struct Shared {
    edge: (Place, Place),
    a: f64,
    b: f64,
}

fn compare(
    union: &Union,
    a: Side,
    b: Side,
    edges_a: &Sorted,
    edges_b: &Sorted,
    top: usize,
) -> Comparison {
    let share = |count: u64, total: u64| count as f64 / total.max(1) as f64;
    let (mut common, mut only_a, mut only_b) = (Vec::new(), Vec::new(), Vec::new());
    for (&edge, &count) in edges_a {
        let other = edges_b.get(&edge).copied();
        let shared = Shared {
            edge,
            a: share(count, a.taken),
            b: share(other.unwrap_or(0), b.taken),
        };
        match other {
            Some(_) => common.push(shared),
            None => only_a.push(shared),
        }
    }
    for (&edge, &count) in edges_b {
        if !edges_a.contains_key(&edge) {
            only_b.push(Shared {
                edge,
                a: 0.0,
                b: share(count, b.taken),
            });
        }
    }
    let all = common.iter().chain(&only_a).chain(&only_b);
    let functions = functions(union, all, top);
    let overlap = overlap(edges_a, edges_b, a.taken, b.taken);
    Comparison {
        a,
        b,
        overlap,
        common: part(union, common, top, |shared| (shared.a - shared.b).abs()),
        only_a: part(union, only_a, top, |shared| shared.a),
        only_b: part(union, only_b, top, |shared| shared.b),
        divergence: Divergence::default(),
        functions,
        notes: Vec::new(),
    }
}

/// The sum of the smaller shares, in integers so that equal profiles give exactly 1.
fn overlap(a: &Sorted, b: &Sorted, total_a: u64, total_b: u64) -> f64 {
    if total_a == 0 || total_b == 0 {
        // Nothing and nothing are the same.
        return if total_a == total_b { 1.0 } else { 0.0 };
    }
    let (total_a, total_b) = (u128::from(total_a), u128::from(total_b));
    let common = a.iter().filter_map(|(edge, &count)| {
        let other = u128::from(*b.get(edge)?);
        Some((u128::from(count) * total_b).min(other * total_a))
    });
    // Each side's counts sum to its total, so this fits.
    let common = common.fold(0_u128, u128::saturating_add);
    common as f64 / (total_a * total_b) as f64
}

/// The sums of some edges, and those that weigh most.
fn part(
    union: &Union,
    mut edges: Vec<Shared>,
    top: usize,
    weight: impl Fn(&Shared) -> f64,
) -> Part {
    let (share_a, share_b) = edges
        .iter()
        .fold((0.0, 0.0), |(a, b), shared| (a + shared.a, b + shared.b));
    let count = edges.len();
    edges.retain(|shared| weight(shared) > 0.0);
    // Stable: edges of equal weight stay in the order of their places.
    edges.sort_by(|x, y| weight(y).total_cmp(&weight(x)));
    edges.truncate(top);
    let shown = edges.iter().map(|shared| EdgeShare {
        from: union.describe(shared.edge.0),
        to: union.describe(shared.edge.1),
        share_a: shared.a,
        share_b: shared.b,
    });
    Part {
        edges: count,
        share_a,
        share_b,
        top: shown.collect(),
    }
}

fn functions<'s>(
    union: &Union,
    edges: impl Iterator<Item = &'s Shared>,
    top: usize,
) -> Vec<FunctionShare> {
    let mut sums: BTreeMap<(String, String), (f64, f64, f64)> = BTreeMap::new();
    for shared in edges {
        let from = shared.edge.0;
        let key = (union.function(from), union.object(from).to_owned());
        let (a, b, overlap) = sums.entry(key).or_default();
        *a += shared.a;
        *b += shared.b;
        *overlap += shared.a.min(shared.b);
    }
    let shares = sums
        .into_iter()
        .map(|((function, object), sum)| FunctionShare {
            function,
            object,
            share_a: sum.0,
            share_b: sum.1,
            overlap: sum.2,
        });
    let mut functions: Vec<FunctionShare> = shares.collect();
    let weight = |function: &FunctionShare| function.share_a.max(function.share_b);
    functions.sort_by(|x, y| weight(y).total_cmp(&weight(x)));
    functions.truncate(top);
    functions
}
