//! Calls from Python: with the interpreter released, and no way out but a result or an exception, whatever happens.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyBool;

use crate::error::{Error, Result};
use crate::io::{Progress, fork};

/// How often long work reports itself and looks for signals.
const STEP: Duration = Duration::from_millis(50);

/// Why work has no result.
enum Fault {
    Error(Error),
    Panic(String),
}

impl Fault {
    /// The exception that stands for it, of a class of `weightmark._errors`.
    fn raise(self, py: Python<'_>) -> PyErr {
        let exception = |code, message: String, cause, artifact: Option<&str>, errno: Option<i32>| {
            let module = py.import("weightmark._errors")?;
            module.getattr("exception")?.call1((code, message, cause, artifact, errno))
        };
        let made = match &self {
            Self::Panic(message) => exception(0, format!("internal error: {message}"), "panic", None, None),
            Self::Error(error) => {
                let errno = match error {
                    Error::Io { source, .. } => source.raw_os_error(),
                    _ => None,
                };
                exception(error.code() as i32, error.to_string(), error.word(), error.artifact(), errno)
            }
        };
        made.map_or_else(|failed| failed, PyErr::from_value)
    }
}

/// The exception for a failure of the library.
pub(super) fn exception(py: Python<'_>, error: Error) -> PyErr {
    Fault::Error(error).raise(py)
}

/// The exception for a call that makes no sense.
pub(super) fn misuse(py: Python<'_>, problem: &'static str) -> PyErr {
    exception(py, Error::ApiMisuse(problem))
}

/// Does short work, with the interpreter released.
pub(super) fn released<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    py.detach(|| guarded(work)).map_err(|fault| fault.raise(py))
}

/// Does work that may take long on a thread of its own, while this one reports progress and looks for signals. What either
/// raises is raised once the work has stopped.
pub(super) fn watched<T: Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    work: impl FnOnce(&dyn Progress) -> Result<T> + Send,
) -> PyResult<T> {
    let watch = Watch::default();
    let waited = py.detach(|| {
        thread::scope(|scope| {
            let (sender, receiver) = sync_channel(1);
            let watch = &watch;
            let run = move || _ = sender.send(guarded(|| work(watch))); // somebody waits for it
            if let Err(e) = thread::Builder::new().name("weightmark".into()).spawn_scoped(scope, run) {
                return (Err(Fault::Error(Error::io("start", "a thread", e))), None);
            }
            let mut raised = None;
            loop {
                match receiver.recv_timeout(STEP) {
                    Ok(outcome) => return (outcome, raised),
                    Err(RecvTimeoutError::Disconnected) => {
                        return (Err(Fault::Panic("a thread is lost".into())), raised);
                    }
                    Err(RecvTimeoutError::Timeout) if watch.is_cancelled() => {}
                    Err(RecvTimeoutError::Timeout) => {
                        let told = Python::try_attach(|py| watch.tell(py, progress.as_ref()));
                        if !matches!(told, Some(Ok(true))) {
                            watch.cancelled.store(true, Ordering::Relaxed);
                        }
                        raised = told.and_then(PyResult::err);
                    }
                }
            }
        })
    });
    match waited {
        (_, Some(raised)) => Err(raised),
        (Err(fault), None) => Err(fault.raise(py)),
        (Ok(value), None) => watch.tell(py, progress.as_ref()).map(|_| value), // the end of the last task
    }
}

/// Does work where parallel loops may run, and catches what must not unwind into the interpreter.
fn guarded<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(|| fork::within(work))) {
        Ok(outcome) => outcome.map_err(Fault::Error),
        Err(payload) => Err(Fault::Panic(message(&*payload))),
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// What work says of itself, until somebody asks.
#[derive(Default)]
struct Watch {
    task: Mutex<Option<(String, u64)>>,
    done: AtomicU64,
    cancelled: AtomicBool,
}

impl Watch {
    /// Handles signals, and tells `progress` how far the work is. `false` if it says to stop.
    fn tell(&self, py: Python<'_>, progress: Option<&Py<PyAny>>) -> PyResult<bool> {
        py.check_signals()?;
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (Some(progress), Some((task, total))) = (progress, task) else { return Ok(true) };
        let done = self.done.load(Ordering::Relaxed).min(total);
        let answer = progress.bind(py).call1((task, done, total))?;
        Ok(!answer.cast::<PyBool>().is_ok_and(|answer| !answer.is_true()))
    }
}

impl Progress for Watch {
    fn begin(&self, task: &str, total: u64) {
        let mut current = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        self.done.store(0, Ordering::Relaxed);
        *current = Some((task.to_owned(), total));
    }

    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}
