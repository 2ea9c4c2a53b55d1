//! Matches units by their weights, whatever their order: who is whose best, and nobody where that is not clear.

use std::cmp::Ordering;

use crate::alignment::units::Units;
use crate::error::Result;
use crate::linear::Matrix;

/// Units by which layers are paired: those whose weights are most uneven.
const SAMPLES: usize = 8;
/// Units that are compared with all others at a time.
const PIECE: usize = 256;

/// A few rows of a matrix, chosen by what is in them and not by where they are.
pub(super) fn samples(matrix: &Matrix) -> Matrix {
    let peak = |r: usize| matrix.row(r).iter().fold(0f32, |peak, x| peak.max(x.abs()));
    let mut order: Vec<(f32, usize)> = (0..matrix.rows).map(|r| (peak(r), r)).collect();
    let content = |a: usize, b: usize| {
        let pairs = matrix.row(a).iter().zip(matrix.row(b));
        pairs.map(|(x, y)| x.total_cmp(y)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    };
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| content(a.1, b.1)));
    order.truncate(SAMPLES);
    let values = order.iter().flat_map(|(_, r)| matrix.row(*r)).copied().collect();
    Matrix { rows: order.len(), columns: matrix.columns, values }
}

/// How much the samples are like the rows of a matrix that are most like them, on average.
pub(super) fn likeness(samples: &Matrix, rows: &Matrix) -> f32 {
    if samples.columns != rows.columns || samples.rows == 0 {
        return 0.0;
    }
    let products = samples.times_transposed(rows);
    let best = |r: usize| products.row(r).iter().fold(0f32, |best, x| best.max(x.abs()));
    (0..samples.rows).map(best).sum::<f32>() / samples.rows as f32
}

/// The best so far, and whether it is the only one.
#[derive(Clone, Copy, Default)]
struct Best {
    value: f32,
    unit: usize,
    is_shared: bool,
}

impl Best {
    fn see(&mut self, value: f32, unit: usize) {
        if value > self.value {
            *self = Self { value, unit, is_shared: false };
        } else if value == self.value {
            self.is_shared = true;
        }
    }

    fn unit(self) -> Option<usize> {
        (self.value > 0.0 && !self.is_shared).then_some(self.unit)
    }
}

/// For each of the first units the one of the second that is most like it, if that is so the other way round, too. Each
/// pair of matrices tells something of the same units; how alike they are is the sum.
pub(super) fn mutual(pairs: &[(Units, Units)]) -> Result<Vec<Option<usize>>> {
    let read = |(ours, theirs): &(Units, Units)| Ok((ours.read()?, theirs.read()?));
    Ok(matched(&pairs.iter().map(read).collect::<Result<Vec<_>>>()?))
}

fn matched(pairs: &[(Matrix, Matrix)]) -> Vec<Option<usize>> {
    let Some((first, second)) = pairs.first() else { return Vec::new() };
    let (count, of) = (first.rows, second.rows);
    let is_whole =
        |(ours, theirs): &&(Matrix, Matrix)| ours.rows == count && theirs.rows == of && ours.columns == theirs.columns;
    let pairs: Vec<_> = pairs.iter().filter(is_whole).collect();
    let (mut ours, mut theirs) = (vec![Best::default(); count], vec![Best::default(); of]);
    for start in (0..count).step_by(PIECE) {
        let rows = PIECE.min(count - start);
        let mut total = Matrix::zeros(rows, of);
        for (ours, theirs) in &pairs {
            let values = ours.values[start * ours.columns..(start + rows) * ours.columns].to_vec();
            let products = Matrix { rows, columns: ours.columns, values }.times_transposed(theirs);
            total.values.iter_mut().zip(&products.values).for_each(|(sum, x)| *sum += x.abs());
        }
        for r in 0..rows {
            for (c, value) in total.row(r).iter().enumerate() {
                ours[start + r].see(*value, c);
                theirs[c].see(*value, start + r);
            }
        }
    }
    let back = |i: usize, unit: &usize| theirs.get(*unit).and_then(|best| best.unit()) == Some(i);
    ours.into_iter().enumerate().map(|(i, best)| best.unit().filter(|unit| back(i, unit))).collect()
}

/// How many units are matched alike by incoming and by outgoing weights; `None` if one or the other is not there.
pub(super) fn agreeing(incoming: &[(Units, Units)], outgoing: &[(Units, Units)]) -> Result<Option<usize>> {
    if incoming.is_empty() || outgoing.is_empty() {
        return Ok(None);
    }
    let (a, b) = (mutual(incoming)?, mutual(outgoing)?);
    Ok(Some(a.iter().zip(&b).filter(|(a, b)| a.is_some() && a == b).count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[[f32; 2]]) -> Matrix {
        Matrix { rows: rows.len(), columns: 2, values: rows.concat() }
    }

    #[test]
    fn each_must_be_the_best_of_the_other_alone() {
        let ours = rows(&[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.0, 0.0]]);
        let theirs = rows(&[[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]);
        assert_eq!(matched(&[(ours.clone(), theirs)]), [Some(1), Some(0), None, None]);
        let twins = rows(&[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]);
        assert_eq!(matched(&[(ours, twins)]), [None, Some(2), None, None]);
        let constant = rows(&[[0.6, 0.8]; 3]);
        assert_eq!(matched(&[(constant.clone(), constant)]), [None; 3]);
        assert!(matched(&[]).is_empty());
    }

    #[test]
    fn samples_do_not_depend_on_the_order() {
        let matrix = rows(&[[0.6, 0.8], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]);
        let turned = rows(&[[-1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [1.0, 0.0]]);
        assert_eq!(samples(&matrix), samples(&turned));
    }
}
