//! The file beside a BLAKE3 signature by which a part of a model can be verified without the rest.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::digest::HashType;
use super::groups::{self, GROUP, Value};
use super::manifest::{Hashing, Manifest};
use crate::error::{Cause, Result, VerifyError};
use crate::io::atomic::{Access, AtomicFile};
use crate::io::{ReadAt, ReadAtExt, SliceAt, Tree};

/// What an outboard begins with.
const MAGIC: &[u8; 16] = b"weightmark-out-1";
const VALUE: u64 = size_of::<Value>() as u64;

/// The BLAKE3 chaining values of the 64 KiB groups of all files of a model that have more than one: 0.05 % of its size.
///
/// Nothing in it is believed: the values of a file are trusted when they hash to its signed digest. It need not be signed,
/// and a signature with an outboard is the same as one without. Made by [`Manifest::with_outboard`], used by
/// [`VerifiedTree::lazy`](super::VerifiedTree::lazy); the format is in `spec/signing.md`.
pub struct Outboard {
    source: Arc<dyn ReadAt>,
    /// Where the values of a file are, by its path in the tree.
    places: HashMap<String, Range<u64>>,
}

impl Outboard {
    /// The outboard for the files of `tree`, signed as `manifest` says: whole, with BLAKE3. Only its length is checked,
    /// which follows from the sizes of the files; its values are read when a file is.
    pub fn read_from(source: Arc<dyn ReadAt>, manifest: &Manifest, tree: &dyn Tree) -> Result<Self> {
        let fail = |problem: &str| VerifyError::Outboard(problem.to_owned()).on(source.name());
        if manifest.hashing() != (Hashing { hash: HashType::Blake3, shard_size: None }) {
            return Err(fail("the model was not signed by whole files and blake3"));
        }
        let mut magic = [0; MAGIC.len()];
        if source.size() < MAGIC.len() as u64 {
            return Err(fail("not an outboard"));
        }
        source.read_at(0, &mut magic)?;
        if magic != *MAGIC {
            return Err(fail("not an outboard, or of another version"));
        }
        let sizes: HashMap<&str, u64> = tree.entries().iter().map(|entry| (entry.path.as_str(), entry.size)).collect();
        let (mut places, mut at) = (HashMap::new(), MAGIC.len() as u64);
        for resource in manifest.resources_in(tree)? {
            let Some(size) = sizes.get(resource.path.as_str()) else {
                return Err(VerifyError::MissingFile { path: resource.path }.on(tree.name()));
            };
            let end = at.saturating_add(count(*size) * VALUE); // not more than size / 2048, so no overflow here
            places.insert(resource.path, at..end);
            at = end;
        }
        if at != source.size() {
            return Err(fail("not of the length that follows from the files"));
        }
        Ok(Self { source, places })
    }

    /// Writes the outboard to a new file.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        AtomicFile::write(path, Access::Shared, &self.source.read_all(self.source.size())?)
    }

    /// The outboard as a source of bytes, as it would be read from its file.
    pub fn source(&self) -> Arc<dyn ReadAt> {
        Arc::clone(&self.source)
    }

    /// Puts together the values of files in the order in which they are listed.
    pub(super) fn of<'a>(files: impl Iterator<Item = (String, &'a [Value])>) -> Self {
        let (mut bytes, mut places) = (MAGIC.to_vec(), HashMap::new());
        for (path, values) in files {
            let start = bytes.len() as u64;
            if values.len() > 1 {
                bytes.extend_from_slice(values.as_flattened());
            }
            places.insert(path, start..bytes.len() as u64);
        }
        Self { source: Arc::new(SliceAt::named(bytes, "outboard")), places }
    }

    /// The values of the groups of the file at `path`, which has more than one, once they hash to its digest.
    pub(super) fn values(&self, path: &str, digest: &[u8]) -> Result<Box<[Value]>> {
        let place = self.places.get(path).cloned().unwrap_or_default();
        let mut values = vec![Value::default(); ((place.end - place.start) / VALUE) as usize].into_boxed_slice();
        self.source.read_at(place.start, values.as_flattened_mut())?;
        if values.len() < 2 || groups::root(&values) != digest {
            let problem = format!("its values for {path:?} do not hash to what was signed");
            return Err(VerifyError::Outboard(problem).on(self.source.name()));
        }
        Ok(values)
    }
}

/// How many values a file of so many bytes has here.
fn count(size: u64) -> u64 {
    if size <= GROUP as u64 { 0 } else { size.div_ceil(GROUP as u64) }
}
