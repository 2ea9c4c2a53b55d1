//! An encrypted directory, as the tree of its plaintext files.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::envelope::{Envelope, MAX_GROUPS, Roots, ancestors};
use super::header::{Body, Header, MAGIC_FILE, MAGIC_KEYS, key_id};
use super::reader::{Reader, expect_context};
use super::{EXTENSION, KEYS_FILE};
use crate::crypto;
use crate::error::{Cause, EncryptionError, Error, KeyError, Result};
use crate::io::{Entry, ReadAt, Tree, tree};
use crate::keys::{Identity, InputKey, Stanza};

/// Largest keys file accepted.
const MAX_KEYS_FILE: u64 = 64 << 20;

/// The plaintext files of an encrypted directory, decrypted where they are read.
///
/// The directory must hold the encrypted files that its envelopes list, and no others. Files that are not encrypted are
/// not part of the model: they are left out, so nobody takes them for authenticated. Files of groups that none of the
/// identities opens are left out of the [entries](Tree::entries) too, and named by [`closed`](Tree::closed); they need not
/// be there, and what is said of them is not authenticated: whoever expects all files makes sure that nothing is closed, as
/// [`Decryptor`](super::Decryptor) does unless it is told otherwise.
pub struct DecryptedTree {
    source: Box<dyn Tree>,
    groups: Groups,
    entries: Vec<Entry>,
    /// The group of each of the entries.
    homes: Vec<usize>,
    closed: Vec<Entry>,
}

impl DecryptedTree {
    /// Whether a tree is an encrypted directory.
    pub fn recognises(tree: &dyn Tree) -> bool {
        !tree.is_single_file() && tree.entries().iter().any(|entry| entry.path == KEYS_FILE)
    }

    /// Opens an encrypted directory with the identities that fit: at least one of its groups must open.
    pub fn open(source: Box<dyn Tree>, identities: &[&dyn Identity]) -> Result<Self> {
        if !Self::recognises(&*source) {
            return Err(EncryptionError::NotEncrypted.on(source.name()));
        }
        let groups = Groups::open(&*source.open(KEYS_FILE)?, identities)?;
        let (mut open, mut closed) = (Vec::new(), Vec::new());
        for (i, (envelope, key)) in groups.0.iter().enumerate() {
            let files = envelope.files().map(|file| Entry::new(file.path.clone(), file.size));
            match key {
                Some(_) => open.extend(files.map(|entry| (entry, i))),
                None => closed.extend(files),
            }
        }
        open.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
        closed.sort_by(|a, b| a.path.cmp(&b.path));
        let (entries, homes): (Vec<_>, Vec<_>) = open.into_iter().unzip();
        check_complete(&*source, &entries, &closed)?;
        Ok(Self { source, groups, entries, homes, closed })
    }

    /// The context the directory is bound to.
    pub fn context(&self) -> &str {
        self.groups.context()
    }

    /// Fails unless the directory is bound to `context`.
    pub fn expect_context(&self, context: &str) -> Result<()> {
        expect_context(context, self.context(), self.source.name())
    }

    /// The envelopes, of the groups that are open and those that are not.
    pub(super) fn envelopes(&self) -> impl Iterator<Item = &Envelope> {
        self.groups.0.iter().map(|(envelope, _)| envelope)
    }
}

impl Tree for DecryptedTree {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn open(&self, path: &str) -> Result<Arc<dyn ReadAt>> {
        let place = self.entries.binary_search_by(|entry| entry.path.as_str().cmp(path)).ok();
        let home = place.and_then(|place| self.groups.0.get(*self.homes.get(place)?));
        let (Some(entry), Some((_, Some(key)))) = (place.and_then(|place| self.entries.get(place)), home) else {
            let path = path.to_owned();
            let is_closed = self.closed.iter().any(|entry| entry.path == path);
            let cause =
                if is_closed { EncryptionError::ClosedFile { path } } else { EncryptionError::MissingFile { path } };
            return Err(cause.on(self.name()));
        };
        let source = self.source.open(&format!("{path}{EXTENSION}"))?;
        let header = Header::read(&*source, 0, MAGIC_FILE)?;
        if let Body::Envelope(_) = header.body {
            return Err(EncryptionError::ForeignFile.on(source.name()));
        }
        header.check(key).map_err(|cause| cause.on(source.name()))?;
        let reader = Reader::behind(source, &header, key, self.context().to_owned(), path.to_owned())?;
        if entry.size != reader.size() {
            return Err(EncryptionError::Truncated.on(reader.name()));
        }
        Ok(Arc::new(reader))
    }

    fn name(&self) -> &str {
        self.source.name()
    }

    fn closed(&self) -> &[Entry] {
        &self.closed
    }
}

/// The groups of a directory, in order, with the keys of those that open.
struct Groups(Vec<(Envelope, Option<InputKey>)>);

impl Groups {
    /// Opens what the identities open of a keys file.
    fn open(keys: &dyn ReadAt, identities: &[&dyn Identity]) -> Result<Self> {
        let mut groups = Vec::new();
        for block in read_blocks(keys)? {
            let key = match block.envelope(keys.name())?.unwrap(identities, keys.name()) {
                Ok(key) => Some(key),
                Err(Error::Key { cause: KeyError::NoMatch, .. }) => None,
                Err(error) => return Err(error),
            };
            if let Some(key) = &key {
                block.check(key).map_err(|cause| cause.on(keys.name()))?;
                check_key_id(block.envelope(keys.name())?, groups.len(), key).map_err(|cause| cause.on(keys.name()))?;
            }
            groups.push((block.into_envelope(keys.name())?, key));
        }
        if groups.iter().all(|(_, key)| key.is_none()) {
            return Err(KeyError::NoMatch.on(keys.name()));
        }
        Ok(Self(groups))
    }

    fn context(&self) -> &str {
        self.0.first().map_or("", |(envelope, _)| &envelope.context)
    }
}

/// Fails unless `key` is the one that the list of groups names for the group at `place`.
pub(super) fn check_key_id(envelope: &Envelope, place: usize, key: &InputKey) -> Result<(), EncryptionError> {
    let groups = envelope.groups();
    let listed = groups.as_ref().map(|groups| groups.get(place).is_some_and(|g| g.key == crypto::hex(&key_id(key))));
    if listed.unwrap_or(true) { Ok(()) } else { Err(EncryptionError::ForeignFile) }
}

/// Reads the blocks of a keys file, and checks that they agree with one another. Nothing is authenticated yet.
pub(super) fn read_blocks(keys: &dyn ReadAt) -> Result<Vec<Header>> {
    let bad = |problem: &str| EncryptionError::BadEnvelope(problem.into()).on(keys.name());
    if keys.size() > MAX_KEYS_FILE {
        return Err(bad("over 64 MiB"));
    }
    let (mut blocks, mut at) = (Vec::new(), 0);
    while blocks.is_empty() || at < keys.size() {
        if blocks.len() == MAX_GROUPS {
            return Err(bad("more than 256 blocks, or bytes after them"));
        }
        let block = Header::read(keys, at, MAGIC_KEYS).map_err(|error| match error {
            // what is no block behind one that is
            Error::Encryption { cause: EncryptionError::NotEncrypted, name } if at > 0 => {
                EncryptionError::BadEnvelope("bytes after it".into()).on(name)
            }
            other => other,
        })?;
        at += block.len;
        blocks.push(block);
    }
    let envelopes = blocks.iter().map(|block| block.envelope(keys.name())).collect::<Result<Vec<_>>>()?;
    let problem = disagreement(&envelopes);
    problem.map_or(Ok(()), |problem| Err(bad(problem)))?;
    Ok(blocks)
}

/// What the envelopes of one directory contradict each other in, if they do.
pub(super) fn disagreement(envelopes: &[&Envelope]) -> Option<&'static str> {
    let (first, others) = envelopes.split_first()?;
    let groups = first.groups();
    if others.iter().any(|other| other.context != first.context || other.groups() != groups) {
        return Some("its blocks do not agree");
    }
    let roots: Vec<&str> = groups.as_ref().map_or(vec![""], |list| list.iter().map(|g| g.path.as_str()).collect());
    if roots.len() != envelopes.len() || groups.as_ref().is_some_and(|groups| groups.len() < 2) {
        return Some("as many blocks as groups are needed");
    }
    if envelopes.len() > 1 && envelopes.iter().any(|envelope| envelope.recipients().iter().any(Stanza::is_passphrase)) {
        return Some("a passphrase must be the only recipient");
    }
    let is_hex = |key: &str| key.len() == 32 && key.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    if !groups.iter().flatten().all(|group| is_hex(&group.key)) {
        return Some("a key id is not 32 hexadecimal digits");
    }
    let is_root = |(i, root): (usize, &&str)| if i == 0 { root.is_empty() } else { tree::is_canonical(root) };
    let distinct: BTreeSet<_> = roots.iter().collect();
    if distinct.len() != roots.len() || !roots.iter().enumerate().all(is_root) {
        return Some("the paths of its groups are not canonical, or not distinct");
    }
    let files = || envelopes.iter().enumerate().flat_map(|(i, e)| e.files().map(move |file| (i, file.path.as_str())));
    let homes = Roots::new(roots.iter().copied());
    if !files().all(|(i, path)| homes.of(path) == i) {
        return Some("a file is not in its own group");
    }
    let paths: BTreeSet<_> = files().map(|(_, path)| path).collect();
    let nested = paths.iter().any(|path| ancestors(path).any(|above| paths.contains(above)));
    nested.then_some("a file is a directory of another")
}

/// Fails unless the files that can be opened are there in encrypted form, and none that is not listed.
fn check_complete(source: &dyn Tree, open: &[Entry], closed: &[Entry]) -> Result<()> {
    let encrypted = source.entries().iter().filter_map(|entry| entry.path.strip_suffix(EXTENSION));
    let mut there: BTreeSet<&str> = encrypted.collect();
    for entry in open {
        if !there.remove(entry.path.as_str()) {
            return Err(EncryptionError::MissingFile { path: entry.path.clone() }.on(source.name()));
        }
    }
    for entry in closed {
        there.remove(entry.path.as_str());
    }
    match there.first() {
        Some(path) => Err(EncryptionError::ExtraFile { path: format!("{path}{EXTENSION}") }.on(source.name())),
        None => Ok(()),
    }
}
