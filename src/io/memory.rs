//! New memory for large reads.

use std::fmt;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

use crate::error::{Error, Result};

/// What the kernel calls a huge page, on the machines that serve models.
const HUGE: usize = 2 << 20;

/// Bytes that are zero until they are written: an owned buffer for what is read from a model.
///
/// Large buffers lie on huge pages where the kernel allows, since faulting in small ones takes longer than decrypting
/// what goes into them. Whoever reads again and again should keep a buffer and read into it.
pub struct Memory(Kind);

enum Kind {
    Small(Vec<u8>),
    Large { map: MmapMut, start: usize, len: usize },
}

impl Memory {
    /// `len` bytes. Fails, rather than to end the process, if there is no memory for them.
    pub fn zeroed(len: u64) -> Result<Self> {
        let fail = |e: std::io::Error| Error::io("allocate", format!("{len} bytes of memory"), e);
        let beyond = || fail(std::io::ErrorKind::OutOfMemory.into());
        let len = usize::try_from(len).map_err(|_| beyond())?;
        if len < HUGE {
            return Ok(Self(Kind::Small(vec![0; len])));
        }
        let map = MmapMut::map_anon(len.checked_add(HUGE).ok_or_else(beyond)?).map_err(fail)?;
        let start = map.as_ptr().align_offset(HUGE).min(HUGE);
        #[cfg(target_os = "linux")]
        let _ = map.advise_range(memmap2::Advice::HugePage, start, len); // a wish: the kernel may not have any
        Ok(Self(Kind::Large { map, start, len }))
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kind::Small(bytes) => bytes,
            Kind::Large { map, start, len } => &map[*start..*start + *len],
        }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Kind::Small(bytes) => bytes,
            Kind::Large { map, start, len } => &mut map[*start..*start + *len],
        }
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Memory {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Memory {}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_aligned_and_of_the_size_asked_for() {
        for len in [0, 1, HUGE - 1, HUGE, HUGE + 1, 5 * HUGE + 7] {
            let mut memory = Memory::zeroed(len as u64).unwrap();
            assert!(memory.len() == len && memory.iter().all(|byte| *byte == 0), "{len}");
            assert!(len < HUGE || (memory.as_ptr() as usize).is_multiple_of(HUGE), "{len}");
            memory.fill(7);
            assert!(memory.iter().all(|byte| *byte == 7));
        }
        assert!(Memory::zeroed(1 << 60).is_err() && Memory::zeroed(u64::MAX).is_err());
    }
}
