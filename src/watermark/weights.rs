//! The weights of a block, in memory.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use super::carrier::Block;
use super::keystream::RUN;
use super::lanes::{self, vectorised};
use crate::error::Result;
use crate::format::Elements;
use crate::io::ReadAt;
use crate::tensor::TensorInfo;

/// Whether a number can be a weight: finite, and so small that its square is finite too.
#[inline(always)]
pub(super) fn is_weight(value: f32) -> bool {
    value.abs() <= 1_152_921_504_606_846_976.0 // 2^60
}

/// The weights of a block, row by row.
pub(super) struct Weights {
    pub(super) columns: usize,
    pub(super) values: Buffer,
}

/// Numbers in memory that the thread has used before: fresh pages cost more than the arithmetic on them.
pub(super) struct Buffer(Vec<f32>);

thread_local! {
    static POOL: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

impl Buffer {
    /// Buffers that a thread keeps.
    const KEPT: usize = 4;

    fn of(len: usize) -> Self {
        let mut values = POOL.with_borrow_mut(Vec::pop).unwrap_or_default();
        values.resize(len, 0.0);
        Self(values)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        POOL.with_borrow_mut(|pool| {
            if pool.len() < Self::KEPT {
                pool.push(std::mem::take(&mut self.0));
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

impl Weights {
    pub(super) fn zeroed(columns: usize, rows: usize) -> Self {
        let mut values = Buffer::of(columns * rows);
        values.fill(0.0);
        Self { columns, values }
    }

    /// Room for weights that are all to be written.
    pub(super) fn unfilled(columns: usize, rows: usize) -> Self {
        Self { columns, values: Buffer::of(columns * rows) }
    }

    pub(super) fn copy(&self) -> Self {
        let mut values = Buffer::of(self.values.len());
        values.copy_from_slice(&self.values);
        Self { columns: self.columns, values }
    }

    /// Reads a block of `tensor`. Infinities and NaN are left as they are.
    pub(super) fn read(source: &Arc<dyn ReadAt>, tensor: &TensorInfo, block: &Block) -> Result<Self> {
        let columns = tensor.matrix().1;
        let (first, rows) = (block.first_row(), block.rows());
        let mut values = Buffer::of((columns * rows) as usize);
        Elements::open(Arc::clone(source), tensor)?.read_f32(first * columns..(first + rows) * columns, &mut values)?;
        Ok(Self { columns: columns as usize, values })
    }

    /// A block of a whole carrier that is in memory, without what cannot be a weight.
    pub(super) fn part(whole: &[f32], columns: u64, block: &Block) -> Self {
        let columns = columns as usize;
        let (first, rows) = (block.first_row() as usize, block.rows() as usize);
        let mut weights = Self::zeroed(columns, rows);
        if let Some(values) = whole.get(first * columns..(first + rows) * columns) {
            weights.values.copy_from_slice(values);
        }
        weights.clear_oddities();
        weights
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.columns)
    }

    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }

    /// The root mean square of each row.
    pub(super) fn row_scales(&self) -> Vec<f32> {
        row_scales(self)
    }

    /// Whether every number can be a weight.
    pub(super) fn are_weights(&self) -> bool {
        are_weights(&self.values)
    }

    /// Takes what cannot be a weight for 0.
    pub(super) fn clear_oddities(&mut self) {
        clear_oddities(&mut self.values);
    }
}

/// The part of one run that lies in one row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) run: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Piece {
    /// Its weights in the block.
    #[inline(always)]
    pub(super) fn range(self) -> Range<usize> {
        self.start..self.end
    }

    /// The place of its first weight in the run.
    #[inline(always)]
    pub(super) fn offset(self) -> usize {
        self.start % RUN
    }
}

/// The pieces of one row.
#[inline(always)]
pub(super) fn row_pieces(row: usize, columns: usize) -> impl Iterator<Item = Piece> {
    let (first, end) = (row * columns, (row + 1) * columns);
    (first / RUN..end.div_ceil(RUN)).map(move |run| Piece {
        run,
        start: (run * RUN).max(first),
        end: ((run + 1) * RUN).min(end),
    })
}

vectorised! {
    fn row_scales(weights: &'a Weights) -> Vec<f32> {
        let mut scales = vec![0.0; weights.values.len() / weights.columns];
        for (row, scale) in scales.iter_mut().enumerate() {
            *scale = row_scale(weights.row(row));
        }
        scales
    }
}

vectorised! {
    fn are_weights(values: &'a [f32]) -> bool {
        let mut all = true;
        for value in values {
            all &= is_weight(*value);
        }
        all
    }
}

vectorised! {
    fn clear_oddities(values: &'a mut [f32]) -> () {
        for value in values {
            *value = if is_weight(*value) { *value } else { 0.0 };
        }
    }
}

/// The root mean square of a row.
#[inline(always)]
pub(super) fn row_scale(row: &[f32]) -> f32 {
    let [sum] = lanes::sums::<Squares, 1>(row, row);
    (sum / row.len().max(1) as f64).sqrt() as f32
}

struct Squares;

impl lanes::Terms<1> for Squares {
    #[inline(always)]
    fn of(w: lanes::F, _: lanes::F) -> [lanes::F; 1] {
        [lanes::times(w, w)]
    }
}

/// The run whose weights are those of a piece at their places, and zero elsewhere; `pad` has room for one.
#[inline(always)]
pub(super) fn run<'a>(values: &'a [f32], piece: Piece, pad: &'a mut [f32; RUN]) -> &'a [f32; RUN] {
    let values = &values[piece.range()];
    if let Ok(run) = values.try_into() {
        return run;
    }
    pad.fill(0.0);
    pad[piece.offset()..][..values.len()].copy_from_slice(values);
    pad
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_every_weight_once_and_keep_to_rows_and_runs() {
        for (columns, rows) in [(1, 200), (9, 50), (63, 3), (64, 4), (65, 4), (384, 3)] {
            let mut next = 0;
            for row in 0..rows {
                for piece in row_pieces(row, columns) {
                    assert_eq!(piece.start, next);
                    assert!(piece.end > piece.start);
                    assert_eq!((piece.start / RUN, (piece.end - 1) / RUN), (piece.run, piece.run));
                    assert_eq!((piece.start / columns, (piece.end - 1) / columns), (row, row));
                    next = piece.end;
                }
            }
            assert_eq!(next, columns * rows);
        }
    }
}
