//! Which tensor of one model is which of another, told by their content.
//!
//! Names are worth nothing in a stolen model, and even honest tools rename, transpose, reorder and fuse. So tensors are
//! paired by shape, then by the correlation of samples of their elements, best pairs first. Three views are tried: as
//! stored or transposed; with the rows of each attention head reordered, as `llama.cpp` does for rotary embeddings; and as
//! a run of rows of a larger tensor (Q, K and V one after the other, gate and up, experts). A name only breaks ties.
//!
//! No key is involved, so whatever is built on a matching stays as valid as it was. Where samples are taken depends on the
//! weights of the reference: whoever does not have them cannot spoil just those places.
//!
//! ```no_run
//! use weightmark::matching::{Side, correspond};
//! use weightmark::{format::ModelIndex, io::tree};
//!
//! let (ours, theirs) = (tree::open("model/")?, tree::open("suspect.gguf")?);
//! let (our_index, their_index) = (ModelIndex::read(&*ours)?, ModelIndex::read(&*theirs)?);
//! let matching = correspond(Side::new(&*ours, &our_index), Side::new(&*theirs, &their_index))?;
//! for pair in &matching.pairs {
//!     println!("{} is {} ({:.3})", pair.suspect.tensor, pair.reference.tensor, pair.similarity);
//! }
//! # Ok::<(), weightmark::Error>(())
//! ```

mod fused;
mod sample;

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use rayon::prelude::*;

use crate::error::Result;
use crate::format::ModelIndex;
use crate::format::gguf::names::{original_row, reordered_row};
use crate::io::Tree;
use sample::{Grid, Matrix, Sample};

/// Candidates kept for each tensor.
const CANDIDATES: usize = 8;
/// How often tensors are paired: again for those whose candidates were all taken by others that are like them.
const ROUNDS: usize = 8;
/// From this correlation on no other view is tried.
const SETTLED: f64 = 0.9;
/// With fewer elements a correlation tells nothing.
const MIN_TELLING: usize = 16;
/// Sizes of attention heads that are tried.
const HEADS: [u64; 10] = [32, 48, 64, 80, 96, 112, 128, 160, 192, 256];

/// One of two models that are compared.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    pub(crate) tree: &'a dyn Tree,
    pub(crate) index: &'a ModelIndex,
}

impl<'a> Side<'a> {
    /// The model whose files are `tree`, and whose tensors are `index`.
    pub fn new(tree: &'a dyn Tree, index: &'a ModelIndex) -> Self {
        Self { tree, index }
    }
}

/// A rectangle of a tensor, taken as the matrix [`shape`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Part {
    /// The file that holds the tensor.
    pub file: String,
    /// The name of the tensor.
    pub tensor: String,
    /// Its rows: all of them, but in a larger tensor that others were fused into.
    pub rows: Range<u64>,
    /// Its columns likewise.
    pub columns: Range<u64>,
}

/// How the suspect's part has to be looked at to be the reference's.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct View {
    /// Rows and columns are exchanged.
    pub transposed: bool,
    /// Rows are reordered within heads.
    pub reordered: Option<Reordered>,
}

/// A reordering of rows within attention heads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(clippy::exhaustive_enums)]
pub enum Reordered {
    /// The suspect has neighbours where the reference has halves of heads of this many rows.
    Interleaved(u64),
    /// The other way round.
    Separated(u64),
}

impl Reordered {
    /// The row of the suspect that is the reference's `row`.
    pub fn row(self, row: u64) -> u64 {
        match self {
            Self::Interleaved(size) => reordered_row(row, size),
            Self::Separated(size) => original_row(row, size),
        }
    }
}

/// Two parts that are the same weights.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Pair {
    /// The part of the reference.
    pub reference: Part,
    /// The part of the suspect.
    pub suspect: Part,
    /// How the suspect's part has to be looked at.
    pub view: View,
    /// Correlation of the samples, up to 1.
    pub similarity: f64,
}

/// What corresponds to what.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Matching {
    /// The pairs, in the order of the reference.
    pub pairs: Vec<Pair>,
    /// Tensors of the reference without a counterpart, each with its file.
    pub missing: Vec<(String, String)>,
    /// Tensors of the suspect without a counterpart, each with its file.
    pub extra: Vec<(String, String)>,
}

/// The matrix that a tensor is taken as: without dimensions of 1, all but the last together as rows, and of four or more
/// the first alone (convolutions). A vector is one row.
pub fn shape(dims: &[u64]) -> (u64, u64) {
    let dims: Vec<u64> = dims.iter().copied().filter(|dim| *dim != 1).collect();
    let product = |dims: &[u64]| dims.iter().fold(1u64, |product, dim| product.saturating_mul(*dim));
    match dims.len() {
        0 | 1 => (1, product(&dims)),
        2 | 3 => (product(&dims[..dims.len() - 1]), dims[dims.len() - 1]),
        _ => (dims[0], product(&dims[1..])),
    }
}

/// Finds out which tensors of `suspect` are which of `reference`.
///
/// Reads samples of every tensor, and where tensors were fused more of those. Tensors of fewer than 16 elements, or whose
/// elements do not differ, are paired by name and shape. Left out altogether, and in no list: tensors that hold no
/// numbers, lie in files that are not there, or are not stored plainly and too large to be held in memory.
pub fn correspond(reference: Side<'_>, suspect: Side<'_>) -> Result<Matching> {
    let ours = sample::matrices(reference)?;
    let theirs = sample::matrices(suspect)?;
    let mut state = Assignment::new(&ours, &theirs, sample::seed(&ours)?);
    for _ in 0..ROUNDS {
        if !state.assign_whole()? {
            break;
        }
    }
    state.assign_parts()?;
    Ok(state.finish())
}

/// Pairs found so far, by the numbers of their matrices.
struct Assignment<'a> {
    ours: &'a [Matrix<'a>],
    theirs: &'a [Matrix<'a>],
    seed: u64,
    pairs: Vec<Found>,
    our_use: Vec<Vec<Rectangle>>,
    their_use: Vec<Vec<Rectangle>>,
}

/// Rows and columns of a matrix.
#[derive(Clone, Debug, PartialEq)]
struct Rectangle {
    rows: Range<u64>,
    columns: Range<u64>,
}

/// A pair by numbers.
#[derive(Clone)]
struct Found {
    ours: usize,
    our_part: Rectangle,
    theirs: usize,
    their_part: Rectangle,
    view: View,
    similarity: f64,
}

impl<'a> Assignment<'a> {
    fn new(ours: &'a [Matrix<'a>], theirs: &'a [Matrix<'a>], seed: u64) -> Self {
        let free = |of: &[Matrix<'_>]| vec![Vec::new(); of.len()];
        Self { ours, theirs, seed, pairs: Vec::new(), our_use: free(ours), their_use: free(theirs) }
    }

    /// Pairs whole tensors of one shape, best first. Says whether it found any.
    fn assign_whole(&mut self) -> Result<bool> {
        let mut classes: BTreeMap<(u64, u64), Vec<usize>> = BTreeMap::new();
        for (i, matrix) in self.ours.iter().enumerate().filter(|(i, _)| self.our_use[*i].is_empty()) {
            classes.entry(matrix.shape()).or_default().push(i);
        }
        let mut by_shape: HashMap<(u64, u64), Vec<usize>> = HashMap::new();
        for (i, matrix) in self.theirs.iter().enumerate().filter(|(i, _)| self.their_use[*i].is_empty()) {
            by_shape.entry(matrix.shape()).or_default().push(i);
        }
        let mut found = Vec::new();
        for ((rows, columns), ours) in classes {
            let mut theirs = by_shape.get(&(rows, columns)).cloned().unwrap_or_default();
            if rows != columns {
                theirs.extend(by_shape.get(&(columns, rows)).into_iter().flatten());
            }
            found.extend(self.candidates(&ours, &theirs)?);
        }
        found.sort_by(|a, b| self.order(a, b));
        let before = self.pairs.len();
        found.into_iter().for_each(|pair| self.take(pair));
        Ok(self.pairs.len() > before)
    }

    /// The best pairs among tensors of one shape, a few for each of the reference. Heads are only looked at where the
    /// plain views do not settle it.
    fn candidates(&self, ours: &[usize], theirs: &[usize]) -> Result<Vec<Found>> {
        let Some(shape) = ours.first().map(|i| self.ours[*i].shape()).filter(|_| !theirs.is_empty()) else {
            return Ok(Vec::new());
        };
        let mut found = vec![Vec::new(); ours.len()];
        let all: Vec<usize> = (0..ours.len()).collect();
        let plain = [View::default(), View { transposed: true, ..View::default() }];
        self.score(shape, ours, &all, theirs, &plain, &mut found)?;
        let is_settled = |found: &Vec<Found>| found.iter().any(|pair| pair.similarity >= SETTLED);
        let open: Vec<usize> = all.into_iter().filter(|i| !is_settled(&found[*i])).collect();
        self.score(shape, ours, &open, theirs, &head_views(shape.0), &mut found)?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Adds to `found` the best of `theirs`, under some views, for those of `ours` that `wanted` numbers.
    fn score(
        &self,
        shape: (u64, u64),
        ours: &[usize],
        wanted: &[usize],
        theirs: &[usize],
        views: &[View],
        found: &mut [Vec<Found>],
    ) -> Result<()> {
        if wanted.is_empty() || views.is_empty() {
            return Ok(());
        }
        let grid = Grid::of(shape, self.seed);
        let samples = |of: &[usize], from: &[Matrix<'_>], view: View| -> Result<Vec<Option<Sample>>> {
            of.par_iter().map(|i| from[*i].sample(shape, &grid, view)).collect()
        };
        let ours: Vec<usize> = wanted.iter().map(|i| ours[*i]).collect();
        let reference = samples(&ours, self.ours, View::default())?;
        for view in views {
            let suspect = samples(theirs, self.theirs, *view)?;
            let scored = ours.par_iter().zip(&reference).map(|(our, sample)| {
                let scored = theirs.iter().zip(&suspect).filter_map(|(their, other)| {
                    let similarity = self.similarity(*our, *their, sample.as_ref()?, other.as_ref()?)?;
                    Some(self.whole(*our, *their, *view, similarity))
                });
                scored.collect::<Vec<_>>()
            });
            for (i, scored) in wanted.iter().zip(scored.collect::<Vec<_>>()) {
                found[*i].extend(scored);
                found[*i].sort_by(|a, b| self.order(a, b));
                found[*i].truncate(CANDIDATES);
            }
        }
        Ok(())
    }

    /// Best pairs first; of equals the one whose names agree, then in the order of the files.
    fn order(&self, a: &Found, b: &Found) -> Ordering {
        let key = |pair: &Found| {
            let same_name = self.ours[pair.ours].name == self.theirs[pair.theirs].name;
            let similarity = Reverse((pair.similarity * 1e6).round() as i64);
            (similarity, !same_name, pair.ours, pair.theirs, pair.our_part.rows.start, pair.their_part.rows.start)
        };
        key(a).cmp(&key(b))
    }

    /// The correlation of two samples if it means anything, 1 for what is constant and called the same.
    fn similarity(&self, our: usize, their: usize, a: &Sample, b: &Sample) -> Option<f64> {
        let same_name = self.ours[our].name == self.theirs[their].name;
        if a.is_constant() && b.is_constant() {
            return same_name.then_some(1.0);
        }
        let is_telling = a.len() >= MIN_TELLING || same_name;
        Some(a.correlation(b)).filter(|similarity| is_telling && *similarity >= a.least())
    }

    fn whole(&self, ours: usize, theirs: usize, view: View, similarity: f64) -> Found {
        let (our_part, their_part) = (self.ours[ours].whole(), self.theirs[theirs].whole());
        Found { ours, our_part, theirs, their_part, view, similarity }
    }

    /// Pairs what is left with parts of larger tensors, both ways.
    fn assign_parts(&mut self) -> Result<()> {
        let left =
            |used: &[Vec<Rectangle>]| -> Vec<usize> { (0..used.len()).filter(|i| used[*i].is_empty()).collect() };
        let (ours, theirs) = (left(&self.our_use), left(&self.their_use));
        let mut parts = fused::find(self.ours, &ours, self.theirs, &theirs, self.seed)?;
        let turned = fused::find(self.theirs, &theirs, self.ours, &ours, self.seed)?;
        parts.extend(turned.into_iter().map(Found::turned));
        parts.sort_by(|a, b| self.order(a, b));
        parts.into_iter().for_each(|pair| self.take(pair));
        Ok(())
    }

    /// Takes a pair if both of its parts are free.
    fn take(&mut self, pair: Found) {
        let (our_use, their_use) = (&mut self.our_use[pair.ours], &mut self.their_use[pair.theirs]);
        let is_free = |used: &[Rectangle], part: &Rectangle| used.iter().all(|other| !other.meets(part));
        if is_free(our_use, &pair.our_part) && is_free(their_use, &pair.their_part) {
            our_use.push(pair.our_part.clone());
            their_use.push(pair.their_part.clone());
            self.pairs.push(pair);
        }
    }

    fn finish(mut self) -> Matching {
        self.pairs.sort_by_key(|pair| (pair.ours, pair.our_part.rows.start, pair.our_part.columns.start, pair.theirs));
        let part = |matrix: &Matrix<'_>, Rectangle { rows, columns }: Rectangle| Part {
            file: matrix.file.to_owned(),
            tensor: matrix.info.name.clone(),
            rows,
            columns,
        };
        let pairs = self.pairs.into_iter().map(|pair| Pair {
            reference: part(&self.ours[pair.ours], pair.our_part),
            suspect: part(&self.theirs[pair.theirs], pair.their_part),
            view: pair.view,
            similarity: pair.similarity,
        });
        let free = |matrices: &[Matrix<'_>], used: &[Vec<Rectangle>]| {
            let free = matrices.iter().zip(used).filter(|(_, used)| used.is_empty());
            free.map(|(matrix, _)| (matrix.file.to_owned(), matrix.info.name.clone())).collect()
        };
        Matching {
            pairs: pairs.collect(),
            missing: free(self.ours, &self.our_use),
            extra: free(self.theirs, &self.their_use),
        }
    }
}

impl Rectangle {
    fn meets(&self, other: &Self) -> bool {
        let meet = |a: &Range<u64>, b: &Range<u64>| a.start < b.end && b.start < a.end;
        meet(&self.rows, &other.rows) && meet(&self.columns, &other.columns)
    }
}

impl Found {
    /// The same pair, with reference and suspect exchanged.
    fn turned(self) -> Self {
        let Self { ours, our_part, theirs, their_part, view, similarity } = self;
        Self { ours: theirs, our_part: their_part, theirs: ours, their_part: our_part, view, similarity }
    }
}

/// The views under which heads may have been reordered in a matrix of so many rows.
fn head_views(rows: u64) -> Vec<View> {
    let sizes = HEADS.into_iter().filter(|size| rows > 1 && rows.is_multiple_of(*size));
    let both = sizes.flat_map(|size| [Reordered::Interleaved(size), Reordered::Separated(size)]);
    both.map(|reordered| View { reordered: Some(reordered), transposed: false }).collect()
}
