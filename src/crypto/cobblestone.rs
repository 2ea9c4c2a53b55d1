//! C2SP chunked encryption, instance Cobblestone-256 (<https://c2sp.org/chunked-encryption>): AES-256-GCM in chunks,
//! committed to its key and context.
//!
//! Stateless: a chunk is sealed or opened by its number alone, so chunks can be worked on in any order, in parallel.

use zeroize::Zeroizing;

use super::aead::{Aead, Refused, TAG};
use super::{Locked, label};
use crate::error::Result;

/// Plaintext bytes in every chunk but the last, which is always shorter.
pub(crate) const CHUNK: usize = 16 << 10;
/// A chunk and its tag.
pub(crate) const RECORD: usize = CHUNK + TAG;
/// Salt and commitment, before the first chunk.
pub(crate) const HEADER: usize = SALT + COMMITMENT;
/// A message that holds a 32-byte key.
pub(crate) const WRAPPED: usize = HEADER + 32 + TAG;

const SALT: usize = 24;
const COMMITMENT: usize = 32;
/// 4 PiB of plaintext.
pub(crate) const MAX_CHUNKS: u64 = 1 << 38;

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
    aead: Locked<Aead>,
    base_nonce: [u8; 12],
    commitment: [u8; COMMITMENT],
}

impl MessageKey {
    /// Starts a message under a random salt: its key, and the header to write before the first chunk.
    pub(crate) fn begin(key: &[u8; 32], context: &[u8]) -> Result<(Self, [u8; HEADER])> {
        let mut header = [0; HEADER];
        super::random(&mut header[..SALT])?;
        let this = Self::derive(key, &header[..SALT], context)?;
        header[SALT..].copy_from_slice(&this.commitment);
        Ok((this, header))
    }

    /// The key of a message, or `None` if its header is not committed to this key and context.
    pub(crate) fn resume(key: &[u8; 32], header: &[u8; HEADER], context: &[u8]) -> Result<Option<Self>> {
        let (salt, commitment) = header.split_at(SALT);
        let this = Self::derive(key, salt, context)?;
        Ok(super::equal(&this.commitment, commitment).then_some(this))
    }

    /// Encrypts chunk `index` in place and returns its tag.
    pub(crate) fn seal(&self, index: u64, chunk: &mut [u8]) -> [u8; TAG] {
        self.aead.seal(self.nonce(index), chunk)
    }

    /// Authenticates and decrypts chunk `index` in place; on failure the chunk is wiped.
    pub(crate) fn open(&self, index: u64, chunk: &mut [u8], tag: [u8; TAG]) -> Result<(), Refused> {
        self.aead.open(self.nonce(index), chunk, tag)
    }

    fn derive(key: &[u8; 32], salt: &[u8], context: &[u8]) -> Result<Self> {
        let okm = super::hkdf_expand_sha512::<{ 32 + 12 + COMMITMENT }>(key, &[label::COBBLESTONE_256, salt, context]);
        let (mut aead_key, mut base_nonce, mut commitment) = (Zeroizing::new([0; 32]), [0; 12], [0; COMMITMENT]);
        aead_key.copy_from_slice(&okm[..32]);
        base_nonce.copy_from_slice(&okm[32..44]);
        commitment.copy_from_slice(&okm[44..]);
        Ok(Self { aead: Locked::new(Aead::new(&aead_key))?, base_nonce, commitment })
    }

    fn nonce(&self, index: u64) -> [u8; 12] {
        let mut nonce = self.base_nonce;
        for (byte, counter) in nonce[4..].iter_mut().zip(index.to_be_bytes()) {
            *byte ^= counter;
        }
        nonce
    }
}

/// A message that holds the 32 bytes of `secret`, under `key`, with `label` as its context.
pub(crate) fn wrap(key: &[u8; 32], label: &[u8], secret: &[u8; 32]) -> Result<[u8; WRAPPED]> {
    let (message, header) = MessageKey::begin(key, label)?;
    let mut wrapped = [0; WRAPPED];
    wrapped[..HEADER].copy_from_slice(&header);
    let (chunk, tag) = wrapped[HEADER..].split_at_mut(32);
    let mut plain = Zeroizing::new(*secret);
    tag.copy_from_slice(&message.seal(0, &mut *plain));
    chunk.copy_from_slice(&*plain); // ciphertext by now
    Ok(wrapped)
}

/// The secret in a message that [`wrap`] has made, or `None` if it is not one of this key and label.
pub(crate) fn unwrap(key: &[u8; 32], label: &[u8], wrapped: &[u8; WRAPPED]) -> Result<Option<Zeroizing<[u8; 32]>>> {
    let Some((header, rest)) = wrapped.split_first_chunk() else { return Ok(None) };
    let Some((sealed, tag)) = rest.split_first_chunk::<32>() else { return Ok(None) };
    let (mut secret, tag) = (Zeroizing::new(*sealed), tag.try_into().unwrap_or_default());
    let message = MessageKey::resume(key, header, label)?;
    Ok(message.filter(|message| message.open(0, &mut *secret, tag).is_ok()).map(|_| secret))
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

    /// Chunk numbers of more than 32 bits, by another implementation of AES-256-GCM.
    #[test]
    fn nonces_count_in_64_bits() {
        use aes_gcm::aead::{AeadInOut, KeyInit};
        let (key, context) = ([3; 32], b"context");
        let (message, header) = MessageKey::begin(&key, context).unwrap();
        let okm = super::super::hkdf_expand_sha512::<76>(&key, &[label::COBBLESTONE_256, &header[..SALT], context]);
        for index in [0, 1, (1 << 32) - 1, 1 << 32, (1 << 32) + 1, (1 << 38) - 1] {
            let mut ours = *b"weights";
            let tag = message.seal(index, &mut ours);
            let mut nonce = [0; 12];
            nonce.copy_from_slice(&okm[32..44]);
            let counter = u128::from(index) ^ u128::from_be_bytes([&[0; 4], &nonce[..]].concat().try_into().unwrap());
            let (mut theirs, nonce) = (*b"weights", &counter.to_be_bytes()[4..]);
            let other = aes_gcm::Aes256Gcm::new_from_slice(&okm[..32]).unwrap();
            let nonce: [u8; 12] = nonce.try_into().unwrap();
            let other_tag = other.encrypt_inout_detached(&nonce.into(), b"", theirs.as_mut_slice().into()).unwrap();
            assert_eq!((ours, &tag[..]), (theirs, &other_tag[..]), "{index}");
        }
    }

    #[test]
    fn a_wrapped_key_opens_under_its_key_and_label_alone() {
        let wrapped = wrap(&[1; 32], b"label", &[7; 32]).unwrap();
        let open = |key: u8, label: &[u8], wrapped: &[u8; WRAPPED]| unwrap(&[key; 32], label, wrapped).unwrap();
        assert_eq!(*open(1, b"label", &wrapped).unwrap(), [7; 32]);
        assert!(open(2, b"label", &wrapped).is_none() && open(1, b"lobel", &wrapped).is_none());
        for at in 0..WRAPPED {
            let mut changed = wrapped;
            changed[at] ^= 1;
            assert!(open(1, b"label", &changed).is_none(), "{at}");
        }
    }
}
