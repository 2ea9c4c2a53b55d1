//! The gate: a model passes if no loader can be made to run what it holds.
//!
//! Whatever it is called, a file is refused whose content is code, can hold code, or is an archive, which is not looked
//! into; so is one that loaders take for a pickle by its name, and that is no checkpoint read here. The gate refuses
//! what is not provably plain data; it does not search for bad code among good. Text passes, scripts and templates too:
//! they are plain to see. What it refuses in full, says `spec/formats.md`.

use super::Format;
use super::directory::{ModelIndex, is_named_pickle};
use super::onnx;
use super::pickle::is_inert;
use crate::error::{Cause, FormatError, Result};
use crate::io::{ReadAt, ReadAtExt, Tree};

/// Bytes at the start of a file that are looked at.
const HEAD: u64 = 512;
/// The end record of a zip archive, and as much as a comment behind it may take.
const END: usize = 22;
const TAIL: u64 = END as u64 + u16::MAX as u64;

/// What is code by its first bytes.
#[rustfmt::skip]
const CODE: [(&[u8], &str); 25] = [
    (b"\x7fELF", "native code (ELF)"),
    (b"MZqFpD", "native code (of Cosmopolitan: a llamafile)"), (b"jartsr='", "native code (of Cosmopolitan)"),
    (b"\xfe\xed\xfa\xce", "native code (Mach-O)"), (b"\xfe\xed\xfa\xcf", "native code (Mach-O)"),
    (b"\xce\xfa\xed\xfe", "native code (Mach-O)"), (b"\xcf\xfa\xed\xfe", "native code (Mach-O)"),
    (b"\xca\xfe\xba\xbe", "a class of Java, or native code (Mach-O)"), (b"\xca\xfe\xba\xbf", "native code (Mach-O)"),
    (b"\xbe\xba\xfe\xca", "native code (Mach-O)"), (b"\xbf\xba\xfe\xca", "native code (Mach-O)"),
    (b"!<arch>\n", "native code (a library)"), (b"!<thin>\n", "native code (a library)"),
    (b"\0asm", "code (WebAssembly)"), (b"BC\xc0\xde", "code (LLVM)"), (b"\xde\xc0\x17\x0b", "code (LLVM)"),
    (b"dex\n0", "code (Android)"), (b"\x1bLua", "code (Lua)"),
    (b"\xac\xed\0\x05", "objects of Java, which can run anything when they are loaded"),
    (b"RDA2\n", "objects of R, which can run anything when they are loaded"),
    (b"RDX2\n", "objects of R, which can run anything when they are loaded"),
    (b"RDX3\n", "objects of R, which can run anything when they are loaded"),
    (b"RDA3\n", "objects of R, which can run anything when they are loaded"),
    (b"X\n\0\0\0\x02\0", "objects of R, which can run anything when they are loaded"),
    (b"X\n\0\0\0\x03\0", "objects of R, which can run anything when they are loaded"),
];

/// What is an archive, or compressed, by its first bytes.
#[rustfmt::skip]
const ARCHIVES: [(&[u8], &str); 22] = [
    (b"PK\x03\x04", "a zip archive"), (b"PK\x05\x06", "a zip archive"), (b"PK\x07\x08", "a zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"), (b"Rar!\x1a\x07", "a rar archive"), (b"MSCF\0\0\0\0", "a cabinet"),
    (b"xar!\0", "a xar archive"), (b"070701", "a cpio archive"), (b"070707", "a cpio archive"), (b"hsqs", "a file system"),
    (b"\x1f\x8b", "compressed (gzip)"), (b"\x1f\x9d", "compressed (compress)"), (b"\x1f\xa0", "compressed (compress)"),
    (b"\xfd7zXZ\0", "compressed (xz)"), (b"\x5d\0\0", "compressed (lzma)"), (b"LZIP\x01", "compressed (lzip)"),
    (b"\x89LZO\0\r\n\x1a\n", "compressed (lzop)"), (b"\x28\xb5\x2f\xfd", "compressed (zstd)"),
    (b"\x04\x22\x4d\x18", "compressed (lz4)"), (b"\x02\x21\x4c\x18", "compressed (lz4)"),
    (b"\xff\x06\0\0sNaPpY", "compressed (snappy)"), (b"ZF0x", "compressed (joblib)"), 
];

/// Checks that no loader can be made to run what the files of the model hold, by a few small reads of each. `index` is that
/// of `tree`.
///
/// `allow` names files (by their paths in the model) that are let through nevertheless; of those, it returns the ones
/// that would be refused, ordered by path.
///
/// # Errors
/// The first file refused, by its path: the cause why [`ModelIndex`] left it closed; [`FormatError::Executable`] for
/// what is code, or can hold it; [`FormatError::Unsupported`] for an archive, which is not looked into.
///
/// ```
/// use weightmark::error::{Error, FormatError};
/// use weightmark::format::{ModelIndex, gate};
/// use weightmark::io::tree;
///
/// let model = tempfile::tempdir()?;
/// std::fs::write(model.path().join("config.json"), "{}")?;
/// std::fs::write(model.path().join("weights.dat"), b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.")?;
/// let tree = tree::open(model.path())?;
/// let index = ModelIndex::read(&*tree)?;
/// let refused = gate(&*tree, &index, &[]);
/// assert!(matches!(refused, Err(Error::Format { cause: FormatError::Executable(_), .. })));
/// assert_eq!(gate(&*tree, &index, &["weights.dat".into()])?, ["weights.dat"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn gate(tree: &dyn Tree, index: &ModelIndex, allow: &[String]) -> Result<Vec<String>> {
    let mut let_through = Vec::new();
    for entry in tree.entries() {
        let source = tree.open(&entry.path)?;
        let cause = match index.refusal(&entry.path) {
            Some(cause) => Some(cause.clone()),
            None => objection(&*source, &entry.path, index.file(&entry.path).map(|file| file.format))?,
        };
        match cause {
            None => {}
            Some(_) if allow.contains(&entry.path) => let_through.push(entry.path.clone()),
            Some(cause) => return Err(cause.on(source.name())),
        }
    }
    Ok(let_through)
}

/// Why a file is not provably plain data, whose tensors were read in this format, if in any.
fn objection(source: &dyn ReadAt, path: &str, format: Option<Format>) -> Result<Option<FormatError>> {
    let head = source.read_span(0..source.size().min(HEAD))?;
    let is_zip_model = format.is_some_and(Format::is_archive) && head.starts_with(b"PK\x03\x04");
    // in which the length of the header may look like another format's first bytes
    let is_safetensors = format == Some(Format::Safetensors) && Format::of_name(path) == format;
    if !is_safetensors {
        if let Some(code) = code(source, &head, format)? {
            return Ok(executable(code));
        }
        if let Some(archive) = archive(&head).filter(|_| !is_zip_model) {
            let why = format!("{archive}: it is not looked into, so not provably plain data");
            return Ok(Some(FormatError::Unsupported(why)));
        }
    }
    if is_named_pickle(path) && format != Some(Format::Pytorch) && !is_inert(source)? {
        return Ok(executable("loaders take it for a pickle, to go by its name, and it is no checkpoint"));
    }
    if is_named_graph(path, source) {
        return Ok(executable("a graph of TensorFlow, to go by its name, which can read and write files"));
    }
    if has_hdf5(source)? {
        return Ok(executable("an HDF5 file, in which Keras keeps code"));
    }
    if !is_zip_model && ends_as_zip(source)? {
        return Ok(executable("a zip archive to those that look for its end, whatever else it is"));
    }
    Ok(None)
}

fn executable(what: &str) -> Option<FormatError> {
    Some(FormatError::Executable(what.to_owned()))
}

/// What code a file holds, if its first bytes say so.
fn code(source: &dyn ReadAt, head: &[u8], format: Option<Format>) -> Result<Option<&'static str>> {
    Ok(match head {
        [0x80, 0..=5, ..] if format != Some(Format::Pytorch) => Some("a pickle, whatever else it is"),
        [_, 0x0b..=0x0f | 0xf3, b'\r', b'\n', 0..=3, 0, 0, 0, ..] => Some("code (of Python, compiled)"),
        [0x03, 0xf3, b'\r', b'\n', ..] => Some("code (of Python, compiled)"),
        [b'M', b'Z', ..] if has_pe_header(source, head)? => Some("native code (PE)"),
        _ => CODE.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, what)| *what),
    })
}

/// What archive a file is, if its first bytes say so.
fn archive(head: &[u8]) -> Option<&'static str> {
    match head {
        [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', b'&', b'S', b'Y', ..] => Some("compressed (bzip2)"),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, b'E', b'8', b'P', 0x90, ..] => Some("compressed (bzip2)"),
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some("compressed (zstd or lz4)"),
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, rest @ ..] if !is_text(rest) => Some("compressed (zlib)"),
        _ if is_tar(head) => Some("a tar archive"),
        _ => ARCHIVES.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, what)| *what),
    }
}

/// Whether the start of a file could be that of a text in UTF-8.
fn is_text(head: &[u8]) -> bool {
    let is_plain = |text: &str| !text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r'));
    match std::str::from_utf8(head) {
        Ok(text) => is_plain(text),
        Err(error) if error.error_len().is_none() => head.get(..error.valid_up_to()).is_some_and(|whole| {
            std::str::from_utf8(whole).is_ok_and(is_plain) // cut off within a letter
        }),
        Err(_) => false,
    }
}

/// Whether a file begins with the header of a member of a tar archive, as its checksum says: with any magic or none.
fn is_tar(head: &[u8]) -> bool {
    let (Some(header), Some(sum)) = (head.get(..512), head.get(148..156)) else { return false };
    let digits = sum.iter().copied().skip_while(|byte| *byte == b' ').take_while(u8::is_ascii_digit);
    let wanted = digits.fold(None, |sum: Option<u64>, digit| Some(sum.unwrap_or(0) * 8 + u64::from(digit - b'0')));
    let blank = |at: usize, byte: u8| if (148..156).contains(&at) { b' ' } else { byte };
    let bytes = || header.iter().enumerate().map(|(at, byte)| blank(at, *byte));
    let unsigned: u64 = bytes().map(u64::from).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte as i8)).sum();
    wanted.is_some_and(|wanted| wanted == unsigned || i64::try_from(wanted) == Ok(signed))
}

/// Whether the header of DOS leads to one of Windows.
fn has_pe_header(source: &dyn ReadAt, head: &[u8]) -> Result<bool> {
    let Some(place) = head.get(0x3c..).and_then(|rest| rest.first_chunk()) else { return Ok(false) };
    is_at(source, u32::from_le_bytes(*place).into(), b"PE\0\0")
}

/// Whether loaders take a file of this name for a graph of TensorFlow. That of a saved model can be made such that it is
/// one of ONNX as well.
fn is_named_graph(path: &str, source: &dyn ReadAt) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    match name.as_str() {
        "saved_model.pb" | "saved_model.pbtxt" => true,
        name if name.ends_with(".pb") => !onnx::looks_like(source),
        name => name.ends_with(".meta") && name.contains("ckpt"),
    }
}

/// Whether a file is HDF5: its signature lies at the start, or at a power of two from 512 on.
fn has_hdf5(source: &dyn ReadAt) -> Result<bool> {
    let mut at = 0u64;
    loop {
        if is_at(source, at, b"\x89HDF\r\n\x1a\n")? {
            return Ok(true);
        }
        at = if at == 0 { 512 } else { at.saturating_mul(2) };
        if at >= source.size() {
            return Ok(false);
        }
    }
}

/// Whether a file ends with what is a zip archive that holds something, with any comment behind it.
fn ends_as_zip(source: &dyn ReadAt) -> Result<bool> {
    let start = source.size().saturating_sub(TAIL);
    let tail = source.read_span(start..source.size())?;
    for (at, record) in tail.windows(END).enumerate().filter(|(_, record)| record.starts_with(b"PK\x05\x06")) {
        let u32_at =
            |at: usize| u64::from(u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]));
        let (size, offset) = (u32_at(12), u32_at(16));
        let is_zip64 = at >= 20 && tail[at - 20..].starts_with(b"PK\x06\x07");
        let before = (start + at as u64).checked_sub(size); // where Python looks, whatever precedes the archive
        if is_zip64 || is_at(source, offset, b"PK\x01\x02")? {
            return Ok(true);
        }
        if let Some(before) = before
            && is_at(source, before, b"PK\x01\x02")?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether these bytes lie there.
fn is_at(source: &dyn ReadAt, at: u64, wanted: &[u8]) -> Result<bool> {
    match at.checked_add(wanted.len() as u64) {
        Some(end) if end <= source.size() => Ok(source.read_span(at..end)? == wanted),
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::super::zip::tests::archive as zip;
    use super::*;
    use crate::error::Error;
    use crate::io::SliceAt;

    fn objection_to(bytes: &[u8], path: &str, format: Option<Format>) -> Option<FormatError> {
        objection(&SliceAt::new(bytes), path, format).unwrap()
    }

    fn word(bytes: &[u8]) -> Option<&'static str> {
        objection_to(bytes, "x.dat", None).map(|cause| cause.word())
    }

    /// Bytes at a place in zeros.
    fn at(place: usize, bytes: &[u8], size: usize) -> Vec<u8> {
        let mut file = vec![0; size];
        file[place..place + bytes.len()].copy_from_slice(bytes);
        file
    }

    #[test]
    fn code_and_archives_are_told_by_their_first_bytes() {
        for (magic, what) in CODE {
            let file = [magic, &[0; 100][..]].concat();
            assert_eq!(objection_to(&file, "x.dat", None), executable(what));
            assert_eq!(objection_to(magic, "x.dat", None), executable(what));
        }
        for (magic, what) in ARCHIVES {
            let FormatError::Unsupported(why) = objection_to(magic, "x.dat", None).unwrap() else { panic!("{what}") };
            assert!(why.starts_with(what) && why.ends_with("not provably plain data"), "{why}");
        }
        for pickle in [b"\x80\x00N.", b"\x80\x01N.", b"\x80\x02N.", b"\x80\x05N."] {
            assert_eq!(word(pickle), Some("executable"));
        }
        assert_eq!(word(b"\xa7\r\r\n\0\0\0\0code"), Some("executable"));
        assert_eq!(word(b"\x03\xf3\r\ncode"), Some("executable"));
        assert_eq!(word(b"BZh91AY&SY"), Some("unsupported"));
        assert_eq!(word(b"x^\x8b\x0b"), Some("unsupported"));
        let windows = [at(0x3c, &[0x80], 0x80), b"PE\0\0".to_vec()].concat();
        assert_eq!(word(&[b"MZ", &windows[2..]].concat()), Some("executable"));
    }

    #[test]
    fn text_and_other_data_pass() {
        for plain in [
            &b""[..],
            b"{\"hidden_size\": 384}",
            b"MZ\nthe\nof\n",
            b"x^2 + y^2 = z^2, \xc3\xa4",
            b"x^2 \xc3",
            b"cat\ndog\n(\n",
            b"BZh9 is a name",
            b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR",
            b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\x02",
            b"#!/bin/sh\n",
            b"import os\n",
        ] {
            assert_eq!(word(plain), None, "{plain:?}");
        }
        assert_eq!(word(&[0; 4096]), None);
        assert_eq!(word(&[0x80; 100_000]), None);
    }

    #[test]
    fn hdf5_is_found_behind_a_block_of_the_user() {
        let magic = b"\x89HDF\r\n\x1a\n";
        for place in [0, 512, 1024, 2048, 65536] {
            assert_eq!(word(&at(place, magic, place + 8)), Some("executable"), "{place}");
        }
        for place in [256, 768, 1536] {
            assert_eq!(word(&at(place, magic, 4096)), None, "{place}");
        }
        let safetensors = objection_to(&at(512, magic, 4096), "m.safetensors", Some(Format::Safetensors));
        assert_eq!(safetensors.unwrap().word(), "executable");
    }

    #[test]
    fn tar_archives_are_told_by_their_checksum() {
        let mut header = at(0, b"model_config.yaml", 512);
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert_eq!(word(&header), Some("unsupported"), "without a magic, as before POSIX");
        assert_eq!(word(&header[..511]), None);
        header[0] = b'n';
        assert_eq!(word(&header), None);
    }

    #[test]
    fn zip_archives_are_found_from_their_end() {
        let whole = zip(&[("__main__.py", b"import os", false)]);
        let behind = |front: &[u8], tail: &[u8]| word(&[front, &whole, tail].concat());
        for front in [&[0; 100][..], &[7; 200_000]] {
            for tail in [&b""[..], b"x", &[0; 65535]] {
                assert_eq!(behind(front, tail), Some("executable"), "{} {}", front.len(), tail.len());
            }
            assert_eq!(behind(front, &[0; 65536]), None, "too far from the end for any reader");
        }
        let empty = [&[0; 100][..], &zip(&[])].concat();
        assert_eq!(word(&empty), None, "holds nothing");
        assert_eq!(word(&at(50, b"PK\x05\x06", 200)), None, "leads to no directory");
        let zip64 = [&[0; 30][..], b"PK\x06\x07", &[0; 16], &zip(&[])].concat();
        assert_eq!(word(&zip64), Some("executable"));
        let model = |format| objection_to(&whole, "m", Some(format)).map(|cause| cause.word());
        assert_eq!((model(Format::Npz), model(Format::Onnx)), (None, Some("unsupported")));
        let old = [&[0; 100][..], &whole].concat();
        assert_eq!(objection_to(&old, "m.pt", Some(Format::Pytorch)).unwrap().word(), "executable");
    }

    #[test]
    fn names_that_loaders_go_by_count() {
        let opcodes = *b"ios\nsystem\n"; // which nothing at their start tells from a text
        let by_name = |path, format| objection_to(&opcodes, path, format).map(|cause| cause.word());
        for path in ["a.pkl", "d/a.PT", "pytorch_model.bin", "a.joblib", "a.sav", "a.dill"] {
            for format in [None, Some(Format::Onnx), Some(Format::Safetensors)] {
                assert_eq!(by_name(path, format), Some("executable"), "{path}");
            }
            assert_eq!(by_name(path, Some(Format::Pytorch)), None, "{path}");
        }
        for path in ["saved_model.pb", "d/frozen.PB", "saved_model.pbtxt", "model.ckpt-7.meta"] {
            assert_eq!(by_name(path, None), Some("executable"), "{path}");
        }
        assert_eq!(objection_to(&[0; 100], "a.pkl", None), None, "no unpickler gets anywhere");
        for path in ["tokenizer.model", "config.pbtxt", "a.meta", "a.b/bin", "variables.data-00000-of-00001"] {
            assert_eq!(by_name(path, None), None, "{path}");
        }
        let onnx = b"\x08\x08\x3a\x00\x42\x02\x10\x0d";
        assert_eq!(objection_to(onnx, "m.pb", Some(Format::Onnx)), None);
        assert!(objection_to(onnx, "saved_model.pb", Some(Format::Onnx)).is_some(), "may be both");
        let name = "model.safetensors";
        for length in [0x178u64, 0x280, 0x9c78] {
            let head = [&length.to_le_bytes()[..], b"{", &[b' '; 100]].concat();
            assert_eq!(objection_to(&head, name, Some(Format::Safetensors)), None, "{length:#x}");
            assert!(objection_to(&head, "weights.dat", Some(Format::Safetensors)).is_some(), "{length:#x}");
        }
    }

    #[test]
    fn failures_of_reading_are_no_pass() {
        struct Broken;
        impl ReadAt for Broken {
            fn size(&self) -> u64 {
                100
            }
            fn read_at(&self, _: u64, _: &mut [u8]) -> Result<()> {
                Err(Error::Cancelled)
            }
            fn name(&self) -> &str {
                "broken"
            }
        }
        assert!(matches!(objection(&Broken, "a", None), Err(Error::Cancelled)));
    }
}
