//! What can go wrong, as closed causes that tests and callers can match exactly.
//!
//! [`Error`] says in which half of the crate and on which file something failed; the cause enums
//! ([`EncryptionError`], [`FormatError`], [`KeyError`], [`VerifyError`], [`WatermarkError`]) say what exactly.
//! [`Error::code`] is the one classification from which the exit status of the command line follows.

use std::fmt;
use std::path::Path;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any failure of this crate. Displays as one line: the file, then the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program calls this library in a way that reading its documentation would fix.
    #[error("{0}")]
    ApiMisuse(&'static str),
    /// The caller's [`Progress`](crate::io::Progress) asked to stop. Nothing was left behind, but for what had
    /// gone into a stream.
    #[error("cancelled")]
    Cancelled,
    /// An encrypted artifact cannot be opened or is not what was expected.
    #[error("{}", Printable(&format!("{name}: {cause}")))]
    #[allow(missing_docs)]
    Encryption { name: String, cause: EncryptionError },
    /// A file is not a well-formed model artifact.
    #[error("{}", Printable(&format!("{name}: {cause}")))]
    #[allow(missing_docs)]
    Format { name: String, cause: FormatError },
    /// The operating system refused.
    #[error("{}", Printable(&format!("{name}: cannot {op}: {source}")))]
    #[allow(missing_docs)]
    Io { op: &'static str, name: String, source: std::io::Error },
    /// A key cannot be read, written or used here.
    #[error("{}", Printable(&format!("{name}: {cause}")))]
    #[allow(missing_docs)]
    Key { name: String, cause: KeyError },
    /// A signature, or the model under it, is not what the verifier requires.
    #[error("{}", Printable(&format!("{name}: {cause}")))]
    #[allow(missing_docs)]
    Verify { name: String, cause: VerifyError },
    /// A model cannot carry or show a watermark.
    #[error("{}", Printable(&format!("{name}: {cause}")))]
    #[allow(missing_docs)]
    Watermark { name: String, cause: WatermarkError },
}

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

/// Why a file is not accepted as a model artifact.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(clippy::exhaustive_enums)]
pub enum FormatError {
    /// The zip archive is not one that every reader would read alike.
    #[error("not a strict zip archive: {0}")]
    Archive(String),
    /// The same name occurs twice.
    #[error("duplicate name {0:?}")]
    Duplicate(String),
    /// The file holds code, or what is not provably plain data.
    #[error("not plain data: {0}")]
    Executable(String),
    /// Weights in another file that is not there, too short, or not one to be read.
    #[error("tensor {tensor:?}: its data in {path:?} {problem}")]
    #[allow(missing_docs)]
    External { tensor: String, path: String, problem: &'static str },
    /// The header is larger than the format or this reader allows.
    #[error("header of {size} bytes is over the limit of {limit}")]
    #[allow(missing_docs)]
    HeaderTooLarge { size: u64, limit: u64 },
    /// The header cannot be parsed.
    #[error("malformed header: {0}")]
    MalformedHeader(String),
    /// The shard index names a file or tensor that is not there, or leaves one out.
    #[error("shard index: {0}")]
    ShardIndex(String),
    /// A tensor that cannot be: a bad name or shape; data that overlap, leave gaps or lie beyond the end of the file.
    #[error("tensor {tensor:?}: {problem}")]
    #[allow(missing_docs)]
    Span { tensor: String, problem: &'static str },
    /// The file ends early.
    #[error("truncated: {0}")]
    Truncated(&'static str),
    /// Bytes follow the last tensor.
    #[error("{0} bytes after the last tensor")]
    TrailingBytes(u64),
    /// The file is in no format that this version reads.
    #[error("not a model format that this version reads (safetensors, GGUF, ONNX, PyTorch, NumPy)")]
    Unknown,
    /// No such tensor.
    #[error("no tensor {0:?}")]
    UnknownTensor(String),
    /// A variant of the format that is not read here, and what to do about it.
    #[error("unsupported: {0}")]
    Unsupported(String),
}

impl FormatError {
    /// The cause as a stable word for machines.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Archive(_) => "archive",
            Self::Duplicate(_) => "duplicate",
            Self::Executable(_) => "executable",
            Self::External { .. } => "external",
            Self::HeaderTooLarge { .. } => "header-too-large",
            Self::MalformedHeader(_) => "malformed-header",
            Self::ShardIndex(_) => "shard-index",
            Self::Span { .. } => "span",
            Self::Truncated(_) => "truncated",
            Self::TrailingBytes(_) => "trailing-bytes",
            Self::Unknown => "unknown",
            Self::UnknownTensor(_) => "unknown-tensor",
            Self::Unsupported(_) => "unsupported",
        }
    }
}

/// Why a key was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(clippy::exhaustive_enums)]
pub enum KeyError {
    /// A passphrase asks for more memory (in KiB), passes or lanes than the reader accepts.
    #[error("the passphrase takes {memory} KiB of memory, {passes} passes, {lanes} lanes: more than is accepted here")]
    #[allow(missing_docs)]
    ExcessiveWork { memory: u64, passes: u64, lanes: u64 },
    /// The key is encrypted with a passphrase, and none was given.
    #[error("protected by a passphrase, and none was given")]
    Locked,
    /// The text is not a key of the kind wanted.
    #[error("not a {wanted}: {problem}")]
    #[allow(missing_docs)]
    Malformed { wanted: &'static str, problem: String },
    /// None of the identities offered opens this artifact.
    #[error("none of the identities given can open it")]
    NoMatch,
    /// A secret key file can be read by others.
    #[error("secret key file is readable by others (mode {mode:03o}); run chmod 600 on it")]
    #[allow(missing_docs)]
    ReadableByOthers { mode: u32 },
    /// The operation needs a key of another algorithm or size.
    #[error("unsupported key: {0}")]
    Unsupported(String),
    /// Whoever holds the key cannot be reached, or will not answer now. Trying again may help.
    #[error("key holder unavailable: {0}")]
    Unavailable(String),
    /// The artifact is encrypted and no identity was given.
    #[error("encrypted, and no identity was given")]
    Wanted,
    /// The passphrase is not the one that encrypted.
    #[error("wrong passphrase")]
    WrongPassphrase,
}

impl KeyError {
    /// The cause as a stable word for machines.
    pub fn word(&self) -> &'static str {
        match self {
            Self::ExcessiveWork { .. } => "excessive-work",
            Self::Locked => "locked",
            Self::Malformed { .. } => "malformed",
            Self::NoMatch => "no-match",
            Self::ReadableByOthers { .. } => "readable-by-others",
            Self::Unavailable(_) => "unavailable",
            Self::Unsupported(_) => "unsupported",
            Self::Wanted => "wanted",
            Self::WrongPassphrase => "wrong-passphrase",
        }
    }
}

/// Why a signed model was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(clippy::exhaustive_enums)]
pub enum VerifyError {
    /// The signature does not verify under the key required.
    #[error("bad signature")]
    BadSignature,
    /// A file is not the one that was signed.
    #[error("digest mismatch: {path:?} is not the file that was signed")]
    #[allow(missing_docs)]
    DigestMismatch { path: String },
    /// A file is in the model that was not signed.
    #[error("unsigned file {path:?} in the model")]
    #[allow(missing_docs)]
    ExtraFile { path: String },
    /// The bundle is not what the sigstore bundle format v0.3 and OMS describe.
    #[error("malformed bundle: {0}")]
    MalformedBundle(String),
    /// The signed statement is not what OMS describes.
    #[error("malformed statement: {0}")]
    MalformedStatement(String),
    /// A signed file is missing.
    #[error("signed file {path:?} is missing")]
    #[allow(missing_docs)]
    MissingFile { path: String },
    /// The model has no files to sign or verify.
    #[error("no files in the model")]
    NoFiles,
    /// No signature was found where the caller requires one.
    #[error("no signature {path:?} in the model")]
    #[allow(missing_docs)]
    NoSignature { path: String },
    /// The listed digests do not hash to the root digest.
    #[error("the root digest does not match the files listed")]
    RootMismatch,
    /// The model holds a symbolic link and links were not signed, or the caller does not allow them.
    #[error("symbolic links are not allowed in this model")]
    SymlinkPolicy,
    /// The signature names another key than the one required.
    #[error("signed by key {found}, not by the key required")]
    #[allow(missing_docs)]
    UntrustedKey { found: String },
    /// A mode that this version does not verify.
    #[error("unsupported: {0}")]
    Unsupported(String),
}

impl VerifyError {
    /// The cause as a stable word for machines, as in the JSON output of the command line.
    pub fn word(&self) -> &'static str {
        match self {
            Self::BadSignature => "bad-signature",
            Self::DigestMismatch { .. } => "digest-mismatch",
            Self::ExtraFile { .. } => "extra-file",
            Self::MalformedBundle(_) => "malformed-bundle",
            Self::MalformedStatement(_) => "malformed-statement",
            Self::MissingFile { .. } => "missing-file",
            Self::NoFiles => "no-files",
            Self::NoSignature { .. } => "no-signature",
            Self::RootMismatch => "root-mismatch",
            Self::SymlinkPolicy => "symlink-policy",
            Self::UntrustedKey { .. } => "untrusted-key",
            Self::Unsupported(_) => "unsupported",
        }
    }

    /// The file concerned, where the cause is about one.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::DigestMismatch { path }
            | Self::ExtraFile { path }
            | Self::MissingFile { path }
            | Self::NoSignature { path } => Some(path),
            _ => None,
        }
    }
}

/// Why a model cannot carry or show a watermark.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(clippy::exhaustive_enums)]
pub enum WatermarkError {
    /// The weights are in a zip archive, whose checksums a mark would break.
    #[error("weights in the zip archive {0:?} cannot be marked in place: convert the model to safetensors first")]
    Archive(String),
    /// The same tensor name stands in two files of the model.
    #[error("tensor {0:?} stands in two files")]
    AmbiguousTensor(String),
    /// A copy is labelled with nothing, with more than 255 bytes, or with what would not survive a list of labels.
    #[error("label {0:?} is empty, too long, or has blanks around it or control characters in it")]
    Label(String),
    /// No tensor is fit to carry a mark.
    #[error("no tensor can carry a mark: it takes floating-point matrices of at least 4096 weights")]
    NoCarrier,
    /// A weight is infinite, not a number, or beyond 2^128.
    #[error("tensor {0:?} holds weights that are not finite, or beyond 2^128")]
    NotFinite(String),
    /// The strength is outside of the range that makes sense.
    #[error("strength {0} is outside of 0.00001 to 0.1")]
    Strength(f64),
}

/// The kind of an [`Error`], stable over versions: exit status and language bindings follow from it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Code {
    /// The library was misused.
    Misuse,
    /// The caller asked to stop.
    Cancelled,
    /// The answer is no: tampered, badly signed, bound to something else.
    Refused,
    /// The operating system or the file format says no.
    Input,
    /// A key is missing, malformed or does not fit.
    Key,
}

impl Error {
    /// The kind of this error.
    pub fn code(&self) -> Code {
        match self {
            Self::ApiMisuse(_) => Code::Misuse,
            Self::Cancelled => Code::Cancelled,
            Self::Encryption { cause, .. } => match cause {
                EncryptionError::BadEnvelope(_)
                | EncryptionError::NotEncrypted
                | EncryptionError::UnknownSuite(_)
                | EncryptionError::UnknownVersion(_) => Code::Input,
                EncryptionError::ClosedFile { .. } => Code::Key,
                _ => Code::Refused,
            },
            Self::Verify { cause, .. } => match cause {
                VerifyError::NoFiles => Code::Input,
                _ => Code::Refused,
            },
            Self::Format { .. } | Self::Io { .. } | Self::Watermark { .. } => Code::Input,
            Self::Key { .. } => Code::Key,
        }
    }

    /// The same error, on the artifact called `name`.
    pub(crate) fn renamed(self, new: impl AsRef<Path>) -> Self {
        let new = new.as_ref().display().to_string();
        match self {
            Self::Encryption { cause, .. } => Self::Encryption { name: new, cause },
            Self::Format { cause, .. } => Self::Format { name: new, cause },
            Self::Io { op, source, .. } => Self::Io { op, name: new, source },
            Self::Key { cause, .. } => Self::Key { name: new, cause },
            Self::Verify { cause, .. } => Self::Verify { name: new, cause },
            Self::Watermark { cause, .. } => Self::Watermark { name: new, cause },
            other => other,
        }
    }

    /// An operating-system error with the operation and the file it concerns.
    pub(crate) fn io(op: &'static str, name: impl AsRef<Path>, source: impl Into<std::io::Error>) -> Self {
        Self::Io { op, name: name.as_ref().display().to_string(), source: source.into() }
    }
}

/// Attaches the name of the file to a bare cause.
pub(crate) trait Cause: Sized {
    /// This cause, on the artifact called `name`.
    fn on(self, name: impl AsRef<str>) -> Error;
}

macro_rules! cause {
    ($($cause:ident => $variant:ident),*) => {$(
        impl Cause for $cause {
            fn on(self, name: impl AsRef<str>) -> Error {
                Error::$variant { name: name.as_ref().to_owned(), cause: self }
            }
        }
    )*};
}
cause!(EncryptionError => Encryption, FormatError => Format, KeyError => Key, VerifyError => Verify, WatermarkError => Watermark);

/// A name shown to people: control and direction-changing characters are escaped, so that a file name can
/// neither move the cursor nor forge a line of output. What is longer than 4096 characters is cut.
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, c) in self.0.chars().enumerate() {
            if i == 4096 {
                return f.write_str("..");
            }
            let hostile = c.is_control()
                || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
            if hostile {
                write!(f, "{}", c.escape_unicode())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_forge_output() {
        let error = FormatError::Unknown.on("a\n\x1b[2Jb\u{202e}c");
        let shown = error.to_string();
        assert!(shown.starts_with("a\\u{a}\\u{1b}[2Jb\\u{202e}c: "), "{shown}");
    }
}
