//! Decrypted models for programs that want a path: in sealed memory, never on a disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::OpenOptions;
use crate::error::{Error, Result};
use crate::io::sealed::{MemoryDir, MemoryFile};
use crate::io::tree::{Directory, SingleFile, Tree};
use crate::io::{Progress, copy};
#[cfg(feature = "signing")]
use crate::signing::Verified;

/// A model in memory that nobody can change any more, under a path that this process, and those it starts, can open.
///
/// What a policy verified is what is there: the bytes are verified after they were sealed.
pub struct Sealed {
    path: PathBuf,
    /// Keeps a lone file open, and with it its path.
    tree: Box<dyn Tree>,
    code: Vec<String>,
    #[cfg(feature = "signing")]
    verified: Option<Verified>,
}

impl Sealed {
    /// Where to find it: a file in `/proc`, or, of a directory, the path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its files.
    pub fn files(&self) -> &dyn Tree {
        &*self.tree
    }

    /// The files that hold code, or what is not provably plain data, and that the caller let through.
    pub fn code(&self) -> &[String] {
        &self.code
    }

    /// What was verified, if a policy was given.
    #[cfg(feature = "signing")]
    pub fn verified(&self) -> Option<&Verified> {
        self.verified.as_ref()
    }
}

impl OpenOptions {
    /// Decrypts a model into sealed memory, so that a runtime that knows nothing of encryption can load it, and no
    /// plaintext touches a disk: a file becomes a `memfd` without write access, a directory a read-only `tmpfs` that is
    /// mounted in its place for this process and those it starts. Refuses what is not encrypted. Linux only.
    ///
    /// A directory needs [`enter_namespace`](crate::io::sealed::enter_namespace) to be called before the first thread of
    /// this process was started.
    pub fn seal(self, path: impl AsRef<Path>, progress: &dyn Progress) -> Result<Sealed> {
        let this = self.expect_encrypted();
        let path = path.as_ref();
        let source = this.tree(path)?;
        let (sealed, tree): (PathBuf, Box<dyn Tree>) = match source.entries() {
            [entry] if source.is_single_file() => {
                let file = MemoryFile::create(&entry.path, entry.size)?;
                progress.begin("decrypt", entry.size);
                copy(&*source.open(&entry.path)?, &|offset, bytes| file.write_at(offset, bytes), progress)?;
                let (file, sealed) = file.seal()?;
                (sealed, Box::new(SingleFile::new(entry.path.clone(), Arc::new(file))))
            }
            entries => {
                let place = path.canonicalize().map_err(|e| Error::io("open", path, e))?;
                let dir = MemoryDir::create(source.name(), source.total_size(), entries.len())?;
                progress.begin("decrypt", source.total_size());
                entries.par_iter().try_for_each(|entry| {
                    let file = dir.file(&entry.path, entry.size)?;
                    copy(&*source.open(&entry.path)?, &|offset, bytes| file.write_at(offset, bytes), progress)
                })?;
                dir.mount(&place)?;
                let tree = Box::new(Directory::open(&place)?);
                (place, tree)
            }
        };
        let _verified = this.verify(Some(path), &*tree, progress)?;
        let code = this.code(&*tree)?;
        Ok(Sealed {
            path: sealed,
            tree,
            code,
            #[cfg(feature = "signing")]
            verified: _verified,
        })
    }
}
