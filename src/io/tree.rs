//! Model trees: the files of a model by relative path, whether a directory, one file, or a decrypted view.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use super::{FileAt, ReadAt, ReadAtExt, SliceAt};
use crate::error::{Error, Result};

/// More files than any model has; a tree beyond it is refused rather than listed.
const MAX_FILES: usize = 1_000_000;
/// Files up to this size are held in memory.
pub(crate) const MAX_IN_MEMORY: u64 = 64 << 10;
/// Deeper than any model directory, in components of a path.
const MAX_DEPTH: usize = 64;
/// Longest path in bytes.
const MAX_PATH: usize = 4096;

/// One file of a model.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Entry {
    /// Path relative to the root, separated by `/`, never empty, without `.` and `..`.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
}

impl Entry {
    /// Describes a file.
    pub fn new(path: impl Into<String>, size: u64) -> Self {
        Self { path: path.into(), size }
    }
}

/// The files of a model.
pub trait Tree: Send + Sync {
    /// All files, ordered by the code points of their paths.
    fn entries(&self) -> &[Entry];

    /// Opens the file at `path`, one of [`entries`](Self::entries).
    fn open(&self, path: &str) -> Result<Arc<dyn ReadAt>>;

    /// What to call the model in messages.
    fn name(&self) -> &str;

    /// Size of all files in bytes.
    fn total_size(&self) -> u64 {
        self.entries().iter().fold(0, |sum, entry| sum.saturating_add(entry.size))
    }

    /// Files that are there but closed: encrypted for others.
    fn closed(&self) -> &[Entry] {
        &[]
    }

    /// Whether this is a lone file rather than a directory.
    fn is_single_file(&self) -> bool {
        false
    }
}

/// Opens a model on disk: a directory, or one file.
pub fn open(path: impl AsRef<Path>) -> Result<Box<dyn Tree>> {
    let path = path.as_ref();
    let metadata = path.metadata().map_err(|e| Error::io("open", path, e))?;
    Ok(if metadata.is_dir() { Box::new(Directory::open(path)?) } else { Box::new(SingleFile::open(path)?) })
}

/// Whether `path` is relative and canonical: up to 64 non-empty components, none of them `.` or `..`, no NUL, no backslash.
pub(crate) fn is_canonical(path: &str) -> bool {
    path.len() <= MAX_PATH
        && path.split('/').count() <= MAX_DEPTH
        && !path.contains(['\0', '\\'])
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// A directory of regular files. Links, FIFOs, sockets and devices inside are refused, not skipped.
///
/// Files are opened component by component beneath the directory without following links, so nothing that
/// happens to the tree meanwhile can lead outside of it.
pub struct Directory {
    root: OwnedFd,
    entries: Vec<Entry>,
    name: String,
}

impl Directory {
    /// Lists the directory at `path`, everything beneath it included.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| Error::io("open", path, e))?;
        let mut directory = Self { root, entries: Vec::new(), name };
        let root = directory.root.try_clone().map_err(|e| Error::io("open", path, e))?;
        directory.list(&root, "", 0)?;
        directory.entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(directory)
    }

    fn list(&mut self, dir: &OwnedFd, prefix: &str, depth: usize) -> Result<()> {
        let here = format!("{}/{prefix}", self.name);
        if depth >= MAX_DEPTH {
            return Err(unfit(here, "directories nested too deeply"));
        }
        let listing = Dir::read_from(dir).map_err(|e| Error::io("list", &here, e))?;
        for item in listing {
            let item = item.map_err(|e| Error::io("list", &here, e))?;
            let bytes = item.file_name();
            if matches!(bytes.to_bytes(), b"." | b"..") {
                continue;
            }
            let name =
                bytes.to_str().map_err(|_| unfit(format!("{here}{}", bytes.to_string_lossy()), "name is not UTF-8"))?;
            let path = format!("{prefix}{name}");
            if !is_canonical(&path) {
                return Err(unfit(format!("{here}{name}"), "name holds a backslash, or the path is too long"));
            }
            let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| Error::io("read", format!("{here}{name}"), e))?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => self.entries.push(Entry::new(path, u64::try_from(stat.st_size).unwrap_or(0))),
                FileType::Directory => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let below = rustix::fs::openat(dir, name, flags, Mode::empty())
                        .map_err(|e| Error::io("open", format!("{here}{name}"), e))?;
                    self.list(&below, &format!("{path}/"), depth + 1)?;
                }
                FileType::Symlink => {
                    return Err(unfit(format!("{here}{name}"), "symbolic links are not followed in a model"));
                }
                _ => return Err(unfit(format!("{here}{name}"), "not a regular file")),
            }
            if self.entries.len() > MAX_FILES {
                return Err(unfit(self.name.clone(), "more than a million files"));
            }
        }
        Ok(())
    }
}

impl Tree for Directory {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn open(&self, path: &str) -> Result<Arc<dyn ReadAt>> {
        let name = format!("{}/{path}", self.name);
        if !is_canonical(path) {
            return Err(unfit(name, "not a canonical relative path"));
        }
        let fail = |e: rustix::io::Errno| Error::io("open", &name, e);
        let base = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut parts = path.split('/').peekable();
        let mut dir: Option<OwnedFd> = None;
        while let Some(part) = parts.next() {
            let flags = if parts.peek().is_some() { base | OFlags::DIRECTORY } else { base | OFlags::NONBLOCK };
            let at = dir.as_ref().unwrap_or(&self.root);
            dir = Some(rustix::fs::openat(at, part, flags, Mode::empty()).map_err(fail)?);
        }
        match dir {
            Some(fd) => Ok(Arc::new(FileAt::from_file(File::from(fd), name)?)),
            None => Err(unfit(name, "not a canonical relative path")),
        }
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// One file, as a tree of one entry under its base name.
pub struct SingleFile {
    source: Arc<dyn ReadAt>,
    entries: [Entry; 1],
}

impl SingleFile {
    /// Opens the regular file at `path`; a link given by the user is followed.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let source = FileAt::open(path)?;
        let base = path.file_name().and_then(|name| name.to_str());
        let base = base.filter(|name| is_canonical(name));
        let base = base.ok_or_else(|| unfit(source.name().to_owned(), "name is not UTF-8, or holds a backslash"))?;
        let base = base.to_owned();
        Ok(Self::new(base, Arc::new(source)))
    }

    /// Takes a source as the file called `path`.
    pub fn new(path: impl Into<String>, source: Arc<dyn ReadAt>) -> Self {
        let entries = [Entry::new(path, source.size())];
        Self { source, entries }
    }
}

impl Tree for SingleFile {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn open(&self, _: &str) -> Result<Arc<dyn ReadAt>> {
        Ok(Arc::clone(&self.source))
    }

    fn name(&self) -> &str {
        self.source.name()
    }

    fn is_single_file(&self) -> bool {
        true
    }
}

/// Sources from anywhere, as the files of a directory.
pub struct Sources {
    entries: Vec<Entry>,
    sources: HashMap<String, Arc<dyn ReadAt>>,
    name: String,
}

impl Sources {
    /// No files yet; messages will call the model `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self { entries: Vec::new(), sources: HashMap::new(), name: name.into() }
    }

    /// Adds the file at `path`: relative, separated by `/`, not there yet.
    pub fn and(mut self, path: impl Into<String>, source: Arc<dyn ReadAt>) -> Result<Self> {
        let path = path.into();
        if !is_canonical(&path) || self.entries.len() >= MAX_FILES {
            return Err(unfit(path, "not a canonical relative path, or more than a million files"));
        }
        let entry = Entry::new(path.clone(), source.size());
        match self.entries.binary_search_by(|known| known.path.cmp(&path)) {
            Ok(_) => return Err(unfit(path, "given twice")),
            Err(place) => self.entries.insert(place, entry),
        }
        self.sources.insert(path, source);
        Ok(self)
    }
}

impl Tree for Sources {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn open(&self, path: &str) -> Result<Arc<dyn ReadAt>> {
        self.sources.get(path).cloned().ok_or_else(|| unfit(path.to_owned(), "no such file in the model"))
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// A tree that opens each file once and hands out the same handle ever after, so that what was checked is what is
/// read, even if another file takes the name meanwhile. Small files are held in memory and need no handle.
pub struct Held {
    tree: Box<dyn Tree>,
    handles: Handles,
}

/// One handle for each path, from the first time it is asked for.
#[derive(Default)]
pub(crate) struct Handles(Mutex<HashMap<String, Arc<dyn ReadAt>>>);

impl Handles {
    /// The handle kept for `path`, or the one that `open` gives. Several threads may open at once, as opening may wait for
    /// other threads; all get the same.
    pub(crate) fn get_or_open(
        &self,
        path: &str,
        open: impl FnOnce() -> Result<Arc<dyn ReadAt>>,
    ) -> Result<Arc<dyn ReadAt>> {
        let handles = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = handles().get(path) {
            return Ok(Arc::clone(handle));
        }
        let handle = open()?;
        Ok(Arc::clone(handles().entry(path.to_owned()).or_insert(handle)))
    }
}

impl Held {
    /// Holds on to the files of `tree`.
    pub fn new(tree: Box<dyn Tree>) -> Self {
        Self { tree, handles: Handles::default() }
    }
}

impl Tree for Held {
    fn entries(&self) -> &[Entry] {
        self.tree.entries()
    }

    fn open(&self, path: &str) -> Result<Arc<dyn ReadAt>> {
        self.handles.get_or_open(path, || {
            let handle = self.tree.open(path)?;
            if handle.size() > MAX_IN_MEMORY {
                return Ok(handle);
            }
            Ok(Arc::new(SliceAt::named(handle.read_all(MAX_IN_MEMORY)?, handle.name())))
        })
    }

    fn name(&self) -> &str {
        self.tree.name()
    }

    fn closed(&self) -> &[Entry] {
        self.tree.closed()
    }

    fn is_single_file(&self) -> bool {
        self.tree.is_single_file()
    }
}

fn unfit(name: String, problem: &'static str) -> Error {
    Error::io("read", name, std::io::Error::new(std::io::ErrorKind::InvalidInput, problem))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_directory_lists_its_files_in_code_point_order() {
        let home = tempfile::tempdir().unwrap();
        for path in ["b", "a/z", "a.b", ".hidden", "a/B"] {
            fs::create_dir_all(home.path().join(path).parent().unwrap()).unwrap();
            fs::write(home.path().join(path), path).unwrap();
        }
        let tree = Directory::open(home.path()).unwrap();
        let paths: Vec<_> = tree.entries().iter().map(|e| e.path.as_str()).collect();
        assert_eq!(paths, [".hidden", "a.b", "a/B", "a/z", "b"]);
        assert_eq!(tree.open("a/z").unwrap().size(), 3);
    }

    #[test]
    fn nothing_leads_outside() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("model")).unwrap();
        fs::create_dir(home.path().join("outside")).unwrap();
        fs::write(home.path().join("outside/f"), "secret").unwrap();
        fs::write(home.path().join("model/f"), "own").unwrap();
        let tree = Directory::open(home.path().join("model")).unwrap();
        for path in ["../outside/f", "/etc/passwd", "", ".", "a//b", "f/", "a\\b", "a\0b"] {
            assert!(tree.open(path).is_err(), "{path:?}");
        }
        symlink("../outside", home.path().join("model/link")).unwrap();
        assert!(tree.open("link/f").is_err());
        assert!(Directory::open(home.path().join("model")).is_err());
    }

    #[test]
    fn sources_are_a_directory() {
        let source = |text: &'static str| -> Arc<dyn ReadAt> { Arc::new(SliceAt::new(text)) };
        let tree = Sources::new("m").and("b", source("bb")).unwrap().and("a/c", source("c")).unwrap();
        assert_eq!(tree.entries(), [Entry::new("a/c", 1), Entry::new("b", 2)]);
        assert_eq!(tree.open("b").unwrap().read_all(9).unwrap(), b"bb");
        assert!(tree.open("c").is_err() && !tree.is_single_file());
        for path in ["", "/a", "a/../b", "b"] {
            let fresh = Sources::new("m").and("b", source("b")).unwrap();
            assert!(fresh.and(path, source("x")).is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_held_file_stays_the_one_first_opened() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("f"), "first".repeat(20_000)).unwrap();
        let held = Held::new(Box::new(Directory::open(home.path()).unwrap()));
        held.open("f").unwrap();
        fs::write(home.path().join("g"), "other").unwrap();
        fs::rename(home.path().join("g"), home.path().join("f")).unwrap();
        let mut bytes = [0; 5];
        held.open("f").unwrap().read_at(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"first");
    }
}
