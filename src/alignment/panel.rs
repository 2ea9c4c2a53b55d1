//! Parts of tensors, looked at as matrices whose columns are the hidden dimensions.

use std::sync::Arc;

use rayon::prelude::*;

use crate::error::Result;
use crate::format::{Elements, ModelFile};
use crate::io::ReadAt;
use crate::linear::Matrix;
use crate::matching::Side;
use crate::tensor::{Storage, TensorInfo, lanes};

/// Larger tensors are left out: they are read whole.
const MAX_ELEMENTS: u64 = 1 << 31;
/// Larger numbers are no weights, and count as 0, so that sums of squares stay finite.
const MAX_WEIGHT: f32 = 1e12;

/// A tensor in its file.
pub(super) struct Stored {
    pub(super) source: Arc<dyn ReadAt>,
    pub(super) file: String,
    pub(super) info: TensorInfo,
}

/// All tensors of a model that hold numbers and can be read; of one that is there in several formats, the preferred.
pub(super) fn tensors(side: Side<'_>) -> Result<Vec<Arc<Stored>>> {
    let mut all = Vec::new();
    for ModelFile { path, index, .. } in side.index.files() {
        let source: Arc<dyn ReadAt> = side.tree.open(path)?;
        for info in index.tensors() {
            let is_twin = side.index.tensor(&info.name).is_some_and(|(preferred, _)| preferred != path);
            let is_here = !matches!(info.storage, Storage::External(_));
            let fits = (1..=MAX_ELEMENTS).contains(&info.elements());
            if lanes::is_number(info.dtype) && fits && is_here && !is_twin {
                let (source, info) = (Arc::clone(&source), info.clone());
                all.push(Arc::new(Stored { source, file: path.clone(), info }));
            }
        }
    }
    Ok(all)
}

/// A matrix within a tensor: the element in row `r` and column `c` is number `first + r * row_step + c * column_step`.
#[derive(Clone)]
pub(super) struct Panel {
    pub(super) stored: Arc<Stored>,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) first: usize,
    pub(super) row_step: usize,
    pub(super) column_step: usize,
}

impl Panel {
    /// The matrices of these columns that a tensor is: itself, and its transpose, each for every index of the dimensions
    /// before the last two. Vectors and other tensors are none.
    pub(super) fn of(stored: &Arc<Stored>, columns: usize, transposed: bool) -> Vec<Self> {
        let shape: Vec<usize> = stored.info.shape.iter().map(|dim| *dim as usize).collect();
        let [outer @ .., a, b] = shape.as_slice() else { return Vec::new() };
        let (rows, found, row_step, column_step) = if transposed { (*b, *a, 1, *b) } else { (*a, *b, *b, 1) };
        if found != columns || rows == 0 {
            return Vec::new();
        }
        let panel = |i: usize| {
            let stored = Arc::clone(stored);
            Self { stored, rows, columns, first: i * a * b, row_step, column_step }
        };
        (0..outer.iter().product()).map(panel).collect()
    }

    /// Some of the rows.
    pub(super) fn part(&self, start: usize, rows: usize) -> Self {
        Self { rows, first: self.first + start * self.row_step, ..self.clone() }
    }

    /// Whether the two have an element in common, for panels that are runs of rows or columns of their tensors.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let is_one = Arc::ptr_eq(&self.stored, &other.stored);
        let (a, b) = (self.hull(), other.hull());
        if self.row_step == other.row_step && self.row_step < self.column_step {
            let (a, b) = (self.first % self.column_step, other.first % self.column_step);
            return is_one && a < b + other.rows && b < a + self.rows;
        }
        is_one && a.0 < b.1 && b.0 < a.1
    }

    /// The elements that enclose it.
    fn hull(&self) -> (usize, usize) {
        let last = (self.rows.max(1) - 1) * self.row_step + (self.columns.max(1) - 1) * self.column_step;
        (self.first, self.first + last + 1)
    }

    /// Reads it. What is no weight is 0.
    pub(super) fn read(&self) -> Result<Matrix> {
        let (start, end) = self.hull();
        let elements = Elements::open(Arc::clone(&self.stored.source), &self.stored.info)?;
        let mut values = vec![0.0; end - start];
        const PIECE: usize = 1 << 18;
        values.par_chunks_mut(PIECE).enumerate().try_for_each(|(i, piece)| {
            let from = start + i * PIECE;
            elements.read_f32(from as u64..(from + piece.len()) as u64, piece)?;
            let is_weight = |value: f32| value.abs() <= MAX_WEIGHT; // neither infinite nor NaN
            piece.iter_mut().filter(|value| !is_weight(**value)).for_each(|value| *value = 0.0);
            Ok(())
        })?;
        let (rows, columns) = (self.rows, self.columns);
        if self.column_step == 1 && self.row_step == columns {
            return Ok(Matrix { rows, columns, values });
        }
        let mut out = Matrix::zeros(rows, columns);
        out.values.par_chunks_mut(columns).enumerate().for_each(|(r, row)| {
            let from = values.iter().skip(r * self.row_step).step_by(self.column_step);
            row.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        });
        Ok(out)
    }

    /// Puts a matrix of this shape where it belongs among all elements of the tensor.
    pub(super) fn place(&self, matrix: &Matrix, out: &mut [f32]) {
        for r in 0..self.rows {
            let to = out.iter_mut().skip(self.first + r * self.row_step).step_by(self.column_step);
            to.zip(matrix.row(r)).for_each(|(to, from)| *to = *from);
        }
    }
}
