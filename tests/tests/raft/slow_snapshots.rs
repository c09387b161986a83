//! Snapshot transfer over a slow link: the next snapshot does not restart it, and meanwhile the log
//! does not grow without a limit.

use coracle_core::raft::{Body, Config, LogIndex, Message, Restored};
use coracle_core::{ReplicaLimits, SnapshotPolicy};
use coracle_tests::scenario::{Cluster, Limited, Limits, first_level};

/// The number of entries after which a snapshot is due.
const ENTRIES: u64 = 5;
/// The number of log bytes after which a snapshot is also due. After eight times as many, nothing
/// holds it back.
const BYTES: u64 = 600;

/// A replica that takes a snapshot every few entries.
type Snapshotting = Limited<EveryFewEntries>;

/// The limits of [`Snapshotting`].
struct EveryFewEntries;

impl Limits for EveryFewEntries {
    fn limits() -> ReplicaLimits {
        // A part is one line, so that each is worth waiting for.
        let snapshots = SnapshotPolicy {
            log_bytes: BYTES,
            log_entries: ENTRIES,
            part_bytes: 1,
            takes_turns: false,
            ..SnapshotPolicy::default()
        };
        ReplicaLimits { snapshots, ..first_level() }
    }
}

/// Node 1 leads, and node 3 was away for some snapshots. A message from node 1 to node 3 is either
/// bulky and late, or arrives at once.
struct Line {
    cluster: Cluster<Snapshotting>,
    written: u32,
    /// The parts that were sent: the index of the snapshot's last entry, and the part's offset.
    parts: Vec<(LogIndex, u64)>,
}

impl Line {
    fn new(size: usize, held_bytes_max: usize) -> Self {
        let tune = |config| Config { retained_bytes: 0, held_bytes_max, ..config };
        let mut cluster = Cluster::start(vec![Restored::default(); size], 0, tune);
        cluster.elect(1);
        cluster.isolate(3);
        // Until then, the log would be kept for node 3.
        cluster.elapse_ms(10_000);
        let mut line = Self { cluster, written: 0, parts: Vec::new() };
        (0..22).for_each(|_| line.write());
        line.cluster.heal();
        line.cluster.intercept(1, 3);
        line
    }

    fn write(&mut self) {
        self.cluster.propose(1, &format!("k{}", self.written));
        self.cluster.settle();
        self.written += 1;
    }

    /// Lets this time pass. Small messages arrive during it, bulky ones at its end.
    fn pass_ms(&mut self, millis: u64) {
        let mut bulk = Vec::new();
        for _ in 0..millis / 50 {
            self.cluster.elapse_ms(50);
            let (late, early): (Vec<_>, Vec<_>) = self.cluster.intercepted().into_iter().partition(is_bulky);
            early.into_iter().for_each(|message| self.cluster.deliver(message));
            bulk.extend(late);
        }
        for message in bulk {
            if let Body::InstallSnapshot(part) = &message.body
                && !part.text.is_empty()
            {
                self.parts.push((part.meta.last.index, part.offset));
            }
            self.cluster.deliver(message);
        }
        self.cluster.settle();
    }

    fn log_len(&self) -> u64 {
        let log = self.cluster.node(1).log();
        log.last().index.0 - log.start().index.0
    }

    /// Continues until node 3 has all entries. Returns `false` if it does not get there.
    fn catches_up(&mut self, millis: u64) -> bool {
        for _ in 0..300 {
            if self.has_caught_up() {
                return true;
            }
            self.pass_ms(millis);
        }
        false
    }

    fn has_caught_up(&self) -> bool {
        self.cluster.subject(3).0.store().len() == self.written as usize
    }

    /// Returns how many snapshots were sent, at least in part.
    fn snapshots(&self) -> usize {
        let mut lasts: Vec<_> = self.parts.iter().map(|(last, _)| *last).collect();
        lasts.dedup();
        lasts.len()
    }
}

fn is_bulky(message: &Message) -> bool {
    match &message.body {
        Body::InstallSnapshot(_) => true,
        Body::AppendEntries(append) => !append.entries.is_empty(),
        _ => false,
    }
}

/// Each part takes ten election timeouts, and the transfer takes three times as long as it takes
/// the next snapshot to be due.
#[test]
fn the_next_snapshot_does_not_restart_a_transfer_on_a_slow_link() {
    let mut line = Line::new(3, 1 << 20);
    for round in 0..60 {
        line.pass_ms(5000);
        if round % 3 == 0 {
            line.write();
        }
    }
    assert!(line.catches_up(5000));
    assert_eq!(line.snapshots(), 1, "{:?}", line.parts);
    assert!(line.cluster.node(1).snapshot().is_some_and(|meta| meta.last.index.0 > 30), "others were due");
}

/// The next snapshot is nearly written when a follower turns out to need the current one.
#[test]
fn a_snapshot_that_was_begun_before_a_transfer_waits_for_its_end() {
    let mut line = Line::new(5, 1 << 20);
    let latest = |line: &Line| line.cluster.node(1).snapshot().map(|meta| meta.last.index);
    line.cluster.hold_disk(1);
    (0..ENTRIES).for_each(|_| line.write());
    line.pass_ms(200);
    line.cluster.release_disk(1);
    line.pass_ms(5000);
    assert_eq!(latest(&line), Some(LogIndex(20)));
    assert!(line.catches_up(5000));
    assert_eq!(line.snapshots(), 1, "{:?}", line.parts);
    assert!(latest(&line) > Some(LogIndex(20)), "it was only held back");
}

/// The connection is lost in the middle of a transfer, and the leader is notified.
#[test]
fn a_transfer_goes_on_after_its_connection_was_lost_although_the_next_snapshot_is_due() {
    let mut line = Line::new(3, 1 << 20);
    for round in 0..60 {
        line.pass_ms(1000);
        if round % 3 == 0 {
            line.write();
        }
        if round % 5 == 4 {
            line.cluster.intercepted();
            line.cluster.tell_unreachable(1, 3);
        }
    }
    assert!(line.catches_up(1000));
    assert_eq!(line.snapshots(), 1, "{:?}", line.parts);
}

/// More is written than may be kept for one follower: the transfer has to begin again, and
/// completes once less is written.
#[test]
fn the_log_that_waits_for_a_transfer_has_a_limit() {
    let mut line = Line::new(3, 1 << 20);
    let mut longest = 0;
    for _ in 0..10 {
        line.pass_ms(5000);
        for _ in 0..ENTRIES * 2 {
            line.write();
            longest = longest.max(line.log_len());
        }
    }
    assert!(longest > ENTRIES * 4, "it was held back: {longest}");
    assert!(longest <= 70, "{longest} entries in memory");
    assert!(line.catches_up(5000) && line.snapshots() >= 2, "{:?}", line.parts);
}

/// A follower that has its snapshot and receives the later entries needs the log for longer than
/// the next snapshot takes. The log is kept for it, up to a limit.
#[test]
fn the_log_is_kept_for_a_follower_that_catches_up_to_a_limit() {
    for (held_bytes_max, snapshots) in [(1 << 20, 1), (100, 2)] {
        let mut line = Line::new(3, held_bytes_max);
        let is_installed =
            |line: &Line| line.cluster.node(3).snapshot().is_some_and(|meta| meta.last.index.0 == 20);
        while !is_installed(&line) && line.parts.len() < 100 {
            line.pass_ms(500);
        }
        let held_from = line.cluster.node(3).log().last().index;
        // The first entries are in flight for longer than some snapshots take, and are lost in the
        // end.
        for _ in 0..ENTRIES * 4 {
            line.write();
        }
        line.cluster.intercepted();
        line.cluster.tell_unreachable(1, 3);
        let start = line.cluster.node(1).log().start().index;
        assert_eq!(start <= held_from, snapshots == 1, "{start} {held_from}");
        assert!(line.catches_up(500));
        assert_eq!(line.snapshots(), snapshots, "{held_bytes_max}: {:?}", line.parts);
    }
}
