//! Faults of the link from one node to another: whether frames pass, how late, and which faults
//! they suffer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The interval at which a waiting thread checks whether the faults have changed.
pub(super) const TICK: Duration = Duration::from_millis(5);

/// Whether frames pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Gate {
    /// All frames pass.
    #[default]
    Open,
    /// No frames pass, without any notice: connections stay open, and sent bytes wait, as behind a
    /// pulled cable.
    Stalled,
    /// No frames pass, with notice: connections break, and new ones are closed at once.
    Refused,
}

/// The conditions of a link. Odds are per thousand frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkFaults {
    pub(super) gate: Gate,
    /// The delay of every frame,
    pub(super) delay: Duration,
    /// and the most that is randomly added to it.
    pub(super) jitter: Duration,
    /// Whether bytes are sent one by one.
    pub(super) trickles: bool,
    /// The odds that a frame is held back and later ones go first.
    pub(super) reorder: u32,
    /// The odds that a frame is sent twice.
    pub(super) duplicate: u32,
    /// The odds that an old frame is sent again. If not zero, each connection also begins with a
    /// few old frames.
    pub(super) replay: u32,
    /// The odds that a bit is flipped.
    pub(super) flip: u32,
    /// The odds that a frame claims a far greater length than it has, though a possible one.
    pub(super) lengthen: u32,
    /// The odds that the connection ends in the middle of a frame.
    pub(super) cut: u32,
    /// Whether forwarded requests may be repeated as well. TCP never does that, and only writes of
    /// a session are promised to be applied once even then.
    pub(super) repeats_asks: bool,
}

/// Counters of the faults that frames have suffered so far.
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

/// The faults of one direction, shared between threads.
#[derive(Debug, Default)]
pub(super) struct SharedFaults {
    faults: Mutex<LinkFaults>,
    /// Incremented when all connections are to break.
    storms: AtomicU64,
    pub(super) done: Done,
}

impl SharedFaults {
    pub(super) fn set(&self, faults: LinkFaults) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    pub(super) fn faults(&self) -> LinkFaults {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn gate(&self) -> Gate {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).gate
    }

    /// Breaks every present connection.
    pub(super) fn break_connections(&self) {
        self.storms.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn storms(&self) -> u64 {
        self.storms.load(Ordering::Relaxed)
    }

    /// Waits until frames may pass. Returns `false` when the connection, which began after this
    /// number of storms, is to break instead.
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
