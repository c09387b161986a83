//! TCP keepalive: the time after which the operating system closes a connection whose other end has
//! vanished.
//!
//! A machine that loses power, or a firewall that forgets a connection, sends nothing. A connection
//! that only reads would then exist forever, and one that has written something for a quarter of an
//! hour. So silent connections are probed, and written bytes must be acknowledged in time. A live
//! peer is not affected: its operating system answers, however long its program is silent. But a
//! peer that does not read what waits for it, so that its TCP window stays closed, counts as
//! vanished, too.
//!
//! Deliberately not here: how long a live client may be silent
//! ([`Settings::idle_timeout`](super::Settings)).

use std::time::Duration;

use super::SILENCE_MAX;

/// The keepalive parameters of a connection. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// The silence after which the other end is probed.
    pub idle: Duration,
    /// The interval between two probes.
    pub interval: Duration,
    /// The number of probes that may stay unanswered.
    pub probes: u32,
    /// How long written bytes may stay unacknowledged, or unread.
    pub unacknowledged_max: Duration,
}

/// For clients: a vanished client is disconnected within two minutes, whatever it was doing.
pub const CLIENT_KEEPALIVE: Keepalive = Keepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(15),
    probes: 3,
    unacknowledged_max: Duration::from_secs(100),
};

/// For connections between nodes. They have something to acknowledge every second
/// ([`PING_EVERY`](super::PING_EVERY)), so the probes serve handshakes that stall.
pub const PEER_KEEPALIVE: Keepalive = Keepalive { unacknowledged_max: SILENCE_MAX, ..CLIENT_KEEPALIVE };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vanished_peer_is_noticed_within_two_minutes() {
        for keepalive in [CLIENT_KEEPALIVE, PEER_KEEPALIVE] {
            let silent = keepalive.idle + keepalive.interval * keepalive.probes;
            assert!(silent < Duration::from_secs(120), "{keepalive:?}");
            assert!(
                keepalive.unacknowledged_max < silent,
                "or the probes would be cut short or drawn out: {keepalive:?}"
            );
        }
    }
}
