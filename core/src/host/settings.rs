//! Settings: the configuration of a cluster, which is the same for every runtime.

use std::sync::Arc;
use std::time::Duration;

use super::{CLIENT_HANDSHAKES_MAX, PeerPlaces};
use crate::access::Gate;
use crate::kv::SessionLimits;
use crate::memory::{MEMORY_UNLIMITED, MemoryBudget, MemoryShares};
use crate::peer::{Founders, LocalNode};
use crate::proxy::ProxyConfig;
use crate::raft::{Config, ConfigError, NodeId, VOTERS_MAX, Voters};
use crate::replica::{ReplicaLimits, SnapshotPolicy};

/// The settings of an embedded cluster: the nodes of one process, and the proxy in front of them.
///
/// ```
/// use coracle_core::Settings;
///
/// let settings = Settings { nodes: 3, ..Settings::default() };
/// assert_eq!(settings.raft_configs().map(|configs| configs.len()), Ok(3));
/// assert!(Settings { nodes: 0, ..settings }.raft_configs().is_err());
/// ```
#[derive(Clone, Debug)]
pub struct Settings {
    /// The number of nodes, 1 to [`VOTERS_MAX`]. Their ids are 0 to `nodes - 1`.
    pub nodes: usize,
    /// The interval of the leader's heartbeats.
    pub heartbeat_interval: Duration,
    /// See [`Config::election_timeout_min`].
    pub election_timeout_min: Duration,
    /// See [`Config::election_timeout_max`].
    pub election_timeout_max: Duration,
    /// How long a request may take before its client gets an error that the outcome is unknown.
    pub request_timeout: Duration,
    /// How long a client may be silent before it is disconnected; `None`: forever.
    pub idle_timeout: Option<Duration>,
    /// The most clients connected at once.
    pub connections_max: usize,
    /// The most TLS handshakes of clients at once, at each port for clients.
    pub client_handshakes_max: usize,
    /// The limits of connections with other nodes.
    pub peer_places: PeerPlaces,
    /// The most requests under way at once.
    pub pending_max: usize,
    /// The most bytes of keys and values in requests under way at once.
    pub pending_bytes_max: usize,
    /// The most pages of keys that nodes read at once: one at a time in a single thread, so that a
    /// put waits for at most one page.
    pub scans_max: usize,
    /// The memory limit, in bytes ([`MemoryBudget`]); [`MEMORY_UNLIMITED`] for none.
    pub memory_max: usize,
    /// See [`SnapshotPolicy::log_bytes`]; at least 1.
    pub snapshot_log_bytes: u64,
    /// See [`SnapshotPolicy::log_entries`]; at least 1.
    pub snapshot_log_entries: u64,
    /// Decides on the rights of clients; `None`: everything is permitted.
    pub gate: Option<Arc<dyn Gate>>,
}

impl Default for Settings {
    fn default() -> Self {
        let SnapshotPolicy { log_bytes, log_entries, .. } = SnapshotPolicy::default();
        Self {
            nodes: 5,
            heartbeat_interval: Duration::from_millis(50),
            election_timeout_min: Duration::from_millis(300),
            election_timeout_max: Duration::from_millis(600),
            request_timeout: Duration::from_secs(5),
            idle_timeout: Some(Duration::from_secs(1000)),
            connections_max: 10_000,
            client_handshakes_max: CLIENT_HANDSHAKES_MAX,
            peer_places: PeerPlaces::default(),
            // Enough for a thousand pipelining clients; at a few hundred bytes per request, some 50
            // MB.
            pending_max: 1 << 17,
            pending_bytes_max: 256 << 20,
            scans_max: 1,
            memory_max: MEMORY_UNLIMITED,
            snapshot_log_bytes: log_bytes,
            snapshot_log_entries: log_entries,
            gate: None,
        }
    }
}

/// The rule that settings break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettingsError {
    /// `nodes` is not 1 to [`VOTERS_MAX`].
    NodeCount,
    /// The times do not fit each other.
    Times(ConfigError),
    /// A snapshot would be due while the log is empty.
    SnapshotPolicy,
}

impl std::fmt::Display for SettingsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NodeCount => write!(f, "a cluster has 1 to {VOTERS_MAX} nodes"),
            Self::Times(error) => error.fmt(f),
            Self::SnapshotPolicy => {
                write!(f, "a snapshot is due after at least one byte and one entry of log")
            }
        }
    }
}

impl std::error::Error for SettingsError {}

impl Settings {
    /// The ids of the nodes, ascending.
    #[must_use]
    pub fn node_ids(&self) -> Vec<NodeId> {
        (0..self.nodes as u64).map(NodeId).collect()
    }

    /// Returns the settings of each node, in the order of their ids.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] names the rule that the settings break.
    pub fn raft_configs(&self) -> Result<Vec<Config>, SettingsError> {
        let voters = Voters::new(self.node_ids()).ok_or(SettingsError::NodeCount)?;
        let config_of = |&id: &NodeId| Config {
            heartbeat_interval: self.heartbeat_interval,
            election_timeout_min: self.election_timeout_min,
            election_timeout_max: self.election_timeout_max,
            ..Config::new(id, voters.clone())
        };
        let configs = voters.nodes().iter().map(config_of);
        let configs: Vec<_> = configs.map(|config| self.cluster_shares().limit_config(config)).collect();
        configs.iter().try_for_each(Config::check).map_err(SettingsError::Times)?;
        Ok(configs)
    }

    /// Returns the settings of one node of a cluster of processes.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] names the rule that the settings break.
    pub fn member_config(&self, local: &LocalNode, founders: &Founders) -> Result<Config, SettingsError> {
        let voters = Voters::new(founders.ids()).ok_or(SettingsError::NodeCount)?;
        let config = Config {
            incarnation: Some(local.incarnation),
            addition: local.addition,
            roster: founders.roster.clone(),
            heartbeat_interval: self.heartbeat_interval,
            election_timeout_min: self.election_timeout_min,
            election_timeout_max: self.election_timeout_max,
            ..Config::new(local.id, voters)
        };
        let config = self.member_shares().limit_config(config);
        config.check().map_err(SettingsError::Times)?;
        Ok(config)
    }

    /// Checks the settings that do not depend on the number of nodes.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] names the rule that the settings break.
    pub fn check(&self) -> Result<(), SettingsError> {
        Self { nodes: 1, ..self.clone() }.raft_configs()?;
        self.replica_limits().map(drop)
    }

    /// Returns the limits of each node.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] names the rule that the settings break.
    pub fn replica_limits(&self) -> Result<ReplicaLimits, SettingsError> {
        let snapshots = SnapshotPolicy {
            log_bytes: self.snapshot_log_bytes,
            log_entries: self.snapshot_log_entries,
            ..SnapshotPolicy::default()
        };
        if snapshots.log_bytes == 0 || snapshots.log_entries == 0 {
            return Err(SettingsError::SnapshotPolicy);
        }
        // Session limits are not configurable: they affect the outcome of an entry, which must be
        // the same on all nodes.
        Ok(ReplicaLimits { sessions: SessionLimits::default(), snapshots, ..ReplicaLimits::default() })
    }

    /// Returns the memory shares of all nodes of a cluster in one process.
    #[must_use]
    pub fn cluster_shares(&self) -> MemoryShares {
        MemoryShares::of_cluster(self.memory_max, self.nodes)
    }

    /// Returns the memory shares of one node of a cluster of processes.
    #[must_use]
    pub fn member_shares(&self) -> MemoryShares {
        MemoryShares::of_member(self.memory_max)
    }

    /// Returns the memory budget of a server with these shares. A connection takes
    /// `connection_bytes`, even while it is idle.
    #[must_use]
    pub fn memory_budget(&self, shares: MemoryShares, connection_bytes: usize) -> MemoryBudget {
        MemoryBudget::new(self.memory_max, self.connections_max, connection_bytes).with_shares(shares)
    }

    /// Returns the settings of the proxy in front of one node of a cluster of processes, which
    /// knows no other node yet.
    #[must_use]
    pub fn member_proxy_config(&self, id: NodeId) -> ProxyConfig {
        ProxyConfig { nodes: vec![id], local: Some(id), ..self.proxy_config() }
    }

    /// Returns the proxy's settings.
    #[must_use]
    pub fn proxy_config(&self) -> ProxyConfig {
        ProxyConfig {
            nodes: self.node_ids(),
            local: None,
            request_timeout: self.request_timeout,
            pending_max: self.pending_max,
            scans_max: self.scans_max,
            // Copies of a request wait in the connection, at the proxy and in the log.
            pending_bytes_max: self.pending_bytes_max.min(self.memory_max / 8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_make_five_nodes_that_know_one_another() {
        let configs = Settings::default().raft_configs().unwrap();
        assert_eq!(configs.len(), 5);
        assert!(configs.iter().all(|config| config.voters.nodes().len() == 5));
        assert_eq!(configs[3].id, NodeId(3));
    }

    #[test]
    fn the_number_of_nodes_has_limits() {
        for nodes in [0, VOTERS_MAX + 1] {
            let error = Settings { nodes, ..Settings::default() }.raft_configs().unwrap_err();
            assert_eq!(error, SettingsError::NodeCount);
        }
        assert!(Settings { nodes: VOTERS_MAX, ..Settings::default() }.raft_configs().is_ok());
        let tied = Settings { election_timeout_max: Duration::ZERO, ..Settings::default() };
        assert!(matches!(tied.raft_configs(), Err(SettingsError::Times(_))));
    }

    #[test]
    fn a_snapshot_is_due_after_at_least_one_byte_and_one_entry() {
        assert_eq!(Settings::default().replica_limits().unwrap().snapshots, SnapshotPolicy::default());
        let no_bytes = Settings { snapshot_log_bytes: 0, ..Settings::default() };
        let no_entries = Settings { snapshot_log_entries: 0, ..Settings::default() };
        for settings in [no_bytes, no_entries] {
            assert_eq!(settings.replica_limits().unwrap_err(), SettingsError::SnapshotPolicy);
        }
    }
}
