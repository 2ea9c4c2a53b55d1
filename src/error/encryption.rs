//! Causes of failure of encrypted artifacts.

/// Why an encrypted artifact was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(clippy::exhaustive_enums)]
pub enum EncryptionError {
    /// The envelope is not what `spec/encryption.md` describes.
    #[error("malformed envelope: {0}")]
    BadEnvelope(String),
    /// A chunk does not authenticate: its bytes were changed, moved or cut.
    #[error("tampered: chunk {index} does not authenticate")]
    ChunkTampered {
        /// Number of the 16 KiB chunk, from 0.
        index: u64,
    },
    /// The payload does not belong to this key, context and path.
    #[error("tampered or foreign: the payload is not committed to this key, context and path")]
    Commitment,
    /// The artifact is bound to another context than the one expected.
    #[error("bound to context {found:?}, expected {expected:?}")]
    #[allow(missing_docs)]
    ContextMismatch { expected: String, found: String },
    /// The envelope or file header does not authenticate under the input key.
    #[error("tampered: the envelope does not authenticate")]
    EnvelopeTampered,
    /// An encrypted file in the directory is not listed in its envelope.
    #[error("unexpected encrypted file {path:?}")]
    #[allow(missing_docs)]
    ExtraFile { path: String },
    /// The file was encrypted under another key than the directory that holds it.
    #[error("foreign: encrypted under another key than the directory that holds it")]
    ForeignFile,
    /// An encrypted artifact was expected, and this one is plaintext.
    #[error("expected to be encrypted, and it is not")]
    ExpectedEncrypted,
    /// A file listed in the envelope is missing.
    #[error("encrypted file {path:?} is missing")]
    #[allow(missing_docs)]
    MissingFile { path: String },
    /// The file is encrypted for others only: none of the identities opens the group it belongs to.
    #[error("encrypted file {path:?} is closed to the identities given")]
    #[allow(missing_docs)]
    ClosedFile { path: String },
    /// Not an encrypted artifact at all.
    #[error("not encrypted by weightmark")]
    NotEncrypted,
    /// The length is impossible for a whole file: bytes were cut or added.
    #[error("truncated, or bytes were added")]
    Truncated,
    /// The envelope names a suite that this version does not know.
    #[error("unknown suite {0:?}")]
    UnknownSuite(String),
    /// The file is of a version of the format that this version does not know.
    #[error("encrypted in version {0:?} of the format, which is not known here")]
    UnknownVersion(char),
}

impl EncryptionError {
    /// The cause as a stable word for machines.
    pub fn word(&self) -> &'static str {
        match self {
            Self::BadEnvelope(_) => "bad-envelope",
            Self::ChunkTampered { .. } => "chunk-tampered",
            Self::ClosedFile { .. } => "closed-file",
            Self::Commitment => "commitment",
            Self::ContextMismatch { .. } => "context-mismatch",
            Self::EnvelopeTampered => "envelope-tampered",
            Self::ExpectedEncrypted => "expected-encrypted",
            Self::ExtraFile { .. } => "extra-file",
            Self::ForeignFile => "foreign-file",
            Self::MissingFile { .. } => "missing-file",
            Self::NotEncrypted => "not-encrypted",
            Self::Truncated => "truncated",
            Self::UnknownSuite(_) => "unknown-suite",
            Self::UnknownVersion(_) => "unknown-version",
        }
    }
}
