//! Signing keys: ECDSA over P-256 with SHA-256, as OpenSSF Model Signing uses it, and Ed25519 as our extension.
//!
//! Both are read and written as PEM, the way OpenSSL does: PKCS#8 (`BEGIN PRIVATE KEY`), SEC1
//! (`BEGIN EC PRIVATE KEY`) and SPKI (`BEGIN PUBLIC KEY`).

use std::fmt;
use std::path::Path;

use ed25519_dalek::{Signer, pkcs8::EncodePrivateKey, pkcs8::EncodePublicKey, pkcs8::spki::der::pem::LineEnding};
use p256::ecdsa;
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey};

use super::file;
use crate::crypto;
use crate::error::{Cause, KeyError, Result};

/// Signature algorithms.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Algorithm {
    /// ECDSA over NIST P-256 with SHA-256 (FIPS 186-5): what other OMS tools verify.
    EcdsaP256,
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
    EcdsaP256(Box<ecdsa::SigningKey>),
    Ed25519(Box<ed25519_dalek::SigningKey>),
}

impl SigningKey {
    /// A fresh random key.
    pub fn generate(algorithm: Algorithm) -> Result<Self> {
        loop {
            let secret = crypto::random_secret()?;
            match algorithm {
                Algorithm::Ed25519 => {
                    return Ok(Self(Secret::Ed25519(Box::new(ed25519_dalek::SigningKey::from_bytes(&secret)))));
                }
                Algorithm::EcdsaP256 => {
                    // 2^-32 of all strings are not below the order of the curve: draw again
                    if let Ok(key) = ecdsa::SigningKey::from_slice(&*secret) {
                        return Ok(Self(Secret::EcdsaP256(Box::new(key))));
                    }
                }
            }
        }
    }

    /// Reads a PEM file; one that others may read is refused.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let pem = file::read_secret(path)?;
        Self::from_pem(&pem).map_err(|cause| cause.on(path.display().to_string()))
    }

    /// Writes the key to a new PEM file for its owner alone, and its public half to the same path + `.pub`.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let pem = match &self.0 {
            Secret::EcdsaP256(key) => key.to_pkcs8_pem(LineEnding::LF),
            Secret::Ed25519(key) => key.to_pkcs8_pem(LineEnding::LF),
        };
        let pem = pem.map_err(|e| KeyError::Unsupported(e.to_string()).on(path.display().to_string()))?;
        file::write_pair(path, &pem, &self.verifying_key().to_pem())
    }

    /// Parses the first private key of a PEM text.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let (label, block) = private_block(pem)?;
        let unsupported = || {
            let problem = "neither a P-256 nor an Ed25519 key".to_owned();
            KeyError::Malformed { wanted: "signing key", problem }
        };
        let secret = match label {
            "EC PRIVATE KEY" => {
                p256::SecretKey::from_sec1_pem(block).ok().map(|key| Secret::EcdsaP256(Box::new(key.into())))
            }
            "PRIVATE KEY" => {
                let p256 = ecdsa::SigningKey::from_pkcs8_pem(block).map(|key| Secret::EcdsaP256(Box::new(key)));
                let ed25519 = || ed25519_dalek::SigningKey::from_pkcs8_pem(block);
                p256.ok().or_else(|| ed25519().ok().map(|key| Secret::Ed25519(Box::new(key))))
            }
            "ENCRYPTED PRIVATE KEY" => {
                let hint = "decrypt it first, for example with openssl pkcs8".to_owned();
                return Err(KeyError::Unsupported(format!("passphrase-protected PEM; {hint}")));
            }
            _ => None,
        };
        secret.map(Self).ok_or_else(unsupported)
    }

    /// The public half.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(match &self.0 {
            Secret::EcdsaP256(key) => Public::EcdsaP256(*key.verifying_key()),
            Secret::Ed25519(key) => Public::Ed25519(key.verifying_key()),
        })
    }

    /// A signature over `message`: DER for ECDSA, 64 bytes for Ed25519.
    pub fn sign_bytes(&self, message: &[u8]) -> Vec<u8> {
        match &self.0 {
            Secret::EcdsaP256(key) => {
                let signature: ecdsa::Signature = key.sign(message);
                signature.to_der().as_bytes().to_vec()
            }
            Secret::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
        }
    }
}

/// The public half: verifies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifyingKey(Public);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Public {
    EcdsaP256(ecdsa::VerifyingKey),
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
        let p256 = ecdsa::VerifyingKey::from_public_key_pem(pem).map(Public::EcdsaP256);
        let ed25519 = || ed25519_dalek::VerifyingKey::from_public_key_pem(pem).map(Public::Ed25519);
        let key = p256.ok().or_else(|| ed25519().ok());
        key.map(Self).ok_or_else(|| KeyError::Malformed {
            wanted: "verifying key",
            problem: "neither a P-256 nor an Ed25519 public key in PEM".into(),
        })
    }

    /// The PEM text: SPKI, lines of 64 columns, LF.
    pub fn to_pem(&self) -> String {
        let pem = match &self.0 {
            Public::EcdsaP256(key) => key.to_public_key_pem(LineEnding::LF),
            Public::Ed25519(key) => key.to_public_key_pem(LineEnding::LF),
        };
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
            Public::Ed25519(_) => Algorithm::Ed25519,
        }
    }

    /// Whether `signature` is one of this key over `message`.
    pub fn verify_bytes(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Public::EcdsaP256(key) => {
                use ecdsa::signature::Verifier;
                ecdsa::Signature::from_der(signature).is_ok_and(|signature| key.verify(message, &signature).is_ok())
            }
            Public::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
        }
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id())
    }
}

/// The first block of a PEM text that is a private key, with its label. Other blocks (`EC PARAMETERS`) may precede.
fn private_block(pem: &str) -> Result<(&str, &str), KeyError> {
    let missing = || KeyError::Malformed { wanted: "signing key", problem: "no private key in PEM".into() };
    let mut rest = pem;
    while let Some(start) = rest.find("-----BEGIN ") {
        let block = &rest[start..];
        let label = block["-----BEGIN ".len()..].split_once("-----").ok_or_else(missing)?.0;
        let end = format!("-----END {label}-----");
        let stop = block.find(&end).ok_or_else(missing)? + end.len();
        if label.ends_with("PRIVATE KEY") {
            return Ok((label, &block[..stop]));
        }
        rest = &block[stop..];
    }
    Err(missing())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn keys_survive_their_files() {
        let home = tempfile::tempdir().unwrap();
        for algorithm in [Algorithm::EcdsaP256, Algorithm::Ed25519] {
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
    fn every_way_openssl_writes_a_p256_key_is_read() {
        let openssl = |args: &[&str], input: &[u8]| {
            use std::io::Write;
            use std::process::{Command, Stdio};
            let mut child = Command::new("openssl")
                .args(args)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(input).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "openssl {args:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let sec1 = openssl(&["ecparam", "-name", "prime256v1", "-genkey"], b""); // with an EC PARAMETERS block before it
        let pkcs8 = openssl(&["pkcs8", "-topk8", "-nocrypt"], sec1.as_bytes());
        let public = VerifyingKey::from_pem(&openssl(&["ec", "-pubout"], sec1.as_bytes())).unwrap();
        for pem in [&sec1, &pkcs8] {
            assert_eq!(SigningKey::from_pem(pem).unwrap().verifying_key(), public);
        }
        let ed25519 = openssl(&["genpkey", "-algorithm", "ed25519"], b"");
        assert_eq!(SigningKey::from_pem(&ed25519).unwrap().verifying_key().algorithm(), Algorithm::Ed25519);
        let p384 = openssl(&["ecparam", "-name", "secp384r1", "-genkey"], b"");
        assert!(matches!(SigningKey::from_pem(&p384), Err(KeyError::Malformed { .. })));
        let locked = openssl(&["pkcs8", "-topk8", "-passout", "pass:x"], sec1.as_bytes());
        assert!(matches!(SigningKey::from_pem(&locked), Err(KeyError::Unsupported(_))));
    }
}
