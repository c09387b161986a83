//! The schedule of snapshots: decides when the next one is due, so that the nodes do not all take
//! theirs at once.
//!
//! All nodes apply the same log, so they would all reach a threshold at the same entry. Nodes that
//! share a disk and processors would then write, sync and verify at once, and no majority would be
//! left to serve clients meanwhile. So each node takes its first snapshot earlier, by its place
//! among the members, and from then on they take turns. This needs no coordination. Where it fails
//! (after a long absence, or a change of members), it costs no more than the time of some requests.

use crate::raft::{Configuration, NodeId};

/// The default of [`SnapshotPolicy::part_bytes`], the number of bytes of content in a part of a
/// snapshot. Chosen because a step encodes or decodes one part, and that takes less than a
/// millisecond.
pub const SNAPSHOT_PART_BYTES: usize = 256 << 10;

/// The policy for snapshots: the thresholds, of which the first one counts, and the size of a part.
/// May differ from node to node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// A snapshot is due after this many bytes of log lines since the last one, and at least as
    /// many as the last one has. So the disk never writes more in snapshots than in log, however
    /// large the state is.
    pub log_bytes: u64,
    /// A snapshot is due after this many bytes of log lines, even if the last one is larger,
    /// because the log is in memory until then.
    pub log_bytes_max: u64,
    /// A snapshot is due after this many entries since the last one, whatever their size.
    pub log_entries: u64,
    /// The most bytes of log after a snapshot is due during which it may be held back.
    pub held_back_bytes: u64,
    /// The number of bytes of content in a part. A part may be one line longer.
    pub part_bytes: usize,
    /// Whether the members take turns: each takes its first snapshot earlier by its place among
    /// them.
    pub takes_turns: bool,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        // 64 MiB is also the smallest log that Redis rewrites by default. A start reads this much
        // in a fraction of a second.
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

/// A snapshot that is due is held back until the log reaches this many times the due size.
/// Arbitrary: all of that log is in memory.
const OVERDUE_TIMES: u64 = 8;
/// The most bytes of log after a snapshot is due during which it may be held back, for a state so
/// large that a multiple of its size would be too much.
pub const HELD_BACK_BYTES_MAX: u64 = 512 << 20;

/// The amount of log applied since a point in time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Applied {
    bytes: u64,
    entries: u64,
}

/// A fraction of a threshold: `count` out of `of`.
#[derive(Clone, Copy, Debug)]
struct Share {
    count: u64,
    of: u64,
}

impl Share {
    const NONE: Self = Self { count: 0, of: 1 };

    /// The distance from `other` to `node` in the ring of the members.
    fn of_circle(configuration: &Configuration, node: NodeId, other: NodeId) -> Self {
        let members = configuration.members();
        let place = |node| members.iter().position(|member| *member == node);
        let (Some(node), Some(other)) = (place(node), place(other)) else { return Self::NONE };
        Self { count: ((node + members.len() - other) % members.len()) as u64, of: members.len() as u64 }
    }

    /// Returns `threshold` reduced by this fraction of it; at least 1 if `threshold` is.
    fn taken_from(self, threshold: u64) -> u64 {
        // The common case, checked in every step.
        if self.count == 0 {
            return threshold;
        }
        let taken = u128::from(threshold) * u128::from(self.count) / u128::from(self.of);
        threshold - u64::try_from(taken).expect("a share is less than the whole")
    }
}

/// A replica's snapshot schedule.
#[derive(Debug)]
pub(super) struct Schedule {
    policy: SnapshotPolicy,
    /// The log applied since the last snapshot began.
    applied: Applied,
    /// The number of bytes of content of the last snapshot.
    last_bytes: u64,
    /// The fraction of the thresholds by which the next snapshot comes earlier.
    head_start: Share,
}

impl Schedule {
    /// The schedule of a replica whose last snapshot has `last_bytes` bytes of content, if it has
    /// one.
    pub(super) fn new(
        policy: SnapshotPolicy,
        last_bytes: Option<u64>,
        node: NodeId,
        configuration: &Configuration,
    ) -> Self {
        // A node with a snapshot already has its place, because its log begins after that snapshot.
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

    /// Notes that entries with `bytes` bytes of log lines were applied.
    pub(super) fn applied(&mut self, entries: u64, bytes: u64) {
        self.applied.entries += entries;
        self.applied.bytes += bytes;
    }

    /// The number of bytes of log after which the next snapshot is due.
    fn due_bytes(&self) -> u64 {
        self.policy.log_bytes.max(self.last_bytes).min(self.policy.log_bytes_max)
    }

    pub(super) fn is_due(&self) -> bool {
        self.applied.bytes >= self.head_start.taken_from(self.due_bytes())
            || self.applied.entries >= self.head_start.taken_from(self.policy.log_entries)
    }

    /// Returns whether a snapshot would free enough memory to be worth its cost when memory is
    /// short. An eighth is arbitrary.
    pub(super) fn makes_room(&self) -> bool {
        self.applied.bytes >= (self.due_bytes() / 8).max(1)
    }

    /// Returns whether the log is so large that nothing may hold back a snapshot any longer. Only
    /// bytes count here, because the limit protects memory: otherwise many short entries would
    /// abort a backup that is being read.
    pub(super) fn is_overdue(&self) -> bool {
        let due = self.due_bytes();
        let bytes_max =
            due.saturating_mul(OVERDUE_TIMES).min(due.saturating_add(self.policy.held_back_bytes));
        self.applied.bytes >= bytes_max
    }

    /// Notes that a snapshot of the current state begins. Returns the amount of log that it covers.
    pub(super) fn begin(&mut self) -> Applied {
        self.head_start = Share::NONE;
        std::mem::take(&mut self.applied)
    }

    /// Notes that the snapshot that was begun for `applied` was aborted, so that its log counts
    /// again.
    pub(super) fn give_up(&mut self, applied: Applied) {
        self.applied.entries += applied.entries;
        self.applied.bytes += applied.bytes;
    }

    /// Notes that an own snapshot is durable, with `bytes` bytes of content.
    pub(super) fn taken(&mut self, bytes: u64) {
        self.last_bytes = bytes;
    }

    /// Notes that a snapshot from `leader` was installed as the state.
    pub(super) fn installed(
        &mut self,
        bytes: u64,
        node: NodeId,
        leader: Option<NodeId>,
        configuration: &Configuration,
    ) {
        self.last_bytes = bytes;
        self.applied = Applied::default();
        // The node now has the leader's place. To return to its own, it takes the next snapshot
        // earlier by its distance from the leader in the ring.
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

    /// The number of entries after which each of the next `count` snapshots is due.
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
    fn a_snapshot_is_held_back_only_up_to_a_limit_in_bytes() {
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
    fn a_threshold_of_one_entry_is_the_same_for_all() {
        for node in 0..5 {
            let mut schedule = Schedule::new(policy(1), None, NodeId(node), &members(5));
            assert_eq!(due(&mut schedule, 3), [1, 2, 3]);
        }
    }

    #[test]
    fn a_node_with_a_snapshot_keeps_its_place() {
        let mut restarted = Schedule::new(policy(100), Some(7), NodeId(3), &members(5));
        assert_eq!(due(&mut restarted, 2), [100, 200]);
    }

    #[test]
    fn a_node_with_an_installed_snapshot_avoids_the_leaders_turn() {
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
