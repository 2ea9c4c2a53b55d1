//! Causes of failure of keys.

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
