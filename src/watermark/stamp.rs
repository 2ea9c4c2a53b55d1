//! What the weights of a block are to become: the owner mark and the copy mark added, before they are stored.

use super::fingerprint::CODE_LEN;
use super::keystream::{Chips, RUN, Role};
use super::lanes::{self, vectorised};
use super::lattice::{Projections, copy_amplitude};
use super::weights::{Weights, row_pieces, run};

/// The marked weights, not yet rounded to their type. Without a `word`, weights of the copy mark stay as they are.
pub(super) fn stamp(weights: &Weights, chips: &Chips, strength: f64, word: Option<&[bool]>) -> Weights {
    let scales = weights.row_scales();
    let displacements = Projections::new(weights, &scales, chips).displacements(&chips.dither, strength);
    let mut marked = Weights::unfilled(weights.columns, scales.len());
    change(weights, &mut marked, &scales, &displacements, chips, strength as f32, word);
    marked
}

vectorised! {
    fn change(
        weights: &'a Weights,
        marked: &'a mut Weights,
        scales: &'a [f32],
        displacements: &'a [f64],
        chips: &'a Chips,
        strength: f32,
        word: Option<&'a [bool]>
    ) -> () {
        let mut pad = [0.0; RUN];
        for (row, scale) in scales.iter().copied().enumerate() {
            for piece in row_pieces(row, weights.columns) {
                let w = run(&weights.values, piece, &mut pad);
                let bits = lanes::sign_bits(chips.signs(piece.run));
                let mut x = [0.0; RUN];
                match (chips.role(piece.run, CODE_LEN), word) {
                    (Role::Owner(group), _) => {
                        let change = (f64::from(scale) * displacements[group]) as f32;
                        for i in 0..RUN {
                            x[i] = w[i] + f32::from_bits(change.to_bits() ^ bits[i]);
                        }
                    }
                    (Role::Copy(position), Some(word)) => {
                        let strength = if word[position] { strength } else { -strength };
                        for i in 0..RUN {
                            let change = strength * copy_amplitude(w[i], scale);
                            x[i] = w[i] + f32::from_bits(change.to_bits() ^ bits[i]);
                        }
                    }
                    (Role::Copy(_), None) => x = *w,
                }
                let to = &mut marked.values[piece.range()];
                match <&mut [f32; RUN]>::try_from(&mut *to) {
                    Ok(to) => *to = x,
                    Err(_) => to.copy_from_slice(&x[piece.offset()..][..to.len()]),
                }
            }
        }
    }
}
