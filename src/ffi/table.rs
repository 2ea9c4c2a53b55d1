//! The handles that live in this process.
//!
//! What C holds is no address but a number: a place in this table, and a serial that is never used twice. So a handle of a wrong kind,
//! a freed one and one freed twice are told without touching memory that may be gone, and one that is freed while another
//! thread works with it dies when that work is done. A lookup waits for nobody: threads that vanish in a fork can leave no
//! lock behind that the child would wait for.

use std::any::Any;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockWriteGuard, TryLockError};

use super::failure::Failure;

/// Most handles at a time; a table of them in memory that is not touched before it is used.
const PLACES: usize = 1 << BITS;
const BITS: u32 = 16;
/// Handles are multiples of it, as addresses of objects are.
const SCALE: u32 = 4;
/// How often to look again for a place that another thread is just looking at.
const PATIENCE: usize = 1000;

static TABLE: [Place; PLACES] = [const { Place { handle: AtomicU64::new(0), object: RwLock::new(None) } }; PLACES];
/// Places that were never used begin here.
static FRESH: AtomicUsize = AtomicUsize::new(0);
static FREED: Mutex<Vec<u16>> = Mutex::new(Vec::new());
static SERIAL: AtomicU64 = AtomicU64::new(1);
static LIVE: AtomicUsize = AtomicUsize::new(0);

struct Place {
    /// The handle that lives here, or 0.
    handle: AtomicU64,
    object: RwLock<Held>,
}

type Held = Option<Arc<dyn Any + Send + Sync>>;

/// What a handle stands for.
pub(super) trait Object: Send + Sync + 'static {
    /// What C calls it.
    const KIND: &'static str;
}

/// Number of handles that were not freed yet.
pub(super) fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// A new handle for an object.
pub(super) fn insert<T: Object>(object: T) -> Result<usize, Failure> {
    for at in (0..PATIENCE).map_while(|_| vacant()) {
        let Some(mut slot) = write(&TABLE[at]) else { continue };
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let handle = ((serial << BITS | at as u64) << SCALE) as usize; // 44 bits of serial, or 12 where addresses are short
        *slot = Some(Arc::new(object));
        TABLE[at].handle.store(handle as u64, Ordering::Release);
        LIVE.fetch_add(1, Ordering::Relaxed);
        return Ok(handle);
    }
    Err(Failure::misuse("too many handles are open: free those that are of no use any more"))
}

/// The object of a handle, which then lives at least as long as the answer.
pub(super) fn get<T: Object>(handle: usize) -> Result<Arc<T>, Failure> {
    if handle == 0 {
        return Err(Failure::misuse(format!("no {}: the pointer is NULL", T::KIND)));
    }
    let gone = || Failure::misuse(format!("not a {}, or freed before", T::KIND));
    let place = place(handle).ok_or_else(gone)?;
    let object = match place.object.try_read() {
        Ok(object) => object,
        Err(TryLockError::Poisoned(object)) => object.into_inner(),
        Err(TryLockError::WouldBlock) => return Err(gone()),
    };
    if place.handle.load(Ordering::Acquire) != handle as u64 {
        return Err(gone());
    }
    let object = object.as_ref().map(Arc::clone).ok_or_else(gone)?;
    object.downcast().map_err(|_| gone())
}

/// Frees a handle. The object goes once no other thread works with it.
pub(super) fn remove<T: Object>(handle: usize) -> Result<(), Failure> {
    let _held: Arc<T> = get(handle)?; // and none of another kind
    let at = place(handle).ok_or_else(|| Failure::misuse("not a handle"))?;
    if at.handle.compare_exchange(handle as u64, 0, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return Err(Failure::misuse(format!("the {} was freed before", T::KIND)));
    }
    LIVE.fetch_sub(1, Ordering::Relaxed);
    if let Some(mut object) = write(at) {
        *object = None; // what is held here goes with it, behind the lock
        drop(object);
        patiently(|| FREED.try_lock().ok()).into_iter().for_each(|mut freed| freed.push(index(handle) as u16));
    }
    Ok(())
}

/// A place without an object.
fn vacant() -> Option<usize> {
    let freed = patiently(|| FREED.try_lock().ok()).and_then(|mut freed| freed.pop()).map(usize::from);
    freed.or_else(|| {
        let fresh = FRESH.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| (at < PLACES).then_some(at + 1));
        fresh.ok()
    })
}

/// The place for oneself. None if a thread that did not follow a fork looks at it for ever: better lost than waited for.
fn write(place: &Place) -> Option<RwLockWriteGuard<'_, Held>> {
    patiently(|| place.object.try_write().ok())
}

fn patiently<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    (0..PATIENCE).find_map(|i| {
        if i > 0 {
            std::thread::yield_now();
        }
        attempt()
    })
}

fn index(handle: usize) -> usize {
    handle >> SCALE & (PLACES - 1)
}

fn place(handle: usize) -> Option<&'static Place> {
    handle.is_multiple_of(1 << SCALE).then(|| &TABLE[index(handle)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::failure::Failure;

    struct Left(u32);
    struct Right;
    impl Object for Left {
        const KIND: &'static str = "left";
    }
    impl Object for Right {
        const KIND: &'static str = "right";
    }

    fn is_misuse<T>(result: Result<T, Failure>) -> bool {
        result.is_err_and(|failure| failure.cause() == "misuse")
    }

    #[test]
    fn a_handle_is_of_one_kind_and_freed_once() {
        let left = insert(Left(7)).unwrap();
        let right = insert(Right).unwrap();
        assert_eq!(get::<Left>(left).unwrap().0, 7);
        assert!(is_misuse(get::<Right>(left)) && is_misuse(remove::<Right>(left)));
        let held = get::<Left>(left).unwrap();
        remove::<Left>(left).unwrap();
        assert_eq!(held.0, 7);
        assert!(is_misuse(get::<Left>(left)) && is_misuse(remove::<Left>(left)));
        let next = insert(Left(8)).unwrap();
        assert!(is_misuse(get::<Left>(left)) && get::<Left>(next).unwrap().0 == 8);
        for wild in [0, 1, 16, usize::MAX, left + 1, &raw const held as usize] {
            assert!(is_misuse(get::<Left>(wild)) && is_misuse(remove::<Left>(wild)), "{wild:x}");
        }
        remove::<Left>(next).unwrap();
        remove::<Right>(right).unwrap();
    }

    #[test]
    fn threads_that_race_to_free_a_handle_find_one_winner() {
        for _ in 0..200 {
            let handle = insert(Left(1)).unwrap();
            let wins: usize = std::thread::scope(|scope| {
                let free = || {
                    let _ = get::<Left>(handle);
                    usize::from(remove::<Left>(handle).is_ok())
                };
                let racers = [scope.spawn(free), scope.spawn(free), scope.spawn(free)];
                racers.into_iter().map(|racer| racer.join().unwrap()).sum()
            });
            assert_eq!(wins, 1);
        }
    }
}
