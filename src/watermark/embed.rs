//! Embedding: two passes over each block, block by block in parallel, reproducible bit for bit.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

use super::attack::Attack;
use super::carrier::{Block, Original};
use super::choice::Skipped;
use super::fingerprint::{CODE_LEN, Code};
use super::grid::on_grid;
use super::keystream::{Chips, RUN, Role};
use super::payload::payload_word;
use super::secrets::MarkKey;
use super::stamp::stamp;
use super::statistics::log10_p;
use super::store::{Distortion, is_rounded, store};
use crate::crypto;
use crate::error::{Cause, Result, WatermarkError};
use crate::format::{ModelIndex, is_about};
use crate::io::atomic::{Access, AtomicDir, AtomicFile, refuse_inside};
use crate::io::progress::{Progress, step};
use crate::io::{ReadAt, ReadAtExt, Tree, tree};
use crate::keys::{OwnerId, OwnerKey};

/// Marks models: a builder over an [`OwnerKey`].
pub struct Watermark<'a> {
    pub(super) owner: &'a OwnerKey,
    pub(super) copy: Option<String>,
    pub(super) payload: Option<u64>,
    pub(super) strength: Option<f64>,
    pub(super) beacon: String,
}

/// Attacks whose outcome every embedding predicts.
const PREDICTED: [&str; 8] = ["bf16", "f8_e4m3", "int8", "q4_0", "int4", "int3", "noise10", "prune50"];

/// What an embedding did.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Embedded {
    /// Tensors that carry the mark.
    pub tensors: usize,
    /// Weights of those tensors.
    pub weights: u64,
    /// Those of them that carry the owner mark; the others are for the copy mark.
    pub owner_weights: u64,
    /// Groups that the owner's weights are in.
    pub groups: u64,
    /// Weights that are others than before: of quantised tensors, codes that moved by one.
    pub changed: u64,
    /// Root mean square of the change over that of the weights.
    pub relative_distortion: f64,
    /// The same in decibel.
    pub distortion_db: f64,
    /// The strength used: what [`relative_distortion`](Self::relative_distortion) aims at, rounding aside.
    pub strength: f64,
    /// Merkle root of the original's blocks, in hexadecimal: what the mark is bound to.
    pub original_root: String,
    /// The label of the copy, if it carries one.
    pub copy: Option<String>,
    /// The payload in hexadecimal, if it carries one.
    pub payload: Option<String>,
    /// Matrices that do not carry the mark, each with the reason.
    pub skipped: Vec<Skipped>,
    /// Carriers that are floating point on the grid of a quantiser, so that a thief who puts them back on it takes most of
    /// their mark away at no loss: mark the quantised model instead.
    pub on_grid: Vec<String>,
    /// What theory predicts for common attacks. [`survive`](Watermark::survive) finds out.
    pub predicted: Vec<Prediction>,
}

/// What detection is expected to find after an attack, if the weights are distributed normally.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Prediction {
    /// The attack.
    pub attack: Attack,
    /// Normalised correlation with the owner mark.
    pub z: f64,
    /// Base-10 logarithm of the p-value.
    pub log10_p: f64,
}

impl<'a> Watermark<'a> {
    /// Marks for this owner.
    pub fn new(owner: &'a OwnerKey) -> Self {
        Self { owner, copy: None, payload: None, strength: None, beacon: String::new() }
    }

    /// Marks the copy of one licensee as well, under a label of the owner's choice. In place of a [payload](Self::payload).
    pub fn copy(self, label: impl Into<String>) -> Self {
        Self { copy: Some(label.into()), payload: None, ..self }
    }

    /// Writes a number of the owner's choice into the weights as well, where the mark of a [copy](Self::copy) would be. It is
    /// read without a list of what it may be; but it names no colluders, and proves nothing.
    pub fn payload(self, payload: u64) -> Self {
        Self { copy: None, payload: Some(payload), ..self }
    }

    /// Overrides the strength, the relative distortion, which follows from the number of weights otherwise. The
    /// detector must be told the same.
    pub fn strength(self, strength: f64) -> Self {
        Self { strength: Some(strength), ..self }
    }

    /// Binds the mark to a public random value newer than the original, such as a round of drand, so that nobody
    /// can have searched for the key beforehand. The detector must be told the same.
    pub fn beacon(self, beacon: impl Into<String>) -> Self {
        Self { beacon: beacon.into(), ..self }
    }

    /// Who marks.
    pub fn owner(&self) -> OwnerId {
        self.owner.id()
    }

    /// Marks the model at `original`, a file or a directory, and writes it to the new file or directory `marked`.
    ///
    /// A directory keeps its other files, but not its signature, which no longer fits.
    pub fn embed(&self, original: impl AsRef<Path>, marked: impl AsRef<Path>) -> Result<Embedded> {
        self.embed_with(original, marked, &())
    }

    /// As [`embed`](Self::embed), watched by `progress`.
    pub fn embed_with(
        &self,
        original: impl AsRef<Path>,
        marked: impl AsRef<Path>,
        progress: &dyn Progress,
    ) -> Result<Embedded> {
        let (original, marked) = (original.as_ref(), marked.as_ref());
        refuse_inside(original, marked)?;
        self.embed_tree(&*tree::open(original)?, marked, progress)
    }

    /// As [`embed_with`](Self::embed_with), from any tree.
    pub fn embed_tree(&self, tree: &dyn Tree, marked: &Path, progress: &dyn Progress) -> Result<Embedded> {
        if let Some(label) = self.copy.as_ref().filter(|label| !is_label(label)) {
            return Err(WatermarkError::Label(label.clone()).on(tree.name()));
        }
        let index = ModelIndex::read(tree)?;
        let original = Original::new(tree, &index, self.strength)?;
        if let Some(name) = &original.twin {
            return Err(WatermarkError::AmbiguousTensor(name.clone()).on(tree.name())); // it would stay unmarked
        }
        let is_archive = |path: &str| index.file(path).is_some_and(|file| file.format.is_archive());
        if let Some(carrier) = original.carriers().iter().find(|carrier| is_archive(&carrier.file)) {
            return Err(WatermarkError::Archive(carrier.file.clone()).on(tree.name()));
        }
        let root = original.root(progress)?;
        let on_grid = on_grid(&original)?;
        let mark = original.terms(self.owner.name(), &root, &self.beacon).mark_key(self.owner);
        let copy = self.copy.as_ref().map(|label| Code::new(mark.code()).word(label));
        let word = copy.or_else(|| self.payload.map(payload_word));
        let marker = Marker { original: &original, mark, word };
        let done = if tree.is_single_file() {
            let Some(entry) = tree.entries().first() else { return Err(WatermarkError::NoCarrier.on(tree.name())) };
            progress.begin("mark", entry.size);
            marker.write_file(tree, &entry.path, AtomicFile::create(marked, Access::Shared)?, progress)?
        } else {
            let dir = AtomicDir::create(marked)?;
            progress.begin("mark", tree.total_size());
            let mut done = Done::default();
            for entry in tree.entries().iter().filter(|entry| !is_about(&entry.path)) {
                let file = dir.file(&entry.path, Access::Shared)?;
                done.add(marker.write_file(tree, &entry.path, file, progress)?);
            }
            dir.commit(Access::Shared)?;
            done
        };
        Ok(marker.report(done, &root, on_grid, self))
    }
}

struct Marker<'a> {
    original: &'a Original,
    mark: MarkKey,
    word: Option<Vec<bool>>,
}

impl Marker<'_> {
    /// Writes one file of the model: its carriers marked, all other bytes as they are.
    fn write_file(&self, tree: &dyn Tree, path: &str, file: AtomicFile, progress: &dyn Progress) -> Result<Done> {
        let source = tree.open(path)?;
        file.set_size(source.size())?;
        let places = |block: &Block| {
            let tensor = &self.original.carrier(block).tensor;
            let span = block.span(tensor);
            let (offset, size) = (span.start - tensor.span.start, span.end - span.start);
            let places = self.original.carrier(block).places.iter();
            let here = places.filter(|(file, _)| file == path).map(move |(_, start)| start + offset);
            here.map(|start| (start, start + size)).collect::<Vec<_>>()
        };
        let blocks: Vec<_> = self.original.blocks().iter().map(|block| (block, places(block))).collect();
        let blocks: Vec<_> = blocks.into_iter().filter(|(_, places)| !places.is_empty()).collect();
        copy_between(&*source, &file, &blocks.iter().flat_map(|(_, places)| places.clone()).collect(), progress)?;
        let marked = blocks.par_iter().map(|(block, places)| {
            let (bytes, done) = self.mark_block(block)?;
            for (start, _) in places {
                file.write_at(*start, &bytes)?;
                step(progress, bytes.len() as u64)?;
            }
            Ok(if self.original.carrier(block).file == path { done } else { Done::default() })
        });
        let done: Vec<Done> = marked.collect::<Result<_>>()?; // summed in order: the same every time
        file.commit()?;
        Ok(done.into_iter().fold(Done::default(), |mut sum, one| {
            sum.add(one);
            sum
        }))
    }

    /// The bytes of a block, marked.
    fn mark_block(&self, block: &Block) -> Result<(Vec<u8>, Done)> {
        let dtype = self.original.carrier(block).tensor.dtype;
        let weights = self.original.read(block)?;
        let mut bytes = self.original.bytes(block)?;
        let key = self.mark.block(&self.original.carrier(block).tensor.name, block.number);
        let chips = self.original.chips(&key, block);
        let target = stamp(&weights, &chips, self.original.parameters.strength, self.word.as_deref());
        let words = if is_rounded(dtype) { weights.values.len() } else { 0 };
        let words = key.halves("srnd", words);
        let distortion = store(dtype, &weights.values, &target.values, &words, &mut bytes);
        let owner_weights = owner_weights(&chips, weights.values.len());
        Ok((bytes, Done { distortion, owner_weights, groups: chips.dither.len() as u64 }))
    }

    fn report(&self, done: Done, root: &[u8; 32], on_grid: Vec<String>, watermark: &Watermark<'_>) -> Embedded {
        let Distortion { change, energy, changed } = done.distortion;
        let relative_distortion = (change / energy.max(f64::MIN_POSITIVE)).sqrt();
        let strength = self.original.parameters.strength;
        let marked = if self.word.is_some() { 1.0 } else { 0.5 }; // of the weights
        let rounding = (relative_distortion.powi(2) - marked * strength.powi(2)).max(0.0).sqrt();
        let attacks = PREDICTED.iter().filter_map(|attack| attack.parse().ok());
        Embedded {
            tensors: self.original.carriers().len(),
            weights: self.original.weights(),
            owner_weights: done.owner_weights,
            groups: done.groups,
            changed,
            relative_distortion,
            distortion_db: 20.0 * relative_distortion.log10(),
            strength,
            original_root: crypto::hex(root),
            copy: watermark.copy.clone(),
            payload: watermark.payload.map(|payload| format!("{payload:016x}")),
            skipped: self.original.skipped.clone(),
            on_grid,
            predicted: attacks.map(|attack| predict(attack, done.owner_weights, strength, rounding)).collect(),
        }
    }
}

/// A group's displacement is uniform within `strength * sqrt(3)`: its square has mean `strength^2`, and `9 / 5` of the square of
/// that is the mean of its fourth power.
fn predict(attack: Attack, owner_weights: u64, strength: f64, rounding: f64) -> Prediction {
    let (kept, noise) = attack.effect();
    let variance = 1.8 * strength * strength + rounding * rounding + noise * noise;
    let z = (owner_weights as f64 * kept).sqrt() * strength / variance.sqrt();
    Prediction { attack, z, log10_p: log10_p(z) }
}

/// How many of a block's first `weights` weights carry the owner mark.
fn owner_weights(chips: &Chips, weights: usize) -> u64 {
    let runs = (0..weights.div_ceil(RUN)).filter(|run| matches!(chips.role(*run, CODE_LEN), Role::Owner(_)));
    runs.map(|run| (weights - run * RUN).min(RUN) as u64).sum()
}

/// What was done to one block, or more.
#[derive(Default)]
struct Done {
    distortion: Distortion,
    owner_weights: u64,
    groups: u64,
}

impl Done {
    fn add(&mut self, other: Self) {
        self.distortion.add(other.distortion);
        self.owner_weights += other.owner_weights;
        self.groups += other.groups;
    }
}

/// Whether a label can stand in a list, one a line.
fn is_label(label: &str) -> bool {
    (1..=255).contains(&label.len()) && label.trim() == label && !label.contains(char::is_control)
}

/// Copies everything outside of `spans` (start to end).
fn copy_between(
    source: &dyn ReadAt,
    file: &AtomicFile,
    spans: &BTreeMap<u64, u64>,
    progress: &dyn Progress,
) -> Result<()> {
    const PIECE: u64 = 4 << 20;
    let mut at = 0;
    for (start, end) in spans.iter().map(|(s, e)| (*s, *e)).chain([(source.size(), source.size())]) {
        while at < start {
            let piece = source.read_span(at..start.min(at + PIECE))?;
            file.write_at(at, &piece)?;
            step(progress, piece.len() as u64)?;
            at += piece.len() as u64;
        }
        at = end;
    }
    Ok(())
}
