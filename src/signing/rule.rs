//! Who may sign models of which names, and what a release of them must say.

use std::time::SystemTime;

use super::authority::{Authority, Judgement, Signatory, signatory};
use super::bundle::Bundle;
use super::release::{self, Release};
use crate::error::VerifyError;

/// Who must have signed, for models of certain names. Part of a [`Policy`](super::Policy).
#[derive(Clone, Debug)]
pub struct Rule {
    pub(super) authorities: Vec<Authority>,
    threshold: usize,
    models: Vec<String>,
    minimum_version: Option<u64>,
    not_older_than: Option<SystemTime>,
}

impl Rule {
    /// For models of any name, signed by `authority`.
    pub fn signed_by(authority: impl Into<Authority>) -> Self {
        let authorities = vec![authority.into()];
        Self { authorities, threshold: 1, models: Vec::new(), minimum_version: None, not_older_than: None }
    }

    /// Or by this one: one of them suffices, unless there is a [threshold](Self::threshold).
    pub fn or(mut self, authority: impl Into<Authority>) -> Self {
        self.authorities.push(authority.into());
        self
    }

    /// So many of them must have signed, each in a file of its own and with a key of its own.
    pub fn threshold(mut self, signers: usize) -> Self {
        self.threshold = signers.max(1);
        self
    }

    /// Only for models of these names; `*` at the end of one stands for anything.
    pub fn models<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.models.extend(names.into_iter().map(Into::into));
        self
    }

    /// There must be a release, of this version or a later one. (`0` only asks that there is one: without, nothing expires.)
    pub fn minimum_version(mut self, version: u64) -> Self {
        self.minimum_version = Some(version);
        self
    }

    /// There must be a release, issued at this time or later.
    pub fn not_older_than(mut self, time: SystemTime) -> Self {
        self.not_older_than = Some(time);
        self
    }

    pub(super) fn covers(&self, name: &str) -> bool {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        };
        self.models.is_empty() || self.models.iter().any(fits)
    }

    pub(super) fn needs_release(&self) -> bool {
        self.minimum_version.is_some() || self.not_older_than.is_some()
    }

    /// Whether it asks for more than another, so that its signers could gain by coming under the other.
    pub(super) fn is_stricter_than(&self, other: &Self) -> bool {
        self.needs_release() || self.threshold > other.threshold
    }

    /// Who of this rule has signed the bundles, if they are enough.
    pub(super) fn hold(&self, bundles: &[&Bundle], judgement: &Judgement<'_>) -> Result<Vec<Signatory>, VerifyError> {
        let authorities: Vec<&Authority> = self.authorities.iter().collect();
        let (mut signed, mut refusal) = (Vec::<(usize, Signatory)>::new(), None);
        for bundle in bundles {
            match signatory(bundle, &authorities, judgement) {
                Ok((i, by)) => {
                    // someone who signs twice, or is named twice, is one signer
                    let is_new = |(j, other): &(usize, Signatory)| *j != i && other.id() != by.id();
                    if signed.iter().all(is_new) {
                        signed.push((i, by));
                    }
                }
                Err(cause) => refusal = Some(cause),
            }
        }
        match refusal {
            Some(cause) if signed.is_empty() => Err(cause),
            _ if signed.len() < self.threshold => {
                Err(VerifyError::Threshold { found: signed.len(), required: self.threshold })
            }
            _ => Ok(signed.into_iter().map(|(_, by)| by).collect()),
        }
    }

    /// Whether anybody of this rule has signed any of the bundles.
    pub(super) fn has_signed(&self, bundles: &[&Bundle], judgement: &Judgement<'_>) -> bool {
        let authorities: Vec<&Authority> = self.authorities.iter().collect();
        bundles.iter().any(|bundle| signatory(bundle, &authorities, judgement).is_ok())
    }

    pub(super) fn check_release(&self, release: &Release) -> Result<(), VerifyError> {
        if let Some(required) = self.minimum_version.filter(|required| release.version() < *required) {
            return Err(VerifyError::Version { found: release.version(), required });
        }
        if self.not_older_than.is_some_and(|time| release.issued() < time) {
            return Err(VerifyError::TooOld { issued: release::to_text(release.issued()) });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Algorithm, SigningKey};

    #[test]
    fn rules_are_for_names() {
        let key = SigningKey::generate(Algorithm::Ed25519).unwrap().verifying_key();
        let rule = Rule::signed_by(key).models(["acme/llama-*", "acme/other"]);
        for (name, covered) in [
            ("acme/llama-1b", true),
            ("acme/llama-", true),
            ("acme/llama", false),
            ("acme/other", true),
            ("acme/other2", false),
            ("", false),
        ] {
            assert_eq!(rule.covers(name), covered, "{name}");
        }
    }
}
