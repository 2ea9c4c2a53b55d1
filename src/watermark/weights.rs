//! The weights of a block, in memory.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::carrier::Block;
use super::keystream::RUN;
use crate::error::Result;
use crate::format::Elements;
use crate::io::ReadAt;
use crate::tensor::TensorInfo;

/// Whether a number can be a weight: finite, and so small that sums of squares stay finite.
pub(super) fn is_weight(value: f64) -> bool {
    value.abs() <= 340_282_366_920_938_463_463_374_607_431_768_211_456.0 // 2^128, beyond every F32
}

/// The weights of a block, row by row.
pub(super) struct Weights {
    pub(super) columns: usize,
    pub(super) values: Buffer,
}

/// Numbers in memory that the thread has used before: fresh pages cost more than the arithmetic on them.
pub(super) struct Buffer(Vec<f64>);

thread_local! {
    static POOL: RefCell<Vec<Vec<f64>>> = const { RefCell::new(Vec::new()) };
}

impl Buffer {
    /// Buffers that a thread keeps.
    const KEPT: usize = 2;

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
    type Target = [f64];

    fn deref(&self) -> &[f64] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f64] {
        &mut self.0
    }
}

impl Weights {
    pub(super) fn zeroed(columns: usize, rows: usize) -> Self {
        let mut values = Buffer::of(columns * rows);
        values.fill(0.0);
        Self { columns, values }
    }

    /// Reads a block of `tensor`. Infinities and NaN are left as they are.
    pub(super) fn read(source: &Arc<dyn ReadAt>, tensor: &TensorInfo, block: &Block) -> Result<Self> {
        let columns = tensor.matrix().1;
        let (first, rows) = (block.first_row(), block.rows());
        let mut values = Buffer::of((columns * rows) as usize);
        Elements::open(Arc::clone(source), tensor)?.read(first * columns..(first + rows) * columns, &mut values)?;
        Ok(Self { columns: columns as usize, values })
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks_exact(self.columns)
    }

    /// The root mean square of each row.
    pub(super) fn row_scales(&self) -> Vec<f64> {
        self.rows().map(|row| (sum_of_squares(row) / row.len() as f64).sqrt()).collect()
    }

    /// The pieces of runs within rows, in the order of their weights.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Piece> {
        let (columns, total) = (self.columns, self.values.len());
        let mut start = 0;
        std::iter::from_fn(move || {
            let (row, run) = (start / columns, start / RUN);
            let end = ((row + 1) * columns).min((run + 1) * RUN).min(total);
            let piece = Piece { row, run, start, end };
            let more = start < total;
            start = end;
            more.then_some(piece)
        })
    }
}

/// The part of one run that lies in one row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) row: usize,
    pub(super) run: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Piece {
    /// The chips of the piece's weights, +1 or -1, given the signs of its run.
    pub(super) fn chips(self, signs: u64) -> impl Iterator<Item = f64> {
        (self.start..self.end).map(move |i| if signs >> (i % RUN) & 1 == 1 { 1.0 } else { -1.0 })
    }
}

/// In eight interleaved lanes, so that it is fast and every implementation can add in the same order.
fn sum_of_squares(row: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    let (chunks, rest) = row.as_chunks::<8>();
    for chunk in chunks {
        for (lane, w) in lanes.iter_mut().zip(chunk) {
            *lane += w * w;
        }
    }
    for (lane, w) in lanes.iter_mut().zip(rest) {
        *lane += w * w;
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_every_weight_once_and_keep_to_rows_and_runs() {
        for (columns, rows) in [(1, 200), (9, 50), (63, 3), (64, 4), (65, 4), (384, 3)] {
            let weights = Weights { columns, values: Buffer::of(columns * rows) };
            let mut next = 0;
            for piece in weights.pieces() {
                assert_eq!(piece.start, next);
                assert!(piece.end > piece.start);
                assert_eq!((piece.start / RUN, (piece.end - 1) / RUN), (piece.run, piece.run));
                assert_eq!((piece.start / columns, (piece.end - 1) / columns), (piece.row, piece.row));
                next = piece.end;
            }
            assert_eq!(next, columns * rows);
        }
    }
}
