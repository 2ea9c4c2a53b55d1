//! Files and directories in memory that nobody can change any more, for programs that want a path. Linux only.
//!
//! Nothing of them touches a disk, unless the system swaps memory out; nothing of them is left when the last process that
//! has them open is gone, however it ends.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags};
use rustix::thread::UnshareFlags;

use super::FileAt;
use super::atomic::parent;
use super::tree::is_canonical;
use crate::error::{Error, Result};

/// A file in memory while it is written: then [sealed](Self::seal).
pub(crate) struct MemoryFile {
    file: File,
    name: String,
}

impl MemoryFile {
    /// A file of `size` bytes that messages and `/proc` call `name`.
    pub(crate) fn create(name: &str, size: u64) -> Result<Self> {
        let fail = |e: io::Error| Error::io("create in memory", name, e);
        let flags = MemfdFlags::ALLOW_SEALING; // not closed on exec: that is what it is for
        let short: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
        let fd = rustix::fs::memfd_create(&short, flags | MemfdFlags::NOEXEC_SEAL);
        let fd = fd.or_else(|_| rustix::fs::memfd_create(&short, flags)); // before Linux 6.3
        let file = File::from(fd.map_err(|e| fail(e.into()))?);
        file.set_len(size).map_err(fail)?;
        Ok(Self { file, name: name.to_owned() })
    }

    /// Writes all of `bytes` at `offset`. Threads may write different parts at once.
    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|e| Error::io("write in memory", &self.name, e))
    }

    /// Makes it unchangeable for ever, and hands it out with a path that opens it as long as this process, or what it
    /// becomes by `exec`, lives.
    pub(crate) fn seal(self) -> Result<(FileAt, PathBuf)> {
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&self.file, seals).map_err(|e| Error::io("seal", &self.name, e))?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd());
        Ok((FileAt::from_file(self.file, self.name)?, path.into()))
    }
}

/// A directory in memory while it is written: a file system of its own that nobody sees, then [mounted](Self::mount).
pub(crate) struct MemoryDir {
    root: OwnedFd,
    name: String,
}

impl MemoryDir {
    /// An empty directory with room for `size` bytes in `files` files. Enters a [namespace](enter_namespace) first.
    pub(crate) fn create(name: &str, size: u64, files: usize) -> Result<Self> {
        enter_namespace()?;
        let refused = |e: Errno| Error::io("create in memory", name, e);
        let fs = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(refused)?;
        let room = size.saturating_add(files as u64 * 8192).saturating_add(1 << 20); // whole pages, and directories
        rustix::mount::fsconfig_set_string(fs.as_fd(), "size", room.to_string().as_str()).map_err(refused)?;
        rustix::mount::fsconfig_set_string(fs.as_fd(), "mode", "0700").map_err(refused)?;
        let _ = rustix::mount::fsconfig_set_flag(fs.as_fd(), "noswap"); // root's, since Linux 6.4
        rustix::mount::fsconfig_create(fs.as_fd()).map_err(refused)?;
        let attributes =
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let root = rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(refused)?;
        Ok(Self { root, name: name.to_owned() })
    }

    /// A new file of `size` bytes at `relative`, a canonical path.
    pub(crate) fn file(&self, relative: &str, size: u64) -> Result<MemoryFile> {
        let name = format!("{}/{relative}", self.name);
        let fail = |e: io::Error| Error::io("create in memory", &name, e);
        if !is_canonical(relative) {
            return Err(fail(io::ErrorKind::InvalidInput.into()));
        }
        for above in parent(Path::new(relative)).ancestors().collect::<Vec<_>>().into_iter().rev() {
            match rustix::fs::mkdirat(&self.root, above, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST | Errno::NOENT) => {} // the last is for the empty path
                Err(e) => return Err(fail(e.into())),
            }
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.root, relative, flags, Mode::RUSR).map_err(|e| fail(e.into()))?;
        let file = File::from(fd);
        file.set_len(size).map_err(fail)?;
        Ok(MemoryFile { file, name })
    }

    /// Puts it, unchangeable from now on, in the place of the directory `over`, for this process and those it starts. All
    /// others go on to see what is there.
    pub(crate) fn mount(self, over: &Path) -> Result<()> {
        let fail = |e: Errno| Error::io("mount", over, e);
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&self.root, "", CWD, over, flags).map_err(fail)?;
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount_remount(over, flags | MountFlags::BIND, "").map_err(fail)
    }
}

/// Gives this process mounts of its own, so that what is mounted from now on is seen by it, and by what it starts, alone.
/// Doing so again changes nothing.
///
/// It must not have other threads yet, which would stay outside: call this first thing in `main`. Whoever is not root
/// gets a user namespace of their own, if the kernel allows it. After a failure the namespaces may have changed.
pub fn enter_namespace() -> Result<()> {
    static ENTERED: Mutex<bool> = Mutex::new(false);
    let mut entered = ENTERED.lock().unwrap_or_else(PoisonError::into_inner);
    if *entered {
        return Ok(());
    }
    let fail = |why: &str, e: io::Error| {
        let why = io::Error::new(e.kind(), format!("{why} ({e})"));
        Error::io("create a directory in memory", "private mounts", why)
    };
    let threads = std::fs::read_dir("/proc/self/task").map_err(|e| fail("/proc is needed", e))?.count();
    if threads != 1 {
        return Err(Error::ApiMisuse(
            "mounts of its own are for a process without other threads: enter_namespace() first",
        ));
    }
    unshare().map_err(|e| fail("the kernel does not allow namespaces to this user", e.into()))?;
    *entered = true;
    Ok(())
}

fn unshare() -> Result<(), Errno> {
    // SAFETY: unsharing is unsafe for file descriptors (`FILES`), which are not unshared here.
    let unshare = |flags| unsafe { rustix::thread::unshare_unsafe(flags) };
    match unshare(UnshareFlags::NEWNS) {
        Err(Errno::PERM) => {
            let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)?;
            let write = |file: &str, text: String| {
                let written = std::fs::write(format!("/proc/self/{file}"), text);
                written.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::PERM))
            };
            write("setgroups", "deny".into())?;
            write("uid_map", format!("{user} {user} 1"))?;
            write("gid_map", format!("{group} {group} 1"))?;
        }
        done => done?,
    }
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::ReadAtExt;

    #[test]
    fn a_sealed_file_opens_by_its_path_and_never_changes() {
        let file = MemoryFile::create("model\n.bin", 5).unwrap();
        file.write_at(0, b"he").unwrap();
        file.write_at(2, b"llo").unwrap();
        let (sealed, path) = file.seal().unwrap();
        assert_eq!(sealed.read_all(9).unwrap(), b"hello");
        assert_eq!(std::fs::read(&path).unwrap(), b"hello");
        let written = std::fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.write_at(b"x", 0));
        assert!(written.is_err());
        assert!(std::fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(9)).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"hello");
    }
}
