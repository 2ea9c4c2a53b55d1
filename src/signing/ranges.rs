//! Bytes that are verified where they are read, in the buffer of whoever reads.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use super::digest::{HashType, PIECE, Scratch};
use super::groups::{self, GROUP, Value};
use crate::error::{Cause, Result, VerifyError};
use crate::io::{Progress, ReadAt, check_bounds};

/// Largest shard that is hashed as a whole at every read that touches it.
const LARGEST_UNIT: u64 = 1 << 20;

/// What was signed of a file: a digest for each of its parts, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Signed {
    pub(super) hash: HashType,
    /// Bytes of a part, but for the last; `u64::MAX` for a whole file.
    pub(super) part: u64,
    pub(super) digests: Vec<Vec<u8>>,
}

impl Signed {
    /// The bytes of a part of a file of this size.
    fn bytes(&self, part: u64, size: u64) -> Range<u64> {
        let start = part.saturating_mul(self.part).min(size);
        start..start.saturating_add(self.part).min(size)
    }

    /// Whether these are the bytes of the file, all of whose parts are listed.
    pub(super) fn is_of(&self, file: &[u8]) -> bool {
        (0..).zip(&self.digests).all(|(part, digest)| {
            let bytes = self.bytes(part, file.len() as u64);
            self.hash.of_slices(&[&file[bytes.start as usize..bytes.end as usize]]) == *digest
        })
    }
}

/// A source that hands out only bytes that are what was signed.
///
/// A read reads into the caller's buffer, and hashes there, the units that it touches; of those at its edges also what is
/// around, through scratch memory. A unit is a shard of up to 1 MiB, or a group of 64 KiB of a part whose
/// group values are trusted: because they hash to its digest, or because they were taken while the part was hashed and
/// found to be what was signed, which happens at the first read of it unless it was asked for before. So whatever is
/// overwritten meanwhile, what is read is right, or the read fails with [`VerifyError::DigestMismatch`].
pub(super) struct VerifiedAt {
    source: Arc<dyn ReadAt>,
    path: String,
    signed: Signed,
    trusted: Trusted,
}

/// What units are checked against.
enum Trusted {
    /// The digest of each shard.
    Digests,
    /// The values of the groups of each part, once they are known. Threads that find none both take them: to wait for
    /// one another, as parts of the same parallel work, they might wait for ever.
    Values(Vec<OnceLock<Box<[Value]>>>),
}

/// What is hashed in one go.
struct Unit {
    part: usize,
    group: usize,
    bytes: Range<u64>,
}

impl VerifiedAt {
    /// Verifies by what was signed alone: shards up to 1 MiB where they are read, larger parts when one is first read.
    pub(super) fn lazy(source: Arc<dyn ReadAt>, path: &str, signed: Signed) -> Self {
        let mut this = Self::by_groups(source, path, signed);
        if this.signed.part <= LARGEST_UNIT {
            this.trusted = Trusted::Digests;
        }
        this
    }

    /// Verifies by groups whose values are to come.
    pub(super) fn by_groups(source: Arc<dyn ReadAt>, path: &str, signed: Signed) -> Self {
        let trusted = Trusted::Values(signed.digests.iter().map(|_| OnceLock::new()).collect());
        Self { source, path: path.to_owned(), signed, trusted }
    }

    /// Verifies by the values of the groups of a whole file, which hash to its digest. The last group is read, which proves
    /// the size.
    pub(super) fn with_values(
        source: Arc<dyn ReadAt>,
        path: &str,
        signed: Signed,
        values: Box<[Value]>,
    ) -> Result<Self> {
        let fits = values.len() as u64 == source.size().div_ceil(GROUP as u64);
        let trusted = Trusted::Values(vec![OnceLock::from(values)]);
        let this = Self { source, path: path.to_owned(), signed, trusted };
        let last = this.size().checked_sub(1).filter(|_| fits).ok_or_else(|| this.mismatch())?;
        this.read_at(last, &mut [0])?;
        Ok(this)
    }

    /// Hashes all parts, several at once, and keeps the values of their groups.
    pub(super) fn take_values(&self, scratch: &mut Scratch, progress: &dyn Progress) -> Result<()> {
        self.each_part(scratch, |part, scratch| self.take(part, scratch, progress))
    }

    /// Hashes all parts, several at once.
    pub(super) fn hash(&self, scratch: &mut Scratch, progress: &dyn Progress) -> Result<()> {
        self.each_part(scratch, |part, scratch| {
            let bytes = self.signed.bytes(part as u64, self.size());
            self.expect(part, &self.signed.hash.of(&*self.source, bytes, scratch, progress)?)
        })
    }

    fn each_part(&self, scratch: &mut Scratch, work: impl Fn(usize, &mut Scratch) -> Result<()> + Sync) -> Result<()> {
        match self.signed.digests.len() {
            1 => work(0, scratch),
            n => (0..n).into_par_iter().try_for_each_init(Scratch::default, |scratch, part| work(part, scratch)),
        }
    }

    /// Hashes a part and keeps the values of its groups, unless they are there.
    fn take(&self, part: usize, scratch: &mut Scratch, progress: &dyn Progress) -> Result<()> {
        let Trusted::Values(values) = &self.trusted else { return Ok(()) };
        let values = values.get(part).ok_or_else(|| self.mismatch())?;
        if values.get().is_none() {
            let bytes = self.signed.bytes(part as u64, self.size());
            let (digest, taken) = self.signed.hash.of_with_groups(&*self.source, bytes, scratch, progress)?;
            self.expect(part, &digest)?;
            let _ = values.set(taken); // another thread's are the same
        }
        Ok(())
    }

    /// Fails unless a part has this digest.
    fn expect(&self, part: usize, digest: &[u8]) -> Result<()> {
        let is_signed = self.signed.digests.get(part).is_some_and(|signed| signed == digest);
        if is_signed { Ok(()) } else { Err(self.mismatch()) }
    }

    /// The unit that holds the byte at `at`.
    fn unit(&self, at: u64) -> Unit {
        let part = at / self.signed.part;
        let bytes = self.signed.bytes(part, self.size());
        if let Trusted::Digests = self.trusted {
            return Unit { part: part as usize, group: 0, bytes };
        }
        let group = (at - bytes.start) / GROUP as u64;
        let start = bytes.start + group * GROUP as u64;
        let bytes = start..bytes.end.min(start.saturating_add(GROUP as u64));
        Unit { part: part as usize, group: group as usize, bytes }
    }

    /// Fills a buffer, by halves on several threads where it is large.
    fn fill(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if buf.len() > PIECE {
            let middle = self.unit(offset + buf.len() as u64 / 2).bytes.start;
            if let Some(len) = middle.checked_sub(offset).filter(|len| *len > 0) {
                let (left, right) = buf.split_at_mut(len as usize);
                let (left, right) = rayon::join(|| self.fill(offset, left), || self.fill(middle, right));
                return left.and(right);
            }
        }
        self.source.read_at(offset, buf)?;
        let (mut at, mut rest, mut edges) = (offset, &*buf, Vec::new());
        while !rest.is_empty() {
            let unit = self.unit(at);
            let here = rest.split_off(..rest.len().min((unit.bytes.end - at) as usize)).unwrap_or_default();
            let after = at + here.len() as u64;
            let before = (at - unit.bytes.start) as usize;
            edges.resize(before + (unit.bytes.end - after) as usize, 0);
            let (left, right) = edges.split_at_mut(before);
            if !left.is_empty() {
                self.source.read_at(unit.bytes.start, left)?;
            }
            if !right.is_empty() {
                self.source.read_at(after, right)?;
            }
            if !self.is_right(&unit, &[left, here, right]) {
                return Err(self.mismatch());
            }
            at = after;
        }
        Ok(())
    }

    /// Whether these are the bytes of a unit.
    fn is_right(&self, unit: &Unit, bytes: &[&[u8]]) -> bool {
        match &self.trusted {
            Trusted::Digests => self.signed.digests.get(unit.part) == Some(&self.signed.hash.of_slices(bytes)),
            Trusted::Values(values) => {
                let value = values.get(unit.part).and_then(OnceLock::get).and_then(|values| values.get(unit.group));
                value == Some(&groups::value_of((unit.group * GROUP) as u64, bytes))
            }
        }
    }

    fn mismatch(&self) -> crate::Error {
        VerifyError::DigestMismatch { path: self.path.clone() }.on(self.source.name())
    }
}

impl ReadAt for VerifiedAt {
    fn size(&self) -> u64 {
        self.source.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_bounds(self, offset, buf.len())?;
        let Some(last) = (offset + buf.len() as u64).checked_sub(1).filter(|_| !buf.is_empty()) else { return Ok(()) };
        // before the buffer is divided, or every thread would hash the part it is in
        let parts = (offset / self.signed.part) as usize..=(last / self.signed.part) as usize;
        let known = if parts.start() == parts.end() {
            self.take(*parts.start(), &mut Scratch::default(), &())
        } else {
            parts.into_par_iter().try_for_each(|part| self.take(part, &mut Scratch::default(), &()))
        };
        known.and_then(|()| self.fill(offset, buf)).inspect_err(|_| buf.fill(0))
    }

    fn name(&self) -> &str {
        self.source.name()
    }

    fn is_unchanged(&self) -> Result<bool> {
        self.source.is_unchanged()
    }

    fn is_authenticated(&self) -> bool {
        true
    }
}
