//! Decrypting whole artifacts: to files, or through a stream.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use super::envelope::{Envelope, PublicFile, payload_context};
use super::header::{self, FRONT, Header, MAGIC_FILE};
use super::reader::expect_context;
use super::{DecryptedTree, Reader, stream};
use crate::error::{Cause, EncryptionError, Result};
use crate::io::atomic::{Access, AtomicDir, AtomicFile, refuse_inside};
use crate::io::progress::{Progress, step};
use crate::io::tree::{self, SingleFile, Tree};
use crate::io::{Memory, ReadAt, copy};
use crate::keys::Identity;

/// Bytes decrypted at a time on their way to a stream.
const PART: u64 = 8 << 20;

/// Decrypts artifacts with some identities, under a context if the caller insists on one.
///
/// ```
/// use weightmark::encryption::{Decryptor, Encryptor};
/// use weightmark::keys::XWingIdentity;
///
/// let identity = XWingIdentity::generate()?;
/// let (mut sealed, mut opened) = (Vec::new(), Vec::new());
/// let encryptor = Encryptor::to([identity.recipient()]).context("acme/llama-1b@3");
/// encryptor.encrypt_stream("model.bin", b"weights".as_slice(), &mut sealed, &())?;
/// Decryptor::new(&[&identity]).expect_context("acme/llama-1b@3").decrypt_stream(&*sealed, &mut opened, &())?;
/// assert_eq!(opened, b"weights");
/// # Ok::<(), weightmark::Error>(())
/// ```
pub struct Decryptor<'a> {
    identities: &'a [&'a dyn Identity],
    context: Option<&'a str>,
    accept_closed: bool,
}

impl<'a> Decryptor<'a> {
    /// Opens with the first of these identities that fits.
    pub fn new(identities: &'a [&'a dyn Identity]) -> Self {
        Self { identities, context: None, accept_closed: false }
    }

    /// Refuses what is bound to another context.
    pub fn expect_context(self, context: &'a str) -> Self {
        Self { context: Some(context), ..self }
    }

    /// Accepts a directory some of whose files stay closed to the identities: without this, one that does not open
    /// as a whole is refused. What is said of closed files is not authenticated.
    pub fn accept_closed(self) -> Self {
        Self { accept_closed: true, ..self }
    }

    /// The plaintext of the encrypted file or directory at `path`, decrypted where it is read.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Box<dyn Tree>> {
        self.open_tree(tree::open(path)?)
    }

    /// As [`open`](Self::open), for a tree that is open already.
    pub fn open_tree(&self, source: Box<dyn Tree>) -> Result<Box<dyn Tree>> {
        self.plaintext(source).map(Plaintext::into_tree)
    }

    pub(super) fn plaintext(&self, source: Box<dyn Tree>) -> Result<Plaintext> {
        Ok(if source.is_single_file() {
            let (reader, envelope) = Reader::expecting(source.open("")?, self.identities, self.context)?;
            Plaintext::File(reader, Box::new(envelope))
        } else {
            let tree = DecryptedTree::open(source, self.identities)?;
            self.context.map_or(Ok(()), |context| tree.expect_context(context))?;
            if let Some(entry) = tree.closed().first().filter(|_| !self.accept_closed) {
                return Err(EncryptionError::ClosedFile { path: entry.path.clone() }.on(tree.name()));
            }
            Plaintext::Directory(tree)
        })
    }

    /// Decrypts the encrypted file or directory at `input` to a new file or directory at `output`, and returns the paths
    /// of a directory's files that stay closed, if that is [accepted](Self::accept_closed).
    ///
    /// The output, readable by its owner alone, appears only when every byte of it has been authenticated.
    pub fn decrypt(
        &self,
        input: impl AsRef<Path>,
        output: impl AsRef<Path>,
        progress: &dyn Progress,
    ) -> Result<Vec<String>> {
        let (input, output) = (input.as_ref(), output.as_ref());
        refuse_inside(input, output)?;
        match self.plaintext(tree::open(input)?)? {
            Plaintext::File(reader, _) => {
                progress.begin("decrypt", reader.size());
                write_file(&reader, AtomicFile::create(output, Access::Private)?, progress)?;
                Ok(Vec::new())
            }
            Plaintext::Directory(tree) => {
                let dir = AtomicDir::create(output)?;
                progress.begin("decrypt", tree.total_size());
                tree.entries().par_iter().try_for_each(|entry| {
                    write_file(&*tree.open(&entry.path)?, dir.file(&entry.path, Access::Private)?, progress)
                })?;
                dir.commit(Access::Private)?;
                Ok(tree.closed().iter().map(|entry| entry.path.clone()).collect())
            }
        }
    }

    /// Decrypts the encrypted file at `input` to a stream. Its length is proved before the first byte is written.
    pub fn decrypt_to(&self, input: impl AsRef<Path>, mut output: impl Write, progress: &dyn Progress) -> Result<()> {
        let Plaintext::File(reader, _) = self.plaintext(tree::open(&input)?)? else {
            return Err(EncryptionError::BadEnvelope("a directory does not fit into a stream".into())
                .on(input.as_ref().display().to_string()));
        };
        progress.begin("decrypt", reader.size());
        let mut part = Memory::zeroed(PART.min(reader.size()))?;
        for start in (0..reader.size()).step_by(PART as usize) {
            let part = &mut part[..(reader.size() - start).min(PART) as usize];
            reader.read_at(start, part)?;
            output.write_all(part).map_err(stream::write_error)?;
            step(progress, part.len() as u64)?;
        }
        output.flush().map_err(stream::write_error)
    }

    /// Decrypts one stream to another.
    ///
    /// Every byte is authenticated before it is written, but that the stream is whole shows at its end only: after an
    /// error what was written is an authentic beginning, and must be thrown away.
    pub fn decrypt_stream(
        &self,
        mut input: impl Read + Send,
        output: impl Write,
        progress: &dyn Progress,
    ) -> Result<()> {
        let fail = |cause: EncryptionError| cause.on(stream::INPUT);
        let mut bytes = vec![0; FRONT];
        let read = stream::fill(&mut input, &mut bytes)?;
        if read < MAGIC_FILE.len() {
            return Err(fail(EncryptionError::NotEncrypted));
        }
        let front = bytes.as_array().ok_or_else(|| fail(EncryptionError::Truncated))?;
        let len = header::length(front, MAGIC_FILE).map_err(fail)? as usize;
        // grows with what is there, not with what is claimed
        let rest = (&mut input).take((len - FRONT) as u64).read_to_end(&mut bytes).map_err(stream::read_error)?;
        if rest < len - FRONT {
            return Err(fail(EncryptionError::Truncated));
        }
        let header = Header::parse(&bytes, MAGIC_FILE).map_err(fail)?;
        let envelope = header.envelope(stream::INPUT)?;
        let key = envelope.unwrap(self.identities, stream::INPUT)?;
        header.check(&key).map_err(fail)?;
        self.context.map_or(Ok(()), |expected| expect_context(expected, &envelope.context, stream::INPUT))?;
        let path = envelope.path.as_deref().unwrap_or_default();
        progress.begin("decrypt", 0);
        stream::open(&key, &payload_context(&envelope.context, path), input, output, progress)
    }
}

/// What an encrypted artifact is when it is open.
pub(super) enum Plaintext {
    File(Reader<Arc<dyn ReadAt>>, Box<Envelope>),
    Directory(DecryptedTree),
}

impl Plaintext {
    pub(super) fn context(&self) -> &str {
        match self {
            Self::File(reader, _) => reader.context(),
            Self::Directory(tree) => tree.context(),
        }
    }

    /// The paths of its groups.
    pub(super) fn groups(&self) -> Vec<String> {
        let of = |tree: &DecryptedTree| {
            let groups = tree.envelopes().next().and_then(Envelope::groups).unwrap_or_default();
            groups.into_iter().map(|group| group.path.clone()).collect()
        };
        match self {
            Self::File(..) => Vec::new(),
            Self::Directory(tree) => of(tree),
        }
    }

    pub(super) fn public(&self) -> Vec<PublicFile> {
        match self {
            Self::File(_, envelope) => envelope.public().cloned().collect(),
            Self::Directory(tree) => tree.envelopes().flat_map(Envelope::public).cloned().collect(),
        }
    }

    pub(super) fn into_tree(self) -> Box<dyn Tree> {
        match self {
            Self::File(reader, _) => Box::new(SingleFile::new(reader.path().to_owned(), Arc::new(reader))),
            Self::Directory(tree) => Box::new(tree),
        }
    }
}

fn write_file(source: &dyn ReadAt, file: AtomicFile, progress: &dyn Progress) -> Result<()> {
    file.set_size(source.size())?;
    copy(source, &|offset, bytes| file.write_at(offset, bytes), progress)?;
    file.commit()
}
