//! An address that is not there yet when the program starts: a network that comes up later than it, a name that nobody answers
//! for. The start is tried again, with a notice, until it works or a signal ends it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use coracle_storage::host::StartError;

use super::diagnostics::Diagnostics;
use super::options::LogLevel;

/// The pause between two attempts.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How long a start may take before it is said that it does.
const LONG_START: Duration = Duration::from_secs(10);

/// Starts with `start`, again and again while the address to listen on is not there. `None`: a signal came first.
///
/// # Errors
///
/// Any other reason not to start.
pub(super) fn once_there<T>(
    diagnostics: &Diagnostics,
    should_end: &AtomicBool,
    mut start: impl FnMut() -> Result<T, StartError>,
) -> Result<Option<T>, StartError> {
    let mut told = String::new();
    while !should_end.load(Ordering::Acquire) {
        match watched(diagnostics, &mut start) {
            Err(error) if error.is_address_missing() => {
                let why = error.to_string();
                if why != told {
                    diagnostics.tell(LogLevel::Warn, &format_args!("{why}; it is tried again"));
                    told = why;
                }
                thread::sleep(AGAIN_AFTER);
            }
            started => return started.map(Some),
        }
    }
    Ok(None)
}

/// Says now and then that `start` is not done: the disk of its folder may hang, or its log be long.
fn watched<T>(diagnostics: &Diagnostics, start: impl FnOnce() -> T) -> T {
    let (is_done, done) = mpsc::channel::<()>();
    let diagnostics = diagnostics.clone();
    let begin = Instant::now();
    let watch = move || {
        while let Err(RecvTimeoutError::Timeout) = done.recv_timeout(LONG_START) {
            let waited = begin.elapsed().as_secs();
            let what =
                format!("the start has taken {waited} s so far: its files are large, or their disk hangs");
            diagnostics.tell(LogLevel::Warn, &what);
        }
    };
    // Without a thread nobody says it.
    let watch = thread::Builder::new().name("start".into()).spawn(watch);
    let started = start();
    drop(is_done);
    drop(watch.map(JoinHandle::join));
    started
}
