//! The settings of a node: what it is told before it starts.

use std::fmt;
use std::time::Duration;

use super::quorum::Voters;
use super::roster::{Addition, Roster};
use super::types::NodeId;
use crate::identity::Incarnation;
use crate::time::micros;

/// A node's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which node this is.
    pub id: NodeId,
    /// Which incarnation of that node: a configuration whose roster names another one does not mean
    /// this node. `None` where the roster is empty, as in a cluster that lives in one process.
    pub incarnation: Option<Incarnation>,
    /// The addition that let the node in; a founder's otherwise.
    pub addition: Addition,
    /// The voters that the cluster was founded with: those before the first configuration of the
    /// log. A node that does not vote never campaigns.
    pub voters: Voters,
    /// What is known of the members that the cluster was founded with; empty when nobody has to
    /// look for them.
    pub roster: Roster,
    /// How often a leader tells that it leads.
    pub heartbeat_interval: Duration,
    /// The shortest time without a leader after which a node campaigns. Also how long a node that
    /// heard from a leader refuses to vote for another (thesis, §4.2.3).
    pub election_timeout_min: Duration,
    /// The longest such time; each election draws one from `min..max`. Also how long a leader goes
    /// on without answers from a majority, or without its disk.
    pub election_timeout_max: Duration,
    /// The most bytes of entries in one AppendEntries; an entry that is larger goes alone.
    pub append_bytes_max: usize,
    /// The most AppendEntries with entries on their way to one follower.
    pub in_flight_messages_max: usize,
    /// The most bytes of entries on their way to one follower; one message may pass it.
    pub in_flight_bytes_max: usize,
    /// With this many bytes of entries appended and not committed, or not on its own disk, a leader
    /// refuses proposals. One entry may pass it.
    pub uncommitted_bytes_max: usize,
    /// How many bytes of the log that a snapshot covers stay in memory, so that a follower that is
    /// a little behind need not be sent the snapshot.
    pub retained_bytes: usize,
    /// How many bytes of the log that a snapshot covers stay in a leader's memory for a follower
    /// that is being sent entries and answers, however far behind it is: it would have to be sent a
    /// snapshot anew, as often as one is taken. Beyond that it is.
    pub held_bytes_max: usize,
    /// Lets a leader answer linearizable reads without asking a majority each time, for as long as
    /// its followers cannot vote for another. That trusts all clocks to stay within this drift
    /// (thesis, §6.4.1). `None`: never. The same on every node: it also keeps a node from voting
    /// for the shortest election timeout after its start.
    pub read_lease: Option<ClockDrift>,
}

impl Config {
    /// Settings that fit nodes on one machine or in one data centre.
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
            // Eight times the log after which a snapshot is usually due: as long a line of 20
            // Mbit/s takes for the snapshot of a state of half a gigabyte, and for what is written
            // meanwhile.
            held_bytes_max: 512 << 20,
            read_lease: None,
        }
    }

    /// Checks that the settings fit one another.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the rule that they break.
    pub fn check(&self) -> Result<(), ConfigError> {
        // Whole microseconds are all that the core can tell apart.
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

/// How fast clocks may run apart, for leases.
///
/// While 1,000 units of time pass, every clock measures at least `1,000 - per_mille` and at most
/// `1,000 + per_mille`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockDrift {
    /// Thousandths; below 500.
    pub per_mille: u32,
}

/// A rule that a [`Config`] breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// `heartbeat_interval` is below a microsecond.
    HeartbeatIsZero,
    /// `election_timeout_min` is not above `heartbeat_interval`: every beat would come too late.
    ElectionBeforeHeartbeat,
    /// `election_timeout_max` is not a microsecond above `election_timeout_min`: elections could
    /// tie for ever.
    ElectionRangeIsEmpty,
    /// `in_flight_messages_max` or `in_flight_bytes_max` is zero: nothing would ever be sent.
    WindowIsZero,
    /// `uncommitted_bytes_max` is zero: nothing would ever be proposed.
    QuotaIsZero,
    /// `read_lease` is a drift of half the clock's speed or more: no lease would be left.
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
                "the longest election timeout must be above the shortest: equal ones tie for ever"
            }
            Self::WindowIsZero => "at least one message and one byte must be allowed in flight",
            Self::QuotaIsZero => "at least one byte must be allowed to wait for its commit",
            Self::DriftTooLarge => "the drift of clocks that leases allow for must be below 500 of 1,000",
        })
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_could_never_work_are_refused() {
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
