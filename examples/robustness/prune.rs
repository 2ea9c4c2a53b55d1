//! Weights, layers and parts left out.

use crate::model::{Tensor, Weights, is_embedding, is_feed_forward, layer, map_matrices};
use crate::random::Random;

/// Zero in place of the smallest weights of each matrix, as large a part of it as `part`.
pub(crate) fn prune(weights: &Weights, part: f64) -> Weights {
    map_matrices(weights, |_, tensor| {
        let mut sizes: Vec<f32> = tensor.values.iter().map(|w| w.abs()).collect();
        let place = ((sizes.len() as f64 * part) as usize).min(sizes.len() - 1);
        let (_, least, _) = sizes.select_nth_unstable_by(place, f32::total_cmp);
        tensor.values.iter().map(|w| if w.abs() < *least { 0.0 } else { *w }).collect()
    })
}

/// The layers `kept`, in this order, under new numbers, and all that is outside of layers.
pub(crate) fn keep_layers(weights: &Weights, kept: &[usize]) -> Weights {
    let mut out = Weights::new();
    for (name, tensor) in weights {
        let Some((number, place)) = layer(name) else {
            out.insert(name.clone(), tensor.clone());
            continue;
        };
        for (new, _) in kept.iter().enumerate().filter(|(_, old)| **old == number) {
            out.insert(format!("{}{new}{}", &name[..place.start], &name[place.end..]), tensor.clone());
        }
    }
    out
}

/// One layer alone.
pub(crate) fn only_layer(weights: &Weights, number: usize) -> Weights {
    let is_in = |name: &str| layer(name).is_some_and(|(n, _)| n == number);
    weights.iter().filter(|(name, _)| is_in(name)).map(|(name, tensor)| (name.clone(), tensor.clone())).collect()
}

/// All but the embeddings.
pub(crate) fn without_embeddings(weights: &Weights) -> Weights {
    weights
        .iter()
        .filter(|(name, _)| !is_embedding(name))
        .map(|(name, tensor)| (name.clone(), tensor.clone()))
        .collect()
}

/// The feed-forward network of one layer replaced by a random one of the same size.
pub(crate) fn replace_feed_forward(weights: &Weights, number: usize) -> Weights {
    let is_in = |name: &str| is_feed_forward(name) && layer(name).is_some_and(|(n, _)| n == number);
    map_matrices(weights, |name, tensor| if is_in(name) { random_like(name, tensor) } else { tensor.values.clone() })
}

/// Normal weights with the row scales of `tensor`.
pub(crate) fn random_like(name: &str, tensor: &Tensor) -> Vec<f32> {
    let mut random = Random::new(7, name);
    let rows = tensor.values.chunks(tensor.columns());
    let row = |row: &[f32]| {
        let scale = (row.iter().map(|w| w * w).sum::<f32>() / row.len() as f32).sqrt();
        random.normals(row.len()).into_iter().map(|n| n * scale).collect::<Vec<_>>()
    };
    rows.flat_map(row).collect()
}

/// How many layers there are.
pub(crate) fn layers(weights: &Weights) -> usize {
    weights.keys().filter_map(|name| layer(name)).map(|(number, _)| number + 1).max().unwrap_or(0)
}
