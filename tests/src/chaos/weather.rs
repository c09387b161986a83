//! What the way from one node to another is like at the moment: who passes, how late, and what is
//! done to frames.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How often a waiting thread looks whether the weather has changed.
pub(super) const TICK: Duration = Duration::from_millis(5);

/// Whether anything passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Gate {
    /// Everything.
    #[default]
    Open,
    /// Nothing, and nobody is told: connections stay, and what was sent waits, as behind a cable
    /// that was pulled.
    Stalled,
    /// Nothing, and everybody is told: connections break, and new ones are closed at once.
    Refused,
}

/// How a way is. Odds are per thousand frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Weather {
    pub(super) gate: Gate,
    /// Every frame is this late,
    pub(super) delay: Duration,
    /// and up to this much more.
    pub(super) jitter: Duration,
    /// Bytes go out one by one.
    pub(super) trickles: bool,
    /// A frame is held back and later ones go first.
    pub(super) reorder: u32,
    /// A frame is sent twice.
    pub(super) duplicate: u32,
    /// An old frame is sent again; and a few of them at the beginning of each connection.
    pub(super) replay: u32,
    /// A bit is changed.
    pub(super) flip: u32,
    /// A frame says that it is far longer than it is, and within what is possible.
    pub(super) lengthen: u32,
    /// The connection ends in the middle of a frame.
    pub(super) cut: u32,
    /// Whether what one node asks of another may be repeated too: TCP never does that, and only a
    /// session's writes are promised to be done once all the same.
    pub(super) repeats_asks: bool,
}

/// What has been done to frames so far.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) carried: AtomicU64,
    pub(super) stopped: AtomicU64,
    pub(super) delayed: AtomicU64,
    pub(super) trickled: AtomicU64,
    pub(super) reordered: AtomicU64,
    pub(super) duplicated: AtomicU64,
    pub(super) replayed: AtomicU64,
    pub(super) flipped: AtomicU64,
    pub(super) lengthened: AtomicU64,
    pub(super) cut: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The weather of one way, as threads share it.
#[derive(Debug, Default)]
pub(super) struct Sky {
    weather: Mutex<Weather>,
    /// Grows when all connections are to break.
    storms: AtomicU64,
    pub(super) done: Done,
}

impl Sky {
    pub(super) fn set(&self, weather: Weather) {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    pub(super) fn weather(&self) -> Weather {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn gate(&self) -> Gate {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner).gate
    }

    /// Breaks every connection there is.
    pub(super) fn break_connections(&self) {
        self.storms.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn storms(&self) -> u64 {
        self.storms.load(Ordering::Relaxed)
    }

    /// Waits until something passes; `false` when the connection, begun after so many storms, is to
    /// break instead.
    pub(super) fn lets_pass(&self, storms: u64) -> bool {
        let mut has_waited = false;
        loop {
            match self.gate() {
                _ if self.storms() != storms => return false,
                Gate::Open => return true,
                Gate::Refused => {
                    count(&self.done.stopped);
                    return false;
                }
                Gate::Stalled => {
                    if !has_waited {
                        count(&self.done.stopped);
                    }
                    has_waited = true;
                    thread::sleep(TICK);
                }
            }
        }
    }
}
