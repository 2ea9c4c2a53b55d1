//! Signatures of issuers over certificates.

use ring::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
};
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_cert::der::Encode;
use x509_cert::der::asn1::AnyRef;
use x509_cert::der::oid::db::rfc5912::{
    ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ECDSA_WITH_SHA_512, RSA_ENCRYPTION, SHA_256_WITH_RSA_ENCRYPTION,
    SHA_384_WITH_RSA_ENCRYPTION, SHA_512_WITH_RSA_ENCRYPTION,
};
use x509_cert::der::oid::db::rfc8410::ID_ED_25519;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use crate::error::CertificateError;
use crate::keys::{Algorithm, VerifyingKey};

/// A modulus of 2048 bits, without what is around it.
const MIN_RSA_KEY: usize = 256;

/// Whether `signature` is one over `message` by the key in `issuer`: ECDSA or RSA (PKCS #1 v1.5) with SHA-2, or Ed25519.
///
/// An issuer may sign with another hash than the one of its curve, unlike who signs models. What this does not know, and what
/// is weak, is an error.
pub(super) fn verify(
    issuer: &SubjectPublicKeyInfoOwned,
    algorithm: &AlgorithmIdentifierOwned,
    message: &[u8],
    signature: &[u8],
) -> Result<bool, CertificateError> {
    let refused = |why: String| CertificateError::UntrustedIssuer(why);
    let null = |parameters: &AlgorithmIdentifierOwned| {
        parameters.parameters.as_ref().is_some_and(|any| AnyRef::from(any) == AnyRef::NULL)
    };
    let rsa = match algorithm.oid {
        SHA_256_WITH_RSA_ENCRYPTION => Some(&RSA_PKCS1_2048_8192_SHA256),
        SHA_384_WITH_RSA_ENCRYPTION => Some(&RSA_PKCS1_2048_8192_SHA384),
        SHA_512_WITH_RSA_ENCRYPTION => Some(&RSA_PKCS1_2048_8192_SHA512),
        _ => None,
    };
    if let Some(rsa) = rsa {
        let key = issuer.subject_public_key.as_bytes().unwrap_or_default();
        if issuer.algorithm.oid != RSA_ENCRYPTION || !null(&issuer.algorithm) || !null(algorithm) {
            return Ok(false);
        }
        if key.len() <= MIN_RSA_KEY {
            return Err(refused("RSA keys of less than 2048 bits are not accepted".into()));
        }
        return Ok(UnparsedPublicKey::new(rsa, key).verify(message, signature).is_ok());
    }
    let digest = match algorithm.oid {
        ECDSA_WITH_SHA_256 => Sha256::digest(message).to_vec(),
        ECDSA_WITH_SHA_384 => Sha384::digest(message).to_vec(),
        ECDSA_WITH_SHA_512 => Sha512::digest(message).to_vec(),
        ID_ED_25519 => Vec::new(),
        other => return Err(refused(format!("signature algorithm {other} is not accepted"))),
    };
    if algorithm.parameters.is_some() {
        return Err(refused(format!("signature algorithm {} with parameters is not accepted", algorithm.oid)));
    }
    let spki = issuer.to_der().map_err(|e| CertificateError::Malformed(e.to_string()))?;
    let Ok(key) = VerifyingKey::from_spki(&spki) else { return Ok(false) };
    Ok(match (algorithm.oid == ID_ED_25519, key.algorithm() == Algorithm::Ed25519) {
        (true, true) => key.verify_bytes(message, signature),
        (false, false) => key.verify_digest(&digest, signature),
        _ => false,
    })
}
