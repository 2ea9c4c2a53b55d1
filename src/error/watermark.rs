//! Causes of failure of watermarks.

/// Why a model cannot carry or show a watermark.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(clippy::exhaustive_enums)]
pub enum WatermarkError {
    /// The weights are in a zip archive, whose checksums a mark would break.
    #[error("weights in the zip archive {0:?} cannot be marked in place: convert the model to safetensors first")]
    Archive(String),
    /// Words that name no attack.
    #[error("no attack {text:?}: there are {known}")]
    #[allow(missing_docs)]
    Attack { text: String, known: &'static str },
    /// The same tensor name stands in two files of the model.
    #[error("tensor {0:?} stands in two files")]
    AmbiguousTensor(String),
    /// A block is not one of the original that the claim commits to.
    #[error("{0} is not a block of the original that was claimed")]
    BlockNotClaimed(String),
    /// The blocks of an opening are not those that the judge's value draws.
    #[error("the opening is of {opened:?}, not of the blocks that {expected:?} draws")]
    #[allow(missing_docs)]
    Draw { opened: String, expected: String },
    /// An opening of blocks is asked for, or given, in a number that makes no sense.
    #[error("{asked} blocks to be opened, of {there}: at least 1, at most 1024")]
    #[allow(missing_docs)]
    DrawCount { asked: usize, there: usize },
    /// An opening belongs to another claim.
    #[error("the opening belongs to another claim")]
    ForeignOpening,
    /// A copy is labelled with nothing, with more than 255 bytes, or with what would not survive a list of labels.
    #[error("label {0:?} is empty, too long, or has blanks around it or control characters in it")]
    Label(String),
    /// A claim is not what its format describes.
    #[error("malformed claim: {0}")]
    MalformedClaim(String),
    /// An opening is not what its format describes.
    #[error("malformed opening: {0}")]
    MalformedOpening(String),
    /// No tensor is fit to carry a mark.
    #[error(
        "no tensor can carry a mark: it takes matrices of at least 4096 weights, of floating point or codes with a step"
    )]
    NoCarrier,
    /// A weight is infinite, not a number, or beyond 2^128.
    #[error("tensor {0:?} holds weights that are not finite, or beyond 2^128")]
    NotFinite(String),
    /// A claim was not made with this owner key.
    #[error("the claim was not made with this owner key")]
    NotTheOwner,
    /// A model is not the original that a claim commits to.
    #[error("not the original that was claimed")]
    NotTheOriginal,
    /// Something needs the whole original, and only blocks of it were opened.
    #[error("only blocks of the original were opened: whose mark is in whose original takes both originals whole")]
    OnlyBlocks,
    /// A block is of a type that safetensors, in which blocks are opened, does not know.
    #[error("blocks of {0:?} cannot be opened alone, as safetensors has no such type: open the mark whole")]
    OnlyWhole(String),
    /// A secret is not one that the claim commits to.
    #[error("the secret of {0} is not the one that was claimed")]
    SecretNotClaimed(String),
    /// The strength is outside of the range that makes sense.
    #[error("strength {0} is outside of 0.00001 to 0.1")]
    Strength(f64),
}

impl WatermarkError {
    /// The cause as a stable word for machines.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Archive(_) => "archive",
            Self::Attack { .. } => "attack",
            Self::AmbiguousTensor(_) => "ambiguous-tensor",
            Self::BlockNotClaimed(_) => "block-not-claimed",
            Self::Draw { .. } => "draw",
            Self::DrawCount { .. } => "draw-count",
            Self::ForeignOpening => "foreign-opening",
            Self::Label(_) => "label",
            Self::MalformedClaim(_) => "malformed-claim",
            Self::MalformedOpening(_) => "malformed-opening",
            Self::NoCarrier => "no-carrier",
            Self::NotFinite(_) => "not-finite",
            Self::NotTheOwner => "not-the-owner",
            Self::NotTheOriginal => "not-the-original",
            Self::OnlyBlocks => "only-blocks",
            Self::OnlyWhole(_) => "only-whole",
            Self::SecretNotClaimed(_) => "secret-not-claimed",
            Self::Strength(_) => "strength",
        }
    }

    /// Whether a claim was refused, rather than not understood.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::BlockNotClaimed(_)
                | Self::Draw { .. }
                | Self::ForeignOpening
                | Self::NotTheOriginal
                | Self::NotTheOwner
                | Self::SecretNotClaimed(_)
        )
    }
}
