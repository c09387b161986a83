//! Shares of the memory budget: the limits of each queue, window and log of a node, derived once
//! from `--memory-max`.
//!
//! Every limit of a node has a constant that suits a machine with plenty of memory. The constants
//! together may exceed a smaller budget. So each limit becomes the smaller of its constant and a
//! fraction of the budget. Nothing is redistributed while the node runs: the sum is bounded before
//! the first byte arrives, from any sender.
//!
//! | share | of the budget | at least |
//! | --- | --- | --- |
//! | links to members ([`LINKED_MEMBERS`]): their outboxes | 1/16 | [`OUTBOX_BYTES_MIN`] each |
//! | links to other nodes | 1/16 | four places |
//! | incomplete frames of members | [`FRAME_BYTES_MIN`] each | |
//! | incomplete frames of other nodes | 1/16 | four places |
//! | inboxes | 1/16 | [`INBOX_BYTES_MIN`] |
//! | clients | 1/8 | |
//! | the state: keys, values, sessions, the log, and what is kept for watches | the rest, at most 3/4 | |
//!
//! The log is part of the state. So that it never uses all of that share, a snapshot is due after
//! an eighth of the budget, and a leader keeps at most another eighth for a follower that catches
//! up.
//!
//! Sessions have no limit here. Which clients the table forgets decides how an entry is applied, so
//! it must be the same on all nodes, and budgets may differ from node to node. The table has a
//! fixed limit of 64 MiB. Nor may writes be rejected because of its size: only writes make it
//! forget, so they would be rejected forever. So at most an eighth of the budget counts against the
//! state for the table, and all of it against clients. With a budget below half a gigabyte, the
//! rest of the table may exceed the budget.
//!
//! No share stops a node from working: one frame may exceed any limit, and the longest frame of a
//! correct node is shorter than [`FRAME_BYTES_MIN`]. With a large budget or none, the constants
//! apply, and this module changes nothing.

use super::MEMORY_UNLIMITED;
use crate::host::{INBOX_BYTES_MAX, PeerPlaces, WINDOW_BYTES_MAX, WINDOW_BYTES_MIN};
use crate::kv::{HISTORY_BYTES_MAX, HistoryLimits};
use crate::peer::{BULK_BYTES_MAX, FRAME_BYTES_MAX};
use crate::raft::{Config, VOTERS_MAX};
use crate::replica::{
    HELD_BACK_BYTES_MAX, PARSED_BYTES_MAX, ReplicaLimits, SnapshotPolicy, VIEW_BYTES_MAX, WatchLimits,
};

/// The limit for incomplete lines of all connections, in bytes: over a hundred of the longest ones.
pub const HALF_LINES_BYTES_MAX: usize = 128 << 20;

/// The smallest budget: from here on, all shares fit into it, with room for some data. Below, the
/// frames that other nodes may send would use most of it.
pub const BUDGET_BYTES_MIN: usize = 64 << 20;
/// The lower limit for the longest accepted frame of another node. The longest frame of a correct
/// node is a snapshot part with the longest line of a session table, less than 2 MiB; an entry is
/// at most a line of a client, 1 MiB.
pub const FRAME_BYTES_MIN: usize = 2 << 20;
/// The lower limit for an outbox, without the one frame that may exceed it.
pub const OUTBOX_BYTES_MIN: usize = 512 << 10;
/// The lower limit for an inbox, before frames are left in the socket.
pub const INBOX_BYTES_MIN: usize = 1 << 20;
/// The number of other members that the shares assume. If a cluster has as many learners in
/// addition, they share this memory.
pub const LINKED_MEMBERS: usize = VOTERS_MAX - 1;
/// The smallest change of a connection's memory use that is counted.
const NOTED_BYTES: usize = 16 << 10;

/// The limits for the parts of a node. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShares {
    /// The whole budget.
    pub max: usize,
    /// Bytes of peers' frames in one node's inbox.
    pub inbox_bytes: usize,
    /// Bytes in the outbox for one other node, in the lane of entries, snapshots, requests and
    /// answers.
    pub outbox_bytes: usize,
    /// The longest frame that is accepted, in bytes.
    pub frame_bytes: usize,
    /// The most connections with nodes that are not members.
    pub places: PeerPlaces,
    /// Bytes in flight on a connection to another node.
    pub window_bytes: u64,
    /// Bytes of entries in one AppendEntries.
    pub append_bytes: usize,
    /// Bytes of entries in flight to one follower.
    pub in_flight_bytes: usize,
    /// Bytes of uncommitted entries.
    pub uncommitted_bytes: usize,
    /// Bytes of log below the latest snapshot that are kept for followers that lag a little.
    pub retained_bytes: usize,
    /// Bytes of log below the latest snapshot that are kept for followers that catch up.
    pub held_bytes: usize,
    /// Bytes of log after which a snapshot is due, however large the state is.
    pub snapshot_log_bytes: u64,
    /// Bytes of log after a snapshot is due during which it may be held back.
    pub held_back_bytes: u64,
    /// Bytes of batches whose parsed writes are kept for other nodes of the process.
    pub parsed_bytes: usize,
    /// Bytes of the history ring.
    pub history_bytes: usize,
    /// Bytes of old content in a view of a watch.
    pub view_bytes: usize,
    /// Bytes of session tables that count against the limit of the state.
    pub sessions_bytes: usize,
    /// The smallest change of the memory use of a connection with another node that is counted.
    pub noted_bytes: usize,
    /// Whether there are links to other nodes: a process with all nodes needs none.
    pub has_links: bool,
}

impl MemoryShares {
    /// The shares of a process that runs all `nodes` nodes of a cluster, in a budget of `max`
    /// bytes.
    #[must_use]
    pub fn of_cluster(max: usize, nodes: usize) -> Self {
        Self::of(max, nodes.max(1), false)
    }

    /// The shares of a process that runs one node of a cluster.
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
            // Messages in flight must not push one another out of the outbox.
            append_bytes: outbox_bytes / 4,
            in_flight_bytes: outbox_bytes / 2,
            uncommitted_bytes: part,
            retained_bytes: part / 4,
            held_bytes: log_part,
            snapshot_log_bytes: count(log_part).max(1),
            held_back_bytes: count(log_part),
            parsed_bytes: (part / 2 / nodes).min(PARSED_BYTES_MAX),
            history_bytes: (part / 2 / nodes).min(HISTORY_BYTES_MAX),
            view_bytes: (part / 4 / nodes).min(VIEW_BYTES_MAX),
            sessions_bytes: log_part,
            noted_bytes: NOTED_BYTES,
            has_links,
        }
        .with_limit_if(max < MEMORY_UNLIMITED)
    }

    /// Without a limit, nothing is rejected for lack of memory.
    fn with_limit_if(self, has_limit: bool) -> Self {
        if has_limit {
            return self;
        }
        Self { held_back_bytes: HELD_BACK_BYTES_MAX, snapshot_log_bytes: u64::MAX, ..self }
    }

    /// The upper limit for the sum of all links, inboxes and incomplete frames, in bytes.
    #[must_use]
    pub fn peers_max(&self) -> usize {
        if !self.has_links {
            return 0;
        }
        let links = (LINKED_MEMBERS + self.places.strangers) * self.outbox_bytes;
        let frames = (LINKED_MEMBERS + self.places.inbound) * self.frame_bytes;
        links + frames + self.inbox_bytes
    }

    /// The number of bytes that are always left for clients.
    #[must_use]
    pub fn clients_min(&self) -> usize {
        self.max / 8
    }

    /// The size of the state, in bytes, above which writes that add to it are rejected.
    #[must_use]
    pub fn state_max(&self) -> usize {
        (self.max / 4 * 3).min(self.max.saturating_sub(self.peers_max() + self.clients_min()))
    }

    /// Limits the settings of a Raft node to its shares.
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

    /// Limits the settings of a replica to its shares.
    #[must_use]
    pub fn limit_replica(&self, limits: ReplicaLimits) -> ReplicaLimits {
        let snapshots = SnapshotPolicy {
            log_bytes_max: limits.snapshots.log_bytes_max.min(self.snapshot_log_bytes),
            held_back_bytes: limits.snapshots.held_back_bytes.min(self.held_back_bytes),
            ..limits.snapshots
        };
        let parsed_bytes = limits.parsed_bytes.min(self.parsed_bytes);
        let history = HistoryLimits {
            bytes: limits.watches.history.bytes.min(self.history_bytes),
            ..limits.watches.history
        };
        let view_bytes = limits.watches.view_bytes.min(self.view_bytes);
        let watches = WatchLimits { history, view_bytes, ..limits.watches };
        ReplicaLimits { snapshots, parsed_bytes, watches, ..limits }
    }

    /// Limits the places for connections to those that have memory.
    #[must_use]
    pub fn limit_places(&self, places: PeerPlaces) -> PeerPlaces {
        PeerPlaces {
            handshakes: places.handshakes.min(self.places.handshakes),
            inbound: places.inbound.min(self.places.inbound),
            strangers: places.strangers.min(self.places.strangers),
        }
    }
}

/// The limit for incomplete lines, where `clients_max` is that for clients.
pub(super) fn half_lines_max(clients_max: usize) -> usize {
    HALF_LINES_BYTES_MAX.min(clients_max / 4)
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
                // The log of a snapshot interval, the log kept for followers, and the parsed writes
                // leave room for keys and values.
                let log = shares.held_bytes.max(shares.retained_bytes) + max / 8 + shares.parsed_bytes;
                assert!(log <= max / 16 * 5, "{max}");
                // Sessions leave room for the log of a snapshot interval, and for some keys.
                assert!(shares.sessions_bytes + max / 8 < shares.state_max(), "{max}");
            }
        }
    }

    #[test]
    fn no_share_stops_a_node_from_working() {
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
    fn without_a_limit_or_with_plenty_the_constants_apply() {
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
                assert_eq!(shares.parsed_bytes, PARSED_BYTES_MAX);
                assert!(shares.sessions_bytes >= SESSION_BYTES_MAX);
                assert_eq!(shares.state_max(), max / 4 * 3);
            }
        }
        let unlimited = MemoryShares::of_member(usize::MAX).limit_replica(ReplicaLimits::default());
        assert_eq!(unlimited.snapshots, SnapshotPolicy::default());
    }

    #[test]
    fn settings_below_their_share_stay() {
        let shares = MemoryShares::of_member(256 * MIB);
        let small = Config { held_bytes_max: 7, retained_bytes: 3, append_bytes_max: 9, ..config() };
        let limited = shares.limit_config(small);
        assert_eq!((limited.held_bytes_max, limited.retained_bytes, limited.append_bytes_max), (7, 3, 9));
        assert_eq!(shares.limit_config(config()).held_bytes_max, 32 * MIB);
        let policy = SnapshotPolicy { log_bytes: 5, ..SnapshotPolicy::default() };
        let limits = shares.limit_replica(ReplicaLimits { snapshots: policy, ..ReplicaLimits::default() });
        assert_eq!((limits.snapshots.log_bytes, limits.snapshots.log_bytes_max), (5, 32 << 20));
        assert_eq!(limits.parsed_bytes, 8 * MIB);
        let few = PeerPlaces { handshakes: 2, inbound: 2, strangers: 2 };
        assert_eq!(shares.limit_places(few), few);
        assert_eq!(shares.limit_places(PeerPlaces::default()).inbound, 8);
    }
}
