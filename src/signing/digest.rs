//! The hashes that OMS names, over files and parts of files, at the speed of the machine.
//!
//! BLAKE3 hashes one file on all cores, each reading its own ranges. The others take their bytes in order: the next piece
//! is read, and decrypted if need be, by a core that has nothing else to do, while this one hashes.

use std::ops::Range;

use blake2::Blake2b512;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::groups::{self, GROUP, Value};
use crate::error::Result;
use crate::io::ReadAt;
use crate::io::progress::{Progress, step};

/// Bytes read at a time: two such pieces stay in the cache of one core.
pub(super) const PIECE: usize = 512 << 10;

/// A hash function of OpenSSF Model Signing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[allow(clippy::exhaustive_enums)]
pub enum HashType {
    /// SHA-256 (FIPS 180-4).
    #[default]
    Sha256,
    /// BLAKE2b with 64 bytes (RFC 7693).
    Blake2b,
    /// BLAKE3 with 32 bytes: also hashes one file on several threads.
    Blake3,
}

impl HashType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Blake2b, Self::Blake3];

    /// The name in statements and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Blake2b => "blake2b",
            Self::Blake3 => "blake3",
        }
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.name() == name)
    }

    /// Bytes of a digest.
    pub fn size(self) -> usize {
        if self == Self::Blake2b { 64 } else { 32 }
    }

    /// The digest of bytes in memory.
    pub(super) fn of_slices(self, slices: &[&[u8]]) -> Vec<u8> {
        let mut hasher = Hasher::new(self);
        slices.iter().for_each(|bytes| hasher.update(bytes));
        hasher.finish()
    }

    /// Hashes a part of a source, which must lie within it.
    pub(super) fn of(
        self,
        source: &dyn ReadAt,
        part: Range<u64>,
        scratch: &mut Scratch,
        progress: &dyn Progress,
    ) -> Result<Vec<u8>> {
        if self == Self::Blake3 && part.end - part.start > PIECE as u64 {
            let values = subtrees(source, part, PIECE, progress)?;
            return Ok(groups::root(&values).to_vec());
        }
        self.in_order(source, part, &mut [], scratch, progress)
    }

    /// The same, and in the same pass the values of the [groups](groups) of the part: the bytes read once, hashed twice.
    pub(super) fn of_with_groups(
        self,
        source: &dyn ReadAt,
        part: Range<u64>,
        scratch: &mut Scratch,
        progress: &dyn Progress,
    ) -> Result<(Vec<u8>, Box<[Value]>)> {
        let len = part.end - part.start;
        if self == Self::Blake3 && len > PIECE as u64 {
            let values = subtrees(source, part, GROUP, progress)?;
            return Ok((groups::root(&values).to_vec(), values));
        }
        let mut values = vec![Value::default(); len.div_ceil(GROUP as u64) as usize].into_boxed_slice();
        let digest = self.in_order(source, part, &mut values, scratch, progress)?;
        Ok((digest, values))
    }

    /// Hashes a part front to back, reading ahead, and fills in the values of its first groups.
    fn in_order(
        self,
        source: &dyn ReadAt,
        part: Range<u64>,
        values: &mut [Value],
        scratch: &mut Scratch,
        progress: &dyn Progress,
    ) -> Result<Vec<u8>> {
        let mut hasher = Hasher::new(self);
        let mut values = values.chunks_mut(PIECE / GROUP);
        let mut read = |at: u64, buf: &mut Vec<u8>| {
            let len = (part.end - at).min(PIECE as u64) as usize;
            buf.resize(len, 0);
            source.read_at(at, buf)?;
            groups::fill(at - part.start, buf, values.next().unwrap_or_default());
            Ok(len as u64)
        };
        let Scratch { now, next } = scratch;
        let mut at = part.start;
        let mut len = read(at, now)?;
        loop {
            at += len;
            step(progress, len)?;
            if at == part.end {
                hasher.update(now);
                return Ok(hasher.finish());
            }
            let ((), read) = rayon::join(|| hasher.update(now), || read(at, next));
            len = read?;
            std::mem::swap(now, next);
        }
    }
}

/// Memory that hashing reuses from part to part.
#[derive(Default)]
pub(super) struct Scratch {
    now: Vec<u8>,
    next: Vec<u8>,
}

/// The chaining values of the BLAKE3 subtrees of `unit` bytes of a part, on several threads. `unit` divides a piece.
fn subtrees(source: &dyn ReadAt, part: Range<u64>, unit: usize, progress: &dyn Progress) -> Result<Box<[Value]>> {
    let len = part.end - part.start;
    let mut values = vec![Value::default(); len.div_ceil(unit as u64) as usize].into_boxed_slice();
    let pieces = values.par_chunks_mut(PIECE / unit).enumerate();
    pieces.try_for_each_init(Vec::new, |buf, (i, values)| {
        let start = (i * PIECE) as u64;
        buf.resize((len - start).min(PIECE as u64) as usize, 0);
        source.read_at(part.start + start, buf)?;
        for ((at, bytes), value) in (start..).step_by(unit).zip(buf.chunks(unit)).zip(values) {
            *value = groups::value(at, bytes);
        }
        step(progress, buf.len() as u64)
    })?;
    Ok(values)
}

enum Hasher {
    Sha256(Sha256),
    Blake2b(Box<Blake2b512>),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    fn new(hash: HashType) -> Self {
        match hash {
            HashType::Sha256 => Self::Sha256(Sha256::new()),
            HashType::Blake2b => Self::Blake2b(Box::new(Blake2b512::new())),
            HashType::Blake3 => Self::Blake3(Box::new(blake3::Hasher::new())),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Blake2b(hasher) => hasher.update(bytes),
            Self::Blake3(hasher) => _ = hasher.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha256(hasher) => hasher.finalize().to_vec(),
            Self::Blake2b(hasher) => hasher.finalize().to_vec(),
            Self::Blake3(hasher) => hasher.finalize().as_bytes().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::crypto;
    use crate::error::Error;
    use crate::io::SliceAt;

    fn of(hash: HashType, bytes: &[u8], part: Range<u64>) -> Vec<u8> {
        hash.of(&SliceAt::new(bytes), part, &mut Scratch::default(), &()).unwrap()
    }

    #[test]
    fn digests_of_abc_are_those_of_the_specifications() {
        for (hash, expected) in [
            (HashType::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                HashType::Blake2b,
                "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1\
                 7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923",
            ),
            (HashType::Blake3, "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"),
        ] {
            let digest = of(hash, b"xabcx", 1..4);
            assert_eq!((crypto::hex(&digest), digest.len()), (expected.to_owned(), hash.size()));
            assert_eq!(HashType::from_name(hash.name()), Some(hash));
            assert_eq!(of(hash, b"", 0..0).len(), hash.size());
        }
    }

    /// Sizes around the ends of groups and pieces.
    fn sizes() -> impl Iterator<Item = usize> {
        let around = [GROUP, 2 * GROUP, 3 * GROUP, PIECE, 2 * PIECE, 3 * PIECE + 5 * GROUP];
        [0, 1, 1024, 1025].into_iter().chain(around.into_iter().flat_map(|size| size - 1..=size + 1))
    }

    #[test]
    fn pieces_and_threads_change_no_digest_and_report_every_byte() {
        struct Count(AtomicU64);
        impl Progress for Count {
            fn advance(&self, bytes: u64) {
                self.0.fetch_add(bytes, Ordering::Relaxed);
            }
        }
        let bytes: Vec<u8> = (0..4 * PIECE as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut scratch = Scratch::default();
        for (hash, size) in HashType::ALL.into_iter().flat_map(|hash| sizes().map(move |size| (hash, size))) {
            let part = 7..7 + size as u64;
            let whole = hash.of_slices(&[&bytes[7..7 + size]]);
            let count = Count(AtomicU64::new(0));
            let source = SliceAt::new(&bytes);
            assert_eq!(hash.of(&source, part.clone(), &mut scratch, &count).unwrap(), whole, "{hash:?} {size}");
            assert_eq!(count.0.into_inner(), size as u64);
            let (digest, values) = hash.of_with_groups(&source, part, &mut scratch, &()).unwrap();
            assert_eq!((digest, values.len()), (whole, size.div_ceil(GROUP)), "{hash:?} {size}");
            for (i, group) in bytes[7..7 + size].chunks(GROUP).enumerate() {
                assert_eq!(values[i], groups::value((i * GROUP) as u64, group), "{hash:?} {size} {i}");
            }
        }
    }

    #[test]
    fn hashing_stops_when_asked_to() {
        struct Stop;
        impl Progress for Stop {
            fn is_cancelled(&self) -> bool {
                true
            }
        }
        let bytes = vec![0; 2 * PIECE + 1];
        for hash in HashType::ALL {
            let stopped = hash.of(&SliceAt::new(&bytes), 0..bytes.len() as u64, &mut Scratch::default(), &Stop);
            assert!(matches!(stopped, Err(Error::Cancelled)), "{hash:?}");
        }
    }
}
