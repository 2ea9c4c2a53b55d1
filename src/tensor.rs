//! The vocabulary of tensors: element types, spans, descriptions. No input or output.

pub mod blocks;
pub mod int4;
pub mod lanes;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;

macro_rules! dtypes {
    ($($(#[$doc:meta])* $name:ident: $elements:literal in $bytes:literal,)*) => {
        /// Element type of a tensor, named as in safetensors 0.8, ONNX, and, for quantised blocks, ggml.
        #[allow(missing_docs, non_camel_case_types)]
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[non_exhaustive]
        pub enum Dtype { $($(#[$doc])* $name,)* }

        impl Dtype {
            /// All types.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Elements in the smallest group that fills whole bytes, and the number of those bytes: `(1, 4)` for `F32`,
            /// `(2, 1)` for `I4`, `(256, 144)` for `Q4_K`.
            pub const fn block(self) -> (u64, u64) {
                match self { $(Self::$name => ($elements, $bytes),)* }
            }

            /// The name of the type.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

dtypes! {
    BF16: 1 in 2,
    BOOL: 1 in 1,
    C64: 1 in 8,
    C128: 1 in 16,
    F16: 1 in 2,
    F32: 1 in 4,
    F4: 2 in 1,
    F64: 1 in 8,
    F6_E2M3: 4 in 3,
    F6_E3M2: 4 in 3,
    F8_E4M3: 1 in 1,
    F8_E4M3FNUZ: 1 in 1,
    F8_E5M2: 1 in 1,
    F8_E5M2FNUZ: 1 in 1,
    F8_E8M0: 1 in 1,
    I16: 1 in 2,
    I2: 4 in 1,
    I32: 1 in 4,
    I4: 2 in 1,
    I64: 1 in 8,
    I8: 1 in 1,
    IQ1_M: 256 in 56,
    IQ1_S: 256 in 50,
    IQ2_S: 256 in 82,
    IQ2_XS: 256 in 74,
    IQ2_XXS: 256 in 66,
    IQ3_S: 256 in 110,
    IQ3_XXS: 256 in 98,
    IQ4_NL: 32 in 18,
    IQ4_XS: 256 in 136,
    MXFP4: 32 in 17,
    NVFP4: 64 in 36,
    Q1_0: 128 in 18,
    Q2_K: 256 in 84,
    Q3_K: 256 in 110,
    Q4_0: 32 in 18,
    Q4_1: 32 in 20,
    Q4_K: 256 in 144,
    Q5_0: 32 in 22,
    Q5_1: 32 in 24,
    Q5_K: 256 in 176,
    Q6_K: 256 in 210,
    Q8_0: 32 in 34,
    Q8_1: 32 in 40,
    Q8_K: 256 in 292,
    TQ1_0: 256 in 54,
    TQ2_0: 256 in 66,
    U16: 1 in 2,
    U2: 4 in 1,
    U32: 1 in 4,
    U4: 2 in 1,
    U64: 1 in 8,
    U8: 1 in 1,
}

impl Dtype {
    /// The type of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|dtype| dtype.name() == name)
    }

    /// Bytes that `elements` take, or `None` if they do not fill whole blocks or 64 bits do not hold it.
    pub fn size(self, elements: u64) -> Option<u64> {
        let (block, bytes) = self.block();
        elements.is_multiple_of(block).then_some(elements / block)?.checked_mul(bytes)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A range of bytes in a file.
pub type Span = Range<u64>;

/// How the elements of a tensor lie in the bytes of its span.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Storage {
    /// Row-major, little-endian, and nothing else.
    #[default]
    Plain,
    /// With this many elements from one index to the next of each dimension (PyTorch views, Fortran order).
    Strided(Vec<u64>),
    /// Plain, but the span is one of this other file, a path relative to the directory of this one (ONNX).
    External(String),
    /// A DEFLATE stream of some bytes of header and the plain elements, together of this CRC-32 (compressed npz).
    #[allow(missing_docs)]
    Deflated { header: u64, crc32: u32 },
    /// Each element as a protobuf varint (ONNX).
    Varints,
}

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
    /// Where the file holds it.
    pub span: Span,
    /// How the elements lie there.
    pub storage: Storage,
}

impl TensorInfo {
    /// Describes a tensor whose elements lie row-major and little-endian in `span`.
    pub fn new(name: impl Into<String>, dtype: Dtype, shape: Vec<u64>, span: Span) -> Self {
        Self { name: name.into(), dtype, shape, span, storage: Storage::Plain }
    }

    /// The same tensor, stored in another way.
    pub fn stored(self, storage: Storage) -> Self {
        Self { storage, ..self }
    }

    /// Number of elements. Format readers have checked that the product fits.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |product, dim| product.saturating_mul(*dim))
    }

    /// Size in bytes of the elements, row-major. Format readers have checked that it fits.
    pub fn size(&self) -> u64 {
        self.dtype.size(self.elements()).unwrap_or(u64::MAX)
    }

    /// Whether the span holds the elements themselves, row-major.
    pub fn is_plain(&self) -> bool {
        self.storage == Storage::Plain
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
    notes: Vec<String>,
}

impl Index {
    /// An index of `tensors`, or the name that occurs twice.
    pub fn new(mut tensors: Vec<TensorInfo>, metadata: BTreeMap<String, String>) -> Result<Self, String> {
        tensors.sort_by(|a, b| (a.span.start, a.span.end, &a.name).cmp(&(b.span.start, b.span.end, &b.name)));
        let mut index = Self { tensors, metadata, ..Self::default() };
        index.by_name = HashMap::with_capacity(index.tensors.len());
        for (i, tensor) in index.tensors.iter().enumerate() {
            if index.by_name.insert(tensor.name.clone(), i).is_some() {
                return Err(tensor.name.clone());
            }
        }
        Ok(index)
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

    /// Calls the tensor `from` by another name, which no other one has.
    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        if let Some(i) = self.by_name.remove(from) {
            self.by_name.insert(to.to_owned(), i);
            self.tensors[i].name = to.to_owned();
        }
    }

    /// Keeps only the tensors that `keep` says.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&TensorInfo) -> bool) {
        self.tensors.retain(keep);
        self.by_name = self.tensors.iter().enumerate().map(|(i, tensor)| (tensor.name.clone(), i)).collect();
    }

    /// The same index, with something odd that people should know.
    pub(crate) fn noted(mut self, notes: impl IntoIterator<Item = String>) -> Self {
        self.notes.extend(notes);
        self
    }

    /// What is odd in the file, though not wrong: a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}
