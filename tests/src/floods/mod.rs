//! Flood tests (overload): a server with little memory gets too much of one kind of load, while a
//! well-behaved client puts and gets.
//!
//! ```text
//!   flooders ──► victim (--memory-max 256MiB, in a control group of 512 MiB) ◄── well-behaved client
//! ```
//!
//! First the client runs alone, for figures to compare with. Then it continues while threads of low
//! priority flood the server. These invariants must hold: no process is killed, no acknowledged
//! write is lost, no answer is wrong, and requests are served. The increase in latency is only
//! measured.
//!
//! The flooders have a low priority because they represent other machines: the measurement is about
//! the server's effect on its other clients, not about how this machine's scheduler shares two
//! processors.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::live::Runtime;

mod client;
mod kinds;
mod strangers;
mod victim;

use client::{Figures, WellBehaved};
pub use kinds::Kind;
pub use strangers::with_frames_without_an_end;
use victim::Victim;

/// The longest time of the client alone, before the flood.
const QUIET_MAX: Duration = Duration::from_secs(15);
/// The number of flooding threads.
const FLOODERS: usize = 2;

/// The settings of a flood test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood {
    /// The kind of flood.
    pub kind: Kind,
    /// The runtime of the nodes.
    pub runtime: Runtime,
    /// The duration.
    pub time: Duration,
}

/// The result of a flood test.
#[derive(Clone, Debug)]
pub struct Outcome {
    flood: Flood,
    quiet: Figures,
    flooded: Figures,
    /// The number of connections, lines or requests that the flooders sent.
    floods_done: u64,
    /// The wrong answers that the client got.
    wrong: Vec<String>,
    /// Whether the process still runs, and no process was killed for lack of memory.
    has_survived: bool,
    rss_peak_bytes: u64,
    group_peak_bytes: Option<u64>,
    leader_changes: usize,
}

impl Flood {
    /// Starts a server, measures, floods it, and measures again.
    ///
    /// # Panics
    ///
    /// When the server does not start, or does not answer the client for a minute.
    #[must_use]
    pub fn run(self) -> Outcome {
        let victim = Victim::start(self);
        if self.kind == Kind::UnreadScans {
            victim.fill();
        }
        let mut client = WellBehaved::new(victim.address());
        // The first requests meet cold caches and a new leader.
        _ = client.run(Instant::now() + QUIET_MAX / 10, &AtomicBool::new(false));
        let quiet = client.run(Instant::now() + self.time.min(QUIET_MAX), &AtomicBool::new(false));
        let elections_before = victim.elections();
        let is_over = AtomicBool::new(false);
        let target = victim.target();
        let (flooded, floods_done) = thread::scope(|scope| {
            let flooders: Vec<_> = (0..FLOODERS)
                .map(|number| {
                    let (target, is_over) = (&target, &is_over);
                    scope.spawn(move || {
                        kinds::lower_priority();
                        self.kind.flood(target, number, is_over)
                    })
                })
                .collect();
            let flooded = client.run(Instant::now() + self.time, &is_over);
            is_over.store(true, Ordering::Relaxed);
            let done = flooders.into_iter().map(|flooder| flooder.join().expect("a flooder does not panic"));
            (flooded, done.sum())
        });
        let has_survived = victim.is_alive();
        if has_survived {
            client.check_what_is_left();
        }
        Outcome {
            flood: self,
            quiet,
            flooded,
            floods_done,
            wrong: client.wrong(),
            has_survived,
            rss_peak_bytes: victim.rss_peak_bytes(),
            group_peak_bytes: victim.group_peak_bytes(),
            leader_changes: victim.elections() - elections_before,
        }
    }
}

impl Outcome {
    /// Returns whether all invariants held.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.has_survived && self.wrong.is_empty() && self.flooded.served() > 0
    }

    /// The 99th percentile of the latency during the flood, divided by the one before it.
    #[must_use]
    pub fn p99_ratio(&self) -> f64 {
        self.flooded.percentile_us(99) as f64 / self.quiet.percentile_us(99).max(1) as f64
    }

    /// The outcome as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "kind": self.flood.kind.name(),
            "runtime": self.flood.runtime.name(),
            "seconds": self.flood.time.as_secs_f64(),
            "quiet": self.quiet.to_json(),
            "flooded": self.flooded.to_json(),
            "p99_ratio": (self.p99_ratio() * 10.0).round() / 10.0,
            "floods_done": self.floods_done,
            "rss_peak_mib": self.rss_peak_bytes >> 20,
            "group_peak_mib": self.group_peak_bytes.map(|bytes| bytes >> 20),
            "leader_changes": self.leader_changes,
            "has_survived": self.has_survived,
            "wrong": self.wrong,
        })
    }
}
