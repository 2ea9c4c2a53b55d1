//! The hidden dimensions of a suspect in terms of the reference's: a signed permutation, or any orthogonal map.
//!
//! Found from tables whose rows the tokenizer fixes. Rows of token embeddings are cut to length 1, so that rare tokens,
//! which hardly move in fine-tuning, count as much as frequent ones. Columns that correlate one to one are permuted;
//! otherwise the map is the orthogonal factor of the cross-covariance (Schönemann 1966).

use super::family::{Part, Transformer, scale_columns};
use super::panel::{Panel, Stored};
use crate::error::Result;
use crate::linear::{Matrix, dot, polar};
use std::sync::Arc;

/// Rows of tables that are compared at most, and those read at a time.
const MAX_ROWS: usize = 1 << 16;
const PIECE: usize = 1 << 12;
/// Fewer rows than this many per hidden dimension fix no map.
const MIN_ROWS_PER_DIMENSION: usize = 2;
/// Columns that correlate less are not the same.
const SAME: f32 = 0.5;
/// Share of columns that must have a partner for a permutation.
const PERMUTED: f64 = 0.9;
/// Mean cosine of rows from which tables are the same.
const FIT: f64 = 0.6;
/// From here on no other table is looked at.
const CERTAIN: f64 = 0.95;
/// Tables of the suspect that are tried for each of the reference.
const CANDIDATES: usize = 8;
/// Signs, and gains near them.
const UNIT: f32 = 1e-3;

/// How the hidden dimensions of a suspect become those of the reference.
#[derive(Clone, Debug)]
pub(super) enum Basis {
    /// For each of the reference's, that of the suspect and its sign, if it is there.
    Permuted(Vec<Option<(usize, f32)>>),
    /// A matrix with a row for each of the suspect's, and orthonormal columns.
    Rotated(Matrix),
}

impl Basis {
    pub(super) fn identity(hidden: usize) -> Self {
        Self::Permuted((0..hidden).map(|i| Some((i, 1.0))).collect())
    }

    /// Hidden dimensions of the suspect.
    pub(super) fn apply(&self, theirs: &Matrix) -> Matrix {
        match self {
            Self::Rotated(matrix) => theirs.times(matrix),
            Self::Permuted(_) if self.is_identity() => theirs.clone(),
            Self::Permuted(columns) => {
                let mut out = Matrix::zeros(theirs.rows, columns.len());
                for r in 0..theirs.rows {
                    let from = theirs.row(r);
                    for (to, column) in out.row_mut(r).iter_mut().zip(columns) {
                        *to = column.map_or(0.0, |(i, sign)| sign * from[i]);
                    }
                }
                out
            }
        }
    }

    pub(super) fn is_identity(&self) -> bool {
        let is_same = |(i, column): (usize, &Option<(usize, f32)>)| {
            column.is_some_and(|(from, sign)| from == i && (sign - 1.0).abs() < UNIT)
        };
        matches!(self, Self::Permuted(columns) if columns.iter().enumerate().all(is_same))
    }

    /// What it is, in words.
    pub(super) fn describe(&self) -> Option<&'static str> {
        let flips = |columns: &[Option<(usize, f32)>]| columns.iter().flatten().any(|(_, sign)| *sign < 0.0);
        let moves = |columns: &[Option<(usize, f32)>]| {
            columns.iter().enumerate().any(|(i, column)| column.is_some_and(|(from, _)| from != i))
        };
        match self {
            _ if self.is_identity() => None,
            Self::Rotated(_) => Some("hidden dimensions rotated"),
            Self::Permuted(columns) => Some(match (moves(columns), flips(columns)) {
                (true, true) => "hidden dimensions permuted, some with the opposite sign",
                (true, false) => "hidden dimensions permuted",
                _ => "signs of hidden dimensions changed",
            }),
        }
    }
}

/// Finds the map from the tables of both models, or that there is none.
pub(super) fn find(ours: &Transformer, theirs: &[Arc<Stored>]) -> Result<Option<Basis>> {
    let mut best: Option<(f64, Basis)> = None;
    for (_, part) in ours.tables().filter(|(_, part)| part.panel.rows >= MIN_ROWS_PER_DIMENSION * ours.hidden) {
        for candidate in candidates(part, theirs) {
            let Some((fit, basis)) = compare(part, &candidate)? else { continue };
            if fit > best.as_ref().map_or(FIT, |(fit, _)| *fit) {
                best = Some((fit, basis));
            }
        }
        if best.as_ref().is_some_and(|(fit, _)| *fit > CERTAIN) {
            break;
        }
    }
    Ok(best.map(|(_, basis)| basis))
}

/// Tables of the suspect that may be that of the reference: those of about as many rows first.
fn candidates(part: &Part, theirs: &[Arc<Stored>]) -> Vec<Panel> {
    let mut panels = Vec::new();
    for stored in theirs {
        for (transposed, columns) in [(false, stored.info.shape.last()), (true, stored.info.shape.first())] {
            let columns = columns.map_or(0, |columns| *columns as usize);
            if stored.info.shape.len() == 2 && (part.panel.columns..=2 * part.panel.columns).contains(&columns) {
                panels.extend(Panel::of(stored, columns, transposed));
            }
        }
    }
    panels.retain(|panel| panel.rows >= MIN_ROWS_PER_DIMENSION * panel.columns);
    panels.sort_by_key(|panel| panel.rows.abs_diff(part.panel.rows));
    panels.truncate(CANDIDATES);
    panels
}

/// The map between two tables, and the mean cosine of their rows under it.
fn compare(ours: &Part, theirs: &Panel) -> Result<Option<(f64, Basis)>> {
    let rows = ours.panel.rows.min(theirs.rows).min(MAX_ROWS);
    let mut cross = Matrix::zeros(theirs.columns, ours.panel.columns);
    let (mut our_sums, mut their_sums) = (Moments::new(ours.panel.columns), Moments::new(theirs.columns));
    let mut count = 0.0;
    for start in (0..rows).step_by(PIECE) {
        let len = PIECE.min(rows - start);
        let (mut a, mut b) = (theirs.part(start, len).read()?, ours.panel.part(start, len).read()?);
        if let Some(gain) = &ours.gain {
            scale_columns(&mut b, gain);
        }
        for r in 0..len {
            let (a, b) = (a.row_mut(r), b.row_mut(r));
            let lengths = [dot(a, a).sqrt(), dot(b, b).sqrt()];
            let is_there = lengths.iter().all(|length| *length > 0.0 && length.is_finite());
            let factors = lengths.map(|length| if is_there { length.recip() } else { 0.0 });
            a.iter_mut().for_each(|x| *x *= factors[0]);
            b.iter_mut().for_each(|x| *x *= factors[1]);
            count += f64::from(u8::from(is_there));
        }
        our_sums.add(&b);
        their_sums.add(&a);
        let product = a.transposed_times(&b);
        cross.values.iter_mut().zip(&product.values).for_each(|(sum, x)| *sum += x);
    }
    if count < (MIN_ROWS_PER_DIMENSION * theirs.columns) as f64 {
        return Ok(None);
    }
    if let Some(columns) = permutation(&cross, count, &their_sums, &our_sums) {
        let cosine = columns.iter().enumerate().filter_map(|(c, from)| {
            let (r, sign) = (*from)?;
            Some(f64::from(sign * cross.row(r)[c]))
        });
        return Ok(Some((cosine.sum::<f64>() / count, Basis::Permuted(columns))));
    }
    let Some((rotation, sum)) = polar(&cross) else { return Ok(None) };
    Ok(Some((sum / count, Basis::Rotated(rotation))))
}

/// Sums over columns.
struct Moments {
    sums: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    fn new(columns: usize) -> Self {
        Self { sums: vec![0.0; columns], squares: vec![0.0; columns] }
    }

    fn add(&mut self, matrix: &Matrix) {
        for row in matrix.values.chunks_exact(matrix.columns.max(1)) {
            for ((sum, square), value) in self.sums.iter_mut().zip(&mut self.squares).zip(row) {
                *sum += f64::from(*value);
                *square += f64::from(*value) * f64::from(*value);
            }
        }
    }

    /// Mean and standard deviation of a column.
    fn of(&self, column: usize, count: f64) -> (f64, f64) {
        let mean = self.sums[column] / count;
        (mean, (self.squares[column] / count - mean * mean).max(0.0).sqrt())
    }
}

/// The signed permutation under which columns correlate, if they do one to one.
fn permutation(cross: &Matrix, count: f64, theirs: &Moments, ours: &Moments) -> Option<Vec<Option<(usize, f32)>>> {
    let mut likeness = cross.clone();
    for r in 0..cross.rows {
        let (mean, deviation) = theirs.of(r, count);
        for (c, value) in likeness.row_mut(r).iter_mut().enumerate() {
            let (our_mean, our_deviation) = ours.of(c, count);
            let scale = deviation * our_deviation;
            *value = if scale > 1e-12 { ((f64::from(*value) / count - mean * our_mean) / scale) as f32 } else { 0.0 };
        }
    }
    let columns = pair(&likeness);
    let found = columns.iter().flatten().count();
    let same =
        columns.iter().enumerate().filter(|(c, from)| from.is_some_and(|(r, _)| likeness.row(r)[*c].abs() > SAME));
    let enough = same.count() as f64 >= PERMUTED * cross.columns as f64 && found > 0;
    enough.then_some(columns)
}

/// For each column the row that is most like it, with the sign of their likeness: best pairs first, each row once.
pub(super) fn pair(likeness: &Matrix) -> Vec<Option<(usize, f32)>> {
    const KEPT: usize = 4;
    let mut order: Vec<(i64, usize, usize)> = Vec::new();
    let turned = likeness.transposed();
    for c in 0..turned.rows {
        let mut column: Vec<(i64, usize, usize)> =
            turned.row(c).iter().enumerate().map(|(r, value)| (-((value.abs() * 1e6) as i64), c, r)).collect();
        let kept = KEPT.min(column.len());
        if kept > 0 {
            column.select_nth_unstable(kept - 1);
        }
        order.extend(&column[..kept]);
    }
    order.sort_unstable();
    let (mut out, mut used) = (vec![None; likeness.columns], vec![false; likeness.rows]);
    for (_, c, r) in order {
        let value = likeness.row(r)[c];
        if out[c].is_none() && !used[r] && value != 0.0 {
            out[c] = Some((r, value.signum()));
            used[r] = true;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_taken_best_first() {
        let values = vec![0.9, 0.8, 0.0, -0.95, 0.1, 0.2, 0.0, 0.0, 0.0];
        let likeness = Matrix { rows: 3, columns: 3, values };
        assert_eq!(pair(&likeness), [Some((1, -1.0)), Some((0, 1.0)), None]);
        assert_eq!(pair(&Matrix::zeros(0, 2)), [None, None]);
    }

    #[test]
    fn a_permuted_basis_moves_columns_and_signs() {
        let basis = Basis::Permuted(vec![Some((1, -1.0)), None, Some((0, 1.0))]);
        let moved = basis.apply(&Matrix { rows: 1, columns: 2, values: vec![5.0, 7.0] });
        assert_eq!(moved.values, [-7.0, 0.0, 5.0]);
        assert!(!basis.is_identity() && Basis::identity(3).is_identity());
    }
}
