//! Retries a start whose listening address is not available yet, because the network comes up later
//! than the program or a name cannot be resolved. A warning is logged, and the start is retried
//! until it succeeds or a signal ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use coracle_storage::host::StartError;

use super::diagnostics::Diagnostics;
use super::options::LogLevel;
use super::start_watch::watched;

/// The pause between two attempts.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Calls `start` repeatedly while the address to listen on is not available. `None` if a signal
/// came first.
///
/// # Errors
///
/// Any other reason why the start fails.
pub(super) fn once_there<T>(
    diagnostics: &Diagnostics,
    should_end: &Arc<AtomicBool>,
    request_timeout: Duration,
    mut start: impl FnMut() -> Result<T, StartError>,
) -> Result<Option<T>, StartError> {
    let mut told = String::new();
    while !should_end.load(Ordering::Acquire) {
        match watched(diagnostics, should_end, request_timeout, &mut start) {
            Err(error) if error.is_address_missing() => {
                let why = error.to_string();
                if why != told {
                    diagnostics.tell(LogLevel::Warn, &format_args!("{why}; it will be retried"));
                    told = why;
                }
                thread::sleep(AGAIN_AFTER);
            }
            started => return started.map(Some),
        }
    }
    Ok(None)
}
