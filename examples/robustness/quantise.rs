//! Narrower numbers: casts, and integers with a scale for each group, stored as what they stand for.

use half::{bf16, f16};
use weightmark::tensor::Dtype;
use weightmark::tensor::lanes::{NEAREST, reload, store};

use crate::model::{Tensor, Weights, map_matrices};

/// Which weights share a scale.
#[derive(Clone, Copy)]
pub(crate) enum Group {
    /// All of a tensor.
    Tensor,
    /// Those of a row.
    Row,
    /// So many successive ones of a row.
    Of(usize),
}

/// Half precision.
pub(crate) fn to_f16(weights: &Weights) -> Weights {
    each(weights, |w| f16::from_f32(w).to_f32())
}

/// bfloat16.
pub(crate) fn to_bf16(weights: &Weights) -> Weights {
    each(weights, |w| bf16::from_f32(w).to_f32())
}

/// E4M3, with a scale for each tensor that puts its largest weight on the largest number.
pub(crate) fn to_fp8(weights: &Weights) -> Weights {
    map_matrices(weights, |_, tensor| {
        let scale = largest(&tensor.values) / 448.0;
        if scale <= 0.0 {
            return tensor.values.clone();
        }
        let mut values: Vec<f32> = tensor.values.iter().map(|w| w / scale).collect();
        let (mut bytes, words) = (vec![0; values.len()], vec![NEAREST; values.len()]);
        store(Dtype::F8_E4M3, &values, &words, &mut bytes);
        reload(Dtype::F8_E4M3, &bytes, &mut values);
        values.iter().map(|value| value * scale).collect()
    })
}

/// Symmetric integers of so many bits.
pub(crate) fn to_integers(weights: &Weights, bits: u32, group: Group) -> Weights {
    map_matrices(weights, |_, tensor| {
        let mut values = tensor.values.clone();
        match group {
            Group::Tensor => round(&mut values, bits),
            Group::Row => values.chunks_mut(tensor.columns()).for_each(|row| round(row, bits)),
            Group::Of(size) => {
                let groups = values.chunks_mut(tensor.columns()).flat_map(|row| row.chunks_mut(size));
                groups.for_each(|group| round(group, bits));
            }
        }
        values
    })
}

fn round(group: &mut [f32], bits: u32) {
    let most = ((1 << (bits - 1)) - 1) as f32;
    let step = largest(group) / most;
    if step > 0.0 {
        group.iter_mut().for_each(|w| *w = step * (*w / step).round().clamp(-most, most));
    }
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, w| most.max(w.abs()))
}

fn each(weights: &Weights, f: impl Fn(f32) -> f32 + Sync) -> Weights {
    map_matrices(weights, |_, tensor: &Tensor| tensor.values.iter().map(|w| f(*w)).collect())
}
