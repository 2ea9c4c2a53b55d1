//! Elements of a matrix at chosen places, whatever way they are stored.

use std::borrow::Cow;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{Rectangle, Side, View, shape};
use crate::error::Result;
use crate::format::gguf::names;
use crate::format::{Elements, ModelFile};
use crate::io::ReadAt;
use crate::tensor::{Storage, TensorInfo, lanes};

/// Rows and columns sampled of a matrix.
const ROWS: u64 = 32;
const COLUMNS: u64 = 64;
/// Elements sampled of a vector.
const ELEMENTS: u64 = 2048;
/// Bytes of tensors that are not stored plainly, and so held in memory.
const MAX_HELD: u64 = 512 << 20;
/// Rows of more elements are read one by one.
const MAX_ROW: u64 = 1 << 18;
/// Elements of each matrix that the seed depends on.
const SEED_ELEMENTS: u64 = 64;

/// A tensor of a model, as a matrix.
pub(super) struct Matrix<'a> {
    pub(super) file: &'a str,
    pub(super) info: &'a TensorInfo,
    /// Its name, translated where `llama.cpp` gave it.
    pub(super) name: Cow<'a, str>,
    pub(super) rows: u64,
    pub(super) columns: u64,
    elements: Elements,
}

/// All tensors of a model that hold numbers which can be read; of one that is there in several formats, the preferred.
pub(super) fn matrices(side: Side<'_>) -> Result<Vec<Matrix<'_>>> {
    let (mut matrices, mut held) = (Vec::new(), 0);
    for ModelFile { path, index, .. } in side.index.files() {
        let source: Arc<dyn ReadAt> = side.tree.open(path)?;
        let architecture = index.metadata().get("general.architecture");
        for info in index.tensors().iter().filter(|info| lanes::is_number(info.dtype) && info.elements() > 0) {
            let is_twin = side.index.tensor(&info.name).is_some_and(|(preferred, _)| preferred != path);
            match info.storage {
                _ if is_twin => continue,
                Storage::Plain => {}
                Storage::External(_) => continue,
                _ if info.size() > MAX_HELD - held => continue,
                _ => held += info.size(),
            }
            let elements = Elements::open(Arc::clone(&source), info)?;
            let (rows, columns) = shape(&info.shape);
            let translated = architecture.and_then(|architecture| names::original(architecture, &info.name));
            let name = translated.map_or(Cow::Borrowed(&*info.name), Cow::Owned);
            matrices.push(Matrix { file: path, info, name, rows, columns, elements });
        }
    }
    Ok(matrices)
}

/// What decides where samples are taken: a digest of some weights of every matrix of the reference.
pub(super) fn seed(matrices: &[Matrix<'_>]) -> Result<u64> {
    let mut hash = Sha256::new();
    for matrix in matrices {
        let count = matrix.info.elements().min(SEED_ELEMENTS);
        let mut numbers = vec![0.0; count as usize];
        matrix.elements.read(0..count, &mut numbers)?;
        numbers.iter().for_each(|number| hash.update(number.to_bits().to_le_bytes()));
    }
    let digest = hash.finalize();
    Ok(digest.first_chunk().map_or(0, |seed| u64::from_le_bytes(*seed)))
}

/// The places at which matrices of one shape are sampled: the same for all of them.
pub(super) struct Grid {
    rows: Vec<u64>,
    columns: Vec<u64>,
}

impl Grid {
    pub(super) fn of((rows, columns): (u64, u64), seed: u64) -> Self {
        match rows {
            1 => Self { rows: vec![0], columns: scatter(columns, ELEMENTS, seed) },
            _ => Self { rows: scatter(rows, ROWS, seed), columns: scatter(columns, COLUMNS, !seed) },
        }
    }
}

/// Up to `count` different numbers below `end`, in order: one in each of `count` equal parts, somewhere that depends on
/// `seed`, so that no structure of rows or columns (heads, groups) lines up with them.
pub(super) fn scatter(end: u64, count: u64, seed: u64) -> Vec<u64> {
    if end <= count {
        return (0..end).collect();
    }
    let bound = |i: u64| (u128::from(i) * u128::from(end) / u128::from(count)) as u64;
    (0..count).map(|i| bound(i) + mix(seed.wrapping_add(i)) % (bound(i + 1) - bound(i))).collect()
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(value: u64) -> u64 {
    let z = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Matrix<'_> {
    pub(super) fn shape(&self) -> (u64, u64) {
        (self.rows, self.columns)
    }

    /// All of it.
    pub(super) fn whole(&self) -> Rectangle {
        Rectangle { rows: 0..self.rows, columns: 0..self.columns }
    }

    /// The elements at the places of `grid`, which is that of a reference of this shape, where this matrix is looked at
    /// through `view`. `None` if it has another shape.
    pub(super) fn sample(&self, (rows, columns): (u64, u64), grid: &Grid, view: View) -> Result<Option<Sample>> {
        let shape = if view.transposed { (columns, rows) } else { (rows, columns) };
        if shape != self.shape() {
            return Ok(None);
        }
        self.sample_part(0, grid, view).map(Some)
    }

    /// The same of the run of rows that starts at `offset`, which must lie within this matrix.
    pub(super) fn sample_part(&self, offset: u64, grid: &Grid, view: View) -> Result<Sample> {
        let reorder = |row: &u64| offset + view.reordered.map_or(*row, |reordered| reordered.row(*row));
        let rows: Vec<u64> = grid.rows.iter().map(reorder).collect();
        if view.transposed {
            return Ok(Sample::new(transposed(&self.values(&grid.columns, &rows)?, rows.len())));
        }
        Ok(Sample::new(self.values(&rows, &grid.columns)?))
    }

    /// The elements at these rows and columns, row by row.
    pub(super) fn values(&self, rows: &[u64], columns: &[u64]) -> Result<Vec<f32>> {
        let (wide, mut row) = (self.columns > MAX_ROW, vec![0.0]);
        let mut values = Vec::with_capacity(rows.len() * columns.len());
        for first in rows.iter().map(|row| row * self.columns) {
            if !wide {
                row.resize(self.columns as usize, 0.0);
                self.elements.read(first..first + self.columns, &mut row)?;
                values.extend(columns.iter().map(|column| row[*column as usize] as f32));
                continue;
            }
            for place in columns.iter().map(|column| first + column) {
                self.elements.read(place..place + 1, &mut row)?;
                values.push(row[0] as f32);
            }
        }
        Ok(values)
    }
}

/// Values around their mean, scaled to a length of 1; none if they do not differ.
pub(super) struct Sample(Vec<f32>);

impl Sample {
    /// Values further from the median than so many median distances count as that: a few large ones decide nothing.
    const CLIP: f32 = 6.0;

    /// What is not a number, or infinite, counts as the median.
    pub(super) fn new(mut values: Vec<f32>) -> Self {
        let median = median(values.iter().copied().filter(|value| value.is_finite()));
        let distances = values.iter().map(|value| (value - median).abs()).filter(|d| d.is_finite() && *d > 0.0);
        let limit = Self::CLIP * self::median(distances);
        if limit <= median.abs() * 1e-5 {
            return Self(Vec::new());
        }
        for value in &mut values {
            *value = if value.is_finite() { (*value - median).clamp(-limit, limit) } else { 0.0 };
        }
        let count = values.len() as f64;
        let mean = values.iter().copied().map(f64::from).sum::<f64>() / count;
        let norm = values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>().sqrt();
        for value in &mut values {
            *value = ((f64::from(*value) - mean) / norm) as f32;
        }
        Self(values)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_constant(&self) -> bool {
        self.0.is_empty()
    }

    /// Correlation with another sample of the same places.
    pub(super) fn correlation(&self, other: &Self) -> f64 {
        dot(&self.0, &other.0)
    }

    /// The least correlation that means anything: six standard deviations of that of unrelated values.
    pub(super) fn least(&self) -> f64 {
        (6.0 / (self.0.len().max(1) as f64).sqrt()).clamp(0.15, 0.9)
    }
}

/// The median, or 0 of nothing.
fn median(values: impl Iterator<Item = f32>) -> f32 {
    let mut values: Vec<f32> = values.collect();
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

/// The scalar product, in lanes that the compiler keeps in registers.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0f32; 16];
    for (a, b) in a.as_chunks::<16>().0.iter().zip(b.as_chunks::<16>().0) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let rest = a.as_chunks::<16>().1.iter().zip(b.as_chunks::<16>().1).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>() + rest
}

/// The matrix of `columns` columns, transposed.
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    let rows = values.len() / columns.max(1);
    (0..values.len()).map(|i| values[i % rows * columns + i / rows]).collect()
}
