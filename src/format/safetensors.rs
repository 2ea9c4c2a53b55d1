//! The safetensors format, read strictly.
//!
//! Beyond what the reference reader (crate `safetensors` 0.8) checks, this one refuses duplicate tensor names (also
//! when escapes hide them), duplicate metadata keys, unknown fields of a tensor, control characters in names, and
//! anything but `{` at the start and spaces at the end of the header. Layout: `spec/formats.md`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::checked::{self, MAX_RANK};
use crate::error::{Cause, Error, FormatError, Result};
use crate::io::ReadAt;
use crate::json::{self, AtMost, Object, UniqueMap};
use crate::tensor::{Dtype, Index, TensorInfo};

/// Largest header accepted, as in the reference implementation.
pub const MAX_HEADER: u64 = 100_000_000;
const METADATA: &str = "__metadata__";

/// The types of the format.
#[rustfmt::skip]
const DTYPES: [Dtype; 22] = {
    use Dtype::*;
    [BF16, BOOL, C64, F16, F32, F4, F64, F6_E2M3, F6_E3M2, F8_E4M3, F8_E4M3FNUZ, F8_E5M2, F8_E5M2FNUZ, F8_E8M0, I16, I32, I64,
     I8, U16, U32, U64, U8]
};

/// Whether the format has a name for this type.
#[cfg(feature = "watermark")]
pub(crate) fn is_known(dtype: Dtype) -> bool {
    DTYPES.contains(&dtype)
}

/// Reads the index of a safetensors file. Spans are offsets in the file, not in its data section.
pub fn read(source: &dyn ReadAt) -> Result<Index> {
    let fail = |cause: FormatError| cause.on(source.name());
    let size = source.size();
    if size < 8 {
        return Err(fail(FormatError::Truncated("no header length")));
    }
    let mut length = [0; 8];
    source.read_at(0, &mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return Err(fail(FormatError::HeaderTooLarge { size: length, limit: MAX_HEADER }));
    }
    let data = 8 + length;
    if data > size {
        return Err(fail(FormatError::Truncated("the file ends within the header")));
    }
    let header = checked::text(source, 8..data)?;
    let entries = parse_header(&header).map_err(fail)?;
    index(entries, data, size).map_err(fail)
}

/// Whether a file of `size` bytes that starts with `head` can be a safetensors file.
pub(super) fn looks_like(head: &[u8], size: u64) -> bool {
    let Some((length, [b'{', ..])) = head.split_first_chunk() else { return false };
    let length = u64::from_le_bytes(*length);
    (2..=MAX_HEADER).contains(&length) && 8 + length <= size
}

/// A tensor to be written: name, type, shape, and bytes in row-major order, little-endian.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs, missing_docs)]
pub struct TensorData<'a> {
    pub name: &'a str,
    pub dtype: Dtype,
    pub shape: &'a [u64],
    pub bytes: &'a [u8],
}

/// A whole safetensors file in memory. Wide types come first, so that every tensor is aligned to its type.
pub fn to_bytes(tensors: &[TensorData<'_>], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by_key(|tensor| (Reverse(tensor.dtype.block().1), tensor.name));
    let outlines = order.iter().map(|tensor| (tensor.name, tensor.dtype, tensor.shape, tensor.bytes.len() as u64));
    let mut file = header(outlines, metadata)?;
    for tensor in order {
        file.extend_from_slice(tensor.bytes);
    }
    let reread = read(&crate::io::SliceAt::new(&file)); // shapes that do not fit their bytes show here
    reread.map(|_| file).map_err(|error| match error {
        Error::Format { cause, .. } => cause.on("memory"),
        other => other,
    })
}

/// What stands before the bytes of tensors that follow in this order: for each its name, type, shape and size in bytes.
pub(crate) fn header<'a>(
    tensors: impl IntoIterator<Item = (&'a str, Dtype, &'a [u64], u64)>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert(METADATA.into(), serde_json::json!(metadata));
    }
    let mut end = 0u64;
    for (name, dtype, shape, size) in tensors {
        let start = end;
        end = end.saturating_add(size);
        let entry = serde_json::json!({"dtype": dtype.name(), "shape": shape, "data_offsets": [start, end]});
        if header.insert(name.to_owned(), entry).is_some() {
            return Err(FormatError::Duplicate(name.to_owned()).on("memory"));
        }
    }
    let mut text = serde_json::Value::from(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.append(&mut text);
    Ok(file)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: String, // as text: an enum would also be taken from an object
    shape: AtMost<u64, MAX_RANK>,
    data_offsets: AtMost<u64, 2>,
}

#[derive(Default)]
struct RawHeader {
    tensors: BTreeMap<String, RawTensor>,
    metadata: Option<UniqueMap<String>>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<RawHeader, A::Error> {
                let mut header = RawHeader::default();
                while let Some(name) = access.next_key::<String>()? {
                    let is_new = if name == METADATA {
                        header.metadata.replace(access.next_value()?).is_none()
                    } else {
                        let Object(tensor) = access.next_value()?;
                        header.tensors.insert(name.clone(), tensor).is_none()
                    };
                    if !is_new {
                        return Err(de::Error::custom(json::Duplicate(&name)));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

fn parse_header(header: &[u8]) -> Result<RawHeader, FormatError> {
    let malformed = |problem: &str| FormatError::MalformedHeader(problem.to_owned());
    let text = std::str::from_utf8(header).map_err(|_| malformed("not UTF-8"))?;
    let text = text.trim_end_matches(' ');
    if !text.starts_with('{') || !text.ends_with('}') {
        return Err(malformed("not one JSON object padded with spaces"));
    }
    serde_json::from_str(text).map_err(|e| {
        let text = e.to_string();
        match text.strip_prefix("duplicate key \"").and_then(|t| t.rsplit_once('"')) {
            Some((name, _)) => FormatError::Duplicate(name.to_owned()),
            None => FormatError::MalformedHeader(text),
        }
    })
}

fn index(header: RawHeader, data: u64, size: u64) -> Result<Index, FormatError> {
    let tensors = header.tensors.into_iter().map(|(name, raw)| tensor(name, raw, data, size));
    let tensors = tensors.collect::<Result<_, _>>()?;
    let UniqueMap(metadata) = header.metadata.unwrap_or_default();
    let index = Index::new(tensors, metadata).map_err(FormatError::Duplicate)?;
    let mut end = data;
    for tensor in index.tensors() {
        if tensor.span.start != end {
            let problem = if tensor.span.start < end { "overlaps another" } else { "leaves a gap before it" };
            return Err(FormatError::Span { tensor: tensor.name.clone(), problem });
        }
        end = tensor.span.end;
    }
    match size - end {
        0 => Ok(index),
        rest => Err(FormatError::TrailingBytes(rest)),
    }
}

fn tensor(name: String, raw: RawTensor, data: u64, size: u64) -> Result<TensorInfo, FormatError> {
    let fail = |problem| Err(FormatError::Span { tensor: name.clone(), problem });
    let Some(dtype) = Dtype::from_name(&raw.dtype).filter(|dtype| DTYPES.contains(dtype)) else {
        return Err(FormatError::MalformedHeader(format!("tensor {name:?}: unknown type {:?}", raw.dtype)));
    };
    let AtMost(shape) = raw.shape;
    let bytes = checked::size(&name, dtype, &shape)?;
    let [start, end] = raw.data_offsets.0[..] else {
        return fail("it has not two offsets");
    };
    let Some((start, end)) = data.checked_add(start).zip(data.checked_add(end)).filter(|(_, end)| *end <= size) else {
        return fail("lies beyond the end of the file");
    };
    if end.checked_sub(start) != Some(bytes) {
        return fail("its offsets do not fit its shape");
    }
    Ok(TensorInfo::new(name, dtype, shape, start..end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::io::SliceAt;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 7);
        bytes
    }

    fn cause(bytes: &[u8]) -> FormatError {
        match read(&SliceAt::new(bytes)) {
            Err(Error::Format { cause, .. }) => cause,
            other => panic!("{other:?}"),
        }
    }

    const A: &str = r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;

    #[test]
    fn hostile_headers_are_refused_each_for_its_cause() {
        use FormatError::*;
        let whole = file(&format!("{{{A}}}"), 8);
        assert!(read(&SliceAt::new(&whole)).is_ok());
        assert!(read(&SliceAt::new(file(&format!("{{{A}}}   "), 8))).is_ok());

        assert_eq!(cause(&file(&format!("{{{A},{A}}}"), 8)), Duplicate("a".into()));
        assert_eq!(cause(&file(&format!("{{{A},{}}}", A.replace("\"a\"", "\"\\u0061\"")), 8)), Duplicate("a".into()));
        assert_eq!(cause(&whole[..7]), Truncated("no header length"));
        assert_eq!(cause(&whole[..20]), Truncated("the file ends within the header"));
        assert_eq!(cause(&u64::MAX.to_le_bytes()), HeaderTooLarge { size: u64::MAX, limit: MAX_HEADER });
        assert_eq!(cause(&file(&format!("{{{A}}}"), 9)), TrailingBytes(1));
        assert_eq!(cause(&file("{}", 1)), TrailingBytes(1));

        let span = |text: &str, data| match cause(&file(text, data)) {
            Span { problem, .. } => problem,
            other => panic!("{text}: {other:?}"),
        };
        let one = |shape: &str, offsets: &str| {
            format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        assert_eq!(span(&one("[2]", "[0,9]"), 8), "lies beyond the end of the file");
        assert_eq!(span(&one("[2]", "[0,7]"), 8), "its offsets do not fit its shape");
        assert_eq!(span(&one("[2]", "[8,0]"), 8), "its offsets do not fit its shape");
        assert_eq!(span(&one("[2]", "[1,9]"), 9), "leaves a gap before it");
        assert_eq!(span(&one("[4294967296,4294967296]", "[0,8]"), 8), "its size overflows");
        assert_eq!(span(&one("[2]", "[18446744073709551615,8]"), 8), "lies beyond the end of the file");
        assert_eq!(span(&format!("{{{A},{}}}", A.replace("\"a\"", "\"b\"")), 8), "overlaps another");
        assert_eq!(
            span(&format!("{{{}}}", A.replace("\"a\"", "\"a\\u0000\"")), 8),
            "its name is empty or holds control characters"
        );
        assert_eq!(
            span(r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}"#, 1),
            "its size is not a whole number of bytes"
        );

        for text in [
            " {}",
            "{}\n",
            "[]",
            "{",
            &format!("{{{}}}", A.replace("F32", "F33")),
            &format!("{{{}}}", A.replace("[2]", "[-2]")),
            &format!("{{{}}}", A.replace("[2]", "[2.0]")),
            r#"{"a":["F32",[2],[0,8]]}"#,
            r#"{"a":{"dtype":{"F32":null},"shape":[2],"data_offsets":[0,8]}}"#,
            &format!("{{{}}}", A.replace("[2]", &format!("[{}2]", "1,".repeat(64)))),
            &format!("{{{}}}", A.replace("\"dtype\"", "\"x\":1,\"dtype\"")),
            &format!("{{{}}}", A.replace("\"dtype\"", "\"dtype\":\"F32\",\"dtype\"")),
            &format!("{{{A},\"__metadata__\":{{\"k\":\"1\",\"\\u006b\":\"2\"}}}}"),
            &format!("{{{A},\"__metadata__\":{{\"k\":1}}}}"),
            &format!("{{{}}}", A.replace("\"a\"", "\"__metadata__\"")),
            &"{\"a\":".repeat(20_000),
        ] {
            assert!(matches!(cause(&file(text, 8)), MalformedHeader(_) | Duplicate(_)), "{text:.80}");
        }
    }

    #[test]
    fn every_truncation_and_every_flip_is_refused_or_reads_within_the_file() {
        let whole = file(&format!(r#"{{{A},"__metadata__":{{"k":"v"}}}}"#), 8);
        for end in 0..whole.len() {
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

    proptest! {
        #[test]
        fn what_is_written_reads_back_here_and_in_the_reference(
            shapes in proptest::collection::btree_map("[a-zäß\"\\\\/ ]{1,12}", proptest::collection::vec(0u64..5, 0..4), 0..6),
            key in "[a-z]{1,4}",
        ) {
            let widths = [Dtype::F32, Dtype::U8, Dtype::BF16, Dtype::I64];
            let data: Vec<_> = shapes.iter().enumerate().map(|(i, (name, shape))| {
                let dtype = widths[i % widths.len()];
                let bytes = vec![i as u8; dtype.size(shape.iter().product()).unwrap() as usize];
                (name, dtype, shape, bytes)
            }).collect();
            let tensors: Vec<_> = data.iter().map(|(name, dtype, shape, bytes)| TensorData { name, dtype: *dtype, shape, bytes }).collect();
            let metadata = BTreeMap::from([(key, "value".to_owned())]);
            let bytes = to_bytes(&tensors, &metadata).unwrap();
            let index = read(&SliceAt::new(&bytes)).unwrap();
            let reference = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
            prop_assert_eq!(index.tensors().len(), tensors.len());
            prop_assert_eq!(index.metadata(), &metadata);
            for tensor in tensors {
                let own = index.tensor(tensor.name).unwrap();
                prop_assert_eq!(&own.shape, tensor.shape);
                let theirs = reference.tensor(tensor.name).unwrap();
                prop_assert_eq!(theirs.data(), tensor.bytes);
                prop_assert_eq!(theirs.dtype().to_string(), own.dtype.to_string());
                prop_assert_eq!(&bytes[own.span.start as usize..own.span.end as usize], tensor.bytes);
            }
        }
    }
}
