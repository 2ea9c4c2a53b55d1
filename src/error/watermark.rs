//! Causes of failure of watermarks.

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
