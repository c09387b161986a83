//! When a snapshot is due.
//!
//! All nodes apply the same log, so they would all reach a threshold at the same entry. Nodes that
//! share a disk and processors would then write, sync and check at once, and no majority would be
//! left to serve meanwhile. So each has a place among the members, and takes its first snapshot
//! earlier by that: from then on they take turns. It costs no agreement, and where it fails (a node
//! that was long away, a change of members) it costs no more than the time of some requests.

use crate::raft::{Configuration, NodeId};

/// How many bytes of content a part of a snapshot has if nothing else is said
/// ([`SnapshotPolicy::part_bytes`]), or a line more: a step encodes or decodes as much. Chosen
/// because that takes less than a millisecond.
pub const SNAPSHOT_PART_BYTES: usize = 256 << 10;

/// When a snapshot is taken, at the first of two thresholds, and in which pieces. May differ from
/// node to node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// When so many bytes of log lines were applied since the last one, and at least as many as
    /// that one has: so that the disk never writes more in snapshots than in log, however large the
    /// state is.
    pub log_bytes: u64,
    /// When this many bytes were applied, even if the last snapshot is larger: the log is in memory
    /// until then.
    pub log_bytes_max: u64,
    /// When so many entries were applied since the last one, whatever their size.
    pub log_entries: u64,
    /// The most bytes of log that may come after a snapshot was due and something holds it back.
    pub held_back_bytes: u64,
    /// How many bytes of content a part has, or a line more.
    pub part_bytes: usize,
    /// Whether the members of a cluster take their snapshots in turn: each its first one earlier by
    /// its place among them.
    pub takes_turns: bool,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        // As much as Redis lets its log grow at the least before it is written anew. A start reads
        // it in a fraction of a second.
        Self {
            log_bytes: 64 << 20,
            log_bytes_max: u64::MAX,
            log_entries: 1_000_000,
            held_back_bytes: HELD_BACK_BYTES_MAX,
            part_bytes: SNAPSHOT_PART_BYTES,
            takes_turns: true,
        }
    }
}

/// How many times as much log as a snapshot is due for may come before nothing holds it back any
/// more. Arbitrary: all of it is in memory.
const OVERDUE_TIMES: u64 = 8;
/// The most bytes of log that may come after a snapshot was due, where the state is so large that
/// several times its size would be too much.
pub const HELD_BACK_BYTES_MAX: u64 = 512 << 20;

/// What was applied since a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Applied {
    bytes: u64,
    entries: u64,
}

/// A part of a threshold: so many of so many.
#[derive(Clone, Copy, Debug)]
struct Share {
    count: u64,
    of: u64,
}

impl Share {
    const NONE: Self = Self { count: 0, of: 1 };

    /// How far `node` comes after `other` in the circle of the members.
    fn of_circle(configuration: &Configuration, node: NodeId, other: NodeId) -> Self {
        let members = configuration.members();
        let place = |node| members.iter().position(|member| *member == node);
        let (Some(node), Some(other)) = (place(node), place(other)) else { return Self::NONE };
        Self { count: ((node + members.len() - other) % members.len()) as u64, of: members.len() as u64 }
    }

    /// What is left of `threshold` without this share of it; at least 1 of at least 1.
    fn taken_from(self, threshold: u64) -> u64 {
        // Nearly always: and each step asks.
        if self.count == 0 {
            return threshold;
        }
        let taken = u128::from(threshold) * u128::from(self.count) / u128::from(self.of);
        threshold - u64::try_from(taken).expect("a share is less than the whole")
    }
}

/// A replica's schedule of snapshots.
#[derive(Debug)]
pub(super) struct Schedule {
    policy: SnapshotPolicy,
    /// Since the moment of the last snapshot.
    applied: Applied,
    /// Bytes of content of the last one.
    last_bytes: u64,
    /// By how much of the thresholds the next one comes earlier.
    head_start: Share,
}

impl Schedule {
    /// Of a replica whose last snapshot has `last_bytes` bytes of content, if it has one.
    pub(super) fn new(
        policy: SnapshotPolicy,
        last_bytes: Option<u64>,
        node: NodeId,
        configuration: &Configuration,
    ) -> Self {
        // Who has a snapshot has its place already: its log begins behind that.
        let first = configuration.members().first().copied().unwrap_or(node);
        let head_start = match last_bytes {
            None if policy.takes_turns => Share::of_circle(configuration, node, first),
            _ => Share::NONE,
        };
        let last_bytes = last_bytes.unwrap_or(0);
        Self { policy, applied: Applied::default(), last_bytes, head_start }
    }

    pub(super) fn part_bytes(&self) -> usize {
        self.policy.part_bytes
    }

    /// Entries were applied, `bytes` bytes of lines.
    pub(super) fn applied(&mut self, entries: u64, bytes: u64) {
        self.applied.entries += entries;
        self.applied.bytes += bytes;
    }

    /// After how many bytes of log the next one is due.
    fn due_bytes(&self) -> u64 {
        self.policy.log_bytes.max(self.last_bytes).min(self.policy.log_bytes_max)
    }

    pub(super) fn is_due(&self) -> bool {
        self.applied.bytes >= self.head_start.taken_from(self.due_bytes())
            || self.applied.entries >= self.head_start.taken_from(self.policy.log_entries)
    }

    /// Whether a snapshot would make room worth its while, where memory is short. An eighth is
    /// arbitrary.
    pub(super) fn makes_room(&self) -> bool {
        self.applied.bytes >= (self.due_bytes() / 8).max(1)
    }

    /// Whether so much was applied that the log must not grow on for anybody's sake. That is a
    /// matter of memory, and so of bytes: many short entries would otherwise end a backup that is
    /// being read.
    pub(super) fn is_overdue(&self) -> bool {
        let due = self.due_bytes();
        let bytes_max =
            due.saturating_mul(OVERDUE_TIMES).min(due.saturating_add(self.policy.held_back_bytes));
        self.applied.bytes >= bytes_max
    }

    /// A snapshot of this moment begins. Returns what it is taken for.
    pub(super) fn begin(&mut self) -> Applied {
        self.head_start = Share::NONE;
        std::mem::take(&mut self.applied)
    }

    /// The snapshot that was begun for `applied` is given up.
    pub(super) fn give_up(&mut self, applied: Applied) {
        self.applied.entries += applied.entries;
        self.applied.bytes += applied.bytes;
    }

    /// A snapshot of this replica's own is durable, `bytes` bytes of content.
    pub(super) fn taken(&mut self, bytes: u64) {
        self.last_bytes = bytes;
    }

    /// A snapshot that came from `leader` is the state now.
    pub(super) fn installed(
        &mut self,
        bytes: u64,
        node: NodeId,
        leader: Option<NodeId>,
        configuration: &Configuration,
    ) {
        self.last_bytes = bytes;
        self.applied = Applied::default();
        // It has the leader's place now; its own is as far from that as the two are from one
        // another.
        self.head_start = match leader {
            Some(leader) if self.policy.takes_turns => Share::of_circle(configuration, node, leader),
            _ => Share::NONE,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::Voters;

    fn members(count: u64) -> Configuration {
        Configuration::of_voters(Voters::new((0..count).map(NodeId)).unwrap())
    }

    /// After how many entries each of the next `count` snapshots is due.
    fn due(schedule: &mut Schedule, count: usize) -> Vec<u64> {
        let mut entries = 0;
        let mut found = Vec::new();
        while found.len() < count {
            schedule.applied(1, 10);
            entries += 1;
            if schedule.is_due() {
                found.push(entries);
                schedule.begin();
                schedule.taken(0);
            }
        }
        found
    }

    fn policy(log_entries: u64) -> SnapshotPolicy {
        SnapshotPolicy { log_entries, ..SnapshotPolicy::default() }
    }

    #[test]
    fn members_take_turns() {
        let moments: Vec<_> = (0..5)
            .map(|node| due(&mut Schedule::new(policy(100), None, NodeId(node), &members(5)), 3))
            .collect();
        let expected = [[100, 200, 300], [80, 180, 280], [60, 160, 260], [40, 140, 240], [20, 120, 220]];
        assert_eq!(moments, expected);
    }

    #[test]
    fn nothing_holds_a_snapshot_back_beyond_a_limit_in_bytes() {
        let mut schedule = Schedule::new(policy(100), None, NodeId(0), &members(1));
        schedule.applied(1_000_000, 1 << 20);
        assert!(schedule.is_due() && !schedule.is_overdue(), "many entries, and little memory");
        schedule.applied(1, OVERDUE_TIMES * policy(100).log_bytes);
        assert!(schedule.is_overdue());
        let mut large = Schedule::new(policy(100), Some(1 << 30), NodeId(0), &members(1));
        large.applied(1, 1 << 30);
        assert!(!large.is_overdue());
        large.applied(1, HELD_BACK_BYTES_MAX);
        assert!(large.is_overdue());
    }

    #[test]
    fn a_large_state_does_not_let_the_log_outgrow_its_limit() {
        let policy = SnapshotPolicy { log_bytes_max: 500, held_back_bytes: 100, ..policy(1_000_000) };
        let mut schedule = Schedule::new(policy, Some(1 << 30), NodeId(0), &members(1));
        schedule.applied(1, 499);
        assert!(!schedule.is_due());
        schedule.applied(1, 1);
        assert!(schedule.is_due() && !schedule.is_overdue());
        schedule.applied(1, 100);
        assert!(schedule.is_overdue(), "nothing holds it back for longer");
    }

    #[test]
    fn a_threshold_of_one_entry_is_one_for_all() {
        for node in 0..5 {
            let mut schedule = Schedule::new(policy(1), None, NodeId(node), &members(5));
            assert_eq!(due(&mut schedule, 3), [1, 2, 3]);
        }
    }

    #[test]
    fn who_has_a_snapshot_has_its_place() {
        let mut restarted = Schedule::new(policy(100), Some(7), NodeId(3), &members(5));
        assert_eq!(due(&mut restarted, 2), [100, 200]);
    }

    #[test]
    fn who_took_the_leaders_snapshot_over_keeps_clear_of_the_leader() {
        let mut schedule = Schedule::new(policy(100), None, NodeId(1), &members(5));
        schedule.installed(0, NodeId(1), Some(NodeId(4)), &members(5));
        assert_eq!(due(&mut schedule, 2), [60, 160]);
        schedule.installed(0, NodeId(1), None, &members(5));
        assert_eq!(due(&mut schedule, 2), [100, 200]);
    }

    #[test]
    fn without_turns_all_are_due_at_once() {
        let policy = SnapshotPolicy { takes_turns: false, ..policy(100) };
        for node in 0..5 {
            assert_eq!(due(&mut Schedule::new(policy, None, NodeId(node), &members(5)), 1), [100]);
        }
    }
}
