//! Causes of failure of signatures, and of models that are not what was signed.

/// Why a signed model was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(clippy::exhaustive_enums)]
pub enum VerifyError {
    /// The signature does not verify under the key required.
    #[error("bad signature")]
    BadSignature,
    /// The certificate that signed, or its chain, is not accepted.
    #[error("certificate: {0}")]
    Certificate(CertificateError),
    /// A file changed while it was hashed.
    #[error("{path:?} changed while it was read")]
    #[allow(missing_docs)]
    Changed { path: String },
    /// A chat template, tokenizer or code file is not the one that the release names.
    #[error("{path:?} is not the component that the release names")]
    #[allow(missing_docs)]
    Component { path: String },
    /// A file is not the one that was signed.
    #[error("digest mismatch: {path:?} is not the file that was signed")]
    #[allow(missing_docs)]
    DigestMismatch { path: String },
    /// Several have signed, and not the same: other files, or, without a release, another name.
    #[error("the signatures do not agree on the files of the model, or on its name")]
    Disagreement,
    /// The release was good until a time that is over.
    #[error("the release expired at {at}")]
    #[allow(missing_docs)]
    Expired { at: String },
    /// A file is in the model that was not signed.
    #[error("unsigned file {path:?} in the model")]
    #[allow(missing_docs)]
    ExtraFile { path: String },
    /// A release statement is about another model than the signature beside it.
    #[error("the release is about another model than the signature beside it")]
    ForeignRelease,
    /// The bundle is not what the sigstore bundle format v0.3 and OMS describe.
    #[error("malformed bundle: {0}")]
    MalformedBundle(String),
    /// The signed statement is not what OMS, or the release format, describes.
    #[error("malformed statement: {0}")]
    MalformedStatement(String),
    /// A signed file is missing.
    #[error("signed file {path:?} is missing")]
    #[allow(missing_docs)]
    MissingFile { path: String },
    /// The model has no files to sign or verify.
    #[error("no files in the model")]
    NoFiles,
    /// The policy asks for a version, an age, a parent or no rollback, and no release statement says any of it.
    #[error("no release statement, and the policy needs one")]
    NoRelease,
    /// No rule of the policy covers models of this name.
    #[error("no rule of the policy is for models named {name:?}")]
    #[allow(missing_docs)]
    NoRule { name: String },
    /// No signature was found where the caller requires one.
    #[error("no signature {path:?} in the model")]
    #[allow(missing_docs)]
    NoSignature { path: String },
    /// The outboard file is not that of the files signed.
    #[error("outboard: {0}")]
    Outboard(String),
    /// The release does not name this model as one that it was made from.
    #[error("the release does not name the model {digest} as its parent")]
    #[allow(missing_docs)]
    Parent { digest: String },
    /// The signature is by a key that the policy revokes.
    #[error("signed by key {key}, which is revoked")]
    #[allow(missing_docs)]
    Revoked { key: String },
    /// A newer version of the model, or another of the same number, was verified here before.
    #[error("rollback: {name:?} is version {found}, and version {seen} was verified before")]
    #[allow(missing_docs)]
    Rollback { name: String, found: u64, seen: u64 },
    /// The listed digests do not hash to the root digest.
    #[error("the root digest does not match the files listed")]
    RootMismatch,
    /// The keyless signature is refused: its certificate, log entry or identity.
    #[error("keyless signature: {0}")]
    Sigstore(String),
    /// Fewer of the signers named by the policy have signed than it asks for.
    #[error("{found} of the {required} signatures required")]
    #[allow(missing_docs)]
    Threshold { found: usize, required: usize },
    /// The release was issued before the time that the policy asks for.
    #[error("the release was issued at {issued}, before what the policy accepts")]
    #[allow(missing_docs)]
    TooOld { issued: String },
    /// The signature names another key than the one required.
    #[error("signed by key {found}, not by the key required")]
    #[allow(missing_docs)]
    UntrustedKey { found: String },
    /// A mode that this version does not verify.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// The release is of a lower version than the policy asks for.
    #[error("version {found} is below the version {required} that the policy asks for")]
    #[allow(missing_docs)]
    Version { found: u64, required: u64 },
    /// The signature is by another kind of signer than the policy names: a key, a certificate, or a keyless identity.
    #[error("signed by {found}, which the policy does not name")]
    #[allow(missing_docs)]
    WrongMaterial { found: &'static str },
    /// The model was signed under another name than the one expected.
    #[error("signed as {found:?}, expected {expected:?}")]
    #[allow(missing_docs)]
    WrongName { found: String, expected: String },
}

impl VerifyError {
    /// The cause as a stable word for machines, as in the JSON output of the command line.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Certificate(cause) => cause.word(),
            Self::BadSignature => "bad-signature",
            Self::Changed { .. } => "changed",
            Self::Component { .. } => "component",
            Self::DigestMismatch { .. } => "digest-mismatch",
            Self::Disagreement => "disagreement",
            Self::Expired { .. } => "expired",
            Self::ExtraFile { .. } => "extra-file",
            Self::ForeignRelease => "foreign-release",
            Self::MalformedBundle(_) => "malformed-bundle",
            Self::MalformedStatement(_) => "malformed-statement",
            Self::MissingFile { .. } => "missing-file",
            Self::NoFiles => "no-files",
            Self::NoRelease => "no-release",
            Self::NoRule { .. } => "no-rule",
            Self::NoSignature { .. } => "no-signature",
            Self::Outboard(_) => "outboard",
            Self::Parent { .. } => "parent",
            Self::Revoked { .. } => "revoked",
            Self::Rollback { .. } => "rollback",
            Self::RootMismatch => "root-mismatch",
            Self::Sigstore(_) => "sigstore",
            Self::Threshold { .. } => "threshold",
            Self::TooOld { .. } => "too-old",
            Self::UntrustedKey { .. } => "untrusted-key",
            Self::Unsupported(_) => "unsupported",
            Self::Version { .. } => "version",
            Self::WrongMaterial { .. } => "wrong-material",
            Self::WrongName { .. } => "wrong-name",
        }
    }

    /// The file concerned, where the cause is about one.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Changed { path }
            | Self::Component { path }
            | Self::DigestMismatch { path }
            | Self::ExtraFile { path }
            | Self::MissingFile { path }
            | Self::NoSignature { path } => Some(path),
            _ => None,
        }
    }
}

/// Why a certificate that signed a model, or its chain, is not accepted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(clippy::exhaustive_enums)]
pub enum CertificateError {
    /// Its time was over when the signature is to hold.
    #[error("expired at {since}")]
    #[allow(missing_docs)]
    Expired { since: String },
    /// It names someone else than the policy does.
    #[error("issued to {found}, which the policy does not name")]
    #[allow(missing_docs)]
    Identity { found: String },
    /// It cannot be parsed.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Its time has not come.
    #[error("not valid before {until}")]
    #[allow(missing_docs)]
    NotYetValid { until: String },
    /// It is not for signing.
    #[error("not for signing: {0}")]
    Purpose(&'static str),
    /// No chain of certificates leads from it to one that the caller trusts.
    #[error("no chain to a trusted certificate: {0}")]
    UntrustedIssuer(String),
}

impl CertificateError {
    /// The cause as a stable word for machines.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Expired { .. } => "certificate-expired",
            Self::Identity { .. } => "certificate-identity",
            Self::Malformed(_) => "certificate-malformed",
            Self::NotYetValid { .. } => "certificate-not-yet-valid",
            Self::Purpose(_) => "certificate-purpose",
            Self::UntrustedIssuer(_) => "certificate-untrusted",
        }
    }
}
