//! Key files: secret ones for their owner's eyes only, public ones beside them.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::error::{Cause, KeyError, Result};
use crate::io::atomic::{Access, AtomicFile};
use crate::io::{FileAt, ReadAt, ReadAtExt};

/// Larger than any key file.
const MAX_SIZE: u64 = 64 << 10;

/// Writes `secret` to a new file at `path` that only its owner can read.
pub fn write_secret(path: impl AsRef<Path>, secret: &str) -> Result<()> {
    AtomicFile::write(path, Access::Private, secret.as_bytes())
}

/// Writes `secret` to a new file at `path` that only its owner can read, and `public` to `path` + `.pub`.
///
/// Neither may exist already.
pub fn write_pair(path: impl AsRef<Path>, secret: &str, public: &str) -> Result<()> {
    let path = path.as_ref();
    let (private, shared) =
        (AtomicFile::create(path, Access::Private)?, AtomicFile::create(public_path(path), Access::Shared)?);
    private.write_at(0, secret.as_bytes())?;
    shared.write_at(0, public.as_bytes())?;
    private.commit()?;
    shared.commit().inspect_err(|_| {
        let _ = std::fs::remove_file(path); // half a pair is none
    })
}

/// What a secret key file holds: a comment and the key's text.
#[cfg(any(feature = "encryption", feature = "watermark"))]
pub(super) fn with_comment(kind: &str, text: &str) -> Zeroizing<String> {
    Zeroizing::new(["# ", kind, ": keep it secret\n", text, "\n"].concat()) // of the right size at once: no copy stays
}

/// Where the public half of the key at `path` lies: `path` + `.pub`.
pub fn public_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// Reads a secret key file. One that its group or others may read is refused.
pub fn read_secret(path: impl AsRef<Path>) -> Result<Zeroizing<String>> {
    text_of(&read_secret_bytes(&path)?, path.as_ref())
}

/// As [`read_secret`], for a file that need not be text.
pub fn read_secret_bytes(path: impl AsRef<Path>) -> Result<Zeroizing<Vec<u8>>> {
    let file = FileAt::open(path)?;
    let mode = file.mode()?;
    if mode & 0o077 != 0 {
        return Err(KeyError::ReadableByOthers { mode }.on(file.name()));
    }
    read(&file)
}

/// Reads a passphrase file: all of it but one line break at its end. One that others may read is refused.
pub fn read_passphrase(path: impl AsRef<Path>) -> Result<Zeroizing<String>> {
    let mut text = read_secret(path)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let len = line.strip_suffix('\r').unwrap_or(line).len();
    text.truncate(len);
    Ok(text)
}

/// Reads a public key file.
pub fn read_public(path: impl AsRef<Path>) -> Result<String> {
    Ok(text_of(&read_public_bytes(&path)?, path.as_ref())?.to_string())
}

/// As [`read_public`], for a file that need not be text.
pub(super) fn read_public_bytes(path: impl AsRef<Path>) -> Result<Zeroizing<Vec<u8>>> {
    read(&FileAt::open(path)?)
}

/// The one line of a key file that is neither blank nor a `#` comment.
#[cfg(any(feature = "encryption", feature = "watermark"))]
pub(super) fn key_line<'a>(text: &'a str, wanted: &'static str) -> Result<&'a str, KeyError> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    match (lines.next(), lines.next()) {
        (Some(line), None) => Ok(line),
        (None, _) => Err(KeyError::Malformed { wanted, problem: "no key in it".into() }),
        (Some(_), Some(_)) => Err(KeyError::Malformed { wanted, problem: "more than one key in it".into() }),
    }
}

/// The bytes of a key file as text.
pub(super) fn as_text(bytes: &[u8]) -> Result<&str, KeyError> {
    std::str::from_utf8(bytes).map_err(|_| KeyError::Malformed { wanted: "key file", problem: "not text".into() })
}

fn text_of(bytes: &[u8], path: &Path) -> Result<Zeroizing<String>> {
    let text = as_text(bytes).map_err(|cause| cause.on(path.display().to_string()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn read(file: &FileAt) -> Result<Zeroizing<Vec<u8>>> {
    if file.size() > MAX_SIZE {
        return Err(KeyError::Malformed { wanted: "key file", problem: "too large".into() }.on(file.name()));
    }
    Ok(Zeroizing::new(file.read_all(MAX_SIZE)?))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, metadata, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::error::Error;

    #[test]
    fn secret_files_are_private_and_never_overwritten() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("key");
        write_pair(&path, "secret", "public").unwrap();
        assert_eq!(metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_secret(&path).unwrap().as_str(), "secret");
        assert_eq!(read_public(public_path(&path)).unwrap(), "public");
        assert!(matches!(write_pair(&path, "x", "y"), Err(Error::Io { op: "create", .. })));
        set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            read_secret(&path),
            Err(Error::Key { cause: KeyError::ReadableByOthers { mode: 0o640 }, .. })
        ));
    }
}
