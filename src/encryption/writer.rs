//! Encrypting files and whole model directories.

use std::collections::BTreeMap;
use std::io::{IoSliceMut, Read, Write};
use std::path::Path;

use rayon::prelude::*;

use super::decryptor::Decryptor;
use super::envelope::{Content, Envelope, FileEntry, GroupEntry, PublicFile, PublicTensor, Roots, payload_context};
use super::header::{Header, key_id};
use super::inspect::Inspection;
use super::reader::BATCH;
use super::tree::disagreement;
use super::{EXTENSION, KEYS_FILE, stream};
use crate::crypto;
use crate::crypto::aead::TAG;
use crate::crypto::cobblestone::{self, CHUNK, MessageKey, RECORD};
use crate::error::{Cause, EncryptionError, Error, Result};
use crate::io::atomic::{Access, AtomicDir, AtomicFile, refuse_inside};
use crate::io::progress::{Progress, step};
use crate::io::tree::{self, SingleFile, Tree};
use crate::io::{Entry, ReadAt, Sequential, SliceAt};
use crate::keys::{InputKey, Recipient};
use crate::tensor::TensorInfo;

/// Encrypts artifacts to a set of recipients. Each artifact gets its own random key.
///
/// ```
/// use weightmark::encryption::{Encryptor, inspect};
/// use weightmark::io::SliceAt;
/// use weightmark::keys::XWingIdentity;
///
/// let identity = XWingIdentity::generate()?;
/// let sealed = Encryptor::to([identity.recipient()]).context("acme/llama-1b@3").encrypt_bytes("model.bin", b"weights")?;
/// let seen = inspect(&SliceAt::new(sealed))?.ok_or("not encrypted")?; // by anybody
/// assert_eq!(seen.groups[0].files, [("model.bin".to_owned(), 7)]);
/// assert_eq!(seen.groups[0].recipients, [("x-wing".to_owned(), identity.recipient().id())]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Encryptor {
    /// The first is rooted at the empty path.
    groups: Vec<Group>,
    context: Option<String>,
    public: BTreeMap<String, PublicFile>,
}

/// Files at or beneath a path, and who may open them.
struct Group {
    path: String,
    recipients: Vec<Box<dyn Recipient>>,
}

impl Encryptor {
    /// Encrypts to these recipients: each of them can open the artifact on its own.
    pub fn to<R: Recipient + 'static>(recipients: impl IntoIterator<Item = R>) -> Self {
        Self { groups: Vec::new(), context: None, public: BTreeMap::new() }.group("", recipients)
    }

    /// Encrypts the files of a directory at `path` and beneath it under a key of their own, to these recipients and not
    /// to the others: an adapter for one customer, say, beside base weights for all. The deepest group counts.
    ///
    /// A signature covers all files, so whoever opens some groups only cannot verify one over the whole.
    pub fn group<R: Recipient + 'static>(
        mut self,
        path: impl Into<String>,
        recipients: impl IntoIterator<Item = R>,
    ) -> Self {
        let recipients = recipients.into_iter().map(|recipient| Box::new(recipient) as Box<dyn Recipient>).collect();
        self.groups.push(Group { path: path.into(), recipients });
        self
    }

    /// Binds the artifact to a context such as `acme/llama-1b@3`: model and version. It stands in the envelope in
    /// clear, and the artifact opens under no other.
    pub fn context(self, context: impl Into<String>) -> Self {
        Self { context: Some(context.into()), ..self }
    }

    /// Lists tensors, each with the path of its file, where everybody can read them without a key. Without this, names
    /// and shapes of tensors are as secret as the weights.
    pub fn public_index<'a>(mut self, tensors: impl IntoIterator<Item = (&'a str, &'a TensorInfo)>) -> Self {
        for (path, tensor) in tensors {
            let described = PublicTensor::new(&tensor.name, tensor.dtype.to_string(), &tensor.shape);
            let file = self.public.entry(path.to_owned()).or_insert_with(|| PublicFile::new(path));
            file.tensors.push(described);
        }
        self
    }

    /// Encrypts the file or directory at `input` to a new file or directory at `output`, and tells what others will see
    /// of it.
    ///
    /// A directory becomes a directory: `PATH` becomes `PATH.wmenc`, and the envelope lies in `weightmark.keys`.
    pub fn encrypt(&self, input: impl AsRef<Path>, output: impl AsRef<Path>) -> Result<Inspection> {
        self.encrypt_with(input, output, &())
    }

    /// As [`encrypt`](Self::encrypt), watched by `progress`.
    pub fn encrypt_with(
        &self,
        input: impl AsRef<Path>,
        output: impl AsRef<Path>,
        progress: &dyn Progress,
    ) -> Result<Inspection> {
        let (input, output) = (input.as_ref(), output.as_ref());
        refuse_inside(input, output)?;
        self.encrypt_tree(&*tree::open(input)?, output, self.bound_to(), self.public(), progress)
    }

    /// Encrypts bytes in memory as the file called `path`, and returns the encrypted file.
    pub fn encrypt_bytes(&self, path: &str, plaintext: &[u8]) -> Result<Vec<u8>> {
        let source = SliceAt::named(plaintext, path);
        let (key, mut file, _) = self.start_file(path, self.bound_to(), self.public())?;
        let start = file.len();
        file.resize(start + message_size(&source)? as usize, 0);
        let sink = std::sync::Mutex::new(&mut file);
        write_message(&source, &key, &payload_context(self.bound_to(), path), &(), &|offset, bytes| {
            let mut file = sink.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let at = start + offset as usize;
            file[at..at + bytes.len()].copy_from_slice(bytes);
            Ok(())
        })?;
        Ok(file)
    }

    /// Encrypts the file at `input` to a stream.
    pub fn encrypt_to(
        &self,
        input: impl AsRef<Path>,
        output: impl Write,
        progress: &dyn Progress,
    ) -> Result<Inspection> {
        let source = SingleFile::open(input)?;
        let [entry] = source.entries() else { return Err(Error::ApiMisuse("a single file has one entry")) };
        self.encrypt_stream(&entry.path, Sequential::new(&*source.open("")?), output, progress)
    }

    /// Encrypts one stream to another, as the file called `path`, in little memory and without knowing its length.
    pub fn encrypt_stream(
        &self,
        path: &str,
        input: impl Read + Send,
        mut output: impl Write,
        progress: &dyn Progress,
    ) -> Result<Inspection> {
        let (key, header, envelope) = self.start_file(path, self.bound_to(), self.public())?;
        progress.begin("encrypt", 0);
        output.write_all(&header).map_err(stream::write_error)?;
        let size = stream::seal(&key, &payload_context(self.bound_to(), path), input, output, progress)?;
        Ok(Inspection::of_file(&envelope, size))
    }

    /// Decrypts the artifact at `input` and encrypts it anew, under another key, to a new one at `output`. Plaintext stays
    /// in memory. Its context and public list are kept unless others were set here; its groups must be named here again.
    ///
    /// This is what takes access away from whoever had the old key, to what is published from now on.
    pub fn rekey(
        &self,
        input: impl AsRef<Path>,
        output: impl AsRef<Path>,
        decryptor: &Decryptor<'_>,
        progress: &dyn Progress,
    ) -> Result<Inspection> {
        let (input, output) = (input.as_ref(), output.as_ref());
        refuse_inside(input, output)?;
        let opened = decryptor.plaintext(tree::open(input)?)?;
        let named = |path: &String| self.groups.iter().any(|group| group.path == *path);
        if !opened.groups().iter().all(named) {
            return Err(Error::ApiMisuse("the directory has groups of files: each needs recipients of its own again"));
        }
        let public = if self.public.is_empty() { opened.public() } else { self.public() };
        let context = self.context.clone().unwrap_or_else(|| opened.context().to_owned());
        self.encrypt_tree(&*opened.into_tree(), output, &context, public, progress)
    }

    fn encrypt_tree(
        &self,
        source: &dyn Tree,
        output: &Path,
        context: &str,
        public: Vec<PublicFile>,
        progress: &dyn Progress,
    ) -> Result<Inspection> {
        if source.is_single_file() {
            let [entry] = source.entries() else { return Err(Error::ApiMisuse("a single file has one entry")) };
            let file = AtomicFile::create(output, Access::Shared)?;
            let (key, header, envelope) = self.start_file(&entry.path, context, public)?;
            progress.begin("encrypt", entry.size);
            let plaintext = source.open(&entry.path)?;
            write_file(&*plaintext, &key, &payload_context(context, &entry.path), header, file, progress)?;
            return Ok(Inspection::of_file(&envelope, entry.size));
        }
        let homes = Roots::new(self.groups.iter().map(|group| group.path.as_str()));
        let groups = self.seal_groups(source, &homes, context, public)?;
        let envelopes: Vec<_> = groups.iter().map(|(_, envelope)| envelope).collect();
        let bad = |cause: EncryptionError| cause.on(source.name());
        disagreement(&envelopes).map_or(Ok(()), |why| Err(bad(EncryptionError::BadEnvelope(why.into()))))?;
        let header = groups.iter().map(|(key, envelope)| Header::of_directory(envelope, key));
        let header = header.collect::<Result<Vec<_>, _>>().map_err(bad)?.concat();
        let dir = AtomicDir::create(output)?;
        progress.begin("encrypt", source.total_size());
        source.entries().par_iter().try_for_each(|entry| {
            let plaintext = source.open(&entry.path)?;
            if plaintext.size() != entry.size {
                let changed = std::io::Error::other("its size changed meanwhile");
                return Err(Error::io("read", plaintext.name(), changed));
            }
            let (key, _) = groups.get(homes.of(&entry.path)).ok_or(Error::ApiMisuse("a group without a key"))?;
            let file = dir.file(&format!("{}{EXTENSION}", entry.path), Access::Shared)?;
            write_file(&*plaintext, key, &payload_context(context, &entry.path), Header::of_member(key), file, progress)
        })?;
        let keys = dir.file(KEYS_FILE, Access::Shared)?;
        keys.write_at(0, &header)?;
        keys.commit()?;
        dir.commit(Access::Shared)?;
        Ok(Inspection::of_directory(groups.iter().map(|(_, envelope)| envelope)))
    }

    /// A key and an envelope for each group of a directory.
    fn seal_groups(
        &self,
        source: &dyn Tree,
        homes: &Roots<'_>,
        context: &str,
        public: Vec<PublicFile>,
    ) -> Result<Vec<(InputKey, Envelope)>> {
        let mut members: Vec<_> = self.groups.iter().map(|_| (Vec::new(), Vec::new())).collect();
        for Entry { path, size, .. } in source.entries() {
            if let Some((files, _)) = members.get_mut(homes.of(path)) {
                files.push(FileEntry { path: path.clone(), size: *size });
            }
        }
        for file in public {
            if let Some((_, listed)) = members.get_mut(homes.of(&file.path)) {
                listed.push(file);
            }
        }
        if members.iter().skip(1).any(|(files, _)| files.is_empty()) {
            return Err(Error::ApiMisuse("a group without files: is its path right?"));
        }
        let keys = self.groups.iter().map(|_| InputKey::generate()).collect::<Result<Vec<_>>>()?;
        let listed = self.groups.iter().zip(&keys);
        let listed = listed.map(|(g, key)| GroupEntry { path: g.path.clone(), key: crypto::hex(&key_id(key)) });
        let listed: Vec<_> = listed.collect();
        let sealed = self.groups.iter().zip(keys).zip(members).map(|((group, key), (files, public))| {
            let content = Content::Files { files, groups: listed.clone() };
            let envelope = Envelope::seal(&key, &group.recipients, context, content, public)?;
            Ok((key, envelope))
        });
        sealed.collect()
    }

    /// A fresh key, and the header and envelope of a file of its own.
    fn start_file(&self, path: &str, context: &str, public: Vec<PublicFile>) -> Result<(InputKey, Vec<u8>, Envelope)> {
        let [group] = self.groups.as_slice() else {
            return Err(Error::ApiMisuse("groups of files need a directory"));
        };
        if !tree::is_canonical(path) {
            return Err(Error::ApiMisuse("the path of an encrypted file must be canonical and relative"));
        }
        let key = InputKey::generate()?;
        let content = Content::File(path.to_owned());
        let envelope = Envelope::seal(&key, &group.recipients, context, content, public)?;
        let header = Header::of_file(&envelope, &key).map_err(|cause| cause.on(path))?;
        Ok((key, header, envelope))
    }

    fn bound_to(&self) -> &str {
        self.context.as_deref().unwrap_or_default()
    }

    fn public(&self) -> Vec<PublicFile> {
        self.public.values().cloned().collect()
    }
}

fn write_file(
    plaintext: &dyn ReadAt,
    key: &InputKey,
    context: &[u8],
    header: Vec<u8>,
    file: AtomicFile,
    progress: &dyn Progress,
) -> Result<()> {
    let start = header.len() as u64;
    file.set_size(start + message_size(plaintext)?)?;
    file.write_at(0, &header)?;
    write_message(plaintext, key, context, progress, &|offset, bytes| file.write_at(start + offset, bytes))?;
    file.commit()
}

fn message_size(plaintext: &dyn ReadAt) -> Result<u64> {
    cobblestone::message_len(plaintext.size())
        .ok_or_else(|| EncryptionError::BadEnvelope("over 4 PiB".into()).on(plaintext.name()))
}

/// Where pieces of a message go, each with its offset.
type Sink<'a> = &'a (dyn Fn(u64, &[u8]) -> Result<()> + Sync);

/// Encrypts `plaintext` batch by batch, in parallel, handing each piece of the message with its offset to `sink`.
fn write_message(
    plaintext: &dyn ReadAt,
    key: &InputKey,
    context: &[u8],
    progress: &dyn Progress,
    sink: Sink<'_>,
) -> Result<()> {
    let (message, header) = MessageKey::begin(key.expose(), context)?;
    sink(0, &header)?;
    let chunks = plaintext.size() / CHUNK as u64 + 1; // the last one is shorter than the others, maybe empty
    (0..chunks.div_ceil(BATCH as u64)).into_par_iter().try_for_each_init(
        || vec![0; BATCH * RECORD],
        |records, batch| step(progress, write_batch(plaintext, &message, batch, records, sink)?),
    )
}

/// Encrypts one batch, and returns its plaintext bytes. They are read to where they are encrypted and written from.
fn write_batch(
    plaintext: &dyn ReadAt,
    message: &MessageKey,
    batch: u64,
    records: &mut [u8],
    sink: Sink<'_>,
) -> Result<u64> {
    let first = batch * BATCH as u64;
    let start = first * CHUNK as u64;
    let len = (plaintext.size() - start).min((BATCH * CHUNK) as u64) as usize;
    // as many records as chunks begin in the batch; the last chunk of all may be empty
    let filled = if len == BATCH * CHUNK { BATCH * RECORD } else { len + TAG * (len / CHUNK + 1) };
    let records = &mut records[..filled];
    let mut chunks = [const { None }; BATCH].map(|_: Option<()>| IoSliceMut::new(&mut []));
    for (slice, record) in chunks.iter_mut().zip(records.chunks_mut(RECORD)) {
        let len = record.len() - TAG;
        *slice = IoSliceMut::new(&mut record[..len]);
    }
    plaintext.read_vectored_at(start, &mut chunks[..filled.div_ceil(RECORD)])?;
    for (record, index) in records.chunks_mut(RECORD).zip(first..) {
        let (chunk, tag) = record.split_at_mut(record.len() - TAG);
        tag.copy_from_slice(&message.seal(index, chunk));
    }
    sink(cobblestone::record_offset(first), records)?;
    Ok(len as u64)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Plaintext of any size.
    struct Zeros(u64);

    impl ReadAt for Zeros {
        fn size(&self) -> u64 {
            self.0
        }

        fn read_at(&self, _: u64, buf: &mut [u8]) -> Result<()> {
            buf.fill(0);
            Ok(())
        }

        fn name(&self) -> &str {
            "zeros"
        }
    }

    #[test]
    fn the_chunk_after_the_last_of_32_bits_is_sealed_as_such() {
        let (message, _) = MessageKey::begin(&[1; 32], b"").unwrap();
        let boundary = (1u64 << 32) / BATCH as u64;
        for (size, batch) in [
            (CHUNK as u64 * ((1 << 32) + 3) + 7, boundary - 1),
            (CHUNK as u64 * ((1 << 32) + 3) + 7, boundary),
            (CHUNK as u64 * (1 << 32), boundary),
        ] {
            let written = Mutex::new((0, Vec::new()));
            let sink = |offset: u64, bytes: &[u8]| {
                *written.lock().unwrap() = (offset, bytes.to_vec());
                Ok(())
            };
            let len = write_batch(&Zeros(size), &message, batch, &mut vec![7; BATCH * RECORD], &sink).unwrap();
            let (offset, mut bytes) = written.into_inner().unwrap();
            let first = batch * BATCH as u64;
            assert_eq!(offset, 56 + 16400 * first);
            assert_eq!(len, (size - first * CHUNK as u64).min((BATCH * CHUNK) as u64));
            for (record, index) in bytes.chunks_mut(RECORD).zip(first..) {
                let (chunk, tag) = record.split_last_chunk_mut().unwrap();
                message.open(index, chunk, *tag).unwrap();
                assert!(chunk.iter().all(|byte| *byte == 0), "{index}");
            }
            let whole = 56 + 16400 * first + bytes.len() as u64;
            assert!(len == (BATCH * CHUNK) as u64 || Some(whole) == cobblestone::message_len(size), "{size}");
        }
        assert!(message_size(&Zeros(1 << 52)).is_err());
    }
}
