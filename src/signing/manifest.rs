//! What is in a model: every file, or every part of every file, with its digest.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::digest::{HashType, Scratch};
use super::groups::Value;
use super::outboard::Outboard;
use crate::crypto;
use crate::error::{Cause, Error, Result, VerifyError};
use crate::format::{ModelIndex, OUTBOARD_FILE, RELEASE_FILE, SIGNATURE_FILE, gate, is_about, is_signature};
use crate::io::progress::Progress;
use crate::io::tree::{self, is_canonical};
use crate::io::{ReadAt, Tree};

/// Left out of every manifest when they stand at the root of a model, as the reference tool does.
const GIT_PATHS: [&str; 4] = [".git", ".gitattributes", ".github", ".gitignore"];
/// Most parts of all files together: a statement names each.
const MAX_PARTS: u64 = 200_000;

/// How the files of a model are hashed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[allow(clippy::exhaustive_structs)]
pub struct Hashing {
    /// With which function.
    pub hash: HashType,
    /// In parts of this many bytes, each with a digest of its own, rather than whole: OMS calls them shards. A verifier
    /// can then check a part of a file, and several threads one file.
    pub shard_size: Option<u64>,
}

/// What of a model is signed.
///
/// ```
/// use weightmark::signing::{Hashing, Manifest, Scope};
///
/// # let model = tempfile::tempdir()?;
/// # std::fs::write(model.path().join("config.json"), "{}")?;
/// # std::fs::write(model.path().join("notes.txt"), "")?;
/// let tree = weightmark::io::tree::open(model.path())?;
/// let scope = Scope::default().ignore("notes.txt");
/// assert_eq!(Manifest::of_tree(&*tree, Hashing::default(), &scope, &())?.files(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Scope {
    ignore: Vec<String>,
    code: Vec<String>,
}

impl Scope {
    /// Leaves out a path, relative to the model, with all that is beneath it.
    pub fn ignore(mut self, path: impl Into<String>) -> Self {
        self.ignore.push(path.into());
        self
    }

    /// Takes a file although it holds code, or what is not provably plain data ([`gate`]). A
    /// [`Release`](super::Release) says so.
    pub fn danger_allow_code(mut self, path: impl Into<String>) -> Self {
        self.code.push(path.into());
        self
    }
}

/// The files of a model with their digests, and what was left out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Manifest {
    pub(super) name: String,
    pub(super) hashing: Hashing,
    pub(super) resources: Vec<Resource>,
    pub(super) ignore_paths: Vec<String>,
    /// What was let through the gate; no statement says it.
    pub(super) code: Vec<String>,
}

/// One file of a model, or a part of one.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Resource {
    /// Path relative to the model, `/`-separated; `.` for a model that is a single file.
    pub path: String,
    /// The bytes of the part; `None` for a whole file.
    pub shard: Option<Range<u64>>,
    /// Digest of the file or part.
    pub digest: Vec<u8>,
}

impl Manifest {
    /// Hashes the model at `path`, a directory or a single file, whole files with SHA-256.
    pub fn of(path: impl AsRef<Path>) -> Result<Self> {
        Self::of_tree(&*tree::open(path)?, Hashing::default(), &Scope::default(), &())
    }

    /// Hashes the files of a tree, several at once, leaving out [`SIGNATURE_FILE`], [`RELEASE_FILE`] and [`OUTBOARD_FILE`],
    /// the files that git keeps at a root, and the paths to `ignore` (with all that is beneath them). A model that the strict readers of
    /// [`format`](crate::format) refuse is not signed, nor one
    /// that holds serialised code: what is not provably plain data is refused by the [`gate`].
    pub fn of_tree(tree: &dyn Tree, hashing: Hashing, scope: &Scope, progress: &dyn Progress) -> Result<Self> {
        let mut this = Self::listing(tree, hashing, scope)?;
        hash(tree, hashing.hash, &mut this.resources, progress)?;
        Ok(this.on_its_own(tree))
    }

    /// As [`of_tree`](Self::of_tree), whole files with BLAKE3, and in the same pass the [`Outboard`] by which a verifier can
    /// later check what it reads where it reads it.
    pub fn with_outboard(tree: &dyn Tree, scope: &Scope, progress: &dyn Progress) -> Result<(Self, Outboard)> {
        let hashing = Hashing { hash: HashType::Blake3, shard_size: None };
        let mut this = Self::listing(tree, hashing, scope)?;
        let files = this.resources.iter_mut().map(|resource| (resource.path.clone(), resource));
        let values: Mutex<HashMap<_, Box<[Value]>>> = Mutex::default();
        each_file(tree, files, progress, |path, parts, scratch| {
            let source = tree.open(&path)?;
            let (digest, of_file) = unless_changed(&*source, &path, tree.name(), || {
                hashing.hash.of_with_groups(&*source, 0..source.size(), scratch, progress)
            })?;
            parts.into_iter().for_each(|part| part.digest.clone_from(&digest));
            values.lock().unwrap_or_else(PoisonError::into_inner).insert(path, of_file);
            Ok(())
        })?;
        let values = values.into_inner().unwrap_or_else(PoisonError::into_inner);
        let of_file = |path: &str| values.get(path).map(AsRef::as_ref).unwrap_or_default();
        let outboard = Outboard::of(this.resources.iter().map(|file| (file.path.clone(), of_file(&file.path))));
        Ok((this.on_its_own(tree), outboard))
    }

    /// The files or parts, their digests to come, called as the tree calls them.
    fn listing(tree: &dyn Tree, hashing: Hashing, scope: &Scope) -> Result<Self> {
        if !scope.ignore.iter().all(|path| is_canonical(path)) {
            return Err(Error::ApiMisuse(
                "a path to ignore is relative to the model, without '.', '..' and a '/' at its end",
            ));
        }
        let mut ignore_paths: Vec<String> = Vec::new();
        if !tree.is_single_file() {
            let defaults = [SIGNATURE_FILE, RELEASE_FILE, OUTBOARD_FILE].into_iter().chain(GIT_PATHS);
            ignore_paths = defaults.chain(scope.ignore.iter().map(String::as_str)).map(str::to_owned).collect();
            let signatures = tree.entries().iter().map(|entry| &entry.path).filter(|path| is_signature(path));
            ignore_paths.extend(signatures.cloned()); // those of others, who sign the same files
            ignore_paths.sort();
            ignore_paths.dedup();
        }
        let index = ModelIndex::read(tree)?; // two parsers must not see two models under one signature
        let is_left_out = |path: &str| is_ignored(path, &ignore_paths) || scope.code.iter().any(|code| code == path);
        let allowed = tree.entries().iter().map(|entry| entry.path.clone()).filter(|path| is_left_out(path));
        let mut code = gate(tree, &index, &allowed.collect::<Vec<_>>())?;
        code.retain(|path| !is_ignored(path, &ignore_paths));
        let name = Path::new(tree.name()).canonicalize().ok();
        let name = name.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
        let name = name.unwrap_or("model").to_owned();
        let entries = tree.entries().iter().filter(|e| !is_ignored(&e.path, &ignore_paths));
        let mut resources = Vec::new();
        for entry in entries {
            resources.append(&mut hashing.parts(&entry.path, entry.size).map_err(|cause| cause.on(tree.name()))?);
        }
        if resources.is_empty() {
            return Err(VerifyError::NoFiles.on(tree.name()));
        }
        resources.sort_by_cached_key(Resource::name);
        Ok(Self { name, hashing, resources, ignore_paths, code })
    }

    /// The same, a model that is a single file called `.`.
    fn on_its_own(mut self, tree: &dyn Tree) -> Self {
        if tree.is_single_file() {
            self.resources.iter_mut().for_each(|resource| resource.path = ".".into());
        }
        self
    }

    /// The resources, called as `tree` calls them: a model that is a single file may have been signed as `.` or under its
    /// name. Fails if it was signed as another.
    pub(super) fn resources_in(&self, tree: &dyn Tree) -> Result<Vec<Resource>> {
        let mut resources = self.resources.clone();
        if let (true, [entry]) = (tree.is_single_file(), tree.entries()) {
            for resource in &mut resources {
                if resource.path != "." && resource.path != entry.path {
                    return Err(VerifyError::MissingFile { path: resource.path.clone() }.on(tree.name()));
                }
                resource.path.clone_from(&entry.path);
            }
        }
        Ok(resources)
    }

    /// The files or parts, ordered by the code points of their names.
    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }

    /// How many files there are; empty ones not counted where parts were hashed.
    pub fn files(&self) -> usize {
        self.paths().len()
    }

    /// Name of the model: the last component of its path when it was signed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The files that hold code, or what is not provably plain data, and were taken all the same; known only of a manifest
    /// that was made here.
    pub fn code(&self) -> &[String] {
        &self.code
    }

    /// How the files were hashed.
    pub fn hashing(&self) -> Hashing {
        self.hashing
    }

    /// The paths of the files.
    pub(super) fn paths(&self) -> BTreeSet<&str> {
        self.resources.iter().map(|resource| resource.path.as_str()).collect()
    }

    /// Whether both say the same of the same files, in whatever order.
    pub(super) fn lists_the_same(&self, other: &Self) -> bool {
        fn sorted(manifest: &Manifest) -> BTreeMap<String, &[u8]> {
            manifest.resources.iter().map(|resource| (resource.name(), resource.digest.as_slice())).collect()
        }
        self.hashing == other.hashing && sorted(self) == sorted(other)
    }

    /// The one digest that stands for the model: SHA-256 over the raw digests in listed order, whatever made these.
    pub fn root_digest(&self) -> [u8; 32] {
        let digests: Vec<&[u8]> = self.resources.iter().map(|resource| resource.digest.as_slice()).collect();
        crypto::sha256(&digests)
    }
}

impl Hashing {
    /// The resources of a file, their digests to come. An empty file has no parts.
    fn parts(self, path: &str, size: u64) -> Result<Vec<Resource>, VerifyError> {
        let resource = |shard| Resource { path: path.to_owned(), shard, digest: Vec::new() };
        let Some(shard_size) = self.shard_size else { return Ok(vec![resource(None)]) };
        if shard_size == 0 || size.div_ceil(shard_size) > MAX_PARTS {
            return Err(VerifyError::Unsupported(format!("more than {MAX_PARTS} shards: take larger ones")));
        }
        if path.contains(':') {
            return Err(VerifyError::Unsupported(format!("shards of {path:?}, whose name holds a colon")));
        }
        let starts = (0..size.div_ceil(shard_size)).map(|i| i * shard_size);
        Ok(starts.map(|start| resource(Some(start..size.min(start.saturating_add(shard_size))))).collect())
    }
}

impl Resource {
    /// The name in a statement: the path, and the bytes of a part.
    pub(super) fn name(&self) -> String {
        match &self.shard {
            Some(shard) => format!("{}:{}:{}", self.path, shard.start, shard.end),
            None => self.path.clone(),
        }
    }
}

/// Whether `path` is one of `ignored`, or lies beneath one that is not a signature or an outboard: those are files.
pub(super) fn is_ignored(path: &str, ignored: &[String]) -> bool {
    let is_beneath =
        |above: &str| !is_about(above) && path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'));
    ignored.iter().any(|above| path == above || is_beneath(above))
}

/// Hashes what the resources name, several at once, and sets their digests. All parts of a file are read through one
/// handle, and must be all of it. A file that changes meanwhile is refused.
pub(super) fn hash(tree: &dyn Tree, hash: HashType, resources: &mut [Resource], progress: &dyn Progress) -> Result<()> {
    let files = resources.iter_mut().map(|resource| (resource.path.clone(), resource));
    each_file(tree, files, progress, |path, parts, scratch| {
        let source = tree.open(&path)?;
        let end = parts.iter().filter_map(|part| part.shard.as_ref()).map(|shard| shard.end).max();
        if end.is_some_and(|end| end != source.size()) {
            return Err(VerifyError::DigestMismatch { path }.on(tree.name()));
        }
        let set = |scratch: &mut Scratch, part: &mut Resource| {
            let range = part.shard.clone().unwrap_or(0..source.size());
            part.digest = hash.of(&*source, range, scratch, progress)?;
            Ok(())
        };
        unless_changed(&*source, &path, tree.name(), || match <[_; 1]>::try_from(parts) {
            Ok([part]) => set(scratch, part),
            Err(parts) => parts.into_par_iter().try_for_each_init(Scratch::default, set),
        })
    })
}

/// Works on files, several at once and the largest first, each with what was given for its path.
pub(super) fn each_file<T: Send>(
    tree: &dyn Tree,
    items: impl Iterator<Item = (String, T)>,
    progress: &dyn Progress,
    work: impl Fn(String, Vec<T>, &mut Scratch) -> Result<()> + Sync,
) -> Result<()> {
    let sizes: HashMap<&str, u64> = tree.entries().iter().map(|entry| (entry.path.as_str(), entry.size)).collect();
    let mut files: BTreeMap<String, Vec<T>> = BTreeMap::new();
    items.for_each(|(path, item)| files.entry(path).or_default().push(item));
    let size = |path: &str| sizes.get(path).copied().unwrap_or(0);
    progress.begin("hash", files.keys().map(|path| size(path)).sum());
    let mut files: Vec<_> = files.into_iter().collect();
    files.sort_by_key(|(path, _)| Reverse(size(path)));
    // in this very order, one file at a time: what is left at the end is small
    let files = files.into_iter().par_bridge();
    files.try_for_each_init(Scratch::default, |scratch, (path, items)| work(path, items, scratch))
}

/// What `work` makes of a source, unless the source has changed since it was opened.
pub(super) fn unless_changed<T>(
    source: &dyn ReadAt,
    path: &str,
    name: &str,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    match work() {
        Ok(_) | Err(Error::Io { .. } | Error::Verify { .. }) if !source.is_unchanged()? => {
            Err(VerifyError::Changed { path: path.to_owned() }.on(name))
        }
        done => done,
    }
}
