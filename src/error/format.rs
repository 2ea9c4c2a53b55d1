//! Causes of failure of model formats.

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
