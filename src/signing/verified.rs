//! What a verifier has found to be true.

use serde_json::{Value, json};

use super::authority::Signatory;
use super::manifest::Hashing;
use super::release::Release;
use crate::crypto::hex;

/// What was verified. Exists only when everything was.
#[derive(Clone, Debug)]
pub struct Verified {
    pub(super) signatories: Vec<Signatory>,
    pub(super) name: String,
    pub(super) root_digest: [u8; 32],
    pub(super) hashing: Hashing,
    pub(super) release: Option<Release>,
    pub(super) files: usize,
    pub(super) ignored: Vec<String>,
}

impl Verified {
    /// Who signed the files: as many as the policy asks for, at least.
    pub fn signatories(&self) -> &[Signatory] {
        &self.signatories
    }

    /// The model's name: that of its release, or else the one in its signature.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The digest that stands for the model.
    pub fn root_digest(&self) -> &[u8; 32] {
        &self.root_digest
    }

    /// How the files were hashed.
    pub fn hashing(&self) -> Hashing {
        self.hashing
    }

    /// What the publisher says of the model besides, if there is a release.
    pub fn release(&self) -> Option<&Release> {
        self.release.as_ref()
    }

    /// How many files are covered by the signature.
    pub fn files(&self) -> usize {
        self.files
    }

    /// Files that are in the model but not covered by the signature, because it, or the policy, leaves them out.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// The same for machines, as the command line prints it.
    pub fn to_json(&self) -> Value {
        let signers: Vec<Value> = self.signatories.iter().map(|by| by.to_json()).collect();
        json!({
            "verified": true,
            "signer": signers.first(),
            "signers": signers,
            "name": self.name,
            "root_digest": hex(&self.root_digest),
            "hash": self.hashing.hash.name(),
            "files": self.files,
            "ignored": self.ignored,
            "release": self.release.as_ref().map(Release::predicate),
        })
    }
}
