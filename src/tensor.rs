//! The vocabulary of tensors: element types, spans, descriptions. No input or output.

pub mod lanes;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;

/// Element type of a tensor, named as in safetensors 0.8.
#[allow(clippy::exhaustive_enums, missing_docs, non_camel_case_types)]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, serde::Deserialize, serde::Serialize)]
pub enum Dtype {
    BF16,
    BOOL,
    C64,
    F16,
    F32,
    F4,
    F64,
    F6_E2M3,
    F6_E3M2,
    F8_E4M3,
    F8_E4M3FNUZ,
    F8_E5M2,
    F8_E5M2FNUZ,
    F8_E8M0,
    I16,
    I32,
    I64,
    I8,
    U16,
    U32,
    U64,
    U8,
}

impl Dtype {
    /// Size of one element in bits.
    pub fn bits(self) -> u64 {
        use Dtype::*;
        match self {
            F4 => 4,
            F6_E2M3 | F6_E3M2 => 6,
            BOOL | F8_E4M3 | F8_E4M3FNUZ | F8_E5M2 | F8_E5M2FNUZ | F8_E8M0 | I8 | U8 => 8,
            BF16 | F16 | I16 | U16 => 16,
            F32 | I32 | U32 => 32,
            C64 | F64 | I64 | U64 => 64,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A range of bytes in a file.
pub type Span = Range<u64>;

/// One tensor of a file: what it is and where its bytes lie.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TensorInfo {
    /// Name, unique in its file.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<u64>,
    /// Bytes of the elements in the file, row-major, little-endian.
    pub span: Span,
}

impl TensorInfo {
    /// Describes a tensor.
    pub fn new(name: impl Into<String>, dtype: Dtype, shape: Vec<u64>, span: Span) -> Self {
        Self { name: name.into(), dtype, shape, span }
    }

    /// Number of elements. Format readers have checked that the product fits.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |product, dim| product.saturating_mul(*dim))
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.span.end - self.span.start
    }

    /// The tensor as a matrix `[rows, columns]`: the first dimension against all others.
    pub fn matrix(&self) -> (u64, u64) {
        match self.shape.split_first() {
            Some((rows, rest)) => (*rows, rest.iter().fold(1, |product, dim| product.saturating_mul(*dim))),
            None => (1, 1),
        }
    }
}

/// The tensors of one file, in the order of their bytes, and the file's free-form metadata.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Index {
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    metadata: BTreeMap<String, String>,
}

impl Index {
    /// An index of `tensors`, or the name that occurs twice.
    pub fn new(mut tensors: Vec<TensorInfo>, metadata: BTreeMap<String, String>) -> Result<Self, String> {
        tensors.sort_by(|a, b| (a.span.start, a.span.end, &a.name).cmp(&(b.span.start, b.span.end, &b.name)));
        let mut by_name = HashMap::with_capacity(tensors.len());
        for (i, tensor) in tensors.iter().enumerate() {
            if by_name.insert(tensor.name.clone(), i).is_some() {
                return Err(tensor.name.clone());
            }
        }
        Ok(Self { tensors, by_name, metadata })
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).and_then(|i| self.tensors.get(*i))
    }

    /// All tensors, in the order of their bytes in the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Free-form metadata of the file.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}
