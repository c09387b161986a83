//! Shares of the memory budget: what each queue, window and log of a node may hold, derived once
//! from `--memory-max`.
//!
//! Every limit of a node has a constant that fits a machine with plenty of memory. Constants do not
//! add up to a budget, so here each becomes the smaller of itself and a part of the budget. Nothing
//! is rationed while the node runs: the sum is bounded before the first byte arrives, from any
//! sender.
//!
//! | share | of the budget | at least |
//! | --- | --- | --- |
//! | links to members ([`LINKED_MEMBERS`]): their outboxes | 1/16 | [`OUTBOX_BYTES_MIN`] each |
//! | links to nodes that are no members | 1/16 | four places |
//! | frames of members that have not ended | [`FRAME_BYTES_MIN`] each | |
//! | frames of other nodes that have not ended | 1/16 | four places |
//! | inboxes | 1/16 | [`INBOX_BYTES_MIN`] |
//! | clients | 1/8 | |
//! | the state: keys, values, sessions and the log | the rest, at most 3/4 | |
//!
//! The log is a part of the state. So that it never takes all of that, a snapshot is due after an
//! eighth of the budget, and a leader keeps another eighth at most for a follower that catches up.
//!
//! Sessions have no limit here: what the session table forgets decides what an entry does, alike on
//! all nodes, and a budget may differ from node to node. The table's own limit is 64 MiB. Nor may
//! writes be refused because of it: only writes make it forget, so they would be refused for ever.
//! So of the table an eighth of the budget counts against the state, and all of it against clients;
//! a budget below half a gigabyte may be passed by the rest.
//!
//! No share keeps a node from its work: whatever the limit, one frame may pass it, and the longest
//! frame of an honest node is shorter than [`FRAME_BYTES_MIN`]. With the constants in force, as
//! without a limit, this module changes nothing.

use crate::host::{INBOX_BYTES_MAX, PeerPlaces, WINDOW_BYTES_MAX, WINDOW_BYTES_MIN};
use crate::peer::{BULK_BYTES_MAX, FRAME_BYTES_MAX};
use crate::raft::{Config, VOTERS_MAX};
use crate::replica::{HELD_BACK_BYTES_MAX, READINGS_BYTES_MAX, ReplicaLimits, SnapshotPolicy};

/// The smallest budget: from here on all shares together fit into it, with room for some data.
/// Below, the frames that other nodes may send are most of it.
pub const BUDGET_BYTES_MIN: usize = 64 << 20;
/// The least that a frame of another node may be long. The longest one of an honest node is a
/// snapshot's part with the longest line of a session table, less than 2 MiB; an entry is a line of
/// a client at most, 1 MiB.
pub const FRAME_BYTES_MIN: usize = 2 << 20;
/// The least that an outbox may hold beside the one frame that may pass its limit.
pub const OUTBOX_BYTES_MIN: usize = 512 << 10;
/// The least that an inbox may hold before frames are left in the socket.
pub const INBOX_BYTES_MIN: usize = 1 << 20;
/// How many other members are counted with. A cluster with as many learners again shares their part
/// with them.
pub const LINKED_MEMBERS: usize = VOTERS_MAX - 1;
/// A change of what a connection holds by less than this is not counted.
const NOTED_BYTES: usize = 16 << 10;

/// What the parts of a node may hold. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShares {
    /// The whole budget.
    pub max: usize,
    /// Peers' frames in one node's inbox.
    pub inbox_bytes: usize,
    /// What waits for one other node in the lane of entries, snapshots, requests and answers.
    pub outbox_bytes: usize,
    /// The longest frame that is accepted.
    pub frame_bytes: usize,
    /// The most places for nodes that are no members.
    pub places: PeerPlaces,
    /// What may be in flight on a connection to another node.
    pub window_bytes: u64,
    /// Entries in one AppendEntries.
    pub append_bytes: usize,
    /// Entries that are on their way to one follower.
    pub in_flight_bytes: usize,
    /// Entries that wait to be committed.
    pub uncommitted_bytes: usize,
    /// The log behind a snapshot that stays for followers that are nearly up to date.
    pub retained_bytes: usize,
    /// The log behind a snapshot that stays for followers that catch up.
    pub held_bytes: usize,
    /// The log after which a snapshot is due, however large the state is.
    pub snapshot_log_bytes: u64,
    /// The log that may come after a snapshot was due and something holds it back.
    pub held_back_bytes: u64,
    /// Batches whose readings are kept for other nodes of the process.
    pub readings_bytes: usize,
    /// How much of session tables counts when it is asked whether the state may grow.
    pub sessions_bytes: usize,
    /// A change of what a connection with another node holds by less than this is not counted.
    pub noted_bytes: usize,
    /// Whether there are links at all: the nodes of one process need none.
    pub has_links: bool,
}

impl MemoryShares {
    /// The shares of a process with all `nodes` nodes of a cluster, in a budget of `max` bytes.
    #[must_use]
    pub fn of_cluster(max: usize, nodes: usize) -> Self {
        Self::of(max, nodes.max(1), false)
    }

    /// The shares of a process with one node of a cluster of processes.
    #[must_use]
    pub fn of_member(max: usize) -> Self {
        Self::of(max, 1, true)
    }

    fn of(max: usize, nodes: usize, has_links: bool) -> Self {
        let (part, count) = (max / 16, |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX));
        let outbox_bytes = (part / LINKED_MEMBERS).clamp(OUTBOX_BYTES_MIN, BULK_BYTES_MAX);
        let frame_bytes = (part / 64).clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX);
        let (fewest, most) = (PeerPlaces::FEWEST, PeerPlaces::default());
        let log_part = max / 8;
        Self {
            max,
            inbox_bytes: (part / nodes).clamp(INBOX_BYTES_MIN, INBOX_BYTES_MAX),
            outbox_bytes,
            frame_bytes,
            places: PeerPlaces {
                handshakes: most.handshakes,
                inbound: (part / frame_bytes).clamp(fewest.inbound, most.inbound),
                strangers: (part / outbox_bytes).clamp(fewest.strangers, most.strangers),
            },
            window_bytes: count(outbox_bytes).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX),
            // Messages on their way must not push one another out of the outbox.
            append_bytes: outbox_bytes / 4,
            in_flight_bytes: outbox_bytes / 2,
            uncommitted_bytes: part,
            retained_bytes: part / 4,
            held_bytes: log_part,
            snapshot_log_bytes: count(log_part).max(1),
            held_back_bytes: count(log_part),
            readings_bytes: (part / 2 / nodes).min(READINGS_BYTES_MAX),
            sessions_bytes: log_part,
            noted_bytes: NOTED_BYTES,
            has_links,
        }
        .with_limit_if(max < usize::MAX)
    }

    /// Without a limit nothing is refused for want of memory.
    fn with_limit_if(self, has_limit: bool) -> Self {
        if has_limit {
            return self;
        }
        Self { held_back_bytes: HELD_BACK_BYTES_MAX, snapshot_log_bytes: u64::MAX, ..self }
    }

    /// What all links, inboxes and frames that have not ended hold together at the most.
    #[must_use]
    pub fn peers_max(&self) -> usize {
        if !self.has_links {
            return 0;
        }
        let links = (LINKED_MEMBERS + self.places.strangers) * self.outbox_bytes;
        let frames = (LINKED_MEMBERS + self.places.inbound) * self.frame_bytes;
        links + frames + self.inbox_bytes
    }

    /// What clients may hold whatever the others do.
    #[must_use]
    pub fn clients_min(&self) -> usize {
        self.max / 8
    }

    /// How large the state may get before writes that add to it are refused.
    #[must_use]
    pub fn state_max(&self) -> usize {
        (self.max / 4 * 3).min(self.max.saturating_sub(self.peers_max() + self.clients_min()))
    }

    /// A node's settings within its shares.
    #[must_use]
    pub fn limit_config(&self, config: Config) -> Config {
        Config {
            append_bytes_max: config.append_bytes_max.min(self.append_bytes),
            in_flight_bytes_max: config.in_flight_bytes_max.min(self.in_flight_bytes).max(1),
            uncommitted_bytes_max: config.uncommitted_bytes_max.min(self.uncommitted_bytes).max(1),
            retained_bytes: config.retained_bytes.min(self.retained_bytes),
            held_bytes_max: config.held_bytes_max.min(self.held_bytes),
            ..config
        }
    }

    /// What a replica is allowed within its shares.
    #[must_use]
    pub fn limit_replica(&self, limits: ReplicaLimits) -> ReplicaLimits {
        let snapshots = SnapshotPolicy {
            log_bytes_max: limits.snapshots.log_bytes_max.min(self.snapshot_log_bytes),
            held_back_bytes: limits.snapshots.held_back_bytes.min(self.held_back_bytes),
            ..limits.snapshots
        };
        let readings_bytes = limits.readings_bytes.min(self.readings_bytes);
        ReplicaLimits { snapshots, readings_bytes, ..limits }
    }

    /// As many places as there are, and memory for.
    #[must_use]
    pub fn limit_places(&self, places: PeerPlaces) -> PeerPlaces {
        PeerPlaces {
            handshakes: places.handshakes.min(self.places.handshakes),
            inbound: places.inbound.min(self.places.inbound),
            strangers: places.strangers.min(self.places.strangers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::SESSION_BYTES_MAX;
    use crate::raft::{NodeId, Voters};

    const MIB: usize = 1 << 20;

    fn config() -> Config {
        Config::new(NodeId(0), Voters::new([NodeId(0)]).unwrap())
    }

    fn budgets() -> impl Iterator<Item = usize> {
        let steps = (0..400).map(|step| BUDGET_BYTES_MIN + step * 7 * MIB);
        steps.chain((32..44).map(|power| 1 << power))
    }

    #[test]
    fn all_shares_and_the_state_fit_into_the_budget() {
        for max in budgets() {
            let all = (1..=9).map(|nodes| MemoryShares::of_cluster(max, nodes));
            for shares in all.chain([MemoryShares::of_member(max)]) {
                let sum = shares.peers_max() + shares.clients_min() + shares.state_max();
                assert!(sum <= max, "{sum} of {max}: {shares:?}");
                assert!(shares.state_max() >= max / 4, "{max} leave {} for data", shares.state_max());
                // A snapshot's log, what is held behind it and the readings leave some of that for
                // keys and values.
                let log = shares.held_bytes.max(shares.retained_bytes) + max / 8 + shares.readings_bytes;
                assert!(log <= max / 16 * 5, "{max}");
                // Sessions leave room for a log after which a snapshot is due, and for some keys.
                assert!(shares.sessions_bytes + max / 8 < shares.state_max(), "{max}");
            }
        }
    }

    #[test]
    fn no_share_keeps_a_node_from_its_work() {
        for max in [0, 1, MIB, 16 * MIB, BUDGET_BYTES_MIN].into_iter().chain(budgets()) {
            for shares in [MemoryShares::of_cluster(max, 9), MemoryShares::of_member(max)] {
                assert!(shares.frame_bytes >= FRAME_BYTES_MIN && shares.outbox_bytes >= OUTBOX_BYTES_MIN);
                assert!(shares.inbox_bytes >= INBOX_BYTES_MIN && shares.snapshot_log_bytes > 0);
                assert!(shares.window_bytes >= WINDOW_BYTES_MIN && shares.append_bytes >= 128 << 10);
                assert!(shares.append_bytes <= shares.in_flight_bytes);
                assert!(shares.in_flight_bytes < shares.outbox_bytes);
                let fewest = PeerPlaces::FEWEST;
                assert!(
                    shares.places.inbound >= fewest.inbound && shares.places.strangers >= fewest.strangers
                );
                shares.limit_config(config()).check().unwrap();
            }
        }
    }

    #[test]
    fn without_a_limit_and_with_plenty_the_constants_are_in_force() {
        for max in [usize::MAX, 64 << 30] {
            for shares in [MemoryShares::of_cluster(max, 5), MemoryShares::of_member(max)] {
                let (config, limited) = (config(), shares.limit_config(config()));
                assert_eq!(limited.append_bytes_max, config.append_bytes_max);
                assert_eq!(limited.in_flight_bytes_max, config.in_flight_bytes_max);
                assert_eq!(limited.uncommitted_bytes_max, config.uncommitted_bytes_max);
                assert_eq!(limited.retained_bytes, config.retained_bytes);
                assert_eq!(limited.held_bytes_max, config.held_bytes_max);
                assert_eq!((shares.frame_bytes, shares.outbox_bytes), (FRAME_BYTES_MAX, BULK_BYTES_MAX));
                assert_eq!((shares.inbox_bytes, shares.window_bytes), (INBOX_BYTES_MAX, WINDOW_BYTES_MAX));
                assert_eq!(shares.limit_places(PeerPlaces::default()), PeerPlaces::default());
                assert_eq!(shares.readings_bytes, READINGS_BYTES_MAX);
                assert!(shares.sessions_bytes >= SESSION_BYTES_MAX);
                assert_eq!(shares.state_max(), max / 4 * 3);
            }
        }
        let unlimited = MemoryShares::of_member(usize::MAX).limit_replica(ReplicaLimits::default());
        assert_eq!(unlimited.snapshots, SnapshotPolicy::default());
    }

    #[test]
    fn what_is_smaller_than_its_share_stays() {
        let shares = MemoryShares::of_member(256 * MIB);
        let small = Config { held_bytes_max: 7, retained_bytes: 3, append_bytes_max: 9, ..config() };
        let limited = shares.limit_config(small);
        assert_eq!((limited.held_bytes_max, limited.retained_bytes, limited.append_bytes_max), (7, 3, 9));
        assert_eq!(shares.limit_config(config()).held_bytes_max, 32 * MIB);
        let policy = SnapshotPolicy { log_bytes: 5, ..SnapshotPolicy::default() };
        let limits = shares.limit_replica(ReplicaLimits { snapshots: policy, ..ReplicaLimits::default() });
        assert_eq!((limits.snapshots.log_bytes, limits.snapshots.log_bytes_max), (5, 32 << 20));
        assert_eq!(limits.readings_bytes, 8 * MIB);
        let few = PeerPlaces { handshakes: 2, inbound: 2, strangers: 2 };
        assert_eq!(shares.limit_places(few), few);
        assert_eq!(shares.limit_places(PeerPlaces::default()).inbound, 8);
    }
}
