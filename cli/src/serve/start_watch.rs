//! Watchdog for a start: reports a start that takes long, and ends the process after a signal.
//!
//! A start reads files from a disk, and a disk may hang. The thread that starts the server then
//! waits for the disk, so another thread has to watch the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::diagnostics::Diagnostics;
use super::options::LogLevel;
use super::{LOOK_EVERY, end_without_waiting, stop_patience};

/// How long a start may take before it is reported, and the interval between two reports.
const LONG_START: Duration = Duration::from_secs(10);

/// Runs `start` while a thread watches it. If the operating system refuses a thread, the start is
/// not watched.
pub(super) fn watched<T>(
    diagnostics: &Diagnostics,
    should_end: &Arc<AtomicBool>,
    request_timeout: Duration,
    start: impl FnOnce() -> T,
) -> T {
    let (is_done, done) = mpsc::channel::<()>();
    let (diagnostics, should_end) = (diagnostics.clone(), Arc::clone(should_end));
    let patience = stop_patience(request_timeout);
    let watch = move || {
        let begin = Instant::now();
        let (mut tell_after, mut ends_since) = (LONG_START, None);
        while let Err(RecvTimeoutError::Timeout) = done.recv_timeout(LOOK_EVERY) {
            if begin.elapsed() >= tell_after {
                let so_far = tell_after.as_secs();
                let what = format!(
                    "the start has taken {so_far} s so far: the files are large, or their disk hangs"
                );
                diagnostics.tell(LogLevel::Warn, &what);
                tell_after += LONG_START;
            }
            if should_end.load(Ordering::Acquire)
                && ends_since.get_or_insert_with(Instant::now).elapsed() >= patience
            {
                end_without_waiting(&diagnostics, patience);
            }
        }
    };
    let watch = thread::Builder::new().name("start watch".into()).spawn(watch);
    let started = start();
    drop(is_done);
    drop(watch.map(JoinHandle::join));
    started
}
