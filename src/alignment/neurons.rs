//! Which neurons of a suspect's feed-forward network are which of the reference.
//!
//! A neuron is told by its incoming and outgoing weights together. Those who hide a network may permute its neurons, scale
//! them (Dinh et al. 2017), split one into several, or add some that do nothing (Yan et al. 2023): so several of the suspect may
//! be one of the reference, and some none.

use super::assign::{normalise, projection};
use super::family::{Role, scale_columns};
use super::fit::{column_factors, drop_noisy, row_factor};
use super::map::Rows;
use crate::linear::{Matrix, dot};

/// Neurons of the suspect that are compared with all of the reference at a time.
const PIECE: usize = 256;
/// Dimensions to which weights are projected before they are compared, where there are more.
const SKETCH: usize = 256;
/// How often factors of rows and columns are fitted in turn.
pub(super) const ROUNDS: usize = 4;
/// Least mean cosine of the weights of a neuron, and in standard deviations of that of unrelated ones.
const LIKE: f32 = 0.35;
const DEVIATIONS: f32 = 4.0;

/// The same matrix of both models: a row for each neuron.
pub(super) struct Weights {
    pub(super) role: Role,
    pub(super) ours: Matrix,
    /// Over the hidden dimensions of the reference.
    pub(super) theirs: Matrix,
    /// What the suspect's columns are multiplied by in addition.
    pub(super) gain: Option<Vec<f32>>,
}

/// For each matrix of a network how its rows are put together, and what its columns are multiplied by; and how many neurons
/// were found.
pub(super) struct Neurons {
    pub(super) found: usize,
    pub(super) maps: Vec<(Rows, Option<Vec<f32>>)>,
}

/// Finds the neurons of a network, all of whose matrices have equally many rows.
pub(super) fn align(mut weights: Vec<Weights>) -> Neurons {
    let Some(count) = weights.first().map(|weights| weights.ours.rows) else {
        return Neurons { found: 0, maps: Vec::new() };
    };
    for Weights { ours, gain, .. } in &mut weights {
        if let Some(gain) = gain {
            scale_columns(ours, gain);
        }
    }
    let owners = owners(&weights);
    let mut clones = vec![Vec::new(); count];
    owners.iter().enumerate().for_each(|(k, owner)| {
        if let Some(owner) = owner {
            clones[*owner].push(k);
        }
    });
    let mut columns: Vec<_> = weights.iter_mut().map(|weights| unscale(weights, &owners)).collect();
    for (weights, columns) in weights.iter().zip(&mut columns) {
        *columns = combined(columns.take(), weights.gain.as_deref());
        if let (Some(factors), true) = (columns, weights.gain.is_some()) {
            drop_noisy(factors, &weights.theirs, &expected(weights, &owners));
        }
    }
    let incoming = weights.iter().position(|weights| weights.role == Role::Up);
    let maps = weights.iter().zip(columns).map(|(Weights { role, ours, theirs, .. }, columns)| {
        let factor =
            |weights: &Weights, k: usize, owner: usize| row_factor(weights.theirs.row(k), weights.ours.row(owner));
        let rows = clones.iter().enumerate().map(|(owner, clones)| {
            let share = |k: &usize| {
                let own = row_factor(theirs.row(*k), ours.row(owner));
                match (incoming, *role) {
                    (Some(up), Role::Down) if clones.len() > 1 => (*k, factor(&weights[up], *k, owner)),
                    (_, Role::Down) if clones.len() > 1 => (*k, 1.0),
                    _ => (*k, reciprocal(own) / clones.len() as f32),
                }
            };
            clones.iter().map(share).filter(|(_, factor)| *factor != 0.0).collect()
        });
        (rows.collect(), columns)
    });
    Neurons { found: clones.iter().filter(|clones| !clones.is_empty()).count(), maps: maps.collect() }
}

/// Multiplies the suspect's columns so that they are the reference's, and says by what.
fn unscale(weights: &mut Weights, owners: &[Option<usize>]) -> Option<Vec<f32>> {
    let mut total: Option<Vec<f32>> = None;
    for _ in 0..ROUNDS {
        let Some(factors) = column_factors(&weights.theirs, &expected(weights, owners)) else { break };
        scale_columns(&mut weights.theirs, &factors);
        total = Some(total.map_or(factors.clone(), |total| total.iter().zip(&factors).map(|(a, b)| a * b).collect()));
    }
    total
}

/// What the suspect should be, were its neurons only scaled.
fn expected(Weights { ours, theirs, .. }: &Weights, owners: &[Option<usize>]) -> Matrix {
    let mut expected = Matrix::zeros(theirs.rows, theirs.columns);
    for (k, owner) in owners.iter().enumerate() {
        let Some(owner) = owner else { continue };
        let factor = row_factor(theirs.row(k), ours.row(*owner));
        expected.row_mut(k).iter_mut().zip(ours.row(*owner)).for_each(|(to, from)| *to = factor * from);
    }
    expected
}

/// Factors of columns after the gain is taken out.
pub(super) fn combined(columns: Option<Vec<f32>>, gain: Option<&[f32]>) -> Option<Vec<f32>> {
    match (columns, gain) {
        (columns, None) => columns,
        (None, Some(gain)) => Some(gain.iter().map(|gain| reciprocal(*gain)).collect()),
        (Some(columns), Some(gain)) => Some(columns.iter().zip(gain).map(|(c, gain)| c * reciprocal(*gain)).collect()),
    }
}

/// The reciprocal, or 0 where there is none to speak of.
pub(super) fn reciprocal(value: f32) -> f32 {
    if value.abs() > 1e-6 { value.recip() } else { 0.0 }
}

/// For each neuron of the suspect that of the reference which it is most like, if it is.
fn owners(weights: &[Weights]) -> Vec<Option<usize>> {
    let sketches: Vec<(Matrix, Matrix)> = weights
        .iter()
        .map(|Weights { ours, theirs, .. }| {
            let sketch = |matrix: &Matrix| {
                let mut sketch = if matrix.columns > 2 * SKETCH {
                    matrix.times(&projection(matrix.columns, SKETCH))
                } else {
                    matrix.clone()
                };
                normalise(&mut sketch);
                sketch
            };
            (sketch(ours), sketch(theirs))
        })
        .collect();
    let count = sketches.first().map_or(0, |(_, theirs)| theirs.rows);
    let dimensions = sketches.first().map_or(1, |(ours, _)| ours.columns.max(1));
    let least = (DEVIATIONS / (dimensions as f32).sqrt()).clamp(LIKE, 0.9);
    let mut out = Vec::with_capacity(count);
    for start in (0..count).step_by(PIECE) {
        let rows = PIECE.min(count - start);
        let mut total: Option<Matrix> = None;
        for (ours, theirs) in &sketches {
            let values = theirs.values[start * theirs.columns..(start + rows) * theirs.columns].to_vec();
            let mut likeness = Matrix { rows, columns: theirs.columns, values }.times_transposed(ours);
            likeness.values.iter_mut().for_each(|x| *x = x.abs());
            match &mut total {
                None => total = Some(likeness),
                Some(total) => total.values.iter_mut().zip(&likeness.values).for_each(|(sum, x)| *sum += x),
            }
        }
        let Some(total) = total else { break };
        for r in 0..rows {
            let best =
                total.row(r).iter().enumerate().fold((0, 0.0), |best, (i, x)| if *x > best.1 { (i, *x) } else { best });
            out.push((best.1 >= least * sketches.len() as f32).then_some(best.0));
        }
    }
    out
}

/// The cosine of two rows.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let length = (dot(a, a) * dot(b, b)).sqrt();
    if length > 0.0 { dot(a, b) / length } else { 0.0 }
}
