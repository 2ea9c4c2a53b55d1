//! PyTorch checkpoints: zip archives of a pickle and the storages it names, as `torch.save` writes them since 1.6, and
//! what it wrote before: pickles and storages one after the other.
//!
//! Nothing is executed: the pickle must be provably plain data. Tensors are called by the keys of the
//! dicts and the positions in the lists and tuples they lie in, joined by dots; one that lies in nothing is called
//! `tensor`. Short texts, numbers and truth values become metadata under such names.
//!
//! Beyond what `torch.load(weights_only=True)` checks: the archive is strict, all of it is known, storages
//! have exactly the size that the pickle says and one type each, tensors lie within them, and no element of a tensor
//! lies upon another. Programs (TorchScript) and bare pickles are refused as what they are.

mod legacy;

use std::collections::{BTreeMap, BTreeSet, HashMap};

pub(super) use legacy::begins_tar;

use super::checked;
use super::pickle::{self, Pickle, Value};
use super::zip::{self, Member};
use crate::error::{Cause, FormatError, Result};
use crate::io::{ReadAt, ReadAtExt};
use crate::tensor::{Dtype, Index, Span, TensorInfo};

/// Largest pickle accepted.
const MAX_PICKLE: u64 = 64 << 20;
/// As much of it as is read at first.
const FIRST_LOOK: u64 = 256 << 10;
/// Largest member that only says something of the archive.
const MAX_WORD: u64 = 64;
/// Most values kept as metadata, and the longest of them in bytes.
const MAX_METADATA: usize = 1024;
const MAX_TEXT: usize = 1024;

/// Reads the index of a PyTorch checkpoint.
pub fn read(source: &dyn ReadAt) -> Result<Index> {
    let fail = |cause: FormatError| cause.on(source.name());
    let mut head = [0; 512];
    let head = &mut head[..source.size().min(512) as usize];
    source.read_at(0, head)?;
    if legacy::begins(head) {
        return legacy::read(source);
    }
    if legacy::begins_tar(head) {
        let hint = "a PyTorch file of the kind before 0.1.2: load it where that is safe, and save it again";
        return Err(fail(FormatError::Unsupported(hint.into())));
    }
    if let [0x80, 2..=5, ..] = head {
        return Err(fail(FormatError::Executable("a bare pickle, which can run anything when it is loaded".into())));
    }
    let members = zip::read(source)?;
    let archive = Archive::sort(&members).map_err(fail)?;
    for member in &archive.words {
        let is_fine = if member.name.ends_with("/byteorder") { is_little } else { is_number };
        if member.size > MAX_WORD {
            return Err(fail(FormatError::Archive(format!("member {:?} is too large", member.name))));
        }
        is_fine(&source.read_span(member.span.clone())?).map_err(fail)?;
    }
    let size = archive.pickle.size;
    if size > MAX_PICKLE {
        return Err(fail(FormatError::HeaderTooLarge { size, limit: MAX_PICKLE }));
    }
    let span = archive.pickle.span.clone();
    if size > FIRST_LOOK {
        let start = source.read_span(span.start..span.start + FIRST_LOOK)?;
        match Pickle::read(&start, source.size()) {
            Ok(_) | Err(FormatError::Truncated(_)) => {}
            Err(cause) => return Err(fail(cause)), // before the rest is read
        }
    }
    let bytes = source.read_span(span)?;
    let pickle = Pickle::read(&bytes, source.size()).map_err(fail)?;
    archive.check_sizes(&pickle).map_err(fail)?;
    let storages = archive.storages.iter().map(|(key, member)| (*key, member.span.clone())).collect();
    index(&storages, &pickle).map_err(fail)
}

fn is_little(order: &[u8]) -> Result<(), FormatError> {
    match order {
        b"little" => Ok(()),
        _ => Err(FormatError::Unsupported("a checkpoint written on a big-endian machine".into())),
    }
}

fn is_number(word: &[u8]) -> Result<(), FormatError> {
    match word.trim_ascii_end() {
        [] => {}
        digits if digits.iter().all(u8::is_ascii_digit) => return Ok(()),
        _ => {}
    }
    Err(FormatError::MalformedHeader("a version that is no number".into()))
}

/// The members of a checkpoint, by what they are.
struct Archive<'a> {
    pickle: &'a Member,
    /// What only says something of the archive: the order of bytes, and numbers.
    words: Vec<&'a Member>,
    storages: HashMap<&'a str, &'a Member>,
}

impl<'a> Archive<'a> {
    fn sort(members: &'a [Member]) -> Result<Self, FormatError> {
        let broken = |problem: &str| FormatError::Archive(problem.to_owned());
        let first = members.first().and_then(|member| member.name.split_once('/'));
        let (top, _) = first.ok_or_else(|| broken("its members lie in no directory"))?;
        let (mut pickle, mut words, mut storages) = (None, Vec::new(), HashMap::new());
        let mut unknown = None;
        for member in members {
            let Some(name) = member.name.strip_prefix(top).and_then(|rest| rest.strip_prefix('/')) else {
                return Err(broken("its members lie in more than one directory"));
            };
            match name {
                "data.pkl" => pickle = Some(member),
                "byteorder" | "version" | ".data/serialization_id" | ".format_version" | ".storage_alignment" => {
                    words.push(member);
                }
                "constants.pkl" => return Err(program()),
                name if name.starts_with("code/") => return Err(program()),
                name => match name.strip_prefix("data/").filter(|key| !key.contains('/')) {
                    Some(key) => _ = storages.insert(key, member),
                    None => unknown = unknown.or(Some(member)),
                },
            }
        }
        if let Some(member) = unknown {
            let problem = format!("member {:?}, which torch.save does not write", member.name);
            return Err(FormatError::Unsupported(problem));
        }
        if members.iter().any(|member| member.is_deflated) {
            return Err(FormatError::Unsupported("a checkpoint whose members are compressed".into()));
        }
        let pickle = pickle.ok_or_else(|| broken("no member data.pkl"))?;
        Ok(Self { pickle, words, storages })
    }

    /// Checks that every storage of the pickle is there, has one type, and is as large as the pickle says.
    fn check_sizes(&self, pickle: &Pickle<'_>) -> Result<(), FormatError> {
        for (key, size) in sizes(pickle)? {
            match self.storages.get(key) {
                None => return Err(bad_storage(key, "the archive has no such storage")),
                Some(member) if member.size != size => return Err(bad_storage(key, WRONG_SIZE)),
                Some(_) => {}
            }
        }
        Ok(())
    }
}

fn program() -> FormatError {
    FormatError::Executable("a TorchScript program: save its state_dict instead".into())
}

/// The sizes in bytes of all storages that a pickle names, each of which must be given one type and size.
fn sizes<'a>(pickle: &Pickle<'a>) -> Result<BTreeMap<&'a str, u64>, FormatError> {
    let mut sizes = BTreeMap::new();
    let mut types = HashMap::new();
    for storage in pickle.storages() {
        let fail = |problem| Err(bad_storage(storage.key, problem));
        if *types.entry(storage.key).or_insert(storage.dtype) != storage.dtype {
            return fail("two types are given for this storage");
        }
        let Some(size) = storage.dtype.unwrap_or(Dtype::U8).size(storage.elements) else {
            return fail(WRONG_SIZE);
        };
        if *sizes.entry(storage.key).or_insert(size) != size {
            return fail(WRONG_SIZE);
        }
    }
    Ok(sizes)
}

const WRONG_SIZE: &str = "this storage is not as large as the pickle says";

fn bad_storage(key: &str, problem: &'static str) -> FormatError {
    FormatError::Span { tensor: format!("data/{key}"), problem }
}

/// The tensors of a pickle whose storages lie at these places.
fn index(storages: &HashMap<&str, Span>, pickle: &Pickle<'_>) -> Result<Index, FormatError> {
    let (mut tensors, mut metadata, mut left_out) = (Vec::new(), BTreeMap::new(), 0u64);
    let mut names = BTreeSet::new();
    let mut used = BTreeSet::new();
    pickle.walk(&mut |name, value| {
        let text = match value {
            Value::Tensor(number) => {
                let name = if name.is_empty() { "tensor" } else { name };
                let tensor = pickle.tensor(number);
                let key = pickle.storages()[tensor.storage].key;
                used.insert(key);
                tensors.push(place(name, tensor, &storages[key])?);
                if !names.insert(name.to_owned()) {
                    return Err(FormatError::Duplicate(name.to_owned()));
                }
                return Ok(());
            }
            Value::Storage(_) => {
                return Err(FormatError::Unsupported(format!("{name:?} is a storage without a tensor")));
            }
            Value::Text(text) => text.to_owned(),
            Value::Int(int) => int.to_string(),
            Value::Float(float) => format!("{float:?}"),
            Value::Bool(bool) => bool.to_string(),
            Value::Dtype(dtype) => dtype.name().to_owned(),
            _ => "none".to_owned(),
        };
        if metadata.len() < MAX_METADATA && text.len() <= MAX_TEXT {
            let name = if name.is_empty() { "value" } else { name };
            if metadata.insert(name.to_owned(), text).is_some() {
                return Err(FormatError::Duplicate(name.to_owned()));
            }
        } else {
            left_out += 1;
        }
        Ok(())
    })?;
    if let Some(name) = names.iter().find(|name| metadata.contains_key(*name)) {
        return Err(FormatError::Duplicate(name.clone()));
    }
    let unused = storages.keys().filter(|key| !used.contains(*key)).count() as u64;
    let index = Index::new(tensors, metadata).map_err(FormatError::Duplicate)?;
    let notes = [
        note(sharing(index.tensors()), "tensor shares its bytes with others", "tensors share their bytes with others"),
        note(unused, "storage is used by no tensor", "storages are used by no tensor"),
        note(
            left_out,
            "value is too long, or one too many, for metadata",
            "values are too long, or too many, for metadata",
        ),
    ];
    Ok(index.noted(notes.into_iter().flatten()))
}

fn note(count: u64, one: &str, many: &str) -> Option<String> {
    (count > 0).then(|| format!("{count} {}", if count == 1 { one } else { many }))
}

/// Where a tensor lies, given where its storage does.
fn place(name: &str, tensor: &pickle::Tensor, storage: &Span) -> Result<TensorInfo, FormatError> {
    let dtype = tensor.dtype;
    checked::size(name, dtype, &tensor.shape)?;
    let (layout, covered) = checked::strided(name, &tensor.shape, &tensor.strides)?;
    let beyond = || FormatError::Span { tensor: name.to_owned(), problem: "lies beyond the end of its storage" };
    let start = dtype.size(tensor.offset).and_then(|offset| storage.start.checked_add(offset)).ok_or_else(beyond)?;
    let size = dtype.size(covered).ok_or_else(beyond)?;
    let span = checked::span(name, Some(start), size, storage.end).map_err(|_| beyond())?;
    Ok(TensorInfo::new(name, dtype, tensor.shape.clone(), span).stored(layout))
}

/// The number of tensors whose spans meet those of others. They come in the order of their bytes.
fn sharing(tensors: &[TensorInfo]) -> u64 {
    let mut shares = vec![false; tensors.len()];
    let mut furthest: Option<usize> = None;
    for (i, tensor) in tensors.iter().enumerate().filter(|(_, tensor)| !tensor.span.is_empty()) {
        if let Some(before) = furthest.filter(|before| tensors[*before].span.end > tensor.span.start) {
            shares[before] = true;
            shares[i] = true;
        }
        if furthest.is_none_or(|before| tensors[before].span.end < tensor.span.end) {
            furthest = Some(i);
        }
    }
    shares.into_iter().filter(|shares| *shares).count() as u64
}

#[cfg(test)]
mod tests {
    use super::super::load::load;
    use super::super::zip::tests::archive;
    use super::*;
    use crate::error::Error;
    use crate::io::SliceAt;

    /// `{"w": tensor, "n": 7}` over the floats of one storage.
    fn pickle(elements: u8, offset: u8, shape: &[u8], strides: &[u8]) -> Vec<u8> {
        let tuple =
            |items: &[u8]| [b"(", &items.iter().flat_map(|int| [b'K', *int]).collect::<Vec<_>>()[..], b"t"].concat();
        let head = b"\x80\x02}(X\x01\0\0\0nK\x07X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storage";
        let storage = b"ctorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK";
        let tail = b"\x89ccollections\nOrderedDict\n)RtRu.";
        [head, &storage[..], &[elements], b"tQK", &[offset], &tuple(shape), &tuple(strides), tail].concat()
    }

    fn checkpoint(pickle: &[u8], data: &[u8]) -> Vec<u8> {
        archive(&[
            ("a/data.pkl", pickle, false),
            ("a/byteorder", b"little", false),
            ("a/data/0", data, false),
            ("a/version", b"3\n", false),
        ])
    }

    fn cause(bytes: &[u8]) -> FormatError {
        match read(&SliceAt::new(bytes)) {
            Err(Error::Format { cause, .. }) => cause,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tensors_lie_within_their_storage_and_not_upon_themselves() {
        let data: Vec<u8> = (0..6u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
        let values = |offset, shape: &[u8], strides: &[u8]| {
            let bytes = checkpoint(&pickle(6, offset, shape, strides), &data);
            let source = SliceAt::new(&bytes);
            let index = read(&source).unwrap();
            assert_eq!(index.metadata()["n"], "7");
            let loaded = load(&source, index.tensor("w").unwrap()).unwrap();
            loaded.chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap()) as u8).collect::<Vec<_>>()
        };
        assert_eq!(values(0, &[2, 3], &[3, 1]), [0, 1, 2, 3, 4, 5]);
        assert_eq!(values(0, &[3, 2], &[1, 3]), [0, 3, 1, 4, 2, 5]);
        assert_eq!(values(1, &[3], &[2]), [1, 3, 5]);
        assert_eq!(values(5, &[], &[]), [5]);
        assert!(values(6, &[0, 2], &[9, 9]).is_empty());

        let problem = |elements, offset, shape: &[u8], strides: &[u8]| match cause(&checkpoint(
            &pickle(elements, offset, shape, strides),
            &data,
        )) {
            FormatError::Span { problem, .. } => problem,
            other => panic!("{other:?}"),
        };
        assert_eq!(problem(6, 1, &[2, 3], &[3, 1]), "lies beyond the end of its storage");
        assert_eq!(problem(6, 7, &[0], &[1]), "lies beyond the end of its storage");
        assert_eq!(problem(6, 0, &[3], &[3]), "lies beyond the end of its storage");
        assert_eq!(problem(6, 0, &[3], &[0]), "its elements lie upon each other");
        assert_eq!(problem(6, 0, &[3], &[]), "it has not as many strides as dimensions");
        assert_eq!(problem(5, 0, &[1], &[1]), "this storage is not as large as the pickle says");
    }

    #[test]
    fn types_without_a_storage_of_their_own_are_read_as_pytorch_2_writes_them() {
        let with = |storage: &[u8], rebuild: &[u8], dtype: &[u8]| {
            let head = [b"\x80\x02c", rebuild, b"\n((X\x07\0\0\0storagec", storage].concat();
            let rest = b"\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQK\0K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)R";
            [&head, &rest[..], dtype, b"tR."].concat()
        };
        let (untyped, v3) = (b"torch.storage\nUntypedStorage", b"torch._utils\n_rebuild_tensor_v3");
        let read_it = |pickle: &[u8]| read(&SliceAt::new(checkpoint(pickle, &[7; 4]))).unwrap().tensors()[0].clone();
        for (name, dtype) in [("uint16", Dtype::U16), ("float8_e4m3fn", Dtype::F8_E4M3)] {
            let tensor = read_it(&with(untyped, v3, format!("ctorch\n{name}\n").as_bytes()));
            assert_eq!((tensor.name.as_str(), tensor.dtype, tensor.size()), ("tensor", dtype, dtype.block().1 * 2));
        }
        let executable = |pickle: &[u8]| matches!(cause(&checkpoint(pickle, &[7; 4])), FormatError::Executable(_));
        assert!(executable(&with(untyped, v3, b"")) && executable(&with(b"torch\nByteStorage", v3, b"ctorch\nint8\n")));
        let v2 = b"torch._utils\n_rebuild_tensor_v2";
        assert!(executable(&with(untyped, v2, b"")));
        assert!(read_it(&with(b"torch\nByteStorage", v2, b"N")).is_plain());
        assert!(matches!(
            cause(&checkpoint(&with(b"torch\nByteStorage", v2, b"}X\x04\0\0\0conj\x88s"), &[7; 4])),
            FormatError::Unsupported(_)
        ));
    }

    #[test]
    fn archives_are_of_known_members() {
        let good = pickle(1, 0, &[1], &[1]);
        let with = |more: &[(&str, &[u8], bool)]| {
            cause(&archive(&[&[("a/data.pkl", &good[..], false), ("a/data/0", &[0; 4], false)], more].concat()))
        };
        let executable = |cause| matches!(cause, FormatError::Executable(_));
        let unsupported = |cause| matches!(cause, FormatError::Unsupported(_));
        assert!(
            executable(with(&[("a/code/x.py", b"", false)])) && executable(with(&[("a/constants.pkl", b"", false)]))
        );
        assert!(
            unsupported(with(&[("a/other.pkl", b"", false)])) && unsupported(with(&[("a/byteorder", b"big", false)]))
        );
        assert!(unsupported(with(&[("a/data/1", &[0; 99], true)])));
        assert!(matches!(with(&[("b/data/1", b"", false)]), FormatError::Archive(_)));
        assert!(matches!(with(&[("a/version", b"x", false)]), FormatError::MalformedHeader(_)));
        assert!(matches!(cause(&archive(&[("data.pkl", &good, false)])), FormatError::Archive(_)));
        assert!(matches!(cause(&archive(&[("a/data.pkl", &good, false)])), FormatError::Span { .. }));
        assert!(matches!(cause(&archive(&[("a/version", b"3", false)])), FormatError::Archive(_)));
        assert!(executable(cause(b"\x80\x04N.")));
        let unused = archive(&[
            ("a/data.pkl", &good, false),
            ("a/data/0", &[0; 4], false),
            ("a/data/1", &[], false),
            (".data", b"", false),
        ]);
        assert!(matches!(cause(&unused), FormatError::Archive(_)));
        let unused = archive(&[("a/data.pkl", &good, false), ("a/data/0", &[0; 4], false), ("a/data/1", &[], false)]);
        assert_eq!(read(&SliceAt::new(&unused)).unwrap().notes(), ["1 storage is used by no tensor"]);
    }

    #[test]
    fn every_truncation_and_flip_is_refused_or_reads_within_the_file() {
        let whole = pickle(6, 0, &[3, 2], &[1, 3]);
        let file = checkpoint(&whole, &[7; 24]);
        for end in 0..file.len() {
            assert!(read(&SliceAt::new(&file[..end])).is_err(), "{end}");
        }
        let in_bounds = |bytes: &[u8]| {
            let source = SliceAt::new(bytes);
            for tensor in read(&source).iter().flat_map(Index::tensors) {
                assert!(tensor.span.end <= bytes.len() as u64);
                let _ = load(&source, tensor);
            }
        };
        for i in 0..file.len() * 8 {
            let mut flipped = file.clone();
            flipped[i / 8] ^= 1 << (i % 8);
            in_bounds(&flipped);
        }
        for i in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[i / 8] ^= 1 << (i % 8);
            in_bounds(&checkpoint(&flipped, &[7; 24])); // past the checksum
        }
    }
}
