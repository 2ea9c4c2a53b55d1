//! NumPy arrays: `.npy`, and `.npz` archives of them.
//!
//! The header must be as NumPy writes it, and the data exactly as large as it says. Arrays of objects are pickles, which
//! can run anything: they, and archives that hold one, are refused as [`FormatError::Executable`]. The array of a `.npy`
//! file has no name of its own, and is called `array`; one in an archive is called like its member without `.npy`.
//! Archives are strict.

use std::collections::BTreeMap;

use super::checked;
use super::cursor::Cursor;
use super::inflate::Inflate;
use super::zip::{self, Member};
use crate::error::{Cause, FormatError, Result};
use crate::io::ReadAt;
use crate::tensor::{Dtype, Index, Storage, TensorInfo};

/// Largest header accepted, as in NumPy.
const MAX_HEADER: u64 = 10_000;
const MAGIC: [u8; 6] = *b"\x93NUMPY";

/// The types of the format that are read here.
#[rustfmt::skip]
const DTYPES: [(&str, Dtype); 14] = [
    ("<f2", Dtype::F16), ("<f4", Dtype::F32), ("<f8", Dtype::F64), ("<i2", Dtype::I16), ("<i4", Dtype::I32),
    ("<i8", Dtype::I64), ("|i1", Dtype::I8), ("<u2", Dtype::U16), ("<u4", Dtype::U32), ("<u8", Dtype::U64),
    ("|u1", Dtype::U8), ("|b1", Dtype::BOOL), ("<c8", Dtype::C64), ("<c16", Dtype::C128),
];

/// What the tensor of a lone array is called; in a directory it is called after its file.
pub(super) const ARRAY: &str = "array";

/// Reads the index of a `.npy` file: one tensor called `array`.
pub fn read(source: &dyn ReadAt) -> Result<Index> {
    let tensor = stored(source, ARRAY, 0, source.size())?;
    Index::new(vec![tensor], BTreeMap::new()).map_err(|name| FormatError::Duplicate(name).on(source.name()))
}

/// Reads the index of a `.npz` archive.
pub fn read_archive(source: &dyn ReadAt) -> Result<Index> {
    let fail = |cause: FormatError| cause.on(source.name());
    let mut tensors = Vec::new();
    for member in zip::read(source)? {
        let Some(name) = member.name.strip_suffix(".npy") else {
            return Err(fail(FormatError::Unsupported(format!("member {:?}, which is no array", member.name))));
        };
        tensors.push(match member.is_deflated {
            true => deflated(source, name, &member)?,
            false => stored(source, name, member.span.start, member.span.end)?,
        });
    }
    Index::new(tensors, BTreeMap::new()).map_err(|name| fail(FormatError::Duplicate(name)))
}

/// The array that fills the source from `start` to `end`.
fn stored(source: &dyn ReadAt, name: &str, start: u64, end: u64) -> Result<TensorInfo> {
    let mut cursor = Cursor::new(source, start..end, "an array ends within its header");
    let header = Header::read(source, &mut |out| {
        out.copy_from_slice(cursor.take(out.len())?);
        Ok(())
    })?;
    let data = cursor.position();
    header.tensor(name, data, end).map_err(|cause| cause.on(source.name()))
}

/// The array in a compressed member, of which no more than the header is decompressed.
fn deflated(source: &dyn ReadAt, name: &str, member: &Member) -> Result<TensorInfo> {
    let mut stream = Inflate::new(source, member.span.clone());
    let mut read = 0u64;
    let header = Header::read(source, &mut |out| {
        read += out.len() as u64;
        if read > member.size {
            return Err(FormatError::Truncated("an array ends within its header").on(source.name()));
        }
        stream.fill(out)
    })?;
    let tensor = header.tensor(name, read, member.size).map_err(|cause| cause.on(source.name()))?;
    if !tensor.is_plain() {
        let problem = format!("array {name:?} is compressed and in Fortran order");
        return Err(FormatError::Unsupported(problem).on(source.name()));
    }
    let storage = Storage::Deflated { header: read, crc32: member.crc32 };
    Ok(TensorInfo { span: member.span.clone(), ..tensor }.stored(storage))
}

/// What stands before the data.
#[derive(Debug, Eq, PartialEq)]
struct Header {
    dtype: Dtype,
    is_fortran: bool,
    shape: Vec<u64>,
}

impl Header {
    /// Reads as many bytes as belong to it, by `fill`.
    fn read(source: &dyn ReadAt, fill: &mut dyn FnMut(&mut [u8]) -> Result<()>) -> Result<Self> {
        let fail = |cause: FormatError| cause.on(source.name());
        let mut start = [0; 8];
        fill(&mut start)?;
        let (mut short, mut long) = ([0; 2], [0; 4]);
        let len = match start {
            [magic @ .., 1, 0] if magic == MAGIC => {
                fill(&mut short)?;
                u64::from(u16::from_le_bytes(short))
            }
            [magic @ .., 2 | 3, 0] if magic == MAGIC => {
                fill(&mut long)?;
                u64::from(u32::from_le_bytes(long))
            }
            [magic @ .., major, minor] if magic == MAGIC => {
                return Err(fail(FormatError::Unsupported(format!("version {major}.{minor} of the format"))));
            }
            _ => return Err(fail(FormatError::MalformedHeader("not an array".into()))),
        };
        if len > MAX_HEADER {
            return Err(fail(FormatError::HeaderTooLarge { size: len, limit: MAX_HEADER }));
        }
        let mut text = vec![0; len as usize];
        fill(&mut text)?;
        let text = std::str::from_utf8(&text).map_err(|_| fail(malformed()))?;
        Self::parse(text).map_err(fail)
    }

    /// `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`, spaces and the end of the line.
    fn parse(text: &str) -> Result<Self, FormatError> {
        let rest = text.strip_prefix("{'descr': ").ok_or_else(malformed)?;
        if rest.starts_with(['[', '(']) {
            return Err(match rest.contains('O') {
                true => objects(),
                false => FormatError::Unsupported("an array of records".into()),
            });
        }
        let (descr, rest) = rest.strip_prefix('\'').and_then(|rest| rest.split_once('\'')).ok_or_else(malformed)?;
        let Some((_, dtype)) = DTYPES.iter().find(|(known, _)| *known == descr) else {
            return Err(if descr.contains('O') { objects() } else { unknown(descr) });
        };
        let rest = rest.strip_prefix(", 'fortran_order': ").ok_or_else(malformed)?;
        let (is_fortran, rest) = match (rest.strip_prefix("False"), rest.strip_prefix("True")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(malformed()),
        };
        let rest = rest.strip_prefix(", 'shape': (").ok_or_else(malformed)?;
        let (shape, padding) = rest.split_once("), }").ok_or_else(malformed)?;
        let is_padding = padding.strip_suffix('\n').is_some_and(|spaces| spaces.bytes().all(|byte| byte == b' '));
        let shape = dimensions(shape).filter(|_| is_padding).ok_or_else(malformed)?;
        Ok(Self { dtype: *dtype, is_fortran, shape })
    }

    /// The tensor whose data fill `start..end`.
    fn tensor(self, name: &str, start: u64, end: u64) -> Result<TensorInfo, FormatError> {
        let size = checked::size(name, self.dtype, &self.shape)?;
        let span = checked::span(name, Some(start), size, end)?;
        if span.end != end {
            return Err(FormatError::TrailingBytes(end - span.end));
        }
        let mut storage = Storage::Plain;
        if self.is_fortran {
            let steps = self.shape.iter().scan(1u64, |next, dim| {
                let step = *next;
                *next = step.saturating_mul(*dim); // which only an empty one overflows
                Some(step)
            });
            (storage, _) = checked::strided(name, &self.shape, &steps.collect::<Vec<_>>())?;
        }
        Ok(TensorInfo::new(name, self.dtype, self.shape, span).stored(storage))
    }
}

/// `` of a scalar, `2,` of a vector, `2, 3` of what has more dimensions.
fn dimensions(text: &str) -> Option<Vec<u64>> {
    let text = match text.strip_suffix(',') {
        Some(one) if !one.contains(',') => one,
        None if text.is_empty() => return Some(Vec::new()),
        None if text.contains(',') => text,
        _ => return None,
    };
    let number = |digits: &str| {
        let is_canonical =
            digits == "0" || !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| is_canonical)
    };
    text.split(", ").map(number).collect()
}

fn objects() -> FormatError {
    FormatError::Executable("an array of pickled objects".into())
}

fn unknown(descr: &str) -> FormatError {
    let order = if descr.starts_with('>') { " (written on a big-endian machine)" } else { "" };
    FormatError::Unsupported(format!("an array of type {descr:?}{order}"))
}

fn malformed() -> FormatError {
    FormatError::MalformedHeader("not as NumPy writes it".into())
}

#[cfg(test)]
mod tests {
    use super::super::load::load;
    use super::super::zip::tests::archive;
    use super::*;
    use crate::error::Error;
    use crate::io::SliceAt;

    fn array(header: &str, data: &[u8]) -> Vec<u8> {
        let len = (header.len() as u16).to_le_bytes();
        [&MAGIC[..], &[1, 0], &len, header.as_bytes(), data].concat()
    }

    fn header(descr: &str, is_fortran: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': {is_fortran}, 'shape': ({shape}), }}   \n")
    }

    fn cause(read: Result<Index>) -> FormatError {
        match read {
            Err(Error::Format { cause, .. }) => cause,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn arrays_are_read_in_either_order() {
        let bytes = array(&header("|u1", "True", "2, 3"), &[0, 3, 1, 4, 2, 5]);
        let source = SliceAt::new(&bytes);
        let index = read(&source).unwrap();
        assert_eq!(*load(&source, &index.tensors()[0]).unwrap(), [0, 1, 2, 3, 4, 5]);
        for (shape, size) in [("", 4), ("2,", 8), ("0, 3", 0), ("2, 1", 8)] {
            for is_fortran in ["True", "False"] {
                let bytes = array(&header("<f4", is_fortran, shape), &vec![7; size]);
                let index = read(&SliceAt::new(&bytes)).unwrap();
                assert!(index.tensor("array").unwrap().is_plain(), "{shape}");
            }
        }
    }

    #[test]
    fn what_numpy_does_not_write_is_refused_for_its_cause() {
        use FormatError::*;
        let of = |header: &str, data: usize| cause(read(&SliceAt::new(array(header, &vec![0; data]))));
        let good = header("<f4", "False", "2,");
        assert_eq!(of(&good, 9), TrailingBytes(1));
        assert!(matches!(of(&good, 7), Span { problem: "lies beyond the end of the file", .. }));
        assert_eq!(of(&header("|O", "False", "2,"), 8), objects());
        assert_eq!(of("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (2,), }\n", 8), objects());
        let records = "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }\n";
        assert_eq!(of(records, 8), Unsupported("an array of records".into()));
        for descr in [">f4", "<U3", "|S2", "|V2", "<M8[ns]", "=f4"] {
            assert_eq!(of(&header(descr, "False", "2,"), 8), unknown(descr));
        }
        for bad in [
            good.replace("2,", "2"),
            good.replace("2,", "02,"),
            good.replace("2,", "+2,"),
            good.replace("2,", "-2,"),
            good.replace("2,", "2L,"),
            good.replace("2,", "2,1"),
            good.replace("2,", "1, 2,"),
            good.replace("2,", ","),
            good.replace("False", "false"),
            good.replace(", }", "}"),
            good.replace('\'', "\""),
            good.replace('\n', " "),
            good.replace("   ", " \n "),
            good.replace("'shape'", "'shape': (), 'shape'"),
            String::new(),
        ] {
            assert_eq!(of(&bad, 8), malformed(), "{bad}");
        }
        let huge = header("<f4", "False", "4294967296, 4294967296, 4294967296");
        assert!(matches!(of(&huge, 8), Span { problem: "its size overflows", .. }));
        assert!(matches!(of(&header("<f4", "True", "4294967296, 4294967296, 4294967296, 0"), 0), Span { .. }));
        let version = |major, minor| {
            let mut bytes = array(&good, &[0; 8]);
            bytes[6..8].copy_from_slice(&[major, minor]);
            cause(read(&SliceAt::new(bytes)))
        };
        assert_eq!(version(4, 0), Unsupported("version 4.0 of the format".into()));
        assert!(matches!(version(2, 0), HeaderTooLarge { .. }));
        assert!(matches!(cause(read(&SliceAt::new(b"\x93NUMPY\x01\0\xff\x00{"))), Truncated(_)));
    }

    #[test]
    fn archives_are_read_compressed_or_not() {
        let data: Vec<u8> = (0..200_000u32).map(|i| (i / 7) as u8).collect();
        let file = array(&header("<f4", "False", "50000,"), &data);
        let bytes = archive(&[("a/b.npy", &file, true), ("c.npy", &file, false)]);
        let source = SliceAt::new(&bytes);
        let index = read_archive(&source).unwrap();
        for name in ["a/b", "c"] {
            assert!(*load(&source, index.tensor(name).unwrap()).unwrap() == data[..]);
        }

        let one = |name: &str, file: &[u8], is_deflated| {
            cause(read_archive(&SliceAt::new(archive(&[(name, file, is_deflated)]))))
        };
        for is_deflated in [false, true] {
            assert_eq!(one("a.npy", &[&file[..], &[0]].concat(), is_deflated), FormatError::TrailingBytes(1));
            assert!(matches!(one("a.npy", &file[..file.len() - 1], is_deflated), FormatError::Span { .. }));
            assert!(matches!(one("a.npy", &file[..20], is_deflated), FormatError::Truncated(_)));
            assert!(matches!(one("a.txt", &file, is_deflated), FormatError::Unsupported(_)));
            assert_eq!(one("a.npy", &array(&header("|O", "False", "2,"), &[0; 8]), is_deflated), objects());
        }
        let fortran = array(&header("|u1", "True", "2, 3"), &[0; 6]);
        assert!(matches!(one("a.npy", &fortran, true), FormatError::Unsupported(_)));
    }

    #[test]
    fn every_truncation_and_flip_is_refused_or_reads_within_the_file() {
        let file = array(&header("<f4", "True", "2, 3"), &[7; 24]);
        let plain = array(&header("<f4", "False", "2, 3"), &[7; 24]);
        for whole in [file.clone(), archive(&[("a.npy", &file, false), ("b.npy", &plain, true)])] {
            for end in 0..whole.len() {
                let source = SliceAt::new(&whole[..end]);
                assert!(read(&source).is_err() && read_archive(&source).is_err(), "{end}");
            }
            for i in 0..whole.len() * 8 {
                let mut flipped = whole.clone();
                flipped[i / 8] ^= 1 << (i % 8);
                let source = SliceAt::new(&flipped);
                for tensor in
                    [read(&source), read_archive(&source)].into_iter().flatten().flat_map(|i| i.tensors().to_vec())
                {
                    assert!(tensor.span.end <= flipped.len() as u64);
                    let _ = load(&source, &tensor);
                }
            }
        }
    }
}
