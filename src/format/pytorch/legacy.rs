//! Checkpoints of `torch.save` from before 1.6, still written with `_use_new_zipfile_serialization=False`.
//!
//! Five pickles one after the other: a number, the version, facts about the machine, the object, and the keys of its
//! storages. Then the storages in the order of these keys, each a count of elements and the elements, to the end of the
//! file. All is as in a zip checkpoint, but that Python 2 may have written it, and that hooks may be none.

use std::collections::HashMap;

use super::super::pickle::{Pickle, Value};
use super::{FIRST_LOOK, MAX_PICKLE, WRONG_SIZE, bad_storage, index, sizes};
use crate::error::{Cause, Error, FormatError, Result};
use crate::io::{ReadAt, ReadAtExt};
use crate::tensor::Index;

/// The number with which such a file begins, behind the opcode of the protocol and maybe that of a frame.
const MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e";
/// A frame of that length.
const FRAME: &[u8] = b"\x95\x0d\0\0\0\0\0\0\0";
/// The version after it.
const VERSION: i64 = 1001;
/// Bytes of the types of C, which `torch.save` took for the same everywhere.
const TYPE_SIZES: [(&str, i64); 3] = [("int", 4), ("long", 4), ("short", 2)];

/// The names of the members of a tar archive of the kind before 0.1.2.
const TAR_MEMBERS: [&str; 4] = ["pickle", "storages", "sys_info", "tensors"];

/// Whether a file with this start is of this kind.
pub(super) fn begins(head: &[u8]) -> bool {
    magic_len(head).is_some()
}

/// Whether a file with this start is a tar archive of the kind before 0.1.2.
pub(in super::super) fn begins_tar(head: &[u8]) -> bool {
    let (Some(name), Some(magic)) = (head.get(..100), head.get(257..262)) else { return false };
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    magic == b"ustar" && TAR_MEMBERS.iter().any(|known| known.as_bytes() == name)
}

fn magic_len(head: &[u8]) -> Option<usize> {
    let [0x80, 2..=5, rest @ ..] = head else { return None };
    let body = rest.strip_prefix(FRAME).unwrap_or(rest);
    body.starts_with(MAGIC).then(|| head.len() - body.len() + MAGIC.len())
}

/// Reads the index of such a file.
pub(super) fn read(source: &dyn ReadAt) -> Result<Index> {
    let fail = |cause: FormatError| cause.on(source.name());
    let most = source.size().min(MAX_PICKLE);
    let mut look = FIRST_LOOK.min(most);
    loop {
        let bytes = source.read_span(0..look)?;
        match read_pickles(source, &bytes) {
            Err(Error::Format { cause: FormatError::Truncated(THE_PICKLES), .. }) if look < most => {
                look = look.saturating_mul(4).min(most);
            }
            Err(Error::Format { cause: FormatError::Truncated(THE_PICKLES), .. }) if look < source.size() => {
                return Err(fail(FormatError::HeaderTooLarge { size: source.size(), limit: MAX_PICKLE }));
            }
            other => return other,
        }
    }
}

const THE_PICKLES: &str = "the pickles of the file end early";

/// Reads the index of a file of which `bytes` are the start; truncated if they do not hold all pickles.
fn read_pickles(source: &dyn ReadAt, bytes: &[u8]) -> Result<Index> {
    let fail = |cause: FormatError| cause.on(source.name());
    let mut at = magic_len(bytes).unwrap_or_default();
    let mut next = || {
        let (pickle, len) = Pickle::read_first(&bytes[at..], source.size()).map_err(|cause| match cause {
            FormatError::Truncated(_) => FormatError::Truncated(THE_PICKLES),
            other => other,
        })?;
        at += len;
        Ok((pickle, at as u64))
    };
    check_version(&next().map_err(fail)?.0).map_err(fail)?;
    check_machine(&next().map_err(fail)?.0).map_err(fail)?;
    let (object, _) = next().map_err(fail)?;
    let (keys, end) = next().map_err(fail)?;

    let (sizes, keys) = (sizes(&object).map_err(fail)?, texts(&keys).map_err(fail)?);
    let elements: HashMap<_, _> = object.storages().iter().map(|storage| (storage.key, storage.elements)).collect();
    let mut storages = HashMap::new();
    let mut at = end;
    for key in keys {
        let Some(size) = sizes.get(key) else {
            return Err(fail(bad_storage(key, "the pickle has no such storage")));
        };
        let cut_off = || fail(FormatError::Truncated("the storages of the file end early"));
        let start = at.checked_add(8).filter(|start| *start <= source.size()).ok_or_else(cut_off)?;
        let mut count = [0; 8];
        source.read_at(at, &mut count)?;
        if Some(&u64::from_le_bytes(count)) != elements.get(key) {
            return Err(fail(bad_storage(key, WRONG_SIZE)));
        }
        at = start.checked_add(*size).filter(|end| *end <= source.size()).ok_or_else(cut_off)?;
        if storages.insert(key, start..at).is_some() {
            return Err(fail(FormatError::Duplicate(format!("data/{key}"))));
        }
    }
    if let Some(key) = sizes.keys().find(|key| !storages.contains_key(**key)) {
        return Err(fail(bad_storage(key, "the list of storages does not have it")));
    }
    if at != source.size() {
        return Err(fail(FormatError::TrailingBytes(source.size() - at)));
    }
    index(&storages, &object).map_err(fail)
}

fn check_version(version: &Pickle<'_>) -> Result<(), FormatError> {
    match version.root() {
        Value::Int(VERSION) => Ok(()),
        Value::Int(other) => Err(FormatError::Unsupported(format!("a PyTorch file of version {other}"))),
        _ => Err(malformed("a version that is no number")),
    }
}

/// Checks the facts about the machine: exactly those that are written, in any order.
fn check_machine(facts: &Pickle<'_>) -> Result<(), FormatError> {
    let mut facts_by_name = entries(facts, facts.root())?;
    let mut take = |name| facts_by_name.remove(name);
    let (version, order, sizes) = (take("protocol_version"), take("little_endian"), take("type_sizes"));
    let (Some(Value::Int(VERSION)), Some(Value::Bool(is_little)), Some(sizes), true) =
        (version, order, sizes, facts_by_name.is_empty())
    else {
        return Err(malformed("facts about the machine that torch.save does not write"));
    };
    let sizes = entries(facts, sizes)?;
    if sizes.len() != TYPE_SIZES.len()
        || TYPE_SIZES.iter().any(|(name, size)| sizes.get(name) != Some(&Value::Int(*size)))
    {
        return Err(malformed("sizes of types that torch.save does not write"));
    }
    match is_little {
        true => Ok(()),
        false => Err(FormatError::Unsupported("a checkpoint written on a big-endian machine".into())),
    }
}

/// The values of a dict by their keys, which must be texts.
fn entries<'a>(pickle: &Pickle<'a>, dict: Value<'a>) -> Result<HashMap<&'a str, Value<'a>>, FormatError> {
    let mut entries = HashMap::new();
    let Value::Dict(_) = dict else { return Err(malformed("a value that is no dict, where one belongs")) };
    for pair in pickle.items(dict).chunks_exact(2) {
        let Value::Text(key) = pair[0] else { return Err(malformed("a key that is no text")) };
        if entries.insert(key, pair[1]).is_some() {
            return Err(FormatError::Duplicate(key.to_owned()));
        }
    }
    Ok(entries)
}

/// The texts of a list of them.
fn texts<'a>(pickle: &Pickle<'a>) -> Result<Vec<&'a str>, FormatError> {
    let broken = || malformed("keys of storages that are no list of texts");
    let Value::List(_) = pickle.root() else { return Err(broken()) };
    let items = pickle.items(pickle.root()).iter();
    items.map(|item| if let Value::Text(key) = item { Ok(*key) } else { Err(broken()) }).collect()
}

fn malformed(problem: &str) -> FormatError {
    FormatError::MalformedHeader(problem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::super::load::load;
    use super::super::read;
    use super::*;
    use crate::io::SliceAt;

    const MACHINE: &[u8] =
        b"\x80\x02}(X\x10\0\0\0protocol_versionM\xe9\x03X\x0d\0\0\0little_endian\x88X\x0a\0\0\0type_sizes\
        }(X\x05\0\0\0shortK\x02X\x03\0\0\0intK\x04X\x04\0\0\0longK\x04uu.";
    const KEYS: &[u8] = b"\x80\x02]X\x01\0\0\x000a.";

    /// `{"w": tensor}` over the floats of one storage, as Python 2 wrote it: its texts, its memo, and no hooks.
    fn object(elements: u8, shape: u8, view: &[u8]) -> Vec<u8> {
        let head = b"\x80\x02}q\x01U\x01wq\x02ctorch._utils\n_rebuild_tensor_v2\nq\x03((U\x07storageq\x04ctorch\nFloatStorage\n";
        let place = b"U\x010q\x05T\x06\0\0\0cuda:0q\x06\x8a\x01";
        [head, &place[..], &[elements], view, b"tQK\0(K", &[shape], b"t(K\x01t\x89NtRq\x07s."].concat()
    }

    fn file(parts: [&[u8]; 3], storages: &[u8]) -> Vec<u8> {
        [b"\x80\x02", MAGIC, b"\x80\x02M\xe9\x03.", parts[0], parts[1], parts[2], storages].concat()
    }

    fn storage(count: u64, elements: usize) -> Vec<u8> {
        let data = (0..elements).flat_map(|i| (i as f32).to_le_bytes());
        count.to_le_bytes().into_iter().chain(data).collect()
    }

    fn cause(bytes: &[u8]) -> FormatError {
        match read(&SliceAt::new(bytes)) {
            Err(Error::Format { cause, .. }) => cause,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tensors_are_read_from_where_their_storage_lies() {
        let object = object(3, 2, b"N");
        let bytes = file([MACHINE, &object, KEYS], &storage(3, 3));
        let source = SliceAt::new(&bytes);
        let index = read(&source).unwrap();
        let tensor = index.tensor("w").unwrap();
        assert_eq!((tensor.span.end, tensor.is_plain()), (bytes.len() as u64 - 4, true));
        assert_eq!(*load(&source, tensor).unwrap(), [0, 0, 0, 0, 0, 0, 0x80, 0x3f]);
        let framed = bytes.strip_prefix(b"\x80\x02").unwrap();
        let framed = [b"\x80\x04", FRAME, framed].concat();
        assert_eq!(read(&SliceAt::new(&framed)).unwrap().tensors().len(), 1);
    }

    #[test]
    fn what_torch_save_did_not_write_is_refused_for_its_cause() {
        use FormatError::*;
        let good = object(3, 2, b"N");
        let storages = storage(3, 3);
        let with = |parts: [&[u8]; 3], storages: &[u8]| cause(&file(parts, storages));
        let problem = |cause| match cause {
            Span { problem, .. } => problem,
            other => panic!("{other:?}"),
        };
        let replaced = |bytes: &[u8], from: &str, to: &str| {
            let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
            assert!(text.contains(from));
            text.replace(from, to).chars().map(|c| c as u32 as u8).collect::<Vec<_>>()
        };

        assert_eq!(with([MACHINE, &good, KEYS], &[&storages[..], b"x"].concat()), TrailingBytes(1));
        assert_eq!(with([MACHINE, &good, KEYS], &storages[..19]), Truncated("the storages of the file end early"));
        assert_eq!(with([MACHINE, &good, KEYS], &storages[..7]), Truncated("the storages of the file end early"));
        assert_eq!(with([MACHINE, &good, &KEYS[..5]], b""), Truncated(THE_PICKLES));
        assert_eq!(problem(with([MACHINE, &good, KEYS], &storage(4, 4))), WRONG_SIZE);
        assert_eq!(problem(with([MACHINE, &good, KEYS], &storage(u64::MAX, 3))), WRONG_SIZE);
        assert_eq!(
            problem(with([MACHINE, &object(3, 4, b"N"), KEYS], &storages)),
            "lies beyond the end of its storage"
        );
        assert_eq!(problem(with([MACHINE, &good, b"\x80\x02]."], b"")), "the list of storages does not have it");
        let other = b"\x80\x02]X\x01\0\0\x001a.";
        assert_eq!(problem(with([MACHINE, &good, other], &storages)), "the pickle has no such storage");
        let twice = b"\x80\x02](X\x01\0\0\x000X\x01\0\0\x000e.";
        assert_eq!(with([MACHINE, &good, twice], &storages.repeat(2)), Duplicate("data/0".into()));
        for keys in [&b"\x80\x02}."[..], b"\x80\x02]K\0a.", b"\x80\x02X\x01\0\0\x000\x85."] {
            assert_eq!(
                with([MACHINE, &good, keys], &storages),
                malformed("keys of storages that are no list of texts")
            );
        }

        let machine = |from, to| with([&replaced(MACHINE, from, to), &good, KEYS], &storages);
        assert!(matches!(machine("\u{88}", "\u{89}"), Unsupported(why) if why.contains("big-endian")));
        let facts = "facts about the machine that torch.save does not write";
        for (from, to) in [("\u{88}", "K\x01"), ("little_endian", "little_ending"), ("M\u{e9}\x03", "M\u{e8}\x03")] {
            assert_eq!(machine(from, to), malformed(facts));
        }
        for (from, to) in [("K\x02", "K\x04"), ("short", "start"), ("K\x02", "\u{88}")] {
            assert_eq!(machine(from, to), malformed("sizes of types that torch.save does not write"));
        }
        assert_eq!(machine("uu.", "uX\x01\0\0\0aNu."), malformed(facts));
        assert_eq!(machine("uu.", "uX\x0d\0\0\0little_endian\u{88}u."), Duplicate("little_endian".into()));
        assert!(matches!(machine("uu.", "uucos\nsystem\n."), Executable(_)));

        let version = |bytes: &[u8]| cause(&[b"\x80\x02", MAGIC, bytes, MACHINE, &good, KEYS, &storages].concat());
        assert_eq!(version(b"\x80\x02M\xea\x03."), Unsupported("a PyTorch file of version 1002".into()));
        assert_eq!(version(b"\x80\x02N."), malformed("a version that is no number"));
        assert!(matches!(version(b"\x80\x02cos\nsystem\nU\x02id\x85R."), Executable(_)));

        let view = b"(U\x011K\0K\x01t";
        assert!(
            matches!(with([MACHINE, &object(3, 2, view), KEYS], &storages), Unsupported(why) if why.contains("view"))
        );
        for view in [&b""[..], b"K\0", b"NN"] {
            assert!(matches!(with([MACHINE, &object(3, 2, view), KEYS], &storages), Executable(_)), "{view:?}");
        }
        let object = |from, to| with([MACHINE, &replaced(&good, from, to), KEYS], &storages);
        assert!(matches!(object("q\x01", "q\x02"), MalformedHeader(_)));
        assert!(matches!(object("q\x02", "\u{94}"), MalformedHeader(why) if why.contains("memo")));
        assert!(matches!(object("U\x01w", "U\x01\u{e4}"), MalformedHeader(_)));
        assert!(matches!(object("U\x01w", "U\x02\u{c3}\u{a4}"), MalformedHeader(why) if why.contains("ASCII")));
        assert!(matches!(object("\u{89}NtR", "\u{89}cos\nsystem\ntR"), Executable(_)));
    }

    #[test]
    fn old_rebuild_of_four_arguments_is_read() {
        let object = b"\x80\x02ctorch._utils\n_rebuild_tensor\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x03NtQK\x01K\x02\x85K\x01\x85tR.";
        let bytes = file([MACHINE, object, KEYS], &storage(3, 3));
        let index = read(&SliceAt::new(&bytes)).unwrap();
        assert_eq!((&*index.tensors()[0].name, index.tensors()[0].size()), ("tensor", 8));
    }

    #[test]
    fn pickles_longer_than_a_first_look_are_read() {
        let texts = [&b"X\xff\xff\x0f\0"[..], &vec![b'a'; 0xf_ffff], b"a"].concat().repeat(3);
        let tail = b"ctorch._utils\n_rebuild_tensor\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x03NtQK\x01K\x02\x85K\x01\x85tRa.";
        let bytes = file([MACHINE, &[b"\x80\x02]", &texts[..], tail].concat(), KEYS], &storage(3, 3));
        assert_eq!(read(&SliceAt::new(&bytes)).unwrap().tensors()[0].name, "3");
        let bytes = file([MACHINE, &[b"\x80\x02]", &texts.repeat(22)[..], tail].concat(), KEYS], &storage(3, 3));
        assert_eq!(cause(&bytes), FormatError::HeaderTooLarge { size: bytes.len() as u64, limit: MAX_PICKLE });
    }

    #[test]
    fn tar_archives_from_before_0_1_2_are_told() {
        let mut head = vec![0; 512];
        head[..8].copy_from_slice(b"sys_info");
        head[257..263].copy_from_slice(b"ustar\0");
        assert!(matches!(cause(&head), FormatError::Unsupported(why) if why.contains("0.1.2")));
        assert!(begins_tar(&head) && !begins_tar(&head[..261]));
        head[0] = b'S';
        assert!(!begins_tar(&head));
    }

    #[test]
    fn every_truncation_and_flip_is_refused_or_reads_within_the_file() {
        let whole = file([MACHINE, &object(3, 2, b"N"), KEYS], &storage(3, 3));
        for end in 0..whole.len() {
            assert!(read(&SliceAt::new(&whole[..end])).is_err(), "{end}");
        }
        for i in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[i / 8] ^= 1 << (i % 8);
            let source = SliceAt::new(&flipped);
            for tensor in read(&source).iter().flat_map(Index::tensors) {
                assert!(tensor.span.end <= flipped.len() as u64);
                load(&source, tensor).unwrap();
            }
        }
    }
}
