//! What was found in a suspect.

use serde::Serialize;
use serde_json::{Value, json};

use super::blind::Phases;
use super::payload::PayloadEvidence;
use super::statistics::log10_p;
use crate::error::{Cause, FormatError, Result};

/// Ownership is called detected below this: 2^-128.
const LOG10_OWNER: f64 = -38.53;
/// A copy is named below this, after correction for the number of copies: 2^-40.
const LOG10_COPY: f64 = -12.04;
/// Methods there are: p-values are multiplied by their number, since the best of them counts.
pub(super) const METHODS: u64 = 3;
/// Readings there are of the copy mark.
const COPY_READINGS: f64 = 2.0;

/// What was found in a suspect. Finding nothing is evidence too: a p-value near 1.
#[derive(Clone, Debug)]
pub struct Evidence {
    pub(super) readings: Vec<Reading>,
    pub(super) copies: Vec<CopyEvidence>,
    pub(super) payload: PayloadEvidence,
    pub(super) alignment: Vec<String>,
    pub(super) tensors_matched: usize,
    pub(super) tensors: usize,
    pub(super) unread: Vec<(String, FormatError)>,
}

/// A way to look for the owner mark.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Method {
    /// Against the original, scaled row by row.
    Direct,
    /// Put straight, and cleaned of quantisation, of low-rank drift and of a partner.
    Cleaned,
    /// By the suspect alone: how close it lies to the secret lattice.
    Blind,
}

/// What one method found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Reading {
    /// The method.
    pub method: Method,
    /// Of mean 0 and variance 1 where there is no mark: the normalised correlation, or the mean cosine of the phases times the
    /// root of twice their number.
    pub z: f64,
    /// Base-10 logarithm of a proved bound on the probability that this method finds as much in a suspect that was made
    /// without knowledge of the key.
    pub log10_p: f64,
}

impl Reading {
    pub(super) fn of_correlation(method: Method, z: f64) -> Self {
        Self { method, z, log10_p: log10_p(z) }
    }

    pub(super) fn of_phases(phases: &Phases) -> Self {
        let z = phases.mean_cosine() * (2.0 * phases.groups() as f64).sqrt();
        Self { method: Method::Blind, z, log10_p: phases.log10_p() }
    }
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
    /// show it if its weights had been made without knowledge of the key. That of the best [`Reading`], corrected for the
    /// number of methods there are, whether tried or not.
    pub fn log10_p(&self) -> f64 {
        let best = self.readings.iter().map(|reading| reading.log10_p).fold(0.0, f64::min);
        (best + (METHODS as f64).log10()).min(0.0)
    }

    /// What each method found that was tried, the direct one first.
    pub fn readings(&self) -> &[Reading] {
        &self.readings
    }

    /// What a method found, if it was tried.
    pub fn reading(&self, method: Method) -> Option<&Reading> {
        self.readings.iter().find(|reading| reading.method == method)
    }

    /// The normalised correlation with the owner mark by the better of the methods that need the original: of mean 0 and
    /// variance 1 where there is no mark.
    pub fn z(&self) -> f64 {
        let z = self.readings.iter().filter(|reading| reading.method != Method::Blind).map(|reading| reading.z);
        z.reduce(|a, b| if b > a { b } else { a }).unwrap_or(0.0)
    }

    /// Whether the owner mark is there beyond doubt: p below 2^-128.
    pub fn is_detected(&self) -> bool {
        is_beyond_doubt(self.log10_p())
    }

    /// What the copy mark says if it is read as a payload.
    pub fn payload(&self) -> &PayloadEvidence {
        &self.payload
    }

    /// The copy that this suspect derives from most clearly, if one stands out (p below 2^-40).
    pub fn copy(&self) -> Option<&CopyEvidence> {
        self.named().next()
    }

    /// All copies that stand out (p below 2^-40): several, if their holders put theirs together.
    pub fn named(&self) -> impl Iterator<Item = &CopyEvidence> {
        self.copies.iter().take_while(|copy| copy.log10_p <= LOG10_COPY)
    }

    /// The evidence for each label, strongest first.
    pub fn copies(&self) -> &[CopyEvidence] {
        &self.copies
    }

    /// What had to be undone before the suspect could be compared, in words.
    pub fn alignment(&self) -> &[String] {
        &self.alignment
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

    /// Whether the mark was found. Fails if no weights of the suspect, called `name`, were seen: that is no answer.
    pub fn verdict(&self, name: &str) -> Result<bool> {
        match self.unread.first() {
            Some((path, cause)) if self.tensors_matched == 0 && !self.is_detected() => {
                Err(cause.clone().on(if path.is_empty() { name } else { path }))
            }
            _ => Ok(self.is_detected()),
        }
    }

    /// The same for machines, as the command line prints it.
    pub fn to_json(&self) -> Value {
        let named: Vec<_> = self.named().map(|c| json!({"label": c.label, "log10_p": c.log10_p})).collect();
        let payload = &self.payload;
        let unread = self.unread.iter().map(|(path, cause)| json!({"path": path, "code": cause.word()}));
        json!({
            "detected": self.is_detected(),
            "log10_p": self.log10_p(),
            "z": self.z(),
            "readings": self.readings,
            "copy": named.first(),
            "copies": named,
            "payload": payload.payload.map(|p| json!({"hex": format!("{p:016x}"), "turned": payload.turned, "weakest": payload.weakest()})),
            "tensors_matched": self.tensors_matched,
            "tensors": self.tensors,
            "unread": unread.collect::<Value>(),
            "alignment": self.alignment,
        })
    }
}

/// The evidence for each label, strongest first, given that of the best reading of the copy mark.
pub(super) fn copies(labels: &[String], log10_p: &[f64]) -> Vec<CopyEvidence> {
    let corrected = |log10_p: f64| (log10_p + COPY_READINGS.log10()).min(0.0);
    let evidence = labels.iter().zip(log10_p);
    let evidence = evidence.map(|(label, p)| CopyEvidence { label: label.clone(), log10_p: corrected(*p) });
    let mut copies: Vec<_> = evidence.collect();
    copies.sort_by(|a, b| a.log10_p.total_cmp(&b.log10_p));
    copies
}

/// Whether a p-value (its base-10 logarithm) proves ownership.
pub(super) fn is_beyond_doubt(log10_p: f64) -> bool {
    log10_p <= LOG10_OWNER
}
