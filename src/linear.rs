//! Dense linear algebra on matrices of `f32`, over `faer`: what alignment, lineage and the cleaning of residuals share.

use faer::linalg::matmul::matmul;
use faer::reborrow::{Reborrow, ReborrowMut};
use faer::{Accum, Mat, MatRef, Par, Side};

/// A matrix in memory, row by row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Matrix {
    /// Number of rows.
    pub(crate) rows: usize,
    /// Number of columns.
    pub(crate) columns: usize,
    /// The elements, row by row: `rows * columns` of them.
    pub(crate) values: Vec<f32>,
}

impl Matrix {
    /// Zeros.
    pub(crate) fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, columns, values: vec![0.0; rows * columns] }
    }

    /// A row.
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }

    /// A row, to change.
    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.values[row * self.columns..(row + 1) * self.columns]
    }

    /// Rows and columns exchanged.
    pub(crate) fn transposed(&self) -> Self {
        let mut out = Self::zeros(self.columns, self.rows);
        for r in 0..self.rows {
            for (c, value) in self.row(r).iter().enumerate() {
                out.values[c * self.rows + r] = *value;
            }
        }
        out
    }

    /// For `faer`, without copying.
    pub(crate) fn view(&self) -> MatRef<'_, f32> {
        MatRef::from_row_major_slice(&self.values, self.rows, self.columns)
    }

    /// `self * other`.
    pub(crate) fn times(&self, other: &Self) -> Self {
        product(self.view(), other.view())
    }

    /// `self * other^T`: the scalar products of the rows of both.
    pub(crate) fn times_transposed(&self, other: &Self) -> Self {
        product(self.view(), other.view().transpose())
    }

    /// `self^T * other`.
    pub(crate) fn transposed_times(&self, other: &Self) -> Self {
        product(self.view().transpose(), other.view())
    }
}

/// The product of two matrices, on all threads.
fn product(a: MatRef<'_, f32>, b: MatRef<'_, f32>) -> Matrix {
    let mut out = Matrix::zeros(a.nrows(), b.ncols());
    let view = faer::MatMut::from_row_major_slice_mut(&mut out.values, a.nrows(), b.ncols());
    matmul(view, Accum::Replace, a, b, 1.0, Par::rayon(0));
    out
}

/// The scalar products of the rows, or of the columns where those are fewer, of a matrix given row by row. On one thread.
pub(crate) fn gram(values: &[f32], rows: usize, columns: usize) -> Matrix {
    let all = MatRef::from_row_major_slice(values, rows, columns);
    let (a, b) = if columns <= rows { (all.transpose(), all) } else { (all, all.transpose()) };
    let mut out = Matrix::zeros(a.nrows(), a.nrows());
    let view = faer::MatMut::from_row_major_slice_mut(&mut out.values, a.nrows(), a.nrows());
    matmul(view, Accum::Replace, a, b, 1.0, Par::Seq);
    out
}

/// Takes away what of a matrix, given row by row, lies in the span of the orthonormal columns of `basis`: of its columns
/// where these are as long as `basis`, of its rows otherwise. On one thread.
pub(crate) fn project_out(values: &mut [f32], rows: usize, columns: usize, basis: &Matrix) {
    let (length, count) = (basis.rows, basis.columns);
    let on_columns = length == rows && rows < columns;
    let mut shares = Matrix::zeros(count, if on_columns { columns } else { rows });
    let width = shares.columns;
    let mut all = faer::MatMut::from_row_major_slice_mut(values, rows, columns);
    let share = faer::MatMut::from_row_major_slice_mut(&mut shares.values, count, width);
    let across = if on_columns { all.rb() } else { all.rb().transpose() };
    matmul(share, Accum::Replace, basis.view().transpose(), across, 1.0, Par::Seq);
    let across = if on_columns { all.rb_mut() } else { all.rb_mut().transpose_mut() };
    matmul(across, Accum::Add, basis.view(), shares.view(), -1.0, Par::Seq);
}

/// Eigenvalues in ascending order, and eigenvectors as columns, of a symmetric matrix; `None` if they are not found.
pub(crate) fn symmetric_eigen(matrix: &Matrix) -> Option<(Vec<f64>, Mat<f64>)> {
    let wide = Mat::from_fn(matrix.rows, matrix.columns, |r, c| f64::from(matrix.row(r)[c]));
    let eigen = wide.self_adjoint_eigen(Side::Lower).ok()?;
    Some((eigen.S().column_vector().iter().copied().collect(), eigen.U().to_owned()))
}

/// The orthogonal factor of a matrix of at least as many rows as columns: the nearest matrix with orthonormal columns, and
/// the sum of the singular values.
pub(crate) fn polar(matrix: &Matrix) -> Option<(Matrix, f64)> {
    let wide = Mat::from_fn(matrix.rows, matrix.columns, |r, c| f64::from(matrix.row(r)[c]));
    let svd = wide.thin_svd().ok()?;
    let nearest = svd.U() * svd.V().transpose();
    let mut out = Matrix::zeros(matrix.rows, matrix.columns);
    for r in 0..matrix.rows {
        out.row_mut(r).iter_mut().enumerate().for_each(|(c, value)| *value = nearest[(r, c)] as f32);
    }
    Some((out, svd.S().column_vector().iter().sum()))
}

/// The inverse of a square matrix, or `None` if it has none that is finite.
pub(crate) fn inverse(matrix: &Matrix) -> Option<Matrix> {
    use faer::linalg::solvers::DenseSolveCore;
    let wide = Mat::from_fn(matrix.rows, matrix.columns, |r, c| f64::from(matrix.row(r)[c]));
    let inverse = wide.partial_piv_lu().inverse();
    let mut out = Matrix::zeros(matrix.columns, matrix.rows);
    for r in 0..out.rows {
        out.row_mut(r).iter_mut().enumerate().for_each(|(c, value)| *value = inverse[(r, c)] as f32);
    }
    out.values.iter().all(|value| value.is_finite()).then_some(out)
}

/// The scalar product.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (a, b) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a.0.iter().zip(b.0) {
        lanes.iter_mut().zip(a).zip(b).for_each(|((lane, a), b)| *lane += a * b);
    }
    lanes.iter().sum::<f32>() + a.1.iter().zip(b.1).map(|(a, b)| a * b).sum::<f32>()
}

/// Makes the rows of each run of `height` rows orthonormal (Gram and Schmidt, twice). Rows that depend on others become 0.
pub(crate) fn orthonormalise(matrix: &mut Matrix, height: usize) {
    use rayon::prelude::*;
    let columns = matrix.columns.max(1);
    matrix.values.par_chunks_mut(columns * height.max(1)).for_each(|run| {
        for r in 0..run.len() / columns {
            let (done, row) = run.split_at_mut(r * columns);
            let row = &mut row[..columns];
            let before = dot(row, row);
            for _ in 0..2 {
                for other in done.chunks_exact(columns) {
                    let along = dot(row, other);
                    row.iter_mut().zip(other).for_each(|(x, y)| *x -= along * y);
                }
            }
            let left = dot(row, row);
            let factor = if left > 1e-6 * before { left.sqrt().recip() } else { 0.0 };
            row.iter_mut().for_each(|x| *x *= factor);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: usize, columns: usize, values: &[f32]) -> Matrix {
        Matrix { rows, columns, values: values.to_vec() }
    }

    #[test]
    fn products_are_what_they_should_be() {
        let (a, b) = (matrix(2, 3, &[1., 2., 3., 4., 5., 6.]), matrix(3, 2, &[1., 0., 0., 1., 2., 2.]));
        assert_eq!(a.times(&b), matrix(2, 2, &[7., 8., 16., 17.]));
        assert_eq!(a.times_transposed(&b.transposed()), a.times(&b));
        assert_eq!(a.transposed().transposed_times(&b), a.times(&b));
    }

    #[test]
    fn directions_are_taken_away() {
        let tall = [3., 4., 6., 8., 4., -3.]; // rows 5, 10 and 5 long; two along (3, 4), one across
        assert_eq!(gram(&tall, 3, 2), matrix(2, 2, &[61., 48., 48., 89.]));
        assert_eq!(gram(&tall, 2, 3), matrix(2, 2, &[61., 22., 22., 89.]));
        let mut rest = tall;
        project_out(&mut rest, 3, 2, &matrix(2, 1, &[0.6, 0.8]));
        assert!(rest.iter().zip([0., 0., 0., 0., 4., -3.]).all(|(a, b)| (a - b).abs() < 1e-5), "{rest:?}");
        let mut rest = [3., 6., 4., 4., 8., -3.];
        project_out(&mut rest, 2, 3, &matrix(2, 1, &[0.6, 0.8]));
        assert!(rest.iter().zip([0., 0., 4., 0., 0., -3.]).all(|(a, b)| (a - b).abs() < 1e-5), "{rest:?}");
    }

    #[test]
    fn eigenvalues_ascend() {
        let (values, vectors) = symmetric_eigen(&matrix(2, 2, &[2., 1., 1., 2.])).unwrap();
        assert!((values[0] - 1.0).abs() < 1e-12 && (values[1] - 3.0).abs() < 1e-12);
        assert!((vectors[(0, 1)].abs() - 0.5f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn the_polar_factor_of_a_scaled_rotation_is_the_rotation() {
        let (rotation, sum) = polar(&matrix(2, 2, &[0., -3., 3., 0.])).unwrap();
        rotation.values.iter().zip([0., -1., 1., 0.]).for_each(|(a, b)| assert!((a - b).abs() < 1e-6));
        assert!((sum - 6.0).abs() < 1e-9);
    }

    #[test]
    fn inverses_invert() {
        let a = matrix(2, 2, &[2., 1., 1., 1.]);
        assert_eq!(inverse(&a).unwrap(), matrix(2, 2, &[1., -1., -1., 2.]));
        assert_eq!(inverse(&matrix(2, 2, &[1., 1., 1., 1.])), None);
    }

    #[test]
    fn rows_become_orthonormal() {
        let mut a = matrix(4, 3, &[3., 0., 0., 3., 4., 0., 1., 1., 0., 2., 2., 0.]);
        orthonormalise(&mut a, 2);
        let root = 0.5f32.sqrt();
        let expected = [1., 0., 0., 0., 1., 0., root, root, 0., 0., 0., 0.];
        a.values.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-6));
    }
}
