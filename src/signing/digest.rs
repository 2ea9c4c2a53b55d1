//! The hashes that OMS names, over files and parts of files.

use std::ops::Range;

use blake2::Blake2b512;
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::io::ReadAt;
use crate::io::progress::{Progress, step};

/// Bytes hashed between two looks at the progress: an encrypted source decrypts this much in parallel.
const STEP: u64 = 4 << 20;

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

    /// Hashes a part of a source, which must lie within it.
    pub(super) fn of(self, source: &dyn ReadAt, part: Range<u64>, progress: &dyn Progress) -> Result<Vec<u8>> {
        let mut hasher = Hasher::new(self);
        let mut buf = vec![0; STEP.min(part.end - part.start) as usize];
        for start in part.clone().step_by(STEP as usize) {
            let len = (part.end - start).min(STEP);
            let piece = &mut buf[..len as usize];
            source.read_at(start, piece)?;
            hasher.update(piece);
            step(progress, len)?;
        }
        Ok(hasher.finish())
    }
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
            Self::Blake3(hasher) => _ = hasher.update_rayon(bytes),
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
    use super::*;
    use crate::crypto;
    use crate::io::SliceAt;

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
            let digest = hash.of(&SliceAt::new(b"xabcx"), 1..4, &()).unwrap();
            assert_eq!((crypto::hex(&digest), digest.len()), (expected.to_owned(), hash.size()));
            assert_eq!(HashType::from_name(hash.name()), Some(hash));
            assert_eq!(hash.of(&SliceAt::new(b""), 0..0, &()).unwrap().len(), hash.size());
        }
    }
}
