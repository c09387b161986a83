//! The settings of a Raft node: timeouts, windows, memory limits and leases.

use std::fmt;
use std::time::Duration;

use super::quorum::Voters;
use super::roster::{Addition, Roster};
use super::types::NodeId;
use crate::identity::Incarnation;
use crate::time::micros;

/// A node's settings.
///
/// ```
/// use coracle_core::raft::{Config, NodeId, Voters};
///
/// let voters = Voters::new([1, 2, 3].map(NodeId)).expect("one to nine voters");
/// let config = Config::new(NodeId(1), voters);
/// assert!(config.heartbeat_interval < config.election_timeout_min);
/// assert!(config.check().is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// The id of this node.
    pub id: NodeId,
    /// The incarnation of this node: a configuration whose roster names another one does not name
    /// this node. `None` where the roster is empty, as in a cluster that runs in one process.
    pub incarnation: Option<Incarnation>,
    /// The addition by which this node became a member; the number of a founder otherwise.
    pub addition: Addition,
    /// The founding voters: those in force before the first configuration of the log. A node that
    /// is not a voter never campaigns.
    pub voters: Voters,
    /// The addresses and incarnations of the founding members; empty when the transport needs none.
    pub roster: Roster,
    /// The interval between the heartbeats of a leader.
    pub heartbeat_interval: Duration,
    /// The shortest election timeout: the time without a leader after which a node campaigns. Also
    /// the time for which a node that heard from a leader refuses to vote for another one (thesis,
    /// §4.2.3).
    pub election_timeout_min: Duration,
    /// The longest election timeout; each one is drawn at random from `min..max`. Also the time for
    /// which a leader continues without answers from a majority, or without its disk.
    pub election_timeout_max: Duration,
    /// The maximum size of the entries in one AppendEntries, in bytes; a larger entry is sent
    /// alone.
    pub append_bytes_max: usize,
    /// The maximum number of AppendEntries with entries in flight to one follower.
    pub in_flight_messages_max: usize,
    /// The maximum number of bytes of entries in flight to one follower; one message may exceed it.
    pub in_flight_bytes_max: usize,
    /// The number of bytes of entries, appended but not committed or not on its own disk, at which
    /// a leader rejects proposals. One entry may exceed it.
    pub uncommitted_bytes_max: usize,
    /// The number of bytes of the log that stay in memory although a snapshot covers them, so that
    /// a follower that lags a little need not be sent the snapshot.
    pub retained_bytes: usize,
    /// The number of bytes of the log that stay in a leader's memory although a snapshot covers
    /// them, for a follower that is being sent entries and answers, however far it lags: otherwise
    /// it would have to be sent a snapshot again each time one is taken. A follower that lags by
    /// more is sent a snapshot.
    pub held_bytes_max: usize,
    /// Lets a leader answer linearizable reads on a lease, without asking a majority each time, for
    /// as long as its followers cannot vote for another node. That relies on all clocks to stay
    /// within this drift (thesis, §6.4.1). `None`: no leases. The setting must be the same on every
    /// node: it also keeps a node from voting for the shortest election timeout after its start.
    pub read_lease: Option<ClockDrift>,
}

impl Config {
    /// Default settings, for nodes on one machine or in one data centre.
    #[must_use]
    pub fn new(id: NodeId, voters: Voters) -> Self {
        Self {
            id,
            incarnation: None,
            addition: Addition::default(),
            voters,
            roster: Roster::default(),
            heartbeat_interval: Duration::from_millis(50),
            election_timeout_min: Duration::from_millis(300),
            election_timeout_max: Duration::from_millis(600),
            // Large enough that a full message keeps a disk and a network busy for milliseconds,
            // small enough that a heartbeat behind it is not late.
            append_bytes_max: 1 << 20,
            in_flight_messages_max: 64,
            in_flight_bytes_max: 8 << 20,
            // A disk of 100 MB/s writes it in less than the shortest election timeout.
            uncommitted_bytes_max: 16 << 20,
            retained_bytes: 4 << 20,
            // Eight times the log size after which a snapshot is usually due: enough for a line of
            // 20 Mbit/s to transfer the snapshot of a state of half a gigabyte, and the entries
            // that are written meanwhile.
            held_bytes_max: 512 << 20,
            read_lease: None,
        }
    }

    /// Checks that the settings are consistent.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the rule that is violated.
    pub fn check(&self) -> Result<(), ConfigError> {
        // The core measures time in whole microseconds.
        let heartbeat = micros(self.heartbeat_interval);
        let (shortest, longest) = (micros(self.election_timeout_min), micros(self.election_timeout_max));
        if heartbeat == 0 {
            return Err(ConfigError::HeartbeatIsZero);
        }
        if shortest <= heartbeat {
            return Err(ConfigError::ElectionBeforeHeartbeat);
        }
        if longest <= shortest {
            return Err(ConfigError::ElectionRangeIsEmpty);
        }
        if self.in_flight_messages_max == 0 || self.in_flight_bytes_max == 0 {
            return Err(ConfigError::WindowIsZero);
        }
        if self.uncommitted_bytes_max == 0 {
            return Err(ConfigError::QuotaIsZero);
        }
        if self.read_lease.is_some_and(|drift| drift.per_mille >= 500) {
            return Err(ConfigError::DriftTooLarge);
        }
        Ok(())
    }
}

/// The maximum drift of clocks, for leases.
///
/// While 1,000 units of time pass, every clock measures at least `1,000 - per_mille` and at most
/// `1,000 + per_mille`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockDrift {
    /// In thousandths; below 500.
    pub per_mille: u32,
}

/// The rule that a [`Config`] violates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// `heartbeat_interval` is shorter than a microsecond.
    HeartbeatIsZero,
    /// `election_timeout_min` is not above `heartbeat_interval`: every heartbeat would come too
    /// late.
    ElectionBeforeHeartbeat,
    /// `election_timeout_max` is not at least a microsecond above `election_timeout_min`: elections
    /// could tie forever.
    ElectionRangeIsEmpty,
    /// `in_flight_messages_max` or `in_flight_bytes_max` is zero: nothing would ever be sent.
    WindowIsZero,
    /// `uncommitted_bytes_max` is zero: nothing would ever be proposed.
    QuotaIsZero,
    /// `read_lease` allows a drift of half the clock's speed or more: no lease would be left.
    DriftTooLarge,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HeartbeatIsZero => "the heartbeat interval must be a microsecond or more",
            Self::ElectionBeforeHeartbeat => {
                "the shortest election timeout must be above the heartbeat interval"
            }
            Self::ElectionRangeIsEmpty => {
                "the longest election timeout must be above the shortest: equal ones can tie forever"
            }
            Self::WindowIsZero => "at least one message and one byte must be allowed in flight",
            Self::QuotaIsZero => "at least one byte must be allowed to wait for its commit",
            Self::DriftTooLarge => "the clock drift for leases must be below 500 per mille",
        })
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inconsistent_settings_are_rejected() {
        let good = Config::new(NodeId(0), Voters::new([NodeId(0)]).unwrap());
        assert_eq!(good.check(), Ok(()));
        let zero = Duration::ZERO;
        let beat = Config { heartbeat_interval: zero, ..good.clone() };
        assert_eq!(beat.check(), Err(ConfigError::HeartbeatIsZero));
        let late = Config { election_timeout_min: good.heartbeat_interval, ..good.clone() };
        assert_eq!(late.check(), Err(ConfigError::ElectionBeforeHeartbeat));
        let tied = Config { election_timeout_max: good.election_timeout_min, ..good.clone() };
        assert_eq!(tied.check(), Err(ConfigError::ElectionRangeIsEmpty));
        let mute = Config { in_flight_messages_max: 0, ..good.clone() };
        assert_eq!(mute.check(), Err(ConfigError::WindowIsZero));
        let narrow = Config { in_flight_bytes_max: 0, ..good.clone() };
        assert_eq!(narrow.check(), Err(ConfigError::WindowIsZero));
        let idle = Config { uncommitted_bytes_max: 0, ..good.clone() };
        assert_eq!(idle.check(), Err(ConfigError::QuotaIsZero));
        let wild = Config { read_lease: Some(ClockDrift { per_mille: 500 }), ..good.clone() };
        assert_eq!(wild.check(), Err(ConfigError::DriftTooLarge));
        let nearly_tied = good.election_timeout_min + Duration::from_nanos(100);
        let tied = Config { election_timeout_max: nearly_tied, ..good };
        assert_eq!(tied.check(), Err(ConfigError::ElectionRangeIsEmpty));
    }
}
