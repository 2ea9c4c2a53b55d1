//! The payload: C2SP chunked encryption, instance Cobblestone-256 (<https://c2sp.org/chunked-encryption>).
//!
//! Stateless: a chunk is sealed or opened by its number alone, so chunks can be worked on in any order, in parallel.

use crate::crypto::aead::{Aead, Refused, TAG};
use crate::crypto::{self, label};
use crate::keys::InputKey;

/// Plaintext bytes in every chunk but the last, which is always shorter.
pub(crate) const CHUNK: usize = 16 << 10;
/// A chunk and its tag.
pub(crate) const RECORD: usize = CHUNK + TAG;
/// Salt and commitment, before the first chunk.
pub(crate) const HEADER: usize = SALT + COMMITMENT;
/// Chunks worked on at a time: a batch of 1 MiB stays in the cache of one core.
pub(crate) const BATCH: usize = 64;

const SALT: usize = 24;
const COMMITMENT: usize = 32;
/// 4 PiB of plaintext.
const MAX_CHUNKS: u64 = 1 << 38;

/// Bytes of a message that holds `plaintext` bytes, or `None` beyond the limit.
pub(crate) fn message_len(plaintext: u64) -> Option<u64> {
    let full = plaintext / CHUNK as u64;
    (full < MAX_CHUNKS).then(|| HEADER as u64 + full * RECORD as u64 + plaintext % CHUNK as u64 + TAG as u64)
}

/// Bytes of plaintext in a message of `message` bytes, or `None` if there is no message of that length.
pub(crate) fn plaintext_len(message: u64) -> Option<u64> {
    let body = message.checked_sub(HEADER as u64)?;
    let (full, last) = (body / RECORD as u64, body % RECORD as u64);
    let last = last.checked_sub(TAG as u64).filter(|_| full < MAX_CHUNKS)?;
    Some(full * CHUNK as u64 + last)
}

/// Where chunk `index` starts in the message.
pub(crate) fn record_offset(index: u64) -> u64 {
    HEADER as u64 + index * RECORD as u64
}

/// The keys of one message.
pub(crate) struct MessageKey {
    aead: Aead,
    base_nonce: [u8; 12],
    commitment: [u8; COMMITMENT],
}

impl MessageKey {
    /// Starts a message: its key, and the header to write before the first chunk.
    pub(crate) fn begin(key: &InputKey, salt: [u8; SALT], context: &[u8]) -> Result<(Self, [u8; HEADER]), Refused> {
        let this = Self::derive(key, &salt, context)?;
        let mut header = [0; HEADER];
        header[..SALT].copy_from_slice(&salt);
        header[SALT..].copy_from_slice(&this.commitment);
        Ok((this, header))
    }

    /// The key of a message, if its header is committed to this input key and context.
    pub(crate) fn resume(key: &InputKey, header: &[u8; HEADER], context: &[u8]) -> Result<Self, Refused> {
        let (salt, commitment) = header.split_at(SALT);
        let this = Self::derive(key, salt, context)?;
        if crypto::equal(&this.commitment, commitment) { Ok(this) } else { Err(Refused) }
    }

    /// Encrypts chunk `index` in place and returns its tag.
    pub(crate) fn seal(&self, index: u64, chunk: &mut [u8]) -> Result<[u8; TAG], Refused> {
        self.aead.seal(self.nonce(index), chunk)
    }

    /// Authenticates and decrypts chunk `index` in place; on failure the chunk is wiped.
    pub(crate) fn open(&self, index: u64, chunk: &mut [u8], tag: [u8; TAG]) -> Result<(), Refused> {
        self.aead.open(self.nonce(index), chunk, tag)
    }

    fn derive(key: &InputKey, salt: &[u8], context: &[u8]) -> Result<Self, Refused> {
        let okm = crypto::hkdf_expand_sha512::<{ 32 + 12 + COMMITMENT }>(
            key.expose(),
            &[label::COBBLESTONE_256, salt, context],
        );
        let (aead_key, rest) = okm.split_first_chunk::<32>().ok_or(Refused)?;
        let (base_nonce, rest) = rest.split_first_chunk::<12>().ok_or(Refused)?;
        let commitment = rest.first_chunk().ok_or(Refused)?;
        Ok(Self { aead: Aead::new(aead_key)?, base_nonce: *base_nonce, commitment: *commitment })
    }

    fn nonce(&self, index: u64) -> [u8; 12] {
        let mut nonce = self.base_nonce;
        for (byte, counter) in nonce[4..].iter_mut().zip(index.to_be_bytes()) {
            *byte ^= counter;
        }
        nonce
    }
}

/// What a payload is bound to: the user's context and the path within the model, each after its length.
pub(crate) fn payload_context(context: &str, path: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + context.len() + path.len());
    for part in [context, path] {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_agree_both_ways() {
        for plaintext in
            (0..5).flat_map(|k| [0, 1, CHUNK as u64 - 1].map(|r| k * CHUNK as u64 + r)).chain([1 << 43, (1 << 52) - 1])
        {
            assert_eq!(plaintext_len(message_len(plaintext).unwrap()), Some(plaintext));
        }
        assert_eq!(message_len(1 << 52), None);
        for impossible in [0, 55, 56, 71, 56 + RECORD as u64, 56 + RECORD as u64 + 15, u64::MAX] {
            assert_eq!(plaintext_len(impossible), None, "{impossible}");
        }
    }
}
