//! Detection against the original: exact p-values for any suspect.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::carrier::{Block, Displacement, Original, copy_amplitude};
use super::fingerprint::{CODE_LEN, Code};
use super::keystream::{Key, Role};
use super::statistics::log10_p;
use super::suspect::Suspect;
use super::weights::{Weights, is_weight};
use crate::error::{FormatError, Result};
use crate::format::ModelIndex;
use crate::io::progress::{Progress, step};
use crate::io::{Tree, tree};
use crate::keys::OwnerKey;
use crate::matching::Side;

/// Residuals beyond this many standard deviations are clipped.
const CLIP: f64 = 4.0;
/// Rows with fewer weights of a class take the variance of the block.
const MIN_CLASS: u64 = 16;
/// Blocks scored between two merges of their results: bounds memory, keeps the order of sums.
const WAVE: usize = 32;
/// Ownership is called detected below this: 2^-128.
const LOG10_OWNER: f64 = -38.53;
/// A copy is named below this, after correction for the number of copies: 2^-40.
const LOG10_COPY: f64 = -12.04;

/// Looks for an owner's marks in suspects: a builder over an [`OwnerKey`] and the original weights.
pub struct Detector<'a> {
    owner: &'a OwnerKey,
    original: PathBuf,
    strength: Option<f64>,
    beacon: String,
    copies: Vec<String>,
}

impl<'a> Detector<'a> {
    /// Detects marks of this owner in copies of the model at `original`, a file or a directory.
    pub fn new(owner: &'a OwnerKey, original: impl AsRef<Path>) -> Self {
        let original = original.as_ref().to_owned();
        Self { owner, original, strength: None, beacon: String::new(), copies: Vec::new() }
    }

    /// The strength the marks were embedded with, if it was not the default.
    pub fn strength(self, strength: f64) -> Self {
        Self { strength: Some(strength), ..self }
    }

    /// The public random value the marks were bound to, if any.
    pub fn beacon(self, beacon: impl Into<String>) -> Self {
        Self { beacon: beacon.into(), ..self }
    }

    /// The labels of all copies given out. p-values of copies are corrected for their number, so list them all.
    pub fn copies<L: Into<String>>(self, labels: impl IntoIterator<Item = L>) -> Self {
        Self { copies: labels.into_iter().map(Into::into).collect(), ..self }
    }

    /// Examines the suspect at `suspect`, a file or a directory.
    pub fn examine(&self, suspect: impl AsRef<Path>) -> Result<Evidence> {
        self.examine_tree(&*tree::open(suspect)?, &())
    }

    /// As [`examine`](Self::examine), for any tree, watched by `progress`.
    pub fn examine_tree(&self, suspect: &dyn Tree, progress: &dyn Progress) -> Result<Evidence> {
        let tree = tree::open(&self.original)?;
        let index = ModelIndex::read(&*tree)?;
        let original = Original::new(&*tree, &index, self.strength)?;
        let root = original.root(progress)?;
        let mark = original.mark_key(self.owner, &root, &self.beacon);
        let suspect = Suspect::find(&original, Side::new(&*tree, &index), suspect)?;
        let scorer = Scorer { original: &original, mark: &mark, suspect };
        let sums = scorer.score(progress)?;
        let unread = scorer.suspect.into_unread();
        let code = Code::new(&mark);
        let y = sums.copy.iter().map(|(s, v)| if *v > 0.0 { s / v.sqrt() } else { 0.0 }).collect();
        let traced = code.trace(y, &self.copies);
        let mut copies: Vec<_> = self
            .copies
            .iter()
            .zip(traced)
            .map(|(label, log10_p)| CopyEvidence { label: label.clone(), log10_p })
            .collect();
        copies.sort_by(|a, b| a.log10_p.total_cmp(&b.log10_p));
        let z = if sums.variance > 0.0 { sums.signal / sums.variance.sqrt() } else { 0.0 };
        Ok(Evidence { z, copies, tensors_matched: sums.tensors, tensors: original.carriers().len(), unread })
    }
}

/// What was found in a suspect. Finding nothing is evidence too: a p-value near 1.
#[derive(Clone, Debug)]
pub struct Evidence {
    z: f64,
    copies: Vec<CopyEvidence>,
    tensors_matched: usize,
    tensors: usize,
    unread: Vec<(String, FormatError)>,
}

/// How strongly a suspect points to one copy.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CopyEvidence {
    /// The label of the copy.
    pub label: String,
    /// Base-10 logarithm of a bound on the probability that any copy on the list would be accused like this if it
    /// had not leaked.
    pub log10_p: f64,
}

impl Evidence {
    /// Base-10 logarithm of the p-value of the owner mark: a proved bound on the probability that this suspect would
    /// show it if its weights had been made without knowledge of the key.
    pub fn log10_p(&self) -> f64 {
        log10_p(self.z)
    }

    /// The normalised correlation with the owner mark, of mean 0 and variance 1 where there is none.
    pub fn z(&self) -> f64 {
        self.z
    }

    /// Whether the owner mark is there beyond doubt: p below 2^-128.
    pub fn is_detected(&self) -> bool {
        self.log10_p() <= LOG10_OWNER
    }

    /// The copy that this suspect derives from, if one stands out (p below 2^-40).
    pub fn copy(&self) -> Option<&CopyEvidence> {
        self.copies.first().filter(|copy| copy.log10_p <= LOG10_COPY)
    }

    /// The evidence for each label, strongest first.
    pub fn copies(&self) -> &[CopyEvidence] {
        &self.copies
    }

    /// Tensors of the original found in the suspect, by their content or their names, in whole or in part.
    pub fn tensors_matched(&self) -> usize {
        self.tensors_matched
    }

    /// Tensors of the original that carry the mark.
    pub fn tensors(&self) -> usize {
        self.tensors
    }

    /// Files of the suspect that may hold weights but were not looked at, each with the reason: that nothing was found
    /// says nothing about them.
    pub fn unread(&self) -> &[(String, FormatError)] {
        &self.unread
    }
}

/// Keyed sums over a suspect.
struct Sums {
    signal: f64,
    variance: f64,
    copy: Vec<(f64, f64)>,
    tensors: usize,
}

/// The sums of one block: of the owner mark, and of each run of the copy mark at its position.
#[derive(Default)]
struct BlockSums {
    signal: f64,
    variance: f64,
    copy: Vec<(usize, f64, f64)>,
}

struct Scorer<'a> {
    original: &'a Original,
    mark: &'a Key,
    suspect: Suspect,
}

impl<'a> Scorer<'a> {
    fn score(&self, progress: &dyn Progress) -> Result<Sums> {
        let tensors = self.suspect.carriers();
        let mut sums = Sums { signal: 0.0, variance: 0.0, copy: vec![(0.0, 0.0); CODE_LEN], tensors };
        progress.begin("detect", self.original.size());
        for wave in self.original.blocks().chunks(WAVE) {
            let scored: Vec<BlockSums> =
                wave.par_iter().map(|block| self.score_block(block, progress)).collect::<Result<_>>()?;
            for block in scored {
                sums.signal += block.signal;
                sums.variance += block.variance;
                for (position, signal, variance) in block.copy {
                    let (s, v) = &mut sums.copy[position];
                    *s += signal;
                    *v += variance;
                }
            }
        }
        Ok(sums)
    }

    fn score_block(&self, block: &Block, progress: &dyn Progress) -> Result<BlockSums> {
        let span = block.span(&self.original.carrier(block).tensor);
        step(progress, span.end - span.start)?;
        let carrier = self.original.carrier(block);
        let Some(mut suspect) = self.suspect.read(block, carrier)? else { return Ok(BlockSums::default()) };
        let weights = self.original.read(block)?;
        suspect.values.iter_mut().filter(|x| !is_weight(**x)).for_each(|x| *x = 0.0);
        let scales = weights.row_scales();
        let chips = self.original.chips(self.mark, block);
        let displacement = Displacement::new(&weights, &scales, &chips, self.original.parameters.strength);
        let residuals = Residuals::new(&suspect, &weights, &scales);

        let mut sums = BlockSums::default();
        let mut run = Run::default();
        let mut finish = |run: Run| match chips.role(run.number, CODE_LEN) {
            Role::Owner(group) => {
                let amplitude = displacement.amplitude[group];
                sums.signal += amplitude * run.signal;
                sums.variance += amplitude * amplitude * run.variance;
            }
            Role::Copy(position) => sums.copy.push((position, run.signal, run.variance)),
        };
        for piece in weights.pieces() {
            if piece.run != run.number {
                finish(std::mem::take(&mut run));
                run.number = piece.run;
            }
            let is_owner = matches!(chips.role(piece.run, CODE_LEN), Role::Owner(_));
            let scale = scales[piece.row];
            for (i, chip) in (piece.start..piece.end).zip(piece.chips(chips.signs(piece.run))) {
                let amplitude = if is_owner { scale } else { copy_amplitude(weights.values[i], scale) };
                let u = residuals.normalised(piece.row, suspect.values[i], weights.values[i]) * amplitude;
                run.signal += chip * u;
                run.variance += u * u;
            }
        }
        finish(run);
        Ok(sums)
    }
}

/// Sums over one run.
#[derive(Clone, Copy, Default)]
struct Run {
    number: usize,
    signal: f64,
    variance: f64,
}

/// What is left of the suspect when the original, scaled row by row to fit, is taken away. Never sees a key.
struct Residuals {
    /// For each row: scale of the original that fits best, and the deviation of weights that are zero or not.
    rows: Vec<(f64, [f64; 2])>,
}

impl Residuals {
    fn new(suspect: &Weights, original: &Weights, scales: &[f64]) -> Self {
        let fits: Vec<f64> = suspect.rows().zip(original.rows()).map(|(x, w)| least_squares(x, w)).collect();
        let mut classes = Vec::with_capacity(fits.len());
        let mut block = [(0.0, 0u64); 2];
        for ((x, w), fit) in suspect.rows().zip(original.rows()).zip(&fits) {
            let mut row = [(0.0, 0u64); 2];
            for (x, w) in x.iter().zip(w) {
                let (sum, count) = &mut row[usize::from(*x == 0.0)];
                let d = residual(*x, *w, *fit);
                *sum += d * d;
                *count += 1;
            }
            for (total, (sum, count)) in block.iter_mut().zip(row) {
                total.0 += sum;
                total.1 += count;
            }
            classes.push(row);
        }
        let rows = fits.into_iter().zip(classes).zip(scales).map(|((fit, row), scale)| {
            let floor = 1e-6 * scale * scale + 1e-38;
            let deviation = |class: usize| {
                let (sum, count) = if row[class].1 > MIN_CLASS { row[class] } else { block[class] };
                (sum / count.max(1) as f64).max(floor).sqrt()
            };
            (fit, [deviation(0), deviation(1)])
        });
        Self { rows: rows.collect() }
    }

    /// The residual of one weight in standard deviations, clipped, over the deviation again: its optimal weight.
    fn normalised(&self, row: usize, x: f64, w: f64) -> f64 {
        let (fit, deviations) = &self.rows[row];
        let deviation = deviations[usize::from(x == 0.0)];
        (residual(x, w, *fit) / deviation).clamp(-CLIP, CLIP) / deviation
    }
}

/// The factor `c` that minimises `sum (x - c w)^2` over the weights that are not zero in the suspect.
fn least_squares(x: &[f64], w: &[f64]) -> f64 {
    let (mut xw, mut ww) = (0.0, 0.0);
    for (x, w) in x.iter().zip(w).filter(|(x, _)| **x != 0.0) {
        xw += x * w;
        ww += w * w;
    }
    xw / ww.max(1e-30)
}

fn residual(x: f64, w: f64, fit: f64) -> f64 {
    let d = x - fit * w;
    if fit.abs() > 1e-6 { d / fit } else { d }
}
