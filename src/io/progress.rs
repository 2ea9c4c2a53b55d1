//! How long-running work reports itself and is asked to stop.

use crate::error::{Error, Result};

/// Watches work and may stop it. The library calls it from several threads and never prints anything itself.
///
/// `()` watches nothing and never stops.
pub trait Progress: Sync {
    /// A piece of work begins: `task` names it (`encrypt`, `hash`, `mark`), `total` is its size in bytes.
    fn begin(&self, task: &str, total: u64) {
        let _ = (task, total);
    }

    /// `bytes` more are done. Called about once a megabyte.
    fn advance(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Whether to stop. The work then fails with [`Error::Cancelled`] and leaves nothing behind.
    fn is_cancelled(&self) -> bool {
        false
    }
}

impl Progress for () {}

/// Reports `bytes` done, and fails with [`Error::Cancelled`] when asked to stop.
pub fn step(progress: &dyn Progress, bytes: u64) -> Result<()> {
    progress.advance(bytes);
    if progress.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
}
