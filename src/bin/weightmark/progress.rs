//! Progress bars for work that takes longer than a second, and Ctrl-C.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use weightmark::io::Progress;

/// Work that is done sooner shows no bar.
const PATIENCE: Duration = Duration::from_secs(1);
/// The exit status of a process that Ctrl-C has ended.
const INTERRUPTED: i32 = 130;

/// Bars on stderr, one a task; drawn only on a terminal.
pub(crate) struct Bars {
    show: bool,
    current: Mutex<Option<Task>>,
    done: AtomicU64,
    cancelled: Arc<AtomicBool>,
}

struct Task {
    started: Instant,
    /// Counts from the start, so that its speed is right when it is drawn at last.
    bar: ProgressBar,
}

impl Task {
    fn new(name: &str, total: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        let style = "{msg:>8} {bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(name.to_owned());
        Self { started: Instant::now(), bar }
    }
}

impl Bars {
    /// Draws bars if `show` and stderr is a terminal. Where work `writes`, the first Ctrl-C asks it to stop and clean
    /// up, and the second ends the process; otherwise the first does, as always.
    pub(crate) fn new(show: bool, writes: bool) -> Self {
        let cancelled = Arc::new(AtomicBool::new(false));
        if writes {
            let flag = Arc::clone(&cancelled);
            // if there can be no handler, Ctrl-C just ends the process: outputs are atomic either way. Nor is there one
            // where a signal is ignored, as under nohup, which must stay so
            let _ = ctrlc::try_set_handler(move || {
                if flag.swap(true, Ordering::Relaxed) {
                    std::process::exit(INTERRUPTED);
                }
            });
        }
        let show = show && std::io::stderr().is_terminal();
        Self { show, current: Mutex::new(None), done: AtomicU64::new(0), cancelled }
    }

    /// Takes the bars off the screen.
    pub(crate) fn clear(&self) {
        let task = self.current.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.bar.finish_and_clear();
        }
    }
}

impl Progress for Bars {
    fn begin(&self, task: &str, total: u64) {
        self.clear();
        self.done.store(0, Ordering::Relaxed);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Task::new(task, total));
    }

    fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if !self.show {
            return;
        }
        let Ok(current) = self.current.try_lock() else { return }; // another thread is drawing
        let Some(task) = current.as_ref() else { return };
        if task.bar.is_hidden() && task.started.elapsed() > PATIENCE {
            task.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        task.bar.set_position(done.min(task.bar.length().unwrap_or(done)));
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}
