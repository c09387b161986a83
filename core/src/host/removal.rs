//! Removal of a node: when a node ends that was removed from its cluster.
//!
//! The node learns of its removal from its own log or from the first node that it dials. It does
//! not end at once: writes that it has proposed as the leader, or has forwarded, may have no
//! outcome yet, and the next leader will have one. So it runs on for [`REMOVAL_GRACE`], forwards
//! requests, and answers no read from its own state.

use std::time::Duration;

use crate::peer::HandshakeRefusal;
use crate::time::Instant;

/// How long a removed node runs on. Chosen to cover an election, and the answers of the next leader
/// to the requests under way.
pub const REMOVAL_GRACE: Duration = Duration::from_secs(2);

/// Whether this node was removed, and when it learned of it. See the module.
#[derive(Clone, Debug, Default)]
pub struct Removal {
    heard: Option<(Instant, HandshakeRefusal)>,
}

impl Removal {
    /// Notes that the node was removed. Only the first call counts.
    pub fn hear(&mut self, refusal: HandshakeRefusal, now: Instant) {
        self.heard.get_or_insert((now, refusal));
    }

    /// Returns whether the node has learned of its removal.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.heard.is_some()
    }

    /// Returns the reason for which the node must end, once the grace period is over.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> Option<HandshakeRefusal> {
        let (heard_at, refusal) = self.heard.as_ref()?;
        (now.since(*heard_at) >= REMOVAL_GRACE).then(|| refusal.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_node_ends_after_the_grace_period() {
        let refusal = |index| HandshakeRefusal::Removed { node: 3, index };
        let start = Instant::from_micros(1_000_000);
        let mut removal = Removal::default();
        assert_eq!(removal.is_due(start + 2 * REMOVAL_GRACE), None);
        removal.hear(refusal(7), start);
        removal.hear(refusal(8), start + REMOVAL_GRACE);
        assert_eq!(removal.is_due(start), None);
        assert_eq!(removal.is_due(start + REMOVAL_GRACE), Some(refusal(7)));
    }
}
