//! The grid that a quantised suspect lies on: for each weight the cell of numbers that are stored as this one.
//!
//! A quantised weight tells of what it was only that it lay in its cell. Where the original lies far from both ends of the
//! cell this tells nothing; where it lies close to one, both staying inside and crossing over tell the sign of a change.
//! So the noise of quantisation, which is the original's own, cancels.

use super::super::weights::Weights;

/// More levels than this are no grid worth knowing.
const MOST_LEVELS: f32 = 600.0;
/// Distance of a value from its level, in steps, that is still exact: steps may be stored in half precision.
const EXACT: f32 = 0.04;
/// So many different values on a grid are no chance, even if they do not fill it.
const MANY: usize = 20;
/// Groups of successive weights of a row that share a step, besides whole rows.
const GROUPS: [usize; 4] = [256, 128, 64, 32];
/// Rows looked at before a grid is looked for in all.
const TRIED: usize = 24;
/// Most different values of a block that are taken as one codebook.
const CODEBOOK: usize = 1024;
/// Zeros of which more than this part cannot come from the grid were pruned.
const PRUNED: f64 = 0.1;

/// The cells of a block: where the original number of each weight lay. Without bounds where nothing is known.
pub(in crate::watermark) struct Grid {
    pub(in crate::watermark) low: Weights,
    pub(in crate::watermark) high: Weights,
}

impl Grid {
    /// The grid of floats that were quantised, as far as their values show it: multiples of a step in each row or group,
    /// with an offset or without, or few different values in the block.
    pub(super) fn infer(x: &Weights) -> Option<Self> {
        let sizes = std::iter::once(x.columns).chain(GROUPS.into_iter().filter(|size| *size < x.columns));
        let size = sizes.into_iter().find(|size| shows_steps(x, *size));
        let mut grid = Self::unknown(x.columns, x.values.len() / x.columns.max(1));
        if let Some(size) = size {
            let mut levels = Levels::default();
            let groups = x.rows().flat_map(|row| row.chunks(size));
            let steps: Vec<_> = groups
                .map(|group| {
                    levels.sort(group);
                    levels.steps()
                })
                .collect();
            let codes = steps.iter().flatten().filter_map(|steps| steps.codes());
            let range = codes.fold((0.0f32, 0.0f32), |(least, most), (l, m)| (least.min(l), most.max(m)));
            let groups = x.rows().flat_map(|row| row.chunks(size));
            let low = rows_mut(&mut grid.low).flat_map(|row| row.chunks_mut(size));
            let high = rows_mut(&mut grid.high).flat_map(|row| row.chunks_mut(size));
            for (((group, low), high), steps) in groups.zip(low).zip(high).zip(steps) {
                if let Some(steps) = steps {
                    steps.within(range).cells(group, low, high);
                }
            }
            return Some(grid);
        }
        let levels = codebook(x)?;
        let cells = x.values.iter().zip(grid.low.values.iter_mut().zip(grid.high.values.iter_mut()));
        for (x, (low, high)) in cells {
            let after = levels.partition_point(|level| level < x);
            let between = |a: usize, b: usize| Some((levels.get(a)? + levels.get(b)?) / 2.0);
            *low = after.checked_sub(1).and_then(|before| between(before, after)).unwrap_or(f32::NEG_INFINITY);
            *high = between(after, after + 1).unwrap_or(f32::INFINITY);
        }
        Some(grid)
    }

    /// Whether the suspect's zeros cannot come from its grid, when `centre` is what it was rounded from.
    pub(super) fn is_pruned(&self, x: &Weights, centre: &Weights) -> bool {
        let (mut zeros, mut strange) = (0u64, 0u64);
        for (i, _) in x.values.iter().enumerate().filter(|(_, x)| **x == 0.0) {
            let (low, high, m) = (self.low.values[i], self.high.values[i], centre.values[i]);
            let margin = (high - low) / 4.0;
            zeros += 1;
            strange += u64::from(m < low - margin || m > high + margin);
        }
        strange as f64 > PRUNED * zeros as f64
    }

    /// The same grid, but for the suspect's zeros.
    pub(super) fn without_zeros(&self, x: &Weights) -> Self {
        let mut grid = Self { low: self.low.copy(), high: self.high.copy() };
        let cells = grid.low.values.iter_mut().zip(grid.high.values.iter_mut());
        for (cell, _) in cells.zip(x.values.iter()).filter(|(_, x)| **x == 0.0) {
            (*cell.0, *cell.1) = (f32::NEG_INFINITY, f32::INFINITY);
        }
        grid
    }

    /// No bounds anywhere.
    pub(in crate::watermark) fn unknown(columns: usize, rows: usize) -> Self {
        let filled = |value: f32| {
            let mut weights = Weights::zeroed(columns, rows);
            weights.values.fill(value);
            weights
        };
        Self { low: filled(f32::NEG_INFINITY), high: filled(f32::INFINITY) }
    }
}

fn rows_mut(weights: &mut Weights) -> impl Iterator<Item = &mut [f32]> {
    weights.values.chunks_exact_mut(weights.columns.max(1))
}

/// Whether most of some groups of this size, spread over the block, lie on steps.
fn shows_steps(x: &Weights, size: usize) -> bool {
    let rows = x.values.len() / x.columns.max(1);
    let (mut levels, mut seen, mut on_steps) = (Levels::default(), 0, 0);
    for k in 0..TRIED.min(rows) {
        let row = &x.values[k * rows / TRIED.min(rows) * x.columns..][..x.columns];
        let groups = row.len().div_ceil(size);
        levels.sort(row.chunks(size).nth(k % groups).unwrap_or_default());
        if levels.values.len() > 1 {
            seen += 1;
            on_steps += usize::from(levels.steps().is_some());
        }
    }
    seen > 0 && 4 * on_steps >= 3 * seen
}

/// The different values of a group, ascending.
#[derive(Default)]
struct Levels {
    values: Vec<f32>,
    count: usize,
}

/// Levels `offset + k * step`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Steps {
    step: f32,
    lowest: f32,
    highest: f32,
}

impl Levels {
    fn sort(&mut self, group: &[f32]) {
        self.values.clear();
        self.values.extend_from_slice(group);
        self.values.sort_unstable_by(f32::total_cmp);
        self.values.dedup();
        self.count = group.len();
    }

    /// The step of which all distances are multiples, if there are enough of them to tell.
    fn steps(&self) -> Option<Steps> {
        let (lowest, highest) = (*self.values.first()?, *self.values.last()?);
        let span = highest - lowest;
        let gaps = || self.values.windows(2).map(|pair| pair[1] - pair[0]);
        let smallest = gaps().fold(f32::INFINITY, f32::min);
        let is_wide = span > 0.0 && span.is_finite() && smallest > span / MOST_LEVELS;
        let (different, all) = (self.values.len(), self.count);
        let is_chance = different * 3 > all * 2 && different < 12; // few values, and hardly one twice
        if !is_wide || is_chance {
            return None;
        }
        (1..=3).find_map(|part| self.multiples_of(smallest / part as f32, lowest, highest))
    }

    /// The step near `step` that fits the levels, if all of them lie on it.
    fn multiples_of(&self, mut step: f32, lowest: f32, highest: f32) -> Option<Steps> {
        let middle = self.values[self.values.len() / 2]; // levels are dense there, and small ones more exact
        for most in [4.0, 16.0, 64.0, f64::INFINITY] {
            // a step found from small distances serves for larger ones once they have refined it
            let (mut kk, mut kd) = (0.0f64, 0.0f64);
            for value in &self.values {
                let distance = f64::from(value - middle);
                let k = (distance / f64::from(step)).round();
                if k.abs() <= most && (distance / f64::from(step) - k).abs() < 0.25 {
                    kk += k * k;
                    kd += k * distance;
                }
            }
            step = if kk > 0.0 { (kd / kk) as f32 } else { step };
        }
        // many values may each be less exact, and few must fill the levels
        let many = self.values.len() >= MANY;
        let exact = |value: &&f32| {
            let k = (*value - middle) / step;
            (k - k.round()).abs() < if many { 3.0 * EXACT } else { EXACT }
        };
        let levels = (highest - lowest) / step + 1.0;
        let fits = step > 0.0
            && levels < MOST_LEVELS
            && (many || levels < 4.0 * self.values.len() as f32)
            && self.values.iter().filter(exact).count() == self.values.len();
        fits.then_some(Steps { step, lowest, highest })
    }
}

impl Steps {
    /// The least and the greatest code, if zero is a level.
    fn codes(&self) -> Option<(f32, f32)> {
        let (least, most) = (self.lowest / self.step, self.highest / self.step);
        let has_zero = (least - least.round()).abs() < 2.0 * EXACT && least.abs() < MOST_LEVELS;
        has_zero.then_some((least.round(), most.round()))
    }

    /// The same levels, of codes in this range, if zero is one of them.
    fn within(self, codes: (f32, f32)) -> Self {
        match self.codes() {
            Some(_) => Self { lowest: codes.0 * self.step, highest: codes.1 * self.step, ..self },
            None => self,
        }
    }

    /// The cells of values on these levels. The outermost have no end: nothing says that they were not cut off there.
    fn cells(self, x: &[f32], low: &mut [f32], high: &mut [f32]) {
        let half = self.step / 2.0;
        let base = if self.codes().is_some() { 0.0 } else { self.lowest };
        for ((x, low), high) in x.iter().zip(low).zip(high) {
            let level = base + ((x - base) / self.step).round() * self.step; // as it was before it was stored
            *low = if *x <= self.lowest + half { f32::NEG_INFINITY } else { level - half };
            *high = if *x >= self.highest - half { f32::INFINITY } else { level + half };
        }
    }
}

/// The different values of the block, if they are few.
fn codebook(x: &Weights) -> Option<Vec<f32>> {
    let mut levels: Vec<f32> = Vec::new();
    for piece in x.values.chunks(4 * CODEBOOK) {
        levels.extend_from_slice(piece);
        levels.sort_unstable_by(f32::total_cmp);
        levels.dedup();
        if levels.len() > CODEBOOK || levels.len() * 4 > x.values.len() {
            return None;
        }
    }
    (levels.len() > 1).then_some(levels)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{normal, weights};
    use super::*;

    fn quantised(values: &[f32], group: usize, levels: f32, zero_point: bool) -> Vec<f32> {
        let quantise = |group: &[f32]| {
            let most = group.iter().fold(0.0f32, |most, v| most.max(v.abs()));
            let (low, high) = group.iter().fold((0.0f32, 0.0f32), |(l, h), v| (l.min(*v), h.max(*v)));
            let step = if zero_point { (high - low) / levels } else { 2.0 * most / levels };
            let offset = if zero_point { low } else { 0.0 };
            group.iter().map(|v| ((v - offset) / step).round() * step + offset).collect::<Vec<_>>()
        };
        values.chunks(group).flat_map(quantise).collect()
    }

    #[test]
    fn steps_are_found_whatever_shares_them() {
        let original = normal(5, 64 * 384);
        for (group, levels, zero_point) in [
            (384, 254.0, false),
            (384, 255.0, true),
            (384, 14.0, false),
            (128, 6.0, false),
            (32, 14.0, false),
            (32, 15.0, true),
            (32, 2.0, false),
            (64 * 384, 254.0, false),
            (64, 3.0, true),
        ] {
            let mut values = quantised(&original, group, levels, zero_point);
            for half in [false, true] {
                if half {
                    values.iter_mut().for_each(|v| *v = half::f16::from_f32(*v).to_f32());
                }
                let x = weights(384, &values);
                let grid = Grid::infer(&x).unwrap_or_else(|| panic!("{group} {levels} {zero_point} {half}"));
                let cells = grid.low.values.iter().zip(grid.high.values.iter()).zip(&original);
                let right = cells.clone().filter(|((low, high), w)| *low - 1e-3 <= **w && **w <= *high + 1e-3).count();
                let known = cells.filter(|((low, high), _)| low.is_finite() || high.is_finite()).count();
                let (right, known) = (right as f64 / values.len() as f64, known as f64 / values.len() as f64);
                assert!(right > 0.99 && known > 0.9, "{group} {levels} {zero_point} {half}: {right} {known}");
            }
        }
    }

    #[test]
    fn floats_lie_on_no_grid() {
        for columns in [384, 32, 9, 1] {
            assert!(Grid::infer(&weights(columns, &normal(6, 288 * 64))).is_none(), "{columns}");
        }
        let constants = [0.0, 1.0, f32::MAX];
        constants.iter().for_each(|c| assert!(Grid::infer(&weights(64, &vec![*c; 64 * 64])).is_none(), "{c}"));
    }

    #[test]
    fn a_codebook_has_cells_between_its_levels() {
        let levels = [-1.0, -0.31, 0.0, 0.17, 0.93];
        let values: Vec<f32> = (0..64 * 64).map(|i| levels[i * 7 % 5]).collect();
        let grid = Grid::infer(&weights(64, &values)).unwrap();
        assert_eq!((grid.low.values[1], grid.high.values[1]), (-0.155, 0.085)); // of 0.0
        assert_eq!((grid.low.values[0], grid.high.values[0]), (f32::NEG_INFINITY, -0.655));
    }
}
