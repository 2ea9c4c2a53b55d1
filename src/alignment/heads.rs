//! Which heads of a suspect's attention are which of the reference, and how the rows within them were mixed.
//!
//! Values and outputs of a head may be mixed by any invertible map and its inverse, queries and keys likewise; where rotary
//! embeddings turn pairs of rows (Su et al. 2021), only by what commutes with them, a rotation and a factor for each pair. What
//! the rows of a head span stays, and tells heads. The simplest mixing that explains the suspect is undone.

use super::basis::pair;
use super::family::{Role, scale_columns};
use super::fit::{column_factors, drop_noisy, energy, row_factor};
use super::map::Rows;
use super::neurons::{ROUNDS, Weights, combined, reciprocal};
use crate::linear::{Matrix, inverse, orthonormalise};

/// Rows of each head of the reference that are held against what heads of the suspect span.
const SAMPLES: usize = 8;
/// Least share of a head's energy in what another spans.
const LIKE: f32 = 0.4;
/// The same where the size of heads is sought: half of a head spans half of its energy.
const TELLING: f32 = 0.65;
/// A mixing is not worth its parameters unless it leaves so much less.
const BETTER: f64 = 0.8;

/// What was found of the heads of one layer.
pub(super) struct Attention {
    /// Heads of queries found, or of keys and values if there are only those.
    pub(super) found: usize,
    pub(super) of: usize,
    pub(super) maps: Vec<(Rows, Option<Vec<f32>>)>,
    /// Whether heads stand in another order, and the names of the mixings.
    pub(super) is_permuted: bool,
    pub(super) mixings: Vec<Mixing>,
}

/// How the rows of a head were mixed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mixing {
    /// Each row scaled at most.
    Scaled,
    /// Rows permuted within the head, and scaled.
    Permuted,
    /// Pairs of rows turned and scaled; whether pairs are neighbours, in the reference and in the suspect.
    Turned([bool; 2]),
    /// Any invertible map.
    Any,
}

/// The size of heads, of several that it may be: the smallest under which what heads span is found again.
pub(super) fn size(weights: &[Weights], sizes: &[usize]) -> Option<usize> {
    let [_, _, ..] = sizes else { return sizes.first().copied() };
    let found = |size: usize| -> usize {
        let found = assignment(weights, |role| matches!(role, Role::Value | Role::Key), size, None, TELLING);
        found.map_or(0, |heads| heads.iter().flatten().count() * size)
    };
    let counts: Vec<(usize, usize)> = sizes.iter().map(|size| (*size, found(*size))).collect();
    let most = counts.iter().map(|(_, found)| *found).max()?;
    counts.into_iter().find(|(_, found)| *found as f64 >= 0.9 * most as f64).map(|(size, _)| size)
}

/// Puts the heads of a layer in order; `size` rows are a head.
pub(super) fn align(mut weights: Vec<Weights>, size: usize) -> Attention {
    for Weights { ours, gain, .. } in &mut weights {
        if let Some(gain) = gain {
            scale_columns(ours, gain);
        }
    }
    let shared = assignment(&weights, |role| matches!(role, Role::Key | Role::Value), size, None, LIKE);
    let groups = shared.as_ref().map(|shared| Groups {
        shared,
        queries: heads_of(&weights, Role::Query, Role::Output, size),
        keys: heads_of(&weights, Role::Key, Role::Value, size),
    });
    let own = assignment(&weights, |role| matches!(role, Role::Query | Role::Output), size, groups, LIKE);
    let mut out = Attention { found: 0, of: 0, maps: Vec::new(), is_permuted: false, mixings: Vec::new() };
    for found in [&own, &shared].into_iter().flatten() {
        if out.of == 0 {
            (out.found, out.of) = (found.iter().flatten().count(), found.len());
        }
        out.is_permuted |= found.iter().enumerate().any(|(g, h)| h.is_some_and(|h| h != g));
    }
    for Weights { role, ours, theirs, gain } in &mut weights {
        let found = if matches!(role, Role::Query | Role::Output) { &own } else { &shared };
        let Some(found) = found else {
            out.maps.push((vec![Vec::new(); ours.rows], None));
            continue;
        };
        let mut factors: Option<Vec<f32>> = None;
        let mut mixed = mixing(*role, ours, theirs, found, size);
        for _ in 0..ROUNDS {
            let Some(more) = column_factors(theirs, &mixed.expected) else { break };
            scale_columns(theirs, &more);
            factors = Some(factors.map_or(more.clone(), |old| old.iter().zip(&more).map(|(a, b)| a * b).collect()));
            mixed = mixing(*role, ours, theirs, found, size);
        }
        out.mixings.push(mixed.mixing);
        let mut columns = combined(factors, gain.as_deref());
        if let (Some(factors), true) = (&mut columns, gain.is_some()) {
            drop_noisy(factors, theirs, &mixed.expected);
        }
        out.maps.push((mixed.rows, columns));
    }
    out
}

/// Which keys and values the queries look at.
struct Groups<'a> {
    shared: &'a [Option<usize>],
    queries: (usize, usize),
    keys: (usize, usize),
}

/// Heads of the reference and of the suspect, by the matrix of either role.
fn heads_of(weights: &[Weights], role: Role, other: Role, size: usize) -> (usize, usize) {
    let found = weights.iter().find(|w| w.role == role || w.role == other);
    found.map_or((0, 0), |w| (w.ours.rows / size, w.theirs.rows / size))
}

impl Groups<'_> {
    /// Whether query head `g` of the reference may be `h` of the suspect.
    fn allows(&self, g: usize, h: usize) -> bool {
        let group = |head: usize, queries: usize, keys: usize| head * keys / queries.max(1);
        if self.keys.0 == 0 || self.keys.1 == 0 || !self.queries.0.is_multiple_of(self.keys.0) {
            return true;
        }
        let ours = group(g, self.queries.0, self.keys.0);
        self.shared.get(ours).copied().flatten() == Some(group(h, self.queries.1, self.keys.1))
    }
}

/// For each head of the reference that of the suspect which spans the same, by all matrices of these roles.
fn assignment(
    weights: &[Weights],
    is_wanted: impl Fn(Role) -> bool,
    size: usize,
    groups: Option<Groups<'_>>,
    least: f32,
) -> Option<Vec<Option<usize>>> {
    let wanted: Vec<&Weights> = weights.iter().filter(|weights| is_wanted(weights.role)).collect();
    let (ours, theirs) = wanted.first().map(|w| (w.ours.rows / size, w.theirs.rows / size))?;
    let mut likeness = Matrix::zeros(theirs, ours);
    let mut count = 0.0;
    for weights in wanted.iter().filter(|w| w.ours.rows == ours * size && w.theirs.rows == theirs * size) {
        let mut span = weights.theirs.clone();
        orthonormalise(&mut span, size);
        let samples = SAMPLES.min(size);
        let mut rows = Matrix::zeros(ours * samples, weights.ours.columns);
        for r in 0..rows.rows {
            let place = r / samples * size + (2 * (r % samples) + 1) * size / (2 * samples);
            rows.row_mut(r).copy_from_slice(weights.ours.row(place));
        }
        let along = rows.times_transposed(&span);
        for r in 0..rows.rows {
            let whole = energy(rows.row(r)).max(f64::MIN_POSITIVE);
            for (h, head) in along.row(r).chunks_exact(size).enumerate() {
                likeness.row_mut(h)[r / samples] += (energy(head) / whole) as f32 / samples as f32;
            }
        }
        count += 1.0;
    }
    for h in 0..theirs {
        for g in 0..ours {
            let value = &mut likeness.row_mut(h)[g];
            let is_allowed = groups.as_ref().is_none_or(|groups| groups.allows(g, h));
            *value = if is_allowed && *value >= least * count { *value } else { 0.0 };
        }
    }
    Some(pair(&likeness).into_iter().map(|found| found.map(|(h, _)| h)).collect())
}

/// One way to undo the mixing of all heads.
struct Mixed {
    mixing: Mixing,
    rows: Rows,
    /// What the suspect should be, were this all.
    expected: Matrix,
    /// Energy that it leaves unexplained, for each degree of freedom that it leaves.
    left: f64,
}

/// The simplest mixing that explains a matrix.
fn mixing(role: Role, ours: &Matrix, theirs: &Matrix, found: &[Option<usize>], size: usize) -> Mixed {
    let mut ways = vec![Mixing::Scaled, Mixing::Permuted];
    if matches!(role, Role::Query | Role::Key) && size.is_multiple_of(2) {
        ways.extend([[false, false], [true, true], [false, true], [true, false]].map(Mixing::Turned));
    }
    ways.push(Mixing::Any);
    let mut best: Option<Mixed> = None;
    for way in ways {
        let mixed = undo(way, ours, theirs, found, size);
        if best.as_ref().is_none_or(|best| mixed.left < BETTER * best.left) {
            best = Some(mixed);
        }
    }
    best.unwrap_or_else(|| undo(Mixing::Scaled, ours, theirs, found, size))
}

fn undo(mixing: Mixing, ours: &Matrix, theirs: &Matrix, found: &[Option<usize>], size: usize) -> Mixed {
    let mut rows: Rows = vec![Vec::new(); ours.rows];
    let mut expected = Matrix::zeros(theirs.rows, theirs.columns);
    for (g, h) in found.iter().enumerate() {
        let Some(h) = h else { continue };
        let head = |matrix: &Matrix, head: usize| {
            let values = matrix.values[head * size * matrix.columns..(head + 1) * size * matrix.columns].to_vec();
            Matrix { rows: size, columns: matrix.columns, values }
        };
        let (w, x) = (head(ours, g), head(theirs, *h));
        let forward = match mixing {
            Mixing::Scaled => scaled(&w, &x, &(0..size).map(Some).collect::<Vec<_>>()),
            Mixing::Permuted => {
                let (mut a, mut b) = (w.clone(), x.clone());
                super::assign::normalise(&mut a);
                super::assign::normalise(&mut b);
                let partners = pair(&a.times_transposed(&b));
                scaled(&w, &x, &partners.iter().map(|found| found.map(|(i, _)| i)).collect::<Vec<_>>())
            }
            Mixing::Turned(neighbours) => turned(&w, &x, neighbours),
            Mixing::Any => any(&w, &x),
        };
        let Some((forward, backward)) = forward else { continue };
        for (i, row) in backward.iter().enumerate() {
            rows[g * size + i] = row.iter().map(|(r, factor)| (h * size + r, *factor)).collect();
        }
        for (i, row) in forward.iter().enumerate() {
            let to = expected.row_mut(h * size + i);
            for (r, factor) in row {
                to.iter_mut().zip(w.row(*r)).for_each(|(to, from)| *to += factor * from);
            }
        }
    }
    let residual: f64 = theirs
        .values
        .iter()
        .zip(&expected.values)
        .filter(|(x, _)| **x != 0.0)
        .map(|(x, e)| f64::from(x - e).powi(2))
        .sum();
    let parameters = match mixing {
        Mixing::Scaled | Mixing::Permuted => 1,
        Mixing::Turned(_) => 2,
        Mixing::Any => size,
    };
    let freedom = 1.0 - parameters as f64 / ours.columns.max(parameters + 1) as f64;
    Mixed { mixing, rows, expected, left: residual / freedom }
}

/// What makes the suspect's rows of a head out of the reference's, and the other way round.
type Both = Option<(Rows, Rows)>;

/// Row `partners[i]` of the reference is row `i` of the suspect, up to a factor.
fn scaled(w: &Matrix, x: &Matrix, partners: &[Option<usize>]) -> Both {
    let (mut forward, mut backward) = (vec![Vec::new(); x.rows], vec![Vec::new(); w.rows]);
    for (i, partner) in partners.iter().enumerate() {
        let Some(partner) = *partner else { continue };
        let factor = row_factor(x.row(i), w.row(partner));
        forward[i] = vec![(partner, factor)];
        backward[partner] = vec![(i, reciprocal(factor))];
    }
    Some((forward, backward))
}

/// The two rows that a rotary embedding turns together.
fn couple(p: usize, size: usize, neighbours: bool) -> [usize; 2] {
    if neighbours { [2 * p, 2 * p + 1] } else { [p, p + size / 2] }
}

/// Each pair of rows, as complex numbers, times one complex number.
fn turned(w: &Matrix, x: &Matrix, neighbours: [bool; 2]) -> Both {
    let size = w.rows;
    let (mut forward, mut backward) = (vec![Vec::new(); size], vec![Vec::new(); size]);
    for p in 0..size / 2 {
        let ([a, b], [c, d]) = (couple(p, size, neighbours[0]), couple(p, size, neighbours[1]));
        let (mut re, mut im, mut norm, mut total) = (0.0, 0.0, 0.0, 0.0);
        for i in 0..w.columns {
            let [w1, w2, x1, x2] = [w.row(a)[i], w.row(b)[i], x.row(c)[i], x.row(d)[i]].map(f64::from);
            re += x1 * w1 + x2 * w2;
            im += x2 * w1 - x1 * w2;
            norm += w1 * w1 + w2 * w2;
            total += x1 * x1 + x2 * x2;
        }
        if norm <= 0.0 {
            continue;
        }
        let (mut re, mut im) = (re / norm, im / norm);
        let residual = (total - (re * re + im * im) * norm).max(0.0);
        let error = (residual / norm / (2 * w.columns) as f64).sqrt();
        if (re - 1.0).hypot(im) <= 6.0 * error + 1e-4 {
            (re, im) = (1.0, 0.0); // a plain copy of the rows
        }
        let size = re * re + im * im;
        let (re_back, im_back) = if size > 1e-12 { (re / size, im / size) } else { (0.0, 0.0) };
        let [re, im, re_back, im_back] = [re, im, re_back, im_back].map(|x| x as f32);
        let full = |row: Vec<(usize, f32)>| row.into_iter().filter(|(_, factor)| *factor != 0.0).collect::<Vec<_>>();
        forward[c] = full(vec![(a, re), (b, -im)]);
        forward[d] = full(vec![(a, im), (b, re)]);
        backward[a] = full(vec![(c, re_back), (d, im_back)]);
        backward[b] = full(vec![(c, -im_back), (d, re_back)]);
    }
    Some((forward, backward))
}

/// Any linear map, by least squares.
fn any(w: &Matrix, x: &Matrix) -> Both {
    let forward = x.times_transposed(w).times(&inverse(&w.times_transposed(w))?);
    let backward = inverse(&forward)?;
    let dense = |matrix: &Matrix| -> Rows {
        (0..matrix.rows).map(|r| matrix.row(r).iter().copied().enumerate().collect()).collect()
    };
    Some((dense(&forward), dense(&backward)))
}
