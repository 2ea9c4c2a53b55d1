//! One certificate, parsed strictly, and what it may be used for.

use std::time::{Duration, SystemTime};

use x509_cert::Version;
use x509_cert::der::asn1::AnyRef;
use x509_cert::der::oid::{AssociatedOid, ObjectIdentifier, db};
use x509_cert::der::{self, Decode, Encode, Reader, SliceReader, pem};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralNames;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, NameConstraints, SubjectAltName};
use x509_cert::name::Name;
use x509_cert::spki::SubjectPublicKeyInfoOwned;
use x509_cert::time::Time;

use super::signature;
use crate::crypto;
use crate::error::CertificateError;
use crate::keys::VerifyingKey;

const MAX_SIZE: usize = 64 << 10;
/// Of one certificate: alternative names, and subtrees that it permits or excludes.
const MAX_NAMES: usize = 256;

/// A certificate (RFC 5280). The extensions that say what it is for are parsed; no other is critical.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    der: Vec<u8>,
    parsed: x509_cert::Certificate,
    authority: Option<BasicConstraints>,
    usage: Option<KeyUsage>,
    purposes: Option<ExtendedKeyUsage>,
    names: GeneralNames,
    constraints: Option<NameConstraints>,
}

impl Certificate {
    pub(super) fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let malformed = |e: der::Error| CertificateError::Malformed(e.to_string());
        if der.len() > MAX_SIZE {
            return Err(CertificateError::Malformed(format!("more than {MAX_SIZE} bytes")));
        }
        let parsed = x509_cert::Certificate::from_der(der).map_err(malformed)?;
        let tbs = parsed.tbs_certificate();
        let mut this = Self {
            der: der.to_vec(),
            authority: None,
            usage: None,
            purposes: None,
            names: Vec::new(),
            constraints: None,
            parsed: parsed.clone(),
        };
        if tbs.signature() != parsed.signature_algorithm() {
            return Err(CertificateError::Malformed("two signature algorithms".into()));
        }
        let extensions = tbs.extensions().map(Vec::as_slice).unwrap_or_default();
        if !extensions.is_empty() && tbs.version() != Version::V3 {
            return Err(CertificateError::Malformed("extensions, and not version 3".into()));
        }
        for (i, extension) in extensions.iter().enumerate() {
            if i >= MAX_NAMES || extensions[..i].iter().any(|other| other.extn_id == extension.extn_id) {
                return Err(CertificateError::Malformed(format!("extension {} twice, or too many", extension.extn_id)));
            }
            this.take(extension)?;
        }
        Ok(this)
    }

    pub(super) fn der(&self) -> &[u8] {
        &self.der
    }

    pub(super) fn subject(&self) -> &Name {
        self.parsed.tbs_certificate().subject()
    }

    pub(super) fn issuer(&self) -> &Name {
        self.parsed.tbs_certificate().issuer()
    }

    /// Subject alternative names.
    pub(super) fn names(&self) -> &GeneralNames {
        &self.names
    }

    pub(super) fn constraints(&self) -> Option<&NameConstraints> {
        self.constraints.as_ref()
    }

    pub(super) fn key(&self) -> Result<VerifyingKey, CertificateError> {
        let der = self.spki().to_der().map_err(|e| CertificateError::Malformed(e.to_string()))?;
        VerifyingKey::from_spki(&der).map_err(|cause| CertificateError::Malformed(cause.to_string()))
    }

    /// As [`VerifyingKey::id`], which has one text for each key; of RSA, SHA-256 of the PEM text.
    pub(super) fn key_id(&self) -> Result<String, CertificateError> {
        if self.spki().algorithm.oid != db::rfc5912::RSA_ENCRYPTION {
            return Ok(self.key()?.id());
        }
        let malformed = |e: &dyn std::fmt::Display| CertificateError::Malformed(e.to_string());
        let der = self.spki().to_der().map_err(|e| malformed(&e))?;
        let text = pem::encode_string("PUBLIC KEY", pem::LineEnding::LF, &der).map_err(|e| malformed(&e))?;
        Ok(crypto::hex(&crypto::sha256(&[text.as_bytes()])))
    }

    pub(super) fn not_after(&self) -> SystemTime {
        system_time(self.parsed.tbs_certificate().validity().not_after)
    }

    pub(super) fn valid_at(&self, at: SystemTime) -> Result<(), CertificateError> {
        let validity = self.parsed.tbs_certificate().validity();
        if at < system_time(validity.not_before) {
            return Err(CertificateError::NotYetValid { until: validity.not_before.to_string() });
        }
        // good until the end of its last second
        if at.checked_sub(Duration::from_secs(1)).is_some_and(|before| before >= system_time(validity.not_after)) {
            return Err(CertificateError::Expired { since: validity.not_after.to_string() });
        }
        Ok(())
    }

    /// Whether it is for signing things other than certificates. That it may issue some as well is no reason against it.
    pub(super) fn signs(&self) -> Result<(), CertificateError> {
        match (&self.usage, &self.purposes) {
            (_, Some(purposes)) if !for_code(purposes) => {
                Err(CertificateError::Purpose("its extended key usage does not allow code signing"))
            }
            (Some(usage), _) if usage.digital_signature() => Ok(()),
            (Some(_), _) => Err(CertificateError::Purpose("its key usage does not allow digital signatures")),
            (None, Some(purposes)) if purposes.0.contains(&db::rfc5280::ID_KP_CODE_SIGNING) => Ok(()),
            (None, _) => Err(CertificateError::Purpose("it names no usage")),
        }
    }

    /// Whether it may issue certificates, in a path with that many issuers below it.
    pub(super) fn issues(&self, below: usize) -> Result<(), CertificateError> {
        let refused = |why: &str| {
            let subject = self.subject().to_string();
            Err(CertificateError::UntrustedIssuer(format!("{subject:?} {why}")))
        };
        let limit = match &self.authority {
            Some(authority) if authority.ca => authority.path_len_constraint,
            _ => return refused("is no certificate authority"),
        };
        if self.usage.as_ref().is_some_and(|usage| !usage.key_cert_sign()) {
            return refused("may not sign certificates");
        }
        if self.purposes.as_ref().is_some_and(|purposes| !for_code(purposes)) {
            return refused("may not issue for code signing");
        }
        if limit.is_some_and(|limit| below > limit.into()) {
            return refused("may not issue for a path as long as this");
        }
        Ok(())
    }

    /// Whether it issued `other`: its name is there, and its key has signed. An error says why that cannot be told.
    pub(super) fn issued(&self, other: &Self) -> Result<bool, CertificateError> {
        let Some(signature) = other.parsed.signature().as_bytes() else { return Ok(false) };
        if self.subject() != other.issuer() {
            return Ok(false);
        }
        let signed = tbs(&other.der).map_err(|e| CertificateError::Malformed(e.to_string()))?;
        signature::verify(self.spki(), other.parsed.signature_algorithm(), signed, signature)
    }

    fn spki(&self) -> &SubjectPublicKeyInfoOwned {
        self.parsed.tbs_certificate().subject_public_key_info()
    }

    fn take(&mut self, extension: &Extension) -> Result<(), CertificateError> {
        match extension.extn_id {
            BasicConstraints::OID => self.authority = Some(decode(extension)?),
            KeyUsage::OID => self.usage = Some(decode(extension)?),
            ExtendedKeyUsage::OID => self.purposes = Some(decode(extension)?),
            SubjectAltName::OID => self.names = decode::<SubjectAltName>(extension)?.0,
            NameConstraints::OID => self.constraints = Some(decode(extension)?),
            unknown if extension.critical => {
                return Err(CertificateError::Malformed(format!("critical extension {unknown} is not known")));
            }
            _ => {}
        }
        let subtrees = self.constraints.iter().flat_map(|c| [&c.permitted_subtrees, &c.excluded_subtrees]).flatten();
        if self.names.len() > MAX_NAMES || subtrees.map(Vec::len).sum::<usize>() > MAX_NAMES {
            return Err(CertificateError::Malformed(format!("more than {MAX_NAMES} names")));
        }
        Ok(())
    }
}

impl PartialEq for Certificate {
    /// Byte for byte.
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

fn for_code(purposes: &ExtendedKeyUsage) -> bool {
    let any = [db::rfc5280::ID_KP_CODE_SIGNING, db::rfc5280::ANY_EXTENDED_KEY_USAGE];
    purposes.0.iter().any(|purpose| any.contains(purpose))
}

fn decode<'a, T: Decode<'a, Error = der::Error> + AssociatedOid>(
    extension: &'a Extension,
) -> Result<T, CertificateError> {
    let oid: ObjectIdentifier = T::OID;
    T::from_der(extension.extn_value.as_bytes())
        .map_err(|e| CertificateError::Malformed(format!("extension {oid}: {e}")))
}

/// What was signed, as it was signed: never encoded again.
fn tbs(der: &[u8]) -> der::Result<&[u8]> {
    SliceReader::new(AnyRef::from_der(der)?.value())?.tlv_bytes()
}

/// At most the year 9999, which any clock of 64 bits can say.
fn system_time(time: Time) -> SystemTime {
    time.to_system_time()
}
