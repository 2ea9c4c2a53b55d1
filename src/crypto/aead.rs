//! The one AEAD: AES-256-GCM (NIST SP 800-38D), by ring. Everything that depends on the library is here.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};

/// Length of an authentication tag in bytes.
pub(crate) const TAG: usize = 16;

/// The authentication of some bytes failed, or they are more than the AEAD takes at once.
#[derive(Debug)]
pub(crate) struct Refused;

/// An AES-256-GCM key, expanded once. ring wipes nothing on drop: keep it as short-lived as the payload it opens.
pub(crate) struct Aead(LessSafeKey);

impl Aead {
    pub(crate) fn new(key: &[u8; 32]) -> Result<Self, Refused> {
        UnboundKey::new(&AES_256_GCM, key).map(|key| Self(LessSafeKey::new(key))).map_err(|_| Refused)
    }

    /// Encrypts in place and returns the tag. A nonce must never be used twice.
    pub(crate) fn seal(&self, nonce: [u8; 12], data: &mut [u8]) -> Result<[u8; TAG], Refused> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::empty(), data).map_err(|_| Refused)?;
        tag.as_ref().try_into().map_err(|_| Refused)
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
            let tag = Aead::new(&key).unwrap().seal(nonce, &mut ours).unwrap();
            let mut theirs = data.clone();
            let other = aes_gcm::Aes256Gcm::new(&key.into());
            let other_tag = other.encrypt_inout_detached(&nonce.into(), b"", theirs.as_mut_slice().into()).unwrap();
            prop_assert_eq!(&ours, &theirs);
            prop_assert_eq!(&tag[..], &other_tag[..]);
            Aead::new(&key).unwrap().open(nonce, &mut ours, tag).unwrap();
            prop_assert_eq!(ours, data);
        }
    }
}
