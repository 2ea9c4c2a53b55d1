//! Low-rank drift: directions of a residual that stand out of its noise, as low-rank adapters and fine-tuning leave them.

use crate::linear::{Matrix, gram, project_out, symmetric_eigen};

/// With fewer rows or columns a spectrum tells nothing.
const MIN_SIDE: usize = 32;
/// Most directions that are taken away.
const MOST: usize = 64;
/// A direction stands out beyond the edge of noise times this.
const MARGIN: f64 = 1.1;
/// Steps of the power method that looks whether anything stands out: it is cheap, the spectrum is not.
const POWER_STEPS: usize = 12;

/// Takes away the directions of `values`, a matrix row by row, that stand out of its noise, if what is left of a mark is
/// then seen better, and says how many those are.
///
/// Rows are divided by their `noise` first. Noise has no eigenvalues beyond an edge (Marchenko and Pastur 1967), found here
/// from the median. The smaller side of a block is never over 1024, so its spectrum is found in full.
pub(super) fn remove(values: &mut [f32], columns: usize, noise: &[f32]) -> usize {
    let rows = values.len() / columns.max(1);
    let (small, large) = (rows.min(columns), rows.max(columns));
    if small < MIN_SIDE || small.saturating_mul(columns) == 0 {
        return 0;
    }
    let edge = Edge::new(small, large);
    let mut rest = values.to_vec();
    scale_rows(&mut rest, columns, noise.iter().map(|noise| if *noise > 0.0 { 1.0 / noise } else { 0.0 }));
    let before = sum_of_squares(&rest);
    let count = take_away(&mut rest, columns, &edge);
    // the mark loses its share of the directions: their removal must be worth that
    let kept = (1.0 - count as f64 / small as f64) * (1.0 - count as f64 / large as f64);
    if count == 0 || sum_of_squares(&rest) >= kept * kept * before {
        return 0;
    }
    scale_rows(&mut rest, columns, noise.iter().copied());
    values.copy_from_slice(&rest);
    count
}

/// Takes away the directions of a matrix that stand out, and says how many.
fn take_away(values: &mut [f32], columns: usize, edge: &Edge) -> usize {
    let rows = values.len() / columns;
    let small = rows.min(columns);
    let mean = sum_of_squares(values) / small as f64;
    if !mean.is_finite() || largest(values, columns) <= MARGIN * edge.of_mean * mean {
        return 0;
    }
    let Some((eigenvalues, vectors)) = symmetric_eigen(&gram(values, rows, columns)) else { return 0 };
    let edge = MARGIN * edge.of_median * eigenvalues[small / 2];
    let first = eigenvalues.partition_point(|value| *value <= edge).max(small.saturating_sub(MOST));
    let count = small - first;
    let mut basis = Matrix::zeros(small, count);
    for r in 0..small {
        basis.row_mut(r).iter_mut().zip(first..).for_each(|(value, k)| *value = vectors[(r, k)] as f32);
    }
    if count > 0 {
        project_out(values, rows, columns, &basis);
    }
    count
}

/// The edge of the spectrum of noise, relative to the mean and to the median of its eigenvalues.
struct Edge {
    of_mean: f64,
    of_median: f64,
}

impl Edge {
    /// Of the smaller Gram matrix of noise with so many rows and columns.
    fn new(small: usize, large: usize) -> Self {
        let root = (small as f64 / large as f64).sqrt();
        let (low, high) = ((1.0 - root).powi(2), (1.0 + root).powi(2));
        const STEPS: usize = 4000;
        let at = |i: usize| low + (high - low) * (i as f64 + 0.5) / STEPS as f64;
        let density = |x: f64| ((high - x) * (x - low)).max(0.0).sqrt() / x;
        let half = (0..STEPS).map(|i| density(at(i))).sum::<f64>() / 2.0;
        let mut below = 0.0;
        let median = (0..STEPS).find(|i| {
            below += density(at(*i));
            below >= half
        });
        Self { of_mean: high, of_median: high / at(median.unwrap_or(STEPS / 2)) }
    }
}

/// About the largest eigenvalue of the Gram matrix, from below.
fn largest(values: &[f32], columns: usize) -> f64 {
    let mut vector: Vec<f32> =
        (0..columns as u32).map(|i| if i.wrapping_mul(2_654_435_769) >> 31 == 0 { 1.0 } else { -1.0 }).collect();
    let mut value = 0.0;
    for _ in 0..POWER_STEPS {
        let length = sum_of_squares(&vector).sqrt();
        if length == 0.0 {
            return 0.0;
        }
        vector.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
        let mut next = vec![0.0f32; columns];
        value = 0.0;
        for row in values.chunks_exact(columns) {
            let share: f32 = dot(row, &vector);
            value += f64::from(share).powi(2);
            next.iter_mut().zip(row).for_each(|(n, x)| *n += share * x);
        }
        vector = next;
    }
    value
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.iter().zip(b) {
        for k in 0..8 {
            lanes[k] += a[k] * b[k];
        }
    }
    lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

fn sum_of_squares(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum()
}

pub(super) fn root_mean_square(row: &[f32]) -> f32 {
    (sum_of_squares(row) / row.len() as f64).sqrt() as f32
}

fn scale_rows(values: &mut [f32], columns: usize, factors: impl Iterator<Item = f32>) {
    for (row, factor) in values.chunks_exact_mut(columns).zip(factors) {
        row.iter_mut().for_each(|value| *value *= factor);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::normal;
    use super::*;

    #[test]
    fn noise_stays_as_it_is() {
        for (rows, columns) in [(200, 100), (60, 400), (31, 500), (0, 64), (500, 1), (64, 64)] {
            let mut values = normal(1, rows * columns);
            let before = values.clone();
            assert_eq!(remove(&mut values, columns, &vec![1.0; rows]), 0, "{rows} {columns}");
            assert_eq!(values, before);
        }
    }

    #[test]
    fn low_rank_drift_goes_and_the_rest_stays() {
        for (rows, columns) in [(300, 128), (128, 300)] {
            let noise = normal(1, rows * columns);
            let mut values = noise.clone();
            let (a, b) = (normal(2, rows * 4), normal(3, columns * 4));
            for (i, value) in values.iter_mut().enumerate() {
                let (r, c) = (i / columns, i % columns);
                *value += (0..4).map(|k| 10.0 * a[4 * r + k] * b[4 * c + k]).sum::<f32>();
            }
            assert_eq!(remove(&mut values, columns, &vec![1.0; rows]), 4);
            let difference: Vec<f32> = values.iter().zip(&noise).map(|(a, b)| a - b).collect();
            let share = sum_of_squares(&difference) / sum_of_squares(&noise);
            assert!(share < 0.08, "{share}"); // 4 directions of 128 and of 300 are gone with the drift
        }
    }

    #[test]
    fn nothing_odd_breaks_it() {
        for value in [0.0, 1.0, f32::MAX, f32::MIN_POSITIVE] {
            remove(&mut vec![value; 64 * 64], 64, &[1.0; 64]);
        }
        let mut values = vec![0.0; 64 * 64];
        values[100] = 1.0;
        remove(&mut values, 64, &[1.0; 64]);
        assert!(values.iter().all(|v| v.is_finite()));
    }
}
