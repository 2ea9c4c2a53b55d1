//! What can be told of an encrypted artifact without any key.

use serde::Serialize;

use super::envelope::{Envelope, PublicFile};
use super::header::{Header, MAGIC_FILE, MAGIC_KEYS};
use super::tree::read_blocks;
use crate::crypto::cobblestone;
use crate::error::{Cause, EncryptionError, Result};
use crate::io::ReadAt;

/// An encrypted artifact as anybody sees it. None of it is authenticated, unless who made it says so.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// The context it claims to be bound to.
    pub context: String,
    /// Its files, group by group; one group, unless some files have recipients of their own.
    pub groups: Vec<Group>,
    /// The tensors that the publisher chose to list.
    pub public: Vec<PublicFile>,
}

/// Files under one key.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Group {
    /// The directory, or the file, that is the group; empty for all that is in no other.
    pub path: String,
    /// The plaintext files, with their sizes in bytes.
    pub files: Vec<(String, u64)>,
    /// Type and id of each recipient.
    pub recipients: Vec<(String, String)>,
}

impl Inspection {
    /// All files of all groups.
    pub fn files(&self) -> impl Iterator<Item = &(String, u64)> {
        self.groups.iter().flat_map(|group| &group.files)
    }

    /// Of a lone file of `size` plaintext bytes.
    pub(super) fn of_file(envelope: &Envelope, size: u64) -> Self {
        let files = envelope.path.iter().map(|path| (path.clone(), size)).collect();
        Self {
            context: envelope.context.clone(),
            groups: vec![Group { path: String::new(), files, recipients: ids(envelope) }],
            public: envelope.public().cloned().collect(),
        }
    }

    /// Of a directory.
    pub(super) fn of_directory<'a>(envelopes: impl IntoIterator<Item = &'a Envelope>) -> Self {
        let mut this = Self { context: String::new(), groups: Vec::new(), public: Vec::new() };
        for (i, envelope) in envelopes.into_iter().enumerate() {
            let path = envelope.groups().and_then(|groups| Some(groups.get(i)?.path.clone())).unwrap_or_default();
            let files = envelope.files().map(|file| (file.path.clone(), file.size)).collect();
            this.groups.push(Group { path, files, recipients: ids(envelope) });
            this.public.extend(envelope.public().cloned());
            this.context.clone_from(&envelope.context);
        }
        this
    }
}

/// Looks at an encrypted file, or at the [`KEYS_FILE`](super::KEYS_FILE) of an encrypted directory, without any key.
///
/// `None` if it is neither.
pub fn inspect(source: &dyn ReadAt) -> Result<Option<Inspection>> {
    let mut magic = [0; 16];
    if source.size() < magic.len() as u64 {
        return Ok(None);
    }
    source.read_at(0, &mut magic)?;
    if magic[..15] == MAGIC_KEYS[..15] {
        let blocks = read_blocks(source)?;
        let envelopes = blocks.iter().map(|block| block.envelope(source.name())).collect::<Result<Vec<_>>>()?;
        return Ok(Some(Inspection::of_directory(envelopes)));
    }
    if magic[..15] != MAGIC_FILE[..15] {
        return Ok(None);
    }
    let header = Header::read(source, 0, MAGIC_FILE)?;
    let size = source.size().checked_sub(header.len).and_then(cobblestone::plaintext_len);
    let size = size.ok_or_else(|| EncryptionError::Truncated.on(source.name()));
    Ok(Some(Inspection::of_file(header.envelope(source.name())?, size?)))
}

fn ids(envelope: &Envelope) -> Vec<(String, String)> {
    envelope.recipients().iter().map(|stanza| (stanza.kind.clone(), stanza.id.clone())).collect()
}
