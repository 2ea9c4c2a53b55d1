//! Names in certificates: whom one is issued to, and whom its issuers may issue to.

use x509_cert::der::asn1::Ia5StringRef;
use x509_cert::der::oid::db::rfc3280::EMAIL_ADDRESS;
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::ext::pkix::NameConstraints;
use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
use x509_cert::ext::pkix::name::{DirectoryString, GeneralName};
use x509_cert::name::Name;

use super::parsed::Certificate;
use crate::error::CertificateError;

/// Whom a certificate is issued to: its email addresses, URIs and DNS names, or, if it has none, its common name.
///
/// No text is of two of these kinds, so that who may issue for some domains cannot write an address into a URI. Where
/// issuers are `constrained` the common name is not taken, since no constraint reaches it.
pub(super) fn identities(certificate: &Certificate, constrained: bool) -> Result<Vec<String>, CertificateError> {
    let mut names = Vec::new();
    for name in certificate.names() {
        let (text, well_formed) = match name {
            GeneralName::Rfc822Name(email) => (email.as_str(), is_email(email.as_str())),
            GeneralName::DnsName(host) => (host.as_str(), is_host(host.as_str())),
            GeneralName::UniformResourceIdentifier(uri) => (uri.as_str(), is_uri(uri.as_str())),
            _ => continue,
        };
        if !well_formed {
            return Err(CertificateError::Malformed(format!("alternative name {text:?}")));
        }
        names.push(text.to_owned());
    }
    if names.is_empty() && !constrained {
        let mut common = certificate.subject().iter().filter(|attribute| attribute.oid == COMMON_NAME);
        if let (Some(only), None) = (common.next(), common.next()) {
            let text = DirectoryString::try_from(&only.value).map(String::from);
            names.extend(text.ok().filter(|text| !text.is_empty()));
        }
    }
    Ok(names)
}

/// Refuses a certificate with a name that `constraints` exclude, or do not permit where they permit any of its kind; or
/// for which that cannot be told.
pub(super) fn permitted(constraints: &NameConstraints, certificate: &Certificate) -> Result<(), CertificateError> {
    let subject = certificate.subject();
    let mut names = certificate.names().clone();
    if !names.iter().any(|name| matches!(name, GeneralName::Rfc822Name(_))) {
        for attribute in subject.iter().filter(|attribute| attribute.oid == EMAIL_ADDRESS) {
            let email =
                Ia5StringRef::try_from(&attribute.value).ok().map(|email| GeneralName::Rfc822Name(email.into()));
            names.push(email.ok_or_else(|| refused(subject, "an email address that is no text"))?);
        }
    }
    if !subject.is_empty() {
        names.push(GeneralName::DirectoryName(subject.clone()));
    }
    let same_kind = |a: &GeneralName, b: &GeneralName| std::mem::discriminant(a) == std::mem::discriminant(b);
    for name in &names {
        let of_kind = |subtrees: &Option<Vec<GeneralSubtree>>| -> Vec<GeneralSubtree> {
            subtrees.iter().flatten().filter(|subtree| same_kind(&subtree.base, name)).cloned().collect()
        };
        let (inside, outside) = (of_kind(&constraints.permitted_subtrees), of_kind(&constraints.excluded_subtrees));
        let mut found = inside.is_empty();
        for (subtree, excludes) in
            inside.iter().map(|subtree| (subtree, false)).chain(outside.iter().map(|subtree| (subtree, true)))
        {
            let plain = subtree.minimum == 0 && subtree.maximum.is_none();
            let matches = plain.then(|| is_within(name, &subtree.base)).flatten();
            match (matches, excludes) {
                (None, _) => return Err(refused(subject, "a name that its issuer's constraints cannot be applied to")),
                (Some(true), true) => return Err(refused(subject, "a name that its issuer excludes")),
                (Some(within), false) => found |= within,
                (Some(false), true) => {}
            }
        }
        if !found {
            return Err(refused(subject, "a name that its issuer is not permitted"));
        }
    }
    Ok(())
}

/// Whether a name is in the subtree of another of its kind. `None` where this is not known.
fn is_within(name: &GeneralName, base: &GeneralName) -> Option<bool> {
    match (name, base) {
        (GeneralName::Rfc822Name(email), GeneralName::Rfc822Name(base)) => {
            let (email, base) = (email.as_str(), base.as_str());
            let (mailbox, host) = email.rsplit_once('@').filter(|_| is_email(email))?;
            Some(match base.rsplit_once('@') {
                Some((base_mailbox, base)) => mailbox == base_mailbox && host.eq_ignore_ascii_case(base),
                None => is_under(host, base) || host.eq_ignore_ascii_case(base),
            })
        }
        (GeneralName::DnsName(host), GeneralName::DnsName(base)) => {
            let (host, base) = (host.as_str(), base.as_str());
            is_host(host)
                .then(|| host.eq_ignore_ascii_case(base) || is_under(host, base) || is_under(host, &format!(".{base}")))
        }
        (GeneralName::UniformResourceIdentifier(uri), GeneralName::UniformResourceIdentifier(base)) => {
            let host = host_of(uri.as_str())?;
            Some(is_under(host, base.as_str()) || host.eq_ignore_ascii_case(base.as_str()))
        }
        (GeneralName::DirectoryName(name), GeneralName::DirectoryName(base)) => {
            Some(base.len() <= name.len() && base.iter_rdn().zip(name.iter_rdn()).all(|(a, b)| a == b))
        }
        _ => None,
    }
}

/// Whether `host` is under `base`: all are under the empty one, and what ends in `.example.com` under that.
fn is_under(host: &str, base: &str) -> bool {
    let tail = host.len().checked_sub(base.len()).and_then(|at| host.get(at..));
    base.is_empty() || base.starts_with('.') && tail.is_some_and(|tail| tail.eq_ignore_ascii_case(base))
}

/// The host of a URI, which must have one that is a name.
fn host_of(uri: &str) -> Option<&str> {
    let authority = uri.split_once("://").filter(|_| is_uri(uri))?.1.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?.split(':').next()?;
    let is_name = is_host(host) && host.bytes().any(|byte| byte.is_ascii_alphabetic());
    is_name.then_some(host)
}

fn is_email(text: &str) -> bool {
    let atom = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&byte);
    text.split_once('@')
        .is_some_and(|(mailbox, host)| !mailbox.is_empty() && mailbox.bytes().all(atom) && is_host(host))
}

fn is_host(text: &str) -> bool {
    let label = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte);
    !text.is_empty() && text.bytes().all(label)
}

fn is_uri(text: &str) -> bool {
    let scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
        && text.split_once(':').is_some_and(|(head, rest)| {
            head.starts_with(|c: char| c.is_ascii_alphabetic()) && head.bytes().all(scheme) && !rest.is_empty()
        })
}

fn refused(subject: &Name, what: &str) -> CertificateError {
    CertificateError::UntrustedIssuer(format!("{:?} has {what}", subject.to_string()))
}
