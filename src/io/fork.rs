//! Processes that fork after they have used this library, as loaders of training data do.
//!
//! The threads that parallel loops run on do not follow a fork, and whoever waits for them would wait for ever.

use std::process;
use std::sync::{OnceLock, PoisonError, RwLock};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

/// The process that used the library first, whose threads are the usual ones.
static FIRST: OnceLock<u32> = OnceLock::new();
/// The threads of a process that was forked off, and its id. Those of its parent are forgotten with it.
static OWN: RwLock<Option<(u32, &'static ThreadPool)>> = RwLock::new(None);

/// Does `work` where parallel loops find threads that live: at once in the first process, on threads of its own in one
/// that was forked off. Every call from a language that may fork goes through here.
pub(crate) fn within<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let here = process::id();
    if *FIRST.get_or_init(|| here) == here {
        return work();
    }
    own(here)?.install(work)
}

fn own(here: u32) -> Result<&'static ThreadPool> {
    if let Some((process, pool)) = *OWN.read().unwrap_or_else(PoisonError::into_inner)
        && process == here
    {
        return Ok(pool);
    }
    let pool = ThreadPoolBuilder::new().build();
    let pool = pool.map_err(|e| Error::io("start", "threads", std::io::Error::other(e)))?;
    let mut own = OWN.write().unwrap_or_else(PoisonError::into_inner);
    Ok(match *own {
        Some((process, pool)) if process == here => pool, // another thread was quicker
        _ => own.insert((here, Box::leak(Box::new(pool)))).1, // lives as long as the process
    })
}
