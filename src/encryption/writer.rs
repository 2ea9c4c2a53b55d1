//! Writing: encrypts a file or a whole model directory.

use std::path::Path;

use rayon::prelude::*;

use super::envelope::{Envelope, FileEntry, Header, MAGIC_FILE, MAGIC_KEYS};
use super::stream::{self, BATCH, CHUNK, MessageKey, RECORD};
use super::{EXTENSION, KEYS_FILE};
use crate::crypto;
use crate::crypto::aead::{Refused, TAG};
use crate::error::{Cause, EncryptionError, Error, Result};
use crate::io::atomic::{Access, AtomicDir, AtomicFile, refuse_inside};
use crate::io::progress::{Progress, step};
use crate::io::{ReadAt, SliceAt, Tree, tree};
use crate::json::Object;
use crate::keys::{InputKey, Recipient};

/// Encrypts artifacts to a set of recipients. Each artifact gets its own random key.
pub struct Encryptor {
    recipients: Vec<Box<dyn Recipient>>,
    context: String,
}

impl Encryptor {
    /// Encrypts to these recipients: each of them can open the artifact on its own.
    pub fn to<R: Recipient + 'static>(recipients: impl IntoIterator<Item = R>) -> Self {
        let recipients = recipients.into_iter().map(|recipient| Box::new(recipient) as Box<dyn Recipient>).collect();
        Self { recipients, context: String::new() }
    }

    /// Binds the artifact to a context such as `acme/llama-1b@3`: model and version. It stands in the envelope in
    /// clear, and the artifact opens under no other.
    pub fn context(self, context: impl Into<String>) -> Self {
        Self { context: context.into(), ..self }
    }

    /// Encrypts the file or directory at `input` to a new file or directory at `output`.
    ///
    /// A directory becomes a directory: `PATH` becomes `PATH.wmenc`, and the envelope lies in `weightmark.keys`.
    pub fn encrypt(&self, input: impl AsRef<Path>, output: impl AsRef<Path>) -> Result<()> {
        self.encrypt_with(input, output, &())
    }

    /// As [`encrypt`](Self::encrypt), watched by `progress`.
    pub fn encrypt_with(
        &self,
        input: impl AsRef<Path>,
        output: impl AsRef<Path>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let (input, output) = (input.as_ref(), output.as_ref());
        refuse_inside(input, output)?;
        self.encrypt_tree(&*tree::open(input)?, output, progress)
    }

    /// Encrypts bytes in memory as the file called `path`, and returns the encrypted file.
    pub fn encrypt_bytes(&self, path: &str, plaintext: &[u8]) -> Result<Vec<u8>> {
        let source = SliceAt::named(plaintext, path);
        let (key, mut file) = self.start_file(path)?;
        let start = file.len();
        file.resize(start + message_size(&source)?, 0);
        let context = stream::payload_context(&self.context, path);
        let sink = std::sync::Mutex::new(&mut file);
        write_message(&source, &key, &context, &(), &|offset, bytes| {
            let mut file = sink.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let at = start + offset as usize;
            file[at..at + bytes.len()].copy_from_slice(bytes);
            Ok(())
        })?;
        Ok(file)
    }

    fn encrypt_tree(&self, source: &dyn Tree, output: &Path, progress: &dyn Progress) -> Result<()> {
        if source.is_single_file() {
            let [entry] = source.entries() else { return Err(Error::ApiMisuse("a single file has one entry")) };
            let file = AtomicFile::create(output, Access::Shared)?;
            let (key, header) = self.start_file(&entry.path)?;
            progress.begin("encrypt", entry.size);
            return self.write_file(&*source.open(&entry.path)?, &key, &entry.path, header, file, progress);
        }
        self.check()?;
        let key = InputKey::generate()?;
        let files =
            source.entries().iter().map(|entry| Object(FileEntry { path: entry.path.clone(), size: entry.size }));
        let envelope = Envelope::seal(&key, &self.recipients, &self.context, None, Some(files.collect()))?;
        let header = Header::with_envelope(MAGIC_KEYS, &envelope, &key).map_err(|cause| cause.on(source.name()))?;
        let dir = AtomicDir::create(output)?;
        progress.begin("encrypt", source.total_size());
        source.entries().par_iter().try_for_each(|entry| {
            let plaintext = source.open(&entry.path)?;
            if plaintext.size() != entry.size {
                let changed = std::io::Error::other("its size changed meanwhile");
                return Err(Error::io("read", plaintext.name(), changed));
            }
            let file = dir.file(&format!("{}{EXTENSION}", entry.path), Access::Shared)?;
            self.write_file(&*plaintext, &key, &entry.path, Header::with_key_id(&key), file, progress)
        })?;
        let keys = dir.file(KEYS_FILE, Access::Shared)?;
        keys.write_at(0, &header)?;
        keys.commit()?;
        dir.commit(Access::Shared)
    }

    /// A fresh key and the header of a file with its own envelope.
    fn start_file(&self, path: &str) -> Result<(InputKey, Vec<u8>)> {
        self.check()?;
        if !tree::is_canonical(path) {
            return Err(Error::ApiMisuse("the path of an encrypted file must be canonical and relative"));
        }
        let key = InputKey::generate()?;
        let envelope = Envelope::seal(&key, &self.recipients, &self.context, Some(path.to_owned()), None)?;
        let header = Header::with_envelope(MAGIC_FILE, &envelope, &key).map_err(|cause| cause.on(path))?;
        Ok((key, header))
    }

    fn write_file(
        &self,
        plaintext: &dyn ReadAt,
        key: &InputKey,
        path: &str,
        header: Vec<u8>,
        file: AtomicFile,
        progress: &dyn Progress,
    ) -> Result<()> {
        let start = header.len() as u64;
        file.set_size(start + message_size(plaintext)? as u64)?;
        file.write_at(0, &header)?;
        let context = stream::payload_context(&self.context, path);
        write_message(plaintext, key, &context, progress, &|offset, bytes| file.write_at(start + offset, bytes))?;
        file.commit()
    }

    fn check(&self) -> Result<()> {
        if self.recipients.is_empty() {
            return Err(Error::ApiMisuse("an artifact without recipients could never be opened"));
        }
        Ok(())
    }
}

fn message_size(plaintext: &dyn ReadAt) -> Result<usize> {
    let length = stream::message_len(plaintext.size()).and_then(|len| usize::try_from(len).ok());
    length.ok_or_else(|| EncryptionError::BadEnvelope("over 4 PiB".into()).on(plaintext.name()))
}

/// Encrypts `plaintext` batch by batch, in parallel, handing each piece of the message with its offset to `sink`.
fn write_message(
    plaintext: &dyn ReadAt,
    key: &InputKey,
    context: &[u8],
    progress: &dyn Progress,
    sink: &(dyn Fn(u64, &[u8]) -> Result<()> + Sync),
) -> Result<()> {
    let refused =
        |_: Refused| EncryptionError::BadEnvelope("the payload cannot be encrypted".into()).on(plaintext.name());
    let mut salt = [0; 24];
    crypto::random(&mut salt)?;
    let (message, header) = MessageKey::begin(key, salt, context).map_err(refused)?;
    sink(0, &header)?;
    let size = plaintext.size();
    let chunks = size / CHUNK as u64 + 1; // the last one is shorter than the others, maybe empty
    (0..chunks.div_ceil(BATCH as u64)).into_par_iter().try_for_each_init(
        || vec![0; BATCH * RECORD],
        |records, batch| {
            let first = batch * BATCH as u64;
            let (mut filled, mut read) = (0, 0);
            for index in first..chunks.min(first + BATCH as u64) {
                let offset = index * CHUNK as u64;
                let len = (size - offset).min(CHUNK as u64) as usize;
                let (chunk, tag) = records[filled..filled + len + TAG].split_at_mut(len);
                plaintext.read_at(offset, chunk)?;
                tag.copy_from_slice(&message.seal(index, chunk).map_err(refused)?);
                filled += len + TAG;
                read += len as u64;
            }
            sink(stream::record_offset(first), &records[..filled])?;
            step(progress, read)
        },
    )
}
