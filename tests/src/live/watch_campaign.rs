//! Watch campaign: a watcher that reconnects to random nodes sees each change once and in order,
//! while the nodes are killed one after the other.
//!
//! One writer sets keys to the numbers 1, 2, …, with a session, so that each number is written
//! exactly once however often it is sent. The watcher changes its node after a random number of
//! lines, or when the node is killed, and resumes from the revision after the last one. At the end
//! it must have seen each number once, in the order of revisions.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Broken, Nodes, Runtime, TIMEOUT, Talk, until};

/// The number of nodes.
const NODES: usize = 3;
/// The number of keys that are written in turn.
const KEYS: u64 = 64;
/// The number of writes that are sent at once: fewer than the outcomes that a session remembers.
const BATCH: u64 = 64;
/// The most lines that a watcher reads from one node. Arbitrary: some thousand changes, so that
/// most nodes are left by choice and some because they are killed.
const LINES_MAX: u64 = 5_000;

/// The settings of a watch campaign.
#[derive(Clone, Debug)]
pub struct WatchCampaign {
    /// The runtime of the nodes.
    pub runtime: Runtime,
    /// The number of writes.
    pub changes: u64,
    /// How often a node is killed.
    pub kills: u64,
    /// The seed, which decides which node is killed and when the watcher reconnects.
    pub seed: u64,
}

/// The result of a watch campaign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchSummary {
    /// The number of changes that the watcher has seen.
    pub seen: u64,
    /// The number of changes that it has not seen.
    pub missing: u64,
    /// The number of changes that it has seen again, or out of order.
    pub wrong: u64,
    /// How often it began at a node.
    pub sessions: u64,
    /// How often a node no longer had what it needed.
    pub compacted: u64,
    /// How often a node was killed.
    pub kills: u64,
}

impl WatchSummary {
    /// The summary as one line of JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let Self { seen, missing, wrong, sessions, compacted, kills } = self;
        serde_json::json!({
            "seen": seen, "missing": missing, "wrong": wrong,
            "sessions": sessions, "compacted": compacted, "kills": kills,
        })
        .to_string()
    }

    /// Returns whether the watcher has seen each change once and in order.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.missing == 0 && self.wrong == 0
    }
}

/// The state that the threads of a campaign share.
struct Shared {
    addresses: Mutex<Vec<SocketAddr>>,
    /// The number of acknowledged writes.
    written: AtomicU64,
    changes: u64,
}

impl Shared {
    fn any_address(&self, rng: &mut fastrand::Rng) -> SocketAddr {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        *rng.choice(&*addresses).expect("a majority runs")
    }

    fn set_addresses(&self, addresses: Vec<SocketAddr>) {
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }
}

impl WatchCampaign {
    /// Runs the campaign.
    ///
    /// # Panics
    ///
    /// When the cluster does not recover from a kill, or the watcher waits in vain.
    #[must_use]
    pub fn run(&self) -> WatchSummary {
        let mut nodes = Nodes::start(&[self.runtime; NODES]);
        let addresses = Mutex::new(nodes.addresses());
        let shared = Shared { addresses, written: AtomicU64::new(0), changes: self.changes };
        let cluster = nodes.connect(1).ask(r#"{"op":"watch","prefix":"w/"}"#);
        let (from, cluster) = (cluster["rev"].as_u64(), cluster["cluster"].as_str().map(str::to_owned));
        let watcher = Watcher {
            rng: fastrand::Rng::with_seed(self.seed ^ 1),
            last: from.expect("a watch has a revision"),
            cluster: cluster.expect("a watch has a cluster"),
            seen: vec![false; usize::try_from(self.changes).expect("a number of writes") + 1],
            summary: WatchSummary::default(),
        };
        let mut rng = fastrand::Rng::with_seed(self.seed);
        thread::scope(|scope| {
            let watching = scope.spawn(|| watcher.run(&shared));
            let writing = scope.spawn(|| write(&shared, fastrand::Rng::with_seed(self.seed ^ 2)));
            let mut kills = 0;
            for kill in 1..=self.kills {
                let due = self.changes * kill / (self.kills + 1);
                until("the writer goes on", || shared.written.load(Ordering::Relaxed) >= due);
                let victim = rng.usize(1..=NODES);
                _ = nodes.kill(victim);
                shared.set_addresses(nodes.addresses());
                nodes.restart(victim);
                shared.set_addresses(nodes.addresses());
                kills += 1;
            }
            writing.join().expect("the writer does not panic");
            WatchSummary { kills, ..watching.join().expect("the watcher does not panic") }
        })
    }
}

/// Writes all numbers.
fn write(shared: &Shared, mut rng: fastrand::Rng) {
    let (mut next, mut talk) = (1, None);
    while next <= shared.changes {
        let Some(mut open) = talk.take().or_else(|| Talk::try_open(shared.any_address(&mut rng)).ok()) else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        if let Ok(written) = write_batch(&mut open, next, (next + BATCH - 1).min(shared.changes)) {
            if written > 0 {
                talk = Some(open);
            }
            next += written;
            shared.written.store(next - 1, Ordering::Relaxed);
        }
    }
}

/// Writes the numbers from `first` to `last`. Returns how many were acknowledged in a row.
fn write_batch(talk: &mut Talk, first: u64, last: u64) -> Result<u64, Broken> {
    let line = |number: u64| {
        let session = format!("\"session\":{{\"client\":\"writer\",\"seq\":{number}}}");
        format!("{{\"key\":\"w/{}\",\"value\":{number},{session}}}\n", number % KEYS)
    };
    talk.try_send((first..=last).map(line).collect::<String>().as_bytes())?;
    let mut written = 0;
    for number in first..=last {
        let reply = talk.try_hear()?;
        let is_next = written == number - first;
        written += u64::from(is_next && reply.ends_with("\"status\":\"ok\"}"));
    }
    Ok(written)
}

struct Watcher {
    rng: fastrand::Rng,
    last: u64,
    cluster: String,
    seen: Vec<bool>,
    summary: WatchSummary,
}

impl Watcher {
    fn run(mut self, shared: &Shared) -> WatchSummary {
        let mut last_change = Instant::now();
        while self.summary.seen < shared.changes {
            let before = self.summary.seen;
            // A node that was killed ends the session; the next one goes on.
            _ = self.session(shared);
            if self.summary.seen > before {
                last_change = Instant::now();
            }
            if last_change.elapsed() > TIMEOUT {
                break;
            }
        }
        let missing = self.seen.iter().skip(1).filter(|seen| !**seen).count();
        WatchSummary { missing: missing as u64, ..self.summary }
    }

    fn session(&mut self, shared: &Shared) -> Result<(), Broken> {
        let mut talk = Talk::try_open(shared.any_address(&mut self.rng)).map_err(|_| Broken)?;
        let (from, cluster) = (self.last + 1, &self.cluster);
        talk.try_send(
            format!("{{\"op\":\"watch\",\"prefix\":\"w/\",\"from\":{from},\"cluster\":\"{cluster}\"}}\n")
                .as_bytes(),
        )?;
        let reply: Value = serde_json::from_str(&talk.try_hear()?).expect("a reply is JSON");
        if reply["status"] != "ok" {
            self.summary.compacted += u64::from(reply["error"] == "compacted");
            thread::sleep(Duration::from_millis(5));
            return Err(Broken);
        }
        self.summary.sessions += 1;
        for _ in 0..self.rng.u64(1..LINES_MAX) {
            let line: Value = serde_json::from_str(&talk.try_hear()?).expect("a line is JSON");
            let Some(rev) = line["rev"].as_u64() else { return Err(Broken) };
            let Some(events) = line["events"].as_array() else {
                // Progress, or the end of the watch with the revision to resume from.
                if line.get("error").is_some() {
                    return Err(Broken);
                }
                self.last = self.last.max(rev);
                continue;
            };
            self.summary.wrong += u64::from(rev <= self.last);
            self.last = rev;
            for event in events {
                let number = event["value"].as_u64().and_then(|number| usize::try_from(number).ok());
                match number.and_then(|number| self.seen.get_mut(number)) {
                    Some(seen) if !*seen => *seen = true,
                    _ => self.summary.wrong += 1,
                }
                self.summary.seen += 1;
            }
            if self.summary.seen >= shared.changes {
                break;
            }
        }
        Ok(())
    }
}
