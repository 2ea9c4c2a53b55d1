//! The primitives this crate stands on, each from a well-kept library, and the labels that separate their
//! uses. (Those of the watermark are part of its specification, and stand where it is followed.)
//!
//! Private: nothing here is part of the public interface, so that the libraries can be exchanged.

#[cfg(feature = "encryption")]
pub(crate) mod aead;
#[cfg(feature = "encryption")]
pub(crate) mod cobblestone;
mod locked;
#[cfg(all(test, feature = "encryption"))]
mod poison;
#[cfg(all(test, feature = "encryption"))]
mod wycheproof;

pub(crate) use locked::Locked;
use sha2::{Digest, Sha256};
#[cfg(any(feature = "encryption", feature = "watermark"))]
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Labels of derived keys. A label is never used twice.
pub(crate) mod label {
    #[cfg(feature = "encryption")]
    pub(crate) const ENVELOPE_MAC: &[u8] = b"weightmark envelope v1";
    #[cfg(feature = "encryption")]
    pub(crate) const KEY_ID: &[u8] = b"weightmark key id v1";
    #[cfg(feature = "encryption")]
    pub(crate) const X_WING: &[u8] = b"weightmark x-wing v1";
    #[cfg(feature = "encryption")]
    pub(crate) const X25519: &[u8] = b"weightmark x25519 v1";
    #[cfg(feature = "encryption")]
    pub(crate) const PASSPHRASE: &[u8] = b"weightmark passphrase v1";
    #[cfg(feature = "encryption")]
    pub(crate) const KEY: &[u8] = b"weightmark key v1";
    #[cfg(feature = "encryption")]
    pub(crate) const KEY_NAME: &[u8] = b"weightmark key name v1";
    #[cfg(feature = "encryption")]
    pub(crate) const COBBLESTONE_256: &[u8] = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0";
    #[cfg(feature = "watermark")]
    pub(crate) const OWNER_COMMITMENT: &[u8] = b"weightmark owner v1";
}

/// Fills `bytes` from the operating system's generator.
pub(crate) fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|e| Error::io("read", "random generator", std::io::Error::from(e)))
}

/// A fresh random secret.
pub(crate) fn random_secret() -> Result<Locked<[u8; 32]>> {
    Locked::filled(|secret| random(secret))
}

/// SHA-256 (FIPS 180-4) of the concatenated parts.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// HMAC-SHA-256 (RFC 2104) of the concatenated parts.
#[cfg(any(feature = "encryption", feature = "watermark"))]
pub(crate) fn hmac_sha256(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    use hmac::{Hmac, KeyInit, Mac};
    let mut block = Zeroizing::new([0; 64]); // keys shorter than a block are padded with zeros
    block[..32].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// HKDF-SHA-256 (RFC 5869) with an empty salt; `N` is at most 255 * 32.
#[cfg(feature = "encryption")]
pub(crate) fn hkdf_sha256<const N: usize>(ikm: &[u8; 32], label: &[u8]) -> Zeroizing<[u8; N]> {
    use ring::hkdf::{HKDF_SHA256, Salt};
    fill(&Salt::new(HKDF_SHA256, &[]).extract(ikm), &[label])
}

/// HKDF-Expand with SHA-512 (RFC 5869, section 2.3), with `prk` as the pseudorandom key; `N` is at most 255 * 64.
#[cfg(feature = "encryption")]
pub(crate) fn hkdf_expand_sha512<const N: usize>(prk: &[u8; 32], info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    use ring::hkdf::{HKDF_SHA512, Prk};
    fill(&Prk::new_less_safe(HKDF_SHA512, prk), info)
}

#[cfg(feature = "encryption")]
fn fill<const N: usize>(prk: &ring::hkdf::Prk, info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    struct Length(usize);
    impl ring::hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut out = Zeroizing::new([0; N]);
    let filled = prk.expand(info, Length(N)).and_then(|okm| okm.fill(&mut *out));
    assert!(filled.is_ok(), "lengths are constants within HKDF's limit");
    out
}

/// Whether two byte strings are equal, in time that depends on their lengths alone.
#[cfg(feature = "encryption")]
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    subtle::ConstantTimeEq::ct_eq(a, b).unwrap_u8() == 1
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "encryption")]
    #[test]
    fn hkdf_and_hmac_match_their_rfcs() {
        use super::*;
        // RFC 4231, test case 1 (a 20-byte key is the same as one padded with zeros)
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let mac = hex(&hmac_sha256(&key, &[b"Hi ", b"There"]));
        assert_eq!(mac, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
        assert_eq!(hex(&sha256(&[b"a", b"bc"])), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(equal(b"ab", b"ab") && !equal(b"ab", b"ac") && !equal(b"a", b"ab"));
    }
}
