//! Whose signature a model must carry, and the verifier that holds it to that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::bundle::Bundle;
use super::manifest::{hash, is_ignored};
use super::{SIGNATURE_FILE, signature_path, statement};
use crate::crypto;
use crate::error::{Cause, Result, VerifyError};
use crate::io::{Progress, Tree, tree};
use crate::keys::VerifyingKey;

/// What a model must satisfy to be verified.
///
/// Only what the caller puts here counts: nothing in a signature can widen it.
#[derive(Clone, Debug)]
pub struct Policy {
    keys: Vec<VerifyingKey>,
    ignore_unsigned: bool,
    ignore_paths: Vec<String>,
}

impl Policy {
    /// Requires a signature by `key`.
    pub fn require(key: VerifyingKey) -> Self {
        Self { keys: vec![key], ignore_unsigned: false, ignore_paths: Vec::new() }
    }

    /// Accepts a signature by `key` as well: one of the keys suffices.
    pub fn or(mut self, key: VerifyingKey) -> Self {
        self.keys.push(key);
        self
    }

    /// Leaves out a path of the model, with all that is beneath it, even though it was not signed.
    pub fn danger_ignore_path(mut self, path: impl Into<String>) -> Self {
        self.ignore_paths.push(path.into());
        self
    }

    /// Tolerates files that were not signed. Whatever loads them loads what nobody vouched for.
    pub fn danger_ignore_unsigned_files(mut self) -> Self {
        self.ignore_unsigned = true;
        self
    }

    /// Verifies the model at `path` against the [`SIGNATURE_FILE`] in it (for a single file: beside it, `.sig`).
    pub fn verify(&self, path: impl AsRef<Path>) -> Result<Verified> {
        let path = path.as_ref();
        let tree = tree::open(path)?;
        if tree.is_single_file() {
            return self.verify_tree(&*tree, &Bundle::read(signature_path(path))?, None, &());
        }
        self.verify_tree(&*tree, &Self::find(&*tree)?, Some(SIGNATURE_FILE), &())
    }

    /// The signature that lies in a model under its usual name.
    pub fn find(tree: &dyn Tree) -> Result<Bundle> {
        if !tree.entries().iter().any(|entry| entry.path == SIGNATURE_FILE) {
            return Err(VerifyError::NoSignature { path: SIGNATURE_FILE.into() }.on(tree.name()));
        }
        Bundle::read_from(&*tree.open(SIGNATURE_FILE)?)
    }

    /// Verifies the files of a tree. `inside` is the path of the signature itself where it lies in the model.
    ///
    /// The order of checks is that of `spec/signing.md`: the signature before anything it says, the set of files
    /// before any is hashed, every file through one handle.
    pub fn verify_tree(
        &self,
        tree: &dyn Tree,
        bundle: &Bundle,
        inside: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<Verified> {
        let fail = |cause: VerifyError| cause.on(tree.name());
        let (signer, payload) = bundle.open(&self.keys).map_err(fail)?;
        let mut signed = statement::parse(&payload).map_err(fail)?;
        if let (true, [entry]) = (tree.is_single_file(), tree.entries()) {
            for resource in &mut signed.resources {
                if resource.path != "." && resource.path != entry.path {
                    return Err(fail(VerifyError::MissingFile { path: resource.path.clone() }));
                }
                resource.path = entry.path.clone();
            }
        }
        let sizes: BTreeMap<&str, u64> = tree.entries().iter().map(|entry| (entry.path.as_str(), entry.size)).collect();
        let there: BTreeSet<&str> = sizes.keys().copied().collect();
        let listed: BTreeSet<&str> = signed.resources.iter().map(|resource| resource.path.as_str()).collect();
        if let Some(path) = listed.difference(&there).next() {
            return Err(fail(VerifyError::MissingFile { path: (*path).into() }));
        }
        let mut ignored = Vec::new();
        for path in there.difference(&listed) {
            if Some(*path) == inside {
                continue;
            }
            let has_no_shards = signed.hashing.shard_size.is_some() && sizes.get(path) == Some(&0);
            let tolerated = [&signed.ignore_paths, &self.ignore_paths].iter().any(|paths| is_ignored(path, paths));
            if !tolerated && !has_no_shards && !self.ignore_unsigned {
                return Err(fail(VerifyError::ExtraFile { path: (*path).into() }));
            }
            ignored.push((*path).to_owned());
        }
        let files = listed.len();
        let mut hashed = signed.resources.clone();
        hash(tree, signed.hashing.hash, &mut hashed, progress)?;
        for (found, expected) in hashed.iter().zip(&signed.resources) {
            if found.digest != expected.digest {
                return Err(fail(VerifyError::DigestMismatch { path: found.path.clone() }));
            }
        }
        // a single file's signed name may be "." or its base name: the root digest is over digests alone
        let root_digest = crypto::hex(&signed.root_digest());
        Ok(Verified { signer: signer.clone(), name: signed.name, root_digest, files, ignored })
    }
}

/// What was verified. Exists only when everything was.
#[derive(Clone, Debug)]
pub struct Verified {
    signer: VerifyingKey,
    name: String,
    root_digest: String,
    files: usize,
    ignored: Vec<String>,
}

impl Verified {
    /// Whose signature it is.
    pub fn signer(&self) -> &VerifyingKey {
        &self.signer
    }

    /// The model's name when it was signed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The digest that stands for the model, in hexadecimal.
    pub fn root_digest(&self) -> &str {
        &self.root_digest
    }

    /// How many files were hashed and found to be what was signed.
    pub fn files(&self) -> usize {
        self.files
    }

    /// Files that are in the model but not covered by the signature, because it, or the policy, leaves them out.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }
}
