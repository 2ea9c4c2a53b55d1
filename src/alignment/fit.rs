//! Factors of rows and columns by least squares, over the weights that are not pruned. A factor that noise explains is 1, so
//! that what was not scaled stays as it is, to the bit.

use crate::linear::Matrix;

/// Standard errors within which a factor counts as 1, and what rounding adds to them.
const ERRORS: f64 = 6.0;
const ROUNDING: f64 = 1e-4;
/// Share of columns that must stay unscaled for all to count as such.
const UNSCALED: f64 = 0.95;

/// Columns with so many times the median energy of noise are left out.
const NOISY: f64 = 10.0;

/// Sums for the factor of one row or column.
#[derive(Clone, Copy, Default)]
struct Sums {
    xw: f64,
    ww: f64,
    xx: f64,
    count: f64,
}

impl Sums {
    fn add(&mut self, x: f32, w: f32) {
        if x != 0.0 {
            let (x, w) = (f64::from(x), f64::from(w));
            self.xw += x * w;
            self.ww += w * w;
            self.xx += x * x;
            self.count += 1.0;
        }
    }

    /// The factor `c` that minimises `sum (x - c w)^2`; 0 if there is none.
    fn factor(self) -> f64 {
        if self.ww > 0.0 { self.xw / self.ww } else { 0.0 }
    }

    fn is_one(self) -> bool {
        let c = self.factor();
        let residual = (self.xx - c * self.xw).max(0.0);
        let error = (residual / self.ww.max(f64::MIN_POSITIVE) / self.count.max(1.0)).sqrt();
        (c - 1.0).abs() <= ERRORS * error + ROUNDING
    }
}

/// By what the reference's row is multiplied in the suspect's.
pub(super) fn row_factor(theirs: &[f32], ours: &[f32]) -> f32 {
    let mut sums = Sums::default();
    theirs.iter().zip(ours).for_each(|(x, w)| sums.add(*x, *w));
    if sums.is_one() { 1.0 } else { sums.factor() as f32 }
}

/// By what the columns of the suspect have to be multiplied to be those of `expected`, unless all by 1. A factor that all
/// columns share is left to the rows.
pub(super) fn column_factors(theirs: &Matrix, expected: &Matrix) -> Option<Vec<f32>> {
    let mut sums = vec![Sums::default(); theirs.columns];
    for r in 0..theirs.rows {
        let row = theirs.row(r).iter().zip(expected.row(r)).filter(|(_, w)| **w != 0.0);
        for (c, (x, w)) in
            theirs.row(r).iter().zip(expected.row(r)).enumerate().take(if row.count() > 0 { usize::MAX } else { 0 })
        {
            sums[c].add(*x, *w);
        }
    }
    let unscaled = sums.iter().filter(|sums| sums.is_one()).count();
    if unscaled as f64 >= UNSCALED * sums.len() as f64 {
        return None;
    }
    let mut factors: Vec<f64> = sums.iter().map(|sums| sums.factor()).collect();
    let mut sorted: Vec<f64> = factors.iter().map(|factor| factor.abs()).collect();
    sorted.sort_by(f64::total_cmp);
    let median = sorted.get(sorted.len() / 2).copied().filter(|median| *median > 0.0)?;
    factors.iter_mut().for_each(|factor| *factor /= median);
    Some(factors.iter().map(|factor| if factor.abs() > 1e-4 { factor.recip() as f32 } else { 0.0 }).collect())
}

/// Sets the factor of columns to 0 that would bring in far more noise than others: those whose gain is next to nothing.
pub(super) fn drop_noisy(factors: &mut [f32], theirs: &Matrix, expected: &Matrix) {
    let mut noise = vec![0f64; factors.len()];
    for r in 0..theirs.rows {
        for (c, (x, e)) in theirs.row(r).iter().zip(expected.row(r)).enumerate().filter(|(_, (_, e))| **e != 0.0) {
            noise[c] += (f64::from(x - e) * f64::from(factors[c])).powi(2);
        }
    }
    let mut sorted = noise.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
    factors.iter_mut().zip(noise).filter(|(_, noise)| *noise > NOISY * median).for_each(|(factor, _)| *factor = 0.0);
}

/// The sum of the squares of a matrix.
pub(super) fn energy(values: &[f32]) -> f64 {
    values.iter().map(|x| f64::from(*x) * f64::from(*x)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_noise_explains_is_not_scaled() {
        let ours: Vec<f32> = (0..100).map(|i| (i as f32 * 0.7).sin()).collect();
        let noisy = |factor: f32| -> Vec<f32> {
            ours.iter().enumerate().map(|(i, w)| factor * w + 0.01 * (i as f32 * 1.9).cos()).collect()
        };
        assert_eq!(row_factor(&noisy(1.0), &ours), 1.0);
        assert!((row_factor(&noisy(-0.5), &ours) + 0.5).abs() < 0.01);
        assert_eq!(row_factor(&[0.0; 100], &ours), 0.0);
        let mut pruned = noisy(3.0);
        pruned.iter_mut().step_by(2).for_each(|x| *x = 0.0);
        assert!((row_factor(&pruned, &ours) - 3.0).abs() < 0.01);
    }

    #[test]
    fn columns_are_scaled_back() {
        let values = (0..60).map(|i| 1.0 + (i as f32 * 0.7).sin()).collect();
        let ours = Matrix { rows: 20, columns: 3, values };
        let mut theirs = ours.clone();
        assert_eq!(column_factors(&theirs, &ours), None);
        theirs.values.iter_mut().step_by(3).for_each(|x| *x *= 4.0);
        let factors = column_factors(&theirs, &ours).unwrap();
        assert!((factors[0] - 0.25).abs() < 1e-6 && factors[1..].iter().all(|factor| (factor - 1.0).abs() < 1e-6));
    }
}
