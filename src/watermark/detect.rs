//! Detection against the original: exact p-values for any suspect.

use std::path::{Path, PathBuf};

use super::carrier::Original;
use super::evidence::{self, Evidence, Method, Reading};
use super::fingerprint::Code;
use super::payload::PayloadEvidence;
use super::score::{Scorer, Sums};
use super::secrets::BlockKeys;
use super::suspect::{Suspect, unread};
use crate::alignment::align;
use crate::error::Result;
use crate::format::ModelIndex;
use crate::io::progress::Progress;
use crate::io::{Tree, tree};
use crate::keys::OwnerKey;
use crate::matching::Side;

/// Looks for an owner's marks in suspects: a builder over an [`OwnerKey`] and the original weights.
pub struct Detector<'a> {
    owner: &'a OwnerKey,
    original: PathBuf,
    strength: Option<f64>,
    beacon: String,
    copies: Vec<String>,
    search: Search,
}

/// How far to look.
#[derive(Clone, Debug, Default)]
pub(super) struct Search {
    /// Whether every method is tried, though one may have settled it.
    pub(super) exhaustive: bool,
    /// A model that the suspect may have been merged with, or tuned from.
    pub(super) partner: Option<PathBuf>,
}

impl<'a> Detector<'a> {
    /// Detects marks of this owner in copies of the model at `original`, a file or a directory.
    pub fn new(owner: &'a OwnerKey, original: impl AsRef<Path>) -> Self {
        let original = original.as_ref().to_owned();
        let search = Search::default();
        Self { owner, original, strength: None, beacon: String::new(), copies: Vec::new(), search }
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

    /// Tries every [`Method`], though the first may have settled whose model it is.
    pub fn exhaustive(self) -> Self {
        Self { search: Search { exhaustive: true, ..self.search }, ..self }
    }

    /// A model at `partner` that the suspect may have been merged with: its weights are taken away, too.
    pub fn partner(self, partner: impl AsRef<Path>) -> Self {
        Self { search: Search { partner: Some(partner.as_ref().to_owned()), ..self.search }, ..self }
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
        let mark = original.terms(self.owner.name(), &root, &self.beacon).mark_key(self.owner);
        examine(&original, Side::new(&*tree, &index), &mark, &self.copies, suspect, &self.search, progress)
    }
}

/// Looks in a suspect for the marks that known keys tell of. The original is the model `side`, or what of it was opened.
pub(super) fn examine(
    original: &Original,
    side: Side<'_>,
    keys: &dyn BlockKeys,
    labels: &[String],
    tree: &dyn Tree,
    search: &Search,
    progress: &dyn Progress,
) -> Result<Evidence> {
    let index = ModelIndex::read(tree)?;
    let theirs = Side::new(tree, &index);
    let suspect = Suspect::find(original, side, theirs)?;
    let scorer = Scorer { original, keys, suspect: &suspect };
    let trace = |sums: &Sums| match keys.code_key().filter(|_| !labels.is_empty()) {
        Some(key) => Code::new(key).trace(&sums.copy, labels, progress),
        None => Ok(Vec::new()),
    };
    let sums = scorer.direct(progress)?;
    let mut traced = trace(&sums)?;
    let mut evidence = Evidence {
        readings: vec![Reading::of_correlation(Method::Direct, sums.z())],
        copies: evidence::copies(labels, &traced),
        payload: PayloadEvidence::read(&sums.copy),
        alignment: Vec::new(),
        tensors_matched: suspect.carriers(),
        tensors: original.carriers().len(),
        unread: unread(&index),
    };
    let is_settled = evidence.is_detected() && (evidence.copies.is_empty() || evidence.copy().is_some());
    if is_settled && !search.exhaustive && search.partner.is_none() {
        return Ok(evidence);
    }
    let alignment = align(side, theirs, progress)?;
    let partner = search.partner.as_ref().map(tree::open).transpose()?;
    let partner = partner.as_deref().map(|tree| find(original, side, tree)).transpose()?;
    let sums = scorer.thorough(&alignment, partner.as_ref(), progress)?;
    evidence.readings.push(Reading::of_correlation(Method::Cleaned, sums.z()));
    evidence.readings.push(Reading::of_phases(&sums.phases));
    if !alignment.is_identity() {
        evidence.alignment = alignment.steps().iter().map(ToString::to_string).collect();
        evidence.tensors_matched =
            suspect.carriers_or(original.carriers(), |carrier| alignment.finds(&carrier.file, &carrier.tensor.name));
    }
    evidence.alignment.extend(sums.cleaned.describe());
    traced.iter_mut().zip(trace(&sums)?).for_each(|(best, p)| *best = best.min(p));
    evidence.copies = evidence::copies(labels, &traced);
    let payload = PayloadEvidence::read(&sums.copy);
    if payload.clearness() > evidence.payload.clearness() {
        evidence.payload = payload;
    }
    Ok(evidence)
}

fn find(original: &Original, side: Side<'_>, tree: &dyn Tree) -> Result<Suspect> {
    let index = ModelIndex::read(tree)?;
    Suspect::find(original, side, Side::new(tree, &index))
}
