//! What can go wrong, as closed causes that tests and callers can match exactly.
//!
//! [`Error`] says in which half of the crate and on which file something failed; the cause enums
//! ([`EncryptionError`], [`FormatError`], [`KeyError`], [`VerifyError`] with [`CertificateError`], [`WatermarkError`]) say
//! what exactly.
//! [`Error::code`] is the one classification from which the exit status of the command line, the result codes of C and the
//! exceptions of Python follow.

mod encryption;
mod format;
mod key;
mod verify;
mod watermark;

use std::fmt;
use std::path::Path;

pub use encryption::EncryptionError;
pub use format::FormatError;
pub use key::KeyError;
pub use verify::{CertificateError, VerifyError};
pub use watermark::WatermarkError;

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

/// The kind of an [`Error`], stable over versions: exit status and language bindings follow from it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Code {
    /// The answer is no: tampered, badly signed, bound to something else.
    Refused = 1,
    /// The library was misused.
    Misuse = 2,
    /// The operating system or the file format says no.
    Input = 3,
    /// A key is missing, malformed or does not fit.
    Key = 4,
    /// The caller asked to stop.
    Cancelled = 5,
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
            Self::Watermark { cause, .. } if cause.is_refusal() => Code::Refused,
            Self::Format { .. } | Self::Io { .. } | Self::Watermark { .. } => Code::Input,
            Self::Key { .. } => Code::Key,
        }
    }

    /// The cause as a stable word for machines: `chunk-tampered`, `missing-file`, `no-match`, ..
    pub fn word(&self) -> &'static str {
        match self {
            Self::ApiMisuse(_) => "misuse",
            Self::Cancelled => "cancelled",
            Self::Encryption { cause, .. } => cause.word(),
            Self::Format { cause, .. } => cause.word(),
            Self::Io { .. } => "io",
            Self::Key { cause, .. } => cause.word(),
            Self::Verify { cause, .. } => cause.word(),
            Self::Watermark { cause, .. } => cause.word(),
        }
    }

    /// The file or the model that this is about, as it was named.
    pub fn artifact(&self) -> Option<&str> {
        match self {
            Self::ApiMisuse(_) | Self::Cancelled => None,
            Self::Encryption { name, .. }
            | Self::Format { name, .. }
            | Self::Io { name, .. }
            | Self::Key { name, .. }
            | Self::Verify { name, .. }
            | Self::Watermark { name, .. } => Some(name),
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

    #[test]
    fn errors_tell_their_kind_their_cause_and_their_file() {
        let tampered = EncryptionError::ChunkTampered { index: 3 }.on("a.wmenc");
        assert_eq!(
            (tampered.code() as u8, tampered.word(), tampered.artifact()),
            (1, "chunk-tampered", Some("a.wmenc"))
        );
        let missing = Error::io("open", "b", std::io::ErrorKind::NotFound);
        assert_eq!((missing.code() as u8, missing.word(), missing.artifact()), (3, "io", Some("b")));
        let key = KeyError::NoMatch.on("c");
        assert_eq!((key.code() as u8, key.word()), (4, "no-match"));
        let claim = WatermarkError::NotTheOwner.on("d");
        assert_eq!((claim.code() as u8, claim.word()), (1, "not-the-owner"));
        assert_eq!((Error::ApiMisuse("x").code() as u8, Error::Cancelled.code() as u8), (2, 5));
        assert_eq!((Error::Cancelled.word(), Error::Cancelled.artifact()), ("cancelled", None));
    }
}
