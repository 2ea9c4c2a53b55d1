//! The signatures of a model, wherever they lie.

use std::path::Path;

use super::bundle::Bundle;
use super::manifest::Manifest;
use super::release::Release;
use super::statement::Statement;
use crate::error::{Cause, Result, VerifyError};
use crate::format::{SIGNATURE_FILE, is_signature, release_path, signature_path};
use crate::io::Tree;

/// Most signature files of a model, and most bytes of several together.
const MAX_SIGNATURES: usize = 16;
const MAX_SIZE: u64 = 64 << 20;

/// The signature files of a model, unverified: of its files, of its release, by one signer or by several.
///
/// In a directory these are all of `model.sig` and `model.*.sig` at its root; of a single file those beside it with
/// `.sig` and `.release.sig` after its name.
#[derive(Clone, Debug, Default)]
pub struct Signatures {
    pub(super) found: Vec<(Option<String>, Bundle)>,
}

impl Signatures {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Finds the signatures of the model at `path`, whose files are those of `tree`. There must be one at least.
    pub fn find(path: impl AsRef<Path>, tree: &dyn Tree) -> Result<Self> {
        if tree.is_single_file() { Self::beside(path) } else { Self::within(tree) }
    }

    /// Finds the signatures at the root of a directory.
    pub fn within(tree: &dyn Tree) -> Result<Self> {
        let mut found = Self::new();
        let files: Vec<_> = tree.entries().iter().filter(|entry| is_signature(&entry.path)).collect();
        let size = files.iter().fold(0u64, |size, entry| size.saturating_add(entry.size));
        if files.len() > MAX_SIGNATURES || size > MAX_SIZE && files.len() > 1 {
            let problem = format!("more than {MAX_SIGNATURES} signatures, or 64 MiB of them");
            return Err(VerifyError::Unsupported(problem).on(tree.name()));
        }
        for entry in files {
            found = found.and(Some(entry.path.clone()), Bundle::read_from(&*tree.open(&entry.path)?)?);
        }
        if found.found.is_empty() {
            return Err(VerifyError::NoSignature { path: SIGNATURE_FILE.into() }.on(tree.name()));
        }
        Ok(found)
    }

    /// Finds the signatures beside a single file.
    pub fn beside(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let found = Self::new().and(None, Bundle::read(signature_path(path))?);
        let release = release_path(path);
        let is_there = release.symlink_metadata().is_ok();
        Ok(if is_there { found.and(None, Bundle::read(release)?) } else { found })
    }

    /// Adds a signature; `inside` is its path in the model, if it lies there.
    pub fn and(mut self, inside: Option<String>, bundle: Bundle) -> Self {
        self.found.push((inside, bundle));
        self
    }

    /// The bundles.
    pub fn bundles(&self) -> impl Iterator<Item = &Bundle> {
        self.found.iter().map(|(_, bundle)| bundle)
    }

    /// What the signatures say, although nobody has verified them: to be shown, not to be believed.
    pub fn danger_unverified(&self) -> Result<(Manifest, Option<Release>)> {
        let (mut manifest, mut release) = (None, None);
        for bundle in self.bundles() {
            match Statement::parse(bundle.payload()).map_err(|cause| cause.on("signature"))? {
                Statement::Model(model) => manifest = manifest.or(Some(model)),
                Statement::Release(said) => release = release.or(Some(said)),
            }
        }
        let missing = || VerifyError::NoSignature { path: SIGNATURE_FILE.into() }.on("signature");
        Ok((manifest.ok_or_else(missing)?, release))
    }

    /// Whether the file at `path` of the model is one of them.
    pub(super) fn contains(&self, path: &str) -> bool {
        self.found.iter().any(|(inside, _)| inside.as_deref() == Some(path))
    }
}
