//! GGUF, versions 2 and 3, read strictly.
//!
//! Beyond what `llama.cpp` checks, this reader refuses control characters in names, truth values other than 0 and 1, an
//! alignment over 64 KiB, and bytes after the last tensor. Tensors must lie as it writes them: one after the other, each
//! padded to the alignment. Values of metadata are kept as text, long arrays as what they are. Layout: `spec/formats.md`.

pub mod names;

use std::collections::BTreeMap;

use super::checked;
use super::cursor::Cursor;
use crate::error::{FormatError, Result};
use crate::io::ReadAt;
use crate::tensor::{Dtype, Index, TensorInfo};

/// Longest key or tensor name accepted, in bytes.
const MAX_NAME: u64 = 65_535;
/// Longest text of metadata that is kept, and most of all together.
const MAX_TEXT: u64 = 256 << 10;
const MAX_TEXTS: u64 = 8 << 20;
/// Longest array that is kept.
const MAX_ARRAY: u64 = 16;
/// Longest array of texts or truth values, each of which is looked at. The largest vocabularies have a million pieces.
const MAX_LOOKED_AT: u64 = 4 << 20;
const MAX_RANK: u32 = 4;
const MAX_ALIGNMENT: u64 = 64 << 10;
const DEFAULT_ALIGNMENT: u64 = 32;

/// Keys that say how to read the file, and the type each must have.
const TYPED: [(&str, u32); 4] =
    [("general.alignment", UINT32), ("split.count", UINT16), ("split.no", UINT16), ("split.tensors.count", INT32)];
const UINT16: u32 = 2;
const UINT32: u32 = 4;
const INT32: u32 = 5;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// The least that an entry of metadata and a tensor take in the header.
const MIN_ENTRY: u64 = 8 + 1 + 4 + 1;
const MIN_TENSOR: u64 = 8 + 1 + 4 + 4 + 8;

/// Where a file stands among those that one model was split into.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Split {
    /// Number of this file, from 0.
    pub(super) number: u64,
    pub(super) count: u64,
    /// Tensors in all files together.
    pub(super) tensors: u64,
}

/// Reads the index of a GGUF file. Shapes are outermost first: the reverse of the order in the file.
pub fn read(source: &dyn ReadAt) -> Result<Index> {
    let mut cursor = Cursor::new(source, 0..source.size(), "the file ends within the header");
    let malformed = |problem: &str| FormatError::MalformedHeader(problem.to_owned());
    if cursor.array()? != *b"GGUF" {
        return Err(cursor.fail(FormatError::Unknown));
    }
    match cursor.u32()? {
        2 | 3 => {}
        version if matches!(version.swap_bytes(), 1..=3) => {
            return Err(cursor.fail(FormatError::Unsupported("big-endian GGUF".into())));
        }
        version => return Err(cursor.fail(FormatError::Unsupported(format!("GGUF of version {version}")))),
    }
    let (tensors, entries) = (cursor.u64()?, cursor.u64()?);
    let least = tensors.checked_mul(MIN_TENSOR).zip(entries.checked_mul(MIN_ENTRY)).and_then(|(t, e)| t.checked_add(e));
    if least.is_none_or(|least| least > cursor.remaining()) {
        return Err(cursor.fail(FormatError::Truncated("more entries than the file has room for")));
    }

    let (mut metadata, mut room) = (BTreeMap::new(), MAX_TEXTS);
    for _ in 0..entries {
        let len = cursor.u64()?;
        let key = cursor.text(len, MAX_NAME)?;
        if key.is_empty() || key.chars().any(char::is_control) {
            return Err(cursor.fail(malformed("a key is empty or holds control characters")));
        }
        let kind = cursor.u32()?;
        if TYPED.iter().any(|(typed, wanted)| *typed == key && *wanted != kind) {
            return Err(cursor.fail(FormatError::MalformedHeader(format!("{key} is of type {kind}"))));
        }
        let value = value(&mut cursor, kind, &mut room)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(cursor.fail(FormatError::Duplicate(key)));
        }
    }
    let alignment = match metadata.get("general.alignment") {
        None => DEFAULT_ALIGNMENT,
        Some(text) => text.parse().unwrap_or_default(),
    };
    if !alignment.is_power_of_two() || !(8..=MAX_ALIGNMENT).contains(&alignment) {
        return Err(cursor.fail(malformed("the alignment is not a power of two from 8 to 65536")));
    }

    let described = (0..tensors).map(|_| describe(&mut cursor)).collect::<Result<Vec<_>>>()?;
    let header = cursor.position();
    place(described, metadata, header, alignment, source.size()).map_err(|cause| cursor.fail(cause))
}

/// What the metadata say of the file's place among several, if there are several.
pub(super) fn split(index: &Index) -> Option<Split> {
    let number = |key: &str| index.metadata().get(key).and_then(|text| text.parse().ok());
    let count = number("split.count").filter(|count| *count > 1)?;
    Some(Split { number: number("split.no")?, count, tensors: number("split.tensors.count")? })
}

/// The least size in bytes of an element of an array, if arrays may hold the type.
fn width(kind: u32) -> Option<u64> {
    Some(match kind {
        0 | 1 | BOOL => 1,
        2 | 3 => 2,
        4..=6 => 4,
        STRING | 10..=12 => 8,
        _ => return None,
    })
}

/// One value as text, of at most `room`, which it takes up.
fn value(cursor: &mut Cursor<'_>, kind: u32, room: &mut u64) -> Result<String> {
    match kind {
        STRING => text(cursor, room),
        ARRAY => array(cursor, room),
        kind => number(cursor, kind),
    }
}

fn text(cursor: &mut Cursor<'_>, room: &mut u64) -> Result<String> {
    let len = cursor.u64()?;
    if len > MAX_TEXT.min(*room) {
        cursor.skip(len)?;
        return Ok(format!("{len} bytes of text"));
    }
    *room -= len;
    cursor.text(len, MAX_TEXT)
}

fn array(cursor: &mut Cursor<'_>, room: &mut u64) -> Result<String> {
    let (kind, len) = (cursor.u32()?, cursor.u64()?);
    let Some(width) = width(kind) else {
        return Err(cursor.fail(FormatError::MalformedHeader(format!("array of elements of type {kind}"))));
    };
    let what = if kind == STRING { "texts" } else { "numbers" };
    if len.checked_mul(width).is_none_or(|size| size > cursor.remaining()) {
        return Err(cursor.fail(FormatError::Truncated("the file ends within the header")));
    }
    if len <= MAX_ARRAY {
        let values: Vec<_> = (0..len).map(|_| value(cursor, kind, room)).collect::<Result<_>>()?;
        return Ok(format!("[{}]", values.join(", ")));
    }
    if matches!(kind, STRING | BOOL) {
        if len > MAX_LOOKED_AT {
            return Err(cursor.fail(FormatError::HeaderTooLarge { size: len, limit: MAX_LOOKED_AT }));
        }
        for _ in 0..len {
            if kind == BOOL {
                number(cursor, kind)?;
            } else {
                let len = cursor.u64()?;
                cursor.skip(len)?;
            }
        }
    } else {
        cursor.skip(len * width)?;
    }
    Ok(format!("{len} {what}"))
}

fn number(cursor: &mut Cursor<'_>, kind: u32) -> Result<String> {
    Ok(match kind {
        0 => cursor.u8()?.to_string(),
        1 => i8::from_le_bytes(cursor.array()?).to_string(),
        2 => cursor.u16()?.to_string(),
        3 => i16::from_le_bytes(cursor.array()?).to_string(),
        4 => cursor.u32()?.to_string(),
        5 => i32::from_le_bytes(cursor.array()?).to_string(),
        6 => f32::from_le_bytes(cursor.array()?).to_string(),
        BOOL => match cursor.u8()? {
            0 => "false".into(),
            1 => "true".into(),
            other => return Err(cursor.fail(FormatError::MalformedHeader(format!("truth value {other}")))),
        },
        10 => cursor.u64()?.to_string(),
        11 => i64::from_le_bytes(cursor.array()?).to_string(),
        12 => f64::from_le_bytes(cursor.array()?).to_string(),
        other => return Err(cursor.fail(FormatError::MalformedHeader(format!("value of type {other}")))),
    })
}

/// A tensor as the header describes it: its offset counts from the start of the data.
struct Described {
    name: String,
    dtype: Dtype,
    shape: Vec<u64>,
    offset: u64,
}

fn describe(cursor: &mut Cursor<'_>) -> Result<Described> {
    let len = cursor.u64()?;
    let name = cursor.text(len, MAX_NAME)?;
    checked::name(&name).map_err(|cause| cursor.fail(cause))?;
    let rank = cursor.u32()?;
    if rank > MAX_RANK {
        return Err(cursor.fail(FormatError::Span { tensor: name, problem: "it has too many dimensions" }));
    }
    let mut shape = (0..rank).map(|_| cursor.u64()).collect::<Result<Vec<_>>>()?;
    shape.reverse();
    let code = cursor.u32()?;
    let Some(dtype) = dtype(code) else {
        return Err(cursor.fail(FormatError::MalformedHeader(format!("tensor {name:?}: unknown type {code}"))));
    };
    Ok(Described { name, dtype, shape, offset: cursor.u64()? })
}

/// Gives every tensor its place, and checks that they fill the file.
fn place(
    tensors: Vec<Described>,
    metadata: BTreeMap<String, String>,
    header: u64,
    alignment: u64,
    size: u64,
) -> Result<Index, FormatError> {
    let data = header.checked_next_multiple_of(alignment);
    let (mut end, mut next) = (header, data.unwrap_or(header));
    let mut placed = Vec::with_capacity(tensors.len());
    for Described { name, dtype, shape, offset } in tensors {
        let bytes = checked::size(&name, dtype, &shape)?;
        let fail = |problem| Err(FormatError::Span { tensor: name.clone(), problem });
        if !shape.last().copied().unwrap_or(1).is_multiple_of(dtype.block().0) {
            return fail("its rows are not whole blocks");
        }
        if !offset.is_multiple_of(alignment) {
            return fail("it is not aligned");
        }
        let start = data.and_then(|data| data.checked_add(offset));
        let span = checked::span(&name, start, bytes, size)?;
        if span.start != next {
            return fail(if span.start < next { "overlaps another" } else { "leaves a gap before it" });
        }
        end = span.end;
        next = end.checked_next_multiple_of(alignment).unwrap_or(end);
        placed.push(TensorInfo::new(name, dtype, shape, span));
    }
    let index = Index::new(placed, metadata).map_err(FormatError::Duplicate)?;
    match size.saturating_sub(next) {
        0 => Ok(index),
        _ => Err(FormatError::TrailingBytes(size - end)),
    }
}

/// The type of this number in `ggml.h`.
fn dtype(code: u32) -> Option<Dtype> {
    use Dtype::*;
    Some(match code {
        0 => F32,
        1 => F16,
        2 => Q4_0,
        3 => Q4_1,
        6 => Q5_0,
        7 => Q5_1,
        8 => Q8_0,
        9 => Q8_1,
        10 => Q2_K,
        11 => Q3_K,
        12 => Q4_K,
        13 => Q5_K,
        14 => Q6_K,
        15 => Q8_K,
        16 => IQ2_XXS,
        17 => IQ2_XS,
        18 => IQ3_XXS,
        19 => IQ1_S,
        20 => IQ4_NL,
        21 => IQ3_S,
        22 => IQ2_S,
        23 => IQ4_XS,
        24 => I8,
        25 => I16,
        26 => I32,
        27 => I64,
        28 => F64,
        29 => IQ1_M,
        30 => BF16,
        34 => TQ1_0,
        35 => TQ2_0,
        39 => MXFP4,
        40 => NVFP4,
        41 => Q1_0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::io::SliceAt;

    /// A file in the making.
    #[derive(Clone)]
    struct Builder {
        entries: Vec<Vec<u8>>,
        tensors: Vec<Vec<u8>>,
        data: usize,
    }

    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
    }

    impl Builder {
        fn new(data: usize) -> Self {
            Self { entries: Vec::new(), tensors: Vec::new(), data }
        }

        fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
            self.entries.push([&text(key), &kind.to_le_bytes()[..], value].concat());
            self
        }

        fn tensor(mut self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
            let dims: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
            let rank = (dims.len() as u32 / 8).to_le_bytes();
            self.tensors.push([&text(name), &rank[..], &dims, &kind.to_le_bytes(), &offset.to_le_bytes()].concat());
            self
        }

        fn bytes(&self) -> Vec<u8> {
            let counts = [self.tensors.len() as u64, self.entries.len() as u64];
            let mut bytes =
                [&b"GGUF"[..], &3u32.to_le_bytes(), &counts[0].to_le_bytes(), &counts[1].to_le_bytes()].concat();
            bytes.extend(self.entries.concat());
            bytes.extend(self.tensors.concat());
            bytes.resize(bytes.len().next_multiple_of(32) + self.data, 0);
            bytes
        }
    }

    fn cause(bytes: &[u8]) -> FormatError {
        match read(&SliceAt::new(bytes)) {
            Err(Error::Format { cause, .. }) => cause,
            other => panic!("{other:?}"),
        }
    }

    fn problem(builder: &Builder) -> &'static str {
        match cause(&builder.bytes()) {
            FormatError::Span { problem, .. } => problem,
            other => panic!("{other:?}"),
        }
    }

    fn whole() -> Builder {
        let texts = [&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &text("a"), &text("bc")].concat();
        let numbers = [&4u32.to_le_bytes()[..], &2u64.to_le_bytes(), &[1, 0, 0, 0, 2, 0, 0, 0]].concat();
        Builder::new(96)
            .entry("general.architecture", 8, &text("llama"))
            .entry("tokenizer.ggml.tokens", 9, &texts)
            .entry("sizes", 9, &numbers)
            .entry("flag", 7, &[1])
            .entry("ratio", 6, &0.5f32.to_le_bytes())
            .tensor("a", &[32, 1], 2, 0)
            .tensor("b", &[2, 3], 1, 32)
            .tensor("c", &[1], 0, 64)
    }

    #[test]
    fn a_file_reads_as_it_was_built() {
        let bytes = whole().bytes();
        let index = read(&SliceAt::new(&bytes)).unwrap();
        let data = bytes.len() as u64 - 96;
        let found: Vec<_> = index.tensors().iter().map(|t| (&*t.name, t.dtype, &t.shape[..], t.span.clone())).collect();
        assert_eq!(
            found,
            [
                ("a", Dtype::Q4_0, &[1, 32][..], data..data + 18),
                ("b", Dtype::F16, &[3, 2], data + 32..data + 44),
                ("c", Dtype::F32, &[1], data + 64..data + 68),
            ]
        );
        let metadata: Vec<_> = index.metadata().iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(
            metadata,
            [
                ("flag", "true"),
                ("general.architecture", "llama"),
                ("ratio", "0.5"),
                ("sizes", "[1, 2]"),
                ("tokenizer.ggml.tokens", "[a, bc]"),
            ]
        );
        assert!(read(&SliceAt::new(&bytes[..bytes.len() - 28])).is_ok(), "the last tensor need not be padded");
        assert_eq!(cause(&[&bytes[..], &[0]].concat()), FormatError::TrailingBytes(29));
    }

    #[test]
    fn impossible_tensors_are_refused_each_for_its_cause() {
        let one = |dims: &[u64], kind, offset| problem(&Builder::new(64).tensor("a", dims, kind, offset));
        assert_eq!(one(&[1; 5], 0, 0), "it has too many dimensions");
        assert_eq!(one(&[1 << 32, 1 << 32], 0, 0), "its size overflows");
        assert_eq!(one(&[u64::MAX], 0, 0), "its size overflows");
        assert_eq!(one(&[1 << 62], 24, 0), "lies beyond the end of the file");
        assert_eq!(one(&[17], 0, 0), "lies beyond the end of the file");
        assert_eq!(one(&[16], 0, u64::MAX - 31), "lies beyond the end of the file");
        assert_eq!(one(&[8], 0, 32), "leaves a gap before it");
        assert_eq!(one(&[8], 0, 4), "it is not aligned");
        assert_eq!(one(&[33], 2, 0), "its size is not a whole number of bytes");
        assert_eq!(one(&[16, 2], 2, 0), "its rows are not whole blocks");
        let two = |name, offset| Builder::new(64).tensor("a", &[16], 0, 0).tensor(name, &[1], 0, offset);
        assert_eq!(problem(&two("b", 32)), "overlaps another");
        assert_eq!(problem(&two("b\0", 64)), "its name is empty or holds control characters");
        assert_eq!(problem(&two("", 64)), "its name is empty or holds control characters");
        assert_eq!(
            cause(&Builder::new(96).tensor("a", &[16], 0, 0).tensor("a", &[1], 0, 64).bytes()),
            FormatError::Duplicate("a".into())
        );
        assert!(matches!(cause(&Builder::new(0).tensor("a", &[0], 4, 0).bytes()), FormatError::MalformedHeader(_)));
    }

    #[test]
    fn hostile_headers_are_refused_each_for_its_cause() {
        use FormatError::*;
        let with = |key, kind, value: &[u8]| cause(&Builder::new(0).entry(key, kind, value).bytes());
        assert_eq!(cause(&Builder::new(0).entry("k", 0, &[1]).entry("k", 0, &[2]).bytes()), Duplicate("k".into()));
        for (key, kind, value) in [
            ("", 0, &[1][..]),
            ("a\n", 0, &[1]),
            ("k", 13, &[1; 8]),
            ("k", 7, &[2]),
            ("k", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]),
            ("k", 9, &[9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]), // an array of arrays
            ("general.alignment", 4, &[33, 0, 0, 0]),
            ("general.alignment", 4, &[0, 0, 0, 0]),
            ("general.alignment", 4, &[0, 0, 2, 0]),
            ("general.alignment", 8, &[1, 0, 0, 0, 0, 0, 0, 0, b'x']),
        ] {
            assert!(matches!(with(key, kind, value), MalformedHeader(_)), "{key:?} {kind} {value:?}");
        }
        let huge = [&0u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat();
        assert_eq!(with("k", 9, &huge), Truncated("the file ends within the header"));
        assert_eq!(
            with("k", 9, &[&8u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat()),
            Truncated("the file ends within the header")
        );
        assert_eq!(with("k", 8, &u64::MAX.to_le_bytes()), Truncated("the file ends within the header"));
        let mut bytes = whole().bytes();
        for (place, count) in [(8, u64::MAX), (16, u64::MAX), (8, 1 << 40), (16, 1 << 20)] {
            let mut bytes = bytes.clone();
            bytes[place..place + 8].copy_from_slice(&count.to_le_bytes());
            assert_eq!(cause(&bytes), Truncated("more entries than the file has room for"));
        }
        for (version, word) in [([1, 0, 0, 0], "version 1"), ([4, 0, 0, 0], "version 4"), ([0, 0, 0, 3], "big-endian")]
        {
            bytes[4..8].copy_from_slice(&version);
            assert!(matches!(cause(&bytes), Unsupported(text) if text.contains(word)), "{word}");
        }
    }

    #[test]
    fn every_truncation_and_every_flip_is_refused_or_reads_within_the_file() {
        let whole = whole().bytes();
        for end in 0..whole.len() - 28 {
            assert!(read(&SliceAt::new(&whole[..end])).is_err(), "{end}");
        }
        for i in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[i / 8] ^= 1 << (i % 8);
            if let Ok(index) = read(&SliceAt::new(&flipped)) {
                assert!(index.tensors().iter().all(|t| t.span.end <= flipped.len() as u64));
            }
        }
    }
}
