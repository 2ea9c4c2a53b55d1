//! The one AEAD: AES-256-GCM (NIST SP 800-38D), by ring. Everything that depends on the library is here.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};

/// Length of an authentication tag in bytes.
pub(crate) const TAG: usize = 16;

/// The authentication of some bytes failed.
#[derive(Debug)]
pub(crate) struct Refused;

/// An AES-256-GCM key, expanded once. ring does not wipe it: keep it in [`Locked`](super::Locked) memory, which is.
pub(crate) struct Aead(LessSafeKey);

impl Aead {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let Ok(key) = UnboundKey::new(&AES_256_GCM, key) else { unreachable!("AES-256 takes 32 bytes") };
        Self(LessSafeKey::new(key))
    }

    /// Encrypts in place and returns the tag. A nonce must never be used twice. `data` is at most a chunk long.
    pub(crate) fn seal(&self, nonce: [u8; 12], data: &mut [u8]) -> [u8; TAG] {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let Ok(sealed) = self.0.seal_in_place_separate_tag(nonce, Aad::empty(), data) else {
            unreachable!("GCM takes up to 64 GiB at once")
        };
        let mut tag = [0; TAG];
        tag.copy_from_slice(sealed.as_ref());
        tag
    }

    /// Authenticates and decrypts in place. On failure `data` is wiped.
    pub(crate) fn open(&self, nonce: [u8; 12], data: &mut [u8], tag: [u8; TAG]) -> Result<(), Refused> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.0.open_in_place_separate_tag(nonce, Aad::empty(), Tag::from(tag), data, 0..).map(|_| ());
        opened.map_err(|_| {
            data.fill(0);
            Refused
        })
    }
}

#[cfg(test)]
mod tests {
    use aes_gcm::aead::{AeadInOut, KeyInit};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_another_implementation(key: [u8; 32], nonce: [u8; 12], data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut ours = data.clone();
            let tag = Aead::new(&key).seal(nonce, &mut ours);
            let mut theirs = data.clone();
            let other = aes_gcm::Aes256Gcm::new(&key.into());
            let other_tag = other.encrypt_inout_detached(&nonce.into(), b"", theirs.as_mut_slice().into()).unwrap();
            prop_assert_eq!(&ours, &theirs);
            prop_assert_eq!(&tag[..], &other_tag[..]);
            Aead::new(&key).open(nonce, &mut ours, tag).unwrap();
            prop_assert_eq!(ours, data);
        }
    }
}
