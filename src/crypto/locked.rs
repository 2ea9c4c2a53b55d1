//! Secrets in memory of their own: kept out of swap and of core dumps where the system allows, wiped when dropped.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Deref;

use memmap2::MmapMut;
use zeroize::Zeroize;

use crate::error::{Error, Result};

/// A value alone on pages that are locked into memory (`mlock`) and left out of core dumps (`MADV_DONTDUMP`).
///
/// Both are best effort: a system that allows less locked memory (`ulimit -l`) still gets a secret that is wiped.
/// What is wiped is the value itself, not what it may point to.
pub(crate) struct Locked<T> {
    map: MmapMut,
    value: PhantomData<T>,
}

impl<T> Locked<T> {
    /// Moves a value to memory of its own.
    pub(crate) fn new(value: T) -> Result<Self> {
        const { assert!(align_of::<T>() <= 4096, "pages are aligned to 4096 bytes or more") };
        let mut map = MmapMut::map_anon(size_of::<T>().max(1)).map_err(|e| Error::io("map", "memory", e))?;
        let _ = map.lock();
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::DontDump);
        // SAFETY: the map is writable, as large as a T, aligned to a page and with that for a T, and nobody else's.
        unsafe { map.as_mut_ptr().cast::<T>().write(value) };
        Ok(Self { map, value: PhantomData })
    }
}

impl<const N: usize> Locked<[u8; N]> {
    /// A copy of `secret`.
    #[cfg(any(feature = "encryption", feature = "watermark"))]
    pub(crate) fn copied(secret: &[u8; N]) -> Result<Self> {
        Self::filled(|bytes| {
            bytes.copy_from_slice(secret);
            Ok(())
        })
    }

    /// A secret that `fill` writes where it stays, so that no copy is left behind.
    pub(crate) fn filled(fill: impl FnOnce(&mut [u8; N]) -> Result<()>) -> Result<Self> {
        let mut this = Self::new([0; N])?;
        // SAFETY: `new` has put an array of this size there, and `this` is borrowed exclusively.
        fill(unsafe { &mut *this.map.as_mut_ptr().cast::<[u8; N]>() })?;
        Ok(this)
    }
}

impl<T> Deref for Locked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `new` has put a T there, which stays until `drop`.
        unsafe { &*self.map.as_ptr().cast::<T>() }
    }
}

impl<T> Drop for Locked<T> {
    fn drop(&mut self) {
        // SAFETY: the T that `new` has put there is dropped once, here, and not used afterwards.
        unsafe { self.map.as_mut_ptr().cast::<T>().drop_in_place() };
        self.map.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flags of the mapping that holds `address`, as Linux tells them.
    fn flags(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let range =
                range.and_then(|(a, b)| Some((usize::from_str_radix(a, 16).ok()?, usize::from_str_radix(b, 16).ok()?)));
            if let Some((start, end)) = range {
                inside = (start..end).contains(&address);
            } else if let Some(flags) = line.strip_prefix("VmFlags: ").filter(|_| inside) {
                return flags.to_owned();
            }
        }
        panic!("no mapping at {address:x}");
    }

    #[test]
    fn a_secret_is_locked_not_dumped_and_dropped_once() {
        let counted = std::rc::Rc::new(());
        let secret = Locked::new((std::rc::Rc::clone(&counted), [7u8; 100])).unwrap();
        assert_eq!(secret.1, [7; 100]);
        let flags = flags(secret.map.as_ptr() as usize);
        let flags: Vec<_> = flags.split_whitespace().collect();
        assert!(flags.contains(&"dd"), "{flags:?}");
        assert!(flags.contains(&"lo") || secret.map.lock().is_err(), "{flags:?}");
        drop(secret);
        assert_eq!(std::rc::Rc::strong_count(&counted), 1);
        assert!(Locked::<[u8; 4]>::filled(|_| Err(Error::Cancelled)).is_err());
        assert_eq!(
            *Locked::<[u8; 4]>::filled(|bytes| {
                bytes[3] = 1;
                Ok(())
            })
            .unwrap(),
            [0, 0, 0, 1]
        );
    }
}
