//! Changing who may open an artifact, without touching its payload.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::KEYS_FILE;
use super::envelope::Envelope;
use super::header::{self, Header, MAGIC_FILE};
use super::inspect::Inspection;
use super::reader::{Reader, expect_context};
use super::tree::{check_key_id, disagreement, read_blocks};
use crate::crypto::cobblestone;
use crate::error::{Cause, EncryptionError, Error, Result};
use crate::io::atomic::{Access, AtomicFile};
use crate::io::progress::{Progress, step};
use crate::io::{FileAt, ReadAt, ReadAtExt};
use crate::keys::{Identity, InputKey, Recipient, Stanza};

/// Larger than two headers.
const MAX_JOURNAL: u64 = 64 << 20;

/// A change of recipients. It takes milliseconds, whatever the size of the model.
///
/// It does **not** revoke: whoever could open the artifact before may have kept its key, or a copy of what they opened.
/// To shut them out of what is published from now on, encrypt it anew: [`Encryptor::rekey`](super::Encryptor::rekey).
///
/// ```
/// use weightmark::encryption::{Decryptor, Encryptor, Rewrap};
/// use weightmark::keys::XWingIdentity;
/// # let home = tempfile::tempdir()?;
/// # let path = home.path().join("model.wmenc");
///
/// let (old, new) = (XWingIdentity::generate()?, XWingIdentity::generate()?);
/// # std::fs::write(home.path().join("model"), "weights")?;
/// # Encryptor::to([old.recipient()]).encrypt(home.path().join("model"), &path)?;
/// Rewrap::new().also([new.recipient()]).remove(old.recipient().id()).apply(&path, &[&old])?;
/// assert!(Decryptor::new(&[&new]).open(&path).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Crashes
/// The envelope of a directory is replaced in one step. That of a lone file is overwritten in place, after it and the new
/// one were stored beside it, in `FILE.rewrap`: should the machine stop in the midst, the next rewrap by anyone who could
/// open the file before or after the change finishes it or undoes it first. One without any change does only that.
/// Where the new envelope does not fit into the room that the old one has, a lone file is copied, and replaced in one step.
///
/// Files that are open already are not disturbed. Whoever opens a lone file in the very moment its envelope is overwritten
/// may find it tampered with, and should try again. The file keeps its owner and its mode; extended attributes are lost
/// where it is replaced.
#[derive(Default)]
pub struct Rewrap {
    context: Option<String>,
    group: String,
    add: Vec<Box<dyn Recipient>>,
    remove: Vec<String>,
    only: bool,
}

impl Rewrap {
    /// No change yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets these recipients open it too. One that could already is wrapped to anew.
    pub fn also<R: Recipient + 'static>(mut self, recipients: impl IntoIterator<Item = R>) -> Self {
        self.add.extend(recipients.into_iter().map(|recipient| Box::new(recipient) as Box<dyn Recipient>));
        self
    }

    /// Lets these recipients open it, and nobody else.
    pub fn only<R: Recipient + 'static>(self, recipients: impl IntoIterator<Item = R>) -> Self {
        Self { only: true, ..self }.also(recipients)
    }

    /// Takes out the recipients of this id.
    pub fn remove(mut self, id: impl Into<String>) -> Self {
        self.remove.push(id.into());
        self
    }

    /// Refuses what is bound to another context.
    pub fn expect_context(self, context: impl Into<String>) -> Self {
        Self { context: Some(context.into()), ..self }
    }

    /// Changes the group of files of a directory that has this path, rather than the main one.
    pub fn group(self, path: impl Into<String>) -> Self {
        Self { group: path.into(), ..self }
    }

    /// Changes the encrypted file or directory at `path`, opened with the first of the identities that fits, and tells
    /// what others will see of it.
    pub fn apply(&self, path: impl AsRef<Path>, identities: &[&dyn Identity]) -> Result<Inspection> {
        self.apply_with(path, identities, &())
    }

    /// As [`apply`](Self::apply), watched by `progress`: a file that must be copied takes a while.
    pub fn apply_with(
        &self,
        path: impl AsRef<Path>,
        identities: &[&dyn Identity],
        progress: &dyn Progress,
    ) -> Result<Inspection> {
        let path = path.as_ref();
        // a link that the user gives is followed, once
        let path = path.canonicalize().map_err(|e| Error::io("open", path, e))?;
        if path.is_dir() {
            self.directory(&path.join(KEYS_FILE), identities)
        } else {
            self.file(&path, identities, progress)
        }
    }

    fn directory(&self, path: &Path, identities: &[&dyn Identity]) -> Result<Inspection> {
        let lock = Lock::on(path, OpenOptions::new().read(true))?;
        let fail = |cause: EncryptionError| cause.on(lock.name());
        let blocks = read_blocks(&lock.source)?;
        let mut envelopes =
            blocks.iter().map(|block| block.envelope(lock.name()).cloned()).collect::<Result<Vec<_>>>()?;
        let paths = envelopes
            .first()
            .and_then(Envelope::groups)
            .map_or(vec![String::new()], |groups| groups.iter().map(|group| group.path.clone()).collect());
        let place = paths.iter().position(|path| *path == self.group);
        let place = place.ok_or(Error::ApiMisuse("the directory has no such group"))?;
        let (block, envelope) = (&blocks[place], &mut envelopes[place]); // one of each for each path, as just checked
        let key = envelope.unwrap(identities, lock.name())?;
        block.check(&key).and_then(|()| check_key_id(envelope, place, &key)).map_err(fail)?;
        self.change(envelope, &key, lock.name())?;
        let changed = Header::of_directory(envelope, &key).map_err(fail)?;
        let problem = disagreement(&envelopes.iter().collect::<Vec<_>>());
        problem.map_or(Ok(()), |why| Err(fail(EncryptionError::BadEnvelope(why.into()))))?;
        let start: u64 = blocks[..place].iter().map(|block| block.len).sum();
        let (before, after) = (0..start, start + block.len..lock.source.size());
        let bytes = [lock.source.read_span(before)?, changed, lock.source.read_span(after)?].concat();
        let file = AtomicFile::replace(path, &lock.file)?;
        file.write_at(0, &bytes)?;
        file.commit()?;
        Ok(Inspection::of_directory(&envelopes))
    }

    fn file(&self, path: &Path, identities: &[&dyn Identity], progress: &dyn Progress) -> Result<Inspection> {
        if !self.group.is_empty() {
            return Err(Error::ApiMisuse("groups of files need a directory"));
        }
        let lock = Lock::on(path, OpenOptions::new().read(true).write(true))?;
        let journal = Journal::of(path);
        journal.finish(&lock, identities)?;
        let fail = |cause: EncryptionError| cause.on(lock.name());
        let header = Header::read(&lock.source, 0, MAGIC_FILE)?;
        let mut envelope = header.envelope(lock.name())?.clone();
        let key = envelope.unwrap(identities, lock.name())?;
        header.check(&key).map_err(fail)?;
        self.change(&mut envelope, &key, lock.name())?;
        let changed = Header::with_envelope(MAGIC_FILE, &envelope, &key, header.len).map_err(fail)?;
        let size = lock.source.size().checked_sub(header.len).and_then(cobblestone::plaintext_len);
        let size = size.ok_or_else(|| fail(EncryptionError::Truncated))?;
        if changed.len() as u64 == header.len {
            journal.replace(&lock, &lock.source.read_span(0..header.len)?, &changed)?;
        } else {
            let roomy = Header::of_file(&envelope, &key).map_err(fail)?;
            copy_behind(&lock.source, header.len, &roomy, AtomicFile::replace(path, &lock.file)?, progress)?;
        }
        Ok(Inspection::of_file(&envelope, size))
    }

    /// Makes the change in an envelope.
    fn change(&self, envelope: &mut Envelope, key: &InputKey, name: &str) -> Result<()> {
        self.context.as_ref().map_or(Ok(()), |expected| expect_context(expected, &envelope.context, name))?;
        let added = self.add.iter().map(|recipient| recipient.wrap(key)).collect::<Result<Vec<_>>>()?;
        let mut kept: Vec<Stanza> = if self.only { Vec::new() } else { envelope.recipients().to_vec() };
        for id in &self.remove {
            let before = kept.len();
            kept.retain(|stanza| stanza.id != *id);
            if kept.len() == before {
                return Err(Error::ApiMisuse("it has no recipient of the id to remove"));
            }
        }
        kept.retain(|stanza| !added.iter().any(|new| (&new.kind, &new.id) == (&stanza.kind, &stanza.id)));
        kept.extend(added);
        envelope.set_recipients(kept)
    }
}

/// A file that nobody else rewraps meanwhile.
struct Lock {
    source: FileAt,
    file: File,
}

impl Lock {
    fn on(path: &Path, options: &mut OpenOptions) -> Result<Self> {
        use rustix::fs::{FlockOperation, OFlags, flock};
        let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits() as i32; // a FIFO is refused, not waited for
        let file = options.custom_flags(flags).open(path).map_err(|e| Error::io("open", path, e))?;
        let read = |e| Error::io("read", path, e);
        let source = FileAt::from_file(file.try_clone().map_err(read)?, path.display().to_string())?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
            rustix::io::Errno::WOULDBLOCK => Error::io("lock", path, io::Error::other("it is being rewrapped already")),
            e => Error::io("lock", path, e),
        })?;
        let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        if place(file.metadata().map_err(read)?) != place(path.metadata().map_err(read)?) {
            return Err(Error::io("lock", path, io::Error::other("it was replaced meanwhile")));
        }
        Ok(Self { source, file })
    }

    fn name(&self) -> &str {
        self.source.name()
    }

    /// The input key, if the file opens with `front` as its header.
    fn key_of(&self, front: &[u8], identities: &[&dyn Identity]) -> Option<InputKey> {
        let header = Header::parse(front, MAGIC_FILE).ok()?;
        let key = header.envelope(self.name()).ok()?.unwrap(identities, self.name()).ok()?;
        Reader::open(Patched { source: &self.source, front }, identities).ok().map(|_| key)
    }

    /// Overwrites the front of the file, and makes it durable.
    fn write(&self, header: &[u8]) -> Result<()> {
        self.file.write_all_at(header, 0).map_err(|e| Error::io("write", self.name(), e))?;
        self.sync()
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io("write", self.name(), e))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // at once, even if a process that is just being started still holds a copy of the file
        let _ = rustix::fs::flock(&self.file, rustix::fs::FlockOperation::Unlock);
    }
}

/// The old and the new header of a lone file, one behind the other, stored beside it while the one is overwritten with
/// the other.
struct Journal(PathBuf);

impl Journal {
    fn of(path: &Path) -> Self {
        let mut name = path.as_os_str().to_owned();
        name.push(".rewrap");
        Self(name.into())
    }

    /// Puts `new` in the place of `old`, which is as long.
    fn replace(&self, lock: &Lock, old: &[u8], new: &[u8]) -> Result<()> {
        AtomicFile::write(&self.0, Access::Private, &[old, new].concat()).inspect_err(|_| {
            let _ = fs::remove_file(&self.0); // nothing was overwritten: nobody needs it
        })?;
        lock.write(new)?;
        self.remove()
    }

    /// Ends a change that was interrupted. A header that is neither the old nor the new one was half written: it becomes
    /// the one of them that the identities open, the new one if both do.
    fn finish(&self, lock: &Lock, identities: &[&dyn Identity]) -> Result<()> {
        let stored = match FileAt::open(&self.0) {
            Ok(stored) => stored.read_all(MAX_JOURNAL)?,
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let (old, new) = stored.split_at(stored.len() / 2);
        let is_header = |half: &[u8]| {
            let len = half.first_chunk().map(|front| header::length(front, MAGIC_FILE));
            len.is_some_and(|len| len.is_ok_and(|len| len == half.len() as u64))
        };
        if !is_header(old) || !is_header(new) {
            return Err(Error::io("remove", &self.0, io::Error::other("it is in the way, and not ours")));
        }
        let there = lock.source.read_span(0..lock.source.size().min(old.len() as u64))?;
        if there == old || there == new {
            lock.sync()?;
        } else if let Some((front, key)) =
            [new, old].iter().find_map(|front| Some((front, lock.key_of(front, identities)?)))
        {
            // one that is whole was written by a later change
            let is_whole = Header::read(&lock.source, 0, MAGIC_FILE).is_ok_and(|header| header.check(&key).is_ok());
            if !is_whole {
                lock.write(front)?;
            }
        } else {
            // what is stored there does not help: either it is about another change, or the file is wrong
            Reader::open(&lock.source, identities)?;
        }
        self.remove()
    }

    /// Not made durable: should it come back after a crash, the next rewrap finds that it has done its work.
    fn remove(&self) -> Result<()> {
        fs::remove_file(&self.0).map_err(|e| Error::io("remove", &self.0, e))
    }
}

/// A file with another front.
struct Patched<'a> {
    source: &'a FileAt,
    front: &'a [u8],
}

impl ReadAt for Patched<'_> {
    fn size(&self) -> u64 {
        self.source.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.source.read_at(offset, buf)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.front.len());
        let front = &self.front[start..];
        let len = front.len().min(buf.len());
        buf[..len].copy_from_slice(&front[..len]);
        Ok(())
    }

    fn name(&self) -> &str {
        self.source.name()
    }
}

/// Writes `header`, and behind it all of `source` from `start` on.
fn copy_behind(source: &FileAt, start: u64, header: &[u8], file: AtomicFile, progress: &dyn Progress) -> Result<()> {
    let mut piece = vec![0; 4 << 20];
    progress.begin("copy", source.size() - start);
    file.write_at(0, header)?;
    for at in (start..source.size()).step_by(piece.len()) {
        let len = (source.size() - at).min(piece.len() as u64) as usize;
        source.read_at(at, &mut piece[..len])?;
        file.write_at(header.len() as u64 + at - start, &piece[..len])?;
        step(progress, len as u64)?;
    }
    file.commit()
}
