//! The end of a node that its cluster has removed.
//!
//! The node hears of it from its own log or from the first node that it dials. It does not end at
//! once: writes that it has led, or has forwarded, may have no outcome yet, and whoever leads next
//! has one. So it goes on for [`REMOVAL_GRACE`], forwards what it is asked, and answers no read
//! from its own map.

use std::time::Duration;

use crate::peer::PeerRefusal;
use crate::time::Instant;

/// How long a removed node goes on. Chosen for an election, and for what is under way to be
/// answered by the next leader.
pub const REMOVAL_GRACE: Duration = Duration::from_secs(2);

/// Whether a node was removed, and when it heard of it. See the module.
#[derive(Clone, Debug, Default)]
pub struct Removal {
    heard: Option<(Instant, PeerRefusal)>,
}

impl Removal {
    /// The node hears that it was removed. Only the first time counts.
    pub fn hear(&mut self, refusal: PeerRefusal, now: Instant) {
        self.heard.get_or_insert((now, refusal));
    }

    /// Whether the node has heard it.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.heard.is_some()
    }

    /// Why the node has to end, once it is time for that.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> Option<PeerRefusal> {
        let (heard_at, refusal) = self.heard.as_ref()?;
        (now.since(*heard_at) >= REMOVAL_GRACE).then(|| refusal.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_node_ends_after_the_grace_period() {
        let refusal = |index| PeerRefusal::Removed { node: 3, index };
        let start = Instant::from_micros(1_000_000);
        let mut removal = Removal::default();
        assert_eq!(removal.is_due(start + 2 * REMOVAL_GRACE), None);
        removal.hear(refusal(7), start);
        removal.hear(refusal(8), start + REMOVAL_GRACE);
        assert_eq!(removal.is_due(start), None);
        assert_eq!(removal.is_due(start + REMOVAL_GRACE), Some(refusal(7)));
    }
}
