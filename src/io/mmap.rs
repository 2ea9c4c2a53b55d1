//! A file mapped into memory.
#![allow(unsafe_code)]

use std::path::Path;

use memmap2::Mmap;

use super::{FileAt, ReadAt, check_bounds};
use crate::error::{Error, Result};

/// A read-only memory map of a regular file.
///
/// Reads copy out of the map, so what a caller holds cannot change afterwards. The file must not be truncated
/// while it is mapped: the operating system then ends the process (`SIGBUS`). For files that others may write,
/// use [`FileAt`].
pub struct MmapAt {
    map: Mmap,
    file: FileAt,
}

impl MmapAt {
    /// Maps the file at `path`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let file = FileAt::open(path)?; // refuses what is not a regular file
        // SAFETY: the map is only ever copied from, through `ReadAt`; the documentation above names the one
        // obligation that stays with the caller, that nobody truncates the file.
        let map = unsafe { Mmap::map(&file.file) }.map_err(|e| Error::io("map", &file.name, e))?;
        Ok(Self { map, file })
    }
}

impl ReadAt for MmapAt {
    fn size(&self) -> u64 {
        self.map.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_bounds(self, offset, buf.len())?;
        let start = offset as usize; // within the map, as just checked
        buf.copy_from_slice(&self.map[start..start + buf.len()]);
        Ok(())
    }

    fn name(&self) -> &str {
        self.file.name()
    }

    fn is_unchanged(&self) -> Result<bool> {
        self.file.is_unchanged()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_reads_like_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"abcdef").unwrap();
        let map = MmapAt::open(file.path()).unwrap();
        let mut buf = [0; 3];
        map.read_at(2, &mut buf).unwrap();
        assert_eq!((&buf, map.size()), (b"cde", 6));
        assert!(map.read_at(4, &mut buf).is_err());
    }
}
