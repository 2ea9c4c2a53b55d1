//! How a matrix of the reference is put together from one of the suspect.

use std::sync::Arc;

use rayon::prelude::*;

use super::basis::Basis;
use super::panel::Panel;
use crate::error::Result;
use crate::linear::Matrix;

/// For each row of the reference the suspect's rows that it is the weighted sum of.
pub(super) type Rows = Vec<Vec<(usize, f32)>>;

/// A matrix of the reference in terms of one of the suspect.
pub(super) struct Map {
    pub(super) ours: Panel,
    pub(super) theirs: Panel,
    pub(super) basis: Arc<Basis>,
    /// By what columns are multiplied after the basis, unless by 1.
    pub(super) columns: Option<Vec<f32>>,
    pub(super) rows: Rows,
}

impl Map {
    /// The suspect's weights, as the reference has them.
    pub(super) fn read(&self) -> Result<Matrix> {
        let theirs = straight(&self.theirs, &self.basis, self.columns.as_deref())?;
        let mut out = Matrix::zeros(self.rows.len(), theirs.columns);
        out.values.par_chunks_mut(theirs.columns.max(1)).zip(&self.rows).for_each(|(out, row)| match row[..] {
            [(r, 1.0)] => out.copy_from_slice(theirs.row(r)),
            _ => row.iter().for_each(|(r, factor)| {
                out.iter_mut().zip(theirs.row(*r)).for_each(|(to, from)| *to += factor * from);
            }),
        });
        Ok(out)
    }

    /// Whether nothing was changed.
    pub(super) fn is_identity(&self) -> bool {
        let same = |(i, row): (usize, &Vec<(usize, f32)>)| matches!(row[..], [(r, factor)] if r == i && factor == 1.0);
        self.basis.is_identity() && self.columns.is_none() && self.rows.iter().enumerate().all(same)
    }

    /// Which rows of the suspect are those of the reference, and by what each is multiplied; `None` if some are mixed.
    pub(super) fn single_rows(&self) -> Option<Vec<Option<(usize, f32)>>> {
        self.rows.iter().map(|row| (row.len() < 2).then(|| row.first().copied())).collect()
    }

    /// The same of columns.
    pub(super) fn single_columns(&self) -> Option<Vec<Option<(usize, f32)>>> {
        let Basis::Permuted(columns) = &*self.basis else { return None };
        let factor = |i: usize| self.columns.as_ref().map_or(1.0, |factors| factors[i]);
        let column = |(i, column): (usize, &Option<(usize, f32)>)| column.map(|(from, sign)| (from, sign * factor(i)));
        Some(columns.iter().enumerate().map(column).collect())
    }
}

/// A matrix of the suspect, over the hidden dimensions of the reference.
pub(super) fn straight(theirs: &Panel, basis: &Basis, columns: Option<&[f32]>) -> Result<Matrix> {
    let mut matrix = basis.apply(&theirs.read()?);
    if let Some(factors) = columns {
        super::family::scale_columns(&mut matrix, factors);
    }
    Ok(matrix)
}
