//! Zip archives, read strictly: those that every reader reads alike.
//!
//! The archive is all of the file: members lie one after the other from its first byte to the central directory, in the
//! order of the directory, without gap or overlap; nothing follows the end record. The directory and the header of each
//! member must agree. Members are stored or deflated, never encrypted; names are canonical relative paths, and differ by
//! more than case. Of the extra fields, those that could give a member another name are refused.
//!
//! The CRC-32 of a stored member of at most 1 MiB is checked when the archive is read, that of a compressed one when it
//! is inflated. That a large stored one has not changed, a signature has to say.

use std::collections::HashSet;

use super::Format;
use super::cursor::Cursor;
use super::inflate::MAX_RATIO;
use crate::error::{Cause, FormatError, Result};
use crate::io::tree::is_canonical;
use crate::io::{ReadAt, ReadAtExt};
use crate::tensor::Span;

/// Largest central directory accepted.
const MAX_DIRECTORY: u64 = 64 << 20;
/// Largest stored member whose checksum is checked at once.
const MAX_CHECKED: u64 = 1 << 20;

const END: u64 = 22;
const LOCATOR: u64 = 20;
const END64: u64 = 56;
const CENTRAL: u64 = 46;
const LOCAL: u64 = 30;

/// What stands in a field whose value is in a zip64 record.
const ELSEWHERE: u32 = u32::MAX;
/// Sizes and checksum follow the data.
const DESCRIPTOR: u16 = 1 << 3;
const UTF8: u16 = 1 << 11;
/// Known flags: the above, and how hard the compressor tried.
const FLAGS: u16 = DESCRIPTOR | UTF8 | 0b110;

const ZIP64: u16 = 1;
/// Extra fields that change nothing: the padding of PyTorch, times and owners of Info-ZIP.
const HARMLESS: [u16; 3] = [0x4246, 0x5455, 0x7875];

/// A file in an archive.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) is_deflated: bool,
    /// Where its data lie, compressed if they are.
    pub(super) span: Span,
    /// Size of what it holds, uncompressed.
    pub(super) size: u64,
    pub(super) crc32: u32,
}

/// The files of an archive, in the order of their bytes.
pub(super) fn read(source: &dyn ReadAt) -> Result<Vec<Member>> {
    let fail = |problem: String| FormatError::Archive(problem).on(source.name());
    let (entries, directory) = directory(source)?;
    let mut members = Vec::with_capacity(entries.len());
    let mut at = 0;
    for (i, entry) in entries.iter().enumerate() {
        let end = entries.get(i + 1).map_or(directory, |next| next.offset);
        if entry.offset != at || end < at {
            return Err(fail(format!("member {:?} does not begin where the one before it ends", entry.name)));
        }
        let span = local(source, entry, end)?;
        at = end;
        if entry.is_directory() {
            continue;
        }
        let (size, crc32, is_deflated) = (entry.size, entry.crc32, entry.method == 8);
        if !is_deflated && size <= MAX_CHECKED && crc32fast::hash(&source.read_span(span.clone())?) != crc32 {
            return Err(fail(format!("the checksum of member {:?} does not match", entry.name)));
        }
        members.push(Member { name: entry.name.clone(), is_deflated, span, size, crc32 });
    }
    if at != directory {
        return Err(fail("bytes before the central directory belong to no member".into()));
    }
    Ok(members)
}

/// The format of a zip archive, if it has a pickle or an array in it: PyTorch's also if it is broken, so that reading it
/// says what is wrong.
pub(super) fn detect(source: &dyn ReadAt) -> Option<Format> {
    let Ok((entries, _)) = directory(source) else { return Some(Format::Pytorch) };
    // PyTorch's own reader finds members whatever their case; archives of other pickles are refused as checkpoints
    let has = |ending: &str| {
        let ends = |name: &str| {
            name.get(name.len().wrapping_sub(ending.len())..).is_some_and(|e| e.eq_ignore_ascii_case(ending))
        };
        entries.iter().any(|entry| ends(&entry.name))
    };
    if has(".pkl") || has(".pickle") {
        return Some(Format::Pytorch);
    }
    has(".npy").then_some(Format::Npz)
}

/// What the central directory says of a member.
#[derive(Debug)]
struct Entry {
    name: String,
    flags: u16,
    method: u16,
    crc32: u32,
    compressed: u64,
    size: u64,
    offset: u64,
}

impl Entry {
    fn is_directory(&self) -> bool {
        self.name.ends_with('/')
    }
}

/// The entries of the central directory, and where it begins.
fn directory(source: &dyn ReadAt) -> Result<(Vec<Entry>, u64)> {
    let fail = |problem: &str| FormatError::Archive(problem.to_owned()).on(source.name());
    let (count, span) = end(source)?;
    let size = span.end - span.start;
    if size > MAX_DIRECTORY {
        return Err(FormatError::HeaderTooLarge { size, limit: MAX_DIRECTORY }.on(source.name()));
    }
    if count > size / CENTRAL {
        return Err(fail("more members than the central directory has room for"));
    }
    let start = span.start;
    let mut cursor = Cursor::new(source, span, "the central directory of the archive ends early");
    let mut entries = Vec::with_capacity(count as usize);
    for _ in 0..count {
        entries.push(central(&mut cursor)?);
    }
    if !cursor.is_at_end() {
        return Err(fail("the central directory is larger than its entries"));
    }
    let folded: Vec<_> = entries.iter().map(|entry| entry.name.to_ascii_lowercase()).collect();
    let mut names = HashSet::new();
    for (name, entry) in folded.iter().zip(&entries) {
        if !names.insert(name.trim_end_matches('/')) {
            let problem = format!("two members are called {:?}, or differ only in case", entry.name);
            return Err(FormatError::Archive(problem).on(source.name()));
        }
    }
    let files: HashSet<&str> = folded.iter().map(String::as_str).collect();
    for (name, entry) in folded.iter().zip(&entries) {
        if name.match_indices('/').any(|(at, _)| files.contains(&name[..at])) {
            let problem = format!("member {:?} lies in another that is no directory", entry.name);
            return Err(FormatError::Archive(problem).on(source.name()));
        }
    }
    Ok((entries, start))
}

/// Number of members, and place of the central directory.
fn end(source: &dyn ReadAt) -> Result<(u64, Span)> {
    let fail = |problem: &str| Err(FormatError::Archive(problem.to_owned()).on(source.name()));
    let Some(at) = source.size().checked_sub(END) else {
        return Err(FormatError::Truncated("no end record of the archive").on(source.name()));
    };
    let mut cursor = Cursor::new(source, at..source.size(), "no end record of the archive");
    if cursor.array()? != *b"PK\x05\x06" {
        return fail("it does not end with an end record: cut off, or something follows");
    }
    let (disk, first_disk) = (cursor.u16()?, cursor.u16()?);
    let (count, total) = (cursor.u16()?, cursor.u16()?);
    let (size, start, comment) = (cursor.u32()?, cursor.u32()?, cursor.u16()?);
    if disk != 0 || first_disk != 0 || count != total {
        return fail("more than one disk");
    }
    if comment != 0 {
        return fail("a comment, or it is cut off");
    }
    let Some(record) = end64(source, at)? else {
        let span = u64::from(start)..u64::from(start) + u64::from(size);
        return match span.end == at {
            true => Ok((count.into(), span)),
            false => fail("the central directory does not end at the end record"),
        };
    };
    let (total, span) = record;
    let agree = |short: u32, elsewhere: u32, long: u64| short == elsewhere || u64::from(short) == long;
    let agrees = agree(count.into(), u16::MAX.into(), total)
        && agree(size, ELSEWHERE, span.end - span.start)
        && agree(start, ELSEWHERE, span.start);
    if agrees { Ok((total, span)) } else { fail("its two end records do not agree") }
}

/// The same from the zip64 record, if there is one before the end record at `at`.
fn end64(source: &dyn ReadAt, at: u64) -> Result<Option<(u64, Span)>> {
    let fail = |problem: &str| Err(FormatError::Archive(problem.to_owned()).on(source.name()));
    let Some(locator) = at.checked_sub(LOCATOR) else { return Ok(None) };
    let mut cursor = Cursor::new(source, locator..at, "no zip64 record of the archive");
    if cursor.array()? != *b"PK\x06\x07" {
        return Ok(None);
    }
    let (disk, record, disks) = (cursor.u32()?, cursor.u64()?, cursor.u32()?);
    if disk != 0 || disks != 1 {
        return fail("more than one disk");
    }
    if locator.checked_sub(END64) != Some(record) {
        return fail("its zip64 record is not before its locator");
    }
    let mut cursor = Cursor::new(source, record..locator, "no zip64 record of the archive");
    if cursor.array()? != *b"PK\x06\x06" || cursor.u64()? != END64 - 12 {
        return fail("its zip64 record is not before its locator");
    }
    cursor.skip(4)?; // versions
    let (disk, first_disk) = (cursor.u32()?, cursor.u32()?);
    let (count, total, size, start) = (cursor.u64()?, cursor.u64()?, cursor.u64()?, cursor.u64()?);
    if disk != 0 || first_disk != 0 || count != total {
        return fail("more than one disk");
    }
    match start.checked_add(size) == Some(record) {
        true => Ok(Some((total, start..record))),
        false => fail("the central directory does not end at the end record"),
    }
}

/// The next entry of the central directory.
fn central(cursor: &mut Cursor<'_>) -> Result<Entry> {
    if cursor.array()? != *b"PK\x01\x02" {
        return Err(cursor.fail(FormatError::Archive("an entry of the central directory does not begin as one".into())));
    }
    let made_by = cursor.u16()?;
    cursor.skip(2)?; // version needed
    let (flags, method) = (cursor.u16()?, cursor.u16()?);
    cursor.skip(4)?; // time
    let (crc32, compressed, size) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
    let (name, extra, comment) = (cursor.u16()?, cursor.u16()?, cursor.u16()?);
    let disk = cursor.u16()?;
    cursor.skip(2)?; // whether it is text
    let (attributes, offset) = (cursor.u32()?, cursor.u32()?);
    let name = cursor.take(name.into())?.to_vec();
    let extra = cursor.take(extra.into())?.to_vec();
    let entry = (|| {
        let name = String::from_utf8(name).map_err(|_| "a name that is not UTF-8".to_owned())?;
        let problem = |problem: &str| format!("member {name:?}: {problem}");
        if !name.is_ascii() && flags & UTF8 == 0 {
            return Err(problem("its name is in an unknown encoding"));
        }
        let is_directory = name.ends_with('/');
        if !is_canonical(name.strip_suffix('/').unwrap_or(&name)) || name.chars().any(char::is_control) {
            return Err(problem("its name is no canonical relative path"));
        }
        if comment != 0 || disk != 0 {
            return Err(problem("it has a comment, or lies on another disk"));
        }
        if flags & !FLAGS != 0 {
            return Err(problem("it is encrypted, or of a kind that is not read here"));
        }
        let kind = attributes >> 16 & 0o170_000; // of file, where Unix made it
        if made_by >> 8 == 3 && kind != 0 && kind != if is_directory { 0o040_000 } else { 0o100_000 } {
            return Err(problem("it is a link, or no regular file"));
        }
        let mut wide = zip64(&extra).map_err(problem)?.unwrap_or_default();
        let mut widen = |short: u32| -> Result<u64, String> {
            if short != ELSEWHERE {
                return Ok(short.into());
            }
            let (long, rest) = wide.split_first_chunk().ok_or_else(|| problem("its zip64 field is too short"))?;
            wide = rest;
            Ok(u64::from_le_bytes(*long))
        };
        let (size, compressed, offset) = (widen(size)?, widen(compressed)?, widen(offset)?);
        if !wide.is_empty() {
            return Err(problem("its zip64 field holds more than is wanted"));
        }
        match method {
            0 if compressed != size => return Err(problem("it is stored, and its two sizes differ")),
            0 => {}
            8 if size > compressed.saturating_mul(MAX_RATIO) => return Err(problem("nothing compresses so well")),
            8 => {}
            _ => return Err(problem(&format!("compression method {method}"))),
        }
        if is_directory && (size != 0 || compressed != 0) {
            return Err(problem("a directory that holds data"));
        }
        Ok(Entry { name, flags, method, crc32, compressed, size, offset })
    })();
    entry.map_err(|problem| cursor.fail(FormatError::Archive(problem)))
}

/// Checks all that lies before `end` for `entry`, and says where its data are.
fn local(source: &dyn ReadAt, entry: &Entry, end: u64) -> Result<Span> {
    let fail = |problem: &str| FormatError::Archive(format!("member {:?}: {problem}", entry.name)).on(source.name());
    let beyond = || fail("it does not end where the next one begins");
    let head_end = entry.offset.checked_add(LOCAL).filter(|at| *at <= end).ok_or_else(beyond)?;
    let head = source.read_span(entry.offset..head_end)?;
    let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]); // of the 30 bytes
    let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if !head.starts_with(b"PK\x03\x04") {
        return Err(fail("it does not begin as one"));
    }
    let (name_len, extra_len) = (u64::from(u16_at(26)), u64::from(u16_at(28)));
    let start = head_end + name_len + extra_len;
    let data_end = start.checked_add(entry.compressed).filter(|at| *at <= end).ok_or_else(beyond)?;
    let rest = source.read_span(head_end..start)?;
    let (name, extra) = rest.split_at(name_len as usize);
    if name != entry.name.as_bytes() || u16_at(6) != entry.flags || u16_at(8) != entry.method {
        return Err(fail("its header and the central directory do not agree"));
    }
    let is_deferred = entry.flags & DESCRIPTOR != 0;
    let wide = zip64(extra).map_err(fail)?;
    let (crc, sizes) = (u32_at(14), [(u32_at(22), entry.size), (u32_at(18), entry.compressed)]);
    let agrees = (crc == entry.crc32 || is_deferred && crc == 0)
        && sizes.iter().all(|(short, long)| match *short {
            ELSEWHERE => wide.is_some(),
            0 if is_deferred => true,
            short => u64::from(short) == *long,
        });
    // sizes, then, as PyTorch writes it beyond 4 GiB, the offset
    let wide: Vec<_> = wide.unwrap_or_default().chunks(8).map(|c| c.try_into().map_or(1, u64::from_le_bytes)).collect();
    let wide_agrees = match wide[..] {
        [] => true,
        [offset] => is_deferred && offset == entry.offset,
        [size, compressed, ref offset @ ..] if offset.is_empty() || is_deferred && *offset == [entry.offset] => {
            [(size, entry.size), (compressed, entry.compressed)]
                .iter()
                .all(|(found, wanted)| found == wanted || is_deferred && *found == 0)
        }
        _ => false,
    };
    if !agrees || !wide_agrees {
        return Err(fail("its header and the central directory do not agree"));
    }
    let descriptor = source.read_span(data_end..end.min(data_end + 25))?;
    let long = [entry.compressed.to_le_bytes(), entry.size.to_le_bytes()].concat();
    let short = [&long[..4], &long[8..12]].concat(); // right where both fit, as checked
    let fits = entry.compressed.max(entry.size) <= u64::from(u32::MAX);
    let unsigned = descriptor.strip_prefix(b"PK\x07\x08").filter(|rest| rest.len() >= 12).unwrap_or(&descriptor);
    let ends_well = match unsigned.split_first_chunk() {
        None => !is_deferred && descriptor.is_empty(),
        Some((crc, sizes)) => {
            is_deferred && u32::from_le_bytes(*crc) == entry.crc32 && (sizes == long || fits && sizes == short)
        }
    };
    if !ends_well {
        return Err(beyond());
    }
    Ok(start..data_end)
}

/// The zip64 field among extra fields that must all be known.
fn zip64(mut extra: &[u8]) -> Result<Option<&[u8]>, &'static str> {
    let mut found = None;
    while !extra.is_empty() {
        let broken = "its extra fields are broken";
        let ([a, b, c, d], rest) = extra.split_first_chunk().ok_or(broken)?;
        let len = usize::from(u16::from_le_bytes([*c, *d]));
        let (field, rest) = rest.split_at_checked(len).ok_or(broken)?;
        match u16::from_le_bytes([*a, *b]) {
            ZIP64 if found.replace(field).is_some() || !len.is_multiple_of(8) => return Err(broken),
            ZIP64 => {}
            id if HARMLESS.contains(&id) => {}
            _ => return Err("an extra field that is not known here"),
        }
        extra = rest;
    }
    Ok(found)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::error::Error;
    use crate::io::SliceAt;

    /// An archive of members by name, compressed if so said.
    pub(in super::super) fn archive(members: &[(&str, &[u8], bool)]) -> Vec<u8> {
        let (mut file, mut directory) = (Vec::new(), Vec::new());
        for (name, data, is_deflated) in members {
            let offset = file.len() as u32;
            let body = if *is_deflated { miniz_oxide::deflate::compress_to_vec(data, 6) } else { data.to_vec() };
            let method = if *is_deflated { 8u16 } else { 0 };
            let common = [
                &20u16.to_le_bytes()[..],
                &UTF8.to_le_bytes(),
                &method.to_le_bytes(),
                &[0; 4],
                &crc32fast::hash(data).to_le_bytes(),
                &(body.len() as u32).to_le_bytes(),
                &(data.len() as u32).to_le_bytes(),
                &(name.len() as u16).to_le_bytes(),
                &[0; 2],
            ]
            .concat();
            file.extend([b"PK\x03\x04", &common[..], name.as_bytes(), &body].concat());
            directory.extend(
                [b"PK\x01\x02\x14\x03", &common[..], &[0; 10], &offset.to_le_bytes(), name.as_bytes()].concat(),
            );
        }
        let count = (members.len() as u16).to_le_bytes();
        let (size, start) = ((directory.len() as u32).to_le_bytes(), (file.len() as u32).to_le_bytes());
        [&file[..], &directory, b"PK\x05\x06", &[0; 4], &count, &count, &size, &start, &[0; 2]].concat()
    }

    /// The same with the zip64 record that PyTorch always writes.
    fn with_zip64(archive: &[u8]) -> Vec<u8> {
        let (rest, end) = archive.split_at(archive.len() - 22);
        let wide = |at: usize, len: usize| [&end[at..at + len], &[0; 8][len..]].concat();
        let parts: [&[u8]; 12] = [
            rest,
            b"PK\x06\x06",
            &44u64.to_le_bytes(),
            &[45, 0, 45, 0],
            &[0; 8],
            &wide(8, 2),
            &wide(10, 2),
            &wide(12, 4),
            &wide(16, 4),
            &[&b"PK\x06\x07\0\0\0\0"[..], &(rest.len() as u64).to_le_bytes(), &[1, 0, 0, 0]].concat(),
            end,
            &[],
        ];
        parts.concat()
    }

    fn problem(bytes: &[u8]) -> String {
        match read(&SliceAt::new(bytes)) {
            Err(Error::Format { cause: FormatError::Archive(problem), .. }) => problem,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn whole_archives_are_read() {
        let whole = archive(&[("a/b", b"12345", false), ("c", &[7; 5000], true), ("empty", b"", false)]);
        for bytes in [whole.clone(), with_zip64(&whole)] {
            let members = read(&SliceAt::new(&bytes)).unwrap();
            let names: Vec<_> = members.iter().map(|member| (&*member.name, member.size, member.is_deflated)).collect();
            assert_eq!(names, [("a/b", 5, false), ("c", 5000, true), ("empty", 0, false)]);
            assert_eq!(bytes[members[0].span.start as usize..members[0].span.end as usize], *b"12345");
        }
        assert_eq!(read(&SliceAt::new(archive(&[]))).unwrap(), []);
    }

    #[test]
    fn every_trick_is_refused_for_its_cause() {
        let whole = archive(&[("a", b"12345", false), ("b", b"67", false)]);
        let (second, directory) = (30 + 1 + 5, 2 * 31 + 7);
        let end = whole.len() - 22;
        assert!(problem(&[b"x", &whole[..]].concat()).contains("does not end at the end record"));
        assert!(problem(&[&whole[..], b"x"].concat()).contains("does not end with an end record"));
        assert!(problem(&whole[..whole.len() - 1]).contains("does not end with an end record"));
        let truncated = read(&SliceAt::new(&whole[..20])).unwrap_err();
        assert!(matches!(truncated, Error::Format { cause: FormatError::Truncated(_), .. }), "{truncated}");

        let patched = |patches: &[(usize, u8)]| {
            let mut bytes = whole.clone();
            for (at, byte) in patches {
                bytes[*at] = *byte;
            }
            problem(&bytes)
        };
        let (first_entry, second_entry) = (directory, directory + 47);
        assert!(patched(&[(end + 4, 1)]).contains("more than one disk"));
        assert!(patched(&[(end + 20, 1)]).contains("a comment"));
        assert!(patched(&[(end + 8, 9), (end + 10, 9)]).contains("more members than"));
        assert!(patched(&[(end + 8, 1), (end + 10, 1)]).contains("larger than its entries"));
        assert!(patched(&[(6, 1), (first_entry + 8, 1)]).contains("encrypted"));
        assert!(patched(&[(8, 12), (first_entry + 10, 12)]).contains("compression method 12"));
        assert!(patched(&[(second_entry + 46, b'a')]).contains("two members are called \"a\""));
        assert!(patched(&[(second_entry + 46, b'A')]).contains("differ only in case"));
        assert!(patched(&[(second_entry + 46, b'c')]).contains("do not agree"));
        assert!(patched(&[(first_entry + 46, 0xff)]).contains("not UTF-8"));
        assert!(patched(&[(first_entry + 46, b'.')]).contains("no canonical relative path"));
        assert!(patched(&[(first_entry + 41, 0xa0)]).contains("a link"));
        assert!(patched(&[(second_entry + 42, 0)]).contains("does not end where"));
        assert!(patched(&[(first_entry + 42, 1)]).contains("does not begin where"));
        assert!(patched(&[(second, b'Q')]).contains("does not begin as one"));
        assert!(patched(&[(18, 4), (22, 4)]).contains("do not agree"));
        assert!(patched(&[(first_entry + 24, 4)]).contains("its two sizes differ"));
        let shorter = [(18, 4), (22, 4), (first_entry + 20, 4), (first_entry + 24, 4)];
        assert!(patched(&shorter).contains("does not end where the next one begins"));
        assert!(patched(&[(32, b'x')]).contains("checksum"));
        assert!(
            patched(&[
                (first_entry + 24, 0xff),
                (first_entry + 25, 0xff),
                (first_entry + 26, 0xff),
                (first_entry + 27, 0xff)
            ])
            .contains("zip64 field is too short")
        );
        let bomb = archive(&[("a", &[0; 100_000], true)]);
        let at = bomb.len() - 22 - 47;
        assert!(
            problem(&[&bomb[..at + 24], &[0xff, 0xff, 0xff, 0x7f], &bomb[at + 28..]].concat())
                .contains("compresses so well")
        );
        for names in [["a", "a/b"], ["A/b", "a"]] {
            assert!(problem(&archive(&[(names[0], b"", false), (names[1], b"", false)])).contains("lies in another"));
        }
        assert!(problem(&archive(&[("a/", b"1", false)])).contains("a directory that holds data"));
        let mut two = with_zip64(&whole);
        let at = two.len() - 22 - 20 - 56 + 32;
        two[at] = 1;
        two[at - 8] = 1;
        assert!(problem(&two).contains("two end records do not agree"));
    }

    #[test]
    fn descriptors_may_follow_the_data_in_four_ways_and_no_other() {
        let plain = archive(&[("a", b"12345", false)]);
        let crc = crc32fast::hash(b"12345").to_le_bytes();
        let deferred = |descriptor: &[u8]| {
            let mut file = plain.clone();
            file[6] |= 8; // bit 3, and no sizes
            file[14..26].fill(0);
            let (data, rest) = file.split_at_mut(36);
            rest[8] |= 8;
            let at = rest.len() - 6;
            rest[at..at + 4].copy_from_slice(&(36 + descriptor.len() as u32).to_le_bytes());
            read(&SliceAt::new([data, descriptor, rest].concat())).is_ok()
        };
        let (short, long) = ([5, 0, 0, 0, 5, 0, 0, 0], [5u64.to_le_bytes(), 5u64.to_le_bytes()].concat());
        for sizes in [&short[..], &long] {
            assert!(deferred(&[&crc, sizes].concat()));
            assert!(deferred(&[b"PK\x07\x08", &crc, sizes].concat()));
            assert!(!deferred(&[b"PK\x07\x08", &crc, sizes, b"x"].concat()));
            assert!(!deferred(&[b"PK\x07\x08", &[0; 4], sizes].concat()));
            assert!(!deferred(sizes));
        }
        assert!(!deferred(b""));
    }

    /// Zeros, but for some parts.
    struct Sparse(Vec<(u64, Vec<u8>)>);

    impl ReadAt for Sparse {
        fn size(&self) -> u64 {
            self.0.iter().map(|(at, part)| at + part.len() as u64).max().unwrap_or(0)
        }

        fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
            buf.fill(0);
            for (at, part) in &self.0 {
                for (i, byte) in part.iter().enumerate() {
                    if let Some(byte_at) = (at + i as u64).checked_sub(offset).filter(|at| *at < buf.len() as u64) {
                        buf[byte_at as usize] = *byte;
                    }
                }
            }
            Ok(())
        }

        fn name(&self) -> &str {
            "sparse"
        }
    }

    #[test]
    fn members_beyond_4_gib_are_read_as_pytorch_writes_them() {
        const LARGE: u64 = 5 << 30;
        let field = |numbers: &[u64]| {
            let numbers: Vec<_> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            [&[1, 0], &(numbers.len() as u16).to_le_bytes()[..], &numbers].concat()
        };
        let fixed = |crc: u32, size: u32, name: &str, extra: &[u8]| {
            let sizes = [size.to_le_bytes(), size.to_le_bytes()].concat();
            let lengths = [(name.len() as u16).to_le_bytes(), (extra.len() as u16).to_le_bytes()].concat();
            [&[0, 0, 8, 8, 0, 0, 0, 0, 0, 0][..], &crc.to_le_bytes(), &sizes, &lengths].concat()
        };
        let local =
            |name: &str, extra: &[u8]| [b"PK\x03\x04", &fixed(0, 0, name, extra)[..], name.as_bytes(), extra].concat();
        let central = |crc, size, offset: u32, name: &str, extra: &[u8]| {
            let fixed = [&fixed(crc, size, name, extra)[..], &[0; 10], &offset.to_le_bytes()].concat();
            [b"PK\x01\x02\0\0", &fixed[..], name.as_bytes(), extra].concat()
        };
        let descriptor = |crc: u32, size: u64| {
            [b"PK\x07\x08", &crc.to_le_bytes()[..], &size.to_le_bytes(), &size.to_le_bytes()].concat()
        };
        let source = |first_field: &[u64], second_field: &[u64]| {
            let first = local("a", &field(first_field));
            let data_end = first.len() as u64 + LARGE;
            let second = data_end + 24;
            let crc = crc32fast::hash(b"123");
            let mut tail = descriptor(9, LARGE);
            tail.extend(
                [local("b", &field(&[second_field, &[second]].concat())), b"123".to_vec(), descriptor(crc, 3)].concat(),
            );
            let start = data_end + tail.len() as u64;
            tail.extend(central(9, ELSEWHERE, 0, "a", &field(&[LARGE, LARGE])));
            tail.extend(central(crc, 3, ELSEWHERE, "b", &field(&[second])));
            let record = data_end + tail.len() as u64;
            let counts = [2u64, 2, record - start, start].map(u64::to_le_bytes).concat();
            tail.extend([b"PK\x06\x06", &44u64.to_le_bytes()[..], &[0; 12], &counts].concat());
            tail.extend([b"PK\x06\x07\0\0\0\0", &record.to_le_bytes()[..], &[1, 0, 0, 0]].concat());
            let size = ((record - start) as u32).to_le_bytes();
            tail.extend([b"PK\x05\x06\0\0\0\0\x02\0\x02\0", &size[..], &[0xff; 4], &[0; 2]].concat());
            Sparse(vec![(0, first), (data_end, tail)])
        };
        for first in [[LARGE, 0], [LARGE, LARGE]] {
            let members = read(&source(&first, &[])).unwrap();
            assert_eq!((members[0].size, members[1].size), (LARGE, 3));
        }
        for broken in [source(&[LARGE, 1], &[]), source(&[LARGE - 1, 0], &[]), source(&[LARGE, 0], &[4])] {
            let refused = read(&broken).unwrap_err().to_string();
            assert!(refused.contains("do not agree"), "{refused}");
        }
    }

    #[test]
    fn every_truncation_and_flip_is_refused_or_reads_within_the_file() {
        let whole = with_zip64(&archive(&[("a/b.npy", b"12345", false), ("c", &[7; 50], true)]));
        for end in 0..whole.len() {
            assert!(read(&SliceAt::new(&whole[..end])).is_err(), "{end}");
        }
        for i in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[i / 8] ^= 1 << (i % 8);
            let source = SliceAt::new(&flipped);
            detect(&source);
            for member in read(&source).unwrap_or_default() {
                assert!(member.span.start <= member.span.end && member.span.end <= flipped.len() as u64);
            }
        }
    }

    #[test]
    fn archives_are_told_by_what_they_hold() {
        let told = |names: &[&str]| {
            let members: Vec<_> = names.iter().map(|name| (*name, &b""[..], false)).collect();
            detect(&SliceAt::new(archive(&members)))
        };
        assert_eq!(told(&["x/version", "x/data.pkl"]), Some(Format::Pytorch));
        assert_eq!(told(&["data.pkl"]), Some(Format::Pytorch));
        assert_eq!(told(&["x/y/DATA.PKL", "z"]), Some(Format::Pytorch));
        assert_eq!(told(&["x.pickle"]), Some(Format::Pytorch));
        assert_eq!(told(&["a.npy", "b/c.npy"]), Some(Format::Npz));
        assert_eq!(told(&["a.npy", "b.txt"]), Some(Format::Npz));
        assert_eq!(told(&["word/document.xml", "npy"]), None);
        assert_eq!(told(&[]), None);
        assert_eq!(detect(&SliceAt::new(b"PK\x03\x04")), Some(Format::Pytorch));
    }
}
