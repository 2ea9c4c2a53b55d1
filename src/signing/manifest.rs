//! What is in a model: every file with its digest.

use std::collections::HashSet;
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::crypto;
use crate::error::{Cause, Error, Result, VerifyError};
use crate::format::{ModelIndex, SIGNATURE_FILE};
use crate::io::progress::{Progress, step};
use crate::io::tree::{self, is_canonical};
use crate::io::{ReadAt, Tree};

/// Left out of every manifest when they stand at the root of a model, as the reference tool does.
const GIT_PATHS: [&str; 4] = [".git", ".gitattributes", ".github", ".gitignore"];
/// Bytes hashed between two looks at the progress: an encrypted source decrypts this much in parallel.
const STEP: usize = 4 << 20;

/// The files of a model with their SHA-256 digests, and what was left out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Manifest {
    pub(super) name: String,
    pub(super) resources: Vec<Resource>,
    pub(super) ignore_paths: Vec<String>,
}

/// One file of a model.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct Resource {
    /// Path relative to the model, `/`-separated; `.` for a model that is a single file.
    pub path: String,
    /// SHA-256 of the file.
    pub digest: [u8; 32],
}

impl Manifest {
    /// Hashes the model at `path`: a directory, or a single file.
    pub fn of(path: impl AsRef<Path>) -> Result<Self> {
        Self::of_tree(&*tree::open(path)?, &[], &())
    }

    /// Hashes the files of a tree, several at once, leaving out [`SIGNATURE_FILE`], the files that git keeps at a
    /// root, and the paths to `ignore` (with all that is beneath them). A model that the strict readers of
    /// [`format`](crate::format) refuse is not signed.
    pub fn of_tree(tree: &dyn Tree, ignore: &[&str], progress: &dyn Progress) -> Result<Self> {
        if !ignore.iter().all(|path| is_canonical(path)) {
            return Err(Error::ApiMisuse(
                "a path to ignore is relative to the model, without '.', '..' and a '/' at its end",
            ));
        }
        ModelIndex::read(tree)?; // two parsers must not see two models under one signature
        let mut ignore_paths: Vec<String> = Vec::new();
        if !tree.is_single_file() {
            let defaults = [SIGNATURE_FILE].into_iter().chain(GIT_PATHS);
            ignore_paths = defaults.chain(ignore.iter().copied()).map(str::to_owned).collect();
            ignore_paths.sort();
            ignore_paths.dedup();
        }
        let name = Path::new(tree.name()).canonicalize().ok();
        let name = name.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
        let paths: Vec<_> =
            tree.entries().iter().filter(|e| !is_ignored(&e.path, &ignore_paths)).map(|e| e.path.as_str()).collect();
        if paths.is_empty() {
            return Err(VerifyError::NoFiles.on(tree.name()));
        }
        let mut resources = hash(tree, &paths, progress)?;
        if tree.is_single_file() {
            resources.iter_mut().for_each(|resource| resource.path = ".".into());
        }
        Ok(Self { name: name.unwrap_or("model").to_owned(), resources, ignore_paths })
    }

    /// The files, ordered by the code points of their paths.
    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }

    /// Name of the model: the last component of its path when it was signed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The one digest that stands for the model: SHA-256 over the raw digests in listed order.
    pub fn root_digest(&self) -> [u8; 32] {
        let digests: Vec<&[u8]> = self.resources.iter().map(|resource| resource.digest.as_slice()).collect();
        crypto::sha256(&digests)
    }
}

/// Whether `path` is one of `ignored`, or lies beneath one.
pub(super) fn is_ignored(path: &str, ignored: &[String]) -> bool {
    ignored.iter().any(|i| path.strip_prefix(i.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// The digests of the files at `paths`, in the same order. Files are hashed in parallel, each through one handle.
pub(super) fn hash(tree: &dyn Tree, paths: &[&str], progress: &dyn Progress) -> Result<Vec<Resource>> {
    let wanted: HashSet<_> = paths.iter().copied().collect();
    let sizes = tree.entries().iter().filter(|entry| wanted.contains(entry.path.as_str()));
    progress.begin("hash", sizes.map(|entry| entry.size).sum());
    let hash_one = |path: &&str| {
        let digest = hash_source(&*tree.open(path)?, progress)?;
        Ok(Resource { path: (*path).to_owned(), digest })
    };
    paths.par_iter().map(hash_one).collect()
}

fn hash_source(source: &dyn ReadAt, progress: &dyn Progress) -> Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut buf = vec![0; STEP.min(usize::try_from(source.size()).unwrap_or(STEP))];
    let mut offset = 0;
    while offset < source.size() {
        let len = (source.size() - offset).min(STEP as u64) as usize;
        source.read_at(offset, &mut buf[..len])?;
        hash.update(&buf[..len]);
        step(progress, len as u64)?;
        offset += len as u64;
    }
    Ok(hash.finalize().into())
}
