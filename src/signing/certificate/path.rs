//! The way from a certificate to one that is trusted, through the certificates of its signature.

use std::time::SystemTime;

use super::names;
use super::parsed::Certificate;
use crate::error::CertificateError;

/// Between the certificate that signed and the trust anchor.
const MAX_INTERMEDIATES: usize = 6;
/// Signatures that are looked at before the search is given up: certificates that sign one another in all directions
/// have many ways through them.
const MAX_SIGNATURES: usize = 128;

/// A path of certificates, each issued by the next, the last of which is an anchor. A leaf that is itself an anchor is
/// trusted as such.
///
/// Every issuer on it is valid at the time, may issue, and permits the names below it. The leaf's own validity and usage are
/// not looked at.
pub(super) fn find<'a>(
    leaf: &'a Certificate,
    intermediates: &'a [Certificate],
    anchors: &'a [Certificate],
    at: SystemTime,
) -> Result<Vec<&'a Certificate>, CertificateError> {
    let mut path = vec![leaf];
    if anchors.contains(leaf) {
        return Ok(path);
    }
    let mut search = Search { intermediates, anchors, at, signatures: 0, cause: None };
    if search.extend(&mut path) {
        return Ok(path);
    }
    let unknown = || {
        let issuer = leaf.issuer().to_string();
        CertificateError::UntrustedIssuer(format!("none is known that was issued by {issuer:?}, or by its issuers"))
    };
    Err(search.cause.unwrap_or_else(unknown))
}

struct Search<'a> {
    intermediates: &'a [Certificate],
    anchors: &'a [Certificate],
    at: SystemTime,
    signatures: usize,
    /// Why the first issuer that was refused was.
    cause: Option<CertificateError>,
}

impl<'a> Search<'a> {
    /// Extends the path to an anchor, depth first, anchors before intermediates. As deep as the longest path allowed.
    fn extend(&mut self, path: &mut Vec<&'a Certificate>) -> bool {
        let anchors = self.anchors.iter().map(|anchor| (anchor, true));
        let intermediates = self.intermediates.iter().map(|intermediate| (intermediate, false));
        for (issuer, trusted) in anchors.chain(intermediates) {
            if path.contains(&issuer) || !trusted && path.len() > MAX_INTERMEDIATES {
                continue;
            }
            match self.accepts(issuer, path) {
                Ok(false) => continue,
                Err(cause) => {
                    self.cause.get_or_insert(cause);
                    continue;
                }
                Ok(true) => path.push(issuer),
            }
            if trusted || self.extend(path) {
                return true;
            }
            path.pop();
        }
        false
    }

    /// Whether `issuer` issued the last certificate of a path, and may be in it.
    fn accepts(&mut self, issuer: &Certificate, path: &[&Certificate]) -> Result<bool, CertificateError> {
        let Some(last) = path.last() else { return Ok(false) };
        if issuer.subject() != last.issuer() {
            return Ok(false);
        }
        self.signatures += 1;
        if self.signatures > MAX_SIGNATURES {
            return Err(CertificateError::UntrustedIssuer("too many ways to look for one".into()));
        }
        if !issuer.issued(last)? {
            return Ok(false);
        }
        issuer.valid_at(self.at)?;
        issuer.issues(path.len() - 1)?;
        if let Some(constraints) = issuer.constraints() {
            for certificate in path {
                names::permitted(constraints, certificate)?;
            }
        }
        Ok(true)
    }
}
