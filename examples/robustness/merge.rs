//! Models merged with others.

use crate::model::{Weights, combine, map_matrices};
use crate::prune::random_like;

/// Half-way between two models.
pub(crate) fn half(a: &Weights, b: &Weights) -> Weights {
    combine(a, b, |a, b| (a + b) / 2.0)
}

/// `from` and `strength` times the way to `to`.
pub(crate) fn along(from: &Weights, to: &Weights, strength: f32) -> Weights {
    combine(from, to, |from, to| from + strength * (to - from))
}

/// `base` changed as `from` was changed to become `to`.
pub(crate) fn transplant(base: &Weights, from: &Weights, to: &Weights) -> Weights {
    combine(base, &combine(to, from, |to, from| to - from), |base, change| base + change)
}

/// A model of the same shapes that has nothing to do with this one, but for the scales of its rows.
pub(crate) fn unrelated(weights: &Weights) -> Weights {
    map_matrices(weights, random_like)
}
