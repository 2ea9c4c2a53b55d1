//! Embedding: two passes over each block, block by block in parallel, reproducible bit for bit.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

use super::carrier::{Block, Displacement, Original, copy_amplitude, is_rounded};
use super::fingerprint::{CODE_LEN, Code};
use super::keystream::{Key, RUN, Role};
use crate::crypto;
use crate::error::{Cause, Result, WatermarkError};
use crate::format::{ModelIndex, is_about};
use crate::io::atomic::{Access, AtomicDir, AtomicFile, refuse_inside};
use crate::io::progress::{Progress, step};
use crate::io::{ReadAt, ReadAtExt, Tree, tree};
use crate::keys::{OwnerId, OwnerKey};
use crate::tensor::lanes;

/// Marks models: a builder over an [`OwnerKey`].
pub struct Watermark<'a> {
    owner: &'a OwnerKey,
    copy: Option<String>,
    strength: Option<f64>,
    beacon: String,
}

/// What an embedding did.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Embedded {
    /// Tensors that carry the mark.
    pub tensors: usize,
    /// Weights of those tensors.
    pub weights: u64,
    /// Root mean square of the change over that of the weights.
    pub relative_distortion: f64,
    /// The strength used: what [`relative_distortion`](Self::relative_distortion) aims at, rounding aside.
    pub strength: f64,
    /// Merkle root of the original's blocks, in hexadecimal: what the mark is bound to.
    pub original_root: String,
    /// The label of the copy, if it carries one.
    pub copy: Option<String>,
}

impl<'a> Watermark<'a> {
    /// Marks for this owner.
    pub fn new(owner: &'a OwnerKey) -> Self {
        Self { owner, copy: None, strength: None, beacon: String::new() }
    }

    /// Marks the copy of one licensee as well, under a label of the owner's choice.
    pub fn copy(self, label: impl Into<String>) -> Self {
        Self { copy: Some(label.into()), ..self }
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
        let mark = original.mark_key(self.owner, &root, &self.beacon);
        let word = self.copy.as_ref().map(|label| Code::new(&mark).word(label));
        let marker = Marker { original: &original, mark, word };
        let distortion = if tree.is_single_file() {
            let [entry] = tree.entries() else { return Ok(marker.report(Distortion::default(), &root, self)) };
            progress.begin("mark", entry.size);
            marker.write_file(tree, &entry.path, AtomicFile::create(marked, Access::Shared)?, progress)?
        } else {
            let dir = AtomicDir::create(marked)?;
            progress.begin("mark", tree.total_size());
            let mut distortion = Distortion::default();
            for entry in tree.entries().iter().filter(|entry| !is_about(&entry.path)) {
                let file = dir.file(&entry.path, Access::Shared)?;
                distortion.add(marker.write_file(tree, &entry.path, file, progress)?);
            }
            dir.commit(Access::Shared)?;
            distortion
        };
        Ok(marker.report(distortion, &root, self))
    }
}

struct Marker<'a> {
    original: &'a Original,
    mark: Key,
    word: Option<Vec<bool>>,
}

impl Marker<'_> {
    /// Writes one file of the model: its carriers marked, all other bytes as they are.
    fn write_file(&self, tree: &dyn Tree, path: &str, file: AtomicFile, progress: &dyn Progress) -> Result<Distortion> {
        let source = tree.open(path)?;
        file.set_size(source.size())?;
        let blocks = self.original.blocks().iter().filter(|block| self.original.carrier(block).file == path);
        let mut spans = BTreeMap::new();
        for block in blocks.clone() {
            let tensor = &self.original.carrier(block).tensor;
            spans.insert(tensor.span.start, tensor.span.end);
        }
        copy_between(&*source, &file, &spans, progress)?;
        let blocks: Vec<_> = blocks.collect();
        let marked = blocks.par_iter().map(|block| {
            let distortion = self.mark_block(block, &file)?;
            let span = block.span(&self.original.carrier(block).tensor);
            step(progress, span.end - span.start)?;
            Ok(distortion)
        });
        let distortions: Vec<Distortion> = marked.collect::<Result<_>>()?; // summed in order: the same every time
        file.commit()?;
        Ok(distortions.into_iter().fold(Distortion::default(), |mut sum, one| {
            sum.add(one);
            sum
        }))
    }

    /// Marks a block and writes it to its place.
    fn mark_block(&self, block: &Block, file: &AtomicFile) -> Result<Distortion> {
        const PIECE: usize = 64 << 10; // bytes written at a time
        let tensor = &self.original.carrier(block).tensor;
        let (dtype, size) = (tensor.dtype, tensor.dtype.block().1 as usize);
        let strength = self.original.parameters.strength;
        let weights = self.original.read(block)?;
        let chips = self.original.chips(&self.mark, block);
        let scales = weights.row_scales();
        let displacement = Displacement::new(&weights, &scales, &chips, strength);
        let rounding = if is_rounded(dtype) {
            self.original.block_key(&self.mark, block).words("srnd", weights.values.len())
        } else {
            Vec::new()
        };
        let mut distortion = Distortion::default();
        let mut bytes = Vec::with_capacity(PIECE);
        let mut at = block.span(tensor).start;
        for piece in weights.pieces() {
            let scale = scales[piece.row];
            let role = chips.role(piece.run, CODE_LEN);
            let chips = piece.chips(chips.signs(piece.run));
            for (i, chip) in (piece.start..piece.end).zip(chips) {
                let weight = weights.values[i];
                let change = match (role, &self.word) {
                    (Role::Owner(group), _) => scale * displacement.amplitude[group],
                    (Role::Copy(position), Some(word)) => {
                        let amplitude = strength * copy_amplitude(weight, scale);
                        if word[position] { amplitude } else { -amplitude }
                    }
                    (Role::Copy(_), None) => 0.0,
                };
                let word = rounding.get(i).copied().unwrap_or_default();
                let (place, mut stored) = (bytes.len(), [0.0]);
                bytes.resize(place + size, 0);
                lanes::store(dtype, weight + chip * change, word, &mut bytes[place..]);
                lanes::load(dtype, &bytes[place..], &mut stored);
                distortion.add(Distortion { change: (stored[0] - weight).powi(2), energy: weight * weight });
            }
            if bytes.len() + RUN * size > PIECE || piece.end == weights.values.len() {
                file.write_at(at, &bytes)?;
                at += bytes.len() as u64;
                bytes.clear();
            }
        }
        Ok(distortion)
    }

    fn report(&self, distortion: Distortion, root: &[u8; 32], watermark: &Watermark<'_>) -> Embedded {
        Embedded {
            tensors: self.original.carriers().len(),
            weights: self.original.weights(),
            relative_distortion: (distortion.change / distortion.energy.max(f64::MIN_POSITIVE)).sqrt(),
            strength: self.original.parameters.strength,
            original_root: crypto::hex(root),
            copy: watermark.copy.clone(),
        }
    }
}

/// Whether a label can stand in a list, one a line.
fn is_label(label: &str) -> bool {
    (1..=255).contains(&label.len()) && label.trim() == label && !label.contains(char::is_control)
}

/// Sums of squares of the change and of the weights.
#[derive(Clone, Copy, Default)]
struct Distortion {
    change: f64,
    energy: f64,
}

impl Distortion {
    fn add(&mut self, other: Self) {
        self.change += other.change;
        self.energy += other.energy;
    }
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
