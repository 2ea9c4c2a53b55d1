//! One `TensorProto`: where its elements lie, in whichever of the many ways they may.
//!
//! Elements lie in `raw_data`, in the one typed field for their type, or in another file. Any two of these at once, a
//! typed field of another type, and a number of elements other than the shape's are refused. A typed field must be one
//! run, as every writer makes it: packed, or a single element. Not read are segments, elements narrower than a byte that
//! leave one half empty, and those in a typed field.
//!
//! Of `external_data`, the keys `location`, `offset` and `length` count; others (`checksum`, which readers do not check,
//! and what may come) are skipped. The location is a canonical relative path, the numbers are plain decimal digits, and
//! the length, if given, is that of the shape. That the file is there and long enough is for whoever opens its directory.

use super::wire::{Kind, Message, Schema};
use crate::error::{FormatError, Result};
use crate::format::checked::{self, MAX_RANK};
use crate::io::tree::is_canonical;
use crate::tensor::{Dtype, Span, Storage, TensorInfo};

#[rustfmt::skip]
pub(super) const TENSOR: Schema = Schema("TensorProto", &[
    (1, "dims", Kind::Ints), (2, "data_type", Kind::Int), (3, "segment", Kind::Bytes), (4, "float_data", Kind::Floats),
    (5, "int32_data", Kind::Ints), (6, "string_data", Kind::Many), (7, "int64_data", Kind::Ints),
    (8, "name", Kind::Bytes), (9, "raw_data", Kind::Bytes), (10, "double_data", Kind::Doubles),
    (11, "uint64_data", Kind::Ints), (12, "doc_string", Kind::Bytes), (13, "external_data", Kind::Many),
    (14, "data_location", Kind::Int), (16, "metadata_props", Kind::Many),
]);

pub(super) const ENTRY: Schema =
    Schema("StringStringEntryProto", &[(1, "key", Kind::Bytes), (2, "value", Kind::Bytes)]);

const STRING: u64 = 8;
/// Most bytes of varints, which have to be read to be counted.
const MAX_VARINTS: u64 = 4 << 20;

/// The data types by number: the element type, and the field that holds elements unless `raw_data` does.
const TYPES: [(u64, Dtype, &str); 27] = [
    (1, Dtype::F32, "float_data"),
    (2, Dtype::U8, "int32_data"),
    (3, Dtype::I8, "int32_data"),
    (4, Dtype::U16, "int32_data"),
    (5, Dtype::I16, "int32_data"),
    (6, Dtype::I32, "int32_data"),
    (7, Dtype::I64, "int64_data"),
    (9, Dtype::BOOL, "int32_data"),
    (10, Dtype::F16, "int32_data"),
    (11, Dtype::F64, "double_data"),
    (12, Dtype::U32, "uint64_data"),
    (13, Dtype::U64, "uint64_data"),
    (14, Dtype::C64, "float_data"),
    (15, Dtype::C128, "double_data"),
    (16, Dtype::BF16, "int32_data"),
    (17, Dtype::F8_E4M3, "int32_data"),
    (18, Dtype::F8_E4M3FNUZ, "int32_data"),
    (19, Dtype::F8_E5M2, "int32_data"),
    (20, Dtype::F8_E5M2FNUZ, "int32_data"),
    (21, Dtype::U4, "int32_data"),
    (22, Dtype::I4, "int32_data"),
    (23, Dtype::F4, "int32_data"),
    (24, Dtype::F8_E8M0, "int32_data"),
    (25, Dtype::U2, "int32_data"),
    (26, Dtype::I2, "int32_data"),
    (27, Dtype::F6_E2M3, "int32_data"),
    (28, Dtype::F6_E3M2, "int32_data"),
];

/// The elements inside of the message.
struct Inside {
    field: &'static str,
    span: Span,
    count: u64, // of varints
}

/// What a message says, before it is known to make sense.
#[derive(Default)]
struct Proto {
    name: String,
    dims: Vec<u64>,
    data_type: u64,
    inside: Option<Inside>,
    external: Vec<(String, String)>, // the keys that matter, once each
    has_external: bool,
    is_external: bool,
}

/// Reads a tensor, or `None` if it is one of strings; `name` says what to call one that calls itself so.
pub(super) fn read(message: &mut Message<'_, '_>, name: impl FnOnce(String) -> String) -> Result<Option<TensorInfo>> {
    let mut proto = Proto::default();
    while let Some(field) = message.next()? {
        match field.name {
            "name" => proto.name = message.text(field)?,
            "dims" => message.ints(field, &mut proto.dims, MAX_RANK)?,
            "data_type" => proto.data_type = field.int,
            "data_location" => match field.int {
                0 | 1 => proto.is_external = field.int == 1,
                _ => return Err(message.malformed("its data_location is unknown")),
            },
            "segment" => return Err(message.fail(FormatError::Unsupported("tensors in segments".into()))),
            "external_data" => {
                proto.has_external = true;
                let (key, value) = entry(message.enter(field, &ENTRY))?;
                if matches!(&*key, "location" | "offset" | "length") {
                    if proto.external.iter().any(|(known, _)| *known == key) {
                        return Err(message.malformed(format_args!("external_data has {key} twice")));
                    }
                    proto.external.push((key, value));
                }
            }
            "float_data" | "int32_data" | "int64_data" | "double_data" | "uint64_data" | "raw_data" | "string_data" => {
                let is_varints = field.name.contains("int");
                if is_varints && field.span.end - field.span.start > MAX_VARINTS {
                    let problem = format!("{} of more than 4 MiB: write the model anew with raw_data", field.name);
                    return Err(message.fail(FormatError::Unsupported(problem)));
                }
                let count = if is_varints { message.count(&field)? } else { 0 };
                match &proto.inside {
                    None => proto.inside = Some(Inside { field: field.name, span: field.span, count }),
                    Some(inside) if inside.field != field.name => {
                        let problem = format_args!("it has both {} and {}", inside.field, field.name);
                        return Err(message.malformed(problem));
                    }
                    Some(_) if field.name == "string_data" => {}
                    Some(_) => {
                        let problem = format!("{} in several pieces: write the model anew with raw_data", field.name);
                        return Err(message.fail(FormatError::Unsupported(problem)));
                    }
                }
            }
            _ => {}
        }
    }
    let is_apart = proto.has_external == proto.is_external && !(proto.is_external && proto.inside.is_some());
    if !is_apart {
        return Err(message.malformed("its data is neither plainly inside nor plainly in another file"));
    }
    if proto.data_type == STRING {
        return match &proto.inside {
            Some(Inside { field: "string_data", .. }) => Ok(None),
            None if !proto.is_external => Ok(None),
            _ => Err(message.malformed("strings are only in string_data")),
        };
    }
    proto.name = name(proto.name);
    proto.tensor(message).map(Some)
}

/// The key and the value of an entry.
pub(super) fn entry(mut message: Message<'_, '_>) -> Result<(String, String)> {
    let (mut key, mut value) = (String::new(), String::new());
    while let Some(field) = message.next()? {
        match field.name {
            "key" => key = message.text(field)?,
            "value" => value = message.text(field)?,
            _ => {}
        }
    }
    Ok((key, value))
}

impl Proto {
    fn tensor(self, message: &Message<'_, '_>) -> Result<TensorInfo> {
        let row = TYPES.iter().find(|(number, ..)| *number == self.data_type);
        let Some((_, dtype, typed)) = row.copied() else {
            let problem = format!("tensor {:?} of data type {}", self.name, self.data_type);
            return Err(message.fail(FormatError::Unsupported(problem)));
        };
        if let Some(Inside { field, .. }) = self.inside
            && field != typed
            && field != "raw_data"
        {
            return Err(message.malformed(format_args!("data type {} in {field}", self.data_type)));
        }
        let fail = |problem| Err(message.fail(FormatError::Span { tensor: self.name.clone(), problem }));
        if self.dims.iter().any(|dim| i64::try_from(*dim).is_err()) {
            return fail("it has a negative dimension");
        }
        let elements = self.dims.iter().try_fold(1u64, |product, dim| product.checked_mul(*dim));
        if elements.is_some_and(|elements| !elements.is_multiple_of(dtype.block().0)) {
            let problem = format!("tensor {:?}: a number of {dtype} that leaves a byte half empty", self.name);
            return Err(message.fail(FormatError::Unsupported(problem)));
        }
        let size = checked::size(&self.name, dtype, &self.dims).map_err(|cause| message.fail(cause))?;
        let (span, storage) = match &self.inside {
            None if self.is_external => self.outside(size).map_err(|cause| message.fail(cause))?,
            None if size > 0 => return fail("it has no data"),
            None => (message.end()..message.end(), Storage::Plain),
            Some(Inside { field: "raw_data" | "float_data" | "double_data", span, .. }) => {
                if span.end - span.start != size {
                    return fail("its data is not of the size of its shape");
                }
                (span.clone(), Storage::Plain)
            }
            Some(Inside { count, span, .. }) => {
                if dtype.block().0 > 1 {
                    let problem = format!("tensor {:?}: {dtype} in int32_data", self.name);
                    return Err(message.fail(FormatError::Unsupported(problem)));
                }
                if Some(*count) != elements {
                    return fail("its data is not of the size of its shape");
                }
                (span.clone(), Storage::Varints)
            }
        };
        Ok(TensorInfo::new(self.name, dtype, self.dims, span).stored(storage))
    }

    /// The place of `size` bytes in another file.
    fn outside(&self, size: u64) -> Result<(Span, Storage), FormatError> {
        let get = |key: &str| self.external.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
        let path = get("location").unwrap_or_default().to_owned();
        let fail = |problem| FormatError::External { tensor: self.name.clone(), path: path.clone(), problem };
        // onnxruntime takes a path with stars for a tag: the offset is an address in memory then
        if !is_canonical(&path) || path.chars().any(|c| c.is_control() || c == '*') {
            return Err(fail("is not named by a plain relative path"));
        }
        let number = |key| match get(key) {
            None => Ok(None),
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map(Some).map_err(|_| fail("has an offset or length that is no number of 64 bits"))
            }
            Some(_) => Err(fail("has an offset or length that is no number of 64 bits")),
        };
        let start = number("offset")?.unwrap_or(0);
        if number("length")?.unwrap_or(size) != size {
            return Err(fail("is not of the size of its shape"));
        }
        let end = start.checked_add(size).ok_or_else(|| fail("ends beyond 64 bits"))?;
        Ok((start..end, Storage::External(path)))
    }
}

/// Holds tensors of other files to this: two that share bytes there share all of them, as the same type.
pub(in crate::format) fn check_shared(tensors: &[TensorInfo]) -> Result<(), FormatError> {
    let outside = tensors.iter().filter_map(|tensor| match &tensor.storage {
        Storage::External(path) if tensor.span.start < tensor.span.end => Some((path, tensor)),
        _ => None,
    });
    let mut outside: Vec<_> = outside.collect();
    outside.sort_by_key(|(path, tensor)| (*path, tensor.span.start, tensor.span.end));
    for (&(path, one), &(other, two)) in outside.iter().zip(outside.iter().skip(1)) {
        let is_shared = one.span == two.span && one.dtype == two.dtype;
        if path == other && two.span.start < one.span.end && !is_shared {
            let (tensor, path) = (two.name.clone(), path.clone());
            return Err(FormatError::External { tensor, path, problem: "overlaps that of another tensor" });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::format::load;
    use crate::format::onnx::tests::{cause, index, model};
    use crate::format::onnx::wire::tests::{bytes, int, number};
    use crate::io::SliceAt;

    /// A model of one tensor `w`.
    fn file(data_type: u64, dims: &[u64], data: impl AsRef<[u8]>) -> Vec<u8> {
        let dims: Vec<u8> = dims.iter().flat_map(|dim| int(1, *dim)).collect();
        model(bytes(5, [&dims, &int(2, data_type), data.as_ref(), &bytes(8, "w")].concat()))
    }

    fn packed(field: u64, values: &[i64]) -> Vec<u8> {
        bytes(field, values.iter().flat_map(|value| number(*value as u64)).collect::<Vec<_>>())
    }

    fn outside(entries: &[(&str, &str)]) -> Vec<u8> {
        let entry = |key: &str, value: &str| bytes(13, [bytes(1, key), bytes(2, value)].concat());
        entries.iter().flat_map(|(key, value)| entry(key, value)).chain(int(14, 1)).collect()
    }

    #[track_caller]
    fn malformed(file: &[u8]) -> String {
        match cause(file) {
            FormatError::MalformedHeader(problem) => problem,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn unsupported(file: &[u8]) -> String {
        match cause(file) {
            FormatError::Unsupported(problem) => problem,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn span(file: &[u8]) -> &'static str {
        match cause(file) {
            FormatError::Span { problem, .. } => problem,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn varints_become_elements_if_they_are_in_range() {
        let elements = |data_type, field, values: &[i64]| {
            let file = file(data_type, &[values.len() as u64], packed(field, values));
            let index = index(&file);
            let tensor = &index.tensors()[0];
            assert_eq!(tensor.storage, Storage::Varints);
            load(&SliceAt::new(&file), tensor).map(|bytes| bytes.to_vec())
        };
        assert_eq!(elements(3, 5, &[-128, 127, -1]).unwrap(), [0x80, 0x7f, 0xff]);
        assert_eq!(elements(6, 5, &[i64::from(i32::MIN), 1]).unwrap(), [0, 0, 0, 0x80, 1, 0, 0, 0]);
        assert_eq!(elements(7, 7, &[-2]).unwrap(), (-2i64).to_le_bytes());
        assert_eq!(elements(13, 11, &[-1]).unwrap(), [0xff; 8]);
        assert_eq!(elements(16, 5, &[0xffff, 0]).unwrap(), [0xff, 0xff, 0, 0]);
        for (data_type, field, value) in [
            (2, 5, 256),
            (2, 5, -1),
            (3, 5, 128),
            (4, 5, -1),
            (5, 5, 1 << 15),
            (6, 5, 1 << 31),
            (6, 5, i64::from(i32::MIN) - 1),
            (9, 5, 2),
            (10, 5, 1 << 16),
            (12, 11, 1 << 32),
            (17, 5, 256),
        ] {
            let problem = "an element is out of the range of its type";
            let refused = elements(data_type, field, &[value]);
            let is_refused = matches!(refused, Err(Error::Format { cause: FormatError::Span { problem: p, .. }, .. }) if p == problem);
            assert!(is_refused, "{data_type} {value}");
        }
    }

    #[test]
    fn elements_lie_in_one_place_of_the_right_size() {
        let floats = file(1, &[2], bytes(4, [0, 0, 128, 63, 0, 0, 0, 64]));
        let lone = file(1, &[], [vec![4 << 3 | 5], vec![1, 2, 3, 4]].concat());
        let packed_dims = model(bytes(5, [packed(1, &[2, 3]), int(2, 2), bytes(8, "w"), bytes(9, [7; 6])].concat()));
        for (file, bytes) in
            [(floats, &[0, 0, 128, 63, 0, 0, 0, 64][..]), (lone, &[1, 2, 3, 4]), (packed_dims, &[7; 6])]
        {
            let index = index(&file);
            assert_eq!(*load(&SliceAt::new(&file), &index.tensors()[0]).unwrap(), *bytes);
            assert!(index.tensors()[0].is_plain());
        }
        assert!(index(&file(1, &[0], "")).tensors()[0].span.is_empty());

        let wrong = "its data is not of the size of its shape";
        assert_eq!(span(&file(1, &[2], bytes(9, [0; 7]))), wrong);
        assert_eq!(span(&file(1, &[2], bytes(9, [0; 9]))), wrong);
        assert_eq!(span(&file(1, &[2], bytes(4, [0; 4]))), wrong);
        assert_eq!(span(&file(6, &[2], packed(5, &[1]))), wrong);
        assert_eq!(span(&file(6, &[2], packed(5, &[1, 2, 3]))), wrong);
        assert_eq!(span(&file(1, &[2], "")), "it has no data");
        assert_eq!(malformed(&file(6, &[1], bytes(5, [0x80]))), "TensorProto: int32_data ends within a varint");
        let both = [bytes(4, [0; 4]), bytes(9, [0; 4])].concat();
        assert_eq!(malformed(&file(1, &[1], both)), "TensorProto: it has both float_data and raw_data");
        assert_eq!(malformed(&file(1, &[1], bytes(9, [0; 4]).repeat(2))), "TensorProto: raw_data occurs twice");
        for (data_type, field) in [(1, 5), (1, 10), (1, 6), (6, 7), (7, 5), (7, 11), (10, 4), (12, 7), (11, 4)] {
            assert!(malformed(&file(data_type, &[0], bytes(field, ""))).starts_with("TensorProto: data type "));
        }
        assert_eq!(malformed(&file(8, &[0], bytes(9, ""))), "TensorProto: strings are only in string_data");
        let pieces = "int32_data in several pieces: write the model anew with raw_data";
        assert_eq!(unsupported(&file(6, &[2], int(5, 1).repeat(2))), pieces);

        for data_type in [0, 29, u64::MAX, (1 << 32) + 1] {
            assert_eq!(unsupported(&file(data_type, &[], "")), format!("tensor \"w\" of data type {data_type}"));
        }
        assert_eq!(unsupported(&file(22, &[2], packed(5, &[1]))), "tensor \"w\": I4 in int32_data");
        let half = "tensor \"w\": a number of I4 that leaves a byte half empty";
        assert_eq!(unsupported(&file(22, &[3], bytes(9, [0; 2]))), half);
        assert_eq!(unsupported(&file(1, &[1], bytes(3, ""))), "tensors in segments");
    }

    #[test]
    fn shapes_and_names_are_checked() {
        assert_eq!(span(&file(1, &[1 << 63], "")), "it has a negative dimension");
        assert_eq!(span(&file(1, &[u64::MAX, 0], "")), "it has a negative dimension");
        assert_eq!(span(&file(1, &[1 << 62, 4], "")), "its size overflows");
        assert_eq!(span(&file(1, &[1 << 62], "")), "its size overflows");
        assert_eq!(span(&file(1, &[1; 65], "")), "it has too many dimensions");
        assert_eq!(span(&file(1, &vec![1; 1_000_000], "")), "it has too many dimensions");
        let cut = model(bytes(5, [bytes(1, [2, 0x80]), int(2, 1), bytes(8, "w")].concat()));
        assert_eq!(malformed(&cut), "TensorProto: dims ends within a varint");
        let named = |name: &[u8]| model(bytes(5, [int(2, 1), bytes(8, name), bytes(9, [0; 4])].concat()));
        for name in ["", "a\0", "a\n"] {
            assert_eq!(span(&named(name.as_bytes())), "its name is empty or holds control characters");
        }
        assert_eq!(malformed(&named(&[0xff])), "text is not UTF-8");
        assert_eq!(malformed(&named(&[0xed, 0xa0, 0x80])), "text is not UTF-8");
    }

    #[test]
    fn data_in_other_files_has_a_plain_path_and_fits() {
        let whole =
            outside(&[("location", "a/b.bin"), ("offset", "16"), ("length", "8"), ("checksum", "?"), ("x", "")]);
        let found = index(&file(1, &[2], whole));
        assert_eq!(found.tensors()[0].span, 16..24);
        assert_eq!(found.tensors()[0].storage, Storage::External("a/b.bin".into()));
        assert_eq!(index(&file(1, &[2], outside(&[("location", "b")]))).tensors()[0].span, 0..8);

        let problem = |entries: &[(&str, &str)]| match cause(&file(1, &[2], outside(entries))) {
            FormatError::External { problem, .. } => problem,
            other => panic!("{other:?}"),
        };
        for path in ["", "/etc/passwd", "../b", "a/../b", "./b", "a//b", "a/", "a\\b", "b\0.bin", "b\n", "C:\\b"] {
            assert_eq!(problem(&[("location", path)]), "is not named by a plain relative path", "{path:?}");
        }
        assert_eq!(problem(&[("x", "y")]), "is not named by a plain relative path");
        for number in ["", "+1", "-1", " 1", "1.0", "0x10", "18446744073709551616", "٣"] {
            for key in ["offset", "length"] {
                let problem = problem(&[("location", "b"), (key, number)]);
                assert_eq!(problem, "has an offset or length that is no number of 64 bits", "{number}");
            }
        }
        assert_eq!(problem(&[("location", "b"), ("length", "9")]), "is not of the size of its shape");
        assert_eq!(problem(&[("location", "b"), ("offset", "18446744073709551609")]), "ends beyond 64 bits");
        let twice = outside(&[("location", "b"), ("location", "c")]);
        assert_eq!(malformed(&file(1, &[2], twice)), "TensorProto: external_data has location twice");

        let unclear = "TensorProto: its data is neither plainly inside nor plainly in another file";
        let there = outside(&[("location", "b")]);
        assert_eq!(malformed(&file(1, &[2], [&there[..], &bytes(9, [0; 8])].concat())), unclear);
        assert_eq!(malformed(&file(1, &[2], [&there[..there.len() - 2], &bytes(9, [0; 8])].concat())), unclear);
        assert_eq!(malformed(&file(1, &[2], int(14, 1))), unclear);
        assert_eq!(malformed(&file(1, &[2], int(14, 2))), "TensorProto: its data_location is unknown");
        assert_eq!(malformed(&file(8, &[2], there)), "TensorProto: strings are only in string_data");
    }

    #[test]
    fn data_in_other_files_is_shared_whole_or_not_at_all() {
        let both = |one: (u64, &str, &str), two: (u64, &str, &str)| {
            let tensor = |name: &str, (data_type, path, offset): (u64, &str, &str)| {
                let place = outside(&[("location", path), ("offset", offset)]);
                bytes(5, [int(1, 2), int(2, data_type), bytes(8, name), place].concat())
            };
            crate::format::onnx::read(&SliceAt::new(model([tensor("a", one), tensor("b", two)].concat())))
        };
        assert!(both((1, "f", "0"), (1, "f", "0")).is_ok());
        assert!(both((1, "f", "0"), (1, "f", "8")).is_ok());
        assert!(both((1, "f", "0"), (1, "g", "4")).is_ok());
        for two in [(1, "f", "4"), (6, "f", "0"), (7, "f", "0"), (2, "f", "7")] {
            assert!(matches!(both((1, "f", "0"), two), Err(Error::Format { cause: FormatError::External { .. }, .. })));
        }
    }
}
