//! What is added to weights, and what is taken from their spectrum.

use faer::{Mat, MatRef, Side};

use crate::model::{Tensor, Weights, is_embedding, map_matrices};
use crate::random::Random;

/// Normal noise, in each row `relative` times the root mean square of its weights.
pub(crate) fn noise(weights: &Weights, relative: f32) -> Weights {
    map_matrices(weights, |name, tensor| {
        let mut random = Random::new(1, name);
        let row = |row: &[f32]| {
            let scale = relative * rms(row);
            row.iter().map(|w| w + scale * random.normal()).collect::<Vec<_>>()
        };
        tensor.values.chunks(tensor.columns()).flat_map(row).collect()
    })
}

/// A random update of low rank, `relative` times as large as the matrix, everywhere but in embeddings: what merging a
/// LoRA does (Hu et al. 2021).
pub(crate) fn low_rank(weights: &Weights, rank: usize, relative: f32) -> Weights {
    map_matrices(weights, |name, tensor| {
        if is_embedding(name) {
            return tensor.values.clone();
        }
        let (rows, columns) = (tensor.rows(), tensor.columns());
        let mut random = Random::new(2, name);
        let mut factor = |rows, columns| {
            let values = random.normals(rows * columns);
            Mat::from_fn(rows, columns, |r, c| values[r * columns + c])
        };
        let update = factor(rows, rank) * factor(rank, columns);
        let update = elements(&update);
        let scale = relative * rms(&tensor.values) / rms(&update);
        tensor.values.iter().zip(update).map(|(w, u)| w + scale * u).collect()
    })
}

/// The nearest matrix of half the rank (Eckart and Young 1936), everywhere but in embeddings.
pub(crate) fn half_rank(weights: &Weights) -> Weights {
    map_matrices(weights, |name, tensor| if is_embedding(name) { tensor.values.clone() } else { truncated(tensor) })
}

fn truncated(tensor: &Tensor) -> Vec<f32> {
    let matrix = MatRef::from_row_major_slice(&tensor.values, tensor.rows(), tensor.columns());
    let is_wide = matrix.nrows() < matrix.ncols();
    let gram = if is_wide { matrix * matrix.transpose() } else { matrix.transpose() * matrix };
    let Ok(eigen) = gram.self_adjoint_eigen(Side::Lower) else { return tensor.values.clone() };
    let rank = gram.nrows() / 2;
    let basis = eigen.U().get(.., gram.nrows() - rank..); // eigenvalues ascend
    let low = if is_wide { basis * (basis.transpose() * matrix) } else { (matrix * basis) * basis.transpose() };
    elements(&low)
}

fn elements(matrix: &Mat<f32>) -> Vec<f32> {
    (0..matrix.nrows()).flat_map(|r| (0..matrix.ncols()).map(move |c| matrix[(r, c)])).collect()
}

fn rms(values: &[f32]) -> f32 {
    let sum: f64 = values.iter().map(|w| f64::from(*w) * f64::from(*w)).sum();
    (sum / values.len().max(1) as f64).sqrt() as f32
}
