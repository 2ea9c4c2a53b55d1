//! A model in memory: named tensors of `f32`.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use weightmark::Model;
use weightmark::format::safetensors::{TensorData, to_bytes};
use weightmark::tensor::{Dtype, lanes};

use crate::Result;

/// The tensors of a model, by name.
pub(crate) type Weights = BTreeMap<String, Tensor>;

/// A tensor, row by row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    /// The dimensions.
    pub(crate) shape: Vec<u64>,
    /// The elements.
    pub(crate) values: Vec<f32>,
}

impl Tensor {
    /// Whether it is worth an attack.
    pub(crate) fn is_matrix(&self) -> bool {
        self.shape.len() >= 2 && self.values.len() >= 4096
    }

    /// Rows, as a matrix: the first dimension.
    pub(crate) fn rows(&self) -> usize {
        self.shape.first().map_or(1, |rows| *rows as usize)
    }

    /// Columns: the product of the other dimensions.
    pub(crate) fn columns(&self) -> usize {
        self.values.len() / self.rows().max(1)
    }

    /// The same shape with other elements.
    pub(crate) fn with(&self, values: Vec<f32>) -> Self {
        Self { shape: self.shape.clone(), values }
    }
}

/// Reads the tensors of numbers of a model: a file or a directory.
pub(crate) fn load(path: &Path) -> Result<Weights> {
    let model = Model::options().danger_accept_plaintext().danger_accept_unsigned().open(path)?;
    let mut weights = Weights::new();
    for (name, info) in model.tensors().map(|(_, info)| (info.name.clone(), info)) {
        if lanes::is_float(info.dtype) {
            let tensor = Tensor { shape: info.shape.clone(), values: model.tensor(&name)?.to_f32()? };
            weights.insert(name, tensor);
        }
    }
    Ok(weights)
}

/// Writes a safetensors file of `F32`.
pub(crate) fn save(weights: &Weights, path: &Path) -> Result<()> {
    let bytes: Vec<Vec<u8>> =
        weights.par_iter().map(|(_, tensor)| tensor.values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let tensors: Vec<_> = weights
        .iter()
        .zip(&bytes)
        .map(|((name, tensor), bytes)| TensorData { name, dtype: Dtype::F32, shape: &tensor.shape, bytes })
        .collect();
    std::fs::write(path, to_bytes(&tensors, &BTreeMap::new())?)?;
    Ok(())
}

/// Every matrix changed by `f`, which is given its name.
pub(crate) fn map_matrices(weights: &Weights, f: impl Fn(&str, &Tensor) -> Vec<f32> + Sync) -> Weights {
    let changed = weights.par_iter().map(|(name, tensor)| {
        let changed = if tensor.is_matrix() { tensor.with(f(name, tensor)) } else { tensor.clone() };
        (name.clone(), changed)
    });
    changed.collect()
}

/// Every tensor that two models share combined by `f`, element by element; the others as the first has them.
pub(crate) fn combine(a: &Weights, b: &Weights, f: impl Fn(f32, f32) -> f32 + Sync) -> Weights {
    let both = a.par_iter().map(|(name, tensor)| {
        let combined = match b.get(name).filter(|other| other.shape == tensor.shape) {
            Some(other) => tensor.with(tensor.values.iter().zip(&other.values).map(|(a, b)| f(*a, *b)).collect()),
            None => tensor.clone(),
        };
        (name.clone(), combined)
    });
    both.collect()
}

/// Root mean square of the difference of matrices of one name and shape over that of `from`, if there are any.
pub(crate) fn relative_change(from: &Weights, to: &Weights) -> Option<f64> {
    let sums = from.iter().filter(|(_, tensor)| tensor.is_matrix()).filter_map(|(name, a)| {
        let b = to.get(name).filter(|b| b.shape == a.shape)?;
        let pairs = || a.values.iter().zip(&b.values).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        let (change, energy) = pairs().fold((0.0, 0.0), |(c, e), (a, b)| (c + (a - b).powi(2), e + a * a));
        Some((change, energy))
    });
    let (change, energy) = sums.fold((0.0, 0.0), |(c, e), (change, energy)| (c + change, e + energy));
    (energy > 0.0).then(|| (change / energy).sqrt())
}

/// The number of the layer that a tensor belongs to, and where in its name that stands.
pub(crate) fn layer(name: &str) -> Option<(usize, std::ops::Range<usize>)> {
    let mut start = 0;
    for part in name.split('.') {
        let range = start..start + part.len();
        if let Ok(number) = part.parse() {
            return Some((number, range));
        }
        start = range.end + 1;
    }
    None
}

/// Whether a tensor maps tokens or positions to vectors or back.
pub(crate) fn is_embedding(name: &str) -> bool {
    ["embed", "token_embd", "lm_head", "wte", "wpe"].iter().any(|part| name.contains(part))
}

/// Whether a tensor belongs to a feed-forward network.
pub(crate) fn is_feed_forward(name: &str) -> bool {
    let parts = ["mlp", "ffn", "intermediate", "output.dense"];
    parts.iter().any(|part| name.contains(part)) && !name.contains("att")
}
