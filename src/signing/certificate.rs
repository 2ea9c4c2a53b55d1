//! Certificates (RFC 5280): who may issue those that sign models, and the chain that goes into a signature.
//!
//! A chain is accepted when it leads from the certificate that signed to one that the caller trusts, and every
//! certificate on the way is valid, and for that use. Certificates of the system are never trusted. The rules are those of
//! `spec/signing.md`.

use std::path::Path;
use std::time::SystemTime;

use self::parsed::Certificate;
use crate::error::{Cause, CertificateError, KeyError, Result};
use crate::io::{FileAt, ReadAt, ReadAtExt};
use crate::keys::{VerifyingKey, pem};

mod names;
mod parsed;
mod path;
mod signature;
#[cfg(test)]
mod tests;

/// Of one signature, and of the files given to sign with.
const MAX_CHAIN: usize = 8;
/// Several times what operating systems trust.
const MAX_ANCHORS: usize = 1024;
const MAX_FILE: u64 = 4 << 20;

/// Whose certificates may sign: trust anchors, and the names that certificates must be issued to.
///
/// An anchor issues certificates, or intermediates that do, or is itself the certificate that signs: a certificate that is
/// pinned.
///
/// ```no_run
/// use weightmark::signing::CertificateAuthority;
///
/// let authority = CertificateAuthority::load("acme-root.pem")?.issued_to("releases@acme.example");
/// # Ok::<(), weightmark::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct CertificateAuthority {
    anchors: Vec<Certificate>,
    issued_to: Vec<String>,
}

impl CertificateAuthority {
    /// Reads the certificates of a PEM file, at most 4 MiB: each is trusted to issue.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Self::load_all([path])
    }

    /// As [`load`](Self::load), of several files.
    pub fn load_all(paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Result<Self> {
        let mut all = Self { anchors: Vec::new(), issued_to: Vec::new() };
        for path in paths {
            let path = path.as_ref();
            let more = read(path, MAX_ANCHORS - all.anchors.len());
            all.anchors.extend(more?);
        }
        if all.anchors.is_empty() {
            return Err(malformed("no certificate is trusted".into()).on("certificate authority"));
        }
        Ok(all)
    }

    /// Parses the certificates of a PEM text, at least one: each is trusted to issue.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        Ok(Self { anchors: parse(pem, MAX_ANCHORS)?, issued_to: Vec::new() })
    }

    /// Accepts only certificates issued to `name`, or to one of the names where this is called repeatedly: an email
    /// address, URI or DNS name that is a subject alternative name of the certificate, or, if it has none of these, its
    /// common name. Compared as it is: case counts, and `*` is a character.
    pub fn issued_to(mut self, name: impl Into<String>) -> Self {
        self.issued_to.push(name.into());
        self
    }

    /// Holds the certificates of a signature (DER, first the one that signed) to the rules, at a time.
    pub(super) fn verify(&self, chain: &[Vec<u8>], at: SystemTime) -> Result<Certified, CertificateError> {
        if chain.len() > MAX_CHAIN {
            return Err(CertificateError::Malformed(format!("more than {MAX_CHAIN} certificates")));
        }
        let chain: Vec<_> = chain.iter().map(|der| Certificate::parse(der)).collect::<Result<_, _>>()?;
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(CertificateError::Malformed("no certificate".into()));
        };
        let path = path::find(leaf, intermediates, &self.anchors, at)?;
        leaf.signs()?;
        leaf.valid_at(at)?;
        let constrained = path.iter().any(|certificate| certificate.constraints().is_some());
        let names = names::identities(leaf, constrained)?;
        if !self.issued_to.is_empty() && !names.iter().any(|name| self.issued_to.contains(name)) {
            let found = if names.is_empty() { leaf.subject().to_string() } else { names.join(", ") };
            return Err(CertificateError::Identity { found });
        }
        let ends = path.iter().map(|certificate| certificate.not_after());
        Ok(Certified {
            key: leaf.key()?,
            key_ids: path.iter().map(|certificate| certificate.key_id()).collect::<Result<_, _>>()?,
            names,
            subject: leaf.subject().to_string(),
            issuer: leaf.issuer().to_string(),
            not_after: ends.min().unwrap_or(at),
        })
    }
}

/// A certificate that was accepted, and what it says. Exists only when its whole chain was.
///
/// The texts are as the issuer wrote them: hostile characters are not escaped.
#[derive(Clone, Debug, PartialEq)]
pub struct Certified {
    key: VerifyingKey,
    key_ids: Vec<String>,
    names: Vec<String>,
    subject: String,
    issuer: String,
    not_after: SystemTime,
}

impl Certified {
    /// The key that the certificate is for.
    pub fn key(&self) -> &VerifyingKey {
        &self.key
    }

    /// The ids of the keys of the whole path, as [`VerifyingKey::id`] makes them: first that of the certificate that
    /// signed, last that of the trust anchor.
    pub fn key_ids(&self) -> &[String] {
        &self.key_ids
    }

    /// Whom the certificate was issued to: email addresses, URIs and DNS names, or, without any, the common name.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The distinguished name of the certificate's subject (RFC 4514).
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The distinguished name of who issued it.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// When the first certificate of the path expires.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

/// The certificates that go into a signature: that of the key, then those of its issuers, in order, up to but without the
/// root.
///
/// ```no_run
/// use weightmark::keys::SigningKey;
/// use weightmark::signing::CertificateChain;
///
/// let key = SigningKey::load("release.pem")?;
/// let chain = CertificateChain::load("release.crt", &["acme-issuing-ca.pem"])?;
/// chain.check(&key.verifying_key())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct CertificateChain(Vec<Certificate>);

impl CertificateChain {
    /// Reads PEM files: the certificate of the key first, in order those of its issuers. A root and a certificate that
    /// is given again are left out. Refused if one is not issued by the next, or the first is not for signing.
    pub fn load(leaf: impl AsRef<Path>, chain: &[impl AsRef<Path>]) -> Result<Self> {
        let mut given = read(leaf.as_ref(), MAX_CHAIN)?;
        for path in chain {
            given.extend(read(path.as_ref(), MAX_CHAIN)?);
        }
        Self::new(given).map_err(|cause| cause.on(leaf.as_ref().display().to_string()))
    }

    /// As [`load`](Self::load), from a PEM text.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        Self::new(parse(pem, 2 * MAX_CHAIN)?)
    }

    /// The certificates in DER, in the order of the signature.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Certificate::der)
    }

    /// Refuses a key that is not the one in the first certificate.
    pub fn check(&self, key: &VerifyingKey) -> Result<(), KeyError> {
        let held = self.0.first().map(Certificate::key).transpose().map_err(|cause| malformed(cause.to_string()))?;
        match held {
            Some(held) if held == *key => Ok(()),
            Some(held) => Err(malformed(format!("it is of key {held}, and key {key} is to sign"))),
            None => Err(malformed("no certificate".into())),
        }
    }

    fn new(given: Vec<Certificate>) -> Result<Self, KeyError> {
        let mut chain: Vec<Certificate> = Vec::new();
        for certificate in given {
            let root = !chain.is_empty() && certificate.issued(&certificate).unwrap_or(false);
            if !root && !chain.contains(&certificate) {
                chain.push(certificate);
            }
        }
        if chain.len() > MAX_CHAIN {
            return Err(malformed(format!("more than {MAX_CHAIN} certificates")));
        }
        for pair in chain.windows(2) {
            if !pair[1].issued(&pair[0]).map_err(|cause| malformed(cause.to_string()))? {
                let (subject, next) = (pair[0].subject().to_string(), pair[1].subject().to_string());
                return Err(malformed(format!("{subject:?} is not issued by {next:?}, which comes next")));
            }
        }
        if let Some(leaf) = chain.first() {
            leaf.key().map_err(|cause| malformed(cause.to_string()))?;
            leaf.signs().map_err(|cause| KeyError::Unsupported(format!("its certificate is {cause}")))?;
        }
        Ok(Self(chain))
    }
}

fn read(path: &Path, max: usize) -> Result<Vec<Certificate>> {
    let file = FileAt::open(path)?;
    if file.size() > MAX_FILE {
        return Err(malformed(format!("more than {MAX_FILE} bytes")).on(file.name()));
    }
    let bytes = file.read_all(MAX_FILE)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| malformed("not text".into()).on(file.name()))?;
    parse(text, max).map_err(|cause| cause.on(file.name()))
}

fn parse(text: &str, max: usize) -> Result<Vec<Certificate>, KeyError> {
    let ders = pem::certificates(text, max)?;
    let parse = |der: &Vec<u8>| Certificate::parse(der).map_err(|cause| malformed(cause.to_string()));
    ders.iter().map(parse).collect()
}

fn malformed(problem: String) -> KeyError {
    KeyError::Malformed { wanted: "certificate", problem }
}
