//! Where bytes come from and go to: positioned reads, model trees, atomic outputs, progress.
//!
//! Everything this crate reads it reads through [`ReadAt`]: a file, a memory map, a byte slice and the *plaintext
//! view of an encrypted file* look alike to format readers, signing and watermarking. [`Tree`] is the same idea
//! one level up: a model directory, a single file and a decrypted directory look alike.

pub mod atomic;
#[cfg(any(feature = "capi", feature = "python"))]
pub(crate) mod fork;
pub mod memory;
pub mod mmap;
pub mod progress;
#[cfg(all(feature = "encryption", target_os = "linux"))]
pub mod sealed;
pub mod tree;

use std::fs::{File, Metadata};
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

pub use memory::Memory;
pub use mmap::MmapAt;
pub use progress::Progress;
pub use tree::{Entry, Tree};

use crate::error::{Error, Result};
use crate::tensor::Span;

/// A source of bytes that is read at positions, from many threads at once.
///
/// # Contract
/// - [`size`](Self::size) never changes, and every read returns the same bytes for the same position.
/// - [`read_at`](Self::read_at) fills the whole buffer or fails; what is in the buffer after a failure is
///   unspecified, but never unauthenticated plaintext of an encrypted source.
/// - A read that reaches beyond `size` fails with [`std::io::ErrorKind::UnexpectedEof`]; an empty read within
///   `0..=size` succeeds.
/// - Sources hold no position and need no lock: readers on different threads do not disturb each other.
pub trait ReadAt: Send + Sync {
    /// Number of bytes.
    fn size(&self) -> u64;

    /// Fills `buf` with the bytes from `offset` on.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// What to call this source in messages: a path, or a word such as `memory`.
    fn name(&self) -> &str;

    /// Fills several buffers, one after the other, with the bytes from `offset` on.
    fn read_vectored_at(&self, mut offset: u64, bufs: &mut [IoSliceMut<'_>]) -> Result<()> {
        for buf in bufs {
            self.read_at(offset, buf)?;
            offset += buf.len() as u64;
        }
        Ok(())
    }

    /// Whether the bytes are still those that were there when the source was opened, as far as the system tells: of a
    /// file by its size and its times, which what is written through a memory map reaches late. Bytes in memory are.
    fn is_unchanged(&self) -> Result<bool> {
        Ok(true)
    }

    /// Whether every read proves what it hands out, whoever may overwrite what is beneath: so does the plaintext of an
    /// encrypted file, against all who do not have its key. What was verified once through such a source stays verified.
    fn is_authenticated(&self) -> bool {
        false
    }
}

/// Conveniences over [`ReadAt`].
pub trait ReadAtExt: ReadAt {
    /// The bytes of `span` in new memory. The span is checked against the size before anything is allocated.
    fn read_span(&self, span: Span) -> Result<Vec<u8>> {
        let len = span.end.checked_sub(span.start).filter(|_| span.end <= self.size());
        let len = len.and_then(|len| usize::try_from(len).ok()).ok_or_else(|| beyond_end(self.name()))?;
        let mut bytes = vec![0; len];
        self.read_at(span.start, &mut bytes)?;
        Ok(bytes)
    }

    /// The bytes of `span`, likewise, in memory fit for many of them.
    fn read_memory(&self, span: Span) -> Result<Memory> {
        let len = span.end.checked_sub(span.start).filter(|_| span.end <= self.size());
        let mut memory = Memory::zeroed(len.ok_or_else(|| beyond_end(self.name()))?)?;
        self.read_at(span.start, &mut memory)?;
        Ok(memory)
    }

    /// All bytes, if there are no more than `limit`.
    fn read_all(&self, limit: u64) -> Result<Vec<u8>> {
        if self.size() > limit {
            let problem = std::io::Error::new(std::io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes"));
            return Err(Error::io("read", self.name(), problem));
        }
        self.read_span(0..self.size())
    }
}

impl<R: ReadAt + ?Sized> ReadAtExt for R {}

macro_rules! delegate_read_at {
    ($($pointer:ty),*) => {$(
        impl<R: ReadAt + ?Sized> ReadAt for $pointer {
            fn size(&self) -> u64 {
                (**self).size()
            }
            fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
                (**self).read_at(offset, buf)
            }
            fn name(&self) -> &str {
                (**self).name()
            }
            fn read_vectored_at(&self, offset: u64, bufs: &mut [IoSliceMut<'_>]) -> Result<()> {
                (**self).read_vectored_at(offset, bufs)
            }
            fn is_unchanged(&self) -> Result<bool> {
                (**self).is_unchanged()
            }
            fn is_authenticated(&self) -> bool {
                (**self).is_authenticated()
            }
        }
    )*};
}
delegate_read_at!(&R, Arc<R>, Box<R>);

/// A regular file, read by `pread` and `preadv`.
pub struct FileAt {
    file: File,
    name: String,
    size: u64,
    /// Times of the last change of its bytes, and of anything about it, when it was opened.
    times: [(i64, i64); 2],
}

impl FileAt {
    /// Opens a regular file. Anything else (a directory, a FIFO, a device) is refused without blocking on it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        use rustix::fs::{Mode, OFlags};
        let path = path.as_ref();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| Error::io("open", path, e))?;
        Self::from_file(File::from(fd), path.display().to_string())
    }

    /// Takes an open file that messages will call `name`.
    pub fn from_file(file: File, name: String) -> Result<Self> {
        let metadata = file.metadata().map_err(|e| Error::io("read", &name, e))?;
        if !metadata.is_file() {
            let kind =
                if metadata.is_dir() { std::io::ErrorKind::IsADirectory } else { std::io::ErrorKind::InvalidInput };
            let problem =
                std::io::Error::new(kind, if metadata.is_dir() { "is a directory" } else { "not a regular file" });
            return Err(Error::io("read", &name, problem));
        }
        Ok(Self { file, name, size: metadata.len(), times: times(&metadata) })
    }

    /// The permission bits of the open file.
    pub(crate) fn mode(&self) -> Result<u32> {
        use std::os::unix::fs::PermissionsExt;
        let metadata = self.file.metadata().map_err(|e| Error::io("read", &self.name, e))?;
        Ok(metadata.permissions().mode() & 0o777)
    }
}

impl ReadAt for FileAt {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_bounds(self, offset, buf.len())?;
        self.file.read_exact_at(buf, offset).map_err(|e| Error::io("read", &self.name, e))
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn read_vectored_at(&self, offset: u64, bufs: &mut [IoSliceMut<'_>]) -> Result<()> {
        let wanted: usize = bufs.iter().map(|b| b.len()).sum();
        check_bounds(self, offset, wanted)?;
        let read = rustix::io::retry_on_intr(|| rustix::io::preadv(&self.file, bufs, offset));
        if read.map_err(|e| Error::io("read", &self.name, e))? == wanted {
            return Ok(());
        }
        let mut at = offset; // a short read is legal and rare: fall back to whole buffers
        for buf in bufs {
            self.read_at(at, buf)?;
            at += buf.len() as u64;
        }
        Ok(())
    }

    fn is_unchanged(&self) -> Result<bool> {
        let now = self.file.metadata().map_err(|e| Error::io("read", &self.name, e))?;
        Ok((now.len(), times(&now)) == (self.size, self.times))
    }
}

/// Bytes in memory.
pub struct SliceAt<B> {
    bytes: B,
    name: String,
}

impl<B: AsRef<[u8]> + Send + Sync> SliceAt<B> {
    /// Takes bytes that messages will call `memory`.
    pub fn new(bytes: B) -> Self {
        Self::named(bytes, "memory")
    }

    /// Takes bytes that messages will call `name`.
    pub fn named(bytes: B, name: impl Into<String>) -> Self {
        Self { bytes, name: name.into() }
    }
}

impl<B: AsRef<[u8]> + Send + Sync> ReadAt for SliceAt<B> {
    fn size(&self) -> u64 {
        self.bytes.as_ref().len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_bounds(self, offset, buf.len())?;
        let start = offset as usize; // within the slice, as just checked
        buf.copy_from_slice(&self.bytes.as_ref()[start..start + buf.len()]);
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// A source of bytes as a [`Read`](std::io::Read), front to back.
pub struct Sequential<'a> {
    source: &'a dyn ReadAt,
    at: u64,
}

impl<'a> Sequential<'a> {
    /// Starts at the front.
    pub fn new(source: &'a dyn ReadAt) -> Self {
        Self { source, at: 0 }
    }
}

impl std::io::Read for Sequential<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let len = (self.source.size() - self.at).min(buf.len() as u64) as usize;
        self.source.read_at(self.at, &mut buf[..len]).map_err(std::io::Error::other)?;
        self.at += len as u64;
        Ok(len)
    }
}

/// Hands all of `source`, piece by piece with offsets and from several threads, to `sink`.
pub fn copy(
    source: &dyn ReadAt,
    sink: &(dyn Fn(u64, &[u8]) -> Result<()> + Sync),
    progress: &dyn Progress,
) -> Result<()> {
    use rayon::prelude::*;
    const PIECE: u64 = 512 << 10; // stays in the cache of one core
    (0..source.size().div_ceil(PIECE)).into_par_iter().try_for_each_init(Vec::new, |buf, i| {
        let start = i * PIECE;
        buf.resize((source.size() - start).min(PIECE) as usize, 0);
        source.read_at(start, buf)?;
        sink(start, buf)?;
        progress::step(progress, buf.len() as u64)
    })
}

/// Fails unless `len` bytes from `offset` lie within `source`.
pub(crate) fn check_bounds(source: &(impl ReadAt + ?Sized), offset: u64, len: usize) -> Result<()> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= source.size() => Ok(()),
        _ => Err(beyond_end(source.name())),
    }
}

/// Whoever puts back the first, by `utimensat`, moves the second.
fn times(metadata: &Metadata) -> [(i64, i64); 2] {
    use std::os::unix::fs::MetadataExt;
    [(metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec())]
}

fn beyond_end(name: &str) -> Error {
    Error::io("read", name, std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the file ends before"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_bounded() {
        let source = SliceAt::new([1u8, 2, 3]);
        let mut buf = [0; 2];
        source.read_at(1, &mut buf).unwrap();
        assert_eq!(buf, [2, 3]);
        source.read_at(3, &mut []).unwrap();
        for offset in [2, 3, u64::MAX] {
            assert!(matches!(source.read_at(offset, &mut buf), Err(Error::Io { .. })), "{offset}");
        }
        assert!(source.read_span(2..4).is_err());
        assert!(source.read_span(0..u64::MAX).is_err());
    }
    #[test]
    fn a_file_says_whether_it_changed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("f");
        for (i, change) in ["append", "truncate", "overwrite", "overwrite and put back the time"].iter().enumerate() {
            std::fs::write(&path, b"abc").unwrap();
            let source: Arc<dyn ReadAt> = Arc::new(FileAt::open(&path).unwrap());
            let writer = File::options().write(true).open(&path).unwrap();
            source.read_at(0, &mut [0; 3]).unwrap();
            assert!(source.is_unchanged().unwrap() && !source.is_authenticated());
            let then = writer.metadata().unwrap().modified().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20)); // times of older kernels are coarse
            match i {
                0 => writer.write_all_at(b"d", 3).unwrap(),
                1 => writer.set_len(2).unwrap(),
                _ => writer.write_all_at(b"xbc", 0).unwrap(),
            }
            if i == 3 {
                writer.set_modified(then).unwrap();
            }
            assert!(!source.is_unchanged().unwrap(), "{change}");
        }
        assert!(SliceAt::new(b"abc").is_unchanged().unwrap());
    }
}
