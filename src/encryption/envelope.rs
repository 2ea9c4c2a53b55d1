//! The envelope: which suite, which context and files, and who may open them. `spec/encryption.md`, sections 2 and 4.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::error::{Cause, EncryptionError, Error, KeyError, Result};
use crate::io::tree;
use crate::json::{self, AtMost, Object};
use crate::keys::{Identity, InputKey, Recipient, Stanza};

const SUITE: &str = "cobblestone-256";
const MAX_RECIPIENTS: usize = 4096;
const MAX_FILES: usize = 1_000_000;
/// Groups of files in a directory, each with its own key.
pub(super) const MAX_GROUPS: usize = 256;

/// What stands in the envelope, in clear but authenticated.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Envelope {
    suite: String,
    pub(super) context: String,
    /// Of a lone file: its name.
    #[serde(default, deserialize_with = "json::present", skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<String>,
    /// Of a directory: the files of one group.
    #[serde(default, deserialize_with = "json::present", skip_serializing_if = "Option::is_none")]
    files: Option<AtMost<Object<FileEntry>, MAX_FILES>>,
    /// Of a directory with several groups: all of them.
    #[serde(default, deserialize_with = "json::present", skip_serializing_if = "Option::is_none")]
    groups: Option<AtMost<Object<GroupEntry>, MAX_GROUPS>>,
    #[serde(default, deserialize_with = "json::present", skip_serializing_if = "Option::is_none")]
    pub(super) public: Option<AtMost<Object<PublicFile>, MAX_FILES>>,
    recipients: AtMost<Stanza, MAX_RECIPIENTS>,
}

/// A file of an encrypted directory: its plaintext path and size.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileEntry {
    pub(super) path: String,
    pub(super) size: u64,
}

/// A group of files: where it is rooted, and the id of its key.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupEntry {
    pub(super) path: String,
    pub(super) key: String,
}

/// A file of the public list of tensors.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PublicFile {
    /// Path of the file in the model.
    pub path: String,
    /// Its tensors.
    #[serde(deserialize_with = "objects")]
    pub tensors: Vec<PublicTensor>,
}

/// A tensor of the public list.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PublicTensor {
    /// Name.
    pub name: String,
    /// Element type, as the format of the file calls it.
    pub dtype: String,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
}

impl PublicFile {
    /// A file without tensors yet.
    pub(super) fn new(path: &str) -> Self {
        Self { path: path.to_owned(), tensors: Vec::new() }
    }
}

impl PublicTensor {
    /// Describes a tensor.
    pub(super) fn new(name: &str, dtype: String, shape: &[u64]) -> Self {
        Self { name: name.to_owned(), dtype, shape: shape.to_vec() }
    }
}

/// What an envelope is about.
pub(super) enum Content {
    File(String),
    Files { files: Vec<FileEntry>, groups: Vec<GroupEntry> },
}

impl Envelope {
    /// Wraps `key` to the recipients.
    pub(super) fn seal(
        key: &InputKey,
        recipients: &[Box<dyn Recipient>],
        context: &str,
        content: Content,
        public: Vec<PublicFile>,
    ) -> Result<Self> {
        let list = |list: Vec<_>| AtMost(list.into_iter().map(Object).collect());
        let (path, files, groups) = match content {
            Content::File(path) => (Some(path), None, None),
            Content::Files { files, groups } => {
                let groups = AtMost(groups.into_iter().map(Object).collect());
                (None, Some(list(files)), Some(groups).filter(|groups| groups.0.len() > 1))
            }
        };
        let public =
            Some(AtMost(public.into_iter().map(Object).collect())).filter(|public: &AtMost<_, _>| !public.0.is_empty());
        let context = context.into();
        let mut this =
            Self { suite: SUITE.into(), context, path, files, groups, public, recipients: AtMost(Vec::new()) };
        this.set_recipients(recipients.iter().map(|recipient| recipient.wrap(key)).collect::<Result<_>>()?)?;
        Ok(this)
    }

    /// Parses and checks one envelope; whether it agrees with the others of a directory is for the caller.
    pub(super) fn parse(bytes: &[u8], of_directory: bool) -> Result<Self, EncryptionError> {
        let bad = |problem: &str| Err(EncryptionError::BadEnvelope(problem.into()));
        let this: Self = json::parse(bytes).map_err(EncryptionError::BadEnvelope)?;
        if this.suite != SUITE {
            return Err(EncryptionError::UnknownSuite(this.suite));
        }
        if let Some(problem) = unfit(this.recipients()) {
            return bad(problem);
        }
        match (&this.path, &this.files, of_directory) {
            (Some(path), None, false) if tree::is_canonical(path) && this.groups.is_none() => {}
            (None, Some(files), true) => {
                if !files.0.iter().all(|Object(file)| tree::is_canonical(&file.path)) {
                    return bad("a path is not canonical");
                }
                if !files.0.is_sorted_by(|a, b| a.0.path < b.0.path) {
                    return bad("paths are not in order");
                }
            }
            _ => return bad("neither one path nor a list of files"),
        }
        let mut published = BTreeSet::new();
        if !this.public().all(|file| this.has(&file.path) && published.insert(&file.path)) {
            return bad("the public list names a file twice, or one that is not there");
        }
        Ok(this)
    }

    /// The input key, if one of the identities opens a stanza.
    pub(super) fn unwrap(&self, identities: &[&dyn Identity], name: &str) -> Result<InputKey> {
        if identities.is_empty() {
            return Err(KeyError::Wanted.on(name));
        }
        let mut failed = None;
        for opened in identities.iter().flat_map(|i| self.recipients().iter().filter_map(|stanza| i.unwrap(stanza))) {
            match opened {
                Ok(key) => return Ok(key),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(match failed {
            Some(Error::Encryption { cause, .. }) => cause.on(name),
            Some(Error::Key {
                cause: cause @ (KeyError::ExcessiveWork { .. } | KeyError::WrongPassphrase), ..
            }) => cause.on(name),
            Some(error) => error,
            None => KeyError::NoMatch.on(name),
        })
    }

    pub(super) fn recipients(&self) -> &[Stanza] {
        &self.recipients.0
    }

    /// Exchanges the stanzas.
    pub(super) fn set_recipients(&mut self, recipients: Vec<Stanza>) -> Result<()> {
        if let Some(problem) = unfit(&recipients) {
            return Err(Error::ApiMisuse(problem));
        }
        self.recipients = AtMost(recipients);
        Ok(())
    }

    /// The files listed, of a directory.
    pub(super) fn files(&self) -> impl Iterator<Item = &FileEntry> {
        self.files.iter().flat_map(|files| files.0.iter().map(|Object(file)| file))
    }

    /// All groups of the directory, if there are several.
    pub(super) fn groups(&self) -> Option<Vec<&GroupEntry>> {
        self.groups.as_ref().map(|groups| groups.0.iter().map(|Object(group)| group).collect())
    }

    /// The public list of tensors.
    pub(super) fn public(&self) -> impl Iterator<Item = &PublicFile> {
        self.public.iter().flat_map(|files| files.0.iter().map(|Object(file)| file))
    }

    fn has(&self, path: &str) -> bool {
        let listed = |files: &AtMost<Object<FileEntry>, MAX_FILES>| {
            files.0.binary_search_by(|Object(file)| file.path.as_str().cmp(path)).is_ok()
        };
        self.path.as_deref() == Some(path) || self.files.as_ref().is_some_and(listed)
    }
}

/// Why these cannot be the recipients of an envelope.
fn unfit(recipients: &[Stanza]) -> Option<&'static str> {
    match recipients {
        [] => Some("without recipients nobody could open it"),
        [_] => None,
        several if several.iter().any(Stanza::is_passphrase) => Some("a passphrase must be the only recipient"),
        several if several.len() > MAX_RECIPIENTS => Some("more than 4096 recipients"),
        several => {
            let distinct: BTreeSet<_> = several.iter().map(|stanza| (&stanza.kind, &stanza.id)).collect();
            (distinct.len() < several.len()).then_some("a recipient stands there twice")
        }
    }
}

/// The directories above a path, the innermost first.
pub(super) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(path.rsplit_once('/'), |(above, _)| above.rsplit_once('/')).map(|(above, _)| above)
}

/// The groups of a directory by the paths they are rooted at.
pub(super) struct Roots<'a>(HashMap<&'a str, usize>);

impl<'a> Roots<'a> {
    /// Of groups in their order; the first is the main one.
    pub(super) fn new(paths: impl IntoIterator<Item = &'a str>) -> Self {
        Self(paths.into_iter().enumerate().map(|(i, path)| (path, i)).collect())
    }

    /// Which group the file at `path` belongs to: the deepest at or above it.
    pub(super) fn of(&self, path: &str) -> usize {
        std::iter::once(path).chain(ancestors(path)).find_map(|above| self.0.get(above)).map_or(0, |i| *i)
    }
}

/// What a payload is bound to: the publisher's context and the path within the model, each after its length.
pub(super) fn payload_context(context: &str, path: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + context.len() + path.len());
    for part in [context, path] {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

fn objects<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Vec::<Object<T>>::deserialize(deserializer)?.into_iter().map(|Object(value)| value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_group_at_or_above_a_file_is_its_own() {
        let roots = Roots::new(["", "adapters", "adapters/acme", "adapters/acme.bin"]);
        for (path, group) in [
            ("model", 0),
            ("adapters2/x", 0),
            ("adapters/x", 1),
            ("adapters/acme/x/y", 2),
            ("adapters/acme", 2),
            ("adapters/acme.bin", 3),
            ("adapters/acmes/x", 1),
        ] {
            assert_eq!(roots.of(path), group, "{path}");
        }
    }
}
