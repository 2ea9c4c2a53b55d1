//! Outputs that appear whole or not at all.
//!
//! Work goes to a sibling with a temporary name; [`commit`](AtomicFile::commit) makes it durable (`fsync`), gives
//! it its name, and makes the name durable (`fsync` of the directory). Dropping without a commit removes it.
//! An output that exists already is never replaced.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempDir};

use crate::error::{Error, Result};

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
    /// Within an [`AtomicDir`], which makes all names durable at once.
    nested: bool,
}

impl AtomicFile {
    /// Starts a file that will be called `path`. Fails at once if something is there already.
    pub fn create(path: impl AsRef<Path>, access: Access) -> Result<Self> {
        let path = path.as_ref();
        refuse_existing(path)?;
        let mode = if access == Access::Private { 0o600 } else { 0o666 };
        let temporary = tempfile::Builder::new()
            .prefix(".weightmark-")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(parent(path))
            .map_err(|e| Error::io("create", path, e))?;
        Ok(Self { temporary, path: path.to_owned(), shown: path.to_owned(), nested: false })
    }

    /// Sets the size, so that parts can be written in any order and a full disk shows early.
    pub fn set_size(&self, size: u64) -> Result<()> {
        self.temporary.as_file().set_len(size).map_err(|e| Error::io("write", &self.shown, e))
    }

    /// Writes all of `bytes` at `offset`. Threads may write different parts at once.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.temporary.as_file().write_all_at(bytes, offset).map_err(|e| Error::io("write", &self.shown, e))
    }

    /// Makes the file durable and gives it its name, unless something has taken the name meanwhile.
    pub fn commit(self) -> Result<()> {
        let Self { temporary, path, shown, nested } = self;
        temporary.as_file().sync_all().map_err(|e| Error::io("write", &shown, e))?;
        temporary.persist_noclobber(&path).map_err(|e| Error::io("create", &shown, e.error))?;
        if nested { Ok(()) } else { sync_directory(parent(&path)) }
    }

    /// Writes a whole small file.
    pub fn write(path: impl AsRef<Path>, access: Access, bytes: &[u8]) -> Result<()> {
        let file = Self::create(path, access)?;
        file.write_at(0, bytes)?;
        file.commit()
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
        let path = path.as_ref();
        refuse_existing(path)?;
        let temporary = tempfile::Builder::new()
            .prefix(".weightmark-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent(path))
            .map_err(|e| Error::io("create", path, e))?;
        Ok(Self { temporary, path: path.to_owned() })
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
        Ok(AtomicFile { shown, nested: true, ..AtomicFile::create(place, access)? })
    }

    /// Gives the directory its name, readable as `access` says, unless something has taken the name meanwhile.
    pub fn commit(self, access: Access) -> Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        sync_directories(self.path())?;
        let mode = if access == Access::Private { 0o700 } else { 0o777 & !umask(&self)? };
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
        sync_directory(parent(&self.path))
    }
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
pub(crate) fn refuse_existing(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(_) => Err(Error::io("create", path, io::Error::new(io::ErrorKind::AlreadyExists, "it exists already"))),
        Err(_) => Ok(()),
    }
}

/// The bits that a new directory of this process lacks, seen on one made for the purpose.
fn umask(dir: &AtomicDir) -> Result<u32> {
    let probe = dir.path().join(".umask");
    let look = || -> io::Result<u32> {
        fs::create_dir(&probe)?;
        let mode = fs::metadata(&probe)?.permissions().mode();
        fs::remove_dir(&probe)?;
        Ok(!mode & 0o777)
    };
    look().map_err(|e| Error::io("create", &dir.path, e))
}

fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|e| Error::io("sync", path, e))
}

fn sync_directories(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path).map_err(|e| Error::io("sync", path, e))? {
        let entry = entry.map_err(|e| Error::io("sync", path, e))?;
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            sync_directories(&entry.path())?;
        }
    }
    sync_directory(path)
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

        let late = AtomicDir { temporary: tempfile::tempdir_in(home.path()).unwrap(), path };
        assert!(late.commit(Access::Shared).is_err());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
