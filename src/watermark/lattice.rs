//! The owner mark of a block: dithered quantisation (Chen and Wornell 2001) of the projections of groups of weights.

use super::fingerprint::CODE_LEN;
use super::keystream::{Chips, Role};
use super::lanes::{self, R, clip, vectorised};
use super::weights::{Weights, row_pieces, run};

/// Units of a normalised weight in which projections are summed, as integers, so that every implementation finds the same.
const UNITS: f32 = 16_384.0;
/// Rows of a smaller scale say nothing: what they are divided by must stay finite.
pub(super) const LEAST_SCALE: f32 = 1e-30;
/// A normalised weight counts as 128 at most.
const LIMIT: f32 = 128.0 * UNITS;

/// For each group of a block its projection onto its chips.
pub(super) struct Projections {
    /// Sum of chip times weight over its row's scale, over the root of the count.
    pub(super) values: Vec<f64>,
    /// Owner weights of the group.
    pub(super) counts: Vec<u64>,
}

impl Projections {
    pub(super) fn new(weights: &Weights, scales: &[f32], chips: &Chips) -> Self {
        Self::of(&sums(weights, scales, chips), chips.group_sizes(weights.values.len()))
    }

    /// From the sums of [`units`] of each group, and the owner weights it has.
    pub(super) fn of(sums: &[i64], counts: Vec<u64>) -> Self {
        let project = |(sum, count): (&i64, &u64)| *sum as f64 / f64::from(UNITS) / (*count.max(&1) as f64).sqrt();
        Self { values: sums.iter().zip(&counts).map(project).collect(), counts }
    }

    /// Distance between the points of a group's lattice, in units of its projection.
    pub(super) fn spacing(strength: f64, count: u64) -> f64 {
        strength * (12.0 * count.max(1) as f64).sqrt()
    }

    /// The owner's displacement of every group: how far its projection is moved to reach the lattice, as the change of
    /// a weight over its row's scale; the chip gives the sign.
    pub(super) fn displacements(&self, dither: &[f64], strength: f64) -> Vec<f64> {
        let amplitude = self.values.iter().zip(&self.counts).zip(dither).map(|((p, count), dither)| {
            if *count == 0 {
                return 0.0;
            }
            let spacing = Self::spacing(strength, *count);
            let target = spacing * ((p / spacing + dither).round_ties_even() - dither);
            (target - p) / (*count as f64).sqrt()
        });
        amplitude.collect()
    }
}

vectorised! {
    /// The sums of [`units`] of each group.
    fn sums(weights: &'a Weights, scales: &'a [f32], chips: &'a Chips) -> Vec<i64> {
        let (mut sums, mut pad) = (vec![0; chips.dither.len()], [0.0; 64]);
        for (row, scale) in scales.iter().enumerate() {
            for piece in row_pieces(row, weights.columns) {
                if let Role::Owner(group) = chips.role(piece.run, CODE_LEN) {
                    sums[group] += units(run(&weights.values, piece, &mut pad), *scale, &lanes::sign_bits(chips.signs(piece.run)));
                }
            }
        }
        sums
    }
}

/// The sum of chip times weight over its row's scale, of the weights of a run, in units.
#[inline(always)]
pub(super) fn units(weights: &R, scale: f32, sign_bits: &[u32; 64]) -> i64 {
    /// What is added to this is rounded to its last bit, which is worth 1.
    const SHIFT: f32 = 12_582_912.0; // 1.5 * 2^23
    let factor = if scale >= LEAST_SCALE { UNITS / scale } else { 0.0 };
    let mut sum = 0i32;
    for i in 0..64 {
        let value = clip(weights[i] * factor, LIMIT);
        let signed = f32::from_bits(value.to_bits() ^ sign_bits[i]);
        sum = sum.wrapping_add((signed + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()) as i32);
    }
    i64::from(sum)
}

/// Change of a copy weight at strength 1: half of the energy uniform over the row, half proportional to the weight.
#[inline(always)]
pub(super) fn copy_amplitude(weight: f32, scale: f32) -> f32 {
    (0.5 * scale * scale + 0.5 * (weight * weight)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::super::keystream::Key;
    use super::*;

    #[test]
    fn projections_are_sums_of_chips_and_weights_in_any_shape() {
        for (columns, rows) in [(1, 700), (9, 80), (64, 20), (100, 11), (384, 4)] {
            let mut weights = Weights::zeroed(columns, rows);
            for (i, value) in weights.values.iter_mut().enumerate() {
                *value = ((i * 7919) % 1000) as f32 / 500.0 - 1.0;
            }
            let chips = Chips::new(&Key::new([7; 32]), columns * rows, 2);
            let scales = weights.row_scales();
            let found = Projections::new(&weights, &scales, &chips);
            let (mut sums, mut counts) = ([0.0f64; 2], [0u64; 2]);
            for i in 0..columns * rows {
                let Role::Owner(group) = chips.role(i / 64, CODE_LEN) else { continue };
                let chip = if chips.signs(i / 64) >> (i % 64) & 1 == 1 { 1.0 } else { -1.0 };
                let scale = scales[i / columns];
                let unit = if scale > 0.0 { f64::from(weights.values[i] * (UNITS / scale)) } else { 0.0 };
                sums[group] += chip * unit.round_ties_even() / f64::from(UNITS);
                counts[group] += 1;
            }
            assert_eq!(found.counts, counts);
            for (value, (sum, count)) in found.values.iter().zip(sums.iter().zip(counts)) {
                assert!((value - sum / (count as f64).sqrt()).abs() < 1e-9, "{columns} {rows}");
            }
        }
    }
}
