//! An encrypted directory, as the tree of its plaintext files.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::envelope::{Body, Header, MAGIC_FILE, MAGIC_KEYS};
use super::reader::{Reader, expect_context};
use super::{EXTENSION, KEYS_FILE};
use crate::error::{Cause, EncryptionError, Result};
use crate::io::{Entry, ReadAt, Tree};
use crate::json::Object;
use crate::keys::{Identity, InputKey};

/// The plaintext files of an encrypted directory, decrypted where they are read.
///
/// The directory must hold exactly the encrypted files that its envelope lists. Files that are not encrypted are
/// not part of the model: they are left out, so nobody takes them for authenticated.
pub struct DecryptedTree {
    source: Box<dyn Tree>,
    key: InputKey,
    context: String,
    entries: Vec<Entry>,
}

impl DecryptedTree {
    /// Whether a tree is an encrypted directory.
    pub fn recognises(tree: &dyn Tree) -> bool {
        !tree.is_single_file() && tree.entries().iter().any(|entry| entry.path == KEYS_FILE)
    }

    /// Opens an encrypted directory with the first of the identities that fits.
    pub fn open(source: Box<dyn Tree>, identities: &[&dyn Identity]) -> Result<Self> {
        if !Self::recognises(&*source) {
            return Err(EncryptionError::NotEncrypted.on(source.name()));
        }
        let keys = source.open(KEYS_FILE)?;
        let header = Header::read(&*keys, MAGIC_KEYS)?;
        if header.end != keys.size() {
            return Err(EncryptionError::BadEnvelope("bytes after it".into()).on(keys.name()));
        }
        let Body::Envelope(envelope) = &header.body else {
            return Err(EncryptionError::BadEnvelope("empty".into()).on(keys.name()));
        };
        let key = envelope.unwrap(identities, keys.name())?;
        header.check(&key).map_err(|cause| cause.on(keys.name()))?;
        let files = envelope.files.iter().flatten();
        let entries: Vec<_> = files.map(|Object(file)| Entry::new(file.path.clone(), file.size)).collect();
        let context = envelope.context.clone();
        check_complete(&*source, &entries)?;
        Ok(Self { source, key, context, entries })
    }

    /// The context the directory is bound to.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// Fails unless the directory is bound to `context`.
    pub fn expect_context(&self, context: &str) -> Result<()> {
        expect_context(context, &self.context, self.source.name())
    }
}

impl Tree for DecryptedTree {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn open(&self, path: &str) -> Result<Arc<dyn ReadAt>> {
        let missing = || EncryptionError::MissingFile { path: path.into() }.on(self.name());
        let place = self.entries.binary_search_by(|entry| entry.path.as_str().cmp(path)).map_err(|_| missing())?;
        let source = self.source.open(&format!("{path}{EXTENSION}"))?;
        let header = Header::read(&*source, MAGIC_FILE)?;
        if let Body::Envelope(_) = header.body {
            return Err(EncryptionError::ForeignFile.on(source.name()));
        }
        let reader = Reader::with_key(source, &header, &self.key, self.context.clone(), path.to_owned())?;
        if self.entries.get(place).is_none_or(|entry| entry.size != reader.size()) {
            return Err(EncryptionError::Truncated.on(reader.name()));
        }
        Ok(Arc::new(reader))
    }

    fn name(&self) -> &str {
        self.source.name()
    }
}

/// Fails unless exactly the files listed are there in encrypted form.
fn check_complete(source: &dyn Tree, listed: &[Entry]) -> Result<()> {
    let encrypted = source.entries().iter().filter_map(|entry| entry.path.strip_suffix(EXTENSION));
    let mut there: BTreeSet<&str> = encrypted.collect();
    for entry in listed {
        if !there.remove(entry.path.as_str()) {
            return Err(EncryptionError::MissingFile { path: entry.path.clone() }.on(source.name()));
        }
    }
    match there.first() {
        Some(path) => Err(EncryptionError::ExtraFile { path: format!("{path}{EXTENSION}") }.on(source.name())),
        None => Ok(()),
    }
}
