//! Tensors that are a run of rows of a larger one.

use std::collections::HashMap;

use rayon::prelude::*;

use super::sample::{Grid, Matrix, Sample, scatter};
use super::{Found, Rectangle, View};
use crate::error::Result;

/// Rows of the smaller tensor that are looked for in the larger.
const PROBES: u64 = 8;
/// If none of so many is there, the others are not looked for.
const FIRST_PROBES: usize = 2;
/// Columns by which rows are compared.
const COLUMNS: u64 = 256;
/// Fewer columns than this tell no row from another.
const MIN_COLUMNS: u64 = 32;
/// Most elements of a larger tensor's rows that are held at a time.
const MAX_HELD: u64 = 64 << 20;
/// Most products of single elements that are spent on the search.
const MAX_WORK: u64 = 1 << 38;
/// Most places of one tensor in another.
const MAX_PLACES: usize = 64;

/// For each `small` tensor the runs of rows of `large` ones that resemble it, as pairs of (small, large).
pub(super) fn find(
    small: &[Matrix<'_>],
    small_left: &[usize],
    large: &[Matrix<'_>],
    large_left: &[usize],
    seed: u64,
) -> Result<Vec<Found>> {
    let mut by_columns: HashMap<u64, Vec<Probed>> = HashMap::new();
    for s in small_left.iter().copied() {
        let (rows, columns) = small[s].shape();
        if rows > 1 && columns >= MIN_COLUMNS && large_left.iter().any(|l| fits(&large[*l], rows, columns)) {
            by_columns.entry(columns).or_default().push(Probed::new(s, &small[s], seed)?);
        }
    }
    let (mut found, mut work) = (Vec::new(), 0u64);
    for l in large_left.iter().copied() {
        for transposed in [false, true] {
            let (mut rows, mut columns) = large[l].shape();
            if transposed {
                (rows, columns) = (columns, rows);
            }
            let candidates = by_columns.get(&columns).into_iter().flatten();
            let candidates: Vec<&Probed> = candidates.filter(|probed| small[probed.number].rows < rows).collect();
            let size = rows.saturating_mul(columns.min(COLUMNS));
            work = work.saturating_add(size.saturating_mul(candidates.len() as u64));
            if candidates.is_empty() || size > MAX_HELD || work > MAX_WORK {
                continue;
            }
            let held = Rows::read(&large[l], rows, &scatter(columns, COLUMNS, seed), transposed)?;
            let hits = candidates.par_iter().map(|probed| {
                let s = probed.number;
                let offsets = held.offsets(probed, small[s].rows).into_iter();
                let found = offsets.map(|offset| verify(&small[s], s, &large[l], l, offset, transposed, seed));
                found.collect::<Result<Vec<_>>>()
            });
            found.extend(hits.collect::<Result<Vec<_>>>()?.into_iter().flatten().flatten());
        }
    }
    Ok(found)
}

/// Whether a matrix of `rows` and `columns` could be a part of `large`.
fn fits(large: &Matrix<'_>, rows: u64, columns: u64) -> bool {
    large.columns == columns && large.rows > rows || large.rows == columns && large.columns > rows
}

/// A small matrix, with some of its rows at the columns by which rows are compared.
struct Probed {
    number: usize,
    rows: Vec<(u64, Sample)>,
}

impl Probed {
    fn new(number: usize, matrix: &Matrix<'_>, seed: u64) -> Result<Self> {
        let (rows, columns) = (scatter(matrix.rows, PROBES, seed), scatter(matrix.columns, COLUMNS, seed));
        let values = matrix.values(&rows, &columns)?;
        let samples = values.chunks_exact(columns.len()).map(|row| Sample::new(row.to_vec()));
        Ok(Self { number, rows: rows.into_iter().zip(samples).collect() })
    }
}

/// All rows of a matrix at some columns.
struct Rows(Vec<Sample>);

impl Rows {
    fn read(matrix: &Matrix<'_>, rows: u64, columns: &[u64], transposed: bool) -> Result<Self> {
        let all: Vec<u64> = (0..rows).collect();
        let width = columns.len();
        let values = if transposed { matrix.values(columns, &all)? } else { matrix.values(&all, columns)? };
        let row = |i: usize| {
            Sample::new(match transposed {
                true => values.iter().skip(i).step_by(all.len()).copied().collect(),
                false => values[i * width..(i + 1) * width].to_vec(),
            })
        };
        Ok(Self((0..all.len()).into_par_iter().map(row).collect()))
    }

    /// The rows at which a matrix of so many rows may start here: those that most of its probes point to. There are
    /// several if rows repeat.
    fn offsets(&self, probed: &Probed, rows: u64) -> Vec<u64> {
        let mut votes: HashMap<u64, usize> = HashMap::new();
        for (i, (probe, sample)) in probed.rows.iter().enumerate() {
            if i == FIRST_PROBES && votes.is_empty() {
                return Vec::new();
            }
            let likeness: Vec<f64> = self.0.iter().map(|row| sample.correlation(row)).collect();
            let best = likeness.iter().copied().fold(0.0, f64::max);
            if best < sample.least() || sample.is_constant() {
                continue;
            }
            for (place, _) in likeness.iter().enumerate().filter(|(_, likeness)| **likeness > best - 1e-6) {
                if let Some(offset) = (place as u64).checked_sub(*probe).filter(|o| o + rows <= self.0.len() as u64) {
                    *votes.entry(offset).or_default() += 1;
                }
            }
        }
        let enough = votes.into_iter().filter(|(_, votes)| votes * 2 > probed.rows.len());
        let mut offsets: Vec<u64> = enough.map(|(offset, _)| offset).collect();
        offsets.sort_unstable();
        offsets.truncate(MAX_PLACES);
        offsets
    }
}

/// Holds the run of rows against the whole of the smaller tensor.
fn verify(
    small: &Matrix<'_>,
    s: usize,
    large: &Matrix<'_>,
    l: usize,
    offset: u64,
    transposed: bool,
    seed: u64,
) -> Result<Option<Found>> {
    let (grid, view) = (Grid::of(small.shape(), seed), View { transposed, reordered: None });
    let (a, b) = (small.sample_part(0, &grid, View::default())?, large.sample_part(offset, &grid, view)?);
    let similarity = a.correlation(&b);
    if a.is_constant() || similarity < a.least() {
        return Ok(None);
    }
    let Rectangle { rows, columns } = large.whole();
    let run = offset..offset + small.rows;
    let their_part = if transposed { Rectangle { rows, columns: run } } else { Rectangle { rows: run, columns } };
    Ok(Some(Found { ours: s, our_part: small.whole(), theirs: l, their_part, view, similarity }))
}
