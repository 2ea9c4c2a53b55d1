//! Detection without the original: how close the projections of a suspect lie to the secret lattice.
//!
//! Embedding moves the projection `p` of every group of weights to a point of a lattice of spacing `d` that is shifted
//! by a secret dither `u`, uniform and used once (Chen and Wornell 2001). So `p / d + u` is near a whole number in
//! marked weights. In all others its fraction, the *phase*, is uniform, independently from group to group: given the
//! suspect and the chips the projections are fixed, and the dithers are independent of both. Nothing is assumed of the
//! suspect but that it was made without the dither, and weights of groups may be any function of suspect and chips.
//!
//! What is needed is the key, the shapes of the carriers and the suspect's weights in their places. Row scales are the
//! suspect's own: an error of 1 % in them moves a phase by less than 1 % of a turn.

use std::f64::consts::TAU;

use super::keystream::Chips;
use super::lattice::{LEAST_SCALE, Projections};
use super::statistics::{CosineTerm, log10_p_cosines};
use super::weights::Weights;

/// The phases of a suspect's groups, in the order of blocks and groups.
#[derive(Clone, Debug, Default)]
pub(super) struct Phases(Vec<CosineTerm>);

impl Phases {
    /// The phases of one block of a suspect, all of whose weights are finite. Blocks of which over an eighth of the
    /// rows are zero have none: too much is missing for the rest to lie where it did.
    pub(super) fn of_block(suspect: &Weights, chips: &Chips, strength: f64) -> Self {
        let mut scales = suspect.row_scales();
        scales.iter_mut().filter(|scale| **scale < LEAST_SCALE).for_each(|scale| *scale = 0.0);
        let missing = scales.iter().filter(|scale| **scale == 0.0).count();
        if missing > scales.len() / 8 {
            return Self::default();
        }
        let projections = Projections::new(suspect, &scales, chips);
        let groups = projections.values.iter().zip(&projections.counts).zip(&chips.dither);
        let term = |((p, count), dither): ((&f64, &u64), &f64)| {
            let turns = p / Projections::spacing(strength, *count) + dither;
            // noise of a given size per weight is the smaller a part of the spacing the larger the group
            CosineTerm { cosine: libm::cos(TAU * (turns - turns.round_ties_even())), weight: *count as f64 }
        };
        Self(groups.filter(|((_, count), _)| **count > 0).map(term).collect())
    }

    /// Adds those of the blocks that follow.
    pub(super) fn extend(&mut self, next: Self) {
        self.0.extend(next.0);
    }

    /// How many there are.
    pub(super) fn groups(&self) -> usize {
        self.0.len()
    }

    /// Mean cosine: 1 for weights just marked, 0 on average for others.
    pub(super) fn mean_cosine(&self) -> f64 {
        self.0.iter().map(|term| term.cosine).sum::<f64>() / self.0.len().max(1) as f64
    }

    /// Bound on the probability that a suspect made without the key lies as close to its lattice.
    pub(super) fn log10_p(&self) -> f64 {
        log10_p_cosines(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watermark::keystream::Key;
    use crate::watermark::stamp::stamp;

    const ROWS: usize = 256;
    const COLUMNS: usize = 256;
    const GROUPS: usize = 8;

    fn weights() -> Weights {
        let mut weights = Weights::zeroed(COLUMNS, ROWS);
        let noise = Key::new([9; 32]).uniforms("noise", ROWS * COLUMNS);
        weights.values.iter_mut().zip(noise).for_each(|(w, u)| *w = (u - 0.5) as f32);
        weights
    }

    fn chips(key: u8) -> Chips {
        Chips::new(&Key::new([key; 32]), ROWS * COLUMNS, GROUPS)
    }

    #[test]
    fn marked_weights_lie_on_the_lattice_of_their_key_alone() {
        let marked = stamp(&weights(), &chips(1), 0.01, None);
        let right = Phases::of_block(&marked, &chips(1), 0.01);
        assert_eq!(right.groups(), GROUPS);
        assert!(right.mean_cosine() > 0.99, "{}", right.mean_cosine());
        assert!(right.log10_p() < -8.0, "{}", right.log10_p());
        for (suspect, key) in [(&marked, 2), (&weights(), 1), (&weights(), 2)] {
            assert!(Phases::of_block(suspect, &chips(key), 0.01).log10_p() > -3.0);
        }
    }

    #[test]
    fn what_is_zero_tiny_or_huge_says_nothing() {
        let log10_p = |weights: &Weights| Phases::of_block(weights, &chips(1), 0.01).log10_p();
        for value in [0.0, 1e-38, 1e-45, 1e18, -1.0] {
            let mut constant = weights();
            constant.values.fill(value);
            assert!(log10_p(&constant) > -3.0, "{value}");
        }
        assert_eq!(log10_p(&Weights::zeroed(COLUMNS, ROWS)), 0.0);
        let mut gone = stamp(&weights(), &chips(1), 0.01, None);
        gone.values[..ROWS * COLUMNS / 4].fill(0.0);
        assert_eq!(log10_p(&gone), 0.0);
    }
}
