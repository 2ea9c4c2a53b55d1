//! What a block of the suspect says of every weight of the original: the residual, cleaned of all that is not a mark.
//! Never sees a key.
//!
//! Three things are taken away. *The original*, scaled row by row to fit, with an offset where integers were stored with a
//! zero point, and with a known partner of a merge ([`Fit`]). *Low-rank drift* ([`spikes`]). *The noise of quantisation*,
//! which the original on the suspect's own [`Grid`] shows as well ([`grid`]). What is left is weighted as a locally most
//! powerful test would (Lehmann and Romano, section 8.4): by the derivative of the logarithm of its likelihood. On a grid
//! that is of the logistic distribution, `F(low) + F(high) - 1` over its scale: bounded, whatever a suspect holds.

mod grid;
mod spikes;

pub(super) use grid::Grid;

use super::weights::Weights;

/// Residuals beyond this many standard deviations are clipped.
const CLIP: f32 = 4.0;
/// Rows with fewer weights of a class take the variance of the block.
const MIN_CLASS: u64 = 16;
/// How often the fit is made again without the drift found.
const REFITS: usize = 3;
/// What an offset, or a partner, must gain.
const WORTH: f64 = 1.05;
/// Steps in which scale and offset of the original on a grid are refined.
const REFINEMENTS: usize = 8;
/// Weights of the block as a whole that count when the spread of a row is estimated.
const PRIOR: f64 = 32.0;
/// Scale of the logistic distribution over the mean distance of weights from the cells that they left.
const SPREAD: f64 = 1.4;
/// Of the cells of a block at least one in so many must be known.
const KNOWN: usize = 64;
/// Spread, over the scale of the row, that is the least.
const MIN_SPREAD: f64 = 1e-4;

/// What was taken away from a block of the suspect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reference {
    /// The original, scaled row by row.
    Scaled,
    /// The original on the suspect's own grid.
    Grid,
    /// The original and a partner of a merge.
    Merged,
}

/// A block of the suspect, cleaned.
pub(super) struct Cleaned {
    /// For each weight its residual in units of the original, over its variance: times the amplitude of a mark there it is
    /// what the weight adds to a test of the mark.
    pub(super) residual: Weights,
    pub(super) reference: Reference,
    /// Directions of low-rank drift that were taken away.
    pub(super) spikes: usize,
    /// What all weights together can say of a mark.
    pub(super) information: f64,
}

/// Cleans the block `x` of a suspect, given the original `w` with the root mean squares `scales` of its rows, the grid
/// that the suspect's file says it lies on, and the same block of a partner that it may have been merged with.
pub(super) fn clean(
    x: &Weights,
    w: &Weights,
    scales: &[f32],
    grid: Option<&Grid>,
    partner: Option<&Weights>,
) -> Cleaned {
    let (mut fit, mut reference) = Fit::best(x, w, scales, partner);
    let first = fit.clone();
    let mut residual = fit.residual(x, w, partner);
    let mut spikes = spikes::remove(&mut residual.values, x.columns, &fit.marks(scales));
    if spikes > 0 {
        // drift has spoilt the fit: perhaps there is nothing to fit
        let unscaled = Fit::unscaled(scales.len());
        let mut plain = unscaled.residual(x, w, None);
        let count = spikes::remove(&mut plain.values, x.columns, scales);
        if count > 0 && unscaled.noise(&plain, scales) < fit.noise(&residual, scales) {
            (fit, reference, residual, spikes) = (unscaled, Reference::Scaled, plain, count);
        } else {
            for _ in 0..REFITS {
                let plain = fit.without_drift(x, w, partner, &residual);
                (fit, reference) = Fit::best(&plain, w, scales, partner);
                residual = fit.residual(x, w, partner);
                spikes = spikes::remove(&mut residual.values, x.columns, &fit.marks(scales));
            }
        }
    }
    let inferred = if grid.is_none() { Grid::infer(x) } else { None };
    let on_grid = grid.or(inferred.as_ref()).and_then(|grid| {
        let known = Known { x, w, scales, grid };
        let with_drift = (spikes > 0).then(|| known.best(&first, &first.residual(x, w, partner))).flatten();
        let without = known.best(&fit, &residual);
        [with_drift, without].into_iter().flatten().max_by(|a, b| a.1.total_cmp(&b.1))
    });
    let mut information = weigh(&mut residual, x, scales, &fit);
    if let Some((scored, more)) = on_grid.filter(|(_, on_grid)| *on_grid > information) {
        (residual, reference, information) = (scored, Reference::Grid, more);
    }
    residual.values.iter_mut().filter(|u| !u.is_finite()).for_each(|u| *u = 0.0);
    Cleaned { residual, reference, spikes, information }
}

/// How a row of the suspect follows from the original: `own * w + offset + partner * v`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Row {
    own: f64,
    offset: f64,
    partner: f64,
}

/// How a block follows from the original, row by row, by least squares over the weights that are not zero.
#[derive(Clone)]
struct Fit {
    rows: Vec<Row>,
}

impl Fit {
    /// The fit with the smallest residual relative to a mark, simpler ones first.
    fn best(x: &Weights, w: &Weights, scales: &[f32], partner: Option<&Weights>) -> (Self, Reference) {
        let none: &[f32] = &[];
        let v = |row: usize| partner.map_or(none, |v| &v.values[row * v.columns..(row + 1) * v.columns]);
        let moments: Vec<_> = x.rows().zip(w.rows()).enumerate().map(|(r, (x, w))| Moments::new(x, w, v(r))).collect();
        let solve = |which: &[usize], reference: Reference| {
            let solved: Vec<_> = moments.iter().map(|moments| moments.solve(which)).collect();
            let information = solved.iter().zip(&moments).zip(scales).map(|(((row, left), moments), scale)| {
                let mark = (row.own * f64::from(*scale)).powi(2);
                if mark > 0.0 { moments.count() * mark / (left / moments.count().max(1.0) + 1e-6 * mark) } else { 0.0 }
            });
            let information: f64 = information.sum();
            (information, Self { rows: solved.iter().map(|(row, _)| *row).collect() }, reference)
        };
        let mut best = solve(&[OWN], Reference::Scaled);
        let others: &[(&[usize], Reference)] = &[
            (&[OWN, OFFSET], Reference::Scaled),
            (&[OWN, PARTNER], Reference::Merged),
            (&[OWN, OFFSET, PARTNER], Reference::Merged),
        ];
        for (which, reference) in others.iter().filter(|(which, _)| partner.is_some() || !which.contains(&PARTNER)) {
            let other = solve(which, *reference);
            if other.0 > WORTH * best.0 {
                best = other;
            }
        }
        (best.1, best.2)
    }

    /// The same, with the scale of the original fitted to the suspect's zeros as well, which of a coarse grid are its own.
    fn with_zeros(&self, residual: &Weights, w: &Weights) -> Vec<Row> {
        let rows = residual.rows().zip(w.rows()).zip(&self.rows).map(|((d, w), row)| {
            let sums = d.iter().zip(w).fold((0.0f64, 0.0f64), |(dw, ww), (d, w)| {
                let (d, w) = (f64::from(*d), f64::from(*w));
                (dw + d * w, ww + w * w)
            });
            let more = if sums.1 > 0.0 { sums.0 / sums.1 } else { 0.0 };
            Row { own: row.own + more, ..*row }
        });
        rows.collect()
    }

    /// The suspect without low-rank drift, `residual` being what is then left of it.
    fn without_drift(&self, x: &Weights, w: &Weights, partner: Option<&Weights>, residual: &Weights) -> Weights {
        let mut plain = self.residual(x, w, partner);
        let drift = plain.values.iter_mut().zip(residual.values.iter());
        for ((plain, residual), x) in drift.zip(x.values.iter()) {
            *plain = if *x == 0.0 { 0.0 } else { x - (*plain - residual) };
        }
        plain
    }

    /// The original as it is.
    fn unscaled(rows: usize) -> Self {
        Self { rows: vec![Row { own: 1.0, ..Row::default() }; rows] }
    }

    /// The scale of a mark in each row of the suspect.
    fn marks(&self, scales: &[f32]) -> Vec<f32> {
        self.rows.iter().zip(scales).map(|(row, scale)| row.own.abs() as f32 * scale).collect()
    }

    /// Mean square of residuals over that of the original, as the suspect has it.
    fn noise(&self, residual: &Weights, scales: &[f32]) -> f64 {
        let rows = residual.rows().zip(self.marks(scales)).filter(|(_, mark)| *mark > 0.0);
        rows.map(|(d, mark)| f64::from(spikes::root_mean_square(d) / mark).powi(2)).sum()
    }

    fn residual(&self, x: &Weights, w: &Weights, partner: Option<&Weights>) -> Weights {
        let mut residual = x.copy();
        let columns = x.columns;
        for (r, (row, out)) in self.rows.iter().zip(residual.values.chunks_exact_mut(columns)).enumerate() {
            let place = r * columns..(r + 1) * columns;
            let (own, offset, share) = (row.own as f32, row.offset as f32, row.partner as f32);
            out.iter_mut().zip(&w.values[place.clone()]).for_each(|(d, w)| *d -= own * w + offset);
            if let Some(v) = partner {
                out.iter_mut().zip(&v.values[place]).for_each(|(d, v)| *d -= share * v);
            }
        }
        residual
    }
}

const OWN: usize = 0;
const OFFSET: usize = 1;
const PARTNER: usize = 2;
/// The suspect itself, in moments.
const SUSPECT: usize = 3;

/// Sums of products of a row of the original, of ones, of a partner and of the suspect, where this is not zero.
struct Moments([[f64; 4]; 4]);

impl Moments {
    fn new(x: &[f32], w: &[f32], v: &[f32]) -> Self {
        let mut sums = [[0.0f64; 4]; 4];
        let absent = v.is_empty();
        for (i, (x, w)) in x.iter().zip(w).enumerate().filter(|(_, (x, _))| **x != 0.0) {
            let v = if absent { 0.0 } else { f64::from(v[i]) };
            let all = [f64::from(*w), 1.0, v, f64::from(*x)];
            for (sums, a) in sums.iter_mut().zip(all) {
                for (sum, b) in sums.iter_mut().zip(all) {
                    *sum += a * b;
                }
            }
        }
        Self(sums)
    }

    fn count(&self) -> f64 {
        self.0[OFFSET][OFFSET]
    }

    /// Least squares on some regressors, and the sum of squares that is left. What depends on those before it gets nothing.
    fn solve(&self, which: &[usize]) -> (Row, f64) {
        let mut a = self.0;
        let mut used = [false; 3];
        for &p in which {
            if a[p][p] > 1e-9 * self.0[p][p] && a[p][p] > 0.0 {
                used[p] = true;
                let pivot = a[p];
                for (r, row) in a.iter_mut().enumerate() {
                    let factor = if r == p { 1.0 / pivot[p] } else { row[p] / pivot[p] };
                    for c in 0..4 {
                        row[c] = if r == p { pivot[c] * factor } else { row[c] - factor * pivot[c] };
                    }
                }
            }
        }
        let solution = |p: usize| if used[p] && a[p][SUSPECT].is_finite() { a[p][SUSPECT] } else { 0.0 };
        let row = Row { own: solution(OWN), offset: solution(OFFSET), partner: solution(PARTNER) };
        (row, a[SUSPECT][SUSPECT].max(0.0))
    }
}

/// Brings residuals into units of the original and weights them, by row and by whether the suspect is zero there. Returns
/// the information they hold on a mark of strength 1.
fn weigh(residual: &mut Weights, x: &Weights, scales: &[f32], fit: &Fit) -> f64 {
    let columns = x.columns;
    let mut block = [(0.0f64, 0u64); 2];
    let mut classes = Vec::with_capacity(fit.rows.len());
    for (d, x) in residual.rows().zip(x.rows()) {
        let mut row = [(0.0f64, 0u64); 2];
        for (d, x) in d.iter().zip(x) {
            let (sum, count) = &mut row[usize::from(*x == 0.0)];
            *sum += f64::from(*d) * f64::from(*d);
            *count += 1;
        }
        for (total, (sum, count)) in block.iter_mut().zip(row) {
            total.0 += sum;
            total.1 += count;
        }
        classes.push(row);
    }
    let mut information = 0.0;
    let rows = residual.values.chunks_exact_mut(columns).zip(x.rows()).zip(&fit.rows).zip(classes).zip(scales);
    for ((((d, x), fit), class), scale) in rows {
        let floor = 1e-6 * (fit.own * f64::from(*scale)).powi(2) + 1e-30;
        let deviation = [0, 1].map(|k| {
            let (sum, count) = if class[k].1 > MIN_CLASS { class[k] } else { block[k] };
            (sum / count.max(1) as f64).max(floor).sqrt() as f32
        });
        let own = fit.own as f32;
        let mut energy = 0.0f64;
        for (d, x) in d.iter_mut().zip(x) {
            let deviation = deviation[usize::from(*x == 0.0)];
            *d = own * ((*d / deviation).clamp(-CLIP, CLIP) / deviation);
            energy += f64::from(*d) * f64::from(*d);
        }
        information += energy * f64::from(*scale).powi(2);
    }
    information
}

/// A suspect on a known grid.
#[derive(Clone, Copy)]
struct Known<'a> {
    x: &'a Weights,
    w: &'a Weights,
    scales: &'a [f32],
    grid: &'a Grid,
}

/// The cells of a row, and what would be there without a mark.
struct Cells<'a> {
    low: &'a [f32],
    high: &'a [f32],
    centre: &'a [f32],
}

impl Known<'_> {
    /// Scores what a fit has left, as [`score`](Self::score) does.
    fn best(&self, fit: &Fit, residual: &Weights) -> Option<(Weights, f64)> {
        let mut centre = residual.copy();
        centre.values.iter_mut().zip(self.x.values.iter()).for_each(|(d, x)| *d = x - *d);
        let shifted = fit.with_zeros(residual, self.w);
        let mut whole = centre.copy();
        self.shift(&mut whole, &fit.rows, &shifted);
        if self.grid.is_pruned(self.x, &whole) {
            Known { grid: &self.grid.without_zeros(self.x), ..*self }.score(fit.rows.clone(), centre)
        } else {
            self.score(shifted, whole)
        }
    }

    /// Weighted residuals against the original, which without a mark would be at `centre`, on the grid; and the information
    /// they hold on a mark of strength 1. Least squares are not exact enough there, so the fit is refined, or undone where
    /// the original fits as it is.
    fn score(&self, mut rows: Vec<Row>, mut centre: Weights) -> Option<(Weights, f64)> {
        let cells = self.grid.low.values.iter().zip(self.grid.high.values.iter());
        let known = cells.filter(|(low, high)| low.is_finite() || high.is_finite()).count();
        if known * KNOWN < self.x.values.len() {
            return None;
        }
        let mut spread = self.spread(&rows, &centre);
        let plain = Row { own: 1.0, ..Row::default() };
        let unscaled: Vec<_> = rows.iter().map(|row| Row { partner: row.partner, ..plain }).collect();
        let mut undone = centre.copy();
        self.shift(&mut undone, &rows, &unscaled);
        let of_undone = self.spread(&unscaled, &undone);
        if of_undone.0 <= WORTH * spread.0 {
            (rows, centre, spread) = (unscaled, undone, of_undone);
        } else {
            for _ in 0..REFINEMENTS {
                let refined = self.refined(&rows, &spread.1, &centre);
                self.shift(&mut centre, &rows, &refined);
                rows = refined;
                spread = self.spread(&rows, &centre);
            }
        }
        let own: Vec<f64> = rows.iter().map(|row| row.own).collect();
        let mut out = Weights::zeroed(self.x.columns, own.len());
        let mut information = 0.0;
        for (r, out) in out.values.chunks_exact_mut(self.x.columns).enumerate() {
            let (factor, scale) = (own[r] as f32, f64::from(self.scales[r]));
            let s = (spread.1[r] * own[r].abs() * scale) as f32;
            if s.is_nan() || s <= 0.0 || !s.is_finite() {
                continue;
            }
            let (cells, half, mut energy) = (self.cells(r, &centre), 0.5 / s, 0.0f64);
            for (i, out) in out.iter_mut().enumerate() {
                let (above, below) = cells.pulls(i, half);
                let u = factor * (above + below) / 2.0 / s;
                *out = u;
                energy += f64::from(u) * f64::from(u);
            }
            information += energy * scale * scale;
        }
        information.is_finite().then_some((out, information))
    }

    fn cells<'a>(&'a self, row: usize, centre: &'a Weights) -> Cells<'a> {
        let place = row * self.x.columns..(row + 1) * self.x.columns;
        let (low, high) = (&self.grid.low.values[place.clone()], &self.grid.high.values[place.clone()]);
        Cells { low, high, centre: &centre.values[place] }
    }

    /// How far weights have moved, over the scale of the original in their row: in sum over the block, and of each row as
    /// the spread to be expected.
    ///
    /// Wherever cells end, a change of `d` that leaves one goes beyond its end by `d / 2` in the mean.
    fn spread(&self, rows: &[Row], centre: &Weights) -> (f64, Vec<f64>) {
        let beyond: Vec<_> = rows
            .iter()
            .enumerate()
            .map(|(r, row)| {
                let scale = row.own.abs() * f64::from(self.scales[r]);
                let (beyond, count) = self.cells(r, centre).beyond();
                if (beyond / scale).is_finite() { (beyond / scale, count) } else { (0.0, 0.0) }
            })
            .collect();
        let (sum, count) = beyond.iter().fold((0.0, 0.0), |sum, row| (sum.0 + row.0, sum.1 + row.1));
        let block = (SPREAD * sum / f64::max(count, 1.0)).max(MIN_SPREAD);
        let of_row = |(beyond, count): &(f64, f64)| (SPREAD * beyond + PRIOR * block) / (count + PRIOR);
        (sum, beyond.iter().map(of_row).collect())
    }

    /// A step of Fisher scoring of scale and offset of each row.
    fn refined(&self, rows: &[Row], spread: &[f64], centre: &Weights) -> Vec<Row> {
        let columns = self.x.columns;
        let refined = rows.iter().enumerate().map(|(r, row)| {
            let w = &self.w.values[r * columns..(r + 1) * columns];
            let s = (spread[r] * row.own.abs() * f64::from(self.scales[r])) as f32;
            if s.is_nan() || s <= 0.0 || !s.is_finite() {
                return *row;
            }
            let (cells, half) = (self.cells(r, centre), 0.5 / s);
            let (mut slope, mut curve) = ([0.0f64; 2], [0.0f64; 3]);
            for (i, w) in w.iter().enumerate().filter(|(i, _)| self.x.values[r * columns + i] != 0.0) {
                let ((above, below), w) = (cells.pulls(i, half), f64::from(*w));
                let pull = f64::from(above + below) / 2.0;
                let bend = f64::from(half) * (1.0 - f64::from(above * above + below * below) / 2.0);
                slope = [slope[0] + w * pull, slope[1] + pull];
                curve = [curve[0] + w * w * bend, curve[1] + w * bend, curve[2] + bend];
            }
            let with_offset = row.offset != 0.0;
            let determinant = curve[0] * curve[2] - curve[1] * curve[1];
            let (own, offset) = if with_offset && determinant > 1e-9 * curve[0] * curve[2] {
                let own = (slope[0] * curve[2] - slope[1] * curve[1]) / determinant;
                (own, (slope[1] * curve[0] - slope[0] * curve[1]) / determinant)
            } else {
                (if curve[0] > 0.0 { slope[0] / curve[0] } else { 0.0 }, 0.0)
            };
            let most = 0.05 * row.own.abs();
            let offset = row.offset + if offset.is_finite() { offset } else { 0.0 };
            Row { own: row.own + own.clamp(-most, most), offset, ..*row }
        });
        refined.collect()
    }

    /// Moves `centre` from one fit to another.
    fn shift(&self, centre: &mut Weights, from: &[Row], to: &[Row]) {
        let columns = self.x.columns;
        let rows = centre.values.chunks_exact_mut(columns).zip(self.w.rows());
        for ((centre, w), (from, to)) in rows.zip(from.iter().zip(to)) {
            let (own, offset) = ((to.own - from.own) as f32, (to.offset - from.offset) as f32);
            centre.iter_mut().zip(w).for_each(|(centre, w)| *centre += own * w + offset);
        }
    }
}

impl Cells<'_> {
    /// Where the ends of a cell lie on the logistic distribution around its centre, from -1 to 1.
    fn pulls(&self, i: usize, half: f32) -> (f32, f32) {
        let m = self.centre[i];
        (sigmoid((self.high[i] - m) * half), sigmoid((self.low[i] - m) * half))
    }

    /// How far outside of their cells the centres are, in sum, and how many are.
    fn beyond(&self) -> (f64, f64) {
        let cells = self.low.iter().zip(self.high).zip(self.centre);
        let beyond = cells.map(|((low, high), m)| (low - m).max(m - high)).filter(|beyond| *beyond > 0.0);
        beyond.fold((0.0, 0.0), |(sum, count), beyond| (sum + f64::from(beyond), count + 1.0))
    }
}

/// Like the hyperbolic tangent, but rational: the same on every machine. Exactly 1 from 3 on.
fn sigmoid(t: f32) -> f32 {
    let t = t.clamp(-3.0, 3.0);
    let square = t * t;
    t * (27.0 + square) / (27.0 + 9.0 * square)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reproducible normal numbers, about: sums of twelve uniform ones.
    pub(super) fn normal(seed: u64, len: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / 16_777_216.0
        };
        (0..len).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
    }

    pub(super) fn weights(columns: usize, values: &[f32]) -> Weights {
        let mut weights = Weights::zeroed(columns, values.len() / columns);
        weights.values.copy_from_slice(values);
        weights
    }

    const ROWS: usize = 256;
    const COLUMNS: usize = 384;
    const MARK: f32 = 0.002;

    /// An original, chips, and the original marked with them.
    fn marked() -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let w = normal(1, ROWS * COLUMNS);
        let chips: Vec<f32> = normal(2, w.len()).into_iter().map(f32::signum).collect();
        let x = w.iter().zip(&chips).map(|(w, s)| w + MARK * s).collect();
        (w, chips, x)
    }

    fn z(cleaned: &Cleaned, chips: &[f32]) -> f64 {
        let sum: f64 = cleaned.residual.values.iter().zip(chips).map(|(u, s)| f64::from(u * s)).sum();
        sum / cleaned.residual.values.iter().map(|u| f64::from(*u).powi(2)).sum::<f64>().sqrt()
    }

    fn cleaned(x: &[f32], w: &[f32], partner: Option<&[f32]>) -> Cleaned {
        let (x, w) = (weights(COLUMNS, x), weights(COLUMNS, w));
        let scales = w.row_scales();
        clean(&x, &w, &scales, None, partner.map(|v| weights(COLUMNS, v)).as_ref())
    }

    fn quantised(x: &[f32], group: usize, levels: f32) -> Vec<f32> {
        let quantise = |group: &[f32]| {
            let step = 2.0 * group.iter().fold(0.0f32, |most, v| most.max(v.abs())) / levels;
            group.iter().map(|v| (v / step).round() * step).collect::<Vec<_>>()
        };
        x.chunks(group).flat_map(quantise).collect()
    }

    #[test]
    fn the_noise_of_quantisation_cancels() {
        let (w, chips, x) = marked();
        for (group, levels, least) in [(COLUMNS, 254.0, 60.0), (32, 14.0, 24.0), (COLUMNS, 14.0, 18.0), (32, 2.0, 8.0)]
        {
            let suspect = quantised(&x, group, levels);
            let plain = cleaned(&suspect, &w, None);
            assert_eq!(plain.reference, Reference::Grid);
            let scaled: Vec<f32> = suspect.iter().enumerate().map(|(i, x)| x * (1.0 + (i / COLUMNS) as f32)).collect();
            let scaled = cleaned(&scaled, &w, None);
            assert!(z(&plain, &chips) > least);
            // of one level beside zero the scale of a row is not found exactly enough
            assert!(levels < 3.0 || scaled.reference == Reference::Grid && z(&scaled, &chips) > 0.8 * least);
            assert!(z(&cleaned(&quantised(&w, group, levels), &w, None), &chips).abs() < 5.0);
        }
    }

    #[test]
    fn integers_with_a_zero_point_are_fitted() {
        let (w, chips, x) = marked();
        let codes: Vec<f32> = x.iter().map(|x| (x * 25.0 + 117.0).round().clamp(0.0, 255.0)).collect();
        let cleaned = cleaned(&codes, &w, None);
        assert!(cleaned.reference == Reference::Grid && z(&cleaned, &chips) > 60.0);
    }

    #[test]
    fn pruned_weights_tell_nothing_on_a_grid() {
        let (w, chips, x) = marked();
        let pruned: Vec<f32> = x.iter().map(|x| if x.abs() < 0.67 { 0.0 } else { *x }).collect();
        let cleaned = cleaned(&quantised(&pruned, 32, 14.0), &w, None);
        assert!(cleaned.reference == Reference::Grid && z(&cleaned, &chips) > 16.0);
    }

    #[test]
    fn drift_of_low_rank_is_taken_away_before_the_grid() {
        let (w, chips, x) = marked();
        let (a, b) = (normal(3, ROWS * 4), normal(4, COLUMNS * 4));
        let drift = |i: usize| (0..4).map(|k| 0.1 * a[i / COLUMNS * 4 + k] * b[i % COLUMNS * 4 + k]).sum::<f32>();
        let drifted: Vec<f32> = x.iter().enumerate().map(|(i, x)| x + drift(i)).collect();
        let found = cleaned(&drifted, &w, None);
        assert!(found.reference == Reference::Scaled && found.spikes == 4 && z(&found, &chips) > 200.0);
        let found = cleaned(&quantised(&drifted, COLUMNS, 254.0), &w, None);
        assert!(found.spikes == 4 && z(&found, &chips) > 40.0);
    }

    #[test]
    fn a_partner_is_taken_away() {
        let (w, chips, x) = marked();
        let v = normal(7, w.len());
        let merged: Vec<f32> = x.iter().zip(&v).map(|(x, v)| 0.4 * x + 0.6 * v).collect();
        let alone = cleaned(&merged, &w, None);
        let found = cleaned(&merged, &w, Some(&v));
        assert!(found.reference == Reference::Merged && z(&found, &chips) > 250.0 && z(&alone, &chips) < 5.0);
        let useless = cleaned(&x, &w, Some(&w));
        assert!(useless.reference == Reference::Scaled && z(&useless, &chips) > 250.0);
    }

    #[test]
    fn whatever_a_suspect_holds_the_residual_is_finite() {
        let (w, ..) = marked();
        let most = 1_152_921_504_606_846_976.0;
        for value in [0.0, 1.0, most, -most, f32::MIN_POSITIVE] {
            let mut mixed = w.clone();
            mixed.iter_mut().step_by(3).for_each(|x| *x = value);
            for x in [vec![value; w.len()], mixed] {
                for (a, b) in [(&x, &w), (&w, &x), (&x, &x)] {
                    assert!(cleaned(a, b, None).residual.values.iter().all(|u| u.is_finite()));
                    assert!(cleaned(a, b, Some(&x)).residual.values.iter().all(|u| u.is_finite()));
                }
            }
        }
    }
}
