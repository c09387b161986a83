//! Keepalive: after which time the operating system gives up a TCP connection whose other end has
//! vanished.
//!
//! A machine that loses its power, or a firewall that forgets a connection, says nothing. A
//! connection that only waits to read would then be there for ever, and one that has written
//! something for a quarter of an hour. So silent connections are probed, and what is written has to
//! be acknowledged in time. An end that is there is not affected: its operating system answers,
//! however long its program is silent. But one that reads nothing of what waits for it, so that its
//! window stays closed, is taken for vanished, too.
//!
//! Deliberately not here: how long a client may be silent that is there
//! ([`Settings::idle_timeout`](super::Settings)).

use std::time::Duration;

use super::SILENCE_MAX;

/// How a connection is watched. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// After how much silence the other end is probed.
    pub idle: Duration,
    /// The pause between two probes.
    pub interval: Duration,
    /// How many probes may stay without an answer.
    pub probes: u32,
    /// How long what was written may stay without an acknowledgement, or unread.
    pub unacknowledged_max: Duration,
}

/// For clients: who has vanished is gone within two minutes, whatever it was doing.
pub const CLIENT_WATCH: Watch = Watch {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(15),
    probes: 3,
    unacknowledged_max: Duration::from_secs(100),
};

/// For connections between nodes. There is something to acknowledge every second
/// ([`PING_EVERY`](super::PING_EVERY)), so the probes are for handshakes that stop half-way.
pub const PEER_WATCH: Watch = Watch { unacknowledged_max: SILENCE_MAX, ..CLIENT_WATCH };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_vanished_is_noticed_within_two_minutes() {
        for watch in [CLIENT_WATCH, PEER_WATCH] {
            let silent = watch.idle + watch.interval * watch.probes;
            assert!(silent < Duration::from_secs(120), "{watch:?}");
            assert!(
                watch.unacknowledged_max < silent,
                "or the probes would be cut short or drawn out: {watch:?}"
            );
        }
    }
}
