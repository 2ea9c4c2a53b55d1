//! Who may sign, and who did.

use std::collections::BTreeSet;
use std::fmt;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::bundle::{Bundle, Material};
use super::certificate::{CertificateAuthority, Certified};
#[cfg(feature = "sigstore")]
use super::keyless::{Keyless, KeylessSigner};
use super::release::to_text;
#[cfg(feature = "sigstore")]
use super::statement::Statement;
use crate::error::VerifyError;
use crate::keys::{Algorithm, VerifyingKey};

/// Someone whose signature counts, named by what the verifier holds already.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Authority {
    /// Whoever holds this key.
    Key(VerifyingKey),
    /// Whoever has a certificate from one of these.
    Certificate(CertificateAuthority),
    /// Whoever was known as this identity for the minutes it took to sign.
    #[cfg(feature = "sigstore")]
    Keyless(Keyless),
}

#[cfg(feature = "sigstore")]
impl From<Keyless> for Authority {
    fn from(identity: Keyless) -> Self {
        Self::Keyless(identity)
    }
}

impl From<CertificateAuthority> for Authority {
    fn from(authority: CertificateAuthority) -> Self {
        Self::Certificate(authority)
    }
}

impl From<VerifyingKey> for Authority {
    fn from(key: VerifyingKey) -> Self {
        Self::Key(key)
    }
}

/// Who signed, as verified.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Signatory {
    /// The holder of a key that the verifier has.
    Key(VerifyingKey),
    /// The holder of a certificate, which was good at the time of the verifier.
    Certificate(Certified),
    /// An identity, as a log or a timestamp proves.
    #[cfg(feature = "sigstore")]
    Keyless(KeylessSigner),
}

impl Signatory {
    /// What tells this signer from others.
    pub(super) fn id(&self) -> String {
        match self {
            Self::Key(key) => key.id(),
            Self::Certificate(certified) => certified.key().id(),
            #[cfg(feature = "sigstore")]
            Self::Keyless(signer) => format!("{} of {}", signer.identity, signer.issuer),
        }
    }

    /// Ids of the keys that vouch for the signature: its own, then those of certificates above it.
    pub(super) fn key_ids(&self) -> Vec<String> {
        match self {
            Self::Key(key) => vec![key.id()],
            Self::Certificate(certified) => certified.key_ids().to_vec(),
            #[cfg(feature = "sigstore")]
            Self::Keyless(_) => Vec::new(), // a key of minutes
        }
    }

    /// For machines: the kind of signer, the id of its key, and by which time the signature was judged.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Key(key) => json!({"kind": "key", "key": key.id(), "algorithm": name(key.algorithm()), "time": null}),
            Self::Certificate(certified) => json!({
                "kind": "certificate",
                "key": certified.key().id(),
                "algorithm": name(certified.key().algorithm()),
                "names": certified.names(),
                "subject": certified.subject(),
                "issuer": certified.issuer(),
                "not_after": to_text(certified.not_after()),
                "time": {"basis": "clock"},
            }),
            #[cfg(feature = "sigstore")]
            Self::Keyless(signer) => json!({
                "kind": "keyless",
                "identity": signer.identity,
                "issuer": signer.issuer,
                "time": {"basis": signer.time_basis, "at": to_text(signer.signed_at)},
            }),
        }
    }
}

impl fmt::Display for Signatory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "key {key}"),
            Self::Certificate(certified) => {
                let names = certified.names().join(", ");
                write!(
                    f,
                    "{} (certificate issued by {})",
                    if names.is_empty() { certified.subject() } else { &names },
                    certified.issuer()
                )
            }
            #[cfg(feature = "sigstore")]
            Self::Keyless(signer) => write!(f, "{} (known to {})", signer.identity, signer.issuer),
        }
    }
}

fn name(algorithm: Algorithm) -> String {
    format!("{algorithm:?}")
}

/// How a signature is judged, whoever made it.
pub(super) struct Judgement<'a> {
    /// As of what time.
    pub(super) at: SystemTime,
    /// Ids of keys that vouch for nothing any more.
    pub(super) revoked: &'a BTreeSet<String>,
}

/// The one of `authorities` who signed, by no key that was revoked.
pub(super) fn signatory(
    bundle: &Bundle,
    authorities: &[&Authority],
    judgement: &Judgement<'_>,
) -> Result<(usize, Signatory), VerifyError> {
    let (i, by) = anyone(bundle, authorities, judgement.at)?;
    match by.key_ids().into_iter().find(|key| judgement.revoked.contains(key)) {
        Some(key) => Err(VerifyError::Revoked { key }),
        None => Ok((i, by)),
    }
}

fn anyone(bundle: &Bundle, authorities: &[&Authority], at: SystemTime) -> Result<(usize, Signatory), VerifyError> {
    match bundle.material() {
        Material::Key { hint } => {
            let keys = authorities.iter().enumerate().filter_map(|(i, authority)| match authority {
                Authority::Key(key) => Some((i, key)),
                _ => None,
            });
            let keys: Vec<_> = keys.collect();
            if keys.is_empty() {
                return Err(VerifyError::WrongMaterial { found: "a key" });
            }
            let mut hinted = keys.into_iter().filter(|(_, key)| hint.is_empty() || *hint == key.id()).peekable();
            if hinted.peek().is_none() {
                return Err(VerifyError::UntrustedKey { found: hint.chars().take(64).collect() });
            }
            let signer = hinted.find(|(_, key)| bundle.is_signed_by(key));
            signer.map(|(i, key)| (i, Signatory::Key(key.clone()))).ok_or(VerifyError::BadSignature)
        }
        Material::Chain(chain) => {
            let mut refusal = VerifyError::WrongMaterial { found: "a certificate" };
            for (i, authority) in authorities.iter().enumerate() {
                let Authority::Certificate(authority) = authority else { continue };
                match authority.verify(chain, at) {
                    Ok(certified) if bundle.is_signed_by(certified.key()) => {
                        return Ok((i, Signatory::Certificate(certified)));
                    }
                    Ok(_) => refusal = VerifyError::BadSignature,
                    Err(cause) => refusal = VerifyError::Certificate(cause),
                }
            }
            Err(refusal)
        }
        Material::Keyless => keyless(bundle, authorities),
    }
}

#[cfg(feature = "sigstore")]
fn keyless(bundle: &Bundle, authorities: &[&Authority]) -> Result<(usize, Signatory), VerifyError> {
    let root = Statement::parse(bundle.payload())?.root_digest(); // strictly, before a library does
    let mut refusal = VerifyError::WrongMaterial { found: "a keyless identity" };
    for (i, authority) in authorities.iter().enumerate() {
        let Authority::Keyless(identity) = authority else { continue };
        match identity.verify(bundle.to_json(), &root) {
            Ok(signer) => return Ok((i, Signatory::Keyless(signer))),
            Err(cause) => refusal = cause,
        }
    }
    Err(refusal)
}

#[cfg(not(feature = "sigstore"))]
fn keyless(_: &Bundle, _: &[&Authority]) -> Result<(usize, Signatory), VerifyError> {
    Err(VerifyError::WrongMaterial { found: "a keyless identity" })
}
