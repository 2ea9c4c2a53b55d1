//! The front of an encrypted file: magic, envelope or key id, MAC, padding. `spec/encryption.md`, sections 1 and 4.

use super::envelope::Envelope;
use crate::crypto::{self, label};
use crate::error::{Cause, EncryptionError, Error, Result};
use crate::io::{ReadAt, ReadAtExt};
use crate::keys::InputKey;

/// A file with its own envelope, or (envelope length 0) a file of an encrypted directory.
pub(super) const MAGIC_FILE: &[u8; 16] = b"weightmark-enc-1";
/// An envelope of an encrypted directory.
pub(super) const MAGIC_KEYS: &[u8; 16] = b"weightmark-key-1";
/// Magic and length.
pub(super) const FRONT: usize = 20;

/// Room for some 10,000 recipients, 200,000 files, or 150,000 tensors of a public list.
const MAX_ENVELOPE: u32 = 16 << 20;
const ALIGNMENT: usize = 4096;
/// Lone files leave room for about eight more recipients.
const ROOM: u64 = 16 << 10;
const MAC: usize = 32;
const KEY_ID: usize = 16;

/// A header that was read.
pub(super) struct Header {
    /// All bytes before the MAC.
    authenticated: Vec<u8>,
    mac: [u8; MAC],
    /// The envelope, or the key id of a file whose envelope stands elsewhere.
    pub(super) body: Body,
    /// Length of the header, padding included.
    pub(super) len: u64,
}

pub(super) enum Body {
    Envelope(Box<Envelope>),
    KeyId([u8; KEY_ID]),
}

impl Header {
    /// The bytes of the header of a lone file.
    pub(super) fn of_file(envelope: &Envelope, key: &InputKey) -> Result<Vec<u8>, EncryptionError> {
        let len = Self::with_envelope(MAGIC_FILE, envelope, key, 0)?.len() as u64;
        Self::with_envelope(MAGIC_FILE, envelope, key, len.max(ROOM))
    }

    /// The bytes of a block of a keys file.
    pub(super) fn of_directory(envelope: &Envelope, key: &InputKey) -> Result<Vec<u8>, EncryptionError> {
        Self::with_envelope(MAGIC_KEYS, envelope, key, 0)
    }

    /// The bytes of the header of a file of a directory, which only names its key.
    pub(super) fn of_member(key: &InputKey) -> Vec<u8> {
        finish([MAGIC_FILE.as_slice(), &[0; 4], &key_id(key)].concat(), key)
    }

    /// The bytes of a header that holds an envelope, of `len` bytes at least, a multiple of 4096: spaces behind the
    /// envelope fill it up. Nothing is written that a reader would refuse.
    pub(super) fn with_envelope(
        magic: &[u8; 16],
        envelope: &Envelope,
        key: &InputKey,
        len: u64,
    ) -> Result<Vec<u8>, EncryptionError> {
        let too_large = || EncryptionError::BadEnvelope("too many files, tensors or recipients for 16 MiB".into());
        let mut json = serde_json::to_vec(envelope).map_err(|_| too_large())?;
        Envelope::parse(&json, magic == MAGIC_KEYS)?;
        let room = usize::try_from(len).map_err(|_| too_large())?.saturating_sub(FRONT + MAC);
        json.resize(json.len().max(room), b' ');
        let length = u32::try_from(json.len()).ok().filter(|n| *n <= MAX_ENVELOPE).ok_or_else(too_large)?;
        Ok(finish([magic.as_slice(), &length.to_le_bytes(), &json].concat(), key))
    }

    /// Reads and parses the header at `at`. Nothing is authenticated yet: call [`Self::check`] with the key.
    pub(super) fn read(source: &dyn ReadAt, at: u64, magic: &[u8; 16]) -> Result<Self> {
        let fail = |cause: EncryptionError| cause.on(source.name());
        let rest = source.size().saturating_sub(at);
        if rest < magic.len() as u64 {
            return Err(fail(EncryptionError::NotEncrypted));
        }
        let mut front = [0; FRONT];
        let known = rest.min(FRONT as u64) as usize;
        source.read_at(at, &mut front[..known])?;
        let len = length(&front, magic).map_err(fail)?;
        if len > rest {
            return Err(fail(EncryptionError::Truncated));
        }
        Self::parse(&source.read_span(at..at + len)?, magic).map_err(fail)
    }

    /// Parses all bytes of a header.
    pub(super) fn parse(bytes: &[u8], magic: &[u8; 16]) -> Result<Self, EncryptionError> {
        let bad = |problem: &str| EncryptionError::BadEnvelope(problem.into());
        let (front, rest) = bytes.split_first_chunk::<FRONT>().ok_or(EncryptionError::Truncated)?;
        let body_len = body_len(front);
        let (body, rest) = rest.split_at_checked(body_len).ok_or(EncryptionError::Truncated)?;
        let (mac, padding) = rest.split_first_chunk::<MAC>().ok_or(EncryptionError::Truncated)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(bad("padding is not zero"));
        }
        let body = match body.as_array() {
            Some(id) if has_key_id(front) => Body::KeyId(*id),
            _ => Body::Envelope(Box::new(Envelope::parse(body, magic == MAGIC_KEYS)?)),
        };
        let authenticated = bytes[..FRONT + body_len].to_vec();
        Ok(Self { authenticated, mac: *mac, body, len: bytes.len() as u64 })
    }

    /// The envelope of a header that must hold one.
    pub(super) fn envelope(&self, name: &str) -> Result<&Envelope> {
        match &self.body {
            Body::Envelope(envelope) => Ok(envelope),
            Body::KeyId(_) => Err(no_envelope(name)),
        }
    }

    /// Takes the envelope out.
    pub(super) fn into_envelope(self, name: &str) -> Result<Envelope> {
        match self.body {
            Body::Envelope(envelope) => Ok(*envelope),
            Body::KeyId(_) => Err(no_envelope(name)),
        }
    }

    /// Authenticates the header under the input key, in constant time.
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

/// Length of the whole header that starts with `front`, which must have `magic`.
pub(super) fn length(front: &[u8; FRONT], magic: &[u8; 16]) -> Result<u64, EncryptionError> {
    if !front.starts_with(magic) {
        let is_other_version = front[..15] == magic[..15];
        let unknown = EncryptionError::UnknownVersion(char::from(front[15]));
        return Err(if is_other_version { unknown } else { EncryptionError::NotEncrypted });
    }
    let length = envelope_len(front);
    if length > MAX_ENVELOPE {
        return Err(EncryptionError::BadEnvelope(format!("{length} bytes is over the limit")));
    }
    if length == 0 && magic == MAGIC_KEYS {
        return Err(EncryptionError::BadEnvelope("empty".into()));
    }
    Ok((FRONT + body_len(front) + MAC).next_multiple_of(ALIGNMENT) as u64)
}

fn no_envelope(name: &str) -> Error {
    EncryptionError::BadEnvelope("the file belongs to an encrypted directory: open the directory".into()).on(name)
}

/// The id of a key, as headers and lists of groups name it.
pub(super) fn key_id(key: &InputKey) -> [u8; KEY_ID] {
    *crypto::hkdf_sha256(key.expose(), label::KEY_ID)
}

fn envelope_len(front: &[u8; FRONT]) -> u32 {
    front.last_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn has_key_id(front: &[u8; FRONT]) -> bool {
    envelope_len(front) == 0
}

fn body_len(front: &[u8; FRONT]) -> usize {
    if has_key_id(front) { KEY_ID } else { envelope_len(front) as usize }
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
