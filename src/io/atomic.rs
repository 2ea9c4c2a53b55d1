//! Outputs that appear whole or not at all.
//!
//! Work goes to a sibling with a temporary name; [`commit`](AtomicFile::commit) makes it durable (`fsync`), gives
//! it its name, and makes the name durable (`fsync` of the directory). Dropping without a commit removes it.
//! An output that exists already is never replaced, unless that is what was asked for.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempDir};

use crate::error::{Error, Result};

/// What the names of temporary files and directories begin with.
const PREFIX: &str = ".weightmark-";

/// Who may read an output.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(clippy::exhaustive_enums)]
pub enum Access {
    /// Only the owner (mode 0600): keys and decrypted weights.
    Private,
    /// As the user's umask says.
    Shared,
}

/// A file that appears under its name when it is complete.
pub struct AtomicFile {
    temporary: NamedTempFile,
    path: PathBuf,
    /// What messages call it: its name in the end.
    shown: PathBuf,
    kind: Kind,
}

/// What becomes of an [`AtomicFile`] in the end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// A new file.
    New,
    /// A new file within an [`AtomicDir`], which makes all of its files durable at once.
    Nested,
    /// Takes the place of the file that is there.
    Replacement,
}

impl AtomicFile {
    /// Starts a file that will be called `path`. Fails at once if something is there already.
    pub fn create(path: impl AsRef<Path>, access: Access) -> Result<Self> {
        let path: PathBuf = path.as_ref().components().collect(); // without a slash at the end
        Self::start(path.clone(), path, mode_of(access), Kind::New)
    }

    /// Starts a file that takes the place of `old`, which is open and lies at `path`, at once when it is complete. It
    /// gets the same owner and mode.
    pub fn replace(path: impl AsRef<Path>, old: &File) -> Result<Self> {
        let path: PathBuf = path.as_ref().components().collect();
        let this = Self::start(path.clone(), path, 0o600, Kind::Replacement)?;
        let file = this.temporary.as_file();
        let kept = old.metadata().and_then(|old| {
            let new = file.metadata()?;
            if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                std::os::unix::fs::fchown(file, Some(old.uid()), Some(old.gid()))?;
            }
            file.set_permissions(old.permissions())
        });
        kept.map_err(|e| Error::io("keep the owner and mode of", &this.shown, e)).map(|()| this)
    }

    fn start(path: PathBuf, shown: PathBuf, mode: u32, kind: Kind) -> Result<Self> {
        if kind != Kind::Replacement {
            refuse_existing(&path).map_err(|e| e.renamed(&shown))?;
        }
        let temporary = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(parent(&path))
            .map_err(|e| Error::io("create", &shown, plain(e)))?;
        Ok(Self { temporary, path, shown, kind })
    }

    /// Sets the size, so that parts can be written in any order.
    pub fn set_size(&self, size: u64) -> Result<()> {
        self.temporary.as_file().set_len(size).map_err(|e| Error::io("write", &self.shown, e))
    }

    /// Writes all of `bytes` at `offset`. Threads may write different parts at once.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.temporary.as_file().write_all_at(bytes, offset).map_err(|e| Error::io("write", &self.shown, e))
    }

    /// Makes the file durable and gives it its name, unless something has taken the name of a new one meanwhile.
    pub fn commit(self) -> Result<()> {
        let Self { temporary, path, shown, kind } = self;
        if kind != Kind::Nested {
            temporary.as_file().sync_all().map_err(|e| Error::io("write", &shown, e))?;
        }
        let named = match kind {
            Kind::New | Kind::Nested => temporary.persist_noclobber(&path),
            Kind::Replacement => temporary.persist(&path),
        };
        named.map_err(|e| Error::io("create", &shown, e.error))?;
        match kind {
            Kind::Nested => Ok(()),
            Kind::Replacement => sync_directory(parent(&path)),
            // what is not known to last is not there
            Kind::New => sync_directory(parent(&path)).inspect_err(|_| drop(fs::remove_file(&path))),
        }
    }

    /// Writes a whole small file.
    pub fn write(path: impl AsRef<Path>, access: Access, bytes: &[u8]) -> Result<()> {
        let file = Self::create(path, access)?;
        file.write_at(0, bytes)?;
        file.commit()
    }
}

/// Writes one piece after the other. [`AtomicFile::write_at`] does not move the place.
impl io::Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.temporary.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A directory that appears under its name when everything in it is complete.
pub struct AtomicDir {
    temporary: TempDir,
    path: PathBuf,
}

impl AtomicDir {
    /// Starts a directory that will be called `path`. Fails at once if something is there already.
    ///
    /// Until the commit only the owner can look inside.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path: PathBuf = path.as_ref().components().collect();
        refuse_existing(&path)?;
        Ok(Self { temporary: private_dir(&path)?, path })
    }

    /// Where to write meanwhile.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Starts a file inside, at `relative` (a `/`-separated path), and makes the directories above it.
    pub fn file(&self, relative: &str, access: Access) -> Result<AtomicFile> {
        let place = self.path().join(relative);
        let shown = self.path.join(relative);
        fs::create_dir_all(parent(&place)).map_err(|e| Error::io("create", &shown, e))?;
        AtomicFile::start(place, shown, mode_of(access), Kind::Nested)
    }

    /// Gives the directory its name, readable as `access` says, unless something has taken the name meanwhile.
    pub fn commit(self, access: Access) -> Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        sync_tree(self.path()).map_err(|e| Error::io("write", &self.path, e))?;
        let mode = if access == Access::Private { 0o700 } else { shared_mode(parent(&self.path))? };
        fs::set_permissions(self.path(), Permissions::from_mode(mode))
            .map_err(|e| Error::io("create", &self.path, e))?;
        match renameat_with(CWD, self.path(), CWD, &self.path, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            // a file system without exclusive rename: a rename onto a directory that is not empty still fails
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                refuse_existing(&self.path)?;
                fs::rename(self.path(), &self.path).map_err(|e| Error::io("create", &self.path, e))?;
            }
            Err(e) => return Err(Error::io("create", &self.path, e)),
        }
        let _ = self.temporary.keep(); // it has moved: nothing to remove
        sync_directory(parent(&self.path)).inspect_err(|_| drop(fs::remove_dir_all(&self.path)))
    }
}

/// The mode that a new file is created with, before the user's umask.
fn mode_of(access: Access) -> u32 {
    if access == Access::Private { 0o600 } else { 0o666 }
}

/// The directory that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Fails if `output` would lie inside of the directory `input`, which is being read.
pub fn refuse_inside(input: &Path, output: &Path) -> Result<()> {
    if let (Ok(input), Ok(place)) = (input.canonicalize(), parent(output).canonicalize())
        && place.starts_with(input)
    {
        let problem = io::Error::new(io::ErrorKind::InvalidInput, "it would lie inside of the input");
        return Err(Error::io("create", output, problem));
    }
    Ok(())
}

/// Fails if there is anything at `path`, a dangling link included.
pub fn refuse_existing(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(_) => Err(Error::io("create", path, io::Error::new(io::ErrorKind::AlreadyExists, "it exists already"))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("create", path, e)),
    }
}

/// A temporary directory beside `path` that only its owner can look into.
pub(crate) fn private_dir(path: &Path) -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    let dir = builder.prefix(PREFIX).permissions(Permissions::from_mode(0o700)).tempdir_in(parent(path));
    dir.map_err(|e| Error::io("create", path, plain(e)))
}

/// The mode that a new directory gets from the user's umask, seen on one made for the purpose.
fn shared_mode(parent: &Path) -> Result<u32> {
    let mut builder = tempfile::Builder::new();
    let probe = builder.prefix(PREFIX).permissions(Permissions::from_mode(0o777)).tempdir_in(parent);
    let metadata = probe.and_then(|probe| fs::metadata(probe.path()));
    metadata.map(|metadata| metadata.permissions().mode() & 0o777).map_err(|e| Error::io("create", parent, plain(e)))
}

/// The operating system's error without the temporary path that `tempfile` puts in front of it.
fn plain(error: io::Error) -> io::Error {
    let source = error.get_ref().and_then(|e| e.source()).and_then(|e| e.downcast_ref::<io::Error>());
    source.and_then(io::Error::raw_os_error).map_or(error, io::Error::from_raw_os_error)
}

/// Makes the names in a directory durable.
fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|e| Error::io("sync", path, e))
}

/// Makes everything beneath `path` durable: at once where the system can, file by file elsewhere.
fn sync_tree(path: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        Ok(rustix::fs::syncfs(File::open(path)?)?)
    }
    #[cfg(not(target_os = "linux"))]
    {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                sync_tree(&entry.path())?
            } else {
                File::open(entry.path())?.sync_all()?
            }
        }
        File::open(path)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_appears_before_the_commit() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("out");
        let file = AtomicFile::create(&path, Access::Private).unwrap();
        file.write_at(0, b"half").unwrap();
        assert!(!path.exists());
        drop(file);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);

        AtomicFile::write(&path, Access::Private, b"whole").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(AtomicFile::create(&path, Access::Shared), Err(Error::Io { op: "create", .. })));

        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let file = AtomicFile::replace(&path, &File::open(&path).unwrap()).unwrap();
        file.write_at(0, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_appears_whole() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("model");
        let dir = AtomicDir::create(&path).unwrap();
        let file = dir.file("a/b/c", Access::Shared).unwrap();
        file.write_at(0, b"x").unwrap();
        file.commit().unwrap();
        assert!(!path.exists());
        dir.commit(Access::Private).unwrap();
        assert_eq!(fs::read(path.join("a/b/c")).unwrap(), b"x");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);

        let late = AtomicDir { temporary: private_dir(&path).unwrap(), path };
        assert!(late.commit(Access::Shared).is_err());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
