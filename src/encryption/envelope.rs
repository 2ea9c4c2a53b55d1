//! The envelope: which suite, which context, and who may open it. Layout in `spec/encryption.md`.

use serde::{Deserialize, Serialize};

use crate::crypto::{self, label};
use crate::error::{Cause, EncryptionError, KeyError, Result};
use crate::io::{Entry, ReadAt, ReadAtExt, tree};
use crate::json::{self, Object};
use crate::keys::{Identity, InputKey, Recipient, Stanza};

/// A file with its own envelope, or (envelope length 0) a file of an encrypted directory.
pub(super) const MAGIC_FILE: &[u8; 16] = b"weightmark-enc-1";
/// The envelope of an encrypted directory.
pub(super) const MAGIC_KEYS: &[u8; 16] = b"weightmark-key-1";

const SUITE: &str = "cobblestone-256";
/// Room for about 2,000 recipients, or 40,000 files of a directory.
const MAX_ENVELOPE: u32 = 4 << 20;
const MAX_RECIPIENTS: usize = 4096;
const ALIGNMENT: usize = 4096;
const MAC: usize = 32;
const KEY_ID: usize = 16;
/// What to say of a file whose envelope stands elsewhere.
pub(super) const OF_DIRECTORY: &str = "the file belongs to an encrypted directory: open the directory";

/// What stands in the envelope, in clear but authenticated.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Envelope {
    pub(super) suite: String,
    pub(super) context: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) files: Option<Vec<Object<FileEntry>>>,
    pub(super) recipients: Vec<Stanza>,
}

/// A file of an encrypted directory: its plaintext path and size.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileEntry {
    pub(super) path: String,
    pub(super) size: u64,
}

impl Envelope {
    /// Wraps `key` to the recipients.
    pub(super) fn seal(
        key: &InputKey,
        recipients: &[Box<dyn Recipient>],
        context: &str,
        path: Option<String>,
        files: Option<Vec<Object<FileEntry>>>,
    ) -> Result<Self> {
        let recipients = recipients.iter().map(|recipient| recipient.wrap(key)).collect::<Result<_>>()?;
        Ok(Self { suite: SUITE.into(), context: context.into(), path, files, recipients })
    }

    /// The input key, if one of the identities opens a stanza.
    pub(super) fn unwrap(&self, identities: &[&dyn Identity], name: &str) -> Result<InputKey> {
        if identities.is_empty() {
            return Err(KeyError::Wanted.on(name));
        }
        let mut is_ours = false;
        for opened in self.recipients.iter().flat_map(|stanza| identities.iter().filter_map(|i| i.unwrap(stanza))) {
            if opened.is_ok() {
                return opened;
            }
            is_ours = true;
        }
        Err(if is_ours { EncryptionError::EnvelopeTampered.on(name) } else { KeyError::NoMatch.on(name) })
    }

    fn parse(bytes: &[u8], of_directory: bool) -> Result<Self, EncryptionError> {
        let bad = |problem: &str| EncryptionError::BadEnvelope(problem.into());
        let envelope: Self = json::parse(bytes).map_err(EncryptionError::BadEnvelope)?;
        if envelope.suite != SUITE {
            return Err(EncryptionError::UnknownSuite(envelope.suite));
        }
        if envelope.recipients.is_empty() || envelope.recipients.len() > MAX_RECIPIENTS {
            return Err(bad("no recipients, or too many"));
        }
        match (&envelope.path, &envelope.files, of_directory) {
            (Some(path), None, false) if tree::is_canonical(path) => {}
            (None, Some(files), true) => {
                if !files.iter().all(|Object(file)| tree::is_canonical(&file.path)) {
                    return Err(bad("a path is not canonical"));
                }
                if !files.is_sorted_by(|a, b| a.0.path < b.0.path) {
                    return Err(bad("paths are not in order"));
                }
            }
            _ => return Err(bad("neither one path nor a list of files")),
        }
        Ok(envelope)
    }
}

/// The front of an encrypted file or of a keys file.
pub(super) struct Header {
    /// All bytes before the MAC.
    authenticated: Vec<u8>,
    mac: [u8; MAC],
    /// The envelope, or the key id of a file whose envelope stands elsewhere.
    pub(super) body: Body,
    /// Where the payload starts.
    pub(super) end: u64,
}

pub(super) enum Body {
    Envelope(Box<Envelope>),
    KeyId([u8; KEY_ID]),
}

impl Header {
    /// The bytes of a header that holds an envelope, padded.
    pub(super) fn with_envelope(
        magic: &[u8; 16],
        envelope: &Envelope,
        key: &InputKey,
    ) -> Result<Vec<u8>, EncryptionError> {
        let too_large = || EncryptionError::BadEnvelope("too many files or recipients for 4 MiB".into());
        let json = serde_json::to_vec(envelope).map_err(|_| too_large())?;
        let length = u32::try_from(json.len()).ok().filter(|n| *n <= MAX_ENVELOPE).ok_or_else(too_large)?;
        Ok(finish([magic.as_slice(), &length.to_le_bytes(), &json].concat(), key))
    }

    /// The bytes of a header that only names its key, padded.
    pub(super) fn with_key_id(key: &InputKey) -> Vec<u8> {
        finish([MAGIC_FILE.as_slice(), &[0; 4], &key_id(key)].concat(), key)
    }

    /// Reads and parses a header. Nothing is authenticated yet: call [`Self::check`] with the key.
    pub(super) fn read(source: &dyn ReadAt, magic: &[u8; 16]) -> Result<Self> {
        let fail = |cause: EncryptionError| cause.on(source.name());
        let mut front = [0; 20];
        if source.size() < front.len() as u64 {
            return Err(fail(EncryptionError::NotEncrypted));
        }
        source.read_at(0, &mut front)?;
        let (found, length) = front.split_at(16);
        if found != magic {
            return Err(fail(EncryptionError::NotEncrypted));
        }
        let length = u32::from_le_bytes(length.try_into().unwrap_or_default());
        if length > MAX_ENVELOPE {
            return Err(fail(EncryptionError::BadEnvelope(format!("{length} bytes is over the limit"))));
        }
        let body_len = if length == 0 { KEY_ID } else { length as usize };
        let end = (front.len() + body_len + MAC).next_multiple_of(ALIGNMENT) as u64;
        if end > source.size() {
            return Err(fail(EncryptionError::Truncated));
        }
        let bytes = source.read_span(0..end)?;
        let (authenticated, rest) = bytes.split_at(front.len() + body_len);
        let (mac, padding) = rest.split_at(MAC);
        if padding.iter().any(|byte| *byte != 0) {
            return Err(fail(EncryptionError::BadEnvelope("padding is not zero".into())));
        }
        let body = &authenticated[front.len()..];
        let body = if length > 0 {
            Body::Envelope(Box::new(Envelope::parse(body, magic == MAGIC_KEYS).map_err(fail)?))
        } else if magic == MAGIC_FILE {
            Body::KeyId(body.try_into().unwrap_or_default())
        } else {
            return Err(fail(EncryptionError::BadEnvelope("empty".into())));
        };
        Ok(Self { authenticated: authenticated.to_vec(), mac: mac.try_into().unwrap_or_default(), body, end })
    }

    /// Authenticates the header under the input key.
    pub(super) fn check(&self, key: &InputKey) -> Result<(), EncryptionError> {
        if let Body::KeyId(id) = &self.body
            && !crypto::equal(id, &key_id(key))
        {
            return Err(EncryptionError::ForeignFile);
        }
        let authentic = crypto::equal(&self.mac, &mac(&self.authenticated, key));
        if authentic { Ok(()) } else { Err(EncryptionError::EnvelopeTampered) }
    }
}

fn finish(mut bytes: Vec<u8>, key: &InputKey) -> Vec<u8> {
    let mac = mac(&bytes, key);
    bytes.extend_from_slice(&mac);
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    bytes
}

fn mac(bytes: &[u8], key: &InputKey) -> [u8; MAC] {
    crypto::hmac_sha256(&crypto::hkdf_sha256(key.expose(), label::ENVELOPE_MAC), &[bytes])
}

fn key_id(key: &InputKey) -> [u8; KEY_ID] {
    *crypto::hkdf_sha256(key.expose(), label::KEY_ID)
}

/// What can be told of an encrypted artifact without any key. None of it is authenticated.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// The suite that encrypts the payload.
    pub suite: String,
    /// The context it claims to be bound to.
    pub context: String,
    /// The plaintext files, with their sizes in bytes.
    pub files: Vec<(String, u64)>,
    /// Kind and id of each recipient.
    pub recipients: Vec<(String, String)>,
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
    if magic != *MAGIC_FILE && magic != *MAGIC_KEYS {
        return Ok(None);
    }
    let header = Header::read(source, &magic)?;
    let Body::Envelope(envelope) = header.body else {
        return Err(EncryptionError::BadEnvelope(OF_DIRECTORY.into()).on(source.name()));
    };
    let files = match (envelope.path, envelope.files) {
        (Some(path), _) => {
            let size = super::stream::plaintext_len(source.size() - header.end);
            vec![Entry::new(path, size.ok_or_else(|| EncryptionError::Truncated.on(source.name()))?)]
        }
        (None, files) => files.unwrap_or_default().into_iter().map(|Object(f)| Entry::new(f.path, f.size)).collect(),
    };
    Ok(Some(Inspection {
        suite: envelope.suite,
        context: envelope.context,
        files: files.into_iter().map(|entry| (entry.path, entry.size)).collect(),
        recipients: envelope.recipients.into_iter().map(|stanza| (stanza.kind, stanza.id)).collect(),
    }))
}
