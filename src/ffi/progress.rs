//! Progress and cancellation by the caller's functions.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, TryLockError};

use super::call::c_string;
use crate::io::Progress;

/// Hears how far a piece of work is: `done` of `total` bytes of `task` (`encrypt`, `hash`, `mark`, ..).
#[allow(non_camel_case_types)]
pub type wm_advance =
    Option<unsafe extern "C-unwind" fn(context: *mut c_void, task: *const c_char, done: u64, total: u64)>;

/// Whether to stop.
#[allow(non_camel_case_types)]
pub type wm_cancelled = Option<unsafe extern "C-unwind" fn(context: *mut c_void) -> bool>;

/// The caller's functions.
#[derive(Clone, Copy)]
pub(super) struct Watcher {
    pub(super) advance: wm_advance,
    pub(super) cancelled: wm_cancelled,
    pub(super) context: *mut c_void,
}

// SAFETY: the caller vouches for functions that any thread may call, though never two at once
unsafe impl Send for Watcher {}
// SAFETY: likewise
unsafe impl Sync for Watcher {}

/// One piece of work, watched. Never calls two functions at once: a thread that finds another one reporting leaves its
/// bytes for the next report.
pub(super) struct Watch {
    watcher: Option<Watcher>,
    task: Mutex<Task>,
    done: AtomicU64,
    stopped: AtomicBool,
}

struct Task {
    name: CString,
    total: u64,
    reported: u64,
}

impl Watch {
    pub(super) fn new(watcher: Option<Watcher>) -> Self {
        let task = Task { name: CString::default(), total: 0, reported: 0 };
        Self { watcher, task: Mutex::new(task), done: AtomicU64::new(0), stopped: AtomicBool::new(false) }
    }

    /// Reports what is left to report of the current task.
    pub(super) fn settle(&self) {
        self.report(|this, watcher, task| {
            if task.reported < this.done.load(Ordering::Relaxed) {
                this.tell(watcher, task);
            }
        });
    }

    fn tell(&self, watcher: &Watcher, task: &mut Task) {
        task.reported = self.done.load(Ordering::Relaxed);
        if let Some(advance) = watcher.advance {
            // SAFETY: the caller vouches for it, and the lock keeps others from calling it
            unsafe { advance(watcher.context, task.name.as_ptr(), task.reported, task.total) };
        }
    }

    fn report(&self, tell: impl FnOnce(&Self, &Watcher, &mut Task)) {
        let Some(watcher) = &self.watcher else { return };
        match self.task.try_lock() {
            Ok(mut task) => tell(self, watcher, &mut task),
            Err(TryLockError::Poisoned(task)) => drop(task), // a callback panicked: it is not called again
            Err(TryLockError::WouldBlock) => {}
        }
    }
}

impl Progress for Watch {
    fn begin(&self, task: &str, total: u64) {
        self.settle();
        self.done.store(0, Ordering::Relaxed);
        self.report(|this, watcher, current| {
            *current = Task { name: c_string(task), total, reported: 0 };
            this.tell(watcher, current);
        });
    }

    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        self.report(Self::tell);
    }

    fn is_cancelled(&self) -> bool {
        self.report(|this, watcher, _| {
            // SAFETY: as above
            if watcher.cancelled.is_some_and(|cancelled| unsafe { cancelled(watcher.context) }) {
                this.stopped.store(true, Ordering::Relaxed);
            }
        });
        self.stopped.load(Ordering::Relaxed)
    }
}
